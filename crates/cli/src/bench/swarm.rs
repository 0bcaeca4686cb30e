//! Thousands of clients on one thread: non-blocking sockets, one epoll instance, one buffer, no copy of payloads.

mod entrance;
mod member;
mod stream;

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hookwire_proto::envelope::FRAME_PAYLOAD_BYTES_MAX;
use mio::event::Event;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Registry, Token};
use rustls::ClientConfig;
use socket2::{Domain, Protocol, Socket, Type};

pub(super) use self::entrance::{Entrance, Ready};
use self::member::Member;
pub(super) use self::member::{Ending, MASK};
use self::stream::MemberStream;

/// Bytes read from one socket at once.
const SCRATCH_BYTES: usize = 64 * 1024;

/// Readiness events taken at once.
const EVENTS_MAX: usize = 1_024;

/// Nothing at all happened for this long: whoever is measured is stuck.
pub(super) const STALL_TIME_MAX: Duration = Duration::from_secs(30);

/// Connections from one source address; the kernel has about 28,000 ports for each.
const CONNECTIONS_PER_SOURCE: usize = 10_000;

/// What a [`Stamp`] begins with. It stands nowhere else in what a server sends.
const STAMP_MARKER: &[u8; 2] = b"~#";

/// Bytes of a [`Stamp`]'s two numbers, as they are and as text.
const STAMP_NUMBERS_BYTES: usize = 12;
const STAMP_TEXT_BYTES: usize = STAMP_NUMBERS_BYTES / 3 * 4;

/// Shortest payload of a message: its [`Stamp`].
pub(super) const PAYLOAD_BYTES_MIN: usize = STAMP_MARKER.len() + STAMP_TEXT_BYTES;

/// Longest payload of a message: what fits into one frame of the service.
pub(super) const PAYLOAD_BYTES_MAX: usize = FRAME_PAYLOAD_BYTES_MAX;

/// The socket that a swarm watches beside its members.
pub(super) const GUEST: Token = Token(usize::MAX);

/// What a swarm tells of its members.
pub(super) trait Handler {
    /// A whole message came at `now`; `head` is its payload, or the beginning of it.
    fn message(&mut self, member: usize, head: &[u8], now: u64) -> anyhow::Result<()>;

    /// A member is ready, `waited` nanoseconds after it was begun.
    fn opened(&mut self, _member: usize, _waited: u64) {}

    /// A member's connection was ended by the service, or was lost; [`Swarm::reopen`] brings the member back.
    ///
    /// # Errors
    /// It should have lasted; so it is unless a handler says otherwise.
    fn ended(&mut self, _member: usize, ending: Ending) -> anyhow::Result<()> {
        Err(ending.into())
    }
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

/// The beginning of every payload: which message it is and when it was sent, each in 48 bits. It is printable ASCII that no encoding
/// changes, so that it is found where it lies, whatever stands around the payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub(super) sequence: u64,
    pub(super) sent: u64,
}

impl Stamp {
    /// Writes the stamp over the start of a payload of at least [`PAYLOAD_BYTES_MIN`].
    pub(super) fn put(self, payload: &mut [u8]) {
        let mut numbers = [0; STAMP_NUMBERS_BYTES];
        numbers[..6].copy_from_slice(&self.sequence.to_be_bytes()[2..]);
        numbers[6..].copy_from_slice(&self.sent.to_be_bytes()[2..]);
        let (marker, text) = payload[..PAYLOAD_BYTES_MIN].split_at_mut(STAMP_MARKER.len());
        marker.copy_from_slice(STAMP_MARKER);
        URL_SAFE_NO_PAD
            .encode_slice(numbers, text)
            .expect("three bytes are four characters, without a remainder");
    }

    /// Reads the stamp that stands in the head of a message.
    pub(super) fn read(head: &[u8]) -> anyhow::Result<Self> {
        let start = Self::position(head).context("a message has no stamp")? + STAMP_MARKER.len();
        let text = head.get(start..start + STAMP_TEXT_BYTES);
        let mut numbers = [0; STAMP_NUMBERS_BYTES];
        URL_SAFE_NO_PAD
            .decode_slice(text.context("a message is too short for its stamp")?, &mut numbers)
            .context("a message's stamp is broken")?;
        let number = |bytes: &[u8]| bytes.iter().fold(0, |high, low| high << 8 | u64::from(*low));
        Ok(Self { sequence: number(&numbers[..6]), sent: number(&numbers[6..]) })
    }

    /// Returns where the first stamp begins.
    pub(super) fn position(bytes: &[u8]) -> Option<usize> {
        bytes.windows(STAMP_MARKER.len()).position(|two| two == STAMP_MARKER)
    }
}

/// What a member says first, and what must come before it is ready.
#[derive(Debug, Clone, Default)]
pub(super) struct Opening {
    pub(super) request: Vec<u8>,
    /// `None`: a plain socket that gets frames without asking.
    pub(super) entrance: Option<Arc<Entrance>>,
}

/// Where a swarm connects to.
#[derive(Debug, Clone)]
pub(super) struct Door {
    pub(super) address: SocketAddr,
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
    /// `None`: a member without a connection.
    members: Vec<Option<Member>>,
    /// Members that are ready.
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

