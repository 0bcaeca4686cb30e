//! Filters of REST.

use hookwire_proto::filter::{FILTER_BYTES_MAX, Filter, FilterError, Groups, Subject};

struct Names(&'static [&'static str]);

impl Groups for Names {
    fn contains(&self, name: &str) -> bool {
        self.0.contains(&name)
    }

    fn count(&self) -> usize {
        self.0.len()
    }

    fn any(&self, judge: &mut dyn FnMut(&str) -> bool) -> bool {
        self.0.iter().any(|name| judge(name))
    }
}

/// Reads `input` as a filter. What is understood can be asked about any connection, and its negation says the opposite; what is not is
/// told with the place in the text.
pub(crate) fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    match Filter::parse(text) {
        Ok(filter) => {
            assert_eq!(filter.text(), text);
            let negation = Filter::parse(&format!("not ({text})"));
            for (user_id, protocol, groups) in [
                (None, None, &[][..]),
                (Some("user-1"), Some("json.webpubsub.azure.v1"), &["group1", "it's"][..]),
                (Some("äöü😀 "), None, &["", "a", "b", "c"][..]),
            ] {
                let groups = &Names(groups);
                let subject = Subject { user_id, connection_id: "c1", protocol, groups };
                let selects = filter.matches(&subject);
                if let Ok(negation) = &negation {
                    assert_ne!(negation.matches(&subject), selects);
                }
            }
        }
        Err(error) => {
            assert!(error.to_string().ends_with(" (Parameter 'filter')"));
            match error {
                FilterError::Syntax { position, .. } => {
                    assert!(position <= text.encode_utf16().count());
                }
                FilterError::TooLong { bytes } => assert!(FILTER_BYTES_MAX < bytes),
                FilterError::TooDeep { .. }
                | FilterError::TooManyClauses { .. }
                | FilterError::Type { .. }
                | FilterError::Unknown { .. }
                | FilterError::Arguments { .. } => {}
            }
        }
    }
}
