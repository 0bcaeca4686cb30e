//! Who may import what: the table that keeps the core pure and the crates apart.
//!
//! Checked on normal and build dependencies; tests may use what they like.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::workspace::Workspace;

/// Checks every crate of the workspace against the table, and the pure ones with all that they pull in.
///
/// # Errors
/// When a crate imports what it must not, or has no row in the table; all faults together.
pub(crate) fn check(workspace: &Workspace) -> anyhow::Result<()> {
    let packages = direct_dependencies(&workspace.metadata)?;
    let mut faults = faults(&packages);
    for rule in TABLE.iter().filter(|rule| rule.pure) {
        let tree = workspace
            .cargo([
                "tree",
                "--locked",
                "--edges",
                "normal",
                "--prefix",
                "none",
                "--format",
                "{p}",
                "--package",
            ])
            .arguments([rule.package])
            .output()?;
        faults.extend(impure(rule.package, &tree));
    }
    ensure!(faults.is_empty(), "crates import what they must not:\n  {}", faults.join("\n  "));
    println!("{} crates import only what they may.", packages.len());
    Ok(())
}

/// What one package of the workspace may depend on.
struct Rule {
    package: &'static str,
    /// Packages of this workspace.
    ours: &'static [&'static str],
    /// Packages from elsewhere; `None`: any.
    others: Option<&'static [&'static str]>,
    /// Nothing in its whole tree may be a runtime, a socket, HTTP or NATS.
    pure: bool,
}

const TABLE: [Rule; 9] = [
    Rule {
        package: "hookwire-proto",
        ours: &[],
        others: Some(&[
            "bytes",
            "serde",
            "serde_json",
            "thiserror",
            "base64",
            "percent-encoding",
            "url",
            "hmac",
            "sha2",
            "subtle",
            "jsonwebtoken",
            "simdutf8",
            "rmp",
            "flate2",
        ]),
        pure: true,
    },
    Rule {
        package: "hookwire-hub",
        ours: &["hookwire-proto"],
        others: Some(&[
            "bytes",
            "slab",
            "smallvec",
            "hashbrown",
            "foldhash",
            "thiserror",
            "tracing",
        ]),
        pure: true,
    },
    Rule {
        package: "hookwire-server",
        ours: &["hookwire-proto", "hookwire-hub", "hookwire-pages"],
        others: None,
        pure: false,
    },
    Rule {
        package: "hookwire-pages",
        ours: &[],
        others: Some(&["bytes", "http", "rust-embed", "url"]),
        pure: false,
    },
    Rule { package: "hookwire-client", ours: &["hookwire-proto"], others: None, pure: false },
    Rule {
        package: "hookwire-chat",
        ours: &["hookwire-proto", "hookwire-client", "hookwire-pages"],
        others: None,
        pure: false,
    },
    Rule {
        package: "hookwire-cli",
        ours: &[
            "hookwire-proto",
            "hookwire-hub",
            "hookwire-server",
            "hookwire-client",
            "hookwire-chat",
        ],
        others: None,
        pure: false,
    },
    Rule {
        package: "hookwire-sim",
        ours: &["hookwire-proto", "hookwire-hub"],
        others: None,
        pure: true,
    },
    Rule { package: "xtask", ours: &[], others: None, pure: false },
];

/// What must not stand anywhere under a pure crate.
const EDGE: [&str; 12] = [
    "tokio",
    "mio",
    "async-std",
    "smol",
    "socket2",
    "http",
    "hyper",
    "axum",
    "reqwest",
    "rustls",
    "async-nats",
    "object_store",
];

/// Each workspace package with the names it depends on, tests' own dependencies left out.
type Dependencies = BTreeMap<String, BTreeSet<String>>;

fn direct_dependencies(metadata: &Value) -> anyhow::Result<Dependencies> {
    let packages = metadata["packages"].as_array().context("cargo metadata lists no packages")?;
    packages
        .iter()
        .map(|package| {
            let name = package["name"].as_str().context("a package has no name")?;
            let dependencies =
                package["dependencies"].as_array().context("a package has no dependencies")?;
            let names = dependencies
                .iter()
                .filter(|dependency| dependency["kind"] != "dev")
                .map(|dependency| {
                    dependency["name"]
                        .as_str()
                        .map(str::to_owned)
                        .context("a dependency has no name")
                })
                .collect::<anyhow::Result<_>>()?;
            Ok((name.to_owned(), names))
        })
        .collect()
}

