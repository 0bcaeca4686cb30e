//! The chat room over HTTP, with a recording service in place of Hookwire.

#![expect(clippy::unwrap_used, reason = "a test that meets something else has failed")]

mod attachments;
mod frames;
mod groups;
mod history;
mod http_surface;
mod people;
mod service;
mod web_pubsub;
