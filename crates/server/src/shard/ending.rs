//! How connections and sockets end.

use std::borrow::Cow;
use std::sync::atomic::Ordering;
use std::time::Duration;

use hookwire_hub::{Ending, Input, Slot};
use hookwire_proto::connection::Connection;
use hookwire_proto::frame::{CloseCode, CloseFrame, Opcode, Role, encode};

use super::socket::Phase;
use super::stream::Stream;
use super::{CLOSE_TIME_MAX, SHUTTING_DOWN, Shard};

impl Shard {
    /// Ends a connection from our side: out of the hub, a close frame, then the socket.
    pub(super) fn end(&mut self, slot: Slot, code: CloseCode, ending: Ending) {
        self.close_runs();
        let reason = match &ending {
            Ending::Final(reason) | Ending::GivenUp(reason) => reason.to_string(),
            Ending::ClosedByClient(_) => String::new(),
        };
        self.begin_close(slot, code, reason);
        self.handle(Input::Ended { slot, ending });
    }

    /// Ends a connection whose client can't be trusted to end the handshake: what it still sends is thrown away.
    pub(super) fn fail(&mut self, slot: Slot, code: CloseCode, reason: Cow<'static, str>) {
        self.end(slot, code, Ending::Final(reason));
        let Some(Some(socket)) = self.sockets.get_mut(slot.0 as usize) else { return };
        if socket.phase == Phase::CloseSent {
            socket.phase = Phase::Lingering;
            // Nothing of it is read any more, so what it left unfinished is given back at once.
            self.incomplete_bytes -= socket.connection.held_bytes();
            socket.connection = Connection::new(Role::Server);
            self.incomplete.remove(&slot);
        }
    }

    pub(super) fn begin_close(&mut self, slot: Slot, code: CloseCode, reason: String) {
        self.queue(slot, encode(Opcode::Close, &CloseFrame { code, reason }.to_payload(), None), 0);
        self.set_closing(slot, Phase::CloseSent);
    }

    pub(super) fn set_closing(&mut self, slot: Slot, phase: Phase) {
        let deadline = self.now + CLOSE_TIME_MAX;
        if let Some(Some(socket)) = self.sockets.get_mut(slot.0 as usize)
            && socket.phase == Phase::Open
        {
            socket.phase = phase;
            socket.paused = false;
            if socket.has_input() {
                self.ready.push_back(slot);
            }
            if socket.stream.is_some() {
                self.closing.insert(slot, deadline);
            }
            self.slow.remove(&slot);
        }
    }

    /// Throws the socket of a connection away whose client comes with another.
    pub(super) fn replace_socket(&mut self, slot: Slot) {
        self.reset(slot);
        self.discard(slot);
        self.lost.retain(|lost| *lost != slot);
    }

    /// Throws a socket away without ceremony.
    pub(super) fn reset(&mut self, slot: Slot) {
        if let Some(socket) = self.socket(slot)
            && let Some(stream) = &socket.stream
        {
            // Failing to set it only means that the kernel says goodbye more politely.
            let _ = socket2::SockRef::from(stream.socket()).set_linger(Some(Duration::ZERO));
        }
        self.lost.push(slot);
    }

    pub(super) fn forget_lost(&mut self) {
        while let Some(slot) = self.lost.pop() {
            if self.socket(slot).is_some() {
                self.discard(slot);
                if self.is_draining {
                    // Nobody can come back.
                    let ending = Ending::Final(SHUTTING_DOWN.into());
                    self.handle(Input::Ended { slot, ending });
                }
                self.handle(Input::Released { slot });
            }
        }
    }

    /// Takes a socket and everything about it out of the shard.
    fn discard(&mut self, slot: Slot) {
        self.close_runs();
        let Some(mut socket) = self.sockets.get_mut(slot.0 as usize).and_then(Option::take) else {
            return;
        };
        self.incomplete_bytes -= socket.connection.held_bytes();
        let in_line = socket.outbox.as_ref().map_or(0, |outbox| outbox.bytes());
        let unsent = socket.stream.as_ref().map_or(0, Stream::unsent);
        self.count.queue_bytes -= (in_line + unsent) as u64;
        if let Some(stream) = &mut socket.stream {
            stream.say_goodbye();
        }
        self.closing.remove(&slot);
        self.slow.remove(&slot);
        self.incomplete.remove(&slot);
        drop(socket);
        self.mailbox().load.fetch_sub(1, Ordering::Relaxed);
    }
}
