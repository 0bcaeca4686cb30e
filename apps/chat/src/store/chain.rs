//! A document as a chain of numbered objects: 1, 2, 3 …, each made with create-if-absent, the highest number is the truth.
//!
//! Object stores have no append, and the local one has no conditional update, but all of them create an object only if it is
//! absent. Whoever wants to change a document reads the highest version and creates the next number; of several writers one wins,
//! the others read again. Versions that are no longer needed are deleted.
//!
//! Deleting opens one gap: a writer that was held up for long may create a number that existed and was deleted. So a version
//! counts only when, after its creation, none above it is listed, or the highest one descends from it; every version carries the
//! random marks of its last ancestors for that. Invariant: whatever is listed highest was created on top of what was highest
//! before it, because the highest version is never deleted.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::StoreError;

/// The versions of one document.
#[derive(Debug)]
pub(crate) struct Chain<'a> {
    objects: &'a Arc<dyn ObjectStore>,
    folder: Path,
    retention: Retention,
}

/// One version of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Version<D> {
    /// Its number; 0: nothing is stored yet.
    pub(crate) number: u64,
    /// The marks of this version and those before it, newest first, at most [`ANCESTORS_MAX`].
    pub(crate) marks: Vec<u64>,
    pub(crate) document: D,
}

/// What became of an attempt to write the next version.
#[derive(Debug)]
pub(crate) enum Appended<D> {
    /// It is part of the chain, and the highest.
    Newest,
    /// It is part of the chain, and others stand above it. The highest is here.
    Followed(Version<D>),
    /// It is not part of the chain: others were faster. The highest is here.
    Lost(Option<Version<D>>),
}

/// Which versions are kept beside the highest.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Retention {
    /// So many of the highest numbers.
    pub(crate) versions_min: u64,
    /// And all that are not older than the newest by more than this.
    pub(crate) age: Duration,
    /// But never more than this, so that a listing of them stays one request.
    pub(crate) versions_max: u64,
}

impl Default for Retention {
    fn default() -> Self {
        Self { versions_min: 8, age: Duration::from_secs(10), versions_max: 256 }
    }
}

impl<'a> Chain<'a> {
    pub(crate) fn new(
        objects: &'a Arc<dyn ObjectStore>,
        folder: Path,
        retention: Retention,
    ) -> Self {
        Self { objects, folder, retention }
    }

    /// Reads the highest version. Nothing is stored: nothing is returned.
    ///
    /// Costs one listing and one read.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] when the highest version is not one of ours; [`StoreError::Unreachable`] and
    /// [`StoreError::Timeout`] as for every call.
    pub(crate) async fn head<D: DeserializeOwned>(&self) -> Result<Option<Version<D>>, StoreError> {
        for _ in 0..HEAD_ATTEMPTS_MAX {
            let Some(number) = self.listed(None).await?.iter().map(|(number, _)| *number).max()
            else {
                return Ok(None);
            };
            let path = self.path(number);
            // If it was deleted since it was listed, there is a higher one by now.
            if let Some(bytes) = read(self.objects, &path).await? {
                return self.parse(number, &path, &bytes).map(Some);
            }
        }
        Err(StoreError::Moving { path: self.folder.to_string() })
    }

    /// Returns whether `number` is still the highest. Costs one listing.
    ///
    /// # Errors
    /// [`StoreError`] as for every call.
    pub(crate) async fn is_head(&self, number: u64) -> Result<bool, StoreError> {
        Ok(self.listed(Some(number)).await?.is_empty())
    }

