//! `cargo xtask bench`: the release build against the kernel's floor and against other servers, all by the same load generator.
//!
//! Cases run one after the other, each with its floor between its own rounds; servers are compared in passes over all of them, A B A B, of
//! which the best counts. See docs/benchmarks.md for what the numbers mean.

mod cases;
mod machine;
mod others;
mod report;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use clap::Args;
use serde_json::{Value, json};

use self::cases::Case;
use crate::program::Program;
use crate::workspace::{Build, Workspace};

/// What is measured.
#[derive(Debug, Args)]
pub(crate) struct Bench {
    /// Only what a change should look at: less than five minutes
    #[arg(long)]
    quick: bool,
    /// Cases whose names contain one of these
    #[arg(long, value_delimiter = ',', value_name = "TEXT")]
    only: Vec<String>,
    /// Measure other servers too, as far as they can be had: all, or those whose names contain one of these
    #[arg(long, num_args = 0.., require_equals = true, value_delimiter = ',', value_name = "TEXT")]
    others: Option<Vec<String>>,
    /// Write docs/performance.md, .json and .svg instead of only printing. Cases that are not run stay as the document has them
    #[arg(long)]
    write: bool,
    /// Measure this binary instead of the release build
    #[arg(long, value_name = "PATH")]
    binary: Option<PathBuf>,
    /// Print the cases instead of running them
    #[arg(long)]
    list: bool,
}

/// What one case came to.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Outcome {
    /// The group of cases that it stands with.
    group: String,
    name: String,
    /// `hookwire bench` and its arguments, as one would type them.
    command: String,
    figures: Figures,
}

/// Figures of a run; absent where they make no sense.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Figures {
    /// CPU time of the service in nanoseconds by units of work: the smallest of all rounds.
    cpu_ns: Option<f64>,
    /// The same of the floor.
    floor_ns: Option<f64>,
    /// Of these two.
    ratio: Option<f64>,
    /// Units of work in a second: the most of all rounds.
    per_second: Option<f64>,
    p50_us: Option<f64>,
    p99_us: Option<f64>,
    /// Of an idle connection.
    bytes: Option<f64>,
}

/// Measures, and prints or writes what came of it.
///
/// # Errors
/// The binary does not build, or a case fails: a message was lost, doubled or out of order. The others are measured all the same.
pub(crate) fn run(workspace: &Workspace, bench: &Bench) -> anyhow::Result<()> {
    let wanted = |case: &Case| {
        (!bench.quick || case.quick)
            && (bench.only.is_empty() || bench.only.iter().any(|part| case.name.contains(part)))
    };
    let cases: Vec<_> = cases::all().into_iter().filter(wanted).collect();
    ensure!(!cases.is_empty() || bench.others.is_some(), "no case is left");
    if bench.list {
        for case in &cases {
            println!("{:<52} hookwire bench {}", case.name, case.arguments.join(" "));
        }
        return Ok(());
    }
    let binary = match &bench.binary {
        Some(binary) => binary.clone(),
        None => workspace.binary(Build::Release)?,
    };
    let folder = workspace.target.join("bench");
    fs::create_dir_all(&folder).with_context(|| format!("could not make {}", folder.display()))?;
    let (mut outcomes, mut failed) = (Vec::new(), Vec::new());
    for case in &cases {
        let figures = match measure(&binary, &folder, &case.arguments) {
            Ok(figures) => figures,
            Err(error) => {
                // What the others come to is worth knowing, and took long.
                println!("{} failed: {error:#}", case.name);
                failed.push(case.name.as_str());
                continue;
            }
        };
        outcomes.push(Outcome {
            group: case.group.to_owned(),
            name: case.name.clone(),
            command: format!("hookwire bench {}", case.arguments.join(" ")),
            figures,
        });
    }
    let others = match &bench.others {
        Some(names) => {
            others::compare(&binary, &folder, names, if bench.quick { 1 } else { PASSES })?
        }
        None => Vec::new(),
    };
    let machine = machine::describe();
    let is_part = bench.quick || !bench.only.is_empty();
    if bench.write && is_part {
        let kept = report::kept(&workspace.folder("docs")?, &machine)?;
        outcomes = in_order(outcomes, kept);
    }
    let report = report::Report { machine, outcomes, others };
    println!("\n{}", report.markdown());
    let raw = folder.join("results.json");
    fs::write(&raw, report.json()).with_context(|| format!("could not write {}", raw.display()))?;
    println!("The figures are in {}.", raw.display());
    if bench.write {
        report.write(&workspace.folder("docs")?)?;
    }
    ensure!(failed.is_empty(), "failed: {}", failed.join(", "));
    Ok(())
}

/// Returns the outcome of each case, a new one before one that was kept, in the order of the cases.
fn in_order(new: Vec<Outcome>, kept: Vec<Outcome>) -> Vec<Outcome> {
    let mut all: Vec<_> = new.into_iter().chain(kept).collect();
    let take = |case: Case| {
        let at = all.iter().position(|one| one.group == case.group && one.name == case.name)?;
        Some(all.remove(at))
    };
    cases::all().into_iter().filter_map(take).collect()
}

/// Runs `hookwire bench` once and reads the JSON that it prints.
fn measure(binary: &Path, folder: &Path, arguments: &[String]) -> anyhow::Result<Figures> {
    let log = folder.join("case.log");
    Program::new(binary)
        .arguments(["--json", "bench"])
        .arguments(arguments)
        .log(&log)
        .limit(CASE_TIME_MAX)
        .run()
        .with_context(|| fs::read_to_string(&log).unwrap_or_default())?;
    let text = fs::read_to_string(&log)?;
    let line = text.lines().rev().find(|line| line.starts_with('{'));
    let outcome: Value = serde_json::from_str(line.context("the benchmark printed no JSON")?)?;
    Ok(Figures::read(&outcome))
}

