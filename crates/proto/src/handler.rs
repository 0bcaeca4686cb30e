//! Settings of hubs for Web PubSub: who may come in, and which upstream gets which event (Web PubSub protocol, "Hub settings",
//! "Group presence events", "Event listeners").
//!
//! Settings are checked values: [`HubSettings::parse`] reads what people write and reports every fault together.

mod auth;
mod document;
mod event;
mod presence;
mod url;
mod written;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

pub use self::auth::{AuthFault, BearerSource, ClientCredentials, HandlerAuth, Secret};
pub use self::document::{
    AuthDocument, EventHandlerDocument, EventListenerDocument, HANDLER_TIMEOUT_SECONDS_MAX,
    HANDLERS_MAX, HubDocument, LISTENERS_MAX, PresenceDocument, SettingError, SettingFault,
};
pub use self::event::{
    EVENT_NAME_BYTES_MAX, EVENT_PATTERN_BYTES_MAX, EventPattern, EventPatternFault,
    SystemEventFault, SystemEvents, is_event_name,
};
pub use self::presence::{GROUP_FILTERS_MAX, GroupFilter, GroupFilterFault, PresenceEvents};
pub use self::url::HandlerUrl;
pub use self::written::Secrets;
use crate::deflate::Compression;
use crate::name::{GroupName, HubName};

/// The settings of all hubs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HubsSettings {
    /// For hubs that are not listed.
    pub defaults: Arc<HubSettings>,
    /// The listed hubs; each stands alone, whatever it inherited was filled in before.
    pub hubs: BTreeMap<HubName, Arc<HubSettings>>,
}

impl HubsSettings {
    /// Returns the settings of a hub, listed or not.
    pub fn hub(&self, hub: &HubName) -> &Arc<HubSettings> {
        self.hubs.get(hub).unwrap_or(&self.defaults)
    }
}

/// The settings of one hub. By default clients without a token are refused and nobody is told of anything.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HubSettings {
    /// Whether clients without a token are let in.
    pub anonymous_connect: bool,
    /// Who handles events, in order of precedence.
    pub handlers: Vec<Arc<EventHandler>>,
    /// Who gets copies of events; every one that matches.
    pub listeners: Vec<Arc<EventListener>>,
    /// Which comings and goings of group members are events.
    pub presence: PresenceEvents,
    /// How messages are compressed for clients that want it, whichever door they come through; absent: not at all.
    pub compression: Option<Compression>,
}

/// Where events of some kinds go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventHandler {
    /// Where to.
    pub url: HandlerUrl,
    /// Which events of clients.
    pub user_events: EventPattern,
    /// Which events of connections.
    pub system_events: SystemEvents,
    /// How the service proves who it is.
    pub auth: HandlerAuth,
    /// How long a blocking call may take, retries included; absent: as the server is configured.
    pub timeout: Option<Duration>,
}

/// Where copies of events of some kinds go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventListener {
    /// Where to.
    pub url: HandlerUrl,
    /// Which events of clients.
    pub user_events: EventPattern,
    /// Which events of connections; never `connect`, which asks something.
    pub system_events: SystemEvents,
}

/// An event on its way to its upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UpstreamEvent<'a> {
    /// A client wants in.
    Connect,
    /// A client is in.
    Connected,
    /// A connection is over.
    Disconnected,
    /// A client raised an event of that name.
    User(&'a str),
    /// A connection became a member of a group.
    Joined(&'a GroupName),
    /// A connection is no member of a group any more.
    Left(&'a GroupName),
}

impl HubSettings {
    /// Returns who handles an event: the first handler that wants it.
    ///
    /// Ours, since the protocol does not say it: what [`HubSettings::presence`] lets through goes to the first handler that takes any
    /// system event or, by `*`, any user event.
    pub fn handler(&self, event: UpstreamEvent<'_>) -> Option<&Arc<EventHandler>> {
        let is_event = match event {
            UpstreamEvent::Joined(group) => self.presence.joined && self.presence.concern(group),
            UpstreamEvent::Left(group) => self.presence.left && self.presence.concern(group),
            UpstreamEvent::Connect
            | UpstreamEvent::Connected
            | UpstreamEvent::Disconnected
            | UpstreamEvent::User(_) => true,
        };
        self.handlers.iter().find(|handler| is_event && handler.wants(event))
    }

    /// Returns who gets a copy of an event, in the order of the settings.
    pub fn listeners_for<'a>(
        &'a self,
        event: UpstreamEvent<'a>,
    ) -> impl Iterator<Item = &'a Arc<EventListener>> {
        self.listeners.iter().filter(move |listener| listener.wants(event))
    }
}

impl EventHandler {
    fn wants(&self, event: UpstreamEvent<'_>) -> bool {
        match event {
            UpstreamEvent::Connect => self.system_events.connect,
            UpstreamEvent::Connected => self.system_events.connected,
            UpstreamEvent::Disconnected => self.system_events.disconnected,
            UpstreamEvent::User(name) => self.user_events.matches(name),
            UpstreamEvent::Joined(_) | UpstreamEvent::Left(_) => {
                self.system_events != SystemEvents::default() || self.user_events.is_any()
            }
        }
    }
}

