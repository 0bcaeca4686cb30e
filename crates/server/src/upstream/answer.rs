//! What an upstream may answer, and what is made of it (preview protocol, "Responses"; Web PubSub protocol, "connect" and "User
//! events").

use std::sync::Arc;

use bytes::Bytes;
use hookwire_hub::{Event, UpstreamAnswer};
use http::{HeaderMap, Response, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Body;
use serde::de::IgnoredAny;

use super::CallError;

/// Largest head of an answer.
pub(super) const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Most header lines of an answer.
pub(super) const HEADERS_MAX: usize = 128;

/// Largest body of an answer to a connect event.
pub(super) const CONNECT_BODY_BYTES_MAX: usize = 1024 * 1024;

/// Largest body of any other answer.
pub(super) const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// What is read of an answer that does not matter, so that its connection can be used again.
const IGNORED_BODY_BYTES_MAX: usize = 64 * 1024;

/// Longest `ce-connectionState`: every later event repeats it.
pub(super) const STATE_BYTES_MAX: usize = 8 * 1024;

/// Longest `Cookie` that is made of `Set-Cookie`: every later event repeats it.
pub(super) const COOKIES_BYTES_MAX: usize = 8 * 1024;

/// What an answer is read for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The preview's headers, and a body.
    Preview {
        /// Largest body.
        body_bytes_max: usize,
    },
    /// What a connect event may set.
    Connect,
    /// What a user event may set, and what goes to its client.
    UserEvent,
    /// The status alone.
    Status,
}

impl Wanted {
    /// Returns what is wanted of an answer to `event`.
    pub(super) const fn of(event: &Event) -> Self {
        match event {
            Event::Connect { .. } => Self::Preview { body_bytes_max: CONNECT_BODY_BYTES_MAX },
            Event::Message(_) | Event::Disconnect => {
                Self::Preview { body_bytes_max: BODY_BYTES_MAX }
            }
            Event::Connecting(_) => Self::Connect,
            Event::User(_) => Self::UserEvent,
            Event::Connected | Event::Disconnected { .. } | Event::Joined(_) | Event::Left(_) => {
                Self::Status
            }
        }
    }

    const fn body_bytes_max(self) -> usize {
        match self {
            Self::Preview { body_bytes_max } => body_bytes_max,
            Self::Connect => CONNECT_BODY_BYTES_MAX,
            Self::UserEvent => BODY_BYTES_MAX,
            Self::Status => IGNORED_BODY_BYTES_MAX,
        }
    }
}

/// Returns the status as it is counted.
pub(super) const fn status_class(status: u16) -> &'static str {
    match status {
        ..200 => "1xx",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        500.. => "5xx",
    }
}

/// Reads an answer to its end.
///
/// # Errors
/// It is malformed, too large or breaks off; its connection is not used again then.
pub(super) async fn read<B>(
    response: Response<B>,
    wanted: Wanted,
) -> Result<UpstreamAnswer, CallError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let (head, body) = response.into_parts();
    let status = head.status.as_u16();
    if wanted == Wanted::Status {
        // Whether the body is whole or sensible does not matter.
        let _ = collect(body, wanted.body_bytes_max()).await;
        return Ok(UpstreamAnswer { status, ..UpstreamAnswer::default() });
    }
    let mut answer = read_head(status, &head.headers, wanted)?;
    answer.body = collect(body, wanted.body_bytes_max()).await?;
    check_body(&answer, wanted)?;
    Ok(answer)
}

async fn collect<B>(body: B, bytes_max: usize) -> Result<Bytes, CallError>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    // What announces too much is not read at all.
    if u64::try_from(bytes_max).is_ok_and(|max| max < body.size_hint().lower()) {
        return Err(CallError::TooLarge(bytes_max));
    }
    match Limited::new(body, bytes_max).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(CallError::TooLarge(bytes_max)),
        Err(error) => Err(CallError::Broken(error)),
    }
}

fn read_head(
    status: u16,
    headers: &HeaderMap,
    wanted: Wanted,
) -> Result<UpstreamAnswer, CallError> {
    let is_identity =
        |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if !headers.get_all(header::CONTENT_ENCODING).iter().all(is_identity) {
        return Err(CallError::Encoded);
    }
    let content_type = text(headers, header::CONTENT_TYPE.as_str());
    let mut answer = UpstreamAnswer { status, content_type, ..UpstreamAnswer::default() };
    match wanted {
        Wanted::Preview { .. } => {
            answer.subprotocols = subprotocols(headers);
            answer.user = only(headers, "x-asrs-user-id").map_err(|_| CallError::UserId)?;
        }
        Wanted::Connect => {
            answer.state = state(headers)?;
            answer.cookies = cookies(headers)?;
        }
        Wanted::UserEvent => answer.state = state(headers)?,
        Wanted::Status => {}
    }
    Ok(answer)
}

