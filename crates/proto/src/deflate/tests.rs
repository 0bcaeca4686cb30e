use bytes::Bytes;
use flate2::{Compress, FlushCompress};
use proptest::prelude::*;

use super::*;
use crate::connection::{Connection, Event, Incoming, ProtocolError};
use crate::envelope::{Content, FRAME_PAYLOAD_BYTES_MAX, SequencedFrames, Shape, WireForm};
use crate::frame::{CloseCode, Header, Opcode, Role, apply_mask, encode, encode_compressed};
use crate::message::{Message, MessageKind};
use crate::subprotocol::{Subprotocol, json, protobuf};

const MASK: [u8; 4] = [0x12, 0x9A, 0xFF, 0x00];

const LETTERS: &str = "abcdefghijklmnopqrstuvwxyz";

const ALWAYS: Compression = Compression { level: 6, min_bytes: 0 };

fn always(window: Window) -> Deflate {
    Deflate { compression: ALWAYS, window }
}

fn frame(fin: bool, compressed: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
    let payload_bytes = payload.len() as u64;
    let mut out = Vec::new();
    Header { fin, compressed, opcode, mask: Some(MASK), payload_bytes }.put(&mut out);
    let start = out.len();
    out.extend_from_slice(payload);
    apply_mask(&mut out[start..], MASK, 0);
    out
}

/// What a server makes of the bytes of a client, read at once.
fn receive(
    wire: &[u8],
    incoming: Incoming,
    most: usize,
) -> (Vec<Event>, Result<(), ProtocolError>) {
    let mut connection = Connection::with_incoming(Role::Server, incoming);
    let mut events = Vec::new();
    let result = connection.handle_input(&mut wire.to_vec(), most, &mut events);
    if result.is_err() {
        assert_eq!(connection.held_bytes(), 0);
    }
    (events, result)
}

fn text(text: &str) -> Event {
    Event::Message(Message::text(text))
}

#[test]
fn offers_are_taken_in_their_order_as_far_as_they_can_be_kept() {
    use Accepted::{Full, Small, Unbounded};
    for (header, accepted) in [
        ("", None),
        ("x-webkit-deflate-frame", None),
        ("permessage-deflate", Some(Unbounded)),
        ("foo; a=\"b\\c\", permessage-deflate ;client_max_window_bits", Some(Unbounded)),
        ("permessage-deflate; client_max_window_bits=8", Some(Unbounded)),
        (
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            Some(Unbounded),
        ),
        ("permessage-deflate; server_max_window_bits=15", Some(Full)),
        ("permessage-deflate; server_max_window_bits=\"15\"", Some(Full)),
        ("permessage-deflate; server_max_window_bits=9", Some(Small)),
        ("permessage-deflate; server_max_window_bits=14", Some(Small)),
        // Nothing compresses with 8: the next offer counts.
        ("permessage-deflate; server_max_window_bits=8", None),
        ("permessage-deflate; server_max_window_bits=8, permessage-deflate", Some(Unbounded)),
        // Offers that the RFC forbids.
        ("permessage-deflate; server_max_window_bits", None),
        ("permessage-deflate; server_max_window_bits=7", None),
        ("permessage-deflate; server_max_window_bits=16", None),
        ("permessage-deflate; server_max_window_bits=010", None),
        ("permessage-deflate; server_max_window_bits=+9", None),
        ("permessage-deflate; client_max_window_bits=16", None),
        ("permessage-deflate; client_no_context_takeover=1", None),
        ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", None),
        ("permessage-deflate; client_max_window_bits; client_max_window_bits=9", None),
        ("permessage-deflate; x", None),
        ("permessage-deflate; x, , permessage-deflate; server_max_window_bits=10,", Some(Small)),
    ] {
        assert_eq!(accept(header), Ok(accepted), "{header}");
    }
    let long = "a,".repeat(2_049);
    for header in
        ["a b", ";", "a;", "a; b=", "a; b=\"", "a; b=\"\"", "a; b=\"c d\"", "ä", "a=b", &long]
    {
        assert_eq!(accept(header), Err(Malformed), "{header}");
    }
}

#[test]
fn every_answer_is_one_to_an_offer() {
    for (answer, window) in [(Accepted::Unbounded, 15), (Accepted::Full, 15), (Accepted::Small, 9)]
    {
        let window_for_client = Some(Window::FULL);
        let agreed = Agreed { server_keeps_context: false, window: window_for_client };
        assert_eq!(agree(answer.header()), Ok(Some(agreed)));
        assert_eq!(answer.window().bits(), window);
    }
}

