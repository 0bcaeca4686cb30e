//! Hostile clients and callers: the documented status or close code, and nobody else disturbed.

use futures_util::SinkExt;
use hookwire_proto::frame::{Header, Opcode, encode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::node::{TestNode, next, start, token};

/// A client that writes its own bytes after the handshake.
async fn rude(node: &TestNode) -> TcpStream {
    let token = token("/ws/client/hubs/chat", Some("rude"));
    let mut socket = TcpStream::connect(node.address).await.unwrap();
    let request = format!(
        "GET /ws/client/hubs/chat?access_token={token} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    socket
}

/// Reads until the node closes; returns the code of the close frame.
async fn close_code(mut socket: TcpStream) -> Option<u16> {
    let mut bytes = Vec::new();
    let _ = socket.read_to_end(&mut bytes).await;
    let at = bytes.iter().position(|byte| *byte == 0x88)?;
    Some(u16::from_be_bytes([*bytes.get(at + 2)?, *bytes.get(at + 3)?]))
}

#[tokio::test]
async fn broken_frames_end_with_the_documented_close_code() {
    let node = start(None, |config| config.limits.message_bytes_max = 1_000).await;
    let mut witness = node.connect_as("chat", "witness").await;
    let mask = Some([1, 2, 3, 4]);
    let mut large = Vec::new();
    Header { fin: true, compressed: false, opcode: Opcode::Binary, mask, payload_bytes: 1 << 40 }
        .put(&mut large);
    for (bytes, code) in [
        (vec![0xFF; 20], 1002),
        (encode(Opcode::Text, b"bare", None).to_vec(), 1002),
        (encode(Opcode::Continuation, b"x", mask).to_vec(), 1002),
        (encode(Opcode::Close, &[3], mask).to_vec(), 1002),
        (encode(Opcode::Close, &999_u16.to_be_bytes(), mask).to_vec(), 1002),
        (encode(Opcode::Text, &[0xC0, 0x80], mask).to_vec(), 1007),
        (encode(Opcode::Binary, &[0; 1_001], mask).to_vec(), 1009),
        (large, 1009),
        (encode(Opcode::Close, &4_000_u16.to_be_bytes(), mask).to_vec(), 4_000),
    ] {
        let mut socket = rude(&node).await;
        socket.write_all(&bytes).await.unwrap();
        assert_eq!(close_code(socket).await, Some(code), "{bytes:x?}");
    }
    witness.send(Message::Ping(Vec::new().into())).await.unwrap();
    assert_eq!(node.rest("POST", "chat/", b"still here").await, 200);
    assert_eq!(next(&mut witness).await, Some(Message::text("still here")));
}

#[tokio::test]
async fn messages_that_never_end_and_clients_that_fall_silent_are_closed() {
    let node = start(None, |config| {
        config.limits.incomplete_time_max = std::time::Duration::from_millis(100);
        config.limits.ping_interval = std::time::Duration::from_secs(1);
    })
    .await;
    let mut slow = rude(&node).await;
    slow.write_all(&[0x81, 0x85]).await.unwrap();
    assert_eq!(close_code(slow).await, Some(1008));
    assert_eq!(close_code(rude(&node).await).await, Some(1001), "no pong for two intervals");
}

#[tokio::test]
async fn who_waits_for_the_upstream_is_not_late_with_its_message() {
    // It takes connections and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let node = start(Some(silent.local_addr().unwrap()), |config| {
        config.templates.templates[0].event_pattern = Some("message".to_owned());
        config.limits.incomplete_time_max = std::time::Duration::from_millis(100);
        config.shards = 1;
    })
    .await;
    let mut patient = rude(&node).await;
    let message = encode(Opcode::Text, b"x", Some([0; 4]));
    // More than may wait for an upstream, and the begin of one more, in one piece.
    let mut begun = message.repeat(80);
    begun.extend_from_slice(&message[..3]);
    patient.write_all(&begun).await.unwrap();
    let mut late = rude(&node).await;
    late.write_all(&message[..3]).await.unwrap();
    assert_eq!(close_code(late).await, Some(1008));
    patient.write_all(&message[3..]).await.unwrap();
    patient.write_all(&encode(Opcode::Ping, b"", Some([0; 4]))).await.unwrap();
    assert_eq!(patient.read_u8().await.unwrap(), 0x8A, "a pong, not a close");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed_and_the_others_are_served() {
    let node = start(None, |config| {
        config.limits.outbox_bytes_max = 1024 * 1024;
        config.shards = 1;
    })
    .await;
    let _deaf = rude(&node).await;
    let mut witness = node.connect_as("chat", "witness").await;
    let body = vec![b'x'; 512 * 1024];
    // The kernel's buffers take some megabytes; then the outbox fills and the connection is closed.
    while node.rest("HEAD", "chat/users/rude", b"").await == 200 {
        assert_eq!(node.rest("POST", "chat/", &body).await, 200);
        assert!(
            matches!(next(&mut witness).await, Some(Message::Text(text)) if text.len() == body.len())
        );
    }
    let (_, metrics) = node.raw("GET", "/metrics", "", b"").await;
    assert!(metrics.contains("hookwire_slow_consumers_total{shard=\"0\"} 1\n"), "{metrics}");
}

#[tokio::test]
async fn handshakes_that_are_none_are_refused() {
    let node = start(None, |_| {}).await;
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (path, headers, status) in [
        ("/ws/client/hubs/chat", String::new(), 400),
        ("/ws/client/hubs/chat", format!("{upgrade}{key}Sec-WebSocket-Version: 8\r\n"), 426),
        ("/ws/client/hubs/chat", format!("{upgrade}Sec-WebSocket-Version: 13\r\n"), 400),
        ("/ws/client/hubs/9", format!("{upgrade}{key}Sec-WebSocket-Version: 13\r\n"), 400),
        (
            "/ws/client/hubs/chat/formats/xml",
            format!("{upgrade}{key}Sec-WebSocket-Version: 13\r\n"),
            400,
        ),
        ("/ws/client/hubs/chat", format!("{upgrade}{key}Sec-WebSocket-Version: 13\r\n"), 401),
        ("/ws/client/rooms/chat", String::new(), 404),
    ] {
        assert_eq!(node.raw("GET", path, &headers, b"").await.0, status, "{path} {headers}");
    }
    for token in
        ["", "x", "a.b.c", &token("/ws/client/hubs/other", Some("u")), &token("/other", None)]
    {
        let Err(Error::Http(answer)) =
            node.connect("chat", &format!("?access_token={token}")).await
        else {
            panic!("{token} must be refused")
        };
        assert_eq!(answer.status(), 401);
        let text =
            String::from_utf8_lossy(answer.body().as_deref().unwrap_or_default()).into_owned();
        assert!(token.len() < 4 || !text.contains(token), "a token is never repeated");
    }
}

#[tokio::test]
async fn tokens_of_other_algorithms_open_no_door() {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use jsonwebtoken::{Algorithm, EncodingKey, Header as TokenHeader};
    let node = start(None, |_| {}).await;
    let upgrade = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (method, path, headers, welcome) in [
        ("GET", "/ws/client/hubs/chat", upgrade, 101),
        ("GET", "/client/hubs/chat", upgrade, 101),
        ("POST", "/ws/api/v1/hubs/chat/", "", 200),
        ("POST", "/api/hubs/chat/:send", "Content-Type: text/plain\r\n", 202),
        ("GET", "/admin/v1/hubs", "", 200),
        ("GET", "/manage/v1/ws/upstream", "", 200),
    ] {
        let claims = serde_json::json!({ "sub": "ann", "aud": format!("http://localhost{path}"), "exp": 9_999_999_999_u64 });
        let secret = EncodingKey::from_secret(crate::node::KEYS[0].as_bytes());
        let signed = |algorithm| {
            jsonwebtoken::encode(&TokenHeader::new(algorithm), &claims, &secret).unwrap()
        };
        let unsigned = |algorithm: &str| {
            let header = serde_json::json!({ "alg": algorithm, "typ": "JWT" }).to_string();
            format!(
                "{}.{}.",
                URL_SAFE_NO_PAD.encode(header),
                URL_SAFE_NO_PAD.encode(claims.to_string())
            )
        };
        for (token, status) in [
            (unsigned("none"), 401),
            (unsigned("NONE"), 401),
            (unsigned("HS256"), 401),
            (unsigned("RS256"), 401),
            (signed(Algorithm::HS384), 401),
            (signed(Algorithm::HS512), 401),
            (signed(Algorithm::HS256), welcome),
        ] {
            let headers = format!("{headers}Authorization: Bearer {token}\r\n");
            let got = if status == 101 {
                // Nothing ends an open connection; its answer is enough.
                let mut socket = TcpStream::connect(node.address).await.unwrap();
                let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\n{headers}\r\n");
                socket.write_all(head.as_bytes()).await.unwrap();
                let mut line = [0; 12];
                socket.read_exact(&mut line).await.unwrap();
                String::from_utf8_lossy(&line[9..]).parse().unwrap()
            } else {
                node.raw(method, path, &headers, b"").await.0
            };
            assert_eq!(got, status, "{method} {path} {token}");
        }
    }
}

#[tokio::test]
async fn requests_that_are_too_large_too_odd_or_forged_are_refused() {
    let node = start(None, |config| config.limits.rest_body_bytes_max = 2_000).await;
    assert_eq!(node.rest("POST", "chat/", &[b'x'; 2_000]).await, 200);
    assert_eq!(node.rest("POST", "chat/", &[b'x'; 2_001]).await, 413);
    let path = "/ws/api/v1/hubs/chat/";
    assert_eq!(node.raw("POST", path, "", b"x").await.0, 401);
    let authorization =
        format!("Authorization: Bearer {}\r\n", token("/ws/api/v1/hubs/other/", None));
    assert_eq!(node.raw("POST", path, &authorization, b"x").await.0, 401);
    let head = format!("X: {}\r\n", "y".repeat(100_000));
    assert_eq!(node.raw("GET", "/api/v1/health", &head, b"").await.0, 431);
    let smuggled = b"POST /ws/api/v1/hubs/chat/ HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /api/v1/health HTTP/1.1\r\nHost: x\r\n\r\n";
    let (status, answer) = node.bytes(smuggled).await;
    assert!(status == 401 || status == 400, "{answer}");
    assert_eq!(answer.matches("healthy").count(), 0, "what follows is not taken for a request");
    assert_eq!(node.bytes(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n").await.0, 400);
}

#[tokio::test]
async fn a_head_that_trickles_is_cut_off() {
    let node = start(None, |config| {
        config.limits.handshake_time_max = std::time::Duration::from_millis(100);
    })
    .await;
    for head in [&b""[..], b"GET /api/v1/hea"] {
        let (_, answer) = node.bytes(head).await;
        assert!(!answer.contains("200 OK"), "{answer}");
    }
}

#[tokio::test]
async fn memory_for_unfinished_messages_comes_back_when_its_client_is_closed() {
    let node = start(None, |config| {
        config.limits.incomplete_bytes_max = 1_500;
        config.shards = 1;
    })
    .await;
    let mut greedy = rude(&node).await;
    greedy.write_all(&encode(Opcode::Text, &[b'x'; 4_000], Some([0; 4]))[..3_000]).await.unwrap();
    assert_eq!(greedy.read_u8().await.unwrap(), 0x88, "over the limit of the shard");
    // It does not hang up, so its socket lingers; another client's unfinished message is none the worse for it.
    let mut modest = rude(&node).await;
    let mut begun = Vec::new();
    let header = Header {
        fin: false,
        compressed: false,
        opcode: Opcode::Text,
        mask: Some([0; 4]),
        payload_bytes: 100,
    };
    header.put(&mut begun);
    begun.extend_from_slice(&[b'x'; 100]);
    begun.extend_from_slice(&encode(Opcode::Ping, b"", Some([0; 4])));
    modest.write_all(&begun).await.unwrap();
    assert_eq!(modest.read_u8().await.unwrap(), 0x8A, "a pong, not a close");
    assert_eq!(modest.read_u8().await.unwrap(), 0);
    modest.write_all(&encode(Opcode::Ping, b"", Some([0; 4]))).await.unwrap();
    assert_eq!(modest.read_u8().await.unwrap(), 0x8A, "nor after it");
    drop(greedy);
}

#[tokio::test]
async fn whoever_holds_most_of_unfinished_messages_makes_room() {
    let node = start(None, |config| {
        config.limits.incomplete_bytes_max = 1_500;
        config.shards = 1;
    })
    .await;
    let begin = |length: usize| {
        let mut bytes = Vec::new();
        let (opcode, mask, payload_bytes) = (Opcode::Text, Some([0; 4]), length as u64);
        Header { fin: false, compressed: false, opcode, mask, payload_bytes }.put(&mut bytes);
        bytes.extend_from_slice(&vec![b'x'; length]);
        bytes.extend_from_slice(&encode(Opcode::Ping, b"", mask));
        bytes
    };
    let mut greedy = rude(&node).await;
    greedy.write_all(&begin(1_000)).await.unwrap();
    assert_eq!(greedy.read_u16().await.unwrap(), 0x8A00, "a pong: there is room");
    let mut modest = rude(&node).await;
    modest.write_all(&begin(700)).await.unwrap();
    assert_eq!(modest.read_u16().await.unwrap(), 0x8A00, "a pong, not a close");
    assert_eq!(close_code(greedy).await, Some(1008));
}

#[tokio::test]
async fn one_connection_too_many_is_told_to_come_again() {
    let node = start(None, |config| config.limits.connections_max = 1).await;
    let mut first = node.connect_as("chat", "first").await;
    let second = format!("?access_token={}", token("/ws/client/hubs/chat", Some("second")));
    let Err(Error::Http(answer)) = node.connect("chat", &second).await else {
        panic!("it is one too many")
    };
    assert_eq!(answer.status(), 429);
    assert!(answer.headers().contains_key("retry-after"));
    first.close(None).await.unwrap();
    assert!(matches!(next(&mut first).await, Some(Message::Close(_)) | None));
    // The place is free once the node has forgotten the socket.
    while node.connect("chat", &second).await.is_err() {
        tokio::task::yield_now().await;
    }
}
