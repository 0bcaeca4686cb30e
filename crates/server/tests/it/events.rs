//! The event log from outside: what became of calls, who was refused why, and the log as it grows.

use std::sync::Arc;

use futures_util::SinkExt;
use hookwire_proto::handler::{HubDocument, HubSettings, HubsSettings};
use hookwire_server::config::Config;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::node::{TestNode, start, token};
use crate::upstream::{Upstream, ok, welcome};

/// Reads the log until it holds `count` entries that `query` selects.
pub(crate) async fn log(node: &TestNode, query: &str, count: usize) -> Vec<Value> {
    loop {
        let page = node.json(&format!("/admin/v1/events{query}")).await;
        let items = page["items"].as_array().unwrap();
        if count <= items.len() {
            assert_eq!(items.len(), count, "{page}");
            return items.clone();
        }
        tokio::task::yield_now().await;
    }
}

fn handled_by(url: String) -> impl FnOnce(&mut Config) {
    move |config| {
        let document: HubDocument = serde_json::from_value(json!({
            "anonymousConnect": "allow",
            "eventHandlers": [{ "urlTemplate": url, "userEventPattern": "*", "systemEvents": ["connect"] }],
        }))
        .unwrap();
        let defaults = Arc::new(HubSettings::parse(&document).unwrap());
        config.hubs = HubsSettings { defaults, ..HubsSettings::default() };
    }
}

/// Connects a client of Web PubSub, which must not be let in.
async fn refused(node: &TestNode) {
    let url = format!("ws://{}/client/hubs/chat", node.address);
    let Err(Error::Http(answer)) = connect_async(url).await else { panic!("it is let in") };
    assert_eq!(answer.status(), 500);
}

fn words(items: &[Value]) -> Vec<(&str, &str)> {
    items
        .iter()
        .map(|one| (one["kind"].as_str().unwrap(), one["verdict"].as_str().unwrap()))
        .collect()
}

#[tokio::test]
async fn each_call_of_a_preview_upstream_is_told_without_its_secrets() {
    let upstream = Upstream::start(|request| match request.event() {
        "connect" => ok("X-ASRS-User-Id: ann\r\n", ""),
        "message" => Some("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n".to_owned()),
        _ => ok("", ""),
    })
    .await;
    let node = start(Some(upstream.address), |_| {}).await;
    let mut client = node.connect("chat", "?x=private").await.unwrap();
    client.send(Message::text("a payload")).await.unwrap();
    client.close(None).await.unwrap();
    let items = log(&node, "?hub=chat", 3).await;
    assert_eq!(
        words(&items),
        [("connect", "delivered"), ("message", "upstream_failed"), ("disconnected", "delivered")]
    );
    let message = &items[1];
    assert_eq!(
        (&message["status"], &message["ok"], &message["attempts"], &message["userId"]),
        (&json!(500), &json!(false), &json!(1), &json!("ann"))
    );
    assert_eq!(message["url"], format!("http://{}/chat/api/message", upstream.address));
    assert_eq!((&message["hub"], &message["dialect"]), (&json!("chat"), &json!("preview")));
    assert!(message["durationMs"].as_f64().unwrap() < 60_000.0);
    let id = message["connectionId"].as_str().unwrap();
    assert_eq!(items[0]["connectionId"], id);
    let whole = json!(items).to_string();
    for secret in ["private", "payload", "c=messages"] {
        assert!(!whole.contains(secret), "{whole}");
    }
    let failed = log(&node, "?hub=chat&failed=true", 1).await;
    assert_eq!(failed[0], *message);
    let after = log(&node, &format!("?after={}", message["id"]), 1).await;
    assert_eq!(after[0], items[2]);
    assert!(log(&node, "?hub=other", 0).await.is_empty());

    let overview = node.json("/admin/v1/overview").await;
    assert_eq!(overview["upstream"], json!({ "calls": 3, "failures": 1, "inFlight": 0 }));
    assert_eq!(overview["messagesIn"], 1);
    assert_eq!(overview["shards"].as_array().unwrap().len(), 2);
    assert!(node.node.shutdown().await);
}

