//! Upstream templates of the preview protocol: which event goes to which URL (preview protocol, "Upstream templates").

use std::fmt;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::tunnel;

/// Most templates in one setting.
pub const TEMPLATES_MAX: usize = 256;

/// Longest URL template.
pub const URL_TEMPLATE_BYTES_MAX: usize = 4_096;

/// Longest pattern.
pub const PATTERN_BYTES_MAX: usize = 4_096;

/// Everything but the unreserved characters of RFC 3986 §2.3.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What happened to a connection, as the preview protocol names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventName {
    /// A client wants in; blocking.
    Connect,
    /// A client sent a message.
    Message,
    /// An admitted connection ended.
    Disconnect,
}

impl EventName {
    /// Returns the value of `{event}` and `X-ASRS-Event`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Message => "message",
            Self::Disconnect => "disconnect",
        }
    }

    /// Returns the value of `{category}` and `X-ASRS-Category`.
    pub const fn category(self) -> &'static str {
        match self {
            Self::Connect | Self::Disconnect => "connections",
            Self::Message => "messages",
        }
    }
}

/// The settings document as people write it: JSON with camel case, TOML with snake case. Unknown properties are ignored in JSON
/// (the preview's page sends what its user typed); [`Templates::parse`] checks it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplatesDocument {
    /// In order of precedence.
    pub templates: Vec<TemplateDocument>,
}

/// One entry of [`TemplatesDocument`].
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TemplateDocument {
    /// Hubs it is for; absent: all.
    #[serde(alias = "hub_pattern", skip_serializing_if = "Option::is_none", default)]
    pub hub_pattern: Option<String>,
    /// Categories it is for; absent: all.
    #[serde(alias = "category_pattern", skip_serializing_if = "Option::is_none", default)]
    pub category_pattern: Option<String>,
    /// Events it is for; absent: all.
    #[serde(alias = "event_pattern", skip_serializing_if = "Option::is_none", default)]
    pub event_pattern: Option<String>,
    /// Where to send them, with `{hub}`, `{category}` and `{event}`.
    #[serde(alias = "url_template")]
    pub url_template: String,
}

/// A fault in the settings, with the place where it stands.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("templates[{index}].{property}: {fault}")]
pub struct TemplateError {
    /// Which template, from 0.
    pub index: usize,
    /// Which property, in the spelling of the JSON document.
    pub property: &'static str,
    /// What is wrong with it.
    pub fault: TemplateFault,
}

/// What is wrong with a pattern or URL template.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateFault {
    /// More templates than allowed.
    #[error("only {TEMPLATES_MAX} templates are allowed")]
    TooMany,
    /// Longer than its limit.
    #[error("has {bytes} bytes, {limit} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A list with an empty item.
    #[error("a name in the list is empty")]
    EmptyName,
    /// A name with a character that no hub, category or event has.
    #[error("{0:?} is not \"*\", a name, or a list of names separated by commas")]
    Name(String),
    /// Not a URL.
    #[error("is not a URL: {0}")]
    NotAUrl(String),
    /// Another scheme than http or https.
    #[error("the scheme must be http or https, not {0:?}")]
    Scheme(String),
    /// A parameter where it could change which server is called.
    #[error("a parameter may not stand in the scheme, host or port")]
    ParameterInAuthority,
    /// A user name or password in the URL.
    #[error("a URL may not carry a user name or password")]
    Credentials,
    /// A `{…}` that is not a parameter.
    #[error("{parameter:?} is not a parameter; the parameters are {known}")]
    UnknownParameter {
        /// What stands there.
        parameter: String,
        /// What may stand there.
        known: &'static str,
    },
}

/// Checked templates, in order of precedence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Templates(Vec<Template>);

/// One checked template.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Template {
    hub: Pattern,
    category: Pattern,
    event: Pattern,
    url: UrlTemplate,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Pattern {
    Any,
    /// In lower case.
    OneOf(Vec<String>),
}

/// A URL with parameters. `Debug` leaves the query out: it may hold the key of a function (`?code=`).
#[derive(Clone, PartialEq, Eq)]
pub struct UrlTemplate(Vec<Piece>);

