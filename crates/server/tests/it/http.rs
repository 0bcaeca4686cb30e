//! HTTP as proxies, old clients and attackers speak it.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::node::{TestNode, next, start, token};

const HUB: &str = "/ws/api/v1/hubs/chat/";

/// Returns the head of an authorized send, up to where its own headers may follow.
fn send_head() -> String {
    format!("POST {HUB} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n", token(HUB, None))
}

/// Returns the statuses of all answers in what a node has written.
fn statuses(answer: &str) -> Vec<u16> {
    let lines = answer.split("HTTP/1.1 ").skip(1);
    lines.map(|line| line[..3].parse().expect("a status has three digits")).collect()
}

async fn read_head(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn a_body_nobody_wants_does_not_hide_the_answer() {
    let node = start(None, |_| {}).await;
    let body = vec![b'x'; 12 * 1024 * 1024];
    let unauthorized = format!("POST {HUB} HTTP/1.1\r\nHost: x\r\n");
    for (head, status) in [(send_head(), 413), (unauthorized, 401)] {
        let mut socket = TcpStream::connect(node.address).await.unwrap();
        let head = format!("{head}Connection: close\r\nContent-Length: {}\r\n\r\n", body.len());
        // As many clients do: everything is written before anything is read.
        socket.write_all(head.as_bytes()).await.unwrap();
        socket.write_all(&body).await.unwrap();
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.unwrap();
        assert_eq!(statuses(&answer), [status], "{answer}");
    }
}

#[tokio::test]
async fn chunked_bodies_are_taken_within_the_limit_and_end_the_connection() {
    let node = start(None, |config| config.limits.rest_body_bytes_max = 2_000).await;
    let mut client = node.connect_as("chat", "ann").await;
    let chunked = format!("{}Transfer-Encoding: chunked\r\n\r\n", send_head());
    let follower = "GET /api/v1/health HTTP/1.1\r\nHost: x\r\n\r\n";
    let (_, answer) =
        node.bytes(format!("{chunked}3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n{follower}").as_bytes()).await;
    assert_eq!(statuses(&answer), [200], "{answer}");
    assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    assert_eq!(next(&mut client).await.unwrap().into_text().unwrap(), "abcde");

    let much = format!("{chunked}7D0\r\n{}\r\n1\r\nx\r\n0\r\n\r\n", "x".repeat(2_000));
    assert_eq!(statuses(&node.bytes(much.as_bytes()).await.1), [413]);
    let broken = format!("{chunked}zz\r\nabc\r\n0\r\n\r\n");
    assert_eq!(statuses(&node.bytes(broken.as_bytes()).await.1), [400]);
}

#[tokio::test]
async fn heads_that_two_parsers_could_read_differently_are_not_served() {
    let node = start(None, |_| {}).await;
    let hidden = "GET /api/v1/health HTTP/1.1\r\nHost: x\r\n\r\n";
    let both = format!("Content-Length: {}\r\nTransfer-Encoding: chunked\r\n", 5 + hidden.len());
    let turned = format!("Transfer-Encoding: chunked\r\nContent-Length: {}\r\n", 5 + hidden.len());
    for headers in [both, turned] {
        // One parser sees a body that holds a request, the other a request of its own.
        let (_, answer) =
            node.bytes(format!("{}{headers}\r\n0\r\n\r\n{hidden}", send_head()).as_bytes()).await;
        assert_eq!(statuses(&answer), [200], "one answer, then the end: {answer}");
    }
    for headers in [
        "Content-Length: 3\r\nContent-Length: 4\r\n",
        "Content-Length: +3\r\n",
        "Content-Length: 3, 4\r\n",
        "Content-Length: 0x3\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Transfer-Encoding: chunked, gzip\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Content-Length : 3\r\n",
        "X: a\r\n Content-Length: 3\r\n",
        "X: a\0b\r\n",
        "X\0: a\r\n",
        "Host: y\r\n",
        ": a\r\n",
    ] {
        let request = format!("{}{headers}\r\nabc{hidden}", send_head());
        let (status, answer) = node.bytes(request.as_bytes()).await;
        // What hyper cannot frame it answers with 400 or by closing; it must not go on to what follows.
        assert!(status == 400 || answer.is_empty(), "{headers:?}: {answer}");
        assert!(!answer.contains("healthy"), "{headers:?}: {answer}");
    }
}

#[tokio::test]
async fn request_lines_of_every_form_get_their_status() {
    let node = start(None, |_| {}).await;
    let long = format!("GET /api/v1/health?{} HTTP/1.1\r\nHost: x\r\n\r\n", "y".repeat(40_000));
    let many = format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(101));
    let close = "Connection: close\r\n\r\n";
    for (request, status) in [
        (format!("GET http://elsewhere:1/api/v1/health HTTP/1.1\r\nHost: x\r\n{close}"), 200),
        (format!("OPTIONS * HTTP/1.1\r\nHost: x\r\n{close}"), 404),
        (format!("CONNECT elsewhere:443 HTTP/1.1\r\nHost: x\r\n{close}"), 404),
        (format!("GET /api/v1/health/ HTTP/1.1\r\nHost: x\r\n{close}"), 200),
        (format!("GET /api/v1/%68ealth HTTP/1.1\r\nHost: x\r\n{close}"), 200),
        (format!("GET /api/v1/../v1/health HTTP/1.1\r\nHost: x\r\n{close}"), 404),
        (format!("GET //api/v1/health HTTP/1.1\r\nHost: x\r\n{close}"), 404),
        (format!("GET /api/v1/health%00 HTTP/1.1\r\nHost: x\r\n{close}"), 404),
        (format!("GET /api/v1/%ff HTTP/1.1\r\nHost: x\r\n{close}"), 400),
        (format!("GET /api/v1/health HTTP/1.1\r\n{close}"), 400),
        ("GET /api/v1/health HTTP/1.0\r\n\r\n".to_owned(), 200),
        ("GET /api/v1/health HTTP/2.0\r\nHost: x\r\n\r\n".to_owned(), 400),
        ("GET /api/v1/health\r\n\r\n".to_owned(), 400),
        ("G@T / HTTP/1.1\r\nHost: x\r\n\r\n".to_owned(), 400),
        // hyper closes at once when it sees HTTP/2.
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(), 0),
        (long, 431),
        (many, 431),
    ] {
        let (got, answer) = node.bytes(request.as_bytes()).await;
        assert_eq!(got, status, "{}: {answer}", &request[..request.len().min(100)]);
    }
}

