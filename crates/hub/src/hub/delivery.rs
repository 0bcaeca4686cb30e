//! From envelopes and answers to receivers.

use std::sync::Arc;

use hookwire_proto::envelope::{Action, Content, Delivery, Envelope, Shape, Target};
use hookwire_proto::filter::{Groups, Subject};
use hookwire_proto::frame::CloseCode;
use hookwire_proto::subprotocol::{ServerMessage, Subprotocol};
use smallvec::SmallVec;

use super::{Hub, Membership, Open};
use crate::effect::Effect;
use crate::input::UnixMillis;
use crate::reliable::Sequenced;
use crate::set::{Kind, SetId, Sets, Slot};
use crate::web_pubsub::WebPubSub;

/// Why a reliable connection ends whose client acknowledges too little.
const OVERFLOW: &str = "SlowClient";

impl Hub {
    pub(super) fn remote(
        &mut self,
        now: UnixMillis,
        envelope: &Envelope,
        effects: &mut Vec<Effect>,
    ) {
        let Envelope { hub, target, action } = envelope;
        let delivery = match action {
            Action::Deliver(delivery) => delivery,
            Action::GroupState(item) => {
                if let Target::Group(group) = target {
                    self.group_state_changed(now, hub, group, item, effects);
                }
                return;
            }
        };
        let set = match target {
            Target::Hub => self.sets.find(hub, Kind::Hub, ""),
            Target::Group(group) => self.sets.find(hub, Kind::Group, group.as_str()),
            Target::User(user) => self.sets.find(hub, Kind::User, user.as_str()),
            Target::Connection(id) => {
                if let Some(slot) = self.slot_in(hub, id) {
                    self.send(now, slot, &delivery.content, delivery.ttl_seconds, effects);
                }
                return;
            }
        };
        if let Some(set) = set {
            self.deliver(now, set, delivery, effects);
        }
    }

    fn deliver(
        &mut self,
        now: UnixMillis,
        set: SetId,
        delivery: &Delivery,
        effects: &mut Vec<Effect>,
    ) {
        let Delivery { content, excluded, filter, ttl_seconds } = delivery;
        let except: SmallVec<[Slot; 2]> = excluded.iter().filter_map(|id| self.slot(id)).collect();
        for form in self.sets.forms(set) {
            if form.is_reliable() || filter.is_some() {
                let members = self.sets.members(set, form).iter().copied();
                let chosen = members.filter(|slot| {
                    !except.contains(slot)
                        && filter.as_ref().is_none_or(|filter| {
                            self.open_at(*slot).is_some_and(|open| {
                                self.with_subject(open, |one| filter.matches(one))
                            })
                        })
                });
                let slots: Vec<Slot> = chosen.collect();
                if slots.is_empty() {
                    continue;
                }
                if form.is_reliable() {
                    let what = Sequenced::Publication(content.clone());
                    self.push_sequenced(now, slots, &what, *ttl_seconds, effects);
                } else {
                    effects.push(Effect::DeliverTo { slots, form, content: content.clone() });
                }
            } else {
                let (except, content) = (except.clone(), content.clone());
                effects.push(Effect::Deliver { set, form, except, content });
            }
        }
    }

    /// Sends to one connection.
    pub(super) fn send(
        &mut self,
        now: UnixMillis,
        slot: Slot,
        content: &Arc<Content>,
        ttl_seconds: Option<u16>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(open) = self.open_at(slot) else { return };
        let form = open.form;
        if form.is_reliable() {
            let what = Sequenced::Publication(content.clone());
            self.push_sequenced(now, vec![slot], &what, ttl_seconds, effects);
        } else {
            effects.push(Effect::Send { slot, form, content: content.clone() });
        }
    }

