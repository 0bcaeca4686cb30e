//! Files on messages: who may bring, send and read them, and as what browsers get them.

use std::fs;

use anyhow::Result;
use axum::http::{Method, StatusCode};
use hookwire_chat::Dialect;
use serde_json::{Value, json};

use crate::service::{Answered, Room, ask_at, good, in_both_dialects, refused, request};

in_both_dialects!(a_picture_reaches_everybody_who_may_read_it);

const GIF: &str = "GIF89a\u{1}\0\u{1}\0 and so on";

async fn invited(room: &Room, user: &str, id: &str, name: &str, size: usize) -> Result<Value> {
    room.ask(
        user,
        json!({ "re": 1, "op": "attach", "conversation": id, "name": name, "size": size }),
    )
    .await
}

async fn upload(room: &Room, url: &str, content: impl Into<Vec<u8>>) -> Result<Answered> {
    request(room.address, Method::POST, url, &[], content.into()).await
}

/// Brings a file and returns its receipt.
async fn brought(room: &Room, user: &str, id: &str, name: &str, content: &str) -> Result<Value> {
    let invited = good(invited(room, user, id, name, content.len()).await?);
    let answered = upload(room, invited["upload"].as_str().unwrap(), content).await?;
    assert_eq!(answered.status, StatusCode::CREATED, "{answered:?}");
    Ok(answered.json())
}

fn with(id: &str, key: &str, text: &str, receipts: &[&Value]) -> Value {
    json!({ "re": 1, "op": "send", "conversation": id, "key": key, "text": text, "attachments": receipts })
}

fn url(message: &Value, place: usize) -> &str {
    message["attachments"][place]["url"].as_str().unwrap()
}

async fn a_picture_reaches_everybody_who_may_read_it(dialect: Dialect) -> Result<()> {
    let room = Room::in_dialect(dialect).await?;
    for user in ["ann", "bob"] {
        room.hello(user).await?;
    }
    let picture = brought(&room, "ann", "public", "été 1.gif", GIF).await?;
    let shown = json!({ "name": "été 1.gif", "type": "image/gif", "size": GIF.len() });
    assert_eq!(picture["attachment"], shown);
    let page = brought(&room, "ann", "public", "x.png", "<script>alert(1)</script>").await?;
    assert_eq!(page["attachment"]["type"], "application/octet-stream");

    let receipts = [&picture["receipt"], &page["receipt"]];
    let sent = good(room.ask("ann", with("public", "k", "", &receipts)).await?);
    let sent = &sent["message"];
    assert_eq!((&sent["text"], &sent["seq"]), (&json!(""), &json!(1)));
    let pushed = room.service.push("*", "message").await?;
    assert_eq!(pushed["message"]["attachments"][1]["name"], "x.png");
    let opened =
        good(room.ask("bob", json!({ "re": 1, "op": "open", "conversation": "public" })).await?);
    let opened = &opened["messages"][0];
    let kinds = [0, 1].map(|place| opened["attachments"][place]["type"].as_str().unwrap());
    assert_eq!(kinds, ["image/gif", "application/octet-stream"]);

    for message in [sent, &pushed["message"], opened] {
        let answered = room.get(url(message, 0), &[]).await?;
        assert_eq!((answered.status, &*answered.body), (StatusCode::OK, GIF));
        for (name, value) in [
            ("content-type", "image/gif"),
            ("content-disposition", "inline; filename*=UTF-8''%C3%A9t%C3%A9%201%2Egif"),
            ("x-content-type-options", "nosniff"),
            ("content-security-policy", "default-src 'none'; sandbox"),
            ("cross-origin-resource-policy", "same-origin"),
            ("cache-control", "private, max-age=3600, immutable"),
        ] {
            assert_eq!(answered.headers[name], value, "{name}");
        }
        assert_eq!(answered.headers["content-length"], GIF.len().to_string());
    }
    let answered = room.get(url(sent, 1), &[]).await?;
    assert_eq!(answered.headers["content-type"], "application/octet-stream");
    let disposition = answered.headers["content-disposition"].to_str()?;
    assert!(disposition.starts_with("attachment;"), "{disposition}");
    assert_eq!(answered.headers["x-content-type-options"], "nosniff");
    room.close().await;
    Ok(())
}

#[tokio::test]
async fn any_instance_takes_what_another_one_allowed() -> Result<()> {
    let room = Room::open().await?;
    room.hello("ann").await?;
    let (other, address) = room.another().await?;
    let invited = good(invited(&room, "ann", "public", "a.gif", GIF.len()).await?);
    let path = invited["upload"].as_str().unwrap();
    let taken = request(address, Method::POST, path, &[], GIF.into()).await?.json();
    let frame = with("public", "k", "look", &[&taken["receipt"]]);
    let sent = good(room.ask("ann", frame).await?);
    let open = json!({ "re": 1, "op": "open", "conversation": "public" });
    let opened = good(ask_at(address, "ann", open).await?);
    for link in [url(&sent["message"], 0), url(&opened["messages"][0], 0)] {
        let given = request(address, Method::GET, link, &[], Vec::new()).await?;
        assert_eq!(given.body, GIF);
    }
    other.shutdown().await;
    room.close().await;
    Ok(())
}

