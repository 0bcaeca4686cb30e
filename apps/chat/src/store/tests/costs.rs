//! What the store costs in requests and objects: cloud stores charge for each, and each takes its time.

use super::weather::{Weather, Weathered};
use super::*;

/// Opening a conversation of 100,000 messages costs as many requests as opening one of 200.
#[tokio::test(start_paused = true)]
async fn a_long_conversation_costs_no_more_than_a_short_one() {
    const MESSAGES: u64 = 100_000;
    let inner = memory();
    let weathered = Weathered::on(&inner, Weather::default());
    let objects: Arc<dyn ObjectStore> = weathered.clone();
    let id = ConversationId::Public;
    let messages: Vec<Message> =
        (0..SEGMENT_MESSAGES).map(|n| message("ann", &n.to_string())).collect();
    let sealed = MESSAGES - MESSAGES % SEGMENT_MESSAGES;
    for from in (1..sealed).step_by(64) {
        segment::write(&inner, "public", from, &messages).await.unwrap();
    }
    let document = Some(Conversation { sealed, ..Conversation::unwritten(&id).unwrap() });
    let folder = <Conversation as writer::Document>::folder("public");
    let base = Version { number: 70_000, marks: Vec::new(), document };
    Chain::new(&inner, folder, Retention::default()).append(&base, 1).await.unwrap();

    let (store, _) = store_on(&objects, 1);
    let cost = async |work: &mut (dyn Future<Output = ()> + Unpin)| {
        let before = weathered.calls();
        work.await;
        weathered.calls() - before
    };
    let open = async |part, limit: usize| {
        let conversation = store.conversation(&id).await.unwrap().unwrap();
        let page = store.page(&conversation, part, limit as u64).await.unwrap();
        assert_eq!(page.messages.len(), limit);
    };
    let mut first = std::pin::pin!(open(Part::Newest, 100));
    assert_eq!(cost(&mut first).await, 4, "one listing, one read, two segments");
    let mut sending = std::pin::pin!(async {
        for n in 0..MESSAGES % SEGMENT_MESSAGES + 100 {
            send(&store, &id, "bob", &n.to_string()).await.unwrap();
        }
    });
    assert!(cost(&mut sending).await < 16 + 3 * 132, "keys of 16 segments once, then 3 for each");
    let mut again = std::pin::pin!(open(Part::Newest, 50));
    assert_eq!(cost(&mut again).await, 2, "one listing, one read");
    let mut back = std::pin::pin!(open(Part::Before(50_050), 100));
    assert!(cost(&mut back).await <= 5, "and the segments of one page");
    store.close().await;
}

/// What a burst leaves behind goes when it is over.
#[tokio::test(start_paused = true)]
async fn few_versions_are_left_of_a_conversation_that_rests() {
    let objects = memory();
    let open = |seed| {
        let committed = Box::new(|_: &Conversation, _: &Answer| {});
        Store::new(Arc::clone(&objects), Retention::default(), &random(seed), committed)
    };
    let (busy_one, last) = (open(1), open(2));
    for n in 0..300 {
        send(&busy_one, &ConversationId::Public, "ann", &n.to_string()).await.unwrap();
    }
    // Another process has the last word: what the first one left is too young for that one, and nothing of its own.
    send(&last, &ConversationId::Public, "bob", "1").await.unwrap();
    let folder = <Conversation as writer::Document>::folder("public");
    let count = async || objects.list(Some(&folder)).count().await;
    let busy = count().await;
    assert!((100..=301).contains(&busy), "{busy}: young ones are kept, not without end");
    tokio::time::sleep(Duration::from_secs(11)).await; // Moves the clock: it is paused.
    assert_eq!(count().await, 8);
}
