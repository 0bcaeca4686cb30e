//! Bearer tokens.

use std::path::Path;

use hookwire_proto::handler::{BearerSource, ClientCredentials, Secret};
use url::Url;

use super::*;

fn with_token(url: &str, source: BearerSource) -> Call {
    let auth = HandlerAuth::Bearer { source };
    event_call(EventHandler { auth, ..handler(url) }, user_event("x"))
}

fn from_file(url: &str, file: &Path) -> Call {
    with_token(url, BearerSource::File(file.to_owned()))
}

fn from_server(url: &str, token_url: &str) -> Call {
    with_token(
        url,
        BearerSource::ClientCredentials(Box::new(ClientCredentials {
            token_url: Url::parse(token_url).unwrap(),
            client_id: "hookwire".to_owned(),
            client_secret: Secret::new("s3cret & more".to_owned()),
            scope: Some("api://hooks/.default".to_owned()),
        })),
    )
}

/// Answers the next event and returns its `authorization`.
async fn authorization(peer: &mut Peer) -> Option<String> {
    let (head, _) = peer.request().await;
    assert!(head.starts_with("POST "), "{head}");
    peer.write(NO_CONTENT).await;
    head.lines().find_map(|line| line.strip_prefix("authorization: ")).map(str::to_owned)
}

#[tokio::test]
async fn a_token_comes_from_a_file_that_is_looked_at_again() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "first.token\n").unwrap();
    let (listener, url) = listen().await;
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    caller.begin_call(from_file(&url, &file));
    let mut peer = Peer::welcome(&listener).await;
    assert_eq!(authorization(&mut peer).await.as_deref(), Some("Bearer first.token"));
    assert_eq!(status(&caller.end().await.1), Some(204));

    std::fs::write(&file, "second.token").unwrap();
    elapse(token::FILE_TIME).await;
    caller.begin_call(from_file(&url, &file));
    // The connection has been idle for too long meanwhile.
    let mut peer = Peer::accept(&listener).await;
    assert_eq!(authorization(&mut peer).await.as_deref(), Some("Bearer second.token"));
    assert_eq!(status(&caller.end().await.1), Some(204));
}

#[tokio::test]
async fn a_file_without_a_token_fails_the_event_without_showing_what_it_holds() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    for (content, word) in [(None, "cannot be read"), (Some("two s3cret"), "holds no token")] {
        if let Some(content) = content {
            std::fs::write(&file, content).unwrap();
        }
        let (listener, url) = listen().await;
        let mut caller = Caller::new(UpstreamLimits::default()).await;
        caller.begin_call(from_file(&url, &file));
        let _peer = Peer::welcome(&listener).await;
        let reason = reason(caller.end().await.1);
        assert!(reason.starts_with("no bearer token: the token file "), "{reason}");
        assert!(reason.contains(word) && !reason.contains("s3cret"), "{reason}");
    }
}

#[tokio::test]
async fn a_token_comes_from_an_authorization_server_once_for_many_events() {
    let (listener, url) = listen().await;
    let (server, _) = listen().await;
    let token_url = format!("http://{}/token?v=2", server.local_addr().unwrap());
    let mut caller = Caller::new(UpstreamLimits::default()).await;
    for _ in 0..3 {
        caller.begin_call(from_server(&url, &token_url));
    }
    let mut first = Peer::welcome(&listener).await;
    let mut peer = Peer::accept(&server).await;
    let (head, body) = peer.request().await;
    assert!(head.starts_with("POST /token?v=2 HTTP/1.1\r\n"), "{head}");
    assert!(head.to_lowercase().contains("content-type: application/x-www-form-urlencoded\r\n"));
    assert_eq!(
        String::from_utf8(body).unwrap(),
        "grant_type=client_credentials&client_id=hookwire&client_secret=s3cret+%26+more&scope=api%3A%2F%2Fhooks%2F.default"
    );
    assert!(poll!(pin!(listener.accept())).is_pending(), "the events wait for the token");
    let answer = r#"{"access_token":"t.o.k","token_type":"Bearer","expires_in":3600}"#;
    peer.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{answer}", answer.len()))
        .await;
    let events = async {
        let mut second = Peer::accept(&listener).await;
        let mut third = Peer::accept(&listener).await;
        for peer in [&mut first, &mut second, &mut third] {
            assert_eq!(authorization(peer).await.as_deref(), Some("Bearer t.o.k"));
        }
    };
    let ends = async {
        for _ in 0..3 {
            assert_eq!(status(&caller.end().await.1), Some(204));
        }
    };
    tokio::join!(events, ends);
    assert!(poll!(pin!(server.accept())).is_pending(), "it was asked once");
}

#[tokio::test]
async fn an_authorization_server_that_gives_no_token_fails_the_event() {
    let answer = |line: &str, body: &str| {
        format!("HTTP/1.1 {line}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
    };
    for (answer, expected) in [
        (
            answer("401 No", r#"{"error":"invalid_client","error_description":"s3cret"}"#),
            "no bearer token: the authorization server answered 401: invalid_client",
        ),
        (answer("500 Oops", "s3cret"), "no bearer token: the authorization server answered 500"),
        (answer("200 OK", "{}"), "no bearer token: the authorization server gave no access token"),
        (
            answer("200 OK", "s3cret"),
            "no bearer token: the authorization server gave no access token",
        ),
        (
            answer("200 OK", r#"{"access_token":"s3cret\r\nX: y"}"#),
            "no bearer token: the authorization server gave no access token",
        ),
    ] {
        let (listener, url) = listen().await;
        let (server, token_url) = listen().await;
        let mut caller = Caller::new(UpstreamLimits::default()).await;
        caller.begin_call(from_server(&url, &token_url));
        let _peer = Peer::welcome(&listener).await;
        let mut peer = Peer::accept(&server).await;
        peer.request().await;
        peer.write(answer).await;
        assert_eq!(reason(caller.end().await.1), expected);
        // It is not asked again at once.
        caller.begin_call(from_server(&url, &token_url));
        assert_eq!(reason(caller.end().await.1), expected);
    }
}
