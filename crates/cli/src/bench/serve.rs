//! The service as a child process of the load generator, and the echo server.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hookwire_client::{AccessKey, ClientEndpointOptions, ConnectionString, Service};
use hookwire_proto::deflate::Compression;
use hookwire_proto::handler::{HubSettings, HubsSettings};
use hookwire_server::config::{Config, TlsConfig};
use hookwire_server::node::Node;
use serde_json::json;
use url::Url;

use super::process::pin;
use crate::local_certificate::LocalCertificate;
use crate::service::{random_key, until_signal};

/// How long the echo server's URL is good for.
const ECHO_TOKEN_LIFETIME: Duration = Duration::from_hours(24);

/// The hub that the echo server's URL names.
const ECHO_HUB: &str = "echo";

/// Largest message to the echo server unless an argument says otherwise.
const ECHO_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Settings of a service without a configuration file.
#[derive(Debug, clap::Args)]
pub(crate) struct ServerArguments {
    /// Where it listens; port 0 lets the system choose
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDRESS")]
    listen: SocketAddr,
    /// Largest message from a client, in bytes [default: 16 MiB of the echo server, else as shipped]
    #[arg(long, value_name = "BYTES")]
    message_bytes_max: Option<usize>,
    /// Compress messages of any length for clients that offer it
    #[arg(long)]
    compression: bool,
    /// Shards; 0: one per core
    #[arg(long, default_value_t = 0)]
    shards: usize,
    /// Speak TLS at a second port
    #[arg(long, hide = true)]
    tls: bool,
    /// Believe upstreams whose certificates this authority vouches for
    #[arg(long, hide = true, value_name = "FILE")]
    upstream_authority: Option<PathBuf>,
    /// Run on this core alone
    #[arg(long, hide = true)]
    core: Option<usize>,
    /// End when standard input ends
    #[arg(long, hide = true)]
    until_input_ends: bool,
}

/// Runs a service with a random key until a signal ends it, or its standard input if that is wanted. Prints one line when ready.
pub(super) async fn run(
    arguments: ServerArguments,
    echo: bool,
    json: bool,
) -> anyhow::Result<ExitCode> {
    if let Some(core) = arguments.core {
        pin(core, true)?;
    }
    let key = random_key()?;
    let folder = std::env::temp_dir().join(format!("hookwire-bench-{}", &random_key()?[..16]));
    let mut config = Config::for_one_machine(arguments.listen, AccessKey::parse(&key)?, &folder);
    config.echo = echo;
    config.shards = arguments.shards;
    config.upstream_ca_files.extend(arguments.upstream_authority);
    let shipped = config.limits.message_bytes_max;
    let most = arguments.message_bytes_max.unwrap_or(if echo { ECHO_BYTES_MAX } else { shipped });
    config.limits.message_bytes_max = most;
    let any_length = || Compression { min_bytes: 0, ..Compression::default() };
    let compression = arguments.compression.then(any_length);
    let defaults = HubSettings { compression, ..HubSettings::default() };
    config.hubs = HubsSettings { defaults: Arc::new(defaults), ..HubsSettings::default() };
    if echo {
        // Whoever sends a message as large as allowed may still be sending the next when the first comes back.
        let limits = &mut config.limits;
        limits.slow_bytes_max = limits.slow_bytes_max.max(most.saturating_mul(4));
        limits.outbox_bytes_max = limits.outbox_bytes_max.max(most.saturating_mul(4));
    }
    let mut authority = None;
    if arguments.tls {
        let certificate = LocalCertificate::kept(&folder)?;
        let any_port = SocketAddr::new(arguments.listen.ip(), 0);
        config.tls = TlsConfig { listen: vec![any_port], ..certificate.tls() };
        authority = Some(std::fs::read_to_string(certificate.authority())?);
    }
    let node = Node::start(config).await?;
    // The store keeps its file open. Nobody can forget a folder that is gone already.
    std::fs::remove_dir_all(&folder)
        .with_context(|| format!("cannot remove {}", folder.display()))?;

    let plain = *node.addresses().first().context("the service listens nowhere")?;
    // Not the node's own, which names the address with TLS: REST calls of the load go without.
    let endpoint = Url::parse(&format!("http://{plain}"))?;
    let connection_string = ConnectionString::new(endpoint, AccessKey::parse(&key)?)?.reveal();
    let listen = plain.to_string();
    let options = ClientEndpointOptions {
        user: Some(ECHO_HUB.to_owned()),
        lifetime: ECHO_TOKEN_LIFETIME,
        ..ClientEndpointOptions::default()
    };
    let url = Service::new(&connection_string, ECHO_HUB)?.client_endpoint(&options)?;
    let mut ready = json!({ "listen": listen, "url": url.as_str() });
    if let (Some(authority), Some(address)) = (authority, node.addresses().get(1)) {
        ready["secure_listen"] = address.to_string().into();
        ready["authority"] = authority.into();
    }
    if !echo {
        ready["connection_string"] = connection_string.into();
    }
    let mut out = std::io::stdout();
    if json {
        writeln!(out, "{ready}")?;
    } else {
        writeln!(out, "{url}")?;
    }
    out.flush()?;

    if arguments.until_input_ends {
        let (sender, ended) = tokio::sync::oneshot::channel::<()>();
        // Not a task of the runtime, which would wait for it at its end.
        std::thread::spawn(move || {
            // An input that fails has ended as well.
            let _ = std::io::copy(&mut std::io::stdin().lock(), &mut std::io::sink());
            drop(sender);
        });
        tokio::select! {
            code = until_signal(node) => code,
            _ = ended => Ok(ExitCode::SUCCESS),
        }
    } else {
        until_signal(node).await
    }
}
