//! The publisher and its receivers, and the check of all that arrives.

use std::time::Duration;

use anyhow::{Context, ensure};
use indicatif::ProgressBar;

use super::super::histogram::Histogram;
use super::super::process::Used;
use super::super::publisher::Publisher;
use super::super::report::Progress;
use super::super::swarm::{Clock, Handler, PAYLOAD_BYTES_MIN, Stamp, Swarm};
use super::audience::Audience;
use super::stage::Stage;

/// After the last round: how long nothing more may come.
const SURPLUS_TIME: Duration = Duration::from_millis(100);

/// When messages are published.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pace {
    /// So many at once, when the last ones have arrived.
    Burst(u64),
    /// So many in a second.
    Rate(u64),
}

/// The publisher and its receivers.
pub(super) struct Load {
    /// Before the server: what it still holds is reset.
    swarm: Swarm,
    stage: Stage,
    audience: Audience,
    publisher: Publisher,
    receipts: Receipts,
    clock: Clock,
    body: Vec<u8>,
    published: u64,
}

/// What a round came to.
pub(super) struct Measured {
    pub(super) deliveries: u64,
    pub(super) nanoseconds: u64,
    pub(super) latency: Histogram,
    pub(super) used: Option<Used>,
}

impl Load {
    /// Connects all receivers.
    pub(super) fn connect(
        stage: Stage,
        audience: Audience,
        size: usize,
        joined: bool,
        clock: Clock,
        progress: Progress,
    ) -> anyhow::Result<Self> {
        let mut swarm = Swarm::new(clock)?;
        let mut receipts = Receipts::new(&audience);
        receipts.joined = joined;
        receipts.bar = Some(progress.bar("connect", audience.clients as u64));
        let opening = |index: usize| stage.openings[index].clone();
        swarm.connect(&stage.door, audience.clients, opening, &mut receipts)?;
        if let Some(bar) = receipts.bar.take() {
            bar.finish_and_clear();
        }
        let publisher = stage.publisher(&swarm)?;
        let [before, behind] = &stage.around_payload;
        let body = [before.as_bytes(), &items(size), behind.as_bytes()].concat();
        Ok(Self { swarm, stage, audience, publisher, receipts, clock, body, published: 0 })
    }

    /// Publishes `messages` and returns when all have arrived.
    pub(super) fn round(
        &mut self,
        messages: u64,
        pace: Pace,
        bar: &ProgressBar,
    ) -> anyhow::Result<Measured> {
        // A new connection each time: the service closes one that is silent for long.
        self.publisher = self.stage.publisher(&self.swarm)?;
        self.receipts.latency = Histogram::new();
        let delivered = self.receipts.delivered();
        let before = self.stage.used_at_rest()?;
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
        let after = self.stage.used_at_rest()?;
        Ok(Measured {
            deliveries: self.receipts.delivered() - delivered,
            nanoseconds,
            latency: self.receipts.latency.clone(),
            used: before.zip(after).map(|(before, after)| after - before),
        })
    }

    /// Returns the payload bytes of the frames that clients of each of `forms` forms, which take turns, have got last.
    ///
    /// # Errors
    /// No message has come to any client of a form.
    pub(super) fn payload_bytes(&self, forms: usize) -> anyhow::Result<Vec<u64>> {
        let of_form = |form: usize| {
            let members = (form..self.swarm.len()).step_by(forms);
            let bytes = members.map(|member| self.swarm.payload_bytes(member)).max();
            bytes
                .filter(|bytes| *bytes != 0)
                .context("one round has too few messages for all forms")
        };
        (0..forms.min(self.swarm.len())).map(of_form).collect()
    }

    /// Makes sure that nothing comes twice: everything has arrived, so whatever comes now is too much, and fails in [`Receipts`].
    pub(super) fn expect_silence(&mut self) -> anyhow::Result<()> {
        let due = self.clock.now() + u64::try_from(SURPLUS_TIME.as_nanos())?;
        self.work_until(due)
    }

    pub(super) const fn core(&self) -> Option<usize> {
        self.stage.core()
    }

    fn publish(&mut self, sent: u64) -> anyhow::Result<()> {
        let start = self.stage.around_payload[0].len();
        Stamp { sequence: self.published, sent }.put(&mut self.body[start..]);
        let call = self.stage.call(self.audience.target_of(self.published));
        self.published += 1;
        self.publisher.queue("POST", &call.path, call.token.as_deref(), "text/plain", &self.body)
    }

