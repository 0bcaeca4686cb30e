//! What waits on a tunnel: requests to be written, and requests to be answered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::{Bytes, BytesMut};
use hookwire_proto::tunnel::{Frame, HttpRequest, HttpResponse};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use http_body_util::Full;
use tokio::sync::{mpsc, oneshot};

use super::{EVENTS, Fault, count, status_class};

/// Requests on one tunnel that wait for their answers.
pub(super) const IN_FLIGHT_MAX: usize = 1_024;

/// Requests of one tunnel that wait to be written, in bytes.
pub(super) const QUEUED_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Longest body of an answer, in bytes, as over HTTP.
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Answers of one tunnel of which parts are missing, in bytes.
const INCOMPLETE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Header lines of an answer, as over HTTP.
const HEADERS_MAX: usize = 128;

/// Bytes of an answer's headers, as over HTTP.
const HEADERS_BYTES_MAX: usize = 64 * 1024;

/// One tunnel as others see it.
#[derive(Debug)]
pub(super) struct Line {
    queue: mpsc::UnboundedSender<Outgoing>,
    calls: Mutex<Calls>,
}

/// A request on its way to the socket.
#[derive(Debug)]
pub(super) struct Outgoing {
    ack_id: i64,
    message: Bytes,
    written: oneshot::Sender<()>,
}

/// A request that is on its way.
#[derive(Debug)]
pub(super) struct Sent {
    pub(super) answer: Answer,
    /// Heard from when the request was fully written.
    pub(super) written: oneshot::Receiver<()>,
}

/// The answer to come; giving it up makes room.
#[derive(Debug)]
pub(super) struct Answer {
    receiver: oneshot::Receiver<Outcome>,
    line: Arc<Line>,
    ack_id: i64,
    result: &'static str,
}

type Outcome = Result<Response<Full<Bytes>>, Fault>;

#[derive(Debug, Default)]
struct Calls {
    pending: HashMap<i64, Pending>,
    last_ack_id: i64,
    queued_bytes: usize,
    incomplete_bytes: usize,
    is_closed: bool,
}

#[derive(Debug)]
struct Pending {
    /// Status and headers, once they are known.
    head: Option<(StatusCode, HeaderMap)>,
    /// What has come of the body, copied: a part shares the memory of its whole message, however short it is.
    body: BytesMut,
    /// Whether the request was taken to be written: the upstream may have it.
    is_taken: bool,
    answer: oneshot::Sender<Outcome>,
}

impl Line {
    /// Returns a line and what its task takes requests from. That has no limit of its own: see [`QUEUED_BYTES_MAX`].
    pub(super) fn new() -> (Arc<Self>, mpsc::UnboundedReceiver<Outgoing>) {
        let (queue, receiver) = mpsc::unbounded_channel();
        (Arc::new(Self { queue, calls: Mutex::default() }), receiver)
    }

    /// Returns how many requests are under way; `None` when the tunnel has ended.
    pub(super) fn load(&self) -> Option<usize> {
        let calls = self.calls();
        (!calls.is_closed).then_some(calls.pending.len())
    }

    /// Puts a request in the queue.
    pub(super) fn send(self: Arc<Self>, mut request: HttpRequest) -> Result<Sent, Fault> {
        let ack_id = self.calls().next_ack_id();
        request.ack_id = ack_id;
        let message = Frame::Request(request).encode().map_err(|_| Fault::TooLong)?;
        let (answer, receiver) = oneshot::channel();
        let (written, was_written) = oneshot::channel();
        let mut calls = self.calls();
        if calls.is_closed {
            return Err(Fault::Unsent);
        }
        if IN_FLIGHT_MAX <= calls.pending.len()
            || QUEUED_BYTES_MAX < calls.queued_bytes + message.len()
        {
            return Err(Fault::Overloaded);
        }
        calls.queued_bytes += message.len();
        let pending = Pending { head: None, body: BytesMut::new(), is_taken: false, answer };
        calls.pending.insert(ack_id, pending);
        let outgoing = Outgoing { ack_id, message, written };
        self.queue.send(outgoing).map_err(|_| Fault::Unsent)?;
        drop(calls);
        let answer = Answer { receiver, line: self, ack_id, result: "given_up" };
        Ok(Sent { answer, written: was_written })
    }

