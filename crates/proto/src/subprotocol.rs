//! The four subprotocols of Web PubSub: what a client may ask and what it is told (Web PubSub protocol, "JSON subprotocol",
//! "Protobuf subprotocols"). [`json`] and [`protobuf`] are the two encodings of the same messages.

pub mod json;
pub mod protobuf;
mod rules;

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes};

use crate::data::{Data, DataError, Metadata};
use crate::frame::CloseCode;
use crate::message::{Message, MessageKind};
use crate::name::{GroupName, UserId};

pub use self::rules::{ID_BYTES_MAX, TTL_SECONDS_MAX};

/// Most bytes that [`Subprotocol::publication_head`] writes.
pub const PUBLICATION_HEAD_BYTES_MAX: usize = 35;

/// One of the built-in subprotocols.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Subprotocol {
    /// `json.webpubsub.azure.v1`
    Json,
    /// `json.reliable.webpubsub.azure.v1`
    JsonReliable,
    /// `protobuf.webpubsub.azure.v1`
    Protobuf,
    /// `protobuf.reliable.webpubsub.azure.v1`
    ProtobufReliable,
}

impl Subprotocol {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::Json, Self::JsonReliable, Self::Protobuf, Self::ProtobufReliable];

    /// Returns the subprotocol of that name, compared exactly.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }

    /// Returns the name in `Sec-WebSocket-Protocol`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Json => "json.webpubsub.azure.v1",
            Self::JsonReliable => "json.reliable.webpubsub.azure.v1",
            Self::Protobuf => "protobuf.webpubsub.azure.v1",
            Self::ProtobufReliable => "protobuf.reliable.webpubsub.azure.v1",
        }
    }

    /// Whether messages carry sequence ids and a lost connection can be recovered.
    pub const fn is_reliable(self) -> bool {
        matches!(self, Self::JsonReliable | Self::ProtobufReliable)
    }

    /// Whether messages are protobuf in binary frames; otherwise JSON in text frames.
    pub const fn is_protobuf(self) -> bool {
        matches!(self, Self::Protobuf | Self::ProtobufReliable)
    }

    /// Returns the kind of WebSocket message that carries all messages of both directions.
    pub const fn message_kind(self) -> MessageKind {
        if self.is_protobuf() { MessageKind::Binary } else { MessageKind::Text }
    }

    /// Returns what a client's message says.
    ///
    /// # Errors
    /// [`DecodeError`] says why it cannot be understood; the connection ends.
    pub fn decode_client(self, message: &Message) -> Result<ClientMessage, DecodeError> {
        match self.payload(message)? {
            payload if self.is_protobuf() => protobuf::decode_client(payload),
            payload => json::decode_client(payload),
        }
    }

    /// Returns the WebSocket message that tells a client `message`.
    pub fn encode_server(self, message: &ServerMessage) -> Message {
        let encode = if self.is_protobuf() { protobuf::encode_server } else { json::encode_server };
        Message { kind: self.message_kind(), data: encode(message) }
    }

    /// Returns the payload of the WebSocket message that carries `publication`, with a sequence id exactly for reliable clients.
    pub fn encode_publication(self, publication: &Publication, sequence_id: Option<u64>) -> Bytes {
        if self.is_protobuf() {
            protobuf::encode_publication(publication, sequence_id)
        } else {
            json::encode_publication(publication, sequence_id)
        }
    }

    /// Returns the part of a publication's payload that all reliable receivers share: what follows [`Self::publication_head`].
    pub fn publication_tail(self, publication: &Publication) -> Bytes {
        if self.is_protobuf() {
            protobuf::publication_tail(publication)
        } else {
            json::publication_tail(publication)
        }
    }

    /// Writes the part of a publication's payload that belongs to one receiver: at most [`PUBLICATION_HEAD_BYTES_MAX`] bytes, for
    /// which `out` must have room. Followed by a tail of `tail_bytes` it is what [`Self::encode_publication`] returns.
    pub fn publication_head(self, sequence_id: u64, tail_bytes: usize, out: &mut impl BufMut) {
        if self.is_protobuf() {
            protobuf::publication_head(sequence_id, tail_bytes, out);
        } else {
            json::publication_head(sequence_id, tail_bytes, out);
        }
    }

    /// Returns the WebSocket message by which a client asks for `message`.
    pub fn encode_client(self, message: &ClientMessage) -> Message {
        let encode = if self.is_protobuf() { protobuf::encode_client } else { json::encode_client };
        Message { kind: self.message_kind(), data: encode(message) }
    }

    /// Returns what the server's message says to a client.
    ///
    /// # Errors
    /// [`DecodeError`] says why it cannot be understood.
    pub fn decode_server(self, message: &Message) -> Result<Received, DecodeError> {
        match self.payload(message)? {
            payload if self.is_protobuf() => protobuf::decode_server(payload),
            payload => json::decode_server(payload),
        }
    }

    fn payload(self, message: &Message) -> Result<&Bytes, DecodeError> {
        let expected = self.message_kind();
        if message.kind == expected {
            Ok(&message.data)
        } else {
            Err(DecodeError::MessageKind { expected })
        }
    }
}

