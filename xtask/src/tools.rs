//! The tools that the steps need: looked for, installed when absent, refused with a sentence when that fails.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};

use crate::program::Program;
use crate::workspace::Workspace;

/// Checks that Node is there and new enough for the tools that build the pages.
///
/// # Errors
/// When it is not, with what to do.
pub(crate) fn node() -> anyhow::Result<()> {
    let wanted = format!("install Node {}.{} or newer, with npm", NODE_MIN.0, NODE_MIN.1);
    let version = Program::new("node").arguments(["--version"]).output();
    let version = version.with_context(|| format!("Node is not here: {wanted}"))?;
    let version = version.trim();
    let parsed = parse_node_version(version)
        .with_context(|| format!("`node --version` says {version:?}"))?;
    ensure!(NODE_MIN <= parsed, "Node {version} is too old: {wanted}");
    Program::new("npm")
        .arguments(["--version"])
        .output()
        .with_context(|| format!("npm is not here: {wanted}"))?;
    Ok(())
}

/// A call of npm in a folder with a `package.json`.
pub(crate) fn npm(folder: &Path, arguments: &[&str]) -> Program {
    Program::new("npm").arguments(arguments).directory(folder)
}

/// Installs the packages of a folder's lock file, unless exactly these are installed.
///
/// # Errors
/// When Node or the lock file is missing, or npm fails.
pub(crate) fn packages(folder: &Path) -> anyhow::Result<()> {
    node()?;
    let lock = folder.join("package-lock.json");
    let wanted = fs::read(&lock).with_context(|| format!("could not read {}", lock.display()))?;
    let installed = folder.join("node_modules/.hookwire-installed-lock");
    if fs::read(&installed).is_ok_and(|present| present == wanted) {
        return Ok(());
    }
    let npm = npm(folder, &["ci", "--no-audit", "--no-fund"]).run();
    npm.context("the npm packages could not be installed: is the npm registry reached from here?")?;
    // A lock file without packages makes no folder.
    fs::create_dir_all(folder.join("node_modules"))?;
    fs::write(&installed, wanted)
        .with_context(|| format!("could not write {}", installed.display()))
}

/// Finds Chromium, or installs it where `apt-get` may do so, and returns its path.
///
/// # Errors
/// When there is none and none can be installed, with what to do.
pub(crate) fn chromium() -> anyhow::Result<PathBuf> {
    let path = PathBuf::from("/usr/bin/chromium");
    if path.is_file() {
        return Ok(path);
    }
    let install = || {
        apt(&["update", "-q"]).run()?;
        apt(&["install", "-q", "-y", "--no-install-recommends", "chromium", "fonts-liberation"])
            .run()
    };
    install().context(
        "Chromium is not at /usr/bin/chromium and could not be installed: install Debian's package `chromium` as root",
    )?;
    ensure!(path.is_file(), "the package `chromium` brought no /usr/bin/chromium");
    Ok(path)
}

/// Makes sure that a cargo command is there; installs it from crates.io if not.
///
/// # Errors
/// When it cannot be installed, with what to do.
pub(crate) fn cargo_command(workspace: &Workspace, name: &str) -> anyhow::Result<()> {
    if workspace.cargo([name, "--version"]).output().is_ok() {
        return Ok(());
    }
    let package = format!("cargo-{name}");
    println!("{package} is not here: it is built once, which takes some minutes.");
    workspace.cargo(["install", "--locked", &package]).run().with_context(|| {
        format!("`cargo {name}` is missing: run `cargo install --locked {package}` where crates.io is reached")
    })
}

/// Makes sure that valgrind is there; installs it where `apt-get` may do so.
///
/// # Errors
/// When it cannot be installed, with what to do.
pub(crate) fn valgrind() -> anyhow::Result<()> {
    if Program::new("valgrind").arguments(["--version"]).output().is_ok() {
        return Ok(());
    }
    let install = || {
        apt(&["update", "-q"]).run()?;
        apt(&["install", "-q", "-y", "--no-install-recommends", "valgrind"]).run()
    };
    install().context(
        "valgrind is missing and could not be installed: install Debian's package `valgrind` as root",
    )
}

