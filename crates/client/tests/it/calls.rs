//! Method, path, query, content and audience of each call, compared with what the older library sends.

use std::time::Duration;

use hookwire_client::{
    AccessKey, ClientEndpointOptions, EventError, Service, ServiceError, TemplateDocument,
    TemplatesDocument, header, sign,
};
use http::HeaderMap;

use crate::server::{Recorded, TestServer};

/// A name in which everything that matters is encoded, and how JavaScript encodes it.
const NAME: &str = "a b/ä?#&=+%'(!)";
const ENCODED: &str = "a%20b%2F%C3%A4%3F%23%26%3D%2B%25'(!)";

/// Checks line and audience of a call without content; `path` is without the hub's base, `{}` the encoded name.
fn assert_bare(request: &Recorded, method: &str, path: &str, query: &str) {
    let path = path.replace("{}", ENCODED);
    assert_eq!(request.line, format!("{method} /ws/api/v1/hubs/chat/{path}{query}"));
    assert_eq!(request.audience(), format!("http://127.0.0.1/ws/api/v1/hubs/chat/{path}"));
    assert_eq!(request.header("content-type"), None);
    assert!(request.body.is_empty());
}

fn assert_sent(request: &Recorded, path: &str, content_type: &str, content: &[u8]) {
    let path = path.replace("{}", ENCODED);
    assert_eq!(request.line, format!("POST /ws/api/v1/hubs/chat/{path}"));
    assert_eq!(request.audience(), format!("http://127.0.0.1/ws/api/v1/hubs/chat/{path}"));
    assert_eq!(request.header("content-type"), Some(content_type));
    assert_eq!(request.body, content);
}

#[tokio::test]
async fn text_and_bytes_are_sent_to_everyone_and_to_each_kind_of_target() -> Result<(), ServiceError>
{
    let server = TestServer::answering(200, "").await;
    let service = server.service();

    service.broadcast("héllo").await?;
    let request = server.only();
    assert_sent(&request, "", "text/plain", "héllo".as_bytes());
    assert_eq!(
        request.audience(),
        "http://127.0.0.1/ws/api/v1/hubs/chat/",
        "a broadcast's audience ends with a slash"
    );

    service.send_to_connection("id-1_x", vec![0, 255]).await?;
    assert_sent(&server.only(), "connections/id-1_x", "application/octet-stream", &[0, 255]);

    service.send_to_user(NAME, String::from("text")).await?;
    assert_sent(&server.only(), "users/{}", "text/plain", b"text");

    service.send_to_group(NAME, "").await?;
    assert_sent(&server.only(), "groups/{}", "text/plain", b"");
    Ok(())
}

#[tokio::test]
async fn groups_take_connections_and_users() -> Result<(), ServiceError> {
    let server = TestServer::answering(200, "").await;
    let service = server.service();

    service.add_connection_to_group(NAME, "id-1").await?;
    assert_bare(&server.only(), "PUT", "groups/{}/connections/id-1", "");
    service.remove_connection_from_group(NAME, "id-1").await?;
    assert_bare(&server.only(), "DELETE", "groups/{}/connections/id-1", "");

    service.add_to_group("g", NAME).await?;
    assert_bare(&server.only(), "PUT", "groups/g/users/{}", "");
    service.remove_from_group("g", NAME).await?;
    assert_bare(&server.only(), "DELETE", "groups/g/users/{}", "");
    service.remove_from_all_groups(NAME).await?;
    assert_bare(&server.only(), "DELETE", "users/{}/groups", "");
    Ok(())
}

#[tokio::test]
async fn a_time_in_a_group_is_in_whole_seconds_rounded_up() -> Result<(), ServiceError> {
    let server = TestServer::answering(200, "").await;
    for (ttl, seconds) in
        [(Duration::from_mins(1), 60), (Duration::from_millis(1_001), 2), (Duration::ZERO, 1)]
    {
        server.service().add_to_group_for("g", "u", ttl).await?;
        assert_bare(&server.only(), "PUT", "groups/g/users/u", &format!("?ttl={seconds}"));
    }
    Ok(())
}

#[tokio::test]
async fn questions_are_answered_by_the_status() -> Result<(), ServiceError> {
    for (status, expected) in [(200, true), (404, false)] {
        let server = TestServer::answering(status, "").await;
        let service = server.service();
        assert_eq!(service.connection_exists("id-1").await?, expected);
        assert_bare(&server.only(), "HEAD", "connections/id-1", "");
        assert_eq!(service.user_exists(NAME).await?, expected);
        assert_bare(&server.only(), "HEAD", "users/{}", "");
        assert_eq!(service.group_exists(NAME).await?, expected);
        assert_bare(&server.only(), "HEAD", "groups/{}", "");
        assert_eq!(service.user_in_group("g", NAME).await?, expected);
        assert_bare(&server.only(), "GET", "groups/g/users/{}", "");
    }
    let server = TestServer::answering(401, "").await;
    assert!(
        matches!(server.service().user_exists("u").await, Err(ServiceError::Status { status, .. }) if status == 401)
    );
    Ok(())
}

