//! Streams.

use super::*;

fn start() -> ClientMessage {
    ClientMessage::StartStream {
        group: group("g"),
        stream_id: String::new(),
        idle_timeout_ms: None,
        no_echo: false,
        ttl_seconds: None,
        metadata: Metadata::default(),
    }
}

impl Bench {
    fn start(&mut self, reply: u32) {
        self.session.start_stream(self.now, start(), LIMIT, reply, &mut self.effects);
    }

    fn piece(&mut self, text: &str, reply: u32) {
        let payload = Payload::from(text);
        self.session.send_piece(self.now, "1", payload, LIMIT, reply, &mut self.effects);
    }

    fn end(&mut self, reply: u32) {
        self.session.end_stream(self.now, "1", None, LIMIT, reply, &mut self.effects);
    }

    fn expects(&mut self, expected_sequence_id: u64) {
        let stream_id = "1".to_owned();
        self.receive(&ServerMessage::StreamAck { stream_id, expected_sequence_id });
    }

    fn misses(&mut self, expected_sequence_id: u64) {
        let (stream_id, error) = ("1".to_owned(), NamedError::default());
        self.receive(&ServerMessage::StreamNack { stream_id, error, expected_sequence_id });
    }

    fn ends(&mut self, error: Option<&str>) {
        let named = |name: &str| NamedError { name: name.to_owned(), message: String::new() };
        let stream_id = "1".to_owned();
        self.receive(&ServerMessage::StreamClosed { stream_id, error: error.map(named) });
    }

    /// A session with a stream.
    fn streaming() -> Self {
        let mut bench = Self::reliable();
        bench.start(1);
        bench.expects(1);
        assert_eq!(bench.done(), ["stream 1", "1: stream 1"]);
        bench
    }
}

#[test]
fn pieces_are_numbered_and_answered_when_they_are_taken() {
    let mut bench = Bench::streaming();
    bench.piece("a", 2);
    bench.piece("b", 3);
    bench.piece("c", 4);
    assert_eq!(bench.done(), ["1.1 a", "1.2 b", "1.3 c"]);
    bench.expects(3);
    assert_eq!(bench.done(), ["2: done", "3: done"]);
    bench.end(5);
    assert_eq!(bench.done(), [""; 0], "the end must not overtake a piece");
    bench.expects(4);
    assert_eq!(bench.done(), ["4: done", "end 1"]);
    bench.ends(None);
    assert_eq!(bench.done(), ["5: done"]);
    bench.piece("d", 6);
    bench.end(7);
    assert_eq!(bench.done(), ["6: the stream is over", "7: the stream is over"]);
    assert_eq!(bench.session.streams.poll_timeout(), None);
}

#[test]
fn pieces_that_were_not_taken_are_sent_again_after_a_rest() {
    let mut bench = Bench::streaming();
    for (text, reply) in [("a", 2), ("b", 3), ("c", 4)] {
        bench.piece(text, reply);
    }
    bench.done();
    bench.misses(2);
    bench.misses(2);
    assert_eq!(bench.done(), ["2: done"]);
    bench.pass(Duration::from_millis(200));
    assert_eq!(bench.done(), ["1.2 b", "1.3 c"]);
    bench.expects(4);
    assert_eq!(bench.done(), ["3: done", "4: done"]);
}

#[test]
fn a_stream_survives_the_loss_of_the_transport() {
    let mut bench = Bench::streaming();
    bench.piece("a", 2);
    bench.done();
    bench.lose(None);
    bench.piece("b", 3);
    bench.end(4);
    assert_eq!(bench.done(), ["recover c1"]);
    bench.open();
    bench.greet("c1");
    assert_eq!(bench.done(), ["recovered", "1.1 a", "1.2 b"]);
    bench.expects(3);
    assert_eq!(bench.done(), ["2: done", "3: done", "end 1"]);
    bench.lose(None);
    bench.pass(Duration::from_secs(1));
    bench.open();
    bench.greet("c1");
    assert_eq!(bench.done(), ["recover c1", "recovered", "end 1"]);
    bench.ends(Some("StreamNotFound"));
    assert_eq!(bench.done(), ["4: done"], "the first end arrived");
}

#[test]
fn a_stream_ends_with_its_connection() {
    let mut bench = Bench::streaming();
    bench.piece("a", 2);
    bench.done();
    bench.lose(close(1008, ""));
    let lost = "2: the connection was lost before the answer came";
    assert_eq!(bench.done(), ["disconnected", lost, "open"]);
    bench.piece("b", 3);
    bench.start(4);
    assert_eq!(bench.done(), ["3: the stream is over", "4: there is no connection right now"]);
}

#[test]
fn a_beginning_whose_answer_is_lost_is_undone() {
    let mut bench = Bench::reliable();
    bench.start(1);
    bench.lose(None);
    let lost = "1: the connection was lost before the answer came";
    assert_eq!(bench.done(), ["stream 1", lost, "recover c1"]);
    bench.open();
    bench.greet("c1");
    assert_eq!(bench.done(), ["recovered", "end 1 failed"]);
    bench.start(2);
    assert_eq!(bench.done(), ["stream 2"]);
}

#[test]
fn what_the_service_refuses_fails_everything_of_the_stream() {
    let mut bench = Bench::reliable();
    bench.start(1);
    bench.ends(Some("Forbidden"));
    assert_eq!(bench.done(), ["stream 1", "1: Forbidden"]);

    let mut bench = Bench::streaming();
    bench.piece("a", 2);
    bench.end(3);
    bench.ends(Some("IdleTimeout"));
    assert_eq!(bench.done(), ["1.1 a", "2: IdleTimeout", "3: IdleTimeout"]);
}

#[test]
fn a_piece_that_nobody_takes_ends_the_stream() {
    let mut bench = Bench::streaming();
    bench.piece("a", 2);
    bench.piece("b", 3);
    bench.pass(LIMIT);
    let done = bench.done();
    let late = "no answer came within 30s";
    let expected =
        ["1.1 a", "1.2 b", "ping", &format!("2: {late}"), &format!("3: {late}"), "end 1 failed"];
    assert_eq!(done, expected);
}

#[test]
fn streams_and_pieces_have_limits() {
    let mut bench = Bench::streaming();
    let max = u32::try_from(super::super::streams::PIECES_MAX).unwrap();
    for reply in 0..=max {
        bench.piece("x", reply);
    }
    let too_many = "too many streams, or too many pieces of a stream, at once";
    assert_eq!(bench.done().last().unwrap(), &format!("{max}: {too_many}"));
    let max = u32::try_from(super::super::streams::STREAMS_MAX).unwrap();
    for reply in 1..=max {
        bench.start(reply);
    }
    assert_eq!(bench.done().last().unwrap(), &format!("{max}: {too_many}"));
}
