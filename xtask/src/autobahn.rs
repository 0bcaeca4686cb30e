//! The Autobahn test suite: as a client against our service in echo mode, and as a server in front of our client.

mod install;
mod report;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

pub(crate) use self::install::install;
use self::report::Report;
use crate::program::{Program, Running};
use crate::workspace::{Build, Workspace};

/// What to test, and how much of it.
#[derive(Debug, Default, Args)]
pub(crate) struct Selection {
    /// Cases by the suite's own patterns, such as `6.*,9.1.1`, instead of all but most of compression
    #[arg(long, value_delimiter = ',', value_name = "PATTERN")]
    cases: Vec<String>,
    /// Every case, which takes the better part of an hour
    #[arg(long, conflicts_with = "cases")]
    all: bool,
    /// Test one side only
    #[arg(long)]
    side: Option<Side>,
    /// Test the release build
    #[arg(long)]
    release: bool,
    /// Test this binary instead of one built here
    #[arg(long, value_name = "PATH", conflicts_with = "release")]
    binary: Option<PathBuf>,
}

/// Which of our programs is tested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Side {
    /// The service in echo mode
    Server,
    /// The client of the Rust SDK
    Client,
}

impl Side {
    /// Our name in the suite's reports.
    const fn agent(self) -> &'static str {
        match self {
            Self::Server => "hookwire-server",
            Self::Client => "hookwire-client",
        }
    }
}

impl Selection {
    fn patterns(&self) -> Vec<&str> {
        if self.all {
            vec!["*"]
        } else if self.cases.is_empty() {
            CHAPTERS.into_iter().chain(COMPRESSION).collect()
        } else {
            self.cases.iter().map(String::as_str).collect()
        }
    }

    /// How many cases must have run at least: a suite that ran nothing has not passed.
    fn cases_min(&self) -> usize {
        if self.all {
            ALL_CASES
        } else if self.cases.is_empty() {
            CHAPTERS_CASES + COMPRESSION.len()
        } else {
            1
        }
    }

    fn sides(&self) -> Vec<Side> {
        self.side.map_or_else(|| Side::value_variants().to_vec(), |side| vec![side])
    }

    /// How long the suite may take for one side.
    fn limit(&self) -> Duration {
        if self.all { ALL_TIME_MAX } else { TIME_MAX }
    }
}

/// Runs the selected cases against our programs and prints what came out. The suite must be installed.
///
/// # Errors
/// When a case failed, cases are missing, or a program did not start.
pub(crate) fn run(workspace: &Workspace, selection: &Selection) -> anyhow::Result<()> {
    let binary = match (&selection.binary, selection.release) {
        (Some(binary), _) => binary.clone(),
        (None, true) => workspace.binary(Build::Release)?,
        (None, false) => workspace.binary(Build::Debug)?,
    };
    let mut verdict = Ok(());
    for side in selection.sides() {
        let began = Instant::now();
        let suite = Suite::prepare(workspace, selection, side)?;
        let index = match side {
            Side::Server => against_the_server(&suite, &binary)?,
            Side::Client => against_the_client(&suite, &binary)?,
        };
        let report = Report::new(&index, side.agent())?;
        println!("{} in {} s", side.agent(), began.elapsed().as_secs());
        println!("{report}");
        // Both sides are looked at before the step fails.
        verdict = verdict.and(report.verdict(selection.cases_min()).context(side.agent()));
    }
    verdict
}

/// The suite for one side: its folder, its cases.
struct Suite<'a> {
    workspace: &'a Workspace,
    folder: PathBuf,
    reports: PathBuf,
    patterns: Vec<&'a str>,
    limit: Duration,
}

impl<'a> Suite<'a> {
    fn prepare(
        workspace: &'a Workspace,
        selection: &'a Selection,
        side: Side,
    ) -> anyhow::Result<Self> {
        let folder = install::folder(workspace).join(side.agent());
        let reports = folder.join("reports");
        if reports.exists() {
            // An earlier run's report must not be taken for this one's.
            fs::remove_dir_all(&reports)
                .with_context(|| format!("could not remove {}", reports.display()))?;
        }
        fs::create_dir_all(&folder)
            .with_context(|| format!("could not make {}", folder.display()))?;
        let (patterns, limit) = (selection.patterns(), selection.limit());
        Ok(Self { workspace, folder, reports, patterns, limit })
    }

