mod model;
mod stream_tests;

use std::time::{Duration, Instant};

use bytes::Bytes;
use hookwire_proto::data::{Data, Metadata};
use hookwire_proto::subprotocol::{NamedError, ServerMessage};
use http::StatusCode;

use hookwire_proto::subprotocol::{Publication, Source};

use super::*;

/// A session and what it wants done, at a time that stands still until it is moved.
struct Bench {
    session: Session<u32>,
    now: Instant,
    effects: Vec<Effect<u32>>,
}

const LIMIT: Duration = Duration::from_secs(30);

fn group(name: &str) -> GroupName {
    GroupName::parse(name).unwrap()
}

fn config(subprotocol: Subprotocol) -> Config {
    Config {
        subprotocol,
        reconnects: true,
        rejoins: true,
        is_url_fixed: true,
        delay_min: Duration::from_secs(1),
        delay_max: Duration::from_secs(30),
        seed: 7,
    }
}

fn join(name: &str) -> ClientMessage {
    ClientMessage::JoinGroup { group: group(name), ack_id: None }
}

fn leave(name: &str) -> ClientMessage {
    ClientMessage::LeaveGroup { group: group(name), ack_id: None }
}

fn event(text: &str) -> ClientMessage {
    let (event, data, metadata) = ("e".to_owned(), Data::text(text), Metadata::default());
    ClientMessage::Event { event, ack_id: None, data, metadata }
}

fn invoke() -> ClientMessage {
    let (invocation_id, event, metadata) = (String::new(), "e".to_owned(), Metadata::default());
    ClientMessage::Invoke { invocation_id, event, data: None, metadata }
}

fn close(code: u16, reason: &str) -> CloseFrame {
    let code = CloseCode::from_wire(code).unwrap();
    CloseFrame { code, reason: reason.to_owned() }
}

impl Bench {
    fn new(config: Config) -> Self {
        let now = Instant::now();
        let mut bench = Self { session: Session::new(config, now), now, effects: Vec::new() };
        bench.session.start(&mut bench.effects);
        assert_eq!(bench.done(), ["open"]);
        bench
    }

    /// A session that was greeted and has been online for a minute.
    fn online(config: Config) -> Self {
        let mut bench = Self::new(config);
        bench.open();
        bench.greet("c1");
        assert_eq!(bench.done(), ["connected c1"]);
        for _ in 0..4 {
            bench.pass(Duration::from_secs(15));
            bench.session.hear(bench.now);
        }
        bench.done();
        bench
    }

    fn reliable() -> Self {
        Self::online(config(Subprotocol::JsonReliable))
    }

    fn open(&mut self) {
        self.session.handle_opened(self.now);
    }

    fn greet(&mut self, id: &str) {
        self.receive(&ServerMessage::Connected {
            connection_id: id.to_owned(),
            user_id: None,
            reconnection_token: Some(format!("proof of {id}")),
        });
    }

    fn receive(&mut self, message: &ServerMessage) {
        let message = self.session.config.subprotocol.encode_server(message);
        self.session.handle_message(self.now, &message, &mut self.effects);
    }

    fn publish(&mut self, text: &str, sequence_id: u64) {
        let publication = Publication {
            source: Source::Server,
            data: Data::text(text),
            metadata: Metadata::default(),
            stream: None,
        };
        let subprotocol = self.session.config.subprotocol;
        let data = subprotocol.encode_publication(&publication, Some(sequence_id));
        let message = Message { kind: subprotocol.message_kind(), data };
        self.session.handle_message(self.now, &message, &mut self.effects);
    }

    fn ack(&mut self, ack_id: u64, error: Option<&str>) {
        let named = |name: &str| NamedError { name: name.to_owned(), message: String::new() };
        self.receive(&ServerMessage::Ack { ack_id, error: error.map(named) });
    }

    fn ask(&mut self, message: ClientMessage, ack: Ack, reply: u32) {
        let ask = Ask { message, ack, limit: LIMIT };
        self.session.request(self.now, ask, reply, &mut self.effects);
    }

    fn lose(&mut self, close: impl Into<Option<CloseFrame>>) {
        self.session.handle_closed(self.now, close.into(), &mut self.effects);
    }

