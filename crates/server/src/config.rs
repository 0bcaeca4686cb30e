//! Configuration: a TOML file and environment variables become a checked [`Config`], or a list of all faults.
//!
//! The schema is described in `docs/configuration.md`. A key whose feature does not exist yet is accepted with a warning.

mod reader;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use hookwire_proto::name::HubName;
use hookwire_proto::signature::AccessKey;
use hookwire_proto::template::{TemplateDocument, Templates, TemplatesDocument};
use hookwire_proto::token::HostNames;
use toml::{Table, Value};
use url::Url;

use self::reader::Section;

/// Every setting, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Addresses for clients, REST and management.
    pub listen: Vec<SocketAddr>,
    /// Names by which clients and upstreams know the service; empty: derived from `listen` once that is bound.
    pub public_endpoints: Vec<Url>,
    /// One or two keys; the first signs what the service signs.
    pub access_keys: Vec<AccessKey>,
    /// Where the service keeps what it must remember.
    pub data_dir: PathBuf,
    /// The upstreams until others are set at run time.
    pub templates: TemplatesDocument,
    /// Shards; 0: one per core.
    pub shards: usize,
    /// Limits of the client side.
    pub limits: Limits,
    /// Limits of upstream calls.
    pub upstream: UpstreamLimits,
    /// Whether `/metrics` answers everybody.
    pub metrics_public: bool,
    /// Sends each client message back instead of to an upstream: for load tests and conformance suites; not in the file.
    pub echo: bool,
}

/// Limits of the client side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Largest message from a client, in bytes.
    pub message_bytes_max: usize,
    /// Largest REST body, in bytes.
    pub rest_body_bytes_max: usize,
    /// After this long without a word from a client it is pinged; after twice as long it is closed.
    pub ping_interval: Duration,
    /// Bytes that a client may leave untaken for `slow_time_max`.
    pub slow_bytes_max: usize,
    /// See `slow_bytes_max`.
    pub slow_time_max: Duration,
    /// Bytes that a client may leave untaken at all.
    pub outbox_bytes_max: usize,
    /// How long a message may take to arrive.
    pub incomplete_time_max: Duration,
    /// Memory for incomplete messages, per shard.
    pub incomplete_bytes_max: usize,
    /// How long accept and the first request head may take.
    pub handshake_time_max: Duration,
    /// How long shutdown waits for disconnect events.
    pub shutdown_time_max: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            message_bytes_max: 1024 * 1024,
            rest_body_bytes_max: 1024 * 1024,
            ping_interval: Duration::from_secs(20),
            slow_bytes_max: 1024 * 1024,
            slow_time_max: Duration::from_secs(10),
            outbox_bytes_max: 16 * 1024 * 1024,
            incomplete_time_max: Duration::from_mins(1),
            incomplete_bytes_max: 64 * 1024 * 1024,
            handshake_time_max: Duration::from_secs(15),
            shutdown_time_max: Duration::from_secs(20),
        }
    }
}

/// Limits of upstream calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpstreamLimits {
    /// How long a connect event may take, retries included.
    pub connect_time_max: Duration,
    /// How long any other event may take.
    pub time_max: Duration,
    /// Calls in flight for one upstream (scheme, host and port).
    pub calls_in_flight_max: usize,
}

impl Default for UpstreamLimits {
    fn default() -> Self {
        Self {
            connect_time_max: Duration::from_secs(30),
            time_max: Duration::from_mins(1),
            calls_in_flight_max: 1_024,
        }
    }
}

/// One fault of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path}: {fault}")]
pub struct ConfigFault {
    /// The key's path, such as `upstream.template[0].url_template`.
    pub path: String,
    /// What is wrong.
    pub fault: String,
}

/// All faults of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
pub struct ConfigFaults(pub Vec<ConfigFault>);

impl Config {
    /// Returns the configuration of a file's text with environment variables above it, and warnings for people.
    ///
    /// # Errors
    /// All faults together.
    pub fn load(
        text: &str,
        environment: impl IntoIterator<Item = (String, String)>,
    ) -> Result<(Self, Vec<String>), ConfigFaults> {
        let mut faults = Vec::new();
        let mut table = text.parse::<Table>().unwrap_or_else(|error| {
            faults.push(ConfigFault { path: "(file)".to_owned(), fault: error.to_string() });
            Table::new()
        });
        for (name, value) in environment {
            if let Some(path) = name.strip_prefix("HOOKWIRE_") {
                overlay(&mut table, &name, path, &value, &mut faults);
            }
        }
        let mut warnings = Vec::new();
        let config = Self::read(Section::new("", table), &mut warnings, &mut faults);
        if faults.is_empty() { Ok((config, warnings)) } else { Err(ConfigFaults(faults)) }
    }

