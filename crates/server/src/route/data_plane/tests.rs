use http::Uri;
use proptest::prelude::*;

use super::*;
use crate::route::{Route, parse};

const BASE: &str = "/api/hubs/Chat";

fn call(method: &str, path: &str) -> Result<Call, u16> {
    let method = Method::from_bytes(method.as_bytes()).unwrap();
    let uri: Uri = format!("{BASE}{path}").parse().unwrap();
    match parse(&method, &uri) {
        Ok(Route::DataPlane(call)) => Ok(call),
        Ok(other) => panic!("{path} is {other:?}"),
        Err(error) => Err(error.status().as_u16()),
    }
}

fn operation(method: &str, path: &str) -> Result<Operation, u16> {
    call(method, path).map(|call| {
        assert_eq!(call.hub.as_str(), "chat");
        call.operation
    })
}

fn id() -> ConnectionId {
    ConnectionId::new(1, 0, [7; 16])
}

fn group(name: &str) -> GroupName {
    GroupName::parse(name).unwrap()
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn plain(target: Target) -> Operation {
    Operation::Send(Send { target, excluded: Vec::new(), filter: None, ttl_seconds: None })
}

#[test]
fn every_row_of_the_specification_has_its_operation() {
    let connection = Some(id());
    let nobody = ConnectionId::new(0, u16::MAX, [0; 16]);
    let id = id();
    let all = |target| Operation::CloseAll {
        target,
        excluded: Vec::new(),
        reason: "ClosedByAppServer".to_owned(),
    };
    let of_user = |group: Option<&str>, add| Operation::UserGroup {
        user: user("u"),
        group: group.map(|name| GroupName::parse(name).unwrap()),
        add,
    };
    let permission = |permission, name: Option<&str>, order| Operation::Permission {
        connection,
        permission,
        group: name.map(|name| GroupName::parse(name).unwrap()),
        order,
    };
    let whole = PageOrder { size: 200, top: None, after: None };
    for (method, path, expected) in [
        ("POST", "/:send".to_owned(), plain(Target::Hub)),
        ("POST", "/%3Asend/".to_owned(), plain(Target::Hub)),
        ("POST", "/:closeConnections".to_owned(), all(Target::Hub)),
        ("POST", "/:addToGroups".to_owned(), Operation::Regroup { add: true }),
        ("POST", "/:removeFromGroups".to_owned(), Operation::Regroup { add: false }),
        ("HEAD", format!("/connections/{id}"), Operation::Exists(Target::Connection(id))),
        ("HEAD", "/connections/x".to_owned(), Operation::Exists(Target::Connection(nobody))),
        (
            "DELETE",
            format!("/connections/{id}?reason=go%20away"),
            Operation::Close { connection, reason: "go away".to_owned() },
        ),
        (
            "DELETE",
            "/connections/x".to_owned(),
            Operation::Close { connection: None, reason: "ClosedByAppServer".to_owned() },
        ),
        ("POST", format!("/connections/{id}/:send"), plain(Target::Connection(id))),
        ("POST", "/connections/x/:send".to_owned(), plain(Target::Connection(nobody))),
        ("DELETE", format!("/connections/{id}/groups"), Operation::LeaveAllGroups { connection }),
        ("HEAD", "/groups/a%2Fb".to_owned(), Operation::Exists(Target::Group(group("a/b")))),
        ("POST", "/groups/a+b/:send".to_owned(), plain(Target::Group(group("a+b")))),
        ("POST", "/groups/:send/:send".to_owned(), plain(Target::Group(group(":send")))),
        ("POST", "/groups/g/:closeConnections".to_owned(), all(Target::Group(group("g")))),
        (
            "GET",
            "/groups/g%201/connections".to_owned(),
            Operation::ListGroup { group: group("g 1"), page: whole },
        ),
        (
            "PUT",
            format!("/groups/g/connections/{id}"),
            Operation::ConnectionGroup { connection, group: group("g"), add: true },
        ),
        (
            "DELETE",
            "/groups/g/connections/x".to_owned(),
            Operation::ConnectionGroup { connection: None, group: group("g"), add: false },
        ),
        ("HEAD", "/users/u".to_owned(), Operation::Exists(Target::User(user("u")))),
        ("POST", "/users/a%2520b/:send".to_owned(), plain(Target::User(user("a%20b")))),
        ("POST", "/users/u/:closeConnections".to_owned(), all(Target::User(user("u")))),
        ("DELETE", "/users/u/groups".to_owned(), of_user(None, false)),
        ("PUT", "/users/u/groups/g".to_owned(), of_user(Some("g"), true)),
        ("DELETE", "/users/u/groups/g".to_owned(), of_user(Some("g"), false)),
        (
            "HEAD",
            "/users/u/groups/g?api-version=2020-10-01".to_owned(),
            Operation::UserInGroup { user: user("u"), group: group("g") },
        ),
        (
            "PUT",
            format!("/permissions/sendToGroup/connections/{id}?targetName=g"),
            permission(Permission::SendToGroup, Some("g"), PermissionOrder::Grant),
        ),
        (
            "DELETE",
            format!("/permissions/joinLeaveGroup/connections/{id}?targetName=*"),
            permission(Permission::JoinLeaveGroup, Some("*"), PermissionOrder::Revoke),
        ),
        (
            "HEAD",
            format!("/permissions/sendToGroup/connections/{id}"),
            permission(Permission::SendToGroup, None, PermissionOrder::Check),
        ),
    ] {
        assert_eq!(operation(method, &path), Ok(expected), "{method} {path}");
    }
}

#[test]
fn parameters_of_sends_are_read() {
    let other = ConnectionId::new(2, 1, [8; 16]);
    let query = format!(
        "excluded={}&excluded=unknown&excluded={other}&filter=userId%20eq%20'a'&messageTtlSeconds=300",
        id()
    );
    let expected = |target| {
        Ok(Operation::Send(Send {
            target,
            excluded: vec![id(), other],
            filter: Some("userId eq 'a'".to_owned()),
            ttl_seconds: Some(300),
        }))
    };
    assert_eq!(operation("POST", &format!("/:send?{query}")), expected(Target::Hub));
    assert_eq!(
        operation("POST", &format!("/groups/g/:send?{query}")),
        expected(Target::Group(group("g")))
    );
    // Nothing, empty and 0 are alike; one connection is not chosen from.
    assert_eq!(operation("POST", "/:send?filter=&messageTtlSeconds=0"), Ok(plain(Target::Hub)));
    let to_one = operation("POST", &format!("/connections/{}/:send?filter=x", id()));
    assert_eq!(to_one, Ok(plain(Target::Connection(id()))));
    let long = "ä".repeat(600);
    let encoded: String =
        percent_encoding::utf8_percent_encode(&long, percent_encoding::NON_ALPHANUMERIC).collect();
    let Ok(Operation::CloseAll { reason, .. }) =
        operation("POST", &format!("/:closeConnections?reason={encoded}"))
    else {
        panic!("a reason is cut, not refused")
    };
    assert_eq!(reason, "ä".repeat(512));
}

#[test]
fn tokens_are_ordered_with_all_their_parameters() {
    let order = |query: &str| match operation("POST", &format!("/:generateToken?{query}")) {
        Ok(Operation::GenerateToken(order)) => Ok(*order),
        Ok(other) => panic!("{other:?}"),
        Err(status) => Err(status),
    };
    let nothing = TokenOrder {
        user: None,
        roles: Vec::new(),
        groups: Vec::new(),
        minutes: 60,
        client: ClientKind::Default,
    };
    assert_eq!(order(""), Ok(TokenOrder { ..order("userId=").unwrap() }));
    assert_eq!(order("clientType=default"), Ok(nothing));
    assert_eq!(
        order("userId=a%2Bb&role=r1&role=r2&group=g%201&minutesToExpire=5&clientType=MQTT"),
        Ok(TokenOrder {
            user: Some(user("a+b")),
            roles: vec!["r1".to_owned(), "r2".to_owned()],
            groups: vec![group("g 1")],
            minutes: 5,
            client: ClientKind::Mqtt,
        })
    );
    assert_eq!(order("clientType=socketIO").unwrap().client, ClientKind::SocketIo);
    for bad in [
        "minutesToExpire=0",
        "minutesToExpire=2147483648",
        "minutesToExpire=1.5",
        "clientType=other",
        "group=%20",
        "userId=a%00",
        "userId=a&userId=b",
    ] {
        assert_eq!(order(bad), Err(400), "{bad}");
    }
}

#[test]
fn lists_are_paged_within_limits() {
    let page = |query: &str| match operation("GET", &format!("/groups/g/connections?{query}")) {
        Ok(Operation::ListGroup { page, .. }) => Ok(page),
        Ok(other) => panic!("{other:?}"),
        Err(status) => Err(status),
    };
    assert_eq!(
        page(&format!("maxpagesize=1&top=1000&continuationToken={}", id())),
        Ok(PageOrder { size: 1, top: Some(1_000), after: Some(id()) })
    );
    assert!(page("maxpagesize=200&api-version=2024-12-01").is_ok());
    for bad in [
        "maxpagesize=0",
        "maxpagesize=201",
        "maxpagesize=",
        "top=0",
        "top=-1",
        "top=2147483648",
        "continuationToken=",
        "continuationToken=abc",
        "continuationToken=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA",
    ] {
        assert_eq!(page(bad), Err(400), "{bad}");
    }
}

#[test]
fn every_known_version_is_served_alike_and_no_other() {
    for version in ApiVersion::ALL {
        let named = call("POST", &format!("/:send?api-version={version}")).unwrap();
        assert_eq!((named.version.as_str(), named.operation), (version, plain(Target::Hub)));
        let in_group = operation("HEAD", &format!("/users/u/groups/g?api-version={version}"));
        assert_eq!(in_group.is_ok(), version == "2020-10-01", "{version}");
    }
    assert_eq!(call("POST", "/:send").unwrap().version.as_str(), "2024-12-01");
    assert_eq!(
        call("POST", "/:send?Api-Version=2021-05-01-Preview").unwrap().version.as_str(),
        "2021-05-01-preview"
    );
    for unknown in ["", "2019-01-01", "latest", "2024-12-01-preview"] {
        assert_eq!(operation("POST", &format!("/:send?api-version={unknown}")), Err(400));
    }
}

#[test]
fn what_is_wrong_is_said_with_the_right_status() {
    for (method, path, status) in [
        ("POST", "", 404),
        ("POST", "/", 404),
        ("POST", "/:Send", 404),
        ("POST", "/:nothing", 404),
        ("POST", "/:invoke", 404),
        ("GET", "/groups", 404),
        ("POST", "/groups/g/:send/x", 404),
        ("POST", "/connections/x/:closeConnections", 404),
        ("PUT", "/permissions/sendToGroup", 404),
        ("POST", "//:send", 404),
        ("POST", "/groups/%20/:send", 400),
        ("POST", "/groups/%FF/:send", 400),
        ("HEAD", "/users/a%0Ab", 400),
        ("PUT", "/permissions/SendToGroup/connections/x", 400),
        ("PUT", "/permissions/other/connections/x", 400),
        ("PUT", "/permissions/sendToGroup/connections/x?targetName=", 400),
        ("PUT", "/users/u/groups/%20", 400),
        ("POST", "/:send?messageTtlSeconds=301", 400),
        ("POST", "/:send?messageTtlSeconds=-1", 400),
        ("POST", "/:send?filter=%FF", 400),
        ("POST", "/:send?filter=a&filter=b", 400),
        ("DELETE", "/connections/x?reason=a&reason=b", 400),
    ] {
        assert_eq!(operation(method, path), Err(status), "{method} {path}");
    }
    let long = format!("/groups/{}", "g".repeat(1_025));
    assert_eq!(operation("HEAD", &long), Err(400));
    for hub in ["9", "a-b", "ch%2Fat", &"a".repeat(129)] {
        let uri: Uri = format!("/api/hubs/{hub}/:send").parse().unwrap();
        let answer = parse(&Method::POST, &uri).unwrap_err().into_answer();
        assert_eq!(answer.status(), 400, "{hub}");
        assert_eq!(answer.headers()["x-ms-error-code"], "Error.BadRequest");
    }
}

#[test]
fn what_is_not_allowed_is_answered_with_what_is() {
    let methods = ["GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "post"];
    for path in [
        "/:send",
        "/:closeConnections",
        "/:generateToken",
        "/:addToGroups",
        "/:removeFromGroups",
        "/connections/i",
        "/connections/i/:send",
        "/connections/i/groups",
        "/groups/g",
        "/groups/g/:send",
        "/groups/g/:closeConnections",
        "/groups/g/connections",
        "/groups/g/connections/i",
        "/users/u",
        "/users/u/:send",
        "/users/u/:closeConnections",
        "/users/u/groups",
        "/users/u/groups/g",
        "/users/u/groups/g?api-version=2020-10-01",
        "/permissions/sendToGroup/connections/i",
    ] {
        let uri: Uri = format!("{BASE}{path}").parse().unwrap();
        let parse = |method: &str| parse(&Method::from_bytes(method.as_bytes()).unwrap(), &uri);
        let mut served: Vec<&str> =
            methods.into_iter().filter(|method| parse(method).is_ok()).collect();
        served.sort_unstable();
        assert!(!served.is_empty(), "{path}");
        for method in methods {
            let Err(error) = parse(method) else { continue };
            let answer = error.into_answer();
            assert_eq!(answer.status(), 405, "{method} {path}");
            assert_eq!(answer.headers()["x-ms-error-code"], "Error.MethodNotAllowed");
            let mut allowed: Vec<&str> =
                answer.headers()["allow"].to_str().unwrap().split(", ").collect();
            allowed.sort_unstable();
            assert_eq!(allowed, served, "{method} {path}");
        }
    }
}

proptest! {
    #[test]
    fn names_survive_their_encoding(name in "\\PC{1,40}") {
        prop_assume!(!name.trim().is_empty());
        let encoded: String = percent_encoding::utf8_percent_encode(&name, percent_encoding::NON_ALPHANUMERIC).collect();
        prop_assert_eq!(operation("POST", &format!("/groups/{encoded}/:send")), Ok(plain(Target::Group(group(&name)))));
        let Ok(Operation::Send(Send { filter, .. })) = operation("POST", &format!("/:send?filter={encoded}")) else {
            panic!("it is a send")
        };
        prop_assert_eq!(filter, Some(name));
    }
}
