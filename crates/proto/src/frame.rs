//! Frames of RFC 6455 §5: header, mask, close payload. No state, no I/O.
//!
//! [`crate::connection`] turns frames into messages; this module knows one frame at a time.

use bytes::{BufMut, Bytes, BytesMut};

/// Longest frame header: two bytes, a 64-bit length, a mask (RFC 6455 §5.2).
pub const HEADER_BYTES_MAX: usize = 14;

/// Longest payload of a control frame (RFC 6455 §5.5).
pub const CONTROL_PAYLOAD_BYTES_MAX: usize = 125;

/// Longest reason in a close frame: a control payload less the code (RFC 6455 §5.5.1).
pub const CLOSE_REASON_BYTES_MAX: usize = CONTROL_PAYLOAD_BYTES_MAX - 2;

/// The first reserved bit in a frame's first byte.
const COMPRESSED_BIT: u8 = 0x40;

/// What a frame is (RFC 6455 §11.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Opcode {
    /// A further fragment of the message begun before.
    Continuation,
    /// A text message, or its first fragment.
    Text,
    /// A binary message, or its first fragment.
    Binary,
    /// The closing handshake.
    Close,
    /// A liveness question.
    Ping,
    /// The answer to a ping.
    Pong,
}

impl Opcode {
    const fn from_bits(bits: u8) -> Option<Self> {
        Some(match bits {
            0x0 => Self::Continuation,
            0x1 => Self::Text,
            0x2 => Self::Binary,
            0x8 => Self::Close,
            0x9 => Self::Ping,
            0xA => Self::Pong,
            _ => return None,
        })
    }

    const fn bits(self) -> u8 {
        match self {
            Self::Continuation => 0x0,
            Self::Text => 0x1,
            Self::Binary => 0x2,
            Self::Close => 0x8,
            Self::Ping => 0x9,
            Self::Pong => 0xA,
        }
    }

    /// Returns whether frames of this kind may stand between the fragments of a message.
    pub const fn is_control(self) -> bool {
        matches!(self, Self::Close | Self::Ping | Self::Pong)
    }
}

/// Which side of a connection somebody is; decides who masks (RFC 6455 §5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Receives masked frames, sends bare ones.
    Server,
    /// Receives bare frames, sends masked ones.
    Client,
}

/// A parsed frame header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Whether this is the last fragment of its message.
    pub fin: bool,
    /// The first reserved bit: the message that begins here is compressed (RFC 7692 §6).
    pub compressed: bool,
    /// What the frame is.
    pub opcode: Opcode,
    /// The mask of the payload, if it is masked.
    pub mask: Option<[u8; 4]>,
    /// Bytes of payload that follow.
    pub payload_bytes: u64,
}

/// A frame that RFC 6455 forbids. The connection must be failed with 1002.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// A reserved bit is set that no negotiated extension uses, or not there (§5.2; RFC 7692 §6).
    #[error("a reserved bit is set")]
    ReservedBit,
    /// The opcode is not assigned (§5.2).
    #[error("opcode {0:#x} is not assigned")]
    UnknownOpcode(u8),
    /// A control frame is fragmented (§5.5).
    #[error("a control frame is fragmented")]
    FragmentedControl,
    /// A control frame carries more than 125 bytes (§5.5).
    #[error("a control frame carries {0} bytes")]
    LongControl(u64),
    /// A length is not in its shortest form, or uses the 64th bit (§5.2).
    #[error("the payload length is not in its shortest form")]
    LengthForm,
    /// A client's frame is bare or a server's is masked (§5.1).
    #[error("the frame's masking does not fit its sender")]
    Masking,
}

