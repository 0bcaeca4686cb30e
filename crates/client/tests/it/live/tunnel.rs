//! A tunnel from a node to an application that it cannot reach, and tunnels to a service that does as it is told.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hookwire_client::webhook::{Answer, CloudEvent, Event, EventAnswer};
use hookwire_client::{
    AccessKey, Client, ClientAccess, ConnectError, ConnectionString, HubName, LocalUpstream,
    ServiceClient, Trust, TunnelClient, TunnelError, TunnelEvent, TunnelOptions, TunnelRequest,
    TunnelResponse,
};
use hookwire_proto::connection::{Connection, Event as SocketEvent};
use hookwire_proto::frame::{self, Opcode, Role};
use hookwire_proto::handler::{EventHandler, HandlerUrl, HubSettings, HubsSettings};
use hookwire_proto::template::{TemplateDocument, TemplatesDocument};
use hookwire_proto::tunnel::{
    Connected, Frame, HttpRequest, HttpResponse, MESSAGE_BYTES_MAX, Redirection, Status,
};
use hookwire_server::config::Config;
use hookwire_server::node::Node;
use http::{HeaderMap, StatusCode};
use sha1::{Digest, Sha1};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use url::Url;

use super::{Wire, application, handled_by, soon, text};
use crate::server::KEY;

/// Returns how a tunnel is that comes back at once.
fn quick() -> TunnelOptions {
    let (delay_min, delay_max) = (Duration::from_millis(20), Duration::from_millis(100));
    TunnelOptions { delay_min, delay_max, ..TunnelOptions::default() }
}

/// Opens a tunnel that answers by `handler`; returns what is told of it. It ends with the tasks.
fn open<Handler, Answered>(
    port: u16,
    handler: Handler,
    tasks: &mut JoinSet<()>,
) -> mpsc::UnboundedReceiver<Told>
where
    Handler: Fn(TunnelRequest) -> Answered + Send + Sync + 'static,
    Answered: Future<Output = TunnelResponse> + Send + 'static,
{
    let (teller, told) = mpsc::unbounded_channel();
    let client = client(port, KEY);
    tasks.spawn(async move {
        let tell = |event| drop(teller.send(Told::Event(event)));
        let ended = client.run(handler, tell, std::future::pending()).await;
        drop(teller.send(Told::Ended(ended.unwrap_err())));
    });
    told
}

#[derive(Debug)]
enum Told {
    Event(TunnelEvent),
    Ended(TunnelError),
}

fn client(port: u16, key: &str) -> TunnelClient {
    let line = format!("Endpoint=http://127.0.0.1;Port={port};AccessKey={key};");
    let connection = ConnectionString::parse(&line).unwrap();
    TunnelClient::new(connection, HubName::parse("chat").unwrap(), quick()).unwrap()
}

async fn connected(told: &mut mpsc::UnboundedReceiver<Told>) {
    match soon(told.recv()).await {
        Some(Told::Event(TunnelEvent::Connected { .. })) => {}
        other => panic!("{other:?} is no connection"),
    }
}

async fn disconnected(told: &mut mpsc::UnboundedReceiver<Told>) {
    match soon(told.recv()).await {
        Some(Told::Event(TunnelEvent::Disconnected { .. })) => {}
        other => panic!("{other:?} is no loss"),
    }
}

/// Starts a node whose events, of both dialects, go through the tunnel.
async fn node() -> (Node, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let key = AccessKey::parse(KEY).unwrap();
    let mut config = Config::for_one_machine("127.0.0.1:0".parse().unwrap(), key, folder.path());
    config.shards = 2;
    let direct = handled_by("127.0.0.1:1".parse().unwrap());
    let url = HandlerUrl::parse("tunnel:///{event}?code=x").unwrap();
    let handler = EventHandler { url, ..EventHandler::clone(&direct.defaults.handlers[0]) };
    let defaults = HubSettings { handlers: vec![Arc::new(handler)], ..HubSettings::default() };
    config.hubs = HubsSettings { defaults: Arc::new(defaults), ..direct };
    let url_template = "tunnel:///preview/{event}?c={category}".to_owned();
    let template = TemplateDocument { url_template, ..TemplateDocument::default() };
    config.templates = TemplatesDocument { templates: vec![template] };
    (Node::start(config).await.unwrap(), folder)
}

