//! `[defaults]` and `[[hub]]`: the settings of hubs for Web PubSub.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use hookwire_proto::deflate::{Compression, LEVEL_MAX, LEVEL_MIN};
use hookwire_proto::handler::{
    BearerSource, ClientCredentials, EventHandler, EventListener, EventPattern, GROUP_FILTERS_MAX,
    GroupFilter, GroupFilterFault, HANDLERS_MAX, HandlerAuth, HandlerUrl, HubSettings,
    HubsSettings, LISTENERS_MAX, PresenceEvents, Secret, SystemEventFault, SystemEvents,
};
use hookwire_proto::name::HubName;

use super::reader::{FlagOrSection, Section};
use super::{ConfigFault, read_secret_file};

/// The pattern of user events where none is written.
const ANY: &str = "*";

/// Longest client secret in bytes.
const CLIENT_SECRET_BYTES_MAX: usize = 4_096;

/// Reads the settings of all hubs. Warns of bearer tokens that go through the tunnel.
pub(super) fn read(
    root: &mut Section,
    warnings: &mut Vec<String>,
    faults: &mut Vec<ConfigFault>,
) -> HubsSettings {
    let unset = HubSettings::default();
    let defaults = root.section("defaults", faults);
    let defaults = defaults.map_or(unset.clone(), |section| read_hub(section, &unset, faults));
    let mut hubs = BTreeMap::new();
    for mut section in root.sections("hub", faults) {
        let name = section.required_text("name", faults);
        let name = name.and_then(|name| {
            let parse = |name: String| HubName::parse(&name).map_err(|error| error.to_string());
            section.checked("name", name, faults, parse)
        });
        if name.as_ref().is_some_and(|name| hubs.contains_key(name)) {
            section.fault("name", "another entry has this name; case does not count", faults);
        }
        let hub = read_hub(section, &defaults, faults);
        if let Some(name) = name {
            hubs.insert(name, Arc::new(hub));
        }
    }
    let all = std::iter::once(("defaults".to_owned(), &defaults));
    let listed =
        hubs.iter().map(|(name, hub): (&HubName, &Arc<_>)| (format!("hub {name}"), &**hub));
    for (name, hub) in all.chain(listed) {
        let goes_anywhere = |handler: &Arc<EventHandler>| {
            handler.url.is_tunnel() && handler.auth != HandlerAuth::None
        };
        if hub.handlers.iter().any(goes_anywhere) {
            warnings.push(format!(
                "{name}: the bearer token of a handler behind tunnel:/// goes to whoever opens a tunnel"
            ));
        }
    }
    HubsSettings { defaults: Arc::new(defaults), hubs }
}

/// Reads one hub; what it does not set is `inherited`.
fn read_hub(
    mut section: Section,
    inherited: &HubSettings,
    faults: &mut Vec<ConfigFault>,
) -> HubSettings {
    let policy = section.text("anonymous_connect", faults).and_then(|policy| {
        section.checked("anonymous_connect", policy, faults, |policy| match policy.as_str() {
            "allow" => Ok(true),
            "deny" => Ok(false),
            _ => Err("must be \"allow\" or \"deny\"".to_owned()),
        })
    });
    let handlers = read_list(&mut section, "event_handler", HANDLERS_MAX, faults, read_handler);
    let listeners = read_list(&mut section, "event_listener", LISTENERS_MAX, faults, read_listener);
    let presence =
        section.section("group_presence", faults).map(|section| read_presence(section, faults));
    let compression = section
        .flag_or_section("permessage_deflate", faults)
        .map(|value| read_compression(value, faults));
    section.finish(faults);
    HubSettings {
        anonymous_connect: policy.unwrap_or(inherited.anonymous_connect),
        handlers: handlers.unwrap_or_else(|| inherited.handlers.clone()),
        listeners: listeners.unwrap_or_else(|| inherited.listeners.clone()),
        presence: presence.unwrap_or_else(|| inherited.presence.clone()),
        compression: compression.unwrap_or(inherited.compression),
    }
}

