//! The REST API of Azure Web PubSub.

mod access;
mod connections;
mod events;
mod groups;
mod outgoing;
mod pages;
mod permissions;

use std::env::VarError;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hookwire_proto::connection_string::ConnectionString;
use hookwire_proto::name::HubName;
use hookwire_proto::signature::AccessKey;
use http::{Method, StatusCode};
use url::Url;

pub use self::access::{ClientAccess, ClientKind, ClientUrl};
pub use self::connections::{Closing, ConnectionDetails};
pub use self::events::{EventFilter, EventNews, EventPage, EventStream, LoggedEvent};
pub use self::outgoing::Outgoing;
pub use self::pages::{ListOptions, ListedConnection, ListedName, Pages};
pub use self::permissions::role;
use crate::path::{component, group_path, user_path};
use crate::setup::{self, ServiceOptions, SetupError};
use crate::transport::{Call, ServiceError, Transport};

/// One hub of a service, by the REST API of Azure Web PubSub. Cloning it is cheap and shares the connections to the service.
///
/// Every call is one HTTP request with a token of its own, made for that URL alone. A call that returns `Ok` was carried out by
/// the service: a send was accepted for whoever is there, which may be nobody. Nothing is repeated after a failure, since a
/// repeated send would arrive twice. Dropping the future of a call abandons it; the service may have carried it out.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use hookwire_client::{ClientAccess, Outgoing, Permission, ServiceClient};
///
/// let service = ServiceClient::new("Endpoint=http://localhost;Port=8080;AccessKey=secret;Version=1.0;", "chat")?;
///
/// let ann = ClientAccess::new().user("ann").may_in(Permission::SendToGroup, "readers");
/// let url = service.client_access(&ann)?.url; // for Ann's browser
///
/// service.send_to_all("hello, everyone").await?;
/// service.send_to_group("readers", Outgoing::new("news").filter("userId ne 'ann'")).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct ServiceClient {
    connection: Arc<ConnectionString>,
    hub: HubName,
    options: ServiceOptions,
    transport: Transport,
}

impl ServiceClient {
    /// Takes a connection string and the name of a hub.
    ///
    /// # Errors
    /// [`SetupError`] when one of them is wrong. Nothing is sent yet.
    pub fn new(connection_string: &str, hub: &str) -> Result<Self, SetupError> {
        let connection = ConnectionString::parse(connection_string)?;
        Self::with_options(connection, HubName::parse(hub)?, ServiceOptions::default())
    }

    /// Takes an endpoint such as `http://localhost:8080`, the access key and the name of a hub.
    ///
    /// # Errors
    /// [`SetupError`] when one of them is wrong. Nothing is sent yet.
    pub fn from_key(endpoint: &Url, access_key: AccessKey, hub: &str) -> Result<Self, SetupError> {
        let connection = ConnectionString::new(endpoint.clone(), access_key)?;
        Self::with_options(connection, HubName::parse(hub)?, ServiceOptions::default())
    }

    /// Reads the connection string from the environment variable `WebPubSubConnectionString` and the hub from `WebPubSubHub`.
    ///
    /// # Errors
    /// [`SetupError`] when one of them is absent or wrong. Nothing is sent yet.
    pub fn from_env() -> Result<Self, SetupError> {
        Self::from_variables(std::env::var::<&str>)
    }

    /// Takes checked values, and how to behave.
    ///
    /// # Errors
    /// [`SetupError::Tls`].
    pub fn with_options(
        connection: ConnectionString,
        hub: HubName,
        options: ServiceOptions,
    ) -> Result<Self, SetupError> {
        let transport = setup::transport(&options)?;
        Ok(Self { connection: Arc::new(connection), hub, options, transport })
    }

    fn from_variables(
        variable: impl Fn(&'static str) -> Result<String, VarError>,
    ) -> Result<Self, SetupError> {
        let (connection_string, hub) =
            setup::from_variables(variable, CONNECTION_STRING_VARIABLE, HUB_VARIABLE)?;
        Self::new(&connection_string, &hub)
    }

    /// Returns another hub of the same service.
    #[must_use]
    pub fn with_hub(&self, hub: HubName) -> Self {
        Self { hub, ..self.clone() }
    }

    /// Returns where the service is.
    pub fn endpoint(&self) -> &Url {
        self.connection.endpoint()
    }

    /// Returns the hub that is meant.
    pub fn hub(&self) -> &HubName {
        &self.hub
    }

    /// Returns the key that signs tokens and, by the service, events.
    pub fn access_key(&self) -> &AccessKey {
        self.connection.access_key()
    }
}

/// The service and its tokens.
impl ServiceClient {
    /// Asks whether the service is up. No token is sent.
    ///
    /// # Errors
    /// [`ServiceError`] when it is not.
    pub async fn health(&self) -> Result<(), ServiceError> {
        let url = format!("{}api/health?{VERSION}", self.endpoint());
        let call = Call {
            method: Method::HEAD,
            url,
            audience: String::new(),
            query: None,
            headers: Vec::new(),
            body: None,
        };
        self.transport.perform(call, None, self.options.call_timeout).await.map(drop)
    }