#[tokio::test]
async fn an_application_that_cannot_be_reached_answers_through_the_tunnel() {
    let (node, _folder) = node().await;
    let mut tasks = JoinSet::new();
    let (tell, mut heard) = mpsc::unbounded_channel();
    let answer = |event: &CloudEvent| {
        let Event::User { payload, .. } = &event.event else { return Answer::nothing() };
        Answer::from(EventAnswer::new(payload.as_text().unwrap_or_default()))
    };
    let key = AccessKey::parse(KEY).unwrap();
    let application = application(key, tell, answer, &mut tasks).await;
    let wire = Wire::to(node.addresses()[0], &mut tasks).await;
    let upstream =
        LocalUpstream::new(format!("http://{application}").parse().unwrap(), &Trust::default());
    let upstream = Arc::new(upstream.unwrap());
    let forward = move |request: TunnelRequest| {
        assert!(request.path_and_query.ends_with("?code=x"), "{request:?}");
        let upstream = Arc::clone(&upstream);
        async move { upstream.forward(request).await }
    };
    let mut told = open(wire.port, forward, &mut tasks);
    connected(&mut told).await;

    let port = node.addresses()[0].port();
    let line = format!("Endpoint=http://127.0.0.1;Port={port};AccessKey={KEY};");
    let service = ServiceClient::new(&line, "chat").unwrap();
    let url = service.client_access(&ClientAccess::new().user("ann")).unwrap().url;
    let (client, mut events) = Client::connect(url).await.unwrap();
    soon(events.next()).await.unwrap();
    client.send_event("ask", "one").await.unwrap();
    assert_eq!(text(&mut events).await, "one");

    // What is sent while the wire is cut waits for the tunnel, which comes back by itself.
    wire.cut_for_long();
    disconnected(&mut told).await;
    let asking = async { client.send_event("ask", "two").await };
    let mending = async {
        disconnected(&mut told).await;
        wire.mend();
        while !matches!(told.recv().await, Some(Told::Event(TunnelEvent::Connected { .. }))) {}
    };
    let (asked, ()) = soon(async { tokio::join!(asking, mending) }).await;
    asked.unwrap();
    assert_eq!(text(&mut events).await, "two");

    client.stop().await;
    drop(events);
    let mut is_gone = false;
    while !is_gone {
        let event = soon(heard.recv()).await.unwrap().event;
        is_gone = matches!(event, Event::Disconnected { .. });
    }
    assert!(node.shutdown().await);
}

#[tokio::test]
async fn the_preview_goes_through_the_tunnel_too() {
    let (node, _folder) = node().await;
    let mut tasks = JoinSet::new();
    let (asked, mut requests) = mpsc::unbounded_channel();
    let handler = move |request: TunnelRequest| {
        let mut answer = TunnelResponse::text(StatusCode::OK, "");
        if request.path() == "/preview/connect" {
            answer.headers.insert("x-asrs-user-id", "ann".parse().unwrap());
        }
        asked.send(request).unwrap();
        async move { answer }
    };
    let mut told = open(node.addresses()[0].port(), handler, &mut tasks);
    connected(&mut told).await;
    let mut socket = TcpStream::connect(node.addresses()[0]).await.unwrap();
    let request = "GET /ws/client/hubs/chat?name=ann HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    socket.write_all(request.as_bytes()).await.unwrap();
    let connect = soon(requests.recv()).await.unwrap();
    assert_eq!(connect.path_and_query, "/preview/connect?c=connections");
    assert_eq!(connect.headers["x-asrs-client-query"], "name=ann");
    let mut answer = [0; 12];
    soon(socket.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 101");
    socket.write_all(&frame::encode(Opcode::Text, b"hello", Some([1, 2, 3, 4]))).await.unwrap();
    let message = soon(requests.recv()).await.unwrap();
    assert_eq!((message.path(), &*message.body), ("/preview/message", &b"hello"[..]));
    assert_eq!(message.headers["x-asrs-user-id"], "ann");
    drop(socket);
    assert_eq!(soon(requests.recv()).await.unwrap().path(), "/preview/disconnect");
}

#[tokio::test]
async fn a_service_that_knows_another_key_is_not_asked_again() {
    let (node, _folder) = node().await;
    let client = client(node.addresses()[0].port(), "another-key-another-key-another-key-another");
    let handler = |_| async { TunnelResponse::text(StatusCode::OK, "") };
    let tell = |event| panic!("{event:?}");
    let ended = soon(client.run(handler, tell, std::future::pending())).await;
    let Err(TunnelError::Connect(ConnectError::Refused { status, .. })) = ended else {
        panic!("{ended:?}")
    };
    assert_eq!(status, StatusCode::UNAUTHORIZED);
    let stop = async {};
    client.run(handler, |_| {}, stop).await.unwrap();
}

#[tokio::test]
async fn an_upstream_that_does_not_answer_is_a_502() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}/base/?x", listener.local_addr().unwrap())).unwrap();
    let upstream = LocalUpstream::new(url, &Trust::default()).unwrap();
    let request = || TunnelRequest {
        method: http::Method::POST,
        path_and_query: "/a%20b?c=d".to_owned(),
        headers: HeaderMap::from_iter([(http::header::HOST, "other".parse().unwrap())]),
        body: Bytes::from_static(b"x"),
    };
    let serving = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\nx") {
            socket.read_buf(&mut head).await.unwrap();
        }
        let head = String::from_utf8(head).unwrap();
        assert!(head.starts_with("POST /base/a%20b?c=d HTTP/1.1\r\n"), "{head}");
        assert!(!head.contains("other"), "{head}");
    };
    let (broken, ()) = tokio::join!(upstream.forward(request()), serving);
    assert_eq!(broken.status, StatusCode::BAD_GATEWAY);
    drop(listener);
    assert_eq!(upstream.forward(request()).await.status, StatusCode::BAD_GATEWAY);
    assert!(matches!(
        LocalUpstream::new(Url::parse("ftp://h/").unwrap(), &Trust::default()),
        Err(ConnectError::Url)
    ));
}

