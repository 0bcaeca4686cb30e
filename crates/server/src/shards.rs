//! The handle by which the runtime reaches the shards of its node.

use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use hookwire_hub::{Answer, Command, Connecting, Input, Recovering, Settings};
use hookwire_proto::envelope::{Envelope, Target};
use hookwire_proto::name::{ConnectionId, HubName};
use rustls::ServerConnection;
use tokio::sync::oneshot;

use crate::shard::{Letter, Mailbox, ShardLimits, Shared};

/// How long a question may take; a shard that is slower is in trouble.
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// The shards of a node. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shards {
    node: u32,
    shared: Shared,
}

/// The answer to a client that wants in.
#[derive(Debug)]
pub enum Admission {
    /// The connection exists; its socket must follow by [`Shards::attach`] or be given up by [`Shards::abandon`].
    Admitted {
        /// The chosen subprotocol.
        subprotocol: Option<String>,
        /// Whether the client's offer of compression is taken.
        is_deflated: bool,
    },
    /// The connection that the client wants back is not here.
    NotRecovered,
    /// The handshake is refused.
    Refused {
        /// The HTTP status.
        status: u16,
        /// The type of the body.
        content_type: Option<String>,
        /// The body.
        body: Bytes,
        /// Why; absent: the upstream said no.
        words: Option<&'static str>,
    },
}

/// A socket on which the handshake of a WebSocket is done.
#[derive(Debug)]
pub struct Upgraded {
    /// The socket. It never waits.
    pub socket: TcpStream,
    /// The TLS session over it, with what it has decrypted after `leftover` and what it has not sent yet.
    pub tls: Option<ServerConnection>,
    /// What the client has sent after its request and was read already.
    pub leftover: Bytes,
}

/// An inbox holds more than its limit, of all hubs or of this one; try again later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the service is overloaded")]
pub struct Overloaded;

/// A question was not answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a shard did not answer in time")]
pub struct NoAnswer;

impl Shards {
    pub(crate) const fn new(node: u32, shared: Shared) -> Self {
        Self { node, shared }
    }

    /// Returns the connections of the node, with those on their way in and those that wait for their clients to come back.
    pub fn load(&self) -> usize {
        let load = |mailbox: &Mailbox| {
            mailbox.load.load(Ordering::Relaxed) + mailbox.recovering.load(Ordering::Relaxed)
        };
        self.shared.mailboxes.iter().map(load).sum()
    }

    /// Puts the envelope into the inbox of every shard concerned; returns when it stands there. Cost: two locks per shard.
    ///
    /// # Errors
    /// [`Overloaded`] while any inbox is over its limit, or one concerned is over that of the hub.
    pub fn send(&self, envelope: Envelope) -> Result<(), Overloaded> {
        if self.shared.pressure.is_high() {
            return Err(Overloaded);
        }
        if let Target::Connection(id) = &envelope.target {
            if let Some(mailbox) = self.mailbox(id) {
                if mailbox.is_full(&envelope.hub) {
                    return Err(Overloaded);
                }
                self.push(mailbox, Letter::Deliver(envelope));
            }
        } else {
            if self.shared.mailboxes.iter().any(|mailbox| mailbox.is_full(&envelope.hub)) {
                return Err(Overloaded);
            }
            for mailbox in self.shared.mailboxes.iter() {
                self.push(mailbox, Letter::Deliver(envelope.clone()));
            }
        }
        Ok(())
    }

    /// Asks the shard of the connection concerned, or all shards, and joins the answers: `Yes` if any shard says so, lists merged. An id
    /// that names no shard of this node is absent.
    ///
    /// # Errors
    /// [`NoAnswer`] after [`ANSWER_TIME_MAX`].
    pub async fn ask(&self, command: Command) -> Result<Answer, NoAnswer> {
        let mut limit = 0;
        if let Command::ListConnections { limit: most, .. }
        | Command::ListNames { limit: most, .. } = &command
        {
            limit = *most;
        }
        let concerned: Vec<&Mailbox> = match connection(&command) {
            Some(id) => self.mailbox(id).into_iter().collect(),
            None => self.shared.mailboxes.iter().collect(),
        };
        let answers = concerned.into_iter().map(|mailbox| {
            let (sender, receiver) = oneshot::channel();
            self.push(mailbox, Letter::Ask(command.clone(), sender));
            receiver
        });
        let answers = in_time(join_all(answers.collect::<Vec<_>>())).await?;
        let mut joined = Answer::No;
        for answer in answers {
            joined = join(joined, answer.map_err(|_| NoAnswer)?, limit);
        }
        Ok(joined)
    }

