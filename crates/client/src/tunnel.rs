//! The upstream's end of the tunnel: events come through a connection that this side opens (Web PubSub protocol, "Tunnel").

mod line;
mod local;
mod message;

use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use hookwire_proto::connection_string::ConnectionString;
use hookwire_proto::name::HubName;
use hookwire_proto::token::NewToken;
use hookwire_proto::tunnel::{PATH, Redirection};
use serde_json::Map;
use tokio::sync::mpsc;
use url::Url;

pub use self::local::LocalUpstream;
pub use self::message::{TunnelRequest, TunnelResponse};
use crate::client::ConnectError;
use crate::client::dial::{Dialer, random};
use crate::setup;
use crate::trust::Trust;

/// Connections of one tunnel that a service may ask for. More are not opened.
const CONNECTIONS_MAX: usize = 16;

/// How long a token opens a connection.
const TOKEN_LIFETIME: Duration = Duration::from_hours(1);

/// One hub of a service, as an upstream that connects to it: events for `tunnel:///…` come through the connection, so nothing needs to be
/// reachable from outside.
///
/// ```no_run
/// use hookwire_client::{ConnectionString, HubName, LocalUpstream, Trust, TunnelClient, TunnelOptions};
///
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// let service = ConnectionString::parse("Endpoint=https://service.example;AccessKey=secret;Version=1.0;")?;
/// let tunnel = TunnelClient::new(service, HubName::parse("chat")?, TunnelOptions::default())?;
/// let functions = LocalUpstream::new("http://localhost:7071".parse()?, &Trust::default())?;
/// let forward = |request| functions.forward(request);
/// tunnel.run(forward, |event| println!("{event:?}"), std::future::pending()).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TunnelClient {
    connection: ConnectionString,
    hub: HubName,
    options: TunnelOptions,
    dialer: Dialer,
    /// Who this run is, for the service's log.
    user: String,
}

/// How a [`TunnelClient`] behaves.
#[derive(Clone, Debug)]
pub struct TunnelOptions {
    /// Longest time until a connection is open and greeted. Default: 10 s.
    pub connect_timeout: Duration,
    /// The first pause before another attempt; doubled after each failure. Default: 1 s.
    pub delay_min: Duration,
    /// The longest pause. Default: 30 s.
    pub delay_max: Duration,
    /// After this long without a word from the service it is pinged; after twice as long the connection counts as lost. Default: 20 s.
    pub ping_interval: Duration,
    /// Whom to believe behind `https://`. Default: the public authorities.
    pub trust: Trust,
}

impl Default for TunnelOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            delay_min: Duration::from_secs(1),
            delay_max: Duration::from_secs(30),
            ping_interval: Duration::from_secs(20),
            trust: Trust::default(),
        }
    }
}

/// What becomes of the connections of a tunnel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TunnelEvent {
    /// A connection is open: events may come.
    Connected {
        /// Its id at the service.
        connection_id: String,
    },
    /// A connection is lost, or could not be opened.
    Disconnected {
        /// Why, in one line.
        reason: String,
        /// How long until the next attempt.
        retry_in: Duration,
    },
    /// The service says something.
    Status {
        /// What it says.
        message: String,
    },
}

/// Why a tunnel ended.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// The service will not have it, now or later.
    #[error("the tunnel cannot be opened")]
    Connect(#[from] ConnectError),
    /// The service closed it for good.
    #[error("the service closed the tunnel: {message}")]
    Closed {
        /// What it says.
        message: String,
    },
}

/// Where a connection goes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Goal {
    endpoint: Url,
    target: Option<String>,
}

impl TunnelClient {
    /// Prepares; opens nothing.
    ///
    /// # Errors
    /// [`ConnectError::Tls`], or [`ConnectError::Unreachable`] when the system has no random bytes.
    pub fn new(
        connection: ConnectionString,
        hub: HubName,
        options: TunnelOptions,
    ) -> Result<Self, ConnectError> {
        let dialer = Dialer::new(None, options.connect_timeout, &options.trust)?;
        let user = random::<16>().map(u128::from_be_bytes);
        let user = user.map_err(|error| ConnectError::Unreachable(std::sync::Arc::new(error)))?;
        Ok(Self { connection, hub, options, dialer, user: format!("{user:032x}") })
    }

