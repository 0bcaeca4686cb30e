//! Who gets what is sent to a group of Hookwire: the connections of the members of the conversation of the same name.
//!
//! A preview service keeps users in groups, and all their connections with them, now and later. A Web PubSub service keeps
//! connections: each is put into its user's groups when it comes, and a change of members reaches those that are there. A change
//! between the two would be missed, so a connection brings along a mark of the groups that it was put into, and `hello` compares.

use std::collections::BTreeSet;
use std::fmt::Write;

use futures_util::{StreamExt, TryStreamExt, stream};
use hookwire_client::ServiceError;
use sha2::{Digest, Sha256};

use super::{Caller, Chat, READS_AT_ONCE_MAX, unreadable};
use crate::deliveries::patiently;
use crate::name::{ConversationId, UserName};
use crate::refusal::Refusal;
use crate::store::UserRecord;
use crate::wire;

/// The groups of one user, by their conversations' ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Memberships(BTreeSet<String>);

impl Memberships {
    fn of(conversations: &[wire::Conversation]) -> Self {
        let groups = conversations
            .iter()
            .filter(|conversation| conversation.kind == "group" && conversation.state == "member")
            .map(|conversation| conversation.id.clone());
        Self(groups.collect())
    }

    /// Returns the names of the groups, in order.
    pub(crate) fn groups(&self) -> impl ExactSizeIterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// Returns a text that is the same for the same groups, and different for others.
    pub(crate) fn mark(&self) -> String {
        let mut hash = Sha256::new();
        for group in &self.0 {
            hash.update(group);
            hash.update(b"\n");
        }
        let mut mark = String::with_capacity(2 * MARK_BYTES);
        for byte in &hash.finalize()[..MARK_BYTES] {
            write!(mark, "{byte:02x}").expect("writing to a string cannot fail");
        }
        mark
    }
}

impl Chat {
    /// Returns the groups of a user; none for somebody who was never here.
    ///
    /// # Errors
    /// [`Refusal`] when they cannot be read.
    pub(crate) async fn memberships(&self, user: &UserName) -> Result<Memberships, Refusal> {
        let Some(record) = self.store.user(user).await.map_err(unreadable)? else {
            return Ok(Memberships::default());
        };
        Ok(Memberships::of(&self.listed_conversations(user, &record).await?))
    }

    /// Makes sure that Hookwire delivers the user's groups to the connection that says hello: a service that lost its storage, or a
    /// request that was cut half way, must not keep messages from a member. Returns the conversations as they are after that, so
    /// that what was sent before is known.
    pub(super) async fn assert_memberships(
        &self,
        caller: &Caller,
        record: &UserRecord,
        conversations: Vec<wire::Conversation>,
    ) -> Result<Vec<wire::Conversation>, Refusal> {
        let Caller { user, connection, mark } = caller;
        let theirs = Memberships::of(&conversations);
        if self.hub.keeps_users_in_groups() {
            each(&theirs, |group| self.hub.add_to_group(group, user.as_str())).await?;
            return Ok(conversations);
        }
        if *mark == Some(theirs.mark()) {
            return Ok(conversations);
        }
        drop(conversations); // They are read again.
        patiently(|| self.hub.remove_connection_from_all_groups(connection))
            .await
            .map_err(unreachable)?;
        each(&theirs, |group| self.hub.add_connection_to_group(group, connection)).await?;
        let public = self.known_conversation(&ConversationId::Public).await?;
        let conversations = self.conversations_of(user, record, &public).await?;
        let left = Memberships(&theirs.0 - &Memberships::of(&conversations).0);
        each(&left, |group| self.hub.remove_connection_from_group(group, connection)).await?;
        Ok(conversations)
    }

    /// Lets the connections of a new member get what is sent to the group.
    pub(super) async fn add_to_group(
        &self,
        id: &ConversationId,
        user: &UserName,
    ) -> Result<(), Refusal> {
        let group = id.to_string();
        patiently(|| self.hub.add_to_group(&group, user.as_str())).await.map_err(unreachable)
    }

