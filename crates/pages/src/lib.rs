//! The pages of the chat and of the console inside the binary, and how they are answered.
//!
//! A build without optimisation reads them from `web/dist` instead, so that building the pages again is enough.

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, IF_NONE_MATCH, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};
use rust_embed::{EmbeddedFile, RustEmbed};
use url::Url;

#[derive(RustEmbed)]
#[folder = "../../web/dist/chat"]
struct Chat;

#[derive(RustEmbed)]
#[folder = "../../web/dist/console"]
struct Console;

/// One of the pages that `cargo xtask pages` builds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// The chat room.
    Chat,
    /// The service's console.
    Console,
}

/// A page with its files and the headers that it needs.
#[derive(Clone, Debug)]
pub struct Pages {
    page: Page,
    policy: HeaderValue,
}

impl Page {
    fn get(self, path: &str) -> Option<EmbeddedFile> {
        match self {
            Self::Chat => Chat::get(path),
            Self::Console => Console::get(path),
        }
    }

    fn title(self) -> &'static str {
        match self {
            Self::Chat => "Hookwire chat",
            Self::Console => "Hookwire console",
        }
    }
}

impl Pages {
    /// Allows `page` to talk to its own server and to `endpoints`, by HTTP and by WebSocket, and to nobody else.
    #[expect(clippy::missing_panics_doc, reason = "an origin is always a header's value")]
    pub fn new(page: Page, endpoints: &[Url]) -> Self {
        let policy = HeaderValue::from_str(&policy(endpoints));
        Self {
            page,
            policy: policy.expect(
                "an origin is ASCII without control characters (URL standard, host parsing)",
            ),
        }
    }

    /// Answers with the page, or with one that says how to build it.
    pub fn index(&self, request: &HeaderMap) -> Response<Bytes> {
        self.secured(match self.page.get("index.html") {
            Some(file) => answer(file, "no-cache", request),
            None => not_built(self.page.title()),
        })
    }

    /// Answers with a file by its path below the page's; 404 if there is none.
    ///
    /// Browsers may keep those below `assets/` for ever: their names change with their content.
    pub fn file(&self, path: &str, request: &HeaderMap) -> Response<Bytes> {
        let cache = match path.split_once('/') {
            Some(("assets", _)) => "public, max-age=31536000, immutable",
            _ => "no-cache",
        };
        // A build that reads from disk would follow what leads out of its folder.
        let inside = path
            .split('/')
            .all(|part| !part.is_empty() && !part.starts_with('.') && !part.contains(['\\', '\0']));
        let file = inside.then(|| self.page.get(path)).flatten();
        self.secured(match file {
            Some(file) => answer(file, cache, request),
            None => text(StatusCode::NOT_FOUND, "text/plain", "There is no such file.\n"),
        })
    }

    fn secured(&self, mut response: Response<Bytes>) -> Response<Bytes> {
        let headers = response.headers_mut();
        headers.insert(CONTENT_SECURITY_POLICY, self.policy.clone());
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        response
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

fn answer(file: EmbeddedFile, cache: &'static str, request: &HeaderMap) -> Response<Bytes> {
    let tag = tag(&file);
    let known = request
        .get_all(IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|known| known.trim().trim_start_matches("W/") == tag);
    let mut response = Response::default();
    if known {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        let kind = content_type(file.metadata.mimetype());
        response.headers_mut().insert(CONTENT_TYPE, kind);
        *response.body_mut() = match file.data {
            std::borrow::Cow::Borrowed(data) => Bytes::from_static(data),
            std::borrow::Cow::Owned(data) => data.into(),
        };
    }
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
    let is_text = kind.starts_with("text/") && !kind.contains("charset");
    let value = if is_text { format!("{kind}; charset=utf-8") } else { kind.to_owned() };
    HeaderValue::from_str(&value).expect("media types are ASCII")
}

fn text(status: StatusCode, kind: &str, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, content_type(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn not_built(title: &str) -> Response<Bytes> {
    let body = format!(
        "<!doctype html>
<html lang=\"en\">
<meta charset=\"utf-8\">
<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">
<title>{title}: the page is not built</title>
<h1>The page is not built</h1>
<p>The server is running, but this <code>hookwire</code> was built without the page.</p>
<p>In a checkout, <code>cargo xtask run</code> builds everything and starts it; <code>cargo xtask pages</code> builds the pages alone
(then build <code>hookwire</code> again, if it was built with <code>--release</code>).</p>
</html>
"
    );
    text(StatusCode::OK, "text/html", body)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(page: Page) -> Pages {
        Pages::new(page, &[Url::parse("http://127.0.0.1:8080/").unwrap()])
    }

    #[test]
    fn a_page_may_talk_to_its_servers_only() {
        let endpoints = ["https://hooks.example:8443", "http://127.0.0.1:8080"];
        let policy = policy(&endpoints.map(|endpoint| Url::parse(endpoint).unwrap()));
        let connect = policy.split("; ").find(|part| part.starts_with("connect-src")).unwrap();
        assert_eq!(
            connect,
            "connect-src 'self' https://hooks.example:8443 wss://hooks.example:8443 http://127.0.0.1:8080 ws://127.0.0.1:8080"
        );
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; "), "{policy}");
        assert!(policy.ends_with("frame-ancestors 'none'"), "{policy}");
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    }

    #[test]
    fn what_is_not_built_says_how_to_build_it() {
        let response = not_built(Page::Console.title());
        assert_eq!(response.headers()[CONTENT_TYPE], "text/html; charset=utf-8");
        let body = String::from_utf8(response.into_body().to_vec()).unwrap();
        assert!(body.contains("<title>Hookwire console: the page is not built</title>"), "{body}");
        assert!(body.contains("cargo xtask run") && body.contains("cargo xtask pages"), "{body}");
    }

    #[test]
    fn pages_built_later_are_found() {
        // Where to read from is settled by the build script, before there are pages.
        for folder in ["chat", "console"] {
            let built = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
            assert!(built.join("../../web/dist").join(folder).is_dir(), "{folder}");
        }
    }

    #[test]
    fn texts_say_their_encoding() {
        assert_eq!(content_type("text/javascript"), "text/javascript; charset=utf-8");
        assert_eq!(content_type("image/svg+xml"), "image/svg+xml");
    }

    #[test]
    fn files_outside_are_not_found() {
        for page in [Page::Chat, Page::Console] {
            for path in [
                "../index.html",
                "../../package.json",
                "assets/../index.html",
                "/etc/passwd",
                "",
                ".",
                "..",
                ".gitignore",
                "a\\..\\b",
                "a\0b",
                "none",
            ] {
                let response = pages(page).file(path, &HeaderMap::new());
                assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path:?}");
                assert!(response.headers().contains_key(CONTENT_SECURITY_POLICY));
            }
        }
    }
}
