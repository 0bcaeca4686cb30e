//! Configuration: a TOML file and environment variables become a checked [`Config`], or a list of all faults.
//!
//! The schema is described in `docs/configuration.md`. A key whose feature does not exist yet is accepted with a warning.

mod address_range;
mod environment;
mod hubs;
mod limits;
mod oidc;
mod reader;
mod tls;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use hookwire_proto::handler::HubsSettings;
use hookwire_proto::signature::{ACCESS_KEY_BYTES_MAX, AccessKey};
use hookwire_proto::template::{TEMPLATES_MAX, TemplateDocument, Templates, TemplatesDocument};
use hookwire_proto::token::HostNames;
use toml::{Table, Value};
use url::Url;

pub use self::address_range::{AddressRange, AddressRangeError};
use self::environment::Environment;
pub use self::limits::{Limits, UpstreamLimits};
pub use self::oidc::{OidcConfig, RestAccess};
use self::reader::Section;
pub use self::tls::{CertificateFiles, ClientCertificates, TlsConfig};

/// Every setting, checked.
#[derive(Debug, Clone)]
pub struct Config {
    /// Addresses for clients, REST and management, without TLS.
    pub listen: Vec<SocketAddr>,
    /// The same with TLS.
    pub tls: TlsConfig,
    /// Names by which clients and upstreams know the service; empty: derived from `listen` once that is bound.
    pub public_endpoints: Vec<Url>,
    /// One or two keys; the first signs what the service signs.
    pub access_keys: Vec<AccessKey>,
    /// Where the service keeps what it must remember.
    pub data_dir: PathBuf,
    /// The upstreams until others are set at run time.
    pub templates: TemplatesDocument,
    /// What clients of Web PubSub may do, and who is told of it.
    pub hubs: HubsSettings,
    /// Shards; 0: one per core.
    pub shards: usize,
    /// Limits of the client side.
    pub limits: Limits,
    /// Limits of upstream calls.
    pub upstream: UpstreamLimits,
    /// Files with certificates of authorities that may vouch for upstreams and identity providers, beside the public ones.
    pub upstream_ca_files: Vec<PathBuf>,
    /// Identity providers whose tokens the REST API accepts.
    pub oidc: Vec<OidcConfig>,
    /// Addresses at which no upstream is called.
    pub refused_addresses: Vec<AddressRange>,
    /// Whether `/metrics` answers everybody.
    pub metrics_public: bool,
    /// Whether the console is served.
    pub console: bool,
    /// Sends each client message back instead of to an upstream: for load tests and conformance suites; not in the file.
    pub echo: bool,
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
    /// Returns the configuration of a file's text with environment variables above it, and warnings for people. Reads the files that
    /// hold access keys.
    ///
    /// # Errors
    /// All faults together; text that is no TOML is one fault, since what it means is unknown. No fault repeats a value that could be
    /// a key.
    pub fn load<Name: Into<OsString>, Content: Into<OsString>>(
        text: &str,
        environment: impl IntoIterator<Item = (Name, Content)>,
    ) -> Result<(Self, Vec<String>), ConfigFaults> {
        Self::load_noting(text, environment, &mut Vec::new())
    }

    /// As [`Config::load`]; notes in `files` which files are part of the configuration, also when there are faults.
    ///
    /// # Errors
    /// Those of [`Config::load`].
    pub fn load_noting<Name: Into<OsString>, Content: Into<OsString>>(
        text: &str,
        environment: impl IntoIterator<Item = (Name, Content)>,
        files: &mut Vec<PathBuf>,
    ) -> Result<(Self, Vec<String>), ConfigFaults> {
        let mut faults = Vec::new();
        let environment = environment.into_iter().map(|(name, value)| (name.into(), value.into()));
        let environment = Environment::parse(environment, &mut faults);
        let mut table = text.parse::<Table>().map_err(|error| {
            faults.push(not_toml(text, &error));
            ConfigFaults(std::mem::take(&mut faults))
        })?;
        environment.overlay(&mut table, &mut faults);
        note_files(&table, files);
        let mut warnings = Vec::new();
        let config = Self::read(Section::new("", table), &mut warnings, &mut faults);
        environment.name_origins(&mut faults);
        if faults.is_empty() { Ok((config, warnings)) } else { Err(ConfigFaults(faults)) }
    }

