//! Tokens: who a caller is, as JSON Web Tokens (RFC 7519).
//!
//! A token passes when it was signed with one of the service's keys (HS256 alone), is within its time and names the requested URL as
//! its audience; what that means is in [`Audience`]. Everything else in it is for the application to judge. Tokens of identity
//! providers, which carry other signatures, are in [`identity`].

mod audience;
mod claims;
pub mod identity;

use std::ops::Range;
use std::sync::LazyLock;
use std::time::Duration;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde_json::{Map, Value};

pub use self::audience::{Audience, HostNames, HostNamesError};
pub use self::claims::{
    Claims, ClaimsTooLong, GROUP_CLAIM, GroupClaimError, ROLE_CLAIM, USER_CLAIMS_BYTES_MAX,
    read_user_claims,
};
use crate::signature::AccessKey;

/// A token about to be signed.
#[derive(Clone, Debug)]
pub struct NewToken<'a> {
    /// The URL that it opens. Which form services expect is told by the preview protocol, "JWT audience".
    pub audience: &'a str,
    /// Seconds since 1970.
    pub issued_at: u64,
    /// How long it is valid.
    pub lifetime: Duration,
    /// The user that a client connects as.
    pub user: Option<&'a str>,
    /// Further claims. The four above win over claims of the same names.
    pub claims: Map<String, Value>,
}

impl NewToken<'_> {
    /// Returns the signed token.
    #[expect(clippy::missing_panics_doc, reason = "the one expectation holds for all arguments")]
    pub fn sign(self, key: &AccessKey) -> String {
        let mut claims = self.claims;
        claims.insert("aud".to_owned(), self.audience.into());
        claims.insert("iat".to_owned(), self.issued_at.into());
        claims.insert(
            "exp".to_owned(),
            self.issued_at.saturating_add(self.lifetime.as_secs()).into(),
        );
        match self.user {
            Some(user) => claims.insert("sub".to_owned(), user.into()),
            None => claims.remove("sub"),
        };
        jsonwebtoken::encode(
            &Header::new(Algorithm::HS256),
            &claims,
            &EncodingKey::from_secret(key.reveal().as_bytes()),
        )
        .expect("a JSON object can be written and HMAC takes keys of every length")
    }
}

/// Checks a token as received, at `now` in seconds since 1970.
///
/// Required: HS256 and a signature by any of `keys` (compared in constant time), an `exp` that has not passed, an `nbf`, if there
/// is one, that has, both with [`CLOCK_SKEW`] of tolerance, and an `aud` that is or holds the audience. `iat` and `iss` are
/// not judged (preview protocol, "JWT audience"; limits and codes, "Time").
///
/// # Errors
/// The first of these that fails, in that order. Nothing of the token is in an error's text; what helps to find a wrong set-up
/// is in its fields.
pub fn check(
    token: &str,
    now: u64,
    keys: &[AccessKey],
    audience: &Audience<'_>,
) -> Result<Claims, TokenError> {
    let claims = decode(token, keys)?;

    check_time(&claims, now)?;
    if claims.get("sub").is_some_and(|sub| !sub.is_string()) {
        return Err(TokenError::Claim { name: "sub" });
    }

    let named = audiences(&claims)?;
    if !named.iter().any(|named| audience.is_named_by(named)) {
        return Err(TokenError::Audience {
            expected: audience.to_string(),
            actual: named.into_iter().map(str::to_owned).collect(),
        });
    }
    Ok(Claims(claims))
}

/// Returns the times at which a token passes, with [`CLOCK_SKEW`] of tolerance on both sides.
fn times(claims: &Map<String, Value>) -> Result<Range<u64>, TokenError> {
    let expiry = seconds(claims, "exp")?.ok_or(TokenError::NoExpiry)?;
    let start = seconds(claims, "nbf")?.unwrap_or(0);
    Ok(start.saturating_sub(CLOCK_SKEW.as_secs())..expiry.saturating_add(CLOCK_SKEW.as_secs()))
}

/// Requires an end that has not passed and a beginning, if there is one, that has.
fn check_time(claims: &Map<String, Value>, now: u64) -> Result<(), TokenError> {
    let expiry = seconds(claims, "exp")?.ok_or(TokenError::NoExpiry)?;
    let expiry_with_skew = expiry.saturating_add(CLOCK_SKEW.as_secs());
    if expiry_with_skew <= now {
        return Err(TokenError::Expired { late: Duration::from_secs(now - expiry) });
    }
    if let Some(start) = seconds(claims, "nbf")? {
        let now_with_skew = now.saturating_add(CLOCK_SKEW.as_secs());
        if now_with_skew < start {
            return Err(TokenError::TooEarly { early: Duration::from_secs(start - now) });
        }
    }
    Ok(())
}

