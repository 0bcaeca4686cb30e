//! The lists for those who look after the service, from outside.

use hookwire_proto::name::ConnectionId;
use serde_json::{Value, json};

use crate::node::{start, token};

fn names(page: &Value) -> Vec<&str> {
    page["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn what_is_connected_can_be_listed() {
    let node = start(None, |_| {}).await;
    let mut clients = Vec::new();
    for (user, groups) in
        [(Some("ann"), json!(["a/b", "c"])), (Some("bob"), json!(["c"])), (None, json!([]))]
    {
        clients.push(node.with_json(user, &json!({ "webpubsub.group": groups })).await);
    }
    let _preview = node.connect_as("other", "dora").await;
    assert_eq!(names(&node.json("/admin/v1/hubs").await), ["chat", "other"]);
    assert_eq!(names(&node.json("/admin/v1/hubs/Chat/users").await), ["ann", "bob"]);
    assert_eq!(names(&node.json("/admin/v1/hubs/chat/groups").await), ["a/b", "c"]);
    assert_eq!(names(&node.json("/admin/v1/hubs/nothing/groups").await), [""; 0]);

    let mut all: Vec<Value> = clients
        .iter()
        .zip([Some("ann"), Some("bob"), None])
        .map(|((_, id), user)| match user {
            Some(user) => json!({ "id": id, "user": user }),
            None => json!({ "id": id }),
        })
        .collect();
    all.sort_by_key(|one| ConnectionId::parse(one["id"].as_str().unwrap()));
    assert_eq!(node.json("/admin/v1/hubs/chat/connections").await, json!({ "items": all }));
    let ann = json!({ "items": [{ "id": clients[0].1, "user": "ann" }] });
    assert_eq!(node.json("/admin/v1/hubs/chat/users/ann/connections").await, ann);
    assert_eq!(node.json("/admin/v1/hubs/chat/groups/a%2Fb/connections").await, ann);

    let mut found = Vec::new();
    let mut next = Some("/admin/v1/hubs/chat/connections?limit=2".to_owned());
    while let Some(path) = next {
        let page = node.json(&path).await;
        found.extend(page["items"].as_array().unwrap().iter().cloned());
        next = page.get("next").map(|next| next.as_str().unwrap().to_owned());
    }
    assert_eq!(found, all);
    let page = node.json("/admin/v1/hubs/chat/groups?limit=1").await;
    assert_eq!(page["next"], "/admin/v1/hubs/chat/groups?limit=1&after=a%2Fb");
    assert_eq!(names(&node.json(page["next"].as_str().unwrap()).await), ["c"]);
}

#[tokio::test]
async fn one_connection_can_be_looked_at() {
    let node = start(None, |_| {}).await;
    let roles =
        ["webpubsub.sendToGroup", "webpubsub.joinLeaveGroup.c", "webpubsub.joinLeaveGroups.r*"];
    let claims = json!({ "webpubsub.group": ["b", "a"], "role": roles });
    let (_client, id) = node.with_json(Some("ann"), &claims).await;
    assert_eq!(
        node.json(&format!("/admin/v1/hubs/chat/connections/{id}")).await,
        json!({
            "id": id, "user": "ann", "groups": ["a", "b"], "subprotocol": "json.webpubsub.azure.v1", "dialect": "webpubsub",
            "recovering": false, "unacknowledgedMessages": 0, "waitingEvents": 0,
            "permissions": {
                "joinLeaveGroup": { "all": false, "groups": ["c"], "patterns": ["r*"], "denied": [] },
                "sendToGroup": { "all": true, "groups": [], "patterns": [], "denied": [] },
            },
        })
    );
    let old_token = token("/ws/client/hubs/old", Some("bob"));
    let _old = node.connect("old", &format!("?a=1&access_token={old_token}&b")).await.unwrap();
    let list = node.json("/admin/v1/hubs/old/connections").await;
    let id = list["items"][0]["id"].as_str().unwrap();
    let old = node.json(&format!("/admin/v1/hubs/old/connections/{id}")).await;
    assert_eq!((&old["dialect"], &old["query"]), (&json!("preview"), &json!("a=1&b")));
    assert_eq!(old.get("permissions"), None);
    for (path, status) in [
        (format!("/admin/v1/hubs/other/connections/{id}"), 404),
        ("/admin/v1/hubs/chat/connections/unknown".to_owned(), 404),
        ("/admin/v1/hubs/chat".to_owned(), 404),
        ("/admin/v1/hubs?limit=0".to_owned(), 400),
    ] {
        assert_eq!(node.signed("GET", &path, "", b"").await.0, status, "{path}");
    }
    assert_eq!(node.raw("GET", "/admin/v1/hubs", "", b"").await.0, 401);
    assert_eq!(node.signed("POST", "/admin/v1/hubs", "", b"").await.0, 405);
}
