//! Processes as the kernel sees them: CPU time, memory, open files, cores. Linux only: it is read from `/proc` (proc(5)).

use std::fs;
use std::ops::Sub;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process, setrlimit};
use rustix::thread::{CpuSet, sched_setaffinity};

/// How long a process may take to come to rest before its CPU time is read all the same.
const REST_TIME_MAX: Duration = Duration::from_secs(2);

/// Between two looks at whether a process is at rest.
const REST_LOOK: Duration = Duration::from_millis(5);

/// A process that uses less than this between two looks is at rest.
const REST_CPU_NS_MAX: u64 = 100_000;

/// Length of a tick in `/proc/<pid>/stat`; Linux tells programs 100 ticks a second whatever it uses itself.
const TICK_NS: u64 = 10_000_000;

/// Open files that a process needs beside its connections.
pub(super) const OTHER_FILES: u64 = 64;

/// Most processes of a tree that is measured.
const TREE_PROCESSES_MAX: usize = 4_096;

/// A process whose CPU time and memory are measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Process {
    pid: u32,
    /// Whether its descendants count as well.
    is_tree: bool,
}

/// What a process has used: nanoseconds of CPU time, user and system, or instructions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Used {
    /// By shards; their share tells what deliveries cost without the HTTP side.
    pub(super) shards: u64,
    /// By all threads.
    pub(super) all: u64,
}

impl Sub for Used {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            shards: self.shards.saturating_sub(earlier.shards),
            all: self.all.saturating_sub(earlier.all),
        }
    }
}

impl Process {
    pub(super) const fn new(pid: u32) -> Self {
        Self { pid, is_tree: false }
    }

    /// Returns a process and its descendants, whose CPU time is measured together.
    pub(super) const fn tree(pid: u32) -> Self {
        Self { pid, is_tree: true }
    }

    pub(super) const fn pid(self) -> u32 {
        self.pid
    }

    /// Returns the CPU time used so far, once the process is at rest, so that nothing of the work before is missing.
    pub(super) fn cpu_at_rest(self) -> anyhow::Result<Used> {
        let mut before = self.cpu()?;
        for _ in 0..REST_TIME_MAX.as_millis() / REST_LOOK.as_millis() {
            thread::sleep(REST_LOOK);
            let after = self.cpu()?;
            if (after - before).all < REST_CPU_NS_MAX {
                return Ok(after);
            }
            before = after;
        }
        Ok(before)
    }

    /// Returns the CPU time of the threads that exist. The kernel adds up while a thread runs, up to a few milliseconds late.
    fn cpu(self) -> anyhow::Result<Used> {
        let mut total = Used::default();
        let mut processes = vec![self];
        let mut at = 0;
        while let Some(process) = processes.get(at).copied() {
            at += 1;
            let tasks = process.path("task");
            let tasks = fs::read_dir(&tasks).with_context(|| {
                format!("process {} cannot be watched: {}", process.pid, tasks.display())
            })?;
            for task in tasks {
                let task = task?.path();
                // A thread that ends meanwhile had no part in what is measured.
                let Ok(name) = fs::read_to_string(task.join("comm")) else { continue };
                let Some(used) = thread_cpu(&task)? else { continue };
                total.all += used;
                if name.starts_with("shard-") {
                    total.shards += used;
                }
                if self.is_tree {
                    let children = fs::read_to_string(task.join("children"))
                        .with_context(|| format!("{} tells no children", task.display()))?;
                    processes.extend(
                        children
                            .split_whitespace()
                            .filter_map(|pid| pid.parse().ok())
                            .map(Self::new),
                    );
                    ensure!(
                        processes.len() <= TREE_PROCESSES_MAX,
                        "process {} has more than {TREE_PROCESSES_MAX} descendants",
                        self.pid
                    );
                }
            }
        }
        Ok(total)
    }

    /// Returns the proportional set size in bytes: private pages and a fair share of shared ones.
    pub(super) fn proportional_bytes(self) -> anyhow::Result<u64> {
        let path = self.path("smaps_rollup");
        let text = fs::read_to_string(&path)
            .with_context(|| format!("the memory of process {} cannot be read", self.pid))?;
        kilobytes_of(&text, "Pss:").with_context(|| format!("{} tells no Pss", path.display()))
    }

    /// Forgets the largest resident set so far; [`Process::peak_bytes`] begins anew.
    pub(super) fn reset_peak(self) -> anyhow::Result<()> {
        fs::write(self.path("clear_refs"), "5")
            .with_context(|| format!("the peak of process {} cannot be reset", self.pid))
    }

    /// Returns the largest resident set, in bytes.
    pub(super) fn peak_bytes(self) -> anyhow::Result<u64> {
        let text = fs::read_to_string(self.path("status"))
            .with_context(|| format!("the memory of process {} cannot be read", self.pid))?;
        kilobytes_of(&text, "VmHWM:").context("a process tells no peak")
    }

