//! Reconnection tokens: what lets a reliable client have its connection back (Web PubSub protocol, "Reliable protocols and recovery").
//!
//! Opaque to clients. A token names the time at which it was made and is valid for [`LIFETIME_SECONDS`], though a connection that has lost
//! its transport waits far shorter.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::name::ConnectionId;

/// How long a token is valid: about as long as those of the hosted service.
pub const LIFETIME_SECONDS: u64 = 7 * 24 * 60 * 60;

const TIME_BYTES: usize = 8;
const MAC_BYTES: usize = 32;

/// The secret behind a node's reconnection tokens. `Debug` does not show it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct ReconnectionKey([u8; 32]);

impl ReconnectionKey {
    /// Takes 32 random bytes.
    pub const fn new(secret: [u8; 32]) -> Self {
        Self(secret)
    }

    /// Returns a token for a connection, made at `now` in seconds since 1970.
    pub fn token(&self, connection: &ConnectionId, now: u64) -> String {
        let mut bytes = now.to_be_bytes().to_vec();
        bytes.extend_from_slice(&self.mac(connection, now));
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Returns whether `token` was made for the connection with this key and is still valid. Its comparison takes constant time.
    pub fn accepts(&self, connection: &ConnectionId, token: &str, now: u64) -> bool {
        const TEXT_BYTES_MAX: usize = 64;
        if TEXT_BYTES_MAX < token.len() {
            return false;
        }
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(token) else { return false };
        let Some((time, mac)) = bytes.split_first_chunk::<TIME_BYTES>() else { return false };
        let made = u64::from_be_bytes(*time);
        let is_fresh = now <= made.saturating_add(LIFETIME_SECONDS);
        bool::from(self.mac(connection, made).as_slice().ct_eq(mac)) && is_fresh
    }

    fn mac(&self, connection: &ConnectionId, made: u64) -> [u8; MAC_BYTES] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0)
            .expect("HMAC takes keys of every length (RFC 2104, section 3)");
        mac.update(&made.to_be_bytes());
        mac.update(connection.to_string().as_bytes());
        mac.finalize().into_bytes().into()
    }
}

impl fmt::Debug for ReconnectionKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_opens_its_own_connection_for_a_week() {
        let key = ReconnectionKey::new([7; 32]);
        let ours = ConnectionId::new(1, 2, [3; 16]);
        let token = key.token(&ours, 1_000);
        assert!(key.accepts(&ours, &token, 1_000));
        assert!(key.accepts(&ours, &token, 1_000 + LIFETIME_SECONDS));
        assert!(!key.accepts(&ours, &token, 1_001 + LIFETIME_SECONDS));
        assert!(!key.accepts(&ConnectionId::new(1, 2, [4; 16]), &token, 1_000));
        assert!(!ReconnectionKey::new([8; 32]).accepts(&ours, &token, 1_000));
    }

    #[test]
    fn what_is_no_token_opens_nothing() {
        let key = ReconnectionKey::default();
        let ours = ConnectionId::new(1, 2, [3; 16]);
        let token = key.token(&ours, 5);
        let mut longer = token.clone();
        longer.push('A');
        for text in ["", "AAAA", "é", &token[1..], &longer, &"A".repeat(1_000)] {
            assert!(!key.accepts(&ours, text, 5), "{text}");
        }
        assert_eq!(format!("{key:?}"), "[redacted]");
    }
}
