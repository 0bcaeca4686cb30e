//! TLS: REST, both doors, and clients that break it or leave in the middle of it.

pub(crate) mod authority;
mod client_certificates;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hookwire_proto::envelope::encode_message;
use hookwire_proto::frame::{Opcode, encode};
use hookwire_proto::message::MessageKind;
use hookwire_server::config::Config;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use self::authority::{Authority, files, speaks_tls};
use self::wire::{Dribble, End, Raw};
use crate::data_plane::sign;
use crate::node::{TestNode, start, token};
use crate::upstream::{Upstream, ok};

/// Larger than any message of these tests.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;

impl TestNode {
    fn secure_address(&self) -> std::net::SocketAddr {
        self.node.addresses()[1]
    }

    /// Opens a TLS stream for `localhost`.
    pub(crate) async fn secure(
        &self,
        config: ClientConfig,
    ) -> std::io::Result<TlsStream<TcpStream>> {
        let socket = TcpStream::connect(self.secure_address()).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, socket).await
    }

    /// Sends one HTTP request over TLS; returns the status and the whole answer.
    pub(crate) async fn raw_secure(
        &self,
        config: ClientConfig,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
    ) -> (u16, String) {
        let mut stream = self.secure(config).await.unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}Content-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(body).await.unwrap();
        stream.flush().await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.expect("the answer ends by close_notify");
        let answer = String::from_utf8(answer).unwrap();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        (status.unwrap_or(0), answer)
    }
}

/// Makes a WebSocket of a stream.
async fn websocket<S: AsyncRead + AsyncWrite + Unpin>(
    stream: S,
    path_and_query: &str,
) -> WebSocketStream<S> {
    let request = format!("ws://localhost{path_and_query}").into_client_request().unwrap();
    let config = WebSocketConfig::default()
        .max_message_size(Some(MESSAGE_BYTES_MAX))
        .max_frame_size(Some(MESSAGE_BYTES_MAX));
    client_async_with_config(request, stream, Some(config)).await.unwrap().0
}

/// Returns the paths of both doors, with tokens.
fn doors() -> [String; 2] {
    let preview = token("/ws/client/hubs/chat", Some("ann"));
    let web_pubsub = sign("http://localhost/client/hubs/chat", Some("ann"), &json!({}));
    [
        format!("/ws/client/hubs/chat?access_token={preview}"),
        format!("/client/hubs/chat?access_token={web_pubsub}"),
    ]
}

fn echoes(config: &mut Config, authority: &Authority) {
    speaks_tls(config, authority);
    config.echo = true;
    config.limits.message_bytes_max = MESSAGE_BYTES_MAX;
    config.limits.slow_bytes_max = MESSAGE_BYTES_MAX;
}

/// Returns a message of `bytes` bytes that repeats nothing.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1_u32;
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(next).take(bytes).collect()
}

/// The request of a client that does its handshake by hand.
fn upgrade_request() -> Vec<u8> {
    let token = token("/ws/client/hubs/chat", Some("rude"));
    format!(
        "GET /ws/client/hubs/chat?access_token={token} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    .into_bytes()
}

/// Connects a client that sends its own records.
async fn rude(node: &TestNode, config: ClientConfig) -> Raw {
    let mut raw = Raw::connect(node.secure_address(), config).await;
    let request = raw.record(&upgrade_request());
    raw.send(&request).await;
    let head = raw.until(|bytes| bytes.ends_with(b"\r\n\r\n")).await;
    assert!(head.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&head));
    raw
}

async fn disconnects() -> Upstream {
    Upstream::start(|request| match request.event() {
        "connect" => ok("X-ASRS-User-Id: u\r\n", ""),
        _ => ok("", ""),
    })
    .await
}

