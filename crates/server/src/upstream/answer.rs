//! What an upstream may answer, and what is made of it (preview protocol, "Responses").

use bytes::Bytes;
use hookwire_hub::{Event, Reply};
use http::{HeaderMap, Response, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::{Body, Incoming};

use super::CallError;

/// Largest head of an answer.
pub(super) const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Most header lines of an answer.
pub(super) const HEADERS_MAX: usize = 128;

/// Largest body of an answer to a connect event.
pub(super) const CONNECT_BODY_BYTES_MAX: usize = 1024 * 1024;

/// Largest body of any other answer.
pub(super) const BODY_BYTES_MAX: usize = 16 * 1024 * 1024;

/// A complete answer within the limits.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    subprotocols: Vec<String>,
    user: Option<String>,
    content_type: Option<String>,
    body: Bytes,
}

impl Answer {
    /// Returns what the hub is told.
    pub(super) fn into_reply(self) -> Reply {
        let Self { status, subprotocols, user, content_type, body } = self;
        Reply::Answered { status, subprotocols, user, content_type, body }
    }

    /// Returns the status as it is counted.
    pub(super) const fn status_class(&self) -> &'static str {
        match self.status {
            ..200 => "1xx",
            200..300 => "2xx",
            300..400 => "3xx",
            400..500 => "4xx",
            500.. => "5xx",
        }
    }
}

/// Returns the largest body that an answer to the event may have.
pub(super) const fn body_bytes_max(event: &Event) -> usize {
    match event {
        Event::Connect { .. } => CONNECT_BODY_BYTES_MAX,
        Event::Message(_) | Event::Disconnect => BODY_BYTES_MAX,
    }
}

/// Reads an answer to its end.
///
/// # Errors
/// It is malformed, too large or breaks off; its connection is not used again then.
pub(super) async fn read(
    response: Response<Incoming>,
    bytes_max: usize,
) -> Result<Answer, CallError> {
    let (head, body) = response.into_parts();
    let content_type = check_head(&head.headers)?;
    // What announces too much is not read at all.
    if u64::try_from(bytes_max).is_ok_and(|max| max < body.size_hint().lower()) {
        return Err(CallError::TooLarge(bytes_max));
    }
    let body = match Limited::new(body, bytes_max).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => return Err(CallError::TooLarge(bytes_max)),
        Err(error) => return Err(CallError::Broken(error)),
    };
    check_body(content_type.as_deref(), &body)?;
    Ok(Answer {
        status: head.status.as_u16(),
        subprotocols: subprotocols(&head.headers),
        user: text(&head.headers, "x-asrs-user-id"),
        content_type,
        body,
    })
}

/// Returns the content type.
fn check_head(headers: &HeaderMap) -> Result<Option<String>, CallError> {
    let is_identity =
        |value: &http::HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"identity");
    if !headers.get_all(header::CONTENT_ENCODING).iter().all(is_identity) {
        return Err(CallError::Encoded);
    }
    let users = headers.get_all("x-asrs-user-id").iter().count();
    if 1 < users || (users == 1 && text(headers, "x-asrs-user-id").is_none()) {
        return Err(CallError::UserId);
    }
    Ok(text(headers, header::CONTENT_TYPE.as_str()))
}

fn check_body(content_type: Option<&str>, body: &Bytes) -> Result<(), CallError> {
    let media_type = content_type.unwrap_or_default().split(';').next().unwrap_or_default();
    let media_type = media_type.trim().to_ascii_lowercase();
    let is_text = media_type.starts_with("text/")
        || media_type == "application/json"
        || media_type.ends_with("+json");
    if is_text && std::str::from_utf8(body).is_err() {
        return Err(CallError::NotUtf8);
    }
    Ok(())
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

    #[test]
    fn encodings_are_refused_and_identity_is_none() {
        for (lines, fits) in [
            (&[][..], true),
            (&[("content-encoding", &b"Identity"[..])][..], true),
            (&[("content-encoding", b"gzip")], false),
            (&[("content-encoding", b"identity"), ("content-encoding", b"br")], false),
            (&[("content-encoding", b"identity, gzip")], false),
        ] {
            assert_eq!(check_head(&headers(lines)).is_ok(), fits, "{lines:?}");
        }
    }

    #[test]
    fn a_user_id_is_one_utf8_value() {
        let user = "x-asrs-user-id";
        assert!(check_head(&headers(&[(user, "Jürgen".as_bytes())])).is_ok());
        for lines in [&[(user, &b"a"[..]), (user, b"a")][..], &[(user, b"\xff")]] {
            assert!(matches!(check_head(&headers(lines)), Err(CallError::UserId)), "{lines:?}");
        }
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
            let body = Bytes::from_static(b"\xff");
            assert_eq!(check_body(content_type, &body).is_ok(), fits, "{content_type:?}");
            assert!(check_body(content_type, &Bytes::from_static(b"\xc3\xbc")).is_ok());
        }
    }

    #[test]
    fn subprotocols_are_named_in_one_line_or_in_several() {
        let name = "sec-websocket-protocol";
        assert_eq!(subprotocols(&headers(&[(name, b"a, b"), (name, b"c")])), ["a", "b", "c"]);
        assert!(subprotocols(&headers(&[(name, b"")])).is_empty());
    }
}
