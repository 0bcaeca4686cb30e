//! Metrics: what the shards publish once per turn, what the runtime counts by the macros of the `metrics` crate, and what the system
//! says about the process, as one Prometheus text.
//!
//! Every name stands here with its type and meaning; a name ends in its unit unless it counts things that there are.

mod process;

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, OnceLock, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use hookwire_hub::Hub;
use metrics::{Recorder as _, Unit};
use metrics_exporter_prometheus::{
    Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder,
};

use crate::shard::Counters;

/// Upper bounds of the turn-time buckets, in microseconds.
const TURN_BOUNDS: [u64; 8] = [10, 50, 100, 500, 1_000, 10_000, 100_000, 1_000_000];

/// Upper bounds of call durations, in seconds; the last is the longest that a call may take by default.
const CALL_BOUNDS: [f64; 14] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0];

/// How often recorded durations are moved into their buckets; until then each takes 16 bytes.
const UPKEEP_PAUSE: Duration = Duration::from_secs(5);

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// What the runtime records by macros, where it happens: name, type, unit, meaning.
const RECORDED: [(&str, Kind, Unit, &str); 13] = [
    (
        "hookwire_handshakes_total",
        Kind::Counter,
        Unit::Count,
        "Attempts of clients to connect, by result.",
    ),
    (
        "hookwire_tls_handshakes_total",
        Kind::Counter,
        Unit::Count,
        "TLS handshakes of clients and callers by result.",
    ),
    (
        "hookwire_certificate_not_after_timestamp_seconds",
        Kind::Gauge,
        Unit::Seconds,
        "When each certificate in force ends, in seconds since 1970.",
    ),
    (
        "hookwire_certificate_reloads_total",
        Kind::Counter,
        Unit::Count,
        "Changes of certificate files by result.",
    ),
    (
        "hookwire_http_requests_total",
        Kind::Counter,
        Unit::Count,
        "Requests by route and status, those of clients that connect included.",
    ),
    (
        "hookwire_upstream_calls_total",
        Kind::Counter,
        Unit::Count,
        "Calls of upstreams by event and result.",
    ),
    (
        "hookwire_upstream_calls_in_flight",
        Kind::Gauge,
        Unit::Count,
        "Calls of upstreams under way, those that wait for a free place included.",
    ),
    (
        "hookwire_upstream_call_duration_seconds",
        Kind::Histogram,
        Unit::Seconds,
        "Duration of upstream calls by event, waiting for a free place and repeated attempts included.",
    ),
    (
        "hookwire_upstream_validations_total",
        Kind::Counter,
        Unit::Count,
        "Questions to upstreams whether they want events of this service, by result.",
    ),
    (
        "hookwire_listener_events_total",
        Kind::Counter,
        Unit::Count,
        "Copies of events for listeners by result.",
    ),
    (
        "hookwire_configuration_reloads_total",
        Kind::Counter,
        Unit::Count,
        "Times that the configuration was read again, by result.",
    ),
    ("hookwire_tunnels", Kind::Gauge, Unit::Count, "Tunnels that are open."),
    (
        "hookwire_tunnel_requests_total",
        Kind::Counter,
        Unit::Count,
        "Requests through tunnels by kind (events, and REST calls of upstreams) and result.",
    ),
];

/// Handles of one metric by its labels, so that what is counted often is looked up once. Labels are words of ours, so there are few.
#[derive(Debug)]
pub(crate) struct Handles<Labels, Handle>(LazyLock<RwLock<HashMap<Labels, Handle>>>);

impl<Labels: Eq + Hash, Handle: Clone> Handles<Labels, Handle> {
    pub(crate) const fn new() -> Self {
        Self(LazyLock::new(RwLock::default))
    }

    /// Returns the handle for these labels; the first time, `register` makes it.
    pub(crate) fn get(&self, labels: Labels, register: impl FnOnce() -> Handle) -> Handle {
        if let Some(handle) = self.0.read().unwrap_or_else(PoisonError::into_inner).get(&labels) {
            return handle.clone();
        }
        let handle = register();
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(labels, handle.clone());
        handle
    }
}

