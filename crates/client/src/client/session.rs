//! A client without its sockets and its clock: what to do when something happens (Web PubSub protocol, "Reliable protocols and
//! recovery").
//!
//! Inputs are `handle_*` and the verbs; what the edge has to do comes back as [`Effect`]s, in order. At most one transport exists at a
//! time: after [`Effect::Open`] the edge reports [`Session::handle_opened`] or [`Session::handle_open_failed`], then messages, then
//! [`Session::handle_closed`] once, unless [`Effect::Drop`] came before. Every table has a limit; an idle session holds next to nothing.

mod incoming;
mod requests;
mod sequence;
mod streams;
#[cfg(test)]
mod tests;
mod time;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hookwire_proto::frame::{CloseCode, CloseFrame};
use hookwire_proto::message::Message;
use hookwire_proto::name::GroupName;
use hookwire_proto::subprotocol::{
    ClientMessage, Received, ServerMessage as FromServer, StreamUserError, Subprotocol,
};

pub use self::requests::CHOSEN_ACK_IDS;
use self::requests::{Key, Kind, Request, Requests};
use self::sequence::Sequence;
use self::streams::Streams;
use self::time::{Attempt, PING_INTERVAL, RECOVERY_INTERVAL, after};
use super::error::{ClientError, ConnectError};
use super::event::{ClientEvent, Connected, Stopped};
use crate::payload::Payload;

/// How a session behaves.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) subprotocol: Subprotocol,
    pub(crate) reconnects: bool,
    pub(crate) rejoins: bool,
    /// Every new connection is made by the same URL, so that one that was refused will be again.
    pub(crate) is_url_fixed: bool,
    pub(crate) delay_min: Duration,
    pub(crate) delay_max: Duration,
    /// Spreads the delays of many clients that lose their connections at once.
    pub(crate) seed: u64,
}

/// What the edge has to do.
#[derive(Debug)]
pub(crate) enum Effect<R> {
    /// Open a transport: for a new connection, or for the one that was lost.
    Open(Option<Lost>),
    /// Give up the transport, or the attempt to open one, without a word.
    Drop,
    /// Send a message.
    Write(Message),
    /// Send a ping.
    Ping,
    /// Begin the closing handshake. The transport is reported as closed in any case.
    Close(CloseCode),
    /// Answer a request.
    Settle(R, Result<Reply, ClientError>),
    /// Tell the application.
    Tell(ClientEvent),
}

/// What a request got.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// It was carried out; `is_duplicate`: before, under the same ack id.
    Done { is_duplicate: bool },
    /// It was answered.
    Answer(Option<Payload>),
    /// A stream of that name was begun.
    Stream(String),
}

/// A connection whose transport is lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Lost {
    pub(crate) connection_id: String,
    pub(crate) reconnection_token: String,
}

/// A request of the application.
#[derive(Debug)]
pub(crate) struct Ask {
    /// Without ack id and invocation id.
    pub(crate) message: ClientMessage,
    pub(crate) ack: Ack,
    /// How long to wait for the answer.
    pub(crate) limit: Duration,
}

/// How a request is acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ack {
    /// By an id of the session.
    Own,
    /// By an id that the application chose.
    Chosen(u64),
    /// Not at all.
    None,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Session<R> {
    config: Config,
    phase: Phase,
    requests: Requests<R>,
    streams: Streams<R>,
    sequence: Sequence,
    /// Those that the client has joined.
    groups: BTreeSet<GroupName>,
    /// What the service said before it closed.
    goodbye: Option<String>,
    /// When something came last, and when to ask next whether somebody is there.
    heard: Instant,
    ping_at: Instant,
    was_online: bool,
    /// Attempts at a new connection that came to nothing, in a row.
    failures: u32,
}