    fn refuse(&mut self, status: StatusCode) {
        let error = ConnectError::Refused { status, excerpt: String::new() };
        self.session.handle_open_failed(self.now, error, &mut self.effects);
    }

    /// Moves the clock, and does in between what is due.
    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.session.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.session.handle_timeout(self.now, &mut self.effects);
        }
        self.now = end;
    }

    /// What the session wanted done since the last look, in words.
    fn done(&mut self) -> Vec<String> {
        let subprotocol = self.session.config.subprotocol;
        self.effects.drain(..).map(|effect| words(subprotocol, effect)).collect()
    }
}

fn words(subprotocol: Subprotocol, effect: Effect<u32>) -> String {
    match effect {
        Effect::Open(None) => "open".to_owned(),
        Effect::Open(Some(lost)) => format!("recover {}", lost.connection_id),
        Effect::Drop => "drop".to_owned(),
        Effect::Ping => "ping".to_owned(),
        Effect::Close(code) => format!("close {}", code.get()),
        Effect::Settle(reply, outcome) => format!("{reply}: {}", outcome_words(outcome)),
        Effect::Tell(event) => event_words(event),
        Effect::Write(message) => match subprotocol.decode_client(&message).unwrap() {
            ClientMessage::JoinGroup { group, ack_id } => {
                format!("join {group} #{}", short(ack_id))
            }
            ClientMessage::LeaveGroup { group, ack_id } => {
                format!("leave {group} #{}", short(ack_id))
            }
            ClientMessage::Event { data, ack_id, .. } => {
                format!("event {} #{}", text(&data.bytes), short(ack_id))
            }
            ClientMessage::Invoke { invocation_id, .. } => format!("invoke {invocation_id}"),
            ClientMessage::CancelInvocation { invocation_id } => format!("cancel {invocation_id}"),
            ClientMessage::SequenceAck { sequence_id } => format!("seen {sequence_id}"),
            ClientMessage::StartStream { stream_id, .. } => format!("stream {stream_id}"),
            ClientMessage::StreamData { stream_id, sequence_id, data } => {
                let data = data.unwrap();
                format!("{stream_id}.{} {}", sequence_id.unwrap(), text(&data.bytes))
            }
            ClientMessage::EndStream { stream_id, error } => {
                format!("end {stream_id}{}", if error.is_some() { " failed" } else { "" })
            }
            other @ (ClientMessage::SendToGroup { .. }
            | ClientMessage::InvokeResponse
            | ClientMessage::SetGroupState { .. }
            | ClientMessage::SubscribeGroupState { .. }
            | ClientMessage::UnsubscribeGroupState { .. }
            | ClientMessage::Ping) => format!("{other:?}"),
        },
    }
}

fn text(bytes: &Bytes) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Ids of the session count from `+0` here.
fn short(ack_id: Option<u64>) -> String {
    ack_id.map_or(String::new(), |id| match id.checked_sub(CHOSEN_ACK_IDS) {
        Some(own) => format!("+{own}"),
        None => id.to_string(),
    })
}

fn outcome_words(outcome: Result<Reply, ClientError>) -> String {
    match outcome {
        Ok(Reply::Done { is_duplicate: false }) => "done".to_owned(),
        Ok(Reply::Done { is_duplicate: true }) => "done before".to_owned(),
        Ok(Reply::Answer(answer)) => format!("answer {:?}", answer.map(|data| text(data.bytes()))),
        Ok(Reply::Stream(id)) => format!("stream {id}"),
        Err(ClientError::Refused(error)) => error.name,
        Err(error) => error.to_string(),
    }
}

