use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::{KeyPair as RsaKeyPair, KeySize};
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use jsonwebtoken::{EncodingKey, Header};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::token::{Audience, HostNames};

const NOW: u64 = 1_600_000_000;
const ISSUER: &str = "https://issuer.example/tenant";
const AUDIENCE: &str = "https://webpubsub.azure.com";

/// One key of a provider.
struct Signer {
    algorithm: Algorithm,
    key: EncodingKey,
}

impl Signer {
    fn rsa() -> Self {
        let key = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let der = AsDer::<aws_lc_rs::encoding::Pkcs8V1Der<'_>>::as_der(&key).unwrap();
        // Behind what PKCS #8 wraps around a key of this size.
        let key = EncodingKey::from_rsa_der(&der.as_ref()[26..]);
        Self { algorithm: Algorithm::RS256, key }
    }

    fn ec() -> Self {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let der = key.to_pkcs8v1().unwrap();
        Self { algorithm: Algorithm::ES256, key: EncodingKey::from_ec_der(der.as_ref()) }
    }

    fn published(&self, id: &str) -> Value {
        let mut jwk =
            serde_json::to_value(Jwk::from_encoding_key(&self.key, self.algorithm).unwrap())
                .unwrap();
        jwk["kid"] = id.into();
        jwk["use"] = "sig".into();
        jwk
    }

    fn sign(&self, id: Option<&str>, claims: &Value) -> String {
        let header = Header { kid: id.map(str::to_owned), ..Header::new(self.algorithm) };
        jsonwebtoken::encode(&header, claims, &self.key).unwrap()
    }
}

fn keys(keys: &[Value]) -> PublishedKeys {
    PublishedKeys::parse(json!({ "keys": keys }).to_string().as_bytes()).unwrap()
}

fn claims() -> Value {
    json!({ "iss": ISSUER, "aud": AUDIENCE, "exp": NOW + 60, "roles": ["Owner"], "sub": "app" })
}

fn checked(token: &str, keys: &PublishedKeys) -> Result<Claims, TokenError> {
    check(token, NOW, keys, ISSUER, AUDIENCE)
}

#[test]
fn tokens_of_both_kinds_pass_with_the_key_that_they_name() {
    let (rsa, ec) = (Signer::rsa(), Signer::ec());
    let keys = keys(&[rsa.published("r"), ec.published("e")]);
    for (signer, id) in [(&rsa, "r"), (&ec, "e")] {
        let token = signer.sign(Some(id), &claims());
        assert_eq!(
            Origin::of(&token),
            Ok(Some(Origin {
                issuer: ISSUER.to_owned(),
                audiences: vec![AUDIENCE.to_owned()],
                key_id: Some(id.to_owned())
            }))
        );
        assert_eq!(checked(&token, &keys).unwrap().sub(), Some("app"));
        assert!(checked(&signer.sign(None, &claims()), &keys).is_ok(), "the key may be guessed");
        assert!(keys.has(Some(id)) && keys.has(None));
    }
    // Another key of the same provider, a key that it does not have, a key of another provider under the same name.
    assert_eq!(checked(&rsa.sign(Some("e"), &claims()), &keys), Err(TokenError::ForeignSignature));
    assert_eq!(checked(&rsa.sign(Some("x"), &claims()), &keys), Err(TokenError::ForeignSignature));
    assert!(!keys.has(Some("x")));
    assert_eq!(
        checked(&Signer::ec().sign(Some("e"), &claims()), &keys),
        Err(TokenError::ForeignSignature)
    );
}

#[test]
fn the_kinds_of_keys_do_not_mix() {
    let ec = Signer::ec();
    let published = ec.published("e");
    let keys = keys(std::slice::from_ref(&published));
    // What everybody knows of a public key, used as the secret of an HMAC.
    for secret in [published["x"].as_str().unwrap().to_owned(), published.to_string()] {
        let key = EncodingKey::from_secret(secret.as_bytes());
        let header = Header { kid: Some("e".to_owned()), ..Header::new(Algorithm::HS256) };
        let token = jsonwebtoken::encode(&header, &claims(), &key).unwrap();
        assert_eq!(checked(&token, &keys), Err(TokenError::Algorithm));
        assert_eq!(Origin::of(&token), Ok(None), "it is for the access keys");
    }
    // A symmetric key that a provider publishes by mistake is no key.
    let secret = EncodingKey::from_secret(b"secret");
    let mut symmetric =
        serde_json::to_value(Jwk::from_encoding_key(&secret, Algorithm::HS256).unwrap()).unwrap();
    symmetric["kid"] = "s".into();
    assert!(
        !PublishedKeys::parse(json!({ "keys": [symmetric] }).to_string().as_bytes())
            .unwrap()
            .has(None)
    );
    // Nor does a token of a provider pass for one of the access keys.
    let token = ec.sign(Some("e"), &claims());
    let hosts = HostNames::parse(["localhost"]).unwrap();
    let key = crate::signature::AccessKey::parse_of_any_strength("key").unwrap();
    let audience = Audience { hosts: &hosts, path: "/" };
    assert_eq!(super::super::check(&token, NOW, &[key], &audience), Err(TokenError::Algorithm));
    for unsigned in [
        "eyJhbGciOiJub25lIn0.e30.",
        // {"alg":"none","kid":"e"}
        "eyJhbGciOiJub25lIiwia2lkIjoiZSJ9.e30.",
    ] {
        assert_eq!(checked(unsigned, &keys), Err(TokenError::Malformed));
        assert_eq!(Origin::of(unsigned), Ok(None));
    }
}

