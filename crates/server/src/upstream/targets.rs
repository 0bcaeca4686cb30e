//! Targets that were read lately: most calls go to few URLs, and reading a URL costs as much as writing a request.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use super::request::Target;

/// URLs that are kept. With one more, all are forgotten: clients can make up events and thereby URLs, and nothing is lost but the time
/// to read them again.
const TARGETS_MAX: usize = 1_024;

/// Longest URL that is kept, in bytes; longer ones are read each time.
const URL_BYTES_MAX: usize = 1_024;

/// The targets, by their URLs as they are written.
#[derive(Debug, Default)]
pub(super) struct Targets(RwLock<HashMap<Box<str>, Arc<Target>>>);

impl Targets {
    /// Returns what [`Target::parse`] makes of a URL.
    pub(super) fn get(&self, url: &str) -> Option<Arc<Target>> {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).get(url).cloned();
        if known.is_some() {
            return known;
        }
        let target = Arc::new(Target::parse(url)?);
        if url.len() <= URL_BYTES_MAX {
            let mut targets = self.0.write().unwrap_or_else(PoisonError::into_inner);
            if TARGETS_MAX <= targets.len() {
                targets.clear();
            }
            targets.insert(url.into(), target.clone());
        }
        Some(target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_read_once_while_it_is_kept_and_few_are() {
        let targets = Targets::default();
        let first = targets.get("http://a/0").unwrap();
        assert_eq!(first.origin(), "http://a");
        assert!(Arc::ptr_eq(&first, &targets.get("http://a/0").unwrap()));
        assert!(targets.get("no URL").is_none());
        for number in 0..=TARGETS_MAX {
            assert!(targets.get(&format!("http://a/{number}")).is_some());
            assert!(targets.0.read().unwrap().len() <= TARGETS_MAX);
        }
        assert!(!Arc::ptr_eq(&first, &targets.get("http://a/0").unwrap()));
        let long = format!("http://a/{}", "x".repeat(URL_BYTES_MAX));
        let one = targets.get(&long).unwrap();
        assert!(!Arc::ptr_eq(&one, &targets.get(&long).unwrap()));
    }
}
