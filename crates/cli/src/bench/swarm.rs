//! Thousands of clients on one thread: non-blocking sockets, one epoll instance, one buffer, no copy of payloads.

mod member;
mod stream;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use hookwire_proto::envelope::FRAME_PAYLOAD_BYTES_MAX;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token};
use rustls::ClientConfig;
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use self::member::Member;
use self::stream::MemberStream;
use super::wire::Upgrade;

/// Bytes read from one socket at once.
const SCRATCH_BYTES: usize = 64 * 1024;

/// Readiness events taken at once.
const EVENTS_MAX: usize = 1_024;

/// Nothing at all happened for this long: whoever is measured is stuck.
pub(super) const STALL_TIME_MAX: Duration = Duration::from_secs(30);

/// Connections from one source address; the kernel has about 28,000 ports for each.
const CONNECTIONS_PER_SOURCE: usize = 10_000;

/// Shortest payload of a message: its [`Stamp`].
pub(super) const PAYLOAD_BYTES_MIN: usize = 16;

/// Longest payload of a message: what fits into one frame of the service.
pub(super) const PAYLOAD_BYTES_MAX: usize = FRAME_PAYLOAD_BYTES_MAX;

/// The socket that a swarm watches beside its members.
pub(super) const GUEST: Token = Token(usize::MAX);

/// What a swarm tells of its members.
pub(super) trait Handler {
    /// A whole message came at `now`; `head` is its payload, or the first [`member::PAYLOAD_HEAD_BYTES`] of it.
    fn message(&mut self, member: usize, head: &[u8], now: u64) -> anyhow::Result<()>;

    /// A member's connection stands, `waited` nanoseconds after it was begun.
    fn opened(&mut self, _member: usize, _waited: u64) {}
}

/// Time since the start of the program, in nanoseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock(Instant);

impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn now(self) -> u64 {
        u64::try_from(self.0.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The beginning of every payload: which message it is and when it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) sequence: u64,
    pub(super) sent: u64,
}

impl Stamp {
    /// Writes the stamp over the start of a payload of at least [`PAYLOAD_BYTES_MIN`].
    pub(super) fn put(self, payload: &mut [u8]) {
        payload[..8].copy_from_slice(&self.sequence.to_be_bytes());
        payload[8..16].copy_from_slice(&self.sent.to_be_bytes());
    }

    /// Reads the stamp at the start of a payload.
    pub(super) fn read(payload: &[u8]) -> anyhow::Result<Self> {
        let (sequence, rest) =
            payload.split_first_chunk().context("a message is too short for its stamp")?;
        let (sent, _) = rest.split_first_chunk().context("a message is too short for its stamp")?;
        Ok(Self { sequence: u64::from_be_bytes(*sequence), sent: u64::from_be_bytes(*sent) })
    }
}

/// Where a swarm connects to and what its members say first.
#[derive(Debug)]
pub(super) struct Door {
    pub(super) address: SocketAddr,
    /// `None`: plain sockets that get frames without asking.
    pub(super) upgrade: Option<Rc<Upgrade>>,
    /// How TLS is spoken there, if it is.
    pub(super) tls: Option<Arc<ClientConfig>>,
    /// Handshakes under way at once.
    pub(super) in_flight: usize,
}

/// The clients.
#[derive(Debug)]
pub(super) struct Swarm {
    poll: Poll,
    events: Events,
    scratch: Box<[u8]>,
    members: Vec<Member>,
    /// Members whose connection stands.
    open: usize,
    clock: Clock,
}

impl Swarm {
    pub(super) fn new(clock: Clock) -> anyhow::Result<Self> {
        Ok(Self {
            poll: Poll::new().context("the kernel refused an epoll instance")?,
            events: Events::with_capacity(EVENTS_MAX),
            scratch: vec![0; SCRATCH_BYTES].into_boxed_slice(),
            members: Vec::new(),
            open: 0,
            clock,
        })
    }

    /// Returns the number of connections.
    pub(super) fn len(&self) -> usize {
        self.members.len()
    }

    /// Returns where the guest's socket registers itself as [`GUEST`].
    pub(super) fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// Connects members until there are `count`; each sends what `request` returns for it. Returns when all connections stand.
    pub(super) fn connect(
        &mut self,
        door: &Door,
        count: usize,
        mut request: impl FnMut(usize) -> Vec<u8>,
        handler: &mut impl Handler,
    ) -> anyhow::Result<()> {
        while self.open < count {
            while self.members.len() < count && self.members.len() - self.open < door.in_flight {
                let index = self.members.len();
                let stream = connect(door.address, index)
                    .with_context(|| format!("connection {index} to {} failed", door.address))?;
                let upgrade = door.upgrade.clone();
                let stream = MemberStream::new(stream, door)?;
                self.members.push(Member::new(stream, request(index), upgrade, self.clock.now()));
                let interests = Interest::READABLE | Interest::WRITABLE;
                let stream = &mut self.members[index].stream.socket;
                self.poll.registry().register(stream, Token(index), interests)?;
            }
            self.turn(handler)?;
        }
        Ok(())
    }

