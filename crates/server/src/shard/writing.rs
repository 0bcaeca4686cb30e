//! From effects to sockets: queues, runs, flushes, and what becomes of clients that do not read.

use std::io::{self, IoSlice, Write};

use bytes::Bytes;
use hookwire_hub::{Ending, Slot};
use hookwire_proto::frame::CloseCode;
use smallvec::SmallVec;

use super::outbox::{Flushed, Outbox};
use super::runs::Closed;
use super::socket::Phase;
use super::stream::Stream;
use super::{FLUSHES_PER_TURN_MAX, Shard, TURN_BYTES_MAX, mark_dirty};

/// Slices of one `writev` to a reliable connection: as many messages as a burst has, each with its head and its tail.
const SLICES_PER_WRITE_MAX: usize = 64;

/// How many times as much as may stay unread may be put in line for one connection in a turn.
const FLOOD_FACTOR: usize = 8;

impl Shard {
    /// Puts frames in line for a connection, behind what it has not been sent yet. Nothing follows a close frame.
    pub(super) fn queue(&mut self, slot: Slot, frames: Bytes, messages: u64) {
        if self.socket(slot).is_some_and(|socket| socket.has_unsent) {
            self.queue_unsent(slot);
        }
        self.push(slot, frames.len(), messages, |outbox| outbox.push(frames));
    }

    /// Has `push` put so many bytes in line for a connection.
    fn push(&mut self, slot: Slot, bytes: usize, messages: u64, push: impl FnOnce(&mut Outbox)) {
        let Some(Some(socket)) = self.sockets.get_mut(slot.0 as usize) else { return };
        if socket.phase != Phase::Open {
            return;
        }
        let outbox = socket.outbox.get_or_insert_default();
        if FLOOD_FACTOR * self.limits.patient_bytes_max < outbox.bytes() {
            socket.flooded = true;
        } else {
            self.count.deliveries += messages;
            self.count.queue_bytes += bytes as u64;
            push(outbox);
        }
        mark_dirty(socket, slot, &mut self.dirty);
    }

    /// Notes that reliable connections have messages. They stay with the hub until the end of the turn, or until something else is put
    /// in line for one of them.
    pub(super) fn mark_unsent(&mut self, slots: &[Slot]) {
        for slot in slots {
            if let Some(Some(socket)) = self.sockets.get_mut(slot.0 as usize)
                && !std::mem::replace(&mut socket.has_unsent, true)
            {
                self.unsent.push(*slot);
            }
        }
    }

    /// Puts what a reliable connection has not been sent yet in line.
    fn queue_unsent(&mut self, slot: Slot) {
        if let Some(socket) = self.socket(slot) {
            socket.has_unsent = false;
        }
        let mut frames = std::mem::take(&mut self.spare_frames);
        self.hub.take_unsent(slot, &mut self.deflater, &mut frames);
        for (head, tail) in frames.iter() {
            self.push(slot, head.len() + tail.len(), 1, |outbox| outbox.push_sequenced(head, tail));
        }
        frames.clear();
        self.spare_frames = frames;
    }

    /// Puts what reliable connections have not been sent yet in line.
    pub(super) fn queue_all_unsent(&mut self) {
        while let Some(slot) = self.unsent.pop() {
            if self.socket(slot).is_some_and(|socket| socket.has_unsent) {
                self.queue_unsent(slot);
            }
        }
    }

    /// Puts the open runs in line for their members.
    pub(super) fn close_runs(&mut self) {
        let Some(Closed { set, except, parts }) = self.runs.close() else { return };
        for (form, run) in parts {
            let messages = run.messages;
            let chunk = run.into_chunk();
            for slot in self.hub.members(set, form) {
                let Some(Some(socket)) = self.sockets.get_mut(slot.0 as usize) else { continue };
                if socket.phase == Phase::Open && !except.contains(slot) {
                    self.count.deliveries += messages;
                    self.count.queue_bytes += chunk.len() as u64;
                    socket.outbox.get_or_insert_default().push(chunk.clone());
                    mark_dirty(socket, *slot, &mut self.dirty);
                }
            }
        }
    }

    /// Writes the open runs straight to their members, as far as nothing else waits for them. The end of a turn.
    pub(super) fn write_runs(&mut self) {
        let Some(Closed { set, except, parts }) = self.runs.close() else { return };
        for (form, run) in parts {
            let messages = run.messages;
            let chunk = run.into_chunk();
            let members = self.hub.members(set, form);
            let at_once = members.len() <= FLUSHES_PER_TURN_MAX;
            for slot in members {
                let Some(Some(socket)) = self.sockets.get_mut(slot.0 as usize) else { continue };
                if socket.phase != Phase::Open || except.contains(slot) {
                    continue;
                }
                self.count.deliveries += messages;
                // What TLS encrypts may wait inside it, so it always has an outbox.
                if let (true, None, false, Some(Stream::Plain(stream))) =
                    (at_once, &socket.outbox, socket.blocked, &mut socket.stream)
                {
                    let Ok(written) = taken(stream.write(&chunk)) else {
                        self.lost.push(*slot);
                        continue;
                    };
                    self.count.bytes_out += written as u64;
                    if written == chunk.len() {
                        continue;
                    }
                    self.count.queue_bytes += (chunk.len() - written) as u64;
                    socket.outbox = Some(Box::new(Outbox::with_rest(chunk.clone(), written)));
                } else {
                    self.count.queue_bytes += chunk.len() as u64;
                    socket.outbox.get_or_insert_default().push(chunk.clone());
                }
                mark_dirty(socket, *slot, &mut self.dirty);
            }
        }
    }

