//! What the REST API does (preview protocol, "REST API"): every success is 200.

use bytes::Bytes;
use hookwire_hub::{Answer as HubAnswer, Command, MembershipChange, UnixMillis};
use hookwire_proto::envelope::{Content, Envelope};
use hookwire_proto::frame::CLOSE_REASON_BYTES_MAX;
use hookwire_proto::message::Message;
use hookwire_proto::name::{HubName, UserId};
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;

use crate::api_error::{Answer, ApiError};
use crate::http::{Edge, body, unix_time};
use crate::route::Route;

/// Performs an operation of the REST API for a caller who may.
pub(crate) async fn perform(
    edge: &Edge,
    route: Route,
    request: Request<Incoming>,
) -> Result<Answer, ApiError> {
    match route {
        Route::Send { hub, target } => {
            let content_type = request.headers().get(header::CONTENT_TYPE);
            let content_type =
                content_type.and_then(|value| value.to_str().ok()).map(str::to_owned);
            let data = body(request, edge.limits.rest_body_bytes_max).await?;
            let content = Content::new(Message::from_body(content_type.as_deref(), data));
            edge.shards.send(Envelope { hub, target, content })?;
            Ok(ok())
        }
        Route::Exists { hub, target } => {
            found(edge.shards.ask(Command::Exists { hub, target }).await?)
        }
        Route::Close { hub, connection, reason } => {
            if CLOSE_REASON_BYTES_MAX < reason.len() {
                let message = format!("the reason exceeds {CLOSE_REASON_BYTES_MAX} bytes");
                return Err(ApiError::bad_request(message));
            }
            if let Some(connection) = connection {
                edge.shards.ask(Command::CloseConnection { hub, connection, reason }).await?;
            }
            Ok(ok())
        }
        Route::ConnectionGroup { hub, connection, group, join } => match (connection, join) {
            (Some(connection), true) => found(
                edge.shards.ask(Command::AddConnectionToGroup { hub, connection, group }).await?,
            ),
            (Some(connection), false) => {
                edge.shards
                    .ask(Command::RemoveConnectionFromGroup { hub, connection, group })
                    .await?;
                Ok(ok())
            }
            (None, true) => found(HubAnswer::No),
            (None, false) => Ok(ok()),
        },
        Route::UserInGroup { hub, user, group } => {
            found(edge.shards.ask(Command::UserInGroup { hub, user, group }).await?)
        }
        Route::JoinAsUser { hub, user, group, ttl } => {
            let now = UnixMillis::try_from(unix_time().as_millis()).unwrap_or(UnixMillis::MAX);
            let expires = ttl.map(|ttl| now.saturating_add(ttl.as_secs() * 1_000));
            change(edge, hub, user, MembershipChange::Add { group, expires }).await
        }
        Route::LeaveAsUser { hub, user, group: Some(group) } => {
            change(edge, hub, user, MembershipChange::Remove { group }).await
        }
        Route::LeaveAsUser { hub, user, group: None } => {
            change(edge, hub, user, MembershipChange::RemoveAll).await
        }
        Route::Client { .. } | Route::Settings | Route::Health | Route::Metrics => {
            Err(ApiError::not_found("no such path"))
        }
    }
}

/// Stored first, then put before every shard, then answered.
async fn change(
    edge: &Edge,
    hub: HubName,
    user: UserId,
    change: MembershipChange,
) -> Result<Answer, ApiError> {
    edge.store.change_membership(&hub, &user, &change).await?;
    edge.shards.ask(Command::Membership { hub, user, change }).await?;
    Ok(ok())
}

fn found(answer: HubAnswer) -> Result<Answer, ApiError> {
    match answer {
        HubAnswer::Yes => Ok(ok()),
        HubAnswer::No => Err(ApiError::not_found("not there")),
        HubAnswer::TooMany => Err(ApiError::new(
            StatusCode::CONFLICT,
            "TooMany",
            "the connection is in as many groups as it may be",
        )),
    }
}

fn ok() -> Answer {
    Response::new(Full::new(Bytes::new()))
}
