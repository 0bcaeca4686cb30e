//! Connections that outlive their transports.

use super::*;

pub(super) fn recovering(id: ConnectionId, token: &str) -> Input {
    let recovering = Recovering {
        id,
        hub: hub_name("mute"),
        subprotocols: vec![RELIABLE[0].to_owned()],
        deflate: None,
        token: token.to_owned(),
    };
    Input::Recovering { answer_to: Ticket(9), recovering: Box::new(recovering) }
}

pub(super) fn token(told: &[ServerMessage]) -> String {
    match told {
        [ServerMessage::Connected { reconnection_token: Some(token), .. }] => token.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_reliable_client_comes_back_and_misses_nothing() {
    let mut bench = Bench::new();
    let client = Client { offers: RELIABLE, groups: &["g"], ..Client::default() };
    let (ann, id) = bench.enter(&client);
    let ticket = token(&bench.told(ann));
    let (bob, _) = bench.enter(&Client { user: Some("bob"), ..Client::default() });
    for text in ["one", "two"] {
        bench.ask(bob, &post("g", text, None, false));
        assert_eq!(bench.heard().len(), 1);
    }
    bench.ask(ann, &ClientMessage::SequenceAck { sequence_id: 1 });
    bench.input(Input::Released { slot: ann });
    assert_eq!((bench.hub.open_connections(), bench.hub.detached_connections()), (2, 1));
    bench.ask(bob, &post("g", "three", None, false));
    assert!(bench.heard().is_empty(), "there is no socket");
    bench.later(29 * SECOND);
    bench.input(recovering(id, &ticket));
    assert!(matches!(
        &bench.effects[..],
        [
            Effect::Readmit { answer_to: Ticket(9), .. },
            Effect::Tell { .. },
            Effect::Sequenced { .. }
        ]
    ));
    let again = token(&bench.told(ann));
    let texts: Vec<bool> = bench
        .heard()
        .iter()
        .zip(["two", "three"])
        .map(|((_, heard), sent)| heard.contains(sent))
        .collect();
    assert_eq!(texts, [true, true]);
    bench.later(3_600 * SECOND);
    assert_eq!(bench.hub.open_connections(), 2, "it is not given up while it has a socket");
    bench.input(Input::Ended { slot: ann, ending: Ending::ClosedByClient(Some(1_000)) });
    bench.input(Input::Released { slot: ann });
    bench.input(recovering(id, &again));
    assert!(matches!(bench.effects[..], [Effect::NotRecovered { answer_to: Ticket(9) }]));
}

#[test]
fn a_connection_is_given_back_to_its_own_client_alone() {
    let mut bench = Bench::new();
    let (ann, id) = bench.enter(&Client { offers: RELIABLE, ..Client::default() });
    let ticket = token(&bench.told(ann));
    let (plain, plain_id) = bench.enter(&Client::default());
    bench.input(Input::Released { slot: ann });
    bench.input(Input::Released { slot: plain });
    assert_eq!(bench.hub.open_connections(), 1, "without reliability there is no way back");
    let mut elsewhere = recovering(id, &ticket);
    let mut other = recovering(id, &ticket);
    if let Input::Recovering { recovering, .. } = &mut elsewhere {
        recovering.hub = hub_name("chat");
    }
    if let Input::Recovering { recovering, .. } = &mut other {
        recovering.subprotocols = vec!["protobuf.reliable.webpubsub.azure.v1".to_owned()];
    }
    for input in [
        recovering(id, "wrong"),
        recovering(plain_id, &ticket),
        elsewhere,
        other,
        recovering(id, ""),
    ] {
        bench.input(input);
        assert!(matches!(bench.effects[..], [Effect::NotRecovered { .. }]));
    }
    bench.input(recovering(id, &ticket));
    assert!(matches!(bench.effects[0], Effect::Readmit { .. }));
}

#[test]
fn who_does_not_come_back_is_gone_after_the_retention() {
    let closed = |code| Some(Ending::ClosedByClient(code));
    for (ending, retention) in [
        (None, 30 * SECOND),
        (closed(None), 3 * SECOND),
        (closed(Some(1_001)), 30 * SECOND),
        (Some(Ending::GivenUp("PingTimeout".into())), 30 * SECOND),
        (closed(Some(1_000)), 0),
        (Some(Ending::Final("over".into())), 0),
    ] {
        let mut bench = Bench::new();
        let client = Client { hub: "chat", offers: RELIABLE, ..Client::default() };
        let (ann, _) = bench.enter(&client);
        if let Some(ending) = ending.clone() {
            bench.input(Input::Ended { slot: ann, ending });
        }
        if 0 < retention {
            assert!(bench.calls().is_empty(), "{ending:?}");
            bench.input(Input::Released { slot: ann });
            bench.later(retention - 1);
            assert_eq!(bench.hub.open_connections(), 1, "{ending:?}");
            bench.later(1);
        }
        assert!(matches!(bench.call().event, Event::Disconnected { .. }), "{ending:?}");
        assert_eq!(bench.hub.open_connections(), 0, "{ending:?}");
    }
}

#[test]
fn who_acknowledges_too_little_is_closed_and_cannot_come_back() {
    let mut bench = Bench::new();
    let (ann, id) = bench.enter(&Client { offers: RELIABLE, groups: &["g"], ..Client::default() });
    let ticket = token(&bench.told(ann));
    let (bob, _) = bench.enter(&Client::default());
    for _ in 0..1_000 {
        bench.ask(bob, &post("g", "x", None, false));
        assert!(matches!(bench.effects[0], Effect::Sequenced { .. }));
    }
    bench.ask(bob, &post("g", "x", None, false));
    let closed = bench.effects.iter().any(|effect| {
        matches!(effect, Effect::Close { slot, code: CloseCode::POLICY, .. } if *slot == ann)
    });
    assert!(closed);
    bench.input(recovering(id, &ticket));
    assert!(matches!(bench.effects[..], [Effect::NotRecovered { .. }]));
}

#[test]
fn what_a_socket_was_not_given_can_be_taken_after_the_end_and_once() {
    let mut bench = Bench::new();
    let (ann, id) = bench.enter(&Client { offers: RELIABLE, groups: &["g"], ..Client::default() });
    let (bob, _) = bench.enter(&Client::default());
    let taken = |bench: &mut Bench| {
        let mut frames = SequencedFrames::default();
        bench.hub.take_unsent(ann, &mut Deflater::default(), &mut frames);
        frames.len()
    };
    bench.ask(bob, &post("g", "taken", None, false));
    assert_eq!(taken(&mut bench), 1);
    bench.ask(bob, &post("g", "left", None, false));
    let (hub, reason) = (hub_name("mute"), "over".to_owned());
    let command = Command::CloseConnection { hub, connection: id, reason };
    bench.input(Input::Command { answer_to: Ticket(9), command });
    assert_eq!(bench.hub.open_connections(), 1);
    assert_eq!((taken(&mut bench), taken(&mut bench)), (1, 0));
    bench.input(Input::Released { slot: ann });
    assert_eq!(taken(&mut bench), 0);
}

#[test]
fn a_message_with_a_time_to_live_does_not_wait_longer_for_a_lost_client() {
    let mut bench = Bench::new();
    let (ann, id) = bench.enter(&Client { offers: RELIABLE, groups: &["g"], ..Client::default() });
    let ticket = token(&bench.told(ann));
    bench.input(Input::Released { slot: ann });
    for (text, ttl_seconds) in [("short", Some(5)), ("zero", Some(0)), ("none", None)] {
        let target = Target::Group(group("g"));
        let content = Content::to(&target, Data::text(text), Metadata::default());
        let mut envelope = Envelope::new(hub_name("mute"), target, content);
        if let hookwire_proto::envelope::Action::Deliver(delivery) = &mut envelope.action {
            delivery.ttl_seconds = ttl_seconds;
        }
        bench.input(Input::Remote(envelope));
    }
    bench.later(5 * SECOND);
    bench.input(recovering(id, &ticket));
    let heard = bench.heard();
    assert_eq!(heard.len(), 2);
    assert!(heard[0].1.contains("zero") && heard[1].1.contains("none"));
}

/// Who was closed by the last input for not acknowledging.
fn overflowed(bench: &Bench) -> Vec<Slot> {
    let closed = bench.effects.iter().filter_map(|effect| match effect {
        Effect::Close { slot, code: CloseCode::POLICY, .. } => Some(*slot),
        _ => None,
    });
    closed.collect()
}

#[test]
fn the_end_of_its_own_stream_does_not_end_a_full_connection_twice() {
    let mut bench = Bench::new();
    let client = Client { offers: RELIABLE, groups: &["g"], ..Client::default() };
    let (ann, _) = bench.enter(&client);
    bench.ask(ann, &start_stream("s", "g"));
    for number in 1..=1_001 {
        assert_eq!(overflowed(&bench), []);
        bench.ask(ann, &piece("s", number, "x"));
    }
    assert_eq!(overflowed(&bench), [ann]);
    assert_eq!((bench.hub.open_connections(), bench.hub.detached_connections()), (0, 0));
}

#[test]
fn the_end_of_a_full_connection_that_waits_for_its_client_ends_it_once() {
    let mut bench = Bench::new();
    let client = Client { offers: RELIABLE, groups: &["g"], ..Client::default() };
    let (ann, _) = bench.enter(&client);
    let (bob, _) = bench.enter(&Client::default());
    bench.ask(ann, &start_stream("s", "g"));
    bench.input(Input::Ended { slot: ann, ending: Ending::ClosedByClient(None) });
    bench.input(Input::Released { slot: ann });
    for _ in 0..1_000 {
        bench.ask(bob, &post("g", "x", None, true));
    }
    assert_eq!((bench.hub.open_connections(), bench.hub.detached_connections()), (2, 1));
    bench.later(3 * SECOND);
    assert_eq!((bench.hub.open_connections(), bench.hub.detached_connections()), (1, 0));
}

#[test]
fn full_connections_that_watch_each_other_end_one_after_another() {
    // Far more than a thread's stack would bear, one within the other.
    const CLIENTS: usize = 5_000;
    let settings = Settings {
        recovery: crate::reliable::RecoverySettings { messages_max: 1, ..Default::default() },
        ..Settings::default()
    };
    let mut bench = Bench::new();
    bench.input(Input::Settings(Arc::new(settings)));
    // Each shows a state to the next alone, so that the end of one is one message too many for the next.
    let mut slots = Vec::new();
    for at in 0..CLIENTS {
        let [own, next] = [at, at + 1].map(|at| format!("g{at}"));
        let (slot, _) = bench.enter(&Client { offers: RELIABLE, ..Client::default() });
        bench.ask(slot, &join(&own, None));
        bench.ask(slot, &join(&next, None));
        bench.ask(slot, &show_state(&next, "here", None));
        // The snapshot is all that it has room for.
        bench.ask(slot, &watch_states(&own, None));
        slots.push(slot);
    }
    bench.ask(slots[0], &post("g0", "one too many", None, false));
    assert_eq!(overflowed(&bench).len(), CLIENTS);
    assert_eq!(bench.hub.open_connections(), 0);
}

#[test]
fn a_client_whose_acks_are_not_read_is_excused() {
    let mut bench = Bench::new();
    let client = Client { hub: "chat", offers: RELIABLE, groups: &["g"], ..Client::default() };
    let (ann, _) = bench.enter(&client);
    let (bob, _) = bench.enter(&Client { hub: "chat", ..Client::default() });
    bench.ask(ann, &event("slow", None));
    let call = bench.call().id;
    for _ in 0..crate::events::WAITING_EVENTS_MAX {
        bench.ask(ann, &event("slow", None));
    }
    assert!(matches!(bench.effects[..], [Effect::Pause { .. }]));
    for _ in 0..2_000 {
        bench.ask(bob, &post("g", "x", None, false));
        assert_eq!(overflowed(&bench), []);
    }
    bench.hub.take_unsent(ann, &mut Deflater::default(), &mut SequencedFrames::default());
    bench.answer(call, 200, "");
    assert!(bench.effects.iter().any(|effect| matches!(effect, Effect::Resume { .. })));
    // Its acks come one after another.
    bench.ask(ann, &ClientMessage::SequenceAck { sequence_id: 10 });
    bench.ask(bob, &post("g", "x", None, false));
    assert_eq!(overflowed(&bench), []);
    bench.ask(ann, &ClientMessage::SequenceAck { sequence_id: 2_000 });
    for _ in 0..999 {
        bench.ask(bob, &post("g", "x", None, false));
    }
    assert_eq!(overflowed(&bench), []);
    bench.ask(bob, &post("g", "one too many", None, false));
    assert_eq!(overflowed(&bench), [ann], "now its acks are read");
}

#[test]
fn what_has_expired_takes_no_room_of_a_lost_client() {
    let mut bench = Bench::new();
    let (ann, _) = bench.enter(&Client { offers: RELIABLE, groups: &["g"], ..Client::default() });
    let (bob, _) = bench.enter(&Client::default());
    bench.input(Input::Ended { slot: ann, ending: Ending::ClosedByClient(Some(1_001)) });
    bench.input(Input::Released { slot: ann });
    for _ in 0..5 {
        for _ in 0..500 {
            let ClientMessage::SendToGroup { group, ack_id, no_echo, data, metadata, .. } =
                post("g", "x", None, true)
            else {
                unreachable!("it is what was made")
            };
            let ttl_seconds = Some(1);
            let post =
                ClientMessage::SendToGroup { group, ack_id, no_echo, ttl_seconds, data, metadata };
            bench.ask(bob, &post);
        }
        bench.later(2 * SECOND);
        assert_eq!(bench.hub.detached_connections(), 1);
    }
}
