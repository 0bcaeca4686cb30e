//! What a Web PubSub message carries: data of a kind, and metadata.

use bytes::Bytes;
use serde_json::value::RawValue;

use crate::message::{Message, MessageKind};
use crate::subprotocol::protobuf;

/// Most bytes of a metadata key (Web PubSub protocol, "Message metadata").
pub const METADATA_KEY_BYTES_MAX: usize = 256;

/// Most bytes of a metadata value.
pub const METADATA_VALUE_BYTES_MAX: usize = 1_024;

/// Most bytes of all metadata keys and values of a message.
pub const METADATA_BYTES_MAX: usize = 8 * 1_024;

/// Most arrays and objects of JSON data within each other. .NET reads no more than 64 by default, and the message around the data is
/// one of them: one deeper value would end the receive loop of every .NET client in a group.
pub const JSON_DEPTH_MAX: usize = 63;

/// How the data of a message is to be understood (`dataType` of the JSON subprotocol).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DataKind {
    /// UTF-8 text.
    Text,
    /// One JSON value as its sender wrote it: key order and long numbers stay.
    Json,
    /// Any bytes.
    Binary,
    /// A serialised `google.protobuf.Any`.
    Protobuf,
}

impl DataKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Text, Self::Json, Self::Binary, Self::Protobuf];

    /// Returns the kind of that `dataType`, in any case of letters: the .NET client writes `Text` (Web PubSub protocol, "JSON
    /// subprotocol: client → server").
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str().eq_ignore_ascii_case(name))
    }

    /// Returns the value of `dataType`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Json => "json",
            Self::Binary => "binary",
            Self::Protobuf => "protobuf",
        }
    }

    /// Returns the content type under which an upstream gets such data (Web PubSub protocol, "Payload conversion to the upstream").
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Text => "text/plain; charset=utf-8",
            Self::Json => "application/json; charset=utf-8",
            Self::Binary => "application/octet-stream",
            Self::Protobuf => "application/x-protobuf",
        }
    }

    /// Returns the kind of WebSocket message in which a simple client gets such data (Web PubSub protocol, "Payload conversion to JSON clients").
    pub const fn message_kind(self) -> MessageKind {
        match self {
            Self::Text | Self::Json => MessageKind::Text,
            Self::Binary | Self::Protobuf => MessageKind::Binary,
        }
    }
}

/// Data of a kind. Invariant: text is UTF-8 and JSON is one valid value; whoever makes one has checked it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Data {
    /// How to understand the bytes.
    pub kind: DataKind,
    /// The bytes: text, raw JSON, binary, or a serialised `Any`.
    pub bytes: Bytes,
}

/// Why bytes are not data of their kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DataError {
    /// Text has to be UTF-8.
    #[error("text data must be UTF-8")]
    Text,
    /// JSON has to be one value.
    #[error("JSON data must be one valid JSON value")]
    Json,
    /// Clients of .NET fail on it.
    #[error("JSON data may not be null")]
    Null,
    /// More than [`JSON_DEPTH_MAX`].
    #[error("JSON data may have at most {JSON_DEPTH_MAX} arrays and objects within each other")]
    Depth,
    /// One broken `Any` would make the whole message unreadable for protobuf clients.
    #[error("protobuf data must be a serialised google.protobuf.Any")]
    Protobuf,
}

impl Data {
    /// Returns data whose bytes have been checked to be of that kind. For bytes that come from outside without a type of their own.
    ///
    /// # Errors
    /// [`DataError`] names the rule that the bytes break.
    pub fn new(kind: DataKind, bytes: Bytes) -> Result<Self, DataError> {
        match kind {
            DataKind::Text => {
                simdutf8::basic::from_utf8(&bytes).map_err(|_| DataError::Text)?;
            }
            DataKind::Json => {
                let text = simdutf8::basic::from_utf8(&bytes).map_err(|_| DataError::Json)?;
                let value: &RawValue = serde_json::from_str(text).map_err(|_| DataError::Json)?;
                check_json(value)?;
            }
            DataKind::Binary => {}
            DataKind::Protobuf => {
                protobuf::is_any(&bytes).then_some(()).ok_or(DataError::Protobuf)?;
            }
        }
        Ok(Self { kind, bytes })
    }

    /// Returns text.
    pub fn text(text: impl Into<String>) -> Self {
        Self { kind: DataKind::Text, bytes: Bytes::from(text.into()) }
    }
}

