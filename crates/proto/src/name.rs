//! Checked names: a value of these types has passed its rule, so nobody inside checks again.

use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Longest hub name.
pub const HUB_NAME_BYTES_MAX: usize = 128;

/// Longest group name.
pub const GROUP_NAME_BYTES_MAX: usize = 1_024;

/// Longest user id. Ours: the protocol names none, and a header has to carry it.
pub const USER_ID_BYTES_MAX: usize = 1_024;

/// Why a name is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing, or nothing but white space.
    #[error("the {what} is blank")]
    Blank {
        /// Which kind of name.
        what: &'static str,
    },
    /// Longer than its limit.
    #[error("the {what} has {bytes} bytes, {limit} are allowed")]
    TooLong {
        /// Which kind of name.
        what: &'static str,
        /// Its length.
        bytes: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// A character that may not stand in it.
    #[error("the {what} may not contain {character:?} at this place")]
    Character {
        /// Which kind of name.
        what: &'static str,
        /// The first such character.
        character: char,
    },
}

fn checked(what: &'static str, raw: &str, limit: usize) -> Result<Arc<str>, NameError> {
    if raw.trim().is_empty() {
        return Err(NameError::Blank { what });
    }
    if limit < raw.len() {
        return Err(NameError::TooLong { what, bytes: raw.len(), limit });
    }
    Ok(raw.into())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Returns the name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Returns the shared text; cloning it copies nothing.
            pub fn shared(&self) -> &Arc<str> {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

name! {
    /// The name of a hub, in lower case: hub names are case-insensitive.
    HubName
}
name! {
    /// The name of a group; case-sensitive.
    GroupName
}
name! {
    /// The identity that a token or the upstream gave a connection; case-sensitive.
    UserId
}

impl HubName {
    /// Returns the name if it starts with a letter and goes on with letters, digits, underscores, backticks, commas,
    /// dots and square brackets (Web PubSub REST specification).
    ///
    /// # Errors
    /// [`NameError`] names the first fault.
    pub fn parse(raw: &str) -> Result<Self, NameError> {
        let what = "hub name";
        checked(what, raw, HUB_NAME_BYTES_MAX)?;
        let allowed = |(at, character): (usize, char)| {
            character.is_ascii_alphabetic()
                || 0 < at && (character.is_ascii_digit() || "_`,.[]".contains(character))
        };
        match raw.char_indices().find(|item| !allowed(*item)) {
            Some((_, character)) => Err(NameError::Character { what, character }),
            None => Ok(Self(raw.to_ascii_lowercase().into())),
        }
    }
}

impl GroupName {
    /// Returns the name of text that [`GroupName::parse`] has accepted before.
    pub fn from_checked(text: Arc<str>) -> Self {
        debug_assert!(Self::parse(&text).is_ok(), "the caller vouches for the text");
        Self(text)
    }

    /// Returns the name if it is not blank and has at most [`GROUP_NAME_BYTES_MAX`] bytes.
    ///
    /// # Errors
    /// [`NameError`] names the first fault.
    pub fn parse(raw: &str) -> Result<Self, NameError> {
        checked("group name", raw, GROUP_NAME_BYTES_MAX).map(Self)
    }
}

impl UserId {
    /// Returns the id of text that [`UserId::parse`] has accepted before.
    pub fn from_checked(text: Arc<str>) -> Self {
        debug_assert!(Self::parse(&text).is_ok(), "the caller vouches for the text");
        Self(text)
    }

    /// Returns the id if it is not blank, has at most [`USER_ID_BYTES_MAX`] bytes and no control characters (it travels in headers).
    ///
    /// # Errors
    /// [`NameError`] names the first fault.
    pub fn parse(raw: &str) -> Result<Self, NameError> {
        let what = "user id";
        let id = checked(what, raw, USER_ID_BYTES_MAX)?;
        match raw.chars().find(|character| character.is_control()) {
            Some(character) => Err(NameError::Character { what, character }),
            None => Ok(Self(id)),
        }
    }
}

/// One connection, on this node or another: names its node and shard, so that what is addressed to it needs no directory. Opaque
/// to clients and unguessable by its 128 random bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnectionId {
    /// The node that made it.
    pub node: u32,
    /// The shard of that node.
    pub shard: u16,
    random: [u8; 16],
}

impl ConnectionId {
    /// Bytes before the text form.
    const BYTES: usize = 22;

    /// Returns the id; `random` comes from a cryptographic source.
    pub const fn new(node: u32, shard: u16, random: [u8; 16]) -> Self {
        Self { node, shard, random }
    }

    /// Returns the id that `text` stands for, or `None` when it is not one of ours.
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; Self::BYTES];
        let length = URL_SAFE_NO_PAD.decode_slice_unchecked(text.get(..30)?, &mut bytes).ok()?;
        if length != Self::BYTES || text.len() != 30 {
            return None;
        }
        let (node, rest) = bytes.split_first_chunk::<4>()?;
        let (shard, random) = rest.split_first_chunk::<2>()?;
        Some(Self {
            node: u32::from_be_bytes(*node),
            shard: u16::from_be_bytes(*shard),
            random: *random.first_chunk()?,
        })
    }
}

impl fmt::Display for ConnectionId {
    /// Writes 30 URL-safe characters.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = [0; Self::BYTES];
        bytes[..4].copy_from_slice(&self.node.to_be_bytes());
        bytes[4..6].copy_from_slice(&self.shard.to_be_bytes());
        bytes[6..].copy_from_slice(&self.random);
        f.write_str(&URL_SAFE_NO_PAD.encode(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hub_names_follow_the_rest_specification() {
        assert_eq!(HubName::parse("Advanced_Chat_Demo").unwrap().as_str(), "advanced_chat_demo");
        assert!(HubName::parse("a`,.[]_9").is_ok());
        assert!(HubName::parse(&"a".repeat(128)).is_ok());
        for bad in ["", " ", "9a", "a-b", "a b", "a/b", "ä", "a\0", &"a".repeat(129)] {
            assert!(HubName::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn users_and_groups_keep_their_spelling() {
        assert_eq!(GroupName::parse("Räume / 1").unwrap().as_str(), "Räume / 1");
        assert_eq!(GroupName::parse(" \t"), Err(NameError::Blank { what: "group name" }));
        assert!(GroupName::parse(&"g".repeat(1_025)).is_err());
        assert_eq!(
            UserId::parse("a\r\nX-ASRS-User-Id: root"),
            Err(NameError::Character { what: "user id", character: '\r' })
        );
    }

    proptest! {
        #[test]
        fn connection_ids_survive_their_text_form(node: u32, shard: u16, random: [u8; 16]) {
            let id = ConnectionId::new(node, shard, random);
            let text = id.to_string();
            prop_assert_eq!(text.len(), 30);
            prop_assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)));
            prop_assert_eq!(ConnectionId::parse(&text), Some(id));
        }

        #[test]
        fn other_texts_are_not_connection_ids(text in ".{0,40}") {
            if let Some(id) = ConnectionId::parse(&text) {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
