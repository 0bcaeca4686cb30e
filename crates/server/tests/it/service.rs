//! What the service does for well-behaved clients, callers and upstreams.

use futures_util::SinkExt;
use hookwire_proto::signature::{AccessKey, verify};
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::node::{KEYS, next, start, token};
use crate::upstream::{Upstream, ok};

/// An upstream that lets everybody in under the name in the query, or refuses.
async fn usual() -> Upstream {
    Upstream::start(|request| match request.event() {
        "connect" => {
            let query = request.header("X-ASRS-Client-Query").unwrap_or_default();
            match query.split('&').find_map(|pair| pair.strip_prefix("name=")) {
                Some(name) => ok(&format!("X-ASRS-User-Id: {name}\r\nSec-WebSocket-Protocol: chat.v2\r\n"), ""),
                None if query.contains("tell=no") => {
                    Some("HTTP/1.1 403 No\r\nContent-Type: text/x-why\r\nContent-Length: 6\r\n\r\nbanned".to_owned())
                }
                None => ok("", ""),
            }
        }
        "message" if request.body == b"ask" => ok("Content-Type: text/plain\r\n", "answer"),
        _ => ok("", ""),
    })
    .await
}

#[tokio::test]
async fn events_carry_every_header_in_its_spelling() {
    let mut upstream = usual().await;
    let node = start(Some(upstream.address), |_| {}).await;
    let (mut client, chosen) =
        node.connect_offering("Chat", "?name=ann&x=%20y", "chat.v1, chat.v2").await.unwrap();
    assert_eq!(chosen.as_deref(), Some("chat.v2"));
    let connect = upstream.next().await;
    assert!(
        connect.head.starts_with("POST /chat/api/connect?c=connections HTTP/1.1\r\n"),
        "{}",
        connect.head
    );
    let id = connect.header("X-ASRS-Connection-Id").unwrap().to_owned();
    let signature = connect.header("X-ASRS-Signature").unwrap();
    assert_eq!(signature.matches("sha256=").count(), 2);
    let keys = KEYS.map(|key| AccessKey::parse(key).unwrap());
    assert!(verify(&keys[..1], &id, signature) && verify(&keys[1..], &id, signature));
    for (name, value) in [
        ("X-ASRS-Hub", "chat"),
        ("X-ASRS-Category", "connections"),
        ("X-ASRS-Event", "connect"),
        ("X-ASRS-User-Claims", ""),
        ("X-ASRS-Client-Query", "name=ann&x=%20y"),
        ("Sec-WebSocket-Protocol", "chat.v1, chat.v2"),
        ("X-Forwarded-For", "127.0.0.1"),
        ("Content-Length", "0"),
    ] {
        assert_eq!(connect.header(name), Some(value), "{name} in\n{}", connect.head);
    }
    assert!(connect.header("Date").is_some_and(|date| date.ends_with(" GMT")));
    assert!(connect.header("X-ASRS-User-Id").is_none(), "nobody knows the user before the answer");

    client.send(Message::text("hällo")).await.unwrap();
    let message = upstream.next().await;
    assert!(message.head.starts_with("POST /chat/api/message?c=messages HTTP/1.1\r\n"));
    assert_eq!(message.header("Content-Type"), Some("text/plain"));
    assert_eq!(
        (message.header("X-ASRS-User-Id"), message.body.as_slice()),
        (Some("ann"), "hällo".as_bytes())
    );
    assert_eq!(message.header("X-ASRS-Connection-Id"), Some(&*id));
    client.send(Message::binary(vec![0, 255])).await.unwrap();
    let message = upstream.next().await;
    assert_eq!(message.header("Content-Type"), Some("application/octet-stream"));
    assert_eq!(message.body, [0, 255]);
    client.send(Message::text("ask")).await.unwrap();
    assert_eq!(next(&mut client).await, Some(Message::text("answer")));
    assert_eq!(upstream.next().await.event(), "message");

    client.close(None).await.unwrap();
    let disconnect = upstream.next().await;
    assert!(disconnect.head.starts_with("POST /chat/api/disconnect?c=connections HTTP/1.1\r\n"));
    assert_eq!(disconnect.header("X-ASRS-Connection-Id"), Some(&*id));
    assert!(node.node.shutdown().await);
}