#[tokio::test]
async fn rest_is_served_by_both_versions_and_nothing_but_http_1_is_agreed() {
    let authority = Authority::new();
    let node = start(None, |config| speaks_tls(config, &authority)).await;
    assert!(node.node.connection_string().reveal().starts_with("Endpoint=https://127.0.0.1;"));
    for version in [&TLS12, &TLS13] {
        let config = authority.client(&[version]);
        let stream = node.secure(config.clone()).await.unwrap();
        let (_, session) = stream.get_ref();
        assert_eq!(session.alpn_protocol(), Some(&b"http/1.1"[..]));
        assert_eq!(session.protocol_version(), Some(version.version));
        drop(stream);
        let health = node.raw_secure(config.clone(), "GET", "/api/v1/health", "", b"").await;
        assert_eq!(health.0, 200, "{}", health.1);
        let path = "/ws/api/v1/hubs/chat/";
        let header = format!("Authorization: Bearer {}\r\n", token(path, None));
        let body = vec![b'x'; 300_000];
        assert_eq!(node.raw_secure(config.clone(), "POST", path, &header, &body).await.0, 200);
        assert_eq!(node.raw_secure(config, "POST", path, "", &body).await.0, 401);
    }
    let (_, metrics) = node.raw("GET", "/metrics", "", b"").await;
    assert!(metrics.contains("hookwire_tls_handshakes_total{result=\"done\"}"), "{metrics}");
}

#[tokio::test]
async fn large_messages_go_both_ways_through_both_doors() {
    let authority = Authority::new();
    let node = start(None, |config| echoes(config, &authority)).await;
    for version in [&TLS12, &TLS13] {
        for door in doors() {
            let stream = node.secure(authority.client(&[version])).await.unwrap();
            let mut client = websocket(stream, &door).await;
            for bytes in [0, 1, 16_384, 70_000, 3_000_000] {
                let sent = Message::binary(noise(bytes));
                client.send(sent.clone()).await.unwrap();
                let back = client.next().await.unwrap().unwrap();
                assert!(back == sent, "{bytes} bytes by {door}: {} came back", back.len());
            }
            client.close(None).await.unwrap();
            assert!(matches!(client.next().await, Some(Ok(Message::Close(_)))));
            assert!(client.next().await.is_none(), "the end is announced by TLS too");
        }
    }
}

#[tokio::test]
async fn records_in_pieces_are_put_together() {
    let authority = Authority::new();
    let node = start(None, |config| echoes(config, &authority)).await;
    for few in [1, 7, 1_000] {
        let socket = TcpStream::connect(node.secure_address()).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        let connector = TlsConnector::from(Arc::new(authority.client(&[&TLS13])));
        let stream = connector.connect(name, Dribble(socket, few)).await.unwrap();
        let mut client = websocket(stream, &doors()[0]).await;
        for bytes in [3, 20_000] {
            let sent = Message::binary(noise(bytes));
            client.send(sent.clone()).await.unwrap();
            assert!(client.next().await.unwrap().unwrap() == sent, "{bytes} bytes by {few}");
        }
    }
}

#[tokio::test]
async fn keys_are_changed_when_the_client_asks() {
    let authority = Authority::new();
    let node = start(None, |config| echoes(config, &authority)).await;
    let mut raw = rude(&node, authority.client(&[&TLS13])).await;
    let echoed = encode(Opcode::Text, b"again", None);
    for _ in 0..3 {
        raw.session.refresh_traffic_keys().unwrap();
        let records = raw.record(&encode(Opcode::Text, b"again", Some([1, 2, 3, 4])));
        raw.send(&records).await;
        assert_eq!(raw.until(|bytes| bytes.len() == echoed.len()).await, echoed);
    }
}

