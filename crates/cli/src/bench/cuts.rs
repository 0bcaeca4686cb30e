//! `bench cuts`: reliable clients whose connections are cut again and again. Every message must reach every client, once and in order.

use std::collections::VecDeque;
use std::fmt::{self, Display};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use hookwire_client::ClientAccess;
use hookwire_proto::frame::CloseCode;
use hookwire_proto::subprotocol::Subprotocol;
use indicatif::ProgressBar;
use serde::Serialize;

use super::child::Run;
use super::histogram::{Histogram, Percentiles};
use super::process::{Process, Used};
use super::publisher::Publisher;
use super::reliable::{HEAD_BYTES, Heard, ReliableClient, TEXT_BYTES_MAX};
use super::report::{Progress, Table, hundredths, per, whole};
use super::swarm::{
    Clock, Door, Ending, Entrance, Handler, PAYLOAD_BYTES_MIN, STALL_TIME_MAX, Stamp, Swarm,
};
use super::target::{Target, TargetArguments, call, way_in};

/// Handshakes under way at once while the clients come for the first time, or after a restart.
const HANDSHAKES_IN_FLIGHT: usize = 64;

/// Most connections.
const CONNECTIONS_MAX: u64 = 1_000_000;

/// Most groups.
const GROUPS_MAX: u64 = 10_000;

/// Most messages published per second.
const RATE_MAX: u64 = 100_000;

/// Longest time between two cuts of one client.
const INTERVAL_SECONDS_MAX: u64 = 3_600;

/// Longest run.
const SECONDS_MAX: u64 = 24 * 3_600;

/// How often a client acknowledges, as Azure's libraries do.
const ACK_INTERVAL: Duration = Duration::from_secs(1);

/// How often the clock is looked at when nothing happens.
const BEAT: Duration = Duration::from_millis(1);

/// How cuts are made.
#[derive(Debug, clap::Args)]
pub(crate) struct CutsArguments {
    #[command(flatten)]
    target: TargetArguments,
    /// Reliable clients
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(1..=CONNECTIONS_MAX))]
    connections: u64,
    /// Groups, each of which has its share of the clients and of the messages
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=GROUPS_MAX))]
    groups: u64,
    /// Messages published per second, each to one group
    #[arg(long, default_value_t = 2, value_name = "PER_SECOND",
          value_parser = clap::value_parser!(u64).range(1..=RATE_MAX))]
    rate: u64,
    /// Text of a message in bytes
    #[arg(long, default_value_t = 128,
          value_parser = clap::value_parser!(u64).range(PAYLOAD_BYTES_MIN as u64..=TEXT_BYTES_MAX as u64))]
    size: u64,
    /// Seconds from one cut of a client to its next
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=INTERVAL_SECONDS_MAX))]
    interval: u64,
    /// Seconds of messages and cuts
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    seconds: u64,
    /// Speak protobuf instead of JSON
    #[arg(long)]
    protobuf: bool,
    /// Restart the service at the end, and measure until all clients are connected anew
    #[arg(long, conflicts_with = "connection_string")]
    restart: bool,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(super) struct CutsOutcome {
    benchmark: &'static str,
    subprotocol: &'static str,
    connections: u64,
    groups: u64,
    rate: u64,
    size_bytes: u64,
    interval_seconds: u64,
    shards: Option<u16>,
    seconds: f64,
    messages: u64,
    cuts: u64,
    /// Deliveries that were due and came; everything else ends the run with an error.
    deliveries: u64,
    delivered_share: f64,
    /// Messages that came again after a cut and were dropped by their sequence ids.
    repeated: u64,
    /// Cuts after which something had to be sent that the client had missed.
    replays: u64,
    /// From a cut to the last message that was missed, or to the open connection if none was.
    replay: Percentiles,
    /// From the time when a message should have been published to the time when it was read.
    latency: Percentiles,
    cpu_us_per_delivery: Option<f64>,
    /// CPU time by time: 1 is a whole core.
    cores: Option<f64>,
    connected_bytes: Option<u64>,
    bytes_per_connection: Option<f64>,
    peak_bytes: Option<u64>,
    restart: Option<Restart>,
}

/// What a graceful restart of the service took its clients.
#[expect(clippy::struct_field_names, reason = "scripts read the unit in the name")]
#[derive(Debug, Serialize)]
struct Restart {
    /// Until the last client was told by 1001.
    told_ms: f64,
    /// Until the service listened again.
    listening_ms: f64,
    /// Until every client was connected anew.
    back_ms: f64,
}

