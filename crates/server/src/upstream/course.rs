//! The course of one call in time: attempts, repetitions, passing, giving up. Knows no sockets.

use std::pin::pin;
use std::time::Duration;

use hookwire_hub::Event;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::CallError;

/// How long the next event of a preview connection waits for the answer to the previous one, after that was fully written.
pub(super) const PASS_TIME: Duration = Duration::from_millis(250);

/// How long the next event of a Web PubSub connection waits for the answer to a notice, after that had its place.
pub(super) const NOTICE_TIME: Duration = Duration::from_secs(1);

/// How long after its beginning a call may be repeated.
pub(super) const REPEAT_TIME_MAX: Duration = Duration::from_secs(5);

/// The first pause before a repetition; doubled each time, so that [`REPEAT_TIME_MAX`] leaves room for six.
pub(super) const REPEAT_PAUSE: Duration = Duration::from_millis(50);

/// The pauses before a notice is sent again (Web PubSub protocol, "Retry and time-outs").
pub(super) const RETRY_PAUSES: [Duration; 3] =
    [Duration::from_secs(1), Duration::from_secs(3), Duration::from_secs(5)];

/// How an event's call behaves in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Policy {
    pub(super) passing: Passing,
    pub(super) repetition: Repetition,
    /// The answer does not matter: a failure that may be over soon is followed by another call after each of [`RETRY_PAUSES`].
    pub(super) is_notice: bool,
}

/// When a call passes: nothing waits for its answer any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passing {
    /// Never: somebody waits for the answer.
    Never,
    /// [`PASS_TIME`] after it was fully written.
    Written,
    /// The same, but not before the service ends: until then somebody waits for the answer.
    WrittenAtTheEnd,
    /// [`NOTICE_TIME`] after it had its place.
    Placed,
}

/// What may be sent again at once, or after a short pause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Repetition {
    /// What never went out, or was never begun with.
    Unsent,
    /// Also what crossed the close of an idle connection.
    Crossed,
    /// Also, for [`REPEAT_TIME_MAX`], what was not answered by a single byte.
    Silent,
}

impl Policy {
    /// Returns how a call with this event behaves.
    pub(super) const fn of(event: &Event) -> Self {
        let (passing, repetition, is_notice) = match event {
            Event::Connect { .. } | Event::Connecting(_) => {
                (Passing::Never, Repetition::Silent, false)
            }
            Event::Message(_) => (Passing::Written, Repetition::Silent, false),
            Event::Disconnect => (Passing::Written, Repetition::Crossed, false),
            Event::User(user) if user.is_invocation => {
                (Passing::WrittenAtTheEnd, Repetition::Unsent, false)
            }
            Event::User(_) => (Passing::WrittenAtTheEnd, Repetition::Silent, false),
            Event::Connected | Event::Disconnected { .. } | Event::Joined(_) | Event::Left(_) => {
                (Passing::Placed, Repetition::Crossed, true)
            }
        };
        Self { passing, repetition, is_notice }
    }
}

/// What went wrong with an attempt, by what may be done about it.
#[derive(Debug)]
pub(super) enum Failure {
    /// The pool gave a connection that the upstream had closed, or was closing and says that it has not begun with the request; or the
    /// tunnel ended before a byte of the request went out. Every call may try another one.
    Unsent(CallError),
    /// The upstream said, at once or as it closed a new connection, that it has not begun with the request. Every call may try again,
    /// after a pause.
    Refused(CallError),
    /// The pool gave a connection that the upstream was closing; no byte of an answer came.
    Crossed(CallError),
    /// The upstream could not be reached, or broke off before the first byte of an answer.
    Silent(CallError),
    /// An answer had begun, or trying again is useless.
    Final(CallError),
}

impl Failure {
    fn into_error(self) -> CallError {
        match self {
            Self::Unsent(error)
            | Self::Refused(error)
            | Self::Crossed(error)
            | Self::Silent(error)
            | Self::Final(error) => error,
        }
    }
}

