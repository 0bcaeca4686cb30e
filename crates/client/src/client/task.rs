//! The task behind a client: the one owner of its session, its socket and its clock.

use std::collections::VecDeque;
use std::future::{Future, pending};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use hookwire_proto::connection::Event;
use hookwire_proto::frame::CloseFrame;
use hookwire_proto::subprotocol::{ClientMessage, StreamUserError};
use tokio::sync::{Notify, mpsc, oneshot, watch};
use url::Url;

use super::dial::{Dialer, Opened, recovery_url};
use super::error::{ClientError, ConnectError};
use super::event::{ClientEvent, Connected, Stopped};
use super::session::{Ask, Effect, Lost, Reply, Session};
use super::socket::{Incoming, Reader, Socket, Writer};
use super::source::UrlSource;
use crate::payload::Payload;

/// Longest message that is taken, in bytes: an upstream's answer of 16 MiB in base64, and what stands around it. A longer one ends the
/// transport.
pub(super) const RECEIVED_BYTES_MAX: usize = 24 << 20;

/// By what a caller gets its answer.
pub(super) type ReplyTo = oneshot::Sender<Result<Reply, ClientError>>;

/// What a handle asks of the task.
#[derive(Debug)]
pub(super) enum Command {
    Ask(Ask, ReplyTo),
    StartStream { start: ClientMessage, limit: Duration, reply_to: ReplyTo },
    SendPiece { stream: String, payload: Payload, limit: Duration, reply_to: ReplyTo },
    EndStream { stream: String, error: Option<StreamUserError>, limit: Duration, reply_to: ReplyTo },
}

/// See the module.
pub(super) struct Task {
    pub(super) session: Session<ReplyTo>,
    pub(super) dialer: Dialer,
    pub(super) source: UrlSource,
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) stop: Arc<Notify>,
    pub(super) events: mpsc::Sender<ClientEvent>,
    pub(super) identity: watch::Sender<Option<Connected>>,
    /// Until it is known whether there is a first connection.
    pub(super) ready: Option<oneshot::Sender<Result<(), Arc<ConnectError>>>>,
}

/// What the task has besides its session.
struct Edge {
    dialing: Option<Dialing>,
    socket: Option<Socket>,
    /// The transport is over but for what is still to be written.
    farewell: Option<Farewell>,
    /// The URL by which the connection was made.
    url: Option<Url>,
    /// Told, and not yet in the application's queue. While there is something nothing is read, so that this stays small.
    untold: VecDeque<ClientEvent>,
}

/// What the service said when it closed, if it did.
struct Farewell(Option<CloseFrame>);

type Dialing = Pin<Box<dyn Future<Output = (Option<Url>, Result<Opened, ConnectError>)> + Send>>;

/// One thing that a task waits for.
enum Happened {
    Stop,
    Command(Command),
    Opened(Option<Url>, Result<Opened, ConnectError>),
    Incoming(Incoming),
    Written(io::Result<()>),
    Told,
    Timeout,
}

impl Task {
    /// Runs until the session is over.
    pub(super) async fn run(mut self) {
        let mut edge = Edge {
            dialing: None,
            socket: None,
            farewell: None,
            url: None,
            untold: VecDeque::new(),
        };
        let mut effects = Vec::new();
        self.session.start(&mut effects);
        loop {
            self.perform(&mut edge, &mut effects);
            if self.session.is_over() {
                break;
            }
            let happened = self.happens(&mut edge).await;
            self.handle(&mut edge, happened, &mut effects);
        }
        // Whoever waits for the end needs not wait for the application to hear of it.
        drop(self.commands);
        drop(edge.socket);
        for event in edge.untold {
            if self.events.send(event).await.is_err() {
                break;
            }
        }
    }