pub(super) fn run(arguments: &CutsArguments, json: bool) -> anyhow::Result<CutsOutcome> {
    let connections = usize::try_from(arguments.connections)?;
    let progress = Progress::new(json);
    let clock = Clock::start();
    let mut target = arguments.target.open(connections, Run::AsShipped)?;
    let process = target.process();
    let empty_bytes = process.map(Process::proportional_bytes).transpose()?;
    let mut load = Load::connect(arguments, &target, clock, progress)?;
    let connected_bytes = process.map(Process::proportional_bytes).transpose()?;

    let bar = progress.bar("cut", arguments.seconds);
    process.map(Process::reset_peak).transpose()?;
    let before = target.used_at_rest()?;
    let begin = clock.now();
    let cuts = load.cut(arguments, &target, &bar)?;
    let seconds = Duration::from_nanos(clock.now() - begin).as_secs_f64();
    let after = target.used_at_rest()?;
    let peak_bytes = process.map(Process::peak_bytes).transpose()?;
    bar.finish_and_clear();

    let restart = if arguments.restart {
        let (restart, again) = load.restart(arguments, target)?;
        target = again;
        Some(restart)
    } else {
        None
    };
    // Until here the service must not end.
    drop(target);

    let Clients { repeated, replays, replay, latency, .. } = &load.clients;
    let (due, deliveries) = (load.clients.due(), load.clients.delivered);
    let used: Option<Used> = before.zip(after).map(|(before, after)| after - before);
    Ok(CutsOutcome {
        benchmark: "cuts",
        subprotocol: load.clients.subprotocol.name(),
        connections: arguments.connections,
        groups: arguments.groups,
        rate: arguments.rate,
        size_bytes: arguments.size,
        interval_seconds: arguments.interval,
        shards: arguments.target.shards(),
        seconds,
        messages: load.clients.published.iter().sum(),
        cuts,
        deliveries,
        delivered_share: per(deliveries, due),
        repeated: *repeated,
        replays: *replays,
        replay: replay.percentiles(),
        latency: latency.percentiles(),
        cpu_us_per_delivery: used.map(|used| per(used.all, deliveries) / 1e3),
        cores: used.map(|used| Duration::from_nanos(used.all).as_secs_f64() / seconds),
        connected_bytes,
        bytes_per_connection: connected_bytes
            .zip(empty_bytes)
            .map(|(all, none)| per(all.saturating_sub(none), arguments.connections)),
        peak_bytes,
        restart,
    })
}

/// The publisher and the clients.
struct Load {
    swarm: Swarm,
    door: Door,
    entrance: Arc<Entrance>,
    clients: Clients,
    clock: Clock,
    /// Path and token of a call to each group.
    calls: Vec<(String, String)>,
    ways_in: Vec<String>,
}

impl Load {
    fn connect(
        arguments: &CutsArguments,
        target: &Target,
        clock: Clock,
        progress: Progress,
    ) -> anyhow::Result<Self> {
        let connections = usize::try_from(arguments.connections)?;
        let groups = usize::try_from(arguments.groups)?;
        let subprotocol = if arguments.protobuf {
            Subprotocol::ProtobufReliable
        } else {
            Subprotocol::JsonReliable
        };
        let door = target.door(HANDSHAKES_IN_FLIGHT);
        let entrance = target.handled(Some(subprotocol), HEAD_BYTES);
        let ways_in = ways_in(target, connections, groups)?;
        let calls =
            (0..groups).map(|group| call(target.web_pubsub(), &format!("groups/g{group}/:send")));
        let calls = calls.collect();
        let mut clients = Clients::new(connections, groups, subprotocol);
        let bar = progress.bar("connect", arguments.connections);
        clients.bar = Some(bar.clone());
        let mut swarm = Swarm::new(clock)?;
        let opening = |member: usize| target.opening_by(&ways_in[member], entrance.clone());
        swarm.connect(&door, connections, opening, &mut clients)?;
        clients.until_known(&mut swarm)?;
        clients.opened.clear();
        bar.finish_and_clear();
        clients.bar = None;
        Ok(Self { swarm, door, entrance, clients, clock, calls, ways_in })
    }

