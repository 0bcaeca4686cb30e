//! The REST API over one connection that stays, with as many requests in flight as its user likes.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream as StdStream};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use mio::net::TcpStream;
use mio::{Interest, Registry, Token};

use super::swarm::GUEST;
use super::wire::{self, Answer};

/// How long connecting to the service may take.
pub(super) const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// Bytes of answers that are read at once.
const READ_BYTES: usize = 16 * 1024;

/// Requests in flight. More means that the service does not keep up.
pub(super) const IN_FLIGHT_MAX: usize = 4_096;

/// A caller of the REST API.
#[derive(Debug)]
pub(super) struct Publisher {
    stream: TcpStream,
    authority: String,
    out: Vec<u8>,
    written: usize,
    input: Vec<u8>,
    in_flight: usize,
}

impl Publisher {
    /// Connects and registers itself as the guest of a swarm.
    pub(super) fn connect(
        address: SocketAddr,
        authority: &str,
        registry: &Registry,
    ) -> anyhow::Result<Self> {
        Self::connect_as(GUEST, address, authority, registry)
    }

    /// Connects and registers itself by a token.
    pub(super) fn connect_as(
        token: Token,
        address: SocketAddr,
        authority: &str,
        registry: &Registry,
    ) -> anyhow::Result<Self> {
        let stream = StdStream::connect_timeout(&address, CONNECT_TIME_MAX)
            .with_context(|| format!("the service at {address} cannot be reached"))?;
        stream.set_nodelay(true)?;
        stream.set_nonblocking(true)?;
        let mut stream = TcpStream::from_std(stream);
        registry.register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self {
            stream,
            authority: authority.to_owned(),
            out: Vec::new(),
            written: 0,
            input: Vec::new(),
            in_flight: 0,
        })
    }

    /// Returns how many requests are unanswered.
    pub(super) const fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Puts a request in line; [`Publisher::flush`] sends it.
    pub(super) fn queue(
        &mut self,
        method: &str,
        path: &str,
        token: Option<&str>,
        content_type: &str,
        body: &[u8],
    ) -> anyhow::Result<()> {
        let request = wire::request(method, &self.authority, path, token, content_type, body);
        self.queue_written(&request)
    }

    /// Puts a request in line that is written already.
    pub(super) fn queue_written(&mut self, request: &[u8]) -> anyhow::Result<()> {
        ensure!(
            self.in_flight < IN_FLIGHT_MAX,
            "the service does not keep up: {IN_FLIGHT_MAX} REST requests are unanswered"
        );
        self.out.extend_from_slice(request);
        self.in_flight += 1;
        Ok(())
    }

    /// Sends what is in line as far as the socket takes it.
    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(0) => bail!("the REST connection takes nothing"),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error).context("the REST connection failed"),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }

    /// Goes on when the socket is ready: writes, and takes the answers that have come.
    ///
    /// # Errors
    /// An answer is no success, or the connection has ended.
    pub(super) fn on_ready(&mut self) -> anyhow::Result<()> {
        let check: fn(&Answer<'_>) -> anyhow::Result<()> = |answer| answer.check();
        self.take_answers(check)
    }

    /// Like [`Publisher::on_ready`], but `judge` decides what an answer means.
    pub(super) fn take_answers(
        &mut self,
        mut judge: impl FnMut(&Answer<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.flush()?;
        let mut buffer = [0; READ_BYTES];
        loop {
            match self.stream.read(&mut buffer) {
                Ok(0) => bail!("the service ended the REST connection"),
                Ok(count) => self.input.extend_from_slice(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("the REST connection failed"),
            }
            let mut taken = 0;
            while let Some(answer) = Answer::parse(&self.input[taken..])? {
                ensure!(self.in_flight != 0, "the service answered what nobody asked");
                judge(&answer)?;
                self.in_flight -= 1;
                taken += answer.bytes;
            }
            self.input.drain(..taken);
        }
        Ok(())
    }
}
