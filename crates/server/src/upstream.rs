//! Upstream calls: an event of a connection becomes one HTTP POST, its answer an input of the hub.
//!
//! A slow upstream blocks nobody: each upstream has its own places, connect events have places of their own, and a call that its
//! connection no longer waits for makes way for a newer one.

mod answer;
mod client;
mod course;
mod gate;
mod lease;
mod listener;
mod outcome;
mod payload;
mod request;
mod resolver;
mod targets;
mod through_tunnel;
mod token;
mod validation;
mod wire;

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::future::Either;
use hookwire_hub::{Call, Dialect, Event, EventCopy, Input, Reply, UpstreamAnswer};
use hookwire_proto::handler::{HandlerAuth, HandlerUrl};
use hookwire_proto::name::HubName;
use hookwire_proto::signature::AccessKey;
use http::HeaderValue;
use hyper_util::client::legacy::Error;
use metrics::{Counter, Gauge, Histogram};
use rustls::RootCertStore;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::answer::Wanted;
use self::client::{Http, Versions};
use self::course::{Failure, Policy, Retries};
use self::gate::{Gate, Purpose};
use self::listener::{Dropped, Listeners, Waiting};
use self::outcome::Outcome;
use self::request::{Requests, Target};
use self::targets::Targets;
use self::token::Tokens;
use self::validation::{Validations, Verdict};
use crate::config::{AddressRange, UpstreamLimits};
use crate::event_log::{self, Entry, EventLog};
use crate::http::unix_time;
use crate::metrics::Handles;
use crate::swap::Swap;
use crate::tunnel::Tunnels;

/// Upstreams that are remembered; when more are named, those without calls are forgotten.
const UPSTREAMS_MAX: usize = 1_024;

/// How long one upstream's failures are not mentioned again in the log.
const WARN_PAUSE: Duration = Duration::from_secs(10);

/// Notices of one upstream that may be on their way once more, their pauses included. One more is not sent again.
const RETRYING_MAX: usize = 4_096;

/// The caller of upstreams. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Upstream(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    http: Http,
    requests: Arc<Requests>,
    targets: Targets,
    validations: Validations,
    tokens: Tokens,
    listeners: Listeners,
    tunnels: Tunnels,
    limits: Swap<UpstreamLimits>,
    log: EventLog,
    figures: Figures,
    upstreams: Mutex<Upstreams>,
    /// Cancelled when the service ends: nothing waits to be sent again then.
    finishing: CancellationToken,
    /// What many calls wait for, and what no call waits for.
    tasks: TaskTracker,
}

#[derive(Debug, Default)]
struct Upstreams {
    /// By scheme, host and port; tunnels by hub.
    named: HashMap<String, Arc<Named>>,
    is_finishing: bool,
}

/// One upstream.
#[derive(Debug)]
struct Named {
    gate: Gate,
    retrying: Semaphore,
    trouble: Mutex<Trouble>,
}

/// What the log does not know yet about an upstream.
#[derive(Debug, Default)]
struct Trouble {
    failures: u64,
    warned: Option<Instant>,
}

/// Calls since the start. Metrics count them by event and result, for all nodes of a process together.
#[derive(Debug, Default)]
pub(crate) struct Figures {
    pub(crate) calls: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) in_flight: AtomicU64,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
enum CallError {
    #[error("not a URL that can be called")]
    Url,
    #[error("the hub has no tunnel")]
    NoTunnel,
    #[error("the tunnel was lost before it answered")]
    TunnelLost,
    #[error("the request is longer than a frame of the tunnel may be")]
    TooLongForTunnel,
    #[error("the answer through the tunnel has a status or headers that HTTP does not know")]
    TunnelAnswer,
    #[error("addresses of this range are refused")]
    RefusedAddress,
    #[error("{0}")]
    Unvalidated(Arc<Verdict>),
    #[error("no bearer token: {0}")]
    NoToken(Arc<str>),
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
    #[error("the answer is declared as JSON and is none")]
    NotJson,
    #[error("the header X-ASRS-User-Id is doubled or not UTF-8")]
    UserId,
    #[error(
        "the header ce-connectionState is doubled, not UTF-8 or longer than {} bytes",
        answer::STATE_BYTES_MAX
    )]
    State,
    #[error("the answer sets cookies of more than {} bytes", answer::COOKIES_BYTES_MAX)]
    Cookies,
    #[error("given up for newer calls")]
    GivenUp,
}

