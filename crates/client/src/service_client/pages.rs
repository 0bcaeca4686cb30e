//! Lists that come in pages.

use std::collections::VecDeque;

use http::Method;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Error as _};

use super::ServiceClient;
use crate::transport::ServiceError;

/// How to list.
#[derive(Clone, Copy, Debug, Default)]
pub struct ListOptions {
    /// Most items of a page. Default: the service's own, 200. It refuses sizes that it does not like.
    pub page_size: Option<u32>,
    /// Most items of all pages, at least one. Default: all.
    pub top: Option<u32>,
}

/// A list in pages, each asked for when it is needed.
///
/// ```no_run
/// # async fn example(service: hookwire_client::ServiceClient) -> Result<(), Box<dyn std::error::Error>> {
/// use hookwire_client::ListOptions;
///
/// let mut members = service.list_connections("readers", ListOptions::default())?;
/// while let Some(member) = members.next().await? {
///     println!("{} of {}", member.id, member.user.as_deref().unwrap_or("nobody"));
/// }
/// # Ok(())
/// # }
/// ```
///
/// A list is not a snapshot: what comes or goes meanwhile may be on it or not. Dropping the future of a call loses nothing: the
/// next call asks for the same page.
#[derive(Debug)]
pub struct Pages<T> {
    service: ServiceClient,
    path: String,
    /// The query of the next page; `None` after the last.
    next: Option<String>,
    left: Option<usize>,
    page: VecDeque<T>,
}

impl<T> Pages<T> {
    pub(super) fn new(service: ServiceClient, path: String, query: String) -> Self {
        Self { service, path, next: Some(query), left: None, page: VecDeque::new() }
    }

    pub(super) fn up_to(self, top: Option<u32>) -> Self {
        Self { left: top.map(|top| usize::try_from(top).unwrap_or(usize::MAX)), ..self }
    }
}

impl<T: DeserializeOwned> Pages<T> {
    /// Returns the next item, or nothing after the last.
    ///
    /// # Errors
    /// As of [`Pages::next_page`].
    pub async fn next(&mut self) -> Result<Option<T>, ServiceError> {
        while self.page.is_empty() {
            match self.next_page().await? {
                Some(page) => self.page = page.into(),
                None => return Ok(None),
            }
        }
        Ok(self.page.pop_front())
    }

    /// Returns the next page, which may be empty, or nothing after the last. Items that [`Pages::next`] has not taken come first.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call; [`ServiceError::Malformed`] when the answer is no page or links to another list.
    pub async fn next_page(&mut self) -> Result<Option<Vec<T>>, ServiceError> {
        if !self.page.is_empty() {
            return Ok(Some(std::mem::take(&mut self.page).into()));
        }
        let Some(query) = &self.next else { return Ok(None) };
        let call = self.service.call(Method::GET, &self.path, query);
        let request = call.to_string();
        let answer = self.service.perform(call).await?;
        let malformed = |source| ServiceError::Malformed { request, source };
        let (mut items, next) = match self.read(&answer) {
            Ok(read) => read,
            Err(source) => return Err(malformed(source)),
        };
        self.next = next;
        if let Some(left) = &mut self.left {
            items.truncate(*left);
            *left -= items.len();
            if *left == 0 {
                self.next = None;
            }
        }
        Ok(Some(items))
    }

    /// Returns the items of a page and the query of the next one.
    fn read(&self, answer: &[u8]) -> Result<(Vec<T>, Option<String>), serde_json::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Page<T> {
            #[serde(alias = "items")]
            value: Vec<T>,
            #[serde(default, alias = "next")]
            next_link: Option<String>,
        }

        let page: Page<T> = serde_json::from_slice(answer)?;
        let next = page.next_link.filter(|link| !link.is_empty());
        let next = next.map(|link| self.query_of(&link)).transpose()?;
        if next.is_some() && next == self.next {
            return Err(serde_json::Error::custom("the page links to itself"));
        }
        Ok((page.value, next))
    }

    /// Returns the query of a link to the next page. Its host does not count: the list is asked for where it was asked for first, by
    /// a token for that URL, so a wrong link leads nowhere.
    fn query_of(&self, link: &str) -> Result<String, serde_json::Error> {
        let link = self.service.endpoint().join(link);
        let link = link.map_err(|_| serde_json::Error::custom("the link is no URL"))?;
        // Services may write the same name in more than one way.
        let decoded = |path| percent_encoding::percent_decode_str(path).decode_utf8_lossy();
        let leads_here = decoded(link.path()).strip_prefix('/') == Some(&*decoded(&self.path));
        match link.query() {
            Some(query) if leads_here => Ok(query.to_owned()),
            _ => Err(serde_json::Error::custom("the link leads to another list")),
        }
    }
}

/// A connection on a list.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct ListedConnection {
    /// Its id.
    #[serde(alias = "connectionId")]
    pub id: String,
    /// Whose it is, if anybody's.
    #[serde(default, alias = "userId")]
    pub user: Option<String>,
}

/// A hub, user or group on a list.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[non_exhaustive]
pub struct ListedName {
    /// Its name.
    pub name: String,
}
