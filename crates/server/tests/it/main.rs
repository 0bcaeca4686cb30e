//! A node from outside: real sockets, a real upstream, a WebSocket client that is not ours.

mod bad_input;
mod node;
mod service;
mod upstream;