    /// Waits until everything has arrived and every request is answered.
    fn settle(&mut self) -> anyhow::Result<()> {
        let due = self.audience.deliveries(self.published);
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
}

/// Returns a list as an application may send it: a payload of one letter would be no test of compression. It is printable ASCII that
/// JSON writes as it is.
fn items(bytes: usize) -> Vec<u8> {
    let item = |at: usize| {
        let (name, price, left) = (at * at, at * 7_919 % 100_000, at * 31 % 1_000);
        format!("id={at}, name=item {name}, price={price}, left={left}; ")
    };
    (0..).flat_map(|at| item(at).into_bytes()).take(bytes).collect()
}

/// What has arrived. Checks every message of every receiver.
#[derive(Debug)]
pub(in super::super) struct Receipts {
    targets: u64,
    due: Vec<Due>,
    delivered: u64,
    latency: Histogram,
    /// Whether one message of WebSocket may hold several, or none.
    joined: bool,
    /// Moves with each connection.
    bar: Option<ProgressBar>,
}

/// What a receiver is to get next.
#[derive(Debug)]
struct Due {
    /// Its targets, in order.
    targets: Vec<u32>,
    /// Which of them is next, and in which turn of all targets.
    next: usize,
    turn: u64,
}

impl Receipts {
    pub(in super::super) fn new(audience: &Audience) -> Self {
        let due = audience.targets_of_clients().into_iter();
        Self {
            targets: audience.targets as u64,
            due: due.map(|targets| Due { targets, next: 0, turn: 0 }).collect(),
            delivered: 0,
            latency: Histogram::new(),
            joined: false,
            bar: None,
        }
    }

    pub(in super::super) const fn delivered(&self) -> u64 {
        self.delivered
    }

    /// Takes the message whose stamp is the first in `bytes`.
    fn take(&mut self, member: usize, bytes: &[u8], now: u64) -> anyhow::Result<()> {
        let stamp = Stamp::read(bytes)?;
        let Due { targets, next, turn } = &mut self.due[member];
        let target = targets.get(*next).context("a message came to who is to get none")?;
        let due = *turn * self.targets + u64::from(*target);
        ensure!(stamp.sequence == due, "message {} came where {due} was due", stamp.sequence);
        *next += 1;
        if *next == targets.len() {
            (*next, *turn) = (0, *turn + 1);
        }
        self.delivered += 1;
        self.latency.record(now.saturating_sub(stamp.sent));
        Ok(())
    }
}

impl Handler for Receipts {
    fn message(&mut self, member: usize, head: &[u8], now: u64) -> anyhow::Result<()> {
        if !self.joined {
            return self.take(member, head, now);
        }
        let mut rest = head;
        while let Some(start) = Stamp::position(rest) {
            self.take(member, &rest[start..], now)?;
            rest = &rest[start + PAYLOAD_BYTES_MIN..];
        }
        Ok(())
    }

    fn opened(&mut self, _member: usize, _waited: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::audience::To;
    use super::*;

    fn payload(sequence: u64) -> Vec<u8> {
        let mut payload = vec![0; PAYLOAD_BYTES_MIN];
        Stamp { sequence, sent: 5 }.put(&mut payload);
        payload
    }

    #[test]
    fn a_message_twice_or_out_of_order_is_found() {
        let mut receipts = Receipts::new(&Audience::new(To::Hub, 2, 0, 0).unwrap());
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

    #[test]
    fn messages_that_a_server_joined_are_all_found() {
        let mut receipts = Receipts::new(&Audience::new(To::Hub, 1, 0, 0).unwrap());
        receipts.joined = true;
        receipts.message(0, b"PING", 6).unwrap();
        let two = [b"MSG 18", &payload(0)[..], b"~ # MSG 18", &payload(1)[..], b"."].concat();
        receipts.message(0, &two, 7).unwrap();
        assert_eq!(receipts.delivered(), 2);
        let twice = receipts.message(0, &two, 8).unwrap_err().to_string();
        assert_eq!(twice, "message 0 came where 2 was due");
        let cut = [&payload(2)[..], b"~#"].concat();
        assert!(receipts.message(0, &cut, 9).is_err(), "a message without its end");
    }

    #[test]
    fn who_is_in_some_groups_gets_their_messages_alone() {
        // Three groups of two: 0 and 1, 2 and 3, 0 and 1.
        let mut receipts = Receipts::new(&Audience::new(To::Groups, 4, 3, 2).unwrap());
        for sequence in [0, 2, 3, 5, 6] {
            receipts.message(0, &payload(sequence), 6).unwrap();
        }
        receipts.message(2, &payload(1), 6).unwrap();
        let wrong = receipts.message(2, &payload(5), 6).unwrap_err().to_string();
        assert_eq!(wrong, "message 5 came where 4 was due");
    }

    #[test]
    fn a_list_is_as_json_writes_it() {
        let list = String::from_utf8(items(1_000)).unwrap();
        assert_eq!(list.len(), 1_000);
        assert_eq!(serde_json::to_string(&list).unwrap(), format!("\"{list}\""));
        assert!(!list.contains('~'), "that is where a stamp begins");
    }
}
