//! The commands by the API of the preview.

use serde_json::json;

use super::*;

async fn sent(line: &[&str], input: &'static [u8]) -> (String, String) {
    let (result, line, content) = against(Dialect::Preview, "200 OK", line, input).await;
    assert_eq!(result.unwrap(), Outcome::Done("sent"));
    (line, content)
}

#[tokio::test]
async fn a_message_goes_to_everyone_or_to_one_recipient() {
    let expected = |line: &str, content: &str| (line.to_owned(), content.to_owned());
    assert_eq!(sent(&["send", "hi"], b"").await, expected("POST …", "text/plain|hi"));
    assert_eq!(
        sent(&["send", "--user=a b", "hi"], b"").await,
        expected("POST …users/a%20b", "text/plain|hi")
    );
    assert_eq!(
        sent(&["send", "--group", "g", "hi"], b"").await,
        expected("POST …groups/g", "text/plain|hi")
    );
    assert_eq!(
        sent(&["send", "--connection", "i", "hi"], b"").await,
        expected("POST …connections/i", "text/plain|hi")
    );
    let binary = "application/octet-stream|hi";
    assert_eq!(sent(&["send", "--binary", "hi"], b"").await, expected("POST …", binary));
}

#[tokio::test]
async fn a_message_may_come_from_standard_input() {
    assert_eq!(sent(&["send"], b"two\nlines\r\n").await.1, "text/plain|two\nlines");
    assert_eq!(sent(&["send", "--binary"], b"raw\n").await.1, "application/octet-stream|raw\n");
    let failure = text_of(vec![0xff]).unwrap_err();
    assert_eq!(failure.code(), 2);
    assert!(
        failure.text().starts_with("standard input is not UTF-8 text: send it with --binary: "),
        "{}",
        failure.text()
    );
    assert_eq!(read_limited(&*vec![b'x'; 1 << 20]).unwrap().len(), 1 << 20);
    assert_eq!(read_limited(std::io::repeat(b'x')).unwrap_err().code(), 2);
}

#[tokio::test]
async fn questions_have_an_exit_code() {
    for (status, code, text) in [("200 OK", 0, "yes"), ("404 Not Found", 1, "no")] {
        for (line, request) in [
            (&["group", "exists", "g"][..], "HEAD …groups/g"),
            (&["group", "contains", "g", "--user", "u"], "GET …groups/g/users/u"),
            (&["user", "exists", "u"], "HEAD …users/u"),
            (&["connection", "exists", "i"], "HEAD …connections/i"),
        ] {
            let (result, asked, _) = against(Dialect::Preview, status, line, b"").await;
            let outcome = result.unwrap();
            assert_eq!(
                (asked.as_str(), outcome.code(), outcome.to_string().as_str()),
                (request, code, text)
            );
            assert_eq!(outcome.to_json(), json!({ "answer": code == 0 }));
        }
    }
}

#[tokio::test]
async fn changes_are_one_request_each() {
    for (line, request, text) in [
        (&["group", "add", "g", "--user", "u"][..], "PUT …groups/g/users/u", "added"),
        (
            &["group", "add", "g", "--user", "u", "--ttl", "60"],
            "PUT …groups/g/users/u?ttl=60",
            "added",
        ),
        (&["group", "add", "g", "--connection", "i"], "PUT …groups/g/connections/i", "added"),
        (&["group", "remove", "g", "--user", "u"], "DELETE …groups/g/users/u", "removed"),
        (
            &["group", "remove", "g", "--connection", "i"],
            "DELETE …groups/g/connections/i",
            "removed",
        ),
        (&["user", "leave-groups", "u"], "DELETE …users/u/groups", "removed"),
        (&["connection", "close", "i"], "DELETE …connections/i", "closed"),
        (
            &["connection", "close", "i", "--reason", "a b"],
            "DELETE …connections/i?reason=a%20b",
            "closed",
        ),
    ] {
        let (result, asked, _) = against(Dialect::Preview, "200 OK", line, b"").await;
        let outcome = result.unwrap();
        assert_eq!(
            (asked.as_str(), outcome.code(), outcome.to_string().as_str()),
            (request, 0, text)
        );
        assert_eq!(outcome.to_json(), json!({ "ok": true }));
    }
}

#[tokio::test]
async fn a_refusal_has_its_status_in_json() {
    let (result, ..) =
        against(Dialect::Preview, "401 Unauthorized", &["user", "exists", "u"], b"").await;
    let failure = result.unwrap_err();
    assert_eq!((failure.code(), failure.to_json()["status"].as_u64()), (3, Some(401)));
    assert!(failure.text().ends_with("/users/u with 401 Unauthorized"), "{}", failure.text());
}

#[tokio::test]
async fn what_cannot_be_asked_is_wrong_usage() {
    let asked = async |line: &[&str]| {
        run(parse(Dialect::Preview, 1, line).unwrap(), no_input).await.unwrap_err()
    };
    assert_eq!(asked(&["user", "exists", ""]).await.code(), 2);
    assert_eq!(asked(&["connection", "close", "i", "--reason", &"r".repeat(124)]).await.code(), 2);
    let line = [
        "hookwire",
        "user",
        "exists",
        "u",
        "--hub=chat",
        "--connection-string=Endpoint=http://h;secret",
    ];
    let failure = run(Line::try_parse_from(line).unwrap().command, no_input).await.unwrap_err();
    assert_eq!(failure.code(), 2);
    assert_eq!(
        failure.to_json(),
        json!({ "error": "part 2 of the connection string is not of the form Name=value" })
    );
}

#[test]
fn arguments_that_exclude_each_other_are_refused() {
    for line in [
        &["send", "hi", "--user", "u", "--group", "g"][..],
        &["group", "add", "g"],
        &["group", "add", "g", "--user", "u", "--connection", "i"],
        &["group", "add", "g", "--connection", "i", "--ttl", "5"],
        &["group", "add", "g", "--user", "u", "--ttl", "0"],
        &["token", "client", "--claim", "=x"],
    ] {
        assert_eq!(parse(Dialect::Preview, 1, line).unwrap_err().exit_code(), 2, "{line:?}");
    }
}

async fn made(line: &[&str]) -> String {
    let outcome = run(parse(Dialect::Preview, 8080, line).unwrap(), no_input).await.unwrap();
    let Outcome::Made { value, .. } = outcome else { panic!("{outcome:?}") };
    value
}

#[tokio::test]
async fn tokens_are_made_without_a_service() {
    let url = made(&[
        "token",
        "client",
        "--user",
        "ann",
        "--lifetime=60",
        "--claim=role=a",
        "--claim=role=b",
        "--claim=role=c",
        "--claim=x=y=z",
    ])
    .await;
    let token = url.strip_prefix("ws://127.0.0.1:8080/ws/client/hubs/chat?access_token=").unwrap();
    let claims = claims_of(token, "/ws/client/hubs/chat");
    assert_eq!(claims.sub(), Some("ann"));
    assert_eq!(
        (claims.get("role"), claims.get("x")),
        (Some(&json!(["a", "b", "c"])), Some(&json!("y=z")))
    );

    let binary = made(&["token", "client", "--format", "binary"]).await;
    assert!(
        binary.starts_with("ws://127.0.0.1:8080/ws/client/hubs/chat?format=binary&access_token="),
        "{binary}"
    );

    claims_of(&made(&["token", "rest"]).await, "/ws/api/v1/hubs/chat/");
    claims_of(&made(&["token", "rest", "/manage/v1/ws/upstream"]).await, "/manage/v1/ws/upstream");
}
