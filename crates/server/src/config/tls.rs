//! `[tls]`: where TLS is spoken, with which certificates, and what is asked of clients.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use super::ConfigFault;
use super::reader::Section;
use crate::tls;

/// Files with certificates of authorities.
const CA_FILES_MAX: usize = 64;

/// Certificates of one node; each may hold many names.
const CERTIFICATES_MAX: usize = 64;

/// Where TLS is spoken, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsConfig {
    /// Addresses that speak TLS and nothing else.
    pub listen: Vec<SocketAddr>,
    /// The first is for clients that name no host that another one holds.
    pub certificates: Vec<CertificateFiles>,
    /// Who has to show a certificate of its own.
    pub client_certificates: ClientCertificates,
    /// Files with certificates of the authorities of clients; without any, a client's certificate may be from anybody.
    pub client_ca_files: Vec<PathBuf>,
}

/// What is asked of clients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ClientCertificates {
    /// No certificate.
    #[default]
    Off,
    /// A certificate if they have one.
    Optional,
    /// A certificate.
    Required,
}

/// A certificate and its key, both in PEM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFiles {
    /// The certificate, then those that lead from it to its authority.
    pub chain: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

impl TlsConfig {
    /// Returns every file that TLS needs.
    pub(crate) fn files(&self) -> impl Iterator<Item = &Path> {
        let pairs = self.certificates.iter();
        let own = pairs.flat_map(|files| [files.chain.as_path(), files.key.as_path()]);
        own.chain(self.client_ca_files.iter().map(PathBuf::as_path))
    }

    /// Reads `[tls]`, and tries the files that it names.
    pub(super) fn read(mut section: Section, faults: &mut Vec<ConfigFault>) -> Self {
        let before = faults.len();
        let listen = super::read_addresses(&mut section, "listen", faults).unwrap_or_default();
        let sections = section.sections("certificate", faults);
        if CERTIFICATES_MAX < sections.len() {
            let fault = format!("only {CERTIFICATES_MAX} certificates are allowed");
            section.fault("certificate", &fault, faults);
        }
        let mut certificates = Vec::new();
        for mut certificate in sections {
            let chain = certificate.required_text("chain_file", faults);
            let key = certificate.required_text("key_file", faults);
            if let (Some(chain), Some(key)) = (chain, key) {
                let files = CertificateFiles { chain: chain.into(), key: key.into() };
                if let Err(error) = tls::check(&files) {
                    certificate.fault(error.key(), &error.to_string(), faults);
                }
                certificates.push(files);
            }
            certificate.finish(faults);
        }
        if before == faults.len() && listen.is_empty() != certificates.is_empty() {
            let missing = if listen.is_empty() { "listen" } else { "certificate" };
            section.fault(missing, "is needed: addresses and certificates belong together", faults);
        }
        let client_certificates = read_client_certificates(&mut section, faults);
        let client_ca_files = read_ca_files(&mut section, "client_ca_files", faults);
        if client_certificates == ClientCertificates::Off && !client_ca_files.is_empty() {
            let fault = "has no meaning while client_certificates is \"off\"";
            section.fault("client_ca_files", fault, faults);
        }
        section.finish(faults);
        Self { listen, certificates, client_certificates, client_ca_files }
    }

    /// Reports addresses that are listened on without TLS too.
    pub(super) fn check_against(&self, plain: &[SocketAddr], faults: &mut Vec<ConfigFault>) {
        let plain: BTreeSet<_> = plain.iter().filter(|address| address.port() != 0).collect();
        for address in self.listen.iter().filter(|address| plain.contains(address)) {
            let fault = format!("{address} stands in listen too, where no TLS is spoken");
            faults.push(ConfigFault { path: "tls.listen".to_owned(), fault });
        }
    }
}

fn read_client_certificates(
    section: &mut Section,
    faults: &mut Vec<ConfigFault>,
) -> ClientCertificates {
    match section.text("client_certificates", faults).as_deref() {
        None | Some("off") => ClientCertificates::Off,
        Some("optional") => ClientCertificates::Optional,
        Some("required") => ClientCertificates::Required,
        Some(_) => {
            let fault = "must be \"off\", \"optional\" or \"required\"";
            section.fault("client_certificates", fault, faults);
            ClientCertificates::Off
        }
    }
}

/// Reads a list of files with certificates of authorities, and tries them.
pub(super) fn read_ca_files(
    section: &mut Section,
    key: &str,
    faults: &mut Vec<ConfigFault>,
) -> Vec<PathBuf> {
    let files = section.texts(key, faults).unwrap_or_default();
    if CA_FILES_MAX < files.len() {
        section.fault(key, &format!("only {CA_FILES_MAX} files are allowed"), faults);
    }
    section.parse_all(key, &files, faults, |file| {
        tls::authorities(Path::new(file)).map_err(|error| error.to_string())?;
        Ok(file.into())
    })
}
