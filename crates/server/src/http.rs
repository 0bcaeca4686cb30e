//! The HTTP side: accepts, reads requests, and hands them to whom they concern.

use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use hookwire_hub::Settings;
use hookwire_proto::signature::AccessKey;
use hookwire_proto::template::TemplatesDocument;
use hookwire_proto::token::{self, Audience, Claims, HostNames, TokenError};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::api_error::{Answer, ApiError};
use crate::config::Limits;
use crate::metrics::{self, ShardStats};
use crate::route::{self, Route};
use crate::shards::Shards;
use crate::store::Store;
use crate::{handshake, manage, rest};

/// Bytes of a request head.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// Headers of a request.
const HEADERS_MAX: usize = 100;

/// Connections that have not become WebSockets; more wait in the kernel's queue.
const HTTP_CONNECTIONS_MAX: usize = 10_000;

/// How long a request body may take to arrive.
const BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// How long accepting pauses when the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What every request may need.
#[derive(Debug)]
pub(crate) struct Edge {
    pub(crate) shards: Shards,
    pub(crate) store: Store,
    pub(crate) keys: Vec<AccessKey>,
    pub(crate) hosts: HostNames,
    pub(crate) limits: Limits,
    pub(crate) metrics_public: bool,
    pub(crate) stats: Vec<Arc<ShardStats>>,
    /// The templates in force, as they were given; locked while they change.
    pub(crate) templates: Mutex<TemplatesDocument>,
    /// Handshakes that wait for their verdict.
    pub(crate) handshakes: Semaphore,
    pub(crate) draining: AtomicBool,
    /// Ends accepting and idle connections.
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
}

impl Edge {
    /// Returns the claims of a token that allows `path`.
    ///
    /// # Errors
    /// Why it does not.
    pub(crate) fn check(&self, token: &str, path: &str) -> Result<Claims, ApiError> {
        let audience = Audience { hosts: &self.hosts, path };
        token::check(token, unix_time().as_secs(), &self.keys, &audience).map_err(|error| {
            if let TokenError::Audience { expected, actual } = &error {
                tracing::debug!(expected, ?actual, "a token was made for another URL");
            }
            ApiError::unauthorized(error.to_string())
        })
    }

    /// Makes sure that a request carries a key holder's token.
    pub(crate) fn authorize<B>(&self, request: &Request<B>) -> Result<(), ApiError> {
        let path = request.uri().path();
        let token =
            bearer(request).ok_or_else(|| ApiError::unauthorized("a bearer token is needed"))?;
        self.check(&token, path).map(drop)
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Puts templates in force everywhere.
    pub(crate) async fn apply(&self, settings: Settings) -> Result<(), ApiError> {
        Ok(self.shards.apply_settings(&Arc::new(settings)).await?)
    }
}

/// Returns the bearer token of the `Authorization` header.
pub(crate) fn bearer<B>(request: &Request<B>) -> Option<String> {
    let value = request.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}

pub(crate) fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Accepts until the edge stops.
pub(crate) async fn accept(edge: Arc<Edge>, listener: TcpListener, room: Arc<Semaphore>) {
    loop {
        let Ok(permit) = room.clone().acquire_owned().await else { return };
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = edge.stop.cancelled() => return,
        };
        match accepted {
            Ok((socket, peer)) => {
                let edge = edge.clone();
                edge.tasks.clone().spawn(async move {
                    serve(edge, socket, peer).await;
                    drop(permit);
                });
            }
            Err(error) if is_transient(&error) => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept; is the limit of open files reached?");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Returns the permits for connections that are not WebSockets.
pub(crate) fn room() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(HTTP_CONNECTIONS_MAX))
}

/// Whether only the connection that was to be accepted is at fault.
fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

async fn serve(edge: Arc<Edge>, socket: TcpStream, peer: SocketAddr) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY was refused");
    }
    let stop = edge.stop.clone();
    let handshake_time_max = edge.limits.handshake_time_max;
    let service = service_fn(move |request| {
        let edge = edge.clone();
        async move { Ok::<_, Infallible>(answer(edge, request, peer).await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(handshake_time_max)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    tokio::pin!(connection);
    let result = tokio::select! {
        result = &mut connection => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "an HTTP connection ended early");
    }
}

async fn answer(edge: Arc<Edge>, request: Request<Incoming>, peer: SocketAddr) -> Answer {
    let head = request.method() == Method::HEAD;
    let parsed = route::parse(request.method(), request.uri());
    let name = parsed.as_ref().map_or("unknown", Route::name);
    let result = match parsed {
        Ok(route) => dispatch(edge, route, request, peer).await,
        Err(error) => Err(error),
    };
    let mut answer = result.unwrap_or_else(ApiError::into_answer);
    if head {
        *answer.body_mut() = Full::default();
    }
    let status = answer.status().as_u16().to_string();
    ::metrics::counter!("hookwire_http_requests_total", "route" => name, "status" => status)
        .increment(1);
    answer
}

async fn dispatch(
    edge: Arc<Edge>,
    route: Route,
    request: Request<Incoming>,
    peer: SocketAddr,
) -> Result<Answer, ApiError> {
    if edge.is_draining() {
        return Err(ApiError::shutting_down());
    }
    match route {
        Route::Client { hub, format } => handshake::connect(edge, hub, format, request, peer).await,
        Route::Settings => manage::settings(&edge, request).await,
        Route::Health => Ok(text(StatusCode::OK, "text/plain", "healthy\n")),
        Route::Metrics => {
            if !edge.metrics_public && !is_loopback(peer.ip()) {
                edge.authorize(&request)?;
            }
            let body = metrics::render(&edge.stats);
            Ok(text(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", body))
        }
        route @ (Route::Send { .. }
        | Route::Exists { .. }
        | Route::Close { .. }
        | Route::ConnectionGroup { .. }
        | Route::UserInGroup { .. }
        | Route::JoinAsUser { .. }
        | Route::LeaveAsUser { .. }) => {
            edge.authorize(&request)?;
            rest::perform(&edge, route, request).await
        }
    }
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Returns an answer with a body.
pub(crate) fn text(
    status: StatusCode,
    content_type: &'static str,
    body: impl Into<Bytes>,
) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    answer
}

/// Reads a whole body.
///
/// # Errors
/// 413 beyond `limit` bytes, 408 when it takes longer than [`BODY_TIME_MAX`], 400 when it breaks off.
pub(crate) async fn body(request: Request<Incoming>, limit: usize) -> Result<Bytes, ApiError> {
    let too_large = || {
        let message = format!("the body exceeds {limit} bytes");
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "PayloadTooLarge", message)
            .with(header::CONNECTION, HeaderValue::from_static("close"))
    };
    let announced = hyper::body::Body::size_hint(request.body()).lower();
    if limit as u64 <= announced.saturating_sub(1) {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIME_MAX, Limited::new(request.into_body(), limit).collect())
        .await
    {
        Ok(Ok(body)) => Ok(body.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large()),
        Ok(Err(_)) => Err(ApiError::bad_request("the body broke off")),
        Err(_) => {
            Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "Timeout", "the body took too long"))
        }
    }
}
