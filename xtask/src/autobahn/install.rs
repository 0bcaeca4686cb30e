//! Installing the suite: it needs Python 2.7, which Debian had last in release 11.
//!
//! Nothing is installed into the system. Packages of that release are unpacked into `target/autobahn/root`, and what
//! comes from `PyPI` is installed there by that Python.

use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::program::Program;
use crate::workspace::Workspace;

/// Installs the suite, unless it is there in the wanted versions. Takes less than a minute.
///
/// # Errors
/// When a package cannot be had: not a Debian system, or its old release or the `PyPI` packages are not reached.
pub(crate) fn install(workspace: &Workspace) -> anyhow::Result<()> {
    let folder = folder(workspace);
    let installed = folder.join("installed.txt");
    if fs::read_to_string(&installed).is_ok_and(|present| present == REQUIREMENTS) {
        return Ok(());
    }
    if folder.exists() {
        // What an earlier, broken attempt left behind.
        fs::remove_dir_all(&folder)
            .with_context(|| format!("could not remove {}", folder.display()))?;
    }
    fs::create_dir_all(&folder)
        .with_context(|| format!("could not create {}", folder.display()))?;
    println!("The Autobahn test suite is installed into {}.", folder.display());
    unpack_python(&folder).context(
        "Python 2.7 of Debian 11, which the Autobahn test suite needs, cannot be had here",
    )?;
    install_packages(&folder)
        .context("the Python packages of the Autobahn test suite cannot be installed here")?;
    wstest(workspace)
        .arguments(["--autobahnversion"])
        .output()
        .context("the installed Autobahn test suite does not start")?;
    fs::write(&installed, REQUIREMENTS)
        .with_context(|| format!("could not write {}", installed.display()))
}

/// Where the suite and its reports are.
pub(super) fn folder(workspace: &Workspace) -> PathBuf {
    workspace.target.join("autobahn")
}

/// A call of the suite's command.
pub(super) fn wstest(workspace: &Workspace) -> Program {
    let folder = folder(workspace);
    python(&folder).arguments(["-m", "autobahntestsuite.wstest"]).directory(&folder)
}

/// Downloads the packages from the mirror that this system uses, with package lists of their own, and unpacks them.
fn unpack_python(folder: &Path) -> anyhow::Result<()> {
    let apt = folder.join("apt");
    let packages = folder.join("packages");
    for path in [apt.join("lists/partial"), apt.join("cache/archives/partial"), packages.clone()] {
        fs::create_dir_all(&path)
            .with_context(|| format!("could not create {}", path.display()))?;
    }
    let mirror = mirror()?;
    fs::write(apt.join("status"), "")?;
    fs::write(
        apt.join("sources.list"),
        format!("deb [signed-by={KEYRING}] {mirror} bullseye main\n"),
    )?;
    fs::write(apt.join("apt.conf"), configuration(&apt))?;

    let apt_get = || {
        Program::new("apt-get").variable("APT_CONFIG", apt.join("apt.conf")).directory(&packages)
    };
    apt_get().arguments(["update", "-qq"]).run()?;
    apt_get().arguments(["download", "-qq"]).arguments(DEBIAN_PACKAGES).run()?;

    let mut unpacked = 0;
    for entry in fs::read_dir(&packages)? {
        let package = entry?.path();
        Program::new("dpkg")
            .arguments(["-x".as_ref(), package.as_path(), &folder.join("root")])
            .output()?;
        unpacked += 1;
    }
    ensure!(
        unpacked == DEBIAN_PACKAGES.len(),
        "apt-get brought {unpacked} of {} packages",
        DEBIAN_PACKAGES.len()
    );
    Ok(())
}

/// The address of the mirror by which this system gets its own packages.
fn mirror() -> anyhow::Result<String> {
    let targets = Program::new("apt-get")
        .arguments(["indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"])
        .output()
        .context("this is not a Debian system")?;
    let mirror = targets.lines().find(|uri| !uri.contains("security"));
    Ok(mirror.context("apt-get knows no package source")?.to_owned())
}

/// An `apt.conf` by which apt-get touches nothing outside of `apt`.
fn configuration(apt: &Path) -> String {
    let apt = apt.display();
    format!(
        "Dir::Etc::sourcelist \"{apt}/sources.list\";\n\
         Dir::Etc::sourceparts \"-\";\n\
         Dir::State::lists \"{apt}/lists\";\n\
         Dir::State::status \"{apt}/status\";\n\
         Dir::Cache \"{apt}/cache\";\n\
         Acquire::Languages \"none\";\n\
         Acquire::IndexTargets::deb::DEP-11::DefaultEnabled \"false\";\n\
         APT::Sandbox::User \"root\";\n"
    )
}

/// Puts pip, then the suite and what it needs into the unpacked Python.
fn install_packages(folder: &Path) -> anyhow::Result<()> {
    let wheels = folder.join("wheels");
    let requirements = folder.join("requirements.txt");
    fs::write(&requirements, REQUIREMENTS)?;

    // This system's pip only downloads: Python 2.7 comes without one.
    Program::new("python3")
        .arguments(["-m", "pip", "download", "-q", "--no-deps", "-d"])
        .arguments([&wheels])
        .arguments(BOOTSTRAP)
        .run()?;
    let mut path = Vec::new();
    for entry in fs::read_dir(&wheels)? {
        path.push(entry?.path());
    }
    let path = std::env::join_paths(path)?;
    pip(folder)
        .variable("PYTHONPATH", path)
        .arguments(["--no-index", "--find-links"])
        .arguments([&wheels])
        .arguments(BOOTSTRAP)
        .run()?;

    // Twisted and klein look for incremental, and cryptography's kin for cffi, while they are built.
    pip(folder).arguments(["--no-deps", "incremental==16.10.1", "six==1.16.0"]).run()?;
    let include = folder.join("root/usr/include");
    let flags = format!("-I{0}/python2.7 -I{0}", include.display());
    pip(folder)
        .variable("CFLAGS", flags)
        .arguments(["--no-deps", "--requirement"])
        .arguments([&requirements])
        .run()
}

fn pip(folder: &Path) -> Program {
    python(folder)
        .variable("PYTHONWARNINGS", "ignore")
        .variable("PIP_NO_PYTHON_VERSION_WARNING", "1")
        .arguments([
            "-m",
            "pip",
            "install",
            "-q",
            "--no-warn-script-location",
            "--no-build-isolation",
        ])
}

/// A call of the unpacked Python.
fn python(folder: &Path) -> Program {
    let prefix = folder.join("root/usr");
    Program::new(prefix.join("bin/python2.7"))
        .variable("LD_LIBRARY_PATH", prefix.join(format!("lib/{ARCH}-linux-gnu")))
        .variable("PYTHONHOME", prefix)
        .variable("PYTHONNOUSERSITE", "1")
}

const REQUIREMENTS: &str = include_str!("../../autobahn-requirements.txt");

/// What pip needs to install itself.
const BOOTSTRAP: [&str; 3] = ["pip==20.3.4", "setuptools==44.0.0", "wheel==0.34.2"];

const DEBIAN_PACKAGES: [&str; 7] = [
    "python2.7",
    "python2.7-minimal",
    "libpython2.7-minimal",
    "libpython2.7-stdlib",
    "libpython2.7-dev",
    "libssl1.1",
    "libffi7",
];

/// The keys of Debian's package `debian-archive-keyring`, old releases' included.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
