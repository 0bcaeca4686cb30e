//! Bearer tokens by which the service proves to a handler who it is.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use hookwire_proto::handler::{BearerSource, ClientCredentials};
use http::{HeaderMap, HeaderValue, Method, Request, header};
use http_body_util::{BodyExt, Full, Limited};
use tokio::io::AsyncReadExt;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use url::form_urlencoded;

use super::chain;
use super::client::Http;
use super::lease::Lease;
use super::request::Target;

/// Longest token, and largest answer of an authorization server, in bytes.
const TOKEN_BYTES_MAX: u64 = 64 * 1024;

/// A token's file is looked at again after this time.
pub(super) const FILE_TIME: Duration = Duration::from_secs(10);

/// How long an authorization server may take.
const TIME_MAX: Duration = Duration::from_secs(10);

/// The longest pause after a failure.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// How long a token is used whose server does not say how long it holds.
const UNKNOWN_TIME: Duration = Duration::from_mins(5);

/// How long a token is used at most.
const TOKEN_TIME_MAX: Duration = Duration::from_hours(24);

/// Tokens that are kept; when more are needed, those that have ended are forgotten, if need be all but those in use.
const TOKENS_MAX: usize = 256;

/// Why there is no token. Shows none, and no secret.
pub(super) type Fault = Arc<str>;

/// The tokens of all handlers, by their sources.
#[derive(Debug, Default)]
pub(super) struct Tokens(Mutex<Vec<(BearerSource, Shared)>>);

/// The token of a source.
type Shared = Arc<Lease<HeaderValue, Fault>>;

impl Tokens {
    /// Returns the value of `Authorization` with a token of that source. Cancel-safe.
    ///
    /// # Errors
    /// Why there is no token.
    pub(super) async fn get(
        &self,
        source: &BearerSource,
        http: &Http,
        tasks: &TaskTracker,
    ) -> Result<HeaderValue, Fault> {
        let lease = self.lease(source);
        let ask = || {
            let (source, http) = (source.clone(), http.clone());
            async move {
                let token = match &source {
                    BearerSource::File(file) => read(file).await,
                    BearerSource::ClientCredentials(credentials) => {
                        let asked = timeout(TIME_MAX, ask(credentials, &http)).await;
                        asked.unwrap_or_else(|_| {
                            Err(format!(
                                "the authorization server did not answer within {TIME_MAX:?}"
                            ))
                        })
                    }
                };
                token.map_err(|fault| {
                    tracing::warn!(fault, "there is no bearer token for an upstream");
                    fault.into()
                })
            }
        };
        lease.get(tasks, ask).await
    }

    fn lease(&self, source: &BearerSource) -> Arc<Lease<HeaderValue, Fault>> {
        let mut leases = self.0.lock().expect("nothing panics while it holds the table");
        if let Some((_, lease)) = leases.iter().find(|(other, _)| other == source) {
            return lease.clone();
        }
        if TOKENS_MAX <= leases.len() {
            leases.retain(|(_, lease)| !lease.is_over());
        }
        if TOKENS_MAX <= leases.len() {
            leases.retain(|(_, lease)| 1 < Arc::strong_count(lease));
        }
        let lease = Arc::new(Lease::new(PAUSE_MAX));
        leases.push((source.clone(), lease.clone()));
        lease
    }
}

/// Reads a token from a file.
async fn read(file: &Path) -> Result<(HeaderValue, Duration), String> {
    let read = async {
        let mut text = String::new();
        let file = tokio::fs::File::open(file).await?;
        file.take(TOKEN_BYTES_MAX + 1).read_to_string(&mut text).await?;
        std::io::Result::Ok(text)
    };
    let text = read
        .await
        .map_err(|error| format!("the token file {} cannot be read: {error}", file.display()))?;
    let token = authorization(text.trim())
        .ok_or_else(|| format!("the token file {} holds no token", file.display()))?;
    Ok((token, FILE_TIME))
}

