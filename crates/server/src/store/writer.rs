//! The one thread's part: tables, commits, and what is done when the disk fails or the table is full.

use std::sync::Arc;

use hookwire_hub::{MembershipChange, UnixMillis};
use hookwire_proto::name::{GroupName, HubName, UserId};
use hookwire_proto::template::TemplatesDocument;
use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    TableDefinition,
};

use super::{Restored, StoreError};

/// How long a full table is not searched again for memberships that have ended: that reads all of it. In milliseconds.
const SEARCH_PAUSE_MS: UnixMillis = 60_000;

/// Settings by name, as JSON.
const SETTINGS: TableDefinition<'_, &str, &str> = TableDefinition::new("settings");

/// (hub, user, group) → when it ends.
const MEMBERSHIPS: TableDefinition<'_, Membership, Option<UnixMillis>> =
    TableDefinition::new("memberships");

/// Hub → its settings, as JSON.
const HUBS: TableDefinition<'_, &str, &str> = TableDefinition::new("hubs");

type Membership = (&'static str, &'static str, &'static str);
type Memberships<'transaction> = redb::Table<'transaction, Membership, Option<UnixMillis>>;

/// The name under which the templates stand.
const TEMPLATES: &str = "upstream_templates";

/// One change.
#[derive(Clone)]
pub(super) enum Change {
    Templates(TemplatesDocument),
    /// Settings of a hub as JSON, or that it has none. Holds secrets, so that changes have no `Debug`.
    Hub(HubName, Option<String>),
    Membership(HubName, UserId, MembershipChange),
}

/// Writes changes, many in one commit.
#[derive(Debug)]
pub(super) struct Writer<Reopen> {
    reopen: Reopen,
    /// `None` after a failure: redb takes nothing more then, so it is opened again.
    database: Option<Database>,
    room: Room,
}

/// How many memberships fit.
#[derive(Debug)]
struct Room {
    memberships_max: u64,
    /// When a full table may be searched again.
    next_search: UnixMillis,
}

impl<Reopen: Fn() -> Result<Database, DatabaseError>> Writer<Reopen> {
    /// Opens the database and returns what is in it, without the memberships that have ended by `now`.
    pub(super) fn open(
        reopen: Reopen,
        memberships_max: u64,
        now: UnixMillis,
    ) -> Result<(Self, Restored), StoreError> {
        let database = reopen()?;
        let transaction = database.begin_write()?;
        transaction.open_table(SETTINGS)?;
        transaction.open_table(HUBS)?;
        remove_ended(&mut transaction.open_table(MEMBERSHIPS)?, now)?;
        transaction.commit()?;
        let restored = read(&database)?;
        let room = Room { memberships_max, next_search: 0 };
        Ok((Self { reopen, database: Some(database), room }, restored))
    }

    /// Makes the changes durable, all in one commit; returns what came of each, in their order.
    pub(super) fn write(
        &mut self,
        changes: &[Change],
        now: UnixMillis,
    ) -> Vec<Result<(), StoreError>> {
        self.commit(changes, now).unwrap_or_else(|error| {
            self.database = None;
            let error = Arc::new(error);
            changes.iter().map(|_| Err(StoreError::Database(error.clone()))).collect()
        })
    }

    fn commit(
        &mut self,
        changes: &[Change],
        now: UnixMillis,
    ) -> Result<Vec<Result<(), StoreError>>, redb::Error> {
        let database = match self.database.take() {
            Some(database) => database,
            None => (self.reopen)()?,
        };
        let database = self.database.insert(database);
        let transaction = database.begin_write()?;
        let mut results = Vec::with_capacity(changes.len());
        {
            let mut settings = transaction.open_table(SETTINGS)?;
            let mut hubs = transaction.open_table(HUBS)?;
            let mut memberships = transaction.open_table(MEMBERSHIPS)?;
            for change in changes {
                results.push(match change {
                    Change::Templates(templates) => {
                        let text =
                            serde_json::to_string(templates).expect("text and lists become JSON");
                        settings.insert(TEMPLATES, text.as_str())?;
                        Ok(())
                    }
                    Change::Hub(hub, Some(text)) => {
                        hubs.insert(hub.as_str(), text.as_str())?;
                        Ok(())
                    }
                    Change::Hub(hub, None) => {
                        hubs.remove(hub.as_str())?;
                        Ok(())
                    }
                    Change::Membership(hub, user, change) => {
                        if self.room.fits(&mut memberships, hub, user, change, now)? {
                            apply(&mut memberships, hub.as_str(), user.as_str(), change)?;
                            Ok(())
                        } else {
                            Err(StoreError::Full)
                        }
                    }
                });
            }
        }
        transaction.commit()?;
        Ok(results)
    }
}

impl Room {
    /// Returns whether a change finds room, which may be made by forgetting what has ended.
    fn fits(
        &mut self,
        table: &mut Memberships<'_>,
        hub: &HubName,
        user: &UserId,
        change: &MembershipChange,
        now: UnixMillis,
    ) -> Result<bool, redb::Error> {
        let MembershipChange::Add { group, .. } = change else { return Ok(true) };
        if table.len()? < self.memberships_max
            || table.get((hub.as_str(), user.as_str(), group.as_str()))?.is_some()
        {
            return Ok(true);
        }
        if now < self.next_search {
            return Ok(false);
        }
        self.next_search = now + SEARCH_PAUSE_MS;
        remove_ended(table, now)?;
        Ok(table.len()? < self.memberships_max)
    }
}

fn read(database: &Database) -> Result<Restored, StoreError> {
    let transaction = database.begin_read()?;
    let settings = transaction.open_table(SETTINGS)?;
    let templates = settings.get(TEMPLATES)?;
    let templates = templates.map(|text| serde_json::from_str(text.value())).transpose();
    let templates = templates.map_err(StoreError::Templates)?;
    let mut hubs = Vec::new();
    for row in transaction.open_table(HUBS)?.iter()? {
        let (hub, text) = row?;
        let document = serde_json::from_str(text.value())
            .map_err(|source| StoreError::Hub { hub: hub.value().to_owned(), source })?;
        // Only checked names are written.
        if let Ok(hub) = HubName::parse(hub.value()) {
            hubs.push((hub, document));
        }
    }
    let mut memberships = Vec::new();
    let mut unreadable = 0_u64;
    for row in transaction.open_table(MEMBERSHIPS)?.iter()? {
        let (key, expires) = row?;
        let (hub, user, group) = key.value();
        match (HubName::parse(hub), UserId::parse(user), GroupName::parse(group)) {
            (Ok(hub), Ok(user), Ok(group)) => {
                memberships.push((hub, user, group, expires.value()));
            }
            _ => unreadable += 1,
        }
    }
    if 0 < unreadable {
        tracing::error!(
            unreadable,
            "stored memberships have names that are not allowed; they are left out"
        );
    }
    Ok(Restored { templates, hubs, memberships })
}

fn apply(
    table: &mut Memberships<'_>,
    hub: &str,
    user: &str,
    change: &MembershipChange,
) -> Result<(), redb::Error> {
    match change {
        MembershipChange::Add { group, expires } => {
            table.insert((hub, user, group.as_str()), expires)?;
        }
        MembershipChange::Remove { group } => {
            table.remove((hub, user, group.as_str()))?;
        }
        MembershipChange::RemoveAll => {
            // No text lies between a user and the same user with a zero byte behind it.
            let after = format!("{user}\0");
            table.retain_in((hub, user, "")..(hub, after.as_str(), ""), |_, _| false)?;
        }
    }
    Ok(())
}

fn remove_ended(table: &mut Memberships<'_>, now: UnixMillis) -> Result<(), redb::Error> {
    table.retain(|_, expires| expires.is_none_or(|expires| now < expires))?;
    Ok(())
}
