//! Settings as people write them.

use std::sync::Arc;
use std::time::Duration;

use serde::Deserialize;

use super::{
    AuthFault, BearerSource, ClientCredentials, EventHandler, EventListener, EventPattern,
    EventPatternFault, GROUP_FILTERS_MAX, GroupFilter, GroupFilterFault, HandlerAuth, HandlerUrl,
    HubSettings, PresenceEvents, Secret, SystemEventFault, SystemEvents,
};
use crate::template::TemplateFault;

/// Most handlers of one hub. Ours.
pub const HANDLERS_MAX: usize = 256;

/// Most listeners of one hub, each of which gets a copy of every event. Ours.
pub const LISTENERS_MAX: usize = 16;

/// Longest time, in seconds, that a handler may be given for an event. Ours.
pub const HANDLER_TIMEOUT_SECONDS_MAX: u64 = 3_600;

/// The settings of one hub as people write them: JSON with camel case, TOML with snake case. Unknown properties are refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct HubDocument {
    /// Clients without a token: `allow` or `deny`; absent: `deny`.
    #[serde(alias = "anonymous_connect", alias = "anonymousConnectPolicy")]
    pub anonymous_connect: Option<String>,
    /// In order of precedence.
    #[serde(alias = "event_handlers")]
    pub event_handlers: Vec<EventHandlerDocument>,
    /// All that match get a copy.
    #[serde(alias = "event_listeners")]
    pub event_listeners: Vec<EventListenerDocument>,
    /// Absent: none.
    #[serde(alias = "group_presence_events")]
    pub group_presence_events: Option<PresenceDocument>,
}

/// A handler as people write it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EventHandlerDocument {
    /// Where to, with `{hub}` and `{event}`.
    #[serde(alias = "url_template")]
    pub url_template: String,
    /// Absent: no user event.
    #[serde(alias = "user_event_pattern")]
    pub user_event_pattern: Option<String>,
    /// Of `connect`, `connected`, `disconnected`.
    #[serde(alias = "system_events")]
    pub system_events: Vec<String>,
    /// Absent: none.
    pub auth: Option<AuthDocument>,
    /// Absent: as the server is configured.
    #[serde(alias = "timeout_seconds")]
    pub timeout_seconds: Option<u64>,
}

/// A proof as people write it: `{"type": "bearer", "file": "…"}`, or with `tokenUrl`, `clientId`, `clientSecret` and `scope`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct AuthDocument {
    /// `none` or `bearer`.
    pub r#type: String,
    /// A file with the token.
    pub file: Option<String>,
    /// An authorization server's token endpoint.
    #[serde(alias = "token_url")]
    pub token_url: Option<String>,
    /// Who asks it.
    #[serde(alias = "client_id")]
    pub client_id: Option<String>,
    /// The proof.
    #[serde(alias = "client_secret")]
    pub client_secret: Option<Secret>,
    /// What for.
    pub scope: Option<String>,
}

/// A listener as people write it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct EventListenerDocument {
    /// Where to, with `{hub}` and `{event}`.
    #[serde(alias = "url_template")]
    pub url_template: String,
    /// Absent: no user event.
    #[serde(alias = "user_event_pattern")]
    pub user_event_pattern: Option<String>,
    /// Of `connected`, `disconnected`.
    #[serde(alias = "system_events")]
    pub system_events: Vec<String>,
}

/// Group presence as people write it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct PresenceDocument {
    /// Of `joined`, `left`.
    #[serde(alias = "event_names")]
    pub event_names: Vec<String>,
    /// Names and prefixes of groups.
    #[serde(alias = "group_filters")]
    pub group_filters: Vec<String>,
}

