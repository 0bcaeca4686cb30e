//! What the REST API of Web PubSub does (Web PubSub protocol, "Operations"). Its statuses are exact: SDKs take any other success for
//! a failure.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use hookwire_hub::{Answer as HubAnswer, Command, ConnectionSummary, PermissionOrder};
use hookwire_proto::envelope::{Action, Content, Delivery, Envelope, Target};
use hookwire_proto::filter::Filter;
use hookwire_proto::name::{ConnectionId, GroupName, HubName, UserId};
use hookwire_proto::token::{GROUP_CLAIM, NewToken, ROLE_CLAIM};
use http::{HeaderName, HeaderValue, Request, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value};
use url::form_urlencoded;

use super::origin::origin;
use super::payload::{BodyType, metadata};
use super::{found, json, status, too_many};
use crate::api_error::{Answer, ApiError};
use crate::body::RequestBody;
use crate::http::{Edge, unix_time};
use crate::route::data_plane::{
    ApiVersion, Call, ClientKind, Operation, PageOrder, Send, TokenOrder,
};

/// Groups that one call may name.
const GROUPS_MAX: usize = 1_024;

/// Connections of a user that are looked at when somebody asks whether they are in a group.
const CONNECTIONS_LOOKED_AT_MAX: usize = 1_000;

/// Tells the caller which versions there are, [`ApiVersion::ALL`].
const SUPPORTED_VERSIONS: &str = "2020-10-01, 2021-01-01, 2021-05-01-preview, 2021-08-01-preview, 2021-10-01, 2022-10-01-preview, \
                                  2022-11-01, 2023-07-01, 2024-01-01, 2024-12-01, 2026-02-01-preview";

/// Answers a call of the REST API.
pub(crate) async fn answer(
    edge: &Arc<Edge>,
    call: Call,
    head: &Request<()>,
    body: &mut RequestBody,
) -> Answer {
    match edge.authorize_caller(head).await {
        Ok(()) => answer_authorized(edge, call, head, body).await,
        Err(error) => complete(Err(error)),
    }
}

/// Answers a call of somebody who may make it.
pub(crate) async fn answer_authorized(
    edge: &Edge,
    call: Call,
    head: &Request<()>,
    body: &mut RequestBody,
) -> Answer {
    complete(perform(edge, call, head, body).await)
}

fn complete(result: Result<Answer, ApiError>) -> Answer {
    let mut answer = result.unwrap_or_else(|error| error.for_web_pubsub().into_answer());
    answer.headers_mut().insert(
        HeaderName::from_static("api-supported-versions"),
        HeaderValue::from_static(SUPPORTED_VERSIONS),
    );
    answer
}

async fn perform(
    edge: &Edge,
    Call { hub, version, operation }: Call,
    head: &Request<()>,
    body: &mut RequestBody,
) -> Result<Answer, ApiError> {
    match operation {
        Operation::Send(order) => send(edge, hub, order, head, body).await,
        Operation::Exists(target) => {
            found(&edge.shards.ask(Command::Exists { hub, target }).await?)
        }
        Operation::Close { connection, reason } => {
            if let Some(connection) = connection {
                edge.shards.ask(Command::CloseConnection { hub, connection, reason }).await?;
            }
            Ok(status(StatusCode::NO_CONTENT))
        }
        Operation::CloseAll { target, excluded, reason } => {
            let excluded = excluded.into();
            edge.shards.ask(Command::CloseConnections { hub, target, excluded, reason }).await?;
            Ok(status(StatusCode::NO_CONTENT))
        }
        Operation::GenerateToken(order) => Ok(generate_token(edge, &hub, *order, head)),
        Operation::Regroup { add } => regroup(edge, hub, add, head, body).await,
        Operation::ListGroup { group, page } => list(edge, hub, group, page, version, head).await,
        Operation::ConnectionGroup { connection, group, add } => {
            let answer = match connection {
                Some(connection) if add => {
                    edge.shards
                        .ask(Command::AddConnectionToGroup { hub, connection, group })
                        .await?
                }
                Some(connection) => {
                    let command = Command::RemoveConnectionFromGroup { hub, connection, group };
                    edge.shards.ask(command).await?
                }
                None => HubAnswer::No,
            };
            if add { found(&answer) } else { Ok(status(StatusCode::NO_CONTENT)) }
        }
        Operation::LeaveAllGroups { connection } => {
            if let Some(connection) = connection {
                edge.shards.ask(Command::RemoveConnectionFromAllGroups { hub, connection }).await?;
            }
            Ok(status(StatusCode::NO_CONTENT))
        }
        Operation::UserGroup { user, group, add } => {
            let answer = edge.shards.ask(Command::RegroupUser { hub, user, group, add }).await?;
            if add { found(&answer) } else { Ok(status(StatusCode::NO_CONTENT)) }
        }
        Operation::UserInGroup { user, group } => user_in_group(edge, hub, user, group).await,
        Operation::Permission { connection, permission, group, order } => {
            let answer = match connection {
                Some(connection) => {
                    let command = Command::Permission { hub, connection, permission, group, order };
                    edge.shards.ask(command).await?
                }
                None => HubAnswer::No,
            };
            match (order, answer) {
                (PermissionOrder::Grant | PermissionOrder::Check, answer) => found(&answer),
                (PermissionOrder::Revoke, HubAnswer::TooMany) => Err(too_many()),
                (PermissionOrder::Revoke, _) => Ok(status(StatusCode::NO_CONTENT)),
            }
        }
    }
}

