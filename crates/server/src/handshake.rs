//! A client's handshake: token, subprotocols, the hub's verdict, the upgrade, the hand-over of the socket to a shard.

mod refused_recovery;
mod web_pubsub;

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hookwire_hub::{ClientContext, Connecting, DoorRequest, Recovering};
use hookwire_proto::deflate::{self, Accepted};
use hookwire_proto::envelope::Shape;
use hookwire_proto::name::{ConnectionId, HubName, UserId};
use hookwire_proto::subprotocol::Subprotocol;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version, header};
use http_body_util::Full;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use metrics::Counter;
use sha1::{Digest, Sha1};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_rustls::server::TlsStream;
use url::form_urlencoded;

use crate::api_error::{Answer, ApiError, Refusal};
use crate::auth::ACCESS_TOKEN;
use crate::http::{Caller, Edge, prepare};
use crate::metrics::Handles;
use crate::shards::{Admission, NoAnswer, Upgraded};

/// Handshakes that may wait for their verdict at once.
pub(crate) const HANDSHAKES_MAX: usize = 4_096;

/// Subprotocols that a client may offer.
const SUBPROTOCOLS_MAX: usize = 64;

/// Bytes of all subprotocols that a client offers, joined.
const SUBPROTOCOLS_BYTES_MAX: usize = 4_096;

/// Bytes of a client's query without its token. It is kept as long as the connection and goes out with every event, where common
/// HTTP servers take 8 or 16 KiB of headers.
const QUERY_BYTES_MAX: usize = 4_096;

/// Bytes of the chain of addresses that a client came through, kept and sent like the query.
const FORWARDED_FOR_BYTES_MAX: usize = 1_024;

/// Appended to the client's key before hashing (RFC 6455, section 1.3).
const ACCEPT_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// What a client wants.
#[derive(Debug)]
enum Wish {
    /// A connection.
    Connect(Connecting),
    /// The connection that it had.
    Recover(Recovering),
}

impl Wish {
    /// Returns the id that the connection has or will have.
    const fn id(&self) -> ConnectionId {
        match self {
            Self::Connect(connecting) => connecting.id,
            Self::Recover(recovering) => recovering.id,
        }
    }

    /// Says what the client has offered about compression.
    fn with_offer(mut self, offer: Option<Accepted>) -> Self {
        let deflate = match &mut self {
            Self::Connect(connecting) => &mut connecting.deflate,
            Self::Recover(recovering) => &mut recovering.deflate,
        };
        *deflate = offer.map(Accepted::window);
        self
    }
}

/// Answers a client that wants to connect through the preview's door.
pub(crate) async fn connect(
    edge: &Arc<Edge>,
    hub: HubName,
    format: Option<String>,
    head: &mut Request<()>,
    caller: &Caller,
) -> Result<Answer, ApiError> {
    let checked = check(edge, hub, format.as_deref(), head, caller);
    let checked = checked.map(|(accept, connecting)| (accept, Wish::Connect(connecting)));
    upgrade(edge, head, checked).await
}

/// Answers a client that wants to connect through the door of Web PubSub.
pub(crate) async fn connect_web_pubsub(
    edge: &Arc<Edge>,
    hub: HubName,
    head: &mut Request<()>,
    caller: &Caller,
) -> Result<Answer, ApiError> {
    let checked = web_pubsub::check(edge, hub, head, caller);
    upgrade(edge, head, checked).await
}

/// Brings in who has passed the check. What follows that runs in a task of its own, since hyper forgets this future when the client
/// leaves, while a connection that was admitted must still get its disconnect event.
async fn upgrade(
    edge: &Arc<Edge>,
    head: &mut Request<()>,
    checked: Result<(HeaderValue, Wish), ApiError>,
) -> Result<Answer, ApiError> {
    let checked = checked.and_then(|(accept, wish)| {
        let offer = offer(head.headers())?;
        Ok((accept, offer, wish.with_offer(offer)))
    });
    let (accept, offer, wish) = checked.inspect_err(|error| {
        let unauthorized = error.status() == StatusCode::UNAUTHORIZED;
        count(if unauthorized { "unauthorized" } else { "invalid" });
    })?;
    let upgrade = hyper::upgrade::on(head);
    let (sender, receiver) = oneshot::channel();
    edge.tasks.spawn(bring_in(edge.clone(), wish, (accept, offer), upgrade, sender));
    receiver.await.map_err(|_| ApiError::failed())?
}

