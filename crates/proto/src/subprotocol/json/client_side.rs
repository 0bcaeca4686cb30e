//! What a client writes and reads.

use std::borrow::Cow;

use bytes::Bytes;

use super::super::rules::{metadata, rule};
use super::super::{
    ClientMessage, DecodeError, GroupStateItem, NamedError, Publication, Received, ServerMessage,
    Source, StreamEndError, StreamPart,
};
use super::object::{Field, Object, Writer};
use super::{TARGET, data, missing, put_data, put_state};
use crate::data::{Data, DataKind, Metadata};
use crate::name::{GroupName, UserId};

/// Returns the payload of the message that asks the server for `message`.
pub fn encode_client(message: &ClientMessage) -> Bytes {
    Writer::object(|out| match message {
        ClientMessage::JoinGroup { group, ack_id } => {
            put_group(out, "joinGroup", group, *ack_id);
        }
        ClientMessage::LeaveGroup { group, ack_id } => {
            put_group(out, "leaveGroup", group, *ack_id);
        }
        ClientMessage::SendToGroup { group, ack_id, no_echo, ttl_seconds, data, metadata } => {
            put_group(out, "sendToGroup", group, *ack_id);
            put_sending(out, *no_echo, *ttl_seconds);
            put_data(out, data);
            put_metadata(out, metadata);
        }
        ClientMessage::StartStream {
            group,
            stream_id,
            idle_timeout_ms,
            no_echo,
            ttl_seconds,
            metadata,
        } => {
            put_group(out, "sendToGroup", group, None);
            put_sending(out, *no_echo, *ttl_seconds);
            put_metadata(out, metadata);
            out.nested(Field::Stream, |out| {
                out.string(Field::StreamId, stream_id);
                out.optional_number(Field::IdleTimeoutMs, idle_timeout_ms.map(u64::from));
            });
        }
        ClientMessage::StreamData { stream_id, sequence_id, data } => {
            out.string(Field::Type, "streamData");
            out.string(Field::StreamId, stream_id);
            out.optional_number(Field::StreamSequenceId, *sequence_id);
            if let Some(data) = data {
                put_data(out, data);
            }
        }
        ClientMessage::EndStream { stream_id, error } => {
            out.string(Field::Type, "streamEnd");
            out.string(Field::StreamId, stream_id);
            if let Some(error) = error {
                out.nested(Field::Error, |out| {
                    out.optional(Field::Message, error.message.as_deref());
                    out.optional(Field::UserErrorCode, error.user_error_code.as_deref());
                });
            }
        }
        ClientMessage::Event { event, ack_id, data, metadata } => {
            out.string(Field::Type, "event");
            out.string(Field::Event, event);
            out.optional_number(Field::AckId, *ack_id);
            put_data(out, data);
            put_metadata(out, metadata);
        }
        ClientMessage::Invoke { invocation_id, event, data, metadata } => {
            out.string(Field::Type, "invoke");
            out.string(Field::InvocationId, invocation_id);
            out.string(Field::Target, TARGET);
            out.string(Field::Event, event);
            if let Some(data) = data {
                put_data(out, data);
            }
            put_metadata(out, metadata);
        }
        ClientMessage::CancelInvocation { invocation_id } => {
            out.string(Field::Type, "cancelInvocation");
            out.string(Field::InvocationId, invocation_id);
        }
        ClientMessage::InvokeResponse => out.string(Field::Type, "invokeResponse"),
        ClientMessage::SetGroupState { group, ack_id, state } => {
            put_group(out, "setGroupState", group, *ack_id);
            put_state(out, state.as_ref());
        }
        ClientMessage::SubscribeGroupState { group, ack_id } => {
            put_group(out, "subscribeGroupState", group, *ack_id);
        }
        ClientMessage::UnsubscribeGroupState { group, ack_id } => {
            put_group(out, "unsubscribeGroupState", group, *ack_id);
        }
        ClientMessage::SequenceAck { sequence_id } => {
            out.string(Field::Type, "sequenceAck");
            out.number(Field::SequenceId, *sequence_id);
        }
        ClientMessage::Ping => out.string(Field::Type, "ping"),
    })
}

fn put_group(out: &mut Writer, name: &str, group: &GroupName, ack_id: Option<u64>) {
    out.string(Field::Type, name);
    out.string(Field::Group, group.as_str());
    out.optional_number(Field::AckId, ack_id);
}

fn put_sending(out: &mut Writer, no_echo: bool, ttl_seconds: Option<u16>) {
    if no_echo {
        out.boolean(Field::NoEcho, true);
    }
    out.optional_number(Field::TtlSeconds, ttl_seconds.map(u64::from));
}

fn put_metadata(out: &mut Writer, metadata: &Metadata) {
    if !metadata.is_empty() {
        out.pairs(Field::Metadata, metadata.pairs());
    }
}