#[test]
fn a_client_keeps_to_what_the_server_takes_and_refuses_what_it_did_not_offer() {
    let agreed = |server_keeps_context, bits| {
        Ok(Some(Agreed { server_keeps_context, window: Window::from_bits(bits) }))
    };
    assert_eq!(agree(""), Ok(None));
    assert_eq!(agree("permessage-deflate"), agreed(true, 15));
    assert_eq!(agree("permessage-deflate; server_no_context_takeover"), agreed(false, 15));
    assert_eq!(
        agree("permessage-deflate; client_max_window_bits=10; server_max_window_bits=12"),
        agreed(true, 10)
    );
    // Nobody must compress, and nobody can with this window.
    assert_eq!(agree("permessage-deflate; client_max_window_bits=8"), agreed(true, 8));
    assert_eq!(agree("permessage-deflate; client_max_window_bits"), Err(Disagreement::Parameters));
    assert_eq!(agree("permessage-deflate; x"), Err(Disagreement::Parameters));
    assert_eq!(agree("permessage-deflate, permessage-deflate"), Err(Disagreement::Extension));
    assert_eq!(agree("foo"), Err(Disagreement::Extension));
    assert_eq!(agree("foo bar"), Err(Disagreement::Malformed(Malformed)));
}

#[test]
fn the_examples_of_the_rfc_are_understood() {
    // RFC 7692 §7.2.3.
    let one_block = b"\xf2\x48\xcd\xc9\xc9\x07\x00";
    let stored = b"\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00";
    let last_block = b"\xf3\x48\xcd\xc9\xc9\x07\x00\x00";
    let two_blocks = b"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00";
    for payload in [&one_block[..], stored, last_block, two_blocks] {
        let wire = frame(true, true, Opcode::Text, payload);
        for most in [5, 1_000] {
            assert_eq!(receive(&wire, Incoming::Deflated, most), (vec![text("Hello")], Ok(())));
        }
        let too_big = Err(ProtocolError::TooBig { limit: 4 });
        assert_eq!(receive(&wire, Incoming::Deflated, 4), (vec![], too_big));
        assert!(receive(&wire, Incoming::Plain, 1_000).1.is_err());
    }
    let fragments = [
        frame(false, true, Opcode::Text, &one_block[..3]),
        encode(Opcode::Ping, b"?", Some(MASK)).to_vec(),
        frame(true, false, Opcode::Continuation, &one_block[3..]),
        frame(true, true, Opcode::Text, b"\xf2\x00\x11\x00\x00"),
    ]
    .concat();
    // The second message refers to the first one.
    let ping = Event::Ping(Bytes::from_static(b"?"));
    let (events, result) = receive(&fragments, Incoming::DeflatedInContext, 5);
    assert_eq!((events, result), (vec![ping, text("Hello"), text("Hello")], Ok(())));
    let (events, result) = receive(&fragments, Incoming::Deflated, 5);
    assert_eq!((events.len(), result), (2, Err(ProtocolError::NotDeflate)));
    // An empty message, and one that is not compressed.
    let wire = [frame(true, true, Opcode::Text, b"\0"), frame(true, false, Opcode::Text, b"a")];
    let expected = (vec![text(""), text("a")], Ok(()));
    assert_eq!(receive(&wire.concat(), Incoming::Deflated, 5), expected);
}

#[test]
fn what_a_client_breaks_has_its_close_code() {
    let code = |wire: &[u8]| {
        let error = receive(wire, Incoming::Deflated, 1_000).1.expect_err("it is broken");
        error.close_code()
    };
    let reserved = CloseCode::INVALID_PAYLOAD;
    assert_eq!(code(&frame(true, true, Opcode::Binary, b"\x07")), reserved, "a reserved block");
    assert_eq!(code(&frame(true, true, Opcode::Binary, b"\x00\x05\x00\xff\xff")), reserved);
    let bad_text = [0x00, 0x01, 0x00, 0xFE, 0xFF, 0xC0];
    assert_eq!(code(&frame(false, true, Opcode::Text, &bad_text)), CloseCode::INVALID_PAYLOAD);
    assert_eq!(code(&frame(true, true, Opcode::Ping, b"")), CloseCode::PROTOCOL_ERROR);
    assert_eq!(code(&frame(true, true, Opcode::Continuation, b"")), CloseCode::PROTOCOL_ERROR);
    let inside =
        [frame(false, true, Opcode::Text, b""), frame(true, true, Opcode::Continuation, b"\0")];
    assert_eq!(code(&inside.concat()), CloseCode::PROTOCOL_ERROR);
    let inside = [frame(false, true, Opcode::Text, b""), frame(true, true, Opcode::Text, b"\0")];
    assert_eq!(code(&inside.concat()), CloseCode::PROTOCOL_ERROR, "a message inside another");
}

