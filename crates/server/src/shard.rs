//! A shard: one thread with its own epoll instance, its sockets and its part of every hub.
//!
//! One turn drains the inbox and the readable sockets into inputs, lets the hub decide, performs its effects and flushes each
//! dirty socket once. Nothing is written frame by frame under load, and an idle connection owns nothing but its entry.

mod clock;
mod ending;
mod inbox;
mod lanes;
mod outbox;
mod reading;
mod runs;
mod socket;
mod stream;
mod writing;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use hookwire_hub::{
    Answer, Call, Command, Connecting, Effect, Ending, EventCopy, Hub, Input, Recovering, Settings,
    Slot, Ticket, UnixMillis,
};
use hookwire_proto::connection::{Event, Incoming};
use hookwire_proto::deflate::{Deflate, Deflater, Inflation};
use hookwire_proto::envelope::{Envelope, SequencedFrames, encode};
use hookwire_proto::frame::CloseCode;
use hookwire_proto::name::{ConnectionId, HubName};
use mio::{Events, Poll, Token};
use tokio::sync::oneshot;

pub(crate) use self::inbox::Pressure;
use self::lanes::Take;
use self::runs::Runs;
use self::socket::Socket;
use crate::metrics::ShardStats;
use crate::shards::{Admission, Upgraded};

/// Bytes read from one socket in one turn.
const READ_BYTES_MAX: usize = 64 * 1024;

/// What the compressed messages of one socket may become in one turn; the rest is the next turn's. A few KiB more may come of it.
const INFLATED_BYTES_PER_TURN_MAX: usize = 256 * 1024;

/// Readiness events taken from the kernel in one turn.
const EVENTS_MAX: usize = 1_024;

/// Sockets flushed in one turn; the others follow in the next, with reads in between.
const FLUSHES_PER_TURN_MAX: usize = 4_096;

/// What may be written in one turn: so many payload bytes are taken in as come to it if every connection gets them, and no more are
/// written of what waits for sockets. What is left waits for the next turn, with the inputs of other hubs and of clients before it.
const TURN_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Least and most payload bytes that are taken in for that in one turn, of all hubs together.
const SHARE_BYTES_MIN: usize = 32 * 1024;
const SHARE_BYTES_MAX: usize = 1024 * 1024;

/// How long a client may take for its part of the close handshake before its socket is reset.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(2);

/// Why connections end when the service does.
const SHUTTING_DOWN: &str = "the service is shutting down";

/// Why a connection ends whose client was gone before it was in.
const LEFT_IN_HANDSHAKE: &str = "the client left during its handshake";

/// How often time limits are looked at.
const TICK: Duration = Duration::from_millis(500);

/// The inbox's key among the readiness events; no slot reaches it.
const WAKE: Token = Token(usize::MAX);

/// The limits that a shard holds its sockets to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShardLimits {
    /// Largest message from a client.
    pub(crate) message_bytes_max: usize,
    /// After this long without a word from a client it is asked; after twice as long it is gone.
    pub(crate) ping_interval: Duration,
    /// More than this in an outbox after a flush for longer than `slow_time_max` closes the connection.
    pub(crate) slow_bytes_max: usize,
    /// See `slow_bytes_max`.
    pub(crate) slow_time_max: Duration,
    /// More than this in an outbox after a flush closes the connection at once.
    pub(crate) outbox_bytes_max: usize,
    /// The same for a reliable connection, which is given its whole recovery buffer when it comes back.
    pub(crate) patient_bytes_max: usize,
    /// How long a message may take to arrive.
    pub(crate) incomplete_time_max: Duration,
    /// Memory for incomplete messages of the whole shard.
    pub(crate) incomplete_bytes_max: usize,
    /// Sends each message back to its sender and asks no upstream (load tests and conformance suites).
    pub(crate) echo: bool,
}

/// What can lie in a shard's inbox.
#[derive(Debug)]
pub(crate) enum Letter {
    /// Something for members of a hub.
    Deliver(Envelope),
    /// News of an upstream call for a connection of the hub.
    Upstream(HubName, Input),
    /// A client wants in.
    Connect(Box<Connecting>, oneshot::Sender<Admission>),
    /// A client wants its connection back.
    Recover(Box<Recovering>, oneshot::Sender<Admission>),
    /// A question.
    Ask(Command, oneshot::Sender<Answer>),
    /// The socket of an admitted connection.
    Attach(ConnectionId, Box<Upgraded>),
    /// There will be no socket.
    Abandon(ConnectionId),
    /// New settings.
    Settings(Arc<Settings>, oneshot::Sender<()>),
    /// New limits.
    Limits(ShardLimits, oneshot::Sender<()>),
    /// Close every connection, take no new ones, and say when every event has been handed out.
    Drain(oneshot::Sender<()>),
    /// End the thread.
    Stop,
}

