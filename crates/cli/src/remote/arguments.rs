//! What the commands take.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use hookwire_client::{ClientKind, Format, Permission, Trust, TrustError};

use crate::service::Dialect;

/// Commands that talk to a running service.
#[derive(Debug, Subcommand)]
pub(crate) enum RemoteCommand {
    /// Make a URL for a client, or a token for a REST call
    ///
    /// Nothing is sent: the access key in the connection string signs.
    #[command(subcommand, after_help = AFTER_HELP)]
    Token(TokenCommand),
    /// Send a message to everyone in the hub, or to a user, a group or a connection
    #[command(after_help = AFTER_HELP)]
    Send(SendArguments),
    /// Ask about groups and change who is in them
    #[command(subcommand, after_help = AFTER_HELP)]
    Group(GroupCommand),
    /// Ask about users, take them out of all groups and close their connections
    #[command(subcommand, after_help = AFTER_HELP)]
    User(UserCommand),
    /// Ask about connections and close them
    #[command(subcommand, after_help = AFTER_HELP)]
    Connection(ConnectionCommand),
    /// Say what connections may do with groups
    #[command(subcommand, after_help = AFTER_HELP)]
    Permission(PermissionCommand),
    /// Ask about hubs and close all connections of one
    #[command(subcommand, after_help = AFTER_HELP)]
    Hub(HubCommand),
}

impl RemoteCommand {
    /// Returns which hub of which service is meant.
    pub(super) fn service(&self) -> &ServiceArguments {
        match self {
            Self::Token(TokenCommand::Client(arguments)) => &arguments.service,
            Self::Token(TokenCommand::Rest(arguments)) => &arguments.service,
            Self::Send(arguments) => &arguments.service,
            Self::Group(command) => match command {
                GroupCommand::Exists(arguments) => &arguments.service,
                GroupCommand::Contains(arguments) => &arguments.of.service,
                GroupCommand::Add(arguments) => &arguments.of.service,
                GroupCommand::Remove(arguments) => &arguments.of.service,
                GroupCommand::Close(arguments) => &arguments.of.service,
                GroupCommand::List(arguments) => &arguments.service,
            },
            Self::User(command) => match command {
                UserCommand::Exists(arguments) | UserCommand::LeaveGroups(arguments) => {
                    &arguments.service
                }
                UserCommand::Close(arguments) => &arguments.of.service,
                UserCommand::List(arguments) => &arguments.service,
            },
            Self::Connection(command) => match command {
                ConnectionCommand::Exists(arguments)
                | ConnectionCommand::LeaveGroups(arguments)
                | ConnectionCommand::Show(arguments) => &arguments.service,
                ConnectionCommand::Close(arguments) => &arguments.of.service,
                ConnectionCommand::List(arguments) => &arguments.list.service,
            },
            Self::Permission(command) => match command {
                PermissionCommand::Grant(arguments)
                | PermissionCommand::Revoke(arguments)
                | PermissionCommand::Check(arguments) => &arguments.service,
            },
            Self::Hub(command) => match command {
                HubCommand::Health(service) => service,
                HubCommand::Close(arguments) => &arguments.service,
                HubCommand::List(arguments) => &arguments.service,
            },
        }
    }
}

/// Stands at the end of each command's help.
const AFTER_HELP: &str = "\
Environment:
  WebPubSubConnectionString     the service, if not named by --connection-string
  AzureSignalRConnectionString  the same; suggests the dialect preview
  HubName, WebPubSubHub         the hub, if not named by --hub
  HubDialect                    the dialect, if not named by --dialect
  HOOKWIRE_CA_FILE              whom to trust too, if not named by --ca-file

Exit codes:
  0  done, or the answer is yes
  1  the answer is no
  2  wrong usage: nothing was sent
  3  the service refused, failed or could not be reached";

/// Which hub of which service.
#[derive(Debug, Args)]
pub(crate) struct HubArguments {
    /// Where the service is and its key: `Endpoint=…;Port=…;AccessKey=…;`
    ///
    /// Other users of this machine can see arguments: prefer the environment.
    #[arg(long, value_name = "STRING")]
    pub(super) connection_string: Option<String>,
    /// The hub; without it the environment tells
    #[arg(long)]
    pub(super) hub: Option<String>,
    #[command(flatten)]
    pub(super) trust: TrustArguments,
}

