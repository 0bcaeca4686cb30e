//! An upstream that lets everybody in and sends messages back, for both dialects. It gives each client of the preview a user of its own
//! and tells it its connection id as the first message. For Web PubSub it speaks HTTP/2 as well.

mod http2;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread;

use anyhow::Context;

use self::http2::Certificate;
use super::wire::Head;

/// Connections at once, from the service, which promises at most 1,024, and from the floor of webhooks.
const CALLERS_MAX: usize = 4_096;

/// Longest body of an event.
pub(super) const BODY_BYTES_MAX: usize = 16 * 1024;

/// What the service repeats on every event and therefore keeps: query, claims, addresses (preview protocol, "Request headers").
const KEPT_HEADERS: [&str; 3] = ["x-asrs-client-query", "x-asrs-user-claims", "x-forwarded-for"];

/// The upstream. Its threads end with the service's connections, and the last with the process.
#[derive(Debug)]
pub(super) struct Upstream {
    address: SocketAddr,
    /// If it speaks TLS.
    certificate: Option<Certificate>,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    names_users: bool,
    calls: AtomicU64,
    kept_bytes: AtomicU64,
    /// The first request with a message.
    sample: OnceLock<Vec<u8>>,
}

impl Upstream {
    /// Starts it. Unless it `names_users`, tokens must.
    pub(super) fn start(names_users: bool) -> anyhow::Result<Self> {
        Self::start_with(names_users, None, |listener, shared| accept(&listener, &shared))
    }

    /// Starts one of Web PubSub that speaks HTTP/2 over TLS.
    pub(super) fn start_http2() -> anyhow::Result<Self> {
        let certificate = Certificate::new()?;
        let tls = certificate.tls()?;
        Self::start_with(false, Some(certificate), move |listener, shared| {
            if let Err(error) = http2::accept(listener, tls, &shared) {
                eprintln!("the upstream failed: {error:#}");
            }
        })
    }