/// What a shard publishes. The shard stores, others only read: no read-modify-write anywhere.
#[derive(Debug, Default)]
pub(crate) struct ShardStats {
    connections: AtomicU64,
    previews: AtomicU64,
    recovering: AtomicU64,
    sets: AtomicU64,
    messages_in: AtomicU64,
    bytes_in: AtomicU64,
    deliveries: AtomicU64,
    bytes_out: AtomicU64,
    slow_consumers: AtomicU64,
    protocol_errors: AtomicU64,
    ping_timeouts: AtomicU64,
    unrouted_messages: AtomicU64,
    queue_bytes: AtomicU64,
    deflate_plain_bytes: AtomicU64,
    deflated_bytes: AtomicU64,
    inflate_deflated_bytes: AtomicU64,
    inflated_bytes: AtomicU64,
    incomplete_bytes: AtomicU64,
    waiting_event_bytes: AtomicU64,
    turn_micros: AtomicU64,
    /// When the last turn began, in milliseconds since [`BEGINNING`]; 0: there was none.
    last_turn_ms: AtomicU64,
    /// Turns by duration; the last counts those beyond all bounds.
    turns: [AtomicU64; TURN_BOUNDS.len() + 1],
}

impl ShardStats {
    pub(crate) fn publish(
        &self,
        count: &Counters,
        hub: &Hub,
        incomplete_bytes: usize,
        turn: Duration,
    ) {
        let store = |cell: &AtomicU64, value| cell.store(value, Ordering::Relaxed);
        store(&self.connections, hub.open_connections() as u64);
        store(&self.previews, hub.preview_connections() as u64);
        store(&self.recovering, hub.detached_connections() as u64);
        store(&self.sets, hub.sets() as u64);
        store(&self.messages_in, count.messages_in);
        store(&self.bytes_in, count.bytes_in);
        store(&self.deliveries, count.deliveries);
        store(&self.bytes_out, count.bytes_out);
        store(&self.slow_consumers, count.slow_consumers);
        store(&self.protocol_errors, count.protocol_errors);
        store(&self.ping_timeouts, count.ping_timeouts);
        store(&self.unrouted_messages, hub.unrouted_messages());
        store(&self.queue_bytes, count.queue_bytes);
        store(&self.deflate_plain_bytes, count.deflate_plain_bytes);
        store(&self.deflated_bytes, count.deflated_bytes);
        store(&self.inflate_deflated_bytes, count.inflate_deflated_bytes);
        store(&self.inflated_bytes, count.inflated_bytes);
        store(&self.incomplete_bytes, incomplete_bytes as u64);
        store(&self.waiting_event_bytes, hub.waiting_bytes() as u64);
        let micros = u64::try_from(turn.as_micros()).unwrap_or(u64::MAX);
        store(&self.turn_micros, read(&self.turn_micros).saturating_add(micros));
        let bucket =
            TURN_BOUNDS.iter().position(|bound| micros <= *bound).unwrap_or(TURN_BOUNDS.len());
        store(&self.turns[bucket], read(&self.turns[bucket]) + 1);
    }

    /// Notes that a turn which began at `began` is finished.
    pub(crate) fn turned(&self, began: Instant) {
        self.last_turn_ms.store(since_beginning(began), Ordering::Relaxed);
    }

    /// Returns how long ago the last turn that was finished began; `None` before the first.
    pub(crate) fn turn_age(&self) -> Option<Duration> {
        let began = read(&self.last_turn_ms);
        let now = since_beginning(Instant::now());
        (began != 0).then(|| Duration::from_millis(now.saturating_sub(began)))
    }
}

/// What ages of turns are measured from.
static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);

fn since_beginning(at: Instant) -> u64 {
    let millis = at.saturating_duration_since(*BEGINNING).as_millis();
    u64::try_from(millis).unwrap_or(u64::MAX).saturating_add(1)
}

