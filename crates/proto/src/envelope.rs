//! What one shard tells the others: an action on whoever a target names.
//!
//! A shard of this node and a shard of another node look the same to the core: both send and receive envelopes.

use std::sync::{Arc, OnceLock};

use bytes::{BufMut, Bytes, BytesMut};

use crate::data::{Data, Metadata};
use crate::deflate::{Deflate, Deflater, Window};
use crate::filter::Filter;
use crate::frame::{HEADER_BYTES_MAX, Header, Opcode};
use crate::message::{Message, MessageKind};
use crate::name::{ConnectionId, GroupName, HubName, UserId};
use crate::subprotocol::{
    GroupStateItem, PUBLICATION_HEAD_BYTES_MAX, Publication, Source, Subprotocol, json, protobuf,
};

/// Payload of one frame at most; longer messages are fragmented, since some clients refuse larger frames (Netty's default).
pub const FRAME_PAYLOAD_BYTES_MAX: usize = 65_536;

/// Bytes that a sequence id and what stands around it take in the first frame of a message, at most.
const SEQUENCE_BYTES_MAX: usize = 64;

const _: () = assert!(STORED_HEADER_BYTES + PUBLICATION_HEAD_BYTES_MAX <= SEQUENCE_BYTES_MAX);

/// An action for the members of one hub.
#[derive(Debug, Clone)]
pub struct Envelope {
    /// The hub.
    pub hub: HubName,
    /// Whom it concerns.
    pub target: Target,
    /// What to do.
    pub action: Action,
}

/// What an envelope brings.
#[derive(Debug, Clone)]
pub enum Action {
    /// Something to send.
    Deliver(Delivery),
    /// The state of a member of the target, which is a group, has changed; every shard remembers it and tells the subscribers.
    GroupState(Arc<GroupStateItem>),
}

/// Something to send, and who does not get it.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// What to send.
    pub content: Arc<Content>,
    /// Connections that do not get it.
    pub excluded: Arc<[ConnectionId]>,
    /// Only connections that match get it.
    pub filter: Option<Arc<Filter>>,
    /// How long it waits for a receiver in recovery; absent: as long as that may come back.
    pub ttl_seconds: Option<u16>,
}

impl Envelope {
    /// Returns an envelope that brings `content` to everybody concerned.
    pub fn new(hub: HubName, target: Target, content: Arc<Content>) -> Self {
        let excluded = Arc::default();
        let delivery = Delivery { content, excluded, filter: None, ttl_seconds: None };
        Self { hub, target, action: Action::Deliver(delivery) }
    }

    /// Returns about how many bytes it takes in memory: its payload and a constant for the rest.
    pub fn bytes(&self) -> usize {
        const ENVELOPE_BYTES: usize = 256;
        let payload = match &self.action {
            Action::Deliver(delivery) => delivery.content.bytes(),
            Action::GroupState(item) => item.state_bytes(),
        };
        ENVELOPE_BYTES + payload
    }
}

/// Whom an envelope or a question concerns, within one hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Every connection.
    Hub,
    /// The connections in a group.
    Group(GroupName),
    /// The connections of a user.
    User(UserId),
    /// One connection.
    Connection(ConnectionId),
}

/// How a connection wants messages on its wire. Members of a set that share a form share the encoded bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WireForm {
    /// What messages look like.
    pub shape: Shape,
    /// How they are compressed. Nothing for reliable subprotocols, whose next socket may be one that inflates nothing.
    pub deflate: Option<Deflate>,
}

/// What messages look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Shape {
    /// Text messages as text, binary ones as binary (no `format` in a preview client's URL; simple clients of Web PubSub).
    AsSent,
    /// Text; bytes that are not UTF-8 as binary (`format=text`).
    Text,
    /// Always binary (`format=binary`).
    Binary,
    /// One of the subprotocols of Web PubSub. With a reliable one every message carries a sequence id of its connection.
    Subprotocol(Subprotocol),
}

impl WireForm {
    /// Whether every message carries a sequence id of its connection.
    pub const fn is_reliable(self) -> bool {
        matches!(self.shape, Shape::Subprotocol(subprotocol) if subprotocol.is_reliable())
    }
}

impl From<Shape> for WireForm {
    fn from(shape: Shape) -> Self {
        Self { shape, deflate: None }
    }
}

/// A message with its encoded forms, made when first needed and shared by all receivers of a node.
#[derive(Debug)]
pub struct Content {
    publication: Publication,
    plain: Forms,
    /// For clients with the full window, and for those with a smaller one. Whoever compresses first decides how hard it is tried.
    deflated: [OnceLock<Box<Forms>>; 2],
}

