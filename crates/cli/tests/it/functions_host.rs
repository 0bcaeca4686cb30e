//! The side of the Azure Functions host: reads a function app, starts its custom handler, and calls it in either form.

use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderName, HeaderValue, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::{Map, Value, json};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use url::form_urlencoded;

/// How long the host waits until its handler listens.
const START_TIME_MAX: Duration = Duration::from_mins(1);

const BODY_BYTES_MAX: usize = 1 << 20;

/// How a handler is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Forwarding,
    Payload,
}

/// A call: the function, the event that the request was about, and the status of the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Called {
    pub(crate) function: String,
    pub(crate) event: String,
    pub(crate) status: u16,
}

/// A running host with its handler.
pub(crate) struct FunctionsHost {
    called: Arc<Mutex<Vec<Called>>>,
    _handler: Child,
    _package: TempDir,
}

/// A function app as it stands in its folder.
struct App {
    form: Form,
    functions: BTreeMap<String, Function>,
    handler: SocketAddr,
    client: Client<HttpConnector, Body>,
    called: Arc<Mutex<Vec<Called>>>,
}

#[derive(Debug)]
struct Function {
    methods: Vec<String>,
    route: String,
}

impl Function {
    /// Reads a `function.json`, which must have one HTTP trigger and one HTTP output: others are never forwarded.
    fn read(folder: &Path) -> Result<Self> {
        let document: Value = serde_json::from_slice(&fs::read(folder.join("function.json"))?)?;
        let [trigger, output] = document["bindings"].as_array().context("bindings")?.as_slice()
        else {
            bail!("two bindings are expected")
        };
        for (binding, kind, direction, name) in
            [(trigger, "httpTrigger", "in", "req"), (output, "http", "out", "res")]
        {
            ensure!(binding["type"] == kind && binding["direction"] == direction, "{binding}");
            ensure!(binding["name"] == name, "{binding}");
        }
        ensure!(trigger["authLevel"] == "anonymous", "{trigger}");
        let methods = trigger["methods"].as_array().context("methods")?;
        let methods = methods.iter().map(|method| method.as_str().unwrap().to_uppercase());
        let route = trigger["route"].as_str().context("route")?.to_owned();
        ensure!(!route.starts_with('/'), "a route does not begin with a slash");
        Ok(Self { methods: methods.collect(), route })
    }

    /// Returns the parameters of the route if the path is covered by it.
    fn params(&self, path: &str) -> Option<Map<String, Value>> {
        let path = path.trim_matches('/');
        if let Some(name) = self.route.strip_prefix("{*").and_then(|rest| rest.strip_suffix('}')) {
            let mut params = Map::new();
            if !path.is_empty() {
                params.insert(name.to_owned(), path.into());
            }
            return Some(params);
        }
        path.eq_ignore_ascii_case(&self.route).then(Map::new)
    }
}

impl FunctionsHost {
    /// Starts the handler of the app in `folder` with `executable` in its place, and serves the app on `listener`. `settings` stand above
    /// those of the example; `None` takes one out.
    pub(crate) async fn start(
        folder: &Path,
        executable: &Path,
        form: Form,
        listener: TcpListener,
        settings: &[(&str, Option<&str>)],
    ) -> Result<Self> {
        let host: Value = serde_json::from_slice(&fs::read(folder.join("host.json"))?)?;
        ensure!(host["version"] == "2.0" && host["extensions"]["http"]["routePrefix"] == "");
        let handler = &host["customHandler"];
        ensure!(handler["enableForwardingHttpRequest"] == true, "what is shipped forwards");
        let package = tempfile::tempdir()?;
        let path = handler["description"]["defaultExecutablePath"].as_str().context("path")?;
        symlink(executable, package.path().join(path))?;
        let arguments = handler["description"]["arguments"].as_array().context("arguments")?;
        let mut functions = BTreeMap::new();
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if entry.path().join("function.json").exists() {
                let name = entry.file_name().to_string_lossy().into_owned();
                let function = Function::read(&entry.path()).with_context(|| name.clone())?;
                functions.insert(name, function);
            }
        }
        let address = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
        let example = fs::read(folder.join("local.settings.json.example"))?;
        let example: Value = serde_json::from_slice(&example)?;
        ensure!(example["Values"]["FUNCTIONS_WORKER_RUNTIME"] == "Custom");
        let mut command = Command::new(package.path().join(path));
        command.args(arguments.iter().map(|argument| argument.as_str().unwrap()));
        command.current_dir(package.path()).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.env_clear().env("HOOKWIRE_LOG", "warn");
        for (name, value) in example["Values"].as_object().context("Values")? {
            command.env(name, value.as_str().context("values are texts")?);
        }
        for (name, value) in settings {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env("FUNCTIONS_CUSTOMHANDLER_PORT", address.port().to_string());
        let handler = command.spawn()?;
        let ready = async {
            while TcpStream::connect(address).await.is_err() {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(START_TIME_MAX, ready).await.context("the handler never listens")?;
        let called = Arc::<Mutex<Vec<Called>>>::default();
        let client = Client::builder(TokioExecutor::new()).build_http();
        let app = App { form, functions, handler: address, client, called: called.clone() };
        let router = Router::new().fallback(serve).with_state(Arc::new(app));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { called, _handler: handler, _package: package })
    }

    /// Returns the calls so far.
    pub(crate) fn called(&self) -> Vec<Called> {
        self.called.lock().unwrap().clone()
    }
}

async fn serve(State(app): State<Arc<App>>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let mut covering: Vec<_> = app
        .functions
        .iter()
        .filter_map(|(name, function)| Some((name, function, function.params(&path)?)))
        .collect();
    // A route with a catch-all comes last.
    covering.sort_by_key(|(_, function, _)| function.route.starts_with("{*"));
    let Some((name, _, params)) = covering.into_iter().find(|(_, function, _)| {
        function.methods.iter().any(|method| method == request.method().as_str())
    }) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let event = event(request.headers());
    let answered = match app.form {
        Form::Forwarding => app.forward(request).await,
        Form::Payload => app.invoke(name, params, request).await,
    };
    // What fails is a 500 to the caller.
    let answer = answered.unwrap_or_else(|error| {
        (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")).into_response()
    });
    let status = answer.status().as_u16();
    app.called.lock().unwrap().push(Called { function: name.clone(), event, status });
    answer
}

/// Returns the event that a request is about, in either dialect.
fn event(headers: &http::HeaderMap) -> String {
    let value = headers.get("x-asrs-event").or_else(|| headers.get("ce-eventname"));
    value.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).unwrap_or_default()
}

impl App {
    /// Sends the request on as it is.
    async fn forward(&self, mut request: Request) -> Result<Response> {
        let rest = request.uri().path_and_query().context("a path")?;
        *request.uri_mut() = format!("http://{}{rest}", self.handler).parse()?;
        mark(request.headers_mut());
        Ok(self.client.request(request).await?.into_response())
    }

