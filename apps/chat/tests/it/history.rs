//! Messages: stored once, numbered, pushed to those who may read them, found again.

use anyhow::Result;
use chrono::DateTime;
use serde_json::{Value, json};

use crate::service::{Room, ask_at, good, refused};

fn open(id: &str, before: Option<u64>, after: Option<u64>, limit: u64) -> Value {
    let mut frame = json!({ "re": 1, "op": "open", "conversation": id, "limit": limit });
    if let Some(seq) = before {
        frame["before"] = seq.into();
    }
    if let Some(seq) = after {
        frame["after"] = seq.into();
    }
    frame
}

fn numbers(page: &Value) -> Vec<u64> {
    page["messages"].as_array().unwrap().iter().map(|each| each["seq"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn a_public_message_reaches_everybody_and_is_kept() -> Result<()> {
    let room = Room::open().await?;
    room.hello("ann").await?;
    let frame = json!({ "re": 42, "op": "send", "conversation": "public", "key": "k1", "text": "häl\u{0}lo 🎉" });
    let answer = good(room.ask("ann", frame).await?);
    assert_eq!(answer["re"], 42);
    let message = &answer["message"];
    assert_eq!(
        (
            &message["conversation"],
            &message["seq"],
            &message["user"],
            &message["text"],
            &message["key"]
        ),
        (&json!("public"), &json!(1), &json!("ann"), &json!("häl\u{0}lo 🎉"), &json!("k1"))
    );
    let time = DateTime::parse_from_rfc3339(message["time"].as_str().unwrap())?;
    assert_eq!(time.offset().local_minus_utc(), 0);
    assert_eq!(room.service.push("*", "message").await?["message"], *message);

    let room = room.reopen().await?;
    let page = good(room.ask("ann", open("public", None, None, 50)).await?);
    assert_eq!((&page["messages"], &page["more"]), (&json!([message]), &json!(false)));
    room.close().await;
    Ok(())
}

#[tokio::test]
async fn history_is_paged_back_and_forth() -> Result<()> {
    let room = Room::open().await?;
    room.hello("ann").await?;
    let mut ids = std::collections::BTreeSet::new();
    for n in 1..=30 {
        let answer = good(room.send("ann", "public", &n.to_string()).await?);
        assert!(ids.insert(answer["message"]["id"].as_str().unwrap().to_owned()));
    }
    for (before, after, limit, expected, more) in [
        (None, None, 10, 21..31, true),
        (Some(21), None, 10, 11..21, true),
        (Some(11), None, 10, 1..11, false),
        (None, Some(0), 10, 1..11, true),
        (None, Some(20), 10, 21..31, false),
        (None, Some(30), 10, 1..1, false),
        (None, Some(9_007_199_254_740_991), 100, 1..1, false),
    ] {
        let page = good(room.ask("ann", open("public", before, after, limit)).await?);
        assert_eq!(numbers(&page), expected.collect::<Vec<_>>(), "{before:?} {after:?}");
        assert_eq!(page["more"], more);
    }
    room.close().await;
    Ok(())
}

#[tokio::test]
async fn the_same_key_is_stored_once_across_instances_and_restarts() -> Result<()> {
    let room = Room::open().await?;
    for user in ["ann", "bob"] {
        room.hello(user).await?;
    }
    let first = good(room.send("ann", "public", "k").await?);
    let (second, address) = room.another().await?;
    let frame =
        json!({ "re": 1, "op": "send", "conversation": "public", "key": "k", "text": "changed" });
    let again = good(ask_at(address, "ann", frame.clone()).await?);
    assert_eq!(again["message"], first["message"]);
    let others = good(ask_at(address, "bob", frame.clone()).await?);
    assert_eq!(others["message"]["seq"], 2);
    second.shutdown().await;
    let room = room.reopen().await?;
    assert_eq!(good(room.ask("ann", frame).await?)["message"], first["message"]);
    assert_eq!(numbers(&good(room.ask("bob", open("public", None, None, 50)).await?)), [1, 2]);
    room.close().await;
    Ok(())
}

#[tokio::test]
async fn instances_side_by_side_number_as_one() -> Result<()> {
    let room = Room::open().await?;
    for user in ["ann", "bob"] {
        room.hello(user).await?;
    }
    let (second, address) = room.another().await?;
    let sends = (0..40).map(|n| {
        let at = if n % 2 == 0 { room.address } else { address };
        let frame =
            json!({ "re": n, "op": "send", "conversation": "public", "key": n.to_string(), "text": "x" });
        ask_at(at, if n % 3 == 0 { "ann" } else { "bob" }, frame)
    });
    let answers = futures_util::future::try_join_all(sends).await?;
    let mut seqs: Vec<u64> = answers
        .into_iter()
        .map(|answer| good(answer)["message"]["seq"].as_u64().unwrap())
        .collect();
    seqs.sort_unstable();
    assert_eq!(seqs, (1..=40).collect::<Vec<_>>());
    let mut pushed = Vec::new();
    for _ in 0..40 {
        let push = room.service.push("*", "message").await?;
        pushed.push(push["message"]["seq"].as_u64().unwrap());
    }
    pushed.sort_unstable();
    assert_eq!(pushed, seqs, "each is pushed, by the instance that stored it");
    second.shutdown().await;
    room.close().await;
    Ok(())
}

#[tokio::test]
async fn pushes_of_a_conversation_keep_its_order() -> Result<()> {
    let room = Room::open().await?;
    room.hello("ann").await?;
    room.service.fail("/hubs/chat/", 503, 1);
    let room_now = &room;
    let sends = (0..50).map(async |n| room_now.send("ann", "public", &n.to_string()).await);
    futures_util::future::try_join_all(sends).await?;
    for seq in 1..=50 {
        assert_eq!(room.service.push("*", "message").await?["message"]["seq"], seq);
    }
    room.close().await;
    Ok(())
}

#[tokio::test]
async fn a_message_is_kept_even_if_nobody_can_be_reached() -> Result<()> {
    let room = Room::open().await?;
    room.hello("ann").await?;
    room.service.fail("/hubs/chat/", 500, 3);
    good(room.send("ann", "public", "lost push").await?);
    good(room.send("ann", "public", "next").await?);
    let push = room.service.push("*", "message").await?;
    assert_eq!(
        push["message"]["seq"], 2,
        "the first was dropped after its tries; the number shows it"
    );
    let page = good(room.ask("ann", open("public", None, Some(0), 50)).await?);
    assert_eq!(numbers(&page), [1, 2]);
    room.close().await;
    Ok(())
}

#[tokio::test]
async fn two_users_talk_to_each_other() -> Result<()> {
    let room = Room::open().await?;
    let (ann, bob) = ("ann ~%/🎉", "bøb");
    for user in [ann, bob, "carl"] {
        room.hello(user).await?;
    }
    let made = good(room.ask(ann, json!({ "re": 1, "op": "direct", "user": bob })).await?);
    let conversation = &made["conversation"];
    let id = conversation["id"].as_str().unwrap();
    assert_eq!(id, "direct~ann%20%7E%25%2F%F0%9F%8E%89~b%C3%B8b");
    assert_eq!(
        *conversation,
        json!({ "id": id, "kind": "direct", "title": bob, "members": [ann, bob], "invited": [], "state": "member",
                "lastSeq": 0, "readSeq": 0 })
    );
    let listed = |hello: &Value| -> Vec<Value> {
        let all = hello["conversations"].as_array().unwrap();
        all.iter().filter(|each| each["kind"] == "direct").cloned().collect()
    };
    assert_eq!(listed(&room.hello(bob).await?).len(), 0, "it appears at the first message");
    assert_eq!(listed(&room.hello(ann).await?).len(), 1);
    let from_bob = good(room.ask(bob, json!({ "re": 1, "op": "direct", "user": ann })).await?);
    assert_eq!(
        (&from_bob["conversation"]["id"], &from_bob["conversation"]["title"]),
        (&json!(id), &json!(ann))
    );

    let sent = good(room.send(ann, id, "1").await?);
    for user in [ann, bob] {
        let push = room.service.push(&format!("user {user}"), "message").await?;
        assert_eq!(push["message"], sent["message"]);
    }
    let seen = listed(&room.hello(bob).await?);
    assert_eq!(
        (&seen[0]["title"], &seen[0]["lastSeq"], &seen[0]["readSeq"]),
        (&json!(ann), &json!(1), &json!(0))
    );
    for (op, expected) in [("open", "forbidden"), ("read", "forbidden")] {
        let frame = json!({ "re": 1, "op": op, "conversation": id, "seq": 1 });
        refused(&room.ask("carl", frame).await?, expected);
    }
    refused(&room.send("carl", id, "2").await?, "forbidden");
    refused(&room.send(ann, "direct~ann%20%7E%25%2F%F0%9F%8E%89~nobody", "1").await?, "not_found");
    assert!(room.service.left().is_empty(), "{:?}", room.service.left());
    room.close().await;
    Ok(())
}

#[tokio::test]
async fn marks_move_forward_and_tell_the_other_tabs() -> Result<()> {
    let room = Room::open().await?;
    for user in ["ann", "bob"] {
        room.hello(user).await?;
    }
    for n in 1..=5 {
        good(room.send("bob", "public", &n.to_string()).await?);
    }
    let read_seq = async |room: &Room, user: &str| -> Result<Value> {
        let hello = room.hello(user).await?;
        Ok(hello["conversations"][0]["readSeq"].clone())
    };
    assert_eq!(read_seq(&room, "ann").await?, 0);
    assert_eq!(read_seq(&room, "bob").await?, 5, "one's own messages count as read");
    let read = |seq: u64| json!({ "re": 9, "op": "read", "conversation": "public", "seq": seq });
    assert_eq!(good(room.ask("ann", read(3)).await?), json!({ "type": "ok", "re": 9 }));
    let push = room.service.push("user ann", "read").await?;
    assert_eq!(push, json!({ "type": "read", "conversation": "public", "seq": 3 }));
    good(room.ask("ann", read(2)).await?);
    assert_eq!(read_seq(&room, "ann").await?, 3);
    good(room.ask("ann", read(1_000_000)).await?);
    assert_eq!(read_seq(&room, "ann").await?, 5, "not beyond what was said");
    let room = room.reopen().await?;
    assert_eq!(read_seq(&room, "ann").await?, 5);
    assert_eq!(read_seq(&room, "bob").await?, 5);
    let hello = room.hello("newcomer").await?;
    assert_eq!(hello["conversations"][0]["readSeq"], 5, "nothing is unread for somebody new");
    room.close().await;
    Ok(())
}

/// Also when the own message is so old that the newest messages do not show it.
#[tokio::test]
async fn an_old_message_of_ones_own_counts_as_read() -> Result<()> {
    let room = Room::open().await?;
    for user in ["ann", "bob"] {
        room.hello(user).await?;
    }
    good(room.send("ann", "public", "1").await?);
    good(room.send("bob", "public", "2").await?);
    let now = &room;
    let sends = (3..=250).map(async |n| now.send("ann", "public", &n.to_string()).await);
    for answer in futures_util::future::try_join_all(sends).await? {
        good(answer);
    }
    let room = room.reopen().await?;
    let hello = room.hello("bob").await?;
    assert_eq!(
        (&hello["conversations"][0]["lastSeq"], &hello["conversations"][0]["readSeq"]),
        (&json!(250), &json!(2))
    );
    room.close().await;
    Ok(())
}
