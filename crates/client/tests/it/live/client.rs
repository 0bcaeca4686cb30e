//! What a client can do.

use std::time::Duration;

use hookwire_client::webhook::{Answer, ConnectAnswer, Event, EventAnswer, Refusal};
use hookwire_client::{
    Client, ClientAccess, ClientBuilder, ClientError, ClientEvent, ConnectError, DataKind, Payload,
    Permission, Receipt, Sending, Stopped, Subprotocol,
};
use http::StatusCode;
use serde_json::json;

use super::{Live, soon, text};

fn refused(result: Result<impl std::fmt::Debug, ClientError>) -> String {
    match result {
        Err(ClientError::Refused(error)) => error.name,
        other => panic!("{other:?} is no refusal"),
    }
}

#[tokio::test]
async fn groups_carry_every_kind_of_data_by_every_subprotocol() {
    let live = Live::quiet().await;
    for subprotocol in Subprotocol::ALL {
        let (client, mut events) = live.connect("ann", |how| how.subprotocol(subprotocol)).await;
        client.join_group("g").await.unwrap();
        for payload in [
            Payload::from("tëxt"),
            Payload::json(&json!({ "a": [1, null] })).unwrap(),
            Payload::from(vec![0, 255]),
        ] {
            let sending = Sending::new(payload.clone()).metadata("K", "v");
            let receipt = client.send_to_group("g", sending).await.unwrap();
            assert_eq!(receipt, Receipt { is_duplicate: false });
            let Some(ClientEvent::Group(message)) = soon(events.next()).await else {
                panic!("a message comes back to who sent it")
            };
            assert_eq!(message.payload.bytes(), payload.bytes(), "{subprotocol:?}");
            let is_json = payload.kind() == DataKind::Json;
            assert!(message.payload.kind() == payload.kind() || is_json, "{subprotocol:?}");
            assert_eq!(message.metadata.pairs().collect::<Vec<_>>(), [("k", "v")]);
            assert_eq!(message.group.as_str(), "g");
            let named = (!subprotocol.is_protobuf()).then_some("ann");
            assert_eq!(message.from.as_deref(), named);
            assert_eq!(message.sequence_id.is_some(), subprotocol.is_reliable());
        }
        client.send_to_group("g", Sending::new("silent").no_echo()).await.unwrap();
        client.leave_group("g").await.unwrap();
        client.send_to_group("g", "unheard").await.unwrap();
        live.service.send_to_user("ann", "told").await.unwrap();
        assert_eq!(text(&mut events).await, "told", "{subprotocol:?}");
        soon(client.stop()).await;
        assert!(matches!(
            soon(events.next()).await,
            Some(ClientEvent::Stopped(Stopped::ByRequest))
        ));
        assert!(events.next().await.is_none() && client.connection().is_none());
        assert_eq!(client.join_group("g").await, Err(ClientError::Stopped));
    }
}