#[derive(Debug)]
enum Phase {
    /// Nothing is opened yet.
    New,
    /// A transport for a new connection is being opened.
    Opening,
    /// It is open; the first message is awaited.
    Greeting { until: Instant },
    /// There is a connection.
    Online { identity: Identity, since: Instant },
    /// Its transport is lost.
    Recovering { identity: Identity, until: Instant, attempt: Attempt },
    /// Another transport for a new connection will be opened.
    Resting { until: Instant },
    /// The client was told to stop; the service is given time to say goodbye.
    Closing { until: Instant },
    /// The end.
    Over,
}

#[derive(Debug, Clone)]
struct Identity {
    connection_id: String,
    reconnection_token: Option<String>,
}

impl<R> Session<R> {
    /// Returns a session that has done nothing yet.
    pub(crate) fn new(config: Config, now: Instant) -> Self {
        Self {
            config,
            phase: Phase::New,
            requests: Requests::default(),
            streams: Streams::default(),
            sequence: Sequence::default(),
            groups: BTreeSet::new(),
            goodbye: None,
            heard: now,
            ping_at: now,
            was_online: false,
            failures: 0,
        }
    }

    /// Opens the first connection. If that fails the session is over.
    pub(crate) fn start(&mut self, effects: &mut Vec<Effect<R>>) {
        if matches!(self.phase, Phase::New) {
            self.open(effects);
        }
    }

    /// Returns whether another request can be taken.
    pub(crate) fn has_room(&self) -> bool {
        self.requests.len() < REQUESTS_MAX
    }