    /// Returns the suite's command in a mode, with its output (a line for each case) in a file.
    fn command(&self, mode: &str, mut specification: Value) -> anyhow::Result<Program> {
        specification["outdir"] = json!(self.reports);
        specification["cases"] = json!(self.patterns);
        specification["exclude-cases"] = json!([]);
        specification["exclude-agent-cases"] = json!({});
        let file = self.folder.join("cases.json");
        fs::write(&file, specification.to_string())
            .with_context(|| format!("could not write {}", file.display()))?;
        let suite = install::wstest(self.workspace).arguments(["-m", mode, "-s"]);
        Ok(suite.arguments([&file]).log(&self.log()).limit(self.limit))
    }

    fn log(&self) -> PathBuf {
        self.folder.join("wstest.log")
    }

    /// Returns the `index.json` that the suite has left.
    fn index(&self) -> anyhow::Result<Value> {
        let index = self.reports.join("index.json");
        let text = fs::read_to_string(&index).with_context(|| {
            let log = self.log();
            format!("the suite left no {}; its output is in {}", index.display(), log.display())
        })?;
        println!(
            "The suite's pages about each case: {}",
            self.reports.join("index.html").display()
        );
        serde_json::from_str(&text).with_context(|| format!("{} is not JSON", index.display()))
    }
}

/// Runs the suite as a client of our echo server.
fn against_the_server(suite: &Suite<'_>, binary: &Path) -> anyhow::Result<Value> {
    let (server, url) = echo_server(binary)?;
    let servers = json!({ "servers": [{ "agent": Side::Server.agent(), "url": url }] });
    let log = suite.log();
    suite
        .command("fuzzingclient", servers)?
        .run()
        .with_context(|| format!("its output is in {}", log.display()))?;
    server.terminate(STOP_MAX)?;
    suite.index()
}

/// Runs the suite as a server, and our client in front of it.
fn against_the_client(suite: &Suite<'_>, binary: &Path) -> anyhow::Result<Value> {
    // The suite takes no port 0; whoever takes this one meanwhile makes it fail.
    let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
    let url = format!("ws://127.0.0.1:{port}");
    let server = suite.command("fuzzingserver", json!({ "url": url, "webport": 0 }))?.start()?;
    let deadline = Instant::now() + START_MAX;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        let log = suite.log();
        ensure!(Instant::now() < deadline, "the suite does not listen; see {}", log.display());
        thread::sleep(POLL_PAUSE);
    }
    let agent = Side::Client.agent();
    let client = Program::new(binary)
        .arguments(["bench", "echo-client", "--compression", "--agent", agent, "--url", &url])
        .limit(suite.limit)
        .run();
    drop(server);
    client?;
    suite.index()
}

/// Starts the echo server on a free port of loopback: the process, and the URL for clients.
fn echo_server(binary: &Path) -> anyhow::Result<(Running, String)> {
    let mut server = Program::new(binary)
        .arguments(["bench", "echo-server", "--compression", "--listen", "127.0.0.1:0", "--json"])
        .arguments(["--message-bytes-max", MESSAGE_BYTES_MAX])
        .start()?;
    let ready = server.first_json(START_MAX).context("the echo server does not run")?;
    let url = ready["url"].as_str().context("the echo server's line has no `url`")?;
    Ok((server, url.to_owned()))
}

/// All chapters but compression.
const CHAPTERS: [&str; 9] = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"];

/// How many cases those chapters have.
const CHAPTERS_CASES: usize = 301;

/// Some of compression (12, 13), each of which sends a thousand messages: every kind of content and every kind of offer.
const COMPRESSION: [&str; 12] = [
    "12.1.1", "12.1.11", "12.2.2", "12.3.3", "12.4.4", "12.5.5", "13.1.1", "13.2.2", "13.3.11",
    "13.5.3", "13.6.4", "13.7.5",
];

/// How many cases the suite has.
const ALL_CASES: usize = 517;

/// What chapter 9 sends at most, and the echo server must take.
const MESSAGE_BYTES_MAX: &str = "16777216";

/// How long a program may take to listen.
const START_MAX: Duration = Duration::from_secs(30);

/// How long lies between two looks at whether the suite listens.
const POLL_PAUSE: Duration = Duration::from_millis(50);

/// How long the echo server may take to end after a signal.
const STOP_MAX: Duration = Duration::from_secs(30);

/// How long the suite may take for one side.
const TIME_MAX: Duration = Duration::from_mins(15);

/// The same for all cases.
const ALL_TIME_MAX: Duration = Duration::from_hours(2);