#[tokio::test]
async fn what_comes_with_the_request_reaches_the_shard_in_its_order() {
    let authority = Authority::new();
    let node = start(None, |config| echoes(config, &authority)).await;
    let mut raw = Raw::connect(node.secure_address(), authority.client(&[&TLS13])).await;
    let frame = |text: &str| encode(Opcode::Text, text.as_bytes(), Some([1, 2, 3, 4])).to_vec();
    // One frame in the record of the request, three in records of their own, the last of which is cut: it reaches the node as
    // plaintext that hyper has, plaintext that rustls has, and half a record.
    let mut first = upgrade_request();
    first.extend_from_slice(&frame("one"));
    let mut records = raw.record(&first);
    records.extend_from_slice(&raw.record(&frame("two")));
    records.extend_from_slice(&raw.record(&frame("three")));
    let last = raw.record(&frame("four"));
    let (start_of_last, rest) = last.split_at(last.len() / 2);
    records.extend_from_slice(start_of_last);
    raw.send(&records).await;
    let echoed = |texts: &[&str]| -> Vec<u8> {
        texts.iter().flat_map(|text| encode(Opcode::Text, text.as_bytes(), None).to_vec()).collect()
    };
    let three = echoed(&["one", "two", "three"]);
    let head = raw.until(|bytes| bytes.ends_with(&three)).await;
    assert!(head.starts_with(b"HTTP/1.1 101"));
    raw.send(rest).await;
    let four = echoed(&["four"]);
    assert_eq!(raw.until(|bytes| bytes.len() == four.len()).await, four);
}

#[tokio::test]
async fn however_a_client_leaves_its_upstream_hears_it_once() {
    let authority = Authority::new();
    let mut upstream = disconnects().await;
    let node = start(Some(upstream.address), |config| speaks_tls(config, &authority)).await;
    let leave: [(&str, End); 5] = [
        ("reset", End::Cut),
        ("half a record", End::Cut),
        ("close_notify", End::Clean),
        ("a forged record", End::Alert),
        ("no record at all", End::Alert),
    ];
    for (how, expected) in leave {
        let mut raw = rude(&node, authority.client(&[&TLS13])).await;
        assert_eq!(upstream.next().await.event(), "connect", "{how}");
        let end = match how {
            "reset" => {
                drop(raw);
                End::Cut
            }
            "half a record" => {
                let record = raw.record(&encode(Opcode::Text, b"never read", Some([0; 4])));
                raw.send(&record[..record.len() - 1]).await;
                raw.socket.shutdown().await.unwrap();
                let (rest, end) = raw.rest().await;
                assert_eq!(rest, b"");
                // The node has nothing to complain about: it says goodbye.
                if end == End::Clean { End::Cut } else { end }
            }
            "close_notify" => {
                raw.session.send_close_notify();
                let goodbye = raw.records();
                raw.send(&goodbye).await;
                raw.rest().await.1
            }
            "a forged record" => {
                let mut record = raw.record(&encode(Opcode::Text, b"forged", Some([0; 4])));
                let last = record.len() - 1;
                record[last] ^= 1;
                raw.send(&record).await;
                raw.rest().await.1
            }
            _ => {
                raw.send(b"GET / HTTP/1.1\r\n\r\n").await;
                raw.rest().await.1
            }
        };
        assert_eq!(end, expected, "{how}");
        assert_eq!(upstream.next().await.event(), "disconnect", "{how}");
    }
    assert!(upstream.is_quiet());
}

#[tokio::test]
async fn broken_frames_are_answered_and_what_came_before_a_broken_record_is_heard() {
    let authority = Authority::new();
    let mut upstream = disconnects().await;
    let node = start(Some(upstream.address), |config| speaks_tls(config, &authority)).await;
    let mut raw = rude(&node, authority.client(&[&TLS13])).await;
    let bare = raw.record(&encode(Opcode::Text, b"bare", None));
    raw.send(&bare).await;
    let (rest, end) = raw.rest().await;
    assert_eq!((&rest[..4], end), (&[0x88, rest[1], 0x03, 0xEA][..], End::Clean), "1002");
    drop(raw);
    assert_eq!(upstream.next().await.event(), "connect");
    assert_eq!(upstream.next().await.event(), "disconnect");

    let mut raw = rude(&node, authority.client(&[&TLS13])).await;
    let mut records = raw.record(&encode(Opcode::Text, b"heard", Some([0; 4])));
    let mut forged = raw.record(&encode(Opcode::Text, b"forged", Some([0; 4])));
    forged[9] ^= 1;
    records.extend_from_slice(&forged);
    raw.send(&records).await;
    assert_eq!(raw.rest().await.1, End::Alert);
    assert_eq!(upstream.next().await.event(), "connect");
    assert_eq!(upstream.next().await.body, b"heard");
    assert_eq!(upstream.next().await.event(), "disconnect");
}

