//! Events of Web PubSub as CloudEvents in binary mode (Web PubSub protocol, "Requests in general").

use bytes::Bytes;
use hookwire_hub::{Event, EventFacts};
use hookwire_proto::cloud_event::{self, ConnectRequest, EventKind};
use hookwire_proto::data::{DataKind, Metadata};
use hookwire_proto::message::MessageKind;
use hookwire_proto::name::{ConnectionId, HubName, UserId};
use hookwire_proto::signature::{self, AccessKey};
use http::{HeaderName, HeaderValue, header};

use super::Headers;

/// Every name that a request may carry in its documented spelling; those of metadata are in lower case. Only the tunnel carries them so:
/// over HTTP they are in lower case.
pub(super) const NAMES: [&str; 19] = [
    "Host",
    "ce-specversion",
    "ce-awpsversion",
    "ce-type",
    "ce-source",
    "ce-id",
    "ce-time",
    "ce-signature",
    "ce-connectionId",
    "ce-hub",
    "ce-eventName",
    "ce-userId",
    "ce-subprotocol",
    "ce-connectionState",
    "WebHook-Request-Origin",
    "Cookie",
    "Authorization",
    "Content-Type",
    "Content-Length",
];

const SPEC_VERSION: HeaderName = HeaderName::from_static("ce-specversion");
pub(super) const AWPS_VERSION: HeaderName = HeaderName::from_static("ce-awpsversion");
const TYPE: HeaderName = HeaderName::from_static("ce-type");
const SOURCE: HeaderName = HeaderName::from_static("ce-source");
const ID: HeaderName = HeaderName::from_static("ce-id");
const TIME: HeaderName = HeaderName::from_static("ce-time");
const SIGNATURE: HeaderName = HeaderName::from_static("ce-signature");
const CONNECTION_ID: HeaderName = HeaderName::from_static("ce-connectionid");
const HUB: HeaderName = HeaderName::from_static("ce-hub");
const EVENT_NAME: HeaderName = HeaderName::from_static("ce-eventname");
const USER_ID: HeaderName = HeaderName::from_static("ce-userid");
const SUBPROTOCOL: HeaderName = HeaderName::from_static("ce-subprotocol");
const CONNECTION_STATE: HeaderName = HeaderName::from_static("ce-connectionstate");
pub(super) const REQUEST_ORIGIN: HeaderName = HeaderName::from_static("webhook-request-origin");

/// The version of the protocol. The Express library ignores a request without it.
pub(super) const AWPS_VERSION_VALUE: HeaderValue = HeaderValue::from_static("1.0");
const SPEC_VERSION_VALUE: HeaderValue = HeaderValue::from_static("1.0");

/// What the names of metadata headers begin with.
const METADATA_PREFIX: &str = "x-webpubsub-metadata-";

/// An event with all that its headers say.
#[derive(Debug)]
pub(super) struct CloudEvent<'a> {
    pub(super) hub: &'a HubName,
    pub(super) connection: ConnectionId,
    pub(super) user: Option<&'a UserId>,
    pub(super) facts: &'a EventFacts,
    /// Whether cookies go with it: a listener is not who set them.
    pub(super) has_cookies: bool,
    pub(super) event: &'a Event,
    /// When it happened, as far as it is known: seconds since 1970.
    pub(super) unix_seconds: u64,
}

impl CloudEvent<'_> {
    /// Returns headers and body.
    pub(super) fn write(
        &self,
        host: HeaderValue,
        origin: HeaderValue,
        keys: &[AccessKey],
    ) -> (Headers, Bytes) {
        let Self { hub, connection, user, facts, has_cookies, event, unix_seconds } = self;
        let id = connection.to_string();
        let (kind, data, body) = content(event);
        let mut headers = Headers::new();
        headers.put_value(header::HOST, host);
        headers.put_value(SPEC_VERSION, SPEC_VERSION_VALUE);
        headers.put_value(AWPS_VERSION, AWPS_VERSION_VALUE);
        headers.put_shown(TYPE, kind.ce_type());
        headers.put_shown(SOURCE, cloud_event::source(hub, &id));
        headers.put_value(ID, facts.sequence.into());
        headers.put(TIME, &cloud_event::ce_time(*unix_seconds));
        headers.put(SIGNATURE, &signature::sign(keys, &id));
        headers.put(CONNECTION_ID, &id);
        headers.put(HUB, hub.as_str());
        headers.put(EVENT_NAME, kind.event_name());
        if let Some(user) = user {
            headers.put(USER_ID, user.as_str());
        }
        if let Some(subprotocol) = &facts.subprotocol {
            headers.put(SUBPROTOCOL, subprotocol);
        }
        if let Some(state) = &facts.state {
            headers.put(CONNECTION_STATE, state);
        }
        headers.put_value(REQUEST_ORIGIN, origin);
        if let Event::User(user) = event {
            put_metadata(&mut headers, &user.metadata);
        }
        if let Some(cookies) = facts.cookies.as_ref().filter(|_| *has_cookies) {
            headers.put(header::COOKIE, cookies);
        }
        headers.put_value(header::CONTENT_TYPE, HeaderValue::from_static(data.content_type()));
        (headers, body)
    }
}

fn put_metadata(headers: &mut Headers, metadata: &Metadata) {
    for (key, value) in metadata.pairs() {
        // A key is an HTTP token.
        if let Ok(name) = HeaderName::try_from(format!("{METADATA_PREFIX}{key}")) {
            headers.put(name, value);
        }
    }
}

/// Returns what an event is to an upstream. The preview's events go there only if a hub mixes up its doors: they become what is
/// nearest to them.
fn content(event: &Event) -> (EventKind<'_>, DataKind, Bytes) {
    let json = |kind, body| (kind, DataKind::Json, body);
    match event {
        Event::Connecting(request) => json(EventKind::Connect, request.to_json()),
        Event::Connect { subprotocols } => {
            let subprotocols = subprotocols.clone();
            let request = ConnectRequest { subprotocols, ..ConnectRequest::default() };
            json(EventKind::Connect, request.to_json())
        }
        Event::Connected => json(EventKind::Connected, Bytes::from_static(b"{}")),
        Event::User(user) => (EventKind::User(&user.name), user.data.kind, user.data.bytes.clone()),
        Event::Message(message) => {
            let kind = match message.kind {
                MessageKind::Text => DataKind::Text,
                MessageKind::Binary => DataKind::Binary,
            };
            (EventKind::User("message"), kind, message.data.clone())
        }
        Event::Disconnected { reason } => {
            json(EventKind::Disconnected, cloud_event::disconnected_body(reason))
        }
        Event::Disconnect => json(EventKind::Disconnected, cloud_event::disconnected_body("")),
        Event::Joined(group) => json(EventKind::Joined, cloud_event::presence_body(group.as_str())),
        Event::Left(group) => json(EventKind::Left, cloud_event::presence_body(group.as_str())),
    }
}
