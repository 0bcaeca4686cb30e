//! The HTTP side: accepts, reads requests, and hands them to whom they concern.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ::metrics::Counter;
use bytes::Bytes;
use hookwire_proto::cloud_event::ClientCertificate;
use hookwire_proto::signature::AccessKey;
use hookwire_proto::token::HostNames;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version, header};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use crate::api_error::{Answer, ApiError};
use crate::auth::{IdentityProviders, KnownTokens};
use crate::body::{BodyRoom, RequestBody};
use crate::changes::Changes;
use crate::config::Limits;
use crate::console::Console;
use crate::event_log::{EventLog, LiveBody};
use crate::metrics::{self, Handles, ShardStats};
use crate::route::admin::Inquiry;
use crate::route::{self, Route};
use crate::settings::Layers;
use crate::shards::{NoAnswer, Shards};
use crate::store::Store;
use crate::swap::Swap;
use crate::tls::{self, Tls};
use crate::tunnel::{self, Tunnels};
use crate::upstream::Upstream;
use crate::{console, handshake, health, manage, refusals, rest};

/// Bytes of a request head.
const HEAD_BYTES_MAX: usize = 32 * 1024;

/// Headers of a request.
const HEADERS_MAX: usize = 100;

/// Connections that have not become WebSocket connections; more wait in the kernel's queue.
const HTTP_CONNECTIONS_MAX: usize = 10_000;

/// How long accepting pauses when the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// By what requests are judged.
#[derive(Debug)]
pub(crate) struct Rules {
    /// The access keys; the first signs.
    pub(crate) keys: Vec<AccessKey>,
    /// What was checked by these keys.
    pub(crate) known_tokens: KnownTokens,
    /// Identity providers whose tokens the REST API takes too.
    pub(crate) identity_providers: IdentityProviders,
    pub(crate) limits: Limits,
    pub(crate) metrics_public: bool,
    /// Cancelled when other keys or providers hold: what was opened by these and has rights yet shall come again.
    pub(crate) revoked: CancellationToken,
}

/// Where a request comes from.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    pub(crate) peer: SocketAddr,
    /// It came over TLS, not through a proxy that ended that.
    pub(crate) by_tls: bool,
    /// The certificate that it has shown and has the key of.
    pub(crate) certificate: Option<Arc<ClientCertificate>>,
}

/// What every request may need.
#[derive(Debug)]
pub(crate) struct Edge {
    pub(crate) shards: Shards,
    pub(crate) store: Store,
    pub(crate) hosts: HostNames,
    /// The URLs by which clients and callers know the service.
    pub(crate) endpoints: Vec<Url>,
    /// What may be replaced while requests come.
    pub(crate) rules: Swap<Rules>,
    pub(crate) stats: Vec<Arc<ShardStats>>,
    /// What the shards decide by; locked while it changes.
    pub(crate) layers: Mutex<Layers>,
    /// Changes of stored memberships.
    pub(crate) changes: Changes,
    /// Memory for request bodies.
    pub(crate) bodies: BodyRoom,
    /// Handshakes that wait for their verdict.
    pub(crate) handshakes: Semaphore,
    /// Set from the first moment of shutdown: nobody new should be sent here.
    pub(crate) leaving: AtomicBool,
    /// What became of calls, and who was refused.
    pub(crate) log: EventLog,
    pub(crate) upstream: Upstream,
    /// The console; absent: it is not served.
    pub(crate) console: Option<Console>,
    /// When the node started.
    pub(crate) started: Instant,
    /// The same, since 1970.
    pub(crate) started_at: Duration,
    /// Set when new requests are refused.
    pub(crate) draining: AtomicBool,
    /// Ends accepting and idle connections.
    pub(crate) stop: CancellationToken,
    pub(crate) tasks: TaskTracker,
    /// Upstreams that have connected to the service.
    pub(crate) tunnels: Tunnels,
}

impl Edge {
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Returns the rules that hold now.
    pub(crate) fn rules(&self) -> Arc<Rules> {
        self.rules.get()
    }

    /// Returns the limits that hold now.
    pub(crate) fn limits(&self) -> Limits {
        self.rules.get().limits
    }

    /// Lets every shard decide by these layers.
    pub(crate) async fn apply(&self, layers: &Layers) -> Result<(), NoAnswer> {
        self.shards.apply_settings(&Arc::new(layers.settings())).await
    }
}

