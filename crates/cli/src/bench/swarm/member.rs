//! One client of a swarm: from the first byte of its handshake to the last frame.

use std::fmt::{self, Display};
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{bail, ensure};
use bytes::Bytes;
use hookwire_proto::connection::{Connection, Event, Incoming};
use hookwire_proto::frame::{
    CONTROL_PAYLOAD_BYTES_MAX, CloseFrame, HEADER_BYTES_MAX, Header, Opcode, Role, encode,
};
use hookwire_proto::subprotocol::{ClientMessage, Subprotocol};
use socket2::SockRef;

use super::stream::MemberStream;
use super::{Entrance, Opening, Ready};

/// Bytes of a payload that are looked at unless an entrance wants more; the rest is skipped. A stamp must stand in them, behind what a server puts around payloads.
pub(super) const PAYLOAD_HEAD_BYTES: usize = 256;

/// A reliable client acknowledges after each so many messages, all of them at once: now and then, as client libraries do. The service
/// keeps a thousand.
const MESSAGES_PER_ACK: u64 = 100;

const _: () = assert!(CONTROL_PAYLOAD_BYTES_MAX <= PAYLOAD_HEAD_BYTES);

/// Most bytes of a compressed message; it is inflated when it is whole.
const DEFLATED_BYTES_MAX: usize = 64 * 1024;

/// Most bytes of an inflated message.
const INFLATED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Bytes of an answer to a handshake that are kept while it is incomplete. More makes the parser refuse it.
const HANDSHAKE_BYTES_MAX: usize = 64 * 1024;

/// The mask of what members say. What it guards against, caches that misread frames, is not on the way.
pub(in super::super) const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A client.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) stream: MemberStream,
    /// When the connection was begun.
    pub(super) begun: u64,
    state: State,
    /// The beginning of what is incomplete: an answer to the handshake, a frame's head, or the head of a payload of which `skip`
    /// bytes are to come.
    held: Vec<u8>,
    skip: u64,
    /// The head of a message of which further fragments are to come.
    fragmented: Option<Vec<u8>>,
    /// Whether the frame that is read is the last of its message.
    is_last: bool,
    /// Payload bytes of the last message, of all its fragments; 0 before the first.
    pub(super) payload_bytes: u64,
    acks: Option<Acks>,
    out: Vec<u8>,
    written: usize,
    /// Bytes of a payload that are looked at.
    head_bytes: usize,
}

/// How a connection ended that the client did not end.
#[derive(Debug)]
pub(in super::super) enum Ending {
    /// The service closed it.
    Closed(Option<CloseFrame>),
    /// Nothing more comes, without a close frame.
    Finished,
    /// It is broken, or was refused.
    Lost(io::Error),
}