fn check_body(answer: &UpstreamAnswer, wanted: Wanted) -> Result<(), CallError> {
    let content_type = answer.content_type.as_deref().unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default();
    let media_type = media_type.trim().to_ascii_lowercase();
    let is_json = media_type == "application/json";
    let is_text = is_json || media_type.starts_with("text/") || media_type.ends_with("+json");
    if is_text && std::str::from_utf8(&answer.body).is_err() {
        return Err(CallError::NotUtf8);
    }
    let is_sent_on = wanted == Wanted::UserEvent && matches!(answer.status, 200..300);
    if is_json && is_sent_on && !answer.body.is_empty() {
        // Clients get it as a part of other JSON.
        serde_json::from_slice::<IgnoredAny>(&answer.body).map_err(|_| CallError::NotJson)?;
    }
    Ok(())
}

/// Returns the value of `ce-connectionState`.
fn state(headers: &HeaderMap) -> Result<Option<Arc<str>>, CallError> {
    let state = only(headers, "ce-connectionstate").map_err(|_| CallError::State)?;
    if state.as_ref().is_some_and(|state| STATE_BYTES_MAX < state.len()) {
        return Err(CallError::State);
    }
    Ok(state.map(Arc::from))
}

/// Returns the value of `Cookie` that repeats what `Set-Cookie` sets: names and values without attributes, the last of a name. What is
/// no cookie is passed over (RFC 6265, section 5.2).
fn cookies(headers: &HeaderMap) -> Result<Option<Arc<str>>, CallError> {
    let mut cookies: Vec<(&str, &str)> = Vec::new();
    for line in headers.get_all(header::SET_COOKIE) {
        let Ok(line) = std::str::from_utf8(line.as_bytes()) else { continue };
        let pair = line.split(';').next().unwrap_or_default();
        let Some((name, value)) = pair.split_once('=') else { continue };
        let (name, value) = (name.trim(), value.trim());
        if name.is_empty() || pair.contains(char::is_control) {
            continue;
        }
        cookies.retain(|(other, _)| *other != name);
        cookies.push((name, value));
    }
    if cookies.is_empty() {
        return Ok(None);
    }
    let cookies: Vec<String> =
        cookies.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
    let cookies = cookies.join("; ");
    if COOKIES_BYTES_MAX < cookies.len() {
        Err(CallError::Cookies)
    } else {
        Ok(Some(cookies.into()))
    }
}

/// Returns every subprotocol named, in order, whether in one line or in several (RFC 6455, section 11.3.4).
fn subprotocols(headers: &HeaderMap) -> Vec<String> {
    headers
        .get_all(header::SEC_WEBSOCKET_PROTOCOL)
        .iter()
        .flat_map(|value| value.to_str().unwrap_or_default().split(','))
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .collect()
}

/// A header is doubled or not UTF-8.
struct Ambiguous;

/// Returns the value of a header that may stand there once.
fn only(headers: &HeaderMap, name: &str) -> Result<Option<String>, Ambiguous> {
    match headers.get_all(name).iter().count() {
        0 => Ok(None),
        1 => text(headers, name).map(Some).ok_or(Ambiguous),
        _ => Err(Ambiguous),
    }
}

