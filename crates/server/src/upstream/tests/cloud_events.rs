//! Requests of Web PubSub, byte by byte, and what is made of the answers.

use std::collections::BTreeMap;

use bytes::Bytes;
use hookwire_proto::cloud_event::{ConnectRequest, ce_time};
use hookwire_proto::data::DataKind;
use hookwire_proto::name::GroupName;

use super::*;

/// Makes a call and returns what came: the head with the time left out, which is checked to be one, and the body.
async fn sent(call: impl FnOnce(&str) -> Call) -> (String, String, Vec<u8>) {
    let (listener, url) = listen().await;
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    let before = unix_time().as_secs();
    caller.begin_call(call(&url));
    let upstream = async {
        let mut peer = Peer::welcome(&listener).await;
        let request = peer.request().await;
        peer.write(NO_CONTENT).await;
        request
    };
    let ((_, reply), (head, body)) = tokio::join!(caller.end(), upstream);
    assert_eq!(status(&reply), Some(204));
    let time = head.lines().find_map(|line| line.strip_prefix("ce-time: ")).unwrap();
    let after = unix_time().as_secs();
    assert!((before..=after).any(|second| ce_time(second) == time), "{time}");
    (head.replace(time, "(time)"), listener.local_addr().unwrap().to_string(), body)
}

/// Returns the head of a request: `known` stands among the facts, `further` at the end.
fn head(host: &str, kind: &str, id: u64, known: &str, further: &str) -> String {
    let (connection, signature) = (connection(), signature());
    let name = kind.split_once('.').unwrap().1;
    format!(
        "POST /chat/api/event?code=s3cret HTTP/1.1\r\n\
         host: {host}\r\n\
         ce-specversion: 1.0\r\n\
         ce-awpsversion: 1.0\r\n\
         ce-type: azure.webpubsub.{kind}\r\n\
         ce-source: /hubs/chat/client/{connection}\r\n\
         ce-id: {id}\r\n\
         ce-time: (time)\r\n\
         ce-signature: {signature}\r\n\
         ce-connectionid: {connection}\r\n\
         ce-hub: chat\r\n\
         ce-eventname: {name}\r\n\
         {known}\
         webhook-request-origin: hooks.example\r\n\
         {further}\r\n"
    )
}

const JSON: &str = "content-type: application/json; charset=utf-8\r\n";

#[tokio::test]
async fn a_connect_event_on_the_wire() {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    let request = Arc::new(ConnectRequest {
        claims: BTreeMap::from([("sub".to_owned(), texts(&["Jürgen"]))]),
        query: BTreeMap::from([("a".to_owned(), texts(&["1", "2"]))]),
        headers: BTreeMap::from([("Host".to_owned(), texts(&["h"]))]),
        subprotocols: texts(&["json.webpubsub.azure.v1"]),
        client_certificates: Vec::new(),
    });
    let expected = request.to_json();
    let (found, host, body) = sent(|url| {
        let mut call = event_call(handler(url), Event::Connecting(request));
        call.user = Some(user());
        call.dialect =
            Dialect::WebPubSub { handler: Arc::new(handler(url)), facts: Box::new(bare_facts(0)) };
        call
    })
    .await;
    let further = format!("{JSON}content-length: {}\r\n", expected.len());
    assert_eq!(found, head(&host, "sys.connect", 0, "ce-userid: Jürgen\r\n", &further));
    assert_eq!(body, expected);
}

#[tokio::test]
async fn events_of_the_service_on_the_wire() {
    let group = GroupName::parse("Räume").unwrap();
    for (event, kind, expected) in [
        (Event::Connected, "sys.connected", "{}"),
        (disconnected(), "sys.disconnected", "{\"reason\":\"bye\"}"),
        (Event::Joined(group.clone()), "gp.joined", "{\"group\":\"Räume\"}"),
        (Event::Left(group), "gp.left", "{\"group\":\"Räume\"}"),
    ] {
        let (found, host, body) = sent(|url| event_call(handler(url), event)).await;
        let further = format!("{JSON}content-length: {}\r\n", expected.len());
        assert_eq!(found, head(&host, kind, 7, "", &further));
        assert_eq!(body, expected.as_bytes());
    }
}

