//! The function app in `functions/` behind a real service: every function, in both dialects and in both forms of a custom handler.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use hookwire_proto::handler::{
    EventHandler, EventPattern, HandlerAuth, HandlerUrl, HubSettings, HubsSettings, SystemEvents,
};
use hookwire_proto::name::HubName;
use hookwire_proto::signature::AccessKey;
use hookwire_proto::template::{TemplateDocument, TemplatesDocument};
use hookwire_server::config::Config;
use hookwire_server::node::Node;
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::functions_host::{Called, Form, FunctionsHost};

const KEY: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789ABCDEFGH";

const DEADLINE: Duration = Duration::from_secs(30);

#[derive(Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Preview,
    WebPubSub,
}

#[tokio::test]
async fn the_preview_with_forwarded_requests() {
    every_function_works(Dialect::Preview, Form::Forwarding).await;
}

#[tokio::test]
async fn the_preview_with_payloads() {
    every_function_works(Dialect::Preview, Form::Payload).await;
}

#[tokio::test]
async fn web_pubsub_with_forwarded_requests() {
    every_function_works(Dialect::WebPubSub, Form::Forwarding).await;
}

#[tokio::test]
async fn web_pubsub_with_payloads() {
    every_function_works(Dialect::WebPubSub, Form::Payload).await;
}

/// Sends events of a service to the app at `address`, as the dialect has it.
fn route_events(config: &mut Config, dialect: Dialect, address: &str) {
    match dialect {
        Dialect::Preview => {
            config.templates = TemplatesDocument {
                templates: vec![TemplateDocument {
                    url_template: format!("http://{address}/api/{{event}}"),
                    ..TemplateDocument::default()
                }],
            };
        }
        Dialect::WebPubSub => {
            let handler = EventHandler {
                url: HandlerUrl::parse(&format!("http://{address}/api/eventhandler")).unwrap(),
                user_events: EventPattern::any(),
                system_events: SystemEvents { connect: true, connected: false, disconnected: true },
                auth: HandlerAuth::None,
                timeout: None,
            };
            let settings =
                HubSettings { handlers: vec![Arc::new(handler)], ..HubSettings::default() };
            let hubs = BTreeMap::from([(HubName::parse("chat").unwrap(), Arc::new(settings))]);
            config.hubs = HubsSettings { hubs, ..HubsSettings::default() };
        }
    }
}