impl CallError {
    const fn result(&self) -> &'static str {
        match self {
            Self::Url | Self::RefusedAddress | Self::TooLongForTunnel => "refused",
            Self::Unvalidated(_) => "unvalidated",
            Self::NoToken(_) => "no_token",
            Self::Overloaded => "overloaded",
            Self::Unreachable(_) | Self::NoTunnel => "unreachable",
            Self::Broken(_) | Self::TunnelLost => "broken",
            Self::Timeout(_) => "timeout",
            Self::TooLarge(_)
            | Self::TunnelAnswer
            | Self::Encoded
            | Self::NotUtf8
            | Self::NotJson
            | Self::UserId
            | Self::State
            | Self::Cookies => "malformed",
            Self::GivenUp => "given_up",
        }
    }

    /// Whether the network failed, which may soon be over.
    fn is_of_network(&self) -> bool {
        match self {
            Self::Unreachable(_) | Self::Broken(_) | Self::NoTunnel | Self::TunnelLost => true,
            Self::Unvalidated(verdict) => matches!(**verdict, Verdict::Failed(_)),
            Self::Url
            | Self::TooLongForTunnel
            | Self::TunnelAnswer
            | Self::RefusedAddress
            | Self::NoToken(_)
            | Self::Overloaded
            | Self::Timeout(_)
            | Self::TooLarge(_)
            | Self::Encoded
            | Self::NotUtf8
            | Self::NotJson
            | Self::UserId
            | Self::State
            | Self::Cookies
            | Self::GivenUp => false,
        }
    }
}

/// Returns an error with its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text = format!("{text}: {error}");
        source = error.source();
    }
    text
}

/// Whether a notice may be taken if it is sent again (Web PubSub protocol, "Retry and time-outs").
fn is_temporary(outcome: &Result<UpstreamAnswer, CallError>) -> bool {
    match outcome {
        Ok(answer) => matches!(answer.status, 408 | 500..),
        Err(error) => error.is_of_network(),
    }
}

/// A call, and what is the same for all its attempts.
#[derive(Debug)]
struct Calling<'a> {
    call: &'a Call,
    target: &'a Target,
    named: &'a Named,
    policy: Policy,
    /// How long each attempt of a notice may take, or all of another event.
    limit: Duration,
    unix_seconds: u64,
    /// How often a request has been sent.
    attempts: &'a AtomicU32,
}

impl Upstream {
    /// Returns a caller that signs with `keys`, goes to no `refused` address, believes certificates of `roots`, names `origin` as
    /// the host by which upstreams know the service, tells `log` what comes of it, and reaches others through `tunnels`.
    ///
    /// # Errors
    /// The HTTP library cannot be taught how header names are spelled.
    pub(crate) async fn new(
        limits: UpstreamLimits,
        refused: Vec<AddressRange>,
        roots: RootCertStore,
        keys: Vec<AccessKey>,
        origin: String,
        log: EventLog,
        tunnels: Tunnels,
    ) -> std::io::Result<Self> {
        Ok(Self(Arc::new(Inner {
            http: Http::new(refused, roots)?,
            requests: Arc::new(Requests::new(keys, origin).await?),
            targets: Targets::default(),
            validations: Validations::default(),
            tokens: Tokens::default(),
            listeners: Listeners::new(),
            tunnels,
            limits: Swap::new(limits),
            log,
            figures: Figures::default(),
            upstreams: Mutex::default(),
            finishing: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })))
    }

