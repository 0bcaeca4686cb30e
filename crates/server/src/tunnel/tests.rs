//! The bounds of one tunnel, without a socket.

use std::pin::pin;

use bytes::Bytes;
use futures_util::FutureExt as _;
use hookwire_proto::tunnel::{HttpRequest, HttpResponse};

use super::calls::{IN_FLIGHT_MAX, Line, QUEUED_BYTES_MAX};
use super::*;

const MIB: usize = 1024 * 1024;

fn request(content_bytes: usize) -> HttpRequest {
    let content = Some(Bytes::from(vec![0; content_bytes]));
    HttpRequest { content, ..HttpRequest::default() }
}

fn part(ack_id: i64, content_bytes: usize, not_completed: bool) -> HttpResponse {
    let content = Some(Bytes::from(vec![0; content_bytes]));
    HttpResponse { ack_id, status_code: 200, not_completed, content, ..HttpResponse::default() }
}

#[tokio::test]
async fn so_many_requests_are_under_way_and_giving_one_up_makes_room() {
    let (line, _queue) = Line::new();
    let mut sent: Vec<_> =
        (0..IN_FLIGHT_MAX).map(|_| line.clone().send(request(0)).unwrap()).collect();
    assert_eq!(line.clone().send(request(0)).unwrap_err(), Fault::Overloaded);
    assert_eq!(line.load(), Some(IN_FLIGHT_MAX));
    sent.pop();
    assert_eq!(line.load(), Some(IN_FLIGHT_MAX - 1));
    line.clone().send(request(0)).unwrap();
}

#[tokio::test]
async fn so_many_bytes_wait_to_be_written_and_what_was_given_up_is_not() {
    let (line, mut queue) = Line::new();
    let most = QUEUED_BYTES_MAX / (MIB / 2 + 200);
    let mut sent: Vec<_> =
        (0..most).map(|_| line.clone().send(request(MIB / 2)).unwrap()).collect();
    assert_eq!(line.clone().send(request(MIB / 2)).unwrap_err(), Fault::Overloaded);
    assert_eq!(line.clone().send(request(2 * MIB)).unwrap_err(), Fault::TooLong);
    sent.remove(0);
    assert!(line.take(queue.recv().await.unwrap()).is_none(), "given up before it was written");
    line.clone().send(request(MIB / 2)).unwrap();
    let (_, written) = line.take(queue.recv().await.unwrap()).unwrap();
    written.send(()).unwrap();
    assert!(sent.remove(0).written.await.is_ok());
}

#[tokio::test]
async fn answers_are_put_together_within_bounds() {
    let (line, _queue) = Line::new();
    let sent = line.clone().send(request(0)).unwrap();
    line.answered(part(1, MIB, true));
    line.answered(part(1, 1, true));
    line.answered(part(1, 0, false));
    let answer = sent.answer.wait().await.unwrap();
    let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
    assert_eq!(body.len(), MIB + 1);

    let sent = line.clone().send(request(0)).unwrap();
    for _ in 0..17 {
        line.answered(part(2, MIB, true));
    }
    assert_eq!(sent.answer.wait().await.unwrap_err(), Fault::TooLarge);

    // Many that each are within their bound are not, together.
    let sent: Vec<_> = (0..5).map(|_| line.clone().send(request(0)).unwrap()).collect();
    for _ in 0..16 {
        (3..8).for_each(|ack_id| line.answered(part(ack_id, MIB, true)));
    }
    let refused = sent.into_iter().filter_map(|sent| sent.answer.wait().now_or_never());
    assert!(refused.map(Result::unwrap_err).all(|fault| fault == Fault::TooLarge));
    assert_eq!(line.load(), Some(0), "what was not refused was given up");
    let sent = line.clone().send(request(0)).unwrap();
    line.answered(part(8, 1, false));
    assert!(sent.answer.wait().await.is_ok(), "there is room again");
}

#[tokio::test]
async fn an_unfinished_answer_holds_no_more_memory_than_it_counts() {
    let (line, _queue) = Line::new();
    let sent = line.clone().send(request(0)).unwrap();
    let message = Bytes::from(vec![0; MIB]);
    let content = Some(message.slice(..1));
    line.answered(HttpResponse { content, ..part(1, 0, true) });
    assert!(message.is_unique(), "the rest of the message is not kept");
    drop(sent);
}

#[tokio::test]
async fn what_was_taken_is_lost_with_the_tunnel_and_what_was_not_is_unsent() {
    let (line, mut queue) = Line::new();
    let taken = line.clone().send(request(0)).unwrap();
    let waiting = line.clone().send(request(0)).unwrap();
    line.take(queue.recv().await.unwrap()).unwrap();
    line.close();
    assert_eq!(taken.answer.wait().await.unwrap_err(), Fault::Lost);
    assert_eq!(waiting.answer.wait().await.unwrap_err(), Fault::Unsent);
    assert_eq!(line.send(request(0)).unwrap_err(), Fault::Unsent);
}

#[tokio::test]
async fn what_one_tunnel_has_no_room_for_goes_through_another() {
    let (tunnels, hub) = (Tunnels::default(), HubName::parse("chat").unwrap());
    let (mut idle, mut busy) =
        (tunnels.reserve(hub.clone()).unwrap(), tunnels.reserve(hub.clone()).unwrap());
    let ((line, _idle_queue), (other, _busy_queue)) = (Line::new(), Line::new());
    idle.open(line.clone());
    busy.open(other.clone());
    // One has few requests, and no room for the next; the other has more, and room.
    let room = QUEUED_BYTES_MAX / (MIB / 2 + 200);
    let long: Vec<_> = (0..room).map(|_| line.clone().send(request(MIB / 2)).unwrap()).collect();
    let short: Vec<_> = (0..=room).map(|_| other.clone().send(request(0)).unwrap()).collect();
    let (answer, _) = tunnels.send(&hub, &request(MIB / 2));
    assert_eq!(other.load(), Some(short.len() + 1));
    assert_eq!(line.load(), Some(long.len()));
    drop(answer);
    // When none has room, that is said.
    other.close();
    let (answer, _) = tunnels.send(&hub, &request(MIB / 2));
    assert_eq!(answer.await.unwrap_err(), Fault::Overloaded);
}

#[tokio::test]
async fn equals_take_turns_and_places_come_back() {
    let (tunnels, hub) = (Tunnels::default(), HubName::parse("chat").unwrap());
    assert!(tunnels.lines(&hub).is_empty());
    let mut places = Vec::new();
    for _ in 0..TUNNELS_PER_HUB_MAX {
        let mut place = tunnels.reserve(hub.clone()).unwrap();
        let (line, queue) = Line::new();
        place.open(line);
        places.push((place, queue));
    }
    assert!(tunnels.reserve(hub.clone()).is_none());
    let mut picked: Vec<_> =
        (0..TUNNELS_PER_HUB_MAX).map(|_| Arc::as_ptr(&tunnels.lines(&hub)[0])).collect();
    picked.sort_unstable();
    picked.dedup();
    assert_eq!(picked.len(), TUNNELS_PER_HUB_MAX);
    drop(places);
    assert!(tunnels.lines(&hub).is_empty());
    assert!(tunnels.table().hubs.is_empty());
    let (answer, written) = tunnels.send(&hub, &request(0));
    assert_eq!(answer.await.unwrap_err(), Fault::NoTunnel);
    assert!(pin!(written).now_or_never().is_none());
}
