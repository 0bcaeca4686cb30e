//! What a socket has not taken yet: whole chunks of frames, shared with other receivers, and how far the first is written.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};

use bytes::Bytes;
use hookwire_proto::envelope::SequencedFrames;
use hookwire_proto::frame::{Header, Role};

/// Chunks per `writev`; more than a few gain nothing.
const CHUNKS_PER_WRITE_MAX: usize = 16;

/// Chunks in their order. Exists only while there are any.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    chunks: VecDeque<Chunk>,
    /// Bytes of the first chunk that the socket has taken.
    written: usize,
    /// All bytes that the socket has not taken.
    bytes: usize,
}

#[derive(Debug)]
struct Chunk {
    bytes: Bytes,
    /// It begins in the middle of a frame, of which the chunk before has the head.
    is_rest: bool,
}

/// What a flush came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flushed {
    /// Everything is written.
    All,
    /// The socket takes no more for now.
    Blocked,
}

impl Outbox {
    /// Returns an outbox with the rest of a chunk of which `written` bytes are out.
    pub(super) fn with_rest(chunk: Bytes, written: usize) -> Self {
        let bytes = chunk.len() - written;
        let chunk = Chunk { bytes: chunk, is_rest: false };
        Self { chunks: VecDeque::from([chunk]), written, bytes }
    }

    /// Returns an outbox with what is left of messages of which `written` bytes are out.
    pub(super) fn of_sequenced(frames: &SequencedFrames, mut written: usize) -> Self {
        let mut outbox = Self::default();
        let rest = frames.iter().skip_while(|(head, tail)| {
            let bytes = head.len() + tail.len();
            let is_out = bytes <= written;
            written -= if is_out { bytes } else { 0 };
            is_out
        });
        for (head, tail) in rest {
            outbox.push_sequenced(head, tail);
        }
        outbox.advance(written);
        outbox
    }

    /// Appends a message in two parts, of which one may be empty.
    pub(super) fn push_sequenced(&mut self, head: &[u8], tail: &Bytes) {
        if head.is_empty() {
            self.push(tail.clone());
            return;
        }
        self.push(Bytes::copy_from_slice(head));
        if !tail.is_empty() {
            self.push_rest(tail.clone());
        }
    }

    /// Appends whole frames, or a head whose rest follows.
    pub(super) fn push(&mut self, chunk: Bytes) {
        self.bytes += chunk.len();
        self.chunks.push_back(Chunk { bytes: chunk, is_rest: false });
    }

