//! What is measured: a service started for it, or one that runs already.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use hookwire_client::{ClientAccess, ClientEndpointOptions, Service, ServiceClient};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde::Serialize;
use url::{Position, Url};

use super::callers::ask;
use super::child::{Child, Run};
use super::form::Form;
use super::meter::Meter;
use super::process::{OTHER_FILES, Process, Used, allow_open_files, pin};
use super::publisher::Publisher;
use super::swarm::{Door, Entrance, Opening, Swarm};
use super::upstream::Upstream;
use super::wire::{self, Answer, Upgrade};

/// Most shards of a service that is started for a measurement.
pub(super) const SHARDS_MAX: u16 = 256;

/// The version of Web PubSub's REST API that is called.
const API_VERSION: &str = "2024-12-01";

/// How long tokens of REST calls are good for: longer than any benchmark runs.
const TOKEN_LIFETIME: Duration = Duration::from_hours(24);

/// The arguments that name a server which runs already.
pub(super) const RUNNING: &str = "running";

/// Which of the two protocols is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
pub(super) enum Dialect {
    /// That of the preview
    #[serde(rename = "preview")]
    Preview,
    /// That of Web PubSub
    #[value(name = "web-pubsub")]
    #[serde(rename = "web-pubsub")]
    WebPubSub,
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Preview => "the preview",
            Self::WebPubSub => "Web PubSub",
        })
    }
}

/// Which service is measured.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub(crate) struct TargetArguments {
    /// Measure this service instead of one started for it: `Endpoint=…;Port=…;AccessKey=…;`
    ///
    /// Other users of this machine can see arguments.
    #[arg(long, value_name = "TEXT", group = RUNNING)]
    connection_string: Option<String>,
    /// Process of that service on this machine, for its CPU time and memory
    #[arg(long, requires = RUNNING)]
    pid: Option<u32>,
    /// Count the CPU time of its descendants as well
    #[arg(long, requires = "pid")]
    pid_tree: bool,
    /// Load a service that is not on this machine
    #[arg(long)]
    allow_remote: bool,
    /// Shards of the service that is started
    #[arg(long, default_value_t = 1, conflicts_with = RUNNING,
          value_parser = clap::value_parser!(u16).range(1..=i64::from(SHARDS_MAX)))]
    shards: u16,
    /// Run the service that is started on the last core and the load on the others
    #[arg(long, conflicts_with = RUNNING)]
    pin: bool,
    /// Have clients of the service that is started speak TLS; REST calls go without
    #[arg(long, conflicts_with = RUNNING)]
    tls: bool,
    /// Have the service that is started compress, and clients offer it
    #[arg(long, conflicts_with = RUNNING)]
    compression: bool,
}

/// A service that can be measured.
#[derive(Debug)]
pub(super) struct Target {
    /// Ends with this value.
    child: Option<Child>,
    process: Option<Process>,
    meter: Option<Meter>,
    service: Service,
    web_pubsub: ServiceClient,
    address: SocketAddr,
    authority: String,
    /// Of simple clients.
    entrance: Arc<Entrance>,
    /// Where clients speak TLS, and how.
    secure: Option<(SocketAddr, Arc<ClientConfig>)>,
    /// The core that the service has for itself.
    pub(super) core: Option<usize>,
}

impl TargetArguments {
    /// Returns whether messages are compressed.
    pub(super) const fn compression(&self) -> bool {
        self.compression
    }

    /// Returns the shards of the service if it is started here.
    pub(super) fn shards(&self) -> Option<u16> {
        self.connection_string.is_none().then_some(self.shards)
    }

    /// Returns the process of a server that runs already.
    pub(super) fn process(&self) -> Option<Process> {
        self.pid.map(if self.pid_tree { Process::tree } else { Process::new })
    }

    pub(super) const fn allow_remote(&self) -> bool {
        self.allow_remote
    }

    /// Starts or finds the service. `connections` of this process will be open at once, and as many in the service.
    pub(super) fn open(&self, connections: usize, run: Run<'_>) -> anyhow::Result<Target> {
        self.open_before(None, connections, run)
    }

