//! What is needed to call a service's REST API: where it is, which hub is meant, how long to wait.

use std::env::VarError;
use std::time::{Duration, SystemTime};

use hookwire_proto::connection_string::{ConnectionString, ConnectionStringError};
use hookwire_proto::name::NameError;
use hookwire_proto::token::NewToken;
use serde_json::Map;

use crate::transport::Transport;
use crate::trust::Trust;

/// How a [`Service`](crate::Service) or a [`ServiceClient`](crate::ServiceClient) behaves.
#[derive(Clone, Debug)]
pub struct ServiceOptions {
    /// Longest time to establish a TCP connection. Default: 5 s.
    pub connect_timeout: Duration,
    /// Longest time of one call, connecting included. Default: 30 s.
    pub call_timeout: Duration,
    /// How long the token of one call is valid. Default: 1 h, as in the older library.
    pub token_lifetime: Duration,
    /// Whom to believe that the service is who it says it is. Default: the public authorities.
    pub trust: Trust,
}

impl Default for ServiceOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            call_timeout: Duration::from_secs(30),
            token_lifetime: Duration::from_hours(1),
            trust: Trust::default(),
        }
    }
}

/// Why a [`Service`](crate::Service) or a [`ServiceClient`](crate::ServiceClient) cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// An environment variable is absent or not Unicode.
    #[error("cannot read the environment variable {name}")]
    Variable {
        /// Its name.
        name: &'static str,
        /// What is wrong with it.
        source: VarError,
    },
    /// The connection string is wrong.
    #[error("cannot use the connection string")]
    ConnectionString(#[from] ConnectionStringError),
    /// The name is none that a hub can have.
    #[error("cannot use the hub name")]
    Hub(#[from] NameError),
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls {
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// Reads a connection string and the name of a hub from two environment variables.
pub(crate) fn from_variables(
    variable: impl Fn(&'static str) -> Result<String, VarError>,
    connection_string: &'static str,
    hub: &'static str,
) -> Result<(String, String), SetupError> {
    let read = |name| variable(name).map_err(|source| SetupError::Variable { name, source });
    Ok((read(connection_string)?, read(hub)?))
}

/// Prepares the transport; opens nothing.
pub(crate) fn transport(options: &ServiceOptions) -> Result<Transport, SetupError> {
    Transport::new(options.connect_timeout, &options.trust)
        .map_err(|source| SetupError::Tls { source: Box::new(source) })
}

/// Returns a token without claims for a URL of the REST API.
pub(crate) fn rest_token(
    connection: &ConnectionString,
    audience: &str,
    lifetime: Duration,
) -> String {
    let token = NewToken { audience, issued_at: now(), lifetime, user: None, claims: Map::new() };
    token.sign(connection.access_key())
}

/// Returns the time in seconds since 1970.
pub(crate) fn now() -> u64 {
    // A clock before 1970 makes tokens that every service refuses as expired, with a text that says by how much.
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |time| time.as_secs())
}
