//! What is left of a filter after it was checked: terms of one type each, which cannot fail.

use std::borrow::Cow;
use std::cmp::Ordering;

use super::syntax::{Comparison, Literal};
use super::{FILTER_TEXT_BYTES_MAX, Subject};

/// A term that is true or false.
#[derive(Debug, Clone)]
pub(super) enum Test {
    Literal(bool),
    Not(Box<Self>),
    And(Box<Self>, Box<Self>),
    Or(Box<Self>, Box<Self>),
    Equal(Box<Term>, Box<Term>),
    CompareInts(Comparison, Int, Int),
    CompareTexts(Comparison, Text, Text),
    InList(Box<Term>, Vec<Literal>),
    InGroups(Text),
    StartsWith(Text, Text),
    EndsWith(Text, Text),
    Contains(Text, Text),
}

/// A term that is a text or null.
#[derive(Debug, Clone)]
pub(super) enum Text {
    Null,
    Literal(Box<str>),
    UserId,
    ConnectionId,
    Protocol,
    ToLower(Box<Self>),
    ToUpper(Box<Self>),
    Trim(Box<Self>),
    /// The text, its start and its length, in characters.
    Substring(Box<Self>, Box<Int>, Option<Box<Int>>),
    Concat(Box<Self>, Box<Self>),
}

/// A term that is a whole number or null.
#[derive(Debug, Clone)]
pub(super) enum Int {
    Null,
    Literal(i64),
    /// In characters.
    Length(Text),
    GroupCount,
    IndexOf(Text, Text),
}

/// A term of any type.
#[derive(Debug, Clone)]
pub(super) enum Term {
    Null,
    Bool(Box<Test>),
    Int(Int),
    Text(Text),
    Groups,
}

/// What a term comes to.
#[derive(PartialEq)]
enum Value<'a> {
    Null,
    Bool(bool),
    Int(i64),
    Text(Cow<'a, str>),
    /// There is but one collection.
    Groups,
}

impl Test {
    pub(super) fn holds(&self, subject: &Subject<'_>) -> bool {
        match self {
            Self::Literal(value) => *value,
            Self::Not(test) => !test.holds(subject),
            Self::And(left, right) => left.holds(subject) && right.holds(subject),
            Self::Or(left, right) => left.holds(subject) || right.holds(subject),
            Self::Equal(left, right) => left.value(subject) == right.value(subject),
            Self::CompareInts(comparison, left, right) => {
                let (left, right) = (left.value(subject), right.value(subject));
                left.zip(right).is_some_and(|(left, right)| comparison.is(left.cmp(&right)))
            }
            Self::CompareTexts(comparison, left, right) => {
                holds_of_both(subject, left, right, |left, right| comparison.is(left.cmp(right)))
            }
            Self::InList(term, items) => {
                let value = term.value(subject);
                items.iter().any(|item| value == Value::from(item))
            }
            Self::InGroups(text) => {
                text.value(subject).is_some_and(|name| subject.groups.contains(&name))
            }
            Self::StartsWith(text, part) => {
                holds_of_both(subject, text, part, |text, part| text.starts_with(part))
            }
            Self::EndsWith(text, part) => {
                holds_of_both(subject, text, part, |text, part| text.ends_with(part))
            }
            Self::Contains(text, part) => {
                holds_of_both(subject, text, part, |text, part| text.contains(part))
            }
        }
    }
}

/// Whether neither is null and `test` holds.
fn holds_of_both(
    subject: &Subject<'_>,
    left: &Text,
    right: &Text,
    test: impl FnOnce(&str, &str) -> bool,
) -> bool {
    let (left, right) = (left.value(subject), right.value(subject));
    left.zip(right).is_some_and(|(left, right)| test(&left, &right))
}

impl Text {
    fn value<'a>(&'a self, subject: &Subject<'a>) -> Option<Cow<'a, str>> {
        match self {
            Self::Null => None,
            Self::Literal(text) => Some(Cow::Borrowed(text)),
            Self::UserId => subject.user_id.map(Cow::Borrowed),
            Self::ConnectionId => Some(Cow::Borrowed(subject.connection_id)),
            Self::Protocol => subject.protocol.map(Cow::Borrowed),
            Self::ToLower(text) => Some(text.value(subject)?.to_lowercase().into()),
            Self::ToUpper(text) => Some(text.value(subject)?.to_uppercase().into()),
            Self::Trim(text) => Some(match text.value(subject)? {
                Cow::Borrowed(text) => Cow::Borrowed(text.trim()),
                Cow::Owned(text) => Cow::Owned(text.trim().to_owned()),
            }),
            Self::Substring(text, start, length) => {
                let text = text.value(subject)?;
                let start = usize::try_from(start.value(subject)?).ok()?;
                let from = offset(&text, start)?;
                let to = match length {
                    None => text.len(),
                    Some(length) => {
                        let length = usize::try_from(length.value(subject)?).ok()?;
                        from + offset(&text[from..], length)?
                    }
                };
                Some(match text {
                    Cow::Borrowed(text) => Cow::Borrowed(&text[from..to]),
                    Cow::Owned(text) => Cow::Owned(text[from..to].to_owned()),
                })
            }
            Self::Concat(left, right) => match (left.value(subject), right.value(subject)) {
                (Some(left), Some(right)) => {
                    (left.len() + right.len() <= FILTER_TEXT_BYTES_MAX).then(|| left + right)
                }
                (one, other) => one.or(other),
            },
        }
    }
}

/// Returns where the character of that number begins, or the end for the number after the last.
fn offset(text: &str, characters: usize) -> Option<usize> {
    let starts = text.char_indices().map(|(at, _)| at);
    starts.chain([text.len()]).nth(characters)
}

impl Int {
    fn value(&self, subject: &Subject<'_>) -> Option<i64> {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        match self {
            Self::Null => None,
            Self::Literal(value) => Some(*value),
            Self::Length(text) => Some(number(text.value(subject)?.chars().count())),
            Self::GroupCount => Some(number(subject.groups.count())),
            Self::IndexOf(text, part) => {
                let (text, part) = (text.value(subject), part.value(subject));
                let found = text.zip(part).and_then(|(text, part)| {
                    text.find(&*part).map(|at| text[..at].chars().count())
                });
                Some(found.map_or(-1, number))
            }
        }
    }
}

impl Term {
    fn value<'a>(&'a self, subject: &Subject<'a>) -> Value<'a> {
        match self {
            Self::Null => Value::Null,
            Self::Bool(test) => Value::Bool(test.holds(subject)),
            Self::Int(int) => int.value(subject).map_or(Value::Null, Value::Int),
            Self::Text(text) => text.value(subject).map_or(Value::Null, Value::Text),
            Self::Groups => Value::Groups,
        }
    }
}

impl<'a> From<&'a Literal> for Value<'a> {
    fn from(literal: &'a Literal) -> Self {
        match literal {
            Literal::Null => Self::Null,
            Literal::Bool(value) => Self::Bool(*value),
            Literal::Int(value) => Self::Int(*value),
            Literal::Text(text) => Self::Text(Cow::Borrowed(text)),
        }
    }
}

impl Comparison {
    /// Whether it is true of two values that stand in this order.
    fn is(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
        }
    }
}
