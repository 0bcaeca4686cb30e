//! An authority of a test's own, and clients that trust it.

use std::path::Path;
use std::sync::Arc;

use hookwire_server::config::{CertificateFiles, Config};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
};
use rustls::client::ResolvesClientCert;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, RootCertStore, SignatureScheme, SupportedProtocolVersion};

/// An authority that signs certificates.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) pem: String,
}

/// A certificate, its key, and both as PEM.
pub(crate) struct Issued {
    pub(crate) certificate: CertificateDer<'static>,
    pub(crate) key: KeyPair,
    pub(crate) pem: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "authority of a test");
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let (pem, certificate) = (certificate.pem(), certificate.der().clone());
        Self { issuer: Issuer::new(params, key), certificate, pem }
    }

    /// Returns a certificate for names and addresses.
    pub(crate) fn issue(&self, names: &[&str]) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).unwrap();
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        Issued { certificate: certificate.der().clone(), pem: certificate.pem(), key }
    }

    /// Returns what a client needs that trusts the authority.
    pub(crate) fn client(&self, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
        self.client_with(versions, None)
    }

    /// Returns the same for a client that shows a certificate and signs with a key that may belong to another.
    pub(crate) fn forging_client(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        forged: &Issued,
    ) -> ClientConfig {
        let mut config = self.client(versions);
        let key = PrivatePkcs8KeyDer::from(forged.key.serialize_der()).into();
        let key = aws_lc_rs::sign::any_supported_type(&key).unwrap();
        let key = CertifiedKey::new(vec![forged.certificate.clone()], key);
        config.client_auth_cert_resolver = Arc::new(Forger(Arc::new(key)));
        config
    }

    /// Returns the same for a client with a certificate of its own.
    pub(crate) fn client_with(
        &self,
        versions: &[&'static SupportedProtocolVersion],
        own: Option<&Issued>,
    ) -> ClientConfig {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.clone()).unwrap();
        let provider = Arc::new(aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(versions).unwrap();
        let builder = builder.with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let key = PrivatePkcs8KeyDer::from(own.key.serialize_der());
                builder.with_client_auth_cert(vec![own.certificate.clone()], key.into()).unwrap()
            }
        };
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        config
    }
}

/// Shows a certificate whatever key signs.
#[derive(Debug)]
struct Forger(Arc<CertifiedKey>);

impl ResolvesClientCert for Forger {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl Issued {
    /// Writes both files, each at once, as a careful tool does.
    pub(crate) fn write(&self, files: &CertificateFiles) {
        for (file, content) in
            [(&files.chain, self.pem.clone()), (&files.key, self.key.serialize_pem())]
        {
            let fresh = file.with_extension("new");
            std::fs::write(&fresh, content).unwrap();
            std::fs::rename(&fresh, file).unwrap();
        }
    }
}

/// Returns where a certificate called `name` is kept.
pub(crate) fn files(folder: &Path, name: &str) -> CertificateFiles {
    CertificateFiles {
        chain: folder.join(format!("{name}.pem")),
        key: folder.join(format!("{name}.key")),
    }
}

/// Has a node speak TLS, too, with a certificate for itself.
pub(crate) fn speaks_tls(config: &mut Config, authority: &Authority) {
    std::fs::create_dir_all(&config.data_dir).unwrap();
    let files = files(&config.data_dir, "node");
    authority.issue(&["localhost", "127.0.0.1"]).write(&files);
    config.tls.listen = vec!["127.0.0.1:0".parse().unwrap()];
    config.tls.certificates = vec![files];
}
