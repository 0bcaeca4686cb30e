//! One shard's part of all hubs: connections, who is in which set, which upstream gets which event.

mod admission;
mod commands;
mod delivery;
mod group_state;
mod membership;
mod raising;
mod requests;
mod streams;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use hookwire_proto::deflate::{Deflate, Deflater};
use hookwire_proto::envelope::{SequencedFrames, WireForm};
use hookwire_proto::handler::{EventHandler, HubsSettings};
use hookwire_proto::name::{ConnectionId, GroupName, HubName, UserId};
use hookwire_proto::reconnection::ReconnectionKey;
use hookwire_proto::subprotocol::GroupStateItem;
use hookwire_proto::template::Templates;
use slab::Slab;
use smallvec::SmallVec;

use crate::effect::{CallId, Effect};
use crate::events::{OnTheWay, Then};
use crate::input::{
    ClientContext, Connecting, DoorRequest, Input, MembershipChange, Ticket, UnixMillis,
};
use crate::reliable::RecoverySettings;
use crate::set::{Kind, Place, SetId, Sets, Slot, index};
use crate::stored::Stored;
use crate::web_pubsub::{Conversation, Cookies, Door, WebPubSub};

pub use self::group_state::GROUP_STATE_BYTES_MAX;
pub use self::streams::STREAMS_PER_CONNECTION_MAX;

/// Most groups of one connection.
pub const GROUPS_PER_CONNECTION_MAX: usize = 16_384;

/// Bytes of events that may wait for their upstreams before the edge should read no more sockets.
const WAITING_EVENT_BYTES_MAX: usize = 64 * 1024 * 1024;

/// What can change while the service runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Where the events of preview connections go.
    pub templates: Templates,
    /// Where those of Web PubSub connections go, and who may come in.
    pub hubs: HubsSettings,
    /// How reliable connections are kept.
    pub recovery: RecoverySettings,
    /// Makes and checks reconnection tokens.
    pub reconnection_key: ReconnectionKey,
}

/// One shard's part of all hubs.
#[derive(Debug, Default)]
pub struct Hub {
    settings: Arc<Settings>,
    connections: Slab<Entry>,
    by_id: HashTable<u32>,
    hasher: RandomState,
    open: usize,
    /// Those of them that came through the preview's door.
    previews: usize,
    sets: Sets,
    stored: Stored,
    calls: HashMap<CallId, Caller, RandomState>,
    last_call: u64,
    leaving: HashMap<ConnectionId, Leaving, RandomState>,
    /// What happens at a time, unless it is taken out before.
    timers: BTreeSet<(UnixMillis, ConnectionId, Timer)>,
    /// The states of all members of all shards, by group.
    group_states: BTreeMap<(HubName, GroupName), BTreeMap<ConnectionId, Arc<GroupStateItem>>>,
    /// Reliable connections that had no room for a message of the present input: they end after it.
    overflowing: Vec<ConnectionId>,
    waiting_bytes: usize,
    detached: usize,
    unrouted_messages: u64,
}

/// A place for a connection.
#[derive(Debug)]
enum Entry {
    Open(Open),
    /// The connection is over; the edge still uses the place for its socket, which may not have been given everything yet.
    Ended(Option<Box<Conversation>>),
}

/// An admitted connection.
#[derive(Debug)]
struct Open {
    id: ConnectionId,
    form: WireForm,
    /// First its hub, then its user if it has one, then its groups and what else it is a member of.
    memberships: SmallVec<[Membership; 3]>,
    door: Door,
    on_the_way: Option<Box<OnTheWay>>,
}

impl Open {
    fn web_pubsub(&self) -> Option<&WebPubSub> {
        match &self.door {
            Door::WebPubSub(web_pubsub) => Some(web_pubsub),
            Door::Preview(_) => None,
        }
    }

    fn web_pubsub_mut(&mut self) -> Option<&mut WebPubSub> {
        match &mut self.door {
            Door::WebPubSub(web_pubsub) => Some(web_pubsub),
            Door::Preview(_) => None,
        }
    }

    /// Whether there is, or will be, a socket to send to.
    fn is_attached(&self) -> bool {
        !self.web_pubsub().is_some_and(WebPubSub::is_detached)
    }
}

#[derive(Debug, Clone, Copy)]
struct Membership {
    place: Place,
    reasons: Reasons,
}

/// Why a connection is in a group; it leaves when no reason is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Reasons(u8);

impl Reasons {
    const NONE: Self = Self(0);
    /// It was added as a connection, or the set is its hub or its user.
    const CONNECTION: Self = Self(1);
    /// Its user lives in the group.
    const USER: Self = Self(2);

