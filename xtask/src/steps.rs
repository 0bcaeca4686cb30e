//! The steps of `cargo xtask test` and `cargo xtask ci`, and the table of how they went.

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::ValueEnum;

use crate::autobahn::{self, Selection};
use crate::counts::{self, Counts};
use crate::program::{Failed, Program, seconds, take_failed};
use crate::workspace::{Build, Workspace};
use crate::{pages, purity, tools};

/// One check, by the name it is called on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Step {
    Fmt,
    Purity,
    Deny,
    Clippy,
    Tests,
    Golden,
    Doctests,
    Loom,
    Doc,
    Pages,
    Web,
    Binary,
    E2e,
    Compat,
    Autobahn,
    Counts,
}

/// How a step ended that found no fault.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Passed,
    /// Could not be done here, for this reason.
    Skipped(String),
}

impl Step {
    /// Every step, in the order in which they run: cheap ones first, and what others need before them.
    pub(crate) const ALL: [Self; 16] = [
        Self::Fmt,
        Self::Purity,
        Self::Deny,
        Self::Clippy,
        Self::Pages,
        Self::Web,
        Self::Tests,
        Self::Golden,
        Self::Loom,
        Self::Doctests,
        Self::Binary,
        Self::E2e,
        Self::Compat,
        Self::Autobahn,
        Self::Counts,
        Self::Doc,
    ];

    /// The steps that need neither Node, nor a browser, nor the rights to install packages.
    pub(crate) const WITHOUT_INSTALLING: [Self; 9] = [
        Self::Fmt,
        Self::Purity,
        Self::Deny,
        Self::Clippy,
        Self::Tests,
        Self::Golden,
        Self::Loom,
        Self::Doctests,
        Self::Doc,
    ];

    fn about(self) -> &'static str {
        match self {
            Self::Fmt => "the code is formatted",
            Self::Purity => "crates import only what they may",
            Self::Deny => "licences, bans and sources of dependencies",
            Self::Clippy => "lints, all targets, warnings are errors",
            Self::Tests => "unit, integration, property and simulation tests",
            Self::Golden => "golden files are as committed",
            Self::Doctests => "the examples in the documentation",
            Self::Loom => "every interleaving of inbox and wake-up",
            Self::Doc => "the documentation builds without warnings",
            Self::Pages => "the pages build",
            Self::Web => "types and unit tests of the pages",
            Self::Binary => "the hookwire command builds",
            Self::E2e => "the pages in Chromium against the real service",
            Self::Compat => "unmodified clients of others against the real service",
            Self::Autobahn => "the Autobahn test suite against our echo server",
            Self::Counts => "the hot paths take no more instructions than before",
        }
    }

    fn name(self) -> String {
        self.to_possible_value()
            .expect("no step is hidden from the command line")
            .get_name()
            .to_owned()
    }

    fn run(self, workspace: &Workspace) -> anyhow::Result<Outcome> {
        match self {
            Self::Fmt => workspace.cargo(["fmt", "--all", "--check"]).run(),
            Self::Purity => purity::check(workspace),
            Self::Deny => tools::deny(workspace),
            Self::Clippy => workspace
                .cargo([
                    "clippy",
                    "--locked",
                    "--workspace",
                    "--all-targets",
                    "--quiet",
                    "--",
                    "-D",
                    "warnings",
                ])
                .run(),
            Self::Tests => nextest(workspace, &["--workspace"]),
            Self::Golden => golden(workspace),
            Self::Doctests => {
                workspace.cargo(["test", "--locked", "--workspace", "--doc", "--quiet"]).run()
            }
            // The whole workspace, for the same features of every dependency: only the server is built again.
            Self::Loom => nextest(
                workspace,
                &["--workspace", "--lib", "--features", "hookwire-server/loom", "loom_"],
            ),
            Self::Doc => workspace
                .cargo(["doc", "--locked", "--workspace", "--no-deps", "--quiet"])
                .variable("RUSTDOCFLAGS", "-D warnings")
                .run(),
            Self::Pages => pages::build(workspace),
            Self::Web => web(workspace),
            Self::Binary => workspace.binary(Build::Debug).map(drop),
            Self::E2e => end_to_end(workspace),
            Self::Compat => compat(workspace),
            Self::Autobahn => return conformance(workspace),
            Self::Counts => counts::run(workspace, &Counts::default()),
        }
        .map(|()| Outcome::Passed)
    }
}

/// The steps of one run.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Selected(Vec<Step>);

impl Selected {
    /// Picks from `all`: those in `only`, or all if it is empty, without those in `skip`.
    ///
    /// # Errors
    /// When nothing is left.
    pub(crate) fn new(all: &[Step], only: &[Step], skip: &[Step]) -> anyhow::Result<Self> {
        let wanted =
            |step: &&Step| (only.is_empty() || only.contains(step)) && !skip.contains(step);
        let steps: Vec<_> = all.iter().filter(wanted).copied().collect();
        ensure!(!steps.is_empty(), "no step is left to run");
        Ok(Self(steps))
    }

