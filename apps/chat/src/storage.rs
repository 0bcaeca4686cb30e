//! Where the chat keeps what it remembers: a local folder, or a bucket of a cloud store.
//!
//! Whatever it is, the rest of the chat sees an [`ObjectStore`], of which it uses what all of them have.

mod azure;

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::AmazonS3Builder;
use object_store::azure::MicrosoftAzureBuilder;
use object_store::gcp::GoogleCloudStorageBuilder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{ObjectStore, ObjectStoreScheme, RetryConfig};
use url::Url;

use self::azure::AzureAccount;
pub use self::azure::AzureAccountError;

/// Where the history is kept. `Debug` and `Display` show no secret.
#[derive(Clone, Debug)]
pub struct Storage(Place);

#[derive(Clone, Debug)]
enum Place {
    Folder(PathBuf),
    /// Of the kind that the URL's scheme says; how to get in stands in the environment, as the tools of that cloud expect it.
    Bucket {
        kind: Kind,
        url: Url,
    },
    /// A container of an account that a connection string names.
    Container {
        account: AzureAccount,
        container: String,
        prefix: Path,
    },
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    S3,
    Gcs,
    Azure,
}

impl Storage {
    /// A local folder. It is created if it is absent; several instances may share it.
    pub fn folder(folder: impl Into<PathBuf>) -> Self {
        Self(Place::Folder(folder.into()))
    }

    /// Reads what an operator says: `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`,
    /// `https://account.blob.core.windows.net/container/prefix`, `file:///folder`, a storage connection string of Azure, or the path of
    /// a folder. `az://` means the account of the connection string `azure`, if there is one.
    ///
    /// # Errors
    /// [`StorageError`] says what is wrong.
    pub fn parse(text: &str, azure: Option<&str>) -> Result<Self, StorageError> {
        if AzureAccount::may_be(text) {
            return Self::azure(text);
        }
        if !text.contains("://") {
            return if text.is_empty() { Err(StorageError::Empty) } else { Ok(Self::folder(text)) };
        }
        let url = Url::parse(text)?;
        if url.password().is_some() || url.query().is_some() {
            return Err(StorageError::Secret);
        }
        let (scheme, prefix) = ObjectStoreScheme::parse(&url)
            .map_err(|_| StorageError::Scheme { scheme: url.scheme().to_owned() })?;
        let kind = match scheme {
            ObjectStoreScheme::Local => {
                let folder = url.to_file_path().map_err(|()| StorageError::File)?;
                return Ok(Self::folder(folder));
            }
            ObjectStoreScheme::AmazonS3 => Kind::S3,
            ObjectStoreScheme::GoogleCloudStorage => Kind::Gcs,
            ObjectStoreScheme::MicrosoftAzure => Kind::Azure,
            ObjectStoreScheme::Memory | ObjectStoreScheme::Http | _ => {
                return Err(StorageError::Scheme { scheme: url.scheme().to_owned() });
            }
        };
        match (azure, url.scheme(), url.host_str()) {
            (Some(azure), "az", Some(container)) if url.username().is_empty() => {
                let account = AzureAccount::parse(azure)?;
                Ok(Self(Place::Container { account, container: container.to_owned(), prefix }))
            }
            _ => Ok(Self(Place::Bucket { kind, url })),
        }
    }

    /// The container `hookwire-chat` of the account that a storage connection string of Azure names, such as
    /// `UseDevelopmentStorage=true`. It is created if it is absent.
    ///
    /// # Errors
    /// [`StorageError::Account`].
    pub fn azure(connection_string: &str) -> Result<Self, StorageError> {
        Ok(Self(Place::Container {
            account: AzureAccount::parse(connection_string)?,
            container: CONTAINER.to_owned(),
            prefix: Path::default(),
        }))
    }

    /// Opens the storage. What is written there is durable before it counts.
    ///
    /// # Errors
    /// [`OpenError`] when it cannot be created or used.
    pub(crate) async fn open(&self) -> Result<Arc<dyn ObjectStore>, OpenError> {
        let opened = match &self.0 {
            Place::Folder(folder) => {
                let folder = folder.clone();
                tokio::task::spawn_blocking(move || open_folder(&folder))
                    .await
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
            }
            Place::Bucket { kind, url } => open_bucket(*kind, url).await,
            Place::Container { account, container, prefix } => {
                open_container(account, container, prefix).await
            }
        };
        opened.map_err(|source| OpenError { storage: self.to_string(), source })
    }
}

impl fmt::Display for Storage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Place::Folder(folder) => folder.display().fmt(formatter),
            Place::Bucket { url, .. } => url.fmt(formatter),
            Place::Container { account, container, prefix } => {
                write!(formatter, "az://{container}/{prefix} of the account {}", account.name())
            }
        }
    }
}

type Opened = Result<Arc<dyn ObjectStore>, Box<dyn Error + Send + Sync>>;

fn open_folder(folder: &std::path::Path) -> Opened {
    std::fs::create_dir_all(folder)?;
    let folder = folder.canonicalize()?;
    // Also the folder's own name must outlast a power failure.
    #[cfg(unix)]
    if let Some(parent) = folder.parent() {
        std::fs::File::open(parent)?.sync_all()?;
    }
    Ok(Arc::new(LocalFileSystem::new_with_prefix(folder)?.with_fsync(true)))
}