#[tokio::test]
async fn a_reason_for_closing_is_signed_plain_and_sent_encoded() -> Result<(), ServiceError> {
    let server = TestServer::answering(200, "").await;
    let service = server.service();

    service.close_connection("id-1", None).await?;
    assert_bare(&server.only(), "DELETE", "connections/id-1", "");

    service.close_connection("id-1", Some(NAME)).await?;
    let request = server.only();
    assert_eq!(
        request.line,
        format!("DELETE /ws/api/v1/hubs/chat/connections/id-1?reason={ENCODED}")
    );
    assert_eq!(
        request.audience(),
        format!("http://127.0.0.1/ws/api/v1/hubs/chat/connections/id-1?reason={NAME}")
    );
    Ok(())
}

#[tokio::test]
async fn settings_are_read_and_replaced() -> Result<(), ServiceError> {
    let document =
        r#"{"templates":[{"eventPattern":"*","urlTemplate":"http://localhost:7071/api/{event}"}]}"#;
    let settings = TemplatesDocument {
        templates: vec![TemplateDocument {
            event_pattern: Some("*".to_owned()),
            url_template: "http://localhost:7071/api/{event}".to_owned(),
            ..TemplateDocument::default()
        }],
    };
    let server = TestServer::answering(200, document).await;

    assert_eq!(server.service().upstream().await?, settings);
    let request = server.only();
    assert_eq!(request.line, "GET /manage/v1/ws/upstream");
    assert_eq!(request.audience(), "http://127.0.0.1/manage/v1/ws/upstream");

    server.service().set_upstream(&settings).await?;
    let request = server.only();
    assert_eq!(request.line, "POST /manage/v1/ws/upstream");
    assert_eq!(request.audience(), "http://127.0.0.1/manage/v1/ws/upstream");
    assert_eq!(request.header("content-type"), Some("application/json"));
    assert_eq!(request.body, document);
    Ok(())
}

#[tokio::test]
async fn health_is_asked_without_a_token() -> Result<(), ServiceError> {
    let server = TestServer::answering(200, "").await;
    server.service().health().await?;
    let request = server.only();
    assert_eq!(
        (request.line.as_str(), request.header("authorization")),
        ("GET /api/v1/health", None)
    );
    Ok(())
}

#[tokio::test]
async fn a_client_s_url_carries_a_token_for_it() -> anyhow::Result<()> {
    use hookwire_proto::token::{Audience, HostNames, check};

    let server = TestServer::answering(200, "").await;
    let options = ClientEndpointOptions {
        user: Some("änn".to_owned()),
        lifetime: Duration::from_mins(10),
        claims: serde_json::from_str(r#"{"role": ["a", "b"]}"#)?,
        ..ClientEndpointOptions::default()
    };
    let url = server.service().client_endpoint(&options)?;
    let base = server.service().endpoint().as_str().replace("http://", "ws://");
    let token = url
        .as_str()
        .strip_prefix(&format!("{base}ws/client/hubs/chat?access_token="))
        .expect("the documented form");

    let hosts = HostNames::parse(["localhost"])?;
    let audience = Audience { hosts: &hosts, path: url.path() };
    let keys = [AccessKey::parse(crate::server::KEY)?];
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let claims = check(token, now, &keys, &audience)?;
    assert_eq!(claims.sub(), Some("änn"));
    assert_eq!(claims.get("aud"), Some(&"http://127.0.0.1/ws/client/hubs/chat".into()));
    assert_eq!(claims.get("role"), Some(&serde_json::json!(["a", "b"])));
    let issued = claims.get("iat").and_then(serde_json::Value::as_u64);
    assert_eq!(
        claims.get("exp").and_then(serde_json::Value::as_u64),
        issued.map(|issued| issued + 600)
    );
    Ok(())
}

#[test]
fn an_event_must_be_signed_with_the_key_of_the_connection_string() -> anyhow::Result<()> {
    let service = Service::new("Endpoint=http://h;AccessKey=secret;", "chat")?;
    let mut headers = HeaderMap::new();
    headers.insert(header::CONNECTION_ID, "id-1".parse()?);
    headers.insert(header::HUB, "chat".parse()?);
    headers.insert(header::EVENT, "disconnect".parse()?);
    assert_eq!(service.event(&headers), Err(EventError::NotSigned));
    headers.insert(
        header::SIGNATURE,
        sign(&[AccessKey::parse_of_any_strength("other")?], "id-1").parse()?,
    );
    assert_eq!(service.event(&headers), Err(EventError::NotSigned));
    let both =
        [AccessKey::parse_of_any_strength("other")?, AccessKey::parse_of_any_strength("secret")?];
    headers.insert(header::SIGNATURE, sign(&both, "id-1").parse()?);
    assert_eq!(service.event(&headers)?.connection_id, "id-1");
    Ok(())
}
