//! A node: its shards, its HTTP side, its store, from start to shutdown.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use hookwire_hub::Input;
use hookwire_proto::connection_string::ConnectionString;
use hookwire_proto::handler::{HubDocument, HubSettings, SettingError};
use hookwire_proto::name::HubName;
use hookwire_proto::template::TemplateError;
use rustix::process::{Resource, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio::sync::{Mutex, Semaphore, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::Url;

use crate::auth::{IdentityProviders, KnownTokens};
use crate::body::BodyRoom;
use crate::changes::Changes;
use crate::config::Config;
use crate::console::Console;
use crate::event_log::EventLog;
use crate::file_watch::FileWatch;
use crate::handshake::HANDSHAKES_MAX;
use crate::http::{self, Edge, Rules, unix_time};
use crate::metrics::{self, ShardStats};
use crate::reload::{ReloadError, Reloader, Source};
use crate::settings::{Configured, Layers};
use crate::shard::{self, Outgoing, Shard, ShardLimits};
use crate::shards::{Shards, random};
use crate::store::{Store, StoreError};
use crate::swap::Swap;
use crate::tls::{self, Tls, TlsError};
use crate::tunnel::Tunnels;
use crate::upstream::Upstream;

/// Calls taken from a shard at once.
const CALLS_PER_BATCH_MAX: usize = 256;

/// Connections that the kernel holds until they are accepted.
const BACKLOG: i32 = 4_096;

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error("cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The configured templates are faulty.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Templates(Vec<TemplateError>),
    /// The stored settings of a hub are faulty: another version wrote them.
    #[error("the stored settings of the hub {hub}: {}", .faults.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Hub {
        /// The hub.
        hub: HubName,
        /// All faults.
        faults: Vec<SettingError>,
    },
    /// A certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The system refused a thread or an epoll instance.
    #[error("the system refused what a shard needs")]
    System(#[source] io::Error),
}

/// A running node.
#[derive(Debug)]
pub struct Node {
    edge: Arc<Edge>,
    config: Config,
    bound: Vec<SocketAddr>,
    upstream: Upstream,
    calls: TaskTracker,
    /// The shards', and the store's writer.
    threads: Vec<JoinHandle<()>>,
    reloader: Arc<Reloader>,
}

impl Node {
    /// Starts everything; when it returns, clients can connect. Needs a tokio runtime.
    ///
    /// # Errors
    /// [`StartError`]; nothing keeps running then.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let open_files = raise_open_files();
        let tls = load_tls(&config).await?;
        let (plain, mut bound) = listen(&config.listen)?;
        let (secure, bound_secure) = listen(&config.tls.listen)?;
        bound.extend(bound_secure);
        let now = u64::try_from(unix_time().as_millis()).unwrap_or(u64::MAX);
        let data_dir = config.data_dir.clone();
        let (store, restored, writer) =
            tokio::task::spawn_blocking(move || Store::open(&data_dir, now))
                .await
                .map_err(|error| StartError::System(io::Error::other(error)))??;
        let configured = Configured::of(&config).map_err(StartError::Templates)?;
        let layers = Layers::new(configured, restored.templates, stored_hubs(restored.hubs)?)
            .map_err(StartError::Templates)?;
        if layers.has_stored_templates() {
            tracing::info!("templates set at run time win over those of the configuration");
        }
        metrics::recorder();
        let tunnels = Tunnels::default();
        let log = EventLog::new(config.limits.event_log_entries);
        let upstream = upstream(&config, &bound, log.clone(), tunnels.clone()).await?;
        let count = match config.shards {
            0 => thread::available_parallelism().map_or(1, usize::from),
            count => count,
        };
        let (shared, polls) = shard::mailboxes(count).map_err(StartError::System)?;
        let shards = Shards::new(u32::from_be_bytes(random()), shared.clone());
        let calls = TaskTracker::new();
        let settings = Arc::new(layers.settings());
        let mut stats = Vec::with_capacity(count);
        let mut threads = vec![writer];
        for (index, poll) in polls.into_iter().enumerate() {
            let of_shard = Arc::new(ShardStats::default());
            stats.push(of_shard.clone());
            let send = dispatcher(index, upstream.clone(), shards.clone(), &calls);
            let mut core = Shard::new(index, limits(&config), shared.clone(), poll, of_shard, send);
            core.restore(Input::Settings(settings.clone()));
            core.restore(Input::Restored(restored.memberships.clone()));
            let thread =
                thread::Builder::new().name(format!("shard-{index}")).spawn(move || core.run());
            match thread {
                Ok(thread) => threads.push(thread),
                Err(error) => {
                    shards.stop();
                    return Err(StartError::System(error));
                }
            }
        }
        let edge = Arc::new(Edge {
            shards,
            store,
            hosts: config.host_names(&bound),
            endpoints: config.endpoints(&bound),
            rules: Swap::new(Rules {
                keys: config.access_keys.clone(),
                known_tokens: KnownTokens::default(),
                identity_providers: IdentityProviders::new(&config.oidc),
                limits: config.limits,
                metrics_public: config.metrics_public,
                revoked: CancellationToken::new(),
            }),
            stats,
            layers: Mutex::new(layers),
            changes: Changes::default(),
            bodies: BodyRoom::default(),
            handshakes: Semaphore::new(HANDSHAKES_MAX),
            leaving: AtomicBool::new(false),
            log,
            console: config.console.then(|| Console::new(&config.endpoints(&bound))),
            upstream: upstream.clone(),
            started: tokio::time::Instant::now(),
            started_at: unix_time(),
            draining: AtomicBool::new(false),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            tunnels,
        });
        let room = http::room();
        for listener in plain {
            edge.tasks.spawn(http::accept(edge.clone(), listener, None, room.clone()));
        }
        let tls = tls.map(|(tls, files)| {
            let tls = Arc::new(tls);
            edge.tasks.spawn(tls.clone().watch(files, edge.stop.clone()));
            tls
        });
        for listener in secure {
            edge.tasks.spawn(http::accept(edge.clone(), listener, tls.clone(), room.clone()));
        }
        tracing::info!(shards = count, addresses = ?bound, open_files, "started");
        let reloader = Arc::new(Reloader::new(config.clone(), edge.clone(), upstream.clone()));
        Ok(Self { edge, config, bound, upstream, calls, threads, reloader })
    }

    /// Puts another configuration in force without dropping a connection. What cannot change at run time stays, and the log says so.
    ///
    /// # Errors
    /// [`ReloadError`].
    pub async fn reload(&self, config: Config) -> Result<(), ReloadError> {
        self.reloader.reload(config).await
    }

    /// Reloads the configuration whenever it changes, and at SIGHUP, until the node shuts down.
    ///
    /// # Errors
    /// The signal cannot be listened for.
    pub fn follow(&self, source: Source) -> io::Result<()> {
        let following = self.reloader.clone().follow(source)?;
        self.edge.tasks.spawn(following);
        Ok(())
    }

    /// Returns the addresses that are listened on, in the order of the configuration, those that speak TLS last.
    pub fn addresses(&self) -> &[SocketAddr] {
        &self.bound
    }

    /// Returns the first public endpoint.
    pub fn endpoint(&self) -> Url {
        self.config.endpoints(&self.bound).swap_remove(0)
    }

    /// Returns the connection string of the first endpoint and the primary key.
    ///
    /// # Panics
    /// Never: the configuration has been checked.
    pub fn connection_string(&self) -> ConnectionString {
        ConnectionString::new(self.endpoint(), self.config.access_keys[0].clone())
            .expect("a checked endpoint makes a connection string")
    }

    /// Returns the shards, for tools that run in the same process.
    pub fn shards(&self) -> &Shards {
        &self.edge.shards
    }

    /// Shuts down: not ready, after the configured notice no new work, sockets closed with 1001, disconnect events posted within the configured time, then the rest.
    /// Returns whether everything was finished in time.
    pub async fn shutdown(self) -> bool {
        self.edge.leaving.store(true, Ordering::Relaxed);
        let limits = self.edge.limits();
        let notice = limits.shutdown_notice;
        if !notice.is_zero() {
            tracing::info!(?notice, "not ready any more; everything else goes on for now");
            tokio::time::sleep(notice).await;
        }
        let patience = limits.shutdown_time_max;
        let deadline = tokio::time::Instant::now() + patience;
        self.edge.draining.store(true, Ordering::Relaxed);
        self.edge.stop.cancel();
        self.upstream.finish();
        let drained = self.edge.shards.drain(patience).await;
        self.calls.close();
        self.edge.tasks.close();
        self.edge.shards.stop();
        let rest = async {
            self.edge.tasks.wait().await;
            let tunnels = self.edge.tunnels.clone();
            // The store's writer ends with its last user, the call queues with the shards' threads.
            drop(self.edge);
            drop(self.reloader);
            let threads = self.threads;
            let joined =
                tokio::task::spawn_blocking(move || threads.into_iter().all(|t| t.join().is_ok()));
            let joined = joined.await.unwrap_or(false);
            self.calls.wait().await;
            self.upstream.flush().await;
            // The last events have gone through them.
            tunnels.finish().await;
            joined
        };
        let finished = tokio::time::timeout_at(deadline, rest).await.unwrap_or(false);
        tracing::info!(drained, finished, "stopped");
        drained && finished
    }
}

/// Returns the checked settings of hubs that were set at run time.
fn stored_hubs(
    stored: Vec<(HubName, HubDocument)>,
) -> Result<BTreeMap<HubName, Arc<HubSettings>>, StartError> {
    let check = |(hub, document): (HubName, HubDocument)| {
        let settings = HubSettings::parse(&document);
        let settings = settings.map_err(|faults| StartError::Hub { hub: hub.clone(), faults })?;
        Ok((hub, Arc::new(settings)))
    };
    stored.into_iter().map(check).collect()
}

async fn upstream(
    config: &Config,
    bound: &[SocketAddr],
    log: EventLog,
    tunnels: Tunnels,
) -> Result<Upstream, StartError> {
    let ca_files = config.upstream_ca_files.clone();
    let roots = tokio::task::spawn_blocking(move || tls::roots(&ca_files))
        .await
        .map_err(|error| StartError::System(io::Error::other(error)))??;
    let origin = config.endpoints(bound)[0].host_str().unwrap_or_default().to_owned();
    let (keys, refused) = (config.access_keys.clone(), config.refused_addresses.clone());
    let upstream = Upstream::new(config.upstream, refused, roots, keys, origin, log, tunnels).await;
    upstream.map_err(StartError::System)
}

/// Returns what a shard calls to have an upstream called. The queue behind it has no limit of its own: a shard has at most one call
/// per connection in it, and one per handshake, which are limited.
fn dispatcher(
    index: usize,
    upstream: Upstream,
    shards: Shards,
    tracker: &TaskTracker,
) -> Box<dyn Fn(Outgoing) + Send> {
    let (sender, mut receiver) = mpsc::unbounded_channel();
    let spawner = tracker.clone();
    tracker.spawn(async move {
        let mut batch = Vec::new();
        while receiver.recv_many(&mut batch, CALLS_PER_BATCH_MAX).await != 0 {
            for outgoing in batch.drain(..) {
                let call = match outgoing {
                    Outgoing::Call(call) => call,
                    Outgoing::Copy(copy) => {
                        upstream.copy(*copy);
                        continue;
                    }
                };
                let (upstream, shards) = (upstream.clone(), shards.clone());
                // Some kilobytes, which a task would move several times.
                spawner.spawn(Box::pin(async move {
                    let hub = call.hub.clone();
                    upstream.call(call, |input| shards.upstream(index, &hub, input)).await;
                }));
            }
        }
    });
    Box::new(move |outgoing| {
        // The receiver ends only after the shard that holds this.
        let _ = sender.send(outgoing);
    })
}

/// Returns the shards' part of the limits.
pub(crate) fn limits(config: &Config) -> ShardLimits {
    let limits = &config.limits;
    ShardLimits {
        message_bytes_max: limits.message_bytes_max,
        ping_interval: limits.ping_interval,
        slow_bytes_max: limits.slow_bytes_max,
        slow_time_max: limits.slow_time_max,
        outbox_bytes_max: limits.outbox_bytes_max,
        // Encoded, a recovery buffer is larger than the payloads that it counts.
        patient_bytes_max: 2 * limits.outbox_bytes_max.max(limits.recovery_bytes_max),
        incomplete_time_max: limits.incomplete_time_max,
        incomplete_bytes_max: limits.incomplete_bytes_max,
        echo: config.echo,
    }
}

/// Reads the certificates and watches their files; `None` when no address speaks TLS.
async fn load_tls(config: &Config) -> Result<Option<(Tls, FileWatch)>, StartError> {
    if config.tls.listen.is_empty() {
        return Ok(None);
    }
    let config = config.tls.clone();
    let loaded = tokio::task::spawn_blocking(move || Tls::load(config))
        .await
        .map_err(|error| StartError::System(io::Error::other(error)))?;
    Ok(Some(loaded?))
}

fn listen(addresses: &[SocketAddr]) -> Result<(Vec<TcpListener>, Vec<SocketAddr>), StartError> {
    let mut listeners = Vec::with_capacity(addresses.len());
    let mut bound = Vec::with_capacity(addresses.len());
    for address in addresses {
        let (listener, at) = listen_on(*address)
            .map_err(|source| StartError::Listen { address: *address, source })?;
        listeners.push(listener);
        bound.push(at);
    }
    Ok((listeners, bound))
}

/// Lets the process open as many files as it may: each connection is one. Returns the limit; `None`: there is none.
fn raise_open_files() -> Option<u64> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::warn!(%error, "the limit of open files cannot be raised");
            return getrlimit(Resource::Nofile).current;
        }
    }
    limit.current
}

fn listen_on(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let socket = socket2::Socket::new(
        socket2::Domain::for_address(address),
        socket2::Type::STREAM.nonblocking(),
        Some(socket2::Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    let listener = TcpListener::from_std(socket.into())?;
    let at = listener.local_addr()?;
    Ok((listener, at))
}