async fn send(
    edge: &Edge,
    hub: HubName,
    order: Send,
    head: &Request<()>,
    body: &mut RequestBody,
) -> Result<Answer, ApiError> {
    let Send { target, excluded, filter, ttl_seconds } = order;
    let filter = filter.as_deref().map(parse_filter).transpose()?;
    let body_type = BodyType::of(head.headers())?;
    let metadata = metadata(head.headers())?;
    let limit = edge.limits().rest_body_bytes_max;
    let bytes = body.read(head.headers(), limit, &edge.bodies).await?;
    let content = Content::to(&target, body_type.read(bytes, limit)?, metadata);
    let delivery = Delivery { content, excluded: excluded.into(), filter, ttl_seconds };
    edge.shards.send(Envelope { hub, target, action: Action::Deliver(delivery) })?;
    Ok(status(StatusCode::ACCEPTED))
}

fn parse_filter(text: &str) -> Result<Arc<Filter>, ApiError> {
    let filter = Filter::parse(text)
        .map_err(|error| ApiError::bad_request(error.to_string()).about("filter"))?;
    Ok(Arc::new(filter))
}

/// The body of `:addToGroups` and `:removeFromGroups`.
#[derive(Debug, Deserialize)]
struct RegroupOrder {
    groups: Vec<String>,
    filter: Option<String>,
}

async fn regroup(
    edge: &Edge,
    hub: HubName,
    add: bool,
    head: &Request<()>,
    body: &mut RequestBody,
) -> Result<Answer, ApiError> {
    if matches!(BodyType::of(head.headers())?, BodyType::Text(_)) {
        let message = "the body must be application/json";
        return Err(ApiError::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "UnsupportedMediaType",
            message,
        ));
    }
    let body = body.read(head.headers(), edge.limits().rest_body_bytes_max, &edge.bodies).await?;
    let (groups, filter) = read_regroup_order(&body)?;
    let answer = edge.shards.ask(Command::Regroup { hub, groups, filter, add }).await?;
    if answer == HubAnswer::TooMany { Err(too_many()) } else { Ok(status(StatusCode::OK)) }
}

type Regrouping = (Arc<[GroupName]>, Option<Arc<Filter>>);

fn read_regroup_order(body: &[u8]) -> Result<Regrouping, ApiError> {
    let order: RegroupOrder = serde_json::from_slice(body).map_err(|error| {
        let message = "The request body is not a valid JSON.";
        if error.is_data() {
            ApiError::bad_request(format!("the body must be an object with groups: {error}"))
        } else {
            ApiError::bad_request(message)
        }
    })?;
    if order.groups.is_empty() || GROUPS_MAX < order.groups.len() {
        let message = format!("there must be 1 to {GROUPS_MAX} groups");
        return Err(ApiError::bad_request(message).about("groups"));
    }
    let groups = order.groups.iter().map(|group| GroupName::parse(group)).collect::<Result<_, _>>();
    let groups = groups.map_err(|error| ApiError::from(error).about("groups"))?;
    let filter = order.filter.filter(|filter| !filter.trim().is_empty());
    Ok((groups, filter.as_deref().map(parse_filter).transpose()?))
}

fn generate_token(edge: &Edge, hub: &HubName, order: TokenOrder, head: &Request<()>) -> Answer {
    let place = match order.client {
        ClientKind::Default => "client",
        ClientKind::Mqtt => "clients/mqtt",
        ClientKind::SocketIo => "clients/socketio",
        ClientKind::Preview => "ws/client",
    };
    let mut claims = Map::new();
    if !order.roles.is_empty() {
        claims.insert(ROLE_CLAIM.to_owned(), order.roles.into());
    }
    if !order.groups.is_empty() {
        let groups: Vec<&str> = order.groups.iter().map(GroupName::as_str).collect();
        claims.insert(GROUP_CLAIM.to_owned(), groups.into());
    }
    let token = NewToken {
        audience: &format!("{}/{place}/hubs/{hub}", origin(&edge.endpoints, head.headers())),
        issued_at: unix_time().as_secs(),
        lifetime: Duration::from_secs(u64::from(order.minutes) * 60),
        user: order.user.as_ref().map(UserId::as_str),
        claims,
    };
    json(&serde_json::json!({ "token": token.sign(&edge.rules().keys[0]) }))
}

