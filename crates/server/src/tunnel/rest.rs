//! REST calls through a tunnel: those of its own hub, without a token, since the tunnel had one (Web PubSub protocol, "Tunnel",
//! "Requests both ways").

use std::sync::{Arc, Weak};

use bytes::Bytes;
use hookwire_proto::name::HubName;
use hookwire_proto::tunnel::{Frame, FrameError, Headers, HttpRequest};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::BodyExt;

use super::{REST, count, status_class};
use crate::api_error::{Answer, ApiError};
use crate::body::RequestBody;
use crate::http::Edge;
use crate::rest;
use crate::route::{self, Route, data_plane};

/// Header lines of a call, as over HTTP.
const HEADERS_MAX: usize = 100;

/// Carries out a call and returns the frames of its answer.
pub(super) async fn call(edge: Weak<Edge>, hub: HubName, mut request: HttpRequest) -> Vec<Bytes> {
    let content = request.content.take();
    let answer = match edge.upgrade().filter(|edge| !edge.is_draining()) {
        Some(edge) => perform(&edge, &hub, &request, content.unwrap_or_default()).await,
        None => Err(ApiError::shutting_down()),
    };
    let answer = answer.unwrap_or_else(|error| error.for_web_pubsub().into_answer());
    count(REST, status_class(answer.status().as_u16()));
    frames(&request, answer).await
}

async fn perform(
    edge: &Arc<Edge>,
    hub: &HubName,
    request: &HttpRequest,
    content: Bytes,
) -> Result<Answer, ApiError> {
    let (call, head) = read(hub, request)?;
    let mut body = RequestBody::whole(content);
    let mut answer = rest::authorized_data_plane(edge, call, &head, &mut body).await;
    if head.method() == Method::HEAD {
        *answer.body_mut() = http_body_util::Full::default();
    }
    Ok(answer)
}

/// Returns what a request calls, and its head.
fn read(hub: &HubName, request: &HttpRequest) -> Result<(data_plane::Call, Request<()>), ApiError> {
    let method = request.http_method.parse::<Method>();
    let method = method.map_err(|_| ApiError::bad_request("there is no such method"))?;
    let uri = request.url.parse::<Uri>();
    let uri = uri.map_err(|_| ApiError::bad_request("the URL is not one"))?;
    let Route::DataPlane(call) = route::parse(&method, &uri)? else {
        return Err(ApiError::not_found("the tunnel leads to /api/hubs alone"));
    };
    if call.hub != *hub {
        let message = "the tunnel leads to the REST API of its own hub alone";
        return Err(ApiError::new(StatusCode::FORBIDDEN, "Forbidden", message));
    }
    let mut head = Request::new(());
    *head.method_mut() = method;
    *head.uri_mut() = uri;
    *head.headers_mut() = headers(&request.headers)?;
    Ok((call, head))
}

fn headers(named: &Headers) -> Result<HeaderMap, ApiError> {
    let wrong = || ApiError::bad_request("a header is none");
    let mut headers = HeaderMap::new();
    for (name, values) in named {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?;
        for value in values {
            let value = HeaderValue::from_bytes(value.as_bytes()).map_err(|_| wrong())?;
            headers.append(&name, value);
            if HEADERS_MAX < headers.len() {
                let message = format!("there are more than {HEADERS_MAX} headers");
                return Err(ApiError::bad_request(message));
            }
        }
    }
    Ok(headers)
}

async fn frames(request: &HttpRequest, answer: Answer) -> Vec<Bytes> {
    let (head, body) = answer.into_parts();
    // It is in memory: there is nothing to wait for, and nothing that could fail.
    let body = body.collect().await.map(http_body_util::Collected::to_bytes).unwrap_or_default();
    let mut headers = Headers::new();
    for (name, value) in &head.headers {
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers.entry(name.as_str().to_owned()).or_default().push(value);
    }
    let parts = request.answer(head.status.as_u16(), headers, body).into_iter();
    let frames: Result<Vec<_>, FrameError> =
        parts.map(|part| Frame::Response(part).encode()).collect();
    frames.unwrap_or_else(|error| {
        tracing::error!(%error, "an answer of the REST API does not fit into frames");
        Vec::new()
    })
}