    fn start_with(
        names_users: bool,
        certificate: Option<Certificate>,
        accept: impl FnOnce(TcpListener, Arc<Shared>) + Send + 'static,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("the upstream cannot listen")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            names_users,
            calls: AtomicU64::new(0),
            kept_bytes: AtomicU64::new(0),
            sample: OnceLock::new(),
        });
        let of_thread = shared.clone();
        thread::Builder::new()
            .name("upstream".to_owned())
            .spawn(move || accept(listener, of_thread))
            .context("the upstream cannot be started")?;
        Ok(Self { address, certificate, shared })
    }

    /// Returns the file of the authority that vouches for the upstream, if it speaks TLS.
    pub(super) fn authority(&self) -> Option<&Path> {
        self.certificate.as_ref().map(Certificate::authority)
    }

    fn origin(&self) -> String {
        let scheme = if self.certificate.is_some() { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// Returns the settings that lead events of `hub` here (preview protocol, "Settings API"): one of them, or all (`*`).
    pub(super) fn settings(&self, hub: &str, event: &str) -> String {
        let template = serde_json::json!({
            "hubPattern": hub,
            "categoryPattern": "*",
            "eventPattern": event,
            "urlTemplate": format!("{}/{{event}}", self.origin()),
        });
        serde_json::json!({ "templates": [template] }).to_string()
    }

    /// Returns the settings of a hub of Web PubSub that lead all its events here.
    pub(super) fn handler(&self) -> String {
        let handler = serde_json::json!({
            "urlTemplate": format!("{}/web-pubsub", self.origin()),
            "userEventPattern": "*",
            "systemEvents": ["connect", "connected", "disconnected"],
        });
        serde_json::json!({ "eventHandlers": [handler] }).to_string()
    }

    /// Returns the first request with a message, once there was one, and the URL that it went to.
    pub(super) fn sample(&self) -> anyhow::Result<(&[u8], String)> {
        let sample = self.shared.sample.get().context("no message has come to the upstream")?;
        let head = Head::parse(sample)?.context("the message is not whole")?;
        let (_, path) = head.request.context("an event is no request")?;
        Ok((sample, format!("{}{path}", self.origin())))
    }

    /// Returns how many bytes the service must keep for a connection, on average over all that came.
    pub(super) fn kept_bytes(&self) -> f64 {
        let calls = self.shared.calls.load(Ordering::Relaxed).max(1);
        super::report::per(self.shared.kept_bytes.load(Ordering::Relaxed), calls)
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for (socket, _) in listener.incoming().flatten().zip(0..CALLERS_MAX) {
        let shared = shared.clone();
        thread::spawn(move || {
            if let Err(error) = answer_all(socket, &shared) {
                eprintln!("the upstream failed: {error:#}");
            }
        });
    }
    eprintln!("the upstream takes no more connections than {CALLERS_MAX}");
}

fn answer_all(mut socket: TcpStream, shared: &Shared) -> anyhow::Result<()> {
    socket.set_nodelay(true)?;
    let mut input = Vec::new();
    let mut buffer = [0; 4_096];
    loop {
        let count = match socket.read(&mut buffer) {
            // The service has ended, or was ended, or its pool has no use for this connection.
            Ok(0) | Err(_) => return Ok(()),
            Ok(count) => count,
        };
        input.extend_from_slice(&buffer[..count]);
        while let Some((answer, used)) = answer(&input, shared)? {
            socket.write_all(&answer)?;
            input.drain(..used);
        }
    }
}

/// Returns the answer to the request at the start of `input` and the request's length, or `None` when more bytes are needed.
fn answer(input: &[u8], shared: &Shared) -> anyhow::Result<Option<(Vec<u8>, usize)>> {
    let Some(head) = Head::parse(input)? else { return Ok(None) };
    let body: usize = head.header("content-length").unwrap_or("0").parse()?;
    anyhow::ensure!(body <= BODY_BYTES_MAX, "an event has {body} bytes");
    if input.len() < head.bytes + body {
        return Ok(None);
    }
    let used = head.bytes + body;
    let (method, path) = head.request.context("an event is no request")?;
    let event = head.header("ce-type").unwrap_or(path);
    let answer = if method == "OPTIONS" {
        b"HTTP/1.1 200 OK\r\nWebHook-Allowed-Origin: *\r\nContent-Length: 0\r\n\r\n".to_vec()
    } else if path == "/connect" {
        connected(&head, shared)?
    } else if path == "/message" || event.starts_with("azure.webpubsub.user.") {
        shared.sample.get_or_init(|| input[..used].to_vec());
        text("", &input[head.bytes..used])
    } else {
        b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()
    };
    Ok(Some((answer, used)))
}

/// Returns the answer to a connect event of the preview.
fn connected(head: &Head<'_>, shared: &Shared) -> anyhow::Result<Vec<u8>> {
    let number = shared.calls.fetch_add(1, Ordering::Relaxed);
    let kept: usize = KEPT_HEADERS.iter().filter_map(|name| head.header(name)).map(str::len).sum();
    shared.kept_bytes.fetch_add(kept as u64, Ordering::Relaxed);
    let id = head.header("x-asrs-connection-id").context("an event names no connection")?;
    let user = if shared.names_users {
        format!("X-ASRS-User-Id: user-{number}\r\n")
    } else {
        String::new()
    };
    Ok(text(&user, id.as_bytes()))
}

/// Returns an answer with a text.
fn text(headers: &str, text: &[u8]) -> Vec<u8> {
    let length = text.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\n{headers}Content-Type: text/plain\r\nContent-Length: {length}\r\n\r\n"
    );
    [head.as_bytes(), text].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_both_dialects_go_back_and_whoever_asks_is_told_that_events_are_wanted() {
        let upstream = Upstream::start(true).unwrap();
        let mut socket = TcpStream::connect(upstream.address).unwrap();
        assert!(upstream.sample().is_err());
        let echo = "200 OK\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nhi";
        for (request, answer) in [
            (
                "OPTIONS /web-pubsub HTTP/1.1\r\n\r\n",
                "200 OK\r\nWebHook-Allowed-Origin: *\r\nContent-Length: 0\r\n\r\n",
            ),
            ("POST /message HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi", echo),
            (
                "POST /web-pubsub HTTP/1.1\r\nCE-Type: azure.webpubsub.user.x\r\nContent-Length: 2\r\n\r\nhi",
                echo,
            ),
            (
                "POST /web-pubsub HTTP/1.1\r\nCE-Type: azure.webpubsub.sys.connect\r\n\r\n",
                "204 No Content\r\n\r\n",
            ),
            ("POST /disconnect HTTP/1.1\r\n\r\n", "204 No Content\r\n\r\n"),
        ] {
            socket.write_all(request.as_bytes()).unwrap();
            let expected = format!("HTTP/1.1 {answer}");
            let mut answer = vec![0; expected.len()];
            socket.read_exact(&mut answer).unwrap();
            assert_eq!(String::from_utf8(answer).unwrap(), expected);
        }
        let (sample, url) = upstream.sample().unwrap();
        assert_eq!(sample, b"POST /message HTTP/1.1\r\nContent-Length: 2\r\n\r\nhi");
        assert_eq!(url, format!("http://{}/message", upstream.address));
    }

    #[test]
    fn a_connect_event_is_answered_with_its_connection_and_a_new_user() {
        let upstream = Upstream::start(true).unwrap();
        let mut socket = TcpStream::connect(upstream.address).unwrap();
        let request = "POST /connect HTTP/1.1\r\nX-ASRS-Connection-Id: abc\r\nX-Forwarded-For: 127.0.0.1\r\n\r\n";
        let expected = |user| {
            format!(
                "HTTP/1.1 200 OK\r\nX-ASRS-User-Id: {user}\r\nContent-Type: text/plain\r\nContent-Length: 3\r\n\r\nabc"
            )
        };
        for user in ["user-0", "user-1"] {
            socket.write_all(request.as_bytes()).unwrap();
            let expected = expected(user);
            let mut answer = vec![0; expected.len()];
            socket.read_exact(&mut answer).unwrap();
            assert_eq!(String::from_utf8(answer).unwrap(), expected);
        }
        assert!((upstream.kept_bytes() - 9.0).abs() < 1e-9);
        assert!(upstream.settings("chat", "connect").contains("\"hubPattern\":\"chat\""));
    }
}
