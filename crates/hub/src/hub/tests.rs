//! The rules of one shard, each by itself; `crates/sim` tests them together.

use super::membership::Joined;
use super::*;
use crate::effect::{Answer, Call, Dialect};
use crate::events::{WAITING_BYTES_MAX, WAITING_EVENTS_MAX};
use crate::input::{Command, Reply, UpstreamAnswer};
use bytes::Bytes;
use hookwire_proto::data::Data;
use hookwire_proto::envelope::{Content, Envelope, Shape, Target};
use hookwire_proto::message::Message;
use hookwire_proto::template::{TemplateDocument, TemplatesDocument};

/// A hub whose events go to one upstream, and the effects of the last input.
struct Bench {
    hub: Hub,
    effects: Vec<Effect>,
    connections: u8,
}

impl Bench {
    fn new() -> Self {
        let template = TemplateDocument {
            hub_pattern: Some("chat".to_owned()),
            url_template: "http://u/{event}".to_owned(),
            ..TemplateDocument::default()
        };
        let templates = Templates::parse(&TemplatesDocument { templates: vec![template] }).unwrap();
        let mut bench = Self { hub: Hub::default(), effects: Vec::new(), connections: 0 };
        bench.input(Input::Settings(Arc::new(Settings { templates, ..Settings::default() })));
        bench
    }

    fn input(&mut self, input: Input) {
        self.effects.clear();
        self.hub.handle(0, input, &mut self.effects);
    }

    fn connecting(&mut self, hub: &str, user: Option<&str>) -> ConnectionId {
        self.connections += 1;
        let id = ConnectionId::new(1, 0, [self.connections; 16]);
        let connecting = Connecting {
            id,
            hub: HubName::parse(hub).unwrap(),
            user: user.map(|user| UserId::parse(user).unwrap()),
            deflate: None,
            subprotocols: vec!["a".to_owned(), "b".to_owned()],
            door: DoorRequest::Preview {
                shape: Shape::AsSent,
                context: ClientContext::new("q=1", "sub: x", "127.0.0.1"),
            },
        };
        self.input(Input::Connecting { answer_to: Ticket(7), connecting: Box::new(connecting) });
        id
    }

    /// The calls among the effects.
    fn calls(&self) -> Vec<&Call> {
        let mut calls = Vec::new();
        for effect in &self.effects {
            if let Effect::Call(call) = effect {
                calls.push(call);
            }
        }
        calls
    }

    fn reply(
        &mut self,
        call: CallId,
        status: u16,
        user: Option<&str>,
        subprotocols: &[&str],
        body: &'static str,
    ) {
        let reply = Reply::Answered(Box::new(UpstreamAnswer {
            status,
            subprotocols: subprotocols.iter().map(|text| (*text).to_owned()).collect(),
            user: user.map(str::to_owned),
            content_type: Some("text/plain".to_owned()),
            body: Bytes::from_static(body.as_bytes()),
            ..UpstreamAnswer::default()
        }));
        self.input(Input::UpstreamReplied { call, reply });
    }

    fn admitted(&mut self) -> Slot {
        self.connecting("chat", Some("ann"));
        let call = self.calls()[0].id;
        self.reply(call, 200, None, &[], "");
        let [Effect::Admit { slot, .. }] = self.effects[..] else { panic!("{:?}", self.effects) };
        slot
    }

    fn request(&mut self, slot: Slot, data: &[u8]) {
        let message = Message::binary(Bytes::copy_from_slice(data));
        self.input(Input::Request { slot, message });
    }
}

#[test]
fn a_client_without_any_user_is_refused() {
    let mut bench = Bench::new();
    bench.connecting("chat", None);
    let call = bench.calls()[0].id;
    bench.reply(call, 200, None, &[], "");
    assert!(matches!(
        bench.effects[..],
        [Effect::Refuse { answer_to: Ticket(7), status: 401, .. }]
    ));
    bench.connecting("elsewhere", None);
    assert!(matches!(bench.effects[..], [Effect::Refuse { status: 401, .. }]));
    assert!(bench.hub.is_drained(), "no disconnect event for who was never in");
}

