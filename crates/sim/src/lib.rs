//! A world of shards, clients and upstreams in memory, and a reference model of what must come of it.
//!
//! [`World`] drives real [`hookwire_hub::Hub`] values by seed or script, in any order of delivery that the promises allow. [`Model`] knows the
//! rules in their simplest form. Tests compare the two. [`Recovery`] does the same for reliable clients and broken transports.

mod model;
mod recovery;
mod world;

pub use model::Model;
pub use recovery::{Act, RETENTION_MS, RETENTION_WITHOUT_STATUS_MS, Recovery, UNACKNOWLEDGED_MAX};
pub use world::{Received, Receiver, Step, World};
