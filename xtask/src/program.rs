//! Running other programs: printed before, timed after, ended when they take too long.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{IsTerminal, stdin};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

/// One call of another program. Its standard input is empty.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    name: OsString,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
    directory: Option<PathBuf>,
    log: Option<PathBuf>,
    limit: Duration,
}

impl Program {
    /// A call without arguments.
    pub(crate) fn new(name: impl AsRef<OsStr>) -> Self {
        Self {
            name: name.as_ref().to_owned(),
            arguments: Vec::new(),
            environment: Vec::new(),
            directory: None,
            log: None,
            limit: LIMIT,
        }
    }

    /// Adds arguments at the end.
    pub(crate) fn arguments<A: AsRef<OsStr>>(
        mut self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// Sets a variable of the program's environment.
    pub(crate) fn variable(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.environment.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets the folder to run in.
    pub(crate) fn directory(mut self, directory: &Path) -> Self {
        self.directory = Some(directory.to_owned());
        self
    }

    /// Sends the output to a file instead of showing it.
    pub(crate) fn log(mut self, log: &Path) -> Self {
        self.log = Some(log.to_owned());
        self
    }

    /// Sets how long the program may run; 30 minutes if not set.
    pub(crate) fn limit(mut self, limit: Duration) -> Self {
        self.limit = limit;
        self
    }

    /// Prints the call, runs it with its output shown, and prints how long it took.
    ///
    /// # Errors
    /// When the program cannot be started, runs into its limit, or exits with anything but 0.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        println!("$ {self}");
        let start = Instant::now();
        let mut command = self.command();
        if let Some(path) = &self.log {
            let log = File::create(path)
                .with_context(|| format!("could not create {}", path.display()))?;
            command.stdout(log.try_clone()?).stderr(log);
        }
        // Without a terminal nobody can press Ctrl-C: an own process group lets the limit end the children's children.
        let group = !stdin().is_terminal();
        if group {
            command.process_group(0);
        }
        let mut child =
            command.spawn().with_context(|| format!("could not start {}", self.name()))?;
        let Some(status) = wait(&mut child, self.limit)? else {
            if group {
                signal("KILL", &format!("-{}", child.id()))?;
            } else {
                child.kill()?;
            }
            child.wait()?;
            bail!("`{}` did not end within {}", self.short(), seconds(self.limit));
        };
        println!("  {} took {}", self.name(), seconds(start.elapsed()));
        ensure!(status.success(), "`{}` failed: {status}", self.short());
        Ok(())
    }

    /// Runs the call silently and returns its standard output.
    ///
    /// # Errors
    /// When the program cannot be started, exits with anything but 0 (its standard error is in the text), or prints
    /// something that is not UTF-8.
    pub(crate) fn output(&self) -> anyhow::Result<String> {
        let output =
            self.command().output().with_context(|| format!("could not start {}", self.name()))?;
        ensure!(
            output.status.success(),
            "`{}` failed: {}: {}",
            self.short(),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim(),
        );
        String::from_utf8(output.stdout)
            .with_context(|| format!("`{}` printed no UTF-8", self.short()))
    }

    /// Starts the call with its standard output in a pipe.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub(crate) fn start(&self) -> anyhow::Result<Running> {
        println!("$ {self}");
        let child = self.command().stdout(Stdio::piped()).spawn();
        Ok(Running(child.with_context(|| format!("could not start {}", self.name()))?))
    }

    /// Becomes the program: signals and the exit code are its own. Returns only when it could not be started.
    pub(crate) fn become_it(&self) -> anyhow::Error {
        println!("$ {self}");
        let error = self.command().stdin(Stdio::inherit()).exec();
        anyhow::Error::new(error).context(format!("could not start {}", self.name()))
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.name);
        command.args(&self.arguments).envs(self.environment.iter().cloned()).stdin(Stdio::null());
        if let Some(directory) = &self.directory {
            command.current_dir(directory);
        }
        command
    }

    fn name(&self) -> String {
        Path::new(&self.name).file_name().unwrap_or(&self.name).to_string_lossy().into_owned()
    }

    /// Name and arguments, without the environment.
    fn short(&self) -> String {
        let arguments =
            self.arguments.iter().map(|argument| argument.to_string_lossy().into_owned());
        [self.name()].into_iter().chain(arguments).collect::<Vec<_>>().join(" ")
    }
}

