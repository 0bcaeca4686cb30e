use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::poll;
use hookwire_hub::{CallId, ClientContext};
use hookwire_proto::message::{Message, MessageKind};
use hookwire_proto::name::{ConnectionId, HubName, UserId};
use hookwire_proto::signature;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::*;

const KEYS: [&str; 2] =
    ["primary-key-primary-key-primary-key-00", "secondary-key-secondary-key-secondary-00"];

/// A client of upstreams, and what it reported.
struct Caller {
    upstream: Upstream,
    inputs: mpsc::UnboundedReceiver<Input>,
    report: mpsc::UnboundedSender<Input>,
    last: u64,
}

/// The end of a connection that an upstream holds.
struct Peer {
    socket: TcpStream,
    buffer: Vec<u8>,
}

impl Caller {
    async fn new(limits: UpstreamLimits) -> Self {
        Self::refusing(limits, Vec::new()).await
    }

    async fn refusing(limits: UpstreamLimits, refused: Vec<AddressRange>) -> Self {
        let keys = KEYS.map(|key| AccessKey::parse(key).unwrap()).to_vec();
        let upstream = Upstream::new(limits, refused, keys).await.unwrap();
        let (report, inputs) = mpsc::unbounded_channel();
        Self { upstream, inputs, report, last: 0 }
    }

    /// Begins a call and returns its number.
    fn begin(&mut self, url: &str, event: Event) -> u64 {
        self.last += 1;
        let (upstream, report) = (self.upstream.clone(), self.report.clone());
        let call = call(self.last, url, event);
        tokio::spawn(async move {
            upstream.call(call, |input| report.send(input).unwrap_or_default()).await;
        });
        self.last
    }

    async fn next(&mut self) -> Input {
        self.inputs.recv().await.unwrap()
    }

    /// Waits for the end of a call.
    async fn end(&mut self) -> (u64, Reply) {
        let input = self.next().await;
        let Input::UpstreamReplied { call, reply } = input else { panic!("{input:?}") };
        (call.0, reply)
    }

    /// Makes a call whose upstream does as it is told meanwhile.
    async fn while_upstream<T>(
        &mut self,
        url: &str,
        event: Event,
        upstream: impl Future<Output = T>,
    ) -> (Reply, T) {
        let begun = self.begin(url, event);
        let ((ended, reply), told) = tokio::join!(self.end(), upstream);
        assert_eq!(begun, ended);
        (reply, told)
    }
}

impl Peer {
    async fn accept(listener: &TcpListener) -> Self {
        Self { socket: listener.accept().await.unwrap().0, buffer: Vec::new() }
    }

    /// Reads one request: its head as it came, and its body.
    async fn request(&mut self) -> (String, Vec<u8>) {
        let head_end = loop {
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            assert_ne!(self.socket.read_buf(&mut self.buffer).await.unwrap(), 0, "no request");
        };
        let head = String::from_utf8(self.buffer[..head_end].to_vec()).unwrap();
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: "));
        let end = head_end + length.unwrap().parse::<usize>().unwrap();
        while self.buffer.len() < end {
            assert_ne!(self.socket.read_buf(&mut self.buffer).await.unwrap(), 0, "half a request");
        }
        let body = self.buffer[head_end..end].to_vec();
        self.buffer.drain(..end);
        (head, body)
    }

    async fn write(&mut self, answer: impl AsRef<[u8]>) {
        self.socket.write_all(answer.as_ref()).await.unwrap();
    }

    /// Waits until the other side has closed the connection.
    async fn closed(mut self) {
        // It may be reset, since it was sent what it did not want.
        while self.socket.read_buf(&mut self.buffer).await.unwrap_or(0) != 0 {}
    }
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/chat/api/event?code=s3cret", listener.local_addr().unwrap());
    (listener, url)
}

fn call(id: u64, url: &str, event: Event) -> Call {
    Call {
        id: CallId(id),
        url: url.to_owned(),
        hub: HubName::parse("chat").unwrap(),
        connection: ConnectionId::new(1, 2, [3; 16]),
        user: Some(UserId::parse("Jürgen").unwrap()),
        context: ClientContext::new("a=1&b=%20", "sub: Jürgen, role: x", "192.0.2.1, 192.0.2.2"),
        event,
    }
}

