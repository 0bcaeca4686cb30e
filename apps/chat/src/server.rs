//! HTTP: a bounded number of connections, each with a bounded wait for its next request head.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::Service;

/// Serves until `stop`, by TLS if there is one, then finishes the requests under way. Not cancel-safe: dropping it leaves connections
/// open.
pub(crate) async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    stop: CancellationToken,
) {
    let (connections, requests) = (TaskTracker::new(), TaskTracker::new());
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let abort = CancellationToken::new();
    let accepting = async {
        loop {
            let place =
                Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
            match listener.accept().await {
                Ok((socket, _)) => {
                    let serving = connection(
                        socket,
                        tls.clone(),
                        router.clone(),
                        requests.clone(),
                        stop.clone(),
                    );
                    let abort = abort.clone();
                    connections.spawn(async move {
                        abort.run_until_cancelled(serving).await;
                        drop(place);
                    });
                }
                Err(error) => {
                    // Of one connection, or for want of file descriptors: neither ends the server.
                    tracing::warn!(%error, "a connection was not accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    };
    stop.run_until_cancelled(accepting).await.unwrap_or(());
    drop(listener);
    requests.close();
    if timeout(DRAIN_TIME_MAX, requests.wait()).await.is_err() {
        tracing::warn!(left = requests.len(), "requests did not finish before the shutdown");
    }
    connections.close();
    if timeout(FLUSH_TIME_MAX, connections.wait()).await.is_err() {
        abort.cancel(); // They do not read their answer, or never finish their request head.
        connections.wait().await;
    }
}

async fn connection(
    socket: TcpStream,
    tls: Option<TlsAcceptor>,
    router: Router,
    requests: TaskTracker,
    stop: CancellationToken,
) {
    if let Err(error) = socket.set_nodelay(true) {
        tracing::debug!(%error, "small answers may be late");
    }
    let Some(tls) = tls else { return speak(socket, router, requests, stop).await };
    let handshake = timeout(HEAD_TIME_MAX, tls.accept(socket));
    match stop.run_until_cancelled(handshake).await {
        Some(Ok(Ok(stream))) => speak(stream, router, requests, stop).await,
        Some(Ok(Err(error))) => tracing::debug!(%error, "a TLS handshake failed"),
        Some(Err(_)) | None => {}
    }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    router: Router,
    requests: TaskTracker,
    stop: CancellationToken,
) {
    let service = service_fn(move |request: Request<Incoming>| {
        let (mut router, request_under_way) = (router.clone(), requests.token());
        async move {
            let _request_under_way = request_under_way;
            let answered =
                Service::<Request<Body>>::call(&mut router, request.map(Body::new)).await;
            Ok::<_, Infallible>(answered.unwrap_or_else(|never| match never {}))
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
}

/// Connections at a time. More wait to be accepted.
pub(crate) const CONNECTIONS_MAX: usize = 4_096;

/// Longest wait for a TLS handshake, and for a complete request head, also on a connection that was used before.
const HEAD_TIME_MAX: Duration = Duration::from_secs(15);

/// Most headers of a request.
const HEADERS_MAX: usize = 100;

/// Largest request head, in bytes.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// Longest wait for requests under way when the server stops.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(15);

/// Longest wait for their answers to be written after that.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(1);

/// Pause after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
