//! What connections may do with groups.

use hookwire_proto::name::{GroupName, NameError};
use hookwire_proto::permission::Permission;
use http::Method;

use super::{Query, ServiceClient};
use crate::path::connection_path;
use crate::transport::ServiceError;

/// Returns the role that gives a permission for a group, or for all of them: what tokens and answers to the connect event hold (Web
/// PubSub protocol, "Permissions").
///
/// ```
/// use hookwire_client::{Permission, role};
///
/// assert_eq!(role(Permission::SendToGroup, Some("news")), "webpubsub.sendToGroup.news");
/// assert_eq!(role(Permission::JoinLeaveGroup, None), "webpubsub.joinLeaveGroup");
/// ```
pub fn role(permission: Permission, group: Option<&str>) -> String {
    let permission = permission.as_str();
    group.map_or_else(
        || format!("webpubsub.{permission}"),
        |group| format!("webpubsub.{permission}.{group}"),
    )
}

/// Permissions of connections that are there. `group` is one group by its name; without it all of them are meant.
impl ServiceClient {
    /// Lets a connection join and leave, or send to, a group.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call; [`ServiceError::Status`] 404 when there is no such connection, 409 when it has too many
    /// permissions.
    pub async fn grant_permission(
        &self,
        permission: Permission,
        connection_id: &str,
        group: Option<&str>,
    ) -> Result<(), ServiceError> {
        let (path, query) = target(permission, connection_id, group)?;
        self.perform(self.hub_call(Method::PUT, &path, &query)).await.map(drop)
    }

    /// Takes a permission away, whatever the connection's roles say, until it is granted again.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call.
    pub async fn revoke_permission(
        &self,
        permission: Permission,
        connection_id: &str,
        group: Option<&str>,
    ) -> Result<(), ServiceError> {
        let (path, query) = target(permission, connection_id, group)?;
        self.perform(self.hub_call(Method::DELETE, &path, &query)).await.map(drop)
    }

    /// Returns whether a connection has a permission.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call.
    pub async fn has_permission(
        &self,
        permission: Permission,
        connection_id: &str,
        group: Option<&str>,
    ) -> Result<bool, ServiceError> {
        let (path, query) = target(permission, connection_id, group)?;
        self.ask(&path, &query).await
    }
}

fn target(
    permission: Permission,
    connection_id: &str,
    group: Option<&str>,
) -> Result<(String, Query), NameError> {
    let path = format!("permissions/{}/{}", permission.as_str(), connection_path(connection_id)?);
    let mut query = Query::new();
    if let Some(group) = group {
        query.add("targetName", GroupName::parse(group)?.as_str());
    }
    Ok((path, query))
}
