//! The events of the 2020 preview: one function for each, told by headers.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use hookwire_client::{Event, EventError, EventName, Service, header};
use http::header::{CONTENT_TYPE, SEC_WEBSOCKET_PROTOCOL};
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::functions::{Asked, Functions, refused, who};
use crate::refusal::{Code, Refusal};
use crate::wire::SUBPROTOCOL;

pub(super) fn routes(service: Service, functions: Arc<Functions>) -> Router {
    Router::new()
        .route("/api/connect", post(connect))
        .route("/api/message", post(message))
        .route("/api/disconnect", post(disconnect))
        .with_state(Arc::new(Door { service, functions }))
}

/// Whom the service calls, and how it is known to be the service.
#[derive(Debug)]
struct Door {
    service: Service,
    functions: Arc<Functions>,
}

/// A client wants to connect: says who it is, or why it may not.
async fn connect(State(door): State<Arc<Door>>, headers: HeaderMap) -> Response {
    let event = match door.read(&headers, EventName::Connect) {
        Ok(event) => event,
        Err(response) => return *response,
    };
    tracing::debug!(connection = event.connection_id, "a client connects");
    let said = event.query.get("name");
    let user = match who(event.user.as_deref(), &headers, said) {
        Ok(user) => user,
        Err(refusal) => return refused(StatusCode::UNAUTHORIZED, &refusal),
    };
    let mut response = StatusCode::OK.into_response();
    let answered = response.headers_mut();
    let user = HeaderValue::from_bytes(user.as_str().as_bytes()).expect(
        "a name has no control characters, and a header holds all others (RFC 9110, section 5.5)",
    );
    answered.insert(header::USER_ID, user);
    if event.subprotocols.iter().any(|offered| offered == SUBPROTOCOL) {
        answered.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    }
    response
}

/// A client sent a frame: carries out what it asks for and answers it.
async fn message(State(door): State<Arc<Door>>, headers: HeaderMap, body: Body) -> Response {
    let event = match door.read(&headers, EventName::Message) {
        Ok(event) => event,
        Err(response) => return *response,
    };
    let binary = headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/octet-stream"));
    let asked =
        Asked { connection: &event.connection_id, user: event.user.as_deref(), mark: None, binary };
    door.functions.message(asked, body).await
}

/// A connection is gone.
async fn disconnect(State(door): State<Arc<Door>>, headers: HeaderMap) -> Response {
    let event = match door.read(&headers, EventName::Disconnect) {
        Ok(event) => event,
        Err(response) => return *response,
    };
    door.functions.disconnected(&event.connection_id, event.user.as_deref());
    StatusCode::OK.into_response()
}

impl Door {
    /// Reads what the service tells about a connection, and checks that it is the service who tells it.
    fn read(&self, headers: &HeaderMap, expected: EventName) -> Result<Event, Box<Response>> {
        let event = if self.functions.verify_signature {
            self.service.event(headers)
        } else {
            Event::from_headers(headers)
        };
        let faulty =
            |status, text: String| Box::new(refused(status, &Refusal::new(Code::Invalid, text)));
        match event {
            Ok(event) if event.event != expected => {
                Err(faulty(StatusCode::BAD_REQUEST, "This function is for another event.".into()))
            }
            Ok(event) if !event.hub.eq_ignore_ascii_case(self.service.hub().as_str()) => {
                Err(faulty(
                    StatusCode::NOT_FOUND,
                    format!("This is the chat of the hub {}.", self.service.hub().as_str()),
                ))
            }
            Ok(event) => Ok(event),
            Err(error) => {
                tracing::debug!(%error, "a call was refused");
                let status = if error == EventError::NotSigned {
                    StatusCode::UNAUTHORIZED
                } else {
                    StatusCode::BAD_REQUEST
                };
                Err(faulty(status, format!("The call is refused: {error}.")))
            }
        }
    }
}
