//! Events on their way to the upstream, and what its answers do.

use std::sync::Arc;

use hookwire_proto::data::{Data, DataKind, Metadata};
use hookwire_proto::envelope::{Content, Target};
use hookwire_proto::frame::CloseCode;
use hookwire_proto::handler::{EventHandler, UpstreamEvent};
use hookwire_proto::message::Message;
use hookwire_proto::name::{ConnectionId, HubName};
use hookwire_proto::subprotocol::{NamedError, ServerMessage};
use hookwire_proto::template::EventName;

use super::{Caller, Hub, Identity, Speaker};
use crate::effect::{Call, CallId, Dialect, Effect, Event, EventCopy, EventFacts, UserEvent};
use crate::events::{Decided, OnTheWay, Then};
use crate::input::{Reply, UnixMillis, UpstreamAnswer};
use crate::set::Slot;
use crate::web_pubsub::{Door, Pending};

/// Why an event has no good answer.
const EVENT_FAILED: &str = "The event was not handled.";

impl Hub {
    /// Returns who handles an event of a Web PubSub connection, and where.
    pub(super) fn handler(
        &self,
        hub: &HubName,
        event: &Event,
    ) -> Option<(Arc<EventHandler>, String)> {
        let handler = self.settings.hubs.hub(hub).handler(upstream_event(event)?)?.clone();
        let url = handler.url.url(hub, event.name());
        Some((handler, url))
    }

    /// Sends copies of an event to those who only listen. Returns whether there are any.
    pub(super) fn copy_to_listeners(
        &self,
        identity: &Identity,
        number: u64,
        event: &Event,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(kind) = upstream_event(event) else { return false };
        let before = effects.len();
        for listener in self.settings.hubs.hub(&identity.hub).listeners_for(kind) {
            effects.push(Effect::Copy(Box::new(EventCopy {
                listener: listener.clone(),
                hub: identity.hub.clone(),
                connection: identity.connection,
                user: identity.user.clone(),
                facts: facts(&identity.speaker, number, None),
                event: event.clone(),
            })));
        }
        before < effects.len()
    }

    /// Brings an event of a connection on its way. Returns whether anybody gets it.
    pub(super) fn raise(
        &mut self,
        slot: Slot,
        event: Event,
        then: Then,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(open) = self.open_at(slot) else { return false };
        let hub = self.hub_of(open).clone();
        let is_web_pubsub = matches!(open.door, Door::WebPubSub(_));
        if is_web_pubsub {
            return self.raise_web_pubsub(slot, &hub, event, then, effects);
        }
        if !matches!(event, Event::Message(_)) {
            // The preview knows no event between connect and disconnect but messages.
            return false;
        }
        let url = self.settings.templates.url(hub.as_str(), EventName::Message);
        let Some(url) = url else { return false };
        self.put_on_the_way(slot, Decided { url, handler: None, event, then }, effects);
        true
    }

    fn raise_web_pubsub(
        &mut self,
        slot: Slot,
        hub: &HubName,
        event: Event,
        then: Then,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let handler = self.handler(hub, &event);
        let kind = upstream_event(&event);
        let has_listener = kind
            .is_some_and(|kind| self.settings.hubs.hub(hub).listeners_for(kind).next().is_some());
        if handler.is_none() && !has_listener {
            return false;
        }
        let Some(web_pubsub) = self.web_pubsub_mut(slot) else { return false };
        let number = web_pubsub.number_event();
        if has_listener && let Some(open) = self.open_at(slot) {
            let identity = self.identity(open);
            self.copy_to_listeners(&identity, number, &event, effects);
        }
        match handler {
            Some((handler, url)) => {
                let decided = Decided { url, handler: Some((handler, number)), event, then };
                self.put_on_the_way(slot, decided, effects);
            }
            // A listener alone makes an event a success (Web PubSub protocol, "User events").
            None => self.settle(slot, then, Ok(None), effects),
        }
        true
    }

