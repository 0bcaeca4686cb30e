//! What the operations of the protocol do. No state is held here but what makes things faster.

mod attachments;
mod groups;
mod memberships;
mod presence;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, SecondsFormat, Utc};
use futures_util::future::{join, try_join};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::timeout;

use crate::attachments::Attachments;
use crate::deliveries::{Deliveries, Delivery};
use crate::dialect::Hub;
use crate::name::{ConversationId, UserName};
use crate::refusal::{Chain, Code, Refusal};
use crate::store::{
    self, Answer as Stored, Attachment, Conversation, ConversationChange, Part, Random, Retention,
    Store, StoreError, UserChange, UserRecord,
};
use crate::wire::{self, Answer, Operation, Push};

pub(crate) use self::memberships::Memberships;

/// A connection that asks for something.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// Whose it is.
    pub(crate) user: UserName,
    pub(crate) connection: String,
    /// The [`Memberships::mark`] of the groups that it was put into when it came; absent if the service has nowhere to keep it.
    pub(crate) mark: Option<String>,
}

/// The chat room on a store and a hub.
#[derive(Debug)]
pub(crate) struct Chat {
    store: Arc<Store>,
    attachments: Arc<Attachments>,
    hub: Hub,
    deliveries: Deliveries,
    random: Random,
}

impl Chat {
    pub(crate) fn new(
        objects: Arc<dyn object_store::ObjectStore>,
        hub: Hub,
        attachments: Attachments,
        random: &Random,
    ) -> Self {
        let deliveries = Deliveries::new(hub.clone());
        let attachments = Arc::new(attachments);
        let (pushes, shown) = (deliveries.clone(), Arc::clone(&attachments));
        let committed = move |conversation: &Conversation, answer: &Stored| {
            if let Stored::Stands(seq, message) = answer {
                let message =
                    shown.show(&conversation.id, *seq, message.clone(), SystemTime::now());
                push_message(&pushes, &message);
            }
        };
        let store = Store::new(objects, Retention::default(), random, Box::new(committed));
        Self { store: Arc::new(store), attachments, hub, deliveries, random: random.clone() }
    }

    /// Carries out what a connection asks for at `now`.
    ///
    /// # Errors
    /// [`Refusal`] says why not.
    pub(crate) async fn carry_out(
        &self,
        caller: &Caller,
        operation: Operation,
        now: SystemTime,
    ) -> Result<Answer, Refusal> {
        let user = &caller.user;
        if self.deliveries.are_full() {
            return Err(Refusal::new(Code::Unavailable, "The chat is too busy. Try again."));
        }
        match operation {
            Operation::Hello {} => self.hello(caller).await,
            Operation::Open { conversation, before, after, limit } => {
                let part = match (before, after) {
                    (None, None) => Part::Newest,
                    (Some(seq), None) => Part::Before(seq),
                    (None, Some(seq)) => Part::After(seq),
                    (Some(_), Some(_)) => {
                        let text = "“before” and “after” exclude each other.";
                        return Err(Refusal::new(Code::Invalid, text));
                    }
                };
                self.open(user, &parse_id(&conversation)?, part, limit).await
            }
            Operation::Send { conversation, key, text, attachments } => {
                let id = parse_id(&conversation)?;
                let receipts = attachments.unwrap_or_default();
                let attachments = self.attachments.redeem(user, &id.to_string(), &receipts)?;
                let message = parse_message(user, key, text, attachments, now)?;
                self.send(user, &id, message).await
            }
            Operation::Attach { conversation, name, size } => {
                self.attach(user, &parse_id(&conversation)?, name, size, now).await
            }
            Operation::Read { conversation, seq } => {
                self.read(user, &parse_id(&conversation)?, seq).await
            }
            Operation::Direct { user: other } => self.direct(user, &UserName::parse(&other)?).await,
            Operation::Create { title, members } => {
                self.create(user, &title, &members.unwrap_or_default()).await
            }
            Operation::Invite { conversation, user: invited } => {
                self.invite(user, &parse_id(&conversation)?, &UserName::parse(&invited)?).await
            }
            Operation::Join { conversation } => self.join(user, &parse_id(&conversation)?).await,
            Operation::Leave { conversation } => self.leave(user, &parse_id(&conversation)?).await,
        }
    }

