//! Paths to operations, as a pure function.
//!
//! Segments are split while still percent-encoded and decoded once, so that an encoded slash stays part of a name.

pub(crate) mod admin;
pub(crate) mod data_plane;
mod preview;
mod query;

use std::borrow::Cow;
use std::time::Duration;

use hookwire_proto::envelope::Target;
use hookwire_proto::name::{ConnectionId, GroupName, HubName, NameError, UserId};
use http::{Method, Uri};
use percent_encoding::percent_decode_str;
use smallvec::SmallVec;
use url::form_urlencoded;

use self::query::Query;
use crate::api_error::ApiError;
use crate::console::ConsoleRoute;

/// Segments of a path for which there is room without an allocation: those of the longest path that there is.
const SEGMENTS: usize = 9;

/// What a request asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// A client of the preview wants to connect.
    Client { hub: HubName, format: Option<String> },
    /// A client of Web PubSub wants to connect.
    WebPubSubClient { hub: HubName },
    /// An upstream wants to open a tunnel.
    Tunnel { hub: HubName },
    /// The REST API of Web PubSub.
    DataPlane(data_plane::Call),
    /// The lists for those who look after the service.
    Admin(admin::Inquiry),
    /// The description of both.
    Description,
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
    /// The console's page, and its sessions.
    Console(ConsoleRoute),
    /// Is the service healthy?
    Health,
    /// Does the process live?
    Live,
    /// Should clients be sent here?
    Ready,
    /// Metrics.
    Metrics,
}

impl Route {
    /// Returns the hub that the request names.
    pub(crate) const fn hub(&self) -> Option<&HubName> {
        match self {
            Self::Tunnel { hub }
            | Self::Client { hub, .. }
            | Self::WebPubSubClient { hub }
            | Self::DataPlane(data_plane::Call { hub, .. })
            | Self::Send { hub, .. }
            | Self::Exists { hub, .. }
            | Self::Close { hub, .. }
            | Self::ConnectionGroup { hub, .. }
            | Self::UserInGroup { hub, .. }
            | Self::JoinAsUser { hub, .. }
            | Self::LeaveAsUser { hub, .. } => Some(hub),
            Self::Admin(inquiry) => inquiry.hub(),
            Self::Description
            | Self::Settings
            | Self::Console(_)
            | Self::Health
            | Self::Live
            | Self::Ready
            | Self::Metrics => None,
        }
    }

    /// Returns the route's name in metrics.
    pub(crate) const fn name(&self) -> &'static str {
        match self {
            Self::Client { .. } | Self::WebPubSubClient { .. } => "client",
            Self::Tunnel { .. } => "tunnel",
            Self::DataPlane(call) => call.operation.name(),
            Self::Admin(_) => "admin",
            Self::Description => "description",
            Self::Send { .. } => "send",
            Self::Exists { .. } => "exists",
            Self::Close { .. } => "close",
            Self::ConnectionGroup { .. } => "connection_group",
            Self::UserInGroup { .. } | Self::JoinAsUser { .. } | Self::LeaveAsUser { .. } => {
                "user_group"
            }
            Self::Settings => "settings",
            Self::Console(_) => "console",
            Self::Health | Self::Live | Self::Ready => "health",
            Self::Metrics => "metrics",
        }
    }
}

/// Returns what a request asks for.
///
/// # Errors
/// 400 for a bad name or parameter, 404 for an unknown path, 405 for a known path with another method.
pub(crate) fn parse(method: &Method, uri: &Uri) -> Result<Route, ApiError> {
    let of_web_pubsub = uri.path().starts_with("/api/hubs");
    read(method, uri).map_err(|error| if of_web_pubsub { error.for_web_pubsub() } else { error })
}

