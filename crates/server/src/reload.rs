//! Reloading: the configuration is read again when it changes, and put in force as a whole or not at all.
//!
//! Connections stay. What a node is built on (its addresses, its folder, its threads) stays too, whatever the file says.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use hookwire_proto::signature::AccessKey;
use hookwire_proto::template::TemplateError;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::auth::KnownTokens;
use crate::config::{Config, ConfigFaults};
use crate::file_watch::FileWatch;
use crate::http::{Edge, Rules};
use crate::node::limits;
use crate::settings::Configured;
use crate::shards::NoAnswer;
use crate::upstream::Upstream;

/// Why a configuration cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The file cannot be read.
    #[error("cannot read {}", .file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It can be read, but not used.
    #[error(transparent)]
    Faults(#[from] ConfigFaults),
}

/// Why a configuration was not put in force.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// Its templates are faulty; nothing was changed.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Templates(Vec<TemplateError>),
    /// A shard did not take it: some have it, others may not yet.
    #[error(transparent)]
    NoAnswer(#[from] NoAnswer),
}

/// Where a configuration comes from: a file, the environment, and the files that these name.
#[derive(Debug)]
pub struct Source {
    file: Option<PathBuf>,
    environment: Vec<(OsString, OsString)>,
    watch: FileWatch,
}

impl Source {
    /// Returns a source; `environment` stands above the file. Blocks.
    pub fn new(
        file: Option<PathBuf>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Self {
        let watch = FileWatch::new(file.clone());
        Self { file, environment: environment.into_iter().collect(), watch }
    }

    /// Returns the configuration as it is now, and warnings for people. What changes later is noticed. Blocks.
    ///
    /// # Errors
    /// [`SourceError`].
    pub fn load(&mut self) -> Result<(Config, Vec<String>), SourceError> {
        let mut files = Vec::new();
        let read = self.read(&mut files);
        // With faults too: one of these files may be what is wrong.
        if read.is_ok() || !files.is_empty() {
            self.watch.set_files(self.file.iter().cloned().chain(files));
        }
        read?;
        // Once more, since the files that it names may have changed before they were watched.
        self.read(&mut Vec::new())
    }

    fn read(&self, files: &mut Vec<PathBuf>) -> Result<(Config, Vec<String>), SourceError> {
        let text = match &self.file {
            Some(file) => std::fs::read_to_string(file)
                .map_err(|source| SourceError::Read { file: file.clone(), source })?,
            None => String::new(),
        };
        Ok(Config::load_noting(&text, self.environment.iter().cloned(), files)?)
    }
}

/// Puts configurations in force, one after the other.
#[derive(Debug)]
pub(crate) struct Reloader {
    /// What is in force.
    current: Mutex<Config>,
    edge: Arc<Edge>,
    upstream: Upstream,
}

impl Reloader {
    pub(crate) fn new(config: Config, edge: Arc<Edge>, upstream: Upstream) -> Self {
        Self { current: Mutex::new(config), edge, upstream }
    }

    /// Reloads whenever the source changes, and at SIGHUP, until the edge stops.
    ///
    /// # Errors
    /// The signal cannot be listened for.
    pub(crate) fn follow(
        self: Arc<Self>,
        mut source: Source,
    ) -> io::Result<impl Future<Output = ()> + use<>> {
        let mut hangups = signal(SignalKind::hangup())?;
        Ok(async move {
            loop {
                tokio::select! {
                    changed = source.watch.changed() => {
                        tracing::info!(files = ?changed, "the configuration has changed");
                    }
                    Some(()) = hangups.recv() => tracing::info!("told to read the configuration again"),
                    () = self.edge.stop.cancelled() => return,
                }
                let reading = tokio::task::spawn_blocking(move || {
                    let loaded = source.load();
                    (source, loaded)
                });
                let Ok((read, loaded)) = reading.await else { return };
                source = read;
                match loaded {
                    Ok((config, warnings)) => {
                        for warning in warnings {
                            tracing::warn!("{warning}");
                        }
                        // The log and the metric have what came of it.
                        let _ = self.reload(config).await;
                    }
                    Err(error) => refuse(&error),
                }
            }
        })
    }

