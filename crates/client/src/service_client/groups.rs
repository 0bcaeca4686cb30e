//! Who is in which group.

use http::Method;
use serde_json::{Map, Value, json};

use super::pages::{ListOptions, ListedConnection, Pages};
use super::{Query, ServiceClient, component, group_path, user_path};
use crate::path::connection_path;
use crate::transport::{Call, ServiceError};
use hookwire_proto::name::{GroupName, NameError};

/// Groups. A connection is in a group until it ends or is taken out; a user is put into one with the connections of that moment.
impl ServiceClient {
    /// Puts a connection into a group.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call; [`ServiceError::Status`] 404 when there is no such connection.
    pub async fn add_connection_to_group(
        &self,
        group: &str,
        connection_id: &str,
    ) -> Result<(), ServiceError> {
        self.act(Method::PUT, &member_path(group, connection_id)?).await
    }

    /// Takes a connection out of a group. An absent one is no error.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call.
    pub async fn remove_connection_from_group(
        &self,
        group: &str,
        connection_id: &str,
    ) -> Result<(), ServiceError> {
        self.act(Method::DELETE, &member_path(group, connection_id)?).await
    }

    /// Takes a connection out of all groups.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call.
    pub async fn remove_connection_from_all_groups(
        &self,
        connection_id: &str,
    ) -> Result<(), ServiceError> {
        self.act(Method::DELETE, &format!("{}/groups", connection_path(connection_id)?)).await
    }

    /// Puts the connections that a user has now into a group. Later ones are not in it.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call; [`ServiceError::Status`] 404 when the user has no connection.
    pub async fn add_user_to_group(&self, group: &str, user: &str) -> Result<(), ServiceError> {
        self.act(Method::PUT, &format!("{}/{}", user_path(user)?, group_path(group)?)).await
    }

    /// Takes the connections of a user out of a group.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call.
    pub async fn remove_user_from_group(
        &self,
        group: &str,
        user: &str,
    ) -> Result<(), ServiceError> {
        self.act(Method::DELETE, &format!("{}/{}", user_path(user)?, group_path(group)?)).await
    }

    /// Takes the connections of a user out of all groups.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call.
    pub async fn remove_user_from_all_groups(&self, user: &str) -> Result<(), ServiceError> {
        self.act(Method::DELETE, &format!("{}/groups", user_path(user)?)).await
    }

    /// Puts connections into groups: those that `filter` selects (Web PubSub protocol, "Filter"), without one all of the hub.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call; [`ServiceError::Status`] 400 tells what is wrong with the filter.
    pub async fn add_connections_to_groups(
        &self,
        groups: &[&str],
        filter: Option<&str>,
    ) -> Result<(), ServiceError> {
        self.regroup(":addToGroups", groups, filter).await
    }

    /// Takes connections out of groups: those that `filter` selects, without one all of the hub.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call; [`ServiceError::Status`] 400 tells what is wrong with the filter.
    pub async fn remove_connections_from_groups(
        &self,
        groups: &[&str],
        filter: Option<&str>,
    ) -> Result<(), ServiceError> {
        self.regroup(":removeFromGroups", groups, filter).await
    }

    /// Returns whether a group has a connection.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call.
    pub async fn group_exists(&self, group: &str) -> Result<bool, ServiceError> {
        self.ask(&group_path(group)?, &Query::new()).await
    }

    /// Lists the connections in a group, by id, page by page. Nothing is asked yet.
    ///
    /// # Errors
    /// [`NameError`] when that can be no group.
    pub fn list_connections(
        &self,
        group: &str,
        options: ListOptions,
    ) -> Result<Pages<ListedConnection>, NameError> {
        let mut query = Query::new();
        if let Some(size) = options.page_size {
            query.add("maxpagesize", &size.to_string());
        }
        if let Some(top) = options.top {
            query.add("top", &top.to_string());
        }
        let path =
            format!("api/hubs/{}/{}/connections", component(self.hub.as_str()), group_path(group)?);
        Ok(Pages::new(self.clone(), path, query.0))
    }

    async fn regroup(
        &self,
        path: &str,
        groups: &[&str],
        filter: Option<&str>,
    ) -> Result<(), ServiceError> {
        for group in groups {
            GroupName::parse(group)?;
        }
        let mut body = Map::new();
        body.insert("groups".to_owned(), json!(groups));
        if let Some(filter) = filter {
            body.insert("filter".to_owned(), filter.into());
        }
        let body = Value::from(body).to_string();
        let call = Call {
            body: Some(("application/json", body.into())),
            ..self.hub_call(Method::POST, path, &Query::new())
        };
        self.perform(call).await.map(drop)
    }
}

fn member_path(group: &str, connection_id: &str) -> Result<String, NameError> {
    Ok(format!("{}/{}", group_path(group)?, connection_path(connection_id)?))
}