fn read(method: &Method, uri: &Uri) -> Result<Route, ApiError> {
    let path = uri.path().strip_prefix('/').unwrap_or_default();
    let path = path.strip_suffix('/').unwrap_or(path);
    let mut decoded: SmallVec<[Cow<'_, str>; SEGMENTS]> = SmallVec::new();
    for segment in path.split('/') {
        decoded.push(decode(segment)?);
    }
    let segments: SmallVec<[&str; SEGMENTS]> = decoded.iter().map(AsRef::as_ref).collect();
    let query = uri.query().unwrap_or_default();
    match segments.as_slice() {
        ["ws", "client", rest @ ..] => preview::client(method, rest, query),
        ["ws", "api", "v1", "hubs", hub, rest @ ..] => {
            preview::rest_api(method, HubName::parse(hub)?, rest, query)
        }
        ["client", rest @ ..] => web_pubsub_client(method, rest, query),
        ["server", "tunnel"] => tunnel(method, query),
        ["api", "hubs", hub, rest @ ..] => {
            data_plane::parse(method, hub, rest, query).map(Route::DataPlane)
        }
        ["api", "openapi.json"] => only(method, "GET", &[Method::GET], Route::Description),
        ["admin", "v1", rest @ ..] => admin::parse(method, rest, query).map(Route::Admin),
        ["console", rest @ ..] => ConsoleRoute::parse(method, rest).map(Route::Console),
        ["manage", "v1", "ws", "upstream"] => Ok(Route::Settings),
        ["api", "v1", "health"] | ["api", "health"] => {
            only(method, "GET, HEAD", &[Method::GET, Method::HEAD], Route::Health)
        }
        ["health", "live"] => only(method, "GET, HEAD", &[Method::GET, Method::HEAD], Route::Live),
        ["health", "ready"] => {
            only(method, "GET, HEAD", &[Method::GET, Method::HEAD], Route::Ready)
        }
        ["metrics"] => only(method, "GET", &[Method::GET], Route::Metrics),
        _ => Err(ApiError::not_found("no such path")),
    }
}

/// Reads what stands behind `/client` (Web PubSub protocol, "Endpoints" of clients).
fn web_pubsub_client(method: &Method, rest: &[&str], query: &str) -> Result<Route, ApiError> {
    let hub = match rest {
        [] => Query::parse(query)?
            .one("hub")?
            .map(HubName::parse)
            .ok_or_else(|| ApiError::bad_request("the hub is missing").about("hub"))?,
        ["hubs", hub] => HubName::parse(hub),
        _ => return Err(ApiError::not_found("no such path")),
    };
    let hub = parse_name(hub, "hub")?;
    only(method, "GET", &[Method::GET], Route::WebPubSubClient { hub })
}

/// Reads the query of `/server/tunnel` (Web PubSub protocol, "Tunnel"). The `target`, which a frame of the service may have named, is
/// this node whatever it says.
fn tunnel(method: &Method, query: &str) -> Result<Route, ApiError> {
    let query = Query::parse(query)?;
    let hub = query.one("hub")?;
    let hub = hub.ok_or_else(|| ApiError::bad_request("the hub is missing").about("hub"))?;
    let hub = parse_name(HubName::parse(hub), "hub")?;
    only(method, "GET", &[Method::GET], Route::Tunnel { hub })
}

fn only(
    method: &Method,
    list: &'static str,
    allowed: &[Method],
    route: Route,
) -> Result<Route, ApiError> {
    if allowed.contains(method) { Ok(route) } else { Err(ApiError::method_not_allowed(list)) }
}

/// Returns the first parameter that has one of the names.
pub(crate) fn parameter(query: &str, names: &[&str]) -> Option<String> {
    form_urlencoded::parse(query.as_bytes())
        .find(|(name, _)| names.contains(&name.as_ref()))
        .map(|(_, value)| value.into_owned())
}

fn decode(segment: &str) -> Result<Cow<'_, str>, ApiError> {
    if !segment.bytes().any(|byte| byte == b'%') {
        return Ok(segment.into());
    }
    percent_decode_str(segment)
        .decode_utf8()
        .map_err(|_| ApiError::bad_request("the path is not UTF-8"))
}

/// Returns a checked name, or an error that says which parameter is at fault.
fn parse_name<T>(name: Result<T, NameError>, parameter: &'static str) -> Result<T, ApiError> {
    name.map_err(|error| ApiError::from(error).about(parameter))
}

/// Returns the target that an id names. One that no node has made names nobody, which is no error.
fn connection_target(id: &str) -> Target {
    Target::Connection(ConnectionId::parse(id).unwrap_or(ConnectionId::new(0, u16::MAX, [0; 16])))
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
        parse(&method, &uri.parse().unwrap()).map_err(|error| error.status().as_u16())
    }

    #[test]
    fn web_pubsub_clients_name_their_hub_in_the_path_or_the_query() {
        let expected = || Ok(Route::WebPubSubClient { hub: HubName::parse("chat").unwrap() });
        for uri in [
            "/client/hubs/chat",
            "/client/hubs/Chat/?access_token=x",
            "/client/?hub=chat",
            "/client?x=y&hub=ch%61t",
        ] {
            assert_eq!(route("GET", uri), expected(), "{uri}");
        }
        for (method, uri, status) in [
            ("GET", "/client", 400),
            ("GET", "/client/?hub=", 400),
            ("GET", "/client/?hub=a&hub=b", 400),
            ("GET", "/client/hubs/9", 400),
            ("GET", "/client/hubs", 404),
            ("GET", "/client/hubs/chat/x", 404),
            ("POST", "/client/hubs/chat", 405),
        ] {
            assert_eq!(route(method, uri), Err(status), "{method} {uri}");
        }
    }

    #[test]
    fn tunnels_name_their_hub() {
        let expected = || Ok(Route::Tunnel { hub: HubName::parse("chat").unwrap() });
        for uri in ["/server/tunnel?hub=Chat&access_token=x", "/server/tunnel/?hub=chat&target=x"] {
            assert_eq!(route("GET", uri), expected(), "{uri}");
        }
        for (method, uri, status) in [
            ("GET", "/server/tunnel", 400),
            ("GET", "/server/tunnel?hub=", 400),
            ("GET", "/server/tunnel?hub=a&hub=b", 400),
            ("GET", "/server", 404),
            ("POST", "/server/tunnel?hub=chat", 405),
        ] {
            assert_eq!(route(method, uri), Err(status), "{method} {uri}");
        }
    }

    #[test]
    fn health_can_be_asked_in_both_dialects() {
        for path in ["/api/v1/health", "/api/health?api-version=2024-12-01", "/api/health/"] {
            for method in ["GET", "HEAD"] {
                assert_eq!(route(method, path), Ok(Route::Health), "{method} {path}");
            }
            assert_eq!(route("POST", path), Err(405));
        }
        for (path, expected) in [("/health/live", Route::Live), ("/health/ready/?x", Route::Ready)]
        {
            for method in ["GET", "HEAD"] {
                assert_eq!(route(method, path).as_ref(), Ok(&expected), "{method} {path}");
            }
            assert_eq!(route("POST", path), Err(405));
        }
        assert_eq!(route("GET", "/health"), Err(404));
    }

    proptest! {
        #[test]
        fn hostile_paths_never_panic(
            start in prop::sample::select(vec!["", "/ws", "/api/hubs", "/api/hubs/h/groups", "/client", "/admin/v1"]),
            path in "/[!-~]{0,60}",
        ) {
            if let Ok(uri) = format!("{start}{path}").parse::<Uri>() {
                for method in [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::DELETE] {
                    let _ = parse(&method, &uri);
                }
            }
        }
    }
}
