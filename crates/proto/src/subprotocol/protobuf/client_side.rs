//! What a client writes and reads.

use bytes::Bytes;

use super::super::rules::{metadata, rule};
use super::super::{
    ClientMessage, DecodeError, GroupState, GroupStateItem, NamedError, Publication, Received,
    ServerMessage, Source, StreamEndError, StreamPart,
};
use super::wire::{Reader, Value, put_bytes, put_message, put_number, put_text, text};
use super::{
    ACK, CANCEL_INVOCATION, EVENT, GROUP_STATE_SNAPSHOT, GROUP_STATE_UPDATE, INVOKE,
    INVOKE_RESPONSE, JOIN_GROUP, JSON_DATA, LEAVE_GROUP, PING, PONG, PUBLICATION, Payload,
    SEND_TO_GROUP, SEQUENCE_ACK, SEQUENCE_ID, SET_GROUP_STATE, STREAM_ACK, STREAM_CLOSED,
    STREAM_DATA, STREAM_END, STREAM_NACK, SUBSCRIBE_GROUP_STATE, SYSTEM, UNSUBSCRIBE_GROUP_STATE,
    merge_state, push_pair, put_data, put_optional, put_optional_number, put_pairs, put_state,
};
use crate::name::{GroupName, UserId};

/// Returns the payload of the message that asks the server for `message`. Nothing, which no server takes, for
/// [`ClientMessage::InvokeResponse`].
pub fn encode_client(message: &ClientMessage) -> Bytes {
    let mut out = Vec::with_capacity(128);
    match message {
        ClientMessage::JoinGroup { group, ack_id } => {
            put_group(&mut out, JOIN_GROUP, group, *ack_id);
        }
        ClientMessage::LeaveGroup { group, ack_id } => {
            put_group(&mut out, LEAVE_GROUP, group, *ack_id);
        }
        ClientMessage::SubscribeGroupState { group, ack_id } => {
            put_group(&mut out, SUBSCRIBE_GROUP_STATE, group, *ack_id);
        }
        ClientMessage::UnsubscribeGroupState { group, ack_id } => {
            put_group(&mut out, UNSUBSCRIBE_GROUP_STATE, group, *ack_id);
        }
        ClientMessage::SendToGroup { group, ack_id, no_echo, ttl_seconds, data, metadata } => {
            put_message(&mut out, SEND_TO_GROUP, |out| {
                put_text(out, 1, group.as_str());
                put_optional_number(out, 2, *ack_id);
                put_data(out, 3, data, JSON_DATA);
                put_sending(out, *no_echo, *ttl_seconds);
                put_pairs(out, 6, metadata.pairs());
            });
        }
        ClientMessage::StartStream {
            group,
            stream_id,
            idle_timeout_ms,
            no_echo,
            ttl_seconds,
            metadata,
        } => put_message(&mut out, SEND_TO_GROUP, |out| {
            put_text(out, 1, group.as_str());
            put_sending(out, *no_echo, *ttl_seconds);
            put_pairs(out, 6, metadata.pairs());
            put_message(out, 7, |out| {
                put_text(out, 1, stream_id);
                put_optional_number(out, 2, idle_timeout_ms.map(u64::from));
            });
        }),
        ClientMessage::StreamData { stream_id, sequence_id, data } => {
            put_message(&mut out, STREAM_DATA, |out| {
                put_text(out, 1, stream_id);
                put_optional_number(out, 2, *sequence_id);
                if let Some(data) = data {
                    put_data(out, 3, data, JSON_DATA);
                }
            });
        }
        ClientMessage::EndStream { stream_id, error } => put_message(&mut out, STREAM_END, |out| {
            put_text(out, 1, stream_id);
            if let Some(error) = error {
                put_message(out, 2, |out| {
                    put_optional(out, 1, error.message.as_deref());
                    put_optional(out, 2, error.user_error_code.as_deref());
                });
            }
        }),
        ClientMessage::Event { event, ack_id, data, metadata } => {
            put_message(&mut out, EVENT, |out| {
                put_text(out, 1, event);
                put_data(out, 2, data, JSON_DATA);
                put_optional_number(out, 3, *ack_id);
                put_pairs(out, 4, metadata.pairs());
            });
        }
        ClientMessage::Invoke { invocation_id, event, data, metadata } => {
            put_message(&mut out, INVOKE, |out| {
                put_text(out, 1, event);
                put_text(out, 2, invocation_id);
                if let Some(data) = data {
                    put_data(out, 3, data, JSON_DATA);
                }
                put_pairs(out, 4, metadata.pairs());
            });
        }
        ClientMessage::CancelInvocation { invocation_id } => {
            put_message(&mut out, CANCEL_INVOCATION, |out| put_text(out, 1, invocation_id));
        }
        ClientMessage::InvokeResponse => {}
        ClientMessage::SetGroupState { group, ack_id, state } => {
            put_message(&mut out, SET_GROUP_STATE, |out| {
                put_text(out, 1, group.as_str());
                put_optional_number(out, 2, *ack_id);
                if let Some(state) = state {
                    put_message(out, 3, |out| put_state(out, state));
                }
            });
        }
        ClientMessage::SequenceAck { sequence_id } => {
            put_message(&mut out, SEQUENCE_ACK, |out| put_number(out, 1, *sequence_id));
        }
        ClientMessage::Ping => put_message(&mut out, PING, |_| {}),
    }
    out.into()
}

