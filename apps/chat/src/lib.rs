//! The chat room: functions that Hookwire calls, a page, and history on object storage.
//!
//! It is an ordinary upstream: it sees Hookwire's webhooks and its REST API and nothing else of it. It holds no connections and no
//! state; what it knows lies in its storage or in Hookwire, so several of it may run side by side.
//!
//! ```text
//! browser ──► Hookwire ──► functions ──► chat ──► store ──► a folder or a bucket
//!    ▲                                    │
//!    └─────── Hookwire ◄── deliveries ◄───┘
//! ```
//!
//! ```no_run
//! use hookwire_chat::{ChatConfig, DEFAULT_PORT, Storage, serve};
//! use hookwire_client::{ConnectionString, HubName};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let connection_string = ConnectionString::parse("Endpoint=http://127.0.0.1;Port=8080;AccessKey=…;Version=1.0;")?;
//! let storage = Storage::folder("chat-data");
//! let config = ChatConfig::new(connection_string, HubName::parse("chat")?, storage);
//! let running = serve(config, tokio::net::TcpListener::bind(("127.0.0.1", DEFAULT_PORT)).await?).await?;
//! println!("http://{}/", running.address());
//! running.shutdown().await;
//! # Ok(())
//! # }
//! ```

mod attachments;
mod chat;
mod deliveries;
mod dialect;
mod functions;
mod invocation;
mod name;
mod refusal;
mod server;
mod storage;
mod store;
mod wire;

use std::env::VarError;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use hookwire_client::{
    ConnectionString, ConnectionStringError, HubName, ServiceOptions, SetupError, Trust,
};
use hookwire_pages::{Page, Pages};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use url::Url;

pub use self::attachments::ATTACHMENT_BYTES_MAX;
use self::attachments::{Attachments, Tickets};
use self::chat::Chat;
pub use self::dialect::Dialect;
use self::dialect::Hub;
use self::functions::{Functions, MESSAGES_HANDLED_MAX};
pub use self::storage::{AzureAccountError, OpenError, Storage, StorageError};
use self::store::Random;

/// How the chat room is set up.
#[derive(Clone, Debug)]
pub struct ChatConfig {
    /// The service that calls the functions, and its key.
    pub connection_string: ConnectionString,
    /// How the service and the functions speak with each other. Default: [`Dialect::Preview`].
    pub dialect: Dialect,
    /// The hub that is the chat. Events of other hubs are refused.
    pub hub: HubName,
    /// Where the history is kept. Several instances may share it.
    pub storage: Storage,
    /// By which address browsers reach the service, if it is not the one of the connection string.
    pub public_endpoint: Option<Url>,
    /// Whether calls must carry the signature of the service. Default: true.
    pub verify_signature: bool,
    /// Whether the URL that a page gets always carries a token. Default: `None`, which means in Web PubSub, where hubs let nobody in
    /// without one unless they are told to, and in the preview only if the page asks.
    pub always_with_token: Option<bool>,
    /// Largest attachment of a message, in bytes. Default: 10 MiB.
    pub attachment_bytes_max: u64,
    /// Whom to believe that the service is who it says it is. Default: the public authorities.
    pub trust: Trust,
    /// Has functions and page speak TLS, and nothing else. Default: `None`.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    /// Whether the functions can also be invoked by their names with a whole request as payload, which may have any header. Only for the
    /// host of Azure Functions, behind which nobody else reaches them. Default: false.
    pub takes_invocations: bool,
}

impl ChatConfig {
    /// Returns a set-up with the defaults.
    pub fn new(connection_string: ConnectionString, hub: HubName, storage: Storage) -> Self {
        Self {
            connection_string,
            dialect: Dialect::default(),
            hub,
            storage,
            public_endpoint: None,
            verify_signature: true,
            always_with_token: None,
            attachment_bytes_max: ATTACHMENT_BYTES_MAX,
            trust: Trust::default(),
            tls: None,
            takes_invocations: false,
        }
    }
}

/// A chat room that is being served.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    serving: JoinHandle<()>,
    functions: Arc<Functions>,
}

