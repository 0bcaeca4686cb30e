//! What a command prints, and its exit code.

use std::fmt;

use hookwire_client::{NameError, ServiceError, TunnelError};
use serde_json::{Value, json};

/// What a command that went well says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// `{"ok": true}`.
    Done(&'static str),
    /// `{"answer": true}` with code 0, `{"answer": false}` with code 1.
    Answer(bool),
    /// `{"url": "…"}` or `{"token": "…"}`.
    Made { name: &'static str, value: String },
    /// `{"items": […], "more": false}`; for people a line for each.
    List { items: Vec<Item>, more: bool },
    /// The object itself; for people a line for each property.
    Facts(Value),
}

/// One line of a list.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Item {
    line: String,
    json: Value,
}

impl Item {
    pub(super) fn new(line: &str, json: Value) -> Self {
        Self { line: plain(line), json }
    }
}

/// Returns a text that is one line and does nothing to a terminal: names are chosen by others.
pub(crate) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() {
            plain.extend(character.escape_default());
        } else {
            plain.push(character);
        }
    }
    plain
}

impl Outcome {
    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Answer(false) => 1,
            Self::Answer(true)
            | Self::Done(_)
            | Self::Made { .. }
            | Self::List { .. }
            | Self::Facts(_) => 0,
        }
    }

    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Done(_) => json!({ "ok": true }),
            Self::Answer(answer) => json!({ "answer": answer }),
            Self::Made { name, value } => json!({ *name: value }),
            Self::List { items, more } => {
                let items: Vec<&Value> = items.iter().map(|item| &item.json).collect();
                json!({ "items": items, "more": more })
            }
            Self::Facts(facts) => facts.clone(),
        }
    }
}

impl fmt::Display for Outcome {
    /// Writes the lines, the last one without its end.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done(what) => formatter.write_str(what),
            Self::Answer(true) => formatter.write_str("yes"),
            Self::Answer(false) => formatter.write_str("no"),
            Self::Made { value, .. } => formatter.write_str(value),
            Self::List { items, more } => {
                let mut lines: Vec<&str> = items.iter().map(|item| item.line.as_str()).collect();
                if *more {
                    lines.push("… and more: see --top");
                }
                formatter.write_str(&lines.join("\n"))
            }
            Self::Facts(facts) => {
                let lines = facts.as_object().into_iter().flatten().map(|(name, value)| {
                    let text = value.as_str().map_or_else(|| value.to_string(), plain);
                    format!("{name}: {text}")
                });
                formatter.write_str(&lines.collect::<Vec<_>>().join("\n"))
            }
        }
    }
}

/// Why a command went wrong: `{"error": "…"}`, with `"status"` and perhaps `"code"` when the service answered.
#[derive(Debug)]
pub(super) enum Failure {
    /// Code 2: what was asked for cannot be asked for.
    Usage(anyhow::Error),
    /// Code 3: the service is to be looked at.
    Service(ServiceError),
    /// Code 3: the service will have no tunnel.
    Tunnel(TunnelError),
}

impl Failure {
    pub(super) fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self::Usage(error.into())
    }

    pub(super) fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Service(_) | Self::Tunnel(_) => 3,
        }
    }

    /// Returns the whole chain of causes in one line.
    pub(super) fn text(&self) -> String {
        match self {
            Self::Usage(error) => format!("{error:#}"),
            Self::Service(error) => chain(error),
            Self::Tunnel(error) => chain(error),
        }
    }

    pub(super) fn to_json(&self) -> Value {
        match self {
            Self::Service(ServiceError::Status { status, code: Some(code), .. }) => {
                json!({ "error": self.text(), "status": status.as_u16(), "code": code })
            }
            Self::Service(ServiceError::Status { status, .. }) => {
                json!({ "error": self.text(), "status": status.as_u16() })
            }
            Self::Service(_) | Self::Tunnel(_) | Self::Usage(_) => json!({ "error": self.text() }),
        }
    }
}

/// Returns an error with its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        if error.is_usage() { Self::usage(error) } else { Self::Service(error) }
    }
}

impl From<NameError> for Failure {
    fn from(error: NameError) -> Self {
        Self::usage(error)
    }
}
