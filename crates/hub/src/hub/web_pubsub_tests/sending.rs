//! What applications and other members send.

use super::*;

#[test]
fn a_filter_and_exclusions_choose_the_receivers() {
    let mut bench = Bench::new();
    let (ann, ann_id) = bench.enter(&Client { groups: &["g"], ..Client::default() });
    let (bob, _) = bench.enter(&Client {
        groups: &["g"],
        user: Some("bob"),
        offers: &[],
        ..Client::default()
    });
    let (eve, _) = bench.enter(&Client {
        groups: &["g"],
        user: Some("eve"),
        offers: RELIABLE,
        ..Client::default()
    });
    let send = |excluded: &[ConnectionId], filter: Option<&str>| {
        let target = Target::Group(group("g"));
        let delivery = Delivery {
            content: Content::to(&target, Data::text("x"), Metadata::default()),
            excluded: excluded.into(),
            filter: filter.map(|text| Arc::new(Filter::parse(text).unwrap())),
            ttl_seconds: None,
        };
        let action = hookwire_proto::envelope::Action::Deliver(delivery);
        Input::Remote(Envelope { hub: hub_name("mute"), target, action })
    };
    let slots = |bench: &mut Bench| {
        let mut slots: Vec<Slot> = bench.heard().into_iter().map(|(slot, _)| slot).collect();
        slots.sort_unstable();
        slots
    };
    bench.input(send(&[ann_id], None));
    assert_eq!(slots(&mut bench), [bob, eve]);
    bench.input(send(&[], Some("userId eq 'ann' or userId eq 'eve'")));
    assert_eq!(slots(&mut bench), [ann, eve]);
    bench.input(send(&[ann_id], Some("'g' in groups and not ('h' in groups)")));
    assert_eq!(slots(&mut bench), [bob, eve]);
}

#[test]
fn the_application_closes_with_a_reason_that_everybody_hears() {
    let mut bench = Bench::new();
    let (ann, id) = bench.enter(&Client { hub: "chat", ..Client::default() });
    let close = Command::CloseConnection {
        hub: hub_name("chat"),
        connection: id,
        reason: "enough".to_owned(),
    };
    assert_eq!(bench.command(close), Answer::Yes);
    let [ServerMessage::Disconnected { message }] = &bench.told(ann)[..] else { panic!() };
    assert_eq!(message, "enough");
    assert!(bench.effects.iter().any(|effect| {
        matches!(effect, Effect::Close { code: CloseCode::NORMAL, reason, .. } if reason == "enough")
    }));
    let Event::Disconnected { reason } = &bench.call().event else { panic!() };
    assert_eq!(reason, "enough");
}

#[test]
fn an_invocation_is_answered_under_its_id() {
    let invoke = |id: &str| ClientMessage::Invoke {
        invocation_id: id.to_owned(),
        event: "ask".to_owned(),
        data: Some(Data::text("?")),
        metadata: Metadata::default(),
    };
    let mut bench = Bench::new();
    let (ann, _) = bench.enter(&Client { hub: "chat", ..Client::default() });
    bench.ask(ann, &invoke("1"));
    let call = bench.call();
    let Event::User(user) = &call.event else { panic!() };
    assert!(user.is_invocation);
    bench.answer(call.id, 200, "!");
    let [ServerMessage::InvokeResponse { invocation_id, result: Ok(Some(data)) }] =
        &bench.told(ann)[..]
    else {
        panic!("{:?}", bench.effects)
    };
    assert_eq!((invocation_id.as_str(), data), ("1", &Data::text("!")));
    bench.ask(ann, &invoke("2"));
    let call = bench.call().id;
    bench.ask(ann, &ClientMessage::CancelInvocation { invocation_id: "2".to_owned() });
    bench.answer(call, 200, "!");
    assert!(bench.effects.is_empty(), "nobody waits any more");
    bench.ask(ann, &invoke("3"));
    let cancelled = bench.call().id;
    bench.ask(ann, &ClientMessage::CancelInvocation { invocation_id: "3".to_owned() });
    bench.ask(ann, &invoke("3"));
    bench.answer(cancelled, 200, "old");
    assert_eq!(bench.told(ann), [], "it is the answer to another question");
    let call = bench.call().id;
    bench.answer(call, 500, "");
    assert!(matches!(&bench.told(ann)[..], [ServerMessage::InvokeResponse { result: Err(_), .. }]));
}

#[test]
fn a_stream_is_published_in_order_and_ends_for_all() {
    let piece = |id, text: &str| piece("s", id, text);
    let start = start_stream("s", "g");
    let end = ClientMessage::EndStream { stream_id: "s".to_owned(), error: None };
    let mut bench = Bench::new();
    let (ann, _) = bench.enter(&Client::default());
    let (bob, _) = bench.enter(&Client { groups: &["g"], ..Client::default() });
    let expected = |bench: &Bench| match &bench.told(ann)[..] {
        [ServerMessage::StreamAck { expected_sequence_id, .. }] => *expected_sequence_id,
        other => panic!("{other:?}"),
    };
    bench.ask(ann, &piece(1, "early"));
    assert!(
        matches!(&bench.told(ann)[..], [ServerMessage::StreamClosed { error: Some(error), .. }] if error.name == "StreamNotFound")
    );
    bench.ask(ann, &start);
    assert_eq!(expected(&bench), 1);
    bench.ask(ann, &piece(1, "a"));
    assert_eq!((expected(&bench), bench.heard()), (2, vec![(bob, "a".to_owned())]));
    bench.ask(ann, &start);
    assert_eq!(expected(&bench), 2, "it goes on");
    bench.ask(ann, &piece(1, "a"));
    assert_eq!((expected(&bench), bench.heard()), (2, vec![]), "a repetition");
    bench.ask(ann, &piece(3, "c"));
    assert!(matches!(
        &bench.told(ann)[..],
        [ServerMessage::StreamNack { expected_sequence_id: 2, .. }]
    ));
    bench.later(999);
    bench.ask(ann, &piece(2, "b"));
    bench.ask(ann, &end);
    assert_eq!(bench.heard(), [(bob, String::new())], "the terminal message");
    assert!(matches!(&bench.told(ann)[..], [ServerMessage::StreamClosed { error: None, .. }]));
    bench.ask(ann, &start);
    bench.later(1_000);
    assert!(
        matches!(&bench.told(ann)[..], [ServerMessage::StreamClosed { error: Some(error), .. }] if error.name == "IdleTimeout")
    );
    assert_eq!(bench.heard().len(), 1);
    bench.ask(ann, &start);
    bench.input(Input::Released { slot: ann });
    assert_eq!(bench.heard().len(), 1, "a stream dies with its connection");
}

