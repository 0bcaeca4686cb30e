//! The HTTP request of an event, its header names in their documented spelling (preview protocol, "Request headers").

use std::io;
use std::sync::Mutex;
use std::time::SystemTime;

use bytes::Bytes;
use hookwire_hub::{Call, Event};
use hookwire_proto::message::MessageKind;
use hookwire_proto::signature::{self, AccessKey};
use http::{Extensions, HeaderMap, HeaderValue, Method, Request, Uri};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;
use url::{Position, Url};

/// Every name that a request may carry, as it must stand on the wire: consumers look them up in this spelling.
const NAMES: [&str; 16] = [
    "Host",
    "X-ASRS-Connection-Id",
    "X-ASRS-Hub",
    "X-ASRS-Category",
    "X-ASRS-Event",
    "X-ASRS-User-Id",
    "X-ASRS-User-Claims",
    "X-ASRS-Signature",
    "X-ASRS-Client-Query",
    "X-ASRS-Client-Cert-Thumbprint",
    "Sec-WebSocket-Protocol",
    "X-Forwarded-For",
    "Date",
    "Content-Type",
    "Content-Length",
    "User-Agent",
];

/// Makes requests.
#[derive(Debug)]
pub(super) struct Requests {
    keys: Vec<AccessKey>,
    /// hyper's private note of how header names are spelled.
    spelling: Extensions,
}

/// Where a call goes.
#[derive(Debug)]
pub(super) struct Target {
    /// In normal form, as it was judged.
    pub(super) url: Url,
    uri: Uri,
}

impl Target {
    /// Returns the target that `text` names, or `None` if it is not an http or https URL with a host.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let url = Url::parse(text).ok().filter(|url| ["http", "https"].contains(&url.scheme()))?;
        let uri = url.as_str().parse().ok()?;
        Some(Self { url, uri })
    }

    /// Returns scheme, host and port, which make an upstream.
    pub(super) fn origin(&self) -> &str {
        &self.url[..Position::BeforePath]
    }

    /// Returns the URL without its query, which may hold a secret.
    pub(super) fn shown(&self) -> &str {
        &self.url[..Position::AfterPath]
    }
}

impl Requests {
    /// Returns a maker of requests that carry one signature per key.
    ///
    /// # Errors
    /// hyper did not read the request that teaches the spelling.
    pub(super) async fn new(keys: Vec<AccessKey>) -> io::Result<Self> {
        Ok(Self { keys, spelling: spelling().await? })
    }

    /// Returns the request of `call`.
    pub(super) fn build(&self, call: &Call, target: &Target) -> Request<Full<Bytes>> {
        let name = call.event.name();
        let connection = call.connection.to_string();
        let mut headers = HeaderMap::with_capacity(NAMES.len());
        let mut put = |name: &'static str, value: &str| {
            // A user id has no control characters; what else comes from a client or its token was a URI or a header before.
            if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                headers.insert(name, value);
            }
        };
        put("host", &target.url[Position::BeforeHost..Position::AfterPort]);
        put("x-asrs-connection-id", &connection);
        put("x-asrs-hub", call.hub.as_str());
        put("x-asrs-category", name.category());
        put("x-asrs-event", name.as_str());
        if let Some(user) = &call.user {
            put("x-asrs-user-id", user.as_str());
        }
        put("x-asrs-user-claims", call.context.claims());
        put("x-asrs-signature", &signature::sign(&self.keys, &connection));
        if !call.context.query().is_empty() {
            put("x-asrs-client-query", call.context.query());
        }
        put("x-forwarded-for", call.context.forwarded_for());
        put("date", &httpdate::fmt_http_date(SystemTime::now()));
        let data = match &call.event {
            Event::Connect { subprotocols } => {
                if !subprotocols.is_empty() {
                    put("sec-websocket-protocol", &subprotocols.join(", "));
                }
                Bytes::new()
            }
            Event::Message(message) => {
                let content_type = match message.kind {
                    MessageKind::Text => "text/plain",
                    MessageKind::Binary => "application/octet-stream",
                };
                put("content-type", content_type);
                message.data.clone()
            }
            Event::Disconnect => Bytes::new(),
        };
        // hyper leaves it out for an empty body (RFC 9110, section 8.6, wants it on every POST).
        put("content-length", &data.len().to_string());
        let mut request = Request::new(Full::new(data));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = target.uri.clone();
        *request.headers_mut() = headers;
        *request.extensions_mut() = self.spelling.clone();
        request
    }
}

/// Lets hyper's server read a request with every name and keeps what it notes about their spelling: the only way in.
async fn spelling() -> io::Result<Extensions> {
    let (mut ours, theirs) = tokio::io::duplex(4_096);
    let mut text = String::from("POST / HTTP/1.1\r\n");
    for name in NAMES {
        text.push_str(name);
        text.push_str(if name == "Content-Length" { ": 0\r\n" } else { ": x\r\n" });
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
        extensions = receiver => extensions.map_err(|_| io::Error::other("hyper has not read its own headers")),
        result = connection => Err(io::Error::other(format!("hyper ended early: {result:?}"))),
    }
}
