//! What a call came to, in a word for programs and a sentence for people that says how to mend it.

use hookwire_hub::{Event, UpstreamAnswer};
use hookwire_proto::cloud_event::ConnectAnswer;
use hookwire_proto::name::UserId;

use super::answer::{BODY_BYTES_MAX, CONNECT_BODY_BYTES_MAX};
use super::validation::Verdict;
use super::{CallError, chain};

/// What a call came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) ok: bool,
    /// A word for programs; all of them are listed in `docs/console.md`.
    pub(super) verdict: &'static str,
    /// What is wrong and how to mend it.
    pub(super) reason: Option<String>,
}

impl Outcome {
    const DELIVERED: Self = Self { ok: true, verdict: "delivered", reason: None };

    fn fault(verdict: &'static str, reason: impl Into<String>) -> Self {
        Self { ok: false, verdict, reason: Some(reason.into()) }
    }

    /// Returns what the call that brought `event` came to.
    pub(super) fn of(event: &Event, result: &Result<UpstreamAnswer, CallError>) -> Self {
        match result {
            Ok(answer) => match of_status(answer.status) {
                Self { ok: true, .. } => of_answer(event, answer),
                fault => fault,
            },
            Err(error) => of_error(error),
        }
    }

    /// Returns what the delivery of a copy came to, of which the status alone counts.
    pub(super) fn of_copy(result: &Result<UpstreamAnswer, CallError>) -> Self {
        match result {
            Ok(answer) => of_status(answer.status),
            Err(error) => of_error(error),
        }
    }

    /// Returns what the question whether an upstream wants events came to.
    pub(super) fn of_validation(verdict: Result<(), &Verdict>) -> Self {
        match verdict {
            Ok(()) => Self { ok: true, verdict: "validated", reason: None },
            Err(verdict) => of_verdict(verdict),
        }
    }
}

fn of_status(status: u16) -> Outcome {
    match status {
        200..300 => Outcome::DELIVERED,
        300..400 => Outcome::fault(
            "redirected",
            format!(
                "the upstream answered {status}; redirects are not followed: name the final URL in the settings"
            ),
        ),
        401 => Outcome::fault(
            "refused_by_upstream",
            "the upstream answered 401: unless it means this client, it checks the signature with another access key than those of this \
             service, or wants a key in the URL",
        ),
        404 | 405 => Outcome::fault(
            "not_found",
            format!(
                "the upstream answered {status}: nothing takes POST at this path; compare the URL template with the upstream's route"
            ),
        ),
        413 => Outcome::fault(
            "refused_by_upstream",
            "the upstream answered 413: the message is larger than its server allows",
        ),
        400..500 => {
            Outcome::fault("refused_by_upstream", format!("the upstream answered {status}"))
        }
        _ => Outcome::fault(
            "upstream_failed",
            format!("the upstream answered {status}: it failed; its own log says why"),
        ),
    }
}

/// Returns what is thought of the content of a 2xx answer. The hub reads it by the same rules.
fn of_answer(event: &Event, answer: &UpstreamAnswer) -> Outcome {
    let bad = |reason: String| Outcome::fault("bad_answer", reason);
    match event {
        Event::Connect { .. } => match answer.user.as_deref().map(UserId::parse) {
            Some(Err(error)) => {
                bad(format!("X-ASRS-User-Id of the answer cannot be used: {error}"))
            }
            Some(Ok(_)) | None => Outcome::DELIVERED,
        },
        Event::Connecting(request) => match ConnectAnswer::parse(&answer.body) {
            Err(error) => {
                bad(format!("the answer to the connect event is malformed: {}", chain(&error)))
            }
            Ok(ConnectAnswer { subprotocol: Some(chosen), .. })
                if !request.subprotocols.contains(&chosen) =>
            {
                bad(format!(
                    "the answer chooses the subprotocol {chosen:?}, which the client did not offer"
                ))
            }
            Ok(_) => Outcome::DELIVERED,
        },
        Event::Message(_)
        | Event::Disconnect
        | Event::Connected
        | Event::User(_)
        | Event::Disconnected { .. }
        | Event::Joined(_)
        | Event::Left(_) => Outcome::DELIVERED,
    }
}

fn of_verdict(verdict: &Verdict) -> Outcome {
    match verdict {
        Verdict::MissingAllowedOrigin { expected, actual } => Outcome::fault(
            "not_allowed_origin",
            format!(
                "the answer to OPTIONS must allow this service: WebHook-Allowed-Origin names {actual}, needed is {expected} or *"
            ),
        ),
        Verdict::InvalidStatusCode(status) => Outcome::fault(
            "validation_refused",
            format!(
                "the upstream answered {status} to OPTIONS, by which it must say that it wants events: 200 with WebHook-Allowed-Origin"
            ),
        ),
        Verdict::Failed(reason) => Outcome::fault(
            "validation_failed",
            format!("the upstream could not be asked by OPTIONS whether it wants events: {reason}"),
        ),
    }
}

fn of_error(error: &CallError) -> Outcome {
    let fault =
        |verdict, advice: &str| Outcome::fault(verdict, format!("{}{advice}", chain(error)));
    match error {
        CallError::Url => fault("bad_url", ": check the URL template"),
        CallError::NoTunnel => {
            fault("no_tunnel", "; whoever serves this hub's events must open one")
        }
        CallError::TunnelLost => fault("broken_off", ""),
        CallError::TooLongForTunnel => fault("too_large", ""),
        CallError::RefusedAddress => fault("refused_address", ": see upstream.refused_addresses"),
        CallError::Unvalidated(verdict) => of_verdict(verdict),
        CallError::NoToken(_) => fault("no_token", "; see the handler's auth"),
        CallError::Overloaded => {
            fault("overloaded", ": it is slower than its clients; see upstream.calls_in_flight_max")
        }
        CallError::Unreachable(cause) if is_of_tls(cause) => fault(
            "tls_failed",
            "; the certificate must be valid for this host and made by a known authority",
        ),
        CallError::Unreachable(_) => {
            fault("connect_failed", "; does it run, and at this host and port?")
        }
        CallError::Broken(_) => fault("broken_off", " before the answer was complete"),
        CallError::Timeout(_) => fault("timed_out", ""),
        CallError::TooLarge(limit) => Outcome::fault(
            "too_large",
            format!(
                "the answer exceeds {limit} bytes; at most {CONNECT_BODY_BYTES_MAX} are read of the answer to a connect event, {BODY_BYTES_MAX} of others"
            ),
        ),
        CallError::Encoded => fault("bad_answer", "; switch compression off for the webhook"),
        CallError::NotUtf8 | CallError::NotJson => {
            fault("bad_answer", "; mend the Content-Type or the body")
        }
        CallError::UserId | CallError::State | CallError::Cookies | CallError::TunnelAnswer => {
            fault("bad_answer", "")
        }
        CallError::GivenUp => fault("given_up", ": nobody waited for the answer any more"),
    }
}

fn is_of_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<rustls::Error>() {
            return true;
        }
        // What an I/O error wraps is not its source but itself, perhaps an I/O error again.
        let inner = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        next = match inner {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}
