//! The rules of Web PubSub connections on one shard, each by itself; `crates/sim` tests them together.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test looks for what concerns it among all effects"
)]

use std::collections::BTreeMap;

use bytes::Bytes;
use hookwire_proto::cloud_event::ConnectRequest;
use hookwire_proto::data::{Data, DataKind, Metadata};
use hookwire_proto::envelope::{Content, Delivery, Envelope, Target};
use hookwire_proto::filter::Filter;
use hookwire_proto::frame::CloseCode;
use hookwire_proto::handler::{EventHandlerDocument, HubDocument, HubSettings, PresenceDocument};
use hookwire_proto::message::Message;
use hookwire_proto::permission::Permission;
use hookwire_proto::subprotocol::{ClientMessage, Received, ServerMessage, Subprotocol};

use super::*;
use crate::effect::{Answer, Call, Dialect, Event};
use crate::input::{
    Command, Ending, PermissionOrder, Recovering, Reply, SimpleMode, UpstreamAnswer,
    WebPubSubRequest,
};

const SECOND: u64 = 1_000;

/// A hub `chat` whose events go to one handler, a hub `mute` without any, and the effects of the last input.
struct Bench {
    hub: Hub,
    now: u64,
    effects: Vec<Effect>,
    connections: u8,
}

/// A client that is to come in.
struct Client {
    hub: &'static str,
    user: Option<&'static str>,
    offers: &'static [&'static str],
    roles: &'static [&'static str],
    groups: &'static [&'static str],
    mode: SimpleMode,
    has_token: bool,
}

impl Default for Client {
    fn default() -> Self {
        Self {
            hub: "mute",
            user: Some("ann"),
            offers: &["json.webpubsub.azure.v1"],
            roles: &["webpubsub.joinLeaveGroup", "webpubsub.sendToGroup"],
            groups: &[],
            mode: SimpleMode::SendEvent,
            has_token: true,
        }
    }
}

const RELIABLE: &[&str] = &["json.reliable.webpubsub.azure.v1"];

fn hub_name(name: &str) -> HubName {
    HubName::parse(name).unwrap()
}

fn group(name: &str) -> GroupName {
    GroupName::parse(name).unwrap()
}

impl Bench {
    fn new() -> Self {
        let document = HubDocument {
            event_handlers: vec![EventHandlerDocument {
                url_template: "http://u/{event}".to_owned(),
                user_event_pattern: Some("*".to_owned()),
                system_events: ["connect", "connected", "disconnected"].map(str::to_owned).to_vec(),
                ..EventHandlerDocument::default()
            }],
            group_presence_events: Some(PresenceDocument {
                event_names: vec!["joined".to_owned(), "left".to_owned()],
                group_filters: vec!["seen*".to_owned()],
            }),
            ..HubDocument::default()
        };
        let chat = Arc::new(HubSettings::parse(&document).unwrap());
        let hubs = HubsSettings {
            defaults: Arc::default(),
            hubs: BTreeMap::from([(hub_name("chat"), chat)]),
        };
        let mut bench = Self { hub: Hub::default(), now: 0, effects: Vec::new(), connections: 0 };
        bench.input(Input::Settings(Arc::new(Settings { hubs, ..Settings::default() })));
        bench
    }

    fn input(&mut self, input: Input) {
        self.effects.clear();
        self.hub.handle(self.now, input, &mut self.effects);
    }

    fn later(&mut self, milliseconds: u64) {
        self.now += milliseconds;
        self.effects.clear();
        self.hub.handle_timeout(self.now, &mut self.effects);
    }

    fn knock(&mut self, client: &Client) -> ConnectionId {
        self.connections += 1;
        let id = ConnectionId::new(1, 0, [self.connections; 16]);
        let owned =
            |items: &[&str]| items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
        let request = WebPubSubRequest {
            has_token: client.has_token,
            roles: owned(client.roles),
            groups: client.groups.iter().map(|name| group(name)).collect(),
            mode: client.mode.clone(),
            request: Arc::new(ConnectRequest {
                subprotocols: owned(client.offers),
                ..ConnectRequest::default()
            }),
        };
        let connecting = Connecting {
            id,
            hub: hub_name(client.hub),
            user: client.user.map(|user| UserId::parse(user).unwrap()),
            subprotocols: owned(client.offers),
            door: DoorRequest::WebPubSub(Box::new(request)),
        };
        self.input(Input::Connecting { answer_to: Ticket(7), connecting: Box::new(connecting) });
        id
    }

    fn enter(&mut self, client: &Client) -> (Slot, ConnectionId) {
        let id = self.knock(client);
        if client.hub == "chat" {
            let call = self.call().id;
            self.answer(call, 204, "");
            while let Some(call) = self.calls().first().map(|call| call.id) {
                self.answer(call, 200, "");
            }
        }
        (self.hub.slot(&id).expect("it is in"), id)
    }

