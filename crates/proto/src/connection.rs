//! One side of a WebSocket connection without its socket: bytes in, messages and control frames out (RFC 6455 §5.4–§5.6, §7).
//!
//! Nothing is held while no message is incomplete: an idle [`Connection`] owns no heap memory.

use bytes::Bytes;

use crate::deflate::{BadBlock, INFLATER_BYTES, Inflater, Inflation};
use crate::frame::{
    CONTROL_PAYLOAD_BYTES_MAX, CloseCode, CloseError, CloseFrame, HEADER_BYTES_MAX, Header,
    HeaderError, Opcode, Role, apply_mask,
};
use crate::message::{Message, MessageKind};

/// Events that [`Connection::handle_some`] returns at most.
pub const EVENTS_AT_ONCE: usize = 64;

/// What the peer did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A whole message; fragments are joined.
    Message(Message),
    /// A ping; its payload goes back in a pong.
    Ping(Bytes),
    /// A pong.
    Pong,
    /// The peer closes. Nothing follows it.
    Close(Option<CloseFrame>),
}

/// Why a connection must be failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// A frame header is forbidden.
    #[error(transparent)]
    Header(#[from] HeaderError),
    /// A close payload is forbidden.
    #[error(transparent)]
    Close(#[from] CloseError),
    /// A continuation without a message to continue (§5.4).
    #[error("a continuation frame continues nothing")]
    LoneContinuation,
    /// A new message inside an unfinished one (§5.4).
    #[error("a new message began inside another")]
    Interleaved,
    /// Text that is not UTF-8 (§8.1).
    #[error("a text message is not UTF-8")]
    NotUtf8,
    /// A compressed message that is not DEFLATE (RFC 7692 §7.2.2).
    #[error("a compressed message cannot be inflated")]
    NotDeflate,
    /// The message is larger than the receiver allows, inflated if it is compressed.
    #[error("the message exceeds {limit} bytes")]
    TooBig {
        /// The limit in bytes.
        limit: usize,
    },
}

impl ProtocolError {
    /// Returns the close code that tells the peer (RFC 6455 §7.4.1).
    pub const fn close_code(self) -> CloseCode {
        match self {
            Self::Header(_)
            | Self::LoneContinuation
            | Self::Interleaved
            | Self::Close(CloseError::OneByte | CloseError::Code(_)) => CloseCode::PROTOCOL_ERROR,
            Self::Close(CloseError::Reason) | Self::NotUtf8 | Self::NotDeflate => {
                CloseCode::INVALID_PAYLOAD
            }
            Self::TooBig { .. } => CloseCode::TOO_BIG,
        }
    }
}

impl From<BadBlock> for ProtocolError {
    fn from(_: BadBlock) -> Self {
        Self::NotDeflate
    }
}

/// What the sides have agreed on about messages that the peer sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Incoming {
    /// None is compressed.
    #[default]
    Plain,
    /// Some may be, each by itself.
    Deflated,
    /// Some may be, and refer to earlier ones: their state is kept between them.
    DeflatedInContext,
}

/// The receiving half of a WebSocket connection.
#[derive(Debug)]
pub struct Connection {
    role: Role,
    incoming: Incoming,
    /// After the peer's close or a fault nothing more is read.
    finished: bool,
    incomplete: Option<Box<Incomplete>>,
}

/// What was received of a message that is not whole yet.
#[derive(Debug, Default)]
struct Incomplete {
    header: Vec<u8>,
    frame: Option<Progress>,
    control: Vec<u8>,
    message: Option<Assembly>,
    /// The state of the compressed message in progress, or of those before with context takeover.
    inflater: Option<Inflater>,
}

/// A frame whose payload is still arriving.
#[derive(Debug, Clone, Copy)]
struct Progress {
    header: Header,
    received: usize,
}

/// The joined fragments of a message.
#[derive(Debug)]
struct Assembly {
    kind: MessageKind,
    data: Vec<u8>,
    /// Bytes of `data` known to be UTF-8 (text only).
    checked: usize,
    /// Bytes received of a compressed message.
    compressed_bytes: Option<u64>,
}