/// The encoded forms.
#[derive(Debug, Default)]
struct Forms {
    text: OnceLock<Bytes>,
    binary: OnceLock<Bytes>,
    json: OnceLock<Bytes>,
    protobuf: OnceLock<Bytes>,
    json_tail: OnceLock<Tail>,
    protobuf_tail: OnceLock<Tail>,
}

impl Content {
    /// Returns the content of a message from the application.
    pub fn new(message: Message) -> Arc<Self> {
        Self::to(&Target::Hub, message.into(), Metadata::default())
    }

    /// Returns content that the application sends to `target`.
    pub fn to(target: &Target, data: Data, metadata: Metadata) -> Arc<Self> {
        let source = match target {
            Target::Group(group) => Source::Group { group: group.clone(), user: None },
            Target::Hub | Target::User(_) | Target::Connection(_) => Source::Server,
        };
        Self::of(Publication { source, data, metadata, stream: None })
    }

    /// Returns the content of a publication.
    pub fn of(publication: Publication) -> Arc<Self> {
        Arc::new(Self { publication, plain: Forms::default(), deflated: Default::default() })
    }

    /// Returns what is sent.
    pub const fn publication(&self) -> &Publication {
        &self.publication
    }

    /// Returns the payload bytes, metadata included.
    pub fn bytes(&self) -> usize {
        self.publication.data.bytes.len() + self.publication.metadata.bytes()
    }

    /// Returns the server's frames of the message in `form`, without a sequence id; encoded, and compressed, once.
    pub fn frames(&self, form: WireForm, deflater: &mut Deflater) -> &Bytes {
        let deflate = form.deflate.filter(|deflate| deflate.concerns(self.bytes()));
        let forms = self.forms(deflate);
        let data = &self.publication.data;
        let kind = data.kind.message_kind();
        let kind = match form.shape {
            Shape::AsSent => kind,
            Shape::Binary => MessageKind::Binary,
            Shape::Text if kind == MessageKind::Text => MessageKind::Text,
            Shape::Text => match simdutf8::basic::from_utf8(&data.bytes) {
                Ok(_) => MessageKind::Text,
                Err(_) => MessageKind::Binary,
            },
            Shape::Subprotocol(subprotocol) if subprotocol.is_protobuf() => {
                return forms.protobuf.get_or_init(|| {
                    let payload = protobuf::encode_publication(&self.publication, None);
                    encode(MessageKind::Binary, &payload, deflate, deflater)
                });
            }
            Shape::Subprotocol(_) => {
                return forms.json.get_or_init(|| {
                    let payload = json::encode_publication(&self.publication, None);
                    encode(MessageKind::Text, &payload, deflate, deflater)
                });
            }
        };
        let cell = match kind {
            MessageKind::Text => &forms.text,
            MessageKind::Binary => &forms.binary,
        };
        cell.get_or_init(|| encode(kind, &data.bytes, deflate, deflater))
    }

    /// Appends the server's frames of the message with a sequence id: a head for the receiver, and a tail that is shared by all
    /// receivers, also when it is compressed. Cost: a few dozen bytes, and once the encoding.
    pub fn sequenced(
        &self,
        subprotocol: Subprotocol,
        sequence_id: u64,
        deflate: Option<Deflate>,
        deflater: &mut Deflater,
        out: &mut SequencedFrames,
    ) {
        let is_protobuf = subprotocol.is_protobuf();
        let deflate = deflate.filter(|deflate| deflate.concerns(self.bytes()));
        let forms = self.forms(deflate);
        let tail = if is_protobuf {
            forms.protobuf_tail.get_or_init(|| {
                Tail::new(protobuf::publication_tail(&self.publication), deflate, deflater)
            })
        } else {
            forms.json_tail.get_or_init(|| {
                Tail::new(json::publication_tail(&self.publication), deflate, deflater)
            })
        };
        // How long it is stands in front of it.
        let mut payload = [0; PUBLICATION_HEAD_BYTES_MAX];
        let mut room = &mut payload[..];
        subprotocol.publication_head(sequence_id, tail.payload_bytes, &mut room);
        let left = room.len();
        let payload = &payload[..PUBLICATION_HEAD_BYTES_MAX - left];
        let stored_bytes = if tail.is_deflated { STORED_HEADER_BYTES } else { 0 };
        Header {
            fin: tail.is_whole,
            compressed: tail.is_deflated,
            opcode: subprotocol.message_kind().opcode(),
            mask: None,
            payload_bytes: (stored_bytes + payload.len() + tail.first_bytes) as u64,
        }
        .put(&mut out.heads);
        if tail.is_deflated {
            put_stored_header(payload.len(), &mut out.heads);
        }
        out.heads.extend_from_slice(payload);
        out.messages.push((out.heads.len(), tail.bytes.clone()));
    }

