//! The way to one upstream: how many calls may be on it at once, and which of them is given up when others wait.
//!
//! A call has *passed* when nothing waits for its answer any more. It keeps its place while there is room, and is given up, oldest
//! first, when a newer call needs one: an upstream that never answers holds nobody up, one that is merely slow is heard.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::{Semaphore, SemaphorePermit, oneshot};

/// Share of the places that connect events have for themselves: one in four. The others can neither take them nor lose theirs.
const CONNECT_SHARE: usize = 4;

/// Payload of the calls that wait for a place at one upstream, in bytes. A call beyond it fails at once.
///
/// Their number needs no limit of its own: a connection has at most one call that has not passed.
pub(super) const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The places at one upstream.
#[derive(Debug)]
pub(super) struct Gate {
    connects: Semaphore,
    others: Semaphore,
    line: Mutex<Line>,
}

/// Who stands where. Concerns all calls but connects, which wait for each other alone.
#[derive(Debug, Default)]
struct Line {
    waiting: usize,
    waiting_bytes: usize,
    /// Calls that have been given up and still hold their place.
    leaving: usize,
    /// Calls that have passed, oldest first; sending gives one up.
    passed: BTreeMap<u64, oneshot::Sender<()>>,
    last_passed: u64,
    /// Whether all that pass are given up.
    is_closing: bool,
}

/// What a place is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// A client waits for its handshake.
    Connect,
    /// Everything else.
    Other,
}

/// More payload waits than [`WAITING_BYTES_MAX`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Full;

/// A call's place; free again when this is dropped.
#[derive(Debug)]
pub(super) struct Place<'gate> {
    gate: &'gate Gate,
    permit: Option<SemaphorePermit<'gate>>,
    standing: Standing,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    /// Something waits for the answer.
    Awaited,
    /// Its number among those that have passed.
    Passed(u64),
    /// Given up as it passed.
    Leaving,
}

/// A call that waits for a place; out of the line when dropped.
struct Waiting<'gate> {
    gate: &'gate Gate,
    bytes: usize,
}

impl Gate {
    /// Returns a gate with `places_max` places, at least one for each purpose.
    pub(super) fn new(places_max: usize) -> Self {
        let connects = places_max.div_ceil(CONNECT_SHARE).max(1);
        Self {
            connects: Semaphore::new(connects),
            others: Semaphore::new(places_max.saturating_sub(connects).max(1)),
            line: Mutex::default(),
        }
    }

    /// Waits for a place; whoever came first gets it first. `payload_bytes` is what waiting costs. Cancel-safe.
    ///
    /// # Errors
    /// [`Full`]: too much waits already.
    pub(super) async fn enter(
        &self,
        purpose: Purpose,
        payload_bytes: usize,
    ) -> Result<Place<'_>, Full> {
        let places = match purpose {
            Purpose::Connect => &self.connects,
            Purpose::Other => &self.others,
        };
        let permit = if let Ok(permit) = places.try_acquire() {
            permit
        } else {
            let _waiting = match purpose {
                Purpose::Connect => None,
                Purpose::Other => Some(self.stand_in_line(payload_bytes)?),
            };
            places.acquire().await.expect("the semaphore is never closed")
        };
        Ok(Place { gate: self, permit: Some(permit), standing: Standing::Awaited })
    }

    /// Gives up all calls that have passed, and from now on each one as it passes.
    pub(super) fn close(&self) {
        let mut line = self.line();
        line.is_closing = true;
        for order in std::mem::take(&mut line.passed).into_values() {
            line.leaving += 1;
            // A call that has just ended by itself is gone too.
            let _ = order.send(());
        }
    }

    fn stand_in_line(&self, bytes: usize) -> Result<Waiting<'_>, Full> {
        let mut line = self.line();
        if 0 < bytes && WAITING_BYTES_MAX < line.waiting_bytes + bytes {
            return Err(Full);
        }
        line.waiting += 1;
        line.waiting_bytes += bytes;
        if line.leaving < line.waiting
            && let Some((_, give_up)) = line.passed.pop_first()
        {
            line.leaving += 1;
            // A call that has just ended by itself frees its place too.
            let _ = give_up.send(());
        }
        Ok(Waiting { gate: self, bytes })
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        self.line.lock().expect("nothing panics while it holds the line")
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let mut line = self.gate.line();
        line.waiting -= 1;
        line.waiting_bytes -= self.bytes;
    }
}

