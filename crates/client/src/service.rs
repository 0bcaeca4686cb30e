//! The calls of a service: who gets what, who is in which group, who is there.

mod message;

use std::env::VarError;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hookwire_proto::connection_string::ConnectionString;
use hookwire_proto::name::{HubName, NameError, UserId};
use hookwire_proto::template::TemplatesDocument;
use hookwire_proto::token::NewToken;
use http::{HeaderMap, Method};
use url::Url;

pub use self::message::{ClientEndpointOptions, Format, Message};
use crate::event::{Event, EventError};
use crate::path::{component, connection_path, group_path, user_path};
use crate::setup::{self, ServiceOptions, SetupError};
use crate::transport::{Call, REASON_BYTES_MAX, ServiceError, Transport};

/// One hub of a service, by its REST API. Cloning it is cheap and shares the connections to the service.
///
/// Every call is one HTTP request with a token of its own, made for that URL alone. A call that returns `Ok` was carried out by
/// the service: a send was accepted for whoever is there, which may be nobody. Nothing is repeated after a failure, since a
/// repeated send would arrive twice. Dropping the future of a call abandons it; the service may have carried it out.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use hookwire_client::Service;
///
/// let service = Service::new("Endpoint=http://localhost;Port=8080;AccessKey=secret;Version=1.0;", "chat")?;
/// service.broadcast("text for everyone").await?;
/// service.send_to_connection("connection-1", vec![1, 2, 3]).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Service {
    connection: Arc<ConnectionString>,
    hub: HubName,
    options: ServiceOptions,
    transport: Transport,
}

impl Service {
    /// Takes a connection string and the name of a hub.
    ///
    /// # Errors
    /// [`SetupError`] when one of them is wrong. Nothing is sent yet.
    pub fn new(connection_string: &str, hub: &str) -> Result<Self, SetupError> {
        let connection = ConnectionString::parse(connection_string)?;
        Self::with_options(connection, HubName::parse(hub)?, ServiceOptions::default())
    }

    /// Reads the connection string from the environment variable `AzureSignalRConnectionString` and the hub from `HubName`.
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

    /// Returns where the service is.
    pub fn endpoint(&self) -> &Url {
        self.connection.endpoint()
    }

    /// Returns the hub that is meant.
    pub fn hub(&self) -> &HubName {
        &self.hub
    }
}

/// Sending. Text arrives as a text message, bytes as a binary one.
impl Service {
    /// Sends to every connection of the hub.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call.
    pub async fn broadcast(&self, message: impl Into<Message>) -> Result<(), ServiceError> {
        self.send("", message.into()).await
    }

    /// Sends to one connection.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call.
    pub async fn send_to_connection(
        &self,
        connection_id: &str,
        message: impl Into<Message>,
    ) -> Result<(), ServiceError> {
        self.send(&connection_path(connection_id)?, message.into()).await
    }

    /// Sends to every connection of a user.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call.
    pub async fn send_to_user(
        &self,
        user: &str,
        message: impl Into<Message>,
    ) -> Result<(), ServiceError> {
        self.send(&user_path(user)?, message.into()).await
    }

    /// Sends to every connection in a group.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call.
    pub async fn send_to_group(
        &self,
        group: &str,
        message: impl Into<Message>,
    ) -> Result<(), ServiceError> {
        self.send(&group_path(group)?, message.into()).await
    }

    async fn send(&self, path: &str, message: Message) -> Result<(), ServiceError> {
        let (content_type, body) = match message {
            Message::Text(text) => ("text/plain", Bytes::from(text)),
            Message::Binary(bytes) => ("application/octet-stream", bytes),
        };
        let call = Call { body: Some((content_type, body)), ..self.hub_call(Method::POST, path) };
        self.perform(call).await.map(drop)
    }
}

/// Groups of connections and of users.
impl Service {
    /// Puts a connection into a group, until it ends or is removed.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call; [`ServiceError::Status`] 404 when there is no such connection.
    pub async fn add_connection_to_group(
        &self,
        group: &str,
        connection_id: &str,
    ) -> Result<(), ServiceError> {
        self.act(
            Method::PUT,
            &format!("{}/{}", group_path(group)?, connection_path(connection_id)?),
        )
        .await
    }

