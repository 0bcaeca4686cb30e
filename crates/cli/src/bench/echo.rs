//! `bench echo`: clients that send and get back what they sent, through a service in echo mode.

use std::fmt::{self, Display};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use hookwire_proto::frame::{Opcode, encode};
use indicatif::ProgressBar;
use serde::Serialize;
use url::{Position, Url};

use super::ROUNDS_MAX;
use super::child::{Child, Run};
use super::histogram::{Histogram, Percentiles};
use super::meter::{Meter, Unit};
use super::process::{OTHER_FILES, Process, allow_open_files};
use super::report::{Cost, Progress, Spread, Table, hundredths, per, whole};
use super::swarm::{
    Clock, Door, Entrance, Handler, Opening, PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MIN, Stamp, Swarm,
};
use super::target::{SHARDS_MAX, locate, random, start};
use super::wire::Upgrade;

/// Handshakes under way at once.
const HANDSHAKES_IN_FLIGHT: usize = 64;

/// Most connections.
const CONNECTIONS_MAX: u64 = 1_000_000;

/// Most messages that a client has under way.
const IN_FLIGHT_MAX: u64 = 1_024;

/// Most messages of one round.
const MESSAGES_MAX: u64 = 100_000_000;

/// How echo is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct EchoArguments {
    /// Measure this WebSocket echo server instead of a service started for it: `ws://…`
    #[arg(long)]
    url: Option<Url>,
    /// Process of that server on this machine, for its CPU time
    #[arg(long, requires = "url")]
    pid: Option<u32>,
    /// Count the CPU time of its descendants as well
    #[arg(long, requires = "pid")]
    pid_tree: bool,
    /// Load a server that is not on this machine
    #[arg(long)]
    allow_remote: bool,
    /// Shards of the service that is started
    #[arg(long, default_value_t = 1, conflicts_with = "url",
          value_parser = clap::value_parser!(u16).range(1..=i64::from(SHARDS_MAX)))]
    shards: u16,
    /// Run the service that is started on the last core and the load on the others
    #[arg(long, conflicts_with = "url")]
    pin: bool,
    /// Clients
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=CONNECTIONS_MAX))]
    connections: u64,
    /// Messages that each client sends at once, the next when all are back
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=IN_FLIGHT_MAX))]
    in_flight: u64,
    /// Payload of a message in bytes
    #[arg(long, default_value_t = 128,
          value_parser = clap::value_parser!(u64).range(PAYLOAD_BYTES_MIN as u64..=PAYLOAD_BYTES_MAX as u64))]
    size: u64,
    /// Messages of one round, of all clients together [default: 100,000; more than one in flight: 1,000,000]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=MESSAGES_MAX))]
    messages: Option<u64>,
    /// Rounds that count; one before them warms up
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=ROUNDS_MAX))]
    rounds: u64,
    /// Count instructions instead of CPU time, by valgrind, and leave a profile of each round in this folder
    #[arg(long, value_name = "FOLDER", conflicts_with = "url")]
    instructions: Option<PathBuf>,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(super) struct EchoOutcome {
    benchmark: &'static str,
    unit: Unit,
    connections: u64,
    in_flight: u64,
    size_bytes: u64,
    shards: Option<u16>,
    messages_per_round: u64,
    rounds: Vec<Round>,
    summary: Summary,
}

#[derive(Debug, Serialize)]
struct Round {
    messages_per_second: f64,
    latency: Percentiles,
    cost_per_message: Option<Cost>,
}

#[derive(Debug, Serialize)]
struct Summary {
    cost_per_message: Option<Spread>,
    latency: Percentiles,
}

