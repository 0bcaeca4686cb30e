//! TLS on the service's side: certificates, the choice between them, and what rustls is told.
//!
//! A handshake takes the certificates in force when its client came; connections keep theirs.

mod certificate;
mod client;

use std::error::Error;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::crypto::aws_lc_rs;
use rustls::server::ServerConfig;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

pub use self::certificate::{CertificateError, not_after};
use self::certificate::{Choice, Loaded};
pub(crate) use self::certificate::{authorities, check};
pub(crate) use self::client::describe;
use crate::config::TlsConfig;
use crate::file_watch::FileWatch;
use crate::swap::Swap;

/// What is offered by ALPN (RFC 7301): a WebSocket needs HTTP/1.1, and so far nothing else is spoken.
const ALPN: &[u8] = b"http/1.1";

/// When certificates that could not be used are read again though the files look the same.
const RELOAD_AGAIN: Duration = Duration::from_mins(1);

/// Why TLS cannot be spoken.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate cannot be used.
    #[error("the certificate {chain} cannot be used")]
    Certificate {
        /// Its file.
        chain: String,
        /// Why.
        source: CertificateError,
    },
    /// A file with certificates of authorities cannot be used.
    #[error("the authorities in {file} cannot be used")]
    Authorities {
        /// The file.
        file: String,
        /// Why.
        source: CertificateError,
    },
    /// The cryptography of this build cannot do what is needed.
    #[error("TLS cannot be set up")]
    SetUp(#[from] rustls::Error),
}

/// Returns what speaks TLS with these certificates, for tools that serve beside the node. Blocks on the files.
///
/// # Errors
/// [`TlsError`]
pub fn server_config(config: &TlsConfig) -> Result<Arc<ServerConfig>, TlsError> {
    Ok(Current::load(config)?.server)
}

/// Returns the public authorities and those in `files`. Blocks on them.
///
/// # Errors
/// [`TlsError::Authorities`]
pub(crate) fn roots(files: &[PathBuf]) -> Result<RootCertStore, TlsError> {
    let mut roots: RootCertStore = webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect();
    for file in files {
        let found = authorities(file)
            .map_err(|source| TlsError::Authorities { file: file.display().to_string(), source })?;
        roots.roots.extend(found.roots);
    }
    Ok(roots)
}

/// TLS as it is spoken now.
pub(crate) struct Tls {
    config: TlsConfig,
    current: Swap<Current>,
}

/// What was read from the files.
struct Current {
    server: Arc<ServerConfig>,
    /// Each certificate's file, and when it ends, as time since 1970.
    ends: Vec<(String, Duration)>,
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Tls {
    /// Reads the files, and watches them from then on. Blocks on them.
    ///
    /// # Errors
    /// [`TlsError`]: which file, and why.
    pub(crate) fn load(config: TlsConfig) -> Result<(Self, FileWatch), TlsError> {
        let files = FileWatch::new(config.files().map(Path::to_owned));
        let current = Swap::new(Current::load(&config)?);
        Ok((Self { config, current }, files))
    }

    /// Returns what speaks TLS with the next client.
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.current.get().server.clone().into()
    }

    /// Puts certificates in force when their files change, until `stop`. Files that cannot be used change nothing.
    pub(crate) async fn watch(self: Arc<Self>, mut files: FileWatch, stop: CancellationToken) {
        self.publish();
        let mut failed = false;
        loop {
            let next = async {
                tokio::select! {
                    _ = files.changed() => {}
                    () = tokio::time::sleep(RELOAD_AGAIN), if failed => {}
                }
            };
            if stop.run_until_cancelled(next).await.is_none() {
                return;
            }
            let tls = self.clone();
            let reloading = tokio::task::spawn_blocking(move || tls.reload());
            // It fails when the runtime ends.
            let Ok(result) = reloading.await else { return };
            failed = result.is_err();
            let label = if result.is_ok() { "done" } else { "failed" };
            ::metrics::counter!("hookwire_certificate_reloads_total", "result" => label)
                .increment(1);
            match result {
                Ok(()) => tracing::info!("new certificates are in force"),
                Err(error) => tracing::error!(
                    error = %with_sources(&error),
                    "changed certificates cannot be used; those in force stay"
                ),
            }
            self.publish();
        }
    }

    /// Reads the files again. Blocks on them.
    fn reload(&self) -> Result<(), TlsError> {
        self.current.set(Current::load(&self.config)?);
        Ok(())
    }

    /// Tells when the certificates in force end.
    fn publish(&self) {
        for (file, end) in &self.current.get().ends {
            ::metrics::gauge!("hookwire_certificate_not_after_timestamp_seconds", "certificate" => file.clone())
                .set(end.as_secs_f64());
        }
    }
}

impl Current {
    fn load(config: &TlsConfig) -> Result<Self, TlsError> {
        let mut certificates = Vec::with_capacity(config.certificates.len());
        let mut ends = Vec::with_capacity(config.certificates.len());
        for files in &config.certificates {
            let chain = files.chain.display().to_string();
            let loaded = Loaded::read(files)
                .map_err(|source| TlsError::Certificate { chain: chain.clone(), source })?;
            ends.push((chain, loaded.not_after));
            certificates.push(loaded.key);
        }
        let provider = Arc::new(aws_lc_rs::default_provider());
        let clients =
            client::verifier(config.client_certificates, &config.client_ca_files, &provider)?;
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_client_cert_verifier(clients)
            .with_cert_resolver(Arc::new(Choice(certificates)));
        server.alpn_protocols = vec![ALPN.to_vec()];
        // Sessions are resumed by tickets, whose keys change with the certificates; nothing is kept for clients that are gone.
        server.ticketer = aws_lc_rs::Ticketer::new()?;
        server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(Self { server: Arc::new(server), ends })
    }
}

/// Returns an error and all that led to it.
pub(crate) fn with_sources(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}
