//! Running other programs: printed before, timed after, ended when they take too long.
//!
//! The end of a failed program's output is kept, so that it can be shown again after everything else.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, IsTerminal, PipeReader, Read, Write, stdin, stdout};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, ensure};
use serde_json::Value;

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
    /// When the program cannot be started, runs into its limit, or exits with anything but 0. The last two also leave a
    /// [`Failed`] behind.
    pub(crate) fn run(&self) -> anyhow::Result<()> {
        println!("$ {self}");
        let start = Instant::now();
        let mut command = self.command();
        let output = self.show(&mut command)?;
        // Without a terminal nobody can press Ctrl-C: an own process group lets the limit end the children's children.
        let group = !stdin().is_terminal();
        if group {
            command.process_group(0);
        }
        let mut child =
            command.spawn().with_context(|| format!("could not start {}", self.name()))?;
        // It holds our ends of the pipe, which would never seem to end.
        drop(command);
        let failure = match wait(&mut child, self.limit)? {
            Some(status) if status.success() => None,
            Some(status) => Some(format!("`{}` failed: {status}", self.short())),
            None => {
                if group {
                    signal("KILL", &format!("-{}", child.id()))?;
                } else {
                    child.kill()?;
                }
                child.wait()?;
                Some(format!("`{}` did not end within {}", self.short(), seconds(self.limit)))
            }
        };
        let last_lines = output.last_lines();
        println!("  {} took {}", self.name(), seconds(start.elapsed()));
        match failure {
            None => Ok(()),
            Some(what) => {
                FAILED.with_borrow_mut(|failed| {
                    failed.push(Failed { what: what.clone(), last_lines });
                });
                Err(anyhow!(what))
            }
        }
    }

    /// Decides where the output goes.
    fn show(&self, command: &mut Command) -> anyhow::Result<Output> {
        if let Some(path) = &self.log {
            let log = File::create(path)
                .with_context(|| format!("could not create {}", path.display()))?;
            command.stdout(log.try_clone()?).stderr(log);
            return Ok(Output::File(path.clone()));
        }
        if stdout().is_terminal() {
            // Colours and progress need the terminal itself, and whoever sits there can scroll.
            return Ok(Output::Terminal);
        }
        let (reader, writer) = io::pipe().context("could not make a pipe")?;
        command.stdout(writer.try_clone()?).stderr(writer);
        let tail = Arc::new(Mutex::new(Tail::default()));
        let (passing, passed) = mpsc::channel::<Infallible>();
        let kept = Arc::clone(&tail);
        thread::spawn(move || {
            pass_on(reader, &kept);
            drop(passing);
        });
        Ok(Output::Kept { tail, passed })
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

    /// Starts the call with its standard output in a pipe, or with all its output in its log.
    ///
    /// # Errors
    /// When the program cannot be started, or its log not be made.
    pub(crate) fn start(&self) -> anyhow::Result<Running> {
        println!("$ {self}");
        let mut command = self.command();
        command.stdout(Stdio::piped());
        if let Some(log) = &self.log {
            let file =
                File::create(log).with_context(|| format!("could not create {}", log.display()))?;
            command.stdout(file.try_clone()?).stderr(file);
        }
        let child = command.spawn();
        Ok(Running(child.with_context(|| format!("could not start {}", self.name()))?))
    }

    /// Starts the call like [`Program::start`], in a process group of its own and with an input that lasts as long as the value, and as
    /// this process.
    ///
    /// # Errors
    /// As those of [`Program::start`].
    pub(crate) fn start_attended(&self) -> anyhow::Result<Attended> {
        println!("$ {self}");
        let mut command = self.command();
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0).spawn();
        Ok(Attended(Running(child.with_context(|| format!("could not start {}", self.name()))?)))
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

/// A program that did not do what it was asked to do.
#[derive(Debug)]
pub(crate) struct Failed {
    pub(crate) what: String,
    /// How its output ended, oldest line first; empty if it went to a terminal.
    pub(crate) last_lines: Vec<String>,
}

thread_local! {
    static FAILED: RefCell<Vec<Failed>> = const { RefCell::new(Vec::new()) };
}

/// Returns the programs that failed on this thread since this was last asked, whatever became of their errors.
pub(crate) fn take_failed() -> Vec<Failed> {
    FAILED.take()
}

/// Where the output of a running program goes.
enum Output {
    Terminal,
    File(PathBuf),
    /// To our own output, by a thread of its own. `passed` says nothing, and is closed when all of it has been passed on.
    Kept {
        tail: Arc<Mutex<Tail>>,
        passed: Receiver<Infallible>,
    },
}

impl Output {
    /// The last lines, once the program has ended.
    fn last_lines(self) -> Vec<String> {
        match self {
            Self::Terminal => Vec::new(),
            Self::File(path) => {
                let mut tail = Tail::default();
                match fs::read(&path) {
                    Ok(content) => tail.push(&content),
                    Err(error) => tail.push(format!("{}: {error}", path.display()).as_bytes()),
                }
                tail.to_lines()
            }
            Self::Kept { tail, passed } => {
                // Nothing is ever sent. What the program left behind may hold the pipe open: that is not waited for.
                let _ = passed.recv_timeout(PASSING_MAX);
                tail.lock().unwrap_or_else(PoisonError::into_inner).to_lines()
            }
        }
    }
}

/// Writes everything to our own output as it comes, and to `tail`.
fn pass_on(mut from: PipeReader, tail: &Mutex<Tail>) {
    let mut buffer = [0; 8 << 10];
    loop {
        let piece = match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => &buffer[..length],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => {
                eprintln!("error: the output could not be read: {error}");
                return;
            }
        };
        let mut out = stdout().lock();
        // Nobody reads it any more: the program must not be held up, and its end is told all the same.
        let _ = out.write_all(piece).and_then(|()| out.flush());
        drop(out);
        tail.lock().unwrap_or_else(PoisonError::into_inner).push(piece);
    }
}

