//! From sockets to inputs: hand-over, reads, messages, control frames.

use std::io;

use hookwire_hub::{Ending, Input, Slot};
use hookwire_proto::connection::Event;
use hookwire_proto::envelope::{Content, Shape, WireForm};
use hookwire_proto::frame::{CloseCode, CloseFrame, Opcode, encode};
use hookwire_proto::message::Message;
use hookwire_proto::name::ConnectionId;
use mio::{Interest, Token};

use super::socket::Phase;
use super::stream::{CIPHERTEXT_BYTES_MAX, Stream, Taken, TlsStream};
use super::{CLOSE_TIME_MAX, Expected, INFLATED_BYTES_PER_TURN_MAX, Shard, mark_dirty};
use crate::shards::Upgraded;

impl Shard {
    pub(super) fn attach(&mut self, id: &ConnectionId, upgraded: Upgraded) {
        let Upgraded { socket, tls, leftover } = upgraded;
        let Some(Expected { slot, .. }) = self.awaiting_socket.remove(id) else {
            tracing::error!(%id, "a socket came for a connection that expects none");
            return;
        };
        let socket = mio::net::TcpStream::from_std(socket);
        let mut stream = match tls {
            None => Stream::Plain(socket),
            Some(session) => {
                if self.ciphertext.is_empty() {
                    self.ciphertext = vec![0; CIPHERTEXT_BYTES_MAX].into_boxed_slice();
                }
                Stream::Tls(Box::new(TlsStream::new(socket, session)))
            }
        };
        let token = Token(slot.0 as usize);
        let interests = Interest::READABLE | Interest::WRITABLE;
        if let Err(error) = self.poll.registry().register(stream.socket_mut(), token, interests) {
            tracing::warn!(%id, %error, "epoll refused a socket");
            self.lost.push(slot);
            return;
        }
        let seconds = self.seconds();
        let Some(Some(socket)) = self.sockets.get_mut(slot.0 as usize) else { return };
        if stream.wants_flush() {
            socket.outbox.get_or_insert_default();
        }
        socket.stream = Some(stream);
        socket.heard = seconds;
        // Whatever came before the registration is told by no event.
        socket.readable = true;
        let closing = socket.phase != Phase::Open;
        if socket.outbox.is_some() {
            mark_dirty(socket, slot, &mut self.dirty);
        }
        self.count.bytes_in += leftover.len() as u64;
        socket.unread = (!leftover.is_empty()).then(|| Box::new(leftover.to_vec()));
        self.ready.push_back(slot);
        if closing {
            self.closing.insert(slot, self.now + CLOSE_TIME_MAX);
        }
    }

    /// Whether clients may be read at all.
    pub(super) fn may_read(&self) -> bool {
        !self.shared.pressure.is_high() && !self.hub.is_behind()
    }

