//! `bench saturate`: what becomes of a node to which more is published than it can deliver, and of a quiet hub beside the noisy one.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use hookwire_client::{ClientAccess, HubName};
use indicatif::ProgressBar;
use serde::Serialize;

use super::child::Run;
use super::histogram::{Histogram, Percentiles};
use super::process::Process;
use super::publisher::{IN_FLIGHT_MAX, Publisher};
use super::report::{Progress, Table, hundredths, per, whole};
use super::swarm::{
    Clock, Door, Ending, Handler, Opening, PAYLOAD_BYTES_MAX, PAYLOAD_BYTES_MIN, STALL_TIME_MAX,
    Stamp, Swarm,
};
use super::target::{Target, TargetArguments, call, way_in};

/// Handshakes under way at once.
const HANDSHAKES_IN_FLIGHT: usize = 64;

/// Most connections of a hub.
const CONNECTIONS_MAX: u64 = 100_000;

/// Longest step.
const SECONDS_MAX: u64 = 3_600;

/// Most messages per second to the quiet hub.
const QUIET_RATE_MAX: u64 = 1_000;

/// Most messages under way while the capacity is looked for.
const WINDOW_MAX: u64 = 100_000;

/// REST connections that publish to the noisy hub: one alone would be the bottleneck.
const PUBLISHERS: usize = 4;

/// How often the clock is looked at when nothing happens.
const BEAT: Duration = Duration::from_millis(1);

/// What is published in each step, by the capacity.
const LOADS: [f64; 4] = [0.5, 1.0, 1.5, 2.0];

/// The step that is under way while the capacity is looked for, and when all are over.
const SEARCHING: usize = LOADS.len();
const OVER: usize = LOADS.len() + 1;

/// How long everything goes on, at the capacity, until the clients that do not read are closed: twice what a client may be slow, and
/// the time to fill its buffers.
const DEAF_TIME_MAX: Duration = Duration::from_mins(1);

/// How often the service is asked whether they are.
const DEAF_LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// The metric of clients closed for not reading.
const SLOW_CONSUMERS: &str = "hookwire_slow_consumers_total";

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// The status of a call that comes too early.
const TOO_MANY_REQUESTS: u16 = 429;

/// How saturation is looked at.
#[derive(Debug, clap::Args)]
pub(crate) struct SaturateArguments {
    #[command(flatten)]
    target: TargetArguments,
    /// Receivers in the noisy hub
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(1..=CONNECTIONS_MAX))]
    connections: u64,
    /// Receivers in the noisy hub that do not read at all, beside the others
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(0..=CONNECTIONS_MAX))]
    deaf: u64,
    /// Receivers in the quiet hub
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=CONNECTIONS_MAX))]
    quiet: u64,
    /// Messages per second to the quiet hub
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=QUIET_RATE_MAX))]
    quiet_rate: u64,
    /// Payload of a message in bytes
    #[arg(long, default_value_t = 128,
          value_parser = clap::value_parser!(u64).range(PAYLOAD_BYTES_MIN as u64..=PAYLOAD_BYTES_MAX as u64))]
    size: u64,
    /// Messages under way while the capacity is looked for
    #[arg(long, default_value_t = 4_096, value_parser = clap::value_parser!(u64).range(1..=WINDOW_MAX))]
    window: u64,
    /// Seconds of each step
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=SECONDS_MAX))]
    seconds: u64,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(super) struct SaturateOutcome {
    benchmark: &'static str,
    connections: u64,
    deaf: u64,
    quiet: u64,
    size_bytes: u64,
    shards: Option<u16>,
    /// Messages per second that were published and delivered while no more than the window were under way.
    capacity_per_second: f64,
    steps: Vec<Step>,
    /// What the clients that did not read saw when they read at last, by code and reason.
    deaf_endings: BTreeMap<String, u64>,
    summary: Summary,
}

#[derive(Debug, Serialize)]
struct Step {
    /// What was to be published, by the capacity.
    load: f64,
    offered: u64,
    /// Offered, but the REST connections took no more.
    unsent: u64,
    accepted: u64,
    /// Answered with 429; each said when to try again.
    refused: u64,
    deliveries_per_second: f64,
    /// After the last message was published: until everything accepted was delivered.
    rest_ms: f64,
    /// The largest resident set of the service.
    peak_bytes: Option<u64>,
    /// Clients that the service closed for not reading, as it counts them.
    slow_consumers: u64,
    /// Clients that read, and were closed all the same, by code and reason.
    closed: BTreeMap<String, u64>,
    quiet: Quiet,
}

