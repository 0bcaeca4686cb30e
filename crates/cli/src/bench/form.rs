//! How clients of a benchmark want their messages.

use std::slice;

use hookwire_proto::subprotocol::Subprotocol;
use serde::Serialize;

/// The subprotocol of a client; `None`: a simple client, which gets payloads as they are.
pub(super) type Form = Option<Subprotocol>;

/// The forms of all clients of a benchmark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Wire {
    /// Payloads as they are
    Simple,
    /// `json.webpubsub.azure.v1`
    Json,
    /// `protobuf.webpubsub.azure.v1`
    Protobuf,
    /// `json.reliable.webpubsub.azure.v1`
    JsonReliable,
    /// `protobuf.reliable.webpubsub.azure.v1`
    ProtobufReliable,
    /// Equal shares of all of these
    Mixed,
}

/// Every form.
const FORMS: [Form; 5] = [
    None,
    Some(Subprotocol::Json),
    Some(Subprotocol::Protobuf),
    Some(Subprotocol::JsonReliable),
    Some(Subprotocol::ProtobufReliable),
];

impl Wire {
    /// Returns the forms that clients have in turn.
    pub(super) const fn forms(self) -> &'static [Form] {
        let [simple, json, protobuf, json_reliable, protobuf_reliable] = &FORMS;
        match self {
            Self::Simple => slice::from_ref(simple),
            Self::Json => slice::from_ref(json),
            Self::Protobuf => slice::from_ref(protobuf),
            Self::JsonReliable => slice::from_ref(json_reliable),
            Self::ProtobufReliable => slice::from_ref(protobuf_reliable),
            Self::Mixed => &FORMS,
        }
    }
}
