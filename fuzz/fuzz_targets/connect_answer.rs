//! See the check.
#![no_main]

#[path = "../checks/connect_answer.rs"]
mod connect_answer;

libfuzzer_sys::fuzz_target!(|input: &[u8]| connect_answer::check(input));