impl Letter {
    /// Returns the hub in whose order it stands; the others come first.
    fn hub(&self) -> Option<&HubName> {
        match self {
            Self::Deliver(envelope) => Some(&envelope.hub),
            Self::Upstream(hub, _) => Some(hub),
            Self::Ask(command, _) => command.hub(),
            Self::Connect(..)
            | Self::Recover(..)
            | Self::Attach(..)
            | Self::Abandon(_)
            | Self::Settings(..)
            | Self::Limits(..)
            | Self::Drain(_)
            | Self::Stop => None,
        }
    }

    /// Returns the payload bytes that count against the inbox's limit.
    fn bytes(&self) -> usize {
        match self {
            Self::Deliver(envelope) => envelope.bytes(),
            Self::Upstream(..)
            | Self::Connect(..)
            | Self::Recover(..)
            | Self::Ask(..)
            | Self::Attach(..)
            | Self::Abandon(_)
            | Self::Settings(..)
            | Self::Limits(..)
            | Self::Drain(_)
            | Self::Stop => 0,
        }
    }
}

/// The inbox of a shard, as the other threads see it.
#[derive(Debug)]
pub(crate) struct Mailbox {
    inbox: inbox::Inbox<HubName, Letter, mio::Waker>,
    /// Sockets of the shard, with those on their way in.
    pub(crate) load: AtomicUsize,
    /// Connections that wait for their clients to come back.
    pub(crate) recovering: AtomicUsize,
}

impl Mailbox {
    pub(crate) fn push(&self, letter: Letter, pressure: &Pressure) {
        let bytes = letter.bytes();
        match letter.hub().cloned() {
            Some(hub) => self.inbox.push(&hub, letter, bytes, pressure),
            None => self.inbox.push_first(letter),
        }
    }

    /// Whether more of the hub waits than may.
    pub(crate) fn is_full(&self, hub: &HubName) -> bool {
        self.inbox.is_full(hub)
    }
}

/// What a shard shares with the rest of its node.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    /// One for each shard.
    pub(crate) mailboxes: Arc<[Mailbox]>,
    /// Whether an inbox is over its limit.
    pub(crate) pressure: Arc<Pressure>,
}

/// What a shard wants sent to an upstream.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// A call, which is answered.
    Call(Call),
    /// A copy for a listener.
    Copy(Box<EventCopy>),
}

/// One shard.
pub(crate) struct Shard {
    index: usize,
    limits: ShardLimits,
    shared: Shared,
    stats: Arc<ShardStats>,
    outgoing: Box<dyn Fn(Outgoing) + Send>,
    poll: Poll,
    started: Instant,
    now: Instant,
    wall: UnixMillis,
    hub: Hub,
    spare_effects: Vec<Effect>,
    spare_frames: SequencedFrames,
    sockets: Vec<Option<Socket>>,
    awaiting_socket: HashMap<ConnectionId, Expected>,
    verdicts: HashMap<Ticket, oneshot::Sender<Admission>>,
    answer: Option<Answer>,
    last_ticket: u64,
    runs: Runs,
    deflater: Deflater,
    inflation: Inflation,
    /// Sockets of reliable connections with messages that they have not been given; each is marked.
    unsent: Vec<Slot>,
    /// Sockets with something to write.
    dirty: VecDeque<Slot>,
    /// Sockets with something to read.
    ready: VecDeque<Slot>,
    /// Sockets that failed; forgotten at the end of the turn.
    lost: Vec<Slot>,
    scratch: Box<[u8]>,
    /// Encrypted bytes on their way into `scratch`; empty until the first TLS socket.
    ciphertext: Box<[u8]>,
    events: Vec<Event>,
    closing: BTreeMap<Slot, Instant>,
    slow: BTreeMap<Slot, Instant>,
    incomplete: BTreeMap<Slot, Instant>,
    incomplete_bytes: usize,
    next_tick: Instant,
    /// Where the walk for pings goes on.
    ping_cursor: usize,
    draining: Option<oneshot::Sender<()>>,
    is_draining: bool,
    count: Counters,
}

