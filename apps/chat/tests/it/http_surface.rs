//! The five functions as HTTP: who may call, what is answered, what is in the headers.

use anyhow::Result;
use axum::http::{Method, StatusCode};
use hookwire_client::{AccessKey, sign};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use url::Url;

use crate::service::{KEY, Room, USER_ID, request};

#[tokio::test]
async fn the_root_leads_to_the_page() -> Result<()> {
    let room = Room::open().await?;
    let answered = room.get("/", &[]).await?;
    assert_eq!(
        (answered.status, &answered.headers["location"]),
        (StatusCode::TEMPORARY_REDIRECT, &"/api/index".parse()?)
    );
    let answered = room.get("/?token=1", &[]).await?;
    assert_eq!(answered.headers["location"], "/api/index?token=1");

    let page = room.get("/api/index", &[]).await?;
    assert_eq!(page.status, StatusCode::OK);
    assert_eq!(page.headers["content-type"], "text/html; charset=utf-8");
    assert!(page.body.starts_with("<!doctype html>"));
    let policy = page.headers["content-security-policy"].to_str()?;
    let origin = room.endpoint.origin().ascii_serialization();
    assert!(
        policy.contains(&format!("connect-src 'self' {origin} ws{};", &origin[4..])),
        "{policy}"
    );
    assert_eq!(page.headers["x-content-type-options"], "nosniff");

    assert_eq!(room.get("/api/nothing", &[]).await?.status, StatusCode::NOT_FOUND);
    assert_eq!(room.get("/assets/none.js", &[]).await?.status, StatusCode::NOT_FOUND);
    assert_eq!(room.get("/assets/%2e%2e/index.html", &[]).await?.status, StatusCode::NOT_FOUND);
    assert_eq!(room.get("/api/message", &[]).await?.status, StatusCode::METHOD_NOT_ALLOWED);
    let posted = request(room.address, Method::POST, "/api/index", &[], Vec::new()).await?;
    assert_eq!(posted.status, StatusCode::METHOD_NOT_ALLOWED);
    room.close().await;
    Ok(())
}

/// Where the page is built: its files are found, typed and cached. Where it is not: the page says how to build it.
#[tokio::test]
async fn the_files_of_the_page_are_served() -> Result<()> {
    let room = Room::open().await?;
    let page = room.get("/api/index", &[]).await?;
    if page.body.contains("cargo xtask pages") {
        assert_eq!(page.headers["cache-control"], "no-store");
    } else {
        let tag = page.headers["etag"].to_str()?;
        assert_eq!(
            room.get("/api/index", &[("If-None-Match", tag)]).await?.status,
            StatusCode::NOT_MODIFIED
        );
        let files: Vec<&str> =
            page.body.split('"').filter(|part| part.starts_with("/assets/")).collect();
        assert!(2 <= files.len(), "{}", page.body);
        for file in files {
            let asset = room.get(file, &[]).await?;
            assert_eq!(asset.status, StatusCode::OK, "{file}");
            assert_eq!(asset.headers["cache-control"], "public, max-age=31536000, immutable");
            let kind = match file.rsplit('.').next() {
                Some("js") => "text/javascript; charset=utf-8",
                Some("css") => "text/css; charset=utf-8",
                Some("svg") => "image/svg+xml",
                other => panic!("the page has a new kind of file: {other:?}"),
            };
            assert_eq!(asset.headers["content-type"], kind);
        }
    }
    room.close().await;
    Ok(())
}

