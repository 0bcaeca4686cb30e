//! The byte stream of a socket: plain, or TLS whose handshake is done.

use std::io::{self, IoSlice, Read, Write};
use std::net::Shutdown;

use mio::net::TcpStream;
use rustls::ServerConnection;

use super::READ_BYTES_MAX;

/// Encrypted bytes taken from a socket at once. What they decrypt to, with the rest of a record before them, fits into the buffer of
/// [`READ_BYTES_MAX`].
pub(super) const CIPHERTEXT_BYTES_MAX: usize = 40 * 1024;

/// The largest record of TLS with its head (RFC 5246, section 6.2.3; TLS 1.3 allows less).
const RECORD_BYTES_MAX: usize = 5 + 16 * 1024 + 2_048;

const _: () = assert!(CIPHERTEXT_BYTES_MAX + RECORD_BYTES_MAX <= READ_BYTES_MAX);

/// Bytes that wait inside rustls for the socket to take them; what is more stays in the outbox, not encrypted and shared.
pub(super) const UNSENT_BYTES_MAX: usize = 64 * 1024;

/// What rustls keeps to read into between records. Where fewer bytes came, it has not taken more.
const IDLE_BUFFER_BYTES: usize = 4_096;

/// A stream of bytes that never waits.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream>),
}

/// What a read came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Taken {
    /// Bytes that are in the buffer.
    pub(super) bytes: usize,
    /// There may be more to read at once.
    pub(super) is_full: bool,
    /// Nothing follows, and there are no bytes.
    pub(super) is_end: bool,
}

impl Stream {
    /// Reads once from the socket. `ciphertext` is a scratch buffer, needed for TLS alone.
    ///
    /// # Errors
    /// `WouldBlock` and `Interrupted` as from a socket; after any other, the stream is of no further use.
    pub(super) fn read(&mut self, into: &mut [u8], ciphertext: &mut [u8]) -> io::Result<Taken> {
        match self {
            Self::Plain(socket) => {
                let bytes = socket.read(into)?;
                Ok(Taken { bytes, is_full: bytes == into.len(), is_end: bytes == 0 })
            }
            Self::Tls(stream) => stream.read(into, ciphertext),
        }
    }

    /// Returns the bytes that were written to the stream and that its socket has not taken.
    pub(super) fn unsent(&self) -> usize {
        match self {
            Self::Plain(_) => 0,
            Self::Tls(stream) => stream.unsent,
        }
    }

    /// Whether TLS itself has something to say.
    pub(super) fn wants_flush(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.session.wants_write(),
        }
    }

    /// Ends our direction. Everything must have been flushed.
    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.say_goodbye();
        self.socket().shutdown(Shutdown::Write)
    }

    /// Says that nothing follows, as far as the socket takes it at once (RFC 8446, section 6.1).
    pub(super) fn say_goodbye(&mut self) {
        if let Self::Tls(stream) = self {
            stream.session.send_close_notify();
            // The close frame has been said, or the client is gone: this is a courtesy.
            let _ = stream.push();
        }
    }

    pub(super) fn socket(&self) -> &TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &stream.socket,
        }
    }

    pub(super) fn socket_mut(&mut self) -> &mut TcpStream {
        match self {
            Self::Plain(socket) => socket,
            Self::Tls(stream) => &mut stream.socket,
        }
    }
}

impl Write for Stream {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write(bytes),
            Self::Tls(stream) => stream.write(|session| session.writer().write(bytes)),
        }
    }

    #[inline]
    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Plain(socket) => socket.write_vectored(slices),
            Self::Tls(stream) => stream.write(|session| session.writer().write_vectored(slices)),
        }
    }

    #[inline]
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(stream) => stream.push(),
        }
    }
}

/// A socket and the TLS session over it.
#[derive(Debug)]
pub(super) struct TlsStream {
    socket: TcpStream,
    session: ServerConnection,
    /// Bytes that the session has encrypted since the socket last took everything.
    unsent: usize,
    /// The client has broken TLS, or ended it: what it had said before is still to be read.
    is_over: bool,
}

/// A socket from which nothing comes for now.
struct Nothing;

impl Read for Nothing {
    fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

impl TlsStream {
    pub(super) fn new(socket: TcpStream, mut session: ServerConnection) -> Self {
        session.set_buffer_limit(Some(UNSENT_BYTES_MAX));
        Self { socket, session, unsent: 0, is_over: false }
    }

    fn read(&mut self, into: &mut [u8], ciphertext: &mut [u8]) -> io::Result<Taken> {
        // Left over from the handshake, as tokio's side had read further than its answer.
        let left_over = self.decrypted(into)?;
        if left_over != 0 {
            return Ok(Taken { bytes: left_over, is_full: true, is_end: false });
        }
        if self.is_over {
            return Ok(Taken { bytes: 0, is_full: false, is_end: true });
        }
        let end = ciphertext.len().min(CIPHERTEXT_BYTES_MAX);
        let count = self.socket.read(&mut ciphertext[..end])?;
        if count == 0 {
            // A stream that was cut off and one that ended well are the same here: a WebSocket has an end of its own.
            return Ok(Taken { bytes: 0, is_full: false, is_end: true });
        }
        let mut rest = &ciphertext[..count];
        let mut bytes = 0;
        while !rest.is_empty() && !self.is_over {
            let taken = self.session.read_tls(&mut rest)?;
            match self.session.process_new_packets() {
                Ok(state) => self.is_over = state.peer_has_closed() || taken == 0,
                Err(error) => {
                    tracing::debug!(%error, "a client broke TLS");
                    // The alert that rustls has made; who breaks TLS need not get it.
                    let _ = self.push();
                    self.is_over = true;
                }
            }
            bytes += self.decrypted(&mut into[bytes..])?;
        }
        if IDLE_BUFFER_BYTES < count && !self.is_over {
            // rustls gives the room of large records back when it is about to read; the client may say nothing for long.
            let _ = self.session.read_tls(&mut Nothing);
        }
        Ok(Taken { bytes, is_full: count == end || self.is_over, is_end: false })
    }

    /// Takes what is decrypted out of the session.
    fn decrypted(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match self.session.reader().read(into) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
            result => result,
        }
    }

    /// Has bytes encrypted; makes room by sending when there is none.
    fn write(
        &mut self,
        mut encrypt: impl FnMut(&mut ServerConnection) -> io::Result<usize>,
    ) -> io::Result<usize> {
        let mut count = encrypt(&mut self.session)?;
        if count == 0 {
            self.push()?;
            count = encrypt(&mut self.session)?;
        }
        self.unsent += count;
        Ok(count)
    }

    /// Sends what is encrypted.
    fn push(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut self.socket) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.unsent = 0;
        Ok(())
    }
}
