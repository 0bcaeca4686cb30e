//! What a client sends.

use std::time::Duration;

use hookwire_proto::data::Metadata;

use super::error::ClientError;
use super::session::Ack;
use crate::payload::Payload;
use crate::transport::MESSAGE_TTL_MAX;

/// A message to a group, or an event, and how it is sent. A text or bytes alone become one by themselves.
///
/// ```
/// use std::time::Duration;
/// use hookwire_client::{Payload, Sending};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let move_ = Sending::new(Payload::json(&("e2", "e4"))?).no_echo().ack_id(17).timeout(Duration::from_secs(5));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Sending {
    pub(super) payload: Payload,
    pub(super) no_echo: bool,
    pub(super) ack: Ack,
    pub(super) timeout: Option<Duration>,
    ttl: Option<Duration>,
    metadata: Vec<(String, String)>,
}

impl Sending {
    /// Takes what is sent.
    pub fn new(payload: impl Into<Payload>) -> Self {
        Self {
            payload: payload.into(),
            no_echo: false,
            ack: Ack::Own,
            timeout: None,
            ttl: None,
            metadata: Vec::new(),
        }
    }

    /// Keeps a message to a group from coming back to its sender. An event does not come back anyway.
    #[must_use]
    pub fn no_echo(mut self) -> Self {
        self.no_echo = true;
        self
    }

    /// Sets how long a message to a group waits for a connection whose transport is lost: whole seconds, rounded up, at most
    /// [`MESSAGE_TTL_MAX`]. Without it as long as the connection may come back. It does not count for events.
    #[must_use]
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Adds a pair that travels with the message. Of one key the last value counts.
    #[must_use]
    pub fn metadata(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.metadata.push((key.into(), value.into()));
        self
    }

    /// Chooses the ack id, below [`CHOSEN_ACK_IDS`](super::CHOSEN_ACK_IDS). On one connection the service carries out one message of an
    /// id: send it again after a timeout with the same id, and it is there once.
    #[must_use]
    pub fn ack_id(mut self, id: u64) -> Self {
        self.ack = Ack::Chosen(id);
        self
    }

    /// Waits for no answer: whether the message was taken is not known.
    #[must_use]
    pub fn without_ack(mut self) -> Self {
        self.ack = Ack::None;
        self
    }

    /// Sets how long to wait for the answer. Default: that of the client.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    pub(super) fn ttl_seconds(&self) -> Result<Option<u16>, ClientError> {
        let Some(ttl) = self.ttl else { return Ok(None) };
        if MESSAGE_TTL_MAX < ttl {
            return Err(ClientError::Ttl);
        }
        let seconds = ttl.as_secs() + u64::from(0 < ttl.subsec_nanos());
        u16::try_from(seconds).map(Some).map_err(|_| ClientError::Ttl)
    }

    pub(super) fn take_metadata(&mut self) -> Result<Metadata, ClientError> {
        Ok(Metadata::new(std::mem::take(&mut self.metadata))?)
    }
}

impl<T: Into<Payload>> From<T> for Sending {
    fn from(payload: T) -> Self {
        Self::new(payload)
    }
}