    /// Returns a configuration made in code: one address, one key, one folder, everything else by default.
    pub fn for_one_machine(listen: SocketAddr, key: AccessKey, data_dir: &Path) -> Self {
        Self {
            listen: vec![listen],
            public_endpoints: Vec::new(),
            access_keys: vec![key],
            data_dir: data_dir.to_owned(),
            templates: TemplatesDocument::default(),
            shards: 0,
            limits: Limits::default(),
            upstream: UpstreamLimits::default(),
            metrics_public: false,
            echo: false,
        }
    }

    /// Returns the host names that tokens may name, given where the service really listens.
    pub fn host_names(&self, bound: &[SocketAddr]) -> HostNames {
        let endpoints = self.endpoints(bound);
        let hosts: Vec<&str> = endpoints.iter().filter_map(Url::host_str).collect();
        HostNames::parse(hosts).expect("a URL's host is a host name")
    }

    /// Returns the public endpoints; those of the bound addresses when none are configured.
    pub fn endpoints(&self, bound: &[SocketAddr]) -> Vec<Url> {
        if !self.public_endpoints.is_empty() {
            return self.public_endpoints.clone();
        }
        let endpoint = |address: &SocketAddr| {
            let text = if address.ip().is_unspecified() {
                format!("http://localhost:{}", address.port())
            } else {
                format!("http://{address}")
            };
            Url::parse(&text).expect("an address makes a URL")
        };
        bound.iter().map(endpoint).collect()
    }

    fn read(mut root: Section, warnings: &mut Vec<String>, faults: &mut Vec<ConfigFault>) -> Self {
        let listen =
            root.texts("listen", faults).unwrap_or_else(|| vec!["127.0.0.1:8080".to_owned()]);
        let listen: Vec<SocketAddr> = root.parse_all("listen", &listen, faults, |text| {
            let text = text.replacen("localhost:", "127.0.0.1:", 1);
            text.parse()
                .map_err(|_| format!("{text:?} is not an address and port such as 127.0.0.1:8080"))
        });
        if listen.is_empty() {
            root.fault("listen", "at least one address is needed", faults);
        }
        let endpoints = root.texts("public_endpoints", faults).unwrap_or_default();
        let public_endpoints = root.parse_all("public_endpoints", &endpoints, faults, endpoint);
        let access_keys = Self::keys(&mut root, faults);
        let data_dir =
            root.text("data_dir", faults).unwrap_or_else(|| "./hookwire-data".to_owned());
        let shards = root.number("shards", 0, 0..=1_024, faults);
        let limits = root
            .section("limits", faults)
            .map_or_else(Limits::default, |limits| read_limits(limits, faults));
        let (templates, upstream) = read_upstream(root.section("upstream", faults), faults);
        let mut metrics_public = false;
        if let Some(mut metrics) = root.section("metrics", faults) {
            metrics_public = metrics.flag("public", faults).unwrap_or(false);
            metrics.finish(faults);
        }
        if let Some(defaults) = root.section("defaults", faults) {
            read_hub(defaults, warnings, faults);
        }
        for mut hub in root.sections("hub", faults) {
            match hub.text("name", faults).map(|name| HubName::parse(&name)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => hub.fault("name", &error.to_string(), faults),
                None => hub.fault("name", "is missing", faults),
            }
            read_hub(hub, warnings, faults);
        }
        root.finish(faults);
        Self {
            listen,
            public_endpoints,
            access_keys,
            data_dir: data_dir.into(),
            templates,
            shards,
            limits,
            upstream,
            metrics_public,
            echo: false,
        }
    }

    fn keys(root: &mut Section, faults: &mut Vec<ConfigFault>) -> Vec<AccessKey> {
        let keys = root.texts("access_keys", faults).unwrap_or_default();
        let mut all = root.parse_all("access_keys", &keys, faults, |key| {
            AccessKey::parse(key).map_err(|error| error.to_string())
        });
        let files = root.texts("access_key_files", faults).unwrap_or_default();
        all.extend(root.parse_all("access_key_files", &files, faults, |file| {
            let key = std::fs::read_to_string(file)
                .map_err(|error| format!("cannot read {file:?}: {error}"))?;
            AccessKey::parse(key.trim_end_matches(['\r', '\n'])).map_err(|error| error.to_string())
        }));
        if keys.is_empty() && files.is_empty() {
            root.fault("access_keys", "at least one key is needed (or access_key_files)", faults);
        }
        if 2 < keys.len() + files.len() {
            root.fault(
                "access_keys",
                "at most two keys are used: a primary and a secondary",
                faults,
            );
        }
        all
    }
}

fn endpoint(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("{text:?} is not a URL: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") || url.path() != "/" || url.query().is_some() {
        return Err(format!(
            "{text:?} must be http:// or https:// with a host and perhaps a port, nothing more"
        ));
    }
    Ok(url)
}

