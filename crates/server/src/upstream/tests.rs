//! Calls over real sockets: what stands on the wire, and what comes of it.

mod answers;
mod cloud_events;
mod crowds;
mod http2;
mod listeners;
mod notices;
mod preview;
mod times;
mod tokens;
mod validations;

use std::pin::pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::poll;
use hookwire_hub::{CallId, ClientContext, Event, EventFacts, UserEvent};
use hookwire_proto::data::{Data, Metadata};
use hookwire_proto::handler::{EventHandler, EventPattern, SystemEvents};
use hookwire_proto::message::Message;
use hookwire_proto::name::{ConnectionId, UserId};
use hookwire_proto::signature;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::*;

const KEYS: [&str; 2] =
    ["primary-key-primary-key-primary-key-00", "secondary-key-secondary-key-secondary-00"];

/// The host by which upstreams know the service.
const ORIGIN: &str = "hooks.example";

/// A client of upstreams, and what it reported.
struct Caller {
    upstream: Upstream,
    inputs: mpsc::UnboundedReceiver<Input>,
    report: mpsc::UnboundedSender<Input>,
    last: u64,
}

/// The end of a connection that an upstream holds.
struct Peer<Socket = TcpStream> {
    socket: Socket,
    buffer: Vec<u8>,
}

impl Caller {
    async fn new(limits: UpstreamLimits) -> Self {
        Self::refusing(limits, Vec::new()).await
    }

    async fn refusing(limits: UpstreamLimits, refused: Vec<AddressRange>) -> Self {
        Self::with(limits, refused, RootCertStore::empty()).await
    }

    async fn with(
        limits: UpstreamLimits,
        refused: Vec<AddressRange>,
        roots: RootCertStore,
    ) -> Self {
        let keys = KEYS.map(|key| AccessKey::parse(key).unwrap()).to_vec();
        let (log, tunnels) = (EventLog::new(1_000), Tunnels::default());
        let origin = ORIGIN.to_owned();
        let upstream = Upstream::new(limits, refused, roots, keys, origin, log, tunnels);
        let upstream = upstream.await.unwrap();
        let (report, inputs) = mpsc::unbounded_channel();
        Self { upstream, inputs, report, last: 0 }
    }

    /// Begins a call of the preview and returns its number.
    fn begin(&mut self, url: &str, event: Event) -> u64 {
        self.begin_call(preview_call(url, event))
    }

    /// Begins a call of Web PubSub and returns its number.
    fn begin_event(&mut self, url: &str, event: Event) -> u64 {
        self.begin_call(event_call(handler(url), event))
    }

    fn begin_call(&mut self, mut call: Call) -> u64 {
        self.last += 1;
        call.id = CallId(self.last);
        let (upstream, report) = (self.upstream.clone(), self.report.clone());
        tokio::spawn(async move {
            upstream.call(call, |input| report.send(input).unwrap_or_default()).await;
        });
        self.last
    }

    async fn next(&mut self) -> Input {
        self.inputs.recv().await.unwrap()
    }

    /// Waits for the end of a call.
    async fn end(&mut self) -> (u64, Reply) {
        let input = self.next().await;
        let Input::UpstreamReplied { call, reply } = input else { panic!("{input:?}") };
        (call.0, reply)
    }

    /// Waits until a call passes.
    async fn passed(&mut self) -> u64 {
        let input = self.next().await;
        let Input::UpstreamPassed { call } = input else { panic!("{input:?}") };
        call.0
    }

    /// Makes a call of the preview whose upstream does as it is told meanwhile.
    async fn while_upstream<T>(
        &mut self,
        url: &str,
        event: Event,
        upstream: impl Future<Output = T>,
    ) -> (Reply, T) {
        let begun = self.begin(url, event);
        let ((ended, reply), told) = tokio::join!(self.end(), upstream);
        assert_eq!(begun, ended);
        (reply, told)
    }

    /// Makes a call of Web PubSub whose upstream does as it is told meanwhile.
    async fn event_while<T>(
        &mut self,
        url: &str,
        event: Event,
        upstream: impl Future<Output = T>,
    ) -> (Reply, T) {
        let begun = self.begin_event(url, event);
        let ((ended, reply), told) = tokio::join!(self.end(), upstream);
        assert_eq!(begun, ended);
        (reply, told)
    }
}

impl Peer {
    async fn accept(listener: &TcpListener) -> Self {
        Self::new(listener.accept().await.unwrap().0)
    }

    /// Accepts a connection and says on it that events are wanted.
    async fn welcome(listener: &TcpListener) -> Self {
        let mut peer = Self::accept(listener).await;
        let (head, _) = peer.request().await;
        assert!(head.starts_with("OPTIONS "), "{head}");
        peer.write(WELCOME).await;
        peer
    }
}

impl<Socket: AsyncRead + AsyncWrite + Unpin> Peer<Socket> {
    fn new(socket: Socket) -> Self {
        Self { socket, buffer: Vec::new() }
    }

