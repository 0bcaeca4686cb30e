//! What is kept, in which order, and what readers get.

use std::future::pending;

use futures_util::StreamExt;
use http_body_util::BodyExt;
use tokio_util::sync::CancellationToken;

use super::*;

fn hub(name: &str) -> HubName {
    HubName::parse(name).unwrap()
}

fn entry(of: &str, kind: Kind, event: &str) -> Entry {
    Entry::new(kind, event).of(Some(&hub(of)), None, None)
}

fn failure(of: &str, event: &str) -> Entry {
    entry(of, Kind::User, event).came_to(false, "timed_out", None)
}

fn of_hub(name: &str) -> Selection {
    Selection { hub: Some(hub(name)), failed: false }
}

/// Returns the events of a page, oldest first.
fn events(page: &Page) -> Vec<String> {
    let event = |record: &Arc<Record>| {
        let told: serde_json::Value = serde_json::to_value(&**record).unwrap();
        told["event"].as_str().unwrap().to_owned()
    };
    page.records.iter().map(event).collect()
}

#[test]
fn pages_lead_through_all_hubs_in_the_order_of_time() {
    let log = EventLog::new(100);
    for (at, of) in ["a", "b", "a", "c", "b", "a"].into_iter().enumerate() {
        let kind = if at % 2 == 0 { Kind::User } else { Kind::Handshake };
        log.push(entry(of, kind, &at.to_string()));
    }
    let all = Selection::default();
    let whole = log.page(&all, None, None, 100);
    assert_eq!(events(&whole), ["0", "1", "2", "3", "4", "5"]);
    let (oldest, newest) = whole.ends.unwrap();
    assert_eq!(newest - oldest, 5);
    assert_eq!(events(&log.page(&all, None, None, 2)), ["4", "5"]);
    assert_eq!(events(&log.page(&all, None, Some(newest), 2)), ["3", "4"]);
    assert_eq!(events(&log.page(&all, Some(oldest), None, 2)), ["1", "2"]);
    assert_eq!(events(&log.page(&all, Some(oldest), Some(oldest + 2), 9)), ["1"]);
    assert_eq!(events(&log.page(&of_hub("b"), None, None, 9)), ["1", "4"]);
    assert_eq!(log.page(&of_hub("b"), None, None, 9).ends, Some((oldest + 1, oldest + 4)));
    let nothing = log.page(&of_hub("nobody"), None, None, 9);
    assert!(nothing.records.is_empty() && nothing.ends.is_none());
    assert!(log.page(&all, Some(u64::MAX), None, 9).records.is_empty());
    log.push(failure("b", "bad"));
    let failed = Selection { failed: true, ..Selection::default() };
    assert_eq!(events(&log.page(&failed, None, None, 9)), ["bad"]);
    assert_eq!(events(&log.page(&failed, Some(oldest), None, 9)), ["bad"]);
}

#[test]
fn refusals_by_the_thousand_leave_the_calls_alone() {
    let log = EventLog::new(8);
    for at in 0..10 {
        log.push(entry("a", Kind::User, &format!("call {at}")));
    }
    for at in 0..1_000 {
        log.push(entry("a", Kind::Rest, &format!("refusal {at}")));
    }
    let expected: Vec<String> = (4..10)
        .map(|at| format!("call {at}"))
        .chain((998..1_000).map(|at| format!("refusal {at}")))
        .collect();
    assert_eq!(events(&log.page(&of_hub("a"), None, None, 100)), expected);
}

#[test]
fn hubs_are_bounded_and_the_one_that_was_silent_longest_goes() {
    let log = EventLog::new(4);
    log.push(entry("first", Kind::User, "x"));
    log.push(Entry::new(Kind::User, "of no hub"));
    for at in 0..HUBS_MAX - 2 {
        log.push(entry(&format!("h{at}"), Kind::User, "x"));
    }
    log.push(entry("first", Kind::User, "again"));
    log.push(entry("one_more", Kind::User, "x"));
    let state = log.state();
    assert_eq!(state.hubs.len(), HUBS_MAX);
    assert!(!state.hubs.contains_key(&None), "it was silent longest");
    assert!(state.hubs.contains_key(&Some(hub("first"))));
    let counted: usize = state.hubs.values().map(|rings| rings.bytes).sum();
    assert_eq!(state.bytes, counted);
}

