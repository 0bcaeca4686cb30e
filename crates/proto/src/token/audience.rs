//! Whether a token was made for the URL that it is used on.

use std::fmt;

use percent_encoding::percent_decode_str;

/// The URL that a request asks for, as the `aud` of its token must name it.
///
/// Signers differ in scheme, port, query, a trailing slash, percent-encoding and case, so none of these counts (preview
/// protocol, "JWT audience"; Web PubSub protocol, "Access key"): from both sides the scheme, the port, the query and one trailing
/// slash are taken off, the rest is percent-decoded once and compared without regard to ASCII case. The host must be one of the service's public names, whatever
/// the request's own `Host` says.
#[derive(Clone, Copy, Debug)]
pub struct Audience<'a> {
    /// The names of this service.
    pub hosts: &'a HostNames,
    /// The request's path as it came, a query included or not.
    pub path: &'a str,
}

impl Audience<'_> {
    /// Returns whether `named`, the text of an `aud`, means this URL.
    pub fn is_named_by(&self, named: &str) -> bool {
        let Some((scheme, rest)) = named.split_once("://") else { return false };
        if !["http", "https", "ws", "wss"].iter().any(|known| known.eq_ignore_ascii_case(scheme)) {
            return false;
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if !self.hosts.contains(without_port(authority)) {
            return false;
        }
        // Signers that encode nothing may mean a percent sign by a percent sign.
        let bare = |path| undecoded(path).bytes().map(|byte| byte.to_ascii_lowercase());
        comparable(path).eq(comparable(self.path)) || bare(path).eq(comparable(self.path))
    }
}

/// Writes what an `aud` should have named: `//host|host/path`.
impl fmt::Display for Audience<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "//{}{}", self.hosts.0.join("|"), without_query(self.path))
    }
}

/// The host names by which clients and upstreams know a service. Ports do not count.
///
/// `localhost`, `127.0.0.1` and `[::1]` are one host.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostNames(Vec<String>);

impl HostNames {
    /// Takes host names as a URL writes them: IPv6 addresses in brackets, no port.
    ///
    /// # Errors
    /// [`HostNamesError`] names the one that is no host name.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, HostNamesError> {
        let mut known = Vec::new();
        for name in names {
            if url::Host::parse(name).is_err() {
                return Err(HostNamesError { name: name.to_owned() });
            }
            let name = canonical(name).to_ascii_lowercase();
            if !known.contains(&name) {
                known.push(name);
            }
        }
        Ok(Self(known))
    }

    /// Returns whether `host` is one of the names.
    pub fn contains(&self, host: &str) -> bool {
        let host = canonical(host);
        self.0.iter().any(|known| known.eq_ignore_ascii_case(host))
    }
}

/// A configured host name cannot be one.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not a host name")]
pub struct HostNamesError {
    /// What was given.
    pub name: String,
}

fn canonical(host: &str) -> &str {
    match host {
        "127.0.0.1" | "[::1]" => "localhost",
        other => other,
    }
}

/// Takes off `:port`. The colons inside an IPv6 address stand before a bracket.
fn without_port(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

fn without_query(path: &str) -> &str {
    path.split_once('?').map_or(path, |(path, _)| path)
}

/// Returns the bytes of a path that count: no query, no trailing slash, decoded once, in lower case.
fn comparable(path: &str) -> impl Iterator<Item = u8> + '_ {
    percent_decode_str(undecoded(path)).map(|byte| byte.to_ascii_lowercase())
}

