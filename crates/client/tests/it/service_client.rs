//! Method, path, query, content and audience of each call of Web PubSub's API.

use std::time::Duration;

use hookwire_client::{
    ClientAccess, ClientKind, Closing, ListOptions, Outgoing, Payload, Permission, ServiceClient,
    ServiceError,
};
use hookwire_proto::token::{Audience, GROUP_CLAIM, HostNames, ROLE_CLAIM, check};
use serde_json::json;

use crate::server::{KEY, Recorded, TestServer};

/// A name in which everything that matters is encoded, and how JavaScript encodes it.
const NAME: &str = "a b/ä?#&=+%'(!)";
const ENCODED: &str = "a%20b%2F%C3%A4%3F%23%26%3D%2B%25'(!)";

const VERSION: &str = "api-version=2024-12-01";

/// Checks line and audience; `path` follows the hub's base, `{}` in it is the encoded name.
#[track_caller]
fn assert_line(server: &TestServer, request: &Recorded, method: &str, path: &str, query: &str) {
    let path = path.replace("{}", ENCODED);
    let and = if query.is_empty() { "" } else { "&" };
    let target = format!("/api/hubs/chat/{path}?{VERSION}{and}{}", query.replace("{}", ENCODED));
    assert_eq!(request.line, format!("{method} {target}"));
    let endpoint = server.service_client().endpoint().as_str().trim_end_matches('/').to_owned();
    assert_eq!(request.audience(), format!("{endpoint}{target}"), "the audience is the whole URL");
}

#[track_caller]
fn assert_bare(server: &TestServer, method: &str, path: &str, query: &str) {
    let request = server.only();
    assert_line(server, &request, method, path, query);
    assert_eq!(request.header("content-type"), None);
    assert!(request.body.is_empty());
}

#[track_caller]
fn assert_sent(server: &TestServer, path: &str, content_type: &str, content: &[u8]) {
    let request = server.only();
    assert_line(server, &request, "POST", path, "");
    assert_eq!(request.header("content-type"), Some(content_type));
    assert_eq!(request.body, content);
}

