//! Pushes on their way to Hookwire: in order within a lane, side by side between lanes.
//!
//! What is pushed is stored already, so a push that fails after its tries is dropped and logged: clients notice the missing number
//! and read the history. Presence is not stored: it is asked for when its turn comes, so the last push of a lane is the truth.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hookwire_client::{Service, ServiceError};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

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
    service: Service,
    lanes: Mutex<HashMap<String, VecDeque<Delivery>>>,
    waiting: AtomicUsize,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Deliveries {
    pub(crate) fn new(service: Service) -> Self {
        Self(Arc::new(Shared {
            service,
            lanes: Mutex::default(),
            waiting: AtomicUsize::new(0),
            tasks: TaskTracker::new(),
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

    /// Waits until everything is delivered, at most `limit`. What is left then is dropped and logged.
    pub(crate) async fn close(&self, limit: Duration) {
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
            if let Err(error) = patiently(|| self.deliver(&delivery)).await {
                tracing::warn!(error = %Chain(&error), "a push was dropped");
            }
            self.waiting.fetch_sub(1, Ordering::Relaxed);
        }
    }

    async fn deliver(&self, delivery: &Delivery) -> Result<(), ServiceError> {
        match delivery {
            Delivery::Everybody(text) => self.service.broadcast(text.as_str()).await,
            Delivery::User(user, text) => self.service.send_to_user(user, text.as_str()).await,
            Delivery::Group(group, text) => self.service.send_to_group(group, text.as_str()).await,
            Delivery::Presence(user) => {
                let online = self.service.user_exists(user.as_str()).await?;
                let push = Push::Presence { user: user.as_str(), online };
                self.service.broadcast(push.to_json()).await
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

fn may_pass(error: &ServiceError) -> bool {
    match error {
        ServiceError::Unreachable { .. }
        | ServiceError::Interrupted { .. }
        | ServiceError::Timeout { .. } => true,
        ServiceError::Status { status, .. } => {
            status.is_server_error() || *status == http::StatusCode::TOO_MANY_REQUESTS
        }
        ServiceError::Name(_)
        | ServiceError::ReasonTooLong { .. }
        | ServiceError::AnswerTooLong { .. }
        | ServiceError::Malformed { .. } => false,
    }
}

/// Pushes that may wait before requests are refused that cause more.
pub(crate) const DELIVERIES_WAITING_MAX: usize = 10_000;

/// Between tries of a call of the service.
const RETRY_DELAYS: [Duration; 2] = [Duration::from_millis(100), Duration::from_millis(500)];
