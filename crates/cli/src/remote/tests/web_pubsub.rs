//! The commands by the API of Azure Web PubSub.

use serde_json::{Value, json};

use super::*;

async fn asked(
    answer: &str,
    line: &[&str],
    input: &'static [u8],
) -> (Result<Outcome, Failure>, String, String) {
    against(Dialect::WebPubSub, answer, line, input).await
}

#[tokio::test]
async fn a_message_goes_to_everyone_or_to_one_recipient() {
    for (line, request, content) in [
        (&["send", "hi"][..], "POST …:send?v", "text/plain|hi"),
        (&["send", "--user=a b", "hi"], "POST …users/a%20b/:send?v", "text/plain|hi"),
        (
            &["send", "--group", "g", "--excluded=i", "--excluded=j", "hi"],
            "POST …groups/g/:send?v&excluded=i&excluded=j",
            "text/plain|hi",
        ),
        (
            &["send", "--connection", "i", "--ttl", "9", "hi"],
            "POST …connections/i/:send?v&messageTtlSeconds=9",
            "text/plain|hi",
        ),
        (
            &["send", "--filter", "userId ne 'a'", "--json-content", "[1]"],
            "POST …:send?v&filter=userId%20ne%20'a'",
            "application/json|[1]",
        ),
        (
            &["send", "--binary", "--metadata=k=v", "hi"],
            "POST …:send?v",
            "application/octet-stream|hi",
        ),
    ] {
        let (result, was, said) = asked("202 Accepted", line, b"").await;
        assert_eq!(result.unwrap(), Outcome::Done("sent"));
        assert_eq!((was.as_str(), said.as_str()), (request, content));
    }
    let (_, _, said) = asked("202 Accepted", &["send"], b"two\nlines\r\n").await;
    assert_eq!(said, "text/plain|two\nlines");
    let (_, _, said) = asked("202 Accepted", &["send", "--binary"], b"raw\n").await;
    assert_eq!(said, "application/octet-stream|raw\n");
}

#[tokio::test]
async fn questions_have_an_exit_code() {
    for (status, code, text) in [("200 OK", 0, "yes"), ("404 Not Found", 1, "no")] {
        for (line, request) in [
            (&["group", "exists", "g"][..], "HEAD …groups/g?v"),
            (&["user", "exists", "u"], "HEAD …users/u?v"),
            (&["connection", "exists", "i"], "HEAD …connections/i?v"),
            (
                &["permission", "check", "send-to-group", "--connection=i", "--group=g h"],
                "HEAD …permissions/sendToGroup/connections/i?v&targetName=g%20h",
            ),
            (
                &["permission", "check", "join-leave-group", "--connection=i"],
                "HEAD …permissions/joinLeaveGroup/connections/i?v",
            ),
        ] {
            let (result, was, _) = asked(status, line, b"").await;
            let outcome = result.unwrap();
            assert_eq!(
                (was.as_str(), outcome.code(), outcome.to_string().as_str()),
                (request, code, text)
            );
        }
    }
}

#[tokio::test]
async fn changes_are_one_request_each() {
    for (line, request, content, text) in [
        (&["group", "add", "g", "--user", "u"][..], "PUT …users/u/groups/g?v", "|", "added"),
        (&["group", "add", "g", "--connection=i"], "PUT …groups/g/connections/i?v", "|", "added"),
        (
            &["group", "add", "g", "--filter", "length(groups) eq 0"],
            "POST …:addToGroups?v",
            r#"application/json|{"groups":["g"],"filter":"length(groups) eq 0"}"#,
            "added",
        ),
        (&["group", "remove", "g", "--user", "u"], "DELETE …users/u/groups/g?v", "|", "removed"),
        (
            &["group", "remove", "g", "--connection=i"],
            "DELETE …groups/g/connections/i?v",
            "|",
            "removed",
        ),
        (
            &["group", "remove", "g", "--everyone"],
            "POST …:removeFromGroups?v",
            r#"application/json|{"groups":["g"]}"#,
            "removed",
        ),
        (
            &["group", "close", "g", "--reason=a b", "--excluded=i"],
            "POST …groups/g/:closeConnections?v&excluded=i&reason=a%20b",
            "|",
            "closed",
        ),
        (&["user", "leave-groups", "u"], "DELETE …users/u/groups?v", "|", "removed"),
        (&["user", "close", "u"], "POST …users/u/:closeConnections?v", "|", "closed"),
        (&["connection", "close", "i"], "DELETE …connections/i?v", "|", "closed"),
        (
            &["connection", "close", "i", "--reason", "a b"],
            "DELETE …connections/i?v&reason=a%20b",
            "|",
            "closed",
        ),
        (&["connection", "leave-groups", "i"], "DELETE …connections/i/groups?v", "|", "removed"),
        (
            &["permission", "grant", "send-to-group", "--connection=i", "--group=g"],
            "PUT …permissions/sendToGroup/connections/i?v&targetName=g",
            "|",
            "granted",
        ),
        (
            &["permission", "revoke", "join-leave-group", "--connection=i"],
            "DELETE …permissions/joinLeaveGroup/connections/i?v",
            "|",
            "revoked",
        ),
        (&["hub", "close"], "POST …:closeConnections?v", "|", "closed"),
        (&["hub", "health"], "HEAD /api/health?v", "|", "healthy"),
    ] {
        let (result, was, said) = asked("204 No Content", line, b"").await;
        let outcome = result.unwrap();
        assert_eq!((was.as_str(), said.as_str()), (request, content));
        assert_eq!((outcome.code(), outcome.to_string().as_str()), (0, text));
        assert_eq!(outcome.to_json(), json!({ "ok": true }));
    }
}

