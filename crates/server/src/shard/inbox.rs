//! The one way into a shard: queues that any thread fills, and from which the shard takes at the start of a turn.
//!
//! What concerns a hub stands in a lane of its own, so that a hub with more than can be done does not delay the others (see [`Lanes`]);
//! everything else comes first.
//!
//! A push never fails and never waits for the shard. It costs a system call only when the shard sleeps: `awake` says whether it
//! will look into the queue again without being woken. Checked in every interleaving by the loom test below.

#[cfg(feature = "loom")]
use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};
use std::hash::Hash;
#[cfg(not(feature = "loom"))]
use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use super::lanes::{Lanes, Take};

/// Payload bytes in one inbox beyond which the node takes in no more work: REST sends are refused and sockets are not read.
pub(crate) const INBOX_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Payload bytes of one hub in one inbox beyond which REST sends to that hub are refused.
pub(crate) const INBOX_HUB_BYTES_MAX: usize = INBOX_BYTES_MAX / 4;

/// Wakes a sleeping shard.
pub(crate) trait Wake {
    /// Makes the shard's poll return, now or the next time.
    fn wake(&self);
}

impl Wake for mio::Waker {
    fn wake(&self) {
        if let Err(error) = Self::wake(self) {
            // An eventfd write fails only when the descriptor is gone, which it outlives.
            tracing::error!(%error, "a shard could not be woken");
        }
    }
}

/// Counts the inboxes of a node that are over [`INBOX_BYTES_MAX`].
#[derive(Debug, Default)]
pub(crate) struct Pressure(AtomicUsize);

impl Pressure {
    pub(crate) fn is_high(&self) -> bool {
        self.0.load(Ordering::Relaxed) != 0
    }
}

/// A shard's inbox.
#[derive(Debug)]
pub(crate) struct Inbox<K, T, W> {
    queue: Mutex<Queue<K, T>>,
    awake: AtomicBool,
    waker: W,
}

#[derive(Debug)]
struct Queue<K, T> {
    /// What concerns no hub's order.
    first: Vec<T>,
    lanes: Lanes<K, T>,
}

impl<K: Clone + Eq + Hash, T, W: Wake> Inbox<K, T, W> {
    pub(crate) fn new(waker: W) -> Self {
        Self {
            queue: Mutex::new(Queue { first: Vec::new(), lanes: Lanes::new() }),
            awake: AtomicBool::new(true),
            waker,
        }
    }

    /// Puts a letter before everything that waits in lanes.
    pub(crate) fn push_first(&self, letter: T) {
        self.lock().first.push(letter);
        self.wake();
    }

    /// Appends a letter that carries `bytes` of payload to a lane.
    pub(crate) fn push(&self, lane: &K, letter: T, bytes: usize, pressure: &Pressure) {
        let mut queue = self.lock();
        let was_over = INBOX_BYTES_MAX < queue.lanes.bytes();
        queue.lanes.push(lane, letter, bytes);
        if !was_over && INBOX_BYTES_MAX < queue.lanes.bytes() {
            pressure.0.fetch_add(1, Ordering::Relaxed);
        }
        drop(queue);
        self.wake();
    }

    /// Whether a lane holds more than [`INBOX_HUB_BYTES_MAX`].
    pub(crate) fn is_full(&self, lane: &K) -> bool {
        INBOX_HUB_BYTES_MAX < self.lock().lanes.bytes_of(lane)
    }

