//! The door of Web PubSub: what a client brings to it (Web PubSub protocol, "Endpoints", "Simple clients", "Reliable protocols and
//! recovery").

use std::collections::BTreeMap;
use std::sync::Arc;

use hookwire_hub::{Connecting, DoorRequest, Recovering, SimpleMode, WebPubSubRequest};
use hookwire_proto::cloud_event::ConnectRequest;
use hookwire_proto::name::{ConnectionId, GroupName, HubName, UserId};
use hookwire_proto::token::Claims;
use http::{HeaderMap, HeaderValue, Request, StatusCode, Version, header};
use url::form_urlencoded;

use super::{QUERY_BYTES_MAX, Wish, accept_value, subprotocols};
use crate::api_error::ApiError;
use crate::auth::ACCESS_TOKEN;
use crate::http::{Caller, Edge};

/// The parameters by which a client asks for its connection back.
const CONNECTION_ID: &str = "awps_connection_id";
const RECONNECTION_TOKEN: &str = "awps_reconnection_token";

/// What a client wants its messages to do.
const MODE: &str = "webpubsub_mode";

/// Returns the value that accepts the upgrade, and what the client wants.
///
/// # Errors
/// 400 for what is no handshake of this protocol, 401 for a token that is there but is not valid.
pub(super) fn check(
    edge: &Edge,
    hub: HubName,
    head: &Request<()>,
    caller: &Caller,
) -> Result<(HeaderValue, Wish), ApiError> {
    if head.version() < Version::HTTP_11 {
        return Err(ApiError::bad_request("a WebSocket handshake needs HTTP/1.1"));
    }
    let accept = accept_value(head.headers())?;
    let subprotocols = subprotocols(head.headers())?;
    let query = Query::parse(head.uri().query().unwrap_or_default());
    if let Some(id) = query.last(CONNECTION_ID).filter(|id| !id.is_empty()) {
        // The token of the first handshake may have expired; the reconnection token speaks for the client.
        let token = query.last(RECONNECTION_TOKEN).unwrap_or_default().to_owned();
        // An id that no node has made is nowhere.
        let id = ConnectionId::parse(id).unwrap_or(ConnectionId::new(0, u16::MAX, [0; 16]));
        return Ok((
            accept,
            Wish::Recover(Recovering { id, hub, subprotocols, deflate: None, token }),
        ));
    }
    let claims = edge.web_pubsub_claims(head, &hub)?;
    let user = claims.as_ref().and_then(|claims| claims.sub()).map(UserId::parse);
    let user = user.transpose().map_err(|error| ApiError::unauthorized(error.to_string()))?;
    let groups = claims.as_ref().map(Claims::groups).transpose();
    let groups = groups.map_err(|error| ApiError::bad_request(error.to_string()))?;
    let mode = mode(&query)?;
    let request = ConnectRequest {
        claims: claims.as_ref().map(Claims::all).unwrap_or_default(),
        query: query.forwarded()?,
        headers: forwarded_headers(head.headers()),
        subprotocols: subprotocols.clone(),
        client_certificates: caller.certificate.as_deref().cloned().into_iter().collect(),
    };
    let request = WebPubSubRequest {
        has_token: claims.is_some(),
        roles: claims.as_ref().map(Claims::roles).unwrap_or_default(),
        groups: groups.unwrap_or_default(),
        mode,
        request: Arc::new(request),
    };
    let connecting = Connecting {
        id: edge.shards.new_connection_id(),
        hub,
        user,
        subprotocols,
        deflate: None,
        door: DoorRequest::WebPubSub(Box::new(request)),
    };
    Ok((accept, Wish::Connect(connecting)))
}

/// The parameters of a client's URL, decoded, in their order.
struct Query(Vec<(String, String)>);

impl Query {
    fn parse(raw: &str) -> Self {
        Self(form_urlencoded::parse(raw.as_bytes()).into_owned().collect())
    }