/// The place of a socket that is still with the HTTP side.
#[derive(Debug, Clone, Copy)]
struct Expected {
    slot: Slot,
    /// Its connection has not had a socket before.
    is_new: bool,
}

/// Counted in the turn, published at its end.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Counters {
    pub(crate) messages_in: u64,
    pub(crate) bytes_in: u64,
    /// Messages put in line for a connection.
    pub(crate) deliveries: u64,
    pub(crate) bytes_out: u64,
    pub(crate) slow_consumers: u64,
    pub(crate) protocol_errors: u64,
    pub(crate) ping_timeouts: u64,
    /// Bytes that sockets have not taken.
    pub(crate) queue_bytes: u64,
    /// Bytes of messages that were to be compressed, and what became of them.
    pub(crate) deflate_plain_bytes: u64,
    pub(crate) deflated_bytes: u64,
    /// Bytes of compressed messages from clients, and what became of them.
    pub(crate) inflate_deflated_bytes: u64,
    pub(crate) inflated_bytes: u64,
}

/// Makes the mailboxes of a node and the polls that they wake.
///
/// # Errors
/// The kernel refused an epoll instance or an eventfd.
pub(crate) fn mailboxes(shards: usize) -> io::Result<(Shared, Vec<Poll>)> {
    let mut polls = Vec::with_capacity(shards);
    let mut mailboxes = Vec::with_capacity(shards);
    for _ in 0..shards {
        let poll = Poll::new()?;
        let waker = mio::Waker::new(poll.registry(), WAKE)?;
        mailboxes.push(Mailbox {
            inbox: inbox::Inbox::new(waker),
            load: AtomicUsize::new(0),
            recovering: AtomicUsize::new(0),
        });
        polls.push(poll);
    }
    Ok((Shared { mailboxes: mailboxes.into(), pressure: Arc::default() }, polls))
}

impl Shard {
    /// Returns the shard of `index`. `outgoing` takes what goes to an upstream; it must not wait.
    pub(crate) fn new(
        index: usize,
        limits: ShardLimits,
        shared: Shared,
        poll: Poll,
        stats: Arc<ShardStats>,
        outgoing: Box<dyn Fn(Outgoing) + Send>,
    ) -> Self {
        let now = Instant::now();
        Self {
            index,
            limits,
            shared,
            stats,
            outgoing,
            poll,
            started: now,
            now,
            wall: wall_clock(),
            hub: Hub::default(),
            spare_effects: Vec::new(),
            spare_frames: SequencedFrames::default(),
            sockets: Vec::new(),
            awaiting_socket: HashMap::new(),
            verdicts: HashMap::new(),
            answer: None,
            last_ticket: 0,
            runs: Runs::default(),
            deflater: Deflater::default(),
            inflation: Inflation::default(),
            unsent: Vec::new(),
            dirty: VecDeque::new(),
            ready: VecDeque::new(),
            lost: Vec::new(),
            scratch: vec![0; READ_BYTES_MAX].into_boxed_slice(),
            ciphertext: Box::default(),
            events: Vec::new(),
            closing: BTreeMap::new(),
            slow: BTreeMap::new(),
            incomplete: BTreeMap::new(),
            incomplete_bytes: 0,
            next_tick: now + TICK,
            ping_cursor: 0,
            draining: None,
            is_draining: false,
            count: Counters::default(),
        }
    }

    /// Gives the hub what it must know before the first connection.
    pub(crate) fn restore(&mut self, input: Input) {
        self.handle(input);
    }

    /// Runs until [`Letter::Stop`].
    pub(crate) fn run(mut self) {
        let mut events = Events::with_capacity(EVENTS_MAX);
        let mut letters = Vec::new();
        loop {
            let timeout = self.timeout();
            if let Err(error) = self.poll.poll(&mut events, Some(timeout))
                && error.kind() != io::ErrorKind::Interrupted
            {
                // Nothing can be served without epoll; the kernel documents no other way to get here than a fault of ours.
                panic!("epoll failed: {error}");
            }
            self.mailbox().inbox.set_awake();
            self.now = Instant::now();
            self.wall = wall_clock();
            self.notice(&events);
            if !self.turn(&mut letters) {
                return;
            }
        }
    }

