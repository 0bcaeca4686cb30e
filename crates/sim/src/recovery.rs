//! Reliable clients whose transports break at any moment, in virtual time: what they receive against what was published.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "whatever is not part of these histories is a finding"
)]

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use hookwire_hub::{
    Connecting, DoorRequest, Effect, Ending, Event, Hub, Input, Recovering, RecoverySettings,
    Settings, SimpleMode, Slot, Ticket, WebPubSubRequest,
};
use hookwire_proto::cloud_event::ConnectRequest;
use hookwire_proto::connection::{Connection, Event as WireEvent, Incoming};
use hookwire_proto::deflate::{Compression, Deflater, Window};
use hookwire_proto::envelope::{Content, Envelope, SequencedFrames, Target, encode_message};
use hookwire_proto::frame::Role;
use hookwire_proto::handler::{EventHandlerDocument, HubDocument, HubSettings, HubsSettings};
use hookwire_proto::message::Message;
use hookwire_proto::name::{ConnectionId, GroupName, HubName};
use hookwire_proto::subprotocol::{ClientMessage, Received, ServerMessage, Subprotocol};

/// Messages that a connection may leave without an ack: few, so that random histories reach the limit.
pub const UNACKNOWLEDGED_MAX: usize = 12;

/// How long a connection waits for its client, in milliseconds.
pub const RETENTION_MS: u64 = 30_000;

/// The same after a close frame without a status.
pub const RETENTION_WITHOUT_STATUS_MS: u64 = 3_000;

/// Longest message on the wire.
const MESSAGE_BYTES_MAX: usize = 10_000;

/// What a history is made of. Numbers name clients and shards.
#[derive(Debug, Clone)]
pub enum Act {
    /// A client of the group connects.
    Connect {
        /// Its shard.
        shard: usize,
        /// It speaks protobuf instead of JSON.
        is_protobuf: bool,
    },
    /// The application sends the next number to the group.
    Publish,
    /// A client reads what is on its wire, at most so many messages.
    Read {
        /// Which.
        client: usize,
        /// How many.
        messages: usize,
    },
    /// A client acknowledges what it has read.
    Acknowledge {
        /// Which.
        client: usize,
    },
    /// A client's transport breaks; what is on its wire is lost.
    Cut {
        /// Which.
        client: usize,
    },
    /// A client closes.
    Close {
        /// Which.
        client: usize,
        /// With this status, or none.
        status: Option<u16>,
    },
    /// A client comes back for its connection, whether the service has noticed the loss or not.
    Recover {
        /// Which.
        client: usize,
    },
    /// Time passes.
    Wait {
        /// Milliseconds.
        time: u64,
    },
}

/// Shards, clients and what should have come of it.
#[derive(Debug)]
pub struct Recovery {
    now: u64,
    hub: HubName,
    group: GroupName,
    shards: Vec<Hub>,
    deflater: Deflater,
    /// Who has messages that were not put on its wire yet, as shards leave them with the hub until the end of a turn.
    unsent: BTreeSet<(usize, Slot)>,
    clients: Vec<Client>,
    published: u64,
    disconnected: Vec<ConnectionId>,
}

#[derive(Debug)]
struct Client {
    id: ConnectionId,
    shard: usize,
    subprotocol: Subprotocol,
    slot: Slot,
    token: String,
    /// Frames that are written and not yet read; `None`: there is no transport.
    wire: Option<VecDeque<Bytes>>,
    connection: Connection,
    largest: u64,
    received: Vec<u64>,
    /// Its share of the model: what was published to it.
    expected: Vec<u64>,
    acknowledged: u64,
    fate: Fate,
}

/// What a client's transport says about compression: every other one is for it.
fn window(transport: usize) -> Option<Window> {
    transport.is_multiple_of(2).then_some(Window::FULL)
}

/// Where the model says that a connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Connected,
    Waiting { until: u64 },
    Over,
}