#[tokio::test]
async fn text_json_and_bytes_go_to_each_kind_of_target() -> anyhow::Result<()> {
    let server = TestServer::answering(202, "").await;
    let service = server.service_client();

    service.send_to_all("héllo").await?;
    assert_sent(&server, ":send", "text/plain", "héllo".as_bytes());
    service.send_to_connection("id-1_x", vec![0, 255]).await?;
    assert_sent(&server, "connections/id-1_x/:send", "application/octet-stream", &[0, 255]);
    service.send_to_user(NAME, Payload::json(&json!({"b": 1, "a": null}))?).await?;
    assert_sent(&server, "users/{}/:send", "application/json", br#"{"b":1,"a":null}"#);
    service.send_to_group(NAME, Payload::raw_json("1.50")?).await?;
    assert_sent(&server, "groups/{}/:send", "application/json", b"1.50");
    Ok(())
}

#[tokio::test]
async fn a_message_says_who_does_not_get_it_and_what_travels_with_it() -> anyhow::Result<()> {
    let server = TestServer::answering(202, "").await;
    let message = Outgoing::new("m")
        .excluding(["id-1", "id-2"])
        .filter(NAME)
        .ttl(Duration::from_millis(1_001))
        .metadata("Trace", " 7 ");
    server.service_client().send_to_all(message).await?;
    let request = server.only();
    let query = "excluded=id-1&excluded=id-2&filter={}&messageTtlSeconds=2";
    assert_line(&server, &request, "POST", ":send", query);
    assert_eq!(request.header("x-webpubsub-metadata-trace"), Some("7"));
    Ok(())
}

#[tokio::test]
async fn what_breaks_a_rule_is_not_sent() {
    let server = TestServer::answering(202, "").await;
    let service = server.service_client();
    let long = "c".repeat(70_000);
    let add = |group| service.add_connection_to_group(group, "id");
    for result in [
        service.send_to_group(" ", "m").await,
        service.send_to_user("a\nb", "m").await,
        service.send_to_connection("", "m").await,
        add("").await,
        service.add_connections_to_groups(&["g", ""], None).await,
        service.grant_permission(Permission::SendToGroup, "id", Some("")).await,
        service.send_to_all(Outgoing::new("m").ttl(Duration::from_millis(300_001))).await,
        service.send_to_all(Outgoing::new("m").metadata("a b", "")).await,
        service.send_to_all(Outgoing::new("m").metadata("a", "ä")).await,
        service.send_to_all(Outgoing::new("m").excluding([long.as_str()])).await,
    ] {
        let error = result.unwrap_err();
        assert!(error.is_usage(), "{error:?}");
    }
    assert!(service.client_access(&ClientAccess::new().user("")).is_err());
    assert!(service.client_access(&ClientAccess::new().group(" ")).is_err());
    assert_eq!(server.requests(), 0);
}

#[tokio::test]
async fn memberships_are_one_request_each() -> anyhow::Result<()> {
    let server = TestServer::answering(200, "").await;
    let service = server.service_client();

    service.add_connection_to_group(NAME, "id-1").await?;
    assert_bare(&server, "PUT", "groups/{}/connections/id-1", "");
    service.remove_connection_from_group(NAME, "id-1").await?;
    assert_bare(&server, "DELETE", "groups/{}/connections/id-1", "");
    service.remove_connection_from_all_groups("id-1").await?;
    assert_bare(&server, "DELETE", "connections/id-1/groups", "");
    service.add_user_to_group("g", NAME).await?;
    assert_bare(&server, "PUT", "users/{}/groups/g", "");
    service.remove_user_from_group("g", NAME).await?;
    assert_bare(&server, "DELETE", "users/{}/groups/g", "");
    service.remove_user_from_all_groups(NAME).await?;
    assert_bare(&server, "DELETE", "users/{}/groups", "");

    service.add_connections_to_groups(&["g", "h"], Some("userId eq 'a'")).await?;
    let body = br#"{"groups":["g","h"],"filter":"userId eq 'a'"}"#;
    assert_sent(&server, ":addToGroups", "application/json", body);
    service.remove_connections_from_groups(&["g"], None).await?;
    assert_sent(&server, ":removeFromGroups", "application/json", br#"{"groups":["g"]}"#);
    Ok(())
}

#[tokio::test]
async fn questions_are_answered_by_the_status() -> anyhow::Result<()> {
    for (status, expected) in [(200, true), (404, false)] {
        let server = TestServer::answering(status, "").await;
        let service = server.service_client();
        assert_eq!(service.connection_exists("id-1").await?, expected);
        assert_bare(&server, "HEAD", "connections/id-1", "");
        assert_eq!(service.user_exists(NAME).await?, expected);
        assert_bare(&server, "HEAD", "users/{}", "");
        assert_eq!(service.group_exists(NAME).await?, expected);
        assert_bare(&server, "HEAD", "groups/{}", "");
        let may = service.has_permission(Permission::JoinLeaveGroup, "id-1", Some(NAME)).await?;
        assert_eq!(may, expected);
        let path = "permissions/joinLeaveGroup/connections/id-1";
        assert_bare(&server, "HEAD", path, "targetName={}");
    }
    Ok(())
}

#[tokio::test]
async fn permissions_are_for_a_group_or_for_all() -> anyhow::Result<()> {
    let server = TestServer::answering(200, "").await;
    let service = server.service_client();
    let path = "permissions/sendToGroup/connections/id-1";
    service.grant_permission(Permission::SendToGroup, "id-1", Some(NAME)).await?;
    assert_bare(&server, "PUT", path, "targetName={}");
    service.grant_permission(Permission::SendToGroup, "id-1", None).await?;
    assert_bare(&server, "PUT", path, "");
    service.revoke_permission(Permission::SendToGroup, "id-1", Some("g")).await?;
    assert_bare(&server, "DELETE", path, "targetName=g");
    Ok(())
}

#[tokio::test]
async fn connections_are_closed_with_a_reason() -> anyhow::Result<()> {
    let server = TestServer::answering(204, "").await;
    let service = server.service_client();
    service.close_connection("id-1", None).await?;
    assert_bare(&server, "DELETE", "connections/id-1", "");
    service.close_connection("id-1", Some(NAME)).await?;
    assert_bare(&server, "DELETE", "connections/id-1", "reason={}");
    service.close_all_connections(Closing::new().excluding(["a", "b"])).await?;
    assert_bare(&server, "POST", ":closeConnections", "excluded=a&excluded=b");
    service.close_group_connections(NAME, Closing::new()).await?;
    assert_bare(&server, "POST", "groups/{}/:closeConnections", "");
    service.close_user_connections("u", Closing::new().reason("r")).await?;
    assert_bare(&server, "POST", "users/u/:closeConnections", "reason=r");
    Ok(())
}

#[tokio::test]
async fn health_is_asked_without_a_token() -> anyhow::Result<()> {
    let server = TestServer::answering(200, "").await;
    server.service_client().health().await?;
    let request = server.only();
    let asked = (request.line.as_str(), request.header("authorization"));
    assert_eq!(asked, ("HEAD /api/health?api-version=2024-12-01", None));
    Ok(())
}

#[tokio::test]
async fn a_list_follows_its_links_at_its_own_service() -> anyhow::Result<()> {
    let link =
        "https://elsewhere.example/api/hubs/CHAT/groups/a%20b/connections?continuationToken=t";
    let link = link.replace("CHAT", "chat");
    let page = json!({"value": [{"connectionId": "1"}, {"connectionId": "2", "userId": "ann"}], "nextLink": link});
    let server = TestServer::answering(200, page.to_string()).await;
    let options = ListOptions { page_size: Some(2), top: Some(5) };
    let mut list = server.service_client().list_connections("a b", options)?;

    let first = list.next().await?.expect("there are two");
    assert_eq!((first.id.as_str(), first.user), ("1", None));
    assert_bare(&server, "GET", "groups/a%20b/connections", "maxpagesize=2&top=5");
    let second = list.next().await?.expect("there are two");
    assert_eq!((second.id.as_str(), second.user.as_deref()), ("2", Some("ann")));
    assert_eq!(server.requests(), 0, "the second is on the same page");

    // The service answers the second page with the same link, which would go on for ever.
    let error = list.next().await.unwrap_err();
    assert!(matches!(error, ServiceError::Malformed { .. }), "{error:?}");
    let request = server.only();
    assert_eq!(request.line, "GET /api/hubs/chat/groups/a%20b/connections?continuationToken=t");
    Ok(())
}

#[tokio::test]
async fn a_link_to_another_list_is_not_followed() -> anyhow::Result<()> {
    for link in ["/manage/v1/ws/upstream?a=b", "http://", "/api/hubs/chat/groups/g/connections"] {
        let page = json!({"value": [], "nextLink": link});
        let server = TestServer::answering(200, page.to_string()).await;
        let mut list = server.service_client().list_connections("g", ListOptions::default())?;
        let error = list.next_page().await.unwrap_err();
        assert!(matches!(error, ServiceError::Malformed { .. }), "{link}: {error:?}");
        assert_eq!(server.requests(), 1);
    }
    Ok(())
}

#[tokio::test]
async fn hookwire_s_own_lists_have_their_paths() -> anyhow::Result<()> {
    let names = json!({"items": [{"name": "a"}, {"name": "b"}], "next": "/admin/v1/hubs?after=b"});
    let server = TestServer::answering(200, names.to_string()).await;
    let service = server.service_client();
    let line = async |mut list: hookwire_client::Pages<_>| {
        list.next_page()
            .await
            .expect("the path fits or not")
            .map(|page: Vec<hookwire_client::ListedName>| page.len())
    };
    let two = ListOptions { page_size: Some(2), top: Some(1) };
    assert_eq!(line(service.list_hubs(two)).await, Some(1), "no more than wanted");
    assert_eq!(server.only().line, "GET /admin/v1/hubs?limit=2");

    let server = TestServer::answering(200, r#"{"items":[{"id":"1","user":"u"}]}"#).await;
    let service = server.service_client();
    for (mut list, path) in [
        (service.list_all_connections(ListOptions::default()), "connections"),
        (service.list_user_connections("a b", ListOptions::default())?, "users/a%20b/connections"),
    ] {
        assert_eq!(list.next().await?.and_then(|one| one.user).as_deref(), Some("u"));
        assert_eq!(list.next().await?, None);
        assert_eq!(server.only().line, format!("GET /admin/v1/hubs/chat/{path}"));
    }

    let server = TestServer::answering(200, r#"{"items":[]}"#).await;
    for (mut list, path) in [
        (server.service_client().list_users(ListOptions::default()), "users"),
        (server.service_client().list_groups(ListOptions::default()), "groups"),
    ] {
        assert_eq!(list.next().await?, None);
        assert_eq!(server.only().line, format!("GET /admin/v1/hubs/chat/{path}"));
    }
    Ok(())
}

#[tokio::test]
async fn a_connection_is_described_or_absent() -> anyhow::Result<()> {
    let details = r#"{"id":"1","groups":["g"],"dialect":"webpubsub","recovering":true,
        "unacknowledgedMessages":3,"waitingEvents":0,"later":1}"#;
    let server = TestServer::answering(200, details).await;
    let details = server.service_client().describe_connection("1").await?.expect("it is there");
    assert_eq!((details.groups, details.user), (vec!["g".to_owned()], None));
    assert!(details.recovering && details.unacknowledged_messages == 3);
    assert_eq!(server.only().line, "GET /admin/v1/hubs/chat/connections/1");

    let server = TestServer::answering(404, "").await;
    assert_eq!(server.service_client().describe_connection("1").await?, None);
    Ok(())
}

#[tokio::test]
async fn the_service_may_make_the_token() -> anyhow::Result<()> {
    let server = TestServer::answering(200, r#"{"token":"abc"}"#).await;
    let access = ClientAccess::new()
        .user(NAME)
        .role("r1")
        .may_in(Permission::SendToGroup, "x")
        .group("g")
        .lifetime(Duration::from_secs(61))
        .kind(ClientKind::Mqtt);
    let made = server.service_client().generate_token(&access).await?;
    assert!(made.url.as_str().ends_with("/clients/mqtt/hubs/chat?access_token=abc"));
    assert!(!format!("{made:?}").contains("abc"));
    let query =
        "userId={}&role=r1&role=webpubsub.sendToGroup.x&group=g&minutesToExpire=2&clientType=MQTT";
    assert_bare_post(&server, query);

    let server = TestServer::answering(200, "{}").await;
    let made = server.service_client().generate_token(&ClientAccess::new()).await;
    assert!(matches!(made, Err(ServiceError::Malformed { .. })));
    Ok(())
}

#[track_caller]
fn assert_bare_post(server: &TestServer, query: &str) {
    assert_bare(server, "POST", ":generateToken", query);
}

#[test]
fn a_client_s_url_carries_a_token_for_it() -> anyhow::Result<()> {
    let line = format!("Endpoint=https://service.example;Port=8443;AccessKey={KEY};");
    let service = ServiceClient::new(&line, "Chat")?;
    let access = ClientAccess::new()
        .user("änn")
        .may(Permission::JoinLeaveGroup)
        .group("g")
        .claim("x", 1)
        .lifetime(Duration::from_mins(10));
    let made = service.client_access(&access)?;
    assert_eq!(made.base_url.as_str(), "wss://service.example:8443/client/hubs/chat");
    assert_eq!(made.url.as_str(), format!("{}?access_token={}", made.base_url, made.token));
    assert_eq!(service.anonymous_client_url(ClientKind::WebPubSub), made.base_url);

    let hosts = HostNames::parse(["service.example"])?;
    let audience = Audience { hosts: &hosts, path: made.base_url.path() };
    let keys = [hookwire_client::AccessKey::parse(KEY)?];
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
    let claims = check(&made.token, now, &keys, &audience)?;
    assert_eq!(claims.sub(), Some("änn"));
    assert_eq!(claims.get("aud"), Some(&"https://service.example:8443/client/hubs/chat".into()));
    assert_eq!(claims.get(ROLE_CLAIM), Some(&json!(["webpubsub.joinLeaveGroup"])));
    assert_eq!(claims.get(GROUP_CLAIM), Some(&json!(["g"])));
    assert_eq!(claims.get("x"), Some(&json!(1)));
    let at = |name| claims.get(name).and_then(serde_json::Value::as_u64).expect("a time");
    assert_eq!(at("exp"), at("iat") + 600);

    let nobody = service.client_access(&ClientAccess::new().kind(ClientKind::SocketIo))?;
    let audience = Audience { hosts: &hosts, path: "/clients/socketio/hubs/chat" };
    let claims = check(&nobody.token, now, &keys, &audience)?;
    assert_eq!((claims.sub(), claims.get(ROLE_CLAIM), claims.get(GROUP_CLAIM)), (None, None, None));
    Ok(())
}

#[tokio::test]
async fn a_refusal_has_status_code_and_message() {
    let body = r#"{"code":"BadRequest","message":"no filter","target":"filter"}"#;
    let server = TestServer::answering(400, body).await;
    let error = server.service_client().send_to_all("m").await.unwrap_err();
    assert_eq!(error.status().map(|status| status.as_u16()), Some(400));
    assert_eq!((error.code(), error.message()), (Some("BadRequest"), Some("no filter")));
    assert!(!error.is_usage() && error.retry_after().is_none());
    assert!(error.to_string().ends_with("/:send with 400 Bad Request: no filter"), "{error}");
}
