use std::collections::BTreeMap;

use hookwire_proto::signature::AccessKey;
use hookwire_proto::token::{Audience, HostNames, NewToken};
use serde_json::json;

use super::*;

fn one_key() -> Arc<PublishedKeys> {
    // The public key of RFC 7515, appendix A.3.1.
    let key = json!({
        "kty": "EC", "crv": "P-256", "kid": "k",
        "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU", "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
    });
    let document = json!({ "keys": [key] }).to_string();
    Arc::new(PublishedKeys::parse(document.as_bytes()).unwrap())
}

#[test]
fn keys_are_fetched_when_missing_but_not_all_the_time() {
    let start = Instant::now();
    let at = |seconds: u64| start + Duration::from_secs(seconds);
    let mut known = Known::default();
    assert_eq!(known.need(Some("k"), at(0)), Need::Keys);
    known.tried = Some(at(0));
    assert_eq!(known.need(Some("k"), at(4)), Need::Nothing, "the first attempt has just failed");
    assert_eq!(known.need(Some("k"), at(5)), Need::Keys);
    assert!(known.trusted(at(5)).is_none());

    known = Known { keys: one_key(), fetched: Some(at(0)), tried: Some(at(0)) };
    for (key_id, second, need) in [
        (Some("k"), 0, Need::Nothing),
        (None, 3_599, Need::Nothing),
        (Some("other"), 29, Need::Nothing),
        (Some("other"), 30, Need::Keys),
        (Some("k"), 3_600, Need::Renewal),
        (Some("k"), 86_400, Need::Keys),
    ] {
        assert_eq!(known.need(key_id, at(second)), need, "{key_id:?} after {second} s");
    }
    assert!(known.trusted(at(86_399)).is_some());
    assert!(known.trusted(at(86_400)).is_none(), "too old to be trusted");
    known.tried = Some(at(3_600));
    assert_eq!(
        known.need(Some("k"), at(3_629)),
        Need::Nothing,
        "the renewal failed or is under way"
    );
    assert_eq!(known.need(Some("k"), at(3_630)), Need::Renewal);
}

#[test]
fn the_strongest_role_counts() {
    let allowed = |claim: &str, claims: Value| {
        let roles = [("Writer", RestAccess::Full), ("Reader", RestAccess::Read)];
        let config = OidcConfig {
            issuer: "https://issuer.example".to_owned(),
            jwks_url: "https://issuer.example/keys".parse().unwrap(),
            audience: "here".to_owned(),
            roles_claim: claim.to_owned(),
            roles: BTreeMap::from(roles.map(|(role, access)| (role.to_owned(), access))),
        };
        let key = AccessKey::parse_of_any_strength("key").unwrap();
        let token = NewToken {
            audience: "http://localhost/",
            issued_at: 0,
            lifetime: Duration::from_secs(1),
            user: None,
            claims: claims.as_object().unwrap().clone(),
        };
        let hosts = HostNames::parse(["localhost"]).unwrap();
        let audience = Audience { hosts: &hosts, path: "/" };
        let claims = hookwire_proto::token::check(&token.sign(&key), 0, &[key], &audience);
        access(&config, &claims.unwrap())
    };
    for (claims, expected) in [
        (json!({ "roles": ["Reader"] }), Some(RestAccess::Read)),
        (json!({ "roles": ["Reader", "Writer", "x"] }), Some(RestAccess::Full)),
        (json!({ "roles": "Reader" }), Some(RestAccess::Read)),
        (json!({ "roles": "openid Writer" }), Some(RestAccess::Full)),
        (json!({ "roles": ["reader", "WRITER"] }), None),
        (json!({ "roles": [] }), None),
        (json!({ "roles": {"Writer": true} }), None),
        (json!({ "roles": [["Writer"], 1, null] }), None),
        (json!({ "role": "Writer" }), None),
    ] {
        assert_eq!(allowed("roles", claims.clone()), expected, "{claims}");
    }
    let nested = json!({ "realm_access": { "roles": ["Reader"] } });
    assert_eq!(allowed("realm_access.roles", nested), Some(RestAccess::Read));
    let flat = json!({ "https://x.example/roles": "Writer" });
    assert_eq!(allowed("https://x.example/roles", flat), Some(RestAccess::Full));
}
