//! The fuzz targets' inputs, without a fuzzer.

use std::path::Path;

#[path = "../../../../fuzz/checks/json_client.rs"]
mod json_client;
#[path = "../../../../fuzz/checks/protobuf_client.rs"]
mod protobuf_client;

/// Gives every input of `target` to `check`, and prints the name of the one that fails.
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
