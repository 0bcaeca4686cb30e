//! Notices when files change: by asking the file system, which works for files that are written in place, replaced by a rename, or
//! reached over symbolic links that are switched, as Kubernetes does with secrets.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::{MissedTickBehavior, interval};

/// How often the files are looked at. A change counts when they look the same twice, so it is noticed after this long to thrice this
/// long, and not while a file is being written.
pub const LOOK_PAUSE: Duration = Duration::from_secs(1);

/// Watches files until it is dropped.
#[derive(Debug)]
pub struct FileWatch {
    files: BTreeMap<PathBuf, Look>,
    pause: Duration,
}

/// What a file looks like; one that is not there has a look too.
type Look = Option<Stamp>;

/// What changes when a file is written or another takes its place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    device: u64,
    inode: u64,
    bytes: u64,
    /// Seconds and nanoseconds of the last change of content and of anything else.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileWatch {
    /// Returns a watch of the files as they are now. Read them after this, so that no change falls in between. Blocks.
    pub fn new(files: impl IntoIterator<Item = PathBuf>) -> Self {
        Self::looking_every(LOOK_PAUSE, files)
    }

    pub(crate) fn looking_every(pause: Duration, files: impl IntoIterator<Item = PathBuf>) -> Self {
        let look = |file: PathBuf| {
            let look = look(&file);
            (file, look)
        };
        Self { files: files.into_iter().map(look).collect(), pause }
    }

    /// Watches these files from now on; those that are watched already are compared with how they looked before. Blocks.
    pub fn set_files(&mut self, files: impl IntoIterator<Item = PathBuf>) {
        let before = std::mem::take(&mut self.files);
        let look = |file: PathBuf| {
            let look = before.get(&file).copied().unwrap_or_else(|| look(&file));
            (file, look)
        };
        self.files = files.into_iter().map(look).collect();
    }

    /// Returns when some of the files have changed and are no longer changing; names them. From then on they are compared with how they
    /// look now. Cancel-safe.
    pub async fn changed(&mut self) -> Vec<PathBuf> {
        let mut ticks = interval(self.pause);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut last = None;
        loop {
            ticks.tick().await;
            let files: Vec<PathBuf> = self.files.keys().cloned().collect();
            let looking = tokio::task::spawn_blocking(move || {
                files.iter().map(|file| look(file)).collect::<Vec<Look>>()
            });
            // It fails when the runtime ends, and then nobody is told anything.
            let Ok(looks) = looking.await else { return std::future::pending().await };
            if last.as_ref() == Some(&looks) && self.files.values().ne(looks.iter()) {
                return self.accept(looks);
            }
            last = Some(looks);
        }
    }

    fn accept(&mut self, looks: Vec<Look>) -> Vec<PathBuf> {
        let mut changed = Vec::new();
        for ((file, known), look) in self.files.iter_mut().zip(looks) {
            if *known != look {
                *known = look;
                changed.push(file.clone());
            }
        }
        changed
    }
}

/// Looks at a file, through symbolic links.
fn look(file: &Path) -> Look {
    match fs::metadata(file) {
        Ok(found) => Some(Stamp {
            device: found.dev(),
            inode: found.ino(),
            bytes: found.size(),
            modified: (found.mtime(), found.mtime_nsec()),
            changed: (found.ctime(), found.ctime_nsec()),
        }),
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::debug!(file = %file.display(), %error, "a watched file cannot be looked at");
            }
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    const PAUSE: Duration = Duration::from_millis(10);

    /// Returns the names of the files that a watch finds changed.
    async fn changed(watch: &mut FileWatch) -> Vec<String> {
        let files = tokio::time::timeout(Duration::from_secs(10), watch.changed());
        let name = |file: &PathBuf| file.file_name().unwrap().to_string_lossy().into_owned();
        files.await.expect("a change is noticed").iter().map(name).collect()
    }

    #[tokio::test]
    async fn every_way_to_change_a_file_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["in-place", "replaced", "one", "other"] {
            fs::write(at(name), "old").unwrap();
        }
        symlink(at("one"), at("link")).unwrap();
        let files = ["in-place", "replaced", "link", "late"].map(at);
        let mut watch = FileWatch::looking_every(PAUSE, files.clone());
        fs::write(at("in-place"), "new, and longer").unwrap();
        assert_eq!(changed(&mut watch).await, ["in-place"]);
        fs::write(at("replacement"), "old").unwrap();
        fs::rename(at("replacement"), at("replaced")).unwrap();
        assert_eq!(changed(&mut watch).await, ["replaced"]);
        symlink(at("other"), at("new-link")).unwrap();
        fs::rename(at("new-link"), at("link")).unwrap();
        assert_eq!(changed(&mut watch).await, ["link"]);
        fs::write(at("late"), "now").unwrap();
        assert_eq!(changed(&mut watch).await, ["late"]);
        fs::remove_file(at("late")).unwrap();
        fs::write(at("in-place"), "once more, and longer").unwrap();
        assert_eq!(changed(&mut watch).await, ["in-place", "late"]);

        // What changes while the list of files does is not lost.
        fs::write(at("in-place"), "and a last time, which is longest").unwrap();
        watch.set_files([at("in-place"), at("one")]);
        assert_eq!(changed(&mut watch).await, ["in-place"]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_that_is_being_written_is_waited_for_and_an_untouched_one_for_ever() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        let mut watch = FileWatch::looking_every(PAUSE, [file.clone()]);
        let still = tokio::time::timeout(PAUSE * 100, watch.changed()).await;
        assert!(still.is_err(), "nothing has changed");
        let mut text = String::new();
        for _ in 0..5 {
            text.push('x');
            fs::write(&file, &text).unwrap();
            // One look, so never two equal ones.
            let still = tokio::time::timeout(PAUSE / 2, watch.changed()).await;
            assert!(still.is_err(), "it is still being written");
        }
        assert_eq!(changed(&mut watch).await, ["file"]);
    }
}