fn read_limits(mut section: Section, faults: &mut Vec<ConfigFault>) -> Limits {
    let d = Limits::default();
    let bytes = 1_024..=1024 * 1024 * 1024;
    let mut size = |name, default| section.number(name, default, bytes.clone(), faults);
    let message_bytes_max = size("message_bytes_max", d.message_bytes_max);
    let rest_body_bytes_max = size("rest_body_bytes_max", d.rest_body_bytes_max);
    let slow_bytes_max = size("slow_consumer_bytes_max", d.slow_bytes_max);
    let outbox_bytes_max = size("outbox_bytes_max", d.outbox_bytes_max);
    let incomplete_bytes_max = size("incomplete_bytes_max", d.incomplete_bytes_max);
    let mut time = |name, default: Duration| section.seconds(name, default, faults);
    let limits = Limits {
        message_bytes_max,
        rest_body_bytes_max,
        slow_bytes_max,
        outbox_bytes_max,
        incomplete_bytes_max,
        ping_interval: time("ping_interval_seconds", d.ping_interval),
        slow_time_max: time("slow_consumer_seconds_max", d.slow_time_max),
        incomplete_time_max: time("incomplete_seconds_max", d.incomplete_time_max),
        handshake_time_max: time("handshake_seconds_max", d.handshake_time_max),
        shutdown_time_max: time("shutdown_seconds_max", d.shutdown_time_max),
    };
    section.finish(faults);
    limits
}

fn read_upstream(
    section: Option<Section>,
    faults: &mut Vec<ConfigFault>,
) -> (TemplatesDocument, UpstreamLimits) {
    let d = UpstreamLimits::default();
    let Some(mut section) = section else { return (TemplatesDocument::default(), d) };
    let limits = UpstreamLimits {
        connect_time_max: section.seconds("connect_seconds_max", d.connect_time_max, faults),
        time_max: section.seconds("seconds_max", d.time_max, faults),
        calls_in_flight_max: section.number(
            "calls_in_flight_max",
            d.calls_in_flight_max,
            2..=65_536,
            faults,
        ),
    };
    let mut document = TemplatesDocument::default();
    for mut template in section.sections("template", faults) {
        document.templates.push(TemplateDocument {
            hub_pattern: template.text("hub_pattern", faults),
            category_pattern: template.text("category_pattern", faults),
            event_pattern: template.text("event_pattern", faults),
            url_template: template.text("url_template", faults).unwrap_or_default(),
        });
        template.finish(faults);
    }
    if let Err(errors) = Templates::parse(&document) {
        for error in errors {
            let key = match error.property {
                "hubPattern" => "hub_pattern",
                "categoryPattern" => "category_pattern",
                "eventPattern" => "event_pattern",
                _ => "url_template",
            };
            section.fault(
                &format!("template[{}].{key}", error.index),
                &error.fault.to_string(),
                faults,
            );
        }
    }
    section.finish(faults);
    (document, limits)
}

/// Reads the keys of the Web PubSub dialect, which is not served yet: they are checked as far as their types go.
fn read_hub(mut hub: Section, warnings: &mut Vec<String>, faults: &mut Vec<ConfigFault>) {
    let mut waits = Vec::new();
    if let Some(policy) = hub.text("anonymous_connect", faults) {
        if !matches!(policy.as_str(), "allow" | "deny") {
            hub.fault("anonymous_connect", "must be \"allow\" or \"deny\"", faults);
        }
        waits.push("anonymous_connect");
    }
    for mut handler in hub.sections("event_handler", faults) {
        if handler.text("url_template", faults).is_none() {
            handler.fault("url_template", "is missing", faults);
        }
        handler.text("user_event_pattern", faults);
        handler.texts("system_events", faults);
        handler.finish(faults);
        waits.push("event_handler");
    }
    for key in waits {
        warnings.push(format!("{}: the Web PubSub endpoints are not served yet", hub.path(key)));
    }
    hub.finish(faults);
}

