//! Limits of the client side and of upstream calls.

use std::time::Duration;

use super::ConfigFault;
use super::reader::Section;

/// Limits of the client side.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections of the node; 0: as many as the process may have open files.
    pub connections_max: usize,
    /// Largest message from a client, in bytes.
    pub message_bytes_max: usize,
    /// Largest REST body, in bytes.
    pub rest_body_bytes_max: usize,
    /// After this long without a word from a client it is pinged; after twice as long it is closed.
    pub ping_interval: Duration,
    /// Bytes that a client may leave untaken for `slow_time_max`.
    pub slow_bytes_max: usize,
    /// See `slow_bytes_max`.
    pub slow_time_max: Duration,
    /// Bytes that a client may leave untaken at all.
    pub outbox_bytes_max: usize,
    /// How long a message may take to arrive.
    pub incomplete_time_max: Duration,
    /// Memory for incomplete messages, per shard.
    pub incomplete_bytes_max: usize,
    /// How long accept and the first request head may take.
    pub handshake_time_max: Duration,
    /// How long the service says that it is not ready before it shuts down.
    pub shutdown_notice: Duration,
    /// How long shutdown waits for disconnect events.
    pub shutdown_time_max: Duration,
    /// How long a reliable client may come back after its transport was lost.
    pub recovery_time: Duration,
    /// How long it may come back after a close frame without a status: a client that stopped for good and one whose page sleeps send
    /// the same.
    pub recovery_time_without_status: Duration,
    /// Messages kept for a reliable client that does not acknowledge them.
    pub recovery_messages_max: usize,
    /// Bytes kept for a reliable client that does not acknowledge them.
    pub recovery_bytes_max: usize,
    /// Entries of one hub in the event log; 0: nothing is kept.
    pub event_log_entries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 0,
            message_bytes_max: 1024 * 1024,
            rest_body_bytes_max: 1024 * 1024,
            ping_interval: Duration::from_secs(20),
            slow_bytes_max: 1024 * 1024,
            slow_time_max: Duration::from_secs(10),
            outbox_bytes_max: 16 * 1024 * 1024,
            incomplete_time_max: Duration::from_mins(1),
            incomplete_bytes_max: 64 * 1024 * 1024,
            handshake_time_max: Duration::from_secs(15),
            shutdown_notice: Duration::ZERO,
            shutdown_time_max: Duration::from_secs(20),
            recovery_time: Duration::from_secs(30),
            recovery_time_without_status: Duration::from_secs(3),
            recovery_messages_max: 1_000,
            recovery_bytes_max: 16 * 1024 * 1024,
            event_log_entries: 1_000,
        }
    }
}

/// Limits of upstream calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UpstreamLimits {
    /// How long a connect event may take, retries included.
    pub connect_time_max: Duration,
    /// How long any other event may take.
    pub time_max: Duration,
    /// Calls in flight for one upstream (scheme, host and port).
    pub calls_in_flight_max: usize,
}

impl Default for UpstreamLimits {
    fn default() -> Self {
        Self {
            connect_time_max: Duration::from_secs(30),
            time_max: Duration::from_mins(1),
            calls_in_flight_max: 1_024,
        }
    }
}

impl Limits {
    /// Reads `[limits]`.
    pub(super) fn read(mut section: Section, faults: &mut Vec<ConfigFault>) -> Self {
        let before = faults.len();
        let d = Self::default();
        let connections_max =
            section.number("connections_max", d.connections_max, 0..=1_000_000_000, faults);
        let recovery_messages_max =
            section.number("recovery_messages_max", d.recovery_messages_max, 1..=1_000_000, faults);
        let event_log_entries =
            section.number("event_log_entries", d.event_log_entries, 0..=10_000, faults);
        let bytes = 1_024..=1024 * 1024 * 1024;
        let mut size = |name, default| section.number(name, default, bytes.clone(), faults);
        let message_bytes_max = size("message_bytes_max", d.message_bytes_max);
        let rest_body_bytes_max = size("rest_body_bytes_max", d.rest_body_bytes_max);
        let slow_bytes_max = size("slow_consumer_bytes_max", d.slow_bytes_max);
        let outbox_bytes_max = size("outbox_bytes_max", d.outbox_bytes_max);
        let incomplete_bytes_max = size("incomplete_bytes_max", d.incomplete_bytes_max);
        let recovery_bytes_max = size("recovery_bytes_max", d.recovery_bytes_max);
        let shutdown_notice = section.seconds_or_zero("shutdown_notice_seconds", faults);
        let mut time = |name, default: Duration| section.seconds(name, default, faults);
        let limits = Self {
            connections_max,
            message_bytes_max,
            rest_body_bytes_max,
            event_log_entries,
            slow_bytes_max,
            outbox_bytes_max,
            incomplete_bytes_max,
            recovery_messages_max,
            recovery_bytes_max,
            ping_interval: time("ping_interval_seconds", d.ping_interval),
            slow_time_max: time("slow_consumer_seconds_max", d.slow_time_max),
            incomplete_time_max: time("incomplete_seconds_max", d.incomplete_time_max),
            handshake_time_max: time("handshake_seconds_max", d.handshake_time_max),
            shutdown_notice,
            shutdown_time_max: time("shutdown_seconds_max", d.shutdown_time_max),
            recovery_time: time("recovery_seconds", d.recovery_time),
            recovery_time_without_status: time(
                "recovery_seconds_without_status",
                d.recovery_time_without_status,
            ),
        };
        if before == faults.len() {
            for (key, value, floor_key, floor, why) in limits.floors() {
                if value < floor {
                    let fault = format!("must be at least {floor_key}, which is {floor}, {why}");
                    section.fault(key, &fault, faults);
                }
            }
        }
        section.finish(faults);
        limits
    }

    /// Returns which limit may not lie below which other, and why.
    const fn floors(&self) -> [(&'static str, usize, &'static str, usize, &'static str); 6] {
        const CLOSES: &str = "or the largest message would close its receivers";
        let (slow, message) = (self.slow_bytes_max, self.message_bytes_max);
        let (rest, outbox) = (self.rest_body_bytes_max, self.outbox_bytes_max);
        [
            (
                "outbox_bytes_max",
                outbox,
                "slow_consumer_bytes_max",
                slow,
                "or no client would be given slow_consumer_seconds_max",
            ),
            ("outbox_bytes_max", outbox, "message_bytes_max", message, CLOSES),
            ("outbox_bytes_max", outbox, "rest_body_bytes_max", rest, CLOSES),
            ("recovery_bytes_max", self.recovery_bytes_max, "message_bytes_max", message, CLOSES),
            ("recovery_bytes_max", self.recovery_bytes_max, "rest_body_bytes_max", rest, CLOSES),
            (
                "incomplete_bytes_max",
                self.incomplete_bytes_max,
                "message_bytes_max",
                message,
                "or the largest message could not arrive",
            ),
        ]
    }
}
