//! Callers of an HTTP server on one thread, each with a connection of its own that stays.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};

use anyhow::{Context, bail, ensure};
use indicatif::ProgressBar;
use mio::{Events, Poll, Token};

use super::histogram::Histogram;
use super::publisher::{CONNECT_TIME_MAX, Publisher};
use super::swarm::{Clock, STALL_TIME_MAX};
use super::wire::Answer;

/// Readiness events taken at once.
const EVENTS_MAX: usize = 1_024;

/// The callers.
#[derive(Debug)]
pub(super) struct Callers {
    poll: Poll,
    events: Events,
    all: Vec<Caller>,
    clock: Clock,
}

#[derive(Debug)]
struct Caller {
    publisher: Publisher,
    /// When each request was sent that is not answered, oldest first.
    sent: VecDeque<u64>,
}

impl Callers {
    pub(super) fn connect(address: SocketAddr, count: usize, clock: Clock) -> anyhow::Result<Self> {
        let poll = Poll::new().context("the kernel refused an epoll instance")?;
        let caller = |at| {
            let publisher = Publisher::connect_as(Token(at), address, "", poll.registry())?;
            Ok(Caller { publisher, sent: VecDeque::new() })
        };
        let all = (0..count).map(caller).collect::<anyhow::Result<_>>()?;
        Ok(Self { poll, events: Events::with_capacity(EVENTS_MAX), all, clock })
    }

    /// Sends `count` requests, which are those of the list in turn; each caller has so many in flight, and sends the next when one is
    /// answered. Returns how long the answers took.
    ///
    /// # Errors
    /// An answer is no success, or a connection ends.
    pub(super) fn call(
        &mut self,
        requests: &[Vec<u8>],
        count: u64,
        in_flight: usize,
        bar: &ProgressBar,
    ) -> anyhow::Result<Histogram> {
        let Self { poll, events, all, clock } = self;
        let mut latency = Histogram::new();
        let mut requests = requests.iter().cycle();
        let mut unsent = count;
        let mut answered = 0;
        for caller in all.iter_mut() {
            unsent -= caller.send(&mut requests, unsent, in_flight, *clock)?;
        }
        while answered < count {
            match poll.poll(events, Some(STALL_TIME_MAX)) {
                Ok(()) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).context("epoll failed"),
            }
            ensure!(!events.is_empty(), "{answered} of {count} requests were answered");
            for event in &*events {
                let Token(at) = event.token();
                let caller = &mut all[at];
                caller.publisher.on_ready()?;
                let now = clock.now();
                let before = answered;
                while caller.publisher.in_flight() < caller.sent.len() {
                    let sent = caller.sent.pop_front().context("nothing was sent")?;
                    latency.record(now.saturating_sub(sent));
                    answered += 1;
                }
                bar.inc(answered - before);
                unsent -= caller.send(&mut requests, unsent, in_flight, *clock)?;
            }
        }
        Ok(latency)
    }
}

impl Caller {
    /// Sends requests until so many are in flight, at most `unsent`. Returns how many.
    fn send<'a>(
        &mut self,
        requests: &mut impl Iterator<Item = &'a Vec<u8>>,
        unsent: u64,
        in_flight: usize,
        clock: Clock,
    ) -> anyhow::Result<u64> {
        let mut count = 0;
        while count < unsent && self.sent.len() < in_flight {
            let request = requests.next().context("there are no requests")?;
            self.publisher.queue_written(request)?;
            self.sent.push_back(clock.now());
            count += 1;
        }
        self.publisher.flush()?;
        Ok(count)
    }
}

/// Sends one request over a connection of its own and returns the whole answer.
///
/// # Errors
/// It is no success.
pub(super) fn ask(address: SocketAddr, request: &[u8]) -> anyhow::Result<Vec<u8>> {
    let mut socket = TcpStream::connect_timeout(&address, CONNECT_TIME_MAX)
        .with_context(|| format!("the service at {address} cannot be reached"))?;
    socket.set_read_timeout(Some(STALL_TIME_MAX))?;
    socket.write_all(request)?;
    let mut answer = Vec::new();
    let mut buffer = [0; 16 * 1024];
    loop {
        if let Some(whole) = Answer::parse(&answer)? {
            whole.check()?;
            let bytes = whole.bytes;
            answer.truncate(bytes);
            return Ok(answer);
        }
        match socket.read(&mut buffer)? {
            0 => bail!("the service ended the connection"),
            count => answer.extend_from_slice(&buffer[..count]),
        }
    }
}