async fn open_bucket(kind: Kind, url: &Url) -> Opened {
    let (_, prefix) = ObjectStoreScheme::parse(url)?;
    let address = url.as_str();
    let store: Arc<dyn ObjectStore> = match kind {
        Kind::S3 => {
            Arc::new(AmazonS3Builder::from_env().with_url(address).with_retry(patience()).build()?)
        }
        Kind::Gcs => Arc::new(
            GoogleCloudStorageBuilder::from_env()
                .with_url(address)
                .with_retry(patience())
                .build()?,
        ),
        Kind::Azure => Arc::new(
            MicrosoftAzureBuilder::from_env().with_url(address).with_retry(patience()).build()?,
        ),
    };
    probe(&store).await?;
    Ok(below(prefix, store))
}

async fn open_container(account: &AzureAccount, container: &str, prefix: &Path) -> Opened {
    let store: Arc<dyn ObjectStore> = Arc::new(account.open(container, patience())?);
    match probe(&store).await {
        // The code of Azure's answer; the library has no name for it.
        Err(error) if error.to_string().contains("ContainerNotFound") => {
            account.create(container).await?;
        }
        probed => probed?,
    }
    Ok(below(prefix.clone(), store))
}

/// Asks for something small, so that what cannot work says so at the start.
async fn probe(store: &Arc<dyn ObjectStore>) -> object_store::Result<()> {
    // A name that the chat does not use: nothing is found, or it does not matter what.
    store.list_with_delimiter(Some(&Path::from("probe"))).await.map(drop)
}

fn below(prefix: Path, store: Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
    if prefix == Path::default() { store } else { Arc::new(PrefixStore::new(store, prefix)) }
}

fn patience() -> RetryConfig {
    RetryConfig { retry_timeout: RETRIES_TIME_MAX, ..RetryConfig::default() }
}

/// Why a text does not name a storage. Secrets in it are never shown.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Nothing was said.
    #[error("the storage is named by an empty text")]
    Empty,
    /// Looks like a URL, but is none.
    #[error("the storage is named by a broken URL")]
    Url(#[from] url::ParseError),
    /// A URL of another kind.
    #[error("storage by {scheme} is not known: s3, gs, az, https of Azure Blob, file, or a folder")]
    Scheme {
        /// Its scheme.
        scheme: String,
    },
    /// A URL that no file can have.
    #[error("the URL of the storage names no folder of this machine")]
    File,
    /// Keys in a URL end up in logs.
    #[error("the URL of the storage carries a password or a query; keys belong in the environment")]
    Secret,
    /// A connection string that is none.
    #[error("cannot use the storage connection string")]
    Account(#[from] AzureAccountError),
}

/// Why a storage cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the storage {storage}")]
pub struct OpenError {
    /// Which one.
    pub storage: String,
    /// What is wrong.
    pub source: Box<dyn Error + Send + Sync>,
}

/// The container in an account when nothing else is said.
const CONTAINER: &str = "hookwire-chat";

/// How long a call that failed is tried again, within the wait for one call (`STORE_CALL_MAX`).
const RETRIES_TIME_MAX: Duration = Duration::from_secs(15);

#[cfg(test)]
mod tests {
    use super::*;

    const AZURE: &str = "DefaultEndpointsProtocol=https;AccountName=acme;AccountKey=c2VjcmV0;EndpointSuffix=core.windows.net";

    #[test]
    fn operators_name_folders_and_buckets() {
        for (text, azure, shown) in [
            ("./hookwire-data/chat", None, "./hookwire-data/chat"),
            ("/srv/a=b", Some(AZURE), "/srv/a=b"),
            ("file:///srv/chat", None, "/srv/chat"),
            ("s3://bucket/some/where", None, "s3://bucket/some/where"),
            ("gs://bucket", Some(AZURE), "gs://bucket"),
            ("az://rooms/some/where", None, "az://rooms/some/where"),
            ("az://rooms/a/b", Some(AZURE), "az://rooms/a/b of the account acme"),
            (
                "https://acme.blob.core.windows.net/rooms",
                None,
                "https://acme.blob.core.windows.net/rooms",
            ),
            (AZURE, None, "az://hookwire-chat/ of the account acme"),
            (
                "UseDevelopmentStorage=true",
                None,
                "az://hookwire-chat/ of the account devstoreaccount1",
            ),
        ] {
            assert_eq!(Storage::parse(text, azure).unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn what_names_no_storage_is_refused_without_showing_secrets() {
        for wrong in [
            "",
            "://",
            "http://127.0.0.1/x",
            "https://example.com/x",
            "memory:///",
            "ftp://host/x",
            "s3://key:secret@bucket/x",
            "https://acme.blob.core.windows.net/rooms?sig=secret",
            "AccountName=acme;AccountKey=",
        ] {
            let error = Storage::parse(wrong, None).unwrap_err();
            assert!(!format!("{error:?} {error}").contains("secret"), "{wrong}");
        }
        let shown = format!("{:?}", Storage::parse(AZURE, None).unwrap());
        assert!(!shown.contains("c2VjcmV0") && shown.contains("acme"), "{shown}");
    }

    #[tokio::test]
    async fn a_folder_that_cannot_be_made_says_which() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        let storage = Storage::folder(folder.path().join("file/inside"));
        let error = storage.open().await.unwrap_err();
        assert!(error.to_string().contains("file/inside"), "{error}");
    }
}
