//! Rounds of a benchmark that counts one kind of work, each beside a round of its floor: the least that the same work takes.

use std::fmt::{self, Display};
use std::time::Duration;

use serde::Serialize;

use super::histogram::{Histogram, Percentiles};
use super::meter::Unit;
use super::process::Used;
use super::report::{Cost, Spread, Table, hundredths, per, whole};

/// What was seen of one round.
#[derive(Debug)]
pub(super) struct Measured {
    /// Pieces of work that were done.
    pub(super) units: u64,
    pub(super) nanoseconds: u64,
    pub(super) latency: Histogram,
    /// `None` for an unknown process.
    pub(super) used: Option<Used>,
}

/// The rounds so far.
#[derive(Debug)]
pub(super) struct Course {
    rounds: Vec<Round>,
    latency: Histogram,
}

/// All rounds, and what they came to.
#[derive(Debug, Serialize)]
pub(super) struct Comparison {
    /// What is done, in one word.
    work: &'static str,
    /// What its cost is counted in.
    unit: Unit,
    rounds: Vec<Round>,
    summary: Summary,
}

#[derive(Debug, Serialize)]
struct Round {
    units: u64,
    seconds: f64,
    units_per_second: f64,
    latency: Percentiles,
    cost: Option<Cost>,
    floor: Option<f64>,
    /// The cost of the service by that of the floor.
    ratio: Option<f64>,
}

#[derive(Debug, Serialize)]
struct Summary {
    cost: Option<Spread>,
    shard_cost: Option<Spread>,
    floor: Option<Spread>,
    ratio: Option<Spread>,
    /// The smallest of the service by the smallest of the floor.
    ratio_of_minima: Option<f64>,
    latency: Percentiles,
}

impl Course {
    pub(super) fn new() -> Self {
        Self { rounds: Vec::new(), latency: Histogram::new() }
    }

    /// Adds a round and the cost of a piece of work of its floor.
    pub(super) fn push(&mut self, measured: &Measured, floor: Option<f64>) {
        self.latency.add(&measured.latency);
        let cost = measured.used.map(|used| Cost::new(used, measured.units));
        let seconds = Duration::from_nanos(measured.nanoseconds).as_secs_f64();
        self.rounds.push(Round {
            units: measured.units,
            seconds,
            units_per_second: per(measured.units, 1) / seconds,
            latency: measured.latency.percentiles(),
            cost,
            floor,
            ratio: cost.zip(floor).map(|(cost, floor)| cost.all / floor),
        });
    }

    /// Returns the rounds and what they came to; `work` says what was done, `unit` what its cost was counted in.
    pub(super) fn finish(self, work: &'static str, unit: Unit) -> Comparison {
        let Self { rounds, latency } = self;
        let costs = || rounds.iter().filter_map(|round| round.cost);
        let cost = Spread::of(costs().map(|cost| cost.all));
        let floor = Spread::of(rounds.iter().filter_map(|round| round.floor));
        let summary = Summary {
            cost,
            shard_cost: Spread::of(costs().filter_map(|cost| cost.shards)),
            floor,
            ratio: Spread::of(rounds.iter().filter_map(|round| round.ratio)),
            ratio_of_minima: cost.zip(floor).map(|(service, floor)| service.min / floor.min),
            latency: latency.percentiles(),
        };
        Comparison { work, unit, rounds, summary }
    }
}

impl Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [cost, floor] = self.unit.columns();
        let mut table = Table::new([
            "round",
            "per second",
            "p50 µs",
            "p99 µs",
            cost,
            "of that shards",
            floor,
            "ratio",
        ]);
        for (at, round) in self.rounds.iter().enumerate() {
            table.row([
                (at + 1).to_string(),
                whole(round.units_per_second),
                whole(round.latency.p50_us),
                whole(round.latency.p99_us),
                whole(round.cost.map(|cost| cost.all)),
                whole(round.cost.and_then(|cost| cost.shards)),
                whole(round.floor),
                hundredths(round.ratio),
            ]);
        }
        let summary = &self.summary;
        let mut row = |name: &str, of: fn(Spread) -> f64, latency: [String; 2], ratio| {
            let [p50, p99] = latency;
            table.row([
                name.to_owned(),
                String::new(),
                p50,
                p99,
                whole(summary.cost.map(of)),
                whole(summary.shard_cost.map(of)),
                whole(summary.floor.map(of)),
                hundredths(ratio),
            ]);
        };
        let latency = [summary.latency.p50_us, summary.latency.p99_us].map(whole);
        row("median", |spread| spread.median, latency, summary.ratio.map(|ratio| ratio.median));
        row("min", |spread| spread.min, [String::new(), String::new()], summary.ratio_of_minima);
        write!(f, "{table}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_compared_with_the_floor_beside_it_and_the_minima_with_each_other() {
        let mut course = Course::new();
        for (cpu, floor) in [(3_000, 1_000.0), (2_000, 2_000.0)] {
            let measured = Measured {
                units: 1,
                nanoseconds: 1_000_000,
                latency: Histogram::new(),
                used: Some(Used { shards: 500, all: cpu }),
            };
            course.push(&measured, Some(floor));
        }
        let Comparison { rounds, summary, .. } = course.finish("request", Unit::CpuNs);
        assert_eq!(
            rounds.iter().map(|round| round.ratio).collect::<Vec<_>>(),
            [Some(3.0), Some(1.0)]
        );
        assert_eq!(summary.ratio_of_minima, Some(2.0));
        assert_eq!(summary.shard_cost, Some(Spread { min: 500.0, median: 500.0 }));
    }
}
