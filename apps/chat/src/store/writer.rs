//! Changes of documents, in order and together: whatever asks for a change of one document while an earlier change is being
//! written goes into the next version with the others.
//!
//! Each document in use has one task of this process, so changes from here never compete with each other; changes from other
//! processes do, and the loser starts again from the newest version. Nothing is answered before it is durable.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use object_store::ObjectStore;
use object_store::path::Path;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::task::TaskTracker;

use super::chain::{Appended, Chain, Retention, Version};
use super::{Random, StoreError};
use crate::refusal::{self, Code, Refusal};

/// Something that is stored as a chain of versions.
pub(crate) trait Document:
    Clone + Serialize + DeserializeOwned + Send + Sync + 'static
{
    type Change: Send + Sync + 'static;
    type Answer: Send + 'static;
    /// What changes must know beside the document: facts that never change once they are true.
    type Memory: Default + Send + 'static;

    /// Where the document of that name is kept.
    fn folder(name: &str) -> Path;

    /// Whether what was read is the document of that name and holds together.
    ///
    /// # Errors
    /// What is wrong with it.
    fn check(&self, name: &str) -> Result<(), &'static str>;

    /// Brings a document that is known to be stored into shape for further changes: completes the memory, moves away what grew too
    /// long. The document stays equivalent.
    fn prepare(
        &mut self,
        memory: &mut Self::Memory,
        objects: &Arc<dyn ObjectStore>,
    ) -> impl Future<Output = Result<(), StoreError>> + Send {
        let _ = (memory, objects);
        std::future::ready(Ok(()))
    }

    /// Applies a change to the document of that name, which may not exist yet.
    ///
    /// # Errors
    /// [`Refusal`] when the change is not possible. Then nothing changed.
    fn apply(
        document: &mut Option<Self>,
        memory: &Self::Memory,
        name: &str,
        change: &Self::Change,
    ) -> Result<Applied<Self::Answer>, Refusal>;
}

/// What a change did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Applied<A> {
    pub(crate) answer: A,
    /// Whether there is something to write.
    pub(crate) changed: bool,
}

impl<A> Applied<A> {
    pub(crate) fn changed(answer: A) -> Self {
        Self { answer, changed: true }
    }

    pub(crate) fn unchanged(answer: A) -> Self {
        Self { answer, changed: false }
    }
}

/// Writes all documents of one kind.
pub(crate) struct Writer<D: Document>(Arc<Shared<D>>);

/// What is called for each change that was made, in order, after it is durable and before it is answered.
pub(crate) type Committed<D> = Box<dyn Fn(&D, &<D as Document>::Answer) + Send + Sync>;

/// How documents of one kind are written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// From the start of one version to the start of the next of the same document. The first change never waits.
    pub(crate) interval: Duration,
    /// Documents that are being changed at a time. Changes of one more are refused.
    pub(crate) documents_max: usize,
    pub(crate) retention: Retention,
}

struct Shared<D: Document> {
    objects: Arc<dyn ObjectStore>,
    pace: Pace,
    random: Random,
    committed: Committed<D>,
    tasks: TaskTracker,
    /// The documents in use. Empty and closed after a shutdown began.
    open: Mutex<Open<D>>,
}

struct Open<D: Document> {
    closed: bool,
    documents: HashMap<String, mpsc::Sender<Job<D>>>,
}

struct Job<D: Document> {
    change: D::Change,
    reply: oneshot::Sender<Result<D::Answer, Refusal>>,
}

impl<D: Document> Writer<D> {
    pub(crate) fn new(
        objects: Arc<dyn ObjectStore>,
        pace: Pace,
        random: Random,
        committed: Committed<D>,
    ) -> Self {
        Self(Arc::new(Shared {
            objects,
            pace,
            random,
            committed,
            tasks: TaskTracker::new(),
            open: Mutex::new(Open { closed: false, documents: HashMap::new() }),
        }))
    }

    /// Makes a change and waits until it is durable. If the caller stops waiting, the change may still be made.
    ///
    /// # Errors
    /// [`Refusal`] of the change, or [`Code::Unavailable`] when it could not be written; then it may have been made or not.
    pub(crate) async fn change(&self, name: &str, change: D::Change) -> Result<D::Answer, Refusal> {
        let answer = self.begin(name, change)?;
        answer.await.unwrap_or_else(|_| Err(Refusal::new(Code::Unavailable, SHUTTING_DOWN)))
    }

