//! The protobuf encoding: one proto3 message in each binary message (Web PubSub protocol, "Protobuf subprotocols").
//!
//! Written by hand: there are few messages, data is shared instead of copied, an `Any` stays as it came, and a publication comes in two
//! parts. Field numbers stand where they are read and written.

mod client_side;
mod wire;

use std::borrow::Cow;

use bytes::{BufMut, Bytes};

pub use self::client_side::{decode_server, encode_client};
use self::wire::{
    Reader, Value, field_bytes, put_bytes, put_message, put_number, put_prefix, put_text,
    put_varint, text, varint_bytes,
};
use super::rules::{Fields, Kind, PAIRS_MAX, StreamStart, client_message, rule, share};
use super::{
    ClientMessage, DecodeError, GroupState, GroupStateItem, NamedError, PUBLICATION_HEAD_BYTES_MAX,
    Publication, ServerMessage, Source, StreamPart, StreamUserError,
};
use crate::data::{Data, DataKind};
use crate::name::UserId;

/// The field of `MessageData` in which clients get JSON: as text, since clients of the older structure do not know `json_data` and would
/// get nothing (Web PubSub protocol, "`MessageData`").
const JSON_FOR_CLIENTS: u32 = TEXT_DATA;

/// The fields of `MessageData`.
const TEXT_DATA: u32 = 1;
const BINARY_DATA: u32 = 2;
const PROTOBUF_DATA: u32 = 3;
const JSON_DATA: u32 = 4;

/// The fields of `UpstreamMessage`.
const SEND_TO_GROUP: u32 = 1;
const EVENT: u32 = 5;
const JOIN_GROUP: u32 = 6;
const LEAVE_GROUP: u32 = 7;
const SEQUENCE_ACK: u32 = 8;
const PING: u32 = 9;
const INVOKE: u32 = 10;
const CANCEL_INVOCATION: u32 = 11;
const STREAM_DATA: u32 = 13;
const STREAM_END: u32 = 14;
const SET_GROUP_STATE: u32 = 15;
const SUBSCRIBE_GROUP_STATE: u32 = 16;
const UNSUBSCRIBE_GROUP_STATE: u32 = 17;

/// The fields of `DownstreamMessage`.
const ACK: u32 = 1;
const PUBLICATION: u32 = 2;
const SYSTEM: u32 = 3;
const PONG: u32 = 4;
const INVOKE_RESPONSE: u32 = 5;
const STREAM_ACK: u32 = 6;
const STREAM_NACK: u32 = 7;
const STREAM_CLOSED: u32 = 8;
const GROUP_STATE_UPDATE: u32 = 9;
const GROUP_STATE_SNAPSHOT: u32 = 10;

/// The field of a publication that is in its head.
const SEQUENCE_ID: u32 = 4;

