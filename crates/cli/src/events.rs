//! `hookwire events`: the event log of a service in a terminal.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use hookwire_client::{
    ConnectionString, EventFilter, EventNews, HubName, LoggedEvent, ServiceClient, ServiceError,
    ServiceOptions,
};
use serde_json::json;

use crate::remote::{PREVIEW_VARIABLE, WEB_PUBSUB_VARIABLE, plain};

/// Exit code when the service is not named, or not as it can be.
const USAGE: u8 = 2;

/// Exit code when the service refuses or, at the beginning, does not answer.
const SERVICE: u8 = 3;

/// The first pause before a connection is made again; doubled each time.
const PAUSE: Duration = Duration::from_millis(250);

/// The longest one.
const PAUSE_MAX: Duration = Duration::from_secs(15);

#[derive(Debug, Args)]
pub(crate) struct EventsArguments {
    /// Only entries of this hub
    #[arg(long)]
    hub: Option<String>,
    /// Only what went wrong
    #[arg(long)]
    failed: bool,
    /// Print what there is and end
    #[arg(long)]
    once: bool,
    /// How many of the latest entries are printed first
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000), value_name = "COUNT")]
    last: u32,
    /// The service [env: `WebPubSubConnectionString` or `AzureSignalRConnectionString`]
    #[arg(long, value_name = "STRING")]
    connection_string: Option<String>,
}

/// Prints the log until it is told to end, or once.
///
/// # Errors
/// When standard output cannot be written.
pub(crate) async fn run(arguments: EventsArguments, json: bool) -> anyhow::Result<ExitCode> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (service, filter) = match service(&arguments, variable) {
        Ok(found) => found,
        Err(error) => return fail(&error, USAGE, json),
    };
    let mut out = std::io::stdout();
    match follow(&service, &filter, &arguments, json, &mut out).await {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(Ended::Output(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            Ok(ExitCode::SUCCESS)
        }
        Err(Ended::Output(error)) => Err(error).context("cannot write to standard output"),
        Err(Ended::Service(error)) => fail(&error.into(), SERVICE, json),
    }
}

/// Why it ended.
#[derive(Debug)]
enum Ended {
    Service(ServiceError),
    Output(std::io::Error),
}

fn fail(error: &anyhow::Error, code: u8, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        writeln!(std::io::stdout(), "{}", json!({ "error": format!("{error:#}") }))?;
    } else {
        eprintln!("error: {error:#}");
    }
    Ok(ExitCode::from(code))
}

fn service(
    arguments: &EventsArguments,
    variable: impl Fn(&str) -> Option<String>,
) -> anyhow::Result<(ServiceClient, EventFilter)> {
    let line = arguments.connection_string.clone();
    let line =
        line.or_else(|| variable(WEB_PUBSUB_VARIABLE)).or_else(|| variable(PREVIEW_VARIABLE));
    let line = line.with_context(|| {
        format!(
            "name the service: by --connection-string, {WEB_PUBSUB_VARIABLE} or {PREVIEW_VARIABLE}"
        )
    })?;
    let connection = ConnectionString::parse(&line)?;
    let hub = arguments.hub.as_deref().map(HubName::parse).transpose()?;
    // The calls concern no hub; a client of the service has one all the same.
    let any = hub.clone().map_or_else(|| HubName::parse("any"), Ok)?;
    let client = ServiceClient::with_options(connection, any, ServiceOptions::default())?;
    Ok((client, EventFilter { hub, failed: arguments.failed }))
}

async fn follow(
    service: &ServiceClient,
    filter: &EventFilter,
    arguments: &EventsArguments,
    json: bool,
    out: &mut (impl Write + Send),
) -> Result<(), Ended> {
    let page = service.list_events(filter, None, arguments.last).await.map_err(Ended::Service)?;
    for event in &page.items {
        print(out, event, json)?;
    }
    if arguments.once {
        return Ok(());
    }
    // Without an entry, everything that comes is new.
    let mut last = page.newest.or(page.items.last().map(|event| event.id)).unwrap_or(0);
    let mut pause = PAUSE;
    loop {
        let broken = match service.follow_events(filter, Some(last)).await {
            Ok(mut stream) => loop {
                match stream.next().await {
                    Ok(Some(EventNews::Event(event))) => {
                        pause = PAUSE;
                        last = event.id;
                        print(out, &event, json)?;
                    }
                    Ok(Some(EventNews::Missed(count))) => missed(out, count, json)?,
                    // It lasts an hour.
                    Ok(None) => break None,
                    Err(error) => break Some(error),
                }
            },
            Err(error) => Some(error),
        };
        if let Some(error) = broken {
            // Who is refused will be refused again.
            let is_final = error.status().is_some_and(|status| {
                status.is_client_error() && status.as_u16() != 429 && status.as_u16() != 408
            });
            if is_final {
                return Err(Ended::Service(error));
            }
            eprintln!("the service does not answer, trying again: {error}");
        }
        tokio::time::sleep(pause).await;
        pause = (2 * pause).min(PAUSE_MAX);
    }
}

fn print(out: &mut impl Write, event: &LoggedEvent, json: bool) -> Result<(), Ended> {
    let line = if json { json!(event).to_string() } else { as_text(event) };
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(Ended::Output)
}

fn missed(out: &mut impl Write, count: u64, json: bool) -> Result<(), Ended> {
    let line = if json {
        json!({ "missed": count }).to_string()
    } else {
        format!("… {count} entries came too fast or are gone")
    };
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(Ended::Output)
}

/// Returns an entry in columns, its reason in a line of its own.
fn as_text(event: &LoggedEvent) -> String {
    // The date is the terminal's business; the time of day tells entries apart.
    let time = event.time.split_once('T').map_or(event.time.as_str(), |(_, time)| time);
    let what = match (event.kind.as_str(), event.event.as_str()) {
        (kind, event) if kind == event => kind.to_owned(),
        (kind, event) => format!("{kind} {event}"),
    };
    let status = event.status.map_or_else(|| "-".to_owned(), |status| status.to_string());
    let duration = event.duration_ms.map_or_else(|| "-".to_owned(), |time| format!("{time:.1} ms"));
    let who = event.user_id.as_deref().or(event.connection_id.as_deref()).unwrap_or("-");
    let mut text = format!(
        "{time:<13} {} {:<12} {:<20} {:<16} {status:>3} {duration:>11}  {:<20} {}",
        if event.ok { "ok   " } else { "wrong" },
        plain(event.hub.as_deref().unwrap_or("-")),
        plain(&what),
        plain(who),
        plain(&event.verdict),
        plain(event.url.as_deref().unwrap_or("-")),
    );
    if let Some(reason) = &event.reason {
        text.push_str("\n              ");
        text.push_str(&plain(reason));
    }
    text
}

#[cfg(test)]
mod tests;
