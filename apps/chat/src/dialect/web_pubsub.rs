//! The events of Web PubSub: `CloudEvents`, all posted to one function (Web PubSub protocol, "Upstream").

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use hookwire_client::ServiceClient;
use hookwire_client::webhook::{
    ConnectAnswer, ConnectRequest, Context, Event, Webhook, WebhookError, header,
};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::chat::Memberships;
use crate::functions::{Asked, Functions, refused, who};
use crate::name::UserName;
use crate::refusal::{Chain, Code, Refusal};
use crate::wire::SUBPROTOCOL;

pub(super) fn routes(service: &ServiceClient, functions: Arc<Functions>) -> Router {
    let webhook = Webhook::of(service);
    let webhook = if functions.verify_signature { webhook } else { webhook.without_signatures() };
    Router::new()
        .route("/api/eventhandler", post(event).options(validate))
        .with_state(Arc::new(Door { webhook, functions }))
}

/// Whom the service calls, and how it is known to be the service.
#[derive(Debug)]
struct Door {
    webhook: Webhook,
    functions: Arc<Functions>,
}

/// The service asks whether its events are wanted here. They are, whoever asks: each of them proves who sent it.
async fn validate(State(door): State<Arc<Door>>, headers: HeaderMap) -> Response {
    door.webhook.validate(&headers).map(Body::new)
}

async fn event(State(door): State<Arc<Door>>, headers: HeaderMap, body: Body) -> Response {
    let context = match door.webhook.context(&headers) {
        Ok(context) => context,
        Err(error) => return not_taken(&error),
    };
    // Its body is read where a message that is too large gets a frame for an answer.
    if headers.get(header::TYPE).is_some_and(|kind| kind == MESSAGE) {
        return door.message(&context, &headers, body).await;
    }
    let reading = tokio::time::timeout(BODY_TIME_MAX, to_bytes(body, BODY_BYTES_MAX));
    let body = match reading.await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return not_taken(&WebhookError::BodyTooLong { limit: BODY_BYTES_MAX }),
        Err(_) => return not_taken(&WebhookError::BodyTimeout),
    };
    let event = match context.read(body) {
        Ok(event) => event,
        Err(error) => return not_taken(&error.into()),
    };
    let Context { connection_id, user, .. } = &event.context;
    match &event.event {
        Event::Connect(request) => {
            tracing::debug!(connection = connection_id, "a client connects");
            door.connect(user.as_deref(), request, &headers).await
        }
        Event::Disconnected { .. } => {
            door.functions.disconnected(connection_id, user.as_deref());
            StatusCode::NO_CONTENT.into_response()
        }
        Event::User { .. } => {
            let text = "The chat has the user event “message” only.";
            refused(StatusCode::NOT_FOUND, &Refusal::new(Code::NotFound, text))
        }
        Event::Connected | Event::Joined { .. } | Event::Left { .. } | Event::Other(_) => {
            StatusCode::NO_CONTENT.into_response()
        }
    }
}

impl Door {
    /// A client wants to connect: says who it is and what it gets, or why it may not.
    async fn connect(
        &self,
        user: Option<&str>,
        request: &ConnectRequest,
        headers: &HeaderMap,
    ) -> Response {
        let user = match who(user, headers, request.query("name")) {
            Ok(user) => user,
            Err(refusal) => return refused(StatusCode::UNAUTHORIZED, &refusal),
        };
        let memberships = self.memberships(&user).await;
        let mark = HeaderValue::from_str(&memberships.mark()).expect("a mark is hexadecimal");
        let answer = ConnectAnswer::new().user(user.as_str()).state(mark);
        let answer = memberships.groups().fold(answer, ConnectAnswer::group);
        let answer =
            if request.offers(SUBPROTOCOL) { answer.subprotocol(SUBPROTOCOL) } else { answer };
        answer.into_response().map(Body::new)
    }

    /// A client sent a frame: carries out what it asks for and answers it.
    async fn message(&self, context: &Context, headers: &HeaderMap, body: Body) -> Response {
        let kind = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        let is_text = kind.starts_with(b"text/plain") || kind.starts_with(b"application/json");
        let asked = Asked {
            connection: &context.connection_id,
            user: context.user.as_deref(),
            mark: context.state.as_deref(),
            binary: !is_text,
        };
        self.functions.message(asked, body).await
    }

    /// Returns the groups of a user, or none if they cannot be read in time: who says hello gets into them as well.
    async fn memberships(&self, user: &UserName) -> Memberships {
        let reading = self.functions.chat.memberships(user);
        match tokio::time::timeout(MEMBERSHIPS_TIME_MAX, reading).await {
            Ok(Ok(memberships)) => memberships,
            Ok(Err(refusal)) => {
                let cause = refusal.cause.as_deref().map(|cause| Chain(cause).to_string());
                tracing::warn!(?refusal, cause, "somebody connects without their groups");
                Memberships::default()
            }
            Err(_) => {
                tracing::warn!("somebody connects without their groups, which took too long");
                Memberships::default()
            }
        }
    }
}

fn not_taken(error: &WebhookError) -> Response {
    tracing::debug!(%error, "a call was refused");
    let text = format!("The call is refused: {error}.");
    refused(error.status(), &Refusal::new(Code::Invalid, text))
}

/// The type of a message of a simple client.
const MESSAGE: &str = "azure.webpubsub.user.message";

/// Largest body of any other event, in bytes: query, headers and claims of a client, and room for escapes.
const BODY_BYTES_MAX: usize = 512 << 10;

/// Longest time that it takes to come.
const BODY_TIME_MAX: Duration = Duration::from_secs(5);

/// Longest time that is spent on a user's groups, well below the 30 s that Hookwire waits.
const MEMBERSHIPS_TIME_MAX: Duration = Duration::from_secs(10);
