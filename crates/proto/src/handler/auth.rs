//! How the service proves to a handler who it is.

use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;
use subtle::ConstantTimeEq;
use url::Url;

/// How the service proves to a handler who it is, besides the signature of every event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum HandlerAuth {
    /// Not at all.
    #[default]
    None,
    /// By a token in `Authorization: Bearer`.
    Bearer {
        /// Where the token comes from.
        source: BearerSource,
    },
}

/// Where a bearer token comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BearerSource {
    /// A file that somebody else keeps fresh.
    File(PathBuf),
    /// An authorization server (RFC 6749, section 4.4).
    ClientCredentials(Box<ClientCredentials>),
}

/// What an authorization server wants to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCredentials {
    /// Its token endpoint.
    pub token_url: Url,
    /// Who asks.
    pub client_id: String,
    /// The proof.
    pub client_secret: Secret,
    /// What for; absent: the server's default.
    pub scope: Option<String>,
}

/// What is wrong with the proof.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthFault {
    /// Something that cannot be done here.
    #[error("{0:?} is not one of none, bearer")]
    Type(String),
    /// No source of tokens, or two.
    #[error("must have either file or tokenUrl")]
    Source,
    /// Something that belongs to a token URL and is not there.
    #[error("needs {0} beside tokenUrl")]
    Missing(&'static str),
    /// Something without the thing that it belongs to.
    #[error("has {0} without tokenUrl")]
    Alone(&'static str),
    /// Not a URL of an authorization server.
    #[error("tokenUrl must be https:// or http:// with a host and without a user name")]
    TokenUrl,
}

impl ClientCredentials {
    /// Returns the URL of a token endpoint.
    ///
    /// # Errors
    /// [`AuthFault::TokenUrl`] unless it is `https` or `http` without a user name.
    pub fn parse_token_url(raw: &str) -> Result<Url, AuthFault> {
        let url = Url::parse(raw.trim()).map_err(|_| AuthFault::TokenUrl)?;
        let is_plain = url.username().is_empty() && url.password().is_none();
        if is_plain && matches!(url.scheme(), "http" | "https") {
            return Ok(url);
        }
        Err(AuthFault::TokenUrl)
    }
}

/// A text that is shown to nobody: `Debug` writes `[redacted]`, and there is no `Display`. Compared in constant time.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text.
    pub const fn new(text: String) -> Self {
        Self(text)
    }

    /// Returns the text.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_bytes().ct_eq(other.0.as_bytes()).into()
    }
}

impl Eq for Secret {}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        let secret = Secret::new("hunter2".to_owned());
        assert_eq!(format!("{secret:?}"), "[redacted]");
        assert_eq!(secret.reveal(), "hunter2");
        assert_eq!(secret, Secret::new("hunter2".to_owned()));
        assert_ne!(secret, Secret::new("hunter".to_owned()));
    }
}
