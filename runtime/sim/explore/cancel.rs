//! Where a run can be cancelled, and how it is.
//!
//! ```text
//!   poll ──► Before? ──► the future's own poll ──► ready: Some(output)
//!               │                              └─► pending ──► After? ──► Later? ──► pending
//!               └─ yes: dropped, None                 └─ yes ────┴─ yes, after some time
//! ```
//!
//! Each question has a number: the place of it among all questions of the run. A run that is to be
//! cancelled at one of them is the same as the undisturbed one up to there.

use std::cell::{OnceCell, RefCell};
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;

use crate::io::ring::simulated::Chance;
use crate::runtime::time::{self, Sleep};
use crate::runtime::{AbortHandle, JoinHandle, spawn};

/// "A while later" is one of so many steps: about the time that a handshake takes, at most.
const STEPS: usize = 24;
const STEP: Duration = Duration::from_micros(20);
/// After the first cancel, one question in so many is answered with yes, too.
const AGAIN: usize = 8;

/// When a future is cancelled, seen from its poll.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Moment {
    /// Instead of it.
    Before,
    /// Right after it.
    After,
    /// A while after it.
    Later,
}

/// The questions of one run, and which of them gets the answer yes.
#[derive(Debug)]
pub(super) struct Questions {
    at: Option<usize>,
    /// Others may follow the first.
    again: Option<Chance>,
    pub(super) asked: usize,
    /// What was cancelled first.
    pub(super) hit: Option<String>,
}

impl Questions {
    pub(super) fn new(at: Option<usize>, again: Option<Chance>) -> Rc<RefCell<Self>> {
        Rc::new(RefCell::new(Self { at, again, asked: 0, hit: None }))
    }

    fn ask(&mut self, name: &str, moment: Moment, poll: u32) -> bool {
        let number = self.asked;
        self.asked += 1;
        match self.at {
            Some(at) if at == number => {
                let when = match moment {
                    Moment::Before => "instead of",
                    Moment::After => "right after",
                    Moment::Later => "a while after",
                };
                self.hit = Some(format!("`{name}` was cancelled {when} its poll {poll}"));
                true
            }
            Some(at) if at < number => {
                self.again.as_mut().is_some_and(|chance| chance.one_in(AGAIN))
            }
            _ => false,
        }
    }
}

/// What a scenario gets of its explorer: a way to name what may be cancelled, and choices.
///
/// Clones are the same one.
#[derive(Clone)]
pub struct Explore {
    questions: Rc<RefCell<Questions>>,
    chance: Rc<RefCell<Chance>>,
}

impl Explore {
    pub(super) fn new(questions: Rc<RefCell<Questions>>, chance: Chance) -> Self {
        Self { questions, chance: Rc::new(RefCell::new(chance)) }
    }

    /// A future that the explorer may drop at any poll; the answer is `None` then.
    ///
    /// ```
    /// use std::time::Duration;
    /// use quoit::sim::explore::Explorer;
    /// use quoit::time;
    ///
    /// let found = Explorer::new("a nap").seeds(1).cancel(|explore| async move {
    ///     let nap = time::sleep(Duration::from_secs(1));
    ///     if explore.cancellable("sleep", nap).await.is_none() {
    ///         time::sleep(Duration::from_secs(1)).await;
    ///     }
    /// });
    /// // Before the first poll, after it, a while later, and instead of the second.
    /// assert_eq!(found.points(), 4);
    /// found.assert_clean();
    /// ```
    pub fn cancellable<F: Future>(&self, name: &'static str, future: F) -> Cancellable<F> {
        Cancellable { future: Some(future), cut: Cut::new(&self.questions, name) }
    }

    /// As [`quoit::spawn`](crate::spawn); the explorer may abort the task at any poll.
    ///
    /// ```
    /// use quoit::net::TcpListener;
    /// use quoit::sim::explore::Explorer;
    ///
    /// let found = Explorer::new("an aborted server").seeds(5).cancel(|explore| async move {
    ///     let server = explore.spawn("server", async {
    ///         let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    ///         quoit::task::yield_now().await;
    ///         listener.local_addr().unwrap().port()
    ///     });
    ///     match server.await {
    ///         Ok(port) => assert_ne!(port, 0),
    ///         Err(error) => assert!(error.is_cancelled()),
    ///     }
    /// });
    /// found.assert_clean();
    /// ```
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
    {
        let own = Rc::new(OnceCell::new());
        let task = Abortable { future, cut: Cut::new(&self.questions, name), own: own.clone() };
        let handle = spawn(task);
        let _ = own.set(handle.abort_handle());
        handle
    }

