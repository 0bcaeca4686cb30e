//! Upstream templates and event handlers.

use hookwire_proto::handler::{EventHandlerDocument, HubDocument, HubSettings};
use hookwire_proto::template::{EventName, TemplateDocument, Templates, TemplatesDocument};
use url::Url;

/// Names that try to become something else in a URL.
const HUBS: [&str; 4] = ["chat", "a`[].,_", "A", "evil"];

/// What a URL says about whom to call.
fn callee(url: &str) -> Option<(String, Option<String>, Option<u16>, String)> {
    let url = Url::parse(url).ok()?;
    let host = url.host_str().map(str::to_owned);
    Some((url.scheme().to_owned(), host, url.port(), url.username().to_owned()))
}

/// Reads the lines of `input` as hub pattern, category pattern, event pattern and URL. Whatever hub and event a template is for, it calls
/// the same server.
pub(crate) fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let mut lines = text.split('\n').map(str::to_owned);
    let [hub_pattern, category_pattern, event_pattern] = [(); 3].map(|()| lines.next());
    let url_template = lines.next().unwrap_or_default();
    let handler = EventHandlerDocument {
        url_template: url_template.clone(),
        user_event_pattern: event_pattern.clone(),
        ..EventHandlerDocument::default()
    };
    let hub = HubDocument { event_handlers: vec![handler], ..HubDocument::default() };
    // Both dialects share the rule; what it does with a handler's URL is seen by its tests.
    let _ = HubSettings::parse(&hub);
    let document = TemplatesDocument {
        templates: vec![TemplateDocument {
            hub_pattern,
            category_pattern,
            event_pattern,
            url_template,
        }],
    };
    match Templates::parse(&document) {
        Ok(templates) => {
            let mut first = None;
            for hub in HUBS {
                for event in [EventName::Connect, EventName::Message, EventName::Disconnect] {
                    let Some(url) = templates.url(hub, event) else { continue };
                    if hookwire_proto::tunnel::path(&url).is_some() {
                        continue;
                    }
                    let callee = callee(&url).expect("a checked template makes URLs");
                    assert!(matches!(callee.0.as_str(), "http" | "https"));
                    assert_eq!(callee.3, "", "a user name");
                    assert_eq!(first.get_or_insert_with(|| callee.clone()), &callee);
                }
            }
        }
        Err(faults) => assert!(!faults.is_empty()),
    }
}
