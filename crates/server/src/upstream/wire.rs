//! The connections to upstreams, which tell how far a request has come: hyper says neither when it was fully written nor whether any
//! byte of an answer came.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Extensions, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::{
    CaptureConnection, Connected, Connection, HttpConnector,
};
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tower::{BoxError, Service};

use super::resolver::Resolver;

/// How long one TCP connection may take to come about.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

/// Connects to upstreams, by TLS where the URL says so.
#[derive(Debug, Clone)]
pub(super) struct Connector(HttpsConnector<HttpConnector<Resolver>>);

/// What the connector makes, for tokio's traits.
type Stream = TokioIo<MaybeHttpsStream<TokioIo<TcpStream>>>;

/// A connection to an upstream.
#[derive(Debug)]
pub(super) struct Wire<Stream> {
    stream: Stream,
    turn: Turn,
    told: watch::Sender<Turn>,
}

/// One request and its answer, as far as they have come. The next turn begins with the next request's first byte.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Turn {
    /// Which turn of the connection, from 1; 0 before the first.
    number: u64,
    written_bytes: u64,
    /// Everything hyper has handed over is with the kernel.
    is_flushed: bool,
    /// A byte of an answer came.
    is_answered: bool,
}

/// What the connection of a request tells, once there is one.
#[derive(Debug, Clone)]
struct Told(watch::Receiver<Turn>);

impl Connector {
    /// Returns a connector that believes certificates of `roots`.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub(super) fn new(resolver: Resolver, roots: RootCertStore) -> io::Result<Self> {
        let mut tcp = HttpConnector::new_with_resolver(resolver);
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(CONNECT_TIME_MAX));
        let provider = Arc::new(aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls);
        Ok(Self(builder.https_or_http().enable_http1().wrap_connector(tcp)))
    }
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Wire<Stream>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.0.call(uri);
        Box::pin(async { Ok(TokioIo::new(Wire::new(TokioIo::new(connecting.await?)))) })
    }
}

/// Ready when a request with `body_bytes` of payload, sent over the captured connection, is with the kernel. Never ready when that does
/// not come about.
pub(super) async fn written(mut captured: CaptureConnection, body_bytes: u64) {
    let told = told(captured.wait_for_connection_metadata().await.as_ref());
    if let Some(Told(mut turn)) = told
        && turn.wait_for(|turn| turn.is_written(body_bytes)).await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// Returns how far a request that has failed had come; `None` if it never had a connection.
pub(super) fn turn(captured: &CaptureConnection) -> Option<Turn> {
    told(captured.connection_metadata().as_ref()).map(|Told(turn)| *turn.borrow())
}

fn told(connected: Option<&Connected>) -> Option<Told> {
    let mut extensions = Extensions::new();
    connected?.get_extras(&mut extensions);
    extensions.remove()
}

impl Turn {
    /// Returns whether a request with `body_bytes` of payload is with the kernel, and its answer has not begun. hyper gives the head and
    /// the body, which is one piece, into one buffer and flushes when that is empty.
    const fn is_written(self, body_bytes: u64) -> bool {
        !self.is_answered && self.is_flushed && body_bytes < self.written_bytes
    }

    /// Returns whether a byte of an answer came.
    pub(super) const fn is_answered(self) -> bool {
        self.is_answered
    }

    /// Returns whether the connection has served an earlier request and gave no byte in answer to this one: an upstream may close an
    /// idle connection at any moment, and when that crosses a request, the kernel takes what nobody will read (RFC 9112, section 9.5).
    /// `is_returned`: hyper has given the request back, so that it has not begun a turn.
    pub(super) const fn is_stale(self, is_returned: bool) -> bool {
        if is_returned { 0 < self.number } else { 1 < self.number && !self.is_answered }
    }
}

impl<Stream> Wire<Stream> {
    fn new(stream: Stream) -> Self {
        let turn = Turn { number: 0, written_bytes: 0, is_flushed: true, is_answered: true };
        Self { stream, turn, told: watch::Sender::new(turn) }
    }

    fn begin_write(&mut self) {
        if self.turn.is_answered {
            let number = self.turn.number + 1;
            self.turn = Turn { number, written_bytes: 0, is_flushed: false, is_answered: false };
            self.told.send_replace(self.turn);
        }
    }

    fn end_write(&mut self, count: usize) {
        self.turn.written_bytes += count as u64;
        self.turn.is_flushed = false;
        self.told.send_replace(self.turn);
    }
}

impl<Stream: AsyncRead + Unpin> AsyncRead for Wire<Stream> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        if before < buffer.filled().len() && !self.turn.is_answered {
            self.turn.is_answered = true;
            self.told.send_replace(self.turn);
        }
        Poll::Ready(Ok(()))
    }
}

