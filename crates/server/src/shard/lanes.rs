//! What waits for a shard, by hub, so that a hub that gets more than can be done waits for itself alone.
//!
//! Within a lane the order is kept. A lane exists while something is in it.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;

/// Letters in lanes.
#[derive(Debug)]
pub(super) struct Lanes<K, T> {
    /// The lanes in the order in which their turn comes.
    order: VecDeque<K>,
    by_hub: HashMap<K, Lane<T>>,
    bytes: usize,
}

#[derive(Debug)]
struct Lane<T> {
    letters: VecDeque<(T, usize)>,
    bytes: usize,
}

/// Which lanes are taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Take {
    /// All, each to its share of so many bytes and one letter at least.
    Share(usize),
    /// Only those that hold no more than their share.
    Light(usize),
    /// Everything.
    All,
}

impl<K: Clone + Eq + Hash, T> Lanes<K, T> {
    pub(super) fn new() -> Self {
        Self { order: VecDeque::new(), by_hub: HashMap::new(), bytes: 0 }
    }

    /// Appends a letter with so many bytes of payload to a lane.
    pub(super) fn push(&mut self, key: &K, letter: T, bytes: usize) {
        let lane = if let Some(lane) = self.by_hub.get_mut(key) {
            lane
        } else {
            self.order.push_back(key.clone());
            let lane = Lane { letters: VecDeque::new(), bytes: 0 };
            self.by_hub.entry(key.clone()).or_insert(lane)
        };
        lane.letters.push_back((letter, bytes));
        lane.bytes += bytes;
        self.bytes += bytes;
    }

    /// Moves the first letters of lanes to the end of `into`, one lane after the other.
    pub(super) fn take(&mut self, take: Take, into: &mut Vec<T>) {
        let lanes = self.order.len().max(1);
        let (share, is_light) = match take {
            Take::Share(bytes) => (bytes / lanes, false),
            Take::Light(bytes) => (bytes / lanes, true),
            Take::All => (usize::MAX, false),
        };
        for _ in 0..self.order.len() {
            let Some(key) = self.order.pop_front() else { break };
            let Some(lane) = self.by_hub.get_mut(&key) else { continue };
            if is_light && share < lane.bytes {
                self.order.push_back(key);
                continue;
            }
            let mut taken = 0;
            while let Some((letter, bytes)) = lane.letters.pop_front() {
                taken += bytes;
                into.push(letter);
                if share <= taken {
                    break;
                }
            }
            lane.bytes -= taken;
            self.bytes -= taken;
            if lane.letters.is_empty() {
                self.by_hub.remove(&key);
            } else {
                self.order.push_back(key);
            }
        }
    }

    /// Returns the payload bytes in a lane.
    pub(super) fn bytes_of(&self, key: &K) -> usize {
        self.by_hub.get(key).map_or(0, |lane| lane.bytes)
    }

    /// Returns the payload bytes in all lanes.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(super) fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_light_lane_is_not_behind_a_heavy_one() {
        let mut lanes = Lanes::new();
        for number in 0..100 {
            lanes.push(&"noisy", ("noisy", number), 10);
        }
        lanes.push(&"quiet", ("quiet", 0), 10);
        let mut taken = Vec::new();
        lanes.take(Take::Light(100), &mut taken);
        assert_eq!(taken, [("quiet", 0)]);
        lanes.push(&"quiet", ("quiet", 1), 10);
        taken.clear();
        lanes.take(Take::Share(100), &mut taken);
        assert_eq!(taken.len(), 6, "half of the share for each, and the quiet one needs less");
        assert_eq!(taken[5], ("quiet", 1));
        assert_eq!((lanes.bytes_of(&"noisy"), lanes.bytes_of(&"quiet")), (950, 0));
    }

    #[test]
    fn a_letter_larger_than_any_share_is_taken_alone() {
        let mut lanes = Lanes::new();
        lanes.push(&1, "large", 1_000);
        lanes.push(&1, "small", 1);
        let mut taken = Vec::new();
        lanes.take(Take::Share(10), &mut taken);
        assert_eq!(taken, ["large"]);
    }

    proptest! {
        #[test]
        fn every_letter_comes_once_in_the_order_of_its_lane_and_no_lane_starves(
            steps in proptest::collection::vec((0_u8..5, 0_usize..50, 0_usize..4), 1..200),
            share in 1_usize..200,
        ) {
            let (mut lanes, mut taken) = (Lanes::new(), Vec::new());
            let (mut pushed, mut bytes) = ([0_usize; 5], 0);
            for (key, size, action) in steps {
                lanes.push(&key, (key, pushed[usize::from(key)], size), size);
                pushed[usize::from(key)] += 1;
                bytes += size;
                let before = taken.len();
                let waiting = lanes.order.len();
                match action {
                    0 => {
                        lanes.take(Take::Share(share), &mut taken);
                        prop_assert!(waiting <= taken.len() - before, "each lane gives something");
                    }
                    1 => lanes.take(Take::Light(share), &mut taken),
                    _ => {}
                }
                let out: usize = taken[before..].iter().map(|(_, _, size)| size).sum();
                bytes -= out;
                prop_assert_eq!(lanes.bytes(), bytes);
                prop_assert!(out <= share + 50 * waiting);
            }
            lanes.take(Take::All, &mut taken);
            prop_assert!(lanes.is_empty() && lanes.bytes() == 0);
            let mut next = [0_usize; 5];
            for (key, number, _) in taken {
                prop_assert_eq!(number, next[usize::from(key)]);
                next[usize::from(key)] += 1;
            }
            prop_assert_eq!(next, pushed);
        }
    }
}
