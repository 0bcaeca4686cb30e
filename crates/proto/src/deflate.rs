//! Compression of messages: permessage-deflate (RFC 7692), without any socket.
//!
//! What the service sends is compressed as if each message were the first one (`server_no_context_takeover`): one compressed message
//! serves all receivers. Clients are asked for the same (`client_no_context_takeover`), so that an idle connection holds no state.

mod deflater;
mod extension;
mod inflater;
mod negotiation;

use std::num::NonZeroU8;

pub use self::deflater::Deflater;
pub use self::extension::Malformed;
pub(crate) use self::inflater::{BadBlock, Inflater};
pub use self::inflater::{INFLATER_BYTES, Inflation};
pub use self::negotiation::{Accepted, Agreed, Disagreement, OFFER, accept, agree};

/// What every compressed message ends with on the way from the compressor, and what is left out on the wire (RFC 7692 §7.2.1).
const FLUSH: [u8; 4] = [0x00, 0x00, 0xFF, 0xFF];

/// How a hub compresses what it sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Compression {
    /// How hard to try, from [`LEVEL_MIN`] (fast) to [`LEVEL_MAX`] (small).
    pub level: u8,
    /// Content below this goes as it is.
    pub min_bytes: u16,
}

impl Default for Compression {
    fn default() -> Self {
        Self { level: 2, min_bytes: 512 }
    }
}

/// The least effort.
pub const LEVEL_MIN: u8 = 1;

/// The most effort.
pub const LEVEL_MAX: u8 = 9;

/// How far back a compressor may refer, as a power of two: 9 to 15 (RFC 7692 §7.1.2; no library compresses with 8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Window(NonZeroU8);

impl Window {
    /// 32 KiB: all that DEFLATE knows.
    pub const FULL: Self = Self(NonZeroU8::new(15).expect("15 is not 0"));

    /// 512 bytes, which is right for every client that asks for less than [`Window::FULL`].
    pub const SMALL: Self = Self(NonZeroU8::new(9).expect("9 is not 0"));

    /// Returns a window of 2^`bits` bytes; none for 8, and for what is no window.
    pub const fn from_bits(bits: u8) -> Option<Self> {
        match (bits, NonZeroU8::new(bits)) {
            (9..=15, Some(bits)) => Some(Self(bits)),
            _ => None,
        }
    }

    const fn bits(self) -> u8 {
        self.0.get()
    }
}

/// How messages to one connection are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Deflate {
    /// What its hub wants.
    pub compression: Compression,
    /// What its client can take.
    pub window: Window,
}

impl Deflate {
    /// Whether content of that many bytes is compressed at all.
    pub const fn concerns(self, bytes: usize) -> bool {
        self.compression.min_bytes as usize <= bytes
    }
}

#[cfg(test)]
mod tests;
