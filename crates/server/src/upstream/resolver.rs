//! Names to addresses, without those at which no upstream may be called.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper_util::client::legacy::connect::dns::{GaiResolver, Name};
use tower::Service;
use url::{Host, Url};

use crate::config::AddressRange;

/// The system's resolver behind the rule.
#[derive(Debug, Clone)]
pub(super) struct Resolver {
    system: GaiResolver,
    refused: Arc<[AddressRange]>,
}

/// All addresses of a name are refused ones.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the name leads to refused addresses only")]
pub(super) struct Refused;

impl Resolver {
    /// Returns a resolver that leaves addresses in the ranges out.
    pub(super) fn new(refused: Vec<AddressRange>) -> Self {
        Self { system: GaiResolver::new(), refused: refused.into() }
    }

    /// Returns whether a URL's host is a name, which is judged when it is looked up, or an allowed address.
    pub(super) fn is_allowed_host(&self, url: &Url) -> bool {
        match url.host() {
            Some(Host::Domain(_)) => true,
            Some(Host::Ipv4(address)) => is_allowed(&self.refused, address.into()),
            Some(Host::Ipv6(address)) => is_allowed(&self.refused, address.into()),
            None => false,
        }
    }
}

impl Service<Name> for Resolver {
    type Response = std::vec::IntoIter<SocketAddr>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.system.poll_ready(context)
    }

    fn call(&mut self, name: Name) -> Self::Future {
        let addresses = self.system.call(name);
        let refused = self.refused.clone();
        Box::pin(async move {
            let mut addresses: Vec<_> = addresses.await?.collect();
            let found = addresses.len();
            addresses.retain(|address| is_allowed(&refused, address.ip()));
            if 0 < found && addresses.is_empty() {
                return Err(io::Error::other(Refused));
            }
            Ok(addresses.into_iter())
        })
    }
}

fn is_allowed(refused: &[AddressRange], address: IpAddr) -> bool {
    !refused.iter().any(|range| range.contains(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_addresses_are_refused_in_every_spelling() {
        let resolver = Resolver::new(AddressRange::metadata_services());
        let is_allowed = |url: &str| resolver.is_allowed_host(&Url::parse(url).unwrap());
        for url in [
            "http://169.254.169.254/latest",
            "http://[::ffff:169.254.169.254]/",
            "http://2852039166/",
            "http://0xA9FEA9FE/",
            "http://0251.0376.0251.0376/",
            "http://[fd00:ec2::254]/",
            "http://[fe80::1]/",
            "http://0.0.0.0/",
        ] {
            assert!(!is_allowed(url), "{url}");
        }
        for url in
            ["http://127.0.0.1:7071/", "http://[::1]/", "http://localhost/", "http://10.0.0.1/"]
        {
            assert!(is_allowed(url), "{url}");
        }
    }

    #[tokio::test]
    async fn names_are_judged_by_what_they_lead_to() {
        let name = || "localhost".parse::<Name>().unwrap();
        let everywhere = ["127.0.0.0/8", "::1"].map(|range| range.parse().unwrap()).to_vec();
        let error: io::Error = Resolver::new(everywhere).call(name()).await.unwrap_err();
        assert!(error.downcast::<Refused>().is_ok());

        let other_family = vec!["::1".parse().unwrap()];
        let addresses: Vec<_> = Resolver::new(other_family).call(name()).await.unwrap().collect();
        assert!(addresses.iter().all(|address| address.ip().is_loopback()));
        assert!(addresses.iter().any(SocketAddr::is_ipv4));
        assert!(!addresses.iter().any(SocketAddr::is_ipv6));
    }
}
