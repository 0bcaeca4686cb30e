//! What a client hears.

use std::sync::Arc;

use hookwire_proto::data::Metadata;
use hookwire_proto::name::GroupName;
use hookwire_proto::subprotocol::{DecodeError, GroupStateItem, StreamPart};

use super::error::{ClientError, ConnectError};
use crate::payload::Payload;

/// What happens to a client.
#[derive(Clone, Debug)]
pub enum ClientEvent {
    /// There is a connection, and it is a new one: the first, or one after [`ClientEvent::Disconnected`].
    Connected(Connected),
    /// The transport was lost and is back; the connection is the same and nothing was missed.
    Recovered,
    /// The connection is over; what was sent to it since is lost. Unless the client was stopped or is told not to, it connects anew.
    Disconnected {
        /// What the service said about it.
        reason: Option<String>,
    },
    /// Somebody sent to a group that the client is in.
    Group(GroupMessage),
    /// The application sent to this client, its user or everybody, or answered an event.
    Server(ServerMessage),
    /// The states of the members of a group that the client subscribed to.
    GroupState {
        /// All of them, or those that changed.
        is_snapshot: bool,
        /// The group.
        group: GroupName,
        /// The members; one without a state has none any more.
        items: Vec<GroupStateItem>,
    },
    /// A group could not be joined again on a new connection.
    RejoinFailed {
        /// The group.
        group: GroupName,
        /// Why.
        error: ClientError,
    },
    /// The service sent something that cannot be read. It is skipped.
    Unreadable(DecodeError),
    /// The client is at its end; nothing follows.
    Stopped(Stopped),
}

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connected {
    /// Its id.
    pub connection_id: String,
    /// Whose it is, if anybody's.
    pub user: Option<String>,
}

/// A message to a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupMessage {
    /// The group.
    pub group: GroupName,
    /// The user who sent it; nobody if the application did, or somebody without a name. Protobuf clients are not told.
    pub from: Option<String>,
    /// What was sent.
    pub payload: Payload,
    /// Pairs that travel with it.
    pub metadata: Metadata,
    /// Its place in a stream, if it belongs to one.
    pub stream: Option<StreamPart>,
    /// Its place among the messages of a reliable connection.
    pub sequence_id: Option<u64>,
}

/// A message of the application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerMessage {
    /// What was sent.
    pub payload: Payload,
    /// Pairs that travel with it.
    pub metadata: Metadata,
    /// Its place among the messages of a reliable connection.
    pub sequence_id: Option<u64>,
}

/// Why a client is at its end.
#[derive(Clone, Debug)]
pub enum Stopped {
    /// It was told to stop, or nobody holds it any more.
    ByRequest,
    /// Its connection is over and it was told not to connect anew.
    ConnectionOver,
    /// It cannot connect anew.
    CannotConnect(Arc<ConnectError>),
}
