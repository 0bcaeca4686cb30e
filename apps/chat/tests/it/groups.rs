//! Groups: made, joined by invitation, left, and what everybody is told.

use anyhow::Result;
use hookwire_chat::Dialect;
use serde_json::{Value, json};

use crate::service::{Room, good, in_both_dialects, refused};

in_both_dialects!(
    a_group_is_joined_by_invitation,
    members_invite_others,
    who_leaves_gets_no_more_and_may_be_invited_again,
    leaving_that_was_cut_half_way_can_be_repeated,
    a_service_that_forgot_the_members_is_told_again,
    a_group_that_the_service_does_not_take_is_not_made
);

async fn create(room: &Room, user: &str, members: &[&str]) -> Result<String> {
    let frame = json!({ "re": 1, "op": "create", "title": " Tea ", "members": members });
    let answer = good(room.ask(user, frame).await?);
    Ok(answer["conversation"]["id"].as_str().unwrap().to_owned())
}

fn on(op: &str, id: &str) -> Value {
    json!({ "re": 1, "op": op, "conversation": id, "key": "k", "text": "t", "seq": 1 })
}

async fn room_of(dialect: Dialect, users: &[&str]) -> Result<Room> {
    let room = Room::in_dialect(dialect).await?;
    for user in users {
        room.hello(user).await?;
    }
    Ok(room)
}

async fn a_group_is_joined_by_invitation(dialect: Dialect) -> Result<()> {
    let room = room_of(dialect, &["ann", "bob", "carl"]).await?;
    let id = create(&room, "ann", &["bob", "ann", "bob"]).await?;
    assert!(id.starts_with("group~") && id.len() == 38, "{id}");
    assert_eq!(room.service.members_of(&id), ["ann"]);
    let expected = |state: &str| {
        json!({ "id": id, "kind": "group", "title": "Tea", "members": ["ann"], "invited": ["bob"], "state": state,
                "lastSeq": 0, "readSeq": 0 })
    };
    let push = room.service.push("user ann", "conversation").await?;
    assert_eq!(push["conversation"], expected("member"));
    let push = room.service.push("user bob", "conversation").await?;
    assert_eq!(push["conversation"], expected("invited"));
    let hello = room.hello("bob").await?;
    assert_eq!(hello["conversations"][1], expected("invited"));
    assert_eq!(room.service.members_of(&id), ["ann"], "an invitation is no membership");

    good(room.send("ann", &id, "1").await?);
    let push = room.service.push(&format!("group {id}"), "message").await?;
    assert_eq!(push["message"]["seq"], 1);
    for op in ["open", "send", "read"] {
        refused(&room.ask("bob", on(op, &id)).await?, "forbidden");
        refused(&room.ask("carl", on(op, &id)).await?, "forbidden");
    }
    refused(&room.ask("carl", on("join", &id)).await?, "forbidden");

    let joined = good(room.ask("bob", on("join", &id)).await?);
    let conversation = &joined["conversation"];
    assert_eq!(
        (&conversation["members"], &conversation["invited"]),
        (&json!(["ann", "bob"]), &json!([]))
    );
    assert_eq!(conversation["readSeq"], 1, "what was said before is not unread");
    assert_eq!(room.service.members_of(&id), ["ann", "bob"]);
    for user in ["ann", "bob"] {
        let push = room.service.push(&format!("user {user}"), "conversation").await?;
        assert_eq!(push["conversation"]["members"], json!(["ann", "bob"]));
    }
    good(room.ask("bob", on("join", &id)).await?);
    let page = good(room.ask("bob", on("open", &id)).await?);
    assert_eq!(page["messages"][0]["text"], "ann says 1");
    good(room.send("bob", &id, "1").await?);
    room.close().await;
    Ok(())
}

async fn members_invite_others(dialect: Dialect) -> Result<()> {
    let room = room_of(dialect, &["ann", "bob", "carl"]).await?;
    let id = create(&room, "ann", &[]).await?;
    room.service.push("user ann", "conversation").await?;
    let invite = |user: &str| json!({ "re": 1, "op": "invite", "conversation": id, "user": user });
    refused(&room.ask("bob", invite("carl")).await?, "forbidden");
    refused(&room.ask("ann", invite("nobody")).await?, "not_found");
    refused(&room.ask("ann", invite("")).await?, "invalid");
    let answer = good(room.ask("ann", invite(" bob ")).await?);
    assert_eq!(answer["conversation"]["invited"], json!(["bob"]));
    assert_eq!(answer["conversation"]["state"], "member");
    for (user, state) in [("ann", "member"), ("bob", "invited")] {
        let push = room.service.push(&format!("user {user}"), "conversation").await?;
        assert_eq!(push["conversation"]["state"], state);
    }
    good(room.ask("ann", invite("bob")).await?);
    refused(&room.ask("bob", invite("carl")).await?, "forbidden");
    room.close().await;
    Ok(())
}

