//! Letting clients in: tokens and the URLs with them.

use std::fmt;
use std::time::Duration;

use hookwire_proto::name::{GroupName, NameError, UserId};
use hookwire_proto::permission::Permission;
use hookwire_proto::token::{GROUP_CLAIM, NewToken, ROLE_CLAIM};
use http::Method;
use serde::Deserialize;
use serde_json::{Map, Value};
use url::Url;

use super::permissions::role;
use super::{Query, ServiceClient, component};
use crate::setup;
use crate::transport::ServiceError;

/// Who a client is and what it may do.
///
/// ```
/// use std::time::Duration;
/// use hookwire_client::{ClientAccess, Permission, ServiceClient};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let service = ServiceClient::new("Endpoint=http://localhost;Port=8080;AccessKey=secret;Version=1.0;", "chat")?;
/// let ann = ClientAccess::new()
///     .user("ann")
///     .group("readers")
///     .may(Permission::JoinLeaveGroup)
///     .may_in(Permission::SendToGroup, "readers")
///     .lifetime(Duration::from_secs(600));
/// let access = service.client_access(&ann)?;
/// assert_eq!(access.base_url.as_str(), "ws://localhost:8080/client/hubs/chat");
/// assert!(access.url.as_str().starts_with("ws://localhost:8080/client/hubs/chat?access_token="));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ClientAccess {
    user: Option<String>,
    roles: Vec<String>,
    groups: Vec<String>,
    lifetime: Duration,
    kind: ClientKind,
    claims: Map<String, Value>,
}

impl Default for ClientAccess {
    fn default() -> Self {
        Self {
            user: None,
            roles: Vec::new(),
            groups: Vec::new(),
            lifetime: Duration::from_hours(1),
            kind: ClientKind::default(),
            claims: Map::new(),
        }
    }
}

impl ClientAccess {
    /// Lets in somebody without a name who may do nothing, for an hour.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the user.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// Gives a permission for every group.
    #[must_use]
    pub fn may(self, permission: Permission) -> Self {
        self.role(role(permission, None))
    }

    /// Gives a permission for one group.
    #[must_use]
    pub fn may_in(self, permission: Permission, group: &str) -> Self {
        self.role(role(permission, Some(group)))
    }

    /// Gives a role: one of the service's, such as `webpubsub.sendToGroups.news.*`, or one that means something to the application.
    #[must_use]
    pub fn role(mut self, role: impl Into<String>) -> Self {
        self.roles.push(role.into());
        self
    }

    /// Puts the client into a group as soon as it connects.
    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.groups.push(group.into());
        self
    }

    /// Sets how long the URL can be used to connect. A connection that stands is not ended by it.
    #[must_use]
    pub fn lifetime(mut self, lifetime: Duration) -> Self {
        self.lifetime = lifetime;
        self
    }

    /// Sets what kind of client it is for.
    #[must_use]
    pub fn kind(mut self, kind: ClientKind) -> Self {
        self.kind = kind;
        self
    }

    /// Adds a claim, which the application gets with the connect event. [`ServiceClient::generate_token`] leaves it out.
    #[must_use]
    pub fn claim(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.claims.insert(name.into(), value.into());
        self
    }

    fn check(&self) -> Result<(), NameError> {
        self.user.as_deref().map(UserId::parse).transpose()?;
        self.groups.iter().try_for_each(|group| GroupName::parse(group).map(drop))
    }
}

/// Which protocol a client speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientKind {
    /// Plain WebSocket, or one of the subprotocols of Web PubSub.
    #[default]
    WebPubSub,
    /// MQTT over WebSocket.
    Mqtt,
    /// Socket.IO.
    SocketIo,
}