impl Place<'_> {
    /// Says that nothing waits for the answer any more. The receiver hears when the call must be given up, perhaps at once.
    pub(super) fn pass(&mut self) -> oneshot::Receiver<()> {
        let (order, given_up) = oneshot::channel();
        let mut line = self.gate.line();
        if line.is_closing || line.leaving < line.waiting {
            line.leaving += 1;
            self.standing = Standing::Leaving;
            order.send(()).expect("the receiver is still here");
        } else {
            line.last_passed += 1;
            let number = line.last_passed;
            line.passed.insert(number, order);
            self.standing = Standing::Passed(number);
        }
        given_up
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut line = self.gate.line();
        drop(self.permit.take());
        match self.standing {
            Standing::Awaited => {}
            // Whoever is no longer among the passed has been given up.
            Standing::Passed(number) => {
                if line.passed.remove(&number).is_none() {
                    line.leaving -= 1;
                }
            }
            Standing::Leaving => line.leaving -= 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::Poll;

    use futures_util::poll;
    use proptest::prelude::*;

    use super::*;

    fn is_given_up(given_up: &mut oneshot::Receiver<()>) -> bool {
        given_up.try_recv().is_ok()
    }

    #[tokio::test]
    async fn connects_and_others_cannot_take_each_others_places() {
        let gate = Gate::new(8);
        let mut connects = Vec::new();
        for _ in 0..2 {
            connects.push(gate.enter(Purpose::Connect, 0).await.unwrap());
        }
        assert!(poll!(pin!(gate.enter(Purpose::Connect, 0))).is_pending());
        let mut others = Vec::new();
        for _ in 0..6 {
            others.push(gate.enter(Purpose::Other, 0).await.unwrap());
        }
        assert!(poll!(pin!(gate.enter(Purpose::Other, 0))).is_pending());
        connects.pop();
        assert!(poll!(pin!(gate.enter(Purpose::Other, 0))).is_pending());
        assert!(poll!(pin!(gate.enter(Purpose::Connect, 0))).is_ready());
    }

    #[tokio::test]
    async fn who_comes_first_enters_first() {
        let gate = Gate::new(1);
        let place = gate.enter(Purpose::Other, 0).await.unwrap();
        let (mut first, mut second) =
            (pin!(gate.enter(Purpose::Other, 0)), pin!(gate.enter(Purpose::Other, 0)));
        assert!(poll!(first.as_mut()).is_pending());
        assert!(poll!(second.as_mut()).is_pending());
        drop(place);
        assert!(poll!(second.as_mut()).is_pending());
        let Poll::Ready(Ok(place)) = poll!(first.as_mut()) else { panic!("it was first") };
        drop(place);
        assert!(poll!(second.as_mut()).is_ready());
    }

    #[tokio::test]
    async fn passed_calls_stay_while_there_is_room_and_the_oldest_goes_first() {
        let gate = Gate::new(4);
        let mut first = gate.enter(Purpose::Other, 0).await.unwrap();
        let mut second = gate.enter(Purpose::Other, 0).await.unwrap();
        let _third = gate.enter(Purpose::Other, 0).await.unwrap();
        let (mut first_given_up, mut second_given_up) = (first.pass(), second.pass());
        assert!(!is_given_up(&mut first_given_up));
        let mut newcomer = pin!(gate.enter(Purpose::Other, 0));
        assert!(poll!(newcomer.as_mut()).is_pending());
        assert!(is_given_up(&mut first_given_up));
        assert!(!is_given_up(&mut second_given_up), "one newcomer needs one place");
        drop(first);
        assert!(poll!(newcomer.as_mut()).is_ready());
        assert!(!is_given_up(&mut second_given_up));
    }

    #[tokio::test]
    async fn a_call_that_passes_while_others_wait_is_given_up_at_once() {
        let gate = Gate::new(2);
        let mut place = gate.enter(Purpose::Other, 0).await.unwrap();
        let mut newcomer = pin!(gate.enter(Purpose::Other, 0));
        assert!(poll!(newcomer.as_mut()).is_pending());
        assert!(is_given_up(&mut place.pass()));
        drop(place);
        assert!(poll!(newcomer.as_mut()).is_ready());
    }

    #[tokio::test]
    async fn a_passed_call_that_ends_by_itself_leaves_nothing_behind() {
        let gate = Gate::new(2);
        for _ in 0..3 {
            let mut place = gate.enter(Purpose::Other, 0).await.unwrap();
            let _given_up = place.pass();
            drop(place);
            assert!(gate.line().passed.is_empty());
        }
        assert_eq!(gate.line().leaving, 0);
    }

    #[tokio::test]
    async fn a_gate_that_closes_keeps_no_call_that_nobody_waits_for() {
        let gate = Gate::new(4);
        let mut first = gate.enter(Purpose::Other, 0).await.unwrap();
        let mut second = gate.enter(Purpose::Other, 0).await.unwrap();
        let mut first_given_up = first.pass();
        gate.close();
        assert!(is_given_up(&mut first_given_up));
        assert!(is_given_up(&mut second.pass()));
        drop((first, second));
        assert_eq!(gate.line().leaving, 0);
        assert!(gate.enter(Purpose::Other, 0).await.is_ok(), "what comes is still sent");
    }

    #[tokio::test]
    async fn waiting_payload_is_bounded_and_calls_without_payload_wait_all_the_same() {
        let gate = Gate::new(1);
        let _place = gate.enter(Purpose::Other, WAITING_BYTES_MAX).await.unwrap();
        let mut large = pin!(gate.enter(Purpose::Other, WAITING_BYTES_MAX));
        assert!(poll!(large.as_mut()).is_pending());
        assert_eq!(gate.enter(Purpose::Other, 1).await.err(), Some(Full));
        assert!(poll!(pin!(gate.enter(Purpose::Other, 0))).is_pending());
    }

    /// A place, and what it hears once it has passed.
    type Inside<'gate> = (Place<'gate>, Option<oneshot::Receiver<()>>);

    #[derive(Debug, Clone)]
    enum Step {
        Enter,
        /// Which of those that came; modulo their number.
        Pass(usize),
        Leave(usize),
        StopWaiting(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            Just(Step::Enter),
            any::<usize>().prop_map(Step::Pass),
            any::<usize>().prop_map(Step::Leave),
            any::<usize>().prop_map(Step::StopWaiting),
        ]
    }

    proptest! {
        /// Whatever happens: never more inside than places, nobody waits beside a free place or beside a passed call, and no more
        /// calls are given up than once waited.
        #[test]
        fn places_are_neither_lost_nor_doubled(steps in proptest::collection::vec(step(), 0..80)) {
            const PLACES: usize = 3;
            let gate = Gate::new(PLACES + 1);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                let mut inside: Vec<Inside<'_>> = Vec::new();
                let mut waiting = Vec::new();
                let (mut waited, mut given_up) = (0, 0);
                for step in steps {
                    match step {
                        Step::Enter => waiting.push(Box::pin(gate.enter(Purpose::Other, 1))),
                        Step::Pass(at) if !inside.is_empty() => {
                            let at = at % inside.len();
                            let (place, passed) = &mut inside[at];
                            if passed.is_none() {
                                *passed = Some(place.pass());
                            }
                        }
                        Step::Leave(at) if !inside.is_empty() => drop(inside.swap_remove(at % inside.len())),
                        Step::StopWaiting(at) if !waiting.is_empty() => drop(waiting.remove(at % waiting.len())),
                        Step::Pass(_) | Step::Leave(_) | Step::StopWaiting(_) => {}
                    }
                    // Everybody does what is asked of it, until nothing changes.
                    loop {
                        let before = (inside.len(), waiting.len());
                        let mut still = Vec::new();
                        for mut one in waiting {
                            match poll!(one.as_mut()) {
                                Poll::Ready(place) => inside.push((place.unwrap(), None)),
                                Poll::Pending => still.push(one),
                            }
                        }
                        waiting = still;
                        waited = waited.max(waiting.len());
                        let stay = |(_, passed): &mut Inside<'_>| {
                            !passed.as_mut().is_some_and(is_given_up)
                        };
                        let count = inside.len();
                        inside.retain_mut(stay);
                        given_up += count - inside.len();
                        if before == (inside.len(), waiting.len()) {
                            break;
                        }
                    }
                    prop_assert!(inside.len() <= PLACES);
                    prop_assert!(waiting.is_empty() || inside.len() == PLACES);
                    let passed = inside.iter().filter(|(_, passed)| passed.is_some()).count();
                    prop_assert!(waiting.is_empty() || passed == 0, "{passed} passed calls keep others waiting");
                    prop_assert!(waited != 0 || given_up == 0);
                    let line = gate.line();
                    prop_assert_eq!(line.waiting, waiting.len());
                    prop_assert_eq!(line.waiting_bytes, waiting.len());
                    prop_assert_eq!((line.leaving, line.passed.len()), (0, passed));
                }
                Ok(())
            })?;
        }
    }
}
