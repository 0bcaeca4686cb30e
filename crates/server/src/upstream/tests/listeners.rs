//! Copies of events for listeners.

use hookwire_proto::handler::EventListener;
use hookwire_proto::name::GroupName;

use super::*;

fn copy(url: &str, connection: ConnectionId, sequence: u64, event: Event) -> EventCopy {
    EventCopy {
        listener: Arc::new(EventListener {
            url: HandlerUrl::parse(url).unwrap(),
            user_events: EventPattern::any(),
            system_events: SystemEvents { connected: true, disconnected: true, connect: false },
        }),
        hub: hub(),
        connection,
        user: Some(user()),
        facts: EventFacts {
            state: Some("state".into()),
            cookies: Some("a=s3cret".into()),
            ..bare_facts(sequence)
        },
        event,
    }
}

fn header<'a>(head: &'a str, name: &str) -> &'a str {
    head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": ")).unwrap_or_default()
}

#[tokio::test]
async fn a_listener_gets_the_events_of_a_connection_in_order() {
    let (listener, url) = listen().await;
    let caller = Caller::new(UpstreamLimits::default()).await;
    let events = [Event::Connected, user_event("one"), user_event("two"), disconnected()];
    for (sequence, event) in (1..).zip(events) {
        caller.upstream.copy(copy(&url, connection(), sequence, event));
    }
    let mut peer = Peer::welcome(&listener).await;
    for (sequence, kind, body) in [
        ("1", "sys.connected", "{}"),
        ("2", "user.order.paid", "one"),
        ("3", "user.order.paid", "two"),
        ("4", "sys.disconnected", "{\"reason\":\"bye\"}"),
    ] {
        let (head, found) = peer.request().await;
        assert!(head.starts_with("POST /chat/api/event?code=s3cret HTTP/1.1\r\n"), "{head}");
        assert_eq!(header(&head, "ce-id"), sequence);
        assert_eq!(header(&head, "ce-type"), format!("azure.webpubsub.{kind}"));
        assert_eq!(header(&head, "ce-userid"), "Jürgen");
        assert_eq!(header(&head, "ce-connectionstate"), "state");
        assert_eq!(header(&head, "cookie"), "", "the listener is not who set it");
        assert_eq!(header(&head, "ce-signature"), signature());
        assert_eq!(header(&head, "webhook-request-origin"), ORIGIN);
        assert_eq!(found, body.as_bytes());
        peer.write(NO_CONTENT).await;
    }
}

#[tokio::test]
async fn a_connection_whose_copy_is_not_taken_does_not_hold_up_others() {
    let (listener, url) = listen().await;
    let caller = Caller::new(UpstreamLimits::default()).await;
    for first in 0..64 {
        let connection = ConnectionId::new(1, 2, [first; 16]);
        caller.upstream.copy(copy(&url, connection, 0, Event::Connected));
    }
    let mut first = Peer::welcome(&listener).await;
    // More than one at once, while none is answered.
    first.request().await;
    let mut second = Peer::accept(&listener).await;
    second.request().await;
}

#[tokio::test]
async fn a_copy_is_sent_again_while_its_listener_fails() {
    let (listener, url) = listen().await;
    let caller = Caller::new(UpstreamLimits::default()).await;
    caller.upstream.copy(copy(&url, connection(), 1, user_event("one")));
    caller.upstream.copy(copy(&url, connection(), 2, user_event("two")));
    let mut peer = Peer::welcome(&listener).await;
    let first = peer.request().await;
    peer.write("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(peer.later_request().await, first);
    // What was refused is not sent again, the next one follows.
    peer.write("HTTP/1.1 400 No\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(peer.request().await.1, b"two");
}

#[tokio::test]
async fn what_waits_is_delivered_at_the_end_and_nothing_is_taken_any_more() {
    let (listener, url) = listen().await;
    let caller = Caller::new(UpstreamLimits::default()).await;
    let group = GroupName::parse("g").unwrap();
    for sequence in 0..3 {
        caller.upstream.copy(copy(&url, connection(), sequence, Event::Joined(group.clone())));
    }
    caller.upstream.finish();
    let upstream = caller.upstream.clone();
    let flushed = tokio::spawn(async move { upstream.flush().await });
    let mut peer = Peer::welcome(&listener).await;
    for _ in 0..3 {
        peer.request().await;
        peer.write("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n").await;
    }
    flushed.await.unwrap();
    caller.upstream.copy(copy(&url, connection(), 9, Event::Connected));
    caller.upstream.flush().await;
    assert!(poll!(pin!(peer.socket.read_u8())).is_pending());
    assert!(poll!(pin!(listener.accept())).is_pending());
}
