//! Every message of the JSON subprotocol as it stands on the wire.

use bytes::Bytes;
use hookwire_proto::data::{Data, DataKind, Metadata};
use hookwire_proto::name::{GroupName, UserId};
use hookwire_proto::subprotocol::json::{
    decode_client, decode_server, encode_client, encode_publication, encode_server,
    publication_head, publication_tail,
};
use hookwire_proto::subprotocol::{
    ClientMessage, GroupState, GroupStateItem, NamedError, Publication, Received, ServerMessage,
    Source, StreamEndError, StreamPart, StreamUserError,
};

fn group() -> GroupName {
    GroupName::parse("g").unwrap()
}

fn user() -> Option<UserId> {
    Some(UserId::parse("ann").unwrap())
}

fn data(kind: DataKind, bytes: &'static [u8]) -> Data {
    Data::new(kind, Bytes::from_static(bytes)).unwrap()
}

fn text(text: &str) -> Data {
    Data::text(text)
}

fn metadata() -> Metadata {
    Metadata::new([("k".to_owned(), "v \"1\"".to_owned())]).unwrap()
}

fn state() -> GroupState {
    [("mood".to_owned(), "good".to_owned())].into()
}

fn forbidden() -> NamedError {
    NamedError { name: "Forbidden".to_owned(), message: "Permission denied.".to_owned() }
}

/// Checks both directions of what a client says.
fn says(message: ClientMessage, json: &'static str) {
    assert_eq!(encode_client(&message), json);
    assert_eq!(decode_client(&Bytes::from_static(json.as_bytes())), Ok(message), "{json}");
}

/// Checks both directions of what a client is told.
fn tells(message: ServerMessage, json: &'static str) {
    assert_eq!(encode_server(&message), json);
    let received = decode_server(&Bytes::from_static(json.as_bytes()));
    assert_eq!(received, Ok(Received::Message(message)), "{json}");
}

