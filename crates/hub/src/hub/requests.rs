//! What clients ask for.

use hookwire_proto::data::{Data, Metadata};
use hookwire_proto::envelope::{Action, Content, Delivery, Envelope, Target};
use hookwire_proto::frame::CloseCode;
use hookwire_proto::message::Message;
use hookwire_proto::name::{ConnectionId, GroupName};
use hookwire_proto::permission::Permission;
use hookwire_proto::subprotocol::{
    ClientMessage, NamedError, Publication, ServerMessage, Source, StreamPart, Subprotocol,
};

use super::membership::Joined;
use super::{Hub, Reasons};
use crate::effect::{Effect, Event, UserEvent};
use crate::events::Then;
use crate::input::{SimpleMode, UnixMillis};
use crate::set::Slot;
use crate::web_pubsub::{Door, Pending, Stream};

/// The event that each message of a simple client is (Web PubSub protocol, "Simple clients").
const SIMPLE_EVENT: &str = "message";

/// Events with an ack id and invocations of one connection that may be on their way; its socket is not read long before.
const PENDING_MAX: usize = 256;

/// What went wrong with something that carries an ack id.
pub(super) type Outcome = Result<(), NamedError>;

/// Something to send to a group.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) group: GroupName,
    pub(super) data: Data,
    pub(super) metadata: Metadata,
    pub(super) stream: Option<StreamPart>,
    pub(super) no_echo: bool,
    pub(super) ttl_seconds: Option<u16>,
}

pub(super) fn forbidden() -> NamedError {
    NamedError { name: "Forbidden".to_owned(), message: "Permission denied.".to_owned() }
}

pub(super) fn bad_request(message: &str) -> NamedError {
    NamedError { name: "BadRequest".to_owned(), message: message.to_owned() }
}

impl Hub {
    pub(super) fn request(
        &mut self,
        now: UnixMillis,
        slot: Slot,
        message: Message,
        effects: &mut Vec<Effect>,
    ) {
        let Some(open) = self.open_at(slot) else { return };
        let Door::WebPubSub(web_pubsub) = &open.door else {
            if !self.raise(slot, Event::Message(message), Then::Message, effects) {
                self.unrouted_messages += 1;
            }
            return;
        };
        if let Some(conversation) = &web_pubsub.conversation {
            let subprotocol = conversation.subprotocol;
            self.subprotocol_request(now, slot, subprotocol, &message, effects);
            return;
        }
        match web_pubsub.mode.clone() {
            SimpleMode::SendEvent => {
                let event = UserEvent {
                    name: SIMPLE_EVENT.into(),
                    data: message.into(),
                    metadata: Metadata::default(),
                    is_invocation: false,
                };
                self.raise_user_event(now, slot, event, Then::Event { ack_id: None }, effects);
            }
            SimpleMode::SendToGroup { group, no_echo } => {
                let post = Post {
                    group,
                    data: message.into(),
                    metadata: Metadata::default(),
                    stream: None,
                    no_echo,
                    ttl_seconds: None,
                };
                if let Err(error) = self.post(now, slot, post, effects) {
                    self.close(now, slot, CloseCode::POLICY, &error.message, effects);
                }
            }
        }
    }

    fn subprotocol_request(
        &mut self,
        now: UnixMillis,
        slot: Slot,
        subprotocol: Subprotocol,
        message: &Message,
        effects: &mut Vec<Effect>,
    ) {
        let request = match subprotocol.decode_client(message) {
            Ok(request) => request,
            Err(error) => {
                let code = error.close_code();
                self.close(now, slot, code, &error.to_string(), effects);
                return;
            }
        };
        let changes_members = matches!(
            request,
            ClientMessage::JoinGroup { .. }
                | ClientMessage::LeaveGroup { .. }
                | ClientMessage::SubscribeGroupState { .. }
                | ClientMessage::UnsubscribeGroupState { .. }
        );
        if changes_members {
            // A send followed by a leave reaches the member.
            effects.push(Effect::BeforeChange { slot, request: Box::new(request) });
        } else {
            self.client_request(now, slot, request, effects);
        }
    }

