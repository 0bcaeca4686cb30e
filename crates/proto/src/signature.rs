//! Access keys, and the signature by which an upstream knows that a request came from its service.
//!
//! `X-ASRS-Signature` is `sha256={hex},sha256={hex}`: HMAC-SHA256 (RFC 2104) of the connection id, one part per access key, so
//! that keys can be rotated without losing a request (preview protocol, "Signature"). The key is the text's UTF-8 bytes as they stand.

use std::fmt;

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::{Choice, ConstantTimeEq};

/// A secret shared by the service and those that may call it or be called by it.
///
/// `Debug` shows `[redacted]`; there is no `Display` and no `==`, so that neither a log nor a comparison in varying time can
/// happen by accident. [`AccessKey::reveal`] is the one way to the text.
#[derive(Clone)]
pub struct AccessKey {
    text: Box<str>,
    /// HMAC that has taken the key in: half of the work of a signature.
    mac: Hmac<Sha256>,
}

impl AccessKey {
    /// Takes a key that a service is configured with.
    ///
    /// # Errors
    /// [`AccessKeyError::TooShort`] below [`ACCESS_KEY_BYTES_MIN`], [`AccessKeyError::TooLong`] above [`ACCESS_KEY_BYTES_MAX`].
    pub fn parse(text: &str) -> Result<Self, AccessKeyError> {
        if text.len() < ACCESS_KEY_BYTES_MIN {
            return Err(AccessKeyError::TooShort { bytes: text.len() });
        }
        Self::parse_of_any_strength(text)
    }

    /// Takes a key that another service was configured with: a caller cannot make it longer, so it may be short.
    ///
    /// # Errors
    /// [`AccessKeyError::Empty`], or [`AccessKeyError::TooLong`] above [`ACCESS_KEY_BYTES_MAX`].
    pub fn parse_of_any_strength(text: &str) -> Result<Self, AccessKeyError> {
        if text.is_empty() {
            return Err(AccessKeyError::Empty);
        }
        if ACCESS_KEY_BYTES_MAX < text.len() {
            return Err(AccessKeyError::TooLong { bytes: text.len() });
        }
        Ok(Self { text: text.into(), mac: keyed(text) })
    }

    /// Returns the key's text, for writing it into a connection string or signing with it.
    pub fn reveal(&self) -> &str {
        &self.text
    }

    /// Writes one part of the header, `sha256=` and 64 lower-case hexadecimal digits.
    fn put_part(&self, connection_id: &str, header: &mut String) {
        let mut mac = self.mac.clone();
        mac.update(connection_id.as_bytes());
        header.push_str(PREFIX);
        for byte in mac.finalize().into_bytes() {
            header.push(HEX_DIGITS[usize::from(byte >> 4)]);
            header.push(HEX_DIGITS[usize::from(byte & 0xf)]);
        }
    }
}

fn keyed(key: &str) -> Hmac<Sha256> {
    Hmac::new_from_slice(key.as_bytes())
        .expect("HMAC takes keys of every length (RFC 2104, section 3)")
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

/// Why a text cannot be an access key. The text itself is never shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessKeyError {
    /// Nothing was given.
    #[error("the access key is empty")]
    Empty,
    /// A service refuses keys that could be guessed.
    #[error("the access key has {bytes} bytes, at least {ACCESS_KEY_BYTES_MIN} are needed")]
    TooShort {
        /// Length of what was given.
        bytes: usize,
    },
    /// Most likely something else was pasted.
    #[error("the access key has {bytes} bytes, at most {ACCESS_KEY_BYTES_MAX} are allowed")]
    TooLong {
        /// Length of what was given.
        bytes: usize,
    },
}

/// Returns the value of `X-ASRS-Signature` for a connection: one part per key, in the order of `keys`.
pub fn sign(keys: &[AccessKey], connection_id: &str) -> String {
    let mut header = String::with_capacity(keys.len() * (PART_BYTES + 1));
    for key in keys {
        if !header.is_empty() {
            header.push(',');
        }
        key.put_part(connection_id, &mut header);
    }
    header
}