/// What the quiet hub saw in a step.
#[derive(Debug, Serialize)]
struct Quiet {
    messages: u64,
    /// Answered with 429.
    refused: u64,
    latency: Percentiles,
}

#[derive(Debug, Serialize)]
struct Summary {
    /// Deliveries per second at twice the capacity by those at the capacity.
    throughput_ratio: f64,
    /// The quiet hub's 99th percentile at twice the capacity by that at half of it.
    quiet_p99_ratio: f64,
}

pub(super) fn run(arguments: &SaturateArguments, json: bool) -> anyhow::Result<SaturateOutcome> {
    let all = arguments.connections + arguments.deaf + arguments.quiet;
    let target = arguments.target.open(usize::try_from(all)?, Run::AsShipped)?;
    let progress = Progress::new(json);
    let clock = Clock::start();
    let bar = progress.bar("saturate", (1 + LOADS.len() as u64) * arguments.seconds);
    let now = AtomicUsize::new(SEARCHING);
    let place = Place::new(&target, "quiet")?;
    let (noisy, quiet) = thread::scope(|scope| {
        let quiet = scope.spawn(|| measure_quiet(arguments, &place, clock, &now));
        let noisy = make_noise(arguments, &target, clock, &now, &bar);
        // Whatever came of it, the other thread ends.
        now.store(OVER, Ordering::Relaxed);
        let quiet = quiet.join().map_err(|_| anyhow::anyhow!("the quiet hub's thread failed"));
        (noisy, quiet)
    });
    bar.finish_and_clear();
    let quiet = quiet?.context("the quiet hub failed");
    let Noisy { capacity_per_second, mut steps, deaf_endings } =
        noisy.context("the noisy hub failed")?;
    for (step, quiet) in steps.iter_mut().zip(quiet?) {
        step.quiet = quiet;
    }
    let throughput_ratio =
        steps[3].deliveries_per_second / steps[1].deliveries_per_second.max(f64::MIN_POSITIVE);
    let p99 = |step: &Step| step.quiet.latency.p99_us;
    let quiet_p99_ratio = p99(&steps[3]) / p99(&steps[0]).max(f64::MIN_POSITIVE);
    Ok(SaturateOutcome {
        benchmark: "saturate",
        connections: arguments.connections,
        deaf: arguments.deaf,
        quiet: arguments.quiet,
        size_bytes: arguments.size,
        shards: arguments.target.shards(),
        capacity_per_second,
        steps,
        deaf_endings,
        summary: Summary { throughput_ratio, quiet_p99_ratio },
    })
}

/// Publishes to the quiet hub and measures, on a thread of its own, so that the noise does not delay who measures.
fn measure_quiet(
    arguments: &SaturateArguments,
    place: &Place,
    clock: Clock,
    step: &AtomicUsize,
) -> anyhow::Result<Vec<Quiet>> {
    let connections = usize::try_from(arguments.quiet)?;
    let mut listeners = Listeners::new(connections, 1);
    let mut swarm = Swarm::new(clock)?;
    swarm.connect(&place.door, connections, |_| place.opening.clone(), &mut listeners)?;
    let mut publisher = place.publisher(&swarm)?;
    let mut payload = vec![b'x'; PAYLOAD_BYTES_MIN];
    let mut steps: Vec<_> = (0..=SEARCHING).map(|_| (0, 0, Histogram::new())).collect();
    let (begin, mut sequence) = (clock.now(), 0);
    loop {
        let at = step.load(Ordering::Relaxed);
        let is_over = at == OVER;
        let due = begin + sequence * NANOS_PER_SECOND / arguments.quiet_rate;
        if !is_over && due <= clock.now() {
            Stamp { sequence, sent: due }.put(&mut payload);
            sequence += 1;
            let body = &payload;
            place.publish(&mut publisher, body)?;
            publisher.flush()?;
            steps[at].0 += 1;
        }
        let before = listeners.received;
        let turn = swarm.turn_until(BEAT, &mut listeners)?;
        let now = steps.len().min(at + 1) - 1;
        let of_step = &mut steps[now];
        for sent in listeners.arrived.drain(..) {
            of_step.2.record(sent);
        }
        if turn.guest {
            publisher.take_answers(|answer| {
                if answer.status == TOO_MANY_REQUESTS {
                    of_step.1 += 1;
                    return Ok(());
                }
                answer.check()
            })?;
        }
        ensure!(listeners.closed.is_empty(), "clients of the quiet hub were closed");
        let refused: u64 = steps.iter().map(|(_, refused, _)| refused).sum();
        let expected = (sequence - refused) * arguments.quiet;
        if is_over && publisher.in_flight() == 0 && listeners.received == expected {
            break;
        }
        let silence = Duration::from_nanos(clock.now().saturating_sub(due));
        ensure!(
            !is_over || silence < STALL_TIME_MAX || before != listeners.received,
            "{} of {expected} messages came to the quiet hub",
            listeners.received
        );
    }
    steps.truncate(LOADS.len());
    let quiet = |(messages, refused, latency): (u64, u64, Histogram)| Quiet {
        messages,
        refused,
        latency: latency.percentiles(),
    };
    Ok(steps.into_iter().map(quiet).collect())
}

