//! A conversation: who belongs to it and what was said.
//!
//! The document holds the members and the newest messages, its tail; older ones lie in segments (see `segment`). Messages are
//! numbered 1, 2, 3 … without holes. Everything here is decided without waiting: document in, document out.

use std::sync::Arc;

use object_store::ObjectStore;
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::attachment::Attachment;
use super::segment::{self, SEGMENT_MESSAGES};
use super::writer::{Applied, Document};
use super::{StoreError, digest};
use crate::name::{ConversationId, UserName};
use crate::refusal::{Code, Refusal};

/// What is stored of a conversation beside its segments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Conversation {
    pub(crate) id: String,
    /// Empty unless it is a group.
    pub(crate) title: String,
    /// In the order in which they came; empty for the public room, which has everybody.
    pub(crate) members: Vec<String>,
    pub(crate) invited: Vec<String>,
    /// So many messages are in segments, a multiple of [`SEGMENT_MESSAGES`]. The tail goes on from there.
    pub(crate) sealed: u64,
    pub(crate) tail: Vec<Message>,
}

/// One message as it is stored. Its sequence number follows from its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Message {
    pub(crate) user: String,
    /// Chosen by the sender: the same key of the same user is the same message.
    pub(crate) key: String,
    pub(crate) text: String,
    /// RFC 3339, UTC, milliseconds.
    pub(crate) time: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) attachments: Vec<Attachment>,
}

/// What may be done to a conversation.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Create { title: String, creator: UserName, invited: Vec<UserName> },
    Append(Message),
    Invite { by: UserName, user: UserName },
    Join(UserName),
    Leave(UserName),
}

/// What was done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// The message stands in the history with this number, now or since an earlier try.
    Stands(u64, Message),
    /// So does this one, but it lies in a segment.
    StandsSealed(u64),
    /// The members are now as in this conversation. Its tail is left out.
    Members(Box<Conversation>),
}

/// Who sent what: the keys of messages that lie in the newest segments.
#[derive(Debug, Default)]
pub(crate) struct Keys {
    /// Up to this many messages were looked at; all of them are sealed.
    seen: u64,
    /// One entry per segment, oldest first.
    segments: std::collections::VecDeque<(u64, Vec<(String, String)>)>,
}

impl Conversation {
    /// Returns the conversation of that id as it is before anybody stored it. Groups do not exist by themselves.
    pub(crate) fn unwritten(id: &ConversationId) -> Option<Self> {
        let members = match id {
            ConversationId::Public => Vec::new(),
            ConversationId::Direct(a, b) => vec![a.to_string(), b.to_string()],
            ConversationId::Group(_) => return None,
        };
        Some(Self {
            id: id.to_string(),
            title: String::new(),
            members,
            invited: Vec::new(),
            sealed: 0,
            tail: Vec::new(),
        })
    }

    /// Returns the number of the newest message; 0: there is none.
    pub(crate) fn last_seq(&self) -> u64 {
        self.sealed + self.tail.len() as u64
    }

    /// Returns whether a user may read and send.
    pub(crate) fn has_member(&self, user: &UserName) -> bool {
        self.is_public() || self.members.iter().any(|member| member == user.as_str())
    }

    pub(crate) fn has_invited(&self, user: &UserName) -> bool {
        self.invited.iter().any(|invited| invited == user.as_str())
    }

    /// Returns the number of the newest message in the tail that a user sent; 0: there is none.
    pub(crate) fn last_sent(&self, user: &str) -> u64 {
        let place = self.tail.iter().rposition(|message| message.user == user);
        place.map_or(0, |place| self.seq_at(place))
    }

    /// Returns the same conversation without its tail.
    pub(crate) fn without_tail(&self) -> Self {
        Self {
            id: self.id.clone(),
            title: self.title.clone(),
            members: self.members.clone(),
            invited: self.invited.clone(),
            sealed: self.last_seq(),
            tail: Vec::new(),
        }
    }

    fn is_public(&self) -> bool {
        self.id == "public"
    }

    fn is_group(&self) -> bool {
        self.id.starts_with("group~")
    }

    fn seq_at(&self, place: usize) -> u64 {
        self.sealed + 1 + place as u64
    }

    fn append(&mut self, keys: &Keys, message: &Message) -> Result<Applied<Answer>, Refusal> {
        if !self.is_public() && !self.members.contains(&message.user) {
            return Err(Refusal::new(Code::Forbidden, NOT_A_MEMBER));
        }
        let same = |known: &Message| known.key == message.key && known.user == message.user;
        if let Some(place) = self.tail.iter().rposition(same) {
            let answer = Answer::Stands(self.seq_at(place), self.tail[place].clone());
            return Ok(Applied::unchanged(answer));
        }
        if let Some(seq) = keys.find(&message.user, &message.key) {
            return Ok(Applied::unchanged(Answer::StandsSealed(seq)));
        }
        self.tail.push(message.clone());
        Ok(Applied::changed(Answer::Stands(self.last_seq(), message.clone())))
    }

    fn invite(&mut self, by: &UserName, user: &UserName) -> Result<Applied<Answer>, Refusal> {
        if !self.is_group() {
            return Err(Refusal::new(Code::Invalid, "Only groups have invitations."));
        }
        if !self.has_member(by) {
            return Err(Refusal::new(Code::Forbidden, NOT_A_MEMBER));
        }
        if self.has_member(user) || self.has_invited(user) {
            return Ok(Applied::unchanged(self.answer()));
        }
        if MEMBERS_MAX <= self.members.len() + self.invited.len() {
            return Err(Refusal::new(Code::Conflict, full()));
        }
        self.invited.push(user.to_string());
        Ok(Applied::changed(self.answer()))
    }