    /// A connection of `user` is gone.
    pub(crate) fn disconnected(&self, user: &UserName) {
        self.announce_presence(user);
    }

    /// Finishes what was begun: changes are stored, then pushes are delivered, as far as the limits allow.
    pub(crate) async fn close(&self) {
        if timeout(STORE_TIME_MAX, self.store.close()).await.is_err() {
            tracing::warn!("changes were not stored before the shutdown");
        }
        self.deliveries.close(DELIVER_TIME_MAX).await;
        self.attachments.close().await;
    }

    async fn hello(&self, caller: &Caller) -> Result<Answer, Refusal> {
        let user = &caller.user;
        let public = self.known_conversation(&ConversationId::Public).await?;
        let greeting = UserChange::Greet { public_seq: public.last_seq() };
        let (record, people) =
            try_join(self.greeted(user, greeting), self.store.people_with(user)).await?;
        self.announce_presence(user);
        let conversations = async {
            let conversations = self.conversations_of(user, &record, &public).await?;
            self.assert_memberships(caller, &record, conversations).await
        };
        let (conversations, users) = join(conversations, self.users_online(user, people)).await;
        Ok(Answer::Hello { user: user.to_string(), conversations: conversations?, users })
    }

    /// Returns the user's record, made if this is the first time.
    async fn greeted(&self, user: &UserName, greeting: UserChange) -> Result<UserRecord, Refusal> {
        match self.store.user(user).await.map_err(unreadable)? {
            Some(record) => Ok(record),
            None => self.store.change_user(user, greeting).await,
        }
    }

    /// Returns the public room and what else the user belongs to or is invited to.
    async fn conversations_of(
        &self,
        user: &UserName,
        record: &UserRecord,
        public: &Conversation,
    ) -> Result<Vec<wire::Conversation>, Refusal> {
        let mut conversations = self.listed_conversations(user, record).await?;
        conversations.insert(0, view(public, user, mark(record, public)));
        Ok(conversations)
    }

    /// Returns what a user belongs to or is invited to, but for the public room. A conversation that cannot be understood is left out
    /// and logged. The messages of one are held only while it is read.
    async fn listed_conversations(
        &self,
        user: &UserName,
        record: &UserRecord,
    ) -> Result<Vec<wire::Conversation>, Refusal> {
        let ids: Vec<ConversationId> = record
            .conversations
            .keys()
            .filter_map(|id| ConversationId::parse(id))
            .filter(|id| *id != ConversationId::Public)
            .collect();
        stream::iter(ids)
            .map(|id| async move {
                match self.store.conversation(&id).await {
                    Err(error) if error.is_about_content() => {
                        tracing::error!(error = %Chain(&error), "a conversation cannot be used");
                        Ok(None)
                    }
                    found => Ok(found?
                        .filter(|found| found.has_member(user) || found.has_invited(user))
                        .map(|found| view(&found, user, mark(record, &found)))),
                }
            })
            .buffered(READS_AT_ONCE_MAX)
            .try_filter_map(async |listed| Ok(listed))
            .try_collect()
            .await
            .map_err(unreadable)
    }

    async fn open(
        &self,
        user: &UserName,
        id: &ConversationId,
        part: Part,
        limit: Option<u64>,
    ) -> Result<Answer, Refusal> {
        let limit = limit.unwrap_or(PAGE_MESSAGES_DEFAULT).min(PAGE_MESSAGES_MAX);
        if limit == 0 {
            return Err(Refusal::new(Code::Invalid, "A page has at least one message."));
        }
        let conversation = self.conversation_of(user, id).await?;
        let page = self.store.page(&conversation, part, limit).await.map_err(unreadable)?;
        let messages = page
            .messages
            .into_iter()
            .map(|(seq, message)| self.shown(&conversation.id, seq, message))
            .collect();
        Ok(Answer::Page { messages, more: page.more })
    }

