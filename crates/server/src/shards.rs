//! The handle by which the runtime reaches the shards of its node.

use std::net::TcpStream;

use bytes::Bytes;
use hookwire_hub::{Answer, Command, Connecting};
use hookwire_proto::envelope::Envelope;
use hookwire_proto::name::ConnectionId;

/// The shards of a node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shards {}

/// The answer to a client that wants in.
#[derive(Debug)]
pub enum Admission {
    /// The connection exists; its socket must follow by [`Shards::attach`] or be given up by [`Shards::abandon`].
    Admitted {
        /// The chosen subprotocol.
        subprotocol: Option<String>,
    },
    /// The handshake is refused.
    Refused {
        /// The HTTP status.
        status: u16,
        /// The type of the body.
        content_type: Option<String>,
        /// The body.
        body: Bytes,
    },
}

/// An inbox holds more than its limit; try again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the service is overloaded")]
pub struct Overloaded;

/// A question was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a shard did not answer in time")]
pub struct NoAnswer;

impl Shards {
    /// Puts the envelope into the inbox of every shard concerned; returns when it stands there.
    ///
    /// # Errors
    /// [`Overloaded`] while any inbox is over its limit.
    pub fn send(&self, envelope: Envelope) -> Result<(), Overloaded> {
        todo!("{envelope:?}")
    }

    /// Asks the shard of the connection concerned, or all shards; the answer is `Yes` if any shard says so.
    ///
    /// # Errors
    /// [`NoAnswer`] after [`ANSWER_TIME_MAX`].
    pub async fn ask(&self, command: Command) -> Result<Answer, NoAnswer> {
        todo!("{command:?}")
    }

    /// Returns an id on the least loaded shard.
    pub fn new_connection_id(&self) -> ConnectionId {
        todo!()
    }

    /// Brings a client before its hub, which may ask an upstream; waits for the verdict. Not cancel-safe: run it in a tracked task.
    ///
    /// # Errors
    /// [`NoAnswer`] when the node is shutting down.
    pub async fn connect(&self, connecting: Connecting) -> Result<Admission, NoAnswer> {
        todo!("{connecting:?}")
    }

    /// Hands the upgraded socket of an admitted connection to its shard, with the bytes already read from it.
    pub fn attach(&self, id: ConnectionId, socket: TcpStream, leftover: Bytes) {
        todo!("{id} {socket:?} {leftover:?}")
    }

    /// Says that an admitted connection will get no socket: its client left during the handshake.
    pub fn abandon(&self, id: ConnectionId) {
        todo!("{id}")
    }
}
