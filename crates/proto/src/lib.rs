//! Wire formats and rules of one conversation, as pure code: no runtime, no socket, no clock, no randomness.
//!
//! Servers, clients, fuzzers and simulations share this crate. What one process tells another (frames, tokens, signatures,
//! templates, envelopes between shards and nodes) is defined here and nowhere else.

pub mod cloud_event;
pub mod connection;
pub mod connection_string;
pub mod data;
pub mod deflate;
pub mod envelope;
pub mod filter;
pub mod frame;
pub mod handler;
pub mod message;
pub mod name;
pub mod permission;
pub mod reconnection;
pub mod signature;
pub mod subprotocol;
pub mod template;
pub mod token;
pub mod tunnel;
