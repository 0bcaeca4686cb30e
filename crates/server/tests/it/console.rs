//! The console's door: login, sessions, and what a page of another origin cannot do.

use crate::node::{KEYS, TestNode, exchange, start};

/// Logs in; returns the status and the whole answer.
async fn login(node: &TestNode, key: &str) -> (u16, String) {
    let body = format!("{{\"key\":\"{key}\"}}");
    let header = "Content-Type: application/json\r\n";
    node.raw("POST", "/console/api/login", header, body.as_bytes()).await
}

/// Returns the value of a header of an answer.
fn header<'a>(answer: &'a str, name: &str) -> Option<&'a str> {
    answer.lines().find_map(|line| {
        let (key, value) = line.split_once(": ")?;
        key.eq_ignore_ascii_case(name).then_some(value)
    })
}

#[tokio::test]
async fn a_session_opens_the_apis_for_the_page_alone() {
    let node = start(None, |_| {}).await;
    for key in KEYS {
        let (status, answer) = login(&node, key).await;
        assert_eq!(status, 204, "{answer}");
        let set = header(&answer, "set-cookie").unwrap();
        let (cookie, attributes) = set.split_once("; ").unwrap();
        assert_eq!(attributes, "HttpOnly; SameSite=Strict; Path=/; Max-Age=43200");
        assert!(!set.contains(key));
        let cookie = format!("Cookie: other=1; {cookie}\r\n");
        let of_page = format!("{cookie}X-Hookwire-Console: 1\r\n");
        let (status, session) = node.raw("GET", "/console/api/session", &cookie, b"").await;
        assert!(status == 200 && session.contains("{\"expiresAt\":\"20"), "{session}");
        for (method, path, good) in [
            ("GET", "/admin/v1/overview", 200),
            ("GET", "/admin/v1/hubs", 200),
            ("GET", "/manage/v1/ws/upstream", 200),
            ("POST", "/ws/api/v1/hubs/chat/", 200),
            ("POST", "/api/hubs/chat/:send", 202),
        ] {
            assert_eq!(node.raw(method, path, &of_page, b"").await.0, good, "{path}");
            assert_eq!(
                node.raw(method, path, &cookie, b"").await.0,
                401,
                "{path} without the header"
            );
        }
        let bad_token = format!("{of_page}Authorization: Bearer x\r\n");
        assert_eq!(node.raw("GET", "/admin/v1/hubs", &bad_token, b"").await.0, 401);
        let foreign = node.raw("POST", "/console/api/logout", &cookie, b"").await;
        assert_eq!((foreign.0, header(&foreign.1, "set-cookie")), (403, None));
        let (status, answer) = node.raw("POST", "/console/api/logout", &of_page, b"").await;
        assert_eq!(status, 204);
        assert!(header(&answer, "set-cookie").unwrap().starts_with("hookwire_console=; "));
        assert!(header(&answer, "set-cookie").unwrap().contains("Max-Age=0"));
    }
    assert_eq!(node.raw("GET", "/console/api/session", "", b"").await.0, 401);
    let forged = "Cookie: hookwire_console=a.b.c\r\nX-Hookwire-Console: 1\r\n";
    assert_eq!(node.raw("GET", "/admin/v1/hubs", forged, b"").await.0, 401);
}

#[tokio::test]
async fn no_token_for_something_else_is_a_session() {
    let node = start(None, |_| {}).await;
    for path in ["/console/api/session", "/admin/v1/hubs", "/ws/client/hubs/chat"] {
        let token = crate::node::token(path, Some("ann"));
        let cookie = format!("Cookie: hookwire_console={token}\r\nX-Hookwire-Console: 1\r\n");
        assert_eq!(node.raw("GET", "/admin/v1/hubs", &cookie, b"").await.0, 401, "{path}");
    }
}

