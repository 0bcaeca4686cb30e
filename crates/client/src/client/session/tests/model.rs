//! A session against a service that is simpler than the real one, over a wire that breaks: whatever happens, messages come once and in
//! order, and requests are carried out at most once and answered exactly once.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;

/// One thing that happens.
#[derive(Debug, Clone)]
enum Step {
    /// The service sends a message.
    Publish,
    /// The client raises an event.
    Event,
    /// The client joins one of a few groups.
    Join(u8),
    /// The client leaves one of them.
    Leave(u8),
    /// The first message on its way to the service arrives.
    Up,
    /// The first message on its way to the client arrives.
    Down,
    /// The wire breaks; what is on it is gone.
    Cut,
    /// The service forgets the connection.
    Forget,
    /// The attempt to open a transport succeeds or not.
    Dial(bool),
    /// Time passes, in milliseconds.
    Pass(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Publish),
        3 => Just(Step::Event),
        2 => (0_u8..3).prop_map(Step::Join),
        1 => (0_u8..3).prop_map(Step::Leave),
        6 => Just(Step::Up),
        6 => Just(Step::Down),
        2 => Just(Step::Cut),
        1 => Just(Step::Forget),
        4 => proptest::bool::weighted(0.8).prop_map(Step::Dial),
        4 => (1_u64..3_000).prop_map(Step::Pass),
        1 => (3_000_u64..60_000).prop_map(Step::Pass),
    ];
    proptest::collection::vec(step, 0..120)
}

/// A connection at the service.
#[derive(Debug, Default)]
struct Connection {
    is_gone: bool,
    lost_at: Option<Instant>,
    sent: Vec<String>,
    unacknowledged: VecDeque<u64>,
    done: BTreeSet<u64>,
    groups: BTreeSet<String>,
}

#[derive(Debug)]
enum Wire {
    None,
    Dialing(Option<Lost>),
    Open { connection: usize },
}

struct World {
    bench: Bench,
    wire: Wire,
    up: VecDeque<Message>,
    /// Messages, then perhaps the end.
    down: VecDeque<Result<Message, CloseFrame>>,
    connections: Vec<Connection>,
    /// How often each event was carried out.
    carried_out: BTreeMap<String, usize>,
    asked: u32,
    kinds: BTreeMap<u32, &'static str>,
    answered: BTreeMap<u32, String>,
    /// What each connection was told, in order.
    told: Vec<Vec<String>>,
    /// What the client has been told it is in.
    member: BTreeMap<String, bool>,
    group_of: BTreeMap<u32, (String, bool)>,
    /// A group could not be joined again.
    was_refused: bool,
}

