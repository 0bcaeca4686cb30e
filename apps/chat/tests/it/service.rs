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
use hookwire_chat::{ChatConfig, Running, serve};
use hookwire_client::{AccessKey, ConnectionString, HubName, header, sign};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use url::Url;

pub(crate) const KEY: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGH";
const HUB: &str = "chat";
const WAIT_MAX: Duration = Duration::from_secs(20);

/// Who got a push: `*`, `user <name>` or `group <id>`.
type Pushed = (String, Value);

#[derive(Debug, Default)]
pub(crate) struct Recorded {
    pushes: Mutex<Vec<Pushed>>,
    changed: Notify,
    pub(crate) online: Mutex<BTreeSet<String>>,
    /// Groups with their users.
    pub(crate) members: Mutex<BTreeMap<String, BTreeSet<String>>>,
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
        let rest = path.strip_prefix("/ws/api/v1/hubs/chat/").context("another hub")?;
        let parts: Vec<String> = rest
            .split('/')
            .map(|part| Ok(percent_decode_str(part).decode_utf8()?.into_owned()))
            .collect::<Result<_>>()?;
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match (head.method, &parts[..]) {
            (Method::POST, [""]) => self.pushed("*".to_owned(), &body)?,
            (Method::POST, ["users", user]) => self.pushed(format!("user {user}"), &body)?,
            (Method::POST, ["groups", group]) => self.pushed(format!("group {group}"), &body)?,
            (Method::HEAD, ["users", user]) => {
                if !self.online.lock().unwrap().contains(*user) {
                    return Ok(StatusCode::NOT_FOUND);
                }
            }
            (Method::PUT, ["groups", group, "users", user]) => {
                let mut members = self.members.lock().unwrap();
                members.entry((*group).to_owned()).or_default().insert((*user).to_owned());
            }
            (Method::DELETE, ["groups", group, "users", user]) => {
                let mut members = self.members.lock().unwrap();
                members.entry((*group).to_owned()).or_default().remove(*user);
            }
            (method, _) => anyhow::bail!("the chat has no business with {method} {path}"),
        }
        Ok(StatusCode::OK)
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

    pub(crate) async fn with(adjust: impl FnOnce(&mut ChatConfig)) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let endpoint = Url::parse(&format!("http://{}", listener.local_addr()?))?;
        let service = Arc::new(Recorded::default());
        let router = Router::new().fallback(record).with_state(Arc::clone(&service));
        let serving = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("the listener works");
        });
        let folder = Arc::new(TempDir::new()?);
        let (chat, address) = start(&endpoint, folder.path(), adjust).await?;
        Ok(Self { service, address, endpoint, serving, chat, folder })
    }

    /// Ends this instance in good order and starts another one on the same data.
    pub(crate) async fn reopen(self) -> Result<Self> {
        self.chat.shutdown().await;
        let (chat, address) = start(&self.endpoint, self.folder.path(), |_| {}).await?;
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

    pub(crate) async fn close(self) {
        self.chat.shutdown().await;
        self.serving.abort();
    }

    pub(crate) async fn get(&self, path: &str, headers: &[(&str, &str)]) -> Result<Answered> {
        request(self.address, Method::GET, path, headers, Vec::new()).await
    }

    /// Calls a function as Hookwire does.
    pub(crate) async fn event(
        &self,
        event: &str,
        headers: &[(&str, &str)],
        body: impl Into<Vec<u8>>,
    ) -> Result<Answered> {
        event_at(self.address, event, headers, body).await
    }

    /// A user sends a frame. Returns the answer.
    pub(crate) async fn ask(&self, user: &str, frame: Value) -> Result<Value> {
        ask_at(self.address, user, frame).await
    }

    /// A user is connected and says hello.
    pub(crate) async fn hello(&self, user: &str) -> Result<Value> {
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
    let given = |name: &str| headers.iter().any(|(known, _)| known.eq_ignore_ascii_case(name));
    let all: Vec<_> =
        all.into_iter().filter(|(name, _)| !given(name)).chain(headers.iter().copied()).collect();
    request(address, Method::POST, &format!("/api/{event}"), &all, body.into()).await
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
    let mut config = ChatConfig::new(connection_string, HubName::parse(HUB)?, folder.join("chat"));
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