    /// A number below `end`, of the scenario's own choices: each seed makes others.
    ///
    /// # Panics
    ///
    /// When `end` is zero.
    #[must_use]
    pub fn below(&self, end: usize) -> usize {
        self.chance.borrow_mut().below(end)
    }
}

impl fmt::Debug for Explore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Explore").finish_non_exhaustive()
    }
}

/// One future's polls.
struct Cut {
    questions: Rc<RefCell<Questions>>,
    name: &'static str,
    polls: u32,
    /// It is cancelled then, and not polled any more.
    leaving: Option<Pin<Box<Sleep>>>,
}

/// What one poll came to.
enum Outcome<T> {
    Ready(T),
    Pending,
    Cancelled,
}

impl Cut {
    fn new(questions: &Rc<RefCell<Questions>>, name: &'static str) -> Self {
        Self { questions: questions.clone(), name, polls: 0, leaving: None }
    }

    fn poll<F: Future>(&mut self, future: Pin<&mut F>, cx: &mut Context<'_>) -> Outcome<F::Output> {
        if self.leaving.is_some() {
            return self.leave(cx);
        }
        self.polls += 1;
        if self.ask(Moment::Before) {
            return Outcome::Cancelled;
        }
        if let Poll::Ready(output) = future.poll(cx) {
            return Outcome::Ready(output);
        }
        if self.ask(Moment::After) {
            return Outcome::Cancelled;
        }
        if self.ask(Moment::Later) {
            // Another number for each place, the same in each run.
            let steps = 1 + self.questions.borrow().asked % STEPS;
            self.leaving = Some(Box::pin(time::sleep(STEP * steps as u32)));
            return self.leave(cx);
        }
        Outcome::Pending
    }

    fn leave<T>(&mut self, cx: &mut Context<'_>) -> Outcome<T> {
        let nap = self.leaving.as_mut().expect("it is leaving");
        if nap.as_mut().poll(cx).is_pending() { Outcome::Pending } else { Outcome::Cancelled }
    }

    fn ask(&self, moment: Moment) -> bool {
        self.questions.borrow_mut().ask(self.name, moment, self.polls)
    }
}

pin_project! {
    /// Future of [`Explore::cancellable`].
    #[must_use = "futures do nothing unless awaited or polled"]
    pub struct Cancellable<F> {
        // Gone when it is ready or cancelled.
        #[pin]
        future: Option<F>,
        cut: Cut,
    }
}

impl<F: Future> Cancellable<F> {
    /// As `Explore::cancellable`, with questions of its own.
    pub(super) fn new(questions: &Rc<RefCell<Questions>>, name: &'static str, future: F) -> Self {
        Self { future: Some(future), cut: Cut::new(questions, name) }
    }
}

impl<F: Future> Future for Cancellable<F> {
    type Output = Option<F::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let Some(future) = this.future.as_mut().as_pin_mut() else {
            panic!("`Cancellable` was polled after it was ready");
        };
        let output = match this.cut.poll(future, cx) {
            Outcome::Pending => return Poll::Pending,
            Outcome::Ready(output) => Some(output),
            Outcome::Cancelled => None,
        };
        this.future.set(None);
        Poll::Ready(output)
    }
}

impl<F> fmt::Debug for Cancellable<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancellable").field("name", &self.cut.name).finish_non_exhaustive()
    }
}

pin_project! {
    /// A task that may abort itself.
    struct Abortable<F> {
        #[pin]
        future: F,
        cut: Cut,
        own: Rc<OnceCell<AbortHandle>>,
    }
}

impl<F: Future> Future for Abortable<F> {
    type Output = F::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        match this.cut.poll(this.future, cx) {
            Outcome::Ready(output) => Poll::Ready(output),
            Outcome::Pending => Poll::Pending,
            Outcome::Cancelled => {
                // The core drops the future in its next slice.
                this.own.get().expect("a task is polled after it was spawned").abort();
                Poll::Pending
            }
        }
    }
}
