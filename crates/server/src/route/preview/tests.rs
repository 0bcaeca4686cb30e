use http::Uri;

use super::*;
use crate::route::parse;
use proptest::prelude::*;

fn route(method: &str, uri: &str) -> Result<Route, u16> {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    parse(&method, &uri.parse().unwrap()).map_err(|error| error.into_answer().status().as_u16())
}

fn hub() -> HubName {
    HubName::parse("chat").unwrap()
}

fn group(name: &str) -> GroupName {
    GroupName::parse(name).unwrap()
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

#[test]
fn every_row_of_the_rest_api_has_its_route() {
    let id = ConnectionId::new(1, 0, [7; 16]);
    let base = "/ws/api/v1/hubs/chat";
    let send = |target| Ok(Route::Send { hub: hub(), target });
    let exists = |target| Ok(Route::Exists { hub: hub(), target });
    for slash in ["", "/"] {
        let route = |method: &str, path: &str| route(method, &format!("{base}{path}{slash}"));
        assert_eq!(route("POST", ""), send(Target::Hub));
        assert_eq!(route("POST", "/users/a%2Fb"), send(Target::User(user("a/b"))));
        assert_eq!(route("POST", "/groups/g%201"), send(Target::Group(group("g 1"))));
        assert_eq!(route("POST", &format!("/connections/{id}")), send(Target::Connection(id)));
        assert_eq!(route("HEAD", &format!("/connections/{id}")), exists(Target::Connection(id)));
        assert_eq!(route("HEAD", "/users/u"), exists(Target::User(user("u"))));
        assert_eq!(route("HEAD", "/groups/g"), exists(Target::Group(group("g"))));
        for path in [format!("/groups/g/connections/{id}"), format!("/connections/{id}/groups/g")] {
            for (method, join) in [("PUT", true), ("DELETE", false)] {
                let expected = Route::ConnectionGroup {
                    hub: hub(),
                    connection: Some(id),
                    group: group("g"),
                    join,
                };
                assert_eq!(route(method, &path), Ok(expected));
            }
        }
        for path in ["/groups/g/users/u", "/users/u/groups/g"] {
            let (hub, user, group) = (hub(), user("u"), group("g"));
            assert_eq!(
                route("GET", path),
                Ok(Route::UserInGroup {
                    hub: hub.clone(),
                    user: user.clone(),
                    group: group.clone()
                })
            );
            assert_eq!(
                route("DELETE", path),
                Ok(Route::LeaveAsUser {
                    hub: hub.clone(),
                    user: user.clone(),
                    group: Some(group.clone())
                })
            );
            assert_eq!(route("PUT", path), Ok(Route::JoinAsUser { hub, user, group, ttl: None }));
        }
        assert_eq!(
            route("DELETE", "/users/u/groups"),
            Ok(Route::LeaveAsUser { hub: hub(), user: user("u"), group: None })
        );
    }
    assert_eq!(
        route("PUT", &format!("{base}/users/u/groups/g?ttl=60")),
        Ok(Route::JoinAsUser {
            hub: hub(),
            user: user("u"),
            group: group("g"),
            ttl: Some(Duration::from_mins(1))
        })
    );
    assert_eq!(
        route("DELETE", &format!("{base}/connections/{id}?reason=go%20away")),
        Ok(Route::Close { hub: hub(), connection: Some(id), reason: "go away".to_owned() })
    );
}

#[test]
fn clients_may_spell_their_url_in_every_documented_form() {
    let expected =
        |format: Option<&str>| Ok(Route::Client { hub: hub(), format: format.map(str::to_owned) });
    for (uri, format) in [
        ("/ws/client/hubs/chat/formats/text", Some("text")),
        ("/ws/client/hubs/chat/formats/binary/", Some("binary")),
        ("/ws/client/hubs/chat?format=binary", Some("binary")),
        ("/ws/client/hubs/Chat/?formats=text&user=x", Some("text")),
        ("/ws/client/hubs/chat/?user=x", None),
        ("/ws/client?hub=chat&format=text", Some("text")),
        ("/ws/client/?hubs=chat", None),
    ] {
        assert_eq!(route("GET", uri), expected(format), "{uri}");
    }
    assert_eq!(route("GET", "/ws/client"), Err(400));
    assert_eq!(route("GET", "/ws/client/hubs/9"), Err(400));
    assert_eq!(route("POST", "/ws/client/hubs/chat"), Err(405));
}

#[test]
fn what_is_not_there_is_said_with_the_right_status() {
    for (method, uri, status) in [
        ("GET", "/", 404),
        ("POST", "/ws/api/v1/connections/x", 404),
        ("GET", "/ws/api/v1/hubs/chat", 405),
        ("PATCH", "/ws/api/v1/hubs/chat/users/u", 405),
        ("POST", "/ws/api/v1/hubs/ch%2Fat", 400),
        ("POST", "/ws/api/v1/hubs/chat/groups/%20", 400),
        ("POST", "/ws/api/v1/hubs/chat/groups/%FF", 400),
        ("POST", "/ws/api/v1/hubs/chat/users/a%0Ab", 400),
        ("PUT", "/ws/api/v1/hubs/chat/users/u/groups/g?ttl=-1", 400),
        ("PUT", "/ws/api/v1/hubs/chat/users/u/groups/g?ttl=soon", 400),
        ("POST", "/ws/api/v1/hubs/chat//users/u", 404),
        ("POST", "/ws/api/v1/hubs/../hubs/chat", 400),
    ] {
        assert_eq!(route(method, uri), Err(status), "{method} {uri}");
    }
}

#[test]
fn what_is_not_allowed_is_answered_with_what_is() {
    let methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "post"];
    for path in [
        "/ws/client/hubs/chat",
        "/ws/api/v1/hubs/chat",
        "/ws/api/v1/hubs/chat/users/u",
        "/ws/api/v1/hubs/chat/groups/g",
        "/ws/api/v1/hubs/chat/connections/i",
        "/ws/api/v1/hubs/chat/groups/g/connections/i",
        "/ws/api/v1/hubs/chat/connections/i/groups/g",
        "/ws/api/v1/hubs/chat/groups/g/users/u",
        "/ws/api/v1/hubs/chat/users/u/groups/g",
        "/ws/api/v1/hubs/chat/users/u/groups",
        "/api/v1/health",
        "/metrics",
    ] {
        let uri: Uri = path.parse().unwrap();
        let parse = |method: &str| parse(&Method::from_bytes(method.as_bytes()).unwrap(), &uri);
        let served: Vec<&str> =
            methods.into_iter().filter(|method| parse(method).is_ok()).collect();
        assert!(!served.is_empty(), "{path}");
        for method in methods {
            let Err(error) = parse(method) else { continue };
            let answer = error.into_answer();
            assert_eq!(answer.status(), 405, "{method} {path}");
            let mut allowed: Vec<&str> =
                answer.headers()["allow"].to_str().unwrap().split(", ").collect();
            allowed.sort_by_key(|one| methods.iter().position(|method| method == one));
            assert_eq!(allowed, served, "{method} {path}");
        }
    }
}

proptest! {
    #[test]
    fn hostile_paths_never_panic(path in "/[!-~]{0,60}") {
        if let Ok(uri) = path.parse::<Uri>() {
            let _ = parse(&Method::POST, &uri);
        }
    }

    #[test]
    fn names_survive_their_encoding(name in "\\PC{1,40}") {
        prop_assume!(!name.trim().is_empty());
        let encoded: String = percent_encoding::utf8_percent_encode(&name, percent_encoding::NON_ALPHANUMERIC).collect();
        let expected = Route::Send { hub: hub(), target: Target::Group(group(&name)) };
        prop_assert_eq!(route("POST", &format!("/ws/api/v1/hubs/chat/groups/{encoded}")), Ok(expected));
    }
}
