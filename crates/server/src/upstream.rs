//! Upstream calls: an event of a connection becomes one HTTP POST, its answer an input of the hub.
//!
//! A slow upstream blocks nobody: each upstream has its own permits, connect events have permits of their own, and under pressure the
//! oldest call that its connection no longer waits for is given up.

mod request;
mod resolver;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use hookwire_hub::{Call, Event, Input, Reply};
use hookwire_proto::signature::AccessKey;
use http::Response;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::sync::{Semaphore, oneshot};
use tokio::time::{sleep, timeout};
use url::Url;

use self::request::{Announced, Requests};
use self::resolver::Resolver;
use crate::config::UpstreamLimits;

/// How long the next event of a connection waits for the answer to the previous one, after that was fully written.
const PASS_TIME: Duration = Duration::from_millis(250);

/// How long a call that could not reach its upstream is repeated.
const REPEAT_TIME_MAX: Duration = Duration::from_secs(5);

/// The first pause between repeated calls; doubled each time.
const REPEAT_PAUSE: Duration = Duration::from_millis(50);

/// Idle connections are dropped before the upstream does: Node closes them after 5 s.
const IDLE_TIME_MAX: Duration = Duration::from_secs(4);

/// Largest answer to a connect event.
const CONNECT_ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// Largest answer to any other event.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Share of the permits of an upstream that connect events have for themselves: one in four.
const CONNECT_SHARE: usize = 4;

/// Upstreams with permits; when more are named, those without calls are forgotten.
const GATES_MAX: usize = 1_024;

/// The caller of upstreams. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Upstream(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: Client<HttpsConnector<HttpConnector<Resolver>>, Announced>,
    requests: Requests,
    limits: UpstreamLimits,
    gates: Mutex<HashMap<String, Arc<Gate>>>,
}

/// The permits of one upstream.
#[derive(Debug)]
struct Gate {
    connects: Semaphore,
    others: Semaphore,
    /// Calls that nobody waits for, oldest first; sending gives one up.
    passed: Mutex<VecDeque<oneshot::Sender<()>>>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("the URL {0} cannot be called")]
    Url(String),
    #[error("addresses of this range are refused")]
    RefusedAddress,
    #[error("cannot reach the upstream")]
    Unreachable(#[source] hyper_util::client::legacy::Error),
    #[error("the upstream broke off")]
    Broken(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("no complete answer within {0:?}")]
    Timeout(Duration),
    #[error("the answer exceeds {0} bytes")]
    TooLarge(usize),
    #[error("the answer has a Content-Encoding, which was not asked for")]
    Encoded,
    #[error("the answer is declared as text and is not UTF-8")]
    NotUtf8,
    #[error("the header X-ASRS-User-Id is doubled or not UTF-8")]
    UserId,
    #[error("given up for newer calls")]
    GivenUp,
}

impl CallError {
    const fn result(&self) -> &'static str {
        match self {
            Self::Url(_) | Self::RefusedAddress => "refused",
            Self::Unreachable(_) => "unreachable",
            Self::Broken(_) => "broken",
            Self::Timeout(_) => "timeout",
            Self::TooLarge(_) | Self::Encoded | Self::NotUtf8 | Self::UserId => "malformed",
            Self::GivenUp => "given_up",
        }
    }

    /// Returns the error with its causes in one line.
    fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut source = std::error::Error::source(self);
        while let Some(error) = source {
            text = format!("{text}: {error}");
            source = error.source();
        }
        text
    }
}

