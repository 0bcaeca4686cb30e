//! What one shard tells the others: an action on whoever a target names.
//!
//! A shard of this node and a shard of another node look the same to the core: both send and receive envelopes.

use std::sync::{Arc, OnceLock};

use bytes::{Bytes, BytesMut};

use crate::data::{Data, Metadata};
use crate::filter::Filter;
use crate::frame::{HEADER_BYTES_MAX, Header, Opcode};
use crate::message::{Message, MessageKind};
use crate::name::{ConnectionId, GroupName, HubName, UserId};
use crate::subprotocol::{GroupStateItem, Publication, Source, Subprotocol, json, protobuf};

/// Payload of one frame at most; longer messages are fragmented, since some clients refuse larger frames (Netty's default).
pub const FRAME_PAYLOAD_BYTES_MAX: usize = 65_536;

/// Bytes that a sequence id and what stands around it take in the first frame of a message, at most.
const SEQUENCE_BYTES_MAX: usize = 64;

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
pub enum WireForm {
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
        matches!(self, Self::Subprotocol(subprotocol) if subprotocol.is_reliable())
    }
}

/// A message with its encoded forms, made when first needed and shared by all receivers of a node.
#[derive(Debug)]
pub struct Content {
    publication: Publication,
    text: OnceLock<Bytes>,
    binary: OnceLock<Bytes>,
    json: OnceLock<Bytes>,
    protobuf: OnceLock<Bytes>,
    json_tail: OnceLock<Tail>,
    protobuf_tail: OnceLock<Tail>,
}

/// What all receivers of a reliable form share: the payload behind the sequence id, in frames but for the first header.
#[derive(Debug)]
struct Tail {
    /// The rest of the first frame's payload, then whole continuation frames.
    bytes: Bytes,
    first_bytes: usize,
    payload_bytes: usize,
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
        Arc::new(Self {
            publication,
            text: OnceLock::new(),
            binary: OnceLock::new(),
            json: OnceLock::new(),
            protobuf: OnceLock::new(),
            json_tail: OnceLock::new(),
            protobuf_tail: OnceLock::new(),
        })
    }

    /// Returns what is sent.
    pub const fn publication(&self) -> &Publication {
        &self.publication
    }

    /// Returns the payload bytes, metadata included.
    pub fn bytes(&self) -> usize {
        self.publication.data.bytes.len() + self.publication.metadata.bytes()
    }

    /// Returns the server's frames of the message in `form`, without a sequence id; encoded once.
    pub fn frames(&self, form: WireForm) -> &Bytes {
        let data = &self.publication.data;
        let kind = data.kind.message_kind();
        let kind = match form {
            WireForm::AsSent => kind,
            WireForm::Binary => MessageKind::Binary,
            WireForm::Text if kind == MessageKind::Text => MessageKind::Text,
            WireForm::Text => match simdutf8::basic::from_utf8(&data.bytes) {
                Ok(_) => MessageKind::Text,
                Err(_) => MessageKind::Binary,
            },
            WireForm::Subprotocol(subprotocol) => return self.subprotocol_frames(subprotocol),
        };
        let cell = match kind {
            MessageKind::Text => &self.text,
            MessageKind::Binary => &self.binary,
        };
        cell.get_or_init(|| encode_message(kind, &data.bytes))
    }

    fn subprotocol_frames(&self, subprotocol: Subprotocol) -> &Bytes {
        if subprotocol.is_protobuf() {
            self.protobuf.get_or_init(|| {
                let payload = protobuf::encode_publication(&self.publication, None);
                encode_message(MessageKind::Binary, &payload)
            })
        } else {
            self.json.get_or_init(|| {
                let payload = json::encode_publication(&self.publication, None);
                encode_message(MessageKind::Text, &payload)
            })
        }
    }

    /// Returns the server's frames of the message with a sequence id, in two pieces that follow each other: the second is shared by all
    /// receivers. Cost: a few dozen bytes, and once the encoding.
    pub fn sequenced(&self, subprotocol: Subprotocol, sequence_id: u64) -> [Bytes; 2] {
        let is_protobuf = subprotocol.is_protobuf();
        let tail = if is_protobuf {
            self.protobuf_tail
                .get_or_init(|| Tail::new(&protobuf::publication_tail(&self.publication)))
        } else {
            self.json_tail.get_or_init(|| Tail::new(&json::publication_tail(&self.publication)))
        };
        let mut payload = BytesMut::with_capacity(SEQUENCE_BYTES_MAX);
        let kind = if is_protobuf {
            protobuf::publication_head(sequence_id, tail.payload_bytes, &mut payload);
            MessageKind::Binary
        } else {
            json::publication_head(sequence_id, tail.payload_bytes, &mut payload);
            MessageKind::Text
        };
        let mut head = BytesMut::with_capacity(HEADER_BYTES_MAX + payload.len());
        Header {
            fin: tail.first_bytes == tail.payload_bytes,
            opcode: kind.opcode(),
            mask: None,
            payload_bytes: (payload.len() + tail.first_bytes) as u64,
        }
        .put(&mut head);
        head.extend_from_slice(&payload);
        [head.freeze(), tail.bytes.clone()]
    }
}