async fn who_leaves_gets_no_more_and_may_be_invited_again(dialect: Dialect) -> Result<()> {
    let room = room_of(dialect, &["ann", "bob"]).await?;
    let id = create(&room, "ann", &["bob"]).await?;
    good(room.ask("bob", on("join", &id)).await?);
    for user in ["ann", "bob"] {
        for _ in 0..2 {
            room.service.push(&format!("user {user}"), "conversation").await?;
        }
    }
    assert_eq!(good(room.ask("bob", on("leave", &id)).await?), json!({ "type": "ok", "re": 1 }));
    assert_eq!(room.service.members_of(&id), ["ann"]);
    let left = room.service.push("user bob", "left").await?;
    assert_eq!(left, json!({ "type": "left", "conversation": id }));
    let push = room.service.push("user ann", "conversation").await?;
    assert_eq!(push["conversation"]["members"], json!(["ann"]));
    assert!(room.service.left().is_empty(), "{:?}", room.service.left());
    assert_eq!(room.hello("bob").await?["conversations"].as_array().unwrap().len(), 1);
    for op in ["open", "send", "read", "join", "leave"] {
        refused(&room.ask("bob", on(op, &id)).await?, "forbidden");
    }

    let invite = json!({ "re": 1, "op": "invite", "conversation": id, "user": "bob" });
    good(room.ask("ann", invite.clone()).await?);
    good(room.ask("bob", on("leave", &id)).await?); // Declines.
    refused(&room.ask("bob", on("join", &id)).await?, "forbidden");
    good(room.ask("ann", invite).await?);
    good(room.ask("bob", on("join", &id)).await?);
    assert_eq!(room.service.members_of(&id), ["ann", "bob"]);
    room.close().await;
    Ok(())
}

async fn leaving_that_was_cut_half_way_can_be_repeated(dialect: Dialect) -> Result<()> {
    let room = room_of(dialect, &["ann", "bob"]).await?;
    let id = create(&room, "ann", &["bob"]).await?;
    good(room.ask("bob", on("join", &id)).await?);
    let call = match dialect {
        Dialect::Preview => format!("{id}/users/bob"),
        Dialect::WebPubSub => format!("users/bob/groups/{id}"),
    };
    room.service.fail(&call, 503, 3);
    refused(&room.ask("bob", on("leave", &id)).await?, "unavailable");
    assert_eq!(room.service.members_of(&id), ["ann", "bob"], "the service was not told");
    good(room.ask("bob", on("leave", &id)).await?);
    assert_eq!(room.service.members_of(&id), ["ann"]);
    refused(&room.ask("bob", on("leave", &id)).await?, "forbidden");
    room.close().await;
    Ok(())
}

async fn a_service_that_forgot_the_members_is_told_again(dialect: Dialect) -> Result<()> {
    let room = room_of(dialect, &["ann", "bob"]).await?;
    let id = create(&room, "ann", &["bob"]).await?;
    room.service.members.lock().unwrap().clear();
    room.hello("bob").await?;
    assert!(room.service.members_of(&id).is_empty());
    room.hello("ann").await?;
    assert_eq!(room.service.members_of(&id), ["ann"]);
    room.close().await;
    Ok(())
}

async fn a_group_that_the_service_does_not_take_is_not_made(dialect: Dialect) -> Result<()> {
    let room = room_of(dialect, &["ann", "bob"]).await?;
    room.service.fail("/groups/", 500, 3);
    let frame = json!({ "re": 1, "op": "create", "title": "Tea", "members": ["bob"] });
    refused(&room.ask("ann", frame).await?, "unavailable");
    for user in ["ann", "bob"] {
        assert_eq!(room.hello(user).await?["conversations"].as_array().unwrap().len(), 1);
    }
    room.close().await;
    Ok(())
}