fn put_group(out: &mut Vec<u8>, number: u32, group: &GroupName, ack_id: Option<u64>) {
    put_message(out, number, |out| {
        put_bytes(out, 1, group.as_str().as_bytes());
        put_optional_number(out, 2, ack_id);
    });
}

fn put_sending(out: &mut Vec<u8>, no_echo: bool, ttl_seconds: Option<u16>) {
    if no_echo {
        put_number(out, 4, 1);
    }
    put_optional_number(out, 5, ttl_seconds.map(u64::from));
}

/// Returns what the server's message says.
///
/// # Errors
/// [`DecodeError`]: it is not protobuf or breaks a rule.
pub fn decode_server(message: &Bytes) -> Result<Received, DecodeError> {
    let mut received = Received::Unknown;
    // Of alternatives the last counts. No server sends one in pieces.
    for field in Reader::new(message) {
        let (number, Value::Bytes(fields)) = field? else { continue };
        let told = match number {
            PUBLICATION => {
                received = publication(message, fields)?;
                continue;
            }
            ACK => ack(fields)?,
            SYSTEM => match system(fields)? {
                Some(told) => told,
                None => continue,
            },
            PONG => ServerMessage::Pong,
            INVOKE_RESPONSE => invoke_response(message, fields)?,
            STREAM_ACK | STREAM_NACK | STREAM_CLOSED => stream_answer(number, fields)?,
            GROUP_STATE_SNAPSHOT | GROUP_STATE_UPDATE => {
                group_state(number == GROUP_STATE_SNAPSHOT, fields)?
            }
            _ => continue,
        };
        received = Received::Message(told);
    }
    Ok(received)
}

fn publication(message: &Bytes, fields: &[u8]) -> Result<Received, DecodeError> {
    let (mut from, mut group, mut payload, mut pairs) = ("", "", None, Vec::new());
    let (mut stream, mut sequence_id) = (None, None);
    for field in Reader::new(fields) {
        match field? {
            (1, Value::Bytes(name)) => from = text(name)?,
            (2, Value::Bytes(name)) => group = text(name)?,
            (3, Value::Bytes(data)) => Payload::merge(&mut payload, data)?,
            (SEQUENCE_ID, Value::Varint(id)) => sequence_id = Some(id),
            (5, Value::Bytes(entry)) => push_pair(&mut pairs, entry)?,
            (6, Value::Bytes(part)) => stream = Some(stream_part(part)?),
            _ => {}
        }
    }
    let source = match from {
        "server" => Source::Server,
        "group" => Source::Group { group: group_name(group)?, user: None },
        _ => return Ok(Received::Unknown),
    };
    let Some(payload) = payload else { return Ok(Received::Unknown) };
    let data = payload.data(message)?;
    let publication = Publication { source, data, metadata: metadata(pairs)?, stream };
    Ok(Received::Publication { publication, sequence_id })
}

