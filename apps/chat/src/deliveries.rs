//! Pushes on their way to Hookwire: in order within a lane, side by side between lanes.
//!
//! What is pushed is stored already, so a push that fails after its tries is dropped and logged: clients notice the missing number
//! and read the history. Presence is not stored: it is asked for when its turn comes, so the last push of a lane is the truth.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hookwire_client::ServiceError;
use tokio::sync::Semaphore;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::dialect::{Hub, may_pass};
use crate::name::UserName;
use crate::refusal::Chain;
use crate::wire::Push;

/// Who gets a push.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Delivery {
    Everybody(String),
    User(String, String),
    Group(String, String),
    /// Whether this user is online, to everybody.
    Presence(UserName),
}

/// Pushes that wait. Cloning shares them.
#[derive(Clone)]
pub(crate) struct Deliveries(Arc<Shared>);

struct Shared {
    hub: Hub,
    lanes: Mutex<HashMap<String, VecDeque<Delivery>>>,
    waiting: AtomicUsize,
    at_once: Semaphore,
    tasks: TaskTracker,
    /// Nothing is tried again: a shutdown waits.
    closing: CancellationToken,
    /// Nothing is tried.
    stop: CancellationToken,
}

impl Deliveries {
    pub(crate) fn new(hub: Hub) -> Self {
        Self(Arc::new(Shared {
            hub,
            lanes: Mutex::default(),
            waiting: AtomicUsize::new(0),
            at_once: Semaphore::new(DELIVERIES_AT_ONCE_MAX),
            tasks: TaskTracker::new(),
            closing: CancellationToken::new(),
            stop: CancellationToken::new(),
        }))
    }

    /// Returns whether so much waits that nothing should be accepted that causes more.
    pub(crate) fn are_full(&self) -> bool {
        DELIVERIES_WAITING_MAX <= self.0.waiting.load(Ordering::Relaxed)
    }

    /// Puts a push at the end of its lane.
    pub(crate) fn push(&self, lane: &str, delivery: Delivery) {
        self.0.waiting.fetch_add(1, Ordering::Relaxed);
        let mut lanes = self.0.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(queue) = lanes.get_mut(lane) {
            queue.push_back(delivery);
        } else {
            lanes.insert(lane.to_owned(), VecDeque::from([delivery]));
            let shared = Arc::clone(&self.0);
            let lane = lane.to_owned();
            self.0.tasks.spawn(async move {
                let stop = shared.stop.clone();
                stop.run_until_cancelled(shared.drain(lane)).await
            });
        }
    }

    /// Tries everything that waits once more, for at most `limit`. What is left then is dropped and logged.
    pub(crate) async fn close(&self, limit: Duration) {
        self.0.closing.cancel();
        self.0.tasks.close();
        if tokio::time::timeout(limit, self.0.tasks.wait()).await.is_err() {
            let left = self.0.waiting.load(Ordering::Relaxed);
            tracing::warn!(left, "pushes were dropped at shutdown");
            self.0.stop.cancel();
            self.0.tasks.wait().await;
        }
    }
}

impl fmt::Debug for Deliveries {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waiting = self.0.waiting.load(Ordering::Relaxed);
        formatter.debug_struct("Deliveries").field("waiting", &waiting).finish_non_exhaustive()
    }
}

impl Shared {
    async fn drain(&self, lane: String) {
        loop {
            let next = {
                let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
                let next = lanes.get_mut(&lane).and_then(VecDeque::pop_front);
                if next.is_none() {
                    lanes.remove(&lane);
                }
                next
            };
            let Some(delivery) = next else { return };
            match (self.try_to_deliver(&delivery).await, delivery) {
                (Ok(()), _) => {}
                // The next one who says hello is told.
                (Err(error), Delivery::Presence(_)) => {
                    tracing::debug!(error = %Chain(&error), "presence was not told");
                }
                (Err(error), _) => tracing::warn!(error = %Chain(&error), "a push was dropped"),
            }
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    async fn try_to_deliver(&self, delivery: &Delivery) -> Result<(), ServiceError> {
        let _place = self.at_once.acquire().await.expect("the semaphore is never closed");
        let trying = patiently(|| self.deliver(delivery));
        match self.closing.run_until_cancelled(trying).await {
            Some(result) => result,
            None => self.deliver(delivery).await,
        }
    }

    async fn deliver(&self, delivery: &Delivery) -> Result<(), ServiceError> {
        match delivery {
            Delivery::Everybody(text) => self.hub.send_to_everybody(text).await,
            Delivery::User(user, text) => self.hub.send_to_user(user, text).await,
            Delivery::Group(group, text) => self.hub.send_to_group(group, text).await,
            Delivery::Presence(user) => {
                let online = self.hub.has_user(user.as_str()).await?;
                let push = Push::Presence { user: user.as_str(), online };
                self.hub.send_to_everybody(&push.to_json()).await
            }
        }
    }
}

/// Makes a call of the service, again if it failed for a reason that may pass. The call must be one that may be made twice.
pub(crate) async fn patiently<T, F>(call: impl Fn() -> F) -> Result<T, ServiceError>
where
    F: Future<Output = Result<T, ServiceError>>,
{
    for delay in RETRY_DELAYS {
        match call().await {
            Err(error) if may_pass(&error) => sleep(delay).await,
            result => return result,
        }
    }
    call().await
}

/// Pushes that may wait before requests are refused that cause more.
pub(crate) const DELIVERIES_WAITING_MAX: usize = 10_000;

/// Pushes that are under way at a time, over all lanes.
const DELIVERIES_AT_ONCE_MAX: usize = 64;

/// Between tries of a call of the service.
const RETRY_DELAYS: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(500)];

#[cfg(test)]
mod tests {
    use hookwire_client::Service;

    use super::*;

    #[tokio::test]
    async fn what_waits_is_counted() {
        // Nothing is sent before the test is over: its tasks get no turn.
        let line =
            "Endpoint=http://127.0.0.1;Port=1;AccessKey=ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789;";
        let deliveries = Deliveries::new(Hub::Preview(Service::new(line, "chat").unwrap()));
        for n in 0..DELIVERIES_WAITING_MAX {
            assert!(!deliveries.are_full());
            deliveries.push(&format!("lane {}", n % 7), Delivery::Everybody("x".to_owned()));
        }
        assert!(deliveries.are_full());
    }
}