impl World {
    fn new() -> Self {
        let config = config(Subprotocol::JsonReliable);
        let now = Instant::now();
        let mut bench = Bench { session: Session::new(config, now), now, effects: Vec::new() };
        bench.session.start(&mut bench.effects);
        let mut world = Self {
            bench,
            wire: Wire::None,
            up: VecDeque::new(),
            down: VecDeque::new(),
            connections: Vec::new(),
            carried_out: BTreeMap::new(),
            asked: 0,
            kinds: BTreeMap::new(),
            answered: BTreeMap::new(),
            told: Vec::new(),
            member: BTreeMap::new(),
            group_of: BTreeMap::new(),
            was_refused: false,
        };
        world.perform();
        // The first connection decides whether there is a client at all.
        world.step(&Step::Dial(true));
        world.step(&Step::Down);
        world
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Publish => self.publish(),
            Step::Event => {
                let label = format!("event {}", self.asked);
                self.ask(event(&label), "event");
            }
            Step::Join(at) => {
                let name = format!("g{at}");
                self.group_of.insert(self.asked, (name.clone(), true));
                self.ask(join(&name), "group");
            }
            Step::Leave(at) => {
                let name = format!("g{at}");
                self.group_of.insert(self.asked, (name.clone(), false));
                self.ask(leave(&name), "group");
            }
            Step::Up => self.up(),
            Step::Down => self.down(),
            Step::Cut => self.cut(),
            Step::Forget => self.forget(),
            Step::Dial(is_good) => self.dial(*is_good),
            Step::Pass(millis) => self.pass(Duration::from_millis(*millis)),
        }
        self.perform();
    }

    fn ask(&mut self, message: ClientMessage, kind: &'static str) {
        let reply = self.asked;
        self.asked += 1;
        self.kinds.insert(reply, kind);
        self.bench.ask(message, Ack::Own, reply);
    }

    /// Time passes by what is due in it.
    fn pass(&mut self, time: Duration) {
        let end = self.bench.now + time;
        while let Some(at) = self.bench.session.poll_timeout().filter(|at| *at <= end) {
            self.bench.now = self.bench.now.max(at);
            let now = self.bench.now;
            self.bench.session.handle_timeout(now, &mut self.bench.effects);
            self.perform();
        }
        self.bench.now = end;
    }

    fn publish(&mut self) {
        // To whoever is connected or may come back.
        let now = self.bench.now;
        let Some((at, connection)) = self.connections.iter_mut().enumerate().next_back() else {
            return;
        };
        if connection.is_gone || connection.lost_at.is_some_and(|at| at + RECOVERY_TIME <= now) {
            return;
        }
        let id = connection.sent.len() as u64 + 1;
        let text = format!("{at}/{id}");
        connection.sent.push(text);
        connection.unacknowledged.push_back(id);
        if matches!(self.wire, Wire::Open { connection } if connection == at) {
            let message = self.message(at, id);
            self.down.push_back(Ok(message));
        }
    }

    fn message(&self, connection: usize, id: u64) -> Message {
        let publication = Publication {
            source: Source::Server,
            data: Data::text(
                self.connections[connection].sent[usize::try_from(id).unwrap() - 1].clone(),
            ),
            metadata: Metadata::default(),
            stream: None,
        };
        let data = Subprotocol::JsonReliable.encode_publication(&publication, Some(id));
        Message { kind: Subprotocol::JsonReliable.message_kind(), data }
    }

    fn say(&mut self, message: &ServerMessage) {
        self.down.push_back(Ok(Subprotocol::JsonReliable.encode_server(message)));
    }

    fn up(&mut self) {
        let Some(message) = self.up.pop_front() else { return };
        let Wire::Open { connection: at } = self.wire else { return };
        let message = Subprotocol::JsonReliable.decode_client(&message).unwrap();
        // A client that will be refused has not heard of it yet.
        let Some(connection) = self.connections.get_mut(at) else { return };
        let (ack_id, label) = match message {
            ClientMessage::SequenceAck { sequence_id } => {
                connection.unacknowledged.retain(|id| sequence_id < *id);
                return;
            }
            ClientMessage::Event { ack_id, data, .. } => (ack_id, Some(text(&data.bytes))),
            ClientMessage::JoinGroup { group, ack_id } => {
                if ack_id.is_some_and(|id| !connection.done.contains(&id)) {
                    connection.groups.insert(group.to_string());
                }
                (ack_id, None)
            }
            ClientMessage::LeaveGroup { group, ack_id } => {
                if ack_id.is_some_and(|id| !connection.done.contains(&id)) {
                    connection.groups.remove(group.as_str());
                }
                (ack_id, None)
            }
            other @ (ClientMessage::SendToGroup { .. }
            | ClientMessage::StartStream { .. }
            | ClientMessage::StreamData { .. }
            | ClientMessage::EndStream { .. }
            | ClientMessage::Invoke { .. }
            | ClientMessage::CancelInvocation { .. }
            | ClientMessage::InvokeResponse
            | ClientMessage::SetGroupState { .. }
            | ClientMessage::SubscribeGroupState { .. }
            | ClientMessage::UnsubscribeGroupState { .. }
            | ClientMessage::Ping) => panic!("{other:?} was not expected"),
        };
        let ack_id = ack_id.unwrap();
        let is_first = connection.done.insert(ack_id);
        if let (true, Some(label)) = (is_first, label) {
            *self.carried_out.entry(label).or_default() += 1;
        }
        let duplicate = NamedError { name: "Duplicate".to_owned(), message: String::new() };
        self.say(&ServerMessage::Ack { ack_id, error: (!is_first).then_some(duplicate) });
    }

    fn down(&mut self) {
        let now = self.bench.now;
        match self.down.pop_front() {
            None => {}
            Some(Ok(message)) => {
                self.bench.session.handle_message(now, &message, &mut self.bench.effects);
            }
            Some(Err(close)) => {
                self.detach();
                self.bench.lose(close);
            }
        }
    }

    fn cut(&mut self) {
        if matches!(self.wire, Wire::Open { .. }) {
            self.detach();
            self.bench.lose(None);
        }
    }

    fn detach(&mut self) {
        if let Wire::Open { connection } = self.wire
            && let Some(connection) = self.connections.get_mut(connection)
        {
            connection.lost_at = Some(self.bench.now);
        }
        self.wire = Wire::None;
        self.up.clear();
        self.down.clear();
    }

    fn forget(&mut self) {
        if let Some(connection) = self.connections.last_mut() {
            connection.is_gone = true;
        }
        if matches!(self.wire, Wire::Open { .. }) {
            self.up.clear();
            self.down.push_back(Err(close(1008, "")));
        }
    }

    fn dial(&mut self, is_good: bool) {
        let Wire::Dialing(lost) = &self.wire else { return };
        let lost = lost.clone();
        self.wire = Wire::None;
        if !is_good {
            self.bench.refuse(StatusCode::BAD_GATEWAY);
            return;
        }
        self.bench.open();
        let now = self.bench.now;
        let at = if let Some(lost) = &lost {
            let at: usize = lost.connection_id.parse().unwrap();
            let known = &self.connections[at];
            if known.is_gone || known.lost_at.is_some_and(|at| at + RECOVERY_TIME <= now) {
                self.connections[at].is_gone = true;
                self.wire = Wire::Open { connection: usize::MAX };
                self.down.push_back(Err(close(1008, "")));
                return;
            }
            at
        } else {
            if let Some(before) = self.connections.last_mut() {
                before.is_gone = true;
            }
            self.connections.push(Connection::default());
            self.told.push(Vec::new());
            self.connections.len() - 1
        };
        self.connections[at].lost_at = None;
        self.wire = Wire::Open { connection: at };
        self.say(&ServerMessage::Connected {
            connection_id: at.to_string(),
            user_id: None,
            reconnection_token: Some("proof".to_owned()),
        });
        let again: Vec<u64> = self.connections[at].unacknowledged.iter().copied().collect();
        for id in again {
            let message = self.message(at, id);
            self.down.push_back(Ok(message));
        }
    }

    fn perform(&mut self) {
        for effect in std::mem::take(&mut self.bench.effects) {
            match effect {
                Effect::Open(lost) => {
                    assert!(matches!(self.wire, Wire::None), "one transport at a time");
                    self.wire = Wire::Dialing(lost);
                }
                Effect::Drop => self.detach(),
                Effect::Write(message) => {
                    assert!(matches!(self.wire, Wire::Open { .. }), "nothing is written to nobody");
                    self.up.push_back(message);
                }
                Effect::Ping => self.bench.session.hear(self.bench.now),
                Effect::Close(code) => panic!("nobody stops the client: {}", code.get()),
                Effect::Settle(reply, outcome) => {
                    if let (Ok(_), Some((name, is_join))) = (&outcome, self.group_of.get(&reply)) {
                        self.member.insert(name.clone(), *is_join);
                    }
                    let before = self.answered.insert(reply, outcome_words(outcome));
                    assert_eq!(before, None, "{reply} is answered once");
                }
                Effect::Tell(ClientEvent::Server(message)) => {
                    let message = text(message.payload.bytes());
                    let at: usize = message.split('/').next().unwrap().parse().unwrap();
                    self.told[at].push(message);
                }
                Effect::Tell(ClientEvent::Stopped(why)) => panic!("the client gave up: {why:?}"),
                Effect::Tell(ClientEvent::RejoinFailed { .. }) => self.was_refused = true,
                Effect::Tell(_) => {}
            }
        }
    }

    /// The wire is whole from now on: everything comes to its end.
    fn calm_down(&mut self) {
        for _ in 0..200 {
            while !self.up.is_empty() || !self.down.is_empty() {
                self.step(&Step::Up);
                self.step(&Step::Down);
            }
            self.step(&Step::Dial(true));
            if self.up.is_empty() && self.down.is_empty() {
                self.step(&Step::Pass(500));
            }
        }
    }
}

