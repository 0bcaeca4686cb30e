//! Commands that talk to a running service: `token`, `send`, `group`, `user`, `connection`, `permission`, `hub`.
//!
//! Each is one call of `hookwire_client`, by one of two REST APIs: that of Azure Web PubSub or that of the 2020 preview. People get
//! lines of text; scripts get, by `--json`, exactly one JSON object on standard output and an exit code: see [`Outcome`] and
//! [`Failure`].

mod arguments;
mod input;
mod outcome;
mod preview;
mod web_pubsub;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use hookwire_client::{ConnectionString, HubName, Service, ServiceClient, ServiceOptions};

use self::arguments::ServiceArguments;
pub(crate) use self::arguments::{RemoteCommand, TrustArguments};
use self::input::read_standard_input;
pub(crate) use self::outcome::plain;
use self::outcome::{Failure, Outcome};
use crate::service::Dialect;

/// Carries out a command, prints what came of it and returns the exit code that the help promises.
///
/// # Errors
/// When standard output cannot be written.
pub(crate) async fn run(command: RemoteCommand, json: bool) -> anyhow::Result<ExitCode> {
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let result = execute(command, variable, read_standard_input).await;
    let mut output = std::io::stdout().lock();
    let code = match result {
        Ok(outcome) => {
            let lines = if json { outcome.to_json().to_string() } else { outcome.to_string() };
            // An empty list is no line.
            if !lines.is_empty() {
                writeln!(output, "{lines}").context("cannot write to standard output")?;
            }
            outcome.code()
        }
        Err(failure) if json => {
            writeln!(output, "{}", failure.to_json()).context("cannot write to standard output")?;
            failure.code()
        }
        Err(failure) => {
            eprintln!("error: {}", failure.text());
            failure.code()
        }
    };
    Ok(ExitCode::from(code))
}

async fn execute(
    command: RemoteCommand,
    variable: impl Fn(&str) -> Option<String>,
    standard_input: impl FnOnce() -> Result<Vec<u8>, Failure>,
) -> Result<Outcome, Failure> {
    match remote(command.service(), variable)? {
        Remote::Preview(service) => preview::execute(command, &service, standard_input).await,
        Remote::WebPubSub(service) => web_pubsub::execute(command, &service, standard_input).await,
    }
}

/// A hub, by one of the APIs.
enum Remote {
    Preview(Service),
    WebPubSub(ServiceClient),
}

/// Returns the hub that arguments and environment name. The variable that holds the connection string tells the dialect, if nothing else
/// does: scripts of the preview go on as they are.
fn remote(
    arguments: &ServiceArguments,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Remote, Failure> {
    let given = arguments.connection_string.clone().map(|line| (line, Dialect::WebPubSub));
    let of_web_pubsub = || variable(WEB_PUBSUB_VARIABLE).map(|line| (line, Dialect::WebPubSub));
    let of_preview = || variable(PREVIEW_VARIABLE).map(|line| (line, Dialect::Preview));
    let found = given.or_else(|| match arguments.dialect {
        Some(Dialect::Preview) => of_preview().or_else(of_web_pubsub),
        Some(Dialect::WebPubSub) | None => of_web_pubsub().or_else(of_preview),
    });
    let (line, suggested) = found.ok_or_else(|| {
        Failure::usage(anyhow::anyhow!(
            "name the service: by --connection-string, {WEB_PUBSUB_VARIABLE} or {PREVIEW_VARIABLE}"
        ))
    })?;
    let dialect = arguments.dialect.unwrap_or(suggested);
    let hub =
        arguments.hub.clone().or_else(|| HUB_VARIABLES.iter().find_map(|name| variable(name)));
    let hub = hub.ok_or_else(|| {
        Failure::usage(anyhow::anyhow!("name the hub: by --hub or {}", HUB_VARIABLES.join(" or ")))
    })?;

    let connection = ConnectionString::parse(&line).map_err(Failure::usage)?;
    let trust = arguments.trust.trust().map_err(Failure::usage)?;
    let (hub, options) =
        (HubName::parse(&hub)?, ServiceOptions { trust, ..ServiceOptions::default() });
    Ok(match dialect {
        Dialect::Preview => Remote::Preview(
            Service::with_options(connection, hub, options).map_err(Failure::usage)?,
        ),
        Dialect::WebPubSub => Remote::WebPubSub(
            ServiceClient::with_options(connection, hub, options).map_err(Failure::usage)?,
        ),
    })
}

/// Says that the chosen API has no such call.
fn not_in(dialect: Dialect, what: &str) -> Failure {
    let (this, other) = match dialect {
        Dialect::Preview => ("preview", "web-pubsub"),
        Dialect::WebPubSub => ("web-pubsub", "preview"),
    };
    Failure::usage(anyhow::anyhow!("{what} is not in the dialect {this}: add --dialect {other}"))
}

/// Hold the connection string, as in Azure Functions of either time.
pub(crate) const WEB_PUBSUB_VARIABLE: &str = "WebPubSubConnectionString";
pub(crate) const PREVIEW_VARIABLE: &str = "AzureSignalRConnectionString";

/// Hold the hub.
const HUB_VARIABLES: [&str; 2] = ["HubName", "WebPubSubHub"];

#[cfg(test)]
mod tests;
