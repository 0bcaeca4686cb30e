//! Bringing a file: from the body of a request straight into the store, part by part.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::body::{Body, HttpBody};
use axum::response::Response;
use futures_util::StreamExt;
use http::StatusCode;
use serde_json::json;
use tokio::time::{Instant, timeout, timeout_at};

use super::ticket::{Receipt, Upload};
use super::{Attachments, KIND_BYTES, kind_of, transfer_time_max};
use crate::functions::{json_answer, refused};
use crate::refusal::{Code, Refusal, log};
use crate::store::{Attachment, Store, StoreError};

impl Attachments {
    /// Takes the body as the file that the ticket is for. Answers with a receipt once it is stored.
    pub(crate) async fn take(
        self: &Arc<Self>,
        store: &Arc<Store>,
        ticket: &str,
        body: Body,
    ) -> Response {
        let Ok(upload) = self.tickets.read::<Upload>(ticket) else {
            let text = "The upload is not allowed, or no longer. Attach the file again.";
            return refused(StatusCode::UNAUTHORIZED, &Refusal::new(Code::Forbidden, text));
        };
        let fits = |bytes: u64| bytes <= upload.bytes;
        if !fits(body.size_hint().lower()) {
            return not_taken(Fault::TooLong);
        }
        let Ok(_place) = self.uploads.try_acquire() else {
            let text = "Too many files are being uploaded. Try again.";
            let refusal = Refusal::new(Code::Unavailable, text);
            return refused(StatusCode::SERVICE_UNAVAILABLE, &refusal);
        };
        self.sweep(store);
        match bring(store, &upload, body).await {
            Ok(attachment) => {
                let Upload { user, conversation, .. } = upload;
                let shown = json!({
                    "name": attachment.name, "type": attachment.kind, "size": attachment.bytes,
                });
                let receipt = Receipt { user, conversation, attachment };
                let receipt = self.tickets.sign(&receipt, SystemTime::now());
                json_answer(
                    StatusCode::CREATED,
                    &json!({ "receipt": receipt, "attachment": shown }),
                )
            }
            Err(fault) => not_taken(fault),
        }
    }

    /// Deletes uploads that nobody sent, now and then, in the background.
    fn sweep(self: &Arc<Self>, store: &Arc<Store>) {
        let (attachments, store) = (Arc::clone(self), Arc::clone(store));
        if self.tasks.is_closed() || self.sweeping.try_lock().is_err() {
            return;
        }
        self.tasks.spawn(async move {
            // Held while it lasts: one look at a time.
            let Ok(mut last) = attachments.sweeping.try_lock() else { return };
            if last.is_some_and(|last| last.elapsed() < SWEEP_INTERVAL) {
                return;
            }
            match store.delete_uploads(SystemTime::now(), UPLOAD_KEPT_MIN).await {
                Ok(0) => {}
                Ok(deleted) => tracing::info!(deleted, "uploads that nobody sent are deleted"),
                Err(error) => log(&error, "uploads that nobody sent could not be deleted"),
            }
            *last = Some(Instant::now());
        });
    }
}

/// Why a file is not taken.
#[derive(Debug)]
enum Fault {
    TooLong,
    TooShort,
    Late,
    Interrupted(axum::Error),
    Store(StoreError),
}

async fn bring(store: &Store, upload: &Upload, body: Body) -> Result<Attachment, Fault> {
    let mut writing = store.begin_upload();
    let end = Instant::now() + transfer_time_max(upload.bytes);
    let (mut bytes, mut start) = (0, Vec::with_capacity(KIND_BYTES));
    let mut content = body.into_data_stream();
    let copied = async {
        loop {
            let next = timeout_at(end, timeout(CHUNK_TIME_MAX, content.next()));
            let chunk = match next.await {
                Ok(Ok(Some(chunk))) => chunk.map_err(Fault::Interrupted)?,
                Ok(Ok(None)) => break,
                Ok(Err(_)) | Err(_) => return Err(Fault::Late),
            };
            bytes += chunk.len() as u64;
            if upload.bytes < bytes {
                return Err(Fault::TooLong);
            }
            let missing = KIND_BYTES - start.len();
            start.extend_from_slice(&chunk[..chunk.len().min(missing)]);
            writing.put(chunk).await.map_err(Fault::Store)?;
        }
        if bytes < upload.bytes {
            return Err(Fault::TooShort);
        }
        Ok(())
    };
    if let Err(fault) = copied.await {
        writing.abandon().await;
        return Err(fault);
    }
    let id = writing.finish().await.map_err(Fault::Store)?;
    Ok(Attachment { id, name: upload.name.clone(), kind: kind_of(&start).to_owned(), bytes })
}

fn not_taken(fault: Fault) -> Response {
    let answer = |status, code, text: &str| refused(status, &Refusal::new(code, text));
    match fault {
        Fault::TooLong => answer(
            StatusCode::PAYLOAD_TOO_LARGE,
            Code::TooLarge,
            "The file is larger than announced.",
        ),
        Fault::TooShort => {
            answer(StatusCode::BAD_REQUEST, Code::Invalid, "The file is smaller than announced.")
        }
        Fault::Late => {
            answer(StatusCode::REQUEST_TIMEOUT, Code::Unavailable, "The file did not come in time.")
        }
        Fault::Interrupted(error) => {
            tracing::debug!(%error, "an upload broke off");
            answer(StatusCode::BAD_REQUEST, Code::Unavailable, "The file did not come whole.")
        }
        Fault::Store(error) => {
            log(&error, "a file was not stored");
            let text = "The chat could not store this file. Try again.";
            answer(StatusCode::SERVICE_UNAVAILABLE, Code::Unavailable, text)
        }
    }
}

/// Longest wait for the next bytes of an upload.
const CHUNK_TIME_MAX: Duration = Duration::from_secs(30);

/// From one look for uploads that nobody sent to the next.
const SWEEP_INTERVAL: Duration = Duration::from_hours(1);

/// Uploads are kept for so long, well over the life of a receipt.
const UPLOAD_KEPT_MIN: Duration = Duration::from_hours(48);

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use futures_util::stream;
    use object_store::memory::InMemory;

    use super::super::TRANSFER_TIME_MIN;
    use super::*;
    use crate::store::{Random, Retention};

    #[tokio::test(start_paused = true)]
    async fn who_brings_a_file_drop_by_drop_loses_the_place() {
        let (objects, random) = (Arc::new(InMemory::new()), Random::new(|| 4));
        let store = Store::new(objects, Retention::default(), &random, Box::new(|_, _| {}));
        let upload = Upload {
            user: "ann".into(),
            conversation: "public".into(),
            name: "a".into(),
            bytes: 1_000,
        };
        let pause = tokio::time::interval(CHUNK_TIME_MAX / 2); // Moves the clock: it is paused.
        let drops = stream::unfold(pause, async |mut pause| {
            pause.tick().await;
            Some((Ok::<_, Infallible>("x"), pause))
        });
        let begun = Instant::now();
        let brought = bring(&store, &upload, Body::from_stream(drops)).await;
        assert!(matches!(brought, Err(Fault::Late)), "{brought:?}");
        let elapsed = begun.elapsed();
        assert!((TRANSFER_TIME_MIN..2 * TRANSFER_TIME_MIN).contains(&elapsed), "{elapsed:?}");
    }
}
