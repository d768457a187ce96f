//! Threads for what neither ring can do without blocking: name resolution, the user's own blocking
//! work, and the readiness ring's files.
//!
//! ```text
//!   submit ──► queue ──► thread ──► job             nobody idle and below the limit: a new thread
//!     │ full, closed, no thread        │            idle for long enough: the thread ends
//!     ▼                                ▼
//!   the job comes back           Run: the awaiting side
//! ```
//!
//! Both limits are stated: so many threads, and [`QUEUE_LIMIT`] jobs that wait for one. A job
//! beyond them is handed back at once, since a queue without end only hides that the work does
//! not get done.

#[cfg(test)]
mod tests;

use std::any::Any;
use std::collections::VecDeque;
use std::fmt;
use std::future::Future;
use std::io;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use crate::io::clock::Hold;
use crate::io::proactor::Proactor;
use crate::io::system::{self, Threads};

/// How many jobs may wait for a thread.
pub(crate) const QUEUE_LIMIT: usize = 65_536;

pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// The threads of one runtime. When the pool is dropped, they end after the jobs that they run.
pub(crate) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    /// A job is there, or the pool is closed.
    work: Condvar,
    /// A thread of a closed pool has ended.
    gone: Condvar,
    thread_limit: usize,
    queue_limit: usize,
    keep_alive: Duration,
    threads: Threads,
    /// No thread ever starts: a simulation takes the jobs.
    is_simulated: bool,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Job>,
    threads: usize,
    /// Threads that run no job: they will look into the queue before they wait. New ones count from
    /// their start on, so that two jobs in a row do not start three.
    idle: usize,
    threads_ever: u64,
    closed: bool,
}

impl Pool {
    /// No thread starts before the first job. `thread_limit` is at least one.
    pub(crate) fn new(threads: Threads, thread_limit: usize, keep_alive: Duration) -> Arc<Self> {
        Self::made(threads, (thread_limit, QUEUE_LIMIT), keep_alive, false)
    }

    /// A pool without threads, whose jobs wait until they are taken.
    pub(crate) fn simulated() -> Arc<Self> {
        Self::made(Threads::default(), (1, QUEUE_LIMIT), Duration::ZERO, true)
    }

    #[cfg(test)]
    fn with_queue(thread_limit: usize, queue_limit: usize, keep_alive: Duration) -> Arc<Self> {
        Self::made(Threads::default(), (thread_limit, queue_limit), keep_alive, false)
    }

    fn made(
        threads: Threads,
        (thread_limit, queue_limit): (usize, usize),
        keep_alive: Duration,
        is_simulated: bool,
    ) -> Arc<Self> {
        assert!(thread_limit > 0, "a pool needs a thread");
        let shared = Arc::new(Shared {
            state: Mutex::default(),
            work: Condvar::new(),
            gone: Condvar::new(),
            thread_limit,
            queue_limit,
            keep_alive,
            threads,
            is_simulated,
        });
        Arc::new(Self { shared })
    }

