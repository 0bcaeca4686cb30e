//! The settings API: which upstream gets which event (preview protocol, "Settings API"). Made for a browser page on another origin.

use std::sync::Arc;

use bytes::Bytes;
use hookwire_proto::template::{Templates, TemplatesDocument};
use http::{HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;

use crate::api_error::{Answer, ApiError};
use crate::body::RequestBody;
use crate::http::{Edge, text};

/// Largest settings document.
const SETTINGS_BYTES_MAX: usize = 1024 * 1024;

/// Answers a request for the settings; every answer lets pages of all origins read it, since the token is what protects it.
pub(crate) async fn settings(
    edge: &Arc<Edge>,
    head: &Request<()>,
    body: &mut RequestBody,
) -> Answer {
    let mut answer = handle(edge, head, body).await.unwrap_or_else(ApiError::into_answer);
    let allowed = HeaderValue::from_static("*");
    answer.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    answer
}

async fn handle(
    edge: &Arc<Edge>,
    head: &Request<()>,
    body: &mut RequestBody,
) -> Result<Answer, ApiError> {
    if edge.is_draining() {
        return Err(ApiError::shutting_down());
    }
    if head.method() == Method::OPTIONS {
        return Ok(preflight());
    }
    if ![Method::GET, Method::POST].contains(head.method()) {
        return Err(ApiError::method_not_allowed("GET, POST, OPTIONS"));
    }
    edge.authorize(head)?;
    if head.method() == Method::GET {
        return Ok(json(edge.layers.lock().await.templates()));
    }
    let document = body.read(head.headers(), SETTINGS_BYTES_MAX, &edge.bodies).await?;
    let document: TemplatesDocument = serde_json::from_slice(&document)
        .map_err(|error| ApiError::bad_request(format!("not a settings document: {error}")))?;
    let templates = Templates::parse(&document).map_err(|faults| {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        ApiError::bad_request(faults.join("; "))
    })?;
    // In a task, since hyper forgets this future when the caller leaves: what is stored must also be put in force.
    let task = edge.tasks.spawn(replace(edge.clone(), document, templates));
    task.await.map_err(|_| ApiError::failed())?
}

async fn replace(
    edge: Arc<Edge>,
    document: TemplatesDocument,
    templates: Templates,
) -> Result<Answer, ApiError> {
    // Held to the end, so that what is stored last is what holds.
    let mut layers = edge.layers.lock().await;
    edge.store.set_templates(document.clone()).await?;
    tracing::info!(templates = document.templates.len(), "upstream templates were replaced");
    layers.set_templates(document, templates);
    edge.apply(&layers).await?;
    Ok(json(layers.templates()))
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
