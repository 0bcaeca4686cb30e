//! Who comes in, as whom, and what is told of it.

use super::*;

#[test]
fn anonymous_clients_need_a_hub_that_allows_them() {
    let mut bench = Bench::new();
    bench.knock(&Client { has_token: false, user: None, ..Client::default() });
    assert!(matches!(
        bench.effects[..],
        [Effect::Refuse { answer_to: Ticket(7), status: 401, .. }]
    ));
    bench.knock(&Client { user: None, ..Client::default() });
    assert!(matches!(bench.effects[0], Effect::Admit { .. }), "a token need not name a user");
}

#[test]
fn the_first_message_names_the_connection() {
    let mut bench = Bench::new();
    let (slot, id) = bench.enter(&Client::default());
    let [ServerMessage::Connected { connection_id, user_id, reconnection_token: None }] =
        &bench.told(slot)[..]
    else {
        panic!("{:?}", bench.effects)
    };
    assert_eq!((connection_id, user_id.as_ref().unwrap().as_str()), (&id.to_string(), "ann"));
    let (slot, _) = bench.enter(&Client { offers: RELIABLE, ..Client::default() });
    assert!(matches!(
        bench.told(slot)[..],
        [ServerMessage::Connected { reconnection_token: Some(_), .. }]
    ));
}

#[test]
fn the_handler_decides_about_user_groups_roles_and_subprotocol() {
    let mut bench = Bench::new();
    let client = Client {
        hub: "chat",
        offers: &["mine", "json.webpubsub.azure.v1"],
        groups: &["of-token"],
        ..Client::default()
    };
    let id = bench.knock(&client);
    let call = bench.call();
    assert_eq!(call.url, "http://u/connect");
    let Dialect::WebPubSub { facts, .. } = &call.dialect else { panic!() };
    assert_eq!(facts.sequence, 0);
    bench.answer(
        call.id,
        200,
        r#"{"userId":"bob","groups":["g"],"roles":[],"subprotocol":"mine","more":1}"#,
    );
    let Effect::Admit { slot, subprotocol, is_reliable: false, .. } = &bench.effects[0] else {
        panic!("{:?}", bench.effects)
    };
    assert_eq!(subprotocol.as_deref(), Some("mine"));
    let open = bench.hub.open_at(*slot).unwrap();
    assert_eq!(bench.hub.user_of(open).unwrap().as_str(), "bob");
    assert_eq!(bench.hub.groups_of(open), [group("g")]);
    let permission = Command::Permission {
        hub: hub_name("chat"),
        connection: id,
        permission: Permission::SendToGroup,
        group: None,
        order: PermissionOrder::Check,
    };
    assert_eq!(bench.command(permission), Answer::No, "empty roles take all away");
}

