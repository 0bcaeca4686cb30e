//! Events in the preview's dialect (preview protocol, "Request headers").

use std::time::SystemTime;

use bytes::Bytes;
use hookwire_hub::{Call, ClientContext, Event};
use hookwire_proto::message::MessageKind;
use hookwire_proto::signature::{self, AccessKey};
use hookwire_proto::template::EventName;

use super::Headers;

/// Every name that a request may carry, as it must stand on the wire: consumers look them up in this spelling.
pub(super) const NAMES: [&str; 16] = [
    "Host",
    "X-ASRS-Connection-Id",
    "X-ASRS-Hub",
    "X-ASRS-Category",
    "X-ASRS-Event",
    "X-ASRS-User-Id",
    "X-ASRS-User-Claims",
    "X-ASRS-Signature",
    "X-ASRS-Client-Query",
    "X-ASRS-Client-Cert-Thumbprint",
    "Sec-WebSocket-Protocol",
    "X-Forwarded-For",
    "Date",
    "Content-Type",
    "Content-Length",
    "User-Agent",
];

/// Returns headers and body of `call`.
pub(super) fn write(
    call: &Call,
    context: &ClientContext,
    host: &str,
    keys: &[AccessKey],
) -> (Headers, Bytes) {
    let connection = call.connection.to_string();
    let mut headers = Headers::default();
    headers.put("host", host);
    headers.put("x-asrs-connection-id", &connection);
    headers.put("x-asrs-hub", call.hub.as_str());
    headers.put("x-asrs-category", category(&call.event));
    headers.put("x-asrs-event", call.event.name());
    if let Some(user) = &call.user {
        headers.put("x-asrs-user-id", user.as_str());
    }
    headers.put("x-asrs-user-claims", context.claims());
    headers.put("x-asrs-signature", &signature::sign(keys, &connection));
    if !context.query().is_empty() {
        headers.put("x-asrs-client-query", context.query());
    }
    headers.put("x-forwarded-for", context.forwarded_for());
    headers.put("date", &httpdate::fmt_http_date(SystemTime::now()));
    let mut body = Bytes::new();
    if let Event::Connect { subprotocols } = &call.event {
        if !subprotocols.is_empty() {
            headers.put("sec-websocket-protocol", &subprotocols.join(", "));
        }
        if !context.thumbprint().is_empty() {
            headers.put("x-asrs-client-cert-thumbprint", context.thumbprint());
        }
    }
    if let Event::Message(message) = &call.event {
        let content_type = match message.kind {
            MessageKind::Text => "text/plain",
            MessageKind::Binary => "application/octet-stream",
        };
        headers.put("content-type", content_type);
        body = message.data.clone();
    }
    (headers, body)
}

/// Returns the category; whatever is no message concerns the connection.
const fn category(event: &Event) -> &'static str {
    if matches!(event, Event::Message(_)) {
        EventName::Message.category()
    } else {
        EventName::Connect.category()
    }
}
