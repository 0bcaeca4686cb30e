//! Upstreams that have opened a tunnel: events to them, REST calls of theirs, what happens when they come and go.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use hookwire_proto::handler::{
    EventHandler, EventPattern, HandlerAuth, HandlerUrl, HubSettings, HubsSettings, SystemEvents,
};
use hookwire_proto::template::{TemplateDocument, TemplatesDocument};
use hookwire_proto::tunnel::{Frame, Headers, HttpRequest, HttpResponse, MESSAGE_BYTES_MAX};
use hookwire_server::config::Config;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::data_plane::{read_json, sign};
use crate::node::{Client, DEADLINE, TestNode, next, start, until};

/// An upstream's end of a tunnel.
pub(crate) struct Tunnel(Client);

impl Tunnel {
    /// Opens one as `me`.
    async fn open(node: &TestNode, hub: &str) -> Self {
        Self::open_by(node, hub, &token(node, hub)).await
    }

    /// The same by a token.
    pub(crate) async fn open_by(node: &TestNode, hub: &str, token: &str) -> Self {
        let mut tunnel = Self(dial(node, hub, token).await.unwrap());
        let Frame::Connected(connected) = tunnel.frame().await else { panic!("no greeting") };
        assert_eq!(connected.user_id.as_deref(), Some("me"));
        assert!(!connected.connection_id.is_empty());
        tunnel
    }

    async fn frame(&mut self) -> Frame {
        match tokio::time::timeout(DEADLINE, next(&mut self.0)).await.unwrap() {
            Some(Message::Binary(bytes)) => Frame::decode(&bytes).unwrap(),
            other => panic!("{other:?} is no frame"),
        }
    }

    /// Waits until it is sent elsewhere and closed.
    pub(crate) async fn is_sent_away(&mut self) {
        let Frame::Reconnect(elsewhere) = self.frame().await else { panic!("no reconnect") };
        assert_eq!((elsewhere.endpoint, elsewhere.target_id), (None, None));
        assert_eq!(self.closed().await, CloseCode::Away);
        // The close frame is answered by reading on.
        assert!(next(&mut self.0).await.is_none());
    }

    async fn request(&mut self) -> HttpRequest {
        let frame = self.frame().await;
        let Frame::Request(request) = frame else { panic!("{frame:?} is no request") };
        request
    }

    /// Returns the next request, which must be of this event.
    async fn event(&mut self, name: &str) -> HttpRequest {
        let request = self.request().await;
        assert_eq!(request.headers["ce-eventName"], [name]);
        request
    }

    async fn send(&mut self, frame: &Frame) {
        self.0.send(Message::Binary(frame.encode().unwrap())).await.unwrap();
    }

    async fn answer(&mut self, request: &HttpRequest, content_type: &str, body: &str) {
        let headers = Headers::from([("content-type".to_owned(), vec![content_type.to_owned()])]);
        for part in request.answer(200, headers, body.to_owned().into()) {
            self.send(&Frame::Response(part)).await;
        }
    }

    /// Answers with this status and nothing else.
    async fn answer_status(&mut self, request: &HttpRequest, status_code: u16) {
        let ack_id = request.ack_id;
        let response = HttpResponse { ack_id, status_code, ..HttpResponse::default() };
        self.send(&Frame::Response(response)).await;
    }

    /// Makes a REST call and returns its answer; no event may come meanwhile.
    pub(crate) async fn call(&mut self, method: &str, url: &str, body: &str) -> (u16, Value) {
        let request = call(1, method, url, body);
        self.send(&Frame::Request(request)).await;
        let Frame::Response(response) = self.frame().await else { panic!("no answer") };
        assert_eq!((response.ack_id, response.local_routing), (1, true));
        assert_eq!(response.channel_name.as_deref(), Some("c"));
        assert!(!response.not_completed);
        let body = response.content.unwrap_or_default();
        (response.status_code, serde_json::from_slice(&body).unwrap_or_default())
    }

    /// Returns the code by which the service closes.
    async fn closed(&mut self) -> CloseCode {
        match tokio::time::timeout(DEADLINE, next(&mut self.0)).await.unwrap() {
            Some(Message::Close(Some(frame))) => frame.code,
            other => panic!("{other:?} is no close"),
        }
    }
}

