//! The room: one shard's part of every hub as a pure value.
//!
//! [`Hub::handle`] takes what happened and appends what must be done, in order. It never sees a socket, a clock or another
//! thread: the same inputs give the same effects, so a cluster can be simulated from a seed.
//!
//! Invariants:
//! - An admitted connection leaves by exactly one disconnect event (if an upstream wants it), after its earlier events.
//! - Events of one connection are handed out one after another: the next one when the edge says that the previous
//!   [passed](Input::UpstreamPassed).
//! - A set (hub, user, group) exists while it has a member; members and memberships mirror each other.

mod effect;
mod events;
mod hub;
mod input;
mod set;
mod stored;

pub use effect::{Answer, Call, CallId, Effect, Event};
pub use hub::{GROUPS_PER_CONNECTION_MAX, Hub, Settings};
pub use input::{
    ClientContext, Command, Connecting, Input, MembershipChange, Reply, Ticket, UnixMillis,
};
pub use set::{SetId, Slot};

pub use events::{WAITING_BYTES_MAX, WAITING_EVENTS_MAX};
