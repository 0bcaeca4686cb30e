//! The load generator against services that it starts, with numbers so small that nothing but the order of things is tested.

use std::process::{Command, Output};

use serde_json::Value;

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
            assert!(0.0 < round["cpu_per_delivery"]["all_ns"].as_f64().unwrap());
            assert_eq!(round["ratio"].is_number(), expected != "rate", "{round}");
        }
    }
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
        assert!(0.0 < outcome["summary"]["cpu_ns_per_message"]["min"].as_f64().unwrap());
    }
}

#[test]
fn clients_connect_again_and_again() {
    let outcome = outcome(&["connect", "--connections", "20", "--rounds", "3"]);
    assert_eq!(outcome["rounds"].as_array().unwrap().len(), 3);
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
}

#[test]
fn other_machines_are_not_loaded() {
    let service = "Endpoint=http://192.0.2.1;Port=80;AccessKey=key;Version=1.0;";
    let output = bench(&["connect", "--connections", "1", "--connection-string", service]);
    assert!(!output.status.success());
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(error.contains("--allow-remote"), "{error}");
}
