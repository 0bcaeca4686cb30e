//! `health`: asks a process of this machine how it is, for images that have no other HTTP client.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, ensure};
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use serde_json::json;
use url::Url;

/// Largest answer that is shown, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 10;

/// How long an answer may take.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(4);

#[derive(Debug, Args)]
pub(crate) struct HealthArguments {
    /// What is asked; any 2xx is well. Only http://
    #[arg(default_value = "http://127.0.0.1:8080/health/ready")]
    url: Url,
}

/// Asks, says what came of it, and fails unless the answer is a 2xx.
pub(crate) async fn health(arguments: HealthArguments, json: bool) -> anyhow::Result<ExitCode> {
    let url = arguments.url;
    ensure!(url.scheme() == "http", "only http:// can be asked");
    let asking = async {
        let client = Client::builder(TokioExecutor::new()).build_http::<Empty<Bytes>>();
        let answer = client.get(url.as_str().parse()?).await.context("no answer")?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_BYTES_MAX).collect().await;
        let body = body.map_err(|error| anyhow::anyhow!("the answer broke off: {error}"))?;
        anyhow::Ok((status, String::from_utf8_lossy(&body.to_bytes()).trim().to_owned()))
    };
    let (status, body) = tokio::time::timeout(ANSWER_TIME_MAX, asking)
        .await
        .with_context(|| format!("no answer within {ANSWER_TIME_MAX:?}"))??;
    let mut out = std::io::stdout().lock();
    if json {
        writeln!(out, "{}", json!({ "status": status.as_u16(), "body": body }))?;
    } else {
        writeln!(out, "{} {body}", status.as_u16())?;
    }
    Ok(if status.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
