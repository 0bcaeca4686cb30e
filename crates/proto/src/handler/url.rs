//! Where a handler is.

use std::fmt;

use crate::name::HubName;
use crate::template::{Parameters, TemplateFault, UrlTemplate};
use crate::tunnel;

/// The URL of a handler with the parameters `{hub}` and `{event}`, which cannot change the server that is called (Web PubSub
/// protocol, "Event handler"). `Debug` leaves the query out, which may hold a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandlerUrl {
    /// Called over `http` or `https`.
    Http(UrlTemplate),
    /// `tunnel:///…`: called through a connection that the upstream has opened.
    Tunnel(UrlTemplate),
}

impl fmt::Display for HandlerUrl {
    /// Writes the URL as it was written, keys in its query included.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Http(template) | Self::Tunnel(template)) = self;
        template.fmt(f)
    }
}

impl HandlerUrl {
    /// Returns the checked URL.
    ///
    /// # Errors
    /// [`TemplateFault`] names the first fault.
    pub fn parse(raw: &str) -> Result<Self, TemplateFault> {
        let raw = raw.trim();
        let template = UrlTemplate::parse(raw, Parameters::WebPubSub)?;
        Ok(if tunnel::path(raw).is_some() { Self::Tunnel(template) } else { Self::Http(template) })
    }

    /// Returns the URL for an event of a hub.
    pub fn url(&self, hub: &HubName, event: &str) -> String {
        let (Self::Http(template) | Self::Tunnel(template)) = self;
        template.expand(hub.as_str(), "", event)
    }

    /// Returns the URL that is asked before the first event: the event is `validate` (Web PubSub protocol, "Abuse protection").
    pub fn validation_url(&self, hub: &HubName) -> String {
        self.url(hub, "validate")
    }

    /// Whether it is called through the tunnel.
    pub const fn is_tunnel(&self) -> bool {
        matches!(self, Self::Tunnel(_))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn url(template: &str, event: &str) -> String {
        HandlerUrl::parse(template).unwrap().url(&HubName::parse("Chat").unwrap(), event)
    }

    #[test]
    fn parameters_are_replaced_and_keys_stay() {
        assert_eq!(
            url("https://h.example:81/api/{hub}/{event}?e={event}&code=a/b==", "order.paid"),
            "https://h.example:81/api/chat/order.paid?e=order.paid&code=a/b=="
        );
        assert_eq!(url("http://h", "x"), "http://h");
        assert_eq!(url("http://h/{event}", "a/../b?c"), "http://h/a%2F..%2Fb%3Fc");
        let hub = HubName::parse("chat").unwrap();
        let handler = HandlerUrl::parse("http://h/{hub}/{event}").unwrap();
        assert_eq!(handler.validation_url(&hub), "http://h/chat/validate");
    }

    #[test]
    fn tunnel_urls_are_their_own_kind() {
        for raw in ["tunnel:///api/{event}", " Tunnel:///api/{event}"] {
            let handler = HandlerUrl::parse(raw).unwrap();
            assert!(handler.is_tunnel());
            assert!(handler.url(&HubName::parse("c").unwrap(), "e").ends_with(":///api/e"));
        }
        assert!(!HandlerUrl::parse("http://tunnel/").unwrap().is_tunnel());
    }

    #[test]
    fn faulty_urls_are_refused() {
        for (raw, words) in [
            ("", "not a URL"),
            ("ftp://h/", "http or https"),
            ("tunnel://h/x", "http or https"),
            ("tunnel:///{category}", "{hub} and {event}"),
            ("http://{hub}.example/", "scheme, host or port"),
            ("http://h/{category}", "{hub} and {event}"),
            ("http://h/{@Microsoft.KeyVault(SecretUri=x)}", "is not a parameter"),
            ("http://u:p@h/", "password"),
        ] {
            let error = HandlerUrl::parse(raw).unwrap_err().to_string();
            assert!(error.contains(words), "{raw}: {error}");
        }
    }

    #[test]
    fn debug_shows_no_key() {
        let handler = HandlerUrl::parse("http://h/{event}?code=secret").unwrap();
        assert_eq!(format!("{handler:?}"), "Http(http://h/{event}?[redacted])");
    }

    proptest! {
        #[test]
        fn hostile_urls_never_panic(raw in "(tunnel:///|http://)?.{0,40}", event in ".{0,20}") {
            if let Ok(handler) = HandlerUrl::parse(&raw) {
                handler.url(&HubName::parse("h").unwrap(), &event);
            }
        }
    }
}
