//! The page: built files inside the binary, and how they are answered.
//!
//! A build without optimisation reads them from disk instead, so that building the page again is enough.

use std::fmt::Write as _;

use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use rust_embed::{EmbeddedFile, RustEmbed};
use url::Url;

use crate::api_error::{Answer, ApiError};
use crate::http::text;

/// The files that `cargo xtask pages` builds.
#[derive(RustEmbed)]
#[folder = "../../web/dist/console"]
#[allow_missing = true]
struct Built;

/// The built page, with the headers that it needs.
#[derive(Debug)]
pub(super) struct Pages {
    policy: HeaderValue,
}

impl Pages {
    /// Allows the page to talk to its own server and to `endpoints`, which are the same under other names, and to nobody else.
    pub(super) fn new(endpoints: &[Url]) -> Self {
        let policy = HeaderValue::from_str(&policy(endpoints));
        Self { policy: policy.expect("an origin is ASCII without control characters") }
    }

    /// Returns the page, or one that says how to build it.
    pub(super) fn index(&self, request: &HeaderMap) -> Answer {
        let mut answer = match Built::get("index.html") {
            Some(file) => answer(&file, "no-cache", request),
            None => not_built(),
        };
        self.secure(&mut answer);
        answer
    }

    /// Returns a file. The names of those below `assets/` change with their content.
    pub(super) fn file(&self, path: &str, request: &HeaderMap) -> Answer {
        let cache = match path.split_once('/') {
            Some(("assets", _)) => "public, max-age=31536000, immutable",
            _ => "no-cache",
        };
        let mut answer = match Built::get(path) {
            Some(file) => answer(&file, cache, request),
            None => ApiError::not_found("there is no such file").into_answer(),
        };
        self.secure(&mut answer);
        answer
    }

    fn secure(&self, answer: &mut Answer) {
        let headers = answer.headers_mut();
        headers.insert(CONTENT_SECURITY_POLICY, self.policy.clone());
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    }
}

fn policy(endpoints: &[Url]) -> String {
    let mut allowed = String::from("'self'");
    for endpoint in endpoints {
        let http = endpoint.origin().ascii_serialization();
        let socket = http.replacen("http", "ws", 1);
        let _ = write!(allowed, " {http} {socket}");
    }
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; manifest-src 'self'; \
         connect-src {allowed}; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
}

fn answer(file: &EmbeddedFile, cache: &'static str, request: &HeaderMap) -> Answer {
    let tag = tag(file);
    let known = request
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|known| known.trim().trim_start_matches("W/") == tag);
    let mut answer = if known {
        let mut answer = text(StatusCode::NOT_MODIFIED, "text/plain", "");
        answer.headers_mut().remove(CONTENT_TYPE);
        answer
    } else {
        let mut answer = text(StatusCode::OK, "text/plain", file.data.clone().into_owned());
        answer.headers_mut().insert(CONTENT_TYPE, content_type(file.metadata.mimetype()));
        answer
    };
    let headers = answer.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.insert(ETAG, HeaderValue::from_str(&tag).expect("a quoted hexadecimal number"));
    answer
}

fn tag(file: &EmbeddedFile) -> String {
    let hash = file.metadata.sha256_hash();
    let mut start = [0; 16];
    start.copy_from_slice(&hash[..16]);
    format!("\"{:032x}\"", u128::from_be_bytes(start))
}

fn content_type(kind: &str) -> HeaderValue {
    let is_text = kind.starts_with("text/") && !kind.contains("charset");
    let value = if is_text { format!("{kind}; charset=utf-8") } else { kind.to_owned() };
    HeaderValue::from_str(&value).expect("media types are ASCII")
}

fn not_built() -> Answer {
    let mut answer = text(StatusCode::OK, "text/html; charset=utf-8", NOT_BUILT);
    answer.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

const NOT_BUILT: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<title>Hookwire console: the page is not built</title>
<h1>The page is not built</h1>
<p>The service is running, but this <code>hookwire</code> was built without the console's page.</p>
<p>In a checkout, <code>cargo xtask pages</code> builds it; then build <code>hookwire</code> again, if it was built with
<code>--release</code>.</p>
</html>
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_may_talk_to_its_service_only() {
        let endpoints = ["https://hooks.example:8443", "http://127.0.0.1:8080"];
        let endpoints = endpoints.map(|endpoint| Url::parse(endpoint).unwrap());
        let policy = policy(&endpoints);
        let connect = policy.split("; ").find(|part| part.starts_with("connect-src")).unwrap();
        assert_eq!(
            connect,
            "connect-src 'self' https://hooks.example:8443 wss://hooks.example:8443 http://127.0.0.1:8080 ws://127.0.0.1:8080"
        );
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; "));
        assert!(policy.ends_with("frame-ancestors 'none'"));
    }
}
