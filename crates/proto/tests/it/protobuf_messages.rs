//! Every message of the protobuf subprotocol, as another implementation of protobuf reads and writes it.

use std::collections::HashMap;

use hookwire_proto::data::{Data, DataKind, Metadata};
use hookwire_proto::name::{GroupName, UserId};
use hookwire_proto::subprotocol::protobuf::{
    decode_client, decode_server, encode_client, encode_publication, encode_server,
};
use hookwire_proto::subprotocol::{
    ClientMessage, GroupState, GroupStateItem, NamedError, Publication, Received, ServerMessage,
    Source, StreamEndError, StreamPart, StreamUserError,
};
use proptest::prelude::*;
use prost::Message as _;

use crate::messages::{client_message, publication, server_message};
use crate::published::{self as other, Downstream, DownstreamMessage, Upstream, UpstreamMessage};

fn pairs<'p>(pairs: impl Iterator<Item = (&'p str, &'p str)>) -> HashMap<String, String> {
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn state(state: &GroupState) -> other::GroupState {
    let entries = state.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    other::GroupState { entries: pairs(entries) }
}

fn text(data: &Data) -> String {
    String::from_utf8(data.bytes.to_vec()).unwrap()
}

/// Returns what `data` has to be on the wire; to the server JSON goes as JSON.
fn message_data(data: &Data, to_server: bool) -> other::MessageData {
    let data = match data.kind {
        DataKind::Json if to_server => other::Data::Json(text(data)),
        DataKind::Text | DataKind::Json => other::Data::Text(text(data)),
        DataKind::Binary => other::Data::Binary(data.bytes.to_vec()),
        DataKind::Protobuf => other::Data::Protobuf(other::Any::decode(&data.bytes[..]).unwrap()),
    };
    other::MessageData { data: Some(data) }
}

/// Returns what a client has to write for `message`.
fn upstream(message: &ClientMessage) -> UpstreamMessage {
    let on_group = |group: &GroupName, ack_id: &Option<u64>| other::OnGroup {
        group: group.as_str().to_owned(),
        ack_id: *ack_id,
    };
    let message = match message {
        ClientMessage::JoinGroup { group, ack_id } => Upstream::JoinGroup(on_group(group, ack_id)),
        ClientMessage::LeaveGroup { group, ack_id } => {
            Upstream::LeaveGroup(on_group(group, ack_id))
        }
        ClientMessage::SubscribeGroupState { group, ack_id } => {
            Upstream::SubscribeGroupState(on_group(group, ack_id))
        }
        ClientMessage::UnsubscribeGroupState { group, ack_id } => {
            Upstream::UnsubscribeGroupState(on_group(group, ack_id))
        }
        ClientMessage::SendToGroup { group, ack_id, no_echo, ttl_seconds, data, metadata } => {
            Upstream::SendToGroup(other::SendToGroup {
                group: group.as_str().to_owned(),
                ack_id: *ack_id,
                data: Some(message_data(data, true)),
                no_echo: no_echo.then_some(true),
                ttl_seconds: ttl_seconds.map(u32::from),
                metadata: pairs(metadata.pairs()),
                stream: None,
            })
        }
        ClientMessage::StartStream {
            group,
            stream_id,
            idle_timeout_ms,
            no_echo,
            ttl_seconds,
            metadata,
        } => Upstream::SendToGroup(other::SendToGroup {
            group: group.as_str().to_owned(),
            ack_id: None,
            data: None,
            no_echo: no_echo.then_some(true),
            ttl_seconds: ttl_seconds.map(u32::from),
            metadata: pairs(metadata.pairs()),
            stream: Some(other::StreamStart {
                stream_id: stream_id.clone(),
                idle_timeout_ms: *idle_timeout_ms,
            }),
        }),
        ClientMessage::StreamData { stream_id, sequence_id, data } => {
            Upstream::StreamData(other::StreamData {
                stream_id: stream_id.clone(),
                stream_sequence_id: *sequence_id,
                data: data.as_ref().map(|data| message_data(data, true)),
            })
        }
        ClientMessage::EndStream { stream_id, error } => Upstream::StreamEnd(other::StreamEnd {
            stream_id: stream_id.clone(),
            error: error.as_ref().map(|StreamUserError { message, user_error_code }| {
                other::StreamUserError {
                    message: message.clone(),
                    user_error_code: user_error_code.clone(),
                }
            }),
        }),
        ClientMessage::Event { event, ack_id, data, metadata } => Upstream::Event(other::Event {
            event: event.clone(),
            data: Some(message_data(data, true)),
            ack_id: *ack_id,
            metadata: pairs(metadata.pairs()),
            stream: None,
        }),
        ClientMessage::Invoke { invocation_id, event, data, metadata } => {
            Upstream::Invoke(other::Invoke {
                event: event.clone(),
                invocation_id: invocation_id.clone(),
                data: data.as_ref().map(|data| message_data(data, true)),
                metadata: pairs(metadata.pairs()),
                stream: None,
            })
        }
        ClientMessage::CancelInvocation { invocation_id } => {
            Upstream::CancelInvocation(other::CancelInvocation {
                invocation_id: invocation_id.clone(),
            })
        }
        ClientMessage::InvokeResponse => return UpstreamMessage { message: None },
        ClientMessage::SetGroupState { group, ack_id, state: own } => {
            Upstream::SetGroupState(other::SetGroupState {
                group: group.as_str().to_owned(),
                ack_id: *ack_id,
                state: own.as_ref().map(state),
            })
        }
        ClientMessage::SequenceAck { sequence_id } => {
            Upstream::SequenceAck(other::SequenceAck { sequence_id: *sequence_id })
        }
        ClientMessage::Ping => Upstream::Ping(other::Empty {}),
    };
    UpstreamMessage { message: Some(message) }
}

