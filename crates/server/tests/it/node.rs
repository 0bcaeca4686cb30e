//! A node for tests, and the two ways to talk to it.

use std::net::SocketAddr;
use std::time::Duration;

use hookwire_proto::signature::AccessKey;
use hookwire_proto::template::{TemplateDocument, TemplatesDocument};
use hookwire_proto::token::NewToken;
use hookwire_server::config::Config;
use hookwire_server::node::Node;
use serde_json::{Map, Value};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

pub(crate) const KEYS: [&str; 2] =
    ["primary-key-primary-key-primary-key-00", "secondary-key-secondary-key-secondary-00"];

pub(crate) type Client = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// A node and its folder.
pub(crate) struct TestNode {
    pub(crate) node: Node,
    pub(crate) address: SocketAddr,
    _folder: TempDir,
}

/// Starts a node on a free port whose events go to `upstream`.
pub(crate) async fn start(
    upstream: Option<SocketAddr>,
    change: impl FnOnce(&mut Config),
) -> TestNode {
    let folder = tempfile::tempdir().unwrap();
    let key = AccessKey::parse(KEYS[0]).unwrap();
    let mut config = Config::for_one_machine("127.0.0.1:0".parse().unwrap(), key, folder.path());
    config.access_keys.push(AccessKey::parse(KEYS[1]).unwrap());
    config.shards = 2;
    if let Some(address) = upstream {
        config.templates = TemplatesDocument {
            templates: vec![TemplateDocument {
                url_template: format!("http://{address}/{{hub}}/api/{{event}}?c={{category}}"),
                ..TemplateDocument::default()
            }],
        };
    }
    change(&mut config);
    start_from(config, folder).await
}

/// Starts a node from a whole configuration.
pub(crate) async fn start_from(config: Config, folder: TempDir) -> TestNode {
    let node = Node::start(config).await.unwrap();
    let address = node.addresses()[0];
    TestNode { node, address, _folder: folder }
}

/// Returns a token for a path, signed as the old library does: without the port.
pub(crate) fn token(path: &str, user: Option<&str>) -> String {
    signed(path, user, KEYS[1])
}

/// The same, signed with another key.
pub(crate) fn signed(path: &str, user: Option<&str>, key: &str) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let token = NewToken {
        audience: &format!("http://localhost{path}"),
        issued_at: now,
        lifetime: Duration::from_hours(1),
        user,
        claims: Map::<String, Value>::new(),
    };
    token.sign(&AccessKey::parse(key).unwrap())
}

impl TestNode {
    /// Connects a client; `query` starts with `?` or is empty.
    pub(crate) async fn connect(&self, hub: &str, query: &str) -> Result<Client, Error> {
        self.connect_offering(hub, query, "").await.map(|(client, _)| client)
    }

    /// Connects a client that offers subprotocols; returns the one that was chosen too.
    pub(crate) async fn connect_offering(
        &self,
        hub: &str,
        query: &str,
        offered: &str,
    ) -> Result<(Client, Option<String>), Error> {
        let url = format!("ws://{}/ws/client/hubs/{hub}{query}", self.address);
        let mut request = url.into_client_request()?;
        if !offered.is_empty() {
            request.headers_mut().insert("sec-websocket-protocol", offered.parse().unwrap());
        }
        let (client, answer) = connect_async(request).await?;
        let chosen = answer.headers().get("sec-websocket-protocol");
        Ok((client, chosen.map(|value| value.to_str().unwrap().to_owned())))
    }

    /// Connects a client of `user` by a token.
    pub(crate) async fn connect_as(&self, hub: &str, user: &str) -> Client {
        let token = token(&format!("/ws/client/hubs/{hub}"), Some(user));
        self.connect(hub, &format!("?access_token={token}")).await.unwrap()
    }

    /// Makes an authorized REST call below the hub's path; returns the status.
    pub(crate) async fn rest(&self, method: &str, path: &str, body: &[u8]) -> u16 {
        self.rest_as(method, path, "text/plain", body).await
    }

    /// The same with another type of body.
    pub(crate) async fn rest_as(
        &self,
        method: &str,
        path: &str,
        content_type: &str,
        body: &[u8],
    ) -> u16 {
        let path = format!("/ws/api/v1/hubs/{path}");
        let token = token(path.split('?').next().unwrap(), None);
        let head = format!("Authorization: Bearer {token}\r\nContent-Type: {content_type}\r\n");
        self.raw(method, &path, &head, body).await.0
    }

    /// Sends one HTTP request; returns the status and the whole answer.
    pub(crate) async fn raw(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
    ) -> (u16, String) {
        let mut request =
            format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}")
                .into_bytes();
        request.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        request.extend_from_slice(body);
        self.bytes(&request).await
    }

    /// Sends bytes and reads until the node closes.
    pub(crate) async fn bytes(&self, request: &[u8]) -> (u16, String) {
        exchange(self.address, request).await
    }
}

/// Sends bytes to an address and reads until it closes; returns the status and the whole answer.
pub(crate) async fn exchange(address: SocketAddr, request: &[u8]) -> (u16, String) {
    let mut socket = TcpStream::connect(address).await.unwrap();
    // The node may close before it has read everything.
    let _ = socket.write_all(request).await;
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    (status, answer)
}

/// Asks the node at an address, also while it is being shut down.
pub(crate) async fn ask(address: SocketAddr, method: &str, path: &str) -> (u16, String) {
    let request = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    exchange(address, request.as_bytes()).await
}

/// Returns the sum of a metric over all shards.
pub(crate) async fn metric(node: &TestNode, name: &str) -> u64 {
    let (_, metrics) = node.raw("GET", "/metrics", "", b"").await;
    let values = metrics.lines().filter(|line| line.starts_with(name));
    values.map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap()).sum()
}

/// How long a test waits for what must happen.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Waits until `holds`; fails after [`DEADLINE`].
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let looking = async {
        while !holds().await {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, looking).await.is_ok(), "in vain: {what}");
}

/// Returns the next message that is not a ping or pong; a close becomes `Message::Close`, an end `None`.
pub(crate) async fn next(client: &mut Client) -> Option<Message> {
    use futures_util::StreamExt;
    loop {
        match client.next().await? {
            Ok(Message::Ping(_) | Message::Pong(_)) => {}
            Ok(message) => return Some(message),
            Err(_) => return None,
        }
    }
}
