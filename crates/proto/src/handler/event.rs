//! Which events a handler takes.

use std::fmt;

use crate::permission::{Pattern, PatternError};

/// Longest name of an event.
pub const EVENT_NAME_BYTES_MAX: usize = 128;

/// Longest pattern of events, the whole list. Ours.
pub const EVENT_PATTERN_BYTES_MAX: usize = 4_096;

/// Whether a client may raise an event of that name: a letter and then letters, digits, `_`, `.` and `-` (limits and codes, "Names and
/// messages").
pub fn is_event_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    name.len() <= EVENT_NAME_BYTES_MAX
        && name.starts_with(|first: char| first.is_ascii_alphabetic())
        && name.bytes().all(allowed)
}

/// Which events of clients: none, all (`*`), or a list of names in which `?`, `*` and `**` stand for other characters as in the
/// patterns of roles. Upper and lower case are the same (Web PubSub protocol, "Event handler"; the list's wildcards are the
/// emulator's).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventPattern(Events);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Events {
    Any,
    /// In lower case.
    OneOf(Vec<Pattern>),
}

impl Default for Events {
    fn default() -> Self {
        Self::OneOf(Vec::new())
    }
}

/// Why a text is no pattern of events.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EventPatternFault {
    /// Longer than its limit.
    #[error("has {bytes} bytes, {EVENT_PATTERN_BYTES_MAX} are allowed")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// An empty place in a list.
    #[error("a name in the list is empty")]
    EmptyName,
    /// Something that no event can be called.
    #[error("{0:?} is not \"*\", the name of an event, or a list of names separated by commas")]
    Name(String),
    /// Wildcards in a way that they may not be used.
    #[error("{name:?}: {error}")]
    Pattern {
        /// The name with wildcards.
        name: String,
        /// What is wrong.
        error: PatternError,
    },
}

impl EventPattern {
    /// Returns the checked pattern. Nothing but white space is the pattern of no event.
    ///
    /// # Errors
    /// [`EventPatternFault`] names the first fault.
    pub fn parse(raw: &str) -> Result<Self, EventPatternFault> {
        if EVENT_PATTERN_BYTES_MAX < raw.len() {
            return Err(EventPatternFault::TooLong { bytes: raw.len() });
        }
        if raw.trim().is_empty() {
            return Ok(Self::default());
        }
        let mut is_any = false;
        let mut patterns = Vec::new();
        for name in raw.split(',').map(str::trim) {
            let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-*?\\".contains(&byte);
            if name.is_empty() {
                return Err(EventPatternFault::EmptyName);
            }
            if !name.bytes().all(allowed) {
                return Err(EventPatternFault::Name(name.to_owned()));
            }
            is_any |= name == "*";
            let pattern = Pattern::parse(&name.to_ascii_lowercase())
                .map_err(|error| EventPatternFault::Pattern { name: name.to_owned(), error })?;
            patterns.push(pattern);
        }
        Ok(Self(if is_any { Events::Any } else { Events::OneOf(patterns) }))
    }

    /// Returns the pattern of every event.
    pub const fn any() -> Self {
        Self(Events::Any)
    }

    /// Whether it takes every event.
    pub const fn is_any(&self) -> bool {
        matches!(self.0, Events::Any)
    }

    /// Whether it takes the event of that name.
    pub fn matches(&self, name: &str) -> bool {
        let lower = || name.chars().map(|character| character.to_ascii_lowercase());
        match &self.0 {
            Events::Any => true,
            Events::OneOf(patterns) => {
                patterns.iter().any(|pattern| pattern.matches_characters(lower()))
            }
        }
    }
}

impl fmt::Display for EventPattern {
    /// Writes the pattern as people write it, in lower case.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Events::Any => f.write_str("*"),
            Events::OneOf(patterns) => {
                for (at, pattern) in patterns.iter().enumerate() {
                    if 0 < at {
                        f.write_str(",")?;
                    }
                    pattern.fmt(f)?;
                }
                Ok(())
            }
        }
    }
}

/// Which events of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SystemEvents {
    /// A client wants in; blocking.
    pub connect: bool,
    /// A client is in.
    pub connected: bool,
    /// A connection is over.
    pub disconnected: bool,
}