    /// Returns a configuration made in code: one address, one key, one folder, everything else by default.
    pub fn for_one_machine(listen: SocketAddr, key: AccessKey, data_dir: &Path) -> Self {
        Self {
            listen: vec![listen],
            tls: TlsConfig::default(),
            public_endpoints: Vec::new(),
            access_keys: vec![key],
            data_dir: data_dir.to_owned(),
            templates: TemplatesDocument::default(),
            hubs: HubsSettings::default(),
            shards: 0,
            limits: Limits::default(),
            upstream: UpstreamLimits::default(),
            upstream_ca_files: Vec::new(),
            oidc: Vec::new(),
            refused_addresses: AddressRange::metadata_services(),
            metrics_public: false,
            console: true,
            echo: false,
        }
    }

    /// Returns the host names that tokens may name, given where the service really listens.
    ///
    /// # Panics
    /// Never: the endpoints are checked URLs.
    pub fn host_names(&self, bound: &[SocketAddr]) -> HostNames {
        let endpoints = self.endpoints(bound);
        let hosts: Vec<&str> = endpoints.iter().filter_map(Url::host_str).collect();
        HostNames::parse(hosts).expect("a URL's host is a host name")
    }

    /// Returns the public endpoints; those of the bound addresses when none are configured, with TLS first. Those in `bound`
    /// that speak TLS stand last.
    ///
    /// # Panics
    /// Never: every address makes a URL.
    pub fn endpoints(&self, bound: &[SocketAddr]) -> Vec<Url> {
        if !self.public_endpoints.is_empty() {
            return self.public_endpoints.clone();
        }
        let endpoint = |scheme: &str, address: &SocketAddr| {
            let text = if address.ip().is_unspecified() {
                format!("{scheme}://localhost:{}", address.port())
            } else {
                // Without the scope of an IPv6 address, which no URL can carry.
                format!("{scheme}://{}", SocketAddr::new(address.ip(), address.port()))
            };
            Url::parse(&text).expect("an address makes a URL")
        };
        let (plain, secure) = bound.split_at(bound.len().saturating_sub(self.tls.listen.len()));
        let secure = secure.iter().map(|address| endpoint("https", address));
        secure.chain(plain.iter().map(|address| endpoint("http", address))).collect()
    }

    fn read(mut root: Section, warnings: &mut Vec<String>, faults: &mut Vec<ConfigFault>) -> Self {
        let tls = root
            .section("tls", faults)
            .map_or_else(TlsConfig::default, |part| TlsConfig::read(part, faults));
        let listen = read_listen(&mut root, &tls, faults);
        let endpoints = root.texts("public_endpoints", faults).unwrap_or_default();
        let public_endpoints = root.parse_all("public_endpoints", &endpoints, faults, endpoint);
        let access_keys = read_keys(&mut root, faults);
        let data_dir =
            root.text("data_dir", faults).unwrap_or_else(|| "./hookwire-data".to_owned());
        if data_dir.is_empty() {
            root.fault("data_dir", "must name a folder", faults);
        }
        let shards = root.number("shards", 0, 0..=1_024, faults);
        let limits = root
            .section("limits", faults)
            .map_or_else(Limits::default, |limits| Limits::read(limits, faults));
        let upstream = root
            .section("upstream", faults)
            .map_or_else(UpstreamPart::default, |part| UpstreamPart::read(part, faults));
        let oidc = OidcConfig::read_all(&mut root, faults);
        let console = root.flag("console", faults).unwrap_or(true);
        let mut metrics_public = false;
        if let Some(mut metrics) = root.section("metrics", faults) {
            metrics_public = metrics.flag("public", faults).unwrap_or(false);
            metrics.finish(faults);
        }
        let hubs = hubs::read(&mut root, warnings, faults);
        root.finish(faults);
        Self {
            listen,
            tls,
            public_endpoints,
            access_keys,
            data_dir: data_dir.into(),
            templates: upstream.templates,
            hubs,
            shards,
            limits,
            upstream: upstream.limits,
            upstream_ca_files: upstream.ca_files,
            oidc,
            refused_addresses: upstream.refused_addresses,
            metrics_public,
            console,
            echo: false,
        }
    }
}