    /// Lets the connections of a former member get nothing more.
    pub(super) async fn remove_from_group(
        &self,
        id: &ConversationId,
        user: &UserName,
    ) -> Result<(), Refusal> {
        let group = id.to_string();
        patiently(|| self.hub.remove_from_group(&group, user.as_str())).await.map_err(unreachable)
    }
}

/// Makes a call for each group, some side by side.
async fn each<'a, F>(groups: &'a Memberships, call: impl Fn(&'a str) -> F) -> Result<(), Refusal>
where
    F: Future<Output = Result<(), ServiceError>>,
{
    let call = &call;
    stream::iter(groups.groups())
        .map(Ok)
        .try_for_each_concurrent(READS_AT_ONCE_MAX, |group| patiently(move || call(group)))
        .await
        .map_err(unreachable)
}

fn unreachable(error: ServiceError) -> Refusal {
    Refusal::unavailable("The chat could not reach the service. Try again.", error)
}

/// Bytes of a mark. It tells the states of one user apart, and nobody gains by making two alike.
const MARK_BYTES: usize = 8;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hookwire_client::{ConnectionString, Service};
    use object_store::memory::InMemory;
    use object_store::path::Path;
    use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
    use serde_json::json;

    use super::*;
    use crate::attachments::{Attachments, Tickets};
    use crate::dialect::Hub;
    use crate::store::{self, Random};

    /// Returns the most memory that this process ever used, in bytes.
    #[cfg(target_os = "linux")]
    fn memory_peak() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        peak.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() << 10
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn conversations_are_listed_without_holding_what_was_said_in_them() {
        const CONVERSATIONS: u128 = 50;
        const TEXT_BYTES: usize = 1 << 20;
        let objects: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let put = async |kind: &str, name: &str, document: serde_json::Value| {
            let folder = Path::from(kind).join(store::conversation_digest(name));
            let path = folder.join("versions").join(format!("{:020}.json", 1));
            let stored = json!({ "format": 1, "marks": [1], "document": document });
            objects.put(&path, PutPayload::from(stored.to_string())).await.unwrap();
        };
        let ids: Vec<String> =
            (0..CONVERSATIONS).map(|n| ConversationId::Group(n).to_string()).collect();
        for id in &ids {
            let text = "x".repeat(TEXT_BYTES);
            let message = json!({ "user": "ann", "key": "k", "text": text, "time": "" });
            let document = json!({
                "id": id, "title": "", "members": ["ann"], "invited": [], "sealed": 0, "tail": [message],
            });
            put("conversations", id, document).await;
        }
        let entries: serde_json::Map<_, _> = ids.iter().map(|id| (id.clone(), json!(0))).collect();
        put("users", "ann", json!({ "name": "ann", "conversations": entries })).await;

        let line =
            "Endpoint=http://127.0.0.1;Port=1;AccessKey=ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789;";
        let key = ConnectionString::parse(line).unwrap().access_key().clone();
        let hub = Hub::Preview(Service::new(line, "chat").unwrap());
        let attachments = Attachments::new(Tickets::new(&key), 1);
        let chat = Chat::new(objects, hub, attachments, &Random::new(|| 4));
        let before = memory_peak();
        let ann = UserName::parse("ann").unwrap();
        let memberships = chat.memberships(&ann).await.unwrap();
        assert_eq!(memberships.groups().collect::<Vec<_>>(), ids);
        let grown = memory_peak() - before;
        let most = (READS_AT_ONCE_MAX + 4) * TEXT_BYTES;
        assert!(grown < most, "{grown} bytes more");
    }

    #[test]
    fn a_mark_tells_groups_apart() {
        let of = |groups: &[&str]| Memberships(groups.iter().map(ToString::to_string).collect());
        assert_eq!(of(&["a", "b"]).mark(), of(&["b", "a"]).mark());
        let marks = [of(&[]), of(&["a"]), of(&["b"]), of(&["a", "b"]), of(&["ab"])];
        let different: BTreeSet<String> = marks.iter().map(Memberships::mark).collect();
        assert_eq!(different.len(), marks.len());
        assert!(different.iter().all(|mark| mark.len() == 2 * MARK_BYTES));
    }
}