#[tokio::test]
async fn a_client_that_does_not_read_is_closed() {
    let authority = Authority::new();
    let node = start(None, |config| {
        speaks_tls(config, &authority);
        config.limits.outbox_bytes_max = 1024 * 1024;
        config.shards = 1;
    })
    .await;
    let _deaf = rude(&node, authority.client(&[&TLS13])).await;
    let stream = node.secure(authority.client(&[&TLS13])).await.unwrap();
    let mut witness = websocket(stream, &doors()[0]).await;
    let body = vec![b'x'; 512 * 1024];
    while node.rest("HEAD", "chat/users/rude", b"").await == 200 {
        assert_eq!(node.rest("POST", "chat/", &body).await, 200);
        let message = witness.next().await.unwrap().unwrap();
        assert_eq!(message.len(), body.len());
    }
    let (_, metrics) = node.raw("GET", "/metrics", "", b"").await;
    assert!(metrics.contains("hookwire_slow_consumers_total{shard=\"0\"} 1\n"), "{metrics}");
}

#[tokio::test]
async fn a_client_that_reads_late_gets_everything() {
    let authority = Authority::new();
    let node = start(None, |config| {
        speaks_tls(config, &authority);
        config.shards = 1;
    })
    .await;
    let mut late = rude(&node, authority.client(&[&TLS13])).await;
    // More than the kernel and rustls take together, so that much of it waits in the outbox.
    let mut expected = Vec::new();
    for at in 0..14_u8 {
        let body = vec![at; 1_000_000];
        assert_eq!(node.rest("POST", "chat/", &body).await, 200);
        expected.extend_from_slice(&encode_message(MessageKind::Text, &body));
    }
    let got = late.until(|bytes| bytes.len() == expected.len()).await;
    assert!(got == expected, "every byte, once and in order");
}

#[tokio::test]
async fn shutdown_says_goodbye_in_both_protocols() {
    let authority = Authority::new();
    let mut upstream = disconnects().await;
    let node = start(Some(upstream.address), |config| speaks_tls(config, &authority)).await;
    let mut raw = rude(&node, authority.client(&[&TLS12])).await;
    assert_eq!(upstream.next().await.event(), "connect");
    let reader = tokio::spawn(async move {
        let frame = raw.until(|bytes| 4 <= bytes.len()).await;
        assert_eq!((frame[0], &frame[2..4]), (0x88, &1001_u16.to_be_bytes()[..]));
        let answer = raw.record(&encode(Opcode::Close, &1001_u16.to_be_bytes(), Some([0; 4])));
        raw.send(&answer).await;
        raw.rest().await.1
    });
    assert!(node.node.shutdown().await);
    assert_eq!(reader.await.unwrap(), End::Clean);
    assert_eq!(upstream.next().await.event(), "disconnect");
}

