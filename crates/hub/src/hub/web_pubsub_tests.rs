//! The rules of Web PubSub connections on one shard, each by itself; `crates/sim` tests them together.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "a test looks for what concerns it among all effects"
)]

mod admission;
mod recovery;
mod requests;
mod sending;

use std::collections::BTreeMap;

use bytes::Bytes;
use hookwire_proto::cloud_event::ConnectRequest;
use hookwire_proto::data::{Data, DataKind, Metadata};
use hookwire_proto::deflate::{Compression, Deflate, Deflater, Window};
use hookwire_proto::envelope::{Content, Delivery, Envelope, SequencedFrames, Target};
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
    connections: u32,
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
    window: Option<Window>,
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
            window: None,
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
        if let Some(Effect::BeforeChange { .. }) = self.effects.last()
            && let Some(Effect::BeforeChange { slot, request }) = self.effects.pop()
        {
            self.hub.handle(self.now, Input::Change { slot, request }, &mut self.effects);
        }
    }

    fn later(&mut self, milliseconds: u64) {
        self.now += milliseconds;
        self.effects.clear();
        self.hub.handle_timeout(self.now, &mut self.effects);
    }

    fn knock(&mut self, client: &Client) -> ConnectionId {
        self.connections += 1;
        let id = ConnectionId::new(1, 0, u128::from(self.connections).to_be_bytes());
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
            deflate: client.window,
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
                        let mut frames = SequencedFrames::default();
                        self.hub.take_unsent(*slot, &mut Deflater::default(), &mut frames);
                        for (_, tail) in frames.iter() {
                            heard.push((*slot, String::from_utf8_lossy(tail).into_owned()));
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

fn start_stream(id: &str, name: &str) -> ClientMessage {
    ClientMessage::StartStream {
        group: group(name),
        stream_id: id.to_owned(),
        idle_timeout_ms: Some(1_000),
        no_echo: false,
        ttl_seconds: None,
        metadata: Metadata::default(),
    }
}

fn piece(stream_id: &str, sequence_id: u64, text: &str) -> ClientMessage {
    let data = Some(Data::text(text));
    ClientMessage::StreamData {
        stream_id: stream_id.to_owned(),
        sequence_id: Some(sequence_id),
        data,
    }
}

fn show_state(name: &str, value: &str, ack_id: Option<u64>) -> ClientMessage {
    let state = Some(BTreeMap::from([("k".to_owned(), value.to_owned())]));
    ClientMessage::SetGroupState { group: group(name), ack_id, state }
}

fn watch_states(name: &str, ack_id: Option<u64>) -> ClientMessage {
    ClientMessage::SubscribeGroupState { group: group(name), ack_id }
}

/// Of each group state that a client was told: whether it is a snapshot, and the values of `k`.
fn states(told: &[ServerMessage]) -> Vec<(bool, Vec<Option<String>>)> {
    let items = told.iter().filter_map(|message| match message {
        ServerMessage::GroupState { is_snapshot, items, .. } => Some((
            *is_snapshot,
            items.iter().map(|item| item.state.as_ref().map(|state| state["k"].clone())).collect(),
        )),
        _ => None,
    });
    items.collect()
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
