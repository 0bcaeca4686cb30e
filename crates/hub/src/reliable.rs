//! What a reliable connection has not acknowledged, and how long it waits for a lost transport (Web PubSub protocol, "Reliable protocols
//! and recovery").

use std::collections::VecDeque;
use std::sync::Arc;

use hookwire_proto::deflate::{Deflate, Deflater};
use hookwire_proto::envelope::{Content, SequencedFrames, encode};
use hookwire_proto::name::GroupName;
use hookwire_proto::subprotocol::{GroupStateItem, ServerMessage, Subprotocol};

use crate::input::UnixMillis;

/// How reliable connections are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecoverySettings {
    /// How long a connection waits for its client, in milliseconds.
    pub retention_ms: u64,
    /// The same after a close frame without a status, which may mean that the client has left for good.
    pub retention_without_status_ms: u64,
    /// Most messages that are not acknowledged; with one more the connection is over.
    pub messages_max: usize,
    /// Most payload bytes of those.
    pub bytes_max: usize,
}

impl Default for RecoverySettings {
    fn default() -> Self {
        Self {
            retention_ms: 30_000,
            retention_without_status_ms: 3_000,
            messages_max: 1_000,
            bytes_max: 16 * 1024 * 1024,
        }
    }
}

/// How many times as many messages as others a client may have unacknowledged whose acks are not read.
const EXCUSED_MESSAGES_FACTOR: usize = 16;

/// What a group state counts beside its texts, in bytes.
const GROUP_STATE_ITEM_BYTES: usize = 128;

/// Something with a sequence id.
#[derive(Debug, Clone)]
pub(crate) enum Sequenced {
    Publication(Arc<Content>),
    GroupState { is_snapshot: bool, group: GroupName, items: Arc<Vec<Arc<GroupStateItem>>> },
}

impl Sequenced {
    fn bytes(&self) -> usize {
        match self {
            Self::Publication(content) => content.bytes(),
            Self::GroupState { items, .. } => {
                items.iter().map(|item| GROUP_STATE_ITEM_BYTES + item.state_bytes()).sum()
            }
        }
    }

    /// Appends the frames of the message.
    fn frames(
        &self,
        subprotocol: Subprotocol,
        id: u64,
        deflate: Option<Deflate>,
        deflater: &mut Deflater,
        out: &mut SequencedFrames,
    ) {
        match self {
            Self::Publication(content) => {
                content.sequenced(subprotocol, id, deflate, deflater, out);
            }
            Self::GroupState { is_snapshot, group, items } => {
                let message = subprotocol.encode_server(&ServerMessage::GroupState {
                    is_snapshot: *is_snapshot,
                    group: group.clone(),
                    items: items.iter().map(|item| (**item).clone()).collect(),
                    sequence_id: Some(id),
                });
                let deflate = deflate.filter(|deflate| deflate.concerns(message.data.len()));
                out.push_whole(encode(message.kind, &message.data, deflate, deflater));
            }
        }
    }
}

/// Where the transport of a reliable connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// There is one, or it is on its way.
    Attached,
    /// It is lost. Whether the edge still has the old socket in its place, and when the connection is given up.
    Lost { holds_slot: bool, until: UnixMillis },
}

/// The unacknowledged messages of one connection.
#[derive(Debug)]
pub(crate) struct Reliable {
    pub(crate) link: Link,
    /// In the order of their ids.
    messages: VecDeque<Waiting>,
    next_id: u64,
    bytes: usize,
    /// Messages in front that the present socket has been given.
    sent: usize,
    /// Its acks may lie unread in its socket: it may have more messages than others until they are read.
    is_excused: bool,
    /// It had no room for a message; nothing may follow the gap.
    is_over: bool,
    /// How messages are compressed on the present socket.
    deflate: Option<Deflate>,
}

#[derive(Debug)]
struct Waiting {
    id: u64,
    /// Not worth delivering after this; `None`: always worth it.
    expires: Option<UnixMillis>,
    bytes: usize,
    what: Sequenced,
}

/// The buffer is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Overflow;

impl Default for Reliable {
    fn default() -> Self {
        let (messages, link) = (VecDeque::new(), Link::Attached);
        Self {
            link,
            messages,
            next_id: 1,
            bytes: 0,
            sent: 0,
            is_excused: false,
            is_over: false,
            deflate: None,
        }
    }
}

impl Reliable {
    pub(crate) const fn deflate(&self) -> Option<Deflate> {
        self.deflate
    }

    /// Says how messages are compressed on the first socket.
    pub(crate) const fn set_deflate(&mut self, deflate: Option<Deflate>) {
        self.deflate = deflate;
    }

    /// Gives the message the next sequence id.
    ///
    /// # Errors
    /// There is no room for it; the connection is over.
    pub(crate) fn push(
        &mut self,
        what: Sequenced,
        now: UnixMillis,
        expires: Option<UnixMillis>,
        settings: &RecoverySettings,
    ) -> Result<(), Overflow> {
        let bytes = what.bytes();
        if self.is_full(bytes, settings) && !self.is_attached() {
            self.forget_expired(now);
        }
        if self.is_over || self.is_full(bytes, settings) {
            self.is_over = true;
            return Err(Overflow);
        }
        self.bytes += bytes;
        self.messages.push_back(Waiting { id: self.next_id, expires, bytes, what });
        self.next_id += 1;
        Ok(())
    }