    /// Wakes the shard if it sleeps or is about to.
    pub(crate) fn wake(&self) {
        if !self.awake.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    /// Moves the letters that come first, and some of those in lanes, to the end of `into`. Returns whether that ended this inbox's part
    /// in the pressure.
    pub(crate) fn take(&self, take: Take, into: &mut Vec<T>, pressure: &Pressure) -> bool {
        let mut queue = self.lock();
        let was_over = INBOX_BYTES_MAX < queue.lanes.bytes();
        into.append(&mut queue.first);
        queue.lanes.take(take, into);
        let is_relieved = was_over && queue.lanes.bytes() <= INBOX_BYTES_MAX;
        if is_relieved {
            pressure.0.fetch_sub(1, Ordering::Relaxed);
        }
        is_relieved
    }

    /// Returns whether the shard may sleep until it is woken; otherwise there are letters, and it must not.
    pub(crate) fn may_sleep(&self) -> bool {
        // Read as well as written, so that wake-ups before it are ordered before it.
        self.awake.swap(false, Ordering::AcqRel);
        let queue = self.lock();
        let empty = queue.first.is_empty() && queue.lanes.is_empty();
        drop(queue);
        if !empty {
            self.awake.store(true, Ordering::Relaxed);
        }
        empty
    }

    /// Says that the shard is awake again, so that pushes cost no system call.
    pub(crate) fn set_awake(&self) {
        self.awake.store(true, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Queue<K, T>> {
        self.queue.lock().expect("nothing panics while it holds an inbox")
    }
}

#[cfg(all(test, not(feature = "loom")))]
mod tests {
    use super::*;

    struct NoWake;
    impl Wake for NoWake {
        fn wake(&self) {}
    }

    #[test]
    fn pressure_rises_and_falls_with_the_bytes() {
        let (inbox, pressure) = (Inbox::new(NoWake), Pressure::default());
        inbox.push(&"a", 1, INBOX_HUB_BYTES_MAX, &pressure);
        assert!(!inbox.is_full(&"a"));
        inbox.push(&"a", 2, 1, &pressure);
        assert!(inbox.is_full(&"a") && !inbox.is_full(&"b"), "the others are not concerned");
        inbox.push(&"b", 3, INBOX_BYTES_MAX - INBOX_HUB_BYTES_MAX - 1, &pressure);
        assert!(!pressure.is_high());
        inbox.push(&"b", 4, 1, &pressure);
        inbox.push_first(0);
        assert!(pressure.is_high() && !inbox.may_sleep());
        let mut letters = Vec::new();
        assert!(inbox.take(Take::Share(2), &mut letters, &pressure));
        assert!(!pressure.is_high() && !inbox.is_full(&"a"));
        assert_eq!(letters, [0, 1, 3], "what concerns no hub comes first");
        assert!(!inbox.take(Take::All, &mut letters, &pressure));
        assert_eq!(letters, [0, 1, 3, 2, 4]);
        assert!(inbox.may_sleep());
    }
}

#[cfg(all(test, feature = "loom"))]
mod loom_tests {
    use super::*;
    use loom::sync::{Arc, Notify};
    use loom::thread;

    /// Like an eventfd, it remembers a wake-up until somebody sleeps.
    impl Wake for Arc<Notify> {
        fn wake(&self) {
            self.notify();
        }
    }

    /// Loom fails this test with a deadlock if in any interleaving the shard sleeps while a letter waits.
    #[test]
    fn loom_no_letter_is_slept_over() {
        // Two forced switches find the races that matter; all schedules would take hours.
        let mut model = loom::model::Builder::new();
        model.preemption_bound = Some(2);
        model.check(|| {
            let eventfd = Arc::new(Notify::new());
            let inbox = Arc::new(Inbox::new(eventfd.clone()));
            let pressure = Arc::new(Pressure::default());
            let senders: Vec<_> = (0..2)
                .map(|letter| {
                    let (inbox, pressure) = (inbox.clone(), pressure.clone());
                    thread::spawn(move || inbox.push(&letter, letter, 1, &pressure))
                })
                .collect();
            let mut letters = Vec::new();
            while letters.len() < 2 {
                inbox.take(Take::Light(2), &mut letters, &pressure);
                if letters.len() < 2 && inbox.may_sleep() {
                    eventfd.wait();
                    inbox.set_awake();
                }
            }
            for sender in senders {
                sender.join().unwrap();
            }
            assert!(!pressure.is_high());
        });
    }
}