/// Returns what a client's message says.
///
/// # Errors
/// [`DecodeError`]: it is not protobuf or breaks a rule.
pub fn decode_client(message: &Bytes) -> Result<ClientMessage, DecodeError> {
    let mut last: Option<(u32, Kind, Request<'_>)> = None;
    for field in Reader::new(message) {
        let (number, Value::Bytes(fields)) = field? else { continue };
        let Some(kind) = kind(number) else { continue };
        // Of alternatives the last counts; one that comes in pieces is merged.
        let mut request = match last.take() {
            Some((before, _, request)) if before == number => request,
            _ => Request::new(message),
        };
        request.merge(kind, fields)?;
        last = Some((number, kind, request));
    }
    match last {
        Some((_, kind, mut request)) => client_message(kind, &mut request),
        None => Err(rule("the message is of no known type")),
    }
}

/// Returns the type of message in that field of `UpstreamMessage`.
const fn kind(number: u32) -> Option<Kind> {
    Some(match number {
        SEND_TO_GROUP => Kind::SendToGroup,
        EVENT => Kind::Event,
        JOIN_GROUP => Kind::JoinGroup,
        LEAVE_GROUP => Kind::LeaveGroup,
        SEQUENCE_ACK => Kind::SequenceAck,
        PING => Kind::Ping,
        INVOKE => Kind::Invoke,
        CANCEL_INVOCATION => Kind::CancelInvocation,
        STREAM_DATA => Kind::StreamData,
        STREAM_END => Kind::StreamEnd,
        SET_GROUP_STATE => Kind::SetGroupState,
        SUBSCRIBE_GROUP_STATE => Kind::SubscribeGroupState,
        UNSUBSCRIBE_GROUP_STATE => Kind::UnsubscribeGroupState,
        _ => return None,
    })
}

/// What the fields of a client's message hold; absent ones have their defaults.
struct Request<'a> {
    message: &'a Bytes,
    /// The group, event, invocation or stream.
    name: &'a str,
    invocation_id: &'a str,
    ack_id: Option<u64>,
    sequence_id: Option<u64>,
    no_echo: bool,
    ttl_seconds: Option<u64>,
    data: Option<Payload<'a>>,
    metadata: Vec<(String, String)>,
    stream: Option<(&'a str, Option<u32>)>,
    stream_error: Option<StreamUserError>,
    state: Option<GroupState>,
}

impl<'a> Request<'a> {
    const fn new(message: &'a Bytes) -> Self {
        Self {
            message,
            name: "",
            invocation_id: "",
            ack_id: None,
            sequence_id: None,
            no_echo: false,
            ttl_seconds: None,
            data: None,
            metadata: Vec::new(),
            stream: None,
            stream_error: None,
            state: None,
        }
    }

    fn merge(&mut self, kind: Kind, fields: &'a [u8]) -> Result<(), DecodeError> {
        for field in Reader::new(fields) {
            match (kind, field?) {
                (Kind::SequenceAck, (1, Value::Varint(id)))
                | (Kind::StreamData, (2, Value::Varint(id))) => self.sequence_id = Some(id),
                (Kind::CancelInvocation, (1, Value::Bytes(id)))
                | (Kind::Invoke, (2, Value::Bytes(id))) => self.invocation_id = text(id)?,
                (_, (1, Value::Bytes(name))) => self.name = text(name)?,

                (
                    Kind::SendToGroup
                    | Kind::JoinGroup
                    | Kind::LeaveGroup
                    | Kind::SetGroupState
                    | Kind::SubscribeGroupState
                    | Kind::UnsubscribeGroupState,
                    (2, Value::Varint(id)),
                )
                | (Kind::Event, (3, Value::Varint(id))) => self.ack_id = Some(id),

                (Kind::SendToGroup | Kind::Invoke | Kind::StreamData, (3, Value::Bytes(data)))
                | (Kind::Event, (2, Value::Bytes(data))) => Payload::merge(&mut self.data, data)?,

                (Kind::SendToGroup, (4, Value::Varint(no_echo))) => self.no_echo = no_echo != 0,
                (Kind::SendToGroup, (5, Value::Varint(ttl))) => {
                    self.ttl_seconds = Some(u64::from(low_32_bits(ttl)));
                }

                (Kind::SendToGroup, (6, Value::Bytes(entry)))
                | (Kind::Event | Kind::Invoke, (4, Value::Bytes(entry))) => {
                    push_pair(&mut self.metadata, entry)?;
                }

                (Kind::SendToGroup, (7, Value::Bytes(stream)))
                | (Kind::Event | Kind::Invoke, (5, Value::Bytes(stream))) => {
                    merge_stream(self.stream.get_or_insert_default(), stream)?;
                }

                (Kind::StreamEnd, (2, Value::Bytes(error))) => {
                    merge_stream_error(self.stream_error.get_or_insert_default(), error)?;
                }
                (Kind::SetGroupState, (3, Value::Bytes(state))) => {
                    merge_state(self.state.get_or_insert_default(), state)?;
                }
                _ => {}
            }
        }
        Ok(())
    }
}

impl<'a> Fields<'a> for Request<'a> {
    fn group(&mut self) -> Result<Cow<'a, str>, DecodeError> {
        Ok(self.name.into())
    }

    fn event(&mut self) -> Result<Cow<'a, str>, DecodeError> {
        Ok(self.name.into())
    }

    fn targets_event(&mut self) -> Result<bool, DecodeError> {
        Ok(true)
    }

    fn invocation_id(&mut self) -> Result<Cow<'a, str>, DecodeError> {
        Ok(self.invocation_id.into())
    }

    fn stream_id(&mut self) -> Result<Cow<'a, str>, DecodeError> {
        Ok(self.name.into())
    }

    fn ack_id(&mut self) -> Result<Option<u64>, DecodeError> {
        Ok(self.ack_id)
    }

    fn sequence_id(&mut self) -> Result<u64, DecodeError> {
        Ok(self.sequence_id.unwrap_or_default())
    }

    fn stream_sequence_id(&mut self) -> Result<Option<u64>, DecodeError> {
        Ok(self.sequence_id)
    }

    fn no_echo(&mut self) -> Result<bool, DecodeError> {
        Ok(self.no_echo)
    }

    fn ttl_seconds(&mut self) -> Result<Option<u64>, DecodeError> {
        Ok(self.ttl_seconds)
    }

    fn data(&mut self) -> Result<Option<Data>, DecodeError> {
        self.data.take().map(|payload| payload.data(self.message)).transpose()
    }

    fn metadata(&mut self) -> Result<Option<Vec<(String, String)>>, DecodeError> {
        // A map that is empty is not on the wire.
        Ok(Some(std::mem::take(&mut self.metadata)).filter(|pairs| !pairs.is_empty()))
    }

    fn stream(&mut self) -> Result<Option<StreamStart<'a>>, DecodeError> {
        Ok(self
            .stream
            .take()
            .map(|(id, idle_timeout_ms)| StreamStart { stream_id: id.into(), idle_timeout_ms }))
    }

    fn stream_error(&mut self) -> Result<Option<StreamUserError>, DecodeError> {
        Ok(self.stream_error.take())
    }

    fn state(&mut self) -> Result<Option<GroupState>, DecodeError> {
        Ok(self.state.take())
    }
}