    /// Hands an event out, or lets it wait for the earlier ones of its connection.
    fn put_on_the_way(&mut self, slot: Slot, decided: Decided, effects: &mut Vec<Effect>) {
        let Some(open) = self.open_mut(slot) else { return };
        if let Some(on_the_way) = &mut open.on_the_way {
            let was_full = on_the_way.is_full();
            let before = on_the_way.waiting_bytes();
            on_the_way.push(decided);
            let (after, is_full) = (on_the_way.waiting_bytes(), on_the_way.is_full());
            self.waiting_bytes += after - before;
            if !was_full && is_full {
                effects.push(Effect::Pause { slot });
            }
            return;
        }
        let Some(open) = self.open_at(slot) else { return };
        let identity = self.identity(open);
        let call = self.hand_out(&identity, decided, effects);
        if let Some(open) = self.open_mut(slot) {
            open.on_the_way = Some(Box::new(OnTheWay::new(call)));
        }
    }

    fn hand_out(
        &mut self,
        identity: &Identity,
        mut decided: Decided,
        effects: &mut Vec<Effect>,
    ) -> CallId {
        let then = std::mem::replace(&mut decided.then, Then::Nothing);
        let caller = if decided.event.is_last() {
            Caller::Last
        } else {
            Caller::Event { connection: identity.connection, then }
        };
        self.call(identity, decided, caller, effects)
    }

    pub(super) fn call(
        &mut self,
        identity: &Identity,
        decided: Decided,
        caller: Caller,
        effects: &mut Vec<Effect>,
    ) -> CallId {
        self.last_call += 1;
        let id = CallId(self.last_call);
        self.calls.insert(id, caller);
        let dialect = match (&identity.speaker, decided.handler) {
            (Speaker::Preview(context), _) => Dialect::Preview(context.clone()),
            (speaker @ Speaker::WebPubSub { .. }, handler) => {
                let (handler, number) =
                    handler.expect("an event of a Web PubSub connection is decided with a handler");
                let facts = Box::new(facts(speaker, number, Some(&handler)));
                Dialect::WebPubSub { handler, facts }
            }
        };
        effects.push(Effect::Call(Call {
            id,
            url: decided.url,
            hub: identity.hub.clone(),
            connection: identity.connection,
            user: identity.user.clone(),
            dialect,
            event: decided.event,
        }));
        id
    }

    pub(super) fn upstream_replied(
        &mut self,
        now: UnixMillis,
        call: CallId,
        reply: Reply,
        effects: &mut Vec<Effect>,
    ) {
        match self.calls.get(&call) {
            Some(Caller::Event { connection, .. }) => {
                // The next event repeats what this answer sets.
                let connection = *connection;
                self.remember(&connection, &reply);
            }
            Some(Caller::Connect { .. } | Caller::Last) | None => {}
        }
        match self.calls.remove(&call) {
            Some(Caller::Connect { answer_to, connecting, handler }) => {
                self.connect_replied(now, answer_to, &connecting, handler, reply, effects);
            }
            Some(Caller::Event { connection, then }) => {
                self.event_replied(now, connection, then, reply, effects);
                self.advance(&connection, call, effects);
            }
            Some(Caller::Last) | None => {}
        }
    }

    /// Keeps the state that an answer sets.
    fn remember(&mut self, connection: &ConnectionId, reply: &Reply) {
        let Reply::Answered(answer) = reply else { return };
        if !(200..=299).contains(&answer.status) {
            return;
        }
        let Some(new) = &answer.state else { return };
        if let Some(slot) = self.slot(connection) {
            if let Some(web_pubsub) = self.web_pubsub_mut(slot) {
                web_pubsub.state = Some(new.clone());
            }
        } else if let Some(leaving) = self.leaving.get_mut(connection)
            && let Speaker::WebPubSub { state, .. } = &mut leaving.identity.speaker
        {
            *state = Some(new.clone());
        }
    }

