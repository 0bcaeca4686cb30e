//! Settings of hubs at run time: shown, checked, tried out, replaced.

use std::sync::Arc;

use hookwire_proto::handler::{
    EventHandlerDocument, HubDocument, HubSettings, Secrets, SettingError, UpstreamEvent,
};
use hookwire_proto::name::HubName;
use hookwire_proto::template::{EventName, Templates, TemplatesDocument};
use http::{Request, StatusCode};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::json as answer_json;
use crate::api_error::{Answer, ApiError};
use crate::body::RequestBody;
use crate::http::{Edge, text};
use crate::settings::{HubSource, Layers};

/// Largest document.
const DOCUMENT_BYTES_MAX: usize = 1024 * 1024;

/// Hubs whose settings may be stored.
const HUBS_MAX: usize = 1_024;

/// One fault, and where it stands; an empty path is the document as a whole.
struct Fault {
    path: String,
    message: String,
}

/// Returns the settings of a hub that are in force.
pub(super) async fn show(edge: &Edge, hub: &HubName) -> Answer {
    answer_json(&describe(hub, &*edge.layers.lock().await))
}

/// Stores settings and puts them in force.
pub(super) async fn replace(
    edge: &Arc<Edge>,
    hub: HubName,
    head: &Request<()>,
    body: &mut RequestBody,
) -> Result<Answer, ApiError> {
    let mut document: Map<String, Value> = read(edge, head, body).await?;
    // What was shown may be sent back.
    document.remove("source");
    let document = match serde_json::from_value::<HubDocument>(document.into()) {
        Ok(document) => document,
        Err(error) => return Ok(invalid(&[Fault::whole(&error)])),
    };
    in_task(edge, async move |edge| change(edge, hub, Some(document)).await).await
}

/// Forgets stored settings, so that those of the configuration are in force.
pub(super) async fn reset(edge: &Arc<Edge>, hub: HubName) -> Result<Answer, ApiError> {
    in_task(edge, async move |edge| change(edge, hub, None).await).await
}

/// Does something in a task, since hyper forgets this future when the caller leaves: what is stored must also be put in force.
async fn in_task<Change>(
    edge: &Arc<Edge>,
    change: impl FnOnce(Arc<Edge>) -> Change,
) -> Result<Answer, ApiError>
where
    Change: Future<Output = Result<Answer, ApiError>> + Send + 'static,
{
    let task = edge.tasks.spawn(change(edge.clone()));
    task.await.map_err(|_| ApiError::failed())?
}

async fn change(
    edge: Arc<Edge>,
    hub: HubName,
    document: Option<HubDocument>,
) -> Result<Answer, ApiError> {
    // Held to the end, so that what is stored last is what holds.
    let mut layers = edge.layers.lock().await;
    let (source, before) = layers.hub(&hub);
    let settings = match document.map(|document| complete(document, before)).transpose() {
        Ok(settings) => settings,
        Err(faults) => return Ok(invalid(&faults)),
    };
    let is_new = settings.is_some() && source != HubSource::Stored;
    if is_new && HUBS_MAX <= layers.stored_hubs() {
        let message = format!("settings of {HUBS_MAX} hubs are stored, no more fit");
        return Err(ApiError::new(StatusCode::CONFLICT, "TooMany", message));
    }
    let document = settings.as_ref().map(HubSettings::to_document);
    edge.store.set_hub(&hub, document.as_ref()).await?;
    layers.set_hub(hub.clone(), settings.map(Arc::new));
    tracing::info!(%hub, stored = document.is_some(), "the settings of a hub were changed");
    edge.apply(&layers).await?;
    Ok(answer_json(&describe(&hub, &layers)))
}

fn describe(hub: &HubName, layers: &Layers) -> Value {
    let (source, settings) = layers.hub(hub);
    let source = match source {
        HubSource::Stored => "stored",
        HubSource::File => "file",
        HubSource::Defaults => "defaults",
    };
    let document = settings.to_document().to_json(Secrets::Hidden);
    let mut described = json!({ "source": source });
    if let (Value::Object(described), Value::Object(document)) = (&mut described, document) {
        described.extend(document);
    }
    described
}

/// Returns the settings that a document of the hub with the settings `before` stands for.
fn complete(mut document: HubDocument, before: &HubSettings) -> Result<HubSettings, Vec<Fault>> {
    let mut faults = keep_secrets(&mut document, &before.to_document());
    match HubSettings::parse(&document) {
        Ok(settings) if faults.is_empty() => Ok(settings),
        Ok(_) => Err(faults),
        Err(errors) => {
            faults.extend(errors.iter().map(Fault::of));
            Err(faults)
        }
    }
}