    /// Publishes and cuts for as long as was asked, then waits until everything has come. Returns how many connections were cut.
    fn cut(
        &mut self,
        arguments: &CutsArguments,
        target: &Target,
        bar: &ProgressBar,
    ) -> anyhow::Result<u64> {
        let mut publisher = target.publisher(&self.swarm)?;
        let begin = self.clock.now();
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos());
        let whole = nanos(Duration::from_secs(arguments.seconds))?;
        let cut_pace = nanos(Duration::from_secs(arguments.interval))?;
        let ack_pace = nanos(ACK_INTERVAL)?;
        let second = nanos(Duration::from_secs(1))?;
        let (mut messages, mut cuts, mut acks) = (0, 0, 0);
        loop {
            let now = (self.clock.now() - begin).min(whole);
            while messages < 1 + due(now, arguments.rate, second) && now < whole {
                let sent = begin + messages * second / arguments.rate;
                self.publish(&mut publisher, messages, sent, arguments.size)?;
                messages += 1;
            }
            publisher.flush()?;
            while cuts < due(now, arguments.connections, cut_pace) {
                self.cut_one(usize::try_from(cuts % arguments.connections)?, target)?;
                cuts += 1;
            }
            while acks < due(now, arguments.connections, ack_pace) {
                self.acknowledge(usize::try_from(acks % arguments.connections)?)?;
                acks += 1;
            }
            self.turn(&mut publisher)?;
            bar.set_position(now / second);
            if now == whole {
                break;
            }
        }
        self.settle(&mut publisher)?;
        Ok(cuts)
    }

    fn publish(
        &mut self,
        publisher: &mut Publisher,
        number: u64,
        sent: u64,
        size: u64,
    ) -> anyhow::Result<()> {
        let group = usize::try_from(number % self.calls.len() as u64)?;
        let sequence = self.clients.published[group];
        self.clients.published[group] += 1;
        let mut text = vec![b'x'; usize::try_from(size)?];
        Stamp { sequence, sent }.put(&mut text);
        let (path, token) = &self.calls[group];
        publisher.queue("POST", path, Some(token), "text/plain", &text)
    }

    /// Cuts a connection, and has its client begin to come back at once.
    fn cut_one(&mut self, member: usize, target: &Target) -> anyhow::Result<()> {
        self.swarm.cut(member);
        let client = &mut self.clients.members[member];
        client.cut = Some(self.clock.now());
        client.back_at = None;
        let way_in = client.known.way_in(&self.ways_in[member]);
        self.swarm.reopen(&self.door, member, target.opening_by(&way_in, self.entrance.clone()))
    }

    fn acknowledge(&mut self, member: usize) -> anyhow::Result<()> {
        if !self.swarm.is_open(member) {
            return Ok(());
        }
        let subprotocol = self.clients.subprotocol;
        match self.clients.members[member].known.acknowledge(subprotocol) {
            Some(frame) => self.swarm.send(member, &frame),
            None => Ok(()),
        }
    }

    fn turn(&mut self, publisher: &mut Publisher) -> anyhow::Result<bool> {
        let turn = self.swarm.turn_until(BEAT, &mut self.clients)?;
        if turn.guest {
            publisher.on_ready()?;
        }
        let subprotocol = self.clients.subprotocol;
        while let Some(member) = self.clients.opened.pop_front() {
            if let Some(frame) = self.clients.members[member].known.resume(subprotocol) {
                self.swarm.send(member, &frame)?;
            }
        }
        Ok(turn.something)
    }

    /// Waits until every request is answered and every client has come back and has got everything.
    fn settle(&mut self, publisher: &mut Publisher) -> anyhow::Result<()> {
        let mut heard = self.clock.now();
        while publisher.in_flight() != 0
            || self.swarm.open() < self.swarm.len()
            || self.clients.delivered < self.clients.due()
        {
            if self.turn(publisher)? {
                heard = self.clock.now();
            }
            let silence = Duration::from_nanos(self.clock.now() - heard);
            if STALL_TIME_MAX < silence {
                let (got, due) = (self.clients.delivered, self.clients.due());
                bail!("{} of {due} deliveries are missing", due - got);
            }
        }
        Ok(())
    }

    /// Restarts the service and brings all clients back. Returns the service that runs then.
    fn restart(
        &mut self,
        arguments: &CutsArguments,
        target: Target,
    ) -> anyhow::Result<(Restart, Target)> {
        let process = target.process().context("the service was not started here")?;
        let begin = self.clock.now();
        let since = |clock: Clock| Duration::from_nanos(clock.now() - begin).as_secs_f64() * 1e3;
        self.clients.is_restarting = true;
        process.terminate()?;
        while self.swarm.open() != 0 {
            self.swarm.turn(&mut self.clients)?;
        }
        let told_ms = since(self.clock);
        let target = arguments.target.start_again(target, Run::AsShipped)?;
        let listening_ms = since(self.clock);
        let (connections, groups) = (self.ways_in.len(), self.calls.len());
        // The new service has another key. What the clients know of their connections is worth nothing to it.
        self.ways_in = ways_in(&target, connections, groups)?;
        let subprotocol = Some(self.clients.subprotocol);
        self.door = target.door(HANDSHAKES_IN_FLIGHT);
        self.entrance = target.handled(subprotocol, HEAD_BYTES);
        for client in &mut self.clients.members {
            client.known = ReliableClient::default();
        }
        self.clients.is_restarting = false;
        self.swarm.reset();
        let (entrance, ways_in) = (&self.entrance, &self.ways_in);
        let opening = |member: usize| target.opening_by(&ways_in[member], entrance.clone());
        self.swarm.connect(&self.door, connections, opening, &mut self.clients)?;
        self.clients.until_known(&mut self.swarm)?;
        Ok((Restart { told_ms, listening_ms, back_ms: since(self.clock) }, target))
    }
}

