//! The check of an upstream: each fault is found and named, and a good upstream is called good.

use std::net::SocketAddr;
use std::time::Duration;

use hookwire_proto::signature::{AccessKey, verify};
use hookwire_server::check::{Check, CheckDialect, CheckError, Step};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::node::KEYS;
use crate::upstream::{Answer, Request, Upstream, ok, welcome};

fn preview(url: String) -> Check {
    Check {
        url,
        dialect: CheckDialect::Preview,
        timeout: Duration::from_secs(5),
        ..Check::default()
    }
}

fn web_pubsub(url: String) -> Check {
    Check { dialect: CheckDialect::WebPubSub, ..preview(url) }
}

fn key(at: usize) -> AccessKey {
    AccessKey::parse(KEYS[at]).unwrap()
}

fn words(steps: &[Step]) -> Vec<(&str, &str)> {
    steps.iter().map(|step| (step.kind, step.verdict)).collect()
}

#[expect(clippy::unnecessary_wraps, reason = "it stands where no answer could stand")]
fn no() -> Answer {
    Some("HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n".to_owned())
}

/// Whether a request is signed with the first key.
fn is_signed(request: &Request) -> bool {
    let id = request.header("ce-connectionid").or(request.header("X-ASRS-Connection-Id"));
    let signature = request.header("ce-signature").or(request.header("X-ASRS-Signature"));
    verify(&[key(0)], id.unwrap_or_default(), signature.unwrap_or_default())
}

/// Checks an upstream that wants events and answers the others by `answer`; returns what went wrong.
async fn fault(answer: impl Fn(&Request) -> Answer + Clone + Send + 'static) -> (String, String) {
    let upstream = Upstream::start(move |request| match request.ce_event() {
        "validate" => welcome(),
        _ => answer(request),
    })
    .await;
    let mut check = web_pubsub(format!("http://{}/hook", upstream.address));
    check.timeout = Duration::from_millis(500);
    let steps = check.run().await.unwrap();
    let step = steps.into_iter().find(|step| !step.ok).expect("something is wrong");
    (step.verdict.to_owned(), step.reason.unwrap())
}

#[tokio::test]
async fn a_good_upstream_is_called_good_in_both_dialects() {
    let mut upstream = Upstream::start(|request| match request.ce_event() {
        "validate" => welcome(),
        _ if !is_signed(request) => no(),
        _ => ok("X-ASRS-User-Id: ann\r\nce-connectionState: c3RhdGU=\r\n", ""),
    })
    .await;
    let keys = vec![key(0)];
    let url = format!("http://{}/{{hub}}/{{event}}?code=secret", upstream.address);
    let steps = Check { keys: keys.clone(), ..web_pubsub(url.clone()) }.run().await.unwrap();
    assert_eq!(
        words(&steps),
        [
            ("validation", "validated"),
            ("connect", "delivered"),
            ("signature", "signature_checked"),
            ("connected", "delivered"),
            ("user", "delivered"),
            ("disconnected", "delivered"),
        ]
    );
    assert!(steps.iter().all(|step| step.ok && step.notes.is_empty()), "{steps:?}");
    assert_eq!(steps[1].url, format!("http://{}/chat/connect", upstream.address));
    let mut requests = Vec::new();
    while !upstream.is_quiet() {
        requests.push(upstream.next().await);
    }
    let user = requests.iter().find(|request| request.ce_event() == "message").unwrap();
    assert_eq!(user.header("ce-connectionstate"), Some("c3RhdGU="), "as the service repeats it");

    let steps = Check { keys, ..preview(url) }.run().await.unwrap();
    assert_eq!(
        words(&steps),
        [
            ("connect", "delivered"),
            ("signature", "signature_checked"),
            ("message", "delivered"),
            ("disconnected", "delivered"),
        ]
    );
}

#[tokio::test]
async fn an_upstream_that_takes_everything_is_told_of_it() {
    let upstream = Upstream::start(|_| ok("", "")).await;
    let url = format!("http://{}/", upstream.address);
    let steps = Check { keys: vec![key(0)], ..preview(url) }.run().await.unwrap();
    assert!(steps.iter().all(|step| step.ok));
    assert!(steps[0].notes[0].contains("X-ASRS-User-Id"), "{steps:?}");
    assert_eq!(steps[1].verdict, "signature_not_checked");
    assert_eq!(steps[1].notes.len(), 1);
}

