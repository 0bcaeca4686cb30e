//! A node from outside: real sockets, a real upstream, a WebSocket client that is not ours.

mod bad_input;
mod handshake;
mod http;
mod node;
mod rest;
mod service;
mod upstream;
