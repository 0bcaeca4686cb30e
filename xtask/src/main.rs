//! Every developer and CI step of Hookwire: `cargo xtask run`, `cargo xtask test`, and the parts of both.
//!
//! A step is an ordinary program call that is printed before it runs. What a step needs and is not there, it installs;
//! what cannot be installed is said in one sentence, with what to do about it.

#![expect(
    clippy::print_stdout,
    reason = "printing what runs, and what came of it, is what this program is for"
)]

mod autobahn;
mod bench;
mod counts;
mod pages;
mod program;
mod purity;
mod soak;
mod steps;
mod tools;
mod workspace;

use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::autobahn::Selection;
use crate::bench::Bench;
use crate::counts::Counts;
use crate::soak::Soak;
use crate::steps::{Selected, Step};
use crate::workspace::Workspace;

/// Every developer and CI step of Hookwire.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Build the pages and the binary, then run `hookwire dev`
    Run {
        /// Arguments for `hookwire dev`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Build the pages into `web/dist`
    Pages,
    /// Run every check and every test, installing what they need
    Test(StepArguments),
    /// Run the checks that need neither Node, nor a browser, nor the rights to install packages
    Ci(StepArguments),
    /// Check who may import what
    Purity,
    /// Check licences, banned crates and sources of all dependencies
    Deny,
    /// Measure the release build against the kernel and against other servers
    Bench(Bench),
    /// Count the instructions of the hot paths, and compare with the committed counts
    Counts(Counts),
    /// Run the Autobahn test suite against our frame codec and socket loop
    Autobahn(Selection),
    /// Run the service under everything at once for half an hour; memory must not grow and no file may leak
    Soak(Soak),
}

#[derive(Debug, Args)]
struct StepArguments {
    /// Run these steps only
    #[arg(long, value_enum, value_delimiter = ',', value_name = "STEP")]
    only: Vec<Step>,
    /// Leave these steps out
    #[arg(long, value_enum, value_delimiter = ',', value_name = "STEP")]
    skip: Vec<Step>,
    /// Print the steps and what each of them checks
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: Task) -> anyhow::Result<ExitCode> {
    let workspace = Workspace::find()?;
    match task {
        Task::Run { arguments } => pages::run(&workspace, &arguments)?,
        Task::Pages => pages::build(&workspace)?,
        Task::Test(arguments) => return steps(&workspace, &Step::ALL, &arguments),
        Task::Ci(arguments) => return steps(&workspace, &Step::WITHOUT_INSTALLING, &arguments),
        Task::Purity => purity::check(&workspace)?,
        Task::Deny => tools::deny(&workspace)?,
        Task::Bench(arguments) => bench::run(&workspace, &arguments)?,
        Task::Counts(arguments) => counts::run(&workspace, &arguments)?,
        Task::Autobahn(selection) => {
            autobahn::install(&workspace)?;
            autobahn::run(&workspace, &selection)?;
        }
        Task::Soak(arguments) => soak::run(&workspace, &arguments)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn steps(
    workspace: &Workspace,
    all: &[Step],
    arguments: &StepArguments,
) -> anyhow::Result<ExitCode> {
    let selected = Selected::new(all, &arguments.only, &arguments.skip)?;
    if arguments.list {
        selected.list();
        return Ok(ExitCode::SUCCESS);
    }
    Ok(selected.run(workspace))
}
