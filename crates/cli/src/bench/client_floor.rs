//! The floor of webhooks: a child process that posts the same bytes to the same upstream by the same pooled client, and does nothing
//! else.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connect, HttpConnector};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde_json::json;
use tokio::task::JoinSet;

use super::child::{Child, Run};
use super::meter::Meter;
use super::process::pin;
use super::report::per;
use super::target::believing;
use super::wire::Head;

/// How long one round may take.
const ROUND_TIME_MAX: Duration = Duration::from_mins(10);

/// As the service has them, over HTTP/2.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;
const PING_PAUSE: Duration = Duration::from_secs(20);
const PING_TIME_MAX: Duration = Duration::from_secs(10);

/// What hyper adds to every request by itself.
const ADDED: &str = "content-length";

/// Settings of the child.
#[derive(Debug, clap::Args)]
pub(crate) struct ClientFloorArguments {
    /// Where it posts to
    #[arg(long)]
    url: Uri,
    /// Believe this authority, and speak HTTP/2 over TLS
    #[arg(long, value_name = "FILE")]
    authority: Option<PathBuf>,
    /// A header of every request: `name: value`
    #[arg(long)]
    header: Vec<String>,
    /// Bytes of every body
    #[arg(long)]
    size: usize,
    /// Requests on their way at once
    #[arg(long)]
    callers: usize,
    /// Run on this core alone
    #[arg(long)]
    core: Option<usize>,
}

/// The child process.
#[derive(Debug)]
pub(super) struct ClientFloor {
    child: Child,
    meter: Meter,
}

impl ClientFloor {
    /// Starts a child that posts what `sample` is, so many at once; by HTTP/2 if the upstream's certificate has an authority.
    pub(super) fn start(
        url: &str,
        authority: Option<&Path>,
        sample: &[u8],
        callers: usize,
        core: Option<usize>,
        run: Run<'_>,
    ) -> anyhow::Result<Self> {
        let head = Head::parse(sample)?.context("the request is not whole")?;
        let mut arguments = vec![
            "client-floor".to_owned(),
            format!("--url={url}"),
            format!("--size={}", sample.len() - head.bytes),
            format!("--callers={callers}"),
        ];
        let kept = head.headers().filter(|(name, _)| !name.eq_ignore_ascii_case(ADDED));
        arguments.extend(kept.map(|(name, value)| format!("--header={name}: {value}")));
        arguments.extend(authority.map(|file| format!("--authority={}", file.display())));
        arguments.extend(core.map(|core| format!("--core={core}")));
        let child = Child::start(&arguments, run)?;
        Ok(Self { meter: child.meter(), child })
    }

    /// Has `count` requests posted and answered. Returns the cost of each.
    pub(super) fn round(&mut self, count: u64) -> anyhow::Result<f64> {
        let before = self.meter.used_at_rest()?;
        self.child.tell(&count.to_string())?;
        let done = self.child.next(ROUND_TIME_MAX).context("the floor failed")?;
        ensure!(done["done"] == count, "the floor answered {done}");
        let used = self.meter.used_at_rest()? - before;
        Ok(per(used.all, count))
    }
}

/// The child: obeys lines that tell how many requests are to be posted.
pub(super) async fn run(arguments: ClientFloorArguments) -> anyhow::Result<ExitCode> {
    if let Some(core) = arguments.core {
        pin(core, true)?;
    }
    let mut headers = HeaderMap::new();
    for header in &arguments.header {
        let (name, value) = header.split_once(": ").context("a header has a name and a value")?;
        headers.append(name.parse::<HeaderName>()?, value.parse::<HeaderValue>()?);
    }
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    let mut builder = Client::builder(TokioExecutor::new());
    builder.pool_idle_timeout(Duration::from_secs(4)).pool_timer(TokioTimer::new());
    let body = Bytes::from(vec![b'x'; arguments.size]);
    let (url, unsent) = (arguments.url, AtomicU64::new(0));
    let Some(authority) = arguments.authority else {
        let client = builder.build(connector);
        return obey(Post { client, url, headers, body, unsent }, arguments.callers).await;
    };
    let authority = std::fs::read_to_string(&authority)
        .with_context(|| format!("{} cannot be read", authority.display()))?;
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(believing(&authority)?)
        .https_only()
        .enable_http2()
        .wrap_connector(connector);
    let client = builder
        .timer(TokioTimer::new())
        .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
        .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(PING_PAUSE)
        .http2_keep_alive_timeout(PING_TIME_MAX)
        .build(connector);
    obey(Post { client, url, headers, body, unsent }, arguments.callers).await
}

/// Posts as often as each line of the input says, until it ends.
async fn obey<C>(post: Post<C>, callers: usize) -> anyhow::Result<ExitCode>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    let post = Arc::new(post);
    tell(&json!({}))?;
    loop {
        let order = tokio::task::spawn_blocking(|| {
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).map(|_| line)
        });
        let line = order.await??;
        if line.is_empty() {
            return Ok(ExitCode::SUCCESS);
        }
        let count: u64 = line.trim().parse().context("an order is a number")?;
        post.unsent.store(count, Ordering::Relaxed);
        let mut posting = JoinSet::new();
        for _ in 0..callers {
            posting.spawn(post.clone().post_all());
        }
        while let Some(caller) = posting.join_next().await {
            caller??;
        }
        tell(&json!({ "done": count }))?;
    }
}

fn tell(line: &serde_json::Value) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()?;
    Ok(())
}

/// What is posted, and where.
struct Post<C> {
    client: Client<C, Full<Bytes>>,
    url: Uri,
    headers: HeaderMap,
    body: Bytes,
    /// Requests that nobody has begun.
    unsent: AtomicU64,
}

impl<C> Post<C>
where
    C: Connect + Clone + Send + Sync + 'static,
{
    /// Posts one after the other while there are some left.
    async fn post_all(self: Arc<Self>) -> anyhow::Result<()> {
        let take = |left: u64| left.checked_sub(1);
        while self.unsent.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
            let mut request = Request::new(Full::new(self.body.clone()));
            *request.method_mut() = Method::POST;
            *request.uri_mut() = self.url.clone();
            *request.headers_mut() = self.headers.clone();
            let answer = self.client.request(request).await?;
            ensure!(answer.status() == StatusCode::OK, "the upstream answered {}", answer.status());
            let body = answer.into_body().collect().await?.to_bytes();
            ensure!(body.len() == self.body.len(), "an answer has {} bytes", body.len());
        }
        Ok(())
    }
}
