//! CloudEvents as upstreams of Web PubSub get and answer them, without HTTP (Web PubSub protocol, "Requests in general" to "Group
//! presence events").

mod connect;
mod time;

use std::fmt;

use bytes::Bytes;
use serde::Serialize;

pub use self::connect::{
    ANSWER_LIST_MAX, ClientCertificate, ConnectAnswer, ConnectAnswerError, ConnectRequest,
};
pub use self::time::ce_time;
use crate::handler::UpstreamEvent;
use crate::name::HubName;

/// What an event tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind<'a> {
    /// A client wants in.
    Connect,
    /// A client is in.
    Connected,
    /// A connection is over.
    Disconnected,
    /// A connection became a member of a group.
    Joined,
    /// A connection is no member of a group any more.
    Left,
    /// A client raised an event of that name.
    User(&'a str),
}

impl<'a> EventKind<'a> {
    /// Returns the value of `ce-eventName` and of `{event}` in URLs.
    pub const fn event_name(self) -> &'a str {
        match self {
            Self::Connect => "connect",
            Self::Connected => "connected",
            Self::Disconnected => "disconnected",
            Self::Joined => "joined",
            Self::Left => "left",
            Self::User(name) => name,
        }
    }

    /// Returns what shows itself as the value of `ce-type`.
    pub fn ce_type(self) -> impl fmt::Display {
        let category = match self {
            Self::Connect | Self::Connected | Self::Disconnected => "sys",
            Self::Joined | Self::Left => "gp",
            Self::User(_) => "user",
        };
        fmt::from_fn(move |f| write!(f, "azure.webpubsub.{category}.{}", self.event_name()))
    }

    /// Whether somebody waits for the answer.
    pub const fn is_blocking(self) -> bool {
        matches!(self, Self::Connect | Self::User(_))
    }
}

impl<'a> From<UpstreamEvent<'a>> for EventKind<'a> {
    fn from(event: UpstreamEvent<'a>) -> Self {
        match event {
            UpstreamEvent::Connect => Self::Connect,
            UpstreamEvent::Connected => Self::Connected,
            UpstreamEvent::Disconnected => Self::Disconnected,
            UpstreamEvent::User(name) => Self::User(name),
            UpstreamEvent::Joined(_) => Self::Joined,
            UpstreamEvent::Left(_) => Self::Left,
        }
    }
}

/// Returns what shows itself as the value of `ce-source` of a connection.
pub fn source(hub: &HubName, connection_id: &str) -> impl fmt::Display {
    fmt::from_fn(move |f| write!(f, "/hubs/{hub}/client/{connection_id}"))
}

/// Returns the body of `disconnected`.
pub fn disconnected_body(reason: &str) -> Bytes {
    #[derive(Serialize)]
    struct Body<'a> {
        reason: &'a str,
    }
    json(&Body { reason })
}

/// Returns the body of `joined` and `left`.
pub fn presence_body(group: &str) -> Bytes {
    #[derive(Serialize)]
    struct Body<'a> {
        group: &'a str,
    }
    json(&Body { group })
}

fn json(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).expect("texts and maps of texts can always be written").into()
}

/// Whether the values of `WebHook-Allowed-Origin` name `origin`, a host with or without a port: as `*`, or in lists with or without a
/// port, in any case (Web PubSub protocol, "Abuse protection"). The names of this machine are one host.
pub fn is_origin_allowed<'a>(
    header_values: impl IntoIterator<Item = &'a str>,
    origin: &str,
) -> bool {
    let origin = host(origin);
    header_values.into_iter().flat_map(|value| value.split(',')).map(str::trim).any(|allowed| {
        let allowed = host(allowed);
        allowed == "*"
            || !allowed.is_empty()
                && (allowed.eq_ignore_ascii_case(origin)
                    || is_this_machine(allowed) && is_this_machine(origin))
    })
}

/// Returns what stands before the port.
fn host(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port))
            if port.bytes().all(|byte| byte.is_ascii_digit())
                && (host.ends_with(']') || !host.contains(':')) =>
        {
            host
        }
        _ => authority,
    }
}

fn is_this_machine(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || matches!(host, "127.0.0.1" | "[::1]" | "::1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::{ConnectionId, GroupName};

    #[test]
    fn kinds_have_their_documented_names() {
        let named = |kind: EventKind<'static>| (kind.ce_type().to_string(), kind.event_name());
        for (kind, ce_type, name) in [
            (EventKind::Connect, "azure.webpubsub.sys.connect", "connect"),
            (EventKind::Connected, "azure.webpubsub.sys.connected", "connected"),
            (EventKind::Disconnected, "azure.webpubsub.sys.disconnected", "disconnected"),
            (EventKind::Joined, "azure.webpubsub.gp.joined", "joined"),
            (EventKind::Left, "azure.webpubsub.gp.left", "left"),
            (EventKind::User("Order.paid"), "azure.webpubsub.user.Order.paid", "Order.paid"),
        ] {
            assert_eq!(named(kind), (ce_type.to_owned(), name));
        }
        let group = GroupName::parse("g").unwrap();
        assert_eq!(EventKind::from(UpstreamEvent::Left(&group)), EventKind::Left);
        assert_eq!(EventKind::from(UpstreamEvent::User("u")), EventKind::User("u"));
        assert!(EventKind::User("u").is_blocking() && EventKind::Connect.is_blocking());
        assert!(!EventKind::Connected.is_blocking() && !EventKind::Joined.is_blocking());
    }

    #[test]
    fn sources_and_bodies_are_as_documented() {
        let id = ConnectionId::new(1, 2, [3; 16]);
        let hub = HubName::parse("Chat").unwrap();
        let source = source(&hub, &id.to_string()).to_string();
        assert_eq!(source, format!("/hubs/chat/client/{id}"));
        assert_eq!(disconnected_body("a \"b\"\n"), &br#"{"reason":"a \"b\"\n"}"#[..]);
        assert_eq!(presence_body("ä"), "{\"group\":\"ä\"}".as_bytes());
    }

    #[test]
    fn origins_are_compared_as_the_libraries_answer_them() {
        let allowed = |values: &[&str], origin| is_origin_allowed(values.iter().copied(), origin);
        assert!(allowed(&["*"], "h.example"));
        assert!(allowed(&["H.example"], "h.EXAMPLE"));
        assert!(allowed(&["other", "a.example:80 , h.example:8080"], "h.example"));
        assert!(allowed(&["h.example"], "h.example:8080"));
        assert!(allowed(&["localhost:8080"], "127.0.0.1"));
        assert!(allowed(&["127.0.0.1"], "[::1]:8080"));
        assert!(allowed(&["[2001:db8::1]:80"], "[2001:db8::1]"));
        for values in [
            &[][..],
            &[""],
            &[","],
            &["null"],
            &["*.example"],
            &["h.example.evil"],
            &["evil-h.example"],
            &["h.example:port"],
            &["2001:db8::1"],
        ] {
            assert!(!allowed(values, "h.example"), "{values:?}");
        }
        assert!(!allowed(&[""], ""));
        assert!(!allowed(&["localhost"], "h.example"));
    }
}