fn connect() -> Event {
    Event::Connect { subprotocols: vec!["chat.v2".to_owned(), "chat.v1".to_owned()] }
}

fn message(text: &str) -> Event {
    Event::Message(Message::text(text))
}

fn status(reply: &Reply) -> Option<u16> {
    match reply {
        Reply::Answered { status, .. } => Some(*status),
        Reply::Failed { .. } => None,
    }
}

fn reason(reply: Reply) -> String {
    match reply {
        Reply::Failed { reason } => reason,
        Reply::Answered { status, .. } => panic!("answered {status}"),
    }
}

const NO_CONTENT: &str = "HTTP/1.1 204 No Content\r\n\r\n";

/// Returns the head of a request with the date left out, which is checked to be one.
async fn golden(event: Event) -> (String, String, Vec<u8>) {
    let (listener, url) = listen().await;
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    let upstream = async {
        let mut peer = Peer::accept(&listener).await;
        let request = peer.request().await;
        peer.write(NO_CONTENT).await;
        request
    };
    let (reply, (head, body)) = caller.while_upstream(&url, event, upstream).await;
    assert_eq!(status(&reply), Some(204));
    let date = head.lines().find_map(|line| line.strip_prefix("Date: ")).unwrap();
    httpdate::parse_http_date(date).unwrap();
    let head = head.replace(date, "(date)");
    (head, listener.local_addr().unwrap().to_string(), body)
}

fn golden_head(host: &str, category: &str, event: &str, further: &str) -> String {
    let connection = ConnectionId::new(1, 2, [3; 16]).to_string();
    let keys = KEYS.map(|key| AccessKey::parse(key).unwrap());
    let signature = signature::sign(&keys, &connection);
    assert_eq!(signature.matches("sha256=").count(), 2);
    format!(
        "POST /chat/api/event?code=s3cret HTTP/1.1\r\n\
         Host: {host}\r\n\
         X-ASRS-Connection-Id: {connection}\r\n\
         X-ASRS-Hub: chat\r\n\
         X-ASRS-Category: {category}\r\n\
         X-ASRS-Event: {event}\r\n\
         X-ASRS-User-Id: Jürgen\r\n\
         X-ASRS-User-Claims: sub: Jürgen, role: x\r\n\
         X-ASRS-Signature: {signature}\r\n\
         X-ASRS-Client-Query: a=1&b=%20\r\n\
         X-Forwarded-For: 192.0.2.1, 192.0.2.2\r\n\
         Date: (date)\r\n\
         {further}\r\n"
    )
}

#[tokio::test]
async fn a_connect_event_on_the_wire() {
    let (head, host, body) = golden(connect()).await;
    let further = "Sec-WebSocket-Protocol: chat.v2, chat.v1\r\nContent-Length: 0\r\n";
    assert_eq!(head, golden_head(&host, "connections", "connect", further));
    assert_eq!(body, b"");
}

#[tokio::test]
async fn message_events_on_the_wire() {
    let (head, host, body) = golden(message("häh?")).await;
    let further = "Content-Type: text/plain\r\nContent-Length: 5\r\n";
    assert_eq!(head, golden_head(&host, "messages", "message", further));
    assert_eq!(body, "häh?".as_bytes());

    let bytes = Message { kind: MessageKind::Binary, data: Bytes::from_static(&[0, 255, 10]) };
    let (head, host, body) = golden(Event::Message(bytes)).await;
    let further = "Content-Type: application/octet-stream\r\nContent-Length: 3\r\n";
    assert_eq!(head, golden_head(&host, "messages", "message", further));
    assert_eq!(body, [0, 255, 10]);
}

#[tokio::test]
async fn a_disconnect_event_on_the_wire() {
    let (head, host, body) = golden(Event::Disconnect).await;
    assert_eq!(head, golden_head(&host, "connections", "disconnect", "Content-Length: 0\r\n"));
    assert_eq!(body, b"");
}

