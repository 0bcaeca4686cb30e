//! The HTTP side with nothing behind it: what `hookwire bench rest` compares the service with.

use std::convert::Infallible;
use std::io;

use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::TaskTracker;

use crate::config::Limits;
use crate::http::{http1, prepare};

/// Reads every request to its end and gives all of them the same answer, without a body. Ends with the process; its callers are trusted,
/// so that nothing but the limits of the service's own HTTP bounds them.
///
/// # Errors
/// The listener fails.
pub async fn answer_all(
    listener: &TcpListener,
    status: StatusCode,
    headers: &HeaderMap,
) -> io::Result<Infallible> {
    let tasks = TaskTracker::new();
    loop {
        let (socket, _) = listener.accept().await?;
        prepare(&socket, Some(Limits::default().handshake_time_max))?;
        tasks.spawn(serve(socket, status, headers.clone()));
    }
}

async fn serve(socket: TcpStream, status: StatusCode, headers: HeaderMap) {
    let service = service_fn(move |request: Request<Incoming>| {
        let headers = headers.clone();
        async move {
            request.into_body().collect().await?;
            let mut answer = Response::new(Full::new(Bytes::new()));
            *answer.status_mut() = status;
            *answer.headers_mut() = headers;
            Ok::<_, hyper::Error>(answer)
        }
    });
    let connection = http1(Limits::default().handshake_time_max)
        .serve_connection(TokioIo::new(socket), service)
        .with_upgrades();
    if let Err(error) = connection.await {
        tracing::debug!(%error, "an HTTP connection ended early");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn every_request_gets_the_same_answer_once_its_body_is_there() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut caller = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let headers = HeaderMap::from_iter([(http::header::SERVER, "x".parse().unwrap())]);
        let calls = async {
            for _ in 0..2 {
                caller
                    .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi")
                    .await
                    .unwrap();
                let mut answer = [0; 16];
                caller.read_exact(&mut answer).await.unwrap();
                assert_eq!(&answer[..12], b"HTTP/1.1 202");
                let mut rest = Vec::new();
                while !rest.ends_with(b"\r\n\r\n") {
                    rest.push(caller.read_u8().await.unwrap());
                }
                let rest = String::from_utf8(rest).unwrap();
                assert!(rest.contains("server: x\r\n"), "{rest}");
                assert!(rest.contains("content-length: 0\r\n"), "{rest}");
            }
        };
        tokio::select! {
            ended = answer_all(&listener, StatusCode::ACCEPTED, &headers) => panic!("{ended:?}"),
            () = calls => {}
        }
    }
}
