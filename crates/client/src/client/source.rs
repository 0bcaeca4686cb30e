//! Where the URLs come from by which a client connects.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use url::Url;

use crate::service_client::ClientUrl;

type Error = Arc<dyn std::error::Error + Send + Sync>;
type Pending = Pin<Box<dyn Future<Output = Result<Url, Error>> + Send>>;

/// A URL, or a way to get one for each new connection. `Debug` shows none: there is a token in it.
#[derive(Clone)]
pub struct UrlSource(Inner);

#[derive(Clone)]
enum Inner {
    Fixed(Url),
    Fresh(Arc<dyn Fn() -> Pending + Send + Sync>),
}

impl UrlSource {
    /// Asks for a URL whenever a new connection is to be made, since the token in an older one may have expired by then.
    ///
    /// ```
    /// use hookwire_client::{ClientAccess, ServiceClient, UrlSource};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let line = "Endpoint=http://localhost;Port=8080;AccessKey=secret;";
    /// // Mostly this is a call of the application's own server, which knows the key.
    /// let service = ServiceClient::new(line, "chat")?;
    /// let ann = ClientAccess::new().user("ann");
    /// let source = UrlSource::fresh(move || {
    ///     let access = service.client_access(&ann).map(|access| access.url);
    ///     async move { access }
    /// });
    /// # Ok(())
    /// # }
    /// ```
    pub fn fresh<F, A, E>(ask: F) -> Self
    where
        F: Fn() -> A + Send + Sync + 'static,
        A: Future<Output = Result<Url, E>> + Send + 'static,
        E: std::error::Error + Send + Sync + 'static,
    {
        Self(Inner::Fresh(Arc::new(move || {
            let asked = ask();
            Box::pin(async move { asked.await.map_err(|error| Arc::new(error) as Error) })
        })))
    }

    pub(super) fn is_fixed(&self) -> bool {
        matches!(self.0, Inner::Fixed(_))
    }

    pub(super) async fn url(&self) -> Result<Url, Error> {
        match &self.0 {
            Inner::Fixed(url) => Ok(url.clone()),
            Inner::Fresh(ask) => ask().await,
        }
    }
}

impl fmt::Debug for UrlSource {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("UrlSource")
    }
}

impl From<Url> for UrlSource {
    fn from(url: Url) -> Self {
        Self(Inner::Fixed(url))
    }
}

impl From<&Url> for UrlSource {
    fn from(url: &Url) -> Self {
        url.clone().into()
    }
}

impl From<ClientUrl> for UrlSource {
    fn from(access: ClientUrl) -> Self {
        access.url.into()
    }
}