/// The parameters that a dialect knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parameters {
    /// Those of the preview.
    Preview,
    /// Those of Web PubSub: there are no categories.
    WebPubSub,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Literal(String),
    Hub,
    Category,
    Event,
}

impl Templates {
    /// Returns the checked form of `document`.
    ///
    /// # Errors
    /// Every fault of the document, in its order.
    pub fn parse(document: &TemplatesDocument) -> Result<Self, Vec<TemplateError>> {
        let mut faults = Vec::new();
        if TEMPLATES_MAX < document.templates.len() {
            faults.push(TemplateError {
                index: TEMPLATES_MAX,
                property: "urlTemplate",
                fault: TemplateFault::TooMany,
            });
            return Err(faults);
        }
        let mut templates = Vec::with_capacity(document.templates.len());
        for (index, raw) in document.templates.iter().enumerate() {
            let mut pattern = |property, pattern: &Option<String>| {
                Pattern::parse(pattern.as_deref().unwrap_or("*")).unwrap_or_else(|fault| {
                    faults.push(TemplateError { index, property, fault });
                    Pattern::Any
                })
            };
            let hub = pattern("hubPattern", &raw.hub_pattern);
            let category = pattern("categoryPattern", &raw.category_pattern);
            let event = pattern("eventPattern", &raw.event_pattern);
            match UrlTemplate::parse(&raw.url_template, Parameters::Preview) {
                Ok(url) => templates.push(Template { hub, category, event, url }),
                Err(fault) => faults.push(TemplateError { index, property: "urlTemplate", fault }),
            }
        }
        if faults.is_empty() { Ok(Self(templates)) } else { Err(faults) }
    }

    /// Returns the URL for an event of `hub`: the first template whose three patterns match, its parameters replaced by their
    /// escaped values. `None` when no template matches.
    pub fn url(&self, hub: &str, event: EventName) -> Option<String> {
        self.find(hub, event).map(|(_, url)| url)
    }

    /// Returns the same with the template's place, from 0.
    pub fn find(&self, hub: &str, event: EventName) -> Option<(usize, String)> {
        let (at, template) = self.0.iter().enumerate().find(|(_, template)| {
            template.hub.matches(hub)
                && template.category.matches(event.category())
                && template.event.matches(event.as_str())
        })?;
        Some((at, template.url.expand(hub, event.category(), event.as_str())))
    }
}

impl Pattern {
    fn parse(raw: &str) -> Result<Self, TemplateFault> {
        if PATTERN_BYTES_MAX < raw.len() {
            return Err(TemplateFault::TooLong { bytes: raw.len(), limit: PATTERN_BYTES_MAX });
        }
        if raw.trim().is_empty() {
            return Err(TemplateFault::EmptyName);
        }
        let mut names = Vec::new();
        for name in raw.split(',').map(str::trim) {
            match name {
                "*" => return Ok(Self::Any),
                "" => return Err(TemplateFault::EmptyName),
                name if name
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || b"_-.`[]".contains(&byte)) =>
                {
                    names.push(name.to_ascii_lowercase());
                }
                name => return Err(TemplateFault::Name(name.to_owned())),
            }
        }
        Ok(Self::OneOf(names))
    }

    fn matches(&self, value: &str) -> bool {
        match self {
            Self::Any => true,
            Self::OneOf(names) => names.iter().any(|name| name.eq_ignore_ascii_case(value)),
        }
    }
}

impl UrlTemplate {
    /// Returns the template of an `http`, `https` or `tunnel` URL.
    pub(crate) fn parse(raw: &str, parameters: Parameters) -> Result<Self, TemplateFault> {
        let raw = raw.trim();
        let template = Self::parse_pieces(raw, parameters)?;
        if tunnel::path(raw).is_some() {
            return Ok(template);
        }
        // The server called may not depend on a parameter: none may stand there, and two values must lead to one origin.
        let authority_end = raw.find("://").map_or(0, |at| {
            raw[at + 3..].find(['/', '?', '#', '\\']).map_or(raw.len(), |length| at + 3 + length)
        });
        if raw[..authority_end].contains('{') {
            return Err(TemplateFault::ParameterInAuthority);
        }
        let parse = |value: &str| {
            Url::parse(&template.fill(value, value, value))
                .map_err(|e| TemplateFault::NotAUrl(e.to_string()))
        };
        let (url, other) = (parse("a1")?, parse("b2")?);
        if !matches!(url.scheme(), "http" | "https") {
            return Err(TemplateFault::Scheme(url.scheme().to_owned()));
        }
        if other.origin() != url.origin() {
            return Err(TemplateFault::ParameterInAuthority);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(TemplateFault::Credentials);
        }
        Ok(template)
    }

