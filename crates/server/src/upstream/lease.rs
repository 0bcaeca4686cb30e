//! Something that another service gives for a time: asked for when it is needed, once at a time however many need it, and after a
//! failure not again at once.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

/// The pause after a failure; doubled with each further one.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

/// What was given, or why it was not.
#[derive(Debug)]
pub(super) struct Lease<T, E> {
    state: Mutex<State<T, E>>,
    pause_max: Duration,
}

#[derive(Debug)]
enum State<T, E> {
    /// Nobody has needed it yet.
    Unasked,
    /// All who need it wait for the same answer. `pause` is the one after the last failure.
    Asked { answer: watch::Receiver<Option<Result<T, E>>>, pause: Option<Duration> },
    /// It was given until then.
    Given { value: T, until: Instant },
    /// It was not given; until then whoever needs it hears the same.
    Refused { error: E, until: Instant, pause: Duration },
}

impl<T, E> Lease<T, E>
where
    T: Clone + Send + Sync + 'static,
    E: Clone + Send + Sync + 'static,
{
    /// Returns what is held, or what comes of `ask`: the value and how long it holds. Asking runs as a task of its own, so that it goes
    /// on when whoever began it waits no longer. Cancel-safe.
    ///
    /// # Errors
    /// Why it was not given, now or within the pause after a failure.
    pub(super) async fn get<Asking>(
        self: &Arc<Self>,
        tasks: &TaskTracker,
        ask: impl Fn() -> Asking,
    ) -> Result<T, E>
    where
        Asking: Future<Output = Result<(T, Duration), E>> + Send + 'static,
    {
        loop {
            let mut answer = match self.look() {
                Ok(known) => return known,
                Err(Wanted::Wait(answer)) => answer,
                Err(Wanted::Ask(answer, sender)) => {
                    let (lease, asking) = (self.clone(), ask());
                    tasks.spawn(async move {
                        let answer = lease.note(asking.await);
                        // Whoever asked may be gone.
                        let _ = sender.send(Some(answer));
                    });
                    answer
                }
            };
            if let Ok(answer) = answer.wait_for(Option::is_some).await
                && let Some(answer) = answer.clone()
            {
                return answer;
            }
            // The task ended without an answer, which only a panic can do: ask again.
        }
    }

    /// Whether nothing is lost by forgetting it.
    pub(super) fn is_over(&self) -> bool {
        match &*self.state() {
            State::Unasked => true,
            State::Asked { .. } => false,
            State::Given { until, .. } | State::Refused { until, .. } => *until <= Instant::now(),
        }
    }

    fn look(&self) -> Result<Result<T, E>, Wanted<T, E>> {
        let mut state = self.state();
        let now = Instant::now();
        let pause = match &*state {
            State::Given { value, until } if now < *until => return Ok(Ok(value.clone())),
            State::Refused { error, until, .. } if now < *until => return Ok(Err(error.clone())),
            // The sender is there until the answer is.
            State::Asked { answer, .. } if answer.has_changed().is_ok() => {
                return Err(Wanted::Wait(answer.clone()));
            }
            State::Asked { pause, .. } => *pause,
            State::Refused { pause, .. } => Some(*pause),
            State::Unasked | State::Given { .. } => None,
        };
        let (sender, answer) = watch::channel(None);
        *state = State::Asked { answer: answer.clone(), pause };
        Err(Wanted::Ask(answer, sender))
    }

    fn note(&self, answer: Result<(T, Duration), E>) -> Result<T, E> {
        let mut state = self.state();
        let now = Instant::now();
        match answer {
            Ok((value, time)) => {
                *state = State::Given { value: value.clone(), until: now + time };
                Ok(value)
            }
            Err(error) => {
                let last = if let State::Asked { pause, .. } = &*state { *pause } else { None };
                let pause = last.map_or(PAUSE, |last| (last * 2).min(self.pause_max));
                *state = State::Refused { error: error.clone(), until: now + pause, pause };
                Err(error)
            }
        }
    }
}

impl<T, E> Lease<T, E> {
    /// Returns a lease that nobody has needed yet. The pause after a failure grows up to `pause_max`.
    pub(super) const fn new(pause_max: Duration) -> Self {
        Self { state: Mutex::new(State::Unasked), pause_max }
    }

    fn state(&self) -> MutexGuard<'_, State<T, E>> {
        self.state.lock().expect("nothing panics while it holds the state")
    }
}

/// What somebody must do who needs what is not known.
enum Wanted<T, E> {
    Wait(watch::Receiver<Option<Result<T, E>>>),
    Ask(watch::Receiver<Option<Result<T, E>>>, watch::Sender<Option<Result<T, E>>>),
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use tokio::time::sleep;

