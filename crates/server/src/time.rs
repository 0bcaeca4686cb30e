//! Times as people and programs read them.

use std::time::Duration;

use chrono::{DateTime, SecondsFormat};

/// Returns a time since 1970 as in RFC 3339, in UTC, with milliseconds.
pub(crate) fn rfc3339(time: Duration) -> String {
    let millis = i64::try_from(time.as_millis()).ok();
    let time = millis.and_then(DateTime::from_timestamp_millis).unwrap_or_default();
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}
