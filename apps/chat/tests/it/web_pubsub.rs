//! The chat on a service of Web PubSub: its one event handler, its groups, its URLs.

use anyhow::Result;
use axum::http::{Method, StatusCode};
use hookwire_chat::Dialect;
use hookwire_client::{AccessKey, sign};
use serde_json::{Value, json};

use crate::service::{KEY, Room, good, refused, request};

async fn room() -> Result<Room> {
    Room::in_dialect(Dialect::WebPubSub).await
}

async fn group_of(room: &Room, creator: &str, other: &str) -> Result<String> {
    let frame = json!({ "re": 1, "op": "create", "title": "Tea", "members": [other] });
    let answer = good(room.ask(creator, frame).await?);
    let id = answer["conversation"]["id"].as_str().unwrap().to_owned();
    good(room.ask(other, on("join", &id)).await?);
    Ok(id)
}

fn on(op: &str, id: &str) -> Value {
    json!({ "re": 1, "op": op, "conversation": id })
}

fn connecting(query: &Value, subprotocols: &[&str]) -> String {
    json!({ "claims": {}, "query": query, "headers": {}, "subprotocols": subprotocols, "new": 1 })
        .to_string()
}

#[tokio::test]
async fn events_are_wanted_from_whoever_asks() -> Result<()> {
    let room = room().await?;
    let origin = [("WebHook-Request-Origin", "hooks.example"), ("ce-awpsversion", "1.0")];
    let path = "/api/eventhandler";
    let answered = request(room.address, Method::OPTIONS, path, &origin, Vec::new()).await?;
    assert_eq!(
        (answered.status, &answered.headers["webhook-allowed-origin"]),
        (StatusCode::OK, &"*".parse()?)
    );
    let no_origin = request(room.address, Method::OPTIONS, path, &[], Vec::new()).await?;
    assert_eq!(no_origin.status, StatusCode::BAD_REQUEST);
    assert_eq!(room.get(path, &[]).await?.status, StatusCode::METHOD_NOT_ALLOWED);
    let other = request(room.address, Method::POST, "/api/message", &[], Vec::new()).await?;
    assert_eq!(other.status, StatusCode::NOT_FOUND, "the other dialect's functions are not there");
    room.close().await;
    Ok(())
}

#[tokio::test]
async fn a_client_connects_by_its_name() -> Result<()> {
    let room = room().await?;
    let long = "🎉".repeat(64);
    for (name, expected) in [("ann", "ann"), ("  änn o'x", "änn o'x"), (&*long, &*long)] {
        let body =
            connecting(&json!({ "x": [], "name": ["no", name] }), &["a", "hookwire.chat.v1"]);
        let answered = room.cloud_event("sys.connect", &[], body).await?;
        assert_eq!(answered.status, StatusCode::OK, "{answered:?}");
        assert_eq!(
            answered.json(),
            json!({ "userId": expected, "subprotocol": "hookwire.chat.v1" })
        );
    }
    let query = json!({ "name": ["mallory"] });
    let principal = ("X-MS-CLIENT-PRINCIPAL-NAME", "bob");
    let answered =
        room.cloud_event("sys.connect", &[principal], connecting(&query, &["a"])).await?;
    assert_eq!(answered.json(), json!({ "userId": "bob" }));
    let token = ("ce-userId", "ann");
    let headers = [principal, token];
    let answered = room.cloud_event("sys.connect", &headers, connecting(&query, &[])).await?;
    assert_eq!(answered.json()["userId"], "ann");
    room.close().await;
    Ok(())
}

