//! Sending to everybody, to groups, users and connections.

use std::time::Duration;

use hookwire_proto::data::Metadata;
use http::{HeaderName, HeaderValue, Method};

use super::{Query, ServiceClient, group_path, user_path};
use crate::path::connection_path;
use crate::payload::Payload;
use crate::transport::{Call, MESSAGE_TTL_MAX, ServiceError};

/// A message on its way, and who of its receivers does not get it. A text or bytes alone become one by themselves.
///
/// ```
/// use std::time::Duration;
/// use hookwire_client::{Outgoing, Payload};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let news = Outgoing::new(Payload::json(&["a", "b"])?)
///     .excluding(["connection-1"])
///     .filter("'readers' in groups")
///     .ttl(Duration::from_secs(60))
///     .metadata("kind", "news");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Outgoing {
    payload: Payload,
    excluded: Vec<String>,
    filter: Option<String>,
    ttl: Option<Duration>,
    metadata: Vec<(String, String)>,
}

impl Outgoing {
    /// Takes what is sent.
    pub fn new(payload: impl Into<Payload>) -> Self {
        Self {
            payload: payload.into(),
            excluded: Vec::new(),
            filter: None,
            ttl: None,
            metadata: Vec::new(),
        }
    }

    /// Leaves out connections, by their ids. Not for one connection.
    #[must_use]
    pub fn excluding(mut self, connections: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.excluded.extend(connections.into_iter().map(Into::into));
        self
    }

    /// Leaves out the connections that an `OData` expression does not select, such as `userId ne 'ann'` (Web PubSub protocol,
    /// "Filter"). Not for one connection. See [`odata`](crate::odata) for values in it.
    #[must_use]
    pub fn filter(mut self, expression: impl Into<String>) -> Self {
        self.filter = Some(expression.into());
        self
    }

    /// Sets how long the message waits for a connection whose transport is lost: whole seconds, rounded up, at most
    /// [`MESSAGE_TTL_MAX`]. Without it as long as the connection may come back.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Adds a pair that travels with the message. Of one key the last value counts.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.push((key.into(), value.into()));
        self
    }

    fn call(self, service: &ServiceClient, path: &str) -> Result<Call, ServiceError> {
        let mut query = Query::new();
        query.add_all("excluded", &self.excluded);
        if let Some(filter) = &self.filter {
            query.add("filter", filter);
        }
        if let Some(ttl) = self.ttl {
            if MESSAGE_TTL_MAX < ttl {
                return Err(ServiceError::Ttl);
            }
            let seconds = ttl.as_secs() + u64::from(0 < ttl.subsec_nanos());
            query.add("messageTtlSeconds", &seconds.to_string());
        }
        let metadata = Metadata::new(self.metadata)?;
        let headers = metadata.pairs().map(|(key, value)| {
            let name = HeaderName::try_from(format!("{METADATA_PREFIX}{key}"));
            let value = HeaderValue::try_from(value);
            (
                name.expect("a metadata key is a token (RFC 9110, section 5.1)"),
                value.expect("a metadata value is printable ASCII (RFC 9110, section 5.5)"),
            )
        });
        let mut call = service.hub_call(Method::POST, path, &query);
        call.headers = headers.collect();
        call.body = Some((self.payload.content_type(), self.payload.bytes().clone()));
        Ok(call)
    }
}

impl<T: Into<Payload>> From<T> for Outgoing {
    fn from(payload: T) -> Self {
        Self::new(payload)
    }
}

/// Sending.
impl ServiceClient {
    /// Sends to every connection of the hub.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call.
    pub async fn send_to_all(&self, message: impl Into<Outgoing>) -> Result<(), ServiceError> {
        self.send(":send", message.into()).await
    }

    /// Sends to every connection in a group.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call.
    pub async fn send_to_group(
        &self,
        group: &str,
        message: impl Into<Outgoing>,
    ) -> Result<(), ServiceError> {
        self.send(&format!("{}/:send", group_path(group)?), message.into()).await
    }

    /// Sends to every connection of a user.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call.
    pub async fn send_to_user(
        &self,
        user: &str,
        message: impl Into<Outgoing>,
    ) -> Result<(), ServiceError> {
        self.send(&format!("{}/:send", user_path(user)?), message.into()).await
    }

    /// Sends to one connection. An absent one is no error.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call.
    pub async fn send_to_connection(
        &self,
        connection_id: &str,
        message: impl Into<Outgoing>,
    ) -> Result<(), ServiceError> {
        self.send(&format!("{}/:send", connection_path(connection_id)?), message.into()).await
    }

    async fn send(&self, path: &str, message: Outgoing) -> Result<(), ServiceError> {
        self.perform(message.call(self, path)?).await.map(drop)
    }
}

/// What stands before the key in the name of a header (Web PubSub protocol, "Message metadata").
const METADATA_PREFIX: &str = "x-webpubsub-metadata-";