fn event_words(event: ClientEvent) -> String {
    match event {
        ClientEvent::Connected(connected) => format!("connected {}", connected.connection_id),
        ClientEvent::Recovered => "recovered".to_owned(),
        ClientEvent::Disconnected { reason } => {
            format!("disconnected {}", reason.unwrap_or_default()).trim_end().to_owned()
        }
        ClientEvent::Group(message) => {
            format!("{}: {}", message.group, text(message.payload.bytes()))
        }
        ClientEvent::Server(message) => format!("told {}", text(message.payload.bytes())),
        ClientEvent::GroupState { group, .. } => format!("states of {group}"),
        ClientEvent::RejoinFailed { group, error } => format!("not in {group}: {error}"),
        ClientEvent::Unreadable(error) => format!("unreadable: {error}"),
        ClientEvent::Stopped(Stopped::ByRequest) => "stopped".to_owned(),
        ClientEvent::Stopped(Stopped::ConnectionOver) => "over".to_owned(),
        ClientEvent::Stopped(Stopped::CannotConnect(error)) => format!("cannot connect: {error}"),
    }
}

#[test]
fn the_first_attempt_is_the_only_one() {
    let mut bench = Bench::new(config(Subprotocol::Json));
    bench.refuse(StatusCode::SERVICE_UNAVAILABLE);
    let refused = "cannot connect: the service refused the client with 503 Service Unavailable";
    assert_eq!(bench.done(), [refused]);
    assert!(bench.session.is_over() && bench.session.poll_timeout().is_none());
    bench.ask(join("g"), Ack::Own, 1);
    assert_eq!(bench.done(), ["1: the client was stopped"]);

    let mut bench = Bench::new(config(Subprotocol::Json));
    bench.open();
    bench.lose(close(1011, ""));
    let closed = "cannot connect: the service closed the connection at once with 1011";
    assert_eq!(bench.done(), [closed]);

    let mut bench = Bench::new(config(Subprotocol::Json));
    bench.open();
    bench.pass(GREETING_MAX);
    let silent = "cannot connect: the service did not answer in time";
    assert_eq!(bench.done(), ["drop", silent]);
}

#[test]
fn requests_are_answered_by_their_ids() {
    for subprotocol in Subprotocol::ALL {
        let mut bench = Bench::online(config(subprotocol));
        bench.ask(join("g"), Ack::Own, 1);
        bench.ask(event("x"), Ack::Chosen(5), 2);
        bench.ask(event("y"), Ack::Own, 3);
        bench.ask(event("z"), Ack::None, 4);
        let sent = ["join g #+0", "event x #5", "event y #+1", "event z #", "4: done"];
        assert_eq!(bench.done(), sent, "{subprotocol:?}");
        bench.ack(5, Some("Duplicate"));
        bench.ack(CHOSEN_ACK_IDS + 1, Some("Forbidden"));
        bench.ack(CHOSEN_ACK_IDS, None);
        bench.ack(CHOSEN_ACK_IDS, None);
        bench.ack(99, None);
        assert_eq!(bench.done(), ["2: done before", "3: Forbidden", "1: done"]);
    }
}

#[test]
fn an_ack_id_is_chosen_below_the_session_s_own_and_once_at_a_time() {
    let mut bench = Bench::reliable();
    bench.ask(event("a"), Ack::Chosen(CHOSEN_ACK_IDS), 1);
    bench.ask(event("b"), Ack::Chosen(1), 2);
    bench.ask(event("c"), Ack::Chosen(1), 3);
    let refused = ClientError::AckId.to_string();
    assert_eq!(bench.done(), [&format!("1: {refused}"), "event b #1", &format!("3: {refused}")]);
}

#[test]
fn a_message_that_would_end_the_connection_is_not_sent() {
    let mut bench = Bench::reliable();
    bench.ask(event(&"x".repeat(MESSAGE_BYTES_MAX)), Ack::Own, 1);
    let done = bench.done();
    assert!(done.len() == 1 && done[0].starts_with("1: the message has"), "{done:?}");
}

#[test]
fn answers_are_not_awaited_for_ever() {
    let mut bench = Bench::reliable();
    bench.ask(event("a"), Ack::Own, 1);
    bench.ask(invoke(), Ack::Own, 2);
    bench.done();
    bench.pass(Duration::from_secs(10));
    bench.session.hear(bench.now);
    bench.ask(event("b"), Ack::Own, 3);
    assert_eq!(bench.done(), ["event b #+1"]);
    bench.pass(Duration::from_secs(20));
    let late = "no answer came within 30s";
    let done = bench.done();
    assert_eq!(done, [&format!("1: {late}"), "cancel 1", &format!("2: {late}"), "ping"]);
    bench.ack(CHOSEN_ACK_IDS, None);
    assert_eq!(bench.done(), [""; 0], "nobody waits any more");
}

