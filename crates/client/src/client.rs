//! A client of Azure Web PubSub: one connection by a subprotocol, recovered when its transport is lost and replaced when it is over.

pub mod conformance;
pub(crate) mod dial;
mod error;
mod event;
mod sending;
mod session;
pub(crate) mod socket;
mod source;
mod stream;
mod task;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use hookwire_proto::data::Metadata;
use hookwire_proto::deflate::Compression;
use hookwire_proto::handler::is_event_name;
use hookwire_proto::name::GroupName;
use hookwire_proto::subprotocol::{ClientMessage, GroupState, Subprotocol};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use self::dial::Dialer;
pub use self::error::{ClientError, ConnectError};
pub use self::event::{ClientEvent, Connected, GroupMessage, ServerMessage, Stopped};
pub use self::sending::Sending;
use self::session::{Ack, Ask, Config, Reply, Session};
pub use self::session::{CHOSEN_ACK_IDS, MESSAGE_BYTES_MAX};
pub use self::source::UrlSource;
pub use self::stream::GroupStream;
use self::task::{Command, ReplyTo, Task};
use crate::payload::Payload;
use crate::trust::Trust;

/// A client by one of the four subprotocols. Cloning it is cheap; when the last clone is dropped the connection is closed.
///
/// A connection by a reliable subprotocol survives the loss of its transport for 30 s: nothing is missed, nothing comes twice, and
/// requests that wait for their answer are asked again without being carried out twice. If it cannot be had back, and with the other
/// subprotocols at once, the client connects anew and joins its groups again; [`ClientEvent::Disconnected`] tells that something may
/// have been missed.
///
/// Requests made without a connection wait for one. Each has a time limit, and is answered with an error if the answer is unknown.
///
/// ```no_run
/// # async fn example(url: url::Url) -> Result<(), Box<dyn std::error::Error>> {
/// use hookwire_client::{Client, ClientEvent, Payload};
///
/// let (client, mut events) = Client::connect(url).await?;
/// client.join_group("readers").await?;
/// client.send_to_group("readers", "hello").await?;
/// client.send_event("order", Payload::json(&("tea", 2))?).await?;
///
/// while let Some(event) = events.next().await {
///     match event {
///         ClientEvent::Group(message) => println!("{}: {:?}", message.group, message.payload.as_text()),
///         ClientEvent::Server(message) => println!("{:?}", message.payload.as_text()),
///         _ => {}
///     }
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    stop: Arc<Notify>,
    identity: watch::Receiver<Option<Connected>>,
    timeout: Duration,
}

/// What becomes of a request that was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// It was carried out before, under the same ack id.
    pub is_duplicate: bool,
}