    /// Returns a token for one URL of the REST API, for callers that make the request themselves.
    ///
    /// `path` is path and query of that URL, such as `/api/hubs/chat/:send?api-version=2024-12-01`.
    pub fn rest_token(&self, path: &str, lifetime: Duration) -> String {
        let audience = format!("{}{}", self.endpoint(), path.strip_prefix('/').unwrap_or(path));
        setup::rest_token(&self.connection, &audience, lifetime)
    }

    /// Returns a call of the hub; `path` follows the hub's base.
    fn hub_call(&self, method: Method, path: &str, query: &Query) -> Call {
        self.call(method, &format!("api/hubs/{}/{path}", component(self.hub.as_str())), &query.0)
    }

    fn call(&self, method: Method, path: &str, query: &str) -> Call {
        let url = format!("{}{path}", self.endpoint());
        let (audience, query) = if query.is_empty() {
            (url.clone(), None)
        } else {
            (format!("{url}?{query}"), Some(query.to_owned()))
        };
        Call { method, url, audience, query, headers: Vec::new(), body: None }
    }

    /// Sends a call and returns its answer before it has come.
    async fn open(&self, call: Call) -> Result<hyper::body::Incoming, ServiceError> {
        let token =
            setup::rest_token(&self.connection, &call.audience, self.options.token_lifetime);
        self.transport.open(call, Some(token), self.options.call_timeout).await
    }

    async fn perform(&self, call: Call) -> Result<Bytes, ServiceError> {
        let token =
            setup::rest_token(&self.connection, &call.audience, self.options.token_lifetime);
        self.transport.perform(call, Some(token), self.options.call_timeout).await
    }

    async fn act(&self, method: Method, path: &str) -> Result<(), ServiceError> {
        self.perform(self.hub_call(method, path, &Query::new())).await.map(drop)
    }

    async fn ask(&self, path: &str, query: &Query) -> Result<bool, ServiceError> {
        match self.perform(self.hub_call(Method::HEAD, path, query)).await {
            Ok(_) => Ok(true),
            Err(ServiceError::Status { status: StatusCode::NOT_FOUND, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The query of a call: the version, then what was added, encoded.
#[derive(Debug)]
struct Query(String);

impl Query {
    fn new() -> Self {
        Self(VERSION.to_owned())
    }

    fn add(&mut self, name: &str, value: &str) {
        self.0.push('&');
        self.0.push_str(name);
        self.0.push('=');
        self.0.push_str(&component(value));
    }

    fn add_all<'a>(&mut self, name: &str, values: impl IntoIterator<Item = &'a String>) {
        for value in values {
            self.add(name, value);
        }
    }
}

/// The version of the API that is spoken.
const VERSION: &str = "api-version=2024-12-01";

const CONNECTION_STRING_VARIABLE: &str = "WebPubSubConnectionString";
const HUB_VARIABLE: &str = "WebPubSubHub";

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "Endpoint=https://service.example;Port=8443;AccessKey=secret;Version=1.0;";

    #[test]
    fn the_environment_names_service_and_hub() {
        let both =
            |name| Ok(if name == "WebPubSubHub" { "chat".to_owned() } else { LINE.to_owned() });
        let service = ServiceClient::from_variables(both).unwrap();
        assert_eq!(service.endpoint().as_str(), "https://service.example:8443/");
        assert_eq!(service.with_hub(HubName::parse("Other").unwrap()).hub().as_str(), "other");

        let error = ServiceClient::from_variables(|_| Err(VarError::NotPresent)).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot read the environment variable WebPubSubConnectionString"
        );
    }

    #[test]
    fn an_endpoint_and_a_key_do_as_well() {
        let key = AccessKey::parse_of_any_strength("secret").unwrap();
        let with =
            |endpoint| ServiceClient::from_key(&Url::parse(endpoint).unwrap(), key.clone(), "chat");
        assert_eq!(with("http://h:8080").unwrap().endpoint().as_str(), "http://h:8080/");
        assert!(matches!(with("ftp://h"), Err(SetupError::ConnectionString(_))));
    }

    #[test]
    fn nothing_shows_the_key() {
        assert!(!format!("{:?}", ServiceClient::new(LINE, "chat").unwrap()).contains("secret"));
    }
}
