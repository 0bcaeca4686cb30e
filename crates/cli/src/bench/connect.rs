//! `bench connect`: handshakes with a token, with an upstream or without.

use std::fmt::{self, Display};
use std::time::Duration;

use anyhow::ensure;
use indicatif::ProgressBar;
use serde::Serialize;

use super::ROUNDS_MAX;
use super::child::Run;
use super::histogram::{Histogram, Percentiles};
use super::report::{Cost, Progress, Spread, Table, hundredths, per, whole};
use super::swarm::{Clock, Handler, Swarm};
use super::target::{Dialect, TargetArguments};
use super::upstream::Upstream;

/// Most connections of one round.
const CONNECTIONS_MAX: u64 = 1_000_000;

/// Most handshakes under way at once.
const IN_FLIGHT_MAX: u64 = 4_096;

/// How connecting is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct ConnectArguments {
    #[command(flatten)]
    target: TargetArguments,
    /// Have an upstream say whether each client may enter: of the preview, instead of a token; of Web PubSub, beside it
    #[arg(long)]
    upstream: bool,
    /// The protocol of clients and events
    #[arg(long, value_enum, default_value_t = Dialect::Preview)]
    dialect: Dialect,
    /// Connections of one round
    #[arg(long, default_value_t = 5_000, value_parser = clap::value_parser!(u64).range(1..=CONNECTIONS_MAX))]
    connections: u64,
    /// Handshakes under way at once
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=IN_FLIGHT_MAX))]
    in_flight: u64,
    /// Rounds that count; one before them warms up
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=ROUNDS_MAX))]
    rounds: u64,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(super) struct ConnectOutcome {
    benchmark: &'static str,
    dialect: Dialect,
    upstream: bool,
    connections: u64,
    in_flight: u64,
    shards: Option<u16>,
    rounds: Vec<Round>,
    summary: Summary,
}

#[derive(Debug, Serialize)]
struct Round {
    connections_per_second: f64,
    latency: Percentiles,
    cpu_ns_per_connection: Option<Cost>,
}

#[derive(Debug, Serialize)]
struct Summary {
    cpu_ns_per_connection: Option<Spread>,
    latency: Percentiles,
}

pub(super) fn run(arguments: &ConnectArguments, json: bool) -> anyhow::Result<ConnectOutcome> {
    let connections = usize::try_from(arguments.connections)?;
    let target = arguments.target.open(connections, Run::AsShipped)?;
    if arguments.upstream {
        target.lead_to(&Upstream::start(true)?, arguments.dialect, "connect")?;
    }
    let opening = |index| match (arguments.dialect, arguments.upstream) {
        (Dialect::Preview, true) => Ok(target.anonymous_opening()),
        (dialect, _) => target.opening_in(dialect, &format!("user-{index}")),
    };
    let openings = (0..connections).map(opening).collect::<anyhow::Result<Vec<_>>>()?;
    let door = target.door(usize::try_from(arguments.in_flight)?);
    let clock = Clock::start();
    let mut swarm = Swarm::new(clock)?;
    let bar = Progress::new(json).bar("connect", (1 + arguments.rounds) * arguments.connections);
    let mut rounds = Vec::new();
    let mut latency = Histogram::new();
    for number in 0..=arguments.rounds {
        let mut waits =
            Waits { latency: Histogram::new(), are_greeted: arguments.upstream, bar: &bar };
        let cpu_before = target.used_at_rest()?;
        let begin = clock.now();
        swarm.connect(&door, connections, |index| openings[index].clone(), &mut waits)?;
        let seconds = Duration::from_nanos(clock.now() - begin).as_secs_f64();
        let cpu_after = target.used_at_rest()?;
        // What their end costs lies between two rounds.
        swarm.reset();
        if number == 0 {
            continue;
        }
        latency.add(&waits.latency);
        rounds.push(Round {
            connections_per_second: per(arguments.connections, 1) / seconds,
            latency: waits.latency.percentiles(),
            cpu_ns_per_connection: cpu_before
                .zip(cpu_after)
                .map(|(before, after)| Cost::new(after - before, arguments.connections)),
        });
    }
    bar.finish_and_clear();
    let cpu = rounds.iter().filter_map(|round| round.cpu_ns_per_connection).map(|cpu| cpu.all);
    let summary =
        Summary { cpu_ns_per_connection: Spread::of(cpu), latency: latency.percentiles() };
    Ok(ConnectOutcome {
        benchmark: "connect",
        dialect: arguments.dialect,
        upstream: arguments.upstream,
        connections: arguments.connections,
        in_flight: arguments.in_flight,
        shards: arguments.target.shards(),
        rounds,
        summary,
    })
}

/// How long clients waited until their connections stood.
struct Waits<'a> {
    latency: Histogram,
    /// The upstream tells each client something.
    are_greeted: bool,
    bar: &'a ProgressBar,
}

impl Handler for Waits<'_> {
    fn message(&mut self, _member: usize, _head: &[u8], _now: u64) -> anyhow::Result<()> {
        ensure!(self.are_greeted, "a message came that nobody sent");
        Ok(())
    }

    fn opened(&mut self, _member: usize, waited: u64) {
        self.latency.record(waited);
        self.bar.inc(1);
    }
}

impl Display for ConnectOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "connecting {}: {} connections a round, {} under way at once",
            if self.upstream { "with an upstream" } else { "with a token, no upstream" },
            self.connections,
            self.in_flight
        )?;
        let mut table =
            Table::new(["round", "connections/s", "p50 µs", "p99 µs", "CPU µs", "of that shards"]);
        let us = |ns: f64| ns / 1e3;
        for (at, round) in self.rounds.iter().enumerate() {
            table.row([
                (at + 1).to_string(),
                whole(round.connections_per_second),
                whole(round.latency.p50_us),
                whole(round.latency.p99_us),
                hundredths(round.cpu_ns_per_connection.map(|cpu| us(cpu.all))),
                hundredths(round.cpu_ns_per_connection.and_then(|cpu| cpu.shards).map(us)),
            ]);
        }
        let (cpu, latency) = (self.summary.cpu_ns_per_connection, self.summary.latency);
        table.row([
            "median".to_owned(),
            String::new(),
            whole(latency.p50_us),
            whole(latency.p99_us),
            hundredths(cpu.map(|cpu| us(cpu.median))),
        ]);
        let nothing = String::new;
        table.row([
            "min".to_owned(),
            nothing(),
            nothing(),
            nothing(),
            hundredths(cpu.map(|cpu| us(cpu.min))),
        ]);
        write!(f, "{table}")
    }
}