    /// Returns an id on the least loaded shard. Cost: 16 random bytes.
    pub fn new_connection_id(&self) -> ConnectionId {
        let loads =
            self.shared.mailboxes.iter().map(|mailbox| mailbox.load.load(Ordering::Relaxed));
        let shard = loads.enumerate().min_by_key(|(_, load)| *load).map_or(0, |(at, _)| at);
        ConnectionId::new(self.node, u16::try_from(shard).unwrap_or_default(), random())
    }

    /// Brings a client before its hub, which may ask an upstream; waits for the verdict. Not cancel-safe: run it in a tracked task.
    ///
    /// # Errors
    /// [`NoAnswer`] when the node is shutting down.
    pub async fn connect(&self, connecting: Connecting) -> Result<Admission, NoAnswer> {
        let mailbox = self.mailbox(&connecting.id).ok_or(NoAnswer)?;
        Self::verdict(mailbox, |sender| {
            self.push(mailbox, Letter::Connect(Box::new(connecting), sender));
        })
        .await
    }

    /// Brings a client that wants its connection back before its hub. Not cancel-safe: run it in a tracked task.
    ///
    /// # Errors
    /// [`NoAnswer`] when the node is shutting down.
    pub async fn recover(&self, recovering: Recovering) -> Result<Admission, NoAnswer> {
        let Some(mailbox) = self.mailbox(&recovering.id) else {
            return Ok(Admission::NotRecovered);
        };
        Self::verdict(mailbox, |sender| {
            self.push(mailbox, Letter::Recover(Box::new(recovering), sender));
        })
        .await
    }

    async fn verdict(
        mailbox: &Mailbox,
        ask: impl FnOnce(oneshot::Sender<Admission>),
    ) -> Result<Admission, NoAnswer> {
        let (sender, receiver) = oneshot::channel();
        mailbox.load.fetch_add(1, Ordering::Relaxed);
        ask(sender);
        let verdict = receiver.await;
        // An admitted connection has been counted by its shard meanwhile.
        mailbox.load.fetch_sub(1, Ordering::Relaxed);
        verdict.map_err(|_| NoAnswer)
    }

    /// Hands the upgraded socket of an admitted connection to its shard.
    pub fn attach(&self, id: ConnectionId, upgraded: Upgraded) {
        if let Some(mailbox) = self.mailbox(&id) {
            self.push(mailbox, Letter::Attach(id, Box::new(upgraded)));
        }
    }

    /// Says that an admitted connection will get no socket: its client left during the handshake.
    pub fn abandon(&self, id: ConnectionId) {
        if let Some(mailbox) = self.mailbox(&id) {
            self.push(mailbox, Letter::Abandon(id));
        }
    }

    /// Gives every shard new settings; returns when all of them decide by these.
    ///
    /// # Errors
    /// [`NoAnswer`] after [`ANSWER_TIME_MAX`].
    pub async fn apply_settings(&self, settings: &Arc<Settings>) -> Result<(), NoAnswer> {
        all(self.push_to_all(|sender| Letter::Settings(settings.clone(), sender))).await
    }

    /// Gives every shard new limits; returns when all of them hold.
    ///
    /// # Errors
    /// [`NoAnswer`] after [`ANSWER_TIME_MAX`].
    pub(crate) async fn apply_limits(&self, limits: ShardLimits) -> Result<(), NoAnswer> {
        all(self.push_to_all(|sender| Letter::Limits(limits, sender))).await
    }

    /// Closes all connections and returns when every one of their events has been handed out, or after `patience`.
    pub(crate) async fn drain(&self, patience: Duration) -> bool {
        let drained = join_all(self.push_to_all(Letter::Drain));
        tokio::time::timeout(patience, drained).await.is_ok()
    }

    /// Ends the threads.
    pub(crate) fn stop(&self) {
        for mailbox in self.shared.mailboxes.iter() {
            self.push(mailbox, Letter::Stop);
        }
    }

