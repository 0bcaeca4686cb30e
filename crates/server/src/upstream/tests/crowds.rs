//! Many calls at once.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

#[tokio::test]
async fn a_call_that_nobody_waits_for_makes_way() {
    for nobody_waits_for in [message("first"), Event::Disconnect] {
        let passes = matches!(nobody_waits_for, Event::Message(_));
        let (listener, url) = listen().await;
        let limits = UpstreamLimits { calls_in_flight_max: 2, ..UpstreamLimits::default() };
        let mut caller = Caller::new(limits).await;
        let first = caller.begin(&url, nobody_waits_for);
        let mut silent = Peer::accept(&listener).await;
        silent.request().await;
        let second = caller.begin(&url, message("second"));
        tokio::time::pause();
        if passes {
            assert!(
                matches!(caller.next().await, Input::UpstreamPassed { call } if call.0 == first)
            );
        }
        let (ended, reply) = caller.end().await;
        tokio::time::resume();
        assert_eq!((ended, reason(reply).as_str()), (first, "given up for newer calls"));
        silent.closed().await;
        let mut peer = Peer::accept(&listener).await;
        assert_eq!(peer.request().await.1, b"second");
        peer.write(NO_CONTENT).await;
        let (ended, reply) = caller.end().await;
        assert_eq!((ended, status(&reply)), (second, Some(204)));
    }
}

/// An upstream that holds each request until as many stand there as can, and counts.
async fn crowd(listener: TcpListener, open_max: usize, most: Arc<AtomicUsize>) {
    let open = Arc::new(AtomicUsize::new(0));
    let barrier = Arc::new(tokio::sync::Barrier::new(open_max));
    loop {
        let mut peer = Peer::accept(&listener).await;
        let (open, barrier, most) = (open.clone(), barrier.clone(), most.clone());
        tokio::spawn(async move {
            loop {
                if peer.buffer.is_empty()
                    && peer.socket.read_buf(&mut peer.buffer).await.unwrap_or(0) == 0
                {
                    return;
                }
                peer.request().await;
                most.fetch_max(open.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                barrier.wait().await;
                open.fetch_sub(1, Ordering::SeqCst);
                peer.write(NO_CONTENT).await;
            }
        });
    }
}

#[tokio::test]
async fn an_upstream_sees_no_more_calls_at_once_than_it_has_places() {
    let (listener, url) = listen().await;
    let most = Arc::new(AtomicUsize::new(0));
    tokio::spawn(crowd(listener, 6, most.clone()));
    let limits = UpstreamLimits { calls_in_flight_max: 8, ..UpstreamLimits::default() };
    let mut caller = Caller::new(limits).await;
    for at in 0..60 {
        caller.begin(&url, message(&at.to_string()));
    }
    let mut ended = 0;
    while ended < 60 {
        // On a slow machine a call may pass before the upstream has all it waits for.
        if let Input::UpstreamReplied { reply, .. } = caller.next().await {
            assert_eq!(status(&reply), Some(204));
            ended += 1;
        }
    }
    assert_eq!(most.load(Ordering::SeqCst), 6);
}

#[tokio::test]
async fn ten_thousand_calls_to_a_dead_upstream_hold_nobody_else_up() {
    let (dead, dead_url) = listen().await;
    let (lively, lively_url) = listen().await;
    let limits = UpstreamLimits { calls_in_flight_max: 16, ..UpstreamLimits::default() };
    let mut caller = Caller::new(limits).await;
    for _ in 0..10_000 {
        caller.begin(&dead_url, Event::Disconnect);
    }
    let mut silent = Vec::new();
    for _ in 0..12 {
        let mut peer = Peer::accept(&dead).await;
        peer.request().await;
        silent.push(peer);
    }
    // Another upstream is as quick as ever.
    let last = caller.begin(&lively_url, message("hello"));
    let mut peer = Peer::accept(&lively).await;
    peer.request().await;
    peer.write(NO_CONTENT).await;
    let answered = loop {
        // Those that the upstream never answers end meanwhile, as they make way.
        if let (ended, Reply::Answered(answer)) = caller.end().await {
            break (ended, answer.status);
        }
    };
    assert_eq!(answered, (last, 204));
    // And the places of connect events are free.
    let last = caller.begin(&dead_url, connect());
    let connected = loop {
        let mut peer = Peer::accept(&dead).await;
        if peer.request().await.0.contains("X-ASRS-Event: connect\r\n") {
            peer.write(NO_CONTENT).await;
            break loop {
                if let (ended, Reply::Answered(answer)) = caller.end().await {
                    break (ended, answer.status);
                }
            };
        }
        silent.push(peer);
    };
    assert_eq!(connected, (last, 204));
}

#[tokio::test]
async fn waiting_payload_beyond_its_limit_fails_at_once() {
    let (listener, url) = listen().await;
    let limits = UpstreamLimits { calls_in_flight_max: 2, ..UpstreamLimits::default() };
    let mut caller = Caller::new(limits).await;
    caller.begin(&url, message("first"));
    let mut peer = Peer::accept(&listener).await;
    peer.request().await;
    let large = "a".repeat(1024 * 1024);
    let count = u64::try_from(gate::WAITING_BYTES_MAX / large.len()).unwrap();
    let mut last = 0;
    for _ in 0..=count {
        last = caller.begin(&url, message(&large));
    }
    let (ended, reply) = caller.end().await;
    assert_eq!((ended, reason(reply).as_str()), (last, "too much waits for this upstream"));
}
