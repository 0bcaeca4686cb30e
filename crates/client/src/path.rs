//! Paths of the REST APIs: names that have passed their rule, encoded.

use hookwire_proto::name::{GroupName, NameError, UserId};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// What `encodeURIComponent` leaves as it is (ECMA-262, "encodeURIComponent"), since the older library encodes with it.
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'_')
    .remove(b'.')
    .remove(b'!')
    .remove(b'~')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');

pub(crate) fn component(text: &str) -> String {
    utf8_percent_encode(text, COMPONENT).to_string()
}

pub(crate) fn group_path(group: &str) -> Result<String, NameError> {
    Ok(format!("groups/{}", component(GroupName::parse(group)?.as_str())))
}

pub(crate) fn user_path(user: &str) -> Result<String, NameError> {
    Ok(format!("users/{}", component(UserId::parse(user)?.as_str())))
}

pub(crate) fn connection_path(connection_id: &str) -> Result<String, NameError> {
    let what = "connection id";
    if connection_id.is_empty() {
        return Err(NameError::Blank { what });
    }
    if CONNECTION_ID_BYTES_MAX < connection_id.len() {
        return Err(NameError::TooLong {
            what,
            bytes: connection_id.len(),
            limit: CONNECTION_ID_BYTES_MAX,
        });
    }
    Ok(format!("connections/{}", component(connection_id)))
}

/// Longest connection id that is put into a URL, in bytes. Services make far shorter ones.
const CONNECTION_ID_BYTES_MAX: usize = 1_024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn components_are_encoded_as_in_javascript() {
        // Printed by `encodeURIComponent` in Node for the same text.
        assert_eq!(
            component("aZ09-_.!~*'() /?&=+#%ä€"),
            "aZ09-_.!~*'()%20%2F%3F%26%3D%2B%23%25%C3%A4%E2%82%AC"
        );
    }
}