fn stream_part(fields: &[u8]) -> Result<StreamPart, DecodeError> {
    let mut part = StreamPart { stream_id: String::new(), sequence_id: 0, end: None };
    let (mut is_last, mut error) = (false, None);
    for field in Reader::new(fields) {
        match field? {
            (1, Value::Bytes(id)) => part.stream_id = string(id)?,
            (2, Value::Varint(id)) => part.sequence_id = id,
            (3, Value::Varint(last)) => is_last = last != 0,
            (4, Value::Bytes(fields)) => error = Some(stream_end_error(fields)?),
            _ => {}
        }
    }
    part.end = is_last.then_some(error);
    Ok(part)
}

fn stream_end_error(fields: &[u8]) -> Result<StreamEndError, DecodeError> {
    let mut error = StreamEndError { name: String::new(), message: None, user_error_code: None };
    for field in Reader::new(fields) {
        match field? {
            (1, Value::Bytes(name)) => error.name = string(name)?,
            (2, Value::Bytes(message)) => error.message = unless_empty(message)?,
            (3, Value::Bytes(code)) => error.user_error_code = unless_empty(code)?,
            _ => {}
        }
    }
    Ok(error)
}

fn ack(fields: &[u8]) -> Result<ServerMessage, DecodeError> {
    let (mut ack_id, mut success, mut error) = (0, false, None);
    for field in Reader::new(fields) {
        match field? {
            (1, Value::Varint(id)) => ack_id = id,
            (2, Value::Varint(is_success)) => success = is_success != 0,
            (3, Value::Bytes(fields)) => error = Some(named_error(fields)?),
            _ => {}
        }
    }
    let error = if success { None } else { Some(error.unwrap_or_default()) };
    Ok(ServerMessage::Ack { ack_id, error })
}

fn system(fields: &[u8]) -> Result<Option<ServerMessage>, DecodeError> {
    let mut told = None;
    for field in Reader::new(fields) {
        match field? {
            (1, Value::Bytes(fields)) => told = Some(connected(fields)?),
            (2, Value::Bytes(fields)) => told = Some(disconnected(fields)?),
            _ => {}
        }
    }
    Ok(told)
}

fn connected(fields: &[u8]) -> Result<ServerMessage, DecodeError> {
    let (mut connection_id, mut user_id, mut reconnection_token) = (String::new(), None, None);
    for field in Reader::new(fields) {
        match field? {
            (1, Value::Bytes(id)) => connection_id = string(id)?,
            (2, Value::Bytes(id)) => user_id = user(id)?,
            (3, Value::Bytes(token)) => reconnection_token = Some(string(token)?),
            _ => {}
        }
    }
    Ok(ServerMessage::Connected { connection_id, user_id, reconnection_token })
}

fn disconnected(fields: &[u8]) -> Result<ServerMessage, DecodeError> {
    let mut message = String::new();
    for field in Reader::new(fields) {
        if let (2, Value::Bytes(reason)) = field? {
            message = string(reason)?;
        }
    }
    Ok(ServerMessage::Disconnected { message })
}

fn invoke_response(message: &Bytes, fields: &[u8]) -> Result<ServerMessage, DecodeError> {
    let (mut invocation_id, mut success) = (String::new(), false);
    let (mut payload, mut error) = (None, None);
    for field in Reader::new(fields) {
        match field? {
            (1, Value::Bytes(id)) => invocation_id = string(id)?,
            (2, Value::Varint(is_success)) => success = is_success != 0,
            (3, Value::Bytes(data)) => Payload::merge(&mut payload, data)?,
            (4, Value::Bytes(fields)) => error = Some(named_error(fields)?),
            _ => {}
        }
    }
    let result = if success {
        Ok(payload.map(|payload| payload.data(message)).transpose()?)
    } else {
        Err(error.unwrap_or_default())
    };
    Ok(ServerMessage::InvokeResponse { invocation_id, result })
}

