//! The HTTP that the load generator speaks itself: requests as bytes, heads of answers. A client library would cost more CPU than
//! the servers that are measured.

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hookwire_proto::deflate::OFFER;
use sha1::{Digest, Sha1};

/// Longest head of an answer.
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Longest body of an answer. Metrics are the longest that is asked for.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// Bytes of an answer's body that are shown when it is a failure.
const EXCERPT_BYTES_MAX: usize = 200;

/// Appended to the key before hashing (RFC 6455, section 1.3).
const ACCEPT_SUFFIX: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// The key of this run's handshakes and the answer it demands. One for all connections: nothing is cached on the way, which is what
/// fresh keys guard against.
#[derive(Debug, Clone)]
pub(super) struct Upgrade {
    key: String,
    accept: String,
    /// Whether compression is offered, and must be taken.
    compression: bool,
    /// The subprotocol that is offered, and must be taken.
    subprotocol: Option<&'static str>,
}

impl Upgrade {
    /// Returns handshakes with this nonce, without a subprotocol.
    pub(super) fn new(nonce: [u8; 16], compression: bool) -> Self {
        let key = STANDARD.encode(nonce);
        let accept =
            STANDARD.encode(Sha1::new().chain_update(&key).chain_update(ACCEPT_SUFFIX).finalize());
        Self { key, accept, compression, subprotocol: None }
    }

    /// Returns the same handshakes with a subprotocol.
    pub(super) fn with_subprotocol(&self, subprotocol: &'static str) -> Self {
        Self { subprotocol: Some(subprotocol), ..self.clone() }
    }

    /// Returns the request for a WebSocket at `path_and_query` of `authority` (RFC 6455, section 4.1).
    pub(super) fn request(&self, authority: &str, path_and_query: &str) -> Vec<u8> {
        let mut offer = String::new();
        if self.compression {
            offer.extend(["Sec-WebSocket-Extensions: ", OFFER, "\r\n"]);
        }
        if let Some(subprotocol) = self.subprotocol {
            offer.extend(["Sec-WebSocket-Protocol: ", subprotocol, "\r\n"]);
        }
        format!(
            "GET {path_and_query} HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{offer}\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {}\r\n\r\n",
            self.key
        )
        .into_bytes()
    }

    /// Checks the answer at the start of `input`. Returns the length of its head, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// The handshake was refused, or the answer is none.
    pub(super) fn check(&self, input: &[u8]) -> anyhow::Result<Option<usize>> {
        let Some(head) = Head::parse(input)? else { return Ok(None) };
        if head.status != 101 {
            let body = excerpt(&input[head.bytes..]);
            bail!("the handshake was refused with {}: {body}", head.status);
        }
        let accept = head.header("sec-websocket-accept").unwrap_or_default();
        ensure!(
            accept == self.accept,
            "the answer to the handshake has a wrong Sec-WebSocket-Accept"
        );
        let is_taken = head.header("sec-websocket-extensions").is_some();
        ensure!(is_taken == self.compression, "compression is not as it was offered");
        let subprotocol = head.header("sec-websocket-protocol");
        ensure!(subprotocol == self.subprotocol, "the subprotocol is not as it was offered");
        Ok(Some(head.bytes))
    }
}

/// Returns a request with a body over a connection that stays.
pub(super) fn request(
    method: &str,
    authority: &str,
    path: &str,
    token: Option<&str>,
    content_type: &str,
    body: &[u8],
) -> Vec<u8> {
    let authorization =
        token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nHost: {authority}\r\n{authorization}\
         Content-Type: {content_type}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request
}

/// A whole answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer<'a> {
    pub(super) status: u16,
    /// When to try again, in seconds, if it says so.
    pub(super) retry_after: Option<u64>,
    body: &'a [u8],
    /// Its length with its head.
    pub(super) bytes: usize,
}

impl<'a> Answer<'a> {
    /// Takes a whole answer off the start of `input`. Returns `None` when more bytes are needed.
    ///
    /// # Errors
    /// It is no answer with a length.
    pub(super) fn parse(input: &'a [u8]) -> anyhow::Result<Option<Self>> {
        let Some(head) = Head::parse(input)? else { return Ok(None) };
        let length = match (head.header("content-length"), head.header("transfer-encoding")) {
            (Some(length), None) => length.parse().context("an answer's length is no number")?,
            (None, None) if head.status == 204 => 0,
            _ => bail!("an answer has no length"),
        };
        let end = head.bytes.checked_add(length).context("an answer's length is no number")?;
        ensure!(length <= BODY_BYTES_MAX, "an answer has {length} bytes");
        let Some(body) = input.get(head.bytes..end) else { return Ok(None) };
        let retry_after = head.header("retry-after").map(str::parse).transpose();
        let retry_after = retry_after.context("a time to try again is no number")?;
        Ok(Some(Self { status: head.status, retry_after, body, bytes: end }))
    }

