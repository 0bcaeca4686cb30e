//! The REST API of Web PubSub from outside, as its SDKs call it: with a token for the whole URL, and exact statuses expected.

use std::time::Duration;

use hookwire_proto::name::ConnectionId;
use hookwire_proto::signature::AccessKey;
use hookwire_proto::token::NewToken;
use serde_json::{Map, Value, json};
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;

use crate::node::{Client, KEYS, TestNode, next, start};

/// Returns a token for a URL, or for a client of it.
pub(crate) fn sign(audience: &str, user: Option<&str>, claims: &Value) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let claims: Map<String, Value> = claims.as_object().cloned().unwrap_or_default();
    let lifetime = Duration::from_mins(1);
    let token = NewToken { audience, issued_at: now, lifetime, user, claims };
    token.sign(&AccessKey::parse(KEYS[0]).unwrap())
}

impl TestNode {
    /// Calls a path, signed for the URL as it is; `headers` end with a line break. Returns the status and the whole answer.
    pub(crate) async fn signed(
        &self,
        method: &str,
        path: &str,
        headers: &str,
        body: &[u8],
    ) -> (u16, String) {
        let token = sign(&format!("http://{}{path}", self.address), None, &json!({}));
        self.raw(method, path, &format!("Authorization: Bearer {token}\r\n{headers}"), body).await
    }

    /// Calls what stands behind the hub; returns the status.
    async fn api(&self, method: &str, path: &str) -> u16 {
        self.signed(method, &format!("/api/hubs/chat{path}"), "", b"").await.0
    }

    /// Posts a body behind the hub; returns the status.
    async fn post(&self, path: &str, content_type: &str, body: &[u8]) -> u16 {
        let header = format!("Content-Type: {content_type}\r\n");
        self.signed("POST", &format!("/api/hubs/chat{path}"), &header, body).await.0
    }

    /// Gets JSON from a path.
    pub(crate) async fn json(&self, path: &str) -> Value {
        let (status, answer) = self.signed("GET", path, "", b"").await;
        assert_eq!(status, 200, "{answer}");
        body(&answer)
    }

    /// Connects a simple client.
    pub(crate) async fn simple(&self, user: Option<&str>, claims: &Value) -> Client {
        let token = sign(&format!("http://{}/client/hubs/chat", self.address), user, claims);
        self.with_token(&token).await
    }

    async fn with_token(&self, token: &str) -> Client {
        let url = format!("ws://{}/client/hubs/chat?access_token={token}", self.address);
        connect_async(url).await.unwrap().0
    }

    /// Connects a client of the JSON subprotocol; returns its id too.
    pub(crate) async fn with_json(&self, user: Option<&str>, claims: &Value) -> (Client, String) {
        self.speaking("json.webpubsub.azure.v1", user, claims).await
    }

    /// Returns a client of a JSON subprotocol and its connection's id.
    pub(crate) async fn speaking(
        &self,
        subprotocol: &str,
        user: Option<&str>,
        claims: &Value,
    ) -> (Client, String) {
        let token = sign(&format!("http://{}/client/hubs/chat", self.address), user, claims);
        let url = format!("ws://{}/client/hubs/chat?access_token={token}", self.address);
        let mut request = url.into_client_request().unwrap();
        request.headers_mut().insert("sec-websocket-protocol", subprotocol.parse().unwrap());
        let mut client = connect_async(request).await.unwrap().0;
        let connected = read_json(&mut client).await;
        assert_eq!(connected["event"], "connected");
        let id = connected["connectionId"].as_str().unwrap().to_owned();
        (client, id)
    }
}

/// Returns the next message as JSON.
pub(crate) async fn read_json(client: &mut Client) -> Value {
    match next(client).await {
        Some(Message::Text(text)) => serde_json::from_str(&text).unwrap(),
        other => panic!("{other:?} is no JSON message"),
    }
}

/// Returns the body of an answer.
fn body(answer: &str) -> Value {
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

fn encoded(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).collect()
}

