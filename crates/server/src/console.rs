//! The console: a page for those who look after the service, behind a login with an access key.
//!
//! The page uses the same APIs as everybody. Instead of a token it sends a cookie, which counts only beside a header that no page of
//! another origin can send: that would need a permission (CORS) that is never given.

mod attempts;

use std::sync::Arc;
use std::time::Duration;

use hookwire_pages::{Page, Pages};
use hookwire_proto::signature::AccessKey;
use hookwire_proto::token::{Claims, NewToken};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::Full;
use serde::Deserialize;
use serde_json::json;
use subtle::ConstantTimeEq;
use tokio::time::Instant;

use self::attempts::Attempts;
use crate::api_error::{Answer, ApiError};
use crate::body::RequestBody;
use crate::http::{Caller, Edge, text, unix_time};
use crate::rest::origin::is_meant;
use crate::time::rfc3339;

/// The cookie of a session.
const COOKIE: &str = "hookwire_console";

/// Beside this header, of value `1`, the cookie counts.
const HEADER: HeaderName = HeaderName::from_static("x-hookwire-console");

/// What the token of a session opens. No request has this path.
const AUDIENCE_PATH: &str = "/console/session";

/// How long a session lasts.
const SESSION_TIME: Duration = Duration::from_hours(12);

/// Largest body of a login.
const LOGIN_BYTES_MAX: usize = 4_096;

/// The console of a node.
#[derive(Debug)]
pub(crate) struct Console {
    attempts: Attempts,
    pages: Pages,
}

/// What a request below `/console` asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ConsoleRoute {
    /// The page.
    Page,
    /// A file of the page, by its path below the page's.
    File(String),
    /// Begin a session.
    Login,
    /// End it.
    Logout,
    /// How long does it last?
    Session,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Login {
    key: String,
}

impl ConsoleRoute {
    /// Reads what stands behind `/console`, decoded.
    pub(crate) fn parse(method: &Method, rest: &[&str]) -> Result<Self, ApiError> {
        let (route, allowed, list): (_, &[Method], _) = match rest {
            [] => (Self::Page, &[Method::GET, Method::HEAD], "GET, HEAD"),
            ["api", "login"] => (Self::Login, &[Method::POST], "POST"),
            ["api", "logout"] => (Self::Logout, &[Method::POST], "POST"),
            ["api", "session"] => (Self::Session, &[Method::GET], "GET"),
            ["api", ..] => return Err(ApiError::not_found("no such path")),
            path => {
                // A build that reads from disk would follow what leads out of its folder.
                let is_name = |part: &&str| {
                    let leads_away = part.contains(['/', '\\', '\0']);
                    !part.is_empty() && !part.starts_with('.') && !leads_away
                };
                if !path.iter().all(is_name) {
                    return Err(ApiError::not_found("no such path"));
                }
                (Self::File(path.join("/")), &[Method::GET, Method::HEAD], "GET, HEAD")
            }
        };
        if allowed.contains(method) { Ok(route) } else { Err(ApiError::method_not_allowed(list)) }
    }
}

impl Console {
    /// Returns a console whose page may talk to the service at `endpoints`.
    pub(crate) fn new(endpoints: &[url::Url]) -> Self {
        Self { attempts: Attempts::default(), pages: Pages::new(Page::Console, endpoints) }
    }
}

