//! See the check.
#![no_main]

#[path = "../checks/tunnel.rs"]
mod tunnel;

libfuzzer_sys::fuzz_target!(|input: &[u8]| tunnel::check(input));
