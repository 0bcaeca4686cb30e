//! What is loaded: the service in one of its dialects, or another server, and how one publishes there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use hookwire_client::ClientAccess;
use url::{Position, Url};

use super::super::child::Run;
use super::super::form::Wire;
use super::super::meter::Meter;
use super::super::process::{OTHER_FILES, Used, allow_open_files};
use super::super::publisher::Publisher;
use super::super::swarm::{Door, Entrance, Opening, Ready, Swarm};
use super::super::target::{RUNNING, Target, TargetArguments, locate, random};
use super::super::wire::Upgrade;
use super::audience::{Audience, To};

/// Handshakes under way at once.
const HANDSHAKES_IN_FLIGHT: usize = 64;

/// Stands for the payload in the body of a call.
const PLACE: char = '@';

/// Most bytes of messages that a server joined. What lies behind them is not seen, and counts as missing.
const JOINED_BYTES_MAX: usize = 16 << 20;

/// How long the tokens of the calls are good for.
const TOKEN_LIFETIME: Duration = Duration::from_hours(24);

/// Another server that is measured.
#[derive(Debug, clap::Args)]
pub(super) struct OtherArguments {
    /// Measure another WebSocket server, which runs already: `ws://…`
    #[arg(long, group = RUNNING, requires = "publish_url", conflicts_with_all = ["wire", "to"])]
    url: Option<Url>,
    /// Where that server takes messages for all its clients, by POST: `http://…`
    #[arg(long, requires = "url")]
    publish_url: Option<Url>,
    /// The body of these calls; @ stands for the payload, which is printable ASCII without quotes
    #[arg(long, requires = "url", default_value_t = PLACE.to_string(), value_name = "TEXT")]
    publish_body: String,
    /// What each client says first; | separates messages
    #[arg(long, requires = "url", value_name = "TEXT")]
    hello: Option<String>,
    /// A client is ready when a message came in whose first bytes this stands [default: as soon as it is connected]
    #[arg(long, requires = "url", value_name = "TEXT")]
    ready: Option<String>,
    /// That server may put several messages into one of WebSocket: all of it is searched for them
    #[arg(long, requires = "url")]
    joined: bool,
}

impl OtherArguments {
    /// Returns whether one message of WebSocket may hold several.
    pub(super) const fn joined(&self) -> bool {
        self.joined
    }
}

/// Whoever is measured, ready for clients.
pub(super) struct Stage {
    server: Server,
    pub(super) door: Door,
    /// One for each client.
    pub(super) openings: Vec<Opening>,
    address: SocketAddr,
    authority: String,
    /// One for each target.
    calls: Vec<Call>,
    /// What stands before and behind the payload in a call's body.
    pub(super) around_payload: [String; 2],
}

enum Server {
    /// Ends with this value.
    Ours(Box<Target>),
    Other(Option<Meter>),
}

/// A call of an API that publishes its body.
pub(super) struct Call {
    pub(super) path: String,
    pub(super) token: Option<String>,
}

