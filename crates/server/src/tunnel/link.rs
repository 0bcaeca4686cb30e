//! The task of one tunnel: the owner of its socket and its clock.

use std::collections::VecDeque;
use std::future::pending;
use std::pin::Pin;
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use hookwire_proto::connection::Event;
use hookwire_proto::frame::{CloseCode, CloseFrame};
use hookwire_proto::message::{Message, MessageKind};
use hookwire_proto::name::HubName;
use hookwire_proto::tunnel::{Frame, FrameError, Redirection};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::calls::{Line, Outgoing};
use super::rest;
use super::socket::{Incoming, Reader, Writer};
use crate::http::Edge;

/// REST calls of one tunnel under way. More are not read.
pub(super) const REST_CALLS_MAX: usize = 256;

/// How long a tunnel may take for its part of the close handshake.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(2);

/// What a tunnel's task has.
pub(super) struct Link {
    pub(super) hub: HubName,
    pub(super) line: Arc<Line>,
    pub(super) queue: mpsc::UnboundedReceiver<Outgoing>,
    /// The service, which does not wait for its tunnels to end.
    pub(super) edge: Weak<Edge>,
    /// After this long without a word the tunnel is pinged; after twice as long it is closed.
    pub(super) ping_interval: Duration,
    /// How long the tunnel may take nothing although something waits.
    pub(super) slow_time_max: Duration,
    /// Cancelled when the token that opened the tunnel may be good no more.
    pub(super) revoked: CancellationToken,
    /// Cancelled when the service ends.
    pub(super) end: CancellationToken,
}

/// Why a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// The upstream closed it.
    Closed,
    /// The connection broke.
    Broken,
    /// The upstream broke the protocol.
    Violation,
    /// The upstream was silent for too long.
    Silent,
    /// The upstream took nothing for too long.
    Slow,
    /// It was opened by keys or identity providers that may hold no more.
    Revoked,
    /// The service ends.
    Shutdown,
}

/// REST calls under way; each ends in the frames of its answer.
type RestCalls = FuturesUnordered<Pin<Box<dyn Future<Output = Vec<Bytes>> + Send>>>;

/// What a task has besides its [`Link`].
struct Talk {
    reader: Reader,
    writer: Writer,
    rest: RestCalls,
    /// Whom to tell when the output was written up to a place.
    unwritten: VecDeque<(u64, oneshot::Sender<()>)>,
    /// When something last came.
    heard: Instant,
    was_pinged: bool,
    /// When something was last taken.
    taken: Instant,
    farewell: Option<Farewell>,
}

/// The close handshake.
struct Farewell {
    deadline: Instant,
    reason: Ended,
    /// Whether the peer's close frame has come: nothing follows it.
    is_answered: bool,
}

/// One thing that a task waits for.
enum Happened {
    Incoming(Incoming),
    Written(std::io::Result<()>),
    Request(Option<Outgoing>),
    Answered(Vec<Bytes>),
    Revoked,
    End,
    Timeout,
}

impl Link {
    /// Greets and serves until the tunnel ends. What waits for it then is lost.
    pub(super) async fn run(&mut self, socket: (Reader, Writer), greeting: &Bytes) -> Ended {
        let (reader, mut writer) = socket;
        writer.put_message(greeting);
        let now = Instant::now();
        let mut talk = Talk {
            reader,
            writer,
            rest: FuturesUnordered::new(),
            unwritten: VecDeque::new(),
            heard: now,
            was_pinged: false,
            taken: now,
            farewell: None,
        };
        let ended = loop {
            let happened = self.happens(&mut talk).await;
            let ended = self.handle(&mut talk, happened);
            if talk.farewell.is_some() {
                // No request is written any more, and no answer read.
                self.line.close();
            }
            if let Some(ended) = ended {
                break ended;
            }
        };
        self.line.close();
        ended
    }

    async fn happens(&mut self, talk: &mut Talk) -> Happened {
        let can_read =
            talk.rest.len() < REST_CALLS_MAX && !talk.writer.is_overfull() && !talk.is_answered();
        if !can_read {
            // Nothing is heard because nothing is read.
            talk.heard = Instant::now();
        }
        let can_take = !talk.writer.is_full();
        let is_open = talk.farewell.is_none();
        let timeout = talk.timeout(self.ping_interval, self.slow_time_max);
        let Talk { reader, writer, rest, .. } = talk;
        tokio::select! {
            incoming = reader.read(), if can_read => Happened::Incoming(incoming),
            written = writer.write(), if writer.is_busy() => Happened::Written(written),
            request = self.queue.recv(), if can_take && is_open => Happened::Request(request),
            Some(frames) = next(rest), if can_take => Happened::Answered(frames),
            () = self.revoked.cancelled(), if is_open => Happened::Revoked,
            () = self.end.cancelled(), if is_open => Happened::End,
            () = sleep_until(timeout) => Happened::Timeout,
        }
    }

    /// Returns why the tunnel has ended, if it has.
    fn handle(&self, talk: &mut Talk, happened: Happened) -> Option<Ended> {
        let now = Instant::now();
        let was_busy = talk.writer.is_busy();
        match happened {
            Happened::Incoming(Incoming::End) | Happened::Written(Err(_)) => {
                return Some(talk.farewell.as_ref().map_or(Ended::Broken, |end| end.reason));
            }
            Happened::Incoming(Incoming::Events(events)) => {
                self.hear(talk, now, events);
            }
            Happened::Incoming(Incoming::Violation(events, code)) => {
                self.hear(talk, now, events);
                talk.close(now, code, "", Ended::Violation);
            }
            Happened::Written(Ok(())) => {
                talk.taken = now;
                talk.tell_written();
            }
            Happened::Request(Some(outgoing)) => {
                if let Some((message, written)) = self.line.take(outgoing) {
                    talk.writer.put_message(&message);
                    talk.unwritten.push_back((talk.writer.end(), written));
                }
            }
            // The line, which is ours, holds the other end.
            Happened::Request(None) => {}
            Happened::Answered(frames) => talk.put(&frames),
            Happened::Revoked => talk.send_away(now, "other keys are in force", Ended::Revoked),
            Happened::End => talk.send_away(now, "the service is shutting down", Ended::Shutdown),
            Happened::Timeout => return self.timed_out(talk, now),
        }
        if !was_busy {
            talk.taken = now;
        }
        talk.farewell
            .as_ref()
            .filter(|farewell| farewell.is_answered && !talk.writer.is_busy())
            .map(|farewell| farewell.reason)
    }

