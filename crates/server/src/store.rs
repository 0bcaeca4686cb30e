//! What the service must remember: upstream templates set at run time and stored memberships, in one redb file.
//!
//! Every change is durable when its future is ready. Changes that come together share one commit.

mod writer;

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};

use hookwire_hub::{MembershipChange, UnixMillis};
use hookwire_proto::handler::{HubDocument, Secrets};
use hookwire_proto::name::{GroupName, HubName, UserId};
use hookwire_proto::template::TemplatesDocument;
use redb::Database;
use tokio::sync::{mpsc, oneshot};

use self::writer::{Change, Writer};

/// Most stored memberships. Those that have ended make room when it is needed.
pub const MEMBERSHIPS_MAX: u64 = 1_000_000;

/// Changes that wait for the writer; more make their callers wait.
const CHANGES_WAITING_MAX: usize = 1_024;

/// The name of the file in its folder.
const FILE_NAME: &str = "hookwire.redb";

/// A stored membership: hub, user, group, and when it ends.
pub type MembershipRow = (HubName, UserId, GroupName, Option<UnixMillis>);

/// Why the store failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The folder cannot be made or used.
    #[error("cannot use the folder {path}")]
    Folder {
        /// The folder.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// Another process has the file open.
    #[error("{path} is in use: another process runs with the same data_dir")]
    InUse {
        /// The file.
        path: String,
    },
    /// The file is damaged, or the disk failed or is full.
    #[error("the store failed")]
    Database(#[source] Arc<redb::Error>),
    /// The stored templates were written by another version.
    #[error("the stored templates cannot be read")]
    Templates(#[source] serde_json::Error),
    /// The stored settings of a hub were written by another version.
    #[error("the stored settings of the hub {hub} cannot be read")]
    Hub {
        /// The hub.
        hub: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// There are [`MEMBERSHIPS_MAX`] memberships already.
    #[error("{MEMBERSHIPS_MAX} memberships are stored, no more fit")]
    Full,
    /// The system refused the writer's thread.
    #[error("cannot start the thread that writes")]
    Thread(#[source] io::Error),
    /// The writer has ended.
    #[error("the store is closed")]
    Closed,
}

impl<E: Into<redb::Error>> From<E> for StoreError {
    fn from(error: E) -> Self {
        Self::Database(Arc::new(error.into()))
    }
}

/// The store. Cheap to clone; the file is closed when the last clone is gone.
#[derive(Debug, Clone)]
pub struct Store {
    changes: mpsc::Sender<Waiting>,
}

/// A change and who waits for it.
type Waiting = (Change, oneshot::Sender<Result<(), StoreError>>);

/// What was stored before the start.
#[derive(Debug, Default)]
pub struct Restored {
    /// Templates set at run time; `None`: those of the file hold.
    pub templates: Option<TemplatesDocument>,
    /// Settings of hubs set at run time.
    pub hubs: Vec<(HubName, HubDocument)>,
    /// Memberships that have not ended.
    pub memberships: Vec<MembershipRow>,
}

impl Store {
    /// Opens the store in `data_dir`, which is made if it is absent, and reads all of it. Blocks. The thread that comes with it
    /// closes the file and ends when the last clone of the store is gone.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn open(
        data_dir: &Path,
        now: UnixMillis,
    ) -> Result<(Self, Restored, JoinHandle<()>), StoreError> {
        let path = data_dir.join(FILE_NAME);
        prepare(data_dir, &path).map_err(|source| StoreError::Folder {
            path: data_dir.display().to_string(),
            source,
        })?;
        let reopen = {
            let path = path.clone();
            move || Database::create(&path)
        };
        let (mut writer, restored) =
            Writer::open(reopen, MEMBERSHIPS_MAX, now).map_err(|error| {
                if is_in_use(&error) {
                    StoreError::InUse { path: path.display().to_string() }
                } else {
                    error
                }
            })?;
        let (changes, mut waiting) = mpsc::channel::<Waiting>(CHANGES_WAITING_MAX);
        let write_all = move || {
            let mut batch = Vec::new();
            while waiting.blocking_recv_many(&mut batch, CHANGES_WAITING_MAX) != 0 {
                let (changes, callers): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
                let results = writer.write(&changes, wall_clock());
                for (caller, result) in callers.into_iter().zip(results) {
                    // Whoever asked may be gone; the change stands all the same.
                    let _ = caller.send(result);
                }
            }
        };
        let thread = thread::Builder::new().name("store".to_owned()).spawn(write_all);
        Ok((Self { changes }, restored, thread.map_err(StoreError::Thread)?))
    }

    /// Stores the templates.
    ///
    /// # Errors
    /// [`StoreError`]: nothing is changed.
    pub async fn set_templates(&self, templates: TemplatesDocument) -> Result<(), StoreError> {
        self.change(Change::Templates(templates)).await
    }

    /// Stores the settings of a hub, secrets included, or forgets them.
    ///
    /// # Errors
    /// [`StoreError`]: nothing is changed.
    pub async fn set_hub(
        &self,
        hub: &HubName,
        document: Option<&HubDocument>,
    ) -> Result<(), StoreError> {
        let text = document.map(|document| document.to_json(Secrets::Shown).to_string());
        self.change(Change::Hub(hub.clone(), text)).await
    }

    /// Stores a change of a user's memberships.
    ///
    /// # Errors
    /// [`StoreError`]: nothing is changed.
    pub async fn change_membership(
        &self,
        hub: &HubName,
        user: &UserId,
        change: &MembershipChange,
    ) -> Result<(), StoreError> {
        self.change(Change::Membership(hub.clone(), user.clone(), change.clone())).await
    }

    async fn change(&self, change: Change) -> Result<(), StoreError> {
        let (sender, receiver) = oneshot::channel();
        self.changes.send((change, sender)).await.map_err(|_| StoreError::Closed)?;
        receiver.await.map_err(|_| StoreError::Closed)?
    }
}

fn is_in_use(error: &StoreError) -> bool {
    matches!(error, StoreError::Database(error) if matches!(**error, redb::Error::DatabaseAlreadyOpen))
}

/// Makes the folder and an empty file, which others may not read: templates can hold keys. A new name is durable too.
fn prepare(data_dir: &Path, path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(data_dir)?;
    let mut options = OpenOptions::new();
    match options.write(true).create_new(true).mode(0o600).open(path) {
        Ok(_) => File::open(data_dir)?.sync_all(),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn wall_clock() -> UnixMillis {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMillis::try_from(since.as_millis()).unwrap_or(UnixMillis::MAX)
}

#[cfg(test)]
mod tests;
