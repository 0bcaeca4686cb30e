//! The calls of `Service` as bytes on a socket.

mod server;

mod calls;
mod failures;