/// What a client asks for. Names and sizes have been checked against the protocol's rules by the decoder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientMessage {
    /// Join a group.
    JoinGroup {
        /// The group.
        group: GroupName,
        /// Asks for an ack.
        ack_id: Option<u64>,
    },
    /// Leave a group.
    LeaveGroup {
        /// The group.
        group: GroupName,
        /// Asks for an ack.
        ack_id: Option<u64>,
    },
    /// Publish to a group.
    SendToGroup {
        /// The group.
        group: GroupName,
        /// Asks for an ack.
        ack_id: Option<u64>,
        /// The sender does not get its own message.
        no_echo: bool,
        /// How long, in seconds (0 to 300), the message waits for receivers in recovery; absent: as long as they may recover.
        ttl_seconds: Option<u16>,
        /// What to publish.
        data: Data,
        /// Pairs that travel with it.
        metadata: Metadata,
    },
    /// Begin a stream to a group (`sendToGroup` with `stream` and no data).
    StartStream {
        /// The group.
        group: GroupName,
        /// Names the stream within the connection.
        stream_id: String,
        /// The stream ends after this long without a sign, in milliseconds; absent: the protocol's default.
        idle_timeout_ms: Option<u32>,
        /// The publisher does not get its own stream.
        no_echo: bool,
        /// How long each message waits for receivers in recovery, in seconds.
        ttl_seconds: Option<u16>,
        /// Pairs that travel with every message of the stream.
        metadata: Metadata,
    },
    /// The next piece of a stream; without data: it is still alive.
    StreamData {
        /// The stream.
        stream_id: String,
        /// Counts the pieces from 1; absent exactly if there is no data.
        sequence_id: Option<u64>,
        /// The piece.
        data: Option<Data>,
    },
    /// End a stream.
    EndStream {
        /// The stream.
        stream_id: String,
        /// Why, if it failed.
        error: Option<StreamUserError>,
    },
    /// Raise an event at the upstream.
    Event {
        /// Its name.
        event: String,
        /// Asks for an ack.
        ack_id: Option<u64>,
        /// What goes to the upstream.
        data: Data,
        /// Pairs that travel with it.
        metadata: Metadata,
    },
    /// Raise an event and get its answer under the invocation's id.
    Invoke {
        /// Chosen by the client.
        invocation_id: String,
        /// The event's name.
        event: String,
        /// What goes to the upstream; absent: nothing.
        data: Option<Data>,
        /// Pairs that travel with it.
        metadata: Metadata,
    },
    /// The client no longer waits for an invocation.
    CancelInvocation {
        /// The invocation.
        invocation_id: String,
    },
    /// An answer to an invocation by the server, which there is none of: ignored. It has no protobuf.
    InvokeResponse,
    /// Replace the own state in a group.
    SetGroupState {
        /// The group.
        group: GroupName,
        /// Asks for an ack.
        ack_id: Option<u64>,
        /// The state; absent: none.
        state: Option<GroupState>,
    },
    /// Get the states of a group's members and their changes.
    SubscribeGroupState {
        /// The group.
        group: GroupName,
        /// Asks for an ack.
        ack_id: Option<u64>,
    },
    /// Get them no more.
    UnsubscribeGroupState {
        /// The group.
        group: GroupName,
        /// Asks for an ack.
        ack_id: Option<u64>,
    },
    /// All messages up to this sequence id have arrived.
    SequenceAck {
        /// The id.
        sequence_id: u64,
    },
    /// Asks for a pong.
    Ping,
}

/// The state of a connection in a group: a few pairs of text.
pub type GroupState = BTreeMap<String, String>;

/// Why a publisher ended its stream.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StreamUserError {
    /// In words.
    pub message: Option<String>,
    /// In the application's code.
    pub user_error_code: Option<String>,
}

/// An error as acks, invocations and streams tell it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NamedError {
    /// One of the protocol's names, such as `Forbidden`.
    pub name: String,
    /// In words.
    pub message: String,
}

/// Where a stream's message stands, at its subscribers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamPart {
    /// The stream.
    pub stream_id: String,
    /// Counts from 1.
    pub sequence_id: u64,
    /// This is the last one; `Some(Some(error))`: and the stream failed.
    pub end: Option<Option<StreamEndError>>,
}

