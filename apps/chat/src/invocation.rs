//! Invocations: how the host of Azure Functions calls a custom handler to which it does not forward requests (Azure Functions, "Custom
//! handlers", request and response payload).
//!
//! The host posts `{"Data":{"req":{…}},"Metadata":{…}}` to the name of a function and takes `{"Outputs":{"res":{…}},…}`. Here the one
//! becomes the request that would have been forwarded, and its answer becomes the other, so the functions do not know the difference.

use std::collections::BTreeMap;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Path, State};
use axum::response::Response;
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use tower::Service;
use url::Url;

use crate::functions::json_answer;

/// The name of the HTTP trigger in every `function.json`.
const TRIGGER: &str = "req";

/// The name of the HTTP output in every `function.json`.
const OUTPUT: &str = "res";

/// The function whose route covers everything that has no function of its own.
const CATCH_ALL: &str = "index";

/// The parameter of that route.
const CATCH_ALL_PARAMETER: &str = "page";

/// Largest invocation, in bytes. What is larger has to be forwarded.
const INVOCATION_BYTES_MAX: usize = 4 << 20;

/// Largest answer of a function that fits into the answer of its invocation, in bytes.
const ANSWER_BYTES_MAX: usize = 8 << 20;

/// Longest time that an invocation takes to come.
const BODY_TIME_MAX: Duration = Duration::from_secs(15);

/// What belongs to the connection over which a request came, and not to the request.
const LEFT_OUT: [HeaderName; 4] = [CONNECTION, CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING];

/// Returns the routes of `functions`, which can be invoked by their names too.
pub(crate) fn router(functions: Router) -> Router {
    let invoking = post(invoke).fallback_service(functions.clone());
    Router::new()
        .route("/{function}", invoking)
        .with_state(functions.clone())
        .fallback_service(functions)
}

/// Why a function was not invoked. A status that is no success tells the host that the invocation failed.
#[derive(Debug, thiserror::Error)]
enum Malformed {
    #[error("the invocation is no JSON object with Data and Metadata: {0}")]
    Json(#[source] serde_json::Error),
    #[error("Data.{TRIGGER} is missing: is it the name of the HTTP trigger in function.json?")]
    NoTrigger,
    #[error("Data.{TRIGGER} is no HTTP request: {0}")]
    Trigger(#[source] serde_json::Error),
    #[error("Data.{TRIGGER}.{0} is of no use")]
    Part(&'static str),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Invocation {
    data: BTreeMap<String, Value>,
    /// Nothing of it is needed, but it belongs to the form.
    #[serde(rename = "Metadata")]
    _metadata: BTreeMap<String, Value>,
}

/// The value of an HTTP trigger. `Query` is left out: `Url` says the same.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Trigger {
    url: String,
    method: String,
    #[serde(default, deserialize_with = "object_or_text")]
    headers: BTreeMap<String, Values>,
    #[serde(default, deserialize_with = "object_or_text")]
    params: BTreeMap<String, Value>,
    #[serde(default)]
    body: Value,
}

/// The values of a header.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Values {
    One(String),
    Several(Vec<String>),
}

/// Reads what one version of the host writes as an object, and another one as a text that holds the object.
fn object_or_text<'de, D: Deserializer<'de>, T: Default + DeserializeOwned>(
    deserializer: D,
) -> Result<T, D::Error> {
    use serde::de::Error;
    let value = Value::deserialize(deserializer)?;
    if value.is_null() {
        return Ok(T::default());
    }
    from_object_or_text(value).map_err(D::Error::custom)
}

fn from_object_or_text<T: DeserializeOwned>(value: Value) -> serde_json::Result<T> {
    match value.as_str() {
        Some(text) => serde_json::from_str(text),
        None => serde_json::from_value(value),
    }
}

/// Carries out what the host asks for.
async fn invoke(
    State(mut functions): State<Router>,
    Path(function): Path<String>,
    body: Body,
) -> Response {
    let reading = tokio::time::timeout(BODY_TIME_MAX, to_bytes(body, INVOCATION_BYTES_MAX));
    let body = match reading.await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => {
            let text = format!("an invocation has at most {INVOCATION_BYTES_MAX} bytes");
            return failed(StatusCode::PAYLOAD_TOO_LARGE, &text);
        }
        Err(_) => {
            return failed(StatusCode::REQUEST_TIMEOUT, "the invocation did not come in time");
        }
    };
    let request = match request(&function, &body) {
        Ok(request) => request,
        Err(error) => {
            tracing::warn!(function, %error, "an invocation is malformed");
            return failed(StatusCode::BAD_REQUEST, &error.to_string());
        }
    };
    let answered = Service::<Request<Body>>::call(&mut functions, request).await;
    result(answered.unwrap_or_else(|never| match never {})).await
}