    fn join(&mut self, user: &UserName) -> Result<Applied<Answer>, Refusal> {
        if self.has_member(user) {
            return Ok(Applied::unchanged(self.answer()));
        }
        if !self.has_invited(user) {
            return Err(Refusal::new(Code::Forbidden, "You are not invited to this group."));
        }
        self.invited.retain(|invited| invited != user.as_str());
        self.members.push(user.to_string());
        Ok(Applied::changed(self.answer()))
    }

    fn leave(&mut self, user: &UserName) -> Result<Applied<Answer>, Refusal> {
        if !self.is_group() {
            return Err(Refusal::new(Code::Invalid, "Only groups can be left."));
        }
        if !self.has_member(user) && !self.has_invited(user) {
            return Err(Refusal::new(Code::Forbidden, NOT_A_MEMBER));
        }
        self.members.retain(|member| member != user.as_str());
        self.invited.retain(|invited| invited != user.as_str());
        Ok(Applied::changed(self.answer()))
    }

    fn answer(&self) -> Answer {
        Answer::Members(Box::new(self.without_tail()))
    }
}

impl Document for Conversation {
    type Change = Change;
    type Answer = Answer;
    type Memory = Keys;

    fn folder(name: &str) -> Path {
        conversation_folder(name).join("versions")
    }

    fn check(&self, name: &str) -> Result<(), &'static str> {
        if self.id != name {
            return Err("it is another conversation's");
        }
        if !self.sealed.is_multiple_of(SEGMENT_MESSAGES) {
            return Err("its segments are incomplete");
        }
        Ok(())
    }

    async fn prepare(
        &mut self,
        keys: &mut Keys,
        objects: &Arc<dyn ObjectStore>,
    ) -> Result<(), StoreError> {
        keys.catch_up(objects, &self.id, self.sealed).await?;
        let count = segment::places(SEGMENT_MESSAGES);
        while 2 * count <= self.tail.len() {
            // These messages are part of the chain, so whoever writes this segment writes the same.
            segment::write(objects, &self.id, self.sealed + 1, &self.tail[..count]).await?;
            keys.add(self.sealed + 1, &self.tail[..count]);
            self.tail.drain(..count);
            self.sealed += SEGMENT_MESSAGES;
        }
        Ok(())
    }

    fn apply(
        document: &mut Option<Self>,
        keys: &Keys,
        name: &str,
        change: &Change,
    ) -> Result<Applied<Answer>, Refusal> {
        if let Change::Create { title, creator, invited } = change {
            if document.is_some() {
                return Err(Refusal::new(Code::Conflict, "This conversation exists."));
            }
            let created = document.insert(Self {
                id: name.to_owned(),
                title: title.clone(),
                members: vec![creator.to_string()],
                invited: invited.iter().map(ToString::to_string).collect(),
                sealed: 0,
                tail: Vec::new(),
            });
            return Ok(Applied::changed(created.answer()));
        }
        if document.is_none() {
            *document = ConversationId::parse(name).as_ref().and_then(Self::unwritten);
        }
        let Some(conversation) = document else {
            return Err(Refusal::new(Code::NotFound, "There is no such conversation."));
        };
        match change {
            Change::Create { .. } => unreachable!("creation is handled above"),
            Change::Append(message) => conversation.append(keys, message),
            Change::Invite { by, user } => conversation.invite(by, user),
            Change::Join(user) => conversation.join(user),
            Change::Leave(user) => conversation.leave(user),
        }
    }
}

impl Keys {
    /// Reads the keys of segments that are not known yet, as far back as repeated messages are recognised.
    async fn catch_up(
        &mut self,
        objects: &Arc<dyn ObjectStore>,
        id: &str,
        sealed: u64,
    ) -> Result<(), StoreError> {
        let first = self.seen.max(sealed.saturating_sub(REPEATS_KNOWN_MIN));
        let first = first - first % SEGMENT_MESSAGES;
        for (from, messages) in segment::read_all(objects, id, first + 1, sealed).await? {
            self.add(from, &messages);
        }
        self.seen = self.seen.max(sealed);
        Ok(())
    }

    fn add(&mut self, from: u64, messages: &[Message]) {
        let keys = messages.iter().map(|message| (message.user.clone(), message.key.clone()));
        self.segments.push_back((from, keys.collect()));
        self.seen = from - 1 + messages.len() as u64;
        while self
            .segments
            .front()
            .is_some_and(|(from, _)| from + SEGMENT_MESSAGES + REPEATS_KNOWN_MIN <= self.seen)
        {
            self.segments.pop_front();
        }
    }

    fn find(&self, user: &str, key: &str) -> Option<u64> {
        self.segments.iter().rev().find_map(|(from, keys)| {
            let place = keys.iter().position(|known| known.1 == key && known.0 == user)?;
            Some(from + place as u64)
        })
    }
}

/// Returns where a conversation is kept.
pub(super) fn conversation_folder(id: &str) -> Path {
    Path::from("conversations").join(digest(id))
}

fn full() -> String {
    format!("A group has at most {MEMBERS_MAX} members and invitations.")
}

const NOT_A_MEMBER: &str = "You are not a member of this conversation.";

/// Most members of a group, invitations included. One more is refused.
pub(crate) const MEMBERS_MAX: usize = 100;

/// A repeated key is recognised if the first message with it is among at least so many of the newest.
pub(crate) const REPEATS_KNOWN_MIN: u64 = 1_000;
