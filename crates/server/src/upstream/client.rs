//! The HTTP client behind every request that leaves the service.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use hookwire_hub::Dialect;
use http::uri::Scheme;
use http::{Request, Response, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::RootCertStore;
use tokio_util::sync::CancellationToken;

use super::CallError;
use super::answer::{HEAD_BYTES_MAX, HEADERS_MAX};
use super::course::{self, Failure, Passing, Policy, Repetition};
use super::payload::Payload;
use super::request::Target;
use super::resolver::{Refused, Resolver};
use super::wire::{self, Connector, Turn};
use crate::config::AddressRange;

/// Idle connections are dropped before the upstream does: Node closes them after 5 s.
const IDLE_TIME_MAX: Duration = Duration::from_secs(4);

/// How long an HTTP/2 connection with calls on it may be silent before it is asked for a sign of life, so that one which has died
/// unnoticed does not take all calls with it.
pub(super) const PING_PAUSE: Duration = Duration::from_secs(20);

/// How long that sign may take.
pub(super) const PING_TIME_MAX: Duration = Duration::from_secs(10);

/// Bytes of one answer over HTTP/2 that may be on their way unread.
const STREAM_WINDOW_BYTES: u32 = 1024 * 1024;

/// Bytes of all answers of one HTTP/2 connection that may be on their way unread.
const CONNECTION_WINDOW_BYTES: u32 = 4 * 1024 * 1024;

/// Calls at once over an HTTP/2 connection whose upstream has not said yet how many it takes (RFC 9113, section 6.5.2, wants no less of
/// it). Then it is as many as it says, within those that [`super::gate`] lets through.
const UNTOLD_STREAMS_MAX: usize = 100;

/// How a question is asked that is no event: again as long as nothing answers.
const QUESTION: Policy =
    Policy { passing: Passing::Never, repetition: Repetition::Silent, is_notice: false };

/// The versions of HTTP by which a request may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Versions {
    /// HTTP/1.1, which keeps the spelling of header names.
    Http1,
    /// HTTP/2 if an https upstream chooses it, HTTP/1.1 otherwise.
    Negotiated,
}

impl Versions {
    /// Returns how an event of this dialect may go: consumers of the preview look headers up in their documented spelling.
    pub(super) const fn of(dialect: &Dialect) -> Self {
        match dialect {
            Dialect::Preview(_) => Self::Http1,
            Dialect::WebPubSub { .. } => Self::Negotiated,
        }
    }
}

/// Sends requests over pools of connections, and to no refused address. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Http {
    http1: Client<Connector, Payload>,
    negotiating: Client<Connector, Payload>,
    resolver: Resolver,
}

impl Http {
    /// Returns a client that goes to no `refused` address, follows no redirect and believes certificates of `roots`.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub(super) fn new(refused: Vec<AddressRange>, roots: RootCertStore) -> io::Result<Self> {
        let resolver = Resolver::new(refused);
        let client = |roots, versions| {
            let connector = Connector::new(resolver.clone(), roots, versions)?;
            let client = Client::builder(TokioExecutor::new())
                .pool_idle_timeout(IDLE_TIME_MAX)
                .pool_timer(TokioTimer::new())
                .timer(TokioTimer::new())
                .retry_canceled_requests(false)
                .http1_preserve_header_case(versions == Versions::Http1)
                .http1_max_buf_size(HEAD_BYTES_MAX)
                .http1_max_headers(HEADERS_MAX)
                .http2_max_header_list_size(HEAD_BYTES_MAX.try_into().expect("64 KiB fit"))
                .http2_initial_stream_window_size(STREAM_WINDOW_BYTES)
                .http2_initial_connection_window_size(CONNECTION_WINDOW_BYTES)
                .http2_initial_max_send_streams(UNTOLD_STREAMS_MAX)
                .http2_keep_alive_interval(PING_PAUSE)
                .http2_keep_alive_timeout(PING_TIME_MAX)
                .build(connector);
            io::Result::Ok(client)
        };
        let http1 = client(roots.clone(), Versions::Http1)?;
        let negotiating = client(roots, Versions::Negotiated)?;
        Ok(Self { http1, negotiating, resolver })
    }

    /// Returns whether the target's host is a name, which is judged when it is looked up, or an allowed address.
    pub(super) fn may_call(&self, target: &Target) -> bool {
        self.resolver.is_allowed_host(&target.url)
    }

    /// Sends a request: returns the head of its answer, and what is ready when the request was fully written.
    pub(super) fn send(
        &self,
        request: Request<Full<Bytes>>,
        versions: Versions,
    ) -> (
        impl Future<Output = Result<Response<Incoming>, Failure>> + Send + use<>,
        impl Future<Output = ()> + Send + use<>,
    ) {
        let (head, body) = request.into_parts();
        let (payload, written) = Payload::new(body);
        let mut request = Request::from_parts(head, payload);
        let response = match versions {
            Versions::Http1 => self.http1.request(request),
            Versions::Negotiated => {
                if request.uri().scheme() == Some(&Scheme::HTTPS) {
                    // HTTP/2 names the host apart (RFC 9113, section 8.3.1); for HTTP/1.1 it is put back.
                    request.headers_mut().remove(header::HOST);
                }
                self.negotiating.request(request)
            }
        };
        let head = async {
            let response = response.await.map_err(failure)?;
            wire::note_answer(&response);
            Ok(response)
        };
        (head, written)
    }

    /// Sends a request that may be repeated, and returns the head of its answer.
    ///
    /// # Errors
    /// The target is refused, or nothing answers.
    pub(super) async fn ask(
        &self,
        target: &Target,
        request: impl Fn() -> Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, CallError> {
        if !self.may_call(target) {
            return Err(CallError::RefusedAddress);
        }
        let never = std::future::pending::<()>;
        course::run(
            QUESTION,
            &CancellationToken::new(),
            || self.send(request(), Versions::Negotiated),
            never,
        )
        .await
    }
}