/// Returns the value that accepts the upgrade, and who wants in.
fn check(
    edge: &Edge,
    hub: HubName,
    format: Option<&str>,
    head: &Request<()>,
    caller: &Caller,
) -> Result<(HeaderValue, Connecting), ApiError> {
    if head.version() < Version::HTTP_11 {
        return Err(ApiError::bad_request("a WebSocket handshake needs HTTP/1.1"));
    }
    let accept = accept_value(head.headers())?;
    let shape = match format {
        None => Shape::AsSent,
        Some("text") => Shape::Text,
        Some("binary") => Shape::Binary,
        Some(_) => return Err(ApiError::bad_request("the format must be text or binary")),
    };
    let claims = edge.client_claims(head, &hub)?;
    let user = claims.as_ref().and_then(|claims| claims.sub()).map(UserId::parse);
    let user = user.transpose().map_err(|error| ApiError::unauthorized(error.to_string()))?;
    let claims = claims.map(|claims| claims.to_user_claims()).transpose();
    let claims =
        claims.map_err(|error| ApiError::unauthorized(error.to_string()))?.unwrap_or_default();
    let query = query(head.uri().query().unwrap_or_default())?;
    let forwarded_for = forwarded_for(head.headers(), caller.peer)?;
    let thumbprint = caller.certificate.as_ref().map_or("", |shown| &shown.thumbprint);
    let connecting = Connecting {
        id: edge.shards.new_connection_id(),
        hub,
        user,
        subprotocols: subprotocols(head.headers())?,
        deflate: None,
        door: DoorRequest::Preview {
            shape,
            context: ClientContext::new(&query, &claims, &forwarded_for)
                .with_thumbprint(thumbprint),
        },
    };
    Ok((accept, connecting))
}

/// Asks the hub, answers the client and hands its socket over.
async fn bring_in(
    edge: Arc<Edge>,
    wish: Wish,
    (accept, offer): (HeaderValue, Option<Accepted>),
    upgrade: OnUpgrade,
    answer: oneshot::Sender<Result<Answer, ApiError>>,
) {
    let id = wish.id();
    let offered = match &wish {
        Wish::Connect(connecting) => connecting.subprotocols.clone(),
        Wish::Recover(recovering) => recovering.subprotocols.clone(),
    };
    let most = edge.limits().connections_max;
    let verdict = match wish {
        // It is counted already, and waits for no upstream.
        Wish::Recover(recovering) => unanswered(edge.shards.recover(recovering).await),
        Wish::Connect(_) if most != 0 && most <= edge.shards.load() => {
            count("busy");
            Err(ApiError::busy("the node has as many connections as it may"))
        }
        Wish::Connect(connecting) => {
            if let Ok(_place) = edge.handshakes.try_acquire() {
                unanswered(edge.shards.connect(connecting).await)
            } else {
                count("busy");
                Err(ApiError::busy("too many handshakes wait for their upstream"))
            }
        }
    };
    let result = match verdict {
        Ok(Admission::Admitted { subprotocol, is_deflated }) => {
            let accepted = offer.filter(|_| is_deflated);
            let delivered = answer.send(Ok(switching(accept, subprotocol, accepted))).is_ok();
            let handed_over = delivered && hand_over(&edge, id, upgrade).await;
            count(if handed_over { "admitted" } else { "left" });
            if !handed_over {
                edge.shards.abandon(id);
            }
            return;
        }
        Ok(Admission::NotRecovered) => {
            count("not_recovered");
            let known = offered.into_iter().find(|name| Subprotocol::parse(name).is_some());
            let mut switching = switching(accept, known, None);
            let reason = "the connection is not here any more, or the token does not prove that it is the client's";
            let refusal = Refusal { verdict: "not_recovered", reason: reason.to_owned() };
            switching.extensions_mut().insert(refusal);
            if answer.send(Ok(switching)).is_ok() {
                refused_recovery::close(&edge, upgrade).await;
            }
            return;
        }
        Ok(Admission::Refused { status, content_type, body, words }) => {
            count("refused");
            let mut answer = refusal(status, content_type, body);
            // What the upstream said stands in the event log as its answer.
            if let Some(words) = words {
                let verdict = if status == 401 { "no_user" } else { "upstream_failed" };
                answer.extensions_mut().insert(Refusal { verdict, reason: words.to_owned() });
            }
            Ok(answer)
        }
        Err(error) => Err(error),
    };
    // A client that has left needs no answer.
    let _ = answer.send(result);
}

