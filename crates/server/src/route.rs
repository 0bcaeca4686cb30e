//! Paths to operations, as a pure function (preview protocol, "Client endpoints", "Settings API", "REST API").
//!
//! Segments are split while still percent-encoded and decoded once, so that an encoded slash stays part of a name.

use std::time::Duration;

use hookwire_proto::envelope::Target;
use hookwire_proto::name::{ConnectionId, GroupName, HubName, NameError, UserId};
use http::{Method, Uri};
use percent_encoding::percent_decode_str;
use url::form_urlencoded;

use crate::api_error::ApiError;

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// A client wants to connect.
    Client { hub: HubName, format: Option<String> },
    /// Send the body.
    Send { hub: HubName, target: Target },
    /// Is there a live connection?
    Exists { hub: HubName, target: Target },
    /// Close a connection.
    Close { hub: HubName, connection: Option<ConnectionId>, reason: String },
    /// Put a connection into a group (`true`) or take it out.
    ConnectionGroup { hub: HubName, connection: Option<ConnectionId>, group: GroupName, join: bool },
    /// Does the user live in the group?
    UserInGroup { hub: HubName, user: UserId, group: GroupName },
    /// Let the user live in the group.
    JoinAsUser { hub: HubName, user: UserId, group: GroupName, ttl: Option<Duration> },
    /// Let the user leave the group; `None`: all groups.
    LeaveAsUser { hub: HubName, user: UserId, group: Option<GroupName> },
    /// The settings API.
    Settings,
    /// Is the service healthy?
    Health,
    /// Metrics.
    Metrics,
}

impl Route {
    /// Returns the route's name in metrics.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Client { .. } => "client",
            Self::Send { .. } => "send",
            Self::Exists { .. } => "exists",
            Self::Close { .. } => "close",
            Self::ConnectionGroup { .. } => "connection_group",
            Self::UserInGroup { .. } | Self::JoinAsUser { .. } | Self::LeaveAsUser { .. } => {
                "user_group"
            }
            Self::Settings => "settings",
            Self::Health => "health",
            Self::Metrics => "metrics",
        }
    }
}

/// Returns what a request asks for.
///
/// # Errors
/// 400 for a bad name or parameter, 404 for an unknown path, 405 for a known path with another method.
pub(crate) fn parse(method: &Method, uri: &Uri) -> Result<Route, ApiError> {
    let path = uri.path().strip_prefix('/').unwrap_or_default();
    let path = path.strip_suffix('/').unwrap_or(path);
    let mut segments = Vec::new();
    for segment in path.split('/') {
        segments.push(decode(segment)?);
    }
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    let query = uri.query().unwrap_or_default();
    match segments.as_slice() {
        ["ws", "client", rest @ ..] => client(method, rest, query),
        ["ws", "api", "v1", "hubs", hub, rest @ ..] => {
            rest_api(method, HubName::parse(hub)?, rest, query)
        }
        ["manage", "v1", "ws", "upstream"] => Ok(Route::Settings),
        ["api", "v1", "health"] => {
            only(method, "GET, HEAD", &[Method::GET, Method::HEAD], Route::Health)
        }
        ["metrics"] => only(method, "GET", &[Method::GET], Route::Metrics),
        _ => Err(ApiError::not_found("no such path")),
    }
}

