//! Frames that are wrong, too large, hostile, or come at a bad time.

use anyhow::Result;
use axum::http::StatusCode;
use hookwire_chat::Dialect;
use serde_json::{Value, json};

use crate::service::{Room, good, in_both_dialects, refused};

in_both_dialects!(
    frames_that_are_none_are_refused,
    fields_are_bounded,
    a_spoiled_conversation_is_left_out_and_says_so
);

async fn frames_that_are_none_are_refused(dialect: Dialect) -> Result<()> {
    let room = Room::in_dialect(dialect).await?;
    let deep = format!(r#"{{"re":1,"op":"hello","x":{}"#, "[".repeat(100_000));
    let wide = format!(r#"{{"re":1,"op":"hello","x":[{}0]}}"#, "[],".repeat(40_000));
    for (frame, re, code) in [
        ("", 0, "invalid"),
        ("\u{0}\u{1}", 0, "invalid"),
        ("[1,2]", 0, "invalid"),
        (r#"{"op":"hello"}"#, 0, "invalid"),
        (r#"{"re":9,"op":"hello2"}"#, 9, "invalid"),
        (r#"{"re":9,"op":null}"#, 9, "invalid"),
        (r#"{"re":9,"op":"open","conversation":7}"#, 9, "invalid"),
        (r#"{"re":9,"op":"read","conversation":"public","seq":1e999}"#, 0, "invalid"),
        (r#"{"re":9,"op":"create","title":"x","members":[[]]}"#, 9, "invalid"),
        (&deep, 0, "invalid"),
        (&"x".repeat(200_000), 0, "too_large"),
    ] {
        let answered = room.message(Some("ann"), "text/plain", frame).await?;
        let shown: String = frame.chars().take(60).collect();
        assert_eq!(answered.status, StatusCode::OK, "{shown}");
        let answer = answered.json();
        refused(&answer, code);
        assert_eq!(answer["re"], re, "{shown}");
    }
    room.service.online.lock().unwrap().insert("ann".to_owned());
    let answered = room.message(Some("ann"), "text/plain", wide).await?;
    good(answered.json());

    let invalid = room.message(Some("ann"), "text/plain", &b"{\"re\":1,\"op\":\"\xff\"}"[..]);
    refused(&invalid.await?.json(), "invalid");
    let frame = r#"{"re":5,"op":"hello"}"#;
    let binary = room.message(Some("ann"), "application/octet-stream", frame);
    refused(&binary.await?.json(), "invalid");
    let nobody = room.message(None, "text/plain", frame).await?.json();
    refused(&nobody, "forbidden");
    assert_eq!(nobody["re"], 5);
    room.close().await;
    Ok(())
}

async fn fields_are_bounded(dialect: Dialect) -> Result<()> {
    let room = Room::in_dialect(dialect).await?;
    for user in ["ann", "bob"] {
        room.hello(user).await?;
    }
    let send = |key: &str, text: &str| json!({ "re": 1, "op": "send", "conversation": "public", "key": key, "text": text });
    let open = |fields: Value| {
        let mut frame = json!({ "re": 1, "op": "open", "conversation": "public" });
        frame.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        frame
    };
    let members: Vec<String> = (0..101).map(|n| format!("user {n}")).collect();
    for (frame, code) in [
        (send("", "text"), "invalid"),
        (send(&"k".repeat(65), "text"), "too_large"),
        (send("k", ""), "invalid"),
        (send("k", " \n "), "invalid"),
        (send("k", &"🎉".repeat(4_001)), "too_large"),
        (open(json!({ "before": 1, "after": 1 })), "invalid"),
        (open(json!({ "limit": 0 })), "invalid"),
        (json!({ "re": 1, "op": "open", "conversation": "nowhere" }), "not_found"),
        (
            json!({ "re": 1, "op": "open", "conversation": format!("group~{:032x}", 1) }),
            "not_found",
        ),
        (json!({ "re": 1, "op": "create", "title": "" }), "invalid"),
        (json!({ "re": 1, "op": "create", "title": "a\u{7}" }), "invalid"),
        (json!({ "re": 1, "op": "create", "title": "x".repeat(81) }), "too_large"),
        (json!({ "re": 1, "op": "create", "title": "x", "members": members }), "too_large"),
        (json!({ "re": 1, "op": "create", "title": "x", "members": [""] }), "invalid"),
        (json!({ "re": 1, "op": "create", "title": "x", "members": ["nobody"] }), "not_found"),
        (json!({ "re": 1, "op": "direct", "user": "nobody" }), "not_found"),
        (json!({ "re": 1, "op": "direct", "user": "ann" }), "invalid"),
        (json!({ "re": 1, "op": "direct", "user": "x".repeat(65) }), "too_large"),
        (json!({ "re": 1, "op": "leave", "conversation": "public" }), "invalid"),
        (json!({ "re": 1, "op": "join", "conversation": "public" }), "invalid"),
        (json!({ "re": 1, "op": "invite", "conversation": "public", "user": "bob" }), "invalid"),
        (json!({ "re": 1, "op": "leave", "conversation": "direct~ann~bob" }), "invalid"),
    ] {
        refused(&room.ask("ann", frame).await?, code);
    }
    let long = good(room.ask("ann", send(&"🎉".repeat(64), &"\u{1}🎉".repeat(2_000))).await?);
    assert_eq!(long["message"]["text"], "\u{1}🎉".repeat(2_000));
    let page = good(room.ask("ann", open(json!({ "limit": 1_000_000 }))).await?);
    assert_eq!(
        page["messages"].as_array().unwrap().len(),
        1,
        "a larger limit counts as the largest"
    );
    room.close().await;
    Ok(())
}

async fn a_spoiled_conversation_is_left_out_and_says_so(dialect: Dialect) -> Result<()> {
    let room = Room::in_dialect(dialect).await?;
    for user in ["ann", "bob"] {
        room.hello(user).await?;
    }
    let direct = good(room.ask("ann", json!({ "re": 1, "op": "direct", "user": "bob" })).await?);
    let id = direct["conversation"]["id"].as_str().unwrap().to_owned();
    good(room.send("ann", &id, "1").await?);
    good(room.send("ann", "public", "1").await?);
    let spoiled = room.spoil_conversations(|content| content.contains("\"id\":\"direct~"))?;
    assert_eq!(spoiled, 1);

    refused(&room.send("ann", &id, "2").await?, "unavailable");
    refused(
        &room.ask("ann", json!({ "re": 1, "op": "open", "conversation": id })).await?,
        "unavailable",
    );
    let hello = good(room.hello("ann").await?);
    let ids: Vec<&str> = hello["conversations"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|each| each["id"].as_str())
        .collect();
    assert_eq!(ids, ["public"]);
    good(room.send("ann", "public", "2").await?);
    room.close().await;
    Ok(())
}
