//! The rules in their simplest form: who gets what, as plain maps.

use std::collections::{BTreeMap, BTreeSet};

/// What must be true of a hub, whatever shards it is spread over. Connections, users, groups and payloads are small numbers.
#[derive(Debug, Default)]
pub struct Model {
    /// Open connections with their users.
    users: BTreeMap<usize, usize>,
    /// Groups that a connection was added to.
    connection_groups: BTreeMap<usize, BTreeSet<usize>>,
    /// Groups that a user lives in, with the time when that ends.
    user_groups: BTreeMap<usize, BTreeMap<usize, Option<u64>>>,
    /// What each connection, open or not, has received.
    received: BTreeMap<usize, Vec<usize>>,
    now: u64,
}

impl Model {
    /// A connection of `user` enters.
    pub fn connect(&mut self, connection: usize, user: usize) {
        self.users.insert(connection, user);
        self.received.entry(connection).or_default();
    }

    /// A connection ends.
    pub fn end(&mut self, connection: usize) {
        self.users.remove(&connection);
        self.connection_groups.remove(&connection);
    }

    /// A connection is added to a group.
    pub fn join(&mut self, connection: usize, group: usize) {
        if self.users.contains_key(&connection) {
            self.connection_groups.entry(connection).or_default().insert(group);
        }
    }

    /// A connection is removed from a group.
    pub fn leave(&mut self, connection: usize, group: usize) {
        self.connection_groups.entry(connection).or_default().remove(&group);
    }

    /// A user moves into a group, for `ttl` or for ever.
    pub fn join_as_user(&mut self, user: usize, group: usize, ttl: Option<u64>) {
        self.user_groups.entry(user).or_default().insert(group, ttl.map(|ttl| self.now + ttl));
    }

    /// A user moves out of a group, or of all.
    pub fn leave_as_user(&mut self, user: usize, group: Option<usize>) {
        let groups = self.user_groups.entry(user).or_default();
        match group {
            Some(group) => drop(groups.remove(&group)),
            None => groups.clear(),
        }
    }

    /// Time passes.
    pub const fn wait(&mut self, time: u64) {
        self.now += time;
    }

    /// Something is sent to the open connections that `wanted` picks.
    pub fn send(&mut self, payload: usize, wanted: impl Fn(&Self, usize) -> bool) {
        let receivers: Vec<usize> =
            self.users.keys().copied().filter(|at| wanted(self, *at)).collect();
        for connection in receivers {
            self.received.entry(connection).or_default().push(payload);
        }
    }

    /// Whether an open connection is in the group, for whichever reason.
    pub fn is_member(&self, connection: usize, group: usize) -> bool {
        let lives = |user| {
            let expires = self.user_groups.get(user).and_then(|groups| groups.get(&group));
            expires.is_some_and(|expires| expires.is_none_or(|expires| self.now < expires))
        };
        self.users.get(&connection).is_some_and(|user| {
            lives(user)
                || self
                    .connection_groups
                    .get(&connection)
                    .is_some_and(|groups| groups.contains(&group))
        })
    }

    /// Whether an open connection belongs to the user.
    pub fn is_user(&self, connection: usize, user: usize) -> bool {
        self.users.get(&connection) == Some(&user)
    }

    /// Whether the connection is open.
    pub fn is_open(&self, connection: usize) -> bool {
        self.users.contains_key(&connection)
    }

    /// Returns how often a connection has ended or may still end: every connection that ever entered ends once.
    pub fn ended(&self) -> BTreeSet<usize> {
        self.received
            .keys()
            .copied()
            .filter(|connection| !self.users.contains_key(connection))
            .collect()
    }

    /// Returns what each connection has received, in order.
    pub const fn received(&self) -> &BTreeMap<usize, Vec<usize>> {
        &self.received
    }
}