/// Which hub of which service, and how to speak with it.
#[derive(Debug, Args)]
pub(crate) struct ServiceArguments {
    #[command(flatten)]
    pub(super) of: HubArguments,
    /// The REST API to call
    ///
    /// Without it the variable that holds the connection string tells: `AzureSignalRConnectionString` means the preview, on which
    /// scripts of that time rely, everything else Web PubSub, which can do more. Both reach the same connections.
    #[arg(long, value_enum, env = "HubDialect")]
    pub(super) dialect: Option<Dialect>,
}

/// Whom to believe that a service is who it says it is.
#[derive(Debug, Args)]
pub(crate) struct TrustArguments {
    /// Certificates in PEM of authorities that are trusted beside the public ones
    #[arg(long, value_name = "FILE", env = "HOOKWIRE_CA_FILE")]
    ca_file: Option<PathBuf>,
}

impl TrustArguments {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read, or holds no certificates.
    pub(crate) fn trust(&self) -> Result<Trust, TrustError> {
        let public = Trust::default();
        self.ca_file
            .as_ref()
            .map_or_else(|| Ok(public.clone()), |file| public.clone().and_file(file))
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Print the URL by which a client connects, its token included
    #[command(after_help = AFTER_HELP)]
    Client(ClientTokenArguments),
    /// Print a token for one URL of the REST API
    #[command(after_help = AFTER_HELP)]
    Rest(RestTokenArguments),
}

#[derive(Debug, Args)]
pub(crate) struct ClientTokenArguments {
    #[command(flatten)]
    pub(super) service: ServiceArguments,
    /// Who the client is; without it the upstream decides
    #[arg(long)]
    pub(super) user: Option<String>,
    /// How long the URL can be used to connect, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "3600", value_parser = seconds)]
    pub(super) lifetime: Duration,
    /// A further claim as NAME=TEXT; the same name again makes a list
    #[arg(long = "claim", value_name = "NAME=TEXT", value_parser = pair)]
    pub(super) claims: Vec<(String, String)>,
    /// A role, such as webpubsub.sendToGroup.news; may be repeated (web-pubsub)
    #[arg(long = "role")]
    pub(super) roles: Vec<String>,
    /// A group that the client joins at once; may be repeated (web-pubsub)
    #[arg(long = "group")]
    pub(super) groups: Vec<String>,
    /// What the client speaks (web-pubsub)
    #[arg(long, value_enum)]
    pub(super) kind: Option<KindArgument>,
    /// Let the service make the token instead (web-pubsub)
    #[arg(long, conflicts_with = "claims")]
    pub(super) by_service: bool,
    /// Which kind of messages the client gets (preview)
    #[arg(long)]
    pub(super) format: Option<FormatArgument>,
}

#[derive(Debug, Args)]
pub(crate) struct RestTokenArguments {
    #[command(flatten)]
    pub(super) service: ServiceArguments,
    /// Path and query of the URL; without it the one that sends to the hub
    pub(super) path: Option<String>,
    /// How long the token is valid, in seconds
    #[arg(long, value_name = "SECONDS", default_value = "3600", value_parser = seconds)]
    pub(super) lifetime: Duration,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum FormatArgument {
    Text,
    Binary,
}

impl From<FormatArgument> for Format {
    fn from(argument: FormatArgument) -> Self {
        match argument {
            FormatArgument::Text => Self::Text,
            FormatArgument::Binary => Self::Binary,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum KindArgument {
    /// Plain WebSocket or a subprotocol of Web PubSub
    #[value(name = "web-pubsub")]
    WebPubSub,
    /// MQTT over WebSocket
    Mqtt,
    /// Socket.IO
    #[value(name = "socketio")]
    SocketIo,
}

impl From<KindArgument> for ClientKind {
    fn from(argument: KindArgument) -> Self {
        match argument {
            KindArgument::WebPubSub => Self::WebPubSub,
            KindArgument::Mqtt => Self::Mqtt,
            KindArgument::SocketIo => Self::SocketIo,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct SendArguments {
    #[command(flatten)]
    pub(super) service: ServiceArguments,
    #[command(flatten)]
    pub(super) to: Recipient,
    /// The message; without it standard input is sent, less the newline at its end
    pub(super) text: Option<String>,
    #[command(flatten)]
    pub(super) content: ContentArguments,
    /// Leave out a connection; may be repeated (web-pubsub)
    #[arg(long, value_name = "ID", conflicts_with = "connection")]
    pub(super) excluded: Vec<String>,
    /// Send only to connections that a filter selects, such as "userId ne 'ann'" (web-pubsub)
    #[arg(long, value_name = "EXPRESSION", conflicts_with = "connection")]
    pub(super) filter: Option<String>,
    /// How long the message waits for a connection whose transport is lost, in seconds, 300 at most (web-pubsub)
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(super) ttl: Option<Duration>,
    /// A pair that travels with the message; may be repeated (web-pubsub)
    #[arg(long, value_name = "KEY=TEXT", value_parser = pair)]
    pub(super) metadata: Vec<(String, String)>,
}

#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct ContentArguments {
    /// Send a binary message; standard input is then sent as it is
    #[arg(long)]
    pub(super) binary: bool,
    /// Send JSON, which is checked (web-pubsub)
    #[arg(long)]
    pub(super) json_content: bool,
}

/// None of them means everyone in the hub.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct Recipient {
    /// To every connection of this user
    #[arg(long)]
    pub(super) user: Option<String>,
    /// To every connection in this group
    #[arg(long)]
    pub(super) group: Option<String>,
    /// To this connection
    #[arg(long, value_name = "ID")]
    pub(super) connection: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum GroupCommand {
    /// Ask whether a group has a connection
    #[command(after_help = AFTER_HELP)]
    Exists(GroupArguments),
    /// Ask whether a user was put into a group and stays in it (preview)
    #[command(after_help = AFTER_HELP)]
    Contains(GroupUserArguments),
    /// Put a user or a connection into a group
    ///
    /// In the preview a user stays in it with all connections that come later. In Web PubSub the connections that the user has now
    /// are put into it. A connection stays in a group until it ends.
    #[command(after_help = AFTER_HELP)]
    Add(GroupAddArguments),
    /// Take a user or a connection out of a group
    #[command(after_help = AFTER_HELP)]
    Remove(GroupRemoveArguments),
    /// Close the connections in a group (web-pubsub)
    #[command(after_help = AFTER_HELP)]
    Close(GroupCloseArguments),
    /// List the groups that have a connection (web-pubsub; of Hookwire only)
    #[command(after_help = AFTER_HELP)]
    List(ListArguments),
}

#[derive(Debug, Args)]
pub(crate) struct GroupArguments {
    #[command(flatten)]
    pub(super) service: ServiceArguments,
    /// The group
    pub(super) group: String,
}

#[derive(Debug, Args)]
pub(crate) struct GroupUserArguments {
    #[command(flatten)]
    pub(super) of: GroupArguments,
    /// The user
    #[arg(long)]
    pub(super) user: String,
}

#[derive(Debug, Args)]
pub(crate) struct GroupAddArguments {
    #[command(flatten)]
    pub(super) of: GroupArguments,
    #[command(flatten)]
    pub(super) member: Member,
    /// How long the user stays in it, in seconds; without it until removed (preview)
    #[arg(long, value_name = "SECONDS", value_parser = seconds, conflicts_with_all = ["connection", "filter", "everyone"])]
    pub(super) ttl: Option<Duration>,
}

#[derive(Debug, Args)]
pub(crate) struct GroupRemoveArguments {
    #[command(flatten)]
    pub(super) of: GroupArguments,
    #[command(flatten)]
    pub(super) member: Member,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Member {
    /// A user
    #[arg(long)]
    pub(super) user: Option<String>,
    /// One connection
    #[arg(long, value_name = "ID")]
    pub(super) connection: Option<String>,
    /// The connections that a filter selects (web-pubsub)
    #[arg(long, value_name = "EXPRESSION")]
    pub(super) filter: Option<String>,
    /// All connections of the hub (web-pubsub)
    #[arg(long)]
    pub(super) everyone: bool,
}

#[derive(Debug, Args)]
pub(crate) struct GroupCloseArguments {
    #[command(flatten)]
    pub(super) of: GroupArguments,
    #[command(flatten)]
    pub(super) closing: ClosingArguments,
}

/// How many connections are closed.
#[derive(Debug, Args)]
pub(super) struct ClosingArguments {
    /// What the clients and the upstream are told
    #[arg(long)]
    pub(super) reason: Option<String>,
    /// Leave a connection open; may be repeated
    #[arg(long, value_name = "ID")]
    pub(super) excluded: Vec<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Ask whether a user has a connection
    #[command(after_help = AFTER_HELP)]
    Exists(UserArguments),
    /// Take a user out of all groups
    #[command(after_help = AFTER_HELP)]
    LeaveGroups(UserArguments),
    /// Close the connections of a user (web-pubsub)
    #[command(after_help = AFTER_HELP)]
    Close(UserCloseArguments),
    /// List the users that have a connection (web-pubsub; of Hookwire only)
    #[command(after_help = AFTER_HELP)]
    List(ListArguments),
}

#[derive(Debug, Args)]
pub(crate) struct UserArguments {
    #[command(flatten)]
    pub(super) service: ServiceArguments,
    /// The user
    pub(super) user: String,
}

#[derive(Debug, Args)]
pub(crate) struct UserCloseArguments {
    #[command(flatten)]
    pub(super) of: UserArguments,
    #[command(flatten)]
    pub(super) closing: ClosingArguments,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConnectionCommand {
    /// Ask whether a connection is there
    #[command(after_help = AFTER_HELP)]
    Exists(ConnectionArguments),
    /// Close a connection
    #[command(after_help = AFTER_HELP)]
    Close(CloseArguments),
    /// Take a connection out of all groups (web-pubsub)
    #[command(after_help = AFTER_HELP)]
    LeaveGroups(ConnectionArguments),
    /// List the connections of a group (web-pubsub), or of a user or the hub (of Hookwire only)
    #[command(after_help = AFTER_HELP)]
    List(ConnectionListArguments),
    /// Tell all about a connection (web-pubsub; of Hookwire only)
    #[command(after_help = AFTER_HELP)]
    Show(ConnectionArguments),
}

#[derive(Debug, Args)]
pub(crate) struct ConnectionArguments {
    #[command(flatten)]
    pub(super) service: ServiceArguments,
    /// The connection
    #[arg(value_name = "ID")]
    pub(super) connection: String,
}

#[derive(Debug, Args)]
pub(crate) struct CloseArguments {
    #[command(flatten)]
    pub(super) of: ConnectionArguments,
    /// What the client is told; in the preview at most 123 bytes
    #[arg(long)]
    pub(super) reason: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ConnectionListArguments {
    #[command(flatten)]
    pub(super) list: ListArguments,
    #[command(flatten)]
    pub(super) of: Owner,
}

/// None of them means the whole hub.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct Owner {
    /// Those in this group
    #[arg(long)]
    pub(super) group: Option<String>,
    /// Those of this user
    #[arg(long)]
    pub(super) user: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct ListArguments {
    #[command(flatten)]
    pub(super) service: ServiceArguments,
    /// How many at most
    #[arg(long, value_name = "COUNT", default_value = "1000", value_parser = clap::value_parser!(u32).range(1..=TOP_MAX))]
    pub(super) top: u32,
}

/// Most items that are kept to be printed.
const TOP_MAX: i64 = 1_000_000;

#[derive(Debug, Subcommand)]
pub(crate) enum PermissionCommand {
    /// Give a connection a permission (web-pubsub)
    #[command(after_help = AFTER_HELP)]
    Grant(PermissionArguments),
    /// Take a permission away, whatever the connection's roles say (web-pubsub)
    #[command(after_help = AFTER_HELP)]
    Revoke(PermissionArguments),
    /// Ask whether a connection has a permission (web-pubsub)
    #[command(after_help = AFTER_HELP)]
    Check(PermissionArguments),
}

#[derive(Debug, Args)]
pub(crate) struct PermissionArguments {
    #[command(flatten)]
    pub(super) service: ServiceArguments,
    /// What for
    #[arg(value_enum)]
    pub(super) permission: PermissionArgument,
    /// The connection
    #[arg(long, value_name = "ID")]
    pub(super) connection: String,
    /// The group; without it all groups are meant
    #[arg(long)]
    pub(super) group: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub(super) enum PermissionArgument {
    /// Join and leave groups
    JoinLeaveGroup,
    /// Send to groups
    SendToGroup,
}

impl From<PermissionArgument> for Permission {
    fn from(argument: PermissionArgument) -> Self {
        match argument {
            PermissionArgument::JoinLeaveGroup => Self::JoinLeaveGroup,
            PermissionArgument::SendToGroup => Self::SendToGroup,
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum HubCommand {
    /// Ask whether the service is up
    #[command(after_help = AFTER_HELP)]
    Health(ServiceArguments),
    /// Close the connections of the hub (web-pubsub)
    #[command(after_help = AFTER_HELP)]
    Close(HubCloseArguments),
    /// List the hubs that have a connection (web-pubsub; of Hookwire only)
    #[command(after_help = AFTER_HELP)]
    List(ListArguments),
}

#[derive(Debug, Args)]
pub(crate) struct HubCloseArguments {
    #[command(flatten)]
    pub(super) service: ServiceArguments,
    #[command(flatten)]
    pub(super) closing: ClosingArguments,
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if 0 < seconds => Ok(Duration::from_secs(seconds)),
        _ => Err("expected a whole number of seconds, at least 1".to_owned()),
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=TEXT".to_owned()),
    }
}