/// Fills in secrets that the document leaves out since they were never shown, and refuses files that were not there before. Both only
/// for handlers at the same server: who may change settings shall not make the service send a secret or a file somewhere else.
fn keep_secrets(document: &mut HubDocument, before: &HubDocument) -> Vec<Fault> {
    let mut faults = Vec::new();
    for (at, handler) in document.event_handlers.iter_mut().enumerate() {
        let Some(auth) = &mut handler.auth else {
            let same = |other: &&EventHandlerDocument| other.url_template == handler.url_template;
            handler.auth = before.event_handlers.iter().find(same).and_then(|one| one.auth.clone());
            continue;
        };
        let server = server_of(&handler.url_template);
        let mut known = before
            .event_handlers
            .iter()
            .filter(|one| server_of(&one.url_template) == server)
            .filter_map(|one| one.auth.as_ref());
        if auth.file.is_some() && !known.clone().any(|one| one.file == auth.file) {
            faults.push(Fault {
                path: format!("eventHandlers[{at}].auth"),
                message:
                    "a file must be named in the configuration, for a handler at the same server"
                        .to_owned(),
            });
        }
        if auth.token_url.is_some() && auth.client_secret.is_none() {
            let same = known.find(|one| {
                let asks_the_same = one.client_id == auth.client_id && one.scope == auth.scope;
                one.token_url == auth.token_url && asks_the_same
            });
            auth.client_secret = same.and_then(|one| one.client_secret.clone());
        }
    }
    faults
}

/// Returns scheme and authority of a template, as they are written.
fn server_of(template: &str) -> &str {
    let authority = template.find("://").map_or(0, |at| at + 3);
    let end = template[authority..].find(['/', '?', '#']);
    end.map_or(template, |end| &template[..authority + end])
}

/// Which event shall be tried out.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Question {
    dialect: AskedDialect,
    hub: String,
    category: Option<String>,
    #[serde(default)]
    r#type: AskedType,
    event: String,
    draft: Option<Value>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
enum AskedDialect {
    Preview,
    WebPubSub,
}

#[derive(Deserialize, Clone, Copy, Default, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
enum AskedType {
    #[default]
    User,
    System,
}

/// Returns the faults of a document that is not stored. One that names its `hub` may leave out what that hub keeps.
pub(super) async fn validate(
    edge: &Arc<Edge>,
    head: &Request<()>,
    body: &mut RequestBody,
) -> Result<Answer, ApiError> {
    let mut document: Map<String, Value> = read(edge, head, body).await?;
    let faults = if document.contains_key("templates") {
        parse_templates(document.into()).err()
    } else if let Some(hub) = document.remove("hub") {
        let hub = hub.as_str().and_then(|hub| HubName::parse(hub).ok());
        let hub = hub.ok_or_else(|| ApiError::bad_request("not a name of a hub").about("hub"))?;
        parse_hub(edge, &hub, document.into()).await.err()
    } else {
        parse_document(document.into())
            .and_then(|document| complete(document, &HubSettings::default()))
            .err()
    };
    Ok(answer_json(&json!({ "faults": list(&faults.unwrap_or_default()) })))
}

/// Returns who would get an event, by the settings in force or by a draft.
pub(super) async fn find(
    edge: &Arc<Edge>,
    head: &Request<()>,
    body: &mut RequestBody,
) -> Result<Answer, ApiError> {
    let question: Question = serde_json::from_value(read(edge, head, body).await?)
        .map_err(|error| ApiError::bad_request(format!("not a question: {error}")))?;
    let hub = HubName::parse(&question.hub).map_err(|error| ApiError::from(error).about("hub"))?;
    let found = match question.dialect {
        AskedDialect::Preview => find_template(edge, &hub, question).await,
        AskedDialect::WebPubSub => find_handler(edge, &hub, question).await,
    };
    Ok(match found {
        Ok(Ok((index, url))) => answer_json(&json!({ "index": index, "url": url })),
        Ok(Err(reason)) => answer_json(&json!({ "index": null, "reason": reason })),
        Err(faults) => invalid(&faults),
    })
}

/// The index and the URL, or why nobody gets it.
type Found = Result<(usize, String), String>;