pub(super) fn run(arguments: &EchoArguments, json: bool) -> anyhow::Result<EchoOutcome> {
    let connections = usize::try_from(arguments.connections)?;
    allow_open_files(arguments.connections + OTHER_FILES)?;
    let progress = Progress::new(json);
    let server = Server::open(arguments)?;
    let each =
        arguments.messages.unwrap_or(if arguments.in_flight == 1 { 100_000 } else { 1_000_000 });
    let each = each.div_ceil(arguments.connections);
    let messages = each * arguments.connections;

    let clock = Clock::start();
    let mut swarm = Swarm::new(clock)?;
    let mut echoes = Echoes::new(connections);
    swarm.connect(&server.door, connections, |_| server.opening.clone(), &mut echoes)?;
    let size = usize::try_from(arguments.size)?;
    let mut clients = Clients::new(swarm, echoes, clock, arguments.in_flight, size)?;

    let bar = progress.bar("echo", (1 + arguments.rounds) * messages);
    let mut rounds = Vec::new();
    let mut latency = Histogram::new();
    for number in 0..=arguments.rounds {
        let before = server.meter.as_ref().map(Meter::used_at_rest).transpose()?;
        let begin = clock.now();
        clients.round(each, &bar)?;
        let seconds = Duration::from_nanos(clock.now() - begin).as_secs_f64();
        let after = server.meter.as_ref().map(Meter::used_at_rest).transpose()?;
        let of_round = clients.take_latency();
        if number == 0 {
            continue;
        }
        latency.add(&of_round);
        rounds.push(Round {
            messages_per_second: per(messages, 1) / seconds,
            latency: of_round.percentiles(),
            cost_per_message: before
                .zip(after)
                .map(|(before, after)| Cost::new(after - before, messages)),
        });
    }
    bar.finish_and_clear();
    let cost = rounds.iter().filter_map(|round| round.cost_per_message).map(|cost| cost.all);
    let summary = Summary { cost_per_message: Spread::of(cost), latency: latency.percentiles() };
    Ok(EchoOutcome {
        benchmark: "echo",
        unit: Unit::of(arguments.instructions.is_some()),
        connections: arguments.connections,
        in_flight: arguments.in_flight,
        size_bytes: arguments.size,
        shards: arguments.url.is_none().then_some(arguments.shards),
        messages_per_round: messages,
        rounds,
        summary,
    })
}

/// Who sends everything back.
struct Server {
    /// Ends with this value.
    _child: Option<Child>,
    meter: Option<Meter>,
    door: Door,
    opening: Opening,
}

impl Server {
    fn open(arguments: &EchoArguments) -> anyhow::Result<Self> {
        let (child, meter, url) = if let Some(url) = &arguments.url {
            let process = if arguments.pid_tree { Process::tree } else { Process::new };
            (None, arguments.pid.map(|pid| Meter::Cpu(process(pid))), url.clone())
        } else {
            let run = Run::counted_into(arguments.instructions.as_deref())?;
            let (child, _) = start("echo-server", arguments.shards, arguments.pin, run, &[])?;
            let url = child.told("url")?.parse()?;
            let meter = child.meter();
            (Some(child), Some(meter), url)
        };
        let (address, authority) = locate(&url, arguments.allow_remote)?;
        let upgrade = Upgrade::new(random()?, false);
        let request = upgrade.request(&authority, &url[Position::BeforePath..Position::AfterQuery]);
        let opening = Opening { request, entrance: Some(Arc::new(Entrance::silent(upgrade))) };
        let door = Door { address, tls: None, in_flight: HANDSHAKES_IN_FLIGHT };
        Ok(Self { _child: child, meter, door, opening })
    }
}

/// The clients and what they send.
pub(super) struct Clients {
    swarm: Swarm,
    echoes: Echoes,
    clock: Clock,
    in_flight: u64,
    payload: Vec<u8>,
    mask: [u8; 4],
}

impl Clients {
    /// Returns clients that are connected, each with so many messages in flight.
    pub(super) fn new(
        swarm: Swarm,
        echoes: Echoes,
        clock: Clock,
        in_flight: u64,
        size: usize,
    ) -> anyhow::Result<Self> {
        let payload = vec![b'x'; size];
        Ok(Self { swarm, echoes, clock, in_flight, payload, mask: random()? })
    }

    /// Returns how long messages took since this was asked last.
    pub(super) fn take_latency(&mut self) -> Histogram {
        std::mem::replace(&mut self.echoes.latency, Histogram::new())
    }

    /// Has the clients send `messages` in turn, so many in a second whether they come back or not, and waits until all are back.
    /// Latency begins when a message should have been sent.
    pub(super) fn paced(
        &mut self,
        messages: u64,
        rate: u64,
        bar: &ProgressBar,
    ) -> anyhow::Result<()> {
        let begin = self.clock.now();
        for (number, member) in (0..messages).zip((0..self.swarm.len()).cycle()) {
            let due = begin + number * 1_000_000_000 / rate;
            loop {
                let left = due.saturating_sub(self.clock.now());
                if left == 0 {
                    break;
                }
                self.swarm.turn_until(Duration::from_nanos(left), &mut self.echoes)?;
            }
            self.send(member, 1, Some(due))?;
            bar.inc(1);
        }
        while self.echoes.clients.iter().any(|client| client.received < client.sent) {
            self.swarm.turn(&mut self.echoes)?;
        }
        self.echoes.ready.clear();
        Ok(())
    }

