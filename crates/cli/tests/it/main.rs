//! The built command from outside.

#![expect(clippy::unwrap_used, reason = "a helper of a test fails by panicking, as the test does")]

mod bench;
mod deploy;
mod functions;
mod functions_host;
mod health;
mod tunnel;
