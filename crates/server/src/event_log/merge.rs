//! Several rings read as one, in the order of the ids, at a cost that grows with what is taken, not with what there is.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

use super::Record;

/// The part of a ring that has not been read: from `first` to before `end`.
#[derive(Debug)]
pub(super) struct Cursor<'a> {
    ring: &'a VecDeque<Arc<Record>>,
    first: usize,
    end: usize,
}

impl<'a> Cursor<'a> {
    /// Returns the part of `ring` whose ids are from `first` to before `end`.
    pub(super) fn new(ring: &'a VecDeque<Arc<Record>>, first: u64, end: u64) -> Self {
        let at = |id: u64| ring.partition_point(|record| record.id < id);
        let (first, end) = (at(first), at(end));
        Self { ring, first, end: end.max(first) }
    }

    /// Returns how many records there are.
    pub(super) const fn len(&self) -> usize {
        self.end - self.first
    }

    const fn is_empty(&self) -> bool {
        self.first == self.end
    }
}

/// Returns the records of all cursors, the oldest first.
pub(super) fn forwards<'a>(
    cursors: impl Iterator<Item = Cursor<'a>>,
) -> impl Iterator<Item = &'a Arc<Record>> {
    let mut cursors: Vec<Cursor<'a>> = cursors.filter(|cursor| !cursor.is_empty()).collect();
    let id = |cursor: &Cursor<'_>| cursor.ring[cursor.first].id;
    let mut heads: BinaryHeap<_> =
        cursors.iter().enumerate().map(|(at, cursor)| Reverse((id(cursor), at))).collect();
    std::iter::from_fn(move || {
        let Reverse((_, at)) = heads.pop()?;
        let cursor = &mut cursors[at];
        let record = &cursor.ring[cursor.first];
        cursor.first += 1;
        if !cursor.is_empty() {
            heads.push(Reverse((id(cursor), at)));
        }
        Some(record)
    })
}

/// Returns the records of all cursors, the newest first.
pub(super) fn backwards<'a>(
    cursors: impl Iterator<Item = Cursor<'a>>,
) -> impl Iterator<Item = &'a Arc<Record>> {
    let mut cursors: Vec<Cursor<'a>> = cursors.filter(|cursor| !cursor.is_empty()).collect();
    let id = |cursor: &Cursor<'_>| cursor.ring[cursor.end - 1].id;
    let mut heads: BinaryHeap<_> =
        cursors.iter().enumerate().map(|(at, cursor)| (id(cursor), at)).collect();
    std::iter::from_fn(move || {
        let (_, at) = heads.pop()?;
        let cursor = &mut cursors[at];
        cursor.end -= 1;
        let record = &cursor.ring[cursor.end];
        if !cursor.is_empty() {
            heads.push((id(cursor), at));
        }
        Some(record)
    })
}
