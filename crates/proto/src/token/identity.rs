//! Tokens of identity providers: RS256 and ES256 signatures, checked with the keys that a provider publishes.
//!
//! A token names its issuer itself, so [`Origin::of`] reads that first, unverified, and whoever knows the issuer's keys calls
//! [`check`]. The kinds of keys never mix: access keys check HS256 alone, published keys never do.

use std::sync::LazyLock;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::{Claims, TOKEN_BYTES_MAX, TokenError, alone, audiences, check_time};

/// Keys of one provider that are looked at; further ones do not count.
pub const PUBLISHED_KEYS_MAX: usize = 128;

/// Keys that are tried for a token that does not say which one signed it.
const KEYS_TRIED_MAX: usize = 16;

/// Where a token says that it comes from. Nothing of it is proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Its `iss`.
    pub issuer: String,
    /// Its `aud`.
    pub audiences: Vec<String>,
    /// Which of the issuer's keys signed it (`kid`).
    pub key_id: Option<String>,
}

impl Origin {
    /// Returns the origin of a token whose header names RS256 or ES256; `None` for all other tokens, malformed ones included.
    ///
    /// # Errors
    /// It is too long, or has no issuer.
    pub fn of(token: &str) -> Result<Option<Self>, TokenError> {
        if TOKEN_BYTES_MAX < token.len() {
            return Err(TokenError::TooLong { bytes: token.len() });
        }
        let Ok(header) = jsonwebtoken::decode_header(token) else { return Ok(None) };
        if !matches!(header.alg, Algorithm::RS256 | Algorithm::ES256) {
            return Ok(None);
        }
        let claims: Map<String, Value> = jsonwebtoken::dangerous::insecure_decode_claims(token)
            .map_err(|_| TokenError::Malformed)?;
        let issuer = claims.get("iss").and_then(Value::as_str);
        let issuer = issuer.ok_or(TokenError::Issuer)?.to_owned();
        let audiences = audiences(&claims)?.into_iter().map(str::to_owned).collect();
        Ok(Some(Self { issuer, audiences, key_id: header.kid }))
    }
}

/// The keys that a provider publishes (RFC 7517), as far as they sign by RS256 or ES256.
#[derive(Debug, Default)]
pub struct PublishedKeys(Vec<PublishedKey>);

#[derive(Debug)]
struct PublishedKey {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
}

/// What a provider publishes is not a set of keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a JSON Web Key Set")]
pub struct NotKeys;

impl PublishedKeys {
    /// Reads a JSON Web Key Set. Keys of other kinds, for other purposes, or that cannot be read, are passed over.
    ///
    /// # Errors
    /// It is no such set.
    pub fn parse(document: &[u8]) -> Result<Self, NotKeys> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Value>,
        }
        let set: Set = serde_json::from_slice(document).map_err(|_| NotKeys)?;
        let keys = set.keys.into_iter().take(PUBLISHED_KEYS_MAX);
        Ok(Self(keys.filter_map(PublishedKey::read).collect()))
    }

    /// Whether a token signed by `key_id` could be checked.
    pub fn has(&self, key_id: Option<&str>) -> bool {
        match key_id {
            Some(id) => self.0.iter().any(|key| key.id.as_deref() == Some(id)),
            None => !self.0.is_empty(),
        }
    }
}

impl PublishedKey {
    fn read(value: Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value).ok()?;
        let is_rsa = matches!(jwk.algorithm, AlgorithmParameters::RSA(_));
        let is_p256 = matches!(&jwk.algorithm, AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256);
        let (algorithm, declared) = match (is_rsa, is_p256) {
            (true, _) => (Algorithm::RS256, KeyAlgorithm::RS256),
            (_, true) => (Algorithm::ES256, KeyAlgorithm::ES256),
            _ => return None,
        };
        let signs = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
        let fits = jwk.common.key_algorithm.is_none_or(|named| named == declared);
        let key = DecodingKey::from_jwk(&jwk).ok().filter(|_| signs && fits)?;
        Some(Self { id: jwk.common.key_id, algorithm, key })
    }
}

/// Checks a token as received, at `now` in seconds since 1970, with the keys of `issuer`.
///
/// Required: RS256 or ES256 and a signature by the key that the token names (any, if it names none), the issuer letter by letter, the
/// audience among those it names, and the same times as of every token ([`super::check`]).
///
/// # Errors
/// The first of these that fails, in that order. Nothing of the token is in an error's text.
pub fn check(
    token: &str,
    now: u64,
    keys: &PublishedKeys,
    issuer: &str,
    audience: &str,
) -> Result<Claims, TokenError> {
    if TOKEN_BYTES_MAX < token.len() {
        return Err(TokenError::TooLong { bytes: token.len() });
    }
    let claims = verify(token, keys)?;
    if claims.get("iss").and_then(Value::as_str) != Some(issuer) {
        return Err(TokenError::Issuer);
    }
    let named = audiences(&claims)?;
    if !named.contains(&audience) {
        return Err(TokenError::Audience {
            expected: audience.to_owned(),
            actual: named.into_iter().map(str::to_owned).collect(),
        });
    }
    check_time(&claims, now)?;
    Ok(Claims(claims))
}

fn verify(token: &str, keys: &PublishedKeys) -> Result<Map<String, Value>, TokenError> {
    static RS256_ALONE: LazyLock<Validation> = LazyLock::new(|| alone(Algorithm::RS256));
    static ES256_ALONE: LazyLock<Validation> = LazyLock::new(|| alone(Algorithm::ES256));
    let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Malformed)?;
    let validation = if header.alg == Algorithm::RS256 {
        &*RS256_ALONE
    } else if header.alg == Algorithm::ES256 {
        &*ES256_ALONE
    } else {
        return Err(TokenError::Algorithm);
    };
    if header.crit.is_some() {
        return Err(TokenError::Algorithm);
    }
    let named = |key: &&PublishedKey| {
        key.algorithm == header.alg && (header.kid.is_none() || key.id == header.kid)
    };
    for key in keys.0.iter().filter(named).take(KEYS_TRIED_MAX) {
        match jsonwebtoken::decode::<Map<String, Value>>(token, &key.key, validation) {
            Ok(decoded) => return Ok(decoded.claims),
            Err(error) if matches!(error.kind(), ErrorKind::InvalidSignature) => {}
            Err(_) => return Err(TokenError::Malformed),
        }
    }
    Err(TokenError::ForeignSignature)
}

#[cfg(test)]
mod tests;
