//! `bench webhook`: clients that send, a service that posts each message to an upstream, answers that go back; beside it a bare HTTP
//! client that posts the same bytes.

use std::fmt::{self, Display};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::ensure;
use indicatif::ProgressBar;
use serde::Serialize;

use super::ROUNDS_MAX;
use super::child::Run;
use super::client_floor::ClientFloor;
use super::echo::{Clients, Echoes};
use super::meter::Unit;
use super::report::Progress;
use super::rounds::{Comparison, Course, Measured};
use super::swarm::{Clock, PAYLOAD_BYTES_MIN, Swarm};
use super::target::{Dialect, RUNNING, Target, TargetArguments};
use super::upstream::{BODY_BYTES_MAX, Upstream};

/// Handshakes under way at once.
const HANDSHAKES_IN_FLIGHT: usize = 64;

/// Most connections. Of the calls of one upstream, the service leaves 768 to messages.
const CONNECTIONS_MAX: u64 = 100_000;

/// Most messages of one round.
const MESSAGES_MAX: u64 = 100_000_000;

/// Most messages sent per second.
const RATE_MAX: u64 = 1_000_000;

/// How long a round at a fixed rate takes unless its messages are given.
const RATE_ROUND: Duration = Duration::from_secs(5);

/// Messages of one round when the next follows the last.
const MESSAGES: u64 = 50_000;

/// How webhooks are measured.
#[derive(Debug, clap::Args)]
pub(crate) struct WebhookArguments {
    #[command(flatten)]
    target: TargetArguments,
    /// The protocol of clients and events
    #[arg(long, value_enum, default_value_t = Dialect::WebPubSub)]
    dialect: Dialect,
    /// Have the upstream speak HTTP/2, over TLS
    #[arg(long, conflicts_with = RUNNING)]
    http2: bool,
    /// Clients; each sends its next message when the last has come back
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=CONNECTIONS_MAX))]
    connections: u64,
    /// Send this many messages per second, the clients in turn, whether they come back or not
    #[arg(long, value_name = "PER_SECOND", value_parser = clap::value_parser!(u64).range(1..=RATE_MAX))]
    rate: Option<u64>,
    /// Payload of a message in bytes
    #[arg(long, default_value_t = 128,
          value_parser = clap::value_parser!(u64).range(PAYLOAD_BYTES_MIN as u64..=BODY_BYTES_MAX as u64))]
    size: u64,
    /// Messages of one round, of all clients together [default: 50,000; rate: 5 seconds]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=MESSAGES_MAX))]
    messages: Option<u64>,
    /// Rounds that count; one before them warms up
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=ROUNDS_MAX))]
    rounds: u64,
    /// Count instructions instead of CPU time, by valgrind, and leave a profile of each round in this folder
    #[arg(long, value_name = "FOLDER")]
    instructions: Option<PathBuf>,
    /// Do not measure the bare HTTP client beside it
    #[arg(long)]
    no_floor: bool,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(super) struct WebhookOutcome {
    benchmark: &'static str,
    dialect: Dialect,
    http2: bool,
    connections: u64,
    rate: Option<u64>,
    size_bytes: u64,
    shards: Option<u16>,
    messages_per_round: u64,
    #[serde(flatten)]
    comparison: Comparison,
}

pub(super) fn run(arguments: &WebhookArguments, json: bool) -> anyhow::Result<WebhookOutcome> {
    let connections = usize::try_from(arguments.connections)?;
    let wanted = arguments
        .messages
        .unwrap_or_else(|| arguments.rate.map_or(MESSAGES, |rate| rate * RATE_ROUND.as_secs()));
    // Each client sends as many as the others.
    let each = wanted.div_ceil(arguments.connections);
    let messages = each * arguments.connections;
    // The upstream holds a connection for each call.
    let counted = Run::counted_into(arguments.instructions.as_deref())?;
    ensure!(
        !arguments.http2 || arguments.dialect == Dialect::WebPubSub,
        "the preview's events go by HTTP/1.1 alone"
    );
    let upstream = if arguments.http2 { Upstream::start_http2()? } else { Upstream::start(true)? };
    let target = arguments.target.open_before(Some(&upstream), 2 * connections, counted)?;
    let mut load = Load::connect(&target, &upstream, arguments)?;
    let bar = Progress::new(json).bar("send", (1 + arguments.rounds) * messages);
    let mut floor = None;
    let mut course = Course::new();
    for number in 0..=arguments.rounds {
        let measured = load.round(&target, each, messages, arguments.rate, &bar)?;
        if floor.is_none() && !arguments.no_floor {
            let (sample, url) = upstream.sample()?;
            let authority = upstream.authority();
            let child =
                ClientFloor::start(&url, authority, sample, connections, target.core, counted)?;
            floor = Some(child);
        }
        let floor = floor.as_mut().map(|floor| floor.round(messages)).transpose()?;
        if number != 0 {
            course.push(&measured, floor);
        }
    }
    bar.finish_and_clear();
    Ok(WebhookOutcome {
        benchmark: "webhook",
        dialect: arguments.dialect,
        http2: arguments.http2,
        connections: arguments.connections,
        rate: arguments.rate,
        size_bytes: arguments.size,
        shards: arguments.target.shards(),
        messages_per_round: messages,
        comparison: course.finish("message", Unit::of(arguments.instructions.is_some())),
    })
}

/// The clients.
struct Load {
    clients: Clients,
    clock: Clock,
}

impl Load {
    fn connect(
        target: &Target,
        upstream: &Upstream,
        arguments: &WebhookArguments,
    ) -> anyhow::Result<Self> {
        let connections = usize::try_from(arguments.connections)?;
        target.lead_to(upstream, arguments.dialect, "message")?;
        let opening = |index| target.opening_in(arguments.dialect, &format!("user-{index}"));
        let openings = (0..connections).map(opening).collect::<anyhow::Result<Vec<_>>>()?;
        let clock = Clock::start();
        let mut swarm = Swarm::new(clock)?;
        let mut echoes = Echoes::new(connections);
        let door = target.door(HANDSHAKES_IN_FLIGHT);
        swarm.connect(&door, connections, |index| openings[index].clone(), &mut echoes)?;
        let size = usize::try_from(arguments.size)?;
        Ok(Self { clients: Clients::new(swarm, echoes, clock, 1, size)?, clock })
    }

    fn round(
        &mut self,
        target: &Target,
        each: u64,
        messages: u64,
        rate: Option<u64>,
        bar: &ProgressBar,
    ) -> anyhow::Result<Measured> {
        let before = target.used_at_rest()?;
        let begin = self.clock.now();
        match rate {
            None => self.clients.round(each, bar)?,
            Some(rate) => self.clients.paced(messages, rate, bar)?,
        }
        let nanoseconds = self.clock.now() - begin;
        let after = target.used_at_rest()?;
        Ok(Measured {
            units: messages,
            nanoseconds,
            latency: self.clients.take_latency(),
            used: before.zip(after).map(|(before, after)| after - before),
        })
    }
}

impl Display for WebhookOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pace = self.rate.map_or_else(
            || "the next when the last is back".to_owned(),
            |rate| format!("{rate} messages per second"),
        );
        let version = if self.http2 { " by HTTP/2" } else { "" };
        writeln!(
            f,
            "webhooks of {}{version}: {} connections, {} bytes, {pace}, {} messages a round",
            self.dialect, self.connections, self.size_bytes, self.messages_per_round
        )?;
        write!(f, "{}", self.comparison)
    }
}
