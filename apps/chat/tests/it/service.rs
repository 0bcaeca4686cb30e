//! A service that records what the chat room asks of it, and a chat room on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::body::to_bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use hookwire_chat::{ChatConfig, Dialect, Running, Storage, serve};
use hookwire_client::{AccessKey, ConnectionString, HubName, header, sign};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use url::Url;

pub(crate) const KEY: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGH";
const HUB: &str = "chat";
const WAIT_MAX: Duration = Duration::from_secs(20);

/// Makes two tests of each function that takes a dialect.
macro_rules! in_both_dialects {
    ($($name:ident),+ $(,)?) => {
        mod preview {
            $(#[tokio::test]
            async fn $name() -> anyhow::Result<()> {
                super::$name(hookwire_chat::Dialect::Preview).await
            })+
        }

        mod web_pubsub {
            $(#[tokio::test]
            async fn $name() -> anyhow::Result<()> {
                super::$name(hookwire_chat::Dialect::WebPubSub).await
            })+
        }
    };
}
pub(crate) use in_both_dialects;

/// Who got a push: `*`, `user <name>` or `group <id>`.
type Pushed = (String, Value);

#[derive(Debug, Default)]
pub(crate) struct Recorded {
    pushes: Mutex<Vec<Pushed>>,
    changed: Notify,
    pub(crate) online: Mutex<BTreeSet<String>>,
    /// Groups with their users.
    pub(crate) members: Mutex<BTreeMap<String, BTreeSet<String>>>,
    /// What became of memberships, in order.
    pub(crate) calls: Mutex<Vec<String>>,
    /// Calls whose path contains a text are answered with a status, so many times.
    pub(crate) failures: Mutex<Vec<(String, StatusCode, usize)>>,
}

async fn record(State(recorded): State<Arc<Recorded>>, request: Request) -> Response {
    match recorded.answer(request).await {
        Ok(status) => status.into_response(),
        Err(error) => (StatusCode::BAD_REQUEST, format!("{error:#}")).into_response(),
    }
}

impl Recorded {
    async fn answer(&self, request: Request) -> Result<StatusCode> {
        let (head, body) = request.into_parts();
        ensure!(head.headers.contains_key("authorization"), "no token");
        let path = head.uri.path().to_owned();
        for (part, status, times) in self.failures.lock().unwrap().iter_mut() {
            if path.contains(&**part) && 0 < *times {
                *times -= 1;
                return Ok(*status);
            }
        }
        let body = to_bytes(body, 1 << 20).await?;
        let rest = path
            .strip_prefix("/ws/api/v1/hubs/chat/")
            .or_else(|| path.strip_prefix("/api/hubs/chat/"))
            .context("another hub")?;
        let parts: Vec<String> = rest
            .split('/')
            .map(|part| Ok(percent_decode_str(part).decode_utf8()?.into_owned()))
            .collect::<Result<_>>()?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        if path.starts_with("/ws/") {
            self.preview(&head.method, &parts, &body)
        } else {
            self.web_pubsub(&head.method, &parts, &body)
        }
        .with_context(|| format!("the chat has no business with {} {path}", head.method))
    }

    fn preview(&self, method: &Method, path: &[&str], body: &[u8]) -> Result<StatusCode> {
        match (method.as_str(), path) {
            ("POST", [""]) => self.pushed("*".to_owned(), body)?,
            ("POST", ["users", user]) => self.pushed(format!("user {user}"), body)?,
            ("POST", ["groups", group]) => self.pushed(format!("group {group}"), body)?,
            ("HEAD", ["users", user]) if !self.is_online(user) => return Ok(StatusCode::NOT_FOUND),
            ("HEAD", ["users", _]) => {}
            ("PUT", ["groups", group, "users", user]) => self.add(group, user),
            ("DELETE", ["groups", group, "users", user]) => self.remove(group, user),
            _ => anyhow::bail!("unknown call"),
        }
        Ok(StatusCode::OK)
    }

