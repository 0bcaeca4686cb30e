//! The events of Web PubSub: `CloudEvents`, all posted to one function (Web PubSub protocol, "Upstream").

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use hookwire_client::{AccessKey, ServiceClient};
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};

use crate::chat::Memberships;
use crate::functions::{Asked, Functions, json_answer, refused, who};
use crate::name::UserName;
use crate::pages::plain;
use crate::refusal::{Chain, Code, Refusal};
use crate::wire::SUBPROTOCOL;

pub(super) fn routes(service: ServiceClient, functions: Arc<Functions>) -> Router {
    Router::new()
        .route("/api/eventhandler", post(event).options(validate))
        .with_state(Arc::new(Door { service, functions }))
}

/// Whom the service calls, and how it is known to be the service.
#[derive(Debug)]
struct Door {
    service: ServiceClient,
    functions: Arc<Functions>,
}

/// The service asks whether its events are wanted here. They are, whoever asks: each of them proves who sent it.
async fn validate() -> Response {
    ([(ALLOWED_ORIGIN, "*")], StatusCode::OK).into_response()
}

async fn event(State(door): State<Arc<Door>>, headers: HeaderMap, body: Body) -> Response {
    let event = match door.read(&headers) {
        Ok(event) => event,
        Err(response) => return *response,
    };
    match event.kind {
        Kind::Connect => door.connect(&event, &headers, body).await,
        Kind::Message => {
            let binary = headers.get(CONTENT_TYPE).is_some_and(|kind| {
                let kind = kind.as_bytes();
                !kind.starts_with(b"text/plain") && !kind.starts_with(b"application/json")
            });
            let asked = Asked {
                connection: &event.connection,
                user: event.user.as_deref(),
                mark: event.state.as_deref(),
                binary,
            };
            door.functions.message(asked, body).await
        }
        Kind::Disconnected => {
            door.functions.disconnected(&event.connection, event.user.as_deref());
            StatusCode::NO_CONTENT.into_response()
        }
        Kind::OtherUserEvent => refused(
            StatusCode::NOT_FOUND,
            &Refusal::new(Code::NotFound, "The chat has the user event “message” only."),
        ),
        Kind::Unwanted => StatusCode::NO_CONTENT.into_response(),
    }
}