    /// Returns the last value of a parameter: one that is given twice may have been repeated by a client library.
    fn last(&self, name: &str) -> Option<&str> {
        self.0.iter().rev().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// Returns what the connect event says of it: everything but the token, which would let the upstream act as the client.
    fn forwarded(self) -> Result<BTreeMap<String, Vec<String>>, ApiError> {
        let mut bytes = 0;
        let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for (name, value) in self.0 {
            if name != ACCESS_TOKEN {
                bytes += name.len() + value.len() + 2;
                values.entry(name).or_default().push(value);
            }
        }
        if QUERY_BYTES_MAX < bytes {
            let message = format!("the query without its token exceeds {QUERY_BYTES_MAX} bytes");
            return Err(ApiError::new(StatusCode::URI_TOO_LONG, "QueryTooLong", message));
        }
        Ok(values)
    }
}

fn mode(query: &Query) -> Result<SimpleMode, ApiError> {
    let Some(mode) = query.last(MODE) else { return Ok(SimpleMode::SendEvent) };
    if mode.eq_ignore_ascii_case("sendEvent") {
        return Ok(SimpleMode::SendEvent);
    }
    if !mode.eq_ignore_ascii_case("sendToGroup") {
        return Err(ApiError::bad_request(format!("{MODE} must be sendEvent or sendToGroup")));
    }
    let group = query.last("group").unwrap_or_default();
    let group = GroupName::parse(group)?;
    let no_echo = query.last("noEcho").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    Ok(SimpleMode::SendToGroup { group, no_echo })
}

/// Returns the headers that the connect event repeats: all but those that carry a secret of the service.
fn forwarded_headers(headers: &HeaderMap) -> BTreeMap<String, Vec<String>> {
    let mut forwarded: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in headers {
        if name != header::AUTHORIZATION {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            forwarded.entry(name.as_str().to_owned()).or_default().push(value);
        }
    }
    forwarded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mode_is_read_whatever_its_case_and_the_last_one_counts() {
        let read = |query| mode(&Query::parse(query)).map_err(|error| error.status().as_u16());
        let to_group = |no_echo| {
            let group = GroupName::parse("a b").unwrap();
            Ok(SimpleMode::SendToGroup { group, no_echo })
        };
        assert_eq!(read(""), Ok(SimpleMode::SendEvent));
        assert_eq!(read("webpubsub_mode=SENDEVENT"), Ok(SimpleMode::SendEvent));
        assert_eq!(
            read("webpubsub_mode=x&webpubsub_mode=SendToGroup&group=a%20b"),
            to_group(false)
        );
        assert_eq!(read("webpubsub_mode=sendtogroup&group=a+b&noEcho=True"), to_group(true));
        for bad in ["webpubsub_mode=", "webpubsub_mode=other", "webpubsub_mode=sendToGroup"] {
            assert_eq!(read(bad), Err(400), "{bad}");
        }
    }

    #[test]
    fn the_connect_event_gets_query_and_headers_without_secrets() {
        let query = Query::parse("a=1&access_token=secret&a=2&b=%20");
        let expected = BTreeMap::from([
            ("a".to_owned(), vec!["1".to_owned(), "2".to_owned()]),
            ("b".to_owned(), vec![" ".to_owned()]),
        ]);
        assert_eq!(query.forwarded().unwrap(), expected);
        let long = format!("a={}", "x".repeat(QUERY_BYTES_MAX));
        assert_eq!(Query::parse(&long).forwarded().unwrap_err().status().as_u16(), 414);
        let mut headers = HeaderMap::new();
        headers.append("x-a", HeaderValue::from_static("1"));
        headers.append("x-a", HeaderValue::from_static("2"));
        headers.append("authorization", HeaderValue::from_static("Bearer secret"));
        let forwarded = forwarded_headers(&headers);
        assert_eq!(forwarded, BTreeMap::from([("x-a".to_owned(), vec!["1".into(), "2".into()])]));
    }
}
