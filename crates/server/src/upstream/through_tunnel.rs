//! Calls through the tunnel: the same requests as over HTTP, as the tunnel carries them (Web PubSub protocol, "Tunnel").

use bytes::Bytes;
use futures_util::FutureExt as _;
use hookwire_hub::{Reply, UpstreamAnswer};
use hookwire_proto::name::HubName;
use hookwire_proto::tunnel::{Headers, HttpRequest};
use http::{Request, header};
use http_body_util::{BodyExt as _, Full};

use super::CallError;
use super::answer::BODY_BYTES_MAX;
use super::course::Failure;
use super::request::spelled;
use crate::tunnel::Fault;

/// What a call without any tunnel is answered with: what a proxy says that has nobody to pass a request on to. The documents leave it
/// open (Web PubSub protocol, "The command line tool").
const NO_TUNNEL_STATUS: u16 = 503;

/// The host in the URL of a request: it means nothing, since whoever gets the request looks at the rest alone.
pub(super) const HOST: &str = "host";

/// Returns the name of a hub's tunnels among the upstreams.
pub(super) fn name(hub: &HubName) -> String {
    format!("tunnel:///{hub}")
}

/// Returns what a request is in a frame: without the headers that concern one HTTP connection.
pub(super) fn framed(request: Request<Full<Bytes>>) -> HttpRequest {
    let (head, body) = request.into_parts();
    let mut headers = Headers::new();
    for (name, value) in &head.headers {
        if [header::HOST, header::CONTENT_LENGTH].contains(name) {
            continue;
        }
        let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
        headers.entry(spelled(name).to_owned()).or_default().push(value);
    }
    // It is in memory: there is nothing to wait for, and nothing that could fail.
    let body = body.collect().now_or_never().and_then(Result::ok);
    let content = body.map(http_body_util::Collected::to_bytes).filter(|body| !body.is_empty());
    HttpRequest {
        http_method: head.method.to_string(),
        url: head.uri.to_string(),
        headers,
        content,
        ..HttpRequest::default()
    }
}

/// Returns what may be done about a request without an answer: the same as over HTTP. A hub whose tunnel is not there, or was lost, may
/// soon have one again.
pub(super) fn failure(fault: Fault) -> Failure {
    match fault {
        Fault::NoTunnel => Failure::Silent(CallError::NoTunnel),
        Fault::Unsent => Failure::Unsent(CallError::TunnelLost),
        Fault::Lost => Failure::Silent(CallError::TunnelLost),
        Fault::Overloaded => Failure::Final(CallError::Overloaded),
        Fault::TooLong => Failure::Final(CallError::TooLongForTunnel),
        Fault::TooLarge => Failure::Final(CallError::TooLarge(BODY_BYTES_MAX)),
        Fault::Malformed => Failure::Final(CallError::TunnelAnswer),
    }
}

/// Returns what the hub hears when no tunnel is there.
pub(super) fn no_tunnel() -> Reply {
    let answer = UpstreamAnswer { status: NO_TUNNEL_STATUS, ..UpstreamAnswer::default() };
    Reply::Answered(Box::new(answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_sent_may_be_sent_again_whatever_it_is() {
        assert!(matches!(failure(Fault::Unsent), Failure::Unsent(CallError::TunnelLost)));
        assert!(matches!(failure(Fault::Lost), Failure::Silent(CallError::TunnelLost)));
    }
}
