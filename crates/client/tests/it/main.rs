//! The calls of `Service` and `ServiceClient` as bytes on a socket, and everything of Web PubSub against a real node.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails by panicking, as the test does")]

mod server;

mod calls;
mod failures;
mod live;
mod service_client;
