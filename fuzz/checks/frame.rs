//! Frames as they come from a socket.

use hookwire_proto::connection::{Connection, Event, ProtocolError};
use hookwire_proto::frame::Role;

/// Bytes of a message, at most: small, so that inputs beyond it are short.
const MESSAGE_BYTES_MAX: usize = 1_000;

/// Reads `input` in pieces of `piece` bytes; checks after each that no more is held than came.
fn read(role: Role, input: &[u8], piece: usize) -> (Vec<Event>, Result<(), ProtocolError>, usize) {
    let (mut connection, mut events) = (Connection::new(role), Vec::new());
    let mut input = input.to_vec();
    for piece in input.chunks_mut(piece) {
        let result = connection.handle_input(piece, MESSAGE_BYTES_MAX, &mut events);
        // A vector may hold twice what it needs, and a message comes beside a control frame and a header.
        assert!(connection.held_bytes() <= 2 * MESSAGE_BYTES_MAX + 1_024);
        if result.is_err() {
            return (events, result, connection.held_bytes());
        }
    }
    (events, Ok(()), connection.held_bytes())
}

/// The first byte of `input` says which side reads and how the rest is cut into pieces. However it is cut, the same is understood.
pub(crate) fn check(input: &[u8]) {
    let Some((first, input)) = input.split_first() else { return };
    let role = if first & 1 == 0 { Role::Server } else { Role::Client };
    let piece = usize::from(first >> 1) % 20 + 1;
    let (events, result, held) = read(role, input, input.len().max(1));
    let (events_in_pieces, result_in_pieces, _) = read(role, input, piece);
    assert_eq!((&events, result), (&events_in_pieces, result_in_pieces));
    for (index, event) in events.iter().enumerate() {
        match event {
            Event::Message(message) => {
                assert!(message.data.len() <= MESSAGE_BYTES_MAX);
            }
            Event::Ping(payload) => assert!(payload.len() <= 125),
            Event::Pong => {}
            Event::Close(_) => assert_eq!(index + 1, events.len(), "nothing follows a close"),
        }
    }
    if result.is_err() || matches!(events.last(), Some(Event::Close(_))) {
        assert_eq!(held, 0, "nothing is held after the end");
    }
}
