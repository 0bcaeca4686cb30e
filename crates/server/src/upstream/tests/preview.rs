//! Requests in the preview's dialect, byte by byte.

use hookwire_proto::message::MessageKind;

use super::*;

/// Returns the head of a request with the date left out, which is checked to be one.
async fn golden(event: Event) -> (String, String, Vec<u8>) {
    let (listener, url) = listen().await;
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    let upstream = async {
        let mut peer = Peer::accept(&listener).await;
        let request = peer.request().await;
        peer.write(NO_CONTENT).await;
        request
    };
    let (reply, (head, body)) = caller.while_upstream(&url, event, upstream).await;
    assert_eq!(status(&reply), Some(204));
    let date = head.lines().find_map(|line| line.strip_prefix("Date: ")).unwrap();
    httpdate::parse_http_date(date).unwrap();
    let head = head.replace(date, "(date)");
    (head, listener.local_addr().unwrap().to_string(), body)
}

fn golden_head(host: &str, category: &str, event: &str, further: &str) -> String {
    let (connection, signature) = (connection(), signature());
    format!(
        "POST /chat/api/event?code=s3cret HTTP/1.1\r\n\
         Host: {host}\r\n\
         X-ASRS-Connection-Id: {connection}\r\n\
         X-ASRS-Hub: chat\r\n\
         X-ASRS-Category: {category}\r\n\
         X-ASRS-Event: {event}\r\n\
         X-ASRS-User-Id: Jürgen\r\n\
         X-ASRS-User-Claims: sub: Jürgen, role: x\r\n\
         X-ASRS-Signature: {signature}\r\n\
         X-ASRS-Client-Query: a=1&b=%20\r\n\
         X-Forwarded-For: 192.0.2.1, 192.0.2.2\r\n\
         Date: (date)\r\n\
         {further}\r\n"
    )
}

#[tokio::test]
async fn a_connect_event_on_the_wire() {
    let (head, host, body) = golden(connect()).await;
    let further = "Sec-WebSocket-Protocol: chat.v2, chat.v1\r\nContent-Length: 0\r\n";
    assert_eq!(head, golden_head(&host, "connections", "connect", further));
    assert_eq!(body, b"");
}

#[tokio::test]
async fn message_events_on_the_wire() {
    let (head, host, body) = golden(message("häh?")).await;
    let further = "Content-Type: text/plain\r\nContent-Length: 5\r\n";
    assert_eq!(head, golden_head(&host, "messages", "message", further));
    assert_eq!(body, "häh?".as_bytes());

    let bytes = Message { kind: MessageKind::Binary, data: Bytes::from_static(&[0, 255, 10]) };
    let (head, host, body) = golden(Event::Message(bytes)).await;
    let further = "Content-Type: application/octet-stream\r\nContent-Length: 3\r\n";
    assert_eq!(head, golden_head(&host, "messages", "message", further));
    assert_eq!(body, [0, 255, 10]);
}

#[tokio::test]
async fn a_disconnect_event_on_the_wire() {
    let (head, host, body) = golden(Event::Disconnect).await;
    assert_eq!(head, golden_head(&host, "connections", "disconnect", "Content-Length: 0\r\n"));
    assert_eq!(body, b"");
}

#[tokio::test]
async fn what_is_not_known_is_left_out() {
    let (listener, url) = listen().await;
    let caller = Caller::new(UpstreamLimits::default()).await;
    let mut call = preview_call(&url, Event::Connect { subprotocols: Vec::new() });
    call.user = None;
    call.dialect = Dialect::Preview(ClientContext::new("", "", "192.0.2.1"));
    let upstream = async {
        let mut peer = Peer::accept(&listener).await;
        let (head, _) = peer.request().await;
        peer.write(NO_CONTENT).await;
        head
    };
    let ((), head) = tokio::join!(caller.upstream.call(call, |_| {}), upstream);
    for name in ["X-ASRS-User-Id", "X-ASRS-Client-Query", "Sec-WebSocket-Protocol", "Content-Type"]
    {
        assert!(!head.contains(name), "{head}");
    }
    assert!(head.contains("X-Forwarded-For: 192.0.2.1\r\n"), "{head}");
}
