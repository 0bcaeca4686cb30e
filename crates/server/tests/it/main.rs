//! A node from outside: real sockets, a real upstream, a WebSocket client that is not ours.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails by panicking, as the test does")]

mod admin;
mod bad_input;
mod check;
mod cloud_events;
mod compression;
mod console;
mod crowds;
mod data_plane;
mod events;
mod handshake;
mod http;
mod hub_settings;
mod node;
mod oidc;
mod order;
mod reload;
mod rest;
mod service;
mod shutdown;
mod tls;
mod tunnel;
mod upstream;
