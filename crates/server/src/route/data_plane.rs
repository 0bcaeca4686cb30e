//! The paths of the Web PubSub REST API (Web PubSub protocol, "Operations").

use hookwire_hub::PermissionOrder;
use hookwire_proto::envelope::Target;
use hookwire_proto::name::{ConnectionId, GroupName, HubName, UserId};
use hookwire_proto::permission::Permission;
use http::Method;

use super::query::Query;
use super::{connection_target, parse_name};
use crate::api_error::ApiError;

/// Most connections on a page of a group's list, and the number when none is asked for.
pub(crate) const PAGE_CONNECTIONS_MAX: usize = 200;

/// The longest that a message may be told to wait for a connection in recovery, in seconds.
const TTL_SECONDS_MAX: u16 = 300;

/// Bytes of a reason that are kept. Ours: every connection that is closed gets a copy.
const REASON_BYTES_MAX: usize = 1_024;

/// The reason of a close that names none ("Disconnect reasons").
const DEFAULT_REASON: &str = "ClosedByAppServer";

/// How long a client's token lives when its caller does not say, in minutes.
const TOKEN_MINUTES: u32 = 60;

/// A version of the API. They differ in what they lack, so all are served alike, with one exception.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ApiVersion(&'static str);

impl ApiVersion {
    /// Every known version, the latest stable one last.
    pub(crate) const ALL: [&'static str; 11] = [
        Self::FIRST.0,
        "2021-01-01",
        "2021-05-01-preview",
        "2021-08-01-preview",
        "2021-10-01",
        "2022-10-01-preview",
        "2022-11-01",
        "2023-07-01",
        "2024-01-01",
        "2026-02-01-preview",
        Self::LATEST.0,
    ];

    /// What a request without a version means.
    const LATEST: Self = Self("2024-12-01");

    /// The only one that can ask whether a user is in a group.
    const FIRST: Self = Self("2020-10-01");

    /// Returns the text of `api-version`.
    pub(crate) const fn as_str(self) -> &'static str {
        self.0
    }

    fn of(query: &Query) -> Result<Self, ApiError> {
        let Some(named) = query.one("api-version")? else { return Ok(Self::LATEST) };
        let known = Self::ALL.into_iter().find(|known| known.eq_ignore_ascii_case(named));
        known.map(Self).ok_or_else(|| {
            let message = format!("the api-version must be one of {}", Self::ALL.join(", "));
            ApiError::bad_request(message).about("api-version")
        })
    }
}

/// One call of the API.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) hub: HubName,
    pub(crate) version: ApiVersion,
    pub(crate) operation: Operation,
}

/// What a call asks for. A connection that is `None` has an id that no node has made.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// Send the body.
    Send(Send),
    /// Is there a live connection?
    Exists(Target),
    /// Close one connection.
    Close { connection: Option<ConnectionId>, reason: String },
    /// Close the connections of a target.
    CloseAll { target: Target, excluded: Vec<ConnectionId>, reason: String },
    /// Make a token for a client.
    GenerateToken(Box<TokenOrder>),
    /// Put the connections that a filter selects into groups or take them out, as the body says.
    Regroup { add: bool },
    /// List the connections in a group.
    ListGroup { group: GroupName, page: PageOrder },
    /// Put a connection into a group or take it out.
    ConnectionGroup { connection: Option<ConnectionId>, group: GroupName, add: bool },
    /// Take a connection out of all groups.
    LeaveAllGroups { connection: Option<ConnectionId> },
    /// Put a user's present connections into a group or take them out; `None`: out of all groups.
    UserGroup { user: UserId, group: Option<GroupName>, add: bool },
    /// Is a connection of the user in the group?
    UserInGroup { user: UserId, group: GroupName },
    /// Grant, revoke or check a permission for a group; `None`: for all.
    Permission {
        connection: Option<ConnectionId>,
        permission: Permission,
        group: Option<GroupName>,
        order: PermissionOrder,
    },
}

impl Operation {
    /// Returns the operation's name in metrics.
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Self::Send(_) => "send",
            Self::Exists(_) => "exists",
            Self::Close { .. } | Self::CloseAll { .. } => "close",
            Self::GenerateToken(_) => "generate_token",
            Self::Regroup { .. } => "regroup",
            Self::ListGroup { .. } => "list_group",
            Self::ConnectionGroup { .. } | Self::LeaveAllGroups { .. } => "connection_group",
            Self::UserGroup { .. } | Self::UserInGroup { .. } => "user_group",
            Self::Permission { .. } => "permission",
        }
    }
}

/// Whom a message is for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Send {
    pub(crate) target: Target,
    pub(crate) excluded: Vec<ConnectionId>,
    /// As it came: it is read when the caller has shown that they may send.
    pub(crate) filter: Option<String>,
    pub(crate) ttl_seconds: Option<u16>,
}

