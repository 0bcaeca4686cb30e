//! Attachments: objects beside the conversation that they belong to.
//!
//! A file is brought to `uploads/`, and copied into the folder of its conversation before the message that names it is written. So
//! what nobody sends can be told apart, and is deleted after a while.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures_util::{StreamExt, TryStreamExt};
use object_store::buffered::BufWriter;
use object_store::path::Path;
use object_store::{GetResult, ObjectStore, ObjectStoreExt};
use serde::{Deserialize, Serialize};
use tokio::io::AsyncWriteExt;

use super::chain::in_time;
use super::{Random, StoreError, digest};

/// A file that hangs on a message, as it is stored with the message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Attachment {
    /// 32 hexadecimal digits.
    pub(crate) id: String,
    pub(crate) name: String,
    /// The media type.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    pub(crate) bytes: u64,
}

/// A file that is being brought.
pub(crate) struct Uploading {
    id: String,
    path: Path,
    writer: BufWriter,
}

impl Uploading {
    pub(super) fn begin(objects: &Arc<dyn ObjectStore>, random: &Random) -> Self {
        let id = format!("{:016x}{:016x}", random.next(), random.next());
        let path = upload_path(&id);
        let writer = BufWriter::with_capacity(Arc::clone(objects), path.clone(), PART_BYTES)
            .with_max_concurrency(1);
        Self { id, path, writer }
    }

    pub(crate) async fn put(&mut self, bytes: Bytes) -> Result<(), StoreError> {
        in_time(&self.path, self.writer.put(bytes))
            .await?
            .map_err(|source| StoreError::unreachable(&self.path, source))
    }

    /// Returns its id once it is stored.
    pub(crate) async fn finish(mut self) -> Result<String, StoreError> {
        let finished = in_time(&self.path, self.writer.shutdown()).await?;
        let failed =
            |error| object_store::Error::Generic { store: "upload", source: Box::new(error) };
        finished.map_err(|error| StoreError::unreachable(&self.path, failed(error)))?;
        Ok(self.id)
    }

    /// Gives it up. What cannot be undone is left to the store.
    pub(crate) async fn abandon(mut self) {
        if let Ok(Err(error)) = in_time(&self.path, self.writer.abort()).await {
            tracing::debug!(%error, "an upload was not undone");
        }
    }
}

/// Puts a file that was brought beside its conversation, once or again.
pub(super) async fn keep(
    objects: &Arc<dyn ObjectStore>,
    folder: &str,
    id: &str,
) -> Result<(), StoreError> {
    let (from, to) = (upload_path(id), path(folder, id));
    match in_time(&to, objects.head(&to)).await? {
        // Sent again: it is there since the first time. A second copy would leave a file of another name in a local folder.
        Ok(_) => return Ok(()),
        Err(object_store::Error::NotFound { .. }) => {}
        Err(source) => return Err(StoreError::unreachable(&to, source)),
    }
    match in_time(&to, objects.copy(&from, &to)).await? {
        Ok(()) => Ok(()),
        Err(object_store::Error::NotFound { .. }) => {
            Err(StoreError::Missing { path: from.to_string() })
        }
        Err(source) => Err(StoreError::unreachable(&to, source)),
    }
}

/// Opens an attachment; nothing when there is none.
pub(super) async fn open(
    objects: &Arc<dyn ObjectStore>,
    folder: &str,
    id: &str,
) -> Result<Option<GetResult>, StoreError> {
    let path = path(folder, id);
    match in_time(&path, objects.get(&path)).await? {
        Ok(found) => Ok(Some(found)),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(source) => Err(StoreError::unreachable(&path, source)),
    }
}

/// Deletes what was brought longer ago than `age`. Returns how much that was.
pub(super) async fn sweep(
    objects: &Arc<dyn ObjectStore>,
    now: SystemTime,
    age: Duration,
) -> Result<usize, StoreError> {
    let folder = Path::from(UPLOADS);
    let failed = |source| StoreError::unreachable(&folder, source);
    let before = DateTime::<Utc>::from(now - age);
    let listing = objects
        .list(Some(&folder))
        .try_filter(|meta| std::future::ready(meta.last_modified < before))
        .map_ok(|meta| meta.location)
        .take(SWEPT_MAX)
        .try_collect::<Vec<_>>();
    let old = in_time(&folder, listing).await?.map_err(failed)?;
    let count = old.len();
    let deletions = objects.delete_stream(futures_util::stream::iter(old).map(Ok).boxed());
    let mut deletions = std::pin::pin!(deletions);
    while let Some(deleted) = in_time(&folder, deletions.next()).await? {
        match deleted {
            Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
            Err(source) => return Err(failed(source)),
        }
    }
    Ok(count)
}

/// Returns the name of the folder of a conversation.
pub(crate) fn conversation_digest(conversation: &str) -> String {
    digest(conversation)
}

fn upload_path(id: &str) -> Path {
    Path::from(UPLOADS).join(id)
}

fn path(folder: &str, id: &str) -> Path {
    Path::from("conversations").join(folder).join("attachments").join(id)
}

const UPLOADS: &str = "uploads";

/// A file is stored in parts of this size, in bytes: the smallest that S3 takes.
const PART_BYTES: usize = 5 << 20;

/// Uploads that one look deletes at most.
const SWEPT_MAX: usize = 10_000;
