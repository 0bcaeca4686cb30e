//! The message that a command sends.

use std::io::{IsTerminal, Read};

use anyhow::Context;
use serde_json::{Map, Value, json};

use super::outcome::Failure;

pub(super) fn read_standard_input() -> Result<Vec<u8>, Failure> {
    let input = std::io::stdin().lock();
    if input.is_terminal() {
        return Err(Failure::Usage(anyhow::anyhow!(
            "no message: give it as an argument or on standard input"
        )));
    }
    read_limited(input)
}

pub(super) fn read_limited(input: impl Read) -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let read = input
        .take(STANDARD_INPUT_BYTES_MAX + 1)
        .read_to_end(&mut bytes)
        .context("cannot read standard input");
    if STANDARD_INPUT_BYTES_MAX < read.map_err(Failure::Usage)? as u64 {
        return Err(Failure::Usage(anyhow::anyhow!(
            "standard input has more than the {STANDARD_INPUT_BYTES_MAX} bytes that a message may have"
        )));
    }
    Ok(bytes)
}

/// Returns text less the newline that `echo` and editors put at its end.
pub(super) fn text_of(bytes: Vec<u8>) -> Result<String, Failure> {
    let mut text = String::from_utf8(bytes)
        .context("standard input is not UTF-8 text: send it with --binary")
        .map_err(Failure::Usage)?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    Ok(text)
}

/// Adds claims of which the same name again makes a list.
pub(super) fn collect_claims(given: Vec<(String, String)>, claims: &mut Map<String, Value>) {
    for (name, value) in given {
        match claims.get_mut(&name) {
            None => {
                claims.insert(name, value.into());
            }
            Some(Value::Array(values)) => values.push(value.into()),
            Some(first) => *first = json!([first.take(), value]),
        }
    }
}

/// Longest message that is read from standard input, in bytes: what the service takes in one request.
const STANDARD_INPUT_BYTES_MAX: u64 = 1 << 20;
