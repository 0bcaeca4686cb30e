//! What comes on a connection, after the greeting.

use std::time::Instant;

use hookwire_proto::subprotocol::{
    ClientMessage, Publication, Received, ServerMessage as FromServer, Source,
};

use super::requests::{Key, Kind, Request};
use super::sequence::Verdict;
use super::{Effect, Reply, Session, settle};
use crate::client::error::ClientError;
use crate::client::event::{ClientEvent, GroupMessage, ServerMessage};
use crate::payload::Payload;

impl<R> Session<R> {
    pub(super) fn handle_received(
        &mut self,
        now: Instant,
        received: Received,
        effects: &mut Vec<Effect<R>>,
    ) {
        let message = match received {
            Received::Publication { publication, sequence_id } => {
                if self.is_new(now, sequence_id, effects) {
                    effects.push(Effect::Tell(told(publication, sequence_id)));
                }
                return;
            }
            Received::Message(message) => message,
            Received::Unknown => return,
        };
        match message {
            FromServer::Ack { ack_id, error } => {
                let outcome = match error {
                    None => Ok(Reply::Done { is_duplicate: false }),
                    // It was carried out before, which is what was asked for (Web PubSub protocol, "Acks and idempotency").
                    Some(error) if error.name == "Duplicate" => {
                        Ok(Reply::Done { is_duplicate: true })
                    }
                    Some(error) => Err(ClientError::Refused(error)),
                };
                if let Some(request) = self.requests.take(Key::Ack(ack_id)) {
                    self.answer(request, outcome, effects);
                }
            }
            FromServer::InvokeResponse { invocation_id, result } => {
                let number = invocation_id.parse().ok().map(Key::Invocation);
                if let Some(request) = number.and_then(|key| self.requests.take(key)) {
                    let outcome = result.map(|data| Reply::Answer(data.map(Payload::from)));
                    self.answer(request, outcome.map_err(ClientError::Refused), effects);
                }
            }
            FromServer::Disconnected { message } => self.goodbye = Some(message),
            FromServer::GroupState { is_snapshot, group, items, sequence_id } => {
                if self.is_new(now, sequence_id, effects) {
                    let state = ClientEvent::GroupState { is_snapshot, group, items };
                    effects.push(Effect::Tell(state));
                }
            }
            FromServer::StreamAck { stream_id, expected_sequence_id } => {
                self.streams.handle_ack(&stream_id, expected_sequence_id, effects);
            }
            FromServer::StreamNack { stream_id, expected_sequence_id, .. } => {
                self.streams.handle_nack(now, &stream_id, expected_sequence_id, effects);
            }
            FromServer::StreamClosed { stream_id, error } => {
                self.streams.handle_closed(&stream_id, error, effects);
            }
            FromServer::Connected { .. } | FromServer::Pong => {}
        }
    }

    pub(super) fn answer(
        &mut self,
        request: Request<R>,
        outcome: Result<Reply, ClientError>,
        effects: &mut Vec<Effect<R>>,
    ) {
        match (request.kind, &outcome) {
            (Kind::Join(group), Ok(_)) => {
                if self.groups.len() < GROUPS_MAX {
                    self.groups.insert(group);
                }
            }
            (Kind::Leave(group), Ok(_)) => {
                self.groups.remove(&group);
            }
            (Kind::Rejoin(group), Err(error)) => {
                // The next connection is not to fail at it as well, unless there was only no answer.
                if matches!(error, ClientError::Refused(_)) {
                    self.groups.remove(&group);
                }
                let error = error.clone();
                effects.push(Effect::Tell(ClientEvent::RejoinFailed { group, error }));
            }
            (Kind::Join(_) | Kind::Leave(_), Err(_))
            | (Kind::Rejoin(_), Ok(_))
            | (Kind::Once | Kind::Invoke, _) => {}
        }
        settle(request.reply, outcome, effects);
    }

    /// Notes a message's sequence id and returns whether the message is to be taken.
    fn is_new(
        &mut self,
        now: Instant,
        sequence_id: Option<u64>,
        effects: &mut Vec<Effect<R>>,
    ) -> bool {
        let Some(id) = sequence_id.filter(|_| self.config.subprotocol.is_reliable()) else {
            return true;
        };
        match self.sequence.handle_message(now, id) {
            Verdict::Duplicate => return false,
            Verdict::New => {}
            Verdict::NewAndDue => {
                let sequence_id = self.sequence.tell();
                self.write(&ClientMessage::SequenceAck { sequence_id }, effects);
            }
        }
        true
    }
}

fn told(publication: Publication, sequence_id: Option<u64>) -> ClientEvent {
    let Publication { source, data, metadata, stream } = publication;
    let payload = Payload::from(data);
    match source {
        Source::Server => ClientEvent::Server(ServerMessage { payload, metadata, sequence_id }),
        Source::Group { group, user } => ClientEvent::Group(GroupMessage {
            group,
            from: user.map(|user| user.to_string()),
            payload,
            metadata,
            stream,
            sequence_id,
        }),
    }
}

/// Most groups that a client joins again on a new connection: as many as one connection can be in.
const GROUPS_MAX: usize = 16_384;
