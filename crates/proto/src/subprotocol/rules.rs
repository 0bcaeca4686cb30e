//! The rules of client messages, the same in both encodings: each encoding says what the fields hold, this module what may stand there
//! (Web PubSub protocol, "JSON subprotocol: client → server", "Streams", "Invocation", "Group state").

use std::borrow::Cow;

use bytes::Bytes;

use super::{ClientMessage, DecodeError, GroupState, StreamUserError};
use crate::data::{Data, METADATA_BYTES_MAX, Metadata};
use crate::name::GroupName;

/// Longest `ttlSeconds`, in seconds.
pub const TTL_SECONDS_MAX: u16 = 300;

/// Longest stream id or invocation id. Ours: the protocol names none, and the server keeps them.
pub const ID_BYTES_MAX: usize = 1_024;

/// Most pairs of one map: every key of metadata has a byte, and group states are smaller. Bounds what a message makes the decoder keep.
pub(super) const PAIRS_MAX: usize = METADATA_BYTES_MAX;

/// Longest event name.
const EVENT_NAME_BYTES_MAX: usize = 128;

/// The types of client messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    JoinGroup,
    LeaveGroup,
    SendToGroup,
    Event,
    Invoke,
    CancelInvocation,
    InvokeResponse,
    StreamData,
    StreamEnd,
    SetGroupState,
    SubscribeGroupState,
    UnsubscribeGroupState,
    SequenceAck,
    Ping,
}

/// Where a stream begins.
#[derive(Debug)]
pub(super) struct StreamStart<'a> {
    pub(super) stream_id: Cow<'a, str>,
    pub(super) idle_timeout_ms: Option<u32>,
}

/// The fields of a message as its encoding holds them. Each is read only if the type of the message has it, and once.
pub(super) trait Fields<'a> {
    fn group(&mut self) -> Result<Cow<'a, str>, DecodeError>;
    fn event(&mut self) -> Result<Cow<'a, str>, DecodeError>;
    /// Whether the target of an invocation is one there is.
    fn targets_event(&mut self) -> Result<bool, DecodeError>;
    fn invocation_id(&mut self) -> Result<Cow<'a, str>, DecodeError>;
    fn stream_id(&mut self) -> Result<Cow<'a, str>, DecodeError>;
    fn ack_id(&mut self) -> Result<Option<u64>, DecodeError>;
    fn sequence_id(&mut self) -> Result<u64, DecodeError>;
    fn stream_sequence_id(&mut self) -> Result<Option<u64>, DecodeError>;
    fn no_echo(&mut self) -> Result<bool, DecodeError>;
    fn ttl_seconds(&mut self) -> Result<Option<u64>, DecodeError>;
    fn data(&mut self) -> Result<Option<Data>, DecodeError>;
    fn metadata(&mut self) -> Result<Option<Vec<(String, String)>>, DecodeError>;
    fn stream(&mut self) -> Result<Option<StreamStart<'a>>, DecodeError>;
    fn stream_error(&mut self) -> Result<Option<StreamUserError>, DecodeError>;
    fn state(&mut self) -> Result<Option<GroupState>, DecodeError>;
}

/// Returns the message of `kind` that `fields` describe.
pub(super) fn client_message<'a>(
    kind: Kind,
    fields: &mut impl Fields<'a>,
) -> Result<ClientMessage, DecodeError> {
    Ok(match kind {
        Kind::JoinGroup => {
            ClientMessage::JoinGroup { group: group(fields)?, ack_id: fields.ack_id()? }
        }
        Kind::LeaveGroup => {
            ClientMessage::LeaveGroup { group: group(fields)?, ack_id: fields.ack_id()? }
        }
        Kind::SendToGroup => send_to_group(fields)?,
        Kind::Event => {
            no_stream(fields)?;
            let (data, metadata) = data_and_metadata(fields)?;
            ClientMessage::Event { event: event(fields)?, ack_id: fields.ack_id()?, data, metadata }
        }
        Kind::Invoke => {
            if !fields.targets_event()? {
                return Err(rule("`target` must be `event`"));
            }
            no_stream(fields)?;
            ClientMessage::Invoke {
                invocation_id: id("invocationId", fields.invocation_id()?)?,
                event: event(fields)?,
                data: fields.data()?,
                metadata: metadata(fields.metadata()?.unwrap_or_default())?,
            }
        }
        Kind::CancelInvocation => ClientMessage::CancelInvocation {
            invocation_id: id("invocationId", fields.invocation_id()?)?,
        },
        Kind::InvokeResponse => ClientMessage::InvokeResponse,
        Kind::StreamData => {
            let (sequence_id, data) = (fields.stream_sequence_id()?, fields.data()?);
            if sequence_id.is_some() != data.is_some() {
                return Err(rule("`streamSequenceId` and `data` belong together"));
            }
            let stream_id = id("streamId", fields.stream_id()?)?;
            ClientMessage::StreamData { stream_id, sequence_id, data }
        }
        Kind::StreamEnd => ClientMessage::EndStream {
            stream_id: id("streamId", fields.stream_id()?)?,
            error: fields.stream_error()?,
        },
        Kind::SetGroupState => ClientMessage::SetGroupState {
            group: group(fields)?,
            ack_id: fields.ack_id()?,
            state: fields.state()?,
        },
        Kind::SubscribeGroupState => {
            ClientMessage::SubscribeGroupState { group: group(fields)?, ack_id: fields.ack_id()? }
        }
        Kind::UnsubscribeGroupState => {
            ClientMessage::UnsubscribeGroupState { group: group(fields)?, ack_id: fields.ack_id()? }
        }
        Kind::SequenceAck => ClientMessage::SequenceAck { sequence_id: fields.sequence_id()? },
        Kind::Ping => ClientMessage::Ping,
    })
}

