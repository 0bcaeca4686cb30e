//! permessage-deflate (RFC 7692): who gets it, what it saves, and what it does not let through.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::Arc;

use futures_util::SinkExt;
use hookwire_proto::connection::{Connection, Event, Incoming};
use hookwire_proto::deflate::{Compression, Deflate, Deflater, Window};
use hookwire_proto::frame::{Header, Opcode, Role, encode, encode_compressed};
use hookwire_proto::handler::{HubSettings, HubsSettings};
use hookwire_proto::message::Message;
use hookwire_server::config::Config;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::data_plane::sign;
use crate::node::{TestNode, metric, next, start, token, until};

const OFFER: &str = "permessage-deflate; client_max_window_bits";

const MASK: Option<[u8; 4]> = Some([1, 2, 3, 4]);

fn compressing(config: &mut Config) {
    let compression = Some(Compression { level: 2, min_bytes: 100 });
    let defaults = HubSettings { compression, ..HubSettings::default() };
    config.hubs = HubsSettings { defaults: Arc::new(defaults), ..HubsSettings::default() };
}

/// A client that speaks frames itself, and counts bytes.
struct Client {
    socket: TcpStream,
    frames: Connection,
    events: VecDeque<Event>,
    bytes: usize,
    /// The head of the answer to its handshake.
    head: String,
}