/// Notes the files that a table names: by keys that end in `_file` or `_files`, at any depth. Certificates and token
/// files are looked at again by those who use them.
fn note_files(table: &Table, files: &mut Vec<PathBuf>) {
    for (key, value) in table {
        match value {
            Value::String(file) if key.ends_with("_file") => files.push(file.into()),
            Value::Array(list) if key.ends_with("_files") => {
                files.extend(list.iter().filter_map(Value::as_str).map(PathBuf::from));
            }
            Value::Array(list) => {
                list.iter().filter_map(Value::as_table).for_each(|table| note_files(table, files));
            }
            Value::Table(table) if key != "tls" => note_files(table, files),
            Value::Table(_)
            | Value::String(_)
            | Value::Integer(_)
            | Value::Float(_)
            | Value::Boolean(_)
            | Value::Datetime(_) => {}
        }
    }
}

/// Returns where and why the text is no TOML, without the text: it may hold keys.
fn not_toml(text: &str, error: &toml::de::Error) -> ConfigFault {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    let fault = format!("line {line}, column {column}: {}", error.message());
    ConfigFault { path: "(file)".to_owned(), fault }
}

fn read_listen(
    root: &mut Section,
    tls: &TlsConfig,
    faults: &mut Vec<ConfigFault>,
) -> Vec<SocketAddr> {
    let before = faults.len();
    let listen = read_addresses(root, "listen", faults);
    let listen = listen.unwrap_or_else(|| vec![SocketAddr::from(([127, 0, 0, 1], 8080))]);
    if before == faults.len() && listen.is_empty() && tls.listen.is_empty() {
        root.fault("listen", "at least one address is needed, here or in tls.listen", faults);
    }
    tls.check_against(&listen, faults);
    listen
}

/// Reads a list of addresses, each of which may stand there once.
fn read_addresses(
    section: &mut Section,
    key: &str,
    faults: &mut Vec<ConfigFault>,
) -> Option<Vec<SocketAddr>> {
    let texts = section.texts(key, faults)?;
    let addresses: Vec<SocketAddr> = section.parse_all(key, &texts, faults, |text| {
        let address = match text.strip_prefix("localhost:") {
            Some(port) => format!("127.0.0.1:{port}").parse(),
            None => text.parse(),
        };
        address.map_err(|_| format!("{text:?} is not an address and port such as 127.0.0.1:8080"))
    });
    let mut known = BTreeSet::new();
    for address in &addresses {
        // Each port 0 becomes a port of its own.
        if address.port() != 0 && !known.insert(address) {
            section.fault(key, &format!("{address} is listed twice"), faults);
        }
    }
    Some(addresses)
}

fn read_keys(root: &mut Section, faults: &mut Vec<ConfigFault>) -> Vec<AccessKey> {
    let key = |text: &str| AccessKey::parse(text).map_err(|error| error.to_string());
    let before = faults.len();
    let texts = root.texts("access_keys", faults).unwrap_or_default();
    let files = root.texts("access_key_files", faults).unwrap_or_default();
    let mut keys = root.parse_all("access_keys", &texts, faults, key);
    keys.extend(root.parse_all("access_key_files", &files, faults, |file| {
        // The name is not repeated: a key could have been put here.
        let text = read_secret_file(Path::new(file), ACCESS_KEY_BYTES_MAX)
            .map_err(|error| format!("cannot be read: {error}"))?;
        key(&text)
    }));
    match texts.len() + files.len() {
        0 if before == faults.len() => {
            root.fault("access_keys", "at least one key is needed (or access_key_files)", faults);
        }
        0..=ACCESS_KEYS_MAX => {}
        _ => root.fault(
            "access_keys",
            "at most two keys are used, those of access_key_files included: a primary and a secondary",
            faults,
        ),
    }
    keys
}

