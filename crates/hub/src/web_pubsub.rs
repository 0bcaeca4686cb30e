//! What a connection of the Web PubSub dialect has that a preview connection has not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use hookwire_proto::data::Metadata;
use hookwire_proto::deflate::Deflater;
use hookwire_proto::envelope::{SequencedFrames, Shape};
use hookwire_proto::handler::EventHandler;
use hookwire_proto::name::GroupName;
use hookwire_proto::permission::Permissions;
use hookwire_proto::subprotocol::Subprotocol;
use smallvec::SmallVec;

use crate::acks::Acks;
use crate::input::{ClientContext, SimpleMode, UnixMillis};
use crate::reliable::Reliable;

/// The door that a connection came through, with what only its dialect needs.
#[derive(Debug)]
pub(crate) enum Door {
    /// What every event repeats.
    Preview(ClientContext),
    WebPubSub(Box<WebPubSub>),
}

/// The state of a Web PubSub connection.
#[derive(Debug)]
pub(crate) struct WebPubSub {
    /// What its messages do if it is a simple client.
    pub(crate) mode: SimpleMode,
    /// `ce-subprotocol`: that of the client, or a custom one of a simple client.
    pub(crate) subprotocol: Option<Arc<str>>,
    pub(crate) permissions: Permissions,
    /// `ce-id` of the next event.
    pub(crate) next_event: u64,
    /// `ce-connectionState`.
    pub(crate) state: Option<Arc<str>>,
    pub(crate) cookies: Option<Cookies>,
    /// Nothing for simple clients, of which there may be very many.
    pub(crate) conversation: Option<Box<Conversation>>,
}

/// What the answer to a connect event has set: a secret between a connection and its handler, as between a browser and a site.
#[derive(Debug, Clone)]
pub(crate) struct Cookies {
    pub(crate) handler: Arc<EventHandler>,
    pub(crate) text: Arc<str>,
}

/// What only a client of a subprotocol has.
#[derive(Debug)]
pub(crate) struct Conversation {
    pub(crate) subprotocol: Subprotocol,
    pub(crate) acks: Acks,
    /// Events with an ack id, and invocations, that are on their way to the upstream.
    pub(crate) pending: SmallVec<[Pending; 1]>,
    pub(crate) reliable: Option<Box<Reliable>>,
    /// By stream id; most connections have none.
    pub(crate) streams: BTreeMap<String, Stream>,
    /// The groups in which it shows a state.
    pub(crate) states: BTreeSet<GroupName>,
    last_invocation: u64,
}

/// What a client waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pending {
    Ack(u64),
    Invocation { id: String, number: u64 },
}

impl Pending {
    fn is_invocation(&self, invocation_id: &str) -> bool {
        matches!(self, Self::Invocation { id, .. } if id == invocation_id)
    }
}

/// A stream that a connection publishes.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) group: GroupName,
    /// The next id expected.
    pub(crate) expected: u64,
    pub(crate) no_echo: bool,
    pub(crate) ttl_seconds: Option<u16>,
    pub(crate) metadata: Metadata,
    pub(crate) idle_timeout_ms: u64,
    /// When it ends by itself.
    pub(crate) until: UnixMillis,
}

impl Stream {
    /// Returns a stream of which nothing has come; its times are set where it begins.
    pub(crate) const fn new(
        group: GroupName,
        no_echo: bool,
        ttl_seconds: Option<u16>,
        metadata: Metadata,
    ) -> Self {
        Self { group, expected: 1, no_echo, ttl_seconds, metadata, idle_timeout_ms: 0, until: 0 }
    }
}

impl WebPubSub {
    /// Returns the id of the next event.
    pub(crate) const fn number_event(&mut self) -> u64 {
        let number = self.next_event;
        self.next_event += 1;
        number
    }

    /// Returns how it wants its messages.
    pub(crate) fn shape(&self) -> Shape {
        self.conversation
            .as_ref()
            .map_or(Shape::AsSent, |conversation| Shape::Subprotocol(conversation.subprotocol))
    }

    pub(crate) fn reliable(&self) -> Option<&Reliable> {
        self.conversation.as_ref()?.reliable.as_deref()
    }

    pub(crate) fn reliable_mut(&mut self) -> Option<&mut Reliable> {
        self.conversation.as_mut()?.reliable.as_deref_mut()
    }

    /// Whether its transport is lost and it waits for its client.
    pub(crate) fn is_detached(&self) -> bool {
        self.reliable().is_some_and(|reliable| !reliable.is_attached())
    }
}

impl Conversation {
    /// Appends the messages that its present socket has not been given, if it has one.
    pub(crate) fn take_unsent(&mut self, deflater: &mut Deflater, frames: &mut SequencedFrames) {
        if let Some(reliable) = self.reliable.as_mut().filter(|one| one.is_attached()) {
            reliable.take_unsent(self.subprotocol, deflater, frames);
        }
    }

    pub(crate) fn new(subprotocol: Subprotocol) -> Self {
        Self {
            subprotocol,
            acks: Acks::default(),
            pending: SmallVec::new(),
            reliable: subprotocol.is_reliable().then(Box::default),
            streams: BTreeMap::new(),
            states: BTreeSet::new(),
            last_invocation: 0,
        }
    }

    /// Returns the number of the next invocation.
    pub(crate) const fn number_invocation(&mut self) -> u64 {
        self.last_invocation += 1;
        self.last_invocation
    }

    /// Whether an invocation of this id waits for its answer.
    pub(crate) fn is_asking(&self, invocation_id: &str) -> bool {
        self.pending.iter().any(|one| one.is_invocation(invocation_id))
    }

    /// Forgets an invocation whose answer the client does not want any more.
    pub(crate) fn cancel(&mut self, invocation_id: &str) {
        self.pending.retain(|one| !one.is_invocation(invocation_id));
    }

    /// Takes out what has been answered. Returns whether the client still waited for it.
    pub(crate) fn settle(&mut self, pending: &Pending) -> bool {
        let at = self.pending.iter().position(|one| one == pending);
        if let Some(at) = at {
            self.pending.swap_remove(at);
        }
        at.is_some()
    }
}
