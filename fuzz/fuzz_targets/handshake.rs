//! The check stands where it can see the parser.
#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| hookwire_server::fuzzing::handshake(input));