impl Recovery {
    /// Returns `shards` empty shards.
    ///
    /// # Panics
    /// Never: the names in it are good.
    pub fn new(shards: usize) -> Self {
        let document = HubDocument {
            event_handlers: vec![EventHandlerDocument {
                url_template: "http://upstream/{event}".to_owned(),
                system_events: vec!["disconnected".to_owned()],
                ..EventHandlerDocument::default()
            }],
            ..HubDocument::default()
        };
        let mut defaults = HubSettings::parse(&document).expect("the handler is a good one");
        defaults.compression = Some(Compression { min_bytes: 0, ..Compression::default() });
        let settings = Arc::new(Settings {
            hubs: HubsSettings { defaults: Arc::new(defaults), ..HubsSettings::default() },
            recovery: RecoverySettings {
                retention_ms: RETENTION_MS,
                retention_without_status_ms: RETENTION_WITHOUT_STATUS_MS,
                messages_max: UNACKNOWLEDGED_MAX,
                ..RecoverySettings::default()
            },
            ..Settings::default()
        });
        let mut world = Self {
            now: 1_000,
            hub: HubName::parse("sim").expect("the name is a good one"),
            group: GroupName::parse("g").expect("the name is a good one"),
            shards: (0..shards).map(|_| Hub::default()).collect(),
            clients: Vec::new(),
            deflater: Deflater::default(),
            unsent: BTreeSet::new(),
            published: 0,
            disconnected: Vec::new(),
        };
        for shard in 0..shards {
            world.handle(shard, Input::Settings(settings.clone()));
        }
        world
    }

    /// Performs one act.
    ///
    /// # Panics
    /// When a shard does what the model does not expect: that is the finding.
    pub fn act(&mut self, act: &Act) {
        match *act {
            Act::Connect { shard, is_protobuf } => {
                self.connect(shard % self.shards.len(), is_protobuf);
            }
            Act::Publish => self.publish(),
            Act::Read { client, messages } => {
                if let Some(client) = self.pick(client) {
                    self.end_turn();
                    for _ in 0..messages {
                        self.clients[client].read_one();
                    }
                }
            }
            Act::Acknowledge { client } => {
                if let Some(client) = self.pick(client)
                    && self.clients[client].wire.is_some()
                {
                    let of = &mut self.clients[client];
                    of.acknowledged = of.largest;
                    let ack = ClientMessage::SequenceAck { sequence_id: of.largest };
                    let message = of.subprotocol.encode_client(&ack);
                    let (shard, slot) = (of.shard, of.slot);
                    self.handle(shard, Input::Request { slot, message });
                }
            }
            Act::Cut { client } => {
                if let Some(client) = self.pick(client)
                    && self.clients[client].wire.take().is_some()
                {
                    let (shard, slot) = (self.clients[client].shard, self.clients[client].slot);
                    self.clients[client].waits(self.now + RETENTION_MS);
                    self.handle(shard, Input::Released { slot });
                }
            }
            Act::Close { client, status } => {
                if let Some(client) = self.pick(client)
                    && self.clients[client].wire.take().is_some()
                {
                    const NORMAL: u16 = 1_000;
                    let of = &mut self.clients[client];
                    match status {
                        Some(NORMAL) => of.fate = Fate::Over,
                        None => of.waits(self.now + RETENTION_WITHOUT_STATUS_MS),
                        Some(_) => of.waits(self.now + RETENTION_MS),
                    }
                    let (shard, slot) = (of.shard, of.slot);
                    let ending = Ending::ClosedByClient(status);
                    self.handle(shard, Input::Ended { slot, ending });
                    self.handle(shard, Input::Released { slot });
                }
            }
            Act::Recover { client } => {
                if let Some(client) = self.pick(client) {
                    self.recover(client);
                }
            }
            Act::Wait { time } => self.wait(time),
        }
        self.check();
    }

    /// Brings every client back that can come back, lets all read to the end, and looks at what they have.
    ///
    /// # Panics
    /// When a message is missing, doubled or out of order, or a connection has not exactly one disconnected event.
    pub fn finish(&mut self) {
        for client in 0..self.clients.len() {
            self.recover(client);
            while self.clients[client].read_one() {}
            let of = &self.clients[client];
            if of.fate == Fate::Connected {
                assert_eq!(of.received, of.expected, "client {client} misses nothing");
            }
        }
        self.wait(RETENTION_MS);
        for client in 0..self.clients.len() {
            self.act(&Act::Close { client, status: Some(1_000) });
        }
        let mut expected: Vec<_> = self.clients.iter().map(|client| client.id).collect();
        expected.sort_unstable();
        self.disconnected.sort_unstable();
        assert_eq!(self.disconnected, expected, "each has one disconnected event");
        for shard in &self.shards {
            assert_eq!((shard.open_connections(), shard.detached_connections()), (0, 0));
            assert!(shard.sets() == 0 && shard.poll_timeout().is_none());
        }
    }

