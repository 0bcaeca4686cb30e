//! The node in figures, for a page that is looked at.

use std::sync::atomic::{AtomicU64, Ordering};

use hookwire_hub::{Answer as HubAnswer, Command, NameList};
use serde_json::{Value, json};
use url::Url;

use crate::api_error::ApiError;
use crate::event_log::Dialect;
use crate::http::{Edge, unix_time};
use crate::time::rfc3339;

/// Hubs that are counted; more are told as so many.
const HUBS_COUNTED_MAX: usize = 10_000;

/// Returns what there is, and what has been since the start.
pub(super) async fn overview(edge: &Edge) -> Result<Value, ApiError> {
    let list = Command::ListNames { list: NameList::Hubs, after: None, limit: HUBS_COUNTED_MAX };
    let HubAnswer::Names(hubs) = edge.shards.ask(list).await? else {
        return Err(ApiError::failed());
    };
    let shards: Vec<_> = edge.stats.iter().map(|stats| stats.figures()).collect();
    let sum = |figure: fn(&crate::metrics::ShardFigures) -> u64| -> u64 {
        shards.iter().map(figure).sum()
    };
    let previews = sum(|shard| shard.previews);
    let upstream = edge.upstream.figures();
    let count = |figure: &AtomicU64| figure.load(Ordering::Relaxed);
    let each = |shard: &crate::metrics::ShardFigures| {
        json!({
            "connections": shard.connections,
            "queueBytes": shard.queue_bytes,
            "busySeconds": shard.busy.as_secs_f64(),
        })
    };
    Ok(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "startedAt": rfc3339(edge.started_at),
        "time": rfc3339(unix_time()),
        "uptimeSeconds": edge.started.elapsed().as_secs(),
        "dialects": [Dialect::Preview.as_str(), Dialect::WebPubSub.as_str()],
        "publicEndpoints": edge.endpoints.iter().map(Url::as_str).collect::<Vec<_>>(),
        "connections": {
            "preview": previews,
            "webPubSub": sum(|shard| shard.connections).saturating_sub(previews),
            "recovering": sum(|shard| shard.recovering),
        },
        "hubs": hubs.len(),
        "messagesIn": sum(|shard| shard.messages_in),
        "messagesOut": sum(|shard| shard.deliveries),
        "bytesIn": sum(|shard| shard.bytes_in),
        "bytesOut": sum(|shard| shard.bytes_out),
        "upstream": {
            "calls": count(&upstream.calls),
            "failures": count(&upstream.failures),
            "inFlight": count(&upstream.in_flight),
        },
        "slowConsumers": sum(|shard| shard.slow_consumers),
        "queueBytes": sum(|shard| shard.queue_bytes),
        "shards": shards.iter().map(each).collect::<Vec<_>>(),
    }))
}
