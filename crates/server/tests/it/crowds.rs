//! Crowds that mean no good: what they began is undone, memory stays bounded, and the others are served.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt, stream};
use hookwire_proto::handler::{
    EventHandler, EventPattern, HandlerAuth, HandlerUrl, HubSettings, HubsSettings, SystemEvents,
};
use hookwire_server::config::Config;
use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::node::{TestNode, metric, next, start, token};
use crate::upstream::{Upstream, ok, welcome};

/// How far a client goes before it resets its connection.
#[derive(Debug, Clone, Copy)]
enum Until {
    Accepted,
    HalfAHead,
    WholeHead,
    Upgraded,
}

const STAGES: [Until; 4] = [Until::Accepted, Until::HalfAHead, Until::WholeHead, Until::Upgraded];

/// The doors of both dialects.
const DOORS: [&str; 2] = ["/ws/client/hubs/chat", "/client/hubs/chat"];

/// Has every event of Web PubSub clients handled by `upstream` too.
fn handled_by(upstream: &Upstream) -> impl Fn(&mut Config) {
    let url = format!("http://{}/{{event}}", upstream.address);
    move |config| {
        let handler = EventHandler {
            url: HandlerUrl::parse(&url).unwrap(),
            user_events: EventPattern::any(),
            system_events: SystemEvents { connect: true, connected: true, disconnected: true },
            auth: HandlerAuth::None,
            timeout: None,
        };
        let defaults = HubSettings { handlers: vec![Arc::new(handler)], ..HubSettings::default() };
        config.hubs = HubsSettings { defaults: Arc::new(defaults), ..HubsSettings::default() };
    }
}

fn head(door: &str, user: &str) -> String {
    format!(
        "GET {door}?access_token={} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
        token(door, Some(user))
    )
}

/// Reads the answer to a handshake, and nothing behind it.
async fn read_upgrade(socket: &mut TcpStream) {
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(socket.read_u8().await.unwrap());
    }
    assert!(answer.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&answer));
}

/// Comes as far as `until`, then resets the connection.
async fn come_and_go(node: &TestNode, door: &str, until: Until) {
    let mut socket = TcpStream::connect(node.address).await.unwrap();
    let head = head(door, "passer-by");
    match until {
        Until::Accepted => {}
        Until::HalfAHead => socket.write_all(&head.as_bytes()[..100]).await.unwrap(),
        Until::WholeHead => socket.write_all(head.as_bytes()).await.unwrap(),
        Until::Upgraded => {
            socket.write_all(head.as_bytes()).await.unwrap();
            read_upgrade(&mut socket).await;
        }
    }
    socket.set_zero_linger().unwrap();
}

#[tokio::test]
async fn ten_thousand_clients_that_go_at_once_leave_nothing_behind() {
    const CLIENTS: usize = 10_000;
    const AT_ONCE: usize = 64;
    let mut upstream = Upstream::start(|request| match request.ce_event() {
        "validate" => welcome(),
        _ => ok("", ""),
    })
    .await;
    let node = start(Some(upstream.address), handled_by(&upstream)).await;
    let mut witness = node.connect_as("chat", "witness").await;

    stream::iter(0..CLIENTS)
        .for_each_concurrent(AT_ONCE, |index| {
            let (door, until) = (DOORS[index / STAGES.len() % 2], STAGES[index % STAGES.len()]);
            come_and_go(&node, door, until)
        })
        .await;

    witness.send(Message::text("still here")).await.unwrap();
    // Who was told to have come is told to have gone, once, except the witness.
    let (mut present, mut came, mut has_spoken) = (HashSet::new(), 0, false);
    loop {
        let settled = has_spoken && CLIENTS / STAGES.len() <= came && present.len() == 1;
        if settled && upstream.is_quiet() && metric(&node, "hookwire_connections{").await == 1 {
            break;
        }
        let request = upstream.next().await;
        let id = ["X-ASRS-Connection-Id", "ce-connectionid"];
        let id = id.iter().find_map(|name| request.header(name)).unwrap_or_default().to_owned();
        match (request.event(), request.ce_event()) {
            ("connect", _) | (_, "connect") => {
                came += 1;
                assert!(present.insert(id), "nobody comes twice");
            }
            ("disconnect", _) | (_, "disconnected") => {
                assert!(present.remove(&id), "nobody goes twice, or without coming");
            }
            ("message", _) => has_spoken = true,
            (_, "validate" | "connected") => {}
            other => panic!("nobody sends {other:?}"),
        }
    }
    assert_eq!(metric(&node, "hookwire_upstream_calls_in_flight").await, 0);
    assert_eq!(node.rest("POST", "chat/", b"all is well").await, 200);
    assert_eq!(next(&mut witness).await, Some(Message::text("all is well")));
}

/// Comes in by `door` and never reads again. Its segments and its window are small, so that the kernel keeps little for it.
async fn deaf(node: &TestNode, door: &str, user: &str) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    socket.set_tcp_mss(1_000).unwrap();
    socket.connect(&node.address.into()).unwrap();
    socket.set_nonblocking(true).unwrap();
    let mut socket = TcpStream::from_std(socket.into()).unwrap();
    socket.write_all(head(door, user).as_bytes()).await.unwrap();
    read_upgrade(&mut socket).await;
    socket
}

#[tokio::test]
async fn a_thousand_clients_that_do_not_read_cost_no_more_than_they_may() {
    const DEAF: usize = 1_000;
    const OUTBOX_BYTES_MAX: u64 = 256 * 1024;
    let node = start(None, |config| {
        config.limits.outbox_bytes_max = usize::try_from(OUTBOX_BYTES_MAX).unwrap();
    })
    .await;
    // Of one user each, so that the end of each can be asked for; half of them through either door.
    let deaf: Vec<TcpStream> = stream::iter(0..DEAF)
        .map(|index| deaf(&node, DOORS[index % 2], "deaf"))
        .buffered(32)
        .collect()
        .await;
    let mut witness = node.connect_as("chat", "witness").await;
    let body = Bytes::from(vec![b'x'; 16 * 1024]);
    let mut queued_max = 0;
    let mut sent = 0_u64;
    while node.rest("HEAD", "chat/users/deaf", b"").await == 200 {
        match node.rest("POST", "chat/", &body).await {
            200 => {
                let Some(Message::Text(text)) = next(&mut witness).await else {
                    panic!("the witness is served")
                };
                assert_eq!(text.len(), body.len());
                sent += 1;
            }
            // So much is queued between the threads that senders are asked to wait.
            429 => tokio::task::yield_now().await,
            other => panic!("{other}"),
        }
        queued_max = queued_max.max(metric(&node, "hookwire_queue_bytes{").await);
    }
    // What a socket takes of a frame that it cannot take whole still waits, beside a frame that made the queue too long.
    let each_max = OUTBOX_BYTES_MAX + 2 * body.len() as u64;
    assert!(
        queued_max <= DEAF as u64 * each_max,
        "{queued_max} bytes waited after {sent} messages"
    );
    assert_eq!(metric(&node, "hookwire_slow_consumers_total{").await, DEAF as u64);
    assert_eq!(node.rest("POST", "chat/users/witness/", b"all is well").await, 200);
    assert_eq!(next(&mut witness).await, Some(Message::text("all is well")));
    drop(deaf);
}
