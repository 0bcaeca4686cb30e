//! Abuse protection.

use super::*;

#[tokio::test]
async fn the_question_on_the_wire() {
    let (listener, url) = listen().await;
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    let upstream = async {
        let mut peer = Peer::accept(&listener).await;
        let (first, _) = peer.request().await;
        peer.write("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await;
        let (second, _) = peer.request().await;
        peer.write(WELCOME).await;
        peer.request().await;
        peer.write(NO_CONTENT).await;
        (first, second)
    };
    let (reply, (first, second)) = caller.event_while(&url, user_event("x"), upstream).await;
    assert_eq!(status(&reply), Some(204));
    let host = listener.local_addr().unwrap();
    let expected = format!(
        "OPTIONS /chat/api/event?code=s3cret HTTP/1.1\r\n\
         host: {host}\r\n\
         webhook-request-origin: hooks.example\r\n\
         ce-awpsversion: 1.0\r\n\r\n"
    );
    assert_eq!(first, expected);
    assert_eq!(second, expected.replace("OPTIONS", "GET"));
}

/// Has the question answered by `answer` and returns what becomes of the event.
async fn judged(answer: &str) -> Reply {
    let (listener, url) = listen().await;
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    caller.begin_event(&url, user_event("x"));
    let mut peer = Peer::accept(&listener).await;
    peer.request().await;
    peer.write(answer).await;
    let upstream = async {
        peer.request().await;
        peer.write(NO_CONTENT).await;
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        (_, reply) = caller.end() => reply,
        () = upstream => unreachable!("it never ends"),
    }
}

#[tokio::test]
async fn who_allows_the_origin_gets_events() {
    for lines in [
        "WebHook-Allowed-Origin: *\r\n",
        "webhook-allowed-origin: HOOKS.example\r\n",
        "WebHook-Allowed-Origin: other, hooks.example:8080\r\n",
        "WebHook-Allowed-Origin: other\r\nWebHook-Allowed-Origin: hooks.example\r\n",
    ] {
        let reply = judged(&format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{lines}\r\n")).await;
        assert_eq!(status(&reply), Some(204), "{lines}");
    }
}

#[tokio::test]
async fn whoever_does_not_gets_none_and_it_is_said_why() {
    for (answer, expected) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "AbuseProtectionResponseMissingAllowedOrigin: the upstream allows nothing, which is not hooks.example",
        ),
        (
            "HTTP/1.1 200 OK\r\nWebHook-Allowed-Origin: a\r\nWebHook-Allowed-Origin: b\r\nContent-Length: 0\r\n\r\n",
            "AbuseProtectionResponseMissingAllowedOrigin: the upstream allows a, b, which is not hooks.example",
        ),
        (
            "HTTP/1.1 403 No\r\nWebHook-Allowed-Origin: *\r\nContent-Length: 0\r\n\r\n",
            "AbuseProtectionResponseInvalidStatusCode: the upstream answered its validation with 403",
        ),
        (
            "HTTP/1.1 302 There\r\nLocation: /\r\nWebHook-Allowed-Origin: *\r\nContent-Length: 0\r\n\r\n",
            "AbuseProtectionResponseInvalidStatusCode: the upstream answered its validation with 302",
        ),
        ("nonsense\r\n\r\n", "AbuseProtectionResponseFailed: the upstream broke off"),
    ] {
        let reason = reason(judged(answer).await);
        assert!(reason.starts_with(expected), "{reason}");
    }
}