    /// One turn: whatever happened, every decision, then one flush per dirty socket. Returns whether there is a next.
    fn turn(&mut self, letters: &mut Vec<Letter>) -> bool {
        let share =
            TURN_BYTES_MAX / self.hub.open_connections().clamp(1, TURN_BYTES_MAX / SHARE_BYTES_MIN);
        let share = share.min(SHARE_BYTES_MAX);
        // What was decided is written before more is, but a hub with little to do does not wait for that.
        let take = if self.dirty.is_empty() { Take::Share(share) } else { Take::Light(share) };
        self.take_letters(take, letters);
        for letter in letters.drain(..) {
            if !self.open(letter) {
                return false;
            }
        }
        if self.draining.is_some() && !self.is_draining && !self.drain(letters) {
            return false;
        }
        self.read_ready();
        self.tick();
        self.flush();
        self.forget_lost();
        // What the end of a connection tells others goes out in the next turn, which begins at once.
        self.close_runs();
        self.queue_all_unsent();
        self.report_drained();
        self.publish();
        true
    }

    /// Ends every connection, once everything that was accepted for it is in line. Returns whether the shard goes on.
    fn drain(&mut self, letters: &mut Vec<Letter>) -> bool {
        self.take_letters(Take::All, letters);
        for letter in letters.drain(..) {
            if !self.open(letter) {
                return false;
            }
        }
        self.is_draining = true;
        self.verdicts.clear();
        for slot in self.hub.slots() {
            let ending = Ending::Final(SHUTTING_DOWN.into());
            self.end(slot, CloseCode::GOING_AWAY, ending);
        }
        true
    }

    fn take_letters(&self, take: Take, letters: &mut Vec<Letter>) {
        if self.mailbox().inbox.take(take, letters, &self.shared.pressure)
            && !self.shared.pressure.is_high()
        {
            // The others may have stopped reading.
            for mailbox in self.shared.mailboxes.iter() {
                mailbox.inbox.wake();
            }
        }
    }

    fn mailbox(&self) -> &Mailbox {
        &self.shared.mailboxes[self.index]
    }

    /// Returns how long the shard may sleep.
    fn timeout(&mut self) -> Duration {
        let can_read = |shard: &Self| !shard.ready.is_empty() && shard.may_read();
        let busy = !self.dirty.is_empty() || can_read(self);
        // Others wake only who may be asleep, so what they wake for is looked at once more after that is said.
        if busy || !self.mailbox().inbox.may_sleep() || can_read(self) {
            return Duration::ZERO;
        }
        let mut timeout = self.next_tick.saturating_duration_since(self.now);
        if let Some(expiry) = self.hub.poll_timeout() {
            timeout = timeout.min(Duration::from_millis(expiry.saturating_sub(self.wall)));
        }
        timeout
    }

    /// Notes what epoll said.
    fn notice(&mut self, events: &Events) {
        for event in events {
            let Token(at) = event.token();
            let Some(Some(socket)) = self.sockets.get_mut(at) else { continue };
            let slot = Slot(u32::try_from(at).expect("a token is a slot"));
            if event.is_readable() || event.is_read_closed() || event.is_error() {
                socket.read_closed |= event.is_read_closed() || event.is_error();
                if !socket.readable {
                    socket.readable = true;
                    self.ready.push_back(slot);
                }
            }
            if event.is_writable() && socket.blocked {
                socket.blocked = false;
                mark_dirty(socket, slot, &mut self.dirty);
            }
        }
    }

