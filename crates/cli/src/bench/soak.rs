//! `bench soak`: everything at once for a long time, with an eye on memory and open files.

use std::collections::VecDeque;
use std::fmt::{self, Display};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use hookwire_client::{ClientAccess, GroupName, Permission};
use hookwire_proto::data::{Data, Metadata};
use hookwire_proto::frame::{CloseCode, CloseFrame, Opcode, encode};
use hookwire_proto::subprotocol::{ClientMessage, Received, ServerMessage, Subprotocol};
use indicatif::ProgressBar;
use serde::Serialize;

use super::child::Run;
use super::process::Process;
use super::publisher::Publisher;
use super::reliable::{HEAD_BYTES, Heard, ReliableClient, decode, frame};
use super::report::{Progress, Table, hundredths, per};
use super::swarm::{Clock, Door, Ending, Entrance, Handler, MASK, STALL_TIME_MAX, Swarm};
use super::target::{Target, TargetArguments, call, way_in};
use super::upstream::Upstream;

/// Handshakes under way at once while the clients come for the first time.
const HANDSHAKES_IN_FLIGHT: usize = 64;

/// Most connections.
const CONNECTIONS_MAX: u64 = 1_000_000;

/// Most actions or arrivals per second.
const RATE_MAX: u64 = 10_000;

/// Longest run.
const MINUTES_MAX: u64 = 7 * 24 * 60;

/// Groups that clients join and leave.
const GROUPS: u64 = 100;

/// The group of all reliable clients, whose messages are numbered.
const NUMBERED_GROUP: &str = "numbered";

/// Between two looks at memory and files; a run has at least [`LOOKS_MIN`].
const LOOK_INTERVAL: Duration = Duration::from_secs(10);
const LOOKS_MIN: u32 = 10;

/// From when on memory must no longer grow. A run that is shorter than twice as long is judged from its middle on.
const SETTLING: Duration = Duration::from_mins(5);

/// A shorter run is not judged by its memory: it shows how an allocator begins.
const JUDGED_MIN: Duration = Duration::from_mins(2);

/// Looks of which the mean is taken.
const LOOKS_JOINED: usize = 6;

/// By how much memory may grow after that, in hundredths of it.
const GROWTH_PERCENT_MAX: f64 = 5.0;

/// Open files of the service beside its clients' that may come and go: connections to the upstream, of which it keeps at most 256, and
/// clients that come or go at the moment.
const OTHER_FILES_MAX: u64 = 512;

/// How often the clock is looked at when nothing happens.
const BEAT: Duration = Duration::from_millis(1);

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// How a soak goes.
#[derive(Debug, clap::Args)]
pub(crate) struct SoakArguments {
    #[command(flatten)]
    target: TargetArguments,
    /// Clients, a quarter of each kind: of the preview, simple ones, of the JSON subprotocol, reliable ones
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(4..=CONNECTIONS_MAX))]
    connections: u64,
    /// How long
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=MINUTES_MAX))]
    minutes: u64,
    /// The same in seconds, for a try
    #[arg(long, conflicts_with = "minutes", value_parser = clap::value_parser!(u64).range(1..=MINUTES_MAX * 60))]
    seconds: Option<u64>,
    /// Clients that leave and come per second
    #[arg(long, default_value_t = 50, value_name = "PER_SECOND",
          value_parser = clap::value_parser!(u64).range(1..=RATE_MAX))]
    churn: u64,
    /// Actions per second: sends, events, joins, cuts
    #[arg(long, default_value_t = 200, value_name = "PER_SECOND",
          value_parser = clap::value_parser!(u64).range(1..=RATE_MAX))]
    rate: u64,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(super) struct SoakOutcome {
    benchmark: &'static str,
    connections: u64,
    shards: Option<u16>,
    seconds: u64,
    counts: Counts,
    looks: Vec<Look>,
    /// By how much the proportional set size grew after the service had settled, in hundredths of it; none of a run too short to tell.
    growth_percent: Option<f64>,
    /// Files that the service had open when all clients had gone, beyond those before the first came.
    files_left: u64,
}