fn error(error: &NamedError) -> other::Error {
    other::Error { name: error.name.clone(), message: error.message.clone() }
}

/// Returns what the server has to write for `message`.
fn downstream(message: &ServerMessage) -> DownstreamMessage {
    let user = |user: &Option<UserId>| user.as_ref().map(|user| user.as_str().to_owned());
    let message = match message {
        ServerMessage::Connected { connection_id, user_id, reconnection_token } => {
            let connected = other::Connected {
                connection_id: connection_id.clone(),
                user_id: user(user_id).unwrap_or_default(),
                reconnection_token: reconnection_token.clone(),
            };
            system(other::System::Connected(connected))
        }
        ServerMessage::Disconnected { message } => {
            system(other::System::Disconnected(other::Disconnected { reason: message.clone() }))
        }
        ServerMessage::Ack { ack_id, error: failure } => Downstream::Ack(other::Ack {
            ack_id: *ack_id,
            success: failure.is_none(),
            error: failure.as_ref().map(error),
        }),
        ServerMessage::Pong => Downstream::Pong(other::Empty {}),
        ServerMessage::InvokeResponse { invocation_id, result } => {
            Downstream::InvokeResponse(other::InvokeResponse {
                invocation_id: invocation_id.clone(),
                success: result.is_ok(),
                data: result.iter().flatten().next().map(|data| message_data(data, false)),
                error: result.as_ref().err().map(error),
            })
        }
        ServerMessage::StreamAck { stream_id, expected_sequence_id } => {
            Downstream::StreamAck(other::StreamAck {
                stream_id: stream_id.clone(),
                expected_sequence_id: *expected_sequence_id,
            })
        }
        ServerMessage::StreamNack { stream_id, error, expected_sequence_id } => {
            Downstream::StreamNack(other::StreamNack {
                stream_id: stream_id.clone(),
                name: error.name.clone(),
                message: error.message.clone(),
                expected_sequence_id: *expected_sequence_id,
            })
        }
        ServerMessage::StreamClosed { stream_id, error: failure } => {
            Downstream::StreamClosed(other::StreamClosed {
                stream_id: stream_id.clone(),
                error: failure.as_ref().map(error),
            })
        }
        ServerMessage::GroupState { is_snapshot, group, items, sequence_id } => {
            let item = |item: &GroupStateItem| other::GroupStateItem {
                connection_id: item.connection_id.clone(),
                user_id: user(&item.user_id),
                state: item.state.as_ref().map(state),
                updated_at: item.updated_at.cast_signed(),
            };
            let states = other::GroupStates {
                group: group.as_str().to_owned(),
                items: items.iter().map(item).collect(),
                sequence_id: *sequence_id,
            };
            if *is_snapshot {
                Downstream::GroupStateSnapshot(states)
            } else {
                Downstream::GroupStateUpdate(states)
            }
        }
    };
    DownstreamMessage { message: Some(message) }
}

fn system(message: other::System) -> Downstream {
    Downstream::System(other::SystemMessage { message: Some(message) })
}

/// Returns what the server has to write for `publication`.
fn data_message(publication: &Publication, sequence_id: Option<u64>) -> DownstreamMessage {
    let (from, group) = match &publication.source {
        Source::Server => ("server", None),
        Source::Group { group, .. } => ("group", Some(group.as_str().to_owned())),
    };
    let stream_error = |error: &StreamEndError| other::StreamError {
        name: error.name.clone(),
        message: error.message.clone().unwrap_or_default(),
        user_error_code: error.user_error_code.clone().unwrap_or_default(),
    };
    let stream = publication.stream.as_ref().map(|StreamPart { stream_id, sequence_id, end }| {
        other::StreamInfo {
            stream_id: stream_id.clone(),
            stream_sequence_id: *sequence_id,
            end_of_stream: end.is_some().then_some(true),
            error: end.iter().flatten().next().map(stream_error),
        }
    });
    let message = other::DataMessage {
        from: from.to_owned(),
        group,
        data: Some(message_data(&publication.data, false)),
        sequence_id,
        metadata: pairs(publication.metadata.pairs()),
        stream,
    };
    DownstreamMessage { message: Some(Downstream::Data(message)) }
}

