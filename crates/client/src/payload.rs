//! What messages and events of Web PubSub carry.

use bytes::Bytes;
use hookwire_proto::data::{Data, DataError, DataKind};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Text, JSON, bytes or a protobuf message.
///
/// Texts and bytes become payloads by themselves wherever one is asked for; JSON is made by [`Payload::json`].
///
/// ```
/// use hookwire_client::{DataKind, Payload};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let text = Payload::from("hello");
/// assert_eq!(text.as_text(), Some("hello"));
///
/// let order = Payload::json(&("tea", 2))?;
/// assert_eq!(order.kind(), DataKind::Json);
/// assert_eq!(order.read_json::<(String, u32)>()?, ("tea".to_owned(), 2));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload(Data);

impl Payload {
    /// Returns the JSON of a value.
    ///
    /// # Errors
    /// [`PayloadError`] when the value cannot be written, is `null` or nests too deep.
    pub fn json(value: &(impl Serialize + ?Sized)) -> Result<Self, PayloadError> {
        let bytes = serde_json::to_vec(value)?;
        Ok(Self(Data::new(DataKind::Json, bytes.into())?))
    }

    /// Returns JSON that is written already; it travels as it is.
    ///
    /// # Errors
    /// [`PayloadError::Data`] when the text is no JSON, is `null` or nests too deep.
    pub fn raw_json(text: impl Into<String>) -> Result<Self, PayloadError> {
        Ok(Self(Data::new(DataKind::Json, text.into().into())?))
    }

    /// Returns a serialised `google.protobuf.Any`.
    ///
    /// # Errors
    /// [`PayloadError::Data`] when the bytes are none.
    pub fn protobuf(any: impl Into<Bytes>) -> Result<Self, PayloadError> {
        Ok(Self(Data::new(DataKind::Protobuf, any.into())?))
    }

    /// Returns how to understand the bytes.
    pub fn kind(&self) -> DataKind {
        self.0.kind
    }

    /// Returns the bytes: UTF-8 for text and JSON.
    pub fn bytes(&self) -> &Bytes {
        &self.0.bytes
    }

    /// Returns text and JSON as text; nothing for the other kinds.
    pub fn as_text(&self) -> Option<&str> {
        match self.kind() {
            DataKind::Text | DataKind::Json => std::str::from_utf8(&self.0.bytes).ok(),
            DataKind::Binary | DataKind::Protobuf => None,
        }
    }

    /// Reads the bytes as JSON, whatever their kind: many clients send JSON as text.
    ///
    /// # Errors
    /// The bytes are no JSON, or not that of a `T`.
    pub fn read_json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(&self.0.bytes)
    }

    /// Returns the data as the protocol's codecs know it.
    pub fn into_data(self) -> Data {
        self.0
    }

    /// Returns the content type under which HTTP carries it.
    pub(crate) fn content_type(&self) -> &'static str {
        match self.kind() {
            DataKind::Text => "text/plain",
            DataKind::Json => "application/json",
            DataKind::Binary => "application/octet-stream",
            DataKind::Protobuf => "application/x-protobuf",
        }
    }
}

impl From<Data> for Payload {
    fn from(data: Data) -> Self {
        Self(data)
    }
}

impl From<&str> for Payload {
    fn from(text: &str) -> Self {
        Self(Data::text(text))
    }
}

impl From<String> for Payload {
    fn from(text: String) -> Self {
        Self(Data::text(text))
    }
}

impl From<Vec<u8>> for Payload {
    fn from(bytes: Vec<u8>) -> Self {
        Bytes::from(bytes).into()
    }
}

impl From<&[u8]> for Payload {
    fn from(bytes: &[u8]) -> Self {
        Bytes::copy_from_slice(bytes).into()
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self(Data { kind: DataKind::Binary, bytes })
    }
}

/// Why something is no payload.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// The value cannot be written as JSON.
    #[error("the value cannot be written as JSON")]
    Unwritable(#[from] serde_json::Error),
    /// The bytes break a rule of their kind.
    #[error(transparent)]
    Data(#[from] DataError),
}
