//! Messages of the JSON subprotocol, to the server and to a client.

use bytes::Bytes;
use hookwire_proto::subprotocol::{ClientMessage, Received, json, protobuf};

/// Decodes `input` as both sides do. What is understood says the same after it is written and read again, in the other encoding too.
pub(crate) fn check(input: &[u8]) {
    let input = Bytes::copy_from_slice(input);
    if let Ok(said) = json::decode_client(&input) {
        assert_eq!(json::decode_client(&json::encode_client(&said)).as_ref(), Ok(&said));
        if said != ClientMessage::InvokeResponse {
            let other = protobuf::encode_client(&said);
            assert_eq!(protobuf::decode_client(&other), Ok(said));
        }
    }
    match json::decode_server(&input) {
        Ok(Received::Message(told)) => {
            let again = json::decode_server(&json::encode_server(&told));
            assert_eq!(again, Ok(Received::Message(told)));
        }
        Ok(Received::Publication { publication, sequence_id }) => {
            let again = json::decode_server(&json::encode_publication(&publication, sequence_id));
            assert_eq!(again, Ok(Received::Publication { publication, sequence_id }));
        }
        Ok(Received::Unknown) | Err(_) => {}
    }
}