async fn find_template(
    edge: &Edge,
    hub: &HubName,
    question: Question,
) -> Result<Found, Vec<Fault>> {
    let templates = match question.draft {
        Some(draft) => parse_templates(draft)?,
        None => edge.layers.lock().await.settings().templates,
    };
    let all = [EventName::Connect, EventName::Message, EventName::Disconnect];
    let event = all.into_iter().find(|one| one.as_str().eq_ignore_ascii_case(&question.event));
    let Some(event) = event else {
        return Ok(Err("the preview has the events connect, message and disconnect".to_owned()));
    };
    let category = question.category.as_deref().unwrap_or(event.category());
    if !category.eq_ignore_ascii_case(event.category()) {
        return Ok(Err(format!("{} is of the category {}", event.as_str(), event.category())));
    }
    let found = templates.find(hub.as_str(), event);
    Ok(found.ok_or_else(|| {
        format!(
            "no template is for the hub {hub}, the category {} and the event {}",
            event.category(),
            event.as_str()
        )
    }))
}

async fn find_handler(edge: &Edge, hub: &HubName, question: Question) -> Result<Found, Vec<Fault>> {
    let settings = match question.draft {
        Some(draft) => Arc::new(parse_hub(edge, hub, draft).await?),
        None => edge.layers.lock().await.hub(hub).1.clone(),
    };
    let name = question.event.as_str();
    let event = match (question.r#type, name) {
        (AskedType::User, name) => UpstreamEvent::User(name),
        (AskedType::System, "connect") => UpstreamEvent::Connect,
        (AskedType::System, "connected") => UpstreamEvent::Connected,
        (AskedType::System, "disconnected") => UpstreamEvent::Disconnected,
        (AskedType::System, _) => {
            let reason = "system events are connect, connected and disconnected";
            return Ok(Err(reason.to_owned()));
        }
    };
    let found = settings.handler(event).map(|handler| {
        let at = settings.handlers.iter().position(|one| Arc::ptr_eq(one, handler));
        (at.unwrap_or_default(), handler.url.url(hub, name))
    });
    Ok(found.ok_or_else(|| match (settings.handlers.len(), question.r#type) {
        (0, _) => format!("the hub {hub} has no event handler"),
        (_, AskedType::User) => format!("no handler's userEventPattern matches {name}"),
        (_, AskedType::System) => format!("no handler has {name} among its systemEvents"),
    }))
}

fn parse_templates(document: Value) -> Result<Templates, Vec<Fault>> {
    let document: TemplatesDocument =
        serde_json::from_value(document).map_err(|error| vec![Fault::whole(&error)])?;
    Templates::parse(&document).map_err(|errors| {
        let fault = |error: &hookwire_proto::template::TemplateError| Fault {
            path: format!("templates[{}].{}", error.index, error.property),
            message: error.fault.to_string(),
        };
        errors.iter().map(fault).collect()
    })
}

/// Returns the settings that a document of `hub` stands for.
async fn parse_hub(edge: &Edge, hub: &HubName, document: Value) -> Result<HubSettings, Vec<Fault>> {
    let document = parse_document(document)?;
    let before = edge.layers.lock().await.hub(hub).1.clone();
    complete(document, &before)
}

fn parse_document(document: Value) -> Result<HubDocument, Vec<Fault>> {
    serde_json::from_value(document).map_err(|error| vec![Fault::whole(&error)])
}

/// Reads a JSON document.
async fn read<T: DeserializeOwned>(
    edge: &Edge,
    head: &Request<()>,
    body: &mut RequestBody,
) -> Result<T, ApiError> {
    let bytes = body.read(head.headers(), DOCUMENT_BYTES_MAX, &edge.bodies).await?;
    serde_json::from_slice(&bytes)
        .map_err(|error| ApiError::bad_request(format!("not the JSON that is needed: {error}")))
}

impl Fault {
    fn whole(error: &serde_json::Error) -> Self {
        Self { path: String::new(), message: error.to_string() }
    }

    fn of(error: &SettingError) -> Self {
        let property = error.property;
        let path = match error.place {
            Some((list, index)) => format!("{list}[{index}].{property}"),
            None => property.to_owned(),
        };
        Self { path, message: error.fault.to_string() }
    }
}

fn list(faults: &[Fault]) -> Vec<Value> {
    let fault = |Fault { path, message }: &Fault| json!({ "path": path, "message": message });
    faults.iter().map(fault).collect()
}

fn invalid(faults: &[Fault]) -> Answer {
    let said = |fault: &Fault| match fault.path.as_str() {
        "" => fault.message.clone(),
        path => format!("{path}: {}", fault.message),
    };
    let message = faults.iter().map(said).collect::<Vec<_>>().join("; ");
    let document = json!({ "code": "invalid", "message": message, "faults": list(faults) });
    text(StatusCode::BAD_REQUEST, "application/json", document.to_string())
}
