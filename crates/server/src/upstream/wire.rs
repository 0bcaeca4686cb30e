//! The connections to upstreams, which tell how far they have come: hyper does not say whether any byte of an answer came.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use http::{Extensions, Response, Uri};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::connect::{Connected, Connection, HttpConnector};
use hyper_util::rt::TokioIo;
use rustls::crypto::aws_lc_rs;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tower::{BoxError, Service};

use super::client::Versions;
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
    is_http2: bool,
    told: Told,
}

/// How far a connection has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// No request has gone out. Over HTTP/2, where many go out at once: none was answered.
    Unused,
    /// The first request goes out, or has gone out. No byte of its answer came.
    First,
    /// The last request was answered, at least by a byte. Over HTTP/2: some request was.
    Answered,
    /// After one that was answered, another request goes out, or has gone out. No byte of its answer came.
    Later,
}

/// What a connection tells. Over HTTP/1.1 the connection's task alone writes it, and whoever reads it has heard from that task that the
/// request has failed, so no order needs to be kept here. Nobody waits for it.
#[derive(Debug, Clone, Default)]
struct Told(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    has_answered: AtomicBool,
    is_asked: AtomicBool,
}

impl Connector {
    /// Returns a connector that believes certificates of `roots` and offers `versions`.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub(super) fn new(
        resolver: Resolver,
        roots: RootCertStore,
        versions: Versions,
    ) -> io::Result<Self> {
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
        let builder = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http();
        Ok(Self(match versions {
            Versions::Http1 => builder.enable_http1().wrap_connector(tcp),
            Versions::Negotiated => builder.enable_all_versions().wrap_connector(tcp),
        }))
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
        Box::pin(async {
            let stream = connecting.await?;
            let is_http2 = stream.connected().is_negotiated_h2();
            Ok(TokioIo::new(Wire::new(TokioIo::new(stream), is_http2)))
        })
    }
}

/// Returns how far a connection has come.
pub(super) fn turn(connected: &Connected) -> Turn {
    let mut extensions = Extensions::new();
    connected.get_extras(&mut extensions);
    extensions.get::<Told>().map_or(Turn::Unused, Told::turn)
}

/// Notes an answer over HTTP/2, whose requests the connection itself cannot tell apart.
pub(super) fn note_answer<B>(response: &Response<B>) {
    if response.version() == http::Version::HTTP_2
        && let Some(told) = response.extensions().get::<Told>()
    {
        told.note_answer();
    }
}

impl Told {
    fn turn(&self) -> Turn {
        let has_answered = self.0.has_answered.load(Ordering::Relaxed);
        match (has_answered, self.is_asked()) {
            (false, false) => Turn::Unused,
            (false, true) => Turn::First,
            (true, false) => Turn::Answered,
            (true, true) => Turn::Later,
        }
    }

    fn is_asked(&self) -> bool {
        self.0.is_asked.load(Ordering::Relaxed)
    }

    fn note_request(&self) {
        self.0.is_asked.store(true, Ordering::Relaxed);
    }

    fn note_answer(&self) {
        self.0.has_answered.store(true, Ordering::Relaxed);
        self.0.is_asked.store(false, Ordering::Relaxed);
    }
}

impl<Stream> Wire<Stream> {
    fn new(stream: Stream, is_http2: bool) -> Self {
        Self { stream, is_http2, told: Told::default() }
    }

    /// Over HTTP/1.1 a connection has one request at a time: what is written belongs to it, what is read to its answer.
    fn note_write(&self) {
        if !self.is_http2 {
            self.told.note_request();
        }
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
        // What comes unasked is no answer.
        if before < buffer.filled().len() && !self.is_http2 && self.told.is_asked() {
            self.told.note_answer();
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
        self.note_write();
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.note_write();
        Pin::new(&mut self.stream).poll_write_vectored(context, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

impl<Stream> Connection for Wire<Stream> {
    fn connected(&self) -> Connected {
        let connected = Connected::new().extra(self.told.clone());
        if self.is_http2 { connected.negotiated_h2() } else { connected }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    fn pair(is_http2: bool) -> (Wire<DuplexStream>, DuplexStream) {
        let (ours, theirs) = duplex(64);
        (Wire::new(ours, is_http2), theirs)
    }

    fn turn(wire: &Wire<DuplexStream>) -> Turn {
        super::turn(&wire.connected())
    }

    #[tokio::test]
    async fn an_answer_ends_the_turn_and_the_next_request_begins_another() {
        let (mut wire, mut theirs) = pair(false);
        assert_eq!(turn(&wire), Turn::Unused);
        wire.write_all(b"first").await.unwrap();
        wire.flush().await.unwrap();
        assert_eq!(turn(&wire), Turn::First);
        theirs.write_all(b"ab").await.unwrap();
        wire.read_u8().await.unwrap();
        assert_eq!(turn(&wire), Turn::Answered);
        wire.read_u8().await.unwrap();
        assert_eq!(turn(&wire), Turn::Answered);
        wire.write_all(b"second").await.unwrap();
        assert_eq!(turn(&wire), Turn::Later, "it was taken, perhaps by nobody");
        theirs.write_all(b"c").await.unwrap();
        wire.read_u8().await.unwrap();
        assert_eq!(turn(&wire), Turn::Answered);
    }

    #[tokio::test]
    async fn a_request_that_is_not_taken_has_its_turn() {
        let (mut wire, mut theirs) = pair(false);
        wire.write_all(b"first").await.unwrap();
        theirs.write_all(b"a").await.unwrap();
        wire.read_u8().await.unwrap();
        drop(theirs);
        wire.write_all(b"second").await.unwrap_err();
        assert_eq!(turn(&wire), Turn::Later);
    }

    #[tokio::test]
    async fn what_comes_unasked_is_no_answer() {
        let (mut wire, mut theirs) = pair(false);
        theirs.write_all(b"a").await.unwrap();
        wire.read_u8().await.unwrap();
        assert_eq!(turn(&wire), Turn::Unused);
    }

    #[tokio::test]
    async fn over_http2_bytes_belong_to_no_request() {
        let (mut wire, mut theirs) = pair(true);
        assert!(wire.connected().is_negotiated_h2());
        wire.write_all(b"settings").await.unwrap();
        theirs.write_all(b"s").await.unwrap();
        wire.read_u8().await.unwrap();
        assert_eq!(turn(&wire), Turn::Unused);
        let mut response = Response::new(());
        *response.version_mut() = http::Version::HTTP_2;
        wire.connected().get_extras(response.extensions_mut());
        note_answer(&response);
        assert_eq!(turn(&wire), Turn::Answered);
    }
}
