//! What becomes of a call in time.

use super::*;

#[tokio::test]
async fn a_message_passes_and_its_late_answer_is_delivered() {
    let (listener, url) = listen().await;
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    let id = caller.begin(&url, message("hello"));
    let mut peer = Peer::accept(&listener).await;
    peer.request().await;
    // From here on nothing happens but time, so the clock may jump.
    tokio::time::pause();
    let begin = Instant::now();
    let Input::UpstreamPassed { call } = caller.next().await else { panic!("it passes first") };
    assert_eq!(call.0, id);
    assert!(begin.elapsed() <= course::PASS_TIME + Duration::from_millis(1));
    tokio::time::resume();
    peer.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate").await;
    let (ended, reply) = caller.end().await;
    assert_eq!((ended, status(&reply)), (id, Some(200)));
}

#[tokio::test]
async fn a_message_that_nobody_reads_does_not_pass() {
    let (listener, url) = listen().await;
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    // More than the kernel takes.
    caller.begin(&url, message(&"a".repeat(64 * 1024 * 1024)));
    let peer = Peer::accept(&listener).await;
    peer.socket.readable().await.unwrap();
    tokio::time::pause();
    assert_eq!(reason(caller.end().await.1), "no complete answer within 60s");
    tokio::time::resume();
    drop(peer);
}

#[tokio::test]
async fn an_empty_message_passes() {
    let (listener, url) = listen().await;
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    let id = caller.begin(&url, message(""));
    let mut peer = Peer::accept(&listener).await;
    peer.request().await;
    tokio::time::pause();
    assert_eq!(caller.passed().await, id);
}

#[tokio::test]
async fn an_answer_that_drips_passes_and_ends_in_time() {
    let (listener, url) = listen().await;
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    caller.begin(&url, message("hello"));
    let mut peer = Peer::accept(&listener).await;
    peer.request().await;
    peer.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ns").await;
    tokio::time::pause();
    let begin = Instant::now();
    assert!(matches!(caller.next().await, Input::UpstreamPassed { .. }));
    assert_eq!(reason(caller.end().await.1), "no complete answer within 60s");
    assert!(begin.elapsed() <= Duration::from_secs(61));
    tokio::time::resume();
    peer.closed().await;
}

#[tokio::test]
async fn connects_and_disconnects_do_not_pass_and_end_in_time() {
    for (event, limit) in [(connect(), "30s"), (Event::Disconnect, "60s")] {
        let (listener, url) = listen().await;
        let mut caller = Caller::new(UpstreamLimits::default()).await;
        caller.begin(&url, event);
        let mut peer = Peer::accept(&listener).await;
        peer.request().await;
        tokio::time::pause();
        let (_, reply) = caller.end().await;
        assert_eq!(reason(reply), format!("no complete answer within {limit}"));
        tokio::time::resume();
        peer.closed().await;
    }
}

#[tokio::test]
async fn a_connection_closed_before_any_answer_is_followed_by_another() {
    for event in [connect(), message("hello")] {
        let (listener, url) = listen().await;
        let mut caller = Caller::new(UpstreamLimits::default()).await;
        let upstream = async {
            let mut peer = Peer::accept(&listener).await;
            let first = peer.request().await;
            drop(peer);
            let mut peer = Peer::accept(&listener).await;
            assert_eq!(peer.request().await.1, first.1);
            peer.write(NO_CONTENT).await;
        };
        let (reply, ()) = caller.while_upstream(&url, event, upstream).await;
        assert_eq!(status(&reply), Some(204));
    }
}

#[tokio::test]
async fn a_disconnect_is_attempted_once() {
    let (listener, url) = listen().await;
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    let upstream = async {
        Peer::accept(&listener).await.request().await;
    };
    let (reply, ()) = caller.while_upstream(&url, Event::Disconnect, upstream).await;
    assert!(reason(reply).starts_with("the upstream broke off: "));
    assert!(poll!(pin!(listener.accept())).is_pending());
}

#[tokio::test]
async fn every_event_survives_that_the_upstream_closed_an_idle_connection() {
    let (listener, url) = listen().await;
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    for _ in 0..20 {
        let upstream = async {
            let mut peer = Peer::accept(&listener).await;
            peer.request().await;
            peer.write(NO_CONTENT).await;
            peer.socket.shutdown().await.unwrap();
            // The caller has seen it when its own end is closed.
            peer.closed().await;
        };
        let (reply, ()) = caller.while_upstream(&url, Event::Disconnect, upstream).await;
        assert_eq!(status(&reply), Some(204));
    }
}

#[tokio::test]
async fn no_event_is_lost_when_the_close_of_an_idle_connection_crosses_it() {
    for event in [connect(), message("hello"), Event::Disconnect] {
        let (listener, url) = listen().await;
        let mut caller = Caller::new(UpstreamLimits::default()).await;
        let first = async {
            let mut peer = Peer::accept(&listener).await;
            peer.request().await;
            peer.write(NO_CONTENT).await;
            peer
        };
        let (_, mut peer) = caller.while_upstream(&url, connect(), first).await;
        let upstream = async {
            // The kernel has taken it, the upstream is gone.
            let crossed = peer.request().await;
            drop(peer);
            let mut peer = Peer::accept(&listener).await;
            assert_eq!(peer.request().await.1, crossed.1);
            peer.write(NO_CONTENT).await;
        };
        let (reply, ()) = caller.while_upstream(&url, event, upstream).await;
        assert_eq!(status(&reply), Some(204));
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_final() {
    for part in
        ["HTTP/1.1 20", "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf", "nonsense\r\n\r\n"]
    {
        let (listener, url) = listen().await;
        let mut caller = Caller::new(UpstreamLimits::default()).await;
        let upstream = async {
            let mut peer = Peer::accept(&listener).await;
            peer.request().await;
            peer.write(part).await;
        };
        let (reply, ()) = caller.while_upstream(&url, connect(), upstream).await;
        assert!(reason(reply).starts_with("the upstream broke off: "), "{part}");
        assert!(poll!(pin!(listener.accept())).is_pending(), "{part}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_upstream_that_is_not_there_is_tried_for_five_seconds() {
    let (listener, url) = listen().await;
    drop(listener);
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    let begin = Instant::now();
    caller.begin(&url, connect());
    let text = reason(caller.end().await.1);
    assert!(text.starts_with("cannot reach the upstream: "), "{text}");
    assert!(!text.contains("s3cret"), "{text}");
    assert!(Duration::from_secs(3) < begin.elapsed() && begin.elapsed() < course::REPEAT_TIME_MAX);

    let begin = Instant::now();
    caller.begin(&url, Event::Disconnect);
    assert!(reason(caller.end().await.1).starts_with("cannot reach the upstream: "));
    assert!(begin.elapsed() < course::REPEAT_PAUSE);
}

#[tokio::test]
async fn connections_are_used_again() {
    let (listener, url) = listen().await;
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    caller.begin(&url, message("first"));
    let mut peer = Peer::accept(&listener).await;
    for text in ["first", "second", "third"] {
        assert_eq!(peer.request().await.1, text.as_bytes());
        peer.write(NO_CONTENT).await;
        assert_eq!(status(&caller.end().await.1), Some(204));
        caller.begin(&url, message(if text == "first" { "second" } else { "third" }));
    }
}
