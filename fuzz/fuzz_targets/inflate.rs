//! See the check.
#![no_main]

#[path = "../checks/inflate.rs"]
mod inflate;

libfuzzer_sys::fuzz_target!(|input: &[u8]| inflate::check(input));
