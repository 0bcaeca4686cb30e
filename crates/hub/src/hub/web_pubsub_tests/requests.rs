//! What clients ask for, and how it is answered.

use super::*;

#[test]
fn groups_are_joined_and_posted_to_with_the_permission_alone() {
    let mut bench = Bench::new();
    let (ann, _) = bench.enter(&Client::default());
    let (bob, _) = bench.enter(&Client { roles: &[], user: Some("bob"), ..Client::default() });
    bench.ask(ann, &join("g", Some(1)));
    assert_eq!(acks(&bench.told(ann)), [ack(1, None)]);
    bench.ask(bob, &join("g", Some(1)));
    assert_eq!(acks(&bench.told(bob)), [ack(1, Some("Forbidden"))]);
    bench.ask(bob, &post("g", "no", Some(2), false));
    assert_eq!(acks(&bench.told(bob)), [ack(2, Some("Forbidden"))]);
    assert!(bench.heard().is_empty());
    bench.ask(ann, &post("g", "hi", Some(2), false));
    assert_eq!(acks(&bench.told(ann)), [ack(2, None)]);
    assert_eq!(bench.heard(), [(ann, "hi".to_owned())]);
    assert!(bench.effects.iter().any(|effect| matches!(effect, Effect::Forward(_))));
    bench.ask(ann, &post("g", "hi", None, true));
    assert!(bench.heard().is_empty() && bench.told(ann).is_empty());
    bench.ask(ann, &post("nobody", "hi", Some(3), false));
    assert_eq!(acks(&bench.told(ann)), [ack(3, None)], "a group without members is no failure");
}

#[test]
fn an_ack_id_is_processed_once_unless_it_failed() {
    let mut bench = Bench::new();
    let (ann, id) = bench.enter(&Client { roles: &[], ..Client::default() });
    bench.ask(ann, &join("g", Some(5)));
    assert_eq!(acks(&bench.told(ann)), [ack(5, Some("Forbidden"))]);
    let grant = Command::Permission {
        hub: hub_name("mute"),
        connection: id,
        permission: Permission::JoinLeaveGroup,
        group: Some(group("g")),
        order: PermissionOrder::Grant,
    };
    assert_eq!(bench.command(grant), Answer::Yes);
    bench.ask(ann, &join("g", Some(5)));
    assert_eq!(acks(&bench.told(ann)), [ack(5, None)]);
    bench.ask(ann, &ClientMessage::LeaveGroup { group: group("g"), ack_id: Some(5) });
    assert_eq!(acks(&bench.told(ann)), [ack(5, Some("Duplicate"))]);
    let member = Command::Exists { hub: hub_name("mute"), target: Target::Group(group("g")) };
    assert_eq!(bench.command(member), Answer::Yes, "the repetition was not executed");
}

#[test]
fn an_event_is_answered_before_it_is_acknowledged() {
    let mut bench = Bench::new();
    let (ann, _) = bench.enter(&Client { hub: "chat", ..Client::default() });
    bench.ask(ann, &event("order", Some(1)));
    let call = bench.call();
    assert_eq!((call.url.as_str(), call.event.name()), ("http://u/order", "order"));
    bench.ask(ann, &event("order", Some(1)));
    assert!(bench.effects.is_empty(), "the first one's ack answers both");
    bench.answer(call.id, 200, "done");
    assert!(matches!(&bench.effects[..], [Effect::Send { .. }, Effect::Tell { .. }]));
    assert_eq!(acks(&bench.told(ann)), [ack(1, None)]);
    bench.ask(ann, &event("order", Some(1)));
    assert_eq!(acks(&bench.told(ann)), [ack(1, Some("Duplicate"))]);
    bench.ask(ann, &event("order", Some(2)));
    let call = bench.call().id;
    bench.answer(call, 500, "");
    assert_eq!(acks(&bench.told(ann)), [ack(2, Some("InternalServerError"))]);
    bench.ask(ann, &event("order", Some(2)));
    assert_eq!(bench.calls().len(), 1, "what failed may be tried again");
}

#[test]
fn an_event_that_nobody_handles_fails() {
    let mut bench = Bench::new();
    let (ann, _) = bench.enter(&Client::default());
    bench.ask(ann, &event("order", Some(1)));
    assert_eq!(acks(&bench.told(ann)), [ack(1, Some("InternalServerError"))]);
    let (simple, _) = bench.enter(&Client { offers: &[], ..Client::default() });
    bench.input(Input::Request { slot: simple, message: Message::text("x") });
    assert!(matches!(bench.effects[..], [Effect::Close { code: CloseCode::INTERNAL, .. }]));
}

