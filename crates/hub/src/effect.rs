//! What a hub wants done.

use std::sync::Arc;

use bytes::Bytes;
use hookwire_proto::envelope::{Content, WireForm};
use hookwire_proto::frame::CloseCode;
use hookwire_proto::message::Message;
use hookwire_proto::name::{ConnectionId, HubName, UserId};
use hookwire_proto::template::EventName;

use crate::input::{ClientContext, Ticket};
use crate::set::{SetId, Slot};

/// Names a call to an upstream; unique per shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// What must be done, in order, before the next input is handled.
#[derive(Debug)]
pub enum Effect {
    /// Call the upstream. Answered by [`crate::Input::UpstreamReplied`], perhaps after [`crate::Input::UpstreamPassed`].
    Call(Call),
    /// Let the client in. From here on the connection exists; what is sent to it waits for its socket.
    Admit {
        /// The question that is answered.
        answer_to: Ticket,
        /// The connection's place.
        slot: Slot,
        /// The connection's id.
        id: ConnectionId,
        /// The chosen subprotocol, one of those offered.
        subprotocol: Option<String>,
    },
    /// Refuse the client's handshake.
    Refuse {
        /// The question that is answered.
        answer_to: Ticket,
        /// The HTTP status.
        status: u16,
        /// The type of the body.
        content_type: Option<String>,
        /// The body.
        body: Bytes,
    },
    /// Send to every member of a set that has this form (see [`crate::Hub::members`]).
    Deliver {
        /// The set.
        set: SetId,
        /// The form.
        form: WireForm,
        /// What to send.
        content: Arc<Content>,
    },
    /// Send to one connection.
    Send {
        /// The connection.
        slot: Slot,
        /// Its form.
        form: WireForm,
        /// What to send.
        content: Arc<Content>,
    },
    /// Close the socket of a connection that has just ended.
    Close {
        /// The connection.
        slot: Slot,
        /// The close code.
        code: CloseCode,
        /// The words in the close frame.
        reason: String,
    },
    /// Read no further messages from the connection: its upstream is behind.
    Pause {
        /// The connection.
        slot: Slot,
    },
    /// Read again.
    Resume {
        /// The connection.
        slot: Slot,
    },
    /// Answer a command.
    Answer {
        /// The question that is answered.
        answer_to: Ticket,
        /// The answer.
        answer: Answer,
    },
}

/// What a command comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// It is so, or it is done.
    Yes,
    /// It is not so, or what it concerned is not here.
    No,
    /// The connection is in as many groups as it may be.
    TooMany,
}

impl From<bool> for Answer {
    fn from(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

/// One event on its way to an upstream.
#[derive(Debug, Clone)]
pub struct Call {
    /// Comes back with the answer.
    pub id: CallId,
    /// The full URL, its parameters filled in.
    pub url: String,
    /// The hub of the connection.
    pub hub: HubName,
    /// The connection.
    pub connection: ConnectionId,
    /// Its user, once known.
    pub user: Option<UserId>,
    /// What every event of the connection repeats.
    pub context: ClientContext,
    /// What happened.
    pub event: Event,
}

/// What happened to a connection.
#[derive(Debug, Clone)]
pub enum Event {
    /// A client wants in.
    Connect {
        /// The subprotocols it offers.
        subprotocols: Vec<String>,
    },
    /// A client sent a message.
    Message(Message),
    /// A connection is over.
    Disconnect,
}

impl Event {
    /// Returns the event's name.
    pub const fn name(&self) -> EventName {
        match self {
            Self::Connect { .. } => EventName::Connect,
            Self::Message(_) => EventName::Message,
            Self::Disconnect => EventName::Disconnect,
        }
    }

    /// Returns the payload's length in bytes.
    pub fn payload_bytes(&self) -> usize {
        match self {
            Self::Message(message) => message.data.len(),
            Self::Connect { .. } | Self::Disconnect => 0,
        }
    }
}