#[test]
fn without_an_upstream_a_token_is_enough() {
    let mut bench = Bench::new();
    bench.connecting("elsewhere", Some("ann"));
    let [Effect::Admit { slot, .. }] = bench.effects[..] else { panic!("{:?}", bench.effects) };
    bench.request(slot, b"nobody listens");
    assert!(bench.effects.is_empty());
    assert_eq!(bench.hub.unrouted_messages(), 1);
    bench.input(Input::Released { slot });
    assert!(bench.effects.is_empty() && bench.hub.is_drained());
}

#[test]
fn the_upstream_names_user_subprotocol_and_first_message() {
    let mut bench = Bench::new();
    let id = bench.connecting("chat", Some("ann"));
    let call = bench.calls()[0];
    let Dialect::Preview(context) = &call.dialect else { panic!("{call:?}") };
    assert_eq!((call.url.as_str(), context.query()), ("http://u/connect", "q=1"));
    let call = call.id;
    bench.reply(call, 204, Some("bob"), &["b"], "welcome");
    let [Effect::Admit { slot, subprotocol, .. }, Effect::Send { content, .. }] =
        &bench.effects[..]
    else {
        panic!("{:?}", bench.effects)
    };
    assert_eq!(subprotocol.as_deref(), Some("b"));
    assert_eq!(content.publication().data, Data::text("welcome"));
    let slot = *slot;
    bench.request(slot, b"x");
    let call = bench.calls()[0];
    assert_eq!(
        call.user.as_ref().map(UserId::as_str),
        Some("bob"),
        "the upstream overrides the token"
    );
    assert_eq!(call.connection, id);
}

#[test]
fn a_subprotocol_that_was_not_offered_or_is_doubled_counts_as_none() {
    for answer in [&["c"][..], &["a", "b"], &["A"], &[""]] {
        let mut bench = Bench::new();
        bench.connecting("chat", Some("ann"));
        let call = bench.calls()[0].id;
        bench.reply(call, 200, None, answer, "");
        assert!(
            matches!(bench.effects[..], [Effect::Admit { subprotocol: None, .. }]),
            "{answer:?}"
        );
    }
}

#[test]
fn refusals_of_the_upstream_are_passed_on_and_faults_become_502() {
    for (status, expected) in
        [(401, 401), (404, 404), (429, 429), (302, 502), (500, 502), (503, 502), (199, 502)]
    {
        let mut bench = Bench::new();
        bench.connecting("chat", Some("ann"));
        let call = bench.calls()[0].id;
        bench.reply(call, status, Some("ann"), &[], "why");
        let [Effect::Refuse { status: refused, body, .. }] = &bench.effects[..] else {
            panic!("{:?}", bench.effects)
        };
        assert_eq!(*refused, expected);
        assert_eq!(
            &body[..] == b"why",
            status == expected,
            "only the upstream's own words are passed on"
        );
    }
    let mut bench = Bench::new();
    bench.connecting("chat", Some("ann"));
    let call = bench.calls()[0].id;
    bench.reply(call, 200, Some("a\nb"), &[], "");
    assert!(matches!(bench.effects[..], [Effect::Refuse { status: 502, .. }]));
    bench.connecting("chat", Some("ann"));
    let call = bench.calls()[0].id;
    bench.input(Input::UpstreamReplied {
        call,
        reply: Reply::Failed { reason: "hung up".to_owned() },
    });
    assert!(matches!(bench.effects[..], [Effect::Refuse { status: 502, .. }]));
}

#[test]
fn events_follow_one_another_and_the_disconnect_is_last() {
    let mut bench = Bench::new();
    let slot = bench.admitted();
    bench.request(slot, b"1");
    let first = bench.calls()[0].id;
    bench.request(slot, b"2");
    assert!(bench.calls().is_empty(), "the second waits for the first");
    bench.input(Input::Released { slot });
    assert!(bench.calls().is_empty(), "the disconnect waits too");
    assert_eq!(bench.hub.open_connections(), 0);
    bench.input(Input::UpstreamPassed { call: first });
    let [second] = bench.calls()[..] else { panic!("{:?}", bench.effects) };
    assert_eq!(second.event.payload_bytes(), 1);
    let second = second.id;
    bench.input(Input::UpstreamPassed { call: first });
    assert!(bench.calls().is_empty(), "a call passes once");
    bench.reply(second, 200, None, &[], "too late to be delivered");
    let [last] = bench.calls()[..] else { panic!("{:?}", bench.effects) };
    assert_eq!((last.event.name(), bench.effects.len()), ("disconnect", 1));
    assert!(bench.hub.is_drained());
    bench.reply(first, 200, None, &[], "far too late");
    assert!(bench.effects.is_empty());
}