    /// Returns the number of open files.
    pub(super) fn open_files(self) -> anyhow::Result<u64> {
        let files = fs::read_dir(self.path("fd"))
            .with_context(|| format!("the files of process {} cannot be listed", self.pid))?;
        Ok(files.count() as u64)
    }

    /// Asks the process to end, as `kill` does.
    pub(super) fn terminate(self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw);
        let pid = pid.context("that is no process")?;
        kill_process(pid, Signal::TERM).context("the process cannot be told to end")
    }

    fn path(self, name: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/{name}", self.pid))
    }
}

/// Returns the nanoseconds that a thread has run, or `None` if it is gone.
fn thread_cpu(task: &Path) -> anyhow::Result<Option<u64>> {
    if let Ok(schedstat) = fs::read_to_string(task.join("schedstat")) {
        let used = schedstat.split_whitespace().next().and_then(|used| used.parse().ok());
        return used.map(Some).with_context(|| format!("{} tells no time", task.display()));
    }
    let Ok(stat) = fs::read_to_string(task.join("stat")) else { return Ok(None) };
    stat_ns(&stat).map(Some).with_context(|| format!("{} tells no time", task.display()))
}

/// Returns user and system time of a line of `stat` in nanoseconds. The name in it may hold blanks and brackets.
fn stat_ns(stat: &str) -> Option<u64> {
    let (_, fields) = stat.rsplit_once(") ")?;
    let mut fields = fields.split(' ').skip(11);
    let ticks = fields.next()?.parse::<u64>().ok()? + fields.next()?.parse::<u64>().ok()?;
    Some(ticks * TICK_NS)
}

/// Returns the bytes of a line that tells kilobytes.
fn kilobytes_of(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kilobytes = line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?;
    Some(kilobytes * 1_024)
}

/// Raises this process's limit of open files as far as it may, and makes sure that `needed` fit. Children inherit it.
pub(super) fn allow_open_files(needed: u64) -> anyhow::Result<()> {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        setrlimit(Resource::Nofile, limit).context("the limit of open files cannot be raised")?;
    }
    let allowed = limit.current.unwrap_or(u64::MAX);
    ensure!(
        needed <= allowed,
        "{needed} open files are needed and {allowed} allowed: fewer connections, or a higher hard limit (ulimit -Hn)"
    );
    Ok(())
}

/// Runs this process on one core from now on, or on all others.
pub(super) fn pin(core: usize, here: bool) -> anyhow::Result<()> {
    let cores = thread::available_parallelism()?.get();
    let mut set = CpuSet::new();
    // A child inherits the cores of its parent, so its own core may lie beyond those it was given.
    for other in 0..cores.max(core + 1) {
        if (other == core) == here {
            set.set(other);
        }
    }
    sched_setaffinity(None, &set).context("the process cannot be bound to cores")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_s_files_are_read() {
        let stat = "1234 (a ) b) S 1 2 3 0 -1 4194560 9 9 9 9 150 50 0 0 20 0 4 0 1 2 3";
        assert_eq!(stat_ns(stat), Some(2_000_000_000));
        assert_eq!(stat_ns("1234 (x"), None);
        let rollup = "00400000-7ffd9 ---p 00000000 00:00 0 [rollup]\nRss: 2000 kB\nPss:   1536 kB\nPss_Dirty: 1 kB\n";
        assert_eq!(kilobytes_of(rollup, "Pss:"), Some(1_536 * 1_024));
        assert_eq!(kilobytes_of("Rss: 1 kB", "Pss:"), None);
    }

    #[test]
    fn this_process_is_measured_and_another_is_named() {
        let process = Process::new(std::process::id());
        let before = process.cpu_at_rest().unwrap();
        assert!(before.shards <= before.all);
        assert!(0 < process.proportional_bytes().unwrap());
        assert!(2 < process.open_files().unwrap(), "it has input, output and that for errors");
        process.reset_peak().unwrap();
        assert!(0 < process.peak_bytes().unwrap());
        let absent = Process::new(u32::MAX).cpu_at_rest().unwrap_err().to_string();
        assert!(absent.contains("4294967295"), "{absent}");
    }

    #[test]
    fn a_tree_is_a_process_and_its_children() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .expect("there is a cat");
        let [alone, tree] = [Process::new, Process::tree].map(|of| of(std::process::id()));
        let of_child = Process::new(child.id()).cpu_at_rest().unwrap().all;
        assert!(0 < of_child);
        let before = alone.cpu().unwrap().all;
        assert!(before + of_child <= tree.cpu().unwrap().all);
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn more_files_than_the_hard_limit_are_refused_with_both_numbers() {
        let Some(hard) = getrlimit(Resource::Nofile).maximum else { return };
        let refused = allow_open_files(hard + 1).unwrap_err().to_string();
        assert!(
            refused.starts_with(&format!("{} open files are needed and {hard} allowed", hard + 1))
        );
        allow_open_files(1).unwrap();
    }
}