    /// Brings news of an upstream call to the shard that made it.
    pub(crate) fn upstream(&self, shard: usize, hub: &HubName, input: Input) {
        self.push(&self.shared.mailboxes[shard], Letter::Upstream(hub.clone(), input));
    }

    fn push_to_all<T>(
        &self,
        letter: impl Fn(oneshot::Sender<T>) -> Letter,
    ) -> Vec<oneshot::Receiver<T>> {
        let push = |mailbox| {
            let (sender, receiver) = oneshot::channel();
            self.push(mailbox, letter(sender));
            receiver
        };
        self.shared.mailboxes.iter().map(push).collect()
    }

    fn push(&self, mailbox: &Mailbox, letter: Letter) {
        mailbox.push(letter, &self.shared.pressure);
    }

    /// Returns the inbox of the shard that an id names, if it is one of this node.
    fn mailbox(&self, id: &ConnectionId) -> Option<&Mailbox> {
        (id.node == self.node).then(|| self.shared.mailboxes.get(usize::from(id.shard)))?
    }
}

/// Returns the connection that a command concerns, if it is a single one.
const fn connection(command: &Command) -> Option<&ConnectionId> {
    match command {
        Command::AddConnectionToGroup { connection, .. }
        | Command::RemoveConnectionFromGroup { connection, .. }
        | Command::RemoveConnectionFromAllGroups { connection, .. }
        | Command::CloseConnection { connection, .. }
        | Command::Permission { connection, .. }
        | Command::Describe { connection, .. }
        | Command::Exists { target: Target::Connection(connection), .. } => Some(connection),
        Command::Exists { .. }
        | Command::RegroupUser { .. }
        | Command::Regroup { .. }
        | Command::CloseConnections { .. }
        | Command::UserInGroup { .. }
        | Command::Membership { .. }
        | Command::ListConnections { .. }
        | Command::ListNames { .. } => None,
    }
}

/// Joins the answers of two shards; lists to at most `limit` items in their order, each once.
fn join(one: Answer, other: Answer, limit: usize) -> Answer {
    match (one, other) {
        (Answer::Names(mut names), Answer::Names(more)) => {
            names.extend(more);
            names.sort_unstable();
            names.dedup();
            names.truncate(limit);
            Answer::Names(names)
        }
        (Answer::Connections(mut connections), Answer::Connections(more)) => {
            connections.extend(more);
            connections.sort_unstable_by_key(|connection| connection.id);
            connections.truncate(limit);
            Answer::Connections(connections)
        }
        (one, Answer::No) => one,
        (Answer::TooMany, Answer::Yes) => Answer::TooMany,
        (_, other) => other,
    }
}

/// Waits until all have answered.
async fn all(answers: Vec<oneshot::Receiver<()>>) -> Result<(), NoAnswer> {
    for answer in in_time(join_all(answers)).await? {
        answer.map_err(|_| NoAnswer)?;
    }
    Ok(())
}

async fn in_time<F: Future>(future: F) -> Result<F::Output, NoAnswer> {
    tokio::time::timeout(ANSWER_TIME_MAX, future).await.map_err(|_| NoAnswer)
}

/// Returns bytes from the operating system's generator.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)
        .expect("the operating system gives random bytes once it has started");
    bytes
}

#[cfg(test)]
mod tests {
    use hookwire_proto::envelope::Content;
    use hookwire_proto::message::Message;

    use super::*;
    use crate::shard::mailboxes;

    #[test]
    fn who_fills_a_lane_is_refused_and_nobody_else() {
        const MESSAGE_BYTES: usize = 1024 * 1024;
        let (shared, _polls) = mailboxes(2).unwrap();
        let shards = Shards::new(1, shared);
        let send = |hub: &str, target: Target| {
            let content = Content::new(Message::text("x".repeat(MESSAGE_BYTES)));
            shards.send(Envelope::new(HubName::parse(hub).unwrap(), target, content))
        };
        // With what each takes beside its payload, four are more than the limit.
        let first = (0..9).take_while(|_| send("noisy", Target::Hub).is_ok()).count();
        assert_eq!(first, 4);
        let of_noisy = Target::Connection(ConnectionId::new(1, 0, [0; 16]));
        assert_eq!(send("noisy", of_noisy), Err(Overloaded));
        assert_eq!(send("quiet", Target::Hub), Ok(()));
    }
}
