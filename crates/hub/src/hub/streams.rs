//! Streams: long messages to a group in numbered pieces (Web PubSub protocol, "Streams").

use std::collections::BTreeMap;

use hookwire_proto::data::Data;
use hookwire_proto::permission::Permission;
use hookwire_proto::subprotocol::{
    NamedError, ServerMessage, StreamEndError, StreamPart, StreamUserError,
};

use super::requests::{Post, bad_request};
use super::{Hub, Timer};
use crate::effect::Effect;
use crate::input::UnixMillis;
use crate::set::Slot;
use crate::web_pubsub::{Conversation, Stream};

/// Streams that one connection may publish at once.
pub const STREAMS_PER_CONNECTION_MAX: usize = 64;

/// Longest name of a stream, in bytes.
const STREAM_ID_BYTES_MAX: usize = 256;

/// A stream ends after this long without a sign, unless its publisher has named another time (Web PubSub protocol, "Streams").
const IDLE_TIMEOUT_MS: u64 = 300_000;

impl Hub {
    /// Takes the next piece of a stream, or a sign of life.
    pub(super) fn stream_data(
        &mut self,
        now: UnixMillis,
        slot: Slot,
        stream_id: String,
        sequence_id: Option<u64>,
        data: Option<Data>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(stream) = self.touch_stream(now, slot, &stream_id) else {
            self.stream_not_found(slot, stream_id, effects);
            return;
        };
        let (expected, group) = (stream.expected, stream.group.clone());
        if let Err(error) = self.permitted(slot, Permission::SendToGroup, &group) {
            // The permission was taken away since the stream began.
            let at_subscribers = Some(stream_failed("Forbidden"));
            self.close_stream(now, slot, stream_id, at_subscribers, Some(error), effects);
            return;
        }
        match (sequence_id, data) {
            (Some(id), Some(data)) if id == expected => {
                let streams = self.conversation_mut(slot).map(|one| &mut one.streams);
                if let Some(stream) = streams.and_then(|streams| streams.get_mut(&stream_id)) {
                    stream.expected += 1;
                    let stream_id = stream_id.clone();
                    let piece =
                        stream.piece(StreamPart { stream_id, sequence_id: id, end: None }, data);
                    self.post_permitted(now, slot, piece, effects);
                }
                self.stream_ack(slot, stream_id, expected + 1, effects);
            }
            (Some(id), Some(_)) if expected < id => {
                let error = NamedError {
                    name: "InvalidSequenceId".to_owned(),
                    message: format!("Expected {expected}, got {id}."),
                };
                let expected_sequence_id = expected;
                let nack = ServerMessage::StreamNack { stream_id, error, expected_sequence_id };
                self.tell(slot, &nack, effects);
            }
            // A repetition.
            (Some(_), Some(_)) => self.stream_ack(slot, stream_id, expected, effects),
            // A sign of life.
            (_, None) => {}
            (None, Some(_)) => {
                let error = bad_request("A piece of a stream needs its number.");
                let at_subscribers = Some(stream_failed("InternalServerError"));
                self.close_stream(now, slot, stream_id, at_subscribers, Some(error), effects);
            }
        }
    }

    /// Ends a stream as its publisher wishes.
    pub(super) fn end_stream(
        &mut self,
        now: UnixMillis,
        slot: Slot,
        stream_id: String,
        error: Option<StreamUserError>,
        effects: &mut Vec<Effect>,
    ) {
        if self.touch_stream(now, slot, &stream_id).is_none() {
            self.stream_not_found(slot, stream_id, effects);
            return;
        }
        let error = error.map(|error| StreamEndError {
            name: "UserError".to_owned(),
            message: error.message,
            user_error_code: error.user_error_code,
        });
        self.close_stream(now, slot, stream_id, error, None, effects);
    }

    /// Begins a stream, which has as long from `now` on until its first piece.
    pub(super) fn start_stream(
        &mut self,
        now: UnixMillis,
        slot: Slot,
        stream_id: String,
        idle_timeout_ms: Option<u32>,
        mut stream: Stream,
        effects: &mut Vec<Effect>,
    ) {
        stream.idle_timeout_ms = idle_timeout_ms.map_or(IDLE_TIMEOUT_MS, u64::from).max(1);
        stream.until = now.saturating_add(stream.idle_timeout_ms);
        let streams = self.conversation_mut(slot).map(|one| &one.streams);
        let count = streams.map_or(0, BTreeMap::len);
        let running = streams.and_then(|streams| streams.get(&stream_id));
        let running = running.map(|running| (running.group == stream.group, running.expected));
        let permitted = self.permitted(slot, Permission::SendToGroup, &stream.group);
        if let (Some((true, expected)), Ok(())) = (running, &permitted) {
            // The publisher has not heard that it began, or begins again after a recovery.
            self.touch_stream(now, slot, &stream_id);
            self.stream_ack(slot, stream_id, expected, effects);
            return;
        }
        let refusal = if let Err(error) = permitted {
            Some(error)
        } else if stream_id.is_empty() || STREAM_ID_BYTES_MAX < stream_id.len() {
            Some(bad_request("The stream needs a name of 1 to 256 bytes."))
        } else if running.is_some() {
            Some(bad_request("The stream goes to another group."))
        } else if STREAMS_PER_CONNECTION_MAX <= count {
            Some(bad_request("The connection has too many streams."))
        } else {
            None
        };
        if refusal.is_some() {
            let closed = ServerMessage::StreamClosed { stream_id, error: refusal };
            self.tell(slot, &closed, effects);
            return;
        }
        let Some(id) = self.open_at(slot).map(|open| open.id) else { return };
        let until = stream.until;
        if let Some(conversation) = self.conversation_mut(slot) {
            conversation.streams.insert(stream_id.clone(), stream);
        }
        self.timers.insert((until, id, Timer::Stream(stream_id.clone())));
        self.stream_ack(slot, stream_id, 1, effects);
    }

