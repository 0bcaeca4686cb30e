//! The HTTP requests that leave the service: those of the preview with header names in their documented spelling, those of Web PubSub in
//! lower case, as over HTTP/2.

mod cloud_event;
mod preview;

use std::fmt::{Display, Write as _};
use std::io;
use std::sync::Mutex;

use bytes::{Bytes, BytesMut};
use hookwire_hub::{Call, Dialect, EventCopy};
use hookwire_proto::signature::AccessKey;
use hookwire_proto::tunnel;
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Uri, header};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;
use url::{Position, Url};

use self::cloud_event::CloudEvent;
use super::through_tunnel;
use crate::swap::Swap;

/// Headers of most requests, and bytes of their values. More of either take another allocation.
const HEADERS_USUAL: usize = 24;
const VALUE_BYTES_USUAL: usize = 1_024;

/// Makes requests.
#[derive(Debug)]
pub(super) struct Requests {
    keys: Swap<Vec<AccessKey>>,
    /// The host by which upstreams know the service, as text and as a header.
    origin: String,
    origin_value: HeaderValue,
    preview_spelling: Spelling,
}

/// hyper's private note of how header names are spelled.
#[derive(Debug)]
struct Spelling(Extensions);

/// Where a call goes.
#[derive(Debug)]
pub(super) struct Target {
    /// In normal form, as it was judged.
    pub(super) url: Url,
    uri: Uri,
    /// Host and port.
    host: HeaderValue,
    /// Whether the URL is `tunnel:///…`; its host means nothing then.
    pub(super) is_tunnel: bool,
}

/// The headers of a request.
#[derive(Debug)]
struct Headers {
    map: HeaderMap,
    /// Where values are written before they become slices of it.
    text: BytesMut,
}

impl Target {
    /// Returns the target that `text` names, or `None` if it is neither an http or https URL with a host nor one of the tunnel.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let path = tunnel::path(text);
        let is_tunnel = path.is_some();
        let through_tunnel = path.map(|path| format!("http://{}/{path}", through_tunnel::HOST));
        let url = Url::parse(through_tunnel.as_deref().unwrap_or(text))
            .ok()
            .filter(|url| ["http", "https"].contains(&url.scheme()))?;
        let uri = url.as_str().parse().ok()?;
        let host = url[Position::BeforeHost..Position::AfterPort].parse().ok()?;
        Some(Self { url, uri, host, is_tunnel })
    }

    /// Returns scheme, host and port, which make an upstream.
    pub(super) fn origin(&self) -> &str {
        &self.url[..Position::BeforePath]
    }

    /// Returns the URL without its query, which may hold a secret.
    pub(super) fn shown(&self) -> &str {
        &self.url[..Position::AfterPath]
    }

    /// Returns the URL as a request carries it.
    pub(super) fn uri(&self) -> Uri {
        self.uri.clone()
    }
}

impl Headers {
    fn new() -> Self {
        Self {
            map: HeaderMap::with_capacity(HEADERS_USUAL),
            text: BytesMut::with_capacity(VALUE_BYTES_USUAL),
        }
    }

    /// Adds a header. A value that none can carry is left out: what comes from a client or its token was a URI or a header before, and
    /// a user id has no control characters.
    fn put(&mut self, name: HeaderName, value: &str) {
        self.text.extend_from_slice(value.as_bytes());
        self.put_text(name);
    }

    /// Adds a header with what a value is shown as.
    fn put_shown(&mut self, name: HeaderName, value: impl Display) {
        write!(self.text, "{value}").expect("memory grows as needed");
        self.put_text(name);
    }

    fn put_text(&mut self, name: HeaderName) {
        if let Ok(value) = HeaderValue::from_maybe_shared(self.text.split().freeze()) {
            self.map.insert(name, value);
        }
    }

    fn put_value(&mut self, name: HeaderName, value: HeaderValue) {
        self.map.insert(name, value);
    }
}

impl Requests {
    /// Returns a maker of requests that carry one signature per key and `origin`, the host by which upstreams know the service.
    ///
    /// # Errors
    /// hyper did not read the request that teaches the spelling, or the host is no header's value.
    pub(super) async fn new(keys: Vec<AccessKey>, origin: String) -> io::Result<Self> {
        let preview_spelling = Spelling::of(&preview::NAMES).await?;
        let origin_value = origin.parse().map_err(io::Error::other)?;
        Ok(Self { keys: Swap::new(keys), origin, origin_value, preview_spelling })
    }

    /// Signs with these keys from now on.
    pub(super) fn set_keys(&self, keys: Vec<AccessKey>) {
        self.keys.set(keys);
    }

    /// Returns the host by which upstreams know the service.
    pub(super) fn origin(&self) -> &str {
        &self.origin
    }

