//! Tokens as they come from anywhere.

use std::time::Duration;

use hookwire_proto::signature::AccessKey;
use hookwire_proto::token::{self, Audience, HostNames, NewToken, TokenError};

const NOW: u64 = 1_700_000_000;
const PATH: &str = "/client/hubs/chat";

/// Gives `input` to the check as a token, and as the claims of a token that is signed well. A stranger's token is never believed, and no
/// error repeats it.
pub(crate) fn check(input: &[u8]) {
    let key = AccessKey::parse("a key of at least thirty-two bytes").expect("it is long enough");
    let hosts = HostNames::parse(["localhost"]).expect("it is a name");
    let audience = Audience { hosts: &hosts, path: PATH };
    let Ok(text) = std::str::from_utf8(input) else { return };
    let stranger = token::check(text, NOW, std::slice::from_ref(&key), &audience);
    // The key is known to this file alone: an input that passes was made with it.
    let error = stranger.expect_err("a stranger has come in");
    // Other texts may be words of the sentence.
    if text.matches('.').count() == 2 {
        assert!(!error.to_string().contains(text));
    }
    if let Ok(serde_json::Value::Object(claims)) = serde_json::from_str(text) {
        let new = NewToken {
            audience: "http://localhost/client/hubs/chat",
            issued_at: NOW,
            lifetime: Duration::from_hours(1),
            user: Some("ann"),
            claims,
        };
        match token::check(&new.sign(&key), NOW, std::slice::from_ref(&key), &audience) {
            Ok(claims) => {
                let _ = (claims.roles(), claims.groups());
                assert!(claims.sub().is_none_or(|user| !user.is_empty()));
            }
            Err(error) => assert!(!matches!(error, TokenError::Signature), "it was signed well"),
        }
    }
}