/// Makes sure that a package of Debian is there; installs it where that starts no service.
///
/// # Errors
/// When it cannot be installed, with the reason.
pub(crate) fn debian(package: &str) -> anyhow::Result<()> {
    if debian_version(package).is_some() {
        return Ok(());
    }
    let missing = format!("Debian's package `{package}` is missing");
    let user = Program::new("id").arguments(["-u"]).output()?;
    ensure!(user.trim() == "0", "{missing}, which only root can install");
    ensure!(
        !Path::new("/run/systemd/system").exists(),
        "{missing}, and is not installed here because its service would start"
    );
    let install = || {
        apt(&["update", "-q"]).run()?;
        // In this run level nothing is started by what is installed.
        apt(&["install", "-q", "-y", "--no-install-recommends", package])
            .variable("RUNLEVEL", "1")
            .run()
    };
    install().with_context(|| format!("{missing} and could not be installed"))
}

/// Returns the version of a package of Debian, if it is installed.
pub(crate) fn debian_version(package: &str) -> Option<String> {
    let format = "-f=${db:Status-Status} ${Version}";
    let told = Program::new("dpkg-query").arguments(["-W", format, package]).output().ok()?;
    told.strip_prefix("installed ").map(str::to_owned)
}

/// Makes sure that the runner of the instruction counts is there, in the version that its library in `Cargo.lock` wants.
///
/// # Errors
/// When it cannot be installed, with what to do.
pub(crate) fn gungraun_runner(workspace: &Workspace) -> anyhow::Result<()> {
    let lock = fs::read_to_string(workspace.root.join("Cargo.lock"))?;
    let (_, rest) = lock
        .split_once("name = \"gungraun\"\nversion = \"")
        .context("Cargo.lock has no gungraun")?;
    let version = rest.split('"').next().unwrap_or_default();
    let present = Program::new("gungraun-runner").arguments(["--version"]).output();
    if present.is_ok_and(|present| present.split_whitespace().last() == Some(version)) {
        return Ok(());
    }
    println!("gungraun-runner {version} is not here: it is built once, which takes some minutes.");
    let package = format!("gungraun-runner@{version}");
    workspace.cargo(["install", "--locked", &package]).run().with_context(|| {
        format!("gungraun-runner is missing: run `cargo install --locked {package}` where crates.io is reached")
    })
}

/// Checks licences, banned crates and sources of all dependencies by `deny.toml`.
///
/// # Errors
/// When a rule is broken, or cargo-deny cannot be had.
pub(crate) fn deny(workspace: &Workspace) -> anyhow::Result<()> {
    cargo_command(workspace, "deny")?;
    // Duplicates are warnings, each with a tree of its own; only errors are worth the space.
    workspace
        .cargo(["deny", "--log-level", "error", "--locked", "check", "licenses", "bans", "sources"])
        .run()
}

/// A call of `apt-get` that asks nothing.
fn apt(arguments: &[&str]) -> Program {
    Program::new("apt-get").arguments(arguments).variable("DEBIAN_FRONTEND", "noninteractive")
}

fn parse_node_version(text: &str) -> anyhow::Result<(u32, u32)> {
    let mut parts = text.trim_start_matches('v').split('.');
    match (parts.next().map(str::parse), parts.next().map(str::parse)) {
        (Some(Ok(major)), Some(Ok(minor))) => Ok((major, minor)),
        _ => bail!("not a version"),
    }
}

/// The oldest Node that the page tools run on: major and minor.
const NODE_MIN: (u32, u32) = (20, 19);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn node_versions_compare_by_number() {
        assert_eq!(parse_node_version("v20.19.4").unwrap(), (20, 19));
        assert!(NODE_MIN <= parse_node_version("v24.0.0").unwrap());
        assert!(parse_node_version("v20.9.0").unwrap() < NODE_MIN);
        assert!(parse_node_version("nightly").is_err());
    }
}