    fn pick(&self, client: usize) -> Option<usize> {
        client.checked_rem(self.clients.len())
    }

    fn check(&self) {
        for client in &self.clients {
            let so_far = &client.expected[..client.received.len().min(client.expected.len())];
            assert_eq!(client.received, so_far, "once each, in order");
            let is_open = self.shards[client.shard].slot(&client.id).is_some();
            assert_eq!(is_open, client.fate != Fate::Over, "{client:?}");
        }
    }

    fn connect(&mut self, shard: usize, is_protobuf: bool) {
        let number = self.clients.len();
        let mut random = [0; 16];
        random[..8].copy_from_slice(&(number as u64).to_be_bytes());
        let id = ConnectionId::new(1, u16::try_from(shard).expect("few shards"), random);
        let subprotocol =
            if is_protobuf { Subprotocol::ProtobufReliable } else { Subprotocol::JsonReliable };
        self.clients.push(Client {
            id,
            shard,
            subprotocol,
            slot: Slot(u32::MAX),
            token: String::new(),
            wire: None,
            connection: Connection::new(Role::Client),
            largest: 0,
            received: Vec::new(),
            expected: Vec::new(),
            acknowledged: 0,
            fate: Fate::Connected,
        });
        let request = WebPubSubRequest {
            has_token: true,
            roles: Vec::new(),
            groups: vec![self.group.clone()],
            mode: SimpleMode::SendEvent,
            request: Arc::new(ConnectRequest::default()),
        };
        let connecting = Box::new(Connecting {
            id,
            hub: self.hub.clone(),
            user: None,
            subprotocols: vec![subprotocol.name().to_owned()],
            deflate: window(number),
            door: DoorRequest::WebPubSub(Box::new(request)),
        });
        self.handle(shard, Input::Connecting { answer_to: Ticket(number as u64), connecting });
        while self.clients[number].read_one() {}
        assert!(!self.clients[number].token.is_empty(), "the first message brings a token");
    }

    fn publish(&mut self) {
        let number = self.published;
        self.published += 1;
        for client in &mut self.clients {
            if client.fate == Fate::Over {
                continue;
            }
            let unacknowledged = client.expected.len() as u64 - client.acknowledged;
            if UNACKNOWLEDGED_MAX as u64 <= unacknowledged {
                client.fate = Fate::Over;
            } else {
                client.expected.push(number);
            }
        }
        let target = Target::Group(self.group.clone());
        let content = Content::new(Message::text(number.to_string()));
        for shard in 0..self.shards.len() {
            let envelope = Envelope::new(self.hub.clone(), target.clone(), content.clone());
            self.handle(shard, Input::Remote(envelope));
        }
        for client in &mut self.clients {
            if client.fate == Fate::Over {
                client.wire = None;
            }
        }
    }

    fn recover(&mut self, client: usize) {
        let of = &self.clients[client];
        let recovering = Recovering {
            id: of.id,
            hub: self.hub.clone(),
            subprotocols: vec![of.subprotocol.name().to_owned()],
            // A new transport may be one that compresses, or the other way round.
            deflate: window(client + self.disconnected.len() + of.received.len()),
            token: of.token.clone(),
        };
        let shard = of.shard;
        let input = Input::Recovering { answer_to: Ticket(0), recovering: Box::new(recovering) };
        self.handle(shard, input);
        // Its socket comes in a later turn.
        self.end_turn();
        let of = &mut self.clients[client];
        if of.fate == Fate::Over {
            assert!(of.wire.is_none(), "what is over does not come back");
        } else {
            assert!(of.wire.is_some(), "it comes back within the time");
            of.fate = Fate::Connected;
        }
    }

    fn wait(&mut self, time: u64) {
        self.now += time;
        for client in &mut self.clients {
            if matches!(client.fate, Fate::Waiting { until } if until <= self.now) {
                client.fate = Fate::Over;
            }
        }
        for shard in 0..self.shards.len() {
            let mut effects = Vec::new();
            self.shards[shard].handle_timeout(self.now, &mut effects);
            self.perform(shard, effects);
        }
    }