    fn event_replied(
        &mut self,
        now: UnixMillis,
        connection: ConnectionId,
        then: Then,
        reply: Reply,
        effects: &mut Vec<Effect>,
    ) {
        let outcome = match reply {
            Reply::Answered(answer) if (200..=299).contains(&answer.status) => Ok(answer),
            Reply::Answered(answer) => {
                tracing::debug!(%connection, status = answer.status, "the upstream refused an event");
                Err(())
            }
            Reply::Failed { reason } => {
                tracing::debug!(%connection, reason, "the upstream did not answer an event");
                Err(())
            }
        };
        let Some(slot) = self.slot(&connection) else { return };
        match (then, outcome) {
            (Then::Nothing, _) | (Then::Message, Err(())) => {}
            (Then::Message, Ok(answer)) => {
                if !answer.body.is_empty() {
                    let message =
                        Message::from_body(answer.content_type.as_deref(), answer.body.clone());
                    self.send(now, slot, &Content::new(message), None, effects);
                }
            }
            (then @ Then::Invocation { .. }, outcome) => {
                self.settle(slot, then, outcome.map(|answer| data(*answer)), effects);
            }
            (then @ Then::Event { .. }, outcome) => {
                // The answer goes before the ack (Web PubSub protocol, "User events").
                if let Ok(answer) = &outcome
                    && let Some(data) = data((**answer).clone())
                {
                    let content = Content::to(&Target::Hub, data, Metadata::default());
                    self.send(now, slot, &content, None, effects);
                }
                let outcome = outcome.map(|_| None);
                let failed = outcome.is_err();
                self.settle(slot, then, outcome, effects);
                let is_simple = self
                    .open_at(slot)
                    .and_then(|open| open.web_pubsub())
                    .is_some_and(|web_pubsub| web_pubsub.conversation.is_none());
                if failed && is_simple {
                    self.close(now, slot, CloseCode::INTERNAL, EVENT_FAILED, effects);
                }
            }
        }
    }

    /// Tells a client of a subprotocol how its event or invocation went.
    pub(super) fn settle(
        &mut self,
        slot: Slot,
        then: Then,
        outcome: Result<Option<Data>, ()>,
        effects: &mut Vec<Effect>,
    ) {
        let failed =
            |name: &str| NamedError { name: name.to_owned(), message: EVENT_FAILED.into() };
        match then {
            Then::Event { ack_id: Some(ack_id) } => {
                let Some(conversation) =
                    self.web_pubsub_mut(slot).and_then(|one| one.conversation.as_mut())
                else {
                    return;
                };
                conversation.settle(&Pending::Ack(ack_id));
                if outcome.is_ok() {
                    conversation.acks.insert(ack_id);
                }
                let error = outcome.err().map(|()| failed("InternalServerError"));
                self.tell(slot, &ServerMessage::Ack { ack_id, error }, effects);
            }
            Then::Invocation { id, number } => {
                let conversation =
                    self.web_pubsub_mut(slot).and_then(|one| one.conversation.as_mut());
                let pending = Pending::Invocation { id: id.clone(), number };
                if conversation.is_some_and(|one| one.settle(&pending)) {
                    let result = outcome.map_err(|()| failed("InvocationFailed"));
                    let response = ServerMessage::InvokeResponse { invocation_id: id, result };
                    self.tell(slot, &response, effects);
                }
            }
            Then::Event { ack_id: None } | Then::Message | Then::Nothing => {}
        }
    }

    /// The events of a connection need not wait for `call` any longer.
    pub(super) fn passed(&mut self, call: CallId, effects: &mut Vec<Effect>) {
        if let Some(Caller::Event { connection, .. }) = self.calls.get(&call) {
            let connection = *connection;
            self.advance(&connection, call, effects);
        }
    }

    /// Hands out the next event of the connection, if `call` holds it back.
    fn advance(&mut self, connection: &ConnectionId, call: CallId, effects: &mut Vec<Effect>) {
        let slot = self.slot(connection);
        let (on_the_way, identity) = match slot.and_then(|slot| self.open_at(slot)) {
            Some(open) => {
                let identity = self.identity(open);
                let open = slot.and_then(|slot| self.open_mut(slot));
                (open.and_then(|open| open.on_the_way.as_mut()), identity)
            }
            None => match self.leaving.get_mut(connection) {
                Some(leaving) => (Some(&mut leaving.on_the_way), leaving.identity.clone()),
                None => return,
            },
        };
        let Some(on_the_way) = on_the_way.filter(|on_the_way| on_the_way.current == call) else {
            return;
        };
        let was_full = on_the_way.is_full();
        let before = on_the_way.waiting_bytes();
        let next = on_the_way.pop();
        let (after, is_full) = (on_the_way.waiting_bytes(), on_the_way.is_full());
        self.waiting_bytes -= before - after;
        if let Some(slot) = slot
            && was_full
            && !is_full
        {
            effects.push(Effect::Resume { slot });
        }
        let current = next.and_then(|next| {
            let is_last = next.event.is_last();
            let id = self.hand_out(&identity, next, effects);
            (!is_last).then_some(id)
        });
        self.set_current(connection, slot, current);
    }

