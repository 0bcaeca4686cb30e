//! Answers of upstreams to the connect event.

use hookwire_proto::cloud_event::{ANSWER_LIST_MAX, ConnectAnswer};

/// Reads `input` as an answer. What is understood keeps the limits; an error is short, so that it repeats nothing.
pub(crate) fn check(input: &[u8]) {
    match ConnectAnswer::parse(input) {
        Ok(answer) => {
            assert!(!(answer.is_anonymous && answer.user_id.is_some()));
            if let Some(groups) = &answer.groups {
                assert!((1..=ANSWER_LIST_MAX).contains(&groups.len()));
            }
            if let Some(roles) = &answer.roles {
                assert!(roles.len() <= ANSWER_LIST_MAX);
            }
            assert_ne!(answer.subprotocol.as_deref(), Some(""));
        }
        Err(error) => assert!(error.to_string().len() < 120, "{error}"),
    }
}