/// What happened.
#[derive(Debug, Default, Serialize)]
struct Counts {
    /// Clients that left by a close frame or without a word, and others that came in their place.
    churned: u64,
    /// Reliable connections that were cut and recovered.
    cuts: u64,
    /// Calls of the REST APIs of both dialects.
    calls: u64,
    /// Requests of clients that were acknowledged.
    acks: u64,
    /// Answers of the upstream to messages of clients of both dialects.
    echoes: u64,
    /// Messages that clients received.
    messages: u64,
}

/// Memory and files at one time.
#[derive(Debug, Clone, Copy, Serialize)]
struct Look {
    seconds: f64,
    connections: u64,
    proportional_bytes: u64,
    files: u64,
}

pub(super) fn run(arguments: &SoakArguments, json: bool) -> anyhow::Result<SoakOutcome> {
    let connections = usize::try_from(arguments.connections)?;
    let seconds = arguments.seconds.unwrap_or(60 * arguments.minutes);
    let target = arguments.target.open(connections, Run::TidyMemory)?;
    ensure!(
        arguments.target.shards().is_some(),
        "a service that runs already has upstreams of its own, which are not replaced"
    );
    let process = target.process().context("the memory of an unknown process cannot be read")?;
    let files_before = process.open_files()?;
    let progress = Progress::new(json);
    let clock = Clock::start();
    let upstream = Upstream::start(true)?;
    let mut soak = Soak::start(arguments, &target, &upstream, clock, progress)?;
    let bar = progress.bar("soak", seconds);
    let looks = soak.run(arguments, Duration::from_secs(seconds), process, &bar)?;
    bar.finish_and_clear();
    let files_left = soak.end(process, files_before)?;
    let growth_percent = growth_percent(&looks, Duration::from_secs(seconds));
    Ok(SoakOutcome {
        benchmark: "soak",
        connections: arguments.connections,
        shards: arguments.target.shards(),
        seconds,
        counts: soak.crowd.counts,
        looks,
        growth_percent,
        files_left,
    })
}

impl SoakOutcome {
    /// # Errors
    /// Memory grew too much, or so did the number of open files that are no clients'.
    pub(super) fn judge(&self) -> anyhow::Result<()> {
        judge(&self.looks, Duration::from_secs(self.seconds))
    }
}

fn judge(looks: &[Look], length: Duration) -> anyhow::Result<()> {
    let (early, late) = ends(looks, length);
    let others = |look: &Look| look.files.saturating_sub(look.connections);
    let fewest = early.iter().map(others).min().unwrap_or_default();
    let most = late.iter().map(others).max().unwrap_or_default();
    ensure!(
        most <= fewest + OTHER_FILES_MAX,
        "open files leak: {fewest} that are no clients' became {most}"
    );
    let growth = growth_percent(looks, length).unwrap_or_default();
    ensure!(
        growth <= GROWTH_PERCENT_MAX,
        "memory grew by {growth:.1} % after the service had settled"
    );
    Ok(())
}

/// Returns the looks of a minute when the service has settled, and those of the last one.
fn ends(looks: &[Look], length: Duration) -> (&[Look], &[Look]) {
    let settled = SETTLING.min(length / 2).as_secs_f64();
    let from = looks.iter().position(|look| settled <= look.seconds).unwrap_or(0);
    let early = &looks[from..looks.len().min(from + LOOKS_JOINED)];
    let late = &looks[looks.len().saturating_sub(LOOKS_JOINED).max(from)..];
    (early, late)
}

/// Returns by how much memory grew between them, in hundredths; `None` of a run that is too short to tell.
fn growth_percent(looks: &[Look], length: Duration) -> Option<f64> {
    let mean = |looks: &[Look]| {
        per(looks.iter().map(|look| look.proportional_bytes).sum(), looks.len() as u64)
    };
    let (early, late) = ends(looks, length);
    (JUDGED_MIN <= length).then(|| 100.0 * (mean(late) / mean(early) - 1.0))
}

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Preview,
    Simple,
    Json,
    Reliable,
}

const KINDS: [Kind; 4] = [Kind::Preview, Kind::Simple, Kind::Json, Kind::Reliable];