impl EventListener {
    fn wants(&self, event: UpstreamEvent<'_>) -> bool {
        match event {
            UpstreamEvent::Connected => self.system_events.connected,
            UpstreamEvent::Disconnected => self.system_events.disconnected,
            UpstreamEvent::User(name) => self.user_events.matches(name),
            UpstreamEvent::Connect | UpstreamEvent::Joined(_) | UpstreamEvent::Left(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: &str) -> GroupName {
        GroupName::parse(name).unwrap()
    }

    fn hub(json: &str) -> HubSettings {
        HubSettings::parse(&serde_json::from_str(json).unwrap()).unwrap()
    }

    fn handled(hub: &HubSettings, event: UpstreamEvent<'_>) -> Option<String> {
        let name = HubName::parse("chat").unwrap();
        Some(hub.handler(event)?.url.url(&name, "e"))
    }

    #[test]
    fn a_hub_without_settings_refuses_the_nameless_and_tells_nobody() {
        let hub = HubSettings::default();
        assert!(!hub.anonymous_connect);
        let group = group("g");
        for event in [
            UpstreamEvent::Connect,
            UpstreamEvent::Connected,
            UpstreamEvent::Disconnected,
            UpstreamEvent::User("message"),
            UpstreamEvent::Joined(&group),
            UpstreamEvent::Left(&group),
        ] {
            assert_eq!(hub.handler(event), None);
            assert_eq!(hub.listeners_for(event).count(), 0);
        }
    }

    #[test]
    fn the_first_handler_that_wants_an_event_gets_it() {
        let hub = hub(r#"{"eventHandlers": [
            {"urlTemplate": "http://a/", "systemEvents": ["connect"], "userEventPattern": "order"},
            {"urlTemplate": "http://b/", "systemEvents": ["connect", "connected"], "userEventPattern": "order,pay"},
            {"urlTemplate": "http://c/", "userEventPattern": "*"}]}"#);
        let handled = |event| handled(&hub, event);
        assert_eq!(handled(UpstreamEvent::Connect).as_deref(), Some("http://a/"));
        assert_eq!(handled(UpstreamEvent::Connected).as_deref(), Some("http://b/"));
        assert_eq!(handled(UpstreamEvent::Disconnected), None);
        assert_eq!(handled(UpstreamEvent::User("order")).as_deref(), Some("http://a/"));
        assert_eq!(handled(UpstreamEvent::User("pay")).as_deref(), Some("http://b/"));
        assert_eq!(handled(UpstreamEvent::User("connect")).as_deref(), Some("http://c/"));
    }

    #[test]
    fn presence_goes_to_the_first_handler_that_takes_events_at_large() {
        let mut hub = hub(r#"{"eventHandlers": [
            {"urlTemplate": "http://a/", "userEventPattern": "order"},
            {"urlTemplate": "http://b/", "systemEvents": ["connect"]},
            {"urlTemplate": "http://c/", "userEventPattern": "*"}],
            "groupPresenceEvents": {"eventNames": ["joined"], "groupFilters": ["room*"]}}"#);
        let (room, other) = (group("room1"), group("lobby"));
        assert_eq!(handled(&hub, UpstreamEvent::Joined(&room)).as_deref(), Some("http://b/"));
        assert_eq!(handled(&hub, UpstreamEvent::Joined(&other)), None);
        assert_eq!(handled(&hub, UpstreamEvent::Left(&room)), None);
        hub.handlers.remove(1);
        assert_eq!(handled(&hub, UpstreamEvent::Joined(&room)).as_deref(), Some("http://c/"));
        hub.handlers.pop();
        assert_eq!(handled(&hub, UpstreamEvent::Joined(&room)), None);
    }

    #[test]
    fn every_listener_that_matches_gets_a_copy() {
        let hub = hub(r#"{"eventListeners": [
            {"urlTemplate": "http://a/", "systemEvents": ["connected"]},
            {"urlTemplate": "http://b/", "systemEvents": ["connected", "disconnected"], "userEventPattern": "*"}]}"#);
        let room = group("room");
        let copies = |event| hub.listeners_for(event).count();
        assert_eq!(copies(UpstreamEvent::Connected), 2);
        assert_eq!(copies(UpstreamEvent::Disconnected), 1);
        assert_eq!(copies(UpstreamEvent::User("x")), 1);
        assert_eq!(copies(UpstreamEvent::Connect), 0);
        assert_eq!(copies(UpstreamEvent::Joined(&room)), 0);
    }

    #[test]
    fn hubs_that_are_not_listed_have_the_defaults() {
        let open = Arc::new(HubSettings { anonymous_connect: true, ..HubSettings::default() });
        let chat = HubName::parse("chat").unwrap();
        let settings = HubsSettings {
            hubs: BTreeMap::from([(chat.clone(), Arc::clone(&open))]),
            ..HubsSettings::default()
        };
        assert!(settings.hub(&chat).anonymous_connect);
        assert!(!settings.hub(&HubName::parse("other").unwrap()).anonymous_connect);
    }
}
