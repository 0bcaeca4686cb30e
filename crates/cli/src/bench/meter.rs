//! What is counted of a process: CPU time, or instructions.

use serde::Serialize;

use super::callgrind::Callgrind;
use super::process::{Process, Used};

/// The counter of a process.
#[derive(Debug)]
pub(super) enum Meter {
    Cpu(Process),
    Instructions(Callgrind),
}

/// What a cost is counted in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Unit {
    CpuNs,
    Instructions,
}

impl Meter {
    /// Returns what the process has used so far, once it is at rest.
    pub(super) fn used_at_rest(&self) -> anyhow::Result<Used> {
        match self {
            Self::Cpu(process) => process.cpu_at_rest(),
            Self::Instructions(callgrind) => callgrind.used_at_rest(),
        }
    }
}

impl Unit {
    /// Returns what is counted if instructions are, or else.
    pub(super) const fn of(instructions: bool) -> Self {
        if instructions { Self::Instructions } else { Self::CpuNs }
    }

    /// Returns the names of the columns with the cost of the service and of the floor.
    pub(super) const fn columns(self) -> [&'static str; 2] {
        match self {
            Self::CpuNs => ["CPU ns", "floor ns"],
            Self::Instructions => ["instructions", "floor"],
        }
    }
}