    fn handle(&mut self, shard: usize, input: Input) {
        let mut effects = Vec::new();
        self.shards[shard].handle(self.now, input, &mut effects);
        self.perform(shard, effects);
    }

    fn perform(&mut self, shard: usize, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Call(call) => {
                    assert!(matches!(call.event, Event::Disconnected { .. }));
                    self.disconnected.push(call.connection);
                }
                Effect::Admit { slot, id, deflate, .. }
                | Effect::Readmit { slot, id, deflate, .. } => {
                    let incoming =
                        if deflate.is_some() { Incoming::Deflated } else { Incoming::Plain };
                    self.unsent.remove(&(shard, slot));
                    let client = self.client_of(&id);
                    client.slot = slot;
                    client.wire = Some(VecDeque::new());
                    client.connection = Connection::with_incoming(Role::Client, incoming);
                }
                Effect::Tell { slot, message } => {
                    self.write_unsent(shard, slot);
                    let frames = encode_message(message.kind, &message.data);
                    self.write(shard, slot, frames);
                }
                Effect::Sequenced { slots } => {
                    self.unsent.extend(slots.into_iter().map(|slot| (shard, slot)));
                }
                Effect::Close { slot, .. } => {
                    // The edge forgets the socket some time after.
                    let mut effects = Vec::new();
                    self.shards[shard].handle(self.now, Input::Released { slot }, &mut effects);
                    assert!(effects.is_empty(), "it is over already");
                }
                Effect::NotRecovered { .. } => {}
                other => panic!("not part of these histories: {other:?}"),
            }
        }
    }

    /// Puts everything that is left for the end of a turn on the wires.
    fn end_turn(&mut self) {
        while let Some((shard, slot)) = self.unsent.first().copied() {
            self.write_unsent(shard, slot);
        }
    }

    fn write_unsent(&mut self, shard: usize, slot: Slot) {
        if self.unsent.remove(&(shard, slot)) {
            let mut frames = SequencedFrames::default();
            self.shards[shard].take_unsent(slot, &mut self.deflater, &mut frames);
            for (head, tail) in frames.iter() {
                self.write(shard, slot, [head, tail].concat().into());
            }
        }
    }

    fn write(&mut self, shard: usize, slot: Slot, frames: Bytes) {
        let of = |client: &&mut Client| {
            client.shard == shard && client.slot == slot && client.wire.is_some()
        };
        let client = self.clients.iter_mut().find(of).expect("a client has this slot");
        client.wire.as_mut().expect("it has a transport").push_back(frames);
    }

    fn client_of(&mut self, id: &ConnectionId) -> &mut Client {
        self.clients.iter_mut().find(|client| client.id == *id).expect("it is one of ours")
    }
}

impl Client {
    fn waits(&mut self, until: u64) {
        self.fate = Fate::Waiting { until };
    }

    /// Reads one message from the wire, as the official clients do: what is not newer than the newest is dropped. Returns whether there
    /// was one.
    fn read_one(&mut self) -> bool {
        let Some(frames) = self.wire.as_mut().and_then(VecDeque::pop_front) else { return false };
        let mut events = Vec::new();
        self.connection
            .handle_input(&mut frames.to_vec(), MESSAGE_BYTES_MAX, &mut events)
            .expect("a server's frames are good");
        for event in events {
            let WireEvent::Message(message) = event else { panic!("{event:?}") };
            match self.subprotocol.decode_server(&message).expect("a server's messages are good") {
                Received::Message(ServerMessage::Connected { reconnection_token, .. }) => {
                    self.token = reconnection_token.expect("a reliable client gets one");
                }
                Received::Publication { publication, sequence_id } => {
                    let id = sequence_id.expect("a reliable client gets one");
                    if self.largest < id {
                        assert_eq!(id, self.largest + 1, "no gaps");
                        self.largest = id;
                        let text = std::str::from_utf8(&publication.data.bytes);
                        let number = text.expect("numbers are text").parse();
                        self.received.push(number.expect("numbers are sent"));
                    }
                }
                other => panic!("not part of these histories: {other:?}"),
            }
        }
        true
    }
}
