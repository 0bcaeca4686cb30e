//! The `hookwire` command: the service, everything on one machine, and the tools around it.

mod bench;
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
    #[command(flatten)]
    Remote(remote::RemoteCommand),
    /// Measure and test the service.
    #[command(subcommand)]
    Bench(bench::BenchCommand),
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(
            EnvFilter::try_from_env("HOOKWIRE_LOG").unwrap_or_else(|_| EnvFilter::new("info")),
        )
        .init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match arguments.command {
            Command::Serve(serve) => service::serve(serve, arguments.json).await,
            Command::Dev(dev) => service::dev(dev, arguments.json).await,
            Command::Chat(chat) => service::chat(chat, arguments.json).await,
            Command::Bench(bench) => bench::run(bench, arguments.json).await,
            Command::Remote(command) => remote::run(command, arguments.json).await,
        }
    })
}
