//! `bench rest`: sends by callers with a token that nobody receives, and beside them the same HTTP server doing nothing.

use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use indicatif::ProgressBar;
use serde::Serialize;

use super::ROUNDS_MAX;
use super::callers::{Callers, ask};
use super::child::Run;
use super::http_floor::HttpFloor;
use super::meter::Unit;
use super::process::Used;
use super::publisher;
use super::report::{Progress, per};
use super::rounds::{Comparison, Course, Measured};
use super::swarm::{Clock, PAYLOAD_BYTES_MAX};
use super::target::{Dialect, Target, TargetArguments};

/// Most callers.
const CALLERS_MAX: u64 = 8_192;

/// Most different tokens.
const TOKENS_MAX: u64 = 100_000;

/// Most requests of one round.
const REQUESTS_MAX: u64 = 100_000_000;

/// How REST sends are measured.
#[derive(Debug, clap::Args)]
pub(crate) struct RestArguments {
    #[command(flatten)]
    target: TargetArguments,
    /// The protocol of the requests
    #[arg(long, value_enum, default_value_t = Dialect::WebPubSub)]
    dialect: Dialect,
    /// Callers, each with a connection that stays
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u64).range(1..=CALLERS_MAX))]
    callers: u64,
    /// Requests that each caller has on their way
    #[arg(long, default_value_t = 1,
          value_parser = clap::value_parser!(u64).range(1..=publisher::IN_FLIGHT_MAX as u64))]
    in_flight: u64,
    /// Different tokens, used in turn
    ///
    /// The service remembers some that it has checked: with more than that, every request costs a whole check.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=TOKENS_MAX))]
    tokens: u64,
    /// Payload of a message in bytes
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u64).range(..=PAYLOAD_BYTES_MAX as u64))]
    size: u64,
    /// Requests of one round, of all callers together
    #[arg(long, default_value_t = 50_000, value_parser = clap::value_parser!(u64).range(1..=REQUESTS_MAX))]
    requests: u64,
    /// Rounds that count; one before them warms up
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=ROUNDS_MAX))]
    rounds: u64,
    /// Count instructions instead of CPU time, by valgrind, and leave a profile of each round in this folder
    #[arg(long, value_name = "FOLDER")]
    instructions: Option<PathBuf>,
    /// Do not measure the server that does nothing beside it
    #[arg(long)]
    no_floor: bool,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(super) struct RestOutcome {
    benchmark: &'static str,
    dialect: Dialect,
    callers: u64,
    in_flight: u64,
    tokens: u64,
    size_bytes: u64,
    shards: Option<u16>,
    requests_per_round: u64,
    #[serde(flatten)]
    comparison: Comparison,
}

pub(super) fn run(arguments: &RestArguments, json: bool) -> anyhow::Result<RestOutcome> {
    let callers = usize::try_from(arguments.callers)?;
    let counted = Run::counted_into(arguments.instructions.as_deref())?;
    let target = arguments.target.open(callers, counted)?;
    let load = Load {
        clock: Clock::start(),
        requests: requests(&target, arguments)?,
        callers,
        in_flight: usize::try_from(arguments.in_flight)?,
        count: arguments.requests,
    };
    let (address, _) = target.address();
    let answer = ask(address, &load.requests[0])?;
    let floor = (!arguments.no_floor)
        .then(|| HttpFloor::start(&answer, target.core, counted))
        .transpose()?;
    let bar = Progress::new(json).bar("send", (1 + arguments.rounds) * arguments.requests);
    let mut course = Course::new();
    for number in 0..=arguments.rounds {
        let measured = load.round(address, || target.used_at_rest(), &bar)?;
        let round_of_floor = |floor: &HttpFloor| {
            let used = || floor.meter.used_at_rest().map(Some);
            load.round(floor.address, used, &ProgressBar::hidden())
        };
        let floor = floor.as_ref().map(round_of_floor).transpose()?.and_then(|round| round.used);
        let floor = floor.map(|used| per(used.all, arguments.requests));
        if number != 0 {
            course.push(&measured, floor);
        }
    }
    bar.finish_and_clear();
    Ok(RestOutcome {
        benchmark: "rest",
        dialect: arguments.dialect,
        callers: arguments.callers,
        in_flight: arguments.in_flight,
        tokens: arguments.tokens,
        size_bytes: arguments.size,
        shards: arguments.target.shards(),
        requests_per_round: arguments.requests,
        comparison: course.finish("request", Unit::of(arguments.instructions.is_some())),
    })
}

/// Returns a request for each token.
fn requests(target: &Target, arguments: &RestArguments) -> anyhow::Result<Vec<Vec<u8>>> {
    let hub = target.service().hub();
    let path = match arguments.dialect {
        Dialect::Preview => format!("/ws/api/v1/hubs/{hub}/"),
        Dialect::WebPubSub => format!("/api/hubs/{hub}/:send?api-version=2024-12-01"),
    };
    let body = vec![b'x'; usize::try_from(arguments.size)?];
    let request = |number| {
        // Another end makes another token.
        let lifetime = Duration::from_hours(1) + Duration::from_secs(number);
        target.request("POST", &path, lifetime, "application/octet-stream", &body)
    };
    Ok((0..arguments.tokens).map(request).collect())
}

/// What the service and its floor get.
struct Load {
    clock: Clock,
    requests: Vec<Vec<u8>>,
    callers: usize,
    in_flight: usize,
    count: u64,
}

impl Load {
    fn round(
        &self,
        address: SocketAddr,
        used: impl Fn() -> anyhow::Result<Option<Used>>,
        bar: &ProgressBar,
    ) -> anyhow::Result<Measured> {
        // New connections each time: both servers close those that are silent for long.
        let mut callers = Callers::connect(address, self.callers, self.clock)?;
        let before = used()?;
        let begin = self.clock.now();
        let latency = callers.call(&self.requests, self.count, self.in_flight, bar)?;
        let nanoseconds = self.clock.now() - begin;
        let after = used()?;
        Ok(Measured {
            units: self.count,
            nanoseconds,
            latency,
            used: before.zip(after).map(|(before, after)| after - before),
        })
    }
}

impl Display for RestOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "REST sends of {} without receivers: {} callers with {} in flight, {} token(s), {} bytes, {} requests a round",
            self.dialect,
            self.callers,
            self.in_flight,
            self.tokens,
            self.size_bytes,
            self.requests_per_round
        )?;
        write!(f, "{}", self.comparison)
    }
}