    fn timed_out(&self, talk: &mut Talk, now: Instant) -> Option<Ended> {
        if let Some(farewell) = &talk.farewell {
            return (farewell.deadline <= now).then_some(farewell.reason);
        }
        if talk.writer.is_busy() && talk.taken + self.slow_time_max <= now {
            return Some(Ended::Slow);
        }
        if talk.heard + 2 * self.ping_interval <= now {
            talk.close(now, CloseCode::GOING_AWAY, "the tunnel was silent", Ended::Silent);
        } else if talk.heard + self.ping_interval <= now && !talk.was_pinged {
            talk.writer.put_ping();
            talk.was_pinged = true;
        }
        None
    }

    fn hear(&self, talk: &mut Talk, now: Instant, events: Vec<Event>) {
        talk.heard = now;
        talk.was_pinged = false;
        for event in events {
            match event {
                Event::Message(message) => self.read(talk, now, &message),
                Event::Ping(payload) => talk.writer.put_pong(&payload),
                Event::Pong => {}
                Event::Close(close) => talk.answer_close(now, close),
            }
        }
    }

    fn read(&self, talk: &mut Talk, now: Instant, message: &Message) {
        if talk.farewell.is_some() {
            return;
        }
        if message.kind == MessageKind::Text {
            let reason = "a tunnel carries binary messages";
            return talk.close(now, CloseCode::UNSUPPORTED, reason, Ended::Violation);
        }
        match Frame::decode(&message.data) {
            Ok(Frame::Response(response)) => self.line.answered(response),
            Ok(Frame::Request(request)) => {
                let mut call = Box::pin(rest::call(self.edge.clone(), self.hub.clone(), request));
                // Calls take effect in the order in which they came: each is begun before the next one is read.
                match (&mut call).now_or_never() {
                    Some(frames) => talk.put(&frames),
                    None => talk.rest.push(call),
                }
            }
            Ok(
                Frame::Status(_)
                | Frame::Reconnect(_)
                | Frame::Close(_)
                | Frame::Rebalance(_)
                | Frame::Connected(_)
                | Frame::Unknown(_),
            ) => tracing::debug!(hub = %self.hub, "a tunnel sent a frame that is the service's"),
            Err(error) => {
                let code = match error {
                    FrameError::TooLong => CloseCode::TOO_BIG,
                    FrameError::Length | FrameError::MessagePack | FrameError::Json => {
                        CloseCode::INVALID_PAYLOAD
                    }
                };
                talk.close(now, code, &error.to_string(), Ended::Violation);
            }
        }
    }
}

impl Talk {
    fn is_answered(&self) -> bool {
        self.farewell.as_ref().is_some_and(|farewell| farewell.is_answered)
    }

    /// Returns when something is to be done although nothing happens.
    fn timeout(&self, ping_interval: Duration, slow_time_max: Duration) -> Instant {
        if let Some(farewell) = &self.farewell {
            return farewell.deadline;
        }
        let silent = self.heard + if self.was_pinged { 2 * ping_interval } else { ping_interval };
        if self.writer.is_busy() { silent.min(self.taken + slow_time_max) } else { silent }
    }

    fn put(&mut self, frames: &[Bytes]) {
        for frame in frames {
            self.writer.put_message(frame);
        }
    }

    fn tell_written(&mut self) {
        let written = self.writer.written();
        while let Some((_, request)) = self.unwritten.pop_front_if(|(end, _)| *end <= written) {
            // The request may have been answered or given up meanwhile.
            let _ = request.send(());
        }
    }

    /// Has the upstream open another tunnel, and closes this one.
    fn send_away(&mut self, now: Instant, message: &str, why: Ended) {
        let message = Some(message.to_owned());
        let elsewhere = Frame::Reconnect(Redirection { message, ..Redirection::default() });
        self.writer.put_message(&elsewhere.encode().expect("it is short"));
        self.close(now, CloseCode::GOING_AWAY, "", why);
    }

    /// Begins the close handshake.
    fn close(&mut self, now: Instant, code: CloseCode, reason: &str, why: Ended) {
        if self.farewell.is_none() {
            self.writer.put_close(Some(code), reason);
            let deadline = now + CLOSE_TIME_MAX;
            self.farewell = Some(Farewell { deadline, reason: why, is_answered: false });
        }
    }

    /// Does what is left when the peer has closed.
    fn answer_close(&mut self, now: Instant, close: Option<CloseFrame>) {
        if !self.writer.is_closing() {
            self.writer.put_close(close.map(|close| close.code), "");
        }
        let new = || Farewell {
            deadline: now + CLOSE_TIME_MAX,
            reason: Ended::Closed,
            is_answered: true,
        };
        self.farewell.get_or_insert_with(new).is_answered = true;
    }
}

/// Waits for the next REST call to end; for ever when there is none.
async fn next(rest: &mut RestCalls) -> Option<Vec<Bytes>> {
    if rest.is_empty() { pending().await } else { rest.next().await }
}
