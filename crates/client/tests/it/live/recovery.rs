//! A wire that is cut.

use std::time::Duration;

use hookwire_client::webhook::{Answer, Event, EventAnswer};
use hookwire_client::{
    Client, ClientAccess, ClientEvent, Permission, Stopped, Subprotocol, UrlSource,
};

use super::{Live, soon, text};

const RELIABLE: [Subprotocol; 2] = [Subprotocol::JsonReliable, Subprotocol::ProtobufReliable];

#[tokio::test]
async fn nothing_is_missed_and_nothing_comes_twice_when_the_wire_is_cut() {
    let live = Live::quiet().await;
    for subprotocol in RELIABLE {
        let (client, mut events) = live.connect("ann", |how| how.subprotocol(subprotocol)).await;
        let id = client.connection().unwrap().connection_id;
        client.join_group("g").await.unwrap();
        let mut expected = 0;
        for round in 0..2 {
            // Some before, some while the wire is cut, some after.
            for at in 0..30 {
                if at == 10 {
                    live.wire.cut_for_long();
                }
                if at == 20 {
                    live.wire.mend();
                }
                let message = (round * 30 + at).to_string();
                live.service.send_to_group("g", message).await.unwrap();
            }
            let mut recoveries = 0;
            while expected < (round + 1) * 30 || recoveries == 0 {
                match soon(events.next()).await {
                    Some(ClientEvent::Recovered) => recoveries += 1,
                    Some(ClientEvent::Group(message)) => {
                        assert_eq!(message.payload.as_text(), Some(&*expected.to_string()));
                        expected += 1;
                    }
                    other => panic!("{other:?} was not expected"),
                }
            }
        }
        assert_eq!(client.connection().unwrap().connection_id, id, "it is the same connection");
        soon(client.stop()).await;
    }
}

#[tokio::test]
async fn requests_go_on_when_the_wire_is_cut_and_happen_once() {
    let mut live = Live::start(|event| {
        let Event::User { payload, .. } = &event.event else { return Answer::nothing() };
        EventAnswer::new(payload.clone()).into()
    })
    .await;
    let (client, mut events) = live.connect("ann", |how| how).await;
    client.join_group("g").await.unwrap();
    for at in 0..20 {
        if at % 5 == 3 {
            live.wire.cut();
        }
        client.send_to_group("g", at.to_string()).await.unwrap();
    }
    let mut got = Vec::new();
    while got.len() < 20 {
        if let Some(ClientEvent::Group(message)) = soon(events.next()).await {
            got.push(message.payload.as_text().unwrap().to_owned());
        }
    }
    assert_eq!(got, (0..20).map(|at| at.to_string()).collect::<Vec<_>>());

    live.wire.cut_for_long();
    let sending = tokio::spawn({
        let client = client.clone();
        async move { client.send_event("ask", "while there is no wire").await }
    });
    tokio::task::yield_now().await;
    live.wire.mend();
    soon(sending).await.unwrap().unwrap();
    soon(client.stop()).await;
    let mut asked = 0;
    loop {
        let event = soon(live.heard.recv()).await.unwrap().event;
        if matches!(event, Event::Disconnected { .. }) {
            break;
        }
        asked += u32::from(matches!(event, Event::User { .. }));
    }
    assert_eq!(asked, 1);
}

#[tokio::test]
async fn a_refused_recovery_leads_to_a_new_connection_in_the_same_groups() {
    let live = Live::quiet().await;
    let (client, mut events) = live.connect("ann", |how| how).await;
    let first = client.connection().unwrap().connection_id;
    client.join_group("g").await.unwrap();
    client.join_group("h").await.unwrap();
    client.leave_group("h").await.unwrap();
    live.wire.cut_for_long();
    live.service.close_connection(&first, Some("enough")).await.unwrap();
    live.wire.mend();
    assert!(matches!(soon(events.next()).await, Some(ClientEvent::Disconnected { .. })));
    let Some(ClientEvent::Connected(second)) = soon(events.next()).await else {
        panic!("a new connection")
    };
    assert_ne!(second.connection_id, first);
    assert_eq!((second.user.as_deref(), client.connection()), (Some("ann"), Some(second.clone())));
    // Its own request stands behind those that join the groups again.
    client.join_group("i").await.unwrap();
    for group in ["h", "g"] {
        live.service.send_to_group(group, group).await.unwrap();
    }
    assert_eq!(text(&mut events).await, "g");
}

#[tokio::test]
async fn without_reliability_a_cut_wire_is_a_new_connection() {
    let live = Live::quiet().await;
    let how = |how: hookwire_client::ClientBuilder| {
        how.subprotocol(Subprotocol::Json)
            .reconnect_delay(Duration::from_millis(10), Duration::from_millis(20))
    };
    let (client, mut events) = live.connect("ann", how).await;
    client.join_group("g").await.unwrap();
    live.wire.cut();
    assert!(matches!(soon(events.next()).await, Some(ClientEvent::Disconnected { reason: None })));
    assert!(matches!(soon(events.next()).await, Some(ClientEvent::Connected(_))));
    client.send_to_group("g", "again").await.unwrap();
    assert_eq!(text(&mut events).await, "again");

    let (client, mut events) = live.connect("bob", |builder| how(builder).reconnect(false)).await;
    live.wire.cut();
    assert!(matches!(soon(events.next()).await, Some(ClientEvent::Disconnected { reason: None })));
    let last = soon(events.next()).await;
    assert!(matches!(last, Some(ClientEvent::Stopped(Stopped::ConnectionOver))), "{last:?}");
    assert!(client.connection().is_none());
}

#[tokio::test]
async fn a_connection_that_the_application_closes_is_replaced_by_a_fresh_url() {
    let live = Live::quiet().await;
    let (service, port) = (live.service.clone(), live.wire.port);
    let source = UrlSource::fresh(move || {
        let access = ClientAccess::new().user("ann").may(Permission::JoinLeaveGroup);
        let url = service.client_access(&access).map(|access| {
            let mut url = access.url;
            url.set_port(Some(port)).expect("it has a host");
            url
        });
        async move { url }
    });
    let how = Client::builder(source)
        .reconnect_delay(Duration::from_millis(10), Duration::from_millis(20));
    let (client, mut events) = how.connect().await.unwrap();
    let Some(ClientEvent::Connected(first)) = soon(events.next()).await else { panic!("greeted") };
    live.service.close_connection(&first.connection_id, Some("bye")).await.unwrap();
    let Some(ClientEvent::Disconnected { reason }) = soon(events.next()).await else {
        panic!("closed")
    };
    assert_eq!(reason.as_deref(), Some("bye"));
    assert!(matches!(soon(events.next()).await, Some(ClientEvent::Connected(_))));
    assert_ne!(client.connection().unwrap().connection_id, first.connection_id);
}