    /// Jobs that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.shared.lock().queue.len()
    }

    /// Takes the job that has waited longest; it is then the taker's to run.
    pub(crate) fn take(&self) -> Option<Job> {
        self.shared.lock().queue.pop_front()
    }

    /// Has a thread run the job. The job comes back if the queue is full, the pool is closed, or
    /// the machine has no thread for us.
    pub(crate) fn submit(&self, job: Job) -> Result<(), Job> {
        let shared = &self.shared;
        let mut state = shared.lock();
        if state.closed || state.queue.len() >= shared.queue_limit {
            return Err(job);
        }
        state.queue.push_back(job);
        if shared.is_simulated {
            return Ok(());
        }
        if state.queue.len() <= state.idle || state.threads >= shared.thread_limit {
            shared.work.notify_one();
        } else if shared.start_thread(&mut state).is_err() && state.threads == 0 {
            // Without threads nothing else can be in the queue. With some, they will come to it.
            return Err(state.queue.pop_back().expect("it was just put there"));
        }
        Ok(())
    }

    /// Whether a job would come to a thread: one is there, or has just been started. Without one,
    /// and while the machine has none for us, waiting would be for nothing.
    pub(crate) fn has_thread(&self) -> bool {
        let shared = &self.shared;
        let mut state = shared.lock();
        let needs_none = state.closed || shared.is_simulated || state.threads > 0;
        needs_none || shared.start_thread(&mut state).is_ok()
    }

    /// Runs `work` on a thread; awaiting the answer gives its result. `hold` is kept until then.
    pub(crate) fn run<R: Send + 'static>(
        &self,
        work: impl FnOnce() -> R + Send + 'static,
        hold: Option<Hold>,
    ) -> Run<R> {
        let outcome = Arc::new(Outcome { stage: Mutex::new(Stage::Waiting(None)) });
        let promise = Promise(outcome.clone());
        let job = Box::new(move || {
            if promise.is_awaited() {
                let result = catch_unwind(AssertUnwindSafe(work));
                promise.0.settle(result.map_err(Failure::Panicked));
            }
        });
        if let Err(job) = self.submit(job) {
            outcome.settle(Err(Failure::Refused));
            drop(job);
        }
        Run { outcome, hold }
    }

    /// Takes no more jobs, drops those that wait, and gives the running ones until `deadline` (of
    /// the machine's clock) to end. Answers how many are still running; their threads end after
    /// them.
    pub(crate) fn shutdown(&self, deadline: u64) -> usize {
        self.shared.close();
        let mut state = self.shared.lock();
        while state.threads > 0 {
            let left = deadline.saturating_sub(system::now());
            if left == 0 {
                break;
            }
            let waited = self.shared.gone.wait_timeout(state, Duration::from_nanos(left));
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
        state.threads - state.idle
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.shared.lock();
        f.debug_struct("Pool")
            .field("threads", &state.threads)
            .field("idle", &state.idle)
            .field("queued", &state.queue.len())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn start_thread(self: &Arc<Self>, state: &mut State) -> io::Result<()> {
        let role = format!("blocking-{}", state.threads_ever);
        let shared = self.clone();
        // A thread inherits the mask of the one that starts it, so there is no moment at which a
        // signal could find it open.
        let masked = SignalsBlocked::new();
        self.threads.start(&role, move || shared.work())?;
        drop(masked);
        state.threads_ever += 1;
        state.threads += 1;
        state.idle += 1;
        Ok(())
    }

    /// The life of one thread, counted as idle except while it runs a job.
    fn work(&self) {
        let mut state = self.lock();
        loop {
            if let Some(job) = state.queue.pop_front() {
                state.idle -= 1;
                drop(state);
                contain(job);
                state = self.lock();
                state.idle += 1;
                continue;
            }
            if state.closed {
                break;
            }
            let waited = self.work.wait_timeout_while(state, self.keep_alive, |state| {
                state.queue.is_empty() && !state.closed
            });
            let (woken, waited) = waited.unwrap_or_else(PoisonError::into_inner);
            state = woken;
            if waited.timed_out() {
                break;
            }
        }
        state.idle -= 1;
        state.threads -= 1;
        if state.closed {
            self.gone.notify_all();
        }
    }

    fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        let queue = std::mem::take(&mut state.queue);
        drop(state);
        self.work.notify_all();
        // Jobs own what users gave them, so their drops may do anything: never under the lock.
        for job in queue {
            contain(move || drop(job));
        }
    }
}

/// Runs foreign code whose panic concerns nobody here.
pub(crate) fn contain(code: impl FnOnce()) {
    if let Err(payload) = catch_unwind(AssertUnwindSafe(code)) {
        // The payload is foreign too. One whose drop panics with such another is left where it is.
        if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
            std::mem::forget(again);
        }
    }
}

/// Keeps signals away from this thread until it is dropped.
///
/// Blocking system calls of pool threads would be interrupted by handlers that the program has
/// set for its own threads. Faults of the thread itself stay open (blocked, they kill the process
/// without a word), and so does the tick of profilers.
pub(crate) struct SignalsBlocked {
    before: libc::sigset_t,
}