fn unanswered(verdict: Result<Admission, NoAnswer>) -> Result<Admission, ApiError> {
    verdict.map_err(|_| {
        count("unanswered");
        ApiError::shutting_down()
    })
}

/// Waits until hyper has written the 101, then gives the socket to the shard. Returns whether there was one.
async fn hand_over(edge: &Edge, id: ConnectionId, upgrade: OnUpgrade) -> bool {
    let in_time = tokio::time::timeout(edge.limits().handshake_time_max, upgraded(upgrade)).await;
    match in_time.unwrap_or_else(|_| Err("the 101 was not taken in time".to_owned())) {
        Ok(upgraded) => {
            edge.shards.attach(id, upgraded);
            true
        }
        Err(error) => {
            tracing::debug!(error, "a client left during its handshake");
            false
        }
    }
}

/// Returns the socket whose client has been answered with 101, ready for a shard.
async fn upgraded(upgrade: OnUpgrade) -> Result<Upgraded, String> {
    let upgraded = upgrade.await.map_err(|error| error.to_string())?;
    let (socket, tls, leftover) = match upgraded.downcast::<TokioIo<TcpStream>>() {
        Ok(parts) => (parts.io.into_inner(), None, parts.read_buf),
        Err(upgraded) => {
            let parts = upgraded
                .downcast::<TokioIo<TlsStream<TcpStream>>>()
                .map_err(|_| "the upgraded connection is none that is served".to_owned())?;
            let (socket, session) = parts.io.into_inner().into_inner();
            (socket, Some(session), parts.read_buf)
        }
    };
    prepare(&socket, None).map_err(|error| error.to_string())?;
    let socket = socket.into_std().map_err(|error| error.to_string())?;
    Ok(Upgraded { socket, tls, leftover })
}

/// Counts the outcome of a handshake; each has one.
fn count(result: &'static str) {
    static HANDSHAKES: Handles<&str, Counter> = Handles::new();
    let register = || ::metrics::counter!("hookwire_handshakes_total", "result" => result);
    HANDSHAKES.get(result, register).increment(1);
}

pub(crate) fn switching(
    accept: HeaderValue,
    subprotocol: Option<String>,
    accepted: Option<Accepted>,
) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::new()));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    // It was offered in a header, so it fits into one.
    if let Some(value) = subprotocol.and_then(|one| HeaderValue::from_str(&one).ok()) {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, value);
    }
    if let Some(accepted) = accepted {
        let value = HeaderValue::from_static(accepted.header());
        headers.insert(header::SEC_WEBSOCKET_EXTENSIONS, value);
    }
    answer
}

fn refusal(status: u16, content_type: Option<String>, body: Bytes) -> Answer {
    let mut answer = Response::new(Full::new(body));
    *answer.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    if let Some(value) = content_type.and_then(|value| HeaderValue::from_str(&value).ok()) {
        answer.headers_mut().insert(header::CONTENT_TYPE, value);
    }
    answer
}

/// Checks the upgrade request (RFC 6455, section 4.2.1) and returns the value that accepts it.
pub(crate) fn accept_value(headers: &HeaderMap) -> Result<HeaderValue, ApiError> {
    let has =
        |name, word: &str| tokens(headers, &name).any(|token| token.eq_ignore_ascii_case(word));
    if !has(header::UPGRADE, "websocket") || !has(header::CONNECTION, "upgrade") {
        return Err(ApiError::bad_request("this is a WebSocket endpoint"));
    }
    if single(headers, &header::SEC_WEBSOCKET_VERSION) != Some(b"13") {
        let message = "only WebSocket version 13 is spoken";
        return Err(ApiError::new(StatusCode::UPGRADE_REQUIRED, "UpgradeRequired", message)
            .with(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")));
    }
    let key = single(headers, &header::SEC_WEBSOCKET_KEY).unwrap_or_default();
    if STANDARD.decode(key).is_ok_and(|key| key.len() == 16) {
        let hash = Sha1::new().chain_update(key).chain_update(ACCEPT_SUFFIX).finalize();
        return Ok(
            HeaderValue::from_str(&STANDARD.encode(hash)).expect("base64 fits into a header")
        );
    }
    Err(ApiError::bad_request("Sec-WebSocket-Key must be 16 bytes in base64"))
}

/// Returns the value of a header that may stand there once.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a [u8]> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    values.next().is_none().then(|| value.as_bytes())
}

/// Returns the items of a header that is a list (RFC 9110, section 5.6.1).
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|item| !item.is_empty())
}

