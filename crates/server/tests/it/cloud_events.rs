//! Web PubSub clients and their upstream: events, answers, copies, the end.

use std::net::SocketAddr;
use std::sync::Arc;

use futures_util::SinkExt;
use hookwire_proto::handler::{
    EventHandler, EventListener, EventPattern, HandlerAuth, HandlerUrl, HubSettings, HubsSettings,
    PresenceEvents, SystemEvents,
};
use hookwire_proto::signature::{AccessKey, verify};
use hookwire_server::config::Config;
use serde_json::{Value, json};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::data_plane::read_json;
use crate::node::{Client, KEYS, next, start};
use crate::upstream::{Request, Upstream, ok, welcome};

const ALL: SystemEvents = SystemEvents { connect: true, connected: true, disconnected: true };

fn url(address: SocketAddr) -> HandlerUrl {
    HandlerUrl::parse(&format!("http://{address}/{{hub}}/{{event}}?code=x")).unwrap()
}

/// Sends the events of every hub to an upstream.
fn handled_by(address: SocketAddr) -> impl Fn(&mut Config) {
    move |config| {
        let handler = EventHandler {
            url: url(address),
            user_events: EventPattern::any(),
            system_events: ALL,
            auth: HandlerAuth::None,
            timeout: None,
        };
        let presence = PresenceEvents {
            joined: true,
            left: true,
            groups: vec![hookwire_proto::handler::GroupFilter::parse("room*").unwrap()],
        };
        let defaults =
            HubSettings { handlers: vec![Arc::new(handler)], presence, ..HubSettings::default() };
        config.hubs = HubsSettings { defaults: Arc::new(defaults), ..HubsSettings::default() };
    }
}

async fn send(client: &mut Client, message: &Value) {
    client.send(Message::text(message.to_string())).await.unwrap();
}

/// Checks what every event says, and that it is the one expected.
fn check(request: &Request, event: &str, id: u64, connection: &str) {
    assert_eq!(request.ce_event(), event, "{}", request.head);
    assert!(request.head.starts_with(&format!("POST /chat/{event}?code=x HTTP/1.1\r\n")));
    assert_eq!(request.header("ce-id"), Some(&*id.to_string()), "{event}");
    assert_eq!(request.header("ce-connectionid"), Some(connection));
    assert_eq!(request.header("ce-hub"), Some("chat"));
    assert_eq!(request.header("ce-awpsversion"), Some("1.0"));
    assert_eq!(request.header("webhook-request-origin"), Some("127.0.0.1"));
    let keys = KEYS.map(|key| AccessKey::parse(key).unwrap());
    let signature = request.header("ce-signature").unwrap();
    assert!(verify(&keys[..1], connection, signature) && verify(&keys[1..], connection, signature));
}

