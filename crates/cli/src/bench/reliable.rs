//! One reliable client of Web PubSub, as client libraries are: it acknowledges by cumulative sequence ids, comes back by its
//! reconnection token and drops what it has had (Web PubSub protocol, "Reliable protocols and recovery").

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use hookwire_proto::frame::encode;
use hookwire_proto::message::Message;
use hookwire_proto::subprotocol::{ClientMessage, Received, ServerMessage, Subprotocol};
use url::form_urlencoded::Serializer;

use super::swarm::MASK;

/// Bytes of a message that the client must see to understand it; longer payloads do not fit.
pub(super) const HEAD_BYTES: usize = 1_024;

/// Longest text that fits into such a message with everything around it.
pub(super) const TEXT_BYTES_MAX: usize = 512;

/// What is known of a connection.
#[derive(Debug, Default)]
pub(super) struct ReliableClient {
    identity: Option<Identity>,
    /// The largest sequence id that came, and the largest that the service was told of.
    largest: u64,
    told: u64,
}

#[derive(Debug)]
struct Identity {
    connection_id: String,
    reconnection_token: String,
}

/// What a message turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A message that is new.
    New(Bytes),
    /// One that came before the connection was cut.
    Repeated,
    /// Something about the connection.
    Told,
}

impl ReliableClient {
    /// Returns path and query by which the client gets in: back to its connection if it has one.
    pub(super) fn way_in(&self, way_in: &str) -> String {
        let Some(Identity { connection_id, reconnection_token }) = &self.identity else {
            return way_in.to_owned();
        };
        let proof = Serializer::new(String::new())
            .append_pair("awps_connection_id", connection_id)
            .append_pair("awps_reconnection_token", reconnection_token)
            .finish();
        format!("{way_in}&{proof}")
    }

    /// Takes a whole message.
    ///
    /// # Errors
    /// A sequence id is missing, the connection is another one, or nobody understands the message.
    pub(super) fn handle_message(
        &mut self,
        subprotocol: Subprotocol,
        payload: &[u8],
    ) -> anyhow::Result<Heard> {
        match decode(subprotocol, payload)? {
            Received::Publication { publication, sequence_id } => {
                let id = sequence_id.context("a message has no sequence id")?;
                if id <= self.largest {
                    return Ok(Heard::Repeated);
                }
                let due = self.largest + 1;
                ensure!(id == due, "sequence id {id} came where {due} was due");
                self.largest = id;
                Ok(Heard::New(publication.data.bytes))
            }
            Received::Message(ServerMessage::Connected {
                connection_id,
                reconnection_token,
                ..
            }) => {
                if let Some(known) = &self.identity {
                    ensure!(
                        known.connection_id == connection_id,
                        "the service made another connection in place of the one that was cut"
                    );
                }
                let known = self.identity.take().map(|known| known.reconnection_token);
                let reconnection_token = reconnection_token
                    .or(known)
                    .context("a reliable connection has no reconnection token")?;
                self.identity = Some(Identity { connection_id, reconnection_token });
                Ok(Heard::Told)
            }
            Received::Message(_) => Ok(Heard::Told),
            Received::Unknown => bail!("a message came that no library would understand"),
        }
    }

    /// Whether the service has told who the client is.
    pub(super) const fn is_known(&self) -> bool {
        self.identity.is_some()
    }

    /// Returns the connection's id, once the service has told it.
    pub(super) fn connection_id(&self) -> Option<&str> {
        self.identity.as_ref().map(|identity| identity.connection_id.as_str())
    }

    /// Returns the frame that acknowledges what has come, unless the service knows.
    pub(super) fn acknowledge(&mut self, subprotocol: Subprotocol) -> Option<Bytes> {
        if self.told == self.largest {
            return None;
        }
        self.told = self.largest;
        Some(frame(subprotocol, &ClientMessage::SequenceAck { sequence_id: self.largest }))
    }

    /// Returns the frame that a client sends when it is back: what has come, whether the service knows or not.
    pub(super) fn resume(&mut self, subprotocol: Subprotocol) -> Option<Bytes> {
        self.told = 0;
        self.acknowledge(subprotocol)
    }
}

/// Returns what a service's message says.
pub(super) fn decode(subprotocol: Subprotocol, payload: &[u8]) -> anyhow::Result<Received> {
    let data = Bytes::copy_from_slice(payload);
    Ok(subprotocol.decode_server(&Message { kind: subprotocol.message_kind(), data })?)
}

/// Returns a client's message as a frame.
pub(super) fn frame(subprotocol: Subprotocol, message: &ClientMessage) -> Bytes {
    let Message { kind, data } = subprotocol.encode_client(message);
    encode(kind.opcode(), &data, Some(MASK))
}

#[cfg(test)]
mod tests {
    use hookwire_proto::data::{Data, Metadata};
    use hookwire_proto::subprotocol::{Publication, Source};

    use super::*;

    fn message(subprotocol: Subprotocol, text: &str, sequence_id: u64) -> Bytes {
        let publication = Publication {
            source: Source::Server,
            data: Data::text(text.to_owned()),
            metadata: Metadata::default(),
            stream: None,
        };
        subprotocol.encode_publication(&publication, Some(sequence_id))
    }

    fn connected(subprotocol: Subprotocol, id: &str) -> Bytes {
        let connected = ServerMessage::Connected {
            connection_id: id.to_owned(),
            user_id: None,
            reconnection_token: Some("proof&".to_owned()),
        };
        subprotocol.encode_server(&connected).data
    }

    #[test]
    fn what_came_before_is_dropped_and_what_is_missing_is_found() {
        for subprotocol in [Subprotocol::JsonReliable, Subprotocol::ProtobufReliable] {
            let mut client = ReliableClient::default();
            assert_eq!(client.way_in("/c?t=1"), "/c?t=1");
            let told = client.handle_message(subprotocol, &connected(subprotocol, "one"));
            assert_eq!(told.unwrap(), Heard::Told);
            let way_back = "/c?t=1&awps_connection_id=one&awps_reconnection_token=proof%26";
            assert_eq!(client.way_in("/c?t=1"), way_back);
            assert_eq!(client.acknowledge(subprotocol), None);
            for (id, expected) in
                [(1, Heard::New("a".into())), (1, Heard::Repeated), (2, Heard::New("a".into()))]
            {
                let heard = client.handle_message(subprotocol, &message(subprotocol, "a", id));
                assert_eq!(heard.unwrap(), expected);
            }
            assert!(client.acknowledge(subprotocol).is_some());
            assert_eq!(client.acknowledge(subprotocol), None, "the service knows");
            assert!(client.resume(subprotocol).is_some(), "it may not after a cut");
            let gap = client.handle_message(subprotocol, &message(subprotocol, "a", 4));
            assert_eq!(gap.unwrap_err().to_string(), "sequence id 4 came where 3 was due");
            let other = client.handle_message(subprotocol, &connected(subprotocol, "two"));
            assert!(other.unwrap_err().to_string().contains("another connection"));
        }
    }
}