    fn forms(&self, deflate: Option<Deflate>) -> &Forms {
        match deflate {
            None => &self.plain,
            Some(deflate) => {
                self.deflated[usize::from(deflate.window != Window::FULL)].get_or_init(Box::default)
            }
        }
    }
}

/// Messages of one reliable connection as frames: the heads are its own, the tails are shared with others.
#[derive(Debug, Default)]
pub struct SequencedFrames {
    heads: Vec<u8>,
    /// Where the head of each message ends, and what follows it.
    messages: Vec<(usize, Bytes)>,
}

impl SequencedFrames {
    /// Appends a message that is all its own.
    pub fn push_whole(&mut self, frames: Bytes) {
        self.messages.push((self.heads.len(), frames));
    }

    /// Returns how many messages there are.
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether there is no message.
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// Returns the bytes of all frames.
    pub fn bytes(&self) -> usize {
        self.heads.len() + self.messages.iter().map(|(_, tail)| tail.len()).sum::<usize>()
    }

    /// Returns head and tail of each message, in order. One of them may be empty.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &Bytes)> {
        let mut start = 0;
        self.messages.iter().map(move |(end, tail)| {
            let head = &self.heads[start..*end];
            start = *end;
            (head, tail)
        })
    }

    /// Forgets all messages and keeps the room.
    pub fn clear(&mut self) {
        self.heads.clear();
        self.messages.clear();
    }
}

/// What all receivers of a reliable form share: the payload behind the sequence id, in frames but for the first header.
///
/// Compressed, it follows a stored block that carries the sequence id: blocks can be put together wherever one ends at a byte, and what
/// was compressed by itself refers to nothing before it (RFC 1951 §3.2.3).
#[derive(Debug)]
struct Tail {
    /// The rest of the first frame's payload, then whole continuation frames.
    bytes: Bytes,
    first_bytes: usize,
    /// Whether the first frame is the last.
    is_whole: bool,
    is_deflated: bool,
    /// Before compression.
    payload_bytes: usize,
}

impl Tail {
    fn new(payload: Bytes, deflate: Option<Deflate>, deflater: &mut Deflater) -> Self {
        let payload_bytes = payload.len();
        let shorter = deflate.and_then(|deflate| deflater.deflate(deflate, &payload));
        let shorter = shorter.filter(|bytes| bytes.len() + STORED_HEADER_BYTES < payload_bytes);
        let is_deflated = shorter.is_some();
        let content = shorter.map_or(payload, Bytes::from);
        let first_bytes = content.len().min(FRAME_PAYLOAD_BYTES_MAX - SEQUENCE_BYTES_MAX);
        let is_whole = first_bytes == content.len();
        if is_whole {
            return Self { bytes: content, first_bytes, is_whole, is_deflated, payload_bytes };
        }
        let (first, rest) = content.split_at(first_bytes);
        let mut bytes = BytesMut::with_capacity(
            content.len() + rest.len().div_ceil(FRAME_PAYLOAD_BYTES_MAX) * HEADER_BYTES_MAX,
        );
        bytes.extend_from_slice(first);
        put_fragments(Opcode::Continuation, false, rest, &mut bytes);
        Self { bytes: bytes.freeze(), first_bytes, is_whole, is_deflated, payload_bytes }
    }
}

/// Bytes in front of a stored block (RFC 1951 §3.2.4).
const STORED_HEADER_BYTES: usize = 5;

/// Appends what stands in front of a block of bytes that are not compressed.
fn put_stored_header(bytes: usize, out: &mut impl BufMut) {
    let length = u16::try_from(bytes).expect("a sequence id takes a few bytes");
    out.put_u8(0);
    out.put_u16_le(length);
    out.put_u16_le(!length);
}

/// Returns the bare frames of a whole message, compressed if that is wanted and makes it shorter.
pub fn encode(
    kind: MessageKind,
    data: &[u8],
    deflate: Option<Deflate>,
    deflater: &mut Deflater,
) -> Bytes {
    match deflate.and_then(|deflate| deflater.deflate(deflate, data)) {
        None => encode_message(kind, data),
        Some(shorter) => encode_fragments(kind, true, &shorter),
    }
}