    const fn with(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// A connection that is over, whose last events are still on the way.
#[derive(Debug)]
struct Leaving {
    identity: Identity,
    on_the_way: Box<OnTheWay>,
}

/// What every call says about its connection.
#[derive(Debug, Clone)]
struct Identity {
    hub: HubName,
    connection: ConnectionId,
    user: Option<UserId>,
    speaker: Speaker,
}

/// The part of it that differs by dialect.
#[derive(Debug, Clone)]
enum Speaker {
    Preview(ClientContext),
    WebPubSub { subprotocol: Option<Arc<str>>, state: Option<Arc<str>>, cookies: Option<Cookies> },
}

/// Whose call it is that an upstream answers.
#[derive(Debug)]
enum Caller {
    Connect {
        answer_to: Ticket,
        connecting: Box<Connecting>,
        handler: Option<Arc<EventHandler>>,
    },
    Event {
        connection: ConnectionId,
        then: Then,
    },
    /// The last one of a connection.
    Last,
}

/// What happens to a connection when its time has come.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    /// Its client has not come back.
    Recovery,
    /// A stream of it has been idle.
    Stream(String),
}

impl Hub {
    /// Applies one input at `now` and appends what the edge must do. Never waits.
    pub fn handle(&mut self, now: UnixMillis, input: Input, effects: &mut Vec<Effect>) {
        self.decide(now, input, effects);
        self.end_overflowing(now, effects);
    }

    fn decide(&mut self, now: UnixMillis, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Connecting { answer_to, connecting } => {
                self.connecting(now, answer_to, connecting, effects);
            }
            Input::Recovering { answer_to, recovering } => {
                self.recovering(now, answer_to, &recovering, effects);
            }
            Input::Request { slot, message } => self.request(now, slot, message, effects),
            Input::Change { slot, request } => {
                self.client_request(now, slot, *request, effects);
            }
            Input::Ended { slot, ending } => self.ended(now, slot, ending, effects),
            Input::Released { slot } => self.released(now, slot, effects),
            Input::UpstreamReplied { call, reply } => {
                self.upstream_replied(now, call, reply, effects);
            }
            Input::UpstreamPassed { call } => self.passed(call, effects),
            Input::Command { answer_to, command } => {
                let answer = self.command(now, command, effects);
                effects.push(Effect::Answer { answer_to, answer });
            }
            Input::Remote(envelope) => self.remote(now, &envelope, effects),
            Input::Settings(settings) => self.settings = settings,
            Input::Restored(rows) => {
                for (hub, user, group, expires) in rows {
                    self.stored.change(&hub, &user, &MembershipChange::Add { group, expires });
                }
            }
        }
    }

    /// Returns when [`Hub::handle_timeout`] has something to do.
    pub fn poll_timeout(&self) -> Option<UnixMillis> {
        let timer = self.timers.first().map(|(at, ..)| *at);
        self.stored.next_expiry().into_iter().chain(timer).min()
    }

    /// Does what is due at `now`: stored memberships, recoveries and streams end.
    pub fn handle_timeout(&mut self, now: UnixMillis, effects: &mut Vec<Effect>) {
        while let Some((hub, user, group)) = self.stored.expire_one(now) {
            self.leave_as_user(now, &hub, &user, &group, effects);
        }
        while self.timers.first().is_some_and(|(at, ..)| *at <= now) {
            let Some((_, connection, timer)) = self.timers.pop_first() else { break };
            let Some(slot) = self.slot(&connection) else { continue };
            match timer {
                Timer::Recovery => self.end(now, slot, "the client did not come back", effects),
                Timer::Stream(stream_id) => self.stream_idle(now, slot, &stream_id, effects),
            }
        }
        self.end_overflowing(now, effects);
    }

    /// Returns the members of a set that have `form`; the receivers of [`Effect::Deliver`].
    pub fn members(&self, set: SetId, form: WireForm) -> &[Slot] {
        self.sets.members(set, form)
    }

    /// Appends the messages that a reliable connection has not been sent on its present socket, also if it is over meanwhile; they count
    /// as sent from now on.
    pub fn take_unsent(
        &mut self,
        slot: Slot,
        deflater: &mut Deflater,
        frames: &mut SequencedFrames,
    ) {
        match self.connections.get_mut(slot.0 as usize) {
            Some(Entry::Open(open)) => {
                if let Some(web_pubsub) = open.web_pubsub_mut()
                    && let Some(conversation) = &mut web_pubsub.conversation
                {
                    conversation.take_unsent(deflater, frames);
                }
            }
            Some(Entry::Ended(unsent)) => {
                if let Some(mut conversation) = unsent.take() {
                    conversation.take_unsent(deflater, frames);
                }
            }
            None => {}
        }
    }

