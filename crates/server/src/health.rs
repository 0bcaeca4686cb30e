//! Whether the process lives, and whether it should get clients: for orchestrators and load balancers.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::StatusCode;

use crate::api_error::Answer;
use crate::http::text;
use crate::metrics::ShardStats;

/// A shard that has finished no turn for this long does not serve its clients; one turns every half second at least.
const TURN_AGE_MAX: Duration = Duration::from_secs(5);

/// Why a node should get no clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unready {
    ShuttingDown,
    Starting,
    Stalled,
}

impl Unready {
    const fn as_str(self) -> &'static str {
        match self {
            Self::ShuttingDown => "shutting down",
            Self::Starting => "starting",
            Self::Stalled => "stalled",
        }
    }
}

/// Answers whether the process is alive: it is, since it answers.
pub(crate) fn live() -> Answer {
    told(StatusCode::OK, "live")
}

/// Answers whether clients and calls should be sent here. Cost: one read per shard.
pub(crate) fn ready(leaving: &AtomicBool, shards: &[Arc<ShardStats>]) -> Answer {
    let turn_ages = shards.iter().map(|stats| stats.turn_age());
    match judge(leaving.load(Ordering::Relaxed), turn_ages) {
        Ok(()) => told(StatusCode::OK, "ready"),
        Err(reason) => told(StatusCode::SERVICE_UNAVAILABLE, reason.as_str()),
    }
}

/// Judges by how long ago each shard finished a turn; `None`: it never has.
fn judge(
    is_leaving: bool,
    turn_ages: impl IntoIterator<Item = Option<Duration>>,
) -> Result<(), Unready> {
    if is_leaving {
        return Err(Unready::ShuttingDown);
    }
    for age in turn_ages {
        match age {
            None => return Err(Unready::Starting),
            Some(age) if TURN_AGE_MAX < age => return Err(Unready::Stalled),
            Some(_) => {}
        }
    }
    Ok(())
}

fn told(status: StatusCode, state: &str) -> Answer {
    text(status, "application/json", serde_json::json!({ "status": state }).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_ready_while_every_shard_turns_and_nobody_ends_it() {
        let fresh = Some(Duration::from_millis(400));
        for (is_leaving, ages, expected) in [
            (false, [fresh, Some(TURN_AGE_MAX)], Ok(())),
            (false, [fresh, None], Err(Unready::Starting)),
            (false, [Some(TURN_AGE_MAX + Duration::from_millis(1)), fresh], Err(Unready::Stalled)),
            (true, [fresh, fresh], Err(Unready::ShuttingDown)),
            (true, [None, None], Err(Unready::ShuttingDown)),
        ] {
            assert_eq!(judge(is_leaving, ages), expected, "{is_leaving} {ages:?}");
        }
    }
}
