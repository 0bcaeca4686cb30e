use clap::Parser;
use hookwire_proto::signature::AccessKey;
use hookwire_proto::token::{Audience, Claims, HostNames, check};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const KEY: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGH";

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    command: RemoteCommand,
}

fn parse(port: u16, line: &[&str]) -> Result<RemoteCommand, clap::Error> {
    let connection =
        format!("--connection-string=Endpoint=http://127.0.0.1;Port={port};AccessKey={KEY};");
    let line = ["hookwire"].iter().chain(line).copied().chain([connection.as_str(), "--hub=chat"]);
    Line::try_parse_from(line).map(|line| line.command)
}

fn no_input() -> Result<Vec<u8>, Failure> {
    panic!("standard input is not asked for")
}

/// Runs a command against a service that answers with `status`; returns the request's line, type and body too.
async fn against(
    status: &str,
    line: &[&str],
    input: &'static [u8],
) -> (Result<Outcome, Failure>, String, String) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let command = parse(listener.local_addr().unwrap().port(), line).unwrap();
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let serve = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut request = Vec::new();
        // The client sends head and body of such small requests before it waits; the answer comes when all is there.
        while !is_whole(&request) {
            assert_ne!(socket.read_buf(&mut request).await.unwrap(), 0, "the request is complete");
        }
        socket.write_all(answer.as_bytes()).await.unwrap();
        String::from_utf8_lossy(&request).into_owned()
    };
    let (result, request) = tokio::join!(execute(command, || Ok(input.to_vec())), serve);
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let content_type =
        head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default();
    let line = head.lines().next().unwrap().strip_suffix(" HTTP/1.1").unwrap();
    (result, line.replace("/ws/api/v1/hubs/chat/", "…"), format!("{content_type}|{body}"))
}

fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return false };
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))
        .map_or(0, |text| text.parse().unwrap());
    length <= body.len()
}

async fn sent(line: &[&str], input: &'static [u8]) -> (String, String) {
    let (result, line, content) = against("200 OK", line, input).await;
    assert_eq!(result.unwrap(), Outcome::Done("sent"));
    (line, content)
}

#[tokio::test]
async fn a_message_goes_to_everyone_or_to_one_recipient() {
    let expected = |line: &str, content: &str| (line.to_owned(), content.to_owned());
    assert_eq!(sent(&["send", "hi"], b"").await, expected("POST …", "text/plain|hi"));
    assert_eq!(
        sent(&["send", "--user=a b", "hi"], b"").await,
        expected("POST …users/a%20b", "text/plain|hi")
    );
    assert_eq!(
        sent(&["send", "--group", "g", "hi"], b"").await,
        expected("POST …groups/g", "text/plain|hi")
    );
    assert_eq!(
        sent(&["send", "--connection", "i", "hi"], b"").await,
        expected("POST …connections/i", "text/plain|hi")
    );
    let binary = "application/octet-stream|hi";
    assert_eq!(sent(&["send", "--binary", "hi"], b"").await, expected("POST …", binary));
}

#[tokio::test]
async fn a_message_may_come_from_standard_input() {
    assert_eq!(sent(&["send"], b"two\nlines\r\n").await.1, "text/plain|two\nlines");
    assert_eq!(sent(&["send", "--binary"], b"raw\n").await.1, "application/octet-stream|raw\n");
    let failure = text_of(vec![0xff]).unwrap_err();
    assert_eq!(failure.code(), 2);
    assert!(
        failure.text().starts_with("standard input is not UTF-8 text: send it with --binary: "),
        "{}",
        failure.text()
    );
    assert_eq!(read_limited(std::io::repeat(b'x').take(1 << 20)).unwrap().len(), 1 << 20);
    assert_eq!(read_limited(std::io::repeat(b'x')).unwrap_err().code(), 2);
}

#[tokio::test]
async fn questions_have_an_exit_code() {
    for (status, code, text) in [("200 OK", 0, "yes"), ("404 Not Found", 1, "no")] {
        for (line, request) in [
            (&["group", "exists", "g"][..], "HEAD …groups/g"),
            (&["group", "contains", "g", "--user", "u"], "GET …groups/g/users/u"),
            (&["user", "exists", "u"], "HEAD …users/u"),
            (&["connection", "exists", "i"], "HEAD …connections/i"),
        ] {
            let (result, asked, _) = against(status, line, b"").await;
            let outcome = result.unwrap();
            assert_eq!(
                (asked.as_str(), outcome.code(), outcome.to_string().as_str()),
                (request, code, text)
            );
            assert_eq!(outcome.to_json(), json!({ "answer": code == 0 }));
        }
    }
}

