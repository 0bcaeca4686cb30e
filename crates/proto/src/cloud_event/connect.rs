//! The connect event: what the upstream is asked and what it answers.

use std::collections::BTreeMap;
use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::json;
use crate::name::{GroupName, NameError, UserId};

/// Most groups and most roles in an answer. Ours.
pub const ANSWER_LIST_MAX: usize = 1_024;

/// What the upstream is told of a client that wants in (Web PubSub protocol, "connect"). `Debug` shows no value: there are cookies
/// and claims among them.
#[derive(Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectRequest {
    /// The claims of its token by name.
    pub claims: BTreeMap<String, Vec<String>>,
    /// The parameters of its URL by name, without the token.
    pub query: BTreeMap<String, Vec<String>>,
    /// The headers of its handshake by name, without `Authorization`.
    pub headers: BTreeMap<String, Vec<String>>,
    /// The subprotocols it offers, in its order.
    pub subprotocols: Vec<String>,
    /// The certificates that it has shown.
    pub client_certificates: Vec<ClientCertificate>,
}

/// A certificate of a client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClientCertificate {
    /// Its SHA-1 hash in hexadecimal digits.
    pub thumbprint: String,
    /// The certificate, PEM.
    pub content: String,
}

impl ConnectRequest {
    /// Returns what the upstream may know: `access_token` and `Authorization` are left out, whatever their case. `claims` is what
    /// [`Claims::all`](crate::token::Claims::all) returns.
    pub fn new(
        claims: BTreeMap<String, Vec<String>>,
        query: impl IntoIterator<Item = (String, String)>,
        headers: impl IntoIterator<Item = (String, String)>,
        subprotocols: Vec<String>,
    ) -> Self {
        let mut request = Self { claims, subprotocols, ..Self::default() };
        for (name, value) in query {
            if !name.eq_ignore_ascii_case("access_token") {
                request.query.entry(name).or_default().push(value);
            }
        }
        for (name, value) in headers {
            if !name.eq_ignore_ascii_case("authorization") {
                request.headers.entry(name).or_default().push(value);
            }
        }
        request
    }

    /// Returns the body of the event. Properties stand in their documented order, names in maps by their bytes.
    pub fn to_json(&self) -> Bytes {
        json(self)
    }
}

impl fmt::Debug for ConnectRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectRequest")
            .field("claims", &self.claims.len())
            .field("query", &self.query.len())
            .field("headers", &self.headers.len())
            .field("subprotocols", &self.subprotocols)
            .field("client_certificates", &self.client_certificates.len())
            .finish()
    }
}

/// What the upstream says of a client that it lets in. Without a property the token's word stands.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConnectAnswer {
    /// The client's user.
    pub user_id: Option<UserId>,
    /// The user id is the empty text: the client has no user, whatever its token says.
    pub is_anonymous: bool,
    /// The client's groups instead of the token's; never empty.
    pub groups: Option<Vec<GroupName>>,
    /// The client's roles instead of the token's; may be empty.
    pub roles: Option<Vec<String>>,
    /// The subprotocol that was chosen.
    pub subprotocol: Option<String>,
}

