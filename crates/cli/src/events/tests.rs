//! What is asked, what is printed, and what happens when a stream breaks.

use clap::Parser;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

const KEY: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";

#[derive(Debug, Parser)]
struct Line {
    #[command(flatten)]
    events: EventsArguments,
}

fn parse(line: &[&str]) -> EventsArguments {
    Line::try_parse_from(["events"].iter().chain(line)).unwrap().events
}

fn event(id: u64, verdict: &str) -> String {
    json!({
        "id": id, "time": "2026-11-24T14:00:00.000Z", "hub": "chat", "dialect": "webPubSub", "connectionId": null, "userId": "ann",
        "kind": "user", "event": "order", "url": "http://h/", "status": 500, "durationMs": 1.25, "attempts": 1, "ok": false,
        "verdict": verdict, "reason": "why\u{1b}"
    })
    .to_string()
}

/// Takes one request, answers it and ends the connection; returns the request's first line.
async fn answer(listener: &TcpListener, status: &str, body: &str) -> String {
    let (mut socket, _) = listener.accept().await.unwrap();
    let line = request(&mut socket).await;
    let answer = format!("HTTP/1.1 {status}\r\nconnection: close\r\n\r\n{body}");
    socket.write_all(answer.as_bytes()).await.unwrap();
    line
}

async fn request(socket: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        assert_ne!(socket.read_buf(&mut head).await.unwrap(), 0, "no request");
    }
    String::from_utf8(head).unwrap().lines().next().unwrap().to_owned()
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_breaks_is_begun_again_behind_the_last_entry() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let line =
        format!("--connection-string=Endpoint=http://127.0.0.1;Port={port};AccessKey={KEY};");
    let arguments = parse(&[&line, "--hub=Chat", "--failed", "--last=1"]);
    let (service, filter) = service(&arguments, |_| None).unwrap();
    let mut out = Vec::new();
    let following = follow(&service, &filter, &arguments, true, &mut out);
    let serving = async {
        let page = format!("{{\"items\":[{}],\"oldest\":1,\"newest\":7}}", event(5, "a"));
        let mut lines = vec![answer(&listener, "200 OK", &page).await];
        let stream = format!("event: missed\ndata: 3\n\nid: 8\ndata: {}\n\nid: 9", event(8, "b"));
        lines.push(answer(&listener, "200 OK", &stream).await);
        lines.push(answer(&listener, "503 No", "").await);
        lines.push(answer(&listener, "401 No", "").await);
        lines
    };
    let (ended, lines) = tokio::join!(following, serving);
    assert!(matches!(ended, Err(Ended::Service(ServiceError::Status { .. }))), "{ended:?}");
    let again = "GET /admin/v1/events/live?hub=chat&failed=true&after=";
    assert_eq!(
        lines,
        [
            "GET /admin/v1/events?limit=1&hub=chat&failed=true HTTP/1.1".to_owned(),
            format!("{again}7 HTTP/1.1"),
            format!("{again}8 HTTP/1.1"),
            format!("{again}8 HTTP/1.1"),
        ]
    );
    let printed: Vec<serde_json::Value> = String::from_utf8(out)
        .unwrap()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(printed[0]["verdict"], "a");
    assert_eq!(printed[1], json!({ "missed": 3 }));
    assert_eq!(printed[2], serde_json::from_str::<serde_json::Value>(&event(8, "b")).unwrap());
    assert_eq!(printed.len(), 3);
}

#[test]
fn an_entry_is_told_in_columns() {
    let event: LoggedEvent = serde_json::from_str(&event(1, "upstream_failed")).unwrap();
    assert_eq!(
        as_text(&event),
        "14:00:00.000Z wrong chat         user order           ann              500      1.2 ms  upstream_failed      http://h/\n              \
         why\\u{1b}"
    );
}

#[test]
fn the_service_must_be_named() {
    assert!(service(&parse(&[]), |_| None).is_err());
    let of_preview = |name: &str| {
        (name == PREVIEW_VARIABLE).then(|| format!("Endpoint=http://h;AccessKey={KEY};"))
    };
    assert!(service(&parse(&[]), of_preview).is_ok());
    assert!(service(&parse(&["--hub=9"]), of_preview).is_err());
}
