//! What the REST APIs do: that of the preview, that of Web PubSub, and the lists for those who look after the service.

mod admin;
mod data_plane;
mod description;
mod events;
mod hub_settings;
pub(crate) mod origin;
mod overview;
mod payload;
mod preview;

use bytes::Bytes;
use hookwire_hub::Answer as HubAnswer;
use http::{Response, StatusCode};
use http_body_util::Full;
use serde_json::Value;

pub(crate) use self::admin::answer as admin;
pub(crate) use self::data_plane::answer as data_plane;
pub(crate) use self::data_plane::answer_authorized as authorized_data_plane;
pub(crate) use self::description::answer as description;
pub(crate) use self::events::live;
pub(crate) use self::preview::perform;
use crate::api_error::{Answer, ApiError};
use crate::http::text;

/// Returns an answer without a body.
fn status(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::new()));
    *answer.status_mut() = status;
    answer
}

fn json(value: &Value) -> Answer {
    text(StatusCode::OK, "application/json", value.to_string())
}

/// Returns 200 when the hub says that it is so, 404 when it is not.
fn found(answer: &HubAnswer) -> Result<Answer, ApiError> {
    match answer {
        HubAnswer::Yes => Ok(status(StatusCode::OK)),
        HubAnswer::No => Err(ApiError::not_found("not there")),
        HubAnswer::TooMany => Err(too_many()),
        HubAnswer::Names(_) | HubAnswer::Connections(_) | HubAnswer::Connection(_) => {
            Err(ApiError::failed())
        }
    }
}

fn too_many() -> ApiError {
    let message = "the connection is in as many groups as it may be, or has as many permissions";
    ApiError::new(StatusCode::CONFLICT, "TooMany", message)
}
