//! Events as requests, as a service would post them: for tests of applications.

use bytes::Bytes;
use hookwire_proto::signature::{self, AccessKey};
use http::{HeaderName, HeaderValue, Method, Request, Uri};
use http_body_util::Full;
use serde_json::json;

use super::context::TYPE_PREFIX;
use super::event::{CloudEvent, Event};
use super::header;

impl CloudEvent {
    /// Returns the request by which a service would post this event, signed with the keys. The context's own signature does not count.
    ///
    /// ```
    /// use hookwire_client::webhook::{CloudEvent, Event, Webhook};
    /// use hookwire_client::{AccessKey, Payload};
    /// use std::collections::BTreeMap;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let key = AccessKey::parse_of_any_strength("secret")?;
    /// let event = Event::User { name: "buy".to_owned(), payload: Payload::json(&["tea"])?, metadata: BTreeMap::new() };
    /// let mut sent = CloudEvent::new("shop", "connection-1", event);
    /// sent.context.user = Some("ann".to_owned());
    ///
    /// let request = sent.to_request("http://localhost/events", &[key.clone()])?;
    /// let received = Webhook::new([key]).read(request).await?;
    /// assert_eq!(received.event, sent.event);
    /// assert_eq!(received.context.user.as_deref(), Some("ann"));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`RequestError`] when something in it cannot stand in a request.
    pub fn to_request(
        &self,
        url: &str,
        keys: &[AccessKey],
    ) -> Result<Request<Full<Bytes>>, RequestError> {
        let (kind, content_type, body) = self.event.parts();
        let context = &self.context;
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::try_from(url).map_err(|_| RequestError::Url)?;
        let headers = request.headers_mut();
        let mut put = |name: HeaderName, value: &str| match HeaderValue::try_from(value) {
            Ok(value) => {
                headers.insert(name, value);
                Ok(())
            }
            Err(_) => Err(RequestError::Header { header: name }),
        };

        put(header::SPEC_VERSION, "1.0")?;
        put(header::AWPS_VERSION, "1.0")?;
        put(header::TYPE, &format!("{TYPE_PREFIX}{kind}"))?;
        let source = format!("/hubs/{}/client/{}", context.hub, context.connection_id);
        put(header::SOURCE, &source)?;
        put(header::ID, context.id.as_deref().unwrap_or("1"))?;
        put(header::TIME, context.time.as_deref().unwrap_or("1970-01-01T00:00:00Z"))?;
        put(header::SIGNATURE, &signature::sign(keys, &context.connection_id))?;
        put(header::CONNECTION_ID, &context.connection_id)?;
        put(header::HUB, &context.hub)?;
        put(header::EVENT_NAME, kind.split_once('.').map_or(kind.as_str(), |(_, name)| name))?;
        put(header::REQUEST_ORIGIN, context.origin.as_deref().unwrap_or("localhost"))?;
        put(http::header::CONTENT_TYPE, content_type)?;
        for (name, value) in [
            (header::USER_ID, &context.user),
            (header::SUBPROTOCOL, &context.subprotocol),
            (header::CONNECTION_STATE, &context.state),
        ] {
            if let Some(value) = value {
                put(name, value)?;
            }
        }
        if let Event::User { metadata, .. } = &self.event {
            for (key, value) in metadata {
                let name = HeaderName::try_from(format!("{}{key}", header::METADATA_PREFIX));
                put(name.map_err(|_| RequestError::Metadata)?, value)?;
            }
        }
        Ok(request)
    }
}

impl Event {
    /// Returns what follows the common part of the type, the content type and the body.
    fn parts(&self) -> (String, &'static str, Bytes) {
        let system =
            |kind: &str, body: Bytes| (kind.to_owned(), "application/json; charset=utf-8", body);
        let group = |group: &str| json!({ "group": group }).to_string().into();
        match self {
            Self::Connect(request) => {
                let body = serde_json::to_vec(request);
                system("sys.connect", body.expect("maps of texts can be written as JSON").into())
            }
            Self::Connected => system("sys.connected", Bytes::from_static(b"{}")),
            Self::Disconnected { reason } => {
                let reason = reason.as_deref().unwrap_or_default();
                system("sys.disconnected", json!({ "reason": reason }).to_string().into())
            }
            Self::Joined { group: name } => system("gp.joined", group(name)),
            Self::Left { group: name } => system("gp.left", group(name)),
            Self::User { name, payload, .. } => {
                let body = payload.bytes().clone();
                (format!("user.{name}"), payload.kind().content_type(), body)
            }
            Self::Other(kind) => system(kind, Bytes::from_static(b"{}")),
        }
    }
}

/// Why an event makes no request.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The URL is none.
    #[error("the URL is none")]
    Url,
    /// A value cannot stand in a header.
    #[error("the value of {header} cannot stand in a header")]
    Header {
        /// The header.
        header: HeaderName,
    },
    /// A key of the metadata cannot stand in the name of a header.
    #[error("a key of the metadata cannot stand in the name of a header")]
    Metadata,
}
