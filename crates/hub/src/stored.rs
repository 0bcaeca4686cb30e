//! Stored memberships: which groups a user lives in, whether it is connected or not (preview protocol, "User–group membership").
//!
//! Every shard holds all of them. The edge has stored a change before it comes here.

use std::collections::{BTreeMap, BTreeSet};

use hookwire_proto::name::{GroupName, HubName, UserId};

use crate::input::{MembershipChange, UnixMillis};

type Key = (HubName, UserId);

/// All stored memberships.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    groups: BTreeMap<Key, BTreeMap<GroupName, Option<UnixMillis>>>,
    expiring: BTreeSet<(UnixMillis, Key, GroupName)>,
}

impl Stored {
    /// Applies `change` and returns the groups that the user has left by it.
    pub(crate) fn change(
        &mut self,
        hub: &HubName,
        user: &UserId,
        change: &MembershipChange,
    ) -> Vec<GroupName> {
        let key = (hub.clone(), user.clone());
        match change {
            MembershipChange::Add { group, expires } => {
                let before =
                    self.groups.entry(key.clone()).or_default().insert(group.clone(), *expires);
                if let Some(Some(before)) = before {
                    self.expiring.remove(&(before, key.clone(), group.clone()));
                }
                if let Some(expires) = expires {
                    self.expiring.insert((*expires, key, group.clone()));
                }
                Vec::new()
            }
            MembershipChange::Remove { group } => {
                if self.remove(&key, group) {
                    vec![group.clone()]
                } else {
                    Vec::new()
                }
            }
            MembershipChange::RemoveAll => {
                let groups: Vec<_> = self
                    .groups
                    .get(&key)
                    .map(|groups| groups.keys().cloned().collect())
                    .unwrap_or_default();
                for group in &groups {
                    self.remove(&key, group);
                }
                groups
            }
        }
    }

    /// Returns the groups that a connection of the user is a member of from its start.
    pub(crate) fn groups(&self, hub: &HubName, user: &UserId, now: UnixMillis) -> Vec<GroupName> {
        let Some(groups) = self.groups.get(&(hub.clone(), user.clone())) else { return Vec::new() };
        groups
            .iter()
            .filter(|(_, expires)| expires.is_none_or(|expires| now < expires))
            .map(|(group, _)| group.clone())
            .collect()
    }

    pub(crate) fn contains(
        &self,
        hub: &HubName,
        user: &UserId,
        group: &GroupName,
        now: UnixMillis,
    ) -> bool {
        self.groups
            .get(&(hub.clone(), user.clone()))
            .and_then(|groups| groups.get(group))
            .is_some_and(|expires| expires.is_none_or(|expires| now < expires))
    }

    /// Returns when the next membership ends by itself.
    pub(crate) fn next_expiry(&self) -> Option<UnixMillis> {
        self.expiring.first().map(|(expires, _, _)| *expires)
    }

    /// Takes out one membership that has ended by `now`.
    pub(crate) fn expire_one(&mut self, now: UnixMillis) -> Option<(HubName, UserId, GroupName)> {
        let (_, key, group) =
            self.expiring.first().filter(|(expires, _, _)| *expires <= now)?.clone();
        self.remove(&key, &group);
        Some((key.0, key.1, group))
    }

    fn remove(&mut self, key: &Key, group: &GroupName) -> bool {
        let Some(groups) = self.groups.get_mut(key) else { return false };
        let Some(expires) = groups.remove(group) else { return false };
        if groups.is_empty() {
            self.groups.remove(key);
        }
        if let Some(expires) = expires {
            self.expiring.remove(&(expires, key.clone(), group.clone()));
        }
        true
    }
}