#[test]
fn an_answer_may_be_awaited_for_ever() {
    let mut bench = Bench::reliable();
    let ask = Ask { message: event("a"), ack: Ack::Own, limit: Duration::MAX };
    bench.session.request(bench.now, ask, 1, &mut bench.effects);
    assert_eq!(bench.done(), ["event a #+0"]);
}

#[test]
fn an_invocation_has_an_answer() {
    let mut bench = Bench::reliable();
    for (reply, result, expected) in [
        (1, Ok(Some(Data::text("a"))), "1: answer Some(\"a\")"),
        (2, Ok(None), "2: answer None"),
        (
            3,
            Err(NamedError { name: "Forbidden".to_owned(), ..NamedError::default() }),
            "3: Forbidden",
        ),
    ] {
        bench.ask(invoke(), Ack::Own, reply);
        assert_eq!(bench.done(), [format!("invoke {reply}")]);
        let invocation_id = reply.to_string();
        bench.receive(&ServerMessage::InvokeResponse { invocation_id, result });
        assert_eq!(bench.done(), [expected]);
    }
}

#[test]
fn what_arrives_is_told_once_and_acknowledged_within_a_second() {
    let mut bench = Bench::reliable();
    bench.publish("a", 1);
    bench.publish("b", 2);
    bench.publish("a", 1);
    assert_eq!(bench.done(), ["told a", "told b"]);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.done(), ["seen 2"]);
    bench.pass(Duration::from_secs(5));
    assert_eq!(bench.done(), [""; 0]);
    for id in 3..=303 {
        bench.publish("m", id);
    }
    assert_eq!(
        bench.done().iter().filter(|done| *done != "told m").collect::<Vec<_>>(),
        ["seen 303"]
    );
}

#[test]
fn a_lost_transport_is_asked_for_at_once_and_then_each_second() {
    let mut bench = Bench::reliable();
    bench.lose(None);
    assert_eq!(bench.done(), ["recover c1"]);
    for _ in 0..3 {
        bench.refuse(StatusCode::BAD_GATEWAY);
        bench.pass(Duration::from_millis(999));
        assert_eq!(bench.done(), [""; 0]);
        bench.pass(Duration::from_millis(1));
        assert_eq!(bench.done(), ["recover c1"]);
    }
    // One that hangs is given up.
    bench.pass(Duration::from_secs(5));
    assert_eq!(bench.done(), ["drop", "recover c1"]);
    bench.open();
    bench.lose(close(1001, ""));
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.done(), ["recover c1"]);
    bench.open();
    bench.greet("c1");
    assert_eq!(bench.done(), ["recovered"]);
}

#[test]
fn after_30_seconds_there_is_a_new_connection() {
    let mut bench = Bench::reliable();
    bench.lose(None);
    bench.done();
    bench.pass(Duration::from_millis(29_999));
    let tries = bench.done();
    assert!(tries.iter().all(|done| done == "drop" || done == "recover c1"), "{tries:?}");
    bench.pass(Duration::from_millis(1));
    assert_eq!(bench.done(), ["drop", "disconnected", "open"]);
}

#[test]
fn what_was_on_its_way_is_asked_again_after_a_recovery() {
    let mut bench = Bench::reliable();
    bench.ask(event("a"), Ack::Own, 1);
    bench.ask(invoke(), Ack::Own, 2);
    bench.publish("m", 1);
    bench.done();
    bench.lose(None);
    let lost = "2: the connection was lost before the answer came";
    assert_eq!(bench.done(), [lost, "recover c1"], "an answer could be lost with its only copy");
    bench.ask(event("b"), Ack::Own, 3);
    bench.ask(event("c"), Ack::None, 4);
    assert_eq!(bench.done(), ["4: there is no connection right now"]);
    bench.open();
    bench.greet("c1");
    assert_eq!(bench.done(), ["recovered", "seen 1", "event a #+0", "event b #+1"]);
    bench.publish("m", 1);
    bench.ack(CHOSEN_ACK_IDS, Some("Duplicate"));
    assert_eq!(bench.done(), ["1: done before"]);
}

