//! One HTTP request to the service and its answer, with limits.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use hookwire_proto::name::NameError;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};

/// Pooled connections to services. Clones share the pool.
#[derive(Clone, Debug)]
pub(super) struct Transport(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Transport {
    /// Prepares; opens nothing.
    pub(super) fn new(connect_timeout: Duration) -> Result<Self, rustls::Error> {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(connect_timeout));
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_webpki_roots(rustls::crypto::aws_lc_rs::default_provider())?
            .https_or_http()
            .enable_http1()
            .wrap_connector(tcp);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(IDLE_CONNECTION_MAX)
            .build(connector);
        Ok(Self(client))
    }

    /// Sends a call and returns the body of an answer with a 2xx status.
    pub(super) async fn perform(
        &self,
        call: Call,
        token: Option<String>,
        limit: Duration,
    ) -> Result<Bytes, ServiceError> {
        let request = call.to_string();
        let exchange = self.exchange(call, token);
        tokio::time::timeout(limit, exchange).await.unwrap_or(Err(Fault::Timeout)).map_err(
            |fault| match fault {
                Fault::Timeout => ServiceError::Timeout { request, limit },
                Fault::Unreachable(source) => ServiceError::Unreachable { request, source },
                Fault::Interrupted(source) => ServiceError::Interrupted { request, source },
                Fault::TooLong => ServiceError::AnswerTooLong { request },
                Fault::Status(status, excerpt) => ServiceError::Status { request, status, excerpt },
            },
        )
    }

    async fn exchange(&self, call: Call, token: Option<String>) -> Result<Bytes, Fault> {
        let url = match call.query {
            Some(query) => format!("{}?{query}", call.url),
            None => call.url,
        };
        let mut request = Request::builder().method(call.method).uri(url);
        if let Some(token) = token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        let (content_type, body) = call.body.unzip();
        if let Some(content_type) = content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let request = request
            .body(Full::new(body.unwrap_or_default()))
            .map_err(|error| Fault::Interrupted(error.into()))?;

        let response = self.0.request(request).await.map_err(|error| {
            if error.is_connect() {
                Fault::Unreachable(error.into())
            } else {
                Fault::Interrupted(error.into())
            }
        })?;
        let status = response.status();
        if status.is_success() {
            return Limited::new(response.into_body(), ANSWER_BYTES_MAX)
                .collect()
                .await
                .map(http_body_util::Collected::to_bytes)
                .map_err(|error| {
                    if error.is::<LengthLimitError>() {
                        Fault::TooLong
                    } else {
                        Fault::Interrupted(error)
                    }
                });
        }
        Err(Fault::Status(status, excerpt(response.into_body()).await))
    }
}

/// A request about to be made.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) method: Method,
    /// Where to, without a query.
    pub(super) url: String,
    /// What the token names after the service's base.
    pub(super) audience: String,
    /// Encoded, without `?`.
    pub(super) query: Option<String>,
    /// Content type and content.
    pub(super) body: Option<(&'static str, Bytes)>,
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
    #[error("the reason has {bytes} bytes, at most {} are allowed", super::REASON_BYTES_MAX)]
    ReasonTooLong {
        /// Its length.
        bytes: usize,
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
        /// Its answer in one line, as far as the first [`EXCERPT_BYTES_MAX`] bytes go.
        excerpt: String,
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

type BoxError = Box<dyn StdError + Send + Sync>;

/// [`ServiceError`] before it knows its request.
enum Fault {
    Timeout,
    Unreachable(BoxError),
    Interrupted(BoxError),
    TooLong,
    Status(StatusCode, String),
}

/// Most of an answer that is read, in bytes. Only the upstream settings are long.
pub const ANSWER_BYTES_MAX: usize = 4 << 20;

/// Most of a refusal that is shown, in bytes.
pub const EXCERPT_BYTES_MAX: usize = 1_024;

/// How long an unused connection is kept: less than the 5 s after which Node's servers close theirs.
const IDLE_CONNECTION_MAX: Duration = Duration::from_secs(4);

/// Returns the start of a body as one line. A body that breaks off has no more to tell: the status stands.
async fn excerpt(mut body: Incoming) -> String {
    let mut bytes = Vec::new();
    while bytes.len() < EXCERPT_BYTES_MAX
        && let Some(Ok(frame)) = body.frame().await
    {
        if let Ok(data) = frame.into_data() {
            bytes.extend_from_slice(&data);
        }
    }
    bytes.truncate(EXCERPT_BYTES_MAX);
    let text = String::from_utf8_lossy(&bytes);
    text.split(|character: char| character.is_whitespace() || character.is_control())
        .filter(|word| !word.is_empty())
        .collect::<Vec<_>>()
        .join(" ")
}
