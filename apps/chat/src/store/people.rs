//! Who was ever here, for the list of people.

use object_store::path::Path;
use serde::{Deserialize, Serialize};

use super::writer::{Applied, Document};
use crate::name::UserName;
use crate::refusal::Refusal;

/// The names of everybody, in the order in which they first came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct People {
    pub(crate) names: Vec<String>,
}

impl Document for People {
    /// Somebody is here.
    type Change = UserName;
    type Answer = ();
    type Memory = ();

    fn folder(_: &str) -> Path {
        Path::from("people").join("versions")
    }

    fn check(&self, _: &str) -> Result<(), &'static str> {
        Ok(())
    }

    fn apply(
        document: &mut Option<Self>,
        (): &(),
        _: &str,
        name: &UserName,
    ) -> Result<Applied<()>, Refusal> {
        let people = document.get_or_insert_default();
        if people.names.iter().any(|known| known == name.as_str()) {
            return Ok(Applied::unchanged(()));
        }
        people.names.push(name.to_string());
        let surplus = people.names.len().saturating_sub(PEOPLE_MAX);
        people.names.drain(..surplus);
        Ok(Applied::changed(()))
    }
}

/// Names in the list of people. When somebody new comes, the one who first came longest ago is left out, until they come again.
pub(crate) const PEOPLE_MAX: usize = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_keeps_the_newest_people_once_each() {
        let mut people = None;
        let mut seen = |name: String| {
            let name = UserName::parse(&name).unwrap();
            People::apply(&mut people, &(), "people", &name).unwrap().changed
        };
        for n in 0..PEOPLE_MAX {
            assert!(seen(format!("user {n}")));
        }
        assert!(!seen("user 0".into()));
        assert!(seen("one more".into()));
        assert!(seen("user 0".into()), "left out before, so new again");
        let names = people.unwrap().names;
        assert_eq!(
            (names.len(), &*names[0], &*names[PEOPLE_MAX - 1]),
            (PEOPLE_MAX, "user 2", "user 0")
        );
    }
}