impl Connection {
    /// Returns a fresh connection after the handshake, seen from `role`.
    pub const fn new(role: Role) -> Self {
        Self::with_incoming(role, Incoming::Plain)
    }

    /// Returns a fresh connection whose sides have agreed on how messages to it may be compressed.
    pub const fn with_incoming(role: Role, incoming: Incoming) -> Self {
        Self { role, incoming, finished: false, incomplete: None }
    }

    /// Returns the heap bytes held for an incomplete message.
    pub fn held_bytes(&self) -> usize {
        self.incomplete.as_ref().map_or(0, |incomplete| {
            size_of::<Incomplete>()
                + incomplete.header.capacity()
                + incomplete.control.capacity()
                + incomplete.message.as_ref().map_or(0, |message| message.data.capacity())
                + incomplete.inflater.as_ref().map_or(0, |_| INFLATER_BYTES)
        })
    }

    /// Takes bytes as they came from the socket and appends what they complete to `events`. `input` is unmasked in place; the rest
    /// of an incomplete message is kept, growing only with what really arrived. After a close or an error everything is ignored.
    ///
    /// # Errors
    /// [`ProtocolError`]: the connection must be failed with [`ProtocolError::close_code`]. Events before the fault stand.
    pub fn handle_input(
        &mut self,
        mut input: &mut [u8],
        message_bytes_max: usize,
        events: &mut Vec<Event>,
    ) -> Result<(), ProtocolError> {
        let mut inflation = Inflation::unbounded();
        while !input.is_empty() {
            let used = self.handle_some(input, message_bytes_max, &mut inflation, events)?;
            input = &mut input[used..];
        }
        Ok(())
    }

    /// The same as [`Connection::handle_input`], but appends at most [`EVENTS_AT_ONCE`] events, and inflates as much as the budget of
    /// `inflation` allows, which must not be spent; returns the bytes taken. What is behind them stays as it came.
    ///
    /// # Errors
    /// Those of [`Connection::handle_input`].
    pub fn handle_some(
        &mut self,
        input: &mut [u8],
        message_bytes_max: usize,
        inflation: &mut Inflation,
        events: &mut Vec<Event>,
    ) -> Result<usize, ProtocolError> {
        let (mut used, events_max) = (0, events.len() + EVENTS_AT_ONCE);
        while used < input.len() && !self.finished && events.len() < events_max {
            if self.may_compress() && inflation.budget == 0 {
                return Ok(used);
            }
            match self.step(&mut input[used..], message_bytes_max, inflation, events) {
                Ok(taken) => used += taken,
                Err(error) => {
                    self.finished = true;
                    self.incomplete = None;
                    return Err(error);
                }
            }
        }
        Ok(if self.finished { input.len() } else { used })
    }

    /// Takes one frame, or as much of it as is there; returns the bytes used.
    fn step(
        &mut self,
        input: &mut [u8],
        message_bytes_max: usize,
        inflation: &mut Inflation,
        events: &mut Vec<Event>,
    ) -> Result<usize, ProtocolError> {
        let (mut progress, mut used) = match self.take_progress() {
            Some(progress) => (progress, 0),
            None => match self.header(input)? {
                (Some(header), used) => {
                    self.check(&header, message_bytes_max)?;
                    (Progress { header, received: 0 }, used)
                }
                (None, used) => return Ok(used),
            },
        };
        let payload_bytes = usize::try_from(progress.header.payload_bytes).unwrap_or(usize::MAX);
        let take = (payload_bytes - progress.received).min(input.len() - used);
        let chunk = &mut input[used..used + take];
        used += take;
        if let Some(mask) = progress.header.mask {
            apply_mask(chunk, mask, progress.received);
        }
        let before = progress.received;
        progress.received += take;
        let mut complete = progress.received == payload_bytes;
        if progress.header.opcode.is_control() {
            self.control(progress.header.opcode, chunk, complete, events)?;
        } else if self.incoming != Incoming::Plain && self.is_compressed(progress.header) {
            let last = complete && progress.header.fin;
            let room = message_bytes_max;
            let inflated = self.inflate(progress.header, chunk, last, room, inflation, events)?;
            if inflated < take {
                // The budget is spent: the rest is unmasked when it is its turn.
                used -= take - inflated;
                progress.received = before + inflated;
                complete = false;
                if let Some(mask) = progress.header.mask {
                    apply_mask(&mut chunk[inflated..], mask, progress.received);
                }
            }
        } else {
            self.data(progress.header, chunk, complete, events)?;
        }
        if complete {
            self.drop_if_empty();
        } else {
            self.incomplete.get_or_insert_default().frame = Some(progress);
        }
        Ok(used)
    }

