//! The lists for those who look after the service.

use std::sync::Arc;

use hookwire_hub::{
    Answer as HubAnswer, Command, ConnectionDetails, ConnectionSummary, DoorDetails,
};
use hookwire_proto::name::GroupName;
use hookwire_proto::permission::{Permission, Permissions};
use http::Request;
use serde_json::{Map, Value, json};
use url::form_urlencoded;

use super::json as answer_json;
use crate::api_error::{Answer, ApiError};
use crate::body::RequestBody;
use crate::http::Edge;
use crate::route::admin::Inquiry;

/// Answers an inquiry of somebody who may ask.
pub(crate) async fn answer(
    edge: &Arc<Edge>,
    inquiry: Inquiry,
    head: &Request<()>,
    body: &mut RequestBody,
) -> Result<Answer, ApiError> {
    edge.authorize_caller(head).await?;
    let path = head.uri().path();
    let body = match inquiry {
        Inquiry::Names { list, after, limit } => {
            // One more than fits on the page tells whether there is another page.
            let command = Command::ListNames { list, after, limit: limit + 1 };
            let HubAnswer::Names(names) = edge.shards.ask(command).await? else {
                return Err(ApiError::failed());
            };
            page(path, limit, &names, |name| (name.clone(), json!({ "name": name })))
        }
        Inquiry::Connections { hub, target, after, limit } => {
            let command = Command::ListConnections { hub, target, after, limit: limit + 1 };
            let HubAnswer::Connections(connections) = edge.shards.ask(command).await? else {
                return Err(ApiError::failed());
            };
            page(path, limit, &connections, |one| (one.id.to_string(), summary(one)))
        }
        Inquiry::Connection { hub, connection } => {
            let answer = match connection {
                Some(connection) => edge.shards.ask(Command::Describe { hub, connection }).await?,
                None => HubAnswer::No,
            };
            let HubAnswer::Connection(connection) = answer else {
                return Err(ApiError::not_found("there is no such connection"));
            };
            details(&connection)
        }
        Inquiry::Overview => super::overview::overview(edge).await?,
        Inquiry::Events { selection, after, before, limit } => {
            return Ok(super::events::page(edge, &selection, (after, before), limit));
        }
        Inquiry::HubSettings(hub) => return Ok(super::hub_settings::show(edge, &hub).await),
        Inquiry::SetHubSettings(hub) => {
            return super::hub_settings::replace(edge, hub, head, body).await;
        }
        Inquiry::ResetHubSettings(hub) => return super::hub_settings::reset(edge, hub).await,
        Inquiry::Validate => return super::hub_settings::validate(edge, head, body).await,
        Inquiry::Match => return super::hub_settings::find(edge, head, body).await,
        // Its answer has no end, so that it is given elsewhere.
        Inquiry::LiveEvents { .. } => return Err(ApiError::failed()),
    };
    Ok(answer_json(&body))
}

/// Returns a page of `found`, which holds one item more than fits if there is another page. `item` returns an item's place in the
/// order and what is shown of it.
fn page<T>(path: &str, limit: usize, found: &[T], item: impl Fn(&T) -> (String, Value)) -> Value {
    let (places, items): (Vec<String>, Vec<Value>) = found.iter().take(limit).map(item).unzip();
    let mut page = json!({ "items": items });
    if let (true, Some(last)) = (limit < found.len(), places.last()) {
        let mut query = form_urlencoded::Serializer::new(String::new());
        query.append_pair("limit", &limit.to_string()).append_pair("after", last);
        page["next"] = format!("{path}?{}", query.finish()).into();
    }
    page
}

fn summary(connection: &ConnectionSummary) -> Value {
    let mut summary = json!({ "id": connection.id.to_string() });
    if let Some(user) = &connection.user {
        summary["user"] = user.as_str().into();
    }
    summary
}

fn details(connection: &ConnectionDetails) -> Value {
    let groups: Vec<&str> = connection.groups.iter().map(GroupName::as_str).collect();
    let mut details = json!({
        "id": connection.id.to_string(),
        "groups": groups,
        "recovering": connection.is_recovering,
        "unacknowledgedMessages": connection.unacknowledged_messages,
        "waitingEvents": connection.waiting_events,
    });
    match &connection.door {
        DoorDetails::Preview { query } => {
            details["dialect"] = "preview".into();
            details["query"] = query.as_str().into();
        }
        DoorDetails::WebPubSub { permissions } => {
            details["dialect"] = "webpubsub".into();
            let each =
                Permission::ALL.map(|one| (one.as_str().to_owned(), rules(permissions, one)));
            details["permissions"] = Map::from_iter(each).into();
        }
    }
    if let Some(user) = &connection.user {
        details["user"] = user.as_str().into();
    }
    if let Some(subprotocol) = &connection.subprotocol {
        details["subprotocol"] = subprotocol.as_str().into();
    }
    details
}

/// Returns what decides over one permission.
fn rules(permissions: &Permissions, permission: Permission) -> Value {
    let names = |groups: &[GroupName]| -> Vec<Value> {
        groups.iter().map(|group| group.as_str().into()).collect()
    };
    let patterns = permissions.patterns(permission).iter().map(ToString::to_string);
    json!({
        "all": permissions.check(permission, None),
        "groups": names(permissions.granted(permission)),
        "patterns": patterns.collect::<Vec<_>>(),
        "denied": names(permissions.revoked(permission)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_links_to_the_next_if_there_is_one() {
        let names = ["a b", "c&d", "e"].map(str::to_owned);
        let page =
            |limit| page("/admin/v1/hubs", limit, &names, |name| (name.clone(), json!(name)));
        assert_eq!(
            page(2),
            json!({ "items": ["a b", "c&d"], "next": "/admin/v1/hubs?limit=2&after=c%26d" })
        );
        assert_eq!(page(3), json!({ "items": ["a b", "c&d", "e"] }));
        assert_eq!(page(4), json!({ "items": ["a b", "c&d", "e"] }));
    }
}
