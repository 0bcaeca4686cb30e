//! Who is there.

use anyhow::Result;
use serde_json::{Value, json};

use crate::service::{Room, good};

fn user(name: &str, online: bool) -> Value {
    json!({ "name": name, "online": online })
}

#[tokio::test]
async fn hello_says_who_was_ever_here_and_who_is() -> Result<()> {
    let room = Room::open().await?;
    let first = good(room.hello("ann").await?);
    assert_eq!(
        first,
        json!({
            "type": "ok", "re": 1, "user": "ann",
            "conversations": [{ "id": "public", "kind": "public", "title": "Public room", "invited": [],
                                "state": "member", "lastSeq": 0, "readSeq": 0 }],
            "users": [user("ann", true)],
        })
    );
    room.hello("bøb ~%/🎉").await?;
    room.hello("ann").await?;
    room.service.online.lock().unwrap().remove("ann");
    let room = room.reopen().await?;
    let hello = room.hello("bøb ~%/🎉").await?;
    assert_eq!(hello["users"], json!([user("ann", false), user("bøb ~%/🎉", true)]));
    room.close().await;
    Ok(())
}

#[tokio::test]
async fn presence_is_told_to_everybody() -> Result<()> {
    let room = Room::open().await?;
    room.service.online.lock().unwrap().insert("ann".to_owned());
    good(room.ask("ann", json!({ "re": 1, "op": "hello" })).await?);
    let online = json!({ "type": "presence", "user": "ann", "online": true });
    assert_eq!(room.service.push("*", "presence").await?, online);

    let gone = async |name| room.event("disconnect", &[("X-ASRS-User-Id", name)], "").await;
    assert_eq!(gone("ann").await?.body, "");
    let still = room.service.push("*", "presence").await?;
    assert_eq!(still, online, "another tab is there");
    room.service.online.lock().unwrap().remove("ann");
    gone("ann").await?;
    let offline = json!({ "type": "presence", "user": "ann", "online": false });
    assert_eq!(room.service.push("*", "presence").await?, offline);
    room.event("disconnect", &[], "").await?;
    assert!(room.service.left().is_empty());
    room.close().await;
    Ok(())
}

#[tokio::test]
async fn not_knowing_who_is_there_does_not_keep_anybody_out() -> Result<()> {
    let room = Room::open().await?;
    room.hello("ann").await?;
    room.service.fail("/users/ann", 500, 1);
    let hello = good(room.hello("bob").await?);
    assert_eq!(hello["users"], json!([user("ann", false), user("bob", true)]));
    room.close().await;
    Ok(())
}
