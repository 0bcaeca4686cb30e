//! What the REST API of the preview does (preview protocol, "REST API"): every success is 200.

use std::sync::Arc;

use hookwire_hub::{Answer as HubAnswer, Command, MembershipChange, UnixMillis};
use hookwire_proto::envelope::{Content, Envelope};
use hookwire_proto::frame::CLOSE_REASON_BYTES_MAX;
use hookwire_proto::message::Message;
use http::{Request, StatusCode, header};

use super::{found, status};
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
            let limit = edge.limits().rest_body_bytes_max;
            let data = body.read(head.headers(), limit, &edge.bodies).await?;
            let content_type =
                head.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
            let content = Content::new(Message::from_body(content_type, data));
            edge.shards.send(Envelope::new(hub, target, content))?;
            Ok(status(StatusCode::OK))
        }
        Route::Exists { hub, target } => {
            found(&edge.shards.ask(Command::Exists { hub, target }).await?)
        }
        Route::Close { hub, connection, reason } => {
            if CLOSE_REASON_BYTES_MAX < reason.len() {
                let message = format!("the reason exceeds {CLOSE_REASON_BYTES_MAX} bytes");
                return Err(ApiError::bad_request(message));
            }
            if let Some(connection) = connection {
                edge.shards.ask(Command::CloseConnection { hub, connection, reason }).await?;
            }
            Ok(status(StatusCode::OK))
        }
        Route::ConnectionGroup { hub, connection, group, join } => match (connection, join) {
            (Some(connection), true) => found(
                &edge.shards.ask(Command::AddConnectionToGroup { hub, connection, group }).await?,
            ),
            (Some(connection), false) => {
                edge.shards
                    .ask(Command::RemoveConnectionFromGroup { hub, connection, group })
                    .await?;
                Ok(status(StatusCode::OK))
            }
            (None, true) => found(&HubAnswer::No),
            (None, false) => Ok(status(StatusCode::OK)),
        },
        Route::UserInGroup { hub, user, group } => {
            found(&edge.shards.ask(Command::UserInGroup { hub, user, group }).await?)
        }
        Route::JoinAsUser { hub, user, group, ttl } => {
            let now = UnixMillis::try_from(unix_time().as_millis()).unwrap_or(UnixMillis::MAX);
            let expires = ttl.map(|ttl| now.saturating_add(ttl.as_secs() * 1_000));
            change(edge, hub, user, MembershipChange::Add { group, expires }).await?;
            Ok(status(StatusCode::OK))
        }
        Route::LeaveAsUser { hub, user, group } => {
            let leave = match group {
                Some(group) => MembershipChange::Remove { group },
                None => MembershipChange::RemoveAll,
            };
            change(edge, hub, user, leave).await?;
            Ok(status(StatusCode::OK))
        }
        Route::Client { .. }
        | Route::WebPubSubClient { .. }
        | Route::Tunnel { .. }
        | Route::DataPlane(_)
        | Route::Admin(_)
        | Route::Description
        | Route::Settings
        | Route::Console(_)
        | Route::Health
        | Route::Live
        | Route::Ready
        | Route::Metrics => Err(ApiError::not_found("no such path")),
    }
}
