//! The tunnel: an upstream that cannot be reached opens a WebSocket to the service, gets its events over it and makes REST calls (Web
//! PubSub protocol, "Tunnel").
//!
//! A tunnel is no member of its hub: it lives on the runtime, a task each (`link`). What others see of it is its [`Line`]: the requests
//! that wait to be written and those that wait for their answer. An event goes to the tunnel of its hub that has least to answer.

mod calls;
mod door;
mod link;
mod rest;
mod socket;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use hookwire_proto::name::HubName;
use hookwire_proto::tunnel::HttpRequest;
use http::Response;
use http_body_util::Full;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::calls::{Line, Sent};
pub(crate) use self::door::connect;

/// Tunnels of one hub. One more is refused with 429.
pub(crate) const TUNNELS_PER_HUB_MAX: usize = 64;

/// Tunnels of all hubs. One more is refused with 429.
const TUNNELS_MAX: usize = 1_024;

/// All tunnels of the node. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tunnels(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    table: Mutex<Table>,
    /// Where the search for the least busy tunnel begins, so that equals take turns.
    turn: AtomicUsize,
    /// Cancelled when all tunnels shall end.
    end: CancellationToken,
    tasks: TaskTracker,
}

#[derive(Debug, Default)]
struct Table {
    hubs: HashMap<HubName, OfHub>,
    places: usize,
}

/// The tunnels of one hub.
#[derive(Debug, Default)]
struct OfHub {
    /// Those that are open.
    lines: Vec<Arc<Line>>,
    /// Those and the ones that are about to be.
    places: usize,
}

/// A tunnel's place; free again when this is dropped.
#[derive(Debug)]
struct Place {
    tunnels: Tunnels,
    hub: HubName,
    line: Option<Arc<Line>>,
}

/// Why a request got no answer through a tunnel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The hub has no tunnel. Nothing was sent.
    NoTunnel,
    /// All tunnels of the hub have as much to do as they may. Nothing was sent.
    Overloaded,
    /// The tunnel ended before the request was written. Nothing was sent.
    Unsent,
    /// The request does not fit into a frame. Nothing was sent.
    TooLong,
    /// The tunnel was lost before the answer was complete.
    Lost,
    /// The answer is longer than it may be.
    TooLarge,
    /// The answer has no status, or headers that HTTP does not know.
    Malformed,
}

impl Fault {
    /// Returns the fault as it is counted.
    const fn result(self) -> &'static str {
        match self {
            Self::NoTunnel => "no_tunnel",
            Self::Overloaded => "overloaded",
            Self::Unsent => "unsent",
            Self::TooLong => "too_long",
            Self::Lost => "lost",
            Self::TooLarge | Self::Malformed => "malformed",
        }
    }
}

impl Tunnels {
    /// Sends a request through a tunnel of the hub: returns its answer, and what is ready when the request was fully written. Dropping
    /// the first gives the request up.
    pub(crate) fn send(
        &self,
        hub: &HubName,
        request: &HttpRequest,
    ) -> (
        impl Future<Output = Result<Response<Full<Bytes>>, Fault>> + Send + use<>,
        impl Future<Output = ()> + Send + use<>,
    ) {
        let (sent, written) = match self.put(hub, request) {
            Ok(Sent { answer, written }) => (Ok(answer), Some(written)),
            Err(fault) => {
                count(EVENTS, fault.result());
                (Err(fault), None)
            }
        };
        let answer = async { sent?.wait().await };
        let written = async {
            let was_written = match written {
                Some(written) => written.await.is_ok(),
                None => false,
            };
            // What is dropped unwritten never will be.
            if !was_written {
                pending::<()>().await;
            }
        };
        (answer, written)
    }

    /// Tells every tunnel to go elsewhere, closes it and returns when all have ended. Cancel-safe.
    pub(crate) async fn finish(&self) {
        self.0.end.cancel();
        self.0.tasks.close();
        self.0.tasks.wait().await;
    }

    /// Puts a request in the queue of the least busy tunnel that takes it.
    fn put(&self, hub: &HubName, request: &HttpRequest) -> Result<Sent, Fault> {
        let mut fault = Fault::NoTunnel;
        for line in self.lines(hub) {
            match line.send(request.clone()) {
                Err(refused @ (Fault::Overloaded | Fault::Unsent)) => fault = refused,
                sent => return sent,
            }
        }
        Err(fault)
    }

    /// Returns the open tunnels of the hub, those with the fewest requests under way first.
    fn lines(&self, hub: &HubName) -> Vec<Arc<Line>> {
        let table = self.table();
        let lines = table.hubs.get(hub).map(|hub| hub.lines.as_slice()).unwrap_or_default();
        let turn = self.0.turn.fetch_add(1, Ordering::Relaxed) % lines.len().max(1);
        let (before, after) = lines.split_at(turn);
        let open = after.iter().chain(before).filter_map(|line| Some((line.load()?, line)));
        let mut open: Vec<_> = open.collect();
        open.sort_by_key(|(load, _)| *load);
        open.into_iter().map(|(_, line)| line.clone()).collect()
    }

    /// Returns a place for a tunnel, or `None` when there is none.
    fn reserve(&self, hub: HubName) -> Option<Place> {
        let mut table = self.table();
        let of_hub = table.hubs.get(&hub).map_or(0, |hub| hub.places);
        if TUNNELS_MAX <= table.places || TUNNELS_PER_HUB_MAX <= of_hub {
            return None;
        }
        table.places += 1;
        table.hubs.entry(hub.clone()).or_default().places += 1;
        Some(Place { tunnels: self.clone(), hub, line: None })
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().expect("nothing panics while it holds the table")
    }
}

impl Place {
    /// Opens the tunnel: from now on it gets events. Returns how many its hub has.
    fn open(&mut self, line: Arc<Line>) -> usize {
        self.line = Some(line.clone());
        metrics::gauge!("hookwire_tunnels").increment(1.0);
        let mut table = self.tunnels.table();
        let lines = &mut table.hubs.entry(self.hub.clone()).or_default().lines;
        lines.push(line);
        lines.len()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.tunnels.table();
        table.places -= 1;
        if let Some(hub) = table.hubs.get_mut(&self.hub) {
            hub.places -= 1;
            if let Some(line) = &self.line {
                hub.lines.retain(|other| !Arc::ptr_eq(other, line));
                metrics::gauge!("hookwire_tunnels").decrement(1.0);
            }
            if hub.places == 0 {
                table.hubs.remove(&self.hub);
            }
        }
    }
}

/// Requests of the service.
const EVENTS: &str = "event";

/// Requests of the upstream.
const REST: &str = "rest";

fn count(kind: &'static str, result: &'static str) {
    metrics::counter!("hookwire_tunnel_requests_total", "kind" => kind, "result" => result)
        .increment(1);
}

/// Returns a status as it is counted.
const fn status_class(status: u16) -> &'static str {
    match status {
        ..200 => "1xx",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        500.. => "5xx",
    }
}