#[test]
fn a_request_that_ends_the_transport_each_time_is_given_up() {
    let mut bench = Bench::reliable();
    bench.ask(event("poison"), Ack::Own, 1);
    assert_eq!(bench.done(), ["event poison #+0"]);
    for _ in 0..2 {
        bench.lose(close(1007, ""));
        bench.pass(Duration::from_secs(1));
        assert_eq!(bench.done(), ["recover c1"]);
        bench.open();
        bench.greet("c1");
        assert_eq!(bench.done(), ["recovered", "event poison #+0"]);
    }
    bench.lose(close(1007, ""));
    bench.pass(Duration::from_secs(1));
    bench.open();
    bench.greet("c1");
    let lost = "1: the connection was lost before the answer came";
    assert_eq!(bench.done(), ["recover c1", "recovered", lost]);
}

#[test]
fn a_refused_recovery_leads_to_a_new_connection_with_its_groups() {
    let mut bench = Bench::reliable();
    for (name, reply) in [("g", 1), ("h", 2), ("i", 3)] {
        bench.ask(join(name), Ack::Own, reply);
        bench.ack(CHOSEN_ACK_IDS + u64::from(reply) - 1, None);
    }
    bench.ask(leave("i"), Ack::Own, 4);
    bench.ask(join("j"), Ack::Own, 5);
    bench.ask(event("a"), Ack::Own, 6);
    bench.publish("m", 8);
    bench.done();
    bench.lose(None);
    bench.open();
    bench.lose(close(1008, ""));
    let lost = "6: the connection was lost before the answer came";
    assert_eq!(bench.done(), ["recover c1", "disconnected", lost, "open"]);
    bench.open();
    bench.greet("c2");
    let again = ["connected c2", "leave i #+3", "join j #+4", "join g #+6", "join h #+7"];
    assert_eq!(bench.done(), again);
    bench.publish("m", 1);
    assert_eq!(bench.done(), ["told m"], "a new connection counts from 1");
    bench.ack(CHOSEN_ACK_IDS + 6, Some("Forbidden"));
    bench.ack(CHOSEN_ACK_IDS + 7, None);
    assert_eq!(bench.done(), ["not in g: the service refused: Forbidden"]);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.done(), ["seen 1"]);
    // Once more: what was refused is not asked for again.
    bench.ack(CHOSEN_ACK_IDS + 3, None);
    bench.ack(CHOSEN_ACK_IDS + 4, None);
    assert_eq!(bench.done(), ["4: done", "5: done"]);
    bench.lose(close(1008, "slow"));
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.done(), ["disconnected slow", "open"]);
    bench.open();
    bench.greet("c3");
    assert_eq!(bench.done(), ["connected c3", "join h #+8", "join j #+9"]);
}

#[test]
fn a_service_that_knows_no_recovery_makes_another_connection() {
    let mut bench = Bench::reliable();
    bench.ask(event("a"), Ack::Own, 1);
    bench.done();
    bench.lose(None);
    bench.open();
    bench.greet("c2");
    let lost = "1: the connection was lost before the answer came";
    assert_eq!(bench.done(), ["recover c1", "disconnected", lost, "connected c2"]);
}

#[test]
fn a_service_that_does_not_greet_twice_is_understood() {
    let mut bench = Bench::reliable();
    bench.publish("a", 1);
    bench.lose(None);
    bench.open();
    bench.publish("b", 2);
    assert_eq!(bench.done(), ["told a", "recover c1", "recovered", "seen 1", "told b"]);
}

#[test]
fn a_connection_that_the_application_closed_is_not_asked_for() {
    let mut bench = Bench::reliable();
    bench.receive(&ServerMessage::Disconnected { message: "bye".to_owned() });
    bench.lose(close(1000, "bye"));
    assert_eq!(bench.done(), ["disconnected bye", "open"]);

    let mut bench =
        Bench::online(Config { reconnects: false, ..config(Subprotocol::JsonReliable) });
    bench.ask(event("a"), Ack::Own, 1);
    bench.lose(close(1008, ""));
    let lost = "1: the connection was lost before the answer came";
    assert_eq!(bench.done(), ["event a #+0", "disconnected", lost, "over"]);
    assert!(bench.session.is_over());
}