/// Makes a call: attempts until one is answered or repeating is over.
///
/// `attempt` begins one: its answer, and what is ready when the request was fully written. `at_the_end` is cancelled when the service
/// ends. When the call passes, `pass` is called, whose future ends when the call must be given up. What has passed is not repeated: it would come after its connection's next event.
///
/// # Errors
/// What made the last attempt fail.
pub(super) async fn run<T, Answer, Written, GivenUp>(
    policy: Policy,
    at_the_end: &CancellationToken,
    mut attempt: impl FnMut() -> (Answer, Written),
    pass: impl FnOnce() -> GivenUp,
) -> Result<T, CallError>
where
    Answer: Future<Output = Result<T, Failure>>,
    Written: Future<Output = ()>,
    GivenUp: Future,
{
    let begin = Instant::now();
    let mut pause = REPEAT_PAUSE;
    loop {
        let (answer, written) = attempt();
        let mut answer = pin!(answer);
        let passing = async {
            match policy.passing {
                Passing::Never => std::future::pending().await,
                Passing::Written => {
                    written.await;
                    sleep(PASS_TIME).await;
                }
                Passing::WrittenAtTheEnd => {
                    at_the_end.cancelled().await;
                    written.await;
                    sleep(PASS_TIME).await;
                }
                Passing::Placed => tokio::time::sleep_until(begin + NOTICE_TIME).await,
            }
        };
        let failure = tokio::select! {
            biased;
            result = &mut answer => match result {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            },
            () = passing => {
                let given_up = pass();
                return tokio::select! {
                    biased;
                    result = &mut answer => result.map_err(Failure::into_error),
                    _ = given_up => Err(CallError::GivenUp),
                };
            }
        };
        let (needed, pause_now) = match &failure {
            Failure::Unsent(_) => (Repetition::Unsent, Duration::ZERO),
            Failure::Refused(_) => (Repetition::Unsent, pause),
            Failure::Crossed(_) => (Repetition::Crossed, Duration::ZERO),
            Failure::Silent(_) => (Repetition::Silent, pause),
            Failure::Final(_) => return Err(failure.into_error()),
        };
        if policy.repetition < needed || REPEAT_TIME_MAX <= begin.elapsed() + pause_now {
            return Err(failure.into_error());
        }
        if !pause_now.is_zero() {
            sleep(pause_now).await;
            pause *= 2;
        }
    }
}

/// The pauses that a notice has left.
#[derive(Debug, Default)]
pub(super) struct Retries(usize);

