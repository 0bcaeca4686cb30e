//! `bench fanout`: one publisher, many receivers. Every message must reach every receiver once and in order.

use std::fmt::{self, Display};
use std::time::Duration;

use anyhow::{Context, ensure};
use hookwire_client::Service;
use indicatif::ProgressBar;
use serde::Serialize;

use super::ROUNDS_MAX;
use super::child::Memory;
use super::floor::{BATCH_MAX, Floor};
use super::histogram::{Histogram, Percentiles};
use super::process::{CpuTime, Process};
use super::publisher::Publisher;
use super::report::{CpuPerUnit, Progress, Spread, Table, hundredths, per, whole};
use super::swarm::{Clock, Handler, PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MIN, Stamp, Swarm};
use super::target::{Target, TargetArguments};

/// Handshakes under way at once.
const HANDSHAKES_IN_FLIGHT: usize = 64;

/// Most connections.
const CONNECTIONS_MAX: u64 = 1_000_000;

/// Most messages of one round.
const MESSAGES_MAX: u64 = 10_000_000;

/// Most messages published at once.
const BURST_MAX: u64 = 1_024;

/// Most messages published per second.
const RATE_MAX: u64 = 100_000;

/// How long a round at a fixed rate takes unless its messages are given.
const RATE_ROUND: Duration = Duration::from_secs(5);

/// After the last round: how long nothing more may come.
const SURPLUS_TIME: Duration = Duration::from_millis(100);

/// How fan-out is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct FanoutArguments {
    #[command(flatten)]
    target: TargetArguments,
    /// Receivers
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=CONNECTIONS_MAX))]
    connections: u64,
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
    /// Messages of one round [default: 200; burst: 3200; rate: 5 seconds]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=MESSAGES_MAX))]
    messages: Option<u64>,
    /// Rounds that count; one before them warms up
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=ROUNDS_MAX))]
    rounds: u64,
    /// Do not measure the bare loop of the kernel's calls beside it
    #[arg(long)]
    no_floor: bool,
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
    connections: u64,
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
    cpu_per_delivery: Option<CpuPerUnit>,
    floor_ns_per_delivery: Option<f64>,
    /// CPU per delivery of the service by that of the floor.
    ratio: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Summary {
    cpu_ns_per_delivery: Option<Spread>,
    shard_cpu_ns_per_delivery: Option<Spread>,
    floor_ns_per_delivery: Option<Spread>,
    ratio: Option<Spread>,
    /// The smallest of the service by the smallest of the floor.
    ratio_of_minima: Option<f64>,
    latency: Percentiles,
}