#[tokio::test]
async fn the_endpoint_says_where_the_socket_is() -> Result<()> {
    let room = Room::open().await?;
    let port = room.endpoint.port().unwrap();
    let plain = room.get("/api/endpoint", &[]).await?;
    assert_eq!(
        plain.json(),
        json!({ "url": format!("ws://127.0.0.1:{port}/ws/client/hubs/chat"), "subprotocol": "hookwire.chat.v1" })
    );
    assert_eq!(plain.headers["cache-control"], "no-store");
    let with_token = room.get("/api/endpoint?token=1", &[]).await?.json();
    let url = Url::parse(with_token["url"].as_str().unwrap())?;
    assert_eq!(url.query_pairs().next().unwrap().0, "access_token");

    let named = room.get("/api/endpoint", &[("X-MS-Client-Principal-Name", "änn")]).await?.json();
    let token = named["url"].as_str().unwrap().split("access_token=").nth(1).unwrap();
    assert_eq!(claims(token)["sub"], "änn");
    let bad = room.get("/api/endpoint", &[("X-MS-Client-Principal-Name", &"x".repeat(65))]).await?;
    assert_eq!(bad.status, StatusCode::UNAUTHORIZED);
    room.close().await;

    let room = Room::with(|config| {
        config.always_with_token = Some(true);
        config.public_endpoint = Some(Url::parse("https://hookwire.example").unwrap());
    })
    .await?;
    let answer = room.get("/api/endpoint", &[]).await?.json();
    let url = answer["url"].as_str().unwrap();
    assert!(url.starts_with("wss://hookwire.example/ws/client/hubs/chat?access_token="), "{url}");
    let token = url.split("access_token=").nth(1).unwrap();
    assert_eq!(claims(token)["aud"], "https://hookwire.example/ws/client/hubs/chat");
    let policy = room.get("/api/index", &[]).await?.headers["content-security-policy"].clone();
    assert!(policy.to_str()?.contains("wss://hookwire.example"));
    room.close().await;
    Ok(())
}

fn claims(token: &str) -> serde_json::Value {
    let payload = token.split('.').nth(1).unwrap();
    let bits = payload.bytes().filter(|byte| *byte != b'=').flat_map(|byte| {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'-' => 62,
            _ => 63,
        };
        (0..6).rev().map(move |bit| value >> bit & 1)
    });
    let bits: Vec<u8> = bits.collect();
    let bytes: Vec<u8> =
        bits.chunks_exact(8).map(|byte| byte.iter().fold(0, |all, bit| all << 1 | bit)).collect();
    serde_json::from_slice(&bytes).unwrap()
}

#[tokio::test]
async fn a_client_connects_by_its_name() -> Result<()> {
    let room = Room::open().await?;
    let long = "🎉".repeat(64);
    for (query, name) in [
        ("?name=ann", "ann"),
        ("name=%20%20%C3%A4nn%20o%27x&x=1", "änn o'x"),
        ("name=a~b%25c%2Fd", "a~b%c/d"),
        (&*format!("name={long}"), &*long),
    ] {
        let headers =
            [("X-ASRS-Client-Query", query), ("Sec-WebSocket-Protocol", "json, hookwire.chat.v1")];
        let answered = room.event("connect", &headers, "").await?;
        assert_eq!((answered.status, &*answered.body), (StatusCode::OK, ""), "{query}");
        assert_eq!(answered.headers[USER_ID].as_bytes(), name.as_bytes());
        assert_eq!(answered.headers["sec-websocket-protocol"], "hookwire.chat.v1");
    }
    let plain = room.event("connect", &[("X-ASRS-Client-Query", "name=ann")], "").await?;
    assert!(!plain.headers.contains_key("sec-websocket-protocol"));
    let other = [("X-ASRS-Client-Query", "name=ann"), ("Sec-WebSocket-Protocol", "mqtt")];
    let other = room.event("connect", &other, "").await?;
    assert!(!other.headers.contains_key("sec-websocket-protocol"));
    room.close().await;
    Ok(())
}

#[tokio::test]
async fn what_is_proven_stands_above_what_is_said() -> Result<()> {
    let room = Room::open().await?;
    let query = ("X-ASRS-Client-Query", "name=mallory");
    let principal = ("X-MS-CLIENT-PRINCIPAL-NAME", "bob");
    let answered = room.event("connect", &[query, principal], "").await?;
    assert_eq!(answered.headers[USER_ID], "bob");
    let token = ("X-ASRS-User-Id", "ann");
    let answered = room.event("connect", &[query, principal, token], "").await?;
    assert_eq!(answered.headers[USER_ID], "ann");
    room.close().await;
    Ok(())
}