#[tokio::test]
async fn an_upstream_that_allows_another_origin_is_told_with_the_remedy() {
    let upstream = Upstream::start(|_| ok("WebHook-Allowed-Origin: other\r\n", "")).await;
    let node = start(None, handled_by(format!("http://{}/", upstream.address))).await;
    refused(&node).await;
    let items = log(&node, "?hub=chat", 3).await;
    assert_eq!(
        words(&items),
        [
            ("validation", "not_allowed_origin"),
            ("connect", "not_allowed_origin"),
            ("handshake", "upstream_failed")
        ]
    );
    let reason = items[0]["reason"].as_str().unwrap();
    assert!(reason.contains("names other, needed is 127.0.0.1 or *"), "{reason}");
    assert_eq!(items[1]["attempts"], 0, "nothing was posted");
}

#[tokio::test]
async fn a_malformed_connect_answer_is_told_as_what_it_is() {
    let upstream = Upstream::start(|request| match request.ce_event() {
        "validate" => welcome(),
        _ => ok("Content-Type: application/json\r\n", "{\"userId\": 7}"),
    })
    .await;
    let node = start(None, handled_by(format!("http://{}/", upstream.address))).await;
    refused(&node).await;
    let items = log(&node, "?failed=true", 2).await;
    assert_eq!(words(&items), [("connect", "bad_answer"), ("handshake", "upstream_failed")]);
    assert_eq!(items[0]["status"], 200);
    assert!(items[0]["reason"].as_str().unwrap().contains("line 1"), "{}", items[0]);
}

#[tokio::test]
async fn refusals_are_told_with_their_reasons() {
    let node = start(None, |_| {}).await;
    let other = token("/ws/client/hubs/other", Some("ann"));
    assert!(node.connect("chat", &format!("?access_token={other}")).await.is_err());
    assert!(node.connect("chat", "").await.is_err());
    assert_eq!(node.raw("POST", "/ws/api/v1/hubs/chat/", "", b"").await.0, 401);
    assert_eq!(
        node.signed("POST", "/api/hubs/chat/:send", "Content-Type: image/png\r\n", b"x").await.0,
        415
    );
    assert_eq!(node.rest("HEAD", "chat/users/nobody", b"").await, 404, "an answer, not a refusal");
    let items = log(&node, "?hub=chat", 4).await;
    assert_eq!(
        words(&items),
        [
            ("handshake", "bad_audience"),
            ("handshake", "no_user"),
            ("rest", "unauthorized"),
            ("rest", "unsupported_type")
        ]
    );
    let reason = items[0]["reason"].as_str().unwrap();
    assert!(
        reason.contains("http://localhost/ws/client/hubs/other")
            && reason.contains("/ws/client/hubs/chat"),
        "both sides: {reason}"
    );
    assert_eq!(
        (&items[3]["event"], &items[3]["url"]),
        (&json!("send"), &json!("/api/hubs/chat/:send"))
    );
    assert!(!json!(items).to_string().contains(&other));
    assert_eq!(node.raw("GET", "/admin/v1/events", "", b"").await.0, 401);
    let nowhere = log(&node, "?failed=true", 5).await;
    assert_eq!((&nowhere[4]["hub"], &nowhere[4]["dialect"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn the_log_can_be_followed_until_the_service_ends() {
    let node = start(None, |_| {}).await;
    let path = "/admin/v1/events/live";
    assert_eq!(node.raw("GET", path, "", b"").await.0, 401);
    let mut reader = TcpStream::connect(node.address).await.unwrap();
    let request = format!(
        "GET {path}?hub=chat&after=0 HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {}\r\n\r\n",
        token(path, None)
    );
    reader.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    for count in 1..=2 {
        assert!(node.connect("chat", "").await.is_err());
        while text.matches("\"verdict\":\"no_user\"").count() < count {
            let mut piece = [0; 4_096];
            let length = reader.read(&mut piece).await.unwrap();
            assert_ne!(length, 0, "{text}");
            text.push_str(std::str::from_utf8(&piece[..length]).unwrap());
        }
    }
    assert!(text.to_ascii_lowercase().contains("content-type: text/event-stream"), "{text}");
    assert!(node.node.shutdown().await, "a stream does not hold it up");
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest).await.unwrap();
    assert!(rest.ends_with(b"0\r\n\r\n"), "the stream ends in order");
}
