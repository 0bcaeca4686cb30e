//! Commands that run the service: `serve`, `dev`, `bench echo-server`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clap::{Args, ValueEnum};
use hookwire_chat::{ATTACHMENT_BYTES_MAX, ChatConfig, Storage};
use hookwire_client::{ClientKind, Service, ServiceClient, Trust};
use hookwire_proto::connection_string::ConnectionString;
use hookwire_proto::handler::{
    EventHandler, EventPattern, HandlerAuth, HandlerUrl, HubSettings, HubsSettings, SystemEvents,
};
use hookwire_proto::name::HubName;
use hookwire_proto::signature::AccessKey;
use hookwire_proto::template::{TemplateDocument, TemplatesDocument};
use hookwire_server::config::{Config, TlsConfig};
use hookwire_server::node::Node;
use hookwire_server::reload::{Source, SourceError};
use hookwire_server::tls::server_config;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use url::Url;

use crate::local_certificate::LocalCertificate;
use crate::remote::TrustArguments;

/// Exit code of a faulty configuration.
const FAULTY_CONFIGURATION: u8 = 2;

/// Exit code after a second signal, as a shell reports SIGTERM.
const TERMINATED: i32 = 143;

/// Holds the connection string of a preview service, as in the functions of that time.
const PREVIEW_VARIABLE: &str = "AzureSignalRConnectionString";

/// Hold the same in parts.
const ENDPOINT_VARIABLE: &str = "AzureSignalREndpoint";
const ACCESS_KEY_VARIABLE: &str = "AzureSignalRAccessKey";

/// Hold the hub, the older name first.
const HUB_VARIABLES: [&str; 2] = ["HubName", "WebPubSubHub"];

/// The hub that is the chat unless another one is named.
const CHAT_HUB: &str = "chat";

/// Holds the connection string of a Web PubSub service, as in Azure Functions.
const WEB_PUBSUB_VARIABLE: &str = "WebPubSubConnectionString";

/// Holds the connection string of a storage account, as in Azure Functions.
const STORAGE_VARIABLE: &str = "AzureWebJobsStorage";

/// Where the chat's history is kept if nothing else is said.
const STORAGE_FOLDER: &str = "./hookwire-data/chat";

/// Bytes of randomness in a key that `dev` makes.
const KEY_BYTES: usize = 32;

#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    /// The configuration file; environment variables named HOOKWIRE_… stand above it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// How the service and the functions behind it speak with each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dialect {
    /// The 2020 preview of Azure's serverless WebSocket service
    Preview,
    /// Azure Web PubSub
    #[value(name = "web-pubsub")]
    WebPubSub,
}

#[derive(Debug, Args)]
pub(crate) struct DevArguments {
    /// Where the service listens; loopback unless you say otherwise.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Where the chat room's functions and page are served.
    #[arg(long, default_value = "127.0.0.1:7071", value_name = "ADDRESS")]
    chat_listen: SocketAddr,
    /// The dialect of the chat room, or of the upstream named instead of it.
    #[arg(long, value_enum, default_value = "preview", env = "HubDialect")]
    dialect: Dialect,
    /// Where the events of all hubs go instead of to the chat room; {hub}, {event} and, in the preview, {category} are filled in.
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// The folder for data and key.
    #[arg(long, default_value = "./hookwire-data", value_name = "FOLDER")]
    data: PathBuf,
    /// A fixed access key instead of the one kept in the data folder.
    #[arg(long)]
    key: Option<String>,
    /// The hub of the chat room and of the printed client URL.
    #[arg(long, default_value = "chat", env = "HubName")]
    hub: String,
    /// Speak https and wss, the chat room too, with a certificate for this machine from an authority in the data folder.
    #[arg(long)]
    tls: bool,
}