impl Stage {
    /// Sets our service up. `connections` of this process will be open at once.
    pub(super) fn of_service(
        arguments: &TargetArguments,
        connections: usize,
        run: Run<'_>,
        wire: Wire,
        to: To,
        audience: &Audience,
    ) -> anyhow::Result<Self> {
        let target = arguments.open(connections, run)?;
        // Simple clients of the preview's door have no groups in their tokens.
        let is_preview = wire == Wire::Simple && to == To::Hub;
        let user = |client: usize| format!("user-{client}");
        let openings = if is_preview {
            (0..audience.clients).map(|client| target.opening(&user(client))).collect()
        } else {
            let entrances: Vec<_> =
                wire.forms().iter().map(|form| target.entrance(*form)).collect();
            let targets = audience.targets_of_clients();
            let openings = targets.iter().enumerate().map(|(client, targets)| {
                let mut access = ClientAccess::new().user(user(client));
                if matches!(to, To::Group | To::Groups) {
                    access =
                        targets.iter().fold(access, |access, target| access.group(group(*target)));
                }
                target.opening_as(&access, entrances[client % entrances.len()].clone())
            });
            openings.collect::<anyhow::Result<Vec<_>>>()
        }?;
        let calls = if is_preview {
            let path = format!("/ws/api/v1/hubs/{}/", target.service().hub());
            let token = target.service().rest_token(&path, TOKEN_LIFETIME);
            vec![Call { path, token: Some(token) }]
        } else {
            let service = target.web_pubsub();
            let base = format!("/api/hubs/{}", service.hub());
            let calls = (0..audience.targets).map(|target| {
                let whom = match to {
                    To::Hub => String::new(),
                    To::Group | To::Groups => format!("/groups/{}", group(target)),
                    To::Users => format!("/users/{}", user(target)),
                };
                let path = format!("{base}{whom}/:send?api-version=2024-12-01");
                let token = service.rest_token(&path, TOKEN_LIFETIME);
                Call { path, token: Some(token) }
            });
            calls.collect()
        };
        let door = target.door(HANDSHAKES_IN_FLIGHT);
        let (address, authority) = target.address();
        Ok(Self {
            door,
            openings,
            address,
            authority: authority.to_owned(),
            calls,
            around_payload: Default::default(),
            server: Server::Ours(Box::new(target)),
        })
    }

    /// Returns another server with so many clients if one is named. `connections` of this process will be open at once.
    pub(super) fn of_other(
        other: &OtherArguments,
        arguments: &TargetArguments,
        connections: usize,
        clients: usize,
    ) -> anyhow::Result<Option<Self>> {
        let Some((url, publish_url)) = other.url.as_ref().zip(other.publish_url.as_ref()) else {
            return Ok(None);
        };
        allow_open_files(connections as u64 + OTHER_FILES)?;
        let (before, behind) = other
            .publish_body
            .split_once(PLACE)
            .with_context(|| format!("the body has no {PLACE} where the payload stands"))?;
        let (address, authority) = locate(url, arguments.allow_remote())?;
        let door = Door { address, tls: None, in_flight: HANDSHAKES_IN_FLIGHT };
        let upgrade = Upgrade::new(random()?, false);
        let request = upgrade.request(&authority, &url[Position::BeforePath..Position::AfterQuery]);
        let texts = other.hello.iter().flat_map(|hello| hello.split('|'));
        let ready = other.ready.clone().map_or(Ready::Upgraded, Ready::Told);
        let mut entrance = Entrance::saying(upgrade, texts, ready);
        if other.joined {
            entrance.head_bytes = JOINED_BYTES_MAX;
        }
        let entrance = Arc::new(entrance);
        let opening = Opening { request, entrance: Some(entrance) };
        let (address, authority) = locate(publish_url, arguments.allow_remote())?;
        let path = publish_url[Position::BeforePath..Position::AfterQuery].to_owned();
        Ok(Some(Self {
            server: Server::Other(arguments.process().map(Meter::Cpu)),
            door,
            openings: vec![opening; clients],
            address,
            authority,
            calls: vec![Call { path, token: None }],
            around_payload: [before.to_owned(), behind.to_owned()],
        }))
    }

    /// Returns the core that the service has for itself.
    pub(super) const fn core(&self) -> Option<usize> {
        match &self.server {
            Server::Ours(target) => target.core,
            Server::Other(_) => None,
        }
    }

    /// Returns what the server has used so far, once it is at rest, if its process is known.
    pub(super) fn used_at_rest(&self) -> anyhow::Result<Option<Used>> {
        match &self.server {
            Server::Ours(target) => target.used_at_rest(),
            Server::Other(meter) => meter.as_ref().map(Meter::used_at_rest).transpose(),
        }
    }

    /// Returns the call that publishes to a target.
    pub(super) fn call(&self, target: usize) -> &Call {
        &self.calls[target]
    }

    /// Returns who makes the calls, as the guest of `swarm`.
    pub(super) fn publisher(&self, swarm: &Swarm) -> anyhow::Result<Publisher> {
        Publisher::connect(self.address, &self.authority, swarm.registry())
    }
}

/// Returns the name of a group; short, since a token may have many.
fn group(target: impl std::fmt::Display) -> String {
    format!("g{target}")
}
