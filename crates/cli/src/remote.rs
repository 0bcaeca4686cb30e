//! Commands that talk to a running service: `token`, `send`, `group`, `user`, `connection`, `permission`, `hub`, and `tunnel`.
//!
//! Each is one call of `hookwire_client`, by one of two REST APIs: that of Azure Web PubSub or that of the 2020 preview. People get
//! lines of text; scripts get, by `--json`, exactly one JSON object on standard output and an exit code: see [`Outcome`] and
//! [`Failure`].

mod arguments;
mod input;
mod outcome;
mod preview;
mod tunnel;
mod web_pubsub;

use std::io::Write;
use std::process::ExitCode;

use anyhow::Context;
use hookwire_client::{ConnectionString, HubName, Service, ServiceClient, ServiceOptions, Trust};

use self::arguments::{HubArguments, ServiceArguments};
pub(crate) use self::arguments::{RemoteCommand, TrustArguments};
use self::input::read_standard_input;
pub(crate) use self::outcome::plain;
use self::outcome::{Failure, Outcome};
pub(crate) use self::tunnel::{TunnelArguments, run as tunnel};
use crate::service::Dialect;

/// Carries out a command, prints what came of it and returns the exit code that the help promises.
///
/// # Errors
/// When standard output cannot be written.
pub(crate) async fn run(command: RemoteCommand, json: bool) -> anyhow::Result<ExitCode> {
    let result = execute(command, environment, read_standard_input).await;
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
        Err(failure) => return tell(&failure, json),
    };
    Ok(ExitCode::from(code))
}

/// Prints why a command went wrong and returns its exit code.
fn tell(failure: &Failure, json: bool) -> anyhow::Result<ExitCode> {
    if json {
        let mut output = std::io::stdout().lock();
        writeln!(output, "{}", failure.to_json()).context("cannot write to standard output")?;
    } else {
        eprintln!("error: {}", failure.text());
    }
    Ok(ExitCode::from(failure.code()))
}

/// Returns the value of an environment variable; an empty one counts as none.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
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

/// A hub that arguments and environment name.
struct Named {
    connection: ConnectionString,
    hub: HubName,
    trust: Trust,
    /// What the variable suggests that holds the connection string.
    dialect: Dialect,
}

/// Returns the hub that arguments and environment name. The variable that holds the connection string tells the dialect, if nothing else
/// does: scripts of the preview go on as they are.
fn remote(
    arguments: &ServiceArguments,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Remote, Failure> {
    let Named { connection, hub, trust, dialect } =
        named(&arguments.of, arguments.dialect, variable)?;
    let options = ServiceOptions { trust, ..ServiceOptions::default() };
    Ok(match arguments.dialect.unwrap_or(dialect) {
        Dialect::Preview => Remote::Preview(
            Service::with_options(connection, hub, options).map_err(Failure::usage)?,
        ),
        Dialect::WebPubSub => Remote::WebPubSub(
            ServiceClient::with_options(connection, hub, options).map_err(Failure::usage)?,
        ),
    })
}

fn named(
    arguments: &HubArguments,
    preferred: Option<Dialect>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Named, Failure> {
    let given = arguments.connection_string.clone().map(|line| (line, Dialect::WebPubSub));
    let of_web_pubsub = || variable(WEB_PUBSUB_VARIABLE).map(|line| (line, Dialect::WebPubSub));
    let of_preview = || variable(PREVIEW_VARIABLE).map(|line| (line, Dialect::Preview));
    let found = given.or_else(|| match preferred {
        Some(Dialect::Preview) => of_preview().or_else(of_web_pubsub),
        Some(Dialect::WebPubSub) | None => of_web_pubsub().or_else(of_preview),
    });
    let (line, dialect) = found.ok_or_else(|| {
        Failure::usage(anyhow::anyhow!(
            "name the service: by --connection-string, {WEB_PUBSUB_VARIABLE} or {PREVIEW_VARIABLE}"
        ))
    })?;
    let hub =
        arguments.hub.clone().or_else(|| HUB_VARIABLES.iter().find_map(|name| variable(name)));
    let hub = hub.ok_or_else(|| {
        Failure::usage(anyhow::anyhow!("name the hub: by --hub or {}", HUB_VARIABLES.join(" or ")))
    })?;

    let connection = ConnectionString::parse(&line).map_err(Failure::usage)?;
    let trust = arguments.trust.trust().map_err(Failure::usage)?;
    Ok(Named { connection, hub: HubName::parse(&hub)?, trust, dialect })
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
