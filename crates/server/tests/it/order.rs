//! What a client sends in one segment is done in its order, and no further than its upstream keeps up.

use futures_util::SinkExt;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::data_plane::read_json;
use crate::node::{Client, start};
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
