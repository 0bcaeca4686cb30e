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
    let call = bench.call().id;
    bench.answer(call, 500, "");
    assert!(matches!(&bench.told(ann)[..], [ServerMessage::InvokeResponse { result: Err(_), .. }]));
}

#[test]
fn a_stream_is_published_in_order_and_ends_for_all() {
    let piece = |id: u64, text: &str| ClientMessage::StreamData {
        stream_id: "s".to_owned(),
        sequence_id: Some(id),
        data: Some(Data::text(text)),
    };
    let start = ClientMessage::StartStream {
        group: group("g"),
        stream_id: "s".to_owned(),
        idle_timeout_ms: Some(1_000),
        no_echo: false,
        ttl_seconds: None,
        metadata: Metadata::default(),
    };
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
    let set = |value: &str| ClientMessage::SetGroupState {
        group: group("g"),
        ack_id: Some(9),
        state: Some(BTreeMap::from([("k".to_owned(), value.to_owned())])),
    };
    let states = |told: &[ServerMessage]| {
        let items = told.iter().filter_map(|message| match message {
            ServerMessage::GroupState { is_snapshot, items, .. } => Some((
                *is_snapshot,
                items
                    .iter()
                    .map(|item| item.state.as_ref().map(|s| s["k"].clone()))
                    .collect::<Vec<_>>(),
            )),
            _ => None,
        });
        items.collect::<Vec<_>>()
    };
    let mut bench = Bench::new();
    let (ann, _) = bench.enter(&Client::default());
    bench.ask(ann, &set("early"));
    assert_eq!(acks(&bench.told(ann)), [ack(9, Some("Forbidden"))], "not a member");
    bench.ask(ann, &join("g", None));
    bench.ask(ann, &set("one"));
    assert_eq!(acks(&bench.told(ann)), [ack(9, None)]);
    let (bob, _) = bench.enter(&Client { user: Some("bob"), ..Client::default() });
    bench.ask(bob, &ClientMessage::SubscribeGroupState { group: group("g"), ack_id: Some(1) });
    let told = bench.told(bob);
    assert_eq!(acks(&told), [ack(1, None)]);
    assert_eq!(states(&told), [(true, vec![Some("one".to_owned())])]);
    let large = ClientMessage::SetGroupState {
        group: group("g"),
        ack_id: Some(10),
        state: Some(BTreeMap::from([("k".to_owned(), "x".repeat(GROUP_STATE_BYTES_MAX))])),
    };
    bench.ask(ann, &large);
    assert_eq!(acks(&bench.told(ann)), [ack(10, Some("BadRequest"))]);
    let (eve, _) = bench.enter(&Client { user: Some("eve"), ..Client::default() });
    let mut refused = 0;
    for at in 0..200 {
        bench.ask(eve, &join(&format!("g{at}"), None));
        let state = Some(BTreeMap::from([("k".to_owned(), "v".to_owned())]));
        let (group, ack_id) = (group(&format!("g{at}")), Some(at));
        bench.ask(eve, &ClientMessage::SetGroupState { group, ack_id, state });
        refused += usize::from(acks(&bench.told(eve)) == [ack(at, Some("BadRequest"))]);
    }
    assert_eq!(refused, 200 - 128);
    bench.input(Input::Released { slot: eve });
    bench.input(Input::Released { slot: ann });
    assert_eq!(states(&bench.told(bob)), [(false, vec![None])]);
    assert!(bench.hub.group_states.is_empty());
}