    /// Returns the number of members that are ready.
    pub(super) const fn open(&self) -> usize {
        self.open
    }

    /// Whether a member is ready.
    pub(super) fn is_open(&self, member: usize) -> bool {
        self.members.get(member).and_then(Option::as_ref).is_some_and(Member::is_open)
    }

    /// Connects members until there are `count`, each as `opening` returns for it. Returns when all are ready.
    pub(super) fn connect(
        &mut self,
        door: &Door,
        count: usize,
        mut opening: impl FnMut(usize) -> Opening,
        handler: &mut impl Handler,
    ) -> anyhow::Result<()> {
        while self.open < count {
            while self.members.len() < count && self.members.len() - self.open < door.in_flight {
                let member = self.add();
                self.reopen(door, member, opening(member))?;
            }
            self.turn(handler)?;
        }
        Ok(())
    }

    /// Adds a member that has no connection. Returns its number.
    pub(super) fn add(&mut self) -> usize {
        self.members.push(None);
        self.members.len() - 1
    }

    /// Begins the connection of a member that has none.
    pub(super) fn reopen(
        &mut self,
        door: &Door,
        member: usize,
        opening: Opening,
    ) -> anyhow::Result<()> {
        let stream = connect(door.address, member)
            .with_context(|| format!("connection {member} to {} failed", door.address))?;
        let mut stream = MemberStream::new(stream, door)?;
        let interests = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream.socket, Token(member), interests)?;
        self.members[member] = Some(Member::new(stream, opening, self.clock.now()));
        Ok(())
    }

    /// Cuts a member's connection: no close frame, and a reset in place of the end of the stream.
    pub(super) fn cut(&mut self, member: usize) {
        if let Some(member) = self.members[member].take() {
            self.open -= usize::from(member.is_open());
            member.reset();
        }
    }

    /// Has a member read nothing more: the service will find its socket full.
    pub(super) fn deafen(&mut self, member: usize) -> anyhow::Result<()> {
        let Some(member) = &mut self.members[member] else { return Ok(()) };
        Ok(self.poll.registry().deregister(&mut member.stream.socket)?)
    }

    /// Has a member read again that does not.
    pub(super) fn hear(&mut self, member: usize) -> anyhow::Result<()> {
        let Some(one) = &mut self.members[member] else { return Ok(()) };
        let interests = Interest::READABLE | Interest::WRITABLE;
        // What is there already is told at once.
        Ok(self.poll.registry().register(&mut one.stream.socket, Token(member), interests)?)
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
            let Some(member) = &mut self.members[index] else { continue };
            let was_open = member.is_open();
            let served = serve(member, index, event, &mut self.scratch, self.clock, handler);
            let is_open = member.is_open();
            if !was_open && is_open {
                self.open += 1;
                handler.opened(index, self.clock.now() - member.begun);
            }
            let ended = match served.map_err(anyhow::Error::downcast::<Ending>) {
                Ok(()) => continue,
                Err(Ok(ending)) => {
                    self.open -= usize::from(is_open);
                    self.members[index] = None;
                    handler.ended(index, ending)
                }
                Err(Err(error)) => Err(error),
            };
            ended.with_context(|| format!("connection {index} failed"))?;
        }
        Ok(Turn { something: !self.events.is_empty(), guest })
    }

    /// Returns the payload bytes of the last frame with a message that a member got; 0 if there was none.
    pub(super) fn payload_bytes(&self, member: usize) -> u64 {
        self.members[member].as_ref().map_or(0, |member| member.payload_bytes)
    }

    /// Sends bytes as one member, now as far as its socket takes them. A member without a connection sends nothing.
    pub(super) fn send(&mut self, member: usize, bytes: &[u8]) -> anyhow::Result<()> {
        let Some(one) = &mut self.members[member] else { return Ok(()) };
        match one.send(bytes) {
            // Whoever reads next finds out how the connection ended.
            Err(error) if error.is::<Ending>() => Ok(()),
            sent => sent.with_context(|| format!("connection {member} failed")),
        }
    }

    /// Throws all connections away, without ceremony and without leaving ports in `TIME_WAIT`.
    pub(super) fn reset(&mut self) {
        for member in self.members.drain(..).flatten() {
            member.reset();
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
                Ok(0) => return Err(Ending::Finished.into()),
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(Ending::Lost(error).into()),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_found_wherever_it_stands() {
        let stamp = Stamp { sequence: 0x1234_5678_9abc, sent: (1 << 48) - 1 };
        let mut payload = vec![b'.'; PAYLOAD_BYTES_MIN + 3];
        stamp.put(&mut payload);
        assert!(payload.iter().all(u8::is_ascii_graphic));
        assert!(!payload.iter().any(|byte| b"\\\"&<>".contains(byte)), "JSON writes it as it is");
        for before in [&b""[..], b"{\"data\":\"", b"\x12~", b"#~"] {
            assert_eq!(Stamp::read(&[before, &payload].concat()).unwrap(), stamp);
        }
        for (broken, fault) in [
            (&payload[2..], "no stamp"),
            (&payload[..PAYLOAD_BYTES_MIN - 1], "too short"),
            (b"~#................", "broken"),
        ] {
            let error = Stamp::read(broken).unwrap_err().to_string();
            assert!(error.contains(fault), "{error}");
        }
    }
}
