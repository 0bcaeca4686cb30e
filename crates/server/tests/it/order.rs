//! What a client sends in one segment is done in its order, and no further than its upstream keeps up.

use futures_util::SinkExt;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::data_plane::read_json;
use crate::node::{Client, next, start};
use crate::upstream::{Upstream, ok};

/// Writes messages in one piece.
async fn write(client: &mut Client, messages: impl IntoIterator<Item = Message>) {
    for message in messages {
        client.feed(message).await.unwrap();
    }
    client.flush().await.unwrap();
}

#[tokio::test]
async fn a_send_reaches_who_leaves_after_it_and_not_who_joins_after_it() {
    let node = start(None, |config| config.shards = 1).await;
    let roles = json!({ "role": ["webpubsub.joinLeaveGroup", "webpubsub.sendToGroup"] });
    let (mut ann, _) = node.with_json(Some("ann"), &roles).await;
    let (mut witness, _) = node.with_json(Some("witness"), &roles).await;
    let text = |message: Value| Message::text(message.to_string());
    let membership = |kind: &str| text(json!({ "type": kind, "group": "g" }));
    let post = |data: &str| {
        text(json!({ "type": "sendToGroup", "group": "g", "dataType": "text", "data": data }))
    };
    for client in [&mut ann, &mut witness] {
        let join = json!({ "type": "joinGroup", "group": "g", "ackId": 1 });
        write(client, [text(join)]).await;
        assert_eq!(read_json(client).await["type"], "ack");
    }
    let together = [
        post("before"),
        membership("leaveGroup"),
        post("meanwhile"),
        membership("joinGroup"),
        post("after"),
        text(json!({ "type": "ping" })),
    ];
    for _ in 0..50 {
        write(&mut ann, together.clone()).await;
        assert_eq!(read_json(&mut ann).await["data"], "before");
        assert_eq!(read_json(&mut ann).await["data"], "after");
        assert_eq!(read_json(&mut ann).await["type"], "pong");
        for data in ["before", "meanwhile", "after"] {
            assert_eq!(read_json(&mut witness).await["data"], data);
        }
    }
}

#[tokio::test]
async fn what_a_reliable_client_gets_at_once_stands_in_its_order() {
    let node = start(None, |config| config.shards = 1).await;
    let roles = json!({ "role": ["webpubsub.joinLeaveGroup", "webpubsub.sendToGroup"] });
    let reliable = "json.reliable.webpubsub.azure.v1";
    let (mut ann, _) = node.speaking(reliable, Some("ann"), &roles).await;
    let text = |message: Value| Message::text(message.to_string());
    let post = |data: &str, ack_id: Option<u64>| {
        let mut post = json!({ "type": "sendToGroup", "group": "g", "dataType": "text" });
        post["data"] = data.into();
        if let Some(ack_id) = ack_id {
            post["ackId"] = ack_id.into();
        }
        text(post)
    };
    write(&mut ann, [text(json!({ "type": "joinGroup", "group": "g", "ackId": 1 }))]).await;
    assert_eq!(read_json(&mut ann).await["type"], "ack");
    for round in 0..50 {
        let ack_id = round + 2;
        let ping = text(json!({ "type": "ping" }));
        write(&mut ann, [post("one", None), post("two", Some(ack_id)), ping, post("three", None)])
            .await;
        for (at, data) in (1..).zip(["one", "two"]) {
            let message = read_json(&mut ann).await;
            assert_eq!(
                (&message["data"], &message["sequenceId"]),
                (&json!(data), &json!(3 * round + at))
            );
        }
        assert_eq!(read_json(&mut ann).await["ackId"], ack_id);
        assert_eq!(read_json(&mut ann).await["type"], "pong");
        assert_eq!(read_json(&mut ann).await["data"], "three");
    }
    // What breaks the rules ends it, after what came before.
    write(
        &mut ann,
        [post("last", None), text(json!({ "type": "nonsense" })), post("no more", None)],
    )
    .await;
    assert_eq!(read_json(&mut ann).await["data"], "last");
    assert_eq!(read_json(&mut ann).await["event"], "disconnected");
    assert!(matches!(next(&mut ann).await, Some(Message::Close(Some(_)))));
}

#[tokio::test]
async fn small_messages_wait_with_their_client_while_the_upstream_is_behind() {
    const MESSAGES: usize = 2_000;
    let mut upstream = Upstream::start(|request| match request.event() {
        "message" if request.body.is_empty() => None,
        _ => ok("", ""),
    })
    .await;
    let node = start(Some(upstream.address), |config| config.shards = 1).await;
    let mut client = node.connect_as("chat", "ann").await;
    assert_eq!(upstream.next().await.event(), "connect");
    // Nobody answers the first one, so that each waits for a moment.
    let small = (0..MESSAGES).map(|at| Message::text(format!("{at}")));
    write(&mut client, std::iter::once(Message::text("")).chain(small)).await;
    assert_eq!(upstream.next().await.body, b"");
    let (_, metrics) = node.raw("GET", "/metrics", "", b"").await;
    let waiting = metrics.lines().find(|line| line.starts_with("hookwire_waiting_event_bytes"));
    let waiting: u64 = waiting.unwrap().rsplit_once(' ').unwrap().1.parse().unwrap();
    assert!(waiting < 200 * 512, "{waiting} bytes wait");
    for at in 0..MESSAGES {
        assert_eq!(upstream.next().await.body, format!("{at}").into_bytes());
    }
}