#[test]
fn the_handler_may_take_the_user_of_the_token_away() {
    let mut bench = Bench::new();
    bench.knock(&Client { hub: "chat", ..Client::default() });
    let call = bench.call().id;
    bench.answer(call, 200, r#"{"userId":""}"#);
    let open = bench.hub.open_at(bench.hub.slots()[0]).unwrap();
    assert_eq!(bench.hub.user_of(open), None);
}

#[test]
fn what_the_handler_refuses_or_garbles_lets_nobody_in() {
    for (status, body, expected) in [
        (401, "no", 401),
        (403, "", 403),
        (500, "", 500),
        (503, "", 503),
        (302, "", 500),
        (200, "{", 500),
        (200, r#"{"userId":7}"#, 500),
        (200, r#"{"subprotocol":"other"}"#, 500),
    ] {
        let mut bench = Bench::new();
        bench.knock(&Client { hub: "chat", ..Client::default() });
        let call = bench.call().id;
        bench.answer(call, status, body);
        let [Effect::Refuse { status, .. }] = bench.effects[..] else { panic!("{body}") };
        assert_eq!(status, expected, "{body}");
        assert!(bench.hub.is_drained(), "no disconnected event for who was never in");
    }
    let mut bench = Bench::new();
    bench.knock(&Client { hub: "chat", ..Client::default() });
    let call = bench.call().id;
    bench.input(Input::UpstreamReplied { call, reply: Reply::Failed { reason: "x".to_owned() } });
    assert!(matches!(bench.effects[..], [Effect::Refuse { status: 500, .. }]));
}

#[test]
fn without_a_word_from_the_handler_the_first_built_in_subprotocol_is_spoken() {
    for (offers, expected) in [
        (&[][..], None),
        (&["mine"], None),
        (
            &["mine", "protobuf.webpubsub.azure.v1", "json.webpubsub.azure.v1"],
            Some("protobuf.webpubsub.azure.v1"),
        ),
    ] {
        let mut bench = Bench::new();
        bench.knock(&Client { offers, ..Client::default() });
        let Effect::Admit { subprotocol, .. } = &bench.effects[0] else { panic!() };
        assert_eq!(subprotocol.as_deref(), expected);
    }
}

#[test]
fn connected_comes_after_the_upgrade_and_disconnected_once_at_the_end() {
    let mut bench = Bench::new();
    bench.knock(&Client { hub: "chat", groups: &["seen-1", "unseen"], ..Client::default() });
    let call = bench.call().id;
    bench.answer(call, 204, "");
    let mut names = Vec::new();
    let mut sequences = Vec::new();
    let slot = bench.hub.slots()[0];
    let note = |call: &Call, names: &mut Vec<String>, sequences: &mut Vec<u64>| {
        names.push(call.event.name().to_owned());
        let Dialect::WebPubSub { facts, .. } = &call.dialect else { panic!() };
        sequences.push(facts.sequence);
    };
    let call = bench.call();
    note(&call, &mut names, &mut sequences);
    bench.answer(call.id, 500, "");
    let call = bench.call();
    note(&call, &mut names, &mut sequences);
    bench.input(Input::Ended { slot, ending: Ending::ClosedByClient(Some(1_000)) });
    assert!(bench.calls().is_empty(), "one event after another");
    bench.answer(call.id, 200, "");
    let call = bench.call();
    note(&call, &mut names, &mut sequences);
    bench.input(Input::UpstreamPassed { call: call.id });
    let call = bench.call();
    note(&call, &mut names, &mut sequences);
    let Event::Disconnected { reason } = &call.event else { panic!() };
    assert_eq!(reason, "Normal");
    bench.input(Input::Released { slot });
    assert!(bench.effects.is_empty() && bench.hub.is_drained());
    assert_eq!(names, ["connected", "joined", "left", "disconnected"]);
    assert_eq!(sequences, [1, 2, 3, 4]);
}

#[test]
fn messages_are_compressed_where_hub_and_client_want_it() {
    let compression = Compression { level: 3, min_bytes: 7 };
    let settings = |compression| {
        let defaults = Arc::new(HubSettings { compression, ..HubSettings::default() });
        let hubs = HubsSettings { defaults, ..HubsSettings::default() };
        Input::Settings(Arc::new(Settings { hubs, ..Settings::default() }))
    };
    let deflate = |window| Some(Deflate { compression, window });
    for (wanted, window, expected) in [
        (None, Some(Window::FULL), None),
        (Some(compression), None, None),
        (Some(compression), Some(Window::FULL), deflate(Window::FULL)),
        (Some(compression), Some(Window::SMALL), deflate(Window::SMALL)),
    ] {
        for offers in [&[][..], RELIABLE] {
            let mut bench = Bench::new();
            bench.input(settings(wanted));
            let client = Client { offers, groups: &["g"], window, ..Client::default() };
            let (slot, id) = bench.enter(&client);
            let admitted = bench.effects.iter().find_map(|effect| match effect {
                Effect::Admit { deflate, .. } => Some(*deflate),
                _ => None,
            });
            assert_eq!((admitted, bench.hub.deflate(slot)), (Some(expected), expected));
            let ticket = bench.told(slot);
            // What was agreed holds, whatever the settings are by now; a reliable client's next socket goes by the new ones.
            bench.input(settings(None));
            let target = Target::Group(group("g"));
            let content = Content::to(&target, Data::text("x".repeat(100)), Metadata::default());
            bench.input(Input::Remote(Envelope::new(hub_name("mute"), target, content)));
            if offers == RELIABLE {
                let mut frames = SequencedFrames::default();
                bench.hub.take_unsent(slot, &mut Deflater::default(), &mut frames);
                let (head, _) = frames.iter().next().unwrap();
                assert_eq!(head[0] & 0x40 != 0, expected.is_some());
                bench.input(Input::Released { slot });
                bench.input(recovery::recovering(id, &recovery::token(&ticket)));
                assert!(matches!(bench.effects[0], Effect::Readmit { deflate: None, .. }));
                assert_eq!(bench.hub.deflate(slot), None);
            } else {
                let form = bench.effects.iter().find_map(|effect| match effect {
                    Effect::Deliver { form, .. } => Some(form.deflate),
                    _ => None,
                });
                assert_eq!(form, Some(expected));
            }
        }
    }
}