    /// Takes a connection out of a group.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call.
    pub async fn remove_connection_from_group(
        &self,
        group: &str,
        connection_id: &str,
    ) -> Result<(), ServiceError> {
        self.act(
            Method::DELETE,
            &format!("{}/{}", group_path(group)?, connection_path(connection_id)?),
        )
        .await
    }

    /// Puts a user into a group: all connections that the user has now and later, until removed.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call.
    pub async fn add_to_group(&self, group: &str, user: &str) -> Result<(), ServiceError> {
        self.act(Method::PUT, &format!("{}/{}", group_path(group)?, user_path(user)?)).await
    }

    /// Puts a user into a group for a time, in whole seconds, rounded up and at least one.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call.
    pub async fn add_to_group_for(
        &self,
        group: &str,
        user: &str,
        ttl: Duration,
    ) -> Result<(), ServiceError> {
        let seconds = ttl.as_secs().saturating_add(u64::from(0 < ttl.subsec_nanos())).max(1);
        let call =
            self.hub_call(Method::PUT, &format!("{}/{}", group_path(group)?, user_path(user)?));
        self.perform(Call { query: Some(format!("ttl={seconds}")), ..call }).await.map(drop)
    }

    /// Takes a user out of a group.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call.
    pub async fn remove_from_group(&self, group: &str, user: &str) -> Result<(), ServiceError> {
        self.act(Method::DELETE, &format!("{}/{}", group_path(group)?, user_path(user)?)).await
    }

    /// Takes a user out of all groups.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call.
    pub async fn remove_from_all_groups(&self, user: &str) -> Result<(), ServiceError> {
        self.act(Method::DELETE, &format!("{}/groups", user_path(user)?)).await
    }

    /// Returns whether a user was put into a group and is still in it.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call.
    pub async fn user_in_group(&self, group: &str, user: &str) -> Result<bool, ServiceError> {
        self.ask(Method::GET, &format!("{}/{}", group_path(group)?, user_path(user)?)).await
    }
}

/// Connections and who is there.
impl Service {
    /// Closes a connection; the client sees `reason`.
    ///
    /// # Errors
    /// [`ServiceError::ReasonTooLong`] above [`REASON_BYTES_MAX`], and [`ServiceError`] as for every call.
    pub async fn close_connection(
        &self,
        connection_id: &str,
        reason: Option<&str>,
    ) -> Result<(), ServiceError> {
        let mut call = self.hub_call(Method::DELETE, &connection_path(connection_id)?);
        if let Some(reason) = reason {
            if REASON_BYTES_MAX < reason.len() {
                return Err(ServiceError::ReasonTooLong { bytes: reason.len() });
            }
            // The older library signs the reason as it is and sends it encoded.
            write!(call.audience, "?reason={reason}").expect("writing to a string cannot fail");
            call.query = Some(format!("reason={}", component(reason)));
        }
        self.perform(call).await.map(drop)
    }

    /// Returns whether a connection is there.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call.
    pub async fn connection_exists(&self, connection_id: &str) -> Result<bool, ServiceError> {
        self.ask(Method::HEAD, &connection_path(connection_id)?).await
    }

    /// Returns whether a user has a connection.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call.
    pub async fn user_exists(&self, user: &str) -> Result<bool, ServiceError> {
        self.ask(Method::HEAD, &user_path(user)?).await
    }

    /// Returns whether a group has a connection.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call.
    pub async fn group_exists(&self, group: &str) -> Result<bool, ServiceError> {
        self.ask(Method::HEAD, &group_path(group)?).await
    }

    async fn act(&self, method: Method, path: &str) -> Result<(), ServiceError> {
        self.perform(self.hub_call(method, path)).await.map(drop)
    }