/// Puts the value of an environment variable into the table, at the path that its name spells.
fn overlay(table: &mut Table, name: &str, path: &str, text: &str, faults: &mut Vec<ConfigFault>) {
    let mut fault = |fault: String| faults.push(ConfigFault { path: name.to_owned(), fault });
    let value =
        match format!("value = {text}").parse::<Table>().map(|mut table| table.remove("value")) {
            Ok(Some(value)) => value,
            Ok(None) | Err(_) => {
                return fault(
                    "the value is not TOML; text needs quotes, such as '\"127.0.0.1:8080\"'"
                        .to_owned(),
                );
            }
        };
    let levels: Vec<String> = path.split("__").map(str::to_ascii_lowercase).collect();
    let (Some(last), Some(parents)) = (levels.last(), levels.get(..levels.len() - 1)) else {
        return;
    };
    let mut at = table;
    for level in parents {
        let next = at.entry(level.clone()).or_insert_with(|| Value::Table(Table::new()));
        match next {
            Value::Table(table) => at = table,
            Value::String(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_)
            | Value::Array(_) => return fault(format!("{level} is not a table")),
        }
    }
    at.insert(last.clone(), value);
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "0123456789abcdef0123456789abcdef";

    fn load(text: &str, environment: &[(&str, &str)]) -> Result<(Config, Vec<String>), String> {
        let environment =
            environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Config::load(text, environment).map_err(|faults| faults.to_string())
    }

    #[test]
    fn the_documented_file_is_read_whole() {
        let text = format!(
            r#"
            listen = ["localhost:9000", "[::1]:9001"]
            public_endpoints = ["https://hooks.example"]
            access_keys = ["{KEY}", "{KEY}x"]
            data_dir = "/var/lib/hookwire"
            [defaults]
            anonymous_connect = "deny"
            [[hub]]
            name = "chat"
            anonymous_connect = "allow"
            [[hub.event_handler]]
            url_template = "http://127.0.0.1:7071/eventhandler?hub={{hub}}&event={{event}}"
            user_event_pattern = "*"
            system_events = ["connect", "connected", "disconnected"]
            [upstream]
            seconds_max = 1.5
            [[upstream.template]]
            hub_pattern = "advanced_chat_demo"
            url_template = "http://127.0.0.1:7071/api/{{event}}"
            [limits]
            message_bytes_max = 2048
            "#
        );
        let (config, warnings) = load(&text, &[]).unwrap();
        assert_eq!(config.listen[0].to_string(), "127.0.0.1:9000");
        assert_eq!(config.access_keys.len(), 2);
        assert_eq!(config.templates.templates.len(), 1);
        assert_eq!(config.upstream.time_max, Duration::from_millis(1_500));
        assert_eq!(config.limits.message_bytes_max, 2_048);
        assert_eq!(warnings.len(), 3, "features that wait: {warnings:?}");
        assert!(!format!("{config:?}").contains(KEY), "keys are never printed");
        assert!(config.host_names(&[]).contains("hooks.example"));
    }

    #[test]
    fn all_faults_are_reported_together_with_their_paths() {
        let text = r#"
            listen = ["nowhere"]
            access_keys = ["short"]
            colour = "blue"
            [limits]
            message_bytes_max = -1
            ping_interval_seconds = "x"
            [[upstream.template]]
            url_template = "ftp://x/"
            hub_pattern = "a b"
            [[hub]]
            name = "9"
        "#;
        let faults =
            load(text, &[("HOOKWIRE_DATA_DIR", "unquoted text"), ("PATH", "x")]).unwrap_err();
        for path in [
            "listen[0]: ",
            "access_keys[0]: ",
            "colour: unknown key",
            "limits.message_bytes_max: ",
            "limits.ping_interval_seconds: ",
            "upstream.template[0].url_template: ",
            "upstream.template[0].hub_pattern: ",
            "hub[0].name: ",
            "HOOKWIRE_DATA_DIR: ",
        ] {
            assert!(faults.contains(path), "{path} is missing in\n{faults}");
        }
        assert!(!faults.contains("short"), "a key is not repeated");
        assert!(load("", &[]).unwrap_err().contains("access_keys: at least one"));
    }

    #[test]
    fn the_environment_stands_above_the_file() {
        let text = format!("access_keys = [\"{KEY}\"]\nshards = 1");
        let (config, _) = load(
            &text,
            &[
                ("HOOKWIRE_SHARDS", "2"),
                ("HOOKWIRE_LIMITS__PING_INTERVAL_SECONDS", "5"),
                ("HOOKWIRE_LISTEN", "[\"127.0.0.1:0\"]"),
                ("HOOKWIRE_UPSTREAM__TEMPLATE", "[{ url_template = \"http://h/{event}\" }]"),
            ],
        )
        .unwrap();
        assert_eq!((config.shards, config.limits.ping_interval), (2, Duration::from_secs(5)));
        assert_eq!(config.listen[0].port(), 0);
        assert_eq!(config.templates.templates.len(), 1);
        assert!(
            load(&text, &[("HOOKWIRE_NO_SUCH", "1")]).unwrap_err().contains("no_such: unknown key")
        );
    }

    #[test]
    fn endpoints_come_from_the_listeners_when_none_are_named() {
        let (config, _) = load(&format!("access_keys = [\"{KEY}\"]"), &[]).unwrap();
        let bound = ["0.0.0.0:81".parse().unwrap(), "[::1]:82".parse().unwrap()];
        let endpoints: Vec<String> = config.endpoints(&bound).iter().map(Url::to_string).collect();
        assert_eq!(endpoints, ["http://localhost:81/", "http://[::1]:82/"]);
    }
}