#[test]
fn group_states_are_shown_to_subscribers_until_the_membership_ends() {
    let set = |value: &str| show_state("g", value, Some(9));
    let mut bench = Bench::new();
    let (ann, _) = bench.enter(&Client::default());
    bench.ask(ann, &set("early"));
    assert_eq!(acks(&bench.told(ann)), [ack(9, Some("Forbidden"))], "not a member");
    bench.ask(ann, &join("g", None));
    bench.ask(ann, &set("one"));
    assert_eq!(acks(&bench.told(ann)), [ack(9, None)]);
    let (bob, _) = bench.enter(&Client { user: Some("bob"), ..Client::default() });
    bench.ask(bob, &watch_states("g", Some(1)));
    let told = bench.told(bob);
    assert_eq!(acks(&told), [ack(1, None)]);
    assert_eq!(states(&told), [(true, vec![Some("one".to_owned())])]);
    bench.ask(bob, &watch_states("g", Some(2)));
    assert_eq!(states(&bench.told(bob)), [], "it watches already");
    bench.ask(ann, &show_state("g", &"x".repeat(GROUP_STATE_BYTES_MAX), Some(10)));
    assert_eq!(acks(&bench.told(ann)), [ack(10, Some("BadRequest"))]);
    let (eve, _) = bench.enter(&Client { user: Some("eve"), ..Client::default() });
    let mut refused = 0;
    for at in 0..200 {
        bench.ask(eve, &join(&format!("g{at}"), None));
        bench.ask(eve, &show_state(&format!("g{at}"), "v", Some(at)));
        refused += usize::from(acks(&bench.told(eve)) == [ack(at, Some("BadRequest"))]);
    }
    assert_eq!(refused, 200 - 128);
    bench.input(Input::Released { slot: eve });
    bench.input(Input::Released { slot: ann });
    assert_eq!(states(&bench.told(bob)), [(false, vec![None])]);
    assert!(bench.hub.group_states.is_empty());
}

#[test]
fn a_stream_ends_with_the_permission_to_send() {
    let mut bench = Bench::new();
    let (ann, id) = bench.enter(&Client::default());
    let (bob, _) = bench.enter(&Client { groups: &["g"], ..Client::default() });
    bench.ask(ann, &start_stream("s", "g"));
    let (hub, connection) = (hub_name("mute"), id);
    let revoke = Command::Permission {
        hub,
        connection,
        permission: Permission::SendToGroup,
        group: None,
        order: PermissionOrder::Revoke,
    };
    assert_eq!(bench.command(revoke), Answer::Yes);
    bench.ask(ann, &piece("s", 1, "secret"));
    let is_forbidden = |told: &[ServerMessage]| matches!(told, [ServerMessage::StreamClosed { error: Some(error), .. }] if error.name == "Forbidden");
    assert!(is_forbidden(&bench.told(ann)), "{:?}", bench.effects);
    assert_eq!(bench.heard(), [(bob, String::new())], "its end alone");
    bench.ask(ann, &start_stream("s", "g"));
    assert!(is_forbidden(&bench.told(ann)), "{:?}", bench.effects);
}

#[test]
fn states_are_shown_no_longer_than_one_may_see_them() {
    let mut bench = Bench::new();
    let (ann, _) = bench.enter(&Client { groups: &["g"], ..Client::default() });
    let (bob, bobs) = bench.enter(&Client { roles: &[], groups: &["g"], ..Client::default() });
    let (eve, eves) = bench.enter(&Client::default());
    for client in [bob, eve] {
        bench.ask(client, &watch_states("g", None));
        assert_eq!(states(&bench.told(client)), [(true, vec![])]);
    }
    let hub = hub_name("mute");
    bench.command(Command::RemoveConnectionFromAllGroups { hub: hub.clone(), connection: bobs });
    let (permission, order) = (Permission::JoinLeaveGroup, PermissionOrder::Revoke);
    bench.ask(ann, &show_state("g", "one", None));
    assert_eq!(states(&bench.told(bob)), [], "no member any more");
    assert_eq!(states(&bench.told(eve)), [(false, vec![Some("one".to_owned())])]);
    bench.command(Command::Permission { hub, connection: eves, permission, group: None, order });
    bench.ask(ann, &show_state("g", "two", None));
    assert_eq!(states(&bench.told(eve)), [], "not permitted any more");
}

#[test]
fn a_state_has_few_entries() {
    let mut bench = Bench::new();
    let (ann, _) = bench.enter(&Client { groups: &["g"], ..Client::default() });
    let pairs = (0..65).map(|at| (format!("{at}"), String::new()));
    let state = Some(pairs.collect());
    bench.ask(ann, &ClientMessage::SetGroupState { group: group("g"), ack_id: Some(1), state });
    assert_eq!(acks(&bench.told(ann)), [ack(1, Some("BadRequest"))]);
}