#[test]
fn late_answers_are_delivered_while_the_connection_lives() {
    let mut bench = Bench::new();
    let slot = bench.admitted();
    bench.request(slot, b"1");
    let call = bench.calls()[0].id;
    bench.input(Input::UpstreamPassed { call });
    bench.reply(call, 200, None, &[], "late");
    assert!(
        matches!(&bench.effects[..], [Effect::Send { content, .. }] if content.publication().data == Data::text("late"))
    );
    bench.reply(call, 200, None, &[], "again");
    assert!(bench.effects.is_empty(), "one answer to a call");
}

#[test]
fn a_connection_whose_upstream_is_behind_is_paused_by_count_and_by_bytes() {
    let mut bench = Bench::new();
    let slot = bench.admitted();
    bench.request(slot, b"");
    let mut call = bench.calls()[0].id;
    for waiting in 1..=WAITING_EVENTS_MAX {
        bench.request(slot, b"");
        let paused = matches!(bench.effects[..], [Effect::Pause { .. }]);
        assert_eq!(paused, waiting == WAITING_EVENTS_MAX, "at {waiting}");
    }
    bench.input(Input::UpstreamPassed { call });
    assert!(matches!(bench.effects[..], [Effect::Resume { .. }, Effect::Call(_)]));
    for _ in 0..WAITING_EVENTS_MAX {
        call = bench.calls()[0].id;
        bench.input(Input::UpstreamPassed { call });
    }
    assert_eq!(bench.hub.waiting_bytes(), 0);

    bench.request(slot, b"holds the others back");
    call = bench.calls().first().map_or(call, |call| call.id);
    bench.request(slot, &vec![0; WAITING_BYTES_MAX]);
    assert!(matches!(bench.effects[..], [Effect::Pause { .. }]));
    assert!(WAITING_BYTES_MAX < bench.hub.waiting_bytes(), "an event counts beside its payload");
    bench.input(Input::UpstreamPassed { call });
    assert!(matches!(bench.effects[..], [Effect::Resume { .. }, Effect::Call(_)]));
    assert_eq!(bench.hub.waiting_bytes(), 0);
}

#[test]
fn a_full_connection_joins_no_further_group() {
    let mut bench = Bench::new();
    let slot = bench.admitted();
    let Entry::Open(open) = &bench.hub.connections[slot.0 as usize] else { panic!("it is open") };
    let connection = open.id;
    let hub = HubName::parse("chat").unwrap();
    let mut last = Joined::Absent;
    for at in 0..GROUPS_PER_CONNECTION_MAX {
        let group = GroupName::parse(&format!("g{at}")).unwrap();
        // Straight to the core: the command's effects are not what is tested.
        last = bench.hub.join(slot, &hub, Kind::Group, group.shared(), Reasons::CONNECTION);
        if last == Joined::TooMany {
            break;
        }
    }
    assert_eq!(last, Joined::TooMany);
    let group = GroupName::parse("g0").unwrap();
    bench.input(Input::Command {
        answer_to: Ticket(1),
        command: Command::AddConnectionToGroup { hub, connection, group },
    });
    assert!(
        matches!(bench.effects[..], [Effect::Answer { answer: Answer::Yes, .. }]),
        "it is in that one"
    );
}

#[test]
fn an_id_of_another_hub_is_absent() {
    let mut bench = Bench::new();
    let slot = bench.admitted();
    let Entry::Open(open) = &bench.hub.connections[slot.0 as usize] else { panic!("it is open") };
    let (connection, other) = (open.id, HubName::parse("other").unwrap());
    let target = Target::Connection(connection);
    bench.input(Input::Command {
        answer_to: Ticket(1),
        command: Command::CloseConnection { hub: other.clone(), connection, reason: String::new() },
    });
    assert!(matches!(bench.effects[..], [Effect::Answer { answer: Answer::No, .. }]));
    let content = Content::new(Message::text("x"));
    bench.input(Input::Remote(Envelope::new(other, target, content)));
    assert!(bench.effects.is_empty());
}
