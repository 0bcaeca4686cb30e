//! The Autobahn test suite, run as a fuzzing client against our frame codec and socket loop in echo mode.

mod install;
mod report;

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde_json::{Value, json};

pub(crate) use self::install::install;
use self::report::Report;
use crate::program::{Program, Running};
use crate::workspace::{Build, Workspace};

/// What to test, and how much of it.
#[derive(Debug, Default, Args)]
pub(crate) struct Selection {
    /// Cases by the suite's own patterns, such as `6.*,9.1.1`, instead of all but compression
    #[arg(long, value_delimiter = ',', value_name = "PATTERN")]
    cases: Vec<String>,
    /// Test the release build
    #[arg(long)]
    release: bool,
    /// Test this binary instead of one built here
    #[arg(long, value_name = "PATH", conflicts_with = "release")]
    binary: Option<PathBuf>,
}

impl Selection {
    fn patterns(&self) -> Vec<&str> {
        if self.cases.is_empty() {
            CHAPTERS.to_vec()
        } else {
            self.cases.iter().map(String::as_str).collect()
        }
    }

    /// How many cases must have run at least: a suite that ran nothing has not passed.
    fn cases_min(&self) -> usize {
        if self.cases.is_empty() { CASES } else { 1 }
    }
}

/// Runs the selected cases against an echo server of ours and prints what came out. The suite must be installed.
///
/// # Errors
/// When a case failed, cases are missing, or a program did not start.
pub(crate) fn run(workspace: &Workspace, selection: &Selection) -> anyhow::Result<()> {
    let binary = match (&selection.binary, selection.release) {
        (Some(binary), _) => binary.clone(),
        (None, true) => workspace.binary(Build::Release)?,
        (None, false) => workspace.binary(Build::Debug)?,
    };
    let (server, url) = echo_server(&binary)?;
    let index = fuzz(workspace, selection, &url)?;
    server.terminate(STOP_MAX)?;
    let report = Report::new(&index, AGENT)?;
    println!("{report}");
    report.verdict(selection.cases_min())
}

/// Starts the echo server on a free port of loopback: the process, and the URL for clients.
fn echo_server(binary: &Path) -> anyhow::Result<(Running, String)> {
    let mut server = Program::new(binary)
        .arguments(["bench", "echo-server", "--listen", "127.0.0.1:0", "--json"])
        .arguments(["--message-bytes-max", MESSAGE_BYTES_MAX])
        .start()?;
    let output = server.0.stdout.take().context("the echo server has no standard output")?;
    let (lines, first) = mpsc::channel();
    thread::spawn(move || {
        let mut output = BufReader::new(output);
        let mut line = String::new();
        let read = output.read_line(&mut line).map(|_| line);
        // Nobody listens any more if the wait below has run out; later output is not wanted, but must not block.
        let _ = lines.send(read);
        let _ = std::io::copy(&mut output, &mut std::io::sink());
    });
    let line =
        first.recv_timeout(START_MAX).context("the echo server did not say where it listens")??;
    let ready: Value = serde_json::from_str(&line)
        .with_context(|| format!("the echo server printed {line:?} instead of one line of JSON"))?;
    let url = ready["url"].as_str().context("the echo server's line has no `url`")?;
    Ok((server, url.to_owned()))
}

/// Runs the suite against a server, and returns its `index.json`.
fn fuzz(workspace: &Workspace, selection: &Selection, url: &str) -> anyhow::Result<Value> {
    let folder = install::folder(workspace);
    let reports = folder.join("reports");
    if reports.exists() {
        // An earlier run's report must not be taken for this one's.
        fs::remove_dir_all(&reports)
            .with_context(|| format!("could not remove {}", reports.display()))?;
    }
    let specification = json!({
        "outdir": reports,
        "servers": [{ "agent": AGENT, "url": url }],
        "cases": selection.patterns(),
        "exclude-cases": [],
        "exclude-agent-cases": {},
    });
    let file = folder.join("cases.json");
    fs::write(&file, specification.to_string())
        .with_context(|| format!("could not write {}", file.display()))?;
    let log = quiet(
        &install::wstest(workspace).arguments(["-m", "fuzzingclient", "-s"]).arguments([&file]),
        &folder,
    )?;
    let index = reports.join("index.json");
    let text = fs::read_to_string(&index).with_context(|| {
        format!("the suite left no {}; its output is in {}", index.display(), log.display())
    })?;
    println!("The suite's pages about each case: {}", reports.join("index.html").display());
    serde_json::from_str(&text).with_context(|| format!("{} is not JSON", index.display()))
}

/// Runs the suite with its output (a line for each case) in a file, whose path is returned.
fn quiet(suite: &Program, folder: &Path) -> anyhow::Result<PathBuf> {
    let log = folder.join("wstest.log");
    suite
        .clone()
        .log(&log)
        .limit(SUITE_MAX)
        .run()
        .with_context(|| format!("its output is in {}", log.display()))?;
    Ok(log)
}

/// Our name in the suite's reports.
const AGENT: &str = "hookwire";

/// All chapters but compression (12, 13), which the service does not offer.
const CHAPTERS: [&str; 9] = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"];

/// How many cases those chapters have.
const CASES: usize = 301;

/// What chapter 9 sends at most, and the echo server must take.
const MESSAGE_BYTES_MAX: &str = "16777216";

/// How long the echo server may take to listen.
const START_MAX: Duration = Duration::from_secs(30);

/// How long the echo server may take to end after a signal.
const STOP_MAX: Duration = Duration::from_secs(30);

/// How long the suite may take; all 301 cases need 20 seconds on two cores.
const SUITE_MAX: Duration = Duration::from_mins(15);
