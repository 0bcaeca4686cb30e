mod hubs;
mod tls;

use std::fmt::Write as _;
use std::os::unix::ffi::OsStringExt;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

const KEY: &str = "0123456789abcdef0123456789abcdef";
const DOCUMENT: &str = include_str!("../../../../docs/configuration.md");

fn load(text: &str, environment: &[(&str, &str)]) -> Result<(Config, Vec<String>), String> {
    Config::load(text, environment.iter().copied()).map_err(|faults| faults.to_string())
}

/// Returns the faults of a file that has a key.
fn faults(text: &str) -> String {
    load(&with_key(text), &[]).unwrap_err()
}

fn with_key(text: &str) -> String {
    format!("access_keys = [\"{KEY}\"]\n{text}")
}

#[test]
fn the_documented_file_is_read_whole() {
    let folder = tempfile::tempdir().unwrap();
    let example = DOCUMENT.split("```toml\n").nth(1).unwrap().split("```").next().unwrap();
    let mut text = example.to_owned();
    for (name, end) in [("primary", "\n"), ("secondary", "")] {
        let file = folder.path().join(name);
        std::fs::write(&file, format!("{KEY}-{name}{end}")).unwrap();
        text = text.replace(&format!("/run/secrets/hookwire-{name}"), file.to_str().unwrap());
    }
    let (config, warnings) = load(&text, &[]).unwrap();
    let keys: Vec<&str> = config.access_keys.iter().map(AccessKey::reveal).collect();
    assert_eq!(keys, [format!("{KEY}-primary"), format!("{KEY}-secondary")]);
    assert_eq!(warnings, [""; 0]);
    assert!(config.host_names(&[]).contains("hooks.example.com"));
    assert!(!config.host_names(&[]).contains("localhost"));
    let golden = include_str!("tests/documented.golden");
    assert_eq!(format!("{config:#?}\n"), golden, "Config has changed: is it meant?");
}

#[test]
fn the_documented_defaults_are_the_real_ones() {
    let mut text = with_key("");
    let mut count = 0;
    for row in rows() {
        if row.key.contains("[]") || row.key.starts_with("defaults.") || row.key == "access_keys" {
            continue;
        }
        let default = row.default.trim_matches('`');
        writeln!(text, "{} = {default}", row.key).unwrap();
        count += 1;
    }
    assert_eq!(count, 32, "a table was not read");
    let (config, warnings) = load(&text, &[]).unwrap();
    let (defaults, _) = load(&with_key(""), &[]).unwrap();
    assert_eq!(format!("{config:#?}"), format!("{defaults:#?}"));
    assert_eq!(warnings, [""; 0]);
}

#[test]
fn the_document_names_every_key_and_no_other() {
    let every_table = with_key(
        "
        zzzz = 1
        [[hub]]\nname = \"a\"\nzzzz = 1\n[[hub.event_handler]]\nurl_template = \"http://h\"\nzzzz = 1
        [hub.event_handler.auth]\nkind = \"none\"\nzzzz = 1
        [[hub.event_listener]]\nurl = \"http://h\"\nzzzz = 1\n[hub.group_presence]\nzzzz = 1
        [hub.permessage_deflate]\nzzzz = 1
        [defaults]\nzzzz = 1\n[[defaults.event_handler]]\nurl_template = \"http://h\"\nzzzz = 1
        [defaults.event_handler.auth]\nkind = \"none\"\nzzzz = 1
        [[defaults.event_listener]]\nurl = \"http://h\"\nzzzz = 1\n[defaults.group_presence]\nzzzz = 1
        [defaults.permessage_deflate]\nzzzz = 1
        [limits]\nzzzz = 1
        [tls]\nzzzz = 1\n[[tls.certificate]]\nzzzz = 1
        [metrics]\nzzzz = 1
        [[oidc]]\nissuer = \"http://h\"\njwks_url = \"http://h\"\naudience = \"a\"\nroles = { a = \"full\" }\nzzzz = 1
        [upstream]\nzzzz = 1\n[[upstream.template]]\nurl_template = \"http://h\"\nzzzz = 1
        ",
    );
    let ConfigFaults(faults) = Config::load(&every_table, [("", ""); 0]).unwrap_err();
    let mut schema = BTreeSet::new();
    // The certificate's files are missing too.
    for ConfigFault { path, fault } in faults.into_iter().filter(|it| it.path.ends_with("zzzz")) {
        let table = path.strip_suffix("zzzz").unwrap().replace("[0]", "[]");
        let keys = fault.strip_prefix("unknown key; the keys here are ").unwrap();
        schema.extend(keys.split(", ").map(|key| format!("{table}{key}")));
    }
    let is_table = |key: &String| {
        let inside = |other: &String| {
            other.starts_with(&format!("{key}.")) || other.starts_with(&format!("{key}[]"))
        };
        schema.iter().any(inside)
    };
    let keys: BTreeSet<_> = schema.iter().filter(|key| !is_table(key)).cloned().collect();
    let documented: BTreeSet<_> = rows().into_iter().map(|row| row.key.to_owned()).collect();
    assert_eq!(keys, documented);
}

