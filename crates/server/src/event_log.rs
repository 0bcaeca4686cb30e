//! The event log: what became of the latest upstream calls, and who was refused why.
//!
//! Each hub keeps its latest entries in memory, calls apart from refusals, so that strangers who are refused by the thousand cannot push
//! out what the application did. Entries hold no payload, no query and no token. Shards never write here: whoever ends a call on the
//! runtime does.

mod entry;
mod merge;
mod stream;

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use hookwire_proto::name::HubName;
use tokio::sync::broadcast;

pub(crate) use self::entry::{Dialect, Entry, Kind, Record};
use self::merge::Cursor;
use self::stream::{Backlog, Seats};
pub(crate) use self::stream::{Live, LiveBody, TooManyReaders};
use crate::http::unix_time;

/// Hubs that have entries. When another one gets its first, the hub that was written least recently loses all of its own. What concerns
/// no hub counts as one.
pub(crate) const HUBS_MAX: usize = 256;

/// Memory of all entries. Beyond it, the hub that was written least recently loses its entries.
const BYTES_MAX: usize = 64 * 1024 * 1024;

/// Share of a hub's entries that refusals may take: one in four.
const REFUSALS_SHARE: usize = 4;

/// New entries that wait for readers; one that lags behind by more misses some.
const NEWS_MAX: usize = 1_024;

/// The event log of a node. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct EventLog(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// Entries of one hub; 0: nothing is kept.
    entries_max: usize,
    state: Mutex<State>,
    news: broadcast::Sender<Arc<Record>>,
    seats: Seats,
}

#[derive(Debug)]
struct State {
    last_id: u64,
    bytes: usize,
    hubs: HashMap<Option<HubName>, Rings>,
}

/// The entries of one hub, each oldest first.
#[derive(Debug, Default)]
struct Rings {
    calls: VecDeque<Arc<Record>>,
    refusals: VecDeque<Arc<Record>>,
    last_id: u64,
    bytes: usize,
}

/// What a reader wants to see.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Selection {
    /// Of this hub; absent: of all, and what concerns none.
    pub(crate) hub: Option<HubName>,
    /// Only what failed.
    pub(crate) failed: bool,
}

/// A part of the log.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// Oldest first.
    pub(crate) records: Vec<Arc<Record>>,
    /// The oldest and the newest that there are of the hub, selected or not.
    pub(crate) ends: Option<(u64, u64)>,
}

impl EventLog {
    /// Returns an empty log that keeps `entries_max` entries per hub; none if that is 0.
    pub(crate) fn new(entries_max: usize) -> Self {
        // Later than all ids of an earlier run, which had less than one entry per microsecond.
        let last_id = u64::try_from(unix_time().as_micros()).unwrap_or(0);
        Self(Arc::new(Inner {
            entries_max,
            state: Mutex::new(State { last_id, bytes: 0, hubs: HashMap::new() }),
            news: broadcast::Sender::new(NEWS_MAX),
            seats: Seats::new(),
        }))
    }

    /// Adds an entry. Cost: an allocation and a short lock.
    pub(crate) fn push(&self, entry: Entry) {
        if self.0.entries_max == 0 {
            return;
        }
        let mut state = self.state();
        state.last_id += 1;
        let record = Arc::new(Record { id: state.last_id, entry });
        let forgotten = state.keep(&record, self.0.entries_max);
        // Within the lock, so that readers get everything in its order. Nobody reads: it is gone at once.
        let _ = self.0.news.send(record);
        drop(state);
        drop(forgotten);
    }

    /// Returns at most `limit` entries: the first ones after `after`, or else the last ones, in each case before `before`.
    pub(crate) fn page(
        &self,
        selection: &Selection,
        after: Option<u64>,
        before: Option<u64>,
        limit: usize,
    ) -> Page {
        self.state().page(selection, after, before, limit)
    }

    /// Begins to follow the log: first what came after `after`, then what comes. The stream ends after a while or at `stop`.
    ///
    /// # Errors
    /// [`TooManyReaders`].
    pub(crate) fn follow(
        &self,
        selection: Selection,
        after: Option<u64>,
    ) -> Result<Live, TooManyReaders> {
        let seat = self.0.seats.take()?;
        // Within one lock, so that nothing is missed or told twice.
        let state = self.state();
        let news = self.0.news.subscribe();
        let backlog = after.map(|after| state.backlog(&selection, after)).unwrap_or_default();
        drop(state);
        Ok(Live::new(seat, selection, backlog, news))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("nothing panics while it holds the entries")
    }
}

