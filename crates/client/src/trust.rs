//! Whom to believe that a service is who it says it is.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// The authorities whose certificates are accepted behind `https://` and `wss://`: the public ones, and those that are added.
#[derive(Clone)]
pub struct Trust(Arc<RootCertStore>);

impl Default for Trust {
    fn default() -> Self {
        let roots = webpki_roots::TLS_SERVER_ROOTS.to_vec();
        Self(Arc::new(RootCertStore { roots }))
    }
}

impl fmt::Debug for Trust {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Trust").field("authorities", &self.0.len()).finish()
    }
}

impl Trust {
    /// Adds the authorities of a file with certificates in PEM, such as the one that `hookwire dev --tls` names.
    ///
    /// # Errors
    /// [`TrustError`]
    pub fn and_file(self, file: impl AsRef<Path>) -> Result<Self, TrustError> {
        let file = file.as_ref();
        let mut pem = Vec::new();
        File::open(file)
            .and_then(|open| open.take(PEM_BYTES_MAX + 1).read_to_end(&mut pem))
            .map_err(|source| TrustError::Unreadable { file: file.to_owned(), source })?;
        self.and_pem(&pem)
    }

    /// Adds the authorities of certificates in PEM.
    ///
    /// # Errors
    /// [`TrustError::NoCertificate`]
    pub fn and_pem(mut self, pem: &[u8]) -> Result<Self, TrustError> {
        let roots = Arc::make_mut(&mut self.0);
        let before = roots.len();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|_| TrustError::NoCertificate)?;
            roots.add(certificate).map_err(|_| TrustError::NoCertificate)?;
        }
        if roots.len() == before || PEM_BYTES_MAX < pem.len() as u64 {
            return Err(TrustError::NoCertificate);
        }
        Ok(self)
    }

    pub(crate) fn client_config(&self) -> Result<ClientConfig, rustls::Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        Ok(builder.with_root_certificates(self.0.clone()).with_no_client_auth())
    }
}

/// Why authorities cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file cannot be read.
    #[error("cannot read {}", file.display())]
    Unreadable {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It holds no certificate in PEM, a broken one, or more than a megabyte.
    #[error("no certificates in PEM, or broken ones")]
    NoCertificate,
}

/// Most bytes of certificates.
const PEM_BYTES_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_added_is_trusted_beside_the_public_authorities() {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let public = Trust::default();
        let more = public.clone().and_pem(made.cert.pem().as_bytes()).unwrap();
        assert_eq!(more.0.len(), public.0.len() + 1);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        let error = public.clone().and_file(&file).unwrap_err().to_string();
        assert!(error.starts_with("cannot read ") && error.ends_with("ca.pem"), "{error}");
        std::fs::write(&file, made.cert.pem().repeat(2)).unwrap();
        assert_eq!(public.clone().and_file(&file).unwrap().0.len(), public.0.len() + 2);
        let broken = made.cert.pem().replace("MII", "MIJ");
        for pem in ["", "x", &made.signing_key.serialize_pem(), &broken] {
            assert!(
                matches!(public.clone().and_pem(pem.as_bytes()), Err(TrustError::NoCertificate)),
                "{pem}"
            );
        }
    }
}