    /// Acts on a letter. Returns whether the shard goes on.
    fn open(&mut self, letter: Letter) -> bool {
        match letter {
            Letter::Deliver(envelope) => self.handle(Input::Remote(envelope)),
            Letter::Upstream(_, input) => {
                if !matches!(input, Input::UpstreamPassed { .. }) {
                    self.close_runs();
                }
                self.handle(input);
            }
            Letter::Connect(connecting, verdict) => {
                if self.is_draining {
                    // The sender's end is dropped: the caller answers that the node is shutting down.
                    return true;
                }
                self.close_runs();
                let ticket = self.ticket();
                self.verdicts.insert(ticket, verdict);
                self.handle(Input::Connecting { answer_to: ticket, connecting });
            }
            Letter::Recover(recovering, verdict) => {
                if self.is_draining {
                    return true;
                }
                self.close_runs();
                let ticket = self.ticket();
                self.verdicts.insert(ticket, verdict);
                self.handle(Input::Recovering { answer_to: ticket, recovering });
            }
            Letter::Ask(command, reply) => {
                self.close_runs();
                let ticket = self.ticket();
                self.handle(Input::Command { answer_to: ticket, command });
                // Whoever asked may have given up; that is its right.
                let _ = reply.send(self.answer.take().unwrap_or(Answer::No));
            }
            Letter::Attach(id, upgraded) => self.attach(&id, *upgraded),
            Letter::Abandon(id) => {
                if let Some(expected) = self.awaiting_socket.remove(&id) {
                    self.give_up(expected);
                }
            }
            Letter::Settings(settings, done) => {
                self.handle(Input::Settings(settings));
                let _ = done.send(());
            }
            Letter::Limits(limits, done) => {
                self.limits = limits;
                let _ = done.send(());
            }
            Letter::Drain(done) => self.draining = Some(done),
            Letter::Stop => return false,
        }
        true
    }

