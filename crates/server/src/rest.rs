//! What the REST API does (preview protocol, "REST API"): every success is 200.

use std::sync::Arc;

use bytes::Bytes;
use hookwire_hub::{Answer as HubAnswer, Command, MembershipChange, UnixMillis};
use hookwire_proto::envelope::{Content, Envelope};
use hookwire_proto::frame::CLOSE_REASON_BYTES_MAX;
use hookwire_proto::message::Message;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;

use crate::api_error::{Answer, ApiError};
use crate::body::RequestBody;
use crate::changes::change;
use crate::http::{Edge, unix_time};
use crate::route::Route;

/// Performs an operation of the REST API for a caller who may.
pub(crate) async fn perform(
    edge: &Arc<Edge>,
    route: Route,
    head: &Request<()>,
    body: &mut RequestBody,
) -> Result<Answer, ApiError> {
    match route {
        Route::Send { hub, target } => {
            let limit = edge.limits.rest_body_bytes_max;
            let data = body.read(head.headers(), limit, &edge.bodies).await?;
            let content_type =
                head.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let content = Content::new(Message::from_body(content_type, data));
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
            change(edge, hub, user, MembershipChange::Add { group, expires }).await?;
            Ok(ok())
        }
        Route::LeaveAsUser { hub, user, group } => {
            let leave = match group {
                Some(group) => MembershipChange::Remove { group },
                None => MembershipChange::RemoveAll,
            };
            change(edge, hub, user, leave).await?;
            Ok(ok())
        }
        Route::Client { .. } | Route::Settings | Route::Health | Route::Metrics => {
            Err(ApiError::not_found("no such path"))
        }
    }
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
