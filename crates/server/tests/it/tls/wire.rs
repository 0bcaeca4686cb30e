//! Clients that decide byte by byte what they send over TLS.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

/// A socket that gives and takes few bytes at a time.
pub(crate) struct Dribble(pub(crate) TcpStream, pub(crate) usize);

impl AsyncRead for Dribble {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let few = self.1;
        let mut little = buffer.take(few);
        std::task::ready!(Pin::new(&mut self.0).poll_read(context, &mut little))?;
        let count = little.filled().len();
        // The bytes stand where the smaller buffer was cut from.
        buffer.initialize_unfilled_to(count);
        buffer.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Dribble {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let few = self.1.min(bytes.len());
        Pin::new(&mut self.0).poll_write(context, &bytes[..few])
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

/// A client that has its records in its hands before it sends them.
pub(crate) struct Raw {
    pub(crate) socket: TcpStream,
    pub(crate) session: ClientConnection,
}

/// How a stream ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// By `close_notify`.
    Clean,
    /// By the end of the socket, or its reset.
    Cut,
    /// By an alert.
    Alert,
}

impl Raw {
    /// Connects; the handshake is done when it returns.
    pub(crate) async fn connect(address: SocketAddr, config: ClientConfig) -> Self {
        let socket = TcpStream::connect(address).await.unwrap();
        socket.set_nodelay(true).unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let session = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut raw = Self { socket, session };
        while raw.session.is_handshaking() || raw.session.wants_write() {
            let flight = raw.records();
            raw.socket.write_all(&flight).await.unwrap();
            if raw.session.is_handshaking() {
                raw.take(&mut Vec::new()).await.unwrap();
            }
        }
        raw
    }

    /// Returns a record with `content`, not sent yet.
    pub(crate) fn record(&mut self, content: &[u8]) -> Vec<u8> {
        self.session.writer().write_all(content).unwrap();
        self.records()
    }

    /// Returns what the session wants to send.
    pub(crate) fn records(&mut self) -> Vec<u8> {
        let mut records = Vec::new();
        while self.session.wants_write() {
            self.session.write_tls(&mut records).unwrap();
        }
        records
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).await.unwrap();
    }

    /// Reads what comes next and appends what it says to `all`; an error is how it ended.
    async fn take(&mut self, all: &mut Vec<u8>) -> Result<(), End> {
        let mut bytes = vec![0; 16 * 1024];
        let count = self.socket.read(&mut bytes).await.unwrap_or(0);
        if count == 0 {
            return Err(End::Cut);
        }
        let mut rest = &bytes[..count];
        while !rest.is_empty() {
            self.session.read_tls(&mut rest).unwrap();
            let state = self.session.process_new_packets().map_err(|error| {
                assert!(
                    matches!(error, rustls::Error::AlertReceived(_)),
                    "the node broke TLS: {error}"
                );
                End::Alert
            })?;
            let before = all.len();
            all.resize(before + state.plaintext_bytes_to_read(), 0);
            self.session.reader().read_exact(&mut all[before..]).unwrap();
            if state.peer_has_closed() {
                return Err(End::Clean);
            }
        }
        Ok(())
    }

    /// Reads until `enough` is there; returns all of it.
    pub(crate) async fn until(&mut self, enough: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let mut all = Vec::new();
        while !enough(&all) {
            self.take(&mut all).await.expect("the node has more to say");
        }
        all
    }

    /// Reads to the end; returns what came and how it ended.
    pub(crate) async fn rest(&mut self) -> (Vec<u8>, End) {
        let mut all = Vec::new();
        loop {
            if let Err(end) = self.take(&mut all).await {
                return (all, end);
            }
        }
    }
}