impl Figures {
    /// Reads what `hookwire bench` printed: its benchmarks name what they count by what it is.
    fn read(outcome: &Value) -> Self {
        let summary = &outcome["summary"];
        let first = |names: &[&str], of: &dyn Fn(&Value) -> Option<f64>| {
            names.iter().find_map(|name| of(&summary[*name]))
        };
        let min = |value: &Value| value["min"].as_f64();
        let rates = outcome["rounds"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|round| RATES.iter().find_map(|name| round[*name].as_f64()));
        Self {
            cpu_ns: first(&COSTS, &min),
            floor_ns: first(&FLOORS, &min),
            ratio: summary["ratio_of_minima"].as_f64(),
            per_second: rates.reduce(f64::max),
            p50_us: summary["latency"]["p50_us"].as_f64(),
            p99_us: summary["latency"]["p99_us"].as_f64(),
            bytes: outcome["bytes_per_connection"].as_f64(),
        }
    }

    /// Returns the better of two runs of the same.
    fn best(self, other: Self) -> Self {
        let least = |a: Option<f64>, b: Option<f64>| a.into_iter().chain(b).reduce(f64::min);
        let most = |a: Option<f64>, b: Option<f64>| a.into_iter().chain(b).reduce(f64::max);
        let cpu_ns = least(self.cpu_ns, other.cpu_ns);
        let floor_ns = least(self.floor_ns, other.floor_ns);
        Self {
            cpu_ns,
            floor_ns,
            ratio: cpu_ns.zip(floor_ns).map(|(cpu, floor)| cpu / floor),
            per_second: most(self.per_second, other.per_second),
            p50_us: least(self.p50_us, other.p50_us),
            p99_us: least(self.p99_us, other.p99_us),
            bytes: least(self.bytes, other.bytes),
        }
    }

    /// Reads what [`Figures::json`] returned.
    fn of_json(value: &Value) -> Self {
        let figure = |name: &str| value[name].as_f64();
        Self {
            cpu_ns: figure("cpu_ns"),
            floor_ns: figure("floor_ns"),
            ratio: figure("ratio"),
            per_second: figure("per_second"),
            p50_us: figure("p50_us"),
            p99_us: figure("p99_us"),
            bytes: figure("bytes"),
        }
    }

    fn json(self) -> Value {
        json!({
            "cpu_ns": self.cpu_ns, "floor_ns": self.floor_ns, "ratio": self.ratio, "per_second": self.per_second,
            "p50_us": self.p50_us, "p99_us": self.p99_us, "bytes": self.bytes,
        })
    }
}

/// The names under which `hookwire bench` tells CPU time by units of work.
const COSTS: [&str; 4] = ["cost_per_delivery", "cost_per_message", "cpu_ns_per_connection", "cost"];

/// The same of the floor.
const FLOORS: [&str; 2] = ["floor_per_delivery", "floor"];

/// The names under which it tells units of work by time, in each round.
const RATES: [&str; 4] =
    ["deliveries_per_second", "messages_per_second", "units_per_second", "connections_per_second"];

/// How often servers are compared, unless it is to be quick.
const PASSES: usize = 2;

/// Longest time of one case: whatever takes longer is stuck.
const CASE_TIME_MAX: Duration = Duration::from_mins(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_whatever_is_counted() {
        let fanout = json!({"summary": {"cost_per_delivery": {"min": 5.0, "median": 6.0}, "floor_per_delivery": {"min": 4.0},
            "ratio_of_minima": 1.25, "latency": {"p50_us": 1.0, "p99_us": 2.0}},
            "rounds": [{"deliveries_per_second": 7.0}, {"deliveries_per_second": 9.0}]});
        let figures = Figures::read(&fanout);
        assert_eq!((figures.cpu_ns, figures.floor_ns), (Some(5.0), Some(4.0)));
        assert_eq!((figures.ratio, figures.per_second), (Some(1.25), Some(9.0)));
        assert_eq!((figures.p50_us, figures.p99_us, figures.bytes), (Some(1.0), Some(2.0), None));
        assert_eq!(Figures::read(&json!({"bytes_per_connection": 357.0})).bytes, Some(357.0));
    }

    #[test]
    fn new_outcomes_come_before_kept_ones_and_all_in_order() {
        let outcome = |case: &Case, rate: f64| Outcome {
            group: case.group.to_owned(),
            name: case.name.clone(),
            command: String::new(),
            figures: Figures { per_second: Some(rate), ..Figures::default() },
        };
        let cases = cases::all();
        let (first, last) = (&cases[0], &cases[cases.len() - 1]);
        let gone = Outcome { name: "a case that is no more".to_owned(), ..outcome(first, 1.0) };
        let kept = vec![outcome(last, 1.0), gone, outcome(first, 1.0)];
        let all = in_order(vec![outcome(last, 2.0)], kept);
        assert_eq!(all, [outcome(first, 1.0), outcome(last, 2.0)]);
    }

    #[test]
    fn the_best_of_two_runs_is_told() {
        let run = |cpu, floor, rate| Figures {
            cpu_ns: Some(cpu),
            floor_ns: Some(floor),
            per_second: Some(rate),
            ..Figures::default()
        };
        let best = run(6.0, 4.0, 10.0).best(run(5.0, 8.0, 20.0));
        assert_eq!((best.cpu_ns, best.ratio, best.per_second), (Some(5.0), Some(1.25), Some(20.0)));
        assert_eq!(best.best(Figures::default()).cpu_ns, Some(5.0), "a run without figures");
    }
}
