//! The REST API beyond the usual: kinds of bodies, odd names, callers that race or leave.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

use crate::node::{TestNode, next, start, token};

#[tokio::test]
async fn the_type_of_a_body_decides_the_kind_of_message() {
    let node = start(None, |_| {}).await;
    let mut client = node.connect_as("chat", "ann").await;
    for (content_type, body, expected) in [
        ("text/plain", &b"a"[..], Message::text("a")),
        ("application/json", b"[1, {\"a\":2}]", Message::text("[1, {\"a\":2}]")),
        ("application/octet-stream", b"a", Message::binary("a")),
        ("Application/Octet-Stream; x=y", b"a", Message::binary("a")),
        ("", b"a", Message::text("a")),
        ("text/plain; charset=utf-8", "ä€😀".as_bytes(), Message::text("ä€😀")),
        ("text/plain", b"\xFF\x00", Message::binary(b"\xFF\x00".to_vec())),
        ("text/plain", b"", Message::text("")),
    ] {
        assert_eq!(node.rest_as("POST", "chat/users/ann", content_type, body).await, 200);
        assert_eq!(next(&mut client).await, Some(expected), "{content_type}");
    }
    let compressed = "text/plain\r\nContent-Encoding: gzip";
    assert_eq!(node.rest_as("POST", "chat/users/ann", compressed, b"x").await, 415);
}

#[tokio::test]
async fn odd_names_are_names_and_bad_ones_are_refused() {
    let node = start(None, |_| {}).await;
    let long = "g".repeat(1_024);
    for group in [
        "a%2Fb",
        "a%252Fb",
        "%00",
        "a%00b",
        "%E2%80%AEtxt",
        "%F0%9F%98%80",
        "..",
        "users",
        "%0D%0AX",
        "a%3Fb%23c",
        "a+b",
        "a%20b",
        &long,
    ] {
        let of_user = format!("chat/users/ann/groups/{group}");
        assert_eq!(node.rest("GET", &of_user, b"").await, 404, "{group} is nobody's yet");
        assert_eq!(node.rest("PUT", &of_user, b"").await, 200, "{group}");
        assert_eq!(node.rest("GET", &format!("chat/groups/{group}/users/ann/"), b"").await, 200);
        assert_eq!(node.rest("GET", &format!("other/groups/{group}/users/ann"), b"").await, 404);
        assert_eq!(node.rest("DELETE", &of_user, b"").await, 200);
        assert_eq!(node.rest("GET", &of_user, b"").await, 404);
    }
    let too_long = format!("chat/groups/{long}g");
    for (method, path, status) in [
        ("POST", &*too_long, 400),
        ("POST", "chat/groups/%20%09", 400),
        ("POST", "chat/groups/%C0%AF", 400),
        ("POST", "chat/users/%00", 400),
        ("POST", "chat/users/a%0D%0Ab", 400),
        ("POST", "9chat/", 400),
        ("POST", "ch-at/", 400),
        ("POST", "chat/users/", 404),
        ("POST", "chat//users/u", 404),
        ("POST", "chat/users/u//", 404),
        ("PUT", "chat/users/u/groups/g?ttl=", 400),
        ("PUT", "chat/users/u/groups/g?ttl=-1", 400),
        ("PUT", "chat/users/u/groups/g?ttl=1.5", 400),
        ("PUT", "chat/users/u/groups/g?ttl=%2B1", 400),
        ("PUT", "chat/users/u/groups/g?ttl=4294967296", 400),
        ("PUT", "chat/users/u/groups/g?ttl=4294967295&ttl=x", 200),
        ("GET", "chat/users/u/groups", 405),
        ("DELETE", "chat/groups/g", 405),
    ] {
        assert_eq!(node.rest(method, path, b"").await, status, "{method} {path}");
    }
    let reason = "r".repeat(124);
    assert_eq!(node.rest("DELETE", &format!("chat/connections/x?reason={reason}"), b"").await, 400);
}

#[tokio::test]
async fn a_token_opens_its_own_path_only() {
    let node = start(None, |_| {}).await;
    let path = "/ws/api/v1/hubs/chat/groups/a%20b/users/u";
    for (signed, status) in [
        (path, 200),
        ("/ws/api/v1/hubs/chat/groups/a b/users/u/", 200),
        ("/WS/api/v1/hubs/CHAT/groups/A%20b/users/u?ttl=5", 200),
        ("/ws/api/v1/hubs/chat/groups/a%2520b/users/u", 401),
        ("/ws/api/v1/hubs/chat/users/u/groups/a%20b", 401),
        ("/ws/api/v1/hubs/chat", 401),
        ("/ws/api/v1", 401),
        ("", 401),
    ] {
        let head = format!("Authorization: Bearer {}\r\n", token(signed, Some("anyone")));
        assert_eq!(node.raw("PUT", path, &head, b"").await.0, status, "{signed}");
    }
    // Only the header counts here: a query ends up in logs.
    let in_query = format!("{path}?access_token={}", token(path, None));
    assert_eq!(node.raw("PUT", &in_query, "", b"").await.0, 401);
}