/// The last lines of what was pushed.
#[derive(Debug, Default)]
struct Tail {
    lines: VecDeque<Vec<u8>>,
    /// Whether the last line has not ended yet.
    open: bool,
}

impl Tail {
    fn push(&mut self, bytes: &[u8]) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            if !self.open {
                if self.lines.len() == TAIL_LINES_MAX {
                    self.lines.pop_front();
                }
                self.lines.push_back(Vec::new());
            }
            let (text, ended) = match piece.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (piece, false),
            };
            let line = self.lines.back_mut().expect("one was opened before");
            let room = LINE_BYTES_MAX - line.len();
            line.extend_from_slice(&text[..text.len().min(room)]);
            self.open = !ended;
        }
    }

    fn to_lines(&self) -> Vec<String> {
        self.lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
    }
}

/// A program that runs beside this one, and is ended with this value.
#[derive(Debug)]
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// Returns the line of JSON that the program prints first; what it prints later is not wanted.
    ///
    /// # Errors
    /// When it does not come within `limit`, or is no JSON.
    pub(crate) fn first_json(&mut self, limit: Duration) -> anyhow::Result<Value> {
        let output = self.0.stdout.take().context("the program has no standard output")?;
        let (lines, first) = mpsc::channel();
        thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = String::new();
            let read = output.read_line(&mut line).map(|_| line);
            // Nobody listens any more if the wait below has run out; later output must not block.
            let _ = lines.send(read);
            let _ = io::copy(&mut output, &mut io::sink());
        });
        let line = first.recv_timeout(limit).context("the program did not get ready in time")??;
        serde_json::from_str(&line)
            .with_context(|| format!("it printed {line:?} instead of one line of JSON"))
    }

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

/// A program that ends when its input does, that is with this value or with this process, and whatever it started with it.
#[derive(Debug)]
pub(crate) struct Attended(Running);

impl Attended {
    /// Returns its process id.
    pub(crate) fn id(&self) -> u64 {
        self.0.0.id().into()
    }