    fn ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        Ticket(self.last_ticket)
    }

    /// Lets the hub decide and performs what it wants.
    fn handle(&mut self, input: Input) {
        let mut effects = std::mem::take(&mut self.spare_effects);
        self.hub.handle(self.wall, input, &mut effects);
        for effect in effects.drain(..) {
            self.perform(effect);
        }
        self.spare_effects = effects;
    }

    /// Lets the hub do what is due.
    fn handle_timeout(&mut self) {
        let mut effects = std::mem::take(&mut self.spare_effects);
        self.hub.handle_timeout(self.wall, &mut effects);
        for effect in effects.drain(..) {
            self.perform(effect);
        }
        self.spare_effects = effects;
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Call(call) => (self.outgoing)(Outgoing::Call(call)),
            Effect::Copy(copy) => (self.outgoing)(Outgoing::Copy(copy)),
            Effect::Admit { answer_to, slot, id, subprotocol, is_reliable, deflate } => {
                let mut socket = Socket::expected(self.seconds(), incoming(deflate));
                socket.is_patient = is_reliable;
                let admission = Admission::Admitted { subprotocol, is_deflated: deflate.is_some() };
                let expected = Expected { slot, is_new: true };
                self.expect_socket(answer_to, expected, id, admission, socket);
            }
            Effect::Readmit { answer_to, slot, id, subprotocol, deflate } => {
                self.replace_socket(slot);
                let mut socket = Socket::expected(self.seconds(), incoming(deflate));
                socket.is_patient = true;
                let subprotocol = Some(subprotocol);
                let admission = Admission::Admitted { subprotocol, is_deflated: deflate.is_some() };
                let expected = Expected { slot, is_new: false };
                self.expect_socket(answer_to, expected, id, admission, socket);
            }
            Effect::NotRecovered { answer_to } => {
                if let Some(verdict) = self.verdicts.remove(&answer_to) {
                    // A task that is gone needs no verdict.
                    let _ = verdict.send(Admission::NotRecovered);
                }
            }
            Effect::Refuse { answer_to, status, content_type, body, words } => {
                if let Some(verdict) = self.verdicts.remove(&answer_to) {
                    // A task that is gone needs no refusal.
                    let refused = Admission::Refused { status, content_type, body, words };
                    let _ = verdict.send(refused);
                }
            }
            Effect::Deliver { set, form, except, content } => {
                let frames = content.frames(form, &mut self.deflater);
                if !self.runs.join(set, form, &except, frames) {
                    self.close_runs();
                    self.runs.join(set, form, &except, frames);
                }
            }
            Effect::DeliverTo { slots, form, content } => {
                self.close_runs();
                let frames = content.frames(form, &mut self.deflater);
                for slot in slots {
                    self.queue(slot, frames.clone(), 1);
                }
            }
            // A reliable member is in no run: nothing has to be closed.
            Effect::Sequenced { slots } => self.mark_unsent(&slots),
            Effect::Tell { slot, message } => {
                self.close_runs();
                let deflate = self.hub.deflate(slot);
                let deflate = deflate.filter(|deflate| deflate.concerns(message.data.len()));
                let frames = encode(message.kind, &message.data, deflate, &mut self.deflater);
                self.queue(slot, frames, 0);
            }
            Effect::Forward(envelope) => {
                let shared = self.shared.clone();
                for (at, mailbox) in shared.mailboxes.iter().enumerate() {
                    if at != self.index {
                        mailbox.push(Letter::Deliver(envelope.clone()), &shared.pressure);
                    }
                }
            }
            Effect::Send { slot, form, content } => {
                self.close_runs();
                let frames = content.frames(form, &mut self.deflater).clone();
                self.queue(slot, frames, 1);
            }
            Effect::Close { slot, code, reason } => {
                self.close_runs();
                self.begin_close(slot, code, reason);
            }
            Effect::BeforeChange { slot, request } => {
                self.close_runs();
                self.handle(Input::Change { slot, request });
            }
            Effect::Pause { slot } => {
                if let Some(socket) = self.socket(slot) {
                    socket.paused = true;
                    // It is not its client that is late.
                    self.incomplete.remove(&slot);
                }
            }
            Effect::Resume { slot } => {
                if let Some(socket) = self.socket(slot) {
                    socket.paused = false;
                    let is_in_message = socket.connection.held_bytes() != 0;
                    if socket.has_input() {
                        self.ready.push_back(slot);
                    }
                    if is_in_message {
                        self.incomplete.insert(slot, self.now + self.limits.incomplete_time_max);
                    }
                }
            }
            Effect::Answer { answer, .. } => self.answer = Some(answer),
        }
    }

    /// Makes the place for a socket and lets the client's task bring it.
    fn expect_socket(
        &mut self,
        answer_to: Ticket,
        expected: Expected,
        id: ConnectionId,
        admission: Admission,
        socket: Socket,
    ) {
        let at = expected.slot.0 as usize;
        if self.sockets.len() <= at {
            self.sockets.resize_with(at + 1, || None);
        }
        self.sockets[at] = Some(socket);
        self.awaiting_socket.insert(id, expected);
        // From here on the socket counts; whoever brought the client stops counting it (see `Shards::connect`).
        self.mailbox().load.fetch_add(1, Ordering::Relaxed);
        let verdict = self.verdicts.remove(&answer_to);
        if verdict.is_none_or(|verdict| verdict.send(admission).is_err()) {
            self.awaiting_socket.remove(&id);
            self.give_up(expected);
        }
    }

    /// Forgets the place of a socket that will not come. A client that was never here has nothing to come back to.
    fn give_up(&mut self, expected: Expected) {
        let Expected { slot, is_new } = expected;
        if is_new {
            let ending = Ending::Final(LEFT_IN_HANDSHAKE.into());
            self.close_runs();
            self.handle(Input::Ended { slot, ending });
        }
        self.lost.push(slot);
    }

    fn socket(&mut self, slot: Slot) -> Option<&mut Socket> {
        self.sockets.get_mut(slot.0 as usize)?.as_mut()
    }

    fn report_drained(&mut self) {
        if self.is_draining
            && self.hub.is_drained()
            && self.sockets.iter().all(Option::is_none)
            && let Some(done) = self.draining.take()
        {
            // The node may have run out of patience.
            let _ = done.send(());
        }
    }

    fn publish(&mut self) {
        self.mailbox().recovering.store(self.hub.detached_connections(), Ordering::Relaxed);
        (self.count.deflate_plain_bytes, self.count.deflated_bytes) = self.deflater.totals();
        (self.count.inflate_deflated_bytes, self.count.inflated_bytes) = self.inflation.totals();
        self.stats.publish(&self.count, &self.hub, self.incomplete_bytes, self.now.elapsed());
        self.stats.turned(self.now);
    }

    /// Seconds since the shard started.
    fn seconds(&self) -> u32 {
        u32::try_from(self.now.duration_since(self.started).as_secs()).unwrap_or(u32::MAX)
    }
}

/// What may come from a client to which messages are compressed in this way.
const fn incoming(deflate: Option<Deflate>) -> Incoming {
    if deflate.is_some() { Incoming::Deflated } else { Incoming::Plain }
}

fn mark_dirty(socket: &mut Socket, slot: Slot, dirty: &mut VecDeque<Slot>) {
    if !socket.dirty && socket.stream.is_some() {
        socket.dirty = true;
        dirty.push_back(slot);
    }
}

fn wall_clock() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis::try_from(since.as_millis()).unwrap_or(UnixMillis::MAX)
}