impl fmt::Display for Program {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.environment {
            write!(formatter, "{}={} ", name.to_string_lossy(), value.to_string_lossy())?;
        }
        write!(formatter, "{}", self.short())?;
        match &self.directory {
            Some(directory) => write!(formatter, "   (in {})", directory.display()),
            None => Ok(()),
        }
    }
}

/// A program that runs beside this one, and is ended with this value.
#[derive(Debug)]
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// Asks the program to end by SIGTERM, and waits for it.
    ///
    /// # Errors
    /// When it does not end within `limit`, or exits with anything but 0.
    pub(crate) fn terminate(mut self, limit: Duration) -> anyhow::Result<()> {
        signal("TERM", &self.0.id().to_string())?;
        let status = wait(&mut self.0, limit)?;
        let status = status
            .with_context(|| format!("it did not end within {} of SIGTERM", seconds(limit)))?;
        ensure!(status.success(), "it ended after SIGTERM with {status}");
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Either fails only if the program has ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits for a program; `None` if it has not ended within `limit`.
fn wait(child: &mut Child, limit: Duration) -> anyhow::Result<Option<ExitStatus>> {
    let deadline = Instant::now() + limit;
    loop {
        let status = child.try_wait()?;
        if status.is_some() || deadline <= Instant::now() {
            return Ok(status);
        }
        thread::sleep(POLL);
    }
}

/// Sends a signal to a process, or to a process group if the number is negative.
fn signal(name: &str, target: &str) -> anyhow::Result<()> {
    let status = Command::new("kill")
        .args(["-s", name, "--", target])
        .status()
        .context("could not start kill")?;
    ensure!(status.success(), "could not send SIG{name} to {target}");
    Ok(())
}

/// A duration as people read it: `0.4 s`, `12.0 s`, `3 min 05 s`.
pub(crate) fn seconds(duration: Duration) -> String {
    if duration < Duration::from_secs(100) {
        return format!("{:.1} s", duration.as_secs_f64());
    }
    let seconds = duration.as_secs();
    format!("{} min {:02} s", seconds / 60, seconds % 60)
}

/// How long a program may run.
const LIMIT: Duration = Duration::from_mins(30);

/// Between two looks at whether a program has ended.
const POLL: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};

    use super::*;

    #[test]
    fn a_program_that_fails_is_an_error_that_names_it() {
        let error = Program::new("sh").arguments(["-c", "exit 3"]).run().unwrap_err();
        assert!(error.to_string().contains("sh -c exit 3"), "{error}");
    }

    #[test]
    fn a_program_that_hangs_is_ended_at_its_limit() {
        let program = Program::new("tail").arguments(["-f", "/dev/null"]).limit(Duration::ZERO);
        let error = program.run().unwrap_err();
        assert!(error.to_string().contains("did not end within"), "{error}");
    }

    #[test]
    fn a_program_beside_this_one_must_end_well_when_asked_to() {
        let waits = "trap 'exit 0' TERM; echo ready; while :; do read -r line < /dev/null; done";
        for (script, well) in [(waits.to_owned(), true), (waits.replace("exit 0", "exit 4"), false)]
        {
            let mut running = Program::new("sh").arguments(["-c", &script]).start().unwrap();
            let mut line = String::new();
            BufReader::new(running.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
            assert_eq!(running.terminate(Duration::from_secs(30)).is_ok(), well);
        }
    }

    #[test]
    fn a_missing_program_is_an_error_that_names_it() {
        let error = Program::new("/nowhere/hookwire-absent").output().unwrap_err();
        assert!(error.to_string().contains("could not start hookwire-absent"), "{error}");
    }

    #[test]
    fn durations_read_naturally() {
        assert_eq!(seconds(Duration::from_millis(420)), "0.4 s");
        assert_eq!(seconds(Duration::from_secs(185)), "3 min 05 s");
    }
}