    pub(super) fn client_request(
        &mut self,
        now: UnixMillis,
        slot: Slot,
        request: ClientMessage,
        effects: &mut Vec<Effect>,
    ) {
        match request {
            ClientMessage::Ping => self.tell(slot, &ServerMessage::Pong, effects),
            ClientMessage::SequenceAck { sequence_id } => {
                let messages_max = self.settings.recovery.messages_max;
                if let Some(reliable) =
                    self.web_pubsub_mut(slot).and_then(|web_pubsub| web_pubsub.reliable_mut())
                {
                    reliable.acknowledge(sequence_id, messages_max);
                }
            }
            ClientMessage::JoinGroup { group, ack_id } => {
                self.acknowledged(slot, ack_id, effects, |hub, effects| {
                    hub.client_join(slot, &group, effects)
                });
            }
            ClientMessage::LeaveGroup { group, ack_id } => {
                self.acknowledged(slot, ack_id, effects, |hub, effects| {
                    hub.client_leave(now, slot, &group, effects)
                });
            }
            ClientMessage::SendToGroup { group, ack_id, no_echo, ttl_seconds, data, metadata } => {
                let post = Post { group, data, metadata, stream: None, no_echo, ttl_seconds };
                self.acknowledged(slot, ack_id, effects, |hub, effects| {
                    hub.post(now, slot, post, effects)
                });
            }
            ClientMessage::Event { event, ack_id, data, metadata } => {
                let event = UserEvent { name: event.into(), data, metadata, is_invocation: false };
                self.client_event(now, slot, event, ack_id, effects);
            }
            ClientMessage::Invoke { invocation_id, event, data, metadata } => {
                let data = data.unwrap_or_else(|| Data::text(""));
                let event = UserEvent { name: event.into(), data, metadata, is_invocation: true };
                self.client_invokes(now, slot, event, invocation_id, effects);
            }
            ClientMessage::CancelInvocation { invocation_id } => {
                if let Some(conversation) =
                    self.web_pubsub_mut(slot).and_then(|one| one.conversation.as_mut())
                {
                    conversation.cancel(&invocation_id);
                }
            }
            ClientMessage::InvokeResponse => {}
            ClientMessage::StartStream {
                group,
                stream_id,
                idle_timeout_ms,
                no_echo,
                ttl_seconds,
                metadata,
            } => {
                let stream = Stream::new(group, no_echo, ttl_seconds, metadata);
                self.start_stream(now, slot, stream_id, idle_timeout_ms, stream, effects);
            }
            ClientMessage::StreamData { stream_id, sequence_id, data } => {
                self.stream_data(now, slot, stream_id, sequence_id, data, effects);
            }
            ClientMessage::EndStream { stream_id, error } => {
                self.end_stream(now, slot, stream_id, error, effects);
            }
            ClientMessage::SetGroupState { group, ack_id, state } => {
                self.acknowledged(slot, ack_id, effects, |hub, effects| {
                    hub.set_group_state(now, slot, &group, state, effects)
                });
            }
            ClientMessage::SubscribeGroupState { group, ack_id } => {
                self.subscribe_group_state(now, slot, &group, ack_id, effects);
            }
            ClientMessage::UnsubscribeGroupState { group, ack_id } => {
                self.acknowledged(slot, ack_id, effects, |hub, _| {
                    hub.unsubscribe_group_state(slot, &group);
                    Ok(())
                });
            }
        }
    }

    /// Does something once, however often it is asked for under the same ack id, and says how it went.
    pub(super) fn acknowledged(
        &mut self,
        slot: Slot,
        ack_id: Option<u64>,
        effects: &mut Vec<Effect>,
        act: impl FnOnce(&mut Self, &mut Vec<Effect>) -> Outcome,
    ) {
        if let Some(ack_id) = ack_id
            && self.is_duplicate(slot, ack_id, effects)
        {
            return;
        }
        let outcome = act(self, effects);
        let Some(ack_id) = ack_id else { return };
        if outcome.is_ok()
            && let Some(conversation) =
                self.web_pubsub_mut(slot).and_then(|one| one.conversation.as_mut())
        {
            conversation.acks.insert(ack_id);
        }
        self.tell(slot, &ServerMessage::Ack { ack_id, error: outcome.err() }, effects);
    }

    /// Says whether something has been done before, to the client too.
    fn is_duplicate(&self, slot: Slot, ack_id: u64, effects: &mut Vec<Effect>) -> bool {
        let conversation = self
            .open_at(slot)
            .and_then(|open| open.web_pubsub())
            .and_then(|web_pubsub| web_pubsub.conversation.as_ref());
        if !conversation.is_some_and(|conversation| conversation.acks.contains(ack_id)) {
            return false;
        }
        let error = NamedError {
            name: "Duplicate".to_owned(),
            message: format!("Message with ack-id: {ack_id} has been processed"),
        };
        self.tell(slot, &ServerMessage::Ack { ack_id, error: Some(error) }, effects);
        true
    }