#[tokio::test]
async fn foreign_pages_get_no_permission_and_forms_no_login() {
    let node = start(None, |_| {}).await;
    let asking = "Origin: http://evil\r\nAccess-Control-Request-Method: GET\r\nAccess-Control-Request-Headers: x-hookwire-console\r\n";
    for path in ["/manage/v1/ws/upstream", "/admin/v1/hubs", "/api/hubs/chat/:send"] {
        let (_, answer) = node.raw("OPTIONS", path, asking, b"").await;
        let allowed = header(&answer, "access-control-allow-headers").unwrap_or_default();
        assert!(!allowed.contains("hookwire") && !allowed.contains('*'), "{path}: {allowed}");
        assert!(header(&answer, "access-control-allow-credentials").is_none());
    }
    let body = format!("{{\"key\":\"{}\"}}", KEYS[0]);
    let form = "Content-Type: text/plain\r\n";
    assert_eq!(node.raw("POST", "/console/api/login", form, body.as_bytes()).await.0, 415);
}

#[tokio::test]
async fn wrong_keys_are_refused_and_then_not_listened_to() {
    let node = start(None, |_| {}).await;
    for _ in 0..5 {
        let (status, answer) = login(&node, "wrong-key-wrong-key-wrong-key-wrong").await;
        assert_eq!(status, 401);
        assert!(!answer.contains("wrong-key"));
    }
    let (status, answer) = login(&node, KEYS[0]).await;
    assert_eq!(status, 429);
    let wait: u64 = header(&answer, "retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait));
    let items = crate::events::log(&node, "?failed=true", 6).await;
    assert_eq!(items[0]["verdict"], "unauthorized");
    assert!(!serde_json::json!(items).to_string().contains("wrong-key-"));
}

#[tokio::test]
async fn cookies_of_tls_are_for_tls_alone() {
    let node = start(None, |_| {}).await;
    let body = format!("{{\"key\":\"{}\"}}", KEYS[0]);
    let proxied = "Content-Type: application/json\r\nX-Forwarded-Proto: https\r\n";
    let (_, answer) = node.raw("POST", "/console/api/login", proxied, body.as_bytes()).await;
    assert!(header(&answer, "set-cookie").unwrap().ends_with("; Secure"));

    let node = start(None, |config| {
        config.public_endpoints = vec!["https://hooks.example:8443/".parse().unwrap()];
    })
    .await;
    for (host, is_secure) in [("Hooks.Example:8443", true), ("hooks.example:80", false)] {
        let request = format!(
            "POST /console/api/login HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        let (_, answer) = exchange(node.address, request.as_bytes()).await;
        let cookie = header(&answer, "set-cookie").unwrap();
        assert_eq!(cookie.ends_with("; Secure"), is_secure, "{host}");
    }
}

#[tokio::test]
async fn the_page_is_served_with_a_strict_policy() {
    let node = start(None, |_| {}).await;
    let (status, answer) = node.raw("GET", "/console", "", b"").await;
    assert_eq!((status, header(&answer, "location")), (308, Some("console/")));
    let (status, answer) = node.raw("GET", "/console/", "", b"").await;
    assert_eq!(status, 200);
    assert_eq!(header(&answer, "content-type"), Some("text/html; charset=utf-8"));
    assert!(header(&answer, "content-security-policy").unwrap().starts_with("default-src 'none'"));
    assert_eq!(header(&answer, "referrer-policy"), Some("no-referrer"));
    assert_eq!(header(&answer, "x-content-type-options"), Some("nosniff"));
    for path in ["/console/assets/none.js", "/console/%2e%2e/chat/index.html", "/console/api/x"] {
        assert_eq!(node.raw("GET", path, "", b"").await.0, 404, "{path}");
    }
    let without = start(None, |config| config.console = false).await;
    for path in ["/console/", "/console/api/session"] {
        assert_eq!(without.raw("GET", path, "", b"").await.0, 404, "{path}");
    }
    let (status, _) = login(&without, KEYS[0]).await;
    assert_eq!(status, 404);
}
