//! Groups: made, joined by invitation, left. Hookwire delivers to a group of the same name.

use std::collections::BTreeMap;

use futures_util::{StreamExt, TryStreamExt, stream};

use super::{Chat, READS_AT_ONCE_MAX, mark, unreadable, view};
use crate::deliveries::Delivery;
use crate::name::{ConversationId, UserName, parse_title};
use crate::refusal::{Code, Refusal};
use crate::store::{Answer as Stored, Conversation, ConversationChange, MEMBERS_MAX, UserChange};
use crate::wire::{self, Answer, Push};

impl Chat {
    pub(super) async fn create(
        &self,
        user: &UserName,
        title: &str,
        members: &[String],
    ) -> Result<Answer, Refusal> {
        let title = parse_title(title)?;
        let invited = parse_members(user, members)?;
        // Everybody must exist before anything is made.
        stream::iter(std::iter::once(user).chain(&invited))
            .map(Ok)
            .try_for_each_concurrent(READS_AT_ONCE_MAX, |name| async move {
                self.known_user(name).await.map(drop)
            })
            .await?;
        let random = u128::from(self.random.next()) << 64 | u128::from(self.random.next());
        let id = ConversationId::Group(random);
        let id = &id;
        stream::iter(std::iter::once(user).chain(&invited))
            .map(Ok)
            .try_for_each_concurrent(READS_AT_ONCE_MAX, |name| async move {
                self.enter(name, id).await.map(drop)
            })
            .await?;
        self.add_to_group(id, user).await?;
        let change = ConversationChange::Create { title, creator: user.clone(), invited };
        self.change_members(user, id, change).await
    }

    pub(super) async fn invite(
        &self,
        user: &UserName,
        id: &ConversationId,
        invited: &UserName,
    ) -> Result<Answer, Refusal> {
        let conversation = self.conversation_of(user, id).await?;
        if !matches!(id, ConversationId::Group(_)) {
            return Err(Refusal::new(Code::Invalid, "Only groups have invitations."));
        }
        if !conversation.has_member(invited) && !conversation.has_invited(invited) {
            self.enter(invited, id).await?;
        }
        let change = ConversationChange::Invite { by: user.clone(), user: invited.clone() };
        let answer = self.change_members(user, id, change).await?;
        self.enter(invited, id).await?; // They may have been leaving, which forgets.
        Ok(answer)
    }

    pub(super) async fn join(
        &self,
        user: &UserName,
        id: &ConversationId,
    ) -> Result<Answer, Refusal> {
        if !matches!(id, ConversationId::Group(_)) {
            return Err(Refusal::new(Code::Invalid, "Only groups can be joined."));
        }
        let joined =
            self.store.change_conversation(id, ConversationChange::Join(user.clone())).await?;
        self.add_to_group(id, user).await?;
        let Stored::Members(conversation) = joined else {
            unreachable!("a change of members is answered by the members")
        };
        // What was said before does not count as unread.
        let read = UserChange::Read(id.to_string(), conversation.last_seq());
        self.store.change_user(user, read).await?;
        self.announce(user, &conversation).await
    }

    pub(super) async fn leave(
        &self,
        user: &UserName,
        id: &ConversationId,
    ) -> Result<Answer, Refusal> {
        let entry = id.to_string();
        let left =
            self.store.change_conversation(id, ConversationChange::Leave(user.clone())).await;
        let left = match left {
            Ok(Stored::Members(conversation)) => Some(conversation),
            Ok(Stored::Stands(..) | Stored::StandsSealed(_)) => {
                unreachable!("a change of members is answered by the members")
            }
            // An earlier try may have got half way: then the record still has the group.
            Err(refusal) if refusal.code == Code::Forbidden => {
                let record = self.store.user(user).await.map_err(unreadable)?;
                if !record.is_some_and(|record| record.conversations.contains_key(&entry)) {
                    return Err(refusal);
                }
                None
            }
            Err(refusal) => return Err(refusal),
        };
        self.remove_from_group(id, user).await?;
        self.store.change_user(user, UserChange::Forget(entry.clone())).await?;
        // They may have been invited again meanwhile, and even have joined: what was just removed belongs to that.
        let now = self.known_conversation(id).await?;
        if now.has_invited(user) || now.has_member(user) {
            self.enter(user, id).await?;
        }
        if now.has_member(user) {
            self.add_to_group(id, user).await?;
        }
        let push = Push::Left { conversation: &entry }.to_json();
        self.deliveries.push(&entry, Delivery::User(user.to_string(), push));
        if let Some(conversation) = left {
            self.announce_to_members(&conversation).await?;
        }
        Ok(Answer::Nothing {})
    }

    async fn change_members(
        &self,
        user: &UserName,
        id: &ConversationId,
        change: ConversationChange,
    ) -> Result<Answer, Refusal> {
        match self.store.change_conversation(id, change).await? {
            Stored::Members(conversation) => self.announce(user, &conversation).await,
            Stored::Stands(..) | Stored::StandsSealed(_) => {
                unreachable!("a change of members is answered by the members")
            }
        }
    }

    /// Tells everybody in a group what it is like now. Returns what `user` sees.
    async fn announce(
        &self,
        user: &UserName,
        conversation: &Conversation,
    ) -> Result<Answer, Refusal> {
        let mut views = self.announce_to_members(conversation).await?;
        let conversation = views.remove(user).unwrap_or_else(|| view(conversation, user, 0));
        Ok(Answer::Conversation { conversation })
    }

    async fn announce_to_members(
        &self,
        conversation: &Conversation,
    ) -> Result<BTreeMap<UserName, wire::Conversation>, Refusal> {
        let names: Vec<UserName> = conversation
            .members
            .iter()
            .chain(&conversation.invited)
            .filter_map(|name| UserName::parse(name).ok())
            .collect();
        let views: Vec<(UserName, wire::Conversation)> = stream::iter(names)
            .map(|name| async move {
                let record = self.store.user(&name).await?;
                let read = record.map_or(0, |record| mark(&record, conversation));
                let seen = view(conversation, &name, read);
                Ok((name, seen))
            })
            .buffered(READS_AT_ONCE_MAX)
            .try_collect()
            .await
            .map_err(unreadable)?;
        for (name, seen) in &views {
            let push = Push::Conversation { conversation: seen }.to_json();
            self.deliveries.push(&conversation.id, Delivery::User(name.to_string(), push));
        }
        Ok(views.into_iter().collect())
    }
}

fn parse_members(user: &UserName, members: &[String]) -> Result<Vec<UserName>, Refusal> {
    let too_many = || {
        let text = format!("A group has at most {MEMBERS_MAX} members and invitations.");
        Refusal::new(Code::TooLarge, text)
    };
    if MEMBERS_MAX < members.len() {
        return Err(too_many());
    }
    let mut invited: Vec<UserName> = Vec::with_capacity(members.len());
    for member in members {
        let name = UserName::parse(member)?;
        if name != *user && !invited.contains(&name) {
            invited.push(name);
        }
    }
    if MEMBERS_MAX < invited.len() + 1 { Err(too_many()) } else { Ok(invited) }
}
