//! Who is there.

use anyhow::Result;
use hookwire_chat::Dialect;
use serde_json::{Value, json};

use crate::service::{Room, good, in_both_dialects};

in_both_dialects!(
    hello_says_who_was_ever_here_and_who_is,
    presence_is_told_to_everybody,
    not_knowing_who_is_there_does_not_keep_anybody_out
);

fn user(name: &str, online: bool) -> Value {
    json!({ "name": name, "online": online })
}

async fn hello_says_who_was_ever_here_and_who_is(dialect: Dialect) -> Result<()> {
    let room = Room::in_dialect(dialect).await?;
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

async fn presence_is_told_to_everybody(dialect: Dialect) -> Result<()> {
    let room = Room::in_dialect(dialect).await?;
    room.service.online.lock().unwrap().insert("ann".to_owned());
    good(room.ask("ann", json!({ "re": 1, "op": "hello" })).await?);
    let online = json!({ "type": "presence", "user": "ann", "online": true });
    assert_eq!(room.service.push("*", "presence").await?, online);

    assert_eq!(room.gone(Some("ann")).await?.body, "");
    let still = room.service.push("*", "presence").await?;
    assert_eq!(still, online, "another tab is there");
    room.service.online.lock().unwrap().remove("ann");
    room.gone(Some("ann")).await?;
    let offline = json!({ "type": "presence", "user": "ann", "online": false });
    assert_eq!(room.service.push("*", "presence").await?, offline);
    room.gone(None).await?;
    assert!(room.service.left().is_empty());
    room.close().await;
    Ok(())
}

async fn not_knowing_who_is_there_does_not_keep_anybody_out(dialect: Dialect) -> Result<()> {
    let room = Room::in_dialect(dialect).await?;
    room.hello("ann").await?;
    room.service.fail("/users/ann", 500, 1);
    let hello = good(room.hello("bob").await?);
    assert_eq!(hello["users"], json!([user("ann", false), user("bob", true)]));
    room.close().await;
    Ok(())
}