fn call(ack_id: i64, method: &str, url: &str, body: &str) -> HttpRequest {
    let path = if url.starts_with('/') { url.to_owned() } else { format!("/api/hubs/{url}") };
    let content_type = if body.starts_with('{') { "application/json" } else { "text/plain" };
    HttpRequest {
        ack_id,
        local_routing: true,
        channel_name: Some("c".to_owned()),
        http_method: method.to_owned(),
        url: format!("https://host{path}"),
        headers: Headers::from([("Content-Type".to_owned(), vec![content_type.to_owned()])]),
        content: (!body.is_empty()).then(|| Bytes::from(body.to_owned())),
    }
}

/// Returns a token as the tunnel's users make it: for the whole URL, its scheme included.
fn token(node: &TestNode, hub: &str) -> String {
    let audience = format!("ws://{}/server/tunnel?hub={hub}", node.address);
    sign(&audience, Some("me"), &json!({}))
}

async fn dial(node: &TestNode, hub: &str, token: &str) -> Result<Client, Error> {
    let address = node.address;
    let url = format!("ws://{address}/server/tunnel?hub={hub}&target=x&access_token={token}");
    connect_async(url).await.map(|(client, _)| client)
}

/// Returns the status by which a tunnel is refused.
pub(crate) async fn refused(node: &TestNode, hub: &str, token: &str) -> u16 {
    match dial(node, hub, token).await {
        Err(Error::Http(answer)) => answer.status().as_u16(),
        other => panic!("{other:?} is no refusal"),
    }
}

/// Sends the events of every hub, and of both dialects, through the tunnel.
fn tunnelled(config: &mut Config) {
    let handler = EventHandler {
        url: HandlerUrl::parse("tunnel:///{hub}/{event}?code=x").unwrap(),
        user_events: EventPattern::any(),
        system_events: SystemEvents { connect: true, connected: true, disconnected: true },
        auth: HandlerAuth::None,
        timeout: None,
    };
    let defaults = HubSettings { handlers: vec![Arc::new(handler)], ..HubSettings::default() };
    config.hubs = HubsSettings { defaults: Arc::new(defaults), ..HubsSettings::default() };
    let url_template = "tunnel:///{hub}/{event}?c={category}".to_owned();
    let template = TemplateDocument { url_template, ..TemplateDocument::default() };
    config.templates = TemplatesDocument { templates: vec![template] };
}

/// Sends the user events of every hub through the tunnel, and no others.
fn tunnelled_messages(config: &mut Config) {
    tunnelled(config);
    let handler = &config.hubs.defaults.handlers[0];
    let handler =
        EventHandler { system_events: SystemEvents::default(), ..EventHandler::clone(handler) };
    let defaults = HubSettings { handlers: vec![Arc::new(handler)], ..HubSettings::default() };
    config.hubs.defaults = Arc::new(defaults);
}

