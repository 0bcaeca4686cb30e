//! User-space instructions of a child process, counted by valgrind's callgrind: the same whatever else the machine does.

use std::cell::Cell;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};

use super::process::{Process, Used};

/// What the functions of a shard's thread have in their names, and those of no other.
const SHARD: &str = "hookwire_server::shard::Shard";

/// The beginning of the profiles' names.
const PROFILE: &str = "callgrind.out";

/// A child under callgrind.
#[derive(Debug)]
pub(super) struct Callgrind {
    process: Process,
    folder: PathBuf,
    /// Profiles so far.
    parts: Cell<u32>,
    used: Cell<Used>,
}

impl Callgrind {
    /// Returns the command that runs `program` under callgrind, which puts its profiles into `folder`. Nothing is counted yet.
    ///
    /// # Errors
    /// Valgrind is not installed.
    pub(super) fn command(program: &Path, folder: &Path) -> anyhow::Result<Command> {
        let version = Command::new("valgrind").arg("--version").output();
        let is_there = version.is_ok_and(|output| output.status.success());
        ensure!(is_there, "instructions are counted by valgrind, which is not installed");
        let mut command = Command::new("valgrind");
        command
            .args(["--tool=callgrind", "--quiet", "--separate-threads=yes", "--instr-atstart=no"])
            .arg(format!("--callgrind-out-file={}/{PROFILE}.%p", folder.display()))
            .arg(program);
        Ok(command)
    }

    /// Returns the counter of a process that [`Callgrind::command`] started.
    pub(super) const fn of(process: Process, folder: PathBuf) -> Self {
        Self { process, folder, parts: Cell::new(0), used: Cell::new(Used { shards: 0, all: 0 }) }
    }

    /// Returns the instructions since the first call, once the process is at rest. Each further call leaves a profile of what was since
    /// the last one, for each thread.
    pub(super) fn used_at_rest(&self) -> anyhow::Result<Used> {
        self.process.cpu_at_rest()?;
        let part = self.parts.get();
        self.parts.set(part + 1);
        if part == 0 {
            self.control(&["-i", "on"])?;
            return Ok(Used::default());
        }
        self.control(&["-d"])?;
        let mut used = self.used.get();
        let name = format!("{PROFILE}.{}.{part}-", self.process.pid());
        for entry in fs::read_dir(&self.folder)? {
            let entry = entry?;
            if !entry.file_name().to_string_lossy().starts_with(&name) {
                continue;
            }
            let profile = fs::read_to_string(entry.path())?;
            let instructions = total(&profile)
                .with_context(|| format!("{} tells no total", entry.path().display()))?;
            used.all += instructions;
            if profile.contains(SHARD) {
                used.shards += instructions;
            }
        }
        self.used.set(used);
        Ok(used)
    }

    fn control(&self, order: &[&str]) -> anyhow::Result<()> {
        let output = Command::new("callgrind_control")
            .args(order)
            .arg(self.process.pid().to_string())
            .output()
            .context("callgrind_control cannot be started")?;
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(
            output.status.success() && said.contains("OK."),
            "callgrind did not obey {order:?}: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(())
    }
}

/// Returns the instructions of a profile (Callgrind format specification, "totals").
fn total(profile: &str) -> Option<u64> {
    let totals = profile.lines().find_map(|line| line.strip_prefix("totals:"))?;
    totals.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_tells_its_total() {
        assert_eq!(total("events: Ir\nsummary: 7\nfn=(1) f\n1 7\ntotals: 8 9\n"), Some(8));
        assert_eq!(total("events: Ir\n"), None);
    }
}
