//! Who gets which message: every message goes to one target, the targets take turns.

use std::iter;

use anyhow::ensure;
use serde::Serialize;

/// Groups of one client at most: its token names them, and tokens are not longer than 16 KiB.
const GROUPS_PER_CLIENT_MAX: usize = 1_000;

/// To whom messages are published.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub(in super::super) enum To {
    /// Everybody in the hub
    Hub,
    /// One group that everybody is in
    Group,
    /// Small groups in turn
    Groups,
    /// Users in turn; each client is one
    Users,
}

/// Targets of one size. A client is in as many as it takes to fill them all, in the order of the clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) struct Audience {
    pub(in super::super) clients: usize,
    pub(in super::super) targets: usize,
    /// Clients of each target.
    pub(in super::super) size: usize,
}

impl Audience {
    /// Returns the audience of so many clients; `groups` and `group_size` matter for [`To::Groups`] alone.
    ///
    /// # Errors
    /// There are fewer clients than a group needs, or a client would be in too many groups.
    pub(in super::super) fn new(
        to: To,
        clients: usize,
        groups: usize,
        group_size: usize,
    ) -> anyhow::Result<Self> {
        let (targets, size) = match to {
            To::Hub | To::Group => (1, clients),
            To::Groups => (groups, group_size),
            To::Users => (clients, 1),
        };
        ensure!(size <= clients, "a group of {size} needs as many connections, not {clients}");
        let per_client = (targets * size).div_ceil(clients);
        ensure!(
            per_client <= GROUPS_PER_CLIENT_MAX,
            "each connection would be in {per_client} groups, at most {GROUPS_PER_CLIENT_MAX} are possible"
        );
        Ok(Self { clients, targets, size })
    }

    /// Returns the target of a message.
    pub(in super::super) fn target_of(&self, message: u64) -> usize {
        usize::try_from(message % self.targets as u64).expect("it is less than a usize")
    }

    /// Returns the clients of a target.
    pub(in super::super) fn members(&self, target: usize) -> impl Iterator<Item = usize> + use<> {
        let Self { clients, size, .. } = *self;
        (0..size).map(move |at| (target * size + at) % clients)
    }

    /// Returns the targets of each client, in order.
    pub(in super::super) fn targets_of_clients(&self) -> Vec<Vec<u32>> {
        let mut targets: Vec<Vec<u32>> = iter::repeat_with(Vec::new).take(self.clients).collect();
        for target in 0..self.targets {
            for client in self.members(target) {
                targets[client].push(u32::try_from(target).expect("targets are fewer than 2^32"));
            }
        }
        targets
    }

    /// Returns how often so many messages arrive altogether.
    pub(in super::super) const fn deliveries(&self, messages: u64) -> u64 {
        messages * self.size as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_has_its_size_and_clients_have_equal_shares() {
        let audience = Audience::new(To::Groups, 7, 14, 3).unwrap();
        let targets = audience.targets_of_clients();
        for of_client in &targets {
            assert_eq!(of_client.len(), 6, "14 groups of 3, shared by 7");
            assert!(of_client.is_sorted());
        }
        for target in 0..14_u32 {
            let members = targets.iter().filter(|of_client| of_client.contains(&target)).count();
            assert_eq!(members, 3, "nobody is in a group twice");
        }
        assert_eq!(audience.deliveries(5), 15);
        assert_eq!([13, 14, 15].map(|message| audience.target_of(message)), [13, 0, 1]);
    }

    #[test]
    fn everybody_gets_what_goes_to_the_hub_and_users_get_their_own() {
        let everybody = Audience::new(To::Hub, 3, 0, 0).unwrap();
        assert_eq!(everybody.targets_of_clients(), [[0], [0], [0]]);
        let users = Audience::new(To::Users, 3, 0, 0).unwrap();
        assert_eq!(users.targets_of_clients(), [[0], [1], [2]]);
    }

    #[test]
    fn groups_that_cannot_be_filled_are_refused() {
        assert!(Audience::new(To::Groups, 2, 1, 3).is_err());
        assert!(Audience::new(To::Groups, 10, 1_001, 10).is_err());
        assert!(Audience::new(To::Groups, 10, 1_000, 10).is_ok());
    }
}
