//! The paths of the lists for people who look after the service: what is connected right now.

use hookwire_hub::NameList;
use hookwire_proto::envelope::Target;
use hookwire_proto::name::{ConnectionId, GroupName, HubName, UserId};
use http::Method;

use super::parse_name;
use super::query::Query;
use crate::api_error::ApiError;
use crate::event_log::Selection;

/// Most items of a page.
const PAGE_ITEMS_MAX: usize = 1_000;

/// Items of a page whose caller does not say how many.
const PAGE_ITEMS: usize = 200;

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Inquiry {
    /// Names of hubs, or of a hub's users or groups.
    Names { list: NameList, after: Option<String>, limit: usize },
    /// Connections of a target.
    Connections { hub: HubName, target: Target, after: Option<ConnectionId>, limit: usize },
    /// All about one connection; `None`: an id that no node has made.
    Connection { hub: HubName, connection: Option<ConnectionId> },
    /// The settings of a hub.
    HubSettings(HubName),
    /// Replace them.
    SetHubSettings(HubName),
    /// Back to those of the configuration.
    ResetHubSettings(HubName),
    /// Is a document without faults?
    Validate,
    /// Who gets an event?
    Match,
    /// The node in figures.
    Overview,
    /// A page of the event log.
    Events { selection: Selection, after: Option<u64>, before: Option<u64>, limit: usize },
    /// The event log as it grows.
    LiveEvents { selection: Selection, after: Option<u64> },
}

impl Inquiry {
    /// Returns the hub that the path names.
    pub(super) const fn hub(&self) -> Option<&HubName> {
        match self {
            Self::Names { list: NameList::Users(hub) | NameList::Groups(hub), .. }
            | Self::Connections { hub, .. }
            | Self::Connection { hub, .. }
            | Self::HubSettings(hub)
            | Self::SetHubSettings(hub)
            | Self::ResetHubSettings(hub) => Some(hub),
            Self::Names { list: NameList::Hubs, .. }
            | Self::Overview
            | Self::Validate
            | Self::Match
            | Self::Events { .. }
            | Self::LiveEvents { .. } => None,
        }
    }
}

/// Reads what stands behind `/admin/v1/`.
pub(super) fn parse(method: &Method, rest: &[&str], query: &str) -> Result<Inquiry, ApiError> {
    let query = Query::parse(query)?;
    let inquiry = match rest {
        ["validate"] => return only_post(method, Inquiry::Validate),
        ["match"] => return only_post(method, Inquiry::Match),
        ["hubs", hub, "settings"] => {
            let hub = parse_name(HubName::parse(hub), "hub")?;
            return match *method {
                Method::GET => Ok(Inquiry::HubSettings(hub)),
                Method::PUT => Ok(Inquiry::SetHubSettings(hub)),
                Method::DELETE => Ok(Inquiry::ResetHubSettings(hub)),
                _ => Err(ApiError::method_not_allowed("GET, PUT, DELETE")),
            };
        }
        ["overview"] => Ok(Inquiry::Overview),
        ["events"] => Ok(Inquiry::Events {
            selection: selection(&query)?,
            after: query.number("after", &(0..=u64::MAX))?,
            before: query.number("before", &(0..=u64::MAX))?,
            limit: limit(&query)?,
        }),
        ["events", "live"] => Ok(Inquiry::LiveEvents {
            selection: selection(&query)?,
            after: query.number("after", &(0..=u64::MAX))?,
        }),
        ["hubs"] => names(NameList::Hubs, &query),
        ["hubs", hub, rest @ ..] => {
            let hub = parse_name(HubName::parse(hub), "hub")?;
            match rest {
                ["users"] => names(NameList::Users(hub), &query),
                ["groups"] => names(NameList::Groups(hub), &query),
                ["connections"] => connections(hub, Target::Hub, &query),
                ["connections", id] => {
                    Ok(Inquiry::Connection { hub, connection: ConnectionId::parse(id) })
                }
                ["users", user, "connections"] => {
                    let user = parse_name(UserId::parse(user), "user")?;
                    connections(hub, Target::User(user), &query)
                }
                ["groups", group, "connections"] => {
                    let group = parse_name(GroupName::parse(group), "group")?;
                    connections(hub, Target::Group(group), &query)
                }
                _ => return Err(ApiError::not_found("no such path")),
            }
        }
        _ => return Err(ApiError::not_found("no such path")),
    };
    if method == Method::GET { inquiry } else { Err(ApiError::method_not_allowed("GET")) }
}

fn only_post(method: &Method, inquiry: Inquiry) -> Result<Inquiry, ApiError> {
    if method == Method::POST { Ok(inquiry) } else { Err(ApiError::method_not_allowed("POST")) }
}

fn names(list: NameList, query: &Query) -> Result<Inquiry, ApiError> {
    let after = query.one("after")?.map(str::to_owned);
    Ok(Inquiry::Names { list, after, limit: limit(query)? })
}

