//! Client of Hookwire, for applications that are plain HTTP functions and for the clients that talk to them.
//!
//! It speaks two dialects. That of Azure Web PubSub:
//!
//! | | |
//! |---|---|
//! | [`ServiceClient`] | the REST API: sends, groups, permissions, lists, URLs for clients |
//! | [`webhook`] | the events that the service posts, and their answers |
//! | [`Client`] | a WebSocket client of the four subprotocols, which recovers its connection |
//! | [`TunnelClient`] | events through a connection that the application opens, for upstreams that cannot be reached |
//!
//! ```no_run
//! use hookwire_client::{Client, ClientAccess, Permission, ServiceClient};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! // Reads WebPubSubConnectionString and WebPubSubHub.
//! let service = ServiceClient::from_env()?;
//! service.send_to_all("hello, everyone").await?;
//!
//! let ann = ClientAccess::new().user("ann").may(Permission::JoinLeaveGroup);
//! let (client, mut events) = Client::connect(service.client_access(&ann)?).await?;
//! client.join_group("readers").await?;
//! service.send_to_group("readers", "news").await?;
//! println!("{:?}", events.next().await);
//! # Ok(())
//! # }
//! ```
//!
//! And that of the 2020 preview of Azure's serverless `WebSocket` service: [`Service`] for its REST API, [`Event`] for what it posts.
//!
//! ```
//! use hookwire_client::{EventName, Service};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let service = Service::new("Endpoint=http://localhost;Port=8080;AccessKey=secret;Version=1.0;", "chat")?;
//!
//! let mut headers = http::HeaderMap::new();
//! headers.insert("x-asrs-connection-id", "connection-1".parse()?);
//! headers.insert("x-asrs-hub", "chat".parse()?);
//! headers.insert("x-asrs-event", "connect".parse()?);
//! headers.insert("x-asrs-client-query", "name=ann".parse()?);
//! # let key = hookwire_client::AccessKey::parse_of_any_strength("secret")?;
//! # headers.insert("x-asrs-signature", hookwire_client::sign(&[key], "connection-1").parse()?);
//! // … and x-asrs-signature, which `Service::event` checks.
//!
//! let event = service.event(&headers)?;
//! assert_eq!(event.event, EventName::Connect);
//! assert_eq!(event.query.get("name"), Some("ann"));
//! # Ok(())
//! # }
//! ```

mod client;
mod event;
mod filter;
pub mod header;
mod path;
mod payload;
mod service;
mod service_client;
mod setup;
mod transport;
mod trust;
mod tunnel;
pub mod webhook;

pub use hookwire_proto::connection_string::{ConnectionString, ConnectionStringError};
pub use hookwire_proto::data::{DataError, DataKind, Metadata, MetadataError};
pub use hookwire_proto::name::{GroupName, HubName, NameError, UserId};
pub use hookwire_proto::permission::Permission;
pub use hookwire_proto::signature::{AccessKey, AccessKeyError, sign};
pub use hookwire_proto::subprotocol::{
    GroupState, GroupStateItem, NamedError, StreamPart, Subprotocol,
};
pub use hookwire_proto::template::{EventName, TemplateDocument, TemplatesDocument};

pub use self::client::conformance;
pub use self::client::{
    CHOSEN_ACK_IDS, Client, ClientBuilder, ClientError, ClientEvent, ConnectError, Connected,
    EVENTS_MAX, Events, GroupMessage, GroupStream, MESSAGE_BYTES_MAX, Receipt, Sending,
    ServerMessage, Stopped, UrlSource,
};
pub use self::event::{Event, EventError, Query};
pub use self::filter::odata;
pub use self::payload::{Payload, PayloadError};
pub use self::service::{ClientEndpointOptions, Format, Message, Service};
pub use self::service_client::{
    ClientAccess, ClientKind, ClientUrl, Closing, ConnectionDetails, EventFilter, EventNews,
    EventPage, EventStream, ListOptions, ListedConnection, ListedName, LoggedEvent, Outgoing,
    Pages, ServiceClient, role,
};
pub use self::setup::{ServiceOptions, SetupError};
pub use self::transport::{
    ANSWER_BYTES_MAX, EXCERPT_BYTES_MAX, MESSAGE_TTL_MAX, REASON_BYTES_MAX, ServiceError,
};
pub use self::trust::{Trust, TrustError};
pub use self::tunnel::{
    LocalUpstream, TunnelClient, TunnelError, TunnelEvent, TunnelOptions, TunnelRequest,
    TunnelResponse,
};
