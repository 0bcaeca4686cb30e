//! What the world tells a hub.

use std::sync::Arc;

use bytes::Bytes;
use hookwire_proto::envelope::{Envelope, Target, WireForm};
use hookwire_proto::message::Message;
use hookwire_proto::name::{ConnectionId, GroupName, HubName, UserId};

use crate::effect::CallId;
use crate::hub::Settings;
use crate::set::Slot;

/// Milliseconds since 1970, for what must hold across restarts.
pub type UnixMillis = u64;

/// Names a question of the edge; comes back in the effect that answers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// Everything that can happen to a hub. Closed: a new input is a compile error at every `match`.
#[derive(Debug)]
pub enum Input {
    /// A client asks to be let in; answered by [`crate::Effect::Admit`] or [`crate::Effect::Refuse`].
    Connecting {
        /// Comes back in the answer.
        answer_to: Ticket,
        /// Who asks.
        connecting: Box<Connecting>,
    },
    /// A client sent a message.
    Request {
        /// The sender's connection.
        slot: Slot,
        /// The message.
        message: Message,
    },
    /// A connection is over because its client closed, its socket failed or the edge gave up on it. Its slot stays taken.
    Ended {
        /// The connection.
        slot: Slot,
    },
    /// The edge has forgotten the slot, which may be used again. Ends the connection if that has not happened.
    Released {
        /// The connection.
        slot: Slot,
    },
    /// A call is answered, or has failed for good.
    UpstreamReplied {
        /// Which call.
        call: CallId,
        /// The answer.
        reply: Reply,
    },
    /// A call has been sent long enough that the next event of its connection may follow; its answer may still come.
    UpstreamPassed {
        /// Which call.
        call: CallId,
    },
    /// A question or order of the REST API; answered by [`crate::Effect::Answer`].
    Command {
        /// Comes back in the answer.
        answer_to: Ticket,
        /// The question.
        command: Command,
    },
    /// Something for members of a hub, from anywhere.
    Remote(Envelope),
    /// New settings; events decided from now on use them.
    Settings(Arc<Settings>),
    /// The stored memberships as they were before the start; answers nothing.
    Restored(Vec<(HubName, UserId, GroupName, Option<UnixMillis>)>),
}

/// A client that has shown a valid token, or none, and waits for its handshake.
#[derive(Debug, Clone)]
pub struct Connecting {
    /// The id that the connection will have.
    pub id: ConnectionId,
    /// The hub it wants to enter.
    pub hub: HubName,
    /// The user that its token names.
    pub user: Option<UserId>,
    /// The subprotocols it offers, in its order.
    pub subprotocols: Vec<String>,
    /// How it wants its messages.
    pub form: WireForm,
    /// What every event repeats.
    pub context: ClientContext,
}

/// What the preview protocol repeats on every event of a connection, in one block of memory: the client's query, the claims of
/// its token and the chain of addresses it came through.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientContext(Arc<str>);

impl ClientContext {
    /// Joins the three parts. None of them can hold a line break (a URI cannot, a header value cannot); one that did is cut there.
    pub fn new(query: &str, claims: &str, forwarded_for: &str) -> Self {
        let line = |text: &str| text.lines().next().unwrap_or_default().to_owned();
        Self(format!("{}\n{}\n{}", line(query), line(claims), line(forwarded_for)).into())
    }

    /// Returns the raw query of the client's request, without `?`.
    pub fn query(&self) -> &str {
        self.part(0)
    }

    /// Returns the claims as `X-ASRS-User-Claims` carries them.
    pub fn claims(&self) -> &str {
        self.part(1)
    }

    /// Returns the client's address chain, comma-separated.
    pub fn forwarded_for(&self) -> &str {
        self.part(2)
    }

    fn part(&self, index: usize) -> &str {
        self.0.split('\n').nth(index).unwrap_or_default()
    }
}

/// What an upstream said to a call.
#[derive(Debug, Clone)]
pub enum Reply {
    /// A complete HTTP answer within the limits.
    Answered {
        /// The HTTP status.
        status: u16,
        /// The values of `Sec-WebSocket-Protocol`.
        subprotocols: Vec<String>,
        /// The value of `X-ASRS-User-Id`, if there is exactly one and it is UTF-8.
        user: Option<String>,
        /// The value of `Content-Type`.
        content_type: Option<String>,
        /// The body.
        body: Bytes,
    },
    /// No usable answer: unreachable, timed out, too large, malformed. The words are for the client's operator, not the client.
    Failed {
        /// What went wrong.
        reason: String,
    },
}

/// A question or order for the shard's part of a hub. Each is answered with whether it is so, or whether it found its connection.
#[derive(Debug, Clone)]
pub enum Command {
    /// Does the target have a live connection here?
    Exists {
        /// The hub.
        hub: HubName,
        /// Whom to look for.
        target: Target,
    },
    /// Adds a connection to a group.
    AddConnectionToGroup {
        /// The hub.
        hub: HubName,
        /// The connection.
        connection: ConnectionId,
        /// The group.
        group: GroupName,
    },
    /// Removes a connection from a group, as far as it was added as a connection.
    RemoveConnectionFromGroup {
        /// The hub.
        hub: HubName,
        /// The connection.
        connection: ConnectionId,
        /// The group.
        group: GroupName,
    },
    /// Closes a connection.
    CloseConnection {
        /// The hub.
        hub: HubName,
        /// The connection.
        connection: ConnectionId,
        /// Sent in the close frame.
        reason: String,
    },
    /// Does the user live in the group (stored membership)?
    UserInGroup {
        /// The hub.
        hub: HubName,
        /// The user.
        user: UserId,
        /// The group.
        group: GroupName,
    },
    /// A change of stored memberships, already stored.
    Membership {
        /// The hub.
        hub: HubName,
        /// The user.
        user: UserId,
        /// The change.
        change: MembershipChange,
    },
}

/// A change of the groups that a user lives in (preview protocol, "User–group membership").
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MembershipChange {
    /// Present and future connections of the user are members of the group, until `expires`.
    Add {
        /// The group.
        group: GroupName,
        /// When it ends by itself; `None`: never.
        expires: Option<UnixMillis>,
    },
    /// The user leaves the group.
    Remove {
        /// The group.
        group: GroupName,
    },
    /// The user leaves all groups.
    RemoveAll,
}
