//! Names from outside, checked once: users, titles, conversations.

use std::fmt;
use std::sync::Arc;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::refusal::{Code, Refusal};

/// A user's name: trimmed, 1 to [`USER_NAME_CHARACTERS_MAX`] characters, no control characters (it travels in headers).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct UserName(Arc<str>);

impl UserName {
    /// Returns the name without blanks around it.
    ///
    /// # Errors
    /// [`Refusal`] says what is wrong with it, in a sentence for the person who chose it.
    pub(crate) fn parse(raw: &str) -> Result<Self, Refusal> {
        line("A name", raw, USER_NAME_CHARACTERS_MAX).map(|name| Self(name.into()))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Returns a group's title without blanks around it.
///
/// # Errors
/// [`Refusal`] says what is wrong with it.
pub(crate) fn parse_title(raw: &str) -> Result<String, Refusal> {
    line("A title", raw, TITLE_CHARACTERS_MAX).map(str::to_owned)
}

fn line<'a>(what: &str, raw: &'a str, characters_max: usize) -> Result<&'a str, Refusal> {
    let line = raw.trim();
    if line.is_empty() {
        return Err(Refusal::new(Code::Invalid, format!("{what} cannot be empty.")));
    }
    if characters_max < line.chars().count() {
        let text = format!("{what} has at most {characters_max} characters.");
        return Err(Refusal::new(Code::TooLarge, text));
    }
    if line.chars().any(char::is_control) {
        let text = format!("{what} cannot contain control characters.");
        return Err(Refusal::new(Code::Invalid, text));
    }
    Ok(line)
}

/// Which conversation. Its text form is the id that pages know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ConversationId {
    /// The room of everybody: `public`.
    Public,
    /// Two users: `direct~<a>~<b>`, both names percent-encoded and in the order of their encoded bytes.
    Direct(UserName, UserName),
    /// A group: `group~<32 hexadecimal digits>`.
    Group(u128),
}

impl ConversationId {
    /// Returns the id of what two users say to each other, or nothing for a user and themselves.
    pub(crate) fn direct(one: &UserName, other: &UserName) -> Option<Self> {
        let (a, b) = (encoded(one), encoded(other));
        match a.cmp(&b) {
            std::cmp::Ordering::Less => Some(Self::Direct(one.clone(), other.clone())),
            std::cmp::Ordering::Equal => None,
            std::cmp::Ordering::Greater => Some(Self::Direct(other.clone(), one.clone())),
        }
    }

    /// Returns the id that `text` spells. Each id has one spelling.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text == "public" {
            return Some(Self::Public);
        }
        let (kind, rest) = text.split_once('~')?;
        let id = match kind {
            "direct" => {
                let (a, b) = rest.split_once('~')?;
                Self::direct(&decoded(a)?, &decoded(b)?)?
            }
            "group" => Self::Group(u128::from_str_radix(rest, 16).ok()?),
            _ => return None,
        };
        (id.to_string() == text).then_some(id)
    }

    /// Returns the other user of a direct conversation of `user`.
    pub(crate) fn other(&self, user: &UserName) -> Option<&UserName> {
        match self {
            Self::Direct(a, b) if a == user => Some(b),
            Self::Direct(a, b) if b == user => Some(a),
            Self::Direct(..) | Self::Public | Self::Group(_) => None,
        }
    }
}

impl fmt::Display for ConversationId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Public => formatter.write_str("public"),
            Self::Direct(a, b) => write!(formatter, "direct~{}~{}", encoded(a), encoded(b)),
            Self::Group(random) => write!(formatter, "group~{random:032x}"),
        }
    }
}

fn encoded(name: &UserName) -> String {
    utf8_percent_encode(name.as_str(), NAME_IN_ID).to_string()
}

fn decoded(text: &str) -> Option<UserName> {
    let name = percent_decode_str(text).decode_utf8().ok()?;
    UserName::parse(&name).ok().filter(|parsed| parsed.as_str() == name)
}

/// Most characters (code points) of a user's name.
pub(crate) const USER_NAME_CHARACTERS_MAX: usize = 64;

/// Most characters (code points) of a group's title.
pub(crate) const TITLE_CHARACTERS_MAX: usize = 80;

/// What stands as it is in an id: unreserved by RFC 3986, section 2.3, less `~`, which separates.
const NAME_IN_ID: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(raw: &str) -> UserName {
        UserName::parse(raw).unwrap()
    }

    #[test]
    fn a_name_is_one_short_line() {
        assert_eq!(name("  änn 🎉\t").as_str(), "änn 🎉");
        assert_eq!(name(&"🎉".repeat(64)).as_str().chars().count(), 64);
        for (raw, code) in [
            ("", Code::Invalid),
            (" \u{3000}\n", Code::Invalid),
            ("a\nb", Code::Invalid),
            ("a\u{85}b", Code::Invalid),
            (&"x".repeat(65), Code::TooLarge),
        ] {
            assert_eq!(UserName::parse(raw).unwrap_err().code, code, "{raw:?}");
        }
    }

    #[test]
    fn a_direct_id_is_the_same_from_both_sides() {
        let id = ConversationId::direct(&name("bob~%/"), &name("ann é")).unwrap();
        assert_eq!(id.to_string(), "direct~ann%20%C3%A9~bob%7E%25%2F");
        assert_eq!(ConversationId::direct(&name("ann é"), &name("bob~%/")), Some(id.clone()));
        assert_eq!(id.other(&name("ann é")), Some(&name("bob~%/")));
        assert_eq!(id.other(&name("carl")), None);
        assert_eq!(ConversationId::direct(&name("ann"), &name("ann")), None);
    }

    #[test]
    fn other_spellings_are_no_ids() {
        for text in [
            "",
            "Public",
            "public~",
            "direct~b~a",
            "direct~a~a",
            "direct~a",
            "direct~a~b~c",
            "direct~%61~b",
            "direct~%20a~b",
            "direct~%c3%a4~b",
            "direct~%FF~b",
            "group~1",
            "group~0000000000000000000000000000000G",
            "group~+0000000000000000000000000000001",
            "group~ABCDEF00000000000000000000000000",
            "../etc",
        ] {
            assert_eq!(ConversationId::parse(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn every_id_is_read_back(a in "\\PC{1,64}", b in "[~%/.#? a-z]{1,8}", random: u128) {
            let group = ConversationId::Group(random);
            prop_assert_eq!(ConversationId::parse(&group.to_string()), Some(group));
            if let (Ok(a), Ok(b)) = (UserName::parse(&a), UserName::parse(&b))
                && let Some(id) = ConversationId::direct(&a, &b)
            {
                prop_assert_eq!(ConversationId::parse(&id.to_string()), Some(id));
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".*") {
            if let Some(id) = ConversationId::parse(&text) {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