impl Tail {
    fn new(payload: &Bytes) -> Self {
        let first_bytes = payload.len().min(FRAME_PAYLOAD_BYTES_MAX - SEQUENCE_BYTES_MAX);
        let payload_bytes = payload.len();
        if first_bytes == payload_bytes {
            return Self { bytes: payload.clone(), first_bytes, payload_bytes };
        }
        let (first, rest) = payload.split_at(first_bytes);
        let mut bytes = BytesMut::with_capacity(
            payload_bytes + rest.len().div_ceil(FRAME_PAYLOAD_BYTES_MAX) * HEADER_BYTES_MAX,
        );
        bytes.extend_from_slice(first);
        put_fragments(Opcode::Continuation, rest, &mut bytes);
        Self { bytes: bytes.freeze(), first_bytes, payload_bytes }
    }
}

/// Returns the bare (server's) frames of a whole message, fragmented at [`FRAME_PAYLOAD_BYTES_MAX`].
pub fn encode_message(kind: MessageKind, data: &[u8]) -> Bytes {
    let fragments = data.len().div_ceil(FRAME_PAYLOAD_BYTES_MAX).max(1);
    let mut out = BytesMut::with_capacity(data.len() + fragments * HEADER_BYTES_MAX);
    put_fragments(kind.opcode(), data, &mut out);
    out.freeze()
}

/// Appends frames that end a message; the first has `opcode`.
fn put_fragments(opcode: Opcode, data: &[u8], out: &mut BytesMut) {
    let fragments = data.len().div_ceil(FRAME_PAYLOAD_BYTES_MAX).max(1);
    for at in 0..fragments {
        let start = at * FRAME_PAYLOAD_BYTES_MAX;
        let payload = &data[start..data.len().min(start + FRAME_PAYLOAD_BYTES_MAX)];
        let opcode = if at == 0 { opcode } else { Opcode::Continuation };
        let fin = at + 1 == fragments;
        Header { fin, opcode, mask: None, payload_bytes: payload.len() as u64 }.put(out);
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
        let first_byte = |message: Message, form| Content::new(message).frames(form)[0] & 0x0F;
        let (text, utf8, bytes) = (
            Message::text("hi"),
            Message::binary(Bytes::from_static(b"hi")),
            Message::binary(Bytes::from_static(b"\xff")),
        );
        assert_eq!(first_byte(text.clone(), WireForm::AsSent), 1);
        assert_eq!(first_byte(utf8.clone(), WireForm::AsSent), 2);
        assert_eq!(first_byte(text.clone(), WireForm::Binary), 2);
        assert_eq!(first_byte(utf8, WireForm::Text), 1);
        assert_eq!(first_byte(bytes, WireForm::Text), 2, "text frames may carry nothing but UTF-8");
        assert_eq!(first_byte(text, WireForm::Text), 1);
    }

    #[test]
    fn a_sequence_id_stands_in_front_of_what_all_share_whatever_the_length() {
        for length in [0, 1, 200, 65_000, FRAME_PAYLOAD_BYTES_MAX, 200_000] {
            let content = Content::new(Message::text("x".repeat(length)));
            for subprotocol in [Subprotocol::JsonReliable, Subprotocol::ProtobufReliable] {
                for id in [1, 300, u64::MAX] {
                    let mut wire = content.sequenced(subprotocol, id).concat();
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