    /// Opens the tunnel and answers its requests by `handler` until `stop` is ready or the service will have no tunnel any more. A
    /// connection that is lost is opened again. Requests are handled side by side; up to 1,024 are under way, then no more are read.
    /// What a handler has begun goes on when its connection ends, for 10 s at most when no other is opened, though its answer is lost.
    /// Dropping the future, or `stop`, closes the tunnel at once.
    ///
    /// # Errors
    /// [`TunnelError`].
    pub async fn run<Handler, Answer>(
        &self,
        handler: Handler,
        tell: impl Fn(TunnelEvent) + Sync,
        stop: impl Future<Output = ()>,
    ) -> Result<(), TunnelError>
    where
        Handler: Fn(TunnelRequest) -> Answer + Sync,
        Answer: Future<Output = TunnelResponse> + Send,
    {
        let (more, mut wanted) = mpsc::channel(CONNECTIONS_MAX);
        let line = |goal: Goal| {
            let line =
                line::Line { client: self, handler: &handler, tell: &tell, more: more.clone() };
            Box::pin(line.run(goal))
        };
        let mut lines = FuturesUnordered::new();
        lines.push(line(self.home()));
        let mut stop = pin!(stop);
        loop {
            tokio::select! {
                biased;
                () = &mut stop => return Ok(()),
                Some(ended) = lines.next() => {
                    let is_closed = matches!(ended, TunnelError::Closed { .. });
                    // Another connection of this tunnel may still stand.
                    if !is_closed || lines.is_empty() {
                        return Err(ended);
                    }
                }
                Some(goal) = wanted.recv() => if lines.len() < CONNECTIONS_MAX {
                    lines.push(line(goal));
                },
            }
        }
    }

    /// Returns the endpoint of the connection string.
    fn home(&self) -> Goal {
        Goal { endpoint: self.connection.endpoint().clone(), target: None }
    }

    /// Returns where the service sends a connection. Nothing leads from TLS to a connection without it.
    fn redirected(&self, to: &Redirection) -> Goal {
        let home = self.home();
        let endpoint = to.endpoint.as_deref().and_then(|endpoint| Url::parse(endpoint).ok());
        let is_secure = |url: &Url| matches!(url.scheme(), "https" | "wss");
        let endpoint = endpoint
            .filter(|endpoint| matches!(endpoint.scheme(), "http" | "https" | "ws" | "wss"))
            .filter(|endpoint| is_secure(endpoint) || !is_secure(&home.endpoint));
        let target = to.target_id.clone().filter(|target| !target.is_empty());
        Goal { endpoint: endpoint.unwrap_or(home.endpoint), target }
    }

    /// Returns the URL of a new connection, a token in it.
    fn url(&self, goal: &Goal) -> Url {
        let mut url = goal.endpoint.clone();
        let scheme = if matches!(url.scheme(), "http" | "ws") { "ws" } else { "wss" };
        // All four may become each other (URL standard, special schemes).
        let _ = url.set_scheme(scheme);
        url.set_path(&format!("{}{PATH}", goal.endpoint.path().trim_end_matches('/')));
        url.query_pairs_mut().append_pair("hub", self.hub.as_str());
        if let Some(target) = &goal.target {
            url.query_pairs_mut().append_pair("target", target);
        }
        let token = NewToken {
            audience: url.as_str(),
            issued_at: setup::now(),
            lifetime: TOKEN_LIFETIME,
            user: Some(&self.user),
            claims: Map::new(),
        };
        let token = token.sign(self.connection.access_key());
        url.query_pairs_mut().append_pair("access_token", &token);
        url
    }
}

/// One future among others.
type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    fn client(endpoint: &str) -> TunnelClient {
        let line = format!("Endpoint={endpoint};AccessKey=secret;Version=1.0;");
        let connection = ConnectionString::parse(&line).unwrap();
        let hub = HubName::parse("chat").unwrap();
        TunnelClient::new(connection, hub, TunnelOptions::default()).unwrap()
    }

    fn to(endpoint: Option<&str>, target: Option<&str>) -> Redirection {
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Redirection { endpoint: owned(endpoint), target_id: owned(target), message: None }
    }

    #[test]
    fn the_token_names_the_whole_url_before_it() {
        for (endpoint, redirection, expected) in [
            ("http://localhost", to(None, None), "ws://localhost/server/tunnel?hub=chat"),
            ("https://h.example", to(Some(""), Some("")), "wss://h.example/server/tunnel?hub=chat"),
            (
                "https://h.example",
                to(Some("https://other.example:81/a/?b=c"), Some("t&1")),
                "wss://other.example:81/a/server/tunnel?b=c&hub=chat&target=t%261",
            ),
            (
                "https://h.example",
                to(Some("http://other.example"), Some("t")),
                "wss://h.example/server/tunnel?hub=chat&target=t",
            ),
        ] {
            let client = client(endpoint);
            let url = client.url(&client.redirected(&redirection));
            let (before, token) = url.as_str().split_once("&access_token=").unwrap();
            assert_eq!(before, expected);
            let claims = token.split('.').nth(1).unwrap();
            let claims = URL_SAFE_NO_PAD.decode(claims).unwrap();
            let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
            assert_eq!(claims["aud"], expected);
            assert_eq!(claims["sub"].as_str().unwrap().len(), 32);
        }
    }
}
