//! What a token says, and how a request to an upstream repeats it.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::ops::Range;

use serde_json::{Map, Value};

use crate::name::{GroupName, NameError};

/// What a checked token says.
#[derive(Clone, Debug, PartialEq)]
pub struct Claims(pub(super) Map<String, Value>);

impl Claims {
    /// Returns the user that the token names. An empty name is none.
    pub fn sub(&self) -> Option<&str> {
        self.get("sub").and_then(Value::as_str).filter(|sub| !sub.is_empty())
    }

    /// Returns when the token passes, in seconds since 1970; `None` unless it has been checked.
    pub fn times(&self) -> Option<Range<u64>> {
        super::times(&self.0).ok()
    }

    /// Returns one claim.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.get(name)
    }

    /// Returns the texts of `aud`.
    pub fn audiences(&self) -> impl Iterator<Item = &str> {
        self.get("aud").map_or(&[][..], elements).iter().filter_map(Value::as_str)
    }

    /// Returns the roles that the token gives: [`ROLE_CLAIM`] is a text or a list; what is no text in it gives nothing.
    pub fn roles(&self) -> Vec<String> {
        let roles = self.get(ROLE_CLAIM).map_or(&[][..], elements);
        roles.iter().filter_map(Value::as_str).map(str::to_owned).collect()
    }

    /// Returns the groups that the token puts its client into: [`GROUP_CLAIM`] is a text or a list of texts.
    ///
    /// # Errors
    /// It is something else, or a text is no group name.
    pub fn groups(&self) -> Result<Vec<GroupName>, GroupClaimError> {
        let groups = self.get(GROUP_CLAIM).map_or(&[][..], elements).iter();
        groups
            .map(|group| {
                let group = group.as_str().ok_or(GroupClaimError::Type)?;
                GroupName::parse(group).map_err(GroupClaimError::Name)
            })
            .collect()
    }

    /// Returns every claim, `aud`, `exp` and their like included, as the connect event of Web PubSub lists them: a value per element
    /// of an array, numbers and truth values as text, `null` as an empty text, objects and arrays within arrays as JSON.
    pub fn all(&self) -> BTreeMap<String, Vec<String>> {
        let text = |value: &Value| match value {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
                value.to_string()
            }
        };
        let values = |value| elements(value).iter().map(text).collect();
        self.0.iter().map(|(name, value)| (name.clone(), values(value))).collect()
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
            for value in elements(value) {
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

/// The claim that lists the roles of a client (Web PubSub protocol, "Client access token").
pub const ROLE_CLAIM: &str = "role";

/// The claim that lists the groups that a client joins at once (Web PubSub protocol, "Client access token").
pub const GROUP_CLAIM: &str = "webpubsub.group";

/// A token's [`GROUP_CLAIM`] cannot be followed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GroupClaimError {
    /// It is not made of texts.
    #[error("the token's claim {GROUP_CLAIM} must be a text or a list of texts")]
    Type,
    /// One of the texts is no group name.
    #[error("the token's claim {GROUP_CLAIM} holds what is no group name: {0}")]
    Name(NameError),
}

/// The claims of a token do not fit into a header of [`USER_CLAIMS_BYTES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the token's claims are longer than {USER_CLAIMS_BYTES_MAX} bytes")]
pub struct ClaimsTooLong;

/// Longest `X-ASRS-User-Claims`, in bytes: what common HTTP servers take in one header line.
pub const USER_CLAIMS_BYTES_MAX: usize = 8_192;

/// Returns the elements of an array, or the one value that there is.
fn elements(value: &Value) -> &[Value] {
    value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice)
}

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
    fn roles_and_groups_are_one_text_or_a_list() {
        let read = |value: Value| {
            let claims = claims(json!({ "role": value, "webpubsub.group": value }));
            let groups = claims.groups().map(|groups| {
                groups.iter().map(|group| group.as_str().to_owned()).collect::<Vec<_>>()
            });
            (claims.roles(), groups)
        };
        assert_eq!(read(json!("a b")), (vec!["a b".to_owned()], Ok(vec!["a b".to_owned()])));
        let both = ["a", "b"].map(str::to_owned).to_vec();
        assert_eq!(read(json!(["a", "b"])), (both.clone(), Ok(both)));
        assert_eq!(read(json!([])), (vec![], Ok(vec![])));
        for wrong in [json!(1), json!([["a"]]), json!({"a": 1}), json!(null)] {
            assert_eq!(read(wrong), (vec![], Err(GroupClaimError::Type)));
        }
        let blank = NameError::Blank { what: "group name" };
        assert_eq!(read(json!([" "])).1, Err(GroupClaimError::Name(blank)));
        let none = claims(json!({}));
        assert_eq!((none.roles(), none.groups()), (vec![], Ok(vec![])));
    }

    #[test]
    fn all_claims_become_lists_of_texts() {
        let claims = claims(json!({
            "sub": "ann", "exp": 1, "half": 0.5, "list": ["a", 2, null, ["b"], {"c": true}], "none": [], "yes": true,
            "null": null, "object": {"a": "b"},
        }));
        let all = claims.all();
        let of = |name: &str| all[name].iter().map(String::as_str).collect::<Vec<_>>();
        assert_eq!(all.len(), 8);
        assert_eq!(of("sub"), ["ann"]);
        assert_eq!(of("exp"), ["1"]);
        assert_eq!(of("half"), ["0.5"]);
        assert_eq!(of("list"), ["a", "2", "", "[\"b\"]", "{\"c\":true}"]);
        assert_eq!(of("none"), [""; 0]);
        assert_eq!(of("yes"), ["true"]);
        assert_eq!(of("null"), [""]);
        assert_eq!(of("object"), ["{\"a\":\"b\"}"]);
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
