//! Who is online. Hookwire knows: a user is online while any connection of theirs stands.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::{StreamExt, stream};

use super::Chat;
use crate::deliveries::Delivery;
use crate::name::UserName;
use crate::refusal::Chain;
use crate::wire::User;

impl Chat {
    /// Tells everybody whether a user is online. What is told is asked for when it is told, so after several changes the last word
    /// is the truth.
    pub(super) fn announce_presence(&self, user: &UserName) {
        self.deliveries.push(&format!("presence {user}"), Delivery::Presence(user.clone()));
    }

    /// Asks for each of these people whether they are online. Who is not known in time counts as offline; `user`, who asks, is
    /// online.
    pub(super) async fn users_online(&self, user: &UserName, people: Vec<String>) -> Vec<User> {
        let mut online = BTreeSet::from([user.to_string()]);
        let asked: Vec<String> =
            people.iter().filter(|name| *name != user.as_str()).cloned().collect();
        let asking = stream::iter(asked)
            .map(|name| async move {
                let exists = self.hub.has_user(&name).await;
                (name, exists)
            })
            .buffer_unordered(QUESTIONS_AT_ONCE_MAX);
        let mut asking = std::pin::pin!(asking);
        let collecting = async {
            while let Some((name, exists)) = asking.next().await {
                match exists {
                    Ok(true) => {
                        online.insert(name);
                    }
                    Ok(false) => {}
                    Err(error) => {
                        tracing::warn!(error = %Chain(&error), "it is not known whether a user is online");
                    }
                }
            }
        };
        if tokio::time::timeout(QUESTIONS_TIME_MAX, collecting).await.is_err() {
            tracing::warn!("it was not known in time who is online");
        }
        people.into_iter().map(|name| User { online: online.contains(&name), name }).collect()
    }
}

/// Questions to the service that one request asks side by side.
const QUESTIONS_AT_ONCE_MAX: usize = 32;

/// Longest time that one request spends on asking who is online.
const QUESTIONS_TIME_MAX: Duration = Duration::from_secs(5);