async fn every_function_works(dialect: Dialect, form: Form) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let folder = tempfile::tempdir().unwrap();
    let key = AccessKey::parse(KEY).unwrap();
    let mut config = Config::for_one_machine("127.0.0.1:0".parse().unwrap(), key, folder.path());
    route_events(&mut config, dialect, &address);
    let node = Node::start(config).await.unwrap();
    let connection_string = node.connection_string().reveal();
    let mut settings = vec![("AzureWebJobsStorage", None)];
    match dialect {
        Dialect::Preview => {
            settings.push(("AzureSignalRConnectionString", Some(&*connection_string)));
        }
        Dialect::WebPubSub => {
            settings.push(("AzureSignalRConnectionString", None));
            settings.push(("HubName", None));
            settings.push(("WebPubSubConnectionString", Some(&*connection_string)));
            settings.push(("WebPubSubHub", Some("chat")));
        }
    }
    let app = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../functions");
    let executable = Path::new(env!("CARGO_BIN_EXE_hookwire"));
    let host = FunctionsHost::start(&app, executable, form, listener, &settings).await.unwrap();

    // The page, and what stands beside it.
    let (status, kind, _) = ask(Method::GET, &address, "/api/index").await;
    assert!(status == 200 && kind.starts_with("text/html"), "{status} {kind}");
    let (status, _, _) = ask(Method::GET, &address, "/").await;
    assert!(status == 200 || status.is_redirection(), "{status}");
    assert_eq!(ask(Method::GET, &address, "/assets/none.js").await.0, 404);
    assert!(host.called().iter().all(|called| called.function == "index"), "{:?}", host.called());
    assert_eq!(host.called().len(), 3);

    // Whom no function is for, and who is not the service.
    assert_eq!(ask(Method::POST, &address, "/index").await.0, 404);
    let door = if dialect == Dialect::Preview { "/api/message" } else { "/api/eventhandler" };
    let (status, _, body) = ask(Method::POST, &address, door).await;
    assert!(status.is_client_error() && status != 404, "{status} {body}");

    let (status, _, body) = ask(Method::GET, &address, "/api/endpoint").await;
    assert_eq!(status, 200);
    let endpoint: Value = serde_json::from_str(&body).unwrap();
    let before = host.called().len();
    talk(&endpoint).await;
    let calls = |calls: &[(&str, &str)]| -> Vec<Called> {
        let called = |(function, event): &(&str, &str)| Called {
            function: (*function).to_owned(),
            event: (*event).to_owned(),
            status: if *event == "disconnected" { 204 } else { 200 },
        };
        calls.iter().map(called).collect()
    };
    let expected = match dialect {
        Dialect::Preview => calls(&[
            ("connect", "connect"),
            ("message", "message"),
            ("message", "message"),
            ("message", "message"),
            ("disconnect", "disconnect"),
        ]),
        Dialect::WebPubSub => calls(&[
            ("eventhandler", ""),
            ("eventhandler", "connect"),
            ("eventhandler", "message"),
            ("eventhandler", "message"),
            ("eventhandler", "message"),
            ("eventhandler", "disconnected"),
        ]),
    };
    let waiting = async {
        while host.called().len() < before + expected.len() {
            tokio::task::yield_now().await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, waiting).await.is_ok(), "{:?}", host.called());
    assert_eq!(host.called()[before..], expected);
    assert!(node.shutdown().await);
}

/// Connects to where the app says, talks, and leaves.
async fn talk(endpoint: &Value) {
    let mut url: url::Url = endpoint["url"].as_str().unwrap().parse().unwrap();
    url.query_pairs_mut().append_pair("name", "Änne");
    let mut request = url.as_str().into_client_request().unwrap();
    let subprotocol = endpoint["subprotocol"].as_str().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", subprotocol.parse().unwrap());
    let (mut client, answer) = connect_async(request).await.unwrap();
    assert_eq!(answer.headers()["sec-websocket-protocol"], subprotocol);
    for (re, frame) in [
        (1, r#"{"re":1,"op":"hello"}"#),
        (2, r#"{"re":2,"op":"send","conversation":"public","key":"k","text":"grüß dich"}"#),
    ] {
        client.send(Message::text(frame)).await.unwrap();
        let answer = loop {
            let message = tokio::time::timeout(DEADLINE, client.next()).await.unwrap();
            let Message::Text(text) = message.unwrap().unwrap() else { continue };
            let frame: Value = serde_json::from_str(&text).unwrap();
            if frame["re"] == re {
                break frame;
            }
        };
        assert_eq!(answer["type"], "ok", "{answer}");
        match re {
            1 => assert_eq!(answer["user"], "Änne"),
            _ => assert_eq!(answer["message"]["text"], "grüß dich"),
        }
    }
    // A frame of bytes is refused by the chat itself, so it came through.
    client.send(Message::binary(vec![0, 255])).await.unwrap();
    client.close(None).await.unwrap();
}

/// Returns status, type and body of an answer of the app.
async fn ask(method: Method, address: &str, path: &str) -> (StatusCode, String, String) {
    let client = Client::builder(TokioExecutor::new()).build_http();
    let request = http::Request::builder()
        .method(method)
        .uri(format!("http://{address}{path}"))
        .body(Full::<bytes::Bytes>::default())
        .unwrap();
    let answer = client.request(request).await.unwrap();
    let (head, body) = answer.into_parts();
    let kind = head.headers.get("content-type").map(|kind| kind.to_str().unwrap().to_owned());
    let body = body.collect().await.unwrap().to_bytes();
    (head.status, kind.unwrap_or_default(), String::from_utf8_lossy(&body).into_owned())
}