fn kind(member: usize) -> Kind {
    KINDS[member % KINDS.len()]
}

/// The load.
struct Soak<'a> {
    target: &'a Target,
    swarm: Swarm,
    door: Door,
    entrances: [Arc<Entrance>; KINDS.len()],
    publisher: Publisher,
    crowd: Crowd,
    clock: Clock,
    /// Clients that have been there, so that each has a user of its own.
    arrivals: u64,
    /// Who leaves next, and who acts next.
    leaver: usize,
    actor: usize,
    /// Messages to the numbered group.
    numbered: u64,
}

impl<'a> Soak<'a> {
    fn start(
        arguments: &SoakArguments,
        target: &'a Target,
        upstream: &Upstream,
        clock: Clock,
        progress: Progress,
    ) -> anyhow::Result<Self> {
        let connections = usize::try_from(arguments.connections)?;
        let entrance = |kind: Kind| {
            let subprotocol = match kind {
                Kind::Preview | Kind::Simple => None,
                Kind::Json => Some(Subprotocol::Json),
                Kind::Reliable => Some(Subprotocol::JsonReliable),
            };
            target.handled(subprotocol, HEAD_BYTES)
        };
        let swarm = Swarm::new(clock)?;
        let publisher = target.publisher(&swarm)?;
        let mut soak = Self {
            target,
            swarm,
            door: target.door(HANDSHAKES_IN_FLIGHT),
            entrances: KINDS.map(entrance),
            publisher,
            crowd: Crowd::default(),
            clock,
            arrivals: 0,
            leaver: 0,
            actor: 0,
            numbered: 0,
        };
        soak.install(upstream)?;
        let bar = progress.bar("connect", arguments.connections);
        while soak.swarm.open() < connections {
            while soak.swarm.len() < connections
                && soak.swarm.len() - soak.swarm.open() < HANDSHAKES_IN_FLIGHT
            {
                let member = soak.swarm.add();
                soak.crowd.clients.push(Client::default());
                soak.arrive(member)?;
            }
            soak.turn()?;
            bar.set_position(soak.swarm.open() as u64);
        }
        bar.finish_and_clear();
        Ok(soak)
    }

    /// Sends the events of both dialects to the upstream.
    fn install(&mut self, upstream: &Upstream) -> anyhow::Result<()> {
        let hub = self.target.service().hub();
        for (method, path, settings) in [
            ("POST", "/manage/v1/ws/upstream".to_owned(), upstream.settings(hub.as_str(), "*")),
            ("PUT", format!("/admin/v1/hubs/{hub}/settings"), upstream.handler()),
        ] {
            let token = self.target.service().rest_token(&path, Duration::from_hours(1));
            let body = settings.as_bytes();
            self.publisher.queue(method, &path, Some(&token), "application/json", body)?;
            while self.publisher.in_flight() != 0 {
                self.turn()?;
            }
        }
        Ok(())
    }

    /// Acts by the clock. Returns what was seen of the service.
    fn run(
        &mut self,
        arguments: &SoakArguments,
        length: Duration,
        process: Process,
        bar: &ProgressBar,
    ) -> anyhow::Result<Vec<Look>> {
        let nanos = |duration: Duration| u64::try_from(duration.as_nanos());
        let (begin, length_ns) = (self.clock.now(), nanos(length)?);
        let look_interval = nanos(LOOK_INTERVAL.min(length / LOOKS_MIN))?;
        let (mut looks, mut actions, mut leavers, mut beats) = (Vec::new(), 0, 0, 0);
        loop {
            let now = (self.clock.now() - begin).min(length_ns);
            let due = |rate: u64| now / 1_000 * rate / 1_000_000;
            while actions < due(arguments.rate) {
                self.act(actions)?;
                actions += 1;
            }
            while leavers < due(arguments.churn) {
                self.leave()?;
                leavers += 1;
            }
            while beats < now / NANOS_PER_SECOND {
                self.beat(beats)?;
                beats += 1;
            }
            self.turn()?;
            if looks.len() as u64 * look_interval <= now {
                looks.push(Look {
                    seconds: Duration::from_nanos(now).as_secs_f64(),
                    connections: self.swarm.open() as u64,
                    proportional_bytes: process.proportional_bytes()?,
                    files: process.open_files()?,
                });
            }
            bar.set_position(now / NANOS_PER_SECOND);
            if now == length_ns {
                break;
            }
        }
        self.settle()?;
        Ok(looks)
    }

