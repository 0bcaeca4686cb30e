//! Events in the preview's dialect (preview protocol, "Request headers").

use std::time::SystemTime;

use bytes::Bytes;
use hookwire_hub::{Call, ClientContext, Event};
use hookwire_proto::message::MessageKind;
use hookwire_proto::signature::{self, AccessKey};
use hookwire_proto::template::EventName;
use http::{HeaderName, HeaderValue, header};
use httpdate::HttpDate;

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

const CONNECTION_ID: HeaderName = HeaderName::from_static("x-asrs-connection-id");
const HUB: HeaderName = HeaderName::from_static("x-asrs-hub");
const CATEGORY: HeaderName = HeaderName::from_static("x-asrs-category");
const EVENT: HeaderName = HeaderName::from_static("x-asrs-event");
const USER_ID: HeaderName = HeaderName::from_static("x-asrs-user-id");
const USER_CLAIMS: HeaderName = HeaderName::from_static("x-asrs-user-claims");
const SIGNATURE: HeaderName = HeaderName::from_static("x-asrs-signature");
const CLIENT_QUERY: HeaderName = HeaderName::from_static("x-asrs-client-query");
const CLIENT_CERT_THUMBPRINT: HeaderName = HeaderName::from_static("x-asrs-client-cert-thumbprint");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// Returns headers and body of `call`.
pub(super) fn write(
    call: &Call,
    context: &ClientContext,
    host: HeaderValue,
    keys: &[AccessKey],
) -> (Headers, Bytes) {
    let connection = call.connection.to_string();
    let mut headers = Headers::new();
    headers.put_value(header::HOST, host);
    headers.put(CONNECTION_ID, &connection);
    headers.put(HUB, call.hub.as_str());
    headers.put(CATEGORY, category(&call.event));
    headers.put(EVENT, call.event.name());
    if let Some(user) = &call.user {
        headers.put(USER_ID, user.as_str());
    }
    headers.put(USER_CLAIMS, context.claims());
    headers.put(SIGNATURE, &signature::sign(keys, &connection));
    if !context.query().is_empty() {
        headers.put(CLIENT_QUERY, context.query());
    }
    headers.put(FORWARDED_FOR, context.forwarded_for());
    headers.put_shown(header::DATE, HttpDate::from(SystemTime::now()));
    let mut body = Bytes::new();
    if let Event::Connect { subprotocols } = &call.event {
        if !subprotocols.is_empty() {
            headers.put(header::SEC_WEBSOCKET_PROTOCOL, &subprotocols.join(", "));
        }
        if !context.thumbprint().is_empty() {
            headers.put(CLIENT_CERT_THUMBPRINT, context.thumbprint());
        }
    }
    if let Event::Message(message) = &call.event {
        let content_type = match message.kind {
            MessageKind::Text => "text/plain",
            MessageKind::Binary => "application/octet-stream",
        };
        headers.put_value(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
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
