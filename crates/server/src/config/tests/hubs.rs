//! `[defaults]` and `[[hub]]`.

use hookwire_proto::deflate::Compression;
use hookwire_proto::handler::{
    BearerSource, GROUP_FILTERS_MAX, HANDLERS_MAX, HandlerAuth, HubSettings, LISTENERS_MAX,
};
use hookwire_proto::name::{GroupName, HubName};

use super::*;

#[test]
fn every_value_of_a_hub_has_its_rule() {
    for (text, fault) in [
        ("hub = [{}]", "hub[0].name: is missing"),
        ("hub = [{name = \"a\"}, {name = \"A\"}]", "hub[1].name: another entry has this name"),
        ("hub = [{name = \"a\", anonymous_connect = \"x\"}]", "hub[0].anonymous_connect: must be"),
        (
            "hub = [{name = \"a\", event_handler = [{}]}]",
            "hub[0].event_handler[0].url_template: is missing",
        ),
        (
            "defaults.event_handler = [{url_template = \"ftp://h\"}]",
            "defaults.event_handler[0].url_template: the scheme must be http or https",
        ),
        (
            "defaults.event_handler = [{url_template = \"http://h/{nope}\"}]",
            "defaults.event_handler[0].url_template: \"{nope}\" is not a parameter",
        ),
        (
            "defaults.event_handler = [{url_template = \"http://h\", system_events = [\"connect\", \"joined\"]}]",
            "defaults.event_handler[0].system_events[1]: \"joined\" is not one of",
        ),
        (
            "defaults.event_handler = [{url_template = \"http://h\", user_event_pattern = \"a,,b\"}]",
            "defaults.event_handler[0].user_event_pattern: a name in the list is empty",
        ),
        (
            "defaults.event_handler = [{url_template = \"http://h\", seconds_max = 0}]",
            "defaults.event_handler[0].seconds_max: must be a number of seconds",
        ),
        (
            "defaults.event_handler = [{url_template = \"http://h\", auth = {}}]",
            "defaults.event_handler[0].auth.kind: is missing",
        ),
        ("defaults.event_listener = [{}]", "defaults.event_listener[0].url: is missing"),
        (
            "defaults.event_listener = [{url = \"tunnel:///x\"}]",
            "defaults.event_listener[0].url: must be http:// or https://",
        ),
        (
            "defaults.event_listener = [{url = \"http://h\", system_events = [\"connect\"]}]",
            "defaults.event_listener[0].system_events[0]: \"connect\" is not one of connected, disconnected",
        ),
        (
            "defaults.group_presence.events = [\"joined\", \"gone\"]",
            "defaults.group_presence.events[1]: \"gone\" is not one of joined, left",
        ),
        (
            "defaults.group_presence.groups = [\"a*b\"]",
            "defaults.group_presence.groups[0]: in \"a*b\" an asterisk",
        ),
        ("defaults.name = \"a\"", "defaults.name: unknown key"),
    ] {
        has_fault(text, fault);
    }
}

#[test]
fn lists_of_a_hub_are_limited() {
    for (key, item, limit) in [
        ("event_handler", "{url_template = \"http://h\"}", HANDLERS_MAX),
        ("event_listener", "{url = \"http://h\"}", LISTENERS_MAX),
        ("group_presence.groups", "\"a\"", GROUP_FILTERS_MAX),
    ] {
        let list = |count: usize| format!("defaults.{key} = [{}]", vec![item; count].join(","));
        assert!(load(&with_key(&list(limit)), &[]).is_ok());
        let found = faults(&list(limit + 1));
        assert!(found.starts_with(&format!("defaults.{key}: only {limit} ")), "{found}");
    }
}

fn hub<'a>(config: &'a Config, name: &str) -> &'a HubSettings {
    config.hubs.hub(&HubName::parse(name).unwrap())
}