#[test]
fn the_state_of_a_connection_follows_its_events() {
    let mut bench = Bench::new();
    let (ann, _) = bench.enter(&Client { hub: "chat", ..Client::default() });
    bench.ask(ann, &event("a", None));
    let call = bench.call().id;
    bench.ask(ann, &event("b", None));
    let state = Some("c3RhdGU=".into());
    bench.answer_with(call, UpstreamAnswer { status: 204, state, ..UpstreamAnswer::default() });
    let call = bench.call();
    let Dialect::WebPubSub { facts, .. } = &call.dialect else { panic!() };
    assert_eq!(facts.state.as_deref(), Some("c3RhdGU="));
    assert_eq!(facts.subprotocol.as_deref(), Some("json.webpubsub.azure.v1"));
}

#[test]
fn cookies_go_back_to_the_handler_that_set_them_alone() {
    let handler = |url: &str, events: &str, system: &[&str]| EventHandlerDocument {
        url_template: url.to_owned(),
        user_event_pattern: Some(events.to_owned()),
        system_events: system.iter().map(|name| (*name).to_owned()).collect(),
        ..EventHandlerDocument::default()
    };
    let event_handlers = vec![
        handler("http://one/{event}", "mine", &["connect"]),
        handler("http://two/{event}", "theirs", &[]),
    ];
    let document = HubDocument { event_handlers, ..HubDocument::default() };
    let defaults = Arc::new(HubSettings::parse(&document).unwrap());
    let hubs = HubsSettings { defaults, ..HubsSettings::default() };
    let mut bench = Bench::new();
    bench.input(Input::Settings(Arc::new(Settings { hubs, ..Settings::default() })));
    bench.knock(&Client::default());
    let (call, cookies) = (bench.call().id, Some("a=1".into()));
    bench.answer_with(call, UpstreamAnswer { status: 204, cookies, ..UpstreamAnswer::default() });
    let slot = bench.hub.slots()[0];
    for (name, expected) in [("mine", Some("a=1")), ("theirs", None)] {
        bench.ask(slot, &event(name, None));
        let call = bench.call();
        let Dialect::WebPubSub { facts, .. } = &call.dialect else { panic!() };
        assert_eq!(facts.cookies.as_deref(), expected, "{name}");
        bench.answer(call.id, 204, "");
    }
}

#[test]
fn simple_clients_send_events_or_to_a_group() {
    let mut bench = Bench::new();
    let (ann, _) = bench.enter(&Client { hub: "chat", offers: &[], ..Client::default() });
    bench.input(Input::Request { slot: ann, message: Message::text("hi") });
    let call = bench.call();
    let Event::User(user) = &call.event else { panic!() };
    assert_eq!((&*user.name, user.data.kind), ("message", DataKind::Text));
    bench.answer(call.id, 200, "ho");
    assert_eq!(bench.heard(), [(ann, "ho".to_owned())]);
    bench.input(Input::Request { slot: ann, message: Message::text("hi") });
    let call = bench.call().id;
    bench.answer(call, 404, "");
    assert!(matches!(bench.effects[0], Effect::Close { code: CloseCode::INTERNAL, .. }));

    let mode = SimpleMode::SendToGroup { group: group("g"), no_echo: true };
    let groups = &["g"][..];
    let client = Client { offers: &[], groups, mode: mode.clone(), ..Client::default() };
    let (ann, _) = bench.enter(&client);
    let (bob, _) = bench.enter(&Client { groups, ..Client::default() });
    bench.input(Input::Request { slot: ann, message: Message::text("all") });
    assert_eq!(bench.heard(), [(bob, "all".to_owned())]);
    let (eve, _) = bench.enter(&Client { offers: &[], roles: &[], mode, ..Client::default() });
    bench.input(Input::Request { slot: eve, message: Message::text("all") });
    assert!(matches!(bench.effects[0], Effect::Close { code: CloseCode::POLICY, .. }));
}

#[test]
fn what_cannot_be_understood_closes_with_the_documented_code() {
    for (message, code) in [
        (Message::text("{"), CloseCode::INVALID_PAYLOAD),
        (Message::text(r#"{"type":"unknown"}"#), CloseCode::INVALID_PAYLOAD),
        (Message::binary(Bytes::from_static(b"{}")), CloseCode::UNSUPPORTED),
    ] {
        let mut bench = Bench::new();
        let (ann, _) = bench.enter(&Client::default());
        bench.input(Input::Request { slot: ann, message });
        assert!(matches!(bench.told(ann)[..], [ServerMessage::Disconnected { .. }]));
        let closed = bench.effects.iter().find_map(|effect| match effect {
            Effect::Close { code, .. } => Some(*code),
            _ => None,
        });
        assert_eq!(closed, Some(code));
    }
}