fn undecoded(path: &str) -> &str {
    let path = without_query(path);
    path.strip_suffix('/').unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn named(hosts: &[&str], path: &str, named: &str) -> bool {
        let hosts = HostNames::parse(hosts.iter().copied()).unwrap();
        Audience { hosts: &hosts, path }.is_named_by(named)
    }

    #[test]
    fn what_known_signers_write_is_accepted() {
        for (path, aud) in [
            // The older library: no port, connections as they are, groups encoded.
            (
                "/ws/api/v1/hubs/chat/connections/abc",
                "http://localhost/ws/api/v1/hubs/chat/connections/abc",
            ),
            (
                "/ws/api/v1/hubs/chat/groups/a%20b",
                "http://localhost/ws/api/v1/hubs/chat/groups/a%20b",
            ),
            ("/ws/api/v1/hubs/chat/", "http://localhost/ws/api/v1/hubs/chat/"),
            // It signs the reason as written, an HTTP client sends it encoded.
            (
                "/ws/api/v1/hubs/c/connections/i?reason=bye%20now",
                "http://localhost/ws/api/v1/hubs/c/connections/i?reason=bye now/?",
            ),
            ("/manage/v1/ws/upstream", "http://localhost/manage/v1/ws/upstream"),
            ("/ws/client/hubs/chat/?access_token=x", "http://localhost/ws/client/hubs/chat"),
            ("/", "http://localhost?no=path"),
            // Its last version: ws scheme for clients. The newer SDKs: port and query, host in lower case alone.
            ("/client/hubs/Chat", "wss://localhost/client/hubs/Chat"),
            ("/client/hubs/Chat?access_token=x", "http://localhost:8080/client/hubs/Chat"),
            (
                "/api/hubs/chat/:send?api-version=2024-01-01",
                "https://LOCALHOST:443/api/hubs/chat/:send?api-version=2024-01-01&filter=a",
            ),
            ("/api/hubs/chat/groups/%C3%A4", "https://localhost/api/hubs/chat/groups/ä"),
            ("/api/hubs/chat/groups/100%25", "https://localhost/api/hubs/chat/groups/100%"),
            ("/api/hubs/chat/groups/%2541", "https://localhost/api/hubs/chat/groups/%41"),
            ("/api/hubs/chat/groups/%2541", "https://localhost/api/hubs/chat/groups/%2541"),
        ] {
            assert!(named(&["localhost"], path, aud), "{aud}");
        }
    }

    #[test]
    fn other_urls_are_refused() {
        for (path, aud) in [
            ("/ws/api/v1/hubs/chat", "http://localhost/ws/api/v1/hubs/other"),
            ("/ws/api/v1/hubs/chat", "http://localhost/ws/api/v1/hubs/chat/groups/g"),
            ("/ws/api/v1/hubs/chat", "http://localhost/ws/api/v1/hubs/chat//"),
            ("/ws/api/v1/hubs/chat", "http://localhost"),
            ("/ws/api/v1/hubs/chat", "http://evil.example/ws/api/v1/hubs/chat"),
            ("/ws/api/v1/hubs/chat", "http://localhost@evil.example/ws/api/v1/hubs/chat"),
            ("/ws/api/v1/hubs/chat", "http://evil.example:x@localhost/ws/api/v1/hubs/chat"),
            ("/ws/api/v1/hubs/chat", "http://evil.example?//localhost/ws/api/v1/hubs/chat"),
            ("/ws/api/v1/hubs/chat", "http://evil.example#@localhost/ws/api/v1/hubs/chat"),
            ("/ws/api/v1/hubs/chat", "ftp://localhost/ws/api/v1/hubs/chat"),
            ("/ws/api/v1/hubs/chat", "localhost/ws/api/v1/hubs/chat"),
            ("/ws/api/v1/hubs/chat", "/ws/api/v1/hubs/chat"),
            ("/ws/api/v1/hubs/chat", ""),
            // Decoded once, not twice.
            ("/groups/a", "http://localhost/groups/%2561"),
            // An encoded question mark or slash belongs to the name.
            ("/groups/a", "http://localhost/groups/a%3Fb"),
            ("/groups/a", "http://localhost/groups/a%2F"),
        ] {
            assert!(!named(&["localhost"], path, aud), "{aud}");
        }
        assert!(!named(&[], "/x", "http://localhost/x"));
    }

    #[test]
    fn the_three_names_of_this_machine_are_one_host() {
        for configured in ["localhost", "127.0.0.1", "[::1]", "LOCALHOST"] {
            for used in ["localhost", "127.0.0.1:8080", "[::1]", "[::1]:8080", "LocalHost"] {
                assert!(
                    named(&[configured], "/x", &format!("http://{used}/x")),
                    "{configured} {used}"
                );
            }
        }
        assert!(!named(&["service.example"], "/x", "http://localhost/x"));
    }

    #[test]
    fn host_names_are_checked() {
        for wrong in ["", "a b", "http://h", "h/x", "::1", "h:80"] {
            assert_eq!(HostNames::parse([wrong]), Err(HostNamesError { name: wrong.to_owned() }));
        }
    }

    proptest! {
        /// Every decoration that does not count leaves a name recognised, on a host of its own.
        #[test]
        fn decorations_do_not_count(
            segments in prop::collection::vec("[a-z%0-9]{1,8}", 1..5), port in prop::option::of(1u16..), slash: bool, query in prop::option::of("[a-z/?]{0,9}"),
        ) {
            let path = format!("/{}", segments.join("/"));
            let port = port.map_or(String::new(), |port| format!(":{port}"));
            let query = query.map_or(String::new(), |query| format!("?{query}"));
            let aud = format!("WSS://Service.Example{port}{}{}{query}", path.to_ascii_uppercase(), if slash { "/" } else { "" });
            prop_assert!(named(&["service.example"], &path, &aud));
        }

        #[test]
        fn another_path_is_another_audience(one in "(/[a-z]{1,4}){1,3}", other in "(/[a-z]{1,4}){1,3}") {
            prop_assert_eq!(named(&["h"], &one, &format!("http://h{other}")), one == other);
        }

        #[test]
        fn garbage_never_panics(aud in "\\PC{0,80}", path in "\\PC{0,80}") {
            prop_assert!(!named(&["service.example"], &path, &aud));
        }
    }
}