#[tokio::test]
async fn errors_say_what_is_wrong_in_json_and_head_answers_have_no_body() {
    let node = start(None, |_| {}).await;
    let (status, answer) = node.raw("PATCH", HUB, "", b"").await;
    assert_eq!(status, 405);
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let head = head.to_ascii_lowercase();
    assert!(head.contains("allow: post") && head.contains("application/json"), "{head}");
    let error: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!(error["code"], "MethodNotAllowed");

    let (status, answer) = node.raw("POST", HUB, "", b"").await;
    assert_eq!(status, 401);
    assert!(answer.to_ascii_lowercase().contains("www-authenticate: bearer"), "{answer}");
    for path in ["/ws/api/v1/hubs/chat/users/ann", "/no/such/path", "/api/v1/health"] {
        let (_, answer) = node.raw("HEAD", path, "", b"").await;
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn requests_on_one_connection_are_answered_in_order() {
    let node = start(None, |_| {}).await;
    let send = format!("{}Content-Length: 2\r\n\r\nhi", send_head());
    let last = "HEAD /no HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let health = "GET /api/v1/health HTTP/1.1\r\nHost: x\r\n\r\n";
    let (_, answer) = node.bytes(format!("{send}{health}{send}{last}").as_bytes()).await;
    assert_eq!(statuses(&answer), [200, 200, 200, 404]);
    assert_eq!(answer.matches("healthy").count(), 1);
}

#[tokio::test]
async fn who_asks_before_sending_is_told_early() {
    let node = start(None, |_| {}).await;
    let mut socket = TcpStream::connect(node.address).await.unwrap();
    let expect = "Expect: 100-continue\r\nContent-Length: 2\r\n\r\n";
    socket.write_all(format!("{}{expect}", send_head()).as_bytes()).await.unwrap();
    assert!(read_head(&mut socket).await.starts_with("HTTP/1.1 100 "));
    socket.write_all(b"hi").await.unwrap();
    assert!(read_head(&mut socket).await.starts_with("HTTP/1.1 200 "));
    // Without a token nothing is asked for.
    let request = format!("POST {HUB} HTTP/1.1\r\nHost: x\r\n{expect}");
    assert_eq!(statuses(&node.bytes(request.as_bytes()).await.1), [401]);
}

/// Starts a send and returns when the node waits for its body.
async fn begun(node: &TestNode) -> TcpStream {
    let mut socket = TcpStream::connect(node.address).await.unwrap();
    let head = format!("{}Expect: 100-continue\r\nContent-Length: 4\r\n\r\n", send_head());
    socket.write_all(head.as_bytes()).await.unwrap();
    assert!(read_head(&mut socket).await.starts_with("HTTP/1.1 100 "));
    socket
}

#[tokio::test]
async fn a_body_that_does_not_come_is_given_up() {
    let node = start(None, |_| {}).await;
    let mut socket = begun(&node).await;
    socket.write_all(b"hi").await.unwrap();
    // From here on the clock jumps to the next deadline whenever nothing else happens.
    tokio::time::pause();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.unwrap();
    assert_eq!(statuses(&answer), [408], "{answer}");
    assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
}

#[tokio::test]
async fn shutdown_finishes_what_has_begun_and_ends_what_idles() {
    let node = start(None, |_| {}).await;
    let mut idle = TcpStream::connect(node.address).await.unwrap();
    idle.write_all(b"GET /api/v1/health HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    assert!(read_head(&mut idle).await.starts_with("HTTP/1.1 200 "));
    let mut begun = begun(&node).await;
    let address = node.address;
    let stopped = tokio::spawn(node.node.shutdown());
    let mut rest = String::new();
    idle.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "healthy\n", "the idle connection ends");
    begun.write_all(b"hiya").await.unwrap();
    let mut answer = String::new();
    begun.read_to_string(&mut answer).await.unwrap();
    assert_eq!(statuses(&answer), [200], "{answer}");
    assert!(answer.to_ascii_lowercase().contains("connection: close"), "{answer}");
    assert!(stopped.await.unwrap(), "nothing was left when the time was up");
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens");
}

#[tokio::test]
async fn a_caller_that_takes_no_answers_is_dropped() {
    let time_max = std::time::Duration::from_millis(500);
    let node = start(None, |config| config.limits.handshake_time_max = time_max).await;
    let mut socket = TcpStream::connect(node.address).await.unwrap();
    let requests = "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1_000);
    // Written without reading until both directions are full, and then until the node gives up.
    while socket.write_all(requests.as_bytes()).await.is_ok() {}
    assert_eq!(node.raw("GET", "/api/v1/health", "", b"").await.0, 200);
}

#[tokio::test]
async fn metrics_are_for_this_machine_and_key_holders() {
    let node = start(None, |_| {}).await;
    let by_proxy = "X-Forwarded-For: 203.0.113.7\r\n";
    assert_eq!(node.raw("GET", "/metrics", "", b"").await.0, 200);
    assert_eq!(node.raw("GET", "/metrics", by_proxy, b"").await.0, 401);
    let authorized = format!("{by_proxy}Authorization: Bearer {}\r\n", token("/metrics", None));
    let (status, text) = node.raw("GET", "/metrics", &authorized, b"").await;
    assert_eq!(status, 200);
    let counted = "hookwire_http_requests_total{route=\"metrics\",status=\"401\"}";
    assert!(text.contains(counted), "{text}");
    let node = start(None, |config| config.metrics_public = true).await;
    assert_eq!(node.raw("GET", "/metrics", by_proxy, b"").await.0, 200);
}
