//! A client's handshake: token, subprotocols, the hub's verdict, the upgrade, the hand-over of the socket to a shard.

use std::net::SocketAddr;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hookwire_hub::{ClientContext, Connecting};
use hookwire_proto::envelope::WireForm;
use hookwire_proto::name::{ConnectionId, HubName, UserId};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use sha1::{Digest, Sha1};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use url::form_urlencoded;

use crate::api_error::{Answer, ApiError};
use crate::http::{Edge, bearer};
use crate::route::parameter;
use crate::shards::Admission;

/// Handshakes that may wait for their verdict at once.
pub(crate) const HANDSHAKES_MAX: usize = 4_096;

/// Subprotocols that a client may offer.
const SUBPROTOCOLS_MAX: usize = 64;

/// The query parameter that carries a token.
const ACCESS_TOKEN: &str = "access_token";

/// Appended to the client's key before hashing (RFC 6455, section 1.3).
const ACCEPT_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Answers a client that wants to connect. What follows the check runs in a task of its own, since hyper forgets this future when
/// the client leaves, while a connection that was admitted must still get its disconnect event.
pub(crate) async fn connect(
    edge: Arc<Edge>,
    hub: HubName,
    format: Option<String>,
    mut request: Request<Incoming>,
    peer: SocketAddr,
) -> Result<Answer, ApiError> {
    let accept = accept_value(request.headers())?;
    let form = match format.as_deref() {
        None => WireForm::AsSent,
        Some("text") => WireForm::Text,
        Some("binary") => WireForm::Binary,
        Some(_) => return Err(ApiError::bad_request("the format must be text or binary")),
    };
    let query = request.uri().query().unwrap_or_default();
    // A browser can only use the query, so that is looked at first.
    let token = parameter(query, &[ACCESS_TOKEN]).or_else(|| bearer(&request));
    let claims = token.map(|token| edge.check(&token, request.uri().path())).transpose()?;
    let user = claims.as_ref().and_then(|claims| claims.sub()).map(UserId::parse);
    let user = user.transpose().map_err(|error| ApiError::unauthorized(error.to_string()))?;
    let claims = claims.map(|claims| claims.to_user_claims()).transpose();
    let claims =
        claims.map_err(|error| ApiError::unauthorized(error.to_string()))?.unwrap_or_default();
    let connecting = Connecting {
        id: edge.shards.new_connection_id(),
        hub,
        user,
        subprotocols: subprotocols(request.headers())?,
        form,
        context: ClientContext::new(
            &without_token(query),
            &claims,
            &forwarded_for(request.headers(), peer),
        ),
    };
    if edge.handshakes.available_permits() == 0 {
        return Err(ApiError::busy("too many handshakes wait for their upstream"));
    }
    let upgrade = hyper::upgrade::on(&mut request);
    let (sender, receiver) = oneshot::channel();
    edge.tasks.clone().spawn(bring_in(edge, connecting, accept, upgrade, sender));
    receiver.await.map_err(|_| ApiError::shutting_down())?
}

/// Asks the hub, answers the client and hands its socket over.
async fn bring_in(
    edge: Arc<Edge>,
    connecting: Connecting,
    accept: HeaderValue,
    upgrade: OnUpgrade,
    answer: oneshot::Sender<Result<Answer, ApiError>>,
) {
    let Ok(_permit) = edge.handshakes.acquire().await else { return };
    let id = connecting.id;
    let result = match edge.shards.connect(connecting).await {
        Ok(Admission::Admitted { subprotocol }) => {
            ::metrics::counter!("hookwire_handshakes_total", "result" => "admitted").increment(1);
            match answer.send(Ok(switching(accept, subprotocol))) {
                Ok(()) => hand_over(&edge, id, upgrade).await,
                Err(_) => edge.shards.abandon(id),
            }
            return;
        }
        Ok(Admission::Refused { status, content_type, body }) => {
            ::metrics::counter!("hookwire_handshakes_total", "result" => "refused").increment(1);
            Ok(refusal(status, content_type, body))
        }
        Err(_) => Err(ApiError::shutting_down()),
    };
    // A client that has left needs no answer.
    let _ = answer.send(result);
}