fn send_to_group<'a>(fields: &mut impl Fields<'a>) -> Result<ClientMessage, DecodeError> {
    let (group, ack_id, no_echo) = (group(fields)?, fields.ack_id()?, fields.no_echo()?);
    let ttl_seconds = ttl_seconds(fields.ttl_seconds()?)?;
    let Some(start) = fields.stream()? else {
        let (data, metadata) = data_and_metadata(fields)?;
        return Ok(ClientMessage::SendToGroup {
            group,
            ack_id,
            no_echo,
            ttl_seconds,
            data,
            metadata,
        });
    };
    if fields.data()?.is_some() {
        return Err(rule("a stream begins without `data`"));
    }
    if ack_id.is_some() {
        return Err(rule("the begin of a stream has no `ackId`: a `streamAck` answers it"));
    }
    Ok(ClientMessage::StartStream {
        group,
        stream_id: id("streamId", start.stream_id)?,
        idle_timeout_ms: start.idle_timeout_ms,
        no_echo,
        ttl_seconds,
        metadata: metadata(fields.metadata()?.unwrap_or_default())?,
    })
}

/// Returns both; metadata without data is an empty text.
fn data_and_metadata<'a>(fields: &mut impl Fields<'a>) -> Result<(Data, Metadata), DecodeError> {
    let (data, pairs) = (fields.data()?, fields.metadata()?);
    let empty = pairs.is_some().then(|| Data::text(""));
    let data = data.or(empty).ok_or_else(|| rule("`data` is missing"))?;
    Ok((data, metadata(pairs.unwrap_or_default())?))
}

fn group<'a>(fields: &mut impl Fields<'a>) -> Result<GroupName, DecodeError> {
    GroupName::parse(&fields.group()?).map_err(|error| rule(error.to_string()))
}

fn event<'a>(fields: &mut impl Fields<'a>) -> Result<String, DecodeError> {
    let name = fields.event()?;
    let starts = name.as_bytes().first().is_some_and(u8::is_ascii_alphabetic);
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    if starts && name.len() <= EVENT_NAME_BYTES_MAX && name.bytes().all(is_allowed) {
        return Ok(name.into_owned());
    }
    Err(rule(format!(
        "`event` must begin with a letter and have at most {EVENT_NAME_BYTES_MAX} letters, digits, underscores, dots and hyphens"
    )))
}

fn id(name: &str, id: Cow<'_, str>) -> Result<String, DecodeError> {
    if id.is_empty() || ID_BYTES_MAX < id.len() {
        return Err(rule(format!("`{name}` must have 1 to {ID_BYTES_MAX} bytes")));
    }
    Ok(id.into_owned())
}

fn ttl_seconds(seconds: Option<u64>) -> Result<Option<u16>, DecodeError> {
    let checked = |seconds| u16::try_from(seconds).ok().filter(|ttl| *ttl <= TTL_SECONDS_MAX);
    match seconds.map(checked) {
        Some(None) => Err(rule(format!("`ttlSeconds` must be 0 to {TTL_SECONDS_MAX}"))),
        Some(ttl) => Ok(ttl),
        None => Ok(None),
    }
}

fn no_stream<'a>(fields: &mut impl Fields<'a>) -> Result<(), DecodeError> {
    match fields.stream()? {
        Some(_) => Err(rule("only messages to groups can be streams")),
        None => Ok(()),
    }
}

pub(super) fn metadata(pairs: Vec<(String, String)>) -> Result<Metadata, DecodeError> {
    Metadata::new(pairs).map_err(|error| rule(error.to_string()))
}

pub(super) fn rule(words: impl Into<String>) -> DecodeError {
    DecodeError::Rule(words.into())
}

/// Returns `part` of `message` without a copy, unless that would keep a message alive that is much larger: whoever counts the bytes of
/// waiting data could not see it.
pub(super) fn share(message: &Bytes, part: &[u8]) -> Bytes {
    if message.len() / 2 <= part.len() {
        message.slice_ref(part)
    } else {
        Bytes::copy_from_slice(part)
    }
}