    /// Tries to write `document` as the version after `base`. Costs one write and one listing, and one more listing and read when
    /// somebody else wrote too.
    ///
    /// # Errors
    /// [`StoreError`] as for every call. Then the version may have been written or not.
    pub(crate) async fn append<D: Serialize + DeserializeOwned>(
        &self,
        base: &Version<D>,
        mark: u64,
    ) -> Result<Appended<D>, StoreError> {
        let number = base.number + 1;
        let marks: Vec<u64> =
            std::iter::once(mark).chain(base.marks.iter().copied()).take(ANCESTORS_MAX).collect();
        let stored = Stored { format: FORMAT, marks, document: &base.document };
        let bytes = serde_json::to_vec(&stored)
            .map_err(|source| StoreError::Unwritable { path: self.folder.to_string(), source })?;
        let created = create(self.objects, &self.path(number), bytes).await?;
        if created && self.is_head(number).await? {
            return Ok(Appended::Newest);
        }
        let head: Option<Version<D>> = self.head().await?;
        Ok(match head {
            Some(head) if head.marks.contains(&mark) && head.number == number => Appended::Newest,
            Some(head) if head.marks.contains(&mark) => Appended::Followed(head),
            head => Appended::Lost(head),
        })
    }

    /// Deletes versions that are not kept. Costs one listing and the deletions. Returns how many are left.
    ///
    /// `quiet` is a version above which the caller has seen nothing for as long as young versions are kept: if it is still the
    /// highest, none is young.
    ///
    /// # Errors
    /// [`StoreError`] as for every call. Then some may be left that are not kept; the next call finds them.
    pub(crate) async fn prune(&self, quiet: Option<u64>) -> Result<usize, StoreError> {
        let listed = self.listed(None).await?;
        let Some((head, newest)) = listed.iter().max_by_key(|(number, _)| *number) else {
            return Ok(0);
        };
        let age_min = if quiet == Some(*head) { Duration::ZERO } else { self.retention.age };
        // Both times are the store's own, so its clock alone decides.
        let age = |meta: &ObjectMeta| (newest.last_modified - meta.last_modified).to_std();
        let superseded: Vec<_> = listed
            .iter()
            .filter(|(number, _)| number + self.retention.versions_min <= *head)
            .filter(|(number, meta)| {
                number + self.retention.versions_max <= *head
                    || age(meta).is_ok_and(|age| age_min <= age)
            })
            .map(|(_, meta)| Ok(meta.location.clone()))
            .collect();
        let left = listed.len() - superseded.len();
        let mut deletions = self.objects.delete_stream(stream::iter(superseded).boxed());
        while let Some(deleted) = in_time(&self.folder, deletions.next()).await? {
            match deleted {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(source) => return Err(StoreError::unreachable(&self.folder, source)),
            }
        }
        Ok(left)
    }

    /// Lists the versions above `above`, or all. Names that are none of ours are passed over.
    async fn listed(&self, above: Option<u64>) -> Result<Vec<(u64, ObjectMeta)>, StoreError> {
        let listing = match above {
            Some(number) => self.objects.list_with_offset(Some(&self.folder), &self.path(number)),
            None => self.objects.list(Some(&self.folder)),
        };
        let versions = listing
            .try_filter_map(|meta| {
                let number = number_of(&meta.location);
                std::future::ready(Ok(number.map(|number| (number, meta))))
            })
            .take(LISTED_MAX + 1)
            .try_collect::<Vec<_>>();
        let mut versions = in_time(&self.folder, versions)
            .await?
            .map_err(|source| StoreError::unreachable(&self.folder, source))?;
        if LISTED_MAX < versions.len() {
            return Err(StoreError::TooMany { path: self.folder.to_string() });
        }
        // A store may treat the offset as a hint.
        versions.retain(|(number, _)| above.is_none_or(|above| above < *number));
        Ok(versions)
    }

    #[expect(clippy::unused_self, reason = "a version is read by the chain it is of")]
    fn parse<D: DeserializeOwned>(
        &self,
        number: u64,
        path: &Path,
        bytes: &[u8],
    ) -> Result<Version<D>, StoreError> {
        let stored: Stored<D> = parse(path, bytes)?;
        Ok(Version { number, marks: stored.marks, document: stored.document })
    }