impl ClientKind {
    /// Returns the path before the hub.
    fn path(self) -> &'static str {
        match self {
            Self::WebPubSub => "client/hubs",
            Self::Mqtt => "clients/mqtt/hubs",
            Self::SocketIo => "clients/socketio/hubs",
        }
    }

    /// Returns the value of `clientType`.
    fn as_str(self) -> &'static str {
        match self {
            Self::WebPubSub => "Default",
            Self::Mqtt => "MQTT",
            Self::SocketIo => "SocketIO",
        }
    }
}

/// What lets a client in. `Debug` does not show the token.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientUrl {
    /// Where to connect to, for clients that send the token in a header.
    pub base_url: Url,
    /// The token.
    pub token: String,
    /// Both in one.
    pub url: Url,
}

impl fmt::Debug for ClientUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base_url = self.base_url.as_str();
        formatter.debug_struct("ClientUrl").field("base_url", &base_url).finish_non_exhaustive()
    }
}

/// Letting clients in.
impl ServiceClient {
    /// Makes a URL by which a client connects. The access key signs; nothing is sent.
    ///
    /// # Errors
    /// [`NameError`] when the user or a group can be none.
    pub fn client_access(&self, access: &ClientAccess) -> Result<ClientUrl, NameError> {
        access.check()?;
        let mut claims = access.claims.clone();
        if !access.roles.is_empty() {
            claims.insert(ROLE_CLAIM.to_owned(), access.roles.clone().into());
        }
        if !access.groups.is_empty() {
            claims.insert(GROUP_CLAIM.to_owned(), access.groups.clone().into());
        }
        let audience = self.client_url(access.kind);
        let token = NewToken {
            audience: audience.as_str(),
            issued_at: setup::now(),
            lifetime: access.lifetime,
            user: access.user.as_deref(),
            claims,
        };
        Ok(self.with_token(access.kind, token.sign(self.access_key())))
    }

    /// Lets the service make the token, as callers without the access key must. Its lifetime is in whole minutes, rounded up.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call; [`ServiceError::Malformed`] when the answer holds no token.
    pub async fn generate_token(&self, access: &ClientAccess) -> Result<ClientUrl, ServiceError> {
        #[derive(Deserialize)]
        struct Generated {
            token: String,
        }

        access.check()?;
        let mut query = Query::new();
        if let Some(user) = &access.user {
            query.add("userId", user);
        }
        query.add_all("role", &access.roles);
        query.add_all("group", &access.groups);
        let minutes = access.lifetime.as_secs().div_ceil(60).max(1);
        query.add("minutesToExpire", &minutes.to_string());
        query.add("clientType", access.kind.as_str());
        let call = self.hub_call(Method::POST, ":generateToken", &query);
        let request = call.to_string();
        let answer = self.perform(call).await?;
        let Generated { token } = serde_json::from_slice(&answer)
            .map_err(|source| ServiceError::Malformed { request, source })?;
        Ok(self.with_token(access.kind, token))
    }

    /// Returns the URL by which a client connects without a token, if the hub's settings allow that.
    #[expect(clippy::missing_panics_doc, reason = "the one expectation holds for all arguments")]
    pub fn anonymous_client_url(&self, kind: ClientKind) -> Url {
        let mut url = self.client_url(kind);
        let scheme = if url.scheme() == "https" { "wss" } else { "ws" };
        url.set_scheme(scheme)
            .expect("http and https may become ws and wss (URL standard, special schemes)");
        url
    }

    /// Returns the URL that a client's token names: the scheme is that of HTTP (Web PubSub protocol, "Client access token").
    fn client_url(&self, kind: ClientKind) -> Url {
        let mut url = self.endpoint().clone();
        url.set_path(&format!("{}/{}", kind.path(), component(self.hub().as_str())));
        url
    }

    fn with_token(&self, kind: ClientKind, token: String) -> ClientUrl {
        let base_url = self.anonymous_client_url(kind);
        let mut url = base_url.clone();
        url.query_pairs_mut().append_pair("access_token", &token);
        ClientUrl { base_url, token, url }
    }
}