    /// Returns the request of `call`, which was decided at `unix_seconds`.
    pub(super) fn call(
        &self,
        call: &Call,
        target: &Target,
        authorization: Option<&HeaderValue>,
        unix_seconds: u64,
    ) -> Request<Full<Bytes>> {
        match &call.dialect {
            Dialect::Preview(context) => {
                let (headers, body) =
                    preview::write(call, context, target.host.clone(), &self.keys.get());
                let mut request = post(target, headers, body);
                *request.extensions_mut() = self.preview_spelling.0.clone();
                request
            }
            Dialect::WebPubSub { handler: _, facts } => {
                let event = CloudEvent {
                    hub: &call.hub,
                    connection: call.connection,
                    user: call.user.as_ref(),
                    facts,
                    has_cookies: true,
                    event: &call.event,
                    unix_seconds,
                };
                self.cloud_event(&event, target, authorization)
            }
        }
    }

    /// Returns the request of a copy, which was made at `unix_seconds`.
    pub(super) fn copy(
        &self,
        copy: &EventCopy,
        target: &Target,
        unix_seconds: u64,
    ) -> Request<Full<Bytes>> {
        let event = CloudEvent {
            hub: &copy.hub,
            connection: copy.connection,
            user: copy.user.as_ref(),
            facts: &copy.facts,
            has_cookies: false,
            event: &copy.event,
            unix_seconds,
        };
        self.cloud_event(&event, target, None)
    }

    fn cloud_event(
        &self,
        event: &CloudEvent<'_>,
        target: &Target,
        authorization: Option<&HeaderValue>,
    ) -> Request<Full<Bytes>> {
        let (host, origin) = (target.host.clone(), self.origin_value.clone());
        let (mut headers, body) = event.write(host, origin, &self.keys.get());
        if let Some(authorization) = authorization {
            headers.put_value(header::AUTHORIZATION, authorization.clone());
        }
        post(target, headers, body)
    }

    /// Returns the question whether an upstream wants events (Web PubSub protocol, "Abuse protection").
    pub(super) fn validation(&self, method: &Method, target: &Target) -> Request<Full<Bytes>> {
        let mut headers = Headers::new();
        headers.put_value(header::HOST, target.host.clone());
        headers.put_value(cloud_event::REQUEST_ORIGIN, self.origin_value.clone());
        headers.put_value(cloud_event::AWPS_VERSION, cloud_event::AWPS_VERSION_VALUE);
        request(method.clone(), target, headers, Bytes::new())
    }
}

/// Returns a header's name in its documented spelling, which the tunnel carries.
pub(super) fn spelled(name: &HeaderName) -> &str {
    let mut known = preview::NAMES.into_iter().chain(cloud_event::NAMES);
    known.find(|known| known.eq_ignore_ascii_case(name.as_str())).unwrap_or(name.as_str())
}

impl Spelling {
    /// Lets hyper's server read a request with every name and keeps what it notes about their spelling: the only way in.
    async fn of(names: &[&str]) -> io::Result<Self> {
        let (mut ours, theirs) = tokio::io::duplex(4_096);
        let mut text = String::from("POST / HTTP/1.1\r\n");
        for name in names {
            text.push_str(name);
            text.push_str(if *name == "Content-Length" { ": 0\r\n" } else { ": x\r\n" });
        }
        text.push_str("\r\n");
        ours.write_all(text.as_bytes()).await?;
        let (sender, receiver) = oneshot::channel();
        let sender = Mutex::new(Some(sender));
        let service = service_fn(|request: Request<hyper::body::Incoming>| {
            if let Some(sender) = sender.lock().expect("only this closure locks it").take() {
                // The receiver outlives the connection.
                let _ = sender.send(request.into_parts().0.extensions);
            }
            async { Ok::<_, std::convert::Infallible>(http::Response::new(String::new())) }
        });
        let connection = hyper::server::conn::http1::Builder::new()
            .preserve_header_case(true)
            .serve_connection(TokioIo::new(theirs), service);
        tokio::select! {
            extensions = receiver => extensions
                .map(Self)
                .map_err(|_| io::Error::other("hyper has not read its own headers")),
            result = connection => Err(io::Error::other(format!("hyper ended early: {result:?}"))),
        }
    }
}

fn post(target: &Target, mut headers: Headers, body: Bytes) -> Request<Full<Bytes>> {
    // hyper leaves it out for an empty body (RFC 9110, section 8.6, wants it on every POST).
    headers.put_value(header::CONTENT_LENGTH, body.len().into());
    request(Method::POST, target, headers, body)
}

fn request(method: Method, target: &Target, headers: Headers, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = target.uri();
    *request.headers_mut() = headers.map;
    request
}