struct Row {
    key: &'static str,
    default: &'static str,
}

/// Returns the rows of the document's tables of keys.
fn rows() -> Vec<Row> {
    let row = |line: &'static str| {
        let mut cells = line.strip_prefix("| `")?.split(" | ");
        let key = cells.next()?.trim_end_matches('`');
        Some(Row { key, default: cells.nth(1)? })
    };
    DOCUMENT.lines().filter_map(row).collect()
}

#[test]
fn all_faults_are_reported_together_with_their_paths() {
    let text = r#"
        listen = ["nowhere"]
        access_keys = ["short"]
        colour = "blue"
        [limits]
        message_bytes_max = -1
        ping_interval_seconds = "x"
        [[upstream.template]]
        url_template = "ftp://x/"
        hub_pattern = "a b"
        [[hub]]
        name = "9"
    "#;
    let faults = load(text, &[("HOOKWIRE_DATA_DIR", "unquoted text"), ("PATH", "x")]).unwrap_err();
    for path in [
        "listen[0]: ",
        "access_keys[0]: ",
        "colour: unknown key",
        "limits.message_bytes_max: ",
        "limits.ping_interval_seconds: ",
        "upstream.template[0].url_template: ",
        "upstream.template[0].hub_pattern: ",
        "hub[0].name: ",
        "HOOKWIRE_DATA_DIR: ",
    ] {
        assert!(faults.contains(path), "{path} is missing in\n{faults}");
    }
    assert_eq!(faults.lines().count(), 9, "{faults}");
    assert!(load("", &[]).unwrap_err().contains("access_keys: at least one"));
}

fn has_fault(text: &str, fault: &str) {
    let found = faults(text);
    assert!(found.contains(fault), "{text}: {fault:?} is not in\n{found}");
}

