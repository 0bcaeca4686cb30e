//! One HTTP request to the service and its answer, with limits.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use hookwire_proto::data::MetadataError;
use hookwire_proto::name::NameError;
use hookwire_proto::subprotocol::TTL_SECONDS_MAX;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Deserialize;

use crate::trust::Trust;

/// Pooled connections to services. Clones share the pool.
#[derive(Clone, Debug)]
pub(crate) struct Transport(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Transport {
    /// Prepares; opens nothing.
    pub(crate) fn new(connect_timeout: Duration, trust: &Trust) -> Result<Self, rustls::Error> {
        let connector = connector(connect_timeout, trust)?;
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_CONNECTION_MAX)
            .build(connector);
        Ok(Self(client))
    }

    /// Sends a call and returns the body of an answer with a 2xx status.
    pub(crate) async fn perform(
        &self,
        call: Call,
        token: Option<String>,
        limit: Duration,
    ) -> Result<Bytes, ServiceError> {
        let request = call.to_string();
        let exchange = self.exchange(call, token);
        let result = tokio::time::timeout(limit, exchange).await.unwrap_or(Err(Fault::Timeout));
        result.map_err(|fault| fault.of(request, limit))
    }

    /// Sends a call and returns the body of an answer with a 2xx status before it has come.
    pub(crate) async fn open(
        &self,
        call: Call,
        token: Option<String>,
        limit: Duration,
    ) -> Result<Incoming, ServiceError> {
        let request = call.to_string();
        let send = self.send(call, token);
        let result = tokio::time::timeout(limit, send).await.unwrap_or(Err(Fault::Timeout));
        result.map_err(|fault| fault.of(request, limit))
    }

    async fn exchange(&self, call: Call, token: Option<String>) -> Result<Bytes, Fault> {
        let body = self.send(call, token).await?;
        Limited::new(body, ANSWER_BYTES_MAX)
            .collect()
            .await
            .map(http_body_util::Collected::to_bytes)
            .map_err(|error| {
                if error.is::<LengthLimitError>() {
                    Fault::TooLong
                } else {
                    Fault::Interrupted(error)
                }
            })
    }

    async fn send(&self, call: Call, token: Option<String>) -> Result<Incoming, Fault> {
        let url = match call.query {
            Some(query) => format!("{}?{query}", call.url),
            None => call.url,
        };
        let mut request = Request::builder().method(call.method).uri(url);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        for (name, value) in call.headers {
            request = request.header(name, value);
        }
        let (content_type, body) = call.body.unzip();
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let request = request.body(Full::new(body.unwrap_or_default())).map_err(Fault::Request)?;

        let response = self.0.request(request).await.map_err(|error| {
            if error.is_connect() {
                Fault::Unreachable(error.into())
            } else {
                Fault::Interrupted(error.into())
            }
        })?;
        let status = response.status();
        if status.is_success() {
            return Ok(response.into_body());
        }
        let (head, body) = response.into_parts();
        Err(Fault::Status(Refusal::new(status, &head.headers, &beginning(body).await)))
    }
}

/// Opens TCP connections and speaks TLS on them if the URL says so.
pub(crate) fn connector(
    connect_timeout: Duration,
    trust: &Trust,
) -> Result<HttpsConnector<HttpConnector>, rustls::Error> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_nodelay(true);
    tcp.set_connect_timeout(Some(connect_timeout));
    Ok(HttpsConnectorBuilder::new()
        .with_tls_config(trust.client_config()?)
        .https_or_http()
        .enable_http1()
        .wrap_connector(tcp))
}

/// A request about to be made.
#[derive(Debug)]
pub(crate) struct Call {
    pub(crate) method: Method,
    /// Where to, without a query.
    pub(crate) url: String,
    /// What the token names.
    pub(crate) audience: String,
    /// Encoded, without `?`.
    pub(crate) query: Option<String>,
    /// Further headers.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// Content type and content.
    pub(crate) body: Option<(&'static str, Bytes)>,
}

/// Names the request in errors. A query is left out: it may hold what users wrote.
impl fmt::Display for Call {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}", self.method, self.url)
    }
}