/// A fault in the settings, with the place where it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{property}: {fault}", place.map_or(String::new(), |(list, index)| format!("{list}[{index}].")))]
pub struct SettingError {
    /// In which list and entry of the hub, from 0; absent: in none.
    pub place: Option<(&'static str, usize)>,
    /// Which property, in the spelling of the JSON document.
    pub property: &'static str,
    /// What is wrong with it.
    pub fault: SettingFault,
}

/// What is wrong with a setting. No text shows a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettingFault {
    /// Of a URL template.
    #[error(transparent)]
    Url(#[from] TemplateFault),
    /// Of the URL of a listener.
    #[error("must be http:// or https://: copies do not go through a tunnel")]
    Tunnel,
    /// Of a pattern of events.
    #[error(transparent)]
    Pattern(#[from] EventPatternFault),
    /// Of a list of system events.
    #[error(transparent)]
    SystemEvent(#[from] SystemEventFault),
    /// Of group presence.
    #[error(transparent)]
    Presence(#[from] GroupFilterFault),
    /// Of a proof.
    #[error(transparent)]
    Auth(#[from] AuthFault),
    /// Of the policy for clients without a token.
    #[error("{0:?} is not one of allow, deny")]
    Policy(String),
    /// Of a time.
    #[error("must be 1 to {HANDLER_TIMEOUT_SECONDS_MAX} seconds")]
    Timeout,
    /// Of a list.
    #[error("only {0} entries are allowed")]
    TooMany(usize),
}

/// Collects faults, so that all are reported together.
#[derive(Default)]
struct Faults(Vec<SettingError>);

impl Faults {
    /// Returns the value, or its default after keeping the fault.
    fn take<T: Default, E: Into<SettingFault>>(
        &mut self,
        property: &'static str,
        result: Result<T, E>,
    ) -> T {
        result.unwrap_or_else(|fault| {
            self.0.push(SettingError { place: None, property, fault: fault.into() });
            T::default()
        })
    }

    /// Returns the value if there was no fault. It is absent only if there was one.
    fn finish<T>(self, value: Option<T>) -> Result<T, Vec<SettingError>> {
        match value {
            Some(value) if self.0.is_empty() => Ok(value),
            _ => Err(self.0),
        }
    }
}

impl HubSettings {
    /// Returns the checked form of `document`.
    ///
    /// # Errors
    /// Every fault of the document.
    pub fn parse(document: &HubDocument) -> Result<Self, Vec<SettingError>> {
        let mut faults = Faults::default();
        let policy = match document.anonymous_connect.as_deref().unwrap_or("deny") {
            policy if policy.eq_ignore_ascii_case("allow") => Ok(true),
            policy if policy.eq_ignore_ascii_case("deny") => Ok(false),
            policy => Err(SettingFault::Policy(policy.to_owned())),
        };
        let anonymous_connect = faults.take("anonymousConnect", policy);
        let handlers = parse_list(
            &mut faults,
            ("eventHandlers", HANDLERS_MAX),
            &document.event_handlers,
            EventHandler::parse,
        );
        let listeners = parse_list(
            &mut faults,
            ("eventListeners", LISTENERS_MAX),
            &document.event_listeners,
            EventListener::parse,
        );
        let presence = document
            .group_presence_events
            .as_ref()
            .map_or(Ok(PresenceEvents::default()), PresenceEvents::parse);
        let presence = faults.take("groupPresenceEvents", presence);
        faults.finish(Some(Self {
            anonymous_connect,
            handlers,
            listeners,
            presence,
            compression: None,
        }))
    }
}

fn parse_list<Document, T>(
    faults: &mut Faults,
    (list, limit): (&'static str, usize),
    documents: &[Document],
    parse: impl Fn(&Document) -> Result<T, Vec<SettingError>>,
) -> Vec<Arc<T>> {
    if limit < documents.len() {
        faults.take::<(), _>(list, Err(SettingFault::TooMany(limit)));
        return Vec::new();
    }
    let mut values = Vec::with_capacity(documents.len());
    for (index, document) in documents.iter().enumerate() {
        match parse(document) {
            Ok(value) => values.push(Arc::new(value)),
            Err(errors) => faults.0.extend(
                errors
                    .into_iter()
                    .map(|error| SettingError { place: Some((list, index)), ..error }),
            ),
        }
    }
    values
}

impl EventHandler {
    /// Returns the checked form of `document`.
    ///
    /// # Errors
    /// Every fault of the document, without a place.
    pub fn parse(document: &EventHandlerDocument) -> Result<Self, Vec<SettingError>> {
        let mut faults = Faults::default();
        let url = faults.take("urlTemplate", HandlerUrl::parse(&document.url_template).map(Some));
        let pattern = document.user_event_pattern.as_deref().unwrap_or_default();
        let user_events = faults.take("userEventPattern", EventPattern::parse(pattern));
        let names = document.system_events.iter().map(String::as_str);
        let system_events = faults.take("systemEvents", SystemEvents::parse(names));
        let auth = document.auth.as_ref().map_or(Ok(HandlerAuth::None), HandlerAuth::parse);
        let auth = faults.take("auth", auth);
        let timeout = match document.timeout_seconds {
            None => Ok(None),
            Some(seconds @ 1..=HANDLER_TIMEOUT_SECONDS_MAX) => {
                Ok(Some(Duration::from_secs(seconds)))
            }
            Some(_) => Err(SettingFault::Timeout),
        };
        let timeout = faults.take("timeoutSeconds", timeout);
        let handler = url.map(|url| Self { url, user_events, system_events, auth, timeout });
        faults.finish(handler)
    }
}

impl EventListener {
    /// Returns the checked form of `document`.
    ///
    /// # Errors
    /// Every fault of the document, without a place.
    pub fn parse(document: &EventListenerDocument) -> Result<Self, Vec<SettingError>> {
        let mut faults = Faults::default();
        let url = faults.take("urlTemplate", Self::parse_url(&document.url_template).map(Some));
        let pattern = document.user_event_pattern.as_deref().unwrap_or_default();
        let user_events = faults.take("userEventPattern", EventPattern::parse(pattern));
        let names = document.system_events.iter().map(String::as_str);
        let system_events = faults.take("systemEvents", SystemEvents::parse_for_listener(names));
        let listener = url.map(|url| Self { url, user_events, system_events });
        faults.finish(listener)
    }

    /// Parses the URL of a listener.
    ///
    /// # Errors
    /// That of [`HandlerUrl::parse`], or [`SettingFault::Tunnel`].
    pub fn parse_url(raw: &str) -> Result<HandlerUrl, SettingFault> {
        let url = HandlerUrl::parse(raw)?;
        if url.is_tunnel() { Err(SettingFault::Tunnel) } else { Ok(url) }
    }
}

impl PresenceEvents {
    /// Returns the checked form of `document`.
    ///
    /// # Errors
    /// The first fault of the document.
    pub fn parse(document: &PresenceDocument) -> Result<Self, GroupFilterFault> {
        let mut events = Self::default();
        for name in &document.event_names {
            match name.to_ascii_lowercase().as_str() {
                "joined" => events.joined = true,
                "left" => events.left = true,
                _ => return Err(GroupFilterFault::Event(name.clone())),
            }
        }
        if GROUP_FILTERS_MAX < document.group_filters.len() {
            return Err(GroupFilterFault::TooMany);
        }
        let filters = document.group_filters.iter().map(|filter| GroupFilter::parse(filter));
        events.groups = filters.collect::<Result<_, _>>()?;
        Ok(events)
    }
}

impl HandlerAuth {
    /// Returns the checked form of `document`.
    ///
    /// # Errors
    /// The first fault of the document.
    pub fn parse(document: &AuthDocument) -> Result<Self, AuthFault> {
        let kind = document.r#type.as_str();
        if kind.eq_ignore_ascii_case("none") {
            return Ok(Self::None);
        }
        if !kind.eq_ignore_ascii_case("bearer") {
            return Err(AuthFault::Type(kind.to_owned()));
        }
        let AuthDocument { file, token_url, client_id, client_secret, scope, r#type: _ } = document;
        let source = match (file, token_url) {
            (Some(file), None) => {
                for (name, is_there) in [
                    ("clientId", client_id.is_some()),
                    ("clientSecret", client_secret.is_some()),
                    ("scope", scope.is_some()),
                ] {
                    if is_there {
                        return Err(AuthFault::Alone(name));
                    }
                }
                BearerSource::File(file.into())
            }
            (None, Some(token_url)) => {
                BearerSource::ClientCredentials(Box::new(ClientCredentials {
                    token_url: ClientCredentials::parse_token_url(token_url)?,
                    client_id: client_id.clone().ok_or(AuthFault::Missing("clientId"))?,
                    client_secret: client_secret
                        .clone()
                        .ok_or(AuthFault::Missing("clientSecret"))?,
                    scope: scope.clone(),
                }))
            }
            (None, None) | (Some(_), Some(_)) => return Err(AuthFault::Source),
        };
        Ok(Self::Bearer { source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<HubSettings, Vec<SettingError>> {
        HubSettings::parse(&serde_json::from_str(json).unwrap())
    }

    fn faults(json: &str) -> Vec<String> {
        parse(json).unwrap_err().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_whole_hub_is_read_in_both_spellings() {
        let camel = r#"{"anonymousConnect": "Allow",
            "eventHandlers": [{"urlTemplate": "https://h/{event}", "userEventPattern": "*", "systemEvents": ["connect"],
                "auth": {"type": "bearer", "file": "/run/token"}, "timeoutSeconds": 5}],
            "eventListeners": [{"urlTemplate": "http://l/", "systemEvents": ["connected"], "userEventPattern": "a"}],
            "groupPresenceEvents": {"eventNames": ["joined", "left"], "groupFilters": ["a", "b*"]}}"#;
        let hub = parse(camel).unwrap();
        assert!(hub.anonymous_connect);
        assert_eq!(hub.handlers[0].timeout, Some(Duration::from_secs(5)));
        let source = BearerSource::File("/run/token".into());
        assert_eq!(hub.handlers[0].auth, HandlerAuth::Bearer { source });
        assert!(hub.listeners[0].system_events.connected);
        assert!(hub.presence.joined && hub.presence.left);
        assert_eq!(hub.presence.groups.len(), 2);
        let snake = [
            ("anonymousConnect", "anonymous_connect"),
            ("eventHandlers", "event_handlers"),
            ("eventListeners", "event_listeners"),
            ("urlTemplate", "url_template"),
            ("userEventPattern", "user_event_pattern"),
            ("systemEvents", "system_events"),
            ("timeoutSeconds", "timeout_seconds"),
            ("groupPresenceEvents", "group_presence_events"),
            ("eventNames", "event_names"),
            ("groupFilters", "group_filters"),
        ]
        .into_iter()
        .fold(camel.to_owned(), |text, (camel, snake)| text.replace(camel, snake));
        assert_eq!(parse(&snake), Ok(hub));
        assert_eq!(parse("{}"), Ok(HubSettings::default()));
        assert!(serde_json::from_str::<HubDocument>(r#"{"eventHandler": []}"#).is_err());
    }

    #[test]
    fn all_faults_are_reported_with_their_places() {
        let faults = faults(
            r#"{"anonymousConnect": "maybe",
            "eventHandlers": [{"urlTemplate": "http://h/"},
                {"urlTemplate": "http://{hub}/", "userEventPattern": "a,,b", "systemEvents": ["message"], "timeoutSeconds": 0,
                 "auth": {"type": "ManagedIdentity"}}],
            "eventListeners": [{"urlTemplate": "http://h/", "systemEvents": ["connect"]}],
            "groupPresenceEvents": {"eventNames": ["gone"]}}"#,
        );
        assert_eq!(
            faults,
            [
                "anonymousConnect: \"maybe\" is not one of allow, deny",
                "eventHandlers[1].urlTemplate: a parameter may not stand in the scheme, host or port",
                "eventHandlers[1].userEventPattern: a name in the list is empty",
                "eventHandlers[1].systemEvents: \"message\" is not one of connect, connected, disconnected",
                "eventHandlers[1].auth: \"ManagedIdentity\" is not one of none, bearer",
                "eventHandlers[1].timeoutSeconds: must be 1 to 3600 seconds",
                "eventListeners[0].systemEvents: \"connect\" is not one of connected, disconnected",
                "groupPresenceEvents: \"gone\" is not one of joined, left",
            ]
        );
    }

    #[test]
    fn lists_are_limited() {
        let document = HubDocument {
            event_handlers: vec![EventHandlerDocument::default(); HANDLERS_MAX + 1],
            event_listeners: vec![EventListenerDocument::default(); LISTENERS_MAX + 1],
            group_presence_events: Some(PresenceDocument {
                group_filters: vec!["*".to_owned(); GROUP_FILTERS_MAX + 1],
                ..PresenceDocument::default()
            }),
            ..HubDocument::default()
        };
        let faults: Vec<_> = HubSettings::parse(&document)
            .unwrap_err()
            .into_iter()
            .map(|error| (error.property, error.fault))
            .collect();
        assert_eq!(
            faults,
            [
                ("eventHandlers", SettingFault::TooMany(HANDLERS_MAX)),
                ("eventListeners", SettingFault::TooMany(LISTENERS_MAX)),
                ("groupPresenceEvents", GroupFilterFault::TooMany.into()),
            ]
        );
    }

    #[test]
    fn proofs_have_one_source_and_show_no_secret() {
        let auth = |json: &str| HandlerAuth::parse(&serde_json::from_str(json).unwrap());
        let whole = r#"{"type": "Bearer", "tokenUrl": "https://t/", "clientId": "i", "clientSecret": "hunter2", "scope": "s"}"#;
        let document: AuthDocument = serde_json::from_str(whole).unwrap();
        let shown = format!("{document:?} {:?}", auth(whole).unwrap());
        assert!(!shown.contains("hunter2") && shown.contains("[redacted]"), "{shown}");
        assert_eq!(auth(r#"{"type": "none"}"#), Ok(HandlerAuth::None));
        for (json, fault) in [
            (r#"{"type": "bearer"}"#, AuthFault::Source),
            (r#"{"type": "bearer", "file": "f", "tokenUrl": "https://t/"}"#, AuthFault::Source),
            (r#"{"type": "bearer", "file": "f", "scope": "s"}"#, AuthFault::Alone("scope")),
            (
                r#"{"type": "bearer", "tokenUrl": "https://t/", "clientId": "i"}"#,
                AuthFault::Missing("clientSecret"),
            ),
            (
                r#"{"type": "bearer", "tokenUrl": "https://t/", "clientSecret": "s"}"#,
                AuthFault::Missing("clientId"),
            ),
            (
                r#"{"type": "bearer", "tokenUrl": "file:///x", "clientId": "i", "clientSecret": "s"}"#,
                AuthFault::TokenUrl,
            ),
            (
                r#"{"type": "bearer", "tokenUrl": "https://u:p@t/", "clientId": "i", "clientSecret": "s"}"#,
                AuthFault::TokenUrl,
            ),
        ] {
            assert_eq!(auth(json), Err(fault), "{json}");
        }
    }
}
