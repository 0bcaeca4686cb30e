//! Frames of the tunnel, by which an upstream that cannot be reached gets its events over a WebSocket that it has opened, and makes
//! REST calls (Web PubSub protocol, "Tunnel").
//!
//! A frame is one binary WebSocket message: the length of what follows as 32 bits, little-endian, then a `MessagePack` array of type,
//! JSON text and content. The JSON repeats the type. No state, no I/O: [`Frame::decode`] and [`Frame::encode`].

use std::collections::BTreeMap;

use bytes::{BufMut, Bytes, BytesMut};
use rmp::Marker;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};

/// Longest frame without its length, in bytes ("Framing").
pub const FRAME_BYTES_MAX: usize = 1024 * 1024;

/// Longest WebSocket message that can be a frame, in bytes.
pub const MESSAGE_BYTES_MAX: usize = LENGTH_BYTES + FRAME_BYTES_MAX;

/// Where the endpoint of tunnels is.
pub const PATH: &str = "/server/tunnel";

/// What a URL begins with that is called through the tunnel.
const SCHEME: &str = "tunnel:///";

const LENGTH_BYTES: usize = 4;

/// Names and values of HTTP headers; the order of a name's values counts.
pub type Headers = BTreeMap<String, Vec<String>>;

/// What one side tells the other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Frame {
    /// An event for the upstream, or a REST call for the service.
    Request(HttpRequest),
    /// The answer to a request, or a part of it.
    Response(HttpResponse),
    /// The service says something about itself.
    Status(Status),
    /// This connection shall end and another be opened.
    Reconnect(Redirection),
    /// This connection shall end.
    Close(Status),
    /// A further connection shall be opened.
    Rebalance(Redirection),
    /// The first frame: the connection counts from now on.
    Connected(Connected),
    /// A type that is not known here, which changes nothing.
    Unknown(i64),
}

/// An HTTP request on its way through the tunnel.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HttpRequest {
    /// What the answer repeats. The two directions count apart.
    pub ack_id: i64,
    /// Whether the service itself shall answer: set in REST calls.
    pub local_routing: bool,
    /// What the answer repeats.
    pub channel_name: Option<String>,
    /// The method.
    pub http_method: String,
    /// The absolute URL; the host means nothing.
    pub url: String,
    /// The headers.
    #[serde(deserialize_with = "null_as_none")]
    pub headers: Headers,
    /// The body.
    #[serde(skip)]
    pub content: Option<Bytes>,
}

/// An HTTP answer on its way back, or a part of one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct HttpResponse {
    /// Which request it answers.
    pub ack_id: i64,
    /// As in the request.
    pub local_routing: bool,
    /// The status.
    pub status_code: u16,
    /// As in the request.
    pub channel_name: Option<String>,
    /// Whether more of the body follows in further frames.
    pub not_completed: bool,
    /// The headers.
    #[serde(deserialize_with = "null_as_none")]
    pub headers: Headers,
    /// The body, or its next part.
    #[serde(skip)]
    pub content: Option<Bytes>,
}

/// What the service says.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Status {
    /// For people.
    pub message: Option<String>,
}

/// Where else to connect to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Redirection {
    /// The value of `target` in the URL.
    pub target_id: Option<String>,
    /// The other endpoint; nothing: the same.
    pub endpoint: Option<String>,
    /// For people.
    pub message: Option<String>,
}

/// Who the upstream is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub struct Connected {
    /// The connection.
    pub connection_id: String,
    /// The user that its token names.
    pub user_id: Option<String>,
    /// Not used: a tunnel is not recovered, another is opened.
    pub reconnection_token: Option<String>,
}

/// Bytes that are no frame. Its text repeats nothing of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length does not fit to what follows it.
    #[error("the length of the frame is wrong")]
    Length,
    /// More than [`FRAME_BYTES_MAX`].
    #[error("the frame exceeds {FRAME_BYTES_MAX} bytes")]
    TooLong,
    /// Not an array of type, text and content.
    #[error("the frame is not the MessagePack array that it must be")]
    MessagePack,
    /// Not the JSON that the type asks for.
    #[error("the frame's JSON does not fit its type")]
    Json,
}

/// The JSON of a frame.
#[derive(Serialize)]
struct Json<'a, T> {
    #[serde(rename = "Type")]
    kind: i64,
    #[serde(flatten)]
    rest: &'a T,
    /// Always `null`.
    #[serde(rename = "TracingId")]
    tracing_id: (),
}

const REQUEST: i64 = 1;
const RESPONSE: i64 = 2;
const STATUS: i64 = 5;
const RECONNECT: i64 = 6;
const CLOSE: i64 = 7;
const REBALANCE: i64 = 8;
const CONNECTED: i64 = 10;

/// Returns what stands behind `tunnel:///`, path and query without the first slash, or `None` for another URL.
pub fn path(url: &str) -> Option<&str> {
    let (scheme, path) = url.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then_some(path)
}

