//! Settings of hubs at run time: they win over the configuration, outlive a restart, and keep secrets to themselves.

use std::sync::Arc;

use hookwire_proto::handler::{HubDocument, HubSettings};
use hookwire_proto::name::HubName;
use hookwire_server::config::Config;
use serde_json::{Value, json};
use tokio_tungstenite::connect_async;

use crate::node::{TestNode, start};
use crate::upstream::{Upstream, ok, welcome};

/// The hub of the path.
const HUB: &str = "chat";
const PATH: &str = "/admin/v1/hubs/chat/settings";

impl TestNode {
    /// Calls an API with a JSON body; returns the status and the JSON of the answer.
    async fn call(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = body.to_string();
        let (status, answer) = self.signed(method, path, "", body.as_bytes()).await;
        let document = answer.split_once("\r\n\r\n").unwrap().1;
        (status, serde_json::from_str(document).unwrap())
    }
}

fn with_secret(config: &mut Config) {
    let document: HubDocument = serde_json::from_value(json!({
        "eventHandlers": [
            { "urlTemplate": "http://127.0.0.1:1/a", "systemEvents": ["connected"],
              "auth": { "type": "bearer", "tokenUrl": "https://t.example/", "clientId": "i", "clientSecret": "hunter2" } },
            { "urlTemplate": "http://127.0.0.1:1/b", "userEventPattern": "*",
              "auth": { "type": "bearer", "file": "/run/secrets/token" } },
        ],
    }))
    .unwrap();
    let chat = HubName::parse("chat").unwrap();
    config.hubs.hubs.insert(chat, Arc::new(HubSettings::parse(&document).unwrap()));
}

#[tokio::test]
async fn settings_hold_at_once_and_after_a_restart_and_can_be_taken_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut upstream = Upstream::start(|request| match request.ce_event() {
        "validate" => welcome(),
        _ => ok("", ""),
    })
    .await;
    let url = format!("http://{}/hook", upstream.address);
    let settings = json!({
        "source": "defaults",
        "anonymousConnect": "allow",
        "eventHandlers": [{ "urlTemplate": url, "systemEvents": ["connect"] }],
    });
    for round in 0..2 {
        let node = start(None, |config| config.data_dir = folder.path().to_owned()).await;
        if round == 0 {
            let (status, before) = node.call("GET", PATH, &Value::Null).await;
            assert_eq!((status, &before["source"]), (200, &json!("defaults")));
            let (status, after) = node.call("PUT", PATH, &settings).await;
            assert_eq!((status, &after["source"]), (200, &json!("stored")), "{after}");
            assert_eq!(
                after["eventHandlers"],
                json!([{ "urlTemplate": url, "userEventPattern": "", "systemEvents": ["connect"] }])
            );
        }
        let client = format!("ws://{}/client/hubs/chat", node.address);
        let _client = connect_async(&client).await.unwrap();
        assert_eq!(upstream.next().await.ce_event(), "validate");
        assert_eq!(upstream.next().await.ce_event(), "connect");
        if round == 1 {
            let (status, after) = node.call("DELETE", PATH, &Value::Null).await;
            assert_eq!((status, &after["source"]), (200, &json!("defaults")));
            assert!(connect_async(&client).await.is_err(), "nobody without a token any more");
        }
        assert!(node.node.shutdown().await);
    }
}

#[tokio::test]
async fn secrets_are_not_shown_and_stay_when_they_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    {
        let node = start(None, |config| {
            config.data_dir = folder.path().to_owned();
            with_secret(config);
        })
        .await;
        let (_, mut shown) = node.call("GET", PATH, &Value::Null).await;
        assert_eq!(shown["source"], "file");
        assert!(!shown.to_string().contains("hunter2"), "{shown}");
        let mut draft = shown.clone();
        draft.as_object_mut().unwrap().remove("source");
        let (_, faults) = node.call("POST", "/admin/v1/validate", &draft).await;
        assert_eq!(faults["faults"].as_array().map(Vec::len), Some(2), "of no hub: {faults}");
        let question = json!({ "dialect": "webPubSub", "hub": HUB, "event": "e", "draft": draft });
        let (status, found) = node.call("POST", "/admin/v1/match", &question).await;
        assert_eq!(status, 200, "{found}");
        draft["hub"] = HUB.into();
        let (_, faults) = node.call("POST", "/admin/v1/validate", &draft).await;
        assert_eq!(faults, json!({ "faults": [] }));
        // Sent back as it was shown, and once more without any proof.
        for _ in 0..2 {
            let (status, after) = node.call("PUT", PATH, &shown).await;
            assert_eq!(status, 200, "{after}");
            assert_eq!(after["eventHandlers"][0]["auth"]["clientId"], "i");
            assert_eq!(after["eventHandlers"][1]["auth"]["file"], "/run/secrets/token");
            for handler in shown["eventHandlers"].as_array_mut().unwrap() {
                handler.as_object_mut().unwrap().remove("auth");
            }
        }
        assert!(node.node.shutdown().await);
    }
    let node = start(None, |config| config.data_dir = folder.path().to_owned()).await;
    let (_, shown) = node.call("GET", PATH, &Value::Null).await;
    assert_eq!(shown["eventHandlers"][0]["auth"]["tokenUrl"], "https://t.example/");
    let mut elsewhere = shown.clone();
    elsewhere["eventHandlers"][0]["auth"]["tokenUrl"] = "https://thief.example/".into();
    let (status, faults) = node.call("PUT", PATH, &elsewhere).await;
    assert_eq!(status, 400, "a secret does not follow to another server");
    assert_eq!(faults["faults"][0]["path"], "eventHandlers[0].auth");
    let mut file = shown.clone();
    file["eventHandlers"][1]["auth"]["file"] = "/etc/passwd".into();
    let (status, faults) = node.call("PUT", PATH, &file).await;
    assert_eq!((status, &faults["faults"][0]["path"]), (400, &json!("eventHandlers[1].auth")));
    for handler in 0..2 {
        for url in ["http://thief.example/a", "http://127.0.0.1:11/a"] {
            let mut elsewhere = shown.clone();
            elsewhere["eventHandlers"][handler]["urlTemplate"] = url.into();
            let (status, faults) = node.call("PUT", PATH, &elsewhere).await;
            let path = json!(format!("eventHandlers[{handler}].auth"));
            assert_eq!((status, &faults["faults"][0]["path"]), (400, &path), "{url}");
        }
    }
    let mut wider = shown.clone();
    wider["eventHandlers"][0]["auth"]["scope"] = "everything".into();
    assert_eq!(
        node.call("PUT", PATH, &wider).await.0,
        400,
        "a secret is for what it was given for"
    );
    let mut moved = shown;
    moved["eventHandlers"][1]["urlTemplate"] = "http://127.0.0.1:1/c?d".into();
    assert_eq!(node.call("PUT", PATH, &moved).await.0, 200, "another path of the same server");
}

