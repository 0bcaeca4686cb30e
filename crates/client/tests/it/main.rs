//! The calls of `Service` and `ServiceClient` as bytes on a socket.

mod server;

mod calls;
mod failures;
mod service_client;
