//! The gateway: everything of Hookwire that touches the outside world.
//!
//! Shards own sockets; a tokio runtime beside them accepts, speaks HTTP, calls upstreams and stores. See `ARCHITECTURE.md`.

mod api_error;
mod auth;
pub mod bare_http;
mod body;
mod changes;
pub mod check;
pub mod config;
mod console;
mod event_log;
pub mod file_watch;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod handshake;
mod health;
mod http;
mod manage;
mod metrics;
pub mod node;
mod refusals;
pub mod reload;
mod rest;
mod route;
mod settings;
mod shard;
pub mod shards;
pub mod store;
mod swap;
mod time;
pub mod tls;
mod tunnel;
mod upstream;