impl Client {
    /// Connects by [`Subprotocol::JsonReliable`]. Returns when the service has greeted the client.
    ///
    /// # Errors
    /// [`ConnectError`]. The first attempt is the only one: what goes wrong now is mostly a set-up.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn connect(url: impl Into<UrlSource>) -> Result<(Self, Events), ConnectError> {
        Self::builder(url).connect().await
    }

    /// Connects in another way.
    pub fn builder(url: impl Into<UrlSource>) -> ClientBuilder {
        ClientBuilder {
            source: url.into(),
            subprotocol: Subprotocol::JsonReliable,
            reconnects: true,
            rejoins: true,
            compresses: false,
            timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(10),
            delay_min: Duration::from_secs(1),
            delay_max: Duration::from_secs(30),
            trust: Trust::default(),
        }
    }

    /// Returns what is known of the present connection; nothing while there is none.
    pub fn connection(&self) -> Option<Connected> {
        self.identity.borrow().clone()
    }

    /// Joins a group: its messages come as [`ClientEvent::Group`]. The client joins it again on every new connection.
    ///
    /// # Errors
    /// [`ClientError::Refused`] without permission; [`ClientError`] as for every request.
    pub async fn join_group(&self, group: &str) -> Result<(), ClientError> {
        let group = GroupName::parse(group)?;
        self.ask(ClientMessage::JoinGroup { group, ack_id: None }).await.map(drop)
    }

    /// Leaves a group.
    ///
    /// # Errors
    /// [`ClientError::Refused`] without permission; [`ClientError`] as for every request.
    pub async fn leave_group(&self, group: &str) -> Result<(), ClientError> {
        let group = GroupName::parse(group)?;
        self.ask(ClientMessage::LeaveGroup { group, ack_id: None }).await.map(drop)
    }

    /// Sends to a group. The sender needs permission; it needs not be in the group.
    ///
    /// # Errors
    /// [`ClientError::Refused`] without permission; [`ClientError`] as for every request.
    pub async fn send_to_group(
        &self,
        group: &str,
        message: impl Into<Sending>,
    ) -> Result<Receipt, ClientError> {
        let mut sending = message.into();
        let (group, ttl_seconds) = (GroupName::parse(group)?, sending.ttl_seconds()?);
        let metadata = sending.take_metadata()?;
        let message = ClientMessage::SendToGroup {
            group,
            ack_id: None,
            no_echo: sending.no_echo,
            ttl_seconds,
            data: sending.payload.into_data(),
            metadata,
        };
        let limit = sending.timeout.unwrap_or(self.timeout);
        self.request(Ask { message, ack: sending.ack, limit }).await.map(|reply| receipt(&reply))
    }

    /// Raises an event at the application. Its answer, if it gives one, comes as [`ClientEvent::Server`] before this returns.
    ///
    /// # Errors
    /// [`ClientError::Refused`] when nobody handles the event or the application failed; [`ClientError`] as for every request.
    pub async fn send_event(
        &self,
        name: &str,
        message: impl Into<Sending>,
    ) -> Result<Receipt, ClientError> {
        if !is_event_name(name) {
            return Err(ClientError::EventName);
        }
        let mut sending = message.into();
        let metadata = sending.take_metadata()?;
        let message = ClientMessage::Event {
            event: name.to_owned(),
            ack_id: None,
            data: sending.payload.into_data(),
            metadata,
        };
        let limit = sending.timeout.unwrap_or(self.timeout);
        self.request(Ask { message, ack: sending.ack, limit }).await.map(|reply| receipt(&reply))
    }

    /// Raises an event at the application and returns its answer, if it gives one. When the transport is lost meanwhile the answer is
    /// lost with it.
    ///
    /// # Errors
    /// [`ClientError::Refused`] when nobody handles the event or the application failed; [`ClientError`] as for every request.
    pub async fn invoke(
        &self,
        name: &str,
        payload: Option<Payload>,
    ) -> Result<Option<Payload>, ClientError> {
        if !is_event_name(name) {
            return Err(ClientError::EventName);
        }
        let message = ClientMessage::Invoke {
            invocation_id: String::new(),
            event: name.to_owned(),
            data: payload.map(Payload::into_data),
            metadata: Metadata::default(),
        };
        match self.ask(message).await? {
            Reply::Answer(answer) => Ok(answer),
            Reply::Done { .. } | Reply::Stream(_) => Ok(None),
        }
    }

    /// Sets the client's own state in a group that it is in, or takes it back. The state belongs to the connection: set it again on a
    /// new one.
    ///
    /// # Errors
    /// [`ClientError::Refused`] without permission, outside of the group or with too long a state; [`ClientError`] as for every request.
    pub async fn set_group_state(
        &self,
        group: &str,
        state: Option<GroupState>,
    ) -> Result<(), ClientError> {
        let group = GroupName::parse(group)?;
        self.ask(ClientMessage::SetGroupState { group, ack_id: None, state }).await.map(drop)
    }

    /// Asks for the states of a group's members and their changes, which come as [`ClientEvent::GroupState`] until the connection is
    /// over.
    ///
    /// # Errors
    /// [`ClientError::Refused`] without permission or outside of the group; [`ClientError`] as for every request.
    pub async fn subscribe_group_state(&self, group: &str) -> Result<(), ClientError> {
        let group = GroupName::parse(group)?;
        self.ask(ClientMessage::SubscribeGroupState { group, ack_id: None }).await.map(drop)
    }

    /// Asks for them no more.
    ///
    /// # Errors
    /// [`ClientError`], as for every request.
    pub async fn unsubscribe_group_state(&self, group: &str) -> Result<(), ClientError> {
        let group = GroupName::parse(group)?;
        self.ask(ClientMessage::UnsubscribeGroupState { group, ack_id: None }).await.map(drop)
    }

    /// Closes the connection and returns when it is closed. Requests that wait are answered with [`ClientError::Stopped`].
    pub async fn stop(&self) {
        self.stop.notify_one();
        self.commands.closed().await;
    }

    async fn ask(&self, message: ClientMessage) -> Result<Reply, ClientError> {
        self.request(Ask { message, ack: Ack::Own, limit: self.timeout }).await
    }

    async fn request(&self, ask: Ask) -> Result<Reply, ClientError> {
        self.command(|reply_to| Command::Ask(ask, reply_to)).await
    }

    async fn command(&self, make: impl FnOnce(ReplyTo) -> Command) -> Result<Reply, ClientError> {
        let (reply_to, reply) = oneshot::channel();
        self.commands.send(make(reply_to)).await.map_err(|_| ClientError::Stopped)?;
        reply.await.unwrap_or(Err(ClientError::Stopped))
    }
}