    async fn ask(&self, method: Method, path: &str) -> Result<bool, ServiceError> {
        match self.perform(self.hub_call(method, path)).await {
            Ok(_) => Ok(true),
            Err(ServiceError::Status { status: http::StatusCode::NOT_FOUND, .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The service itself.
impl Service {
    /// Asks whether the service is up. No token is sent.
    ///
    /// # Errors
    /// [`ServiceError`] when it is not.
    pub async fn health(&self) -> Result<(), ServiceError> {
        self.transport
            .perform(
                self.call(Method::GET, HEALTH_PATH.to_owned()),
                None,
                self.options.call_timeout,
            )
            .await
            .map(drop)
    }

    /// Returns which events the service posts where.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call; [`ServiceError::Malformed`] when the answer is no such setting.
    pub async fn upstream(&self) -> Result<TemplatesDocument, ServiceError> {
        let call = self.call(Method::GET, UPSTREAM_PATH.to_owned());
        let request = call.to_string();
        let answer = self.perform(call).await?;
        serde_json::from_slice(&answer)
            .map_err(|source| ServiceError::Malformed { request, source })
    }

    /// Replaces which events the service posts where, for all its hubs, until replaced again.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call; [`ServiceError::Status`] 400 tells what is wrong with the templates.
    #[expect(clippy::missing_panics_doc, reason = "the one expectation holds for all arguments")]
    pub async fn set_upstream(&self, templates: &TemplatesDocument) -> Result<(), ServiceError> {
        let body =
            serde_json::to_vec(templates).expect("texts and lists of them can be written as JSON");
        let call = Call {
            body: Some(("application/json", body.into())),
            ..self.call(Method::POST, UPSTREAM_PATH.to_owned())
        };
        self.perform(call).await.map(drop)
    }
}

/// Tokens, client URLs, events.
impl Service {
    /// Returns the URL by which a client connects, a token included.
    ///
    /// ```
    /// use std::time::Duration;
    /// use hookwire_client::{ClientEndpointOptions, Service};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let service = Service::new("Endpoint=http://localhost;Port=8080;AccessKey=secret;Version=1.0;", "chat")?;
    /// let options = ClientEndpointOptions {
    ///     user: Some("ann".to_owned()),
    ///     lifetime: Duration::from_secs(600),
    ///     ..ClientEndpointOptions::default()
    /// };
    /// let url = service.client_endpoint(&options)?;
    /// assert!(url.as_str().starts_with("ws://localhost:8080/ws/client/hubs/chat?access_token="));
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// [`NameError`] when the user is no possible user id.
    pub fn client_endpoint(&self, options: &ClientEndpointOptions) -> Result<Url, NameError> {
        let user = options.user.as_deref().map(UserId::parse).transpose()?;
        let token = NewToken {
            audience: &format!("{}{}", self.connection.audience_base(), self.client_path()),
            issued_at: setup::now(),
            lifetime: options.lifetime,
            user: user.as_ref().map(UserId::as_str),
            claims: options.claims.clone(),
        };
        let mut url = self.anonymous_client_endpoint(options.format);
        url.query_pairs_mut()
            .append_pair("access_token", &token.sign(self.connection.access_key()));
        Ok(url)
    }

    /// Returns the URL by which a client connects without a token: the application's answer to the connect event says who it is.
    #[expect(clippy::missing_panics_doc, reason = "the one expectation holds for all arguments")]
    pub fn anonymous_client_endpoint(&self, format: Option<Format>) -> Url {
        let mut url = self.endpoint().clone();
        let scheme = if url.scheme() == "https" { "wss" } else { "ws" };
        url.set_scheme(scheme)
            .expect("http and https may become ws and wss (URL standard, special schemes)");
        url.set_path(&self.client_path());
        if let Some(format) = format {
            url.query_pairs_mut().append_pair("format", format.as_str());
        }
        url
    }

    /// Returns a token for one URL of the REST API, for callers that make the request themselves.
    ///
    /// `path` is the path of that URL with or without its first slash, such as `ws/api/v1/hubs/chat/` or `manage/v1/ws/upstream`.
    pub fn rest_token(&self, path: &str, lifetime: Duration) -> String {
        let audience = format!(
            "{}{}",
            self.connection.audience_base(),
            path.strip_prefix('/').unwrap_or(path)
        );
        setup::rest_token(&self.connection, &audience, lifetime)
    }

    /// Reads an event from the headers of a request and checks that this service signed it.
    ///
    /// # Errors
    /// [`EventError::NotSigned`] when it did not; the other [`EventError`]s when the request is no event.
    pub fn event(&self, headers: &HeaderMap) -> Result<Event, EventError> {
        let event = Event::from_headers(headers)?;
        if event.is_signed_with(std::slice::from_ref(self.connection.access_key())) {
            Ok(event)
        } else {
            Err(EventError::NotSigned)
        }
    }

    fn client_path(&self) -> String {
        format!("ws/client/hubs/{}", component(self.hub.as_str()))
    }

    fn hub_call(&self, method: Method, path: &str) -> Call {
        self.call(method, format!("ws/api/v1/hubs/{}/{path}", component(self.hub.as_str())))
    }

    fn call(&self, method: Method, path: String) -> Call {
        Call {
            method,
            url: format!("{}{path}", self.endpoint()),
            audience: path,
            query: None,
            headers: Vec::new(),
            body: None,
        }
    }

    async fn perform(&self, call: Call) -> Result<Bytes, ServiceError> {
        let token = self.rest_token(&call.audience, self.options.token_lifetime);
        self.transport.perform(call, Some(token), self.options.call_timeout).await
    }
}

const CONNECTION_STRING_VARIABLE: &str = "AzureSignalRConnectionString";
const HUB_VARIABLE: &str = "HubName";
const HEALTH_PATH: &str = "api/v1/health";
const UPSTREAM_PATH: &str = "manage/v1/ws/upstream";

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "Endpoint=https://service.example;Port=8443;AccessKey=secret;Version=1.0;";

    fn text(error: &SetupError) -> String {
        let source = std::error::Error::source(error).map_or(String::new(), ToString::to_string);
        format!("{error}: {source}")
    }

    #[test]
    fn the_environment_names_service_and_hub() {
        let both = |name| Ok(if name == "HubName" { "chat".to_owned() } else { LINE.to_owned() });
        let service = Service::from_variables(both).unwrap();
        assert_eq!(
            (service.endpoint().as_str(), service.hub().as_str()),
            ("https://service.example:8443/", "chat")
        );

        for absent in [CONNECTION_STRING_VARIABLE, HUB_VARIABLE] {
            let error = Service::from_variables(|name| {
                if name == absent { Err(VarError::NotPresent) } else { both(name) }
            })
            .unwrap_err();
            assert!(
                text(&error)
                    .starts_with(&format!("cannot read the environment variable {absent}: ")),
                "{}",
                text(&error)
            );
        }
    }

    #[test]
    fn a_wrong_setup_says_what_is_wrong() {
        let error = Service::new("Endpoint=http://h;", "chat").unwrap_err();
        assert_eq!(
            text(&error),
            "cannot use the connection string: the connection string has no AccessKey="
        );
        let error = Service::new(LINE, "").unwrap_err();
        assert_eq!(text(&error), "cannot use the hub name: the hub name is blank");
    }

    #[test]
    fn nothing_shows_the_key() {
        assert!(!format!("{:?}", Service::new(LINE, "chat").unwrap()).contains("secret"));
    }

    #[test]
    fn anonymous_clients_get_a_url_without_a_token() {
        let service = Service::new(LINE, "chat").unwrap();
        assert_eq!(
            service.anonymous_client_endpoint(None).as_str(),
            "wss://service.example:8443/ws/client/hubs/chat"
        );
        let binary = service.anonymous_client_endpoint(Some(Format::Binary));
        assert_eq!(binary.as_str(), "wss://service.example:8443/ws/client/hubs/chat?format=binary");
    }

    #[test]
    fn impossible_users_get_no_url() {
        let service = Service::new(LINE, "chat").unwrap();
        let options = ClientEndpointOptions {
            user: Some("a\nb".to_owned()),
            ..ClientEndpointOptions::default()
        };
        assert!(service.client_endpoint(&options).is_err());
    }
}
