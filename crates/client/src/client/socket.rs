//! An open WebSocket: frames over a byte stream.

use std::io;
use std::ops::Range;

use bytes::BytesMut;
use hookwire_proto::connection::{Connection, Event, Incoming as Compressed};
use hookwire_proto::deflate::{Deflate, Deflater, Inflation};
use hookwire_proto::frame::{self, CloseCode, CloseFrame, Opcode, Role};
use hookwire_proto::message::Message;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};

use super::dial::{Opened, random};

/// Both directions of a WebSocket. Reading and writing can go on at once.
#[derive(Debug)]
pub(crate) struct Socket {
    pub(crate) reader: Reader,
    pub(crate) writer: Writer,
}

/// The incoming half.
#[derive(Debug)]
pub(crate) struct Reader {
    stream: ReadHalf<TokioIo<Upgraded>>,
    frames: Connection,
    inflation: Inflation,
    /// What of the buffer was read and not looked at yet.
    unread: Range<usize>,
    /// Longest message, in bytes.
    message_bytes_max: usize,
    buffer: Box<[u8]>,
}

/// The outgoing half.
#[derive(Debug)]
pub(crate) struct Writer {
    stream: WriteHalf<TokioIo<Upgraded>>,
    output: BytesMut,
    /// How messages are compressed, if they are.
    deflate: Option<Deflate>,
    deflater: Deflater,
    /// Written and not yet flushed.
    is_dirty: bool,
    close_was_sent: bool,
}

/// What came.
#[derive(Debug)]
pub(crate) enum Incoming {
    /// Frames, perhaps none that is whole.
    Events(Vec<Event>),
    /// Frames, and then something that WebSocket forbids.
    Violation(Vec<Event>, CloseCode),
    /// The stream is at its end.
    End,
}

impl Socket {
    /// Takes a stream after the handshake. A message of more than `message_bytes_max` ends the transport.
    pub(crate) fn new(opened: Opened, message_bytes_max: usize) -> Self {
        let Opened { stream, compression } = opened;
        let incoming = match compression {
            None => Compressed::Plain,
            Some((_, agreed)) if agreed.server_keeps_context => Compressed::DeflatedInContext,
            Some(_) => Compressed::Deflated,
        };
        let deflate = compression.and_then(|(compression, agreed)| {
            agreed.window.map(|window| Deflate { compression, window })
        });
        let (reader, writer) = tokio::io::split(TokioIo::new(stream));
        Self {
            reader: Reader {
                stream: reader,
                frames: Connection::with_incoming(Role::Client, incoming),
                inflation: Inflation::default(),
                unread: 0..0,
                message_bytes_max,
                buffer: vec![0; READ_BYTES].into_boxed_slice(),
            },
            writer: Writer {
                stream: writer,
                output: BytesMut::new(),
                deflate,
                deflater: Deflater::default(),
                is_dirty: false,
                close_was_sent: false,
            },
        }
    }
}

impl Reader {
    /// Waits for bytes. Cancel-safe: a dropped future has taken none.
    pub(crate) async fn read(&mut self) -> Incoming {
        if self.unread.is_empty() {
            match self.stream.read(&mut self.buffer).await {
                Ok(0) | Err(_) => return Incoming::End,
                Ok(read) => self.unread = 0..read,
            }
        }
        let (mut events, most) = (Vec::new(), self.message_bytes_max);
        // Small messages may become large ones: together they become no more than one may be, or little more.
        self.inflation.budget = most;
        let input = &mut self.buffer[self.unread.clone()];
        match self.frames.handle_some(input, most, &mut self.inflation, &mut events) {
            Ok(used) => {
                self.unread.start += used;
                Incoming::Events(events)
            }
            Err(error) => {
                self.unread = 0..0;
                Incoming::Violation(events, error.close_code())
            }
        }
    }
}

impl Writer {
    /// Returns whether there is something to write.
    pub(crate) fn is_busy(&self) -> bool {
        !self.output.is_empty() || self.is_dirty
    }

    /// Returns whether more should wait until something was written.
    pub(crate) fn is_full(&self) -> bool {
        OUTPUT_BYTES_MAX <= self.output.len()
    }

    /// Writes a part of what there is. Cancel-safe: what was not written stays.
    pub(crate) async fn write(&mut self) -> io::Result<()> {
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
    pub(crate) fn put_message(&mut self, message: &Message) -> io::Result<()> {
        let deflate = self.deflate.filter(|deflate| deflate.concerns(message.data.len()));
        match deflate.and_then(|deflate| self.deflater.deflate(deflate, &message.data)) {
            Some(shorter) => self.append(message.kind.opcode(), true, &shorter),
            None => self.put(message.kind.opcode(), &message.data),
        }
    }

    /// Appends a ping.
    pub(crate) fn put_ping(&mut self) -> io::Result<()> {
        self.put(Opcode::Ping, b"")
    }

    /// Appends a pong.
    pub(crate) fn put_pong(&mut self, payload: &[u8]) -> io::Result<()> {
        self.put(Opcode::Pong, payload)
    }

    /// Appends a close frame, after which nothing is appended any more.
    pub(crate) fn put_close(&mut self, code: Option<CloseCode>) -> io::Result<()> {
        let payload = code.map(|code| CloseFrame { code, reason: String::new() }.to_payload());
        self.put(Opcode::Close, &payload.unwrap_or_default())?;
        self.close_was_sent = true;
        Ok(())
    }

    /// Returns whether a close frame was appended.
    pub(crate) fn is_closing(&self) -> bool {
        self.close_was_sent
    }

    fn put(&mut self, opcode: Opcode, payload: &[u8]) -> io::Result<()> {
        self.append(opcode, false, payload)
    }

    fn append(&mut self, opcode: Opcode, compressed: bool, payload: &[u8]) -> io::Result<()> {
        if !self.close_was_sent {
            let mask = Some(random().map_err(io::Error::other)?);
            let frame = if compressed {
                frame::encode_compressed(opcode, payload, mask)
            } else {
                frame::encode(opcode, payload, mask)
            };
            self.output.extend_from_slice(&frame);
        }
        Ok(())
    }
}

/// Read at once at most, in bytes.
const READ_BYTES: usize = 16 << 10;

/// No more requests are taken while so many bytes wait to be written.
const OUTPUT_BYTES_MAX: usize = 1 << 20;
