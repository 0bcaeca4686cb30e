//! What has to hold for any request, for the fuzz targets `rest_path` and `handshake` and for the test that replays their inputs. Built for
//! tests and fuzzers alone.

use std::net::{Ipv4Addr, SocketAddr};

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header};
use percent_encoding::percent_decode_str;

use crate::{handshake, route};

const METHODS: [Method; 7] = [
    Method::GET,
    Method::HEAD,
    Method::POST,
    Method::PUT,
    Method::DELETE,
    Method::OPTIONS,
    Method::PATCH,
];

/// Reads `input` as a method (the first byte chooses) and a request target. A target that is not refused means the same however its
/// segments are escaped, and what is refused is so with a status for it.
///
/// # Panics
/// If it is not so.
pub fn rest_path(input: &[u8]) {
    let Some((first, target)) = input.split_first() else { return };
    let method = &METHODS[usize::from(*first) % METHODS.len()];
    let Ok(uri) = Uri::try_from(target) else { return };
    match route::parse(method, &uri) {
        Ok(route) => {
            assert!(!route.name().is_empty());
            let escaped = escaped(&uri);
            assert_eq!(route::parse(method, &escaped).ok(), Some(route), "{uri} and {escaped}");
        }
        Err(error) => assert!(
            matches!(
                error.status(),
                StatusCode::BAD_REQUEST | StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED
            ),
            "{uri}: {}",
            error.status()
        ),
    }
}

/// Returns the same target with every byte of the path escaped but the slashes between segments.
fn escaped(uri: &Uri) -> Uri {
    let mut target = String::new();
    for (index, segment) in uri.path().split('/').enumerate() {
        if 0 < index {
            target.push('/');
        }
        target.extend(percent_decode_str(segment).map(|byte| format!("%{byte:02x}")));
    }
    if let Some(query) = uri.query() {
        target.push('?');
        target.push_str(query);
    }
    target.parse().expect("an escaped target is a target")
}

/// Reads `input` as the head of a client's request: a request target, then lines of `name: value`. What is let through is a handshake by
/// RFC 6455, and what the upstream is told of it holds no token and fits into headers.
///
/// # Panics
/// If it is not so.
pub fn handshake(input: &[u8]) {
    let mut lines = input.split(|byte| *byte == b'\n');
    let Ok(uri) = Uri::try_from(lines.next().unwrap_or_default()) else { return };
    let mut headers = HeaderMap::new();
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(line[..colon].trim_ascii());
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            headers.append(name, value);
        }
    }
    match handshake::accept_value(&headers) {
        Ok(accept) => {
            assert_eq!(accept.len(), 28, "a hash of 20 bytes in base64");
            assert_eq!(headers.get_all(header::SEC_WEBSOCKET_KEY).iter().count(), 1);
        }
        Err(error) => assert!(error.status().is_client_error()),
    }
    if let Ok(offered) = handshake::subprotocols(&headers) {
        assert!(offered.iter().all(|name| HeaderValue::from_str(name).is_ok()));
    }
    if let Ok(Some(offer)) = handshake::offer(&headers) {
        // What is answered is something that a client can agree to.
        let agreed = hookwire_proto::deflate::agree(offer.header());
        assert!(agreed.is_ok_and(|agreed| agreed.is_some()));
    }
    if let Ok(query) = handshake::query(uri.query().unwrap_or_default()) {
        assert!(HeaderValue::from_str(&query).is_ok());
        let mut names = url::form_urlencoded::parse(query.as_bytes()).map(|(name, _)| name);
        assert!(names.all(|name| name != crate::auth::ACCESS_TOKEN));
    }
    let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    if let Ok(chain) = handshake::forwarded_for(&headers, peer) {
        assert!(chain.ends_with("127.0.0.1") && HeaderValue::from_str(&chain).is_ok());
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Gives every input of `target` to `check`. What fails is named by the last line of the output.
    fn replay(target: &str, check: impl Fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
        let entries = folder.read_dir().unwrap();
        let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        assert!(!files.is_empty(), "{} is empty", folder.display());
        for file in files {
            eprintln!("{}", file.display());
            check(&std::fs::read(file).unwrap());
        }
    }

    #[test]
    fn paths_hold_what_they_promise() {
        replay("rest_path", super::rest_path);
    }

    #[test]
    fn handshakes_hold_what_they_promise() {
        replay("handshake", super::handshake);
    }
}