fn failed(status: StatusCode, message: &str) -> Response {
    json_answer(status, &json!({ "message": message }))
}

/// Returns the request that an invocation of a function stands for.
fn request(function: &str, invocation: &[u8]) -> Result<Request<Body>, Malformed> {
    let mut invocation: Invocation = serde_json::from_slice(invocation).map_err(Malformed::Json)?;
    let trigger = invocation.data.remove(TRIGGER).ok_or(Malformed::NoTrigger)?;
    // The host may write the whole request as text, too.
    let trigger: Trigger = from_object_or_text(trigger).map_err(Malformed::Trigger)?;
    let headers = headers(&trigger.headers)?;
    let body = content(&trigger.body, &headers).ok_or(Malformed::Part("Body"))?;
    let method =
        Method::from_bytes(trigger.method.as_bytes()).map_err(|_| Malformed::Part("Method"))?;
    let mut request = Request::new(Body::from(body));
    *request.uri_mut() = target(function, &trigger).ok_or(Malformed::Part("Url"))?;
    *request.method_mut() = method;
    *request.headers_mut() = headers;
    Ok(request)
}

/// Returns where the function is, whatever its route: the host has found it already.
fn target(function: &str, trigger: &Trigger) -> Option<Uri> {
    let page = trigger.params.get(CATCH_ALL_PARAMETER).and_then(Value::as_str);
    let path = match page {
        Some(page) if function == CATCH_ALL && !page.is_empty() => {
            format!("/{}", utf8_percent_encode(page, IN_PATH))
        }
        _ => format!("/api/{}", utf8_percent_encode(function, IN_PATH)),
    };
    let url = Url::parse(&trigger.url).ok()?;
    match url.query() {
        Some(query) => format!("{path}?{query}").parse().ok(),
        None => path.parse().ok(),
    }
}

