//! The one way into a shard: a queue that any thread fills and the shard empties at the start of a turn.
//!
//! A push never fails and never waits for the shard. It costs a system call only when the shard sleeps: `awake` says whether it
//! will look into the queue again without being woken. Checked in every interleaving by the loom test below.

#[cfg(feature = "loom")]
use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};
#[cfg(not(feature = "loom"))]
use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

/// Payload bytes in one inbox beyond which the node takes in no more work: REST sends are refused and sockets are not read.
pub(crate) const INBOX_BYTES_MAX: usize = 16 * 1024 * 1024;

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
pub(crate) struct Inbox<T, W> {
    queue: Mutex<Queue<T>>,
    awake: AtomicBool,
    waker: W,
}

#[derive(Debug)]
struct Queue<T> {
    letters: Vec<T>,
    bytes: usize,
}

impl<T, W: Wake> Inbox<T, W> {
    pub(crate) fn new(waker: W) -> Self {
        Self {
            queue: Mutex::new(Queue { letters: Vec::new(), bytes: 0 }),
            awake: AtomicBool::new(true),
            waker,
        }
    }

    /// Appends a letter that carries `bytes` of payload.
    pub(crate) fn push(&self, letter: T, bytes: usize, pressure: &Pressure) {
        let mut queue = self.lock();
        let was_over = INBOX_BYTES_MAX < queue.bytes;
        queue.letters.push(letter);
        queue.bytes += bytes;
        if !was_over && INBOX_BYTES_MAX < queue.bytes {
            pressure.0.fetch_add(1, Ordering::Relaxed);
        }
        drop(queue);
        self.wake();
    }

    /// Wakes the shard if it sleeps or is about to.
    pub(crate) fn wake(&self) {
        if !self.awake.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    /// Moves all letters to the end of `into`. Returns the payload bytes taken out.
    pub(crate) fn drain_into(&self, into: &mut Vec<T>, pressure: &Pressure) -> usize {
        let mut queue = self.lock();
        into.append(&mut queue.letters);
        let bytes = std::mem::take(&mut queue.bytes);
        if INBOX_BYTES_MAX < bytes {
            pressure.0.fetch_sub(1, Ordering::Relaxed);
        }
        bytes
    }

    /// Returns whether the shard may sleep until it is woken; otherwise there are letters, and it must not.
    pub(crate) fn may_sleep(&self) -> bool {
        // Read as well as written, so that wake-ups before it are ordered before it.
        self.awake.swap(false, Ordering::AcqRel);
        let empty = self.lock().letters.is_empty();
        if !empty {
            self.awake.store(true, Ordering::Relaxed);
        }
        empty
    }

    /// Says that the shard is awake again, so that pushes cost no system call.
    pub(crate) fn set_awake(&self) {
        self.awake.store(true, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Queue<T>> {
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
        inbox.push(1, INBOX_BYTES_MAX, &pressure);
        assert!(!pressure.is_high());
        inbox.push(2, 1, &pressure);
        inbox.push(3, 5, &pressure);
        assert!(pressure.is_high());
        let mut letters = Vec::new();
        assert_eq!(inbox.drain_into(&mut letters, &pressure), INBOX_BYTES_MAX + 6);
        assert!(!pressure.is_high());
        assert_eq!(letters, [1, 2, 3]);
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
                    thread::spawn(move || inbox.push(letter, 1, &pressure))
                })
                .collect();
            let mut letters = Vec::new();
            while letters.len() < 2 {
                inbox.drain_into(&mut letters, &pressure);
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
