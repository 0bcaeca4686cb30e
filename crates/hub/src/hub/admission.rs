//! How connections come and go: handshakes, recoveries, endings.

use std::borrow::Cow;
use std::hash::BuildHasher;
use std::sync::Arc;

use bytes::Bytes;
use hookwire_proto::cloud_event::ConnectAnswer;
use hookwire_proto::deflate::{Deflate, Window};
use hookwire_proto::envelope::{Content, Shape, WireForm};
use hookwire_proto::handler::EventHandler;
use hookwire_proto::message::Message;
use hookwire_proto::name::{GroupName, HubName, UserId};
use hookwire_proto::permission::Permissions;
use hookwire_proto::subprotocol::{ServerMessage, Subprotocol};
use hookwire_proto::template::EventName;
use smallvec::SmallVec;

use super::{Caller, Entry, Hub, Identity, Leaving, Open, Reasons, Speaker, Timer};
use crate::effect::{Effect, Event};
use crate::events::{Decided, Then};
use crate::input::{
    ClientContext, Connecting, DoorRequest, Ending, Recovering, Reply, Ticket, UnixMillis,
    UpstreamAnswer, WebPubSubRequest,
};
use crate::reliable::Link;
use crate::set::{Kind, Slot, index};
use crate::web_pubsub::{Conversation, Cookies, Door, WebPubSub};

/// The reason in the last event of a connection whose client closed it.
const CLOSED_BY_CLIENT: &str = "Normal";

/// The reason in the last event of a connection whose transport broke.
const TRANSPORT_LOST: &str = "the transport was lost";

/// Lets nobody in.
#[derive(Debug)]
struct Refusal {
    status: u16,
    content_type: Option<String>,
    body: Bytes,
    /// Why; absent: the upstream said no.
    words: Option<&'static str>,
}

impl Refusal {
    fn new(status: u16, words: &'static str) -> Self {
        let content_type = Some("text/plain".to_owned());
        let body = Bytes::from_static(words.as_bytes());
        Self { status, content_type, body, words: Some(words) }
    }

    fn into_effect(self, answer_to: Ticket) -> Effect {
        let Self { status, content_type, body, words } = self;
        Effect::Refuse { answer_to, status, content_type, body, words }
    }
}

/// What lets a client in.
#[derive(Debug)]
struct Verdict {
    user: Option<UserId>,
    subprotocol: Option<String>,
    shape: Shape,
    door: Door,
    groups: Vec<GroupName>,
    /// The first message to it.
    first: Option<Message>,
}

impl Hub {
    pub(super) fn connecting(
        &mut self,
        now: UnixMillis,
        answer_to: Ticket,
        connecting: Box<Connecting>,
        effects: &mut Vec<Effect>,
    ) {
        let connect = match &connecting.door {
            DoorRequest::Preview { .. } => {
                let url = self.settings.templates.url(connecting.hub.as_str(), EventName::Connect);
                url.map(|url| {
                    let subprotocols = connecting.subprotocols.clone();
                    (url, None, Event::Connect { subprotocols })
                })
            }
            DoorRequest::WebPubSub(request) => {
                let hub = self.settings.hubs.hub(&connecting.hub);
                if !request.has_token && !hub.anonymous_connect {
                    let refusal = Refusal::new(401, "this hub wants an access token");
                    effects.push(refusal.into_effect(answer_to));
                    return;
                }
                let event = Event::Connecting(request.request.clone());
                let found = self.handler(&connecting.hub, &event);
                found.map(|(handler, url)| (url, Some((handler, 0)), event))
            }
        };
        let Some((url, handler, event)) = connect else {
            // Nobody to ask: what the token says is enough (preview protocol, templates, "No match"; Web PubSub protocol, "connect").
            let verdict = Self::judge(&connecting, None, None);
            self.admit(now, answer_to, &connecting, verdict, effects);
            return;
        };
        let identity = Identity {
            hub: connecting.hub.clone(),
            connection: connecting.id,
            user: connecting.user.clone(),
            speaker: Speaker::of(&connecting.door),
        };
        let asked = handler.as_ref().map(|(handler, _)| handler.clone());
        let caller = Caller::Connect { answer_to, connecting, handler: asked };
        let decided = Decided { url, handler, event, then: Then::Nothing };
        self.call(&identity, decided, caller, effects);
    }

