//! The WebSocket of a tunnel: frames over a byte stream.

use std::io;

use bytes::{Bytes, BytesMut};
use hookwire_proto::connection::{Connection, Event};
use hookwire_proto::frame::{CloseCode, CloseFrame, Header, Opcode, Role};
use hookwire_proto::tunnel::MESSAGE_BYTES_MAX;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

/// Read at once at most, in bytes.
const READ_BYTES: usize = 16 * 1024;

/// Nothing more is taken to be written while so many bytes wait.
const OUTPUT_BYTES_MAX: usize = 1024 * 1024;

/// The incoming half.
#[derive(Debug)]
pub(super) struct Reader {
    stream: ReadHalf<TokioIo<Upgraded>>,
    frames: Connection,
    buffer: Box<[u8]>,
}

/// The outgoing half.
#[derive(Debug)]
pub(super) struct Writer {
    stream: WriteHalf<TokioIo<Upgraded>>,
    output: BytesMut,
    /// Bytes that were ever appended.
    appended: u64,
    is_dirty: bool,
    is_closing: bool,
}

/// What came.
#[derive(Debug)]
pub(super) enum Incoming {
    /// Frames, perhaps none that is whole.
    Events(Vec<Event>),
    /// Frames, and then something that WebSocket forbids.
    Violation(Vec<Event>, CloseCode),
    /// The stream is at its end.
    End,
}

/// Takes a stream after the handshake.
pub(super) fn open(stream: Upgraded) -> (Reader, Writer) {
    let (reader, writer) = tokio::io::split(TokioIo::new(stream));
    let reader = Reader {
        stream: reader,
        frames: Connection::new(Role::Server),
        buffer: vec![0; READ_BYTES].into_boxed_slice(),
    };
    let output = BytesMut::new();
    (reader, Writer { stream: writer, output, appended: 0, is_dirty: false, is_closing: false })
}

impl Reader {
    /// Waits for bytes. Cancel-safe: a dropped future has taken none.
    pub(super) async fn read(&mut self) -> Incoming {
        let read = match self.stream.read(&mut self.buffer).await {
            Ok(0) | Err(_) => return Incoming::End,
            Ok(read) => read,
        };
        let mut events = Vec::new();
        let input = &mut self.buffer[..read];
        match self.frames.handle_input(input, MESSAGE_BYTES_MAX, &mut events) {
            Ok(()) => Incoming::Events(events),
            Err(error) => Incoming::Violation(events, error.close_code()),
        }
    }
}

impl Writer {
    /// Whether there is something to write.
    pub(super) fn is_busy(&self) -> bool {
        !self.output.is_empty() || self.is_dirty
    }

    /// Whether more should wait until something was written.
    pub(super) fn is_full(&self) -> bool {
        OUTPUT_BYTES_MAX <= self.output.len()
    }

    /// Whether so much waits that nothing should be read, since what is read may be answered. Requests of the service alone never
    /// make it so: an upstream may take no more of them until its answers are read.
    pub(super) fn is_overfull(&self) -> bool {
        OUTPUT_BYTES_MAX + 2 * MESSAGE_BYTES_MAX <= self.output.len()
    }

    /// Whether a close frame was appended, after which nothing is.
    pub(super) const fn is_closing(&self) -> bool {
        self.is_closing
    }

    /// Returns where the output ends, in bytes since the beginning.
    pub(super) const fn end(&self) -> u64 {
        self.appended
    }

    /// Returns how much of the output was written, in bytes since the beginning.
    pub(super) fn written(&self) -> u64 {
        self.appended - self.output.len() as u64
    }

    /// Writes a part of what there is. Cancel-safe: what was not written stays.
    pub(super) async fn write(&mut self) -> io::Result<()> {
        if self.output.is_empty() {
            self.stream.flush().await?;
            self.is_dirty = false;
            return Ok(());
        }
        if self.stream.write_buf(&mut self.output).await? == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        self.is_dirty = true;
        if self.output.is_empty() {
            // A long message's memory is given back.
            self.output = BytesMut::new();
        }
        Ok(())
    }

    /// Appends a frame of the tunnel.
    pub(super) fn put_message(&mut self, message: &Bytes) {
        self.put(Opcode::Binary, message);
    }

    /// Appends a ping.
    pub(super) fn put_ping(&mut self) {
        self.put(Opcode::Ping, b"");
    }

    /// Appends a pong.
    pub(super) fn put_pong(&mut self, payload: &[u8]) {
        self.put(Opcode::Pong, payload);
    }

    /// Appends a close frame, after which nothing is appended any more.
    pub(super) fn put_close(&mut self, code: Option<CloseCode>, reason: &str) {
        let frame = code.map(|code| CloseFrame { code, reason: reason.to_owned() }.to_payload());
        self.put(Opcode::Close, &frame.unwrap_or_default());
        self.is_closing = true;
    }

    fn put(&mut self, opcode: Opcode, payload: &[u8]) {
        if self.is_closing {
            return;
        }
        let before = self.output.len();
        let payload_bytes = payload.len() as u64;
        Header { fin: true, compressed: false, opcode, mask: None, payload_bytes }
            .put(&mut self.output);
        self.output.extend_from_slice(payload);
        self.appended += (self.output.len() - before) as u64;
    }
}