impl Door {
    /// A client wants to connect: says who it is and what it gets, or why it may not.
    async fn connect(&self, event: &Told, headers: &HeaderMap, body: Body) -> Response {
        tracing::debug!(connection = event.connection, "a client connects");
        let faulty = |status, text: &str| refused(status, &Refusal::new(Code::Invalid, text));
        let reading = tokio::time::timeout(BODY_TIME_MAX, to_bytes(body, CONNECT_BYTES_MAX));
        let body = match reading.await {
            Ok(Ok(body)) => body,
            Ok(Err(_)) => {
                return faulty(StatusCode::PAYLOAD_TOO_LARGE, "The event is too large.");
            }
            Err(_) => {
                return plain(StatusCode::REQUEST_TIMEOUT, "The body did not come in time.\n");
            }
        };
        let Some(connecting) = Connecting::parse(&body) else {
            return faulty(StatusCode::BAD_REQUEST, "The body is none of a connect event.");
        };
        let said = connecting.query.get("name").and_then(|values| values.last());
        let user = match who(event.user.as_deref(), headers, said.map(String::as_str)) {
            Ok(user) => user,
            Err(refusal) => return refused(StatusCode::UNAUTHORIZED, &refusal),
        };
        let memberships = self.memberships(&user).await;
        let offered = connecting.subprotocols.iter().any(|offered| offered == SUBPROTOCOL);
        let answer = Connected {
            user_id: user.as_str(),
            groups: memberships.groups().collect(),
            subprotocol: offered.then_some(SUBPROTOCOL),
        };
        let mut response = json_answer(StatusCode::OK, &answer);
        let mark = HeaderValue::from_str(&memberships.mark()).expect("a mark is hexadecimal");
        response.headers_mut().insert(STATE, mark);
        response
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

impl Door {
    /// Reads what the service tells about a connection, and checks that it is the service who tells it.
    fn read(&self, headers: &HeaderMap) -> Result<Told, Box<Response>> {
        let faulty =
            |status, text: String| Box::new(refused(status, &Refusal::new(Code::Invalid, text)));
        let told = Told::from_headers(headers).map_err(|fault| {
            tracing::debug!(fault, "a call was refused");
            faulty(StatusCode::BAD_REQUEST, format!("The call is refused: {fault}."))
        })?;
        let key = std::slice::from_ref(self.service.access_key());
        if self.functions.verify_signature && !told.is_signed_with(key) {
            let text = "The call is refused: it is not signed with the service's access key.";
            return Err(faulty(StatusCode::UNAUTHORIZED, text.to_owned()));
        }
        let hub = self.service.hub().as_str();
        if !told.hub.eq_ignore_ascii_case(hub) {
            let text = format!("This is the chat of the hub {hub}.");
            return Err(faulty(StatusCode::NOT_FOUND, text));
        }
        Ok(told)
    }
}

/// What the headers of an event say.
#[derive(Debug)]
struct Told {
    kind: Kind,
    connection: String,
    hub: String,
    user: Option<String>,
    /// What was answered at connecting.
    state: Option<String>,
    signature: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Connect,
    Message,
    OtherUserEvent,
    Disconnected,
    /// Told without being asked for.
    Unwanted,
}

impl Told {
    fn from_headers(headers: &HeaderMap) -> Result<Self, &'static str> {
        let text = |name: HeaderName| match headers.get(name).map(HeaderValue::as_bytes) {
            None | Some(b"") => Ok(None),
            Some(value) => match std::str::from_utf8(value) {
                Ok(text) => Ok(Some(text.to_owned())),
                Err(_) => Err("a header is not UTF-8"),
            },
        };
        let required = |name| text(name)?.ok_or("a header of the event is missing");
        let kind = match required(TYPE)?.as_str() {
            "azure.webpubsub.sys.connect" => Kind::Connect,
            "azure.webpubsub.user.message" => Kind::Message,
            "azure.webpubsub.sys.disconnected" => Kind::Disconnected,
            other if other.starts_with("azure.webpubsub.user.") => Kind::OtherUserEvent,
            other if other.starts_with("azure.webpubsub.") => Kind::Unwanted,
            _ => return Err("ce-type is none of Web PubSub"),
        };
        Ok(Self {
            kind,
            connection: required(CONNECTION)?,
            hub: required(HUB)?,
            user: text(USER)?,
            state: text(STATE)?,
            signature: text(SIGNATURE)?.unwrap_or_default(),
        })
    }

    /// The signature is that of the preview, in another header.
    fn is_signed_with(&self, keys: &[AccessKey]) -> bool {
        hookwire_client::Event {
            connection_id: self.connection.clone(),
            hub: self.hub.clone(),
            event: hookwire_client::EventName::Message,
            user: None,
            query: hookwire_client::Query::default(),
            claims: Vec::new(),
            subprotocols: Vec::new(),
            signature: Some(self.signature.clone()),
        }
        .is_signed_with(keys)
    }
}

/// The body of a connect event, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Connecting {
    #[serde(default)]
    query: BTreeMap<String, Vec<String>>,
    #[serde(default)]
    subprotocols: Vec<String>,
}

impl Connecting {
    fn parse(body: &[u8]) -> Option<Self> {
        // An array would pass for a struct.
        let is_object = body.trim_ascii_start().starts_with(b"{");
        is_object.then(|| serde_json::from_slice(body).ok()).flatten()
    }
}

/// The answer to a connect event.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Connected<'a> {
    user_id: &'a str,
    groups: Vec<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subprotocol: Option<&'static str>,
}

const ALLOWED_ORIGIN: HeaderName = HeaderName::from_static("webhook-allowed-origin");
const TYPE: HeaderName = HeaderName::from_static("ce-type");
const CONNECTION: HeaderName = HeaderName::from_static("ce-connectionid");
const HUB: HeaderName = HeaderName::from_static("ce-hub");
const USER: HeaderName = HeaderName::from_static("ce-userid");
const STATE: HeaderName = HeaderName::from_static("ce-connectionstate");
const SIGNATURE: HeaderName = HeaderName::from_static("ce-signature");

/// Largest body of a connect event, in bytes: query, headers and claims of a client, and room for escapes.
const CONNECT_BYTES_MAX: usize = 512 << 10;

/// Longest time that the body of a connect event takes to come.
const BODY_TIME_MAX: Duration = Duration::from_secs(5);

/// Longest time that is spent on a user's groups, well below the 30 s that Hookwire waits.
const MEMBERSHIPS_TIME_MAX: Duration = Duration::from_secs(10);
