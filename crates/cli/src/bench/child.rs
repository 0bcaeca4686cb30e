//! Child processes: what is measured runs apart from the load, so that its CPU time and memory are its own.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child as Running, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use serde_json::Value;

use super::callgrind::Callgrind;
use super::meter::Meter;
use super::process::Process;

/// How long a child may take to say that it is ready; under valgrind everything takes long.
const START_TIME_MAX: Duration = Duration::from_mins(1);

/// Makes the allocator give freed memory back at once and use no huge pages, so that what a process holds is what it uses. Otherwise
/// some megabytes come and go by themselves. Other allocators do not read it.
const TIDY_ALLOCATOR: [(&str, &str); 2] =
    [("MIMALLOC_PURGE_DELAY", "0"), ("MIMALLOC_ALLOW_THP", "0")];

/// How a child runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Run<'a> {
    /// As the shipped program does.
    AsShipped,
    /// With memory that can be measured.
    TidyMemory,
    /// So that its instructions are counted, with profiles in this folder.
    Counted(&'a Path),
}

impl<'a> Run<'a> {
    /// Returns how a child runs whose instructions are counted if there is a folder for the profiles, which is made.
    pub(super) fn counted_into(profiles: Option<&'a Path>) -> anyhow::Result<Self> {
        let Some(folder) = profiles else { return Ok(Self::AsShipped) };
        fs::create_dir_all(folder)
            .with_context(|| format!("the folder {} cannot be made", folder.display()))?;
        Ok(Self::Counted(folder))
    }
}

/// A child process of this same program. Ends with this value, and with this process, however that ends.
#[derive(Debug)]
pub(super) struct Child {
    running: Running,
    stdin: ChildStdin,
    /// What it prints, line by line.
    lines: Receiver<io::Result<String>>,
    /// Where its profiles are, if its instructions are counted.
    profiles: Option<PathBuf>,
    /// The one line of JSON that it prints when ready.
    pub(super) ready: Value,
}

impl Child {
    /// Starts `hookwire bench <arguments>` and waits until it is ready.
    pub(super) fn start(arguments: &[String], run: Run<'_>) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("this program's own file is not known")?;
        let (mut command, profiles) = match run {
            Run::AsShipped | Run::TidyMemory => (Command::new(program), None),
            Run::Counted(folder) => {
                (Callgrind::command(&program, folder)?, Some(folder.to_owned()))
            }
        };
        if run == Run::TidyMemory {
            command.envs(TIDY_ALLOCATOR);
        }
        let mut running = command
            .args(["--json", "bench"])
            .args(arguments)
            // A service with TLS misses its certificate's files, which are gone once it has started.
            .env("HOOKWIRE_LOG", "warn,hookwire_server::tls=off")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("the child process cannot be started")?;
        let stdin = running.stdin.take().context("a child has no standard input")?;
        let stdout = running.stdout.take().context("a child has no standard output")?;
        let lines = lines(stdout);
        let mut child = Self { running, stdin, lines, profiles, ready: Value::Null };
        child.ready = child.next(START_TIME_MAX).context("the child process did not get ready")?;
        Ok(child)
    }

    /// Returns the next line that the child prints, which must come within `patience`.
    pub(super) fn next(&self, patience: Duration) -> anyhow::Result<Value> {
        let line = match self.lines.recv_timeout(patience) {
            Ok(line) => line?,
            Err(RecvTimeoutError::Timeout) => bail!("it took too long"),
            Err(RecvTimeoutError::Disconnected) => bail!("it ended; what it said stands above"),
        };
        serde_json::from_str(&line).context("it printed something else than JSON")
    }

    pub(super) fn process(&self) -> Process {
        Process::new(self.running.id())
    }

    /// Returns the counter of what it uses.
    pub(super) fn meter(&self) -> Meter {
        match &self.profiles {
            None => Meter::Cpu(self.process()),
            Some(folder) => Meter::Instructions(Callgrind::of(self.process(), folder.clone())),
        }
    }

    /// Waits until the child has ended by itself.
    ///
    /// # Errors
    /// It ended with a fault.
    pub(super) fn wait(mut self) -> anyhow::Result<()> {
        let status = self.running.wait().context("a child process cannot be waited for")?;
        ensure!(status.success(), "the child process ended with {status}");
        Ok(())
    }

    /// Returns a text of the line that the child printed when ready.
    pub(super) fn told(&self, name: &str) -> anyhow::Result<&str> {
        self.ready[name].as_str().with_context(|| format!("the child process told no {name}"))
    }

    /// Sends the child a line.
    pub(super) fn tell(&mut self, line: &str) -> anyhow::Result<()> {
        writeln!(self.stdin, "{line}").context("the child process has ended")
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Neither can fail for a child that has not been waited for; one that is dead already is what is wanted.
        let _ = self.running.kill();
        let _ = self.running.wait();
    }
}

/// Returns the lines of a child's output, and at last why there are no more if that is not its end.
fn lines(stdout: ChildStdout) -> Receiver<io::Result<String>> {
    let (sender, receiver) = mpsc::channel();
    // Ends with the child's output, or when nobody listens any more.
    thread::spawn(move || {
        for line in BufReader::new(stdout).lines() {
            let is_last = line.is_err();
            if sender.send(line).is_err() || is_last {
                return;
            }
        }
    });
    receiver
}