#[derive(Debug, Args)]
pub(crate) struct ChatArguments {
    /// Where the functions and the page are served; `FUNCTIONS_CUSTOMHANDLER_PORT` names another port.
    #[arg(long, default_value = "127.0.0.1:7071", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// How the service speaks; if not said, `preview`, or `web-pubsub` if only `WebPubSubConnectionString` is set.
    #[arg(long, value_enum, env = "HubDialect")]
    dialect: Option<Dialect>,
    /// The service that calls the functions [env: `AzureSignalRConnectionString`, or `AzureSignalREndpoint` with `AzureSignalRAccessKey`, or
    /// `WebPubSubConnectionString`].
    #[arg(long, value_name = "STRING")]
    connection_string: Option<String>,
    /// The hub that is the chat [env: `HubName` or `WebPubSubHub`] [default: chat].
    #[arg(long)]
    hub: Option<String>,
    /// How browsers reach the service, if not by the endpoint of the connection string.
    #[arg(long, value_name = "URL")]
    public_endpoint: Option<Url>,
    /// Where the history is kept: a folder, or s3://…, gs://…, az://… [default: as `AzureWebJobsStorage` says, else ./hookwire-data/chat].
    #[arg(long, value_name = "FOLDER or URL")]
    storage: Option<String>,
    /// Largest attachment of a message.
    #[arg(long, default_value_t = ATTACHMENT_BYTES_MAX, value_name = "BYTES")]
    attachment_bytes_max: u64,
    #[command(flatten)]
    trust: TrustArguments,
}

/// Runs the chat room's functions alone until a signal ends them.
pub(crate) async fn chat(arguments: ChatArguments, json: bool) -> anyhow::Result<ExitCode> {
    let address = hookwire_chat::listen_address(arguments.listen)?;
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (connection_string, dialect) =
        which_service(arguments.connection_string, arguments.dialect, variable)?;
    let storage = which_storage(arguments.storage.as_deref(), variable)?;
    let trust = arguments.trust.trust()?;
    let listener = bind(address).await?;
    let hub = which_hub(arguments.hub, variable);
    let mut config = chat_config(&connection_string, dialect, &hub, storage)?;
    config.attachment_bytes_max = arguments.attachment_bytes_max;
    config.trust = trust;
    config.takes_invocations = hookwire_chat::is_custom_handler();
    config.public_endpoint = arguments.public_endpoint;
    let running = hookwire_chat::serve(config, listener).await?;
    let url = format!("http://{}/", running.address());
    if json {
        announce(&json!({ "chat_url": url }))?;
    } else {
        writeln!(std::io::stdout(), "Chat room          {url}")?;
    }
    until_told(async {
        running.shutdown().await;
        true
    })
    .await
}

/// Returns the connection string and the dialect: as the arguments say, else as the environment suggests.
fn which_service(
    connection_string: Option<String>,
    dialect: Option<Dialect>,
    variable: impl Fn(&str) -> Option<String>,
) -> anyhow::Result<(String, Dialect)> {
    let in_parts = || {
        let (endpoint, key) = (variable(ENDPOINT_VARIABLE)?, variable(ACCESS_KEY_VARIABLE)?);
        Some(format!("Endpoint={endpoint};AccessKey={key};Version=1.0;"))
    };
    let of_preview = || {
        let found = variable(PREVIEW_VARIABLE).or_else(in_parts);
        found.map(|value| (value, Dialect::Preview))
    };
    let of_web_pubsub = || variable(WEB_PUBSUB_VARIABLE).map(|value| (value, Dialect::WebPubSub));
    let found = match (connection_string, dialect) {
        (Some(given), _) => Some((given, Dialect::Preview)),
        (None, Some(Dialect::WebPubSub)) => of_web_pubsub().or_else(of_preview),
        (None, Some(Dialect::Preview) | None) => of_preview().or_else(of_web_pubsub),
    };
    let (connection_string, suggested) = found.with_context(|| {
        format!(
            "name the service: by --connection-string, {PREVIEW_VARIABLE}, {ENDPOINT_VARIABLE} with \
             {ACCESS_KEY_VARIABLE}, or {WEB_PUBSUB_VARIABLE}"
        )
    })?;
    Ok((connection_string, dialect.unwrap_or(suggested)))
}

/// Returns the hub: as the argument says, else as the environment does by the names of either time.
fn which_hub(said: Option<String>, variable: impl Fn(&str) -> Option<String>) -> String {
    said.or_else(|| HUB_VARIABLES.iter().find_map(|name| variable(name)))
        .unwrap_or_else(|| CHAT_HUB.to_owned())
}

