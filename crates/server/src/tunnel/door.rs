//! How a tunnel comes in: token, place, upgrade (Web PubSub protocol, "Tunnel", "Connecting").
//!
//! Whoever can open a tunnel holds a key of the service, so it is not asked whether it wants events (abuse protection).

use std::sync::Arc;

use hookwire_proto::name::{ConnectionId, HubName};
use hookwire_proto::tunnel::{Connected, Frame};
use http::{Request, Version};
use hyper::upgrade::OnUpgrade;
use tokio_util::sync::CancellationToken;

use super::calls::Line;
use super::link::Link;
use super::{Place, TUNNELS_PER_HUB_MAX, Tunnels, socket};
use crate::api_error::{Answer, ApiError};
use crate::handshake::{accept_value, switching};
use crate::http::Edge;

/// A tunnel that may be opened.
struct Opening {
    place: Place,
    id: ConnectionId,
    /// Whom its token names.
    user: Option<String>,
    /// Cancelled when its token may be good no more.
    revoked: CancellationToken,
    upgrade: OnUpgrade,
}

/// Answers an upstream that wants to open a tunnel.
pub(crate) async fn connect(
    edge: &Arc<Edge>,
    hub: HubName,
    head: &mut Request<()>,
) -> Result<Answer, ApiError> {
    if head.version() < Version::HTTP_11 {
        return Err(ApiError::bad_request("a WebSocket handshake needs HTTP/1.1"));
    }
    let accept = accept_value(head.headers())?;
    // Before the token is looked at: what changes from then on ends the tunnel.
    let revoked = edge.rules().revoked.clone();
    let user = edge.authorize_tunnel(head, &hub).await?;
    let tunnels = &edge.tunnels;
    let place = tunnels.reserve(hub).ok_or_else(|| {
        let message = format!("the hub has {TUNNELS_PER_HUB_MAX} tunnels, or the node too many");
        ApiError::busy(&message)
    })?;
    let (upgrade, id) = (hyper::upgrade::on(head), edge.shards.new_connection_id());
    let opening = Opening { place, id, user, revoked, upgrade };
    tunnels.0.tasks.spawn(serve(edge.clone(), tunnels.clone(), opening));
    Ok(switching(accept, None, None))
}

async fn serve(edge: Arc<Edge>, tunnels: Tunnels, opening: Opening) {
    let Opening { mut place, id, user: user_id, revoked, upgrade } = opening;
    let limits = edge.limits();
    let Ok(Ok(stream)) = tokio::time::timeout(limits.handshake_time_max, upgrade).await else {
        tracing::debug!(hub = %place.hub, tunnel = %id, "an upstream left before its tunnel was open");
        return;
    };
    let greeting = Frame::Connected(Connected {
        connection_id: id.to_string(),
        user_id,
        reconnection_token: None,
    });
    let Ok(greeting) = greeting.encode() else { return };
    let (calls, queue) = Line::new();
    let mut link = Link {
        hub: place.hub.clone(),
        line: calls.clone(),
        queue,
        edge: Arc::downgrade(&edge),
        ping_interval: limits.ping_interval,
        slow_time_max: limits.slow_time_max,
        revoked,
        end: tunnels.0.end.clone(),
    };
    drop(edge);
    let open = place.open(calls);
    tracing::info!(hub = %place.hub, tunnel = %id, open, "a tunnel is open");
    let ended = link.run(socket::open(stream), &greeting).await;
    tracing::info!(hub = %place.hub, tunnel = %id, ?ended, "a tunnel has ended");
}