/// Returns a file's text without the line end that editors add. Reads little more than `bytes_max`, so that what is longer shows.
fn read_secret_file(file: &Path, bytes_max: usize) -> std::io::Result<String> {
    const LINE_END_BYTES_MAX: u64 = 2;
    let mut text = String::new();
    let limit = bytes_max as u64 + LINE_END_BYTES_MAX + 1;
    File::open(file)?.take(limit).read_to_string(&mut text)?;
    let line = text.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    Ok(line.map_or_else(|| text.clone(), str::to_owned))
}

fn endpoint(text: &str) -> Result<Url, String> {
    // The text is not repeated: it could hold a password.
    let url = Url::parse(text).map_err(|error| format!("is not a URL: {error}"))?;
    let is_bare = url.username().is_empty()
        && url.password().is_none()
        && url.path() == "/"
        && url.query().is_none()
        && url.fragment().is_none();
    if is_bare && matches!(url.scheme(), "http" | "https") {
        return Ok(url);
    }
    Err("must be http:// or https:// with a host and perhaps a port, nothing more".to_owned())
}

/// What stands under `[upstream]`.
#[derive(Debug)]
struct UpstreamPart {
    templates: TemplatesDocument,
    limits: UpstreamLimits,
    ca_files: Vec<PathBuf>,
    refused_addresses: Vec<AddressRange>,
}

impl Default for UpstreamPart {
    fn default() -> Self {
        Self {
            templates: TemplatesDocument::default(),
            limits: UpstreamLimits::default(),
            ca_files: Vec::new(),
            refused_addresses: AddressRange::metadata_services(),
        }
    }
}

impl UpstreamPart {
    fn read(mut section: Section, faults: &mut Vec<ConfigFault>) -> Self {
        let mut part = Self::default();
        let d = part.limits;
        part.limits = UpstreamLimits {
            connect_time_max: section.seconds("connect_seconds_max", d.connect_time_max, faults),
            time_max: section.seconds("seconds_max", d.time_max, faults),
            calls_in_flight_max: section.number(
                "calls_in_flight_max",
                d.calls_in_flight_max,
                2..=65_536,
                faults,
            ),
        };
        part.ca_files = tls::read_ca_files(&mut section, "ca_files", faults);
        if let Some(ranges) = section.texts("refused_addresses", faults) {
            part.refused_addresses =
                section.parse_all("refused_addresses", &ranges, faults, |range| {
                    range.parse().map_err(|error: AddressRangeError| error.to_string())
                });
        }
        let templates = section.sections("template", faults);
        if TEMPLATES_MAX < templates.len() {
            let fault = format!("only {TEMPLATES_MAX} templates are allowed");
            section.fault("template", &fault, faults);
        }
        for template in templates {
            part.templates.templates.extend(read_template(template, faults));
        }
        section.finish(faults);
        part
    }
}

/// Reads one template; `None` when its URL is missing, which is then among the faults.
fn read_template(mut section: Section, faults: &mut Vec<ConfigFault>) -> Option<TemplateDocument> {
    let hub_pattern = section.text("hub_pattern", faults);
    let category_pattern = section.text("category_pattern", faults);
    let event_pattern = section.text("event_pattern", faults);
    let url_template = section.required_text("url_template", faults);
    let template = url_template.map(|url_template| TemplateDocument {
        hub_pattern,
        category_pattern,
        event_pattern,
        url_template,
    });
    let alone = TemplatesDocument { templates: template.iter().cloned().collect() };
    for error in Templates::parse(&alone).err().unwrap_or_default() {
        let key = match error.property {
            "hubPattern" => "hub_pattern",
            "categoryPattern" => "category_pattern",
            "eventPattern" => "event_pattern",
            _ => "url_template",
        };
        section.fault(key, &error.fault.to_string(), faults);
    }
    section.finish(faults);
    template
}

/// A primary and a secondary, so that keys can be rotated.
const ACCESS_KEYS_MAX: usize = 2;

#[cfg(test)]
mod tests;