    /// Sends a client's next messages, stamped with the time when they are due or with that of now.
    fn send(&mut self, member: usize, count: u64, due: Option<u64>) -> anyhow::Result<()> {
        let client = &mut self.echoes.clients[member];
        let mut frames = Vec::new();
        for sequence in client.sent..client.sent + count {
            let sent = due.unwrap_or_else(|| self.clock.now());
            Stamp { sequence, sent }.put(&mut self.payload);
            frames.extend_from_slice(&encode(Opcode::Binary, &self.payload, Some(self.mask)));
        }
        client.sent += count;
        self.swarm.send(member, &frames)
    }

    /// Has every client send `each` messages and get them back.
    pub(super) fn round(&mut self, each: u64, bar: &ProgressBar) -> anyhow::Result<()> {
        let goal = self.echoes.clients.first().map_or(0, |client| client.received) + each;
        let mut unfinished = self.swarm.len();
        let mut ready: Vec<usize> = (0..self.swarm.len()).collect();
        while unfinished != 0 {
            for member in ready.drain(..) {
                let count = self.in_flight.min(goal - self.echoes.clients[member].received);
                if count == 0 {
                    unfinished -= 1;
                    continue;
                }
                self.send(member, count, None)?;
                bar.inc(count);
            }
            if unfinished != 0 {
                self.swarm.turn(&mut self.echoes)?;
                std::mem::swap(&mut ready, &mut self.echoes.ready);
            }
        }
        Ok(())
    }
}

/// What has come back. Checks the order of every client's messages.
pub(super) struct Echoes {
    clients: Vec<Client>,
    /// Clients that have got back everything they sent.
    ready: Vec<usize>,
    latency: Histogram,
}

#[derive(Debug, Clone, Copy, Default)]
struct Client {
    sent: u64,
    received: u64,
}

impl Echoes {
    pub(super) fn new(clients: usize) -> Self {
        Self {
            clients: vec![Client::default(); clients],
            ready: Vec::new(),
            latency: Histogram::new(),
        }
    }
}

impl Handler for Echoes {
    fn message(&mut self, member: usize, head: &[u8], now: u64) -> anyhow::Result<()> {
        let stamp = Stamp::read(head)?;
        let client = &mut self.clients[member];
        let due = client.received;
        ensure!(due < client.sent, "message {} came and none was due", stamp.sequence);
        ensure!(stamp.sequence == due, "message {} came where {due} was due", stamp.sequence);
        client.received += 1;
        self.latency.record(now.saturating_sub(stamp.sent));
        if client.received == client.sent {
            self.ready.push(member);
        }
        Ok(())
    }
}

impl Display for EchoOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "echo with {} connections, {} bytes, {} in flight, {} messages a round",
            self.connections, self.size_bytes, self.in_flight, self.messages_per_round
        )?;
        let mut table =
            Table::new(["round", "messages/s", "p50 µs", "p99 µs", self.unit.columns()[0]]);
        for (at, round) in self.rounds.iter().enumerate() {
            table.row([
                (at + 1).to_string(),
                whole(round.messages_per_second),
                hundredths(round.latency.p50_us),
                hundredths(round.latency.p99_us),
                whole(round.cost_per_message.map(|cost| cost.all)),
            ]);
        }
        let (cost, latency) = (self.summary.cost_per_message, self.summary.latency);
        table.row([
            "median".to_owned(),
            String::new(),
            hundredths(latency.p50_us),
            hundredths(latency.p99_us),
            whole(cost.map(|cost| cost.median)),
        ]);
        let nothing = String::new;
        table.row([
            "min".to_owned(),
            nothing(),
            nothing(),
            nothing(),
            whole(cost.map(|cost| cost.min)),
        ]);
        write!(f, "{table}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_that_is_too_much_or_out_of_order_is_found() {
        let payload = |sequence| {
            let mut payload = vec![0; PAYLOAD_BYTES_MIN];
            Stamp { sequence, sent: 1 }.put(&mut payload);
            payload
        };
        let mut echoes = Echoes::new(1);
        echoes.clients[0].sent = 2;
        assert!(echoes.message(0, &payload(1), 2).is_err(), "the second before the first");
        echoes.message(0, &payload(0), 2).unwrap();
        assert!(echoes.ready.is_empty());
        echoes.message(0, &payload(1), 2).unwrap();
        assert_eq!(echoes.ready, [0]);
        assert!(echoes.message(0, &payload(2), 2).is_err(), "nobody sent it");
    }
}
