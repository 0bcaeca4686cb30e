//! Events with their bodies.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use hookwire_proto::data::Data;
use serde::{Deserialize, Deserializer, Serialize};

use super::context::{CloudEventError, Context, data_kind};
use crate::payload::Payload;

/// An event and the connection that it happened to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloudEvent {
    /// The connection.
    pub context: Context,
    /// What happened.
    pub event: Event,
}

impl CloudEvent {
    /// Makes an event, for tests of an application. [`CloudEvent::to_request`] posts it.
    pub fn new(hub: impl Into<String>, connection_id: impl Into<String>, event: Event) -> Self {
        Self { context: Context::new(hub, connection_id), event }
    }
}

/// What happened to a connection. `connect` and user events wait for the answer; to the others it does not matter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A client wants in. Answered by a [`ConnectAnswer`](super::ConnectAnswer) or a [`Refusal`](super::Refusal).
    Connect(ConnectRequest),
    /// A client is in.
    Connected,
    /// A client raised an event, or sent a message: that is the event `message` of a client without a subprotocol. Answered by an
    /// [`EventAnswer`](super::EventAnswer) or a [`Refusal`](super::Refusal).
    User {
        /// The event's name.
        name: String,
        /// What the client sent.
        payload: Payload,
        /// Pairs that travel with it.
        metadata: BTreeMap<String, String>,
    },
    /// A connection is over.
    Disconnected {
        /// Why, if anybody said so.
        reason: Option<String>,
    },
    /// A connection became a member of a group.
    Joined {
        /// The group.
        group: String,
    },
    /// A connection is no member of a group any more.
    Left {
        /// The group.
        group: String,
    },
    /// Something that this version does not know: what follows `azure.webpubsub.` in its type.
    Other(String),
}

impl Event {
    /// Reads a body by what follows the common part of `ce-type`.
    pub(super) fn read(
        kind: &str,
        content_type: Option<&str>,
        metadata: BTreeMap<String, String>,
        body: Bytes,
    ) -> Result<Self, CloudEventError> {
        Ok(match kind {
            "sys.connect" => Self::Connect(from_json("connect", &body)?),
            "sys.connected" => Self::Connected,
            "sys.disconnected" => {
                let Reason { reason } = from_json("disconnected", &body)?;
                Self::Disconnected { reason: reason.filter(|reason| !reason.is_empty()) }
            }
            "gp.joined" => {
                let Member { group } = from_json("joined", &body)?;
                Self::Joined { group }
            }
            "gp.left" => {
                let Member { group } = from_json("left", &body)?;
                Self::Left { group }
            }
            other => match other.strip_prefix("user.") {
                Some(name) if !name.is_empty() => {
                    let kind =
                        content_type.and_then(data_kind).ok_or(CloudEventError::ContentType)?;
                    let data = Data::new(kind, body).map_err(CloudEventError::Payload)?;
                    Self::User { name: name.to_owned(), payload: data.into(), metadata }
                }
                _ => Self::Other(other.to_owned()),
            },
        })
    }
}

fn from_json<'a, T: Deserialize<'a> + Default>(
    event: &'static str,
    body: &'a [u8],
) -> Result<T, CloudEventError> {
    match body.trim_ascii() {
        b"" => Ok(T::default()),
        // An array would pass for a struct.
        object if object.starts_with(b"{") => {
            serde_json::from_slice(object).map_err(|_| CloudEventError::Body { event })
        }
        _ => Err(CloudEventError::Body { event }),
    }
}

#[derive(Deserialize, Default)]
struct Reason {
    #[serde(default)]
    reason: Option<String>,
}

#[derive(Deserialize, Default)]
struct Member {
    group: String,
}

/// What a client shows that wants in. `Debug` shows no value: there are cookies and claims among them.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ConnectRequest {
    /// The claims of its token by name.
    #[serde(deserialize_with = "or_default")]
    pub claims: BTreeMap<String, Vec<String>>,
    /// The parameters of its URL by name, without the token.
    #[serde(deserialize_with = "or_default")]
    pub query: BTreeMap<String, Vec<String>>,
    /// The headers of its handshake by name, without `Authorization`.
    #[serde(deserialize_with = "or_default")]
    pub headers: BTreeMap<String, Vec<String>>,
    /// The subprotocols that it offers, most wanted first.
    #[serde(deserialize_with = "or_default")]
    pub subprotocols: Vec<String>,
    /// The certificates that it has shown.
    #[serde(deserialize_with = "or_default")]
    pub client_certificates: Vec<ClientCertificate>,
}

impl ConnectRequest {
    /// Returns the first value of a claim.
    pub fn claim(&self, name: &str) -> Option<&str> {
        self.claims.get(name)?.first().map(String::as_str)
    }

    /// Returns the value of a parameter. Of several the last.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.query.get(name)?.last().map(String::as_str)
    }

    /// Returns the first value of a header, whatever the case of its name.
    pub fn header(&self, name: &str) -> Option<&str> {
        let values = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        values?.1.first().map(String::as_str)
    }

    /// Returns whether the client offers a subprotocol.
    pub fn offers(&self, subprotocol: &str) -> bool {
        self.subprotocols.iter().any(|offered| offered == subprotocol)
    }
}

impl fmt::Debug for ConnectRequest {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ConnectRequest")
            .field("claims", &self.claims.len())
            .field("query", &self.query.len())
            .field("headers", &self.headers.len())
            .field("subprotocols", &self.subprotocols)
            .field("client_certificates", &self.client_certificates.len())
            .finish()
    }
}

/// A certificate of a client.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientCertificate {
    /// Its SHA-1 hash in hexadecimal digits.
    pub thumbprint: String,
    /// The certificate, PEM.
    pub content: String,
}

/// `null` is nothing.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Option::deserialize(deserializer).map(Option::unwrap_or_default)
}
