//! Tokens of callers that have just been checked, so that who calls again and again pays for a signature once.
//!
//! They belong to the access keys that they were checked with: who replaces the keys replaces this too. Invariant: a token that is
//! known passes a whole check by those keys within the time that is kept beside it.

use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Tokens that are known at once. With one more, all are forgotten: many callers make a new token for each call, and nothing is lost but
/// the time of a check.
pub(crate) const KNOWN_TOKENS_MAX: usize = 1_024;

/// Bytes of a token and its path that are kept; longer ones are checked each time.
const KNOWN_BYTES_MAX: usize = 2_048;

/// The tokens.
#[derive(Default)]
pub(crate) struct KnownTokens {
    /// `SipHash` with a random key: nobody outside can make two tokens meet.
    hasher: RandomState,
    known: Mutex<HashMap<u64, Known>>,
}

struct Known {
    token: Box<str>,
    path: Box<str>,
    /// When it is valid, in seconds since 1970.
    times: Range<u64>,
}

impl KnownTokens {
    /// Returns whether a token passes at `now` for `path`. Cost: a hash and a comparison.
    ///
    /// How long it takes tells nothing about the tokens that are known: another token meets none of them, for the hash has a key.
    pub(crate) fn contains(&self, token: &str, path: &str, now: u64) -> bool {
        let hash = self.hash(token, path);
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&hash).is_some_and(|known| {
            *known.token == *token && *known.path == *path && known.times.contains(&now)
        })
    }

    /// Remembers that a token was found valid for `path` at these times.
    pub(crate) fn insert(&self, token: &str, path: &str, times: Range<u64>) {
        if KNOWN_BYTES_MAX < token.len() + path.len() {
            return;
        }
        let hash = self.hash(token, path);
        let one = Known { token: token.into(), path: path.into(), times };
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let forgotten = if KNOWN_TOKENS_MAX <= known.len() {
            std::mem::take(&mut *known)
        } else {
            HashMap::new()
        };
        known.insert(hash, one);
        drop(known);
        // Outside the lock.
        drop(forgotten);
    }

    fn hash(&self, token: &str, path: &str) -> u64 {
        self.hasher.hash_one((token, path))
    }
}

impl fmt::Debug for KnownTokens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_known_as_it_was_for_its_path_and_in_its_time() {
        let known = KnownTokens::default();
        known.insert("a.b.c", "/path", 10..20);
        assert!(known.contains("a.b.c", "/path", 10));
        for (token, path, now) in [
            ("a.b.d", "/path", 10),
            ("a.b.", "/path", 10),
            ("a.b.c", "/paths", 10),
            ("a.b.c/", "path", 10),
            ("a.b.c", "/path", 9),
            ("a.b.c", "/path", 20),
        ] {
            assert!(!known.contains(token, path, now), "{token} {path} {now}");
        }
        assert_eq!(format!("{known:?}"), "[redacted]");
    }

    #[test]
    fn no_more_than_the_limit_are_kept_and_none_that_is_long() {
        let known = KnownTokens::default();
        for number in 0..=KNOWN_TOKENS_MAX {
            known.insert(&number.to_string(), "/", 0..1);
            assert!(known.contains(&number.to_string(), "/", 0));
            assert!(known.known.lock().unwrap().len() <= KNOWN_TOKENS_MAX);
        }
        assert!(!known.contains("0", "/", 0));
        let long = "x".repeat(KNOWN_BYTES_MAX);
        known.insert(&long, "/", 0..1);
        assert!(!known.contains(&long, "/", 0));
    }
}
