//! What can go wrong with a client.

use std::sync::Arc;
use std::time::Duration;

use hookwire_proto::data::MetadataError;
use hookwire_proto::name::NameError;
use hookwire_proto::subprotocol::NamedError;
use http::StatusCode;

use super::session::CHOSEN_ACK_IDS;
use crate::transport::MESSAGE_TTL_MAX;

/// Why a request of a client failed. No text holds a payload.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The service answered that it does not do that, or that the application failed.
    #[error("the service refused: {}{}{}", .0.name, if .0.message.is_empty() { "" } else { ": " }, .0.message)]
    Refused(NamedError),
    /// No answer came in time. The service may have carried out the request.
    #[error("no answer came within {limit:?}")]
    Timeout {
        /// How long was waited.
        limit: Duration,
    },
    /// The connection was lost for good before the answer came. The service may have carried out the request.
    #[error("the connection was lost before the answer came")]
    Lost,
    /// There is no connection right now, and the request waits for no answer.
    #[error("there is no connection right now")]
    NotConnected,
    /// The client was stopped.
    #[error("the client was stopped")]
    Stopped,
    /// An argument is no possible name; nothing was sent.
    #[error(transparent)]
    Name(#[from] NameError),
    /// Metadata breaks a rule; nothing was sent.
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    /// An event has a name of letters, digits, underscores, dots and hyphens, beginning with a letter; nothing was sent.
    #[error("that is no name of an event")]
    EventName,
    /// A message may wait up to [`MESSAGE_TTL_MAX`]; nothing was sent.
    #[error("a message may wait {} seconds at most", MESSAGE_TTL_MAX.as_secs())]
    Ttl,
    /// The ack id is [`CHOSEN_ACK_IDS`] or more, or belongs to a request that waits for its answer; nothing was sent.
    #[error("an ack id must be below {CHOSEN_ACK_IDS} and not in use")]
    AckId,
    /// The message is longer than a service takes; nothing was sent.
    #[error("the message has {bytes} bytes, at most {limit} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// As many streams are open as a client may have, or as many pieces of this one are on their way; nothing was sent.
    #[error("too many streams, or too many pieces of a stream, at once")]
    TooMany,
    /// The stream is over.
    #[error("the stream is over")]
    StreamOver,
}

/// Why a client has no connection. No text holds a token.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ConnectError {
    /// The URL is none to connect to.
    #[error("the URL is no ws://, wss://, http:// or https:// URL with a host")]
    Url,
    /// The application gave no URL.
    #[error("no URL was given")]
    NoUrl(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// TLS cannot be set up.
    #[error("cannot set up TLS")]
    Tls(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// No transport could be opened.
    #[error("could not reach the service")]
    Unreachable(#[source] Arc<dyn std::error::Error + Send + Sync>),
    /// The service refused the handshake.
    #[error("the service refused the client with {status}{}{excerpt}", if excerpt.is_empty() { "" } else { ": " })]
    Refused {
        /// The status of its answer.
        status: StatusCode,
        /// What it says about it, in one line.
        excerpt: String,
    },
    /// Something answered that does not speak WebSocket, or another subprotocol than was asked for.
    #[error("the answer to the handshake is wrong: {0}")]
    Handshake(&'static str),
    /// The handshake or the first message did not come in time.
    #[error("the service did not answer in time")]
    Timeout,
    /// The connection ended before its first message.
    #[error("the service closed the connection at once{}", .code.map(|code| format!(" with {code}")).unwrap_or_default())]
    Closed {
        /// The close code, if one came.
        code: Option<u16>,
    },
}

impl ConnectError {
    /// Returns whether another try with the same URL would end in the same way.
    pub(crate) fn is_final(&self) -> bool {
        match self {
            Self::Url | Self::Tls(_) => true,
            Self::Refused { status, .. } => matches!(
                *status,
                StatusCode::BAD_REQUEST
                    | StatusCode::UNAUTHORIZED
                    | StatusCode::FORBIDDEN
                    | StatusCode::NOT_FOUND
            ),
            Self::NoUrl(_)
            | Self::Unreachable(_)
            | Self::Handshake(_)
            | Self::Timeout
            | Self::Closed { .. } => false,
        }
    }
}