    /// Each user has one connection, so that the members of a group can be users here as well.
    fn web_pubsub(&self, method: &Method, path: &[&str], body: &[u8]) -> Result<StatusCode> {
        let accepted = |()| StatusCode::ACCEPTED;
        let status = match (method.as_str(), path) {
            ("POST", [":send"]) => self.pushed("*".to_owned(), body).map(accepted)?,
            ("POST", ["users", user, ":send"]) => {
                self.pushed(format!("user {user}"), body).map(accepted)?
            }
            ("POST", ["groups", group, ":send"]) => {
                self.pushed(format!("group {group}"), body).map(accepted)?
            }
            ("HEAD", ["users", user]) | ("PUT", ["users", user, "groups", _])
                if !self.is_online(user) =>
            {
                StatusCode::NOT_FOUND
            }
            ("HEAD", ["users", _]) => StatusCode::OK,
            ("PUT", ["users", user, "groups", group]) => {
                self.add(group, user);
                StatusCode::OK
            }
            ("DELETE", ["users", user, "groups", group]) => {
                self.remove(group, user);
                StatusCode::NO_CONTENT
            }
            ("PUT", ["groups", group, "connections", id]) => {
                self.add(group, &user_of(id)?);
                StatusCode::OK
            }
            ("DELETE", ["groups", group, "connections", id]) => {
                self.remove(group, &user_of(id)?);
                StatusCode::NO_CONTENT
            }
            ("DELETE", ["connections", id, "groups"]) => {
                let user = user_of(id)?;
                for members in self.members.lock().unwrap().values_mut() {
                    members.remove(&user);
                }
                StatusCode::NO_CONTENT
            }
            _ => anyhow::bail!("unknown call"),
        };
        Ok(status)
    }

    fn is_online(&self, user: &str) -> bool {
        self.online.lock().unwrap().contains(user)
    }

    pub(crate) fn add(&self, group: &str, user: &str) {
        self.calls.lock().unwrap().push(format!("{user} into {group}"));
        let mut members = self.members.lock().unwrap();
        members.entry(group.to_owned()).or_default().insert(user.to_owned());
    }

    pub(crate) fn remove(&self, group: &str, user: &str) {
        self.calls.lock().unwrap().push(format!("{user} out of {group}"));
        let mut members = self.members.lock().unwrap();
        members.entry(group.to_owned()).or_default().remove(user);
    }

    fn pushed(&self, to: String, body: &[u8]) -> Result<()> {
        let push = serde_json::from_slice(body)?;
        self.pushes.lock().unwrap().push((to, push));
        self.changed.notify_waiters();
        Ok(())
    }

    /// Waits for the first push of this type to these, and takes it.
    pub(crate) async fn push(&self, to: &str, kind: &str) -> Result<Value> {
        let waiting = async {
            loop {
                let changed = self.changed.notified();
                {
                    let mut pushes = self.pushes.lock().unwrap();
                    let fits = |(who, push): &Pushed| who == to && push["type"] == kind;
                    if let Some(place) = pushes.iter().position(fits) {
                        return pushes.remove(place).1;
                    }
                }
                changed.await;
            }
        };
        let pushed = tokio::time::timeout(WAIT_MAX, waiting).await;
        pushed.with_context(|| format!("no push {kind} to {to}, but {:?}", self.left()))
    }

    /// Returns the pushes that nobody took.
    pub(crate) fn left(&self) -> Vec<Pushed> {
        self.pushes.lock().unwrap().clone()
    }

    pub(crate) fn fail(&self, part: &str, status: u16, times: usize) {
        let status = StatusCode::from_u16(status).unwrap();
        self.failures.lock().unwrap().push((part.to_owned(), status, times));
    }

    pub(crate) fn members_of(&self, group: &str) -> Vec<String> {
        let members = self.members.lock().unwrap();
        members.get(group).into_iter().flatten().cloned().collect()
    }
}