pub(crate) fn subprotocols(headers: &HeaderMap) -> Result<Vec<String>, ApiError> {
    let name = header::SEC_WEBSOCKET_PROTOCOL;
    let is_ascii = headers.get_all(&name).iter().all(|value| value.to_str().is_ok());
    if !is_ascii || !tokens(headers, &name).all(is_token) {
        return Err(ApiError::bad_request("Sec-WebSocket-Protocol must be a list of tokens"));
    }
    let offered: Vec<String> = tokens(headers, &name).map(str::to_owned).collect();
    let bytes: usize = offered.iter().map(String::len).sum();
    if SUBPROTOCOLS_MAX < offered.len() || SUBPROTOCOLS_BYTES_MAX < bytes {
        let message = format!(
            "more than {SUBPROTOCOLS_MAX} subprotocols or {SUBPROTOCOLS_BYTES_MAX} bytes of them"
        );
        return Err(ApiError::bad_request(message));
    }
    Ok(offered)
}

/// Returns which of the client's offers of compression can be taken; whether it is, the hub's settings say.
pub(crate) fn offer(headers: &HeaderMap) -> Result<Option<Accepted>, ApiError> {
    let name = header::SEC_WEBSOCKET_EXTENSIONS;
    let lines = headers.get_all(&name).iter().map(HeaderValue::to_str);
    let malformed =
        || ApiError::bad_request("Sec-WebSocket-Extensions must be a list of extensions");
    let lines: Vec<&str> = lines.collect::<Result<_, _>>().map_err(|_| malformed())?;
    deflate::accept(&lines.join(",")).map_err(|_| malformed())
}

/// Whether a word is a token (RFC 9110, section 5.6.2).
fn is_token(word: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    !word.is_empty() && word.bytes().all(allowed)
}

/// Returns the query as the upstream gets it: without the token, which would let the upstream act as the client; everything else stays
/// byte for byte.
pub(crate) fn query(raw: &str) -> Result<String, ApiError> {
    let is_token = |pair: &&str| {
        form_urlencoded::parse(pair.as_bytes()).next().is_some_and(|(name, _)| name == ACCESS_TOKEN)
    };
    let query = raw.split('&').filter(|pair| !is_token(pair)).collect::<Vec<_>>().join("&");
    if QUERY_BYTES_MAX < query.len() {
        let message = format!("the query without its token exceeds {QUERY_BYTES_MAX} bytes");
        return Err(ApiError::new(StatusCode::URI_TOO_LONG, "QueryTooLong", message));
    }
    if HeaderValue::from_bytes(query.as_bytes()).is_err() {
        return Err(ApiError::bad_request("the query holds a control character"));
    }
    Ok(query)
}

