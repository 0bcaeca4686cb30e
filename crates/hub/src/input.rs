//! What the world tells a hub.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use hookwire_proto::cloud_event::ConnectRequest;
use hookwire_proto::deflate::Window;
use hookwire_proto::envelope::{Envelope, Shape, Target};
use hookwire_proto::filter::Filter;
use hookwire_proto::message::Message;
use hookwire_proto::name::{ConnectionId, GroupName, HubName, UserId};
use hookwire_proto::permission::Permission;
use hookwire_proto::subprotocol::ClientMessage;

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
    /// A client's request that [`crate::Effect::BeforeChange`] put off.
    Change {
        /// The sender's connection.
        slot: Slot,
        /// The request.
        request: Box<ClientMessage>,
    },
    /// A client asks for a connection back whose transport it has lost; answered by [`crate::Effect::Readmit`] or
    /// [`crate::Effect::NotRecovered`].
    Recovering {
        /// Comes back in the answer.
        answer_to: Ticket,
        /// Who asks.
        recovering: Box<Recovering>,
    },
    /// A connection is over because its client closed, its socket failed or the edge gave up on it. Its slot stays taken. A reliable
    /// connection may only have lost its transport by it.
    Ended {
        /// The connection.
        slot: Slot,
        /// How it came about.
        ending: Ending,
    },
    /// The edge has forgotten the slot, which may be used again unless the connection waits for its recovery. Ends the connection if
    /// that has not happened and it cannot be recovered.
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
    /// How far back compressed messages to it may refer; `None`: it wants none.
    pub deflate: Option<Window>,
    /// The door that it came to.
    pub door: DoorRequest,
}

/// What a client brings to its door.
#[derive(Debug, Clone)]
pub enum DoorRequest {
    /// The preview's client endpoints.
    Preview {
        /// How it wants its messages.
        shape: Shape,
        /// What every event repeats.
        context: ClientContext,
    },
    /// The client endpoints of Web PubSub.
    WebPubSub(Box<WebPubSubRequest>),
}

/// What a client brings to the client endpoints of Web PubSub.
#[derive(Debug, Clone)]
pub struct WebPubSubRequest {
    /// Whether it has shown a token; without one the hub must allow anonymous clients.
    pub has_token: bool,
    /// The roles of its token.
    pub roles: Vec<String>,
    /// The groups of its token.
    pub groups: Vec<GroupName>,
    /// What its messages do if it turns out to be a simple client.
    pub mode: SimpleMode,
    /// What the connect event says.
    pub request: Arc<ConnectRequest>,
}

/// What the messages of a simple client do (Web PubSub protocol, "Simple clients").
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum SimpleMode {
    /// Each is an event named `message`.
    #[default]
    SendEvent,
    /// Each is published to a group.
    SendToGroup {
        /// The group.
        group: GroupName,
        /// The sender does not get its own messages.
        no_echo: bool,
    },
}

/// A client that wants a connection back.
#[derive(Debug, Clone)]
pub struct Recovering {
    /// The connection.
    pub id: ConnectionId,
    /// Its hub.
    pub hub: HubName,
    /// The subprotocols it offers, in its order.
    pub subprotocols: Vec<String>,
    /// As in [`Connecting`], for its new socket.
    pub deflate: Option<Window>,
    /// What it was told when it connected.
    pub token: String,
}

