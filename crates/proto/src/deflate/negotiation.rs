//! Who may compress how: the parameters of permessage-deflate (RFC 7692 §7.1), from both sides.

use super::Window;
use super::extension::{self, Extension, Malformed};

/// What a client offers: the service may bound its window, and may do what it likes with its own.
pub const OFFER: &str = "permessage-deflate; client_max_window_bits";

const NAME: &str = "permessage-deflate";

/// What the service agrees to. It always compresses without context, and asks the client to do the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accepted {
    /// The client asks for no bound.
    Unbounded,
    /// The client asks for the full window.
    Full,
    /// The client asks for a smaller window.
    Small,
}

impl Accepted {
    /// Returns the answer's header.
    pub const fn header(self) -> &'static str {
        match self {
            Self::Unbounded => {
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover"
            }
            Self::Full => {
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=15"
            }
            Self::Small => {
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=9"
            }
        }
    }

    /// Returns how far back what is sent may refer.
    pub const fn window(self) -> Window {
        match self {
            Self::Unbounded | Self::Full => Window::FULL,
            Self::Small => Window::SMALL,
        }
    }
}

/// Returns what a server makes of a client's header: the first offer that is well-formed and that it can keep to. Other extensions, and
/// offers that the RFC forbids, are passed over.
///
/// # Errors
/// The header is not a list of extensions: the handshake fails (RFC 6455 §9.1).
pub fn accept(header: &str) -> Result<Option<Accepted>, Malformed> {
    let offers = extension::parse(header)?;
    Ok(offers.iter().filter(|offer| offer.name == NAME).find_map(|offer| {
        let parameters = Parameters::parse(offer)?;
        match parameters.server_max_window_bits {
            None => Some(Accepted::Unbounded),
            Some(15) => Some(Accepted::Full),
            Some(bits) => Window::from_bits(bits).map(|_| Accepted::Small),
        }
    }))
}

/// What a client and a server have agreed on, as the client sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Agreed {
    /// Whether messages of the server may refer to earlier ones.
    pub server_keeps_context: bool,
    /// How far back what the client sends may refer; `None`: too little to compress anything, which nobody must.
    pub window: Option<Window>,
}

/// A server's answer that is no answer to [`OFFER`]. The handshake fails (RFC 7692 §7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Disagreement {
    /// The header is not a list of extensions.
    #[error(transparent)]
    Malformed(#[from] Malformed),
    /// It takes what was not offered, or takes it twice.
    #[error("the server takes an extension that it was not offered")]
    Extension,
    /// The parameters are not those of the extension.
    #[error("the server takes permessage-deflate with parameters that it does not have")]
    Parameters,
}

/// Returns what a server's header means to the client that has sent [`OFFER`]; `None`: no compression.
///
/// # Errors
/// [`Disagreement`].
pub fn agree(header: &str) -> Result<Option<Agreed>, Disagreement> {
    let extensions = extension::parse(header)?;
    let taken = match extensions.as_slice() {
        [] => return Ok(None),
        [one] if one.name == NAME => one,
        _ => return Err(Disagreement::Extension),
    };
    let parameters = Parameters::parse(taken).ok_or(Disagreement::Parameters)?;
    let window = match parameters.client_max_window_bits {
        ClientBound::Absent => Some(Window::FULL),
        ClientBound::Bits(bits) => Window::from_bits(bits),
        // In an answer it needs a value (RFC 7692 §7.1.2.2).
        ClientBound::Possible => return Err(Disagreement::Parameters),
    };
    Ok(Some(Agreed { server_keeps_context: !parameters.server_no_context_takeover, window }))
}

/// Parameters that are well-formed and stand there once.
#[derive(Debug, Default)]
struct Parameters {
    server_no_context_takeover: bool,
    client_no_context_takeover: bool,
    server_max_window_bits: Option<u8>,
    client_max_window_bits: ClientBound,
}

/// What is said of the client's window.
#[derive(Debug, Default, PartialEq, Eq)]
enum ClientBound {
    #[default]
    Absent,
    /// The client would keep to one.
    Possible,
    Bits(u8),
}

impl Parameters {
    fn parse(extension: &Extension<'_>) -> Option<Self> {
        let mut all = Self::default();
        for (name, value) in &extension.parameters {
            let bits = value.as_deref().map(window_bits);
            let is_new = match (*name, bits) {
                ("server_no_context_takeover", None) => {
                    !std::mem::replace(&mut all.server_no_context_takeover, true)
                }
                ("client_no_context_takeover", None) => {
                    !std::mem::replace(&mut all.client_no_context_takeover, true)
                }
                ("server_max_window_bits", Some(Some(bits))) => {
                    all.server_max_window_bits.replace(bits).is_none()
                }
                ("client_max_window_bits", None) => all.bound_client(ClientBound::Possible),
                ("client_max_window_bits", Some(Some(bits))) => {
                    all.bound_client(ClientBound::Bits(bits))
                }
                _ => false,
            };
            if !is_new {
                return None;
            }
        }
        Some(all)
    }

    /// Returns whether it stands there for the first time.
    fn bound_client(&mut self, bound: ClientBound) -> bool {
        std::mem::replace(&mut self.client_max_window_bits, bound) == ClientBound::Absent
    }
}

/// 8 to 15, without leading zeros (RFC 7692 §7.1.2).
fn window_bits(value: &str) -> Option<u8> {
    let bits = value.parse().ok().filter(|bits| (8..=15).contains(bits))?;
    (value.starts_with(|first: char| first.is_ascii_digit() && first != '0')).then_some(bits)
}