#[test]
fn issuer_audience_and_time_must_be_right() {
    let ec = Signer::ec();
    let keys = keys(&[ec.published("e")]);
    let with = |changes: Value| {
        let mut all = claims();
        for (name, value) in changes.as_object().unwrap() {
            all[name] = value.clone();
        }
        checked(&ec.sign(Some("e"), &all), &keys)
    };
    assert!(with(json!({})).is_ok());
    assert!(with(json!({ "aud": ["other", AUDIENCE] })).is_ok());
    assert!(with(json!({ "exp": NOW - 299, "nbf": NOW + 299 })).is_ok());
    for issuer in [json!("https://issuer.example/tenant/"), json!(null), json!([ISSUER])] {
        assert_eq!(with(json!({ "iss": issuer })), Err(TokenError::Issuer));
    }
    for audience in [json!("https://webpubsub.azure.com/"), json!([]), json!(["x"])] {
        assert!(matches!(with(json!({ "aud": audience })), Err(TokenError::Audience { .. })));
    }
    assert_eq!(with(json!({ "aud": 1 })), Err(TokenError::Claim { name: "aud" }));
    assert!(matches!(with(json!({ "exp": NOW - 300 })), Err(TokenError::Expired { .. })));
    assert!(matches!(with(json!({ "nbf": NOW + 301 })), Err(TokenError::TooEarly { .. })));
    assert_eq!(with(json!({ "exp": null })), Err(TokenError::Claim { name: "exp" }));
}

#[test]
fn keys_that_do_not_fit_are_passed_over() {
    let ec = Signer::ec();
    let changed = |name: &str, value: Value| {
        let mut jwk = ec.published("e");
        jwk[name] = value;
        jwk
    };
    let plain = json!({ "kty": "EC", "crv": "P-256", "x": ec.published("e")["x"], "y": ec.published("e")["y"] });
    assert!(checked(&ec.sign(None, &claims()), &keys(&[plain])).is_ok(), "nothing but the key");
    for (name, value) in [
        ("use", json!("enc")),
        ("alg", json!("ES384")),
        ("crv", json!("P-384")),
        ("kty", json!("new")),
        ("x", json!(1)),
        ("x", json!("§")),
    ] {
        let other = changed(name, value.clone());
        assert!(!keys(&[other]).has(None), "{name} {value}");
    }
    // A point that is not on the curve checks nothing.
    let nonsense = keys(&[changed("x", "AAAA".into())]);
    assert!(checked(&ec.sign(Some("e"), &claims()), &nonsense).is_err());
    for wrong in ["", "[]", "{}", r#"{"keys":{}}"#, "null"] {
        assert_eq!(PublishedKeys::parse(wrong.as_bytes()).unwrap_err(), NotKeys, "{wrong}");
    }
    let many: Vec<Value> = (0..200).map(|at| ec.published(&at.to_string())).collect();
    let many = keys(&many);
    assert!(many.has(Some("127")) && !many.has(Some("128")));
}

proptest! {
    #[test]
    fn a_changed_token_is_refused(at in any::<prop::sample::Index>(), with in "[A-Za-z0-9_.=+/ -]") {
        static SIGNED: LazyLock<(PublishedKeys, String)> = LazyLock::new(|| {
            let ec = Signer::ec();
            (keys(&[ec.published("e")]), ec.sign(Some("e"), &claims()))
        });
        let (keys, token) = &*SIGNED;
        let at = at.index(token.len());
        let changed = format!("{}{with}{}", &token[..at], &token[at + 1..]);
        prop_assert_eq!(checked(&changed, keys).is_ok(), changed == *token);
    }

    #[test]
    fn garbage_never_panics(token in "\\PC{0,80}", document in any::<Vec<u8>>()) {
        let _ = Origin::of(&token);
        prop_assert!(checked(&token, &PublishedKeys::default()).is_err());
        let _ = PublishedKeys::parse(&document);
    }
}
