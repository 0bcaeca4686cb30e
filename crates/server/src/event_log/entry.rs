//! One entry of the event log, and how it is told.

use std::sync::Arc;
use std::time::Duration;

use hookwire_proto::name::{ConnectionId, HubName, UserId};
use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::millis;
use crate::http::unix_time;
use crate::time::rfc3339;

/// Longest URL, in bytes; what is longer is cut.
const URL_BYTES_MAX: usize = 512;

/// Longest reason, in bytes.
const REASON_BYTES_MAX: usize = 600;

/// Longest name of a user or an event, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// What an entry takes besides its texts, in bytes: the records and the places in rings, rounded up.
const ENTRY_BYTES: usize = 384;

/// An entry with its number. Numbers grow with time.
#[derive(Debug)]
pub(crate) struct Record {
    pub(crate) id: u64,
    pub(crate) entry: Entry,
}

/// What became of a call, or why somebody was refused.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    /// When it ended, since 1970.
    time: Duration,
    pub(super) hub: Option<HubName>,
    dialect: Option<Dialect>,
    connection: Option<ConnectionId>,
    user: Option<Box<str>>,
    pub(crate) kind: Kind,
    pub(crate) event: Box<str>,
    pub(crate) url: Option<Box<str>>,
    /// The upstream's answer, or that of the service.
    pub(crate) status: Option<u16>,
    pub(crate) duration: Option<Duration>,
    /// How often the upstream was asked.
    pub(crate) attempts: u32,
    pub(crate) ok: bool,
    /// A word for programs.
    pub(crate) verdict: &'static str,
    pub(crate) reason: Option<Box<str>>,
}

/// Which door the entry's connection or caller came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    Preview,
    WebPubSub,
}

/// What an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// An upstream was asked whether it wants events.
    Validation,
    /// Calls with events of this kind.
    Connect,
    Connected,
    Message,
    User,
    Disconnected,
    /// A member of a group came or went.
    Presence,
    /// A copy of an event.
    Listener,
    /// A client was not let in.
    Handshake,
    /// A caller of an API was refused.
    Rest,
}

impl Kind {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Validation => "validation",
            Self::Connect => "connect",
            Self::Connected => "connected",
            Self::Message => "message",
            Self::User => "user",
            Self::Disconnected => "disconnected",
            Self::Presence => "presence",
            Self::Listener => "listener",
            Self::Handshake => "handshake",
            Self::Rest => "rest",
        }
    }

    /// Whether anybody who reaches the service can cause such an entry.
    pub(super) const fn is_refusal(self) -> bool {
        match self {
            Self::Handshake | Self::Rest => true,
            Self::Validation
            | Self::Connect
            | Self::Connected
            | Self::Message
            | Self::User
            | Self::Disconnected
            | Self::Presence
            | Self::Listener => false,
        }
    }
}

impl Dialect {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Preview => "preview",
            Self::WebPubSub => "webPubSub",
        }
    }
}

impl Entry {
    /// Returns an entry of this moment about something that went well.
    pub(crate) fn new(kind: Kind, event: &str) -> Self {
        Self {
            time: unix_time(),
            hub: None,
            dialect: None,
            connection: None,
            user: None,
            kind,
            event: cut(event, NAME_BYTES_MAX),
            url: None,
            status: None,
            duration: None,
            attempts: 1,
            ok: true,
            verdict: "delivered",
            reason: None,
        }
    }

    pub(crate) fn user(mut self, user: Option<&UserId>) -> Self {
        self.user = user.map(|user| cut(user.as_str(), NAME_BYTES_MAX));
        self
    }

    /// `url`: without its query, which may hold a secret.
    pub(crate) fn url(mut self, url: &str) -> Self {
        self.url = Some(cut(url.split(['?', '#']).next().unwrap_or_default(), URL_BYTES_MAX));
        self
    }

    /// Says whom it concerns.
    pub(crate) fn of(
        mut self,
        hub: Option<&HubName>,
        dialect: Option<Dialect>,
        connection: Option<ConnectionId>,
    ) -> Self {
        (self.hub, self.dialect, self.connection) = (hub.cloned(), dialect, connection);
        self
    }

    pub(crate) fn took(mut self, duration: Duration, attempts: u32) -> Self {
        (self.duration, self.attempts) = (Some(duration), attempts);
        self
    }

