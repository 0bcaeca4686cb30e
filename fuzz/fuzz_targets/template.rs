//! See the check.
#![no_main]

#[path = "../checks/template.rs"]
mod template;

libfuzzer_sys::fuzz_target!(|input: &[u8]| template::check(input));