fn faults(packages: &Dependencies) -> Vec<String> {
    let mut faults = Vec::new();
    for (package, dependencies) in packages {
        let Some(rule) = TABLE.iter().find(|rule| rule.package == package) else {
            faults.push(format!("{package} has no row in the table of xtask/src/purity.rs"));
            continue;
        };
        for dependency in dependencies {
            let allowed = if packages.contains_key(dependency) {
                rule.ours.contains(&dependency.as_str())
            } else {
                rule.others.is_none_or(|others| others.contains(&dependency.as_str()))
            };
            if !allowed {
                faults.push(format!("{package} must not import {dependency}"));
            }
        }
    }
    for rule in &TABLE {
        if !packages.contains_key(rule.package) {
            faults.push(format!(
                "{} has a row in the table of xtask/src/purity.rs, but does not exist",
                rule.package
            ));
        }
    }
    faults
}

/// Looks for the edge in the output of `cargo tree --prefix none --format {p}`: one `name version …` a line.
fn impure(package: &str, tree: &str) -> Vec<String> {
    let names: BTreeSet<_> =
        tree.lines().filter_map(|line| line.split_whitespace().next()).collect();
    let found = EDGE.iter().filter(|edge| names.contains(**edge));
    found.map(|edge| format!("{package} must be pure, but {edge} is in its tree")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The workspace as the table wants it: each crate with nothing but what is ours.
    fn lawful() -> Dependencies {
        TABLE
            .iter()
            .map(|rule| {
                (rule.package.to_owned(), rule.ours.iter().map(|name| (*name).to_owned()).collect())
            })
            .collect()
    }

    fn with(package: &str, dependency: &str) -> Vec<String> {
        let mut packages = lawful();
        packages.entry(package.to_owned()).or_default().insert(dependency.to_owned());
        faults(&packages)
    }

    #[test]
    fn a_lawful_workspace_has_no_faults() {
        assert_eq!(faults(&lawful()), Vec::<String>::new());
    }

    #[test]
    fn the_core_may_not_import_a_runtime_and_the_edge_may() {
        assert_eq!(with("hookwire-hub", "tokio"), ["hookwire-hub must not import tokio"]);
        assert_eq!(with("hookwire-proto", "rand"), ["hookwire-proto must not import rand"]);
        assert_eq!(with("hookwire-server", "tokio"), Vec::<String>::new());
    }

    #[test]
    fn an_application_sees_public_surfaces_only() {
        assert_eq!(
            with("hookwire-chat", "hookwire-server"),
            ["hookwire-chat must not import hookwire-server"]
        );
        assert_eq!(
            with("hookwire-client", "hookwire-hub"),
            ["hookwire-client must not import hookwire-hub"]
        );
        assert_eq!(
            with("hookwire-server", "hookwire-client"),
            ["hookwire-server must not import hookwire-client"]
        );
        assert_eq!(with("xtask", "hookwire-proto"), ["xtask must not import hookwire-proto"]);
    }

    #[test]
    fn a_new_crate_needs_a_row_and_a_row_needs_its_crate() {
        let mut packages = lawful();
        packages.insert("hookwire-utils".to_owned(), BTreeSet::new());
        packages.remove("hookwire-sim");
        let faults = faults(&packages);
        assert_eq!(faults.len(), 2, "{faults:?}");
    }

    #[test]
    fn dependencies_of_tests_are_free() {
        let metadata = json!({ "packages": [{ "name": "hookwire-hub", "dependencies": [
            { "name": "tokio", "kind": "dev" },
            { "name": "cc", "kind": "build" },
            { "name": "bytes", "kind": null },
        ] }] });
        let packages = direct_dependencies(&metadata).unwrap();
        assert_eq!(packages["hookwire-hub"], ["bytes", "cc"].map(str::to_owned).into());
    }

    #[test]
    fn the_edge_is_found_deep_in_a_tree() {
        let tree = "hookwire-hub v0.1.0 (/checkout/crates/hub)\nbytes v1.12.1\nmio v1.2.5\ntokio-util v0.7.20 (*)\n";
        assert_eq!(
            impure("hookwire-hub", tree),
            ["hookwire-hub must be pure, but mio is in its tree"]
        );
    }
}