#[test]
fn hubs_that_strangers_make_up_push_out_no_calls() {
    let log = EventLog::new(4);
    for at in 0..HUBS_MAX - 1 {
        log.push(entry(&format!("h{at}"), Kind::User, "x"));
    }
    for at in 0..2 * HUBS_MAX {
        log.push(entry(&format!("stranger{at}"), Kind::Handshake, "x"));
    }
    assert_eq!(events(&log.page(&of_hub("stranger511"), None, None, 9)), ["x"]);
    log.push(entry("last", Kind::User, "x"));
    log.push(entry("stranger", Kind::Handshake, "x"));
    let state = log.state();
    assert_eq!(state.hubs.len(), HUBS_MAX);
    assert!(state.hubs.values().all(|rings| !rings.calls.is_empty()));
    let counted: usize = state.hubs.values().map(|rings| rings.bytes).sum();
    assert_eq!(state.bytes, counted);
}

#[test]
fn memory_is_bounded_whatever_the_number_of_entries() {
    let log = EventLog::new(10_000);
    let text = "x".repeat(10_000);
    let large =
        |of: &str| entry(of, Kind::User, &text).url(&text).came_to(false, "timed_out", Some(&text));
    let hubs: Vec<String> = (0..8).map(|at| format!("h{at}")).collect();
    for of in &hubs {
        for _ in 0..9_000 {
            log.push(large(of));
        }
    }
    let state = log.state();
    assert!(state.bytes <= BYTES_MAX);
    assert!(state.hubs.len() < hubs.len());
    assert!(state.hubs.contains_key(&Some(hub("h7"))), "what is written stays");
    let counted: usize =
        state.hubs.values().flat_map(|rings| &rings.calls).map(|record| record.bytes()).sum();
    assert_eq!(state.bytes, counted);
}

#[test]
fn a_log_that_is_off_keeps_nothing() {
    let log = EventLog::new(0);
    log.push(entry("a", Kind::User, "x"));
    assert!(log.page(&Selection::default(), None, None, 9).ends.is_none());
}

/// Returns what a stream says until it has said `count` blank lines.
async fn read(body: &mut LiveBody, count: usize) -> String {
    let mut text = String::new();
    while text.matches("\n\n").count() < count {
        let frame = body.frame().await.unwrap().unwrap();
        text.push_str(std::str::from_utf8(&frame.into_data().unwrap()).unwrap());
    }
    text
}

#[tokio::test(start_paused = true)]
async fn a_reader_gets_what_it_missed_and_what_comes_and_signs_of_life() {
    let log = EventLog::new(100);
    log.push(entry("a", Kind::User, "before"));
    let seen = log.page(&Selection::default(), None, None, 1).ends.unwrap().1;
    log.push(entry("a", Kind::User, "missed"));
    log.push(entry("b", Kind::User, "of another hub"));
    let stop = CancellationToken::new();
    let mut body =
        log.follow(of_hub("a"), Some(seen)).unwrap().into_body(stop.clone().cancelled_owned());
    let text = read(&mut body, 1).await;
    assert!(text.starts_with(&format!("id: {}\ndata: {{\"id\":{0},", seen + 1)), "{text}");
    assert!(text.contains("\"missed\"") && text.ends_with("}\n\n"), "{text}");
    log.push(entry("b", Kind::User, "of another hub"));
    log.push(entry("a", Kind::User, "now"));
    let text = read(&mut body, 1).await;
    assert!(text.contains("\"now\"") && !text.contains("another"), "{text}");
    assert_eq!(read(&mut body, 1).await, ": still here\n\n", "time goes by");
    stop.cancel();
    assert!(body.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn who_lags_hears_of_it_and_nobody_reads_for_ever() {
    let log = EventLog::new(10_000);
    let mut body = log.follow(Selection::default(), None).unwrap().into_body(pending());
    for _ in 0..NEWS_MAX + 5 {
        log.push(entry("a", Kind::User, "x"));
    }
    let text = read(&mut body, 1).await;
    assert!(text.starts_with("event: missed\ndata: 5\n\n"), "{text}");
    let last = log.page(&Selection::default(), None, None, 1).ends.unwrap();
    let late = log.follow(Selection::default(), Some(last.0 - 1)).unwrap();
    let mut late = late.into_body(pending());
    let text = read(&mut late, 1).await;
    assert!(text.starts_with("event: missed\ndata: 29\n\nid: "), "{text}");
    let mut last_piece = None;
    while let Some(piece) = body.next().await {
        last_piece = Some(piece);
    }
    assert!(last_piece.is_some(), "the stream ends by itself");
}

#[test]
fn readers_are_bounded() {
    let log = EventLog::new(1);
    let follow = || log.follow(Selection::default(), None);
    let mut readers: Vec<Live> = std::iter::from_fn(|| follow().ok()).collect();
    assert_eq!(readers.len(), 64);
    assert_eq!(follow().err(), Some(TooManyReaders));
    readers.pop();
    assert!(follow().is_ok());
}