#[tokio::test]
async fn all_faults_are_told_and_nothing_is_changed() {
    let node = start(None, |_| {}).await;
    let bad = json!({
        "anonymousConnect": "maybe",
        "eventHandlers": [{ "urlTemplate": "ftp://h/", "systemEvents": ["message"] }],
        "eventListeners": [{ "urlTemplate": "tunnel:///x", "systemEvents": ["connected"] }],
    });
    let paths = [
        "anonymousConnect",
        "eventHandlers[0].urlTemplate",
        "eventHandlers[0].systemEvents",
        "eventListeners[0].urlTemplate",
    ];
    let (status, answer) = node.call("PUT", PATH, &bad).await;
    assert_eq!((status, &answer["code"]), (400, &json!("invalid")));
    let (_, checked) = node.call("POST", "/admin/v1/validate", &bad).await;
    for document in [&answer, &checked] {
        let faults = document["faults"].as_array().unwrap();
        let found: Vec<&str> = faults.iter().map(|fault| fault["path"].as_str().unwrap()).collect();
        assert_eq!(found, paths);
    }
    let (status, answer) = node.call("PUT", PATH, &json!({ "eventHandler": [] })).await;
    assert_eq!(status, 400);
    assert!(answer["message"].as_str().unwrap().contains("eventHandler"), "{answer}");
    assert_eq!(node.call("GET", PATH, &Value::Null).await.1["source"], "defaults");
    let templates = json!({ "templates": [{ "urlTemplate": "http://h/{event}" }, { "urlTemplate": "x", "hubPattern": "" }] });
    let (_, checked) = node.call("POST", "/admin/v1/validate", &templates).await;
    assert_eq!(checked["faults"][0]["path"], "templates[1].hubPattern");
    assert_eq!(checked["faults"][1]["path"], "templates[1].urlTemplate");
    let (_, checked) = node.call("POST", "/admin/v1/validate", &json!({})).await;
    assert_eq!(checked, json!({ "faults": [] }));
    for (method, path) in [("PUT", PATH), ("POST", "/admin/v1/validate"), ("DELETE", PATH)] {
        assert_eq!(node.raw(method, path, "", b"{}").await.0, 401);
    }
}

#[tokio::test]
async fn who_gets_an_event_can_be_asked() {
    let node = start(Some("127.0.0.1:9".parse().unwrap()), with_secret).await;
    let ask = async |question: Value| node.call("POST", "/admin/v1/match", &question).await;
    let (_, found) = ask(json!({ "dialect": "webPubSub", "hub": "chat", "event": "order" })).await;
    assert_eq!(found, json!({ "index": 1, "url": "http://127.0.0.1:1/b" }));
    let (_, found) = ask(
        json!({ "dialect": "webPubSub", "hub": "chat", "type": "system", "event": "connected" }),
    )
    .await;
    assert_eq!(found["index"], 0);
    let (_, found) =
        ask(json!({ "dialect": "webPubSub", "hub": "chat", "type": "system", "event": "connect" }))
            .await;
    assert_eq!(
        found,
        json!({ "index": null, "reason": "no handler has connect among its systemEvents" })
    );
    let (_, found) = ask(json!({ "dialect": "preview", "hub": "Chat", "event": "message" })).await;
    assert_eq!(
        found,
        json!({ "index": 0, "url": "http://127.0.0.1:9/chat/api/message?c=messages" })
    );
    let draft = json!({ "templates": [{ "urlTemplate": "http://x/", "eventPattern": "connect" }] });
    let (_, found) =
        ask(json!({ "dialect": "preview", "hub": "chat", "event": "message", "draft": draft }))
            .await;
    assert_eq!(found["index"], Value::Null);
    assert!(found["reason"].as_str().unwrap().contains("the event message"), "{found}");
    let (_, found) = ask(json!({ "dialect": "preview", "hub": "chat", "event": "order" })).await;
    assert_eq!(found["index"], Value::Null);
    let bad = json!({ "eventHandlers": [{ "urlTemplate": "x" }] });
    let question = json!({ "dialect": "webPubSub", "hub": "chat", "event": "e", "draft": bad });
    let (status, answer) = ask(question).await;
    assert_eq!(
        (status, &answer["faults"][0]["path"]),
        (400, &json!("eventHandlers[0].urlTemplate"))
    );
    assert_eq!(ask(json!({ "dialect": "mqtt", "hub": "chat", "event": "e" })).await.0, 400);
}