    /// Begins a change that nobody waits for. A failure is logged.
    pub(crate) fn change_later(&self, name: &str, change: D::Change) {
        if let Err(refusal) = self.begin(name, change) {
            tracing::warn!(?refusal, "a change was not begun");
        }
    }

    /// Reads the newest version of a document.
    ///
    /// # Errors
    /// [`StoreError`] when it cannot be read.
    pub(crate) async fn read(&self, name: &str) -> Result<Option<D>, StoreError> {
        let version = self.0.load(name).await?;
        Ok(version.and_then(|version| version.document))
    }

    /// Refuses further changes and waits until all that were begun are answered.
    pub(crate) async fn close(&self) {
        {
            let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
            open.closed = true;
            open.documents.clear(); // Their tasks end once their queues are empty.
        }
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    fn begin(
        &self,
        name: &str,
        change: D::Change,
    ) -> Result<oneshot::Receiver<Result<D::Answer, Refusal>>, Refusal> {
        let (reply, answer) = oneshot::channel();
        let mut open = self.0.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.closed {
            return Err(Refusal::new(Code::Unavailable, SHUTTING_DOWN));
        }
        let job = Job { change, reply };
        match open.documents.get(name) {
            Some(jobs) => {
                jobs.try_send(job).map_err(|_| Refusal::new(Code::Unavailable, BUSY))?;
            }
            None if open.documents.len() == self.0.pace.documents_max => {
                return Err(Refusal::new(Code::Unavailable, BUSY));
            }
            None => {
                let (jobs, queue) = mpsc::channel(CHANGES_WAITING_MAX);
                jobs.try_send(job).map_err(|_| Refusal::new(Code::Unavailable, BUSY))?;
                open.documents.insert(name.to_owned(), jobs);
                let shared = Arc::clone(&self.0);
                self.0.tasks.spawn(shared.keep(name.to_owned(), queue));
            }
        }
        Ok(answer)
    }
}

impl<D: Document> fmt::Debug for Writer<D> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Writer").field("pace", &self.0.pace).finish_non_exhaustive()
    }
}

impl<D: Document> Shared<D> {
    /// The task of one document: one version after another, until nothing happened for a while.
    async fn keep(self: Arc<Self>, name: String, mut queue: mpsc::Receiver<Job<D>>) {
        let (mut known, mut memory) = (None, D::Memory::default());
        let mut due = Instant::now();
        loop {
            match timeout(DOCUMENT_IDLE_MAX, queue.recv()).await {
                Ok(Some(job)) => {
                    sleep_until(due).await;
                    due = Instant::now() + self.pace.interval;
                    let mut jobs = vec![job];
                    while let Ok(job) = queue.try_recv() {
                        jobs.push(job);
                    }
                    known = self.write(&name, known, &mut memory, jobs).await;
                    if known.as_ref().is_some_and(|known| known.number.is_multiple_of(PRUNE_EVERY))
                    {
                        self.prune(&name, None).await;
                    }
                }
                Ok(None) => return,
                Err(_) => {
                    // What was too young to be deleted before, whoever wrote it.
                    let quiet = known.as_ref().map(|known| known.number);
                    if quiet.is_some_and(|number| self.pace.retention.versions_min < number) {
                        self.prune(&name, quiet).await;
                    }
                    let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
                    if queue.is_empty() {
                        open.documents.remove(&name);
                        return;
                    }
                }
            }
        }
    }

    /// Writes one version that holds all these changes, and answers them. Returns the newest version as far as known.
    async fn write(
        &self,
        name: &str,
        known: Option<Version<Option<D>>>,
        memory: &mut D::Memory,
        jobs: Vec<Job<D>>,
    ) -> Option<Version<Option<D>>> {
        match self.commit(name, known, memory, &jobs).await {
            Ok((version, answers)) => {
                for (job, answer) in jobs.into_iter().zip(answers) {
                    if let (Some(document), Ok(answer)) = (&version.document, &answer) {
                        (self.committed)(document, answer);
                    }
                    if let Err(Err(refusal)) = job.reply.send(answer) {
                        tracing::debug!(?refusal, "a change that nobody waits for was refused");
                    }
                }
                Some(version)
            }
            Err(error) => {
                let refusal = Refusal::unavailable(NOT_WRITTEN, error);
                let mut heard = false;
                for job in jobs {
                    heard |= job.reply.send(Err(refusal.clone())).is_ok();
                }
                if let (false, Some(cause)) = (heard, &refusal.cause) {
                    tracing::warn!(error = %refusal::Chain(cause), "a change that nobody waits for was not written");
                }
                None
            }
        }
    }

