//! Sets of connections: a whole hub, a user, a group. One index serves all three.
//!
//! A set exists while it has a member. Its members stand in one dense vector per wire form, so that a delivery is a linear walk over
//! receivers that share the same bytes. Every member knows its position, so that leaving is O(1).

use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::quality::RandomState;
use hashbrown::HashTable;
use hookwire_proto::envelope::WireForm;
use hookwire_proto::name::HubName;
use slab::Slab;
use smallvec::SmallVec;

/// The place of a connection in its shard; used again after [`crate::Input::Released`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// Names a set while it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct SetId(u32);

/// What a set's name means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    /// All connections of the hub; the name is empty.
    Hub,
    User,
    Group,
    /// Those who are told the states of a group's members.
    StateSubscribers,
}

#[derive(Debug)]
struct Set {
    hub: HubName,
    kind: Kind,
    name: Arc<str>,
    parts: SmallVec<[Part; 1]>,
}

/// The members of one wire form. Four fit without a heap block: most users have few connections.
#[derive(Debug)]
struct Part {
    form: WireForm,
    members: SmallVec<[Slot; 4]>,
}

/// Where a member stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) set: SetId,
    pub(crate) position: u32,
}

/// All sets of a shard.
#[derive(Debug, Default)]
pub(crate) struct Sets {
    entries: Slab<Set>,
    by_name: HashTable<u32>,
    hasher: RandomState,
}

impl Sets {
    pub(crate) fn find(&self, hub: &HubName, kind: Kind, name: &str) -> Option<SetId> {
        let hash = self.hasher.hash_one((hub, kind, name));
        self.by_name
            .find(hash, |id| {
                let set = &self.entries[*id as usize];
                set.kind == kind && *set.name == *name && set.hub == *hub
            })
            .map(|id| SetId(*id))
    }

    /// Puts `slot`, which must not be in it, into the named set; makes the set if this is its first member.
    pub(crate) fn join(
        &mut self,
        hub: &HubName,
        kind: Kind,
        name: &Arc<str>,
        form: WireForm,
        slot: Slot,
    ) -> Place {
        let id = self.find(hub, kind, name).unwrap_or_else(|| self.insert(hub, kind, name));
        let set = &mut self.entries[id.0 as usize];
        let known = set.parts.iter().position(|part| part.form == form);
        let at = known.unwrap_or_else(|| {
            set.parts.push(Part { form, members: SmallVec::new() });
            set.parts.len() - 1
        });
        let members = &mut set.parts[at].members;
        members.push(slot);
        Place { set: id, position: index(members.len() - 1) }
    }

    /// Takes the member of `form` at `place` out. Returns the member that moved into its position, if one did.
    pub(crate) fn leave(&mut self, place: Place, form: WireForm) -> Option<Slot> {
        let set = &mut self.entries[place.set.0 as usize];
        let at = set
            .parts
            .iter()
            .position(|part| part.form == form)
            .expect("a member's form has a part");
        let members = &mut set.parts[at].members;
        members.swap_remove(place.position as usize);
        let moved = members.get(place.position as usize).copied();
        if members.is_empty() {
            set.parts.swap_remove(at);
            if set.parts.is_empty() {
                self.remove(place.set);
            }
        } else if members.spilled() && members.len() * 4 < members.capacity() {
            members.shrink_to_fit();
        }
        moved
    }

    /// Returns the members of `set` that have `form`.
    pub(crate) fn members(&self, set: SetId, form: WireForm) -> &[Slot] {
        let Some(set) = self.entries.get(set.0 as usize) else { return &[] };
        set.parts.iter().find(|part| part.form == form).map_or(&[], |part| &part.members)
    }

    /// Returns the members of `set`, whatever their form.
    pub(crate) fn all_members(&self, set: SetId) -> impl Iterator<Item = Slot> + '_ {
        let parts = self.entries.get(set.0 as usize).map_or(&[][..], |set| &set.parts);
        parts.iter().flat_map(|part| part.members.iter().copied())
    }

    /// Returns hub, kind and name of every set. Cost: a walk over all of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&HubName, Kind, &str)> {
        self.entries.iter().map(|(_, set)| (&set.hub, set.kind, &*set.name))
    }

    /// Returns the forms that `set` has members of.
    pub(crate) fn forms(&self, set: SetId) -> SmallVec<[WireForm; 4]> {
        self.entries[set.0 as usize].parts.iter().map(|part| part.form).collect()
    }

    pub(crate) fn hub(&self, set: SetId) -> &HubName {
        &self.entries[set.0 as usize].hub
    }

    pub(crate) fn kind(&self, set: SetId) -> Kind {
        self.entries[set.0 as usize].kind
    }

    pub(crate) fn name(&self, set: SetId) -> &Arc<str> {
        &self.entries[set.0 as usize].name
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    fn insert(&mut self, hub: &HubName, kind: Kind, name: &Arc<str>) -> SetId {
        // All sets of a hub share one copy of its name.
        let hub = match self.find(hub, Kind::Hub, "") {
            Some(all) => self.hub(all).clone(),
            None => hub.clone(),
        };
        let hash = self.hasher.hash_one((&hub, kind, &**name));
        let id = index(self.entries.insert(Set {
            hub,
            kind,
            name: name.clone(),
            parts: SmallVec::new(),
        }));
        self.by_name
            .insert_unique(hash, id, |id| Self::hash(&self.hasher, &self.entries[*id as usize]));
        SetId(id)
    }

    fn remove(&mut self, id: SetId) {
        let hash = Self::hash(&self.hasher, &self.entries[id.0 as usize]);
        if let Ok(entry) = self.by_name.find_entry(hash, |other| *other == id.0) {
            entry.remove();
        }
        self.entries.remove(id.0 as usize);
    }

    fn hash(hasher: &RandomState, set: &Set) -> u64 {
        hasher.hash_one((&set.hub, set.kind, &*set.name))
    }
}

/// Indexes are 32 bits wide: a process runs out of file descriptors long before.
pub(crate) fn index(at: usize) -> u32 {
    u32::try_from(at).expect("a shard holds fewer than 2^32 entries")
}