/// How a connection comes to its end, or loses its transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    /// Its client sent a close frame, with this code if it named one.
    ClosedByClient(Option<u16>),
    /// It broke the protocol, or the service ends; it cannot come back. The words go into its last event.
    Final(Cow<'static, str>),
    /// It does not read or answer; it may come back if it is reliable. The words go into its last event.
    GivenUp(Cow<'static, str>),
}

/// What the preview protocol says of a client, most of it on every event of its connection, in one block of memory: its query, the
/// claims of its token, the chain of addresses it came through, and the thumbprint of the certificate it has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientContext(Arc<str>);

impl ClientContext {
    /// Joins the three parts. None of them can hold a line break (a URI cannot, a header value cannot); one that did is cut there.
    pub fn new(query: &str, claims: &str, forwarded_for: &str) -> Self {
        let line = |text: &str| text.lines().next().unwrap_or_default().to_owned();
        Self(format!("{}\n{}\n{}", line(query), line(claims), line(forwarded_for)).into())
    }

    /// Adds the thumbprint of a certificate; an empty one is none.
    #[must_use]
    pub fn with_thumbprint(self, thumbprint: &str) -> Self {
        if thumbprint.is_empty() { self } else { Self(format!("{}\n{thumbprint}", self.0).into()) }
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

    /// Returns the thumbprint of the client's certificate; empty without one.
    pub fn thumbprint(&self) -> &str {
        self.part(3)
    }

    fn part(&self, index: usize) -> &str {
        self.0.split('\n').nth(index).unwrap_or_default()
    }
}

/// What an upstream said to a call.
#[derive(Debug, Clone)]
pub enum Reply {
    /// A complete HTTP answer within the limits.
    Answered(Box<UpstreamAnswer>),
    /// No usable answer: unreachable, timed out, too large, malformed. The words are for the client's operator, not the client.
    Failed {
        /// What went wrong.
        reason: String,
    },
}

/// A complete HTTP answer of an upstream.
#[derive(Debug, Clone, Default)]
pub struct UpstreamAnswer {
    /// The HTTP status.
    pub status: u16,
    /// The values of `Sec-WebSocket-Protocol` (preview).
    pub subprotocols: Vec<String>,
    /// The value of `X-ASRS-User-Id`, if there is exactly one and it is UTF-8 (preview).
    pub user: Option<String>,
    /// The value of `ce-connectionState` (Web PubSub).
    pub state: Option<Arc<str>>,
    /// What `Set-Cookie` sets, as a `Cookie` header repeats it (Web PubSub).
    pub cookies: Option<Arc<str>>,
    /// The value of `Content-Type`.
    pub content_type: Option<String>,
    /// The body.
    pub body: Bytes,
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
    /// Removes a connection from all groups that it was added to as a connection.
    RemoveConnectionFromAllGroups {
        /// The hub.
        hub: HubName,
        /// The connection.
        connection: ConnectionId,
    },
    /// Adds the present connections of a user to a group, or removes them. Answered with whether there are any.
    RegroupUser {
        /// The hub.
        hub: HubName,
        /// The user.
        user: UserId,
        /// The group; `None`: all groups, which can only be left.
        group: Option<GroupName>,
        /// Add or remove.
        add: bool,
    },
    /// Adds the connections that a filter selects to groups, or removes them.
    Regroup {
        /// The hub.
        hub: HubName,
        /// The groups.
        groups: Arc<[GroupName]>,
        /// Whom it concerns; `None`: every connection of the hub.
        filter: Option<Arc<Filter>>,
        /// Add or remove.
        add: bool,
    },
    /// Closes a connection.
    CloseConnection {
        /// The hub.
        hub: HubName,
        /// The connection.
        connection: ConnectionId,
        /// Told to the client and to its upstream.
        reason: String,
    },
    /// Closes the connections of a target.
    CloseConnections {
        /// The hub.
        hub: HubName,
        /// Whom it concerns.
        target: Target,
        /// Connections that stay.
        excluded: Arc<[ConnectionId]>,
        /// Told to the clients and to their upstreams.
        reason: String,
    },
    /// Grants, revokes or checks a permission. Granting is answered with `No` when the connection is not here, with `TooMany` when it
    /// has as many rules as it may.
    Permission {
        /// The hub.
        hub: HubName,
        /// The connection.
        connection: ConnectionId,
        /// The permission.
        permission: Permission,
        /// The group it is for; `None`: all groups.
        group: Option<GroupName>,
        /// What to do.
        order: PermissionOrder,
    },
    /// Lists a target's connections by id.
    ListConnections {
        /// The hub.
        hub: HubName,
        /// Whose connections.
        target: Target,
        /// Only ids after this one.
        after: Option<ConnectionId>,
        /// At most so many.
        limit: usize,
    },
    /// Lists the names of hubs, or of a hub's users or groups, that have a connection.
    ListNames {
        /// What to list.
        list: NameList,
        /// Only names after this one.
        after: Option<String>,
        /// At most so many.
        limit: usize,
    },
    /// Tells all about a connection.
    Describe {
        /// The hub.
        hub: HubName,
        /// The connection.
        connection: ConnectionId,
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

impl Command {
    /// Returns the hub that it concerns; `None`: it asks for names, of hubs or in one.
    pub const fn hub(&self) -> Option<&HubName> {
        match self {
            Self::Exists { hub, .. }
            | Self::AddConnectionToGroup { hub, .. }
            | Self::RemoveConnectionFromGroup { hub, .. }
            | Self::RemoveConnectionFromAllGroups { hub, .. }
            | Self::RegroupUser { hub, .. }
            | Self::Regroup { hub, .. }
            | Self::CloseConnection { hub, .. }
            | Self::CloseConnections { hub, .. }
            | Self::Permission { hub, .. }
            | Self::ListConnections { hub, .. }
            | Self::Describe { hub, .. }
            | Self::UserInGroup { hub, .. }
            | Self::Membership { hub, .. } => Some(hub),
            Self::ListNames { .. } => None,
        }
    }
}

/// What to do with a permission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PermissionOrder {
    /// Give it.
    Grant,
    /// Take it away; beats roles that give it.
    Revoke,
    /// Say whether the connection has it.
    Check,
}

/// A list of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameList {
    /// The hubs.
    Hubs,
    /// The users of a hub.
    Users(HubName),
    /// The groups of a hub.
    Groups(HubName),
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