    fn is_full(&self, further_bytes: usize, settings: &RecoverySettings) -> bool {
        let patience = if self.is_excused { EXCUSED_MESSAGES_FACTOR } else { 1 };
        settings.messages_max.saturating_mul(patience) <= self.messages.len()
            || settings.bytes_max < self.bytes + further_bytes
    }

    /// Notes that the client's acks are not read at present, which is not its fault.
    pub(crate) const fn excuse(&mut self) {
        self.is_excused = true;
    }

    /// Forgets everything up to `id`; ids that have not been sent cannot be acknowledged.
    pub(crate) fn acknowledge(&mut self, id: u64, messages_max: usize) {
        while 0 < self.sent
            && let Some(first) = self.messages.front()
            && first.id <= id
        {
            self.bytes -= first.bytes;
            self.messages.pop_front();
            self.sent -= 1;
        }
        if self.messages.len() < messages_max {
            self.is_excused = false;
        }
    }

    /// Appends the messages that the socket has not been given yet.
    pub(crate) fn take_unsent(
        &mut self,
        subprotocol: Subprotocol,
        deflater: &mut Deflater,
        out: &mut SequencedFrames,
    ) {
        for waiting in self.messages.range(self.sent..) {
            waiting.what.frames(subprotocol, waiting.id, self.deflate, deflater, out);
        }
        self.sent = self.messages.len();
    }

    /// Whether there is a socket that has not been given everything.
    pub(crate) fn has_unsent(&self) -> bool {
        self.is_attached() && self.sent < self.messages.len()
    }

    /// Begins again at `now` on a new socket with compression of its own: everything that is not acknowledged and still worth it will be
    /// sent.
    pub(crate) fn reattach(&mut self, now: UnixMillis, deflate: Option<Deflate>) {
        self.link = Link::Attached;
        self.deflate = deflate;
        self.sent = 0;
        self.forget_expired(now);
    }

    /// Forgets what is not worth delivering any more. Nothing of it may be with the present socket.
    fn forget_expired(&mut self, now: UnixMillis) {
        self.sent = 0;
        self.messages.retain(|waiting| waiting.expires.is_none_or(|expires| now < expires));
        self.bytes = self.messages.iter().map(|waiting| waiting.bytes).sum();
    }

    /// Returns how many messages are not acknowledged.
    pub(crate) fn unacknowledged(&self) -> usize {
        self.messages.len()
    }

    pub(crate) const fn is_attached(&self) -> bool {
        matches!(self.link, Link::Attached)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use hookwire_proto::message::Message;
    use proptest::prelude::*;

    fn message(length: usize) -> Sequenced {
        Sequenced::Publication(Content::new(Message::text("x".repeat(length))))
    }

    /// The sequence ids in front of what a socket is given.
    fn sent(reliable: &mut Reliable) -> Vec<u64> {
        let mut frames = SequencedFrames::default();
        reliable.take_unsent(Subprotocol::JsonReliable, &mut Deflater::default(), &mut frames);
        let heads = frames.iter().map(|(head, _)| {
            let head = String::from_utf8_lossy(head).into_owned();
            let digits: String = head.chars().filter(char::is_ascii_digit).collect();
            digits.parse().unwrap()
        });
        heads.collect()
    }

    #[test]
    fn what_is_not_acknowledged_comes_again_on_a_new_socket_and_only_there() {
        let settings = RecoverySettings::default();
        let mut reliable = Reliable::default();
        for _ in 0..3 {
            reliable.push(message(10), 0, None, &settings).unwrap();
        }
        assert_eq!(sent(&mut reliable), [1, 2, 3]);
        assert_eq!(sent(&mut reliable), [0_u64; 0]);
        reliable.acknowledge(2, 1_000);
        reliable.push(message(10), 0, None, &settings).unwrap();
        assert_eq!(sent(&mut reliable), [4]);
        reliable.reattach(0, None);
        assert_eq!(sent(&mut reliable), [3, 4]);
        reliable.acknowledge(u64::MAX, 1_000);
        assert_eq!((reliable.unacknowledged(), reliable.bytes), (0, 0));
    }

    #[test]
    fn what_has_expired_is_not_sent_again() {
        let settings = RecoverySettings::default();
        let mut reliable = Reliable::default();
        for expires in [Some(100), None, Some(200)] {
            reliable.push(message(1), 0, expires, &settings).unwrap();
        }
        reliable.reattach(100, None);
        assert_eq!(sent(&mut reliable), [2, 3]);
        assert_eq!(reliable.bytes, 2);
    }

    #[test]
    fn a_client_cannot_acknowledge_what_it_was_not_sent() {
        let mut reliable = Reliable::default();
        reliable.push(message(1), 0, None, &RecoverySettings::default()).unwrap();
        reliable.acknowledge(9, 1_000);
        assert_eq!(reliable.unacknowledged(), 1);
    }

    proptest! {
        #[test]
        fn the_buffer_is_bounded_in_messages_and_bytes(lengths in proptest::collection::vec(0_usize..40, 0..60)) {
            let settings =
                RecoverySettings { messages_max: 20, bytes_max: 400, ..RecoverySettings::default() };
            let mut reliable = Reliable::default();
            let (mut count, mut bytes, mut is_over) = (0, 0, false);
            for length in lengths {
                let fits = !is_over && count < 20 && bytes + length <= 400;
                is_over = !fits;
                prop_assert_eq!(reliable.push(message(length), 0, None, &settings).is_ok(), fits);
                if fits {
                    count += 1;
                    bytes += length;
                }
                prop_assert_eq!((reliable.unacknowledged(), reliable.bytes), (count, bytes));
            }
        }
    }
}
