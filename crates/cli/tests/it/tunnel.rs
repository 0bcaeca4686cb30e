//! `hookwire tunnel` between a service in this process and an upstream that the service does not know.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use hookwire_client::{Client, ClientAccess, ClientEvent, ServiceClient};
use hookwire_proto::handler::{
    EventHandler, EventPattern, HandlerAuth, HandlerUrl, HubSettings, HubsSettings, SystemEvents,
};
use hookwire_proto::signature::AccessKey;
use hookwire_proto::template::{TemplateDocument, TemplatesDocument};
use hookwire_server::config::Config;
use hookwire_server::node::Node;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

const KEY: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGH";

/// How long a test waits for what must happen.
const DEADLINE: Duration = Duration::from_secs(30);

/// The command, ended with the test.
struct Tunnel {
    child: Child,
    lines: mpsc::UnboundedReceiver<Value>,
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Tunnel {
    fn start(service: SocketAddr, upstream: SocketAddr, key: &str) -> Self {
        let line = format!("Endpoint=http://127.0.0.1;Port={};AccessKey={key};", service.port());
        let mut child = Command::new(env!("CARGO_BIN_EXE_hookwire"))
            .args(["--json", "tunnel", "--hub", "chat", "--upstream"])
            .arg(format!("http://{upstream}/base"))
            .env("WebPubSubConnectionString", line)
            .env_remove("HOOKWIRE_CA_FILE")
            .stdout(Stdio::piped())
            .spawn()
            .expect("the command can be started");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        let (sender, lines) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let object = serde_json::from_str(&line).expect("each line is JSON");
                if sender.send(object).is_err() {
                    return;
                }
            }
        });
        Self { child, lines }
    }

    async fn line(&mut self) -> Value {
        let line = tokio::time::timeout(DEADLINE, self.lines.recv()).await;
        line.expect("a line comes").expect("the command runs")
    }

    /// Waits for a line of this kind, passing over the others.
    async fn until(&mut self, kind: &str) -> Value {
        loop {
            let mut line = self.line().await;
            if !line[kind].is_null() {
                return line[kind].take();
            }
        }
    }
}

/// Starts a node whose events, of both dialects, go through the tunnel.
async fn start(folder: &Path, listen: SocketAddr) -> Node {
    let key = AccessKey::parse(KEY).expect("it is long enough");
    let mut config = Config::for_one_machine(listen, key, folder);
    config.shards = 1;
    let handler = EventHandler {
        url: HandlerUrl::parse("tunnel:///events?code=x").expect("it is a URL"),
        user_events: EventPattern::any(),
        system_events: SystemEvents { connect: true, connected: false, disconnected: false },
        auth: HandlerAuth::None,
        timeout: None,
    };
    let defaults = HubSettings { handlers: vec![Arc::new(handler)], ..HubSettings::default() };
    config.hubs = HubsSettings { defaults: Arc::new(defaults), ..HubsSettings::default() };
    let url_template = "tunnel:///preview/{event}".to_owned();
    let template = TemplateDocument { url_template, ..TemplateDocument::default() };
    config.templates = TemplatesDocument { templates: vec![template] };
    Node::start(config).await.expect("the node starts")
}

/// Serves an upstream: an answer to a user event is its body, the preview's clients are ann.
async fn serve(listener: TcpListener, heads: mpsc::UnboundedSender<String>) {
    loop {
        let (mut socket, _) = listener.accept().await.expect("it listens");
        let heads = heads.clone();
        tokio::spawn(async move {
            let mut bytes = Vec::new();
            loop {
                let head = loop {
                    if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                        break at + 4;
                    }
                    if socket.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                        return;
                    }
                };
                let text = String::from_utf8_lossy(&bytes[..head]).to_ascii_lowercase();
                let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
                let end = head + length.and_then(|length| length.parse().ok()).unwrap_or(0);
                while bytes.len() < end {
                    if socket.read_buf(&mut bytes).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let body = bytes[head..end].to_vec();
                bytes.drain(..end);
                let is_user = text.contains("azure.webpubsub.user.");
                let body = if is_user {
                    String::from_utf8_lossy(&body).into_owned()
                } else {
                    String::new()
                };
                let answer = format!(
                    "HTTP/1.1 200 OK\r\nX-ASRS-User-Id: ann\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\r\n{body}",
                    body.len()
                );
                // The test may have heard enough.
                let _ = heads.send(text);
                if socket.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// Connects a client, lets it ask and returns the answer.
async fn ask(service: SocketAddr, text: &str) -> String {
    let line = format!("Endpoint=http://127.0.0.1;Port={};AccessKey={KEY};", service.port());
    let access = ServiceClient::new(&line, "chat").expect("it is a service");
    let access = access.client_access(&ClientAccess::new().user("ann")).expect("it is a user");
    let (client, mut events) = Client::connect(access.url).await.expect("it is let in");
    client.send_event("ask", text).await.expect("it is answered");
    loop {
        match tokio::time::timeout(DEADLINE, events.next()).await.expect("something comes") {
            Some(ClientEvent::Server(message)) => {
                return message.payload.as_text().unwrap_or_default().to_owned();
            }
            Some(_) => {}
            None => panic!("the client has ended"),
        }
    }
}

#[tokio::test]
async fn both_dialects_go_through_the_tunnel_which_comes_back_when_it_was_lost() {
    let folder = tempfile::tempdir().expect("there is room");
    let node = start(folder.path(), "127.0.0.1:0".parse().expect("it is an address")).await;
    let service = node.addresses()[0];
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a port");
    let upstream = listener.local_addr().expect("it listens");
    let (heads, mut told) = mpsc::unbounded_channel();
    tokio::spawn(serve(listener, heads));
    let mut tunnel = Tunnel::start(service, upstream, KEY);
    assert!(tunnel.until("connected").await["connection_id"].is_string());

    assert_eq!(ask(service, "one").await, "one");
    for _ in 0..2 {
        let request = tunnel.until("request").await;
        assert_eq!((&request["method"], &request["path"]), (&"POST".into(), &"/events".into()));
        assert_eq!(request["status"], 200);
        assert!(request["milliseconds"].is_u64());
        let head = told.recv().await.expect("the upstream serves");
        assert!(head.starts_with("post /base/events?code=x http/1.1\r\n"), "{head}");
    }

    let mut socket = TcpStream::connect(service).await.expect("it listens");
    let handshake = "GET /ws/client/hubs/chat HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    socket.write_all(handshake.as_bytes()).await.expect("it reads");
    let mut answer = [0; 12];
    socket.read_exact(&mut answer).await.expect("it answers");
    assert_eq!(&answer, b"HTTP/1.1 101");
    assert_eq!(tunnel.until("request").await["path"], "/preview/connect");

    // The service is replaced by another one at the same place.
    drop(socket);
    assert!(node.shutdown().await);
    let node = start(folder.path(), service).await;
    tunnel.until("connected").await;
    assert_eq!(ask(service, "two").await, "two");
    assert!(node.shutdown().await);
}

#[tokio::test]
async fn a_wrong_key_ends_the_command() {
    let folder = tempfile::tempdir().expect("there is room");
    let node = start(folder.path(), "127.0.0.1:0".parse().expect("it is an address")).await;
    let service = node.addresses()[0];
    let mut tunnel = Tunnel::start(service, service, "another-key-another-key-another-key-another");
    let error = tunnel.until("error").await;
    assert!(error.as_str().is_some_and(|error| error.contains("401")), "{error}");
    assert!(tunnel.lines.recv().await.is_none());
    let status = tunnel.child.wait().expect("it ends");
    assert_eq!(status.code(), Some(3));
}
