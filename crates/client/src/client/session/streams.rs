//! Streams that this client publishes (Web PubSub protocol, "Streams").

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use hookwire_proto::message::Message;
use hookwire_proto::subprotocol::{ClientMessage, NamedError, StreamUserError, Subprotocol};

use super::time::after;
use super::{Effect, Reply, check_length};
use crate::client::error::ClientError;
use crate::payload::Payload;

/// All of them by name.
#[derive(Debug)]
pub(super) struct Streams<R> {
    next: u64,
    open: BTreeMap<String, Stream<R>>,
    /// Begun, but the service's word of it was lost: to be ended when it can be heard.
    orphans: Vec<String>,
}

/// Where a request about a stream goes.
#[derive(Debug, Clone, Copy)]
pub(super) struct To {
    pub(super) subprotocol: Subprotocol,
    pub(super) is_online: bool,
    pub(super) now: Instant,
    pub(super) limit: Duration,
}

#[derive(Debug)]
struct Stream<R> {
    /// Until the service has taken the stream.
    opening: Option<Waiting<R>>,
    /// The number of the next piece, from 1.
    next: u64,
    /// Sent and not yet taken, in order.
    pieces: VecDeque<Piece<R>>,
    /// Since its end was asked for.
    ending: Option<(Message, Waiting<R>)>,
    /// When to send again what was not taken.
    retry_at: Option<Instant>,
}

#[derive(Debug)]
struct Piece<R> {
    number: u64,
    message: Message,
    waiting: Waiting<R>,
}

#[derive(Debug)]
struct Waiting<R> {
    reply: R,
    limit: Duration,
    deadline: Instant,
}

impl<R> Waiting<R> {
    fn new(to: To, reply: R) -> Self {
        Self { reply, limit: to.limit, deadline: after(to.now, to.limit) }
    }
}

impl<R> Default for Streams<R> {
    fn default() -> Self {
        Self { next: 1, open: BTreeMap::new(), orphans: Vec::new() }
    }
}

impl<R> Streams<R> {
    /// Begins a stream on a connection that stands.
    pub(super) fn start(
        &mut self,
        now: Instant,
        subprotocol: Subprotocol,
        mut start: ClientMessage,
        limit: Duration,
        reply: R,
        effects: &mut Vec<Effect<R>>,
    ) {
        if STREAMS_MAX <= self.open.len() + self.orphans.len() {
            effects.push(Effect::Settle(reply, Err(ClientError::TooMany)));
            return;
        }
        let name = self.next.to_string();
        self.next += 1;
        if let ClientMessage::StartStream { stream_id, .. } = &mut start {
            stream_id.clone_from(&name);
        }
        let to = To { subprotocol, is_online: true, now, limit };
        effects.push(Effect::Write(subprotocol.encode_client(&start)));
        self.open.insert(
            name,
            Stream {
                opening: Some(Waiting::new(to, reply)),
                next: 1,
                pieces: VecDeque::new(),
                ending: None,
                retry_at: None,
            },
        );
    }

    /// Sends a piece, now or when the transport is back.
    pub(super) fn send(
        &mut self,
        to: To,
        name: &str,
        payload: Payload,
        reply: R,
        effects: &mut Vec<Effect<R>>,
    ) {
        let mut refuse = |reply, error| effects.push(Effect::Settle(reply, Err(error)));
        let Some(stream) = self.open.get_mut(name).filter(|stream| stream.ending.is_none()) else {
            refuse(reply, ClientError::StreamOver);
            return;
        };
        if PIECES_MAX <= stream.pieces.len() {
            refuse(reply, ClientError::TooMany);
            return;
        }
        let number = stream.next;
        let message = to.subprotocol.encode_client(&ClientMessage::StreamData {
            stream_id: name.to_owned(),
            sequence_id: Some(number),
            data: Some(payload.into_data()),
        });
        if let Err(error) = check_length(&message) {
            refuse(reply, error);
            return;
        }
        stream.next += 1;
        if to.is_online {
            effects.push(Effect::Write(message.clone()));
        }
        stream.pieces.push_back(Piece { number, message, waiting: Waiting::new(to, reply) });
    }

    /// Ends a stream after all pieces that were sent.
    pub(super) fn end(
        &mut self,
        to: To,
        name: &str,
        error: Option<StreamUserError>,
        reply: R,
        effects: &mut Vec<Effect<R>>,
    ) {
        let Some(stream) = self.open.get_mut(name).filter(|stream| stream.ending.is_none()) else {
            effects.push(Effect::Settle(reply, Err(ClientError::StreamOver)));
            return;
        };
        let message = to
            .subprotocol
            .encode_client(&ClientMessage::EndStream { stream_id: name.to_owned(), error });
        // The end has no number: it must not overtake a piece that is sent again.
        if to.is_online && stream.pieces.is_empty() {
            effects.push(Effect::Write(message.clone()));
        }
        stream.ending = Some((message, Waiting::new(to, reply)));
    }

    /// The service expects this piece next.
    pub(super) fn handle_ack(&mut self, name: &str, expected: u64, effects: &mut Vec<Effect<R>>) {
        let Some(stream) = self.open.get_mut(name) else { return };
        if let Some(opening) = stream.opening.take() {
            effects.push(Effect::Settle(opening.reply, Ok(Reply::Stream(name.to_owned()))));
        }
        let had_pieces = !stream.pieces.is_empty();
        while let Some(piece) = stream.pieces.pop_front_if(|piece| piece.number < expected) {
            let done = Ok(Reply::Done { is_duplicate: false });
            effects.push(Effect::Settle(piece.waiting.reply, done));
            stream.retry_at = None;
        }
        if let (true, true, Some((message, _))) =
            (had_pieces, stream.pieces.is_empty(), &stream.ending)
        {
            effects.push(Effect::Write(message.clone()));
        }
    }