    /// Reads one request: its head as it came, and its body.
    async fn request(&mut self) -> (String, Vec<u8>) {
        let head_end = loop {
            if let Some(at) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            assert_ne!(self.socket.read_buf(&mut self.buffer).await.unwrap(), 0, "no request");
        };
        let head = String::from_utf8(self.buffer[..head_end].to_vec()).unwrap();
        let length = head.lines().find_map(|line| {
            let (name, value) = line.split_once(": ")?;
            name.eq_ignore_ascii_case("content-length").then_some(value)
        });
        assert!(length.is_some() || !head.starts_with("POST"), "a POST has a length: {head}");
        let end = head_end + length.map_or(0, |length| length.parse::<usize>().unwrap());
        while self.buffer.len() < end {
            assert_ne!(self.socket.read_buf(&mut self.buffer).await.unwrap(), 0, "half a request");
        }
        let body = self.buffer[head_end..end].to_vec();
        self.buffer.drain(..end);
        (head, body)
    }

    /// Reads a request that comes when some time has gone by, which goes by faster meanwhile.
    async fn later_request(&mut self) -> (String, Vec<u8>) {
        let mut request = pin!(self.request());
        loop {
            tokio::select! {
                biased;
                request = &mut request => return request,
                () = elapse(Duration::from_millis(100)) => tokio::task::yield_now().await,
            }
        }
    }

    async fn write(&mut self, answer: impl AsRef<[u8]>) {
        self.socket.write_all(answer.as_ref()).await.unwrap();
    }

    /// Waits until the other side has closed the connection.
    async fn closed(mut self) {
        // It may be reset, since it was sent what it did not want.
        while self.socket.read_buf(&mut self.buffer).await.unwrap_or(0) != 0 {}
    }
}

async fn listen() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/chat/api/event?code=s3cret", listener.local_addr().unwrap());
    (listener, url)
}

/// Lets time go by at once. To be called when nothing but time is waited for: the clock jumps over what else takes time.
async fn elapse(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

fn hub() -> HubName {
    HubName::parse("chat").unwrap()
}

fn connection() -> ConnectionId {
    ConnectionId::new(1, 2, [3; 16])
}

fn user() -> UserId {
    UserId::parse("Jürgen").unwrap()
}

/// Returns a call of the preview; its number is set when it begins.
fn preview_call(url: &str, event: Event) -> Call {
    Call {
        id: CallId(0),
        url: url.to_owned(),
        hub: hub(),
        connection: connection(),
        user: Some(user()),
        dialect: Dialect::Preview(ClientContext::new(
            "a=1&b=%20",
            "sub: Jürgen, role: x",
            "192.0.2.1, 192.0.2.2",
        )),
        event,
    }
}

fn handler(url: &str) -> EventHandler {
    EventHandler {
        url: HandlerUrl::parse(url).unwrap(),
        user_events: EventPattern::any(),
        system_events: SystemEvents { connect: true, connected: true, disconnected: true },
        auth: HandlerAuth::None,
        timeout: None,
    }
}

/// Returns facts that leave out all that may be left out.
const fn bare_facts(sequence: u64) -> EventFacts {
    EventFacts { sequence, subprotocol: None, state: None, cookies: None }
}

/// Returns a call of Web PubSub with no more headers than it needs; its number is set when it begins.
fn event_call(handler: EventHandler, event: Event) -> Call {
    Call {
        id: CallId(0),
        url: handler.url.url(&hub(), event.name()),
        hub: hub(),
        connection: connection(),
        user: None,
        dialect: Dialect::WebPubSub { handler: Arc::new(handler), facts: Box::new(bare_facts(7)) },
        event,
    }
}

fn connect() -> Event {
    Event::Connect { subprotocols: vec!["chat.v2".to_owned(), "chat.v1".to_owned()] }
}

fn message(text: &str) -> Event {
    Event::Message(Message::text(text))
}

fn connecting() -> Event {
    Event::Connecting(Arc::default())
}

fn user_event(text: &str) -> Event {
    Event::User(UserEvent {
        name: "order.paid".into(),
        data: Data::text(text),
        metadata: Metadata::default(),
        is_invocation: false,
    })
}

fn invocation(text: &str) -> Event {
    let Event::User(user) = user_event(text) else { unreachable!("it is one") };
    Event::User(UserEvent { is_invocation: true, ..user })
}

fn disconnected() -> Event {
    Event::Disconnected { reason: "bye".to_owned() }
}

fn status(reply: &Reply) -> Option<u16> {
    match reply {
        Reply::Answered(answer) => Some(answer.status),
        Reply::Failed { .. } => None,
    }
}

fn reason(reply: Reply) -> String {
    match reply {
        Reply::Failed { reason } => reason,
        Reply::Answered(answer) => panic!("answered {}", answer.status),
    }
}

/// Returns the signature of the connection.
fn signature() -> String {
    let keys = KEYS.map(|key| AccessKey::parse(key).unwrap());
    let signature = signature::sign(&keys, &connection().to_string());
    assert_eq!(signature.matches("sha256=").count(), 2);
    signature
}

const NO_CONTENT: &str = "HTTP/1.1 204 No Content\r\n\r\n";

const WELCOME: &str = "HTTP/1.1 200 OK\r\nWebHook-Allowed-Origin: *\r\nContent-Length: 0\r\n\r\n";

#[test]
fn origins_and_shown_urls_hold_no_secret() {
    let target = Target::parse("HTTP://Example.COM:80/api/../x y?code=s3cret#part").unwrap();
    assert_eq!(target.origin(), "http://example.com");
    assert_eq!(target.shown(), "http://example.com/x%20y");
    assert!(Target::parse("https://[::1]:8443/").is_some());
}
