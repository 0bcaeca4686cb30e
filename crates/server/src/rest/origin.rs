//! By which name the service is reached: what absolute URLs in answers start with.

use hookwire_proto::token::HostNames;
use http::HeaderMap;
use http::header::HOST;
use http::uri::Authority;
use url::Url;

/// Returns scheme, host and port of the endpoint that a caller used: as its `Host` header spells it when that is one of the
/// `endpoints`, otherwise the first endpoint, since something in front of the service has a name of its own.
pub(super) fn origin(endpoints: &[Url], headers: &HeaderMap) -> String {
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let used = host.and_then(|host| host.parse::<Authority>().ok());
    let used = used.and_then(|used| {
        let meant = endpoints.iter().find(|endpoint| is_meant(endpoint, &used))?;
        Some(format!("{}://{used}", meant.scheme()))
    });
    let first = || endpoints.first().map(|endpoint| endpoint.origin().ascii_serialization());
    used.or_else(first).unwrap_or_default()
}

/// Whether a request to that authority is one to this endpoint.
pub(crate) fn is_meant(endpoint: &Url, used: &Authority) -> bool {
    let default_port = if endpoint.scheme() == "https" { 443 } else { 80 };
    let has_user = used.as_str().contains('@');
    !has_user
        && endpoint.port_or_known_default() == Some(used.port_u16().unwrap_or(default_port))
        && endpoint
            .host_str()
            .and_then(|host| HostNames::parse([host]).ok())
            .is_some_and(|names| names.contains(used.host()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn from(endpoints: &[&str], host: &str) -> String {
        let endpoints: Vec<Url> = endpoints.iter().map(|url| url.parse().unwrap()).collect();
        let mut headers = HeaderMap::new();
        if !host.is_empty() {
            headers.insert(HOST, HeaderValue::from_str(host).unwrap());
        }
        origin(&endpoints, &headers)
    }

    #[test]
    fn a_caller_is_sent_back_to_the_name_that_it_used_if_it_is_ours() {
        let ours = ["https://hub.example", "http://127.0.0.1:8080", "http://[::1]:9000"];
        for (host, expected) in [
            ("hub.example", "https://hub.example"),
            ("HUB.example:443", "https://HUB.example:443"),
            ("localhost:8080", "http://localhost:8080"),
            ("127.0.0.1:8080", "http://127.0.0.1:8080"),
            ("[::1]:9000", "http://[::1]:9000"),
            // Another port of ours, a stranger, no host at all, nonsense.
            ("hub.example:8080", "https://hub.example"),
            ("evil.example", "https://hub.example"),
            ("", "https://hub.example"),
            ("a b", "https://hub.example"),
            ("x@localhost:8080", "https://hub.example"),
        ] {
            assert_eq!(from(&ours, host), expected, "{host}");
        }
        assert_eq!(from(&[], "localhost"), "");
    }
}