impl Client {
    async fn open(node: &TestNode, target: &str, offers: &str, subprotocol: &str) -> Self {
        let mut socket = TcpStream::connect(node.address).await.unwrap();
        let mut headers = String::new();
        for (name, value) in [("Extensions", offers), ("Protocol", subprotocol)] {
            if !value.is_empty() {
                write!(headers, "Sec-WebSocket-{name}: {value}\r\n").unwrap();
            }
        }
        let request = format!(
            "GET {target} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n{headers}\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        );
        socket.write_all(request.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(socket.read_u8().await.unwrap());
        }
        let head = String::from_utf8(head).unwrap();
        let is_deflated = head.contains("permessage-deflate");
        let incoming = if is_deflated { Incoming::Deflated } else { Incoming::Plain };
        let frames = Connection::with_incoming(Role::Client, incoming);
        Self { socket, frames, events: VecDeque::new(), bytes: 0, head }
    }

    /// Connects through the preview's door.
    async fn preview(node: &TestNode, offers: &str) -> Self {
        let path = "/ws/client/hubs/chat";
        let token = token(path, Some("ann"));
        Self::open(node, &format!("{path}?access_token={token}"), offers, "").await
    }

    /// Connects through the door of Web PubSub; the greeting is taken, if there is one.
    async fn web_pubsub(node: &TestNode, offers: &str, subprotocol: &str) -> Self {
        let claims = json!({ "webpubsub.group": "g" });
        let audience = format!("http://{}/client/hubs/chat", node.address);
        let token = sign(&audience, Some("bob"), &claims);
        let target = format!("/client/hubs/chat?access_token={token}");
        let mut client = Self::open(node, &target, offers, subprotocol).await;
        if !subprotocol.is_empty() {
            client.message().await;
        }
        client.bytes = 0;
        client
    }

    /// Returns what the node has answered to the offers.
    fn answer(&self) -> Option<&str> {
        let name = "sec-websocket-extensions: ";
        self.head.lines().find_map(|line| line.strip_prefix(name))
    }

    async fn event(&mut self) -> Option<Event> {
        while self.events.is_empty() {
            let mut buffer = [0; 4_096];
            let read = self.socket.read(&mut buffer).await.unwrap_or(0);
            if read == 0 {
                return None;
            }
            self.bytes += read;
            let mut events = Vec::new();
            self.frames.handle_input(&mut buffer[..read], 4 << 20, &mut events).unwrap();
            self.events.extend(events);
        }
        self.events.pop_front()
    }

    async fn message(&mut self) -> Message {
        match self.event().await {
            Some(Event::Message(message)) => message,
            other => panic!("{other:?} is no message"),
        }
    }

    async fn json(&mut self) -> Value {
        serde_json::from_slice(&self.message().await.data).unwrap()
    }

    /// Returns the code with which the node closes.
    async fn close_code(&mut self) -> Option<u16> {
        loop {
            match self.event().await? {
                Event::Close(frame) => return frame.map(|frame| frame.code.get()),
                Event::Message(_) | Event::Ping(_) | Event::Pong => {}
            }
        }
    }
}

/// A message in one frame, compressed.
fn compressed(opcode: Opcode, data: &[u8]) -> Vec<u8> {
    let compression = Compression { level: 9, min_bytes: 0 };
    let how = Deflate { compression, window: Window::FULL };
    let payload = Deflater::default().deflate(how, data).expect("it shrinks");
    encode_compressed(opcode, &payload, MASK).to_vec()
}

#[tokio::test]
async fn an_offer_is_taken_where_the_hub_wants_it() {
    let node = start(None, |_| {}).await;
    let client = Client::preview(&node, OFFER).await;
    assert_eq!(client.answer(), None, "it is off by default");
    let node = start(None, compressing).await;
    let plain = "permessage-deflate; server_no_context_takeover; client_no_context_takeover";
    for (offers, answer) in [
        ("", None),
        ("x-other", None),
        ("permessage-deflate; server_max_window_bits=8", None),
        (OFFER, Some(plain.to_owned())),
        ("permessage-deflate; x, permessage-deflate", Some(plain.to_owned())),
        (
            "permessage-deflate; server_max_window_bits=12",
            Some(format!("{plain}; server_max_window_bits=9")),
        ),
    ] {
        assert_eq!(Client::preview(&node, offers).await.answer(), answer.as_deref(), "{offers}");
        let client = Client::web_pubsub(&node, offers, "").await;
        assert_eq!(client.answer(), answer.as_deref(), "{offers}");
    }
    let client = Client::preview(&node, "not a list").await;
    assert!(client.head.starts_with("HTTP/1.1 400 "), "{}", client.head);
}

#[tokio::test]
async fn settings_that_are_stored_leave_compression_as_it_is_configured() {
    let node = start(None, compressing).await;
    let settings = br#"{"anonymousConnect":"allow"}"#;
    let path = "/admin/v1/hubs/chat/settings";
    assert_eq!(node.signed("PUT", path, "", settings).await.0, 200);
    assert!(Client::web_pubsub(&node, OFFER, "").await.answer().is_some());
}

#[tokio::test]
async fn receivers_with_and_without_compression_get_the_same_message() {
    let node = start(None, compressing).await;
    let text = "It was a dark and stormy night. ".repeat(500);
    let mut plain = node.connect_as("chat", "carl").await;
    let mut preview = Client::preview(&node, OFFER).await;
    let mut small = Client::preview(&node, "permessage-deflate; server_max_window_bits=10").await;
    let mut simple = Client::web_pubsub(&node, OFFER, "").await;
    let mut in_json = Client::web_pubsub(&node, OFFER, "json.webpubsub.azure.v1").await;
    let reliable = "json.reliable.webpubsub.azure.v1";
    let mut reliable_plain = Client::web_pubsub(&node, "", reliable).await;
    let mut reliable = Client::web_pubsub(&node, OFFER, reliable).await;
    for round in 1..=3 {
        assert_eq!(node.rest("POST", "chat", text.as_bytes()).await, 200);
        let told = tokio_tungstenite::tungstenite::Message::text(text.as_str());
        assert_eq!(next(&mut plain).await, Some(told));
        for client in [&mut preview, &mut small, &mut simple] {
            assert_eq!(client.message().await, Message::text(text.as_str()));
        }
        assert_eq!(in_json.json().await["data"], text.as_str());
        for client in [&mut reliable, &mut reliable_plain] {
            let message = client.json().await;
            assert_eq!(message["data"], text.as_str());
            assert_eq!(message["sequenceId"], round);
        }
    }
    for client in [&preview, &small, &simple, &in_json, &reliable] {
        assert!(client.bytes < 3 * text.len() / 10, "{} bytes", client.bytes);
    }
    assert!(3 * text.len() < reliable_plain.bytes);
    let before = preview.bytes;
    assert_eq!(node.rest("POST", "chat", b"short").await, 200);
    assert_eq!(preview.message().await, Message::text("short"));
    assert_eq!(preview.bytes - before, 7, "what is short goes as it is");

    // Each message once for each form, however many clients have it: text for both windows, JSON, and JSON with a sequence id.
    let length = text.len() as u64;
    let (most, least) = (3 * 4 * (length + 200), 3 * 4 * length);
    let (mut before, mut after) = (0, 0);
    // A shard publishes what it counted at the end of its turn, which is after clients were served.
    until("all that was compressed is counted", async || {
        before = metric(&node, "hookwire_deflate_before_bytes_total{").await;
        after = metric(&node, "hookwire_deflate_after_bytes_total{").await;
        least <= before
    })
    .await;
    assert!(before < most, "{before} of {least} to {most}");
    assert!(after < before / 10, "{after} of {before}");
}

#[tokio::test]
async fn a_reliable_client_may_come_back_with_or_without_compression() {
    let node = start(None, compressing).await;
    let name = "json.reliable.webpubsub.azure.v1";
    let audience = format!("http://{}/client/hubs/chat", node.address);
    let token = sign(&audience, Some("bob"), &json!({}));
    let target = format!("/client/hubs/chat?access_token={token}");
    let mut client = Client::open(&node, &target, "", name).await;
    let greeting = client.json().await;
    let text = "again and again, ".repeat(1_000);
    assert_eq!(node.rest("POST", "chat", text.as_bytes()).await, 200);
    assert_eq!(client.json().await["data"], text.as_str());
    for (offer, is_shorter) in [(OFFER, true), ("", false), (OFFER, true)] {
        let (id, token) = (&greeting["connectionId"], &greeting["reconnectionToken"]);
        let (id, token) = (id.as_str().unwrap(), token.as_str().unwrap());
        let target =
            format!("/client/hubs/chat?awps_connection_id={id}&awps_reconnection_token={token}");
        let mut client = Client::open(&node, &target, offer, name).await;
        assert_eq!(client.answer().is_some(), is_shorter);
        assert_eq!(client.json().await["event"], "connected");
        let again = client.json().await;
        assert_eq!((&again["data"], &again["sequenceId"]), (&json!(text), &json!(1)));
        assert_eq!(client.bytes < text.len() / 10, is_shorter, "{} bytes", client.bytes);
    }
}

#[tokio::test]
async fn more_than_one_turn_inflates_arrives_whole_and_in_order() {
    const MESSAGES: usize = 40;
    let node = start(None, |config| {
        compressing(config);
        config.echo = true;
    })
    .await;
    let mut client = Client::preview(&node, OFFER).await;
    // 40 messages of 100 KB come in one or two reads; a turn takes two or three of them.
    let text = |at: usize| format!("{at:05}").repeat(20_000);
    let wire: Vec<u8> =
        (0..MESSAGES).flat_map(|at| compressed(Opcode::Text, text(at).as_bytes())).collect();
    client.socket.write_all(&wire).await.unwrap();
    let ping = encode(Opcode::Ping, b"last", MASK);
    client.socket.write_all(&ping).await.unwrap();
    for at in 0..MESSAGES {
        assert_eq!(client.message().await, Message::text(text(at)));
    }
    assert_eq!(client.event().await, Some(Event::Pong));
    assert!(client.bytes < 40_000, "{} bytes", client.bytes);
}

#[tokio::test]
async fn what_is_no_compressed_message_ends_with_its_close_code() {
    let node = start(None, |config| {
        compressing(config);
        config.limits.message_bytes_max = 10_000;
    })
    .await;
    let mut witness = node.connect_as("chat", "witness").await;
    let cut = |fin, compressed, opcode, payload: &[u8]| {
        let mut wire = Vec::new();
        let payload_bytes = payload.len() as u64;
        Header { fin, compressed, opcode, mask: Some([0; 4]), payload_bytes }.put(&mut wire);
        wire.extend_from_slice(payload);
        wire
    };
    let bomb = compressed(Opcode::Binary, &vec![0; 10_000_000]);
    let in_two =
        [cut(false, true, Opcode::Text, b""), cut(true, true, Opcode::Continuation, b"\0")];
    for (wire, code) in [
        (bomb, 1009),
        (compressed(Opcode::Binary, &[0; 10_001]), 1009),
        (cut(true, true, Opcode::Binary, b"\xff\xff\xff"), 1007),
        (compressed(Opcode::Text, &[0xC0; 1_000]), 1007),
        (cut(true, true, Opcode::Ping, b""), 1002),
        (in_two.concat(), 1002),
        (cut(true, true, Opcode::Continuation, b""), 1002),
    ] {
        let mut client = Client::preview(&node, OFFER).await;
        // The node may close before it has taken everything.
        let _ = client.socket.write_all(&wire).await;
        assert_eq!(client.close_code().await, Some(code));
    }
    let mut client = Client::preview(&node, "").await;
    client.socket.write_all(&compressed(Opcode::Text, &[b'x'; 100])).await.unwrap();
    assert_eq!(client.close_code().await, Some(1002), "nothing was agreed");
    witness.send("still here".into()).await.unwrap();
    assert_eq!(node.rest("POST", "chat", b"hello").await, 200);
    assert_eq!(next(&mut witness).await, Some("hello".into()));
}