impl Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(Some(CloseFrame { code, reason })) => {
                write!(f, "the service closed it with {} {reason:?}", code.get())
            }
            Self::Closed(None) => write!(f, "the service closed it"),
            Self::Finished => write!(f, "the service ended it"),
            Self::Lost(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for Ending {}

/// What a reliable client has to acknowledge.
#[derive(Debug)]
struct Acks {
    subprotocol: Subprotocol,
    /// Messages so far; they have the sequence ids from 1 on, as nothing else comes to these clients.
    received: u64,
}

#[derive(Debug)]
enum State {
    /// The kernel connects.
    Connecting(Option<Arc<Entrance>>),
    /// The answer to the handshake is to come.
    Upgrading(Arc<Entrance>),
    /// What makes it ready is to come.
    Greeting(Arc<Entrance>),
    /// Messages come.
    Open,
}

impl Member {
    /// Returns a client that sends its request when connected, and, if there is a handshake, waits for what makes it ready.
    pub(super) fn new(stream: MemberStream, opening: Opening, begun: u64) -> Self {
        let entrance = opening.entrance;
        Self {
            stream,
            begun,
            head_bytes: entrance.as_ref().map_or(PAYLOAD_HEAD_BYTES, |one| one.head_bytes),
            state: State::Connecting(entrance),
            held: Vec::new(),
            skip: 0,
            fragmented: None,
            is_last: true,
            payload_bytes: 0,
            acks: None,
            out: opening.request,
            written: 0,
        }
    }

    pub(super) const fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// Goes on writing; the first time, the connection stands or has failed.
    pub(super) fn on_writable(&mut self) -> anyhow::Result<()> {
        if let State::Connecting(entrance) = &mut self.state {
            if let Some(error) = self.stream.socket.take_error()? {
                return Err(Ending::Lost(error).into());
            }
            self.state = match entrance.take() {
                Some(entrance) => State::Upgrading(entrance),
                None => State::Open,
            };
        }
        self.flush()
    }

    /// Sends bytes, now as far as the socket takes them.
    pub(super) fn send(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.out.extend_from_slice(bytes);
        self.flush()
    }

    pub(super) fn flush(&mut self) -> anyhow::Result<()> {
        while self.written < self.out.len() {
            match self.stream.write(&self.out[self.written..]) {
                Ok(0) => bail!("the socket takes nothing"),
                Ok(count) => self.written += count,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(Ending::Lost(error).into()),
            }
        }
        self.out.clear();
        self.written = 0;
        Ok(())
    }

    /// Throws the connection away, without ceremony and without leaving a port in `TIME_WAIT`.
    pub(super) fn reset(self) {
        // A socket that refuses it leaves its port behind for a minute.
        let _ = SockRef::from(&self.stream.socket).set_linger(Some(Duration::ZERO));
    }

    /// Takes what was read and calls `message` with the head of each whole message.
    pub(super) fn take(
        &mut self,
        mut input: &[u8],
        mut message: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        if let State::Upgrading(entrance) = &self.state {
            let before = self.held.len();
            self.held.extend_from_slice(&input[..input.len().min(HANDSHAKE_BYTES_MAX)]);
            let Some(head) = entrance.upgrade.check(&self.held)? else { return Ok(()) };
            let entrance = entrance.clone();
            self.held = Vec::new();
            input = &input[head - before..];
            self.enter(entrance)?;
        }
        while !input.is_empty() {
            if self.skip != 0 {
                let here =
                    usize::try_from(self.skip).map_or(input.len(), |skip| skip.min(input.len()));
                self.skip -= here as u64;
                input = &input[here..];
                if self.skip == 0 {
                    let head = std::mem::take(&mut self.held);
                    self.end_frame(&head, &mut message)?;
                }
                continue;
            }
            let used = self.begin_frame(input, &mut message)?;
            input = &input[used..];
        }
        Ok(())
    }

    /// The handshake is done.
    fn enter(&mut self, entrance: Arc<Entrance>) -> anyhow::Result<()> {
        self.acks = entrance.acknowledges.map(|subprotocol| Acks { subprotocol, received: 0 });
        self.out.extend_from_slice(&entrance.hello);
        self.state =
            if entrance.ready == Ready::Upgraded { State::Open } else { State::Greeting(entrance) };
        self.flush()
    }

    /// Takes a whole frame of a message, of whose payload `head` is the beginning.
    fn end_frame(
        &mut self,
        head: &[u8],
        message: &mut impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        if !self.is_last {
            self.fragmented.get_or_insert_with(|| head.to_vec());
            return Ok(());
        }
        match self.fragmented.take() {
            Some(first) => self.hand(&first, message),
            None => self.hand(head, message),
        }
    }

    /// Takes a whole message of which `head` is the beginning.
    fn hand(
        &mut self,
        head: &[u8],
        message: &mut impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        if let State::Greeting(entrance) = &self.state {
            if entrance.ready.is_said_by(head) {
                self.state = State::Open;
            }
            self.payload_bytes = 0;
            return Ok(());
        }
        message(head)?;
        let Some(acks) = &mut self.acks else { return Ok(()) };
        acks.received += 1;
        if !acks.received.is_multiple_of(MESSAGES_PER_ACK) {
            return Ok(());
        }
        let ack = ClientMessage::SequenceAck { sequence_id: acks.received };
        let ack = acks.subprotocol.encode_client(&ack);
        self.send(&encode(ack.kind.opcode(), &ack.data, Some(MASK)))
    }

    /// Takes the head of a frame, which may have begun in earlier input. Returns the bytes used of `input`.
    fn begin_frame(
        &mut self,
        input: &[u8],
        message: &mut impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<usize> {
        if self.held.is_empty() {
            if let Some(frame) = FrameHead::parse(input, self.head_bytes)? {
                return self.frame(&frame, input, message);
            }
            self.held.extend_from_slice(input);
            return Ok(input.len());
        }
        let before = self.held.len();
        let is_compressed = Header::is_compressed(&self.held);
        let most = if is_compressed {
            HEADER_BYTES_MAX + DEFLATED_BYTES_MAX
        } else {
            HEADER_BYTES_MAX + self.head_bytes
        };
        let more = input.len().min(most - before);
        let mut held = std::mem::take(&mut self.held);
        held.extend_from_slice(&input[..more]);
        if let Some(frame) = FrameHead::parse(&held, self.head_bytes)? {
            // Nothing but the head: what follows is looked at where it lies.
            held.truncate(frame.header_bytes + frame.head_bytes);
            return Ok(self.frame(&frame, &held, message)? - before);
        }
        self.held = held;
        Ok(more)
    }

    /// Takes a frame whose head is there. Returns the bytes used of `input`, which begins with it.
    fn frame(
        &mut self,
        frame: &FrameHead,
        input: &[u8],
        message: &mut impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<usize> {
        let head_end = frame.header_bytes + frame.head_bytes;
        let head = &input[frame.header_bytes..head_end];
        match frame.header.opcode {
            Opcode::Text | Opcode::Binary if frame.header.fin && frame.header.compressed => {
                let inflated = inflate(&input[..head_end])?;
                self.payload_bytes = frame.header.payload_bytes;
                self.hand(&inflated[..inflated.len().min(self.head_bytes)], message)?;
                return Ok(head_end);
            }
            Opcode::Text | Opcode::Binary => {
                ensure!(!frame.header.compressed, "a compressed message is fragmented");
                ensure!(self.fragmented.is_none(), "a message begins within another");
                self.payload_bytes = 0;
            }
            Opcode::Continuation => {
                ensure!(self.fragmented.is_some(), "a message goes on that has not begun");
            }
            Opcode::Ping => {
                self.send(&encode(Opcode::Pong, head, Some(MASK)))?;
                return Ok(head_end);
            }
            Opcode::Pong => return Ok(head_end),
            Opcode::Close => return Err(Ending::Closed(CloseFrame::parse(head)?).into()),
        }
        self.is_last = frame.header.fin;
        self.payload_bytes += frame.header.payload_bytes;
        let rest = frame.header.payload_bytes - frame.head_bytes as u64;
        match usize::try_from(rest).ok().and_then(|rest| head_end.checked_add(rest)) {
            Some(end) if end <= input.len() => {
                self.end_frame(head, message)?;
                Ok(end)
            }
            _ => {
                self.skip = rest;
                self.held = head.to_vec();
                Ok(head_end)
            }
        }
    }
}

/// A frame's header, and how much of its payload must be there before it is taken.
struct FrameHead {
    header: Header,
    header_bytes: usize,
    head_bytes: usize,
}

impl FrameHead {
    /// Returns the head at the start of `input`, with at most `looked_at` bytes of a message, or `None` when more bytes are needed.
    fn parse(input: &[u8], looked_at: usize) -> anyhow::Result<Option<Self>> {
        let Some((header, header_bytes)) = Header::parse(input, Role::Client, true)? else {
            return Ok(None);
        };
        let most = if header.compressed {
            DEFLATED_BYTES_MAX
        } else if header.opcode.is_control() {
            CONTROL_PAYLOAD_BYTES_MAX
        } else {
            looked_at
        };
        let head_bytes =
            usize::try_from(header.payload_bytes).map_or(most, |bytes| bytes.min(most));
        ensure!(
            !header.compressed || head_bytes as u64 == header.payload_bytes,
            "a compressed message has {} bytes",
            header.payload_bytes
        );
        let head = Self { header, header_bytes, head_bytes };
        Ok((header_bytes + head_bytes <= input.len()).then_some(head))
    }
}

/// Returns what a whole compressed frame carries.
fn inflate(frame: &[u8]) -> anyhow::Result<Bytes> {
    let (mut frame, mut events) = (frame.to_vec(), Vec::new());
    let mut connection = Connection::with_incoming(Role::Client, Incoming::Deflated);
    connection.handle_input(&mut frame, INFLATED_BYTES_MAX, &mut events)?;
    match events.pop() {
        Some(Event::Message(message)) => Ok(message.data),
        other => bail!("a compressed frame turned out to be {other:?}"),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{TcpListener, TcpStream as StdStream};

    use mio::net::TcpStream;

    use hookwire_proto::deflate::{Compression, Deflate, Deflater, Window};
    use hookwire_proto::frame::encode_compressed;
    use hookwire_proto::subprotocol::ServerMessage;

    use super::super::super::wire::Upgrade;
    use super::*;

    /// A member whose connection stands, and the service's end of it.
    fn member() -> (Member, StdStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = StdStream::connect(listener.local_addr().unwrap()).unwrap();
        let (service, _) = listener.accept().unwrap();
        stream.set_nonblocking(true).unwrap();
        let stream = MemberStream::plain(TcpStream::from_std(stream));
        let mut member = Member::new(stream, Opening::default(), 0);
        member.on_writable().unwrap();
        assert!(member.is_open());
        (member, service)
    }

    fn heads(member: &mut Member, chunks: &[&[u8]]) -> anyhow::Result<Vec<Vec<u8>>> {
        let mut heads = Vec::new();
        for chunk in chunks {
            member.take(chunk, |head| {
                heads.push(head.to_vec());
                Ok(())
            })?;
        }
        Ok(heads)
    }

    /// Makes sure that a member reads these messages, whether they come in two pieces or byte by byte.
    fn cut_anywhere(wire: &[u8], cuts: impl Iterator<Item = usize>, expected: &[Vec<u8>]) {
        for cut in cuts {
            let (mut member, _service) = member();
            let (first, second) = wire.split_at(cut);
            assert_eq!(heads(&mut member, &[first, second]).unwrap(), expected, "cut at {cut}");
        }
        let (mut member, _service) = member();
        let bytes: Vec<&[u8]> = wire.chunks(1).collect();
        assert_eq!(heads(&mut member, &bytes).unwrap(), expected, "byte by byte");
    }

    #[test]
    fn messages_are_whole_however_the_bytes_are_cut() {
        let payloads: [Vec<u8>; 5] = [
            vec![],
            vec![1; 16],
            vec![2; PAYLOAD_HEAD_BYTES],
            vec![3; PAYLOAD_HEAD_BYTES + 1],
            vec![4; 70_000],
        ];
        let wire: Vec<u8> =
            payloads.iter().flat_map(|payload| encode(Opcode::Binary, payload, None)).collect();
        let expected: Vec<Vec<u8>> = payloads
            .iter()
            .map(|payload| payload[..payload.len().min(PAYLOAD_HEAD_BYTES)].to_vec())
            .collect();
        let cuts = (0..900).chain([wire.len() - 1, wire.len()]);
        cut_anywhere(&wire, cuts, &expected);
        let (mut member, _service) = member();
        let all_but_one = heads(&mut member, &[&wire[..wire.len() - 1]]).unwrap();
        assert_eq!(all_but_one, expected[..4], "a message counts when its last byte is there");
    }

    #[test]
    fn compressed_messages_are_inflated_however_the_bytes_are_cut() {
        let how = Deflate { compression: Compression::default(), window: Window::FULL };
        let payload = b"a word and ".repeat(1_000);
        let frame = Deflater::default().deflate(how, &payload).unwrap();
        let wire = [
            encode_compressed(Opcode::Binary, &frame, None),
            encode(Opcode::Binary, b"plain", None),
        ]
        .concat();
        let expected = [payload[..PAYLOAD_HEAD_BYTES].to_vec(), b"plain".to_vec()];
        cut_anywhere(&wire, 0..wire.len(), &expected);
    }

    #[test]
    fn pings_are_answered_and_a_close_is_told() {
        let (mut member, mut service) = member();
        let ping = encode(Opcode::Ping, b"are you there?", None);
        assert!(heads(&mut member, &[&ping[..5], &ping[5..]]).unwrap().is_empty());
        let expected = encode(Opcode::Pong, b"are you there?", Some(MASK));
        let mut got = vec![0; expected.len()];
        service.read_exact(&mut got).unwrap();
        assert_eq!(got, expected);
        let close = encode(Opcode::Close, b"\x03\xf0SlowClient", None);
        let error = heads(&mut member, &[&close]).unwrap_err().to_string();
        assert_eq!(error, "the service closed it with 1008 \"SlowClient\"");
    }

    #[test]
    fn a_message_in_fragments_is_one_however_the_bytes_are_cut() {
        let fragment = |opcode: Opcode, fin: bool, payload: &[u8]| {
            let mut frame = encode(opcode, payload, None).to_vec();
            frame[0] = if fin { frame[0] | 0x80 } else { frame[0] & 0x7f };
            frame
        };
        let long = vec![7; PAYLOAD_HEAD_BYTES + 50];
        let wire = [
            fragment(Opcode::Text, false, &long),
            fragment(Opcode::Continuation, false, b"more"),
            encode(Opcode::Pong, b"", None).to_vec(),
            fragment(Opcode::Continuation, true, &long),
            fragment(Opcode::Text, true, b"whole"),
        ]
        .concat();
        let expected = [long[..PAYLOAD_HEAD_BYTES].to_vec(), b"whole".to_vec()];
        cut_anywhere(&wire, 0..wire.len(), &expected);
        for (frames, fault) in [
            (fragment(Opcode::Continuation, true, b""), "a message goes on that has not begun"),
            (
                [fragment(Opcode::Text, false, b"a"), fragment(Opcode::Text, true, b"b")].concat(),
                "a message begins within another",
            ),
        ] {
            let (mut member, _service) = member();
            let error = heads(&mut member, &[&frames]).unwrap_err().to_string();
            assert_eq!(error, fault);
        }
    }

    #[test]
    fn frames_behind_the_handshake_are_not_lost() {
        let upgrade = Upgrade::new(*b"the sample nonce", false);
        let mut wire =
            b"HTTP/1.1 101 X\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
                .to_vec();
        wire.extend_from_slice(b"\x82\x02hi");
        for cut in 0..wire.len() {
            let (mut member, _service) = member();
            member.state = State::Upgrading(Arc::new(Entrance::silent(upgrade.clone())));
            assert_eq!(
                heads(&mut member, &[&wire[..cut], &wire[cut..]]).unwrap(),
                [b"hi"],
                "{cut}"
            );
            assert!(member.is_open());
        }
    }

    /// Has a member enter and returns the heads that it tells of these frames.
    fn entered(member: &mut Member, entrance: Entrance, frames: &[Bytes]) -> Vec<Vec<u8>> {
        member.enter(Arc::new(entrance)).unwrap();
        let chunks: Vec<&[u8]> = frames.iter().map(|frame| &frame[..]).collect();
        heads(member, &chunks).unwrap()
    }

    #[test]
    fn a_reliable_client_skips_its_greeting_and_acknowledges_now_and_then() {
        let (mut member, mut service) = member();
        let subprotocol = Subprotocol::JsonReliable;
        let upgrade = Upgrade::new(*b"the sample nonce", false);
        let greeting = subprotocol.encode_server(&ServerMessage::Connected {
            connection_id: "c".to_owned(),
            user_id: None,
            reconnection_token: None,
        });
        let mut frames = vec![encode(Opcode::Text, &greeting.data, None)];
        frames.resize(frames.len() + 100, encode(Opcode::Text, b"a message", None));
        let entrance = Entrance::speaking(&upgrade, subprotocol);
        let told = entered(&mut member, entrance, &frames);
        assert_eq!(told, vec![b"a message".to_vec(); 100]);
        assert_eq!(member.payload_bytes, 9);
        let ack = subprotocol.encode_client(&ClientMessage::SequenceAck { sequence_id: 100 });
        let expected = encode(Opcode::Text, &ack.data, Some(MASK));
        let mut got = vec![0; expected.len()];
        service.read_exact(&mut got).unwrap();
        assert_eq!(got, expected);
    }

    #[test]
    fn a_client_of_another_server_says_hello_and_waits_for_what_makes_it_ready() {
        let (mut member, mut service) = member();
        let upgrade = Upgrade::new(*b"the sample nonce", false);
        let ready = Ready::Told("\"id\":2".to_owned());
        let entrance = Entrance::saying(upgrade, ["connect", "subscribe"], ready);
        let text = |text: &str| encode(Opcode::Text, text.as_bytes(), None);
        let told = entered(&mut member, entrance, &[text("{\"id\":1}"), text("{\"id\":2}")]);
        assert!(told.is_empty() && member.is_open());
        assert_eq!(heads(&mut member, &[&text("news")]).unwrap(), [b"news"]);
        let say = |text: &str| encode(Opcode::Text, text.as_bytes(), Some(MASK));
        let expected = [say("connect"), say("subscribe")].concat();
        let mut got = vec![0; expected.len()];
        service.read_exact(&mut got).unwrap();
        assert_eq!(got, expected);
    }
}