    /// Returns whether nothing more will happen.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Over)
    }

    /// Asks for something. Without a connection it waits for one, as long as its limit allows.
    pub(crate) fn request(
        &mut self,
        now: Instant,
        ask: Ask,
        reply: R,
        effects: &mut Vec<Effect<R>>,
    ) {
        let Ask { mut message, ack, limit } = ask;
        if matches!(self.phase, Phase::Over | Phase::Closing { .. }) {
            effects.push(Effect::Settle(reply, Err(ClientError::Stopped)));
            return;
        }
        let key = match (&mut message, ack) {
            (ClientMessage::Invoke { invocation_id, .. }, _) => {
                let number = self.requests.new_invocation();
                *invocation_id = number.to_string();
                Some(Key::Invocation(number))
            }
            (_, Ack::Own) => Some(Key::Ack(self.requests.new_ack_id())),
            (_, Ack::Chosen(id)) => {
                if CHOSEN_ACK_IDS <= id || self.requests.contains(Key::Ack(id)) {
                    effects.push(Effect::Settle(reply, Err(ClientError::AckId)));
                    return;
                }
                Some(Key::Ack(id))
            }
            (_, Ack::None) => None,
        };
        let kind = Kind::of(&message);
        if let Some(Key::Ack(id)) = key {
            set_ack_id(&mut message, id);
        }
        let message = self.config.subprotocol.encode_client(&message);
        if let Err(error) = check_length(&message) {
            effects.push(Effect::Settle(reply, Err(error)));
            return;
        }
        let is_online = self.is_online();
        let Some(key) = key else {
            let settled = if is_online {
                effects.push(Effect::Write(message));
                Ok(Reply::Done { is_duplicate: false })
            } else {
                Err(ClientError::NotConnected)
            };
            effects.push(Effect::Settle(reply, settled));
            return;
        };
        let reply = Some(reply);
        let deadline = after(now, limit);
        let request = Request { key, kind, message, limit, deadline, sends: 0, reply };
        let request = self.requests.insert(request);
        if is_online {
            send(request, effects);
        }
    }

    /// Ends the session: closes the connection, then nothing more happens.
    pub(crate) fn stop(&mut self, now: Instant, effects: &mut Vec<Effect<R>>) {
        match self.phase {
            Phase::Online { .. } => {
                self.phase = Phase::Closing { until: now + CLOSING_MAX };
                effects.push(Effect::Close(CloseCode::NORMAL));
                self.settle_all(&ClientError::Stopped, effects);
            }
            Phase::Closing { .. } | Phase::Over => {}
            Phase::New
            | Phase::Opening
            | Phase::Greeting { .. }
            | Phase::Recovering { .. }
            | Phase::Resting { .. } => {
                effects.push(Effect::Drop);
                self.end(Stopped::ByRequest, effects);
            }
        }
    }

    /// The transport is open: the handshake went well.
    pub(crate) fn handle_opened(&mut self, now: Instant) {
        self.hear(now);
        match &mut self.phase {
            Phase::Opening => self.phase = Phase::Greeting { until: now + GREETING_MAX },
            Phase::Recovering { attempt, .. } => {
                if let Attempt::Opening { since } = *attempt {
                    *attempt = Attempt::Greeting { since };
                }
            }
            Phase::New
            | Phase::Greeting { .. }
            | Phase::Online { .. }
            | Phase::Resting { .. }
            | Phase::Closing { .. }
            | Phase::Over => {}
        }
    }

    /// No transport could be opened.
    pub(crate) fn handle_open_failed(
        &mut self,
        now: Instant,
        error: ConnectError,
        effects: &mut Vec<Effect<R>>,
    ) {
        match &mut self.phase {
            Phase::Opening | Phase::Greeting { .. } => self.fail(now, error, effects),
            Phase::Recovering { attempt, .. } => attempt.fail(now),
            Phase::New
            | Phase::Online { .. }
            | Phase::Resting { .. }
            | Phase::Closing { .. }
            | Phase::Over => {}
        }
    }

    /// The transport is gone: closed by the service with `close`, or lost.
    pub(crate) fn handle_closed(
        &mut self,
        now: Instant,
        close: Option<CloseFrame>,
        effects: &mut Vec<Effect<R>>,
    ) {
        match &mut self.phase {
            Phase::Greeting { .. } => {
                let code = close.map(|close| close.code.get());
                self.fail(now, ConnectError::Closed { code }, effects);
            }
            Phase::Online { .. } => self.lose(now, close, effects),
            Phase::Recovering { attempt, .. } => {
                if close.is_some_and(|close| close.code == CloseCode::POLICY) {
                    self.finish(now, None, None, effects);
                } else {
                    attempt.fail(now);
                }
            }
            Phase::Closing { .. } => self.end(Stopped::ByRequest, effects),
            Phase::New | Phase::Opening | Phase::Resting { .. } | Phase::Over => {}
        }
    }

    /// Something came, a pong or a part of a message: somebody is there.
    pub(crate) fn hear(&mut self, now: Instant) {
        self.heard = now;
        self.ping_at = now + PING_INTERVAL;
    }

    /// A message came.
    pub(crate) fn handle_message(
        &mut self,
        now: Instant,
        message: &Message,
        effects: &mut Vec<Effect<R>>,
    ) {
        self.hear(now);
        let received = match self.config.subprotocol.decode_server(message) {
            Ok(received) => received,
            Err(error) => {
                effects.push(Effect::Tell(ClientEvent::Unreadable(error)));
                return;
            }
        };
        if let Received::Message(FromServer::Connected {
            connection_id,
            user_id,
            reconnection_token,
        }) = received
        {
            let identity = Identity { connection_id, reconnection_token };
            let user = user_id.map(|user| user.to_string()).filter(|user| !user.is_empty());
            self.handle_connected(now, identity, user, effects);
            return;
        }
        // A service that greets again by what was lost has no connected message for it.
        if let Phase::Recovering { identity, attempt: Attempt::Greeting { .. }, .. } = &self.phase {
            let identity = identity.clone();
            self.recover(now, identity, effects);
        }
        if self.is_online() {
            self.handle_received(now, received, effects);
        }
    }

    fn handle_connected(
        &mut self,
        now: Instant,
        mut greeted: Identity,
        user: Option<String>,
        effects: &mut Vec<Effect<R>>,
    ) {
        match &self.phase {
            Phase::Greeting { .. } => {}
            Phase::Recovering { identity, attempt: Attempt::Greeting { .. }, .. } => {
                if identity.connection_id == greeted.connection_id {
                    let known = identity.reconnection_token.clone();
                    greeted.reconnection_token = greeted.reconnection_token.or(known);
                    self.recover(now, greeted, effects);
                    return;
                }
                // The service knows nothing of recovery and has made another connection.
                self.leave_connection(None, effects);
            }
            Phase::New
            | Phase::Opening
            | Phase::Online { .. }
            | Phase::Recovering { .. }
            | Phase::Resting { .. }
            | Phase::Closing { .. }
            | Phase::Over => return,
        }
        let connection_id = greeted.connection_id.clone();
        self.sequence = Sequence::default();
        self.goodbye = None;
        self.was_online = true;
        self.phase = Phase::Online { identity: greeted, since: now };
        effects.push(Effect::Tell(ClientEvent::Connected(Connected { connection_id, user })));
        if self.config.rejoins {
            self.rejoin(now);
        }
        for request in self.requests.iter_mut() {
            send(request, effects);
        }
    }

    /// The transport is back, and with it everything that was on its way.
    fn recover(&mut self, now: Instant, identity: Identity, effects: &mut Vec<Effect<R>>) {
        self.goodbye = None;
        self.phase = Phase::Online { identity, since: now };
        effects.push(Effect::Tell(ClientEvent::Recovered));
        if let Some(sequence_id) = self.sequence.resume() {
            self.write(&ClientMessage::SequenceAck { sequence_id }, effects);
        }
        // What makes the service end the transport each time must not do so for ever.
        for request in self.requests.take_if(|request| SENDS_MAX <= request.sends) {
            self.answer(request, Err(ClientError::Lost), effects);
        }
        // The service executes nothing twice under one ack id.
        for request in self.requests.iter_mut() {
            send(request, effects);
        }
        self.streams.resume(self.config.subprotocol, effects);
    }

    /// The transport of the connection is lost.
    fn lose(&mut self, now: Instant, close: Option<CloseFrame>, effects: &mut Vec<Effect<R>>) {
        let Phase::Online { identity, since } = &self.phase else { return };
        let (identity, lived) = (identity.clone(), now.saturating_duration_since(*since));
        let code = close.as_ref().map(|close| close.code);
        let is_over = !self.config.subprotocol.is_reliable()
            || identity.reconnection_token.is_none()
            || code == Some(CloseCode::POLICY)
            || code == Some(CloseCode::NORMAL) && self.goodbye.is_some();
        if is_over {
            self.finish(now, close, Some(lived), effects);
            return;
        }
        for request in
            self.requests.take_if(|request| request.kind == Kind::Invoke && request.sends != 0)
        {
            settle(request.reply, Err(ClientError::Lost), effects);
        }
        self.streams.pause(effects);
        self.sequence.pause();
        let at = if lived < RECOVERY_INTERVAL { now + RECOVERY_INTERVAL } else { now };
        let attempt = Attempt::Due { at };
        self.phase = Phase::Recovering { identity, until: now + RECOVERY_WINDOW, attempt };
        self.handle_timeout(now, effects);
    }

    /// The connection is over: goes on with a new one.
    fn finish(
        &mut self,
        now: Instant,
        close: Option<CloseFrame>,
        lived: Option<Duration>,
        effects: &mut Vec<Effect<R>>,
    ) {
        self.leave_connection(close, effects);
        if !self.config.reconnects {
            self.end(Stopped::ConnectionOver, effects);
            return;
        }
        // A service that takes clients in and lets them fall is not asked without a pause.
        if lived.is_some_and(|lived| lived < STABLE_AFTER) {
            self.failures = self.failures.saturating_add(1);
            self.rest(now);
        } else {
            self.failures = 0;
            self.open(effects);
        }
    }

    /// Forgets the connection; what may not happen twice and may have happened is answered so.
    fn leave_connection(&mut self, close: Option<CloseFrame>, effects: &mut Vec<Effect<R>>) {
        let said = close.map(|close| close.reason);
        let reason = self.goodbye.take().or(said).filter(|reason| !reason.is_empty());
        effects.push(Effect::Tell(ClientEvent::Disconnected { reason }));
        let is_lost = |request: &Request<R>| match request.kind {
            Kind::Once | Kind::Invoke => request.sends != 0,
            Kind::Rejoin(_) => true,
            Kind::Join(_) | Kind::Leave(_) => false,
        };
        for request in self.requests.take_if(is_lost) {
            settle(request.reply, Err(ClientError::Lost), effects);
        }
        for request in self.requests.iter_mut() {
            request.sends = 0;
        }
        self.streams.fail_all(&ClientError::Lost, effects);
    }

    /// An attempt at a new connection came to nothing.
    fn fail(&mut self, now: Instant, error: ConnectError, effects: &mut Vec<Effect<R>>) {
        let is_final = error.is_final() && self.config.is_url_fixed;
        if !self.was_online || is_final {
            self.end(Stopped::CannotConnect(Arc::new(error)), effects);
        } else {
            self.failures = self.failures.saturating_add(1);
            self.rest(now);
        }
    }

    fn rest(&mut self, now: Instant) {
        self.phase = Phase::Resting { until: after(now, self.delay()) };
    }

    /// Returns the pause before the next attempt: twice as long each time, up to a limit, and shorter by up to a half.
    fn delay(&self) -> Duration {
        let doublings = self.failures.saturating_sub(1).min(20);
        let whole = self.config.delay_min.saturating_mul(1 << doublings);
        let whole = whole.min(self.config.delay_max);
        // Fibonacci hashing: spreads numbers that differ little.
        let mixed =
            (self.config.seed ^ u64::from(self.failures)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let share = u32::try_from(mixed >> 32).unwrap_or_default();
        let half = whole / 2;
        let cut = half.as_nanos().saturating_mul(u128::from(share)) >> 32;
        whole.saturating_sub(Duration::from_nanos(u64::try_from(cut).unwrap_or_default()))
    }

    fn open(&mut self, effects: &mut Vec<Effect<R>>) {
        self.phase = Phase::Opening;
        effects.push(Effect::Open(None));
    }

    fn end(&mut self, why: Stopped, effects: &mut Vec<Effect<R>>) {
        self.phase = Phase::Over;
        self.settle_all(&ClientError::Stopped, effects);
        effects.push(Effect::Tell(ClientEvent::Stopped(why)));
    }

    fn settle_all(&mut self, error: &ClientError, effects: &mut Vec<Effect<R>>) {
        for request in self.requests.take_if(|_| true) {
            settle(request.reply, Err(error.clone()), effects);
        }
        self.streams.fail_all(error, effects);
    }

    /// Asks for the groups of the connection before. Those that are being joined or left anyway are not asked for.
    fn rejoin(&mut self, now: Instant) {
        let asked: BTreeSet<GroupName> = self
            .requests
            .iter()
            .filter_map(|request| match &request.kind {
                Kind::Join(group) | Kind::Leave(group) => Some(group.clone()),
                Kind::Rejoin(_) | Kind::Once | Kind::Invoke => None,
            })
            .collect();
        for group in self.groups.difference(&asked) {
            let id = self.requests.new_ack_id();
            let message = ClientMessage::JoinGroup { group: group.clone(), ack_id: Some(id) };
            self.requests.insert(Request {
                key: Key::Ack(id),
                kind: Kind::Rejoin(group.clone()),
                message: self.config.subprotocol.encode_client(&message),
                limit: REJOIN_MAX,
                deadline: now + REJOIN_MAX,
                sends: 0,
                reply: None,
            });
        }
    }

    fn is_online(&self) -> bool {
        matches!(self.phase, Phase::Online { .. })
    }

    fn write(&self, message: &ClientMessage, effects: &mut Vec<Effect<R>>) {
        effects.push(Effect::Write(self.config.subprotocol.encode_client(message)));
    }
}