pub(super) fn run(arguments: &FanoutArguments, json: bool) -> anyhow::Result<FanoutOutcome> {
    let connections = usize::try_from(arguments.connections)?;
    let size = usize::try_from(arguments.size)?;
    let mode = if arguments.rate.is_some() { Mode::Rate } else { arguments.mode };
    let messages = arguments.messages.unwrap_or(match (mode, arguments.rate) {
        (Mode::Rate, Some(rate)) => rate * RATE_ROUND.as_secs(),
        (Mode::Burst, _) => 100 * arguments.burst,
        (Mode::Lone | Mode::Rate, _) => 200,
    });
    let pace = match (mode, arguments.rate) {
        (Mode::Rate, Some(rate)) => Pace::Rate(rate),
        (Mode::Burst, _) => Pace::Burst(arguments.burst),
        (Mode::Lone | Mode::Rate, _) => Pace::Burst(1),
    };
    // A floor shows what one message or one full write costs; at a fixed rate there is neither.
    let with_floor = !arguments.no_floor && mode != Mode::Rate;
    let progress = Progress::new(json);
    let clock = Clock::start();
    let target =
        arguments.target.open(connections * (1 + usize::from(with_floor)), Memory::AsShipped)?;
    let mut floor = with_floor
        .then(|| Floor::start(connections, size, target.core, clock))
        .transpose()
        .context("the floor cannot be measured")?;
    let mut load = Load::connect(&target, connections, size, clock, progress)?;

    let bar = progress.bar("deliver", (1 + arguments.rounds) * messages);
    let mut rounds = Vec::new();
    let mut latency = Histogram::new();
    for number in 0..=arguments.rounds {
        let measured = load.round(&target, messages, pace, &bar)?;
        let floor_ns = floor
            .as_mut()
            .map(|floor| floor_round(floor, messages, arguments.connections, mode))
            .transpose()?;
        if number != 0 {
            latency.add(&measured.latency);
            rounds.push(measured.finish(floor_ns));
        }
    }
    bar.finish_and_clear();
    load.expect_silence()?;

    let cpu = |of: fn(&CpuPerUnit) -> Option<f64>| {
        Spread::of(rounds.iter().filter_map(|round| round.cpu_per_delivery.as_ref().and_then(of)))
    };
    let cpu_ns_per_delivery = cpu(|cpu| Some(cpu.all_ns));
    let floor_ns_per_delivery =
        Spread::of(rounds.iter().filter_map(|round| round.floor_ns_per_delivery));
    let summary = Summary {
        cpu_ns_per_delivery,
        shard_cpu_ns_per_delivery: cpu(|cpu| cpu.shards_ns),
        floor_ns_per_delivery,
        ratio: Spread::of(rounds.iter().filter_map(|round| round.ratio)),
        ratio_of_minima: cpu_ns_per_delivery
            .zip(floor_ns_per_delivery)
            .map(|(service, floor)| service.min / floor.min),
        latency: latency.percentiles(),
    };
    Ok(FanoutOutcome {
        benchmark: "fanout",
        mode,
        connections: arguments.connections,
        size_bytes: arguments.size,
        shards: arguments.target.shards(),
        compression: arguments.target.compression(),
        burst: (mode == Mode::Burst).then_some(arguments.burst),
        rate: arguments.rate,
        messages_per_round: messages,
        rounds,
        summary,
    })
}

/// Returns the nanoseconds of CPU that one delivery takes the bare loop.
fn floor_round(
    floor: &mut Floor,
    messages: u64,
    connections: u64,
    mode: Mode,
) -> anyhow::Result<f64> {
    let batch = if mode == Mode::Burst { BATCH_MAX as u64 } else { 1 };
    let before = floor.process().cpu_at_rest()?;
    floor.send(messages, batch)?;
    let used = floor.process().cpu_at_rest()? - before;
    Ok(per(used.all, messages * connections))
}