/// Reads whether and how messages are compressed.
fn read_compression(value: FlagOrSection, faults: &mut Vec<ConfigFault>) -> Option<Compression> {
    let d = Compression::default();
    let mut section = match value {
        FlagOrSection::Flag(is_on) => return is_on.then_some(d),
        FlagOrSection::Section(section) => section,
    };
    let levels = usize::from(LEVEL_MIN)..=usize::from(LEVEL_MAX);
    let level = section.number("level", d.level.into(), levels, faults);
    let most = usize::from(u16::MAX);
    let min_bytes = section.number("min_bytes", d.min_bytes.into(), 0..=most, faults);
    section.finish(faults);
    Some(Compression {
        level: u8::try_from(level).unwrap_or(d.level),
        min_bytes: u16::try_from(min_bytes).unwrap_or(d.min_bytes),
    })
}

/// Reads a list of tables; `None` when it is not set.
fn read_list<T>(
    section: &mut Section,
    key: &str,
    limit: usize,
    faults: &mut Vec<ConfigFault>,
    read: impl Fn(Section, &mut Vec<ConfigFault>) -> Option<T>,
) -> Option<Vec<Arc<T>>> {
    let is_set = section.sets(key);
    let items = section.sections(key, faults);
    if limit < items.len() {
        section.fault(key, &format!("only {limit} entries are allowed"), faults);
    }
    let values = items.into_iter().filter_map(|item| read(item, faults)).map(Arc::new).collect();
    is_set.then_some(values)
}

/// Reads a handler; `None` when it has no URL, which is then among the faults.
fn read_handler(mut section: Section, faults: &mut Vec<ConfigFault>) -> Option<EventHandler> {
    let url = read_url(&mut section, "url_template", faults, HandlerUrl::parse);
    let user_events = read_pattern(&mut section, faults);
    let system_events =
        read_system_events(&mut section, faults, |name| SystemEvents::parse([name]));
    let auth = section.section("auth", faults);
    let auth = auth.map_or(HandlerAuth::None, |section| read_auth(section, faults));
    let timeout = section.optional_seconds("seconds_max", faults);
    section.finish(faults);
    Some(EventHandler { url: url?, user_events, system_events, auth, timeout })
}

/// Reads a listener; `None` when it has no URL, which is then among the faults.
fn read_listener(mut section: Section, faults: &mut Vec<ConfigFault>) -> Option<EventListener> {
    let url = read_url(&mut section, "url", faults, EventListener::parse_url);
    let user_events = read_pattern(&mut section, faults);
    let system_events =
        read_system_events(&mut section, faults, |name| SystemEvents::parse_for_listener([name]));
    section.finish(faults);
    Some(EventListener { url: url?, user_events, system_events })
}

fn read_url<E: ToString>(
    section: &mut Section,
    key: &str,
    faults: &mut Vec<ConfigFault>,
    parse: impl Fn(&str) -> Result<HandlerUrl, E>,
) -> Option<HandlerUrl> {
    let url = section.required_text(key, faults)?;
    section.checked(key, url, faults, |url: String| parse(&url).map_err(|fault| fault.to_string()))
}

fn read_pattern(section: &mut Section, faults: &mut Vec<ConfigFault>) -> EventPattern {
    let key = "user_event_pattern";
    let pattern = section.text(key, faults).unwrap_or_else(|| ANY.to_owned());
    let parse = |text: String| EventPattern::parse(&text).map_err(|fault| fault.to_string());
    section.checked(key, pattern, faults, parse).unwrap_or_default()
}

fn read_system_events(
    section: &mut Section,
    faults: &mut Vec<ConfigFault>,
    parse: impl Fn(&str) -> Result<SystemEvents, SystemEventFault>,
) -> SystemEvents {
    let key = "system_events";
    let names = section.texts(key, faults).unwrap_or_default();
    let each = section
        .parse_all(key, &names, faults, |name| parse(name).map_err(|fault| fault.to_string()));
    each.into_iter().fold(SystemEvents::default(), |all, one| SystemEvents {
        connect: all.connect || one.connect,
        connected: all.connected || one.connected,
        disconnected: all.disconnected || one.disconnected,
    })
}

