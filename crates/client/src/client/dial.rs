//! From a URL to an open WebSocket (RFC 6455, section 4.1).

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hookwire_proto::deflate::{self, Agreed, Compression};
use hookwire_proto::subprotocol::Subprotocol;
use http::header::{
    CONNECTION, HOST, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_EXTENSIONS, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::{HeaderMap, HeaderName, Request, StatusCode};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper::upgrade::Upgraded;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::connect::HttpConnector;
use sha1::{Digest, Sha1};
use tower::Service as _;
use url::{Position, Url};

use super::error::ConnectError;
use super::session::Lost;
use crate::transport::{self, beginning, one_line};
use crate::trust::Trust;

/// A stream after the handshake, and what was agreed on compression, if anything was.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) stream: Upgraded,
    pub(crate) compression: Option<(Compression, Agreed)>,
}

/// Opens sockets of one subprotocol, or of none.
#[derive(Clone, Debug)]
pub(crate) struct Dialer {
    connector: HttpsConnector<HttpConnector>,
    subprotocol: Option<Subprotocol>,
    /// How to compress if the server agrees; `None`: it is not asked.
    compression: Option<Compression>,
    /// Longest time until a socket is open.
    limit: Duration,
}

impl Dialer {
    /// Prepares; opens nothing.
    pub(crate) fn new(
        subprotocol: Option<Subprotocol>,
        limit: Duration,
        trust: &Trust,
    ) -> Result<Self, ConnectError> {
        let connector = transport::connector(limit, trust)
            .map_err(|error| ConnectError::Tls(Arc::new(error)))?;
        Ok(Self { connector, subprotocol, compression: None, limit })
    }

    /// Says how to compress if the server agrees; by default it is not asked.
    pub(crate) fn offering(self, compression: Option<Compression>) -> Self {
        Self { compression, ..self }
    }

    /// Opens a socket. Dropping the future closes whatever is open by then.
    pub(crate) async fn dial(&self, url: &Url) -> Result<Opened, ConnectError> {
        tokio::time::timeout(self.limit, self.connect(url))
            .await
            .unwrap_or(Err(ConnectError::Timeout))
    }

    async fn connect(&self, url: &Url) -> Result<Opened, ConnectError> {
        let base = http_base(url)?;
        let key = random::<16>().map(|nonce| STANDARD.encode(nonce)).map_err(unreachable)?;
        let mut request = Request::builder()
            .uri(&url[Position::BeforePath..Position::AfterQuery])
            .header(HOST, &url[Position::BeforeHost..Position::AfterPort])
            .header(CONNECTION, "Upgrade")
            .header(UPGRADE, "websocket")
            .header(SEC_WEBSOCKET_VERSION, "13")
            .header(SEC_WEBSOCKET_KEY, &key);
        if let Some(subprotocol) = self.subprotocol {
            request = request.header(SEC_WEBSOCKET_PROTOCOL, subprotocol.name());
        }
        if self.compression.is_some() {
            request = request.header(SEC_WEBSOCKET_EXTENSIONS, deflate::OFFER);
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|_| ConnectError::Url)?;

        let stream = self.connector.clone().call(base).await.map_err(|error| {
            ConnectError::Unreachable(Arc::<dyn std::error::Error + Send + Sync>::from(error))
        })?;
        let (mut sender, connection) = http1::handshake(stream).await.map_err(unreachable)?;
        let exchange = async {
            let response = sender.send_request(request).await.map_err(unreachable)?;
            if response.status() != StatusCode::SWITCHING_PROTOCOLS {
                let status = response.status();
                let body = beginning(response.into_body()).await;
                let excerpt = one_line(&String::from_utf8_lossy(&body));
                return Err(ConnectError::Refused { status, excerpt });
            }
            check(response.headers(), &key, self.subprotocol)?;
            let agreed = agreed(response.headers(), self.compression.is_some())?;
            let stream = hyper::upgrade::on(response).await.map_err(unreachable)?;
            Ok(Opened { stream, compression: self.compression.zip(agreed) })
        };
        // The connection carries the exchange; its end is what hands the socket over.
        let (mut exchange, mut connection) = (pin!(exchange), pin!(connection.with_upgrades()));
        tokio::select! {
            biased;
            outcome = &mut exchange => return outcome,
            _ = &mut connection => {}
        }
        exchange.await
    }
}

/// Returns the URL by which the connection that was lost is asked for: the one by which it was made, and its proof.
pub(super) fn recovery_url(url: &Url, lost: &Lost) -> Url {
    let mut url = url.clone();
    url.query_pairs_mut()
        .append_pair("awps_connection_id", &lost.connection_id)
        .append_pair("awps_reconnection_token", &lost.reconnection_token);
    url
}

/// Returns random bytes.
pub(crate) fn random<const BYTES: usize>() -> Result<[u8; BYTES], getrandom::Error> {
    let mut bytes = [0; BYTES];
    getrandom::fill(&mut bytes)?;
    Ok(bytes)
}