    /// Returns text and parameters of any text.
    fn parse_pieces(raw: &str, parameters: Parameters) -> Result<Self, TemplateFault> {
        if URL_TEMPLATE_BYTES_MAX < raw.len() {
            return Err(TemplateFault::TooLong { bytes: raw.len(), limit: URL_TEMPLATE_BYTES_MAX });
        }
        let mut pieces = Vec::new();
        let mut rest = raw;
        while let Some(open) = rest.find('{') {
            let close = rest[open..].find('}').map_or(rest.len(), |length| open + length + 1);
            if 0 < open {
                pieces.push(Piece::Literal(rest[..open].to_owned()));
            }
            let parameter = &rest[open..close];
            let piece = Piece::of(parameter, parameters).ok_or_else(|| {
                let known = match parameters {
                    Parameters::Preview => "{hub}, {category} and {event}",
                    Parameters::WebPubSub => "{hub} and {event}",
                };
                TemplateFault::UnknownParameter { parameter: parameter.to_owned(), known }
            })?;
            pieces.push(piece);
            rest = &rest[close..];
        }
        if !rest.is_empty() {
            pieces.push(Piece::Literal(rest.to_owned()));
        }
        Ok(Self(pieces))
    }

    /// Returns the URL with the escaped values in the places of the parameters.
    pub(crate) fn expand(&self, hub: &str, category: &str, event: &str) -> String {
        let escape = |value| utf8_percent_encode(value, ESCAPED).to_string();
        self.fill(&escape(hub), &escape(category), &escape(event))
    }

    fn fill(&self, hub: &str, category: &str, event: &str) -> String {
        self.0
            .iter()
            .map(|piece| match piece {
                Piece::Literal(text) => text,
                Piece::Hub => hub,
                Piece::Category => category,
                Piece::Event => event,
            })
            .collect()
    }
}

impl fmt::Display for UrlTemplate {
    /// Writes the template as it was written, keys in its query included.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.fill("{hub}", "{category}", "{event}"))
    }
}

impl fmt::Debug for UrlTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.to_string();
        match text.split_once('?') {
            Some((path, _)) => write!(f, "{path}?[redacted]"),
            None => f.write_str(&text),
        }
    }
}

impl Piece {
    fn of(parameter: &str, parameters: Parameters) -> Option<Self> {
        match (parameter, parameters) {
            ("{hub}", _) => Some(Self::Hub),
            ("{category}", Parameters::Preview) => Some(Self::Category),
            ("{event}", _) => Some(Self::Event),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn one(
        hub: &str,
        category: &str,
        event: &str,
        url: &str,
    ) -> Result<Templates, Vec<TemplateError>> {
        let some = |pattern: &str| Some(pattern.to_owned());
        Templates::parse(&TemplatesDocument {
            templates: vec![TemplateDocument {
                hub_pattern: some(hub),
                category_pattern: some(category),
                event_pattern: some(event),
                url_template: url.to_owned(),
            }],
        })
    }

    #[test]
    fn the_documented_examples_work() {
        let url = |template| one("*", "*", "*", template).unwrap().url("chat", EventName::Connect);
        assert_eq!(
            url("http://host.com/{hub}/api/{event}").as_deref(),
            Some("http://host.com/chat/api/connect")
        );
        assert_eq!(
            url("http://host/api/{category}?event={event}&hub={hub}&code=x==").as_deref(),
            Some("http://host/api/connections?event=connect&hub=chat&code=x==")
        );
    }

    #[test]
    fn the_first_match_wins_and_patterns_ignore_case_and_blanks() {
        let document: TemplatesDocument = serde_json::from_str(
            r#"{"templates":[
                {"hubPattern":"Chat, lobby","eventPattern":"connect,disconnect","urlTemplate":"http://a/{event}"},
                {"categoryPattern":"messages","urlTemplate":"http://b/{event}","extra":1},
                {"hubPattern":"*","urlTemplate":"http://c/{hub}"}]}"#,
        )
        .unwrap();
        let templates = Templates::parse(&document).unwrap();
        let url = |hub, event| templates.url(hub, event).unwrap();
        assert_eq!(url("chat", EventName::Connect), "http://a/connect");
        assert_eq!(url("lobby", EventName::Message), "http://b/message");
        assert_eq!(url("other", EventName::Disconnect), "http://c/other");
        assert_eq!(Templates::default().url("chat", EventName::Connect), None);
    }