#[tokio::test]
async fn user_events_of_every_kind_of_data_on_the_wire() {
    for (kind, content_type, bytes) in [
        (DataKind::Text, "text/plain; charset=utf-8", "häh?".as_bytes()),
        (DataKind::Json, "application/json; charset=utf-8", b"[1, {\"a\":2}]"),
        (DataKind::Binary, "application/octet-stream", &[0, 255, 10]),
        (DataKind::Protobuf, "application/x-protobuf", &[10, 0]),
        (DataKind::Text, "text/plain; charset=utf-8", b""),
    ] {
        let pairs = [("b", "2"), ("A-key", "one two")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let event = Event::User(UserEvent {
            name: "Order.paid_2".into(),
            data: Data { kind, bytes: Bytes::copy_from_slice(bytes) },
            metadata: Metadata::new(pairs).unwrap(),
            is_invocation: true,
        });
        let (found, host, body) = sent(|url| {
            let mut call = event_call(handler(url), event);
            call.user = Some(user());
            call.dialect = Dialect::WebPubSub {
                handler: Arc::new(handler(url)),
                facts: Box::new(EventFacts {
                    sequence: 41,
                    subprotocol: Some("json.webpubsub.azure.v1".into()),
                    state: Some("eyJhIjoi4oKsIn0=".into()),
                    cookies: Some("a=1; b=ü".into()),
                }),
            };
            call
        })
        .await;
        let known = "ce-userid: Jürgen\r\n\
                     ce-subprotocol: json.webpubsub.azure.v1\r\n\
                     ce-connectionstate: eyJhIjoi4oKsIn0=\r\n";
        let further = format!(
            "x-webpubsub-metadata-a-key: one two\r\n\
             x-webpubsub-metadata-b: 2\r\n\
             cookie: a=1; b=ü\r\n\
             content-type: {content_type}\r\n\
             content-length: {}\r\n",
            bytes.len()
        );
        assert_eq!(found, head(&host, "user.Order.paid_2", 41, known, &further));
        assert_eq!(body, bytes);
    }
}

#[tokio::test]
async fn the_url_says_which_event_of_which_hub() {
    let (listener, url) = listen().await;
    let url = url.replace("/event?", "/{hub}/{event}?");
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    caller.begin_event(&url, user_event("hello"));
    let mut peer = Peer::accept(&listener).await;
    let (head, _) = peer.request().await;
    assert!(head.starts_with("OPTIONS /chat/api/chat/validate?code=s3cret HTTP/1.1\r\n"), "{head}");
    peer.write(WELCOME).await;
    let (head, _) = peer.request().await;
    assert!(head.starts_with("POST /chat/api/chat/order.paid?code=s3cret HTTP/1.1\r\n"), "{head}");
    peer.write(NO_CONTENT).await;
    assert_eq!(status(&caller.end().await.1), Some(204));
}

/// Has an event answered by `answer` and returns what becomes of it.
async fn answered(event: Event, answer: &[u8]) -> Reply {
    let (listener, url) = listen().await;
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    let upstream = async {
        let mut peer = Peer::welcome(&listener).await;
        peer.request().await;
        // The caller may close before it has seen everything.
        let _ = peer.socket.write_all(answer).await;
        peer
    };
    caller.event_while(&url, event, upstream).await.0
}

fn answer(head: &str, body: &[u8]) -> Vec<u8> {
    let head = format!("HTTP/1.1 {head}Content-Length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

#[tokio::test]
async fn a_connect_event_may_set_state_and_cookies() {
    let lines = "200 OK\r\nce-connectionState: abc=\r\nSet-Cookie: a=1; Path=/\r\nSet-Cookie: b=2\r\nSet-Cookie: a=3\r\n\
                 Content-Type: application/json\r\nX-ASRS-User-Id: nobody\r\n";
    let reply = answered(connecting(), &answer(lines, b"{}")).await;
    let Reply::Answered(answer) = reply else { panic!("{reply:?}") };
    assert_eq!((answer.status, &answer.body[..]), (200, &b"{}"[..]));
    assert_eq!(answer.state.as_deref(), Some("abc="));
    assert_eq!(answer.cookies.as_deref(), Some("b=2; a=3"));
    assert_eq!(answer.content_type.as_deref(), Some("application/json"));
    assert_eq!(answer.user, None, "that is the preview's");
}

#[tokio::test]
async fn a_user_event_may_set_the_state_and_answer_to_its_client() {
    let lines =
        "200 OK\r\nCE-ConnectionState: new\r\nSet-Cookie: a=1\r\nContent-Type: text/plain\r\n";
    let reply = answered(user_event("hello"), &answer(lines, "häh".as_bytes())).await;
    let Reply::Answered(answer) = reply else { panic!("{reply:?}") };
    assert_eq!((answer.state.as_deref(), answer.cookies), (Some("new"), None));
    assert_eq!(
        (answer.content_type.as_deref(), &answer.body[..]),
        (Some("text/plain"), "häh".as_bytes())
    );
}

#[tokio::test]
async fn answers_that_clients_could_not_get_are_failures() {
    let long = "x".repeat(answer::STATE_BYTES_MAX + 1);
    for (event, lines, body, word) in [
        (user_event("x"), "Content-Type: application/json\r\n", &b"{"[..], "declared as JSON"),
        (user_event("x"), "Content-Type: text/plain\r\n", b"\xff", "not UTF-8"),
        (user_event("x"), "Content-Encoding: gzip\r\n", b"\x1f\x8b", "Content-Encoding"),
        (user_event("x"), &format!("ce-connectionState: {long}\r\n"), b"", "ce-connectionState"),
        (connecting(), &format!("ce-connectionState: {long}\r\n"), b"", "ce-connectionState"),
        (connecting(), "ce-connectionState: a\r\nce-connectionState: b\r\n", b"", "doubled"),
        (connecting(), &format!("Set-Cookie: a={long}\r\n"), b"", "cookies"),
    ] {
        let reply = answered(event, &answer(&format!("200 OK\r\n{lines}"), body)).await;
        let reason = reason(reply);
        assert!(reason.contains(word), "{reason}");
    }
    let announced = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1024 * 1024 + 1);
    let reply = answered(connecting(), announced.as_bytes()).await;
    assert_eq!(reason(reply), "the answer exceeds 1048576 bytes");
    let announced = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 16 * 1024 * 1024 + 1);
    let reply = answered(user_event("x"), announced.as_bytes()).await;
    assert_eq!(reason(reply), "the answer exceeds 16777216 bytes");
}

#[tokio::test]
async fn answers_to_notices_are_not_looked_at() {
    for answer in [
        answer(
            "200 OK\r\nContent-Encoding: gzip\r\nce-connectionState: a\r\nce-connectionState: b\r\n",
            b"\xff",
        ),
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n".to_vec(),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nnonsense\r\n".to_vec(),
    ] {
        let reply = answered(Event::Connected, &answer).await;
        let Reply::Answered(answer) = reply else { panic!("{reply:?}") };
        assert_eq!((answer.status, answer.state, answer.body.len()), (200, None, 0));
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_tunnel_a_call_is_a_503_when_repeating_is_over() {
    let begin = Instant::now();
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    caller.begin_event("tunnel:///api/{event}", connecting());
    let Reply::Answered(answer) = caller.end().await.1 else { panic!("it has no answer") };
    assert_eq!((answer.status, answer.body.len()), (503, 0));
    assert!(Duration::from_secs(3) < begin.elapsed(), "a tunnel may be about to come back");
    caller.begin("tunnel:///{event}", Event::Message(Message::text("x")));
    let Reply::Answered(answer) = caller.end().await.1 else { panic!("it has no answer") };
    assert_eq!(answer.status, 503, "in the preview too");
}

#[tokio::test]
async fn blocking_events_do_not_pass_and_have_their_time() {
    for (event, seconds_max, limit) in [
        (connecting(), None, "30s"),
        (user_event("x"), None, "60s"),
        (user_event("x"), Some(7), "7s"),
    ] {
        let (listener, url) = listen().await;
        let mut caller = Caller::new(UpstreamLimits::default()).await;
        let timeout = seconds_max.map(Duration::from_secs);
        caller.begin_call(event_call(EventHandler { timeout, ..handler(&url) }, event));
        let mut peer = Peer::welcome(&listener).await;
        peer.request().await;
        tokio::time::pause();
        let (_, reply) = caller.end().await;
        assert_eq!(reason(reply), format!("no complete answer within {limit}"));
        tokio::time::resume();
        peer.closed().await;
    }
}

#[tokio::test]
async fn what_was_not_answered_is_sent_again_and_an_invocation_is_not() {
    for (event, is_repeated) in
        [(connecting(), true), (user_event("x"), true), (invocation("x"), false)]
    {
        let (listener, url) = listen().await;
        let mut caller = Caller::new(UpstreamLimits::default()).await;
        caller.begin_event(&url, event);
        let mut peer = Peer::welcome(&listener).await;
        peer.write("").await;
        let first = peer.request().await;
        drop(peer);
        if is_repeated {
            let mut peer = Peer::accept(&listener).await;
            assert_eq!(peer.request().await, first, "even its time is the same");
            peer.write(NO_CONTENT).await;
            assert_eq!(status(&caller.end().await.1), Some(204));
        } else {
            assert!(reason(caller.end().await.1).starts_with("the upstream broke off"));
            assert!(poll!(pin!(listener.accept())).is_pending());
        }
    }
}

#[tokio::test]
async fn an_invocation_survives_that_the_upstream_closed_an_idle_connection() {
    let (listener, url) = listen().await;
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    let upstream = async {
        let mut peer = Peer::welcome(&listener).await;
        peer.request().await;
        peer.write(NO_CONTENT).await;
        peer.socket.shutdown().await.unwrap();
        // The caller has seen it when its own end is closed.
        peer.closed().await;
    };
    let (reply, ()) = caller.event_while(&url, invocation("first"), upstream).await;
    assert_eq!(status(&reply), Some(204));
    let upstream = async {
        let mut peer = Peer::accept(&listener).await;
        assert_eq!(peer.request().await.1, b"second");
        peer.write(NO_CONTENT).await;
    };
    let (reply, ()) = caller.event_while(&url, invocation("second"), upstream).await;
    assert_eq!(status(&reply), Some(204));
}

#[tokio::test]
async fn an_answered_server_error_is_final_for_what_somebody_waits_for() {
    for event in [connecting(), user_event("x"), invocation("x")] {
        for line in ["500 Oops\r\n", "503 Busy\r\n", "429 Later\r\n", "408 Slow\r\n"] {
            let reply = answered(event.clone(), &answer(line, b"")).await;
            assert_eq!(status(&reply), Some(line[..3].parse().unwrap()));
        }
    }
}