#[test]
fn a_bomb_takes_no_more_memory_than_a_message_may() {
    const MOST: usize = 1 << 20;
    let bomb = Deflater::default().deflate(always(Window::FULL), &vec![0; 64 << 20]).unwrap();
    let wire = frame(true, true, Opcode::Binary, &bomb);
    let mut connection = Connection::with_incoming(Role::Server, Incoming::Deflated);
    for piece in wire.chunks(500) {
        let result = connection.handle_input(&mut piece.to_vec(), MOST, &mut Vec::new());
        assert!(connection.held_bytes() <= 2 * MOST + INFLATER_BYTES + 1_024);
        if result.is_err() {
            assert_eq!(result, Err(ProtocolError::TooBig { limit: MOST }));
            return;
        }
    }
    panic!("the bomb went through");
}

#[test]
fn blocks_that_carry_nothing_are_no_way_to_send_for_ever() {
    let empty_blocks = [0x00, 0x00, 0x00, 0xFF, 0xFF].repeat(10);
    let mut wire = frame(false, true, Opcode::Binary, &empty_blocks);
    for _ in 0..100 {
        wire.extend(frame(false, false, Opcode::Continuation, &empty_blocks));
    }
    let too_big = Err(ProtocolError::TooBig { limit: 1_000 });
    assert_eq!(receive(&wire, Incoming::Deflated, 1_000), (vec![], too_big));
}

#[test]
fn work_is_bounded_by_the_budget_and_goes_on_where_it_stopped() {
    const BUDGET: usize = 10_000;
    let mut deflater = Deflater::default();
    let message = deflater.deflate(always(Window::FULL), &vec![b'x'; 100_000]).unwrap();
    let last_blocks = b"\x03\x00".repeat(200);
    let wire = [
        frame(true, true, Opcode::Text, &message),
        frame(true, true, Opcode::Binary, &last_blocks),
        frame(true, true, Opcode::Text, &message),
        frame(true, false, Opcode::Text, b"end"),
    ]
    .concat();
    let mut connection = Connection::with_incoming(Role::Server, Incoming::Deflated);
    let (mut inflation, mut events, mut calls) = (Inflation::default(), Vec::new(), 0);
    let mut input = wire;
    let mut rest = &mut input[..];
    while !rest.is_empty() {
        let (_, before) = inflation.totals();
        inflation.budget = BUDGET;
        let used = connection.handle_some(rest, 200_000, &mut inflation, &mut events).unwrap();
        let (_, after) = inflation.totals();
        assert!(after - before <= 3 * BUDGET as u64, "{}", after - before);
        rest = &mut rest[used..];
        calls += 1;
    }
    assert!((20..100).contains(&calls), "{calls}");
    let message = text(&"x".repeat(100_000));
    let nothing = Event::Message(Message::binary(Bytes::new()));
    assert_eq!(events, [message.clone(), nothing, message, text("end")]);
    assert_eq!(connection.held_bytes(), 0);
}

#[test]
fn every_form_of_a_message_arrives_compressed() {
    let mut deflater = Deflater::default();
    for length in [0, 1, 600, 30_000, 400_000] {
        let words: String = (0..length).map(|at: usize| &LETTERS[at * at % 23..][..1]).collect();
        for window in [Window::FULL, Window::SMALL] {
            let content = Content::new(Message::text(words.clone()));
            let deflate = Some(always(window));
            for shape in [
                Shape::AsSent,
                Shape::Binary,
                Shape::Subprotocol(Subprotocol::Json),
                Shape::Subprotocol(Subprotocol::Protobuf),
            ] {
                let frames = content.frames(WireForm { shape, deflate }, &mut deflater);
                let plain = content.frames(shape.into(), &mut deflater);
                assert_same(frames, plain, length);
                assert!(frames[0] & 0x40 != 0 || length < 600, "{shape:?} {length}");
            }
            for subprotocol in [Subprotocol::JsonReliable, Subprotocol::ProtobufReliable] {
                for id in [1, 300, u64::MAX] {
                    let [frames, plain] = [deflate, None].map(|deflate| {
                        let mut frames = SequencedFrames::default();
                        content.sequenced(subprotocol, id, deflate, &mut deflater, &mut frames);
                        let pair = frames.iter().next().map(|(head, tail)| [head, tail].concat());
                        pair.expect("there is one message")
                    });
                    assert_same(&frames, &plain, length);
                    let payload = if subprotocol.is_protobuf() {
                        protobuf::encode_publication(content.publication(), Some(id))
                    } else {
                        json::encode_publication(content.publication(), Some(id))
                    };
                    assert_eq!(inflated(&frames).data, payload);
                }
            }
        }
    }
    assert!(deflater.totals().1 < deflater.totals().0 / 2);
}

