//! Instruction counts of the subprotocols: what it takes to read what a client asks, to answer, and to encode what all receivers share.
//!
//! `cargo xtask counts` runs it, and compares.

#![expect(missing_docs, reason = "the macros make public items without documentation")]

use std::hint::black_box;

use bytes::{Bytes, BytesMut};
use gungraun::prelude::*;
use hookwire_proto::data::{Data, DataKind, Metadata};
use hookwire_proto::message::Message;
use hookwire_proto::name::{GroupName, UserId};
use hookwire_proto::subprotocol::{
    ClientMessage, PUBLICATION_HEAD_BYTES_MAX, Publication, ServerMessage, Source, Subprotocol,
};

/// Data of a chat message.
fn data(kind: DataKind) -> Data {
    let bytes = match kind {
        DataKind::Json => format!(r#"{{"text":"{}","at":1600000000000}}"#, "x".repeat(96)),
        DataKind::Text | DataKind::Binary | DataKind::Protobuf => "x".repeat(128),
    };
    Data::new(kind, Bytes::from(bytes)).expect("it is of its kind")
}

fn group() -> GroupName {
    GroupName::parse("everybody").expect("it is a group's name")
}

fn asked(subprotocol: Subprotocol, message: &ClientMessage) -> (Subprotocol, Message) {
    (subprotocol, subprotocol.encode_client(message))
}

fn sent(subprotocol: Subprotocol, kind: DataKind) -> (Subprotocol, Message) {
    let message = ClientMessage::SendToGroup {
        group: group(),
        ack_id: Some(17),
        no_echo: false,
        ttl_seconds: None,
        data: data(kind),
        metadata: Metadata::default(),
    };
    asked(subprotocol, &message)
}

fn acknowledged(subprotocol: Subprotocol) -> (Subprotocol, Message) {
    asked(subprotocol, &ClientMessage::SequenceAck { sequence_id: 1_234 })
}

#[library_benchmark]
#[bench::a_text_to_a_group_in_json(sent(Subprotocol::Json, DataKind::Text))]
#[bench::json_to_a_group_in_json(sent(Subprotocol::Json, DataKind::Json))]
#[bench::a_text_to_a_group_in_protobuf(sent(Subprotocol::Protobuf, DataKind::Text))]
#[bench::an_ack_in_json(acknowledged(Subprotocol::JsonReliable))]
#[bench::an_ack_in_protobuf(acknowledged(Subprotocol::ProtobufReliable))]
fn decode((subprotocol, message): (Subprotocol, Message)) -> (Message, ClientMessage) {
    let asked = subprotocol.decode_client(black_box(&message)).expect("it is well-formed");
    // Returned, so that the counts hold no clean-up.
    black_box((message, asked))
}

#[library_benchmark]
#[bench::in_json(Subprotocol::Json)]
#[bench::in_protobuf(Subprotocol::Protobuf)]
fn encode_ack(subprotocol: Subprotocol) -> Message {
    let ack = ServerMessage::Ack { ack_id: 17, error: None };
    black_box(subprotocol.encode_server(black_box(&ack)))
}

fn publication(subprotocol: Subprotocol, kind: DataKind) -> (Subprotocol, Publication) {
    let user = Some(UserId::parse("user-7").expect("it is a user id"));
    let source = Source::Group { group: group(), user };
    let publication =
        Publication { source, data: data(kind), metadata: Metadata::default(), stream: None };
    (subprotocol, publication)
}

#[library_benchmark(setup = publication)]
#[bench::a_text_in_json(Subprotocol::Json, DataKind::Text)]
#[bench::json_in_json(Subprotocol::Json, DataKind::Json)]
#[bench::bytes_in_json(Subprotocol::Json, DataKind::Binary)]
#[bench::a_text_in_protobuf(Subprotocol::Protobuf, DataKind::Text)]
fn encode_publication(
    (subprotocol, publication): (Subprotocol, Publication),
) -> (Publication, Bytes) {
    let encoded = subprotocol.encode_publication(black_box(&publication), None);
    black_box((publication, encoded))
}

// What each reliable receiver has for itself; the tail is shared.
#[library_benchmark]
#[bench::in_json(Subprotocol::JsonReliable, BytesMut::with_capacity(PUBLICATION_HEAD_BYTES_MAX))]
#[bench::in_protobuf(
    Subprotocol::ProtobufReliable,
    BytesMut::with_capacity(PUBLICATION_HEAD_BYTES_MAX)
)]
fn encode_head(subprotocol: Subprotocol, mut out: BytesMut) -> BytesMut {
    subprotocol.publication_head(black_box(1_234), black_box(180), &mut out);
    black_box(out)
}

library_benchmark_group!(
    name = subprotocol,
    benchmarks = [decode, encode_ack, encode_publication, encode_head]
);
main!(library_benchmark_groups = subprotocol);
