//! The store against weather: other processes, crashes at any step, answers that get lost, files that are not ours.

mod costs;
mod files;
mod histories;
mod weather;

use std::sync::Mutex;

use futures_util::{StreamExt, TryStreamExt};

use object_store::memory::InMemory;
use object_store::{ObjectStoreExt, PutPayload};

use super::chain::{Appended, Chain, Version};
use super::segment::SEGMENT_MESSAGES;
use super::*;
use crate::refusal::Code;

/// The numbers of what was committed, in the order in which it was told.
type Told = Arc<Mutex<Vec<u64>>>;

fn random(seed: u64) -> Random {
    let state = Mutex::new(seed);
    Random::new(move || {
        // SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators).
        let mut state = state.lock().unwrap();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = *state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    })
}

fn store_on(objects: &Arc<dyn ObjectStore>, seed: u64) -> (Store, Told) {
    let told = Told::default();
    let tell = Arc::clone(&told);
    let committed = move |_: &Conversation, answer: &Answer| {
        if let Answer::Stands(seq, _) = answer {
            tell.lock().unwrap().push(*seq);
        }
    };
    let retention = Retention { versions_min: 2, age: Duration::ZERO, ..Retention::default() };
    (Store::new(Arc::clone(objects), retention, &random(seed), Box::new(committed)), told)
}

fn user(name: &str) -> UserName {
    UserName::parse(name).unwrap()
}

fn message(user: &str, key: &str) -> Message {
    let time = chrono::DateTime::<chrono::Utc>::from(SystemTime::UNIX_EPOCH).to_rfc3339();
    Message {
        user: user.into(),
        key: key.into(),
        text: format!("{user} says {key}"),
        time,
        attachments: Vec::new(),
    }
}

async fn send(store: &Store, id: &ConversationId, user: &str, key: &str) -> Result<u64, Refusal> {
    let change = ConversationChange::Append(message(user, key));
    match store.change_conversation(id, change).await? {
        Answer::Stands(seq, stored) => {
            assert_eq!(stored, message(user, key));
            Ok(seq)
        }
        Answer::StandsSealed(seq) => Ok(seq),
        Answer::Members(_) => panic!("a message is answered by a message"),
    }
}

/// Reads a whole conversation by paging back.
async fn history(store: &Store, id: &ConversationId) -> Vec<(u64, Message)> {
    let conversation = store.conversation(id).await.unwrap().unwrap();
    let mut pages = Vec::new();
    let mut part = Part::Newest;
    loop {
        let page = store.page(&conversation, part, 100).await.unwrap();
        if let Some((seq, _)) = page.messages.first() {
            part = Part::Before(*seq);
        }
        pages.push(page.messages);
        if !page.more {
            return pages.into_iter().rev().flatten().collect();
        }
    }
}

fn memory() -> Arc<dyn ObjectStore> {
    Arc::new(InMemory::new())
}

fn chain(objects: &Arc<dyn ObjectStore>) -> Chain<'_> {
    Chain::new(
        objects,
        Path::from("chain"),
        Retention { versions_min: 2, age: Duration::ZERO, ..Retention::default() },
    )
}

fn version(number: u64, document: &str) -> Version<String> {
    Version { number, marks: Vec::new(), document: document.into() }
}