    /// Returns how messages to an open connection are compressed on its present socket.
    pub fn deflate(&self, slot: Slot) -> Option<Deflate> {
        let open = self.open_at(slot)?;
        match open.web_pubsub().and_then(WebPubSub::reliable) {
            Some(reliable) => reliable.deflate(),
            None => open.form.deflate,
        }
    }

    /// Returns the slot of an open connection of this shard. Cost: one hash look-up.
    pub fn slot(&self, id: &ConnectionId) -> Option<Slot> {
        let hash = self.hasher.hash_one(id);
        self.by_id.find(hash, |at| self.id_at(*at) == Some(id)).map(|at| Slot(*at))
    }

    /// Returns the slots of all open connections.
    pub fn slots(&self) -> Vec<Slot> {
        let open = |(at, entry): (usize, &Entry)| match entry {
            Entry::Open(_) => Some(Slot(index(at))),
            Entry::Ended(_) => None,
        };
        self.connections.iter().filter_map(open).collect()
    }

    /// Returns the number of open connections, those in recovery included.
    pub const fn open_connections(&self) -> usize {
        self.open
    }

    /// Returns the number of open connections that came through the preview's door.
    pub const fn preview_connections(&self) -> usize {
        self.previews
    }

    /// Returns the number of connections that wait for their clients to come back.
    pub const fn detached_connections(&self) -> usize {
        self.detached
    }

    /// Returns the number of hubs, users and groups with a member.
    pub fn sets(&self) -> usize {
        self.sets.len()
    }

    /// Returns the bytes of events that wait for earlier ones.
    pub const fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Whether so many events wait for their upstreams that the edge should read no more sockets.
    pub const fn is_behind(&self) -> bool {
        WAITING_EVENT_BYTES_MAX <= self.waiting_bytes
    }

    /// Returns how many client messages matched no upstream and went nowhere.
    pub const fn unrouted_messages(&self) -> u64 {
        self.unrouted_messages
    }

    /// Returns whether every event of ended connections has been handed out.
    pub fn is_drained(&self) -> bool {
        self.open == 0 && self.leaving.is_empty()
    }

    fn open_at(&self, slot: Slot) -> Option<&Open> {
        match self.connections.get(slot.0 as usize) {
            Some(Entry::Open(open)) => Some(open),
            Some(Entry::Ended(_)) | None => None,
        }
    }

    fn open_mut(&mut self, slot: Slot) -> Option<&mut Open> {
        match self.connections.get_mut(slot.0 as usize) {
            Some(Entry::Open(open)) => Some(open),
            Some(Entry::Ended(_)) | None => None,
        }
    }

    fn web_pubsub_mut(&mut self, slot: Slot) -> Option<&mut WebPubSub> {
        self.open_mut(slot)?.web_pubsub_mut()
    }

    fn id_at(&self, at: u32) -> Option<&ConnectionId> {
        self.open_at(Slot(at)).map(|open| &open.id)
    }

    /// Returns the hub of an open connection.
    fn hub_of(&self, open: &Open) -> &HubName {
        self.sets.hub(open.memberships[0].place.set)
    }

    /// Returns the user of an open connection.
    fn user_of(&self, open: &Open) -> Option<UserId> {
        let set = open.memberships.get(1)?.place.set;
        let is_user = self.sets.kind(set) == Kind::User;
        is_user.then(|| UserId::from_checked(self.sets.name(set).clone()))
    }

    /// Returns the slot of a connection of this hub.
    fn slot_in(&self, hub: &HubName, id: &ConnectionId) -> Option<Slot> {
        let slot = self.slot(id)?;
        (self.hub_of(self.open_at(slot)?) == hub).then_some(slot)
    }

    fn identity(&self, open: &Open) -> Identity {
        let speaker = match &open.door {
            Door::Preview(context) => Speaker::Preview(context.clone()),
            Door::WebPubSub(web_pubsub) => Speaker::WebPubSub {
                subprotocol: web_pubsub.subprotocol.clone(),
                state: web_pubsub.state.clone(),
                cookies: web_pubsub.cookies.clone(),
            },
        };
        Identity {
            hub: self.hub_of(open).clone(),
            connection: open.id,
            user: self.user_of(open),
            speaker,
        }
    }
}

impl Speaker {
    /// Returns what a connect event says of a client that is not in yet.
    fn of(door: &DoorRequest) -> Self {
        match door {
            DoorRequest::Preview { context, .. } => Self::Preview(context.clone()),
            DoorRequest::WebPubSub(_) => {
                Self::WebPubSub { subprotocol: None, state: None, cookies: None }
            }
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod web_pubsub_tests;