fn stream_answer(number: u32, fields: &[u8]) -> Result<ServerMessage, DecodeError> {
    let (mut stream_id, mut expected_sequence_id) = (String::new(), 0);
    let (mut nack, mut closed) = (NamedError::default(), None);
    for field in Reader::new(fields) {
        match (number, field?) {
            (_, (1, Value::Bytes(id))) => stream_id = string(id)?,
            (STREAM_ACK, (2, Value::Varint(id))) | (STREAM_NACK, (4, Value::Varint(id))) => {
                expected_sequence_id = id;
            }
            (STREAM_NACK, (2, Value::Bytes(name))) => nack.name = string(name)?,
            (STREAM_NACK, (3, Value::Bytes(message))) => nack.message = string(message)?,
            (STREAM_CLOSED, (2, Value::Bytes(fields))) => closed = Some(named_error(fields)?),
            _ => {}
        }
    }
    Ok(match number {
        STREAM_ACK => ServerMessage::StreamAck { stream_id, expected_sequence_id },
        STREAM_NACK => ServerMessage::StreamNack { stream_id, error: nack, expected_sequence_id },
        _ => ServerMessage::StreamClosed { stream_id, error: closed },
    })
}

fn group_state(is_snapshot: bool, fields: &[u8]) -> Result<ServerMessage, DecodeError> {
    let (mut group, mut items, mut sequence_id) = ("", Vec::new(), None);
    for field in Reader::new(fields) {
        match field? {
            (1, Value::Bytes(name)) => group = text(name)?,
            (2, Value::Bytes(item)) => items.push(group_state_item(item)?),
            (3, Value::Varint(id)) => sequence_id = Some(id),
            _ => {}
        }
    }
    Ok(ServerMessage::GroupState { is_snapshot, group: group_name(group)?, items, sequence_id })
}

fn group_state_item(fields: &[u8]) -> Result<GroupStateItem, DecodeError> {
    let mut item =
        GroupStateItem { connection_id: String::new(), user_id: None, state: None, updated_at: 0 };
    for field in Reader::new(fields) {
        match field? {
            (1, Value::Bytes(id)) => item.connection_id = string(id)?,
            (2, Value::Bytes(id)) => item.user_id = user(id)?,
            (3, Value::Bytes(state)) => {
                merge_state(item.state.get_or_insert_with(GroupState::new), state)?;
            }
            (4, Value::Varint(at)) => item.updated_at = at,
            _ => {}
        }
    }
    if item.connection_id.is_empty() {
        return Err(rule("`connection_id` is missing"));
    }
    Ok(item)
}

fn named_error(fields: &[u8]) -> Result<NamedError, DecodeError> {
    let mut error = NamedError::default();
    for field in Reader::new(fields) {
        match field? {
            (1, Value::Bytes(name)) => error.name = string(name)?,
            (2, Value::Bytes(message)) => error.message = string(message)?,
            _ => {}
        }
    }
    Ok(error)
}

fn string(bytes: &[u8]) -> Result<String, DecodeError> {
    text(bytes).map(str::to_owned)
}

/// Returns text of a field that is empty when it is absent.
fn unless_empty(bytes: &[u8]) -> Result<Option<String>, DecodeError> {
    Ok(Some(string(bytes)?).filter(|text| !text.is_empty()))
}

/// Returns a user, whom servers call "" when there is none.
fn user(bytes: &[u8]) -> Result<Option<UserId>, DecodeError> {
    let id = Some(text(bytes)?).filter(|id| !id.is_empty());
    id.map(UserId::parse).transpose().map_err(|error| rule(error.to_string()))
}

fn group_name(name: &str) -> Result<GroupName, DecodeError> {
    GroupName::parse(name).map_err(|error| rule(error.to_string()))
}