impl Upstream {
    /// Returns a caller that signs with `keys`.
    pub(crate) async fn new(limits: UpstreamLimits, keys: Vec<AccessKey>) -> std::io::Result<Self> {
        let mut connector = HttpConnector::new_with_resolver(Resolver::default());
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(limits.connect_time_max));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_webpki_roots()
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_TIME_MAX)
            .pool_timer(TokioTimer::new())
            .http1_preserve_header_case(true)
            .build(connector);
        let requests = Requests::new(keys).await?;
        Ok(Self(Arc::new(Inner { client, requests, limits, gates: Mutex::default() })))
    }

    /// Makes a call and reports what comes of it: at most once that it has passed, exactly once how it ended.
    pub(crate) async fn call(&self, call: Call, report: impl Fn(Input)) {
        let started = Instant::now();
        let id = call.id;
        let event = call.event.name().as_str();
        let result = self.answer(&call, &report).await;
        let (reply, result) = match result {
            Ok(reply) => (reply, "answered"),
            Err(error) => {
                let reason = error.chain();
                tracing::debug!(event, connection = %call.connection, reason, "an upstream call failed");
                (Reply::Failed { reason }, error.result())
            }
        };
        metrics::counter!("hookwire_upstream_calls_total", "event" => event, "result" => result)
            .increment(1);
        metrics::histogram!("hookwire_upstream_call_duration_seconds", "event" => event)
            .record(started.elapsed().as_secs_f64());
        report(Input::UpstreamReplied { call: id, reply });
    }

    async fn answer(&self, call: &Call, report: &impl Fn(Input)) -> Result<Reply, CallError> {
        let url = Url::parse(&call.url).map_err(|_| CallError::Url(call.url.clone()))?;
        if !resolver::is_allowed_host(&url) {
            return Err(CallError::RefusedAddress);
        }
        let gate = self.gate(&url[..url::Position::BeforePath]);
        let (limit, permits) = match call.event {
            Event::Connect { .. } => (self.0.limits.connect_time_max, &gate.connects),
            Event::Message(_) | Event::Disconnect => (self.0.limits.time_max, &gate.others),
        };
        if permits.available_permits() == 0 {
            gate.give_up_oldest();
        }
        let permit =
            timeout(limit, permits.acquire()).await.map_err(|_| CallError::Timeout(limit))?;
        let _permit = permit.expect("the semaphore is never closed");
        let (sent, was_sent) = oneshot::channel();
        let attempts = timeout(limit, self.attempts(call, sent));
        tokio::pin!(attempts);
        let passes = async {
            // The sender is gone when the call has failed, which ends the other branch.
            if matches!(call.event, Event::Message(_)) && was_sent.await.is_ok() {
                sleep(PASS_TIME).await;
            } else {
                std::future::pending::<()>().await;
            }
        };
        let result = tokio::select! {
            result = &mut attempts => result,
            () = passes => {
                report(Input::UpstreamPassed { call: call.id });
                let (sender, given_up) = oneshot::channel();
                gate.passed.lock().expect("nothing panics while it holds the list").push_back(sender);
                tokio::select! {
                    result = &mut attempts => result,
                    Ok(()) = given_up => return Err(CallError::GivenUp),
                }
            }
        };
        result.map_err(|_| CallError::Timeout(limit))?
    }

    /// Calls until the upstream could be reached; what has reached it is never repeated. A disconnect is attempted once.
    async fn attempts(&self, call: &Call, sent: oneshot::Sender<()>) -> Result<Reply, CallError> {
        let started = tokio::time::Instant::now();
        let mut pause = REPEAT_PAUSE;
        let mut sent = Some(sent);
        loop {
            let (announce, announced) = oneshot::channel();
            let request = self
                .0
                .requests
                .build(call, announce)
                .map_err(|_| CallError::Url(call.url.clone()))?;
            let response = self.0.client.request(request);
            tokio::pin!(response);
            let response = tokio::select! {
                response = &mut response => response,
                Ok(()) = announced => {
                    if let Some(sent) = sent.take() {
                        // Nobody waits for a connect or disconnect to pass.
                        let _ = sent.send(());
                    }
                    response.await
                }
            };
            match response {
                Ok(response) => return read(call, response).await,
                Err(error) if !error.is_connect() => return Err(CallError::Broken(error.into())),
                Err(error) => {
                    let once = matches!(call.event, Event::Disconnect);
                    if once || REPEAT_TIME_MAX < started.elapsed() + pause {
                        return Err(CallError::Unreachable(error));
                    }
                    sleep(pause).await;
                    pause *= 2;
                }
            }
        }
    }

    fn gate(&self, origin: &str) -> Arc<Gate> {
        let mut gates = self.0.gates.lock().expect("nothing panics while it holds the gates");
        if GATES_MAX <= gates.len() {
            gates.retain(|_, gate| 1 < Arc::strong_count(gate));
        }
        let connects = self.0.limits.calls_in_flight_max.div_ceil(CONNECT_SHARE);
        let gate = || {
            Arc::new(Gate {
                connects: Semaphore::new(connects),
                others: Semaphore::new((self.0.limits.calls_in_flight_max - connects).max(1)),
                passed: Mutex::default(),
            })
        };
        gates.entry(origin.to_owned()).or_insert_with(gate).clone()
    }
}

impl Gate {
    /// Ends the oldest call that nobody waits for, if there is one.
    fn give_up_oldest(&self) {
        let mut passed = self.passed.lock().expect("nothing panics while it holds the list");
        while let Some(call) = passed.pop_front() {
            if call.send(()).is_ok() {
                return;
            }
        }
    }
}

async fn read(call: &Call, response: Response<Incoming>) -> Result<Reply, CallError> {
    let (head, body) = response.into_parts();
    let text = |name: &str| {
        let value = head.headers.get(name)?;
        std::str::from_utf8(value.as_bytes()).ok().map(str::to_owned)
    };
    if head.headers.get("content-encoding").is_some_and(|encoding| encoding != "identity") {
        return Err(CallError::Encoded);
    }
    let users = head.headers.get_all("x-asrs-user-id").iter().count();
    let user = text("x-asrs-user-id");
    if 1 < users || (users == 1 && user.is_none()) {
        return Err(CallError::UserId);
    }
    let limit = match call.event {
        Event::Connect { .. } => CONNECT_ANSWER_BYTES_MAX,
        Event::Message(_) | Event::Disconnect => ANSWER_BYTES_MAX,
    };
    let body = match Limited::new(body, limit).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<LengthLimitError>() => return Err(CallError::TooLarge(limit)),
        Err(error) => return Err(CallError::Broken(error)),
    };
    let content_type = text("content-type");
    let declared = content_type.as_deref().unwrap_or_default().to_ascii_lowercase();
    let is_text = declared.starts_with("text/") || declared.contains("json");
    if is_text && std::str::from_utf8(&body).is_err() {
        return Err(CallError::NotUtf8);
    }
    let subprotocols = head.headers.get_all("sec-websocket-protocol").iter();
    let subprotocols = subprotocols
        .flat_map(|value| value.to_str().unwrap_or_default().split(','))
        .map(|one| one.trim().to_owned())
        .collect();
    Ok(Reply::Answered { status: head.status.as_u16(), subprotocols, user, content_type, body })
}
