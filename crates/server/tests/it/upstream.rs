//! An upstream that records what it is sent, byte by byte, and answers as the test says.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

/// One request as it came.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    /// The head with its spelling.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Request {
    /// Returns the value of a header in exactly this spelling.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(':')?.trim()))
    }

    /// Returns the value of `X-ASRS-Event`.
    pub(crate) fn event(&self) -> &str {
        self.header("X-ASRS-Event").unwrap_or_default()
    }

    /// Returns the value of `ce-eventname`; `validate` for the question whether events are wanted.
    pub(crate) fn ce_event(&self) -> &str {
        if self.head.starts_with("OPTIONS ") {
            return "validate";
        }
        self.header("ce-eventname").unwrap_or_default()
    }
}

/// What the upstream does with a request: the raw answer; `None`: nothing, for ever.
pub(crate) type Answer = Option<String>;

/// A running upstream; ends with the test's runtime.
pub(crate) struct Upstream {
    pub(crate) address: SocketAddr,
    requests: mpsc::UnboundedReceiver<Request>,
}

impl Upstream {
    /// Starts an upstream that answers by `answer`.
    pub(crate) async fn start(
        answer: impl Fn(&Request) -> Answer + Clone + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, requests) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                tokio::spawn(serve(socket, answer.clone(), sender.clone()));
            }
        });
        Self { address, requests }
    }

    /// Returns the next request.
    pub(crate) async fn next(&mut self) -> Request {
        self.requests.recv().await.expect("the upstream runs as long as the test")
    }

    /// Returns whether no request waits to be looked at.
    pub(crate) fn is_quiet(&self) -> bool {
        self.requests.is_empty()
    }
}

/// Returns the answer of an upstream that wants events.
pub(crate) fn welcome() -> Answer {
    ok("WebHook-Allowed-Origin: *\r\n", "")
}

/// Returns a 200 with further header lines and a body.
#[expect(clippy::unnecessary_wraps, reason = "it stands where no answer could stand")]
pub(crate) fn ok(headers: &str, body: &str) -> Answer {
    Some(format!("HTTP/1.1 200 OK\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len()))
}

async fn serve(
    mut socket: TcpStream,
    answer: impl Fn(&Request) -> Answer,
    sender: mpsc::UnboundedSender<Request>,
) {
    let mut buffer = Vec::new();
    loop {
        let head_end = loop {
            if let Some(at) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            if socket.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        };
        let head = String::from_utf8_lossy(&buffer[..head_end]).into_owned();
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length").then(|| value.parse().ok())?
        });
        let end = head_end + length.unwrap_or(0_usize);
        while buffer.len() < end {
            if socket.read_buf(&mut buffer).await.unwrap_or(0) == 0 {
                return;
            }
        }
        let request = Request { head, body: buffer[head_end..end].to_vec() };
        buffer.drain(..end);
        let answer = answer(&request);
        if sender.send(request).is_err() {
            return;
        }
        match answer {
            Some(text) => {
                if socket.write_all(text.as_bytes()).await.is_err() {
                    return;
                }
            }
            None => std::future::pending().await,
        }
    }
}
