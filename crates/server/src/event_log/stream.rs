//! The log as it grows, as server-sent events (HTML standard, "Server-sent events").

use std::convert::Infallible;
use std::fmt::Write as _;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::unfold;
use futures_util::{Stream, StreamExt as _};
use http_body_util::StreamBody;
use hyper::body::Frame;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout_at};

use super::entry::line;
use super::{Record, Selection};

/// Readers at the same time. One more is refused.
const READERS_MAX: usize = 64;

/// Entries from before its beginning that a reader gets, the latest; it hears how many more there were.
pub(super) const BACKLOG_MAX: usize = 1_000;

/// Entries that are sent in one piece.
const ENTRIES_PER_PIECE_MAX: usize = 64;

/// How often a reader gets a sign of life.
const COMMENT_PAUSE: Duration = Duration::from_secs(15);

/// How long a stream lasts. The reader comes again, and with a token that is still valid.
const TIME_MAX: Duration = Duration::from_hours(1);

/// The body of a stream.
pub(crate) type LiveBody =
    StreamBody<Pin<Box<dyn Stream<Item = Result<Frame<Bytes>, Infallible>> + Send>>>;

/// [`READERS_MAX`] follow the log already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooManyReaders;

/// Places of readers.
#[derive(Debug)]
pub(super) struct Seats(Arc<Semaphore>);

/// A reader's place, from now on.
#[derive(Debug)]
pub(crate) struct Live {
    _seat: OwnedSemaphorePermit,
    selection: Selection,
    backlog: Backlog,
    news: Receiver<Arc<Record>>,
}

/// What a reader gets first.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// How many entries there were before, selected or not.
    pub(super) missed: u64,
    /// Oldest first.
    pub(super) records: Vec<Arc<Record>>,
}

impl Seats {
    pub(super) fn new() -> Self {
        Self(Arc::new(Semaphore::new(READERS_MAX)))
    }

    pub(super) fn take(&self) -> Result<OwnedSemaphorePermit, TooManyReaders> {
        self.0.clone().try_acquire_owned().map_err(|_| TooManyReaders)
    }
}

impl Live {
    pub(super) const fn new(
        seat: OwnedSemaphorePermit,
        selection: Selection,
        backlog: Backlog,
        news: Receiver<Arc<Record>>,
    ) -> Self {
        Self { _seat: seat, selection, backlog, news }
    }

    /// Returns the body of the answer, which ends when `stop` is ready or after [`TIME_MAX`].
    pub(crate) fn into_body(self, stop: impl Future<Output = ()> + Send + 'static) -> LiveBody {
        let end = Instant::now() + TIME_MAX;
        let pieces = unfold(self, move |mut live| async move {
            let piece = live.piece(end).await?;
            Some((Ok(Frame::data(Bytes::from(piece))), live))
        });
        StreamBody::new(Box::pin(pieces.take_until(stop)))
    }

    /// Waits for the next piece; `None` at the end. Not cancel-safe: who stops waiting gets no other piece.
    async fn piece(&mut self, end: Instant) -> Option<String> {
        let mut piece = String::new();
        if 0 < self.backlog.missed {
            missed(&mut piece, std::mem::take(&mut self.backlog.missed));
        }
        if !self.backlog.records.is_empty() {
            let count = self.backlog.records.len().min(ENTRIES_PER_PIECE_MAX);
            for record in self.backlog.records.drain(..count) {
                write(&mut piece, &record);
            }
            return Some(piece);
        }
        let comment = Instant::now() + COMMENT_PAUSE;
        while piece.is_empty() {
            let next = match timeout_at(comment.min(end), self.news.recv()).await {
                Ok(next) => next,
                Err(_) if end <= Instant::now() => return None,
                Err(_) => return Some(": still here\n\n".to_owned()),
            };
            match next {
                Ok(record) => self.tell(&mut piece, &record),
                Err(RecvError::Lagged(count)) => missed(&mut piece, count),
                Err(RecvError::Closed) => return None,
            }
            for _ in 1..ENTRIES_PER_PIECE_MAX {
                match self.news.try_recv() {
                    Ok(record) => self.tell(&mut piece, &record),
                    Err(TryRecvError::Lagged(count)) => missed(&mut piece, count),
                    Err(TryRecvError::Empty | TryRecvError::Closed) => break,
                }
            }
        }
        Some(piece)
    }

    fn tell(&self, piece: &mut String, record: &Arc<Record>) {
        if self.selection.selects(&record.entry) {
            write(piece, record);
        }
    }
}

fn write(piece: &mut String, record: &Arc<Record>) {
    let _ = write!(piece, "id: {}\ndata: {}\n\n", record.id, line(record));
}

fn missed(piece: &mut String, count: u64) {
    let _ = write!(piece, "event: missed\ndata: {count}\n\n");
}
