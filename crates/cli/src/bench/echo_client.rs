//! The client in front of a conformance suite that plays the server: every message goes back.

use std::process::ExitCode;

use anyhow::{Context, ensure};
use hookwire_client::conformance::{Message, converse};
use hookwire_proto::deflate::Compression;
use url::Url;

/// Where the suite is, by the paths of the Autobahn test suite.
#[derive(Debug, clap::Args)]
pub(crate) struct EchoClientArguments {
    /// The suite's URL, such as `ws://127.0.0.1:9001`
    #[arg(long)]
    url: Url,
    /// The name in the suite's report
    #[arg(long, default_value = "hookwire-client")]
    agent: String,
    /// Offer compression, and compress messages of any length
    #[arg(long)]
    compression: bool,
}

/// Runs every case that the suite has, and lets it write its report.
pub(super) async fn run(arguments: &EchoClientArguments) -> anyhow::Result<ExitCode> {
    let at = |path: &str, case: Option<u32>| {
        let mut url = arguments.url.clone();
        url.set_path(path);
        let mut query = url.query_pairs_mut();
        query.append_pair("agent", &arguments.agent);
        if let Some(case) = case {
            query.append_pair("case", &case.to_string());
        }
        drop(query);
        url
    };
    let mut said = None;
    converse(&at("/getCaseCount", None), None, |message| {
        said = Some(message);
        None
    })
    .await?;
    let said: Message = said.context("the suite does not say how many cases it has")?;
    let cases: u32 = std::str::from_utf8(&said.data)?.trim().parse()?;
    ensure!(cases <= CASES_MAX, "the suite says that it has {cases} cases");
    let any_length = || Compression { min_bytes: 0, ..Compression::default() };
    for case in 1..=cases {
        let compression = arguments.compression.then(any_length);
        converse(&at("/runCase", Some(case)), compression, Some)
            .await
            .with_context(|| format!("case {case} of {cases}"))?;
    }
    converse(&at("/updateReports", None), None, |_| None).await?;
    Ok(ExitCode::SUCCESS)
}

/// No suite has more cases.
const CASES_MAX: u32 = 10_000;