/// What the overview tells of one shard.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct ShardFigures {
    pub(crate) connections: u64,
    pub(crate) previews: u64,
    pub(crate) recovering: u64,
    pub(crate) messages_in: u64,
    pub(crate) bytes_in: u64,
    pub(crate) deliveries: u64,
    pub(crate) bytes_out: u64,
    pub(crate) slow_consumers: u64,
    pub(crate) queue_bytes: u64,
    /// How long it has been at work since its start.
    pub(crate) busy: Duration,
}

impl ShardStats {
    /// Returns what was published last.
    pub(crate) fn figures(&self) -> ShardFigures {
        ShardFigures {
            connections: read(&self.connections),
            previews: read(&self.previews),
            recovering: read(&self.recovering),
            messages_in: read(&self.messages_in),
            bytes_in: read(&self.bytes_in),
            deliveries: read(&self.deliveries),
            bytes_out: read(&self.bytes_out),
            slow_consumers: read(&self.slow_consumers),
            queue_bytes: read(&self.queue_bytes),
            busy: Duration::from_micros(read(&self.turn_micros)),
        }
    }
}

fn read(cell: &AtomicU64) -> u64 {
    cell.load(Ordering::Relaxed)
}

/// Returns the process's recorder; installs it at the first call. Several nodes of one process (tests) share it, so what is recorded
/// by macros is the sum of theirs; the shards' figures are each node's own.
pub(crate) fn recorder() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let recorder = describe();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!(
                "another metrics recorder is installed; calls and requests are not counted here"
            );
        }
        let upkept = handle.clone();
        // Lives as long as the recorder, which is as long as the process.
        let upkeep = thread::Builder::new().name("metrics-upkeep".to_owned()).spawn(move || {
            loop {
                thread::sleep(UPKEEP_PAUSE);
                upkept.run_upkeep();
            }
        });
        if let Err(error) = upkeep {
            tracing::warn!(%error, "durations take memory until somebody reads the metrics");
        }
        handle
    })
}

/// Returns a recorder that knows the names of [`RECORDED`].
fn describe() -> PrometheusRecorder {
    let durations = Matcher::Suffix("_seconds".to_owned());
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(durations, &CALL_BOUNDS)
        .expect("the bounds are not empty")
        .build_recorder();
    for (name, kind, unit, help) in RECORDED {
        match kind {
            Kind::Counter => recorder.describe_counter(name.into(), Some(unit), help.into()),
            Kind::Gauge => recorder.describe_gauge(name.into(), Some(unit), help.into()),
            Kind::Histogram => recorder.describe_histogram(name.into(), Some(unit), help.into()),
        }
    }
    recorder
}

/// Returns everything in the Prometheus text format (version 0.0.4). Cost: a few system calls, and as many lines as there are shards
/// for each metric; shards are not disturbed.
pub(crate) fn render(shards: &[Arc<ShardStats>]) -> String {
    let mut out = String::new();
    render_shards(&mut out, shards);
    for (name, kind, help, value) in process::read() {
        head(&mut out, name, kind, help);
        line(&mut out, format_args!("{name} {value}"));
    }
    out.push_str(&recorder().render());
    out
}

fn render_shards(out: &mut String, shards: &[Arc<ShardStats>]) {
    for (name, kind, help, value) in SHARD_METRICS {
        head(out, name, kind, help);
        for (at, stats) in shards.iter().enumerate() {
            line(out, format_args!("{name}{{shard=\"{at}\"}} {}", read(value(stats))));
        }
    }
    let name = "hookwire_turn_seconds";
    head(out, name, Kind::Histogram, "Duration of a shard's turns.");
    for (at, stats) in shards.iter().enumerate() {
        let mut turns = 0;
        for (bound, count) in TURN_BOUNDS.iter().zip(&stats.turns) {
            turns += read(count);
            let bound = Duration::from_micros(*bound).as_secs_f64();
            line(out, format_args!("{name}_bucket{{shard=\"{at}\",le=\"{bound}\"}} {turns}"));
        }
        turns += read(&stats.turns[TURN_BOUNDS.len()]);
        let sum = Duration::from_micros(read(&stats.turn_micros)).as_secs_f64();
        line(out, format_args!("{name}_bucket{{shard=\"{at}\",le=\"+Inf\"}} {turns}"));
        line(out, format_args!("{name}_sum{{shard=\"{at}\"}} {sum}"));
        line(out, format_args!("{name}_count{{shard=\"{at}\"}} {turns}"));
    }
}