impl From<Message> for Data {
    fn from(message: Message) -> Self {
        let kind = match message.kind {
            MessageKind::Text => DataKind::Text,
            MessageKind::Binary => DataKind::Binary,
        };
        Self { kind, bytes: message.data }
    }
}

/// Checks what the syntax of a value leaves open.
pub(crate) fn check_json(value: &RawValue) -> Result<(), DataError> {
    if value.get() == "null" {
        return Err(DataError::Null);
    }
    let (mut depth, mut deepest, mut in_string) = (0_usize, 0_usize, false);
    let mut bytes = value.get().bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => in_string = !in_string,
            b'\\' => {
                bytes.next();
            }
            b'[' | b'{' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b']' | b'}' if !in_string => depth -= 1,
            _ => {}
        }
    }
    if deepest <= JSON_DEPTH_MAX { Ok(()) } else { Err(DataError::Depth) }
}

/// The metadata of a message: few pairs in the order of their keys, within the limits above. Empty without heap memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Metadata(Vec<(String, String)>);

/// Why metadata is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MetadataError {
    /// A key is not an HTTP token or is too long.
    #[error("a metadata key must be 1 to {METADATA_KEY_BYTES_MAX} token characters")]
    Key,
    /// A value is not printable ASCII or is too long.
    #[error("a metadata value must be at most {METADATA_VALUE_BYTES_MAX} ASCII characters")]
    Value,
    /// All together are too long.
    #[error("metadata must be at most {METADATA_BYTES_MAX} bytes")]
    TooLong,
}

impl Metadata {
    /// Returns checked metadata: keys in lower case, values trimmed, the last of a key's values.
    ///
    /// # Errors
    /// A pair breaks its rule, or all together are too long.
    pub fn new(pairs: impl IntoIterator<Item = (String, String)>) -> Result<Self, MetadataError> {
        let mut checked = std::collections::BTreeMap::new();
        for (key, value) in pairs {
            let is_token =
                |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if key.is_empty() || METADATA_KEY_BYTES_MAX < key.len() || !key.bytes().all(is_token) {
                return Err(MetadataError::Key);
            }
            let value = value.trim();
            let is_plain = |byte: u8| byte == b' ' || byte.is_ascii_graphic();
            if METADATA_VALUE_BYTES_MAX < value.len() || !value.bytes().all(is_plain) {
                return Err(MetadataError::Value);
            }
            checked.insert(key.to_ascii_lowercase(), value.to_owned());
        }
        let bytes: usize = checked.iter().map(|(key, value)| key.len() + value.len()).sum();
        if METADATA_BYTES_MAX < bytes {
            return Err(MetadataError::TooLong);
        }
        Ok(Self(checked.into_iter().collect()))
    }

    /// Whether there is none.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns the pairs by key.
    pub fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }

    /// Returns the bytes of all keys and values.
    pub fn bytes(&self) -> usize {
        self.0.iter().map(|(key, value)| key.len() + value.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Result<Vec<(String, String)>, MetadataError> {
        let owned = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let metadata = Metadata::new(owned)?;
        Ok(metadata.pairs().map(|(key, value)| (key.to_owned(), value.to_owned())).collect())
    }

    #[test]
    fn metadata_is_lowered_trimmed_and_the_last_of_a_key() {
        let expected = vec![("a".to_owned(), "3".to_owned()), ("b".to_owned(), String::new())];
        assert_eq!(pairs(&[("B", " "), ("A", "1"), ("a", " 3 ")]), Ok(expected));
    }

    #[test]
    fn metadata_beyond_its_limits_is_refused() {
        let long = "x".repeat(METADATA_KEY_BYTES_MAX + 1);
        let value = "x".repeat(METADATA_VALUE_BYTES_MAX + 1);
        for key in ["", "a b", "é", &long] {
            assert_eq!(pairs(&[(key, "v")]), Err(MetadataError::Key), "{key}");
        }
        for value in ["é", "a\nb", &value] {
            assert_eq!(pairs(&[("k", value)]), Err(MetadataError::Value), "{value}");
        }
        let keys: Vec<String> = (0..9).map(|at| format!("k{at}")).collect();
        let all: Vec<_> = keys.iter().map(|key| (key.as_str(), &value[1..])).collect();
        assert_eq!(pairs(&all), Err(MetadataError::TooLong));
    }
}
