//! Other servers in the same run: yardsticks, never dependencies. What npm has is installed into a scratch folder; what is absent is reported as
//! absent, with the reason.
//!
//! Each has its own best settings: no compression, no limits in the way, its own way of sending to many.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};

use super::{Figures, measure};
use crate::program::{Program, Running};
use crate::tools;

/// A server and what came of each comparison; `Err` says why it is absent.
pub(super) type Compared = (String, Result<Vec<(&'static str, Figures)>, String>);

/// How a server is started and spoken to.
#[derive(Debug)]
struct Other {
    name: &'static str,
    /// The program below the scratch folder, or on the path.
    program: &'static str,
    script: (&'static str, &'static str),
    path: &'static str,
    arguments: &'static [&'static str],
    echoes: bool,
}

/// Measures Hookwire and every other server by the same clients, in [`PASSES`] passes over all of them; the best of each counts.
///
/// # Errors
/// Hookwire cannot be measured. What goes wrong with another server is told beside its name.
pub(super) fn compare(binary: &Path, folder: &Path) -> anyhow::Result<Vec<Compared>> {
    let scratch = folder.join("others");
    let installed = install(&scratch);
    let mut all: Vec<Compared> = vec![("Hookwire".to_owned(), Ok(Vec::new()))];
    all.extend(OTHERS.iter().map(|other| (other.name.to_owned(), Ok(Vec::new()))));
    for _ in 0..PASSES {
        let mut figures = Vec::new();
        for (name, arguments, _) in COMPARISONS {
            let arguments: Vec<_> = arguments.split(' ').map(str::to_owned).collect();
            figures.push((name, measure(binary, folder, &arguments)?));
        }
        add(&mut all[0].1, Ok(figures));
        for (other, compared) in OTHERS.iter().zip(&mut all[1..]) {
            let result = match &installed {
                Ok(()) => other.measure(binary, folder, &scratch),
                Err(error) => Err(anyhow::anyhow!("{error:#}")),
            };
            add(&mut compared.1, result);
        }
    }
    Ok(all)
}

/// Adds a pass to the best so far. One failure is enough: half a comparison misleads.
fn add(
    so_far: &mut Result<Vec<(&'static str, Figures)>, String>,
    pass: anyhow::Result<Vec<(&'static str, Figures)>>,
) {
    let Ok(best) = so_far else { return };
    match pass {
        Err(error) => {
            println!("absent: {error:#}");
            let first = format!("{error:#}");
            *so_far = Err(first.lines().next().unwrap_or_default().to_owned());
        }
        Ok(pass) if best.is_empty() => *best = pass,
        Ok(pass) => {
            for ((_, best), (_, figures)) in best.iter_mut().zip(pass) {
                *best = best.best(figures);
            }
        }
    }
}

impl Other {
    fn measure(
        &self,
        binary: &Path,
        folder: &Path,
        scratch: &Path,
    ) -> anyhow::Result<Vec<(&'static str, Figures)>> {
        let (running, port) = self.start(scratch)?;
        let pid = running.0.id();
        let base = format!("127.0.0.1:{port}");
        let mut figures = Vec::new();
        for (name, arguments, is_echo) in COMPARISONS {
            if is_echo && !self.echoes {
                figures.push((name, Figures::default()));
                continue;
            }
            let path = if is_echo { "/" } else { self.path };
            let mut all: Vec<_> = arguments.split(' ').map(str::to_owned).collect();
            all.extend([format!("--url=ws://{base}{path}"), format!("--pid={pid}")]);
            if !is_echo {
                all.push(format!("--publish-url=http://{base}/pub"));
                all.extend(self.arguments.iter().map(|argument| (*argument).to_owned()));
            }
            figures.push((name, measure(binary, folder, &all)?));
        }
        Ok(figures)
    }

    /// Starts the server and returns its port, which it prints as JSON.
    fn start(&self, scratch: &Path) -> anyhow::Result<(Running, u16)> {
        let (file, text) = self.script;
        let file = scratch.join(file);
        fs::write(&file, text).with_context(|| format!("could not write {}", file.display()))?;
        let local = scratch.join(self.program);
        let program = if local.is_file() { local } else { PathBuf::from(self.program) };
        let mut running = Program::new(program).arguments([&file]).directory(scratch).start()?;
        let ready = running.first_json(START_MAX)?;
        let port = ready["port"].as_u64().and_then(|port| u16::try_from(port).ok());
        Ok((running, port.context("it told no port")?))
    }
}

/// Installs the packages that the servers need.
fn install(scratch: &Path) -> anyhow::Result<()> {
    tools::node()?;
    fs::create_dir_all(scratch)?;
    let manifest = scratch.join("package.json");
    if !manifest.is_file() {
        fs::write(&manifest, "{\"private\":true}\n")?;
    }
    let missing =
        PACKAGES.iter().any(|(folder, _)| !scratch.join("node_modules").join(folder).is_dir());
    if missing {
        let names = PACKAGES.iter().map(|(_, package)| *package);
        let install = ["install", "--no-audit", "--no-fund", "--ignore-scripts", "--silent"];
        tools::npm(scratch, &install).arguments(names).run()?;
    }
    ensure!(scratch.join("node_modules").is_dir(), "npm installed nothing");
    Ok(())
}

/// Folder below `node_modules`, and the package with its version.
const PACKAGES: [(&str, &str); 4] = [
    ("ws", "ws@8"),
    ("socket.io", "socket.io@4"),
    // Official packages are not on npm; this is a build of the same library by somebody else.
    ("uwebsockets", "uwebsockets@3.0.6"),
    ("@oven/bun-linux-x64", "@oven/bun-linux-x64@1"),
];

const OTHERS: [Other; 4] = [
    Other {
        name: "uWebSockets (Node)",
        program: "node",
        script: ("uws.js", include_str!("servers/uws.js")),
        path: "/",
        arguments: &[],
        echoes: true,
    },
    Other {
        name: "Bun",
        program: "node_modules/@oven/bun-linux-x64/bin/bun",
        script: ("bun.js", include_str!("servers/bun.js")),
        path: "/",
        arguments: &[],
        echoes: true,
    },
    Other {
        name: "ws (Node)",
        program: "node",
        script: ("ws.js", include_str!("servers/ws.js")),
        path: "/",
        arguments: &[],
        echoes: true,
    },
    Other {
        name: "Socket.IO",
        program: "node",
        script: ("socketio.js", include_str!("servers/socketio.js")),
        path: "/socket.io/?EIO=4&transport=websocket",
        arguments: &["--hello=40", "--ready=40{"],
        echoes: false,
    },
];

/// Name, arguments of `hookwire bench`, and whether it is the echo.
const COMPARISONS: [(&str, &str, bool); 5] = [
    ("lone", "fanout --rounds=3 --messages=100", false),
    ("burst of 32", "fanout --rounds=3 --mode=burst --messages=3200", false),
    ("20 messages/s", "fanout --rounds=2 --rate=20", false),
    ("800 messages/s", "fanout --rounds=2 --rate=800", false),
    ("echo", "echo --rounds=2 --messages=50000", true),
];

/// How often each server is measured.
const PASSES: usize = 2;

/// How long a server may take to start.
const START_MAX: Duration = Duration::from_secs(10);
