//! The settings API: which upstream gets which event (preview protocol, "Settings API"). Made for a browser page on another origin.

use bytes::Bytes;
use hookwire_hub::Settings;
use hookwire_proto::template::{Templates, TemplatesDocument};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;

use crate::api_error::{Answer, ApiError};
use crate::http::{Edge, body, text};

/// Largest settings document.
const SETTINGS_BYTES_MAX: usize = 1024 * 1024;

/// Answers a request for the settings; every answer lets pages of all origins read it, since the token is what protects it.
pub(crate) async fn settings(edge: &Edge, request: Request<Incoming>) -> Result<Answer, ApiError> {
    let mut answer = handle(edge, request).await.unwrap_or_else(ApiError::into_answer);
    let headers: &mut HeaderMap = answer.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    Ok(answer)
}

async fn handle(edge: &Edge, request: Request<Incoming>) -> Result<Answer, ApiError> {
    if request.method() == Method::OPTIONS {
        return Ok(preflight());
    }
    if ![Method::GET, Method::POST].contains(request.method()) {
        return Err(ApiError::method_not_allowed("GET, POST, OPTIONS"));
    }
    edge.authorize(&request)?;
    if request.method() == Method::GET {
        return Ok(json(&*edge.templates.lock().await));
    }
    let document = body(request, SETTINGS_BYTES_MAX).await?;
    let document: TemplatesDocument = serde_json::from_slice(&document)
        .map_err(|error| ApiError::bad_request(format!("not a settings document: {error}")))?;
    let templates = Templates::parse(&document).map_err(|faults| {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        ApiError::bad_request(faults.join("; "))
    })?;
    // Held to the end, so that what is stored last is what holds.
    let mut current = edge.templates.lock().await;
    edge.store.set_templates(document.clone()).await?;
    edge.apply(Settings { templates }).await?;
    *current = document;
    tracing::info!(templates = current.templates.len(), "upstream templates were replaced");
    Ok(json(&*current))
}

fn preflight() -> Answer {
    let mut answer = Response::new(Full::new(Bytes::new()));
    *answer.status_mut() = StatusCode::NO_CONTENT;
    for (name, value) in [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type"),
        (header::ACCESS_CONTROL_MAX_AGE, "600"),
    ] {
        answer.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    answer
}

fn json(document: &TemplatesDocument) -> Answer {
    let body = serde_json::to_string(document).expect("text and lists become JSON");
    text(StatusCode::OK, "application/json", body)
}
