//! Group state: a few pairs that each member of a group shows to those who subscribe (Web PubSub protocol, "Group state").
//!
//! What the protocol leaves open is decided here: setting a state needs membership and either permission for the group, subscribing the
//! permission to join it or membership, and it ends with that right; a state ends with the membership. Every shard holds the states of all members, so that a
//! subscriber is told by its own shard.

use std::sync::Arc;

use hookwire_proto::envelope::{Action, Envelope, Target};
use hookwire_proto::name::{ConnectionId, GroupName, HubName};
use hookwire_proto::permission::Permission;
use hookwire_proto::subprotocol::{GroupState, GroupStateItem, NamedError, ServerMessage};

use super::membership::Joined;
use super::requests::{Outcome, bad_request, forbidden};
use super::{Hub, Reasons};
use crate::effect::Effect;
use crate::input::UnixMillis;
use crate::reliable::Sequenced;
use crate::set::{Kind, Slot};

/// Groups in which one connection may show a state.
const STATES_PER_CONNECTION_MAX: usize = 128;

/// Most pairs of a state.
const GROUP_STATE_PAIRS_MAX: usize = 64;

/// Most bytes of the keys and values of a state.
pub const GROUP_STATE_BYTES_MAX: usize = 512;

impl Hub {
    pub(super) fn set_group_state(
        &mut self,
        now: UnixMillis,
        slot: Slot,
        group: &GroupName,
        state: Option<GroupState>,
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        self.permitted(slot, Permission::JoinLeaveGroup, group)
            .or_else(|_| self.permitted(slot, Permission::SendToGroup, group))?;
        let Some(open) = self.open_at(slot) else { return Ok(()) };
        let hub = self.hub_of(open).clone();
        if !self.is_member(slot, &hub, Kind::Group, group.as_str()) {
            let message = "Not a member of group.".to_owned();
            return Err(NamedError { name: "Forbidden".to_owned(), message });
        }
        let pairs = state.iter().flatten();
        let bytes: usize = pairs.map(|(key, value)| key.len() + value.len()).sum();
        if GROUP_STATE_BYTES_MAX < bytes {
            let message =
                format!("State payload exceeds maximum size {GROUP_STATE_BYTES_MAX} bytes.");
            return Err(bad_request(&message));
        }
        if state.as_ref().is_some_and(|state| GROUP_STATE_PAIRS_MAX < state.len()) {
            let message = format!("State has more than {GROUP_STATE_PAIRS_MAX} entries.");
            return Err(bad_request(&message));
        }
        let states = self.conversation_mut(slot).map(|one| &one.states);
        let is_full = states.is_some_and(|states| {
            STATES_PER_CONNECTION_MAX <= states.len() && !states.contains(group)
        });
        if state.is_some() && is_full {
            return Err(bad_request("The connection shows a state in too many groups."));
        }
        self.change_group_state(now, slot, group, state, effects);
        Ok(())
    }

    /// Takes the state of a connection that is no member any more away.
    pub(super) fn clear_group_state(
        &mut self,
        now: UnixMillis,
        slot: Slot,
        group: &GroupName,
        effects: &mut Vec<Effect>,
    ) {
        if self.conversation_mut(slot).is_some_and(|one| one.states.contains(group)) {
            self.change_group_state(now, slot, group, None, effects);
        }
    }

    fn change_group_state(
        &mut self,
        now: UnixMillis,
        slot: Slot,
        group: &GroupName,
        state: Option<GroupState>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(conversation) = self.conversation_mut(slot) else { return };
        if state.is_some() {
            conversation.states.insert(group.clone());
        } else if !conversation.states.remove(group) {
            return;
        }
        let Some(open) = self.open_at(slot) else { return };
        let hub = self.hub_of(open).clone();
        let known = self.group_states.get(&(hub.clone(), group.clone()));
        let before = known.and_then(|items| items.get(&open.id)).map(|item| item.updated_at);
        let item = GroupStateItem {
            connection_id: open.id.to_string(),
            user_id: self.user_of(open),
            state,
            // Monotone, whatever the clock does.
            updated_at: before.map_or(now, |before| now.max(before + 1)),
        };
        let target = Target::Group(group.clone());
        let envelope = Envelope { hub, target, action: Action::GroupState(Arc::new(item)) };
        self.publish(now, envelope, effects);
    }

