//! The questions and orders of the REST APIs.

use std::collections::BTreeSet;

use hookwire_proto::envelope::Target;
use hookwire_proto::filter::Filter;
use hookwire_proto::frame::CloseCode;
use hookwire_proto::name::{ConnectionId, GroupName, HubName};
use hookwire_proto::permission::Permission;

use super::membership::Joined;
use super::{Hub, Reasons};
use crate::effect::{Answer, ConnectionDetails, ConnectionSummary, DoorDetails, Effect};
use crate::input::{Command, MembershipChange, NameList, PermissionOrder, UnixMillis};
use crate::reliable::Reliable;
use crate::set::{Kind, Slot};
use crate::web_pubsub::{Door, WebPubSub};

/// The reason when the application closes a connection and gives none (Web PubSub protocol, "Disconnect reasons").
const CLOSED_BY_APPLICATION: &str = "ClosedByAppServer";

impl Hub {
    pub(super) fn command(
        &mut self,
        now: UnixMillis,
        command: Command,
        effects: &mut Vec<Effect>,
    ) -> Answer {
        match command {
            Command::Exists { hub, target } => {
                Answer::from(!self.slots_of(&hub, &target).is_empty())
            }
            Command::AddConnectionToGroup { hub, connection, group } => {
                let Some(slot) = self.slot_in(&hub, &connection) else { return Answer::No };
                joined(self.join_group(slot, &hub, &group, Reasons::CONNECTION, effects))
            }
            Command::RemoveConnectionFromGroup { hub, connection, group } => {
                let Some(slot) = self.slot_in(&hub, &connection) else { return Answer::No };
                self.leave_group(now, slot, &hub, &group, Reasons::CONNECTION, effects);
                Answer::Yes
            }
            Command::RemoveConnectionFromAllGroups { hub, connection } => {
                let Some(slot) = self.slot_in(&hub, &connection) else { return Answer::No };
                self.leave_groups(now, slot, &hub, None, effects);
                Answer::Yes
            }
            Command::RegroupUser { hub, user, group, add } => {
                let slots = self.user_slots(&hub, &user);
                let mut answer = Answer::from(!slots.is_empty());
                for slot in slots {
                    match &group {
                        Some(group) if add => {
                            let how =
                                self.join_group(slot, &hub, group, Reasons::CONNECTION, effects);
                            if how == Joined::TooMany {
                                answer = Answer::TooMany;
                            }
                        }
                        group => self.leave_groups(now, slot, &hub, group.as_ref(), effects),
                    }
                }
                answer
            }
            Command::Regroup { hub, groups, filter, add } => {
                let mut answer = Answer::Yes;
                for slot in self.chosen(&hub, &Target::Hub, &[], filter.as_deref()) {
                    for group in groups.iter() {
                        if !add {
                            self.leave_groups(now, slot, &hub, Some(group), effects);
                        } else if self.join_group(slot, &hub, group, Reasons::CONNECTION, effects)
                            == Joined::TooMany
                        {
                            answer = Answer::TooMany;
                        }
                    }
                }
                answer
            }
            Command::CloseConnection { hub, connection, reason } => {
                let Some(slot) = self.slot_in(&hub, &connection) else { return Answer::No };
                self.close_by_application(now, slot, &reason, effects);
                Answer::Yes
            }
            Command::CloseConnections { hub, target, excluded, reason } => {
                for slot in self.chosen(&hub, &target, &excluded, None) {
                    self.close_by_application(now, slot, &reason, effects);
                }
                Answer::Yes
            }
            Command::Permission { hub, connection, permission, group, order } => {
                let slot = self.slot_in(&hub, &connection);
                slot.map_or(Answer::No, |slot| {
                    self.permission(slot, permission, group.as_ref(), order)
                })
            }
            Command::UserInGroup { hub, user, group } => {
                Answer::from(self.stored.contains(&hub, &user, &group, now))
            }
            Command::Membership { hub, user, change } => {
                for group in self.stored.change(&hub, &user, &change) {
                    self.leave_as_user(now, &hub, &user, &group, effects);
                }
                if let MembershipChange::Add { group, expires } = change
                    && expires.is_none_or(|expires| now < expires)
                {
                    for slot in self.user_slots(&hub, &user) {
                        self.join_group(slot, &hub, &group, Reasons::USER, effects);
                    }
                }
                Answer::Yes
            }
            Command::ListConnections { hub, target, after, limit } => {
                Answer::Connections(self.list_connections(&hub, &target, after, limit))
            }
            Command::ListNames { list, after, limit } => {
                Answer::Names(self.list_names(&list, after.as_deref(), limit))
            }
            Command::Describe { hub, connection } => self.describe(&hub, &connection),
        }
    }

    fn permission(
        &mut self,
        slot: Slot,
        permission: Permission,
        group: Option<&GroupName>,
        order: PermissionOrder,
    ) -> Answer {
        let Some(web_pubsub) = self.web_pubsub_mut(slot) else { return Answer::No };
        let permissions = &mut web_pubsub.permissions;
        let changed = match order {
            PermissionOrder::Check => return Answer::from(permissions.check(permission, group)),
            PermissionOrder::Grant => permissions.grant(permission, group),
            PermissionOrder::Revoke => permissions.revoke(permission, group),
        };
        if order == PermissionOrder::Revoke {
            self.check_subscriptions(slot);
        }
        changed.map_or(Answer::TooMany, |()| Answer::Yes)
    }