    /// Waits until something happens and tells it to `handler`. Returns whether the guest's socket is ready.
    pub(super) fn turn(&mut self, handler: &mut impl Handler) -> anyhow::Result<bool> {
        let turn = self.turn_until(STALL_TIME_MAX, handler)?;
        ensure!(turn.something, "nothing happened for {} seconds", STALL_TIME_MAX.as_secs());
        Ok(turn.guest)
    }

    /// Like [`Swarm::turn`], but nothing may happen for `patience`.
    pub(super) fn turn_until(
        &mut self,
        patience: Duration,
        handler: &mut impl Handler,
    ) -> anyhow::Result<Turn> {
        match self.poll.poll(&mut self.events, Some(patience)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                return Ok(Turn { something: true, guest: false });
            }
            Err(error) => return Err(error).context("epoll failed"),
        }
        let mut guest = false;
        for event in &self.events {
            if event.token() == GUEST {
                guest = true;
                continue;
            }
            let Token(index) = event.token();
            let member = &mut self.members[index];
            let was_open = member.is_open();
            serve(member, index, event, &mut self.scratch, self.clock, handler)
                .with_context(|| format!("connection {index} failed"))?;
            if !was_open && member.is_open() {
                self.open += 1;
                handler.opened(index, self.clock.now() - member.begun);
            }
        }
        Ok(Turn { something: !self.events.is_empty(), guest })
    }

    /// Sends bytes as one member, now as far as its socket takes them.
    pub(super) fn send(&mut self, member: usize, bytes: &[u8]) -> anyhow::Result<()> {
        self.members[member].send(bytes).with_context(|| format!("connection {member} failed"))
    }

    /// Throws all connections away, without ceremony and without leaving ports in `TIME_WAIT`.
    pub(super) fn reset(&mut self) {
        for member in self.members.drain(..) {
            // A socket that refuses it leaves its port behind for a minute.
            let _ = SockRef::from(&member.stream.socket).set_linger(Some(Duration::ZERO));
        }
        self.open = 0;
    }
}

impl Drop for Swarm {
    fn drop(&mut self) {
        self.reset();
    }
}

/// What a turn came to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Turn {
    /// Anything happened.
    pub(super) something: bool,
    /// The guest's socket is ready.
    pub(super) guest: bool,
}

fn serve(
    member: &mut Member,
    index: usize,
    event: &Event,
    scratch: &mut [u8],
    clock: Clock,
    handler: &mut impl Handler,
) -> anyhow::Result<()> {
    if event.is_writable() || event.is_error() {
        member.on_writable()?;
    }
    if event.is_readable() || event.is_read_closed() || event.is_error() {
        loop {
            let count = match io::Read::read(&mut member.stream, scratch) {
                Ok(0) => bail!("the service ended it"),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            let now = clock.now();
            member.take(&scratch[..count], |head| handler.message(index, head, now))?;
            // A short read has emptied the socket (epoll(7)), unless its end has come.
            if count < scratch.len() && !event.is_read_closed() && !member.stream.is_tls() {
                break;
            }
        }
        // What had to wait for the handshake of TLS.
        if member.stream.is_tls() {
            member.flush()?;
        }
    }
    Ok(())
}

/// Begins a connection. To a loopback address further source addresses are used when the ports of one do not suffice.
fn connect(address: SocketAddr, index: usize) -> io::Result<TcpStream> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM.nonblocking().cloexec(),
        Some(Protocol::TCP),
    )?;
    socket.set_tcp_nodelay(true)?;
    let source = index / CONNECTIONS_PER_SOURCE;
    if let (IpAddr::V4(to), Ok(source @ 1..=253)) = (address.ip(), u8::try_from(source))
        && to.is_loopback()
    {
        let from = Ipv4Addr::new(127, 0, 0, source + 1);
        socket.bind(&SocketAddr::from((from, 0)).into())?;
    }
    match socket.connect(&address.into()) {
        Ok(()) => {}
        Err(error)
            if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
        Err(error) => return Err(error),
    }
    Ok(TcpStream::from_std(socket.into()))
}
