//! An open WebSocket: frames over a byte stream.

use std::io;

use bytes::BytesMut;
use hookwire_proto::connection::{Connection, Event};
use hookwire_proto::frame::{self, CloseCode, CloseFrame, Opcode, Role};
use hookwire_proto::message::Message;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use super::dial::random;

/// Both directions of a WebSocket. Reading and writing can go on at once.
#[derive(Debug)]
pub(super) struct Socket {
    pub(super) reader: Reader,
    pub(super) writer: Writer,
}

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
    /// Written and not yet flushed.
    is_dirty: bool,
    close_was_sent: bool,
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

impl Socket {
    /// Takes a stream after the handshake.
    pub(super) fn new(stream: Upgraded) -> Self {
        let (reader, writer) = tokio::io::split(TokioIo::new(stream));
        Self {
            reader: Reader {
                stream: reader,
                frames: Connection::new(Role::Client),
                buffer: vec![0; READ_BYTES].into_boxed_slice(),
            },
            writer: Writer {
                stream: writer,
                output: BytesMut::new(),
                is_dirty: false,
                close_was_sent: false,
            },
        }
    }
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
        match self.frames.handle_input(input, RECEIVED_BYTES_MAX, &mut events) {
            Ok(()) => Incoming::Events(events),
            Err(error) => Incoming::Violation(events, error.close_code()),
        }
    }
}

impl Writer {
    /// Returns whether there is something to write.
    pub(super) fn is_busy(&self) -> bool {
        !self.output.is_empty() || self.is_dirty
    }

    /// Returns whether more should wait until something was written.
    pub(super) fn is_full(&self) -> bool {
        OUTPUT_BYTES_MAX <= self.output.len()
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

    /// Appends a message.
    pub(super) fn put_message(&mut self, message: &Message) -> io::Result<()> {
        self.put(message.kind.opcode(), &message.data)
    }

    /// Appends a ping.
    pub(super) fn put_ping(&mut self) -> io::Result<()> {
        self.put(Opcode::Ping, b"")
    }

    /// Appends a pong.
    pub(super) fn put_pong(&mut self, payload: &[u8]) -> io::Result<()> {
        self.put(Opcode::Pong, payload)
    }

    /// Appends a close frame, after which nothing is appended any more.
    pub(super) fn put_close(&mut self, code: Option<CloseCode>) -> io::Result<()> {
        let payload = code.map(|code| CloseFrame { code, reason: String::new() }.to_payload());
        self.put(Opcode::Close, &payload.unwrap_or_default())?;
        self.close_was_sent = true;
        Ok(())
    }

    /// Returns whether a close frame was appended.
    pub(super) fn is_closing(&self) -> bool {
        self.close_was_sent
    }

    fn put(&mut self, opcode: Opcode, payload: &[u8]) -> io::Result<()> {
        if !self.close_was_sent {
            let mask = random().map_err(io::Error::other)?;
            self.output.extend_from_slice(&frame::encode(opcode, payload, Some(mask)));
        }
        Ok(())
    }
}

/// Longest message that is taken, in bytes: an upstream's answer of 16 MiB in base64, and what stands around it. A longer one ends the
/// transport.
const RECEIVED_BYTES_MAX: usize = 24 << 20;

/// Read at once at most, in bytes.
const READ_BYTES: usize = 16 << 10;

/// No more requests are taken while so many bytes wait to be written.
const OUTPUT_BYTES_MAX: usize = 1 << 20;