/// Returns where the history is kept: as the argument says, else in the storage account that the environment names, else in a folder.
fn which_storage(
    said: Option<&str>,
    variable: impl Fn(&str) -> Option<String>,
) -> anyhow::Result<Storage> {
    let account = variable(STORAGE_VARIABLE);
    Ok(match (said, account.as_deref()) {
        (Some(said), account) => Storage::parse(said, account)?,
        (None, Some(account)) => Storage::azure(account)
            .with_context(|| format!("the environment variable {STORAGE_VARIABLE} is of no use"))?,
        (None, None) => Storage::folder(STORAGE_FOLDER),
    })
}

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

fn chat_config(
    connection_string: &str,
    dialect: Dialect,
    hub: &str,
    storage: Storage,
) -> anyhow::Result<ChatConfig> {
    let mut config =
        ChatConfig::new(ConnectionString::parse(connection_string)?, HubName::parse(hub)?, storage);
    config.dialect = match dialect {
        Dialect::Preview => hookwire_chat::Dialect::Preview,
        Dialect::WebPubSub => hookwire_chat::Dialect::WebPubSub,
    };
    Ok(config)
}

/// Runs the service from its configuration until a signal ends it.
pub(crate) async fn serve(arguments: ServeArguments, json: bool) -> anyhow::Result<ExitCode> {
    let mut source = Source::new(arguments.config, std::env::vars_os());
    let (config, warnings) = match source.load() {
        Ok(loaded) => loaded,
        Err(SourceError::Faults(faults)) => {
            eprintln!("the configuration has faults:");
            for fault in faults.0 {
                eprintln!("  {fault}");
            }
            return Ok(ExitCode::from(FAULTY_CONFIGURATION));
        }
        Err(error) => return Err(error.into()),
    };
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let node = Node::start(config).await?;
    node.follow(source)?;
    if json {
        announce(&json!({
            "listen": addresses(&node),
            "connection_string": node.connection_string().reveal(),
        }))?;
    } else {
        let mut out = std::io::stdout().lock();
        // Where output is kept, a key has no business.
        let shown = if out.is_terminal() {
            node.connection_string().reveal()
        } else {
            format!("Endpoint={};AccessKey=<the primary key>;Version=1.0;", node.endpoint())
        };
        writeln!(out, "Connection string  {shown}")?;
    }
    until_signal(node).await
}