/// A `MessageData`.
enum Payload<'a> {
    Text(&'a [u8]),
    Binary(&'a [u8]),
    Any(Cow<'a, [u8]>),
    Json(&'a [u8]),
}

impl<'a> Payload<'a> {
    /// Reads the alternatives of which the last counts. Two parts of an `Any` make one by standing behind each other.
    fn merge(payload: &mut Option<Self>, message_data: &'a [u8]) -> Result<(), DecodeError> {
        for field in Reader::new(message_data) {
            let (number, Value::Bytes(bytes)) = field? else { continue };
            *payload = match number {
                TEXT_DATA => Some(Self::Text(bytes)),
                BINARY_DATA => Some(Self::Binary(bytes)),
                PROTOBUF_DATA => match payload.take() {
                    Some(Self::Any(mut before)) => {
                        before.to_mut().extend_from_slice(bytes);
                        Some(Self::Any(before))
                    }
                    _ => Some(Self::Any(Cow::Borrowed(bytes))),
                },
                JSON_DATA => Some(Self::Json(bytes)),
                _ => payload.take(),
            };
        }
        Ok(())
    }

    fn data(self, message: &Bytes) -> Result<Data, DecodeError> {
        let (kind, bytes) = match self {
            Self::Text(bytes) => (DataKind::Text, share(message, bytes)),
            Self::Binary(bytes) => (DataKind::Binary, share(message, bytes)),
            Self::Any(Cow::Borrowed(bytes)) => (DataKind::Protobuf, share(message, bytes)),
            Self::Any(Cow::Owned(bytes)) => (DataKind::Protobuf, bytes.into()),
            Self::Json(bytes) => (DataKind::Json, share(message, bytes)),
        };
        let data = Data::new(kind, bytes)?;
        // White space around a JSON value is not part of it, as in the other encoding.
        let bytes = match kind {
            DataKind::Json => data.bytes.slice_ref(data.bytes.trim_ascii()),
            DataKind::Text | DataKind::Binary | DataKind::Protobuf => data.bytes,
        };
        Ok(Data { kind, bytes })
    }
}

/// Whether `bytes` are a serialised `google.protobuf.Any` that every implementation reads.
pub fn is_any(bytes: &[u8]) -> bool {
    Reader::new(bytes).all(|field| match field {
        Ok((1, Value::Bytes(type_url))) => text(type_url).is_ok(),
        Ok((2, Value::Bytes(_))) => true,
        Ok((number, _)) => 2 < number,
        Err(_) => false,
    })
}

fn push_pair(pairs: &mut Vec<(String, String)>, entry: &[u8]) -> Result<(), DecodeError> {
    check_pairs(pairs.len())?;
    pairs.push(map_entry(entry)?);
    Ok(())
}

fn check_pairs(pairs: usize) -> Result<(), DecodeError> {
    if pairs < PAIRS_MAX { Ok(()) } else { Err(rule("a map has too many entries")) }
}

fn map_entry(entry: &[u8]) -> Result<(String, String), DecodeError> {
    let (mut key, mut value) = ("", "");
    for field in Reader::new(entry) {
        match field? {
            (1, Value::Bytes(bytes)) => key = text(bytes)?,
            (2, Value::Bytes(bytes)) => value = text(bytes)?,
            _ => {}
        }
    }
    Ok((key.to_owned(), value.to_owned()))
}

fn merge_stream<'a>(
    stream: &mut (&'a str, Option<u32>),
    fields: &'a [u8],
) -> Result<(), DecodeError> {
    for field in Reader::new(fields) {
        match field? {
            (1, Value::Bytes(id)) => stream.0 = text(id)?,
            (2, Value::Varint(timeout)) => stream.1 = Some(low_32_bits(timeout)),
            _ => {}
        }
    }
    Ok(())
}

fn merge_stream_error(error: &mut StreamUserError, fields: &[u8]) -> Result<(), DecodeError> {
    for field in Reader::new(fields) {
        match field? {
            (1, Value::Bytes(message)) => error.message = Some(text(message)?.to_owned()),
            (2, Value::Bytes(code)) => error.user_error_code = Some(text(code)?.to_owned()),
            _ => {}
        }
    }
    Ok(())
}

fn merge_state(state: &mut GroupState, fields: &[u8]) -> Result<(), DecodeError> {
    for field in Reader::new(fields) {
        if let (1, Value::Bytes(entry)) = field? {
            check_pairs(state.len())?;
            let (name, value) = map_entry(entry)?;
            state.insert(name, value);
        }
    }
    Ok(())
}

/// Returns a 32-bit field of an integer, whose other bits are dropped.
fn low_32_bits(value: u64) -> u32 {
    u32::try_from(value & u64::from(u32::MAX)).expect("the other bits are gone")
}

/// Returns the payload of the message that tells a client `message`.
pub fn encode_server(message: &ServerMessage) -> Bytes {
    let mut out = Vec::with_capacity(128);
    match message {
        ServerMessage::Connected { connection_id, user_id, reconnection_token } => {
            put_message(&mut out, SYSTEM, |out| {
                put_message(out, 1, |out| {
                    put_text(out, 1, connection_id);
                    put_text(out, 2, user_id.as_ref().map_or("", UserId::as_str));
                    put_optional(out, 3, reconnection_token.as_deref());
                });
            });
        }
        ServerMessage::Disconnected { message } => put_message(&mut out, SYSTEM, |out| {
            put_message(out, 2, |out| put_text(out, 2, message));
        }),
        ServerMessage::Ack { ack_id, error } => put_message(&mut out, ACK, |out| {
            put_number(out, 1, *ack_id);
            put_number(out, 2, u64::from(error.is_none()));
            put_error(out, 3, error.as_ref());
        }),
        ServerMessage::Pong => put_message(&mut out, PONG, |_| {}),
        ServerMessage::InvokeResponse { invocation_id, result } => {
            put_message(&mut out, INVOKE_RESPONSE, |out| {
                put_text(out, 1, invocation_id);
                put_number(out, 2, u64::from(result.is_ok()));
                match result {
                    Ok(Some(data)) => put_data(out, 3, data, JSON_FOR_CLIENTS),
                    Ok(None) => {}
                    Err(error) => put_error(out, 4, Some(error)),
                }
            });
        }
        ServerMessage::StreamAck { stream_id, expected_sequence_id } => {
            put_message(&mut out, STREAM_ACK, |out| {
                put_text(out, 1, stream_id);
                put_number(out, 2, *expected_sequence_id);
            });
        }
        ServerMessage::StreamNack { stream_id, error, expected_sequence_id } => {
            put_message(&mut out, STREAM_NACK, |out| {
                put_text(out, 1, stream_id);
                put_text(out, 2, &error.name);
                put_text(out, 3, &error.message);
                put_number(out, 4, *expected_sequence_id);
            });
        }
        ServerMessage::StreamClosed { stream_id, error } => {
            put_message(&mut out, STREAM_CLOSED, |out| {
                put_text(out, 1, stream_id);
                put_error(out, 2, error.as_ref());
            });
        }
        ServerMessage::GroupState { is_snapshot, group, items, sequence_id } => {
            let number = if *is_snapshot { GROUP_STATE_SNAPSHOT } else { GROUP_STATE_UPDATE };
            put_message(&mut out, number, |out| {
                put_text(out, 1, group.as_str());
                for item in items {
                    put_message(out, 2, |out| put_state_item(out, item));
                }
                put_optional_number(out, 3, *sequence_id);
            });
        }
    }
    out.into()
}

/// Returns the payload of the message that carries `publication`, with a sequence id exactly for reliable clients.
pub fn encode_publication(publication: &Publication, sequence_id: Option<u64>) -> Bytes {
    let tail = publication_tail(publication);
    let mut out = Vec::with_capacity(PUBLICATION_HEAD_BYTES_MAX + tail.len());
    match sequence_id {
        Some(id) => publication_head(id, tail.len(), &mut out),
        None => put_prefix(&mut out, PUBLICATION, tail.len()),
    }
    out.extend_from_slice(&tail);
    out.into()
}

/// Returns the part of a publication's payload that all reliable receivers share.
pub fn publication_tail(publication: &Publication) -> Bytes {
    let Publication { source, data, metadata, stream } = publication;
    let mut out = Vec::with_capacity(256 + metadata.bytes() * 2 + data.bytes.len());
    match source {
        Source::Server => put_text(&mut out, 1, "server"),
        // The sender's user has no field.
        Source::Group { group, user: _ } => {
            put_text(&mut out, 1, "group");
            put_text(&mut out, 2, group.as_str());
        }
    }
    put_data(&mut out, 3, data, JSON_FOR_CLIENTS);
    put_pairs(&mut out, 5, metadata.pairs());
    if let Some(part) = stream {
        put_message(&mut out, 6, |out| put_stream(out, part));
    }
    out.into()
}

/// Writes the part of a publication's payload that belongs to one receiver, at most [`PUBLICATION_HEAD_BYTES_MAX`] bytes.
pub fn publication_head(sequence_id: u64, tail_bytes: usize, out: &mut impl BufMut) {
    put_prefix(out, PUBLICATION, 1 + varint_bytes(sequence_id) + tail_bytes);
    put_varint(out, u64::from(SEQUENCE_ID << 3));
    put_varint(out, sequence_id);
}

/// Writes a `MessageData`, JSON in the field `json`. A field that is empty is written all the same, since it says of which kind the data is.
fn put_data(out: &mut Vec<u8>, number: u32, data: &Data, json: u32) {
    let (field, is_text) = match data.kind {
        DataKind::Text => (TEXT_DATA, true),
        DataKind::Json => (json, true),
        DataKind::Binary => (BINARY_DATA, false),
        DataKind::Protobuf => (PROTOBUF_DATA, false),
    };
    // Text is UTF-8 wherever it was made as it should be; if not, protobuf clients could not read the message at all.
    let bytes = if is_text && simdutf8::basic::from_utf8(&data.bytes).is_err() {
        Cow::Owned(String::from_utf8_lossy(&data.bytes).into_owned().into_bytes())
    } else {
        Cow::Borrowed(&data.bytes[..])
    };
    put_prefix(out, number, field_bytes(bytes.len()));
    put_bytes(out, field, &bytes);
}

fn put_stream(out: &mut Vec<u8>, part: &StreamPart) {
    put_text(out, 1, &part.stream_id);
    put_number(out, 2, part.sequence_id);
    if let Some(error) = &part.end {
        put_number(out, 3, 1);
        if let Some(error) = error {
            put_message(out, 4, |out| {
                put_text(out, 1, &error.name);
                put_text(out, 2, error.message.as_deref().unwrap_or_default());
                put_text(out, 3, error.user_error_code.as_deref().unwrap_or_default());
            });
        }
    }
}

fn put_error(out: &mut Vec<u8>, number: u32, error: Option<&NamedError>) {
    if let Some(error) = error {
        put_message(out, number, |out| {
            put_text(out, 1, &error.name);
            put_text(out, 2, &error.message);
        });
    }
}

fn put_state_item(out: &mut Vec<u8>, item: &GroupStateItem) {
    put_text(out, 1, &item.connection_id);
    put_optional(out, 2, item.user_id.as_ref().map(UserId::as_str));
    if let Some(state) = &item.state {
        put_message(out, 3, |out| put_state(out, state));
    }
    put_number(out, 4, item.updated_at);
}

fn put_state(out: &mut Vec<u8>, state: &GroupState) {
    put_pairs(out, 1, state.iter().map(|(name, value)| (name.as_str(), value.as_str())));
}

fn put_pairs<'p>(out: &mut Vec<u8>, number: u32, pairs: impl Iterator<Item = (&'p str, &'p str)>) {
    for (key, value) in pairs {
        put_message(out, number, |out| {
            put_bytes(out, 1, key.as_bytes());
            put_bytes(out, 2, value.as_bytes());
        });
    }
}

fn put_optional_number(out: &mut Vec<u8>, number: u32, value: Option<u64>) {
    if let Some(value) = value {
        put_number(out, number, value);
    }
}

fn put_optional(out: &mut Vec<u8>, number: u32, value: Option<&str>) {
    if let Some(value) = value {
        put_bytes(out, number, value.as_bytes());
    }
}