    pub(super) fn connect_replied(
        &mut self,
        now: UnixMillis,
        answer_to: Ticket,
        connecting: &Connecting,
        handler: Option<Arc<EventHandler>>,
        reply: Reply,
        effects: &mut Vec<Effect>,
    ) {
        let is_preview = matches!(connecting.door, DoorRequest::Preview { .. });
        // What fails at the upstream is a bad gateway to the preview's clients, an internal error to those of Web PubSub.
        let failure = if is_preview { 502 } else { 500 };
        let verdict = match reply {
            Reply::Answered(answer) => match answer.status {
                200..=299 => Self::judge(connecting, handler, Some(*answer)),
                400..=499 => Err(Refusal {
                    status: answer.status,
                    content_type: answer.content_type,
                    body: answer.body,
                    words: None,
                }),
                status => {
                    tracing::warn!(hub = %connecting.hub, status, "the upstream failed at connect");
                    let passed_on = if is_preview || status < 500 { failure } else { status };
                    Err(Refusal::new(passed_on, "the upstream failed"))
                }
            },
            Reply::Failed { reason } => {
                tracing::warn!(hub = %connecting.hub, reason, "the upstream gave no answer at connect");
                Err(Refusal::new(failure, "no answer from the upstream"))
            }
        };
        self.admit(now, answer_to, connecting, verdict, effects);
    }

    /// Decides about a client from what it brought and what its upstream answered, if there is one.
    fn judge(
        connecting: &Connecting,
        handler: Option<Arc<EventHandler>>,
        answer: Option<UpstreamAnswer>,
    ) -> Result<Verdict, Refusal> {
        match &connecting.door {
            DoorRequest::Preview { shape, context } => {
                Self::judge_preview(connecting, *shape, context, answer)
            }
            DoorRequest::WebPubSub(request) => {
                Self::judge_web_pubsub(connecting, request, handler, answer.unwrap_or_default())
            }
        }
    }

    fn judge_preview(
        connecting: &Connecting,
        shape: Shape,
        context: &ClientContext,
        answer: Option<UpstreamAnswer>,
    ) -> Result<Verdict, Refusal> {
        let answer = answer.unwrap_or_default();
        let named = answer.user.as_deref().map(UserId::parse).transpose().map_err(|error| {
            tracing::warn!(hub = %connecting.hub, %error, "the upstream gave a user id that is not one");
            Refusal::new(502, "the upstream gave a user id that is not one")
        })?;
        let Some(user) = named.or_else(|| connecting.user.clone()) else {
            return Err(Refusal::new(401, "neither a token nor the upstream named a user"));
        };
        // One value, and one that was offered; anything else counts as none (preview protocol, "Responses").
        let subprotocol = match answer.subprotocols.as_slice() {
            [one] if connecting.subprotocols.contains(one) => Some(one.clone()),
            _ => None,
        };
        let body = answer.body;
        let first =
            (!body.is_empty()).then(|| Message::from_body(answer.content_type.as_deref(), body));
        let door = Door::Preview(context.clone());
        Ok(Verdict { user: Some(user), subprotocol, shape, door, groups: Vec::new(), first })
    }