    /// Waits for one thing to happen.
    async fn happens(&mut self, edge: &mut Edge) -> Happened {
        let (reader, writer) =
            edge.socket.as_mut().map(|socket| (&mut socket.reader, &mut socket.writer)).unzip();
        let is_told = edge.untold.is_empty();
        let can_read = is_told && edge.farewell.is_none();
        let can_take =
            self.session.has_room() && !writer.as_ref().is_some_and(|writer| writer.is_full());
        tokio::select! {
            () = self.stop.notified() => Happened::Stop,
            command = self.commands.recv(), if can_take => {
                // Without a command nobody holds the client any more.
                command.map_or(Happened::Stop, Happened::Command)
            }
            (url, opened) = open(edge.dialing.as_mut()) => Happened::Opened(url, opened),
            incoming = read(reader), if can_read => Happened::Incoming(incoming),
            written = write(writer) => Happened::Written(written),
            room = self.events.reserve(), if !is_told => {
                if let (Ok(room), Some(event)) = (room, edge.untold.pop_front()) {
                    room.send(event);
                } else {
                    edge.untold.clear();
                }
                Happened::Told
            }
            () = sleep_until(self.session.poll_timeout()) => Happened::Timeout,
        }
    }

    /// Hands what happened to the session.
    fn handle(&mut self, edge: &mut Edge, happened: Happened, effects: &mut Vec<Effect<ReplyTo>>) {
        match happened {
            Happened::Stop => self.session.stop(now(), effects),
            Happened::Command(command) => self.obey(command, effects),
            Happened::Opened(url, outcome) => {
                edge.dialing = None;
                match outcome {
                    Ok(stream) => {
                        edge.socket = Some(Socket::new(stream, RECEIVED_BYTES_MAX));
                        edge.farewell = None;
                        edge.url = url.or(edge.url.take());
                        self.session.handle_opened(now());
                    }
                    Err(error) => self.session.handle_open_failed(now(), error, effects),
                }
            }
            Happened::Incoming(incoming) => self.handle_incoming(edge, incoming, effects),
            Happened::Written(written) => {
                let is_done = edge.socket.as_ref().is_none_or(|socket| !socket.writer.is_busy());
                if written.is_err() || edge.farewell.is_some() && is_done {
                    let close = edge.farewell.take().and_then(|Farewell(close)| close);
                    edge.socket = None;
                    self.session.handle_closed(now(), close, effects);
                }
            }
            Happened::Told => {}
            Happened::Timeout => {
                if !edge.untold.is_empty() {
                    // Nothing was heard because nothing was read.
                    self.session.hear(now());
                }
                self.session.handle_timeout(now(), effects);
            }
        }
    }

    fn obey(&mut self, command: Command, effects: &mut Vec<Effect<ReplyTo>>) {
        let session = &mut self.session;
        match command {
            Command::Ask(ask, reply_to) => session.request(now(), ask, reply_to, effects),
            Command::StartStream { start, limit, reply_to } => {
                session.start_stream(now(), start, limit, reply_to, effects);
            }
            Command::SendPiece { stream, payload, limit, reply_to } => {
                session.send_piece(now(), &stream, payload, limit, reply_to, effects);
            }
            Command::EndStream { stream, error, limit, reply_to } => {
                session.end_stream(now(), &stream, error, limit, reply_to, effects);
            }
        }
    }

    fn handle_incoming(
        &mut self,
        edge: &mut Edge,
        incoming: Incoming,
        effects: &mut Vec<Effect<ReplyTo>>,
    ) {
        let (events, violation) = match incoming {
            Incoming::End => {
                edge.socket = None;
                self.session.handle_closed(now(), None, effects);
                return;
            }
            Incoming::Events(events) => (events, None),
            Incoming::Violation(events, code) => (events, Some(code)),
        };
        let Some(socket) = &mut edge.socket else { return };
        let writer = &mut socket.writer;
        self.session.hear(now());
        for event in events {
            match event {
                Event::Message(message) => self.session.handle_message(now(), &message, effects),
                // A mask that cannot be made shows at the next thing that is sent.
                Event::Ping(payload) => drop(writer.put_pong(&payload)),
                Event::Pong => {}
                Event::Close(close) => {
                    if !writer.is_closing() {
                        drop(writer.put_close(close.as_ref().map(|close| close.code)));
                    }
                    edge.farewell = Some(Farewell(close));
                }
            }
        }
        if let Some(code) = violation {
            drop(writer.put_close(Some(code)));
            edge.farewell = Some(Farewell(None));
        }
        // With nothing to write the transport is over at once.
        if let Some(Farewell(close)) = edge.farewell.take_if(|_| !writer.is_busy()) {
            edge.socket = None;
            self.session.handle_closed(now(), close, effects);
        }
    }