#[tokio::test]
async fn a_client_without_a_usable_name_is_turned_away_with_a_reason() -> Result<()> {
    let room = Room::open().await?;
    let long = format!("name={}", "x".repeat(65));
    for query in ["", "user=ann", "name=", "name=%20%09", "name=a%0Ab", "name=a%C2%85b", &long] {
        let answered = room.event("connect", &[("X-ASRS-Client-Query", query)], "").await?;
        assert_eq!(answered.status, StatusCode::UNAUTHORIZED, "{query}");
        assert!(answered.json()["message"].as_str().unwrap().ends_with('.'));
        assert!(!answered.headers.contains_key(USER_ID));
    }
    room.close().await;
    Ok(())
}

#[tokio::test]
async fn only_the_service_may_call() -> Result<()> {
    let room = Room::open().await?;
    let other_key = sign(&[AccessKey::parse(&"x".repeat(44))?], "connection-1");
    let other_connection = sign(&[AccessKey::parse(KEY)?], "connection-2");
    for event in ["connect", "message", "disconnect"] {
        for signature in ["", "sha256=", "sha256=00", "none", &other_key, &other_connection] {
            let headers = [
                ("X-ASRS-Signature", signature),
                ("X-ASRS-Client-Query", "name=ann"),
                ("X-ASRS-User-Id", "ann"),
            ];
            let answered = room.event(event, &headers, r#"{"re":1,"op":"hello"}"#).await?;
            assert_eq!(answered.status, StatusCode::UNAUTHORIZED, "{event} {signature}");
            assert!(answered.json()["message"].as_str().unwrap().contains("not signed"));
        }
        for (headers, status) in [
            (("X-ASRS-Connection-Id", ""), StatusCode::BAD_REQUEST),
            (("X-ASRS-Event", "explode"), StatusCode::BAD_REQUEST),
            (("X-ASRS-Category", "elsewhere"), StatusCode::BAD_REQUEST),
            (("X-ASRS-Hub", "another"), StatusCode::NOT_FOUND),
        ] {
            let answered = room.event(event, &[headers], "").await?;
            assert_eq!(answered.status, status, "{event} {headers:?}");
        }
    }
    let crossed = [("X-ASRS-Event", "disconnect"), ("X-ASRS-Category", "connections")];
    assert_eq!(room.event("connect", &crossed, "").await?.status, StatusCode::BAD_REQUEST);
    assert!(room.service.left().is_empty());
    room.close().await;

    let room = Room::with(|config| config.verify_signature = false).await?;
    let headers = [("X-ASRS-Signature", ""), ("X-ASRS-Client-Query", "name=ann")];
    assert_eq!(room.event("connect", &headers, "").await?.status, StatusCode::OK);
    room.close().await;
    Ok(())
}

#[tokio::test]
async fn a_silent_peer_does_not_keep_the_server_from_ending() -> Result<()> {
    let room = Room::open().await?;
    let mut silent = TcpStream::connect(room.address).await?;
    let mut half = TcpStream::connect(room.address).await?;
    half.write_all(b"POST /api/message HTTP/1.1\r\nHost: chat\r\nContent-Le").await?;
    let mut garbage = TcpStream::connect(room.address).await?;
    garbage.write_all(b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n").await?;
    let mut answer = String::new();
    garbage.read_to_string(&mut answer).await?;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let mut huge = TcpStream::connect(room.address).await?;
    let line = format!("GET /api/index HTTP/1.1\r\nX: {}\r\n\r\n", "x".repeat(200_000));
    let _ = huge.write_all(line.as_bytes()).await; // The server may stop reading first.
    let mut answer = Vec::new();
    let _ = huge.read_to_end(&mut answer).await; // Or reset the connection.
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 431"));
    assert_eq!(room.get("/api/endpoint", &[]).await?.status, StatusCode::OK);
    room.close().await;
    assert_eq!(silent.read(&mut [0; 1]).await?, 0);
    Ok(())
}
