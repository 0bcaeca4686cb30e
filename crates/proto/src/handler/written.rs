//! Checked settings, written as people write them: for a page that shows and changes them, and for the store.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::{
    AuthDocument, BearerSource, EventHandler, EventHandlerDocument, EventListener,
    EventListenerDocument, HandlerAuth, HubDocument, HubSettings, PresenceDocument, PresenceEvents,
    Secret,
};

/// Whether secrets are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Secrets {
    /// For the store alone.
    Shown,
    /// For everybody else: they are left out.
    Hidden,
}

impl HubSettings {
    /// Returns the document that says the same. Times of handlers are whole seconds there and are rounded up.
    pub fn to_document(&self) -> HubDocument {
        let policy = if self.anonymous_connect { "allow" } else { "deny" };
        HubDocument {
            anonymous_connect: Some(policy.to_owned()),
            event_handlers: self.handlers.iter().map(|handler| write_handler(handler)).collect(),
            event_listeners: self
                .listeners
                .iter()
                .map(|listener| write_listener(listener))
                .collect(),
            group_presence_events: (self.presence != PresenceEvents::default())
                .then(|| write_presence(&self.presence)),
        }
    }
}

impl HubDocument {
    /// Returns the document as JSON, which [`HubDocument`] can be read from again.
    pub fn to_json(&self, secrets: Secrets) -> Value {
        let handlers: Vec<Value> =
            self.event_handlers.iter().map(|handler| handler_json(handler, secrets)).collect();
        let listener = |listener: &EventListenerDocument| {
            json!({
                "urlTemplate": listener.url_template,
                "userEventPattern": listener.user_event_pattern.as_deref().unwrap_or_default(),
                "systemEvents": listener.system_events,
            })
        };
        let mut hub = json!({
            "anonymousConnect": self.anonymous_connect.as_deref().unwrap_or("deny"),
            "eventHandlers": handlers,
            "eventListeners": self.event_listeners.iter().map(listener).collect::<Vec<_>>(),
        });
        if let Some(presence) = &self.group_presence_events {
            hub["groupPresenceEvents"] = json!({
                "eventNames": presence.event_names,
                "groupFilters": presence.group_filters,
            });
        }
        hub
    }
}

fn handler_json(handler: &EventHandlerDocument, secrets: Secrets) -> Value {
    let mut written = json!({
        "urlTemplate": handler.url_template,
        "userEventPattern": handler.user_event_pattern.as_deref().unwrap_or_default(),
        "systemEvents": handler.system_events,
    });
    if let Some(seconds) = handler.timeout_seconds {
        written["timeoutSeconds"] = seconds.into();
    }
    if let Some(auth) = &handler.auth {
        let secret = auth.client_secret.as_ref().filter(|_| secrets == Secrets::Shown);
        let mut properties = Map::new();
        properties.insert("type".to_owned(), auth.r#type.as_str().into());
        for (name, text) in [
            ("file", auth.file.as_deref()),
            ("tokenUrl", auth.token_url.as_deref()),
            ("clientId", auth.client_id.as_deref()),
            ("clientSecret", secret.map(Secret::reveal)),
            ("scope", auth.scope.as_deref()),
        ] {
            if let Some(text) = text {
                properties.insert(name.to_owned(), text.into());
            }
        }
        written["auth"] = properties.into();
    }
    written
}

fn write_handler(handler: &EventHandler) -> EventHandlerDocument {
    EventHandlerDocument {
        url_template: handler.url.to_string(),
        user_event_pattern: Some(handler.user_events.to_string()),
        system_events: handler.system_events.names().map(str::to_owned).collect(),
        auth: write_auth(&handler.auth),
        timeout_seconds: handler.timeout.map(whole_seconds),
    }
}

fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(0 < time.subsec_nanos())
}

fn write_auth(auth: &HandlerAuth) -> Option<AuthDocument> {
    let HandlerAuth::Bearer { source } = auth else { return None };
    let bearer = AuthDocument { r#type: "bearer".to_owned(), ..AuthDocument::default() };
    Some(match source {
        BearerSource::File(file) => {
            AuthDocument { file: Some(file.to_string_lossy().into_owned()), ..bearer }
        }
        BearerSource::ClientCredentials(credentials) => AuthDocument {
            token_url: Some(credentials.token_url.to_string()),
            client_id: Some(credentials.client_id.clone()),
            client_secret: Some(credentials.client_secret.clone()),
            scope: credentials.scope.clone(),
            ..bearer
        },
    })
}

fn write_listener(listener: &EventListener) -> EventListenerDocument {
    EventListenerDocument {
        url_template: listener.url.to_string(),
        user_event_pattern: Some(listener.user_events.to_string()),
        system_events: listener.system_events.names().map(str::to_owned).collect(),
    }
}

fn write_presence(presence: &PresenceEvents) -> PresenceDocument {
    let names = [("joined", presence.joined), ("left", presence.left)];
    let names = names.into_iter().filter(|(_, is_event)| *is_event);
    PresenceDocument {
        event_names: names.map(|(name, _)| name.to_owned()).collect(),
        group_filters: presence.groups.iter().map(ToString::to_string).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"{"anonymousConnect":"allow","eventHandlers":[
        {"urlTemplate":"https://h/{hub}/{event}?code=a/b==","userEventPattern":"order.*,pay\\*","systemEvents":["connect","disconnected"],
         "timeoutSeconds":5,"auth":{"type":"bearer","tokenUrl":"https://t/","clientId":"i","clientSecret":"hunter2","scope":"s"}},
        {"urlTemplate":"tunnel:///x","userEventPattern":"*","systemEvents":[],"auth":{"type":"bearer","file":"/run/token"}}],
        "eventListeners":[{"urlTemplate":"http://l","userEventPattern":"","systemEvents":["connected"]}],
        "groupPresenceEvents":{"eventNames":["left"],"groupFilters":["a","b*"]}}"#;

    #[test]
    fn what_is_written_says_what_was_read() {
        for text in [WHOLE, "{}"] {
            let document: HubDocument = serde_json::from_str(text).unwrap();
            let settings = HubSettings::parse(&document).unwrap();
            let written = settings.to_document().to_json(Secrets::Shown);
            let again: HubDocument = serde_json::from_value(written).unwrap();
            assert_eq!(HubSettings::parse(&again), Ok(settings));
        }
        let document: HubDocument = serde_json::from_str(WHOLE).unwrap();
        let same: Value = serde_json::from_str(WHOLE).unwrap();
        assert_eq!(
            HubSettings::parse(&document).unwrap().to_document().to_json(Secrets::Shown),
            same
        );
    }

    #[test]
    fn secrets_are_left_out_for_everybody_but_the_store() {
        let document: HubDocument = serde_json::from_str(WHOLE).unwrap();
        let shown = document.to_json(Secrets::Hidden);
        assert!(!shown.to_string().contains("hunter2"));
        assert_eq!(shown["eventHandlers"][0]["auth"]["clientId"], "i");
    }
}