/// The message that a client makes of frames.
fn inflated(frames: &[u8]) -> Message {
    let mut events = Vec::new();
    let mut client = Connection::with_incoming(Role::Client, Incoming::Deflated);
    client.handle_input(&mut frames.to_vec(), 1 << 20, &mut events).unwrap();
    match events.as_slice() {
        [Event::Message(message)] => message.clone(),
        other => panic!("one message, not {other:?}"),
    }
}

fn assert_same(frames: &[u8], plain: &[u8], length: usize) {
    assert_eq!(inflated(frames), inflated(plain));
    assert!(frames.len() <= plain.len());
    if 600 <= length {
        assert!(frames.len() < plain.len() / 2, "{length}: {} of {}", frames.len(), plain.len());
    }
    assert!(frames.len() <= FRAME_PAYLOAD_BYTES_MAX + 20 || length == 400_000);
}

#[test]
fn what_is_short_or_does_not_shrink_goes_as_it_is() {
    let mut deflater = Deflater::default();
    let compression = Compression { level: 1, min_bytes: 500 };
    let form = WireForm {
        shape: Shape::AsSent,
        deflate: Some(Deflate { compression, window: Window::FULL }),
    };
    let marked = |message: Message, deflater: &mut Deflater| {
        Content::new(message).frames(form, deflater)[0] & 0x40 != 0
    };
    assert!(!marked(Message::text("x".repeat(499)), &mut deflater));
    assert_eq!(deflater.totals(), (0, 0));
    assert!(marked(Message::text("x".repeat(500)), &mut deflater));
    let (plain, after) = deflater.totals();
    assert!(!marked(Message::binary(noise(8_000).into()), &mut deflater));
    assert_eq!(deflater.totals(), (plain + 8_000, after + 8_000));
}

#[test]
fn a_small_window_is_kept_to() {
    // Noise that comes again after 800 bytes: whoever may look back 512 only finds nothing.
    let data = noise(800).repeat(20);
    let mut deflater = Deflater::default();
    let small = deflater.deflate(always(Window::SMALL), &data);
    assert!(small.is_none_or(|small| data.len() * 9 / 10 < small.len()));
    let full = deflater.deflate(always(Window::FULL), &data).expect("it shrinks");
    assert!(full.len() < data.len() / 8, "{} bytes", full.len());
}

/// Bytes that no compressor makes shorter.
fn noise(bytes: usize) -> Vec<u8> {
    let word = |at: u64| (at + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(29) ^ (at << 50);
    (0..)
        .flat_map(|at| (word(at).wrapping_mul(word(at + 7)) ^ word(at)).to_be_bytes())
        .take(bytes)
        .collect()
}

/// One message of a sender that flushes and cuts as it likes.
#[derive(Debug, Clone)]
struct Sent {
    kind: MessageKind,
    pieces: Vec<(Vec<u8>, bool)>,
    cuts: Vec<usize>,
    compressed: bool,
}

fn sent() -> impl Strategy<Value = Sent> {
    let piece = prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..300),
        (any::<u8>(), 0_usize..5_000).prop_map(|(byte, count)| vec![byte; count]),
    ];
    let texts = proptest::collection::vec(("[a-ü]{0,200}", any::<bool>()), 0..4);
    let binaries = proptest::collection::vec((piece, any::<bool>()), 0..4);
    let pieces = prop_oneof![
        texts.prop_map(|texts| {
            let bytes = |(text, flush): (String, bool)| (text.into_bytes(), flush);
            (MessageKind::Text, texts.into_iter().map(bytes).collect())
        }),
        binaries.prop_map(|pieces| (MessageKind::Binary, pieces)),
    ];
    (pieces, proptest::collection::vec(0_usize..100, 0..4), any::<bool>())
        .prop_map(|((kind, pieces), cuts, compressed)| Sent { kind, pieces, cuts, compressed })
}

