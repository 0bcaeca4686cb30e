//! The JSON encoding: one object in each text message (Web PubSub protocol, "JSON subprotocol").
//!
//! What is absent is left out and never `null`: .NET and Java clients fail on `null`. The data of JSON messages is neither parsed nor
//! written anew: key order and long numbers stay.

mod client_side;
mod object;

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{BufMut, Bytes};

pub use self::client_side::{decode_server, encode_client};
use self::object::{Field, Object, Writer, string, wrong};
use super::protobuf::is_any;
use super::rules::{Fields, Kind, StreamStart, client_message, rule, share};
use super::{
    ClientMessage, DecodeError, GroupState, GroupStateItem, NamedError, PUBLICATION_HEAD_BYTES_MAX,
    Publication, ServerMessage, Source, StreamPart, StreamUserError,
};
use crate::data::{Data, DataError, DataKind, check_json};
use crate::name::UserId;

/// Returns what a client's message says.
///
/// # Errors
/// [`DecodeError`]: it is not a JSON object or breaks a rule.
pub fn decode_client(message: &Bytes) -> Result<ClientMessage, DecodeError> {
    let object = Object::parse(message)?;
    let name = object.string(Field::Type)?.ok_or_else(|| missing(Field::Type))?;
    let kind = KINDS.iter().find(|(known, _)| known.eq_ignore_ascii_case(&name));
    let (_, kind) = kind.ok_or_else(|| rule("`type` is not known"))?;
    client_message(*kind, &mut Request { message, object })
}

/// The types of client messages, which are compared without regard to case.
const KINDS: [(&str, Kind); 14] = [
    ("sendToGroup", Kind::SendToGroup),
    ("event", Kind::Event),
    ("sequenceAck", Kind::SequenceAck),
    ("ping", Kind::Ping),
    ("joinGroup", Kind::JoinGroup),
    ("leaveGroup", Kind::LeaveGroup),
    ("invoke", Kind::Invoke),
    ("cancelInvocation", Kind::CancelInvocation),
    ("invokeResponse", Kind::InvokeResponse),
    ("streamData", Kind::StreamData),
    ("streamEnd", Kind::StreamEnd),
    ("setGroupState", Kind::SetGroupState),
    ("subscribeGroupState", Kind::SubscribeGroupState),
    ("unsubscribeGroupState", Kind::UnsubscribeGroupState),
];

/// A client's message; `object` borrows from `message`.
struct Request<'a> {
    message: &'a Bytes,
    object: Object<'a>,
}

impl<'a> Request<'a> {
    fn required(&self, field: Field) -> Result<Cow<'a, str>, DecodeError> {
        self.object.string(field)?.ok_or_else(|| missing(field))
    }
}

impl<'a> Fields<'a> for Request<'a> {
    fn group(&mut self) -> Result<Cow<'a, str>, DecodeError> {
        self.required(Field::Group)
    }

    fn event(&mut self) -> Result<Cow<'a, str>, DecodeError> {
        self.required(Field::Event)
    }

    fn targets_event(&mut self) -> Result<bool, DecodeError> {
        Ok(self.required(Field::Target)?.eq_ignore_ascii_case(TARGET))
    }

    fn invocation_id(&mut self) -> Result<Cow<'a, str>, DecodeError> {
        self.required(Field::InvocationId)
    }

    fn stream_id(&mut self) -> Result<Cow<'a, str>, DecodeError> {
        self.required(Field::StreamId)
    }

    fn ack_id(&mut self) -> Result<Option<u64>, DecodeError> {
        self.object.number(Field::AckId)
    }

    fn sequence_id(&mut self) -> Result<u64, DecodeError> {
        self.object.number(Field::SequenceId)?.ok_or_else(|| missing(Field::SequenceId))
    }

    fn stream_sequence_id(&mut self) -> Result<Option<u64>, DecodeError> {
        self.object.number(Field::StreamSequenceId)
    }

    fn no_echo(&mut self) -> Result<bool, DecodeError> {
        Ok(self.object.parsed(Field::NoEcho, "true or false")?.unwrap_or_default())
    }

    fn ttl_seconds(&mut self) -> Result<Option<u64>, DecodeError> {
        self.object.number(Field::TtlSeconds)
    }

    fn data(&mut self) -> Result<Option<Data>, DecodeError> {
        let kind = match self.object.string(Field::DataType)? {
            Some(name) => DataKind::parse(&name).ok_or_else(|| rule("`dataType` is not known"))?,
            None => DataKind::Json,
        };
        data(self.message, &self.object, kind)
    }

    fn metadata(&mut self) -> Result<Option<Vec<(String, String)>>, DecodeError> {
        self.object.pairs(Field::Metadata)
    }

    fn stream(&mut self) -> Result<Option<StreamStart<'a>>, DecodeError> {
        let Some(stream) = self.object.object(Field::Stream)? else { return Ok(None) };
        let stream_id = stream.string(Field::StreamId)?.ok_or_else(|| missing(Field::StreamId))?;
        let idle_timeout_ms = stream.parsed(Field::IdleTimeoutMs, "an unsigned 32-bit number")?;
        Ok(Some(StreamStart { stream_id, idle_timeout_ms }))
    }

    fn stream_error(&mut self) -> Result<Option<StreamUserError>, DecodeError> {
        let Some(error) = self.object.object(Field::Error)? else { return Ok(None) };
        let text = |field| Ok::<_, DecodeError>(error.string(field)?.map(Cow::into_owned));
        Ok(Some(StreamUserError {
            message: text(Field::Message)?,
            user_error_code: text(Field::UserErrorCode)?,
        }))
    }

    fn state(&mut self) -> Result<Option<GroupState>, DecodeError> {
        Ok(self.object.pairs(Field::State)?.map(|pairs| pairs.into_iter().collect()))
    }
}

