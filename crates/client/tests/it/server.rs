//! A service that writes down what it is asked and answers what it is told.

use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hookwire_client::{AccessKey, Service, ServiceClient};
use hookwire_proto::token::{Audience, HostNames, check};
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

pub(crate) const KEY: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGH";

/// What one request was.
#[derive(Debug)]
pub(crate) struct Recorded {
    /// Method and target as they stood in the request line.
    pub(crate) line: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Recorded {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("the client sends plain headers"))
    }

    /// The `aud` of the token, after the token was found good for the requested path.
    pub(crate) fn audience(&self) -> String {
        let token = self
            .header("authorization")
            .and_then(|value| value.strip_prefix("Bearer "))
            .expect("a bearer token");
        let (_, target) = self.line.split_once(' ').expect("a method and a target");
        let hosts = HostNames::parse(["127.0.0.1"]).expect("an address is a host");
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970").as_secs();
        let keys = [AccessKey::parse(KEY).expect("the key is long enough")];
        let claims = check(token, now, &keys, &Audience { hosts: &hosts, path: target })
            .expect("the token fits the request");
        let (issued, expiry) = (
            claims.get("iat").and_then(serde_json::Value::as_u64),
            claims.get("exp").and_then(serde_json::Value::as_u64),
        );
        assert_eq!(expiry, issued.map(|issued| issued + 3_600), "tokens are valid for an hour");
        assert_eq!(claims.sub(), None);
        claims.get("aud").and_then(serde_json::Value::as_str).expect("an audience").to_owned()
    }
}

/// Runs until dropped.
pub(crate) struct TestServer {
    port: u16,
    recorded: Arc<Mutex<Vec<Recorded>>>,
    _tasks: JoinSet<()>,
}

impl TestServer {
    /// Answers every request with this status and body.
    pub(crate) async fn answering(status: u16, body: impl Into<Bytes>) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("loopback has a free port");
        let port = listener.local_addr().expect("a bound socket has an address").port();
        let recorded = Arc::new(Mutex::new(Vec::new()));
        let (status, body) = (StatusCode::from_u16(status).expect("a status"), body.into());

        let mut tasks = JoinSet::new();
        let log = Arc::clone(&recorded);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((socket, _)) = listener.accept().await {
                let (log, body) = (Arc::clone(&log), body.clone());
                connections.spawn(async move {
                    let service = service_fn(move |request| {
                        answer(request, Arc::clone(&log), status, body.clone())
                    });
                    // A client may end the connection as it likes; what it asked is what tests look at.
                    drop(
                        hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(socket), service)
                            .await,
                    );
                });
            }
        });
        Self { port, recorded, _tasks: tasks }
    }

    pub(crate) fn service(&self) -> Service {
        Service::new(&self.connection_string(), "chat").expect("a valid connection string and hub")
    }

    pub(crate) fn service_client(&self) -> ServiceClient {
        ServiceClient::new(&self.connection_string(), "chat")
            .expect("a valid connection string and hub")
    }

    pub(crate) fn connection_string(&self) -> String {
        connection_string(self.port)
    }

    /// The one request since the last look.
    pub(crate) fn only(&self) -> Recorded {
        let mut recorded = self.recorded.lock().expect("no test panics while it holds the lock");
        assert_eq!(recorded.len(), 1, "{recorded:?}");
        recorded.remove(0)
    }

    pub(crate) fn requests(&self) -> usize {
        self.recorded.lock().expect("no test panics while it holds the lock").len()
    }
}

pub(crate) fn connection_string(port: u16) -> String {
    format!("Endpoint=http://127.0.0.1;Port={port};AccessKey={KEY};Version=1.0;")
}

async fn answer(
    request: Request<Incoming>,
    log: Arc<Mutex<Vec<Recorded>>>,
    status: StatusCode,
    answer: Bytes,
) -> Result<Response<Full<Bytes>>, hyper::Error> {
    let line = format!("{} {}", request.method(), request.uri());
    let headers = request.headers().clone();
    let body = request.into_body().collect().await?.to_bytes();
    log.lock().expect("no test panics while it holds the lock").push(Recorded {
        line,
        headers,
        body,
    });
    let mut response = Response::new(Full::new(answer));
    *response.status_mut() = status;
    Ok(response)
}
