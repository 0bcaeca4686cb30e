//! The gateway: everything of Hookwire that touches the outside world.
//!
//! Shards own sockets; a tokio runtime beside them accepts, speaks HTTP, calls upstreams and stores. See `ARCHITECTURE.md`.

pub mod config;
mod metrics;
mod shard;
pub mod shards;
pub mod store;
mod upstream;