    fn take_progress(&mut self) -> Option<Progress> {
        self.incomplete.as_mut().and_then(|incomplete| incomplete.frame.take())
    }

    /// Reads a header that may have begun in earlier input.
    fn header(&mut self, input: &[u8]) -> Result<(Option<Header>, usize), ProtocolError> {
        let before = self.incomplete.as_ref().map_or(0, |incomplete| incomplete.header.len());
        if before == 0 {
            if let Some((header, used)) = Header::parse(input, self.role, self.may_compress())? {
                return Ok((Some(header), used));
            }
            self.incomplete.get_or_insert_default().header.extend_from_slice(input);
            return Ok((None, input.len()));
        }
        let may_compress = self.may_compress();
        let buffer = &mut self.incomplete.get_or_insert_default().header;
        let more = input.len().min(HEADER_BYTES_MAX - before);
        buffer.extend_from_slice(&input[..more]);
        match Header::parse(buffer, self.role, may_compress)? {
            Some((header, header_bytes)) => {
                buffer.clear();
                Ok((Some(header), header_bytes - before))
            }
            None => Ok((None, more)),
        }
    }

    /// Checks a header against the message in progress and the size limit.
    fn check(&self, header: &Header, message_bytes_max: usize) -> Result<(), ProtocolError> {
        if header.opcode.is_control() {
            return Ok(());
        }
        let message = self.incomplete.as_ref().and_then(|incomplete| incomplete.message.as_ref());
        match (header.opcode, message) {
            (Opcode::Continuation, None) => return Err(ProtocolError::LoneContinuation),
            (Opcode::Text | Opcode::Binary, Some(_)) => return Err(ProtocolError::Interleaved),
            _ => {}
        }
        let compressed_bytes = message.and_then(|message| message.compressed_bytes);
        if header.compressed || compressed_bytes.is_some() {
            // What it becomes is bounded while it is inflated.
            let most = 2 * message_bytes_max as u64 + COMPRESSED_EXTRA_BYTES_MAX;
            let before = compressed_bytes.unwrap_or(0);
            if most.saturating_sub(before) < header.payload_bytes {
                return Err(ProtocolError::TooBig { limit: message_bytes_max });
            }
            return Ok(());
        }
        let before = message.map_or(0, |message| message.data.len());
        let room = (message_bytes_max - before.min(message_bytes_max)) as u64;
        if room < header.payload_bytes {
            return Err(ProtocolError::TooBig { limit: message_bytes_max });
        }
        Ok(())
    }

    fn control(
        &mut self,
        opcode: Opcode,
        chunk: &[u8],
        complete: bool,
        events: &mut Vec<Event>,
    ) -> Result<(), ProtocolError> {
        let held =
            self.incomplete.as_ref().is_some_and(|incomplete| !incomplete.control.is_empty());
        let mut joined = Vec::new();
        let payload = if complete && !held {
            chunk
        } else {
            let control = &mut self.incomplete.get_or_insert_default().control;
            control.extend_from_slice(chunk);
            if !complete {
                return Ok(());
            }
            joined.append(control);
            &joined
        };
        debug_assert!(
            payload.len() <= CONTROL_PAYLOAD_BYTES_MAX,
            "the header check bounds control payloads"
        );
        match opcode {
            Opcode::Ping => events.push(Event::Ping(Bytes::copy_from_slice(payload))),
            Opcode::Close => {
                events.push(Event::Close(CloseFrame::parse(payload)?));
                self.finished = true;
                self.incomplete = None;
            }
            Opcode::Pong | Opcode::Continuation | Opcode::Text | Opcode::Binary => {
                events.push(Event::Pong);
            }
        }
        Ok(())
    }

