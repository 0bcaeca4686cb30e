//! Giving an attachment to whoever holds a link, so that a browser takes it for nothing but a picture or a file.

use std::fmt::Display;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use futures_util::{Stream, StreamExt, stream};
use http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderName, HeaderValue, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::ticket::Link;
use super::{ANYTHING, Attachments, transfer_time_max};
use crate::functions::refused;
use crate::refusal::{Code, Refusal, log};
use crate::store::Store;

impl Attachments {
    /// Answers with the attachment that the ticket is for.
    pub(crate) async fn give(&self, store: &Store, ticket: &str) -> Response {
        let refuse = |status, code, text: &str| refused(status, &Refusal::new(code, text));
        let Ok(Link { folder, attachment }) = self.tickets.read(ticket) else {
            let text = "This link is broken or too old. Open the conversation again.";
            return refuse(StatusCode::UNAUTHORIZED, Code::Forbidden, text);
        };
        let Ok(place) = Arc::clone(&self.downloads).try_acquire_owned() else {
            let text = "Too many files are being downloaded. Try again.";
            return refuse(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, text);
        };
        let found = match store.attachment(&folder, &attachment.id).await {
            Ok(Some(found)) => found,
            Ok(None) => {
                return refuse(StatusCode::NOT_FOUND, Code::NotFound, "This file is gone.");
            }
            Err(error) => {
                log(&error, "an attachment could not be read");
                let text = "The chat could not read this file. Try again.";
                return refuse(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, text);
            }
        };
        let bytes = found.meta.size;
        // A task of its own, so that a reader who stopped reading does not keep a place for ever.
        let (chunks, body) = mpsc::channel(CHUNKS_AHEAD_MAX);
        self.tasks.spawn(async move {
            let _place = place;
            copy(found.into_stream(), bytes, &chunks).await;
        });
        let body = stream::unfold(body, async |mut body| Some((body.recv().await?, body)));
        let mut response = Response::new(Body::from_stream(body));
        let headers = response.headers_mut();
        let picture = PICTURES.iter().find(|known| **known == attachment.kind);
        let (kind, shown) = picture.map_or((ANYTHING, "attachment"), |kind| (*kind, "inline"));
        let name = utf8_percent_encode(&attachment.name, NON_ALPHANUMERIC);
        let disposition = format!("{shown}; filename*=UTF-8''{name}");
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(bytes));
        headers.insert(
            CONTENT_DISPOSITION,
            HeaderValue::from_str(&disposition).expect("what is percent-encoded is ASCII"),
        );
        for (name, value) in SAFETY {
            headers.insert(name, HeaderValue::from_static(value));
        }
        response
    }
}

/// Hands chunks of a file of so many bytes to a reader until all are taken, or one cannot be read, or the reader is too slow.
async fn copy<T, E: Display>(
    content: impl Stream<Item = Result<T, E>>,
    bytes: u64,
    chunks: &mpsc::Sender<Result<T, E>>,
) {
    let copying = async {
        let mut content = pin!(content);
        while let Some(chunk) = content.next().await {
            if let Err(error) = &chunk {
                tracing::warn!(%error, "an attachment could not be read to its end");
            }
            let last = chunk.is_err();
            if !matches!(timeout(READER_TIME_MAX, chunks.send(chunk)).await, Ok(Ok(()))) || last {
                return;
            }
        }
    };
    if timeout(transfer_time_max(bytes), copying).await.is_err() {
        tracing::debug!("an attachment was taken too slowly");
    }
}

/// Media types that a browser may show. What it gets is one of these, or a file to save.
const PICTURES: [&str; 4] = ["image/png", "image/jpeg", "image/gif", "image/webp"];

/// A browser takes the content for what it is said to be, runs nothing of it, and lets no other site embed it. It may keep it: a link
/// never means other content.
const SAFETY: [(HeaderName, &str); 5] = [
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox"),
    (REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    (CACHE_CONTROL, "private, max-age=3600, immutable"),
];

/// Parts of a file that are read before somebody takes them.
const CHUNKS_AHEAD_MAX: usize = 2;

/// How long a reader may take nothing.
const READER_TIME_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tokio::time::{Instant, interval};

    use super::super::TRANSFER_TIME_MIN;
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_takes_a_file_drop_by_drop_loses_the_place() {
        let content = stream::repeat_with(|| Ok::<_, Infallible>("x"));
        let (chunks, mut body) = mpsc::channel(CHUNKS_AHEAD_MAX);
        let begun = Instant::now();
        let giving = async move {
            copy(content, 1_000, &chunks).await;
            begun.elapsed()
        };
        let taking = async {
            let mut pause = interval(READER_TIME_MAX / 2); // Moves the clock: it is paused.
            while begun.elapsed() < 4 * TRANSFER_TIME_MIN {
                pause.tick().await;
                body.recv().await;
            }
            drop(body);
        };
        let (elapsed, ()) = tokio::join!(giving, taking);
        assert!((TRANSFER_TIME_MIN..2 * TRANSFER_TIME_MIN).contains(&elapsed), "{elapsed:?}");
    }
}