    /// Sends, reads, lets those in who have left before.
    fn turn(&mut self) -> anyhow::Result<bool> {
        self.publisher.flush()?;
        let turn = self.swarm.turn_until(BEAT, &mut self.crowd)?;
        if turn.guest {
            self.publisher.on_ready()?;
        }
        while let Some(member) = self.crowd.gone.pop_front() {
            self.arrive(member)?;
        }
        while let Some(member) = self.crowd.back.pop_front() {
            if let Some(frame) = self.crowd.clients[member].known.resume(Subprotocol::JsonReliable)
            {
                self.swarm.send(member, &frame)?;
            }
        }
        Ok(turn.something)
    }

    /// Has a new client begin to connect.
    fn arrive(&mut self, member: usize) -> anyhow::Result<()> {
        let number = self.arrivals;
        self.arrivals += 1;
        let user = format!("user-{number}");
        let kind = kind(member);
        let opening = if kind == Kind::Preview {
            self.target.anonymous_opening()
        } else {
            let access = ClientAccess::new()
                .user(&user)
                .group(group(number))
                .may(Permission::JoinLeaveGroup)
                .may(Permission::SendToGroup);
            let access = if kind == Kind::Reliable { access.group(NUMBERED_GROUP) } else { access };
            let way_in = way_in(self.target.web_pubsub(), &access)?;
            let client = &mut self.crowd.clients[member];
            *client = Client { user, way_in, ..Client::default() };
            let entrance = self.entrances[member % KINDS.len()].clone();
            self.target.opening_by(&client.way_in, entrance)
        };
        if kind == Kind::Preview {
            self.crowd.clients[member] = Client::default();
        }
        self.swarm.reopen(&self.door, member, opening)
    }

    /// Has the next client leave, every other one without a word; another comes in its place.
    fn leave(&mut self) -> anyhow::Result<()> {
        let Some(member) = self.next_open(None) else { return Ok(()) };
        self.crowd.counts.churned += 1;
        let without_a_word = kind(member) != Kind::Reliable && self.arrivals.is_multiple_of(2);
        if without_a_word {
            self.swarm.cut(member);
            self.crowd.gone.push_back(member);
            return Ok(());
        }
        self.crowd.clients[member].is_leaving = true;
        let close = CloseFrame { code: CloseCode::NORMAL, reason: String::new() };
        self.swarm.send(member, &encode(Opcode::Close, &close.to_payload(), Some(MASK)))
    }

    /// Returns the next client that is there and stays: of some kind, in turn, or any, in the order of leaving.
    fn next_open(&mut self, of: Option<Kind>) -> Option<usize> {
        let cursor = if of.is_some() { &mut self.actor } else { &mut self.leaver };
        for _ in 0..self.swarm.len() {
            let member = *cursor;
            *cursor = (*cursor + 1) % self.swarm.len();
            let is_there = self.swarm.is_open(member) && !self.crowd.clients[member].is_leaving;
            if is_there && of.is_none_or(|of| of == kind(member)) {
                return Some(member);
            }
        }
        None
    }

    /// What happens every second: a message to everybody, acknowledgements of reliable clients.
    fn beat(&mut self, number: u64) -> anyhow::Result<()> {
        let hub = self.target.service().hub();
        let (path, token) = if number.is_multiple_of(2) {
            call(self.target.web_pubsub(), ":send")
        } else {
            let path = format!("/ws/api/v1/hubs/{hub}/");
            let token = self.target.service().rest_token(&path, Duration::from_hours(1));
            (path, token)
        };
        self.post(&path, &token, "all")?;
        for member in 0..self.swarm.len() {
            if kind(member) == Kind::Reliable
                && self.swarm.is_open(member)
                && let Some(frame) =
                    self.crowd.clients[member].known.acknowledge(Subprotocol::JsonReliable)
            {
                self.swarm.send(member, &frame)?;
            }
        }
        Ok(())
    }

