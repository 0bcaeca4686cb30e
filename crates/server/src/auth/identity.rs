//! Identity providers: their published keys, fetched when first needed, and what the roles of their tokens allow.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use bytes::Bytes;
use hookwire_proto::token::identity::{Origin, PublishedKeys, check};
use hookwire_proto::token::{Claims, TokenError};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use super::refused;
use crate::api_error::ApiError;
use crate::config::{OidcConfig, RestAccess};

/// How long a provider may take to send its keys.
const FETCH_TIME_MAX: Duration = Duration::from_secs(5);

/// Largest set of keys.
const KEYS_BYTES_MAX: usize = 256 * 1024;

/// After this long keys are fetched again, while the known ones go on being used.
const KEYS_FRESH: Duration = Duration::from_hours(1);

/// After this long keys that could not be fetched again are no longer trusted.
const KEYS_AGE_MAX: Duration = Duration::from_hours(24);

/// Between two attempts to find a key that is not known: anybody can name one.
const FETCH_PAUSE: Duration = Duration::from_secs(30);

/// Between two attempts while there is no key at all.
const FIRST_FETCH_PAUSE: Duration = Duration::from_secs(5);

type HttpClient = Client<HttpsConnector<HttpConnector>, Empty<Bytes>>;

/// The providers that are configured.
#[derive(Debug)]
pub(crate) struct IdentityProviders(Vec<Arc<Provider>>);

#[derive(Debug)]
struct Provider {
    config: OidcConfig,
    client: HttpClient,
    known: RwLock<Known>,
    /// One fetch at a time.
    fetching: tokio::sync::Mutex<()>,
}

/// What has been fetched from a provider.
#[derive(Debug, Default)]
struct Known {
    keys: Arc<PublishedKeys>,
    /// When the keys came.
    fetched: Option<Instant>,
    /// When they were last asked for.
    tried: Option<Instant>,
}

/// What a token needs before it can be checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    /// What is known must do.
    Nothing,
    /// What is known will do, and has become old.
    Renewal,
    /// Keys that are not known yet.
    Keys,
}

impl Known {
    fn need(&self, key_id: Option<&str>, now: Instant) -> Need {
        let since = |then: Instant| now.saturating_duration_since(then);
        let Some(age) = self.fetched.map(since) else {
            let is_due = self.tried.is_none_or(|then| FIRST_FETCH_PAUSE <= since(then));
            return if is_due { Need::Keys } else { Need::Nothing };
        };
        if self.tried.is_some_and(|then| since(then) < FETCH_PAUSE)
            || age < KEYS_FRESH && self.keys.has(key_id)
        {
            Need::Nothing
        } else if KEYS_AGE_MAX <= age || !self.keys.has(key_id) {
            Need::Keys
        } else {
            Need::Renewal
        }
    }