/// Streams, which need a connection to begin and end with it.
impl<R> Session<R> {
    /// Begins a stream to a group; `start` is a [`ClientMessage::StartStream`], whose name is given here.
    pub(crate) fn start_stream(
        &mut self,
        now: Instant,
        start: ClientMessage,
        limit: Duration,
        reply: R,
        effects: &mut Vec<Effect<R>>,
    ) {
        if self.is_online() {
            let subprotocol = self.config.subprotocol;
            self.streams.start(now, subprotocol, start, limit, reply, effects);
        } else {
            effects.push(Effect::Settle(reply, Err(self.offline())));
        }
    }

    /// Sends the next piece of a stream.
    pub(crate) fn send_piece(
        &mut self,
        now: Instant,
        stream: &str,
        payload: Payload,
        limit: Duration,
        reply: R,
        effects: &mut Vec<Effect<R>>,
    ) {
        let (subprotocol, is_online) = (self.config.subprotocol, self.is_online());
        let to = streams::To { subprotocol, is_online, now, limit };
        self.streams.send(to, stream, payload, reply, effects);
    }

    /// Ends a stream, with an error or as it should.
    pub(crate) fn end_stream(
        &mut self,
        now: Instant,
        stream: &str,
        error: Option<StreamUserError>,
        limit: Duration,
        reply: R,
        effects: &mut Vec<Effect<R>>,
    ) {
        let (subprotocol, is_online) = (self.config.subprotocol, self.is_online());
        let to = streams::To { subprotocol, is_online, now, limit };
        self.streams.end(to, stream, error, reply, effects);
    }