#[tokio::test]
async fn lists_are_lines_or_items() {
    let page = r#"200 OK|{"value":[{"connectionId":"1","userId":"ann"},{"connectionId":"2"}]}"#;
    let (result, was, _) = asked(page, &["connection", "list", "--group", "g"], b"").await;
    assert_eq!(was, "GET …groups/g/connections?v&top=1001");
    let outcome = result.unwrap();
    assert_eq!(outcome.to_string(), "1  ann\n2");
    let items = json!([{ "id": "1", "user": "ann" }, { "id": "2" }]);
    assert_eq!(outcome.to_json(), json!({ "items": items, "more": false }));

    let (result, was, _) =
        asked(page, &["connection", "list", "--group", "g", "--top", "1"], b"").await;
    assert_eq!(was, "GET …groups/g/connections?v&top=2");
    let outcome = result.unwrap();
    assert_eq!(outcome.to_string(), "1  ann\n… and more: see --top");
    assert_eq!(outcome.to_json()["more"], true);

    let page = r#"200 OK|{"items":[{"name":"a\u001b[2J\n"}]}"#;
    for (line, request) in [
        (&["user", "list"][..], "GET /admin/v1/hubs/chat/users"),
        (&["group", "list"], "GET /admin/v1/hubs/chat/groups"),
        (&["hub", "list"], "GET /admin/v1/hubs"),
    ] {
        let (result, was, _) = asked(page, line, b"").await;
        assert_eq!(
            (was.as_str(), result.unwrap().to_string().as_str()),
            (request, r"a\u{1b}[2J\n")
        );
    }
    let page = r#"200 OK|{"items":[]}"#;
    for (line, request) in [
        (&["connection", "list"][..], "GET /admin/v1/hubs/chat/connections"),
        (&["connection", "list", "--user", "u"], "GET /admin/v1/hubs/chat/users/u/connections"),
    ] {
        let (result, was, _) = asked(page, line, b"").await;
        assert_eq!((was.as_str(), result.unwrap().to_string().as_str()), (request, ""));
    }
}

#[tokio::test]
async fn a_connection_is_shown_or_absent() {
    let answer = r#"200 OK|{"id":"1","user":"ann","groups":["g"],"dialect":"webpubsub","recovering":false,"unacknowledgedMessages":2,"waitingEvents":0}"#;
    let (result, was, _) = asked(answer, &["connection", "show", "1"], b"").await;
    assert_eq!(was, "GET /admin/v1/hubs/chat/connections/1");
    let outcome = result.unwrap();
    assert!(outcome.to_string().starts_with("id: 1\nuser: ann\ngroups: [\"g\"]\n"), "{outcome}");
    let told: Value = serde_json::from_str(answer.strip_prefix("200 OK|").unwrap()).unwrap();
    assert_eq!(outcome.to_json(), told);
    let (result, ..) = asked("404 Not Found", &["connection", "show", "1"], b"").await;
    assert_eq!(result.unwrap(), Outcome::Answer(false));
}

#[tokio::test]
async fn a_refusal_has_its_status_and_code_in_json() {
    let answer = r#"400 Bad Request|{"code":"BadRequest","message":"no filter"}"#;
    let (result, ..) = asked(answer, &["send", "--filter=x", "hi"], b"").await;
    let failure = result.unwrap_err();
    let told = failure.to_json();
    assert_eq!(
        (failure.code(), &told["status"], &told["code"]),
        (3, &json!(400), &json!("BadRequest"))
    );
    assert!(failure.text().ends_with("with 400 Bad Request: no filter"), "{}", failure.text());
}

