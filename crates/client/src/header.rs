//! Names of the headers between a service and its upstream (preview protocol, "Request headers").

use http::HeaderName;

/// Which connection an event is about.
pub const CONNECTION_ID: HeaderName = HeaderName::from_static("x-asrs-connection-id");

/// Which hub the connection belongs to.
pub const HUB: HeaderName = HeaderName::from_static("x-asrs-hub");

/// `connections` or `messages`.
pub const CATEGORY: HeaderName = HeaderName::from_static("x-asrs-category");

/// `connect`, `message` or `disconnect`.
pub const EVENT: HeaderName = HeaderName::from_static("x-asrs-event");

/// Who the connection belongs to. In the answer to a connect event it sets the user.
pub const USER_ID: HeaderName = HeaderName::from_static("x-asrs-user-id");

/// The claims of the client's token.
pub const USER_CLAIMS: HeaderName = HeaderName::from_static("x-asrs-user-claims");

/// Proof that the request comes from the service.
pub const SIGNATURE: HeaderName = HeaderName::from_static("x-asrs-signature");

/// The query of the URL by which the client connected.
pub const CLIENT_QUERY: HeaderName = HeaderName::from_static("x-asrs-client-query");