impl Header {
    /// Returns the header at the start of `input` and its length in bytes, or `None` when more bytes are needed.
    /// `receiver` is the side that reads: a server demands masks, a client refuses them. `may_compress`: whether the sides have agreed
    /// on permessage-deflate.
    ///
    /// # Errors
    /// [`HeaderError`] when the frame violates RFC 6455 §5. Faults of the first two bytes show before the rest is there.
    pub fn parse(
        input: &[u8],
        receiver: Role,
        may_compress: bool,
    ) -> Result<Option<(Self, usize)>, HeaderError> {
        let [first, second, rest @ ..] = input else { return Ok(None) };
        let reserved = first & 0x70;
        if reserved != 0 && !(may_compress && reserved == COMPRESSED_BIT) {
            return Err(HeaderError::ReservedBit);
        }
        let fin = first & 0x80 != 0;
        let bits = first & 0x0F;
        let opcode = Opcode::from_bits(bits).ok_or(HeaderError::UnknownOpcode(bits))?;
        let compressed = reserved != 0;
        if compressed && !matches!(opcode, Opcode::Text | Opcode::Binary) {
            return Err(HeaderError::ReservedBit);
        }
        let masked = second & 0x80 != 0;
        if masked != (receiver == Role::Server) {
            return Err(HeaderError::Masking);
        }
        let short = second & 0x7F;
        if opcode.is_control() {
            if !fin {
                return Err(HeaderError::FragmentedControl);
            }
            if 125 < short {
                return Err(HeaderError::LongControl(u64::from(short)));
            }
        }
        let (payload_bytes, length_bytes) = match short {
            126 => {
                let Some(bytes) = rest.first_chunk::<2>() else { return Ok(None) };
                let length = u64::from(u16::from_be_bytes(*bytes));
                if length < 126 {
                    return Err(HeaderError::LengthForm);
                }
                (length, 2)
            }
            127 => {
                let Some(bytes) = rest.first_chunk::<8>() else { return Ok(None) };
                let length = u64::from_be_bytes(*bytes);
                if u16::try_from(length).is_ok() || i64::try_from(length).is_err() {
                    return Err(HeaderError::LengthForm);
                }
                (length, 8)
            }
            short => (u64::from(short), 0),
        };
        let mask = if masked {
            let Some(mask) = rest[length_bytes..].first_chunk::<4>() else { return Ok(None) };
            Some(*mask)
        } else {
            None
        };
        let header_bytes = 2 + length_bytes + mask.map_or(0, |mask| mask.len());
        Ok(Some((Self { fin, compressed, opcode, mask, payload_bytes }, header_bytes)))
    }

    /// Whether the frame at the start of `input` begins a compressed message, as far as one byte tells.
    pub const fn is_compressed(input: &[u8]) -> bool {
        matches!(input, [first, ..] if *first & COMPRESSED_BIT != 0)
    }

    /// Appends the header to `out`.
    pub fn put(&self, out: &mut impl BufMut) {
        let compressed = if self.compressed { COMPRESSED_BIT } else { 0 };
        out.put_u8(u8::from(self.fin) << 7 | compressed | self.opcode.bits());
        let masked = u8::from(self.mask.is_some()) << 7;
        if let Ok(short @ ..126) = u8::try_from(self.payload_bytes) {
            out.put_u8(masked | short);
        } else if let Ok(length) = u16::try_from(self.payload_bytes) {
            out.put_u8(masked | 0x7E);
            out.put_u16(length);
        } else {
            out.put_u8(masked | 0x7F);
            out.put_u64(self.payload_bytes);
        }
        if let Some(mask) = self.mask {
            out.put_slice(&mask);
        }
    }
}

/// Applies `mask` to `payload`, whose first byte is byte `offset` of the frame's payload (RFC 6455 §5.3).
/// Masking twice gives the original.
pub fn apply_mask(payload: &mut [u8], mask: [u8; 4], offset: usize) {
    let mut mask = mask;
    mask.rotate_left(offset % 4);
    let [a, b, c, d] = mask;
    let wide = u64::from_ne_bytes([a, b, c, d, a, b, c, d]);
    let (chunks, tail) = payload.as_chunks_mut::<8>();
    for chunk in chunks {
        *chunk = (u64::from_ne_bytes(*chunk) ^ wide).to_ne_bytes();
    }
    for (byte, mask) in tail.iter_mut().zip(mask.iter().cycle()) {
        *byte ^= mask;
    }
}

/// Returns a whole, unfragmented frame. A client passes a fresh random `mask`, a server none.
pub fn encode(opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) -> Bytes {
    encode_frame(opcode, false, payload, mask)
}

/// Returns a whole message in one frame, whose payload is compressed already.
pub fn encode_compressed(opcode: Opcode, payload: &[u8], mask: Option<[u8; 4]>) -> Bytes {
    encode_frame(opcode, true, payload, mask)
}