    pub(crate) fn status(mut self, status: Option<u16>) -> Self {
        self.status = status;
        self
    }

    /// Says what it came to: a word for programs, and a sentence for people if there is something to say.
    pub(crate) fn came_to(mut self, ok: bool, verdict: &'static str, reason: Option<&str>) -> Self {
        (self.ok, self.verdict) = (ok, verdict);
        self.reason = reason.map(|reason| cut(reason, REASON_BYTES_MAX));
        self
    }
}

impl Record {
    /// Returns about how much memory the record takes.
    pub(super) fn bytes(&self) -> usize {
        let Entry { user, event, url, reason, .. } = &self.entry;
        let optional = [user, url, reason];
        let texts: usize = optional.iter().filter_map(|text| text.as_deref()).map(str::len).sum();
        ENTRY_BYTES + event.len() + texts
    }
}

/// Returns the beginning of a text.
fn cut(text: &str, bytes_max: usize) -> Box<str> {
    const ELLIPSIS: &str = "…";
    if text.len() <= bytes_max {
        return text.into();
    }
    let end = text.floor_char_boundary(bytes_max - ELLIPSIS.len());
    format!("{}{ELLIPSIS}", &text[..end]).into()
}

impl Serialize for Record {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let entry = &self.entry;
        let mut object = serializer.serialize_struct("Event", 15)?;
        object.serialize_field("id", &self.id)?;
        object.serialize_field("time", &rfc3339(entry.time))?;
        object.serialize_field("hub", &entry.hub.as_ref().map(HubName::as_str))?;
        object.serialize_field("dialect", &entry.dialect.map(Dialect::as_str))?;
        let connection = entry.connection.map(|connection| connection.to_string());
        object.serialize_field("connectionId", &connection)?;
        object.serialize_field("userId", &entry.user)?;
        object.serialize_field("kind", entry.kind.as_str())?;
        object.serialize_field("event", &entry.event)?;
        object.serialize_field("url", &entry.url)?;
        object.serialize_field("status", &entry.status)?;
        object.serialize_field("durationMs", &entry.duration.map(millis))?;
        object.serialize_field("attempts", &entry.attempts)?;
        object.serialize_field("ok", &entry.ok)?;
        object.serialize_field("verdict", entry.verdict)?;
        object.serialize_field("reason", &entry.reason)?;
        object.end()
    }
}

/// Returns a record as a line of JSON.
pub(super) fn line(record: &Arc<Record>) -> String {
    serde_json::to_string(&**record).expect("texts and numbers become JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_told_with_all_its_properties_and_without_a_query() {
        let mut entry = Entry::new(Kind::User, "order")
            .user(Some(&UserId::parse("ann").unwrap()))
            .url("http://h/e?code=secret")
            .of(Some(&HubName::parse("chat").unwrap()), Some(Dialect::WebPubSub), None)
            .took(Duration::from_micros(12_345), 3)
            .status(Some(503))
            .came_to(false, "upstream_failed", Some("why"));
        entry.time = Duration::from_millis(1_700_000_000_123);
        assert_eq!(
            line(&Arc::new(Record { id: 7, entry })),
            "{\"id\":7,\"time\":\"2023-11-14T22:13:20.123Z\",\"hub\":\"chat\",\"dialect\":\"webPubSub\",\"connectionId\":null,\
             \"userId\":\"ann\",\"kind\":\"user\",\"event\":\"order\",\"url\":\"http://h/e\",\"status\":503,\"durationMs\":12.345,\
             \"attempts\":3,\"ok\":false,\"verdict\":\"upstream_failed\",\"reason\":\"why\"}"
        );
    }

    #[test]
    fn texts_are_cut_where_a_character_ends() {
        assert_eq!(&*cut("ä", 2), "ä");
        assert_eq!(&*cut(&"ä".repeat(4), 7), "ää…");
        let entry = Entry::new(Kind::Rest, &"x".repeat(9_999)).url(&"y".repeat(9_999));
        let record = Record { id: 1, entry: entry.came_to(false, "x", Some(&"z".repeat(9_999))) };
        assert_eq!(record.bytes(), ENTRY_BYTES + NAME_BYTES_MAX + URL_BYTES_MAX + REASON_BYTES_MAX);
    }
}
