//! Attachments of messages: bringing, keeping, showing them.

use std::time::SystemTime;

use axum::body::Body;
use axum::response::Response;

use super::{Chat, unreadable};
use crate::name::{ConversationId, UserName};
use crate::refusal::{Code, Refusal};
use crate::store::{self, Attachment, StoreError};
use crate::wire::{self, Answer};

impl Chat {
    /// Takes a file from whoever holds a ticket for it.
    pub(crate) async fn take_attachment(&self, ticket: &str, body: Body) -> Response {
        self.attachments.take(&self.store, ticket, body).await
    }

    /// Gives a file to whoever holds a link to it.
    pub(crate) async fn give_attachment(&self, ticket: &str) -> Response {
        self.attachments.give(&self.store, ticket).await
    }

    /// Lets a member bring a file for a conversation.
    pub(super) async fn attach(
        &self,
        user: &UserName,
        id: &ConversationId,
        name: String,
        size: u64,
        now: SystemTime,
    ) -> Result<Answer, Refusal> {
        self.conversation_of(user, id).await?;
        Ok(Answer::Upload { upload: self.attachments.invite(user, id, name, size, now)? })
    }

    /// Makes sure that attachments outlast the message that a member is about to write. Those of others are not kept: no message
    /// would ever name them.
    pub(super) async fn keep(
        &self,
        user: &UserName,
        id: &ConversationId,
        attachments: &[Attachment],
    ) -> Result<(), Refusal> {
        if attachments.is_empty() {
            return Ok(());
        }
        self.conversation_of(user, id).await?;
        self.store.keep_attachments(id, attachments).await.map_err(|error| {
            if let StoreError::Missing { .. } = error {
                return Refusal::new(Code::Invalid, "An attachment must be uploaded again.");
            }
            unreadable(error)
        })
    }

    pub(super) fn shown(
        &self,
        conversation: &str,
        seq: u64,
        message: store::Message,
    ) -> wire::Message {
        self.attachments.show(conversation, seq, message, SystemTime::now())
    }
}