    /// Notes a sign of life and returns the stream.
    fn touch_stream(
        &mut self,
        now: UnixMillis,
        slot: Slot,
        stream_id: &str,
    ) -> Option<&mut Stream> {
        let id = self.open_at(slot)?.id;
        let stream = self.conversation_mut(slot)?.streams.get_mut(stream_id)?;
        let (before, after) = (stream.until, now.saturating_add(stream.idle_timeout_ms));
        stream.until = after;
        self.timers.remove(&(before, id, Timer::Stream(stream_id.to_owned())));
        self.timers.insert((after, id, Timer::Stream(stream_id.to_owned())));
        self.conversation_mut(slot)?.streams.get_mut(stream_id)
    }

    /// Ends a stream: the last message to the subscribers, and a word to the publisher.
    fn close_stream(
        &mut self,
        now: UnixMillis,
        slot: Slot,
        stream_id: String,
        at_subscribers: Option<StreamEndError>,
        at_publisher: Option<NamedError>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(open) = self.open_at(slot) else { return };
        let id = open.id;
        let stream = self.conversation_mut(slot).and_then(|one| one.streams.remove(&stream_id));
        let Some(stream) = stream else { return };
        self.timers.remove(&(stream.until, id, Timer::Stream(stream_id.clone())));
        let piece = StreamPart {
            stream_id: stream_id.clone(),
            sequence_id: stream.expected,
            end: Some(at_subscribers),
        };
        self.post_permitted(now, slot, stream.piece(piece, Data::text("")), effects);
        let closed = ServerMessage::StreamClosed { stream_id, error: at_publisher };
        self.tell(slot, &closed, effects);
    }

    /// Ends a stream whose publisher has been silent.
    pub(super) fn stream_idle(
        &mut self,
        now: UnixMillis,
        slot: Slot,
        stream_id: &str,
        effects: &mut Vec<Effect>,
    ) {
        let error = NamedError {
            name: "IdleTimeout".to_owned(),
            message: "The stream was idle for too long.".to_owned(),
        };
        let at_subscribers = Some(stream_failed("IdleTimeout"));
        self.close_stream(now, slot, stream_id.to_owned(), at_subscribers, Some(error), effects);
    }

    /// Ends the streams of a connection that ends.
    pub(super) fn end_streams(&mut self, now: UnixMillis, slot: Slot, effects: &mut Vec<Effect>) {
        let streams = self.conversation_mut(slot).map(|one| one.streams.keys().cloned());
        let ids: Vec<String> = streams.map(Iterator::collect).unwrap_or_default();
        for id in ids {
            let at_subscribers = Some(stream_failed("Cancelled"));
            self.close_stream(now, slot, id, at_subscribers, None, effects);
        }
    }

    fn stream_ack(
        &self,
        slot: Slot,
        stream_id: String,
        expected_sequence_id: u64,
        effects: &mut Vec<Effect>,
    ) {
        self.tell(slot, &ServerMessage::StreamAck { stream_id, expected_sequence_id }, effects);
    }

    fn stream_not_found(&self, slot: Slot, stream_id: String, effects: &mut Vec<Effect>) {
        let error = Some(NamedError {
            name: "StreamNotFound".to_owned(),
            message: "There is no such stream.".to_owned(),
        });
        self.tell(slot, &ServerMessage::StreamClosed { stream_id, error }, effects);
    }

    pub(super) fn conversation_mut(&mut self, slot: Slot) -> Option<&mut Conversation> {
        self.web_pubsub_mut(slot)?.conversation.as_deref_mut()
    }
}

impl Stream {
    /// Returns a piece of it as its subscribers get it.
    fn piece(&self, part: StreamPart, data: Data) -> Post {
        Post {
            group: self.group.clone(),
            data,
            metadata: self.metadata.clone(),
            stream: Some(part),
            no_echo: self.no_echo,
            ttl_seconds: self.ttl_seconds,
        }
    }
}

fn stream_failed(name: &str) -> StreamEndError {
    StreamEndError { name: name.to_owned(), message: None, user_error_code: None }
}