/// Returns the texts of `aud`, none if it is absent.
fn audiences(claims: &Map<String, Value>) -> Result<Vec<&str>, TokenError> {
    match claims.get("aud") {
        None => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one]),
        Some(Value::Array(several)) => several
            .iter()
            .map(|one| one.as_str().ok_or(TokenError::Claim { name: "aud" }))
            .collect(),
        Some(_) => Err(TokenError::Claim { name: "aud" }),
    }
}

/// Why a token was refused. Its text may go to the caller; the fields of [`TokenError::Audience`] are for a log at debug level.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Refused unread.
    #[error("the token has {bytes} bytes, at most {TOKEN_BYTES_MAX} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Not three parts of base64url, or no JSON objects inside, or `alg` is something that is not known at all, such as `none`.
    #[error("the token is malformed")]
    Malformed,
    /// Another algorithm, or a header parameter that must be understood and is not (RFC 7515, section 4.1.11).
    #[error("the token is not signed by an algorithm that is accepted")]
    Algorithm,
    /// None of the access keys made the signature.
    #[error("the token's signature was not made with an access key of this service")]
    Signature,
    /// None of the issuer's keys made the signature.
    #[error("the token's signature was not made with a key of its issuer")]
    ForeignSignature,
    /// It names no issuer, or one that is not known here.
    #[error("the token's issuer is not known")]
    Issuer,
    /// A claim has a type that it must not have.
    #[error("the token's claim {name} has the wrong type")]
    Claim {
        /// Name of the claim.
        name: &'static str,
    },
    /// A token must end.
    #[error("the token has no expiry")]
    NoExpiry,
    /// Its time has passed.
    #[error("the token expired {} seconds ago", late.as_secs())]
    Expired {
        /// For how long. Always more than the tolerance.
        late: Duration,
    },
    /// Its time has not come.
    #[error("the token is not valid for another {} seconds", early.as_secs())]
    TooEarly {
        /// For how long. Always more than the tolerance.
        early: Duration,
    },
    /// It was made for another URL. The most frequent mistake in a set-up.
    #[error("the token was made for another URL")]
    Audience {
        /// What would have been accepted, for people.
        expected: String,
        /// What the token names.
        actual: Vec<String>,
    },
}

/// Longest token, in bytes. It comes in a header or a query, where servers and proxies allow little more.
pub const TOKEN_BYTES_MAX: usize = 16_384;

/// How far the clocks of the signer and the service may differ (limits and codes, "Time").
pub const CLOCK_SKEW: Duration = Duration::from_mins(5);

static HS256_ALONE: LazyLock<Validation> = LazyLock::new(|| alone(Algorithm::HS256));

/// The algorithm alone: time and audience are judged here, with the caller's clock and rule.
fn alone(algorithm: Algorithm) -> Validation {
    let mut validation = Validation::new(algorithm);
    validation.required_spec_claims.clear();
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation
}

fn decode(token: &str, keys: &[AccessKey]) -> Result<Map<String, Value>, TokenError> {
    if TOKEN_BYTES_MAX < token.len() {
        return Err(TokenError::TooLong { bytes: token.len() });
    }
    for key in keys {
        let key = DecodingKey::from_secret(key.reveal().as_bytes());
        match jsonwebtoken::decode::<Map<String, Value>>(token, &key, &HS256_ALONE) {
            Ok(decoded) if decoded.header.crit.is_some() => return Err(TokenError::Algorithm),
            Ok(decoded) => return Ok(decoded.claims),
            Err(error) if matches!(error.kind(), ErrorKind::InvalidSignature) => {}
            Err(error) if matches!(error.kind(), ErrorKind::InvalidAlgorithm) => {
                return Err(TokenError::Algorithm);
            }
            Err(_) => return Err(TokenError::Malformed),
        }
    }
    Err(TokenError::Signature)
}

