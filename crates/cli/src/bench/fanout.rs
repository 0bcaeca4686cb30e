//! `bench fanout`: one publisher, many receivers. Every message must reach every receiver that it concerns once and in order.

mod audience;
mod load;
mod stage;

use std::fmt::{self, Display};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use serde::Serialize;

pub(super) use self::audience::Audience;
use self::audience::To;
pub(super) use self::load::Receipts;
use self::load::{Load, Measured, Pace};
use self::stage::{OtherArguments, Stage};
use super::ROUNDS_MAX;
use super::child::Run;
use super::floor::{BATCH_MAX, Floor};
use super::form::Wire;
use super::histogram::{Histogram, Percentiles};
use super::meter::Unit;
use super::report::{Cost, Progress, Spread, Table, hundredths, per, whole};
use super::swarm::{Clock, PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MIN};
use super::target::{RUNNING, TargetArguments};

/// Most connections.
const CONNECTIONS_MAX: u64 = 1_000_000;

/// Most groups.
const GROUPS_MAX: u64 = 100_000;

/// Most messages of one round.
const MESSAGES_MAX: u64 = 10_000_000;

/// Most messages published at once.
const BURST_MAX: u64 = 1_024;

/// Most messages published per second.
const RATE_MAX: u64 = 100_000;

/// How long a round at a fixed rate takes unless its messages are given.
const RATE_ROUND: Duration = Duration::from_secs(5);

/// How fan-out is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct FanoutArguments {
    #[command(flatten)]
    target: TargetArguments,
    #[command(flatten)]
    other: OtherArguments,
    /// Receivers
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=CONNECTIONS_MAX))]
    connections: u64,
    /// How the receivers want messages
    #[arg(long, value_enum, default_value_t = Wire::Simple)]
    wire: Wire,
    /// To whom messages are published
    #[arg(long, value_enum, default_value_t = To::Hub)]
    to: To,
    /// Groups that messages go to in turn, with `--to groups`
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=GROUPS_MAX))]
    groups: u64,
    /// Connections of each of these groups; a connection is in as many as it takes
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=CONNECTIONS_MAX))]
    group_size: u64,
    /// When the next message is published
    #[arg(long, value_enum, default_value_t = Mode::Lone)]
    mode: Mode,
    /// Messages published at once in the mode `burst`
    #[arg(long, default_value_t = 32, value_parser = clap::value_parser!(u64).range(1..=BURST_MAX))]
    burst: u64,
    /// Publish this many messages per second whether they arrive or not
    #[arg(long, value_name = "PER_SECOND", conflicts_with_all = ["mode", "burst"],
          value_parser = clap::value_parser!(u64).range(1..=RATE_MAX))]
    rate: Option<u64>,
    /// Payload of a message in bytes
    #[arg(long, default_value_t = 128,
          value_parser = clap::value_parser!(u64).range(PAYLOAD_BYTES_MIN as u64..=PAYLOAD_BYTES_MAX as u64))]
    size: u64,
    /// Messages of one round [default: 200, or 10,000 to groups and users; burst: 100 bursts; rate: 5 seconds]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=MESSAGES_MAX))]
    messages: Option<u64>,
    /// Rounds that count; one before them warms up
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=ROUNDS_MAX))]
    rounds: u64,
    /// Do not measure the bare loop of the kernel's calls beside it
    #[arg(long)]
    no_floor: bool,
    /// Count instructions instead of CPU time, by valgrind, and leave a profile of each round in this folder
    #[arg(long, value_name = "FOLDER", conflicts_with = RUNNING)]
    instructions: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    /// When the last one has arrived everywhere: nothing can be joined
    Lone,
    /// Several at once, when the last ones have arrived everywhere
    Burst,
    /// By the clock.
    #[value(skip)]
    Rate,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(super) struct FanoutOutcome {
    benchmark: &'static str,
    mode: Mode,
    unit: Unit,
    /// `None` for another server.
    wire: Option<Wire>,
    to: To,
    connections: u64,
    /// Receivers of each message.
    receivers: u64,
    size_bytes: u64,
    shards: Option<u16>,
    compression: bool,
    burst: Option<u64>,
    rate: Option<u64>,
    messages_per_round: u64,
    rounds: Vec<Round>,
    summary: Summary,
}