impl Retries {
    /// Returns how long to wait before the notice is sent again; `None`: not again.
    pub(super) fn pause(&mut self) -> Option<Duration> {
        let pause = RETRY_PAUSES.get(self.0).copied();
        self.0 += 1;
        pause
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::future::{pending, ready};

    use std::sync::Arc;

    use hookwire_hub::UserEvent;
    use hookwire_proto::data::{Data, Metadata};
    use hookwire_proto::message::Message;

    use super::*;

    /// Runs a course of a service that does not end.
    async fn run<T, Answer, Written, GivenUp>(
        policy: Policy,
        attempt: impl FnMut() -> (Answer, Written),
        pass: impl FnOnce() -> GivenUp,
    ) -> Result<T, CallError>
    where
        Answer: Future<Output = Result<T, Failure>>,
        Written: Future<Output = ()>,
        GivenUp: Future,
    {
        super::run(policy, &CancellationToken::new(), attempt, pass).await
    }

    fn connect() -> Policy {
        Policy::of(&Event::Connecting(Arc::default()))
    }

    fn message() -> Policy {
        Policy::of(&Event::Message(Message::text("x")))
    }

    fn disconnect() -> Policy {
        Policy::of(&Event::Disconnect)
    }

    fn user(is_invocation: bool) -> Policy {
        let (data, metadata) = (Data::text("x"), Metadata::default());
        Policy::of(&Event::User(UserEvent { name: "x".into(), data, metadata, is_invocation }))
    }

    fn notice() -> Policy {
        Policy::of(&Event::Connected)
    }

    /// When each attempt began, in milliseconds after the first.
    #[derive(Debug, Default)]
    struct Attempts(RefCell<Vec<u128>>, Cell<Option<Instant>>);

    impl Attempts {
        fn note(&self) -> usize {
            let first = self.1.get().unwrap_or_else(Instant::now);
            self.1.set(Some(first));
            self.0.borrow_mut().push(first.elapsed().as_millis());
            self.0.borrow().len()
        }
    }

    fn silent() -> Failure {
        Failure::Silent(CallError::GivenUp)
    }

    async fn after<T>(time_ms: u64, value: T) -> T {
        sleep(Duration::from_millis(time_ms)).await;
        value
    }

    #[tokio::test(start_paused = true)]
    async fn what_could_not_be_reached_is_repeated_with_growing_pauses_for_five_seconds() {
        let attempts = Attempts::default();
        let attempt = || {
            (ready(Err::<(), _>(silent())), {
                attempts.note();
                pending()
            })
        };
        let result = run(connect(), attempt, pending::<()>).await;
        assert!(result.is_err());
        assert_eq!(*attempts.0.borrow(), [0, 50, 150, 350, 750, 1_550, 3_150]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_later_attempt_may_succeed() {
        let attempts = Attempts::default();
        let attempt = || {
            let result = if attempts.note() < 3 { Err(silent()) } else { Ok("answer") };
            (ready(result), pending())
        };
        assert_eq!(run(connect(), attempt, pending::<()>).await.unwrap(), "answer");
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_had_begun_is_not_asked_for_again() {
        let attempts = Attempts::default();
        let attempt = || {
            attempts.note();
            (ready(Err::<(), _>(Failure::Final(CallError::GivenUp))), pending())
        };
        assert!(run(connect(), attempt, pending::<()>).await.is_err());
        assert_eq!(attempts.0.borrow().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_that_is_not_repeated_still_replaces_a_stale_connection_at_once() {
        let attempts = Attempts::default();
        let attempt = || {
            let failure = match attempts.note() {
                1 | 2 => Failure::Crossed(CallError::GivenUp),
                _ => silent(),
            };
            (ready(Err::<(), _>(failure)), pending())
        };
        assert!(run(disconnect(), attempt, pending::<()>).await.is_err());
        assert_eq!(*attempts.0.borrow(), [0, 0, 0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_silence_longer_than_five_seconds_is_not_repeated() {
        let attempts = Attempts::default();
        let attempt = || {
            attempts.note();
            (after(5_000, Err::<(), _>(silent())), pending())
        };
        assert!(run(connect(), attempt, pending::<()>).await.is_err());
        assert_eq!(attempts.0.borrow().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_passes_a_quarter_second_after_it_was_written_and_is_heard_all_the_same() {
        let begin = Instant::now();
        let passed = Cell::new(None);
        let attempt = || (after(10_000, Ok("late")), after(1_000, ()));
        let pass = || {
            passed.set(Some(begin.elapsed()));
            pending::<()>()
        };
        assert_eq!(run(message(), attempt, pass).await.unwrap(), "late");
        assert_eq!(passed.get(), Some(Duration::from_millis(1_250)));
        assert_eq!(begin.elapsed(), Duration::from_secs(10));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_answered_unwritten_or_awaited_does_not_pass() {
        let never = || -> std::future::Pending<()> { panic!("it passes") };
        let quick = || (after(249, Ok(())), ready(()));
        run(message(), quick, never).await.unwrap();
        let unwritten = || (after(60_000, Ok(())), pending());
        run(message(), unwritten, never).await.unwrap();
        let awaited = || (after(29_000, Ok(())), ready(()));
        run(connect(), awaited, never).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_passed_is_given_up_on_demand_and_not_repeated() {
        let begin = Instant::now();
        let attempt = || (pending::<Result<(), Failure>>(), ready(()));
        let error = run(message(), attempt, || after(750, ())).await.unwrap_err();
        assert!(matches!(error, CallError::GivenUp));
        assert_eq!(begin.elapsed(), Duration::from_secs(1));

        let attempts = Attempts::default();
        let attempt = || {
            attempts.note();
            (after(300, Err::<(), _>(silent())), ready(()))
        };
        assert!(run(message(), attempt, pending::<()>).await.is_err());
        assert_eq!(attempts.0.borrow().len(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_repetition_passes_by_its_own_time() {
        let begin = Instant::now();
        let attempts = Attempts::default();
        let attempt = || {
            let first = attempts.note() == 1;
            let answer = async move {
                if first { after(200, Err(silent())).await } else { after(9_000, Ok(())).await }
            };
            (answer, ready(()))
        };
        let passed = Cell::new(None);
        let pass = || {
            passed.set(Some(begin.elapsed()));
            pending::<()>()
        };
        run(message(), attempt, pass).await.unwrap();
        assert_eq!(passed.get(), Some(Duration::from_millis(200 + 50 + 250)));
    }

    #[tokio::test(start_paused = true)]
    async fn an_invocation_is_sent_again_only_if_it_was_never_sent() {
        for (failures, attempts_made) in [
            (&[Failure::Unsent as fn(_) -> _, Failure::Unsent, Failure::Final][..], 3),
            (&[Failure::Unsent, Failure::Crossed], 2),
            (&[Failure::Crossed], 1),
            (&[Failure::Silent], 1),
        ] {
            let attempts = Attempts::default();
            let attempt = || {
                let failure = failures[attempts.note() - 1](CallError::GivenUp);
                (ready(Err::<(), _>(failure)), pending())
            };
            assert!(run(user(true), attempt, pending::<()>).await.is_err());
            assert_eq!(*attempts.0.borrow(), vec![0; attempts_made]);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_an_upstream_has_not_begun_with_is_sent_again_after_growing_pauses() {
        for policy in [user(true), user(false), notice(), connect()] {
            let attempts = Attempts::default();
            let attempt = || {
                attempts.note();
                (ready(Err::<(), _>(Failure::Refused(CallError::GivenUp))), pending())
            };
            assert!(run(policy, attempt, pending::<()>).await.is_err());
            let times = attempts.0.into_inner();
            assert_eq!(times[..5], [0, 50, 150, 350, 750], "{policy:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_client_raised_does_not_pass_and_a_notice_passes_after_a_second() {
        let never = || -> std::future::Pending<()> { panic!("it passes") };
        let slow = || (after(59_000, Ok(())), ready(()));
        run(user(false), slow, never).await.unwrap();
        run(user(true), slow, never).await.unwrap();

        let begin = Instant::now();
        let passed = Cell::new(None);
        let pass = || {
            passed.set(Some(begin.elapsed()));
            pending::<()>()
        };
        let unwritten = || (after(59_000, Ok(())), pending());
        run(notice(), unwritten, pass).await.unwrap();
        assert_eq!(passed.get(), Some(NOTICE_TIME));
        let quick = || (after(999, Ok(())), ready(()));
        run(notice(), quick, never).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn when_the_service_ends_what_a_client_raised_passes_once_it_was_written() {
        for (end_ms, written_ms, passed_ms) in [(10_000, 0, 10_250), (0, 3_000, 3_250)] {
            let begin = Instant::now();
            let end = CancellationToken::new();
            let passed = Cell::new(None);
            let pass = || {
                passed.set(Some(begin.elapsed()));
                ready(())
            };
            let attempt = || (pending::<Result<(), Failure>>(), after(written_ms, ()));
            let course = super::run(user(false), &end, attempt, pass);
            let (result, ()) = tokio::join!(course, async {
                after(end_ms, ()).await;
                end.cancel();
            });
            assert!(matches!(result, Err(CallError::GivenUp)));
            assert_eq!(passed.get(), Some(Duration::from_millis(passed_ms)));
        }
    }

    #[test]
    fn a_notice_is_sent_again_three_times() {
        let mut retries = Retries::default();
        let pauses: Vec<u64> =
            std::iter::from_fn(|| retries.pause()).map(|p| p.as_secs()).collect();
        assert_eq!(pauses, [1, 3, 5]);
        assert_eq!(retries.pause(), None);
    }
}