    fn calls(&self) -> Vec<Call> {
        let calls = self.effects.iter().filter_map(|effect| match effect {
            Effect::Call(call) => Some(call.clone()),
            _ => None,
        });
        calls.collect()
    }

    fn call(&self) -> Call {
        let mut calls = self.calls();
        assert_eq!(calls.len(), 1, "{:?}", self.effects);
        calls.remove(0)
    }

    fn answer(&mut self, call: CallId, status: u16, body: &'static str) {
        self.answer_with(
            call,
            UpstreamAnswer {
                status,
                content_type: Some("text/plain".to_owned()),
                body: Bytes::from_static(body.as_bytes()),
                ..UpstreamAnswer::default()
            },
        );
    }

    fn answer_with(&mut self, call: CallId, answer: UpstreamAnswer) {
        let reply = Reply::Answered(Box::new(answer));
        self.input(Input::UpstreamReplied { call, reply });
    }

    fn ask(&mut self, slot: Slot, message: &ClientMessage) {
        let message = Subprotocol::Json.encode_client(message);
        self.input(Input::Request { slot, message });
    }

    fn command(&mut self, command: Command) -> Answer {
        self.input(Input::Command { answer_to: Ticket(0), command });
        match self.effects.pop() {
            Some(Effect::Answer { answer, .. }) => answer,
            other => panic!("{other:?}"),
        }
    }

    /// What a client that is spoken to alone was told by the last input.
    fn told(&self, to: Slot) -> Vec<ServerMessage> {
        let told = self.effects.iter().filter_map(|effect| match effect {
            Effect::Tell { slot, message } if *slot == to => {
                match Subprotocol::Json.decode_server(message).unwrap() {
                    Received::Message(message) => Some(message),
                    other => panic!("{other:?}"),
                }
            }
            _ => None,
        });
        told.collect()
    }

    /// The texts of the messages that reach each slot by the last input, walked as the edge does.
    fn heard(&mut self) -> Vec<(Slot, String)> {
        let mut heard = Vec::new();
        let effects = std::mem::take(&mut self.effects);
        let text = |content: &Content| {
            String::from_utf8(content.publication().data.bytes.to_vec()).unwrap()
        };
        for effect in &effects {
            match effect {
                Effect::Deliver { set, form, except, content } => {
                    for slot in self.hub.members(*set, *form) {
                        if !except.contains(slot) {
                            heard.push((*slot, text(content)));
                        }
                    }
                }
                Effect::DeliverTo { slots, content, .. } => {
                    heard.extend(slots.iter().map(|slot| (*slot, text(content))));
                }
                Effect::Send { slot, content, .. } => heard.push((*slot, text(content))),
                Effect::Sequenced { slots } => {
                    for slot in slots {
                        let mut chunks = Vec::new();
                        self.hub.take_unsent(*slot, &mut chunks);
                        for pair in chunks.chunks(2) {
                            heard.push((*slot, String::from_utf8_lossy(&pair[1]).into_owned()));
                        }
                    }
                }
                _ => {}
            }
        }
        self.effects = effects;
        heard
    }
}

fn join(name: &str, ack_id: Option<u64>) -> ClientMessage {
    ClientMessage::JoinGroup { group: group(name), ack_id }
}

fn post(name: &str, text: &str, ack_id: Option<u64>, no_echo: bool) -> ClientMessage {
    ClientMessage::SendToGroup {
        group: group(name),
        ack_id,
        no_echo,
        ttl_seconds: None,
        data: Data::text(text),
        metadata: Metadata::default(),
    }
}

fn event(name: &str, ack_id: Option<u64>) -> ClientMessage {
    let (event, data, metadata) = (name.to_owned(), Data::text("x"), Metadata::default());
    ClientMessage::Event { event, ack_id, data, metadata }
}

fn ack(ack_id: u64, error: Option<&str>) -> (u64, Option<String>) {
    (ack_id, error.map(str::to_owned))
}

fn acks(told: &[ServerMessage]) -> Vec<(u64, Option<String>)> {
    let acks = told.iter().filter_map(|message| match message {
        ServerMessage::Ack { ack_id, error } => {
            Some((*ack_id, error.as_ref().map(|error| error.name.clone())))
        }
        _ => None,
    });
    acks.collect()
}

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

fn recovering(id: ConnectionId, token: &str) -> Input {
    let recovering = Recovering {
        id,
        hub: hub_name("mute"),
        subprotocols: vec![RELIABLE[0].to_owned()],
        token: token.to_owned(),
    };
    Input::Recovering { answer_to: Ticket(9), recovering: Box::new(recovering) }
}

fn token(told: &[ServerMessage]) -> String {
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
