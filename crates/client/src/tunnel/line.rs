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

/// Requests under way of one connection and those before it. More are not read.
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

/// Answers to come, of this connection and of those before it: what a handler has begun it ends, though nobody hears the answer.
#[derive(Default)]
struct Answers<'a> {
    /// Each ends in the number of its connection and its frames.
    coming: FuturesUnordered<Boxed<'a, (u64, Vec<Bytes>)>>,
    /// The number of the connection that stands.
    connection: u64,
}

/// A connection that stands.
struct Talk<'l, 'a> {
    socket: Socket,
    answers: &'l mut Answers<'a>,
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
    /// Runs until the service will not have it any more, and handlers have ended.
    pub(super) async fn run(self, goal: Goal) -> TunnelError {
        let mut answers = Answers::default();
        let error = self.follow(goal, &mut answers).await;
        let _ = tokio::time::timeout(HANDLERS_TIME_MAX, answers.finish()).await;
        error
    }

    async fn follow(&self, mut goal: Goal, answers: &mut Answers<'a>) -> TunnelError {
        let options = &self.client.options;
        let mut delay = options.delay_min;
        loop {
            let url = self.client.url(&goal);
            let reason = match answers.beside(self.client.dialer.dial(&url)).await {
                Ok(stream) => {
                    let mut was_greeted = false;
                    let ended = self.serve(stream, answers, &mut was_greeted).await;
                    if was_greeted {
                        delay = options.delay_min;
                    }
                    match ended {
                        Ended::Closed(message) => return TunnelError::Closed { message },
                        // A service that sends around in a circle is not followed faster than this.
                        Ended::Elsewhere(to) => {
                            goal = to;
                            answers.beside(sleep(some_of(options.delay_min))).await;
                            continue;
                        }
                        Ended::Lost(reason) => reason,
                    }
                }
                // What is wrong elsewhere may be right at home.
                Err(error) if error.is_final() && goal == self.client.home() => {
                    return error.into();
                }
                Err(error) => described(&error),
            };
            // Whoever was sent elsewhere in vain comes back.
            goal = self.client.home();
            let retry_in = some_of(delay);
            (self.tell)(TunnelEvent::Disconnected { reason, retry_in });
            answers.beside(sleep(retry_in)).await;
            delay = (2 * delay).min(options.delay_max);
        }
    }

    async fn serve(
        &self,
        opened: Opened,
        answers: &mut Answers<'a>,
        was_greeted: &mut bool,
    ) -> Ended {
        answers.connection += 1;
        let mut talk = Talk {
            socket: Socket::new(opened, MESSAGE_BYTES_MAX),
            answers,
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
                let goodbye = flush(&mut talk.socket);
                let goodbye = tokio::time::timeout(GOODBYE_TIME_MAX, goodbye);
                let _ = talk.answers.beside(goodbye).await;
                return ended;
            }
        }
    }

    async fn happens(&self, talk: &mut Talk<'_, 'a>) -> Happened {
        let can_read = talk.answers.coming.len() < REQUESTS_MAX && !talk.socket.writer.is_full();
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
            frames = answers.next(), if can_take => Happened::Answered(frames),
            () = sleep_until(timeout) => Happened::Timeout,
        }
    }

    fn handle(&self, talk: &mut Talk<'_, 'a>, happened: Happened) -> Option<Ended> {
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

    fn hear(&self, talk: &mut Talk<'_, 'a>, event: Event) -> Option<Ended> {
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

    fn read(&self, talk: &mut Talk<'_, 'a>, message: &Message) -> Option<Ended> {
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
    fn answer(
        &self,
        mut request: HttpRequest,
    ) -> impl Future<Output = Vec<Bytes>> + Send + use<'a, Handler, Answer, Tell> {
        let body = request.content.take().unwrap_or_default();
        let answer = TunnelRequest::read(&request, body).map(self.handler);
        async move {
            let answer = match answer {
                Some(answer) => answer.await,
                None => TunnelResponse::text(http::StatusCode::BAD_REQUEST, "no HTTP request"),
            };
            answer.frames(&request)
        }
    }
}

impl<'a> Answers<'a> {
    /// Adds one to come, of the connection that stands.
    fn push(&self, answer: impl Future<Output = Vec<Bytes>> + Send + 'a) {
        let connection = self.connection;
        self.coming.push(Box::pin(async move { (connection, answer.await) }));
    }

    /// Waits for the next answer of the connection that stands; for ever when there is none to come. Cancel-safe.
    async fn next(&mut self) -> Vec<Bytes> {
        while let Some((connection, frames)) = self.coming.next().await {
            if connection == self.connection {
                return frames;
            }
        }
        pending().await
    }

    /// Waits for something else while handlers go on, whose answers come too late.
    async fn beside<T>(&mut self, other: impl Future<Output = T>) -> T {
        tokio::select! {
            value = other => value,
            never = async {
                self.finish().await;
                pending().await
            } => never,
        }
    }

    /// Waits until all handlers have ended.
    async fn finish(&mut self) {
        while self.coming.next().await.is_some() {}
    }
}

/// How long handlers may go on when the service will have no tunnel any more.
const HANDLERS_TIME_MAX: Duration = Duration::from_secs(10);

/// How long a goodbye may take to be written.
const GOODBYE_TIME_MAX: Duration = Duration::from_secs(1);

fn violated(talk: &mut Talk<'_, '_>, code: CloseCode, reason: &str) -> Ended {
    let _ = talk.socket.writer.put_close(Some(code));
    Ended::Lost(reason.to_owned())
}

fn send(talk: &mut Talk<'_, '_>, frame: Bytes) -> std::io::Result<()> {
    talk.socket.writer.put_message(&Message::binary(frame))
}

async fn flush(socket: &mut Socket) {
    while socket.writer.is_busy() && socket.writer.write().await.is_ok() {}
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
