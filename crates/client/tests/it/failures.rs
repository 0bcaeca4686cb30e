//! What a caller learns when something is wrong.

use std::time::Duration;

use hookwire_client::{
    ConnectionString, HubName, NameError, Service, ServiceError, ServiceOptions,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::server::{KEY, TestServer, connection_string};

#[tokio::test]
async fn a_refusal_shows_the_status_and_the_start_of_the_answer() {
    let server =
        TestServer::answering(400, format!("<h1>bad\r\n  template</h1> {}", "x".repeat(100_000)))
            .await;
    let error = server.service().broadcast("m").await.unwrap_err();
    let ServiceError::Status { status, excerpt, request, .. } = &error else { panic!("{error:?}") };
    assert_eq!(status.as_u16(), 400);
    assert!(
        excerpt.starts_with("<h1>bad template</h1> xxx") && excerpt.len() <= 1_024,
        "{excerpt}"
    );
    assert!(
        request.starts_with("POST http://127.0.0.1:") && request.ends_with("/ws/api/v1/hubs/chat/"),
        "{request}"
    );
    assert!(!format!("{error:?}").contains(KEY));
}

#[tokio::test]
async fn an_error_does_not_show_what_stands_in_a_query() {
    let server = TestServer::answering(503, "").await;
    let error = server.service().close_connection("id-1", Some("private words")).await.unwrap_err();
    assert!(
        error.to_string().ends_with("/connections/id-1 with 503 Service Unavailable"),
        "{error}"
    );
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let server = TestServer::answering(302, "").await;
    assert!(matches!(server.service().broadcast("m").await, Err(ServiceError::Status { .. })));
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn impossible_names_are_refused_before_anything_is_sent() {
    let server = TestServer::answering(200, "").await;
    let service = server.service();
    for refused in [
        service.send_to_user("", "m").await,
        service.send_to_user("a\nb", "m").await,
        service.send_to_group(" ", "m").await,
        service.send_to_connection("", "m").await,
        service.send_to_connection(&"i".repeat(1_025), "m").await,
        service.remove_from_all_groups("").await,
        service.add_to_group("", "u").await,
    ] {
        assert!(matches!(
            refused,
            Err(ServiceError::Name(
                NameError::Blank { .. } | NameError::TooLong { .. } | NameError::Character { .. }
            ))
        ));
    }
    let long = service.close_connection("id", Some(&"r".repeat(124))).await;
    assert!(matches!(long, Err(ServiceError::ReasonTooLong { bytes: 124 })));
    assert!(service.close_connection("id", Some(&"r".repeat(123))).await.is_ok());
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn a_service_that_is_not_there_is_unreachable() {
    let port = TcpListener::bind(("127.0.0.1", 0)).await.unwrap().local_addr().unwrap().port();
    let service = Service::new(&connection_string(port), "chat").unwrap();
    assert!(matches!(service.health().await, Err(ServiceError::Unreachable { .. })));
}

#[tokio::test]
async fn a_service_that_hangs_up_interrupts() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let service =
        Service::new(&connection_string(listener.local_addr().unwrap().port()), "chat").unwrap();
    let hang_up = async {
        let (mut socket, _) = listener.accept().await.unwrap();
        assert_ne!(socket.read(&mut [0; 1_024]).await.unwrap(), 0);
        socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf").await.unwrap();
    };
    let (answer, ()) = tokio::join!(service.broadcast("m"), hang_up);
    assert!(matches!(answer, Err(ServiceError::Interrupted { .. })), "{answer:?}");
}

#[tokio::test]
async fn a_service_that_is_silent_times_out() {
    // The kernel accepts the connection; nobody answers.
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let connection =
        ConnectionString::parse(&connection_string(listener.local_addr().unwrap().port())).unwrap();
    let options = ServiceOptions { call_timeout: Duration::ZERO, ..ServiceOptions::default() };
    let service =
        Service::with_options(connection, HubName::parse("chat").unwrap(), options).unwrap();
    let answer = service.broadcast("m").await;
    assert!(
        matches!(answer, Err(ServiceError::Timeout { limit: Duration::ZERO, .. })),
        "{answer:?}"
    );
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let server = TestServer::answering(200, vec![b' '; (4 << 20) + 1]).await;
    assert!(matches!(server.service().upstream().await, Err(ServiceError::AnswerTooLong { .. })));
}

#[tokio::test]
async fn settings_that_are_none_are_malformed() {
    let server = TestServer::answering(200, "<html>").await;
    assert!(matches!(server.service().upstream().await, Err(ServiceError::Malformed { .. })));
}