/// Returns what may be done about an attempt without an answer.
fn failure(error: Error) -> Failure {
    if cause(&error, |_: &Refused| true).is_some() {
        return Failure::Final(CallError::RefusedAddress);
    }
    if error.is_connect() {
        return Failure::Silent(CallError::Unreachable(error));
    }
    // hyper gives back what it has not begun to send.
    let is_returned = cause(&error, hyper::Error::is_canceled).is_some();
    let failure = match error.connect_info() {
        None => Failure::Silent,
        Some(connected) if connected.is_negotiated_h2() => {
            // The one that waits for room when the connection goes is let go of without a word, which hyper takes for our doing.
            let is_untaken = is_returned || cause(&error, hyper::Error::is_user).is_some();
            let fault = if is_untaken { Fault::Untaken } else { Fault::of(&error) };
            of_http2(wire::turn(connected), fault)
        }
        Some(connected) => of_http1(wire::turn(connected), is_returned),
    };
    failure(CallError::Broken(error.into()))
}

/// Returns what a failure over HTTP/1.1 was. An upstream may close an idle connection at any moment, and when that crosses a request,
/// the kernel takes what nobody will read (RFC 9112, section 9.5). A new connection that is closed at once is another matter.
const fn of_http1(turn: Turn, is_returned: bool) -> fn(CallError) -> Failure {
    match (turn, is_returned) {
        (Turn::Unused, _) | (Turn::First, false) => Failure::Silent,
        (Turn::First | Turn::Answered | Turn::Later, true) => Failure::Unsent,
        (Turn::Later, false) => Failure::Crossed,
        (Turn::Answered, false) => Failure::Final,
    }
}

/// What was wrong over HTTP/2.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// The connection was going when the request came to it: the upstream has not seen it, or says that it takes no notice of it
    /// (RFC 9113, section 6.8).
    Untaken,
    /// The upstream says that it has not begun with the request (RFC 9113, section 8.7).
    Refused,
    /// The answer breaks the protocol or a limit.
    Malformed,
    /// The request or its connection broke off.
    Broken,
}

impl Fault {
    fn of(error: &Error) -> Self {
        let Some(error) = cause(error, |_: &h2::Error| true) else { return Self::Broken };
        // One that begins or goes on after a GOAWAY is told so only if it is not among those that the upstream still answers.
        match (error.is_remote(), error.is_library()) {
            (true, _) if error.is_go_away() => Self::Untaken,
            (true, _) if error.reason() == Some(h2::Reason::REFUSED_STREAM) => Self::Refused,
            (_, true) if error.is_reset() => Self::Malformed,
            _ => Self::Broken,
        }
    }
}

/// Returns what a failure over HTTP/2 was, where no connection goes without a word.
const fn of_http2(turn: Turn, fault: Fault) -> fn(CallError) -> Failure {
    match (fault, turn) {
        // It has served, so the next one will.
        (Fault::Untaken, Turn::Answered) => Failure::Unsent,
        (Fault::Untaken, Turn::Unused | Turn::First | Turn::Later) | (Fault::Refused, _) => {
            Failure::Refused
        }
        (Fault::Malformed, _) => Failure::Final,
        (Fault::Broken, _) => Failure::Silent,
    }
}

/// Returns the first of the error's causes that is an `E` of this kind.
fn cause<E: std::error::Error + 'static>(error: &Error, is: impl Fn(&E) -> bool) -> Option<&E> {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        // What an I/O error wraps is not its source but itself.
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        let inner = inner.and_then(|inner| inner.downcast_ref::<E>());
        if let Some(found) = error.downcast_ref::<E>().or(inner).filter(|found| is(found)) {
            return Some(found);
        }
        source = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const TURNS: [Turn; 4] = [Turn::Unused, Turn::First, Turn::Answered, Turn::Later];

    fn shown(failure: fn(CallError) -> Failure) -> String {
        let shown = format!("{:?}", failure(CallError::GivenUp));
        shown.split('(').next().unwrap_or_default().to_owned()
    }

    #[test]
    fn over_http1_a_connection_is_stale_only_if_it_has_served_before() {
        let failures = |is_returned| TURNS.map(|turn| shown(of_http1(turn, is_returned)));
        assert_eq!(failures(true), ["Silent", "Unsent", "Unsent", "Unsent"]);
        assert_eq!(failures(false), ["Silent", "Silent", "Final", "Crossed"]);
    }

    #[test]
    fn over_http2_what_the_upstream_has_not_begun_with_was_never_sent() {
        let failures =
            |fault| [Turn::Unused, Turn::Answered].map(|turn| shown(of_http2(turn, fault)));
        assert_eq!(failures(Fault::Untaken), ["Refused", "Unsent"], "no loop without a pause");
        assert_eq!(failures(Fault::Refused), ["Refused", "Refused"]);
        assert_eq!(failures(Fault::Malformed), ["Final", "Final"]);
        assert_eq!(failures(Fault::Broken), ["Silent", "Silent"]);
    }
}