    /// Puts a configuration in force.
    ///
    /// # Errors
    /// [`ReloadError`].
    pub(crate) async fn reload(&self, config: Config) -> Result<(), ReloadError> {
        let mut current = self.current.lock().await;
        let mut config = config;
        for key in keep_fixed(&current, &mut config) {
            tracing::warn!(key, "this cannot change while the service runs; it takes a restart");
        }
        let changes = changes(&current, &config);
        let result = self.put_in_force(&config).await;
        match &result {
            Ok(()) => {
                count(if changes.is_empty() { "unchanged" } else { "applied" });
                tracing::info!(changes = changes.join(", "), "the configuration was reloaded");
                *current = config;
            }
            Err(error) => {
                count(match error {
                    ReloadError::Templates(_) => "faulty",
                    ReloadError::NoAnswer(_) => "failed",
                });
                tracing::error!(%error, "the configuration was not reloaded");
            }
        }
        result
    }

    async fn put_in_force(&self, config: &Config) -> Result<(), ReloadError> {
        let configured = Configured::of(config).map_err(ReloadError::Templates)?;
        // Held to the end, so that what is set at run time meanwhile comes after.
        let mut layers = self.edge.layers.lock().await;
        if layers.has_stored_templates() {
            tracing::info!("templates set at run time win over those of the configuration");
        }
        layers.set_configured(configured);
        // Old tokens first: a key that was taken out opens no door that the rest of this may close.
        let before = self.edge.rules();
        let opens_the_same = keys(&before.keys) == keys(&config.access_keys)
            && before.identity_providers.are(&config.oidc);
        self.edge.rules.set(Rules {
            keys: config.access_keys.clone(),
            known_tokens: KnownTokens::default(),
            identity_providers: before.identity_providers.reconfigured(&config.oidc),
            limits: config.limits,
            metrics_public: config.metrics_public,
            revoked: if opens_the_same { before.revoked.clone() } else { CancellationToken::new() },
        });
        if !opens_the_same {
            before.revoked.cancel();
        }
        self.upstream.set(config.upstream, config.access_keys.clone());
        self.edge.shards.apply_limits(limits(config)).await?;
        self.edge.apply(&layers).await?;
        Ok(())
    }
}

/// Says why a configuration that was read is not used.
fn refuse(error: &SourceError) {
    count("faulty");
    match error {
        SourceError::Faults(ConfigFaults(faults)) => {
            for fault in faults {
                tracing::error!(%fault, "the configuration has a fault, the one before stays");
            }
        }
        SourceError::Read { source, .. } => {
            tracing::error!(%error, %source, "the configuration before stays");
        }
    }
}

fn count(result: &'static str) {
    metrics::counter!("hookwire_configuration_reloads_total", "result" => result).increment(1);
}

/// Gives the new configuration the values of the running one that cannot change at run time; returns the keys where they differed.
fn keep_fixed(running: &Config, new: &mut Config) -> Vec<&'static str> {
    let mut kept = Vec::new();
    let mut keep = |key, differs| {
        if differs {
            kept.push(key);
        }
    };
    keep("listen", running.listen != new.listen);
    keep("tls", running.tls != new.tls);
    keep("public_endpoints", running.public_endpoints != new.public_endpoints);
    keep("data_dir", running.data_dir != new.data_dir);
    keep("shards", running.shards != new.shards);
    keep("console", running.console != new.console);
    keep(
        "limits.event_log_entries",
        running.limits.event_log_entries != new.limits.event_log_entries,
    );
    keep("upstream.ca_files", running.upstream_ca_files != new.upstream_ca_files);
    keep("upstream.refused_addresses", running.refused_addresses != new.refused_addresses);
    keep(
        "upstream.calls_in_flight_max",
        running.upstream.calls_in_flight_max != new.upstream.calls_in_flight_max,
    );
    new.listen.clone_from(&running.listen);
    new.tls.clone_from(&running.tls);
    new.public_endpoints.clone_from(&running.public_endpoints);
    new.data_dir.clone_from(&running.data_dir);
    new.shards = running.shards;
    new.console = running.console;
    new.limits.event_log_entries = running.limits.event_log_entries;
    new.upstream_ca_files.clone_from(&running.upstream_ca_files);
    new.refused_addresses.clone_from(&running.refused_addresses);
    new.upstream.calls_in_flight_max = running.upstream.calls_in_flight_max;
    kept
}

fn keys(keys: &[AccessKey]) -> Vec<&str> {
    keys.iter().map(AccessKey::reveal).collect()
}

/// Returns the parts of the configuration that differ and can change at run time.
fn changes(running: &Config, new: &Config) -> Vec<&'static str> {
    let parts = [
        ("access_keys", keys(&running.access_keys) != keys(&new.access_keys)),
        ("limits", running.limits != new.limits),
        ("upstream", running.upstream != new.upstream),
        ("upstream.template", running.templates != new.templates),
        ("hub", running.hubs != new.hubs),
        ("oidc", running.oidc != new.oidc),
        ("metrics", running.metrics_public != new.metrics_public),
    ];
    parts.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}