/// A client's token that is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TokenOrder {
    pub(crate) user: Option<UserId>,
    pub(crate) roles: Vec<String>,
    pub(crate) groups: Vec<GroupName>,
    pub(crate) minutes: u32,
    pub(crate) client: ClientKind,
}

/// What kind of client a token is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ClientKind {
    Default,
    Mqtt,
    SocketIo,
    /// A client of the preview's endpoint. Ours: there its tokens were made by hand.
    Preview,
}

/// Which part of a list is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PageOrder {
    /// At most so many now.
    pub(crate) size: usize,
    /// At most so many from here on.
    pub(crate) top: Option<u32>,
    /// Only ids after this one.
    pub(crate) after: Option<ConnectionId>,
}

/// Reads what stands behind `/api/hubs/`.
pub(super) fn parse(
    method: &Method,
    hub: &str,
    rest: &[&str],
    query: &str,
) -> Result<Call, ApiError> {
    let query = Query::parse(query)?;
    let version = ApiVersion::of(&query)?;
    let hub = parse_name(HubName::parse(hub), "hub")?;
    let operation = operation(method.as_str(), version, rest, &query)?;
    Ok(Call { hub, version, operation })
}

fn operation(
    method: &str,
    version: ApiVersion,
    rest: &[&str],
    query: &Query,
) -> Result<Operation, ApiError> {
    match rest {
        [":send"] => post(method, || send(Target::Hub, query)),
        [":closeConnections"] => post(method, || close_all(Target::Hub, query)),
        [":generateToken"] => post(method, || generate_token(query)),
        [":addToGroups"] => post(method, || Ok(Operation::Regroup { add: true })),
        [":removeFromGroups"] => post(method, || Ok(Operation::Regroup { add: false })),
        ["connections", id, rest @ ..] => connection(method, id, rest, query),
        ["groups", group, rest @ ..] => group_path(method, group, rest, query),
        ["users", user, rest @ ..] => user_path(method, version, user, rest, query),
        ["permissions", permission, "connections", id] => {
            let order = match method {
                "PUT" => PermissionOrder::Grant,
                "DELETE" => PermissionOrder::Revoke,
                "HEAD" => PermissionOrder::Check,
                _ => return Err(ApiError::method_not_allowed("PUT, DELETE, HEAD")),
            };
            let permission = Permission::parse(permission).ok_or_else(|| {
                let [one, other] = Permission::ALL.map(Permission::as_str);
                let message = format!("the permission must be {one} or {other}");
                ApiError::bad_request(message).about("permission")
            })?;
            let group = query.one("targetName")?.map(GroupName::parse).transpose();
            let group = parse_name(group, "targetName")?;
            Ok(Operation::Permission {
                connection: ConnectionId::parse(id),
                permission,
                group,
                order,
            })
        }
        _ => Err(ApiError::not_found("no such path")),
    }
}

fn connection(method: &str, id: &str, rest: &[&str], query: &Query) -> Result<Operation, ApiError> {
    match (rest, method) {
        ([], "HEAD") => Ok(Operation::Exists(connection_target(id))),
        ([], "DELETE") => {
            Ok(Operation::Close { connection: ConnectionId::parse(id), reason: reason(query)? })
        }
        ([], _) => Err(ApiError::method_not_allowed("HEAD, DELETE")),
        ([":send"], _) => post(method, || send(connection_target(id), query)),
        (["groups"], "DELETE") => {
            Ok(Operation::LeaveAllGroups { connection: ConnectionId::parse(id) })
        }
        (["groups"], _) => Err(ApiError::method_not_allowed("DELETE")),
        _ => Err(ApiError::not_found("no such path")),
    }
}

fn group_path(
    method: &str,
    group: &str,
    rest: &[&str],
    query: &Query,
) -> Result<Operation, ApiError> {
    let group = parse_name(GroupName::parse(group), "group")?;
    match (rest, method) {
        ([], "HEAD") => Ok(Operation::Exists(Target::Group(group))),
        ([], _) => Err(ApiError::method_not_allowed("HEAD")),
        ([":send"], _) => post(method, || send(Target::Group(group), query)),
        ([":closeConnections"], _) => post(method, || close_all(Target::Group(group), query)),
        (["connections"], "GET") => Ok(Operation::ListGroup { group, page: page(query)? }),
        (["connections"], _) => Err(ApiError::method_not_allowed("GET")),
        (["connections", id], "PUT" | "DELETE") => {
            let connection = ConnectionId::parse(id);
            Ok(Operation::ConnectionGroup { connection, group, add: method == "PUT" })
        }
        (["connections", _], _) => Err(ApiError::method_not_allowed("PUT, DELETE")),
        _ => Err(ApiError::not_found("no such path")),
    }
}