#[tokio::test]
async fn a_body_reaches_every_kind_of_client_in_its_form() {
    let node = start(None, |_| {}).await;
    let mut simple = node.simple(Some("ann"), &json!({ "webpubsub.group": "g" })).await;
    let (mut in_json, id) = node.with_json(Some("bob"), &json!({ "webpubsub.group": ["g"] })).await;
    for (path, content_type, body, raw, told) in [
        (
            "/:send".to_owned(),
            "text/plain; charset=utf-8",
            "hällo".as_bytes(),
            Message::text("hällo"),
            json!({ "type": "message", "from": "server", "dataType": "text", "data": "hällo" }),
        ),
        (
            "/groups/g/:send".to_owned(),
            "application/json",
            br#"{"b": 1, "a": 12345678901234567890}"#,
            Message::text(r#"{"b": 1, "a": 12345678901234567890}"#),
            json!({
                "type": "message", "from": "group", "group": "g", "dataType": "json",
                "data": { "b": 1, "a": 12_345_678_901_234_567_890_u64 },
            }),
        ),
        (
            "/:send".to_owned(),
            "application/octet-stream",
            b"\xff\x00",
            Message::binary(b"\xff\x00".to_vec()),
            json!({ "type": "message", "from": "server", "dataType": "binary", "data": "/wA=" }),
        ),
        (
            "/:send".to_owned(),
            "text/plain; charset=iso-8859-1",
            b"\xe4",
            Message::text("ä"),
            json!({ "type": "message", "from": "server", "dataType": "text", "data": "ä" }),
        ),
    ] {
        assert_eq!(node.post(&path, content_type, body).await, 202);
        assert_eq!(next(&mut simple).await, Some(raw), "{content_type}");
        assert_eq!(read_json(&mut in_json).await, told, "{content_type}");
    }
    // Without a type it is binary; metadata travels with the message.
    let path = format!("/api/hubs/chat/connections/{id}/:send");
    let metadata = "X-WebPubSub-Metadata-Trace: a, b\r\nx-webpubsub-metadata-k: v\r\n";
    assert_eq!(node.signed("POST", &path, metadata, b"x").await.0, 202);
    let told = read_json(&mut in_json).await;
    assert_eq!((&told["dataType"], &told["data"]), (&json!("binary"), &json!("eA==")));
    assert_eq!(told["metadata"], json!({ "k": "v", "trace": "b" }));
    for (content_type, body, status) in [
        ("text/html", &b"x"[..], 415),
        ("text/plain; charset=utf-7", b"x", 415),
        ("text/plain\r\nContent-Encoding: gzip", b"x", 415),
        ("text/plain", b"\xff", 400),
        ("application/json", b"{", 400),
        ("application/json", b"", 400),
        ("text/plain\r\nX-WebPubSub-Metadata-k: ä", b"x", 400),
        ("text/plain", &vec![b'x'; 1024 * 1024 + 1], 413),
    ] {
        assert_eq!(node.post("/:send", content_type, body).await, status, "{content_type}");
    }
}

#[tokio::test]
async fn excluded_and_filter_choose_the_receivers() {
    let node = start(None, |_| {}).await;
    let (mut ann, ann_id) = node.with_json(Some("ann"), &json!({ "webpubsub.group": "g" })).await;
    let (mut bob, bob_id) = node.with_json(Some("bob"), &json!({ "webpubsub.group": "g" })).await;
    let (mut anonymous, _) = node.with_json(None, &json!({})).await;
    let by_name = encoded("userId eq 'ann' or userId eq 'bob'");
    for (query, path) in [
        (format!("excluded={bob_id}&excluded=unknown"), "/groups/g/:send"),
        (format!("filter={}", encoded("userId eq 'ann'")), "/:send"),
        (format!("filter={by_name}&excluded={bob_id}"), "/:send"),
        (format!("filter={}", encoded("not ('g' in groups)")), "/users/ann/:send"),
    ] {
        assert_eq!(node.post(&format!("{path}?{query}"), "text/plain", b"ann").await, 202);
    }
    let nobody = format!("/:send?filter={}", encoded("userId eq null"));
    assert_eq!(node.post(&nobody, "text/plain", b"nobody").await, 202);
    assert_eq!(node.post(&format!("/:send?excluded={ann_id}"), "text/plain", b"rest").await, 202);
    assert_eq!(node.post("/:send?filter=", "text/plain", b"all").await, 202);
    for (client, expected) in [
        (&mut ann, &["ann", "ann", "ann", "all"][..]),
        (&mut bob, &["rest", "all"]),
        (&mut anonymous, &["nobody", "rest", "all"]),
    ] {
        for text in expected {
            assert_eq!(read_json(client).await["data"], *text);
        }
    }
    let (status, answer) =
        node.signed("POST", "/api/hubs/chat/:send?filter=invalid%20filter", "", b"x").await;
    assert_eq!(status, 400);
    assert_eq!(
        body(&answer),
        json!({
            "code": "BadRequest",
            "message": "Invalid syntax for 'invalid filter': Syntax error at position 14 in 'invalid filter'. (Parameter 'filter')",
            "target": "filter",
        })
    );
    assert!(answer.contains("x-ms-error-code: Error.BadRequest\r\n"), "{answer}");
}

#[tokio::test]
async fn every_operation_answers_with_its_exact_status() {
    let node = start(None, |_| {}).await;
    let (_client, id) = node.with_json(Some("ann"), &json!({})).await;
    for (method, path, status) in [
        ("HEAD", "/users/ann".to_owned(), 200),
        ("HEAD", "/users/bob".to_owned(), 404),
        ("HEAD", format!("/connections/{id}"), 200),
        ("HEAD", "/connections/unknown".to_owned(), 404),
        ("HEAD", "/groups/a%2Fb".to_owned(), 404),
        ("PUT", format!("/groups/a%2Fb/connections/{id}"), 200),
        ("PUT", "/groups/a%2Fb/connections/unknown".to_owned(), 404),
        ("HEAD", "/groups/a%2Fb".to_owned(), 200),
        ("DELETE", format!("/groups/a%2Fb/connections/{id}"), 204),
        ("DELETE", format!("/groups/a%2Fb/connections/{id}"), 204),
        ("DELETE", "/groups/a%2Fb/connections/unknown".to_owned(), 204),
        ("HEAD", "/groups/a%2Fb".to_owned(), 404),
        ("PUT", "/users/ann/groups/g".to_owned(), 200),
        ("PUT", "/users/bob/groups/g".to_owned(), 404),
        ("HEAD", "/users/ann/groups/g?api-version=2020-10-01".to_owned(), 200),
        ("HEAD", "/users/ann/groups/h?api-version=2020-10-01".to_owned(), 404),
        ("HEAD", "/users/bob/groups/g?api-version=2020-10-01".to_owned(), 404),
        ("HEAD", "/users/ann/groups/g".to_owned(), 405),
        ("DELETE", "/users/ann/groups/g".to_owned(), 204),
        ("DELETE", "/users/bob/groups/g".to_owned(), 204),
        ("HEAD", "/groups/g".to_owned(), 404),
        ("PUT", "/users/ann/groups/g".to_owned(), 200),
        ("DELETE", "/users/ann/groups".to_owned(), 204),
        ("HEAD", "/groups/g".to_owned(), 404),
        ("PUT", "/users/ann/groups/g".to_owned(), 200),
        ("DELETE", format!("/connections/{id}/groups"), 204),
        ("DELETE", "/connections/unknown/groups".to_owned(), 204),
        ("HEAD", "/groups/g".to_owned(), 404),
        ("POST", "/users/bob/:send".to_owned(), 202),
        ("POST", "/groups/g/:send".to_owned(), 202),
        ("POST", "/connections/unknown/:send".to_owned(), 202),
        ("POST", "/groups/g/:closeConnections".to_owned(), 204),
        ("POST", "/users/bob/:closeConnections?reason=x".to_owned(), 204),
        ("POST", format!("/:closeConnections?excluded={id}"), 204),
        ("HEAD", format!("/connections/{id}"), 200),
        ("DELETE", "/connections/unknown".to_owned(), 204),
        ("DELETE", format!("/connections/{id}?reason=bye"), 204),
        ("DELETE", format!("/connections/{id}"), 204),
        ("HEAD", format!("/connections/{id}"), 404),
        ("POST", "/:send?messageTtlSeconds=301".to_owned(), 400),
        ("POST", "/:send?api-version=1999-01-01".to_owned(), 400),
        ("POST", "/:nothing".to_owned(), 404),
        ("GET", "/:send".to_owned(), 405),
    ] {
        assert_eq!(node.api(method, &path).await, status, "{method} {path}");
    }
    // The preview's users live in their groups, those of this API's do not.
    assert_eq!(node.rest("GET", "chat/users/ann/groups/g", b"").await, 404);
}

#[tokio::test]
async fn many_connections_join_and_leave_many_groups_at_once() {
    let node = start(None, |_| {}).await;
    let _ann = node.with_json(Some("ann"), &json!({})).await;
    let _bob = node.with_json(Some("bob"), &json!({})).await;
    let count = async |group: &str| {
        let path = format!("/api/hubs/chat/groups/{group}/connections");
        node.json(&path).await["value"].as_array().unwrap().len()
    };
    let order = json!({ "groups": ["a", "b"], "filter": "userId eq 'ann'" }).to_string();
    assert_eq!(node.post("/:addToGroups", "application/json", order.as_bytes()).await, 200);
    assert_eq!((count("a").await, count("b").await), (1, 1));
    let everybody = br#"{"groups":["b"]}"#;
    assert_eq!(node.post("/:addToGroups", "application/json", everybody).await, 200);
    assert_eq!((count("a").await, count("b").await), (1, 2));
    assert_eq!(node.post("/:removeFromGroups", "application/json", order.as_bytes()).await, 200);
    assert_eq!((count("a").await, count("b").await), (0, 1));
    for (content_type, body, status) in [
        ("application/json", &b"{}"[..], 400),
        ("application/json", br#"{"groups":[]}"#, 400),
        ("application/json", br#"{"groups":["a"],"filter":"x eq"}"#, 400),
        ("application/json", b"[", 400),
        ("text/plain", br#"{"groups":["a"]}"#, 415),
    ] {
        for path in ["/:addToGroups", "/:removeFromGroups"] {
            assert_eq!(node.post(path, content_type, body).await, status, "{content_type}");
        }
    }
}

#[tokio::test]
async fn a_list_is_paged_by_links_that_can_be_followed() {
    let node = start(None, |_| {}).await;
    let mut clients = Vec::new();
    for user in [Some("ann"), None, Some("bob"), None, Some("cy")] {
        clients.push(node.with_json(user, &json!({ "webpubsub.group": "a/b" })).await);
    }
    let mut ids: Vec<String> = clients.iter().map(|(_, id)| id.clone()).collect();
    // By their bytes, which base64 does not keep in order.
    ids.sort_by_key(|id| ConnectionId::parse(id));
    let path = "/api/hubs/chat/groups/a%2Fb/connections";
    let whole = node.json(path).await;
    assert!(whole.get("nextLink").is_none());
    let named = whole["value"].as_array().unwrap().iter();
    assert_eq!(named.filter(|one| one.get("userId").is_some()).count(), 3, "not even as null");
    for (query, sizes) in [
        ("maxpagesize=2&api-version=2024-12-01", &[2, 2, 1][..]),
        ("maxpagesize=5", &[5]),
        ("maxpagesize=2&top=3", &[2, 1]),
        ("maxpagesize=2&top=4", &[2, 2]),
        ("top=200", &[5]),
        ("top=1", &[1]),
    ] {
        let mut found = Vec::new();
        let mut link = Some(format!("{path}?{query}"));
        for size in sizes {
            let page = node.json(&link.expect("there is a further page")).await;
            let value = page["value"].as_array().unwrap().clone();
            assert_eq!(value.len(), *size, "{query}");
            found.extend(value.iter().map(|one| one["connectionId"].as_str().unwrap().to_owned()));
            link = page.get("nextLink").map(|link| {
                let link = link.as_str().unwrap();
                // `raw` says that the host is x, which is none of ours.
                let path = link.strip_prefix(&format!("http://{}", node.address)).unwrap();
                assert!(path.contains("api-version=2024-12-01"), "{link}");
                path.to_owned()
            });
        }
        assert_eq!(link, None, "{query}");
        assert_eq!(found, ids[..found.len()], "{query}");
    }
    assert_eq!(node.json("/api/hubs/chat/groups/none/connections").await, json!({ "value": [] }));
    for bad in ["continuationToken=", "continuationToken=x", "maxpagesize=201", "top=0"] {
        assert_eq!(node.signed("GET", &format!("{path}?{bad}"), "", b"").await.0, 400, "{bad}");
    }
    drop(clients);
}

#[tokio::test]
async fn permissions_are_granted_checked_and_revoked() {
    let node = start(None, |_| {}).await;
    let (_client, id) =
        node.with_json(Some("ann"), &json!({ "role": "webpubsub.joinLeaveGroup" })).await;
    let of = |permission: &str, id: &str| format!("/permissions/{permission}/connections/{id}");
    let (send, join) = (of("sendToGroup", &id), of("joinLeaveGroup", &id));
    for (method, path, status) in [
        ("HEAD", format!("{send}?targetName=g"), 404),
        ("PUT", format!("{send}?targetName=g"), 200),
        ("HEAD", format!("{send}?targetName=g"), 200),
        ("HEAD", format!("{send}?targetName=G"), 404),
        ("HEAD", send.clone(), 404),
        ("DELETE", format!("{send}?targetName=g"), 204),
        ("HEAD", format!("{send}?targetName=g"), 404),
        ("PUT", send.clone(), 200),
        ("HEAD", send.clone(), 200),
        ("HEAD", format!("{join}?targetName=g"), 200),
        ("DELETE", format!("{join}?targetName=g"), 204),
        ("HEAD", format!("{join}?targetName=g"), 404),
        ("HEAD", format!("{join}?targetName=h"), 200),
        ("PUT", of("sendToGroup", "unknown"), 404),
        ("DELETE", of("sendToGroup", "unknown"), 204),
        ("HEAD", of("sendToGroup", "unknown"), 404),
        ("PUT", of("publish", &id), 400),
        ("PUT", format!("{send}?targetName="), 400),
        ("GET", send, 405),
    ] {
        assert_eq!(node.api(method, &path).await, status, "{method} {path}");
    }
}

#[tokio::test]
async fn a_generated_token_opens_the_door_that_it_was_made_for() {
    let node = start(None, |_| {}).await;
    let path = "/api/hubs/chat/:generateToken";
    let query = "userId=a%20b&role=webpubsub.sendToGroup&group=g&group=h&minutesToExpire=1";
    let (status, answer) = node.signed("POST", &format!("{path}?{query}"), "", b"").await;
    assert_eq!(status, 200);
    let token = body(&answer)["token"].as_str().unwrap().to_owned();
    let _client = node.with_token(&token).await;
    for path in ["/users/a%20b", "/groups/g", "/groups/h"] {
        assert_eq!(node.api("HEAD", path).await, 200, "{path}");
    }
    for (client_type, door) in [
        ("default", "/client/hubs/chat"),
        ("MQTT", "/clients/mqtt/hubs/chat"),
        ("SocketIO", "/clients/socketio/hubs/chat"),
        ("Preview", "/ws/client/hubs/chat"),
    ] {
        let (_, answer) =
            node.signed("POST", &format!("{path}?clientType={client_type}"), "", b"").await;
        let token = body(&answer)["token"].as_str().unwrap().to_owned();
        let claims: Value = jsonwebtoken::dangerous::insecure_decode_claims(&token).unwrap();
        assert_eq!(claims["aud"], format!("http://{}{door}", node.address));
    }
    for bad in ["clientType=x", "minutesToExpire=0", "group=%20", "userId=a%00"] {
        assert_eq!(node.signed("POST", &format!("{path}?{bad}"), "", b"").await.0, 400, "{bad}");
    }
}

#[tokio::test]
async fn callers_are_known_by_tokens_as_all_sdks_make_them() {
    let node = start(None, |_| {}).await;
    let path = "/api/hubs/chat/:send?api-version=2024-12-01&filter=userId%20eq%20%27a%27";
    let bare = "/api/hubs/chat/:send";
    let port = node.address.port();
    let status = async |audience: String| {
        let token = sign(&audience, None, &json!({}));
        let headers = format!("Authorization: Bearer {token}\r\nContent-Type: text/plain\r\n");
        node.raw("POST", path, &headers, b"x").await.0
    };
    for audience in [
        format!("http://127.0.0.1:{port}{path}"),
        format!("http://localhost{path}"),
        format!("https://LOCALHOST:{port}{bare}"),
        format!("ws://[::1]{bare}"),
        format!(
            "http://localhost:{port}/api/hubs/chat/:send?api-version=2024-12-01&filter=userId eq 'a'"
        ),
        "http://localhost/API/hubs/Chat/%3Asend".to_owned(),
    ] {
        assert_eq!(status(audience.clone()).await, 202, "{audience}");
    }
    for audience in [
        format!("http://other.example{path}"),
        "http://localhost/api/hubs/other/:send".to_owned(),
        "http://localhost/client/hubs/chat".to_owned(),
        "https://webpubsub.azure.com".to_owned(),
    ] {
        assert_eq!(status(audience.clone()).await, 401, "{audience}");
    }
    let (status, answer) = node.raw("POST", path, "", b"x").await;
    assert_eq!(status, 401);
    let answer = answer.to_ascii_lowercase();
    assert!(answer.contains("x-ms-error-code: error.unauthorized\r\n"), "{answer}");
    assert!(answer.contains("www-authenticate: bearer\r\n"), "{answer}");
}

#[tokio::test]
async fn heads_have_no_body_and_versions_are_named() {
    let node = start(None, |_| {}).await;
    for (method, path) in [("HEAD", "/api/health"), ("HEAD", "/api/health?api-version=2024-12-01")]
    {
        let (status, answer) = node.raw(method, path, "", b"").await;
        assert_eq!(status, 200, "without a token");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }
    for path in ["/api/hubs/chat/users/nobody", "/api/hubs/9/users/nobody"] {
        let (status, answer) = node.signed("HEAD", path, "", b"").await;
        assert!(matches!(status, 400 | 404) && answer.ends_with("\r\n\r\n"), "{answer}");
    }
    let (status, answer) = node.signed("POST", "/api/hubs/chat/:send", "", b"x").await;
    assert_eq!(status, 202);
    let versions = answer.lines().find(|line| line.starts_with("api-supported-versions: "));
    assert!(versions.is_some_and(|line| line.contains("2024-12-01")), "{answer}");
}

#[tokio::test]
async fn a_body_in_chunks_is_taken() {
    let node = start(None, |_| {}).await;
    let mut client = node.simple(None, &json!({})).await;
    let path = "/api/hubs/chat/:send";
    let token = sign(&format!("http://localhost{path}"), None, &json!({}));
    let request = format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nContent-Type: text/plain\r\n\
         Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"
    );
    assert_eq!(node.bytes(request.as_bytes()).await.0, 202);
    assert_eq!(next(&mut client).await, Some(Message::text("hello")));
}

#[tokio::test]
async fn closed_clients_are_told_why() {
    let node = start(None, |_| {}).await;
    for (query, expected) in [("?reason=go%20away", "go away"), ("", "ClosedByAppServer")] {
        let (mut client, id) = node.with_json(Some("ann"), &json!({})).await;
        assert_eq!(node.api("POST", &format!("/users/ann/:closeConnections{query}")).await, 204);
        let told = read_json(&mut client).await;
        assert_eq!((&told["event"], &told["message"]), (&json!("disconnected"), &json!(expected)));
        let Some(Message::Close(Some(frame))) = next(&mut client).await else {
            panic!("a close frame is due")
        };
        assert_eq!((u16::from(frame.code), frame.reason.as_str()), (1_000, expected));
        assert_eq!(node.api("HEAD", &format!("/connections/{id}")).await, 404);
    }
}
