//! What the commands take.

use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};
use hookwire_client::Format;

/// Commands that talk to a running service.
#[derive(Debug, Subcommand)]
pub(crate) enum RemoteCommand {
    /// Make a URL for a client, or a token for a REST call
    ///
    /// Nothing is sent: the access key in the connection string signs.
    #[command(subcommand, after_help = EXIT_CODES)]
    Token(TokenCommand),
    /// Send a message to everyone in the hub, or to a user, a group or a connection
    #[command(after_help = EXIT_CODES)]
    Send(SendArguments),
    /// Ask about groups and change who is in them
    #[command(subcommand, after_help = EXIT_CODES)]
    Group(GroupCommand),
    /// Ask about users and take them out of all groups
    #[command(subcommand, after_help = EXIT_CODES)]
    User(UserCommand),
    /// Ask about connections and close them
    #[command(subcommand, after_help = EXIT_CODES)]
    Connection(ConnectionCommand),
}

/// Stands at the end of each command's help.
const EXIT_CODES: &str = "\
Exit codes:
  0  done, or the answer is yes
  1  the answer is no
  2  wrong usage: nothing was sent
  3  the service refused, failed or could not be reached";

/// Which hub of which service.
#[derive(Debug, Args)]
pub(super) struct ServiceArguments {
    /// Where the service is and its key: `Endpoint=…;Port=…;AccessKey=…;`
    ///
    /// Other users of this machine can see arguments: prefer the environment.
    #[arg(long, env = "AzureSignalRConnectionString", hide_env_values = true)]
    pub(super) connection_string: String,
    /// The hub
    #[arg(long, env = "HubName")]
    pub(super) hub: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Print the URL by which a client connects, its token included
    #[command(after_help = EXIT_CODES)]
    Client(ClientTokenArguments),
    /// Print a token for one URL of the REST API
    #[command(after_help = EXIT_CODES)]
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
    #[arg(long = "claim", value_name = "NAME=TEXT", value_parser = claim)]
    pub(super) claims: Vec<(String, String)>,
    /// Which kind of messages the client gets
    #[arg(long)]
    pub(super) format: Option<FormatArgument>,
}

#[derive(Debug, Args)]
pub(crate) struct RestTokenArguments {
    #[command(flatten)]
    pub(super) service: ServiceArguments,
    /// Path of the URL; without it the one that broadcasts to the hub
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

#[derive(Debug, Args)]
pub(crate) struct SendArguments {
    #[command(flatten)]
    pub(super) service: ServiceArguments,
    #[command(flatten)]
    pub(super) to: Recipient,
    /// The message; without it standard input is sent, less the newline at its end
    pub(super) text: Option<String>,
    /// Send a binary message; standard input is then sent as it is
    #[arg(long)]
    pub(super) binary: bool,
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
    #[command(after_help = EXIT_CODES)]
    Exists(GroupArguments),
    /// Ask whether a user is in a group
    #[command(after_help = EXIT_CODES)]
    Contains(GroupUserArguments),
    /// Put a user or a connection into a group
    ///
    /// A user stays in it with all connections that come later, a connection until it ends.
    #[command(after_help = EXIT_CODES)]
    Add(GroupAddArguments),
    /// Take a user or a connection out of a group
    #[command(after_help = EXIT_CODES)]
    Remove(GroupRemoveArguments),
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
    /// How long the user stays in it, in seconds; without it until removed
    #[arg(long, value_name = "SECONDS", value_parser = seconds, conflicts_with = "connection")]
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
    /// A user, with all connections now and later
    #[arg(long)]
    pub(super) user: Option<String>,
    /// One connection
    #[arg(long, value_name = "ID")]
    pub(super) connection: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum UserCommand {
    /// Ask whether a user has a connection
    #[command(after_help = EXIT_CODES)]
    Exists(UserArguments),
    /// Take a user out of all groups
    #[command(after_help = EXIT_CODES)]
    LeaveGroups(UserArguments),
}

#[derive(Debug, Args)]
pub(crate) struct UserArguments {
    #[command(flatten)]
    pub(super) service: ServiceArguments,
    /// The user
    pub(super) user: String,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ConnectionCommand {
    /// Ask whether a connection is there
    #[command(after_help = EXIT_CODES)]
    Exists(ConnectionArguments),
    /// Close a connection
    #[command(after_help = EXIT_CODES)]
    Close(CloseArguments),
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
    /// What the client is told, at most 123 bytes
    #[arg(long)]
    pub(super) reason: Option<String>,
}

fn seconds(text: &str) -> Result<Duration, String> {
    match text.parse() {
        Ok(seconds) if 0 < seconds => Ok(Duration::from_secs(seconds)),
        _ => Err("expected a whole number of seconds, at least 1".to_owned()),
    }
}

fn claim(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("expected NAME=TEXT".to_owned()),
    }
}
