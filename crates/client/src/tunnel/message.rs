//! Requests and answers of the tunnel as HTTP knows them.

use bytes::Bytes;
use hookwire_proto::tunnel::{Frame, Headers, HttpRequest};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use url::{Position, Url};

/// An event that came through a tunnel: the HTTP request that the service would otherwise have sent.
#[derive(Clone, Debug)]
pub struct TunnelRequest {
    /// The method.
    pub method: Method,
    /// Path and query of the URL.
    pub path_and_query: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

/// The answer to a [`TunnelRequest`].
#[derive(Clone, Debug)]
pub struct TunnelResponse {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl TunnelRequest {
    /// Returns the path without the query, which may hold a key.
    pub fn path(&self) -> &str {
        self.path_and_query.split('?').next().unwrap_or_default()
    }

    /// Returns the request of a frame, or `None` if HTTP knows no such.
    pub(super) fn read(request: &HttpRequest, body: Bytes) -> Option<Self> {
        let method = request.http_method.parse().ok()?;
        let url = Url::parse(&request.url).ok()?;
        let mut headers = HeaderMap::new();
        for (name, values) in &request.headers {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            for value in values {
                headers.append(&name, HeaderValue::from_bytes(value.as_bytes()).ok()?);
            }
        }
        let path_and_query = url[Position::BeforePath..Position::AfterQuery].to_owned();
        Some(Self { method, path_and_query, headers, body })
    }
}

impl TunnelResponse {
    /// Returns an answer in plain text.
    pub fn text(status: StatusCode, text: impl Into<String>) -> Self {
        let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, content_type)]);
        Self { status, headers, body: text.into().into() }
    }

    /// Returns the frames of the answer to `request`.
    pub(super) fn frames(self, request: &HttpRequest) -> Vec<Bytes> {
        let mut headers = Headers::new();
        for (name, value) in &self.headers {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            headers.entry(name.as_str().to_owned()).or_default().push(value);
        }
        let encode = |status: StatusCode, headers, body| -> Option<Vec<Bytes>> {
            let parts = request.answer(status.as_u16(), headers, body).into_iter();
            parts.map(|part| Frame::Response(part).encode().ok()).collect()
        };
        encode(self.status, headers, self.body).unwrap_or_else(|| {
            // Headers that fill a frame.
            encode(StatusCode::BAD_GATEWAY, Headers::new(), Bytes::new()).unwrap_or_default()
        })
    }
}