    async fn send(
        &self,
        user: &UserName,
        id: &ConversationId,
        message: store::Message,
    ) -> Result<Answer, Refusal> {
        if let ConversationId::Direct(..) = id {
            self.enter_direct(user, id).await?;
        }
        self.keep(user, id, &message.attachments).await?;
        let change = ConversationChange::Append(message);
        let (seq, message) = match self.store.change_conversation(id, change).await? {
            Stored::Stands(seq, message) => (seq, message),
            Stored::StandsSealed(seq) => self.sealed_message(id, seq).await?,
            Stored::Members(_) => unreachable!("a message is answered by a message"),
        };
        self.store.mark_read_later(user, id, seq);
        Ok(Answer::Message { message: self.shown(&id.to_string(), seq, message) })
    }

    async fn sealed_message(
        &self,
        id: &ConversationId,
        seq: u64,
    ) -> Result<(u64, store::Message), Refusal> {
        let conversation = self.known_conversation(id).await?;
        let page = self.store.page(&conversation, Part::After(seq - 1), 1).await;
        let found = page.map_err(unreadable)?.messages.pop();
        found.ok_or_else(|| Refusal::new(Code::Unavailable, UNREADABLE))
    }

    /// Makes sure that both users of a direct conversation find it, before there is something to find.
    async fn enter_direct(&self, user: &UserName, id: &ConversationId) -> Result<(), Refusal> {
        let other = id.other(user).ok_or_else(|| Refusal::new(Code::Forbidden, NOT_YOURS))?;
        if 0 < self.known_conversation(id).await?.last_seq() {
            return Ok(()); // Somebody sent the first message, so this was done.
        }
        for name in [other, user] {
            self.enter(name, id).await?;
        }
        Ok(())
    }

    async fn read(
        &self,
        user: &UserName,
        id: &ConversationId,
        seq: u64,
    ) -> Result<Answer, Refusal> {
        let conversation = self.conversation_of(user, id).await?;
        let seq = seq.min(conversation.last_seq());
        self.store.change_user(user, UserChange::Read(id.to_string(), seq)).await?;
        let push = Push::Read { conversation: &conversation.id, seq };
        self.deliveries
            .push(&format!("user {user}"), Delivery::User(user.to_string(), push.to_json()));
        Ok(Answer::Nothing {})
    }

    async fn direct(&self, user: &UserName, other: &UserName) -> Result<Answer, Refusal> {
        let id = ConversationId::direct(user, other)
            .ok_or_else(|| Refusal::new(Code::Invalid, "You cannot talk to yourself here."))?;
        self.known_user(other).await?;
        let record = self.enter(user, &id).await?;
        let conversation = self.known_conversation(&id).await?;
        Ok(Answer::Conversation {
            conversation: view(&conversation, user, mark(&record, &conversation)),
        })
    }

    /// Enters a conversation in a user's record. Returns the record.
    async fn enter(&self, user: &UserName, id: &ConversationId) -> Result<UserRecord, Refusal> {
        let entry = id.to_string();
        match self.store.user(user).await.map_err(unreadable)? {
            Some(record) if record.conversations.contains_key(&entry) => Ok(record),
            _ => self.store.change_user(user, UserChange::Enter(entry)).await,
        }
    }

    async fn known_user(&self, user: &UserName) -> Result<UserRecord, Refusal> {
        self.store.user(user).await.map_err(unreadable)?.ok_or_else(|| {
            let text = format!("Nobody named “{user}” was here yet.");
            Refusal::new(Code::NotFound, text)
        })
    }

    async fn known_conversation(&self, id: &ConversationId) -> Result<Conversation, Refusal> {
        self.store
            .conversation(id)
            .await
            .map_err(unreadable)?
            .ok_or_else(|| Refusal::new(Code::NotFound, "There is no such conversation."))
    }

    /// Returns a conversation that a user may read.
    async fn conversation_of(
        &self,
        user: &UserName,
        id: &ConversationId,
    ) -> Result<Conversation, Refusal> {
        let conversation = self.known_conversation(id).await?;
        if conversation.has_member(user) {
            Ok(conversation)
        } else if conversation.has_invited(user) {
            Err(Refusal::new(Code::Forbidden, "Join the group first."))
        } else {
            Err(Refusal::new(Code::Forbidden, NOT_YOURS))
        }
    }
}