/// Answers a request below `/console`.
pub(crate) async fn answer(
    edge: &Arc<Edge>,
    route: ConsoleRoute,
    head: &Request<()>,
    body: &mut RequestBody,
    caller: &Caller,
) -> Result<Answer, ApiError> {
    let console = edge.console.as_ref().ok_or_else(|| ApiError::not_found("no such path"))?;
    match route {
        ConsoleRoute::Page if !head.uri().path().ends_with('/') => {
            let mut answer = text(StatusCode::PERMANENT_REDIRECT, "text/plain", "");
            // Relative, so that a proxy may put the service below a path.
            let location = HeaderValue::from_static("console/");
            answer.headers_mut().insert(header::LOCATION, location);
            Ok(answer)
        }
        ConsoleRoute::Page => Ok(console.pages.index(head.headers()).map(Full::new)),
        ConsoleRoute::File(path) => Ok(console.pages.file(&path, head.headers()).map(Full::new)),
        ConsoleRoute::Login => login(edge, console, head, body, caller).await,
        ConsoleRoute::Logout => {
            if !is_of_page(head.headers()) {
                let message = "only the console's page logs out";
                return Err(ApiError::new(StatusCode::FORBIDDEN, "Forbidden", message));
            }
            let mut answer = text(StatusCode::NO_CONTENT, "text/plain", "");
            answer.headers_mut().remove(header::CONTENT_TYPE);
            set_cookie(&mut answer, "", Duration::ZERO, is_secure(edge, head, caller));
            Ok(answer)
        }
        ConsoleRoute::Session => {
            let claims = edge.session(head.headers())?;
            let expiry = claims.get("exp").and_then(serde_json::Value::as_u64).unwrap_or(0);
            let session = json!({ "expiresAt": rfc3339(Duration::from_secs(expiry)) });
            let mut answer = text(StatusCode::OK, "application/json", session.to_string());
            answer
                .headers_mut()
                .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
            Ok(answer)
        }
    }
}

async fn login(
    edge: &Edge,
    console: &Console,
    head: &Request<()>,
    body: &mut RequestBody,
    caller: &Caller,
) -> Result<Answer, ApiError> {
    // What a form of another page could send is not taken.
    let content_type =
        head.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let media_type = content_type.and_then(|value| value.split(';').next()).unwrap_or_default();
    if !media_type.trim().eq_ignore_ascii_case("application/json") {
        let message = "a login is application/json";
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            message,
        ));
    }
    let body = body.read(head.headers(), LOGIN_BYTES_MAX, &edge.bodies).await?;
    // No word of the body in the error: it may be a key.
    let Login { key } = serde_json::from_slice(&body)
        .map_err(|_| ApiError::bad_request("a login is {\"key\": \"…\"}"))?;
    let rules = edge.rules();
    let find = || which(&rules.keys, &key);
    let found = console.attempts.attempt(caller.peer.ip(), Instant::now(), find);
    let key = found
        .map_err(|wait| {
            let seconds = HeaderValue::from(wait.as_secs().max(1));
            let message = "too many failed logins; wait a minute";
            ApiError::busy(message).with(header::RETRY_AFTER, seconds)
        })?
        .ok_or_else(|| {
            let reason = "a login to the console with a wrong key";
            ApiError::unauthorized("this is no access key of the service")
                .told_as("unauthorized", reason)
        })?;
    let audience = edge.endpoints[0].join(AUDIENCE_PATH).map_err(|_| ApiError::failed())?;
    let token = NewToken {
        audience: audience.as_str(),
        issued_at: unix_time().as_secs(),
        lifetime: SESSION_TIME,
        user: None,
        claims: serde_json::Map::new(),
    };
    let mut answer = text(StatusCode::NO_CONTENT, "text/plain", "");
    answer.headers_mut().remove(header::CONTENT_TYPE);
    set_cookie(&mut answer, &token.sign(key), SESSION_TIME, is_secure(edge, head, caller));
    Ok(answer)
}

/// Returns the key of that text; how long that takes does not depend on which it is.
fn which<'a>(keys: &'a [AccessKey], text: &str) -> Option<&'a AccessKey> {
    let is = |key: &&AccessKey| bool::from(key.reveal().as_bytes().ct_eq(text.as_bytes()));
    let matching: Vec<&AccessKey> = keys.iter().filter(is).collect();
    matching.first().copied()
}

fn set_cookie(answer: &mut Answer, value: &str, lifetime: Duration, secure: bool) {
    let secure = if secure { "; Secure" } else { "" };
    let seconds = lifetime.as_secs();
    let cookie =
        format!("{COOKIE}={value}; HttpOnly; SameSite=Strict; Path=/; Max-Age={seconds}{secure}");
    let cookie = HeaderValue::from_str(&cookie).expect("a token is ASCII");
    answer.headers_mut().insert(header::SET_COOKIE, cookie);
    answer.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
}

