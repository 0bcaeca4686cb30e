//! What one connection may do with groups (Web PubSub protocol, "Permissions" of clients and of REST).
//!
//! Roles come with the token or from the upstream's connect answer; REST grants and revokes while the connection lives. A rule for
//! one group name beats the global permission and the patterns.

mod pattern;

pub use self::pattern::{PATTERN_BYTES_MAX, PATTERN_WILDCARDS_MAX, Pattern, PatternError};
use crate::name::{GroupName, NameError};

/// Most groups that are granted by name for one permission of one connection. As many again may be revoked by name.
pub const LITERAL_RULES_MAX: usize = 1_000;

/// Most patterns for one permission of one connection. Ours: every one is tried when nothing else decides.
pub const PATTERNS_MAX: usize = 100;

/// What a connection can be allowed to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Permission {
    /// Join and leave a group.
    JoinLeaveGroup,
    /// Publish to a group.
    SendToGroup,
}

impl Permission {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::JoinLeaveGroup, Self::SendToGroup];

    /// Returns the permission of that name as paths of REST spell it. Compared exactly: the specification lists two values and every
    /// SDK sends one of them.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|permission| permission.as_str() == name)
    }

    /// Returns the name in paths and, after `webpubsub.`, in roles.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::JoinLeaveGroup => "joinLeaveGroup",
            Self::SendToGroup => "sendToGroup",
        }
    }
}

/// One role that concerns groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Role {
    /// Every group: `webpubsub.sendToGroup`.
    All(Permission),
    /// The group of that name: `webpubsub.sendToGroup.{group}`.
    Group(Permission, GroupName),
    /// Groups by pattern: `webpubsub.sendToGroups.{pattern}`.
    Groups(Permission, Pattern),
}

/// Why a role that looks like one of ours grants nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoleError {
    /// What it names cannot be a group.
    #[error(transparent)]
    Group(#[from] NameError),
    /// What it names is no pattern.
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

impl Role {
    /// Returns what a role string grants, or `None` when it is no role of this service: those are the application's own.
    ///
    /// # Errors
    /// The group name or the pattern breaks its rule.
    pub fn parse(role: &str) -> Result<Option<Self>, RoleError> {
        let Some(rest) = role.strip_prefix("webpubsub.") else { return Ok(None) };
        for permission in Permission::ALL {
            let Some(rest) = rest.strip_prefix(permission.as_str()) else { continue };
            if rest.is_empty() {
                return Ok(Some(Self::All(permission)));
            }
            if let Some(group) = rest.strip_prefix('.') {
                return Ok(Some(Self::Group(permission, GroupName::parse(group)?)));
            }
            if let Some(pattern) = rest.strip_prefix("s.") {
                return Ok(Some(Self::Groups(permission, Pattern::parse(pattern)?)));
            }
        }
        Ok(None)
    }
}

/// The permissions of one connection. Without any, or with global ones alone, it owns no heap memory.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Permissions {
    global: PerPermission<bool>,
    /// Present if not empty.
    rules: Option<Box<PerPermission<Rules>>>,
}

/// REST asked for more rules than a connection may have; nothing has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a connection may have at most {LITERAL_RULES_MAX} rules by group name for one permission")]
pub struct TooManyRules;

