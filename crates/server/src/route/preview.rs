//! The paths of the preview (preview protocol, "Client endpoints", "REST API").

use std::time::Duration;

use hookwire_proto::envelope::Target;
use hookwire_proto::name::{ConnectionId, GroupName, HubName, UserId};
use http::Method;

use super::{Route, connection_target, only, parameter};
use crate::api_error::ApiError;

/// Reads what stands behind `/ws/client`.
pub(super) fn client(method: &Method, rest: &[&str], query: &str) -> Result<Route, ApiError> {
    let (hub, format) = match rest {
        [] => (parameter(query, &["hub", "hubs"]), None),
        ["hubs", hub] => (Some((*hub).to_owned()), None),
        ["hubs", hub, "formats", format] => (Some((*hub).to_owned()), Some((*format).to_owned())),
        _ => return Err(ApiError::not_found("no such path")),
    };
    let hub = hub.ok_or_else(|| ApiError::bad_request("the hub is missing"))?;
    let route = Route::Client {
        hub: HubName::parse(&hub)?,
        format: format.or_else(|| parameter(query, &["format", "formats"])),
    };
    only(method, "GET", &[Method::GET], route)
}

/// Reads what stands behind the hub of the REST API.
pub(super) fn rest_api(
    method: &Method,
    hub: HubName,
    rest: &[&str],
    query: &str,
) -> Result<Route, ApiError> {
    let method = method.as_str();
    match rest {
        [] => match method {
            "POST" => Ok(Route::Send { hub, target: Target::Hub }),
            _ => Err(ApiError::method_not_allowed("POST")),
        },
        ["users", user] => send_or_exists(method, hub, Target::User(UserId::parse(user)?)),
        ["groups", group] => send_or_exists(method, hub, Target::Group(GroupName::parse(group)?)),
        ["connections", id] => {
            let connection = ConnectionId::parse(id);
            match (method, connection) {
                ("DELETE", connection) => {
                    let reason = parameter(query, &["reason"]).unwrap_or_default();
                    Ok(Route::Close { hub, connection, reason })
                }
                ("POST" | "HEAD", _) => send_or_exists(method, hub, connection_target(id)),
                _ => Err(ApiError::method_not_allowed("POST, DELETE, HEAD")),
            }
        }
        ["groups", group, "connections", id] | ["connections", id, "groups", group] => {
            let join = match method {
                "PUT" => true,
                "DELETE" => false,
                _ => return Err(ApiError::method_not_allowed("PUT, DELETE")),
            };
            let (connection, group) = (ConnectionId::parse(id), GroupName::parse(group)?);
            Ok(Route::ConnectionGroup { hub, connection, group, join })
        }
        ["groups", group, "users", user] | ["users", user, "groups", group] => {
            let (user, group) = (UserId::parse(user)?, GroupName::parse(group)?);
            match method {
                "GET" | "HEAD" => Ok(Route::UserInGroup { hub, user, group }),
                "PUT" => Ok(Route::JoinAsUser { hub, user, group, ttl: ttl(query)? }),
                "DELETE" => Ok(Route::LeaveAsUser { hub, user, group: Some(group) }),
                _ => Err(ApiError::method_not_allowed("GET, HEAD, PUT, DELETE")),
            }
        }
        ["users", user, "groups"] => match method {
            "DELETE" => Ok(Route::LeaveAsUser { hub, user: UserId::parse(user)?, group: None }),
            _ => Err(ApiError::method_not_allowed("DELETE")),
        },
        _ => Err(ApiError::not_found("no such path")),
    }
}

fn send_or_exists(method: &str, hub: HubName, target: Target) -> Result<Route, ApiError> {
    match method {
        "POST" => Ok(Route::Send { hub, target }),
        "HEAD" => Ok(Route::Exists { hub, target }),
        _ => Err(ApiError::method_not_allowed("POST, HEAD")),
    }
}

fn ttl(query: &str) -> Result<Option<Duration>, ApiError> {
    let Some(text) = parameter(query, &["ttl"]) else { return Ok(None) };
    let is_number = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse::<u32>() {
        Ok(seconds) if is_number => Ok(Some(Duration::from_secs(u64::from(seconds)))),
        _ => Err(ApiError::bad_request(format!(
            "ttl must be a number of seconds up to {}",
            u32::MAX
        ))),
    }
}

#[cfg(test)]
mod tests;