/// Runs the service with a configuration made of the arguments.
pub(crate) async fn dev(arguments: DevArguments, json: bool) -> anyhow::Result<ExitCode> {
    let key = match arguments.key {
        Some(key) => key,
        None => kept_key(&arguments.data)?,
    };
    let mut config =
        Config::for_one_machine(arguments.listen, AccessKey::parse(&key)?, &arguments.data);
    let certificate = arguments.tls.then(|| LocalCertificate::kept(&arguments.data)).transpose()?;
    let mut trust = Trust::default();
    if let Some(certificate) = &certificate {
        config.tls = TlsConfig { listen: std::mem::take(&mut config.listen), ..certificate.tls() };
        config.upstream_ca_files = vec![certificate.authority().to_owned()];
        trust = trust.and_file(certificate.authority())?;
    }
    // Bound before the service starts, so that no event finds the door shut.
    let listener = bind(arguments.chat_listen).await?;
    let scheme = if arguments.tls { "https" } else { "http" };
    let chat_url = format!("{scheme}://{}/", listener.local_addr()?);
    let hub = HubName::parse(&arguments.hub)?;
    let upstream = match arguments.dialect {
        Dialect::Preview => {
            let url = arguments.upstream.unwrap_or_else(|| format!("{chat_url}api/{{event}}"));
            config.templates = TemplatesDocument {
                templates: vec![TemplateDocument {
                    url_template: url.clone(),
                    ..TemplateDocument::default()
                }],
            };
            url
        }
        Dialect::WebPubSub => {
            let chat = format!("{chat_url}api/eventhandler");
            let url = arguments.upstream.as_deref().unwrap_or(&chat);
            let settings = Arc::new(handled_by(url)?);
            config.hubs = match arguments.upstream {
                Some(_) => HubsSettings { defaults: settings, ..HubsSettings::default() },
                None => HubsSettings {
                    hubs: BTreeMap::from([(hub.clone(), settings)]),
                    ..HubsSettings::default()
                },
            };
            url.to_owned()
        }
    };
    let node = Node::start(config).await?;
    let connection_string = node.connection_string().reveal();
    let storage = Storage::folder(arguments.data.join("chat"));
    let mut chat = chat_config(&connection_string, arguments.dialect, &arguments.hub, storage)?;
    chat.trust = trust;
    chat.tls = certificate.as_ref().map(|one| server_config(&one.tls())).transpose()?;
    let chat = hookwire_chat::serve(chat, listener).await?;
    let client_url = match arguments.dialect {
        Dialect::Preview => {
            Service::new(&connection_string, &arguments.hub)?.anonymous_client_endpoint(None)
        }
        Dialect::WebPubSub => ServiceClient::new(&connection_string, &arguments.hub)?
            .anonymous_client_url(ClientKind::WebPubSub),
    };
    let console_url = format!("{}/console/", node.endpoint().as_str().trim_end_matches('/'));
    if json {
        announce(&json!({
            "listen": addresses(&node),
            "service_url": node.endpoint().as_str(),
            "connection_string": connection_string,
            "client_url": client_url.as_str(),
            "chat_url": chat_url,
            "console_url": console_url,
            "ca_file": certificate.as_ref().map(LocalCertificate::authority),
        }))?;
    } else {
        let mut out = std::io::stdout().lock();
        writeln!(out, "Chat room          {chat_url}")?;
        writeln!(out, "Console            {console_url}")?;
        writeln!(out, "Connection string  {connection_string}")?;
        writeln!(out, "Clients connect to {client_url}")?;
        writeln!(out, "Events go to       {upstream}")?;
        writeln!(out, "Data is kept in    {}", arguments.data.display())?;
        if let Some(certificate) = &certificate {
            let file = certificate.authority().display();
            writeln!(out, "Certificates of    {file}")?;
            writeln!(out, "  trust it in Node   export NODE_EXTRA_CA_CERTS={file}")?;
            writeln!(out, "  in hookwire        export HOOKWIRE_CA_FILE={file}")?;
            writeln!(out, "  in curl            curl --cacert {file} …")?;
            writeln!(out, "  in a browser       import it as an authority for web sites")?;
        }
    }
    until_told(async {
        let finished = node.shutdown().await;
        // Last, since it takes the disconnect events.
        chat.shutdown().await;
        finished
    })
    .await
}

/// Returns the settings of a hub on one's own machine: everything goes to one handler, and nobody needs a token.
fn handled_by(url: &str) -> anyhow::Result<HubSettings> {
    let handler = EventHandler {
        url: HandlerUrl::parse(url).with_context(|| format!("cannot use the upstream {url}"))?,
        user_events: EventPattern::any(),
        system_events: SystemEvents { connect: true, connected: true, disconnected: true },
        auth: HandlerAuth::None,
        timeout: None,
    };
    Ok(HubSettings {
        anonymous_connect: true,
        handlers: vec![Arc::new(handler)],
        ..HubSettings::default()
    })
}

/// Serves until a signal, then shuts the node down.
pub(crate) async fn until_signal(node: Node) -> anyhow::Result<ExitCode> {
    until_told(node.shutdown()).await
}

/// Waits for SIGTERM or SIGINT, then for `shutdown`, and exits at once at the second signal.
async fn until_told(shutdown: impl Future<Output = bool>) -> anyhow::Result<ExitCode> {
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    tracing::info!("shutting down; a second signal exits at once");
    tokio::select! {
        finished = shutdown => {
            if !finished {
                tracing::warn!("not everything was finished in time");
            }
            Ok(ExitCode::SUCCESS)
        }
        _ = terminate.recv() => std::process::exit(TERMINATED),
        _ = interrupt.recv() => std::process::exit(TERMINATED),
    }
}

fn addresses(node: &Node) -> Vec<String> {
    node.addresses().iter().map(ToString::to_string).collect()
}

/// Prints one line of JSON: the sign for scripts that everything is ready.
fn announce(value: &serde_json::Value) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{value}")?;
    Ok(out.flush()?)
}

