//! The page: built files inside the binary, and how they are answered.
//!
//! A build without optimisation reads them from disk instead, so that building the pages again is enough.

use axum::body::Body;
use axum::response::Response;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use rust_embed::{EmbeddedFile, RustEmbed};
use url::Url;

/// The files that `cargo xtask pages` builds.
#[derive(RustEmbed)]
#[folder = "../../web/dist/chat"]
#[allow_missing = true]
struct Built;

/// The built pages, with the headers that they need.
#[derive(Clone, Debug)]
pub(crate) struct Pages {
    policy: HeaderValue,
}

impl Pages {
    /// Allows the page to talk to its own server and to the service at `endpoint`, and to nobody else.
    pub(crate) fn new(endpoint: &Url) -> Self {
        let policy = policy(endpoint);
        Self {
            policy: HeaderValue::from_str(&policy).expect(
                "an origin is ASCII without control characters (URL standard, host parsing)",
            ),
        }
    }

    /// Returns the page, or a page that says how to build it.
    pub(crate) fn index(&self, request: &HeaderMap) -> Response {
        let mut response = match Built::get("index.html") {
            Some(file) => answer(&file, "no-cache", request),
            None => not_built(),
        };
        self.secure(&mut response);
        response
    }

    /// Returns a file below `assets/`. Their names change with their content.
    pub(crate) fn asset(&self, path: &str, request: &HeaderMap) -> Response {
        // A build that reads from disk would follow the dots within the pages' folder.
        let inside = path.split('/').all(|part| part != "..");
        let file = inside.then(|| Built::get(&format!("assets/{path}"))).flatten();
        let mut response = match file {
            Some(file) => answer(&file, "public, max-age=31536000, immutable", request),
            None => plain(StatusCode::NOT_FOUND, "There is no such file.\n"),
        };
        self.secure(&mut response);
        response
    }

    fn secure(&self, response: &mut Response) {
        let headers = response.headers_mut();
        headers.insert(CONTENT_SECURITY_POLICY, self.policy.clone());
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    }
}

fn policy(endpoint: &Url) -> String {
    let http = endpoint.origin().ascii_serialization();
    let socket = http.replacen("http", "ws", 1);
    format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; manifest-src 'self'; \
         connect-src 'self' {http} {socket}; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    )
}

fn answer(file: &EmbeddedFile, cache: &'static str, request: &HeaderMap) -> Response {
    let tag = tag(file);
    let known = request
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|known| known.trim().trim_start_matches("W/") == tag);
    let mut response = if known {
        let mut response = Response::new(Body::empty());
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        response
    } else {
        let mut response = Response::new(Body::from(file.data.clone().into_owned()));
        response.headers_mut().insert(CONTENT_TYPE, content_type(file.metadata.mimetype()));
        response
    };
    let headers = response.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    headers.insert(ETAG, HeaderValue::from_str(&tag).expect("a quoted hexadecimal number"));
    response
}

fn tag(file: &EmbeddedFile) -> String {
    let hash = file.metadata.sha256_hash();
    let mut start = [0; 16];
    start.copy_from_slice(&hash[..16]);
    format!("\"{:032x}\"", u128::from_be_bytes(start))
}

fn content_type(kind: &str) -> HeaderValue {
    let text = kind.starts_with("text/") && !kind.contains("charset");
    let value = if text { format!("{kind}; charset=utf-8") } else { kind.to_owned() };
    HeaderValue::from_str(&value).expect("media types are ASCII")
}

fn not_built() -> Response {
    let mut response = Response::new(Body::from(NOT_BUILT));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Returns an answer for people at a terminal.
pub(crate) fn plain(status: StatusCode, text: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

const NOT_BUILT: &str = "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<title>Hookwire chat: the page is not built</title>
<h1>The page is not built</h1>
<p>The chat's functions are running, but this <code>hookwire</code> was built without the page.</p>
<p>In a checkout, <code>cargo xtask run</code> builds everything and starts it; <code>cargo xtask pages</code> builds the pages alone
(then build <code>hookwire</code> again, if it was built with <code>--release</code>).</p>
</html>
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_may_talk_to_its_service_only() {
        for (endpoint, origins) in [
            (
                "http://127.0.0.1:8080/",
                "connect-src 'self' http://127.0.0.1:8080 ws://127.0.0.1:8080;",
            ),
            (
                "https://hookwire.example/",
                "connect-src 'self' https://hookwire.example wss://hookwire.example;",
            ),
        ] {
            let policy = policy(&Url::parse(endpoint).unwrap());
            assert!(policy.contains(origins), "{policy}");
            assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
        }
    }

    #[test]
    fn what_is_not_built_says_how_to_build_it() {
        let response = not_built();
        assert_eq!(response.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
        assert!(NOT_BUILT.contains("cargo xtask run") && NOT_BUILT.contains("cargo xtask pages"));
    }

    #[test]
    fn texts_say_their_encoding() {
        assert_eq!(content_type("text/javascript"), "text/javascript; charset=utf-8");
        assert_eq!(content_type("image/svg+xml"), "image/svg+xml");
    }

    #[test]
    fn files_outside_are_not_found() {
        let pages = Pages::new(&Url::parse("http://127.0.0.1:8080/").unwrap());
        for path in ["../index.html", "../../../package.json", "/etc/passwd", "", ".", "..", "none"]
        {
            let response = pages.asset(path, &HeaderMap::new());
            assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
            assert!(response.headers().contains_key(CONTENT_SECURITY_POLICY));
        }
    }
}
