//! Real hubs on several shards, with inboxes between a sender and them that are emptied in any order.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use hookwire_hub::{
    Answer, Call, CallId, ClientContext, Command, Connecting, DoorRequest, Effect, Hub, Input,
    MembershipChange, Reply, Settings, Slot, Ticket, UpstreamAnswer,
};
use hookwire_proto::envelope::{Content, Envelope, Shape, Target};
use hookwire_proto::message::Message;
use hookwire_proto::name::{ConnectionId, GroupName, HubName, UserId};
use hookwire_proto::template::{TemplateDocument, Templates, TemplatesDocument};

/// What a script can do. Numbers name connections, users, groups, shards and payloads.
#[derive(Debug, Clone)]
pub enum Step {
    /// A client of `user` connects on `shard`.
    Connect {
        /// Its user.
        user: usize,
        /// Its shard.
        shard: usize,
        /// How it wants its messages.
        shape: Shape,
    },
    /// A client leaves.
    End {
        /// Which of the connections made so far.
        connection: usize,
    },
    /// REST closes a connection.
    Close {
        /// Which.
        connection: usize,
    },
    /// A connection is added to a group.
    Join {
        /// Which.
        connection: usize,
        /// The group.
        group: usize,
    },
    /// A connection is removed from a group.
    Leave {
        /// Which.
        connection: usize,
        /// The group.
        group: usize,
    },
    /// A user moves into a group.
    JoinAsUser {
        /// The user.
        user: usize,
        /// The group.
        group: usize,
        /// For how many milliseconds; `None`: for ever.
        ttl: Option<u64>,
    },
    /// A user moves out of a group or of all.
    LeaveAsUser {
        /// The user.
        user: usize,
        /// The group; `None`: all.
        group: Option<usize>,
    },
    /// A message.
    Send(Receiver),
    /// A client sends a message to its upstream.
    Request {
        /// Which.
        connection: usize,
    },
    /// The upstream answers the oldest open call of a shard.
    Reply {
        /// The shard.
        shard: usize,
    },
    /// 250 ms go by for the oldest open call of a shard.
    Pass {
        /// The shard.
        shard: usize,
    },
    /// Time passes.
    Wait {
        /// Milliseconds.
        time: u64,
    },
}

/// Whom a message is for.
#[derive(Debug, Clone, Copy)]
pub enum Receiver {
    /// Everybody.
    Hub,
    /// A group.
    Group(usize),
    /// A user.
    User(usize),
    /// A connection.
    Connection(usize),
}

/// What came of a script.
#[derive(Debug, Default)]
pub struct Received {
    /// Payloads of REST sends by connection, in order of arrival.
    pub messages: BTreeMap<usize, Vec<usize>>,
    /// Events posted to the upstream by connection, in order.
    pub events: BTreeMap<usize, Vec<&'static str>>,
}

/// Several shards of one node and everything around them.
#[derive(Debug)]
pub struct World {
    now: u64,
    hub: HubName,
    shards: Vec<Shard>,
    ids: Vec<(ConnectionId, usize)>,
    numbers: BTreeMap<ConnectionId, usize>,
    payloads: usize,
    received: Received,
}

#[derive(Debug, Default)]
struct Shard {
    core: Hub,
    slots: BTreeMap<Slot, ConnectionId>,
    open: VecDeque<Call>,
    paused: BTreeSet<Slot>,
    answer: Option<Answer>,
}

impl World {
    /// Returns `shards` empty shards whose events all go to one upstream.
    ///
    /// # Panics
    /// Never: the names and templates in it are good.
    pub fn new(shards: usize) -> Self {
        let document = TemplatesDocument {
            templates: vec![TemplateDocument {
                url_template: "http://upstream/{hub}/{category}/{event}".to_owned(),
                ..TemplateDocument::default()
            }],
        };
        let templates = Templates::parse(&document).expect("the template is a good one");
        let settings = Arc::new(Settings { templates, ..Settings::default() });
        let mut world = Self {
            now: 1_000,
            hub: HubName::parse("sim").expect("the name is a good one"),
            shards: (0..shards).map(|_| Shard::default()).collect(),
            ids: Vec::new(),
            numbers: BTreeMap::new(),
            payloads: 0,
            received: Received::default(),
        };
        for shard in 0..shards {
            world.handle(shard, Input::Settings(settings.clone()));
        }
        world
    }

    /// Returns the connections made so far.
    pub fn connections(&self) -> usize {
        self.ids.len()
    }

    /// Returns what came of it all.
    pub const fn received(&self) -> &Received {
        &self.received
    }

    /// Returns whether nothing is left of ended connections in any shard: no set without a member, no call without an answer.
    pub fn is_empty(&self) -> bool {
        self.shards.iter().all(|shard| {
            shard.core.is_drained()
                && shard.core.sets() == 0
                && shard.core.waiting_bytes() == 0
                && shard.slots.is_empty()
        })
    }

