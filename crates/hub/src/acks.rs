//! Which ack ids of a connection have been processed, so that a repetition is not executed again (Web PubSub protocol, "Acks and
//! idempotency").

use smallvec::SmallVec;

/// Ranges of processed ids that are remembered; beyond it the one that has not grown for longest is forgotten.
const RANGES_MAX: usize = 128;

/// The processed ids as disjoint ranges, first and last id of each; the one that grew last stands last. SDKs count from 1, so there is
/// mostly one range.
#[derive(Debug, Clone, Default)]
pub(crate) struct Acks(SmallVec<[(u64, u64); 1]>);

impl Acks {
    /// Whether the id has been processed. Cost: a look at each range.
    pub(crate) fn contains(&self, id: u64) -> bool {
        self.0.iter().any(|(first, last)| (*first..=*last).contains(&id))
    }

    /// Remembers that the id has been processed.
    pub(crate) fn insert(&mut self, id: u64) {
        if self.contains(id) {
            return;
        }
        let (mut first, mut last) = (id, id);
        self.0.retain(|(from, to)| {
            let (is_before, is_after) =
                (to.checked_add(1) == Some(id), id.checked_add(1) == Some(*from));
            if is_before {
                first = *from;
            } else if is_after {
                last = *to;
            }
            !is_before && !is_after
        });
        self.0.push((first, last));
        if RANGES_MAX < self.0.len() {
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
    fn the_memory_is_bounded_and_what_was_never_processed_is_never_known() {
        let mut acks = Acks::default();
        for id in 0..10_000 {
            acks.insert(id * 2);
            acks.insert(1_000_000 + id);
        }
        assert_eq!(acks.0.len(), RANGES_MAX);
        assert!((0..10_000).all(|id| acks.contains(1_000_000 + id)), "it grew all the time");
        assert!((9_900..10_000).all(|id| acks.contains(id * 2)), "the latest are known");
        assert!(!acks.contains(0), "the oldest are forgotten");
        assert!((0..10_000).all(|id| !acks.contains(id * 2 + 1)));
    }
}