/// Returns how many of so many things are due `now`, if all of them are spread over `pace`, again and again.
fn due(now: u64, things: u64, pace: u64) -> u64 {
    let due = u128::from(now) * u128::from(things) / u128::from(pace);
    u64::try_from(due).unwrap_or(u64::MAX)
}

fn ways_in(target: &Target, connections: usize, groups: usize) -> anyhow::Result<Vec<String>> {
    let one = |member: usize| {
        let access = ClientAccess::new()
            .user(format!("user-{member}"))
            .group(format!("g{}", member % groups));
        way_in(target.web_pubsub(), &access)
    };
    (0..connections).map(one).collect()
}

/// The clients. Checks every message of each.
struct Clients {
    members: Vec<Client>,
    subprotocol: Subprotocol,
    /// Messages to each group.
    published: Vec<u64>,
    delivered: u64,
    repeated: u64,
    replays: u64,
    replay: Histogram,
    latency: Histogram,
    /// Clients that have come back and have not said so.
    opened: VecDeque<usize>,
    is_restarting: bool,
    /// Moves with each connection.
    bar: Option<ProgressBar>,
}

#[derive(Debug, Default)]
struct Client {
    known: ReliableClient,
    /// The message that is due.
    next: u64,
    /// When it was cut, until it has got what it missed.
    cut: Option<u64>,
    /// The message that is due when it has got everything that it missed; known once its connection is back.
    back_at: Option<u64>,
}

impl Clients {
    fn new(clients: usize, groups: usize, subprotocol: Subprotocol) -> Self {
        Self {
            members: (0..clients).map(|_| Client::default()).collect(),
            subprotocol,
            published: vec![0; groups],
            delivered: 0,
            repeated: 0,
            replays: 0,
            replay: Histogram::new(),
            latency: Histogram::new(),
            opened: VecDeque::new(),
            is_restarting: false,
            bar: None,
        }
    }

    /// Returns how many deliveries all that was published must come to.
    fn due(&self) -> u64 {
        let groups = self.published.len();
        let share = |group: usize| (self.members.len() + groups - 1 - group) / groups;
        let due = |(group, published): (usize, &u64)| share(group) as u64 * published;
        self.published.iter().enumerate().map(due).sum()
    }

    /// Waits until the service has greeted every client.
    fn until_known(&mut self, swarm: &mut Swarm) -> anyhow::Result<()> {
        while !self.members.iter().all(|client| client.known.is_known()) {
            swarm.turn(self)?;
        }
        Ok(())
    }
}

impl Client {
    /// Ends the time of a cut if everything is there. Returns how long it took.
    fn caught_up(&mut self, now: u64) -> Option<u64> {
        if self.next < self.back_at? {
            return None;
        }
        self.back_at = None;
        Some(now.saturating_sub(self.cut.take()?))
    }
}

