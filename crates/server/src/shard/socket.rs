//! What a shard keeps for a connection's socket.

use hookwire_proto::connection::{Connection, Incoming};
use hookwire_proto::frame::Role;

use super::outbox::Outbox;
use super::stream::Stream;

/// How far a socket is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Messages flow.
    Open,
    /// Our close frame is queued; the client's is awaited.
    CloseSent,
    /// Both close frames are there; the socket goes when ours is written.
    Finishing,
    /// The client broke the rules: after our close frame we end our direction and throw away what still comes.
    Lingering,
}

/// What is done about a client's silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Silence {
    /// Nothing.
    None,
    /// It is pinged.
    Ask,
    /// It has not answered.
    Gone,
}

/// One socket, or the place of one that is still with the HTTP side. While idle it owns no heap memory but that of TLS.
#[derive(Debug)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact of its own, and a byte is what it may cost"
)]
pub(super) struct Socket {
    /// `None` between admission and hand-over.
    pub(super) stream: Option<Stream>,
    pub(super) connection: Connection,
    /// Exists while anything waits to be written, inside the stream too.
    pub(super) outbox: Option<Box<Outbox>>,
    pub(super) phase: Phase,
    /// When the client last sent anything, in seconds since the shard started.
    pub(super) heard: u32,
    /// It was silent and has been pinged since.
    pub(super) is_asked: bool,
    /// There may be something to read.
    pub(super) readable: bool,
    /// The client has finished sending: read to the end.
    pub(super) read_closed: bool,
    /// The upstream is behind: do not read.
    pub(super) paused: bool,
    /// What was read of it and not looked at yet, since it was paused or has inflated enough for one turn.
    #[expect(
        clippy::box_collection,
        reason = "a vector would take three times the room while idle"
    )]
    pub(super) unread: Option<Box<Vec<u8>>>,
    /// So much was put in line at once that it is closed as one that does not read.
    pub(super) flooded: bool,
    /// What it has not taken is kept elsewhere and bounded there: it may be slow (reliable subprotocols).
    pub(super) is_patient: bool,
    /// Its connection has messages that it has not been given.
    pub(super) has_unsent: bool,
    /// Stands in the list of sockets to flush.
    pub(super) dirty: bool,
    /// The kernel takes no more until it says so.
    pub(super) blocked: bool,
}

impl Socket {
    /// Returns the place of a socket that is yet to come.
    pub(super) const fn expected(heard: u32, incoming: Incoming) -> Self {
        Self {
            stream: None,
            connection: Connection::with_incoming(Role::Server, incoming),
            outbox: None,
            phase: Phase::Open,
            heard,
            is_asked: false,
            readable: false,
            read_closed: false,
            paused: false,
            unread: None,
            flooded: false,
            is_patient: false,
            has_unsent: false,
            dirty: false,
            blocked: false,
        }
    }

    /// Whether there may be something to take in.
    pub(super) const fn has_input(&self) -> bool {
        self.readable || self.unread.is_some()
    }

    /// Returns what is done about the client's silence at this time, with a ping interval in seconds. Who is silent is asked first,
    /// however long that has been so: perhaps it is the shard that did not run.
    pub(super) fn silence(&mut self, seconds: u32, interval: u32) -> Silence {
        let silent = seconds.saturating_sub(self.heard);
        if silent < interval {
            return Silence::None;
        }
        if !self.is_asked {
            self.is_asked = true;
            // An interval more, from now on.
            self.heard = seconds.saturating_sub(interval);
            return Silence::Ask;
        }
        if silent < interval.saturating_mul(2) || self.readable {
            return Silence::Ask;
        }
        Silence::Gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_silent_is_asked_and_has_an_interval_to_answer() {
        let mut socket = Socket::expected(100, Incoming::Plain);
        let looks = [(119, Silence::None), (120, Silence::Ask), (139, Silence::Ask)];
        for (seconds, silence) in looks {
            assert_eq!(socket.silence(seconds, 20), silence, "{seconds}");
        }
        socket.readable = true;
        assert_eq!(socket.silence(140, 20), Silence::Ask, "its answer may lie there");
        socket.readable = false;
        assert_eq!(socket.silence(140, 20), Silence::Gone);
    }

    #[test]
    fn nobody_is_gone_without_having_been_asked() {
        let mut socket = Socket::expected(100, Incoming::Plain);
        assert_eq!(socket.silence(1_000, 20), Silence::Ask);
        assert_eq!(socket.silence(1_019, 20), Silence::Ask);
        socket.is_asked = false;
        assert_eq!(socket.silence(1_030, 20), Silence::Ask, "the shard did not run");
        assert_eq!(socket.silence(1_049, 20), Silence::Ask);
        assert_eq!(socket.silence(1_050, 20), Silence::Gone);
    }
}