    /// The same. A service that is started believes an upstream that speaks TLS.
    pub(super) fn open_before(
        &self,
        upstream: Option<&Upstream>,
        connections: usize,
        run: Run<'_>,
    ) -> anyhow::Result<Target> {
        allow_open_files(connections as u64 + OTHER_FILES)?;
        let hub = format!("bench{:016x}", u64::from_be_bytes(random()?));
        if let Some(connection_string) = &self.connection_string {
            ensure!(!matches!(run, Run::Counted(_)), "only what is started here can be counted");
            let mut target = Target::new(None, connection_string, &hub, self.allow_remote, false)?;
            target.process = self.process();
            target.meter = target.process.map(Meter::Cpu);
            return Ok(target);
        }
        self.start(&hub, run, "127.0.0.1:0".parse()?, upstream.and_then(Upstream::authority))
    }

    /// Starts a service at an address.
    fn start(
        &self,
        hub: &str,
        run: Run<'_>,
        listen: SocketAddr,
        authority: Option<&Path>,
    ) -> anyhow::Result<Target> {
        let listen = format!("--listen={listen}");
        let authority = authority.map(|file| format!("--upstream-authority={}", file.display()));
        let further = [(self.tls, "--tls"), (self.compression, "--compression")];
        let further = further.iter().filter_map(|(is_set, name)| is_set.then_some(*name));
        let further: Vec<_> =
            further.chain([listen.as_str()]).chain(authority.as_deref()).collect();
        let (child, core) = start("server", self.shards, self.pin, run, &further)?;
        let secure = self.tls.then(|| secure(&child)).transpose()?;
        let connection_string = child.told("connection_string")?.to_owned();
        let target = Target::new(Some(child), &connection_string, hub, false, self.compression)?;
        Ok(Target { secure, core, ..target })
    }

    /// Waits until a service that was started here, and was told to end, has done so; starts another at the same address.
    pub(super) fn start_again(&self, target: Target, run: Run<'_>) -> anyhow::Result<Target> {
        let Target { child, address, service, .. } = target;
        child.context("the service was not started here")?.wait()?;
        self.start(service.hub().as_str(), run, address, None)
    }
}

impl Target {
    fn new(
        child: Option<Child>,
        connection_string: &str,
        hub: &str,
        allow_remote: bool,
        compression: bool,
    ) -> anyhow::Result<Self> {
        let service = Service::new(connection_string, hub)?;
        let (address, authority) = locate(service.endpoint(), allow_remote)?;
        Ok(Self {
            process: child.as_ref().map(Child::process),
            meter: child.as_ref().map(Child::meter),
            child,
            web_pubsub: ServiceClient::new(connection_string, hub)?,
            service,
            address,
            authority,
            entrance: Arc::new(Entrance::silent(Upgrade::new(random()?, compression))),
            secure: None,
            core: None,
        })
    }

    pub(super) const fn process(&self) -> Option<Process> {
        self.process
    }

    /// Returns what the service has used so far, once it is at rest, if its process is known.
    pub(super) fn used_at_rest(&self) -> anyhow::Result<Option<Used>> {
        self.meter.as_ref().map(Meter::used_at_rest).transpose()
    }

    pub(super) const fn service(&self) -> &Service {
        &self.service
    }

    pub(super) const fn web_pubsub(&self) -> &ServiceClient {
        &self.web_pubsub
    }

    /// Returns the sum of a metric over its labels.
    ///
    /// # Errors
    /// The service does not tell it.
    pub(super) fn metric(&self, name: &str) -> anyhow::Result<u64> {
        let request = format!("GET /metrics HTTP/1.1\r\nHost: {}\r\n\r\n", self.authority);
        let metrics = ask(self.address, request.as_bytes()).context("the metrics did not come")?;
        let metrics = Answer::parse(&metrics)?.context("the metrics are not whole")?;
        sum(&metrics.text(), name).with_context(|| format!("there is no metric {name}"))
    }

    /// Returns how a swarm gets in.
    pub(super) fn door(&self, in_flight: usize) -> Door {
        let (address, tls) = self
            .secure
            .as_ref()
            .map_or((self.address, None), |(address, tls)| (*address, Some(tls.clone())));
        Door { address, tls, in_flight }
    }

    /// Returns the opening of a simple client with a token of its own, in the query as a browser sends it.
    pub(super) fn opening(&self, user: &str) -> anyhow::Result<Opening> {
        let options = ClientEndpointOptions {
            user: Some(user.to_owned()),
            ..ClientEndpointOptions::default()
        };
        Ok(self.opening_at(&self.service.client_endpoint(&options)?, self.entrance.clone()))
    }