    /// Does what the session wants, and what comes of it.
    fn perform(&mut self, edge: &mut Edge, effects: &mut Vec<Effect<ReplyTo>>) {
        while !effects.is_empty() {
            let mut is_broken = false;
            for effect in effects.drain(..) {
                let writer = edge.socket.as_mut().map(|socket| &mut socket.writer);
                match effect {
                    Effect::Open(lost) => {
                        edge.dialing = Some(self.dial(edge.url.as_ref(), lost.as_ref()));
                    }
                    Effect::Drop => {
                        (edge.dialing, edge.socket, edge.farewell) = (None, None, None);
                    }
                    Effect::Write(message) => {
                        is_broken |= writer.is_some_and(|to| to.put_message(&message).is_err());
                    }
                    Effect::Ping => is_broken |= writer.is_some_and(|to| to.put_ping().is_err()),
                    Effect::Close(code) => {
                        is_broken |= writer.is_some_and(|to| to.put_close(Some(code)).is_err());
                    }
                    // A caller that waits no longer does not want to know.
                    Effect::Settle(reply_to, outcome) => drop(reply_to.send(outcome)),
                    Effect::Tell(event) => self.tell(edge, event),
                }
            }
            if is_broken {
                edge.socket = None;
                self.session.handle_closed(now(), None, effects);
            }
        }
    }

    fn tell(&mut self, edge: &mut Edge, event: ClientEvent) {
        match &event {
            ClientEvent::Connected(connected) => {
                self.identity.send_replace(Some(connected.clone()));
                if let Some(ready) = self.ready.take() {
                    drop(ready.send(Ok(())));
                }
            }
            ClientEvent::Disconnected { .. } => drop(self.identity.send_replace(None)),
            ClientEvent::Stopped(stopped) => {
                self.identity.send_replace(None);
                if let (Some(ready), Stopped::CannotConnect(error)) = (self.ready.take(), stopped) {
                    drop(ready.send(Err(Arc::clone(error))));
                }
            }
            ClientEvent::Recovered
            | ClientEvent::Group(_)
            | ClientEvent::Server(_)
            | ClientEvent::GroupState { .. }
            | ClientEvent::RejoinFailed { .. }
            | ClientEvent::Unreadable(_) => {}
        }
        if edge.untold.is_empty() {
            match self.events.try_send(event) {
                // Without a listener there is nobody to tell.
                Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
                Err(mpsc::error::TrySendError::Full(event)) => edge.untold.push_back(event),
            }
        } else {
            edge.untold.push_back(event);
        }
    }

    fn dial(&self, url: Option<&Url>, lost: Option<&Lost>) -> Dialing {
        let (dialer, source) = (self.dialer.clone(), self.source.clone());
        let known = lost.zip(url).map(|(lost, url)| recovery_url(url, lost));
        Box::pin(async move {
            if let Some(url) = known {
                return (None, dialer.dial(&url).await);
            }
            match source.url().await {
                Ok(url) => {
                    let opened = dialer.dial(&url).await;
                    (Some(url), opened)
                }
                Err(error) => (None, Err(ConnectError::NoUrl(error))),
            }
        })
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

async fn open(dialing: Option<&mut Dialing>) -> (Option<Url>, Result<Opened, ConnectError>) {
    match dialing {
        Some(dialing) => dialing.await,
        None => pending().await,
    }
}

async fn read(reader: Option<&mut Reader>) -> Incoming {
    match reader {
        Some(reader) => reader.read().await,
        None => pending().await,
    }
}

async fn write(writer: Option<&mut Writer>) -> io::Result<()> {
    match writer {
        Some(writer) if writer.is_busy() => writer.write().await,
        _ => pending().await,
    }
}

async fn sleep_until(timeout: Option<Instant>) {
    match timeout {
        Some(timeout) => tokio::time::sleep_until(timeout.into()).await,
        None => pending().await,
    }
}
