//! The commands by the API of Azure Web PubSub.

use hookwire_client::{
    ClientAccess, Closing, ConnectionDetails, ListOptions, ListedConnection, ListedName, Outgoing,
    Pages, Payload, ServiceClient,
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::arguments::{
    ClientTokenArguments, ClosingArguments, ConnectionCommand, ConnectionListArguments,
    ContentArguments, GroupCommand, HubCommand, ListArguments, Member, Owner, PermissionCommand,
    Recipient, RemoteCommand, RestTokenArguments, SendArguments, TokenCommand, UserCommand,
};
use super::input::{collect_claims, text_of};
use super::not_in;
use super::outcome::{Failure, Item, Outcome};
use crate::service::Dialect;

/// Carries out a command.
pub(super) async fn execute(
    command: RemoteCommand,
    service: &ServiceClient,
    standard_input: impl FnOnce() -> Result<Vec<u8>, Failure>,
) -> Result<Outcome, Failure> {
    match command {
        RemoteCommand::Token(TokenCommand::Client(arguments)) => {
            client_token(arguments, service).await
        }
        RemoteCommand::Token(TokenCommand::Rest(arguments)) => Ok(rest_token(&arguments, service)),
        RemoteCommand::Send(arguments) => send(arguments, service, standard_input).await,
        RemoteCommand::Group(command) => group(command, service).await,
        RemoteCommand::User(command) => user(command, service).await,
        RemoteCommand::Connection(command) => connection(command, service).await,
        RemoteCommand::Permission(command) => permission(command, service).await,
        RemoteCommand::Hub(command) => hub(command, service).await,
    }
}

async fn client_token(
    arguments: ClientTokenArguments,
    service: &ServiceClient,
) -> Result<Outcome, Failure> {
    if arguments.format.is_some() {
        return Err(not_in(Dialect::WebPubSub, "--format"));
    }
    let mut access = ClientAccess::new().lifetime(arguments.lifetime);
    if let Some(user) = arguments.user {
        access = access.user(user);
    }
    if let Some(kind) = arguments.kind {
        access = access.kind(kind.into());
    }
    access = arguments.roles.into_iter().fold(access, ClientAccess::role);
    access = arguments.groups.into_iter().fold(access, ClientAccess::group);
    let mut claims = Map::new();
    collect_claims(arguments.claims, &mut claims);
    for (name, value) in claims {
        access = access.claim(name, value);
    }
    let made = if arguments.by_service {
        service.generate_token(&access).await?
    } else {
        service.client_access(&access)?
    };
    Ok(Outcome::Made { name: "url", value: made.url.into() })
}

fn rest_token(arguments: &RestTokenArguments, service: &ServiceClient) -> Outcome {
    let send = format!("/api/hubs/{}/:send", service.hub());
    let path = arguments.path.as_deref().unwrap_or(&send);
    Outcome::Made { name: "token", value: service.rest_token(path, arguments.lifetime) }
}

async fn send(
    arguments: SendArguments,
    service: &ServiceClient,
    standard_input: impl FnOnce() -> Result<Vec<u8>, Failure>,
) -> Result<Outcome, Failure> {
    let ContentArguments { binary, json_content } = arguments.content;
    let payload = match (arguments.text, binary) {
        (Some(text), true) => Payload::from(text.into_bytes()),
        (None, true) => Payload::from(standard_input()?),
        (text, false) => {
            let text = text.map_or_else(|| text_of(standard_input()?), Ok)?;
            if json_content {
                Payload::raw_json(text).map_err(Failure::usage)?
            } else {
                Payload::from(text)
            }
        }
    };
    let mut message = Outgoing::new(payload).excluding(arguments.excluded);
    if let Some(filter) = arguments.filter {
        message = message.filter(filter);
    }
    if let Some(ttl) = arguments.ttl {
        message = message.ttl(ttl);
    }
    for (key, value) in arguments.metadata {
        message = message.metadata(key, value);
    }
    match arguments.to {
        Recipient { user: Some(user), .. } => service.send_to_user(&user, message).await?,
        Recipient { group: Some(group), .. } => service.send_to_group(&group, message).await?,
        Recipient { connection: Some(id), .. } => service.send_to_connection(&id, message).await?,
        Recipient { user: None, group: None, connection: None } => {
            service.send_to_all(message).await?;
        }
    }
    Ok(Outcome::Done("sent"))
}

async fn group(command: GroupCommand, service: &ServiceClient) -> Result<Outcome, Failure> {
    match command {
        GroupCommand::Exists(arguments) => {
            Ok(Outcome::Answer(service.group_exists(&arguments.group).await?))
        }
        GroupCommand::Contains(_) => Err(not_in(Dialect::WebPubSub, "this command")),
        GroupCommand::Add(arguments) => {
            if arguments.ttl.is_some() {
                return Err(not_in(Dialect::WebPubSub, "--ttl"));
            }
            let group = arguments.of.group;
            match arguments.member {
                Member { user: Some(user), .. } => service.add_user_to_group(&group, &user).await?,
                Member { connection: Some(id), .. } => {
                    service.add_connection_to_group(&group, &id).await?;
                }
                Member { filter, .. } => {
                    service.add_connections_to_groups(&[&group], filter.as_deref()).await?;
                }
            }
            Ok(Outcome::Done("added"))
        }
        GroupCommand::Remove(arguments) => {
            let group = arguments.of.group;
            match arguments.member {
                Member { user: Some(user), .. } => {
                    service.remove_user_from_group(&group, &user).await?;
                }
                Member { connection: Some(id), .. } => {
                    service.remove_connection_from_group(&group, &id).await?;
                }
                Member { filter, .. } => {
                    service.remove_connections_from_groups(&[&group], filter.as_deref()).await?;
                }
            }
            Ok(Outcome::Done("removed"))
        }
        GroupCommand::Close(arguments) => {
            let closing = closing(arguments.closing);
            service.close_group_connections(&arguments.of.group, closing).await?;
            Ok(Outcome::Done("closed"))
        }
        GroupCommand::List(arguments) => {
            list(service.list_groups(options(arguments.top)), arguments.top, name).await
        }
    }
}

async fn user(command: UserCommand, service: &ServiceClient) -> Result<Outcome, Failure> {
    match command {
        UserCommand::Exists(arguments) => {
            Ok(Outcome::Answer(service.user_exists(&arguments.user).await?))
        }
        UserCommand::LeaveGroups(arguments) => {
            service.remove_user_from_all_groups(&arguments.user).await?;
            Ok(Outcome::Done("removed"))
        }
        UserCommand::Close(arguments) => {
            let closing = closing(arguments.closing);
            service.close_user_connections(&arguments.of.user, closing).await?;
            Ok(Outcome::Done("closed"))
        }
        UserCommand::List(arguments) => {
            list(service.list_users(options(arguments.top)), arguments.top, name).await
        }
    }
}

async fn connection(
    command: ConnectionCommand,
    service: &ServiceClient,
) -> Result<Outcome, Failure> {
    match command {
        ConnectionCommand::Exists(arguments) => {
            Ok(Outcome::Answer(service.connection_exists(&arguments.connection).await?))
        }
        ConnectionCommand::Close(arguments) => {
            service.close_connection(&arguments.of.connection, arguments.reason.as_deref()).await?;
            Ok(Outcome::Done("closed"))
        }
        ConnectionCommand::LeaveGroups(arguments) => {
            service.remove_connection_from_all_groups(&arguments.connection).await?;
            Ok(Outcome::Done("removed"))
        }
        ConnectionCommand::List(ConnectionListArguments {
            list: ListArguments { top, .. },
            of,
        }) => {
            let options = options(top);
            let pages = match of {
                Owner { group: Some(group), .. } => service.list_connections(&group, options)?,
                Owner { user: Some(user), .. } => service.list_user_connections(&user, options)?,
                Owner { group: None, user: None } => service.list_all_connections(options),
            };
            list(pages, top, listed).await
        }
        ConnectionCommand::Show(arguments) => {
            match service.describe_connection(&arguments.connection).await? {
                Some(details) => Ok(Outcome::Facts(facts(&details))),
                None => Ok(Outcome::Answer(false)),
            }
        }
    }
}

async fn permission(
    command: PermissionCommand,
    service: &ServiceClient,
) -> Result<Outcome, Failure> {
    match command {
        PermissionCommand::Grant(arguments) => {
            let (what, group) = (arguments.permission.into(), arguments.group.as_deref());
            service.grant_permission(what, &arguments.connection, group).await?;
            Ok(Outcome::Done("granted"))
        }
        PermissionCommand::Revoke(arguments) => {
            let (what, group) = (arguments.permission.into(), arguments.group.as_deref());
            service.revoke_permission(what, &arguments.connection, group).await?;
            Ok(Outcome::Done("revoked"))
        }
        PermissionCommand::Check(arguments) => {
            let (what, group) = (arguments.permission.into(), arguments.group.as_deref());
            Ok(Outcome::Answer(service.has_permission(what, &arguments.connection, group).await?))
        }
    }
}

async fn hub(command: HubCommand, service: &ServiceClient) -> Result<Outcome, Failure> {
    match command {
        HubCommand::Health(_) => {
            service.health().await?;
            Ok(Outcome::Done("healthy"))
        }
        HubCommand::Close(arguments) => {
            service.close_all_connections(closing(arguments.closing)).await?;
            Ok(Outcome::Done("closed"))
        }
        HubCommand::List(arguments) => {
            list(service.list_hubs(options(arguments.top)), arguments.top, name).await
        }
    }
}

fn closing(arguments: ClosingArguments) -> Closing {
    let closing = Closing::new().excluding(arguments.excluded);
    match arguments.reason {
        Some(reason) => closing.reason(reason),
        None => closing,
    }
}

/// One more than is shown tells whether there are more.
fn options(top: u32) -> ListOptions {
    ListOptions { page_size: None, top: Some(top.saturating_add(1)) }
}

async fn list<T: DeserializeOwned>(
    mut pages: Pages<T>,
    top: u32,
    item: impl Fn(&T) -> Item,
) -> Result<Outcome, Failure> {
    let top = usize::try_from(top).unwrap_or(usize::MAX);
    let mut items = Vec::new();
    while let Some(one) = pages.next().await? {
        if items.len() == top {
            return Ok(Outcome::List { items, more: true });
        }
        items.push(item(&one));
    }
    Ok(Outcome::List { items, more: false })
}

fn name(one: &ListedName) -> Item {
    Item::new(&one.name, json!({ "name": one.name }))
}

fn listed(one: &ListedConnection) -> Item {
    match &one.user {
        Some(user) => {
            Item::new(&format!("{}  {user}", one.id), json!({ "id": one.id, "user": user }))
        }
        None => Item::new(&one.id, json!({ "id": one.id })),
    }
}

fn facts(details: &ConnectionDetails) -> Value {
    let mut facts = json!({ "id": details.id });
    if let Some(user) = &details.user {
        facts["user"] = user.as_str().into();
    }
    facts["groups"] = details.groups.clone().into();
    if let Some(subprotocol) = &details.subprotocol {
        facts["subprotocol"] = subprotocol.as_str().into();
    }
    facts["dialect"] = details.dialect.as_str().into();
    facts["recovering"] = details.recovering.into();
    facts["unacknowledgedMessages"] = details.unacknowledged_messages.into();
    facts["waitingEvents"] = details.waiting_events.into();
    facts
}
