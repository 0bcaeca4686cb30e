//! `hookwire check`: is this upstream what the service needs?

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use hookwire_client::{ConnectionString, HubName};
use hookwire_proto::name::UserId;
use hookwire_server::check::{Check, CheckDialect, Step};
use serde_json::{Value, json};

use crate::remote::{PREVIEW_VARIABLE, WEB_PUBSUB_VARIABLE, plain};
use crate::service::Dialect;

/// Exit code when something is wrong with the upstream.
const FINDINGS: u8 = 1;

/// Exit code when nothing could be tried.
const USAGE: u8 = 2;

#[derive(Debug, Args)]
pub(crate) struct CheckArguments {
    /// The upstream's URL as in the settings: {hub}, {event} and, in the preview, {category} are filled in
    url: String,
    /// How the service speaks to it
    #[arg(long, value_enum, default_value = "web-pubsub")]
    dialect: Dialect,
    /// The hub
    #[arg(long, default_value = "chat", env = "HubName")]
    hub: String,
    /// A user event to send; may be repeated (Web PubSub) [default: message]
    #[arg(long = "event", value_name = "NAME")]
    events: Vec<String>,
    /// The user that the client's token names
    #[arg(long)]
    user: Option<String>,
    /// The service whose key signs the events and whose host asks for them [env: `WebPubSubConnectionString` or
    /// `AzureSignalRConnectionString`]; without one, signatures say nothing
    #[arg(long, value_name = "STRING")]
    connection_string: Option<String>,
    /// The host that asks whether it may send events, if not that of the connection string
    #[arg(long, value_name = "HOST")]
    origin: Option<String>,
    /// How long an answer may take, in seconds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=300), value_name = "SECONDS")]
    timeout: u64,
    /// A file with certificates of authorities that are believed too, PEM
    #[arg(long = "ca-file", value_name = "FILE")]
    ca_files: Vec<PathBuf>,
}

/// Checks and prints what was found.
///
/// # Errors
/// When standard output cannot be written.
pub(crate) async fn run(arguments: CheckArguments, json: bool) -> anyhow::Result<ExitCode> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let result = match check(arguments, variable) {
        Ok(check) => {
            let is_signed = !check.keys.is_empty();
            check.run().await.map(|steps| (steps, is_signed)).map_err(anyhow::Error::from)
        }
        Err(error) => Err(error),
    };
    let mut out = std::io::stdout().lock();
    let (steps, is_signed) = match result {
        Ok(found) => found,
        Err(error) if json => {
            writeln!(out, "{}", json!({ "error": format!("{error:#}") }))?;
            return Ok(ExitCode::from(USAGE));
        }
        Err(error) => {
            eprintln!("error: {error:#}");
            return Ok(ExitCode::from(USAGE));
        }
    };
    let ok = steps.iter().all(|step| step.ok);
    if json {
        let steps: Vec<Value> = steps.iter().map(as_json).collect();
        writeln!(out, "{}", json!({ "ok": ok, "signed": is_signed, "steps": steps }))?;
    } else {
        for step in &steps {
            writeln!(out, "{}", as_text(step))?;
        }
        if !is_signed {
            writeln!(
                out,
                "The events were signed with a random key: name the service by --connection-string to check signatures."
            )?;
        }
        writeln!(out, "{}", if ok { "All is well." } else { "Something is wrong." })?;
    }
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::from(FINDINGS) })
}

/// Returns what the arguments and the environment ask for.
fn check(
    arguments: CheckArguments,
    variable: impl Fn(&str) -> Option<String>,
) -> anyhow::Result<Check> {
    let line = arguments.connection_string.or_else(|| match arguments.dialect {
        Dialect::Preview => variable(PREVIEW_VARIABLE).or_else(|| variable(WEB_PUBSUB_VARIABLE)),
        Dialect::WebPubSub => variable(WEB_PUBSUB_VARIABLE).or_else(|| variable(PREVIEW_VARIABLE)),
    });
    let connection = line.map(|line| ConnectionString::parse(&line)).transpose()?;
    let defaults = Check::default();
    let host = connection.as_ref().and_then(|connection| connection.endpoint().host_str());
    let origin = arguments.origin.or_else(|| host.map(str::to_owned));
    Ok(Check {
        url: arguments.url,
        dialect: match arguments.dialect {
            Dialect::Preview => CheckDialect::Preview,
            Dialect::WebPubSub => CheckDialect::WebPubSub,
        },
        hub: HubName::parse(&arguments.hub)?,
        user: arguments.user.as_deref().map(UserId::parse).transpose()?,
        keys: connection.iter().map(|connection| connection.access_key().clone()).collect(),
        origin: origin.unwrap_or(defaults.origin),
        events: if arguments.events.is_empty() { defaults.events } else { arguments.events },
        timeout: Duration::from_secs(arguments.timeout),
        ca_files: arguments.ca_files,
    })
}