    /// Notes which call holds the events of a connection back now; with none, nothing is on the way.
    fn set_current(
        &mut self,
        connection: &ConnectionId,
        slot: Option<Slot>,
        current: Option<CallId>,
    ) {
        let open = slot.and_then(|slot| self.open_mut(slot));
        match (open, current) {
            (Some(open), Some(current)) => {
                if let Some(on_the_way) = &mut open.on_the_way {
                    on_the_way.current = current;
                }
            }
            (Some(open), None) => open.on_the_way = None,
            (None, Some(current)) => {
                if let Some(leaving) = self.leaving.get_mut(connection) {
                    leaving.on_the_way.current = current;
                }
            }
            (None, None) => {
                self.leaving.remove(connection);
            }
        }
    }

    /// Raises an event of a client of a subprotocol, or says at once that nobody handles it.
    pub(super) fn raise_user_event(
        &mut self,
        now: UnixMillis,
        slot: Slot,
        event: UserEvent,
        then: Then,
        effects: &mut Vec<Effect>,
    ) {
        if self.raise(slot, Event::User(event), then.clone(), effects) {
            return;
        }
        self.unrouted_messages += 1;
        let is_simple = self
            .open_at(slot)
            .and_then(|open| open.web_pubsub())
            .is_some_and(|web_pubsub| web_pubsub.conversation.is_none());
        if is_simple {
            let reason = "no event handler takes this event";
            self.close(now, slot, CloseCode::INTERNAL, reason, effects);
        } else {
            self.settle(slot, then, Err(()), effects);
        }
    }
}

/// Returns how event handlers choose by this event; `None` for the preview's.
fn upstream_event(event: &Event) -> Option<UpstreamEvent<'_>> {
    match event {
        Event::Connecting(_) => Some(UpstreamEvent::Connect),
        Event::Connected => Some(UpstreamEvent::Connected),
        Event::Disconnected { .. } => Some(UpstreamEvent::Disconnected),
        Event::User(user) => Some(UpstreamEvent::User(&user.name)),
        Event::Joined(group) => Some(UpstreamEvent::Joined(group)),
        Event::Left(group) => Some(UpstreamEvent::Left(group)),
        Event::Connect { .. } | Event::Message(_) | Event::Disconnect => None,
    }
}

fn facts(speaker: &Speaker, sequence: u64, to: Option<&Arc<EventHandler>>) -> EventFacts {
    match speaker {
        Speaker::WebPubSub { subprotocol, state, cookies } => EventFacts {
            sequence,
            subprotocol: subprotocol.clone(),
            state: state.clone(),
            cookies: cookies
                .as_ref()
                .filter(|cookies| to.is_some_and(|handler| *handler == cookies.handler))
                .map(|cookies| cookies.text.clone()),
        },
        Speaker::Preview(_) => {
            EventFacts { sequence, subprotocol: None, state: None, cookies: None }
        }
    }
}

/// Returns what a body sends to the caller (Web PubSub protocol, "User events"). The edge has checked text and JSON.
fn data(answer: UpstreamAnswer) -> Option<Data> {
    if answer.body.is_empty() {
        return None;
    }
    let content_type = answer.content_type.unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    let kind = match media_type.to_ascii_lowercase().as_str() {
        "text/plain" => DataKind::Text,
        "application/json" => DataKind::Json,
        _ => DataKind::Binary,
    };
    Some(Data { kind, bytes: answer.body })
}