    /// Returns what has been counted.
    pub(crate) fn figures(&self) -> &Figures {
        &self.0.figures
    }

    /// Calls made from now on are signed with these keys and have these times. How many may be under way stays as it was for upstreams
    /// that have been called.
    pub(crate) fn set(&self, limits: UpstreamLimits, keys: Vec<AccessKey>) {
        self.0.limits.set(limits);
        self.0.requests.set_keys(keys);
    }

    /// The clients are going: from now on nobody waits for an answer, except to a connect event. What has passed, or passes later, is
    /// given up, and nothing waits to be sent again. Calls still go out, so that every event is posted.
    pub(crate) fn finish(&self) {
        self.0.finishing.cancel();
        let mut upstreams = self.upstreams();
        upstreams.is_finishing = true;
        // Each is independent of the others.
        upstreams.named.values().for_each(|named| named.gate.close());
    }

    /// Takes no more copies of events and waits until those that there are have been delivered or have failed. To be called after
    /// [`Upstream::finish`], when no call is under way any more. Cancel-safe.
    pub(crate) async fn flush(&self) {
        self.0.listeners.close();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// Sends a copy of an event to a listener some time.
    pub(crate) fn copy(&self, copy: EventCopy) {
        let (listener, hub) = (copy.listener.clone(), copy.hub.clone());
        let upstream = self.clone();
        let deliver = move |waiting: Waiting| {
            let upstream = upstream.clone();
            async move { upstream.deliver(&waiting.copy).await }
        };
        if let Err(Dropped) = self.0.listeners.push(copy, &self.0.tasks, deliver) {
            count_copy("dropped");
            if let Some(target) = self.0.targets.get(&listener.url.validation_url(&hub)) {
                let named = self.named(target.origin());
                named.warn(
                    target.origin(),
                    "too much waits for this listener, copies of events are dropped",
                );
            }
        }
    }

    /// Makes a call and reports what comes of it: at most once that it has passed, exactly once how it ended. Not cancel-safe: run it
    /// in a tracked task.
    pub(crate) async fn call(&self, call: Call, report: impl Fn(Input)) {
        static IN_FLIGHT: Handles<(), Gauge> = Handles::new();
        static CALLS: Handles<(&str, &str), Counter> = Handles::new();
        static DURATIONS: Handles<&str, Histogram> = Handles::new();
        let begin = Instant::now();
        let event = call.event.kind();
        let in_flight = IN_FLIGHT.get((), || metrics::gauge!("hookwire_upstream_calls_in_flight"));
        in_flight.increment(1.0);
        let figures = &self.0.figures;
        figures.calls.fetch_add(1, Ordering::Relaxed);
        figures.in_flight.fetch_add(1, Ordering::Relaxed);
        let attempts = AtomicU32::new(0);
        let result = self.begin(&call, &attempts, &report).await;
        let outcome = Outcome::of(&call.event, &result);
        figures.in_flight.fetch_sub(1, Ordering::Relaxed);
        figures.failures.fetch_add(u64::from(!outcome.ok), Ordering::Relaxed);
        self.log(&call, outcome, &result, begin.elapsed(), attempts.into_inner());
        let (reply, result) = match result {
            Ok(answer) => {
                let result = answer::status_class(answer.status);
                (Reply::Answered(Box::new(answer)), result)
            }
            Err(error @ CallError::NoTunnel) => (through_tunnel::no_tunnel(), error.result()),
            Err(error) => (Reply::Failed { reason: chain(&error) }, error.result()),
        };
        in_flight.decrement(1.0);
        let register = || metrics::counter!("hookwire_upstream_calls_total", "event" => event, "result" => result);
        CALLS.get((event, result), register).increment(1);
        let register =
            || metrics::histogram!("hookwire_upstream_call_duration_seconds", "event" => event);
        DURATIONS.get(event, register).record(begin.elapsed().as_secs_f64());
        report(Input::UpstreamReplied { call: call.id, reply });
    }

    async fn begin(
        &self,
        call: &Call,
        attempts: &AtomicU32,
        report: &impl Fn(Input),
    ) -> Result<UpstreamAnswer, CallError> {
        let event = call.event.kind();
        let Some(target) = self.0.targets.get(&call.url) else {
            tracing::warn!(hub = %call.hub, event, "an upstream's URL cannot be called");
            return Err(CallError::Url);
        };
        let name = if target.is_tunnel {
            Cow::Owned(through_tunnel::name(&call.hub))
        } else {
            Cow::Borrowed(target.origin())
        };
        let named = self.named(&name);
        let result = self.answer(call, &target, &named, attempts, report).await;
        match &result {
            Ok(UpstreamAnswer { status, .. }) => {
                tracing::trace!(event, connection = %call.connection, url = target.shown(), status, "answered");
                // 4xx is how an upstream says no.
                if !matches!(status, 200..300 | 400..500) {
                    let reason = format!("HttpHandlerUnexpectedResponse: it answered {status}");
                    named.warn(&name, &reason);
                }
            }
            Err(error) => {
                let reason = chain(error);
                tracing::debug!(event, connection = %call.connection, url = target.shown(), reason, "an upstream call failed");
                named.warn(&name, &reason);
            }
        }
        result
    }

    async fn answer(
        &self,
        call: &Call,
        target: &Target,
        named: &Named,
        attempts: &AtomicU32,
        report: &impl Fn(Input),
    ) -> Result<UpstreamAnswer, CallError> {
        if !target.is_tunnel && !self.0.http.may_call(target) {
            return Err(CallError::RefusedAddress);
        }
        let limits = self.0.limits.get();
        let limit = match &call.dialect {
            _ if call.event.is_connect() => limits.connect_time_max,
            Dialect::WebPubSub { handler, .. } => handler.timeout.unwrap_or(limits.time_max),
            Dialect::Preview(_) => limits.time_max,
        };
        let policy = Policy::of(&call.event);
        let unix_seconds = unix_time().as_secs();
        let calling = Calling { call, target, named, policy, limit, unix_seconds, attempts };
        let has_passed = AtomicBool::new(call.event.is_last());
        let pass = || {
            // Nothing follows the last event of a connection.
            if !has_passed.swap(true, Ordering::Relaxed) {
                report(Input::UpstreamPassed { call: call.id });
            }
        };
        if !policy.is_notice {
            return self.once(&calling, &pass).await;
        }
        let mut retries = Retries::default();
        // Whoever is sent again keeps its room until it ends: what has passed is not bounded by the number of connections.
        let mut room = None;
        loop {
            let outcome = self.once(&calling, &pass).await;
            let Some(pause) = retries.pause().filter(|_| is_temporary(&outcome)) else {
                return outcome;
            };
            room = room.or_else(|| named.retrying.try_acquire().ok());
            if room.is_none() {
                return outcome;
            }
            pass();
            if !self.pause(pause).await {
                return outcome;
            }
        }
    }

    /// Waits before something is sent again. Returns whether it shall be: not when the service was ending before.
    async fn pause(&self, pause: Duration) -> bool {
        if self.0.finishing.is_cancelled() {
            return false;
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = self.0.finishing.cancelled() => {}
        }
        true
    }

    /// Makes a call once, but for what its policy repeats.
    async fn once(
        &self,
        calling: &Calling<'_>,
        passed: &impl Fn(),
    ) -> Result<UpstreamAnswer, CallError> {
        let Calling { call, target, named, policy, limit, unix_seconds, attempts } = calling;
        let timeout_error = |_| CallError::Timeout(*limit);
        let mut deadline = Instant::now() + *limit;
        let preparing = self.prepare(call);
        let authorization = timeout_at(deadline, preparing).await.map_err(timeout_error)??;
        let is_connect = call.event.is_connect();
        let purpose = if is_connect { Purpose::Connect } else { Purpose::Other };
        let entering = named.gate.enter(purpose, call.event.payload_bytes());
        let place = timeout_at(deadline, entering).await.map_err(timeout_error)?;
        let mut place = place.map_err(|gate::Full| CallError::Overloaded)?;
        // A client waits no longer for its handshake because many others do; an event that had to wait has its whole time yet.
        if !is_connect {
            deadline = Instant::now() + *limit;
        }
        let wanted = Wanted::of(&call.event);
        let attempt = || {
            attempts.fetch_add(1, Ordering::Relaxed);
            let authorization = authorization.as_ref();
            let request = self.0.requests.call(call, target, authorization, *unix_seconds);
            if target.is_tunnel {
                let framed = through_tunnel::framed(request);
                let (head, written) = self.0.tunnels.send(&call.hub, &framed);
                let answer = async {
                    let head = head.await.map_err(through_tunnel::failure)?;
                    answer::read(head, wanted).await.map_err(Failure::Final)
                };
                return (Either::Left(answer), Either::Left(written));
            }
            let (head, written) = self.0.http.send(request, Versions::of(&call.dialect));
            let answer = async { answer::read(head.await?, wanted).await.map_err(Failure::Final) };
            (Either::Right(answer), Either::Right(written))
        };
        let pass = || {
            passed();
            place.pass()
        };
        let course = course::run(*policy, &self.0.finishing, attempt, pass);
        timeout_at(deadline, course).await.map_err(timeout_error)?
    }

    /// Tells the event log what a call came to.
    fn log(
        &self,
        call: &Call,
        outcome: Outcome,
        result: &Result<UpstreamAnswer, CallError>,
        duration: Duration,
        attempts: u32,
    ) {
        let Outcome { ok, verdict, reason } = outcome;
        let dialect = match &call.dialect {
            Dialect::Preview(_) => event_log::Dialect::Preview,
            Dialect::WebPubSub { .. } => event_log::Dialect::WebPubSub,
        };
        let entry = Entry::new(log_kind(&call.event), call.event.name())
            .of(Some(&call.hub), Some(dialect), Some(call.connection))
            .user(call.user.as_ref())
            .url(&call.url)
            .status(result.as_ref().ok().map(|answer| answer.status))
            .took(duration, attempts)
            .came_to(ok, verdict, reason.as_deref());
        self.0.log.push(entry);
    }

    /// Does what must be done before a handler gets an event. Returns the value of `Authorization`.
    async fn prepare(&self, call: &Call) -> Result<Option<HeaderValue>, CallError> {
        let Dialect::WebPubSub { handler, .. } = &call.dialect else { return Ok(None) };
        // Who has opened a tunnel wants events.
        if !handler.url.is_tunnel() {
            self.validate(&handler.url, &call.hub).await?;
        }
        match &handler.auth {
            HandlerAuth::None => Ok(None),
            HandlerAuth::Bearer { source } => {
                let token = self.0.tokens.get(source, &self.0.http, &self.0.tasks).await;
                token.map(Some).map_err(CallError::NoToken)
            }
        }
    }

    /// Makes sure that an upstream wants events (Web PubSub protocol, "Abuse protection").
    async fn validate(&self, url: &HandlerUrl, hub: &HubName) -> Result<(), CallError> {
        let target = self.0.targets.get(&url.validation_url(hub)).ok_or(CallError::Url)?;
        let Inner { validations, http, requests, tasks, log, .. } = &*self.0;
        let log = (log, hub);
        validations.check(target, http, requests, tasks, log).await.map_err(CallError::Unvalidated)
    }

    /// Posts a copy of an event to its listener, again as long as that may help.
    async fn deliver(&self, copy: &EventCopy) {
        let begin = Instant::now();
        let unix_seconds = unix_time().as_secs();
        let mut retries = Retries::default();
        let mut attempts = 0;
        let outcome = loop {
            attempts += 1;
            let outcome = self.post_copy(copy, unix_seconds).await;
            let Some(pause) = retries.pause().filter(|_| is_temporary(&outcome)) else {
                break outcome;
            };
            if !self.pause(pause).await {
                break outcome;
            }
        };
        let (result, reason) = match &outcome {
            Ok(UpstreamAnswer { status: 200..300, .. }) => ("delivered", None),
            Ok(UpstreamAnswer { status, .. }) => ("refused", Some(format!("it answered {status}"))),
            Err(error) => ("failed", Some(chain(error))),
        };
        count_copy(result);
        let url = copy.listener.url.url(&copy.hub, copy.event.name());
        let told = Outcome::of_copy(&outcome);
        let dialect = Some(event_log::Dialect::WebPubSub);
        let entry = Entry::new(event_log::Kind::Listener, copy.event.name())
            .of(Some(&copy.hub), dialect, Some(copy.connection))
            .user(copy.user.as_ref())
            .url(&url)
            .status(outcome.as_ref().ok().map(|answer| answer.status))
            .took(begin.elapsed(), attempts)
            .came_to(told.ok, told.verdict, told.reason.as_deref());
        self.0.log.push(entry);
        if let Some((reason, target)) = reason.zip(self.0.targets.get(&url)) {
            self.named(target.origin()).warn(target.origin(), &reason);
        }
    }

    async fn post_copy(
        &self,
        copy: &EventCopy,
        unix_seconds: u64,
    ) -> Result<UpstreamAnswer, CallError> {
        let url = copy.listener.url.url(&copy.hub, copy.event.name());
        let target = self.0.targets.get(&url).ok_or(CallError::Url)?;
        let limit = self.0.limits.get().time_max;
        let posting = async {
            self.validate(&copy.listener.url, &copy.hub).await?;
            let request = || self.0.requests.copy(copy, &target, unix_seconds);
            let head = self.0.http.ask(&target, request).await?;
            answer::read(head, Wanted::Status).await
        };
        timeout(limit, posting).await.map_err(|_| CallError::Timeout(limit))?
    }

    fn named(&self, origin: &str) -> Arc<Named> {
        let mut upstreams = self.upstreams();
        if let Some(named) = upstreams.named.get(origin) {
            return named.clone();
        }
        if UPSTREAMS_MAX <= upstreams.named.len() {
            upstreams.named.retain(|_, named| 1 < Arc::strong_count(named));
        }
        let gate = Gate::new(self.0.limits.get().calls_in_flight_max);
        if upstreams.is_finishing {
            gate.close();
        }
        let retrying = Semaphore::new(RETRYING_MAX);
        let named = Arc::new(Named { gate, retrying, trouble: Mutex::default() });
        upstreams.named.insert(origin.to_owned(), named.clone());
        named
    }

    fn upstreams(&self) -> MutexGuard<'_, Upstreams> {
        self.0.upstreams.lock().expect("nothing panics while it holds the upstreams")
    }
}

/// Returns the kind by which the event log tells of an event.
const fn log_kind(event: &Event) -> event_log::Kind {
    match event {
        Event::Connect { .. } | Event::Connecting(_) => event_log::Kind::Connect,
        Event::Message(_) => event_log::Kind::Message,
        Event::Connected => event_log::Kind::Connected,
        Event::User(_) => event_log::Kind::User,
        Event::Disconnect | Event::Disconnected { .. } => event_log::Kind::Disconnected,
        Event::Joined(_) | Event::Left(_) => event_log::Kind::Presence,
    }
}

fn count_copy(result: &'static str) {
    metrics::counter!("hookwire_listener_events_total", "result" => result).increment(1);
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

#[cfg(test)]
mod tests;
