//! What the chat remembers, on object storage: conversations, users, people.
//!
//! A document is a chain of numbered versions (`chain`); changes are gathered and written by one task per document (`writer`);
//! messages that are old enough move into segments (`segment`). Any number of processes may use the same storage.

mod attachment;
mod chain;
mod conversation;
mod people;
mod segment;
mod user;
mod writer;

use std::error::Error;
use std::fmt::{self, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use object_store::path::Path;
use object_store::{GetResult, ObjectStore};
use sha2::{Digest, Sha256};

pub(crate) use self::attachment::{Attachment, Uploading, conversation_digest};
pub(crate) use self::chain::Retention;
pub(crate) use self::conversation::{
    Answer, Change as ConversationChange, Conversation, MEMBERS_MAX, Message,
};
pub(crate) use self::people::People;
pub(crate) use self::user::{Change as UserChange, UserRecord};
use self::writer::Writer;
pub(crate) use self::writer::{Committed, Pace};
use crate::name::{ConversationId, UserName};
use crate::refusal::Refusal;

/// A source of random numbers. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Random(Arc<dyn Fn() -> u64 + Send + Sync>);

impl Random {
    pub(crate) fn new(source: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(source))
    }

    pub(crate) fn next(&self) -> u64 {
        (self.0)()
    }
}

impl fmt::Debug for Random {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Random")
    }
}

/// Everything that is stored.
#[derive(Debug)]
pub(crate) struct Store {
    objects: Arc<dyn ObjectStore>,
    conversations: Writer<Conversation>,
    users: Writer<UserRecord>,
    people: Writer<People>,
    random: Random,
}

/// A part of a conversation's history.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// Ascending, without holes.
    pub(crate) messages: Vec<(u64, Message)>,
    /// Whether there is more in the direction that was asked for.
    pub(crate) more: bool,
}

/// Which part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The newest messages.
    Newest,
    /// The newest of those below a number.
    Before(u64),
    /// The oldest of those above a number.
    After(u64),
}

impl Store {
    /// Uses `objects`. `committed` hears of each message in the order of a conversation.
    pub(crate) fn new(
        objects: Arc<dyn ObjectStore>,
        retention: Retention,
        random: &Random,
        committed: Committed<Conversation>,
    ) -> Self {
        let pace = |interval, documents_max| Pace { interval, documents_max, retention };
        let random = || random.clone();
        Self {
            random: random(),
            conversations: Writer::new(
                Arc::clone(&objects),
                pace(CONVERSATION_INTERVAL, CONVERSATIONS_CHANGED_MAX),
                random(),
                committed,
            ),
            users: Writer::new(
                Arc::clone(&objects),
                pace(USER_INTERVAL, USERS_CHANGED_MAX),
                random(),
                Box::new(|_, _| {}),
            ),
            people: Writer::new(
                Arc::clone(&objects),
                pace(PEOPLE_INTERVAL, 1),
                random(),
                Box::new(|_, ()| {}),
            ),
            objects,
        }
    }

    /// Changes a conversation.
    ///
    /// # Errors
    /// [`Refusal`] says why not.
    pub(crate) async fn change_conversation(
        &self,
        id: &ConversationId,
        change: ConversationChange,
    ) -> Result<Answer, Refusal> {
        self.conversations.change(&id.to_string(), change).await
    }