    fn offline(&self) -> ClientError {
        if matches!(self.phase, Phase::Over | Phase::Closing { .. }) {
            ClientError::Stopped
        } else {
            ClientError::NotConnected
        }
    }
}

fn send<R>(request: &mut Request<R>, effects: &mut Vec<Effect<R>>) {
    request.sends += 1;
    effects.push(Effect::Write(request.message.clone()));
}

fn settle<R>(reply: Option<R>, outcome: Result<Reply, ClientError>, effects: &mut Vec<Effect<R>>) {
    if let Some(reply) = reply {
        effects.push(Effect::Settle(reply, outcome));
    }
}

fn set_ack_id(message: &mut ClientMessage, id: u64) {
    if let ClientMessage::JoinGroup { ack_id, .. }
    | ClientMessage::LeaveGroup { ack_id, .. }
    | ClientMessage::SendToGroup { ack_id, .. }
    | ClientMessage::Event { ack_id, .. }
    | ClientMessage::SetGroupState { ack_id, .. }
    | ClientMessage::SubscribeGroupState { ack_id, .. }
    | ClientMessage::UnsubscribeGroupState { ack_id, .. } = message
    {
        *ack_id = Some(id);
    }
}

fn check_length(message: &Message) -> Result<(), ClientError> {
    let bytes = message.data.len();
    if MESSAGE_BYTES_MAX < bytes {
        return Err(ClientError::TooLong { bytes, limit: MESSAGE_BYTES_MAX });
    }
    Ok(())
}

/// Longest message of a client, in bytes, everything included (limits and codes, "Names and messages"). A longer one would end the
/// connection.
pub const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// Most requests without an answer. More have to wait before they are taken.
pub(crate) const REQUESTS_MAX: usize = 1_024;

/// A request is sent so often at most: once, and again after each recovery.
const SENDS_MAX: u32 = 3;

/// How long the first message may take to come.
const GREETING_MAX: Duration = Duration::from_secs(10);

/// How long a connection without a transport is there for its client (Web PubSub protocol, "Reliable protocols and recovery").
const RECOVERY_WINDOW: Duration = Duration::from_secs(30);

/// A connection that lived so long is replaced without a pause.
const STABLE_AFTER: Duration = Duration::from_secs(10);

/// How long a group may take to be joined again.
const REJOIN_MAX: Duration = Duration::from_secs(30);

/// How long the service may take for its part of the closing handshake.
const CLOSING_MAX: Duration = Duration::from_secs(3);
