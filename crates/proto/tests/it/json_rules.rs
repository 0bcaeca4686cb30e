//! What the JSON subprotocol takes and what it refuses.

use std::fmt::Write as _;

use bytes::Bytes;
use hookwire_proto::data::{Data, DataKind, JSON_DEPTH_MAX, Metadata};
use hookwire_proto::subprotocol::json::{decode_client, decode_server};
use hookwire_proto::subprotocol::{
    ClientMessage, DecodeError, ID_BYTES_MAX, Received, ServerMessage, TTL_SECONDS_MAX,
};

fn decode(json: &str) -> Result<ClientMessage, DecodeError> {
    decode_client(&Bytes::copy_from_slice(json.as_bytes()))
}

/// Returns the rule that `json` breaks.
fn broken_rule(json: &str) -> String {
    match decode(json) {
        Err(DecodeError::Rule(words)) => words,
        other => panic!("{json} breaks no rule: {other:?}"),
    }
}

fn is_syntax_error(json: impl AsRef<[u8]>) -> bool {
    let decoded = decode_client(&Bytes::copy_from_slice(json.as_ref()));
    decoded == Err(DecodeError::Syntax("a JSON object"))
}

/// Returns the data of an event with these properties.
fn event_data(properties: &str) -> Result<Data, DecodeError> {
    match decode(&format!(r#"{{"type":"event","event":"e",{properties}}}"#))? {
        ClientMessage::Event { data, .. } => Ok(data),
        other => panic!("{other:?} is no event"),
    }
}

fn data(kind: DataKind, bytes: &str) -> Result<Data, DecodeError> {
    Ok(Data { kind, bytes: Bytes::copy_from_slice(bytes.as_bytes()) })
}

#[test]
fn types_and_data_types_are_read_in_any_case() {
    assert_eq!(decode(r#"{"type":"PING"}"#), Ok(ClientMessage::Ping));
    // As the .NET client writes it.
    for (name, kind, value) in [
        ("Text", DataKind::Text, "\"AA==\""),
        ("Json", DataKind::Json, "\"AA==\""),
        ("Binary", DataKind::Binary, "\"AA==\""),
        ("Protobuf", DataKind::Protobuf, "\"EgA=\""),
    ] {
        let data = event_data(&format!(r#""dataType":"{name}","data":{value}"#)).unwrap();
        assert_eq!(data.kind, kind);
    }
    let json = r#"{"type":"SENDTOGROUP","group":"g","ackId":1,"noEcho":false,"dataType":"TEXT","data":"x"}"#;
    assert!(matches!(decode(json), Ok(ClientMessage::SendToGroup { no_echo: false, .. })));
}

#[test]
fn unknown_properties_and_any_order_are_taken() {
    let json = r#" {"x":null,"data":"hi","y":[{"type":"event"}],"dataType":"text","ackId":1,"event":"e","z":{"a":1e9},"type":"event"} "#;
    let expected = ClientMessage::Event {
        event: "e".to_owned(),
        ack_id: Some(1),
        data: Data::text("hi"),
        metadata: Metadata::default(),
    };
    assert_eq!(decode(json), Ok(expected));
    // What another type of message has is unknown here, whatever it holds.
    let json = r#"{"type":"ping","group":5,"data":null,"ackId":"x"}"#;
    assert_eq!(decode(json), Ok(ClientMessage::Ping));
}

#[test]
fn null_is_as_good_as_absent() {
    let json = r#"{"type":"sendToGroup","group":"g","ackId":null,"noEcho":null,"ttlSeconds":null,"dataType":null,"metadata":null,"stream":null,"data":1}"#;
    let Ok(ClientMessage::SendToGroup { ack_id, no_echo, ttl_seconds, data, .. }) = decode(json)
    else {
        panic!("not taken")
    };
    assert_eq!((ack_id, no_echo, ttl_seconds), (None, false, None));
    assert_eq!(data.kind, DataKind::Json);
    assert_eq!(broken_rule(r#"{"type":null}"#), "`type` is missing");
    assert_eq!(broken_rule(r#"{"type":"joinGroup","group":null}"#), "`group` is missing");
}

#[test]
fn of_a_property_given_twice_the_last_counts() {
    let json = r#"{"type":"event","type":"sequenceAck","sequenceId":"x","sequenceId":7}"#;
    assert_eq!(decode(json), Ok(ClientMessage::SequenceAck { sequence_id: 7 }));
    let json = r#"{"type":"setGroupState","group":"g","state":{"a":"1","a":"2"}}"#;
    let Ok(ClientMessage::SetGroupState { state: Some(state), .. }) = decode(json) else {
        panic!("not taken")
    };
    assert_eq!(state.into_iter().collect::<Vec<_>>(), [("a".to_owned(), "2".to_owned())]);
}

#[test]
fn names_may_be_escaped() {
    let json = r#"{"t\u0079pe":"join\u0047roup","group":"r\u00e4ume"}"#;
    let Ok(ClientMessage::JoinGroup { group, .. }) = decode(json) else { panic!("not taken") };
    assert_eq!(group.as_str(), "räume");
}

#[test]
fn data_is_json_unless_told_otherwise() {
    assert_eq!(
        event_data(r#""data":  {"b":1, "a":[]}  "#),
        data(DataKind::Json, r#"{"b":1, "a":[]}"#)
    );
    assert_eq!(event_data(r#""data":"x""#), data(DataKind::Json, r#""x""#));
    for value in ["0", "false", "\"\"", "-1.0e-7", "123456789012345678901234567890.10"] {
        assert_eq!(event_data(&format!(r#""data":{value}"#)), data(DataKind::Json, value));
    }
}

#[test]
fn json_data_may_not_be_null() {
    for kind in ["", r#""dataType":"json","#, r#""dataType":null,"#] {
        let words = broken_rule(&format!(r#"{{"type":"event","event":"e",{kind}"data":null}}"#));
        assert_eq!(words, "JSON data may not be null");
    }
    assert_eq!(event_data(r#""data":[null]"#), data(DataKind::Json, "[null]"));
}

#[test]
fn json_data_is_not_too_deep() {
    let nested = |depth| format!(r#""data":{}1{}"#, "[".repeat(depth), "]".repeat(depth));
    assert!(event_data(&nested(JSON_DEPTH_MAX)).is_ok());
    let error = event_data(&nested(JSON_DEPTH_MAX + 1)).unwrap_err();
    assert!(error.to_string().contains("within each other"), "{error}");
    // What is no nesting is not counted.
    let wide = format!(r#""data":[{}1,"{}\"{{[\\"]"#, "[],{},".repeat(100), "[".repeat(100));
    assert!(event_data(&wide).is_ok());
    // The depth of what is skipped costs no stack.
    let skipped =
        format!(r#"{{"type":"ping","x":{}{}}}"#, "[".repeat(400_000), "]".repeat(400_000));
    assert_eq!(decode(&skipped), Ok(ClientMessage::Ping));
    assert!(event_data(&nested(400_000)).is_err());
    for field in ["metadata", "stream", "group", "ackId"] {
        let deep = "{\"a\":".repeat(100_000);
        let end = "}".repeat(100_000);
        let json =
            format!(r#"{{"type":"sendToGroup","group":"g","{field}":{deep}1{end},"data":1}}"#);
        assert!(decode(&json).is_err(), "{field}");
    }
}

#[test]
fn text_data_is_a_string() {
    assert_eq!(
        event_data(r#""dataType":"text","data":"a\u00e4\ud83d\ude00\/\n""#),
        data(DataKind::Text, "aä😀/\n")
    );
    for value in ["1", "null", "{}", "[\"x\"]", "true", r#""\ud800""#] {
        let error = event_data(&format!(r#""dataType":"text","data":{value}"#)).unwrap_err();
        assert_eq!(error, DecodeError::Rule("`data` must be a string".to_owned()), "{value}");
    }
}

#[test]
fn binary_data_is_base64() {
    assert_eq!(event_data(r#""dataType":"binary","data":"aGk=""#), data(DataKind::Binary, "hi"));
    assert_eq!(
        event_data(r#""dataType":"binary","data":"\u0061Gk=""#),
        data(DataKind::Binary, "hi")
    );
    assert_eq!(event_data(r#""dataType":"binary","data":"""#), data(DataKind::Binary, ""));
    for value in ["\"a\"", "\"aGk\"", "\"aGk=x\"", "\"a k=\"", "\"_-==\"", "1", "null", "[104]"] {
        assert!(event_data(&format!(r#""dataType":"binary","data":{value}"#)).is_err(), "{value}");
    }
}

#[test]
fn protobuf_data_is_an_any() {
    // {type_url: "a", value: "b"}, and an empty one
    assert_eq!(
        event_data(r#""dataType":"protobuf","data":"CgFhEgFi""#),
        data(DataKind::Protobuf, "\u{a}\u{1}a\u{12}\u{1}b")
    );
    assert_eq!(event_data(r#""dataType":"protobuf","data":"""#), data(DataKind::Protobuf, ""));
    // Cut off; a type URL that is a number; one that is not UTF-8; no protobuf; field number 0.
    for value in ["CgFhEgJi", "CAE=", "CgH/", "////", "AAE="] {
        let error = event_data(&format!(r#""dataType":"protobuf","data":"{value}""#)).unwrap_err();
        assert!(error.to_string().contains("google.protobuf.Any"), "{value}: {error}");
    }
}

#[test]
fn metadata_without_data_is_an_empty_text() {
    let json = r#"{"type":"sendToGroup","group":"g","dataType":"json","metadata":{"K":" v "}}"#;
    let Ok(ClientMessage::SendToGroup { data, metadata, .. }) = decode(json) else {
        panic!("not taken")
    };
    assert_eq!(data, Data::text(""));
    assert_eq!(metadata.pairs().collect::<Vec<_>>(), [("k", "v")]);
    assert_eq!(event_data(r#""metadata":{}"#), Ok(Data::text("")));
    for json in [
        r#"{"type":"sendToGroup","group":"g"}"#,
        r#"{"type":"sendToGroup","group":"g","metadata":null}"#,
        r#"{"type":"event","event":"e","dataType":"text"}"#,
    ] {
        assert_eq!(broken_rule(json), "`data` is missing");
    }
}

#[test]
fn metadata_keeps_its_limits() {
    let with = |metadata: &str| event_data(&format!(r#""data":1,"metadata":{metadata}"#));
    assert!(with(r#"{"a":"1","A":"2"}"#).is_ok());
    for metadata in [
        r#"{"a b":"1"}"#,
        r#"{"":"1"}"#,
        r#"{"a":"ä"}"#,
        r#"{"a":1}"#,
        r#"{"a":null}"#,
        r#"{"a":{}}"#,
        r#"["a"]"#,
        r#""a""#,
        "1",
    ] {
        assert!(matches!(with(metadata), Err(DecodeError::Rule(_))), "{metadata}");
    }
    let many = |count| {
        let pairs = (0..count).map(|_| r#""a":"""#).collect::<Vec<_>>();
        with(&format!("{{{}}}", pairs.join(",")))
    };
    assert!(many(8_192).is_ok());
    assert!(many(8_193).is_err());
}

#[test]
fn groups_have_their_rules() {
    let join = |group: &str| decode(&format!(r#"{{"type":"joinGroup","group":{group}}}"#));
    assert!(join(&format!("\"{}\"", "g".repeat(1_024))).is_ok());
    for group in ["\"\"", "\" \"", "1", "{}", "[]", &format!("\"{}\"", "g".repeat(1_025))] {
        assert!(matches!(join(group), Err(DecodeError::Rule(_))), "{group}");
    }
    assert_eq!(broken_rule(r#"{"type":"joinGroup"}"#), "`group` is missing");
}

#[test]
fn events_have_their_pattern() {
    let longest = format!("e{}", "_".repeat(127));
    let raise = |event: &str| decode(&format!(r#"{{"type":"event","event":"{event}","data":1}}"#));
    for event in ["a", "Z9_.-", &longest] {
        assert!(raise(event).is_ok(), "{event}");
    }
    for event in ["", "9", "_a", ".a", "a b", "a/b", "é", "aé", "a\\n", &format!("{longest}x")] {
        assert!(matches!(raise(event), Err(DecodeError::Rule(_))), "{event}");
    }
    assert_eq!(broken_rule(r#"{"type":"event","data":1}"#), "`event` is missing");
}

#[test]
fn numbers_are_unsigned() {
    let ack = |id: &str| decode(&format!(r#"{{"type":"joinGroup","group":"g","ackId":{id}}}"#));
    assert!(ack("0").is_ok());
    assert!(ack("18446744073709551615").is_ok());
    for id in ["18446744073709551616", "-1", "1.5", "1.0", "1e2", "\"1\"", "true", "[1]"] {
        assert!(matches!(ack(id), Err(DecodeError::Rule(_))), "{id}");
    }
    assert!(is_syntax_error(r#"{"type":"joinGroup","group":"g","ackId":01}"#));
    assert_eq!(broken_rule(r#"{"type":"sequenceAck"}"#), "`sequenceId` is missing");
    assert!(!broken_rule(r#"{"type":"sequenceAck","sequenceId":"5"}"#).is_empty());
    let echo = r#"{"type":"sendToGroup","group":"g","noEcho":1,"data":1}"#;
    assert_eq!(broken_rule(echo), "`noEcho` must be true or false");
}

#[test]
fn messages_live_no_longer_than_allowed() {
    let ttl = |seconds: &str| {
        let json = r#"{"type":"sendToGroup","group":"g","data":1,"ttlSeconds":"#;
        match decode(&format!("{json}{seconds}}}"))? {
            ClientMessage::SendToGroup { ttl_seconds, .. } => Ok::<_, DecodeError>(ttl_seconds),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(ttl("0"), Ok(Some(0)));
    assert_eq!(ttl("300"), Ok(Some(TTL_SECONDS_MAX)));
    for seconds in ["301", "65836", "-1", "1.5", "\"1\"", "18446744073709551615"] {
        assert!(ttl(seconds).is_err(), "{seconds}");
    }
}

#[test]
fn streams_begin_without_data_and_ack() {
    let start = |more: &str| {
        decode(&format!(
            r#"{{"type":"sendToGroup","group":"g","stream":{{"streamId":"s"}}{more}}}"#
        ))
    };
    assert!(matches!(start(r#","dataType":"text""#), Ok(ClientMessage::StartStream { .. })));
    for more in [r#","data":1"#, r#","ackId":1"#, r#","dataType":"x""#] {
        assert!(matches!(start(more), Err(DecodeError::Rule(_))), "{more}");
    }
    for stream in ["1", "\"s\"", "{}", r#"{"streamId":1}"#, r#"{"streamId":""}"#] {
        let json = format!(r#"{{"type":"sendToGroup","group":"g","stream":{stream}}}"#);
        assert!(!broken_rule(&json).is_empty());
    }
    for timeout in ["-1", "4294967296", "\"1\""] {
        let stream = format!(r#"{{"streamId":"s","idleTimeoutMs":{timeout}}}"#);
        let json = format!(r#"{{"type":"sendToGroup","group":"g","stream":{stream}}}"#);
        assert!(!broken_rule(&json).is_empty());
    }
    let event = r#"{"type":"event","event":"e","stream":{"streamId":"s"}}"#;
    assert_eq!(broken_rule(event), "only messages to groups can be streams");
}

#[test]
fn pieces_of_streams_are_numbered() {
    for json in [
        r#"{"type":"streamData","streamId":"s","data":1}"#,
        r#"{"type":"streamData","streamId":"s","streamSequenceId":1}"#,
    ] {
        assert_eq!(broken_rule(json), "`streamSequenceId` and `data` belong together");
    }
    assert_eq!(broken_rule(r#"{"type":"streamData"}"#), "`streamId` is missing");
}

#[test]
fn ids_are_bounded() {
    let cancel =
        |id: &str| decode(&format!(r#"{{"type":"cancelInvocation","invocationId":"{id}"}}"#));
    assert!(cancel(&"i".repeat(ID_BYTES_MAX)).is_ok());
    for id in ["", &"i".repeat(ID_BYTES_MAX + 1)] {
        assert!(matches!(cancel(id), Err(DecodeError::Rule(_))));
    }
    let end = |id: &str| decode(&format!(r#"{{"type":"streamEnd","streamId":"{id}"}}"#));
    assert!(end(&"s".repeat(ID_BYTES_MAX)).is_ok());
    assert!(end(&"s".repeat(ID_BYTES_MAX + 1)).is_err());
}

#[test]
fn invocations_target_events() {
    let invoke = |target: &str| {
        decode(&format!(r#"{{"type":"invoke","invocationId":"1",{target}"event":"e"}}"#))
    };
    assert!(invoke(r#""target":"event","#).is_ok());
    for target in [r#""target":"group","#, r#""target":1,"#, ""] {
        assert!(matches!(invoke(target), Err(DecodeError::Rule(_))), "{target}");
    }
}

#[test]
fn what_is_no_json_object_is_refused() {
    for json in [
        "",
        " ",
        "null",
        "1",
        "\"ping\"",
        "[]",
        "{",
        "{}}",
        "{} x",
        r#"{"type":"ping"} {}"#,
        r#"{"type":"ping",}"#,
        "{'type':'ping'}",
        r#"{"type":ping}"#,
        "\u{feff}{}",
        r#"{"type":"pi"#,
        "{\"type\":\"\n\"}",
    ] {
        assert!(is_syntax_error(json), "{json}");
    }
    assert!(is_syntax_error(b"{\"type\":\"ping\",\"x\":\"\xff\"}"), "not UTF-8");
    assert_eq!(DecodeError::Syntax("a JSON object").close_code().get(), 1007);
}

#[test]
fn unknown_types_are_refused_and_errors_keep_what_was_sent_to_themselves() {
    for json in [r#"{"type":"s3cret"}"#, r#"{"type":"event","event":"s3cret ","data":1}"#] {
        let words = broken_rule(json);
        assert!(!words.contains("s3cret"), "{words}");
    }
    assert_eq!(broken_rule(r#"{"type":"s3cret"}"#), "`type` is not known");
    assert_eq!(broken_rule(r#"{"type":"connected"}"#), "`type` is not known");
    assert_eq!(broken_rule("{}"), "`type` is missing");
    assert_eq!(broken_rule(r#"{"type":1}"#), "`type` must be a string");
    assert_eq!(
        broken_rule(r#"{"type":"event","event":"e","dataType":"xml","data":1}"#),
        "`dataType` is not known"
    );
}

/// Data is shared with the message it came in, unless it is a small part of it.
#[test]
fn data_keeps_no_large_message_alive() {
    let decode_from = |message: &Bytes| match decode_client(message) {
        Ok(ClientMessage::Event { data, .. }) => data.bytes,
        other => panic!("{other:?}"),
    };
    let shares = |part: &Bytes, whole: &Bytes| whole.as_ptr_range().contains(&part.as_ptr());
    for (kind, open, close) in [("text", "\"", "\""), ("json", "[\"", "\"]")] {
        let mut json = format!(r#"{{"type":"event","event":"e","dataType":"{kind}","data":"#);
        write!(json, "{open}{}{close}}}", "x".repeat(1_000)).unwrap();
        let message = Bytes::from(json.clone());
        assert!(shares(&decode_from(&message), &message), "{kind}");
        let padded = Bytes::from(json + &" ".repeat(2_000));
        assert!(!shares(&decode_from(&padded), &padded), "{kind}");
        assert_eq!(decode_from(&padded), decode_from(&message));
    }
}

#[test]
fn a_client_skips_what_it_does_not_know() {
    for json in [
        r#"{"type":"news"}"#,
        r#"{"type":"system","event":"moved"}"#,
        r#"{"type":"message","from":"space","dataType":"text","data":"x"}"#,
        r#"{"type":"message","from":"server","dataType":"xml","data":"x"}"#,
    ] {
        assert_eq!(decode_server(&Bytes::from(json)), Ok(Received::Unknown), "{json}");
    }
    for json in [
        "{}",
        r#"{"type":"message","from":"server","dataType":"text"}"#,
        r#"{"type":"ack","ackId":null,"success":true}"#,
        r#"{"type":"ack","ackId":1}"#,
        r#"{"type":"groupStateUpdate","group":"g","items":[{}]}"#,
        r#"{"type":"groupStateUpdate","group":"g","items":{}}"#,
    ] {
        assert!(matches!(decode_server(&Bytes::from(json)), Err(DecodeError::Rule(_))), "{json}");
    }
}

/// What other servers of the protocol write otherwise.
#[test]
fn a_client_takes_an_empty_user_and_a_bare_failure() {
    let json = r#"{"type":"system","event":"connected","userId":"","connectionId":"c"}"#;
    let Ok(Received::Message(ServerMessage::Connected { user_id: None, .. })) =
        decode_server(&Bytes::from(json))
    else {
        panic!("not taken")
    };
    let json = r#"{"type":"ack","ackId":1,"success":false}"#;
    let Ok(Received::Message(ServerMessage::Ack { error: Some(_), .. })) =
        decode_server(&Bytes::from(json))
    else {
        panic!("not taken")
    };
}
