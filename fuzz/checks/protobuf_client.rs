//! Messages of the protobuf subprotocol, to the server and to a client.

use bytes::Bytes;
use hookwire_proto::subprotocol::{Received, json, protobuf};

/// Decodes `input` as both sides do. What is understood says the same after it is written and read again, in the other encoding too.
pub(crate) fn check(input: &[u8]) {
    let input = Bytes::copy_from_slice(input);
    if let Ok(said) = protobuf::decode_client(&input) {
        let again = protobuf::decode_client(&protobuf::encode_client(&said));
        assert_eq!(again.as_ref(), Ok(&said));
        assert_eq!(json::decode_client(&json::encode_client(&said)), Ok(said));
    }
    match protobuf::decode_server(&input) {
        Ok(Received::Message(told)) => {
            // JSON data has become text on its way.
            let again = protobuf::decode_server(&protobuf::encode_server(&told));
            assert!(matches!(again, Ok(Received::Message(_))), "{again:?}");
        }
        Ok(Received::Publication { publication, sequence_id }) => {
            let again = protobuf::encode_publication(&publication, sequence_id);
            let again = protobuf::decode_server(&again);
            assert!(matches!(again, Ok(Received::Publication { .. })), "{again:?}");
        }
        Ok(Received::Unknown) | Err(_) => {}
    }
}
