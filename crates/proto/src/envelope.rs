//! What one shard tells the others: an action on whoever a target names.
//!
//! A shard of this node and a shard of another node look the same to the core: both send and receive envelopes.

use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};

use crate::frame::{HEADER_BYTES_MAX, Header, Opcode};
use crate::message::{Message, MessageKind};
use crate::name::{ConnectionId, GroupName, HubName, UserId};

/// Payload of one frame at most; longer messages are fragmented, since some clients refuse larger frames (Netty's default).
pub const FRAME_PAYLOAD_BYTES_MAX: usize = 65_536;

/// An action for the members of one hub.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// The hub.
    pub hub: HubName,
    /// Whom it concerns.
    pub target: Target,
    /// What to send them.
    pub content: Arc<Content>,
}

/// Whom an envelope or a question concerns, within one hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Every connection.
    Hub,
    /// The connections in a group.
    Group(GroupName),
    /// The connections of a user.
    User(UserId),
    /// One connection.
    Connection(ConnectionId),
}

/// How a connection wants messages on its wire. Members of a set that share a form share the encoded bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WireForm {
    /// Text messages as text, binary ones as binary (no `format` in the client's URL).
    AsSent,
    /// Text; bytes that are not UTF-8 as binary (`format=text`).
    Text,
    /// Always binary (`format=binary`).
    Binary,
}

/// A message with its encoded forms, made when first needed and shared by all receivers of a node.
#[derive(Debug)]
pub struct Content {
    message: Message,
    text: OnceLock<Bytes>,
    binary: OnceLock<Bytes>,
}

impl Content {
    /// Returns the content of `message`.
    pub fn new(message: Message) -> Arc<Self> {
        Arc::new(Self { message, text: OnceLock::new(), binary: OnceLock::new() })
    }

    /// Returns the message.
    pub const fn message(&self) -> &Message {
        &self.message
    }

    /// Returns the server's frames of the message in `form`; encoded once.
    pub fn frames(&self, form: WireForm) -> &Bytes {
        let kind = match form {
            WireForm::AsSent => self.message.kind,
            WireForm::Binary => MessageKind::Binary,
            WireForm::Text if self.message.kind == MessageKind::Text => MessageKind::Text,
            WireForm::Text => match simdutf8::basic::from_utf8(&self.message.data) {
                Ok(_) => MessageKind::Text,
                Err(_) => MessageKind::Binary,
            },
        };
        let cell = match kind {
            MessageKind::Text => &self.text,
            MessageKind::Binary => &self.binary,
        };
        cell.get_or_init(|| encode_message(kind, &self.message.data))
    }
}

/// Returns the bare (server's) frames of a whole message, fragmented at [`FRAME_PAYLOAD_BYTES_MAX`].
pub fn encode_message(kind: MessageKind, data: &[u8]) -> Bytes {
    let fragments = data.len().div_ceil(FRAME_PAYLOAD_BYTES_MAX).max(1);
    let mut out = BytesMut::with_capacity(data.len() + fragments * HEADER_BYTES_MAX);
    for at in 0..fragments {
        let start = at * FRAME_PAYLOAD_BYTES_MAX;
        let payload = &data[start..data.len().min(start + FRAME_PAYLOAD_BYTES_MAX)];
        let opcode = if at == 0 { kind.opcode() } else { Opcode::Continuation };
        let fin = at + 1 == fragments;
        Header { fin, opcode, mask: None, payload_bytes: payload.len() as u64 }.put(&mut out);
        out.extend_from_slice(payload);
    }
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::{Connection, Event};
    use crate::frame::Role;

    #[test]
    fn a_form_decides_the_kind_of_frame() {
        let first_byte = |message: Message, form| Content::new(message).frames(form)[0] & 0x0F;
        let (text, utf8, bytes) = (
            Message::text("hi"),
            Message::binary(Bytes::from_static(b"hi")),
            Message::binary(Bytes::from_static(b"\xff")),
        );
        assert_eq!(first_byte(text.clone(), WireForm::AsSent), 1);
        assert_eq!(first_byte(utf8.clone(), WireForm::AsSent), 2);
        assert_eq!(first_byte(text.clone(), WireForm::Binary), 2);
        assert_eq!(first_byte(utf8, WireForm::Text), 1);
        assert_eq!(first_byte(bytes, WireForm::Text), 2, "text frames may carry nothing but UTF-8");
        assert_eq!(first_byte(text, WireForm::Text), 1);
    }

    #[test]
    fn long_messages_are_fragmented_and_arrive_whole() {
        for length in [
            0,
            1,
            FRAME_PAYLOAD_BYTES_MAX,
            FRAME_PAYLOAD_BYTES_MAX + 1,
            3 * FRAME_PAYLOAD_BYTES_MAX,
        ] {
            let message = Message::binary(vec![7; length].into());
            let mut wire = encode_message(message.kind, &message.data).to_vec();
            let mut events = Vec::new();
            Connection::new(Role::Client).handle_input(&mut wire, length, &mut events).unwrap();
            assert_eq!(events, [Event::Message(message)]);
        }
    }
}