#[tokio::test]
async fn a_client_without_a_usable_name_is_turned_away_with_a_reason() -> Result<()> {
    let room = room().await?;
    let long = "x".repeat(65);
    let answered = room.cloud_event("sys.connect", &[], "").await?;
    assert_eq!(answered.status, StatusCode::UNAUTHORIZED, "nothing is said");
    for query in
        [json!({}), json!({ "name": [] }), json!({ "name": [""] }), json!({ "name": [long] })]
    {
        let answered = room.cloud_event("sys.connect", &[], connecting(&query, &[])).await?;
        assert_eq!(answered.status, StatusCode::UNAUTHORIZED, "{query}");
        assert!(answered.json()["message"].as_str().unwrap().ends_with('.'));
    }
    for body in ["[]", "null", "{", r#"{"query":[]}"#, r#"{"query":{"name":"ann"}}"#] {
        let answered = room.cloud_event("sys.connect", &[], body).await?;
        assert_eq!(answered.status, StatusCode::BAD_REQUEST, "{body}");
    }
    let huge = connecting(&json!({ "name": ["x".repeat(600_000)] }), &[]);
    let answered = room.cloud_event("sys.connect", &[], huge).await?;
    assert_eq!(answered.status, StatusCode::PAYLOAD_TOO_LARGE);
    room.close().await;
    Ok(())
}

