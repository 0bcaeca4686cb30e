//! What a service of Azure Web PubSub tells an application, as HTTP requests, and what the application answers.
//!
//! A [`Webhook`] knows who may speak: it checks signature and hub, reads the event and answers the service's question whether events
//! are wanted here. It needs no framework: requests and answers are those of the `http` crate. With the feature `axum` a
//! [`CloudEvent`] is an extractor and answers are responses.
//!
//! ```
//! use hookwire_client::webhook::{Answer, ConnectAnswer, Event, EventAnswer, Refusal, Webhook};
//! use hookwire_client::{AccessKey, Permission};
//! # use hookwire_client::webhook::{CloudEvent, ConnectRequest};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let key = AccessKey::parse("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGH")?;
//! let webhook = Webhook::new([key.clone()]).hub("chat")?;
//! # let event = CloudEvent::new("chat", "connection-1", Event::Connect(ConnectRequest::default()));
//! # let request = event.to_request("http://localhost/eventhandler", &[key])?;
//!
//! // In whatever handles HTTP requests; POST and OPTIONS go here.
//! let response = webhook
//!     .handle(request, async |event| match event.event {
//!         Event::Connect(connect) if connect.query("name") == Some("root") => {
//!             Refusal::new(http::StatusCode::FORBIDDEN).message("not you").into()
//!         }
//!         Event::Connect(_) => ConnectAnswer::new()
//!             .user("ann")
//!             .may(Permission::JoinLeaveGroup)
//!             .group("readers")
//!             .into(),
//!         Event::User { payload, .. } => EventAnswer::new(payload).into(), // an echo
//!         _ => Answer::nothing(),
//!     })
//!     .await;
//! assert_eq!(response.status(), 200);
//! # Ok(())
//! # }
//! ```

mod answer;
#[cfg(feature = "axum")]
pub mod axum;
mod context;
mod event;
pub mod header;
mod request;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use hookwire_proto::name::{HubName, NameError};
use hookwire_proto::signature::AccessKey;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Body;

pub use self::answer::{Answer, ConnectAnswer, EventAnswer, Refusal};
pub use self::context::{CloudEventError, Context};
pub use self::event::{ClientCertificate, CloudEvent, ConnectRequest, Event};
pub use self::request::RequestError;
use crate::service_client::ServiceClient;

/// Who may post events, and of which hub. Cloning it is cheap.
#[derive(Clone, Debug)]
pub struct Webhook {
    keys: Arc<[AccessKey]>,
    is_open: bool,
    hub: Option<HubName>,
    origins: Option<HeaderValue>,
    body_bytes_max: usize,
    body_timeout: Duration,
}

impl Webhook {
    /// Takes events of any hub that are signed with one of the keys: the primary and, while keys are changed, the secondary one.
    pub fn new(keys: impl IntoIterator<Item = AccessKey>) -> Self {
        Self {
            keys: keys.into_iter().collect(),
            is_open: false,
            hub: None,
            origins: None,
            body_bytes_max: BODY_BYTES_MAX,
            body_timeout: BODY_TIMEOUT,
        }
    }

    /// Takes events of the client's hub that are signed with its key.
    pub fn of(service: &ServiceClient) -> Self {
        Self { hub: Some(service.hub().clone()), ..Self::new([service.access_key().clone()]) }
    }

    /// Takes events of anybody, for a network that keeps strangers out.
    #[must_use]
    pub fn without_signatures(self) -> Self {
        Self { is_open: true, ..self }
    }

    /// Takes events of one hub only.
    ///
    /// # Errors
    /// [`NameError`] when that can be no hub.
    pub fn hub(self, hub: &str) -> Result<Self, NameError> {
        Ok(Self { hub: Some(HubName::parse(hub)?), ..self })
    }

    /// Says which services may send events here, by host names such as `service.example`. Without it the answer is `*`: whoever asks
    /// may try, and has to sign each event.
    ///
    /// # Errors
    /// [`NotAHost`] names the one that is none.
    #[expect(clippy::missing_panics_doc, reason = "the one expectation holds for all arguments")]
    pub fn allow_origins<'a>(
        self,
        hosts: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, NotAHost> {
        let mut names = Vec::new();
        for host in hosts {
            match url::Url::parse(&format!("https://{host}/")) {
                Ok(url)
                    if url.path() == "/" && url.username().is_empty() && url.query().is_none() =>
                {
                    names.push(url.authority().to_owned());
                }
                _ => return Err(NotAHost { host: host.to_owned() }),
            }
        }
        let origins = HeaderValue::try_from(names.join(","))
            .expect("a host of a URL is printable ASCII (URL standard, host serializer)");
        Ok(Self { origins: Some(origins), ..self })
    }

    /// Sets the largest body that is read, in bytes. Default: [`BODY_BYTES_MAX`].
    #[must_use]
    pub fn body_bytes_max(self, body_bytes_max: usize) -> Self {
        Self { body_bytes_max, ..self }
    }

    /// Sets how long a body may take to come. Default: [`BODY_TIMEOUT`].
    #[must_use]
    pub fn body_timeout(self, body_timeout: Duration) -> Self {
        Self { body_timeout, ..self }
    }

