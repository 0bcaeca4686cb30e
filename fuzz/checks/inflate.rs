//! Compressed messages as they come from a socket.

use hookwire_proto::connection::{Connection, Event, Incoming, ProtocolError};
use hookwire_proto::deflate::{INFLATER_BYTES, Inflation};
use hookwire_proto::frame::Role;

/// Bytes of a message, at most: small, so that inputs beyond it are short.
const MESSAGE_BYTES_MAX: usize = 40_000;

/// What a step that has begun may inflate beyond its budget: one step, and what a length of the last code stands for.
const BEYOND_BUDGET_BYTES: usize = 20_000;

/// Reads `input` in pieces of `piece` bytes, each as often as the budget demands; checks the bounds after each time.
fn read(
    incoming: Incoming,
    input: &[u8],
    piece: usize,
    budget: usize,
) -> (Vec<Event>, Result<(), ProtocolError>) {
    let mut connection = Connection::with_incoming(Role::Client, incoming);
    let (mut events, mut inflation) = (Vec::new(), Inflation::default());
    let mut input = input.to_vec();
    let mut rest = &mut input[..];
    while !rest.is_empty() {
        let length = piece.min(rest.len());
        let (_, before) = inflation.totals();
        inflation.budget = budget;
        let piece = &mut rest[..length];
        let result = connection.handle_some(piece, MESSAGE_BYTES_MAX, &mut inflation, &mut events);
        let inflated = inflation.totals().1 - before;
        assert!(inflated <= budget.saturating_add(BEYOND_BUDGET_BYTES) as u64);
        // A vector may hold twice what it needs; a control frame and a header come beside it.
        let most = 2 * MESSAGE_BYTES_MAX + INFLATER_BYTES + 2_048;
        assert!(connection.held_bytes() <= most);
        match result {
            Ok(used) => rest = &mut rest[used..],
            Err(error) => {
                assert_eq!(connection.held_bytes(), 0, "nothing is held after the end");
                return (events, Err(error));
            }
        }
    }
    (events, Ok(()))
}

/// The first byte of `input` says whether messages may refer to earlier ones and how the rest is cut into pieces, the second one how much
/// is inflated at once. However it is cut, the same is understood.
pub(crate) fn check(input: &[u8]) {
    let [first, second, input @ ..] = input else { return };
    let incoming = if first & 1 == 0 { Incoming::Deflated } else { Incoming::DeflatedInContext };
    let piece = usize::from(first >> 1) % 50 + 1;
    let budget = usize::from(*second) * 20 + 1;
    let (events, result) = read(incoming, input, input.len().max(1), usize::MAX);
    let (events_in_pieces, result_in_pieces) = read(incoming, input, piece, budget);
    assert_eq!(events, events_in_pieces);
    // Which of two faults is seen first depends on how much is looked at.
    assert_eq!(result.is_err(), result_in_pieces.is_err());
    for event in &events {
        if let Event::Message(message) = event {
            assert!(message.data.len() <= MESSAGE_BYTES_MAX);
        }
    }
}