#[tokio::test]
async fn only_the_service_may_call() -> Result<()> {
    let room = room().await?;
    let other_key = sign(&[AccessKey::parse(&"x".repeat(44))?], "connection-1");
    let other_connection = sign(&[AccessKey::parse(KEY)?], "connection-2");
    let kinds = ["sys.connect", "sys.connected", "user.message", "sys.disconnected", "user.else"];
    for kind in kinds {
        for signature in ["", "sha256=", "sha256=00", "none", &other_key, &other_connection] {
            let headers = [("ce-signature", signature), ("ce-userId", "ann")];
            let answered = room.cloud_event(kind, &headers, r#"{"re":1,"op":"hello"}"#).await?;
            assert_eq!(answered.status, StatusCode::UNAUTHORIZED, "{kind} {signature}");
            assert!(answered.json()["message"].as_str().unwrap().contains("not signed"));
        }
        for (header, status) in [
            (("ce-connectionId", ""), StatusCode::BAD_REQUEST),
            (("ce-type", ""), StatusCode::BAD_REQUEST),
            (("ce-type", "azure.signalr.message"), StatusCode::BAD_REQUEST),
            (("ce-hub", ""), StatusCode::BAD_REQUEST),
            (("ce-hub", "another"), StatusCode::NOT_FOUND),
        ] {
            let answered = room.cloud_event(kind, &[header], "").await?;
            assert_eq!(answered.status, status, "{kind} {header:?}");
        }
    }
    assert!(room.service.left().is_empty());
    room.close().await;

    let room = Room::with(|config| {
        config.dialect = Dialect::WebPubSub;
        config.verify_signature = false;
    })
    .await?;
    let body = connecting(&json!({ "name": ["ann"] }), &[]);
    let answered = room.cloud_event("sys.connect", &[("ce-signature", "")], body).await?;
    assert_eq!(answered.status, StatusCode::OK);
    room.close().await;
    Ok(())
}

#[tokio::test]
async fn events_that_the_chat_does_not_need_are_taken_or_refused() -> Result<()> {
    let room = room().await?;
    for kind in ["sys.connected", "gp.joined", "gp.left", "sys.other"] {
        let answered = room.cloud_event(kind, &[("ce-userId", "ann")], r#"{"group":"g"}"#).await?;
        assert_eq!((answered.status, &*answered.body), (StatusCode::NO_CONTENT, ""), "{kind}");
    }
    let answered = room.cloud_event("user.order", &[("ce-userId", "ann")], "{}").await?;
    assert_eq!(answered.status, StatusCode::NOT_FOUND);
    room.close().await;
    Ok(())
}

#[tokio::test]
async fn clients_that_send_json_are_understood() -> Result<()> {
    let room = room().await?;
    room.hello("ann").await?;
    let frame = r#"{"re":7,"op":"open","conversation":"public"}"#;
    for kind in ["application/json; charset=utf-8", "text/plain;charset=UTF-8"] {
        let answered = room.message(Some("ann"), kind, frame).await?;
        assert_eq!(answered.headers["content-type"], "application/json");
        assert_eq!(good(answered.json())["re"], 7);
    }
    let other = room.message(Some("ann"), "application/x-protobuf", frame).await?;
    refused(&other.json(), "invalid");
    room.close().await;
    Ok(())
}

#[tokio::test]
async fn a_new_connection_is_put_into_its_users_groups() -> Result<()> {
    let room = room().await?;
    for user in ["ann", "bob"] {
        room.hello(user).await?;
    }
    let id = group_of(&room, "ann", "bob").await?;
    assert_eq!(room.connect("bob").await?["groups"], json!([id]));
    room.service.calls.lock().unwrap().clear();
    good(room.ask("bob", json!({ "re": 1, "op": "hello" })).await?);
    assert!(room.service.calls.lock().unwrap().is_empty(), "everything was right already");

    good(room.ask("bob", on("leave", &id)).await?);
    assert_eq!(room.connect("bob").await?["groups"], Value::Null);
    assert_eq!(room.service.members_of(&id), ["ann"]);
    room.close().await;
    Ok(())
}

/// The members change after a connection was told its groups, and before it exists, so that the change does not reach it.
#[tokio::test]
async fn hello_puts_right_what_changed_while_a_connection_came() -> Result<()> {
    let room = room().await?;
    for user in ["ann", "bob"] {
        room.hello(user).await?;
    }
    let left = group_of(&room, "ann", "bob").await?;
    let kept = group_of(&room, "ann", "bob").await?;
    assert_eq!(room.connect("bob").await?["groups"].as_array().unwrap().len(), 2);
    good(room.ask("bob", on("leave", &left)).await?);
    let joined = group_of(&room, "ann", "bob").await?;
    room.service.add(&left, "bob");
    room.service.remove(&joined, "bob");

    good(room.send("ann", &joined, "1").await?);
    let hello = good(room.ask("bob", json!({ "re": 1, "op": "hello" })).await?);
    assert_eq!(room.service.members_of(&left), ["ann"]);
    assert_eq!(room.service.members_of(&kept), ["ann", "bob"]);
    assert_eq!(room.service.members_of(&joined), ["ann", "bob"]);
    let known = hello["conversations"].as_array().unwrap();
    let conversation = known.iter().find(|each| each["id"] == json!(joined)).unwrap();
    assert_eq!(conversation["lastSeq"], 1, "what was said before is told");
    room.close().await;
    Ok(())
}

#[tokio::test]
async fn groups_that_cannot_be_read_do_not_keep_anybody_out() -> Result<()> {
    let room = room().await?;
    for user in ["ann", "bob"] {
        room.hello(user).await?;
    }
    let id = group_of(&room, "ann", "bob").await?;
    assert_eq!(room.spoil_conversations(|content| content.contains(&id))?, 1);
    assert_eq!(room.connect("bob").await?["groups"], Value::Null);
    room.close().await;
    Ok(())
}

#[tokio::test]
async fn the_endpoint_says_where_the_socket_is() -> Result<()> {
    let room = room().await?;
    let base = format!("ws://{}/client/hubs/chat", room.endpoint.authority());
    let url = room.get("/api/endpoint", &[]).await?.json()["url"].as_str().unwrap().to_owned();
    assert!(url.starts_with(&format!("{base}?access_token=")), "{url}");
    room.close().await;

    let room = Room::with(|config| {
        config.dialect = Dialect::WebPubSub;
        config.always_with_token = Some(false);
    })
    .await?;
    let base = format!("ws://{}/client/hubs/chat", room.endpoint.authority());
    assert_eq!(room.get("/api/endpoint", &[]).await?.json()["url"], base);
    let url = room.get("/api/endpoint?token=1", &[]).await?.json()["url"].clone();
    assert!(url.as_str().unwrap().starts_with(&format!("{base}?access_token=")), "{url}");
    room.close().await;
    Ok(())
}

#[tokio::test]
async fn a_connection_that_is_gone_needs_no_groups() -> Result<()> {
    let room = room().await?;
    for user in ["ann", "bob"] {
        room.hello(user).await?;
    }
    room.service.online.lock().unwrap().remove("bob");
    let id = group_of(&room, "ann", "bob").await?;
    assert_eq!(room.service.members_of(&id), ["ann"], "nobody was there to be put into it");
    room.service.fail(&format!("groups/{id}/connections/"), 404, 1);
    good(room.ask("bob", json!({ "re": 1, "op": "hello" })).await?);
    room.close().await;
    Ok(())
}
