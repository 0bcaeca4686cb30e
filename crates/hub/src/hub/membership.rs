//! Who is in which set.

use std::sync::Arc;

use hookwire_proto::name::{GroupName, HubName, UserId};

use super::{GROUPS_PER_CONNECTION_MAX, Hub, Membership, Open, Reasons};
use crate::effect::{Effect, Event};
use crate::events::Then;
use crate::input::UnixMillis;
use crate::set::{Kind, Place, Slot};
use hookwire_proto::envelope::WireForm;

/// What came of joining.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Joined {
    /// It is a member now.
    New,
    /// It was one before.
    Already,
    /// It is in as many sets as it may be.
    TooMany,
    /// It is not here.
    Absent,
}

impl Hub {
    /// Adds a reason for `slot` to be in a set, and puts it there if it is the first.
    pub(super) fn join(
        &mut self,
        slot: Slot,
        hub: &HubName,
        kind: Kind,
        name: &Arc<str>,
        reason: Reasons,
    ) -> Joined {
        let set = self.sets.find(hub, kind, name);
        let super::Entry::Open(open) = &mut self.connections[slot.0 as usize] else {
            return Joined::Absent;
        };
        let known =
            open.memberships.iter_mut().find(|membership| Some(membership.place.set) == set);
        if let Some(membership) = known {
            membership.reasons = membership.reasons.with(reason);
            return Joined::Already;
        }
        if GROUPS_PER_CONNECTION_MAX <= open.memberships.len() {
            return Joined::TooMany;
        }
        let place = self.sets.join(hub, kind, name, open.form, slot);
        open.memberships.push(Membership { place, reasons: reason });
        Joined::New
    }

    /// Puts a connection into a group and says so to who wants to know.
    pub(super) fn join_group(
        &mut self,
        slot: Slot,
        hub: &HubName,
        group: &GroupName,
        reason: Reasons,
        effects: &mut Vec<Effect>,
    ) -> Joined {
        let joined = self.join(slot, hub, Kind::Group, group.shared(), reason);
        if joined == Joined::New {
            self.raise(slot, Event::Joined(group.clone()), Then::Nothing, effects);
        }
        joined
    }

    /// Takes a reason for `slot` to be in a group away, and takes it out if none is left.
    pub(super) fn leave_group(
        &mut self,
        now: UnixMillis,
        slot: Slot,
        hub: &HubName,
        group: &GroupName,
        reason: Reasons,
        effects: &mut Vec<Effect>,
    ) {
        if self.part(slot, hub, Kind::Group, group.shared(), reason) {
            self.clear_group_state(now, slot, group, effects);
            self.check_subscription(slot, group);
            self.raise(slot, Event::Left(group.clone()), Then::Nothing, effects);
        }
    }

    /// Takes a connection that ends out of its groups, if anybody wants to know; otherwise that happens with its other sets.
    pub(super) fn leave_on_end(&mut self, now: UnixMillis, slot: Slot, effects: &mut Vec<Effect>) {
        let Some(open) = self.open_at(slot) else { return };
        let Some(web_pubsub) = open.web_pubsub() else { return };
        let hub = self.hub_of(open).clone();
        let has_state = web_pubsub.conversation.as_ref().is_some_and(|one| !one.states.is_empty());
        if !has_state && !self.settings.hubs.hub(&hub).presence.left {
            return;
        }
        let every = Reasons::CONNECTION.with(Reasons::USER);
        for group in self.groups_of(open) {
            self.leave_group(now, slot, &hub, &group, every, effects);
        }
    }

    /// Returns the groups of a connection.
    pub(super) fn groups_of(&self, open: &Open) -> Vec<GroupName> {
        let sets = open.memberships.iter().map(|membership| membership.place.set);
        let groups = sets.filter(|set| self.sets.kind(*set) == Kind::Group);
        groups.map(|set| GroupName::from_checked(self.sets.name(set).clone())).collect()
    }

    /// Whether a connection is a member of a set.
    pub(super) fn is_member(&self, slot: Slot, hub: &HubName, kind: Kind, name: &str) -> bool {
        let (Some(set), Some(open)) = (self.sets.find(hub, kind, name), self.open_at(slot)) else {
            return false;
        };
        open.memberships.iter().any(|membership| membership.place.set == set)
    }

    /// Takes a reason for `slot` to be in a set away, and takes it out if none is left. Returns whether it did.
    pub(super) fn part(
        &mut self,
        slot: Slot,
        hub: &HubName,
        kind: Kind,
        name: &str,
        reason: Reasons,
    ) -> bool {
        let Some(set) = self.sets.find(hub, kind, name) else { return false };
        let Some(open) = self.open_mut(slot) else { return false };
        let Some(at) = open.memberships.iter().position(|membership| membership.place.set == set)
        else {
            return false;
        };
        let membership = &mut open.memberships[at];
        membership.reasons = membership.reasons.without(reason);
        if membership.reasons != Reasons::NONE {
            return false;
        }
        let (place, form) = (membership.place, open.form);
        // Hub and user stay in front: groups only ever take the places of groups.
        open.memberships.swap_remove(at);
        self.leave(place, form);
        true
    }

    /// Takes the member at `place` out of its set and tells the one that moves there.
    pub(super) fn leave(&mut self, place: Place, form: WireForm) {
        let Some(moved) = self.sets.leave(place, form) else { return };
        if let Some(open) = self.open_mut(moved)
            && let Some(membership) =
                open.memberships.iter_mut().find(|membership| membership.place.set == place.set)
        {
            membership.place.position = place.position;
        }
    }

    pub(super) fn leave_as_user(
        &mut self,
        now: UnixMillis,
        hub: &HubName,
        user: &UserId,
        group: &GroupName,
        effects: &mut Vec<Effect>,
    ) {
        for slot in self.user_slots(hub, user) {
            self.leave_group(now, slot, hub, group, Reasons::USER, effects);
        }
    }

    pub(super) fn user_slots(&self, hub: &HubName, user: &UserId) -> Vec<Slot> {
        let Some(set) = self.sets.find(hub, Kind::User, user.as_str()) else { return Vec::new() };
        self.sets.all_members(set).collect()
    }
}