#[tokio::test]
async fn the_upstream_decides_who_comes_in() {
    let mut upstream = usual().await;
    let node = start(Some(upstream.address), |_| {}).await;
    for (query, status, body) in [("?tell=no", 403, "banned"), ("", 401, "neither")] {
        let Err(Error::Http(answer)) = node.connect("chat", query).await else {
            panic!("{query} must be refused")
        };
        assert_eq!(answer.status(), status);
        let text =
            String::from_utf8_lossy(answer.body().as_deref().unwrap_or_default()).into_owned();
        assert!(text.contains(body), "{text}");
        assert_eq!(upstream.next().await.event(), "connect");
    }
    // A token without the upstream's name is enough, and the token itself is not passed on.
    let mut client = node.connect_as("chat", "bob").await;
    let connect = upstream.next().await;
    assert_eq!(
        (connect.header("X-ASRS-User-Id"), connect.header("X-ASRS-Client-Query")),
        (Some("bob"), None)
    );
    assert!(connect.header("X-ASRS-User-Claims").unwrap().contains("sub: bob"));
    client.close(None).await.unwrap();
    assert_eq!(upstream.next().await.event(), "disconnect", "and none for those who were refused");
}

#[tokio::test]
async fn an_upstream_that_never_answers_gets_every_event_in_order() {
    let mut upstream = Upstream::start(|request| {
        if request.event() == "connect" { ok("X-ASRS-User-Id: u\r\n", "") } else { None }
    })
    .await;
    let node = start(Some(upstream.address), |_| {}).await;
    let mut client = node.connect("chat", "").await.unwrap();
    for at in 0..3 {
        client.send(Message::text(at.to_string())).await.unwrap();
    }
    client.close(None).await.unwrap();
    assert_eq!(upstream.next().await.event(), "connect");
    for at in 0..3 {
        assert_eq!(upstream.next().await.body, at.to_string().as_bytes());
    }
    assert_eq!(upstream.next().await.event(), "disconnect");
}

#[tokio::test]
async fn an_upstream_that_is_not_there_is_a_502() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let connect_time_max = std::time::Duration::from_millis(200);
    let node =
        start(Some(address), |config| config.upstream.connect_time_max = connect_time_max).await;
    let Err(Error::Http(answer)) = node.connect("chat", "").await else {
        panic!("it must be refused")
    };
    assert_eq!(answer.status(), 502);
}

#[tokio::test]
async fn sends_reach_exactly_whom_they_name() {
    let node = start(None, |_| {}).await;
    let mut clients = Vec::new();
    for user in ["ann", "bob", "cy", "ann"] {
        clients.push(node.connect_as("chat", user).await);
    }
    assert_eq!(node.rest("PUT", "chat/users/ann/groups/a%2Fb", b"").await, 200);
    assert_eq!(node.rest("PUT", "chat/groups/a%2Fb/users/cy/", b"").await, 200);
    for (path, body) in [
        ("chat/users/bob", "to bob"),
        ("chat/groups/a%2Fb", "to group"),
        ("other/", "to nobody"),
        ("chat/", "to all"),
    ] {
        assert_eq!(node.rest("POST", path, body.as_bytes()).await, 200);
    }
    for (client, first) in clients.iter_mut().zip(["to group", "to bob", "to group", "to group"]) {
        assert_eq!(next(client).await, Some(Message::text(first)));
        assert_eq!(next(client).await, Some(Message::text("to all")));
    }
    for (method, path, status) in [
        ("HEAD", "chat/users/ann", 200),
        ("HEAD", "chat/users/dora", 404),
        ("HEAD", "other/users/ann", 404),
        ("HEAD", "chat/groups/a%2Fb", 200),
        ("GET", "chat/groups/a%2Fb/users/ann", 200),
        ("GET", "chat/users/bob/groups/a%2Fb", 404),
        ("HEAD", "chat/connections/nope", 404),
        ("POST", "chat/connections/nope", 200),
        ("PUT", "chat/groups/g/connections/nope", 404),
        ("DELETE", "chat/groups/g/connections/nope", 200),
        ("DELETE", "chat/connections/nope?reason=x", 200),
        ("DELETE", "chat/users/ann/groups", 200),
        ("GET", "chat/groups/a%2Fb/users/ann", 404),
    ] {
        assert_eq!(node.rest(method, path, b"").await, status, "{method} {path}");
    }
    // Future connections are members; a membership ends with its ttl.
    assert_eq!(node.rest("PUT", "chat/users/dora/groups/later", b"").await, 200);
    assert_eq!(node.rest("PUT", "chat/users/dora/groups/brief?ttl=1", b"").await, 200);
    let mut dora = node.connect_as("chat", "dora").await;
    assert_eq!(node.rest("POST", "chat/groups/later", b"welcome").await, 200);
    assert_eq!(next(&mut dora).await, Some(Message::text("welcome")));
    while node.rest("HEAD", "chat/groups/brief", b"").await == 200 {
        tokio::task::yield_now().await;
    }
    assert_eq!(node.rest("HEAD", "chat/groups/later", b"").await, 200);
}