    fn post(&mut self, path: &str, token: &str, text: &str) -> anyhow::Result<()> {
        self.crowd.counts.calls += 1;
        self.publisher.queue("POST", path, Some(token), "text/plain", text.as_bytes())
    }

    fn send_numbered(&mut self) -> anyhow::Result<()> {
        let (path, token) =
            call(self.target.web_pubsub(), &format!("groups/{NUMBERED_GROUP}/:send"));
        let text = format!("{NUMBERED}{}", self.numbered);
        self.numbered += 1;
        self.post(&path, &token, &text)
    }

    /// One of the things that happen all the time.
    fn act(&mut self, number: u64) -> anyhow::Result<()> {
        let hub = self.target.web_pubsub();
        match number % 8 {
            0 => self.send_numbered(),
            1 => {
                let (path, token) = call(hub, &format!("groups/{}/:send", group(number / 8)));
                self.post(&path, &token, "group")
            }
            2 => {
                let Some(member) = self.next_open(Some(Kind::Simple)) else { return Ok(()) };
                let user = &self.crowd.clients[member].user;
                let (path, token) = call(hub, &format!("users/{user}/:send"));
                self.post(&path, &token, "user")
            }
            3 => {
                let Some(member) = self.next_open(Some(Kind::Reliable)) else { return Ok(()) };
                let Some(id) = self.crowd.clients[member].known.connection_id() else {
                    return Ok(());
                };
                let (path, token) = call(hub, &format!("connections/{id}/:send"));
                self.post(&path, &token, "connection")
            }
            4 => self.ask(|client, ack_id| {
                let group = GroupName::parse(&group(number / 8))?;
                let ack_id = Some(ack_id);
                client.has_joined = !client.has_joined;
                Ok(if client.has_joined {
                    client.group = Some(group.clone());
                    ClientMessage::JoinGroup { group, ack_id }
                } else {
                    let group = client.group.take().unwrap_or(group);
                    ClientMessage::LeaveGroup { group, ack_id }
                })
            }),
            5 => self.ask(|_, ack_id| {
                Ok(ClientMessage::SendToGroup {
                    group: GroupName::parse(&group(number / 8))?,
                    ack_id: Some(ack_id),
                    no_echo: true,
                    ttl_seconds: None,
                    data: Data::text("from a client"),
                    metadata: Metadata::default(),
                })
            }),
            6 if number % 16 == 6 => self.ask(|client, ack_id| {
                client.echoes_due += 1;
                Ok(ClientMessage::Event {
                    event: "echo".to_owned(),
                    ack_id: Some(ack_id),
                    data: Data::text(ECHO),
                    metadata: Metadata::default(),
                })
            }),
            6 => {
                let Some(member) = self.next_open(Some(Kind::Preview)) else { return Ok(()) };
                self.crowd.clients[member].echoes_due += 1;
                self.swarm.send(member, &encode(Opcode::Text, ECHO.as_bytes(), Some(MASK)))
            }
            _ => {
                let Some(member) = self.next_open(Some(Kind::Reliable)) else { return Ok(()) };
                let client = &self.crowd.clients[member];
                if !client.known.is_known() {
                    return Ok(());
                }
                self.swarm.cut(member);
                self.crowd.counts.cuts += 1;
                let entrance = self.entrances[member % KINDS.len()].clone();
                let way_in = client.known.way_in(&client.way_in);
                let opening = self.target.opening_by(&way_in, entrance);
                self.swarm.reopen(&self.door, member, opening)
            }
        }
    }

    /// Has a client of the JSON subprotocol ask for something and wait for its ack.
    fn ask(
        &mut self,
        message: impl FnOnce(&mut Client, u64) -> anyhow::Result<ClientMessage>,
    ) -> anyhow::Result<()> {
        let Some(member) = self.next_open(Some(Kind::Json)) else { return Ok(()) };
        let client = &mut self.crowd.clients[member];
        client.acks_due += 1;
        client.asked += 1;
        let asked = client.asked;
        let message = message(client, asked)?;
        self.swarm.send(member, &frame(Subprotocol::Json, &message))
    }