    /// Returns the keys that can be trusted.
    fn trusted(&self, now: Instant) -> Option<Arc<PublishedKeys>> {
        let fetched = self.fetched?;
        (now.saturating_duration_since(fetched) < KEYS_AGE_MAX).then(|| self.keys.clone())
    }
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
enum FetchError {
    #[error("the URL cannot be requested")]
    Url(#[source] http::Error),
    #[error("the provider cannot be reached")]
    Unreachable(#[source] hyper_util::client::legacy::Error),
    #[error("the provider answered with status {0}")]
    Status(StatusCode),
    #[error("the answer broke off or exceeds {KEYS_BYTES_MAX} bytes")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the answer is no set of keys")]
    NotKeys,
    #[error("the set holds no key that signs by RS256 or ES256")]
    NoKey,
    #[error("no complete answer within {FETCH_TIME_MAX:?}")]
    Timeout,
}

impl IdentityProviders {
    /// Returns the providers; none of them is called before a token names it.
    pub(crate) fn new(configured: &[OidcConfig]) -> Self {
        Self(Vec::new()).reconfigured(configured)
    }

    /// Returns the providers of another configuration; those that it leaves as they are keep what is known of their keys.
    pub(crate) fn reconfigured(&self, configured: &[OidcConfig]) -> Self {
        let provider = |config: &OidcConfig| {
            if let Some(known) = self.0.iter().find(|known| known.config == *config) {
                return known.clone();
            }
            let builder = HttpsConnectorBuilder::new().with_webpki_roots();
            let connector = builder.https_or_http().enable_http1().build();
            Arc::new(Provider {
                config: config.clone(),
                client: Client::builder(TokioExecutor::new())
                    .pool_max_idle_per_host(0)
                    .build(connector),
                known: RwLock::default(),
                fetching: tokio::sync::Mutex::default(),
            })
        };
        Self(configured.iter().map(provider).collect())
    }

    /// Whether they are those of this configuration.
    pub(crate) fn are(&self, configured: &[OidcConfig]) -> bool {
        self.0.iter().map(|provider| &provider.config).eq(configured)
    }

    /// Whether there are none.
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns what a token allows, `None` when it has no role that is known; `now` in seconds since 1970.
    ///
    /// # Errors
    /// 401 for a token that is not valid, 503 while the provider's keys cannot be fetched.
    pub(super) async fn access(
        &self,
        token: &str,
        origin: &Origin,
        now: u64,
        tasks: &TaskTracker,
    ) -> Result<Option<RestAccess>, ApiError> {
        let of_issuer = || self.0.iter().filter(|one| one.config.issuer == origin.issuer);
        let meant = of_issuer().find(|one| origin.audiences.contains(&one.config.audience));
        let provider = meant.ok_or_else(|| {
            let expected: Vec<&str> = of_issuer().map(|one| &*one.config.audience).collect();
            if expected.is_empty() {
                return refused(&TokenError::Issuer);
            }
            let (expected, actual) = (expected.join(" or "), origin.audiences.clone());
            refused(&TokenError::Audience { expected, actual })
        })?;
        let keys = provider.keys(origin.key_id.as_deref(), tasks).await.ok_or_else(|| {
            let message = "the keys of the token's issuer cannot be fetched";
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "IdentityProviderUnavailable", message)
        })?;
        let config = &provider.config;
        let claims = check(token, now, &keys, &config.issuer, &config.audience)
            .map_err(|error| refused(&error))?;
        Ok(access(config, &claims))
    }
}

impl Provider {
    /// Returns the keys that can be trusted, fetched if they are missing.
    async fn keys(
        self: &Arc<Self>,
        key_id: Option<&str>,
        tasks: &TaskTracker,
    ) -> Option<Arc<PublishedKeys>> {
        match self.need(key_id) {
            Need::Nothing => {}
            // In tasks, since hyper forgets this future when the caller leaves: what was begun would be begun again.
            Need::Renewal => drop(tasks.spawn(self.clone().fetch(key_id.map(str::to_owned)))),
            Need::Keys => {
                // It cannot fail but by a panic, which the log shows.
                let _ = tasks.spawn(self.clone().fetch(key_id.map(str::to_owned))).await;
            }
        }
        self.known.read().unwrap_or_else(PoisonError::into_inner).trusted(Instant::now())
    }

    fn need(&self, key_id: Option<&str>) -> Need {
        self.known.read().unwrap_or_else(PoisonError::into_inner).need(key_id, Instant::now())
    }

    async fn fetch(self: Arc<Self>, key_id: Option<String>) {
        let _one_at_a_time = self.fetching.lock().await;
        if self.need(key_id.as_deref()) == Need::Nothing {
            return;
        }
        let known = || self.known.write().unwrap_or_else(PoisonError::into_inner);
        known().tried = Some(Instant::now());
        let fetched = timeout(FETCH_TIME_MAX, self.request()).await;
        match fetched.unwrap_or(Err(FetchError::Timeout)) {
            Ok(keys) => {
                let mut known = known();
                known.keys = Arc::new(keys);
                known.fetched = Some(Instant::now());
            }
            Err(error) => {
                let issuer = self.config.issuer.as_str();
                let error = &error as &dyn std::error::Error;
                tracing::warn!(issuer, error, "the keys of an identity provider were not fetched");
            }
        }
    }

    /// Redirects are not followed.
    async fn request(&self) -> Result<PublishedKeys, FetchError> {
        let request = Request::get(self.config.jwks_url.as_str())
            .header(header::ACCEPT, "application/json")
            .body(Empty::new())
            .map_err(FetchError::Url)?;
        let answer = self.client.request(request).await.map_err(FetchError::Unreachable)?;
        if answer.status() != StatusCode::OK {
            return Err(FetchError::Status(answer.status()));
        }
        let body = Limited::new(answer.into_body(), KEYS_BYTES_MAX).collect().await;
        let body = body.map_err(FetchError::Body)?.to_bytes();
        let keys = PublishedKeys::parse(&body).map_err(|_| FetchError::NotKeys)?;
        if keys.has(None) { Ok(keys) } else { Err(FetchError::NoKey) }
    }
}

/// Returns the most that a token's roles allow. The claim is a text (a role, or several between blanks) or a list of texts; a name
/// with dots also leads into objects.
fn access(config: &OidcConfig, claims: &Claims) -> Option<RestAccess> {
    let named = claims.get(&config.roles_claim).or_else(|| {
        let (first, rest) = config.roles_claim.split_once('.')?;
        rest.split('.').try_fold(claims.get(first)?, |value, name| value.get(name))
    })?;
    let roles = named.as_array().map_or(std::slice::from_ref(named), Vec::as_slice);
    let roles = roles.iter().filter_map(Value::as_str);
    let words = roles.flat_map(|role| std::iter::once(role).chain(role.split_ascii_whitespace()));
    words.filter_map(|role| config.roles.get(role)).max().copied()
}

#[cfg(test)]
mod tests;