    /// Prints the steps and what each of them checks.
    pub(crate) fn list(&self) {
        for step in &self.0 {
            println!("{:<10} {}", step.name(), step.about());
        }
    }

    /// Runs every step, also after one has failed, then prints how the output of what failed ended, and how each step
    /// went: whoever sees the end of a log only sees the reasons. The last line is `N passed, N failed`, with
    /// `, N skipped` behind it if any was.
    pub(crate) fn run(&self, workspace: &Workspace) -> ExitCode {
        let start = Instant::now();
        let mut rows = Vec::new();
        for (index, step) in self.0.iter().enumerate() {
            println!("\n== {}/{} {}: {}", index + 1, self.0.len(), step.name(), step.about());
            let start = Instant::now();
            take_failed();
            let result = step.run(workspace);
            if let Err(error) = &result {
                println!("{} failed: {error:#}", step.name());
            }
            rows.push(Row {
                step: *step,
                result,
                programs: take_failed(),
                duration: start.elapsed(),
            });
        }
        println!("\n{}", summary(&rows, start.elapsed()));
        if rows.iter().any(|row| row.result.is_err()) {
            ExitCode::FAILURE
        } else {
            ExitCode::SUCCESS
        }
    }
}

struct Row {
    step: Step,
    result: anyhow::Result<Outcome>,
    /// What failed in it.
    programs: Vec<Failed>,
    duration: Duration,
}

/// The last lines of what failed, the table, the reasons of what failed, and the closing line.
fn summary(rows: &[Row], duration: Duration) -> String {
    let (mut passed, mut skipped) = (0, 0);
    let mut failures = Vec::new();
    let mut lines = Vec::new();
    for row in rows.iter().filter(|row| row.result.is_err()) {
        for Failed { what, last_lines } in &row.programs {
            if !last_lines.is_empty() {
                let text = last_lines.join("\n");
                lines.push(format!("== {}, again: how {what}\n{text}\n", row.step.name()));
            }
        }
    }
    for row in rows {
        let name = row.step.name();
        let verdict = match &row.result {
            Ok(Outcome::Passed) => {
                passed += 1;
                "passed".to_owned()
            }
            Ok(Outcome::Skipped(reason)) => {
                skipped += 1;
                format!("skipped: {reason}")
            }
            Err(error) => {
                failures.push(format!("{name}: {error:#}"));
                "FAILED".to_owned()
            }
        };
        lines.push(format!("{name:<10} {:>12}  {verdict}", seconds(row.duration)));
    }
    lines.push(format!("{:<10} {:>12}", "all", seconds(duration)));
    if !failures.is_empty() {
        lines.push(format!("\nFailed:\n{}", failures.join("\n")));
    }
    let skipped = if skipped == 0 { String::new() } else { format!(", {skipped} skipped") };
    lines.push(format!("\n{passed} passed, {} failed{skipped}", failures.len()));
    lines.join("\n")
}

fn nextest(workspace: &Workspace, arguments: &[&str]) -> anyhow::Result<()> {
    tools::cargo_command(workspace, "nextest")?;
    // A golden file that differs is a failure, never a new golden file.
    workspace
        .cargo(["nextest", "run", "--locked"])
        .arguments(arguments)
        .variable("INSTA_UPDATE", "no")
        .run()
}

/// Fails if a golden file waits for a decision: a test has written another one beside it.
fn golden(workspace: &Workspace) -> anyhow::Result<()> {
    let mut waiting = Vec::new();
    for folder in ["crates", "apps"] {
        find_pending(&workspace.folder(folder)?, &mut waiting)?;
    }
    ensure!(
        waiting.is_empty(),
        "golden files wait for a decision, see `cargo insta review`:\n  {}",
        waiting.join("\n  ")
    );
    Ok(())
}

fn find_pending(folder: &Path, waiting: &mut Vec<String>) -> anyhow::Result<()> {
    for entry in
        fs::read_dir(folder).with_context(|| format!("could not list {}", folder.display()))?
    {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            find_pending(&path, waiting)?;
        } else if ["new", "pending-snap"]
            .iter()
            .any(|end| path.extension().is_some_and(|extension| extension == *end))
        {
            waiting.push(path.display().to_string());
        }
    }
    Ok(())
}

fn web(workspace: &Workspace) -> anyhow::Result<()> {
    let web = workspace.folder("web")?;
    tools::packages(&web)?;
    tools::npm(&web, &["run", "lint"]).run()?;
    tools::npm(&web, &["test"]).run()
}

fn end_to_end(workspace: &Workspace) -> anyhow::Result<()> {
    let web = workspace.folder("web")?;
    let chromium = tools::chromium()?;
    pages::build(workspace)?;
    tools::packages(&web)?;
    against_the_binary(workspace, tools::npm(&web, &["run", "e2e"]))?
        .variable("HOOKWIRE_CHROMIUM", chromium)
        .run()
}

