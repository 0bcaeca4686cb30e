//! The HTTP client behind every request that leaves the service.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Body, Incoming};
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::RootCertStore;
use tokio_util::sync::CancellationToken;

use super::CallError;
use super::answer::{HEAD_BYTES_MAX, HEADERS_MAX};
use super::course::{self, Failure, Passing, Policy, Repetition};
use super::request::Target;
use super::resolver::{Refused, Resolver};
use super::wire::{self, Connector};
use crate::config::AddressRange;

/// Idle connections are dropped before the upstream does: Node closes them after 5 s.
const IDLE_TIME_MAX: Duration = Duration::from_secs(4);

/// How a question is asked that is no event: again as long as nothing answers.
const QUESTION: Policy =
    Policy { passing: Passing::Never, repetition: Repetition::Silent, is_notice: false };

/// Sends requests over a pool of connections, and to no refused address. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Http {
    client: Client<Connector, Full<Bytes>>,
    resolver: Resolver,
}

impl Http {
    /// Returns a client that goes to no `refused` address, follows no redirect and believes certificates of `roots`.
    ///
    /// # Errors
    /// TLS cannot be set up.
    pub(super) fn new(refused: Vec<AddressRange>, roots: RootCertStore) -> io::Result<Self> {
        let resolver = Resolver::new(refused);
        let client = Client::builder(TokioExecutor::new())
            .pool_idle_timeout(IDLE_TIME_MAX)
            .pool_timer(TokioTimer::new())
            .retry_canceled_requests(false)
            .http1_preserve_header_case(true)
            .http1_max_buf_size(HEAD_BYTES_MAX)
            .http1_max_headers(HEADERS_MAX)
            .build(Connector::new(resolver.clone(), roots)?);
        Ok(Self { client, resolver })
    }

    /// Returns whether the target's host is a name, which is judged when it is looked up, or an allowed address.
    pub(super) fn may_call(&self, target: &Target) -> bool {
        self.resolver.is_allowed_host(&target.url)
    }

    /// Sends a request: returns the head of its answer, and what is ready when the request was fully written.
    pub(super) fn send(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> (
        impl Future<Output = Result<Response<Incoming>, Failure>> + Send + use<>,
        impl Future<Output = ()> + Send + use<>,
    ) {
        let body_bytes = request.body().size_hint().lower();
        let captured = capture_connection(&mut request);
        let written = wire::written(captured.clone(), body_bytes);
        let response = self.client.request(request);
        let head = async move { response.await.map_err(|error| failure(error, &captured)) };
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
        course::run(QUESTION, &CancellationToken::new(), || self.send(request()), never).await
    }
}

/// Returns what may be done about an attempt without an answer.
fn failure(error: Error, captured: &CaptureConnection) -> Failure {
    if is_caused_by::<Refused>(&error, |_| true) {
        return Failure::Final(CallError::RefusedAddress);
    }
    if error.is_connect() {
        return Failure::Silent(CallError::Unreachable(error));
    }
    // hyper gives back what it has not begun to send.
    let is_returned = is_caused_by(&error, hyper::Error::is_canceled);
    let turn = wire::turn(captured);
    let is_stale = turn.is_some_and(|turn| turn.is_stale(is_returned));
    let is_answered = turn.is_some_and(|turn| turn.is_answered() && !is_returned);
    let error = CallError::Broken(error.into());
    match (is_stale, is_answered) {
        (true, _) if is_returned => Failure::Unsent(error),
        (true, _) => Failure::Crossed(error),
        (false, true) => Failure::Final(error),
        (false, false) => Failure::Silent(error),
    }
}

fn is_caused_by<E: std::error::Error + 'static>(error: &Error, is: impl Fn(&E) -> bool) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(error) = source {
        // What an I/O error wraps is not its source but itself.
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        let inner = inner.and_then(|inner| inner.downcast_ref::<E>());
        if error.downcast_ref::<E>().or(inner).is_some_and(&is) {
            return true;
        }
        source = error.source();
    }
    false
}
