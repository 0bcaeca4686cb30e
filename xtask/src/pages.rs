//! The pages: built by Node into `web/dist`, and embedded in the binary from there.

use std::collections::BTreeMap;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;

use anyhow::Context;

use crate::program::Program;
use crate::tools;
use crate::workspace::{Build, Workspace};

/// Builds what is missing and becomes `hookwire dev`. Without Node it goes on without pages, and says so.
///
/// # Errors
/// When the pages or the binary do not build, or the binary does not start.
pub(crate) fn run(workspace: &Workspace, arguments: &[String]) -> anyhow::Result<()> {
    match tools::node() {
        Ok(()) => build(workspace)?,
        Err(reason) => println!("The pages are not built: {reason:#}. Everything else works."),
    }
    let binary = workspace.binary(Build::Release)?;
    Err(Program::new(binary).arguments(["dev"]).arguments(arguments).become_it())
}

/// Builds the pages, unless nothing changed since they were built last.
///
/// # Errors
/// When Node is missing, or the pages do not build.
pub(crate) fn build(workspace: &Workspace) -> anyhow::Result<()> {
    let web = workspace.folder("web")?;
    let stamp_file = workspace.target.join("xtask/pages.stamp");
    let stamp = stamp(&web)?;
    let built = PAGES.map(|page| web.join("dist").join(page).join("index.html"));
    if built.iter().all(|page| page.is_file())
        && fs::read_to_string(&stamp_file).is_ok_and(|last| last == stamp)
    {
        println!("The pages are up to date.");
        return Ok(());
    }
    tools::packages(&web)?;
    tools::npm(&web, &["run", "build"]).run()?;
    for page in built {
        anyhow::ensure!(page.is_file(), "the build of the pages wrote no {}", page.display());
    }
    fs::create_dir_all(workspace.target.join("xtask"))?;
    fs::write(&stamp_file, stamp)
        .with_context(|| format!("could not write {}", stamp_file.display()))
}

/// A hash over the paths and contents of everything that the pages are made of.
fn stamp(web: &Path) -> anyhow::Result<String> {
    let mut contents = BTreeMap::new();
    read(web, &mut contents)?;
    let mut hasher = DefaultHasher::new();
    contents.hash(&mut hasher);
    Ok(format!("{:016x}", hasher.finish()))
}

fn read(folder: &Path, contents: &mut BTreeMap<String, Vec<u8>>) -> anyhow::Result<()> {
    let entries =
        fs::read_dir(folder).with_context(|| format!("could not list {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            if !NOT_A_SOURCE.iter().any(|name| entry.file_name() == *name) {
                read(&path, contents)?;
            }
        } else {
            let content =
                fs::read(&path).with_context(|| format!("could not read {}", path.display()))?;
            contents.insert(path.to_string_lossy().into_owned(), content);
        }
    }
    Ok(())
}

/// The pages, by the names of their folders.
const PAGES: [&str; 2] = ["chat", "console"];

/// Folders of `web` whose content does not change the pages.
const NOT_A_SOURCE: [&str; 3] = ["node_modules", "dist", "e2e"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_follows_sources_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let web = folder.path();
        fs::create_dir_all(web.join("chat")).unwrap();
        fs::create_dir_all(web.join("dist")).unwrap();
        fs::write(web.join("chat/main.ts"), "1").unwrap();
        let first = stamp(web).unwrap();

        fs::write(web.join("dist/index.html"), "built").unwrap();
        assert_eq!(stamp(web).unwrap(), first);

        fs::write(web.join("chat/main.ts"), "2").unwrap();
        assert_ne!(stamp(web).unwrap(), first);
    }
}
