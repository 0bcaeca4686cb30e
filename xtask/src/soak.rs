//! The soak: the release build under everything at once for a long time. It takes too long for CI.

use std::time::Duration;

use clap::Args;

use crate::program::Program;
use crate::workspace::{Build, Workspace};

/// How long it may take beside the soak itself: connecting, and the end.
const OTHER_TIME_MAX: Duration = Duration::from_mins(10);

/// How the soak goes.
#[derive(Debug, Args)]
pub(crate) struct Soak {
    /// How long
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=7 * 24 * 60))]
    minutes: u64,
    /// Clients
    #[arg(long, default_value_t = 10_000)]
    connections: u64,
    /// Further arguments for `hookwire bench soak`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<String>,
}

/// Builds the binary and runs `hookwire bench soak`.
///
/// # Errors
/// The binary does not build, memory grows, files leak, or a message is lost.
pub(crate) fn run(workspace: &Workspace, soak: &Soak) -> anyhow::Result<()> {
    let binary = workspace.binary(Build::Release)?;
    let (minutes, connections) = (soak.minutes.to_string(), soak.connections.to_string());
    Program::new(binary)
        .arguments(["bench", "soak", "--minutes", &minutes, "--connections", &connections])
        .arguments(&soak.arguments)
        .limit(Duration::from_mins(soak.minutes) + OTHER_TIME_MAX)
        .run()
}