fn client(method: &Method, rest: &[&str], query: &str) -> Result<Route, ApiError> {
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

fn rest_api(method: &Method, hub: HubName, rest: &[&str], query: &str) -> Result<Route, ApiError> {
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
                // An id that no node has made cannot be sent to, which is no error, and does not exist.
                ("POST" | "HEAD", None) => {
                    let target = Target::Connection(ConnectionId::new(0, u16::MAX, [0; 16]));
                    send_or_exists(method, hub, target)
                }
                ("POST" | "HEAD", Some(id)) => send_or_exists(method, hub, Target::Connection(id)),
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

fn only(
    method: &Method,
    list: &'static str,
    allowed: &[Method],
    route: Route,
) -> Result<Route, ApiError> {
    if allowed.contains(method) { Ok(route) } else { Err(ApiError::method_not_allowed(list)) }
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

/// Returns the first parameter that has one of the names.
pub(crate) fn parameter(query: &str, names: &[&str]) -> Option<String> {
    form_urlencoded::parse(query.as_bytes())
        .find(|(name, _)| names.contains(&name.as_ref()))
        .map(|(_, value)| value.into_owned())
}

fn decode(segment: &str) -> Result<String, ApiError> {
    percent_decode_str(segment)
        .decode_utf8()
        .map(std::borrow::Cow::into_owned)
        .map_err(|_| ApiError::bad_request("the path is not UTF-8"))
}

impl From<NameError> for ApiError {
    fn from(error: NameError) -> Self {
        Self::bad_request(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn route(method: &str, uri: &str) -> Result<Route, u16> {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        parse(&method, &uri.parse().unwrap()).map_err(|error| error.into_answer().status().as_u16())
    }

    fn hub() -> HubName {
        HubName::parse("chat").unwrap()
    }

    fn group(name: &str) -> GroupName {
        GroupName::parse(name).unwrap()
    }

    fn user(name: &str) -> UserId {
        UserId::parse(name).unwrap()
    }

    #[test]
    fn every_row_of_the_rest_api_has_its_route() {
        let id = ConnectionId::new(1, 0, [7; 16]);
        let base = "/ws/api/v1/hubs/chat";
        let send = |target| Ok(Route::Send { hub: hub(), target });
        let exists = |target| Ok(Route::Exists { hub: hub(), target });
        for slash in ["", "/"] {
            let route = |method: &str, path: &str| route(method, &format!("{base}{path}{slash}"));
            assert_eq!(route("POST", ""), send(Target::Hub));
            assert_eq!(route("POST", "/users/a%2Fb"), send(Target::User(user("a/b"))));
            assert_eq!(route("POST", "/groups/g%201"), send(Target::Group(group("g 1"))));
            assert_eq!(route("POST", &format!("/connections/{id}")), send(Target::Connection(id)));
            assert_eq!(
                route("HEAD", &format!("/connections/{id}")),
                exists(Target::Connection(id))
            );
            assert_eq!(route("HEAD", "/users/u"), exists(Target::User(user("u"))));
            assert_eq!(route("HEAD", "/groups/g"), exists(Target::Group(group("g"))));
            for path in
                [format!("/groups/g/connections/{id}"), format!("/connections/{id}/groups/g")]
            {
                for (method, join) in [("PUT", true), ("DELETE", false)] {
                    let expected = Route::ConnectionGroup {
                        hub: hub(),
                        connection: Some(id),
                        group: group("g"),
                        join,
                    };
                    assert_eq!(route(method, &path), Ok(expected));
                }
            }
            for path in ["/groups/g/users/u", "/users/u/groups/g"] {
                let (hub, user, group) = (hub(), user("u"), group("g"));
                assert_eq!(
                    route("GET", path),
                    Ok(Route::UserInGroup {
                        hub: hub.clone(),
                        user: user.clone(),
                        group: group.clone()
                    })
                );
                assert_eq!(
                    route("DELETE", path),
                    Ok(Route::LeaveAsUser {
                        hub: hub.clone(),
                        user: user.clone(),
                        group: Some(group.clone())
                    })
                );
                assert_eq!(
                    route("PUT", path),
                    Ok(Route::JoinAsUser { hub, user, group, ttl: None })
                );
            }
            assert_eq!(
                route("DELETE", "/users/u/groups"),
                Ok(Route::LeaveAsUser { hub: hub(), user: user("u"), group: None })
            );
        }
        assert_eq!(
            route("PUT", &format!("{base}/users/u/groups/g?ttl=60")),
            Ok(Route::JoinAsUser {
                hub: hub(),
                user: user("u"),
                group: group("g"),
                ttl: Some(Duration::from_mins(1))
            })
        );
        assert_eq!(
            route("DELETE", &format!("{base}/connections/{id}?reason=go%20away")),
            Ok(Route::Close { hub: hub(), connection: Some(id), reason: "go away".to_owned() })
        );
    }

    #[test]
    fn clients_may_spell_their_url_in_every_documented_form() {
        let expected = |format: Option<&str>| {
            Ok(Route::Client { hub: hub(), format: format.map(str::to_owned) })
        };
        for (uri, format) in [
            ("/ws/client/hubs/chat/formats/text", Some("text")),
            ("/ws/client/hubs/chat/formats/binary/", Some("binary")),
            ("/ws/client/hubs/chat?format=binary", Some("binary")),
            ("/ws/client/hubs/Chat/?formats=text&user=x", Some("text")),
            ("/ws/client/hubs/chat/?user=x", None),
            ("/ws/client?hub=chat&format=text", Some("text")),
            ("/ws/client/?hubs=chat", None),
        ] {
            assert_eq!(route("GET", uri), expected(format), "{uri}");
        }
        assert_eq!(route("GET", "/ws/client"), Err(400));
        assert_eq!(route("GET", "/ws/client/hubs/9"), Err(400));
        assert_eq!(route("POST", "/ws/client/hubs/chat"), Err(405));
    }

    #[test]
    fn what_is_not_there_is_said_with_the_right_status() {
        for (method, uri, status) in [
            ("GET", "/", 404),
            ("POST", "/ws/api/v1/connections/x", 404),
            ("GET", "/ws/api/v1/hubs/chat", 405),
            ("PATCH", "/ws/api/v1/hubs/chat/users/u", 405),
            ("POST", "/ws/api/v1/hubs/ch%2Fat", 400),
            ("POST", "/ws/api/v1/hubs/chat/groups/%20", 400),
            ("POST", "/ws/api/v1/hubs/chat/groups/%FF", 400),
            ("POST", "/ws/api/v1/hubs/chat/users/a%0Ab", 400),
            ("PUT", "/ws/api/v1/hubs/chat/users/u/groups/g?ttl=-1", 400),
            ("PUT", "/ws/api/v1/hubs/chat/users/u/groups/g?ttl=soon", 400),
            ("POST", "/ws/api/v1/hubs/chat//users/u", 404),
            ("POST", "/ws/api/v1/hubs/../hubs/chat", 400),
        ] {
            assert_eq!(route(method, uri), Err(status), "{method} {uri}");
        }
    }

    #[test]
    fn what_is_not_allowed_is_answered_with_what_is() {
        let methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "post"];
        for path in [
            "/ws/client/hubs/chat",
            "/ws/api/v1/hubs/chat",
            "/ws/api/v1/hubs/chat/users/u",
            "/ws/api/v1/hubs/chat/groups/g",
            "/ws/api/v1/hubs/chat/connections/i",
            "/ws/api/v1/hubs/chat/groups/g/connections/i",
            "/ws/api/v1/hubs/chat/connections/i/groups/g",
            "/ws/api/v1/hubs/chat/groups/g/users/u",
            "/ws/api/v1/hubs/chat/users/u/groups/g",
            "/ws/api/v1/hubs/chat/users/u/groups",
            "/api/v1/health",
            "/metrics",
        ] {
            let uri: Uri = path.parse().unwrap();
            let parse = |method: &str| parse(&Method::from_bytes(method.as_bytes()).unwrap(), &uri);
            let served: Vec<&str> =
                methods.into_iter().filter(|method| parse(method).is_ok()).collect();
            assert!(!served.is_empty(), "{path}");
            for method in methods {
                let Err(error) = parse(method) else { continue };
                let answer = error.into_answer();
                assert_eq!(answer.status(), 405, "{method} {path}");
                let mut allowed: Vec<&str> =
                    answer.headers()["allow"].to_str().unwrap().split(", ").collect();
                allowed.sort_by_key(|one| methods.iter().position(|method| method == one));
                assert_eq!(allowed, served, "{method} {path}");
            }
        }
    }

    proptest! {
        #[test]
        fn hostile_paths_never_panic(path in "/[!-~]{0,60}") {
            if let Ok(uri) = path.parse::<Uri>() {
                let _ = parse(&Method::POST, &uri);
            }
        }

        #[test]
        fn names_survive_their_encoding(name in "\\PC{1,40}") {
            prop_assume!(!name.trim().is_empty());
            let encoded: String = percent_encoding::utf8_percent_encode(&name, percent_encoding::NON_ALPHANUMERIC).collect();
            let expected = Route::Send { hub: hub(), target: Target::Group(group(&name)) };
            prop_assert_eq!(route("POST", &format!("/ws/api/v1/hubs/chat/groups/{encoded}")), Ok(expected));
        }
    }
}
