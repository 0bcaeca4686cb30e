//! `bench idle`: the memory of a connection that does nothing.

use std::fmt::{self, Display};
use std::ops::Range;
use std::str;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use hookwire_client::ClientAccess;
use indicatif::ProgressBar;
use serde::Serialize;

use super::child::Run;
use super::form::Wire;
use super::process::Process;
use super::publisher::Publisher;
use super::report::{Progress, Table, hundredths, per, whole};
use super::swarm::{Clock, Handler, Opening, Swarm};
use super::target::{Dialect, Target, TargetArguments};
use super::upstream::Upstream;

/// Handshakes under way at once.
const HANDSHAKES_IN_FLIGHT: usize = 64;

/// REST calls under way at once.
const CALLS_IN_FLIGHT: usize = 64;

/// Most connections.
const CONNECTIONS_MAX: u64 = 1_000_000;

/// Most looks at the memory.
const STEPS_MAX: u64 = 1_000;

/// The group that all connections are put into.
const GROUP: &str = "idle";

/// How idle memory is measured.
#[derive(Debug, clap::Args)]
pub(crate) struct IdleArguments {
    #[command(flatten)]
    target: TargetArguments,
    /// Connections from which on the memory of each further one is told
    #[arg(long, default_value_t = 2_000, value_parser = clap::value_parser!(u64).range(1..CONNECTIONS_MAX))]
    from: u64,
    /// Connections in the end
    #[arg(long, default_value_t = 18_000, value_parser = clap::value_parser!(u64).range(2..=CONNECTIONS_MAX))]
    connections: u64,
    /// How the connections want messages; but for `simple`, their tokens say who they are and that they are in a group
    #[arg(long, value_enum, default_value_t = Wire::Simple)]
    wire: Wire,
    /// Who says which user a simple connection has
    #[arg(long, value_enum, default_value_t = Identity::Upstream)]
    identity: Identity,
    /// Looks at the service's memory on the way
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=STEPS_MAX))]
    steps: u64,
    /// Put the connections into no group
    #[arg(long)]
    no_group: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
