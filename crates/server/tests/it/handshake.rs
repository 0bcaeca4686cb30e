//! Who gets in, by which door, and what the upstream hears of it.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use hookwire_proto::frame::{Opcode, encode};
use hookwire_proto::signature::AccessKey;
use hookwire_proto::token::NewToken;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, mpsc};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::node::{Client, KEYS, TestNode, next, start};
use crate::upstream::{Upstream, ok};

const UPGRADE: &str = "Host: x\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";

/// Connects to a path and query with further headers; returns the client or the status of the refusal.
async fn connect(node: &TestNode, path: &str, headers: &[(&str, &str)]) -> Result<Client, u16> {
    let mut request = format!("ws://{}{path}", node.address).into_client_request().unwrap();
    for (name, value) in headers {
        let name: http::HeaderName = name.parse().unwrap();
        request.headers_mut().append(name, value.parse().unwrap());
    }
    match connect_async(request).await {
        Ok((client, _)) => Ok(client),
        Err(Error::Http(answer)) => Err(answer.status().as_u16()),
        Err(error) => panic!("{path}: {error}"),
    }
}

/// Returns a token with exactly this audience and these further claims.
fn token_for(audience: &str, lifetime: Duration, issued: i64, claims: &Value) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let claims: Map<String, Value> = claims.as_object().unwrap().clone();
    let issued_at = now.saturating_add_signed(issued);
    NewToken { audience, issued_at, lifetime, user: Some("ann"), claims }
        .sign(&AccessKey::parse(KEYS[0]).unwrap())
}

fn hour(audience: &str) -> String {
    token_for(audience, Duration::from_hours(1), 0, &json!({}))
}

#[tokio::test]
async fn every_form_of_the_url_leads_in_and_decides_the_kind_of_frame() {
    let node = start(None, |_| {}).await;
    let token = hour("http://localhost/ws/client/hubs/chat");
    let (text, binary) = (Message::text("hi"), Message::binary("hi"));
    for (path, of_text, of_binary) in [
        ("/ws/client/hubs/chat?", &text, &binary),
        ("/ws/client/hubs/chat/?user=x&", &text, &binary),
        ("/ws/client/hubs/Chat/formats/text?", &text, &text),
        ("/ws/client/hubs/chat/formats/binary/?", &binary, &binary),
        ("/ws/client/hubs/chat?format=text&", &text, &text),
        ("/ws/client/hubs/chat/?formats=binary&", &binary, &binary),
        ("/ws/client?hub=CHAT&format=binary&", &binary, &binary),
        ("/ws/client/?hubs=chat&", &text, &binary),
        ("/ws/client/hubs/chat/formats/text?format=binary&", &text, &text),
    ] {
        let mut client = connect(&node, &format!("{path}access_token={token}"), &[]).await.unwrap();
        assert_eq!(node.rest("POST", "chat/", b"hi").await, 200);
        assert_eq!(next(&mut client).await.as_ref(), Some(of_text), "{path}");
        assert_eq!(node.rest_as("POST", "chat/", "application/octet-stream", b"hi").await, 200);
        assert_eq!(next(&mut client).await.as_ref(), Some(of_binary), "{path}");
        client.close(None).await.unwrap();
        while next(&mut client).await.is_some() {}
    }
    for (path, status) in [
        ("/ws/client", 400),
        ("/ws/client?hub=", 400),
        ("/ws/client?hub=9", 400),
        ("/ws/client/hubs/chat/formats", 404),
        ("/ws/client/hubs/chat/formats/json", 400),
        ("/ws/client/hubs/chat?format=Text", 400),
        ("/ws/client/hubs/ch%2561t", 400),
        ("/ws/clients/hubs/chat", 404),
    ] {
        assert_eq!(connect(&node, path, &[]).await.err(), Some(status), "{path}");
    }
}

#[tokio::test]
async fn a_token_opens_the_urls_it_was_made_for_and_no_others() {
    let node = start(None, |config| {
        config.public_endpoints = vec!["http://chat.example:9000".parse().unwrap()];
    })
    .await;
    let hub = "/ws/client/hubs/chat";
    let text = "/ws/client/hubs/chat/formats/text";
    let query = "/ws/client?hub=chat";
    for (path, audience, status) in [
        (hub, "http://chat.example/ws/client/hubs/chat", None),
        (hub, "http://chat.example/ws/client/hubs/chat/", None),
        (hub, "ws://chat.example:8080/WS/client/hubs/Chat?x=y", None),
        (hub, "wss://CHAT.example/ws/client/hubs/chat", None),
        (text, "http://chat.example/ws/client/hubs/chat/formats/text", None),
        (text, "http://chat.example/ws/client/hubs/chat", None),
        (query, "http://chat.example/ws/client", None),
        (query, "http://chat.example/ws/client/hubs/chat", None),
        (hub, "http://chat.example/ws/client/hubs/chat/formats/text", Some(401)),
        (text, "http://chat.example/ws/client/hubs/chat/formats/binary", Some(401)),
        (hub, "http://chat.example/ws/client", Some(401)),
        (hub, "http://chat.example/ws/client/hubs/other", Some(401)),
        (query, "http://chat.example/ws/client/hubs/other", Some(401)),
        (hub, "http://chat.example/client/hubs/chat", Some(401)),
        (hub, "http://localhost/ws/client/hubs/chat", Some(401)),
        (hub, "http://chat.example.evil.example/ws/client/hubs/chat", Some(401)),
        (hub, "/ws/client/hubs/chat", Some(401)),
        (hub, "", Some(401)),
    ] {
        let sign = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{sign}access_token={}", hour(audience));
        assert_eq!(connect(&node, &path, &[]).await.err(), status, "{audience} on {path}");
    }
}