    const fn may_compress(&self) -> bool {
        !matches!(self.incoming, Incoming::Plain)
    }

    /// Whether a frame of a message belongs to a compressed one.
    fn is_compressed(&self, header: Header) -> bool {
        let message = self.incomplete.as_ref().and_then(|incomplete| incomplete.message.as_ref());
        header.compressed || message.is_some_and(|message| message.compressed_bytes.is_some())
    }

    /// Inflates a piece of a compressed message, `last` if it is the end. Returns how much of it the budget allowed.
    fn inflate(
        &mut self,
        header: Header,
        chunk: &[u8],
        last: bool,
        message_bytes_max: usize,
        inflation: &mut Inflation,
        events: &mut Vec<Event>,
    ) -> Result<usize, ProtocolError> {
        let incomplete = self.incomplete.get_or_insert_default();
        let message = incomplete.message.get_or_insert_with(|| Assembly {
            kind: kind(header.opcode),
            data: Vec::new(),
            checked: 0,
            compressed_bytes: Some(0),
        });
        let inflater = incomplete.inflater.get_or_insert_with(|| inflation.take());
        let used = inflater.inflate(chunk, &mut message.data, message_bytes_max, inflation)?;
        let is_over = last && used == chunk.len();
        if is_over {
            inflater.finish(&mut message.data, message_bytes_max, inflation)?;
        }
        let compressed_bytes = message.compressed_bytes.unwrap_or(0);
        message.compressed_bytes = Some(compressed_bytes + used as u64);
        if message_bytes_max < message.data.len() {
            return Err(ProtocolError::TooBig { limit: message_bytes_max });
        }
        if message.kind == MessageKind::Text {
            message.check_text(is_over)?;
        }
        if is_over {
            if let Some(Assembly { kind, mut data, .. }) = incomplete.message.take() {
                data.shrink_to_fit();
                events.push(Event::Message(Message { kind, data: Bytes::from(data) }));
            }
            if self.incoming == Incoming::Deflated
                && let Some(inflater) = incomplete.inflater.take()
            {
                inflation.give_back(inflater);
            }
        }
        Ok(used)
    }

    fn data(
        &mut self,
        header: Header,
        chunk: &[u8],
        complete: bool,
        events: &mut Vec<Event>,
    ) -> Result<(), ProtocolError> {
        let kind = kind(header.opcode);
        let held = self.incomplete.as_ref().is_some_and(|incomplete| incomplete.message.is_some());
        if !held && complete && header.fin {
            if kind == MessageKind::Text && simdutf8::basic::from_utf8(chunk).is_err() {
                return Err(ProtocolError::NotUtf8);
            }
            events.push(Event::Message(Message { kind, data: Bytes::copy_from_slice(chunk) }));
            return Ok(());
        }
        let incomplete = self.incomplete.get_or_insert_default();
        let message = incomplete.message.get_or_insert_with(|| Assembly {
            kind,
            data: Vec::new(),
            checked: 0,
            compressed_bytes: None,
        });
        message.data.extend_from_slice(chunk);
        let last = complete && header.fin;
        if message.kind == MessageKind::Text {
            message.check_text(last)?;
        }
        if last && let Some(Assembly { kind, data, .. }) = incomplete.message.take() {
            events.push(Event::Message(Message { kind, data: Bytes::from(data) }));
        }
        Ok(())
    }

    fn drop_if_empty(&mut self) {
        let empty = |incomplete: &Incomplete| {
            incomplete.frame.is_none()
                && incomplete.message.is_none()
                && incomplete.header.is_empty()
                && incomplete.control.is_empty()
                && incomplete.inflater.is_none()
        };
        if self.incomplete.as_deref().is_some_and(empty) {
            self.incomplete = None;
        }
    }
}

