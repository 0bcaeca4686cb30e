//! What is kept of a user: which conversations may concern them, and how far they read.
//!
//! Who belongs to a conversation stands in the conversation; this is the way to find it. A conversation is entered here before the
//! user is added there, and forgotten here after the user was removed there. Invariant: no conversation with the user in it is
//! missing here, whatever was cut; one that is here may not have the user.

use std::collections::BTreeMap;

use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::digest;
use super::writer::{Applied, Document};
use crate::refusal::{Code, Refusal};

/// One user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct UserRecord {
    pub(crate) name: String,
    /// By id: the number of the last message that was read.
    pub(crate) conversations: BTreeMap<String, u64>,
}

/// What may be done to a user's record.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    /// The user is here: everything said in public so far counts as read for somebody new.
    Greet { public_seq: u64 },
    /// A conversation may concern the user from now on.
    Enter(String),
    /// Everything up to this number was read.
    Read(String, u64),
    /// A conversation does not concern the user anymore.
    Forget(String),
}

impl Document for UserRecord {
    type Change = Change;
    type Answer = Self;
    type Memory = ();

    fn folder(name: &str) -> Path {
        Path::from("users").join(digest(name)).join("versions")
    }

    fn check(&self, name: &str) -> Result<(), &'static str> {
        if self.name == name { Ok(()) } else { Err("it is another user's") }
    }

    fn apply(
        document: &mut Option<Self>,
        (): &(),
        name: &str,
        change: &Change,
    ) -> Result<Applied<Self>, Refusal> {
        if document.is_none()
            && let Change::Greet { public_seq } = change
        {
            let conversations = BTreeMap::from([("public".to_owned(), *public_seq)]);
            let record = document.insert(Self { name: name.to_owned(), conversations });
            return Ok(Applied::changed(record.clone()));
        }
        let Some(record) = document else {
            let text = format!("Nobody named “{name}” was here yet.");
            return Err(Refusal::new(Code::NotFound, text));
        };
        let changed = match change {
            Change::Greet { .. } => false,
            Change::Enter(conversation) if record.conversations.contains_key(conversation) => false,
            Change::Enter(conversation) => {
                let direct = is_direct(conversation);
                let (max, what) = if direct {
                    (USER_DIRECT_MAX, "direct conversations")
                } else {
                    (USER_GROUPS_MAX, "groups")
                };
                if max <= record.conversations.keys().filter(|id| is_direct(id) == direct).count() {
                    let text = format!("“{name}” is in {max} {what}, which is the most.");
                    return Err(Refusal::new(Code::Conflict, text));
                }
                record.conversations.insert(conversation.clone(), 0).is_none()
            }
            Change::Read(conversation, seq) => match record.conversations.get_mut(conversation) {
                Some(read) if *read < *seq => {
                    *read = *seq;
                    true
                }
                Some(_) | None => false,
            },
            Change::Forget(conversation) => record.conversations.remove(conversation).is_some(),
        };
        Ok(Applied { answer: record.clone(), changed })
    }
}

fn is_direct(conversation: &str) -> bool {
    conversation.starts_with("direct~")
}

/// Most groups of a user, the public room included. One more is refused.
pub(crate) const USER_GROUPS_MAX: usize = 200;

/// Most direct conversations of a user. One more is refused. They are counted apart, because anybody may begin one and nobody can
/// leave it: strangers must not keep a user out of groups.
pub(crate) const USER_DIRECT_MAX: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(record: &mut Option<UserRecord>, change: &Change) -> Result<bool, Code> {
        UserRecord::apply(record, &(), "ann", change)
            .map(|applied| applied.changed)
            .map_err(|refusal| refusal.code)
    }

    #[test]
    fn a_record_begins_with_the_first_greeting() {
        let mut record = None;
        assert_eq!(apply(&mut record, &Change::Enter("x".into())), Err(Code::NotFound));
        assert_eq!(apply(&mut record, &Change::Read("public".into(), 3)), Err(Code::NotFound));
        assert_eq!(apply(&mut record, &Change::Greet { public_seq: 7 }), Ok(true));
        assert_eq!(apply(&mut record, &Change::Greet { public_seq: 9 }), Ok(false));
        assert_eq!(record.unwrap().conversations["public"], 7);
    }

    #[test]
    fn marks_only_grow_and_only_where_the_user_is() {
        let mut record = None;
        apply(&mut record, &Change::Greet { public_seq: 0 }).unwrap();
        assert_eq!(apply(&mut record, &Change::Read("public".into(), 5)), Ok(true));
        assert_eq!(apply(&mut record, &Change::Read("public".into(), 4)), Ok(false));
        assert_eq!(apply(&mut record, &Change::Read("group~1".into(), 4)), Ok(false));
        let conversations = record.unwrap().conversations;
        assert_eq!((conversations["public"], conversations.len()), (5, 1));
    }

    #[test]
    fn conversations_are_entered_once_forgotten_and_counted() {
        let mut record = None;
        apply(&mut record, &Change::Greet { public_seq: 0 }).unwrap();
        for n in 1..USER_GROUPS_MAX {
            assert_eq!(apply(&mut record, &Change::Enter(n.to_string())), Ok(true));
        }
        assert_eq!(apply(&mut record, &Change::Enter("1".into())), Ok(false));
        assert_eq!(apply(&mut record, &Change::Enter("more".into())), Err(Code::Conflict));
        assert_eq!(apply(&mut record, &Change::Forget("1".into())), Ok(true));
        assert_eq!(apply(&mut record, &Change::Forget("1".into())), Ok(false));
        assert_eq!(apply(&mut record, &Change::Enter("more".into())), Ok(true));
    }

    #[test]
    fn strangers_who_write_keep_nobody_out_of_groups() {
        let mut record = None;
        apply(&mut record, &Change::Greet { public_seq: 0 }).unwrap();
        let direct = |n: usize| Change::Enter(format!("direct~ann~{n}"));
        for n in 0..USER_DIRECT_MAX {
            assert_eq!(apply(&mut record, &direct(n)), Ok(true));
        }
        assert_eq!(apply(&mut record, &direct(USER_DIRECT_MAX)), Err(Code::Conflict));
        for n in 1..USER_GROUPS_MAX {
            assert_eq!(apply(&mut record, &Change::Enter(format!("group~{n}"))), Ok(true));
        }
        assert_eq!(apply(&mut record, &Change::Enter("group~0".into())), Err(Code::Conflict));
    }
}