#[test]
fn a_hub_inherits_what_it_does_not_set() {
    let text = with_key(
        "
        [defaults]
        anonymous_connect = \"allow\"
        event_handler = [{ url_template = \"http://d/{event}\", system_events = [\"connect\"] }]
        event_listener = [{ url = \"http://l/\" }]
        group_presence = { events = [\"joined\"] }
        [[hub]]
        name = \"Same\"
        [[hub]]
        name = \"other\"
        anonymous_connect = \"deny\"
        event_handler = [
            { url_template = \"http://o/\", user_event_pattern = \"a,b\", seconds_max = 0.5 },
            { url_template = \"http://p/\", user_event_pattern = \"\" },
        ]
        event_listener = []
        group_presence = { events = [\"left\"], groups = [\"room*\"] }
        ",
    );
    let (config, warnings) = load(&text, &[]).unwrap();
    assert_eq!(warnings, [""; 0]);
    let defaults = hub(&config, "unlisted");
    assert!(defaults.anonymous_connect);
    assert!(defaults.handlers[0].user_events.is_any(), "an absent pattern takes every event");
    assert!(defaults.handlers[0].system_events.connect);
    assert!(!defaults.handlers[0].system_events.connected);
    assert_eq!((defaults.listeners.len(), defaults.handlers[0].timeout), (1, None));
    let room = GroupName::parse("room1").unwrap();
    assert!(
        defaults.presence.joined && !defaults.presence.left && defaults.presence.concern(&room)
    );
    assert_eq!(hub(&config, "same"), defaults);
    let other = hub(&config, "OTHER");
    assert!(!other.anonymous_connect);
    let [first, second] = &other.handlers[..] else { panic!("{other:?}") };
    assert!(first.user_events.matches("A") && !first.user_events.matches("c"));
    assert_eq!(first.timeout, Some(Duration::from_millis(500)));
    assert!(!second.user_events.matches("a"));
    assert_eq!(other.listeners.len(), 0);
    assert!(!other.presence.joined && other.presence.left && other.presence.concern(&room));
}

#[test]
fn compression_is_off_unless_it_is_switched_on_or_described() {
    let compression = |key: &str| {
        let text =
            with_key(&format!("[defaults]\npermessage_deflate = {key}\n[[hub]]\nname = \"a\""));
        load(&text, &[]).map(|(config, _)| hub(&config, "a").compression)
    };
    let d = Compression::default();
    assert_eq!(load(&with_key(""), &[]).unwrap().0.hubs.defaults.compression, None);
    assert_eq!(compression("false").unwrap(), None);
    assert_eq!(compression("true").unwrap(), Some(d));
    assert_eq!(compression("{}").unwrap(), Some(d));
    let described = Compression { level: 9, min_bytes: 0 };
    assert_eq!(compression("{ level = 9, min_bytes = 0 }").unwrap(), Some(described));
    for bad in ["1", "{ level = 0 }", "{ level = 10 }", "{ min_bytes = 65536 }", "{ bits = 9 }"] {
        assert!(compression(bad).is_err(), "{bad}");
    }
    let text = with_key(
        "[defaults]\npermessage_deflate = true\n[[hub]]\nname = \"a\"\npermessage_deflate = false",
    );
    let (config, _) = load(&text, &[]).unwrap();
    assert_eq!((hub(&config, "a").compression, hub(&config, "b").compression), (None, Some(d)));
}

/// Returns how a handler proves who the service is, or the faults.
fn auth(table: &str) -> Result<HandlerAuth, String> {
    let handler = format!("{{ url_template = \"http://h\", auth = {{ {table} }} }}");
    let (config, _) = load(&with_key(&format!("defaults.event_handler = [{handler}]")), &[])?;
    Ok(hub(&config, "any").handlers[0].auth.clone())
}

#[test]
fn handlers_prove_who_the_service_is() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("secret");
    std::fs::write(&file, "hunter2\n").unwrap();
    assert_eq!(auth("kind = \"none\""), Ok(HandlerAuth::None));
    let source = BearerSource::File("/run/token".into());
    let from_file = auth("kind = \"bearer_file\", file = \"/run/token\"");
    assert_eq!(from_file, Ok(HandlerAuth::Bearer { source }));
    let credentials = "kind = \"client_credentials\", token_url = \"https://t/\", client_id = \"i\", scope = \"s\"";
    let in_place = auth(&format!("{credentials}, client_secret = \"hunter2\"")).unwrap();
    let elsewhere = auth(&format!("{credentials}, client_secret_file = {file:?}")).unwrap();
    assert_eq!(in_place, elsewhere);
    let HandlerAuth::Bearer { source: BearerSource::ClientCredentials(all) } = &in_place else {
        panic!("{in_place:?}")
    };
    assert_eq!((all.token_url.as_str(), all.client_id.as_str()), ("https://t/", "i"));
    assert_eq!((all.client_secret.reveal(), all.scope.as_deref()), ("hunter2", Some("s")));
    assert!(!format!("{in_place:?}").contains("hunter2"));
    for (table, fault) in [
        ("kind = \"magic\"", "kind: must be"),
        ("kind = \"none\", file = \"f\"", "file: does not belong to kind \"none\""),
        ("kind = \"bearer_file\"", "file: is missing"),
        ("kind = \"bearer_file\", file = \"f\", scope = \"s\"", "scope: does not belong"),
        ("kind = \"client_credentials\", client_id = \"i\"", "token_url: is missing"),
        ("kind = \"client_credentials\", client_id = \"i\"", "client_secret: is missing"),
        ("kind = \"client_credentials\", token_url = \"file:///x\"", "token_url: must be https://"),
        (
            "kind = \"client_credentials\", client_secret = \"s\", client_secret_file = \"/nowhere\"",
            "client_secret_file: client_secret is set too",
        ),
        (
            "kind = \"client_credentials\", client_secret_file = \"/nowhere\"",
            "client_secret_file: cannot be read",
        ),
        ("kind = \"bearer_file\", file = \"f\", fil = 1", "fil: unknown key; is file meant?"),
    ] {
        let found = auth(table).unwrap_err();
        let fault = format!("defaults.event_handler[0].auth.{fault}");
        assert!(found.contains(&fault), "{table}: {fault} is not in\n{found}");
    }
}

#[test]
fn handlers_may_be_behind_the_tunnel() {
    let text = "defaults.event_handler = [{ url_template = \"tunnel:///api/{event}\" }]";
    let (config, warnings) = load(&with_key(text), &[]).unwrap();
    assert!(hub(&config, "any").handlers[0].url.is_tunnel());
    assert!(warnings.is_empty(), "{warnings:?}");
    let auth = ", auth = { kind = \"bearer_file\", file = \"/run/token\" } }]";
    let (_, warnings) = load(&with_key(&text.replace(" }]", auth)), &[]).unwrap();
    assert_eq!(
        warnings,
        [
            "defaults: the bearer token of a handler behind tunnel:/// goes to whoever opens a tunnel"
        ]
    );
}