/// Opens a family. Names and meanings are constants without anything to escape; labels are numbers.
fn head(out: &mut String, name: &str, kind: Kind, help: &str) {
    line(out, format_args!("# HELP {name} {help}"));
    line(out, format_args!("# TYPE {name} {}", kind.as_str()));
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    out.write_fmt(text).expect("a String takes everything");
    out.push('\n');
}

type Cell = fn(&ShardStats) -> &AtomicU64;

/// What each shard publishes besides the time of its turns: name, type, meaning, place.
const SHARD_METRICS: [(&str, Kind, &str, Cell); 18] = [
    (
        "hookwire_connections",
        Kind::Gauge,
        "Open connections, with those that wait for their clients.",
        |s| &s.connections,
    ),
    (
        "hookwire_recovering_connections",
        Kind::Gauge,
        "Reliable connections that have lost their transport and wait for their clients.",
        |s| &s.recovering,
    ),
    ("hookwire_sets", Kind::Gauge, "Hubs, users and groups with a member.", |s| &s.sets),
    ("hookwire_messages_in_total", Kind::Counter, "Messages from clients.", |s| &s.messages_in),
    ("hookwire_received_bytes_total", Kind::Counter, "Bytes read from clients.", |s| &s.bytes_in),
    ("hookwire_deliveries_total", Kind::Counter, "Messages put in line for a connection.", |s| {
        &s.deliveries
    }),
    ("hookwire_sent_bytes_total", Kind::Counter, "Bytes written to clients.", |s| &s.bytes_out),
    (
        "hookwire_deflate_before_bytes_total",
        Kind::Counter,
        "Bytes of messages before they were compressed, each counted once for all its receivers.",
        |s| &s.deflate_plain_bytes,
    ),
    (
        "hookwire_deflate_after_bytes_total",
        Kind::Counter,
        "The same bytes after compression, or as they were if that made them no fewer.",
        |s| &s.deflated_bytes,
    ),
    (
        "hookwire_inflate_before_bytes_total",
        Kind::Counter,
        "Bytes of compressed messages from clients.",
        |s| &s.inflate_deflated_bytes,
    ),
    (
        "hookwire_inflate_after_bytes_total",
        Kind::Counter,
        "The same bytes after they were inflated.",
        |s| &s.inflated_bytes,
    ),
    ("hookwire_slow_consumers_total", Kind::Counter, "Connections closed for not reading.", |s| {
        &s.slow_consumers
    }),
    (
        "hookwire_protocol_errors_total",
        Kind::Counter,
        "Connections failed for breaking RFC 6455.",
        |s| &s.protocol_errors,
    ),
    ("hookwire_ping_timeouts_total", Kind::Counter, "Connections closed for silence.", |s| {
        &s.ping_timeouts
    }),
    (
        "hookwire_unrouted_messages_total",
        Kind::Counter,
        "Client messages that no upstream wanted.",
        |s| &s.unrouted_messages,
    ),
    ("hookwire_queue_bytes", Kind::Gauge, "Bytes that clients have not taken yet.", |s| {
        &s.queue_bytes
    }),
    ("hookwire_incomplete_bytes", Kind::Gauge, "Memory of unfinished messages.", |s| {
        &s.incomplete_bytes
    }),
    (
        "hookwire_waiting_event_bytes",
        Kind::Gauge,
        "Payload of events that wait for earlier ones.",
        |s| &s.waiting_event_bytes,
    ),
];

#[cfg(test)]
mod tests;