/// Returns items of a list in JSON, as an application may send them: a payload of one letter would be no test of compression.
fn items(bytes: usize) -> Vec<u8> {
    let item = |at: usize| {
        let (name, price, left) = (at * at, at * 7_919 % 100_000, at * 31 % 1_000);
        format!(r#"{{"id":{at},"name":"item {name}","price":{price},"left":{left}}},"#)
    };
    (0..).flat_map(|at| item(at).into_bytes()).take(bytes).collect()
}

/// When messages are published.
#[derive(Debug, Clone, Copy)]
enum Pace {
    /// So many at once, when the last ones have arrived.
    Burst(u64),
    /// So many in a second.
    Rate(u64),
}

/// The publisher and its receivers.
struct Load {
    swarm: Swarm,
    publisher: Publisher,
    receipts: Receipts,
    clock: Clock,
    path: String,
    token: String,
    payload: Vec<u8>,
    published: u64,
}

impl Load {
    fn connect(
        target: &Target,
        connections: usize,
        size: usize,
        clock: Clock,
        progress: Progress,
    ) -> anyhow::Result<Self> {
        let handshakes = (0..connections)
            .map(|index| target.handshake(&format!("user-{index}")))
            .collect::<anyhow::Result<Vec<_>>>()?;
        let mut swarm = Swarm::new(clock)?;
        let mut receipts = Receipts::new(connections);
        receipts.bar = Some(progress.bar("connect", connections as u64));
        let door = target.door(HANDSHAKES_IN_FLIGHT);
        swarm.connect(&door, connections, |index| handshakes[index].clone(), &mut receipts)?;
        if let Some(bar) = receipts.bar.take() {
            bar.finish_and_clear();
        }
        let publisher = target.publisher(&swarm)?;
        let (path, token) = broadcast(target.service());
        Ok(Self {
            swarm,
            publisher,
            receipts,
            clock,
            path,
            token,
            payload: items(size),
            published: 0,
        })
    }

    /// Publishes `messages` and returns when all have arrived.
    fn round(
        &mut self,
        target: &Target,
        messages: u64,
        pace: Pace,
        bar: &ProgressBar,
    ) -> anyhow::Result<Measured> {
        // A new connection each time: the service closes one that is silent for long.
        self.publisher = target.publisher(&self.swarm)?;
        let process = target.process();
        self.receipts.latency = Histogram::new();
        let delivered = self.receipts.delivered();
        let cpu_before = process.map(Process::cpu_at_rest).transpose()?;
        let begin = self.clock.now();
        let end = self.published + messages;
        match pace {
            Pace::Burst(burst) => {
                while self.published < end {
                    let count = burst.min(end - self.published);
                    let now = self.clock.now();
                    for _ in 0..count {
                        self.publish(now)?;
                    }
                    self.publisher.flush()?;
                    self.settle()?;
                    bar.inc(count);
                }
            }
            Pace::Rate(rate) => {
                for number in 0..messages {
                    let due = begin + number * 1_000_000_000 / rate;
                    self.work_until(due)?;
                    // The time when it should be sent: a publisher that is late does not make the service look fast.
                    self.publish(due)?;
                    self.publisher.flush()?;
                    bar.inc(1);
                }
                self.settle()?;
            }
        }
        let nanoseconds = self.clock.now() - begin;
        let cpu_after = process.map(Process::cpu_at_rest).transpose()?;
        Ok(Measured {
            deliveries: self.receipts.delivered() - delivered,
            nanoseconds,
            latency: self.receipts.latency.clone(),
            cpu: cpu_before.zip(cpu_after).map(|(before, after)| after - before),
        })
    }

    fn publish(&mut self, sent: u64) -> anyhow::Result<()> {
        Stamp { sequence: self.published, sent }.put(&mut self.payload);
        self.published += 1;
        self.publisher.queue(
            "POST",
            &self.path,
            &self.token,
            "application/octet-stream",
            &self.payload,
        )
    }

    /// Waits until everything has arrived and every request is answered.
    fn settle(&mut self) -> anyhow::Result<()> {
        let due = self.published * self.swarm.len() as u64;
        while self.receipts.delivered() < due || self.publisher.in_flight() != 0 {
            let turn = self.swarm.turn(&mut self.receipts);
            if turn.with_context(|| {
                format!("{} of {due} deliveries came", self.receipts.delivered())
            })? {
                self.publisher.on_ready()?;
            }
        }
        Ok(())
    }

    fn work_until(&mut self, due: u64) -> anyhow::Result<()> {
        loop {
            let left = due.saturating_sub(self.clock.now());
            if left == 0 {
                return Ok(());
            }
            if self.swarm.turn_until(Duration::from_nanos(left), &mut self.receipts)?.guest {
                self.publisher.on_ready()?;
            }
        }
    }

    /// Makes sure that nothing comes twice: everything has arrived, so whatever comes now is too much, and fails in [`Receipts`].
    fn expect_silence(&mut self) -> anyhow::Result<()> {
        let due = self.clock.now() + u64::try_from(SURPLUS_TIME.as_nanos())?;
        self.work_until(due)
    }
}

/// Returns path and token of a call that sends to the whole hub.
fn broadcast(service: &Service) -> (String, String) {
    let path = format!("/ws/api/v1/hubs/{}/", service.hub());
    let token = service.rest_token(&path, Duration::from_hours(1));
    (path, token)
}

struct Measured {
    deliveries: u64,
    nanoseconds: u64,
    latency: Histogram,
    cpu: Option<CpuTime>,
}

impl Measured {
    fn finish(self, floor_ns_per_delivery: Option<f64>) -> Round {
        let cpu_per_delivery = self.cpu.map(|used| CpuPerUnit::new(used, self.deliveries));
        let seconds = Duration::from_nanos(self.nanoseconds).as_secs_f64();
        Round {
            deliveries: self.deliveries,
            seconds,
            deliveries_per_second: per(self.deliveries, 1) / seconds,
            latency: self.latency.percentiles(),
            floor_ns_per_delivery,
            ratio: cpu_per_delivery
                .zip(floor_ns_per_delivery)
                .map(|(service, floor)| service.all_ns / floor),
            cpu_per_delivery,
        }
    }
}

/// What has arrived. Checks every message of every receiver.
#[derive(Debug)]
pub(super) struct Receipts {
    /// The message that is due, for each receiver.
    next: Vec<u64>,
    delivered: u64,
    latency: Histogram,
    /// Moves with each connection.
    bar: Option<ProgressBar>,
}

impl Receipts {
    pub(super) fn new(receivers: usize) -> Self {
        Self { next: vec![0; receivers], delivered: 0, latency: Histogram::new(), bar: None }
    }

    pub(super) const fn delivered(&self) -> u64 {
        self.delivered
    }
}

impl Handler for Receipts {
    fn message(&mut self, member: usize, head: &[u8], now: u64) -> anyhow::Result<()> {
        let stamp = Stamp::read(head)?;
        let due = &mut self.next[member];
        ensure!(stamp.sequence == *due, "message {} came where {due} was due", stamp.sequence);
        *due += 1;
        self.delivered += 1;
        self.latency.record(now.saturating_sub(stamp.sent));
        Ok(())
    }

    fn opened(&mut self, _member: usize, _waited: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
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
            "fan-out to {} connections, {} bytes, {pace}, {} messages a round",
            self.connections, self.size_bytes, self.messages_per_round
        )?;
        let mut table = Table::new([
            "round",
            "deliveries/s",
            "p50 ms",
            "p99 ms",
            "CPU ns",
            "of that shards",
            "floor ns",
            "ratio",
        ]);
        let ms = |us: f64| hundredths(us / 1e3);
        for (at, round) in self.rounds.iter().enumerate() {
            table.row([
                (at + 1).to_string(),
                whole(round.deliveries_per_second),
                ms(round.latency.p50_us),
                ms(round.latency.p99_us),
                whole(round.cpu_per_delivery.map(|cpu| cpu.all_ns)),
                whole(round.cpu_per_delivery.and_then(|cpu| cpu.shards_ns)),
                whole(round.floor_ns_per_delivery),
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
                whole(summary.cpu_ns_per_delivery.map(of)),
                whole(summary.shard_cpu_ns_per_delivery.map(of)),
                whole(summary.floor_ns_per_delivery.map(of)),
                hundredths(if median { summary.ratio.map(of) } else { summary.ratio_of_minima }),
            ]);
        }
        write!(f, "{table}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn payload(sequence: u64) -> Vec<u8> {
        let mut payload = vec![0; PAYLOAD_BYTES_MIN];
        Stamp { sequence, sent: 5 }.put(&mut payload);
        payload
    }

    #[test]
    fn a_message_twice_or_out_of_order_is_found() {
        let mut receipts = Receipts::new(2);
        receipts.message(0, &payload(0), 6).unwrap();
        receipts.message(1, &payload(0), 6).unwrap();
        receipts.message(0, &payload(1), 7).unwrap();
        assert_eq!(receipts.delivered(), 3);
        let twice = receipts.message(0, &payload(1), 8).unwrap_err().to_string();
        assert_eq!(twice, "message 1 came where 2 was due");
        assert!(receipts.message(1, &payload(2), 8).is_err(), "one is missing");
        assert!(receipts.message(1, b"short", 8).is_err());
        assert_eq!(receipts.delivered(), 3);
    }
}