/// Whether another implementation drops nothing of the data: it does not keep unknown fields of an `Any`.
fn is_plain(data: Option<&Data>) -> bool {
    data.is_none_or(|data| {
        data.kind != DataKind::Protobuf
            || other::Any::decode(&data.bytes[..]).unwrap().encode_to_vec() == data.bytes
    })
}

proptest! {
    #[test]
    fn another_server_reads_what_our_client_writes(message in client_message()) {
        let read = UpstreamMessage::decode(encode_client(&message));
        prop_assert_eq!(read, Ok(upstream(&message)));
    }

    #[test]
    fn our_server_reads_what_another_client_writes(message in client_message()) {
        let data = match &message {
            ClientMessage::SendToGroup { data, .. } | ClientMessage::Event { data, .. } => Some(data),
            ClientMessage::Invoke { data, .. } | ClientMessage::StreamData { data, .. } => {
                data.as_ref()
            }
            _ => None,
        };
        prop_assume!(is_plain(data));
        let written = upstream(&message).encode_to_vec();
        prop_assert_eq!(decode_client(&written.into()), Ok(message));
    }

    #[test]
    fn another_client_reads_what_our_server_tells(message in server_message()) {
        let read = DownstreamMessage::decode(encode_server(&message));
        prop_assert_eq!(read, Ok(downstream(&message)));
    }

    #[test]
    fn our_client_reads_what_another_server_tells(message in server_message()) {
        let invoked = matches!(&message, ServerMessage::InvokeResponse { result: Ok(Some(_)), .. });
        let written = downstream(&message).encode_to_vec();
        let read = decode_server(&written.into());
        if invoked {
            prop_assert!(matches!(read, Ok(Received::Message(_))));
        } else {
            prop_assert_eq!(read, Ok(Received::Message(message)));
        }
    }

    #[test]
    fn another_client_reads_what_our_server_publishes(
        publication in publication(), sequence_id in proptest::option::of(any::<u64>())
    ) {
        let read = DownstreamMessage::decode(encode_publication(&publication, sequence_id));
        prop_assert_eq!(read, Ok(data_message(&publication, sequence_id)));
    }

    #[test]
    fn our_client_reads_what_another_server_publishes(
        publication in publication(), sequence_id in proptest::option::of(any::<u64>())
    ) {
        let written = data_message(&publication, sequence_id).encode_to_vec();
        let ours = decode_server(&encode_publication(&publication, sequence_id));
        prop_assume!(is_plain(Some(&publication.data)));
        prop_assert_eq!(decode_server(&written.into()), ours);
    }
}

/// A few messages byte by byte, so that a fault of both implementations or of the structure above is seen.
#[test]
fn messages_stand_on_the_wire_as_published() {
    let group = GroupName::parse("g").unwrap();
    let join = ClientMessage::JoinGroup { group: group.clone(), ack_id: Some(300) };
    assert_eq!(encode_client(&join), &b"\x32\x06\x0a\x01g\x10\xac\x02"[..]);
    assert_eq!(encode_client(&ClientMessage::Ping), &b"\x4a\x00"[..]);
    let send = ClientMessage::SendToGroup {
        group: group.clone(),
        ack_id: Some(1),
        no_echo: true,
        ttl_seconds: Some(5),
        data: Data::text("hi"),
        metadata: Metadata::default(),
    };
    assert_eq!(
        encode_client(&send),
        &b"\x0a\x0f\x0a\x01g\x10\x01\x1a\x04\x0a\x02hi\x20\x01\x28\x05"[..]
    );
    let disconnected = ServerMessage::Disconnected { message: "bye".to_owned() };
    assert_eq!(encode_server(&disconnected), &b"\x1a\x07\x12\x05\x12\x03bye"[..]);
    assert_eq!(encode_server(&ServerMessage::Pong), &b"\x22\x00"[..]);
    let ack = ServerMessage::Ack { ack_id: 1, error: None };
    assert_eq!(encode_server(&ack), &b"\x0a\x04\x08\x01\x10\x01"[..]);

    let source = Source::Group { group, user: Some(UserId::parse("ann").unwrap()) };
    let data = Data::new(DataKind::Json, "[1]".into()).unwrap();
    let publication = Publication { source, data, metadata: Metadata::default(), stream: None };
    assert_eq!(
        encode_publication(&publication, Some(9)),
        &b"\x12\x13\x20\x09\x0a\x05group\x12\x01g\x1a\x05\x0a\x03[1]"[..],
        "JSON as text, no user, the sequence id first"
    );
    assert_eq!(
        encode_publication(&publication, None),
        &b"\x12\x11\x0a\x05group\x12\x01g\x1a\x05\x0a\x03[1]"[..]
    );
}
