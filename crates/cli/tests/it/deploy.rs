//! The files for deployments: what they name exists, and what they say is understood.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use hookwire_server::config::Config;

const KEY: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGH";

/// Says that a configuration was read and has faults: so the arguments before it were understood.
const FAULTY_CONFIGURATION: i32 = 2;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(file: &str) -> String {
    fs::read_to_string(root().join(file)).unwrap()
}

fn run(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hookwire"));
    command.env_clear().args(arguments).output().unwrap()
}

#[test]
fn the_unit_starts_the_service_by_a_configuration_that_is_valid() {
    let unit = read("deploy/hookwire.service");
    let value = |key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(&format!("{key}=")));
        line.unwrap_or_else(|| panic!("{key} is missing"))
    };
    let (executable, arguments) = value("ExecStart").split_once(' ').unwrap();
    assert!(executable.ends_with("/hookwire"));
    let text = read("deploy/hookwire.toml");
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    fs::write(&key, format!("{KEY}\n")).unwrap();
    let (credential, _) = value("LoadCredential").split_once(':').unwrap();
    let shown = format!("/run/credentials/hookwire.service/{credential}");
    assert!(text.contains(&shown), "the configuration names the credential");
    let text = text.replace(&shown, key.to_str().unwrap());
    let (config, warnings) = Config::load(&text, [("", ""); 0]).unwrap();
    assert_eq!(warnings, [""; 0]);
    let state = format!("/var/lib/{}", value("StateDirectory"));
    assert_eq!(config.data_dir, Path::new(&state));
    let patience = config.limits.shutdown_notice + config.limits.shutdown_time_max;
    assert!(patience.as_secs() < value("TimeoutStopSec").parse().unwrap());

    let faulty = folder.path().join("hookwire.toml");
    fs::write(&faulty, text + "\n[no_such]\n").unwrap();
    let arguments = arguments.replace("/etc/hookwire/hookwire.toml", faulty.to_str().unwrap());
    let output = run(&arguments.split(' ').collect::<Vec<_>>());
    assert_eq!(output.status.code(), Some(FAULTY_CONFIGURATION));
    assert!(String::from_utf8_lossy(&output.stderr).contains("no_such: unknown key"));
}

#[test]
fn the_image_is_built_from_what_is_there_and_runs_what_there_is() {
    let image = read("Dockerfile");
    let ignored = read(".dockerignore");
    let mut sources = 0;
    for line in image.lines().filter_map(|line| line.strip_prefix("COPY ")) {
        if line.starts_with("--from=") {
            continue;
        }
        let words: Vec<&str> = line.split(' ').collect();
        for source in &words[..words.len() - 1] {
            assert!(root().join(source).exists(), "{source}");
            assert!(ignored.lines().all(|line| line != *source), "{source}");
            sources += 1;
        }
    }
    assert!(7 <= sources, "the lines were not read");
    let list = |key: &str| -> Vec<String> {
        let line = image.lines().find_map(|line| line.split_once(key)).unwrap().1;
        serde_json::from_str(line.trim()).unwrap()
    };
    assert_eq!(list("ENTRYPOINT "), ["/usr/bin/hookwire"]);
    assert_eq!(list(" CMD "), ["/usr/bin/hookwire", "health"], "the health check");
    assert!(image.ends_with("CMD [\"serve\"]\n"));
    // The image's settings are settings; only the key is left to whoever runs it.
    let settings = image.lines().find_map(|line| line.strip_prefix("ENV ")).unwrap();
    let mut environment = vec![("HOOKWIRE_ACCESS_KEYS".to_owned(), format!("[\"{KEY}\"]"))];
    for setting in settings.split("' ") {
        let (name, value) = setting.split_once("='").unwrap();
        environment.push((name.to_owned(), value.trim_end_matches('\'').to_owned()));
    }
    let (config, _) = Config::load("", environment).unwrap();
    assert_eq!(config.listen, ["0.0.0.0:8080".parse().unwrap()]);
    let volume = image.lines().find_map(|line| line.strip_prefix("VOLUME ")).unwrap();
    assert_eq!(config.data_dir, Path::new(volume));
}

#[test]
fn the_composition_sets_settings_that_there_are() {
    let text = read("deploy/compose.yaml");
    let key = "${HOOKWIRE_KEY:?a key of 32 characters at least}";
    let mut environment = Vec::new();
    for line in text.lines().map(str::trim).filter(|line| line.starts_with("HOOKWIRE_")) {
        let (name, value) = line.split_once(": ").unwrap();
        let value = value.strip_prefix('\'').unwrap().strip_suffix('\'').unwrap();
        environment.push((name.to_owned(), value.replace(key, KEY)));
    }
    assert_eq!(environment.len(), 3);
    let (config, warnings) = Config::load("", environment).unwrap();
    assert_eq!(warnings, [""; 0]);
    let line = text.lines().find(|line| line.contains("command: [\"chat\"")).unwrap();
    let arguments: Vec<String> =
        serde_json::from_str(line.trim().strip_prefix("command: ").unwrap()).unwrap();
    let mut arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    // Everything is understood up to the connection string, which is not there.
    let output = run(&arguments);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("name the service"), "{said}");
    arguments.push("--no-such");
    assert!(String::from_utf8_lossy(&run(&arguments).stderr).contains("unexpected argument"));
    // Browsers and the chat come by names that tokens may carry.
    let names = config.host_names(&[]);
    assert!(names.contains("localhost") && names.contains("service"));
}
