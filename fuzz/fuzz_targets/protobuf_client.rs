//! See the check.
#![no_main]

#[path = "../checks/protobuf_client.rs"]
mod protobuf_client;

libfuzzer_sys::fuzz_target!(|input: &[u8]| protobuf_client::check(input));