fn encode_frame(opcode: Opcode, compressed: bool, payload: &[u8], mask: Option<[u8; 4]>) -> Bytes {
    let mut out = BytesMut::with_capacity(HEADER_BYTES_MAX + payload.len());
    let payload_bytes = payload.len() as u64;
    Header { fin: true, compressed, opcode, mask, payload_bytes }.put(&mut out);
    let start = out.len();
    out.extend_from_slice(payload);
    if let Some(mask) = mask {
        apply_mask(&mut out[start..], mask, 0);
    }
    out.freeze()
}

/// A status code of a close frame (RFC 6455 §7.4 and the IANA registry).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CloseCode(u16);

impl CloseCode {
    /// The purpose is fulfilled.
    pub const NORMAL: Self = Self(1000);
    /// The server goes down or the page is left.
    pub const GOING_AWAY: Self = Self(1001);
    /// The peer broke RFC 6455.
    pub const PROTOCOL_ERROR: Self = Self(1002);
    /// A message of a kind that is not accepted.
    pub const UNSUPPORTED: Self = Self(1003);
    /// A message whose content is not what its kind promises, such as text that is not UTF-8.
    pub const INVALID_PAYLOAD: Self = Self(1007);
    /// A policy forbids to go on, such as the bound for slow consumers.
    pub const POLICY: Self = Self(1008);
    /// A message is larger than the limit.
    pub const TOO_BIG: Self = Self(1009);
    /// An unexpected condition on the server.
    pub const INTERNAL: Self = Self(1011);

    /// Returns the code if it may stand in a close frame: 1000–1003, 1007–1014 or 3000–4999.
    pub const fn from_wire(code: u16) -> Option<Self> {
        match code {
            1000..=1003 | 1007..=1014 | 3000..=4999 => Some(Self(code)),
            _ => None,
        }
    }

    /// Returns the number.
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// The payload of a close frame that has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloseFrame {
    /// Why in a number.
    pub code: CloseCode,
    /// Why in words; at most [`CLOSE_REASON_BYTES_MAX`] bytes on the wire.
    pub reason: String,
}

/// A close payload that RFC 6455 forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CloseError {
    /// One byte, where a code takes two (§5.5.1).
    #[error("a close frame carries one byte")]
    OneByte,
    /// The code may not stand on the wire (§7.4).
    #[error("close code {0} may not be sent")]
    Code(u16),
    /// The reason is not UTF-8 (§5.5.1).
    #[error("the close reason is not UTF-8")]
    Reason,
}

impl CloseFrame {
    /// Returns what a close payload says: nothing, or a code with a reason.
    ///
    /// # Errors
    /// [`CloseError`] when RFC 6455 §5.5.1 or §7.4 forbids it.
    pub fn parse(payload: &[u8]) -> Result<Option<Self>, CloseError> {
        let [high, low, reason @ ..] = payload else {
            return if payload.is_empty() { Ok(None) } else { Err(CloseError::OneByte) };
        };
        let code = u16::from_be_bytes([*high, *low]);
        let code = CloseCode::from_wire(code).ok_or(CloseError::Code(code))?;
        let reason = std::str::from_utf8(reason).map_err(|_| CloseError::Reason)?;
        Ok(Some(Self { code, reason: reason.to_owned() }))
    }