/// A name that is no event of connections.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not one of {known}")]
pub struct SystemEventFault {
    /// What was written.
    pub name: String,
    /// What may be written.
    pub known: &'static str,
}

impl SystemEvents {
    /// Returns their names.
    pub fn names(&self) -> impl Iterator<Item = &'static str> {
        let all = [
            ("connect", self.connect),
            ("connected", self.connected),
            ("disconnected", self.disconnected),
        ];
        all.into_iter().filter_map(|(name, is_among)| is_among.then_some(name))
    }

    /// Returns the events of those names, in any case.
    ///
    /// # Errors
    /// [`SystemEventFault`] shows the first name that is none of them.
    pub fn parse<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<Self, SystemEventFault> {
        let mut events = Self::default();
        for name in names {
            match name.to_ascii_lowercase().as_str() {
                "connect" => events.connect = true,
                "connected" => events.connected = true,
                "disconnected" => events.disconnected = true,
                _ => {
                    let known = "connect, connected, disconnected";
                    return Err(SystemEventFault { name: name.to_owned(), known });
                }
            }
        }
        Ok(events)
    }

    /// Returns the events of those names for a listener, which `connect` does not concern.
    ///
    /// # Errors
    /// As [`SystemEvents::parse`].
    pub fn parse_for_listener<'a>(
        names: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self, SystemEventFault> {
        let known = "connected, disconnected";
        let events = Self::parse(names).map_err(|fault| SystemEventFault { known, ..fault })?;
        if events.connect {
            return Err(SystemEventFault { name: "connect".to_owned(), known });
        }
        Ok(events)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, name: &str) -> bool {
        EventPattern::parse(pattern).unwrap().matches(name)
    }

    #[test]
    fn patterns_are_all_a_list_or_a_name() {
        assert!(matches("*", "room.message"));
        assert!(matches("a , *", "x"));
        assert!(matches("event1, Event2", "event2"));
        assert!(matches("CONNECTED", "connected"));
        assert!(!matches("event1,event2", "event3"));
        assert!(!matches("", "event"));
        assert!(matches("join, ROOM.*", "room.message"));
        assert!(!matches("room.*", "room.message.more"));
        assert!(matches("room.**", "room.message.more"));
        assert!(matches("room.?", "Room.a"));
        assert!(EventPattern::parse(" * ").unwrap().is_any());
        assert!(!EventPattern::parse("**").unwrap().is_any());
    }

    #[test]
    fn faulty_patterns_are_refused() {
        for (raw, words) in [
            ("a,,b", "is empty"),
            (",", "is empty"),
            ("a b", "\"a b\" is not"),
            ("ä", "is not"),
            ("a\\b", "\\"),
            ("******", "asterisks"),
            (&"a".repeat(4_097), "4097 bytes"),
        ] {
            let error = EventPattern::parse(raw).unwrap_err().to_string();
            assert!(error.contains(words), "{raw}: {error}");
        }
    }

    #[test]
    fn event_names_follow_their_rule() {
        for good in ["a", "Order.paid_2-x", &"a".repeat(128)] {
            assert!(is_event_name(good), "{good}");
        }
        for bad in ["", "1a", "_a", ".", "a b", "a/b", "ä", "a\n", &"a".repeat(129)] {
            assert!(!is_event_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn system_events_are_three_and_two_for_listeners() {
        let all = SystemEvents { connect: true, connected: true, disconnected: true };
        assert_eq!(SystemEvents::parse(["connect", "Connected", "disconnected"]), Ok(all));
        assert_eq!(SystemEvents::parse([]), Ok(SystemEvents::default()));
        let error = SystemEvents::parse(["message"]).unwrap_err().to_string();
        assert_eq!(error, "\"message\" is not one of connect, connected, disconnected");
        let error = SystemEvents::parse_for_listener(["connect"]).unwrap_err().to_string();
        assert_eq!(error, "\"connect\" is not one of connected, disconnected");
        assert!(SystemEvents::parse_for_listener(["connected"]).unwrap().connected);
    }

    proptest! {
        #[test]
        fn hostile_patterns_never_panic(raw in ".{0,40}", name in ".{0,40}") {
            is_event_name(&name);
            if let Ok(pattern) = EventPattern::parse(&raw) {
                pattern.matches(&name);
            }
        }
    }
}