    fn judge_web_pubsub(
        connecting: &Connecting,
        request: &WebPubSubRequest,
        handler: Option<Arc<EventHandler>>,
        answer: UpstreamAnswer,
    ) -> Result<Verdict, Refusal> {
        let malformed = |words: &'static str| {
            tracing::warn!(hub = %connecting.hub, fault = words, "the answer to a connect event is malformed");
            Refusal::new(500, words)
        };
        let said = ConnectAnswer::parse(&answer.body).map_err(|error| {
            tracing::warn!(hub = %connecting.hub, %error, "the answer to a connect event is malformed");
            Refusal::new(500, "the upstream's answer is malformed")
        })?;
        let offered = &connecting.subprotocols;
        let subprotocol = match said.subprotocol {
            Some(chosen) if offered.contains(&chosen) => Some(chosen),
            Some(_) => {
                return Err(malformed("the upstream chose a subprotocol that was not offered"));
            }
            None => offered.iter().find(|name| Subprotocol::parse(name).is_some()).cloned(),
        };
        let built_in = subprotocol.as_deref().and_then(Subprotocol::parse);
        let roles = said.roles.as_ref().unwrap_or(&request.roles);
        let groups = said.groups.filter(|groups| !groups.is_empty());
        let web_pubsub = WebPubSub {
            mode: request.mode.clone(),
            subprotocol: subprotocol.as_deref().map(Arc::from),
            permissions: Permissions::from_roles(roles.iter().map(String::as_str)),
            // The connect event has the first number, whether anybody gets it or not.
            next_event: 1,
            state: answer.state,
            cookies: handler.zip(answer.cookies).map(|(handler, text)| Cookies { handler, text }),
            conversation: built_in.map(|one| Box::new(Conversation::new(one))),
        };
        Ok(Verdict {
            user: said.user_id.or_else(|| connecting.user.clone().filter(|_| !said.is_anonymous)),
            subprotocol,
            shape: web_pubsub.shape(),
            door: Door::WebPubSub(Box::new(web_pubsub)),
            groups: groups.unwrap_or_else(|| request.groups.clone()),
            first: None,
        })
    }

    /// Lets a client in, or not.
    fn admit(
        &mut self,
        now: UnixMillis,
        answer_to: Ticket,
        connecting: &Connecting,
        verdict: Result<Verdict, Refusal>,
        effects: &mut Vec<Effect>,
    ) {
        let verdict = match verdict {
            Ok(verdict) => verdict,
            Err(refusal) => {
                effects.push(refusal.into_effect(answer_to));
                return;
            }
        };
        let Verdict { user, subprotocol, shape, mut door, groups, first } = verdict;
        let is_preview = matches!(door, Door::Preview(_));
        let deflate = self.deflate_for(&connecting.hub, connecting.deflate);
        let mut form = WireForm { shape, deflate };
        if form.is_reliable() {
            form.deflate = None;
            if let Door::WebPubSub(web_pubsub) = &mut door
                && let Some(reliable) = web_pubsub.reliable_mut()
            {
                reliable.set_deflate(deflate);
            }
        }
        let id = connecting.id;
        let slot = Slot(index(self.connections.insert(Entry::Open(Open {
            id,
            form,
            memberships: SmallVec::new(),
            door,
            on_the_way: None,
        }))));
        self.open += 1;
        self.previews += usize::from(is_preview);
        let hash = self.hasher.hash_one(id);
        self.by_id.insert_unique(hash, slot.0, |at| {
            // Every indexed entry is open: `end` takes it out before the entry changes.
            match &self.connections[*at as usize] {
                Entry::Open(open) => self.hasher.hash_one(open.id),
                Entry::Ended(_) => unreachable!("an ended connection has left the index"),
            }
        });
        let nameless: Arc<str> = "".into();
        self.join(slot, &connecting.hub, Kind::Hub, &nameless, Reasons::CONNECTION);
        if let Some(user) = &user {
            self.join(slot, &connecting.hub, Kind::User, user.shared(), Reasons::CONNECTION);
            for group in self.stored.groups(&connecting.hub, user, now) {
                self.join(slot, &connecting.hub, Kind::Group, group.shared(), Reasons::USER);
            }
        }
        for group in &groups {
            self.join(slot, &connecting.hub, Kind::Group, group.shared(), Reasons::CONNECTION);
        }
        let is_reliable = form.is_reliable();
        effects.push(Effect::Admit { answer_to, slot, id, subprotocol, is_reliable, deflate });
        if let Some(first) = first {
            effects.push(Effect::Send { slot, form, content: Content::new(first) });
        }
        self.greet(now, slot, effects);
        self.raise(slot, Event::Connected, Then::Nothing, effects);
        let Some(open) = self.open_at(slot) else { return };
        for group in self.groups_of(open) {
            self.raise(slot, Event::Joined(group), Then::Nothing, effects);
        }
    }

    /// Returns how messages are compressed on a new socket.
    fn deflate_for(&self, hub: &HubName, window: Option<Window>) -> Option<Deflate> {
        let compression = self.settings.hubs.hub(hub).compression;
        compression.zip(window).map(|(compression, window)| Deflate { compression, window })
    }

    /// Sends the message by which a client of a subprotocol learns its id.
    fn greet(&self, now: UnixMillis, slot: Slot, effects: &mut Vec<Effect>) {
        let Some(open) = self.open_at(slot) else { return };
        let token = open.form.is_reliable().then(|| {
            const MILLIS_PER_SECOND: u64 = 1_000;
            self.settings.reconnection_key.token(&open.id, now / MILLIS_PER_SECOND)
        });
        let connected = ServerMessage::Connected {
            connection_id: open.id.to_string(),
            user_id: self.user_of(open),
            reconnection_token: token,
        };
        self.tell(slot, &connected, effects);
    }

    /// Gives a client its connection back, if it is here and the client can show that it is its own.
    pub(super) fn recovering(
        &mut self,
        now: UnixMillis,
        answer_to: Ticket,
        recovering: &Recovering,
        effects: &mut Vec<Effect>,
    ) {
        const MILLIS_PER_SECOND: u64 = 1_000;
        let Recovering { id, hub, subprotocols, deflate, token } = recovering;
        let key = &self.settings.reconnection_key;
        let found = key.accepts(id, token, now / MILLIS_PER_SECOND).then(|| self.slot_in(hub, id));
        let found = found.flatten().and_then(|slot| {
            let Shape::Subprotocol(subprotocol) = self.open_at(slot)?.form.shape else {
                return None;
            };
            let is_same = subprotocols.iter().any(|name| name == subprotocol.name());
            (subprotocol.is_reliable() && is_same).then_some((slot, subprotocol))
        });
        let Some((slot, subprotocol)) = found else {
            effects.push(Effect::NotRecovered { answer_to });
            return;
        };
        self.stop_waiting(slot);
        let deflate = self.deflate_for(hub, *deflate);
        let Some(open) = self.open_mut(slot) else { return };
        let is_behind = open.on_the_way.as_ref().is_some_and(|on_the_way| on_the_way.is_full());
        if let Some(reliable) = open.web_pubsub_mut().and_then(WebPubSub::reliable_mut) {
            reliable.reattach(now, deflate);
        }
        let subprotocol = subprotocol.name().to_owned();
        effects.push(Effect::Readmit { answer_to, slot, id: *id, subprotocol, deflate });
        self.greet(now, slot, effects);
        effects.push(Effect::Sequenced { slots: vec![slot] });
        if is_behind {
            effects.push(Effect::Pause { slot });
        }
    }

    pub(super) fn ended(
        &mut self,
        now: UnixMillis,
        slot: Slot,
        ending: Ending,
        effects: &mut Vec<Effect>,
    ) {
        const NORMAL: u16 = 1_000;
        let recovery = &self.settings.recovery;
        let by_client = Cow::Borrowed(CLOSED_BY_CLIENT);
        let (reason, retention) = match ending {
            Ending::ClosedByClient(Some(NORMAL)) => (by_client, None),
            // One client library means goodbye by it and loss by it (Web PubSub protocol, "Reliable protocols and recovery").
            Ending::ClosedByClient(None) => (by_client, Some(recovery.retention_without_status_ms)),
            Ending::ClosedByClient(Some(_)) => (by_client, Some(recovery.retention_ms)),
            Ending::GivenUp(reason) => (reason, Some(recovery.retention_ms)),
            Ending::Final(reason) => (reason, None),
        };
        match retention {
            Some(retention) if self.is_reliable(slot) => {
                self.detach(slot, now.saturating_add(retention), true);
            }
            _ => self.end(now, slot, &reason, effects),
        }
    }

    pub(super) fn released(&mut self, now: UnixMillis, slot: Slot, effects: &mut Vec<Effect>) {
        let until = now.saturating_add(self.settings.recovery.retention_ms);
        if self.is_reliable(slot) {
            let link = self.web_pubsub_mut(slot).and_then(WebPubSub::reliable_mut);
            match link.map(|reliable| &mut reliable.link) {
                Some(Link::Lost { holds_slot, .. }) => *holds_slot = false,
                _ => self.detach(slot, until, false),
            }
            return;
        }
        self.end(now, slot, TRANSPORT_LOST, effects);
        self.connections.try_remove(slot.0 as usize);
    }

    fn is_reliable(&self, slot: Slot) -> bool {
        self.open_at(slot).is_some_and(|open| open.form.is_reliable())
    }

    /// Lets a reliable connection wait for its client.
    fn detach(&mut self, slot: Slot, until: UnixMillis, holds_slot: bool) {
        self.stop_waiting(slot);
        let Some(open) = self.open_mut(slot) else { return };
        let id = open.id;
        let Some(reliable) = open.web_pubsub_mut().and_then(WebPubSub::reliable_mut) else {
            return;
        };
        reliable.link = Link::Lost { holds_slot, until };
        self.detached += 1;
        self.timers.insert((until, id, Timer::Recovery));
    }

    /// Takes a connection out of those that wait for their clients.
    fn stop_waiting(&mut self, slot: Slot) {
        let Some(open) = self.open_at(slot) else { return };
        let link = open.web_pubsub().and_then(WebPubSub::reliable).map(|reliable| reliable.link);
        if let Some(Link::Lost { until, .. }) = link {
            self.timers.remove(&(until, open.id, Timer::Recovery));
            self.detached -= 1;
        }
    }

    /// Ends a connection unless that has happened: out of all sets, and its last event after its earlier ones.
    pub(super) fn end(
        &mut self,
        now: UnixMillis,
        slot: Slot,
        reason: &str,
        effects: &mut Vec<Effect>,
    ) {
        if self.open_at(slot).is_none() {
            return;
        }
        self.stop_waiting(slot);
        self.end_streams(now, slot, effects);
        self.leave_on_end(now, slot, effects);
        let Some(entry) = self.connections.get_mut(slot.0 as usize) else { return };
        let Entry::Open(mut open) = std::mem::replace(entry, Entry::Ended(None)) else { return };
        self.open -= 1;
        self.previews -= usize::from(matches!(open.door, Door::Preview(_)));
        let hash = self.hasher.hash_one(open.id);
        if let Ok(found) = self.by_id.find_entry(hash, |at| *at == slot.0) {
            found.remove();
        }
        let identity = self.identity(&open);
        let last = match &mut open.door {
            Door::Preview(_) => {
                let url = self.settings.templates.url(identity.hub.as_str(), EventName::Disconnect);
                url.map(|url| Decided {
                    url,
                    handler: None,
                    event: Event::Disconnect,
                    then: Then::Nothing,
                })
            }
            Door::WebPubSub(web_pubsub) => {
                let event = Event::Disconnected { reason: reason.to_owned() };
                let number = web_pubsub.number_event();
                self.copy_to_listeners(&identity, number, &event, effects);
                self.handler(&identity.hub, &event).map(|(handler, url)| Decided {
                    url,
                    handler: Some((handler, number)),
                    event,
                    then: Then::Nothing,
                })
            }
        };
        while let Some(membership) = open.memberships.pop() {
            self.leave(membership.place, open.form);
        }
        let conversation = match open.door {
            Door::WebPubSub(web_pubsub) => web_pubsub.conversation,
            Door::Preview(_) => None,
        };
        let reliable =
            conversation.as_ref().and_then(|conversation| conversation.reliable.as_ref());
        if reliable.is_some_and(|one| matches!(one.link, Link::Lost { holds_slot: false, .. })) {
            self.connections.remove(slot.0 as usize);
        } else if reliable.is_some_and(|one| one.has_unsent()) {
            self.connections[slot.0 as usize] = Entry::Ended(conversation);
        }
        match (open.on_the_way, last) {
            (Some(mut on_the_way), last) => {
                if let Some(last) = last {
                    let before = on_the_way.waiting_bytes();
                    on_the_way.push(last);
                    self.waiting_bytes += on_the_way.waiting_bytes() - before;
                }
                self.leaving.insert(identity.connection, Leaving { identity, on_the_way });
            }
            (None, Some(last)) => {
                self.call(&identity, last, Caller::Last, effects);
            }
            (None, None) => {}
        }
    }
}