    /// Returns the opening of a simple client of either dialect with a token of its own.
    pub(super) fn opening_in(&self, dialect: Dialect, user: &str) -> anyhow::Result<Opening> {
        match dialect {
            Dialect::Preview => self.opening(user),
            Dialect::WebPubSub => {
                self.opening_as(&ClientAccess::new().user(user), self.entrance.clone())
            }
        }
    }

    /// Leads events to an upstream: of the preview, one of them; of Web PubSub, all.
    ///
    /// # Errors
    /// The service runs already and has upstreams of its own.
    pub(super) fn lead_to(
        &self,
        upstream: &Upstream,
        dialect: Dialect,
        event: &str,
    ) -> anyhow::Result<()> {
        ensure!(
            self.child.is_some(),
            "a service that runs already has upstreams of its own, which are not replaced"
        );
        let hub = self.service.hub().as_str();
        let (method, path, settings) = match dialect {
            Dialect::Preview => {
                ("POST", "/manage/v1/ws/upstream".to_owned(), upstream.settings(hub, event))
            }
            Dialect::WebPubSub => {
                ("PUT", format!("/admin/v1/hubs/{hub}/settings"), upstream.handler())
            }
        };
        let json = "application/json";
        let request = self.request(method, &path, TOKEN_LIFETIME, json, settings.as_bytes());
        ask(self.address, &request).map(drop)
    }

    /// Returns a REST call with a token of this lifetime for its path.
    pub(super) fn request(
        &self,
        method: &str,
        path: &str,
        lifetime: Duration,
        content_type: &str,
        body: &[u8],
    ) -> Vec<u8> {
        let token = self.service.rest_token(path, lifetime);
        wire::request(method, &self.authority, path, Some(&token), content_type, body)
    }

    /// Returns the opening of a simple client without a token.
    pub(super) fn anonymous_opening(&self) -> Opening {
        self.opening_at(&self.service.anonymous_client_endpoint(None), self.entrance.clone())
    }

    /// Returns the entrance of clients of one form, which they share.
    pub(super) fn entrance(&self, form: Form) -> Arc<Entrance> {
        form.map_or_else(
            || self.entrance.clone(),
            |subprotocol| Arc::new(Entrance::speaking(&self.entrance.upgrade, subprotocol)),
        )
    }

    /// Returns the entrance of clients whose handler sees the first `head_bytes` of all that they are told.
    pub(super) fn handled(&self, form: Form, head_bytes: usize) -> Arc<Entrance> {
        Arc::new(Entrance::handled(&self.entrance.upgrade, form, head_bytes))
    }

    /// Returns the opening of a client that gets in by a path and query.
    pub(super) fn opening_by(&self, path_and_query: &str, entrance: Arc<Entrance>) -> Opening {
        let request = entrance.upgrade.request(&self.authority, path_and_query);
        Opening { request, entrance: Some(entrance) }
    }

    /// Returns the opening of a client of Web PubSub whose token says who it is and what groups it is in.
    pub(super) fn opening_as(
        &self,
        access: &ClientAccess,
        entrance: Arc<Entrance>,
    ) -> anyhow::Result<Opening> {
        Ok(self.opening_at(&self.web_pubsub.client_access(access)?.url, entrance))
    }

    fn opening_at(&self, url: &Url, entrance: Arc<Entrance>) -> Opening {
        self.opening_by(&url[Position::BeforePath..Position::AfterQuery], entrance)
    }

    /// Returns where the REST API is, and its name with the port.
    pub(super) fn address(&self) -> (SocketAddr, &str) {
        (self.address, &self.authority)
    }

    /// Returns a caller of the REST API, as the guest of `swarm`.
    pub(super) fn publisher(&self, swarm: &Swarm) -> anyhow::Result<Publisher> {
        Publisher::connect(self.address, &self.authority, swarm.registry())
    }
}

/// Returns path and query of a URL by which a client of Web PubSub gets into a hub.
pub(super) fn way_in(hub: &ServiceClient, access: &ClientAccess) -> anyhow::Result<String> {
    let url = hub.client_access(access)?.url;
    Ok(url[Position::BeforePath..Position::AfterQuery].to_owned())
}

