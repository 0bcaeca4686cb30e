//! One shard's part of all hubs: connections, who is in which set, which upstream gets which event.

use std::collections::HashMap;
use std::hash::BuildHasher;
use std::sync::Arc;

use bytes::Bytes;
use foldhash::quality::RandomState;
use hashbrown::HashTable;
use hookwire_proto::envelope::{Content, Envelope, Target, WireForm};
use hookwire_proto::frame::CloseCode;
use hookwire_proto::message::Message;
use hookwire_proto::name::{ConnectionId, GroupName, HubName, UserId};
use hookwire_proto::template::{EventName, Templates};
use slab::Slab;
use smallvec::SmallVec;

use crate::effect::{Answer, Call, CallId, Effect, Event};
use crate::events::{Decided, OnTheWay};
use crate::input::{
    ClientContext, Command, Connecting, Input, MembershipChange, Reply, Ticket, UnixMillis,
};
use crate::set::{Kind, Place, SetId, Sets, Slot, index};
use crate::stored::Stored;

/// Most groups of one connection.
pub const GROUPS_PER_CONNECTION_MAX: usize = 16_384;

/// What can change while the service runs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Where the events of preview connections go.
    pub templates: Templates,
}

/// One shard's part of all hubs.
#[derive(Debug, Default)]
pub struct Hub {
    settings: Arc<Settings>,
    connections: Slab<Entry>,
    by_id: HashTable<u32>,
    hasher: RandomState,
    open: usize,
    sets: Sets,
    stored: Stored,
    calls: HashMap<CallId, Caller, RandomState>,
    last_call: u64,
    leaving: HashMap<ConnectionId, Leaving, RandomState>,
    waiting_bytes: usize,
    unrouted_messages: u64,
}

/// A place for a connection.
#[derive(Debug)]
enum Entry {
    Open(Open),
    /// The connection is over; the edge still uses the place for its socket.
    Ended,
}

/// An admitted connection.
#[derive(Debug)]
struct Open {
    id: ConnectionId,
    form: WireForm,
    /// First its hub, then its user if it has one, then its groups.
    memberships: SmallVec<[Membership; 3]>,
    context: ClientContext,
    on_the_way: Option<Box<OnTheWay>>,
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
    context: ClientContext,
}

/// Whose call it is that an upstream answers.
#[derive(Debug)]
enum Caller {
    Connect { answer_to: Ticket, connecting: Box<Connecting> },
    Message { connection: ConnectionId },
    Disconnect,
}

impl Hub {
    /// Applies one input at `now` and appends what the edge must do. Never waits.
    pub fn handle(&mut self, now: UnixMillis, input: Input, effects: &mut Vec<Effect>) {
        match input {
            Input::Connecting { answer_to, connecting } => {
                self.connecting(now, answer_to, connecting, effects);
            }
            Input::Request { slot, message } => self.request(slot, message, effects),
            Input::Ended { slot } => self.end(slot, effects),
            Input::Released { slot } => {
                self.end(slot, effects);
                self.connections.try_remove(slot.0 as usize);
            }
            Input::UpstreamReplied { call, reply } => {
                self.upstream_replied(now, call, reply, effects);
            }
            Input::UpstreamPassed { call } => self.passed(call, effects),
            Input::Command { answer_to, command } => {
                let answer = self.command(now, command, effects);
                effects.push(Effect::Answer { answer_to, answer });
            }
            Input::Remote(envelope) => self.remote(&envelope, effects),
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
        self.stored.next_expiry()
    }

    /// Ends the stored memberships whose time has come.
    pub fn handle_timeout(&mut self, now: UnixMillis) {
        while let Some((hub, user, group)) = self.stored.expire_one(now) {
            self.leave_as_user(&hub, &user, &group);
        }
    }

    /// Returns the members of a set that have `form`; the receivers of [`Effect::Deliver`].
    pub fn members(&self, set: SetId, form: WireForm) -> &[Slot] {
        self.sets.members(set, form)
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
            Entry::Ended => None,
        };
        self.connections.iter().filter_map(open).collect()
    }

    /// Returns the number of open connections.
    pub const fn open_connections(&self) -> usize {
        self.open
    }

    /// Returns the number of hubs, users and groups with a member.
    pub fn sets(&self) -> usize {
        self.sets.len()
    }

    /// Returns the payload bytes of events that wait for earlier ones.
    pub const fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// Returns how many client messages matched no upstream and went nowhere.
    pub const fn unrouted_messages(&self) -> u64 {
        self.unrouted_messages
    }

