//! Sequence ids: what has arrived, and telling the service so.

use std::time::{Duration, Instant};

/// Which messages of a reliable connection have arrived (Web PubSub protocol, "Reliable protocols and recovery").
#[derive(Debug, Default)]
pub(super) struct Sequence {
    /// The largest id seen; ids count from 1.
    largest: u64,
    /// The largest id that the service was told of.
    told: u64,
    /// When it is told next.
    due: Option<Instant>,
}

/// What to do with a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is new.
    New,
    /// It is new and the service has to be told at once.
    NewAndDue,
    /// It came before.
    Duplicate,
}

impl Sequence {
    /// Notes a message.
    pub(super) fn handle_message(&mut self, now: Instant, id: u64) -> Verdict {
        // Of a duplicate too: that it was sent again means that the service does not know.
        self.due.get_or_insert(now + ACK_INTERVAL);
        if id <= self.largest {
            return Verdict::Duplicate;
        }
        self.largest = id;
        if UNTOLD_MAX < self.largest - self.told { Verdict::NewAndDue } else { Verdict::New }
    }

    /// Returns when the service is to be told.
    pub(super) const fn poll_timeout(&self) -> Option<Instant> {
        self.due
    }

    /// Returns the id to tell the service of now.
    pub(super) fn tell(&mut self) -> u64 {
        self.due = None;
        self.told = self.largest;
        self.largest
    }

    /// The transport is gone: nobody can be told.
    pub(super) fn pause(&mut self) {
        self.due = None;
    }

    /// Returns the id to tell the service of when the transport is back; nothing if nothing ever came.
    pub(super) fn resume(&mut self) -> Option<u64> {
        (self.largest != 0).then(|| self.tell())
    }
}

/// How long the service waits to be told what has arrived.
const ACK_INTERVAL: Duration = Duration::from_secs(1);

/// Most messages that the service is not told of. One more and it is told at once.
const UNTOLD_MAX: u64 = 300;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_is_told_after_a_second_or_301_messages() {
        let (mut sequence, now) = (Sequence::default(), Instant::now());
        assert_eq!((sequence.poll_timeout(), sequence.resume()), (None, None));
        assert_eq!(sequence.handle_message(now, 1), Verdict::New);
        let later = now + Duration::from_millis(400);
        assert_eq!(sequence.handle_message(later, 2), Verdict::New);
        assert_eq!(sequence.poll_timeout(), Some(now + ACK_INTERVAL), "the first one decides");
        assert_eq!((sequence.tell(), sequence.poll_timeout()), (2, None));
        for id in 3..=302 {
            assert_eq!(sequence.handle_message(now, id), Verdict::New, "{id}");
        }
        assert_eq!(sequence.handle_message(now, 303), Verdict::NewAndDue);
    }

    #[test]
    fn what_comes_again_is_told_again() {
        let (mut sequence, now) = (Sequence::default(), Instant::now());
        sequence.handle_message(now, 7);
        assert_eq!(sequence.tell(), 7);
        for id in [1, 7] {
            assert_eq!(sequence.handle_message(now, id), Verdict::Duplicate);
        }
        assert_eq!((sequence.poll_timeout(), sequence.tell()), (Some(now + ACK_INTERVAL), 7));
        sequence.handle_message(now, 8);
        sequence.pause();
        assert_eq!((sequence.poll_timeout(), sequence.resume()), (None, Some(8)));
    }
}