#[test]
fn every_value_has_its_rule() {
    for (text, fault) in [
        ("listen = []", "listen: at least one"),
        ("listen = \"127.0.0.1:80\"", "listen: must be a list of texts"),
        ("listen = [\"mylocalhost:80\"]", "listen[0]: \"mylocalhost:80\" is not"),
        ("listen = [\"127.0.0.1:80\", \"localhost:80\"]", "listen: 127.0.0.1:80 is listed twice"),
        ("public_endpoints = [\"h\"]", "public_endpoints[0]: is not a URL"),
        ("public_endpoints = [\"ws://h\"]", "public_endpoints[0]: must be http://"),
        ("public_endpoints = [\"http://h/p\"]", "public_endpoints[0]: must be http://"),
        ("public_endpoints = [\"http://h/?q\"]", "public_endpoints[0]: must be http://"),
        ("public_endpoints = [\"http://h/#f\"]", "public_endpoints[0]: must be http://"),
        ("public_endpoints = [\"http://u:p@h\"]", "public_endpoints[0]: must be http://"),
        ("access_key_files = [\"/nowhere/1\"]", "access_key_files[0]: cannot be read"),
        ("access_key_files = [\"a\", \"b\"]", "access_keys: at most two"),
        ("data_dir = \"\"", "data_dir: must name a folder"),
        ("data_dir = 1", "data_dir: must be text"),
        ("shards = 1025", "shards: must be a whole number from 0 to 1024"),
        ("shards = 1.0", "shards: must be a whole number"),
        ("metrics = 1", "metrics: must be a table"),
        ("metrics.public = 1", "metrics.public: must be true or false"),
        (
            "limits.message_bytes_max = 1023",
            "limits.message_bytes_max: must be a whole number from 1024",
        ),
        ("limits.ping_interval_seconds = 0.09", "limits.ping_interval_seconds: must be a number"),
        ("limits.ping_interval_seconds = 86401", "limits.ping_interval_seconds: must be a number"),
        ("limits.ping_interval_seconds = nan", "limits.ping_interval_seconds: must be a number"),
        (
            "limits.message_bytes_max = 16777217",
            "limits.outbox_bytes_max: must be at least message_bytes_max",
        ),
        (
            "limits.rest_body_bytes_max = 16777217",
            "limits.outbox_bytes_max: must be at least rest_body_bytes_max",
        ),
        (
            "limits.slow_consumer_bytes_max = 16777217",
            "limits.outbox_bytes_max: must be at least slow_consumer",
        ),
        (
            "limits.incomplete_bytes_max = 2048",
            "limits.incomplete_bytes_max: must be at least message_bytes_max",
        ),
        (
            "limits.recovery_bytes_max = 2048",
            "limits.recovery_bytes_max: must be at least message_bytes_max",
        ),
        ("limits.recovery_messages_max = 0", "limits.recovery_messages_max: must be a whole"),
        (
            "upstream.calls_in_flight_max = 1",
            "upstream.calls_in_flight_max: must be a whole number from 2",
        ),
        (
            "upstream.refused_addresses = [\"10.0.0.0/33\"]",
            "upstream.refused_addresses[0]: \"10.0.0.0/33\" is not",
        ),
        ("upstream.template = {}", "upstream.template: must be a list of tables"),
        ("upstream.template = [{}]", "upstream.template[0].url_template: is missing"),
        (
            "upstream.template = [1, {url_template = \"x\"}]",
            "upstream.template[1].url_template: is not a URL",
        ),
        (
            "upstream.template = [{url_template = 1}]",
            "upstream.template[0].url_template: must be text",
        ),
    ] {
        has_fault(text, fault);
    }
    let templates = vec!["{url_template = \"http://h\"}"; TEMPLATES_MAX + 1].join(",");
    let found = faults(&format!("upstream.template = [{templates}]"));
    assert_eq!(found, "upstream.template: only 256 templates are allowed");
}

#[test]
fn a_misspelt_key_is_recognised() {
    for (text, meant) in [
        ("acess_keys = []", "access_keys"),
        ("data_directory = \"x\"", "data_dir"),
        ("limits.message_bytes = 2048", "message_bytes_max"),
        ("upstream.templates = []", "template"),
    ] {
        let found = faults(text);
        assert!(found.contains(&format!("unknown key; is {meant} meant?")), "{text}: {found}");
    }
    assert_eq!(
        faults("metrics.colour = 1"),
        "metrics.colour: unknown key; the keys here are public"
    );
}

#[test]
fn a_file_that_is_no_toml_is_one_fault_that_does_not_repeat_it() {
    let found = load(&format!("listen = []\naccess_keys = [\"{KEY}\" x]"), &[]).unwrap_err();
    assert!(found.starts_with("(file): line 2, column 51: "), "{found}");
    assert_eq!(found.lines().count(), 1, "{found}");
    assert!(!found.contains(KEY), "{found}");
}

