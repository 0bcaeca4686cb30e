//! Which comings and goings of group members are events.

use std::fmt;

use crate::name::{GROUP_NAME_BYTES_MAX, GroupName};

/// Most filters of groups in one setting. Ours.
pub const GROUP_FILTERS_MAX: usize = 256;

/// Which comings and goings are events (Web PubSub protocol, "Group presence events"). By default none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PresenceEvents {
    /// Whether a new member is one.
    pub joined: bool,
    /// Whether a member that is gone is one.
    pub left: bool,
    /// In which groups: those that any of these matches.
    pub groups: Vec<GroupFilter>,
}

impl PresenceEvents {
    /// Whether nothing is an event, whatever the group.
    pub const fn is_none(&self) -> bool {
        !(self.joined || self.left) || self.groups.is_empty()
    }

    /// Whether `group` is among the groups.
    pub fn concern(&self, group: &GroupName) -> bool {
        self.groups.iter().any(|filter| filter.matches(group.as_str()))
    }
}

/// Some groups: one by its name or all whose names begin alike (`prefix*`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GroupFilter {
    /// The group of that name.
    Name(Box<str>),
    /// The groups whose names begin with this.
    Prefix(Box<str>),
}

/// Why a text is no filter of groups.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GroupFilterFault {
    /// Nothing, or nothing but white space.
    #[error("a filter of groups is blank")]
    Blank,
    /// Longer than a group's name and an asterisk.
    #[error("a filter of groups has {bytes} bytes, {} are allowed", GROUP_NAME_BYTES_MAX + 1)]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// An asterisk where it would mean nothing.
    #[error("in {0:?} an asterisk may stand only at the end")]
    Asterisk(String),
    /// A name that is no event.
    #[error("{0:?} is not one of joined, left")]
    Event(String),
    /// More than allowed.
    #[error("only {GROUP_FILTERS_MAX} filters of groups are allowed")]
    TooMany,
}

impl fmt::Display for GroupFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

impl GroupFilter {
    /// Returns the checked filter.
    ///
    /// # Errors
    /// [`GroupFilterFault`] names the first fault.
    pub fn parse(raw: &str) -> Result<Self, GroupFilterFault> {
        if raw.trim().is_empty() {
            return Err(GroupFilterFault::Blank);
        }
        if GROUP_NAME_BYTES_MAX + 1 < raw.len() {
            return Err(GroupFilterFault::TooLong { bytes: raw.len() });
        }
        let (name, is_prefix) = raw.strip_suffix('*').map_or((raw, false), |name| (name, true));
        if name.contains('*') {
            return Err(GroupFilterFault::Asterisk(raw.to_owned()));
        }
        Ok(if is_prefix { Self::Prefix(name.into()) } else { Self::Name(name.into()) })
    }

    /// Whether the group of that name is among them.
    pub fn matches(&self, group: &str) -> bool {
        match self {
            Self::Name(name) => **name == *group,
            Self::Prefix(prefix) => group.starts_with(&**prefix),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_are_names_or_prefixes() {
        let matches = |filter, group| GroupFilter::parse(filter).unwrap().matches(group);
        assert!(matches("group1", "group1"));
        assert!(!matches("group1", "group12"));
        assert!(!matches("group1", "Group1"));
        assert!(matches("group2*", "group2") && matches("group2*", "group2.x"));
        assert!(!matches("group2*", "group"));
        assert!(matches("*", "anything"));
        for (raw, words) in
            [("", "blank"), (" ", "blank"), ("a*b", "at the end"), ("**", "at the end")]
        {
            let error = GroupFilter::parse(raw).unwrap_err().to_string();
            assert!(error.contains(words), "{raw}: {error}");
        }
        assert!(GroupFilter::parse(&"a".repeat(1_026)).is_err());
    }

    #[test]
    fn presence_without_events_or_groups_is_none() {
        let groups = vec![GroupFilter::parse("*").unwrap()];
        assert!(PresenceEvents::default().is_none());
        assert!(PresenceEvents { joined: true, ..PresenceEvents::default() }.is_none());
        assert!(PresenceEvents { groups: groups.clone(), ..PresenceEvents::default() }.is_none());
        assert!(!PresenceEvents { left: true, groups, ..PresenceEvents::default() }.is_none());
    }
}