    /// Answers a request: the service's question whether events are wanted here, or an event by what `handler` makes of it. What is
    /// neither is refused.
    pub async fn handle<B, F, A>(&self, request: Request<B>, handler: F) -> Response<Full<Bytes>>
    where
        B: Body<Error: Into<BoxError>>,
        F: FnOnce(CloudEvent) -> A,
        A: Future<Output = Answer>,
    {
        if request.method() == Method::OPTIONS {
            return self.validate(request.headers());
        }
        match self.read(request).await {
            Ok(event) => handler(event).await.into_response(),
            Err(error) => error.into_response(),
        }
    }

    /// Answers the service's question whether events are wanted here (Web PubSub protocol, "Abuse protection").
    pub fn validate(&self, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let mut response = Response::default();
        if headers.contains_key(header::REQUEST_ORIGIN) {
            let origins = self.origins.clone().unwrap_or(HeaderValue::from_static("*"));
            response.headers_mut().insert(header::ALLOWED_ORIGIN, origins);
        } else {
            *response.status_mut() = StatusCode::BAD_REQUEST;
        }
        response
    }

    /// Reads an event: its headers are checked before a byte of its body is taken.
    ///
    /// # Errors
    /// [`WebhookError`] when it is none that is taken here.
    pub async fn read<B>(&self, request: Request<B>) -> Result<CloudEvent, WebhookError>
    where
        B: Body<Error: Into<BoxError>>,
    {
        let (head, body) = request.into_parts();
        if head.method != Method::POST {
            return Err(WebhookError::Method);
        }
        let context = self.context(&head.headers)?;
        let reading = Limited::new(body, self.body_bytes_max).collect();
        let body = tokio::time::timeout(self.body_timeout, reading)
            .await
            .map_err(|_| WebhookError::BodyTimeout)?
            .map_err(|error| {
                if error.is::<LengthLimitError>() {
                    WebhookError::BodyTooLong { limit: self.body_bytes_max }
                } else {
                    WebhookError::BodyInterrupted
                }
            })?;
        Ok(context.read(body.to_bytes())?)
    }

    /// Reads an event whose body has been read already.
    ///
    /// # Errors
    /// [`WebhookError`] when it is none that is taken here.
    pub fn event(&self, headers: &HeaderMap, body: Bytes) -> Result<CloudEvent, WebhookError> {
        Ok(self.context(headers)?.read(body)?)
    }

    /// Reads and checks what an event's headers say, before its body is read.
    ///
    /// # Errors
    /// [`WebhookError`] when it is none that is taken here.
    pub fn context(&self, headers: &HeaderMap) -> Result<Context, WebhookError> {
        let context = Context::from_headers(headers)?;
        if !self.is_open && !context.is_signed_with(&self.keys) {
            return Err(WebhookError::NotSigned);
        }
        match &self.hub {
            Some(hub) if !hub.as_str().eq_ignore_ascii_case(&context.hub) => {
                Err(WebhookError::OtherHub)
            }
            _ => Ok(context),
        }
    }
}

/// A text is no host name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{host:?} is no host name")]
pub struct NotAHost {
    /// What was given.
    pub host: String,
}

/// Why a request is not taken. Its text may go to the caller.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WebhookError {
    /// Events are posted.
    #[error("events are sent by POST")]
    Method,
    /// It is no event.
    #[error(transparent)]
    Malformed(#[from] CloudEventError),
    /// There is no signature, or none of the keys made it.
    #[error("the request is not signed with the service's access key")]
    NotSigned,
    /// It is about another hub than this webhook's.
    #[error("this hub's events are not handled here")]
    OtherHub,
    /// Its body is longer than the webhook reads.
    #[error("the body has more than {limit} bytes")]
    BodyTooLong {
        /// The limit in bytes.
        limit: usize,
    },
    /// Its body did not come in time.
    #[error("the body did not come in time")]
    BodyTimeout,
    /// Its body broke off.
    #[error("the body broke off")]
    BodyInterrupted,
}

impl WebhookError {
    /// Returns the status to refuse the request with.
    pub fn status(&self) -> StatusCode {
        match self {
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Malformed(_) | Self::BodyInterrupted => StatusCode::BAD_REQUEST,
            Self::NotSigned => StatusCode::UNAUTHORIZED,
            Self::OtherHub => StatusCode::NOT_FOUND,
            Self::BodyTooLong { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
        }
    }

    /// Returns the refusal as an answer.
    pub fn into_response(self) -> Response<Full<Bytes>> {
        let mut response = Refusal::new(self.status()).message(self.to_string()).into_response();
        if self == Self::Method {
            let methods = HeaderValue::from_static("POST, OPTIONS");
            response.headers_mut().insert(http::header::ALLOW, methods);
        }
        response
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Largest body that is read, in bytes, if nothing else is said: a message of 1 MiB, or what a client's handshake may hold.
pub const BODY_BYTES_MAX: usize = 1 << 20;

/// How long a body may take to come, if nothing else is said.
pub const BODY_TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests;
