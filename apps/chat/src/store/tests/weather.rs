//! An object store whose calls take turns in a random order, and that may stop working at any step.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::Notify;

use super::super::Random;
use super::random;

/// What happens to the calls of one process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weather {
    /// Orders the calls of processes that share a store; 0: they do not give way to each other.
    pub(super) seed: u64,
    /// The number of the call at which the process dies; the last thing that happens is that call or the one before it.
    pub(super) dies_at: Option<(u64, Death)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Death {
    BeforeTheCall,
    /// The call was carried out, but nobody heard the answer.
    AfterTheCall,
}

/// The store as one process sees it.
#[derive(Debug)]
pub(super) struct Weathered {
    inner: Arc<dyn ObjectStore>,
    weather: Weather,
    random: Random,
    calls: AtomicU64,
    /// Writes wait here while it is set.
    held: std::sync::Mutex<Option<Arc<Gate>>>,
}

/// Where a write waits.
#[derive(Debug, Default)]
pub(super) struct Gate {
    pub(super) reached: Notify,
    pub(super) open: Notify,
}

impl Weathered {
    pub(super) fn on(inner: &Arc<dyn ObjectStore>, weather: Weather) -> Arc<Self> {
        Arc::new(Self {
            inner: Arc::clone(inner),
            weather,
            random: random(weather.seed),
            calls: AtomicU64::new(0),
            held: std::sync::Mutex::default(),
        })
    }

    /// Returns how many calls were made.
    pub(super) fn calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Holds the next write at the returned gate.
    pub(super) fn hold_next_write(&self) -> Arc<Gate> {
        let gate = Arc::new(Gate::default());
        *self.held.lock().unwrap() = Some(Arc::clone(&gate));
        gate
    }

    async fn call<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        let number = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        self.give_way().await;
        match self.weather.dies_at {
            Some((last, Death::BeforeTheCall)) if last <= number => Err(dead()),
            Some((last, Death::AfterTheCall)) if last < number => Err(dead()),
            Some((last, Death::AfterTheCall)) if last == number => {
                call.await?;
                Err(dead())
            }
            Some(_) | None => {
                let result = call.await;
                self.give_way().await;
                result
            }
        }
    }

    async fn give_way(&self) {
        if self.weather.seed != 0 {
            for _ in 0..self.random.next() % 8 {
                tokio::task::yield_now().await;
            }
        }
    }

    fn is_dead(&self) -> bool {
        self.weather.dies_at.is_some_and(|(last, _)| last < self.calls())
    }
}

fn dead() -> object_store::Error {
    object_store::Error::Generic { store: "weathered", source: "the process is dead".into() }
}

impl fmt::Display for Weathered {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Weathered({})", self.inner)
    }
}

#[async_trait]
impl ObjectStore for Weathered {
    async fn put_opts(
        &self,
        location: &Path,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        let gate = self.held.lock().unwrap().take();
        if let Some(gate) = gate {
            gate.reached.notify_one();
            gate.open.notified().await;
        }
        self.call(self.inner.put_opts(location, payload, options)).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.call(self.inner.put_multipart_opts(location, options)).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.call(self.inner.get_opts(location, options)).await
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.call(self.inner.get_ranges(location, ranges)).await
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Path>>,
    ) -> BoxStream<'static, Result<Path>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if self.is_dead() {
            return stream::iter([Err(dead())]).boxed();
        }
        self.inner.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if self.is_dead() {
            return stream::iter([Err(dead())]).boxed();
        }
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if self.is_dead() {
            return stream::iter([Err(dead())]).boxed();
        }
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.call(self.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.call(self.inner.copy_opts(from, to, options)).await
    }
}
