//! What the service must remember: upstream templates set at run time and stored memberships, in one redb file.
//!
//! Every change is durable when its future is ready. Changes that come together share one commit.

use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;

use hookwire_hub::{MembershipChange, UnixMillis};
use hookwire_proto::name::{GroupName, HubName, UserId};
use hookwire_proto::template::TemplatesDocument;
use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};
use tokio::sync::{mpsc, oneshot};

/// Most stored memberships.
pub const MEMBERSHIPS_MAX: u64 = 1_000_000;

/// Changes that wait for the writer; more make their callers wait.
const CHANGES_WAITING_MAX: usize = 1_024;

/// Settings by name, as JSON.
const SETTINGS: TableDefinition<'_, &str, &str> = TableDefinition::new("settings");

/// (hub, user, group) → when it ends in Unix milliseconds; 0: never.
const MEMBERSHIPS: TableDefinition<'_, (&str, &str, &str), u64> =
    TableDefinition::new("memberships");

/// The name under which the templates stand.
const TEMPLATES: &str = "upstream_templates";

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
        source: std::io::Error,
    },
    /// The file is in use by another process, damaged, or the disk failed.
    #[error("the store failed (is another process using the same data_dir?)")]
    Database(#[source] Arc<redb::Error>),
    /// There are [`MEMBERSHIPS_MAX`] memberships already.
    #[error("{MEMBERSHIPS_MAX} memberships are stored, no more fit")]
    Full,
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
    changes: mpsc::Sender<(Change, oneshot::Sender<Result<(), StoreError>>)>,
}

#[derive(Debug)]
enum Change {
    Templates(TemplatesDocument),
    Membership(HubName, UserId, MembershipChange),
}