/// Why a stream failed, at its subscribers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamEndError {
    /// One of the protocol's names, such as `UserError`.
    pub name: String,
    /// In words.
    pub message: Option<String>,
    /// The publisher's code.
    pub user_error_code: Option<String>,
}

/// Who sent a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// The application: REST to a hub, user or connection, or the answer of an event.
    Server,
    /// Somebody to a group.
    Group {
        /// The group.
        group: GroupName,
        /// The sender; absent: the application, or a client without a user.
        user: Option<UserId>,
    },
}

/// A message on its way to subprotocol clients, without its sequence id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publication {
    /// Who sent it.
    pub source: Source,
    /// What it carries.
    pub data: Data,
    /// Pairs that travel with it.
    pub metadata: Metadata,
    /// Its place in a stream.
    pub stream: Option<StreamPart>,
}

/// The state of one member of a group, as subscribers are told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupStateItem {
    /// The member's connection id.
    pub connection_id: String,
    /// Its user.
    pub user_id: Option<UserId>,
    /// Its state; absent: cleared.
    pub state: Option<GroupState>,
    /// When it changed, in milliseconds since 1970.
    pub updated_at: u64,
}

impl GroupStateItem {
    /// Returns the bytes of the state's keys and values.
    pub fn state_bytes(&self) -> usize {
        self.state.iter().flatten().map(|(key, value)| key.len() + value.len()).sum()
    }
}

/// What one client is told, besides [`Publication`]s.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerMessage {
    /// The first message of a connection.
    Connected {
        /// The connection's id.
        connection_id: String,
        /// Its user.
        user_id: Option<UserId>,
        /// Lets a reliable client come back.
        reconnection_token: Option<String>,
    },
    /// The last message before the service closes a connection.
    Disconnected {
        /// Why.
        message: String,
    },
    /// The outcome of what carried an ack id.
    Ack {
        /// The id.
        ack_id: u64,
        /// What failed.
        error: Option<NamedError>,
    },
    /// Answers a ping.
    Pong,
    /// The outcome of an invocation.
    InvokeResponse {
        /// The invocation.
        invocation_id: String,
        /// The answer's data, if there is any, or what failed.
        result: Result<Option<Data>, NamedError>,
    },
    /// How far a stream has been taken.
    StreamAck {
        /// The stream.
        stream_id: String,
        /// The next id expected.
        expected_sequence_id: u64,
    },
    /// A piece of a stream that cannot be taken now.
    StreamNack {
        /// The stream.
        stream_id: String,
        /// What is wrong.
        error: NamedError,
        /// The next id expected.
        expected_sequence_id: u64,
    },
    /// A stream is over.
    StreamClosed {
        /// The stream.
        stream_id: String,
        /// Why, if it failed.
        error: Option<NamedError>,
    },
    /// The states of a group's members (`is_snapshot`) or those that changed.
    GroupState {
        /// All of them, or changes.
        is_snapshot: bool,
        /// The group.
        group: GroupName,
        /// The members.
        items: Vec<GroupStateItem>,
        /// Its place among the messages of a reliable connection.
        sequence_id: Option<u64>,
    },
}

/// What a client reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Received {
    /// It is told something.
    Message(ServerMessage),
    /// Somebody has sent something.
    Publication {
        /// What.
        publication: Publication,
        /// Its place among the messages of a reliable connection.
        sequence_id: Option<u64>,
    },
    /// A type, event, source or kind of data that this version does not know: ignored, as the official clients do.
    Unknown,
}

/// Why a message cannot be understood. At a client's message the connection ends with [`DecodeError::close_code`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A text message on a protobuf connection or a binary one on a JSON connection.
    #[error("the subprotocol has no messages of this kind, only {expected:?}")]
    MessageKind {
        /// What the subprotocol uses.
        expected: MessageKind,
    },
    /// Not the encoding at all.
    #[error("the message is not {0}")]
    Syntax(&'static str),
    /// Understood, but it breaks a rule; the words name the field and never repeat its value.
    #[error("{0}")]
    Rule(String),
}

impl DecodeError {
    /// Returns the close code of a connection that sent such a message (Web PubSub protocol, "Closing and keep-alive").
    pub const fn close_code(&self) -> CloseCode {
        match self {
            Self::MessageKind { .. } => CloseCode::UNSUPPORTED,
            Self::Syntax(_) | Self::Rule(_) => CloseCode::INVALID_PAYLOAD,
        }
    }
}

impl From<DataError> for DecodeError {
    fn from(error: DataError) -> Self {
        Self::Rule(error.to_string())
    }
}
