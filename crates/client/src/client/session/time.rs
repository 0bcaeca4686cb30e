//! What a session does by the clock.

use std::time::{Duration, Instant};

use hookwire_proto::subprotocol::ClientMessage;

use super::requests::Key;
use super::{Effect, Lost, Phase, Session};
use crate::client::error::{ClientError, ConnectError};
use crate::client::event::Stopped;

/// An attempt to get a transport for the connection that is there.
#[derive(Debug, Clone, Copy)]
pub(super) enum Attempt {
    Due { at: Instant },
    Opening { since: Instant },
    Greeting { since: Instant },
}

impl<R> Session<R> {
    /// Returns when [`Session::handle_timeout`] is to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let online =
            [Some(self.ping_at), Some(self.heard + SILENCE_MAX), self.sequence.poll_timeout()];
        let phase = match &self.phase {
            Phase::Greeting { until } | Phase::Resting { until } | Phase::Closing { until } => {
                Some(*until)
            }
            Phase::Online { .. } => online.into_iter().flatten().min(),
            Phase::Recovering { until, attempt, .. } => Some((*until).min(attempt.timeout())),
            Phase::New | Phase::Opening | Phase::Over => None,
        };
        [phase, self.requests.poll_timeout(), self.streams.poll_timeout()]
            .into_iter()
            .flatten()
            .min()
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(&mut self, now: Instant, effects: &mut Vec<Effect<R>>) {
        while let Some(request) = self.requests.take_late(now) {
            if let (Key::Invocation(number), true) = (request.key, self.is_online()) {
                let invocation_id = number.to_string();
                self.write(&ClientMessage::CancelInvocation { invocation_id }, effects);
            }
            let limit = request.limit;
            self.answer(request, Err(ClientError::Timeout { limit }), effects);
        }
        let (subprotocol, is_online) = (self.config.subprotocol, self.is_online());
        self.streams.handle_timeout(now, subprotocol, is_online, effects);
        match &mut self.phase {
            Phase::Greeting { until } if *until <= now => {
                effects.push(Effect::Drop);
                self.fail(now, ConnectError::Timeout, effects);
            }
            Phase::Resting { until } if *until <= now => self.open(effects),
            Phase::Closing { until } if *until <= now => {
                effects.push(Effect::Drop);
                self.end(Stopped::ByRequest, effects);
            }
            Phase::Recovering { until, attempt, .. } if *until <= now => {
                if attempt.has_transport() {
                    effects.push(Effect::Drop);
                }
                self.finish(now, None, None, effects);
            }
            Phase::Recovering { identity, attempt, .. } if attempt.timeout() <= now => {
                if attempt.has_transport() {
                    effects.push(Effect::Drop);
                }
                *attempt = Attempt::Opening { since: now };
                effects.push(Effect::Open(Some(Lost {
                    connection_id: identity.connection_id.clone(),
                    reconnection_token: identity.reconnection_token.clone().unwrap_or_default(),
                })));
            }
            Phase::Online { .. } => self.handle_online_timeout(now, effects),
            Phase::New
            | Phase::Opening
            | Phase::Greeting { .. }
            | Phase::Recovering { .. }
            | Phase::Resting { .. }
            | Phase::Closing { .. }
            | Phase::Over => {}
        }
    }

    fn handle_online_timeout(&mut self, now: Instant, effects: &mut Vec<Effect<R>>) {
        if self.heard + SILENCE_MAX <= now {
            effects.push(Effect::Drop);
            self.lose(now, None, effects);
            return;
        }
        if self.ping_at <= now {
            self.ping_at = now + PING_INTERVAL;
            effects.push(Effect::Ping);
        }
        if self.sequence.poll_timeout().is_some_and(|due| due <= now) {
            let sequence_id = self.sequence.tell();
            self.write(&ClientMessage::SequenceAck { sequence_id }, effects);
        }
    }
}

impl Attempt {
    /// Nothing came of it: the next one begins a while after this one did.
    pub(super) fn fail(&mut self, now: Instant) {
        if let Self::Opening { since } | Self::Greeting { since } = *self {
            *self = Self::Due { at: (since + RECOVERY_INTERVAL).max(now) };
        }
    }

    /// Returns when the next one begins, whatever has become of this one.
    fn timeout(&self) -> Instant {
        match self {
            Self::Due { at } => *at,
            Self::Opening { since } | Self::Greeting { since } => *since + ATTEMPT_MAX,
        }
    }

    fn has_transport(&self) -> bool {
        !matches!(self, Self::Due { .. })
    }
}

/// Returns the time after a pause that the application chose, which may be for ever.
pub(super) fn after(now: Instant, pause: Duration) -> Instant {
    now + pause.min(PAUSE_MAX)
}

/// As long as for ever, and within what a clock can say.
const PAUSE_MAX: Duration = Duration::from_hours(24 * 365);

/// Attempts at its recovery begin so far apart.
pub(super) const RECOVERY_INTERVAL: Duration = Duration::from_secs(1);

/// An attempt at recovery that takes longer is given up for another.
const ATTEMPT_MAX: Duration = Duration::from_secs(5);

/// After so long without a sign of the service it is asked for one.
pub(super) const PING_INTERVAL: Duration = Duration::from_secs(20);

/// After so long without a sign of the service the transport is given up.
const SILENCE_MAX: Duration = Duration::from_mins(1);