/// The service's end of one connection.
struct Far {
    socket: TcpStream,
    frames: Connection,
    /// The request by which it was opened.
    head: String,
}

impl Far {
    async fn accept(listener: &TcpListener) -> Self {
        let (mut socket, _) = soon(listener.accept()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            socket.read_buf(&mut head).await.unwrap();
        }
        let head = String::from_utf8(head).unwrap();
        let name = "sec-websocket-key: ";
        let key = head.lines().find_map(|line| {
            line.get(..name.len()).filter(|start| start.eq_ignore_ascii_case(name))?;
            Some(line[name.len()..].to_owned())
        });
        let hash = Sha1::new()
            .chain_update(key.unwrap())
            .chain_update("258EAFA5-E914-47DA-95CA-C5AB0DC85B11")
            .finalize();
        let answer = format!(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
            STANDARD.encode(hash)
        );
        socket.write_all(answer.as_bytes()).await.unwrap();
        let mut far = Self { socket, frames: Connection::new(Role::Server), head };
        far.send(&Frame::Connected(Connected::default())).await;
        far
    }

    async fn send(&mut self, frame: &Frame) {
        self.send_at_once(&[frame]).await;
    }

    async fn send_at_once(&mut self, frames: &[&Frame]) {
        let messages = frames.iter().map(|frame| frame.encode().unwrap());
        let bytes: Vec<_> =
            messages.map(|message| frame::encode(Opcode::Binary, &message, None)).collect();
        self.socket.write_all(&bytes.concat()).await.unwrap();
    }

    /// Returns the next thing that comes; `None` at the end.
    async fn next(&mut self) -> Option<SocketEvent> {
        let (mut buffer, mut events) = ([0; 4_096], Vec::new());
        while events.is_empty() {
            let read = soon(self.socket.read(&mut buffer)).await.unwrap_or(0);
            if read == 0 {
                return None;
            }
            self.frames.handle_input(&mut buffer[..read], MESSAGE_BYTES_MAX, &mut events).unwrap();
        }
        assert_eq!(events.len(), 1, "one thing at a time is asked for");
        events.pop()
    }

    /// Asks and returns the answer.
    async fn ask(&mut self) -> HttpResponse {
        self.send(&request(9)).await;
        let Some(SocketEvent::Message(message)) = self.next().await else { panic!("no answer") };
        let Ok(Frame::Response(response)) = Frame::decode(&message.data) else { panic!() };
        response
    }

    async fn is_closed(&mut self) {
        assert!(matches!(self.next().await, Some(SocketEvent::Close(_))));
        assert_eq!(self.next().await, None);
    }
}

fn request(ack_id: i64) -> Frame {
    Frame::Request(HttpRequest {
        ack_id,
        channel_name: Some("c".to_owned()),
        http_method: "POST".to_owned(),
        url: "http://h/p?q".to_owned(),
        ..HttpRequest::default()
    })
}

#[tokio::test]
async fn who_is_refused_where_it_was_sent_comes_home() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Some(format!("http://{}", elsewhere.local_addr().unwrap()));
    let mut tasks = JoinSet::new();
    let handler = |_| async { TunnelResponse::text(StatusCode::OK, "") };
    let mut told = open(listener.local_addr().unwrap().port(), handler, &mut tasks);
    let mut first = Far::accept(&listener).await;
    connected(&mut told).await;
    first.send(&Frame::Rebalance(Redirection { endpoint, ..Redirection::default() })).await;
    let (mut socket, _) = soon(elsewhere.accept()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        soon(socket.read_buf(&mut head)).await.unwrap();
    }
    socket.write_all(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n").await.unwrap();
    disconnected(&mut told).await;
    let mut second = Far::accept(&listener).await;
    connected(&mut told).await;
    assert_eq!(first.ask().await.status_code, 200);
    assert_eq!(second.ask().await.status_code, 200);
}

