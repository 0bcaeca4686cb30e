//! What the event log says: pages of it, and the log as it grows.

use std::sync::Arc;

use http::{HeaderValue, Request, Response, StatusCode, header};
use serde::Serialize;

use crate::api_error::{Answer, ApiError};
use crate::event_log::{LiveBody, Record, Selection, TooManyReaders};
use crate::http::{Edge, text};

/// Seconds after which a reader that found no room may try again.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("5");

#[derive(Serialize)]
struct PageDocument<'a> {
    items: Vec<&'a Record>,
    oldest: Option<u64>,
    newest: Option<u64>,
}

/// Returns a page of the log.
pub(super) fn page(
    edge: &Edge,
    selection: &Selection,
    (after, before): (Option<u64>, Option<u64>),
    limit: usize,
) -> Answer {
    let page = edge.log.page(selection, after, before, limit);
    let (oldest, newest) = page.ends.unzip();
    let items = page.records.iter().map(|record| &**record).collect();
    let document = PageDocument { items, oldest, newest };
    let body = serde_json::to_string(&document).expect("texts and numbers become JSON");
    text(StatusCode::OK, "application/json", body)
}

/// Returns the log as it grows, from after `after`, or after what the reader has seen by its header `Last-Event-ID`.
///
/// # Errors
/// 401, 403, and 429 when there are too many readers.
pub(crate) async fn live(
    edge: &Arc<Edge>,
    selection: Selection,
    after: Option<u64>,
    head: &Request<()>,
) -> Result<Response<LiveBody>, ApiError> {
    // Before the token is looked at: what changes from then on ends this.
    let revoked = edge.rules().revoked.clone();
    edge.authorize_caller(head).await?;
    let seen = head.headers().get("last-event-id").and_then(|seen| seen.to_str().ok());
    let after = seen.and_then(|seen| seen.parse().ok()).or(after);
    let live = edge.log.follow(selection, after).map_err(|TooManyReaders| {
        ApiError::busy("as many readers follow the event log as may")
            .with(header::RETRY_AFTER, RETRY_AFTER_SECONDS)
    })?;
    let stop = edge.stop.clone();
    let end = async move {
        tokio::select! {
            () = stop.cancelled() => {}
            () = revoked.cancelled() => {}
        }
    };
    let mut answer = Response::new(live.into_body(end));
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx would hold the entries back.
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    Ok(answer)
}
