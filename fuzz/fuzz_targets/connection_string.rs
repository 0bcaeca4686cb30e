//! See the check.
#![no_main]

#[path = "../checks/connection_string.rs"]
mod connection_string;

libfuzzer_sys::fuzz_target!(|input: &[u8]| connection_string::check(input));
