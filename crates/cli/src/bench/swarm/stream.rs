//! The socket of a client, with TLS over it or without.

use std::io::{self, Read, Write};

use mio::net::TcpStream;
use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use super::Door;

/// A stream that never waits.
#[derive(Debug)]
pub(super) struct MemberStream {
    pub(super) socket: TcpStream,
    tls: Option<Box<ClientConnection>>,
}

impl MemberStream {
    /// Returns the stream by which a client goes through a door.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub(super) fn new(socket: TcpStream, door: &Door) -> anyhow::Result<Self> {
        let Some(config) = &door.tls else { return Ok(Self::plain(socket)) };
        let name = ServerName::from(door.address.ip());
        Ok(Self { socket, tls: Some(Box::new(ClientConnection::new(config.clone(), name)?)) })
    }

    pub(super) const fn plain(socket: TcpStream) -> Self {
        Self { socket, tls: None }
    }

    pub(super) const fn is_tls(&self) -> bool {
        self.tls.is_some()
    }
}

impl Read for MemberStream {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.socket.read(into),
            Some(session) => rustls::Stream::new(&mut **session, &mut self.socket).read(into),
        }
    }
}

impl Write for MemberStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match &mut self.tls {
            None => self.socket.write(bytes),
            Some(session) => rustls::Stream::new(&mut **session, &mut self.socket).write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
