//! Every call of `ServiceClient`.

use std::time::Duration;

use hookwire_client::{
    Client, ClientAccess, ClientEvent, ClientKind, Closing, ListOptions, Outgoing, Payload,
    Permission, odata,
};
use serde_json::json;

use super::{Live, soon, text};

#[tokio::test]
async fn sends_reach_whom_they_mean() {
    let live = Live::quiet().await;
    let service = &live.service;
    let (ann, mut to_ann) = live.connect("ann", |how| how).await;
    let (bob, mut to_bob) = live.connect("b'ob", |how| how).await;
    let id = ann.connection().unwrap().connection_id;
    ann.join_group("g").await.unwrap();
    bob.join_group("g").await.unwrap();

    service.send_to_all("all").await.unwrap();
    service.send_to_group("g", Outgoing::new("not ann").excluding([&id])).await.unwrap();
    let filter = format!("userId eq {}", odata("b'ob"));
    service.send_to_all(Outgoing::new("filtered").filter(filter)).await.unwrap();
    service.send_to_user("ann", Payload::json(&json!({ "a": 1 })).unwrap()).await.unwrap();
    let with = Outgoing::new("one").metadata("K", "v").ttl(Duration::from_secs(5));
    service.send_to_connection(&id, with).await.unwrap();

    assert_eq!(text(&mut to_bob).await, "all");
    assert_eq!(text(&mut to_bob).await, "not ann");
    assert_eq!(text(&mut to_bob).await, "filtered");
    assert_eq!(text(&mut to_ann).await, "all");
    assert_eq!(text(&mut to_ann).await, r#"{"a":1}"#);
    let Some(ClientEvent::Server(message)) = soon(to_ann.next()).await else { panic!("a message") };
    assert_eq!(message.metadata.pairs().collect::<Vec<_>>(), [("k", "v")]);

    let error = service.send_to_all(Outgoing::new("x").filter("nonsense (")).await.unwrap_err();
    assert_eq!((error.status().unwrap().as_u16(), error.code()), (400, Some("BadRequest")));
    assert!(error.message().is_some(), "{error:?}");
}

#[tokio::test]
async fn memberships_permissions_and_presence() {
    let live = Live::quiet().await;
    let service = &live.service;
    let plain = service.client_access(&ClientAccess::new().user("ann").group("start")).unwrap();
    let (client, _events) = Client::connect(plain).await.unwrap();
    let id = client.connection().unwrap().connection_id;

    service.health().await.unwrap();
    assert!(service.connection_exists(&id).await.unwrap());
    assert!(
        service.user_exists("ann").await.unwrap() && !service.user_exists("bob").await.unwrap()
    );
    assert!(service.group_exists("start").await.unwrap());
    service.add_connection_to_group("a", &id).await.unwrap();
    service.add_user_to_group("b", "ann").await.unwrap();
    service.add_connections_to_groups(&["c", "d"], Some("userId eq 'ann'")).await.unwrap();
    let groups = async || service.describe_connection(&id).await.unwrap().unwrap().groups;
    assert_eq!(groups().await, ["a", "b", "c", "d", "start"]);
    service.remove_connection_from_group("a", &id).await.unwrap();
    service.remove_user_from_group("b", "ann").await.unwrap();
    service.remove_connections_from_groups(&["c"], None).await.unwrap();
    assert_eq!(groups().await, ["d", "start"]);
    service.remove_connection_from_all_groups(&id).await.unwrap();
    service.add_user_to_group("e", "ann").await.unwrap();
    assert_eq!(groups().await, ["e"]);
    service.remove_user_from_all_groups("ann").await.unwrap();
    assert!(groups().await.is_empty() && !service.group_exists("e").await.unwrap());
    let absent = service.add_user_to_group("e", "nobody").await.unwrap_err();
    assert_eq!(absent.status().unwrap().as_u16(), 404);

    let join = Permission::JoinLeaveGroup;
    assert!(!service.has_permission(join, &id, Some("g")).await.unwrap());
    service.grant_permission(join, &id, Some("g")).await.unwrap();
    assert!(service.has_permission(join, &id, Some("g")).await.unwrap());
    client.join_group("g").await.unwrap();
    service.revoke_permission(join, &id, Some("g")).await.unwrap();
    assert!(client.leave_group("g").await.is_err());
    service.grant_permission(join, &id, None).await.unwrap();
    assert!(service.has_permission(join, &id, None).await.unwrap());
}

#[tokio::test]
async fn connections_are_listed_in_pages_and_closed() {
    let live = Live::quiet().await;
    let service = &live.service;
    let mut clients = Vec::new();
    for at in 0..5 {
        let access = ClientAccess::new().user(format!("u{at}")).group("a group/x");
        let how = Client::builder(service.client_access(&access).unwrap()).reconnect(false);
        clients.push(how.connect().await.unwrap());
    }
    let options = ListOptions { page_size: Some(2), top: Some(5) };
    let mut pages = service.list_connections("a group/x", options).unwrap();
    let mut sizes = Vec::new();
    let mut listed = Vec::new();
    while let Some(page) = pages.next_page().await.unwrap() {
        sizes.push(page.len());
        listed.extend(page);
    }
    assert_eq!(sizes, [2, 2, 1]);
    let mut users: Vec<_> = listed.iter().map(|one| one.user.clone().unwrap()).collect();
    users.sort();
    assert_eq!(users, ["u0", "u1", "u2", "u3", "u4"]);

    let small = ListOptions { page_size: Some(2), top: None };
    let mut names = Vec::new();
    let mut list = service.list_users(small);
    while let Some(user) = list.next().await.unwrap() {
        names.push(user.name);
    }
    assert_eq!(names, ["u0", "u1", "u2", "u3", "u4"]);
    assert_eq!(service.list_hubs(small).next().await.unwrap().unwrap().name, "chat");
    assert_eq!(service.list_groups(small).next().await.unwrap().unwrap().name, "a group/x");
    let mut all = service.list_all_connections(ListOptions { page_size: Some(2), top: Some(3) });
    let mut count = 0;
    while all.next().await.unwrap().is_some() {
        count += 1;
    }
    assert_eq!(count, 3);
    let of_one = service.list_user_connections("u1", small).unwrap().next().await.unwrap().unwrap();
    assert_eq!(of_one.user.as_deref(), Some("u1"));
    let details = service.describe_connection(&of_one.id).await.unwrap().unwrap();
    assert_eq!(details.subprotocol.as_deref(), Some("json.reliable.webpubsub.azure.v1"));
    assert!(service.describe_connection("nobody").await.unwrap().is_none());

    service.close_user_connections("u0", Closing::new().reason("user")).await.unwrap();
    service.close_connection(&of_one.id, Some("one")).await.unwrap();
    let kept = clients[2].0.connection().unwrap().connection_id;
    let closing = Closing::new().excluding([&kept]).reason("group");
    service.close_group_connections("a group/x", closing).await.unwrap();
    service.close_all_connections(Closing::new()).await.unwrap();
    let reasons = ["user", "one", "ClosedByAppServer", "group", "group"];
    for ((_client, events), expected) in clients.iter_mut().zip(reasons) {
        loop {
            match soon(events.next()).await {
                Some(ClientEvent::Disconnected { reason }) => {
                    assert_eq!(reason.as_deref(), Some(expected));
                    break;
                }
                Some(ClientEvent::Connected(_)) => {}
                other => panic!("{other:?} was not expected"),
            }
        }
    }
}

#[tokio::test]
async fn a_token_of_the_service_lets_a_client_in() {
    let live = Live::quiet().await;
    let access = ClientAccess::new()
        .user("ann")
        .group("g")
        .may_in(Permission::SendToGroup, "g")
        .lifetime(Duration::from_secs(90));
    let made = live.service.generate_token(&access).await.unwrap();
    let (client, mut events) = Client::connect(made).await.unwrap();
    assert_eq!(client.connection().unwrap().user.as_deref(), Some("ann"));
    assert!(matches!(events.next().await, Some(ClientEvent::Connected(_))));
    client.send_to_group("g", "hi").await.unwrap();
    assert_eq!(text(&mut events).await, "hi");
    let mqtt = live.service.generate_token(&ClientAccess::new().kind(ClientKind::Mqtt)).await;
    assert!(mqtt.unwrap().base_url.path().starts_with("/clients/mqtt/"));
}
