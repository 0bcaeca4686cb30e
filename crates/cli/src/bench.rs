//! `hookwire bench`: a load generator.
//!
//! The load runs in this process, on one thread; what is measured runs in another: a child of this same program, or a service that
//! runs already. What counts is the CPU time of that process for each unit of work, beside the least that the kernel takes for it.

mod callers;
mod callgrind;
mod child;
mod client_floor;
mod connect;
mod cuts;
mod echo;
mod echo_client;
mod fanout;
mod floor;
mod form;
mod histogram;
mod http_floor;
mod idle;
mod meter;
mod process;
mod publisher;
mod reliable;
mod report;
mod rest;
mod rounds;
mod saturate;
mod serve;
mod soak;
mod swarm;
mod target;
mod upstream;
mod webhook;
mod wire;

use std::process::ExitCode;

use clap::Subcommand;

use self::client_floor::ClientFloorArguments;
use self::connect::ConnectArguments;
use self::cuts::CutsArguments;
use self::echo::EchoArguments;
use self::echo_client::EchoClientArguments;
use self::fanout::FanoutArguments;
use self::floor::FloorArguments;
use self::http_floor::HttpFloorArguments;
use self::idle::IdleArguments;
use self::report::print;
use self::rest::RestArguments;
use self::saturate::SaturateArguments;
use self::serve::ServerArguments;
use self::soak::SoakArguments;
use self::webhook::WebhookArguments;

/// Most rounds of a benchmark.
const ROUNDS_MAX: u64 = 100;

/// Tools that measure and test.
#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Measure what it costs to send one message to many
    ///
    /// Beside it runs the floor: a process that writes the same bytes to as many plain sockets in a bare loop. The ratio tells what
    /// the service adds to what the kernel takes.
    Fanout(Box<FanoutArguments>),
    /// Measure messages that come back
    Echo(EchoArguments),
    /// Measure REST sends that nobody receives
    ///
    /// Beside it runs the floor: a process with the same HTTP server that reads the same requests and gives the same answers.
    Rest(Box<RestArguments>),
    /// Measure messages that go to an upstream and its answers that come back
    ///
    /// Beside it runs the floor: a process that posts the same bytes to the same upstream by a bare HTTP client.
    Webhook(Box<WebhookArguments>),
    /// Measure handshakes with a token
    Connect(ConnectArguments),
    /// Measure the memory of connections that do nothing
    Idle(IdleArguments),
    /// Cut reliable clients again and again; every message must reach every client, once and in order
    Cuts(CutsArguments),
    /// Publish more to a noisy hub than it can deliver, and measure a quiet hub beside it
    Saturate(SaturateArguments),
    /// Do everything at once for a long time, and fail when memory grows or files leak
    Soak(SoakArguments),
    /// Run a service that sends every message back, for conformance suites and load tests
    EchoServer(ServerArguments),
    /// Be a client that sends every message back, for conformance suites that play the server
    EchoClient(EchoClientArguments),
    /// Run the service that is measured.
    #[command(hide = true)]
    Server(ServerArguments),
    /// Run the floor.
    #[command(hide = true)]
    Floor(FloorArguments),
    /// Run the floor of REST calls.
    #[command(hide = true)]
    HttpFloor(HttpFloorArguments),
    /// Run the floor of webhooks.
    #[command(hide = true)]
    ClientFloor(ClientFloorArguments),
}

/// Runs a tool and prints what came of it.
///
/// # Errors
/// The service failed or cannot be reached, a message was lost, doubled or out of order, or the system refuses what is needed.
pub(crate) async fn run(command: BenchCommand, json: bool) -> anyhow::Result<ExitCode> {
    match command {
        BenchCommand::EchoServer(arguments) => serve::run(arguments, true, json).await,
        BenchCommand::Server(arguments) => serve::run(arguments, false, json).await,
        BenchCommand::EchoClient(arguments) => echo_client::run(&arguments).await,
        // These block their thread from start to end; the runtime has nothing else to do.
        BenchCommand::Fanout(arguments) => print(&fanout::run(&arguments, json)?, json),
        BenchCommand::Echo(arguments) => print(&echo::run(&arguments, json)?, json),
        BenchCommand::Connect(arguments) => print(&connect::run(&arguments, json)?, json),
        BenchCommand::Idle(arguments) => print(&idle::run(&arguments, json)?, json),
        BenchCommand::Cuts(arguments) => print(&cuts::run(&arguments, json)?, json),
        BenchCommand::Saturate(arguments) => print(&saturate::run(&arguments, json)?, json),
        BenchCommand::Soak(arguments) => {
            let outcome = soak::run(&arguments, json)?;
            let printed = print(&outcome, json)?;
            outcome.judge()?;
            Ok(printed)
        }
        BenchCommand::HttpFloor(arguments) => http_floor::run(arguments).await,
        BenchCommand::ClientFloor(arguments) => client_floor::run(arguments).await,
        BenchCommand::Rest(arguments) => print(&rest::run(&arguments, json)?, json),
        BenchCommand::Webhook(arguments) => print(&webhook::run(&arguments, json)?, json),
        BenchCommand::Floor(arguments) => floor::run(&arguments),
    }
}
