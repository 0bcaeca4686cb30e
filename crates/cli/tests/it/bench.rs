//! The load generator against services that it starts, with numbers so small that nothing but the order of things is tested.

use std::process::{Command, Output};

use axum::Router;
use axum::routing::post;
use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::broadcast;
use tokio::task::spawn_blocking;
use tokio_tungstenite::tungstenite::Message;

fn bench(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_hookwire"))
        .args(["--json", "bench"])
        .args(arguments)
        .env("HOOKWIRE_LOG", "warn")
        .output()
        .expect("the command can be started")
}

fn outcome(arguments: &[&str]) -> Value {
    let output = bench(arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("it prints one JSON object")
}

#[test]
fn every_message_reaches_every_receiver_in_each_mode() {
    for (mode, expected) in
        [(["--mode", "lone"], "lone"), (["--mode", "burst"], "burst"), (["--rate", "200"], "rate")]
    {
        let small = ["fanout", "--connections", "9", "--messages", "70", "--rounds", "2"];
        let outcome = outcome(&[&small[..], &mode[..]].concat());
        assert_eq!(outcome["mode"], expected);
        let rounds = outcome["rounds"].as_array().unwrap();
        assert_eq!(rounds.len(), 2);
        for round in rounds {
            assert_eq!(round["deliveries"], 9 * 70);
            assert!(0.0 < round["cost_per_delivery"]["all"].as_f64().unwrap());
            assert_eq!(round["ratio"].is_number(), expected != "rate", "{round}");
        }
    }
}

#[test]
fn every_form_of_client_gets_every_message() {
    let small = ["fanout", "--connections", "10", "--messages", "220", "--rounds", "1"];
    for wire in ["json", "protobuf", "json-reliable", "protobuf-reliable", "mixed"] {
        let outcome = outcome(&[&small[..], &["--mode", "burst", "--wire", wire]].concat());
        assert_eq!(outcome["wire"], wire);
        assert_eq!(outcome["rounds"][0]["deliveries"], 10 * 220);
        assert!(outcome["rounds"][0]["ratio"].is_number(), "{outcome}");
    }
}

#[test]
fn groups_and_users_get_their_messages_in_turn() {
    let small = ["fanout", "--connections", "10", "--messages", "60", "--rounds", "1"];
    for (to, wire, receivers) in [
        (&["--to", "group"][..], "simple", 10),
        (&["--to", "groups", "--groups", "25", "--group-size", "4"], "mixed", 4),
        (&["--to", "users"], "json-reliable", 1),
    ] {
        let outcome = outcome(&[&small[..], to, &["--wire", wire]].concat());
        assert_eq!(outcome["receivers"], receivers);
        assert_eq!(outcome["rounds"][0]["deliveries"], 60 * receivers);
    }
    let full = bench(&["fanout", "--connections", "3", "--to", "groups", "--group-size", "4"]);
    let error = String::from_utf8_lossy(&full.stderr);
    assert!(error.contains("a group of 4 needs as many connections, not 3"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_is_measured_by_the_same_clients() {
    let (clients, _) = broadcast::channel::<String>(64);
    let sockets = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("ws://{}/", sockets.local_addr().unwrap());
    let messages = clients.clone();
    tokio::spawn(async move {
        while let Ok((socket, _)) = sockets.accept().await {
            let mut messages = messages.subscribe();
            tokio::spawn(async move {
                let mut socket = tokio_tungstenite::accept_async(socket).await.unwrap();
                for expected in ["connect", "subscribe"] {
                    let hello = socket.next().await.unwrap().unwrap();
                    assert_eq!(hello.into_text().unwrap(), expected);
                    socket.send(Message::text(format!("did {expected}"))).await.unwrap();
                }
                while let Ok(message) = messages.recv().await {
                    if socket.send(Message::text(message)).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    let publish = post(async move |body: String| {
        clients.send(format!("{{\"data\":{body}}}")).map_or(0, |count| count).to_string()
    });
    let calls = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let publish_url = format!("http://{}/pub", calls.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(calls, Router::new().route("/pub", publish)).await });

    let arguments = [
        "fanout --connections 7 --messages 30 --rounds 1 --hello connect|subscribe --publish-body",
        "\"@\"",
        "--ready",
        "did subscribe",
        "--url",
        &url,
        "--publish-url",
        &publish_url,
    ];
    let mut all: Vec<String> = arguments[0].split(' ').map(str::to_owned).collect();
    all.extend(arguments[1..].iter().map(|argument| (*argument).to_owned()));
    let pid = std::process::id().to_string();
    all.extend(["--pid", &pid, "--pid-tree"].map(str::to_owned));
    let outcome =
        spawn_blocking(move || outcome(&all.iter().map(String::as_str).collect::<Vec<_>>()));
    let outcome = outcome.await.unwrap();
    assert_eq!(outcome["rounds"][0]["deliveries"], 7 * 30);
    assert!(outcome["wire"].is_null() && outcome["shards"].is_null(), "{outcome}");
    assert!(outcome["rounds"][0]["ratio"].is_number(), "{outcome}");
}

#[test]
fn instructions_are_counted_where_valgrind_is() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().to_str().unwrap();
    let small = ["--connections", "4", "--rounds", "1", "--instructions", folder];
    let without = Command::new(env!("CARGO_BIN_EXE_hookwire"))
        .args(["bench", "fanout"])
        .args(small)
        .env("PATH", "")
        .output()
        .unwrap();
    let error = String::from_utf8_lossy(&without.stderr);
    assert!(
        !without.status.success() && error.contains("valgrind, which is not installed"),
        "{error}"
    );

    if Command::new("valgrind").arg("--version").output().is_err() {
        eprintln!("valgrind is not installed: nothing is counted");
        return;
    }
    let fanout = outcome(&[&["fanout", "--messages", "20"][..], &small].concat());
    assert_eq!(fanout["unit"], "instructions");
    let cost = &fanout["rounds"][0]["cost_per_delivery"];
    let [all, shards] = ["all", "shards"].map(|of| cost[of].as_f64().unwrap());
    assert!(0.0 < shards && shards < all, "{fanout}");
    assert!(0.0 < fanout["rounds"][0]["floor_per_delivery"].as_f64().unwrap());
    let echo = outcome(&[&["echo", "--messages", "40"][..], &small].concat());
    assert!(0.0 < echo["summary"]["cost_per_message"]["min"].as_f64().unwrap());
}

#[test]
fn messages_longer_than_one_read_are_counted_whole() {
    let outcome = outcome(&[
        "fanout",
        "--connections",
        "3",
        "--messages",
        "5",
        "--rounds",
        "1",
        "--size",
        "65536",
    ]);
    assert_eq!(outcome["rounds"][0]["deliveries"], 3 * 5);
}

#[test]
fn echoes_come_back_one_by_one_and_many_at_once() {
    for in_flight in ["1", "32"] {
        let small = ["echo", "--connections", "5", "--messages", "500", "--rounds", "1"];
        let outcome = outcome(&[&small[..], &["--in-flight", in_flight]].concat());
        assert_eq!(outcome["messages_per_round"], 500);
        assert!(0.0 < outcome["summary"]["cost_per_message"]["min"].as_f64().unwrap());
    }
}

#[test]
fn clients_connect_again_and_again() {
    let outcome = outcome(&["connect", "--connections", "20", "--rounds", "3"]);
    assert_eq!(outcome["rounds"].as_array().unwrap().len(), 3);
}

#[test]
fn an_upstream_lets_clients_in() {
    for dialect in ["preview", "web-pubsub"] {
        let small = ["connect", "--upstream", "--connections", "20", "--rounds", "1"];
        let outcome = outcome(&[&small[..], &["--dialect", dialect]].concat());
        assert_eq!(outcome["rounds"].as_array().unwrap().len(), 1);
        assert_eq!(outcome["upstream"], true);
    }
}

#[test]
fn rest_sends_are_answered_in_each_dialect_and_compared_with_a_bare_server() {
    for (dialect, in_flight, tokens) in [("preview", "1", "1"), ("web-pubsub", "3", "20")] {
        let small = ["rest", "--callers", "4", "--requests", "110", "--rounds", "2"];
        let more = ["--dialect", dialect, "--in-flight", in_flight, "--tokens", tokens];
        let outcome = outcome(&[&small[..], &more].concat());
        let rounds = outcome["rounds"].as_array().unwrap();
        assert_eq!(rounds.len(), 2);
        for round in rounds {
            assert_eq!(round["units"], 110);
            assert!(0.0 < round["cost"]["all"].as_f64().unwrap());
            assert!(round["ratio"].is_number(), "{round}");
        }
    }
}

#[test]
fn messages_come_back_from_an_upstream_in_each_dialect() {
    for more in [&["--dialect", "preview"][..], &["--dialect", "web-pubsub"], &["--http2"]] {
        for (pace, ratio) in [(&[][..], true), (&["--rate", "500", "--no-floor"], false)] {
            let small = ["webhook", "--connections", "5", "--messages", "100", "--rounds", "2"];
            let outcome = outcome(&[&small[..], more, pace].concat());
            assert_eq!(outcome["http2"], more.contains(&"--http2"));
            let rounds = outcome["rounds"].as_array().unwrap();
            assert_eq!(rounds.len(), 2);
            for round in rounds {
                assert_eq!(round["units"], 100);
                assert_eq!(round["ratio"].is_number(), ratio, "{round}");
            }
        }
    }
}

#[test]
fn idle_connections_get_their_users_and_groups() {
    let small = ["idle", "--from", "10", "--connections", "30", "--steps", "2"];
    for (more, kept) in [
        (&["--identity", "upstream"][..], true),
        (&["--identity", "token"], true),
        (&["--identity", "token", "--no-group"], false),
    ] {
        let outcome = outcome(&[&small[..], more].concat());
        let looks = outcome["looks"].as_array().unwrap();
        let connections: Vec<_> = looks.iter().map(|look| look["connections"].clone()).collect();
        assert_eq!(connections, [0, 10, 20, 30]);
        assert_eq!(outcome["kept_bytes_per_connection"].is_number(), kept, "{outcome}");
    }
    let outcome = outcome(&[&small[..], &["--wire", "json-reliable"]].concat());
    assert_eq!((&outcome["identity"], &outcome["groups"]), (&"token".into(), &1.into()));
}

#[test]
fn cut_clients_get_everything_once_and_in_order() {
    let small = ["cuts", "--connections", "30", "--groups", "3", "--rate", "60"];
    let short = ["--seconds", "3", "--interval", "1"];
    for more in [&["--protobuf"][..], &["--restart", "--shards", "2"]] {
        let outcome = outcome(&[&small[..], &short, more].concat());
        assert_eq!(outcome["cuts"], 90);
        assert_eq!((&outcome["messages"], &outcome["deliveries"]), (&180.into(), &1_800.into()));
        assert!((outcome["delivered_share"].as_f64().unwrap() - 1.0).abs() < f64::EPSILON);
        assert_eq!(outcome["restart"]["back_ms"].is_number(), more.contains(&"--restart"));
    }
}

#[test]
fn a_quiet_hub_gets_everything_beside_a_noisy_one() {
    let small = ["saturate", "--connections", "20", "--deaf", "2", "--quiet", "3"];
    let outcome = outcome(&[&small[..], &["--seconds", "1", "--window", "16"]].concat());
    let steps = outcome["steps"].as_array().unwrap();
    let loads: Vec<_> = steps.iter().map(|step| step["load"].as_f64().unwrap()).collect();
    assert_eq!(loads, [0.5, 1.0, 1.5, 2.0]);
    for step in steps {
        let count = |name: &str| step[name].as_u64().unwrap();
        assert_eq!(count("offered"), count("accepted") + count("refused") + count("unsent"));
        assert_eq!(step["quiet"]["refused"], 0, "{step}");
    }
}

#[test]
fn clients_of_every_kind_come_and_go_and_lose_nothing() {
    let small = ["soak", "--connections", "40", "--seconds", "4"];
    let outcome = outcome(&[&small[..], &["--churn", "20", "--rate", "200"]].concat());
    for count in ["churned", "cuts", "calls", "acks", "echoes", "messages"] {
        assert!(0 < outcome["counts"][count].as_u64().unwrap(), "{count}: {outcome}");
    }
    assert!(outcome["growth_percent"].is_null(), "it is too short to tell");
}

#[test]
fn other_machines_are_not_loaded() {
    let service = "Endpoint=http://192.0.2.1;Port=80;AccessKey=key;Version=1.0;";
    let output = bench(&["connect", "--connections", "1", "--connection-string", service]);
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("--allow-remote"), "{error}");
}