/// Returns what the server's message says.
///
/// # Errors
/// [`DecodeError`]: it is not a JSON object or breaks a rule.
pub fn decode_server(message: &Bytes) -> Result<Received, DecodeError> {
    let object = Object::parse(message)?;
    let told = match &*required(&object, Field::Type)? {
        "message" => return publication(message, &object),
        "system" => match &*required(&object, Field::Event)? {
            "connected" => ServerMessage::Connected {
                connection_id: required(&object, Field::ConnectionId)?.into_owned(),
                user_id: user(&object, Field::UserId)?,
                reconnection_token: optional(&object, Field::ReconnectionToken)?,
            },
            "disconnected" => ServerMessage::Disconnected {
                message: optional(&object, Field::Message)?.unwrap_or_default(),
            },
            _ => return Ok(Received::Unknown),
        },
        "ack" => ServerMessage::Ack {
            ack_id: number(&object, Field::AckId)?,
            error: if success(&object)? { None } else { Some(error(&object)?.unwrap_or_default()) },
        },
        "pong" => ServerMessage::Pong,
        "invokeResponse" => ServerMessage::InvokeResponse {
            invocation_id: required(&object, Field::InvocationId)?.into_owned(),
            result: match (success(&object)?, kind(&object)?) {
                (true, Some(kind)) => Ok(data(message, &object, kind)?),
                (true, None) => return Ok(Received::Unknown),
                (false, _) => Err(error(&object)?.unwrap_or_default()),
            },
        },
        "streamAck" => ServerMessage::StreamAck {
            stream_id: required(&object, Field::StreamId)?.into_owned(),
            expected_sequence_id: number(&object, Field::ExpectedSequenceId)?,
        },
        "streamNack" => ServerMessage::StreamNack {
            stream_id: required(&object, Field::StreamId)?.into_owned(),
            error: named(&object)?,
            expected_sequence_id: number(&object, Field::ExpectedSequenceId)?,
        },
        "streamClosed" => ServerMessage::StreamClosed {
            stream_id: required(&object, Field::StreamId)?.into_owned(),
            error: error(&object)?,
        },
        "groupStateSnapshot" => group_state(&object, true)?,
        "groupStateUpdate" => group_state(&object, false)?,
        _ => return Ok(Received::Unknown),
    };
    Ok(Received::Message(told))
}

fn publication(message: &Bytes, object: &Object<'_>) -> Result<Received, DecodeError> {
    let source = match &*required(object, Field::From)? {
        "server" => Source::Server,
        "group" => Source::Group { group: group(object)?, user: user(object, Field::FromUserId)? },
        _ => return Ok(Received::Unknown),
    };
    let Some(kind) = kind(object)? else { return Ok(Received::Unknown) };
    let data: Option<Data> = data(message, object, kind)?;
    let publication = Publication {
        source,
        data: data.ok_or_else(|| missing(Field::Data))?,
        metadata: metadata(object.pairs(Field::Metadata)?.unwrap_or_default())?,
        stream: object.object(Field::Stream)?.as_ref().map(stream_part).transpose()?,
    };
    Ok(Received::Publication { publication, sequence_id: object.number(Field::SequenceId)? })
}

fn stream_part(stream: &Object<'_>) -> Result<StreamPart, DecodeError> {
    let is_last: Option<bool> = stream.parsed(Field::EndOfStream, "true or false")?;
    let error = stream.object(Field::Error)?;
    let end_error = |error: &Object<'_>| {
        Ok::<_, DecodeError>(StreamEndError {
            name: required(error, Field::Name)?.into_owned(),
            message: optional(error, Field::Message)?,
            user_error_code: optional(error, Field::UserErrorCode)?,
        })
    };
    Ok(StreamPart {
        stream_id: required(stream, Field::StreamId)?.into_owned(),
        sequence_id: number(stream, Field::StreamSequenceId)?,
        end: if is_last.unwrap_or_default() {
            Some(error.as_ref().map(end_error).transpose()?)
        } else {
            None
        },
    })
}

fn group_state(object: &Object<'_>, is_snapshot: bool) -> Result<ServerMessage, DecodeError> {
    let items = object.list(Field::Items, |item| {
        Ok(GroupStateItem {
            connection_id: required(item, Field::ConnectionId)?.into_owned(),
            user_id: user(item, Field::UserId)?,
            state: item.pairs(Field::State)?.map(|pairs| pairs.into_iter().collect()),
            updated_at: number(item, Field::UpdatedAt)?,
        })
    })?;
    Ok(ServerMessage::GroupState {
        is_snapshot,
        group: group(object)?,
        items,
        sequence_id: object.number(Field::SequenceId)?,
    })
}

/// Returns the kind of an object's data, JSON if it does not say; `None`: one that is not known.
fn kind(object: &Object<'_>) -> Result<Option<DataKind>, DecodeError> {
    Ok(match object.string(Field::DataType)? {
        Some(name) => DataKind::parse(&name),
        None => Some(DataKind::Json),
    })
}

fn success(object: &Object<'_>) -> Result<bool, DecodeError> {
    object.parsed(Field::Success, "true or false")?.ok_or_else(|| missing(Field::Success))
}

fn error(object: &Object<'_>) -> Result<Option<NamedError>, DecodeError> {
    object.object(Field::Error)?.as_ref().map(named).transpose()
}

fn named(error: &Object<'_>) -> Result<NamedError, DecodeError> {
    Ok(NamedError {
        name: optional(error, Field::Name)?.unwrap_or_default(),
        message: optional(error, Field::Message)?.unwrap_or_default(),
    })
}

fn group(object: &Object<'_>) -> Result<GroupName, DecodeError> {
    let name = required(object, Field::Group)?;
    GroupName::parse(&name).map_err(|error| rule(error.to_string()))
}

/// Returns a user, whom some servers call "" when there is none.
fn user(object: &Object<'_>, field: Field) -> Result<Option<UserId>, DecodeError> {
    let id = object.string(field)?.filter(|id| !id.is_empty());
    id.map(|id| UserId::parse(&id)).transpose().map_err(|error| rule(error.to_string()))
}

fn number(object: &Object<'_>, field: Field) -> Result<u64, DecodeError> {
    object.number(field)?.ok_or_else(|| missing(field))
}

fn required<'a>(object: &Object<'a>, field: Field) -> Result<Cow<'a, str>, DecodeError> {
    object.string(field)?.ok_or_else(|| missing(field))
}

fn optional(object: &Object<'_>, field: Field) -> Result<Option<String>, DecodeError> {
    Ok(object.string(field)?.map(Cow::into_owned))
}