    /// Gives the message a sequence id of each of these reliable connections. Those without room for it end with the input.
    pub(super) fn push_sequenced(
        &mut self,
        now: UnixMillis,
        mut slots: Vec<Slot>,
        what: &Sequenced,
        ttl_seconds: Option<u16>,
        effects: &mut Vec<Effect>,
    ) {
        const MILLIS_PER_SECOND: u64 = 1_000;
        let settings = self.settings.clone();
        // 0 means the default behaviour (Web PubSub protocol, REST operation details).
        let ttl = ttl_seconds.filter(|ttl| *ttl != 0);
        let expires = ttl.map(|ttl| now.saturating_add(u64::from(ttl) * MILLIS_PER_SECOND));
        let is_shard_behind = self.is_behind();
        slots.retain(|slot| {
            let Some(open) = self.open_mut(*slot) else { return false };
            let id = open.id;
            let is_unread = is_shard_behind
                || open.on_the_way.as_ref().is_some_and(|on_the_way| on_the_way.is_full());
            let Some(reliable) = open.web_pubsub_mut().and_then(WebPubSub::reliable_mut) else {
                return false;
            };
            if is_unread {
                reliable.excuse();
            }
            if reliable.push(what.clone(), now, expires, &settings.recovery).is_err() {
                self.overflowing.push(id);
                return false;
            }
            reliable.is_attached()
        });
        if !slots.is_empty() {
            effects.push(Effect::Sequenced { slots });
        }
    }

    /// Ends the connections that had no room for a message. Their endings may tell others something, who may have no room for it in turn.
    pub(super) fn end_overflowing(&mut self, now: UnixMillis, effects: &mut Vec<Effect>) {
        while let Some(id) = self.overflowing.pop() {
            if let Some(slot) = self.slot(&id) {
                self.close(now, slot, CloseCode::POLICY, OVERFLOW, effects);
            }
        }
    }

    /// Sends something to everybody in a group, on this shard and the others.
    pub(super) fn publish(
        &mut self,
        now: UnixMillis,
        envelope: Envelope,
        effects: &mut Vec<Effect>,
    ) {
        self.remote(now, &envelope, effects);
        effects.push(Effect::Forward(envelope));
    }

    /// Tells a client of a subprotocol something that concerns it alone. Nobody hears it while the transport is lost.
    pub(super) fn tell(&self, slot: Slot, message: &ServerMessage, effects: &mut Vec<Effect>) {
        if let Some(open) = self.open_at(slot)
            && let Shape::Subprotocol(subprotocol) = open.form.shape
            && open.is_attached()
        {
            effects.push(Effect::Tell { slot, message: subprotocol.encode_server(message) });
        }
    }

    /// Closes a connection from our side and ends it; the reason goes to the client and into the last event.
    pub(super) fn close(
        &mut self,
        now: UnixMillis,
        slot: Slot,
        code: CloseCode,
        reason: &str,
        effects: &mut Vec<Effect>,
    ) {
        let Some(open) = self.open_at(slot) else { return };
        if open.is_attached() {
            self.tell(slot, &ServerMessage::Disconnected { message: reason.to_owned() }, effects);
            effects.push(Effect::Close { slot, code, reason: reason.to_owned() });
        }
        self.end(now, slot, reason, effects);
    }

    /// Lets `judge` look at a connection as filters do.
    pub(super) fn with_subject<T>(&self, open: &Open, judge: impl FnOnce(&Subject<'_>) -> T) -> T {
        let user = self.user_of(open);
        let id = open.id.to_string();
        let protocol = match open.form.shape {
            Shape::Subprotocol(subprotocol) => Some(Subprotocol::name(subprotocol)),
            Shape::AsSent | Shape::Text | Shape::Binary => {
                open.web_pubsub().and_then(|one| one.subprotocol.as_deref())
            }
        };
        let groups =
            GroupsOf { sets: &self.sets, memberships: &open.memberships, hub: self.hub_of(open) };
        judge(&Subject {
            user_id: user.as_ref().map(hookwire_proto::name::UserId::as_str),
            connection_id: &id,
            protocol,
            groups: &groups,
        })
    }
}

/// The groups of a connection, answered from the index.
struct GroupsOf<'a> {
    sets: &'a Sets,
    memberships: &'a [Membership],
    hub: &'a hookwire_proto::name::HubName,
}

impl GroupsOf<'_> {
    fn names(&self) -> impl Iterator<Item = &str> {
        let places = self.memberships.iter().map(|membership| membership.place.set);
        let groups = places.filter(|set| self.sets.kind(*set) == Kind::Group);
        groups.map(|set| &**self.sets.name(set))
    }
}

impl Groups for GroupsOf<'_> {
    fn contains(&self, name: &str) -> bool {
        self.sets.find(self.hub, Kind::Group, name).is_some_and(|set| {
            self.memberships.iter().any(|membership| membership.place.set == set)
        })
    }

    fn count(&self) -> usize {
        self.names().count()
    }
    fn any(&self, judge: &mut dyn FnMut(&str) -> bool) -> bool {
        self.names().any(judge)
    }
}
