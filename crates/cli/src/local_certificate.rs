//! A certificate for this machine, from an authority of its own: what `dev --tls` speaks with.
//!
//! Both lie in the data folder. The authority can vouch for this machine alone (RFC 5280, section 4.2.1.10), so whoever trusts it
//! trusts nobody else, even if its key is lost.

use std::fs;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use hookwire_server::config::{CertificateFiles, TlsConfig};
use hookwire_server::tls::not_after;
use rcgen::{
    BasicConstraints, CertificateParams, CidrSubnet, DnType, ExtendedKeyUsagePurpose,
    GeneralSubtree, IsCa, Issuer, KeyPair, KeyUsagePurpose, NameConstraints, PublicKeyData,
    date_time_ymd,
};
use sha1::{Digest, Sha1};

/// The names of this machine for itself.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// How long the authority is valid.
const AUTHORITY_LIFETIME: Duration = days(3_650);

/// How long a certificate is valid.
const LIFETIME: Duration = days(397);

/// A certificate that ends sooner is replaced.
const LEFT_MIN: Duration = days(30);

/// How long before now a certificate begins to be valid: clocks differ.
const EARLIER: Duration = days(1);

/// Where the certificate is.
#[derive(Debug)]
pub(crate) struct LocalCertificate {
    authority: PathBuf,
    files: CertificateFiles,
}

impl LocalCertificate {
    /// Returns the certificate in the data folder, made if there is none that is still good for a month.
    ///
    /// # Errors
    /// The folder cannot be used.
    pub(crate) fn kept(data: &Path) -> anyhow::Result<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is wrong")?;
        Self::kept_at(data, now)
    }

    fn kept_at(data: &Path, now: Duration) -> anyhow::Result<Self> {
        let folder = data.join("tls");
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let authority_key = folder.join("ca.key");
        let kept = Self {
            authority: folder.join("ca.pem"),
            files: CertificateFiles {
                chain: folder.join("localhost.pem"),
                key: folder.join("localhost.key"),
            },
        };
        let is_good = |file: &Path, left: Duration| -> anyhow::Result<bool> {
            let Some(pem) = read(file)? else { return Ok(false) };
            let end = not_after(pem.as_bytes());
            let end = end.with_context(|| format!("{} cannot be used", file.display()))?;
            Ok(now + left < end)
        };
        let key = match read(&authority_key)? {
            // The authority must outlive what it vouches for.
            Some(key) if is_good(&kept.authority, LIFETIME)? => KeyPair::from_pem(&key)
                .with_context(|| format!("{} cannot be used", authority_key.display()))?,
            Some(_) | None => {
                let key = KeyPair::generate()?;
                let certificate = authority_params(&key, now).self_signed(&key)?;
                write(&authority_key, &key.serialize_pem(), 0o600)?;
                write(&kept.authority, &certificate.pem(), 0o644)?;
                // It belongs to the authority before.
                remove(&kept.files.chain)?;
                key
            }
        };
        if read(&kept.files.key)?.is_none() || !is_good(&kept.files.chain, LEFT_MIN)? {
            let own = KeyPair::generate()?;
            let issuer = Issuer::new(authority_params(&key, now), key);
            let certificate = params(now)?.signed_by(&own, &issuer)?;
            write(&kept.files.key, &own.serialize_pem(), 0o600)?;
            write(&kept.files.chain, &certificate.pem(), 0o644)?;
        }
        Ok(kept)
    }

    /// Returns the file of the authority, which clients have to trust.
    pub(crate) fn authority(&self) -> &Path {
        &self.authority
    }

    /// Returns how a service speaks TLS with the certificate.
    pub(crate) fn tls(&self) -> TlsConfig {
        TlsConfig { certificates: vec![self.files.clone()], ..TlsConfig::default() }
    }
}

/// Returns what the certificate of the authority with this key says. Its name tells it from those in other folders.
fn authority_params(key: &KeyPair, now: Duration) -> CertificateParams {
    let mut params = CertificateParams::default();
    valid(&mut params, now, AUTHORITY_LIFETIME);
    let hash = Sha1::digest(key.der_bytes());
    let name = format!("Hookwire on this machine ({:02x}{:02x}{:02x})", hash[0], hash[1], hash[2]);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let mut one = [0; 16];
    one[15] = 1;
    params.name_constraints = Some(NameConstraints {
        permitted_subtrees: vec![
            GeneralSubtree::DnsName("localhost".to_owned()),
            GeneralSubtree::IpAddress(CidrSubnet::from_v4_prefix([127, 0, 0, 0], 8)),
            GeneralSubtree::IpAddress(CidrSubnet::from_v6_prefix(one, 128)),
        ],
        excluded_subtrees: Vec::new(),
    });
    params
}

fn params(now: Duration) -> anyhow::Result<CertificateParams> {
    let mut params = CertificateParams::new(NAMES.map(str::to_owned))?;
    valid(&mut params, now, LIFETIME);
    params.distinguished_name.push(DnType::CommonName, "localhost");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    Ok(params)
}

fn valid(params: &mut CertificateParams, now: Duration, lifetime: Duration) {
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + now.saturating_sub(EARLIER);
    params.not_after = epoch + now + lifetime;
}

const fn days(days: u64) -> Duration {
    Duration::from_secs(days * 24 * 60 * 60)
}

/// Returns a file's text; `None` when there is no such file.
fn read(file: &Path) -> anyhow::Result<Option<String>> {
    match fs::read_to_string(file) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
}

/// Writes a file at once, so that nobody reads half of it.
fn write(file: &Path, text: &str, mode: u32) -> anyhow::Result<()> {
    let fresh = file.with_extension("new");
    remove(&fresh)?;
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(&fresh)
        .and_then(|mut open| open.write_all(text.as_bytes()))
        .and_then(|()| fs::rename(&fresh, file));
    written.with_context(|| format!("cannot write {}", file.display()))
}

fn remove(file: &Path) -> anyhow::Result<()> {
    match fs::remove_file(file) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error).with_context(|| format!("cannot remove {}", file.display())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn it_is_kept_as_long_as_it_is_good_and_the_authority_outlives_it() {
        let folder = tempfile::tempdir().unwrap();
        let now = days(20_000);
        let at = |now| {
            let kept = LocalCertificate::kept_at(folder.path(), now).unwrap();
            let read = |file: &Path| fs::read_to_string(file).unwrap();
            (read(&kept.authority), read(&kept.files.chain))
        };
        let (authority, first) = at(now);
        assert_eq!(at(now), (authority.clone(), first.clone()));
        assert_eq!(at(now + days(366)).1, first);
        let (same, second) = at(now + days(367));
        assert!(same == authority && second != first, "the certificate alone is replaced");
        let (other, third) = at(now + days(3_650 - 397));
        assert!(other != authority && third != second, "both are replaced");
        let ends = |pem: &str| not_after(pem.as_bytes()).unwrap();
        assert!(ends(&third) <= ends(&other));
        for key in ["ca.key", "localhost.key"] {
            let mode =
                fs::metadata(folder.path().join("tls").join(key)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{key} is for its owner alone");
        }
    }

    #[test]
    fn what_is_no_certificate_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        LocalCertificate::kept(folder.path()).unwrap();
        fs::write(folder.path().join("tls/ca.pem"), "mine").unwrap();
        let error = format!("{:#}", LocalCertificate::kept(folder.path()).unwrap_err());
        assert!(error.contains("ca.pem cannot be used"), "{error}");
    }
}
