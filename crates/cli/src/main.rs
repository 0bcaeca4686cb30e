//! The `hookwire` command: the service, everything on one machine, and the tools around it.

mod bench;
mod check;
mod events;
mod health;
mod local_certificate;
mod remote;
mod service;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// mimalloc keeps many small, equal allocations dense; measured against the system's allocator for idle connections.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Holds WebSocket connections so that application code can stay plain HTTP functions.
#[derive(Debug, Parser)]
#[command(name = "hookwire", version, max_term_width = 100)]
struct Arguments {
    /// Print JSON for scripts.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the service.
    Serve(service::ServeArguments),
    /// Run the service on this machine with nothing to configure; data and key are kept in a folder.
    Dev(service::DevArguments),
    /// Run the chat room's functions and page alone.
    Chat(service::ChatArguments),
    /// Follow what became of events, and who was refused why
    ///
    /// The event log of a running service, newest last, and then as it grows. Connections that break are made again, without a gap as
    /// far as the service still holds the entries.
    Events(events::EventsArguments),
    /// Call an upstream as the service would and say what is wrong
    ///
    /// The upstream gets real events of one short connection: it may act on them. The exit code is 0 when all is well and 1 when
    /// something is wrong.
    Check(check::CheckArguments),
    /// Ask a running service whether it is ready; the exit code says it.
    Health(health::HealthArguments),
    #[command(flatten)]
    Remote(remote::RemoteCommand),
    /// Take the events of a hub through a tunnel to an upstream on this machine.
    Tunnel(remote::TunnelArguments),
    /// Measure and test the service.
    #[command(subcommand)]
    Bench(bench::BenchCommand),
}

impl Command {
    /// Returns what is logged unless `HOOKWIRE_LOG` says otherwise.
    fn log_level(&self) -> &'static str {
        match self {
            // What an upstream does wrong is their output.
            Self::Check(_) | Self::Events(_) | Self::Health(_) => "off",
            Self::Serve(_)
            | Self::Dev(_)
            | Self::Chat(_)
            | Self::Remote(_)
            | Self::Tunnel(_)
            | Self::Bench(_) => "info",
        }
    }
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            EnvFilter::try_from_env("HOOKWIRE_LOG")
                .unwrap_or_else(|_| EnvFilter::new(arguments.command.log_level())),
        )
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match arguments.command {
            Command::Serve(serve) => service::serve(serve, arguments.json).await,
            Command::Dev(dev) => service::dev(dev, arguments.json).await,
            Command::Chat(chat) => service::chat(chat, arguments.json).await,
            Command::Tunnel(tunnel) => remote::tunnel(tunnel, arguments.json).await,
            Command::Health(health) => health::health(health, arguments.json).await,
            Command::Bench(bench) => bench::run(bench, arguments.json).await,
            Command::Events(events) => events::run(events, arguments.json).await,
            Command::Check(check) => check::run(check, arguments.json).await,
            Command::Remote(command) => remote::run(command, arguments.json).await,
        }
    })
}
