//! Events and answers in axum: a [`CloudEvent`] is an extractor, answers are responses.
//!
//! ```
//! use axum::Router;
//! use axum::routing::post;
//! use hookwire_client::AccessKey;
//! use hookwire_client::webhook::axum::validate;
//! use hookwire_client::webhook::{Answer, CloudEvent, ConnectAnswer, Event, EventAnswer, Webhook};
//!
//! async fn events(event: CloudEvent) -> Answer {
//!     match event.event {
//!         Event::Connect(_) => ConnectAnswer::new().user("ann").into(),
//!         Event::User { payload, .. } => EventAnswer::new(payload).into(),
//!         _ => Answer::nothing(),
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let key = AccessKey::parse("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGH")?;
//! let app: Router = Router::new()
//!     .route("/eventhandler", post(events).options(validate))
//!     .with_state(Webhook::new([key]).hub("chat")?);
//! # Ok(())
//! # }
//! ```

use axum::body::Body;
use axum::extract::{FromRef, FromRequest, Request, State};
use axum::response::{IntoResponse, Response};
use http::HeaderMap;

use super::{Answer, CloudEvent, ConnectAnswer, EventAnswer, Refusal, Webhook, WebhookError};

/// Reads an event that the state's [`Webhook`] takes; others are refused.
impl<S> FromRequest<S> for CloudEvent
where
    S: Send + Sync,
    Webhook: FromRef<S>,
{
    type Rejection = WebhookError;

    async fn from_request(request: Request, state: &S) -> Result<Self, Self::Rejection> {
        Webhook::from_ref(state).read(request).await
    }
}

/// Answers the service's question whether events are wanted here, by the state's [`Webhook`].
#[expect(clippy::unused_async, reason = "axum's handlers are asynchronous")]
pub async fn validate(State(webhook): State<Webhook>, headers: HeaderMap) -> Response {
    webhook.validate(&headers).map(Body::new)
}

impl IntoResponse for WebhookError {
    fn into_response(self) -> Response {
        Self::into_response(self).map(Body::new)
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        Self::into_response(self).map(Body::new)
    }
}

impl IntoResponse for ConnectAnswer {
    fn into_response(self) -> Response {
        Self::into_response(self).map(Body::new)
    }
}

impl IntoResponse for EventAnswer {
    fn into_response(self) -> Response {
        Self::into_response(self).map(Body::new)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        Self::into_response(self).map(Body::new)
    }
}