/// Waits until hyper has written the 101, then gives the socket to the shard.
async fn hand_over(edge: &Edge, id: ConnectionId, upgrade: OnUpgrade) {
    let socket = async {
        let upgraded = upgrade.await.map_err(|error| error.to_string())?;
        let parts = upgraded
            .downcast::<TokioIo<TcpStream>>()
            .map_err(|_| "the upgraded connection is not a plain socket".to_owned())?;
        let socket = parts.io.into_inner().into_std().map_err(|error| error.to_string())?;
        Ok::<_, String>((socket, parts.read_buf))
    };
    match socket.await {
        Ok((socket, leftover)) => edge.shards.attach(id, socket, leftover),
        Err(error) => {
            tracing::debug!(error, "a client left during its handshake");
            edge.shards.abandon(id);
        }
    }
}

fn switching(accept: HeaderValue, subprotocol: Option<String>) -> Answer {
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
fn accept_value(headers: &HeaderMap) -> Result<HeaderValue, ApiError> {
    let has = |name, word: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values
            .flat_map(|value| value.split(','))
            .any(|token| token.trim().eq_ignore_ascii_case(word))
    };
    if !has(header::UPGRADE, "websocket") || !has(header::CONNECTION, "upgrade") {
        return Err(ApiError::bad_request("this is a WebSocket endpoint"));
    }
    if headers.get(header::SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
        let message = "only WebSocket version 13 is spoken";
        return Err(ApiError::new(StatusCode::UPGRADE_REQUIRED, "UpgradeRequired", message)
            .with(header::SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13")));
    }
    let key = headers.get(header::SEC_WEBSOCKET_KEY).map(HeaderValue::as_bytes).unwrap_or_default();
    if STANDARD.decode(key).is_ok_and(|key| key.len() == 16) {
        let hash = Sha1::new().chain_update(key).chain_update(ACCEPT_SUFFIX).finalize();
        return Ok(
            HeaderValue::from_str(&STANDARD.encode(hash)).expect("base64 fits into a header")
        );
    }
    Err(ApiError::bad_request("Sec-WebSocket-Key must be 16 bytes in base64"))
}

fn subprotocols(headers: &HeaderMap) -> Result<Vec<String>, ApiError> {
    let mut offered = Vec::new();
    for value in headers.get_all(header::SEC_WEBSOCKET_PROTOCOL) {
        let value =
            value.to_str().map_err(|_| ApiError::bad_request("a subprotocol is not ASCII"))?;
        offered.extend(
            value.split(',').map(str::trim).filter(|one| !one.is_empty()).map(str::to_owned),
        );
    }
    if SUBPROTOCOLS_MAX < offered.len() {
        return Err(ApiError::bad_request(format!("more than {SUBPROTOCOLS_MAX} subprotocols")));
    }
    Ok(offered)
}

/// Returns the query without its token, which would let the upstream act as the client; everything else stays byte for byte.
fn without_token(query: &str) -> String {
    let is_token = |pair: &&str| {
        form_urlencoded::parse(pair.as_bytes()).next().is_some_and(|(name, _)| name == ACCESS_TOKEN)
    };
    query.split('&').filter(|pair| !is_token(pair)).collect::<Vec<_>>().join("&")
}

/// Returns the chain of addresses that the client came through, the nearest last.
fn forwarded_for(headers: &HeaderMap, peer: SocketAddr) -> String {
    let known = headers.get_all("x-forwarded-for").iter().filter_map(|value| value.to_str().ok());
    let mut chain: Vec<String> = known.map(str::to_owned).collect();
    chain.push(peer.ip().to_canonical().to_string());
    chain.join(", ")
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

    #[test]
    fn the_token_is_taken_out_of_the_query_and_nothing_else() {
        assert_eq!(without_token("a=1&access_token=x.y.z&b=%20+&c"), "a=1&b=%20+&c");
        assert_eq!(without_token("access%5Ftoken=x"), "", "however it is spelled");
        assert_eq!(without_token("access_tokens=x"), "access_tokens=x");
        assert_eq!(without_token(""), "");
    }
}
