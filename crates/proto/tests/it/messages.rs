//! Any message that the types allow.

use hookwire_proto::data::{Data, DataKind, Metadata};
use hookwire_proto::name::{GroupName, UserId};
use hookwire_proto::subprotocol::{
    ClientMessage, GroupState, GroupStateItem, NamedError, Publication, ServerMessage, Source,
    StreamEndError, StreamPart, StreamUserError,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;

fn group() -> impl Strategy<Value = GroupName> {
    "\\PC{1,20}".prop_filter_map("a group", |name| GroupName::parse(&name).ok())
}

fn user() -> impl Strategy<Value = UserId> {
    "\\PC{1,20}".prop_filter_map("a user", |id| UserId::parse(&id).ok())
}

fn event() -> impl Strategy<Value = String> {
    "[A-Za-z][A-Za-z0-9_.-]{0,20}"
}

fn id() -> impl Strategy<Value = String> {
    "(?s).{1,20}"
}

/// JSON as other writers may write it: long numbers, white space inside, escapes.
pub(crate) fn json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("true".to_owned()),
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,20})?([eE][+-]?[0-9]{1,3})?",
        "\"([ a-z\u{e4}\u{1f600}\\[{\\]}]|\\\\\"|\\\\\\\\|\\\\u00e4|\\\\n){0,10}\"",
    ];
    leaf.prop_recursive(4, 24, 4, |inner| {
        let key = "\"[a-c]{0,2}\"";
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(" , "))),
            vec((key, inner), 0..4).prop_map(|items| {
                let items: Vec<_> =
                    items.into_iter().map(|(key, item)| format!("{key}:\t{item}")).collect();
                format!("{{{}}}", items.join(",\n"))
            }),
        ]
    })
}

/// A serialised `google.protobuf.Any`, also one with a field that nobody knows.
fn serialised_any() -> impl Strategy<Value = Vec<u8>> {
    ("[a-z./]{0,20}", vec(any::<u8>(), 0..50), option::of(0_u8..100)).prop_map(
        |(url, value, more)| {
            let mut bytes = vec![0x0A, u8::try_from(url.len()).unwrap()];
            bytes.extend_from_slice(url.as_bytes());
            bytes.extend_from_slice(&[0x12, u8::try_from(value.len()).unwrap()]);
            bytes.extend_from_slice(&value);
            bytes.extend(more.into_iter().flat_map(|more| [0x18, more]));
            bytes
        },
    )
}

pub(crate) fn data() -> impl Strategy<Value = Data> {
    let kind_and_bytes = prop_oneof![
        "(?s).{0,100}".prop_map(|text| (DataKind::Text, text.into_bytes())),
        json().prop_map(|json| (DataKind::Json, json.into_bytes())),
        vec(proptest::num::u8::ANY, 0..200).prop_map(|bytes| (DataKind::Binary, bytes)),
        serialised_any().prop_map(|bytes| (DataKind::Protobuf, bytes)),
    ];
    kind_and_bytes.prop_map(|(kind, bytes)| Data::new(kind, bytes.into()).unwrap())
}

fn metadata() -> impl Strategy<Value = Metadata> {
    let pairs = vec(("[A-Za-z0-9!#$.~-]{1,8}", "[ -~]{0,12}"), 0..4);
    pairs.prop_map(|pairs| Metadata::new(pairs).unwrap())
}

fn state() -> impl Strategy<Value = GroupState> {
    btree_map("(?s).{0,6}", "(?s).{0,6}", 0..4)
}

fn ttl() -> impl Strategy<Value = Option<u16>> {
    option::of(0..=300_u16)
}

fn ack_id() -> impl Strategy<Value = Option<u64>> {
    option::of(any_u64())
}

/// Small and large numbers, and the largest.
fn any_u64() -> impl Strategy<Value = u64> {
    prop_oneof![0..300_u64, proptest::num::u64::ANY, Just(u64::MAX)]
}

