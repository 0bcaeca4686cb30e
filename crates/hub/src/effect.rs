//! What a hub wants done.

use std::sync::Arc;

use bytes::Bytes;
use hookwire_proto::cloud_event::ConnectRequest;
use hookwire_proto::data::{Data, Metadata};
use hookwire_proto::deflate::Deflate;
use hookwire_proto::envelope::{Content, Envelope, WireForm};
use hookwire_proto::frame::CloseCode;
use hookwire_proto::handler::{EventHandler, EventListener};
use hookwire_proto::message::Message;
use hookwire_proto::name::{ConnectionId, GroupName, HubName, UserId};
use hookwire_proto::permission::Permissions;
use hookwire_proto::subprotocol::ClientMessage;
use smallvec::SmallVec;

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
    /// Send a copy of an event to a listener. Never answered.
    Copy(Box<EventCopy>),
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
        /// What it has not taken is kept by the hub: a slow socket is no reason to close it.
        is_reliable: bool,
        /// Whether and how messages are compressed on its socket, which its client must be told.
        deflate: Option<Deflate>,
    },
    /// Give a connection that exists a new socket; one that it still has is thrown away first.
    Readmit {
        /// The question that is answered.
        answer_to: Ticket,
        /// The connection's place.
        slot: Slot,
        /// The connection's id.
        id: ConnectionId,
        /// The subprotocol, as before.
        subprotocol: String,
        /// As in [`Effect::Admit`]; it may differ from what it was on the socket before.
        deflate: Option<Deflate>,
    },
    /// The connection that a client wants back is not here: accept its handshake and close it with 1008.
    NotRecovered {
        /// The question that is answered.
        answer_to: Ticket,
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
        /// Why; absent: the upstream said no.
        words: Option<&'static str>,
    },
    /// Send to every member of a set that has this form (see [`crate::Hub::members`]), which is not a reliable one.
    Deliver {
        /// The set.
        set: SetId,
        /// The form.
        form: WireForm,
        /// Members that do not get it.
        except: SmallVec<[Slot; 2]>,
        /// What to send.
        content: Arc<Content>,
    },
    /// Send to these connections, which share a form that is not a reliable one.
    DeliverTo {
        /// The receivers.
        slots: Vec<Slot>,
        /// Their form.
        form: WireForm,
        /// What to send.
        content: Arc<Content>,
    },
    /// Send what reliable connections have not been sent yet (see [`crate::Hub::take_unsent`]).
    Sequenced {
        /// The receivers.
        slots: Vec<Slot>,
    },
    /// Send to one connection, whose form is not a reliable one.
    Send {
        /// The connection.
        slot: Slot,
        /// Its form.
        form: WireForm,
        /// What to send.
        content: Arc<Content>,
    },
    /// Tell one connection something that concerns it alone.
    Tell {
        /// The connection.
        slot: Slot,
        /// What to tell it.
        message: Message,
    },
    /// The members of a set are about to change: give what is on its way to a set to its present members, then hand the request back as
    /// [`crate::Input::Change`].
    BeforeChange {
        /// The sender's connection.
        slot: Slot,
        /// The request.
        request: Box<ClientMessage>,
    },
    /// Put the envelope into the inbox of every other shard.
    Forward(Envelope),
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
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It is so, or it is done.
    Yes,
    /// It is not so, or what it concerned is not here.
    No,
    /// The connection is in as many groups as it may be, or has as many permission rules.
    TooMany,
    /// Names in their order, at most as many as were asked for.
    Names(Vec<String>),
    /// Connections in the order of their ids, at most as many as were asked for.
    Connections(Vec<ConnectionSummary>),
    /// All about one connection.
    Connection(Box<ConnectionDetails>),
}

impl From<bool> for Answer {
    fn from(yes: bool) -> Self {
        if yes { Self::Yes } else { Self::No }
    }
}

/// A connection in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionSummary {
    /// Its id.
    pub id: ConnectionId,
    /// Its user.
    pub user: Option<UserId>,
}

/// What a hub knows about one connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionDetails {
    /// Its id.
    pub id: ConnectionId,
    /// Its user.
    pub user: Option<UserId>,
    /// Its groups, in the order of their names.
    pub groups: Vec<GroupName>,
    /// Its subprotocol.
    pub subprotocol: Option<String>,
    /// By which door it came.
    pub door: DoorDetails,
    /// Whether its transport is lost and it may come back.
    pub is_recovering: bool,
    /// Messages that it has not acknowledged; 0 unless it is reliable.
    pub unacknowledged_messages: usize,
    /// Events of it that wait for its upstream.
    pub waiting_events: usize,
}