/// Whether a request has the header that no page but the console's can send.
fn is_of_page(headers: &HeaderMap) -> bool {
    headers.get(HEADER).is_some_and(|value| value.as_bytes() == b"1")
}

/// Whether the browser came by TLS: to this port, or to a proxy that says so. Who lies about that only loses its own cookie.
fn is_secure(edge: &Edge, head: &Request<()>, caller: &Caller) -> bool {
    let proto = head.headers().get("x-forwarded-proto").map(HeaderValue::as_bytes);
    let host = head.headers().get(header::HOST).map(HeaderValue::as_bytes);
    let host = host.and_then(|host| Authority::try_from(host).ok());
    let is_public = host.is_some_and(|host| {
        let mut secure = edge.endpoints.iter().filter(|endpoint| endpoint.scheme() == "https");
        secure.any(|endpoint| is_meant(endpoint, &host))
    });
    caller.by_tls || is_public || proto.is_some_and(|proto| proto.eq_ignore_ascii_case(b"https"))
}

impl Edge {
    /// Returns whether a request shall be judged by its cookie: it comes from the console's page, and has no token.
    pub(crate) fn is_from_console(&self, headers: &HeaderMap) -> bool {
        self.console.is_some()
            && is_of_page(headers)
            && !headers.contains_key(header::AUTHORIZATION)
    }

    /// Returns what the session's token says.
    ///
    /// # Errors
    /// 401 unless there is a cookie with a valid one.
    pub(crate) fn session(&self, headers: &HeaderMap) -> Result<Claims, ApiError> {
        let nobody = || {
            ApiError::unauthorized("log in first")
                .told_as("unauthorized", "no session of the console")
        };
        let token = cookie(headers).ok_or_else(nobody)?;
        self.check(token, AUDIENCE_PATH).map_err(|_| nobody())
    }
}

/// Returns the session's cookie.
fn cookie(headers: &HeaderMap) -> Option<&str> {
    let lines = headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok());
    let mut pairs =
        lines.flat_map(|line| line.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == COOKIE).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_lead_out_of_the_folder_are_not_there() {
        let parse = |rest: &[&str]| {
            ConsoleRoute::parse(&Method::GET, rest).map_err(|error| error.status().as_u16())
        };
        assert_eq!(parse(&[]), Ok(ConsoleRoute::Page));
        assert_eq!(parse(&["assets", "a.js"]), Ok(ConsoleRoute::File("assets/a.js".to_owned())));
        assert_eq!(parse(&["api", "session"]), Ok(ConsoleRoute::Session));
        for bad in [
            &[".."][..],
            &["assets", ".."],
            &["assets", "../x"],
            &["a\\b"],
            &["", "x"],
            &[".git"],
            &["api", "x"],
            &["api"],
        ] {
            assert_eq!(parse(bad), Err(404), "{bad:?}");
        }
        assert_eq!(parse(&["api", "login"]), Err(405));
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let mut headers = HeaderMap::new();
        headers.append("cookie", HeaderValue::from_static("a=b; hookwire_console2=x"));
        assert_eq!(cookie(&headers), None);
        headers.append("cookie", HeaderValue::from_static("c=d;hookwire_console=t.o.k; e=f"));
        assert_eq!(cookie(&headers), Some("t.o.k"));
    }

    #[test]
    fn each_key_is_known_and_no_other() {
        let keys = ["a".repeat(32), "b".repeat(32)].map(|key| AccessKey::parse(&key).unwrap());
        assert_eq!(which(&keys, &"b".repeat(32)).map(AccessKey::reveal), Some(keys[1].reveal()));
        for wrong in ["", "a", &"a".repeat(33), &"c".repeat(32)] {
            assert!(which(&keys, wrong).is_none());
        }
    }
}