/// Returns the chain of addresses that the client came through, the nearest last.
pub(crate) fn forwarded_for(headers: &HeaderMap, peer: SocketAddr) -> Result<String, ApiError> {
    let name = HeaderName::from_static("x-forwarded-for");
    let mut chain: Vec<&str> = tokens(headers, &name).collect();
    let peer = peer.ip().to_canonical().to_string();
    chain.push(&peer);
    let chain = chain.join(", ");
    if FORWARDED_FOR_BYTES_MAX < chain.len() {
        let message = format!("X-Forwarded-For exceeds {FORWARDED_FOR_BYTES_MAX} bytes");
        return Err(ApiError::bad_request(message));
    }
    Ok(chain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_accept_value_is_that_of_the_rfc() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("upgrade", "WebSocket"),
            ("connection", "keep-alive, Upgrade"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        // RFC 6455, section 1.3.
        assert_eq!(accept_value(&headers).unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        headers.insert("sec-websocket-key", HeaderValue::from_static("c2hvcnQ="));
        assert!(accept_value(&headers).is_err());
        headers.insert("sec-websocket-version", HeaderValue::from_static("8"));
        assert_eq!(accept_value(&headers).unwrap_err().into_answer().status(), 426);
    }

    fn status(error: ApiError) -> u16 {
        error.into_answer().status().as_u16()
    }

    #[test]
    fn keys_and_versions_that_are_doubtful_are_refused() {
        let mut good = HeaderMap::new();
        for (name, value) in [
            ("upgrade", "websocket"),
            ("connection", "upgrade"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ] {
            good.insert(name, HeaderValue::from_static(value));
        }
        for (name, value, expected) in [
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==", 400),
            ("sec-websocket-version", "13", 426),
        ] {
            let mut twice = good.clone();
            twice.append(name, HeaderValue::from_static(value));
            assert_eq!(status(accept_value(&twice).unwrap_err()), expected, "{name} twice");
        }
        for (name, value, expected) in [
            ("sec-websocket-key", "", 400),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZSE=", 400),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ", 400),
            ("sec-websocket-version", "13, 8", 426),
            ("upgrade", "h2c", 400),
            ("connection", "keep-alive", 400),
        ] {
            let mut bad = good.clone();
            bad.insert(name, HeaderValue::from_static(value));
            assert_eq!(status(accept_value(&bad).unwrap_err()), expected, "{name}: {value}");
        }
    }

    #[test]
    fn subprotocols_of_all_headers_count_and_must_be_tokens() {
        let offer = |values: &[&[u8]]| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append("sec-websocket-protocol", HeaderValue::from_bytes(value).unwrap());
            }
            subprotocols(&headers).map_err(status)
        };
        assert_eq!(offer(&[]), Ok(vec![]));
        assert_eq!(offer(&[b" a ,, b", b"c"]), Ok(["a", "b", "c"].map(str::to_owned).to_vec()));
        for bad in [&b"a b"[..], b"a;b", b"\xC3\xA4", b"a, \"b\""] {
            assert_eq!(offer(&[bad]), Err(400), "{bad:?}");
        }
        assert_eq!(offer(&["x,".repeat(SUBPROTOCOLS_MAX + 1).as_bytes()]), Err(400));
        assert_eq!(offer(&["x".repeat(SUBPROTOCOLS_BYTES_MAX + 1).as_bytes()]), Err(400));
        assert_eq!(offer(&["x,".repeat(SUBPROTOCOLS_MAX).as_bytes()]).unwrap().len(), 64);
    }

    #[test]
    fn the_token_is_taken_out_of_the_query_and_nothing_else() {
        let query = |raw: &str| query(raw).map_err(status);
        assert_eq!(query("a=1&access_token=x.y.z&b=%20+&c").unwrap(), "a=1&b=%20+&c");
        assert_eq!(query("access%5Ftoken=x").unwrap(), "", "however it is spelled");
        assert_eq!(query("access_token=x&a&access_token=y&access_token").unwrap(), "a");
        assert_eq!(query("access_tokens=x").unwrap(), "access_tokens=x");
        assert_eq!(query("").unwrap(), "");
        let token = format!("a=1&access_token={}", "x".repeat(2 * QUERY_BYTES_MAX));
        assert_eq!(query(&token).unwrap(), "a=1", "a token may be longer");
        assert_eq!(query(&"x".repeat(QUERY_BYTES_MAX + 1)), Err(414));
        assert_eq!(query("a=\u{7f}"), Err(400));
    }

    #[test]
    fn the_chain_of_addresses_ends_with_the_peer() {
        let peer = "[::ffff:192.0.2.1]:9".parse().unwrap();
        let mut headers = HeaderMap::new();
        assert_eq!(forwarded_for(&headers, peer).unwrap(), "192.0.2.1");
        headers.append("x-forwarded-for", HeaderValue::from_static("203.0.113.7,10.0.0.1"));
        headers.append("x-forwarded-for", HeaderValue::from_static(" 10.0.0.2 "));
        assert_eq!(
            forwarded_for(&headers, peer).unwrap(),
            "203.0.113.7, 10.0.0.1, 10.0.0.2, 192.0.2.1"
        );
        let long = "x".repeat(FORWARDED_FOR_BYTES_MAX);
        headers.append("x-forwarded-for", HeaderValue::from_str(&long).unwrap());
        assert_eq!(forwarded_for(&headers, peer).map_err(status), Err(400));
    }
}
