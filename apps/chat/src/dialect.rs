//! How the chat and its service speak with each other: the one place that knows it.
//!
//! A [`Hub`] is what the chat asks of the service. What the service tells the chat comes in by the routes of the dialect's module,
//! which turn it into the words of [`Functions`].

mod preview;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hookwire_client::{ClientEndpointOptions, NameError, Service, ServiceError};
use http::StatusCode;
use url::Url;

use crate::functions::Functions;
use crate::name::UserName;

/// The hub that is the chat. Cloning it is cheap.
///
/// A call that returns `Ok` was carried out by the service. Every call may be made twice.
#[derive(Clone, Debug)]
pub(crate) enum Hub {
    /// On a service of the 2020 preview.
    Preview(Service),
}

/// Sending text, which arrives as a text message.
impl Hub {
    pub(crate) async fn send_to_everybody(&self, text: &str) -> Result<(), ServiceError> {
        match self {
            Self::Preview(service) => service.broadcast(text).await,
        }
    }

    pub(crate) async fn send_to_user(&self, user: &str, text: &str) -> Result<(), ServiceError> {
        match self {
            Self::Preview(service) => service.send_to_user(user, text).await,
        }
    }

    pub(crate) async fn send_to_group(&self, group: &str, text: &str) -> Result<(), ServiceError> {
        match self {
            Self::Preview(service) => service.send_to_group(group, text).await,
        }
    }
}

/// Who is there, and in which group.
impl Hub {
    /// Returns whether a user has a connection.
    pub(crate) async fn has_user(&self, user: &str) -> Result<bool, ServiceError> {
        match self {
            Self::Preview(service) => service.user_exists(user).await,
        }
    }

    /// Lets a user get what is sent to a group.
    pub(crate) async fn add_to_group(&self, group: &str, user: &str) -> Result<(), ServiceError> {
        match self {
            Self::Preview(service) => service.add_to_group(group, user).await,
        }
    }

    pub(crate) async fn remove_from_group(
        &self,
        group: &str,
        user: &str,
    ) -> Result<(), ServiceError> {
        match self {
            Self::Preview(service) => service.remove_from_group(group, user).await,
        }
    }
}

impl Hub {
    pub(crate) fn endpoint(&self) -> &Url {
        match self {
            Self::Preview(service) => service.endpoint(),
        }
    }

    /// Returns the URL by which a client connects without a token.
    pub(crate) fn anonymous_client_url(&self) -> Url {
        match self {
            Self::Preview(service) => service.anonymous_client_endpoint(None),
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
        }
    }

    /// Returns the routes by which the service calls `functions`.
    pub(crate) fn routes(&self, functions: Arc<Functions>) -> Router {
        match self {
            Self::Preview(service) => preview::routes(service.clone(), functions),
        }
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