/// Asks an authorization server (RFC 6749, section 4.4).
async fn ask(
    credentials: &ClientCredentials,
    http: &Http,
) -> Result<(HeaderValue, Duration), String> {
    let ClientCredentials { token_url, client_id, client_secret, scope } = credentials;
    let target = Target::parse(token_url.as_str()).ok_or("the token URL cannot be called")?;
    let form = form(client_id, client_secret.reveal(), scope.as_deref());
    let request = || {
        let mut headers = HeaderMap::new();
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(header::CONTENT_TYPE, kind);
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        let mut request = Request::new(Full::new(form.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = target.uri();
        *request.headers_mut() = headers;
        request
    };
    let response = http.ask(&target, request).await;
    let response =
        response.map_err(|error| format!("the authorization server: {}", chain(&error)))?;
    let status = response.status();
    let limit = usize::try_from(TOKEN_BYTES_MAX).expect("64 KiB fit");
    let body = Limited::new(response.into_body(), limit).collect().await;
    let body =
        body.map_err(|_| "the answer of the authorization server breaks off or is too long")?;
    let answer = serde_json::from_slice(&body.to_bytes()).unwrap_or_default();
    if !status.is_success() {
        let error = shown_error(&answer);
        return Err(format!("the authorization server answered {}{error}", status.as_u16()));
    }
    let token = answer.get("access_token").and_then(|token| authorization(token.as_str()?));
    let token = token.ok_or("the authorization server gave no access token")?;
    Ok((token, use_time(answer.get("expires_in"))))
}

/// Returns the request's body.
fn form(client_id: &str, client_secret: &str, scope: Option<&str>) -> Bytes {
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.append_pair("grant_type", "client_credentials").append_pair("client_id", client_id);
    form.append_pair("client_secret", client_secret);
    if let Some(scope) = scope {
        form.append_pair("scope", scope);
    }
    Bytes::from(form.finish())
}

/// Returns the error code that an authorization server names (RFC 6749, section 5.2).
fn shown_error(answer: &serde_json::Value) -> String {
    let error = answer.get("error").and_then(serde_json::Value::as_str).unwrap_or_default();
    let is_code = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
    if error.is_empty() || 64 < error.len() || !error.bytes().all(is_code) {
        return String::new();
    }
    format!(": {error}")
}

/// Returns how long a token is used that holds so many seconds: a number, or, from some servers, a text of digits. The last tenth is
/// left for those under way.
fn use_time(expires_in: Option<&serde_json::Value>) -> Duration {
    let seconds = expires_in.and_then(|value| {
        value.as_u64().or_else(|| value.as_str().and_then(|digits| digits.parse().ok()))
    });
    seconds
        .map_or(UNKNOWN_TIME, |seconds| Duration::from_secs(seconds).min(TOKEN_TIME_MAX) * 9 / 10)
}

/// Returns the value of the header; `None` if it is no token (RFC 6750, section 2.1).
fn authorization(token: &str) -> Option<HeaderValue> {
    let is_token = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~+/=".contains(&byte);
    let length = 1..=usize::try_from(TOKEN_BYTES_MAX).ok()?;
    if !length.contains(&token.len()) || !token.bytes().all(is_token) {
        return None;
    }
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_token_is_used_for_nine_tenths_of_its_time() {
        for (expires_in, seconds) in [
            (Some(json!(3_600)), 3_240),
            (Some(json!("3600")), 3_240),
            (Some(json!(0)), 0),
            (Some(json!(u64::MAX)), 24 * 3_240),
            (Some(json!(-1)), 300),
            (Some(json!("soon")), 300),
            (None, 300),
        ] {
            let time = use_time(expires_in.as_ref());
            assert_eq!(time, Duration::from_secs(seconds), "{expires_in:?}");
        }
    }

    #[test]
    fn what_is_no_token_makes_no_header() {
        let token = authorization("abc.DEF-_~+/0==").unwrap();
        assert_eq!(token, "Bearer abc.DEF-_~+/0==");
        assert!(token.is_sensitive());
        for text in ["", "a b", "a\r\nX: y", "ä", &"a".repeat(65_537)] {
            assert!(authorization(text).is_none(), "{text}");
        }
    }

    #[test]
    fn only_codes_of_errors_are_shown() {
        assert_eq!(shown_error(&json!({ "error": "invalid_client" })), ": invalid_client");
        for answer in [json!({}), json!({ "error": "a b" }), json!({ "error": 1 }), json!(null)] {
            assert_eq!(shown_error(&answer), "");
        }
    }
}
