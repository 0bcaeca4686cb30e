//! What an application answers.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use hookwire_proto::permission::Permission;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde::Serialize;

use super::header;
use crate::payload::Payload;
use crate::service_client::role;

/// What is said about an event: one of [`ConnectAnswer`], [`EventAnswer`] and [`Refusal`], or nothing.
#[derive(Clone, Debug)]
pub struct Answer(Parts);

#[derive(Clone, Debug, Default)]
struct Parts {
    status: StatusCode,
    content_type: Option<&'static str>,
    state: Option<HeaderValue>,
    body: Bytes,
}

impl Answer {
    /// Lets a client in as it is, sends nothing to one that raised an event, and is right for all other events.
    pub fn nothing() -> Self {
        Self(Parts { status: StatusCode::NO_CONTENT, ..Parts::default() })
    }

    /// Returns the HTTP response.
    pub fn into_response(self) -> Response<Full<Bytes>> {
        let Parts { status, content_type, state, body } = self.0;
        let mut response = Response::new(Full::new(body));
        *response.status_mut() = status;
        if let Some(content_type) = content_type {
            let content_type = HeaderValue::from_static(content_type);
            response.headers_mut().insert(http::header::CONTENT_TYPE, content_type);
        }
        if let Some(state) = state {
            response.headers_mut().insert(header::CONNECTION_STATE, state);
        }
        response
    }
}

impl From<()> for Answer {
    fn from((): ()) -> Self {
        Self::nothing()
    }
}

/// Lets a client in. What is not said stays as the client's token has it.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConnectAnswer {
    #[serde(skip_serializing_if = "Option::is_none")]
    user_id: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    groups: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    roles: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subprotocol: Option<String>,
    #[serde(skip)]
    state: Option<HeaderValue>,
}

impl ConnectAnswer {
    /// Lets the client in as it is.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says who the client is.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user_id = Some(user.into());
        self
    }

    /// Puts the client into a group, and into none that its token names.
    #[must_use]
    pub fn group(mut self, group: impl Into<String>) -> Self {
        self.groups.push(group.into());
        self
    }

    /// Gives the client a permission for every group, and no role of its token.
    #[must_use]
    pub fn may(self, permission: Permission) -> Self {
        self.role(role(permission, None))
    }

    /// Gives the client a permission for one group, and no role of its token.
    #[must_use]
    pub fn may_in(self, permission: Permission, group: &str) -> Self {
        self.role(role(permission, Some(group)))
    }

    /// Gives the client a role, and none of its token.
    #[must_use]
    pub fn role(mut self, role: impl Into<String>) -> Self {
        self.roles.get_or_insert_default().push(role.into());
        self
    }

    /// Takes all roles of its token away.
    #[must_use]
    pub fn without_roles(mut self) -> Self {
        self.roles = Some(Vec::new());
        self
    }

    /// Chooses a subprotocol, one of those that the client offers.
    #[must_use]
    pub fn subprotocol(mut self, subprotocol: impl Into<String>) -> Self {
        self.subprotocol = Some(subprotocol.into());
        self
    }

    /// Says what comes back with every later event of the connection. It goes in a header: keep it small.
    #[must_use]
    pub fn state(mut self, state: HeaderValue) -> Self {
        self.state = Some(state);
        self
    }

    /// As [`ConnectAnswer::state`], as JSON in base64, which the official libraries use.
    ///
    /// # Errors
    /// The value cannot be written as JSON.
    pub fn state_json(self, state: &impl Serialize) -> Result<Self, serde_json::Error> {
        Ok(self.state(state_value(state)?))
    }

    /// Returns the HTTP response.
    pub fn into_response(self) -> Response<Full<Bytes>> {
        Answer::from(self).into_response()
    }
}

impl From<ConnectAnswer> for Answer {
    fn from(mut answer: ConnectAnswer) -> Self {
        let state = answer.state.take();
        let body =
            serde_json::to_vec(&answer).expect("texts and lists of them can be written as JSON");
        if body == b"{}" {
            return Self(Parts { state, ..Self::nothing().0 });
        }
        Self(Parts {
            status: StatusCode::OK,
            content_type: Some("application/json; charset=utf-8"),
            state,
            body: body.into(),
        })
    }
}

/// Says that a user event was handled, and what the client gets for it. Texts and bytes become one by themselves.
#[derive(Clone, Debug, Default)]
pub struct EventAnswer {
    payload: Option<Payload>,
    state: Option<HeaderValue>,
}

impl EventAnswer {
    /// Sends this to the client that raised the event. An empty text or no bytes send nothing.
    pub fn new(payload: impl Into<Payload>) -> Self {
        Self { payload: Some(payload.into()), state: None }
    }

    /// Sends nothing.
    pub fn nothing() -> Self {
        Self::default()
    }

    /// Replaces what comes back with every later event of the connection. It goes in a header: keep it small.
    #[must_use]
    pub fn state(mut self, state: HeaderValue) -> Self {
        self.state = Some(state);
        self
    }

    /// As [`EventAnswer::state`], as JSON in base64, which the official libraries use.
    ///
    /// # Errors
    /// The value cannot be written as JSON.
    pub fn state_json(self, state: &impl Serialize) -> Result<Self, serde_json::Error> {
        Ok(self.state(state_value(state)?))
    }

    /// Returns the HTTP response.
    pub fn into_response(self) -> Response<Full<Bytes>> {
        Answer::from(self).into_response()
    }
}

impl<T: Into<Payload>> From<T> for EventAnswer {
    fn from(payload: T) -> Self {
        Self::new(payload)
    }
}

impl From<EventAnswer> for Answer {
    fn from(EventAnswer { payload, state }: EventAnswer) -> Self {
        match payload {
            Some(payload) => Self(Parts {
                status: StatusCode::OK,
                content_type: Some(payload.kind().content_type()),
                state,
                body: payload.into_data().bytes,
            }),
            None => Self(Parts { state, ..Self::nothing().0 }),
        }
    }
}

/// Refuses a client that wants in, which then gets this status, or says that a user event failed.
#[derive(Clone, Debug)]
pub struct Refusal {
    status: StatusCode,
    message: String,
}

impl Refusal {
    /// Takes the status. One that is no error becomes 500: a service would take it for a yes.
    pub fn new(status: StatusCode) -> Self {
        let is_error = status.is_client_error() || status.is_server_error();
        let status = if is_error { status } else { StatusCode::INTERNAL_SERVER_ERROR };
        Self { status, message: String::new() }
    }

    /// Says why. A client that wanted in may see it.
    #[must_use]
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = message.into();
        self
    }

    /// Returns the HTTP response.
    pub fn into_response(self) -> Response<Full<Bytes>> {
        Answer::from(self).into_response()
    }
}

impl From<Refusal> for Answer {
    fn from(Refusal { status, message }: Refusal) -> Self {
        let content_type = (!message.is_empty()).then_some("text/plain; charset=utf-8");
        Self(Parts { status, content_type, state: None, body: message.into() })
    }
}

fn state_value(state: &impl Serialize) -> Result<HeaderValue, serde_json::Error> {
    let text = STANDARD.encode(serde_json::to_vec(state)?);
    Ok(HeaderValue::try_from(text).expect("base64 is printable ASCII (RFC 4648, section 4)"))
}