#[test]
fn the_environment_stands_above_the_file() {
    let text = with_key("shards = 1");
    let (config, _) = load(
        &text,
        &[
            ("HOOKWIRE_SHARDS", "2"),
            ("HOOKWIRE_LIMITS__PING_INTERVAL_SECONDS", " 5 "),
            ("HOOKWIRE_LIMITS", "{ ping_interval_seconds = 6, message_bytes_max = 2048 }"),
            ("HOOKWIRE_LISTEN", "[\n\"127.0.0.1:0\"\n]"),
            ("HOOKWIRE_UPSTREAM__TEMPLATE", "[{ url_template = \"http://h/{event}\" }]"),
            ("HOOKWIRE_LOG", "debug"),
            ("HOOKWIRELESS", "1"),
        ],
    )
    .unwrap();
    assert_eq!((config.shards, config.limits.ping_interval), (2, Duration::from_secs(5)));
    assert_eq!(config.limits.message_bytes_max, 2_048, "the table comes before its keys");
    assert_eq!(config.listen[0].port(), 0);
    assert_eq!(config.templates.templates.len(), 1);
}

#[test]
fn faults_of_the_environment_name_the_variable() {
    for (name, value, fault) in [
        ("HOOKWIRE_NO_SUCH", "1", "no_such: unknown key"),
        ("HOOKWIRE_NO_SUCH", "1", "(set by HOOKWIRE_NO_SUCH)"),
        ("HOOKWIRE_ACCESS_KEYS", "[\"short\"]", "(set by HOOKWIRE_ACCESS_KEYS)"),
        ("HOOKWIRE_LIMITS__MESSAGE_BYTES_MAX", "1", "(set by HOOKWIRE_LIMITS__MESSAGE_BYTES_MAX)"),
        ("HOOKWIRE_SHARDS", "1\nlisten = []", "HOOKWIRE_SHARDS: the value is not TOML"),
        ("HOOKWIRE_SHARDS", "", "HOOKWIRE_SHARDS: the value is not TOML"),
        (
            "HOOKWIRE_DATA_DIR",
            "/data",
            "HOOKWIRE_DATA_DIR: the value is not TOML; text needs quotes",
        ),
        ("HOOKWIRE_shards", "1", "HOOKWIRE_shards: names of variables"),
        ("HOOKWIRE_", "1", "HOOKWIRE_: the name is not the path"),
        ("HOOKWIRE_LIMITS__", "1", "HOOKWIRE_LIMITS__: the name is not the path"),
        ("HOOKWIRE_A__A__A__A__A__A__A__A__A", "1", "the name is not the path"),
        ("HOOKWIRE_SHARDS__X", "1", "HOOKWIRE_SHARDS__X: shards is not a table"),
        (
            "HOOKWIRE_HUB__0__NAME",
            "\"a\"",
            "hub: must be a list of tables (set by HOOKWIRE_HUB__0__NAME)",
        ),
    ] {
        let found = load(&with_key("shards = 1"), &[(name, value)]).unwrap_err();
        assert!(found.contains(fault), "{name}: {fault:?} is not in\n{found}");
    }
    let bytes = OsString::from_vec(vec![b'"', 0xff, b'"']);
    let found = Config::load("", [(OsString::from("HOOKWIRE_DATA_DIR"), bytes.clone())]);
    assert!(found.unwrap_err().to_string().contains("HOOKWIRE_DATA_DIR: the value is not UTF-8"));
    let foreign = [(bytes.clone(), bytes)];
    assert!(Config::load(&with_key(""), foreign).is_ok(), "other variables do not matter");
}

#[test]
fn key_files_lose_their_line_end_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    let read = |content: &str| {
        std::fs::write(&file, content).unwrap();
        let text = format!("access_key_files = [{:?}]", file.to_str().unwrap());
        load(&text, &[]).map(|(config, _)| config.access_keys[0].reveal().to_owned())
    };
    assert_eq!(read(KEY).unwrap(), KEY);
    assert_eq!(read(&format!("{KEY}\n")).unwrap(), KEY);
    assert_eq!(read(&format!("{KEY}\r\n")).unwrap(), KEY);
    assert_eq!(read(&format!(" {KEY}\n\n")).unwrap(), format!(" {KEY}\n"));
    let longest = "k".repeat(ACCESS_KEY_BYTES_MAX);
    assert_eq!(read(&format!("{longest}\r\n")).unwrap(), longest);
    assert!(read(&format!("{longest}k")).unwrap_err().contains("at most 1024"));
    assert!(read(&"k".repeat(1 << 20)).unwrap_err().contains("at most 1024"));
    assert!(
        read("short").unwrap_err().starts_with("access_key_files[0]: the access key has 5 bytes")
    );
    let found = load(&format!("access_key_files = [\"{KEY}\"]"), &[]).unwrap_err();
    assert!(!found.contains(KEY), "a key in the wrong place is not repeated: {found}");
}