/// Why a call failed. No text holds a key, a token or a message.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// An argument is no possible name; nothing was sent.
    #[error(transparent)]
    Name(#[from] NameError),
    /// The reason for closing does not fit into a close frame; nothing was sent.
    #[error("the reason has {bytes} bytes, at most {} are allowed", REASON_BYTES_MAX)]
    ReasonTooLong {
        /// Its length.
        bytes: usize,
    },
    /// Metadata breaks a rule; nothing was sent.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// A message may wait up to [`MESSAGE_TTL_MAX`]; nothing was sent.
    #[error("a message may wait {} seconds at most", MESSAGE_TTL_MAX.as_secs())]
    Ttl,
    /// The call makes no request: its URL is too long. Nothing was sent.
    #[error("the call makes no request")]
    Request {
        /// Why.
        source: http::Error,
    },
    /// No connection could be made; nothing was sent.
    #[error("could not reach the service for {request}")]
    Unreachable {
        /// Method and URL.
        request: String,
        /// Why.
        source: BoxError,
    },
    /// The connection broke; the service may have carried out the call.
    #[error("the connection to the service broke during {request}")]
    Interrupted {
        /// Method and URL.
        request: String,
        /// Why.
        source: BoxError,
    },
    /// No answer came in time; the service may have carried out the call.
    #[error("the service did not answer {request} within {limit:?}")]
    Timeout {
        /// Method and URL.
        request: String,
        /// How long was waited.
        limit: Duration,
    },
    /// The service refused.
    #[error("the service answered {request} with {status}{}{excerpt}", if excerpt.is_empty() { "" } else { ": " })]
    Status {
        /// Method and URL.
        request: String,
        /// The status of its answer, outside of 2xx.
        status: StatusCode,
        /// Its name for what is wrong, such as `BadRequest`, if it gave one.
        code: Option<String>,
        /// What it says about it: the message of its answer, or the whole answer in one line, as far as the first
        /// [`EXCERPT_BYTES_MAX`] bytes go.
        excerpt: String,
        /// How long it asks callers to wait, in whole seconds (RFC 9110, section 10.2.3).
        retry_after: Option<Duration>,
    },
    /// The answer has more than [`ANSWER_BYTES_MAX`] bytes.
    #[error("the answer to {request} has more than {ANSWER_BYTES_MAX} bytes")]
    AnswerTooLong {
        /// Method and URL.
        request: String,
    },
    /// The answer is not what the call asks for.
    #[error("the answer to {request} could not be read")]
    Malformed {
        /// Method and URL.
        request: String,
        /// Why.
        source: serde_json::Error,
    },
}

impl ServiceError {
    /// Returns the status by which the service refused.
    pub fn status(&self) -> Option<StatusCode> {
        if let Self::Status { status, .. } = self { Some(*status) } else { None }
    }

    /// Returns the service's name for what is wrong, such as `BadRequest`.
    pub fn code(&self) -> Option<&str> {
        if let Self::Status { code, .. } = self { code.as_deref() } else { None }
    }

    /// Returns what the service says about its refusal, if anything.
    pub fn message(&self) -> Option<&str> {
        if let Self::Status { excerpt, .. } = self {
            Some(excerpt).filter(|said| !said.is_empty()).map(String::as_str)
        } else {
            None
        }
    }

    /// Returns how long the service asks callers to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        if let Self::Status { retry_after, .. } = self { *retry_after } else { None }
    }

    /// Returns whether an argument was wrong, so that nothing was sent.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::Name(_)
            | Self::ReasonTooLong { .. }
            | Self::Metadata(_)
            | Self::Ttl
            | Self::Request { .. } => true,
            Self::Unreachable { .. }
            | Self::Interrupted { .. }
            | Self::Timeout { .. }
            | Self::Status { .. }
            | Self::AnswerTooLong { .. }
            | Self::Malformed { .. } => false,
        }
    }
}

type BoxError = Box<dyn StdError + Send + Sync>;

/// [`ServiceError`] before it knows its request.
enum Fault {
    Timeout,
    Unreachable(BoxError),
    Interrupted(BoxError),
    TooLong,
    Request(http::Error),
    Status(Refusal),
}

impl Fault {
    /// Returns the error that names `request`, which had `limit`.
    fn of(self, request: String, limit: Duration) -> ServiceError {
        match self {
            Self::Timeout => ServiceError::Timeout { request, limit },
            Self::Unreachable(source) => ServiceError::Unreachable { request, source },
            Self::Interrupted(source) => ServiceError::Interrupted { request, source },
            Self::TooLong => ServiceError::AnswerTooLong { request },
            Self::Request(source) => ServiceError::Request { source },
            Self::Status(Refusal { status, code, excerpt, retry_after }) => {
                ServiceError::Status { request, status, code, excerpt, retry_after }
            }
        }
    }
}