#[tokio::test]
async fn what_is_not_known_is_left_out() {
    let (listener, url) = listen().await;
    let caller = Caller::new(UpstreamLimits::default()).await;
    let mut call = call(1, &url, Event::Connect { subprotocols: Vec::new() });
    call.user = None;
    call.context = ClientContext::new("", "", "192.0.2.1");
    let upstream = async {
        let mut peer = Peer::accept(&listener).await;
        let (head, _) = peer.request().await;
        peer.write(NO_CONTENT).await;
        head
    };
    let ((), head) = tokio::join!(caller.upstream.call(call, |_| {}), upstream);
    for name in ["X-ASRS-User-Id", "X-ASRS-Client-Query", "Sec-WebSocket-Protocol", "Content-Type"]
    {
        assert!(!head.contains(name), "{head}");
    }
    assert!(head.contains("X-Forwarded-For: 192.0.2.1\r\n"), "{head}");
}

#[tokio::test]
async fn an_answer_is_reported_with_all_that_the_hub_needs() {
    let (listener, url) = listen().await;
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    let upstream = async {
        let mut peer = Peer::accept(&listener).await;
        peer.request().await;
        peer.write(
            "HTTP/1.1 401 No\r\nX-ASRS-User-Id: Jürgen\r\nsec-websocket-protocol: chat.v1\r\n\
             Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        )
        .await;
    };
    let (reply, ()) = caller.while_upstream(&url, connect(), upstream).await;
    let Reply::Answered { status, subprotocols, user, content_type, body } = reply else {
        panic!("{reply:?}")
    };
    assert_eq!((status, &body[..]), (401, &b"{}"[..]));
    assert_eq!(subprotocols, ["chat.v1"]);
    assert_eq!(user.as_deref(), Some("Jürgen"));
    assert_eq!(content_type.as_deref(), Some("application/json"));
}

#[tokio::test]
async fn connections_are_used_again() {
    let (listener, url) = listen().await;
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    caller.begin(&url, message("first"));
    let mut peer = Peer::accept(&listener).await;
    for text in ["first", "second", "third"] {
        assert_eq!(peer.request().await.1, text.as_bytes());
        peer.write(NO_CONTENT).await;
        assert_eq!(status(&caller.end().await.1), Some(204));
        caller.begin(&url, message(if text == "first" { "second" } else { "third" }));
    }
}

#[tokio::test]
async fn a_message_passes_and_its_late_answer_is_delivered() {
    let (listener, url) = listen().await;
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    let id = caller.begin(&url, message("hello"));
    let mut peer = Peer::accept(&listener).await;
    peer.request().await;
    // From here on nothing happens but time, so the clock may jump.
    tokio::time::pause();
    let begin = Instant::now();
    let Input::UpstreamPassed { call } = caller.next().await else { panic!("it passes first") };
    assert_eq!(call.0, id);
    assert!(begin.elapsed() <= course::PASS_TIME + Duration::from_millis(1));
    tokio::time::resume();
    peer.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate").await;
    let (ended, reply) = caller.end().await;
    assert_eq!((ended, status(&reply)), (id, Some(200)));
}

#[tokio::test]
async fn an_answer_that_drips_passes_and_ends_in_time() {
    let (listener, url) = listen().await;
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    caller.begin(&url, message("hello"));
    let mut peer = Peer::accept(&listener).await;
    peer.request().await;
    peer.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ns").await;
    tokio::time::pause();
    let begin = Instant::now();
    assert!(matches!(caller.next().await, Input::UpstreamPassed { .. }));
    assert_eq!(reason(caller.end().await.1), "no complete answer within 60s");
    assert!(begin.elapsed() <= Duration::from_secs(61));
    tokio::time::resume();
    peer.closed().await;
}

#[tokio::test]
async fn connects_and_disconnects_do_not_pass_and_end_in_time() {
    for (event, limit) in [(connect(), "30s"), (Event::Disconnect, "60s")] {
        let (listener, url) = listen().await;
        let mut caller = Caller::new(UpstreamLimits::default()).await;
        caller.begin(&url, event);
        let mut peer = Peer::accept(&listener).await;
        peer.request().await;
        tokio::time::pause();
        let (_, reply) = caller.end().await;
        assert_eq!(reason(reply), format!("no complete answer within {limit}"));
        tokio::time::resume();
        peer.closed().await;
    }
}

#[tokio::test]
async fn a_connection_closed_before_any_answer_is_followed_by_another() {
    for event in [connect(), message("hello")] {
        let (listener, url) = listen().await;
        let mut caller = Caller::new(UpstreamLimits::default()).await;
        let upstream = async {
            let mut peer = Peer::accept(&listener).await;
            let first = peer.request().await;
            drop(peer);
            let mut peer = Peer::accept(&listener).await;
            assert_eq!(peer.request().await.1, first.1);
            peer.write(NO_CONTENT).await;
        };
        let (reply, ()) = caller.while_upstream(&url, event, upstream).await;
        assert_eq!(status(&reply), Some(204));
    }
}

#[tokio::test]
async fn a_disconnect_is_attempted_once() {
    let (listener, url) = listen().await;
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    let upstream = async {
        Peer::accept(&listener).await.request().await;
    };
    let (reply, ()) = caller.while_upstream(&url, Event::Disconnect, upstream).await;
    assert!(reason(reply).starts_with("the upstream broke off: "));
    assert!(poll!(pin!(listener.accept())).is_pending());
}

#[tokio::test]
async fn every_event_survives_that_the_upstream_closed_an_idle_connection() {
    let (listener, url) = listen().await;
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    for _ in 0..20 {
        let upstream = async {
            let mut peer = Peer::accept(&listener).await;
            peer.request().await;
            peer.write(NO_CONTENT).await;
            peer.socket.shutdown().await.unwrap();
            // The caller has seen it when its own end is closed.
            peer.closed().await;
        };
        let (reply, ()) = caller.while_upstream(&url, Event::Disconnect, upstream).await;
        assert_eq!(status(&reply), Some(204));
    }
}

#[tokio::test]
async fn no_event_is_lost_when_the_close_of_an_idle_connection_crosses_it() {
    for event in [connect(), message("hello"), Event::Disconnect] {
        let (listener, url) = listen().await;
        let mut caller = Caller::new(UpstreamLimits::default()).await;
        let first = async {
            let mut peer = Peer::accept(&listener).await;
            peer.request().await;
            peer.write(NO_CONTENT).await;
            peer
        };
        let (_, mut peer) = caller.while_upstream(&url, connect(), first).await;
        let upstream = async {
            // The kernel has taken it, the upstream is gone.
            let crossed = peer.request().await;
            drop(peer);
            let mut peer = Peer::accept(&listener).await;
            assert_eq!(peer.request().await.1, crossed.1);
            peer.write(NO_CONTENT).await;
        };
        let (reply, ()) = caller.while_upstream(&url, event, upstream).await;
        assert_eq!(status(&reply), Some(204));
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_final() {
    for part in
        ["HTTP/1.1 20", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "nonsense\r\n\r\n"]
    {
        let (listener, url) = listen().await;
        let mut caller = Caller::new(UpstreamLimits::default()).await;
        let upstream = async {
            let mut peer = Peer::accept(&listener).await;
            peer.request().await;
            peer.write(part).await;
        };
        let (reply, ()) = caller.while_upstream(&url, connect(), upstream).await;
        assert!(reason(reply).starts_with("the upstream broke off: "), "{part}");
        assert!(poll!(pin!(listener.accept())).is_pending(), "{part}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_is_not_there_is_tried_for_five_seconds() {
    let (listener, url) = listen().await;
    drop(listener);
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    let begin = Instant::now();
    caller.begin(&url, connect());
    let text = reason(caller.end().await.1);
    assert!(text.starts_with("cannot reach the upstream: "), "{text}");
    assert!(!text.contains("s3cret"), "{text}");
    assert!(Duration::from_secs(3) < begin.elapsed() && begin.elapsed() < course::REPEAT_TIME_MAX);

    let begin = Instant::now();
    caller.begin(&url, Event::Disconnect);
    assert!(reason(caller.end().await.1).starts_with("cannot reach the upstream: "));
    assert!(begin.elapsed() < course::REPEAT_PAUSE);
}

/// Has a connect event answered by `answer` and returns why it failed.
async fn refused_answer(answer: &[u8]) -> String {
    let (listener, url) = listen().await;
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    let upstream = async {
        let mut peer = Peer::accept(&listener).await;
        peer.request().await;
        // The caller may close before it has seen everything.
        let _ = peer.socket.write_all(answer).await;
        peer.closed().await;
    };
    let (reply, ()) = caller.while_upstream(&url, connect(), upstream).await;
    assert!(poll!(pin!(listener.accept())).is_pending(), "it is not repeated");
    reason(reply)
}

#[tokio::test]
async fn too_large_answers_fail_and_close() {
    let announced = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1024 * 1024 + 1);
    assert_eq!(refused_answer(announced.as_bytes()).await, "the answer exceeds 1048576 bytes");

    let mut chunk = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    chunk.extend_from_slice(b"100000\r\n");
    chunk.resize(chunk.len() + 1024 * 1024, b'a');
    chunk.extend_from_slice(b"\r\n1\r\na\r\n");
    assert_eq!(refused_answer(&chunk).await, "the answer exceeds 1048576 bytes");
}

#[tokio::test]
async fn the_largest_answers_are_taken() {
    for (event, bytes) in [(connect(), 1024 * 1024), (message("hello"), 16 * 1024 * 1024)] {
        let (listener, url) = listen().await;
        let mut caller = Caller::new(UpstreamLimits::default()).await;
        let upstream = async {
            let mut peer = Peer::accept(&listener).await;
            peer.request().await;
            peer.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n")).await;
            peer.write(vec![b'a'; bytes]).await;
        };
        caller.begin(&url, event);
        let mut received = 0;
        tokio::join!(upstream, async {
            // Meanwhile it may pass on a slow machine.
            while let Some(input) = caller.inputs.recv().await {
                if let Input::UpstreamReplied { reply: Reply::Answered { body, .. }, .. } = input {
                    received = body.len();
                    break;
                }
            }
        });
        assert_eq!(received, bytes);
    }
}

#[tokio::test]
async fn heads_without_end_fail_and_close() {
    let mut long = b"HTTP/1.1 200 OK\r\nX-Long: ".to_vec();
    long.resize(answer::HEAD_BYTES_MAX + 64 * 1024, b'a');
    assert!(refused_answer(&long).await.contains("too large"));

    let many = "HTTP/1.1 200 OK\r\n".to_owned() + &"X-Many: 1\r\n".repeat(answer::HEADERS_MAX + 1);
    assert!(refused_answer((many + "\r\n").as_bytes()).await.starts_with("the upstream broke off"));
}

#[tokio::test]
async fn malformed_answers_fail() {
    let answer = |line: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{line}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    for (answer, word) in [
        (answer("Content-Encoding: gzip", b"\x1f\x8b\x08"), "Content-Encoding"),
        (answer("Content-Type: text/plain", b"\xff"), "not UTF-8"),
        (answer("Content-Type: application/json", b"\"\xff\""), "not UTF-8"),
        (answer("X-ASRS-User-Id: a\r\nX-ASRS-User-Id: b", b""), "X-ASRS-User-Id"),
    ] {
        let (listener, url) = listen().await;
        let mut caller = Caller::new(UpstreamLimits::default()).await;
        let upstream = async {
            let mut peer = Peer::accept(&listener).await;
            peer.request().await;
            peer.write(&answer).await;
        };
        let (reply, ()) = caller.while_upstream(&url, connect(), upstream).await;
        let reason = reason(reply);
        assert!(reason.contains(word), "{reason}");
    }
}

#[tokio::test]
async fn an_upstream_that_speaks_no_tls_where_the_url_says_so_is_unreachable() {
    let (listener, url) = listen().await;
    let url = url.replace("http://", "https://");
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    let upstream = async {
        let mut peer = Peer::accept(&listener).await;
        assert_ne!(peer.socket.read_buf(&mut peer.buffer).await.unwrap(), 0);
        assert_eq!(peer.buffer[0], 22, "a TLS handshake record (RFC 8446, section 5.1)");
        peer.write("HTTP/1.1 400 Bad Request\r\n\r\n").await;
    };
    let (reply, ()) = caller.while_upstream(&url, Event::Disconnect, upstream).await;
    let reason = reason(reply);
    assert!(reason.starts_with("cannot reach the upstream: "), "{reason}");
}

#[tokio::test]
async fn redirects_and_server_errors_are_answers() {
    for status_line in ["302 Found", "500 Oops", "503 Busy"] {
        let (listener, url) = listen().await;
        let mut caller = Caller::new(UpstreamLimits::default()).await;
        let upstream = async {
            let mut peer = Peer::accept(&listener).await;
            peer.request().await;
            let there = listener.local_addr().unwrap();
            peer.write(format!(
                "HTTP/1.1 {status_line}\r\nLocation: http://{there}/\r\nContent-Length: 0\r\n\r\n"
            ))
            .await;
            peer
        };
        let (reply, _peer) = caller.while_upstream(&url, connect(), upstream).await;
        let code = status_line.split(' ').next().unwrap();
        assert_eq!(status(&reply), Some(code.parse().unwrap()));
        assert!(poll!(pin!(listener.accept())).is_pending(), "nothing follows {status_line}");
    }
}

#[tokio::test]
async fn refused_addresses_are_not_called_by_number_or_by_name() {
    let (listener, url) = listen().await;
    let refused = ["127.0.0.0/8", "::1"].map(|range| range.parse().unwrap()).to_vec();
    let mut caller = Caller::refusing(UpstreamLimits::default(), refused).await;
    let by_name = url.replace("127.0.0.1", "localhost");
    assert!(by_name.contains("localhost"));
    for url in [&url, &by_name] {
        let begin = Instant::now();
        caller.begin(url, message("hello"));
        assert_eq!(reason(caller.end().await.1), "addresses of this range are refused");
        assert!(begin.elapsed() < course::REPEAT_TIME_MAX, "it is not tried again");
    }
    assert!(poll!(pin!(listener.accept())).is_pending());
    for url in ["ftp://127.0.0.1/", "http://[fe80::1%25eth0]/", "nonsense", ""] {
        caller.begin(url, message("hello"));
        assert_eq!(reason(caller.end().await.1), "not a URL that can be called");
    }
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_makes_way() {
    for nobody_waits_for in [message("first"), Event::Disconnect] {
        let passes = matches!(nobody_waits_for, Event::Message(_));
        let (listener, url) = listen().await;
        let limits = UpstreamLimits { calls_in_flight_max: 2, ..UpstreamLimits::default() };
        let mut caller = Caller::new(limits).await;
        let first = caller.begin(&url, nobody_waits_for);
        let mut silent = Peer::accept(&listener).await;
        silent.request().await;
        let second = caller.begin(&url, message("second"));
        tokio::time::pause();
        if passes {
            assert!(
                matches!(caller.next().await, Input::UpstreamPassed { call } if call.0 == first)
            );
        }
        let (ended, reply) = caller.end().await;
        tokio::time::resume();
        assert_eq!((ended, reason(reply).as_str()), (first, "given up for newer calls"));
        silent.closed().await;
        let mut peer = Peer::accept(&listener).await;
        assert_eq!(peer.request().await.1, b"second");
        peer.write(NO_CONTENT).await;
        let (ended, reply) = caller.end().await;
        assert_eq!((ended, status(&reply)), (second, Some(204)));
    }
}

/// An upstream that holds each request until as many stand there as can, and counts.
async fn crowd(listener: TcpListener, open_max: usize, most: Arc<AtomicUsize>) {
    let open = Arc::new(AtomicUsize::new(0));
    let barrier = Arc::new(tokio::sync::Barrier::new(open_max));
    loop {
        let mut peer = Peer::accept(&listener).await;
        let (open, barrier, most) = (open.clone(), barrier.clone(), most.clone());
        tokio::spawn(async move {
            loop {
                if peer.buffer.is_empty()
                    && peer.socket.read_buf(&mut peer.buffer).await.unwrap_or(0) == 0
                {
                    return;
                }
                peer.request().await;
                most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                barrier.wait().await;
                open.fetch_sub(1, Ordering::SeqCst);
                peer.write(NO_CONTENT).await;
            }
        });
    }
}

#[tokio::test]
async fn an_upstream_sees_no_more_calls_at_once_than_it_has_places() {
    let (listener, url) = listen().await;
    let most = Arc::new(AtomicUsize::new(0));
    tokio::spawn(crowd(listener, 6, most.clone()));
    let limits = UpstreamLimits { calls_in_flight_max: 8, ..UpstreamLimits::default() };
    let mut caller = Caller::new(limits).await;
    for at in 0..60 {
        caller.begin(&url, message(&at.to_string()));
    }
    let mut ended = 0;
    while ended < 60 {
        // On a slow machine a call may pass before the upstream has all it waits for.
        if let Input::UpstreamReplied { reply, .. } = caller.next().await {
            assert_eq!(status(&reply), Some(204));
            ended += 1;
        }
    }
    assert_eq!(most.load(Ordering::SeqCst), 6);
}

#[tokio::test]
async fn ten_thousand_calls_to_a_dead_upstream_hold_nobody_else_up() {
    let (dead, dead_url) = listen().await;
    let (lively, lively_url) = listen().await;
    let limits = UpstreamLimits { calls_in_flight_max: 16, ..UpstreamLimits::default() };
    let mut caller = Caller::new(limits).await;
    for _ in 0..10_000 {
        caller.begin(&dead_url, Event::Disconnect);
    }
    let mut silent = Vec::new();
    for _ in 0..12 {
        let mut peer = Peer::accept(&dead).await;
        peer.request().await;
        silent.push(peer);
    }
    // Another upstream is as quick as ever.
    let last = caller.begin(&lively_url, message("hello"));
    let mut peer = Peer::accept(&lively).await;
    peer.request().await;
    peer.write(NO_CONTENT).await;
    let answered = loop {
        // Those that the upstream never answers end meanwhile, as they make way.
        if let (ended, Reply::Answered { status, .. }) = caller.end().await {
            break (ended, status);
        }
    };
    assert_eq!(answered, (last, 204));
    // And the places of connect events are free.
    let last = caller.begin(&dead_url, connect());
    let connected = loop {
        let mut peer = Peer::accept(&dead).await;
        if peer.request().await.0.contains("X-ASRS-Event: connect\r\n") {
            peer.write(NO_CONTENT).await;
            break loop {
                if let (ended, Reply::Answered { status, .. }) = caller.end().await {
                    break (ended, status);
                }
            };
        }
        silent.push(peer);
    };
    assert_eq!(connected, (last, 204));
}

#[tokio::test]
async fn waiting_payload_beyond_its_limit_fails_at_once() {
    let (listener, url) = listen().await;
    let limits = UpstreamLimits { calls_in_flight_max: 2, ..UpstreamLimits::default() };
    let mut caller = Caller::new(limits).await;
    caller.begin(&url, message("first"));
    let mut peer = Peer::accept(&listener).await;
    peer.request().await;
    let large = "a".repeat(1024 * 1024);
    let count = u64::try_from(gate::WAITING_BYTES_MAX / large.len()).unwrap();
    let mut last = 0;
    for _ in 0..=count {
        last = caller.begin(&url, message(&large));
    }
    let (ended, reply) = caller.end().await;
    assert_eq!((ended, reason(reply).as_str()), (last, "too much waits for this upstream"));
}

#[test]
fn origins_and_shown_urls_hold_no_secret() {
    let target = Target::parse("HTTP://Example.COM:80/api/../x y?code=s3cret#part").unwrap();
    assert_eq!(target.origin(), "http://example.com");
    assert_eq!(target.shown(), "http://example.com/x%20y");
    assert!(Target::parse("https://[::1]:8443/").is_some());
}