    /// Waits until everybody is there, everything is answered and every reliable client has got the last numbered message.
    fn settle(&mut self) -> anyhow::Result<()> {
        let mut heard = self.clock.now();
        let mut is_last_sent = false;
        loop {
            let is_there = self.swarm.open() == self.swarm.len()
                && self.crowd.clients.iter().all(|client| !client.is_leaving);
            if is_there && !is_last_sent {
                self.send_numbered()?;
                is_last_sent = true;
            }
            let unanswered = self.publisher.in_flight();
            let unfinished = self.crowd.unfinished(self.numbered);
            if is_last_sent && unanswered == 0 && unfinished == 0 {
                return Ok(());
            }
            if self.turn()? {
                heard = self.clock.now();
            }
            let silence = Duration::from_nanos(self.clock.now() - heard);
            ensure!(
                silence < STALL_TIME_MAX,
                "{unanswered} calls and {unfinished} clients wait for what does not come"
            );
        }
    }

    /// Has everybody go. Returns how many files the service has open more than before.
    fn end(&mut self, process: Process, files_before: u64) -> anyhow::Result<u64> {
        self.swarm.reset();
        let begin = self.clock.now();
        loop {
            let left = process.open_files()?.saturating_sub(files_before);
            if left <= OTHER_FILES_MAX {
                return Ok(left);
            }
            let waited = Duration::from_nanos(self.clock.now() - begin);
            ensure!(waited < STALL_TIME_MAX, "{left} files stay open though all clients are gone");
            self.turn()?;
        }
    }
}

/// Returns the name of a group that clients join and leave.
fn group(number: u64) -> String {
    format!("g{}", number % GROUPS)
}

/// What begins a message that an upstream sends back, and one whose number follows.
const ECHO: &str = "echo, please";
const NUMBERED: &str = "number ";

/// What is known of the clients.
#[derive(Debug, Default)]
struct Crowd {
    clients: Vec<Client>,
    /// Members whose client has left.
    gone: VecDeque<usize>,
    /// Reliable members whose connection is back.
    back: VecDeque<usize>,
    counts: Counts,
}

#[derive(Debug, Default)]
struct Client {
    user: String,
    way_in: String,
    is_leaving: bool,
    has_joined: bool,
    group: Option<GroupName>,
    /// Requests with an ack so far, and how many of them, and of messages to the upstream, are unanswered.
    asked: u64,
    acks_due: u64,
    echoes_due: u64,
    /// Of a reliable client.
    known: ReliableClient,
    /// The numbered message that is due; none before the first.
    numbered: Option<u64>,
}

impl Crowd {
    /// Returns how many clients wait for something.
    fn unfinished(&self, numbered: u64) -> usize {
        let waits = |(member, client): (usize, &Client)| {
            0 < client.acks_due
                || 0 < client.echoes_due
                || kind(member) == Kind::Reliable && client.numbered != Some(numbered)
        };
        self.clients.iter().enumerate().filter(|one| waits(*one)).count()
    }
}

impl Client {
    fn echoed(&mut self) -> anyhow::Result<()> {
        self.echoes_due = self.echoes_due.checked_sub(1).context("an echo came twice")?;
        Ok(())
    }

    /// Takes a message of a reliable client that is new to it.
    fn reliable(&mut self, text: &Bytes) -> anyhow::Result<()> {
        let Some(number) = text.strip_prefix(NUMBERED.as_bytes()) else { return Ok(()) };
        let number: u64 = std::str::from_utf8(number)?.parse()?;
        if let Some(due) = self.numbered {
            ensure!(number == due, "message {number} came where {due} was due");
        }
        self.numbered = Some(number + 1);
        Ok(())
    }
}

