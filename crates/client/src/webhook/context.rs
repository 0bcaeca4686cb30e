//! What the headers of an event say.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bytes::Bytes;
use hookwire_proto::data::{DataError, DataKind};
use hookwire_proto::signature::{self, AccessKey};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::de::DeserializeOwned;

use super::event::{CloudEvent, Event};
use super::header;

/// Which connection an event is about, and what is known of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Context {
    /// The connection. Never empty.
    pub connection_id: String,
    /// The hub that it belongs to, as the service spells it.
    pub hub: String,
    /// Who it belongs to, when that is known.
    pub user: Option<String>,
    /// The subprotocol that it speaks, if any. A connect event has none yet.
    pub subprotocol: Option<String>,
    /// What the application last answered by [`ConnectAnswer::state`](super::ConnectAnswer::state) or
    /// [`EventAnswer::state`](super::EventAnswer::state).
    pub state: Option<String>,
    /// Counts the events of the connection.
    pub id: Option<String>,
    /// When it happened, as RFC 3339 writes it.
    pub time: Option<String>,
    /// The host of the service that sends it.
    pub origin: Option<String>,
    /// The value of `ce-signature`, unchecked.
    pub signature: Option<String>,
    kind: String,
    content_type: Option<String>,
    metadata: BTreeMap<String, String>,
}

impl Context {
    /// Returns the context of an event that is made here.
    pub(super) fn new(hub: impl Into<String>, connection_id: impl Into<String>) -> Self {
        Self { hub: hub.into(), connection_id: connection_id.into(), ..Self::default() }
    }

    /// Reads the headers of a request.
    ///
    /// The signature is kept but not checked: that is what a [`Webhook`](super::Webhook) does.
    ///
    /// # Errors
    /// [`CloudEventError`] names the header that is missing, repeated or wrong.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, CloudEventError> {
        let optional = |name| single(headers, name).map(|value| value.map(str::to_owned));
        let required = |name: HeaderName| {
            optional(name.clone())?.ok_or(CloudEventError::Missing { header: name })
        };
        let kind = required(header::TYPE)?;
        if !kind.starts_with(TYPE_PREFIX) {
            return Err(CloudEventError::ForeignType);
        }
        let mut metadata = BTreeMap::new();
        for (name, value) in headers {
            if let Some(key) = name.as_str().strip_prefix(header::METADATA_PREFIX) {
                metadata.insert(key.to_owned(), text(name, value)?.to_owned());
            }
        }
        Ok(Self {
            connection_id: required(header::CONNECTION_ID)?,
            hub: required(header::HUB)?,
            user: optional(header::USER_ID)?,
            subprotocol: optional(header::SUBPROTOCOL)?,
            state: optional(header::CONNECTION_STATE)?,
            id: optional(header::ID)?,
            time: optional(header::TIME)?,
            origin: optional(header::REQUEST_ORIGIN)?,
            signature: optional(header::SIGNATURE)?,
            kind,
            content_type: optional(http::header::CONTENT_TYPE)?,
            metadata,
        })
    }

    /// Reads the body that belongs to these headers.
    ///
    /// # Errors
    /// [`CloudEventError`] when it is not what such an event has.
    pub fn read(mut self, body: Bytes) -> Result<CloudEvent, CloudEventError> {
        let kind = std::mem::take(&mut self.kind);
        let content_type = self.content_type.take();
        let metadata = std::mem::take(&mut self.metadata);
        let event =
            Event::read(&kind[TYPE_PREFIX.len()..], content_type.as_deref(), metadata, body)?;
        Ok(CloudEvent { context: self, event })
    }

    /// Returns whether the service that sent this holds one of `keys`. It takes the same time whatever matches.
    ///
    /// The signature covers the connection id alone: it proves the sender, not the other headers or the body, which is why requests
    /// over an open network belong on HTTPS.
    pub fn is_signed_with(&self, keys: &[AccessKey]) -> bool {
        self.signature
            .as_deref()
            .is_some_and(|value| signature::verify(keys, &self.connection_id, value))
    }

    /// Returns whether these are the headers of a connect event, whose body may be longer than a message's.
    pub fn is_connect(&self) -> bool {
        self.kind == "azure.webpubsub.sys.connect"
    }

    /// Reads the state as the official libraries write it, which is JSON in base64; nothing if there is none.
    ///
    /// # Errors
    /// [`CloudEventError::State`] when it is something else.
    pub fn state_json<T: DeserializeOwned>(&self) -> Result<Option<T>, CloudEventError> {
        let Some(state) = &self.state else { return Ok(None) };
        let bytes = STANDARD.decode(state).or_else(|_| STANDARD_NO_PAD.decode(state));
        let bytes = bytes.map_err(|_| CloudEventError::State)?;
        serde_json::from_slice(&bytes).map(Some).map_err(|_| CloudEventError::State)
    }
}

/// Why a request is no event of Web PubSub. Answer it with 400. No text repeats anything of it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloudEventError {
    /// A header that every event has is absent or empty.
    #[error("the request has no header {header}")]
    Missing {
        /// Its name.
        header: HeaderName,
    },
    /// A header that can stand once stands more often.
    #[error("the request has the header {header} more than once")]
    Repeated {
        /// Its name.
        header: HeaderName,
    },
    /// A header's value is not UTF-8.
    #[error("the request's header {header} is not UTF-8")]
    NotText {
        /// Its name.
        header: HeaderName,
    },
    /// `ce-type` is none of Web PubSub.
    #[error("the request's ce-type is none of Web PubSub")]
    ForeignType,
    /// The content type of a user event is none that the service sends.
    #[error("the request's content type is none of a user event")]
    ContentType,
    /// The body is not what the content type says.
    #[error("the request's body is not of its content type: {0}")]
    Payload(DataError),
    /// The body of a system event is not its JSON.
    #[error("the request's body is not the JSON of a {event} event")]
    Body {
        /// The event.
        event: &'static str,
    },
    /// The connection's state is not JSON in base64.
    #[error("the connection's state is not the JSON that was expected, in base64")]
    State,
}

/// What every `ce-type` begins with.
pub(super) const TYPE_PREFIX: &str = "azure.webpubsub.";

/// Returns the kind of data that a content type stands for; its parameters do not count.
pub(super) fn data_kind(content_type: &str) -> Option<DataKind> {
    let essence = content_type.split(';').next().unwrap_or_default().trim();
    DataKind::ALL.into_iter().find(|kind| {
        let known = kind.content_type().split(';').next().unwrap_or_default();
        known.eq_ignore_ascii_case(essence)
    })
}

/// Returns the value of a header, if there is one and it is not empty.
fn single(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, CloudEventError> {
    let mut values = headers.get_all(&name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(CloudEventError::Repeated { header: name });
    }
    text(&name, value).map(|value| Some(value).filter(|value| !value.is_empty()))
}

fn text<'a>(name: &HeaderName, value: &'a HeaderValue) -> Result<&'a str, CloudEventError> {
    std::str::from_utf8(value.as_bytes())
        .map_err(|_| CloudEventError::NotText { header: name.clone() })
}
