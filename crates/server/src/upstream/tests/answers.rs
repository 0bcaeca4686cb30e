//! What upstreams answer.

use super::*;

#[tokio::test]
async fn an_answer_is_reported_with_all_that_the_hub_needs() {
    let (listener, url) = listen().await;
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    let upstream = async {
        let mut peer = Peer::accept(&listener).await;
        peer.request().await;
        peer.write(
            "HTTP/1.1 401 No\r\nX-ASRS-User-Id: Jürgen\r\nsec-websocket-protocol: chat.v1\r\n\
             Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        )
        .await;
    };
    let (reply, ()) = caller.while_upstream(&url, connect(), upstream).await;
    let Reply::Answered(answer) = reply else { panic!("{reply:?}") };
    assert_eq!((answer.status, &answer.body[..]), (401, &b"{}"[..]));
    assert_eq!(answer.subprotocols, ["chat.v1"]);
    assert_eq!(answer.user.as_deref(), Some("Jürgen"));
    assert_eq!(answer.content_type.as_deref(), Some("application/json"));
}

/// Has a connect event answered by `answer` and returns why it failed.
async fn refused_answer(answer: &[u8]) -> String {
    let (listener, url) = listen().await;
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    let upstream = async {
        let mut peer = Peer::accept(&listener).await;
        peer.request().await;
        // The caller may close before it has seen everything.
        let _ = peer.socket.write_all(answer).await;
        peer.closed().await;
    };
    let (reply, ()) = caller.while_upstream(&url, connect(), upstream).await;
    assert!(poll!(pin!(listener.accept())).is_pending(), "it is not repeated");
    reason(reply)
}

#[tokio::test]
async fn too_large_answers_fail_and_close() {
    let announced = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1024 * 1024 + 1);
    assert_eq!(refused_answer(announced.as_bytes()).await, "the answer exceeds 1048576 bytes");

    let mut chunk = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    chunk.extend_from_slice(b"100000\r\n");
    chunk.resize(chunk.len() + 1024 * 1024, b'a');
    chunk.extend_from_slice(b"\r\n1\r\na\r\n");
    assert_eq!(refused_answer(&chunk).await, "the answer exceeds 1048576 bytes");
}

#[tokio::test]
async fn the_largest_answers_are_taken() {
    for (event, bytes) in [(connect(), 1024 * 1024), (message("hello"), 16 * 1024 * 1024)] {
        let (listener, url) = listen().await;
        let mut caller = Caller::new(UpstreamLimits::default()).await;
        let upstream = async {
            let mut peer = Peer::accept(&listener).await;
            peer.request().await;
            peer.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n")).await;
            peer.write(vec![b'a'; bytes]).await;
        };
        caller.begin(&url, event);
        let mut received = 0;
        tokio::join!(upstream, async {
            // Meanwhile it may pass on a slow machine.
            while let Some(input) = caller.inputs.recv().await {
                if let Input::UpstreamReplied { reply: Reply::Answered(answer), .. } = input {
                    received = answer.body.len();
                    break;
                }
            }
        });
        assert_eq!(received, bytes);
    }
}

#[tokio::test]
async fn heads_without_end_fail_and_close() {
    let mut long = b"HTTP/1.1 200 OK\r\nX-Long: ".to_vec();
    long.resize(answer::HEAD_BYTES_MAX + 64 * 1024, b'a');
    assert!(refused_answer(&long).await.contains("too large"));

    let many = "HTTP/1.1 200 OK\r\n".to_owned() + &"X-Many: 1\r\n".repeat(answer::HEADERS_MAX + 1);
    assert!(refused_answer((many + "\r\n").as_bytes()).await.starts_with("the upstream broke off"));
}

#[tokio::test]
async fn malformed_answers_fail() {
    let answer = |line: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{line}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    for (answer, word) in [
        (answer("Content-Encoding: gzip", b"\x1f\x8b\x08"), "Content-Encoding"),
        (answer("Content-Type: text/plain", b"\xff"), "not UTF-8"),
        (answer("Content-Type: application/json", b"\"\xff\""), "not UTF-8"),
        (answer("X-ASRS-User-Id: a\r\nX-ASRS-User-Id: b", b""), "X-ASRS-User-Id"),
    ] {
        let (listener, url) = listen().await;
        let mut caller = Caller::new(UpstreamLimits::default()).await;
        let upstream = async {
            let mut peer = Peer::accept(&listener).await;
            peer.request().await;
            peer.write(&answer).await;
        };
        let (reply, ()) = caller.while_upstream(&url, connect(), upstream).await;
        let reason = reason(reply);
        assert!(reason.contains(word), "{reason}");
    }
}

#[tokio::test]
async fn an_upstream_that_speaks_no_tls_where_the_url_says_so_is_unreachable() {
    let (listener, url) = listen().await;
    let url = url.replace("http://", "https://");
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    let upstream = async {
        let mut peer = Peer::accept(&listener).await;
        assert_ne!(peer.socket.read_buf(&mut peer.buffer).await.unwrap(), 0);
        assert_eq!(peer.buffer[0], 22, "a TLS handshake record (RFC 8446, section 5.1)");
        peer.write("HTTP/1.1 400 Bad Request\r\n\r\n").await;
    };
    let (reply, ()) = caller.while_upstream(&url, Event::Disconnect, upstream).await;
    let reason = reason(reply);
    assert!(reason.starts_with("cannot reach the upstream: "), "{reason}");
}

#[tokio::test]
async fn redirects_and_server_errors_are_answers() {
    for status_line in ["302 Found", "500 Oops", "503 Busy"] {
        let (listener, url) = listen().await;
        let mut caller = Caller::new(UpstreamLimits::default()).await;
        let upstream = async {
            let mut peer = Peer::accept(&listener).await;
            peer.request().await;
            let there = listener.local_addr().unwrap();
            peer.write(format!(
                "HTTP/1.1 {status_line}\r\nLocation: http://{there}/\r\nContent-Length: 0\r\n\r\n"
            ))
            .await;
            peer
        };
        let (reply, _peer) = caller.while_upstream(&url, connect(), upstream).await;
        let code = status_line.split(' ').next().unwrap();
        assert_eq!(status(&reply), Some(code.parse().unwrap()));
        assert!(poll!(pin!(listener.accept())).is_pending(), "nothing follows {status_line}");
    }
}

#[tokio::test]
async fn refused_addresses_are_not_called_by_number_or_by_name() {
    let (listener, url) = listen().await;
    let refused = ["127.0.0.0/8", "::1"].map(|range| range.parse().unwrap()).to_vec();
    let mut caller = Caller::refusing(UpstreamLimits::default(), refused).await;
    let by_name = url.replace("127.0.0.1", "localhost");
    assert!(by_name.contains("localhost"));
    for url in [&url, &by_name] {
        let begin = Instant::now();
        caller.begin(url, message("hello"));
        assert_eq!(reason(caller.end().await.1), "addresses of this range are refused");
        assert!(begin.elapsed() < course::REPEAT_TIME_MAX, "it is not tried again");
    }
    assert!(poll!(pin!(listener.accept())).is_pending());
    for url in ["ftp://127.0.0.1/", "http://[fe80::1%25eth0]/", "nonsense", ""] {
        caller.begin(url, message("hello"));
        assert_eq!(reason(caller.end().await.1), "not a URL that can be called");
    }
}