    /// Performs one step and tells `model` the same.
    ///
    /// # Panics
    /// When a shard does what no input asked for.
    pub fn step(&mut self, step: &Step, model: &mut crate::Model) {
        match *step {
            Step::Connect { user, shard, shape } => {
                self.connect(user, shard % self.shards.len(), shape, model);
            }
            Step::End { connection } => {
                if let Some((shard, slot, number)) = self.find(connection) {
                    self.handle(shard, Input::Released { slot });
                    self.shards[shard].slots.remove(&slot);
                    model.end(number);
                }
            }
            Step::Close { connection } => {
                if let Some((id, number)) = self.id(connection) {
                    let (hub, reason) = (self.hub.clone(), "test".to_owned());
                    let found = self.ask(&Command::CloseConnection { hub, connection: id, reason });
                    assert_eq!(found, model.is_open(number));
                    model.end(number);
                }
            }
            Step::Join { connection, group } => {
                if let Some((id, number)) = self.id(connection) {
                    let (hub, group_name) = (self.hub.clone(), group_name(group));
                    let found = self.ask(&Command::AddConnectionToGroup {
                        hub,
                        connection: id,
                        group: group_name,
                    });
                    assert_eq!(found, model.is_open(number));
                    model.join(number, group);
                }
            }
            Step::Leave { connection, group } => {
                if let Some((id, number)) = self.id(connection) {
                    let (hub, group_name) = (self.hub.clone(), group_name(group));
                    self.ask(&Command::RemoveConnectionFromGroup {
                        hub,
                        connection: id,
                        group: group_name,
                    });
                    model.leave(number, group);
                }
            }
            Step::JoinAsUser { user, group, ttl } => {
                let expires = ttl.map(|ttl| self.now + ttl);
                self.membership(user, MembershipChange::Add { group: group_name(group), expires });
                model.join_as_user(user, group, ttl);
            }
            Step::LeaveAsUser { user, group } => {
                let change = match group {
                    Some(group) => MembershipChange::Remove { group: group_name(group) },
                    None => MembershipChange::RemoveAll,
                };
                self.membership(user, change);
                model.leave_as_user(user, group);
            }
            Step::Send(receiver) => self.send_step(receiver, model),
            Step::Request { connection } => {
                if let Some((shard, slot, _)) = self.find(connection)
                    && !self.shards[shard].paused.contains(&slot)
                {
                    let message = Message::binary(Bytes::from_static(b"request"));
                    self.handle(shard, Input::Request { slot, message });
                }
            }
            Step::Reply { shard } => self.reply(shard % self.shards.len()),
            Step::Pass { shard } => {
                let shard = shard % self.shards.len();
                if let Some(call) = self.shards[shard].open.front().map(|call| call.id) {
                    self.handle(shard, Input::UpstreamPassed { call });
                }
            }
            Step::Wait { time } => {
                self.now += time;
                model.wait(time);
                for shard in &mut self.shards {
                    if shard.core.poll_timeout().is_some_and(|due| due <= self.now) {
                        shard.core.handle_timeout(self.now, &mut Vec::new());
                    }
                }
            }
        }
    }

    fn send_step(&mut self, receiver: Receiver, model: &mut crate::Model) {
        match receiver {
            Receiver::Hub => {
                let payload = self.send(&Target::Hub);
                model.send(payload, |_, _| true);
            }
            Receiver::Group(group) => {
                let payload = self.send(&Target::Group(group_name(group)));
                model.send(payload, |model, connection| model.is_member(connection, group));
                let exists = self.exists(Target::Group(group_name(group)));
                assert_eq!(exists, (0..self.connections()).any(|at| model.is_member(at, group)));
            }
            Receiver::User(user) => {
                let payload = self.send(&Target::User(user_id(user)));
                model.send(payload, |model, connection| model.is_user(connection, user));
                let exists = self.exists(Target::User(user_id(user)));
                assert_eq!(exists, (0..self.connections()).any(|at| model.is_user(at, user)));
            }
            Receiver::Connection(connection) => {
                if let Some((id, number)) = self.id(connection) {
                    let payload = self.send(&Target::Connection(id));
                    model.send(payload, |_, at| at == number);
                    assert_eq!(self.exists(Target::Connection(id)), model.is_open(number));
                }
            }
        }
    }

    /// Ends every connection and answers every call.
    pub fn finish(&mut self, model: &mut crate::Model) {
        for connection in 0..self.connections() {
            self.step(&Step::End { connection }, model);
        }
        for shard in 0..self.shards.len() {
            while !self.shards[shard].open.is_empty() {
                self.reply(shard);
            }
        }
    }