/// Returns the key in the data folder, made at the first start and readable by its owner only.
fn kept_key(data: &Path) -> anyhow::Result<String> {
    let file = data.join("access-key");
    match fs::read_to_string(&file) {
        Ok(key) => return Ok(key.trim().to_owned()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", file.display())),
    }
    fs::create_dir_all(data).with_context(|| format!("cannot make {}", data.display()))?;
    let key = random_key()?;
    let mut options = fs::OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::mode(options.write(true).create_new(true), 0o600)
        .open(&file)
        .and_then(|mut open| open.write_all(key.as_bytes()))
        .with_context(|| format!("cannot write {}", file.display()))?;
    Ok(key)
}

pub(crate) fn random_key() -> anyhow::Result<String> {
    let mut bytes = [0; KEY_BYTES];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("no random bytes: {error}"))?;
    let mut key = String::with_capacity(2 * KEY_BYTES);
    for byte in bytes {
        write!(key, "{byte:02x}")?;
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_suggests_a_dialect_and_the_arguments_decide() {
        let both = [(PREVIEW_VARIABLE, "p"), (WEB_PUBSUB_VARIABLE, "w")];
        let which = |given: Option<&str>, dialect, set: &[(&str, &str)]| {
            let variable = |name: &str| {
                let found = set.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            which_service(given.map(str::to_owned), dialect, variable).ok()
        };
        let is = |text: &str, dialect| Some((text.to_owned(), dialect));
        let (preview, web_pubsub) = (Some(Dialect::Preview), Some(Dialect::WebPubSub));
        assert_eq!(which(None, None, &both), is("p", Dialect::Preview));
        assert_eq!(which(None, None, &both[1..]), is("w", Dialect::WebPubSub));
        assert_eq!(which(None, preview, &both[1..]), is("w", Dialect::Preview));
        assert_eq!(which(None, web_pubsub, &both), is("w", Dialect::WebPubSub));
        assert_eq!(which(None, web_pubsub, &both[..1]), is("p", Dialect::WebPubSub));
        assert_eq!(which(Some("g"), None, &both), is("g", Dialect::Preview));
        assert_eq!(which(Some("g"), web_pubsub, &both), is("g", Dialect::WebPubSub));
        assert_eq!(which(None, web_pubsub, &[]), None);
        let parts = [(ENDPOINT_VARIABLE, "http://h:1"), (ACCESS_KEY_VARIABLE, "k"), both[1]];
        let whole = "Endpoint=http://h:1;AccessKey=k;Version=1.0;";
        assert_eq!(which(None, None, &parts), is(whole, Dialect::Preview));
        assert_eq!(which(None, None, &parts[1..]), is("w", Dialect::WebPubSub), "one part is none");
    }

    #[test]
    fn the_hub_has_a_name_of_either_time() {
        let which = |said: Option<&str>, set: &[(&str, &str)]| {
            which_hub(said.map(str::to_owned), |name| {
                let found = set.iter().find(|(known, _)| *known == name);
                found.map(|(_, value)| (*value).to_owned())
            })
        };
        let both = [("HubName", "old"), ("WebPubSubHub", "new")];
        assert_eq!(which(Some("said"), &both), "said");
        assert_eq!(which(None, &both), "old");
        assert_eq!(which(None, &both[1..]), "new");
        assert_eq!(which(None, &[]), "chat");
    }

    #[test]
    fn the_history_is_kept_where_the_argument_says_else_the_environment() {
        let which = |said: Option<&str>, account: Option<&str>| {
            let storage = which_storage(said, |name| {
                assert_eq!(name, STORAGE_VARIABLE);
                account.map(str::to_owned)
            });
            storage.map(|storage| storage.to_string()).ok()
        };
        let is = |text: &str| Some(text.to_owned());
        let emulator = Some("UseDevelopmentStorage=true");
        assert_eq!(which(None, None), is(STORAGE_FOLDER));
        let account = "of the account devstoreaccount1";
        assert_eq!(which(None, emulator), is(&format!("az://hookwire-chat/ {account}")));
        assert_eq!(which(Some("./here"), emulator), is("./here"));
        assert_eq!(which(Some("az://rooms/x"), emulator), is(&format!("az://rooms/x {account}")));
        assert_eq!(which(None, Some("nonsense")), None);
        assert_eq!(which(Some("ftp://x"), None), None);
    }

    #[test]
    fn an_upstream_that_is_none_is_refused() {
        assert!(handled_by("http://127.0.0.1:7071/{hub}/{event}").is_ok());
        for wrong in ["", "ftp://h/", "http://{hub}/", "http://h/{category}"] {
            assert!(handled_by(wrong).is_err(), "{wrong}");
        }
    }
}