    /// Returns the payload. A reason over [`CLOSE_REASON_BYTES_MAX`] is cut at a character boundary.
    pub fn to_payload(&self) -> Bytes {
        let end = self.reason.floor_char_boundary(CLOSE_REASON_BYTES_MAX);
        let mut out = BytesMut::with_capacity(2 + end);
        out.put_u16(self.code.0);
        out.extend_from_slice(&self.reason.as_bytes()[..end]);
        out.freeze()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_header_survives_the_wire_in_the_shortest_form_at_every_boundary() {
        for payload_bytes in
            [0, 1, 125, 126, 127, 65_535, 65_536, u64::from(u32::MAX), (1 << 63) - 1]
        {
            for mask in [None, Some([1, 2, 3, 4])] {
                let header = Header {
                    fin: true,
                    compressed: payload_bytes % 2 == 1,
                    opcode: Opcode::Binary,
                    mask,
                    payload_bytes,
                };
                let mut wire = Vec::new();
                header.put(&mut wire);
                let receiver = if mask.is_some() { Role::Server } else { Role::Client };
                assert_eq!(Header::parse(&wire, receiver, true), Ok(Some((header, wire.len()))));
                for end in 0..wire.len() {
                    assert_eq!(
                        Header::parse(&wire[..end], receiver, true),
                        Ok(None),
                        "{end} bytes are not a header"
                    );
                }
            }
        }
    }

    #[test]
    fn forbidden_headers_are_refused_with_their_reason() {
        let cases: [(&[u8], HeaderError); 9] = [
            (&[0xC1, 0x80], HeaderError::ReservedBit),
            (&[0x83, 0x80], HeaderError::UnknownOpcode(3)),
            (&[0x8B, 0x80], HeaderError::UnknownOpcode(0xB)),
            (&[0x09, 0x80], HeaderError::FragmentedControl),
            (&[0x88, 0xFE], HeaderError::LongControl(126)),
            (&[0x82, 0xFE, 0, 125], HeaderError::LengthForm),
            (&[0x82, 0xFF, 0, 0, 0, 0, 0, 0, 255, 255], HeaderError::LengthForm),
            (&[0x82, 0xFF, 0x80, 0, 0, 0, 0, 0, 0, 0], HeaderError::LengthForm),
            (&[0x82, 0x01], HeaderError::Masking),
        ];
        for (wire, error) in cases {
            assert_eq!(Header::parse(wire, Role::Server, false), Err(error), "{wire:x?}");
        }
        assert_eq!(Header::parse(&[0x82, 0x81], Role::Client, false), Err(HeaderError::Masking));
    }

    #[test]
    fn only_the_first_frame_of_a_message_may_be_marked_as_compressed() {
        for first in [0xC0_u8, 0xC8, 0xC9, 0xCA, 0xD1, 0xE1, 0xA1, 0x91] {
            let parsed = Header::parse(&[first, 0x80], Role::Server, true);
            assert_eq!(parsed, Err(HeaderError::ReservedBit), "{first:x}");
        }
        for first in [0xC1_u8, 0xC2, 0x41, 0x42] {
            assert_eq!(Header::parse(&[first, 0x80], Role::Server, true), Ok(None), "{first:x}");
        }
    }

    #[test]
    fn the_rfc_examples_are_encoded_to_the_letter() {
        // RFC 6455 §5.7.
        assert_eq!(&encode(Opcode::Text, b"Hello", None)[..], b"\x81\x05Hello");
        let masked = encode(Opcode::Text, b"Hello", Some([0x37, 0xfa, 0x21, 0x3d]));
        assert_eq!(&masked[..], b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
        assert_eq!(&encode(Opcode::Ping, b"Hello", None)[..], b"\x89\x05Hello");
    }

    #[test]
    fn close_payloads_are_checked() {
        assert_eq!(CloseFrame::parse(b""), Ok(None));
        assert_eq!(CloseFrame::parse(&[3]), Err(CloseError::OneByte));
        for code in [0_u16, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65_535] {
            assert_eq!(CloseFrame::parse(&code.to_be_bytes()), Err(CloseError::Code(code)));
        }
        assert_eq!(CloseFrame::parse(&[0x03, 0xE8, 0xFF]), Err(CloseError::Reason));
        let frame = CloseFrame { code: CloseCode::NORMAL, reason: "ö".repeat(100) };
        let cut = CloseFrame::parse(&frame.to_payload()).unwrap().unwrap();
        assert_eq!(cut.reason, "ö".repeat(61), "123 bytes hold 61 two-byte characters");
    }

    proptest! {
        #[test]
        fn masking_in_pieces_equals_masking_at_once(
            payload: Vec<u8>, mask: [u8; 4], cuts in proptest::collection::vec(0_usize..64, 0..8)
        ) {
            let mut whole = payload.clone();
            apply_mask(&mut whole, mask, 0);
            let naive: Vec<u8> = payload.iter().enumerate().map(|(at, byte)| byte ^ mask[at % 4]).collect();
            prop_assert_eq!(&whole, &naive);
            let mut pieces = payload;
            let mut from = 0;
            for cut in cuts {
                let end = (from + cut).min(pieces.len());
                apply_mask(&mut pieces[from..end], mask, from);
                from = end;
            }
            apply_mask(&mut pieces[from..], mask, from);
            prop_assert_eq!(pieces, naive);
        }

        #[test]
        fn parsing_never_panics_and_never_claims_more_than_it_saw(input: Vec<u8>) {
            for role in [Role::Server, Role::Client] {
                if let Ok(Some((_, header_bytes))) = Header::parse(&input, role, true) {
                    prop_assert!(header_bytes <= input.len().min(HEADER_BYTES_MAX));
                }
            }
        }
    }
}