#[tokio::test]
async fn only_members_bring_files_and_only_their_own_are_sent() -> Result<()> {
    let room = Room::open().await?;
    for user in ["ann", "bob", "carl"] {
        room.hello(user).await?;
    }
    let direct = good(room.ask("ann", json!({ "re": 1, "op": "direct", "user": "bob" })).await?);
    let direct = direct["conversation"]["id"].as_str().unwrap();
    refused(&invited(&room, "carl", direct, "a.gif", 5).await?, "forbidden");
    refused(&invited(&room, "ann", "group~00", "a.gif", 5).await?, "not_found");
    refused(&invited(&room, "ann", "public", "a.gif", 0).await?, "invalid");
    refused(&invited(&room, "ann", "public", "a/b.gif", 5).await?, "invalid");
    refused(&invited(&room, "ann", "public", &"x".repeat(121), 5).await?, "too_large");
    let answer = invited(&room, "ann", "public", "a.gif", (10 << 20) + 1).await?;
    refused(&answer, "too_large");
    assert_eq!(answer["message"], "A file can have at most 10 MiB.");

    let theirs = brought(&room, "ann", direct, "a.gif", GIF).await?;
    let receipt = &theirs["receipt"];
    let attempt =
        async |user, id, receipts: &[&Value]| room.ask(user, with(id, "k", "text", receipts)).await;
    refused(&attempt("bob", direct, &[receipt]).await?, "invalid");
    refused(&attempt("ann", "public", &[receipt]).await?, "invalid");
    refused(&attempt("ann", direct, &[&json!("nonsense")]).await?, "invalid");
    refused(&attempt("ann", direct, &[receipt; 11]).await?, "too_large");
    refused(&attempt("ann", direct, &[&json!(7)]).await?, "invalid");
    refused(&room.ask("ann", with(direct, "k", " ", &[])).await?, "invalid");
    let sent = good(attempt("ann", direct, &[receipt, receipt]).await?);
    assert_eq!(sent["message"]["attachments"].as_array().map(Vec::len), Some(1));
    refused(&attempt("carl", direct, &[]).await?, "forbidden");

    // A link is no receipt and no upload, a receipt no link.
    let link = url(&sent["message"], 0);
    let ticket = link.split_once('=').unwrap().1;
    refused(&attempt("ann", direct, &[&json!(ticket)]).await?, "invalid");
    let status = async |method, path: &str| {
        let answered = request(room.address, method, path, &[], b"GIF89a".to_vec()).await?;
        anyhow::Ok(answered.status)
    };
    let receipt = receipt.as_str().unwrap();
    for (method, path) in [
        (Method::POST, link),
        (Method::POST, "/api/attachments"),
        (Method::POST, "/api/attachments?ticket="),
        (Method::POST, "/api/attachments?ticket=a.b.c"),
        (Method::GET, "/api/attachments?ticket=a.b.c"),
        (Method::GET, &format!("/api/attachments?ticket={receipt}")),
        (Method::GET, &format!("{link}x")),
    ] {
        assert_eq!(
            status(method.clone(), path).await?,
            StatusCode::UNAUTHORIZED,
            "{method} {path}"
        );
    }
    assert_eq!(status(Method::DELETE, link).await?, StatusCode::METHOD_NOT_ALLOWED);
    room.close().await;
    Ok(())
}

#[tokio::test]
async fn nothing_is_kept_of_who_left() -> Result<()> {
    let room = Room::open().await?;
    for user in ["ann", "bob"] {
        room.hello(user).await?;
    }
    let frame = json!({ "re": 1, "op": "create", "title": "Tea", "members": ["bob"] });
    let created = good(room.ask("ann", frame).await?);
    let id = created["conversation"]["id"].as_str().unwrap();
    let on = |op: &str| json!({ "re": 1, "op": op, "conversation": id });
    good(room.ask("bob", on("join")).await?);
    let file = brought(&room, "bob", id, "a.gif", GIF).await?;
    good(room.ask("bob", on("leave")).await?);
    refused(&room.ask("bob", with(id, "k", "", &[&file["receipt"]])).await?, "forbidden");
    for conversation in fs::read_dir(room.folder().join("chat/conversations"))? {
        let kept = conversation?.path().join("attachments");
        assert!(!kept.exists(), "{}", kept.display());
    }
    room.close().await;
    Ok(())
}

#[tokio::test]
async fn a_file_is_as_large_as_announced() -> Result<()> {
    let room = Room::with(|config| config.attachment_bytes_max = 6 << 20).await?;
    room.hello("ann").await?;
    let answer = invited(&room, "ann", "public", "a", (6 << 20) + 1).await?;
    assert_eq!(answer["message"], "A file can have at most 6 MiB.");
    let invited = good(invited(&room, "ann", "public", "a", 6 << 20).await?);
    let path = invited["upload"].as_str().unwrap();
    let content = "0123456789abcdef".repeat((6 << 20) / 16);
    let larger = upload(&room, path, format!("{content}!")).await?;
    assert_eq!(larger.status, StatusCode::PAYLOAD_TOO_LARGE);
    let smaller = upload(&room, path, &content[1..]).await?;
    assert_eq!(smaller.status, StatusCode::BAD_REQUEST);
    assert_eq!(smaller.json()["code"], "invalid");
    let exact = upload(&room, path, &*content).await?;
    assert_eq!(exact.status, StatusCode::CREATED);
    let frame = with("public", "k", "", &[&exact.json()["receipt"]]);
    let sent = good(room.ask("ann", frame.clone()).await?);
    let stored = room.folder().join("chat/uploads");
    assert_eq!(fs::read_dir(&stored)?.count(), 1, "the other two are gone");

    // The same message again, when the upload is long gone, and from a process that knows nothing of it.
    fs::remove_dir_all(&stored)?;
    let room = room.reopen().await?;
    let again = good(room.ask("ann", frame).await?);
    assert_eq!(again["message"]["id"], sent["message"]["id"]);
    let given = room.get(url(&again["message"], 0), &[]).await?;
    assert!(given.body == content);
    room.close().await;
    Ok(())
}
