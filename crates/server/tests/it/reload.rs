//! A configuration that changes while the node runs.

use std::fs;
use std::path::{Path, PathBuf};

use futures_util::SinkExt;
use hookwire_proto::signature::{AccessKey, verify};
use hookwire_server::reload::Source;
use rustix::process::{Signal, getpid, kill_process};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::node::{DEADLINE, KEYS, TestNode, next, signed, start_from, until};
use crate::tunnel::{Tunnel, refused};
use crate::upstream::{Upstream, ok};

const NEW_KEY: &str = "tertiary-key-tertiary-key-tertiary-key-0";

/// A node that follows its configuration.
struct Followed {
    node: TestNode,
    file: PathBuf,
    text: String,
}

/// Starts a node by a file with a key in a file beside it; `more` is the end of the former.
async fn follow(more: &str) -> Followed {
    let folder = tempfile::tempdir().unwrap();
    let key_file = folder.path().join("secondary-key");
    fs::write(&key_file, KEYS[1]).unwrap();
    let text = format!(
        "listen = [\"127.0.0.1:0\"]\nshards = 2\ndata_dir = '{}'\naccess_keys = [\"{}\"]\n\
         access_key_files = ['{}']\n",
        folder.path().join("data").display(),
        KEYS[0],
        key_file.display(),
    );
    let file = folder.path().join("hookwire.toml");
    fs::write(&file, format!("{text}{more}")).unwrap();
    let mut source = Source::new(Some(file.clone()), []);
    let (config, warnings) = source.load().unwrap();
    assert_eq!(warnings, [""; 0]);
    let node = start_from(config, folder).await;
    node.node.follow(source).unwrap();
    Followed { node, file, text }
}

/// Replaces a file as editors and orchestrators do: at once.
fn replace(file: &Path, text: &str) {
    let new = file.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, file).unwrap();
}

impl Followed {
    /// Replaces the end of the configuration.
    fn rewrite(&self, more: &str) {
        replace(&self.file, &format!("{}{more}", self.text));
    }

    /// Returns how many reloads had a result.
    async fn reloads(&self, result: &str) -> u64 {
        let (_, metrics) = self.node.raw("GET", "/metrics", "", b"").await;
        let name = format!("hookwire_configuration_reloads_total{{result=\"{result}\"}} ");
        let value = metrics.lines().find_map(|line| line.strip_prefix(&name));
        value.map_or(0, |value| value.trim().parse().unwrap())
    }

    /// Returns the status of a broadcast by a holder of `key`.
    async fn broadcast(&self, key: &str, body: &str) -> u16 {
        let path = "/ws/api/v1/hubs/chat";
        let token = signed(path, None, key);
        let head = format!("Authorization: Bearer {token}\r\nContent-Type: text/plain\r\n");
        self.node.raw("POST", path, &head, body.as_bytes()).await.0
    }
}

fn templates(upstream: &Upstream) -> String {
    format!("[[upstream.template]]\nurl_template = \"http://{}/{{event}}\"\n", upstream.address)
}

async fn everybody() -> Upstream {
    Upstream::start(|_| ok("X-ASRS-User-Id: u\r\n", "")).await
}

#[tokio::test]
async fn keys_are_rotated_without_dropping_anyone() {
    let mut upstream = everybody().await;
    let followed = follow(&templates(&upstream)).await;
    let token = signed("/ws/client/hubs/chat", Some("ann"), KEYS[1]);
    let mut client =
        followed.node.connect("chat", &format!("?access_token={token}")).await.unwrap();
    assert_eq!(upstream.next().await.event(), "connect");
    assert_eq!(followed.broadcast(KEYS[1], "by the old key").await, 200);
    assert_eq!(next(&mut client).await, Some(Message::text("by the old key")));

    replace(&followed.file.with_file_name("secondary-key"), NEW_KEY);
    until("the new key opens", async || followed.broadcast(NEW_KEY, "by the new key").await == 200)
        .await;
    assert_eq!(followed.broadcast(KEYS[1], "by the old key").await, 401);
    assert_eq!(followed.broadcast(KEYS[0], "by the one that stays").await, 200);
    assert_eq!(next(&mut client).await, Some(Message::text("by the new key")));
    assert_eq!(next(&mut client).await, Some(Message::text("by the one that stays")));

    client.send(Message::text("hello")).await.unwrap();
    let message = upstream.next().await;
    assert_eq!(message.event(), "message");
    let signature = message.header("X-ASRS-Signature").unwrap();
    let id = message.header("X-ASRS-Connection-Id").unwrap();
    let by = |key| verify(&[AccessKey::parse(key).unwrap()], id, signature);
    assert!(by(KEYS[0]) && by(NEW_KEY) && !by(KEYS[1]), "{signature}");
    assert!(followed.node.node.shutdown().await);
}

