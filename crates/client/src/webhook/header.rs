//! Names of the headers of events (Web PubSub protocol, "Requests in general").

use http::HeaderName;

/// What happened, such as `azure.webpubsub.sys.connect`.
pub const TYPE: HeaderName = HeaderName::from_static("ce-type");

/// Which connection of which hub it happened to, as a path.
pub const SOURCE: HeaderName = HeaderName::from_static("ce-source");

/// Counts the events of a connection.
pub const ID: HeaderName = HeaderName::from_static("ce-id");

/// When it happened, as RFC 3339 writes it.
pub const TIME: HeaderName = HeaderName::from_static("ce-time");

/// The version of CloudEvents.
pub const SPEC_VERSION: HeaderName = HeaderName::from_static("ce-specversion");

/// The version of the protocol.
pub const AWPS_VERSION: HeaderName = HeaderName::from_static("ce-awpsversion");

/// Proof that the request comes from the service.
pub const SIGNATURE: HeaderName = HeaderName::from_static("ce-signature");

/// Which connection it happened to.
pub const CONNECTION_ID: HeaderName = HeaderName::from_static("ce-connectionid");

/// Which hub the connection belongs to.
pub const HUB: HeaderName = HeaderName::from_static("ce-hub");

/// The last part of [`TYPE`].
pub const EVENT_NAME: HeaderName = HeaderName::from_static("ce-eventname");

/// Who the connection belongs to.
pub const USER_ID: HeaderName = HeaderName::from_static("ce-userid");

/// The subprotocol that the client speaks.
pub const SUBPROTOCOL: HeaderName = HeaderName::from_static("ce-subprotocol");

/// What the application wants to remember of the connection: in requests what it said last, in answers what it says now.
pub const CONNECTION_STATE: HeaderName = HeaderName::from_static("ce-connectionstate");

/// The host of the service that asks or sends.
pub const REQUEST_ORIGIN: HeaderName = HeaderName::from_static("webhook-request-origin");

/// Whose events are wanted.
pub const ALLOWED_ORIGIN: HeaderName = HeaderName::from_static("webhook-allowed-origin");

/// What stands before the key of a message's metadata.
pub const METADATA_PREFIX: &str = "x-webpubsub-metadata-";