/// What an answer outside of 2xx says.
struct Refusal {
    status: StatusCode,
    code: Option<String>,
    excerpt: String,
    retry_after: Option<Duration>,
}

impl Refusal {
    fn new(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        /// The body of an error (Web PubSub protocol, "Error body").
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Body {
            code: String,
            message: String,
        }

        let read = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        let Body { code, message } = serde_json::from_slice(body).unwrap_or_default();
        // An answer to HEAD has its code in the header alone.
        let in_header = || read("x-ms-error-code").map(|code| code.trim_start_matches("Error."));
        let code = Some(code.as_str()).filter(|code| !code.is_empty()).or_else(in_header);
        let excerpt = if message.is_empty() {
            one_line(&String::from_utf8_lossy(body))
        } else {
            one_line(&message)
        };
        let retry_after = read("retry-after").and_then(|seconds| seconds.trim().parse().ok());
        Self {
            status,
            code: code.map(one_line),
            excerpt,
            retry_after: retry_after.map(Duration::from_secs),
        }
    }
}

/// Longest reason for closing a connection, in bytes: what a close frame holds (RFC 6455, section 5.5).
pub const REASON_BYTES_MAX: usize = 123;

/// Longest time that a message may wait for a receiver in recovery (limits and codes, "Names and messages").
pub const MESSAGE_TTL_MAX: Duration = Duration::from_secs(TTL_SECONDS_MAX as u64);

/// Most of an answer that is read, in bytes. Only the upstream settings are long.
pub const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Most of a refusal that is shown, in bytes.
pub const EXCERPT_BYTES_MAX: usize = 1_024;

/// How long an unused connection is kept: less than the 5 s after which Node's servers close theirs.
pub(crate) const IDLE_CONNECTION_MAX: Duration = Duration::from_secs(4);

/// Returns the start of a body. One that breaks off has no more to tell: the status stands.
pub(crate) async fn beginning(mut body: Incoming) -> Vec<u8> {
    let mut bytes = Vec::new();
    while bytes.len() < EXCERPT_BYTES_MAX
        && let Some(Ok(frame)) = body.frame().await
    {
        if let Ok(data) = frame.into_data() {
            bytes.extend_from_slice(&data);
        }
    }
    bytes.truncate(EXCERPT_BYTES_MAX);
    bytes
}

/// Returns a text without line breaks and control characters.
pub(crate) fn one_line(text: &str) -> String {
    text.split(|character: char| character.is_whitespace() || character.is_control())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(headers: &[(&'static str, &'static str)], body: &str) -> (Option<String>, String) {
        let pairs = headers
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
        let refusal = Refusal::new(StatusCode::BAD_REQUEST, &pairs.collect(), body.as_bytes());
        (refusal.code, refusal.excerpt)
    }

    #[test]
    fn a_refusal_has_the_service_s_code_and_message() {
        let said = |code: &str, message: &str| (Some(code.to_owned()), message.to_owned());
        let body = r#"{"code":"BadRequest","message":"a\nbad filter","target":"filter"}"#;
        assert_eq!(refusal(&[], body), said("BadRequest", "a bad filter"));
        let header = [("x-ms-error-code", "Error.NotFound")];
        assert_eq!(refusal(&header, ""), said("NotFound", ""));
        assert_eq!(refusal(&header, r#"{"code":"Other"}"#), said("Other", r#"{"code":"Other"}"#));
        assert_eq!(refusal(&[], "<p>\n no"), (None, "<p> no".to_owned()));
        assert_eq!(refusal(&[], "[1]"), (None, "[1]".to_owned()));
    }

    #[test]
    fn a_service_may_ask_to_wait() {
        for (value, expected) in [("7", Some(7)), ("Wed, 21 Oct 2015 07:28:00 GMT", None)] {
            let headers =
                HeaderMap::from_iter([(header::RETRY_AFTER, HeaderValue::from_static(value))]);
            let refusal = Refusal::new(StatusCode::TOO_MANY_REQUESTS, &headers, b"");
            assert_eq!(refusal.retry_after, expected.map(Duration::from_secs));
        }
    }
}