impl State {
    /// Keeps a record and returns what has made way for it, to be dropped outside the lock.
    fn keep(&mut self, record: &Arc<Record>, entries_max: usize) -> (Vec<Rings>, Vec<Arc<Record>>) {
        let mut lost = Vec::new();
        if !self.hubs.contains_key(&record.entry.hub) && HUBS_MAX <= self.hubs.len() {
            // Strangers name hubs as they like: what they are refused pushes nobody's calls out.
            let all_called = self.hubs.values().all(|rings| !rings.calls.is_empty());
            if record.entry.kind.is_refusal() && all_called {
                return (lost, Vec::new());
            }
            lost.extend(self.forget_a_hub());
        }
        let rings = self.hubs.entry(record.entry.hub.clone()).or_default();
        let before = rings.bytes;
        let forgotten = rings.push(record.clone(), entries_max);
        self.bytes = self.bytes - before + rings.bytes;
        while BYTES_MAX < self.bytes && 1 < self.hubs.len() {
            lost.extend(self.forget_a_hub());
        }
        (lost, forgotten)
    }

    /// Takes out the hub that was written least recently, first of those that have refusals only.
    fn forget_a_hub(&mut self) -> Option<Rings> {
        let worth = |rings: &Rings| (!rings.calls.is_empty(), rings.last_id);
        let oldest = self.hubs.iter().min_by_key(|(_, rings)| worth(rings))?.0.clone();
        let rings = self.hubs.remove(&oldest)?;
        self.bytes -= rings.bytes;
        Some(rings)
    }

    fn page(
        &self,
        selection: &Selection,
        after: Option<u64>,
        before: Option<u64>,
        limit: usize,
    ) -> Page {
        let rings: Vec<&VecDeque<Arc<Record>>> = self.rings(selection).collect();
        let oldest = rings.iter().filter_map(|ring| ring.front()).map(|record| record.id).min();
        let newest = rings.iter().filter_map(|ring| ring.back()).map(|record| record.id).max();
        let (first, end) = (after.map_or(0, |id| id.saturating_add(1)), before.unwrap_or(u64::MAX));
        let cursors = rings.into_iter().map(|ring| Cursor::new(ring, first, end));
        let wanted = |record: &&Arc<Record>| !selection.failed || !record.entry.ok;
        let mut records: Vec<Arc<Record>> = if after.is_some() {
            merge::forwards(cursors).filter(wanted).take(limit).cloned().collect()
        } else {
            merge::backwards(cursors).filter(wanted).take(limit).cloned().collect()
        };
        if after.is_none() {
            records.reverse();
        }
        Page { records, ends: oldest.zip(newest) }
    }

    /// Returns the last entries after `after`.
    fn backlog(&self, selection: &Selection, after: u64) -> Backlog {
        let cursors = |ring| Cursor::new(ring, after.saturating_add(1), u64::MAX);
        let all: usize = self.rings(selection).map(|ring| cursors(ring).len()).sum();
        let all_taken =
            merge::backwards(self.rings(selection).map(cursors)).take(stream::BACKLOG_MAX);
        let missed = all.saturating_sub(stream::BACKLOG_MAX);
        let mut records: Vec<Arc<Record>> =
            all_taken.filter(|record| selection.selects(&record.entry)).cloned().collect();
        records.reverse();
        Backlog { missed: missed as u64, records }
    }

    fn rings<'a>(
        &'a self,
        selection: &'a Selection,
    ) -> impl Iterator<Item = &'a VecDeque<Arc<Record>>> {
        self.hubs
            .iter()
            .filter(|(hub, _)| selection.hub.is_none() || selection.hub == **hub)
            .flat_map(|(_, rings)| [&rings.calls, &rings.refusals])
    }
}

impl Rings {
    /// Adds a record and returns what has made way for it.
    fn push(&mut self, record: Arc<Record>, entries_max: usize) -> Vec<Arc<Record>> {
        let refusals_max = entries_max.div_ceil(REFUSALS_SHARE);
        let (ring, limit) = if record.entry.kind.is_refusal() {
            (&mut self.refusals, refusals_max)
        } else {
            (&mut self.calls, (entries_max - refusals_max).max(1))
        };
        self.last_id = record.id;
        self.bytes += record.bytes();
        let excess = (ring.len() + 1).saturating_sub(limit);
        let forgotten: Vec<Arc<Record>> = ring.drain(..excess).collect();
        ring.push_back(record);
        self.bytes -= forgotten.iter().map(|record| record.bytes()).sum::<usize>();
        forgotten
    }
}

impl Selection {
    /// Returns whether an entry is to be seen.
    fn selects(&self, entry: &Entry) -> bool {
        let of_hub = self.hub.is_none() || self.hub == entry.hub;
        of_hub && (!self.failed || !entry.ok)
    }
}

/// Returns how many milliseconds a time takes, with three places.
fn millis(time: Duration) -> f64 {
    let micros = u32::try_from(time.as_micros()).unwrap_or(u32::MAX);
    f64::from(micros) / 1_000.0
}

#[cfg(test)]
mod tests;