    fn path(&self, number: u64) -> Path {
        self.folder.clone().join(format!("{number:020}.json"))
    }
}

/// What an object of a chain holds.
#[derive(Serialize, Deserialize)]
struct Stored<D> {
    format: u32,
    marks: Vec<u64>,
    document: D,
}

/// Parses an object that says which format it has.
pub(crate) fn parse<T: DeserializeOwned>(path: &Path, bytes: &[u8]) -> Result<T, StoreError> {
    #[derive(Deserialize)]
    struct Probe {
        format: u32,
    }
    let corrupt = |source| StoreError::Corrupt { path: path.to_string(), source: Box::new(source) };
    let Probe { format } = serde_json::from_slice(bytes).map_err(corrupt)?;
    if format != FORMAT {
        return Err(StoreError::Format { path: path.to_string(), format });
    }
    serde_json::from_slice(bytes).map_err(corrupt)
}

/// Reads an object; nothing when there is none.
pub(crate) async fn read(
    objects: &Arc<dyn ObjectStore>,
    path: &Path,
) -> Result<Option<Bytes>, StoreError> {
    let reading = async {
        let found = objects.get(path).await?;
        if OBJECT_BYTES_MAX < found.meta.size {
            return Ok(Err(found.meta.size));
        }
        found.bytes().await.map(Ok)
    };
    match in_time(path, reading).await? {
        Ok(Ok(bytes)) => Ok(Some(bytes)),
        Ok(Err(bytes)) => Err(StoreError::TooLarge { path: path.to_string(), bytes }),
        Err(object_store::Error::NotFound { .. }) => Ok(None),
        Err(source) => Err(StoreError::unreachable(path, source)),
    }
}

/// Writes an object whole, whatever was there.
pub(crate) async fn write(
    objects: &Arc<dyn ObjectStore>,
    path: &Path,
    bytes: Vec<u8>,
) -> Result<(), StoreError> {
    in_time(path, objects.put(path, PutPayload::from(bytes)))
        .await?
        .map(drop)
        .map_err(|source| StoreError::unreachable(path, source))
}

/// Writes an object whole if there is none. Returns whether there was none.
async fn create(
    objects: &Arc<dyn ObjectStore>,
    path: &Path,
    bytes: Vec<u8>,
) -> Result<bool, StoreError> {
    let payload = PutPayload::from(bytes);
    match in_time(path, objects.put_opts(path, payload, PutMode::Create.into())).await? {
        Ok(_) => Ok(true),
        Err(object_store::Error::AlreadyExists { .. }) => Ok(false),
        Err(source) => Err(StoreError::unreachable(path, source)),
    }
}

pub(super) async fn in_time<T>(
    path: &Path,
    call: impl Future<Output = T>,
) -> Result<T, StoreError> {
    tokio::time::timeout(STORE_CALL_MAX, call)
        .await
        .map_err(|_| StoreError::Timeout { path: path.to_string(), limit: STORE_CALL_MAX })
}

fn number_of(location: &Path) -> Option<u64> {
    let digits = location.filename()?.strip_suffix(".json")?;
    let number = digits.parse().ok().filter(|number| *number != 0)?;
    (format!("{number:020}") == digits).then_some(number)
}

/// The only format of objects so far. Objects of another one are left alone.
pub(crate) const FORMAT: u32 = 1;

/// Marks of ancestors that a version carries.
pub(super) const ANCESTORS_MAX: usize = 16;

/// How often the highest version is looked for while others delete what was just listed.
const HEAD_ATTEMPTS_MAX: usize = 8;

/// Versions that one listing takes, many more than are ever kept. More, and the document cannot be used.
pub(super) const LISTED_MAX: usize = 100_000;

/// Largest object that is read, in bytes.
pub(super) const OBJECT_BYTES_MAX: u64 = 64 << 20;

/// Longest wait for one call of the store.
pub(crate) const STORE_CALL_MAX: Duration = Duration::from_secs(20);