#[tokio::test]
async fn a_handler_ends_what_it_has_begun_although_its_connection_ends() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut tasks = JoinSet::new();
    let (begin, mut handlers) = mpsc::unbounded_channel();
    let handler = move |_| {
        let (go_on, gate) = oneshot::channel::<oneshot::Sender<()>>();
        let begin = begin.clone();
        async move {
            begin.send(go_on).unwrap();
            let ended = gate.await.unwrap();
            ended.send(()).unwrap();
            TunnelResponse::text(StatusCode::OK, "")
        }
    };
    let mut told = open(listener.local_addr().unwrap().port(), handler, &mut tasks);
    let mut first = Far::accept(&listener).await;
    connected(&mut told).await;
    first.send_at_once(&[&request(8), &Frame::Reconnect(Redirection::default())]).await;
    first.is_closed().await;
    let go_on = |go_on: oneshot::Sender<_>| {
        let (end, ended) = oneshot::channel();
        go_on.send(end).unwrap();
        soon(ended)
    };
    let handler = soon(handlers.recv()).await.unwrap();
    let mut second = Far::accept(&listener).await;
    connected(&mut told).await;
    go_on(handler).await.unwrap();
    // Its answer comes too late: that of the next request is the first.
    let answering = async { go_on(soon(handlers.recv()).await.unwrap()).await.unwrap() };
    let (answer, ()) = tokio::join!(second.ask(), answering);
    assert_eq!(answer.ack_id, 9);

    second.send_at_once(&[&request(10), &Frame::Close(Status::default())]).await;
    second.is_closed().await;
    go_on(soon(handlers.recv()).await.unwrap()).await.unwrap();
    assert!(matches!(soon(told.recv()).await, Some(Told::Ended(TunnelError::Closed { .. }))));
}

#[tokio::test]
async fn a_tunnel_goes_where_the_service_sends_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let elsewhere = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = Some(format!("http://{}/a/", elsewhere.local_addr().unwrap()));
    let mut tasks = JoinSet::new();
    let echo = |request: TunnelRequest| async move {
        TunnelResponse::text(StatusCode::ACCEPTED, request.path_and_query)
    };
    let mut told = open(listener.local_addr().unwrap().port(), echo, &mut tasks);
    let mut first = Far::accept(&listener).await;
    connected(&mut told).await;
    assert!(first.head.starts_with("GET /server/tunnel?hub=chat&access_token="), "{}", first.head);
    assert!(!first.head.to_ascii_lowercase().contains("sec-websocket-protocol"));
    let answer = first.ask().await;
    assert_eq!((answer.ack_id, answer.status_code), (9, 202));
    assert_eq!(
        (answer.channel_name.as_deref(), answer.content.as_deref()),
        (Some("c"), Some(&b"/p?q"[..]))
    );

    let message = Some("busy\nhere".to_owned());
    first.send(&Frame::Status(Status { message })).await;
    let said = soon(told.recv()).await;
    assert!(
        matches!(said, Some(Told::Event(TunnelEvent::Status { message })) if message == "busy here")
    );
    // One more: both serve.
    let target_id = Some("t".to_owned());
    first
        .send(&Frame::Rebalance(Redirection {
            target_id,
            endpoint: endpoint.clone(),
            message: None,
        }))
        .await;
    let mut second = Far::accept(&elsewhere).await;
    connected(&mut told).await;
    let expected = "GET /a/server/tunnel?hub=chat&target=t&access_token=";
    assert!(second.head.starts_with(expected), "{}", second.head);
    assert_eq!(first.ask().await.status_code, 202);
    assert_eq!(second.ask().await.status_code, 202);

    // Another instead: the first ends, a third begins.
    first.send(&Frame::Reconnect(Redirection { endpoint, ..Redirection::default() })).await;
    first.is_closed().await;
    let mut third = Far::accept(&elsewhere).await;
    connected(&mut told).await;

    // Lost where it was sent, it comes home.
    drop(second);
    disconnected(&mut told).await;
    let mut fourth = Far::accept(&listener).await;
    connected(&mut told).await;

    // The last one that is closed for good is the end.
    let message = Some("enough".to_owned());
    for far in [&mut third, &mut fourth] {
        far.send(&Frame::Close(Status { message: message.clone() })).await;
        far.is_closed().await;
    }
    let ended = soon(told.recv()).await;
    assert!(
        matches!(ended, Some(Told::Ended(TunnelError::Closed { message })) if message == "enough")
    );
}