impl Permissions {
    /// Returns what `roles` grant together. Roles that are unknown, faulty ([`Role::parse`] tells) or beyond a limit grant nothing.
    pub fn from_roles<'a>(roles: impl IntoIterator<Item = &'a str>) -> Self {
        let mut permissions = Self::default();
        for role in roles {
            match Role::parse(role) {
                Ok(Some(Role::All(permission))) => *permissions.global.of_mut(permission) = true,
                Ok(Some(Role::Group(permission, group))) => {
                    // What is beyond the limit is not granted, which is the safe side.
                    let _ = permissions.rules_mut(permission).granted.insert(&group);
                }
                Ok(Some(Role::Groups(permission, pattern))) => {
                    let patterns = &mut permissions.rules_mut(permission).patterns;
                    if patterns.len() < PATTERNS_MAX && !patterns.contains(&pattern) {
                        patterns.push(pattern);
                    }
                }
                Ok(None) | Err(_) => {}
            }
        }
        for rules in permissions.rules.iter_mut().flat_map(|rules| &mut rules.0) {
            rules.granted.0.shrink_to_fit();
            rules.patterns.shrink_to_fit();
        }
        permissions
    }

    /// Allows `group`, or with `None` every group that is not revoked by its name.
    ///
    /// # Errors
    /// [`TooManyRules`] if [`LITERAL_RULES_MAX`] other groups are granted by name.
    pub fn grant(
        &mut self,
        permission: Permission,
        group: Option<&GroupName>,
    ) -> Result<(), TooManyRules> {
        match group {
            None => *self.global.of_mut(permission) = true,
            Some(group) => {
                let rules = self.rules_mut(permission);
                rules.granted.insert(group)?;
                rules.revoked.remove(group);
            }
        }
        Ok(())
    }

    /// Forbids `group` until it is granted by its name, whatever roles say; with `None` takes back the global permission alone.
    ///
    /// If no role allows the group, taking back its grant is enough and no rule stays, so that grants and revocations in turn never
    /// fill the table. A later global grant then covers it.
    ///
    /// # Errors
    /// [`TooManyRules`] if [`LITERAL_RULES_MAX`] other groups are revoked by name.
    pub fn revoke(
        &mut self,
        permission: Permission,
        group: Option<&GroupName>,
    ) -> Result<(), TooManyRules> {
        let Some(group) = group else {
            *self.global.of_mut(permission) = false;
            return Ok(());
        };
        let is_global = *self.global.of(permission);
        if is_global || self.rules.is_some() {
            let rules = self.rules_mut(permission);
            if is_global || rules.matches_pattern(group) {
                rules.revoked.insert(group)?;
            }
            rules.granted.remove(group);
            self.rules.take_if(|rules| rules.0.iter().all(Rules::is_empty));
        }
        Ok(())
    }

    /// Whether the connection may do this with `group`. Costs two binary searches and at most [`PATTERNS_MAX`] matches.
    pub fn may(&self, permission: Permission, group: &GroupName) -> bool {
        let is_global = *self.global.of(permission);
        let Some(rules) = &self.rules else { return is_global };
        let rules = rules.of(permission);
        rules.granted.contains(group)
            || (is_global || rules.matches_pattern(group)) && !rules.revoked.contains(group)
    }

    /// Returns what REST's check answers: [`Permissions::may`] for a group, the global permission for `None`.
    pub fn check(&self, permission: Permission, group: Option<&GroupName>) -> bool {
        group.map_or_else(|| *self.global.of(permission), |group| self.may(permission, group))
    }

    /// Returns the groups that are granted by name, in their order.
    pub fn granted(&self, permission: Permission) -> &[GroupName] {
        self.rules(permission).map_or(&[], |rules| &rules.granted.0)
    }

    /// Returns the groups that are revoked by name, in their order.
    pub fn revoked(&self, permission: Permission) -> &[GroupName] {
        self.rules(permission).map_or(&[], |rules| &rules.revoked.0)
    }

    /// Returns the patterns of groups that roles allow.
    pub fn patterns(&self, permission: Permission) -> &[Pattern] {
        self.rules(permission).map_or(&[], |rules| &rules.patterns)
    }

    fn rules(&self, permission: Permission) -> Option<&Rules> {
        self.rules.as_ref().map(|rules| rules.of(permission))
    }

    fn rules_mut(&mut self, permission: Permission) -> &mut Rules {
        self.rules.get_or_insert_default().of_mut(permission)
    }
}

/// One value for each [`Permission`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct PerPermission<T>([T; 2]);

impl<T> PerPermission<T> {
    fn of(&self, permission: Permission) -> &T {
        &self.0[permission as usize]
    }

    fn of_mut(&mut self, permission: Permission) -> &mut T {
        &mut self.0[permission as usize]
    }
}

/// The rules beside the global permission. Invariant: no group is both granted and revoked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Rules {
    granted: Groups,
    revoked: Groups,
    patterns: Vec<Pattern>,
}

impl Rules {
    fn matches_pattern(&self, group: &GroupName) -> bool {
        self.patterns.iter().any(|pattern| pattern.matches(group.as_str()))
    }