/// Returns path and token of a REST call of Web PubSub's dialect. `path` follows the hub's own.
pub(super) fn call(hub: &ServiceClient, path: &str) -> (String, String) {
    let path = format!("/api/hubs/{}/{path}?api-version={API_VERSION}", hub.hub());
    let token = hub.rest_token(&path, TOKEN_LIFETIME);
    (path, token)
}

/// Returns the sum of a metric's samples in a text of the Prometheus format.
fn sum(metrics: &str, name: &str) -> Option<u64> {
    let samples = metrics.lines().filter_map(|line| line.strip_prefix(name));
    let samples = samples.filter(|rest| rest.starts_with(['{', ' ']));
    samples
        .map(|rest| rest.rsplit_once(' ')?.1.parse().ok())
        .reduce(|sum, next| Some(sum? + next?))?
}

/// Returns where a child speaks TLS, and how its clients do: each with a whole handshake.
fn secure(child: &Child) -> anyhow::Result<(SocketAddr, Arc<ClientConfig>)> {
    let mut config = believing(child.told("authority")?)?;
    config.resumption = Resumption::disabled();
    Ok((child.told("secure_listen")?.parse()?, Arc::new(config)))
}

/// Returns how a client speaks TLS that believes an authority, whose certificate is given in PEM, and nobody else.
pub(super) fn believing(authority: &str) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes())?)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// Returns where the host of an `http` or `ws` URL is, and its name with the port.
///
/// # Errors
/// It is not this machine and that is not allowed: the load may look like an attack.
pub(super) fn locate(url: &Url, allow_remote: bool) -> anyhow::Result<(SocketAddr, String)> {
    ensure!(
        matches!(url.scheme(), "http" | "ws"),
        "the load generator speaks no TLS: the service's address must start with http:// or ws://"
    );
    let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else {
        bail!("the service's address has no host");
    };
    let name = host.trim_start_matches('[').trim_end_matches(']');
    let address = (name, port)
        .to_socket_addrs()
        .with_context(|| format!("{host} cannot be found"))?
        .next()
        .with_context(|| format!("{host} has no address"))?;
    ensure!(
        allow_remote || address.ip().is_loopback(),
        "{host} is not this machine; --allow-remote loads it all the same"
    );
    Ok((address, format!("{host}:{port}")))
}

/// Starts a service, and keeps it and this process apart if `pinned`. Returns the core that it then has for itself.
pub(super) fn start(
    command: &str,
    shards: u16,
    pinned: bool,
    run: Run<'_>,
    further: &[&str],
) -> anyhow::Result<(Child, Option<usize>)> {
    let mut arguments =
        vec![command.to_owned(), "--until-input-ends".to_owned(), format!("--shards={shards}")];
    arguments.extend(further.iter().map(|argument| (*argument).to_owned()));
    let mut core = None;
    if pinned {
        let cores = thread::available_parallelism()?.get();
        ensure!(1 < cores, "there is one core only: --pin needs two");
        core = Some(cores - 1);
        arguments.push(format!("--core={}", cores - 1));
        pin(cores - 1, false)?;
    }
    Ok((Child::start(&arguments, run)?, core))
}

pub(super) fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_samples_of_a_metric_are_added_up() {
        let text = "# TYPE a_total counter\na_total{shard=\"0\"} 3\na_total{shard=\"1\"} 4\na_total_more 9\nb 2\n";
        assert_eq!(sum(text, "a_total"), Some(7));
        assert_eq!(sum(text, "b"), Some(2));
        assert_eq!(sum(text, "c"), None);
    }

    #[test]
    fn only_this_machine_is_loaded_unless_allowed() {
        let locate = |url: &str, allow| locate(&Url::parse(url).unwrap(), allow);
        let (address, authority) = locate("http://127.0.0.1:8080/", false).unwrap();
        assert_eq!(
            (address, authority.as_str()),
            ("127.0.0.1:8080".parse().unwrap(), "127.0.0.1:8080")
        );
        let (address, authority) = locate("ws://[::1]/", false).unwrap();
        assert_eq!((address, authority.as_str()), ("[::1]:80".parse().unwrap(), "[::1]:80"));
        let refused = locate("http://192.0.2.1:80/", false).unwrap_err().to_string();
        assert!(refused.contains("--allow-remote"), "{refused}");
        assert!(locate("http://192.0.2.1:80/", true).is_ok());
        assert!(locate("https://127.0.0.1/", true).is_err());
    }
}
