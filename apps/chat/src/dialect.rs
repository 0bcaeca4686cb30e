//! How the chat and its service speak with each other: the one place that knows it.
//!
//! A [`Hub`] is what the chat asks of the service. What the service tells the chat comes in by the routes of the dialect's module,
//! which turn it into the words of [`Functions`].

mod preview;
mod web_pubsub;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hookwire_client::{
    ClientAccess, ClientEndpointOptions, ClientKind, ConnectionString, HubName, NameError, Service,
    ServiceClient, ServiceError, ServiceOptions, SetupError,
};
use http::StatusCode;
use url::Url;

use crate::functions::Functions;
use crate::name::UserName;

/// The words in which a service and its upstream speak with each other. Everything that the chat does it does in either.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dialect {
    /// Those of the 2020 preview of Azure's serverless WebSocket service.
    #[default]
    Preview,
    /// Those of Azure Web PubSub.
    WebPubSub,
}

/// The hub that is the chat. Cloning it is cheap.
///
/// A call that returns `Ok` was carried out by the service. Every call may be made twice.
#[derive(Clone, Debug)]
pub(crate) enum Hub {
    /// On a service of the 2020 preview.
    Preview(Service),
    /// On a service of Web PubSub.
    WebPubSub(ServiceClient),
}

impl Hub {
    /// # Errors
    /// [`SetupError::Tls`].
    pub(crate) fn new(
        dialect: Dialect,
        connection: ConnectionString,
        hub: HubName,
        options: ServiceOptions,
    ) -> Result<Self, SetupError> {
        Ok(match dialect {
            Dialect::Preview => Self::Preview(Service::with_options(connection, hub, options)?),
            Dialect::WebPubSub => {
                Self::WebPubSub(ServiceClient::with_options(connection, hub, options)?)
            }
        })
    }
}

/// Sending text, which arrives as a text message.
impl Hub {
    pub(crate) async fn send_to_everybody(&self, text: &str) -> Result<(), ServiceError> {
        match self {
            Self::Preview(service) => service.broadcast(text).await,
            Self::WebPubSub(service) => service.send_to_all(text).await,
        }
    }

    pub(crate) async fn send_to_user(&self, user: &str, text: &str) -> Result<(), ServiceError> {
        match self {
            Self::Preview(service) => service.send_to_user(user, text).await,
            Self::WebPubSub(service) => service.send_to_user(user, text).await,
        }
    }

    pub(crate) async fn send_to_group(&self, group: &str, text: &str) -> Result<(), ServiceError> {
        match self {
            Self::Preview(service) => service.send_to_group(group, text).await,
            Self::WebPubSub(service) => service.send_to_group(group, text).await,
        }
    }
}

/// Who is there, and in which group.
impl Hub {
    /// Returns whether a user has a connection.
    pub(crate) async fn has_user(&self, user: &str) -> Result<bool, ServiceError> {
        match self {
            Self::Preview(service) => service.user_exists(user).await,
            Self::WebPubSub(service) => service.user_exists(user).await,
        }
    }

    /// Returns whether a user who was added to a group stays in it with all connections, now and later. Otherwise only the
    /// connections of now are meant, and each new one has to be added when it comes.
    pub(crate) fn keeps_users_in_groups(&self) -> bool {
        match self {
            Self::Preview(_) => true,
            Self::WebPubSub(_) => false,
        }
    }

    /// Lets a user get what is sent to a group. Nobody being there is no error.
    pub(crate) async fn add_to_group(&self, group: &str, user: &str) -> Result<(), ServiceError> {
        match self {
            Self::Preview(service) => service.add_to_group(group, user).await,
            Self::WebPubSub(service) => {
                absent_is_fine(service.add_user_to_group(group, user).await)
            }
        }
    }

    pub(crate) async fn remove_from_group(
        &self,
        group: &str,
        user: &str,
    ) -> Result<(), ServiceError> {
        match self {
            Self::Preview(service) => service.remove_from_group(group, user).await,
            Self::WebPubSub(service) => service.remove_user_from_group(group, user).await,
        }
    }

