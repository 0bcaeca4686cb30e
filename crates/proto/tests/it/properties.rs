//! What holds for every message and for every garbage.

use bytes::Bytes;
use hookwire_proto::data::{Data, DataKind, Metadata};
use hookwire_proto::message::{Message, MessageKind};
use hookwire_proto::subprotocol::{
    ClientMessage, DecodeError, PUBLICATION_HEAD_BYTES_MAX, Publication, Received, ServerMessage,
    Source, Subprotocol,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use crate::messages::{client_message, data, for_protobuf_client, publication, server_message};

fn subprotocol() -> impl Strategy<Value = Subprotocol> {
    proptest::sample::select(&Subprotocol::ALL[..])
}

/// Returns `message` with some of its bytes changed, and cut off.
fn mutated(mut message: Vec<u8>, changes: &[(Index, u8)], end: Index) -> Bytes {
    for (at, byte) in changes {
        if let Some(at) = (!message.is_empty()).then(|| at.index(message.len())) {
            message[at] = *byte;
        }
    }
    let end = end.index(message.len() * 2 + 1).min(message.len());
    message.truncate(end);
    message.into()
}

fn head(subprotocol: Subprotocol, sequence_id: u64, tail_bytes: usize) -> Vec<u8> {
    let mut head = Vec::new();
    subprotocol.publication_head(sequence_id, tail_bytes, &mut head);
    head
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn the_server_reads_what_a_client_writes(
        subprotocol in subprotocol(), message in client_message()
    ) {
        let payload = subprotocol.encode_client(&message);
        prop_assert_eq!(payload.kind, subprotocol.message_kind());
        prop_assert_eq!(subprotocol.decode_client(&payload), Ok(message));
    }

    #[test]
    fn a_client_reads_what_the_server_tells(
        subprotocol in subprotocol(), mut message in server_message()
    ) {
        let payload = subprotocol.encode_server(&message);
        prop_assert_eq!(payload.kind, subprotocol.message_kind());
        if subprotocol.is_protobuf()
            && let ServerMessage::InvokeResponse { result: Ok(data), .. } = &mut message
        {
            *data = data.take().map(for_protobuf_client);
        }
        prop_assert_eq!(subprotocol.decode_server(&payload), Ok(Received::Message(message)));
    }

    #[test]
    fn a_client_reads_what_is_published(
        subprotocol in subprotocol(),
        mut publication in publication(),
        sequence_id in proptest::option::of(any::<u64>()),
    ) {
        let data = subprotocol.encode_publication(&publication, sequence_id);
        let payload = Message { kind: subprotocol.message_kind(), data };
        if subprotocol.is_protobuf() {
            publication.data = for_protobuf_client(publication.data);
            if let Source::Group { user, .. } = &mut publication.source {
                *user = None;
            }
        }
        let expected = Received::Publication { publication, sequence_id };
        prop_assert_eq!(subprotocol.decode_server(&payload), Ok(expected));
    }

    /// The head of one receiver and the tail of all make the message.
    #[test]
    fn head_and_tail_make_a_publication(
        subprotocol in subprotocol(), publication in publication(), sequence_id: u64
    ) {
        let tail = subprotocol.publication_tail(&publication);
        let mut whole = head(subprotocol, sequence_id, tail.len());
        prop_assert!(whole.len() <= PUBLICATION_HEAD_BYTES_MAX);
        whole.extend_from_slice(&tail);
        prop_assert_eq!(whole, subprotocol.encode_publication(&publication, Some(sequence_id)));
    }

    /// JSON data arrives byte for byte.
    #[test]
    fn json_stays_as_it_was_written(json in crate::messages::json()) {
        let data = Data::new(DataKind::Json, json.clone().into()).unwrap();
        let publication =
            Publication { source: Source::Server, data, metadata: Metadata::default(), stream: None };
        let whole = Subprotocol::Json.encode_publication(&publication, None);
        let expected =
            format!(r#"{{"type":"message","from":"server","dataType":"json","data":{json}}}"#);
        prop_assert_eq!(whole, expected);
    }

    /// What decodes is within the rules: it can be written and read again, in either encoding.
    #[test]
    fn hostile_bytes_never_panic(input in vec(any::<u8>(), 0..300)) {
        check_both_sides(&input.into())?;
    }

    #[test]
    fn hostile_json_never_panics(
        json in crate::messages::json(), name in "type|data|group|stream|metadata|state|items"
    ) {
        for kind in ["sendToGroup", "event", "invoke", "setGroupState", "groupStateUpdate"] {
            let text = format!(r#"{{"type":"{kind}","group":"g","event":"e","{name}":{json}}}"#);
            check_both_sides(&text.into())?;
        }
    }

    #[test]
    fn changed_messages_never_panic(
        subprotocol in subprotocol(),
        message in client_message(),
        told in server_message(),
        published in publication(),
        changes in vec((any::<Index>(), any::<u8>()), 0..4),
        end in any::<Index>(),
    ) {
        for payload in [
            subprotocol.encode_client(&message).data,
            subprotocol.encode_server(&told).data,
            subprotocol.encode_publication(&published, Some(1)),
        ] {
            check_both_sides(&mutated(payload.to_vec(), &changes, end))?;
        }
    }

    /// Whatever a bug may have put into text, clients get a message that they can read.
    #[test]
    fn broken_text_is_mended(
        subprotocol in subprotocol(),
        bytes in vec(any::<u8>(), 0..100),
        kind in proptest::sample::select(&DataKind::ALL[..3]),
    ) {
        let data = Data { kind, bytes: bytes.into() };
        let publication =
            Publication { source: Source::Server, data, metadata: Metadata::default(), stream: None };
        let whole = subprotocol.encode_publication(&publication, None);
        if !subprotocol.is_protobuf() {
            prop_assert!(std::str::from_utf8(&whole).is_ok());
        }
        if kind != DataKind::Json {
            let payload = Message { kind: subprotocol.message_kind(), data: whole };
            let received = subprotocol.decode_server(&payload);
            prop_assert!(matches!(received, Ok(Received::Publication { .. })), "{received:?}");
        }
    }

    #[test]
    fn checked_data_is_data(data in data()) {
        prop_assert_eq!(Data::new(data.kind, data.bytes.clone()), Ok(data));
    }
}

fn check_both_sides(input: &Bytes) -> Result<(), TestCaseError> {
    for subprotocol in [Subprotocol::Json, Subprotocol::Protobuf] {
        let message = Message { kind: subprotocol.message_kind(), data: input.clone() };
        let said = subprotocol.decode_client(&message);
        for other in [Subprotocol::Json, Subprotocol::Protobuf] {
            match &said {
                Err(_) => {}
                Ok(ClientMessage::InvokeResponse) if other.is_protobuf() => {}
                Ok(said) => {
                    let again = other.decode_client(&other.encode_client(said));
                    prop_assert_eq!(again.as_ref(), Ok(said));
                }
            }
        }
        match subprotocol.decode_server(&message) {
            Ok(Received::Message(told)) if !subprotocol.is_protobuf() => {
                let again = subprotocol.decode_server(&subprotocol.encode_server(&told));
                prop_assert_eq!(again, Ok(Received::Message(told)));
            }
            Ok(Received::Publication { publication, sequence_id }) => {
                let data = subprotocol.encode_publication(&publication, sequence_id);
                let again = subprotocol.decode_server(&Message { kind: message.kind, data });
                prop_assert!(again.is_ok(), "{again:?}");
            }
            Ok(Received::Message(_) | Received::Unknown) | Err(_) => {}
        }
    }
    Ok(())
}

#[test]
fn a_message_of_the_wrong_kind_is_not_read() {
    let ping = Bytes::from_static(br#"{"type":"ping"}"#);
    for subprotocol in Subprotocol::ALL {
        let expected = subprotocol.message_kind();
        let kind = match expected {
            MessageKind::Text => MessageKind::Binary,
            MessageKind::Binary => MessageKind::Text,
        };
        let message = Message { kind, data: ping.clone() };
        let error = DecodeError::MessageKind { expected };
        assert_eq!(error.close_code().get(), 1003);
        assert_eq!(subprotocol.decode_client(&message), Err(error.clone()));
        assert_eq!(subprotocol.decode_server(&message), Err(error));
    }
}