    /// The service has not taken a piece and expects this one next.
    pub(super) fn handle_nack(
        &mut self,
        now: Instant,
        name: &str,
        expected: u64,
        effects: &mut Vec<Effect<R>>,
    ) {
        self.handle_ack(name, expected, effects);
        if let Some(stream) = self.open.get_mut(name)
            && !stream.pieces.is_empty()
        {
            stream.retry_at.get_or_insert(now + RETRY_DELAY);
        }
    }

    /// A stream is over.
    pub(super) fn handle_closed(
        &mut self,
        name: &str,
        error: Option<NamedError>,
        effects: &mut Vec<Effect<R>>,
    ) {
        let Some(stream) = self.open.remove(name) else { return };
        let is_end = stream.ending.is_some() && stream.pieces.is_empty();
        let outcome = match error {
            None => Ok(()),
            // Its end was sent twice, and the first one did it.
            Some(error) if is_end && error.name == "StreamNotFound" => Ok(()),
            Some(error) => Err(ClientError::Refused(error)),
        };
        stream.settle(&outcome, effects);
    }

    /// The transport is lost.
    pub(super) fn pause(&mut self, effects: &mut Vec<Effect<R>>) {
        for (name, stream) in self.open.extract_if(.., |_, stream| stream.opening.is_some()) {
            // Beginning it again might fail at itself.
            self.orphans.push(name);
            stream.settle(&Err(ClientError::Lost), effects);
        }
    }

    /// The transport is back: sends again what may not have arrived.
    pub(super) fn resume(&mut self, subprotocol: Subprotocol, effects: &mut Vec<Effect<R>>) {
        for stream_id in self.orphans.drain(..) {
            let end =
                ClientMessage::EndStream { stream_id, error: Some(StreamUserError::default()) };
            effects.push(Effect::Write(subprotocol.encode_client(&end)));
        }
        for stream in self.open.values_mut() {
            stream.send_again(effects);
        }
    }

    /// The connection is over, and every stream with it.
    pub(super) fn fail_all(&mut self, error: &ClientError, effects: &mut Vec<Effect<R>>) {
        self.orphans.clear();
        for stream in std::mem::take(&mut self.open).into_values() {
            stream.settle(&Err(error.clone()), effects);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let times = self.open.values().flat_map(|stream| [stream.deadline(), stream.retry_at]);
        times.flatten().min()
    }

    pub(super) fn handle_timeout(
        &mut self,
        now: Instant,
        subprotocol: Subprotocol,
        is_online: bool,
        effects: &mut Vec<Effect<R>>,
    ) {
        let is_late =
            |stream: &Stream<R>| stream.deadline().is_some_and(|deadline| deadline <= now);
        for (stream_id, stream) in self.open.extract_if(.., |_, stream| is_late(stream)) {
            // A piece that is missing breaks the stream: subscribers are told.
            let limit = stream.limit();
            stream.settle(&Err(ClientError::Timeout { limit }), effects);
            if is_online {
                let error = Some(StreamUserError::default());
                let end = ClientMessage::EndStream { stream_id, error };
                effects.push(Effect::Write(subprotocol.encode_client(&end)));
            } else {
                self.orphans.push(stream_id);
            }
        }
        for stream in self.open.values_mut() {
            if stream.retry_at.is_some_and(|at| at <= now) {
                stream.retry_at = None;
                if is_online {
                    stream.send_again(effects);
                }
            }
        }
    }
}

impl<R> Stream<R> {
    fn send_again(&mut self, effects: &mut Vec<Effect<R>>) {
        self.retry_at = None;
        effects.extend(self.pieces.iter().map(|piece| Effect::Write(piece.message.clone())));
        if let (true, Some((message, _))) = (self.pieces.is_empty(), &self.ending) {
            effects.push(Effect::Write(message.clone()));
        }
    }

    fn settle(self, outcome: &Result<(), ClientError>, effects: &mut Vec<Effect<R>>) {
        let ending = self.ending.map(|(_, waiting)| waiting);
        // What was not taken when the stream ended was not taken at all.
        let error = outcome.clone().err().unwrap_or(ClientError::StreamOver);
        let pieces = self.pieces.into_iter().map(|piece| piece.waiting);
        for waiting in self.opening.into_iter().chain(pieces) {
            effects.push(Effect::Settle(waiting.reply, Err(error.clone())));
        }
        if let Some(ending) = ending {
            let done = outcome.clone().map(|()| Reply::Done { is_duplicate: false });
            effects.push(Effect::Settle(ending.reply, done));
        }
    }

    /// Returns what is awaited longest.
    fn first(&self) -> Option<&Waiting<R>> {
        let pieces = self.pieces.iter().map(|piece| &piece.waiting);
        let ending = self.ending.iter().map(|(_, waiting)| waiting);
        self.opening.iter().chain(pieces).chain(ending).min_by_key(|waiting| waiting.deadline)
    }

    fn deadline(&self) -> Option<Instant> {
        self.first().map(|waiting| waiting.deadline)
    }

    fn limit(&self) -> Duration {
        self.first().map_or(Duration::ZERO, |waiting| waiting.limit)
    }
}

/// Most streams at once: as many as a service takes of one connection.
pub(super) const STREAMS_MAX: usize = 64;

/// Most pieces of a stream that are on their way.
pub(super) const PIECES_MAX: usize = 64;

/// How long pieces that the service did not take rest before they are sent again.
const RETRY_DELAY: Duration = Duration::from_millis(200);
