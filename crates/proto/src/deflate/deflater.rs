//! From messages to compressed ones.

use flate2::{Compress, FlushCompress};

use super::{Deflate, FLUSH, Window};

/// Compresses messages, each by itself. One serves all connections of a thread: a state takes a quarter of a megabyte, and is made when
/// it is first needed.
#[derive(Debug, Default)]
pub struct Deflater {
    /// By window and level, so at most 7 × 9.
    states: Vec<((Window, u8), Compress)>,
    plain_bytes: u64,
    deflated_bytes: u64,
}

impl Deflater {
    /// Returns the message compressed, as frames with the first reserved bit carry it, or `None` if that makes it no shorter. Cost: for
    /// each message once, whoever receives it.
    pub fn deflate(&mut self, how: Deflate, data: &[u8]) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        let is_shorter = deflate(self.state(how), data, &mut out);
        self.plain_bytes += data.len() as u64;
        self.deflated_bytes += if is_shorter { out.len() } else { data.len() } as u64;
        is_shorter.then_some(out)
    }

    /// Returns how many bytes it was given, and how many they are after compression.
    pub const fn totals(&self) -> (u64, u64) {
        (self.plain_bytes, self.deflated_bytes)
    }

    fn state(&mut self, how: Deflate) -> &mut Compress {
        let key = (how.window, how.compression.level);
        let known = self.states.iter().position(|(of, _)| *of == key);
        let at = known.unwrap_or_else(|| {
            let level = flate2::Compression::new(u32::from(key.1));
            let state = Compress::new_with_window_bits(level, false, how.window.bits());
            self.states.push((key, state));
            self.states.len() - 1
        });
        &mut self.states[at].1
    }
}

/// Appends the compressed message to `out` as long as it is shorter. Returns whether it is.
fn deflate(state: &mut Compress, data: &[u8], out: &mut Vec<u8>) -> bool {
    state.reset();
    let most = data.len() + FLUSH.len();
    out.reserve_exact((data.len() / 2).max(BUFFER_BYTES_MIN).min(most));
    loop {
        let used = usize::try_from(state.total_in()).expect("no more is used than there is");
        let before = out.len();
        let result = state.compress_vec(&data[used..], out, FlushCompress::Sync);
        // The only error is a state that is not one, which these calls cannot bring about.
        result.expect("a fresh state compresses whatever it is given");
        if out.len() < out.capacity() {
            break;
        }
        if most <= out.len() {
            return false;
        }
        assert!(before < out.len(), "a compressor with room goes on");
        out.reserve_exact((most - out.len()).min(out.len()));
    }
    assert!(out.ends_with(&FLUSH), "a flush ends with an empty stored block");
    out.truncate(out.len() - FLUSH.len());
    out.len() < data.len()
}

/// Bytes of the first output buffer at least, unless the message is shorter.
const BUFFER_BYTES_MIN: usize = 256;