#[test]
fn pauses_between_new_connections_grow_up_to_a_limit() {
    let mut bench = Bench::online(config(Subprotocol::Json));
    bench.lose(None);
    assert_eq!(bench.done(), ["disconnected", "open"], "one that lived long is replaced at once");
    let mut pauses = Vec::new();
    for _ in 0..8 {
        bench.refuse(StatusCode::TOO_MANY_REQUESTS);
        let at = bench.session.poll_timeout().unwrap();
        pauses.push((at - bench.now).as_secs_f64());
        bench.pass(at - bench.now);
        assert_eq!(bench.done(), ["open"]);
    }
    for (pause, whole) in pauses.iter().zip([1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]) {
        assert!(whole / 2.0 <= *pause && *pause <= whole, "{pauses:?}");
    }
    bench.open();
    bench.greet("c2");
    bench.lose(None);
    assert_eq!(bench.done(), ["connected c2", "disconnected"], "one that lived short is not");
    assert!(bench.session.poll_timeout().is_some());
}

#[test]
fn a_url_that_is_refused_is_final_unless_there_may_be_another() {
    for is_url_fixed in [true, false] {
        let config = Config { is_url_fixed, ..config(Subprotocol::Json) };
        let mut bench = Bench::online(config);
        bench.lose(None);
        bench.refuse(StatusCode::UNAUTHORIZED);
        assert_eq!(bench.session.is_over(), is_url_fixed);
    }
}

#[test]
fn a_silent_service_is_asked_and_then_given_up() {
    let mut bench = Bench::reliable();
    bench.pass(Duration::from_secs(59));
    assert_eq!(bench.done(), ["ping", "ping"]);
    bench.pass(Duration::from_secs(1));
    assert_eq!(bench.done(), ["drop", "recover c1"]);

    let mut bench = Bench::reliable();
    for _ in 0..10 {
        bench.pass(Duration::from_secs(20));
        assert_eq!(bench.done(), ["ping"]);
        bench.session.hear(bench.now);
    }
}

#[test]
fn to_stop_is_to_close_and_to_answer_everybody() {
    let mut bench = Bench::reliable();
    bench.ask(event("a"), Ack::Own, 1);
    bench.session.stop(bench.now, &mut bench.effects);
    assert_eq!(bench.done(), ["event a #+0", "close 1000", "1: the client was stopped"]);
    bench.session.stop(bench.now, &mut bench.effects);
    bench.publish("late", 1);
    assert_eq!(bench.done(), [""; 0]);
    bench.lose(close(1000, ""));
    assert_eq!(bench.done(), ["stopped"]);

    let mut bench = Bench::reliable();
    bench.session.stop(bench.now, &mut bench.effects);
    bench.pass(CLOSING_MAX);
    assert_eq!(bench.done(), ["close 1000", "drop", "stopped"], "a silent service is not awaited");

    let mut bench = Bench::reliable();
    bench.lose(None);
    bench.session.stop(bench.now, &mut bench.effects);
    assert_eq!(bench.done(), ["recover c1", "drop", "stopped"]);
}

#[test]
fn what_cannot_be_read_is_skipped() {
    let mut bench = Bench::reliable();
    for message in [Message::text("{"), Message::binary(Bytes::new()), Message::text("{}")] {
        bench.session.handle_message(bench.now, &message, &mut bench.effects);
    }
    assert!(bench.done().iter().all(|done| done.starts_with("unreadable")));
    bench.publish("m", 1);
    assert_eq!(bench.done(), ["told m"]);
}

#[test]
fn no_more_requests_are_taken_than_can_wait() {
    let mut bench = Bench::reliable();
    for reply in 0..u32::try_from(REQUESTS_MAX).unwrap() {
        assert!(bench.session.has_room());
        bench.ask(event("x"), Ack::Own, reply);
    }
    assert!(!bench.session.has_room());
    bench.ack(CHOSEN_ACK_IDS, None);
    assert!(bench.session.has_room());
}