    /// Returns whether every event of ended connections has been handed out.
    pub fn is_drained(&self) -> bool {
        self.open == 0 && self.leaving.is_empty()
    }

    fn connecting(
        &mut self,
        now: UnixMillis,
        answer_to: Ticket,
        connecting: Box<Connecting>,
        effects: &mut Vec<Effect>,
    ) {
        match self.settings.templates.url(connecting.hub.as_str(), EventName::Connect) {
            Some(url) => {
                let identity = Identity {
                    hub: connecting.hub.clone(),
                    connection: connecting.id,
                    user: connecting.user.clone(),
                    context: connecting.context.clone(),
                };
                let event = Event::Connect { subprotocols: connecting.subprotocols.clone() };
                let caller = Caller::Connect { answer_to, connecting };
                self.call(&identity, Decided { url, event }, caller, effects);
            }
            // Nobody to ask: a token that names a user is enough (preview protocol, templates, "No match").
            None => self.admit(now, answer_to, &connecting, None, effects),
        }
    }

    fn request(&mut self, slot: Slot, message: Message, effects: &mut Vec<Effect>) {
        let Some(Entry::Open(open)) = self.connections.get_mut(slot.0 as usize) else { return };
        let hub = self.sets.hub(open.memberships[0].place.set);
        let Some(url) = self.settings.templates.url(hub.as_str(), EventName::Message) else {
            self.unrouted_messages += 1;
            return;
        };
        let decided = Decided { url, event: Event::Message(message) };
        if let Some(on_the_way) = &mut open.on_the_way {
            let was_full = on_the_way.is_full();
            let before = on_the_way.waiting_bytes();
            on_the_way.push(decided);
            self.waiting_bytes += on_the_way.waiting_bytes() - before;
            if !was_full && on_the_way.is_full() {
                effects.push(Effect::Pause { slot });
            }
            return;
        }
        let identity = Self::identity(&self.sets, open);
        let caller = Caller::Message { connection: identity.connection };
        let call = self.call(&identity, decided, caller, effects);
        if let Some(Entry::Open(open)) = self.connections.get_mut(slot.0 as usize) {
            open.on_the_way = Some(Box::new(OnTheWay::new(call)));
        }
    }

    /// Ends a connection unless that has happened: out of all sets, and its disconnect event after its earlier ones.
    fn end(&mut self, slot: Slot, effects: &mut Vec<Effect>) {
        let Some(entry) = self.connections.get_mut(slot.0 as usize) else { return };
        let Entry::Open(mut open) = std::mem::replace(entry, Entry::Ended) else { return };
        self.open -= 1;
        let hash = self.hasher.hash_one(open.id);
        if let Ok(found) = self.by_id.find_entry(hash, |at| *at == slot.0) {
            found.remove();
        }
        let identity = Self::identity(&self.sets, &open);
        while let Some(membership) = open.memberships.pop() {
            self.leave(membership.place, open.form);
        }
        let url = self.settings.templates.url(identity.hub.as_str(), EventName::Disconnect);
        let last = url.map(|url| Decided { url, event: Event::Disconnect });
        match (open.on_the_way, last) {
            (Some(mut on_the_way), last) => {
                if let Some(last) = last {
                    on_the_way.push(last);
                }
                self.leaving.insert(identity.connection, Leaving { identity, on_the_way });
            }
            (None, Some(last)) => {
                self.call(&identity, last, Caller::Disconnect, effects);
            }
            (None, None) => {}
        }
    }

    fn upstream_replied(
        &mut self,
        now: UnixMillis,
        call: CallId,
        reply: Reply,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(Caller::Message { .. }) = self.calls.get(&call) {
            self.passed(call, effects);
        }
        match self.calls.remove(&call) {
            Some(Caller::Connect { answer_to, connecting }) => {
                self.connect_replied(now, answer_to, &connecting, reply, effects);
            }
            Some(Caller::Message { connection }) => {
                self.message_replied(connection, reply, effects);
            }
            Some(Caller::Disconnect) | None => {}
        }
    }