/// Any client message that both encodings have.
pub(crate) fn client_message() -> impl Strategy<Value = ClientMessage> {
    let sequenced_data = option::of((any_u64(), data()));
    let user_error = (option::of("(?s).{0,9}"), option::of("(?s).{0,9}"))
        .prop_map(|(message, user_error_code)| StreamUserError { message, user_error_code });
    let on_group = || (group(), ack_id());
    prop_oneof![
        on_group().prop_map(|(group, ack_id)| ClientMessage::JoinGroup { group, ack_id }),
        on_group().prop_map(|(group, ack_id)| ClientMessage::LeaveGroup { group, ack_id }),
        on_group().prop_map(|(group, ack_id)| ClientMessage::SubscribeGroupState { group, ack_id }),
        on_group()
            .prop_map(|(group, ack_id)| ClientMessage::UnsubscribeGroupState { group, ack_id }),
        (group(), ack_id(), any::<bool>(), ttl(), data(), metadata()).prop_map(
            |(group, ack_id, no_echo, ttl_seconds, data, metadata)| ClientMessage::SendToGroup {
                group,
                ack_id,
                no_echo,
                ttl_seconds,
                data,
                metadata,
            }
        ),
        (group(), id(), option::of(any::<u32>()), any::<bool>(), ttl(), metadata()).prop_map(
            |(group, stream_id, idle_timeout_ms, no_echo, ttl_seconds, metadata)| {
                ClientMessage::StartStream {
                    group,
                    stream_id,
                    idle_timeout_ms,
                    no_echo,
                    ttl_seconds,
                    metadata,
                }
            }
        ),
        (id(), sequenced_data).prop_map(|(stream_id, piece)| {
            let (sequence_id, data) = piece.unzip();
            ClientMessage::StreamData { stream_id, sequence_id, data }
        }),
        (id(), option::of(user_error))
            .prop_map(|(stream_id, error)| ClientMessage::EndStream { stream_id, error }),
        (event(), ack_id(), data(), metadata()).prop_map(|(event, ack_id, data, metadata)| {
            ClientMessage::Event { event, ack_id, data, metadata }
        }),
        (id(), event(), option::of(data()), metadata()).prop_map(
            |(invocation_id, event, data, metadata)| ClientMessage::Invoke {
                invocation_id,
                event,
                data,
                metadata,
            }
        ),
        id().prop_map(|invocation_id| ClientMessage::CancelInvocation { invocation_id }),
        (group(), ack_id(), option::of(state())).prop_map(|(group, ack_id, state)| {
            ClientMessage::SetGroupState { group, ack_id, state }
        }),
        any_u64().prop_map(|sequence_id| ClientMessage::SequenceAck { sequence_id }),
        Just(ClientMessage::Ping),
    ]
}

fn error() -> impl Strategy<Value = NamedError> {
    ("[A-Za-z]{0,12}", "(?s).{0,12}").prop_map(|(name, message)| NamedError { name, message })
}

fn stream_part() -> impl Strategy<Value = StreamPart> {
    // Protobuf does not tell an absent text from an empty one.
    let text = || option::of("(?s).{1,9}");
    let error = ("[A-Za-z]{1,12}", text(), text()).prop_map(|(name, message, user_error_code)| {
        StreamEndError { name, message, user_error_code }
    });
    (id(), any_u64(), option::of(option::of(error)))
        .prop_map(|(stream_id, sequence_id, end)| StreamPart { stream_id, sequence_id, end })
}

pub(crate) fn publication() -> impl Strategy<Value = Publication> {
    let source = prop_oneof![
        Just(Source::Server),
        (group(), option::of(user())).prop_map(|(group, user)| Source::Group { group, user }),
    ];
    (source, data(), metadata(), option::of(stream_part()))
        .prop_map(|(source, data, metadata, stream)| Publication { source, data, metadata, stream })
}

fn group_state_item() -> impl Strategy<Value = GroupStateItem> {
    (id(), option::of(user()), option::of(state()), any_u64()).prop_map(
        |(connection_id, user_id, state, updated_at)| GroupStateItem {
            connection_id,
            user_id,
            state,
            updated_at,
        },
    )
}

pub(crate) fn server_message() -> impl Strategy<Value = ServerMessage> {
    let result = prop_oneof![option::of(data()).prop_map(Ok), error().prop_map(Err)];
    prop_oneof![
        (id(), option::of(user()), option::of("(?s).{0,20}")).prop_map(
            |(connection_id, user_id, reconnection_token)| ServerMessage::Connected {
                connection_id,
                user_id,
                reconnection_token,
            }
        ),
        "(?s).{0,20}".prop_map(|message| ServerMessage::Disconnected { message }),
        (any_u64(), option::of(error()))
            .prop_map(|(ack_id, error)| ServerMessage::Ack { ack_id, error }),
        Just(ServerMessage::Pong),
        (id(), result).prop_map(|(invocation_id, result)| ServerMessage::InvokeResponse {
            invocation_id,
            result,
        }),
        (id(), any_u64()).prop_map(|(stream_id, expected_sequence_id)| ServerMessage::StreamAck {
            stream_id,
            expected_sequence_id,
        }),
        (id(), error(), any_u64()).prop_map(|(stream_id, error, expected_sequence_id)| {
            ServerMessage::StreamNack { stream_id, error, expected_sequence_id }
        }),
        (id(), option::of(error()))
            .prop_map(|(stream_id, error)| ServerMessage::StreamClosed { stream_id, error }),
        (any::<bool>(), group(), vec(group_state_item(), 0..3), option::of(any_u64())).prop_map(
            |(is_snapshot, group, items, sequence_id)| ServerMessage::GroupState {
                is_snapshot,
                group,
                items,
                sequence_id,
            }
        ),
    ]
}

/// What is left of data at a protobuf client: JSON is text there.
pub(crate) fn for_protobuf_client(data: Data) -> Data {
    match data.kind {
        DataKind::Json => Data { kind: DataKind::Text, bytes: data.bytes },
        DataKind::Text | DataKind::Binary | DataKind::Protobuf => data,
    }
}
