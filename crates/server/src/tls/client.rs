//! Certificates of clients: who is asked for one, which are accepted, and what upstreams are told of them.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hookwire_proto::cloud_event::ClientCertificate;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{
    CryptoProvider, WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature,
};
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoClientAuth, VerifierBuilderError, WebPkiClientVerifier};
use rustls::{DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme};
use sha1::{Digest, Sha1};

use super::{TlsError, authorities};
use crate::config::ClientCertificates;

/// Base64 digits in a line of PEM (RFC 7468, section 2).
const PEM_LINE: usize = 64;

/// Returns what judges certificates of clients: by the authorities in `ca_files`; without any, every certificate is accepted whose key
/// the client has. Blocks on the files.
///
/// # Errors
/// [`TlsError`]
pub(super) fn verifier(
    wanted: ClientCertificates,
    ca_files: &[PathBuf],
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let is_required = match wanted {
        ClientCertificates::Off => return Ok(Arc::new(NoClientAuth)),
        ClientCertificates::Optional => false,
        ClientCertificates::Required => true,
    };
    if ca_files.is_empty() {
        let algorithms = provider.signature_verification_algorithms;
        return Ok(Arc::new(AnyCertificate { algorithms, is_required }));
    }
    let mut roots = RootCertStore::empty();
    for file in ca_files {
        let found = authorities(file)
            .map_err(|source| TlsError::Authorities { file: file.display().to_string(), source })?;
        roots.roots.extend(found.roots);
    }
    let builder = WebPkiClientVerifier::builder_with_provider(roots.into(), provider.clone());
    let builder = if is_required { builder } else { builder.allow_unauthenticated() };
    builder
        .build()
        .map_err(|error: VerifierBuilderError| TlsError::SetUp(Error::General(error.to_string())))
}

/// Returns what upstreams are told of the certificate that a client has shown first.
pub(crate) fn describe(shown: &CertificateDer<'_>) -> ClientCertificate {
    let mut thumbprint = String::new();
    for byte in Sha1::digest(shown) {
        write!(thumbprint, "{byte:02X}").expect("writing to a string cannot fail");
    }
    let mut content = "-----BEGIN CERTIFICATE-----\n".to_owned();
    for line in STANDARD.encode(shown).as_bytes().chunks(PEM_LINE) {
        content.extend(line.iter().map(|digit| char::from(*digit)));
        content.push('\n');
    }
    content.push_str("-----END CERTIFICATE-----\n");
    ClientCertificate { thumbprint, content }
}

/// Accepts every certificate whose key the client has. Who issued it, when it ends and what it is for is the upstream's business, as in
/// Azure Web PubSub.
#[derive(Debug)]
struct AnyCertificate {
    algorithms: WebPkiSupportedAlgorithms,
    is_required: bool,
}

impl ClientCertVerifier for AnyCertificate {
    fn client_auth_mandatory(&self) -> bool {
        self.is_required
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject;

    use super::*;

    #[test]
    fn a_thumbprint_is_in_upper_case_and_the_content_is_pem() {
        // FIPS 180, "abc".
        let told = describe(&CertificateDer::from(b"abc".to_vec()));
        assert_eq!(told.thumbprint, "A9993E364706816ABA3E25717850C26C9CD0D89D");
        let certificate = CertificateDer::from(vec![7; 100]);
        let told = describe(&certificate);
        assert_eq!(CertificateDer::from_pem_slice(told.content.as_bytes()).unwrap(), certificate);
        assert!(told.content.lines().all(|line| line.len() <= PEM_LINE));
    }
}
