//! What time brings: closes that take too long, slow readers, unfinished messages, silence.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hookwire_hub::{Ending, Slot};
use hookwire_proto::frame::{CloseCode, Opcode, encode};

use super::socket::{Phase, Silence};
use super::{Shard, TICK};

/// How late a tick must be to show that the shard did not run.
const LATE_MIN: Duration = Duration::from_secs(2);

impl Shard {
    /// Looks at everything that has a time limit.
    pub(super) fn tick(&mut self) {
        if self.hub.poll_timeout().is_some_and(|expiry| expiry <= self.wall) {
            self.close_runs();
            self.handle_timeout();
        }
        if self.now < self.next_tick {
            return;
        }
        let is_late = LATE_MIN <= self.now - self.next_tick;
        self.next_tick = self.now + TICK;
        for slot in expired(&self.closing, self.now) {
            self.closing.remove(&slot);
            self.reset(slot);
        }
        for slot in expired(&self.slow, self.now) {
            self.slow.remove(&slot);
            self.close_slow_consumer(slot);
        }
        if !self.may_read() {
            // No client is late while nothing is read.
            self.incomplete.values_mut().for_each(|deadline| *deadline += TICK);
        }
        for slot in expired(&self.incomplete, self.now) {
            self.incomplete.remove(&slot);
            self.fail(slot, CloseCode::POLICY, "a message took too long to arrive".into());
        }
        if is_late {
            // The process stood still, or the machine did: answers may lie unread, so whoever was asked is asked again.
            self.sockets.iter_mut().flatten().for_each(|socket| socket.is_asked = false);
        }
        self.ping();
    }

    /// Looks at the share of the sockets that is due in this tick; each is seen twice in a ping interval.
    fn ping(&mut self) {
        let interval = self.limits.ping_interval.max(TICK * 2);
        let ticks = (interval.as_millis() / TICK.as_millis() / 2).max(1);
        let share = self.sockets.len().div_ceil(usize::try_from(ticks).unwrap_or(usize::MAX));
        let seconds = self.seconds();
        let interval = interval.as_secs() + u64::from(interval.subsec_nanos() != 0);
        let interval = u32::try_from(interval).unwrap_or(u32::MAX);
        let ping = encode(Opcode::Ping, b"", None);
        for _ in 0..share {
            if self.sockets.len() <= self.ping_cursor {
                self.ping_cursor = 0;
            }
            let at = self.ping_cursor;
            self.ping_cursor += 1;
            let Some(socket) = &mut self.sockets[at] else { continue };
            if socket.phase != Phase::Open || socket.stream.is_none() {
                continue;
            }
            let slot = Slot(u32::try_from(at).expect("slots are 32 bits wide"));
            match socket.silence(seconds, interval) {
                Silence::None => {}
                Silence::Ask => self.queue(slot, ping.clone(), 0),
                Silence::Gone => {
                    self.count.ping_timeouts += 1;
                    self.end(slot, CloseCode::GOING_AWAY, Ending::GivenUp("PingTimeout".into()));
                }
            }
        }
    }
}

fn expired(deadlines: &BTreeMap<Slot, Instant>, now: Instant) -> Vec<Slot> {
    deadlines.iter().filter(|(_, deadline)| **deadline <= now).map(|(slot, _)| *slot).collect()
}
