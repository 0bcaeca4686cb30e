//! The subprotocols of Web PubSub by the public surface.

#![expect(clippy::unwrap_used, reason = "a test fails by it")]
#![expect(clippy::wildcard_enum_match_arm, reason = "whatever else comes is a failure")]
#![expect(clippy::unnecessary_wraps, reason = "expected values have the type of what is tested")]

mod corpus;
mod json_messages;
mod json_rules;
mod messages;
mod properties;
mod protobuf_messages;
mod protobuf_rules;
mod published;