    fn client_event(
        &mut self,
        now: UnixMillis,
        slot: Slot,
        event: UserEvent,
        ack_id: Option<u64>,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(ack_id) = ack_id {
            if self.is_duplicate(slot, ack_id, effects) {
                return;
            }
            let pending = Pending::Ack(ack_id);
            let Some(conversation) =
                self.web_pubsub_mut(slot).and_then(|one| one.conversation.as_mut())
            else {
                return;
            };
            // The ack of the first one will answer the repetition too.
            if conversation.pending.contains(&pending) {
                return;
            }
            if PENDING_MAX <= conversation.pending.len() {
                let error = Some(bad_request("too many events wait for their acks"));
                self.tell(slot, &ServerMessage::Ack { ack_id, error }, effects);
                return;
            }
            conversation.pending.push(pending);
        }
        self.raise_user_event(now, slot, event, Then::Event { ack_id }, effects);
    }

    fn client_invokes(
        &mut self,
        now: UnixMillis,
        slot: Slot,
        event: UserEvent,
        id: String,
        effects: &mut Vec<Effect>,
    ) {
        let Some(conversation) =
            self.web_pubsub_mut(slot).and_then(|one| one.conversation.as_mut())
        else {
            return;
        };
        let refusal = if conversation.is_asking(&id) {
            Some("the invocation id is in use")
        } else if PENDING_MAX <= conversation.pending.len() {
            Some("too many invocations wait for their answers")
        } else {
            None
        };
        if let Some(words) = refusal {
            let result = Err(bad_request(words));
            self.tell(slot, &ServerMessage::InvokeResponse { invocation_id: id, result }, effects);
            return;
        }
        let number = conversation.number_invocation();
        conversation.pending.push(Pending::Invocation { id: id.clone(), number });
        self.raise_user_event(now, slot, event, Then::Invocation { id, number }, effects);
    }

    fn client_join(&mut self, slot: Slot, group: &GroupName, effects: &mut Vec<Effect>) -> Outcome {
        self.permitted(slot, Permission::JoinLeaveGroup, group)?;
        let Some(open) = self.open_at(slot) else { return Ok(()) };
        let hub = self.hub_of(open).clone();
        match self.join_group(slot, &hub, group, Reasons::CONNECTION, effects) {
            Joined::New | Joined::Already | Joined::Absent => Ok(()),
            Joined::TooMany => Err(bad_request("The connection is in too many groups.")),
        }
    }

    fn client_leave(
        &mut self,
        now: UnixMillis,
        slot: Slot,
        group: &GroupName,
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        self.permitted(slot, Permission::JoinLeaveGroup, group)?;
        let Some(open) = self.open_at(slot) else { return Ok(()) };
        let hub = self.hub_of(open).clone();
        self.leave_group(now, slot, &hub, group, Reasons::CONNECTION, effects);
        Ok(())
    }

    pub(super) fn permitted(
        &self,
        slot: Slot,
        permission: Permission,
        group: &GroupName,
    ) -> Outcome {
        let web_pubsub = self.open_at(slot).and_then(|open| open.web_pubsub());
        let may = web_pubsub.is_some_and(|one| one.permissions.may(permission, group));
        if may { Ok(()) } else { Err(forbidden()) }
    }

    /// Publishes to a group in the name of a connection.
    pub(super) fn post(
        &mut self,
        now: UnixMillis,
        slot: Slot,
        post: Post,
        effects: &mut Vec<Effect>,
    ) -> Outcome {
        self.permitted(slot, Permission::SendToGroup, &post.group)?;
        self.post_permitted(now, slot, post, effects);
        Ok(())
    }

    pub(super) fn post_permitted(
        &mut self,
        now: UnixMillis,
        slot: Slot,
        post: Post,
        effects: &mut Vec<Effect>,
    ) {
        let Some(open) = self.open_at(slot) else { return };
        let Post { group, data, metadata, stream, no_echo, ttl_seconds } = post;
        let source = Source::Group { group: group.clone(), user: self.user_of(open) };
        let excluded: Vec<ConnectionId> = no_echo.then_some(open.id).into_iter().collect();
        let envelope = Envelope {
            hub: self.hub_of(open).clone(),
            target: Target::Group(group),
            action: Action::Deliver(Delivery {
                content: Content::of(Publication { source, data, metadata, stream }),
                excluded: excluded.into(),
                filter: None,
                ttl_seconds,
            }),
        };
        self.publish(now, envelope, effects);
    }
}
