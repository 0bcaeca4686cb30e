//! Names to addresses, without those that no upstream may have: cloud metadata services and other link-local addresses.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tower::Service;
use url::{Host, Url};

/// The system's resolver behind the rule.
#[derive(Debug, Clone)]
pub(super) struct Resolver(GaiResolver);

impl Default for Resolver {
    fn default() -> Self {
        Self(GaiResolver::new())
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let addresses = self.0.call(name);
        Box::pin(async move {
            let allowed: Vec<_> =
                addresses.await?.filter(|address| is_allowed(address.ip())).collect();
            if allowed.is_empty() {
                return Err(io::Error::other("the name leads to refused addresses only"));
            }
            Ok(allowed.into_iter())
        })
    }
}

/// Returns whether a URL's host is a name, which the resolver judges, or an allowed address.
pub(super) fn is_allowed_host(url: &Url) -> bool {
    match url.host() {
        Some(Host::Domain(_)) => true,
        Some(Host::Ipv4(address)) => is_allowed(address.into()),
        Some(Host::Ipv6(address)) => is_allowed(address.into()),
        None => false,
    }
}

/// Link-local addresses carry the metadata services of most clouds (169.254.169.254, fe80::), fd00:ec2::254 that of another.
/// Loopback is allowed: that is how people develop.
fn is_allowed(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => !address.is_link_local() && !address.is_unspecified(),
        IpAddr::V6(address) => {
            !address.is_unicast_link_local()
                && !address.is_unspecified()
                && address.segments() != [0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_addresses_are_refused_in_every_spelling() {
        for url in [
            "http://169.254.169.254/latest",
            "http://[::ffff:169.254.169.254]/",
            "http://2852039166/",
            "http://0xA9FEA9FE/",
            "http://[fd00:ec2::254]/",
            "http://[fe80::1]/",
            "http://0.0.0.0/",
        ] {
            assert!(!is_allowed_host(&Url::parse(url).unwrap()), "{url}");
        }
        for url in
            ["http://127.0.0.1:7071/", "http://[::1]/", "http://localhost/", "http://10.0.0.1/"]
        {
            assert!(is_allowed_host(&Url::parse(url).unwrap()), "{url}");
        }
    }
}