/// What the noisy hub came to.
struct Noisy {
    capacity_per_second: f64,
    steps: Vec<Step>,
    deaf_endings: BTreeMap<String, u64>,
}

/// Looks for the capacity, then publishes by the clock, and at last until the clients that do not read are closed.
fn make_noise(
    arguments: &SaturateArguments,
    target: &Target,
    clock: Clock,
    now: &AtomicUsize,
    bar: &ProgressBar,
) -> anyhow::Result<Noisy> {
    let mut noise = Noise::connect(arguments, target, clock)?;
    let capacity_per_second = noise.capacity(arguments, bar)?;
    let slow_before = target.metric(SLOW_CONSUMERS)?;
    noise.admit_deaf()?;
    let mut steps = Vec::new();
    for (number, load) in LOADS.into_iter().enumerate() {
        noise.renew()?;
        now.store(number, Ordering::Relaxed);
        steps.push(noise.step(arguments, target, load, capacity_per_second * load, bar)?);
    }
    now.store(SEARCHING, Ordering::Relaxed);
    noise.outlast_deaf(target, slow_before, capacity_per_second)?;
    Ok(Noisy { capacity_per_second, steps, deaf_endings: noise.listeners.deaf_endings })
}

/// The noisy hub: its publishers, its listeners and those who do not listen.
struct Noise {
    swarm: Swarm,
    listeners: Listeners,
    publishers: Vec<Publisher>,
    deaf: usize,
    clock: Clock,
    place: Place,
    payload: Vec<u8>,
    /// Messages that each publisher has sent.
    published: [u64; PUBLISHERS],
    answers: Answers,
}

/// What REST calls were answered.
#[derive(Debug, Clone, Copy, Default)]
struct Answers {
    accepted: u64,
    refused: u64,
}