impl Frame {
    /// Returns the frame that a WebSocket message holds. Contents share the memory of `message`.
    ///
    /// # Errors
    /// [`FrameError`]; the connection makes no sense any more.
    pub fn decode(message: &Bytes) -> Result<Self, FrameError> {
        let (length, array) = message.split_first_chunk().ok_or(FrameError::Length)?;
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        if FRAME_BYTES_MAX < length {
            return Err(FrameError::TooLong);
        }
        if length != array.len() {
            return Err(FrameError::Length);
        }
        let (kind, json, content) = split(array).ok_or(FrameError::MessagePack)?;
        let content = content.map(|content| message.slice_ref(content));
        Ok(match kind {
            REQUEST => Self::Request(HttpRequest { content, ..read(kind, json)? }),
            RESPONSE => Self::Response(HttpResponse { content, ..read(kind, json)? }),
            STATUS => Self::Status(read(kind, json)?),
            RECONNECT => Self::Reconnect(read(kind, json)?),
            CLOSE => Self::Close(read(kind, json)?),
            REBALANCE => Self::Rebalance(read(kind, json)?),
            CONNECTED => Self::Connected(read(kind, json)?),
            unknown => Self::Unknown(unknown),
        })
    }

    /// Returns the WebSocket message of the frame.
    ///
    /// # Errors
    /// [`FrameError::TooLong`], or [`FrameError::Json`] for [`Frame::Unknown`], which is never sent.
    pub fn encode(&self) -> Result<Bytes, FrameError> {
        match self {
            Self::Request(request) => write(REQUEST, request, request.content.as_ref()),
            Self::Response(response) => write(RESPONSE, response, response.content.as_ref()),
            Self::Status(status) => write(STATUS, status, None),
            Self::Reconnect(redirection) => write(RECONNECT, redirection, None),
            Self::Close(status) => write(CLOSE, status, None),
            Self::Rebalance(redirection) => write(REBALANCE, redirection, None),
            Self::Connected(connected) => write(CONNECTED, connected, None),
            Self::Unknown(_) => Err(FrameError::Json),
        }
    }
}

impl HttpRequest {
    /// Returns the parts of the answer with this status, these headers and this body: as many as its length needs, at least one.
    pub fn answer(&self, status_code: u16, headers: Headers, mut body: Bytes) -> Vec<HttpResponse> {
        let mut parts = Vec::with_capacity(body.len() / PART_BYTES_MAX + 1);
        let mut headers = headers;
        loop {
            let content = body.split_to(body.len().min(PART_BYTES_MAX));
            parts.push(HttpResponse {
                ack_id: self.ack_id,
                local_routing: self.local_routing,
                status_code,
                channel_name: self.channel_name.clone(),
                not_completed: !body.is_empty(),
                headers: std::mem::take(&mut headers),
                content: Some(content),
            });
            if body.is_empty() {
                return parts;
            }
        }
    }
}

/// Longest part of an answer's body in one frame, in bytes: what is left of a frame is for the headers.
pub const PART_BYTES_MAX: usize = FRAME_BYTES_MAX / 2;

/// Takes the array apart: type, JSON, content.
fn split(array: &[u8]) -> Option<(i64, &str, Option<&[u8]>)> {
    let mut rest = array;
    if rmp::decode::read_array_len(&mut rest).ok()? != 3 {
        return None;
    }
    let kind = rmp::decode::read_int(&mut rest).ok()?;
    let (json, mut rest) = rmp::decode::read_str_from_slice(rest).ok()?;
    if Marker::from_u8(*rest.first()?) == Marker::Null {
        return (rest.len() == 1).then_some((kind, json, None));
    }
    let length = usize::try_from(rmp::decode::read_bin_len(&mut rest).ok()?).ok()?;
    (rest.len() == length).then_some((kind, json, Some(rest)))
}

fn read<T: DeserializeOwned>(kind: i64, json: &str) -> Result<T, FrameError> {
    #[derive(Deserialize)]
    struct Kind {
        #[serde(rename = "Type")]
        kind: i64,
    }

    let named: Kind = serde_json::from_str(json).map_err(|_| FrameError::Json)?;
    if named.kind != kind {
        return Err(FrameError::Json);
    }
    serde_json::from_str(json).map_err(|_| FrameError::Json)
}

fn write<T: Serialize>(kind: i64, rest: &T, content: Option<&Bytes>) -> Result<Bytes, FrameError> {
    let json = serde_json::to_string(&Json { kind, rest, tracing_id: () });
    let json = json.map_err(|_| FrameError::Json)?;
    let content_bytes = content.map_or(0, Bytes::len);
    if FRAME_BYTES_MAX < json.len() + content_bytes {
        return Err(FrameError::TooLong);
    }
    let capacity = LENGTH_BYTES + HEADS_BYTES_MAX + json.len() + content_bytes;
    let mut out = BytesMut::with_capacity(capacity).writer();
    let written = (|| {
        std::io::Write::write_all(&mut out, &[0; LENGTH_BYTES]).ok()?;
        rmp::encode::write_array_len(&mut out, 3).ok()?;
        rmp::encode::write_sint(&mut out, kind).ok()?;
        rmp::encode::write_str(&mut out, &json).ok()?;
        match content {
            Some(content) => rmp::encode::write_bin(&mut out, content).ok(),
            None => rmp::encode::write_nil(&mut out).ok(),
        }
    })();
    written.expect("memory takes what is written");
    let mut out = out.into_inner();
    let length = out.len() - LENGTH_BYTES;
    if FRAME_BYTES_MAX < length {
        return Err(FrameError::TooLong);
    }
    let length = u32::try_from(length).expect("a frame has at most 1 MiB");
    out[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
    Ok(out.freeze())
}

/// What `MessagePack` adds to text and content at most: array, type, and two lengths, in bytes.
const HEADS_BYTES_MAX: usize = 12;

fn null_as_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Headers, D::Error> {
    Option::<Headers>::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests;