    fn connect_replied(
        &mut self,
        now: UnixMillis,
        answer_to: Ticket,
        connecting: &Connecting,
        reply: Reply,
        effects: &mut Vec<Effect>,
    ) {
        let refuse =
            |status, content_type, body| Effect::Refuse { answer_to, status, content_type, body };
        let plain = |status, text: &'static str| {
            refuse(status, Some("text/plain".to_owned()), Bytes::from_static(text.as_bytes()))
        };
        match reply {
            Reply::Answered { status: 200..=299, subprotocols, user, content_type, body } => {
                let user = match user.as_deref().map(UserId::parse) {
                    Some(Ok(user)) => Some(user),
                    Some(Err(error)) => {
                        tracing::warn!(hub = %connecting.hub, %error, "the upstream gave a user id that is not one");
                        effects.push(plain(502, "the upstream gave a user id that is not one"));
                        return;
                    }
                    None => connecting.user.clone(),
                };
                // One value, and one that was offered; anything else counts as none (preview protocol, "Responses").
                let subprotocol = match subprotocols.as_slice() {
                    [one] if connecting.subprotocols.contains(one) => Some(one.clone()),
                    _ => None,
                };
                let first =
                    (!body.is_empty()).then(|| Message::from_body(content_type.as_deref(), body));
                let connecting = Connecting { user, ..connecting.clone() };
                self.admit(now, answer_to, &connecting, Some((subprotocol, first)), effects);
            }
            Reply::Answered { status: status @ 400..=499, content_type, body, .. } => {
                effects.push(refuse(status, content_type, body));
            }
            Reply::Answered { status, .. } => {
                tracing::warn!(hub = %connecting.hub, status, "the upstream failed at connect");
                effects.push(plain(502, "the upstream failed"));
            }
            Reply::Failed { reason } => {
                tracing::warn!(hub = %connecting.hub, reason, "the upstream gave no answer at connect");
                effects.push(plain(502, "no answer from the upstream"));
            }
        }
    }

    /// Lets a client in, if it has a user.
    fn admit(
        &mut self,
        now: UnixMillis,
        answer_to: Ticket,
        connecting: &Connecting,
        chosen: Option<(Option<String>, Option<Message>)>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(user) = &connecting.user else {
            effects.push(Effect::Refuse {
                answer_to,
                status: 401,
                content_type: Some("text/plain".to_owned()),
                body: Bytes::from_static(b"neither a token nor the upstream named a user"),
            });
            return;
        };
        let (subprotocol, first) = chosen.unwrap_or_default();
        let form = connecting.form;
        let slot = Slot(index(self.connections.insert(Entry::Open(Open {
            id: connecting.id,
            form,
            memberships: SmallVec::new(),
            context: connecting.context.clone(),
            on_the_way: None,
        }))));
        self.open += 1;
        let hash = self.hasher.hash_one(connecting.id);
        self.by_id.insert_unique(hash, slot.0, |at| {
            // Every indexed entry is open: `end` takes it out before the entry changes.
            match &self.connections[*at as usize] {
                Entry::Open(open) => self.hasher.hash_one(open.id),
                Entry::Ended => unreachable!("an ended connection has left the index"),
            }
        });
        let nameless: Arc<str> = "".into();
        self.join(slot, &connecting.hub, Kind::Hub, &nameless, Reasons::CONNECTION);
        self.join(slot, &connecting.hub, Kind::User, user.shared(), Reasons::CONNECTION);
        for group in self.stored.groups(&connecting.hub, user, now) {
            self.join(slot, &connecting.hub, Kind::Group, group.shared(), Reasons::USER);
        }
        effects.push(Effect::Admit { answer_to, slot, id: connecting.id, subprotocol });
        if let Some(first) = first {
            effects.push(Effect::Send { slot, form, content: Content::new(first) });
        }
    }

    fn message_replied(
        &mut self,
        connection: ConnectionId,
        reply: Reply,
        effects: &mut Vec<Effect>,
    ) {
        match reply {
            Reply::Answered { status: 200..=299, content_type, body, .. } if !body.is_empty() => {
                let Some(slot) = self.slot(&connection) else { return };
                let Entry::Open(open) = &self.connections[slot.0 as usize] else { return };
                let content = Content::new(Message::from_body(content_type.as_deref(), body));
                effects.push(Effect::Send { slot, form: open.form, content });
            }
            Reply::Answered { status: 200..=299, .. } => {}
            Reply::Answered { status, .. } => {
                tracing::debug!(%connection, status, "the upstream refused a message");
            }
            Reply::Failed { reason } => {
                tracing::debug!(%connection, reason, "the upstream did not answer a message");
            }
        }
    }

    /// Hands out the next event of the connection that `call` held back.
    fn passed(&mut self, call: CallId, effects: &mut Vec<Effect>) {
        let Some(Caller::Message { connection }) = self.calls.get(&call) else { return };
        let connection = *connection;
        let slot = self.slot(&connection);
        let open = slot.and_then(|slot| match self.connections.get_mut(slot.0 as usize) {
            Some(Entry::Open(open)) => Some(open),
            Some(Entry::Ended) | None => None,
        });
        let (on_the_way, identity) = match open {
            Some(open) => {
                let identity = Self::identity(&self.sets, open);
                (open.on_the_way.as_mut(), identity)
            }
            None => match self.leaving.get_mut(&connection) {
                Some(leaving) => (Some(&mut leaving.on_the_way), leaving.identity.clone()),
                None => return,
            },
        };
        let Some(on_the_way) = on_the_way.filter(|on_the_way| on_the_way.current == call) else {
            return;
        };
        let was_full = on_the_way.is_full();
        let before = on_the_way.waiting_bytes();
        let next = on_the_way.pop();
        self.waiting_bytes -= before - on_the_way.waiting_bytes();
        if let Some(slot) = slot
            && was_full
            && !on_the_way.is_full()
        {
            effects.push(Effect::Resume { slot });
        }
        let mut current = None;
        if let Some(next) = next {
            let caller = match next.event {
                Event::Disconnect => Caller::Disconnect,
                Event::Connect { .. } | Event::Message(_) => Caller::Message { connection },
            };
            let last = matches!(caller, Caller::Disconnect);
            let id = self.call(&identity, next, caller, effects);
            current = (!last).then_some(id);
        }
        self.set_current(&connection, slot, current);
    }

    /// Notes which call holds the events of a connection back now; with none, nothing is on the way.
    fn set_current(
        &mut self,
        connection: &ConnectionId,
        slot: Option<Slot>,
        current: Option<CallId>,
    ) {
        let open = slot.and_then(|slot| self.connections.get_mut(slot.0 as usize));
        match (open, current) {
            (Some(Entry::Open(open)), Some(current)) => {
                if let Some(on_the_way) = &mut open.on_the_way {
                    on_the_way.current = current;
                }
            }
            (Some(Entry::Open(open)), None) => open.on_the_way = None,
            (_, Some(current)) => {
                if let Some(leaving) = self.leaving.get_mut(connection) {
                    leaving.on_the_way.current = current;
                }
            }
            (_, None) => {
                self.leaving.remove(connection);
            }
        }
    }

    fn call(
        &mut self,
        identity: &Identity,
        decided: Decided,
        caller: Caller,
        effects: &mut Vec<Effect>,
    ) -> CallId {
        self.last_call += 1;
        let id = CallId(self.last_call);
        self.calls.insert(id, caller);
        effects.push(Effect::Call(Call {
            id,
            url: decided.url,
            hub: identity.hub.clone(),
            connection: identity.connection,
            user: identity.user.clone(),
            context: identity.context.clone(),
            event: decided.event,
        }));
        id
    }

    fn command(&mut self, now: UnixMillis, command: Command, effects: &mut Vec<Effect>) -> Answer {
        match command {
            Command::Exists { hub, target } => Answer::from(match target {
                Target::Hub => self.sets.find(&hub, Kind::Hub, "").is_some(),
                Target::Group(group) => self.sets.find(&hub, Kind::Group, group.as_str()).is_some(),
                Target::User(user) => self.sets.find(&hub, Kind::User, user.as_str()).is_some(),
                Target::Connection(id) => self.slot_in(&hub, &id).is_some(),
            }),
            Command::AddConnectionToGroup { hub, connection, group } => {
                let Some(slot) = self.slot_in(&hub, &connection) else { return Answer::No };
                self.join(slot, &hub, Kind::Group, group.shared(), Reasons::CONNECTION)
            }
            Command::RemoveConnectionFromGroup { hub, connection, group } => {
                let Some(slot) = self.slot_in(&hub, &connection) else { return Answer::No };
                self.part(slot, &hub, &group, Reasons::CONNECTION);
                Answer::Yes
            }
            Command::CloseConnection { hub, connection, reason } => {
                let Some(slot) = self.slot_in(&hub, &connection) else { return Answer::No };
                effects.push(Effect::Close { slot, code: CloseCode::NORMAL, reason });
                self.end(slot, effects);
                Answer::Yes
            }
            Command::UserInGroup { hub, user, group } => {
                Answer::from(self.stored.contains(&hub, &user, &group, now))
            }
            Command::Membership { hub, user, change } => {
                for group in self.stored.change(&hub, &user, &change) {
                    self.leave_as_user(&hub, &user, &group);
                }
                if let MembershipChange::Add { group, expires } = change
                    && expires.is_none_or(|expires| now < expires)
                {
                    for slot in self.user_slots(&hub, &user) {
                        self.join(slot, &hub, Kind::Group, group.shared(), Reasons::USER);
                    }
                }
                Answer::Yes
            }
        }
    }

    fn remote(&self, envelope: &Envelope, effects: &mut Vec<Effect>) {
        let Envelope { hub, target, content } = envelope;
        let set = match target {
            Target::Hub => self.sets.find(hub, Kind::Hub, ""),
            Target::Group(group) => self.sets.find(hub, Kind::Group, group.as_str()),
            Target::User(user) => self.sets.find(hub, Kind::User, user.as_str()),
            Target::Connection(id) => {
                if let Some(slot) = self.slot_in(hub, id)
                    && let Entry::Open(open) = &self.connections[slot.0 as usize]
                {
                    effects.push(Effect::Send { slot, form: open.form, content: content.clone() });
                }
                return;
            }
        };
        if let Some(set) = set {
            for form in self.sets.forms(set) {
                effects.push(Effect::Deliver { set, form, content: content.clone() });
            }
        }
    }

    /// Adds a reason for `slot` to be in a set, and puts it there if it is the first.
    fn join(
        &mut self,
        slot: Slot,
        hub: &HubName,
        kind: Kind,
        name: &Arc<str>,
        reason: Reasons,
    ) -> Answer {
        let set = self.sets.find(hub, kind, name);
        let Entry::Open(open) = &mut self.connections[slot.0 as usize] else { return Answer::No };
        let known =
            open.memberships.iter_mut().find(|membership| Some(membership.place.set) == set);
        if let Some(membership) = known {
            membership.reasons = membership.reasons.with(reason);
            return Answer::Yes;
        }
        if GROUPS_PER_CONNECTION_MAX <= open.memberships.len() {
            return Answer::TooMany;
        }
        let place = self.sets.join(hub, kind, name, open.form, slot);
        open.memberships.push(Membership { place, reasons: reason });
        Answer::Yes
    }

    /// Takes a reason for `slot` to be in a group away, and takes it out if none is left.
    fn part(&mut self, slot: Slot, hub: &HubName, group: &GroupName, reason: Reasons) {
        let Some(set) = self.sets.find(hub, Kind::Group, group.as_str()) else { return };
        let Entry::Open(open) = &mut self.connections[slot.0 as usize] else { return };
        let Some(at) = open.memberships.iter().position(|membership| membership.place.set == set)
        else {
            return;
        };
        let membership = &mut open.memberships[at];
        membership.reasons = membership.reasons.without(reason);
        if membership.reasons == Reasons::NONE {
            let (place, form) = (membership.place, open.form);
            // Hub and user stay in front: groups only ever take the places of groups.
            open.memberships.swap_remove(at);
            self.leave(place, form);
        }
    }

    /// Takes the member at `place` out of its set and tells the one that moves there.
    fn leave(&mut self, place: Place, form: WireForm) {
        let Some(moved) = self.sets.leave(place, form) else { return };
        if let Some(Entry::Open(open)) = self.connections.get_mut(moved.0 as usize)
            && let Some(membership) =
                open.memberships.iter_mut().find(|membership| membership.place.set == place.set)
        {
            membership.place.position = place.position;
        }
    }

    fn leave_as_user(&mut self, hub: &HubName, user: &UserId, group: &GroupName) {
        for slot in self.user_slots(hub, user) {
            self.part(slot, hub, group, Reasons::USER);
        }
    }

    fn user_slots(&self, hub: &HubName, user: &UserId) -> Vec<Slot> {
        let Some(set) = self.sets.find(hub, Kind::User, user.as_str()) else { return Vec::new() };
        let forms = self.sets.forms(set);
        forms.iter().flat_map(|form| self.sets.members(set, *form)).copied().collect()
    }

    /// Returns the slot of a connection of this hub.
    fn slot_in(&self, hub: &HubName, id: &ConnectionId) -> Option<Slot> {
        let slot = self.slot(id)?;
        let Entry::Open(open) = &self.connections[slot.0 as usize] else { return None };
        (self.sets.hub(open.memberships[0].place.set) == hub).then_some(slot)
    }

    fn id_at(&self, at: u32) -> Option<&ConnectionId> {
        match self.connections.get(at as usize) {
            Some(Entry::Open(open)) => Some(&open.id),
            Some(Entry::Ended) | None => None,
        }
    }

    fn identity(sets: &Sets, open: &Open) -> Identity {
        let user = open.memberships.get(1).map(|membership| membership.place.set);
        Identity {
            hub: sets.hub(open.memberships[0].place.set).clone(),
            connection: open.id,
            user: user
                .filter(|set| sets.kind(*set) == Kind::User)
                .map(|set| UserId::from_checked(sets.name(set).clone())),
            context: open.context.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
