//! See the check.
#![no_main]

#[path = "../checks/json_client.rs"]
mod json_client;

libfuzzer_sys::fuzz_target!(|input: &[u8]| json_client::check(input));