enum Identity {
    /// An upstream's answer to the connect event: the service keeps no claims
    Upstream,
    /// The client's token: the service keeps its claims for later events
    Token,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub(super) struct IdleOutcome {
    benchmark: &'static str,
    wire: Wire,
    identity: Identity,
    groups: u32,
    shards: Option<u16>,
    /// The first before any connection, the second where the slope begins.
    looks: Vec<Look>,
    /// Bytes of proportional set size that one more connection takes: the slope from the second look to the last. Memory that is
    /// left over from handshakes and is used again makes it small.
    bytes_per_connection: f64,
    /// The growth since there was no connection, for each connection. It includes what is needed once, so it is too large.
    bytes_per_connection_max: f64,
    /// Of these, what the service must repeat on every event of a connection: query, claims, addresses. `None` without an upstream
    /// that sees it.
    kept_bytes_per_connection: Option<f64>,
}

#[derive(Debug, Clone, Copy, Serialize)]
struct Look {
    connections: u64,
    proportional_bytes: u64,
}

pub(super) fn run(arguments: &IdleArguments, json: bool) -> anyhow::Result<IdleOutcome> {
    let (from, to) = (arguments.from, arguments.connections);
    ensure!(from < to, "there must be more connections in the end ({to}) than at first ({from})");
    let is_preview = arguments.wire == Wire::Simple;
    let identity = if is_preview { arguments.identity } else { Identity::Token };
    let with_upstream = is_preview && (identity == Identity::Upstream || !arguments.no_group);
    if with_upstream && arguments.target.shards().is_none() {
        bail!(
            "a service that runs already has upstreams of its own, which are not replaced: add --identity token --no-group"
        );
    }
    let target = arguments.target.open(usize::try_from(arguments.connections)?, Run::TidyMemory)?;
    let process =
        target.process().context("the memory of an unknown process cannot be read: add --pid")?;
    let progress = Progress::new(json);
    let mut swarm = Swarm::new(Clock::start())?;
    let mut arrivals =
        Arrivals { ids: Vec::new(), bar: progress.bar("connect", arguments.connections) };

    let upstream = if with_upstream {
        let upstream = Upstream::start(identity == Identity::Upstream)?;
        target.lead_to(&upstream, Dialect::Preview, "connect")?;
        Some(upstream)
    } else {
        None
    };
    let mut looks = vec![Look { connections: 0, proportional_bytes: at_rest(process)? }];
    for step in 0..=arguments.steps {
        let connections = from + (to - from) * step / arguments.steps;
        let before = swarm.len();
        let count = usize::try_from(connections)?;
        let openings = openings(arguments, &target, before..count)?;
        let door = target.door(HANDSHAKES_IN_FLIGHT);
        swarm.connect(&door, count, |index| openings[index - before].clone(), &mut arrivals)?;
        if is_preview && !arguments.no_group {
            join(&target, &mut swarm, &mut arrivals, before)?;
        }
        looks.push(Look { connections, proportional_bytes: at_rest(process)? });
    }
    arrivals.bar.finish_and_clear();
    let last = looks[looks.len() - 1];
    Ok(IdleOutcome {
        benchmark: "idle",
        wire: arguments.wire,
        identity,
        groups: u32::from(!arguments.no_group),
        shards: arguments.target.shards(),
        bytes_per_connection: last.slope_since(looks[1]),
        bytes_per_connection_max: last.slope_since(looks[0]),
        kept_bytes_per_connection: upstream.map(|upstream| upstream.kept_bytes()),
        looks,
    })
}

impl Look {
    /// Returns the growth in bytes for each connection that came since; negative if memory was given back.
    fn slope_since(self, earlier: Self) -> f64 {
        let of = |look: Self| per(look.proportional_bytes, 1);
        (of(self) - of(earlier)) / per(self.connections - earlier.connections, 1)
    }
}

fn openings(
    arguments: &IdleArguments,
    target: &Target,
    connections: Range<usize>,
) -> anyhow::Result<Vec<Opening>> {
    let forms = arguments.wire.forms();
    let entrances: Vec<_> = forms.iter().map(|form| target.entrance(*form)).collect();
    let opening = |index: usize| {
        let user = format!("user-{index}");
        match (arguments.wire, arguments.identity) {
            (Wire::Simple, Identity::Upstream) => Ok(target.anonymous_opening()),
            (Wire::Simple, Identity::Token) => target.opening(&user),
            _ => {
                let access = ClientAccess::new().user(user);
                let access = if arguments.no_group { access } else { access.group(GROUP) };
                target.opening_as(&access, entrances[index % entrances.len()].clone())
            }
        }
    };
    connections.map(opening).collect()
}

/// Puts the connections from `first` on into the group, each by its id.
fn join(
    target: &Target,
    swarm: &mut Swarm,
    arrivals: &mut Arrivals,
    first: usize,
) -> anyhow::Result<()> {
    while arrivals.ids.len() < swarm.len() {
        swarm.turn(arrivals)?;
    }
    // A new connection each time: the service closes one that is silent for long.
    let mut caller = target.publisher(swarm)?;
    for at in first..swarm.len() {
        let hub = target.service().hub();
        let path = format!("/ws/api/v1/hubs/{hub}/groups/{GROUP}/connections/{}", arrivals.ids[at]);
        let token = target.service().rest_token(&path, Duration::from_hours(1));
        caller.queue("PUT", &path, Some(&token), "text/plain", b"")?;
        answered(swarm, &mut caller, arrivals, CALLS_IN_FLIGHT)?;
    }
    answered(swarm, &mut caller, arrivals, 0)
}

/// Sends what is in line and waits until no more than `in_flight` calls are unanswered.
fn answered(
    swarm: &mut Swarm,
    caller: &mut Publisher,
    arrivals: &mut Arrivals,
    in_flight: usize,
) -> anyhow::Result<()> {
    caller.flush()?;
    while in_flight < caller.in_flight() {
        if swarm.turn(arrivals)? {
            caller.on_ready()?;
        }
    }
    Ok(())
}

fn at_rest(process: Process) -> anyhow::Result<u64> {
    process.cpu_at_rest()?;
    process.proportional_bytes()
}

/// The ids that the upstream told the connections, in the order of their arrival.
struct Arrivals {
    ids: Vec<String>,
    bar: ProgressBar,
}

impl Handler for Arrivals {
    fn message(&mut self, _member: usize, head: &[u8], _now: u64) -> anyhow::Result<()> {
        self.ids.push(str::from_utf8(head).context("a connection id is not text")?.to_owned());
        Ok(())
    }

    fn opened(&mut self, _member: usize, _waited: u64) {
        self.bar.inc(1);
    }
}

impl Display for IdleOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let by = match self.identity {
            Identity::Upstream => "an upstream's answer",
            Identity::Token => "a token",
        };
        writeln!(f, "idle connections, each with a user by {by} and {} group(s)", self.groups)?;
        let mut table =
            Table::new(["connections", "proportional set MiB", "bytes for each further one"]);
        for (at, look) in self.looks.iter().enumerate() {
            let slope = at.checked_sub(1).map(|before| look.slope_since(self.looks[before]));
            table.row([
                look.connections.to_string(),
                hundredths(per(look.proportional_bytes, 1024 * 1024)),
                whole(slope),
            ]);
        }
        write!(f, "{table}")?;
        write!(
            f,
            "  {} bytes per connection by the slope from {} on, at most {}",
            whole(self.bytes_per_connection),
            self.looks[1].connections,
            whole(self.bytes_per_connection_max)
        )?;
        if let Some(kept) = self.kept_bytes_per_connection {
            write!(
                f,
                "; {} of them are what each event must repeat (query, claims, addresses)",
                whole(kept)
            )?;
        }
        writeln!(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slope_is_the_growth_for_each_connection() {
        let look = |connections, proportional_bytes| Look { connections, proportional_bytes };
        assert!((look(18_000, 7_400_000).slope_since(look(2_000, 1_000_000)) - 400.0).abs() < 1e-9);
        assert!((look(20, 0).slope_since(look(10, 100)) + 10.0).abs() < 1e-9, "memory given back");
    }
}