#[tokio::test(start_paused = true)]
async fn the_highest_version_is_the_truth() {
    let objects = memory();
    let chain = chain(&objects);
    assert_eq!(chain.head::<String>().await.unwrap(), None);
    let mut base = version(0, "a");
    for mark in 1..=30 {
        assert!(matches!(chain.append(&base, mark).await.unwrap(), Appended::Newest));
        base.number += 1;
        base.marks.insert(0, mark);
        base.marks.truncate(16);
        assert_eq!(chain.head().await.unwrap(), Some(base.clone()));
        assert!(chain.is_head(mark).await.unwrap() && !chain.is_head(mark - 1).await.unwrap());
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_writers_one_loses_and_learns_what_the_other_wrote() {
    let objects = memory();
    let chain = chain(&objects);
    assert!(matches!(chain.append(&version(0, "one"), 1).await.unwrap(), Appended::Newest));
    match chain.append(&version(0, "two"), 2).await.unwrap() {
        Appended::Lost(Some(head)) => assert_eq!((head.number, &*head.document), (1, "one")),
        Appended::Newest | Appended::Followed(_) | Appended::Lost(None) => panic!("it lost"),
    }
}

#[tokio::test(start_paused = true)]
async fn old_versions_are_deleted_and_the_newest_never() {
    let objects = memory();
    let chain = chain(&objects);
    for number in 0..10 {
        chain.append(&version(number, "x"), number).await.unwrap();
    }
    chain.prune(None).await.unwrap();
    chain.prune(None).await.unwrap();
    let left = objects.list(None).map_ok(|meta| meta.location.to_string());
    let mut left: Vec<String> = left.try_collect().await.unwrap();
    left.sort();
    assert_eq!(left, ["chain/00000000000000000009.json", "chain/00000000000000000010.json"]);
    assert_eq!(chain.head::<String>().await.unwrap().unwrap().number, 10);
}

#[tokio::test(start_paused = true)]
async fn young_versions_are_kept() {
    let objects = memory();
    let retention = Retention { versions_min: 2, age: Duration::from_hours(1), versions_max: 12 };
    let chain = Chain::new(&objects, Path::from("chain"), retention);
    for number in 0..10 {
        chain.append(&version(number, "x"), number).await.unwrap();
    }
    assert_eq!(chain.prune(None).await.unwrap(), 10);
    assert_eq!(chain.prune(Some(9)).await.unwrap(), 10, "somebody has written since");
    for number in 10..30 {
        chain.append(&version(number, "x"), number).await.unwrap();
    }
    assert_eq!(chain.prune(None).await.unwrap(), 12, "but not without end");
    assert_eq!(chain.prune(Some(30)).await.unwrap(), 2, "nor when nothing happens any more");
    assert_eq!(objects.list(None).count().await, 2);
}

/// The gap that deleting opens: the number is free again, but its time is over.
#[tokio::test(start_paused = true)]
async fn a_writer_that_slept_does_not_believe_a_deleted_number() {
    let objects = memory();
    let chain = chain(&objects);
    let mut base = version(0, "x");
    for number in 0..40 {
        base.number = number;
        chain.append(&base, 1_000 + number).await.unwrap();
    }
    chain.prune(None).await.unwrap();
    match chain.append(&version(4, "late"), 1).await.unwrap() {
        Appended::Lost(Some(head)) => assert_eq!((head.number, &*head.document), (40, "x")),
        Appended::Newest | Appended::Followed(_) | Appended::Lost(None) => panic!("it lost"),
    }
    assert_eq!(chain.head::<String>().await.unwrap().unwrap().document, "x");
}

#[tokio::test(start_paused = true)]
async fn a_version_that_others_built_upon_counts() {
    let objects = memory();
    let chain = chain(&objects);
    chain.append(&version(0, "mine"), 7).await.unwrap();
    let follower = Version { number: 1, marks: vec![7], document: "theirs".to_owned() };
    chain.append(&follower, 8).await.unwrap();
    // The answer to the first attempt was lost, so it is made again.
    match chain.append(&version(0, "mine"), 7).await.unwrap() {
        Appended::Followed(head) => assert_eq!((head.number, &*head.document), (2, "theirs")),
        Appended::Newest | Appended::Lost(_) => panic!("it counts, and is not the newest"),
    }
}

#[tokio::test(start_paused = true)]
async fn foreign_names_are_passed_over() {
    let objects = memory();
    let chain = chain(&objects);
    chain.append(&version(0, "x"), 1).await.unwrap();
    for name in
        ["99.json", "00000000000000000000.json", "notes.txt", "99999999999999999999.json", ".json"]
    {
        objects.put(&Path::from("chain").join(name), PutPayload::from_static(b"?")).await.unwrap();
    }
    assert_eq!(chain.head::<String>().await.unwrap().unwrap().number, 1);
    chain.prune(None).await.unwrap();
    assert!(matches!(chain.append(&version(1, "y"), 2).await.unwrap(), Appended::Newest));
}

#[tokio::test(start_paused = true)]
async fn messages_are_numbered_and_found_wherever_they_lie() {
    let objects = memory();
    let (store, told) = store_on(&objects, 1);
    let id = ConversationId::Public;
    let count = 5 * SEGMENT_MESSAGES + 7;
    for n in 1..=count {
        assert_eq!(send(&store, &id, "ann", &n.to_string()).await.unwrap(), n);
    }
    assert_eq!(*told.lock().unwrap(), (1..=count).collect::<Vec<_>>());
    let all = history(&store, &id).await;
    assert_eq!(all.len() as u64, count);
    for (place, (seq, stored)) in all.iter().enumerate() {
        assert_eq!((*seq, stored), (place as u64 + 1, &message("ann", &seq.to_string())));
    }

    let conversation = store.conversation(&id).await.unwrap().unwrap();
    assert!(0 < conversation.sealed && conversation.tail.len() < 2 * 64 + 1);
    for (part, limit, expected, more) in [
        (Part::Newest, 3, count - 2..count + 1, true),
        (Part::Newest, 1_000, 1..count + 1, false),
        (Part::Before(1), 10, 0..0, false),
        (Part::Before(0), 10, 0..0, false),
        (Part::Before(2), 10, 1..2, false),
        (Part::Before(130), 100, 30..130, true),
        (Part::Before(u64::MAX), 2, count - 1..count + 1, true),
        (Part::After(0), 64, 1..65, true),
        (Part::After(60), 10, 61..71, true),
        (Part::After(count - 1), 100, count..count + 1, false),
        (Part::After(count), 100, 0..0, false),
        (Part::After(u64::MAX), 100, 0..0, false),
    ] {
        let page = store.page(&conversation, part, limit).await.unwrap();
        let numbers: Vec<u64> = page.messages.iter().map(|(seq, _)| *seq).collect();
        assert_eq!((numbers, page.more), (expected.collect(), more), "{part:?} {limit}");
    }
    store.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_repeated_key_is_the_same_message() {
    let objects = memory();
    let (store, told) = store_on(&objects, 1);
    let id = ConversationId::Public;
    assert_eq!(send(&store, &id, "ann", "k").await.unwrap(), 1);
    assert_eq!(send(&store, &id, "bob", "k").await.unwrap(), 2, "keys belong to their users");
    assert_eq!(send(&store, &id, "ann", "k").await.unwrap(), 1);
    assert_eq!(*told.lock().unwrap(), [1, 2, 1], "it is pushed again, in case nobody heard it");
    for n in 3..=1_000 {
        assert_eq!(send(&store, &id, "carl", &n.to_string()).await.unwrap(), n);
    }
    assert_eq!(send(&store, &id, "ann", "k").await.unwrap(), 1, "also from a segment");
    // Another process, which never saw the message.
    let (other, _) = store_on(&objects, 2);
    assert_eq!(send(&other, &id, "bob", "k").await.unwrap(), 2);
    assert_eq!(send(&other, &id, "bob", "new").await.unwrap(), 1_001);
    assert_eq!(history(&other, &id).await.len(), 1_001);
}

#[tokio::test(start_paused = true)]
async fn messages_that_come_together_share_a_version() {
    let objects = memory();
    let (store, told) = store_on(&objects, 1);
    let sends = (0..200).map(|n| {
        let store = &store;
        async move { send(store, &ConversationId::Public, "ann", &(n % 150).to_string()).await }
    });
    let seqs = futures_util::future::try_join_all(sends).await.unwrap();
    assert_eq!(seqs[..50], seqs[150..], "the same key twice in one version is one message");
    let chain = Chain::new(
        &objects,
        <Conversation as writer::Document>::folder("public"),
        Retention::default(),
    );
    let versions = chain.head::<Option<Conversation>>().await.unwrap().unwrap().number;
    assert!(versions < 10, "{versions} versions for 150 messages");
    store.close().await;
    let told = told.lock().unwrap();
    assert_eq!(told[..150], (1..=150).collect::<Vec<_>>(), "told in order");
}

#[tokio::test(start_paused = true)]
async fn only_members_change_a_group() {
    let objects = memory();
    let (store, _) = store_on(&objects, 1);
    let id = ConversationId::Group(1);
    let change = |change| store.change_conversation(&id, change);
    let code = |result: Result<Answer, Refusal>| result.unwrap_err().code;
    let invite =
        |by: &str, name: &str| ConversationChange::Invite { by: user(by), user: user(name) };
    let join = |name: &str| ConversationChange::Join(user(name));
    let leave = |name: &str| ConversationChange::Leave(user(name));

    assert_eq!(code(change(join("ann")).await), Code::NotFound);
    let create = ConversationChange::Create {
        title: "Tea".into(),
        creator: user("ann"),
        invited: vec![user("bob")],
    };
    change(create.clone()).await.unwrap();
    assert_eq!(code(change(create).await), Code::Conflict);
    assert_eq!(code(send(&store, &id, "bob", "1").await.map(|_| unreachable!())), Code::Forbidden);
    assert_eq!(code(change(invite("bob", "carl")).await), Code::Forbidden);
    assert_eq!(code(change(join("carl")).await), Code::Forbidden);
    assert_eq!(code(change(leave("carl")).await), Code::Forbidden);
    change(join("bob")).await.unwrap();
    change(join("bob")).await.unwrap();
    assert_eq!(send(&store, &id, "bob", "1").await.unwrap(), 1);
    change(invite("bob", "carl")).await.unwrap();
    change(invite("bob", "carl")).await.unwrap();
    change(leave("carl")).await.unwrap();
    change(leave("ann")).await.unwrap();
    assert_eq!(code(send(&store, &id, "ann", "2").await.map(|_| unreachable!())), Code::Forbidden);
    for n in 1..MEMBERS_MAX {
        change(invite("bob", &format!("user {n}"))).await.unwrap();
    }
    assert_eq!(code(change(invite("bob", "one more")).await), Code::Conflict);
    let conversation = store.conversation(&id).await.unwrap().unwrap();
    assert_eq!((conversation.members.len(), conversation.invited.len()), (1, MEMBERS_MAX - 1));

    let direct = ConversationId::direct(&user("ann"), &user("bob")).unwrap();
    for id in [ConversationId::Public, direct] {
        for change in [invite("ann", "carl"), leave("ann")] {
            assert_eq!(code(store.change_conversation(&id, change).await), Code::Invalid);
        }
    }
}

/// What a process remembers of a document may be old; a refusal must not come from that.
#[tokio::test(start_paused = true)]
async fn what_another_process_changed_counts_at_once() {
    let objects = memory();
    let ((one, _), (other, _)) = (store_on(&objects, 1), store_on(&objects, 2));
    let id = ConversationId::Group(1);
    let create = ConversationChange::Create {
        title: "Tea".into(),
        creator: user("ann"),
        invited: vec![user("bob")],
    };
    one.change_conversation(&id, create).await.unwrap();
    other.change_conversation(&id, ConversationChange::Join(user("bob"))).await.unwrap();
    assert_eq!(send(&one, &id, "bob", "1").await.unwrap(), 1);
    one.change_conversation(&id, ConversationChange::Leave(user("bob"))).await.unwrap();
    assert_eq!(send(&other, &id, "bob", "2").await.unwrap_err().code, Code::Forbidden);
}

#[tokio::test(start_paused = true)]
async fn strangers_do_not_write_in_a_direct_conversation() {
    let (store, _) = store_on(&memory(), 1);
    let id = ConversationId::direct(&user("ann"), &user("bob")).unwrap();
    assert_eq!(send(&store, &id, "ann", "1").await.unwrap(), 1);
    assert_eq!(send(&store, &id, "bob", "1").await.unwrap(), 2);
    assert_eq!(send(&store, &id, "carl", "1").await.unwrap_err().code, Code::Forbidden);
}

#[tokio::test(start_paused = true)]
async fn a_spoiled_conversation_says_so_and_the_others_go_on() {
    let objects = memory();
    let (store, _) = store_on(&objects, 1);
    let (spoiled, sound) = (ConversationId::Group(1), ConversationId::Public);
    send(&store, &sound, "ann", "1").await.unwrap();
    let folder = <Conversation as writer::Document>::folder(&spoiled.to_string());
    let path = folder.join("00000000000000000003.json");
    for (content, expected) in [
        (&b""[..], "not what the chat wrote"),
        (b"{\"format\":1,\"marks\":[],\"docu", "not what the chat wrote"),
        (&[0; 4_096], "not what the chat wrote"),
        (b"{\"format\":2}", "format 2"),
        (
            b"{\"format\":1,\"marks\":[],\"document\":{\"id\":\"public\",\"title\":\"\",\"members\":[],\"invited\":[],\"sealed\":0,\"tail\":[]}}",
            "not what the chat wrote",
        ),
    ] {
        objects.put(&path, PutPayload::from(content.to_vec())).await.unwrap();
        let error = store.conversation(&spoiled).await.unwrap_err();
        assert!(error.is_about_content());
        assert!(error.to_string().contains(expected) && error.to_string().contains("0003"), "{error}");
        let refusal = send(&store, &spoiled, "ann", "1").await.unwrap_err();
        assert_eq!(refusal.code, Code::Unavailable);
        assert!(refusal.cause.is_some());
    }
    assert_eq!(send(&store, &sound, "ann", "2").await.unwrap(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_spoiled_segment_spoils_only_its_page() {
    let objects = memory();
    let (store, _) = store_on(&objects, 1);
    let id = ConversationId::Public;
    for n in 1..=4 * SEGMENT_MESSAGES {
        send(&store, &id, "ann", &n.to_string()).await.unwrap();
    }
    let segment = conversation::conversation_folder("public").join("segments");
    let path = segment.join(format!("{:020}.json", SEGMENT_MESSAGES + 1));
    objects.put(&path, PutPayload::from_static(b"{\"format\":1")).await.unwrap();
    let (reopened, _) = store_on(&objects, 2);
    assert_eq!(send(&reopened, &id, "ann", "more").await.unwrap(), 4 * SEGMENT_MESSAGES + 1);
    let conversation = reopened.conversation(&id).await.unwrap().unwrap();
    let page = async |part| reopened.page(&conversation, part, 50).await;
    assert_eq!(page(Part::Newest).await.unwrap().messages.len(), 50);
    assert_eq!(page(Part::Before(60)).await.unwrap().messages.len(), 50);
    assert!(page(Part::Before(100)).await.unwrap_err().is_about_content());
    objects.delete(&path).await.unwrap();
    assert!(matches!(page(Part::Before(100)).await, Err(StoreError::Missing { .. })));
}

#[tokio::test(start_paused = true)]
async fn documents_in_use_are_counted_until_they_are_idle() {
    let pace = Pace { interval: Duration::ZERO, documents_max: 2, retention: Retention::default() };
    let writer: Writer<UserRecord> = Writer::new(memory(), pace, random(1), Box::new(|_, _| {}));
    let greet = async |name| writer.change(name, UserChange::Greet { public_seq: 0 }).await;
    greet("ann").await.unwrap();
    greet("bob").await.unwrap();
    greet("ann").await.unwrap();
    assert_eq!(greet("carl").await.unwrap_err().code, Code::Unavailable);
    tokio::time::sleep(Duration::from_secs(11)).await; // Moves the clock: it is paused.
    greet("carl").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_closed_store_refuses_and_has_finished_what_was_begun() {
    let objects = memory();
    let (store, told) = store_on(&objects, 1);
    let ann = user("ann");
    store.change_user(&ann, UserChange::Greet { public_seq: 0 }).await.unwrap();
    send(&store, &ConversationId::Public, "ann", "1").await.unwrap();
    store.mark_read_later(&ann, &ConversationId::Public, 1);
    store.close().await;
    assert_eq!(store.user(&ann).await.unwrap().unwrap().conversations["public"], 1);
    assert_eq!(told.lock().unwrap().len(), 1);
    let refusal = send(&store, &ConversationId::Public, "ann", "2").await.unwrap_err();
    assert_eq!(refusal.code, Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn people_are_listed_once_by_any_process() {
    let objects = memory();
    let ((one, _), (other, _)) = (store_on(&objects, 1), store_on(&objects, 2));
    assert_eq!(one.people_with(&user("ann")).await.unwrap(), ["ann"]);
    assert_eq!(other.people_with(&user("bob")).await.unwrap(), ["ann", "bob"]);
    assert_eq!(one.people_with(&user("ann")).await.unwrap(), ["ann", "bob"]);
}