/// Returns the first value of a header, if it is UTF-8.
fn text(headers: &HeaderMap, name: &str) -> Option<String> {
    std::str::from_utf8(headers.get(name)?.as_bytes()).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(lines: &[(&'static str, &[u8])]) -> HeaderMap {
        let parse = |(name, value): &(&'static str, &[u8])| {
            (name.parse().unwrap(), HeaderValue::from_bytes(value).unwrap())
        };
        lines.iter().map(parse).collect()
    }

    const PREVIEW: Wanted = Wanted::Preview { body_bytes_max: 0 };

    fn read_head(
        lines: &[(&'static str, &[u8])],
        wanted: Wanted,
    ) -> Result<UpstreamAnswer, CallError> {
        super::read_head(200, &headers(lines), wanted)
    }

    #[test]
    fn encodings_are_refused_and_identity_is_none() {
        for (lines, fits) in [
            (&[][..], true),
            (&[("content-encoding", &b"Identity"[..])][..], true),
            (&[("content-encoding", b"gzip")], false),
            (&[("content-encoding", b"identity"), ("content-encoding", b"br")], false),
            (&[("content-encoding", b"identity, gzip")], false),
        ] {
            for wanted in [PREVIEW, Wanted::Connect, Wanted::UserEvent] {
                assert_eq!(read_head(lines, wanted).is_ok(), fits, "{lines:?}");
            }
        }
    }

    #[test]
    fn a_user_id_is_one_utf8_value() {
        let user = "x-asrs-user-id";
        let answer = read_head(&[(user, "Jürgen".as_bytes())], PREVIEW).unwrap();
        assert_eq!(answer.user.as_deref(), Some("Jürgen"));
        for lines in [&[(user, &b"a"[..]), (user, b"a")][..], &[(user, b"\xff")]] {
            assert!(matches!(read_head(lines, PREVIEW), Err(CallError::UserId)), "{lines:?}");
        }
    }

    #[test]
    fn a_state_is_one_utf8_value_of_bounded_length() {
        let name = "ce-connectionstate";
        let longest = [b'a'; STATE_BYTES_MAX];
        for wanted in [Wanted::Connect, Wanted::UserEvent] {
            let state = |lines: &[(&'static str, &[u8])]| {
                read_head(lines, wanted).map(|answer| answer.state.map(|state| state.len()))
            };
            assert_eq!(state(&[]).unwrap(), None);
            assert_eq!(state(&[(name, b"eyJhIjoxfQ==")]).unwrap(), Some(12));
            assert_eq!(state(&[(name, &longest)]).unwrap(), Some(STATE_BYTES_MAX));
            let too_long = [b'a'; STATE_BYTES_MAX + 1];
            for lines in
                [&[(name, &b"a"[..]), (name, b"b")][..], &[(name, b"\xff")], &[(name, &too_long)]]
            {
                assert!(matches!(state(lines), Err(CallError::State)));
            }
        }
        let ignored = read_head(&[(name, b"a"), (name, b"b")], PREVIEW).unwrap();
        assert_eq!(ignored.state, None, "the preview knows no state");
    }

    #[test]
    fn cookies_are_names_and_values_the_last_of_a_name() {
        let name = "set-cookie";
        let cookies = |lines: &[&'static [u8]]| {
            let lines: Vec<_> = lines.iter().map(|line| (name, *line)).collect();
            read_head(&lines, Wanted::Connect).map(|answer| answer.cookies)
        };
        assert_eq!(cookies(&[]).unwrap(), None);
        let lines: &[&[u8]] = &[
            b"a=1; Path=/; HttpOnly",
            b" b = x=y ;Secure",
            b"no cookie",
            b"=nameless",
            b"c=\xff",
            b"d=\t",
            b"a=2",
            "e=ü".as_bytes(),
            b"f=",
        ];
        assert_eq!(cookies(lines).unwrap().as_deref(), Some("b=x=y; a=2; e=ü; f="));
        assert_eq!(cookies(&[b"nothing"]).unwrap(), None);
        let answer = read_head(&[(name, b"a=1")], Wanted::UserEvent).unwrap();
        assert_eq!(answer.cookies, None, "only connect sets cookies");

        let long = format!("a={}", "x".repeat(COOKIES_BYTES_MAX - 2));
        assert!(read_head(&[(name, long.as_bytes())], Wanted::Connect).is_ok());
        let too_long = [(name, long.as_bytes()), (name, b"b=")];
        assert!(matches!(read_head(&too_long, Wanted::Connect), Err(CallError::Cookies)));
    }

    fn check_body(
        status: u16,
        content_type: Option<&str>,
        body: &'static [u8],
        wanted: Wanted,
    ) -> bool {
        let content_type = content_type.map(str::to_owned);
        let body = Bytes::from_static(body);
        let answer = UpstreamAnswer { status, content_type, body, ..UpstreamAnswer::default() };
        super::check_body(&answer, wanted).is_ok()
    }

    #[test]
    fn what_calls_itself_text_is_utf8() {
        for (content_type, fits) in [
            (Some("text/plain"), false),
            (Some("TEXT/html; charset=latin1"), false),
            (Some("application/json"), false),
            (Some("application/problem+json; x=y"), false),
            (Some("application/octet-stream"), true),
            (Some("image/png"), true),
            (None, true),
        ] {
            for wanted in [PREVIEW, Wanted::Connect, Wanted::UserEvent] {
                assert_eq!(
                    check_body(200, content_type, b"\xff", wanted),
                    fits,
                    "{content_type:?}"
                );
                assert!(check_body(200, content_type, b"\"\xc3\xbc\"", wanted));
            }
        }
    }

    #[test]
    fn what_goes_on_as_json_is_json() {
        let json = Some("Application/JSON; charset=utf-8");
        for body in [&b"{"[..], b"{} {}", b"nope", b"[1,]", b" ", b"\xef\xbb\xbf{}"] {
            assert!(!check_body(200, json, body, Wanted::UserEvent), "{body:?}");
            assert!(check_body(400, json, body, Wanted::UserEvent), "it goes nowhere");
            assert!(check_body(200, Some("text/plain"), body, Wanted::UserEvent));
            assert!(check_body(200, json, body, PREVIEW), "the preview sends it on as text");
            assert!(check_body(200, json, body, Wanted::Connect), "the hub reads it");
        }
        for body in
            [&b""[..], b"{}", b" [1, null]\n", b"\"a\"", b"1e400", b"12345678901234567890123"]
        {
            assert!(check_body(200, json, body, Wanted::UserEvent), "{body:?}");
        }
        let deep: &'static [u8] = "[".repeat(100_000).leak().as_bytes();
        assert!(!check_body(200, json, deep, Wanted::UserEvent), "depth costs no stack");
    }

    #[test]
    fn subprotocols_are_named_in_one_line_or_in_several() {
        let name = "sec-websocket-protocol";
        assert_eq!(subprotocols(&headers(&[(name, b"a, b"), (name, b"c")])), ["a", "b", "c"]);
        assert!(subprotocols(&headers(&[(name, b"")])).is_empty());
    }
}
