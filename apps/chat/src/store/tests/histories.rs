//! Random histories: several processes on one storage, deaths at any step, compared with what must hold whatever happened.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::future::join_all;
use proptest::prelude::*;
use tempfile::TempDir;

use super::weather::{Death, Weather, Weathered};
use super::*;

/// One send: which user, which key.
type Sent = (u8, u8);

/// What a process sends, and when it dies.
type Plan = (Vec<Sent>, Option<(u64, Death)>);

fn sends(max: usize) -> impl Strategy<Value = Vec<Sent>> {
    prop::collection::vec((0..3_u8, 0..40_u8), 1..max)
}

fn death() -> impl Strategy<Value = Option<(u64, Death)>> {
    let kind = prop_oneof![Just(Death::BeforeTheCall), Just(Death::AfterTheCall)];
    prop_oneof![Just(None), (1..60_u64, kind).prop_map(Some)]
}

fn names((user, key): Sent) -> (String, String) {
    (format!("user {user}"), format!("key {key}"))
}

/// Sends everything, a few at a time. Returns what was acknowledged, and with which number.
async fn send_all(store: &Store, sends: &[Sent]) -> Vec<(Sent, u64)> {
    let mut acknowledged = Vec::new();
    for together in sends.chunks(5) {
        let sending = together.iter().map(async |sent| {
            let (user, key) = names(*sent);
            (*sent, send(store, &ConversationId::Public, &user, &key).await)
        });
        for (sent, result) in join_all(sending).await {
            if let Ok(seq) = result {
                acknowledged.push((sent, seq));
            }
        }
    }
    acknowledged
}

/// Whatever happened: numbers without holes, each message once, each acknowledged one where it was said to be.
fn check(
    history: &[(u64, Message)],
    acknowledged: &[(Sent, u64)],
    tried: &[Sent],
) -> Result<(), TestCaseError> {
    let mut places = BTreeMap::new();
    for (place, (seq, stored)) in history.iter().enumerate() {
        prop_assert_eq!(*seq, place as u64 + 1);
        prop_assert_eq!(stored, &message(&stored.user, &stored.key));
        let before = places.insert((stored.user.clone(), stored.key.clone()), *seq);
        prop_assert_eq!(before, None, "stored twice");
    }
    for (sent, seq) in acknowledged {
        prop_assert_eq!(places.get(&names(*sent)), Some(seq), "acknowledged, then lost or moved");
    }
    let tried: BTreeSet<_> = tried.iter().map(|sent| names(*sent)).collect();
    prop_assert!(places.keys().all(|stored| tried.contains(stored)), "nobody sent it");
    Ok(())
}

async fn processes_on_one_storage(plans: Vec<Plan>, seed: u64) -> Result<(), TestCaseError> {
    let inner = memory();
    let mut running = Vec::new();
    for (number, (sends, dies_at)) in (1..).zip(&plans) {
        let weather = Weather { seed: seed.wrapping_mul(31) + number, dies_at: *dies_at };
        let objects: Arc<dyn ObjectStore> = Weathered::on(&inner, weather);
        let (store, _) = store_on(&objects, seed ^ number);
        running.push(async move { send_all(&store, sends).await });
    }
    let mut acknowledged: Vec<(Sent, u64)> = join_all(running).await.concat();
    let mut tried: Vec<Sent> = plans.into_iter().flat_map(|(sends, _)| sends).collect();

    // Somebody comes later, finds everything, and everything can be sent again.
    let (later, _) = store_on(&inner, seed);
    check(&history(&later, &ConversationId::Public).await, &acknowledged, &tried)?;
    tried.push((3, 0));
    let again = send_all(&later, &tried).await;
    prop_assert_eq!(again.len(), tried.len());
    acknowledged.extend(again);
    check(&history(&later, &ConversationId::Public).await, &acknowledged, &tried)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn nothing_acknowledged_is_lost_and_nothing_is_stored_twice(
        plans in prop::collection::vec((sends(40), death()), 1..4),
        seed in 1..u64::MAX,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(processes_on_one_storage(plans, seed))?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4, ..ProptestConfig::default() })]

    #[test]
    fn two_processes_share_one_folder(plans in prop::array::uniform2(sends(60)), seed: u64) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().unwrap();
        runtime.block_on(async {
            let folder = TempDir::new().unwrap();
            let ((one, _), (other, _)) = (
                store_on(&open(&folder).await, seed),
                store_on(&open(&folder).await, !seed),
            );
            let (at_one, at_other) = tokio::join!(send_all(&one, &plans[0]), send_all(&other, &plans[1]));
            prop_assert_eq!(at_one.len() + at_other.len(), plans[0].len() + plans[1].len());
            let (acknowledged, tried) = ([at_one, at_other].concat(), plans.concat());
            one.close().await;
            other.close().await;
            let (reopened, _) = store_on(&open(&folder).await, seed);
            check(&history(&reopened, &ConversationId::Public).await, &acknowledged, &tried)
        })?;
    }
}

async fn open(folder: &TempDir) -> Arc<dyn ObjectStore> {
    crate::storage::Storage::folder(folder.path()).open().await.unwrap()
}

/// A process is held up before its write for so long that others write on and delete the number that it wants.
#[tokio::test(start_paused = true)]
async fn a_process_that_was_held_up_loses_nothing() {
    let inner = memory();
    let slow = Weathered::on(&inner, Weather::default());
    let objects: Arc<dyn ObjectStore> = slow.clone();
    let (slow_store, _) = store_on(&objects, 1);
    let (quick_store, _) = store_on(&inner, 2);
    let id = ConversationId::Public;
    send(&slow_store, &id, "slow", "1").await.unwrap();
    let gate = slow.hold_next_write();
    let held = async { send(&slow_store, &id, "slow", "2").await };
    let others = async {
        gate.reached.notified().await;
        for n in 0..40 {
            send(&quick_store, &id, "quick", &n.to_string()).await.unwrap();
        }
        let versions = inner.list(Some(&<Conversation as writer::Document>::folder("public")));
        assert!(versions.count().await < 20, "old numbers are free again");
        gate.open.notify_one();
    };
    let (seq, ()) = tokio::join!(held, others);
    assert_eq!(seq.unwrap(), 42);
    let stored = history(&quick_store, &id).await;
    assert_eq!(stored.len(), 42);
    assert_eq!(stored[41].1, message("slow", "2"));
}