/// Returns a `NumericDate` (RFC 7519, section 2): whole seconds, before 1970 as 0, beyond all time as the last second.
fn seconds(claims: &Map<String, Value>, name: &'static str) -> Result<Option<u64>, TokenError> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let seconds = value.as_u64().or_else(|| {
        let seconds = value.as_f64()?;
        let end = if seconds < 0.0 { 0 } else { u64::MAX };
        Some(Duration::try_from_secs_f64(seconds).map_or(end, |time| time.as_secs()))
    });
    seconds.map(Some).ok_or(TokenError::Claim { name })
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use proptest::prelude::*;
    use serde_json::json;

    const NOW: u64 = 1_600_000_000;
    const PATH: &str = "/ws/api/v1/hubs/chat";

    fn key(text: &str) -> AccessKey {
        AccessKey::parse_of_any_strength(text).unwrap()
    }

    fn hosts() -> HostNames {
        HostNames::parse(["localhost"]).unwrap()
    }

    fn check_at(now: u64, token: &str) -> Result<Claims, TokenError> {
        check(token, now, &[key("first"), key("second")], &Audience { hosts: &hosts(), path: PATH })
    }

    fn object(value: Value) -> Map<String, Value> {
        serde_json::from_value(value).unwrap()
    }

    /// A token with exactly these parts, signed with `key` by HMAC-SHA256 whatever the header says.
    fn raw_token(header: &Value, claims: &Value, key: &str) -> String {
        let message = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header.to_string()),
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let signature = jsonwebtoken::crypto::sign(
            message.as_bytes(),
            &EncodingKey::from_secret(key.as_bytes()),
            Algorithm::HS256,
        )
        .unwrap();
        format!("{message}.{signature}")
    }

    fn token_of(claims: Value) -> String {
        let mut all =
            object(json!({"aud": "http://localhost/ws/api/v1/hubs/chat", "exp": NOW + 60}));
        all.extend(object(claims));
        all.retain(|_, value| !value.is_null());
        raw_token(&json!({"alg": "HS256", "typ": "JWT"}), &all.into(), "first")
    }

    fn new_token() -> NewToken<'static> {
        NewToken {
            audience: "http://localhost/ws/api/v1/hubs/chat/",
            issued_at: NOW,
            lifetime: Duration::from_hours(1),
            user: Some("ann"),
            claims: object(json!({"role": ["reader", "writer"], "sub": "bob", "exp": 1})),
        }
    }

    #[test]
    fn a_signed_token_passes_with_either_key_and_says_what_was_put_in() {
        for name in ["first", "second"] {
            let claims = check_at(NOW, &new_token().sign(&key(name))).unwrap();
            assert_eq!(claims.sub(), Some("ann"));
            assert_eq!(claims.get("exp"), Some(&json!(NOW + 3600)));
            assert_eq!(claims.get("iat"), Some(&json!(NOW)));
            assert_eq!(claims.get("role"), Some(&json!(["reader", "writer"])));
        }
        assert_eq!(check_at(NOW, &new_token().sign(&key("third"))), Err(TokenError::Signature));
        let nobody = NewToken { user: None, ..new_token() };
        assert_eq!(check_at(NOW, &nobody.sign(&key("first"))).unwrap().sub(), None);
    }

    #[test]
    fn a_token_of_another_maker_is_understood() {
        // The example that jwt.io opens with.
        let token = "eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ.SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c";
        let claims = decode(token, &[key("first"), key("your-256-bit-secret")]).unwrap();
        assert_eq!(
            Value::from(claims),
            json!({"sub": "1234567890", "name": "John Doe", "iat": 1_516_239_022})
        );
    }

    #[test]
    fn other_algorithms_are_refused_even_when_signed_with_the_key() {
        let claims = json!({"aud": "http://localhost/ws/api/v1/hubs/chat", "exp": NOW + 60});
        for algorithm in ["RS256", "HS384", "HS512", "ES256", "PS256", "EdDSA"] {
            let token = raw_token(&json!({"alg": algorithm}), &claims, "first");
            assert_eq!(check_at(NOW, &token), Err(TokenError::Algorithm), "{algorithm}");
        }
        for algorithm in ["none", "None", "hs256", ""] {
            let token = raw_token(&json!({"alg": algorithm}), &claims, "first");
            assert_eq!(check_at(NOW, &token), Err(TokenError::Malformed), "{algorithm}");
            let unsigned = &token[..=token.rfind('.').unwrap()];
            assert_eq!(check_at(NOW, unsigned), Err(TokenError::Malformed), "{algorithm}");
        }
        let critical =
            raw_token(&json!({"alg": "HS256", "crit": ["b64"], "b64": true}), &claims, "first");
        assert_eq!(check_at(NOW, &critical), Err(TokenError::Algorithm));
        let plain = raw_token(&json!({"alg": "HS256"}), &claims, "first");
        assert!(check_at(NOW, &plain).is_ok());
    }

    #[test]
    fn time_has_a_tolerance_of_five_minutes_on_both_ends() {
        let token = token_of(json!({"exp": NOW, "nbf": NOW - 10}));
        assert!(check_at(NOW + 299, &token).is_ok());
        assert_eq!(
            check_at(NOW + 300, &token),
            Err(TokenError::Expired { late: Duration::from_mins(5) })
        );
        assert!(check_at(NOW - 310, &token).is_ok());
        assert_eq!(
            check_at(NOW - 311, &token),
            Err(TokenError::TooEarly { early: Duration::from_secs(301) })
        );
    }

    #[test]
    fn an_expiry_is_required_and_is_a_number() {
        assert_eq!(check_at(NOW, &token_of(json!({"exp": null}))), Err(TokenError::NoExpiry));
        assert_eq!(
            check_at(NOW, &token_of(json!({"exp": "soon"}))),
            Err(TokenError::Claim { name: "exp" })
        );
        assert!(matches!(
            check_at(NOW, &token_of(json!({"exp": -1e300}))),
            Err(TokenError::Expired { .. })
        ));
        for far in [json!(1e300), json!(u64::MAX), json!(1_600_000_000.5)] {
            assert!(check_at(NOW, &token_of(json!({"exp": far}))).is_ok());
        }
        assert!(matches!(
            check_at(NOW, &token_of(json!({"nbf": 1e300}))),
            Err(TokenError::TooEarly { .. })
        ));
    }

    #[test]
    fn an_audience_may_be_one_of_several() {
        assert!(
            check_at(
                NOW,
                &token_of(
                    json!({"aud": ["http://other/", "ws://127.0.0.1:8080/WS/api/v1/hubs/Chat/?x"]})
                )
            )
            .is_ok()
        );
        assert_eq!(
            check_at(NOW, &token_of(json!({"aud": ["http://localhost/elsewhere"]}))),
            Err(TokenError::Audience {
                expected: "//localhost/ws/api/v1/hubs/chat".to_owned(),
                actual: vec!["http://localhost/elsewhere".to_owned()]
            })
        );
        for empty in [json!(null), json!([])] {
            assert!(matches!(
                check_at(NOW, &token_of(json!({"aud": empty}))),
                Err(TokenError::Audience { .. })
            ));
        }
        for wrong in [json!(1), json!([1]), json!({"a": 1})] {
            assert_eq!(
                check_at(NOW, &token_of(json!({"aud": wrong}))),
                Err(TokenError::Claim { name: "aud" })
            );
        }
    }

    #[test]
    fn a_user_is_a_name_that_is_not_empty() {
        assert_eq!(check_at(NOW, &token_of(json!({"sub": ""}))).unwrap().sub(), None);
        assert_eq!(
            check_at(NOW, &token_of(json!({"sub": 5}))),
            Err(TokenError::Claim { name: "sub" })
        );
    }

    #[test]
    fn a_token_that_is_too_long_is_refused_unread() {
        let token = "x".repeat(TOKEN_BYTES_MAX + 1);
        assert_eq!(check_at(NOW, &token), Err(TokenError::TooLong { bytes: 16_385 }));
        assert_eq!(check_at(NOW, &token[1..]), Err(TokenError::Malformed));
    }

    proptest! {
        /// What a checked token says of its times is by what it was checked.
        #[test]
        fn a_token_passes_within_its_times_and_not_before_or_after(expiry in 0..900_u64, start in proptest::option::of(0..900_u64), now in 0..900_u64) {
            let shifted = |seconds| NOW - 450 + seconds;
            let claims = object(json!({"exp": shifted(expiry), "nbf": start.map_or(0, shifted)}));
            let passes = check_time(&claims, shifted(now)).is_ok();
            prop_assert_eq!(Claims(claims).times().unwrap().contains(&shifted(now)), passes);
        }

        /// One changed character anywhere is noticed: there is one spelling of a signed token.
        #[test]
        fn a_changed_token_is_refused(at in any::<prop::sample::Index>(), with in "[A-Za-z0-9_.=+/ -]") {
            let token = new_token().sign(&key("first"));
            let at = at.index(token.len());
            let changed = format!("{}{with}{}", &token[..at], &token[at + 1..]);
            prop_assert_eq!(check_at(NOW, &changed).is_ok(), changed == token);
        }

        #[test]
        fn a_truncated_token_is_refused(length in any::<prop::sample::Index>()) {
            let token = new_token().sign(&key("first"));
            prop_assert!(check_at(NOW, &token[..length.index(token.len())]).is_err());
        }

        #[test]
        fn garbage_never_panics(token in "\\PC{0,80}", header in "\\PC{0,40}", claims in "\\PC{0,40}") {
            prop_assert!(check_at(NOW, &token).is_err());
            let dressed = format!("{}.{}.x", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
            prop_assert!(check_at(NOW, &dressed).is_err());
        }
    }
}