    /// Reads a conversation. Groups that nobody made are absent.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub(crate) async fn conversation(
        &self,
        id: &ConversationId,
    ) -> Result<Option<Conversation>, StoreError> {
        let stored = self.conversations.read(&id.to_string()).await?;
        Ok(stored.or_else(|| Conversation::unwritten(id)))
    }

    /// Reads at most `limit` messages of a conversation.
    ///
    /// # Errors
    /// [`StoreError`] when a segment cannot be read.
    pub(crate) async fn page(
        &self,
        conversation: &Conversation,
        part: Part,
        limit: u64,
    ) -> Result<Page, StoreError> {
        let newest = conversation.last_seq();
        let (first, last) = match part {
            Part::Newest => (newest.saturating_sub(limit) + 1, newest),
            Part::Before(seq) => {
                let last = newest.min(seq.saturating_sub(1));
                (last.saturating_sub(limit) + 1, last)
            }
            Part::After(seq) => {
                let first = seq.saturating_add(1);
                (first, newest.min(seq.saturating_add(limit)))
            }
        };
        let messages = segment::messages(&self.objects, conversation, first, last).await?;
        let more = match part {
            Part::Newest | Part::Before(_) => 1 < first,
            Part::After(_) => last < newest,
        };
        Ok(Page { messages, more })
    }

    /// Changes a user's record.
    ///
    /// # Errors
    /// [`Refusal`] says why not.
    pub(crate) async fn change_user(
        &self,
        user: &UserName,
        change: UserChange,
    ) -> Result<UserRecord, Refusal> {
        self.users.change(user.as_str(), change).await
    }

    /// Remembers how far a user read, a little later. Lost if the process dies before.
    pub(crate) fn mark_read_later(&self, user: &UserName, id: &ConversationId, seq: u64) {
        self.users.change_later(user.as_str(), UserChange::Read(id.to_string(), seq));
    }

    /// Reads a user's record. Users who never were here have none.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub(crate) async fn user(&self, user: &UserName) -> Result<Option<UserRecord>, StoreError> {
        self.users.read(user.as_str()).await
    }

    /// Returns the names of everybody who was here, `user` now included.
    ///
    /// # Errors
    /// [`Refusal`] when the list cannot be read or written.
    pub(crate) async fn people_with(&self, user: &UserName) -> Result<Vec<String>, Refusal> {
        let read = async || match self.people.read(PEOPLE).await {
            Ok(people) => Ok(people.unwrap_or_default().names),
            Err(error) => Err(Refusal::unavailable("The list of people cannot be read.", error)),
        };
        let names = read().await?;
        if names.iter().any(|name| name == user.as_str()) {
            return Ok(names);
        }
        self.people.change(PEOPLE, user.clone()).await?;
        read().await
    }

    /// Begins to take a file.
    pub(crate) fn begin_upload(&self) -> Uploading {
        Uploading::begin(&self.objects, &self.random)
    }

    /// Makes sure that the attachments of a message outlast it, before it is written.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when one was not brought, or too long ago.
    pub(crate) async fn keep_attachments(
        &self,
        id: &ConversationId,
        attachments: &[Attachment],
    ) -> Result<(), StoreError> {
        let folder = conversation_digest(&id.to_string());
        let keeping =
            attachments.iter().map(|kept| attachment::keep(&self.objects, &folder, &kept.id));
        futures_util::future::try_join_all(keeping).await.map(drop)
    }

    /// Opens an attachment in the folder of a conversation; nothing when there is none.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub(crate) async fn attachment(
        &self,
        folder: &str,
        id: &str,
    ) -> Result<Option<GetResult>, StoreError> {
        attachment::open(&self.objects, folder, id).await
    }

    /// Deletes files that were brought longer ago than `age`. Those of messages are elsewhere. Returns how many.
    ///
    /// # Errors
    /// [`StoreError`] as for every call.
    pub(crate) async fn delete_uploads(
        &self,
        now: SystemTime,
        age: Duration,
    ) -> Result<usize, StoreError> {
        attachment::sweep(&self.objects, now, age).await
    }

    /// Finishes what was begun. Further changes are refused.
    pub(crate) async fn close(&self) {
        self.conversations.close().await;
        self.users.close().await;
        self.people.close().await;
    }
}

/// Why something could not be read from storage or written to it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StoreError {
    #[error("the store failed at {path}")]
    Unreachable { path: String, source: object_store::Error },
    #[error("the store did not answer within {limit:?} at {path}")]
    Timeout { path: String, limit: Duration },
    #[error("{path} is not what the chat wrote")]
    Corrupt { path: String, source: Box<dyn Error + Send + Sync> },
    #[error("{path} has format {format}; this program knows format {known}", known = chain::FORMAT)]
    Format { path: String, format: u32 },
    #[error("{path} has {bytes} bytes, at most {max} are read", max = chain::OBJECT_BYTES_MAX)]
    TooLarge { path: String, bytes: u64 },
    #[error("{path} is missing")]
    Missing { path: String },
    #[error("{path} holds more than {max} versions", max = chain::LISTED_MAX)]
    TooMany { path: String },
    #[error("the newest version of {path} vanished again and again")]
    Moving { path: String },
    #[error("others changed {path} first, {attempts} times")]
    Contended { path: String, attempts: u32 },
    #[error("{path} cannot be written as JSON")]
    Unwritable { path: String, source: serde_json::Error },
}

impl StoreError {
    /// Returns whether the store answered, but with something that cannot be used: trying again does not help.
    pub(crate) fn is_about_content(&self) -> bool {
        match self {
            Self::Corrupt { .. }
            | Self::Format { .. }
            | Self::TooLarge { .. }
            | Self::Missing { .. }
            | Self::TooMany { .. }
            | Self::Unwritable { .. } => true,
            Self::Unreachable { .. }
            | Self::Timeout { .. }
            | Self::Moving { .. }
            | Self::Contended { .. } => false,
        }
    }

    fn unreachable(path: &Path, source: object_store::Error) -> Self {
        Self::Unreachable { path: path.to_string(), source }
    }
}

/// Returns a name for a file: names from outside can be too long or mean something to a file system.
fn digest(name: &str) -> String {
    Sha256::digest(name).iter().fold(String::with_capacity(64), |mut text, byte| {
        write!(text, "{byte:02x}").expect("writing to a string cannot fail");
        text
    })
}

/// The name of the only document of people.
const PEOPLE: &str = "people";

/// From one version of a conversation to the next: messages that come meanwhile share the next one.
const CONVERSATION_INTERVAL: Duration = Duration::from_millis(20);

/// From one version of a user's record to the next.
const USER_INTERVAL: Duration = Duration::from_millis(50);

/// Conversations that are being changed at a time: each costs memory for its newest messages and their keys.
const CONVERSATIONS_CHANGED_MAX: usize = 2_000;

/// Records of users that are being changed at a time.
const USERS_CHANGED_MAX: usize = 20_000;

/// From one version of the list of people to the next.
const PEOPLE_INTERVAL: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests;
