//! Durations by powers of two: constant memory, exact counts, values to about 3 %.

use std::time::Duration;

use serde::Serialize;

/// Each power of two is split into this many equal steps; a value is off by at most one step, 1/32.
const STEPS: u64 = 1 << STEPS_LOG2;
const STEPS_LOG2: u32 = 5;

/// One row of steps for each power of two of a `u64` from [`STEPS`] on, and one for all below.
const BUCKETS: usize = 60 << STEPS_LOG2;

/// A histogram of durations in nanoseconds.
#[derive(Debug, Clone)]
pub(super) struct Histogram {
    counts: Box<[u64]>,
    total: u64,
    max: u64,
}

/// What is told of a histogram, in microseconds.
#[expect(clippy::struct_field_names, reason = "scripts read the unit in the name")]
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Percentiles {
    pub(super) p50_us: f64,
    pub(super) p90_us: f64,
    pub(super) p99_us: f64,
    pub(super) p999_us: f64,
    pub(super) max_us: f64,
}

impl Histogram {
    pub(super) fn new() -> Self {
        Self { counts: vec![0; BUCKETS].into_boxed_slice(), total: 0, max: 0 }
    }

    /// Counts one duration.
    pub(super) fn record(&mut self, nanoseconds: u64) {
        self.counts[bucket(nanoseconds)] += 1;
        self.total += 1;
        self.max = self.max.max(nanoseconds);
    }

    /// Adds what another histogram has counted.
    pub(super) fn add(&mut self, other: &Self) {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.total += other.total;
        self.max = self.max.max(other.max);
    }

    /// Returns the duration that `per_mille` thousandths of the values do not exceed, rounded up to its step; zero if there are none.
    pub(super) fn quantile(&self, per_mille: u64) -> Duration {
        let rank = (u128::from(self.total) * u128::from(per_mille)).div_ceil(1_000);
        let mut seen = 0;
        for (at, count) in self.counts.iter().enumerate() {
            seen += u128::from(*count);
            if 0 < *count && rank <= seen {
                return Duration::from_nanos(upper_end(at).min(self.max));
            }
        }
        Duration::ZERO
    }

    pub(super) fn percentiles(&self) -> Percentiles {
        let us = |duration: Duration| duration.as_secs_f64() * 1e6;
        Percentiles {
            p50_us: us(self.quantile(500)),
            p90_us: us(self.quantile(900)),
            p99_us: us(self.quantile(990)),
            p999_us: us(self.quantile(999)),
            max_us: us(Duration::from_nanos(self.max)),
        }
    }
}

fn bucket(value: u64) -> usize {
    let at = if value < STEPS {
        value
    } else {
        let power = u64::from(value.ilog2() - STEPS_LOG2);
        STEPS * power + (value >> power)
    };
    usize::try_from(at).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// Returns the largest value that falls into a bucket.
fn upper_end(bucket: usize) -> u64 {
    let at = bucket as u64;
    if at < 2 * STEPS {
        return at;
    }
    let power = at / STEPS - 1;
    let lower = (STEPS + at % STEPS) << power;
    lower + ((1 << power) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_lies_in_its_bucket_and_is_off_by_a_thirty_second_at_most() {
        let mut value = 1_u64;
        while value < u64::MAX / 3 {
            for value in [value - 1, value, value + 1, value + value / 2] {
                let end = upper_end(bucket(value));
                assert!(value <= end, "{value} is above its bucket, which ends at {end}");
                assert!(end - value <= value / STEPS, "{value} is told as {end}");
            }
            value *= 2;
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_count_from_below() {
        let mut histogram = Histogram::new();
        assert_eq!(histogram.quantile(500), Duration::ZERO);
        for value in 1..=30 {
            histogram.record(value);
        }
        assert_eq!(histogram.quantile(500), Duration::from_nanos(15));
        assert_eq!(histogram.quantile(1), Duration::from_nanos(1));
        assert_eq!(histogram.quantile(999), Duration::from_nanos(30));
        let mut other = Histogram::new();
        other.record(1_000_000);
        histogram.add(&other);
        assert_eq!(histogram.quantile(1_000), Duration::from_millis(1), "never above the largest");
    }
}