/// Runs every suite, also after one has failed. The packages of all are installed first: suites share what starts the service.
fn compat(workspace: &Workspace) -> anyhow::Result<()> {
    let suites = COMPAT_SUITES.map(|name| workspace.folder(&format!("compat/{name}")));
    let suites = suites.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let tests = suites
        .iter()
        .map(|folder| {
            if folder.join("run.py").exists() {
                return Ok(Program::new("python3").arguments(["run.py"]).directory(folder));
            }
            // Node's test runner is content with none.
            let tests = fs::read_dir(folder.join("test")).is_ok_and(|found| 0 < found.count());
            ensure!(tests, "{} holds no tests", folder.display());
            tools::packages(folder)?;
            Ok(tools::npm(folder, &["test"]))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let mut outcome = Ok(());
    for (name, test) in COMPAT_SUITES.iter().zip(tests) {
        let result = against_the_binary(workspace, test)?.run();
        // The first failure is named; the output of each is shown at the end.
        outcome = outcome.and(result.with_context(|| format!("compat/{name}")));
    }
    outcome
}

/// A test that starts the `hookwire` command by itself, from the path in `HOOKWIRE_BIN`.
fn against_the_binary(workspace: &Workspace, test: Program) -> anyhow::Result<Program> {
    Ok(test.variable("HOOKWIRE_BIN", workspace.binary(Build::Debug)?).limit(AGAINST_THE_BINARY_MAX))
}

fn conformance(workspace: &Workspace) -> anyhow::Result<Outcome> {
    if let Err(error) = autobahn::install(workspace) {
        return Ok(Outcome::Skipped(format!("{error:#}")));
    }
    autobahn::run(workspace, &Selection::default())?;
    Ok(Outcome::Passed)
}

/// The suites in `compat`: clients of others, each in a folder with packages and tests of its own, for npm or for Python.
const COMPAT_SUITES: [&str; 5] =
    ["js", "openapi", "web-pubsub-js", "web-pubsub-python", "chat-storage"];

/// How long tests against the running service may take.
const AGAINST_THE_BINARY_MAX: Duration = Duration::from_mins(15);

#[cfg(test)]
mod tests {
    use anyhow::anyhow;

    use super::*;

    #[test]
    fn every_step_is_run_by_test_exactly_once() {
        for step in Step::value_variants() {
            assert_eq!(Step::ALL.iter().filter(|other| *other == step).count(), 1, "{step:?}");
        }
    }

    #[test]
    fn only_and_skip_select_in_the_order_of_the_steps() {
        let selected =
            Selected::new(&Step::ALL, &[Step::Doc, Step::Fmt, Step::Loom], &[Step::Loom]).unwrap();
        assert_eq!(selected, Selected(vec![Step::Fmt, Step::Doc]));
        assert!(Selected::new(&Step::ALL, &[Step::Doc], &[Step::Doc]).is_err());
    }

    fn row(step: Step, result: anyhow::Result<Outcome>) -> Row {
        Row { step, result, programs: Vec::new(), duration: Duration::from_secs(1) }
    }

    #[test]
    fn the_closing_line_counts_steps() {
        let rows = [row(Step::Fmt, Ok(Outcome::Passed)), row(Step::Doc, Ok(Outcome::Passed))];
        assert_eq!(summary(&rows, Duration::ZERO).lines().last(), Some("2 passed, 0 failed"));
    }

    #[test]
    fn failures_and_skips_are_counted_and_give_their_reasons() {
        let rows = [
            row(Step::Fmt, Err(anyhow!("not formatted"))),
            row(Step::Autobahn, Ok(Outcome::Skipped("no Python 2.7".to_owned()))),
        ];
        let text = summary(&rows, Duration::ZERO);
        assert_eq!(text.lines().last(), Some("0 passed, 1 failed, 1 skipped"));
        assert!(text.contains("fmt: not formatted"), "{text}");
        assert!(text.contains("skipped: no Python 2.7"), "{text}");
    }

    #[test]
    fn what_a_failed_step_printed_last_is_printed_again() {
        let failed = |line: &str| Failed {
            what: "`x` failed".to_owned(),
            last_lines: vec!["…".to_owned(), line.to_owned()],
        };
        let rows = [
            Row { programs: vec![failed("recovered")], ..row(Step::Fmt, Ok(Outcome::Passed)) },
            Row { programs: vec![failed("the reason")], ..row(Step::E2e, Err(anyhow!("x"))) },
        ];
        let text = summary(&rows, Duration::ZERO);
        assert!(text.contains("…\nthe reason\n"), "{text}");
        assert!(!text.contains("recovered"), "{text}");
        assert_eq!(text.lines().last(), Some("1 passed, 1 failed"));
    }

    #[test]
    fn a_golden_file_that_waits_is_found() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("snapshots")).unwrap();
        fs::write(folder.path().join("snapshots/frame.snap"), "").unwrap();
        let mut waiting = Vec::new();
        find_pending(folder.path(), &mut waiting).unwrap();
        assert_eq!(waiting, Vec::<String>::new());

        fs::write(folder.path().join("snapshots/frame.snap.new"), "").unwrap();
        find_pending(folder.path(), &mut waiting).unwrap();
        assert_eq!(waiting.len(), 1);
    }
}