    #[test]
    fn values_are_escaped() {
        let templates = one("*", "*", "*", "http://h/{hub}?h={hub}").unwrap();
        assert_eq!(
            templates.url("a`,[]", EventName::Connect).unwrap(),
            "http://h/a%60%2C%5B%5D?h=a%60%2C%5B%5D"
        );
    }

    #[test]
    fn events_may_go_through_the_tunnel() {
        let templates = one("*", "*", "*", "Tunnel:///{hub}/{event}?c={category}").unwrap();
        let url = templates.url("chat", EventName::Message).unwrap();
        assert_eq!(tunnel::path(&url), Some("chat/message?c=messages"));
    }

    #[test]
    fn debug_shows_no_query() {
        let templates = one("*", "*", "*", "http://h/{event}?code=secret").unwrap();
        let shown = format!("{templates:?}");
        assert!(shown.contains("http://h/{event}?[redacted]"), "{shown}");
        assert!(!shown.contains("secret"));
    }

    #[test]
    fn every_fault_is_named_with_its_place() {
        let fault = |result: Result<Templates, Vec<TemplateError>>| {
            result.unwrap_err().remove(0).to_string()
        };
        assert_eq!(
            fault(one("a b", "*", "*", "http://h/")).split(':').next().unwrap(),
            "templates[0].hubPattern"
        );
        assert!(fault(one("*", "x,,y", "*", "http://h/")).contains("empty"));
        for (template, word) in [
            ("ftp://h/", "http or https"),
            ("http://:80/", "not a URL"),
            ("h/api", "not a URL"),
            ("http://{hub}.example/", "scheme, host or port"),
            ("http://h:{event}/", "scheme, host or port"),
            ("{hub}://h/", "parameter"),
            ("http://u:p@h/", "password"),
            ("http://h/{nope}", "{nope}"),
            ("http://h/{hub", "{hub"),
            ("http:\\\\{hub}/", "parameter"),
            ("tunnel://h/api", "http or https"),
            ("tunnel:///{nope}", "{nope}"),
        ] {
            let text = fault(one("*", "*", "*", template));
            assert!(
                text.starts_with("templates[0].urlTemplate") && text.contains(word),
                "{template}: {text}"
            );
        }
        let two = TemplatesDocument {
            templates: vec![
                TemplateDocument { url_template: "x".into(), ..Default::default() },
                TemplateDocument {
                    hub_pattern: Some("?".into()),
                    url_template: "y".into(),
                    ..Default::default()
                },
            ],
        };
        assert_eq!(
            Templates::parse(&two).unwrap_err().len(),
            3,
            "all faults are reported together"
        );
    }

    proptest! {
        #[test]
        fn no_hub_name_changes_the_server_called(hub in "[A-Za-z][A-Za-z0-9_`,.\\[\\]]{0,40}") {
            let templates = one("*", "*", "*", "http://h.example:81/{hub}/../{hub}?x={hub}#y").unwrap();
            let url = Url::parse(&templates.url(&hub, EventName::Message).unwrap()).unwrap();
            prop_assert_eq!(url.host_str(), Some("h.example"));
            prop_assert_eq!(url.port(), Some(81));
        }

        #[test]
        fn hostile_templates_never_panic(raw in ".{0,60}") {
            let _ = one(&raw, &raw, &raw, &raw);
        }
    }
}
