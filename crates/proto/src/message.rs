//! A message: what one WebSocket message, REST body or upstream answer carries.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::frame::Opcode;

/// Whether a message is text or bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum MessageKind {
    /// UTF-8 text.
    Text,
    /// Any bytes.
    Binary,
}

impl MessageKind {
    /// Returns the opcode of the first frame of such a message.
    pub const fn opcode(self) -> Opcode {
        match self {
            Self::Text => Opcode::Text,
            Self::Binary => Opcode::Binary,
        }
    }
}

/// A whole message.
///
/// Invariant: the data of a text message that came from a client is UTF-8 (RFC 6455 §8.1). A message made from a REST body or
/// an upstream answer is checked where it is made, by [`Message::from_body`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Text or bytes.
    pub kind: MessageKind,
    /// The payload.
    pub data: Bytes,
}

impl Message {
    /// Returns a text message.
    pub fn text(text: impl Into<String>) -> Self {
        Self { kind: MessageKind::Text, data: Bytes::from(text.into()) }
    }

    /// Returns a binary message.
    pub const fn binary(data: Bytes) -> Self {
        Self { kind: MessageKind::Binary, data }
    }

    /// Returns the message that an HTTP body of `content_type` stands for: `application/octet-stream` is binary, everything else is
    /// text, unless its bytes are not UTF-8 (preview protocol, REST notes and answers; the last rule keeps RFC 6455 §5.6).
    pub fn from_body(content_type: Option<&str>, data: Bytes) -> Self {
        let media_type =
            content_type.unwrap_or_default().split(';').next().unwrap_or_default().trim();
        let binary = media_type.eq_ignore_ascii_case("application/octet-stream")
            || simdutf8::basic::from_utf8(&data).is_err();
        Self { kind: if binary { MessageKind::Binary } else { MessageKind::Text }, data }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_becomes_text_unless_it_is_declared_or_proven_binary() {
        let kind = |content_type, data: &'static [u8]| {
            Message::from_body(content_type, Bytes::from_static(data)).kind
        };
        assert_eq!(kind(None, b"hi"), MessageKind::Text);
        assert_eq!(kind(Some("text/plain"), b"hi"), MessageKind::Text);
        assert_eq!(kind(Some("application/json; charset=utf-8"), b"{}"), MessageKind::Text);
        assert_eq!(kind(Some("Application/Octet-Stream; x=y"), b"hi"), MessageKind::Binary);
        assert_eq!(kind(Some("text/plain"), b"\xff"), MessageKind::Binary);
    }
}