/// Returns the bare (server's) frames of a whole message, fragmented at [`FRAME_PAYLOAD_BYTES_MAX`].
pub fn encode_message(kind: MessageKind, data: &[u8]) -> Bytes {
    encode_fragments(kind, false, data)
}

fn encode_fragments(kind: MessageKind, compressed: bool, data: &[u8]) -> Bytes {
    let fragments = data.len().div_ceil(FRAME_PAYLOAD_BYTES_MAX).max(1);
    let mut out = BytesMut::with_capacity(data.len() + fragments * HEADER_BYTES_MAX);
    put_fragments(kind.opcode(), compressed, data, &mut out);
    out.freeze()
}

/// Appends frames that end a message; the first has `opcode`, and says whether the message is `compressed`.
fn put_fragments(opcode: Opcode, compressed: bool, data: &[u8], out: &mut BytesMut) {
    let fragments = data.len().div_ceil(FRAME_PAYLOAD_BYTES_MAX).max(1);
    for at in 0..fragments {
        let start = at * FRAME_PAYLOAD_BYTES_MAX;
        let payload = &data[start..data.len().min(start + FRAME_PAYLOAD_BYTES_MAX)];
        let opcode = if at == 0 { opcode } else { Opcode::Continuation };
        let fin = at + 1 == fragments;
        let compressed = compressed && at == 0;
        Header { fin, compressed, opcode, mask: None, payload_bytes: payload.len() as u64 }
            .put(out);
        out.extend_from_slice(payload);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connection::{Connection, Event};
    use crate::frame::Role;

    #[test]
    fn a_form_decides_the_kind_of_frame() {
        let first_byte = |message: Message, shape: Shape| {
            Content::new(message).frames(shape.into(), &mut Deflater::default())[0] & 0x0F
        };
        let (text, utf8, bytes) = (
            Message::text("hi"),
            Message::binary(Bytes::from_static(b"hi")),
            Message::binary(Bytes::from_static(b"\xff")),
        );
        assert_eq!(first_byte(text.clone(), Shape::AsSent), 1);
        assert_eq!(first_byte(utf8.clone(), Shape::AsSent), 2);
        assert_eq!(first_byte(text.clone(), Shape::Binary), 2);
        assert_eq!(first_byte(utf8, Shape::Text), 1);
        assert_eq!(first_byte(bytes, Shape::Text), 2, "text frames may carry nothing but UTF-8");
        assert_eq!(first_byte(text, Shape::Text), 1);
    }

    #[test]
    fn a_sequence_id_stands_in_front_of_what_all_share_whatever_the_length() {
        for length in [0, 1, 200, 65_000, FRAME_PAYLOAD_BYTES_MAX, 200_000] {
            let content = Content::new(Message::text("x".repeat(length)));
            for subprotocol in [Subprotocol::JsonReliable, Subprotocol::ProtobufReliable] {
                for id in [1, 300, u64::MAX] {
                    let (mut deflater, mut frames) = Default::default();
                    content.sequenced(subprotocol, id, None, &mut deflater, &mut frames);
                    let mut wire: Vec<u8> =
                        frames.iter().flat_map(|(head, tail)| [head, tail].concat()).collect();
                    assert_eq!((frames.len(), frames.bytes()), (1, wire.len()));
                    let mut events = Vec::new();
                    let mut client = Connection::new(Role::Client);
                    client.handle_input(&mut wire, 2 * length + 1_000, &mut events).unwrap();
                    let (kind, payload) = if subprotocol.is_protobuf() {
                        let payload = protobuf::encode_publication(content.publication(), Some(id));
                        (MessageKind::Binary, payload)
                    } else {
                        let payload = json::encode_publication(content.publication(), Some(id));
                        (MessageKind::Text, payload)
                    };
                    assert_eq!(events, [Event::Message(Message { kind, data: payload })]);
                }
            }
        }
    }

    #[test]
    fn long_messages_are_fragmented_and_arrive_whole() {
        for length in [
            0,
            1,
            FRAME_PAYLOAD_BYTES_MAX,
            FRAME_PAYLOAD_BYTES_MAX + 1,
            3 * FRAME_PAYLOAD_BYTES_MAX,
        ] {
            let message = Message::binary(vec![7; length].into());
            let mut wire = encode_message(message.kind, &message.data).to_vec();
            let mut events = Vec::new();
            Connection::new(Role::Client).handle_input(&mut wire, length, &mut events).unwrap();
            assert_eq!(events, [Event::Message(message)]);
        }
    }
}