#[derive(Debug, Serialize)]
struct Round {
    deliveries: u64,
    seconds: f64,
    deliveries_per_second: f64,
    latency: Percentiles,
    cost_per_delivery: Option<Cost>,
    floor_per_delivery: Option<f64>,
    /// The service's cost by that of the floor.
    ratio: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Summary {
    cost_per_delivery: Option<Spread>,
    shard_cost_per_delivery: Option<Spread>,
    floor_per_delivery: Option<Spread>,
    ratio: Option<Spread>,
    /// The smallest of the service by the smallest of the floor.
    ratio_of_minima: Option<f64>,
    latency: Percentiles,
}

pub(super) fn run(arguments: &FanoutArguments, json: bool) -> anyhow::Result<FanoutOutcome> {
    let audience = Audience::new(
        arguments.to,
        usize::try_from(arguments.connections)?,
        usize::try_from(arguments.groups)?,
        usize::try_from(arguments.group_size)?,
    )?;
    let (mode, pace) = match (arguments.rate, arguments.mode) {
        (Some(rate), _) => (Mode::Rate, Pace::Rate(rate)),
        (None, Mode::Burst) => (Mode::Burst, Pace::Burst(arguments.burst)),
        (None, Mode::Lone | Mode::Rate) => (Mode::Lone, Pace::Burst(1)),
    };
    let messages = arguments.messages.unwrap_or(match pace {
        Pace::Rate(rate) => rate * RATE_ROUND.as_secs(),
        Pace::Burst(1) if 1 < audience.targets => 10_000,
        Pace::Burst(1) => 200,
        Pace::Burst(burst) => 100 * burst,
    });
    // A floor shows what one message or one full write costs; at a fixed rate there is neither.
    let with_floor = !arguments.no_floor && mode != Mode::Rate;
    let counted = Run::counted_into(arguments.instructions.as_deref())?;
    let progress = Progress::new(json);
    let clock = Clock::start();
    let open = audience.clients * (1 + usize::from(with_floor));
    let (target, wire, to) = (&arguments.target, arguments.wire, arguments.to);
    let other = Stage::of_other(&arguments.other, target, open, audience.clients)?;
    let is_ours = other.is_none();
    let stage = match other {
        Some(stage) => stage,
        None => Stage::of_service(target, open, counted, wire, to, &audience)?,
    };
    let size = usize::try_from(arguments.size)?;
    let joined = arguments.other.joined();
    let mut load = Load::connect(stage, audience, size, joined, clock, progress)?;

    let bar = progress.bar("deliver", (1 + arguments.rounds) * messages);
    let per_round = audience.deliveries(messages);
    let batch = if mode == Mode::Burst { BATCH_MAX as u64 } else { 1 };
    load.round(messages, pace, &bar)?;
    let mut floor = None;
    if with_floor {
        if joined {
            // What came last may have been several messages at once.
            load.round(1, Pace::Burst(1), &bar)?;
        }
        // The same bytes for each form as have just come.
        let payload_bytes = load.payload_bytes(if is_ours { wire.forms().len() } else { 1 })?;
        let mut started = Floor::start(audience, &payload_bytes, load.core(), counted, clock)
            .context("the floor cannot be measured")?;
        started.round(messages, batch)?;
        floor = Some(started);
    }
    let mut rounds = Vec::new();
    let mut latency = Histogram::new();
    for _ in 0..arguments.rounds {
        let measured = load.round(messages, pace, &bar)?;
        let used = floor.as_mut().map(|floor| floor.round(messages, batch)).transpose()?;
        latency.add(&measured.latency);
        rounds.push(Round::new(&measured, used.map(|used| per(used.all, per_round))));
    }
    bar.finish_and_clear();
    load.expect_silence()?;

    Ok(FanoutOutcome {
        benchmark: "fanout",
        mode,
        unit: Unit::of(arguments.instructions.is_some()),
        wire: is_ours.then_some(wire),
        to,
        connections: arguments.connections,
        receivers: audience.size as u64,
        size_bytes: arguments.size,
        shards: target.shards().filter(|_| is_ours),
        compression: target.compression(),
        burst: (mode == Mode::Burst).then_some(arguments.burst),
        rate: arguments.rate,
        messages_per_round: messages,
        summary: Summary::of(&rounds, &latency),
        rounds,
    })
}

impl Round {
    fn new(measured: &Measured, floor_per_delivery: Option<f64>) -> Self {
        let deliveries = measured.deliveries;
        let cost = measured.used.map(|used| Cost::new(used, deliveries));
        let seconds = Duration::from_nanos(measured.nanoseconds).as_secs_f64();
        Self {
            deliveries,
            seconds,
            deliveries_per_second: per(deliveries, 1) / seconds,
            latency: measured.latency.percentiles(),
            cost_per_delivery: cost,
            floor_per_delivery,
            ratio: cost.zip(floor_per_delivery).map(|(service, floor)| service.all / floor),
        }
    }
}

impl Summary {
    fn of(rounds: &[Round], latency: &Histogram) -> Self {
        let cost = |of: fn(&Cost) -> Option<f64>| {
            let costs = rounds.iter().filter_map(|round| round.cost_per_delivery.as_ref());
            Spread::of(costs.filter_map(of))
        };
        let cost_per_delivery = cost(|cost| Some(cost.all));
        let floor_per_delivery =
            Spread::of(rounds.iter().filter_map(|round| round.floor_per_delivery));
        Self {
            cost_per_delivery,
            shard_cost_per_delivery: cost(|cost| cost.shards),
            floor_per_delivery,
            ratio: Spread::of(rounds.iter().filter_map(|round| round.ratio)),
            ratio_of_minima: cost_per_delivery
                .zip(floor_per_delivery)
                .map(|(service, floor)| service.min / floor.min),
            latency: latency.percentiles(),
        }
    }
}

impl Display for FanoutOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pace = match (self.burst, self.rate) {
            (Some(burst), _) => format!("bursts of {burst}"),
            (None, Some(rate)) => format!("{rate} messages per second"),
            (None, None) => "lone messages".to_owned(),
        };
        writeln!(
            f,
            "fan-out to {} of {} connections, {} bytes, {pace}, {} messages a round",
            self.receivers, self.connections, self.size_bytes, self.messages_per_round
        )?;
        let [cost, floor] = self.unit.columns();
        let mut table = Table::new([
            "round",
            "deliveries/s",
            "p50 ms",
            "p99 ms",
            cost,
            "of that shards",
            floor,
            "ratio",
        ]);
        let ms = |us: f64| hundredths(us / 1e3);
        for (at, round) in self.rounds.iter().enumerate() {
            table.row([
                (at + 1).to_string(),
                whole(round.deliveries_per_second),
                ms(round.latency.p50_us),
                ms(round.latency.p99_us),
                whole(round.cost_per_delivery.map(|cost| cost.all)),
                whole(round.cost_per_delivery.and_then(|cost| cost.shards)),
                whole(round.floor_per_delivery),
                hundredths(round.ratio),
            ]);
        }
        let summary = &self.summary;
        for (name, of) in [
            ("median", (|spread| spread.median) as fn(Spread) -> f64),
            ("min", |spread| spread.min),
        ] {
            let median = name == "median";
            table.row([
                name.to_owned(),
                String::new(),
                if median { ms(summary.latency.p50_us) } else { String::new() },
                if median { ms(summary.latency.p99_us) } else { String::new() },
                whole(summary.cost_per_delivery.map(of)),
                whole(summary.shard_cost_per_delivery.map(of)),
                whole(summary.floor_per_delivery.map(of)),
                hundredths(if median { summary.ratio.map(of) } else { summary.ratio_of_minima }),
            ]);
        }
        write!(f, "{table}")
    }
}
