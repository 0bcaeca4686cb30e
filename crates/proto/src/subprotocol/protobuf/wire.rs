//! The wire format of protobuf, as far as messages of proto3 need it (Protocol Buffers documentation, "Encoding").

use super::super::DecodeError;

/// Most groups, which proto3 has no longer, within each other.
const GROUP_DEPTH_MAX: usize = 32;

/// Longest variable-length integer.
const VARINT_BYTES_MAX: usize = 10;

/// The value of one field. Which type it has is for the message to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// Integers and booleans.
    Varint(u64),
    /// Strings, bytes and messages.
    Bytes(&'a [u8]),
    /// What none of our messages has: fixed-length numbers and groups.
    Other,
}

/// The fields of one message in their order: their numbers and values. Ends after an error.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) const fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    fn field(&mut self) -> Option<(u32, Value<'a>)> {
        let (number, wire_type) = self.tag()?;
        Some((number, self.value(number, wire_type, GROUP_DEPTH_MAX)?))
    }

    fn tag(&mut self) -> Option<(u32, u32)> {
        let tag = u32::try_from(self.varint()?).ok()?;
        (0 < tag >> 3).then_some((tag >> 3, tag & 7))
    }

    fn value(&mut self, number: u32, wire_type: u32, groups: usize) -> Option<Value<'a>> {
        match wire_type {
            0 => self.varint().map(Value::Varint),
            1 => self.take(8).map(|_| Value::Other),
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                self.take(length).map(Value::Bytes)
            }
            3 => loop {
                let groups = groups.checked_sub(1)?;
                match self.tag()? {
                    (end, 4) if end == number => return Some(Value::Other),
                    (inner, wire_type) => self.value(inner, wire_type, groups)?,
                };
            },
            5 => self.take(4).map(|_| Value::Other),
            _ => None,
        }
    }

    /// Returns an integer; bits beyond the 64th are dropped, as other implementations do.
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for at in 0..VARINT_BYTES_MAX {
            let (byte, rest) = self.rest.split_first()?;
            self.rest = rest;
            value |= u64::from(byte & 0x7F) << (7 * at);
            if *byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = Result<(u32, Value<'a>), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.rest = &[];
        }
        Some(field.ok_or(MALFORMED))
    }
}

/// Bytes that are no message.
pub(super) const MALFORMED: DecodeError = DecodeError::Syntax("protobuf");

/// Returns a string, which has to be UTF-8.
pub(super) fn text(bytes: &[u8]) -> Result<&str, DecodeError> {
    simdutf8::basic::from_utf8(bytes).map_err(|_| MALFORMED)
}

/// Writes an integer field.
pub(super) fn put_number(out: &mut Vec<u8>, number: u32, value: u64) {
    put_varint(out, u64::from(number << 3));
    put_varint(out, value);
}

/// Writes a string, bytes or message field.
pub(super) fn put_bytes(out: &mut Vec<u8>, number: u32, value: &[u8]) {
    put_prefix(out, number, value.len());
    out.extend_from_slice(value);
}

/// Writes a string field, unless it is empty: so it reads as empty if it is absent.
pub(super) fn put_text(out: &mut Vec<u8>, number: u32, value: &str) {
    if !value.is_empty() {
        put_bytes(out, number, value.as_bytes());
    }
}

/// Writes a message field that `write` fills.
pub(super) fn put_message(out: &mut Vec<u8>, number: u32, write: impl FnOnce(&mut Vec<u8>)) {
    let mut message = Vec::new();
    write(&mut message);
    put_bytes(out, number, &message);
}

/// Writes what comes before the `length` bytes of a field.
pub(super) fn put_prefix(out: &mut impl bytes::BufMut, number: u32, length: usize) {
    put_varint(out, u64::from(number << 3 | 2));
    put_varint(out, length as u64);
}

/// Writes an integer.
pub(super) fn put_varint(out: &mut impl bytes::BufMut, mut value: u64) {
    while 0x80 <= value {
        out.put_u8(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.put_u8(value.to_le_bytes()[0]);
}

/// Returns the bytes of a field of `length` bytes with its prefix; for field numbers below 16.
pub(super) const fn field_bytes(length: usize) -> usize {
    1 + varint_bytes(length as u64) + length
}

/// Returns the bytes of an integer.
pub(super) const fn varint_bytes(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}