#[tokio::test]
async fn who_is_silent_or_speaks_no_tls_is_cut_off() {
    let authority = Authority::new();
    let node = start(None, |config| {
        speaks_tls(config, &authority);
        config.limits.handshake_time_max = Duration::from_millis(200);
    })
    .await;
    let mut silent = TcpStream::connect(node.secure_address()).await.unwrap();
    assert_eq!(silent.read(&mut [0; 1]).await.unwrap_or(0), 0, "no ClientHello");
    let mut idle = Raw::connect(node.secure_address(), authority.client(&[&TLS13])).await;
    assert_eq!(idle.rest().await.0, b"", "no request");
    let mut slow = Raw::connect(node.secure_address(), authority.client(&[&TLS13])).await;
    let half = slow.record(b"GET /api/v1/health HT");
    slow.send(&half).await;
    assert_eq!(slow.rest().await.0, b"", "half a head");
    let mut plain = TcpStream::connect(node.secure_address()).await.unwrap();
    plain.write_all(b"GET /api/v1/health HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _ = plain.read_to_end(&mut answer).await;
    assert_eq!(answer.first(), Some(&0x15), "an alert, nothing in plain text: {answer:x?}");
}

/// Returns the value of a metric of a line that begins so.
async fn metric(node: &TestNode, name: &str) -> Option<f64> {
    let (_, metrics) = node.raw("GET", "/metrics", "", b"").await;
    metrics.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

#[tokio::test]
async fn certificates_change_without_dropping_anybody_and_bad_ones_change_nothing() {
    const FAILED: &str = "hookwire_certificate_reloads_total{result=\"failed\"}";
    const DONE: &str = "hookwire_certificate_reloads_total{result=\"done\"}";
    let authority = Authority::new();
    let mut kept = None;
    let node = start(None, |config| {
        echoes(config, &authority);
        kept = Some(config.tls.certificates[0].clone());
    })
    .await;
    let files = kept.unwrap();
    let given = async || {
        let stream = node.secure(authority.client(&[&TLS13])).await.unwrap();
        stream.get_ref().1.peer_certificates().unwrap()[0].clone()
    };
    let first = given().await;
    let end = format!(
        "hookwire_certificate_not_after_timestamp_seconds{{certificate=\"{}\"}}",
        files.chain.display()
    );
    assert!(metric(&node, &end).await.is_some_and(|end| 1.0e9 < end));
    let stream = node.secure(authority.client(&[&TLS13])).await.unwrap();
    let mut client = websocket(stream, &doors()[0]).await;

    let second = authority.issue(&["localhost"]);
    // Half of a change: the key does not belong to the certificate.
    std::fs::write(&files.key, second.key.serialize_pem()).unwrap();
    while metric(&node, FAILED).await.is_none() {
        assert_eq!(given().await, first);
    }
    assert_eq!(given().await, first);
    second.write(&files);
    while given().await != second.certificate {
        tokio::task::yield_now().await;
    }
    while metric(&node, DONE).await.is_none() {
        tokio::task::yield_now().await;
    }
    std::fs::remove_file(&files.chain).unwrap();
    while metric(&node, FAILED).await.is_none_or(|failed| failed < 2.0) {
        assert_eq!(given().await, second.certificate);
    }
    client.send(Message::text("still here")).await.unwrap();
    assert_eq!(client.next().await.unwrap().unwrap(), Message::text("still here"));
}

#[tokio::test]
async fn the_certificate_is_that_of_the_host_that_is_named() {
    let authority = Authority::new();
    let mut expected = Vec::new();
    let node = start(None, |config| {
        std::fs::create_dir_all(&config.data_dir).unwrap();
        config.tls.listen = vec!["127.0.0.1:0".parse().unwrap()];
        for names in [&["first.example"][..], &["*.second.example", "other.example"]] {
            let issued = authority.issue(names);
            let files = files(&config.data_dir, names[0]);
            issued.write(&files);
            config.tls.certificates.push(files);
            expected.push(issued.certificate.clone());
        }
    })
    .await;
    for (name, which) in [("first.example", 0), ("a.second.example", 1), ("other.example", 1)] {
        let socket = TcpStream::connect(node.secure_address()).await.unwrap();
        let connector = TlsConnector::from(Arc::new(authority.client(&[&TLS13])));
        let name = ServerName::try_from(name).unwrap();
        let stream = connector.connect(name, socket).await.unwrap();
        assert_eq!(stream.get_ref().1.peer_certificates().unwrap()[0], expected[which]);
    }
    let error = node.secure(authority.client(&[&TLS13])).await.unwrap_err();
    assert!(error.to_string().contains("first.example"), "the first is given: {error}");
}
