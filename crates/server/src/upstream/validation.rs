//! Abuse protection: an upstream is asked whether it wants this service's events before it gets the first (Web PubSub protocol,
//! "Abuse protection").

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hookwire_proto::cloud_event::is_origin_allowed;
use hookwire_proto::name::HubName;
use http::{Method, StatusCode};
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use super::client::Http;
use super::lease::Lease;
use super::outcome::Outcome;
use super::request::{Requests, Target};
use super::{CallError, chain};
use crate::event_log::{Dialect, Entry, EventLog, Kind};

/// How long an upstream may take to say that it wants events.
const TIME_MAX: Duration = Duration::from_secs(10);

/// How long its word holds. It is asked again only when an event is due.
const HOLDS: Duration = Duration::from_mins(1);

/// The longest pause after a failure, during which all events to the URL fail; the first is a second.
const PAUSE_MAX: Duration = Duration::from_mins(1);

/// URLs whose answer is remembered. When more are named, those are forgotten whose time is over, if need be all but those being asked.
const URLS_MAX: usize = 4_096;

/// What an upstream says is shown up to so many characters.
const SHOWN_CHARS_MAX: usize = 200;

/// Why an upstream gets no events (limits and codes, "Error names").
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Verdict {
    #[error(
        "AbuseProtectionResponseMissingAllowedOrigin: the upstream allows {actual}, which is not {expected}"
    )]
    MissingAllowedOrigin { expected: String, actual: String },
    #[error(
        "AbuseProtectionResponseInvalidStatusCode: the upstream answered its validation with {0}"
    )]
    InvalidStatusCode(u16),
    #[error("AbuseProtectionResponseFailed: {0}")]
    Failed(String),
}

impl Verdict {
    /// Returns the verdict as it is counted.
    const fn result(&self) -> &'static str {
        match self {
            Self::MissingAllowedOrigin { .. } => "missing_allowed_origin",
            Self::InvalidStatusCode(_) => "invalid_status_code",
            Self::Failed(_) => "failed",
        }
    }
}

/// Which URLs want events.
#[derive(Debug, Default)]
pub(super) struct Validations(Mutex<HashMap<String, Shared>>);

/// The proof of one URL.
type Shared = Arc<Lease<(), Arc<Verdict>>>;

impl Validations {
    /// Returns when `target` may get events. Whoever asks it tells `log`, as of `hub`. Cancel-safe.
    ///
    /// # Errors
    /// It has said no, or nothing, just now or within the pause after that.
    pub(super) async fn check(
        &self,
        target: Arc<Target>,
        http: &Http,
        requests: &Arc<Requests>,
        tasks: &TaskTracker,
        (log, hub): (&EventLog, &HubName),
    ) -> Result<(), Arc<Verdict>> {
        let lease = self.lease(target.url.as_str());
        let ask = || {
            let (target, http, requests) = (target.clone(), http.clone(), requests.clone());
            let (log, hub) = (log.clone(), hub.clone());
            async move {
                let begin = Instant::now();
                let verdict = judge(&target, &http, &requests).await;
                let told = verdict.as_ref().map(drop).map_err(|verdict| &**verdict);
                log.push(entry(&target, &hub, told, begin.elapsed()));
                verdict
            }
        };
        lease.get(tasks, ask).await
    }

    fn lease(&self, url: &str) -> Arc<Lease<(), Arc<Verdict>>> {
        let mut leases = self.0.lock().expect("nothing panics while it holds the table");
        if let Some(lease) = leases.get(url) {
            return lease.clone();
        }
        if URLS_MAX <= leases.len() {
            leases.retain(|_, lease| !lease.is_over());
        }
        if URLS_MAX <= leases.len() {
            leases.retain(|_, lease| 1 < Arc::strong_count(lease));
        }
        let lease = Arc::new(Lease::new(PAUSE_MAX));
        leases.insert(url.to_owned(), lease.clone());
        lease
    }
}

fn entry(
    target: &Target,
    hub: &HubName,
    verdict: Result<(), &Verdict>,
    duration: Duration,
) -> Entry {
    let Outcome { ok, verdict: word, reason } = Outcome::of_validation(verdict);
    let status = match verdict {
        Err(Verdict::InvalidStatusCode(status)) => Some(*status),
        Ok(()) | Err(Verdict::MissingAllowedOrigin { .. } | Verdict::Failed(_)) => None,
    };
    Entry::new(Kind::Validation, "validate")
        .of(Some(hub), Some(Dialect::WebPubSub), None)
        .url(target.shown())
        .status(status)
        .took(duration, 1)
        .came_to(ok, word, reason.as_deref())
}

/// Asks an upstream and makes its answer known to people.
async fn judge(
    target: &Target,
    http: &Http,
    requests: &Requests,
) -> Result<((), Duration), Arc<Verdict>> {
    let asked = timeout(TIME_MAX, ask(target, http, requests)).await;
    let verdict =
        asked.unwrap_or_else(|_| Err(Verdict::Failed(CallError::Timeout(TIME_MAX).to_string())));
    let result = verdict.as_ref().map_or_else(Verdict::result, |()| "valid");
    metrics::counter!("hookwire_upstream_validations_total", "result" => result).increment(1);
    match verdict {
        Ok(()) => {
            tracing::debug!(url = target.shown(), "an upstream wants events");
            Ok(((), HOLDS))
        }
        Err(verdict) => {
            let url = target.shown();
            if let Verdict::MissingAllowedOrigin { expected, actual } = &verdict {
                tracing::warn!(
                    url,
                    expected,
                    actual,
                    "an upstream does not allow this service's origin"
                );
            } else {
                tracing::warn!(url, %verdict, "an upstream was not validated");
            }
            Err(Arc::new(verdict))
        }
    }
}

async fn ask(target: &Target, http: &Http, requests: &Requests) -> Result<(), Verdict> {
    let ask = async |method: Method| {
        let response = http.ask(target, || requests.validation(&method, target)).await;
        response.map_err(|error| Verdict::Failed(chain(&error)))
    };
    let mut response = ask(Method::OPTIONS).await?;
    if response.status() == StatusCode::NOT_FOUND {
        response = ask(Method::GET).await?;
    }
    if !response.status().is_success() {
        return Err(Verdict::InvalidStatusCode(response.status().as_u16()));
    }
    let values = response.headers().get_all("webhook-allowed-origin");
    let values: Vec<&str> = values.iter().filter_map(|value| value.to_str().ok()).collect();
    if is_origin_allowed(values.iter().copied(), requests.origin()) {
        return Ok(());
    }
    let actual = match values.join(", ").trim() {
        "" => "nothing".to_owned(),
        named => named.chars().take(SHOWN_CHARS_MAX).collect(),
    };
    Err(Verdict::MissingAllowedOrigin { expected: requests.origin().to_owned(), actual })
}