/// Serves the functions and the page on `listener` until [`Running::shutdown`].
///
/// # Errors
/// [`ServeError`] when the set-up cannot work. The service need not be reachable yet.
///
/// # Panics
/// When the system that gave randomness at the start gives none later.
pub async fn serve(config: ChatConfig, listener: TcpListener) -> Result<Running, ServeError> {
    let ChatConfig {
        connection_string, dialect, hub, storage, public_endpoint, trust, tls, ..
    } = config;
    let address = listener.local_addr().map_err(|source| ServeError::Listener { source })?;
    let public = match public_endpoint {
        Some(endpoint) => ConnectionString::new(endpoint, connection_string.access_key().clone())?,
        None => connection_string.clone(),
    };
    let tickets = Tickets::new(connection_string.access_key());
    let attachments = Attachments::new(tickets, config.attachment_bytes_max);
    let options =
        ServiceOptions { call_timeout: SERVICE_CALL_MAX, trust, ..ServiceOptions::default() };
    let hub = |connection| Hub::new(dialect, connection, hub.clone(), options.clone());
    let (hub, public) = (hub(connection_string)?, hub(public)?);
    let objects = storage.open().await?;
    // Asked once here, so that a system without randomness is an error and no panic later.
    getrandom::u64().map_err(|source| ServeError::Randomness { source })?;
    let random = Random::new(|| getrandom::u64().expect("randomness was there at the start"));
    let functions = Arc::new(Functions {
        chat: Chat::new(objects, hub.clone(), attachments, &random),
        pages: Pages::new(Page::Chat, std::slice::from_ref(public.endpoint())),
        hub,
        public,
        verify_signature: config.verify_signature,
        always_with_token: config.always_with_token.unwrap_or(dialect == Dialect::WebPubSub),
        handling: Semaphore::new(MESSAGES_HANDLED_MAX),
    });
    let stop = CancellationToken::new();
    let mut router = functions::router(Arc::clone(&functions));
    if config.takes_invocations {
        router = invocation::router(router);
    }
    let serving =
        tokio::spawn(server::serve(listener, tls.map(TlsAcceptor::from), router, stop.clone()));
    tracing::info!(%address, "the chat is served");
    Ok(Running { address, stop, serving, functions })
}

impl Running {
    /// Returns where the functions are.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Accepts no more, finishes requests, stores what was begun, delivers what was stored. Each of the last three has a time limit, 45
    /// s in all; what is not done by then is given up and logged.
    pub async fn shutdown(self) {
        self.stop.cancel();
        if let Err(error) = self.serving.await {
            tracing::error!(%error, "the server ended badly");
        }
        self.functions.chat.close().await;
        tracing::info!("the chat is shut down");
    }
}

/// Why a chat room cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The listener has no address.
    #[error("cannot use the listener")]
    Listener {
        /// Why.
        source: std::io::Error,
    },
    /// The public endpoint is none that clients can use.
    #[error("cannot use the public endpoint")]
    PublicEndpoint(#[from] ConnectionStringError),
    /// The service cannot be called.
    #[error("cannot call the service")]
    Service(#[from] SetupError),
    /// The storage cannot be used.
    #[error(transparent)]
    Storage(#[from] OpenError),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    Randomness {
        /// Why.
        source: getrandom::Error,
    },
}

/// Returns where to listen: at `address`, but on the port that the environment variable `FUNCTIONS_CUSTOMHANDLER_PORT` names when it is
/// set, as Azure Functions does for a custom handler.
///
/// # Errors
/// [`PortError`] when the variable holds no port.
pub fn listen_address(address: SocketAddr) -> Result<SocketAddr, PortError> {
    listen_address_from(address, std::env::var(PORT_VARIABLE))
}

/// Returns whether the host of Azure Functions started this process as its custom handler.
pub fn is_custom_handler() -> bool {
    std::env::var_os(PORT_VARIABLE).is_some()
}

fn listen_address_from(
    mut address: SocketAddr,
    port: Result<String, VarError>,
) -> Result<SocketAddr, PortError> {
    match port {
        Ok(port) => address.set_port(port.parse().map_err(|_| PortError)?),
        Err(VarError::NotPresent) => {}
        Err(VarError::NotUnicode(_)) => return Err(PortError),
    }
    Ok(address)
}

/// The environment variable of the port holds something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the environment variable {PORT_VARIABLE} is not a port")]
pub struct PortError;

/// The port of the functions unless another one is named.
pub const DEFAULT_PORT: u16 = 7071;

const PORT_VARIABLE: &str = "FUNCTIONS_CUSTOMHANDLER_PORT";

/// Longest time of one call of the service.
const SERVICE_CALL_MAX: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_platform_may_name_the_port() {
        let address = SocketAddr::from(([127, 0, 0, 1], DEFAULT_PORT));
        let listen = |port| listen_address_from(address, port);
        assert_eq!(listen(Err(VarError::NotPresent)), Ok(address));
        assert_eq!(listen(Ok("4321".into())), Ok(SocketAddr::from(([127, 0, 0, 1], 4321))));
        for wrong in ["", "x", "65536", "-1"] {
            assert_eq!(listen(Ok(wrong.into())), Err(PortError), "{wrong}");
        }
    }
}
