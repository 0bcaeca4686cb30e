//! Which ack ids of a connection have been processed, so that a repetition is not executed again (Web PubSub protocol, "Acks and
//! idempotency").

use smallvec::SmallVec;

/// Gaps between processed ids that are remembered; beyond it the lowest ids count as processed together with what lies between.
const RANGES_MAX: usize = 128;

/// The processed ids as disjoint ranges in ascending order. SDKs count from 1, so there is mostly one range.
#[derive(Debug, Clone, Default)]
pub(crate) struct Acks(SmallVec<[(u64, u64); 1]>);

impl Acks {
    /// Whether the id has been processed.
    pub(crate) fn contains(&self, id: u64) -> bool {
        match self.0.binary_search_by(|(first, _)| first.cmp(&id)) {
            Ok(_) => true,
            Err(0) => false,
            Err(at) => id <= self.0[at - 1].1,
        }
    }

    /// Remembers that the id has been processed.
    pub(crate) fn insert(&mut self, id: u64) {
        let Err(at) = self.0.binary_search_by(|(first, _)| first.cmp(&id)) else { return };
        if 0 < at && id <= self.0[at - 1].1 {
            return;
        }
        let joins_before = 0 < at && self.0[at - 1].1.checked_add(1) == Some(id);
        let joins_after = at < self.0.len() && id.checked_add(1) == Some(self.0[at].0);
        match (joins_before, joins_after) {
            (true, true) => {
                self.0[at - 1].1 = self.0[at].1;
                self.0.remove(at);
            }
            (true, false) => self.0[at - 1].1 = id,
            (false, true) => self.0[at].0 = id,
            (false, false) => self.0.insert(at, (id, id)),
        }
        if RANGES_MAX < self.0.len() {
            self.0[1].0 = self.0[0].0;
            self.0.remove(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_inserted_is_known_and_nothing_else(ids in proptest::collection::vec(prop_oneof![0_u64..60, Just(u64::MAX), Just(u64::MAX - 1)], 0..100)) {
            let mut acks = Acks::default();
            let mut model = BTreeSet::new();
            for id in ids {
                acks.insert(id);
                model.insert(id);
                for probe in (0..62).chain([u64::MAX - 2, u64::MAX - 1, u64::MAX]) {
                    prop_assert_eq!(acks.contains(probe), model.contains(&probe), "{}", probe);
                }
            }
        }
    }

    #[test]
    fn the_memory_is_bounded_and_forgets_no_processed_id() {
        let mut acks = Acks::default();
        for id in 0..10_000 {
            acks.insert(id * 2);
        }
        assert_eq!(acks.0.len(), RANGES_MAX);
        assert!((0..10_000).all(|id| acks.contains(id * 2)));
        assert!(!acks.contains(19_999 - 2), "the highest gaps are still known");
    }
}
