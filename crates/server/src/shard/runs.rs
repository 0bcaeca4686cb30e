//! Deliveries to the same set that follow each other, joined so that each receiver gets one chunk and one write.
//!
//! A run is open while nothing else happens to its members. Whoever wants to queue something else for them, or to change who they
//! are, closes it first: then its bytes stand in each member's outbox in their place.

use bytes::{Bytes, BytesMut};
use hookwire_hub::{SetId, Slot};
use hookwire_proto::envelope::WireForm;
use smallvec::SmallVec;

/// Bytes that are copied together at most; larger frames gain nothing from it.
pub(super) const RUN_BYTES_MAX: usize = 64 * 1024;

/// The open runs of one set: one for each wire form, whose members are disjoint.
#[derive(Debug, Default)]
pub(super) struct Runs {
    set: Option<SetId>,
    /// Members that get nothing of it.
    except: SmallVec<[Slot; 2]>,
    parts: Parts,
}

/// The runs of a set by wire form.
pub(super) type Parts = SmallVec<[(WireForm, Run); 2]>;

/// Runs that nothing joins any more.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) set: SetId,
    pub(super) except: SmallVec<[Slot; 2]>,
    pub(super) parts: Parts,
}

/// Frames in their order.
#[derive(Debug)]
pub(super) struct Run {
    first: Bytes,
    /// `first` and all later frames, once there are two.
    joined: BytesMut,
    /// Messages in it.
    pub(super) messages: u64,
}

impl Runs {
    /// Takes a delivery in if it continues the open run.
    pub(super) fn join(
        &mut self,
        set: SetId,
        form: WireForm,
        except: &[Slot],
        frames: &Bytes,
    ) -> bool {
        if self.set.is_some_and(|open| open != set || *self.except != *except) {
            return false;
        }
        if let Some((_, run)) = self.parts.iter_mut().find(|(of, _)| *of == form) {
            let before = if run.joined.is_empty() { run.first.len() } else { run.joined.len() };
            if RUN_BYTES_MAX < before + frames.len() {
                return false;
            }
            if run.joined.is_empty() {
                run.joined.extend_from_slice(&run.first);
            }
            run.joined.extend_from_slice(frames);
            run.messages += 1;
            return true;
        }
        if self.set.replace(set).is_none() {
            self.except = SmallVec::from_slice(except);
        }
        self.parts
            .push((form, Run { first: frames.clone(), joined: BytesMut::new(), messages: 1 }));
        true
    }

    /// Closes the runs and returns them.
    pub(super) fn close(&mut self) -> Option<Closed> {
        let set = self.set.take()?;
        let (except, parts) = (std::mem::take(&mut self.except), std::mem::take(&mut self.parts));
        Some(Closed { set, except, parts })
    }
}

impl Run {
    /// Returns the frames as one chunk.
    pub(super) fn into_chunk(self) -> Bytes {
        if self.joined.is_empty() { self.first } else { self.joined.freeze() }
    }
}