    async fn prune(&self, name: &str, quiet: Option<u64>) {
        if let Err(error) = self.chain(name).prune(quiet).await {
            tracing::warn!(error = %refusal::Chain(&error), "old versions could not be deleted");
        }
    }

    async fn commit(
        &self,
        name: &str,
        mut known: Option<Version<Option<D>>>,
        memory: &mut D::Memory,
        jobs: &[Job<D>],
    ) -> Result<(Version<Option<D>>, Vec<Result<D::Answer, Refusal>>), StoreError> {
        let chain = self.chain(name);
        for attempt in 0..CONFLICTS_MAX {
            // What is remembered may be old. That shows when it is built upon, or is asked for here.
            let remembered = known.is_some();
            let mut version = match known.take() {
                Some(version) => version,
                None => self.load(name).await?.unwrap_or_else(nothing),
            };
            if let Some(document) = &mut version.document {
                document.prepare(memory, &self.objects).await?;
            }
            let mut changed = false;
            let answers: Vec<_> = jobs
                .iter()
                .map(|job| {
                    let applied = D::apply(&mut version.document, memory, name, &job.change)?;
                    changed |= applied.changed;
                    Ok(applied.answer)
                })
                .collect();
            if !changed {
                if remembered && !chain.is_head(version.number).await? {
                    continue;
                }
                return Ok((version, answers));
            }
            let mark = self.random.next();
            match chain.append(&version, mark).await? {
                Appended::Newest => {
                    version.number += 1;
                    version.marks.insert(0, mark);
                    version.marks.truncate(super::chain::ANCESTORS_MAX);
                    return Ok((version, answers));
                }
                Appended::Followed(newest) => return Ok((checked(name, newest)?, answers)),
                Appended::Lost(newest) => {
                    known = newest.map(|newest| checked(name, newest)).transpose()?;
                    sleep(self.back_off(attempt)).await;
                }
            }
        }
        Err(StoreError::Contended { path: D::folder(name).to_string(), attempts: CONFLICTS_MAX })
    }

    async fn load(&self, name: &str) -> Result<Option<Version<Option<D>>>, StoreError> {
        self.chain(name).head().await?.map(|version| checked(name, version)).transpose()
    }

    fn chain(&self, name: &str) -> Chain<'_> {
        Chain::new(&self.objects, D::folder(name), self.pace.retention)
    }

    /// Returns a random time up to a bound that doubles with each conflict.
    fn back_off(&self, attempt: u32) -> Duration {
        let bound_us = (BACK_OFF_MIN * 2_u32.pow(attempt.min(16))).min(BACK_OFF_MAX).as_micros();
        let bound_us = u64::try_from(bound_us).expect("BACK_OFF_MAX is a few milliseconds");
        Duration::from_micros(self.random.next() % (bound_us + 1))
    }
}

fn nothing<D>() -> Version<Option<D>> {
    Version { number: 0, marks: Vec::new(), document: None }
}

fn checked<D: Document>(
    name: &str,
    version: Version<Option<D>>,
) -> Result<Version<Option<D>>, StoreError> {
    let Some(document) = &version.document else { return Ok(version) };
    match document.check(name) {
        Ok(()) => Ok(version),
        Err(fault) => Err(StoreError::Corrupt {
            path: format!("{}/{:020}.json", D::folder(name), version.number),
            source: fault.into(),
        }),
    }
}

/// Changes that wait for one document. One more is refused.
pub(crate) const CHANGES_WAITING_MAX: usize = 1_024;

/// How long a document that nobody changes is remembered. Not shorter than the age of young versions ([`Retention::age`]).
const DOCUMENT_IDLE_MAX: Duration = Duration::from_secs(10);

/// How often a change is tried while other processes win.
const CONFLICTS_MAX: u32 = 64;

/// The bound of the random wait after the first conflict.
const BACK_OFF_MIN: Duration = Duration::from_millis(1);

/// The bound of the random wait after many conflicts.
const BACK_OFF_MAX: Duration = Duration::from_millis(100);

/// Versions from one look for old ones to the next.
const PRUNE_EVERY: u64 = 16;

const BUSY: &str = "The chat is too busy. Try again.";
const NOT_WRITTEN: &str = "The chat could not store this. Try again.";
const SHUTTING_DOWN: &str = "The chat is shutting down. Try again.";
