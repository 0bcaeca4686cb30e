//! What the protobuf subprotocol takes and what it refuses.

use bytes::Bytes;
use hookwire_proto::data::{Data, DataKind};
use hookwire_proto::name::GroupName;
use hookwire_proto::subprotocol::protobuf::{decode_client, decode_server, is_any};
use hookwire_proto::subprotocol::{ClientMessage, DecodeError, Received};
use prost::Message as _;

use crate::published::{self as other, Upstream, UpstreamMessage};

const MALFORMED: DecodeError = DecodeError::Syntax("protobuf");

fn decode(message: impl AsRef<[u8]>) -> Result<ClientMessage, DecodeError> {
    decode_client(&Bytes::copy_from_slice(message.as_ref()))
}

fn written(message: Upstream) -> Vec<u8> {
    UpstreamMessage { message: Some(message) }.encode_to_vec()
}

fn send(change: impl FnOnce(&mut other::SendToGroup)) -> Result<ClientMessage, DecodeError> {
    let data = Some(other::MessageData { data: Some(other::Data::Text("x".to_owned())) });
    let mut message = other::SendToGroup { group: "g".to_owned(), data, ..Default::default() };
    change(&mut message);
    decode(written(Upstream::SendToGroup(message)))
}

fn join(group: &str, ack_id: Option<u64>) -> ClientMessage {
    ClientMessage::JoinGroup { group: GroupName::parse(group).unwrap(), ack_id }
}

/// Returns the data of an event with this `MessageData`.
fn event_data(message_data: &[u8]) -> Result<Data, DecodeError> {
    let mut event = b"\x0a\x01e\x12".to_vec();
    event.push(u8::try_from(message_data.len()).unwrap());
    event.extend_from_slice(message_data);
    let mut message = vec![0x2A, u8::try_from(event.len()).unwrap()];
    message.extend_from_slice(&event);
    match decode(message)? {
        ClientMessage::Event { data, .. } => Ok(data),
        other => panic!("{other:?} is no event"),
    }
}

fn data(kind: DataKind, bytes: &'static [u8]) -> Result<Data, DecodeError> {
    Ok(Data { kind, bytes: Bytes::from_static(bytes) })
}

fn is_rule<T>(decoded: Result<T, DecodeError>) -> bool {
    decoded.is_err_and(|error| matches!(error, DecodeError::Rule(_)))
}

#[test]
fn unknown_fields_are_skipped_whatever_they_are() {
    let unknown = [
        &b"\xa0\x06\x96\x01"[..],            // 100: an integer
        b"\xa1\x06abcdefgh",                 // 100: 64 bits
        b"\xa2\x06\x02ab",                   // 100: bytes
        b"\xa5\x06abcd",                     // 100: 32 bits
        b"\xa3\x06\x0b\x0c\x08\x01\xa4\x06", // 100: a group with a group and an integer
        b"\xf8\xff\xff\xff\x0f\x00",         // the largest field number
        b"\x30\x01",                         // 6, but an integer
    ];
    for field in unknown {
        let inside =
            [b"\x32", &[3 + u8::try_from(field.len()).unwrap()][..], b"\x0a\x01g", field].concat();
        assert_eq!(decode(inside), Ok(join("g", None)), "{field:x?}");
        let around = [field, b"\x32\x03\x0a\x01g", field].concat();
        assert_eq!(decode(around), Ok(join("g", None)), "{field:x?}");
    }
}

#[test]
fn what_is_no_protobuf_is_refused() {
    for message in [
        &b"\x32"[..],                                        // no value
        b"\x32\x04\x0a\x01g",                                // too short
        b"\x32\x03\x0a\x02g",                                // too short inside
        b"\x32\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",     // a length beyond all memory
        b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", // an integer that does not end
        b"\x02\x00",                                         // field 0
        b"\x37\x00",                                         // wire type 7
        b"\x36\x00",                                         // wire type 6
        b"\x34",                                             // the end of no group
        b"\x33\x08\x01",                                     // a group without end
        b"\x33\x3c",                                         // the end of another group
        b"\x80\x80\x80\x80\x80\x02\x00",                     // a field number of 33 bits
        b"\x32\x03\x0a\x01\xff",                             // a group's name that is not UTF-8
        b"{\"type\":\"ping\"}",
    ] {
        assert_eq!(decode(message), Err(MALFORMED), "{message:x?}");
    }
    let groups = [0x33].repeat(400_000);
    assert_eq!(decode(groups), Err(MALFORMED), "groups within each other cost no stack");
}

