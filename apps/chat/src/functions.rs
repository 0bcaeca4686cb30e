//! The five functions: what a browser gets (`index`, `endpoint`), and what Hookwire calls (`connect`, `message`, `disconnect`).

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use hookwire_client::{
    ClientEndpointOptions, Event, EventError, EventName, NameError, Query, Service, header,
};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, SEC_WEBSOCKET_PROTOCOL};
use serde::Serialize;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::chat::Chat;
use crate::name::UserName;
use crate::pages::{Pages, plain};
use crate::refusal::{Chain, Code, Refusal};
use crate::wire::{AnswerFrame, Request, SUBPROTOCOL};

/// What the functions work with.
#[derive(Debug)]
pub(crate) struct Functions {
    pub(crate) chat: Chat,
    /// Checks who calls.
    pub(crate) service: Service,
    /// The service by the name that browsers know it by.
    pub(crate) public: Service,
    pub(crate) pages: Pages,
    pub(crate) verify_signature: bool,
    pub(crate) always_with_token: bool,
    /// Messages that are being handled.
    pub(crate) handling: Semaphore,
}

/// Returns the routes of the functions.
pub(crate) fn router(functions: Arc<Functions>) -> Router {
    Router::new()
        .route("/", get(root))
        .route("/api/index", get(index))
        .route("/api/endpoint", get(endpoint))
        .route("/api/connect", post(connect))
        .route("/api/message", post(message))
        .route("/api/disconnect", post(disconnect))
        .route("/assets/{*path}", get(asset))
        .fallback(async || plain(StatusCode::NOT_FOUND, "There is no such function.\n"))
        .with_state(functions)
}

async fn root(RawQuery(query): RawQuery) -> Redirect {
    match query {
        Some(query) => Redirect::temporary(&format!("/api/index?{query}")),
        None => Redirect::temporary("/api/index"),
    }
}

async fn index(State(functions): State<Arc<Functions>>, headers: HeaderMap) -> Response {
    functions.pages.index(&headers)
}