#[tokio::test]
async fn a_connection_lives_in_events() {
    let mut upstream = Upstream::start(|request| match request.ce_event() {
        "validate" => welcome(),
        "connect" => ok(
            "ce-connectionState: first\r\nSet-Cookie: a=1; Path=/\r\nContent-Type: application/json\r\n",
            r#"{"userId":"Jürgen","roles":["webpubsub.joinLeaveGroup"]}"#,
        ),
        "ask" => ok("ce-connectionState: second\r\nContent-Type: application/json\r\n", "[1, 2]"),
        _ => ok("", ""),
    })
    .await;
    let node = start(None, handled_by(upstream.address)).await;
    let (mut client, id) = node.with_json(Some("ann"), &json!({ "x": "y" })).await;

    let question = upstream.next().await;
    assert!(question.head.starts_with("OPTIONS /chat/validate?code=x HTTP/1.1\r\n"));
    assert_eq!(question.header("webhook-request-origin"), Some("127.0.0.1"));

    let connect = upstream.next().await;
    check(&connect, "connect", 0, &id);
    assert_eq!(connect.header("ce-userid"), Some("ann"));
    let asked: Value = serde_json::from_slice(&connect.body).unwrap();
    assert_eq!(asked["claims"]["x"], json!(["y"]));
    assert_eq!(asked["subprotocols"], json!(["json.webpubsub.azure.v1"]));
    assert_eq!(asked["query"], json!({}), "the token is nobody's business");

    let connected = upstream.next().await;
    check(&connected, "connected", 1, &id);
    assert_eq!(connected.body, b"{}");
    for (name, value) in [
        ("ce-userid", "Jürgen"),
        ("ce-subprotocol", "json.webpubsub.azure.v1"),
        ("ce-connectionstate", "first"),
        ("cookie", "a=1"),
    ] {
        assert_eq!(connected.header(name), Some(value), "{name}");
    }

    let event = json!({ "type": "event", "event": "ask", "dataType": "json", "data": {"a": 1}, "ackId": 1 });
    send(&mut client, &event).await;
    let asked = upstream.next().await;
    check(&asked, "ask", 2, &id);
    assert_eq!(asked.header("content-type"), Some("application/json; charset=utf-8"));
    assert_eq!(serde_json::from_slice::<Value>(&asked.body).unwrap(), json!({"a": 1}));
    let answer = read_json(&mut client).await;
    assert_eq!(
        answer,
        json!({ "type": "message", "from": "server", "dataType": "json", "data": [1, 2] })
    );
    assert_eq!(read_json(&mut client).await, json!({ "type": "ack", "ackId": 1, "success": true }));

    for (ack_id, group) in [(2, "room1"), (3, "other")] {
        send(&mut client, &json!({ "type": "joinGroup", "group": group, "ackId": ack_id })).await;
        assert_eq!(read_json(&mut client).await["success"], true);
    }
    let joined = upstream.next().await;
    check(&joined, "joined", 3, &id);
    assert_eq!(joined.body, br#"{"group":"room1"}"#);
    assert_eq!(joined.header("ce-connectionstate"), Some("second"));

    client.close(None).await.unwrap();
    let left = upstream.next().await;
    check(&left, "left", 4, &id);
    let gone = upstream.next().await;
    check(&gone, "disconnected", 5, &id);
    assert!(gone.body.starts_with(br#"{"reason":""#));
    assert!(node.node.shutdown().await);
    assert!(upstream.is_quiet());
}

#[tokio::test]
async fn an_upstream_that_does_not_want_events_lets_nobody_in() {
    let mut upstream = Upstream::start(|_| ok("WebHook-Allowed-Origin: other\r\n", "")).await;
    let node = start(None, handled_by(upstream.address)).await;
    let token = crate::data_plane::sign(
        &format!("http://{}/client/hubs/chat", node.address),
        None,
        &json!({}),
    );
    let url = format!("ws://{}/client/hubs/chat?access_token={token}", node.address);
    for _ in 0..2 {
        let Err(Error::Http(answer)) = connect_async(&url).await else { panic!("it is let in") };
        assert_eq!(answer.status(), 500);
    }
    assert_eq!(upstream.next().await.ce_event(), "validate");
    assert!(upstream.is_quiet(), "it is not asked again at once");
}

#[tokio::test]
async fn a_notice_that_is_not_answered_holds_the_next_event_up_for_a_while_only() {
    let mut upstream = Upstream::start(|request| match request.ce_event() {
        "validate" => welcome(),
        "connected" => None,
        _ => ok("", ""),
    })
    .await;
    let node = start(None, handled_by(upstream.address)).await;
    let (mut client, _) = node.with_json(None, &json!({})).await;
    let event =
        json!({ "type": "event", "event": "hello", "dataType": "text", "data": "", "ackId": 1 });
    send(&mut client, &event).await;
    assert_eq!(read_json(&mut client).await["success"], true);
    for event in ["validate", "connect", "connected", "hello"] {
        assert_eq!(upstream.next().await.ce_event(), event);
    }
}

#[tokio::test]
async fn a_simple_client_whose_event_fails_is_closed() {
    let upstream = Upstream::start(|request| match request.ce_event() {
        "validate" => welcome(),
        "message" => Some("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".to_owned()),
        _ => ok("", ""),
    })
    .await;
    let node = start(None, handled_by(upstream.address)).await;
    let mut client = node.simple(None, &json!({})).await;
    client.send(Message::text("hello")).await.unwrap();
    let Some(Message::Close(Some(frame))) = next(&mut client).await else { panic!("no close") };
    assert_eq!(frame.code, CloseCode::Error);
}

#[tokio::test]
async fn an_upstream_that_never_answers_does_not_hold_shutdown_up() {
    let mut upstream = Upstream::start(|request| match request.ce_event() {
        "validate" => welcome(),
        "connect" | "connected" => ok("", ""),
        _ => None,
    })
    .await;
    let node = start(None, handled_by(upstream.address)).await;
    let mut client = node.simple(None, &json!({})).await;
    client.send(Message::text("hello")).await.unwrap();
    for event in ["validate", "connect", "connected", "message"] {
        assert_eq!(upstream.next().await.ce_event(), event);
    }
    assert!(node.node.shutdown().await, "nobody waits for the answers");
    assert_eq!(upstream.next().await.ce_event(), "disconnected", "but every event was posted");
}

#[tokio::test]
async fn listeners_get_copies_until_the_end() {
    let mut listener = Upstream::start(|request| match request.ce_event() {
        "validate" => welcome(),
        _ => ok("", ""),
    })
    .await;
    let address = listener.address;
    let node = start(None, move |config| {
        let listener = EventListener {
            url: url(address),
            user_events: EventPattern::parse("order.*").unwrap(),
            system_events: SystemEvents { connect: false, ..ALL },
        };
        let defaults =
            HubSettings { listeners: vec![Arc::new(listener)], ..HubSettings::default() };
        config.hubs = HubsSettings { defaults: Arc::new(defaults), ..HubsSettings::default() };
    })
    .await;
    let (mut client, id) = node.with_json(Some("ann"), &json!({})).await;
    for (event, success) in [("order.paid", true), ("unknown", false)] {
        let message = json!({ "type": "event", "event": event, "dataType": "text", "data": "x", "ackId": event.len() });
        send(&mut client, &message).await;
        assert_eq!(read_json(&mut client).await["success"], success, "a listener alone is enough");
    }
    assert!(node.node.shutdown().await);
    assert_eq!(listener.next().await.ce_event(), "validate");
    // 0 is the connect event's, though nobody was asked.
    for (number, event) in (1..).zip(["connected", "order.paid", "disconnected"]) {
        check(&listener.next().await, event, number, &id);
    }
}
