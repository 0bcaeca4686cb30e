//! Long messages to a group, in pieces.

use std::time::Duration;

use hookwire_proto::data::Metadata;
use hookwire_proto::name::GroupName;
use hookwire_proto::subprotocol::{ClientMessage, StreamUserError};

use super::task::Command;
use super::{Client, ClientError, Reply};
use crate::payload::Payload;

/// A stream to a group. Dropping it without [`GroupStream::finish`] or [`GroupStream::fail`] leaves it to the service to end it, some
/// minutes later.
///
/// The pieces arrive in order, each once. Each call waits until the service has taken its piece; up to 64 may wait at once.
#[derive(Debug)]
pub struct GroupStream {
    client: Client,
    id: String,
    timeout: Duration,
}

impl GroupStream {
    /// Returns the name that its messages carry at the receivers.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Sends the next piece.
    ///
    /// # Errors
    /// [`ClientError::StreamOver`] after the service has ended it, [`ClientError::Lost`] with the connection, and as for every request.
    pub async fn send(&self, piece: impl Into<Payload>) -> Result<(), ClientError> {
        let (stream, payload, limit) = (self.id.clone(), piece.into(), self.timeout);
        let make = |reply_to| Command::SendPiece { stream, payload, limit, reply_to };
        self.client.command(make).await.map(drop)
    }

    /// Ends the stream after its last piece.
    ///
    /// # Errors
    /// As of [`GroupStream::send`].
    pub async fn finish(self) -> Result<(), ClientError> {
        self.end(None).await
    }

    /// Ends the stream and tells its receivers that it failed.
    ///
    /// # Errors
    /// As of [`GroupStream::send`].
    pub async fn fail(
        self,
        message: impl Into<String>,
        code: Option<&str>,
    ) -> Result<(), ClientError> {
        let user_error_code = code.map(str::to_owned);
        self.end(Some(StreamUserError { message: Some(message.into()), user_error_code })).await
    }

    async fn end(self, error: Option<StreamUserError>) -> Result<(), ClientError> {
        let (stream, limit) = (self.id, self.timeout);
        let make = |reply_to| Command::EndStream { stream, error, limit, reply_to };
        self.client.command(make).await.map(drop)
    }
}

impl Client {
    /// Begins a stream to a group. It belongs to the present connection and survives the loss of its transport, not the loss of the
    /// connection.
    ///
    /// # Errors
    /// [`ClientError::NotConnected`] without a connection, [`ClientError::Refused`] without permission, and as for every request.
    pub async fn start_stream(
        &self,
        group: &str,
        no_echo: bool,
    ) -> Result<GroupStream, ClientError> {
        let start = ClientMessage::StartStream {
            group: GroupName::parse(group)?,
            stream_id: String::new(),
            idle_timeout_ms: None,
            no_echo,
            ttl_seconds: None,
            metadata: Metadata::default(),
        };
        let limit = self.timeout;
        let make = |reply_to| Command::StartStream { start, limit, reply_to };
        match self.command(make).await? {
            Reply::Stream(id) => Ok(GroupStream { client: self.clone(), id, timeout: limit }),
            Reply::Done { .. } | Reply::Answer(_) => Err(ClientError::Lost),
        }
    }
}