#[test]
fn the_limit_of_connections_is_read() {
    let (config, warnings) = load(&with_key("limits.connections_max = 9"), &[]).unwrap();
    assert_eq!((config.limits.connections_max, warnings.len()), (9, 0));
}

#[test]
fn every_value_of_an_identity_provider_has_its_rule() {
    for (text, fault) in [
        ("oidc = [{}]", "oidc[0].issuer: is missing"),
        ("oidc = [{}]", "oidc[0].jwks_url: is missing"),
        ("oidc = [{}]", "oidc[0].audience: is missing"),
        ("oidc = [{}]", "oidc[0].roles: at least one role"),
        ("oidc = [{issuer = \"x\"}]", "oidc[0].issuer: is not a URL"),
        ("oidc = [{jwks_url = \"ftp://h\"}]", "oidc[0].jwks_url: the scheme must be"),
        ("oidc = [{jwks_url = \"http://u:p@h\"}]", "oidc[0].jwks_url: a URL may not carry"),
        ("oidc = [{audience = \" \"}]", "oidc[0].audience: may not be blank"),
        ("oidc = [{roles_claim = \"\"}]", "oidc[0].roles_claim: may not be blank"),
        ("oidc = [{roles = 1}]", "oidc[0].roles: must be a table"),
        ("oidc = [{roles = { a = 1 }}]", "oidc[0].roles.a: must be text"),
        ("oidc = [{roles = { a = \"write\" }}]", "oidc[0].roles.a: must be \"full\" or \"read\""),
    ] {
        has_fault(text, fault);
    }
}

#[test]
fn identity_providers_are_read() {
    let provider = "issuer = \"https://i\", jwks_url = \"https://i/keys\", audience = \"a\"";
    let roles = "roles = { \"Hooks.Owner\" = \"full\", watcher = \"read\" }";
    let (config, _) = load(&with_key(&format!("oidc = [{{ {provider}, {roles} }}]")), &[]).unwrap();
    let [oidc] = &config.oidc[..] else { panic!("{:?}", config.oidc) };
    assert_eq!((oidc.issuer.as_str(), oidc.jwks_url.as_str()), ("https://i", "https://i/keys"));
    assert_eq!((oidc.audience.as_str(), oidc.roles_claim.as_str()), ("a", "roles"));
    assert_eq!(oidc.roles.get("Hooks.Owner"), Some(&RestAccess::Full));
    assert_eq!(oidc.roles.get("watcher"), Some(&RestAccess::Read));
    let twice = format!("oidc = [{{ {provider}, {roles} }}, {{ {provider}, {roles} }}]");
    assert_eq!(faults(&twice), "oidc[1].issuer: another entry has this issuer and audience");
    let many = vec![format!("{{ {provider}, {roles} }}"); 17].join(",");
    assert!(faults(&format!("oidc = [{many}]")).starts_with("oidc: only 16 identity providers"));
}

#[test]
fn refused_addresses_replace_the_default_ones() {
    let text = with_key("upstream.refused_addresses = [\"10.0.0.0/8\", \"fd00::1\"]");
    let (config, warnings) = load(&text, &[]).unwrap();
    let refused: Vec<String> = config.refused_addresses.iter().map(ToString::to_string).collect();
    assert_eq!(refused, ["10.0.0.0/8", "fd00::1/128"]);
    assert_eq!(warnings, [""; 0]);
    let (config, _) = load(&with_key("upstream.refused_addresses = []"), &[]).unwrap();
    assert_eq!(config.refused_addresses, []);
}

