//! Commands that run the service: `serve`, `dev`, `bench echo-server`.

use std::fmt::Write as _;
use std::fs;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::Context;
use clap::Args;
use hookwire_chat::{ChatConfig, Running};
use hookwire_client::Service;
use hookwire_proto::connection_string::ConnectionString;
use hookwire_proto::name::HubName;
use hookwire_proto::signature::AccessKey;
use hookwire_proto::template::{TemplateDocument, TemplatesDocument};
use hookwire_server::config::Config;
use hookwire_server::node::Node;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

/// Exit code of a faulty configuration.
const FAULTY_CONFIGURATION: u8 = 2;

/// Exit code after a second signal, as a shell reports SIGTERM.
const TERMINATED: i32 = 143;

/// Bytes of randomness in a key that `dev` makes.
const KEY_BYTES: usize = 32;

#[derive(Debug, Args)]
pub(crate) struct ServeArguments {
    /// The configuration file; environment variables named HOOKWIRE_… stand above it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct DevArguments {
    /// Where the service listens; loopback unless you say otherwise.
    #[arg(long, default_value = "127.0.0.1:8080", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Where the chat room's functions and page are served.
    #[arg(long, default_value = "127.0.0.1:7071", value_name = "ADDRESS")]
    chat_listen: SocketAddr,
    /// Where the events of all hubs go instead of to the chat room; {hub}, {category} and {event} are filled in.
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
}

#[derive(Debug, Args)]
pub(crate) struct ChatArguments {
    /// Where the functions and the page are served; `FUNCTIONS_CUSTOMHANDLER_PORT` names another port.
    #[arg(long, default_value = "127.0.0.1:7071", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// The service that calls the functions.
    #[arg(
        long,
        env = "AzureSignalRConnectionString",
        hide_env_values = true,
        value_name = "STRING"
    )]
    connection_string: String,
    /// The hub that is the chat.
    #[arg(long, default_value = "chat", env = "HubName")]
    hub: String,
    /// The folder of the history.
    #[arg(long, default_value = "./hookwire-data/chat", value_name = "FOLDER")]
    data: PathBuf,
}

/// Runs the chat room's functions alone until a signal ends them.
pub(crate) async fn chat(arguments: ChatArguments, json: bool) -> anyhow::Result<ExitCode> {
    let address = hookwire_chat::listen_address(arguments.listen)?;
    let listener = bind(address).await?;
    let running =
        start_chat(&arguments.connection_string, &arguments.hub, arguments.data, listener).await?;
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

async fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| format!("cannot listen on {address}"))
}

async fn start_chat(
    connection_string: &str,
    hub: &str,
    data: PathBuf,
    listener: TcpListener,
) -> anyhow::Result<Running> {
    let config =
        ChatConfig::new(ConnectionString::parse(connection_string)?, HubName::parse(hub)?, data);
    Ok(hookwire_chat::serve(config, listener).await?)
}

/// Runs the service from its configuration until a signal ends it.
pub(crate) async fn serve(arguments: ServeArguments, json: bool) -> anyhow::Result<ExitCode> {
    let text = match &arguments.config {
        Some(file) => {
            fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?
        }
        None => String::new(),
    };
    let (config, warnings) = match Config::load(&text, std::env::vars_os()) {
        Ok(loaded) => loaded,
        Err(faults) => {
            eprintln!("the configuration has faults:");
            for fault in faults.0 {
                eprintln!("  {fault}");
            }
            return Ok(ExitCode::from(FAULTY_CONFIGURATION));
        }
    };
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let node = Node::start(config).await?;
    if json {
        announce(&json!({
            "listen": addresses(&node),
            "connection_string": node.connection_string().reveal(),
        }))?;
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
    // Bound before the service starts, so that no event finds the door shut.
    let listener = bind(arguments.chat_listen).await?;
    let chat_url = format!("http://{}/", listener.local_addr()?);
    let upstream = arguments.upstream.unwrap_or_else(|| format!("{chat_url}api/{{event}}"));
    config.templates = TemplatesDocument {
        templates: vec![TemplateDocument {
            url_template: upstream.clone(),
            ..TemplateDocument::default()
        }],
    };
    let node = Node::start(config).await?;
    let connection_string = node.connection_string().reveal();
    let chat =
        start_chat(&connection_string, &arguments.hub, arguments.data.join("chat"), listener)
            .await?;
    let service = Service::new(&connection_string, &arguments.hub)?;
    let client_url = service.anonymous_client_endpoint(None);
    if json {
        announce(&json!({
            "listen": addresses(&node),
            "service_url": node.endpoint().as_str(),
            "connection_string": connection_string,
            "client_url": client_url.as_str(),
            "chat_url": chat_url,
        }))?;
    } else {
        let mut out = std::io::stdout().lock();
        writeln!(out, "Chat room          {chat_url}")?;
        writeln!(out, "Connection string  {connection_string}")?;
        writeln!(out, "Clients connect to {client_url}")?;
        writeln!(out, "Events go to       {upstream}")?;
        writeln!(out, "Data is kept in    {}", arguments.data.display())?;
    }
    until_told(async {
        let finished = node.shutdown().await;
        // Last, since it takes the disconnect events.
        chat.shutdown().await;
        finished
    })
    .await
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
