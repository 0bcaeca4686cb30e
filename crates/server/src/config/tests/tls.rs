use std::fs;

use super::*;

/// Writes two certificates and their keys into a folder.
fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a", "b"] {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(folder.path().join(format!("{name}.pem")), made.cert.pem()).unwrap();
        fs::write(folder.path().join(format!("{name}.key")), made.signing_key.serialize_pem())
            .unwrap();
    }
    fs::write(folder.path().join("neither"), "-----BEGIN nothing").unwrap();
    folder
}

#[test]
fn addresses_and_certificates_belong_together() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name).display().to_string();
    let certificate = |chain: &str, key: &str| {
        format!("[[tls.certificate]]\nchain_file = {:?}\nkey_file = {:?}\n", at(chain), at(key))
    };
    let listen = "listen = []\n[tls]\nlisten = [\"127.0.0.1:8443\"]\n";
    let good = with_key(&format!(
        "{listen}{}{}",
        certificate("a.pem", "a.key"),
        certificate("b.pem", "b.key")
    ));
    let (config, warnings) = load(&good, &[]).unwrap();
    assert_eq!((config.listen.len(), config.tls.certificates.len(), warnings.len()), (0, 2, 0));
    let bound = ["127.0.0.1:8443".parse().unwrap()];
    assert_eq!(config.endpoints(&bound)[0].as_str(), "https://127.0.0.1:8443/");

    for (chain, key, fault) in [
        ("none.pem", "a.key", "tls.certificate[0].chain_file: cannot be read: No such file"),
        ("a.pem", "none.key", "tls.certificate[0].key_file: cannot be read: No such file"),
        ("neither", "a.key", "tls.certificate[0].chain_file: holds no certificates in PEM"),
        ("a.key", "a.key", "tls.certificate[0].chain_file: holds no certificates in PEM"),
        ("a.pem", "a.pem", "tls.certificate[0].key_file: holds no private key in PEM"),
        ("a.pem", "b.key", "tls.certificate[0].key_file: is not the private key of"),
    ] {
        let found = faults(&format!("{listen}{}", certificate(chain, key)));
        assert!(found.starts_with(fault), "{found}");
    }
    for (text, fault) in [
        ("client_certificates = \"on\"", "tls.client_certificates: must be \"off\", "),
        ("client_ca_files = [\"none.pem\"]", "tls.client_ca_files[0]: cannot be read: "),
        (&*format!("client_ca_files = [{:?}]", at("a.pem")), "tls.client_ca_files: has no meaning"),
    ] {
        let found = faults(&format!("{listen}{text}\n{}", certificate("a.pem", "a.key")));
        assert!(found.starts_with(fault), "{found}");
    }
    let both = "listen = [\"127.0.0.1:8443\"]\n[tls]\nlisten = [\"127.0.0.1:8443\"]\n";
    for (text, fault) in [
        (listen.to_owned(), "tls.certificate: is needed"),
        (certificate("a.pem", "a.key"), "tls.listen: is needed"),
        (
            format!("{both}{}", certificate("a.pem", "a.key")),
            "tls.listen: 127.0.0.1:8443 stands in",
        ),
        ("tls.listen = [\"x\"]".to_owned(), "tls.listen[0]: \"x\" is not an address"),
        (
            "[[tls.certificate]]\nkey_file = \"k\"".to_owned(),
            "tls.certificate[0].chain_file: is missing",
        ),
    ] {
        let found = faults(&text);
        assert!(found.starts_with(fault), "{text} gives {found}");
    }
}
