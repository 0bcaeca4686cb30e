//! The events of one connection on their way to the upstream, one after another.

use std::collections::VecDeque;
use std::sync::Arc;

use hookwire_proto::handler::EventHandler;

use crate::effect::{CallId, Event};

/// Events that may wait for earlier ones of their connection. At this many its socket is not read.
pub const WAITING_EVENTS_MAX: usize = 64;

/// What an event counts beside its payload, in bytes: about what it takes in memory.
const EVENT_BYTES: usize = 256;

/// Bytes that may wait for earlier events of their connection. At this many its socket is not read.
pub const WAITING_BYTES_MAX: usize = 1024 * 1024;

/// An event whose upstream is decided.
#[derive(Debug)]
pub(crate) struct Decided {
    pub(crate) url: String,
    /// Who gets it and its number, at the Web PubSub dialect.
    pub(crate) handler: Option<(Arc<EventHandler>, u64)>,
    pub(crate) event: Event,
    pub(crate) then: Then,
}

/// What the answer to an event does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Then {
    /// Nothing.
    Nothing,
    /// It is a message to the sender.
    Message,
    /// The same, and the end of the event is acknowledged; a failure closes a simple client.
    Event { ack_id: Option<u64> },
    /// It answers an invocation, which has a number since a client may use the id of one again that it has cancelled.
    Invocation { id: String, number: u64 },
}

/// What a connection has on the way: exists only while a call has not passed.
#[derive(Debug)]
pub(crate) struct OnTheWay {
    /// The call that holds the others back.
    pub(crate) current: CallId,
    waiting: VecDeque<Decided>,
    waiting_bytes: usize,
}

impl OnTheWay {
    pub(crate) fn new(current: CallId) -> Self {
        Self { current, waiting: VecDeque::new(), waiting_bytes: 0 }
    }

    pub(crate) fn push(&mut self, decided: Decided) {
        self.waiting_bytes += EVENT_BYTES + decided.event.payload_bytes();
        self.waiting.push_back(decided);
    }

    pub(crate) fn pop(&mut self) -> Option<Decided> {
        let decided = self.waiting.pop_front()?;
        self.waiting_bytes -= EVENT_BYTES + decided.event.payload_bytes();
        Some(decided)
    }

    pub(crate) fn is_full(&self) -> bool {
        WAITING_EVENTS_MAX <= self.waiting.len() || WAITING_BYTES_MAX <= self.waiting_bytes
    }

    pub(crate) fn waiting_events(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) const fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }
}