/// What a path that was decoded has to be written with.
const IN_PATH: &AsciiSet =
    &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>').add(b'?').add(b'%').add(b'`');

fn headers(given: &BTreeMap<String, Values>) -> Result<HeaderMap, Malformed> {
    let mut headers = HeaderMap::new();
    for (name, values) in given {
        let name: HeaderName = name.parse().map_err(|_| Malformed::Part("Headers"))?;
        if LEFT_OUT.contains(&name) {
            continue;
        }
        let values = match values {
            Values::One(value) => std::slice::from_ref(value),
            Values::Several(values) => values,
        };
        for value in values {
            let value = HeaderValue::from_bytes(value.as_bytes())
                .map_err(|_| Malformed::Part("Headers"))?;
            headers.append(name.clone(), value);
        }
    }
    Ok(headers)
}

/// Returns the bytes of a body. The host writes bytes as base64 when the type says that they are no text.
fn content(body: &Value, headers: &HeaderMap) -> Option<Bytes> {
    match body {
        Value::Null => Some(Bytes::new()),
        Value::String(text) if is_binary(headers) => STANDARD.decode(text).ok().map(Bytes::from),
        Value::String(text) => Some(Bytes::copy_from_slice(text.as_bytes())),
        // A host that reads JSON itself.
        Value::Bool(_) | Value::Number(_) | Value::Array(_) | Value::Object(_) => {
            Some(Bytes::from(body.to_string()))
        }
    }
}

fn is_binary(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/octet-stream" || kind.starts_with("multipart/")
}

/// Returns an answer as the host takes it. It looks at status and headers only if there is a body too, which may be empty; and one
/// version of it wants `status` beside `statusCode`.
async fn result(answer: Response) -> Response {
    let (head, body) = answer.into_parts();
    let text = match to_bytes(body, ANSWER_BYTES_MAX).await {
        Ok(body) => String::from_utf8(body.into())
            .map_err(|_| "the answer is not text; files need enableForwardingHttpRequest"),
        Err(_) => Err("the answer is too long or broke off; it needs enableForwardingHttpRequest"),
    };
    let (status, headers, text, logs) = match text {
        Ok(text) => (head.status, head.headers, text, Vec::new()),
        Err(reason) => {
            tracing::warn!(reason, "an answer does not fit into that of its invocation");
            let text = format!("{reason}\n");
            (StatusCode::NOT_IMPLEMENTED, HeaderMap::new(), text, vec![reason])
        }
    };
    let mut named: BTreeMap<&str, String> = BTreeMap::new();
    for (name, value) in headers.iter().filter(|(name, _)| !LEFT_OUT.contains(name)) {
        let value = String::from_utf8_lossy(value.as_bytes());
        let before = named.entry(name.as_str()).or_default();
        if !before.is_empty() {
            before.push_str(", ");
        }
        before.push_str(&value);
    }
    let status = status.as_u16().to_string();
    let output = json!({ "statusCode": status, "status": status, "headers": named, "body": text });
    let outputs = json!({ OUTPUT: output });
    json_answer(StatusCode::OK, &json!({ "Outputs": outputs, "Logs": logs, "ReturnValue": null }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Answers with what it was asked.
    async fn echo(request: Request<Body>) -> Response {
        let (head, body) = request.into_parts();
        let body = to_bytes(body, 1_000).await.unwrap();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = StatusCode::ACCEPTED;
        let headers = response.headers_mut();
        for (name, value) in [("x-method", head.method.as_str()), ("x-uri", &head.uri.to_string())]
        {
            headers.insert(name, value.parse().unwrap());
        }
        for name in ["x-one", "x-two", "content-length", "x-name"] {
            for value in head.headers.get_all(name) {
                headers.append(
                    HeaderName::from_bytes(format!("got-{name}").as_bytes()).unwrap(),
                    value.clone(),
                );
            }
        }
        response
    }

    async fn invoke(function: &str, body: impl Into<Body>) -> (StatusCode, Value) {
        let mut router = router(Router::new().fallback(echo));
        let request = Request::post(format!("/{function}")).body(body.into()).unwrap();
        let answer = Service::<Request<Body>>::call(&mut router, request).await.unwrap();
        let status = answer.status();
        let body = to_bytes(answer.into_body(), 100_000).await.unwrap();
        (
            status,
            serde_json::from_slice(&body).unwrap_or_else(|_| String::from_utf8_lossy(&body).into()),
        )
    }

    fn invocation(request: &Value) -> String {
        let metadata = json!({ "sys": { "MethodName": "f", "UtcNow": "…", "RandGuid": "…" } });
        json!({ "Data": { "req": request }, "Metadata": metadata }).to_string()
    }

    async fn output(function: &str, request: Value) -> Value {
        let (status, answer) = invoke(function, invocation(&request)).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
        assert_eq!((&answer["Logs"], &answer["ReturnValue"]), (&json!([]), &Value::Null));
        answer["Outputs"]["res"].clone()
    }

    #[tokio::test]
    async fn an_invocation_is_the_request_that_it_stands_for() {
        let request = json!({
            "Url": "https://app.example/api/message?a=%20b&event=message",
            "Method": "POST",
            "Query": { "a": " b", "event": "message" },
            "Headers": {
                "X-One": ["1"], "x-two": ["2", "3"], "Content-Length": ["999"],
                "Content-Type": ["text/plain; charset=utf-8"], "X-Name": ["Ünal"],
            },
            "Params": {},
            "Identities": [{ "AuthenticationType": null }],
            "Body": "hällo",
        });
        let answer = output("message", request.clone()).await;
        assert_eq!(answer["statusCode"], "202");
        assert_eq!(answer["status"], "202");
        assert_eq!(answer["body"], "hällo");
        let headers = json!({
            "x-method": "POST", "x-uri": "/api/message?a=%20b&event=message",
            "got-x-one": "1", "got-x-two": "2, 3", "got-x-name": "Ünal",
        });
        assert_eq!(answer["headers"], headers);
        // Another version of the host puts text where objects were.
        let mut as_text = request.clone();
        as_text["Headers"] = request["Headers"].to_string().into();
        assert_eq!(output("message", as_text).await, answer);
        assert_eq!(output("message", request.to_string().into()).await, answer);
    }

    #[tokio::test]
    async fn bodies_keep_their_bytes() {
        let request = |kind: &str, body: Value| {
            json!({
                "Url": "http://h/api/message", "Method": "POST",
                "Headers": { "Content-Type": kind }, "Body": body,
            })
        };
        for (kind, given, taken) in [
            ("application/octet-stream", json!("aGk="), "hi"),
            ("Multipart/form-data; boundary=x", json!("aGk="), "hi"),
            ("text/plain", json!("aGk="), "aGk="),
            ("application/json", json!({ "a": [1, "ä"] }), "{\"a\":[1,\"ä\"]}"),
            ("application/json", json!("{\"a\": 1}"), "{\"a\": 1}"),
            ("text/plain", Value::Null, ""),
        ] {
            assert_eq!(output("message", request(kind, given)).await["body"], taken, "{kind}");
        }
        // Bytes that are no text cannot be told to the host.
        let bytes = request("application/octet-stream", json!("/w=="));
        let (status, answer) = invoke("message", invocation(&bytes)).await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(answer["Outputs"]["res"]["statusCode"], "501");
        assert_eq!(answer["Logs"].as_array().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn the_catch_all_function_gets_the_path_that_was_caught() {
        let request = |params: Value| json!({ "Url": "http://h/x?q", "Method": "GET", "Headers": null, "Params": params });
        for (function, params, uri) in [
            ("index", json!({ "page": "assets/a b.js" }), "/assets/a%20b.js?q"),
            ("index", json!({ "page": "" }), "/api/index?q"),
            ("index", json!({}), "/api/index?q"),
            ("index", json!("{\"page\":\"api/index\"}"), "/api/index?q"),
            ("endpoint", json!({ "page": "assets/a.js" }), "/api/endpoint?q"),
        ] {
            let answer = output(function, request(params)).await;
            assert_eq!(answer["headers"]["x-uri"], uri);
        }
    }

    #[tokio::test]
    async fn what_is_no_invocation_fails_and_says_why() {
        let fine = json!({ "Url": "http://h/", "Method": "GET" });
        for (body, reason) in [
            ("{".to_owned(), "no JSON object"),
            ("[]".to_owned(), "no JSON object"),
            (json!({ "Data": { "req": fine } }).to_string(), "Metadata"),
            (
                json!({ "Data": { "other": fine }, "Metadata": {} }).to_string(),
                "Data.req is missing",
            ),
            (invocation(&json!({ "Url": "/", "Method": "GET" })), "Data.req.Url"),
            (invocation(&json!({ "Url": "http://h/" })), "Method"),
            (invocation(&json!({ "Url": "http://h/", "Method": "G T" })), "Data.req.Method"),
            (
                invocation(
                    &json!({ "Url": "http://h/", "Method": "GET", "Headers": { "a b": ["c"] } }),
                ),
                "Data.req.Headers",
            ),
            (
                invocation(
                    &json!({ "Url": "http://h/", "Method": "GET", "Headers": { "a": ["\n"] } }),
                ),
                "Data.req.Headers",
            ),
            (
                invocation(&json!({
                    "Url": "http://h/", "Method": "POST", "Body": "no base64",
                    "Headers": { "content-type": ["application/octet-stream"] },
                })),
                "Data.req.Body",
            ),
        ] {
            let (status, answer) = invoke("index", body.clone()).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
            let message = answer["message"].as_str().unwrap();
            assert!(message.contains(reason), "{message}");
        }
        let (status, _) = invoke("index", vec![b' '; INVOCATION_BYTES_MAX + 1]).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
    }

    proptest! {
        #[test]
        fn hostile_invocations_never_panic(
            url in "(http://h)?/[ -~]{0,20}", method in "[ -~]{0,8}", name in "[ -~]{0,8}", value in ".{0,8}",
            page in ".{0,20}", function in "[!-~]{1,10}",
        ) {
            let trigger = json!({
                "Url": url, "Method": method, "Headers": { name: [value] }, "Params": { "page": page },
            });
            let _ = request(&function, invocation(&trigger).as_bytes());
            let _ = request(&function, value.as_bytes());
        }
    }
}
