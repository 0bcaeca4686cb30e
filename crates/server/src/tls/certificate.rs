//! Certificates in files, and which of them a client gets.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls::client::verify_server_name;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use x509_cert::Certificate;
use x509_cert::der::Decode;

use crate::config::CertificateFiles;

/// Bytes of a file with certificates or a key.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Why a certificate and its key cannot be used. No text repeats what a file holds.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("cannot be read: {reason}")]
    Unreadable {
        /// Which of the two: the key of the configuration.
        key: &'static str,
        /// Why.
        reason: io::Error,
    },
    /// A file is too large.
    #[error("has more than {FILE_BYTES_MAX} bytes")]
    TooLarge {
        /// Which of the two.
        key: &'static str,
    },
    /// The file has no certificate, or a broken one.
    #[error("holds no certificates in PEM")]
    NoCertificate,
    /// The file has no private key.
    #[error("holds no private key in PEM")]
    NoKey,
    /// The key is of a kind that is not supported, or broken.
    #[error("holds a private key that cannot be used: {0}")]
    Key(rustls::Error),
    /// The two do not belong together.
    #[error("is not the private key of the certificate")]
    Mismatch,
    /// The certificate cannot be parsed.
    #[error("holds a broken certificate")]
    Broken,
}

impl CertificateError {
    /// Returns the key of the configuration that is at fault.
    pub(crate) const fn key(&self) -> &'static str {
        match self {
            Self::Unreadable { key, .. } | Self::TooLarge { key } => key,
            Self::NoCertificate | Self::Broken => "chain_file",
            Self::NoKey | Self::Key(_) | Self::Mismatch => "key_file",
        }
    }
}

/// Reads a certificate and its key, to see whether they can be used.
///
/// # Errors
/// [`CertificateError`]
pub(crate) fn check(files: &CertificateFiles) -> Result<(), CertificateError> {
    Loaded::read(files).map(drop)
}

/// Returns the authorities in a file.
///
/// # Errors
/// [`CertificateError`]
pub(crate) fn authorities(file: &Path) -> Result<RootCertStore, CertificateError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&read(file, "ca_files")?) {
        let certificate = certificate.map_err(|_| CertificateError::NoCertificate)?;
        roots.add(certificate).map_err(|_| CertificateError::Broken)?;
    }
    if roots.is_empty() { Err(CertificateError::NoCertificate) } else { Ok(roots) }
}

/// Returns when a certificate in PEM ends, as time since 1970.
///
/// # Errors
/// [`CertificateError`]
pub fn not_after(pem: &[u8]) -> Result<Duration, CertificateError> {
    let first = CertificateDer::from_pem_slice(pem).map_err(|_| CertificateError::NoCertificate)?;
    end_of(&first)
}

fn end_of(certificate: &CertificateDer<'_>) -> Result<Duration, CertificateError> {
    let parsed = Certificate::from_der(certificate).map_err(|_| CertificateError::Broken)?;
    Ok(parsed.tbs_certificate().validity().not_after.to_unix_duration())
}

/// A certificate that has been read.
#[derive(Debug)]
pub(super) struct Loaded {
    pub(super) key: Arc<CertifiedKey>,
    /// When it ends, as time since 1970.
    pub(super) not_after: Duration,
}

impl Loaded {
    pub(super) fn read(files: &CertificateFiles) -> Result<Self, CertificateError> {
        let chain = read(&files.chain, "chain_file")?;
        let chain = CertificateDer::pem_slice_iter(&chain).collect::<Result<Vec<_>, _>>();
        let chain = chain.ok().filter(|chain| !chain.is_empty());
        let chain = chain.ok_or(CertificateError::NoCertificate)?;
        let not_after = end_of(&chain[0])?;
        let key = read(&files.key, "key_file")?;
        let key = PrivateKeyDer::from_pem_slice(&key).map_err(|_| CertificateError::NoKey)?;
        let key = aws_lc_rs::sign::any_supported_type(&key).map_err(CertificateError::Key)?;
        let key = CertifiedKey::new(chain, key);
        match key.keys_match() {
            // Not every kind of key tells its public half.
            Ok(()) | Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::Unknown)) => {}
            Err(rustls::Error::InconsistentKeys(_)) => return Err(CertificateError::Mismatch),
            Err(_) => return Err(CertificateError::Broken),
        }
        Ok(Self { key: Arc::new(key), not_after })
    }
}

/// Reads a whole file of a bounded size.
fn read(file: &Path, key: &'static str) -> Result<Vec<u8>, CertificateError> {
    let mut content = Vec::new();
    File::open(file)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content))
        .map_err(|reason| CertificateError::Unreadable { key, reason })?;
    if FILE_BYTES_MAX < content.len() as u64 {
        return Err(CertificateError::TooLarge { key });
    }
    Ok(content)
}

/// Chooses by the host that a client names (RFC 6066, section 3).
#[derive(Debug)]
pub(super) struct Choice(pub(super) Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for Choice {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let (first, others) = self.0.split_first()?;
        if others.is_empty() {
            return Some(first.clone());
        }
        let name = hello.server_name().and_then(|name| ServerName::try_from(name).ok());
        let holds = |key: &&Arc<CertifiedKey>| {
            name.as_ref().is_some_and(|name| {
                let parsed = key.end_entity_cert().and_then(ParsedCertificate::try_from);
                parsed.is_ok_and(|parsed| verify_server_name(&parsed, name).is_ok())
            })
        };
        Some(self.0.iter().find(holds).unwrap_or(first).clone())
    }
}
