//! Shutdown with upstreams that do not play along.

use std::time::{Duration, Instant};

use futures_util::SinkExt;
use tokio_tungstenite::tungstenite::Message;

use crate::node::{DEADLINE, ask, start, until};
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

#[tokio::test]
async fn a_node_says_that_it_is_not_ready_before_it_stops_serving() {
    let notice = Duration::from_secs(2);
    let node = start(None, |config| config.limits.shutdown_notice = notice).await;
    let address = node.address;
    until("ready", async || ask(address, "GET", "/health/ready").await.0 == 200).await;
    let (status, answer) = ask(address, "GET", "/health/live").await;
    assert!(status == 200 && answer.ends_with("{\"status\":\"live\"}"), "{answer}");
    let (status, answer) = ask(address, "HEAD", "/health/ready").await;
    assert!(status == 200 && answer.ends_with("\r\n\r\n"), "{answer}");

    let begin = Instant::now();
    let stopping = tokio::spawn(node.node.shutdown());
    until("not ready", async || {
        let (status, answer) = ask(address, "GET", "/health/ready").await;
        status == 503 && answer.ends_with("{\"status\":\"shutting down\"}")
    })
    .await;
    assert_eq!(ask(address, "GET", "/health/live").await.0, 200);
    assert_eq!(ask(address, "GET", "/api/v1/health").await.0, 200, "it serves on");
    assert!(begin.elapsed() < notice, "the machine is too slow for this test");
    assert!(tokio::time::timeout(DEADLINE, stopping).await.unwrap().unwrap());
    assert!(notice <= begin.elapsed());
    assert!(tokio::net::TcpStream::connect(address).await.is_err(), "nobody listens any more");
}