impl Handler for Crowd {
    fn message(&mut self, member: usize, head: &[u8], _now: u64) -> anyhow::Result<()> {
        let client = &mut self.clients[member];
        match kind(member) {
            Kind::Preview if head == ECHO.as_bytes() => {
                client.echoed()?;
                self.counts.echoes += 1;
            }
            Kind::Preview | Kind::Simple => {}
            Kind::Json => match decode(Subprotocol::Json, head)? {
                Received::Message(ServerMessage::Ack { error, .. }) => {
                    ensure!(error.is_none(), "a request failed: {error:?}");
                    client.acks_due =
                        client.acks_due.checked_sub(1).context("an ack came twice")?;
                    self.counts.acks += 1;
                }
                Received::Publication { publication, .. } => {
                    if publication.data.bytes == ECHO {
                        client.echoed()?;
                        self.counts.echoes += 1;
                    }
                }
                Received::Message(_) => {}
                Received::Unknown => bail!("a message came that no library would understand"),
            },
            Kind::Reliable => {
                if let Heard::New(text) =
                    client.known.handle_message(Subprotocol::JsonReliable, head)?
                {
                    client.reliable(&text)?;
                }
            }
        }
        self.counts.messages += 1;
        Ok(())
    }

    fn opened(&mut self, member: usize, _waited: u64) {
        if kind(member) == Kind::Reliable {
            self.back.push_back(member);
        }
    }

    fn ended(&mut self, member: usize, ending: Ending) -> anyhow::Result<()> {
        if !self.clients[member].is_leaving {
            return Err(ending.into());
        }
        self.gone.push_back(member);
        Ok(())
    }
}

impl Display for SoakOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} clients of four kinds for {} s", self.connections, self.seconds)?;
        let Counts { churned, cuts, calls, acks, echoes, messages } = self.counts;
        let mut table = Table::new(["churned", "cuts", "calls", "acks", "echoes", "messages"]);
        table.row([churned, cuts, calls, acks, echoes, messages].map(|count| count.to_string()));
        write!(f, "{table}")?;
        let mut table = Table::new(["s", "connections", "proportional set MB", "files"]);
        for look in &self.looks {
            table.row([
                format!("{:.0}", look.seconds),
                look.connections.to_string(),
                hundredths(per(look.proportional_bytes, 1_000_000)),
                look.files.to_string(),
            ]);
        }
        write!(f, "{table}")?;
        let mut table = Table::new(["growth %", "files left"]);
        table.row([hundredths(self.growth_percent), self.files_left.to_string()]);
        write!(f, "{table}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn looks(bytes: impl Fn(u32) -> u64, files: impl Fn(u32) -> u64) -> Vec<Look> {
        let look = |number: u32| Look {
            seconds: f64::from(number) * 10.0,
            connections: 1_000,
            proportional_bytes: bytes(number),
            files: files(number),
        };
        (0..180).map(look).collect()
    }

    #[test]
    fn growth_counts_from_minute_five_and_files_beside_the_clients() {
        let length = Duration::from_mins(30);
        let flat = |_| 1_100;
        let early = |number: u32| 1_000 + 10 * u64::from(number.min(30));
        judge(&looks(early, flat), length).unwrap();
        assert_eq!(growth_percent(&looks(early, flat), length), Some(0.0));
        let leaking = |number: u32| 1_000 + u64::from(number);
        let error = judge(&looks(leaking, flat), length).unwrap_err().to_string();
        assert!(error.starts_with("memory grew by 13.9"), "{error}");
        let files = |number: u32| 1_100 + 4 * u64::from(number);
        let error = judge(&looks(early, files), length).unwrap_err().to_string();
        assert!(error.contains("leak: 220 that are no clients' became 816"), "{error}");
        let short = Duration::from_mins(1);
        judge(&looks(leaking, flat)[..6], short).unwrap();
        assert_eq!(
            growth_percent(&looks(leaking, flat)[..6], short),
            None,
            "it is too short to tell"
        );
    }

    #[test]
    fn a_numbered_message_that_is_missing_is_found() {
        let mut client = Client::default();
        for text in ["number 5", "something else", "number 6"] {
            client.reliable(&Bytes::from_static(text.as_bytes())).unwrap();
        }
        let gap = client.reliable(&Bytes::from_static(b"number 8")).unwrap_err().to_string();
        assert_eq!(gap, "message 8 came where 7 was due");
        assert!(client.echoed().is_err(), "nothing was sent");
    }
}
