use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::*;

#[expect(clippy::unnecessary_wraps, reason = "it stands where nothing could stand")]
fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

/// Frames of the service as its own tests have them ("Framing").
#[test]
fn published_frames_are_read_and_written() {
    let status = || Status { message: some("a") };
    for (base64, frame) in [
        (
            "WQAAAJMK2VR7IlR5cGUiOjEwLCJDb25uZWN0aW9uSWQiOiJhIiwiVXNlcklkIjoiYiIsIlJlY29ubmVjdGlvblRva2VuIjoiYyIsIlRyYWNpbmdJZCI6bnVsbH3A",
            Frame::Connected(Connected {
                connection_id: "a".to_owned(),
                user_id: some("b"),
                reconnection_token: some("c"),
            }),
        ),
        (
            "LgAAAJMF2Sl7IlR5cGUiOjUsIk1lc3NhZ2UiOiJhIiwiVHJhY2luZ0lkIjpudWxsfcA=",
            Frame::Status(status()),
        ),
        (
            "LgAAAJMH2Sl7IlR5cGUiOjcsIk1lc3NhZ2UiOiJhIiwiVHJhY2luZ0lkIjpudWxsfcA=",
            Frame::Close(status()),
        ),
        (
            "TAAAAJMI2Ud7IlR5cGUiOjgsIlRhcmdldElkIjoiYSIsIkVuZHBvaW50IjoiYiIsIk1lc3NhZ2UiOiJjIiwiVHJhY2luZ0lkIjpudWxsfcA=",
            Frame::Rebalance(Redirection {
                target_id: some("a"),
                endpoint: some("b"),
                message: some("c"),
            }),
        ),
    ] {
        let bytes = Bytes::from(STANDARD.decode(base64).unwrap());
        assert_eq!(Frame::decode(&bytes), Ok(frame.clone()));
        assert_eq!(frame.encode(), Ok(bytes));
    }
}

/// A frame of type and JSON as a client library would write it.
fn frame(kind: u8, json: &str, content: &[u8]) -> Bytes {
    let mut out = vec![0, 0, 0, 0, 0x93, kind, 0xDA];
    out.extend_from_slice(&u16::try_from(json.len()).unwrap().to_be_bytes());
    out.extend_from_slice(json.as_bytes());
    out.extend_from_slice(content);
    let length = u32::try_from(out.len() - 4).unwrap();
    out[..4].copy_from_slice(&length.to_le_bytes());
    out.into()
}

#[test]
fn what_is_absent_or_null_or_unknown_does_not_matter() {
    let nil = &[0xC0];
    for json in [
        r#"{"Type":2,"AckId":7,"StatusCode":204}"#,
        r#"{"StatusCode":204,"Headers":null,"ChannelName":null,"TracingId":5,"X":[],"Type":2,"AckId":7}"#,
    ] {
        let expected = HttpResponse { ack_id: 7, status_code: 204, ..HttpResponse::default() };
        assert_eq!(Frame::decode(&frame(2, json, nil)), Ok(Frame::Response(expected)));
    }
    assert_eq!(Frame::decode(&frame(9, "no JSON", nil)), Ok(Frame::Unknown(9)));
    let json = r#"{"Type":1,"Headers":{"A":["b","c"]},"HttpMethod":"POST","Url":"http://h/"}"#;
    let Ok(Frame::Request(request)) = Frame::decode(&frame(1, json, &[0xC4, 1, 9])) else {
        panic!("no request")
    };
    assert_eq!(request.headers["A"], ["b", "c"]);
    assert_eq!(request.content.as_deref(), Some(&[9][..]));
}