#[tokio::test]
async fn a_connection_can_be_addressed_and_closed_by_its_id() {
    let mut upstream = usual().await;
    let node = start(Some(upstream.address), |_| {}).await;
    let mut client = node.connect("chat", "?name=ann&format=binary").await.unwrap();
    let id = upstream.next().await.header("X-ASRS-Connection-Id").unwrap().to_owned();
    assert_eq!(node.rest("HEAD", &format!("chat/connections/{id}"), b"").await, 200);
    assert_eq!(node.rest("HEAD", &format!("other/connections/{id}"), b"").await, 404);
    assert_eq!(node.rest("PUT", &format!("chat/connections/{id}/groups/g"), b"").await, 200);
    assert_eq!(node.rest("POST", "chat/groups/g", b"hi").await, 200);
    assert_eq!(
        next(&mut client).await,
        Some(Message::binary(b"hi".to_vec())),
        "as the format says"
    );
    assert_eq!(node.rest("DELETE", &format!("chat/groups/g/connections/{id}"), b"").await, 200);
    assert_eq!(node.rest("HEAD", "chat/groups/g", b"").await, 404);
    assert_eq!(
        node.rest("DELETE", &format!("chat/connections/{id}?reason=enough%20now"), b"").await,
        200
    );
    assert_eq!(node.rest("HEAD", &format!("chat/connections/{id}"), b"").await, 404);
    let Some(Message::Close(Some(frame))) = next(&mut client).await else {
        panic!("a close frame is due")
    };
    assert_eq!((frame.code, frame.reason.as_str()), (CloseCode::Normal, "enough now"));
    assert_eq!(upstream.next().await.event(), "disconnect");
}

#[tokio::test]
async fn settings_are_kept_over_a_restart_and_bad_ones_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = "/manage/v1/ws/upstream";
    let authorization = format!("Authorization: Bearer {}\r\n", token(path, None));
    let good =
        r#"{"templates":[{"hubPattern":"chat","urlTemplate":"http://127.0.0.1:1/{event}"}]}"#;
    {
        let node = start(None, |config| config.data_dir = folder.path().to_owned()).await;
        let (status, answer) = node.raw("OPTIONS", path, "Origin: http://page\r\n", b"").await;
        assert_eq!(status, 204);
        let answer = answer.to_ascii_lowercase();
        assert!(answer.contains("access-control-allow-headers: authorization, content-type"));
        assert!(answer.contains("access-control-allow-origin: *"));
        assert_eq!(node.raw("GET", path, "", b"").await.0, 401);
        assert_eq!(node.raw("POST", path, &authorization, good.as_bytes()).await.0, 200);
        let bad = good.replace("http:", "ftp:");
        let (status, answer) = node.raw("POST", path, &authorization, bad.as_bytes()).await;
        assert_eq!(status, 400);
        assert!(answer.contains("templates[0].urlTemplate"), "{answer}");
        assert!(node.node.shutdown().await);
    }
    let node = start(None, |config| config.data_dir = folder.path().to_owned()).await;
    let (status, answer) = node.raw("GET", path, &authorization, b"").await;
    assert!(status == 200 && answer.ends_with(good), "{answer}");
}

#[tokio::test]
async fn shutdown_says_goodbye_to_clients_and_upstreams() {
    let mut upstream = usual().await;
    let node = start(Some(upstream.address), |_| {}).await;
    let mut client = node.connect("chat", "?name=ann").await.unwrap();
    assert_eq!(upstream.next().await.event(), "connect");
    let reader = tokio::spawn(async move { next(&mut client).await });
    assert!(node.node.shutdown().await);
    let Some(Message::Close(Some(frame))) = reader.await.unwrap() else {
        panic!("a close frame is due")
    };
    assert_eq!(frame.code, CloseCode::Away);
    assert_eq!(upstream.next().await.event(), "disconnect");
}

#[tokio::test]
async fn health_and_metrics_can_be_read() {
    let node = start(None, |_| {}).await;
    let _client = node.connect_as("chat", "ann").await;
    assert_eq!(node.raw("GET", "/api/v1/health", "", b"").await.0, 200);
    let (status, text) = node.raw("GET", "/metrics", "", b"").await;
    assert_eq!(status, 200);
    assert!(text.contains("hookwire_turn_seconds_count{shard=\"1\"}"), "{text}");
}