/// Returns whether `u` lives in each group.
async fn lives_in(node: &TestNode, groups: usize) -> Vec<bool> {
    let mut answers = Vec::new();
    for group in 0..groups {
        answers.push(node.rest("GET", &format!("chat/users/u/groups/g{group}"), b"").await == 200);
    }
    answers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn racing_changes_leave_the_store_and_every_shard_of_one_mind() {
    let folder = tempfile::tempdir().unwrap();
    let begin = || start(None, |config| config.data_dir = folder.path().to_owned());
    let groups = 8;
    let node = std::sync::Arc::new(begin().await);
    let mut callers = tokio::task::JoinSet::new();
    for at in 0..96 {
        let node = node.clone();
        let method = if at % 2 == 0 { "PUT" } else { "DELETE" };
        let path = format!("chat/users/u/groups/g{}", at / 2 % groups);
        callers.spawn(async move { node.rest(method, &path, b"").await });
    }
    while let Some(status) = callers.join_next().await {
        assert_eq!(status.unwrap(), 200);
    }
    let before = lives_in(&node, groups).await;
    // Each shard must answer alike: a client lands on the least loaded, so two of them see both.
    let (mut one, mut two) =
        (node.connect_as("chat", "u").await, node.connect_as("chat", "u").await);
    for (group, lives) in before.iter().enumerate() {
        assert_eq!(node.rest("POST", &format!("chat/groups/g{group}"), b"member").await, 200);
        assert_eq!(node.rest("POST", "chat/", b"all").await, 200);
        for client in [&mut one, &mut two] {
            if *lives {
                assert_eq!(next(client).await, Some(Message::text("member")), "g{group}");
            }
            assert_eq!(next(client).await, Some(Message::text("all")), "g{group}");
        }
    }
    let node = std::sync::Arc::into_inner(node).unwrap();
    assert!(node.node.shutdown().await);
    assert_eq!(lives_in(&begin().await, groups).await, before, "as it was before the restart");
}

#[tokio::test]
async fn a_caller_that_leaves_has_its_change_made_all_the_same() {
    let node = start(None, |_| {}).await;
    let path = "/ws/api/v1/hubs/chat/users/u/groups/g";
    let head = format!("Host: x\r\nAuthorization: Bearer {}\r\n", token(path, None));
    let mut socket = TcpStream::connect(node.address).await.unwrap();
    socket.write_all(format!("PUT {path} HTTP/1.1\r\n{head}\r\n").as_bytes()).await.unwrap();
    drop(socket);
    while node.rest("GET", "chat/users/u/groups/g", b"").await != 200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn settings_hold_for_all_shards_and_their_faults_are_told_together() {
    let node = start(None, |_| {}).await;
    let path = "/manage/v1/ws/upstream";
    let head = format!("Authorization: Bearer {}\r\nOrigin: http://page\r\n", token(path, None));
    let bad = r#"{"templates":[{"urlTemplate":"ftp://h/"},{"hubPattern":"a,,b","urlTemplate":"http://{hub}/"}]}"#;
    let (status, answer) = node.raw("POST", path, &head, bad.as_bytes()).await;
    assert_eq!(status, 400);
    for place in ["templates[0].urlTemplate", "templates[1].hubPattern", "templates[1].urlTemplate"]
    {
        assert!(answer.contains(place), "{place} in {answer}");
    }
    for (method, path, head, body, status) in [
        ("POST", path, &*head, "{", 400),
        ("POST", path, &head, "{}", 400),
        ("POST", path, "", "{\"templates\":[]}", 401),
        ("PUT", path, &head, "{\"templates\":[]}", 405),
        ("POST", path, &head, &" ".repeat(1024 * 1024 + 1), 413),
        ("POST", "/manage/v1/ws/upstream/", &head, "{\"templates\":[]}", 200),
        ("OPTIONS", path, "", "", 204),
    ] {
        let (got, answer) = node.raw(method, path, head, body.as_bytes()).await;
        assert_eq!(got, status, "{method} {path}: {answer}");
        let readable = answer.to_ascii_lowercase().contains("access-control-allow-origin: *");
        assert!(readable, "a page may read why: {answer}");
    }
    // An upstream that is not there refuses everybody: the change is in force on each shard when it is answered.
    let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let template = format!(
        "{{\"templates\":[{{\"urlTemplate\":\"http://{}/\"}}]}}",
        gone.local_addr().unwrap()
    );
    drop(gone);
    let _held = [node.connect_as("chat", "a").await, node.connect_as("chat", "b").await];
    assert_eq!(node.raw("POST", path, &head, template.as_bytes()).await.0, 200);
    assert_eq!(node.raw("POST", path, &head, b"{\"templates\":[]}").await.0, 200);
    let _more = [node.connect_as("chat", "a").await, node.connect_as("chat", "b").await];
}