/// The only target of invocations.
const TARGET: &str = "event";

/// Returns the data of an object in `message`.
fn data(message: &Bytes, object: &Object<'_>, kind: DataKind) -> Result<Option<Data>, DecodeError> {
    let Some(value) = object.raw(Field::Data) else { return Ok(None) };
    if kind == DataKind::Json {
        check_json(value)?;
        return Ok(Some(Data { kind, bytes: share(message, value.get().as_bytes()) }));
    }
    let text = string(value).ok_or_else(|| wrong(Field::Data, "a string"))?;
    let bytes = match kind {
        DataKind::Binary | DataKind::Protobuf => match STANDARD.decode(text.as_bytes()) {
            Ok(bytes) => bytes.into(),
            Err(_) => return Err(wrong(Field::Data, "base64")),
        },
        DataKind::Text | DataKind::Json => match text {
            Cow::Borrowed(text) => share(message, text.as_bytes()),
            Cow::Owned(text) => text.into(),
        },
    };
    if kind == DataKind::Protobuf && !is_any(&bytes) {
        return Err(DataError::Protobuf.into());
    }
    Ok(Some(Data { kind, bytes }))
}

/// Returns the payload of the message that tells a client `message`.
pub fn encode_server(message: &ServerMessage) -> Bytes {
    Writer::object(|out| match message {
        ServerMessage::Connected { connection_id, user_id, reconnection_token } => {
            out.string(Field::Type, "system");
            out.string(Field::Event, "connected");
            out.optional(Field::UserId, user_id.as_ref().map(UserId::as_str));
            out.string(Field::ConnectionId, connection_id);
            out.optional(Field::ReconnectionToken, reconnection_token.as_deref());
        }
        ServerMessage::Disconnected { message } => {
            out.string(Field::Type, "system");
            out.string(Field::Event, "disconnected");
            out.string(Field::Message, message);
        }
        ServerMessage::Ack { ack_id, error } => {
            out.string(Field::Type, "ack");
            out.number(Field::AckId, *ack_id);
            out.boolean(Field::Success, error.is_none());
            put_error(out, error.as_ref());
        }
        ServerMessage::Pong => out.string(Field::Type, "pong"),
        ServerMessage::InvokeResponse { invocation_id, result } => {
            out.string(Field::Type, "invokeResponse");
            out.string(Field::InvocationId, invocation_id);
            out.boolean(Field::Success, result.is_ok());
            match result {
                Ok(Some(data)) => put_data(out, data),
                Ok(None) => {}
                Err(error) => put_error(out, Some(error)),
            }
        }
        ServerMessage::StreamAck { stream_id, expected_sequence_id } => {
            out.string(Field::Type, "streamAck");
            out.string(Field::StreamId, stream_id);
            out.number(Field::ExpectedSequenceId, *expected_sequence_id);
        }
        ServerMessage::StreamNack { stream_id, error, expected_sequence_id } => {
            out.string(Field::Type, "streamNack");
            out.string(Field::StreamId, stream_id);
            out.string(Field::Name, &error.name);
            out.string(Field::Message, &error.message);
            out.number(Field::ExpectedSequenceId, *expected_sequence_id);
        }
        ServerMessage::StreamClosed { stream_id, error } => {
            out.string(Field::Type, "streamClosed");
            out.string(Field::StreamId, stream_id);
            put_error(out, error.as_ref());
        }
        ServerMessage::GroupState { is_snapshot, group, items, sequence_id } => {
            let name = if *is_snapshot { "groupStateSnapshot" } else { "groupStateUpdate" };
            out.string(Field::Type, name);
            out.string(Field::Group, group.as_str());
            out.list(Field::Items, items, put_state_item);
            out.optional_number(Field::SequenceId, *sequence_id);
        }
    })
}