fn user_path(
    method: &str,
    version: ApiVersion,
    user: &str,
    rest: &[&str],
    query: &Query,
) -> Result<Operation, ApiError> {
    let user = parse_name(UserId::parse(user), "userId")?;
    match (rest, method) {
        ([], "HEAD") => Ok(Operation::Exists(Target::User(user))),
        ([], _) => Err(ApiError::method_not_allowed("HEAD")),
        ([":send"], _) => post(method, || send(Target::User(user), query)),
        ([":closeConnections"], _) => post(method, || close_all(Target::User(user), query)),
        (["groups"], "DELETE") => Ok(Operation::UserGroup { user, group: None, add: false }),
        (["groups"], _) => Err(ApiError::method_not_allowed("DELETE")),
        (["groups", group], _) => {
            let group = parse_name(GroupName::parse(group), "group")?;
            match method {
                "PUT" => Ok(Operation::UserGroup { user, group: Some(group), add: true }),
                "DELETE" => Ok(Operation::UserGroup { user, group: Some(group), add: false }),
                "HEAD" if version == ApiVersion::FIRST => {
                    Ok(Operation::UserInGroup { user, group })
                }
                _ if version == ApiVersion::FIRST => {
                    Err(ApiError::method_not_allowed("HEAD, PUT, DELETE"))
                }
                _ => Err(ApiError::method_not_allowed("PUT, DELETE")),
            }
        }
        _ => Err(ApiError::not_found("no such path")),
    }
}

fn post(
    method: &str,
    operation: impl FnOnce() -> Result<Operation, ApiError>,
) -> Result<Operation, ApiError> {
    if method == "POST" { operation() } else { Err(ApiError::method_not_allowed("POST")) }
}

fn send(target: Target, query: &Query) -> Result<Operation, ApiError> {
    let ttl_seconds = query.number("messageTtlSeconds", &(0..=TTL_SECONDS_MAX))?;
    // A connection is named already, so there is nothing to choose from.
    let chosen = !matches!(target, Target::Connection(_));
    let filter = query.one("filter")?.filter(|filter| chosen && !filter.trim().is_empty());
    Ok(Operation::Send(Send {
        excluded: if chosen { excluded(query) } else { Vec::new() },
        target,
        filter: filter.map(str::to_owned),
        ttl_seconds: ttl_seconds.filter(|seconds| *seconds != 0),
    }))
}

fn close_all(target: Target, query: &Query) -> Result<Operation, ApiError> {
    Ok(Operation::CloseAll { target, excluded: excluded(query), reason: reason(query)? })
}

/// Returns the connections that are left out. An id that no node has made names nobody.
fn excluded(query: &Query) -> Vec<ConnectionId> {
    query.all("excluded").filter_map(ConnectionId::parse).collect()
}

fn reason(query: &Query) -> Result<String, ApiError> {
    let reason = query.one("reason")?.filter(|reason| !reason.is_empty()).unwrap_or(DEFAULT_REASON);
    Ok(reason[..reason.floor_char_boundary(REASON_BYTES_MAX)].to_owned())
}

fn generate_token(query: &Query) -> Result<Operation, ApiError> {
    let user = query.one("userId")?.filter(|user| !user.is_empty());
    let groups: Result<_, _> = query.all("group").map(GroupName::parse).collect();
    let client = match query.one("clientType")?.map(str::to_ascii_lowercase).as_deref() {
        None | Some("" | "default") => ClientKind::Default,
        Some("mqtt") => ClientKind::Mqtt,
        Some("socketio") => ClientKind::SocketIo,
        Some("preview") => ClientKind::Preview,
        Some(_) => {
            let message = "the clientType must be Default, MQTT, SocketIO or Preview";
            return Err(ApiError::bad_request(message).about("clientType"));
        }
    };
    Ok(Operation::GenerateToken(Box::new(TokenOrder {
        user: parse_name(user.map(UserId::parse).transpose(), "userId")?,
        roles: query.all("role").map(str::to_owned).collect(),
        groups: parse_name(groups, "group")?,
        minutes: query
            .number("minutesToExpire", &(1..=i32::MAX.cast_unsigned()))?
            .unwrap_or(TOKEN_MINUTES),
        client,
    })))
}

fn page(query: &Query) -> Result<PageOrder, ApiError> {
    let after = query.one("continuationToken")?.map(|token| {
        ConnectionId::parse(token).ok_or_else(|| {
            ApiError::bad_request("the continuationToken is not one of this service")
                .about("continuationToken")
        })
    });
    Ok(PageOrder {
        size: query
            .number("maxpagesize", &(1..=PAGE_CONNECTIONS_MAX))?
            .unwrap_or(PAGE_CONNECTIONS_MAX),
        top: query.number("top", &(1..=i32::MAX.cast_unsigned()))?,
        after: after.transpose()?,
    })
}

#[cfg(test)]
mod tests;
