//! Request bodies: read within limits of size, time and memory, or thrown away.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Either, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::api_error::ApiError;

/// How long a body may take to arrive, from the end of the head on.
pub(crate) const BODY_TIME_MAX: Duration = Duration::from_secs(30);

/// Memory for all bodies that are being read, in bytes; more are refused with 429.
const BODIES_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Bytes of a body nobody wants that are still read, so that its sender gets around to reading the answer.
const DISCARDED_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The memory that is left for bodies.
#[derive(Debug)]
pub(crate) struct BodyRoom(Semaphore);

impl Default for BodyRoom {
    fn default() -> Self {
        Self(Semaphore::new(BODIES_BYTES_MAX))
    }
}

/// The body of one request.
#[derive(Debug)]
pub(crate) struct RequestBody {
    incoming: Either<Incoming, Full<Bytes>>,
    deadline: Instant,
    /// The sender waits for a word before it sends anything.
    waits: bool,
    /// Chunked, hence of unknown length.
    chunked: bool,
}

impl RequestBody {
    /// Takes a request apart.
    pub(crate) fn take(request: Request<Incoming>) -> (Request<()>, Self) {
        let (parts, incoming) = request.into_parts();
        let has = |name| parts.headers.contains_key(name);
        let (waits, chunked) = (has(header::EXPECT), has(header::TRANSFER_ENCODING));
        let deadline = Instant::now() + BODY_TIME_MAX;
        let incoming = Either::Left(incoming);
        (Request::from_parts(parts, ()), Self { incoming, deadline, waits, chunked })
    }

    /// Returns a body that is here already.
    pub(crate) fn whole(bytes: Bytes) -> Self {
        let incoming = Either::Right(Full::new(bytes));
        let deadline = Instant::now() + BODY_TIME_MAX;
        Self { incoming, deadline, waits: false, chunked: false }
    }

    /// Whether there is nothing to read.
    pub(crate) fn is_empty(&self) -> bool {
        self.incoming.is_end_stream()
    }

    /// Whether the length was not announced. hyper does not tell whether it stood beside the chunks, in which case the connection must
    /// be closed after the answer (RFC 9112, section 6.3); so it is closed always.
    pub(crate) const fn is_chunked(&self) -> bool {
        self.chunked
    }

    /// Returns the whole body.
    ///
    /// # Errors
    /// 413 beyond `limit` bytes, 415 when it is compressed, 429 when other bodies take all the memory, 408 when it takes longer than
    /// [`BODY_TIME_MAX`], 400 when it breaks off.
    pub(crate) async fn read(
        &mut self,
        headers: &HeaderMap,
        limit: usize,
        room: &BodyRoom,
    ) -> Result<Bytes, ApiError> {
        let encoding = headers.get(header::CONTENT_ENCODING);
        if encoding.is_some_and(|encoding| !encoding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            return Err(ApiError::new(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "UnsupportedMediaType",
                "a body with a Content-Encoding is not taken",
            ));
        }
        let announced = usize::try_from(self.incoming.size_hint().lower()).unwrap_or(usize::MAX);
        if limit < announced {
            return Err(too_large(limit));
        }
        let needed = if self.chunked { limit } else { announced };
        let needed = u32::try_from(needed).unwrap_or(u32::MAX);
        let Ok(_room) = room.0.try_acquire_many(needed) else {
            return Err(ApiError::busy("too many request bodies are on their way"));
        };
        let body = Limited::new(&mut self.incoming, limit).collect();
        match tokio::time::timeout_at(self.deadline, body).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => Err(too_large(limit)),
            Ok(Err(_)) => Err(ApiError::bad_request("the body broke off")),
            Err(_) => {
                let message = "the body took too long";
                Err(ApiError::new(StatusCode::REQUEST_TIMEOUT, "Timeout", message)
                    .with(header::CONNECTION, HeaderValue::from_static("close")))
            }
        }
    }

    /// Reads what nobody has read, within bounds. Closing a socket that still holds unread bytes resets it, and many senders read no
    /// answer before they have sent everything: they would see a broken connection instead of the reason.
    pub(crate) async fn discard(&mut self) {
        let announced = self.incoming.size_hint().lower();
        if self.waits || self.is_empty() || DISCARDED_BYTES_MAX < announced {
            return;
        }
        let rest = async {
            let mut left = DISCARDED_BYTES_MAX;
            while let Some(Ok(frame)) = self.incoming.frame().await {
                let bytes = frame.data_ref().map_or(0, Bytes::len) as u64;
                let Some(after) = left.checked_sub(bytes) else { return };
                left = after;
            }
        };
        // Beyond the deadline the connection is closed as it is.
        let _ = tokio::time::timeout_at(self.deadline, rest).await;
    }
}

fn too_large(limit: usize) -> ApiError {
    let message = format!("the body exceeds {limit} bytes");
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "PayloadTooLarge", message)
}