pub(crate) fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Accepts until the edge stops; with `tls`, clients that speak it.
pub(crate) async fn accept(
    edge: Arc<Edge>,
    listener: TcpListener,
    tls: Option<Arc<Tls>>,
    room: Arc<Semaphore>,
) {
    loop {
        let accepted = async {
            let permit = room.clone().acquire_owned().await;
            (permit.expect("the semaphore is never closed"), listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            accepted = accepted => accepted,
            () = edge.stop.cancelled() => return,
        };
        match accepted {
            Ok((socket, peer)) => {
                let tasks = &edge.tasks;
                match tls.clone() {
                    None => tasks.spawn(serve(edge.clone(), socket, peer, permit)),
                    Some(tls) => tasks.spawn(serve_tls(edge.clone(), tls, socket, peer, permit)),
                };
            }
            Err(error) if is_transient(&error) => {}
            Err(error) => {
                tracing::error!(%error, "cannot accept; is the limit of open files reached?");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Returns the permits for connections that speak HTTP.
pub(crate) fn room() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(HTTP_CONNECTIONS_MAX))
}

/// Whether only the connection that was to be accepted is at fault.
fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

async fn serve(
    edge: Arc<Edge>,
    socket: TcpStream,
    peer: SocketAddr,
    _permit: OwnedSemaphorePermit,
) {
    if let Err(error) = prepare(&socket, Some(edge.limits().handshake_time_max)) {
        tracing::debug!(%peer, %error, "a connection ended at once");
        return;
    }
    // The time for the first head starts now.
    let caller = Caller { peer, by_tls: false, certificate: None };
    speak(edge, socket, caller, None).await;
}

/// Serves a client that speaks TLS. Its handshake and the head of its first request have one deadline together.
async fn serve_tls(
    edge: Arc<Edge>,
    current: Arc<Tls>,
    socket: TcpStream,
    peer: SocketAddr,
    _permit: OwnedSemaphorePermit,
) {
    let deadline = Instant::now() + edge.limits().handshake_time_max;
    let handshake = async {
        prepare(&socket, Some(edge.limits().handshake_time_max))?;
        current.acceptor().accept(socket).await
    };
    let result = tokio::select! {
        result = tokio::time::timeout_at(deadline, handshake) => result,
        () = edge.stop.cancelled() => return,
    };
    let (label, stream) = match result {
        Ok(Ok(stream)) => ("done", Some(stream)),
        Ok(Err(error)) => {
            tracing::debug!(%peer, %error, "a TLS handshake failed");
            ("failed", None)
        }
        Err(_) => ("timeout", None),
    };
    ::metrics::counter!("hookwire_tls_handshakes_total", "result" => label).increment(1);
    if let Some(stream) = stream {
        let shown = stream.get_ref().1.peer_certificates().and_then(<[_]>::first);
        let certificate = shown.map(|shown| Arc::new(tls::describe(shown)));
        let caller = Caller { peer, by_tls: true, certificate };
        speak(edge, stream, caller, Some(deadline)).await;
    }
}

/// Serves HTTP on a connection until it ends or becomes a WebSocket. The first head must be there by `deadline`, where there is one
/// that is earlier than that of any head.
async fn speak<S>(edge: Arc<Edge>, stream: S, caller: Caller, deadline: Option<Instant>)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let handshake_time_max = edge.limits().handshake_time_max;
    let stop = edge.stop.clone();
    let first_head = CancellationToken::new();
    let came = first_head.clone();
    let peer = caller.peer;
    let service = service_fn(move |request| {
        came.cancel();
        let (edge, caller) = (edge.clone(), caller.clone());
        async move { Ok::<_, Infallible>(answer(edge, request, caller).await) }
    });
    let connection =
        http1(handshake_time_max).serve_connection(TokioIo::new(stream), service).with_upgrades();
    tokio::pin!(connection);
    let too_late = async {
        match deadline {
            Some(deadline) => {
                let in_time = tokio::time::timeout_at(deadline, first_head.cancelled()).await;
                if in_time.is_ok() {
                    std::future::pending::<()>().await;
                }
            }
            None => std::future::pending().await,
        }
    };
    let result = tokio::select! {
        result = &mut connection => result,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
        () = too_late => {
            tracing::debug!(%peer, "a client sent no request in time");
            return;
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "an HTTP connection ended early");
    }
}

/// Returns how HTTP is spoken. The time for a head starts when the connection does, and again after each answer.
pub(crate) fn http1(head_time_max: Duration) -> http1::Builder {
    let mut http1 = http1::Builder::new();
    http1
        .timer(TokioTimer::new())
        .header_read_timeout(head_time_max)
        .max_buf_size(HEAD_BYTES_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX);
    http1
}

/// Sets up a socket: small writes go out at once, and when a peer takes no bytes for `untaken_time_max`, the kernel gives up on it, as
/// hyper would wait for ever. Shards have bounds of their own and want `None`.
pub(crate) fn prepare(socket: &TcpStream, untaken_time_max: Option<Duration>) -> io::Result<()> {
    socket.set_nodelay(true)?;
    SockRef::from(socket).set_tcp_user_timeout(untaken_time_max)
}

/// A body that is there, or one that grows.
type AnswerBody = Either<Full<Bytes>, LiveBody>;

async fn answer(
    edge: Arc<Edge>,
    request: Request<Incoming>,
    caller: Caller,
) -> Response<AnswerBody> {
    let begin = Instant::now();
    let (mut head, mut body) = RequestBody::take(request);
    let is_head = head.method() == Method::HEAD;
    let parsed = check_host(&head).and_then(|()| route::parse(head.method(), head.uri()));
    let name = parsed.as_ref().map_or("unknown", Route::name);
    let result = match parsed {
        Ok(Route::Admin(Inquiry::LiveEvents { selection, after })) if !edge.is_draining() => {
            match rest::live(&edge, selection, after, &head).await {
                Ok(answer) => {
                    count(name, answer.status());
                    return answer.map(Either::Right);
                }
                Err(error) => Err(error),
            }
        }
        Ok(route) => dispatch(&edge, route, &mut head, &mut body, &caller).await,
        Err(error) => Err(error),
    };
    let mut answer = result.unwrap_or_else(ApiError::into_answer);
    refusals::note(&edge, &head, &mut answer, begin.elapsed());
    body.discard().await;
    if is_head {
        *answer.body_mut() = Full::default();
    }
    if body.is_chunked() || edge.is_draining() {
        let switching = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
        if !switching {
            answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
    }
    count(name, answer.status());
    answer.map(Either::Left)
}

fn count(route: &'static str, status: StatusCode) {
    static COUNTERS: Handles<(&str, StatusCode), Counter> = Handles::new();
    let register = || {
        let status = status.as_u16().to_string();
        ::metrics::counter!("hookwire_http_requests_total", "route" => route, "status" => status)
    };
    COUNTERS.get((route, status), register).increment(1);
}

/// Refuses what a proxy in front could have read differently (RFC 9112, section 3.2).
fn check_host(head: &Request<()>) -> Result<(), ApiError> {
    let hosts = head.headers().get_all(header::HOST).iter().count();
    if 1 < hosts || hosts == 0 && Version::HTTP_11 <= head.version() {
        return Err(ApiError::bad_request("there must be one Host header")
            .with(header::CONNECTION, HeaderValue::from_static("close")));
    }
    Ok(())
}

async fn dispatch(
    edge: &Arc<Edge>,
    route: Route,
    head: &mut Request<()>,
    body: &mut RequestBody,
    caller: &Caller,
) -> Result<Answer, ApiError> {
    let peer = caller.peer;
    if edge.is_draining() && !matches!(route, Route::Settings | Route::Live | Route::Ready) {
        return Err(ApiError::shutting_down());
    }
    match route {
        Route::Settings => Ok(manage::settings(edge, head, body).await),
        Route::Client { hub, format } => {
            if !body.is_empty() {
                return Err(ApiError::bad_request("a handshake has no body"));
            }
            handshake::connect(edge, hub, format, head, caller).await
        }
        Route::WebPubSubClient { hub } => {
            if !body.is_empty() {
                return Err(ApiError::bad_request("a handshake has no body"));
            }
            handshake::connect_web_pubsub(edge, hub, head, caller).await
        }
        Route::Tunnel { hub } => {
            if !body.is_empty() {
                return Err(ApiError::bad_request("a handshake has no body"));
            }
            tunnel::connect(edge, hub, head).await
        }
        Route::DataPlane(call) => Ok(rest::data_plane(edge, call, head, body).await),
        Route::Admin(inquiry) => rest::admin(edge, inquiry, head, body).await,
        Route::Console(route) => console::answer(edge, route, head, body, caller).await,
        Route::Description => Ok(rest::description()),
        Route::Health => Ok(text(StatusCode::OK, "text/plain", "healthy\n")),
        Route::Live => Ok(health::live()),
        Route::Ready => Ok(health::ready(&edge.leaving, &edge.stats)),
        Route::Metrics => {
            if !edge.rules().metrics_public && !is_local(head, peer) {
                edge.authorize(head)?;
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
            edge.authorize(head)?;
            rest::perform(edge, route, head, body).await
        }
    }
}

/// Whether a request comes from a process of this machine. One that a proxy here has passed on does not.
fn is_local(head: &Request<()>, peer: SocketAddr) -> bool {
    let passed_on = ["forwarded", "x-forwarded-for", "x-real-ip", "via"];
    peer.ip().to_canonical().is_loopback()
        && !passed_on.iter().any(|name| head.headers().contains_key(*name))
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
