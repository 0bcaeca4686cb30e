//! What a benchmark came to: a table for people, one JSON object for scripts.

use std::fmt::{self, Display};
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;

use super::process::Used;

/// The smallest and the middle of the values of all rounds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) min: f64,
    pub(super) median: f64,
}

impl Spread {
    /// Returns `None` if there are no values.
    pub(super) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let min = *values.first()?;
        let middle = values.len() / 2;
        let median = if values.len() % 2 == 1 {
            values[middle]
        } else {
            f64::midpoint(values[middle - 1], values[middle])
        };
        Some(Self { min, median })
    }
}

/// What one unit of work costs: nanoseconds of CPU time, or instructions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Cost {
    /// The whole process.
    pub(super) all: f64,
    /// Its shards alone; `None` for a process that has none.
    pub(super) shards: Option<f64>,
}

impl Cost {
    pub(super) fn new(used: Used, units: u64) -> Self {
        let shards = (used.shards != 0).then(|| per(used.shards, units));
        Self { all: per(used.all, units), shards }
    }
}

/// Returns a quotient. Counts and times of a benchmark stay far below 2^53.
#[expect(
    clippy::cast_precision_loss,
    reason = "a rounding of 1 in 10^16 is nothing in a measurement"
)]
pub(super) fn per(amount: u64, units: u64) -> f64 {
    amount as f64 / units as f64
}

/// Columns under their names, right-aligned.
#[derive(Debug)]
pub(super) struct Table {
    columns: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(super) fn new(columns: impl IntoIterator<Item = &'static str>) -> Self {
        Self { columns: columns.into_iter().collect(), rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }
}

impl Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |at: usize, name: &str| {
            let cells = self.rows.iter().filter_map(|row| row.get(at));
            cells.map(|cell| cell.chars().count()).fold(name.chars().count(), usize::max)
        };
        let widths: Vec<usize> =
            self.columns.iter().enumerate().map(|(at, name)| width(at, name)).collect();
        let line = |f: &mut fmt::Formatter<'_>, cells: &mut dyn Iterator<Item = &str>| {
            for (cell, width) in cells.zip(&widths) {
                write!(f, "  {cell:>width$}")?;
            }
            writeln!(f)
        };
        line(f, &mut self.columns.iter().copied())?;
        for row in &self.rows {
            line(f, &mut row.iter().map(String::as_str))?;
        }
        Ok(())
    }
}

/// Returns a cell: a number without its fraction, or a dash.
pub(super) fn whole(value: impl Into<Option<f64>>) -> String {
    value.into().map_or_else(|| "-".to_owned(), |value| format!("{value:.0}"))
}

/// Returns a cell: a number with two digits after the point, or a dash.
pub(super) fn hundredths(value: impl Into<Option<f64>>) -> String {
    value.into().map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"))
}

/// Prints what came of a benchmark.
pub(super) fn print(outcome: &(impl Serialize + Display), json: bool) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", serde_json::to_string(outcome)?)?;
    } else {
        write!(out, "{outcome}")?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

/// Progress for people who watch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Progress {
    shown: bool,
}

impl Progress {
    /// Returns progress on standard error; none unless that is a terminal, and none beside JSON.
    pub(super) fn new(json: bool) -> Self {
        Self { shown: !json && std::io::stderr().is_terminal() }
    }

    /// Returns a bar that goes up to `length`.
    pub(super) fn bar(self, what: &'static str, length: u64) -> ProgressBar {
        let target =
            if self.shown { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let style =
            ProgressStyle::with_template("{msg:>12} [{bar:40}] {pos}/{len} {per_sec} {eta}")
                .expect("the template names parts that exist")
                .progress_chars("=> ");
        ProgressBar::with_draw_target(Some(length), target).with_style(style).with_message(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_of_an_even_number_lies_between_two() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([3.0]), Some(Spread { min: 3.0, median: 3.0 }));
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 9.0]), Some(Spread { min: 1.0, median: 3.0 }));
    }

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(["a", "long name"]);
        table.row(["1000".to_owned(), "2".to_owned()]);
        assert_eq!(table.to_string(), "     a  long name\n  1000          2\n");
    }
}