#[tokio::test]
async fn an_upstream_that_checks_another_key_is_found() {
    let upstream =
        Upstream::start(|request| if is_signed(request) { ok("", "") } else { no() }).await;
    let url = format!("http://{}/", upstream.address);
    let steps = Check { keys: vec![key(1)], ..preview(url) }.run().await.unwrap();
    assert_eq!(steps[0].verdict, "refused_by_upstream");
    assert_eq!(steps[0].status, Some(401));
    assert!(steps[0].reason.as_deref().unwrap().contains("another access key"), "{steps:?}");
}

/// Starts a server that greets everybody by something that is no TLS.
async fn speaks_no_tls() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                socket.write_all(b"HTTP/1.1 400 No\r\n\r\n").await.unwrap();
                // Until the client has had enough.
                let _ = socket.read_to_end(&mut Vec::new()).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn what_cannot_be_reached_ends_the_check() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let mut check = preview(format!("http://{address}/"));
    check.timeout = Duration::from_millis(200);
    let steps = check.run().await.unwrap();
    assert_eq!(steps.len(), 1);
    assert!(["connect_failed", "timed_out"].contains(&steps[0].verdict), "{steps:?}");

    let plain = speaks_no_tls().await;
    let steps = web_pubsub(format!("https://{plain}/")).run().await.unwrap();
    assert_eq!(words(&steps), [("validation", "validation_failed")]);
    let steps = preview(format!("https://{plain}/")).run().await.unwrap();
    assert_eq!(words(&steps), [("connect", "tls_failed")]);
    for url in ["ftp://h/", "x", "http://{event}/"] {
        let checked = preview(url.to_owned()).run().await;
        assert!(matches!(checked, Err(CheckError::Url(_))), "{url}");
    }
}

#[tokio::test]
async fn an_upstream_that_does_not_want_events_is_told_how_to() {
    for (answer, verdict, words) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", "not_allowed_origin", "names nothing"),
        (
            "HTTP/1.1 200 OK\r\nWebHook-Allowed-Origin: other\r\nContent-Length: 0\r\n\r\n",
            "not_allowed_origin",
            "names other, needed is hooks.example or *",
        ),
        ("HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n", "validation_refused", "500"),
    ] {
        let upstream = Upstream::start(move |_| Some(answer.to_owned())).await;
        let mut check = web_pubsub(format!("http://{}/", upstream.address));
        check.origin = "hooks.example".to_owned();
        let steps = check.run().await.unwrap();
        assert_eq!(steps.len(), 1, "{steps:?}");
        assert_eq!((steps[0].kind, steps[0].verdict), ("validation", verdict));
        assert!(steps[0].reason.as_deref().unwrap().contains(words), "{steps:?}");
    }
}

#[tokio::test]
async fn each_bad_answer_has_its_name() {
    let status = |line: &str| Some(format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n"));
    let (verdict, reason) = fault(move |_| status("404 Not Found")).await;
    assert_eq!(verdict, "not_found");
    assert!(reason.contains("URL template"), "{reason}");
    assert_eq!(fault(move |_| status("302 Found")).await.0, "redirected");
    let (verdict, reason) =
        fault(|_| ok("Content-Type: application/json\r\n", "{\"subprotocol\": \"mine\"}")).await;
    assert_eq!(verdict, "bad_answer");
    assert!(reason.contains("\"mine\", which the client did not offer"), "{reason}");
    let (verdict, reason) = fault(|_| ok("", "[]")).await;
    assert_eq!(verdict, "bad_answer");
    assert!(reason.contains("JSON object"), "{reason}");
    assert_eq!(fault(|_| None).await.0, "timed_out");
    let (verdict, reason) =
        fault(|_| Some("HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n".to_owned())).await;
    assert_eq!(verdict, "too_large");
    assert!(reason.contains("1048576"), "{reason}");
    let not_json = |request: &Request| match request.ce_event() {
        "message" => ok("Content-Type: application/json\r\n", "not json"),
        _ => ok("", ""),
    };
    let (verdict, reason) = fault(not_json).await;
    assert_eq!(verdict, "bad_answer");
    assert!(reason.contains("declared as JSON"), "{reason}");
    let (verdict, reason) = fault(|_| ok("Content-Encoding: gzip\r\n", "x")).await;
    assert_eq!(verdict, "bad_answer");
    assert!(reason.contains("compression"), "{reason}");
    let cut = |_: &Request| {
        Some("HTTP/1.1 200 OK\r\nContent-Length: 9\r\nConnection: close\r\n\r\nshort".to_owned())
    };
    let broken = fault(cut).await.0;
    assert!(["broken_off", "timed_out"].contains(&broken.as_str()), "{broken}");
}
