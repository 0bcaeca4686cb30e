//! Upstream calls: an event of a connection becomes one HTTP POST, its answer an input of the hub.
//!
//! A slow upstream blocks nobody: each upstream has its own places, connect events have places of their own, and a call that its
//! connection no longer waits for makes way for a newer one.

mod answer;
mod course;
mod gate;
mod request;
mod resolver;
mod wire;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use hookwire_hub::{Call, Event, Input, Reply};
use hookwire_proto::signature::AccessKey;
use http::Request;
use http_body_util::Full;
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, timeout_at};

use self::answer::Answer;
use self::course::Failure;
use self::gate::{Gate, Purpose};
use self::request::{Requests, Target};
use self::resolver::{Refused, Resolver};
use self::wire::Connector;
use crate::config::{AddressRange, UpstreamLimits};

/// Idle connections are dropped before the upstream does: Node closes them after 5 s.
const IDLE_TIME_MAX: Duration = Duration::from_secs(4);

/// Upstreams that are remembered; when more are named, those without calls are forgotten.
const UPSTREAMS_MAX: usize = 1_024;

/// How long one upstream's failures are not mentioned again in the log.
const WARN_PAUSE: Duration = Duration::from_secs(10);

/// The caller of upstreams. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Upstream(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: Client<Connector, Full<Bytes>>,
    resolver: Resolver,
    requests: Requests,
    limits: UpstreamLimits,
    upstreams: Mutex<Upstreams>,
}

#[derive(Debug, Default)]
struct Upstreams {
    /// By scheme, host and port.
    named: HashMap<String, Arc<Named>>,
    is_finishing: bool,
}

/// One upstream.
#[derive(Debug)]
struct Named {
    gate: Gate,
    trouble: Mutex<Trouble>,
}

/// What the log does not know yet about an upstream.
#[derive(Debug, Default)]
struct Trouble {
    failures: u64,
    warned: Option<Instant>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("not a URL that can be called")]
    Url,
    #[error("addresses of this range are refused")]
    RefusedAddress,
    #[error("too much waits for this upstream")]
    Overloaded,
    #[error("cannot reach the upstream")]
    Unreachable(#[source] Error),
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
            Self::Url | Self::RefusedAddress => "refused",
            Self::Overloaded => "overloaded",
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
    /// Returns a caller that signs with `keys` and goes to no `refused` address.
    ///
    /// # Errors
    /// The HTTP library cannot be taught how header names are spelled.
    pub(crate) async fn new(
        limits: UpstreamLimits,
        refused: Vec<AddressRange>,
        keys: Vec<AccessKey>,
    ) -> std::io::Result<Self> {
        let resolver = Resolver::new(refused);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_TIME_MAX)
            .pool_timer(TokioTimer::new())
            .retry_canceled_requests(false)
            .http1_preserve_header_case(true)
            .http1_max_buf_size(answer::HEAD_BYTES_MAX)
            .http1_max_headers(answer::HEADERS_MAX)
            .build(Connector::new(resolver.clone()));
        let requests = Requests::new(keys).await?;
        let upstreams = Mutex::default();
        Ok(Self(Arc::new(Inner { client, resolver, requests, limits, upstreams })))
    }

    /// From now on nobody waits for an answer, except to a connect event: what has passed, or passes later, is given up. Calls still
    /// go out, so that every event is posted.
    pub(crate) fn finish(&self) {
        let mut upstreams = self.upstreams();
        upstreams.is_finishing = true;
        // Each is independent of the others.
        upstreams.named.values().for_each(|named| named.gate.close());
    }

    /// Makes a call and reports what comes of it: at most once that it has passed, exactly once how it ended. Not cancel-safe: run it
    /// in a tracked task.
    pub(crate) async fn call(&self, call: Call, report: impl Fn(Input)) {
        let begin = Instant::now();
        let event = call.event.name().as_str();
        let in_flight = metrics::gauge!("hookwire_upstream_calls_in_flight");
        in_flight.increment(1.0);
        let (reply, result) = match self.begin(&call, &report).await {
            Ok(answer) => {
                let result = answer.status_class();
                (answer.into_reply(), result)
            }
            Err(error) => (Reply::Failed { reason: error.chain() }, error.result()),
        };
        in_flight.decrement(1.0);
        metrics::counter!("hookwire_upstream_calls_total", "event" => event, "result" => result)
            .increment(1);
        metrics::histogram!("hookwire_upstream_call_duration_seconds", "event" => event)
            .record(begin.elapsed().as_secs_f64());
        report(Input::UpstreamReplied { call: call.id, reply });
    }

    async fn begin(&self, call: &Call, report: &impl Fn(Input)) -> Result<Answer, CallError> {
        let event = call.event.name().as_str();
        let Some(target) = Target::parse(&call.url) else {
            tracing::warn!(hub = %call.hub, event, "an upstream's URL cannot be called");
            return Err(CallError::Url);
        };
        let named = self.named(target.origin());
        let result = self.answer(call, &target, &named.gate, report).await;
        match &result {
            Ok(Answer { status, .. }) => {
                tracing::trace!(event, connection = %call.connection, url = target.shown(), status, "answered");
                // 4xx is how an upstream says no.
                if !matches!(status, 200..300 | 400..500) {
                    named.warn(target.origin(), &format!("it answered {status}"));
                }
            }
            Err(error) => {
                let reason = error.chain();
                tracing::debug!(event, connection = %call.connection, url = target.shown(), reason, "an upstream call failed");
                named.warn(target.origin(), &reason);
            }
        }
        result
    }

    async fn answer(
        &self,
        call: &Call,
        target: &Target,
        gate: &Gate,
        report: &impl Fn(Input),
    ) -> Result<Answer, CallError> {
        if !self.0.resolver.is_allowed_host(&target.url) {
            return Err(CallError::RefusedAddress);
        }
        let limits = &self.0.limits;
        let (purpose, limit) = match call.event {
            Event::Connect { .. } => (Purpose::Connect, limits.connect_time_max),
            Event::Message(_) | Event::Disconnect => (Purpose::Other, limits.time_max),
        };
        let mut deadline = Instant::now() + limit;
        let entering = gate.enter(purpose, call.event.payload_bytes());
        let place = timeout_at(deadline, entering).await.map_err(|_| CallError::Timeout(limit))?;
        let mut place = place.map_err(|gate::Full| CallError::Overloaded)?;
        // A client waits no longer for its handshake because many others do; an event that had to wait has its whole time yet.
        if purpose != Purpose::Connect {
            deadline = Instant::now() + limit;
        }
        let payload_bytes = call.event.payload_bytes() as u64;
        let attempt = || {
            let mut request = self.0.requests.build(call, target);
            let captured = capture_connection(&mut request);
            let written = wire::written(captured.clone(), payload_bytes);
            (self.exchange(request, captured, answer::body_bytes_max(&call.event)), written)
        };
        let pass = || {
            // Only messages hold their connection's next event back.
            if matches!(call.event, Event::Message(_)) {
                report(Input::UpstreamPassed { call: call.id });
            }
            place.pass()
        };
        let is_repeated = !matches!(call.event, Event::Disconnect);
        let course = course::run(is_repeated, purpose == Purpose::Connect, attempt, pass);
        timeout_at(deadline, course).await.map_err(|_| CallError::Timeout(limit))?
    }

    async fn exchange(
        &self,
        request: Request<Full<Bytes>>,
        captured: CaptureConnection,
        body_bytes_max: usize,
    ) -> Result<Answer, Failure> {
        match self.0.client.request(request).await {
            Ok(response) => answer::read(response, body_bytes_max).await.map_err(Failure::Final),
            Err(error) => Err(failure(error, &captured)),
        }
    }

    fn named(&self, origin: &str) -> Arc<Named> {
        let mut upstreams = self.upstreams();
        if let Some(named) = upstreams.named.get(origin) {
            return named.clone();
        }
        if UPSTREAMS_MAX <= upstreams.named.len() {
            upstreams.named.retain(|_, named| 1 < Arc::strong_count(named));
        }
        let gate = Gate::new(self.0.limits.calls_in_flight_max);
        if upstreams.is_finishing {
            gate.close();
        }
        let named = Arc::new(Named { gate, trouble: Mutex::default() });
        upstreams.named.insert(origin.to_owned(), named.clone());
        named
    }

    fn upstreams(&self) -> MutexGuard<'_, Upstreams> {
        self.0.upstreams.lock().expect("nothing panics while it holds the upstreams")
    }
}

