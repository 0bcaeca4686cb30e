//! The inputs of the fuzz targets `filter` and `connect_answer`, without a fuzzer.

use std::path::Path;

#[path = "../../../fuzz/checks/connect_answer.rs"]
mod connect_answer;
#[path = "../../../fuzz/checks/filter.rs"]
mod filter;

/// Gives every input of `target` to `check`. What fails is named by the last line of the output.
fn replay(target: &str, check: impl Fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let entries = folder.read_dir().expect("the corpus is part of the repository");
    let mut files: Vec<_> =
        entries.map(|entry| entry.expect("the folder can be read").path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", folder.display());
    for file in files {
        eprintln!("{}", file.display());
        check(&std::fs::read(file).expect("the file can be read"));
    }
}

#[test]
fn filters_hold_what_they_promise() {
    replay("filter", filter::check);
}

#[test]
fn answers_to_connect_hold_what_they_promise() {
    replay("connect_answer", connect_answer::check);
}
