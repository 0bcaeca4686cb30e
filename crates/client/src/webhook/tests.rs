use std::collections::BTreeMap;

use hookwire_proto::data::DataKind;
use http::HeaderName;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::payload::Payload;

const URL: &str = "http://localhost/eventhandler?code=1";

fn key(text: &str) -> AccessKey {
    AccessKey::parse_of_any_strength(text).unwrap()
}

fn webhook() -> Webhook {
    Webhook::new([key("first"), key("second")]).hub("Chat").unwrap()
}

fn user_event(name: &str, payload: impl Into<Payload>) -> Event {
    Event::User { name: name.to_owned(), payload: payload.into(), metadata: BTreeMap::new() }
}

fn headers(event: Event, key: AccessKey) -> HeaderMap {
    CloudEvent::new("chat", "id-1", event).to_request(URL, &[key]).unwrap().headers().clone()
}

async fn body(response: Response<Full<Bytes>>) -> String {
    let bytes = response.into_body().collect().await.unwrap().to_bytes();
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn what_the_service_sends_is_read() {
    let mut map = HeaderMap::new();
    let signature = hookwire_proto::signature::sign(&[key("other"), key("second")], "id-1");
    for (name, value) in [
        ("ce-specversion", "1.0"),
        ("ce-awpsversion", "1.0"),
        ("ce-type", "azure.webpubsub.user.Order.paid"),
        ("ce-source", "/hubs/chat/client/id-1"),
        ("ce-id", "7"),
        ("ce-time", "2026-01-02T03:04:05Z"),
        ("ce-signature", &signature),
        ("ce-connectionId", "id-1"),
        ("ce-hub", "CHAT"),
        ("ce-eventName", "Order.paid"),
        ("ce-userId", "änn"),
        ("ce-subprotocol", "json.webpubsub.azure.v1"),
        ("ce-connectionState", "eyJhIjoxfQ=="),
        ("WebHook-Request-Origin", "service.example"),
        ("X-WebPubSub-Metadata-Trace", "t"),
        ("Content-Type", "Application/JSON; charset=utf-8"),
    ] {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        map.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    let event = webhook().event(&map, Bytes::from_static(b"{\"id\": 7}")).unwrap();
    let context = &event.context;
    assert_eq!(context.connection_id, "id-1");
    assert_eq!(context.user.as_deref(), Some("änn"));
    assert_eq!(context.subprotocol.as_deref(), Some("json.webpubsub.azure.v1"));
    assert_eq!(context.id.as_deref(), Some("7"));
    assert_eq!(context.origin.as_deref(), Some("service.example"));
    assert_eq!(context.state_json().unwrap(), Some(json!({"a": 1})));
    assert!(context.state_json::<String>().is_err());
    let Event::User { name, payload, metadata } = event.event else { panic!("{event:?}") };
    assert_eq!((name.as_str(), payload.as_text()), ("Order.paid", Some("{\"id\": 7}")));
    assert_eq!(metadata, BTreeMap::from([("trace".to_owned(), "t".to_owned())]));
}

#[test]
fn a_client_that_wants_in_shows_itself() {
    let body = r#"{"claims":{"role":["a","b"]},"query":{"name":["x","y"]},
        "headers":{"User-Agent":["curl"],"cookie":["secret"]},"subprotocols":["one","two"],
        "clientCertificates":[{"thumbprint":"AB","content":"PEM"}],"mqtt":{"later":1}}"#;
    let map = headers(Event::Connect(ConnectRequest::default()), key("first"));
    let event = webhook().event(&map, body.into()).unwrap();
    assert!(!format!("{event:?}").contains("secret"));
    let Event::Connect(connect) = event.event else { panic!("{event:?}") };
    assert_eq!((connect.claim("role"), connect.query("name")), (Some("a"), Some("y")));
    assert_eq!(connect.header("user-agent"), Some("curl"));
    assert!(connect.offers("two") && !connect.offers("three"));
    assert_eq!(connect.client_certificates[0].thumbprint, "AB");

    let nothing = webhook().event(&map, r#"{"claims":null,"subprotocols":null}"#.into()).unwrap();
    assert_eq!(nothing.event, Event::Connect(ConnectRequest::default()));
}

#[test]
fn the_end_of_a_connection_has_a_reason_or_none() {
    let map = headers(Event::Disconnected { reason: None }, key("first"));
    let reason = |body: &'static str| webhook().event(&map, body.into()).map(|event| event.event);
    let told = |reason: Option<&str>| Ok(Event::Disconnected { reason: reason.map(str::to_owned) });
    assert_eq!(reason(r#"{"reason":"bye"}"#), told(Some("bye")));
    for body in ["", "{}", r#"{"reason":null}"#, r#"{"reason":""}"#] {
        assert_eq!(reason(body), told(None), "{body}");
    }
    for body in ["[\"bye\"]", "null", "{", r#"{"reason":1}"#] {
        let error = CloudEventError::Body { event: "disconnected" };
        assert_eq!(reason(body), Err(WebhookError::Malformed(error)), "{body}");
    }
}

#[test]
fn what_is_not_known_is_not_refused() {
    let map = headers(Event::Other("sys.explode".to_owned()), key("first"));
    let event = webhook().event(&map, Bytes::from_static(b"\xff")).unwrap();
    assert_eq!(event.event, Event::Other("sys.explode".to_owned()));
}

#[test]
fn either_key_signs_and_strangers_do_not() {
    for (signed, is_taken) in [("first", true), ("second", true), ("third", false)] {
        let map = headers(Event::Connected, key(signed));
        assert_eq!(webhook().context(&map).is_ok(), is_taken, "{signed}");
    }
    let mut map = headers(Event::Connected, key("first"));
    map.insert(header::CONNECTION_ID, HeaderValue::from_static("id-2"));
    assert_eq!(webhook().context(&map).unwrap_err(), WebhookError::NotSigned);
    map.remove(header::SIGNATURE);
    assert_eq!(webhook().context(&map).unwrap_err(), WebhookError::NotSigned);
    assert!(webhook().without_signatures().context(&map).is_ok());
    assert_eq!(Webhook::new([]).context(&map).unwrap_err(), WebhookError::NotSigned);
}

#[test]
fn events_of_other_hubs_are_not_taken() {
    let map = headers(Event::Connected, key("first"));
    let other = webhook().hub("other").unwrap();
    assert_eq!(other.context(&map).unwrap_err(), WebhookError::OtherHub);
    assert!(Webhook::new([key("first")]).context(&map).is_ok());
    let service = ServiceClient::new("Endpoint=http://h;AccessKey=first;", "CHAT").unwrap();
    assert!(Webhook::of(&service).context(&map).is_ok());
}

#[test]
fn faults_are_named() {
    let good = headers(user_event("e", "x"), key("first"));
    let fault = |change: &dyn Fn(&mut HeaderMap)| {
        let mut map = good.clone();
        change(&mut map);
        match webhook().event(&map, Bytes::from_static(b"\xff")) {
            Err(WebhookError::Malformed(error)) => error,
            other => panic!("{other:?}"),
        }
    };
    for name in [header::TYPE, header::CONNECTION_ID, header::HUB] {
        let missing = CloudEventError::Missing { header: name.clone() };
        assert_eq!(fault(&|map| drop(map.remove(&name))), missing);
        let empty = HeaderValue::from_static("");
        assert_eq!(fault(&|map| drop(map.insert(&name, empty.clone()))), missing);
        let twice = HeaderValue::from_static("x");
        assert_eq!(
            fault(&|map| assert!(map.append(&name, twice.clone()))),
            CloudEventError::Repeated { header: name.clone() }
        );
    }
    let bytes = HeaderValue::from_bytes(b"\xff").unwrap();
    assert_eq!(
        fault(&|map| drop(map.insert(header::USER_ID, bytes.clone()))),
        CloudEventError::NotText { header: header::USER_ID }
    );
    let kind = HeaderValue::from_static("microsoft.storage.created");
    assert_eq!(
        fault(&|map| drop(map.insert(header::TYPE, kind.clone()))),
        CloudEventError::ForeignType
    );
    let html = HeaderValue::from_static("text/html");
    assert_eq!(
        fault(&|map| drop(map.insert(http::header::CONTENT_TYPE, html.clone()))),
        CloudEventError::ContentType
    );
    assert!(matches!(fault(&|_| ()), CloudEventError::Payload(_)), "the text is not UTF-8");
}

#[tokio::test]
async fn the_service_is_told_whose_events_are_wanted() {
    let ask = |webhook: &Webhook| {
        let map = HeaderMap::from_iter([(
            header::REQUEST_ORIGIN,
            HeaderValue::from_static("service.example"),
        )]);
        webhook.validate(&map).headers().get(header::ALLOWED_ORIGIN).cloned().unwrap()
    };
    assert_eq!(ask(&webhook()), "*");
    let named = webhook().allow_origins(["service.example", "Other.example:8080"]).unwrap();
    assert_eq!(ask(&named), "service.example,other.example:8080");
    for host in ["", "a b", "a/b", "http://a", "u@h", "h?q"] {
        assert!(webhook().allow_origins([host]).is_err(), "{host}");
    }

    let request = |method: &str| Request::builder().method(method).uri(URL);
    let options = request("OPTIONS").header("WebHook-Request-Origin", "h");
    let options = options.body(Full::<Bytes>::default()).unwrap();
    let never = async |_| panic!("this is no event");
    let answer = webhook().handle(options, never).await;
    assert_eq!(
        (answer.status(), &answer.headers()["webhook-allowed-origin"]),
        (StatusCode::OK, &HeaderValue::from_static("*"))
    );
    let silent = request("OPTIONS").body(Full::<Bytes>::default()).unwrap();
    assert_eq!(webhook().handle(silent, never).await.status(), StatusCode::BAD_REQUEST);
    let got = request("GET").body(Full::<Bytes>::default()).unwrap();
    let answer = webhook().handle(got, never).await;
    assert_eq!(answer.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(answer.headers()["allow"], "POST, OPTIONS");
}

#[tokio::test]
async fn a_request_that_is_refused_says_why_and_its_body_is_limited() {
    let request = |key: AccessKey| {
        let event = CloudEvent::new("chat", "id-1", user_event("e", "0123456789"));
        event.to_request(URL, &[key]).unwrap()
    };
    let echo = async |event: CloudEvent| {
        let Event::User { payload, .. } = event.event else { panic!("{event:?}") };
        EventAnswer::new(payload).into()
    };
    let small = webhook().body_bytes_max(9);
    let answer = small.handle(request(key("first")), echo).await;
    assert_eq!(answer.status(), StatusCode::PAYLOAD_TOO_LARGE);
    let answer = small.handle(request(key("third")), echo).await;
    assert_eq!(answer.status(), StatusCode::UNAUTHORIZED, "nothing of a stranger's body is read");
    let words = body(answer).await;
    assert_eq!(words, "the request is not signed with the service's access key");
    let answer = webhook().body_bytes_max(10).handle(request(key("second")), echo).await;
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.headers()["content-type"], "text/plain; charset=utf-8");
    assert_eq!(body(answer).await, "0123456789");
}

#[tokio::test]
async fn answers_have_the_documented_form() {
    let state = |response: &Response<Full<Bytes>>| {
        response.headers().get("ce-connectionstate").map(|value| value.to_str().unwrap().to_owned())
    };
    let answer = ConnectAnswer::new()
        .user("ann")
        .group("g")
        .group("h")
        .may(hookwire_proto::permission::Permission::JoinLeaveGroup)
        .role("mine")
        .subprotocol("s")
        .state_json(&json!({"a": 1}))
        .unwrap()
        .into_response();
    assert_eq!(
        (answer.status(), state(&answer).as_deref()),
        (StatusCode::OK, Some("eyJhIjoxfQ=="))
    );
    assert_eq!(
        body(answer).await,
        r#"{"userId":"ann","groups":["g","h"],"roles":["webpubsub.joinLeaveGroup","mine"],"subprotocol":"s"}"#
    );
    let answer = ConnectAnswer::new().without_roles().into_response();
    assert_eq!(body(answer).await, r#"{"roles":[]}"#);
    let answer = ConnectAnswer::new().state(HeaderValue::from_static("s")).into_response();
    assert_eq!((answer.status(), state(&answer).as_deref()), (StatusCode::NO_CONTENT, Some("s")));

    for (answer, content_type, content) in [
        (EventAnswer::from("hi"), "text/plain; charset=utf-8", "hi"),
        (Payload::json(&[1]).unwrap().into(), "application/json; charset=utf-8", "[1]"),
        (vec![b'b'].into(), "application/octet-stream", "b"),
    ] {
        let answer = answer.state(HeaderValue::from_static("t")).into_response();
        assert_eq!((answer.status(), state(&answer).as_deref()), (StatusCode::OK, Some("t")));
        assert_eq!(answer.headers()["content-type"], content_type);
        assert_eq!(body(answer).await, content);
    }
    assert_eq!(EventAnswer::nothing().into_response().status(), StatusCode::NO_CONTENT);
    assert_eq!(Answer::from(()).into_response().status(), StatusCode::NO_CONTENT);

    let refused = Refusal::new(StatusCode::FORBIDDEN).message("no").into_response();
    assert_eq!(refused.status(), StatusCode::FORBIDDEN);
    assert_eq!(body(refused).await, "no");
    let unmeant = Refusal::new(StatusCode::OK).into_response();
    assert_eq!(unmeant.status(), StatusCode::INTERNAL_SERVER_ERROR);
}

fn words() -> impl Strategy<Value = String> {
    "[a-zäß€ 0-9]{1,12}"
        .prop_map(|text| text.trim().to_owned())
        .prop_filter("blank", |text| !text.is_empty())
}

fn payload() -> impl Strategy<Value = Payload> {
    prop_oneof![
        ".{0,40}".prop_map(Payload::from),
        any::<Vec<u8>>().prop_map(Payload::from),
        any::<Vec<u32>>().prop_map(|list| Payload::json(&list).unwrap()),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    let map = || {
        proptest::collection::btree_map(".{0,8}", proptest::collection::vec(".{0,8}", 0..3), 0..3)
    };
    let connect = (map(), map(), map(), proptest::collection::vec("[a-z.]{1,9}", 0..3));
    let metadata = proptest::collection::btree_map("[a-z0-9.-]{1,9}", "[a-zA-Z0-9]{0,9}", 0..3);
    prop_oneof![
        connect.prop_map(|(claims, query, headers, subprotocols)| {
            let client_certificates = Vec::new();
            Event::Connect(ConnectRequest {
                claims,
                query,
                headers,
                subprotocols,
                client_certificates,
            })
        }),
        Just(Event::Connected),
        proptest::option::of(".{1,20}").prop_map(|reason| Event::Disconnected { reason }),
        ".{1,20}".prop_map(|group| Event::Joined { group }),
        ".{1,20}".prop_map(|group| Event::Left { group }),
        ("[a-zA-Z][a-zA-Z0-9_.-]{0,20}", payload(), metadata)
            .prop_map(|(name, payload, metadata)| Event::User { name, payload, metadata }),
    ]
}

proptest! {
    #[test]
    fn what_is_posted_is_read(event in event(), user in proptest::option::of(words()), state in proptest::option::of(words())) {
        let mut sent = CloudEvent::new("chat", "id-1", event);
        sent.context.user = user;
        sent.context.state = state;
        let keys = [key("first")];
        let request = sent.to_request(URL, &keys).unwrap();
        let body = whole(request.body().clone());
        let read = webhook().event(request.headers(), body).unwrap();
        prop_assert_eq!(&read.event, &sent.event);
        prop_assert_eq!(&read.context.user, &sent.context.user);
        prop_assert_eq!(&read.context.state, &sent.context.state);
    }

    #[test]
    fn hostile_requests_never_panic(
        kind in "(azure.webpubsub.)?(sys.|user.|gp.)?(connect|disconnected|joined|é)?",
        content_type in "(text/plain|application/json|application/x-protobuf)?;?.{0,5}",
        body in any::<Vec<u8>>(),
    ) {
        let mut map = headers(user_event("e", "x"), key("first"));
        for (name, value) in [(header::TYPE, kind), (http::header::CONTENT_TYPE, content_type)] {
            if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
                map.insert(name, value);
            }
        }
        if let Ok(CloudEvent { event: Event::User { payload, .. }, .. }) = webhook().event(&map, body.into())
            && payload.kind() == DataKind::Text
        {
            prop_assert!(payload.as_text().is_some());
        }
    }
}

/// A body that is there as a whole needs no runtime.
fn whole(body: Full<Bytes>) -> Bytes {
    let mut body = std::pin::pin!(body.collect());
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    let std::task::Poll::Ready(Ok(collected)) = Future::poll(body.as_mut(), &mut context) else {
        panic!("the body is there")
    };
    collected.to_bytes()
}
