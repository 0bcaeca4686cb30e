use std::collections::BTreeMap;
use std::os::unix::fs::PermissionsExt;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures_util::future::join_all;
use hookwire_proto::handler::HubSettings;
use hookwire_proto::template::TemplateDocument;
use proptest::prelude::*;
use redb::StorageBackend;

use super::*;

fn hub(name: &str) -> HubName {
    HubName::parse(name).unwrap()
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

fn group(name: &str) -> GroupName {
    GroupName::parse(name).unwrap()
}

fn add(name: &str, expires: Option<UnixMillis>) -> MembershipChange {
    MembershipChange::Add { group: group(name), expires }
}

fn templates(url: &str) -> TemplatesDocument {
    let template = TemplateDocument { url_template: url.to_owned(), ..TemplateDocument::default() };
    TemplatesDocument { templates: vec![template] }
}

/// Opens the store after the one before it has closed.
fn open(folder: &Path, now: UnixMillis) -> (Store, Restored, JoinHandle<()>) {
    Store::open(folder, now).unwrap()
}

#[tokio::test]
async fn everything_is_there_after_reopening() {
    let folder = tempfile::tempdir().unwrap();
    let (store, restored, writer) = open(folder.path(), 0);
    assert!(restored.templates.is_none() && restored.memberships.is_empty());
    let (chat, ann) = (hub("chat"), user("ann"));
    for change in [
        add("a", None),
        add("b", Some(50)),
        add("c", Some(500)),
        add("d", None),
        add("e", Some(0)),
        MembershipChange::Remove { group: group("d") },
    ] {
        store.change_membership(&chat, &ann, &change).await.unwrap();
    }
    store.change_membership(&chat, &user("ann2"), &add("a", None)).await.unwrap();
    store.set_templates(templates("http://a/")).await.unwrap();
    store.set_templates(templates("http://b/")).await.unwrap();
    let document = |secret: &str| -> HubDocument {
        let text = format!(
            r#"{{"eventHandlers":[{{"urlTemplate":"http://h/","auth":{{"type":"bearer","tokenUrl":"https://t/","clientId":"i","clientSecret":"{secret}"}}}}]}}"#
        );
        serde_json::from_str(&text).unwrap()
    };
    for (name, document) in [
        ("chat", Some(document("a"))),
        ("chat", Some(document("b"))),
        ("x", Some(document("a"))),
        ("x", None),
    ] {
        store.set_hub(&hub(name), document.as_ref()).await.unwrap();
    }
    drop(store);
    writer.join().unwrap();

    let (store, restored, writer) = open(folder.path(), 100);
    assert_eq!(restored.templates, Some(templates("http://b/")));
    let checked = |document: &HubDocument| HubSettings::parse(document).unwrap();
    let [(name, stored)] = &restored.hubs[..] else { panic!("{:?}", restored.hubs) };
    assert_eq!((name, checked(stored)), (&chat, checked(&document("b"))), "secrets included");
    let row = |row: &MembershipRow| (row.1.to_string(), row.2.to_string(), row.3);
    let rows: Vec<_> = restored.memberships.iter().map(row).collect();
    let expected = [("ann", "a", None), ("ann", "c", Some(500)), ("ann2", "a", None)];
    assert_eq!(rows, expected.map(|(user, group, at)| (user.to_owned(), group.to_owned(), at)));
    store.change_membership(&chat, &ann, &MembershipChange::RemoveAll).await.unwrap();
    drop(store);
    writer.join().unwrap();
    let (_store, restored, _writer) = open(folder.path(), 100);
    assert_eq!(restored.memberships.len(), 1, "only the other user's is left");
}

#[test]
fn the_folder_of_another_process_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let first = open(folder.path(), 0);
    let error = Store::open(folder.path(), 0).unwrap_err();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    assert!(error.to_string().contains(folder.path().to_str().unwrap()), "{error}");
    drop(first);
}

#[test]
fn nobody_else_may_read_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("deep/data");
    drop(open(&data_dir, 0));
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&data_dir), 0o700);
    assert_eq!(mode(&data_dir.join(FILE_NAME)), 0o600);
}

#[test]
fn a_file_that_is_no_store_and_a_folder_that_is_none_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(FILE_NAME), "nonsense ".repeat(1_000)).unwrap();
    assert!(matches!(Store::open(folder.path(), 0), Err(StoreError::Database(_))));
    let no_folder = folder.path().join(FILE_NAME);
    assert!(matches!(Store::open(&no_folder, 0), Err(StoreError::Folder { .. })));
}

/// Memory that counts syncs and fails on demand.
#[derive(Debug, Clone, Default)]
struct Disk(Arc<DiskState>);