#[tokio::test]
async fn what_one_dialect_lacks_is_wrong_usage_and_names_the_other() {
    let asked = async |dialect, line: &[&str]| {
        let failure = run(parse(dialect, 1, line).unwrap(), no_input).await.unwrap_err();
        assert_eq!(failure.code(), 2, "{line:?}");
        failure.text()
    };
    for line in [
        &["group", "contains", "g", "--user", "u"][..],
        &["group", "add", "g", "--user", "u", "--ttl", "5"],
        &["token", "client", "--format", "text"],
    ] {
        let text = asked(Dialect::WebPubSub, line).await;
        assert!(
            text.ends_with(" is not in the dialect web-pubsub: add --dialect preview"),
            "{text}"
        );
    }
    for line in [
        &["send", "hi", "--filter", "x"][..],
        &["send", "hi", "--excluded", "x"],
        &["send", "hi", "--ttl", "1"],
        &["send", "hi", "--metadata", "a=b"],
        &["send", "1", "--json-content"],
        &["group", "add", "g", "--filter", "x"],
        &["group", "remove", "g", "--everyone"],
        &["group", "close", "g"],
        &["group", "list"],
        &["user", "close", "u"],
        &["user", "list"],
        &["connection", "list"],
        &["connection", "show", "i"],
        &["connection", "leave-groups", "i"],
        &["permission", "check", "send-to-group", "--connection=i"],
        &["hub", "close"],
        &["hub", "list"],
        &["token", "client", "--role", "r"],
        &["token", "client", "--group", "g"],
        &["token", "client", "--kind", "mqtt"],
        &["token", "client", "--by-service"],
    ] {
        let text = asked(Dialect::Preview, line).await;
        assert!(
            text.ends_with(" is not in the dialect preview: add --dialect web-pubsub"),
            "{text}"
        );
    }
    for line in [
        &["send", "null", "--json-content"][..],
        &["send", "{", "--json-content"],
        &["send", "x", "--ttl", "301"],
        &["send", "x", "--metadata", "a b=c"],
        &["group", "exists", " "],
        &["token", "client", "--user", ""],
    ] {
        asked(Dialect::WebPubSub, line).await;
    }
}

#[test]
fn arguments_that_exclude_each_other_are_refused() {
    for line in [
        &["send", "hi", "--connection", "u", "--filter", "g"][..],
        &["send", "hi", "--connection", "u", "--excluded", "g"],
        &["send", "hi", "--binary", "--json-content"],
        &["group", "add", "g", "--user", "u", "--everyone"],
        &["connection", "list", "--user", "u", "--group", "g"],
        &["connection", "list", "--top", "0"],
        &["permission", "grant", "other", "--connection", "i"],
        &["permission", "grant", "send-to-group"],
        &["token", "client", "--by-service", "--claim", "a=b"],
    ] {
        assert_eq!(parse(Dialect::WebPubSub, 1, line).unwrap_err().exit_code(), 2, "{line:?}");
    }
}

async fn made(line: &[&str]) -> String {
    let command = parse(Dialect::WebPubSub, 8080, line).unwrap();
    let outcome = run(command, no_input).await.unwrap();
    let Outcome::Made { value, .. } = outcome else { panic!("{outcome:?}") };
    value
}

#[tokio::test]
async fn tokens_are_made_without_a_service() {
    let url = made(&[
        "token",
        "client",
        "--user=ann",
        "--role=webpubsub.sendToGroup",
        "--role=mine",
        "--group=g",
        "--claim=x=y",
    ])
    .await;
    let token = url.strip_prefix("ws://127.0.0.1:8080/client/hubs/chat?access_token=").unwrap();
    let claims = claims_of(token, "/client/hubs/chat");
    assert_eq!((claims.sub(), claims.get("x")), (Some("ann"), Some(&json!("y"))));
    assert_eq!(claims.roles(), ["webpubsub.sendToGroup", "mine"]);
    assert_eq!(claims.groups().unwrap()[0].as_str(), "g");
    let mqtt = made(&["token", "client", "--kind", "mqtt"]).await;
    assert!(mqtt.starts_with("ws://127.0.0.1:8080/clients/mqtt/hubs/chat?access_token="), "{mqtt}");

    claims_of(&made(&["token", "rest"]).await, "/api/hubs/chat/:send");
    claims_of(&made(&["token", "rest", "/admin/v1/hubs"]).await, "/admin/v1/hubs");
}

#[tokio::test]
async fn the_service_makes_a_token_when_it_is_told_to() {
    let line = ["token", "client", "--by-service", "--user=ann", "--role=r", "--lifetime=60"];
    let (result, was, _) = asked(r#"200 OK|{"token":"t"}"#, &line, b"").await;
    let query = "v&userId=ann&role=r&minutesToExpire=1&clientType=Default";
    assert_eq!(was, format!("POST …:generateToken?{query}"));
    let outcome = result.unwrap();
    assert!(outcome.to_string().ends_with("/client/hubs/chat?access_token=t"), "{outcome}");
}