fn read_presence(mut section: Section, faults: &mut Vec<ConfigFault>) -> PresenceEvents {
    let names = section.texts("events", faults).unwrap_or_default();
    let events = section.parse_all("events", &names, faults, |name| match name {
        "joined" | "left" => Ok(name == "joined"),
        _ => Err(GroupFilterFault::Event(name.to_owned()).to_string()),
    });
    let filters = section.texts("groups", faults).unwrap_or_else(|| vec![ANY.to_owned()]);
    if GROUP_FILTERS_MAX < filters.len() {
        section.fault("groups", &GroupFilterFault::TooMany.to_string(), faults);
    }
    let groups = section.parse_all("groups", &filters, faults, |filter| {
        GroupFilter::parse(filter).map_err(|fault| fault.to_string())
    });
    section.finish(faults);
    PresenceEvents { joined: events.contains(&true), left: events.contains(&false), groups }
}

/// Reads how the service proves who it is; not at all when there is a fault.
fn read_auth(mut section: Section, faults: &mut Vec<ConfigFault>) -> HandlerAuth {
    let before = faults.len();
    let kind = section.required_text("kind", faults).unwrap_or_default();
    let (needed, optional): (&[&str], &[&str]) = match kind.as_str() {
        "none" | "" => (&[], &[]),
        "bearer_file" => (&["file"], &[]),
        "client_credentials" => (&["token_url", "client_id", "client_secret"], &["scope"]),
        _ => {
            let fault = "must be \"none\", \"bearer_file\" or \"client_credentials\"";
            section.fault("kind", fault, faults);
            return HandlerAuth::None;
        }
    };
    for key in ["file", "token_url", "client_id", "client_secret", "scope"] {
        let from_file = key == "client_secret" && section.sets("client_secret_file");
        let is_set = section.sets(key) || from_file;
        if needed.contains(&key) && !is_set {
            section.fault(key, "is missing", faults);
        } else if is_set && !needed.contains(&key) && !optional.contains(&key) {
            section.fault(key, &format!("does not belong to kind {kind:?}"), faults);
        }
    }
    let file = section.text("file", faults);
    let token_url = section.text("token_url", faults);
    let token_url = token_url.and_then(|url| {
        section.checked("token_url", url, faults, |url| {
            ClientCredentials::parse_token_url(&url).map_err(|_| {
                "must be https:// or http:// with a host, without user name".to_owned()
            })
        })
    });
    let client_id = section.text("client_id", faults);
    let client_secret = read_client_secret(&mut section, faults);
    let scope = section.text("scope", faults);
    section.finish(faults);
    if before < faults.len() {
        return HandlerAuth::None;
    }
    let credentials = token_url.zip(client_id).zip(client_secret);
    let credentials = credentials.map(|((token_url, client_id), client_secret)| {
        let all = ClientCredentials { token_url, client_id, client_secret, scope };
        BearerSource::ClientCredentials(Box::new(all))
    });
    let source = file.map(|file| BearerSource::File(file.into())).or(credentials);
    source.map_or(HandlerAuth::None, |source| HandlerAuth::Bearer { source })
}

/// Reads the client secret from where it stands, which is the file itself or another one.
fn read_client_secret(section: &mut Section, faults: &mut Vec<ConfigFault>) -> Option<Secret> {
    let secret = section.text("client_secret", faults);
    let Some(file) = section.text("client_secret_file", faults) else {
        return secret.map(Secret::new);
    };
    if secret.is_some() {
        section.fault("client_secret_file", "client_secret is set too", faults);
    }
    let secret = section.checked("client_secret_file", file, faults, |file| {
        // The name is not repeated: a secret could have been put here.
        read_secret_file(Path::new(&file), CLIENT_SECRET_BYTES_MAX)
            .map_err(|error| format!("cannot be read: {error}"))
    });
    secret.map(Secret::new)
}