/// A chat room, the service behind it, and its data.
#[derive(Debug)]
pub(crate) struct Room {
    dialect: Dialect,
    /// What the chat told the service to keep for the connection of each user.
    states: Mutex<BTreeMap<String, String>>,
    pub(crate) service: Arc<Recorded>,
    pub(crate) address: SocketAddr,
    pub(crate) endpoint: Url,
    serving: JoinHandle<()>,
    chat: Running,
    folder: Arc<TempDir>,
}

/// An answer over HTTP.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
}

impl Answered {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

impl Room {
    pub(crate) async fn open() -> Result<Self> {
        Self::with(|_| {}).await
    }

    pub(crate) async fn in_dialect(dialect: Dialect) -> Result<Self> {
        Self::with(|config| config.dialect = dialect).await
    }

    pub(crate) async fn with(adjust: impl FnOnce(&mut ChatConfig)) -> Result<Self> {
        let mut dialect = Dialect::default();
        let adjust = |config: &mut ChatConfig| {
            adjust(config);
            dialect = config.dialect;
        };
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = Url::parse(&format!("http://{}", listener.local_addr()?))?;
        let service = Arc::new(Recorded::default());
        let router = Router::new().fallback(record).with_state(Arc::clone(&service));
        let serving = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("the listener works");
        });
        let folder = Arc::new(TempDir::new()?);
        let (chat, address) = start(&endpoint, folder.path(), adjust).await?;
        let states = Mutex::default();
        Ok(Self { dialect, states, service, address, endpoint, serving, chat, folder })
    }

    /// Ends this instance in good order and starts another one on the same data.
    pub(crate) async fn reopen(self) -> Result<Self> {
        self.chat.shutdown().await;
        let in_dialect = |config: &mut ChatConfig| config.dialect = self.dialect;
        let (chat, address) = start(&self.endpoint, self.folder.path(), in_dialect).await?;
        Ok(Self { address, chat, ..self })
    }

    /// Starts a second instance on the same data and the same service.
    pub(crate) async fn another(&self) -> Result<(Running, SocketAddr)> {
        start(&self.endpoint, self.folder.path(), |_| {}).await
    }

    /// Cuts the newest version of each conversation that fits in the middle. Returns how many.
    pub(crate) fn spoil_conversations(&self, fits: impl Fn(&str) -> bool) -> Result<usize> {
        let mut spoiled = 0;
        for conversation in fs::read_dir(self.folder.path().join("chat/conversations"))? {
            let versions = fs::read_dir(conversation?.path().join("versions"))?;
            let versions =
                versions.map(|version| Ok(version?.path())).collect::<Result<Vec<_>>>()?;
            let newest = versions.into_iter().max().context("a conversation without versions")?;
            let content = fs::read_to_string(&newest)?;
            if fits(&content) {
                fs::write(&newest, &content[..content.len() / 2])?;
                spoiled += 1;
            }
        }
        Ok(spoiled)
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) async fn close(self) {
        self.chat.shutdown().await;
        self.serving.abort();
    }

    pub(crate) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Result<Answered> {
        request(self.address, Method::GET, path, headers, Vec::new()).await
    }

    /// Calls a function as a preview service does.
    pub(crate) async fn event(
        &self,
        event: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Result<Answered> {
        event_at(self.address, event, headers, body).await
    }

    /// Calls the function as a service of Web PubSub does; `kind` is the end of `ce-type`.
    pub(crate) async fn cloud_event(
        &self,
        kind: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Result<Answered> {
        let id = headers.iter().find(|(name, _)| *name == "ce-connectionId");
        let id = id.map_or("connection-1", |(_, id)| id);
        let signature = sign(&[AccessKey::parse(KEY)?], id);
        let kind = format!("azure.webpubsub.{kind}");
        let all = [
            ("ce-specversion", "1.0"),
            ("ce-awpsversion", "1.0"),
            ("ce-type", kind.as_str()),
            ("ce-source", "/hubs/chat/client/connection-1"),
            ("ce-id", "1"),
            ("ce-time", "2026-01-01T00:00:00Z"),
            ("ce-eventName", kind.rsplit('.').next().unwrap_or_default()),
            ("ce-connectionId", id),
            ("ce-hub", "Chat"),
            ("ce-signature", signature.as_str()),
            ("WebHook-Request-Origin", "127.0.0.1"),
            ("Content-Type", "text/plain"),
        ];
        let all = overridden(&all, headers);
        request(self.address, Method::POST, "/api/eventhandler", &all, body.into()).await
    }

    /// The connection of a user, or of nobody, sends a message.
    pub(crate) async fn message(
        &self,
        user: Option<&str>,
        content_type: &str,
        body: impl Into<Vec<u8>>,
    ) -> Result<Answered> {
        let content_type = ("Content-Type", content_type);
        match self.dialect {
            Dialect::Preview => {
                let headers = [("X-ASRS-User-Id", user.unwrap_or_default()), content_type];
                self.event("message", &headers, body).await
            }
            Dialect::WebPubSub => {
                let user = user.unwrap_or_default();
                let state = self.states.lock().unwrap().get(user).cloned().unwrap_or_default();
                let headers = [
                    ("ce-connectionId", &*connection_of(user)),
                    ("ce-userId", user),
                    ("ce-connectionState", &state),
                    content_type,
                ];
                self.cloud_event("user.message", &headers, body).await
            }
        }
    }

    /// A connection of a user, or of nobody, is gone.
    pub(crate) async fn gone(&self, user: Option<&str>) -> Result<Answered> {
        let user = user.unwrap_or_default();
        match self.dialect {
            Dialect::Preview => self.event("disconnect", &[("X-ASRS-User-Id", user)], "").await,
            Dialect::WebPubSub => {
                let headers = [("ce-connectionId", &*connection_of(user)), ("ce-userId", user)];
                self.cloud_event("sys.disconnected", &headers, r#"{"reason":""}"#).await
            }
        }
    }

    /// A user comes by a new connection to a service of Web PubSub, which does as it is told.
    pub(crate) async fn connect(&self, user: &str) -> Result<Value> {
        let body = json!({ "claims": {}, "query": { "name": [user] }, "headers": {}, "subprotocols": ["hookwire.chat.v1"],
                           "clientCertificates": [] });
        let headers =
            [("ce-connectionId", &*connection_of(user)), ("Content-Type", "application/json")];
        let answered = self.cloud_event("sys.connect", &headers, body.to_string()).await?;
        ensure!(answered.status == StatusCode::OK, "{answered:?}");
        let answer = answered.json();
        for members in self.service.members.lock().unwrap().values_mut() {
            members.remove(user);
        }
        for group in answer["groups"].as_array().into_iter().flatten() {
            self.service.add(group.as_str().context("a group")?, user);
        }
        let state = answered.headers["ce-connectionstate"].to_str()?.to_owned();
        self.states.lock().unwrap().insert(user.to_owned(), state);
        Ok(answer)
    }

    /// A user sends a frame. Returns the answer.
    pub(crate) async fn ask(&self, user: &str, frame: Value) -> Result<Value> {
        let answered = self.message(Some(user), "text/plain", frame.to_string()).await?;
        ensure!(answered.status == StatusCode::OK, "{answered:?}");
        Ok(answered.json())
    }

    /// A user is connected and says hello.
    pub(crate) async fn hello(&self, user: &str) -> Result<Value> {
        if self.dialect == Dialect::WebPubSub {
            self.connect(user).await?;
        }
        self.service.online.lock().unwrap().insert(user.to_owned());
        let answer = self.ask(user, json!({ "re": 1, "op": "hello" })).await?;
        self.service.push("*", "presence").await?;
        Ok(answer)
    }

    pub(crate) async fn send(&self, user: &str, id: &str, key: &str) -> Result<Value> {
        let text = format!("{user} says {key}");
        let frame = json!({ "re": 1, "op": "send", "conversation": id, "key": key, "text": text });
        self.ask(user, frame).await
    }
}

pub(crate) async fn ask_at(address: SocketAddr, user: &str, frame: Value) -> Result<Value> {
    let headers = [("X-ASRS-User-Id", user)];
    let answered = event_at(address, "message", &headers, frame.to_string()).await?;
    ensure!(answered.status == StatusCode::OK, "{answered:?}");
    Ok(answered.json())
}

async fn event_at(
    address: SocketAddr,
    event: &str,
    headers: &[(&str, &str)],
    body: impl Into<Vec<u8>>,
) -> Result<Answered> {
    let signature = sign(&[AccessKey::parse(KEY)?], "connection-1");
    let category = if event == "message" { "messages" } else { "connections" };
    let all = [
        ("X-ASRS-Connection-Id", "connection-1"),
        ("X-ASRS-Hub", "Chat"),
        ("X-ASRS-Category", category),
        ("X-ASRS-Event", event),
        ("X-ASRS-Signature", signature.as_str()),
        ("Content-Type", "text/plain"),
    ];
    let all = overridden(&all, headers);
    request(address, Method::POST, &format!("/api/{event}"), &all, body.into()).await
}

/// Returns `usual` with what `headers` say instead.
fn overridden<'a>(
    usual: &[(&'a str, &'a str)],
    headers: &[(&'a str, &'a str)],
) -> Vec<(&'a str, &'a str)> {
    let given = |name: &str| headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
    usual.iter().filter(|(name, _)| !given(name)).chain(headers).copied().collect()
}

/// Returns the id of a user's only connection.
fn connection_of(user: &str) -> String {
    utf8_percent_encode(&format!("of {user}"), NON_ALPHANUMERIC).to_string().replace('%', "-")
}

fn user_of(connection: &str) -> Result<String> {
    let name = connection.replace('-', "%");
    let name = percent_decode_str(&name).decode_utf8()?.into_owned();
    Ok(name.strip_prefix("of ").context("a connection of nobody")?.to_owned())
}

pub(crate) async fn request(
    address: SocketAddr,
    method: Method,
    path: &str,
    headers: &[(&str, &str)],
    body: Vec<u8>,
) -> Result<Answered> {
    let exchange = async {
        let socket = TokioIo::new(TcpStream::connect(address).await?);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(socket).await?;
        let connection = tokio::spawn(connection);
        let mut request = hyper::Request::builder().method(method).uri(path).header("Host", "chat");
        for (name, value) in headers {
            let value = HeaderValue::from_bytes(value.as_bytes())?;
            if !value.is_empty() {
                request = request.header(HeaderName::try_from(*name)?, value);
            }
        }
        let answer =
            sender.send_request(request.body(Full::<hyper::body::Bytes>::from(body))?).await?;
        let (head, body) = answer.into_parts();
        let body = String::from_utf8(body.collect().await?.to_bytes().to_vec())?;
        drop(sender);
        connection.abort();
        Ok(Answered { status: head.status, headers: head.headers, body })
    };
    tokio::time::timeout(WAIT_MAX, exchange).await?
}

async fn start(
    endpoint: &Url,
    folder: &Path,
    adjust: impl FnOnce(&mut ChatConfig),
) -> Result<(Running, SocketAddr)> {
    let connection_string = ConnectionString::new(endpoint.clone(), AccessKey::parse(KEY)?)?;
    let storage = Storage::folder(folder.join("chat"));
    let mut config = ChatConfig::new(connection_string, HubName::parse(HUB)?, storage);
    adjust(&mut config);
    let running = serve(config, TcpListener::bind("127.0.0.1:0").await?).await?;
    let address = running.address();
    Ok((running, address))
}

/// Checks that an answer is an error with this code and repeats the number.
pub(crate) fn refused(answer: &Value, code: &str) {
    assert_eq!((&answer["type"], &answer["code"]), (&json!("error"), &json!(code)), "{answer}");
    assert!(
        answer["re"].is_u64() && answer["message"].as_str().unwrap().ends_with('.'),
        "{answer}"
    );
}

/// Checks that an answer is good.
pub(crate) fn good(answer: Value) -> Value {
    assert_eq!(answer["type"], "ok", "{answer}");
    answer
}

pub(crate) const USER_ID: HeaderName = header::USER_ID;
