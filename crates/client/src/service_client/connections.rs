//! Who is there, and closing.

use http::{Method, StatusCode};
use serde::Deserialize;

use super::pages::{ListOptions, ListedConnection, ListedName, Pages};
use super::{Query, ServiceClient, component, group_path, user_path};
use crate::path::connection_path;
use crate::transport::ServiceError;
use hookwire_proto::name::NameError;

/// Which connections to close, and what they are told.
#[derive(Clone, Debug, Default)]
pub struct Closing {
    excluded: Vec<String>,
    reason: Option<String>,
}

impl Closing {
    /// Closes all of them without a word.
    pub fn new() -> Self {
        Self::default()
    }

    /// Leaves connections open, by their ids.
    #[must_use]
    pub fn excluding(mut self, connections: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.excluded.extend(connections.into_iter().map(Into::into));
        self
    }

    /// Sets what the clients and the upstream are told. A close frame has room for 123 bytes of it.
    #[must_use]
    pub fn reason(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    fn query(&self) -> Query {
        let mut query = Query::new();
        query.add_all("excluded", &self.excluded);
        if let Some(reason) = &self.reason {
            query.add("reason", reason);
        }
        query
    }
}

/// Connections and who is there.
impl ServiceClient {
    /// Returns whether a connection is there.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call.
    pub async fn connection_exists(&self, connection_id: &str) -> Result<bool, ServiceError> {
        self.ask(&connection_path(connection_id)?, &Query::new()).await
    }

    /// Returns whether a user has a connection.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call.
    pub async fn user_exists(&self, user: &str) -> Result<bool, ServiceError> {
        self.ask(&user_path(user)?, &Query::new()).await
    }

    /// Closes a connection; the client and the upstream see `reason`. An absent one is no error.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call.
    pub async fn close_connection(
        &self,
        connection_id: &str,
        reason: Option<&str>,
    ) -> Result<(), ServiceError> {
        let closing = Closing { reason: reason.map(str::to_owned), ..Closing::default() };
        self.close(Method::DELETE, &connection_path(connection_id)?, &closing).await
    }

    /// Closes the connections of the hub.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call.
    pub async fn close_all_connections(&self, closing: Closing) -> Result<(), ServiceError> {
        self.close(Method::POST, ":closeConnections", &closing).await
    }

    /// Closes the connections in a group.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call.
    pub async fn close_group_connections(
        &self,
        group: &str,
        closing: Closing,
    ) -> Result<(), ServiceError> {
        let path = format!("{}/:closeConnections", group_path(group)?);
        self.close(Method::POST, &path, &closing).await
    }

    /// Closes the connections of a user.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call.
    pub async fn close_user_connections(
        &self,
        user: &str,
        closing: Closing,
    ) -> Result<(), ServiceError> {
        let path = format!("{}/:closeConnections", user_path(user)?);
        self.close(Method::POST, &path, &closing).await
    }

    async fn close(
        &self,
        method: Method,
        path: &str,
        closing: &Closing,
    ) -> Result<(), ServiceError> {
        self.perform(self.hub_call(method, path, &closing.query())).await.map(drop)
    }
}

/// Hookwire's lists for those who look after the service. The hosted service has none of them.
impl ServiceClient {
    /// Lists the hubs that have a connection, by name.
    pub fn list_hubs(&self, options: ListOptions) -> Pages<ListedName> {
        Pages::new(self.clone(), "admin/v1/hubs".to_owned(), limit(options)).up_to(options.top)
    }

    /// Lists the users of the hub that have a connection, by name.
    pub fn list_users(&self, options: ListOptions) -> Pages<ListedName> {
        self.list("users", options)
    }

    /// Lists the groups of the hub that have a connection, by name.
    pub fn list_groups(&self, options: ListOptions) -> Pages<ListedName> {
        self.list("groups", options)
    }

    /// Lists the connections of the hub, by id.
    pub fn list_all_connections(&self, options: ListOptions) -> Pages<ListedConnection> {
        self.list("connections", options)
    }

    /// Lists the connections of a user, by id.
    ///
    /// # Errors
    /// [`NameError`] when that can be no user.
    pub fn list_user_connections(
        &self,
        user: &str,
        options: ListOptions,
    ) -> Result<Pages<ListedConnection>, NameError> {
        Ok(self.list(&format!("{}/connections", user_path(user)?), options))
    }

    /// Returns all about a connection, or nothing when it is not there.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call; [`ServiceError::Malformed`] when the answer is something else.
    pub async fn describe_connection(
        &self,
        connection_id: &str,
    ) -> Result<Option<ConnectionDetails>, ServiceError> {
        let path = self.admin_path(&connection_path(connection_id)?);
        let call = self.call(Method::GET, &path, "");
        let request = call.to_string();
        match self.perform(call).await {
            Ok(answer) => serde_json::from_slice(&answer)
                .map(Some)
                .map_err(|source| ServiceError::Malformed { request, source }),
            Err(ServiceError::Status { status: StatusCode::NOT_FOUND, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn list<T>(&self, path: &str, options: ListOptions) -> Pages<T> {
        Pages::new(self.clone(), self.admin_path(path), limit(options)).up_to(options.top)
    }

    fn admin_path(&self, path: &str) -> String {
        format!("admin/v1/hubs/{}/{path}", component(self.hub.as_str()))
    }
}

fn limit(options: ListOptions) -> String {
    options.page_size.map_or_else(String::new, |size| format!("limit={size}"))
}

/// All that Hookwire tells about a connection. It may tell more in later versions.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct ConnectionDetails {
    /// Its id.
    pub id: String,
    /// Whose it is, if anybody's.
    pub user: Option<String>,
    /// The groups that it is in.
    pub groups: Vec<String>,
    /// The subprotocol that it speaks, if any.
    pub subprotocol: Option<String>,
    /// By which door it came: `preview` or `webpubsub`.
    pub dialect: String,
    /// Whether its transport is lost and may come back.
    pub recovering: bool,
    /// Messages that it has not acknowledged.
    pub unacknowledged_messages: u64,
    /// Events that wait for their turn at the upstream.
    pub waiting_events: u64,
}