#[tokio::test]
async fn the_word_of_an_upstream_holds_for_a_minute_for_all_its_events() {
    let (listener, url) = listen().await;
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    let mut peer = None;
    for event in [connecting(), Event::Connected, user_event("x"), disconnected()] {
        let upstream = async {
            let mut open = match peer.take() {
                Some(peer) => peer,
                None => Peer::welcome(&listener).await,
            };
            let (head, _) = open.request().await;
            assert!(head.starts_with("POST "), "{head}");
            open.write(NO_CONTENT).await;
            open
        };
        let (reply, open) = caller.event_while(&url, event, upstream).await;
        assert_eq!(status(&reply), Some(204));
        peer = Some(open);
    }
    elapse(Duration::from_mins(1)).await;
    // The connection has been idle for too long as well.
    assert!(
        poll!(pin!(listener.accept())).is_pending(),
        "nothing is asked as long as nothing is due"
    );
    let upstream = async {
        let mut peer = Peer::welcome(&listener).await;
        peer.request().await;
        peer.write(NO_CONTENT).await;
    };
    let (reply, ()) = caller.event_while(&url, user_event("x"), upstream).await;
    assert_eq!(status(&reply), Some(204));
}

#[tokio::test]
async fn after_a_failure_events_fail_at_once_until_the_pause_is_over() {
    let (listener, url) = listen().await;
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    let upstream = async {
        let mut peer = Peer::accept(&listener).await;
        peer.request().await;
        peer.write("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n").await;
        peer
    };
    let (reply, mut peer) = caller.event_while(&url, connecting(), upstream).await;
    let first = reason(reply);
    // From here on nothing but this test moves the clock.
    tokio::time::pause();
    for event in [connecting(), user_event("x")] {
        caller.begin_event(&url, event);
        assert_eq!(reason(caller.end().await.1), first);
    }
    tokio::time::advance(lease::PAUSE).await;
    tokio::time::resume();
    let upstream = async {
        let (head, _) = peer.request().await;
        assert!(head.starts_with("OPTIONS "), "{head}");
        peer.write(WELCOME).await;
        peer.request().await;
        peer.write(NO_CONTENT).await;
    };
    let (reply, ()) = caller.event_while(&url, connecting(), upstream).await;
    assert_eq!(status(&reply), Some(204));
}

#[tokio::test]
async fn events_that_come_together_share_one_question() {
    let (listener, url) = listen().await;
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    for _ in 0..50 {
        caller.begin_event(&url, connecting());
    }
    let mut peer = Peer::accept(&listener).await;
    assert!(peer.request().await.0.starts_with("OPTIONS "));
    assert!(poll!(pin!(listener.accept())).is_pending(), "nobody else asks");
    peer.write("HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n").await;
    for _ in 0..50 {
        let reason = reason(caller.end().await.1);
        assert!(reason.starts_with("AbuseProtectionResponseInvalidStatusCode"), "{reason}");
    }
    assert!(poll!(pin!(listener.accept())).is_pending());
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_the_question_has_ten_seconds() {
    let (listener, url) = listen().await;
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    caller.begin_event(&url, connecting());
    let mut peer = Peer::accept(&listener).await;
    peer.request().await;
    tokio::time::pause();
    let reply = caller.end().await.1;
    assert_eq!(
        reason(reply),
        "AbuseProtectionResponseFailed: no complete answer within 10s",
        "and not the 30 s of a connect event"
    );
}

#[tokio::test]
async fn the_question_goes_to_no_refused_address() {
    let (listener, url) = listen().await;
    let refused = vec!["127.0.0.0/8".parse().unwrap()];
    let mut caller = Caller::refusing(UpstreamLimits::default(), refused).await;
    caller.begin_event(&url, connecting());
    assert_eq!(reason(caller.end().await.1), "addresses of this range are refused");
    assert!(poll!(pin!(listener.accept())).is_pending());
}

#[tokio::test]
async fn the_preview_asks_no_question() {
    let (listener, url) = listen().await;
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    let upstream = async {
        let mut peer = Peer::accept(&listener).await;
        let (head, _) = peer.request().await;
        assert!(head.starts_with("POST "), "{head}");
        peer.write(NO_CONTENT).await;
    };
    let (reply, ()) = caller.while_upstream(&url, connect(), upstream).await;
    assert_eq!(status(&reply), Some(204));
}