    /// Remembers the state of a member, here or on another shard, and tells the subscribers.
    pub(super) fn group_state_changed(
        &mut self,
        now: UnixMillis,
        hub: &HubName,
        group: &GroupName,
        item: &Arc<GroupStateItem>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(id) = ConnectionId::parse(&item.connection_id) else { return };
        let key = (hub.clone(), group.clone());
        if item.state.is_some() {
            self.group_states.entry(key).or_default().insert(id, item.clone());
        } else if let Some(items) = self.group_states.get_mut(&key) {
            items.remove(&id);
            if items.is_empty() {
                self.group_states.remove(&key);
            }
        }
        let Some(set) = self.sets.find(hub, Kind::StateSubscribers, group.as_str()) else { return };
        let slots: Vec<Slot> = self.sets.all_members(set).collect();
        let items = Arc::new(vec![item.clone()]);
        for slot in slots {
            self.tell_group_state(now, slot, false, group, &items, effects);
        }
    }

    pub(super) fn subscribe_group_state(
        &mut self,
        now: UnixMillis,
        slot: Slot,
        group: &GroupName,
        ack_id: Option<u64>,
        effects: &mut Vec<Effect>,
    ) {
        let mut is_new = false;
        self.acknowledged(slot, ack_id, effects, |hub, _| {
            let Some(open) = hub.open_at(slot) else { return Ok(()) };
            let name = hub.hub_of(open).clone();
            let may = hub.permitted(slot, Permission::JoinLeaveGroup, group).is_ok()
                || hub.is_member(slot, &name, Kind::Group, group.as_str());
            if !may {
                return Err(forbidden());
            }
            let kind = Kind::StateSubscribers;
            let joined = hub.join(slot, &name, kind, group.shared(), Reasons::CONNECTION);
            if joined == Joined::TooMany {
                return Err(bad_request("The connection is in too many groups."));
            }
            is_new = joined == Joined::New;
            Ok(())
        });
        if is_new && let Some(open) = self.open_at(slot) {
            let known = self.group_states.get(&(self.hub_of(open).clone(), group.clone()));
            let items = known.map(|items| items.values().cloned().collect()).unwrap_or_default();
            self.tell_group_state(now, slot, true, group, &Arc::new(items), effects);
        }
    }

    /// Ends a subscription to which the connection has no right any more.
    pub(super) fn check_subscription(&mut self, slot: Slot, group: &GroupName) {
        let Some(open) = self.open_at(slot) else { return };
        let may = self.permitted(slot, Permission::JoinLeaveGroup, group).is_ok()
            || self.is_member(slot, self.hub_of(open), Kind::Group, group.as_str());
        if !may {
            self.unsubscribe_group_state(slot, group);
        }
    }

    /// Ends all such subscriptions.
    pub(super) fn check_subscriptions(&mut self, slot: Slot) {
        let Some(open) = self.open_at(slot) else { return };
        let sets = open.memberships.iter().map(|membership| membership.place.set);
        let subscribed = sets.filter(|set| self.sets.kind(*set) == Kind::StateSubscribers);
        let groups: Vec<GroupName> =
            subscribed.map(|set| GroupName::from_checked(self.sets.name(set).clone())).collect();
        for group in groups {
            self.check_subscription(slot, &group);
        }
    }

    pub(super) fn unsubscribe_group_state(&mut self, slot: Slot, group: &GroupName) {
        let Some(open) = self.open_at(slot) else { return };
        let hub = self.hub_of(open).clone();
        self.part(slot, &hub, Kind::StateSubscribers, group.as_str(), Reasons::CONNECTION);
    }

    fn tell_group_state(
        &mut self,
        now: UnixMillis,
        slot: Slot,
        is_snapshot: bool,
        group: &GroupName,
        items: &Arc<Vec<Arc<GroupStateItem>>>,
        effects: &mut Vec<Effect>,
    ) {
        if self.open_at(slot).is_some_and(|open| open.form.is_reliable()) {
            let (group, items) = (group.clone(), items.clone());
            let what = Sequenced::GroupState { is_snapshot, group, items };
            self.push_sequenced(now, vec![slot], &what, None, effects);
        } else {
            let items = items.iter().map(|item| (**item).clone()).collect();
            let group = group.clone();
            let message =
                ServerMessage::GroupState { is_snapshot, group, items, sequence_id: None };
            self.tell(slot, &message, effects);
        }
    }
}