#[tokio::test]
async fn a_connection_lives_in_events_through_the_tunnel() {
    let node = start(None, tunnelled).await;
    let mut tunnel = Tunnel::open(&node, "Chat").await;
    let claims = json!({});
    let upstream = async {
        let connect = tunnel.event("connect").await;
        assert_eq!(connect.http_method, "POST");
        assert_eq!(connect.url, "http://host/chat/connect?code=x");
        assert_eq!(connect.headers["ce-hub"], ["chat"]);
        assert_eq!(connect.headers["ce-userId"], ["ann"]);
        assert!(connect.headers["ce-signature"][0].starts_with("sha256="));
        assert!(!connect.headers.keys().any(|name| name.eq_ignore_ascii_case("host")));
        assert!(!connect.headers.keys().any(|name| name.eq_ignore_ascii_case("content-length")));
        let body: Value = serde_json::from_slice(&connect.content.clone().unwrap()).unwrap();
        assert_eq!(body["subprotocols"], json!(["json.webpubsub.azure.v1"]));
        tunnel.answer(&connect, "application/json", r#"{"userId":"bob"}"#).await;
        let connected = tunnel.event("connected").await;
        assert_eq!(connected.headers["ce-userId"], ["bob"]);
        tunnel.answer_status(&connected, 200).await;
    };
    let ((mut client, id), ()) = tokio::join!(node.with_json(Some("ann"), &claims), upstream);

    let event =
        json!({ "type": "event", "event": "ask", "dataType": "text", "data": "hi", "ackId": 1 });
    client.send(Message::text(event.to_string())).await.unwrap();
    let ask = tunnel.event("ask").await;
    assert_eq!(ask.headers["ce-connectionId"], [id]);
    assert_eq!(ask.content.as_deref(), Some(&b"hi"[..]));
    tunnel.answer(&ask, "text/plain", "yes").await;
    assert_eq!(read_json(&mut client).await["data"], "yes");
    assert_eq!(read_json(&mut client).await["success"], true);

    client.close(None).await.unwrap();
    let gone = tunnel.event("disconnected").await;
    tunnel.answer_status(&gone, 200).await;
    let (_, metrics) = node.raw("GET", "/metrics", "", b"").await;
    assert!(metrics.contains(r#"hookwire_tunnel_requests_total{kind="event",result="2xx"}"#));
}

#[tokio::test]
async fn the_events_of_the_preview_go_through_the_tunnel() {
    let node = start(None, tunnelled).await;
    let mut tunnel = Tunnel::open(&node, "chat").await;
    let upstream = async {
        let connect = tunnel.request().await;
        assert_eq!(connect.url, "http://host/chat/connect?c=connections");
        assert_eq!(connect.headers["X-ASRS-Client-Query"], ["name=ann"]);
        let headers = Headers::from([("x-asrs-user-id".to_owned(), vec!["ann".to_owned()])]);
        for part in connect.answer(200, headers, Bytes::new()) {
            tunnel.send(&Frame::Response(part)).await;
        }
    };
    let (client, ()) = tokio::join!(node.connect("chat", "?name=ann"), upstream);
    let mut client = client.unwrap();
    client.send(Message::text("ask")).await.unwrap();
    let message = tunnel.request().await;
    assert_eq!(message.headers["X-ASRS-User-Id"], ["ann"]);
    assert_eq!(message.content.as_deref(), Some(&b"ask"[..]));
    tunnel.answer(&message, "text/plain", "yes").await;
    assert_eq!(next(&mut client).await, Some(Message::text("yes")));

    // An answer in parts, larger than a frame.
    client.send(Message::text("long")).await.unwrap();
    let message = tunnel.request().await;
    let long = "x".repeat(3 * 1024 * 1024);
    tunnel.answer(&message, "text/plain", &long).await;
    assert_eq!(next(&mut client).await, Some(Message::text(long)));
}

#[tokio::test]
async fn without_a_tunnel_a_client_is_refused_with_503() {
    let node = start(None, tunnelled).await;
    let url = format!(
        "ws://{}/client/hubs/chat?access_token={}",
        node.address,
        sign(&format!("http://{}/client/hubs/chat", node.address), None, &json!({}))
    );
    let Err(Error::Http(answer)) = connect_async(&url).await else { panic!("it is let in") };
    assert_eq!(answer.status(), 503);
}

#[tokio::test]
async fn an_event_waits_a_little_for_its_tunnel() {
    let node = start(None, tunnelled_messages).await;
    let (mut client, _) = node.with_json(None, &json!({})).await;
    let event =
        json!({ "type": "event", "event": "e", "dataType": "text", "data": "", "ackId": 1 });
    client.send(Message::text(event.to_string())).await.unwrap();
    let counted = r#"hookwire_tunnel_requests_total{kind="event",result="no_tunnel"}"#;
    until("the event finds no tunnel", async || {
        node.raw("GET", "/metrics", "", b"").await.1.contains(counted)
    })
    .await;
    let mut tunnel = Tunnel::open(&node, "chat").await;
    let request = tunnel.event("e").await;
    tunnel.answer_status(&request, 204).await;
    assert_eq!(read_json(&mut client).await["success"], true);
}

#[tokio::test]
async fn the_least_busy_tunnel_gets_the_event_and_takes_over_what_another_loses() {
    let node = start(None, tunnelled_messages).await;
    let mut one = Tunnel::open(&node, "chat").await;
    let mut other = Tunnel::open(&node, "chat").await;
    let mut elsewhere = Tunnel::open(&node, "lobby").await;
    let mut clients = Vec::new();
    for _ in 0..2 {
        clients.push(node.with_json(None, &json!({})).await.0);
    }
    let event = |name: &str| json!({ "type": "event", "event": name, "dataType": "text", "data": "", "ackId": 1 });
    for (client, name) in clients.iter_mut().zip(["a", "b"]) {
        client.send(Message::text(event(name).to_string())).await.unwrap();
    }
    let at_one = one.request().await;
    let at_other = other.request().await;
    assert_ne!(at_one.headers["ce-eventName"], at_other.headers["ce-eventName"]);
    // What one has not answered comes to the other.
    drop(one);
    let again = other.request().await;
    assert_eq!(again.headers, at_one.headers);
    for request in [again, at_other] {
        other.answer_status(&request, 204).await;
    }
    for client in &mut clients {
        assert_eq!(read_json(client).await["success"], true);
    }
    assert_eq!(elsewhere.call("HEAD", "lobby/users/nobody", "").await.0, 404, "and no event");
}

#[tokio::test]
async fn a_tunnel_that_is_being_closed_gets_no_events() {
    let node = start(None, tunnelled_messages).await;
    let mut busy = Tunnel::open(&node, "chat").await;
    let (mut waiting, _) = node.with_json(None, &json!({})).await;
    let event = json!({ "type": "event", "event": "e", "dataType": "text", "data": "" });
    waiting.send(Message::text(event.to_string())).await.unwrap();
    busy.event("e").await;
    // It has nothing to do, and does not answer the close.
    let mut closing = Tunnel::open(&node, "chat").await;
    closing.0.send(Message::text("hello")).await.unwrap();
    assert_eq!(closing.closed().await, CloseCode::Unsupported);
    // An invocation has one attempt.
    let (mut client, _) = node.with_json(None, &json!({})).await;
    let invocation = json!({
        "type": "invoke", "invocationId": "1", "target": "event", "event": "i", "dataType": "text", "data": "",
    });
    client.send(Message::text(invocation.to_string())).await.unwrap();
    let request = busy.event("i").await;
    busy.answer(&request, "text/plain", "yes").await;
    assert_eq!(read_json(&mut client).await["success"], true);
}

#[tokio::test]
async fn answers_are_read_while_the_tunnel_takes_no_more_events() {
    let node = start(None, tunnelled_messages).await;
    let mut tunnel = Tunnel::open(&node, "chat").await;
    let (mut asking, _) = node.with_json(None, &json!({})).await;
    let event = |data: &str| json!({ "type": "event", "event": "e", "dataType": "text", "data": data, "ackId": 1 });
    asking.send(Message::text(event("").to_string())).await.unwrap();
    let asked = tunnel.event("e").await;
    // More than the systems on both sides take: the rest waits at the service.
    let long = event(&"x".repeat(512 * 1024)).to_string();
    let mut others = Vec::new();
    for _ in 0..28 {
        let (mut other, _) = node.with_json(None, &json!({})).await;
        other.send(Message::text(long.clone())).await.unwrap();
        others.push(other);
    }
    tunnel.event("e").await;
    // And so with answers, of which all but the last answer nothing.
    let nobody = HttpRequest { ack_id: 9_999, ..HttpRequest::default() };
    let answering = async {
        for _ in 0..16 {
            tunnel.answer(&nobody, "text/plain", &"x".repeat(1_000_000)).await;
        }
        tunnel.answer_status(&asked, 204).await;
        assert_eq!(read_json(&mut asking).await["success"], true);
    };
    tokio::time::timeout(DEADLINE, answering).await.expect("they are read");
}

#[tokio::test]
async fn answers_that_are_none_fail_the_event() {
    let node = start(None, tunnelled_messages).await;
    let mut tunnel = Tunnel::open(&node, "chat").await;
    let (mut client, _) = node.with_json(None, &json!({})).await;
    let mut ack_id = 0;
    for (status, header, success) in [
        (42, ("a", "b"), false),
        (200, ("a b", "c"), false),
        (200, ("a", "b\r\nc"), false),
        (200, ("content-encoding", "gzip"), false),
        (500, ("a", "b"), false),
        (200, ("a", "ä"), true),
    ] {
        ack_id += 1;
        let event = json!({ "type": "event", "event": "e", "dataType": "text", "data": "", "ackId": ack_id });
        client.send(Message::text(event.to_string())).await.unwrap();
        let request = tunnel.event("e").await;
        // What answers nothing is passed over.
        let nobody = HttpRequest { ack_id: request.ack_id + 1, ..HttpRequest::default() };
        tunnel.answer_status(&nobody, 200).await;
        let headers = Headers::from([(header.0.to_owned(), vec![header.1.to_owned()])]);
        for part in request.answer(status, headers, Bytes::new()) {
            tunnel.send(&Frame::Response(part)).await;
        }
        assert_eq!(read_json(&mut client).await["success"], success, "{status} {header:?}");
    }
}

#[tokio::test]
async fn rest_calls_go_through_the_tunnel_to_its_own_hub() {
    let node = start(None, |_| {}).await;
    let mut tunnel = Tunnel::open(&node, "chat").await;
    let (mut client, id) = node.with_json(Some("ann"), &json!({})).await;
    let version = "api-version=2023-07-01";
    let groups = r#"{"groups":["g"],"filter":"userId eq 'ann'"}"#;
    for (method, url, body, status) in [
        ("POST", format!("chat/:send?{version}"), "hi", 202),
        ("POST", format!("chat/:addToGroups?{version}"), groups, 200),
        ("POST", format!("chat/groups/g/:send?{version}"), "group", 202),
        ("DELETE", format!("chat/groups/g/connections/{id}?{version}"), "", 204),
        ("POST", format!("chat/:removeFromGroups?{version}"), groups, 200),
        ("HEAD", format!("chat/connections/{id}"), "", 200),
        ("HEAD", "chat/connections/nope".to_owned(), "", 404),
        ("POST", "lobby/:send".to_owned(), "hi", 403),
        ("POST", "chat/:send?api-version=1".to_owned(), "hi", 400),
        ("POST", "chat/:nothing".to_owned(), "hi", 404),
        ("GET", "chat/:send".to_owned(), "", 405),
        ("N O", "chat/:send".to_owned(), "", 400),
        ("POST", "/manage/v1/ws/upstream".to_owned(), "", 404),
        ("GET", "/metrics".to_owned(), "", 404),
        ("POST", "..%2Fchat/:send".to_owned(), "hi", 400),
    ] {
        assert_eq!(tunnel.call(method, &url, body).await.0, status, "{method} {url}");
    }
    for expected in ["hi", "group"] {
        assert_eq!(read_json(&mut client).await["data"], expected);
    }
    let (status, made) = tunnel.call("POST", "chat/:generateToken?userId=bob", "").await;
    assert_eq!(status, 200);
    assert!(made["token"].is_string(), "{made}");

    // Calls take effect in their order, however many are on their way.
    for at in 0..100 {
        let request = call(at, "POST", "chat/:send", &at.to_string());
        tunnel.send(&Frame::Request(request)).await;
    }
    for at in 0..100 {
        assert_eq!(read_json(&mut client).await["data"], at.to_string());
        assert!(matches!(
            tunnel.frame().await,
            Frame::Response(HttpResponse { status_code: 202, .. })
        ));
    }
}

#[tokio::test]
async fn only_who_has_a_key_opens_a_tunnel_and_only_of_the_hub_that_its_token_names() {
    let node = start(None, |_| {}).await;
    let audience = |path: &str| format!("ws://{}{path}", node.address);
    let signed = |path: &str| sign(&audience(path), Some("me"), &json!({}));
    for (token, what) in [
        (String::new(), "no token"),
        ("x.y.z".to_owned(), "no token at all"),
        (signed("/server/tunnel?hub=lobby"), "another hub"),
        (signed("/server/tunnel"), "no hub"),
        (signed("/client/hubs/chat?hub=chat"), "a client"),
        (format!("{}x", signed("/server/tunnel?hub=chat")), "another signature"),
    ] {
        assert_eq!(refused(&node, "chat", &token).await, 401, "{what}");
    }
    dial(&node, "chat", &signed("/server/tunnel?hub=Chat&target=x")).await.unwrap();
    let (status, _) = node.raw("GET", "/server/tunnel?hub=chat", "", b"").await;
    assert_eq!(status, 400, "not a WebSocket handshake");
}

#[tokio::test]
async fn a_hub_has_so_many_tunnels_and_not_one_more() {
    let node = start(None, |_| {}).await;
    let mut tunnels = Vec::new();
    for _ in 0..64 {
        tunnels.push(Tunnel::open(&node, "chat").await);
    }
    assert_eq!(refused(&node, "chat", &token(&node, "chat")).await, 429);
    Tunnel::open(&node, "lobby").await;
    tunnels.pop();
    until("the place is free again", async || {
        dial(&node, "chat", &token(&node, "chat")).await.is_ok()
    })
    .await;
}

#[tokio::test]
async fn whoever_breaks_the_protocol_is_closed_with_the_code_for_it() {
    let node = start(None, |_| {}).await;
    for (message, code) in [
        (Message::text("hello"), CloseCode::Unsupported),
        (Message::binary(Vec::new()), CloseCode::Invalid),
        (Message::binary(b"\x05\0\0\0hello".to_vec()), CloseCode::Invalid),
        (Message::binary(b"\xFF\xFF\xFF\xFFhello".to_vec()), CloseCode::Size),
        (Message::binary(vec![0; MESSAGE_BYTES_MAX + 1]), CloseCode::Size),
    ] {
        let mut tunnel = Tunnel::open(&node, "chat").await;
        // The service may close before everything is written.
        let _ = tunnel.0.send(message).await;
        assert_eq!(tunnel.closed().await, code);
    }
    // What only the service says is passed over.
    let mut tunnel = Tunnel::open(&node, "chat").await;
    tunnel.send(&Frame::Close(hookwire_proto::tunnel::Status::default())).await;
    assert_eq!(tunnel.call("HEAD", "chat/users/nobody", "").await.0, 404);
    tunnel.0.close(None).await.unwrap();
    assert!(matches!(next(&mut tunnel.0).await, None | Some(Message::Close(_))));
}

#[tokio::test]
async fn a_silent_tunnel_is_pinged_and_then_closed() {
    let interval = std::time::Duration::from_millis(200);
    let node = start(None, |config| config.limits.ping_interval = interval).await;
    let mut tunnel = Tunnel::open(&node, "chat").await;
    // Reading answers pings.
    for _ in 0..3 {
        let message = tokio::time::timeout(DEADLINE, tunnel.0.next()).await.unwrap();
        assert!(matches!(message, Some(Ok(Message::Ping(_)))), "{message:?}");
    }
    // Who answers nothing hears a ping and a close, and then the end.
    let request = format!(
        "GET /server/tunnel?hub=chat&access_token={} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: \
         Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        token(&node, "chat")
    );
    let mut socket = tokio::net::TcpStream::connect(node.address).await.unwrap();
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut heard = Vec::new();
    let end = tokio::time::timeout(DEADLINE, socket.read_to_end(&mut heard)).await;
    end.expect("the service closes").unwrap();
    let after = |needle: &[u8]| heard.windows(needle.len()).position(|bytes| bytes == needle);
    let (ping, close) = (after(&[0x89, 0]).unwrap(), after(&[0x88, 23, 0x03, 0xE9]).unwrap());
    assert!(ping < close);
}

#[tokio::test]
async fn at_shutdown_the_last_events_go_through_and_then_the_tunnel_is_sent_elsewhere() {
    let node = start(None, tunnelled).await;
    let mut tunnel = Tunnel::open(&node, "chat").await;
    let upstream = async {
        for event in ["connect", "connected"] {
            let request = tunnel.event(event).await;
            tunnel.answer_status(&request, 204).await;
        }
    };
    let claims = json!({});
    let (mut client, ()) = tokio::join!(node.simple(None, &claims), upstream);
    let reader = tokio::spawn(async move { next(&mut client).await });
    let ending = tokio::spawn(node.node.shutdown());
    let gone = tunnel.event("disconnected").await;
    tunnel.answer_status(&gone, 204).await;
    tunnel.is_sent_away().await;
    assert!(ending.await.unwrap());
    assert!(matches!(reader.await.unwrap(), Some(Message::Close(_))));
}