    fn connect(&mut self, user: usize, shard: usize, shape: Shape, model: &mut crate::Model) {
        let number = self.ids.len();
        let mut random = [0; 16];
        random[..8].copy_from_slice(&(number as u64).to_be_bytes());
        let id = ConnectionId::new(1, u16::try_from(shard).expect("few shards"), random);
        self.ids.push((id, shard));
        self.numbers.insert(id, number);
        let connecting = Box::new(Connecting {
            id,
            hub: self.hub.clone(),
            user: None,
            subprotocols: Vec::new(),
            deflate: None,
            door: DoorRequest::Preview { shape, context: ClientContext::new("", "", "") },
        });
        self.handle(shard, Input::Connecting { answer_to: Ticket(number as u64), connecting });
        let at = self.shards[shard].open.iter().position(|call| call.connection == id);
        let call = self.shards[shard]
            .open
            .remove(at.expect("a connect event is posted"))
            .expect("it is there");
        self.replied(shard, call.id, Some(user_id(user).to_string()));
        model.connect(number, user);
    }

    fn reply(&mut self, shard: usize) {
        if let Some(call) = self.shards[shard].open.pop_front() {
            self.replied(shard, call.id, None);
        }
    }

    fn replied(&mut self, shard: usize, call: CallId, user: Option<String>) {
        let answer = UpstreamAnswer { status: 200, user, ..UpstreamAnswer::default() };
        let reply = Reply::Answered(Box::new(answer));
        self.handle(shard, Input::UpstreamReplied { call, reply });
    }

    fn membership(&mut self, user: usize, change: MembershipChange) {
        self.ask(&Command::Membership { hub: self.hub.clone(), user: user_id(user), change });
    }

    fn exists(&mut self, target: Target) -> bool {
        self.ask(&Command::Exists { hub: self.hub.clone(), target })
    }

    fn send(&mut self, target: &Target) -> usize {
        let payload = self.payloads;
        self.payloads += 1;
        let content = Content::new(Message::text(payload.to_string()));
        for shard in 0..self.shards.len() {
            let envelope = Envelope::new(self.hub.clone(), target.clone(), content.clone());
            self.handle(shard, Input::Remote(envelope));
        }
        payload
    }

    fn ask(&mut self, command: &Command) -> bool {
        let mut any = false;
        for shard in 0..self.shards.len() {
            self.handle(shard, Input::Command { answer_to: Ticket(0), command: command.clone() });
            any |= self.shards[shard].answer.take() == Some(Answer::Yes);
        }
        any
    }

    fn id(&self, connection: usize) -> Option<(ConnectionId, usize)> {
        let number = connection.checked_rem(self.ids.len())?;
        Some((self.ids[number].0, number))
    }

    fn find(&self, connection: usize) -> Option<(usize, Slot, usize)> {
        let (id, number) = self.id(connection)?;
        let shard = self.ids[number].1;
        let slot = self.shards[shard].slots.iter().find(|(_, at)| **at == id)?;
        Some((shard, *slot.0, number))
    }

    fn handle(&mut self, shard: usize, input: Input) {
        let mut effects = Vec::new();
        self.shards[shard].core.handle(self.now, input, &mut effects);
        for effect in effects {
            self.perform(shard, effect);
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "whatever is not the preview's is a finding"
    )]
    fn perform(&mut self, at: usize, effect: Effect) {
        let shard = &mut self.shards[at];
        match effect {
            Effect::Call(call) => {
                let number = self.numbers[&call.connection];
                self.received.events.entry(number).or_default().push(call.event.kind());
                shard.open.push_back(call);
            }
            Effect::Admit { slot, id, .. } => {
                shard.slots.insert(slot, id);
                shard.paused.remove(&slot);
                self.received.messages.entry(self.numbers[&id]).or_default();
            }
            Effect::Deliver { set, form, except, content } => {
                assert!(except.is_empty(), "nobody is excluded here");
                let slots = shard.core.members(set, form).to_vec();
                for slot in slots {
                    let id = self.shards[at].slots[&slot];
                    self.arrive(&id, &content);
                }
            }
            Effect::Send { slot, content, .. } => {
                let id = shard.slots[&slot];
                self.arrive(&id, &content);
            }
            Effect::Close { .. } => {}
            Effect::Pause { slot } => drop(shard.paused.insert(slot)),
            Effect::Resume { slot } => drop(shard.paused.remove(&slot)),
            Effect::Answer { answer, .. } => shard.answer = Some(answer),
            other => panic!("a preview connection is not treated like this: {other:?}"),
        }
    }

    fn arrive(&mut self, id: &ConnectionId, content: &Content) {
        let text =
            std::str::from_utf8(&content.publication().data.bytes).expect("payloads are numbers");
        let payload = text.parse().expect("payloads are numbers");
        self.received.messages.entry(self.numbers[id]).or_default().push(payload);
    }
}

fn group_name(group: usize) -> GroupName {
    GroupName::parse(&format!("group {group}")).expect("the name is a good one")
}

fn user_id(user: usize) -> UserId {
    UserId::parse(&format!("user {user}")).expect("the id is a good one")
}
