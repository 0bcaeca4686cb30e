//! What is measured: a service started for it, or one that runs already.

use std::net::{SocketAddr, ToSocketAddrs};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, bail, ensure};
use hookwire_client::{ClientAccess, ClientEndpointOptions, Service, ServiceClient};
use rustls::client::Resumption;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use url::{Position, Url};

use super::child::{Child, Run};
use super::form::Form;
use super::meter::Meter;
use super::process::{OTHER_FILES, Process, Used, allow_open_files, pin};
use super::publisher::Publisher;
use super::swarm::{Door, Entrance, Opening, Swarm};
use super::wire::Upgrade;

/// Most shards of a service that is started for a measurement.
pub(super) const SHARDS_MAX: u16 = 256;

/// The arguments that name a server which runs already.
pub(super) const RUNNING: &str = "running";

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
    _child: Option<Child>,
    process: Option<Process>,
    meter: Option<Meter>,
    service: Service,
    web_pubsub: ServiceClient,
    address: SocketAddr,
    authority: String,
    /// Of simple clients.
    entrance: Rc<Entrance>,
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
        allow_open_files(connections as u64 + OTHER_FILES)?;
        let hub = format!("bench{:016x}", u64::from_be_bytes(random()?));
        if let Some(connection_string) = &self.connection_string {
            ensure!(!matches!(run, Run::Counted(_)), "only what is started here can be counted");
            let mut target = Target::new(None, connection_string, &hub, self.allow_remote, false)?;
            target.process = self.process();
            target.meter = target.process.map(Meter::Cpu);
            return Ok(target);
        }
        let further = [(self.tls, "--tls"), (self.compression, "--compression")];
        let further: Vec<_> =
            further.iter().filter_map(|(is_set, name)| is_set.then_some(*name)).collect();
        let (child, core) = start("server", self.shards, self.pin, run, &further)?;
        let secure = self.tls.then(|| secure(&child)).transpose()?;
        let connection_string = child.told("connection_string")?.to_owned();
        let target = Target::new(Some(child), &connection_string, &hub, false, self.compression)?;
        Ok(Target { secure, core, ..target })
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
            _child: child,
            web_pubsub: ServiceClient::new(connection_string, hub)?,
            service,
            address,
            authority,
            entrance: Rc::new(Entrance::silent(Upgrade::new(random()?, compression))),
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

    /// Returns the opening of a simple client without a token.
    pub(super) fn anonymous_opening(&self) -> Opening {
        self.opening_at(&self.service.anonymous_client_endpoint(None), self.entrance.clone())
    }

    /// Returns the entrance of clients of one form, which they share.
    pub(super) fn entrance(&self, form: Form) -> Rc<Entrance> {
        form.map_or_else(
            || self.entrance.clone(),
            |subprotocol| Rc::new(Entrance::speaking(&self.entrance.upgrade, subprotocol)),
        )
    }

    /// Returns the opening of a client of Web PubSub whose token says who it is and what groups it is in.
    pub(super) fn opening_as(
        &self,
        access: &ClientAccess,
        entrance: Rc<Entrance>,
    ) -> anyhow::Result<Opening> {
        Ok(self.opening_at(&self.web_pubsub.client_access(access)?.url, entrance))
    }

    fn opening_at(&self, url: &Url, entrance: Rc<Entrance>) -> Opening {
        let path_and_query = &url[Position::BeforePath..Position::AfterQuery];
        let request = entrance.upgrade.request(&self.authority, path_and_query);
        Opening { request, entrance: Some(entrance) }
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

/// Returns where a child speaks TLS, and how its clients do: each with a whole handshake.
fn secure(child: &Child) -> anyhow::Result<(SocketAddr, Arc<ClientConfig>)> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(child.told("authority")?.as_bytes())?)?;
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok((child.told("secure_listen")?.parse()?, Arc::new(config)))
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