#[test]
fn endpoints_come_from_the_listeners_when_none_are_named() {
    let (config, _) = load(&with_key(""), &[]).unwrap();
    let bound =
        ["0.0.0.0:81", "[::1]:82", "[::]:83", "[fe80::1%2]:84"].map(|at| at.parse().unwrap());
    let endpoints: Vec<String> = config.endpoints(&bound).iter().map(Url::to_string).collect();
    assert_eq!(
        endpoints,
        [
            "http://localhost:81/",
            "http://[::1]:82/",
            "http://localhost:83/",
            "http://[fe80::1]:84/"
        ]
    );
}

fn key_path() -> impl Strategy<Value = &'static str> {
    let keys: Vec<&str> = rows().into_iter().map(|row| row.key).collect();
    proptest::sample::select(keys)
}

fn literal() -> impl Strategy<Value = String> {
    prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<f64>().prop_map(|number| format!("{number:?}")),
        "\\PC{0,40}".prop_map(|text| format!("{text:?}")),
        "\\PC{0,40}".prop_map(|text| format!("[{text:?}]")),
        "[0-9a-f:.%/\\[\\]]{0,20}".prop_map(|text| format!("[\"{text}\"]")),
        "(http|https)://\\PC{0,20}".prop_map(|text| format!("[{text:?}]")),
        Just(format!("\"{KEY}\"")),
        Just(format!("[\"{KEY}\", \"{KEY}\"]")),
        Just(format!("{{ {KEY} = 1 }}")),
        "\\PC{0,20}",
    ]
}

/// Checks that what came out of `load` can be used, and that no text shows the key.
fn examine(result: Result<(Config, Vec<String>), ConfigFaults>) -> Result<(), TestCaseError> {
    match result {
        Ok((config, warnings)) => {
            prop_assert!(!config.listen.is_empty());
            prop_assert!((1..=ACCESS_KEYS_MAX).contains(&config.access_keys.len()));
            prop_assert!(Templates::parse(&config.templates).is_ok());
            prop_assert!(!config.endpoints(&config.listen).is_empty());
            config.host_names(&config.listen);
            let keys_shown = format!("{:?}{warnings:?}", config.access_keys);
            prop_assert!(!keys_shown.contains(KEY), "{}", keys_shown);
        }
        Err(faults) => prop_assert!(!faults.0.is_empty()),
    }
    Ok(())
}

proptest! {
    /// Whatever the file holds, it becomes a usable configuration or faults.
    #[test]
    fn any_text_is_a_configuration_or_faults(text in "\\PC{0,200}") {
        examine(Config::load(&text, [("", ""); 0]))?;
    }

    /// Whatever the keys are set to, in the file or above it, the result is a usable configuration or faults.
    #[test]
    fn any_values_are_a_configuration_or_faults(
        in_file in proptest::collection::vec((key_path(), literal()), 0..4),
        above in proptest::collection::vec((key_path(), literal()), 0..4),
    ) {
        let mut text = with_key("");
        for (path, value) in in_file {
            let path = path.replace("[]", "");
            writeln!(text, "{path} = {value}").unwrap();
        }
        let above = above.iter().map(|(path, value)| {
            let name = path.replace("[]", "").replace('.', "__").to_uppercase();
            (format!("HOOKWIRE_{name}"), value.clone())
        });
        examine(Config::load(&text, above))?;
    }

    /// However a file with keys is broken, its faults do not show them.
    #[test]
    fn faults_never_show_a_key(at in 0_usize..1_000, junk in "[\\x00-\\x7f]{0,3}", cut in 0_usize..3) {
        let text = format!("listen = []\naccess_keys = [\"{KEY}\", '{KEY}']\ndata_dir = 1\naccess_key_files = [\"{KEY}\"]\n");
        let at = at % text.len();
        let broken = format!("{}{junk}{}", &text[..at], &text[(at + cut).min(text.len())..]);
        // A key cut in two shows at most its larger half.
        let shown = match load(&broken, &[("HOOKWIRE_ACCESS_KEYS", KEY), ("HOOKWIRE_SHARDS", &format!("\"{KEY}\""))]) {
            Ok((config, warnings)) => format!("{config:?} {warnings:?}"),
            Err(faults) => faults,
        };
        prop_assert!(!shown.contains(&KEY[..16]) && !shown.contains(&KEY[16..]), "{}", shown);
    }
}