#[tokio::test]
async fn what_an_old_key_opened_is_opened_again_by_keys_in_force() {
    let followed = follow("").await;
    let node = &followed.node;
    let tunnel_token = |key| signed("/server/tunnel?hub=chat", Some("me"), key);
    let mut tunnel = Tunnel::open_by(node, "chat", &tunnel_token(KEYS[1])).await;
    let path = "/admin/v1/events/live";
    let live = format!("Authorization: Bearer {}\r\n", signed(path, None, KEYS[1]));
    let reading = async {
        let (status, text) = node.raw("GET", &format!("{path}?after=0"), &live, b"").await;
        assert_eq!(status, 200);
        assert!(text.ends_with("0\r\n\r\n"), "the stream ends in order: {text}");
    };
    let rotating = async {
        // Other settings close nothing.
        followed.rewrite("[limits]\nmessage_bytes_max = 1024\n");
        until("it is reloaded", async || followed.reloads("applied").await == 1).await;
        assert_eq!(tunnel.call("HEAD", "chat/users/nobody", "").await.0, 404);
        replace(&followed.file.with_file_name("secondary-key"), NEW_KEY);
        tunnel.is_sent_away().await;
    };
    let both = async { tokio::join!(reading, rotating) };
    tokio::time::timeout(DEADLINE, both).await.unwrap();
    assert_eq!(refused(node, "chat", &tunnel_token(KEYS[1])).await, 401);
    let mut tunnel = Tunnel::open_by(node, "chat", &tunnel_token(NEW_KEY)).await;
    assert_eq!(tunnel.call("HEAD", "chat/users/nobody", "").await.0, 404);
}

#[tokio::test]
async fn a_faulty_file_changes_nothing_and_a_mended_one_everything() {
    let (mut one, mut other) = (everybody().await, everybody().await);
    let followed = follow(&templates(&one)).await;
    let mut client = followed.node.connect("chat", "").await.unwrap();
    assert_eq!(one.next().await.event(), "connect");

    let limits = "[limits]\nmessage_bytes_max = 1024\nrest_body_bytes_max = 2048\n";
    let better = templates(&other) + limits;
    followed.rewrite(&format!("{better}no_such_key = 1\n"));
    until("the fault is seen", async || followed.reloads("faulty").await == 1).await;
    let long = "x".repeat(1_500);
    client.send(Message::text(long.clone())).await.unwrap();
    assert_eq!(one.next().await.body, long.as_bytes(), "everything is as it was");

    followed.rewrite(&better);
    until("it is mended", async || followed.reloads("applied").await == 1).await;
    client.send(Message::text("short")).await.unwrap();
    assert_eq!(other.next().await.body, b"short", "events go where the new file says");
    assert_eq!(followed.broadcast(KEYS[0], &"x".repeat(3_000)).await, 413);
    client.send(Message::text(long)).await.unwrap();
    let Some(Message::Close(Some(frame))) = next(&mut client).await else {
        panic!("a close frame is due")
    };
    assert_eq!(frame.code, CloseCode::Size);
    assert_eq!(other.next().await.event(), "disconnect");
}

#[tokio::test]
async fn a_signal_reloads_and_what_cannot_change_stays() {
    let upstream = everybody().await;
    let followed = follow(&templates(&upstream)).await;
    // Nothing has changed, but it was asked for.
    kill_process(getpid(), Signal::HUP).unwrap();
    until("it was read again", async || followed.reloads("unchanged").await == 1).await;
    let moved = followed.text.replace("127.0.0.1:0", "127.0.0.1:1").replace("= 2", "= 3");
    replace(&followed.file, &(moved + &templates(&upstream)));
    until("it was read once more", async || followed.reloads("unchanged").await == 2).await;
    assert_eq!(followed.broadcast(KEYS[1], "x").await, 200, "it listens where it did");
    let (_, metrics) = followed.node.raw("GET", "/metrics", "", b"").await;
    assert!(metrics.contains("{shard=\"1\"}") && !metrics.contains("{shard=\"2\"}"));
    fs::remove_file(&followed.file).unwrap();
    until("the loss is seen", async || followed.reloads("faulty").await == 1).await;
    assert_eq!(followed.broadcast(KEYS[1], "x").await, 200);
}

#[tokio::test]
async fn templates_set_at_run_time_win_over_a_reloaded_file() {
    let (one, mut other) = (everybody().await, everybody().await);
    let followed = follow(&templates(&one)).await;
    let path = "/manage/v1/ws/upstream";
    let authorization = format!("Authorization: Bearer {}\r\n", signed(path, None, KEYS[0]));
    let stored = format!("{{\"templates\":[{{\"urlTemplate\":\"http://{}/\"}}]}}", other.address);
    let set = followed.node.raw("POST", path, &authorization, stored.as_bytes()).await;
    assert_eq!(set.0, 200, "{}", set.1);
    followed.rewrite(&(templates(&one) + "[defaults]\nanonymous_connect = \"allow\"\n"));
    until("it is reloaded", async || followed.reloads("applied").await == 1).await;
    let (_, answer) = followed.node.raw("GET", path, &authorization, b"").await;
    assert!(answer.ends_with(&stored), "{answer}");
    let _client = followed.node.connect("chat", "").await.unwrap();
    assert_eq!(other.next().await.event(), "connect");
    assert!(one.is_quiet());
    // The rest of the file holds: without a token nobody could come in here before.
    let url = format!("ws://{}/client/hubs/chat", followed.node.address);
    tokio_tungstenite::connect_async(url).await.unwrap();
}