    /// Lets a connection get what is sent to a group. A connection that is gone is no error.
    pub(crate) async fn add_connection_to_group(
        &self,
        group: &str,
        connection: &str,
    ) -> Result<(), ServiceError> {
        match self {
            Self::Preview(service) => {
                absent_is_fine(service.add_connection_to_group(group, connection).await)
            }
            Self::WebPubSub(service) => {
                absent_is_fine(service.add_connection_to_group(group, connection).await)
            }
        }
    }

    pub(crate) async fn remove_connection_from_group(
        &self,
        group: &str,
        connection: &str,
    ) -> Result<(), ServiceError> {
        match self {
            Self::Preview(service) => {
                absent_is_fine(service.remove_connection_from_group(group, connection).await)
            }
            Self::WebPubSub(service) => {
                service.remove_connection_from_group(group, connection).await
            }
        }
    }

    /// Takes a connection out of the groups that it was put into, other than with its user.
    pub(crate) async fn remove_connection_from_all_groups(
        &self,
        connection: &str,
    ) -> Result<(), ServiceError> {
        match self {
            Self::Preview(_) => Ok(()),
            Self::WebPubSub(service) => service.remove_connection_from_all_groups(connection).await,
        }
    }
}

impl Hub {
    pub(crate) fn endpoint(&self) -> &Url {
        match self {
            Self::Preview(service) => service.endpoint(),
            Self::WebPubSub(service) => service.endpoint(),
        }
    }

    /// Returns the URL by which a client connects without a token.
    pub(crate) fn anonymous_client_url(&self) -> Url {
        match self {
            Self::Preview(service) => service.anonymous_client_endpoint(None),
            Self::WebPubSub(service) => service.anonymous_client_url(ClientKind::default()),
        }
    }

    /// Returns the URL by which a client connects, with a token that names `user`, or nobody.
    ///
    /// # Errors
    /// [`NameError`] when the user is no possible user id.
    pub(crate) fn client_url(
        &self,
        user: Option<&UserName>,
        lifetime: Duration,
    ) -> Result<Url, NameError> {
        let user = user.map(ToString::to_string);
        match self {
            Self::Preview(service) => service.client_endpoint(&ClientEndpointOptions {
                user,
                lifetime,
                ..ClientEndpointOptions::default()
            }),
            Self::WebPubSub(service) => {
                let access = ClientAccess::new().lifetime(lifetime);
                let access = match user {
                    Some(user) => access.user(user),
                    None => access,
                };
                Ok(service.client_access(&access)?.url)
            }
        }
    }

    /// Returns the routes by which the service calls `functions`.
    pub(crate) fn routes(&self, functions: Arc<Functions>) -> Router {
        match self {
            Self::Preview(service) => preview::routes(service.clone(), functions),
            Self::WebPubSub(service) => web_pubsub::routes(service, functions),
        }
    }
}

fn absent_is_fine(result: Result<(), ServiceError>) -> Result<(), ServiceError> {
    match result {
        Err(ServiceError::Status { status: StatusCode::NOT_FOUND, .. }) => Ok(()),
        result => result,
    }
}

/// Returns whether a call that failed may succeed when it is made again.
pub(crate) fn may_pass(error: &ServiceError) -> bool {
    match error {
        ServiceError::Unreachable { .. }
        | ServiceError::Interrupted { .. }
        | ServiceError::Timeout { .. } => true,
        ServiceError::Status { status, .. } => {
            status.is_server_error() || *status == StatusCode::TOO_MANY_REQUESTS
        }
        ServiceError::Name(_)
        | ServiceError::ReasonTooLong { .. }
        | ServiceError::Metadata(_)
        | ServiceError::Ttl
        | ServiceError::Request { .. }
        | ServiceError::AnswerTooLong { .. }
        | ServiceError::Malformed { .. } => false,
    }
}