/// Bytes that a compressed message may take beyond twice what it may become: blocks that carry nothing are no way to send for ever.
const COMPRESSED_EXTRA_BYTES_MAX: u64 = 1_024;

/// What the first frame of a message says of it.
const fn kind(opcode: Opcode) -> MessageKind {
    match opcode {
        Opcode::Text => MessageKind::Text,
        Opcode::Binary | Opcode::Continuation | Opcode::Close | Opcode::Ping | Opcode::Pong => {
            MessageKind::Binary
        }
    }
}

impl Assembly {
    /// Fails at the first byte that no continuation can mend; a character cut at the end is fine unless it is the `last` piece.
    fn check_text(&mut self, last: bool) -> Result<(), ProtocolError> {
        match simdutf8::compat::from_utf8(&self.data[self.checked..]) {
            Ok(_) => self.checked = self.data.len(),
            Err(error) if error.error_len().is_none() && !last => {
                self.checked += error.valid_up_to();
            }
            Err(_) => return Err(ProtocolError::NotUtf8),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::encode;
    use proptest::prelude::*;

    const MASK: [u8; 4] = [0x12, 0x9A, 0xFF, 0x00];

    fn receive(pieces: &[&[u8]]) -> (Vec<Event>, Result<(), ProtocolError>, Connection) {
        let mut connection = Connection::new(Role::Server);
        let mut events = Vec::new();
        for piece in pieces {
            let result = connection.handle_input(&mut piece.to_vec(), 1_000, &mut events);
            if result.is_err() {
                return (events, result, connection);
            }
        }
        (events, Ok(()), connection)
    }

    fn fragment(fin: bool, opcode: Opcode, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        Header {
            fin,
            compressed: false,
            opcode,
            mask: Some(MASK),
            payload_bytes: payload.len() as u64,
        }
        .put(&mut out);
        let start = out.len();
        out.extend_from_slice(payload);
        apply_mask(&mut out[start..], MASK, 0);
        out
    }

    #[test]
    fn a_control_frame_between_fragments_comes_first() {
        let wire = [
            fragment(false, Opcode::Text, "gr".as_bytes()),
            fragment(true, Opcode::Ping, b"?"),
            fragment(false, Opcode::Continuation, &"ü".as_bytes()[..1]),
            fragment(true, Opcode::Continuation, b""),
        ]
        .concat();
        let (events, result, _) = receive(&[&wire]);
        assert_eq!(events, [Event::Ping(Bytes::from_static(b"?"))]);
        assert_eq!(
            result,
            Err(ProtocolError::NotUtf8),
            "the last fragment leaves half a character"
        );
    }

    #[test]
    fn bad_text_fails_before_the_message_is_whole() {
        let wire = fragment(false, Opcode::Text, b"ok\xF5");
        assert_eq!(receive(&[&wire]).1, Err(ProtocolError::NotUtf8));
        // Half a frame is enough.
        let wire = fragment(true, Opcode::Text, b"ok\xC0 and much more");
        assert_eq!(receive(&[&wire[..12]]).1, Err(ProtocolError::NotUtf8));
    }

    #[test]
    fn sizes_are_refused_at_the_header() {
        let wire = fragment(true, Opcode::Binary, &[0; 1_001]);
        assert_eq!(receive(&[&wire[..8]]).1, Err(ProtocolError::TooBig { limit: 1_000 }));
        let first = fragment(false, Opcode::Binary, &[0; 600]);
        let second = fragment(true, Opcode::Continuation, &[0; 401]);
        assert_eq!(receive(&[&first, &second]).1, Err(ProtocolError::TooBig { limit: 1_000 }));
        let second = fragment(true, Opcode::Continuation, &[0; 400]);
        assert_eq!(receive(&[&first, &second]).0.len(), 1);
    }

    #[test]
    fn fragments_out_of_order_are_refused() {
        let lone = fragment(true, Opcode::Continuation, b"x");
        assert_eq!(receive(&[&lone]).1, Err(ProtocolError::LoneContinuation));
        let inside =
            [fragment(false, Opcode::Text, b"a"), fragment(true, Opcode::Text, b"b")].concat();
        assert_eq!(receive(&[&inside]).1, Err(ProtocolError::Interleaved));
    }

    #[test]
    fn nothing_is_read_after_a_close() {
        let wire = [
            fragment(true, Opcode::Close, b""),
            fragment(true, Opcode::Text, b"late"),
            vec![0xFF; 9],
        ]
        .concat();
        let (events, result, connection) = receive(&[&wire]);
        assert_eq!((events, result), (vec![Event::Close(None)], Ok(())));
        assert_eq!(connection.held_bytes(), 0);
    }

    #[test]
    fn a_length_in_a_header_reserves_no_memory() {
        let mut connection = Connection::new(Role::Server);
        let mut wire = Vec::new();
        Header {
            fin: true,
            compressed: false,
            opcode: Opcode::Binary,
            mask: Some(MASK),
            payload_bytes: 1 << 30,
        }
        .put(&mut wire);
        wire.extend_from_slice(&[0; 10]);
        connection.handle_input(&mut wire, 1 << 30, &mut Vec::new()).unwrap();
        assert!(connection.held_bytes() < 1_000);
    }

    /// What a sender may do, for the property below.
    #[derive(Debug, Clone)]
    enum Sent {
        Message(Message, Vec<usize>),
        Ping(Vec<u8>),
    }

    fn sent() -> impl Strategy<Value = Sent> {
        let cuts = || proptest::collection::vec(0_usize..40, 0..4);
        prop_oneof![
            (".{0,60}", cuts()).prop_map(|(text, cuts)| Sent::Message(Message::text(text), cuts)),
            (proptest::collection::vec(any::<u8>(), 0..300), cuts())
                .prop_map(|(data, cuts)| Sent::Message(Message::binary(data.into()), cuts)),
            proptest::collection::vec(any::<u8>(), 0..=125).prop_map(Sent::Ping),
        ]
    }

    proptest! {
        #[test]
        fn what_is_sent_arrives_however_it_is_fragmented_and_cut(
            script in proptest::collection::vec(sent(), 0..12),
            pieces in proptest::collection::vec(1_usize..50, 1..40),
        ) {
            let (mut wire, mut expected) = (Vec::new(), Vec::new());
            for sent in script {
                match sent {
                    Sent::Ping(payload) => {
                        wire.extend(encode(Opcode::Ping, &payload, Some(MASK)));
                        expected.push(Event::Ping(payload.into()));
                    }
                    Sent::Message(message, cuts) => {
                        let mut rest = &message.data[..];
                        let mut opcode = message.kind.opcode();
                        for cut in cuts {
                            let (head, tail) = rest.split_at(cut.min(rest.len()));
                            wire.extend(fragment(false, opcode, head));
                            (rest, opcode) = (tail, Opcode::Continuation);
                        }
                        wire.extend(fragment(true, opcode, rest));
                        expected.push(Event::Message(message));
                    }
                }
            }
            let mut connection = Connection::new(Role::Server);
            let mut events = Vec::new();
            let mut lengths = pieces.iter().cycle();
            let mut rest = &mut wire[..];
            while !rest.is_empty() {
                let length = lengths.next().copied().unwrap_or(1).min(rest.len());
                let (piece, tail) = rest.split_at_mut(length);
                connection.handle_input(piece, 10_000, &mut events).unwrap();
                rest = tail;
            }
            prop_assert_eq!(events, expected);
            prop_assert_eq!(connection.held_bytes(), 0, "an idle connection holds nothing");
        }

        #[test]
        fn hostile_bytes_never_panic_and_hold_little(input: Vec<u8>) {
            let mut connection = Connection::new(Role::Server);
            let _ = connection.handle_input(&mut input.clone(), 1_000, &mut Vec::new());
            prop_assert!(connection.held_bytes() < 4_000);
        }
    }
}
