//! The room: one shard's part of every hub as a pure value.
//!
//! [`Hub::handle`] takes what happened and appends what must be done, in order. It never sees a socket, a clock or another
//! thread: the same inputs give the same effects, so a cluster can be simulated from a seed.
//!
//! Invariants:
//! - An admitted connection leaves by exactly one last event (if an upstream wants it), after its earlier events.
//! - Events of one connection are handed out one after another: the next one when the edge says that the previous
//!   [passed](Input::UpstreamPassed).
//! - A set (hub, user, group) exists while it has a member; members and memberships mirror each other.
//! - A message to a reliable connection has the next sequence id, and stays until the client has acknowledged it.

mod acks;
mod effect;
mod events;
mod hub;
mod input;
mod reliable;
mod set;
mod stored;
mod web_pubsub;

pub use effect::{
    Answer, Call, CallId, ConnectionDetails, ConnectionSummary, Dialect, DoorDetails, Effect,
    Event, EventCopy, EventFacts, UserEvent,
};
pub use hub::{
    GROUP_STATE_BYTES_MAX, GROUPS_PER_CONNECTION_MAX, Hub, STREAMS_PER_CONNECTION_MAX, Settings,
};
pub use input::{
    ClientContext, Command, Connecting, DoorRequest, Ending, Input, MembershipChange, NameList,
    PermissionOrder, Recovering, Reply, SimpleMode, Ticket, UnixMillis, UpstreamAnswer,
    WebPubSubRequest,
};
pub use reliable::RecoverySettings;
pub use set::{SetId, Slot};

pub use events::{WAITING_BYTES_MAX, WAITING_EVENTS_MAX};