/// Pushes a message to everybody who may read it.
fn push_message(deliveries: &Deliveries, message: &wire::Message) {
    let id = &message.conversation;
    let text = Push::Message { message }.to_json();
    match ConversationId::parse(id) {
        Some(ConversationId::Public) => deliveries.push(id, Delivery::Everybody(text)),
        Some(ConversationId::Direct(a, b)) => {
            for user in [a, b] {
                deliveries.push(id, Delivery::User(user.to_string(), text.clone()));
            }
        }
        Some(ConversationId::Group(_)) => {
            deliveries.push(id, Delivery::Group(id.clone(), text));
        }
        None => tracing::error!("a conversation has an impossible id"),
    }
}

/// Returns a conversation as `user` sees it, who read up to `read`.
fn view(conversation: &Conversation, user: &UserName, read: u64) -> wire::Conversation {
    let Conversation { id, title, members, invited, .. } = conversation;
    let parsed = ConversationId::parse(id);
    let (kind, title) = match &parsed {
        Some(ConversationId::Direct(..)) => {
            let other = parsed.as_ref().and_then(|id| id.other(user));
            ("direct", other.map_or_else(String::new, ToString::to_string))
        }
        Some(ConversationId::Group(_)) => ("group", title.clone()),
        Some(ConversationId::Public) | None => ("public", PUBLIC_TITLE.to_owned()),
    };
    wire::Conversation {
        id: id.clone(),
        kind,
        title,
        members: (kind != "public").then(|| members.clone()),
        invited: invited.clone(),
        state: if conversation.has_invited(user) { "invited" } else { "member" },
        last_seq: conversation.last_seq(),
        read_seq: read,
    }
}

/// Returns how far a user read: as they said, or as far as they wrote themselves.
fn mark(record: &UserRecord, conversation: &Conversation) -> u64 {
    let said = record.conversations.get(&conversation.id).copied().unwrap_or_default();
    said.max(conversation.last_sent(&record.name))
}

fn parse_id(text: &str) -> Result<ConversationId, Refusal> {
    ConversationId::parse(text)
        .ok_or_else(|| Refusal::new(Code::NotFound, "There is no such conversation."))
}

fn parse_message(
    user: &UserName,
    key: String,
    text: String,
    attachments: Vec<Attachment>,
    now: SystemTime,
) -> Result<store::Message, Refusal> {
    if key.is_empty() {
        return Err(Refusal::new(Code::Invalid, "A key cannot be empty."));
    }
    if KEY_CHARACTERS_MAX < key.chars().count() {
        let fault = format!("A key has at most {KEY_CHARACTERS_MAX} characters.");
        return Err(Refusal::new(Code::TooLarge, fault));
    }
    if text.trim().is_empty() && attachments.is_empty() {
        return Err(Refusal::new(Code::Invalid, "A message cannot be empty."));
    }
    if TEXT_CHARACTERS_MAX < text.chars().count() {
        let fault = format!("A message has at most {TEXT_CHARACTERS_MAX} characters.");
        return Err(Refusal::new(Code::TooLarge, fault));
    }
    let time = DateTime::<Utc>::from(now).to_rfc3339_opts(SecondsFormat::Millis, true);
    Ok(store::Message { user: user.to_string(), key, text, time, attachments })
}

fn unreadable(error: StoreError) -> Refusal {
    Refusal::unavailable(UNREADABLE, error)
}

const UNREADABLE: &str = "The chat could not read its storage. Try again.";
const NOT_YOURS: &str = "You are not a member of this conversation.";
const PUBLIC_TITLE: &str = "Public room";

/// Most characters (code points) of a message's text.
pub(crate) const TEXT_CHARACTERS_MAX: usize = 4_000;

/// Most characters (code points) of a message's key.
pub(crate) const KEY_CHARACTERS_MAX: usize = 64;

/// Messages of a page when the request does not say.
const PAGE_MESSAGES_DEFAULT: u64 = 50;

/// Most messages of a page. More is taken for this many.
const PAGE_MESSAGES_MAX: u64 = 100;

/// Documents that one request reads side by side.
const READS_AT_ONCE_MAX: usize = 16;

/// Longest wait for changes that are being stored at shutdown.
const STORE_TIME_MAX: Duration = Duration::from_secs(25);

/// Longest wait for pushes at shutdown.
const DELIVER_TIME_MAX: Duration = Duration::from_secs(5);