fn connections(hub: HubName, target: Target, query: &Query) -> Result<Inquiry, ApiError> {
    let after = query.one("after")?.map(|after| {
        ConnectionId::parse(after).ok_or_else(|| {
            ApiError::bad_request("after must be the id of a connection").about("after")
        })
    });
    Ok(Inquiry::Connections { hub, target, after: after.transpose()?, limit: limit(query)? })
}

fn selection(query: &Query) -> Result<Selection, ApiError> {
    let hub = query.one("hub")?.map(|hub| parse_name(HubName::parse(hub), "hub")).transpose()?;
    let failed = match query.one("failed")? {
        None | Some("false") => false,
        Some("true") => true,
        Some(_) => {
            return Err(ApiError::bad_request("failed must be true or false").about("failed"));
        }
    };
    Ok(Selection { hub, failed })
}

fn limit(query: &Query) -> Result<usize, ApiError> {
    Ok(query.number("limit", &(1..=PAGE_ITEMS_MAX))?.unwrap_or(PAGE_ITEMS))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(method: &str, uri: &str) -> Result<Inquiry, u16> {
        let (path, query) = uri.split_once('?').unwrap_or((uri, ""));
        let rest: Vec<&str> = path.split('/').collect();
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        super::parse(&method, &rest, query).map_err(|error| error.status().as_u16())
    }

    #[test]
    fn every_list_has_its_path() {
        let hub = || HubName::parse("chat").unwrap();
        let id = ConnectionId::new(1, 0, [7; 16]);
        let names = |list, after: Option<&str>, limit| {
            Ok(Inquiry::Names { list, after: after.map(str::to_owned), limit })
        };
        let connections =
            |target, after, limit| Ok(Inquiry::Connections { hub: hub(), target, after, limit });
        assert_eq!(parse("GET", "hubs"), names(NameList::Hubs, None, 200));
        assert_eq!(
            parse("GET", "hubs/Chat/users?after=a%20b&limit=1000"),
            names(NameList::Users(hub()), Some("a b"), 1_000)
        );
        assert_eq!(
            parse("GET", "hubs/chat/groups?limit=1"),
            names(NameList::Groups(hub()), None, 1)
        );
        assert_eq!(
            parse("GET", &format!("hubs/chat/connections?after={id}")),
            connections(Target::Hub, Some(id), 200)
        );
        let user = Target::User(UserId::parse("u").unwrap());
        assert_eq!(parse("GET", "hubs/chat/users/u/connections"), connections(user, None, 200));
        let group = Target::Group(GroupName::parse("g").unwrap());
        assert_eq!(parse("GET", "hubs/chat/groups/g/connections"), connections(group, None, 200));
        let selection = |hub: Option<HubName>, failed| Selection { hub, failed };
        assert_eq!(parse("GET", "overview"), Ok(Inquiry::Overview));
        assert_eq!(
            parse("GET", "events?hub=Chat&after=5&before=9&limit=3&failed=true"),
            Ok(Inquiry::Events {
                selection: selection(Some(hub()), true),
                after: Some(5),
                before: Some(9),
                limit: 3
            })
        );
        assert_eq!(
            parse("GET", "events/live?after=0"),
            Ok(Inquiry::LiveEvents { selection: selection(None, false), after: Some(0) })
        );
        let one = |connection| Ok(Inquiry::Connection { hub: hub(), connection });
        assert_eq!(parse("GET", &format!("hubs/chat/connections/{id}")), one(Some(id)));
        assert_eq!(parse("GET", "hubs/chat/connections/other"), one(None));
    }

    #[test]
    fn what_is_not_there_is_said_with_the_right_status() {
        for (method, uri, status) in [
            ("GET", "", 404),
            ("GET", "hub", 404),
            ("GET", "hubs/chat", 404),
            ("GET", "hubs/chat/users/u", 404),
            ("POST", "hubs", 405),
            ("POST", "hubs/chat/settings", 405),
            ("GET", "validate", 405),
            ("PUT", "match", 405),
            ("PUT", "hubs/9/settings", 400),
            ("POST", "events", 405),
            ("GET", "events/dead", 404),
            ("GET", "events?failed=yes", 400),
            ("GET", "events?after=-1", 400),
            ("GET", "events/live?hub=9", 400),
            ("DELETE", "hubs/chat/connections/x", 405),
            ("GET", "hubs/9/users", 400),
            ("GET", "hubs/chat/groups/ /connections", 400),
            ("GET", "hubs?limit=0", 400),
            ("GET", "hubs?limit=1001", 400),
            ("GET", "hubs/chat/connections?after=x", 400),
            ("GET", "hubs/chat/connections?after=", 400),
        ] {
            assert_eq!(parse(method, uri), Err(status), "{method} {uri}");
        }
    }
}
