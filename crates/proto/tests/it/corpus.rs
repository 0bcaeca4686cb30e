//! The fuzz targets' inputs, without a fuzzer.

use std::path::Path;

#[path = "../../../../fuzz/checks/connect_answer.rs"]
mod connect_answer;
#[path = "../../../../fuzz/checks/connection_string.rs"]
mod connection_string;
#[path = "../../../../fuzz/checks/filter.rs"]
mod filter;
#[path = "../../../../fuzz/checks/frame.rs"]
mod frame;
#[path = "../../../../fuzz/checks/inflate.rs"]
mod inflate;
#[path = "../../../../fuzz/checks/json_client.rs"]
mod json_client;
#[path = "../../../../fuzz/checks/protobuf_client.rs"]
mod protobuf_client;
#[path = "../../../../fuzz/checks/template.rs"]
mod template;
#[path = "../../../../fuzz/checks/token.rs"]
mod token;
#[path = "../../../../fuzz/checks/tunnel.rs"]
mod tunnel;

/// Gives every input of `target` to `check`. What fails is named by the last line of the output.
fn replay(target: &str, check: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut files: Vec<_> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    for file in files {
        eprintln!("{}", file.display());
        check(&std::fs::read(file).unwrap());
    }
}

#[test]
fn json_messages_hold_what_they_promise() {
    replay("json_client", json_client::check);
}

#[test]
fn protobuf_messages_hold_what_they_promise() {
    replay("protobuf_client", protobuf_client::check);
}

#[test]
fn filters_hold_what_they_promise() {
    replay("filter", filter::check);
}

#[test]
fn answers_to_connect_hold_what_they_promise() {
    replay("connect_answer", connect_answer::check);
}

#[test]
fn frames_hold_what_they_promise() {
    replay("frame", frame::check);
}

#[test]
fn compressed_messages_hold_what_they_promise() {
    replay("inflate", inflate::check);
}

#[test]
fn templates_hold_what_they_promise() {
    replay("template", template::check);
}

#[test]
fn connection_strings_hold_what_they_promise() {
    replay("connection_string", connection_string::check);
}

#[test]
fn tokens_hold_what_they_promise() {
    replay("token", token::check);
}

#[test]
fn tunnel_frames_hold_what_they_promise() {
    replay("tunnel", tunnel::check);
}