/// Returns whether any part of a received `X-ASRS-Signature` was made with any of `keys` for this connection.
///
/// Every part is compared with every key, in time that does not depend on what matches. Parts of another algorithm match
/// nothing; more than [`SIGNATURE_PARTS_MAX`] parts are refused unread.
pub fn verify(keys: &[AccessKey], connection_id: &str, signature: &str) -> bool {
    if keys.is_empty() || SIGNATURE_PARTS_MAX < signature.split(',').count() {
        return false;
    }
    let expected = sign(keys, connection_id);
    let mut matched = Choice::from(0);
    for part in signature.split(',') {
        let part = part.trim().to_ascii_lowercase();
        for expected in expected.split(',') {
            matched |= part.as_bytes().ct_eq(expected.as_bytes());
        }
    }
    matched.into()
}

/// Shortest key that a service may be configured with, in bytes: the size of the hash (RFC 2104, section 3).
pub const ACCESS_KEY_BYTES_MIN: usize = 32;

/// Longest key, in bytes.
pub const ACCESS_KEY_BYTES_MAX: usize = 1_024;

/// Most parts of one signature that are looked at. A service has a primary and a secondary key; the rest is room.
pub const SIGNATURE_PARTS_MAX: usize = 8;

const PREFIX: &str = "sha256=";
const PART_BYTES: usize = PREFIX.len() + 64;
const HEX_DIGITS: [char; 16] =
    ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key(text: &str) -> AccessKey {
        AccessKey::parse_of_any_strength(text).unwrap()
    }

    #[test]
    fn a_part_is_the_hmac_of_the_connection_id() {
        // RFC 4231, test case 2.
        assert_eq!(
            sign(&[key("Jefe")], "what do ya want for nothing?"),
            "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn there_is_one_part_per_key_in_order() {
        let (primary, secondary) = (key("first"), key("second"));
        let both = sign(&[primary.clone(), secondary.clone()], "id");
        assert_eq!(both, format!("{},{}", sign(&[primary], "id"), sign(&[secondary], "id")));
    }

    #[test]
    fn either_key_verifies_and_others_do_not() {
        let (primary, secondary, stranger) = (key("first"), key("second"), key("third"));
        let signature = sign(&[primary.clone(), secondary.clone()], "id");
        assert!(verify(&[primary], "id", &signature));
        assert!(verify(std::slice::from_ref(&secondary), "id", &signature));
        assert!(verify(
            &[stranger.clone(), secondary],
            "id",
            &signature.to_ascii_uppercase().replace("SHA", "sha")
        ));
        assert!(!verify(&[stranger], "id", &signature));
    }

    #[test]
    fn blanks_after_the_comma_and_unknown_algorithms_are_tolerated() {
        let signature = format!("sha512=00, {}", sign(&[key("first")], "id"));
        assert!(verify(&[key("first")], "id", &signature));
    }

    #[test]
    fn too_many_parts_are_refused() {
        let part = sign(&[key("first")], "id");
        let many = vec![part; SIGNATURE_PARTS_MAX + 1].join(",");
        assert!(!verify(&[key("first")], "id", &many));
    }

    #[test]
    fn no_key_verifies_nothing() {
        assert!(!verify(&[], "id", ""));
        assert!(!verify(&[], "id", "sha256="));
    }

    #[test]
    fn keys_have_a_length_and_never_show() {
        let short = "k".repeat(ACCESS_KEY_BYTES_MIN - 1);
        assert_eq!(AccessKey::parse(&short).unwrap_err(), AccessKeyError::TooShort { bytes: 31 });
        assert!(AccessKey::parse(&format!("{short}k")).is_ok());
        assert_eq!(AccessKey::parse_of_any_strength("").unwrap_err(), AccessKeyError::Empty);
        assert!(AccessKey::parse(&"k".repeat(ACCESS_KEY_BYTES_MAX + 1)).is_err());
        assert_eq!(format!("{:?}", key("secret")), "[redacted]");
    }

    proptest! {
        #[test]
        fn a_signature_holds_for_its_connection_alone(id in ".{0,40}", other in ".{0,40}", garbage in ".{0,200}") {
            let keys = [key("first"), key("second")];
            let signature = sign(&keys, &id);
            prop_assert!(verify(&keys, &id, &signature));
            prop_assert_eq!(verify(&keys, &other, &signature), id == other);
            prop_assert!(!verify(&keys, &id, &garbage));
        }
    }
}
