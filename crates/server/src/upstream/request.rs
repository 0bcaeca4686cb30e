//! The HTTP request of an event, its header names in their documented spelling (preview protocol, "Request headers").

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::SystemTime;

use bytes::Bytes;
use hookwire_hub::{Call, Event};
use hookwire_proto::message::MessageKind;
use hookwire_proto::signature::{self, AccessKey};
use http::{HeaderMap, HeaderValue, Request};
use hyper::body::{Body, Frame, SizeHint};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::sync::oneshot;

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
    spelling: http::Extensions,
}

/// A body that says when hyper has taken it to write it.
#[derive(Debug)]
pub(super) struct Announced {
    data: Option<Bytes>,
    taken: Option<oneshot::Sender<()>>,
}

impl Requests {
    /// # Errors
    /// hyper did not read the request that teaches the spelling.
    pub(super) async fn new(keys: Vec<AccessKey>) -> io::Result<Self> {
        Ok(Self { keys, spelling: spelling().await? })
    }

    /// Returns the request of `call`; `taken` hears when its body goes out.
    pub(super) fn build(
        &self,
        call: &Call,
        taken: oneshot::Sender<()>,
    ) -> http::Result<Request<Announced>> {
        let name = call.event.name();
        let connection = call.connection.to_string();
        let mut headers = HeaderMap::with_capacity(NAMES.len());
        let mut put = |name: &'static str, value: &str| {
            // What cannot stand in a header has been refused at the door; a query may hold raw bytes, which pass.
            if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                headers.insert(name, value);
            }
        };
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
                put(
                    "content-type",
                    match message.kind {
                        MessageKind::Text => "text/plain",
                        MessageKind::Binary => "application/octet-stream",
                    },
                );
                message.data.clone()
            }
            Event::Disconnect => Bytes::new(),
        };
        // hyper leaves it out of an empty body, which some servers refuse with 411.
        put("content-length", &data.len().to_string());
        let mut request =
            Request::post(&call.url).body(Announced { data: Some(data), taken: Some(taken) })?;
        request.headers_mut().extend(headers);
        *request.extensions_mut() = self.spelling.clone();
        Ok(request)
    }
}

/// Lets hyper's server read a request with every name and keeps what it notes about their spelling: the only way in.
async fn spelling() -> io::Result<http::Extensions> {
    let (mut ours, theirs) = tokio::io::duplex(4_096);
    let mut text = String::from("POST / HTTP/1.1\r\n");
    for name in NAMES {
        text.push_str(name);
        text.push_str(if name == "Content-Length" { ": 0\r\n" } else { ": x\r\n" });
    }
    text.push_str("\r\n");
    ours.write_all(text.as_bytes()).await?;
    let (sender, receiver) = oneshot::channel();
    let sender = std::sync::Mutex::new(Some(sender));
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

impl Body for Announced {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.announce();
        Poll::Ready(
            self.data.take().filter(|data| !data.is_empty()).map(|data| Ok(Frame::data(data))),
        )
    }

    fn is_end_stream(&self) -> bool {
        self.data.as_ref().is_none_or(Bytes::is_empty)
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.data.as_ref().map_or(0, |data| data.len() as u64))
    }
}

impl Announced {
    fn announce(&mut self) {
        if let Some(taken) = self.taken.take() {
            // Whoever waited for it may have given up.
            let _ = taken.send(());
        }
    }
}

impl Drop for Announced {
    /// hyper drops an empty body unread.
    fn drop(&mut self) {
        if self.is_end_stream() {
            self.announce();
        }
    }
}