    /// Makes sure that it is a success.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn check(&self) -> anyhow::Result<()> {
        ensure!(
            (200..300).contains(&self.status),
            "the service answered {}: {}",
            self.status,
            excerpt(self.body)
        );
        Ok(())
    }

    /// Returns the body as text.
    pub(super) fn text(&self) -> std::borrow::Cow<'a, str> {
        String::from_utf8_lossy(self.body)
    }
}

/// The head of a request or an answer.
pub(super) struct Head<'a> {
    /// Of an answer; 0 for a request.
    pub(super) status: u16,
    /// Method and path of a request.
    pub(super) request: Option<(&'a str, &'a str)>,
    lines: std::str::Lines<'a>,
    /// Its length, the empty line included.
    pub(super) bytes: usize,
}

impl<'a> Head<'a> {
    /// Returns the head at the start of `input`, or `None` when more bytes are needed.
    ///
    /// # Errors
    /// It is too long or no HTTP/1.1.
    pub(super) fn parse(input: &'a [u8]) -> anyhow::Result<Option<Self>> {
        let Some(end) = input.windows(4).position(|window| window == b"\r\n\r\n") else {
            ensure!(input.len() < HEAD_BYTES_MAX, "a head has more than {HEAD_BYTES_MAX} bytes");
            return Ok(None);
        };
        let text = std::str::from_utf8(&input[..end]).context("a head is not text")?;
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default();
        let request = first.strip_suffix(" HTTP/1.1").and_then(|line| line.split_once(' '));
        let status = match first.strip_prefix("HTTP/1.1 ") {
            Some(rest) => rest
                .get(..3)
                .and_then(|status| status.parse().ok())
                .with_context(|| format!("an answer begins with {first:?}"))?,
            None if request.is_some() => 0,
            None => bail!("a head begins with {first:?}"),
        };
        Ok(Some(Self { status, request, lines, bytes: end + 4 }))
    }

    /// Returns the value of the first header of this name, which is given in lower case.
    pub(super) fn header(&self, name: &str) -> Option<&'a str> {
        self.headers().find_map(|(of, value)| of.eq_ignore_ascii_case(name).then_some(value))
    }

    /// Returns all headers, names and values as they stand there.
    pub(super) fn headers(&self) -> impl Iterator<Item = (&'a str, &'a str)> + use<'a> {
        let headers = self.lines.clone().filter_map(|line| line.split_once(':'));
        headers.map(|(name, value)| (name, value.trim()))
    }
}

fn excerpt(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(EXCERPT_BYTES_MAX)]).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rfc_example_is_answered_and_anything_else_refused() {
        // RFC 6455, section 1.3.
        let upgrade = Upgrade::new(*b"the sample nonce", false);
        assert_eq!(upgrade.key, "dGhlIHNhbXBsZSBub25jZQ==");
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nsec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n\x81\x00";
        assert_eq!(upgrade.check(answer).unwrap(), Some(answer.len() - 2));
        for end in 0..answer.len() - 2 {
            assert_eq!(upgrade.check(&answer[..end]).unwrap(), None);
        }
        for (answer, fault) in [
            ("HTTP/1.1 101 X\r\nSec-WebSocket-Accept: s3p\r\n\r\n", "wrong Sec-WebSocket-Accept"),
            ("HTTP/1.1 401 Unauthorized\r\n\r\nno user", "refused with 401: no user"),
            ("SSH-2.0\r\n\r\n", "begins with \"SSH-2.0\""),
            (
                "HTTP/1.1 101 X\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: x\r\n\r\n",
                "the subprotocol is not",
            ),
        ] {
            let error = upgrade.check(answer.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(fault), "{error}");
        }
        assert!(upgrade.check(&[b'x'; HEAD_BYTES_MAX]).is_err());
    }

    #[test]
    fn answers_are_taken_whole_and_failures_show_their_body() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nRetry-After: 7\r\n\r\nyesHTTP/1.1";
        let whole = Answer::parse(answer).unwrap().unwrap();
        assert_eq!((whole.status, whole.retry_after, &*whole.text()), (200, Some(7), "yes"));
        assert_eq!(whole.bytes, answer.len() - 8);
        assert_eq!(Answer::parse(&answer[..answer.len() - 9]).unwrap(), None);
        for (answer, fault) in [
            ("HTTP/1.1 429 Too Many\r\ncontent-length: 5\r\n\r\nlater", "answered 429: later"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "no length"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551615\r\n\r\n", "no number"),
            ("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", "no number"),
        ] {
            let answer = Answer::parse(answer.as_bytes());
            let error = answer.and_then(|answer| answer.unwrap().check()).unwrap_err().to_string();
            assert!(error.contains(fault), "{error}");
        }
    }

    #[test]
    fn a_request_says_its_length() {
        let request = request("POST", "h:1", "/p", Some("t"), "text/plain", b"hello");
        let text = String::from_utf8(request).unwrap();
        assert!(text.starts_with("POST /p HTTP/1.1\r\nHost: h:1\r\nAuthorization: Bearer t\r\n"));
        assert!(text.ends_with("\r\nContent-Length: 5\r\n\r\nhello"));
    }
}
