//! From effects to sockets: queues, runs, flushes, and what becomes of clients that do not read.

use std::io::{self, Write};

use bytes::Bytes;
use hookwire_hub::{Ending, Slot};
use hookwire_proto::frame::CloseCode;

use super::outbox::{Flushed, Outbox};
use super::runs::Closed;
use super::socket::Phase;
use super::stream::Stream;
use super::{FLUSHES_PER_TURN_MAX, Shard, TURN_BYTES_MAX, mark_dirty};

/// How many times as much as may stay unread may be put in line for one connection in a turn.
const FLOOD_FACTOR: usize = 8;

impl Shard {
    /// Puts frames in line for a connection. Nothing follows a close frame.
    pub(super) fn queue(&mut self, slot: Slot, frames: Bytes, messages: u64) {
        self.queue_parts(slot, [frames, Bytes::new()], messages);
    }

    /// Puts frames that are in two parts in line; the second may be empty.
    fn queue_parts(&mut self, slot: Slot, [head, tail]: [Bytes; 2], messages: u64) {
        let Some(Some(socket)) = self.sockets.get_mut(slot.0 as usize) else { return };
        if socket.phase != Phase::Open {
            return;
        }
        let outbox = socket.outbox.get_or_insert_default();
        if FLOOD_FACTOR * self.limits.patient_bytes_max < outbox.bytes() {
            socket.flooded = true;
        } else {
            self.count.deliveries += messages;
            self.count.queue_bytes += (head.len() + tail.len()) as u64;
            outbox.push(head);
            if !tail.is_empty() {
                outbox.push_rest(tail);
            }
        }
        mark_dirty(socket, slot, &mut self.dirty);
    }

    /// Puts what a reliable connection has not been sent yet in line.
    pub(super) fn queue_unsent(&mut self, slot: Slot) {
        let mut messages = std::mem::take(&mut self.spare_messages);
        self.hub.take_unsent(slot, &mut self.deflater, &mut messages);
        for message in messages.drain(..) {
            self.queue_parts(slot, message, 1);
        }
        self.spare_messages = messages;
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
                    let written = match stream.write(&chunk) {
                        Ok(written) => written,
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                        Err(_) => {
                            self.lost.push(*slot);
                            continue;
                        }
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

    /// Writes what waits, up to [`FLUSHES_PER_TURN_MAX`] sockets and [`TURN_BYTES_MAX`].
    pub(super) fn flush(&mut self) {
        self.write_runs();
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
