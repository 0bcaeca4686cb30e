//! What a service tells an application about a connection, as headers of an HTTP request.

use hookwire_proto::signature::{self, AccessKey};
use hookwire_proto::template::EventName;
use hookwire_proto::token::read_user_claims;
use http::{HeaderMap, HeaderName};

use crate::header;

/// A connection's connect, message or disconnect. A message's payload is the request's body.
///
/// ```
/// use hookwire_client::{Event, EventName, header};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut headers = http::HeaderMap::new();
/// headers.insert(header::CONNECTION_ID, "connection-1".parse()?);
/// headers.insert(header::HUB, "chat".parse()?);
/// headers.insert(header::EVENT, "message".parse()?);
/// headers.insert(header::USER_ID, "ann".parse()?);
///
/// let event = Event::from_headers(&headers)?;
/// assert_eq!(event.connection_id, "connection-1");
/// assert_eq!(event.event, EventName::Message);
/// assert_eq!(event.user.as_deref(), Some("ann"));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The connection. Never empty.
    pub connection_id: String,
    /// The hub that it belongs to, as the service spells it.
    pub hub: String,
    /// What happened.
    pub event: EventName,
    /// Who it belongs to, when that is known.
    pub user: Option<String>,
    /// The query of the URL by which the client connected.
    pub query: Query,
    /// The claims of the client's token, in order; a claim with several values stands several times. Text is all there is of
    /// them here, and a value that holds `, ` may read like two claims: decide by [`Event::user`] what matters.
    pub claims: Vec<(String, String)>,
    /// The WebSocket subprotocols that a connecting client offers, most wanted first.
    pub subprotocols: Vec<String>,
    /// The value of `X-ASRS-Signature`, unchecked.
    pub signature: Option<String>,
}

impl Event {
    /// Reads the headers of a request.
    ///
    /// The signature is kept but not checked: use [`Service::event`](crate::Service::event) or [`Event::is_signed_with`] unless
    /// the network keeps strangers out.
    ///
    /// # Errors
    /// [`EventError`] names the header that is missing, repeated or wrong. A request of the service has none of these faults.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, EventError> {
        let required = |name: HeaderName| match single(headers, &name)? {
            Some(value) if !value.is_empty() => Ok(value),
            _ => Err(EventError::Missing { header: name }),
        };
        let event = match required(header::EVENT)? {
            "connect" => EventName::Connect,
            "message" => EventName::Message,
            "disconnect" => EventName::Disconnect,
            _ => return Err(EventError::UnknownEvent),
        };
        if single(headers, &header::CATEGORY)?.is_some_and(|category| category != event.category())
        {
            return Err(EventError::WrongCategory);
        }
        Ok(Self {
            connection_id: required(header::CONNECTION_ID)?.to_owned(),
            hub: required(header::HUB)?.to_owned(),
            event,
            user: single(headers, &header::USER_ID)?
                .filter(|user| !user.is_empty())
                .map(str::to_owned),
            query: Query::parse(single(headers, &header::CLIENT_QUERY)?.unwrap_or_default()),
            claims: read_user_claims(single(headers, &header::USER_CLAIMS)?.unwrap_or_default()),
            subprotocols: subprotocols(headers)?,
            signature: single(headers, &header::SIGNATURE)?.map(str::to_owned),
        })
    }

    /// Returns `connections` or `messages`.
    pub fn category(&self) -> &'static str {
        self.event.category()
    }

    /// Returns the first value of a claim.
    pub fn claim(&self, name: &str) -> Option<&str> {
        self.claims.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Returns whether the service that sent this holds one of `keys`. It takes the same time whatever matches.
    ///
    /// The signature covers the connection id alone: it proves the sender, not the other headers or the body, which is why
    /// requests over an open network belong on HTTPS.
    pub fn is_signed_with(&self, keys: &[AccessKey]) -> bool {
        self.signature
            .as_deref()
            .is_some_and(|value| signature::verify(keys, &self.connection_id, value))
    }
}

/// A form query: names with values, in order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `a=1&b=2` with an optional `?` in front. Nothing in it can be wrong.
    pub fn parse(query: &str) -> Self {
        let query = query.strip_prefix('?').unwrap_or(query);
        Self(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect())
    }

    /// Returns the value of a name. Of several the last, as in the older library.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Returns every value of a name, in order.
    pub fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Returns every name with its value, in order.
    pub fn pairs(&self) -> &[(String, String)] {
        &self.0
    }
}

/// Why a request is no event of the service. Answer it with 400, a wrong signature with 401.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
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
    /// `X-ASRS-Event` says something that is not known.
    #[error("the request's x-asrs-event is none of connect, message, disconnect")]
    UnknownEvent,
    /// `X-ASRS-Category` contradicts `X-ASRS-Event`.
    #[error("the request's x-asrs-category does not fit its x-asrs-event")]
    WrongCategory,
    /// There is no signature, or none of the keys made it.
    #[error("the request is not signed with the service's access key")]
    NotSigned,
}

fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, EventError> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(EventError::Repeated { header: name.clone() });
    }
    text(name, value).map(Some)
}

fn text<'a>(name: &HeaderName, value: &'a http::HeaderValue) -> Result<&'a str, EventError> {
    std::str::from_utf8(value.as_bytes()).map_err(|_| EventError::NotText { header: name.clone() })
}

/// `Sec-WebSocket-Protocol` may be one header with commas, several headers, or both (RFC 6455, section 11.3.4).
fn subprotocols(headers: &HeaderMap) -> Result<Vec<String>, EventError> {
    let name = http::header::SEC_WEBSOCKET_PROTOCOL;
    let mut offered = Vec::new();
    for value in headers.get_all(&name) {
        let parts = text(&name, value)?.split(',').map(str::trim).filter(|part| !part.is_empty());
        offered.extend(parts.map(str::to_owned));
    }
    Ok(offered)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        headers
    }

    const REQUIRED: [(&str, &str); 3] =
        [("x-asrs-connection-id", "id-1"), ("x-asrs-hub", "chat"), ("x-asrs-event", "connect")];

    fn with(more: &[(&'static str, &str)]) -> Result<Event, EventError> {
        Event::from_headers(&headers(&[&REQUIRED, more].concat()))
    }

    #[test]
    fn everything_that_the_service_sends_is_read() {
        let event = with(&[
            ("x-asrs-category", "connections"),
            ("x-asrs-user-id", "änn"),
            ("x-asrs-user-claims", "role: a, role: b, note: x, y"),
            ("x-asrs-client-query", "?name=a+b%26&tag=1&tag=2"),
            ("sec-websocket-protocol", "one, two"),
            ("sec-websocket-protocol", "three"),
            ("x-asrs-signature", "sha256=00"),
        ])
        .unwrap();
        assert_eq!(event.connection_id, "id-1");
        assert_eq!(event.hub, "chat");
        assert_eq!((event.event, event.category()), (EventName::Connect, "connections"));
        assert_eq!(event.user.as_deref(), Some("änn"));
        assert_eq!(event.query.get("name"), Some("a b&"));
        assert_eq!(event.query.get("tag"), Some("2"));
        assert_eq!(event.query.all("tag").collect::<Vec<_>>(), ["1", "2"]);
        assert_eq!(event.query.pairs().len(), 3);
        assert_eq!(event.query.get("none"), None);
        assert_eq!(
            (event.claim("role"), event.claim("note"), event.claim("x")),
            (Some("a"), Some("x, y"), None)
        );
        assert_eq!(event.subprotocols, ["one", "two", "three"]);
    }

    #[test]
    fn what_is_optional_may_be_absent() {
        let event = with(&[("x-asrs-user-id", "")]).unwrap();
        assert_eq!((event.user, event.signature), (None, None));
        assert!(
            event.query.pairs().is_empty()
                && event.claims.is_empty()
                && event.subprotocols.is_empty()
        );
    }

    #[test]
    fn what_is_required_must_be_there() {
        for (index, (name, _)) in REQUIRED.iter().enumerate() {
            let mut present = REQUIRED.to_vec();
            present.remove(index);
            let missing = Err(EventError::Missing { header: HeaderName::from_static(name) });
            assert_eq!(Event::from_headers(&headers(&present)), missing);
            present.push((name, ""));
            assert_eq!(Event::from_headers(&headers(&present)), missing);
        }
    }

    #[test]
    fn faults_are_named() {
        assert_eq!(
            with(&[("x-asrs-hub", "other")]),
            Err(EventError::Repeated { header: header::HUB })
        );
        assert_eq!(with(&[("x-asrs-category", "messages")]), Err(EventError::WrongCategory));
        let mut strange = headers(&REQUIRED);
        strange.insert(header::EVENT, "explode".parse().unwrap());
        assert_eq!(Event::from_headers(&strange), Err(EventError::UnknownEvent));
        let mut bytes = headers(&REQUIRED);
        bytes.insert(header::USER_ID, HeaderValue::from_bytes(b"\xff").unwrap());
        assert_eq!(
            Event::from_headers(&bytes),
            Err(EventError::NotText { header: header::USER_ID })
        );
    }

    #[test]
    fn a_signature_is_checked_against_the_connection() {
        let keys = [
            AccessKey::parse_of_any_strength("one").unwrap(),
            AccessKey::parse_of_any_strength("two").unwrap(),
        ];
        let signed =
            |id: &str| with(&[("x-asrs-signature", &signature::sign(&keys[..1], id))]).unwrap();
        assert!(signed("id-1").is_signed_with(&keys));
        assert!(!signed("id-1").is_signed_with(&keys[1..]));
        assert!(!signed("id-2").is_signed_with(&keys));
        assert!(!with(&[]).unwrap().is_signed_with(&keys));
    }
}