/// Checks both directions of a publication, which reliable clients get as `json` after a sequence id.
fn publishes(publication: Publication, json: &'static str) {
    assert_eq!(encode_publication(&publication, None), json);
    let mut head = Vec::new();
    publication_head(u64::MAX, 0, &mut head);
    assert_eq!(head, br#"{"sequenceId":18446744073709551615,"#);
    assert_eq!(publication_tail(&publication), json[1..]);
    let received = decode_server(&Bytes::from_static(json.as_bytes()));
    assert_eq!(received, Ok(Received::Publication { publication, sequence_id: None }), "{json}");
}

#[test]
fn clients_join_and_leave_groups() {
    says(
        ClientMessage::JoinGroup { group: group(), ack_id: Some(1) },
        r#"{"type":"joinGroup","group":"g","ackId":1}"#,
    );
    says(
        ClientMessage::LeaveGroup { group: group(), ack_id: Some(u64::MAX) },
        r#"{"type":"leaveGroup","group":"g","ackId":18446744073709551615}"#,
    );
    says(
        ClientMessage::JoinGroup { group: group(), ack_id: None },
        r#"{"type":"joinGroup","group":"g"}"#,
    );
}

#[test]
fn clients_send_to_groups() {
    let send = |data| ClientMessage::SendToGroup {
        group: group(),
        ack_id: None,
        no_echo: false,
        ttl_seconds: None,
        data,
        metadata: Metadata::default(),
    };
    says(
        ClientMessage::SendToGroup {
            group: group(),
            ack_id: Some(1),
            no_echo: true,
            ttl_seconds: Some(300),
            data: text("hi \"you\"\n"),
            metadata: metadata(),
        },
        r#"{"type":"sendToGroup","group":"g","ackId":1,"noEcho":true,"ttlSeconds":300,"dataType":"text","data":"hi \"you\"\n","metadata":{"k":"v \"1\""}}"#,
    );
    says(
        send(data(DataKind::Json, br#"{"b":12345678901234567890123, "a":1.50}"#)),
        r#"{"type":"sendToGroup","group":"g","dataType":"json","data":{"b":12345678901234567890123, "a":1.50}}"#,
    );
    says(
        send(data(DataKind::Binary, b"\x00\xff\x10")),
        r#"{"type":"sendToGroup","group":"g","dataType":"binary","data":"AP8Q"}"#,
    );
    says(
        send(data(DataKind::Protobuf, b"\x0a\x01a\x12\x01b")),
        r#"{"type":"sendToGroup","group":"g","dataType":"protobuf","data":"CgFhEgFi"}"#,
    );
    says(send(text("")), r#"{"type":"sendToGroup","group":"g","dataType":"text","data":""}"#);
}

#[test]
fn clients_stream_to_groups() {
    let start = |idle_timeout_ms, no_echo, ttl_seconds, metadata| ClientMessage::StartStream {
        group: group(),
        stream_id: "s".to_owned(),
        idle_timeout_ms,
        no_echo,
        ttl_seconds,
        metadata,
    };
    says(
        start(None, false, None, Metadata::default()),
        r#"{"type":"sendToGroup","group":"g","stream":{"streamId":"s"}}"#,
    );
    says(
        start(Some(60_000), true, Some(0), metadata()),
        r#"{"type":"sendToGroup","group":"g","noEcho":true,"ttlSeconds":0,"metadata":{"k":"v \"1\""},"stream":{"streamId":"s","idleTimeoutMs":60000}}"#,
    );
    says(
        ClientMessage::StreamData {
            stream_id: "s".to_owned(),
            sequence_id: Some(1),
            data: Some(text("x")),
        },
        r#"{"type":"streamData","streamId":"s","streamSequenceId":1,"dataType":"text","data":"x"}"#,
    );
    says(
        ClientMessage::StreamData { stream_id: "s".to_owned(), sequence_id: None, data: None },
        r#"{"type":"streamData","streamId":"s"}"#,
    );
    says(
        ClientMessage::EndStream { stream_id: "s".to_owned(), error: None },
        r#"{"type":"streamEnd","streamId":"s"}"#,
    );
    let error = StreamUserError {
        message: Some("no more".to_owned()),
        user_error_code: Some("E1".to_owned()),
    };
    says(
        ClientMessage::EndStream { stream_id: "s".to_owned(), error: Some(error) },
        r#"{"type":"streamEnd","streamId":"s","error":{"message":"no more","userErrorCode":"E1"}}"#,
    );
}

#[test]
fn clients_raise_events_and_invoke() {
    says(
        ClientMessage::Event {
            event: "order".to_owned(),
            ack_id: Some(2),
            data: data(DataKind::Json, br#"{"id":7}"#),
            metadata: Metadata::default(),
        },
        r#"{"type":"event","event":"order","ackId":2,"dataType":"json","data":{"id":7}}"#,
    );
    says(
        ClientMessage::Invoke {
            invocation_id: "1".to_owned(),
            event: "chat.login".to_owned(),
            data: Some(text("")),
            metadata: metadata(),
        },
        r#"{"type":"invoke","invocationId":"1","target":"event","event":"chat.login","dataType":"text","data":"","metadata":{"k":"v \"1\""}}"#,
    );
    says(
        ClientMessage::Invoke {
            invocation_id: "1".to_owned(),
            event: "e".to_owned(),
            data: None,
            metadata: Metadata::default(),
        },
        r#"{"type":"invoke","invocationId":"1","target":"event","event":"e"}"#,
    );
    says(
        ClientMessage::CancelInvocation { invocation_id: "1".to_owned() },
        r#"{"type":"cancelInvocation","invocationId":"1"}"#,
    );
    says(ClientMessage::InvokeResponse, r#"{"type":"invokeResponse"}"#);
}

#[test]
fn clients_keep_a_state_in_groups() {
    says(
        ClientMessage::SetGroupState { group: group(), ack_id: Some(3), state: Some(state()) },
        r#"{"type":"setGroupState","group":"g","ackId":3,"state":{"mood":"good"}}"#,
    );
    says(
        ClientMessage::SetGroupState { group: group(), ack_id: Some(3), state: None },
        r#"{"type":"setGroupState","group":"g","ackId":3}"#,
    );
    says(
        ClientMessage::SubscribeGroupState { group: group(), ack_id: Some(4) },
        r#"{"type":"subscribeGroupState","group":"g","ackId":4}"#,
    );
    says(
        ClientMessage::UnsubscribeGroupState { group: group(), ack_id: Some(5) },
        r#"{"type":"unsubscribeGroupState","group":"g","ackId":5}"#,
    );
}

#[test]
fn clients_acknowledge_and_ping() {
    says(ClientMessage::SequenceAck { sequence_id: 5 }, r#"{"type":"sequenceAck","sequenceId":5}"#);
    says(ClientMessage::Ping, r#"{"type":"ping"}"#);
}

#[test]
fn clients_are_told_of_their_connection() {
    let connected = |user_id, reconnection_token| ServerMessage::Connected {
        connection_id: "c".to_owned(),
        user_id,
        reconnection_token,
    };
    tells(
        connected(user(), Some("t".to_owned())),
        r#"{"type":"system","event":"connected","userId":"ann","connectionId":"c","reconnectionToken":"t"}"#,
    );
    tells(connected(None, None), r#"{"type":"system","event":"connected","connectionId":"c"}"#);
    tells(
        ServerMessage::Disconnected { message: "ClosedByAppServer".to_owned() },
        r#"{"type":"system","event":"disconnected","message":"ClosedByAppServer"}"#,
    );
    // Java fails without the message.
    tells(
        ServerMessage::Disconnected { message: String::new() },
        r#"{"type":"system","event":"disconnected","message":""}"#,
    );
    tells(ServerMessage::Pong, r#"{"type":"pong"}"#);
}

#[test]
fn clients_are_told_outcomes() {
    tells(
        ServerMessage::Ack { ack_id: 1, error: None },
        r#"{"type":"ack","ackId":1,"success":true}"#,
    );
    tells(
        ServerMessage::Ack { ack_id: 1, error: Some(forbidden()) },
        r#"{"type":"ack","ackId":1,"success":false,"error":{"name":"Forbidden","message":"Permission denied."}}"#,
    );
    tells(
        ServerMessage::Ack { ack_id: 1, error: Some(NamedError::default()) },
        r#"{"type":"ack","ackId":1,"success":false,"error":{"name":"","message":""}}"#,
    );
    let response = |result| ServerMessage::InvokeResponse { invocation_id: "1".to_owned(), result };
    tells(
        response(Ok(Some(data(DataKind::Json, b"[1]")))),
        r#"{"type":"invokeResponse","invocationId":"1","success":true,"dataType":"json","data":[1]}"#,
    );
    tells(response(Ok(None)), r#"{"type":"invokeResponse","invocationId":"1","success":true}"#);
    tells(
        response(Err(forbidden())),
        r#"{"type":"invokeResponse","invocationId":"1","success":false,"error":{"name":"Forbidden","message":"Permission denied."}}"#,
    );
}

#[test]
fn clients_are_told_of_their_streams() {
    let stream_id = || "s".to_owned();
    tells(
        ServerMessage::StreamAck { stream_id: stream_id(), expected_sequence_id: 2 },
        r#"{"type":"streamAck","streamId":"s","expectedSequenceId":2}"#,
    );
    tells(
        ServerMessage::StreamNack {
            stream_id: stream_id(),
            error: NamedError { name: "InvalidSequenceId".to_owned(), message: "2?".to_owned() },
            expected_sequence_id: 2,
        },
        r#"{"type":"streamNack","streamId":"s","name":"InvalidSequenceId","message":"2?","expectedSequenceId":2}"#,
    );
    tells(
        ServerMessage::StreamClosed { stream_id: stream_id(), error: None },
        r#"{"type":"streamClosed","streamId":"s"}"#,
    );
    tells(
        ServerMessage::StreamClosed { stream_id: stream_id(), error: Some(forbidden()) },
        r#"{"type":"streamClosed","streamId":"s","error":{"name":"Forbidden","message":"Permission denied."}}"#,
    );
}

#[test]
fn clients_are_told_the_states_of_groups() {
    let item = |connection_id: &str, user_id, state| GroupStateItem {
        connection_id: connection_id.to_owned(),
        user_id,
        state,
        updated_at: 1_700_000_000_000,
    };
    tells(
        ServerMessage::GroupState {
            is_snapshot: true,
            group: group(),
            items: vec![item("c", user(), Some(state())), item("d", None, None)],
            sequence_id: Some(7),
        },
        r#"{"type":"groupStateSnapshot","group":"g","items":[{"connectionId":"c","userId":"ann","state":{"mood":"good"},"updatedAt":1700000000000},{"connectionId":"d","updatedAt":1700000000000}],"sequenceId":7}"#,
    );
    tells(
        ServerMessage::GroupState {
            is_snapshot: false,
            group: group(),
            items: Vec::new(),
            sequence_id: None,
        },
        r#"{"type":"groupStateUpdate","group":"g","items":[]}"#,
    );
}

#[test]
fn clients_get_publications() {
    let publication =
        |source, data| Publication { source, data, metadata: Metadata::default(), stream: None };
    publishes(
        publication(Source::Group { group: group(), user: user() }, text("hi")),
        r#"{"type":"message","from":"group","fromUserId":"ann","group":"g","dataType":"text","data":"hi"}"#,
    );
    publishes(
        publication(Source::Group { group: group(), user: None }, data(DataKind::Binary, b"\xff")),
        r#"{"type":"message","from":"group","group":"g","dataType":"binary","data":"/w=="}"#,
    );
    publishes(
        publication(Source::Server, data(DataKind::Json, br#"{"z":1,"a":1e400}"#)),
        r#"{"type":"message","from":"server","dataType":"json","data":{"z":1,"a":1e400}}"#,
    );
    publishes(
        Publication {
            source: Source::Server,
            data: data(DataKind::Protobuf, b""),
            metadata: metadata(),
            stream: None,
        },
        r#"{"type":"message","from":"server","dataType":"protobuf","data":"","metadata":{"k":"v \"1\""}}"#,
    );
}

#[test]
fn clients_get_streams() {
    let publication = |data, sequence_id, end| Publication {
        source: Source::Group { group: group(), user: None },
        data,
        metadata: Metadata::default(),
        stream: Some(StreamPart { stream_id: "s".to_owned(), sequence_id, end }),
    };
    publishes(
        publication(text("x"), 1, None),
        r#"{"type":"message","from":"group","group":"g","dataType":"text","data":"x","stream":{"streamId":"s","streamSequenceId":1}}"#,
    );
    publishes(
        publication(text(""), 2, Some(None)),
        r#"{"type":"message","from":"group","group":"g","dataType":"text","data":"","stream":{"streamId":"s","streamSequenceId":2,"endOfStream":true}}"#,
    );
    let error = StreamEndError {
        name: "UserError".to_owned(),
        message: Some("no more".to_owned()),
        user_error_code: Some("E1".to_owned()),
    };
    publishes(
        publication(text(""), 2, Some(Some(error))),
        r#"{"type":"message","from":"group","group":"g","dataType":"text","data":"","stream":{"streamId":"s","streamSequenceId":2,"endOfStream":true,"error":{"name":"UserError","message":"no more","userErrorCode":"E1"}}}"#,
    );
}
