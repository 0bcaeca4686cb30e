//! What the suite found: its `index.json`, judged.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

/// The outcome of every case that ran.
#[derive(Debug)]
pub(super) struct Report {
    chapters: BTreeMap<u32, Chapter>,
    failures: Vec<String>,
}

/// How many cases of a chapter ended how.
#[derive(Debug, Default, PartialEq, Eq)]
struct Chapter {
    passed: usize,
    non_strict: usize,
    informational: usize,
    failed: usize,
}

impl Report {
    /// Judges an `index.json`: agent name → case → `behavior` and `behaviorClose`.
    ///
    /// # Errors
    /// When the index does not have that shape.
    pub(super) fn new(index: &Value, agent: &str) -> anyhow::Result<Self> {
        let cases =
            index[agent].as_object().with_context(|| format!("the suite did not reach {agent}"))?;
        let mut report = Self { chapters: BTreeMap::new(), failures: Vec::new() };
        for (case, result) in cases {
            let text = |key: &str| {
                result[key]
                    .as_str()
                    .with_context(|| format!("the suite's index has no {key} for case {case}"))
            };
            report.add(case, text("behavior")?, text("behaviorClose")?)?;
        }
        Ok(report)
    }

    /// Says whether the cases passed.
    ///
    /// # Errors
    /// When a case failed, or fewer than `cases_min` ran.
    pub(super) fn verdict(&self, cases_min: usize) -> anyhow::Result<()> {
        if !self.failures.is_empty() {
            let shown = &self.failures[..self.failures.len().min(FAILURES_SHOWN_MAX)];
            let more = match self.failures.len() - shown.len() {
                0 => String::new(),
                more => format!("\n  and {more} more"),
            };
            bail!("{} cases failed:\n  {}{more}", self.failures.len(), shown.join("\n  "));
        }
        let ran = self.total().cases();
        ensure!(cases_min <= ran, "{ran} cases ran, {cases_min} should have");
        Ok(())
    }

    fn add(&mut self, case: &str, behavior: &str, close: &str) -> anyhow::Result<()> {
        let chapter = case.split('.').next().and_then(|number| number.parse().ok());
        let chapter = chapter.with_context(|| format!("{case:?} is not the number of a case"))?;
        let chapter = self.chapters.entry(chapter).or_default();
        match (behavior, close) {
            ("OK", "OK" | "INFORMATIONAL") => chapter.passed += 1,
            ("NON-STRICT", "OK") if case.starts_with(NON_STRICT_ALLOWED) => chapter.non_strict += 1,
            ("INFORMATIONAL", "OK" | "INFORMATIONAL") => chapter.informational += 1,
            _ => {
                chapter.failed += 1;
                self.failures.push(format!("{case}: {behavior}, close: {close}"));
            }
        }
        Ok(())
    }

    fn total(&self) -> Chapter {
        self.chapters.values().fold(Chapter::default(), |sum, chapter| Chapter {
            passed: sum.passed + chapter.passed,
            non_strict: sum.non_strict + chapter.non_strict,
            informational: sum.informational + chapter.informational,
            failed: sum.failed + chapter.failed,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(formatter, "chapter   cases      ok  non-strict  informational  failed")?;
        let rows = self.chapters.iter().map(|(number, chapter)| (number.to_string(), chapter));
        let total = self.total();
        for (name, chapter) in rows.chain([("all".to_owned(), &total)]) {
            writeln!(
                formatter,
                "{name:>7}  {:>6}  {:>6}  {:>10}  {:>13}  {:>6}",
                chapter.cases(),
                chapter.passed,
                chapter.non_strict,
                chapter.informational,
                chapter.failed
            )?;
        }
        Ok(())
    }
}

impl Chapter {
    fn cases(&self) -> usize {
        self.passed + self.non_strict + self.informational + self.failed
    }
}

/// Invalid UTF-8 is to be refused as soon as it shows; the suite calls it non-strict, not wrong, to wait for the end of
/// the frame that it is in.
const NON_STRICT_ALLOWED: &str = "6.4.";

/// Failed cases that an error lists one by one.
const FAILURES_SHOWN_MAX: usize = 20;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(cases: &[(&str, &str, &str)]) -> Report {
        let cases: serde_json::Map<_, _> = cases
            .iter()
            .map(|(case, behavior, close)| {
                ((*case).to_owned(), json!({ "behavior": behavior, "behaviorClose": close, "remoteCloseCode": 1000 }))
            })
            .collect();
        Report::new(&json!({ "hookwire": cases }), "hookwire").unwrap()
    }

    #[test]
    fn what_the_suite_accepts_passes() {
        let report = report(&[
            ("1.1.1", "OK", "OK"),
            ("6.4.1", "NON-STRICT", "OK"),
            ("7.1.6", "INFORMATIONAL", "INFORMATIONAL"),
            ("10.1.1", "OK", "OK"),
        ]);
        report.verdict(4).unwrap();
        assert_eq!(
            report.total(),
            Chapter { passed: 2, non_strict: 1, informational: 1, failed: 0 }
        );
    }

    #[test]
    fn everything_else_fails() {
        for (case, behavior, close) in [
            ("1.1.1", "FAILED", "OK"),
            ("1.1.1", "OK", "FAILED"),
            ("1.1.1", "OK", "UNCLEAN"),
            ("7.9.1", "OK", "WRONG CODE"),
            ("7.9.1", "OK", "FAILED BY CLIENT"),
            ("5.1.1", "NON-STRICT", "OK"),
            ("6.4.1", "NON-STRICT", "UNCLEAN"),
            ("12.1.1", "UNIMPLEMENTED", "OK"),
            ("7.1.6", "INFORMATIONAL", "UNCLEAN"),
        ] {
            let report = report(&[("2.1", "OK", "OK"), (case, behavior, close)]);
            let error = report.verdict(1).expect_err(case);
            assert!(
                error.to_string().contains(&format!("{case}: {behavior}, close: {close}")),
                "{error}"
            );
        }
    }

    #[test]
    fn a_suite_that_ran_too_little_has_not_passed() {
        let error = report(&[("1.1.1", "OK", "OK")]).verdict(247).unwrap_err();
        assert_eq!(error.to_string(), "1 cases ran, 247 should have");
    }

    #[test]
    fn a_server_that_was_not_reached_is_an_error() {
        assert!(Report::new(&json!({}), "hookwire").is_err());
    }

    #[test]
    fn chapters_stand_in_the_order_of_their_numbers() {
        let text = report(&[("10.1.1", "OK", "OK"), ("2.1", "OK", "OK")]).to_string();
        let rows: Vec<_> = text.lines().map(|line| line.split_whitespace().next()).collect();
        assert_eq!(rows, ["chapter", "2", "10", "all"].map(Some));
    }
}