async fn asset(
    State(functions): State<Arc<Functions>>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Response {
    functions.pages.asset(&path, &headers)
}

/// Says where the WebSocket is. The URL carries a token when the caller or the configuration asks for it, and when the platform in
/// front says who the caller is: then the token says it too.
async fn endpoint(
    State(functions): State<Arc<Functions>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Response {
    let query = Query::parse(query.as_deref().unwrap_or_default());
    let user = match principal(&headers).transpose() {
        Ok(user) => user,
        Err(refusal) => return refused(StatusCode::UNAUTHORIZED, &refusal),
    };
    let wanted = functions.always_with_token || query.get("token") == Some("1") || user.is_some();
    let url: Result<_, NameError> = if wanted {
        let user = user.map(|user| user.to_string());
        functions.public.client_endpoint(&ClientEndpointOptions {
            user,
            lifetime: TOKEN_LIFETIME,
            ..ClientEndpointOptions::default()
        })
    } else {
        Ok(functions.public.anonymous_client_endpoint(None))
    };
    match url {
        Ok(url) => {
            json_answer(StatusCode::OK, &json!({ "url": url.as_str(), "subprotocol": SUBPROTOCOL }))
        }
        Err(error) => {
            refused(StatusCode::UNAUTHORIZED, &Refusal::new(Code::Invalid, error.to_string()))
        }
    }
}

/// A client wants to connect: says who it is, or why it may not.
async fn connect(State(functions): State<Arc<Functions>>, headers: HeaderMap) -> Response {
    let event = match functions.event(&headers, EventName::Connect) {
        Ok(event) => event,
        Err(response) => return *response,
    };
    let user = match who(&event, &headers) {
        Ok(user) => user,
        Err(refusal) => return refused(StatusCode::UNAUTHORIZED, &refusal),
    };
    tracing::debug!(connection = event.connection_id, "a client connects");
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
async fn message(
    State(functions): State<Arc<Functions>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let event = match functions.event(&headers, EventName::Message) {
        Ok(event) => event,
        Err(response) => return *response,
    };
    let refusal = |re, code, text: &str| frame(re, &Err(Refusal::new(code, text)));
    let reading = tokio::time::timeout(BODY_TIME_MAX, to_bytes(body, BODY_BYTES_MAX));
    let body = match reading.await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return refusal(0, Code::TooLarge, TOO_LARGE),
        Err(_) => return plain(StatusCode::REQUEST_TIMEOUT, "The body did not come in time.\n"),
    };
    let binary = headers
        .get(CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/octet-stream"));
    if binary {
        return refusal(0, Code::Invalid, "The chat understands text messages only.");
    }
    let Request { re, operation } = Request::parse(&body);
    let Some(user) = event.user.as_deref().and_then(|user| UserName::parse(user).ok()) else {
        return refusal(re, Code::Forbidden, "The connection belongs to nobody.");
    };
    let Ok(_handling) = functions.handling.try_acquire() else {
        return refusal(re, Code::Unavailable, "The chat is too busy. Try again.");
    };
    let answer = match operation {
        Ok(operation) => {
            let carrying_out = functions.chat.carry_out(&user, operation, SystemTime::now());
            tokio::time::timeout(OPERATION_TIME_MAX, carrying_out).await.unwrap_or_else(|_| {
                Err(Refusal::new(Code::Unavailable, "This took too long. It may have been done."))
            })
        }
        Err(refusal) => Err(refusal),
    };
    frame(re, &answer)
}

/// A connection is gone.
async fn disconnect(State(functions): State<Arc<Functions>>, headers: HeaderMap) -> Response {
    let event = match functions.event(&headers, EventName::Disconnect) {
        Ok(event) => event,
        Err(response) => return *response,
    };
    tracing::debug!(connection = event.connection_id, "a client is gone");
    if let Some(user) = event.user.as_deref().and_then(|user| UserName::parse(user).ok()) {
        functions.chat.disconnected(&user);
    }
    StatusCode::OK.into_response()
}

impl Functions {
    /// Reads what Hookwire tells about a connection, and checks that it is Hookwire who tells it.
    fn event(&self, headers: &HeaderMap, expected: EventName) -> Result<Event, Box<Response>> {
        let event = if self.verify_signature {
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

/// Returns who connects: the user of the token, else whom the platform names, else the name in the query.
fn who(event: &Event, headers: &HeaderMap) -> Result<UserName, Refusal> {
    if let Some(user) = &event.user {
        return UserName::parse(user);
    }
    if let Some(user) = principal(headers) {
        return user;
    }
    match event.query.get("name") {
        Some(name) => UserName::parse(name),
        None => Err(Refusal::new(Code::Invalid, "Say who you are: add ?name=… to the URL.")),
    }
}

/// Returns whom an authenticating proxy names, such as the one of Azure App Service.
fn principal(headers: &HeaderMap) -> Option<Result<UserName, Refusal>> {
    let value = headers.get(PRINCIPAL_NAME)?;
    Some(match std::str::from_utf8(value.as_bytes()) {
        Ok(name) => UserName::parse(name),
        Err(_) => Err(Refusal::new(Code::Invalid, format!("{PRINCIPAL_NAME} is not UTF-8."))),
    })
}

/// Returns the frame that answers a request. Hookwire delivers it to the connection that asked, whatever it says.
fn frame(re: u64, answer: &Result<crate::wire::Answer, Refusal>) -> Response {
    let frame = match answer {
        Ok(answer) => AnswerFrame::Ok { re, answer },
        Err(refusal) => {
            if let Some(cause) = &refusal.cause {
                tracing::warn!(?refusal, error = %Chain(cause), "a request failed");
            } else {
                tracing::debug!(code = ?refusal.code, "a request was refused");
            }
            AnswerFrame::Error { re, code: refusal.code, message: &refusal.message }
        }
    };
    json_answer(StatusCode::OK, &frame)
}

fn refused(status: StatusCode, refusal: &Refusal) -> Response {
    json_answer(status, &json!({ "code": refusal.code, "message": refusal.message }))
}

fn json_answer(status: StatusCode, value: &impl Serialize) -> Response {
    let bytes =
        serde_json::to_vec(value).expect("texts, numbers and lists of them can be written as JSON");
    let mut response = Response::new(Body::from(bytes));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The header by which Azure App Service names an authenticated user.
const PRINCIPAL_NAME: HeaderName = HeaderName::from_static("x-ms-client-principal-name");

/// Messages that are handled at a time. One more is answered with `unavailable`.
pub(crate) const MESSAGES_HANDLED_MAX: usize = 256;

/// Largest body of a message, in bytes. The longest text in its longest JSON spelling is well below.
pub(crate) const BODY_BYTES_MAX: usize = 128 << 10;

/// Longest time that a body takes to come.
const BODY_TIME_MAX: Duration = Duration::from_secs(15);

/// Longest time of an operation, below the 60 s that Hookwire waits for an answer.
const OPERATION_TIME_MAX: Duration = Duration::from_secs(50);

/// How long the URL of `endpoint` can be used.
const TOKEN_LIFETIME: Duration = Duration::from_hours(1);

const TOO_LARGE: &str = "The message is too large.";

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;
    use tower::Service as _;

    use super::*;
    use crate::store::Random;

    #[tokio::test]
    async fn one_message_too_many_is_told_to_try_again() {
        let line =
            "Endpoint=http://127.0.0.1;Port=1;AccessKey=ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789;";
        let service = Service::new(line, "chat").unwrap();
        let functions = Functions {
            chat: Chat::new(Arc::new(InMemory::new()), service.clone(), &Random::new(|| 4)),
            pages: Pages::new(service.endpoint()),
            public: service.clone(),
            service,
            verify_signature: false,
            always_with_token: false,
            handling: Semaphore::new(0),
        };
        let request = http::Request::post("/api/message")
            .header("x-asrs-connection-id", "1")
            .header("x-asrs-hub", "chat")
            .header("x-asrs-event", "message")
            .header("x-asrs-user-id", "ann")
            .body(Body::from(r#"{"re":8,"op":"hello"}"#))
            .unwrap();
        let answer = router(Arc::new(functions)).call(request).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let body = to_bytes(answer.into_body(), 1_000).await.unwrap();
        let answer: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!((&answer["re"], &answer["code"]), (&json!(8), &json!("unavailable")));
    }
}
