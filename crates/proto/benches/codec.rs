//! Instruction counts of the frame codec: what one frame, one read, one mask takes.
//!
//! `cargo bench -p hookwire-proto` runs it. It needs valgrind and the runner of the version in `Cargo.lock`:
//! `cargo install gungraun-runner --version 0.20.0 --locked`. Counts do not depend on the machine's load, but on the compiler and
//! the processor's features: compare only runs of one machine.

#![expect(missing_docs, reason = "the macros make public items without documentation")]

use std::hint::black_box;

use bytes::Bytes;
use gungraun::prelude::*;
use hookwire_proto::connection::{Connection, Event};
use hookwire_proto::envelope::encode_message;
use hookwire_proto::frame::{Opcode, Role, apply_mask, encode};
use hookwire_proto::message::MessageKind;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// Masked frames as one read finds them, and room for what they turn into.
fn read(frames: usize, payload_bytes: usize, opcode: Opcode) -> (Connection, Vec<u8>, Vec<Event>) {
    let frame = encode(opcode, &vec![b'x'; payload_bytes], Some(MASK));
    (Connection::new(Role::Server), frame.repeat(frames), Vec::with_capacity(frames))
}

#[library_benchmark(setup = read)]
#[bench::one_text_frame_of_128_bytes(1, 128, Opcode::Text)]
#[bench::one_binary_frame_of_128_bytes(1, 128, Opcode::Binary)]
#[bench::thirty_two_text_frames_of_128_bytes(32, 128, Opcode::Text)]
#[bench::one_text_frame_of_16_kib(1, 16 * 1024, Opcode::Text)]
fn decode(
    (mut connection, mut input, mut events): (Connection, Vec<u8>, Vec<Event>),
) -> (Connection, Vec<u8>, Vec<Event>) {
    connection
        .handle_input(black_box(&mut input), 1024 * 1024, &mut events)
        .expect("the frames are well-formed");
    // Returned, so that the counts hold no clean-up.
    black_box((connection, input, events))
}

fn payload(bytes: usize) -> Vec<u8> {
    vec![b'x'; bytes]
}

#[library_benchmark(setup = payload)]
#[bench::of_128_bytes(128)]
#[bench::of_64_kib(64 * 1024)]
fn encode_text(payload: Vec<u8>) -> (Vec<u8>, Bytes) {
    let frames = encode_message(MessageKind::Text, black_box(&payload));
    black_box((payload, frames))
}

#[library_benchmark(setup = payload)]
#[bench::of_128_bytes(128)]
#[bench::of_64_kib(64 * 1024)]
fn mask(mut payload: Vec<u8>) -> Vec<u8> {
    apply_mask(black_box(&mut payload), black_box(MASK), 0);
    black_box(payload)
}

library_benchmark_group!(name = codec, benchmarks = [decode, encode_text, mask]);
main!(library_benchmark_groups = codec);