    fn is_empty(&self) -> bool {
        self.granted.0.is_empty() && self.revoked.0.is_empty() && self.patterns.is_empty()
    }
}

/// At most [`LITERAL_RULES_MAX`] names, sorted.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Groups(Vec<GroupName>);

impl Groups {
    fn contains(&self, group: &GroupName) -> bool {
        self.0.binary_search(group).is_ok()
    }

    fn insert(&mut self, group: &GroupName) -> Result<(), TooManyRules> {
        let Err(at) = self.0.binary_search(group) else { return Ok(()) };
        if self.0.len() == LITERAL_RULES_MAX {
            return Err(TooManyRules);
        }
        self.0.insert(at, group.clone());
        Ok(())
    }

    fn remove(&mut self, group: &GroupName) {
        if let Ok(at) = self.0.binary_search(group) {
            self.0.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Permission::{JoinLeaveGroup, SendToGroup};
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    fn group(name: &str) -> GroupName {
        GroupName::parse(name).unwrap()
    }

    fn may(roles: &[&str], permission: Permission, name: &str) -> bool {
        Permissions::from_roles(roles.iter().copied()).may(permission, &group(name))
    }

    #[test]
    fn roles_grant_what_the_protocol_says() {
        assert!(may(&["webpubsub.sendToGroup"], SendToGroup, "any.group"));
        assert!(!may(&["webpubsub.sendToGroup"], JoinLeaveGroup, "any.group"));
        assert!(may(&["webpubsub.joinLeaveGroup.a.b"], JoinLeaveGroup, "a.b"));
        assert!(!may(&["webpubsub.joinLeaveGroup.a.b"], JoinLeaveGroup, "a.B"));
        assert!(may(&["webpubsub.sendToGroup.*"], SendToGroup, "*"));
        assert!(!may(&["webpubsub.sendToGroup.*"], SendToGroup, "room"), "a name, no pattern");
        assert!(may(&["x", "webpubsub.sendToGroups.room-*"], SendToGroup, "room-1"));
        assert!(!may(&[], SendToGroup, "room"));
    }

    #[test]
    fn other_roles_grant_nothing() {
        for role in [
            "",
            "admin",
            "webpubsub.",
            "webpubsub.SendToGroup",
            "webpubsub.sendToGroupX",
            "webpubsub.sendToGroups",
            "webpubsub.sendToGroups.",
            "webpubsub.sendToGroups.a\\b",
            "webpubsub.sendToGroup.",
            "webpubsub.sendToGroup. ",
            " webpubsub.sendToGroup",
        ] {
            assert_eq!(Permissions::from_roles([role]).global, PerPermission([false; 2]), "{role}");
            assert!(!may(&[role], SendToGroup, "a"), "{role}");
        }
        assert_eq!(Role::parse("admin"), Ok(None));
        assert!(matches!(Role::parse("webpubsub.sendToGroup. "), Err(RoleError::Group(_))));
        assert!(matches!(Role::parse("webpubsub.sendToGroups."), Err(RoleError::Pattern(_))));
    }

    #[test]
    fn a_revoked_name_stays_revoked_until_it_is_granted_by_name() {
        let roles =
            ["webpubsub.sendToGroup", "webpubsub.sendToGroups.r*", "webpubsub.sendToGroup.room"];
        let mut permissions = Permissions::from_roles(roles);
        let room = group("room");
        permissions.revoke(SendToGroup, Some(&room)).unwrap();
        permissions.revoke(SendToGroup, Some(&room)).unwrap();
        assert!(!permissions.may(SendToGroup, &room));
        permissions.grant(SendToGroup, None).unwrap();
        assert!(!permissions.may(SendToGroup, &room), "a global grant is not a grant by name");
        permissions.grant(SendToGroup, Some(&room)).unwrap();
        assert!(permissions.may(SendToGroup, &room));
        permissions.revoke(SendToGroup, None).unwrap();
        assert!(permissions.may(SendToGroup, &room), "the name's own rule is left");
        assert!(!permissions.check(SendToGroup, None));
        assert!(permissions.check(SendToGroup, Some(&group("r"))), "patterns are left");
        assert!(!permissions.check(SendToGroup, Some(&group("x"))));
    }

    #[test]
    fn every_rule_is_told() {
        let roles =
            ["webpubsub.sendToGroup", "webpubsub.sendToGroups.r*", "webpubsub.sendToGroup.b"];
        let mut permissions = Permissions::from_roles(roles);
        permissions.grant(SendToGroup, Some(&group("a"))).unwrap();
        permissions.revoke(SendToGroup, Some(&group("c"))).unwrap();
        assert_eq!(permissions.granted(SendToGroup), [group("a"), group("b")]);
        assert_eq!(permissions.revoked(SendToGroup), [group("c")]);
        assert_eq!(permissions.patterns(SendToGroup), [Pattern::parse("r*").unwrap()]);
        assert!(permissions.granted(JoinLeaveGroup).is_empty());
        assert!(Permissions::default().patterns(SendToGroup).is_empty());
    }

    #[test]
    fn revoking_reaches_one_name_only_and_no_pattern() {
        let mut permissions = Permissions::from_roles(["webpubsub.sendToGroup"]);
        permissions.revoke(SendToGroup, Some(&group("*"))).unwrap();
        assert!(permissions.may(SendToGroup, &group("room")));
        assert!(!permissions.may(SendToGroup, &group("*")));
    }

    #[test]
    fn rules_by_name_are_limited_and_reclaimed() {
        let mut permissions = Permissions::default();
        let names: Vec<_> = (0..=LITERAL_RULES_MAX).map(|at| group(&format!("g{at}"))).collect();
        let (last, rest) = names.split_last().unwrap();
        for name in rest {
            permissions.grant(JoinLeaveGroup, Some(name)).unwrap();
        }
        let before = permissions.clone();
        assert_eq!(permissions.grant(JoinLeaveGroup, Some(last)), Err(TooManyRules));
        assert_eq!(permissions, before, "a refused grant changes nothing");
        permissions.grant(SendToGroup, Some(last)).unwrap();
        permissions.grant(JoinLeaveGroup, Some(&rest[0])).unwrap();
        permissions.revoke(JoinLeaveGroup, Some(&rest[0])).unwrap();
        permissions.grant(JoinLeaveGroup, Some(last)).unwrap();

        permissions.grant(JoinLeaveGroup, None).unwrap();
        for name in rest {
            permissions.revoke(JoinLeaveGroup, Some(name)).unwrap();
        }
        assert_eq!(permissions.revoke(JoinLeaveGroup, Some(last)), Err(TooManyRules));
        assert!(permissions.may(JoinLeaveGroup, last), "a refused revocation changes nothing");
    }

    #[test]
    fn roles_beyond_the_limits_grant_nothing() {
        let roles: Vec<String> = (0..=LITERAL_RULES_MAX)
            .map(|at| format!("webpubsub.sendToGroup.g{at}"))
            .chain((0..=PATTERNS_MAX).map(|at| format!("webpubsub.sendToGroups.p{at}.*")))
            .collect();
        let permissions = Permissions::from_roles(roles.iter().map(String::as_str));
        assert!(permissions.may(SendToGroup, &group("g999")));
        assert!(!permissions.may(SendToGroup, &group("g1000")));
        assert!(permissions.may(SendToGroup, &group("p99.x")));
        assert!(!permissions.may(SendToGroup, &group("p100.x")));
    }

    #[test]
    fn most_connections_own_no_heap_memory() {
        assert_eq!(size_of::<Permissions>(), 16);
        let mut permissions =
            Permissions::from_roles(["webpubsub.sendToGroup", "webpubsub.joinLeaveGroup", "mine"]);
        assert!(permissions.rules.is_none());
        permissions.revoke(SendToGroup, Some(&group("a"))).unwrap();
        permissions.grant(SendToGroup, Some(&group("a"))).unwrap();
        permissions.revoke(SendToGroup, None).unwrap();
        permissions.revoke(SendToGroup, Some(&group("a"))).unwrap();
        assert!(permissions.rules.is_none());
    }

    #[test]
    fn permissions_have_the_names_of_the_specification() {
        assert_eq!(Permission::parse("joinLeaveGroup"), Some(JoinLeaveGroup));
        assert_eq!(Permission::parse("sendToGroup"), Some(SendToGroup));
        for other in ["", "sendtogroup", "SendToGroup", "sendToGroups", "read"] {
            assert_eq!(Permission::parse(other), None, "{other}");
        }
    }

    /// The rule of [`Permissions::may`] written down as a person would.
    #[derive(Default)]
    struct Model {
        global: bool,
        patterns: Vec<Pattern>,
        granted: BTreeSet<GroupName>,
        revoked: BTreeSet<GroupName>,
    }

    impl Model {
        fn role_allows(&self, group: &GroupName) -> bool {
            self.global || self.patterns.iter().any(|pattern| pattern.matches(group.as_str()))
        }

        fn may(&self, group: &GroupName) -> bool {
            if self.granted.contains(group) {
                true
            } else if self.revoked.contains(group) {
                false
            } else {
                self.role_allows(group)
            }
        }
    }

    const NAMES: [&str; 5] = ["a", "b", "a.b", "*", "ab"];
    const PATTERNS: [&str; 5] = ["a*", "?", "**", "a.?", "\\*"];

    #[derive(Debug, Clone)]
    enum Step {
        Grant(Permission, Option<&'static str>),
        Revoke(Permission, Option<&'static str>),
    }

    fn permission() -> impl Strategy<Value = Permission> {
        prop::sample::select(Permission::ALL.to_vec())
    }

    fn step() -> impl Strategy<Value = Step> {
        let target = || prop::option::weighted(0.8, prop::sample::select(NAMES.to_vec()));
        prop_oneof![
            (permission(), target()).prop_map(|(permission, name)| Step::Grant(permission, name)),
            (permission(), target()).prop_map(|(permission, name)| Step::Revoke(permission, name)),
        ]
    }

    proptest! {
        #[test]
        fn permissions_follow_the_model(
            literals in prop::collection::vec((permission(), prop::sample::select(NAMES.to_vec())), 0..4),
            patterns in prop::collection::vec((permission(), prop::sample::select(PATTERNS.to_vec())), 0..3),
            globals in prop::collection::vec(permission(), 0..2),
            steps in prop::collection::vec(step(), 0..24),
        ) {
            let mut models = [Model::default(), Model::default()];
            let mut roles = vec!["unknown".to_owned()];
            for (permission, name) in literals {
                models[permission as usize].granted.insert(group(name));
                roles.push(format!("webpubsub.{}.{name}", permission.as_str()));
            }
            for (permission, pattern) in patterns {
                models[permission as usize].patterns.push(Pattern::parse(pattern).unwrap());
                roles.push(format!("webpubsub.{}s.{pattern}", permission.as_str()));
            }
            for permission in globals {
                models[permission as usize].global = true;
                roles.push(format!("webpubsub.{}", permission.as_str()));
            }
            let mut permissions = Permissions::from_roles(roles.iter().map(String::as_str));
            let same = |permissions: &Permissions, models: &[Model; 2]| {
                Permission::ALL.into_iter().all(|permission| {
                    let model = &models[permission as usize];
                    permissions.check(permission, None) == model.global
                        && NAMES.iter().all(|name| permissions.may(permission, &group(name)) == model.may(&group(name)))
                })
            };
            prop_assert!(same(&permissions, &models));
            for step in steps {
                match step {
                    Step::Grant(permission, name) => {
                        let model = &mut models[permission as usize];
                        match name.map(group) {
                            None => model.global = true,
                            Some(name) => { model.revoked.remove(&name); model.granted.insert(name); }
                        }
                        permissions.grant(permission, name.map(group).as_ref()).unwrap();
                    }
                    Step::Revoke(permission, name) => {
                        let model = &mut models[permission as usize];
                        match name.map(group) {
                            None => model.global = false,
                            Some(name) => {
                                model.granted.remove(&name);
                                if model.role_allows(&name) {
                                    model.revoked.insert(name);
                                }
                            }
                        }
                        permissions.revoke(permission, name.map(group).as_ref()).unwrap();
                    }
                }
                prop_assert!(same(&permissions, &models), "after {step:?}");
            }
        }
    }
}