impl Noise {
    fn connect(
        arguments: &SaturateArguments,
        target: &Target,
        clock: Clock,
    ) -> anyhow::Result<Self> {
        let place = Place::new(target, "noisy")?;
        let connections = usize::try_from(arguments.connections)?;
        let mut listeners = Listeners::new(connections, PUBLISHERS);
        let mut swarm = Swarm::new(clock)?;
        swarm.connect(&place.door, connections, |_| place.opening.clone(), &mut listeners)?;
        let publishers = (0..PUBLISHERS).map(|_| place.publisher(&swarm));
        let publishers = publishers.collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Self {
            swarm,
            listeners,
            publishers,
            deaf: usize::try_from(arguments.deaf)?,
            clock,
            place,
            payload: vec![b'x'; usize::try_from(arguments.size)?],
            published: [0; PUBLISHERS],
            answers: Answers::default(),
        })
    }

    /// Publishes as fast as messages arrive. Returns how many that is in a second.
    fn capacity(
        &mut self,
        arguments: &SaturateArguments,
        bar: &ProgressBar,
    ) -> anyhow::Result<f64> {
        let begin = self.clock.now();
        let end = begin + arguments.seconds * NANOS_PER_SECOND;
        let listeners = arguments.connections;
        let mut messages = 0;
        loop {
            let now = self.clock.now();
            if end <= now {
                break;
            }
            while (messages * listeners).saturating_sub(self.listeners.received)
                < arguments.window * listeners
            {
                ensure!(self.publish(messages, now)?, "the service takes no more REST requests");
                messages += 1;
            }
            self.turn()?;
            bar.set_position((now - begin) / NANOS_PER_SECOND);
        }
        self.settle()?;
        ensure!(self.answers.refused == 0, "the service refused messages below its capacity");
        let seconds = Duration::from_nanos(self.clock.now() - begin).as_secs_f64();
        Ok(per(messages, 1) / seconds)
    }

    /// Lets the clients in that do not read.
    fn admit_deaf(&mut self) -> anyhow::Result<()> {
        let listeners = self.listeners.next.len();
        let deaf: Vec<_> = (0..self.deaf).map(|_| self.swarm.add()).collect();
        self.open_all(&deaf)?;
        (listeners..self.swarm.len()).try_for_each(|member| self.swarm.deafen(member))
    }

    /// Puts listeners in the place of those that were closed.
    fn renew(&mut self) -> anyhow::Result<()> {
        let listeners = 0..self.listeners.next.len();
        let absent: Vec<_> = listeners.filter(|member| !self.swarm.is_open(*member)).collect();
        self.open_all(&absent)?;
        self.listeners.closed.clear();
        Ok(())
    }

    fn open_all(&mut self, members: &[usize]) -> anyhow::Result<()> {
        for some in members.chunks(HANDSHAKES_IN_FLIGHT) {
            for member in some {
                let Place { door, opening, .. } = &self.place;
                self.swarm.reopen(door, *member, opening.clone())?;
            }
            while some.iter().any(|member| !self.swarm.is_open(*member)) {
                self.swarm.turn(&mut self.listeners)?;
            }
        }
        Ok(())
    }

    /// Publishes until the service has closed all clients that do not read, and has them read how that came.
    fn outlast_deaf(&mut self, target: &Target, slow_before: u64, rate: f64) -> anyhow::Result<()> {
        let deaf = self.deaf as u64;
        let pace = rounded(per(NANOS_PER_SECOND, 1) / rate.max(1.0));
        let interval = u64::try_from(DEAF_LOOK_INTERVAL.as_nanos())?;
        let begin = self.clock.now();
        let (mut number, mut looks) = (0, 0);
        loop {
            let passed = self.clock.now() - begin;
            if looks * interval <= passed {
                looks += 1;
                let closed = target.metric(SLOW_CONSUMERS)? - slow_before;
                let closed = closed.saturating_sub(self.listeners.closed_in_all);
                if deaf <= closed {
                    break;
                }
                ensure!(
                    Duration::from_nanos(passed) < DEAF_TIME_MAX,
                    "{closed} of {deaf} clients that do not read were closed"
                );
            }
            while number * pace < passed {
                self.publish(number, begin + number * pace)?;
                number += 1;
            }
            self.turn()?;
        }
        let members = self.listeners.next.len()..self.swarm.len();
        members.clone().try_for_each(|member| self.swarm.hear(member))?;
        while members.clone().any(|member| self.swarm.is_open(member)) {
            self.swarm.turn(&mut self.listeners)?;
        }
        Ok(())
    }

    /// Publishes by the clock.
    fn step(
        &mut self,
        arguments: &SaturateArguments,
        target: &Target,
        load: f64,
        rate: f64,
        bar: &ProgressBar,
    ) -> anyhow::Result<Step> {
        let process = target.process();
        process.map(Process::reset_peak).transpose()?;
        let slow_before = target.metric(SLOW_CONSUMERS)?;
        self.answers = Answers::default();
        self.listeners.received = 0;
        self.listeners.of_step.fill(0);
        let (mut offered, mut unsent) = (0, 0);
        let pace = per(NANOS_PER_SECOND, 1) / rate.max(1.0);
        let begin = self.clock.now();
        let end = begin + arguments.seconds * NANOS_PER_SECOND;
        let position = bar.position();
        loop {
            let now = self.clock.now().min(end);
            while per(offered, 1) * pace < per(now - begin, 1) {
                let sent = begin + rounded(per(offered, 1) * pace);
                unsent += u64::from(!self.publish(offered, sent)?);
                offered += 1;
            }
            self.turn()?;
            bar.set_position(position + (now - begin) / NANOS_PER_SECOND);
            if now == end {
                break;
            }
        }
        self.settle()?;
        let last = self.clock.now();
        let seconds = Duration::from_nanos(last - begin).as_secs_f64();
        Ok(Step {
            load,
            offered,
            unsent,
            accepted: self.answers.accepted,
            refused: self.answers.refused,
            deliveries_per_second: per(self.listeners.received, 1) / seconds,
            rest_ms: Duration::from_nanos(last - end).as_secs_f64() * 1e3,
            peak_bytes: process.map(Process::peak_bytes).transpose()?,
            slow_consumers: target.metric(SLOW_CONSUMERS)? - slow_before,
            closed: self.listeners.closed.clone(),
            quiet: Quiet { messages: 0, refused: 0, latency: Histogram::new().percentiles() },
        })
    }

    /// Publishes a message if the REST connection whose turn it is takes one more.
    fn publish(&mut self, number: u64, sent: u64) -> anyhow::Result<bool> {
        let at = usize::try_from(number % PUBLISHERS as u64)?;
        let publisher = &mut self.publishers[at];
        if publisher.in_flight() == IN_FLIGHT_MAX {
            return Ok(false);
        }
        let sequence = self.published[at] * PUBLISHERS as u64 + at as u64;
        Stamp { sequence, sent }.put(&mut self.payload);
        self.published[at] += 1;
        self.place.publish(publisher, &self.payload)?;
        Ok(true)
    }

    /// Sends, reads and takes answers. Returns whether anything happened.
    fn turn(&mut self) -> anyhow::Result<bool> {
        for publisher in &mut self.publishers {
            publisher.flush()?;
        }
        let turn = self.swarm.turn_until(BEAT, &mut self.listeners)?;
        self.listeners.arrived.clear();
        if turn.guest {
            for publisher in &mut self.publishers {
                publisher.take_answers(|answer| {
                    if answer.status == TOO_MANY_REQUESTS {
                        ensure!(
                            answer.retry_after.is_some(),
                            "a 429 does not say when to try again"
                        );
                        self.answers.refused += 1;
                        return Ok(());
                    }
                    self.answers.accepted += 1;
                    answer.check()
                })?;
            }
        }
        Ok(turn.something)
    }

    /// Waits until all requests are answered and every listener that was there from the first has got what was accepted.
    fn settle(&mut self) -> anyhow::Result<()> {
        let mut heard = self.clock.now();
        loop {
            let answered = self.publishers.iter().all(|publisher| publisher.in_flight() == 0);
            let accepted = self.answers.accepted;
            let listeners = self.listeners.of_step.iter().enumerate();
            let missing = listeners
                .filter(|(member, got)| self.swarm.is_open(*member) && **got < accepted)
                .count();
            if answered && missing == 0 {
                return Ok(());
            }
            if self.turn()? {
                heard = self.clock.now();
            }
            let silence = Duration::from_nanos(self.clock.now() - heard);
            ensure!(
                silence < STALL_TIME_MAX,
                "{missing} clients that read did not get what was accepted"
            );
        }
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "times of a benchmark are positive and stay far below 2^53 nanoseconds"
)]
fn rounded(nanoseconds: f64) -> u64 {
    nanoseconds as u64
}

