//! How a client gets in: its handshake, what it says first, and when it is ready.

use hookwire_proto::frame::{Opcode, encode};
use hookwire_proto::subprotocol::Subprotocol;

use super::super::wire::Upgrade;
use super::member::{MASK, PAYLOAD_HEAD_BYTES};

/// What clients of one kind share.
#[derive(Debug)]
pub(in super::super) struct Entrance {
    pub(in super::super) upgrade: Upgrade,
    /// Frames that it sends when the handshake is done.
    pub(super) hello: Vec<u8>,
    pub(super) ready: Ready,
    /// Bytes of a payload that the handler gets to see; the rest is skipped.
    pub(in super::super) head_bytes: usize,
    /// The subprotocol in which it acknowledges messages.
    pub(super) acknowledges: Option<Subprotocol>,
}

/// What must come before a client gets messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum Ready {
    /// The answer to the handshake.
    Upgraded,
    /// A first message.
    Greeted,
    /// A message in whose head this stands.
    Told(String),
}

impl Entrance {
    /// Returns the entrance of clients that say nothing and get messages as soon as the handshake is done.
    pub(in super::super) const fn silent(upgrade: Upgrade) -> Self {
        Self {
            upgrade,
            hello: Vec::new(),
            ready: Ready::Upgraded,
            head_bytes: PAYLOAD_HEAD_BYTES,
            acknowledges: None,
        }
    }

    /// Returns the entrance of clients that speak a subprotocol.
    pub(in super::super) fn speaking(upgrade: &Upgrade, subprotocol: Subprotocol) -> Self {
        Self {
            upgrade: upgrade.with_subprotocol(subprotocol.name()),
            hello: Vec::new(),
            // `connected` is the first message (Web PubSub protocol, "Connected").
            ready: Ready::Greeted,
            head_bytes: PAYLOAD_HEAD_BYTES,
            acknowledges: subprotocol.is_reliable().then_some(subprotocol),
        }
    }

    /// Returns the entrance of clients whose handler does all that a library does: it sees the first `head_bytes` of every message, and
    /// nobody acknowledges for it.
    pub(in super::super) fn handled(
        upgrade: &Upgrade,
        subprotocol: Option<Subprotocol>,
        head_bytes: usize,
    ) -> Self {
        let upgrade = subprotocol.map_or_else(
            || upgrade.clone(),
            |subprotocol| upgrade.with_subprotocol(subprotocol.name()),
        );
        Self { head_bytes, ..Self::silent(upgrade) }
    }

    /// Returns the entrance of clients that say these texts and then wait for what makes them ready.
    pub(in super::super) fn saying<'a>(
        upgrade: Upgrade,
        texts: impl IntoIterator<Item = &'a str>,
        ready: Ready,
    ) -> Self {
        let frames =
            texts.into_iter().flat_map(|text| encode(Opcode::Text, text.as_bytes(), Some(MASK)));
        let (hello, head_bytes) = (frames.collect(), PAYLOAD_HEAD_BYTES);
        Self { upgrade, hello, ready, head_bytes, acknowledges: None }
    }
}

impl Ready {
    /// Whether a message that begins with `head` is the awaited one.
    pub(super) fn is_said_by(&self, head: &[u8]) -> bool {
        match self {
            Self::Upgraded | Self::Greeted => true,
            Self::Told(text) => {
                text.is_empty() || head.windows(text.len()).any(|part| part == text.as_bytes())
            }
        }
    }
}
