//! Event listeners: copies of events, without an answer (Web PubSub protocol, "Event listeners").
//!
//! Each listener has a bounded queue of its own; what does not fit is dropped and counted. The copies of one connection are delivered
//! in order, those of different connections side by side.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use hookwire_hub::EventCopy;
use hookwire_proto::handler::EventListener;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

/// Copies that may wait for one listener, those under way included. One more is dropped.
pub(super) const EVENTS_MAX: usize = 10_000;

/// Bytes of payload that may wait for one listener.
pub(super) const BYTES_MAX: usize = 64 * 1024 * 1024;

/// Copies that one listener gets at the same time.
const LANES: usize = 16;

/// Listeners that have a queue. The copies of one more are dropped.
const LISTENERS_MAX: usize = 256;

/// A listener's queue is full, or there are too many listeners, or the service ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dropped;

/// The queues of all listeners.
#[derive(Debug)]
pub(super) struct Listeners(Mutex<Queues>);

#[derive(Debug)]
struct Queues {
    /// Few, so that looking through them costs little.
    listeners: Vec<(Arc<EventListener>, Queue)>,
    is_closed: bool,
}

/// What waits for one listener: per lane, so that a connection's copies keep their order.
#[derive(Debug)]
struct Queue {
    lanes: Vec<mpsc::UnboundedSender<Waiting>>,
    room: Arc<Room>,
}

/// What a queue holds.
#[derive(Debug, Default)]
struct Room {
    events: AtomicUsize,
    bytes: AtomicUsize,
}

/// A copy that waits or is under way; its room is free again when this is dropped.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) copy: EventCopy,
    room: Arc<Room>,
    bytes: usize,
}

impl Listeners {
    /// Returns no queues.
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Queues { listeners: Vec::new(), is_closed: false }))
    }

    /// Puts a copy into its listener's queue. The first one of a listener makes the queue, which `deliver` empties in tasks of their
    /// own until the queues are closed.
    ///
    /// # Errors
    /// [`Dropped`]: it is not delivered.
    pub(super) fn push<Delivering>(
        &self,
        copy: EventCopy,
        tasks: &TaskTracker,
        deliver: impl Fn(Waiting) -> Delivering + Clone + Send + Sync + 'static,
    ) -> Result<(), Dropped>
    where
        Delivering: Future<Output = ()> + Send,
    {
        let mut queues = self.0.lock().expect("nothing panics while it holds the queues");
        if queues.is_closed {
            return Err(Dropped);
        }
        let found = queues.listeners.iter().position(|(listener, _)| {
            Arc::ptr_eq(listener, &copy.listener) || *listener == copy.listener
        });
        let at = match found {
            Some(at) => at,
            None if LISTENERS_MAX <= queues.listeners.len() => return Err(Dropped),
            None => {
                queues.listeners.push((copy.listener.clone(), Queue::new(tasks, &deliver)));
                queues.listeners.len() - 1
            }
        };
        queues.listeners[at].1.push(copy)
    }

    /// Takes nothing more; what waits is still delivered, then the tasks end.
    pub(super) fn close(&self) {
        let mut queues = self.0.lock().expect("nothing panics while it holds the queues");
        queues.is_closed = true;
        queues.listeners.clear();
    }
}

impl Queue {
    fn new<Delivering>(
        tasks: &TaskTracker,
        deliver: &(impl Fn(Waiting) -> Delivering + Clone + Send + Sync + 'static),
    ) -> Self
    where
        Delivering: Future<Output = ()> + Send,
    {
        let lane = |_| {
            let (sender, mut receiver) = mpsc::unbounded_channel();
            let deliver = deliver.clone();
            tasks.spawn(async move {
                while let Some(waiting) = receiver.recv().await {
                    deliver(waiting).await;
                }
            });
            sender
        };
        Self { lanes: (0..LANES).map(lane).collect(), room: Arc::default() }
    }

    /// Only one thread pushes at a time, so that what is counted here can only shrink meanwhile.
    fn push(&self, copy: EventCopy) -> Result<(), Dropped> {
        let bytes = copy.event.payload_bytes();
        let is_full = EVENTS_MAX <= self.room.events.load(Ordering::Relaxed)
            || BYTES_MAX < self.room.bytes.load(Ordering::Relaxed) + bytes;
        if is_full {
            return Err(Dropped);
        }
        self.room.events.fetch_add(1, Ordering::Relaxed);
        self.room.bytes.fetch_add(bytes, Ordering::Relaxed);
        let mut hasher = DefaultHasher::new();
        copy.connection.hash(&mut hasher);
        let lane = usize::try_from(hasher.finish() % LANES as u64).expect("there are few lanes");
        let waiting = Waiting { copy, room: self.room.clone(), bytes };
        self.lanes[lane].send(waiting).map_err(|_| Dropped)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.room.events.fetch_sub(1, Ordering::Relaxed);
        self.room.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}
