//! The functions: what a browser gets (`index`, `endpoint`), and what is done when Hookwire calls, in whichever dialect.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::response::{Redirect, Response};
use axum::routing::get;
use hookwire_client::Query;
use hookwire_pages::Pages;
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use serde::Serialize;
use serde_json::json;
use tokio::sync::Semaphore;

use crate::attachments;
use crate::chat::{Caller, Chat};
use crate::dialect::Hub;
use crate::name::UserName;
use crate::refusal::{Chain, Code, Refusal};
use crate::wire::{AnswerFrame, Request, SUBPROTOCOL};

/// What the functions work with.
#[derive(Debug)]
pub(crate) struct Functions {
    pub(crate) chat: Chat,
    /// The hub whose events are taken.
    pub(crate) hub: Hub,
    /// The same hub by the name that browsers know its service by.
    pub(crate) public: Hub,
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
        .route("/assets/{*path}", get(asset))
        .route(attachments::PATH, get(attachment).post(attach))
        .with_state(Arc::clone(&functions))
        .merge(functions.hub.clone().routes(functions))
        .fallback(async || plain(StatusCode::NOT_FOUND, "There is no such function.\n"))
}

/// Returns an answer for people at a terminal.
fn plain(status: StatusCode, text: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

async fn root(RawQuery(query): RawQuery) -> Redirect {
    match query {
        Some(query) => Redirect::temporary(&format!("/api/index?{query}")),
        None => Redirect::temporary("/api/index"),
    }
}

async fn index(State(functions): State<Arc<Functions>>, headers: HeaderMap) -> Response {
    functions.pages.index(&headers).map(Body::from)
}

async fn asset(
    State(functions): State<Arc<Functions>>,
    Path(path): Path<String>,
    headers: HeaderMap,
) -> Response {
    functions.pages.file(&format!("assets/{path}"), &headers).map(Body::from)
}

async fn attachment(
    State(functions): State<Arc<Functions>>,
    RawQuery(query): RawQuery,
) -> Response {
    let query = Query::parse(query.as_deref().unwrap_or_default());
    functions.chat.give_attachment(query.get("ticket").unwrap_or_default()).await
}

async fn attach(
    State(functions): State<Arc<Functions>>,
    RawQuery(query): RawQuery,
    body: Body,
) -> Response {
    let query = Query::parse(query.as_deref().unwrap_or_default());
    functions.chat.take_attachment(query.get("ticket").unwrap_or_default(), body).await
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
    let url = if wanted {
        functions.public.client_url(user.as_ref(), TOKEN_LIFETIME)
    } else {
        Ok(functions.public.anonymous_client_url())
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

/// A message that a client sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked<'a> {
    pub(crate) connection: &'a str,
    /// Whose connection it is.
    pub(crate) user: Option<&'a str>,
    /// The [`Caller::mark`].
    pub(crate) mark: Option<&'a str>,
    pub(crate) binary: bool,
}

impl Functions {
    /// A client sent a frame: carries out what it asks for. Returns the answer, whose body is the frame that answers.
    pub(crate) async fn message(&self, asked: Asked<'_>, body: Body) -> Response {
        let refusal = |re, code, text: &str| frame(re, &Err(Refusal::new(code, text)));
        let reading = tokio::time::timeout(BODY_TIME_MAX, to_bytes(body, BODY_BYTES_MAX));
        let body = match reading.await {
            Ok(Ok(body)) => body,
            Ok(Err(_)) => return refusal(0, Code::TooLarge, TOO_LARGE),
            Err(_) => {
                return plain(StatusCode::REQUEST_TIMEOUT, "The body did not come in time.\n");
            }
        };
        if asked.binary {
            return refusal(0, Code::Invalid, "The chat understands text messages only.");
        }
        let Request { re, operation } = Request::parse(&body);
        let Some(user) = asked.user.and_then(|user| UserName::parse(user).ok()) else {
            return refusal(re, Code::Forbidden, "The connection belongs to nobody.");
        };
        let caller = Caller {
            user,
            connection: asked.connection.to_owned(),
            mark: asked.mark.map(str::to_owned),
        };
        let Ok(_handling) = self.handling.try_acquire() else {
            return refusal(re, Code::Unavailable, "The chat is too busy. Try again.");
        };
        let answer = match operation {
            Ok(operation) => {
                let carrying_out = self.chat.carry_out(&caller, operation, SystemTime::now());
                tokio::time::timeout(OPERATION_TIME_MAX, carrying_out).await.unwrap_or_else(|_| {
                    let text = "This took too long. It may have been done.";
                    Err(Refusal::new(Code::Unavailable, text))
                })
            }
            Err(refusal) => Err(refusal),
        };
        frame(re, &answer)
    }

    /// A connection is gone.
    pub(crate) fn disconnected(&self, connection: &str, user: Option<&str>) {
        tracing::debug!(connection, "a client is gone");
        if let Some(user) = user.and_then(|user| UserName::parse(user).ok()) {
            self.chat.disconnected(&user);
        }
    }
}

/// Returns who connects: the user of the token, else whom the platform names, else the name in the query.
pub(crate) fn who(
    user: Option<&str>,
    headers: &HeaderMap,
    said: Option<&str>,
) -> Result<UserName, Refusal> {
    if let Some(user) = user {
        return UserName::parse(user);
    }
    if let Some(user) = principal(headers) {
        return user;
    }
    match said {
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

pub(crate) fn refused(status: StatusCode, refusal: &Refusal) -> Response {
    json_answer(status, &json!({ "code": refusal.code, "message": refusal.message }))
}

pub(crate) fn json_answer(status: StatusCode, value: &impl Serialize) -> Response {
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
    use hookwire_client::{ConnectionString, Service};
    use hookwire_pages::Page;
    use object_store::memory::InMemory;
    use tower::Service as _;

    use super::*;
    use crate::store::Random;

    #[tokio::test]
    async fn one_message_too_many_is_told_to_try_again() {
        let line =
            "Endpoint=http://127.0.0.1;Port=1;AccessKey=ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789;";
        let hub = Hub::Preview(Service::new(line, "chat").unwrap());
        let key = ConnectionString::parse(line).unwrap().access_key().clone();
        let attachments = attachments::Attachments::new(attachments::Tickets::new(&key), 1);
        let functions = Functions {
            chat: Chat::new(
                Arc::new(InMemory::new()),
                hub.clone(),
                attachments,
                &Random::new(|| 4),
            ),
            pages: Pages::new(Page::Chat, std::slice::from_ref(hub.endpoint())),
            public: hub.clone(),
            hub,
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
