//! Requests that wait for their answer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use hookwire_proto::message::Message;
use hookwire_proto::name::GroupName;
use hookwire_proto::subprotocol::ClientMessage;

/// All requests that have no answer yet. `R` is whatever the caller gets its answer by.
#[derive(Debug)]
pub(super) struct Requests<R> {
    next_place: u64,
    next_ack: u64,
    next_invocation: u64,
    /// In the order in which they were made.
    open: BTreeMap<u64, Request<R>>,
    by_key: BTreeMap<Key, u64>,
    deadlines: BTreeSet<(Instant, u64)>,
}

/// One request.
#[derive(Debug)]
pub(super) struct Request<R> {
    pub(super) key: Key,
    pub(super) kind: Kind,
    /// As it goes over the wire; sent again it is the same.
    pub(super) message: Message,
    pub(super) limit: Duration,
    pub(super) deadline: Instant,
    /// Sent to the present connection, in vain so far.
    pub(super) sends: u32,
    /// Absent for what the session asks itself.
    pub(super) reply: Option<R>,
}

/// By what an answer finds its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    Ack(u64),
    Invocation(u64),
}

/// What a request is about, as far as it matters to what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    /// May be repeated on another connection.
    Join(GroupName),
    /// May be repeated on another connection.
    Leave(GroupName),
    /// Asked by the session on a new connection.
    Rejoin(GroupName),
    /// Must not happen twice.
    Once,
    /// Must not happen twice, and the service does not watch over that.
    Invoke,
}

impl Kind {
    pub(super) fn of(message: &ClientMessage) -> Self {
        if let ClientMessage::JoinGroup { group, .. } = message {
            Self::Join(group.clone())
        } else if let ClientMessage::LeaveGroup { group, .. } = message {
            Self::Leave(group.clone())
        } else if matches!(message, ClientMessage::Invoke { .. }) {
            Self::Invoke
        } else {
            Self::Once
        }
    }
}

impl<R> Default for Requests<R> {
    fn default() -> Self {
        Self {
            next_place: 0,
            next_ack: CHOSEN_ACK_IDS,
            next_invocation: 1,
            open: BTreeMap::new(),
            by_key: BTreeMap::new(),
            deadlines: BTreeSet::new(),
        }
    }
}

impl<R> Requests<R> {
    /// Returns an ack id that was never used.
    pub(super) fn new_ack_id(&mut self) -> u64 {
        self.next_ack += 1;
        self.next_ack - 1
    }

    /// Returns the number of an invocation that was never used.
    pub(super) fn new_invocation(&mut self) -> u64 {
        self.next_invocation += 1;
        self.next_invocation - 1
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn contains(&self, key: Key) -> bool {
        self.by_key.contains_key(&key)
    }

    pub(super) fn insert(&mut self, request: Request<R>) -> &mut Request<R> {
        let place = self.next_place;
        self.next_place += 1;
        let before = self.by_key.insert(request.key, place);
        debug_assert!(before.is_none(), "the caller has made sure that the key is free");
        self.deadlines.insert((request.deadline, place));
        self.open.entry(place).or_insert(request)
    }

    /// Takes out the request that an answer is for.
    pub(super) fn take(&mut self, key: Key) -> Option<Request<R>> {
        let place = self.by_key.get(&key).copied()?;
        self.remove(place)
    }

    /// Takes out a request whose time has come.
    pub(super) fn take_late(&mut self, now: Instant) -> Option<Request<R>> {
        let &(deadline, place) = self.deadlines.first()?;
        if now < deadline { None } else { self.remove(place) }
    }

    /// Takes out those that `wanted` picks, in order.
    pub(super) fn take_if(&mut self, wanted: impl Fn(&Request<R>) -> bool) -> Vec<Request<R>> {
        let places: Vec<u64> = self
            .open
            .iter()
            .filter(|(_, request)| wanted(request))
            .map(|(place, _)| *place)
            .collect();
        places.into_iter().filter_map(|place| self.remove(place)).collect()
    }

    /// Returns all of them in order.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Request<R>> {
        self.open.values_mut()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Request<R>> {
        self.open.values()
    }

    /// Returns when the next one is late.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    fn remove(&mut self, place: u64) -> Option<Request<R>> {
        let request = self.open.remove(&place)?;
        self.by_key.remove(&request.key);
        self.deadlines.remove(&(request.deadline, place));
        Some(request)
    }
}

/// Ack ids below are for the application to choose; the session takes its own from here on, so that one is never taken for the other.
/// A JSON number holds all of them exactly.
pub const CHOSEN_ACK_IDS: u64 = 1 << 32;
