//! The floor of REST calls: a child process with the service's HTTP side and nothing behind it.

use std::io::Write;
use std::net::SocketAddr;
use std::process::ExitCode;

use anyhow::{Context, ensure};
use hookwire_server::bare_http;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::json;
use tokio::net::TcpListener;

use super::child::{Child, Run};
use super::meter::Meter;
use super::process::pin;
use super::wire::Head;

/// Headers that hyper adds to every answer by itself.
const ADDED: [&str; 2] = ["date", "content-length"];

/// Settings of the child.
#[derive(Debug, clap::Args)]
pub(crate) struct HttpFloorArguments {
    /// Status of every answer
    #[arg(long)]
    status: StatusCode,
    /// A header of every answer: `name: value`
    #[arg(long)]
    header: Vec<String>,
    /// Run on this core alone
    #[arg(long)]
    core: Option<usize>,
}

/// The child process.
#[derive(Debug)]
pub(super) struct HttpFloor {
    /// Ends with this value.
    _child: Child,
    pub(super) meter: Meter,
    pub(super) address: SocketAddr,
}

impl HttpFloor {
    /// Starts a child that answers everything with the same bytes as `answer`.
    pub(super) fn start(answer: &[u8], core: Option<usize>, run: Run<'_>) -> anyhow::Result<Self> {
        let head = Head::parse(answer)?.context("the answer is not whole")?;
        ensure!(head.bytes == answer.len(), "an answer with a body has no floor");
        let mut arguments = vec!["http-floor".to_owned(), format!("--status={}", head.status)];
        let kept = head.headers().filter(|(name, _)| !ADDED.contains(name));
        arguments.extend(kept.map(|(name, value)| format!("--header={name}: {value}")));
        arguments.extend(core.map(|core| format!("--core={core}")));
        let child = Child::start(&arguments, run)?;
        let address = child.told("listen")?.parse()?;
        Ok(Self { meter: child.meter(), _child: child, address })
    }
}

/// The child.
pub(super) async fn run(arguments: HttpFloorArguments) -> anyhow::Result<ExitCode> {
    if let Some(core) = arguments.core {
        pin(core, true)?;
    }
    let mut headers = HeaderMap::new();
    for header in &arguments.header {
        let (name, value) = header.split_once(": ").context("a header has a name and a value")?;
        headers.append(name.parse::<HeaderName>()?, value.parse::<HeaderValue>()?);
    }
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    {
        let mut out = std::io::stdout().lock();
        writeln!(out, "{}", json!({ "listen": listener.local_addr()?.to_string() }))?;
        out.flush()?;
    }
    match bare_http::answer_all(&listener, arguments.status, &headers).await? {}
}