impl<Stream: AsyncWrite + Unpin> AsyncWrite for Wire<Stream> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.begin_write();
        let count = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.end_write(count);
        Poll::Ready(Ok(count))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.begin_write();
        let count = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, pieces))?;
        self.end_write(count);
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(context))?;
        if !self.turn.is_flushed {
            self.turn.is_flushed = true;
            self.told.send_replace(self.turn);
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<Stream> Connection for Wire<Stream> {
    fn connected(&self) -> Connected {
        Connected::new().extra(Told(self.told.subscribe()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    fn pair(buffer_bytes: usize) -> (Wire<DuplexStream>, watch::Receiver<Turn>, DuplexStream) {
        let (ours, theirs) = duplex(buffer_bytes);
        let wire = Wire::new(ours);
        let turn = wire.told.subscribe();
        (wire, turn, theirs)
    }

    #[tokio::test]
    async fn a_request_is_written_when_all_of_it_is_flushed() {
        let (mut wire, turn, mut theirs) = pair(8);
        assert!(!turn.borrow().is_written(0), "nothing was begun");
        wire.write_all(b"12345678").await.unwrap();
        assert!(!turn.borrow().is_written(4));
        wire.flush().await.unwrap();
        assert!(turn.borrow().is_written(4));
        assert!(!turn.borrow().is_written(8), "a head alone is no request");
        theirs.read_exact(&mut [0; 8]).await.unwrap();
        wire.write_all(b"9").await.unwrap();
        wire.flush().await.unwrap();
        assert!(turn.borrow().is_written(8));
    }

    #[tokio::test]
    async fn an_answer_ends_the_turn_and_the_next_request_begins_another() {
        let (mut wire, turn, mut theirs) = pair(64);
        wire.write_all(b"first").await.unwrap();
        wire.flush().await.unwrap();
        assert!(!turn.borrow().is_answered());
        theirs.write_all(b"a").await.unwrap();
        wire.read_u8().await.unwrap();
        assert!(turn.borrow().is_answered());
        assert!(!turn.borrow().is_written(0), "what was written belongs to the earlier request");
        wire.write_all(b"second").await.unwrap();
        assert!(!turn.borrow().is_answered());
        assert_eq!(turn.borrow().number, 2);
        assert_eq!(turn.borrow().written_bytes, 6);
    }

    #[tokio::test]
    async fn only_a_connection_that_has_served_before_is_stale() {
        let (mut wire, turn, theirs) = pair(64);
        assert!(!turn.borrow().is_stale(true), "a new connection that is closed at once");
        wire.write_all(b"first").await.unwrap();
        assert!(!turn.borrow().is_stale(false));
        let mut theirs = theirs;
        theirs.write_all(b"a").await.unwrap();
        wire.read_u8().await.unwrap();
        assert!(turn.borrow().is_stale(true), "hyper gave the second request back");
        assert!(!turn.borrow().is_stale(false), "the first had an answer");
        drop(theirs);
        wire.write_all(b"second").await.unwrap_err();
        assert!(turn.borrow().is_stale(false), "the second was not taken");
    }

    #[tokio::test]
    async fn a_request_that_crossed_the_close_is_stale_until_a_byte_of_its_answer_came() {
        let (mut wire, turn, mut theirs) = pair(64);
        wire.write_all(b"first").await.unwrap();
        theirs.write_all(b"ab").await.unwrap();
        wire.read_u8().await.unwrap();
        wire.write_all(b"second").await.unwrap();
        assert!(turn.borrow().is_stale(false), "it was taken, perhaps by nobody");
        wire.read_u8().await.unwrap();
        assert!(!turn.borrow().is_stale(false));
    }
}