fn receipt(reply: &Reply) -> Receipt {
    Receipt { is_duplicate: *reply == Reply::Done { is_duplicate: true } }
}

/// How a client connects.
#[derive(Clone, Debug)]
pub struct ClientBuilder {
    source: UrlSource,
    subprotocol: Subprotocol,
    reconnects: bool,
    rejoins: bool,
    compresses: bool,
    timeout: Duration,
    connect_timeout: Duration,
    delay_min: Duration,
    delay_max: Duration,
    trust: Trust,
}

impl ClientBuilder {
    /// Sets the subprotocol. Default: [`Subprotocol::JsonReliable`].
    #[must_use]
    pub fn subprotocol(self, subprotocol: Subprotocol) -> Self {
        Self { subprotocol, ..self }
    }

    /// Says whether to connect anew when the connection is over. Default: yes.
    #[must_use]
    pub fn reconnect(self, reconnects: bool) -> Self {
        Self { reconnects, ..self }
    }

    /// Says whether to join on a new connection the groups of the one before. Default: yes.
    #[must_use]
    pub fn rejoin(self, rejoins: bool) -> Self {
        Self { rejoins, ..self }
    }

    /// Says whether to offer compression of messages (permessage-deflate), which the service may decline. Default: no.
    #[must_use]
    pub fn compression(self, compresses: bool) -> Self {
        Self { compresses, ..self }
    }

    /// Sets how long a request waits for its answer. Default: 30 s.
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// Sets how long opening a transport may take. Default: 10 s.
    #[must_use]
    pub fn connect_timeout(self, connect_timeout: Duration) -> Self {
        Self { connect_timeout, ..self }
    }

    /// Sets the pause before the second attempt at a new connection and the longest one; between them each is twice as long as the one
    /// before, less up to a half by chance. Default: 1 s and 30 s.
    #[must_use]
    pub fn reconnect_delay(self, shortest: Duration, longest: Duration) -> Self {
        Self { delay_min: shortest, delay_max: longest.max(shortest), ..self }
    }

    /// Says whom to believe that the service is who it says it is. Default: the public authorities.
    #[must_use]
    pub fn trust(self, trust: Trust) -> Self {
        Self { trust, ..self }
    }

    /// Connects. Returns when the service has greeted the client.
    ///
    /// The events must be taken or dropped: while [`EVENTS_MAX`] of them wait, nothing is read from the service, answers included.
    ///
    /// # Errors
    /// [`ConnectError`]. The first attempt is the only one: what goes wrong now is mostly a set-up.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub async fn connect(self) -> Result<(Client, Events), ConnectError> {
        let compression = self.compresses.then(Compression::default);
        let dialer = Dialer::new(Some(self.subprotocol), self.connect_timeout, &self.trust)?
            .offering(compression);
        let seed = dial::random().map_or(0, u64::from_ne_bytes);
        let config = Config {
            subprotocol: self.subprotocol,
            reconnects: self.reconnects,
            rejoins: self.rejoins,
            is_url_fixed: self.source.is_fixed(),
            delay_min: self.delay_min,
            delay_max: self.delay_max,
            seed,
        };
        let (to_task, commands) = mpsc::channel(COMMANDS_MAX);
        let (events, from_task) = mpsc::channel(EVENTS_MAX);
        let (identity, known) = watch::channel(None);
        let (ready, is_ready) = oneshot::channel();
        let stop = Arc::new(Notify::new());
        let task = Task {
            session: Session::new(config, tokio::time::Instant::now().into_std()),
            dialer,
            source: self.source,
            commands,
            stop: Arc::clone(&stop),
            events,
            identity,
            ready: Some(ready),
        };
        // It ends when the last client is dropped, this one included if nobody waits for it.
        tokio::spawn(task.run());
        let client = Client { commands: to_task, stop, identity: known, timeout: self.timeout };
        match is_ready.await {
            Ok(Ok(())) => Ok((client, Events(from_task))),
            Ok(Err(error)) => Err(Arc::unwrap_or_clone(error)),
            Err(_) => Err(ConnectError::Closed { code: None }),
        }
    }
}

/// What happens to a client, in order. Dropped, it goes unheard.
#[derive(Debug)]
pub struct Events(mpsc::Receiver<ClientEvent>);

impl Events {
    /// Waits for the next event; nothing after [`ClientEvent::Stopped`]. Cancel-safe.
    pub async fn next(&mut self) -> Option<ClientEvent> {
        self.0.recv().await
    }
}

impl Stream for Events {
    type Item = ClientEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context)
    }
}

/// Most events that wait for the application. While there are so many nothing is read from the service.
pub const EVENTS_MAX: usize = 1_024;

/// Most requests on their way to the client's task. More wait in their callers.
const COMMANDS_MAX: usize = 64;