/// One of the hubs of this run, and how to get in.
struct Place {
    door: Door,
    opening: Opening,
    address: SocketAddr,
    authority: String,
    /// Path and token of a call that sends to all.
    path: String,
    token: String,
}

impl Place {
    fn new(target: &Target, suffix: &str) -> anyhow::Result<Self> {
        let hub = target.web_pubsub();
        let hub = hub.with_hub(HubName::parse(&format!("{}{suffix}", hub.hub()))?);
        let way_in = way_in(&hub, &ClientAccess::new())?;
        let (address, authority) = target.address();
        let (path, token) = call(&hub, ":send");
        Ok(Self {
            door: target.door(HANDSHAKES_IN_FLIGHT),
            opening: target.opening_by(&way_in, target.entrance(None)),
            address,
            authority: authority.to_owned(),
            path,
            token,
        })
    }

    fn publisher(&self, swarm: &Swarm) -> anyhow::Result<Publisher> {
        Publisher::connect(self.address, &self.authority, swarm.registry())
    }

    fn publish(&self, publisher: &mut Publisher, body: &[u8]) -> anyhow::Result<()> {
        let token = Some(self.token.as_str());
        publisher.queue("POST", &self.path, token, "application/octet-stream", body)
    }
}

/// Receivers. Checks that what comes of one publisher comes once and in order; what was refused is missing.
#[derive(Debug)]
struct Listeners {
    /// The earliest message that may come next, for each receiver and publisher.
    next: Vec<Box<[u64]>>,
    /// Messages in this step, for each receiver.
    of_step: Vec<u64>,
    received: u64,
    /// The latency of each message that has come and was not taken out, in nanoseconds.
    arrived: Vec<u64>,
    /// Receivers that the service closed in this step, by code and reason, and how many those were in all steps.
    closed: BTreeMap<String, u64>,
    closed_in_all: u64,
    /// How those ended that did not read.
    deaf_endings: BTreeMap<String, u64>,
}