async fn list(
    edge: &Edge,
    hub: HubName,
    group: GroupName,
    page: PageOrder,
    version: ApiVersion,
    head: &Request<()>,
) -> Result<Answer, ApiError> {
    let top = page.top.and_then(|top| usize::try_from(top).ok());
    let limit = top.map_or(page.size, |top| top.min(page.size));
    // One more than fits on the page tells whether there is another page.
    let target = Target::Group(group);
    let mut found = connections(edge, hub, target, page.after, limit + 1).await?;
    let is_last = found.len() <= limit || top == Some(limit);
    found.truncate(limit);
    let mut body = serde_json::json!({ "value": found.iter().map(summary).collect::<Vec<_>>() });
    if let (false, Some(last)) = (is_last, found.last()) {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("api-version", version.as_str());
        query.append_pair("maxpagesize", &page.size.to_string());
        if let Some(top) = top {
            query.append_pair("top", &(top - limit).to_string());
        }
        query.append_pair("continuationToken", &last.id.to_string());
        let origin = origin(&edge.endpoints, head.headers());
        body["nextLink"] = format!("{origin}{}?{}", head.uri().path(), query.finish()).into();
    }
    Ok(json(&body))
}

fn summary(connection: &ConnectionSummary) -> Value {
    let mut summary = serde_json::json!({ "connectionId": connection.id.to_string() });
    if let Some(user) = &connection.user {
        summary["userId"] = user.as_str().into();
    }
    summary
}

async fn connections(
    edge: &Edge,
    hub: HubName,
    target: Target,
    after: Option<ConnectionId>,
    limit: usize,
) -> Result<Vec<ConnectionSummary>, ApiError> {
    let command = Command::ListConnections { hub, target, after, limit };
    let HubAnswer::Connections(connections) = edge.shards.ask(command).await? else {
        return Err(ApiError::failed());
    };
    Ok(connections)
}

/// Whether one of the user's connections is in the group. Asked in the oldest version alone, so it may cost a question per connection.
async fn user_in_group(
    edge: &Edge,
    hub: HubName,
    user: UserId,
    group: GroupName,
) -> Result<Answer, ApiError> {
    let limit = CONNECTIONS_LOOKED_AT_MAX;
    let of_user = connections(edge, hub.clone(), Target::User(user), None, limit).await?;
    let questions = of_user.into_iter().map(|ConnectionSummary { id: connection, .. }| {
        edge.shards.ask(Command::Describe { hub: hub.clone(), connection })
    });
    let answers = try_join_all(questions).await?;
    let is_in = answers.iter().any(|answer| {
        matches!(answer, HubAnswer::Connection(details) if details.groups.contains(&group))
    });
    found(&is_in.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_lists_the_versions_in_order() {
        let mut all = ApiVersion::ALL;
        all.sort_unstable();
        assert_eq!(SUPPORTED_VERSIONS.split(", ").collect::<Vec<_>>(), all);
    }

    #[test]
    fn orders_for_many_groups_are_read_and_bounded() {
        let read = |body: &str| {
            let order =
                read_regroup_order(body.as_bytes()).map_err(|error| error.status().as_u16());
            order.map(|(groups, filter)| (groups.len(), filter.is_some()))
        };
        assert_eq!(read(r#"{"groups":["a","b"],"filter":"userId eq 'u'","x":1}"#), Ok((2, true)));
        for everybody in [
            r#"{"groups":["a"]}"#,
            r#"{"groups":["a"],"filter":null}"#,
            r#"{"groups":["a"],"filter":" "}"#,
        ] {
            assert_eq!(read(everybody), Ok((1, false)), "{everybody}");
        }
        let names = |count: usize| {
            let names: Vec<String> = (0..count).map(|at| at.to_string()).collect();
            serde_json::json!({ "groups": names }).to_string()
        };
        assert_eq!(read(&names(1_024)), Ok((1_024, false)));
        for bad in [
            "",
            "[]",
            "{}",
            "null",
            r#"{"groups":"a"}"#,
            r#"{"groups":[]}"#,
            r#"{"groups":[1]}"#,
            r#"{"groups":[" "]}"#,
            r#"{"groups":["a"],"filter":"userId eq"}"#,
            r#"{"groups":["a"],"filter":1}"#,
            r#"{"groups":["a"]"#,
            &names(1_025),
        ] {
            assert_eq!(read(bad), Err(400), "{bad}");
        }
    }
}