#[test]
fn a_message_of_no_known_type_is_refused() {
    for message in [&b""[..], b"\x12\x00", b"\x62\x00", b"\x92\x01\x00"] {
        assert!(is_rule(decode(message)), "{message:x?}");
    }
}

#[test]
fn of_alternatives_the_last_counts() {
    assert_eq!(decode(b"\x4a\x00\x32\x03\x0a\x01g"), Ok(join("g", None)));
    assert_eq!(decode(b"\x32\x03\x0a\x01g\x4a\x00"), Ok(ClientMessage::Ping));
    // A join after a leave knows nothing of an earlier join.
    let message = b"\x32\x05\x0a\x01g\x10\x07\x3a\x03\x0a\x01g\x32\x03\x0a\x01h";
    assert_eq!(decode(message), Ok(join("h", None)));
    assert_eq!(event_data(b"\x12\x01b\x0a\x01t"), data(DataKind::Text, b"t"));
    assert_eq!(event_data(b"\x0a\x01t\x12\x01b"), data(DataKind::Binary, b"b"));
}

#[test]
fn a_message_in_pieces_is_merged() {
    let message = b"\x32\x03\x0a\x01g\x32\x02\x10\x07\x32\x03\x0a\x01h";
    assert_eq!(decode(message), Ok(join("h", Some(7))));
    let any = event_data(b"\x1a\x03\x0a\x01a\x1a\x03\x12\x01b");
    assert_eq!(any, data(DataKind::Protobuf, b"\x0a\x01a\x12\x01b"));
    let any = event_data(b"\x1a\x03\x0a\x01a\x0a\x01t\x1a\x03\x12\x01b");
    assert_eq!(any, data(DataKind::Protobuf, b"\x12\x01b"));
}

#[test]
fn integers_are_read_as_whatever_length_they_have() {
    // -1 of an older structure's int64, and 1 in ten bytes.
    let message = b"\x32\x0e\x0a\x01g\x10\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
    assert_eq!(decode(message), Ok(join("g", Some(u64::MAX))));
    let message = b"\x32\x0e\x0a\x01g\x10\x81\x80\x80\x80\x80\x80\x80\x80\x80\x00";
    assert_eq!(decode(message), Ok(join("g", Some(1))));
    let echo = decode(b"\x0a\x0a\x0a\x01g\x1a\x03\x0a\x01x\x20\x02");
    assert!(matches!(echo, Ok(ClientMessage::SendToGroup { no_echo: true, .. })), "{echo:?}");
}

#[test]
fn data_is_of_its_kind() {
    assert_eq!(event_data(b"\x0a\x00"), data(DataKind::Text, b""));
    assert_eq!(event_data(b"\x12\x00"), data(DataKind::Binary, b""));
    assert_eq!(event_data(b"\x1a\x00"), data(DataKind::Protobuf, b""));
    assert_eq!(event_data(b"\x22\x07 [1, 2]"), data(DataKind::Json, b"[1, 2]"));
    assert!(is_rule(event_data(b"\x0a\x01\xff")), "text that is not UTF-8");
    for json in [&b"\x22\x00"[..], b"\x22\x01x", b"\x22\x04null", b"\x22\x041 1 ", b"\x22\x01\xff"]
    {
        assert!(is_rule(event_data(json)), "{json:x?}");
    }
    assert!(is_rule(event_data(b"\x1a\x02\x08\x01")), "a type URL that is a number");
    assert!(is_rule(event_data(b"")), "none");
}

#[test]
fn an_any_is_what_every_implementation_reads() {
    for any in [&b""[..], b"\x0a\x01a\x12\x01b", b"\x12\x01\xff", b"\x18\x01\x0a\x00\x0a\x00"] {
        assert!(is_any(any), "{any:x?}");
    }
    for any in [&b"\x0a"[..], b"\x0a\x01\xff", b"\x08\x01", b"\x10\x01", b"\x0a\x02a", b"\x00\x00"]
    {
        assert!(!is_any(any), "{any:x?}");
    }
}

