//! The commands by the API of the 2020 preview.

use hookwire_client::{ClientEndpointOptions, Message, Service};
use serde_json::Map;

use super::arguments::{
    ClientTokenArguments, ConnectionCommand, GroupCommand, HubCommand, Member, Recipient,
    RemoteCommand, RestTokenArguments, SendArguments, TokenCommand, UserCommand,
};
use super::input::{collect_claims, text_of};
use super::not_in;
use super::outcome::{Failure, Outcome};
use crate::service::Dialect;

/// Carries out a command.
pub(super) async fn execute(
    command: RemoteCommand,
    service: &Service,
    standard_input: impl FnOnce() -> Result<Vec<u8>, Failure>,
) -> Result<Outcome, Failure> {
    match command {
        RemoteCommand::Token(TokenCommand::Client(arguments)) => client_token(arguments, service),
        RemoteCommand::Token(TokenCommand::Rest(arguments)) => Ok(rest_token(&arguments, service)),
        RemoteCommand::Send(arguments) => send(arguments, service, standard_input).await,
        RemoteCommand::Group(command) => group(command, service).await,
        RemoteCommand::User(UserCommand::Exists(arguments)) => {
            Ok(Outcome::Answer(service.user_exists(&arguments.user).await?))
        }
        RemoteCommand::User(UserCommand::LeaveGroups(arguments)) => {
            service.remove_from_all_groups(&arguments.user).await?;
            Ok(Outcome::Done("removed"))
        }
        RemoteCommand::Connection(ConnectionCommand::Exists(arguments)) => {
            Ok(Outcome::Answer(service.connection_exists(&arguments.connection).await?))
        }
        RemoteCommand::Connection(ConnectionCommand::Close(arguments)) => {
            service.close_connection(&arguments.of.connection, arguments.reason.as_deref()).await?;
            Ok(Outcome::Done("closed"))
        }
        RemoteCommand::Hub(HubCommand::Health(_)) => {
            service.health().await?;
            Ok(Outcome::Done("healthy"))
        }
        RemoteCommand::User(UserCommand::Close(_) | UserCommand::List(_))
        | RemoteCommand::Connection(
            ConnectionCommand::LeaveGroups(_)
            | ConnectionCommand::List(_)
            | ConnectionCommand::Show(_),
        )
        | RemoteCommand::Permission(_)
        | RemoteCommand::Hub(HubCommand::Close(_) | HubCommand::List(_)) => {
            Err(not_in(Dialect::Preview, "this command"))
        }
    }
}

fn client_token(arguments: ClientTokenArguments, service: &Service) -> Result<Outcome, Failure> {
    refuse(&[
        ("--role", !arguments.roles.is_empty()),
        ("--group", !arguments.groups.is_empty()),
        ("--kind", arguments.kind.is_some()),
        ("--by-service", arguments.by_service),
    ])?;
    let mut claims = Map::new();
    collect_claims(arguments.claims, &mut claims);
    let options = ClientEndpointOptions {
        user: arguments.user,
        lifetime: arguments.lifetime,
        claims,
        format: arguments.format.map(Into::into),
    };
    Ok(Outcome::Made { name: "url", value: service.client_endpoint(&options)?.into() })
}

fn rest_token(arguments: &RestTokenArguments, service: &Service) -> Outcome {
    let broadcast = format!("ws/api/v1/hubs/{}/", service.hub());
    let path = arguments.path.as_deref().unwrap_or(&broadcast);
    Outcome::Made { name: "token", value: service.rest_token(path, arguments.lifetime) }
}

async fn send(
    arguments: SendArguments,
    service: &Service,
    standard_input: impl FnOnce() -> Result<Vec<u8>, Failure>,
) -> Result<Outcome, Failure> {
    refuse(&[
        ("--json-content", arguments.content.json_content),
        ("--excluded", !arguments.excluded.is_empty()),
        ("--filter", arguments.filter.is_some()),
        ("--ttl", arguments.ttl.is_some()),
        ("--metadata", !arguments.metadata.is_empty()),
    ])?;
    let message = match (arguments.text, arguments.content.binary) {
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

async fn group(command: GroupCommand, service: &Service) -> Result<Outcome, Failure> {
    match command {
        GroupCommand::Exists(arguments) => {
            Ok(Outcome::Answer(service.group_exists(&arguments.group).await?))
        }
        GroupCommand::Contains(arguments) => {
            let is_in = service.user_in_group(&arguments.of.group, &arguments.user).await?;
            Ok(Outcome::Answer(is_in))
        }
        GroupCommand::Add(arguments) => {
            let group = arguments.of.group;
            match (member(arguments.member)?, arguments.ttl) {
                (One::User(user), None) => service.add_to_group(&group, &user).await?,
                (One::User(user), Some(ttl)) => {
                    service.add_to_group_for(&group, &user, ttl).await?;
                }
                (One::Connection(id), _) => service.add_connection_to_group(&group, &id).await?,
            }
            Ok(Outcome::Done("added"))
        }
        GroupCommand::Remove(arguments) => {
            let group = arguments.of.group;
            match member(arguments.member)? {
                One::User(user) => service.remove_from_group(&group, &user).await?,
                One::Connection(id) => service.remove_connection_from_group(&group, &id).await?,
            }
            Ok(Outcome::Done("removed"))
        }
        GroupCommand::Close(_) | GroupCommand::List(_) => {
            Err(not_in(Dialect::Preview, "this command"))
        }
    }
}

/// Whom the preview can put into a group.
enum One {
    User(String),
    Connection(String),
}

fn member(member: Member) -> Result<One, Failure> {
    match member {
        Member { user: Some(user), .. } => Ok(One::User(user)),
        Member { connection: Some(id), .. } => Ok(One::Connection(id)),
        Member { filter, .. } => {
            let what = if filter.is_some() { "--filter" } else { "--everyone" };
            Err(not_in(Dialect::Preview, what))
        }
    }
}

/// Refuses what was given and is not known here.
fn refuse(given: &[(&str, bool)]) -> Result<(), Failure> {
    match given.iter().find(|(_, is_given)| *is_given) {
        Some((what, _)) => Err(not_in(Dialect::Preview, what)),
        None => Ok(()),
    }
}
