mod preview;
mod web_pubsub;

use clap::Parser;
use hookwire_proto::signature::AccessKey;
use hookwire_proto::token::{Audience, Claims, HostNames, check};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::input::{read_limited, text_of};
use super::*;

const KEY: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGH";

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    command: RemoteCommand,
}

fn parse(dialect: Dialect, port: u16, line: &[&str]) -> Result<RemoteCommand, clap::Error> {
    let connection =
        format!("--connection-string=Endpoint=http://127.0.0.1;Port={port};AccessKey={KEY};");
    let dialect = match dialect {
        Dialect::Preview => "--dialect=preview",
        Dialect::WebPubSub => "--dialect=web-pubsub",
    };
    let service = [connection.as_str(), "--hub=chat", dialect];
    let line = ["hookwire"].iter().chain(line).copied().chain(service);
    Line::try_parse_from(line).map(|line| line.command)
}

fn no_input() -> Result<Vec<u8>, Failure> {
    panic!("standard input is not asked for")
}

/// Carries out a command in an environment that says nothing.
async fn run(
    command: RemoteCommand,
    input: impl FnOnce() -> Result<Vec<u8>, Failure>,
) -> Result<Outcome, Failure> {
    execute(command, |_| None, input).await
}

/// Runs a command against a service that answers with a status and, after a `|`, a body; returns the request's line, type and body too.
async fn against(
    dialect: Dialect,
    answer: &str,
    line: &[&str],
    input: &'static [u8],
) -> (Result<Outcome, Failure>, String, String) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let command = parse(dialect, listener.local_addr().unwrap().port(), line).unwrap();
    let (status, content) = answer.split_once('|').unwrap_or((answer, ""));
    let length = content.len();
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{content}"
    );
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
    let (result, request) = tokio::join!(run(command, || Ok(input.to_vec())), serve);
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    let content_type =
        head.lines().find_map(|line| line.strip_prefix("content-type: ")).unwrap_or_default();
    let line = head.lines().next().unwrap().strip_suffix(" HTTP/1.1").unwrap();
    let line = line.replace("/ws/api/v1/hubs/chat/", "…").replace("/api/hubs/chat/", "…");
    let line = line.replace("api-version=2024-12-01", "v");
    (result, line, format!("{content_type}|{body}"))
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

fn claims_of(token: &str, path: &str) -> Claims {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let hosts = HostNames::parse(["localhost"]).unwrap();
    check(token, now, &[AccessKey::parse(KEY).unwrap()], &Audience { hosts: &hosts, path }).unwrap()
}

#[test]
fn the_variable_that_holds_the_connection_string_tells_the_dialect() {
    let chosen = |line: &[&str], variables: &[(&str, &str)]| {
        let line = ["hookwire", "user", "exists", "u"].iter().chain(line).copied();
        let command = Line::try_parse_from(line).unwrap().command;
        let variable = |name: &str| {
            let known = variables.iter().find(|(known, _)| *known == name);
            known.map(|(_, value)| (*value).to_owned())
        };
        match remote(command.service(), variable) {
            Ok(Remote::Preview(service)) => format!("preview {}", service.endpoint()),
            Ok(Remote::WebPubSub(service)) => format!("web-pubsub {}", service.endpoint()),
            Err(failure) => format!("{} {}", failure.code(), failure.text()),
        }
    };
    let hub = ("HubName", "chat");
    let old = ("AzureSignalRConnectionString", "Endpoint=http://old;AccessKey=k;");
    let new = ("WebPubSubConnectionString", "Endpoint=http://new;AccessKey=k;");
    let given = "--connection-string=Endpoint=http://given;AccessKey=k;";
    for (line, variables, expected) in [
        (&[][..], &[hub, old][..], "preview http://old/"),
        (&[], &[hub, new], "web-pubsub http://new/"),
        (&[], &[("WebPubSubHub", "chat"), old, new], "web-pubsub http://new/"),
        (&["--dialect=preview"], &[hub, old, new], "preview http://old/"),
        (&["--dialect=preview"], &[hub, new], "preview http://new/"),
        (&["--dialect=web-pubsub"], &[hub, old], "web-pubsub http://old/"),
        (&[given], &[hub, old], "web-pubsub http://given/"),
        (&[given, "--dialect=preview"], &[hub], "preview http://given/"),
        (&[given], &[], "2 name the hub: by --hub or HubName or WebPubSubHub"),
        (
            &["--hub=chat"],
            &[],
            "2 name the service: by --connection-string, WebPubSubConnectionString or AzureSignalRConnectionString",
        ),
    ] {
        assert_eq!(chosen(line, variables), expected);
    }
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
