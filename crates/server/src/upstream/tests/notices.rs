//! Notices: events whose answer nobody waits for.

use hookwire_proto::name::GroupName;

use super::*;

fn notices() -> [Event; 4] {
    let group = GroupName::parse("g").unwrap();
    [Event::Connected, disconnected(), Event::Joined(group.clone()), Event::Left(group)]
}

#[tokio::test]
async fn a_notice_passes_after_a_second_and_is_heard_all_the_same() {
    for event in notices() {
        let is_last = event.is_last();
        let (listener, url) = listen().await;
        let mut caller = Caller::new(UpstreamLimits::default()).await;
        let id = caller.begin_event(&url, event);
        let mut peer = Peer::welcome(&listener).await;
        peer.request().await;
        elapse(course::NOTICE_TIME).await;
        // Nothing follows the last event of a connection.
        if !is_last {
            assert_eq!(caller.passed().await, id);
        }
        peer.write(NO_CONTENT).await;
        let (ended, reply) = caller.end().await;
        assert_eq!((ended, status(&reply)), (id, Some(204)));
    }
}

#[tokio::test]
async fn a_notice_that_is_answered_does_not_pass_before() {
    let (listener, url) = listen().await;
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    let upstream = async {
        let mut peer = Peer::welcome(&listener).await;
        peer.request().await;
        peer.write(NO_CONTENT).await;
    };
    // Its end comes first.
    let (reply, ()) = caller.event_while(&url, Event::Connected, upstream).await;
    assert_eq!(status(&reply), Some(204));
}

#[tokio::test]
async fn a_notice_is_sent_again_while_the_upstream_fails() {
    let (listener, url) = listen().await;
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    let id = caller.begin_event(&url, Event::Connected);
    let mut peer = Peer::welcome(&listener).await;
    let first = peer.request().await;
    peer.write("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(caller.passed().await, id, "the next event need not wait for the pause");
    elapse(course::RETRY_PAUSES[0]).await;
    assert_eq!(peer.request().await, first, "even its time is the same");
    peer.write("HTTP/1.1 408 Slow\r\nContent-Length: 0\r\n\r\n").await;
    // It is sent again as soon as the time is over, however that goes.
    assert_eq!(peer.later_request().await, first);
    peer.write(NO_CONTENT).await;
    let (ended, reply) = caller.end().await;
    assert_eq!((ended, status(&reply)), (id, Some(204)));
}

#[tokio::test(start_paused = true)]
async fn a_notice_to_nobody_is_tried_four_times() {
    let (listener, url) = listen().await;
    drop(listener);
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    let begin = Instant::now();
    let id = caller.begin_event(&url, Event::Connected);
    assert_eq!(caller.passed().await, id);
    let (_, reply) = caller.end().await;
    let reason = reason(reply);
    assert!(reason.starts_with("AbuseProtectionResponseFailed: cannot reach"), "{reason}");
    assert!(Duration::from_secs(1 + 3 + 5) <= begin.elapsed());
}

#[tokio::test]
async fn a_notice_that_was_refused_is_not_sent_again() {
    for line in ["400 No", "404 Where", "429 Later", "302 There"] {
        let (listener, url) = listen().await;
        let mut caller = Caller::new(UpstreamLimits::default()).await;
        let upstream = async {
            let mut peer = Peer::welcome(&listener).await;
            peer.request().await;
            peer.write(format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n")).await;
            peer
        };
        // It would pass before it is sent again.
        let (reply, _peer) = caller.event_while(&url, Event::Connected, upstream).await;
        assert_eq!(status(&reply), Some(line[..3].parse().unwrap()));
    }
}

#[tokio::test]
async fn a_notice_that_is_never_answered_ends_in_time_and_is_not_sent_again() {
    let (listener, url) = listen().await;
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    let id = caller.begin_event(&url, Event::Connected);
    let mut peer = Peer::welcome(&listener).await;
    peer.request().await;
    tokio::time::pause();
    assert_eq!(caller.passed().await, id);
    assert_eq!(reason(caller.end().await.1), "no complete answer within 60s");
    tokio::time::resume();
    peer.closed().await;
}

#[tokio::test]
async fn at_the_end_of_the_service_nothing_waits_to_be_sent_again() {
    let (listener, url) = listen().await;
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    caller.begin_event(&url, disconnected());
    let mut peer = Peer::welcome(&listener).await;
    let first = peer.request().await;
    caller.upstream.finish();
    peer.write("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(status(&caller.end().await.1), Some(503));

    // What waits already is sent once more at once.
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    let id = caller.begin_event(&url, Event::Connected);
    let mut peer = Peer::welcome(&listener).await;
    assert_eq!(peer.request().await.1, b"{}");
    assert_eq!(first.1, b"{\"reason\":\"bye\"}");
    peer.write("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(caller.passed().await, id);
    caller.upstream.finish();
    peer.request().await;
    peer.write("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n").await;
    assert_eq!(status(&caller.end().await.1), Some(503));
}
