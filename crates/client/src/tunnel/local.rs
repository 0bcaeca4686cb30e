//! An upstream at a URL, most often of the same machine.

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRAILER,
    TRANSFER_ENCODING, UPGRADE,
};
use http::{HeaderMap, HeaderName, Request, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use url::Url;

use super::message::{TunnelRequest, TunnelResponse};
use crate::client::ConnectError;
use crate::transport::{IDLE_CONNECTION_MAX, connector};
use crate::trust::Trust;

/// Longest time until there is a connection to the upstream.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// Longest time of a request, connecting included: a service waits no longer.
const REQUEST_TIME_MAX: Duration = Duration::from_mins(1);

/// Longest body of an answer, in bytes.
const ANSWER_BYTES_MAX: usize = 16 << 20;

/// Headers that concern one connection, and are made anew for the next (RFC 9110, section 7.6.1).
const HOP_BY_HOP: [HeaderName; 10] = [
    HOST,
    CONTENT_LENGTH,
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRAILER,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// An upstream at a URL: what comes through the tunnel is passed on to it, path and query appended to its own path.
#[derive(Clone, Debug)]
pub struct LocalUpstream {
    /// Without a slash at its end.
    base: String,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// Why an upstream has not answered.
enum Fault {
    Request,
    Unreachable,
    Broken,
    TooLong,
}

impl LocalUpstream {
    /// Prepares; opens nothing. The query of `url` does not count; `trust` is whom to believe if it is an `https` URL.
    ///
    /// # Errors
    /// [`ConnectError::Url`] unless it is an `http` or `https` URL, [`ConnectError::Tls`].
    pub fn new(mut url: Url, trust: &Trust) -> Result<Self, ConnectError> {
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(ConnectError::Url);
        }
        url.set_query(None);
        url.set_fragment(None);
        let connector = connector(CONNECT_TIME_MAX, trust)
            .map_err(|error| ConnectError::Tls(std::sync::Arc::new(error)))?;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_CONNECTION_MAX)
            .build(connector);
        Ok(Self { base: url.as_str().trim_end_matches('/').to_owned(), client })
    }

    /// Passes a request on and returns the answer: 502 when the upstream cannot be reached or breaks off, 504 after a minute.
    pub async fn forward(&self, request: TunnelRequest) -> TunnelResponse {
        let exchange = tokio::time::timeout(REQUEST_TIME_MAX, self.exchange(request));
        let (status, text) = match exchange.await {
            Ok(Ok(answer)) => return answer,
            Ok(Err(Fault::Request)) => (StatusCode::BAD_GATEWAY, "the request is no HTTP request"),
            Ok(Err(Fault::Unreachable)) => {
                (StatusCode::BAD_GATEWAY, "the upstream cannot be reached")
            }
            Ok(Err(Fault::Broken)) => (StatusCode::BAD_GATEWAY, "the upstream broke off"),
            Ok(Err(Fault::TooLong)) => {
                (StatusCode::BAD_GATEWAY, "the upstream's answer is too long")
            }
            Err(_) => (StatusCode::GATEWAY_TIMEOUT, "the upstream did not answer in time"),
        };
        TunnelResponse::text(status, text)
    }

    async fn exchange(&self, request: TunnelRequest) -> Result<TunnelResponse, Fault> {
        let url = format!("{}{}", self.base, request.path_and_query);
        let mut outgoing = Request::new(Full::new(request.body));
        *outgoing.method_mut() = request.method;
        *outgoing.uri_mut() = url.parse().map_err(|_| Fault::Request)?;
        *outgoing.headers_mut() = end_to_end(request.headers);
        let response = self.client.request(outgoing).await;
        let response = response
            .map_err(|error| if error.is_connect() { Fault::Unreachable } else { Fault::Broken })?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, ANSWER_BYTES_MAX).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() { Fault::TooLong } else { Fault::Broken }
        })?;
        let headers = end_to_end(head.headers);
        Ok(TunnelResponse { status: head.status, headers, body: body.to_bytes() })
    }
}

fn end_to_end(mut headers: HeaderMap) -> HeaderMap {
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    headers
}