#[tokio::test]
async fn a_token_that_is_there_must_be_good_wherever_it_stands() {
    let node = start(None, |_| {}).await;
    let path = "/ws/client/hubs/chat";
    let good = hour("http://localhost/ws/client/hubs/chat");
    let audience = "http://localhost/ws/client/hubs/chat";
    let expired = token_for(audience, Duration::from_mins(1), -3_600, &json!({}));
    let early = token_for(audience, Duration::from_hours(2), 0, &json!({"nbf": u32::MAX}));
    let (head, rest) = good.split_once('.').unwrap();
    let (claims, signature) = rest.split_once('.').unwrap();
    // {"alg":"none"}, and the same claims for another user.
    let unsigned = format!("eyJhbGciOiJub25lIn0.{claims}.");
    let forged = format!("{head}.eyJzdWIiOiJyb290In0.{signature}");
    for bad in [expired, early, unsigned, forged, good.replace('.', ""), String::new()] {
        let in_query = format!("{path}?access_token={bad}");
        assert_eq!(connect(&node, &in_query, &[]).await.err(), Some(401), "{bad}");
        let header = format!("Bearer {bad}");
        assert_eq!(connect(&node, path, &[("authorization", &header)]).await.err(), Some(401));
        // The query goes first.
        let with_good = format!("{path}?access_token={good}");
        assert_eq!(connect(&node, &with_good, &[("authorization", &header)]).await.err(), None);
        let good_header = format!("Bearer {good}");
        let both = connect(&node, &in_query, &[("authorization", &good_header)]).await;
        assert_eq!(both.err(), Some(401));
    }
    let good_header = format!("bearer {good}");
    assert_eq!(connect(&node, path, &[("authorization", &good_header)]).await.err(), None);
    let twice = [("authorization", &*good_header), ("authorization", &good_header)];
    assert_eq!(connect(&node, path, &twice).await.err(), Some(401));
    // What a proxy has left there is not a token: an anonymous client, whom nobody names here.
    let (status, answer) =
        node.raw("GET", path, &format!("{UPGRADE}Authorization: Basic YTpi\r\n")[9..], b"").await;
    assert!(status == 401 && answer.contains("neither a token"), "{answer}");
    let huge = connect(&node, &format!("{path}?access_token={}", "x".repeat(20_000)), &[]).await;
    assert_eq!(huge.err(), Some(401));
}