/// Returns the payload of the message that carries `publication`, with a sequence id exactly for reliable clients.
pub fn encode_publication(publication: &Publication, sequence_id: Option<u64>) -> Bytes {
    let mut out = Vec::with_capacity(PUBLICATION_HEAD_BYTES_MAX + tail_bytes(publication));
    match sequence_id {
        Some(id) => publication_head(id, 0, &mut out),
        None => out.push(b'{'),
    }
    put_publication(out, publication)
}

/// Returns the part of a publication's payload that all reliable receivers share.
pub fn publication_tail(publication: &Publication) -> Bytes {
    put_publication(Vec::with_capacity(tail_bytes(publication)), publication)
}

/// Writes the part of a publication's payload that belongs to one receiver, at most [`PUBLICATION_HEAD_BYTES_MAX`] bytes. It does not
/// depend on the length of the tail.
///
/// # Panics
/// When `out` has no room for that.
pub fn publication_head(sequence_id: u64, _tail_bytes: usize, out: &mut impl BufMut) {
    out.put_slice(b"{\"");
    out.put_slice(Field::SequenceId.name().as_bytes());
    out.put_slice(b"\":");
    // Without the machinery of `write!`, which costs several times as much.
    serde_json::to_writer(out.writer(), &sequence_id).expect("the caller has made room");
    out.put_u8(b',');
}

/// Returns about how long a tail will be.
fn tail_bytes(publication: &Publication) -> usize {
    256 + publication.metadata.bytes() + publication.data.bytes.len() / 2 * 3
}

fn put_publication(out: Vec<u8>, publication: &Publication) -> Bytes {
    let mut out = Writer::after(out);
    out.string(Field::Type, "message");
    match &publication.source {
        Source::Server => out.string(Field::From, "server"),
        Source::Group { group, user } => {
            out.string(Field::From, "group");
            out.optional(Field::FromUserId, user.as_ref().map(UserId::as_str));
            out.string(Field::Group, group.as_str());
        }
    }
    put_data(&mut out, &publication.data);
    if !publication.metadata.is_empty() {
        out.pairs(Field::Metadata, publication.metadata.pairs());
    }
    if let Some(part) = &publication.stream {
        out.nested(Field::Stream, |out| put_stream(out, part));
    }
    out.end()
}

fn put_stream(out: &mut Writer, part: &StreamPart) {
    out.string(Field::StreamId, &part.stream_id);
    out.number(Field::StreamSequenceId, part.sequence_id);
    if let Some(error) = &part.end {
        out.boolean(Field::EndOfStream, true);
        if let Some(error) = error {
            out.nested(Field::Error, |out| {
                out.string(Field::Name, &error.name);
                out.optional(Field::Message, error.message.as_deref());
                out.optional(Field::UserErrorCode, error.user_error_code.as_deref());
            });
        }
    }
}

/// Writes both properties: no client takes one without the other (Web PubSub protocol, "What the SDKs tolerate").
fn put_data(out: &mut Writer, data: &Data) {
    out.string(Field::DataType, data.kind.as_str());
    // Text and JSON are UTF-8 wherever they were made as they should be.
    match data.kind {
        DataKind::Text => out.string(Field::Data, &String::from_utf8_lossy(&data.bytes)),
        DataKind::Json => out.json(Field::Data, &String::from_utf8_lossy(&data.bytes)),
        DataKind::Binary | DataKind::Protobuf => out.base64(Field::Data, &data.bytes),
    }
}

/// Writes both of an error's properties: Python fails without one of them.
fn put_error(out: &mut Writer, error: Option<&NamedError>) {
    if let Some(error) = error {
        out.nested(Field::Error, |out| {
            out.string(Field::Name, &error.name);
            out.string(Field::Message, &error.message);
        });
    }
}

fn put_state_item(out: &mut Writer, item: &GroupStateItem) {
    out.string(Field::ConnectionId, &item.connection_id);
    out.optional(Field::UserId, item.user_id.as_ref().map(UserId::as_str));
    put_state(out, item.state.as_ref());
    out.number(Field::UpdatedAt, item.updated_at);
}

fn put_state(out: &mut Writer, state: Option<&GroupState>) {
    if let Some(state) = state {
        out.pairs(Field::State, state.iter().map(|(name, value)| (name.as_str(), value.as_str())));
    }
}

fn missing(field: Field) -> DecodeError {
    rule(format!("`{}` is missing", field.name()))
}