/// Returns where the TCP connection goes, as the connector wants it.
fn http_base(url: &Url) -> Result<http::Uri, ConnectError> {
    let scheme = match url.scheme() {
        "ws" | "http" => "http",
        "wss" | "https" => "https",
        _ => return Err(ConnectError::Url),
    };
    let authority = &url[Position::BeforeHost..Position::AfterPort];
    format!("{scheme}://{authority}/").parse().map_err(|_| ConnectError::Url)
}

/// Checks the answer by which a server becomes a WebSocket.
fn check(
    headers: &HeaderMap,
    key: &str,
    subprotocol: Option<Subprotocol>,
) -> Result<(), ConnectError> {
    let value =
        |name: HeaderName| headers.get(name).map_or("", |value| value.to_str().unwrap_or(""));
    let hash = Sha1::new().chain_update(key).chain_update(ACCEPT_SUFFIX).finalize();
    if !value(UPGRADE).eq_ignore_ascii_case("websocket") {
        return Err(ConnectError::Handshake("it upgrades to something else"));
    }
    if value(SEC_WEBSOCKET_ACCEPT) != STANDARD.encode(hash) {
        return Err(ConnectError::Handshake("it answers another request"));
    }
    if value(SEC_WEBSOCKET_PROTOCOL) != subprotocol.map_or("", Subprotocol::name) {
        return Err(ConnectError::Handshake("it does not take the subprotocol"));
    }
    Ok(())
}

/// Returns what the server agrees to about compression, which may only be there if it was `offered`.
fn agreed(headers: &HeaderMap, offered: bool) -> Result<Option<Agreed>, ConnectError> {
    let refused = ConnectError::Handshake("it takes extensions that were not offered");
    let values = headers.get_all(SEC_WEBSOCKET_EXTENSIONS).iter().map(|value| value.to_str());
    let Ok(values) = values.collect::<Result<Vec<_>, _>>() else { return Err(refused) };
    match deflate::agree(&values.join(",")) {
        Ok(agreed) if offered || agreed.is_none() => Ok(agreed),
        Ok(_) | Err(_) => Err(refused),
    }
}

fn unreachable(error: impl std::error::Error + Send + Sync + 'static) -> ConnectError {
    ConnectError::Unreachable(Arc::new(error))
}

/// Appended to the key before hashing (RFC 6455, section 1.3).
const ACCEPT_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(pairs: &[(&'static str, &'static str)]) -> Result<(), ConnectError> {
        let headers = pairs.iter().map(|(name, value)| {
            (HeaderName::from_static(name), http::HeaderValue::from_static(value))
        });
        // The key and its hash are the example of RFC 6455, section 1.3.
        check(&headers.collect(), "dGhlIHNhbXBsZSBub25jZQ==", Some(Subprotocol::Json))
    }

    #[test]
    fn an_answer_must_upgrade_and_take_the_subprotocol() {
        let good = [
            ("upgrade", "WebSocket"),
            ("sec-websocket-accept", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="),
            ("sec-websocket-protocol", "json.webpubsub.azure.v1"),
        ];
        assert!(answer(&good).is_ok());
        for left_out in 0..good.len() {
            let mut some = good.to_vec();
            some.remove(left_out);
            assert!(matches!(answer(&some), Err(ConnectError::Handshake(_))), "{left_out}");
        }
    }

    #[test]
    fn only_what_was_offered_may_be_taken() {
        let answer = |value: &'static str, offered| {
            let value = (SEC_WEBSOCKET_EXTENSIONS, http::HeaderValue::from_static(value));
            agreed(&HeaderMap::from_iter([value]), offered).map(|agreed| agreed.is_some())
        };
        assert!(matches!(answer("permessage-deflate", true), Ok(true)));
        assert!(matches!(answer("", true), Ok(false)));
        assert!(matches!(answer("permessage-deflate", false), Err(ConnectError::Handshake(_))));
        assert!(matches!(answer("x-other", true), Err(ConnectError::Handshake(_))));
    }

    #[test]
    fn a_recovery_asks_by_the_same_url() {
        let url = Url::parse("wss://h/client/hubs/chat?access_token=t&a=%20b").unwrap();
        let lost = Lost { connection_id: "id".to_owned(), reconnection_token: "a&b".to_owned() };
        assert_eq!(
            recovery_url(&url, &lost).as_str(),
            "wss://h/client/hubs/chat?access_token=t&a=%20b&awps_connection_id=id&awps_reconnection_token=a%26b"
        );
    }

    #[test]
    fn urls_of_other_schemes_lead_nowhere() {
        let base = |url| http_base(&Url::parse(url).unwrap()).map(|uri| uri.to_string());
        assert_eq!(base("ws://h:81/a?b").unwrap(), "http://h:81/");
        assert_eq!(base("wss://u:p@[::1]/").unwrap(), "https://[::1]/");
        assert!(matches!(base("ftp://h/"), Err(ConnectError::Url)));
    }
}
