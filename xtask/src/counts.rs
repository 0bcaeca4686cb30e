//! The regression guard: instructions of the hot paths, counted by callgrind and compared with those that are committed.
//!
//! Counts do not depend on how busy the machine is, but a little on the processor's features and the C library; a tolerance covers that.
//! Wall-clock times are compared nowhere.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;

use anyhow::{Context, bail, ensure};
use clap::Args;
use serde_json::Value;

use crate::tools;
use crate::workspace::Workspace;

/// How the guard goes.
#[derive(Debug, Default, Args)]
pub(crate) struct Counts {
    /// Take what was counted as what is expected from now on: writes `xtask/counts.json`
    #[arg(long)]
    accept: bool,
}

/// Instructions by the name of what was counted.
type Table = BTreeMap<String, u64>;

/// Counts, and compares with the committed counts.
///
/// # Errors
/// When valgrind or the runner cannot be had, a benchmark fails, or a count is too high, missing or new.
pub(crate) fn run(workspace: &Workspace, counts: &Counts) -> anyhow::Result<()> {
    tools::valgrind()?;
    tools::gungraun_runner(workspace)?;
    let found = count(workspace)?;
    let path = workspace.root.join(BASELINE);
    if counts.accept {
        let text = serde_json::to_string_pretty(&found)? + "\n";
        fs::write(&path, text).with_context(|| format!("could not write {}", path.display()))?;
        println!("{} counts are in {BASELINE}.", found.len());
        return Ok(());
    }
    let text =
        fs::read_to_string(&path).with_context(|| format!("could not read {}", path.display()))?;
    let expected =
        serde_json::from_str(&text).with_context(|| format!("{BASELINE} is no table of counts"))?;
    let comparison = Comparison::new(&expected, &found);
    println!("{comparison}");
    comparison.verdict()
}

/// Runs the benchmarks of the pure crates.
fn count(workspace: &Workspace) -> anyhow::Result<Table> {
    let output = workspace
        .cargo(["bench", "--locked", "--package", "hookwire-proto", "--package", "hookwire-hub"])
        // By name: the harness of unit tests does not know what follows the dashes.
        .arguments(BENCHMARKS.iter().flat_map(|name| ["--bench", name]))
        .arguments(["--", "--output-format=json"])
        .output()?;
    let mut table = Table::new();
    for line in output.lines().filter(|line| line.starts_with('{')) {
        let (name, instructions) = entry(&serde_json::from_str(line)?)?;
        ensure!(table.insert(name.clone(), instructions).is_none(), "two benchmarks are {name}");
    }
    ensure!(!table.is_empty(), "the benchmarks printed no counts");
    Ok(table)
}

/// Reads one line of the runner's output (its schema, version 6).
fn entry(line: &Value) -> anyhow::Result<(String, u64)> {
    let text = |key: &str| line[key].as_str().with_context(|| format!("a count has no {key}"));
    let name = format!("{}::{}", text("module_path")?, text("id")?);
    let instructions =
        line["profiles"][0]["data"]["total"]["metrics"]["Ir"]["values"]["new"].as_u64();
    Ok((name.clone(), instructions.with_context(|| format!("{name} has no count"))?))
}

/// What became of each count.
#[derive(Debug)]
struct Comparison {
    rows: Vec<Row>,
}

#[derive(Debug)]
struct Row {
    name: String,
    expected: Option<u64>,
    found: Option<u64>,
}

impl Comparison {
    fn new(expected: &Table, found: &Table) -> Self {
        let names: std::collections::BTreeSet<_> = expected.keys().chain(found.keys()).collect();
        let row = |name: &String| Row {
            name: name.clone(),
            expected: expected.get(name).copied(),
            found: found.get(name).copied(),
        };
        Self { rows: names.into_iter().map(row).collect() }
    }

    /// Says whether no count has grown beyond the tolerance, and none is missing or new.
    fn verdict(&self) -> anyhow::Result<()> {
        let faults: Vec<_> =
            self.rows.iter().filter(|row| row.is_fault()).map(|row| row.name.as_str()).collect();
        if faults.is_empty() {
            return Ok(());
        }
        bail!(
            "instructions have grown by more than {TOLERANCE_PERCENT} %, or a benchmark came or went: {}; \
             if that is meant, `cargo xtask counts --accept` and say why in the commit",
            faults.join(", ")
        )
    }
}

impl Row {
    fn is_fault(&self) -> bool {
        match (self.expected, self.found) {
            (Some(expected), Some(found)) => {
                u128::from(expected) * u128::from(100 + TOLERANCE_PERCENT) < u128::from(found) * 100
            }
            _ => true,
        }
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        let number = |count: Option<u64>| count.map_or("-".to_owned(), |count| count.to_string());
        writeln!(f, "{:<width$} {:>12} {:>12}", "instructions", "expected", "found")?;
        for row in &self.rows {
            let note = if row.is_fault() { "  FAULT" } else { "" };
            writeln!(
                f,
                "{:<width$} {:>12} {:>12}{note}",
                row.name,
                number(row.expected),
                number(row.found)
            )?;
        }
        Ok(())
    }
}

/// The committed counts, from the root of the checkout.
const BASELINE: &str = "xtask/counts.json";

/// The benchmarks that are counted.
const BENCHMARKS: [&str; 3] = ["codec", "subprotocol", "fanout"];

/// How much a count may grow, in percent: the dispatch of the C library and of SIMD code by processor makes some difference.
const TOLERANCE_PERCENT: u64 = 5;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn table(counts: &[(&str, u64)]) -> Table {
        counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect()
    }

    #[test]
    fn a_count_is_read_by_its_name() {
        let line = json!({"module_path": "codec::codec::mask", "id": "of_128_bytes",
            "profiles": [{"data": {"total": {"metrics": {"Ir": {"values": {"new": 90}}}}}}]});
        assert_eq!(entry(&line).unwrap(), ("codec::codec::mask::of_128_bytes".to_owned(), 90));
        let broken = json!({"module_path": "m", "id": "i", "profiles": []});
        assert_eq!(entry(&broken).unwrap_err().to_string(), "m::i has no count");
    }

    #[test]
    fn what_grows_comes_or_goes_is_a_fault() {
        let expected = table(&[("same", 100), ("less", 100), ("within", 100), ("more", 100)]);
        let found = table(&[("same", 100), ("less", 10), ("within", 105), ("more", 106)]);
        let error = Comparison::new(&expected, &found).verdict().unwrap_err().to_string();
        assert!(error.contains("came or went: more; if"), "{error}");
        for (expected, found) in [(&[("a", 1)][..], &[][..]), (&[], &[("a", 1)])] {
            assert!(Comparison::new(&table(expected), &table(found)).verdict().is_err());
        }
        assert!(Comparison::new(&expected, &expected).verdict().is_ok());
    }
}