    /// Reads once from each socket that has something.
    pub(super) fn read_ready(&mut self) {
        if !self.may_read() {
            return;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut ciphertext = std::mem::take(&mut self.ciphertext);
        for _ in 0..self.ready.len() {
            let Some(slot) = self.ready.pop_front() else { break };
            let Some(Some(socket)) = self.sockets.get_mut(slot.0 as usize) else { continue };
            if socket.paused {
                continue;
            }
            if let Some(mut unread) = socket.unread.take() {
                self.ready.push_back(slot);
                self.take_in(slot, &mut unread);
                continue;
            }
            if !socket.readable {
                continue;
            }
            let Some(stream) = &mut socket.stream else { continue };
            match stream.read(&mut scratch, &mut ciphertext) {
                Ok(Taken { is_end: true, .. }) => {
                    socket.readable = false;
                    self.lost.push(slot);
                }
                Ok(Taken { bytes, is_full, .. }) => {
                    // A short read has emptied the socket (epoll(7)), but it does not show that the peer has finished.
                    let is_readable = is_full || socket.read_closed;
                    socket.readable = is_readable;
                    if stream.wants_flush() {
                        socket.outbox.get_or_insert_default();
                        mark_dirty(socket, slot, &mut self.dirty);
                    }
                    if bytes != 0 {
                        self.receive(slot, &mut scratch[..bytes]);
                    }
                    if is_readable || self.socket(slot).is_some_and(|one| one.unread.is_some()) {
                        self.ready.push_back(slot);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    socket.readable = false;
                    if socket.read_closed {
                        self.lost.push(slot);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                    self.ready.push_back(slot);
                }
                Err(_) => {
                    socket.readable = false;
                    self.lost.push(slot);
                }
            }
        }
        self.scratch = scratch;
        self.ciphertext = ciphertext;
    }

    /// Takes bytes in as they came from the socket.
    pub(super) fn receive(&mut self, slot: Slot, input: &mut [u8]) {
        let seconds = self.seconds();
        self.count.bytes_in += input.len() as u64;
        if let Some(socket) = self.socket(slot) {
            socket.heard = seconds;
            socket.is_asked = false;
        }
        self.take_in(slot, input);
    }

    /// Acts on what bytes of a client complete, until it is paused or has inflated enough; the rest waits.
    fn take_in(&mut self, slot: Slot, mut input: &mut [u8]) {
        let mut events = std::mem::take(&mut self.events);
        self.inflation.budget = INFLATED_BYTES_PER_TURN_MAX;
        while !input.is_empty() {
            let Some(Some(socket)) = self.sockets.get_mut(slot.0 as usize) else { break };
            if socket.phase == Phase::Lingering {
                break;
            }
            if socket.paused || self.inflation.budget == 0 {
                socket.unread = Some(Box::new(input.to_vec()));
                // It is not its client that is late.
                self.incomplete.remove(&slot);
                break;
            }
            let before = socket.connection.held_bytes();
            let message_bytes_max = self.limits.message_bytes_max;
            let result = socket.connection.handle_some(
                input,
                message_bytes_max,
                &mut self.inflation,
                &mut events,
            );
            let after = socket.connection.held_bytes();
            self.incomplete_bytes = self.incomplete_bytes + after - before;
            if after == 0 {
                if before != 0 {
                    self.incomplete.remove(&slot);
                }
            } else if !self.incomplete.contains_key(&slot)
                || events.iter().any(|event| matches!(event, Event::Message(_)))
            {
                self.incomplete.insert(slot, self.now + self.limits.incomplete_time_max);
            }
            for event in events.drain(..) {
                self.client_event(slot, event);
            }
            match result {
                Ok(used) => {
                    input = &mut input[used..];
                    if self.limits.incomplete_bytes_max < self.incomplete_bytes && after != 0 {
                        let largest = self.largest_incomplete(slot);
                        let reason = "too many unfinished messages";
                        self.fail(largest, CloseCode::POLICY, reason.into());
                    }
                }
                Err(error) => {
                    self.count.protocol_errors += 1;
                    tracing::debug!(%error, "a client broke the protocol");
                    self.fail(slot, error.close_code(), error.to_string().into());
                    break;
                }
            }
        }
        self.events = events;
    }

    /// Returns which connection keeps most of a message that is not whole: `slot` itself, or one whose client is late.
    fn largest_incomplete(&self, slot: Slot) -> Slot {
        let held = |slot: &Slot| {
            let socket = self.sockets.get(slot.0 as usize).and_then(Option::as_ref);
            socket.map_or(0, |socket| socket.connection.held_bytes())
        };
        self.incomplete.keys().copied().chain([slot]).max_by_key(held).unwrap_or(slot)
    }

    pub(super) fn client_event(&mut self, slot: Slot, event: Event) {
        let Some(Some(socket)) = self.sockets.get_mut(slot.0 as usize) else { return };
        let open = socket.phase == Phase::Open;
        match event {
            Event::Message(message) => {
                self.count.messages_in += 1;
                if open {
                    self.message(slot, message);
                }
            }
            Event::Ping(payload) => {
                if open {
                    self.close_runs();
                    self.queue(slot, encode(Opcode::Pong, &payload, None), 0);
                }
            }
            Event::Pong => {}
            Event::Close(_) if !open => self.lost.push(slot),
            Event::Close(frame) => {
                self.close_runs();
                let code = frame.as_ref().map(|frame| frame.code.get());
                let payload =
                    frame.map(|frame| CloseFrame { reason: String::new(), ..frame }.to_payload());
                self.queue(slot, encode(Opcode::Close, &payload.unwrap_or_default(), None), 0);
                self.set_closing(slot, Phase::Finishing);
                self.handle(Input::Ended { slot, ending: Ending::ClosedByClient(code) });
            }
        }
    }

    pub(super) fn message(&mut self, slot: Slot, message: Message) {
        if self.limits.echo {
            self.close_runs();
            let deflate = self.hub.deflate(slot);
            let form = WireForm { shape: Shape::AsSent, deflate };
            let frames = Content::new(message).frames(form, &mut self.deflater).clone();
            self.queue(slot, frames, 1);
        } else {
            self.handle(Input::Request { slot, message });
        }
    }
}
