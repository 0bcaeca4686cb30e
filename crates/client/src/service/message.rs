//! What the calls of the preview take.

use std::time::Duration;

use bytes::Bytes;
use serde_json::{Map, Value};

/// What is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Arrives as a text message.
    Text(String),
    /// Arrives as a binary message.
    Binary(Bytes),
}

impl From<&str> for Message {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Message {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<Vec<u8>> for Message {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Binary(bytes.into())
    }
}

impl From<&[u8]> for Message {
    fn from(bytes: &[u8]) -> Self {
        Self::Binary(Bytes::copy_from_slice(bytes))
    }
}

impl From<Bytes> for Message {
    fn from(bytes: Bytes) -> Self {
        Self::Binary(bytes)
    }
}

/// What a client's URL and its token say.
#[derive(Clone, Debug)]
pub struct ClientEndpointOptions {
    /// Who the client is. Default: nobody yet; the application's answer to the connect event says it.
    pub user: Option<String>,
    /// How long the URL can be used to connect. A connection that stands is not ended by it. Default: 1 h.
    pub lifetime: Duration,
    /// Further claims, which the application gets with every event. Default: none.
    pub claims: Map<String, Value>,
    /// Which kind of messages the client wants. Default: the service's own, which is text.
    pub format: Option<Format>,
}

impl Default for ClientEndpointOptions {
    fn default() -> Self {
        Self { user: None, lifetime: Duration::from_hours(1), claims: Map::new(), format: None }
    }
}

/// The kind of messages that a client gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// Text messages.
    Text,
    /// Binary messages.
    Binary,
}

impl Format {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Binary => "binary",
        }
    }
}
