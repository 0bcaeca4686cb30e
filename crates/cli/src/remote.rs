//! Commands that talk to a running service: `token`, `send`, `group`, `user`, `connection`.
//!
//! Each is one call of `hookwire_client::Service`. People get a line of text; scripts get, by `--json`, exactly one JSON object
//! on standard output and an exit code: see [`Outcome`] and [`Failure`].

mod arguments;

use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;

use anyhow::Context;
use hookwire_client::{
    ClientEndpointOptions, ConnectionString, HubName, Message, Service, ServiceError,
    ServiceOptions,
};
use serde_json::{Map, Value, json};

pub(crate) use self::arguments::RemoteCommand;
use self::arguments::{
    ClientTokenArguments, ConnectionCommand, GroupCommand, Member, Recipient, RestTokenArguments,
    SendArguments, ServiceArguments, TokenCommand, UserCommand,
};

/// Carries out a command, prints what came of it and returns the exit code that the help promises.
///
/// # Errors
/// When standard output cannot be written.
pub(crate) async fn run(command: RemoteCommand, json: bool) -> anyhow::Result<ExitCode> {
    let result = execute(command, read_standard_input).await;
    let mut output = std::io::stdout().lock();
    let code = match result {
        Ok(outcome) => {
            let line = if json { outcome.to_json().to_string() } else { outcome.to_string() };
            writeln!(output, "{line}").context("cannot write to standard output")?;
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
    standard_input: impl FnOnce() -> Result<Vec<u8>, Failure>,
) -> Result<Outcome, Failure> {
    match command {
        RemoteCommand::Token(TokenCommand::Client(arguments)) => client_token(arguments),
        RemoteCommand::Token(TokenCommand::Rest(arguments)) => rest_token(&arguments),
        RemoteCommand::Send(arguments) => send(arguments, standard_input).await,
        RemoteCommand::Group(command) => group(command).await,
        RemoteCommand::User(command) => user(command).await,
        RemoteCommand::Connection(command) => connection(command).await,
    }
}

fn client_token(arguments: ClientTokenArguments) -> Result<Outcome, Failure> {
    let mut claims = Map::new();
    for (name, value) in arguments.claims {
        match claims.get_mut(&name) {
            None => {
                claims.insert(name, value.into());
            }
            Some(Value::Array(values)) => values.push(value.into()),
            Some(first) => *first = json!([first.take(), value]),
        }
    }
    let options = ClientEndpointOptions {
        user: arguments.user,
        lifetime: arguments.lifetime,
        claims,
        format: arguments.format.map(Into::into),
    };
    let url = service(&arguments.service)?.client_endpoint(&options).map_err(Failure::usage)?;
    Ok(Outcome::Made { name: "url", value: url.into() })
}

fn rest_token(arguments: &RestTokenArguments) -> Result<Outcome, Failure> {
    let service = service(&arguments.service)?;
    let broadcast = format!("ws/api/v1/hubs/{}/", service.hub());
    let path = arguments.path.as_deref().unwrap_or(&broadcast);
    Ok(Outcome::Made { name: "token", value: service.rest_token(path, arguments.lifetime) })
}

async fn send(
    arguments: SendArguments,
    standard_input: impl FnOnce() -> Result<Vec<u8>, Failure>,
) -> Result<Outcome, Failure> {
    let service = service(&arguments.service)?;
    let message = match (arguments.text, arguments.binary) {
        (Some(text), false) => Message::from(text),
        (Some(text), true) => Message::from(text.into_bytes()),
        (None, true) => Message::from(standard_input()?),
        (None, false) => Message::from(text_of(standard_input()?)?),
    };
    match arguments.to {
        Recipient { user: Some(user), .. } => service.send_to_user(&user, message).await?,
        Recipient { group: Some(group), .. } => service.send_to_group(&group, message).await?,
        Recipient { connection: Some(id), .. } => service.send_to_connection(&id, message).await?,
        Recipient { user: None, group: None, connection: None } => {
            service.broadcast(message).await?;
        }
    }
    Ok(Outcome::Done("sent"))
}

async fn group(command: GroupCommand) -> Result<Outcome, Failure> {
    match command {
        GroupCommand::Exists(arguments) => service(&arguments.service)?
            .group_exists(&arguments.group)
            .await
            .map(Outcome::Answer)
            .map_err(Into::into),
        GroupCommand::Contains(arguments) => {
            let service = service(&arguments.of.service)?;
            Ok(Outcome::Answer(service.user_in_group(&arguments.of.group, &arguments.user).await?))
        }
        GroupCommand::Add(arguments) => {
            let (service, group) = (service(&arguments.of.service)?, arguments.of.group);
            match (arguments.member, arguments.ttl) {
                (Member { user: Some(user), .. }, None) => {
                    service.add_to_group(&group, &user).await?;
                }
                (Member { user: Some(user), .. }, Some(ttl)) => {
                    service.add_to_group_for(&group, &user, ttl).await?;
                }
                (Member { user: None, connection }, _) => {
                    service
                        .add_connection_to_group(&group, &connection.unwrap_or_default())
                        .await?;
                }
            }
            Ok(Outcome::Done("added"))
        }
        GroupCommand::Remove(arguments) => {
            let (service, group) = (service(&arguments.of.service)?, arguments.of.group);
            match arguments.member {
                Member { user: Some(user), .. } => service.remove_from_group(&group, &user).await?,
                Member { user: None, connection } => {
                    service
                        .remove_connection_from_group(&group, &connection.unwrap_or_default())
                        .await?;
                }
            }
            Ok(Outcome::Done("removed"))
        }
    }
}

async fn user(command: UserCommand) -> Result<Outcome, Failure> {
    match command {
        UserCommand::Exists(arguments) => {
            Ok(Outcome::Answer(service(&arguments.service)?.user_exists(&arguments.user).await?))
        }
        UserCommand::LeaveGroups(arguments) => {
            service(&arguments.service)?.remove_from_all_groups(&arguments.user).await?;
            Ok(Outcome::Done("removed"))
        }
    }
}

async fn connection(command: ConnectionCommand) -> Result<Outcome, Failure> {
    match command {
        ConnectionCommand::Exists(arguments) => Ok(Outcome::Answer(
            service(&arguments.service)?.connection_exists(&arguments.connection).await?,
        )),
        ConnectionCommand::Close(arguments) => {
            let service = service(&arguments.of.service)?;
            service.close_connection(&arguments.of.connection, arguments.reason.as_deref()).await?;
            Ok(Outcome::Done("closed"))
        }
    }
}

fn service(arguments: &ServiceArguments) -> Result<Service, Failure> {
    let connection =
        ConnectionString::parse(&arguments.connection_string).map_err(Failure::usage)?;
    let hub = HubName::parse(&arguments.hub).map_err(Failure::usage)?;
    Service::with_options(connection, hub, ServiceOptions::default()).map_err(Failure::usage)
}

/// What a command that went well says.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    /// `{"ok": true}`.
    Done(&'static str),
    /// `{"answer": true}` with code 0, `{"answer": false}` with code 1.
    Answer(bool),
    /// `{"url": "…"}` or `{"token": "…"}`.
    Made { name: &'static str, value: String },
}

impl Outcome {
    fn code(&self) -> u8 {
        match self {
            Self::Answer(false) => 1,
            Self::Answer(true) | Self::Done(_) | Self::Made { .. } => 0,
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Done(_) => json!({ "ok": true }),
            Self::Answer(answer) => json!({ "answer": answer }),
            Self::Made { name, value } => json!({ *name: value }),
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Done(what) => what,
            Self::Answer(true) => "yes",
            Self::Answer(false) => "no",
            Self::Made { value, .. } => value,
        })
    }
}

/// Why a command went wrong: `{"error": "…"}`, with `"status"` when the service answered.
#[derive(Debug)]
enum Failure {
    /// Code 2: what was asked for cannot be asked for.
    Usage(anyhow::Error),
    /// Code 3: the service is to be looked at.
    Service(ServiceError),
}

impl Failure {
    fn usage(error: impl Into<anyhow::Error>) -> Self {
        Self::Usage(error.into())
    }

    fn code(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Service(_) => 3,
        }
    }

    /// Returns the whole chain of causes in one line.
    fn text(&self) -> String {
        match self {
            Self::Usage(error) => format!("{error:#}"),
            Self::Service(error) => {
                let mut text = error.to_string();
                let mut cause = std::error::Error::source(error);
                while let Some(error) = cause {
                    text.push_str(": ");
                    text.push_str(&error.to_string());
                    cause = error.source();
                }
                text
            }
        }
    }

    fn to_json(&self) -> Value {
        match self {
            Self::Service(ServiceError::Status { status, .. }) => {
                json!({ "error": self.text(), "status": status.as_u16() })
            }
            Self::Service(_) | Self::Usage(_) => json!({ "error": self.text() }),
        }
    }
}

impl From<ServiceError> for Failure {
    fn from(error: ServiceError) -> Self {
        if matches!(error, ServiceError::Name(_) | ServiceError::ReasonTooLong { .. }) {
            Self::usage(error)
        } else {
            Self::Service(error)
        }
    }
}

/// Longest message that is read from standard input, in bytes: what the service takes in one request.
const STANDARD_INPUT_BYTES_MAX: u64 = 1 << 20;

fn read_standard_input() -> Result<Vec<u8>, Failure> {
    let input = std::io::stdin().lock();
    if input.is_terminal() {
        return Err(Failure::Usage(anyhow::anyhow!(
            "no message: give it as an argument or on standard input"
        )));
    }
    read_limited(input)
}

fn read_limited(input: impl Read) -> Result<Vec<u8>, Failure> {
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
fn text_of(bytes: Vec<u8>) -> Result<String, Failure> {
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

#[cfg(test)]
mod tests;