    fn close_by_application(
        &mut self,
        now: UnixMillis,
        slot: Slot,
        reason: &str,
        effects: &mut Vec<Effect>,
    ) {
        let is_preview = self.open_at(slot).is_some_and(|open| open.web_pubsub().is_none());
        let reason = if reason.is_empty() && !is_preview { CLOSED_BY_APPLICATION } else { reason };
        self.close(now, slot, CloseCode::NORMAL, reason, effects);
    }

    /// Takes a connection out of a group, or of all, as far as it was added as a connection.
    fn leave_groups(
        &mut self,
        now: UnixMillis,
        slot: Slot,
        hub: &HubName,
        group: Option<&GroupName>,
        effects: &mut Vec<Effect>,
    ) {
        let groups = match group {
            Some(group) => vec![group.clone()],
            None => self.open_at(slot).map(|open| self.groups_of(open)).unwrap_or_default(),
        };
        for group in groups {
            self.leave_group(now, slot, hub, &group, Reasons::CONNECTION, effects);
        }
    }

    fn slots_of(&self, hub: &HubName, target: &Target) -> Vec<Slot> {
        let set = match target {
            Target::Hub => self.sets.find(hub, Kind::Hub, ""),
            Target::Group(group) => self.sets.find(hub, Kind::Group, group.as_str()),
            Target::User(user) => self.sets.find(hub, Kind::User, user.as_str()),
            Target::Connection(id) => return self.slot_in(hub, id).into_iter().collect(),
        };
        set.map(|set| self.sets.all_members(set).collect()).unwrap_or_default()
    }

    fn chosen(
        &self,
        hub: &HubName,
        target: &Target,
        excluded: &[ConnectionId],
        filter: Option<&Filter>,
    ) -> Vec<Slot> {
        let mut slots = self.slots_of(hub, target);
        let excluded: BTreeSet<&ConnectionId> = excluded.iter().collect();
        slots.retain(|slot| {
            self.open_at(*slot).is_some_and(|open| {
                !excluded.contains(&open.id)
                    && filter.is_none_or(|filter| {
                        self.with_subject(open, |subject| filter.matches(subject))
                    })
            })
        });
        slots
    }

    fn list_connections(
        &self,
        hub: &HubName,
        target: &Target,
        after: Option<ConnectionId>,
        limit: usize,
    ) -> Vec<ConnectionSummary> {
        let slots = self.slots_of(hub, target);
        let ids = slots.iter().filter_map(|slot| Some((self.open_at(*slot)?.id, *slot)));
        let ids = ids.filter(|(id, _)| after.is_none_or(|after| after < *id));
        let least = least(ids, limit);
        let summary = |(id, slot): (ConnectionId, Slot)| {
            let user = self.open_at(slot).and_then(|open| self.user_of(open));
            ConnectionSummary { id, user }
        };
        least.into_iter().map(summary).collect()
    }

    fn list_names(&self, list: &NameList, after: Option<&str>, limit: usize) -> Vec<String> {
        let (hub, kind) = match list {
            NameList::Hubs => (None, Kind::Hub),
            NameList::Users(hub) => (Some(hub), Kind::User),
            NameList::Groups(hub) => (Some(hub), Kind::Group),
        };
        let sets =
            self.sets.iter().filter(|(of, is, _)| *is == kind && hub.is_none_or(|hub| hub == *of));
        let names = sets.map(|(of, _, name)| if kind == Kind::Hub { of.as_str() } else { name });
        let names = names.filter(|name| after.is_none_or(|after| after < *name));
        least(names, limit).into_iter().map(str::to_owned).collect()
    }

    fn describe(&self, hub: &HubName, connection: &ConnectionId) -> Answer {
        let slot = self.slot_in(hub, connection);
        let Some(open) = slot.and_then(|slot| self.open_at(slot)) else { return Answer::No };
        let mut groups = self.groups_of(open);
        groups.sort_unstable();
        let web_pubsub = open.web_pubsub();
        let reliable = web_pubsub.and_then(WebPubSub::reliable);
        Answer::Connection(Box::new(ConnectionDetails {
            id: open.id,
            user: self.user_of(open),
            groups,
            subprotocol: web_pubsub.and_then(|one| one.subprotocol.as_deref().map(str::to_owned)),
            door: match &open.door {
                Door::Preview(context) => {
                    DoorDetails::Preview { query: context.query().to_owned() }
                }
                Door::WebPubSub(one) => {
                    DoorDetails::WebPubSub { permissions: one.permissions.clone() }
                }
            },
            is_recovering: web_pubsub.is_some_and(WebPubSub::is_detached),
            unacknowledged_messages: reliable.map_or(0, Reliable::unacknowledged),
            waiting_events: open.on_the_way.as_ref().map_or(0, |one| one.waiting_events()),
        }))
    }
}

/// Returns the least `limit` items in their order. Cost: one walk, and memory for `limit` items.
fn least<T: Ord>(items: impl Iterator<Item = T>, limit: usize) -> Vec<T> {
    let mut least = BTreeSet::new();
    for item in items {
        if least.len() < limit || least.last().is_some_and(|last| item < *last) {
            least.insert(item);
            if limit < least.len() {
                least.pop_last();
            }
        }
    }
    least.into_iter().collect()
}

fn joined(joined: Joined) -> Answer {
    match joined {
        Joined::New | Joined::Already => Answer::Yes,
        Joined::TooMany => Answer::TooMany,
        Joined::Absent => Answer::No,
    }
}
