//! Other servers in the same run: yardsticks, never dependencies. What they need is installed into a scratch folder, or from Debian; what
//! cannot be had is reported as absent, with the reason.
//!
//! A server is started anew for each comparison and ends with it, as Hookwire does. What a failure leaves behind disturbs nothing else.

mod list;
mod packages;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use self::list::{COMPARISONS, Comparison, FILES, HOOKWIRE, Kind, OTHERS, Other};
use super::{Figures, measure};
use crate::program::{Attended, Program};
use crate::tools;

/// A server and what came of each comparison.
#[derive(Debug)]
pub(super) struct Compared {
    pub(super) server: &'static str,
    /// How it is set up.
    pub(super) settings: &'static str,
    /// Names and versions of what it consists of, if it is another's.
    pub(super) versions: String,
    /// One for each comparison, in their order; `Err` says why the server is absent.
    pub(super) cells: Result<Vec<Cell>, String>,
}

/// The name of a comparison and what came of it: no figures if the server takes no part, `Err` with the reason if it failed.
pub(super) type Cell = (&'static str, Result<Figures, String>);

/// Measures Hookwire and other servers by the same clients, in so many passes over all of them; the best of each counts. `names` are parts
/// of the names of those that are wanted; none means all.
///
/// # Errors
/// Hookwire cannot be measured. What goes wrong with another server is told with its name.
pub(super) fn compare(
    binary: &Path,
    folder: &Path,
    names: &[String],
    passes: usize,
) -> anyhow::Result<Vec<Compared>> {
    let scratch = folder.join("others");
    write_files(&scratch)?;
    let mut hookwire = Compared::new("Hookwire", HOOKWIRE, String::new());
    let others = OTHERS.iter().filter(|other| other.is_named(names));
    let mut others: Vec<_> =
        others.map(|other| (other, Compared::installed(other, &scratch))).collect();
    for _ in 0..passes {
        for (at, comparison) in COMPARISONS.iter().enumerate() {
            hookwire.add(at, Ok(measure(binary, folder, &comparison.of_hookwire())?));
        }
        for (other, compared) in &mut others {
            for (at, comparison) in COMPARISONS.iter().enumerate() {
                if compared.can_go_on(at) {
                    let figures = other.measure(comparison, binary, folder, &scratch);
                    compared.add(at, figures);
                }
            }
        }
    }
    let others = others.into_iter().map(|(_, compared)| compared);
    Ok([hookwire].into_iter().chain(others).collect())
}

/// Writes what servers are started by, as far as it is not there: what is built of it is then built once.
fn write_files(scratch: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(scratch)?;
    for (name, text) in FILES {
        let file = scratch.join(name);
        if fs::read_to_string(&file).ok().as_deref() != Some(text) {
            fs::write(&file, text)
                .with_context(|| format!("could not write {}", file.display()))?;
        }
    }
    Ok(())
}

impl Compared {
    fn new(server: &'static str, settings: &'static str, versions: String) -> Self {
        let none = COMPARISONS.iter().map(|comparison| (comparison.name, Ok(Figures::default())));
        Self { server, settings, versions, cells: Ok(none.collect()) }
    }

    /// Installs a server. If that fails, it is absent.
    fn installed(other: &Other, scratch: &Path) -> Self {
        let installed = tools::node().and_then(|()| packages::install(other.packages, scratch));
        let versions = packages::versions(other.packages, scratch);
        let compared = Self::new(other.name, other.settings, versions);
        match installed {
            Ok(()) => compared,
            Err(error) => {
                println!("{} is absent: {error:#}", other.name);
                Self { cells: Err(reason(&error)), ..compared }
            }
        }
    }

    /// Whether a comparison has not failed so far.
    fn can_go_on(&self, at: usize) -> bool {
        self.cells.as_ref().is_ok_and(|cells| cells[at].1.is_ok())
    }

    /// Adds what came of a comparison to the best so far. One failure is enough: what is lost now and then is lost.
    fn add(&mut self, at: usize, pass: anyhow::Result<Figures>) {
        let Ok(cells) = &mut self.cells else { return };
        let (name, cell) = &mut cells[at];
        let Ok(best) = cell else { return };
        match pass {
            Ok(figures) => *best = best.best(figures),
            Err(error) => {
                println!("{name}: {} failed: {error:#}", self.server);
                *cell = Err(reason(&error));
            }
        }
    }
}

impl Other {
    /// Starts the server and measures it; no figures if it takes no part.
    fn measure(
        &self,
        comparison: &Comparison,
        binary: &Path,
        folder: &Path,
        scratch: &Path,
    ) -> anyhow::Result<Figures> {
        let Some(path) = self.path_for(comparison) else { return Ok(Figures::default()) };
        let (running, ready) = self.start(scratch)?;
        let mut arguments = comparison.of_other();
        arguments.extend([
            format!("--url=ws://127.0.0.1:{}{path}", ready.port),
            format!("--pid={}", ready.pid.unwrap_or_else(|| running.id())),
            "--pid-tree".to_owned(),
        ]);
        if comparison.kind == Kind::Fanout {
            arguments.push(format!("--publish-url=http://127.0.0.1:{}/pub", ready.publish_port));
            arguments.extend(self.arguments.iter().map(|argument| (*argument).to_owned()));
        }
        measure(binary, folder, &arguments)
    }

    /// Starts the server and returns what it tells of itself.
    fn start(&self, scratch: &Path) -> anyhow::Result<(Attended, Ready)> {
        let (program, arguments) = self.command.split_first().context("nothing is started")?;
        let local = scratch.join(program);
        let program = if local.is_file() { local } else { PathBuf::from(program) };
        let program = Program::new(program).arguments(arguments).directory(scratch);
        let mut running = program.start_attended()?;
        let ready = running.first_json(START_MAX)?;
        Ok((running, Ready::read(&ready).context("it told no port")?))
    }
}

/// What a server tells when clients may come.
#[derive(Debug, PartialEq, Eq)]
struct Ready {
    port: u64,
    /// Where messages are posted.
    publish_port: u64,
    /// The process that counts, with its descendants, if it is not the one that was started.
    pid: Option<u64>,
}

impl Ready {
    fn read(line: &Value) -> Option<Self> {
        let port = line["port"].as_u64()?;
        let publish_port = line["publish_port"].as_u64().unwrap_or(port);
        Some(Self { port, publish_port, pid: line["pid"].as_u64() })
    }
}

/// Returns what an error comes to in a line. A benchmark that fails has printed it first, with its causes in lines of their own.
fn reason(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    let text = text.trim_start_matches([':', ' ', '\n']);
    let Some(failed) = text.strip_prefix("Error: ") else {
        return text.lines().next().unwrap_or_default().to_owned();
    };
    let (first, rest) = failed.split_once('\n').unwrap_or((failed, ""));
    let causes = rest.trim_start().strip_prefix("Caused by:\n").unwrap_or_default();
    let causes = causes.lines().take_while(|line| line.starts_with(' '));
    let numbered = |character: char| character.is_ascii_digit() || " :".contains(character);
    [first]
        .into_iter()
        .chain(causes.map(|cause| cause.trim_start_matches(numbered)))
        .collect::<Vec<_>>()
        .join(": ")
}

/// How long a server may take to start.
const START_MAX: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use anyhow::anyhow;
    use serde_json::json;

    use super::*;

    #[test]
    fn a_server_tells_where_it_is_and_perhaps_who_counts() {
        let ready = |port, publish_port, pid| Some(Ready { port, publish_port, pid });
        assert_eq!(Ready::read(&json!({"port": 1})), ready(1, 1, None));
        let all = json!({"port": 1, "publish_port": 2, "pid": 3});
        assert_eq!(Ready::read(&all), ready(1, 2, Some(3)));
        assert_eq!(Ready::read(&json!({"pid": 3})), None);
    }

    #[test]
    fn a_failure_is_told_in_a_line_and_stays() {
        let figures = |rate| Ok(Figures { per_second: Some(rate), ..Figures::default() });
        let mut compared = Compared::new("x", "", String::new());
        compared.add(0, figures(1.0));
        compared.add(1, figures(1.0));
        let log = "Error: 5 of 6 deliveries came\n\nCaused by:\n    0: it failed\n    1: it was closed\n\nStack";
        compared.add(1, Err(anyhow!("it failed").context(log)));
        compared.add(0, figures(2.0));
        compared.add(1, figures(2.0));
        assert!(compared.can_go_on(0) && !compared.can_go_on(1));
        let cells = compared.cells.unwrap();
        assert_eq!(
            cells[0],
            ("lone", figures(2.0).map_err(|error: anyhow::Error| error.to_string()))
        );
        assert_eq!(cells[1].1, Err("5 of 6 deliveries came: it failed: it was closed".to_owned()));
        assert_eq!(reason(&anyhow!("Error: it ended\n: it failed")), "it ended");
        assert_eq!(reason(&anyhow!("it did not end").context("")), "it did not end");
    }
}