/// What a hub knows about a connection after the door it came through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DoorDetails {
    /// That of the preview.
    Preview {
        /// The raw query of the client's request, without its token.
        query: String,
    },
    /// That of Web PubSub.
    WebPubSub {
        /// What the connection may do with groups.
        permissions: Permissions,
    },
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
    /// How the upstream is spoken to.
    pub dialect: Dialect,
    /// What happened.
    pub event: Event,
}

/// How an upstream is spoken to: as the connection's door demands.
#[derive(Debug, Clone)]
pub enum Dialect {
    /// The preview's headers, and what they repeat on every event.
    Preview(ClientContext),
    /// A `CloudEvents` event for a handler.
    WebPubSub {
        /// Who gets it.
        handler: Arc<EventHandler>,
        /// What its headers say of the connection.
        facts: Box<EventFacts>,
    },
}

/// What the headers of a `CloudEvents` event say, besides hub, connection and user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventFacts {
    /// `ce-id`: counts the events of the connection from 0.
    pub sequence: u64,
    /// `ce-subprotocol`.
    pub subprotocol: Option<Arc<str>>,
    /// `ce-connectionState`.
    pub state: Option<Arc<str>>,
    /// The value of `Cookie`.
    pub cookies: Option<Arc<str>>,
}

/// A copy of an event for a listener.
#[derive(Debug, Clone)]
pub struct EventCopy {
    /// Who gets it.
    pub listener: Arc<EventListener>,
    /// The hub of the connection.
    pub hub: HubName,
    /// The connection.
    pub connection: ConnectionId,
    /// Its user.
    pub user: Option<UserId>,
    /// What the headers say.
    pub facts: EventFacts,
    /// What happened.
    pub event: Event,
}

/// What happened to a connection. The first three are the preview's, the others those of Web PubSub.
#[derive(Debug, Clone)]
pub enum Event {
    /// A preview client wants in.
    Connect {
        /// The subprotocols it offers.
        subprotocols: Vec<String>,
    },
    /// A preview client sent a message.
    Message(Message),
    /// A preview connection is over.
    Disconnect,
    /// A client wants in (`connect`; blocking).
    Connecting(Arc<ConnectRequest>),
    /// A client is in (`connected`).
    Connected,
    /// A client raised an event (blocking).
    User(UserEvent),
    /// A connection is over (`disconnected`).
    Disconnected {
        /// Why.
        reason: String,
    },
    /// A connection has become a member of a group (`joined`).
    Joined(GroupName),
    /// A connection is no member of a group any more (`left`).
    Left(GroupName),
}

/// An event that a client raised.
#[derive(Debug, Clone)]
pub struct UserEvent {
    /// Its name.
    pub name: Arc<str>,
    /// What the client sent.
    pub data: Data,
    /// Pairs that travel with it.
    pub metadata: Metadata,
    /// An invocation is never repeated; other events may be, as long as no byte of an answer came.
    pub is_invocation: bool,
}

impl Event {
    /// Returns the event's name as an upstream knows it.
    pub fn name(&self) -> &str {
        match self {
            Self::Connect { .. } | Self::Connecting(_) => "connect",
            Self::Message(_) => "message",
            Self::Disconnect => "disconnect",
            Self::Connected => "connected",
            Self::User(user) => &user.name,
            Self::Disconnected { .. } => "disconnected",
            Self::Joined(_) => "joined",
            Self::Left(_) => "left",
        }
    }

    /// Returns the event's kind as metrics count it: few values, whatever clients call their events.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Connect { .. } | Self::Connecting(_) => "connect",
            Self::Message(_) => "message",
            Self::Disconnect => "disconnect",
            Self::Connected => "connected",
            Self::User(_) => "user",
            Self::Disconnected { .. } => "disconnected",
            Self::Joined(_) => "joined",
            Self::Left(_) => "left",
        }
    }

    /// Whether a client waits in its handshake for the answer.
    pub const fn is_connect(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Connecting(_))
    }

    /// Whether the connection is over with this event: no later one follows.
    pub const fn is_last(&self) -> bool {
        matches!(self, Self::Disconnect | Self::Disconnected { .. })
    }

    /// Returns the payload's length in bytes.
    pub fn payload_bytes(&self) -> usize {
        match self {
            Self::Message(message) => message.data.len(),
            Self::User(user) => user.data.bytes.len() + user.metadata.bytes(),
            Self::Connect { .. }
            | Self::Connecting(_)
            | Self::Disconnect
            | Self::Connected
            | Self::Disconnected { .. }
            | Self::Joined(_)
            | Self::Left(_) => 0,
        }
    }
}