/// Compresses the pieces one after the other, flushed where the sender wants it and at the end.
fn compress(state: &mut Compress, pieces: &[(Vec<u8>, bool)]) -> Vec<u8> {
    let mut out = Vec::with_capacity(100_000);
    for (piece, flush) in pieces {
        let flush = if *flush { FlushCompress::Sync } else { FlushCompress::None };
        state.compress_vec(piece, &mut out, flush).unwrap();
    }
    state.compress_vec(&[], &mut out, FlushCompress::Sync).unwrap();
    out.truncate(out.len() - if out.ends_with(&FLUSH) { FLUSH.len() } else { 0 });
    if out.is_empty() { vec![0] } else { out }
}

proptest! {
    #[test]
    fn what_is_sent_arrives_however_it_is_flushed_cut_and_read(
        script in proptest::collection::vec(sent(), 0..8),
        reads in proptest::collection::vec(1_usize..300, 1..20),
        budget in 1_usize..5_000,
        in_context: bool,
        level in 1_u32..9,
        bits in 9_u8..=15,
    ) {
        let incoming = if in_context { Incoming::DeflatedInContext } else { Incoming::Deflated };
        let mut state = Compress::new_with_window_bits(flate2::Compression::new(level), false, bits);
        let (mut wire, mut expected) = (Vec::new(), Vec::new());
        for Sent { kind, pieces, cuts, compressed } in script {
            let data = pieces.iter().map(|(piece, _)| piece.as_slice()).collect::<Vec<_>>().concat();
            if !in_context {
                state.reset();
            }
            let payload = if compressed { compress(&mut state, &pieces) } else { data.clone() };
            let (mut rest, mut opcode, mut marked) = (&payload[..], kind.opcode(), compressed);
            for cut in cuts {
                let (head, tail) = rest.split_at(cut.min(rest.len()));
                wire.extend(frame(false, marked, opcode, head));
                (rest, opcode, marked) = (tail, Opcode::Continuation, false);
            }
            wire.extend(frame(true, marked, opcode, rest));
            expected.push(Event::Message(Message { kind, data: data.into() }));
        }
        let mut connection = Connection::with_incoming(Role::Server, incoming);
        let (mut events, mut inflation) = (Vec::new(), Inflation::default());
        let (mut lengths, mut rest) = (reads.iter().cycle(), &mut wire[..]);
        while !rest.is_empty() {
            let length = (*lengths.next().unwrap()).min(rest.len());
            inflation.budget = budget;
            let piece = &mut rest[..length];
            let used = connection.handle_some(piece, 30_000, &mut inflation, &mut events).unwrap();
            rest = &mut rest[used..];
        }
        prop_assert_eq!(events, expected);
        let kept = if in_context { 1 << 20 } else { 0 };
        prop_assert!(connection.held_bytes() <= kept, "an idle connection holds nothing");
    }

    #[test]
    fn what_the_deflater_makes_of_anything_is_the_same_after_inflating(
        data in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..2_000),
            proptest::collection::vec(0_u8..3, 0..70_000),
        ],
        level in LEVEL_MIN..=LEVEL_MAX,
        bits in 9_u8..=15,
    ) {
        let how = Deflate {
            compression: Compression { level, min_bytes: 0 },
            window: Window::from_bits(bits).unwrap(),
        };
        let mut deflater = Deflater::default();
        for _ in 0..2 {
            if let Some(payload) = deflater.deflate(how, &data) {
                prop_assert!(payload.len() < data.len());
                let wire = encode_compressed(Opcode::Binary, &payload, Some(MASK));
                let expected = vec![Event::Message(Message::binary(data.clone().into()))];
                prop_assert_eq!(receive(&wire, Incoming::Deflated, 70_000), (expected, Ok(())));
            }
        }
    }

    #[test]
    fn hostile_blocks_never_panic_and_hold_little(payload: Vec<u8>, in_context: bool) {
        let incoming = if in_context { Incoming::DeflatedInContext } else { Incoming::Deflated };
        let mut connection = Connection::with_incoming(Role::Server, incoming);
        let mut wire = frame(true, true, Opcode::Binary, &payload);
        let _ = connection.handle_input(&mut wire, 1_000, &mut Vec::new());
        prop_assert!(connection.held_bytes() < 4_000 + INFLATER_BYTES);
    }
}
