//! One connection of a tunnel, opened again whenever it is lost.

use std::future::{Future, pending};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hookwire_proto::connection::Event;
use hookwire_proto::frame::CloseCode;
use hookwire_proto::message::{Message, MessageKind};
use hookwire_proto::tunnel::{Frame, HttpRequest, MESSAGE_BYTES_MAX};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Boxed, Goal, TunnelClient, TunnelError, TunnelEvent, TunnelRequest, TunnelResponse};
use crate::client::ConnectError;
use crate::client::dial::{Opened, random};
use crate::client::socket::{Incoming, Socket};
use crate::transport::one_line;

/// Requests of one connection under way. More are not read.
const REQUESTS_MAX: usize = 1_024;

/// A connection and what it needs of its tunnel.
pub(super) struct Line<'a, Handler, Tell> {
    pub(super) client: &'a TunnelClient,
    pub(super) handler: &'a Handler,
    pub(super) tell: &'a Tell,
    /// Where further connections are asked for.
    pub(super) more: mpsc::Sender<Goal>,
}

/// How a connection ended.
enum Ended {
    /// It was lost.
    Lost(String),
    /// The service sends it elsewhere.
    Elsewhere(Goal),
    /// The service will have it no more.
    Closed(String),
}

/// A connection that stands.
struct Talk<'a> {
    socket: Socket,
    /// Answers to come, as the frames that they are.
    answers: FuturesUnordered<Boxed<'a, Vec<Bytes>>>,
    /// When something last came.
    heard: Instant,
    was_pinged: bool,
    was_greeted: bool,
}

enum Happened {
    Incoming(Incoming),
    Written(std::io::Result<()>),
    Answered(Vec<Bytes>),
    Timeout,
}