impl Listeners {
    fn new(receivers: usize, publishers: usize) -> Self {
        Self {
            next: vec![vec![0; publishers].into_boxed_slice(); receivers],
            of_step: vec![0; receivers],
            received: 0,
            arrived: Vec::new(),
            closed: BTreeMap::new(),
            closed_in_all: 0,
            deaf_endings: BTreeMap::new(),
        }
    }
}

impl Handler for Listeners {
    fn message(&mut self, member: usize, head: &[u8], now: u64) -> anyhow::Result<()> {
        let Stamp { sequence, sent } = Stamp::read(head)?;
        // Those who do not read are beyond the listeners.
        let Some(next) = self.next.get_mut(member) else { return Ok(()) };
        let publisher = usize::try_from(sequence % next.len() as u64)?;
        let next = &mut next[publisher];
        ensure!(*next <= sequence, "message {sequence} came where {next} was due");
        *next = sequence + 1;
        self.of_step[member] += 1;
        self.received += 1;
        self.arrived.push(now.saturating_sub(sent));
        Ok(())
    }

    fn ended(&mut self, member: usize, ending: Ending) -> anyhow::Result<()> {
        let is_listener = member < self.next.len();
        self.closed_in_all += u64::from(is_listener);
        let endings = if is_listener { &mut self.closed } else { &mut self.deaf_endings };
        *endings.entry(ending.to_string()).or_default() += 1;
        Ok(())
    }
}

impl Display for SaturateOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} receivers in a noisy hub, {} beside them that do not read, {} in a quiet hub, {} bytes; capacity {:.0} messages/s",
            self.connections, self.deaf, self.quiet, self.size_bytes, self.capacity_per_second
        )?;
        let mut table = Table::new([
            "load",
            "offered",
            "unsent",
            "accepted",
            "429",
            "deliveries/s",
            "rest ms",
            "peak MB",
            "slow",
            "quiet p50 ms",
            "quiet p99 ms",
            "quiet 429",
        ]);
        let ms = |us: f64| hundredths(us / 1e3);
        for step in &self.steps {
            table.row([
                hundredths(step.load),
                step.offered.to_string(),
                step.unsent.to_string(),
                step.accepted.to_string(),
                step.refused.to_string(),
                whole(step.deliveries_per_second),
                whole(step.rest_ms),
                hundredths(step.peak_bytes.map(|bytes| per(bytes, 1_000_000))),
                step.slow_consumers.to_string(),
                ms(step.quiet.latency.p50_us),
                ms(step.quiet.latency.p99_us),
                step.quiet.refused.to_string(),
            ]);
        }
        write!(f, "{table}")?;
        for step in &self.steps {
            for (ending, count) in &step.closed {
                writeln!(f, "at {}: {count} clients that read: {ending}", step.load)?;
            }
        }
        for (ending, count) in &self.deaf_endings {
            writeln!(f, "{count} clients that did not read: {ending}")?;
        }
        let Summary { throughput_ratio, quiet_p99_ratio } = self.summary;
        let mut table = Table::new(["deliveries/s, 2.0 by 1.0", "quiet p99, 2.0 by 0.5"]);
        table.row([hundredths(throughput_ratio), hundredths(quiet_p99_ratio)]);
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
    fn what_was_refused_may_be_missing_but_nothing_comes_twice_or_late() {
        let mut listeners = Listeners::new(1, 2);
        for sequence in [0, 3, 2, 5, 8] {
            listeners.message(0, &payload(sequence), 6).unwrap();
        }
        assert_eq!((listeners.received, listeners.of_step[0]), (5, 5));
        assert!(listeners.message(0, &payload(8), 6).is_err(), "twice");
        assert!(listeners.message(0, &payload(3), 6).is_err(), "late");
        listeners.message(1, &payload(0), 6).unwrap();
        assert_eq!(listeners.received, 5, "it does not listen");
    }
}
