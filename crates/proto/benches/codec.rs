//! Instruction counts of the frame codec: what one frame, one read, one mask takes.
//!
//! `cargo xtask counts` runs it, and compares.

#![expect(missing_docs, reason = "the macros make public items without documentation")]

use std::hint::black_box;

use bytes::Bytes;
use gungraun::prelude::*;
use hookwire_proto::connection::{Connection, Event, Incoming};
use hookwire_proto::deflate::{Compression, Deflate, Deflater, Inflation, Window};
use hookwire_proto::envelope::encode_message;
use hookwire_proto::frame::{Opcode, Role, apply_mask, encode, encode_compressed};
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

/// Items of a list in JSON, as an application may send them.
fn items(bytes: usize) -> String {
    let item = |at: usize| {
        let (price, left) = (at * 7_919 % 100_000, at * 31 % 1_000);
        format!(
            "{{\"id\":{at},\"name\":\"item {}\",\"price\":{price},\"left\":{left},\"isNew\":{}}},",
            at * at,
            at.is_multiple_of(3)
        )
    };
    let mut text: String = (0..bytes / 40).map(item).collect();
    text.truncate(bytes);
    text
}

fn how(level: u8) -> Deflate {
    Deflate { compression: Compression { level, min_bytes: 0 }, window: Window::FULL }
}

/// A compressor that has been used before, as a shard has it.
fn used(level: u8, bytes: usize) -> (Deflater, Deflate, String) {
    let (mut deflater, how, text) = (Deflater::default(), how(level), items(bytes));
    deflater.deflate(how, text.as_bytes()).expect("it shrinks");
    (deflater, how, text)
}

#[library_benchmark(setup = used)]
#[bench::of_2_kib_by_level_1(1, 2 * 1024)]
#[bench::of_2_kib_by_level_2(2, 2 * 1024)]
#[bench::of_2_kib_by_level_3(3, 2 * 1024)]
#[bench::of_2_kib_by_level_6(6, 2 * 1024)]
#[bench::of_64_kib_by_level_2(2, 64 * 1024)]
#[bench::of_64_kib_by_level_6(6, 64 * 1024)]
fn deflate(
    (mut deflater, how, text): (Deflater, Deflate, String),
) -> (Deflater, Option<Vec<u8>>, String) {
    let shorter = deflater.deflate(black_box(how), black_box(text.as_bytes()));
    black_box((deflater, shorter, text))
}

/// A connection, two compressed messages, and the state that the first one leaves for the second.
fn read_deflated(bytes: usize) -> (Connection, Vec<u8>, Inflation, Vec<Event>) {
    let payload = Deflater::default().deflate(how(6), items(bytes).as_bytes());
    let frame = encode_compressed(Opcode::Text, &payload.expect("it shrinks"), Some(MASK));
    let mut connection = Connection::with_incoming(Role::Server, Incoming::Deflated);
    let (mut inflation, mut events) = (Inflation::unbounded(), Vec::with_capacity(1));
    connection
        .handle_some(&mut frame.to_vec(), 1024 * 1024, &mut inflation, &mut events)
        .expect("the frame is well-formed");
    events.clear();
    (connection, frame.to_vec(), inflation, events)
}

#[library_benchmark(setup = read_deflated)]
#[bench::to_2_kib(2 * 1024)]
#[bench::to_64_kib(64 * 1024)]
fn inflate(
    (mut connection, mut input, mut inflation, mut events): (
        Connection,
        Vec<u8>,
        Inflation,
        Vec<Event>,
    ),
) -> (Connection, Vec<u8>, Inflation, Vec<Event>) {
    connection
        .handle_some(black_box(&mut input), 1024 * 1024, &mut inflation, &mut events)
        .expect("the frame is well-formed");
    black_box((connection, input, inflation, events))
}

library_benchmark_group!(name = codec, benchmarks = [decode, encode_text, mask, deflate, inflate]);
main!(library_benchmark_groups = codec);