    /// Invokes a function by its name, with the request as payload.
    async fn invoke(
        &self,
        function: &str,
        params: Map<String, Value>,
        request: Request,
    ) -> Result<Response> {
        let (head, body) = request.into_parts();
        let body = to_bytes(body, BODY_BYTES_MAX).await?;
        let host = head.headers.get("host").and_then(|host| host.to_str().ok()).unwrap_or("host");
        let query = head.uri.query().unwrap_or_default();
        let mut headers = Map::new();
        for name in head.headers.keys() {
            let values = head.headers.get_all(name).iter();
            let values = values.map(|value| String::from_utf8_lossy(value.as_bytes()));
            headers.insert(name.to_string(), values.collect());
        }
        let mut trigger = json!({
            "Url": format!("http://{host}{}", head.uri),
            "Method": head.method.as_str(),
            "Query": form_urlencoded::parse(query.as_bytes()).collect::<BTreeMap<_, _>>(),
            "Headers": headers,
            "Params": params,
            "Identities": [],
        });
        if !body.is_empty() {
            let is_binary = head.headers.get("content-type").is_some_and(|kind| {
                kind == "application/octet-stream" || kind.as_bytes().starts_with(b"multipart/")
            });
            let text =
                if is_binary { STANDARD.encode(&body) } else { String::from_utf8(body.into())? };
            trigger["Body"] = text.into();
        }
        let sys =
            json!({ "MethodName": function, "UtcNow": "2026-01-01T00:00:00Z", "RandGuid": "0" });
        let payload = json!({ "Data": { "req": trigger }, "Metadata": { "sys": sys } });
        let mut request = Request::post(format!("http://{}/{function}", self.handler))
            .header("content-type", "application/json")
            .body(Body::from(payload.to_string()))?;
        mark(request.headers_mut());
        let answer = self.client.request(request).await?.into_response();
        ensure!(answer.status().is_success(), "the invocation failed with {}", answer.status());
        let answer = to_bytes(answer.into_body(), 8 * BODY_BYTES_MAX).await?;
        response(&serde_json::from_slice(&answer)?)
    }
}

fn mark(headers: &mut http::HeaderMap) {
    let id = HeaderValue::from_static("4a5cbd8e-3f5f-4a0e-9a3d-7d0d8c6f0000");
    headers.insert("x-azure-functions-invocationid", id);
    headers.insert("x-azure-functions-hostversion", HeaderValue::from_static("4.0.0.0"));
}

/// Returns the answer of an invocation, whose output must have every part.
fn response(result: &Value) -> Result<Response> {
    let output = result["Outputs"]["res"].as_object().context("Outputs.res")?;
    for part in ["statusCode", "status", "headers", "body"] {
        ensure!(output.contains_key(part), "{part} is missing");
    }
    let status: u16 = output["statusCode"].as_str().context("a text")?.parse()?;
    let body = output["body"].as_str().context("a text")?.to_owned();
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = StatusCode::from_u16(status)?;
    for (name, value) in output["headers"].as_object().context("headers")? {
        let value = HeaderValue::from_bytes(value.as_str().context("a text")?.as_bytes())?;
        response.headers_mut().insert(HeaderName::from_bytes(name.as_bytes())?, value);
    }
    Ok(response)
}