/// What was stored before the start.
#[derive(Debug, Default)]
pub struct Restored {
    /// Templates set at run time; `None`: those of the file hold.
    pub templates: Option<TemplatesDocument>,
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
        std::fs::create_dir_all(data_dir).map_err(|source| StoreError::Folder {
            path: data_dir.display().to_string(),
            source,
        })?;
        let database = Database::create(data_dir.join("hookwire.redb"))?;
        let transaction = database.begin_write()?;
        transaction.open_table(SETTINGS)?;
        remove_ended(&mut transaction.open_table(MEMBERSHIPS)?, now)?;
        transaction.commit()?;
        let restored = read(&database)?;
        let (changes, receiver) = mpsc::channel(CHANGES_WAITING_MAX);
        let writer = std::thread::Builder::new()
            .name("store".to_owned())
            .spawn(move || write_all(&database, receiver))
            .map_err(|source| StoreError::Folder {
                path: data_dir.display().to_string(),
                source,
            })?;
        Ok((Self { changes }, restored, writer))
    }

    /// Stores the templates.
    ///
    /// # Errors
    /// [`StoreError`]: nothing is changed.
    pub async fn set_templates(&self, templates: TemplatesDocument) -> Result<(), StoreError> {
        self.change(Change::Templates(templates)).await
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

fn read(database: &Database) -> Result<Restored, StoreError> {
    let transaction = database.begin_read()?;
    let settings = transaction.open_table(SETTINGS)?;
    let templates = settings.get(TEMPLATES)?.and_then(|text| match serde_json::from_str(text.value()) {
        Ok(templates) => Some(templates),
        Err(error) => {
            tracing::error!(%error, "the stored templates are not readable; those of the file hold");
            None
        }
    });
    let mut memberships = Vec::new();
    for row in transaction.open_table(MEMBERSHIPS)?.iter()? {
        let (key, expires) = row?;
        let (hub, user, group) = key.value();
        match (HubName::parse(hub), UserId::parse(user), GroupName::parse(group)) {
            (Ok(hub), Ok(user), Ok(group)) => {
                memberships.push((hub, user, group, Some(expires.value()).filter(|at| *at != 0)));
            }
            _ => tracing::error!("a stored membership is not readable and left out"),
        }
    }
    Ok(Restored { templates, memberships })
}

/// Writes until every sender is gone; what waits together is one commit.
fn write_all(
    database: &Database,
    mut changes: mpsc::Receiver<(Change, oneshot::Sender<Result<(), StoreError>>)>,
) {
    let mut batch = Vec::new();
    while changes.blocking_recv_many(&mut batch, CHANGES_WAITING_MAX) != 0 {
        let (changes, senders): (Vec<_>, Vec<_>) = batch.drain(..).unzip();
        let results = commit(database, &changes).unwrap_or_else(|error| {
            let failed = |_: &Change| match &error {
                StoreError::Database(error) => Err(StoreError::Database(error.clone())),
                StoreError::Folder { .. } | StoreError::Full | StoreError::Closed => {
                    Err(StoreError::Closed)
                }
            };
            changes.iter().map(failed).collect()
        });
        for (sender, result) in senders.into_iter().zip(results) {
            // Whoever asked may be gone; the change stands all the same.
            let _ = sender.send(result);
        }
    }
}

fn commit(
    database: &Database,
    changes: &[Change],
) -> Result<Vec<Result<(), StoreError>>, StoreError> {
    let transaction = database.begin_write()?;
    let mut results = Vec::with_capacity(changes.len());
    {
        let mut settings = transaction.open_table(SETTINGS)?;
        let mut memberships = transaction.open_table(MEMBERSHIPS)?;
        for change in changes {
            results.push(match change {
                Change::Templates(templates) => {
                    let text =
                        serde_json::to_string(templates).expect("text and lists become JSON");
                    settings.insert(TEMPLATES, text.as_str())?;
                    Ok(())
                }
                Change::Membership(hub, user, change) => {
                    apply(&mut memberships, hub, user, change)?
                }
            });
        }
    }
    transaction.commit()?;
    Ok(results)
}

type Memberships<'t> = redb::Table<'t, (&'static str, &'static str, &'static str), u64>;

fn apply(
    table: &mut Memberships<'_>,
    hub: &HubName,
    user: &UserId,
    change: &MembershipChange,
) -> Result<Result<(), StoreError>, StoreError> {
    let (hub, user) = (hub.as_str(), user.as_str());
    match change {
        MembershipChange::Add { group, expires } => {
            let key = (hub, user, group.as_str());
            if MEMBERSHIPS_MAX <= table.len()? && table.get(key)?.is_none() {
                return Ok(Err(StoreError::Full));
            }
            table.insert(key, expires.unwrap_or(0))?;
        }
        MembershipChange::Remove { group } => {
            table.remove((hub, user, group.as_str()))?;
        }
        MembershipChange::RemoveAll => {
            let mut groups = Vec::new();
            for row in table.range((hub, user, "")..)? {
                let (key, _) = row?;
                let (of_hub, of_user, group) = key.value();
                if (of_hub, of_user) != (hub, user) {
                    break;
                }
                groups.push(group.to_owned());
            }
            for group in groups {
                table.remove((hub, user, group.as_str()))?;
            }
        }
    }
    Ok(Ok(()))
}

fn remove_ended(table: &mut Memberships<'_>, now: UnixMillis) -> Result<(), StoreError> {
    table.retain(|_, expires| expires == 0 || now < expires)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> (HubName, UserId) {
        (HubName::parse("chat").unwrap(), UserId::parse("ann").unwrap())
    }

    fn group(name: &str) -> GroupName {
        GroupName::parse(name).unwrap()
    }

    #[tokio::test]
    async fn everything_is_there_after_reopening() {
        let folder = tempfile::tempdir().unwrap();
        let (hub, user) = names();
        let (store, restored, writer) = Store::open(folder.path(), 0).unwrap();
        assert!(restored.templates.is_none() && restored.memberships.is_empty());
        let add = |name: &str, expires| MembershipChange::Add { group: group(name), expires };
        for change in [
            add("a", None),
            add("b", Some(50)),
            add("c", Some(500)),
            add("d", None),
            MembershipChange::Remove { group: group("d") },
        ] {
            store.change_membership(&hub, &user, &change).await.unwrap();
        }
        let other = UserId::parse("ann2").unwrap();
        store.change_membership(&hub, &other, &add("a", None)).await.unwrap();
        store.set_templates(TemplatesDocument::default()).await.unwrap();
        drop(store);
        writer.join().unwrap();

        let (store, restored, writer) = Store::open(folder.path(), 100).unwrap();
        assert_eq!(restored.templates, Some(TemplatesDocument::default()));
        let rows: Vec<_> = restored
            .memberships
            .iter()
            .map(|row| (row.1.as_str(), row.2.as_str(), row.3))
            .collect();
        assert_eq!(rows, [("ann", "a", None), ("ann", "c", Some(500)), ("ann2", "a", None)]);
        store.change_membership(&hub, &user, &MembershipChange::RemoveAll).await.unwrap();
        drop(store);
        writer.join().unwrap();
        let (_store, restored, _writer) = Store::open(folder.path(), 100).unwrap();
        assert_eq!(restored.memberships.len(), 1, "only the other user's is left");
    }

    #[test]
    fn a_second_process_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let first = Store::open(folder.path(), 0).unwrap();
        let error = Store::open(folder.path(), 0).unwrap_err();
        assert!(error.to_string().contains("another process"), "{error}");
        drop(first);
    }
}