impl SignalsBlocked {
    pub(crate) fn new() -> Self {
        const OPEN: [libc::c_int; 8] = [
            libc::SIGSEGV,
            libc::SIGBUS,
            libc::SIGFPE,
            libc::SIGILL,
            libc::SIGTRAP,
            libc::SIGSYS,
            libc::SIGABRT,
            libc::SIGPROF,
        ];
        let mut mask = MaybeUninit::<libc::sigset_t>::uninit();
        let mut before = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: `sigfillset` initialises the set before the others read it, the signal numbers
        // are valid, and `pthread_sigmask` writes `before`: with SIG_SETMASK it cannot fail.
        unsafe {
            libc::sigfillset(mask.as_mut_ptr());
            for signal in OPEN {
                libc::sigdelset(mask.as_mut_ptr(), signal);
            }
            let failed =
                libc::pthread_sigmask(libc::SIG_SETMASK, mask.as_ptr(), before.as_mut_ptr());
            assert_eq!(failed, 0, "SIG_SETMASK is a way to set a mask");
            Self { before: before.assume_init() }
        }
    }
}

impl Drop for SignalsBlocked {
    fn drop(&mut self) {
        // SAFETY: a mask that `pthread_sigmask` has written; the old one is not asked for.
        unsafe {
            libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, std::ptr::null_mut());
        }
    }
}

/// Why there is no result.
pub(crate) enum Failure {
    /// The work has panicked, with this payload.
    Panicked(Box<dyn Any + Send>),
    /// The pool took no more jobs.
    Refused,
    /// The pool was shut down before the job's turn came.
    Dropped,
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Panicked(_) => "Panicked",
            Self::Refused => "Refused",
            Self::Dropped => "Dropped",
        })
    }
}

/// Where the thread leaves the result and the future finds it.
struct Outcome<R> {
    stage: Mutex<Stage<R>>,
}

enum Stage<R> {
    Waiting(Option<Waker>),
    Settled(Result<R, Failure>),
    /// Nobody waits any more: taken, or the future was dropped.
    Gone,
}

impl<R> Outcome<R> {
    fn lock(&self) -> MutexGuard<'_, Stage<R>> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves the result, unless there is one or nobody waits. Results and wakers are foreign: the
    /// lock is free when they are dropped or woken.
    fn settle(&self, result: Result<R, Failure>) {
        let mut stage = self.lock();
        let Stage::Waiting(waker) = &mut *stage else {
            drop(stage);
            return drop(result);
        };
        let waker = waker.take();
        *stage = Stage::Settled(result);
        drop(stage);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The job's side: a job that is dropped without having run settles too.
struct Promise<R>(Arc<Outcome<R>>);

impl<R> Promise<R> {
    fn is_awaited(&self) -> bool {
        !matches!(*self.0.lock(), Stage::Gone)
    }
}

impl<R> Drop for Promise<R> {
    fn drop(&mut self) {
        self.0.settle(Err(Failure::Dropped));
    }
}

/// The result of work on a pool thread, to be awaited anywhere.
///
/// Dropped before the work has started, it cancels it: the work is dropped when its turn comes.
/// Dropped later, the work goes on and its result is dropped on the pool thread.
#[must_use = "dropping it cancels work that has not started"]
pub(crate) struct Run<R> {
    outcome: Arc<Outcome<R>>,
    /// A paused clock must not jump over work that goes on.
    hold: Option<Hold>,
}

impl<R> Future for Run<R> {
    type Output = Result<R, Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let waker = cx.waker().clone();
        let mut stage = self.outcome.lock();
        if let Stage::Waiting(waiting) = &mut *stage {
            let old = waiting.replace(waker);
            drop(stage);
            drop(old);
            return Poll::Pending;
        }
        let settled = std::mem::replace(&mut *stage, Stage::Gone);
        drop(stage);
        self.hold = None;
        match settled {
            Stage::Settled(result) => Poll::Ready(result),
            _ => panic!("`Run` was polled after it was ready"),
        }
    }
}

impl<R> Drop for Run<R> {
    fn drop(&mut self) {
        let stage = std::mem::replace(&mut *self.outcome.lock(), Stage::Gone);
        drop(stage);
    }
}

impl<R> fmt::Debug for Run<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Run").finish_non_exhaustive()
    }
}

/// Runs `work` on the pool of the current core's runtime; `None` outside a runtime.
pub(crate) fn run<R: Send + 'static>(work: impl FnOnce() -> R + Send + 'static) -> Option<Run<R>> {
    Proactor::with_current(|proactor| proactor.pool().run(work, hold()))
}

/// Keeps a paused clock of the current core from jumping; `None` outside a runtime.
pub(crate) fn hold() -> Option<Hold> {
    Proactor::with_current(|proactor| proactor.clock().hold(proactor.doorbell()))
}
