//! The event log of a service: what became of upstream calls, and who was refused why.

use std::time::Duration;

use http::Method;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde::{Deserialize, Serialize};

use super::ServiceClient;
use crate::HubName;
use crate::path::component;
use crate::transport::ServiceError;

/// How long a stream may be silent: the service gives a sign of life every 15 s.
const SILENCE_MAX: Duration = Duration::from_secs(45);

/// Longest line of a stream, in bytes.
const LINE_BYTES_MAX: usize = 64 * 1_024;

/// Which entries of the log are wanted.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// Those of this hub; absent: of all.
    pub hub: Option<HubName>,
    /// Only what went wrong.
    pub failed: bool,
}

/// An entry of the log. Later versions may tell more.
#[derive(Clone, Debug, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct LoggedEvent {
    /// Its number; larger than those of earlier entries.
    pub id: u64,
    /// When it ended (RFC 3339).
    pub time: String,
    /// The hub, if it concerns one.
    pub hub: Option<String>,
    /// `preview` or `webPubSub`, if it concerns one.
    pub dialect: Option<String>,
    /// The connection, if it concerns one.
    pub connection_id: Option<String>,
    /// The connection's user.
    pub user_id: Option<String>,
    /// What it is about, such as `connect` or `handshake`.
    pub kind: String,
    /// The name of the event or the call.
    pub event: String,
    /// The upstream's URL, or the path that was called, without a query.
    pub url: Option<String>,
    /// The status of the answer.
    pub status: Option<u16>,
    /// How long it took, in milliseconds.
    pub duration_ms: Option<f64>,
    /// How often the upstream was asked.
    pub attempts: u32,
    /// Whether it went well.
    pub ok: bool,
    /// What it came to, a word for programs.
    pub verdict: String,
    /// What is wrong and how to mend it.
    pub reason: Option<String>,
}

/// A page of the log.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[non_exhaustive]
pub struct EventPage {
    /// Newest last.
    pub items: Vec<LoggedEvent>,
    /// The number of the oldest entry that there is.
    pub oldest: Option<u64>,
    /// That of the newest.
    pub newest: Option<u64>,
}

/// What a stream of the log says.
#[derive(Clone, Debug, PartialEq)]
pub enum EventNews {
    /// An entry.
    Event(Box<LoggedEvent>),
    /// So many entries came faster than they were read.
    Missed(u64),
}

/// The log as it grows.
#[derive(Debug)]
pub struct EventStream {
    body: Incoming,
    request: String,
    buffer: Vec<u8>,
    /// The field `event` of what is being read.
    event: String,
    data: String,
}

impl ServiceClient {
    /// Returns at most `limit` entries of the log (1 to 1,000): the first ones after `after`, or else the last ones.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call.
    pub async fn list_events(
        &self,
        filter: &EventFilter,
        after: Option<u64>,
        limit: u32,
    ) -> Result<EventPage, ServiceError> {
        let query = format!("limit={limit}{}", filter.query(after));
        let call = self.call(Method::GET, "admin/v1/events", &query);
        let request = call.to_string();
        let answer = self.perform(call).await?;
        serde_json::from_slice(&answer)
            .map_err(|source| ServiceError::Malformed { request, source })
    }

    /// Begins to follow the log; with `after`, what came since then comes first. The service ends a stream after an hour at most.
    ///
    /// # Errors
    /// [`ServiceError`], as for every call.
    pub async fn follow_events(
        &self,
        filter: &EventFilter,
        after: Option<u64>,
    ) -> Result<EventStream, ServiceError> {
        let query = filter.query(after);
        let query = query.strip_prefix('&').unwrap_or_default();
        let call = self.call(Method::GET, "admin/v1/events/live", query);
        let request = call.to_string();
        let body = self.open(call).await?;
        let (event, data) = (String::new(), String::new());
        Ok(EventStream { body, request, buffer: Vec::new(), event, data })
    }
}

impl EventFilter {
    /// Returns the parameters, each after a `&`.
    fn query(&self, after: Option<u64>) -> String {
        let hub = self.hub.as_ref().map(|hub| format!("&hub={}", component(hub.as_str())));
        let failed = self.failed.then(|| "&failed=true".to_owned());
        let after = after.map(|after| format!("&after={after}"));
        [hub, failed, after].into_iter().flatten().collect()
    }
}

impl EventStream {
    /// Waits for the next news; nothing when the stream has ended, after which another one can be begun behind the last entry.
    ///
    /// # Errors
    /// [`ServiceError::Interrupted`] when it breaks, [`ServiceError::Timeout`] when it is silent, [`ServiceError::Malformed`] and
    /// [`ServiceError::AnswerTooLong`] when it is not what it should be.
    pub async fn next(&mut self) -> Result<Option<EventNews>, ServiceError> {
        let request = || self.request.clone();
        loop {
            while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                let read = read_line(line.trim_end(), &mut self.event, &mut self.data);
                let read =
                    read.map_err(|source| ServiceError::Malformed { request: request(), source })?;
                if let Some(news) = read {
                    return Ok(Some(news));
                }
            }
            if LINE_BYTES_MAX < self.buffer.len() + self.data.len() {
                return Err(ServiceError::AnswerTooLong { request: request() });
            }
            let frame = tokio::time::timeout(SILENCE_MAX, self.body.frame()).await;
            let frame = frame
                .map_err(|_| ServiceError::Timeout { request: request(), limit: SILENCE_MAX })?;
            let Some(frame) = frame else { return Ok(None) };
            let frame = frame.map_err(|error| ServiceError::Interrupted {
                request: request(),
                source: error.into(),
            })?;
            if let Ok(data) = frame.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }
}

/// Reads a line of server-sent events (HTML standard); returns what is complete with it.
fn read_line(
    line: &str,
    event: &mut String,
    data: &mut String,
) -> Result<Option<EventNews>, serde_json::Error> {
    if line.is_empty() {
        let (event, data) = (std::mem::take(event), std::mem::take(data));
        return match event.as_str() {
            _ if data.is_empty() => Ok(None),
            "" => serde_json::from_str(&data).map(EventNews::Event).map(Some),
            "missed" => serde_json::from_str(&data).map(EventNews::Missed).map(Some),
            _ => Ok(None),
        };
    }
    let (field, value) = line.split_once(':').unwrap_or((line, ""));
    let value = value.strip_prefix(' ').unwrap_or(value);
    match field {
        "event" => value.clone_into(event),
        "data" => data.push_str(value),
        _ => {}
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_are_read_and_what_is_not_known_is_passed_over() {
        let mut found = Vec::new();
        let (mut event, mut data) = (String::new(), String::new());
        let text = ": still here\n\nevent: missed\ndata: 7\n\nevent: other\ndata: x\n\nid: 5\nretry: 1\n\n";
        for line in text.lines() {
            found.extend(read_line(line, &mut event, &mut data).unwrap());
        }
        assert_eq!(found, [EventNews::Missed(7)]);
        assert!(read_line("data: {}", &mut event, &mut data).unwrap().is_none());
        assert!(read_line("", &mut event, &mut data).is_err());
    }

    #[test]
    fn a_filter_becomes_parameters() {
        let hub = Some(HubName::parse("a`b").unwrap());
        let filter = EventFilter { hub, failed: true };
        assert_eq!(filter.query(Some(3)), "&hub=a%60b&failed=true&after=3");
        assert_eq!(EventFilter::default().query(None), "");
    }
}