impl Handler for Clients {
    fn message(&mut self, member: usize, head: &[u8], now: u64) -> anyhow::Result<()> {
        let client = &mut self.members[member];
        match client.known.handle_message(self.subprotocol, head)? {
            Heard::Told => return Ok(()),
            Heard::Repeated => {
                self.repeated += 1;
                return Ok(());
            }
            Heard::New(text) => {
                let Stamp { sequence, sent } = Stamp::read(&text)?;
                let due = client.next;
                ensure!(sequence == due, "message {sequence} came where {due} was due");
                client.next += 1;
                self.delivered += 1;
                self.latency.record(now.saturating_sub(sent));
            }
        }
        if let Some(took) = client.caught_up(now) {
            self.replay.record(took);
            self.replays += 1;
        }
        Ok(())
    }

    fn opened(&mut self, member: usize, waited: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
        let published = self.published[member % self.published.len()];
        let client = &mut self.members[member];
        if let Some(cut) = client.cut {
            client.back_at = Some(published);
            // The way back began when the connection was cut.
            if let Some(took) = client.caught_up(cut + waited) {
                self.replay.record(took);
            }
        }
        self.opened.push_back(member);
    }

    fn ended(&mut self, member: usize, ending: Ending) -> anyhow::Result<()> {
        match ending {
            Ending::Closed(Some(close)) if self.is_restarting => {
                let code = close.code;
                ensure!(
                    code == CloseCode::GOING_AWAY,
                    "a restart ended a connection with {}",
                    code.get()
                );
                Ok(())
            }
            ending @ (Ending::Closed(_) | Ending::Finished | Ending::Lost(_)) => {
                let error = Err(anyhow::Error::from(ending));
                if self.members[member].cut.is_some() {
                    return error.context("a connection could not be recovered");
                }
                error
            }
        }
    }
}

impl Display for CutsOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} clients of {} in {} groups, {} messages per second of {} bytes, each client cut every {} s, {:.0} s",
            self.connections,
            self.subprotocol,
            self.groups,
            self.rate,
            self.size_bytes,
            self.interval_seconds,
            self.seconds
        )?;
        let ms = |us: f64| hundredths(us / 1e3);
        let megabytes = |bytes: Option<u64>| hundredths(bytes.map(|bytes| per(bytes, 1_000_000)));
        let mut table = Table::new(["cuts", "deliveries", "share %", "repeated", "replays"]);
        table.row([
            self.cuts.to_string(),
            self.deliveries.to_string(),
            hundredths(self.delivered_share * 100.0),
            self.repeated.to_string(),
            self.replays.to_string(),
        ]);
        write!(f, "{table}")?;
        let mut table = Table::new(["", "p50 ms", "p99 ms", "max ms"]);
        for (name, of) in [("replay", self.replay), ("latency", self.latency)] {
            table.row([name.to_owned(), ms(of.p50_us), ms(of.p99_us), ms(of.max_us)]);
        }
        write!(f, "{table}")?;
        let mut table =
            Table::new(["CPU µs/delivery", "cores", "bytes/connection", "MB at first", "peak MB"]);
        table.row([
            hundredths(self.cpu_us_per_delivery),
            hundredths(self.cores),
            whole(self.bytes_per_connection),
            megabytes(self.connected_bytes),
            megabytes(self.peak_bytes),
        ]);
        write!(f, "{table}")?;
        if let Some(Restart { told_ms, listening_ms, back_ms }) = &self.restart {
            let mut table = Table::new(["restart: all told 1001 ms", "listens ms", "all back ms"]);
            table.row([whole(*told_ms), whole(*listening_ms), whole(*back_ms)]);
            write!(f, "{table}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_member_of_a_group_is_due_its_messages() {
        let mut clients = Clients::new(5, 2, Subprotocol::JsonReliable);
        clients.published = vec![10, 1];
        assert_eq!(clients.due(), 3 * 10 + 2);
    }

    #[test]
    fn a_replay_lasts_until_what_was_missed_is_there() {
        let mut clients = Clients::new(1, 1, Subprotocol::JsonReliable);
        clients.published = vec![2];
        clients.members[0].cut = Some(1_000);
        clients.opened(0, 50);
        assert_eq!(clients.members[0].caught_up(1_060), None, "two messages are missing");
        clients.members[0].next = 2;
        assert_eq!(clients.members[0].caught_up(1_070), Some(70));
        assert_eq!(clients.members[0].caught_up(1_080), None, "it is told once");
    }

    #[test]
    fn things_are_spread_evenly() {
        assert_eq!((due(0, 4, 8), due(1, 4, 8), due(2, 4, 8), due(80, 4, 8)), (0, 0, 1, 40));
    }
}