#[derive(Debug, Default)]
struct DiskState {
    bytes: Mutex<Vec<u8>>,
    syncs: AtomicUsize,
    fails: AtomicBool,
}

impl Disk {
    fn reopen(&self) -> impl Fn() -> Result<Database, redb::DatabaseError> {
        let disk = self.clone();
        move || Database::builder().create_with_backend(disk.clone())
    }

    fn check(&self) -> Result<(), io::Error> {
        if self.0.fails.load(Ordering::SeqCst) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Ok(())
    }

    fn syncs(&self) -> usize {
        self.0.syncs.load(Ordering::SeqCst)
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> Result<u64, io::Error> {
        Ok(self.0.bytes.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> Result<(), io::Error> {
        let offset = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.0.bytes.lock().unwrap()[offset..offset + out.len()]);
        Ok(())
    }

    fn set_len(&self, length: u64) -> Result<(), io::Error> {
        self.check()?;
        self.0.bytes.lock().unwrap().resize(usize::try_from(length).unwrap(), 0);
        Ok(())
    }

    fn sync_data(&self) -> Result<(), io::Error> {
        self.check()?;
        self.0.syncs.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> Result<(), io::Error> {
        self.check()?;
        let offset = usize::try_from(offset).unwrap();
        self.0.bytes.lock().unwrap()[offset..offset + data.len()].copy_from_slice(data);
        Ok(())
    }
}

fn membership(change: MembershipChange) -> Change {
    Change::Membership(hub("chat"), user("ann"), change)
}

#[test]
fn after_the_disk_has_failed_the_store_works_again() {
    let disk = Disk::default();
    let (mut writer, _) = Writer::open(disk.reopen(), 10, 0).unwrap();
    writer.write(&[membership(add("a", None))], 0).remove(0).unwrap();
    for _ in 0..2 {
        disk.0.fails.store(true, Ordering::SeqCst);
        let changes = [membership(add("b", None)), membership(add("c", None))];
        let results = writer.write(&changes, 0);
        assert_eq!(results.len(), 2);
        for result in results {
            assert!(matches!(result, Err(StoreError::Database(_))));
        }
    }
    disk.0.fails.store(false, Ordering::SeqCst);
    writer.write(&[membership(add("d", None))], 0).remove(0).unwrap();
    drop(writer);
    let (_, restored) = Writer::open(disk.reopen(), 10, 0).unwrap();
    let groups: Vec<_> = restored.memberships.iter().map(|row| row.2.to_string()).collect();
    assert_eq!(groups, ["a", "d"], "what failed has not happened");
}

#[test]
fn changes_that_come_together_share_one_commit() {
    let disk = Disk::default();
    let (mut writer, _) = Writer::open(disk.reopen(), 10_000, 0).unwrap();
    let change = |at: usize| membership(add(&format!("g{at}"), None));
    let before = disk.syncs();
    writer.write(&[change(0)], 0).remove(0).unwrap();
    assert!(before < disk.syncs(), "a change is on the disk when it is answered");
    let before = disk.syncs();
    let many: Vec<_> = (1..1_000).map(change).collect();
    assert!(writer.write(&many, 0).iter().all(Result::is_ok));
    // One for the changes, and perhaps one for the file's growth.
    assert!(disk.syncs() - before <= 2, "{}", disk.syncs() - before);
}

#[test]
fn a_full_store_refuses_what_is_new_and_forgets_what_has_ended() {
    let disk = Disk::default();
    let (mut writer, _) = Writer::open(disk.reopen(), 3, 0).unwrap();
    let mut write = |change, now| writer.write(&[membership(change)], now).remove(0);
    for (name, expires) in [("a", None), ("b", Some(100)), ("c", Some(70_000))] {
        write(add(name, expires), 0).unwrap();
    }
    assert!(matches!(write(add("d", None), 99), Err(StoreError::Full)));
    write(add("a", Some(90_000)), 99).unwrap();
    // One has ended, but a full table is not read through for every caller.
    assert!(matches!(write(add("d", None), 200), Err(StoreError::Full)));
    write(add("d", None), 99 + 60_000).unwrap();
    assert!(matches!(write(add("e", None), 99 + 60_001), Err(StoreError::Full)));
    write(MembershipChange::Remove { group: group("d") }, 99 + 60_001).unwrap();
    write(add("e", None), 99 + 60_001).unwrap();
}

#[test]
fn a_full_store_refuses_within_one_commit_too() {
    let disk = Disk::default();
    let (mut writer, _) = Writer::open(disk.reopen(), 2, 0).unwrap();
    let changes = ["a", "b", "c", "a"].map(|name| membership(add(name, None)));
    let results = writer.write(&changes, 0);
    let fits: Vec<_> = results.iter().map(Result::is_ok).collect();
    assert_eq!(fits, [true, true, false, true]);
    assert!(matches!(results[2], Err(StoreError::Full)));
}

#[test]
fn templates_that_cannot_be_read_stop_the_start() {
    let disk = Disk::default();
    drop(Writer::open(disk.reopen(), 2, 0).unwrap());
    let database = disk.reopen()().unwrap();
    let transaction = database.begin_write().unwrap();
    let table = redb::TableDefinition::<&str, &str>::new("settings");
    transaction.open_table(table).unwrap().insert("upstream_templates", "{}").unwrap();
    transaction.commit().unwrap();
    drop(database);
    assert!(matches!(Writer::open(disk.reopen(), 2, 0), Err(StoreError::Templates(_))));
}

#[derive(Debug, Clone)]
enum Step {
    /// Changes that may be made at the same time: each of another user.
    Change(Vec<(usize, MembershipChange)>),
    Templates(String),
    /// Closes the store and opens it at a later time.
    Reopen(UnixMillis),
}

const HUBS: [&str; 2] = ["chat", "lobby"];
const USERS: [&str; 4] = ["a", "a b", "ab", "ä"];

fn step() -> impl Strategy<Value = Step> {
    let name = prop_oneof![Just("g"), Just("g1"), Just("ö / 1")].prop_map(group);
    let expires = proptest::option::of(0..100_u64);
    let change = prop_oneof![
        4 => (name.clone(), expires).prop_map(|(group, expires)| MembershipChange::Add { group, expires }),
        2 => name.prop_map(|group| MembershipChange::Remove { group }),
        1 => Just(MembershipChange::RemoveAll),
    ];
    prop_oneof![
        6 => proptest::collection::vec((0..HUBS.len() * USERS.len(), change), 1..6).prop_map(Step::Change),
        1 => "[a-z]{1,9}".prop_map(Step::Templates),
        2 => (0..40_u64).prop_map(Step::Reopen),
    ]
}

type Model = BTreeMap<(HubName, UserId), BTreeMap<GroupName, Option<UnixMillis>>>;

fn change_model(model: &mut Model, of: (HubName, UserId), change: MembershipChange) {
    let groups = model.entry(of).or_default();
    match change {
        MembershipChange::Add { group, expires } => drop(groups.insert(group, expires)),
        MembershipChange::Remove { group } => drop(groups.remove(&group)),
        MembershipChange::RemoveAll => groups.clear(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    /// After every reopening the store holds what a map holds that has seen the same changes.
    #[test]
    fn the_store_remembers_what_a_map_would(steps in proptest::collection::vec(step(), 1..24)) {
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (mut model, mut model_templates, mut now) = (Model::new(), None, 0);
        let (mut store, _, mut writer) = open(folder.path(), now);
        for step in steps.into_iter().chain([Step::Reopen(1)]) {
            match step {
                Step::Change(mut changes) => {
                    changes.sort_by_key(|(of, _)| *of);
                    changes.dedup_by_key(|(of, _)| *of);
                    let changes = changes.into_iter().map(|(of, change)| {
                        ((hub(HUBS[of % 2]), user(USERS[of / 2])), change)
                    });
                    let changes: Vec<_> = changes.collect();
                    let stored = changes.iter().map(|((hub, user), change)| store.change_membership(hub, user, change));
                    for result in runtime.block_on(join_all(stored)) {
                        result.unwrap();
                    }
                    for (of, change) in changes {
                        change_model(&mut model, of, change);
                    }
                }
                Step::Templates(path) => {
                    let document = templates(&format!("http://h/{path}"));
                    runtime.block_on(store.set_templates(document.clone())).unwrap();
                    model_templates = Some(document);
                }
                Step::Reopen(after) => {
                    drop(store);
                    writer.join().unwrap();
                    now += after;
                    let restored;
                    (store, restored, writer) = open(folder.path(), now);
                    for groups in model.values_mut() {
                        groups.retain(|_, expires| expires.is_none_or(|expires| now < expires));
                    }
                    prop_assert_eq!(&restored.templates, &model_templates);
                    let mut held = restored.memberships;
                    held.sort();
                    let rows = model.iter().flat_map(|((hub, user), groups)| {
                        groups.iter().map(|(group, expires)| (hub.clone(), user.clone(), group.clone(), *expires))
                    });
                    let mut rows: Vec<_> = rows.collect();
                    rows.sort();
                    prop_assert_eq!(held, rows);
                }
            }
        }
    }
}