#[test]
fn the_rules_are_those_of_json() {
    assert!(send(|_| {}).is_ok());
    assert!(send(|message| message.ttl_seconds = Some(300)).is_ok());
    assert!(is_rule(send(|message| message.ttl_seconds = Some(301))));
    assert!(is_rule(send(|message| message.group = " ".to_owned())));
    assert!(is_rule(send(|message| message.group = String::new())));
    assert!(is_rule(send(|message| message.data = None)));
    assert!(is_rule(send(|message| message.data = Some(other::MessageData { data: None }))));
    assert!(is_rule(send(|message| {
        message.metadata.insert("a b".to_owned(), String::new());
    })));
    let only_metadata = send(|message| {
        message.metadata.insert("K".to_owned(), " v".to_owned());
        message.data = None;
    });
    let Ok(ClientMessage::SendToGroup { data, metadata, .. }) = only_metadata else {
        panic!("{only_metadata:?}")
    };
    assert_eq!(data, Data::text(""));
    assert_eq!(metadata.pairs().collect::<Vec<_>>(), [("k", "v")]);

    let start = || Some(other::StreamStart { stream_id: "s".to_owned(), idle_timeout_ms: None });
    assert!(is_rule(send(|message| message.stream = start())), "with data");
    assert!(is_rule(send(|message| {
        (message.data, message.stream, message.ack_id) = (None, start(), Some(1));
    })));
    assert!(is_rule(send(|message| {
        (message.data, message.stream) = (None, Some(other::StreamStart::default()));
    })));
    let started = send(|message| (message.data, message.stream) = (None, start()));
    assert!(matches!(started, Ok(ClientMessage::StartStream { .. })), "{started:?}");

    let event = |event: &str, stream| {
        let data = Some(other::MessageData { data: Some(other::Data::Text(String::new())) });
        let event = event.to_owned();
        decode(written(Upstream::Event(other::Event { event, data, stream, ..Default::default() })))
    };
    assert!(event("e", None).is_ok());
    assert!(is_rule(event("", None)));
    assert!(is_rule(event("a b", None)));
    assert!(is_rule(event("e", start())));
    let cancel = |id: &str| {
        let invocation_id = id.to_owned();
        decode(written(Upstream::CancelInvocation(other::CancelInvocation { invocation_id })))
    };
    assert!(cancel("1").is_ok());
    assert!(is_rule(cancel("")));
    let piece = |stream_sequence_id, data| {
        let stream_id = "s".to_owned();
        let data = Some(other::MessageData { data });
        let piece = other::StreamData { stream_id, stream_sequence_id, data };
        decode(written(Upstream::StreamData(piece)))
    };
    assert!(piece(None, None).is_ok());
    assert!(piece(Some(1), Some(other::Data::Json("1".to_owned()))).is_ok());
    assert!(is_rule(piece(Some(1), None)));
    assert!(is_rule(piece(None, Some(other::Data::Json("1".to_owned())))));
}

#[test]
fn maps_are_bounded() {
    let message = |entry: &[u8], field: u8, count: usize| {
        let mut fields = b"\x0a\x01g\x1a\x03\x0a\x01x".to_vec();
        for _ in 0..count {
            fields.extend_from_slice(&[field, u8::try_from(entry.len()).unwrap()]);
            fields.extend_from_slice(entry);
        }
        let length = fields.len();
        let mut message = vec![0x0A];
        prost::encode_length_delimiter(length, &mut message).unwrap();
        message.extend_from_slice(&fields);
        message
    };
    assert!(decode(message(b"\x0a\x01k", 0x32, 8_192)).is_ok());
    assert!(is_rule(decode(message(b"\x0a\x01k", 0x32, 8_193))));
}

#[test]
fn a_client_skips_what_it_does_not_know() {
    for message in [
        &b""[..],
        b"\x5a\x00",                      // field 11
        b"\x1a\x00",                      // a system message of no type
        b"\x12\x09\x0a\x05space\x1a\x00", // a source
        b"\x12\x08\x0a\x06server",        // no data
    ] {
        let read = decode_server(&Bytes::copy_from_slice(message));
        assert_eq!(read, Ok(Received::Unknown), "{message:x?}");
    }
    assert!(is_rule(decode_server(&Bytes::from_static(b"\x4a\x05\x0a\x01g\x12\x00"))), "no id");
    assert_eq!(decode_server(&Bytes::from_static(b"\x12")), Err(MALFORMED));
}

#[test]
fn data_keeps_no_large_message_alive() {
    let shares = |unknown_bytes: usize| {
        let mut message = written(Upstream::Event(other::Event {
            event: "e".to_owned(),
            data: Some(other::MessageData { data: Some(other::Data::Binary(vec![7; 1_000])) }),
            ..Default::default()
        }));
        message.extend_from_slice(b"\xa2\x06");
        prost::encode_length_delimiter(unknown_bytes, &mut message).unwrap();
        message.resize(message.len() + unknown_bytes, 0);
        let message = Bytes::from(message);
        match decode_client(&message) {
            Ok(ClientMessage::Event { data, .. }) => {
                assert_eq!(data.bytes, vec![7; 1_000]);
                message.as_ptr_range().contains(&data.bytes.as_ptr())
            }
            other => panic!("{other:?}"),
        }
    };
    assert!(shares(0));
    assert!(!shares(2_000));
}