fn millis(step: &Step) -> f64 {
    (step.duration.as_secs_f64() * 10_000.0).round() / 10.0
}

fn as_json(step: &Step) -> Value {
    json!({
        "kind": step.kind,
        "event": step.event,
        "url": step.url,
        "status": step.status,
        "durationMs": millis(step),
        "attempts": step.attempts,
        "ok": step.ok,
        "verdict": step.verdict,
        "reason": step.reason,
        "notes": step.notes,
    })
}

/// Returns one line, and one for each thing to say about it.
fn as_text(step: &Step) -> String {
    let sign = match step {
        Step { ok: false, .. } => "wrong",
        Step { notes, .. } if !notes.is_empty() => "note ",
        Step { .. } => "ok   ",
    };
    let what = match (step.kind, step.event.as_str()) {
        (kind @ ("user" | "message"), event) => format!("{kind} {event}"),
        (kind, _) => kind.to_owned(),
    };
    let status = step.status.map_or_else(|| "-".to_owned(), |status| status.to_string());
    let mut text = format!(
        "{sign}  {:<16} {status:>3}  {:>8.1} ms  {}  {}",
        plain(&what),
        millis(step),
        step.verdict,
        plain(&step.url)
    );
    for said in step.reason.iter().chain(&step.notes) {
        text.push_str("\n       ");
        text.push_str(&plain(said));
    }
    text
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        check: CheckArguments,
    }

    const LINE: &str =
        "Endpoint=https://hooks.example;AccessKey=ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789;";

    fn parse(line: &[&str]) -> CheckArguments {
        Line::try_parse_from(["check"].iter().chain(line)).unwrap().check
    }

    #[test]
    fn the_connection_string_names_key_and_origin() {
        let given = format!("--connection-string={LINE}");
        let asked = check(parse(&["http://h/", &given]), |_| None).unwrap();
        assert_eq!((asked.keys.len(), asked.origin.as_str()), (1, "hooks.example"));
        assert_eq!(
            (asked.dialect, asked.events),
            (CheckDialect::WebPubSub, vec!["message".to_owned()])
        );
        let of_preview = |name: &str| (name == PREVIEW_VARIABLE).then(|| LINE.to_owned());
        let line = ["http://h/", "--dialect=preview", "--origin=other", "--event=a", "--event=b"];
        let asked = check(parse(&line), of_preview).unwrap();
        assert_eq!((asked.keys.len(), asked.origin.as_str()), (1, "other"));
        assert_eq!((asked.dialect, asked.events.len()), (CheckDialect::Preview, 2));
        let asked = check(parse(&["http://h/"]), |_| None).unwrap();
        assert_eq!((asked.keys.len(), asked.origin.as_str()), (0, "localhost"));
        assert!(check(parse(&["http://h/", "--hub=9"]), |_| None).is_err());
    }

    #[test]
    fn a_step_is_told_in_lines_that_do_nothing_to_a_terminal() {
        let step = Step {
            kind: "user",
            event: "order".to_owned(),
            url: "http://h/".to_owned(),
            status: Some(500),
            duration: Duration::from_micros(1_250),
            attempts: 1,
            ok: false,
            verdict: "upstream_failed",
            reason: Some("it\u{1b}[31m".to_owned()),
            notes: Vec::new(),
        };
        assert_eq!(
            as_text(&step),
            "wrong  user order       500       1.3 ms  upstream_failed  http://h/\n       it\\u{1b}[31m"
        );
        assert_eq!(as_json(&step)["durationMs"], 1.3);
    }
}
