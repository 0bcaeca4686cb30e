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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use hookwire_hub::{Event, EventFacts, UserEvent};
    use hookwire_proto::data::{Data, DataKind, Metadata};
    use hookwire_proto::handler::{EventPattern, HandlerUrl, SystemEvents};
    use hookwire_proto::name::{ConnectionId, HubName};
    use tokio::sync::Semaphore;

    use super::*;

    fn copy(url: &str, payload_bytes: usize) -> EventCopy {
        EventCopy {
            listener: Arc::new(EventListener {
                url: HandlerUrl::parse(url).unwrap(),
                user_events: EventPattern::any(),
                system_events: SystemEvents::default(),
            }),
            hub: HubName::parse("chat").unwrap(),
            connection: ConnectionId::new(1, 2, [3; 16]),
            user: None,
            facts: EventFacts { sequence: 0, subprotocol: None, state: None, cookies: None },
            event: Event::User(UserEvent {
                name: "x".into(),
                data: Data { kind: DataKind::Binary, bytes: Bytes::from(vec![0; payload_bytes]) },
                metadata: Metadata::default(),
                is_invocation: false,
            }),
        }
    }

    /// Queues whose copies are delivered as far as `allowed` allows, and how many were taken at all.
    struct Bench {
        listeners: Listeners,
        tasks: TaskTracker,
        allowed: Arc<Semaphore>,
    }

    impl Bench {
        fn new() -> Self {
            let allowed = Arc::new(Semaphore::new(0));
            Self { listeners: Listeners::new(), tasks: TaskTracker::new(), allowed }
        }

        fn push(&self, copy: EventCopy) -> Result<(), Dropped> {
            let allowed = self.allowed.clone();
            let deliver = move |waiting: Waiting| {
                let allowed = allowed.clone();
                async move {
                    allowed.acquire().await.unwrap().forget();
                    drop(waiting);
                }
            };
            self.listeners.push(copy, &self.tasks, deliver)
        }

        /// Closes the queues and waits until they are empty.
        async fn drain(self) {
            self.allowed.add_permits(2 * EVENTS_MAX);
            self.listeners.close();
            self.tasks.close();
            self.tasks.wait().await;
        }
    }

    #[tokio::test]
    async fn a_full_queue_drops_the_newest_and_has_room_again_when_something_was_delivered() {
        let bench = Bench::new();
        for _ in 0..EVENTS_MAX {
            bench.push(copy("http://a/", 0)).unwrap();
        }
        assert_eq!(bench.push(copy("http://a/", 0)), Err(Dropped));
        bench.push(copy("http://b/", 0)).expect("other listeners have queues of their own");
        let taken = {
            let queues = bench.listeners.0.lock().unwrap();
            queues.listeners[0].1.room.clone()
        };
        bench.allowed.add_permits(2);
        while taken.events.load(Ordering::Relaxed) == EVENTS_MAX {
            tokio::task::yield_now().await;
        }
        bench.push(copy("http://a/", 0)).unwrap();
        bench.drain().await;
        assert_eq!(taken.events.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn bytes_are_bounded_too() {
        let bench = Bench::new();
        for _ in 0..4 {
            bench.push(copy("http://a/", BYTES_MAX / 4)).unwrap();
        }
        assert_eq!(bench.push(copy("http://a/", 1)), Err(Dropped));
        bench.push(copy("http://a/", 0)).unwrap();
        bench.drain().await;
    }

    #[tokio::test]
    async fn listeners_are_bounded_and_known_by_what_they_are() {
        let bench = Bench::new();
        for at in 0..LISTENERS_MAX {
            bench.push(copy(&format!("http://h{at}/"), 0)).unwrap();
        }
        bench.push(copy("http://h0/", 0)).unwrap();
        assert_eq!(bench.push(copy("http://one-more/", 0)), Err(Dropped));
        assert_eq!(bench.listeners.0.lock().unwrap().listeners.len(), LISTENERS_MAX);
        bench.drain().await;
    }
}
