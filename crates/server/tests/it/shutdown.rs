//! Shutdown with upstreams that do not play along.

use futures_util::SinkExt;
use tokio_tungstenite::tungstenite::Message;

use crate::node::start;
use crate::upstream::{Upstream, ok};

#[tokio::test]
async fn an_upstream_that_never_answers_does_not_hold_shutdown_up() {
    let mut upstream = Upstream::start(|request| match request.event() {
        "connect" => ok("X-ASRS-User-Id: u\r\n", ""),
        _ => None,
    })
    .await;
    let node = start(Some(upstream.address), |_| {}).await;
    let mut client = node.connect("chat", "").await.unwrap();
    assert_eq!(upstream.next().await.event(), "connect");
    client.send(Message::text("hello")).await.unwrap();
    assert_eq!(upstream.next().await.event(), "message");
    assert!(node.node.shutdown().await, "nobody waits for the answers");
    assert_eq!(upstream.next().await.event(), "disconnect", "but every event was posted");
}