    /// Returns the line of JSON that the program prints first, as [`Running::first_json`] does.
    ///
    /// # Errors
    /// As those of [`Running::first_json`].
    pub(crate) fn first_json(&mut self, limit: Duration) -> anyhow::Result<Value> {
        self.0.first_json(limit)
    }
}

impl Drop for Attended {
    fn drop(&mut self) {
        let child = &mut self.0.0;
        drop(child.stdin.take());
        // Its group is usually empty by now; what is left of it had its time.
        let _ = wait(child, ATTENDED_END_MAX);
        let _ = signal("KILL", &format!("-{}", child.id()));
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
        // Whoever asks tells what failed.
        .stderr(Stdio::null())
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

/// Lines kept of the end of a program's output.
const TAIL_LINES_MAX: usize = 60;

/// Bytes kept of one of these lines; the rest of it is dropped.
const LINE_BYTES_MAX: usize = 4 << 10;

/// Longest wait for the rest of the output of a program that has ended.
const PASSING_MAX: Duration = Duration::from_secs(2);

/// How long a program may run.
const LIMIT: Duration = Duration::from_mins(30);

/// How long a program may take to end when its input has ended.
const ATTENDED_END_MAX: Duration = Duration::from_secs(10);

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

    fn only_failed() -> Failed {
        let mut failed = take_failed();
        assert_eq!(failed.len(), 1);
        failed.remove(0)
    }

    #[test]
    fn a_failed_program_comes_with_the_end_of_what_it_printed() {
        let script = "for n in $(seq 100); do echo $n; done; echo why >&2; exit 3";
        Program::new("sh").arguments(["-c", script]).run().unwrap_err();
        let lines = &only_failed().last_lines;
        if stdout().is_terminal() {
            assert_eq!(lines, &Vec::<String>::new());
        } else {
            assert_eq!(lines.len(), TAIL_LINES_MAX);
            assert_eq!(lines[TAIL_LINES_MAX - 2..], ["100", "why"]);
        }
    }

    #[test]
    fn a_failed_program_with_a_log_comes_with_the_end_of_the_log() {
        let folder = tempfile::tempdir().unwrap();
        let program = Program::new("sh").arguments(["-c", "echo out; echo why >&2; exit 3"]);
        program.log(&folder.path().join("log")).run().unwrap_err();
        assert_eq!(only_failed().last_lines, ["out", "why"]);
        assert!(take_failed().is_empty());
    }

    #[test]
    fn what_a_program_left_behind_does_not_hold_up_its_end() {
        let script = "tail -f /dev/null & echo $!; exit 3";
        Program::new("sh").arguments(["-c", script]).run().unwrap_err();
        if let [child] = only_failed().last_lines.as_slice() {
            signal("KILL", child).unwrap();
        }
    }

    #[test]
    fn a_tail_is_bounded_however_the_output_is_cut() {
        let text = format!("{}\n\nlast", "x".repeat(2 * LINE_BYTES_MAX));
        for size in [1, 7, text.len()] {
            let mut tail = Tail::default();
            text.as_bytes().chunks(size).for_each(|piece| tail.push(piece));
            assert_eq!(tail.to_lines(), ["x".repeat(LINE_BYTES_MAX).as_str(), "", "last"]);
            (0..TAIL_LINES_MAX).for_each(|_| tail.push(b"\n"));
            assert_eq!(tail.to_lines().len(), TAIL_LINES_MAX);
            assert_eq!(tail.to_lines().first().map(String::as_str), Some("last"));
        }
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
    fn an_attended_program_ends_with_its_value_and_takes_with_it_what_it_started() {
        // Whoever holds the pipe lives: reading it ends when nobody does.
        let folder = tempfile::tempdir().unwrap();
        let script = "mkfifo held; sleep 600 > held & printf '{}\\n'; read -r line";
        let program = Program::new("sh").arguments(["-c", script]).directory(folder.path());
        let mut running = program.start_attended().unwrap();
        running.first_json(Duration::from_secs(30)).unwrap();
        let mut held = File::open(folder.path().join("held")).unwrap();
        drop(running);
        assert_eq!(held.read_to_end(&mut Vec::new()).unwrap(), 0);
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
