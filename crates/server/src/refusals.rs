//! Refusals for the event log: each with its reason, so that whoever sets a client or a caller up sees what is wrong.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, StatusCode};

use crate::api_error::{Answer, Refusal};
use crate::event_log::{Dialect, Entry, Kind};
use crate::http::Edge;
use crate::route;

/// Tells the event log if an answer refuses something. That something is not there is an answer, not a refusal.
pub(crate) fn note(edge: &Arc<Edge>, head: &Request<()>, answer: &mut Answer, duration: Duration) {
    let Some(Refusal { verdict, reason }) = answer.extensions_mut().remove() else { return };
    let status = answer.status();
    if [StatusCode::NOT_FOUND, StatusCode::METHOD_NOT_ALLOWED].contains(&status) {
        return;
    }
    let path = head.uri().path();
    let (kind, dialect) = kind(path);
    // The route went with the request; refusals are rare enough to read it once more.
    let route = route::parse(head.method(), head.uri()).ok();
    let event = route.as_ref().map_or("unknown", route::Route::name);
    let hub = route.as_ref().and_then(route::Route::hub);
    let entry = Entry::new(kind, event)
        .of(hub, dialect, None)
        .url(path)
        .status(Some(status.as_u16()))
        .took(duration, 1)
        .came_to(false, verdict, Some(&reason));
    edge.log.push(entry);
}

/// Returns what a path is about.
fn kind(path: &str) -> (Kind, Option<Dialect>) {
    let begins = |start: &str| path.starts_with(start);
    if begins("/ws/client") {
        (Kind::Handshake, Some(Dialect::Preview))
    } else if begins("/client") || begins("/server/tunnel") {
        (Kind::Handshake, Some(Dialect::WebPubSub))
    } else if begins("/ws/") || begins("/manage/") {
        (Kind::Rest, Some(Dialect::Preview))
    } else if begins("/api/hubs") {
        (Kind::Rest, Some(Dialect::WebPubSub))
    } else {
        (Kind::Rest, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_its_kind() {
        for (path, kind_of, dialect) in [
            ("/ws/client/hubs/chat", Kind::Handshake, Some(Dialect::Preview)),
            ("/client/hubs/chat", Kind::Handshake, Some(Dialect::WebPubSub)),
            ("/server/tunnel", Kind::Handshake, Some(Dialect::WebPubSub)),
            ("/ws/api/v1/hubs/chat", Kind::Rest, Some(Dialect::Preview)),
            ("/manage/v1/ws/upstream", Kind::Rest, Some(Dialect::Preview)),
            ("/api/hubs/chat/:send", Kind::Rest, Some(Dialect::WebPubSub)),
            ("/admin/v1/hubs", Kind::Rest, None),
        ] {
            assert_eq!(kind(path), (kind_of, dialect), "{path}");
        }
    }
}
