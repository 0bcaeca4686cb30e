//! `tunnel`: the events of a hub come to an upstream that the service cannot reach.

use std::io::Write;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use hookwire_client::{
    LocalUpstream, TunnelClient, TunnelError, TunnelEvent, TunnelOptions, TunnelRequest,
};
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use url::Url;

use super::arguments::HubArguments;
use super::outcome::{Failure, plain};
use super::{Named, environment, named, tell};

/// What `tunnel` takes.
#[derive(Debug, Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct TunnelArguments {
    #[command(flatten)]
    of: HubArguments,
    /// Where events go: path and query of `tunnel:///…` are appended
    #[arg(long, value_name = "URL", default_value = "http://localhost:7071")]
    upstream: Url,
}

const AFTER_HELP: &str = "\
The settings of the hub name a path instead of a server: a handler or template for tunnel:///api/… comes
to /api/… at the upstream. A tunnel that is lost is opened again.

Environment:
  WebPubSubConnectionString     the service, if not named by --connection-string
  AzureSignalRConnectionString  the same
  HubName, WebPubSubHub         the hub, if not named by --hub
  HOOKWIRE_CA_FILE              whom to trust too, if not named by --ca-file

Exit codes:
  0  ended by SIGINT or SIGTERM
  2  wrong usage: nothing was sent
  3  the service will have no tunnel";

/// Serves until a signal, or until the service will have no tunnel any more; prints a line for each request.
///
/// # Errors
/// When standard output cannot be written.
pub(crate) async fn run(arguments: TunnelArguments, json: bool) -> anyhow::Result<ExitCode> {
    let printer = Printer { json, is_broken: Notify::new() };
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = printer.is_broken.notified() => {}
        }
    };
    match serve(&arguments, &printer, stop).await {
        Ok(()) => Ok(ExitCode::SUCCESS),
        Err(failure) => tell(&failure, json),
    }
}

async fn serve(
    arguments: &TunnelArguments,
    printer: &Printer,
    stop: impl Future<Output = ()>,
) -> Result<(), Failure> {
    let Named { connection, hub, trust, .. } = named(&arguments.of, None, environment)?;
    let upstream = LocalUpstream::new(arguments.upstream.clone(), &trust);
    let upstream = upstream.map_err(|error| {
        Failure::usage(anyhow::Error::new(error).context("cannot use --upstream"))
    })?;
    let options = TunnelOptions { trust, ..TunnelOptions::default() };
    let tunnel = TunnelClient::new(connection, hub, options);
    let tunnel = tunnel.map_err(|error| Failure::Tunnel(error.into()))?;
    let answer = async |request: TunnelRequest| {
        let begin = Instant::now();
        let (method, path) = (request.method.to_string(), request.path().to_owned());
        let response = upstream.forward(request).await;
        let (status, milliseconds) = (response.status.as_u16(), millis(begin.elapsed()));
        printer.print(
            &json!({ "request": { "method": method, "path": path, "status": status, "milliseconds": milliseconds } }),
            || format!("{method} {path} {status} {milliseconds} ms"),
        );
        response
    };
    let tell = |event: TunnelEvent| match event {
        TunnelEvent::Connected { connection_id } => {
            let upstream = &arguments.upstream;
            printer.print(&json!({ "connected": { "connection_id": connection_id } }), || {
                format!("open as {connection_id}; events for tunnel:/// go to {upstream}")
            });
        }
        TunnelEvent::Disconnected { reason, retry_in } => {
            let retry = millis(retry_in);
            printer.print(
                &json!({ "disconnected": { "reason": reason, "retry_milliseconds": retry } }),
                || format!("not open: {reason}; again in {retry} ms"),
            );
        }
        TunnelEvent::Status { message } => {
            printer.print(&json!({ "status": message }), || format!("the service says: {message}"));
        }
    };
    tunnel.run(answer, tell, stop).await.map_err(|error: TunnelError| Failure::Tunnel(error))
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Prints lines for people or for scripts.
struct Printer {
    json: bool,
    /// Told when nobody reads any more.
    is_broken: Notify,
}

impl Printer {
    fn print(&self, object: &Value, line: impl FnOnce() -> String) {
        let line = if self.json { object.to_string() } else { plain(&line()) };
        let mut output = std::io::stdout().lock();
        if writeln!(output, "{line}").and_then(|()| output.flush()).is_err() {
            self.is_broken.notify_one();
        }
    }
}
