//! Changes of stored memberships: each user's in one order, and each of them to its end.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use hookwire_hub::{Command, MembershipChange};
use hookwire_proto::name::{HubName, UserId};
use tokio::sync::{Mutex, Semaphore};

use crate::api_error::ApiError;
use crate::http::Edge;

/// Changes on their way; more are refused with 429.
const CHANGES_MAX: usize = 4_096;

/// Locks that all users share by hash. Many, so that the changes of different users still reach the disk together.
const TURNS: usize = 1_024;

/// Who is changing what.
#[derive(Debug)]
pub(crate) struct Changes {
    room: Semaphore,
    turns: Vec<Mutex<()>>,
    hasher: RandomState,
}

impl Default for Changes {
    fn default() -> Self {
        let turns = (0..TURNS).map(|_| Mutex::default()).collect();
        Self { room: Semaphore::new(CHANGES_MAX), turns, hasher: RandomState::new() }
    }
}

/// Makes a change: stored first, then put before every shard. Two changes of one user happen in the same order everywhere, or the
/// store and the shards would come to disagree. For the same reason it runs in a task of its own: hyper forgets its future when
/// the caller leaves.
///
/// # Errors
/// 409 when the store is full, 429 when too many changes are on their way, 503 when a shard does not answer; the change has been
/// stored then.
pub(crate) async fn change(
    edge: &Arc<Edge>,
    hub: HubName,
    user: UserId,
    change: MembershipChange,
) -> Result<(), ApiError> {
    let task = edge.tasks.spawn({
        let edge = edge.clone();
        async move {
            let Ok(_room) = edge.changes.room.try_acquire() else {
                return Err(ApiError::busy("too many changes are on their way"));
            };
            let _turn = edge.changes.turn(&hub, &user).lock().await;
            edge.store.change_membership(&hub, &user, &change).await?;
            edge.shards.ask(Command::Membership { hub, user, change }).await?;
            Ok(())
        }
    });
    task.await.map_err(|_| ApiError::failed())?
}

impl Changes {
    fn turn(&self, hub: &HubName, user: &UserId) -> &Mutex<()> {
        let hash = self.hasher.hash_one((hub, user));
        let at = hash % TURNS as u64;
        &self.turns[usize::try_from(at).expect("the number of turns is small")]
    }
}