    /// Takes a request out of the queue: returns its bytes, and whom to tell that they are written; `None` when it was given up.
    pub(super) fn take(&self, outgoing: Outgoing) -> Option<(Bytes, oneshot::Sender<()>)> {
        let Outgoing { ack_id, message, written } = outgoing;
        let mut calls = self.calls();
        calls.queued_bytes -= message.len();
        calls.pending.get_mut(&ack_id)?.is_taken = true;
        Some((message, written))
    }

    /// Takes an answer, or a part of one. What answers nothing, or what was given up, is forgotten.
    pub(super) fn answered(&self, response: HttpResponse) {
        let mut calls = self.calls();
        let calls = &mut *calls;
        let Some(pending) = calls.pending.get_mut(&response.ack_id) else { return };
        let (ack_id, is_complete) = (response.ack_id, !response.not_completed);
        let outcome = pending.add(response, &mut calls.incomplete_bytes);
        let outcome = match outcome {
            Ok(()) if !is_complete && calls.incomplete_bytes <= INCOMPLETE_BYTES_MAX => return,
            Ok(()) if !is_complete => Err(Fault::TooLarge),
            outcome => outcome,
        };
        if let Some(pending) = calls.remove(ack_id) {
            let Pending { head, body, answer, .. } = pending;
            let whole = outcome.and_then(|()| whole(head, body.freeze()));
            // Whoever waits no longer has given it up.
            let _ = answer.send(whole);
        }
    }

    /// Ends the line: what waits for an answer is lost, and what waits to be written was not sent.
    pub(super) fn close(&self) {
        let mut calls = self.calls();
        calls.is_closed = true;
        calls.incomplete_bytes = 0;
        for pending in std::mem::take(&mut calls.pending).into_values() {
            let fault = if pending.is_taken { Fault::Lost } else { Fault::Unsent };
            // Whoever waits no longer has given it up.
            let _ = pending.answer.send(Err(fault));
        }
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().expect("nothing panics while it holds the calls")
    }
}

impl Calls {
    /// Returns an id that no request has. It stays within 32 bits, as others count.
    fn next_ack_id(&mut self) -> i64 {
        loop {
            self.last_ack_id = self.last_ack_id % i64::from(i32::MAX) + 1;
            if !self.pending.contains_key(&self.last_ack_id) {
                return self.last_ack_id;
            }
        }
    }

    fn remove(&mut self, ack_id: i64) -> Option<Pending> {
        let pending = self.pending.remove(&ack_id)?;
        self.incomplete_bytes -= pending.body.len();
        Some(pending)
    }
}

impl Pending {
    fn add(&mut self, response: HttpResponse, incomplete_bytes: &mut usize) -> Result<(), Fault> {
        if self.head.is_none() {
            self.head = Some(head(&response).ok_or(Fault::Malformed)?);
        }
        let part = response.content.unwrap_or_default();
        *incomplete_bytes += part.len();
        self.body.extend_from_slice(&part);
        if ANSWER_BYTES_MAX < self.body.len() { Err(Fault::TooLarge) } else { Ok(()) }
    }
}

impl Answer {
    /// Waits for the answer.
    pub(super) async fn wait(mut self) -> Outcome {
        let outcome = (&mut self.receiver).await.unwrap_or(Err(Fault::Lost));
        self.result = match &outcome {
            Ok(response) => status_class(response.status().as_u16()),
            Err(fault) => fault.result(),
        };
        outcome
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        count(EVENTS, self.result);
        self.line.calls().remove(self.ack_id);
    }
}

/// Returns status and headers, if HTTP knows such.
fn head(response: &HttpResponse) -> Option<(StatusCode, HeaderMap)> {
    let status = StatusCode::from_u16(response.status_code).ok()?;
    let (mut headers, mut bytes) = (HeaderMap::new(), 0);
    for (name, values) in &response.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        for value in values {
            bytes += name.as_str().len() + value.len();
            headers.append(&name, HeaderValue::from_bytes(value.as_bytes()).ok()?);
            if HEADERS_MAX < headers.len() || HEADERS_BYTES_MAX < bytes {
                return None;
            }
        }
    }
    Some((status, headers))
}

fn whole(head: Option<(StatusCode, HeaderMap)>, body: Bytes) -> Outcome {
    let (status, headers) = head.ok_or(Fault::Malformed)?;
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    Ok(response)
}