/// As long as the session thinks.
const RECOVERY_TIME: Duration = RECOVERY_WINDOW;

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn messages_come_once_in_order_and_requests_are_carried_out_at_most_once(steps in steps()) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            for (connection, told) in world.connections.iter().zip(&world.told) {
                prop_assert_eq!(told, &connection.sent[..told.len()]);
            }
            prop_assert!(world.carried_out.values().all(|times| *times == 1));
        }
        world.calm_down();

        prop_assert!(world.bench.session.is_online());
        let (last, told) = (world.connections.last().unwrap(), world.told.last().unwrap());
        prop_assert_eq!(told, &last.sent, "nothing is missing on the connection that lives");
        prop_assert!(last.unacknowledged.is_empty(), "the service may forget all of it");
        prop_assert_eq!(world.answered.len(), world.kinds.len(), "everybody was answered");
        for (reply, outcome) in &world.answered {
            if world.kinds[reply] == "event" && outcome.starts_with("done") {
                prop_assert_eq!(world.carried_out.get(&format!("event {reply}")), Some(&1));
            }
        }
        // Whoever was told to be in a group is in it, on whatever connection; and the other way round, unless an answer never came.
        let is_sure = !world.was_refused
            && world.answered.iter().all(|(reply, outcome)| {
                world.kinds[reply] != "group" || outcome.starts_with("done")
            });
        for (name, is_member) in &world.member {
            if is_sure {
                prop_assert_eq!(last.groups.contains(name), *is_member, "{}", name);
            }
        }
    }
}
