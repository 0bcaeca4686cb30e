//! Where things are: the checkout and what the builds write.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::program::Program;

/// The checkout that this program was started in.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// The folder of the workspace manifest.
    pub(crate) root: PathBuf,
    /// Cargo's target folder.
    pub(crate) target: PathBuf,
    /// `cargo metadata` of the workspace's own packages.
    pub(crate) metadata: Value,
}

/// Which of the two builds of the `hookwire` command is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Build {
    /// Unoptimised: for tests.
    Debug,
    /// What people run.
    Release,
}

impl Workspace {
    /// Asks cargo where the workspace is.
    ///
    /// # Errors
    /// When cargo does not answer, or the answer lacks a path.
    pub(crate) fn find() -> anyhow::Result<Self> {
        let text = Program::new("cargo")
            .arguments(["metadata", "--format-version", "1", "--no-deps"])
            .directory(Path::new(env!("CARGO_MANIFEST_DIR")))
            .output()?;
        let metadata: Value = serde_json::from_str(&text).context("cargo metadata is not JSON")?;
        let path = |key: &str| {
            let path =
                metadata[key].as_str().with_context(|| format!("cargo metadata has no {key}"))?;
            anyhow::Ok(PathBuf::from(path))
        };
        Ok(Self { root: path("workspace_root")?, target: path("target_directory")?, metadata })
    }

    /// A call of cargo in the workspace's root.
    pub(crate) fn cargo<const N: usize>(&self, arguments: [&str; N]) -> Program {
        Program::new("cargo").arguments(arguments).directory(&self.root)
    }

    /// A folder of the checkout that a step works in.
    ///
    /// # Errors
    /// When it is not there: a step without its folder has checked nothing.
    pub(crate) fn folder(&self, name: &str) -> anyhow::Result<PathBuf> {
        let path = self.root.join(name);
        ensure!(path.is_dir(), "the folder {name} is missing from the checkout");
        Ok(path)
    }

    /// Builds the `hookwire` command, and returns its path.
    ///
    /// # Errors
    /// When it does not build.
    pub(crate) fn binary(&self, build: Build) -> anyhow::Result<PathBuf> {
        let (cargo, folder) = match build {
            // With the tests as `cargo nextest run --workspace` builds them: cargo then picks the same features for every
            // dependency, and builds none of them a second time.
            Build::Debug => (
                ["build", "--locked", "--workspace", "--tests", "--bin", "hookwire"].as_slice(),
                "debug",
            ),
            Build::Release => {
                (["build", "--locked", "--release", "--bin", "hookwire"].as_slice(), "release")
            }
        };
        let cargo = self.cargo([]).arguments(cargo);
        cargo.run()?;
        Ok(self.target.join(folder).join("hookwire"))
    }
}
