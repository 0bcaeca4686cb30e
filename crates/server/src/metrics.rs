//! Metrics: counters of the shards, published once per turn, and everything else by the `metrics` crate, as one Prometheus text.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use hookwire_hub::Hub;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::shard::Counters;

/// Upper bounds of the turn-time buckets, in microseconds.
const TURN_BOUNDS: [u64; 8] = [10, 50, 100, 500, 1_000, 10_000, 100_000, 1_000_000];

/// Upper bounds of call durations, in seconds.
const CALL_BOUNDS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0];

/// What a shard publishes. The shard stores, others only read: no read-modify-write anywhere.
#[derive(Debug, Default)]
pub(crate) struct ShardStats {
    connections: AtomicU64,
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
    incomplete_bytes: AtomicU64,
    waiting_event_bytes: AtomicU64,
    turn_micros: AtomicU64,
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
        store(&self.incomplete_bytes, incomplete_bytes as u64);
        store(&self.waiting_event_bytes, hub.waiting_bytes() as u64);
        let micros = u64::try_from(turn.as_micros()).unwrap_or(u64::MAX);
        store(&self.turn_micros, read(&self.turn_micros).saturating_add(micros));
        let bucket =
            TURN_BOUNDS.iter().position(|bound| micros <= *bound).unwrap_or(TURN_BOUNDS.len());
        store(&self.turns[bucket], read(&self.turns[bucket]) + 1);
    }
}

fn read(cell: &AtomicU64) -> u64 {
    cell.load(Ordering::Relaxed)
}

/// Returns the process's recorder; installs it at the first call. Several nodes of one process (tests) share it.
pub(crate) fn recorder() -> &'static PrometheusHandle {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    HANDLE.get_or_init(|| {
        let builder =
            PrometheusBuilder::new().set_buckets(&CALL_BOUNDS).expect("the bounds are not empty");
        let recorder = builder.build_recorder();
        let handle = recorder.handle();
        if metrics::set_global_recorder(recorder).is_err() {
            tracing::warn!(
                "another metrics recorder is installed; calls and requests are not counted here"
            );
        }
        handle
    })
}

/// Returns everything in the Prometheus text format.
pub(crate) fn render(shards: &[Arc<ShardStats>]) -> String {
    type Read = fn(&ShardStats) -> &AtomicU64;
    let families: [(&str, &str, &str, Read); 13] = [
        ("hookwire_connections", "gauge", "Open connections.", |s| &s.connections),
        ("hookwire_sets", "gauge", "Hubs, users and groups with a member.", |s| &s.sets),
        ("hookwire_messages_in_total", "counter", "Messages from clients.", |s| &s.messages_in),
        ("hookwire_received_bytes_total", "counter", "Bytes read from clients.", |s| &s.bytes_in),
        ("hookwire_deliveries_total", "counter", "Messages put in line for a connection.", |s| {
            &s.deliveries
        }),
        ("hookwire_sent_bytes_total", "counter", "Bytes written to clients.", |s| &s.bytes_out),
        ("hookwire_slow_consumers_total", "counter", "Connections closed for not reading.", |s| {
            &s.slow_consumers
        }),
        (
            "hookwire_protocol_errors_total",
            "counter",
            "Connections failed for breaking RFC 6455.",
            |s| &s.protocol_errors,
        ),
        ("hookwire_ping_timeouts_total", "counter", "Connections closed for silence.", |s| {
            &s.ping_timeouts
        }),
        (
            "hookwire_unrouted_messages_total",
            "counter",
            "Client messages that no upstream wanted.",
            |s| &s.unrouted_messages,
        ),
        ("hookwire_queue_bytes", "gauge", "Bytes that clients have not taken yet.", |s| {
            &s.queue_bytes
        }),
        ("hookwire_incomplete_bytes", "gauge", "Memory of unfinished messages.", |s| {
            &s.incomplete_bytes
        }),
        (
            "hookwire_waiting_event_bytes",
            "gauge",
            "Payload of events that wait for earlier ones.",
            |s| &s.waiting_event_bytes,
        ),
    ];
    let mut out = String::new();
    let mut line = |text: std::fmt::Arguments<'_>| {
        out.write_fmt(text).expect("a String takes everything");
        out.push('\n');
    };
    for (name, kind, help, value) in families {
        line(format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
        for (at, stats) in shards.iter().enumerate() {
            line(format_args!("{name}{{shard=\"{at}\"}} {}", read(value(stats))));
        }
    }
    let name = "hookwire_turn_seconds";
    line(format_args!("# HELP {name} Duration of a shard's turns.\n# TYPE {name} histogram"));
    for (at, stats) in shards.iter().enumerate() {
        let mut turns = 0;
        for (bound, count) in TURN_BOUNDS.iter().zip(&stats.turns) {
            turns += read(count);
            let bound = Duration::from_micros(*bound).as_secs_f64();
            line(format_args!("{name}_bucket{{shard=\"{at}\",le=\"{bound}\"}} {turns}"));
        }
        turns += read(&stats.turns[TURN_BOUNDS.len()]);
        let sum = Duration::from_micros(read(&stats.turn_micros)).as_secs_f64();
        line(format_args!("{name}_bucket{{shard=\"{at}\",le=\"+Inf\"}} {turns}"));
        line(format_args!(
            "{name}_sum{{shard=\"{at}\"}} {sum}\n{name}_count{{shard=\"{at}\"}} {turns}"
        ));
    }
    out.push_str(&recorder().render());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_well_formed_and_buckets_add_up() {
        let stats = Arc::new(ShardStats::default());
        let count = Counters { messages_in: 3, ..Counters::default() };
        for micros in [5, 60, 2_000_000] {
            stats.publish(&count, &Hub::default(), 7, Duration::from_micros(micros));
        }
        let text = render(&[stats]);
        for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let (name, value) = line.rsplit_once(' ').unwrap();
            assert!(value.parse::<f64>().is_ok(), "{line}");
            assert!(name.starts_with("hookwire_"), "{line}");
        }
        assert!(text.contains("hookwire_messages_in_total{shard=\"0\"} 3\n"));
        assert!(text.contains("hookwire_turn_seconds_bucket{shard=\"0\",le=\"0.00001\"} 1\n"));
        assert!(text.contains("hookwire_turn_seconds_bucket{shard=\"0\",le=\"+Inf\"} 3\n"));
    }
}