/// Why an answer is malformed. No text repeats any of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectAnswerError {
    /// Not JSON, or a property of the wrong type.
    #[error("the answer is not the documented JSON, at line {line} and column {column}")]
    Malformed {
        /// Where it stops to be, from 1; 0 if there is no line.
        line: usize,
        /// Where it stops to be, from 1.
        column: usize,
    },
    /// JSON, but neither an object nor `null`.
    #[error("the answer is no JSON object")]
    NoObject,
    /// No user id.
    #[error("userId: the user id breaks its rule")]
    User(#[source] NameError),
    /// No group name.
    #[error("groups: a name breaks its rule")]
    Group(#[source] NameError),
    /// More than [`ANSWER_LIST_MAX`].
    #[error("{property} has {count} entries, {ANSWER_LIST_MAX} are allowed")]
    TooMany {
        /// Of what.
        property: &'static str,
        /// How many.
        count: usize,
    },
}

impl ConnectAnswer {
    /// Reads the body of a 2xx answer, whatever its content type says. Nothing and `null` say nothing; unknown properties are skipped,
    /// and `null` is no value. An empty list of groups is none (Web PubSub protocol, "connect").
    ///
    /// # Errors
    /// The body is malformed, which refuses the client.
    pub fn parse(body: &[u8]) -> Result<Self, ConnectAnswerError> {
        #[derive(Deserialize, Default)]
        #[serde(rename_all = "camelCase", default)]
        struct Raw {
            user_id: Option<String>,
            groups: Option<Vec<String>>,
            roles: Option<Vec<String>>,
            subprotocol: Option<String>,
        }

        let body = body.trim_ascii();
        if body.is_empty() {
            return Ok(Self::default());
        }
        // An array would pass for a struct.
        if !matches!(body[0], b'{' | b'n') {
            return Err(ConnectAnswerError::NoObject);
        }
        let raw: Option<Raw> = serde_json::from_slice(body).map_err(|error| {
            ConnectAnswerError::Malformed { line: error.line(), column: error.column() }
        })?;
        let raw = raw.unwrap_or_default();

        for (property, list) in [("groups", &raw.groups), ("roles", &raw.roles)] {
            if let Some(list) = list
                && ANSWER_LIST_MAX < list.len()
            {
                return Err(ConnectAnswerError::TooMany { property, count: list.len() });
            }
        }
        let is_anonymous = raw.user_id.as_deref() == Some("");
        let user_id = raw.user_id.filter(|id| !id.is_empty());
        let user_id = user_id.map(|id| UserId::parse(&id)).transpose();
        let groups = raw.groups.filter(|groups| !groups.is_empty());
        let groups = groups
            .map(|groups| groups.iter().map(|group| GroupName::parse(group)).collect())
            .transpose();
        Ok(Self {
            user_id: user_id.map_err(ConnectAnswerError::User)?,
            is_anonymous,
            groups: groups.map_err(ConnectAnswerError::Group)?,
            roles: raw.roles,
            subprotocol: raw.subprotocol.filter(|subprotocol| !subprotocol.is_empty()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_request_has_the_documented_shape() {
        let mut request = ConnectRequest::new(
            BTreeMap::from([("role".to_owned(), vec!["a".to_owned(), "b".to_owned()])]),
            pairs(&[("tag", "a"), ("ACCESS_TOKEN", "secret"), ("a\"", "ü"), ("tag", "b")]),
            pairs(&[("X-Custom", "v"), ("authorization", "secret"), ("Cookie", "c")]),
            vec!["json.webpubsub.azure.v1".to_owned()],
        );
        request.client_certificates =
            vec![ClientCertificate { thumbprint: "AB".to_owned(), content: "PEM".to_owned() }];
        assert_eq!(
            request.to_json(),
            concat!(
                r#"{"claims":{"role":["a","b"]},"query":{"a\"":["ü"],"tag":["a","b"]},"headers":{"Cookie":["c"],"X-Custom":["v"]},"#,
                r#""subprotocols":["json.webpubsub.azure.v1"],"clientCertificates":[{"thumbprint":"AB","content":"PEM"}]}"#
            )
            .as_bytes()
        );
        assert_eq!(
            ConnectRequest::default().to_json(),
            &br#"{"claims":{},"query":{},"headers":{},"subprotocols":[],"clientCertificates":[]}"#
                [..]
        );
        let shown = format!("{request:?}");
        assert!(!shown.contains("Custom") && !shown.contains("tag"), "{shown}");
    }

    fn answer(body: &str) -> Result<ConnectAnswer, ConnectAnswerError> {
        ConnectAnswer::parse(body.as_bytes())
    }

    #[test]
    fn nothing_says_nothing() {
        for body in [
            "",
            " \r\n",
            "null",
            "{}",
            r#"{"userId": null, "groups": null, "roles": null, "subprotocol": null}"#,
            r#"{"groups": [], "subprotocol": "", "mqtt": {"userProperties": [1]}, "UserId": 1}"#,
        ] {
            assert_eq!(answer(body), Ok(ConnectAnswer::default()), "{body}");
        }
    }

    #[test]
    fn what_is_said_is_understood() {
        let whole = answer(
            r#"{"userId": "用户", "groups": ["a", "b"], "roles": ["r"], "subprotocol": "s", "x": [[{}]]}"#,
        )
        .unwrap();
        assert_eq!(whole.user_id.unwrap().as_str(), "用户");
        assert_eq!(whole.groups.unwrap().len(), 2);
        assert_eq!(whole.roles, Some(vec!["r".to_owned()]));
        assert_eq!(whole.subprotocol.as_deref(), Some("s"));
        let none = answer(r#"{"userId": "", "roles": []}"#).unwrap();
        assert!(none.is_anonymous && none.user_id.is_none());
        assert_eq!(none.roles, Some(vec![]), "no roles at all");
    }

    #[test]
    fn malformed_answers_are_refused_without_repeating_them() {
        let many = |property| format!(r#"{{"{property}": [{}"x"]}}"#, "\"x\",".repeat(1_024));
        let (groups, roles) = (many("groups"), many("roles"));
        for body in [
            "not-json",
            "{",
            "{} {}",
            "nul",
            "[]",
            r#"["secret"]"#,
            r#""secret""#,
            "1",
            r#"{"userId": 1}"#,
            r#"{"userId": " "}"#,
            r#"{"userId": "secret\n"}"#,
            r#"{"groups": "secret"}"#,
            r#"{"groups": [null]}"#,
            r#"{"groups": [" "]}"#,
            r#"{"groups": [["secret"]]}"#,
            r#"{"roles": [null]}"#,
            r#"{"roles": {"secret": 1}}"#,
            r#"{"subprotocol": ["secret"]}"#,
            r#"{"userId": "a", "userId": "secret"}"#,
            &groups,
            &roles,
        ] {
            let error = answer(body).unwrap_err();
            assert!(!format!("{error}").contains("secret"), "{body}: {error}");
        }
        assert!(ConnectAnswer::parse(b"{\"userId\": \"\xff\"}").is_err());
        let error = ConnectAnswerError::TooMany { property: "roles", count: 1_025 };
        assert_eq!(answer(&roles), Err(error));
    }

    proptest! {
        #[test]
        fn hostile_answers_never_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = ConnectAnswer::parse(&body);
        }

        #[test]
        fn answers_of_any_shape_never_panic(body in r#"\{("(userId|groups|roles|subprotocol)":(null|1|"[a ]?"|\["a?"?\]|\{\}),?){0,4}\}"#) {
            let _ = answer(&body);
        }
    }
}
