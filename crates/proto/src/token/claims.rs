//! What a token says, and how a request to an upstream repeats it.

use std::fmt::Write;

use serde_json::{Map, Value};

/// What a checked token says.
#[derive(Clone, Debug, PartialEq)]
pub struct Claims(pub(super) Map<String, Value>);

impl Claims {
    /// Returns the user that the token names. An empty name is none.
    pub fn sub(&self) -> Option<&str> {
        self.get("sub").and_then(Value::as_str).filter(|sub| !sub.is_empty())
    }

    /// Returns one claim.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Returns every claim in the token's order, `aud`, `exp` and their like included.
    pub fn all(&self) -> &Map<String, Value> {
        &self.0
    }

    /// Returns the value of `X-ASRS-User-Claims`: `type: value` pairs joined by `, `, in the token's order.
    ///
    /// A string stands as it is, an array gives one pair per element, anything else is JSON. A string or name that holds a
    /// control character is written as its JSON string, quotes and escapes included, so that no value can end the header. The form
    /// follows the upstream of the older service (preview protocol, "Request headers", where it is marked as unverified).
    /// [`read_user_claims`] is the other direction.
    ///
    /// # Errors
    /// [`ClaimsTooLong`] above [`USER_CLAIMS_BYTES_MAX`].
    pub fn to_user_claims(&self) -> Result<String, ClaimsTooLong> {
        let mut header = String::new();
        for (name, value) in &self.0 {
            let values = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
            for value in values {
                if !header.is_empty() {
                    header.push_str(", ");
                }
                push_text(&mut header, name);
                header.push_str(": ");
                match value.as_str() {
                    Some(text) => push_text(&mut header, text),
                    None => push_json(&mut header, value),
                }
                if USER_CLAIMS_BYTES_MAX < header.len() {
                    return Err(ClaimsTooLong);
                }
            }
        }
        Ok(header)
    }
}

/// Reads the pairs of `X-ASRS-User-Claims`, in order; the elements of an array are pairs with the same name.
///
/// The form is ambiguous: a value that holds `, ` and later `: ` reads like two pairs. What depends on a claim should therefore
/// not depend on what users can put into other claims. A piece without `: ` belongs to the value before it.
pub fn read_user_claims(header: &str) -> Vec<(String, String)> {
    let mut pairs: Vec<(String, String)> = Vec::new();
    for piece in header.split(", ") {
        match (piece.split_once(": "), pairs.last_mut()) {
            (Some((name, value)), _) => pairs.push((name.to_owned(), value.to_owned())),
            (None, Some((_, value))) => {
                value.push_str(", ");
                value.push_str(piece);
            }
            (None, None) => {}
        }
    }
    for (name, value) in &mut pairs {
        unescape(name);
        unescape(value);
    }
    pairs
}

/// The claims of a token do not fit into a header of [`USER_CLAIMS_BYTES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the token's claims are longer than {USER_CLAIMS_BYTES_MAX} bytes")]
pub struct ClaimsTooLong;

/// Longest `X-ASRS-User-Claims`, in bytes: what common HTTP servers take in one header line.
pub const USER_CLAIMS_BYTES_MAX: usize = 8_192;

fn push_text(header: &mut String, text: &str) {
    if text.contains(char::is_control) {
        push_json(header, &Value::from(text));
    } else {
        header.push_str(text);
    }
}

/// Appends JSON without control characters: those that JSON allows inside strings are escaped too.
fn push_json(header: &mut String, value: &Value) {
    for character in value.to_string().chars() {
        if character.is_control() {
            write!(header, "\\u{:04x}", u32::from(character))
                .expect("writing to a string cannot fail");
        } else {
            header.push(character);
        }
    }
}

/// Undoes [`push_text`]: a JSON string that holds no control character was a string with quotes around it.
fn unescape(text: &mut String) {
    if text.starts_with('"')
        && let Ok(plain) = serde_json::from_str::<String>(text)
        && plain.contains(char::is_control)
    {
        *text = plain;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn claims(value: Value) -> Claims {
        Claims(serde_json::from_value(value).unwrap())
    }

    #[test]
    fn claims_keep_the_order_of_the_token() {
        let claims = claims(
            json!({"zeta": 1, "alpha": "two words", "list": ["a", {"b": null}], "none": [], "last": true}),
        );
        assert_eq!(
            claims.to_user_claims().unwrap(),
            r#"zeta: 1, alpha: two words, list: a, list: {"b":null}, last: true"#
        );
    }

    #[test]
    fn claims_cannot_end_the_header() {
        let claims = claims(
            json!({"a": "x\r\nEvil: 1", "b\n": "\u{7f}", "c": {"\u{7f}": "\u{85}"}, "d": "ä"}),
        );
        let header = claims.to_user_claims().unwrap();
        assert_eq!(header, r#"a: "x\r\nEvil: 1", "b\n": "\u007f", c: {"\u007f":"\u0085"}, d: ä"#);
        assert_eq!(read_user_claims(&header)[1], ("b\n".to_owned(), "\u{7f}".to_owned()));
    }

    #[test]
    fn claims_that_would_grow_beyond_a_header_are_refused() {
        let claims = claims(json!({"n".repeat(100): vec![""; 100]}));
        assert_eq!(claims.to_user_claims(), Err(ClaimsTooLong));
    }

    #[test]
    fn pairs_are_read_as_a_person_would() {
        let read = read_user_claims(
            "http://schemas.example/name: Ann, role: a, role: b, note: one, two, q: \"quoted\"",
        );
        let expected = [
            ("http://schemas.example/name", "Ann"),
            ("role", "a"),
            ("role", "b"),
            ("note", "one, two"),
            ("q", "\"quoted\""),
        ];
        assert_eq!(read, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        assert_eq!(read_user_claims(""), []);
        assert_eq!(read_user_claims("nothing"), []);
    }

    proptest! {
        /// Whatever a signer puts into claims, the header can be sent and reading it does not panic.
        #[test]
        fn user_claims_hold_no_control_characters(claims in prop::collection::hash_map(".{0,20}", any::<String>(), 0..8)) {
            let claims = Claims(claims.into_iter().map(|(name, value)| (name, value.into())).collect());
            if let Ok(header) = claims.to_user_claims() {
                prop_assert!(!header.contains(char::is_control));
                read_user_claims(&header);
            }
        }

        #[test]
        fn names_and_values_without_commas_and_colons_come_back(pairs in prop::collection::vec(("[^,:\"]{1,9}", "[^,:\"]{0,9}"), 0..6)) {
            let claims: Map<String, Value> = pairs.into_iter().map(|(name, value)| (name, value.into())).collect();
            let expected: Vec<(String, String)> =
                claims.iter().map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned())).collect();
            prop_assert_eq!(read_user_claims(&Claims(claims).to_user_claims().unwrap()), expected);
        }
    }
}