#[tokio::test]
async fn changes_are_one_request_each() {
    for (line, request, text) in [
        (&["group", "add", "g", "--user", "u"][..], "PUT …groups/g/users/u", "added"),
        (
            &["group", "add", "g", "--user", "u", "--ttl", "60"],
            "PUT …groups/g/users/u?ttl=60",
            "added",
        ),
        (&["group", "add", "g", "--connection", "i"], "PUT …groups/g/connections/i", "added"),
        (&["group", "remove", "g", "--user", "u"], "DELETE …groups/g/users/u", "removed"),
        (
            &["group", "remove", "g", "--connection", "i"],
            "DELETE …groups/g/connections/i",
            "removed",
        ),
        (&["user", "leave-groups", "u"], "DELETE …users/u/groups", "removed"),
        (&["connection", "close", "i"], "DELETE …connections/i", "closed"),
        (
            &["connection", "close", "i", "--reason", "a b"],
            "DELETE …connections/i?reason=a%20b",
            "closed",
        ),
    ] {
        let (result, asked, _) = against("200 OK", line, b"").await;
        let outcome = result.unwrap();
        assert_eq!(
            (asked.as_str(), outcome.code(), outcome.to_string().as_str()),
            (request, 0, text)
        );
        assert_eq!(outcome.to_json(), json!({ "ok": true }));
    }
}

#[tokio::test]
async fn a_refusal_has_its_status_in_json() {
    let (result, ..) = against("401 Unauthorized", &["user", "exists", "u"], b"").await;
    let failure = result.unwrap_err();
    assert_eq!((failure.code(), failure.to_json()["status"].as_u64()), (3, Some(401)));
    assert!(failure.text().ends_with("/users/u with 401 Unauthorized"), "{}", failure.text());
}

#[tokio::test]
async fn what_cannot_be_asked_is_wrong_usage() {
    let run = async |line: &[&str]| execute(parse(1, line).unwrap(), no_input).await.unwrap_err();
    assert_eq!(run(&["user", "exists", ""]).await.code(), 2);
    assert_eq!(run(&["connection", "close", "i", "--reason", &"r".repeat(124)]).await.code(), 2);
    let line = [
        "hookwire",
        "user",
        "exists",
        "u",
        "--hub=chat",
        "--connection-string=Endpoint=http://h;secret",
    ];
    let failure = execute(Line::try_parse_from(line).unwrap().command, no_input).await.unwrap_err();
    assert_eq!(failure.code(), 2);
    assert_eq!(
        failure.to_json(),
        json!({ "error": "part 2 of the connection string is not of the form Name=value" })
    );
}

#[test]
fn arguments_that_exclude_each_other_are_refused() {
    for line in [
        &["send", "hi", "--user", "u", "--group", "g"][..],
        &["group", "add", "g"],
        &["group", "add", "g", "--user", "u", "--connection", "i"],
        &["group", "add", "g", "--connection", "i", "--ttl", "5"],
        &["group", "add", "g", "--user", "u", "--ttl", "0"],
        &["token", "client", "--claim", "=x"],
    ] {
        assert_eq!(parse(1, line).unwrap_err().exit_code(), 2, "{line:?}");
    }
}

fn claims_of(token: &str, path: &str) -> Claims {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let hosts = HostNames::parse(["localhost"]).unwrap();
    check(token, now, &[AccessKey::parse(KEY).unwrap()], &Audience { hosts: &hosts, path }).unwrap()
}

async fn made(line: &[&str]) -> String {
    let outcome = execute(parse(8080, line).unwrap(), no_input).await.unwrap();
    let Outcome::Made { value, .. } = outcome else { panic!("{outcome:?}") };
    value
}

#[tokio::test]
async fn tokens_are_made_without_a_service() {
    let url = made(&[
        "token",
        "client",
        "--user",
        "ann",
        "--lifetime=60",
        "--claim=role=a",
        "--claim=role=b",
        "--claim=role=c",
        "--claim=x=y=z",
    ])
    .await;
    let token = url.strip_prefix("ws://127.0.0.1:8080/ws/client/hubs/chat?access_token=").unwrap();
    let claims = claims_of(token, "/ws/client/hubs/chat");
    assert_eq!(claims.sub(), Some("ann"));
    assert_eq!(
        (claims.get("role"), claims.get("x")),
        (Some(&json!(["a", "b", "c"])), Some(&json!("y=z")))
    );

    let binary = made(&["token", "client", "--format", "binary"]).await;
    assert!(
        binary.starts_with("ws://127.0.0.1:8080/ws/client/hubs/chat?format=binary&access_token="),
        "{binary}"
    );

    claims_of(&made(&["token", "rest"]).await, "/ws/api/v1/hubs/chat/");
    claims_of(&made(&["token", "rest", "/manage/v1/ws/upstream"]).await, "/manage/v1/ws/upstream");
}

#[test]
fn the_help_tells_of_the_environment_and_of_exit_codes() {
    let mut command = <Line as clap::CommandFactory>::command();
    let send = command.find_subcommand_mut("send").unwrap().render_long_help().to_string();
    assert!(
        send.contains("AzureSignalRConnectionString") && send.contains("Exit codes:"),
        "{send}"
    );
}