    /// Writes what reliable connections have not been sent yet straight to them, as far as nothing else waits for them. The end of a
    /// turn.
    pub(super) fn write_unsent(&mut self) {
        if FLUSHES_PER_TURN_MAX < self.unsent.len() {
            self.queue_all_unsent();
            return;
        }
        let mut unsent = std::mem::take(&mut self.unsent);
        let mut frames = std::mem::take(&mut self.spare_frames);
        for slot in unsent.drain(..) {
            let Some(Some(socket)) = self.sockets.get_mut(slot.0 as usize) else { continue };
            // Otherwise it was queued meanwhile, or the socket is a new one that is given everything when it comes.
            if !std::mem::take(&mut socket.has_unsent) || socket.phase != Phase::Open {
                continue;
            }
            let (None, false, Some(Stream::Plain(stream))) =
                (&socket.outbox, socket.blocked, &mut socket.stream)
            else {
                self.queue_unsent(slot);
                continue;
            };
            self.hub.take_unsent(slot, &mut self.deflater, &mut frames);
            self.count.deliveries += frames.len() as u64;
            let result = if frames.is_empty() {
                Ok(0)
            } else {
                let parts = frames.iter().flat_map(|(head, tail)| [head, &**tail]);
                let slices: SmallVec<[IoSlice<'_>; SLICES_PER_WRITE_MAX]> =
                    parts.take(SLICES_PER_WRITE_MAX).map(IoSlice::new).collect();
                stream.write_vectored(&slices)
            };
            let bytes = frames.bytes();
            match taken(result) {
                Ok(written) => {
                    self.count.bytes_out += written as u64;
                    if written != bytes {
                        self.count.queue_bytes += (bytes - written) as u64;
                        let outbox = Outbox::of_sequenced(&frames, written);
                        socket.outbox = Some(Box::new(outbox));
                        mark_dirty(socket, slot, &mut self.dirty);
                    }
                }
                Err(_) => self.lost.push(slot),
            }
            frames.clear();
        }
        self.unsent = unsent;
        self.spare_frames = frames;
    }

    /// Writes what waits, up to [`FLUSHES_PER_TURN_MAX`] sockets and [`TURN_BYTES_MAX`].
    pub(super) fn flush(&mut self) {
        self.write_runs();
        self.write_unsent();
        let enough = self.count.bytes_out + TURN_BYTES_MAX as u64;
        for _ in 0..FLUSHES_PER_TURN_MAX.min(self.dirty.len()) {
            if enough < self.count.bytes_out {
                break;
            }
            let Some(slot) = self.dirty.pop_front() else { break };
            self.flush_one(slot);
        }
    }

    pub(super) fn flush_one(&mut self, slot: Slot) {
        let Some(Some(socket)) = self.sockets.get_mut(slot.0 as usize) else { return };
        socket.dirty = false;
        let (Some(stream), Some(outbox)) = (&mut socket.stream, &mut socket.outbox) else { return };
        if socket.flooded {
            socket.flooded = false;
            self.close_slow_consumer(slot);
            return;
        }
        let before = outbox.bytes() + stream.unsent();
        if socket.blocked {
            // The kernel will say when it takes more; until then there is only more to judge.
            self.judge(slot, before);
            return;
        }
        let flushed = outbox.flush(stream, &mut self.count.bytes_out);
        let left = outbox.bytes() + stream.unsent();
        self.count.queue_bytes -= (before - left) as u64;
        match flushed {
            Ok(Flushed::All) => {
                socket.outbox = None;
                self.slow.remove(&slot);
                match socket.phase {
                    Phase::Open | Phase::CloseSent => {}
                    Phase::Finishing => {
                        self.lost.push(slot);
                    }
                    // The client sees the close frame, then the end of the stream; it can't be cut off by a reset.
                    Phase::Lingering => {
                        if stream.finish().is_err() {
                            self.lost.push(slot);
                        }
                    }
                }
            }
            Ok(Flushed::Blocked) => {
                socket.blocked = true;
                self.judge(slot, left);
            }
            Err(_) => self.lost.push(slot),
        }
    }

    /// Decides about a client that did not take everything.
    pub(super) fn judge(&mut self, slot: Slot, left: usize) {
        if self.socket(slot).is_some_and(|socket| socket.is_patient) {
            // Its messages are bounded by its recovery buffer; what is left are the answers to what it asks for and does not read.
            if self.limits.patient_bytes_max < left {
                self.close_slow_consumer(slot);
            }
            return;
        }
        if self.limits.outbox_bytes_max < left {
            self.close_slow_consumer(slot);
        } else if self.limits.slow_bytes_max < left {
            self.slow.entry(slot).or_insert(self.now + self.limits.slow_time_max);
        } else {
            self.slow.remove(&slot);
        }
    }

    pub(super) fn close_slow_consumer(&mut self, slot: Slot) {
        let Some(Some(socket)) = self.sockets.get_mut(slot.0 as usize) else { return };
        if socket.phase != Phase::Open {
            return;
        }
        self.count.slow_consumers += 1;
        if let Some(outbox) = &mut socket.outbox {
            let before = outbox.bytes();
            outbox.drop_frames_not_begun();
            self.count.queue_bytes -= (before - outbox.bytes()) as u64;
        }
        // Client libraries take this code as the end, so the connection need not wait for them.
        self.end(slot, CloseCode::POLICY, Ending::Final("SlowClient".into()));
    }
}

/// Returns what a socket took, which may be nothing for now.
fn taken(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error)
            if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) =>
        {
            Ok(0)
        }
        result => result,
    }
}