impl Named {
    /// Counts a failure and says so in the log, at most once in [`WARN_PAUSE`].
    fn warn(&self, origin: &str, reason: &str) {
        let mut trouble = self.trouble.lock().expect("nothing panics while it holds the count");
        trouble.failures += 1;
        if trouble.warned.is_some_and(|warned| warned.elapsed() < WARN_PAUSE) {
            return;
        }
        trouble.warned = Some(Instant::now());
        let failures = std::mem::take(&mut trouble.failures);
        drop(trouble);
        tracing::warn!(upstream = origin, failures, reason, "an upstream fails");
    }
}

/// Returns what may be done about an attempt without an answer.
fn failure(error: Error, captured: &CaptureConnection) -> Failure {
    if is_caused_by::<Refused>(&error, |_| true) {
        return Failure::Final(CallError::RefusedAddress);
    }
    if error.is_connect() {
        return Failure::Silent(CallError::Unreachable(error));
    }
    let is_returned = is_caused_by(&error, hyper::Error::is_canceled);
    match wire::turn(captured) {
        Some(turn) if turn.is_stale(is_returned) => Failure::Stale(CallError::Broken(error.into())),
        Some(turn) if turn.is_answered() && !is_returned => {
            Failure::Final(CallError::Broken(error.into()))
        }
        Some(_) | None => Failure::Silent(CallError::Broken(error.into())),
    }
}

fn is_caused_by<E: std::error::Error + 'static>(error: &Error, is: impl Fn(&E) -> bool) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        // What an I/O error wraps is not its source but itself.
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let inner = inner.and_then(|inner| inner.downcast_ref::<E>());
        if error.downcast_ref::<E>().or(inner).is_some_and(&is) {
            return true;
        }
        source = error.source();
    }
    false
}

#[cfg(test)]
mod tests;
