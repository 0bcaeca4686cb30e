//! What a caller may know of an error, apart from what the log needs.

use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

use crate::shards::{NoAnswer, Overloaded};
use crate::store::StoreError;

/// Every answer of the HTTP side.
pub(crate) type Answer = Response<Full<Bytes>>;

/// An error as the caller sees it. One word, since every answer passes where it could have been.
#[derive(Debug)]
pub(crate) struct ApiError(Box<Fault>);

#[derive(Debug)]
struct Fault {
    status: StatusCode,
    code: &'static str,
    message: String,
    /// The parameter that is at fault.
    target: Option<&'static str>,
    /// A header that the status demands.
    header: Option<(header::HeaderName, HeaderValue)>,
    /// Told as Web PubSub tells errors.
    for_web_pubsub: bool,
    /// What the event log says instead of the status's own word and the message.
    told: Option<(&'static str, String)>,
}

/// Why a request was refused, for the event log: an extension of the answer, which no caller sees.
#[derive(Debug, Clone)]
pub(crate) struct Refusal {
    /// A word for programs.
    pub(crate) verdict: &'static str,
    /// A sentence for people. It may say more than the caller was told.
    pub(crate) reason: String,
}

impl ApiError {
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        let message = message.into();
        let (target, header, for_web_pubsub, told) = (None, None, false, None);
        Self(Box::new(Fault { status, code, message, target, header, for_web_pubsub, told }))
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "BadRequest", message)
    }

    pub(crate) fn not_found(message: &str) -> Self {
        Self::new(StatusCode::NOT_FOUND, "NotFound", message)
    }

    pub(crate) fn unauthorized(message: impl Into<String>) -> Self {
        let error = Self::new(StatusCode::UNAUTHORIZED, "Unauthorized", message);
        error.with(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
    }

    pub(crate) fn method_not_allowed(allowed: &'static str) -> Self {
        let message = format!("this path takes {allowed}");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "MethodNotAllowed", message)
            .with(header::ALLOW, HeaderValue::from_static(allowed))
    }

    pub(crate) fn shutting_down() -> Self {
        let message = "the service is shutting down";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "ShuttingDown", message)
            .with(header::CONNECTION, HeaderValue::from_static("close"))
    }

    /// A fault of ours, whose task has written it to the log.
    pub(crate) fn failed() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "Failed", "the service failed at this")
    }

    pub(crate) fn busy(message: &str) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests", message)
            .with(header::RETRY_AFTER, HeaderValue::from_static("1"))
    }

    /// Returns the status.
    pub(crate) fn status(&self) -> StatusCode {
        self.0.status
    }

    pub(crate) fn with(mut self, name: header::HeaderName, value: HeaderValue) -> Self {
        self.0.header = Some((name, value));
        self
    }

    /// Gives the event log a word and a sentence of its own.
    pub(crate) fn told_as(mut self, verdict: &'static str, reason: impl Into<String>) -> Self {
        self.0.told = Some((verdict, reason.into()));
        self
    }

    /// Names the parameter that is at fault.
    pub(crate) fn about(mut self, parameter: &'static str) -> Self {
        self.0.target = Some(parameter);
        self
    }

    /// Tells the error as Web PubSub does: with the code in a header too (Web PubSub protocol, "Error body").
    pub(crate) fn for_web_pubsub(mut self) -> Self {
        self.0.for_web_pubsub = true;
        self
    }

    pub(crate) fn into_answer(self) -> Answer {
        let Fault { status, code, message, target, header, for_web_pubsub, told } = *self.0;
        let mut body = serde_json::json!({ "code": code, "message": message });
        if let Some(target) = target {
            body["target"] = target.into();
        }
        let mut answer = Response::new(Full::from(body.to_string()));
        *answer.status_mut() = status;
        answer
            .headers_mut()
            .insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some((name, value)) = header {
            answer.headers_mut().insert(name, value);
        }
        if for_web_pubsub {
            let code = HeaderValue::from_str(&format!("Error.{code}")).expect("codes are words");
            answer.headers_mut().insert("x-ms-error-code", code);
        }
        let (verdict, reason) = told.unwrap_or_else(|| (verdict(status), message));
        answer.extensions_mut().insert(Refusal { verdict, reason });
        answer
    }
}

/// Returns the event log's word for a refusal of which nothing else is known.
fn verdict(status: StatusCode) -> &'static str {
    match status.as_u16() {
        400 | 414 | 426 => "bad_request",
        401 => "unauthorized",
        403 => "forbidden",
        404 | 405 => "not_found",
        409 => "too_many",
        413 => "too_large",
        415 => "unsupported_type",
        429 => "busy",
        503 => "unavailable",
        _ => "failed",
    }
}

impl From<Overloaded> for ApiError {
    fn from(error: Overloaded) -> Self {
        Self::busy(&error.to_string())
    }
}

impl From<NoAnswer> for ApiError {
    fn from(error: NoAnswer) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "NoAnswer", error.to_string())
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        if matches!(error, StoreError::Full) {
            return Self::new(StatusCode::CONFLICT, "TooMany", error.to_string());
        }
        tracing::error!(error = &error as &dyn std::error::Error, "the store failed");
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "StoreFailed",
            "the change could not be stored",
        )
    }
}
