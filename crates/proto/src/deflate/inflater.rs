//! From compressed messages to messages, under a limit and in bounded pieces.

use flate2::{Decompress, FlushDecompress, Status};

use super::FLUSH;

/// Memory of the state between the fragments of a message, in bytes: the window of 32 KiB and the tables beside it.
pub const INFLATER_BYTES: usize = 48 * 1024;

/// Inflated at once at most, in bytes; between two such steps limits are looked at.
const STEP_BYTES_MAX: usize = 16 * 1024;

/// The same at least, if the room is there.
const STEP_BYTES_MIN: usize = 256;

/// What the end of a DEFLATE stream inside a message costs of the budget, in bytes: there can be one every two bytes, and each begins anew.
const STREAM_END_BYTES: usize = 1_024;

/// What the connections of a thread share while they take bytes in: a spare state, and how much may still be inflated.
#[derive(Debug, Default)]
pub struct Inflation {
    /// Bytes that may still be inflated. When none is left a connection keeps the rest of its input for later; a step that has begun
    /// ends, so it may become some KiB more.
    pub budget: usize,
    spare: Option<Inflater>,
    deflated_bytes: u64,
    inflated_bytes: u64,
}

impl Inflation {
    /// Returns one without a bound: for a connection that has a thread of its own.
    pub const fn unbounded() -> Self {
        Self { budget: usize::MAX, spare: None, deflated_bytes: 0, inflated_bytes: 0 }
    }

    /// Returns how many bytes came compressed, and how many they are inflated.
    pub const fn totals(&self) -> (u64, u64) {
        (self.deflated_bytes, self.inflated_bytes)
    }

    pub(crate) fn take(&mut self) -> Inflater {
        self.spare.take().unwrap_or_else(Inflater::new)
    }

    pub(crate) fn give_back(&mut self, mut inflater: Inflater) {
        if self.spare.is_none() {
            inflater.state.reset(false);
            self.spare = Some(inflater);
        }
    }
}

/// Compressed data that is not DEFLATE (RFC 1951).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BadBlock;

/// What is known of the data before: the state between two pieces of a message, and with context takeover between two messages.
#[derive(Debug)]
pub(crate) struct Inflater {
    state: Decompress,
}

impl Inflater {
    fn new() -> Self {
        Self { state: Decompress::new(false) }
    }

    /// Appends what `input` stands for to `out`. Stops when `out` has more than `bytes_max` bytes or the budget is spent; returns how
    /// much of `input` was used. What was used is in `out` to its last byte unless `out` is too long.
    pub(crate) fn inflate(
        &mut self,
        input: &[u8],
        out: &mut Vec<u8>,
        bytes_max: usize,
        shared: &mut Inflation,
    ) -> Result<usize, BadBlock> {
        let mut used = 0;
        loop {
            let (start, room) = (out.len(), (bytes_max + 1).saturating_sub(out.len()));
            if room == 0 || (shared.budget == 0 && used < input.len()) {
                break;
            }
            let step = (4 * (input.len() - used)).clamp(STEP_BYTES_MIN, STEP_BYTES_MAX).min(room);
            out.resize(start + step, 0);
            let (in_before, out_before) = (self.state.total_in(), self.state.total_out());
            let rest = &input[used..];
            let result = self.state.decompress(rest, &mut out[start..], FlushDecompress::Sync);
            let taken = length(self.state.total_in() - in_before);
            let made = length(self.state.total_out() - out_before);
            out.truncate(start + made);
            used += taken;
            shared.deflated_bytes += taken as u64;
            shared.inflated_bytes += made as u64;
            shared.budget = shared.budget.saturating_sub(made);
            match result.map_err(|_| BadBlock)? {
                // A block that says that it is the last one: others may follow all the same (RFC 7692 §7.2.3.4).
                Status::StreamEnd => {
                    self.state.reset(false);
                    shared.budget = shared.budget.saturating_sub(STREAM_END_BYTES);
                }
                Status::Ok | Status::BufError if taken == 0 && made == 0 && used < input.len() => {
                    return Err(BadBlock);
                }
                Status::Ok | Status::BufError => {}
            }
            if used == input.len() && made < step {
                break;
            }
        }
        Ok(used)
    }

    /// Appends what is left at the end of a message.
    pub(crate) fn finish(
        &mut self,
        out: &mut Vec<u8>,
        bytes_max: usize,
        shared: &mut Inflation,
    ) -> Result<(), BadBlock> {
        let mut unbounded = Inflation::unbounded();
        let used = self.inflate(&FLUSH, out, bytes_max, &mut unbounded);
        shared.inflated_bytes += unbounded.inflated_bytes;
        used.map(drop)
    }
}

fn length(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a step is no longer than its buffers")
}