    use super::*;

    /// A service that gives what it is told to, each time after a second.
    struct Giver {
        lease: Arc<Lease<u32, &'static str>>,
        tasks: TaskTracker,
        answers: Mutex<VecDeque<Result<(u32, Duration), &'static str>>>,
        begun: Instant,
        asked: Mutex<Vec<Duration>>,
    }

    impl Giver {
        fn new(answers: impl IntoIterator<Item = Result<(u32, Duration), &'static str>>) -> Self {
            Self {
                lease: Arc::new(Lease::new(MINUTE)),
                tasks: TaskTracker::new(),
                answers: Mutex::new(answers.into_iter().collect()),
                begun: Instant::now(),
                asked: Mutex::default(),
            }
        }

        async fn get(&self) -> Result<u32, &'static str> {
            let ask = || {
                self.asked.lock().unwrap().push(self.begun.elapsed());
                let answer = self.answers.lock().unwrap().pop_front().expect("asked too often");
                async move {
                    sleep(Duration::from_secs(1)).await;
                    answer
                }
            };
            self.lease.get(&self.tasks, ask).await
        }

        /// Returns when it was asked, in seconds after its beginning.
        fn asked(&self) -> Vec<u64> {
            self.asked.lock().unwrap().iter().map(Duration::as_secs).collect()
        }
    }

    const MINUTE: Duration = Duration::from_mins(1);

    #[tokio::test(start_paused = true)]
    async fn it_is_asked_for_when_it_is_due_and_needed() {
        let giver = Giver::new([Ok((1, MINUTE)), Ok((2, MINUTE))]);
        assert!(giver.lease.is_over());
        assert_eq!(giver.get().await, Ok(1));
        sleep(Duration::from_secs(59)).await;
        assert_eq!(giver.get().await, Ok(1));
        assert!(!giver.lease.is_over());
        // Nobody needs it for a while.
        sleep(Duration::from_secs(100)).await;
        assert!(giver.lease.is_over());
        assert_eq!(giver.get().await, Ok(2));
        assert_eq!(giver.asked(), [0, 160]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_is_repeated_to_all_within_pauses_that_double_up_to_a_minute() {
        let giver =
            Giver::new((0..9).map(|_| Err("no")).chain([Ok((1, MINUTE)), Err("no"), Err("no")]));
        let mut begun = Vec::new();
        for _ in 0..400 {
            let before = giver.asked().len();
            let answer = giver.get().await;
            if before < giver.asked().len() {
                begun.push(giver.begun.elapsed().as_secs());
            }
            assert!(answer.is_ok() || answer == Err("no"));
            sleep(Duration::from_secs(1)).await;
            if answer.is_ok() {
                break;
            }
        }
        let pauses: Vec<u64> = begun.windows(2).map(|pair| pair[1] - pair[0]).collect();
        // Asking takes a second, and this test looks once a second.
        assert_eq!(pauses, [2, 3, 5, 9, 17, 33, 61, 61, 61]);
        // A success makes the pauses short again.
        sleep(MINUTE).await;
        assert_eq!(giver.get().await, Err("no"));
        sleep(PAUSE).await;
        assert_eq!(giver.get().await, Err("no"));
        assert_eq!(giver.asked().len(), 12);
    }

    #[tokio::test(start_paused = true)]
    async fn all_who_need_it_at_once_share_one_question() {
        let giver = Giver::new([Ok((7, MINUTE))]);
        let all = futures_util::future::join_all((0..100).map(|_| giver.get())).await;
        assert!(all.iter().all(|given| *given == Ok(7)));
        assert_eq!(giver.asked(), [0]);
    }

    #[tokio::test(start_paused = true)]
    async fn asking_goes_on_when_whoever_began_it_waits_no_longer() {
        let giver = Giver::new([Ok((7, MINUTE))]);
        let impatient = tokio::time::timeout(Duration::from_millis(10), giver.get()).await;
        assert!(impatient.is_err());
        assert_eq!(giver.get().await, Ok(7));
        assert_eq!(giver.asked(), [0]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_that_is_lost_is_asked_again() {
        let lease: Arc<Lease<u32, &str>> = Arc::new(Lease::new(MINUTE));
        let tasks = TaskTracker::new();
        let count = Arc::new(Mutex::new(0));
        let ask = || {
            let count = count.clone();
            async move {
                let first = {
                    let mut count = count.lock().unwrap();
                    *count += 1;
                    *count == 1
                };
                assert!(!first, "this panic is meant");
                Ok((1, MINUTE))
            }
        };
        assert_eq!(lease.get(&tasks, ask).await, Ok(1));
    }
}