#[tokio::test]
async fn events_reach_the_application_and_its_answers_come_back() {
    let live = Live::start(|event| {
        if let Event::Connect(_) = event.event {
            return ConnectAnswer::new().state_json(&1).unwrap().into();
        }
        let Event::User { name, payload, .. } = &event.event else { return Answer::nothing() };
        match name.as_str() {
            "echo" => EventAnswer::new(payload.clone()).state_json(&2).unwrap().into(),
            "fail" => Refusal::new(StatusCode::BAD_REQUEST).into(),
            _ => Answer::nothing(),
        }
    })
    .await;
    let (client, mut events) = live.connect("ann", |how| how).await;
    let id = client.connection().unwrap().connection_id;

    let order = Payload::json(&json!({ "tea": 2 })).unwrap();
    client.send_event("echo", Sending::new(order.clone()).metadata("k", "v")).await.unwrap();
    assert_eq!(text(&mut events).await, r#"{"tea":2}"#, "the answer comes before the ack");
    assert_eq!(client.invoke("echo", Some("hi".into())).await.unwrap(), Some("hi".into()));
    assert_eq!(client.invoke("other", None).await.unwrap(), None);
    assert_eq!(refused(client.send_event("fail", "x").await), "InternalServerError");
    assert!(matches!(client.invoke("fail", None).await, Err(ClientError::Refused(_))));
    assert_eq!(client.send_event("no name", "x").await, Err(ClientError::EventName));

    let mut heard = live.heard;
    let mut told = Vec::new();
    while told.len() < 6 {
        let event = soon(heard.recv()).await.unwrap();
        assert_eq!(event.context.connection_id, id);
        if event.event == Event::Connected {
            continue;
        }
        let state: Option<u8> = event.context.state_json().unwrap();
        let name = if let Event::User { name, .. } = event.event { name } else { "-".to_owned() };
        told.push((name, event.context.user.is_some(), state));
    }
    let expected = [
        ("-", true, None),
        ("echo", true, Some(1)),
        ("echo", true, Some(2)),
        ("other", true, Some(2)),
        ("fail", true, Some(2)),
        ("fail", true, Some(2)),
    ];
    assert_eq!(told, expected.map(|(name, user, state)| (name.to_owned(), user, state)));

    soon(client.stop()).await;
    let event = soon(heard.recv()).await.unwrap();
    assert!(matches!(event.event, Event::Disconnected { .. }), "{event:?}");
}

#[tokio::test]
async fn a_client_without_permission_is_refused() {
    let live = Live::quiet().await;
    let nobody = ClientAccess::new().may_in(Permission::JoinLeaveGroup, "g");
    let url = live.service.client_access(&nobody).unwrap();
    let (client, _events) = Client::connect(url).await.unwrap();
    client.join_group("g").await.unwrap();
    assert_eq!(refused(client.join_group("h").await), "Forbidden");
    assert_eq!(refused(client.send_to_group("g", "x").await), "Forbidden");
    assert_eq!(client.send_to_group("g", Sending::new("x").without_ack()).await.map(drop), Ok(()));
}

#[tokio::test]
async fn one_ack_id_is_one_message() {
    let live = Live::quiet().await;
    let (client, mut events) = live.connect("ann", |how| how).await;
    client.join_group("g").await.unwrap();
    for is_duplicate in [false, true] {
        let receipt = client.send_to_group("g", Sending::new("once").ack_id(7)).await;
        assert_eq!(receipt, Ok(Receipt { is_duplicate }));
    }
    client.send_to_group("g", "last").await.unwrap();
    assert_eq!(text(&mut events).await, "once");
    assert_eq!(text(&mut events).await, "last");
}

#[tokio::test]
async fn who_is_not_let_in_learns_why() {
    let live = Live::start(|event| {
        if let Event::Connect(connect) = &event.event
            && connect.query("name") == Some("root")
        {
            return Refusal::new(StatusCode::FORBIDDEN).message("not you").into();
        }
        Answer::nothing()
    })
    .await;
    let mut url = live.url("ann");
    url.query_pairs_mut().append_pair("name", "root");
    let error = Client::connect(&url).await.unwrap_err();
    let ConnectError::Refused { status, excerpt } = &error else { panic!("{error:?}") };
    assert_eq!((*status, excerpt.as_str()), (StatusCode::FORBIDDEN, "not you"));

    url.set_query(Some("access_token=nonsense"));
    let error = Client::connect(&url).await.unwrap_err();
    assert!(matches!(error, ConnectError::Refused { status: StatusCode::UNAUTHORIZED, .. }));
    url.set_port(Some(1)).unwrap();
    assert!(matches!(Client::connect(&url).await, Err(ConnectError::Unreachable(_))));
    let nowhere = url::Url::parse("mailto:ann").unwrap();
    assert!(matches!(Client::connect(&nowhere).await, Err(ConnectError::Url)));
}

#[tokio::test]
async fn a_stream_arrives_in_order_and_ends() {
    let live = Live::quiet().await;
    let (reader, mut events) = live.connect("bob", |how| how).await;
    reader.join_group("g").await.unwrap();
    let (writer, _unheard) = live.connect("ann", |how| how).await;
    let stream = writer.start_stream("g", false).await.unwrap();
    for piece in ["a", "b", "c"] {
        stream.send(piece).await.unwrap();
    }
    let id = stream.id().to_owned();
    stream.finish().await.unwrap();
    for (number, piece) in [(1, "a"), (2, "b"), (3, "c"), (4, "")] {
        let Some(ClientEvent::Group(message)) = soon(events.next()).await else {
            panic!("a piece comes")
        };
        let part = message.stream.unwrap();
        assert_eq!((part.stream_id.as_str(), part.sequence_id), (id.as_str(), number));
        assert_eq!(message.payload.as_text(), Some(piece));
        assert_eq!(part.end.is_some(), number == 4);
    }

    let stream = writer.start_stream("g", false).await.unwrap();
    stream.fail("no more", Some("E1")).await.unwrap();
    let Some(ClientEvent::Group(message)) = soon(events.next()).await else { panic!("the end") };
    let error = message.stream.unwrap().end.unwrap().unwrap();
    assert_eq!(error.user_error_code.as_deref(), Some("E1"));
}

#[tokio::test]
async fn members_see_each_other_s_state() {
    let live = Live::quiet().await;
    let (watcher, mut events) = live.connect("bob", |how| how).await;
    watcher.join_group("g").await.unwrap();
    watcher.subscribe_group_state("g").await.unwrap();
    let (client, _unheard) = live.connect("ann", |how| how).await;
    client.join_group("g").await.unwrap();
    let state = [("status".to_owned(), "away".to_owned())].into();
    client.set_group_state("g", Some(state)).await.unwrap();
    loop {
        let Some(ClientEvent::GroupState { items, .. }) = soon(events.next()).await else {
            panic!("states come")
        };
        if let Some(item) = items.first() {
            assert_eq!(item.user_id.as_ref().map(ToString::to_string).as_deref(), Some("ann"));
            assert_eq!(item.state.as_ref().unwrap()["status"], "away");
            break;
        }
    }
    watcher.unsubscribe_group_state("g").await.unwrap();
}

#[tokio::test]
async fn a_client_that_nobody_holds_is_gone() {
    let mut live = Live::quiet().await;
    let (client, events) = live.connect("ann", |how| how).await;
    drop((client, events));
    loop {
        let event = soon(live.heard.recv()).await.unwrap();
        if let Event::Disconnected { .. } = event.event {
            break;
        }
    }
    assert!(!live.service.user_exists("ann").await.unwrap());
}

#[tokio::test]
async fn events_that_are_not_taken_wait_and_answers_with_them() {
    let live = Live::quiet().await;
    let (client, mut events) = live.connect("ann", |how| how.subprotocol(Subprotocol::Json)).await;
    let many = hookwire_client::EVENTS_MAX + 100;
    for at in 0..many {
        live.service.send_to_user("ann", at.to_string()).await.unwrap();
    }
    // The answer stands behind messages that nobody has taken.
    let asking = client.join_group("g");
    let taking = async {
        for at in 0..many {
            assert_eq!(text(&mut events).await, at.to_string());
        }
    };
    let (joined, ()) = soon(async { tokio::join!(asking, taking) }).await;
    assert_eq!(joined, Ok(()));
}

#[tokio::test]
async fn a_request_has_its_own_patience() {
    let live = Live::quiet().await;
    let (client, _events) = live.connect("ann", |how| how).await;
    let limit = Duration::ZERO;
    let sending = Sending::new("x").timeout(limit);
    assert_eq!(client.send_event("e", sending).await, Err(ClientError::Timeout { limit }));
    client.send_event("e", "x").await.unwrap();
}

#[tokio::test]
async fn messages_travel_compressed_both_ways_if_the_client_wants_it() {
    let mut live = Live::quiet().await;
    let story = "It was a dark and stormy night. ".repeat(1_000);
    for subprotocol in Subprotocol::ALL {
        for compresses in [true, false] {
            let how =
                |client: ClientBuilder| client.subprotocol(subprotocol).compression(compresses);
            let (client, mut events) = live.connect("ann", how).await;
            client.join_group("g").await.unwrap();
            client.send_to_group("g", story.as_str()).await.unwrap();
            assert_eq!(text(&mut events).await, story);
            live.service.send_to_user("ann", story.as_str()).await.unwrap();
            assert_eq!(text(&mut events).await, story);
            live.wire.carried.mark_unchanged();
            soon(client.stop()).await;
            soon(live.wire.carried.changed()).await.unwrap();
            let (to_node, from_node) = live.wire.carried.borrow().unwrap();
            let length = story.len() as u64;
            assert_eq!(to_node < length / 10, compresses, "{subprotocol:?}: {to_node}");
            assert_eq!(from_node < length / 10, compresses, "{subprotocol:?}: {from_node}");
        }
    }
}