#[tokio::test]
async fn the_upstream_hears_of_the_client_what_it_may_know() {
    let mut upstream = Upstream::start(|_| ok("", "")).await;
    let node = start(Some(upstream.address), |_| {}).await;
    let claims = json!({"role": ["a", "b"], "name": "Ä\r\nX-ASRS-User-Id: root"});
    let audience = "http://localhost/ws/client/hubs/chat";
    let token = token_for(audience, Duration::from_hours(1), 0, &claims);
    let path = format!("/ws/client/hubs/chat/?b=%20+&access_token={token}&a&access%5Ftoken=y&c=ü=");
    let path = path.replace('ü', "%C3%BC");
    let chain = [("x-forwarded-for", "203.0.113.7"), ("x-forwarded-for", "10.0.0.1,10.0.0.2")];
    let _client = connect(&node, &path, &chain).await.unwrap();
    let connect = upstream.next().await;
    assert_eq!(connect.header("X-ASRS-Client-Query"), Some("b=%20+&a&c=%C3%BC="));
    assert_eq!(
        connect.header("X-Forwarded-For"),
        Some("203.0.113.7, 10.0.0.1, 10.0.0.2, 127.0.0.1")
    );
    assert_eq!(connect.header("X-ASRS-User-Id"), Some("ann"));
    let claims = connect.header("X-ASRS-User-Claims").unwrap();
    assert!(claims.contains(r#"role: a, role: b, name: "Ä\r\nX-ASRS-User-Id: root""#), "{claims}");
    assert!(!connect.head.contains(&token), "the token stays here");
}

#[tokio::test]
async fn heads_that_are_no_handshake_are_refused() {
    let mut upstream = Upstream::start(|_| ok("X-ASRS-User-Id: u\r\n", "")).await;
    let node = start(Some(upstream.address), |_| {}).await;
    let get = |rest: &str| format!("GET /ws/client/hubs/chat HTTP/1.1\r\n{rest}\r\n");
    for (request, status) in [
        (get(UPGRADE).replacen("HTTP/1.1", "HTTP/1.0", 1), 400),
        (get(UPGRADE).replacen("GET", "POST", 1), 405),
        (format!("{}hello", get(&format!("{UPGRADE}Content-Length: 5\r\n"))), 400),
        (format!("{}0\r\n\r\n", get(&format!("{UPGRADE}Transfer-Encoding: chunked\r\n"))), 400),
        (get(&UPGRADE.replace("websocket", "h2c")), 400),
        (get(&UPGRADE.replace("13", "7")), 426),
        (get(&format!("{UPGRADE}Sec-WebSocket-Version: 13\r\n")), 426),
        (get(&format!("{UPGRADE}Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")), 400),
        (get(&UPGRADE.replace("dGhl", "!!!!")), 400),
        (get(&format!("{UPGRADE}Sec-WebSocket-Protocol: a b\r\n")), 400),
        (get(&format!("{UPGRADE}X-Forwarded-For: {}\r\n", "1".repeat(1_100))), 400),
        (get(UPGRADE).replacen("chat", &format!("chat?{}", "q".repeat(4_097)), 1), 414),
    ] {
        let mut socket = TcpStream::connect(node.address).await.unwrap();
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut head = vec![0; 12];
        socket.read_exact(&mut head).await.unwrap();
        assert_eq!(String::from_utf8_lossy(&head[9..]), status.to_string(), "{request}");
    }
    // None of them came before the upstream.
    let _client = node.connect("chat", "?last").await.unwrap();
    assert_eq!(upstream.next().await.header("X-ASRS-Client-Query"), Some("last"));
}

#[tokio::test]
async fn what_a_client_sends_right_behind_its_handshake_is_not_lost() {
    let mut upstream = Upstream::start(|_| ok("X-ASRS-User-Id: u\r\n", "")).await;
    let node = start(Some(upstream.address), |_| {}).await;
    let mut socket = TcpStream::connect(node.address).await.unwrap();
    let mut bytes = format!("GET /ws/client/hubs/chat HTTP/1.1\r\n{UPGRADE}\r\n").into_bytes();
    for at in 0..3 {
        let text = format!("early {at}");
        bytes.extend_from_slice(&encode(Opcode::Text, text.as_bytes(), Some([1, 2, 3, 4])));
    }
    socket.write_all(&bytes).await.unwrap();
    assert_eq!(upstream.next().await.event(), "connect");
    for at in 0..3 {
        assert_eq!(upstream.next().await.body, format!("early {at}").as_bytes());
    }
}

/// An upstream whose answers to connect events wait for a permit.
struct Deciding {
    upstream: Upstream,
    asked: mpsc::UnboundedReceiver<()>,
    permits: Arc<Semaphore>,
}

impl Deciding {
    /// Starts an upstream that answers connect events by `verdict`. Needs a runtime of several threads.
    async fn start(verdict: &'static str) -> Self {
        let (sender, asked) = mpsc::unbounded_channel();
        let permits = Arc::new(Semaphore::new(0));
        let gate = permits.clone();
        let upstream = Upstream::start(move |request| {
            if request.event() != "connect" {
                return ok("", "");
            }
            sender.send(()).unwrap();
            let wait = async { gate.acquire().await.unwrap().forget() };
            tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(wait));
            Some(format!("HTTP/1.1 {verdict}Content-Length: 0\r\n\r\n"))
        });
        Self { upstream: upstream.await, asked, permits }
    }

    /// Lets a client ask to come in and leave before the upstream has decided; returns when it has.
    async fn leave_early(&mut self, node: &TestNode) {
        let mut client = TcpStream::connect(node.address).await.unwrap();
        let head = format!("GET /ws/client/hubs/chat HTTP/1.1\r\n{UPGRADE}\r\n");
        client.write_all(head.as_bytes()).await.unwrap();
        self.asked.recv().await.unwrap();
        drop(client);
        self.permits.add_permits(1);
        assert_eq!(self.upstream.next().await.event(), "connect");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_client_that_leaves_while_the_upstream_decides_gets_its_disconnect_event() {
    let mut deciding = Deciding::start("200 OK\r\nX-ASRS-User-Id: u\r\n").await;
    let node = start(Some(deciding.upstream.address), |_| {}).await;
    // The node learns of it before or after the answer; the upstream has let somebody in and hears of the end either way.
    deciding.leave_early(&node).await;
    assert_eq!(deciding.upstream.next().await.event(), "disconnect");
    assert_eq!(node.rest("HEAD", "chat/users/u", b"").await, 404);
    assert!(node.node.shutdown().await, "nothing is left behind");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_refusal_that_nobody_waits_for_leaves_nothing_behind() {
    let mut deciding = Deciding::start("403 No\r\n").await;
    let node = start(Some(deciding.upstream.address), |_| {}).await;
    deciding.leave_early(&node).await;
    assert!(node.node.shutdown().await);
    // The node is gone, so nothing can follow but what has been recorded.
    assert!(deciding.upstream.is_quiet(), "no disconnect event for whom nobody let in");
}