#[test]
fn what_is_no_frame_is_refused_by_what_is_wrong() {
    let good = r#"{"Type":2,"AckId":7,"StatusCode":204}"#;
    let mut cut = frame(2, good, &[0xC0]).to_vec();
    cut.pop();
    let mut long = vec![0xFF; 4];
    long.extend_from_slice(&cut[4..]);
    for (bytes, error) in [
        (Bytes::new(), FrameError::Length),
        (Bytes::from_static(&[1, 0, 0]), FrameError::Length),
        (cut.into(), FrameError::Length),
        (long.into(), FrameError::TooLong),
        (Bytes::from_static(&[0, 0, 0, 0]), FrameError::MessagePack),
        (Bytes::from_static(&[3, 0, 0, 0, 0x92, 2, 0xA0]), FrameError::MessagePack),
        (frame(2, good, &[]), FrameError::MessagePack),
        (frame(2, good, &[0xC0, 0xC0]), FrameError::MessagePack),
        (frame(2, good, &[0xC4, 2, 0]), FrameError::MessagePack),
        (frame(2, good, &[0xC6, 0xFF, 0xFF, 0xFF, 0xFF]), FrameError::MessagePack),
        (frame(2, good, &[0xA1, b'x']), FrameError::MessagePack),
        (frame(1, good, &[0xC0]), FrameError::Json),
        (frame(2, "[]", &[0xC0]), FrameError::Json),
        (frame(2, r#"{"AckId":1}"#, &[0xC0]), FrameError::Json),
        (frame(2, r#"{"Type":2,"StatusCode":70000}"#, &[0xC0]), FrameError::Json),
        (frame(2, r#"{"Type":2,"Headers":{"a":"b"}}"#, &[0xC0]), FrameError::Json),
    ] {
        assert_eq!(Frame::decode(&bytes), Err(error), "{bytes:?}");
    }
}

#[test]
fn the_longest_frame_passes_and_one_byte_more_does_not() {
    let with = |bytes: usize| {
        let content = Some(Bytes::from(vec![0; bytes]));
        Frame::Request(HttpRequest { content, ..HttpRequest::default() })
    };
    let around = with(FRAME_BYTES_MAX / 2).encode().unwrap().len() - FRAME_BYTES_MAX / 2;
    let most = MESSAGE_BYTES_MAX - around;
    let longest = with(most).encode().unwrap();
    assert_eq!(longest.len(), MESSAGE_BYTES_MAX);
    assert_eq!(Frame::decode(&longest), Ok(with(most)));
    assert_eq!(with(most + 1).encode(), Err(FrameError::TooLong));
    assert_eq!(with(FRAME_BYTES_MAX * 2).encode(), Err(FrameError::TooLong));
}

#[test]
fn an_answer_has_as_many_parts_as_it_needs() {
    let request = HttpRequest { ack_id: 3, channel_name: some("c"), ..HttpRequest::default() };
    let headers = || Headers::from([("A".to_owned(), vec!["b".to_owned()])]);
    for (bytes, parts) in
        [(0, 1), (1, 1), (PART_BYTES_MAX, 1), (PART_BYTES_MAX + 1, 2), (5 * PART_BYTES_MAX, 5)]
    {
        let body: Bytes = vec![7; bytes].into();
        let answer = request.answer(201, headers(), body.clone());
        assert_eq!(answer.len(), parts);
        assert_eq!(answer[0].headers, headers());
        let joined: Vec<u8> =
            answer.iter().flat_map(|part| part.content.clone().unwrap()).collect();
        assert_eq!(joined, body);
        for (at, part) in answer.iter().enumerate() {
            assert_eq!((part.ack_id, part.status_code), (3, 201));
            assert_eq!(part.not_completed, at + 1 < parts);
            assert!(Frame::Response(part.clone()).encode().is_ok());
        }
    }
}

fn text() -> impl Strategy<Value = Option<String>> {
    prop::option::of("\\PC{0,300}")
}

fn headers() -> impl Strategy<Value = Headers> {
    btree_map("[A-Za-z-]{1,9}", vec("\\PC{0,20}", 0..3), 0..4)
}

fn content() -> impl Strategy<Value = Option<Bytes>> {
    prop::option::of(vec(any::<u8>(), 0..70_000).prop_map(Bytes::from))
}

fn any_frame() -> impl Strategy<Value = Frame> {
    let request = (any::<i64>(), any::<bool>(), text(), text(), headers(), content()).prop_map(
        |(ack_id, local_routing, channel_name, url, headers, content)| {
            Frame::Request(HttpRequest {
                ack_id,
                local_routing,
                channel_name,
                http_method: "POST".to_owned(),
                url: url.unwrap_or_default(),
                headers,
                content,
            })
        },
    );
    let response = (any::<i64>(), any::<u16>(), text(), any::<bool>(), headers(), content())
        .prop_map(|(ack_id, status_code, channel_name, not_completed, headers, content)| {
            Frame::Response(HttpResponse {
                ack_id,
                local_routing: !not_completed,
                status_code,
                channel_name,
                not_completed,
                headers,
                content,
            })
        });
    let redirection = || {
        (text(), text(), text()).prop_map(|(target_id, endpoint, message)| Redirection {
            target_id,
            endpoint,
            message,
        })
    };
    prop_oneof![
        request,
        response,
        text().prop_map(|message| Frame::Status(Status { message })),
        text().prop_map(|message| Frame::Close(Status { message })),
        redirection().prop_map(Frame::Reconnect),
        redirection().prop_map(Frame::Rebalance),
        (text(), text()).prop_map(|(id, user_id)| Frame::Connected(Connected {
            connection_id: id.unwrap_or_default(),
            user_id,
            reconnection_token: None,
        })),
    ]
}

proptest! {
    #[test]
    fn every_frame_comes_back_as_it_went(frame in any_frame()) {
        prop_assert_eq!(Frame::decode(&frame.encode().unwrap()), Ok(frame));
    }

    #[test]
    fn hostile_bytes_never_panic(bytes in vec(any::<u8>(), 0..64), at in any::<prop::sample::Index>(), frame in any_frame()) {
        let _ = Frame::decode(&bytes.into());
        let mut broken = frame.encode().unwrap().to_vec();
        let at = at.index(broken.len());
        broken[at] ^= 0x41;
        let _ = Frame::decode(&broken.into());
    }
}