    /// Appends the rest of what the chunk before begins.
    pub(super) fn push_rest(&mut self, chunk: Bytes) {
        self.bytes += chunk.len();
        self.chunks.push_back(Chunk { bytes: chunk, is_rest: true });
    }

    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Writes until the socket blocks or nothing is left, inside the socket either. Adds what it wrote to `written_bytes`.
    ///
    /// # Errors
    /// The socket's error; it is of no further use.
    pub(super) fn flush(
        &mut self,
        socket: &mut impl Write,
        written_bytes: &mut u64,
    ) -> io::Result<Flushed> {
        loop {
            let Some(first) = self.chunks.front() else {
                match socket.flush() {
                    Ok(()) => return Ok(Flushed::All),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        return Ok(Flushed::Blocked);
                    }
                    Err(error) => return Err(error),
                }
            };
            let result = if self.chunks.len() == 1 {
                socket.write(&first.bytes[self.written..])
            } else {
                let mut slices = [IoSlice::new(&[]); CHUNKS_PER_WRITE_MAX];
                let mut skip = self.written;
                let mut used = 0;
                for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
                    *slice = IoSlice::new(&chunk.bytes[skip..]);
                    skip = 0;
                    used += 1;
                }
                socket.write_vectored(&slices[..used])
            };
            match result {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => {
                    *written_bytes += count as u64;
                    self.advance(count);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok(Flushed::Blocked);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Drops every frame of which nothing is written yet. A frame begun must be finished: its rest stays, and if it is in two chunks,
    /// what else is in them.
    pub(super) fn drop_frames_not_begun(&mut self) {
        let Some(first) = self.chunks.front_mut() else { return };
        let is_begun = first.is_rest || self.written != 0;
        if !is_begun {
            self.chunks.clear();
        } else if self.chunks.get(1).is_some_and(|second| second.is_rest) {
            self.chunks.truncate(2);
        } else {
            self.chunks.truncate(1);
            let first = &mut self.chunks[0];
            if !first.is_rest {
                first.bytes.truncate(frame_end(&first.bytes, self.written));
            }
        }
        self.bytes = self.chunks.iter().map(|chunk| chunk.bytes.len()).sum::<usize>();
        self.bytes -= self.written;
        if self.bytes == 0 {
            self.chunks.clear();
            self.written = 0;
        }
    }

    fn advance(&mut self, count: usize) {
        self.bytes -= count;
        self.written += count;
        while let Some(first) = self.chunks.front()
            && first.bytes.len() <= self.written
        {
            self.written -= first.bytes.len();
            self.chunks.pop_front();
        }
    }
}

/// Returns where the frame ends in whose middle `written` stands; `written` itself if it stands between frames.
fn frame_end(frames: &[u8], written: usize) -> usize {
    let mut end = 0;
    while end < written {
        // Our own frames, as a client reads them. Anything else would be a fault of ours: then the whole chunk stays.
        let Ok(Some((header, header_bytes))) = Header::parse(&frames[end..], Role::Client, true)
        else {
            return frames.len();
        };
        end += header_bytes
            + usize::try_from(header.payload_bytes).unwrap_or(usize::MAX - end - header_bytes);
    }
    end.min(frames.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use hookwire_proto::deflate::Deflater;
    use hookwire_proto::envelope::Content;
    use hookwire_proto::frame::{Opcode, encode};
    use hookwire_proto::message::Message;
    use hookwire_proto::subprotocol::Subprotocol;
    use proptest::prelude::*;

    /// Takes `room` bytes, at most `step` at a time, then blocks.
    struct Narrow {
        taken: Vec<u8>,
        room: usize,
        step: usize,
    }

    impl Write for Narrow {
        fn write(&mut self, data: &[u8]) -> io::Result<usize> {
            let count = data.len().min(self.room).min(self.step);
            if count == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.room -= count;
            self.taken.extend_from_slice(&data[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn every_byte_goes_out_once_and_in_order(
            lengths in proptest::collection::vec(1_usize..300, 1..80), rooms in proptest::collection::vec(1_usize..400, 1..20), step in 1_usize..200,
        ) {
            let mut outbox = Outbox::default();
            let mut expected = Vec::new();
            for (at, length) in lengths.iter().enumerate() {
                let chunk = vec![u8::try_from(at).unwrap(); *length];
                expected.extend_from_slice(&chunk);
                outbox.push(chunk.into());
            }
            let mut socket = Narrow { taken: Vec::new(), room: 0, step };
            let mut written_bytes = 0;
            let mut rooms = rooms.iter().cycle();
            loop {
                socket.room = *rooms.next().unwrap();
                if outbox.flush(&mut socket, &mut written_bytes).unwrap() == Flushed::All {
                    break;
                }
                prop_assert_eq!(outbox.bytes(), expected.len() - socket.taken.len());
            }
            prop_assert_eq!(written_bytes, expected.len() as u64);
            prop_assert_eq!(socket.taken, expected);
        }

        #[test]
        fn the_rest_of_messages_follows_what_is_written(
            lengths in proptest::collection::vec(0_usize..400, 1..20), written in 0_usize..8_000, step in 1_usize..300,
        ) {
            let (mut frames, mut deflater) = (SequencedFrames::default(), Deflater::default());
            for (id, length) in (1..).zip(&lengths) {
                let content = Content::new(Message::text("x".repeat(*length)));
                content.sequenced(Subprotocol::JsonReliable, id, None, &mut deflater, &mut frames);
                if length % 3 == 0 {
                    frames.push_whole(encode(Opcode::Text, b"alone", None));
                }
            }
            let all: Vec<u8> = frames.iter().flat_map(|(head, tail)| [head, tail].concat()).collect();
            let written = written.min(all.len() - 1);
            let mut outbox = Outbox::of_sequenced(&frames, written);
            prop_assert_eq!(outbox.bytes(), all.len() - written);
            let mut socket = Narrow { taken: Vec::new(), room: usize::MAX, step };
            outbox.flush(&mut socket, &mut 0).unwrap();
            prop_assert_eq!(socket.taken, &all[written..]);
        }

        #[test]
        fn dropping_keeps_exactly_the_frame_begun(
            payloads in proptest::collection::vec(0_usize..400, 1..12), joined in 1_usize..6, written in 0_usize..2_000,
        ) {
            let frames: Vec<Bytes> =
                payloads.iter().map(|length| encode(Opcode::Binary, &vec![1; *length], None)).collect();
            let mut outbox = Outbox::default();
            for chunk in frames.chunks(joined) {
                outbox.push(chunk.concat().into());
            }
            let mut socket = Narrow { taken: Vec::new(), room: written, step: usize::MAX };
            outbox.flush(&mut socket, &mut 0).unwrap();
            outbox.drop_frames_not_begun();
            socket.room = usize::MAX;
            outbox.flush(&mut socket, &mut 0).unwrap();
            let mut expected = Vec::new();
            for frame in frames {
                if written <= expected.len() {
                    break;
                }
                expected.extend_from_slice(&frame);
            }
            prop_assert_eq!(socket.taken, expected);
        }

        #[test]
        fn dropping_keeps_a_message_in_two_chunks_whole(
            payloads in proptest::collection::vec(0_usize..400, 1..12), head in 0_usize..4, written in 0_usize..2_000,
        ) {
            let mut outbox = Outbox::default();
            let mut kept = Vec::new();
            for length in payloads {
                let frame = encode(Opcode::Binary, &vec![0x81; length], None);
                let head = frame.len().min(2 + head);
                outbox.push(frame.slice(..head));
                if head < frame.len() {
                    outbox.push_rest(frame.slice(head..));
                }
                if kept.len() < written {
                    kept.extend_from_slice(&frame);
                }
            }
            let mut socket = Narrow { taken: Vec::new(), room: written, step: usize::MAX };
            outbox.flush(&mut socket, &mut 0).unwrap();
            outbox.drop_frames_not_begun();
            prop_assert_eq!(outbox.bytes(), kept.len() - socket.taken.len());
            socket.room = usize::MAX;
            outbox.flush(&mut socket, &mut 0).unwrap();
            prop_assert_eq!(socket.taken, kept);
        }
    }
}