impl<'a, Handler, Answer, Tell> Line<'a, Handler, Tell>
where
    Handler: Fn(TunnelRequest) -> Answer + Sync,
    Answer: Future<Output = TunnelResponse> + Send + 'a,
    Tell: Fn(TunnelEvent) + Sync,
{
    /// Runs until the service will not have it any more.
    pub(super) async fn run(self, mut goal: Goal) -> TunnelError {
        let options = &self.client.options;
        let mut delay = options.delay_min;
        loop {
            let reason = match self.client.dialer.dial(&self.client.url(&goal)).await {
                Ok(stream) => {
                    let mut was_greeted = false;
                    let ended = self.serve(stream, &mut was_greeted).await;
                    if was_greeted {
                        delay = options.delay_min;
                    }
                    match ended {
                        Ended::Closed(message) => return TunnelError::Closed { message },
                        // A service that sends around in a circle is not followed faster than this.
                        Ended::Elsewhere(to) => {
                            goal = to;
                            sleep(some_of(options.delay_min)).await;
                            continue;
                        }
                        Ended::Lost(reason) => reason,
                    }
                }
                Err(error) if error.is_final() => return error.into(),
                Err(error) => described(&error),
            };
            // Whoever was sent elsewhere in vain comes back.
            goal = self.client.home();
            let retry_in = some_of(delay);
            (self.tell)(TunnelEvent::Disconnected { reason, retry_in });
            sleep(retry_in).await;
            delay = (2 * delay).min(options.delay_max);
        }
    }

    async fn serve(&self, opened: Opened, was_greeted: &mut bool) -> Ended {
        let mut talk = Talk {
            socket: Socket::new(opened, MESSAGE_BYTES_MAX),
            answers: FuturesUnordered::new(),
            heard: Instant::now(),
            was_pinged: false,
            was_greeted: false,
        };
        loop {
            let happened = self.happens(&mut talk).await;
            let ended = self.handle(&mut talk, happened);
            *was_greeted |= talk.was_greeted;
            if let Some(ended) = ended {
                // What can be written at once says goodbye.
                let _ = tokio::time::timeout(GOODBYE_TIME_MAX, flush(&mut talk.socket)).await;
                return ended;
            }
        }
    }

    async fn happens(&self, talk: &mut Talk<'a>) -> Happened {
        let can_read = talk.answers.len() < REQUESTS_MAX && !talk.socket.writer.is_full();
        if !can_read {
            // Nothing is heard because nothing is read.
            talk.heard = Instant::now();
        }
        let options = &self.client.options;
        let patience = match (talk.was_greeted, talk.was_pinged) {
            (false, _) => options.connect_timeout,
            (true, false) => options.ping_interval,
            (true, true) => 2 * options.ping_interval,
        };
        let timeout = talk.heard + patience;
        let Talk { socket: Socket { reader, writer }, answers, .. } = talk;
        let can_take = !writer.is_full();
        tokio::select! {
            incoming = reader.read(), if can_read => Happened::Incoming(incoming),
            written = writer.write(), if writer.is_busy() => Happened::Written(written),
            Some(frames) = next(answers), if can_take => Happened::Answered(frames),
            () = sleep_until(timeout) => Happened::Timeout,
        }
    }

    fn handle(&self, talk: &mut Talk<'a>, happened: Happened) -> Option<Ended> {
        match happened {
            Happened::Incoming(Incoming::End) => {
                Some(Ended::Lost("the connection ended".to_owned()))
            }
            Happened::Incoming(Incoming::Violation(_, code)) => {
                Some(violated(talk, code, "the service broke the protocol"))
            }
            Happened::Incoming(Incoming::Events(events)) => {
                talk.heard = Instant::now();
                talk.was_pinged = false;
                events.into_iter().find_map(|event| self.hear(talk, event))
            }
            Happened::Written(Ok(())) => None,
            Happened::Written(Err(error)) => Some(Ended::Lost(error.to_string())),
            Happened::Answered(frames) => {
                let mut put = frames.into_iter().map(|frame| send(talk, frame));
                put.find_map(Result::err).map(|error| Ended::Lost(error.to_string()))
            }
            Happened::Timeout if talk.was_greeted && !talk.was_pinged => {
                talk.was_pinged = true;
                let put = talk.socket.writer.put_ping();
                put.err().map(|error| Ended::Lost(error.to_string()))
            }
            Happened::Timeout => Some(Ended::Lost("the service was silent".to_owned())),
        }
    }

    fn hear(&self, talk: &mut Talk<'a>, event: Event) -> Option<Ended> {
        match event {
            Event::Message(message) => self.read(talk, &message),
            Event::Ping(payload) => {
                let put = talk.socket.writer.put_pong(&payload);
                put.err().map(|error| Ended::Lost(error.to_string()))
            }
            Event::Pong => None,
            Event::Close(close) => {
                // The mask that cannot be made shows at the next attempt.
                let _ = talk.socket.writer.put_close(close.as_ref().map(|close| close.code));
                let reason = close.map_or_else(String::new, |close| {
                    format!(" with {} {}", close.code.get(), one_line(&close.reason))
                });
                Some(Ended::Lost(format!("the service closed the connection{reason}")))
            }
        }
    }

    fn read(&self, talk: &mut Talk<'a>, message: &Message) -> Option<Ended> {
        let frame = if message.kind == MessageKind::Text {
            None
        } else {
            Frame::decode(&message.data).ok()
        };
        match frame {
            None => Some(violated(talk, CloseCode::INVALID_PAYLOAD, "the service sent no frame")),
            Some(Frame::Connected(connected)) => {
                talk.was_greeted = true;
                let connection_id = one_line(&connected.connection_id);
                (self.tell)(TunnelEvent::Connected { connection_id });
                None
            }
            Some(Frame::Request(request)) => {
                talk.answers.push(self.answer(request));
                None
            }
            Some(Frame::Reconnect(to)) => {
                let _ = talk.socket.writer.put_close(Some(CloseCode::NORMAL));
                Some(Ended::Elsewhere(self.client.redirected(&to)))
            }
            Some(Frame::Close(status)) => {
                let _ = talk.socket.writer.put_close(Some(CloseCode::NORMAL));
                Some(Ended::Closed(one_line(status.message.as_deref().unwrap_or_default())))
            }
            Some(Frame::Rebalance(to)) => {
                // When as many wait as there may be, one more would not be opened.
                let _ = self.more.try_send(self.client.redirected(&to));
                None
            }
            Some(Frame::Status(status)) => {
                let message = one_line(status.message.as_deref().unwrap_or_default());
                (self.tell)(TunnelEvent::Status { message });
                None
            }
            // This side asks for nothing, and what it does not know changes nothing.
            Some(Frame::Response(_) | Frame::Unknown(_)) => None,
        }
    }

    /// Lets the application answer.
    fn answer(&self, mut request: HttpRequest) -> Boxed<'a, Vec<Bytes>> {
        let body = request.content.take().unwrap_or_default();
        let answer = TunnelRequest::read(&request, body).map(self.handler);
        Box::pin(async move {
            let answer = match answer {
                Some(answer) => answer.await,
                None => TunnelResponse::text(http::StatusCode::BAD_REQUEST, "no HTTP request"),
            };
            answer.frames(&request)
        })
    }
}

/// How long a goodbye may take to be written.
const GOODBYE_TIME_MAX: Duration = Duration::from_secs(1);

fn violated(talk: &mut Talk<'_>, code: CloseCode, reason: &str) -> Ended {
    let _ = talk.socket.writer.put_close(Some(code));
    Ended::Lost(reason.to_owned())
}

fn send(talk: &mut Talk<'_>, frame: Bytes) -> std::io::Result<()> {
    talk.socket.writer.put_message(&Message::binary(frame))
}

async fn flush(socket: &mut Socket) {
    while socket.writer.is_busy() && socket.writer.write().await.is_ok() {}
}

/// Waits for the next answer; for ever when there is none to come.
async fn next(answers: &mut FuturesUnordered<Boxed<'_, Vec<Bytes>>>) -> Option<Vec<Bytes>> {
    if answers.is_empty() { pending().await } else { answers.next().await }
}

/// Returns half of a time and a random part of the other half, so that many do not come back at once.
fn some_of(time: Duration) -> Duration {
    let random = random::<1>().map_or(u8::MAX, |[byte]| byte);
    time / 2 + time / 2 * u32::from(random) / u32::from(u8::MAX)
}

fn described(error: &ConnectError) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    one_line(&text)
}
