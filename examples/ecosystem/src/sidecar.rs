//! A tokio runtime in a thread of its own, for crates that cannot be without one.
//!
//! ```text
//!   core                                              tokio's thread
//!     run(future) ── a place among `at_once` ── spawn ──► the future, its sockets, its timers
//!        │ dropped ─────────────────────────── abort ──►  dropped there
//!        ◄────────────────── its output, or its panic ──  ended
//! ```
//!
//! Two ways to use it:
//!
//! * [`run`](Sidecar::run) sends the whole future there, and one wake comes back. Take this one: it
//!   costs the same however much the future does, and the crate sees nothing but tokio.
//! * [`enter`](Sidecar::enter) leaves the future here, polled by your task with tokio's context
//!   around it. It need not be `Send` and may borrow. But each time that tokio has something for
//!   it, that is a wake across threads, and a poll.

use std::error::Error;
use std::fmt;
use std::io;
use std::panic::resume_unwind;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use quoit::time::timeout;
use tokio::runtime::{Builder, Handle};
use tokio::sync::{Semaphore, oneshot};
use tokio_util::context::TokioContext;
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

/// A way to the thread, for any core and any number of tasks. The thread ends with the last clone,
/// or by [`shutdown`](Self::shutdown).
#[derive(Clone, Debug)]
pub struct Sidecar(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    tokio: Handle,
    /// Closed: nothing new is taken on.
    places: Arc<Semaphore>,
    calls: TaskTracker,
    /// None: it was told to end.
    thread: Mutex<Option<Thread>>,
}

#[derive(Debug)]
struct Thread {
    /// Dropped, too, it tells the thread to end.
    _stop: oneshot::Sender<()>,
    /// Closed when it has.
    ended: oneshot::Receiver<()>,
}

/// The sidecar has ended, or is about to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gone;

impl fmt::Display for Gone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the sidecar was shut down")
    }
}

impl Error for Gone {}

impl Sidecar {
    /// Starts the thread. At most `at_once` calls run at a time; further ones wait.
    ///
    /// # Errors
    ///
    /// When there is no thread to be had, or tokio cannot build its runtime.
    pub fn start(at_once: usize) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let tokio = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let (alive, ended) = oneshot::channel();
        thread::Builder::new().name("sidecar".to_owned()).spawn(move || {
            let _alive: oneshot::Sender<()> = alive;
            // An error says that the other end is gone: that is how it is told.
            let _ = runtime.block_on(stopped);
            // Drops what is left, here.
            drop(runtime);
        })?;
        Ok(Self(Arc::new(Shared {
            tokio,
            places: Arc::new(Semaphore::new(at_once)),
            calls: TaskTracker::new(),
            thread: Mutex::new(Some(Thread { _stop: stop, ended })),
        })))
    }

    /// Runs a future on tokio's thread.
    ///
    /// One that waits for something which itself has to `run` may wait for ever: all places may be
    /// taken by those who wait. Give the two a sidecar each.
    ///
    /// # Errors
    ///
    /// [`Gone`] if the sidecar has ended before the future.
    ///
    /// # Panics
    ///
    /// When the future does, with what it has panicked with.
    ///
    /// # Cancel safety
    ///
    /// Dropped, the future is dropped on tokio's thread, at its next await; its place is free when
    /// that has happened.
    pub async fn run<F>(&self, future: F) -> Result<F::Output, Gone>
    where
        F: Future<Output: Send + 'static> + Send + 'static,
    {
        let place = self.0.places.clone().acquire_owned().await.map_err(|_| Gone)?;
        let call = self.0.calls.track_future(async move {
            let _place = place;
            future.await
        });
        match AbortOnDropHandle::new(self.0.tokio.spawn(call)).await {
            Ok(output) => Ok(output),
            Err(error) => match error.try_into_panic() {
                Ok(panic) => resume_unwind(panic),
                Err(_) => Err(Gone),
            },
        }
    }

    /// A future that is polled here, with tokio's context around each poll. None of the limits of
    /// `run` are on it, and a shutdown does not wait for it.
    ///
    /// # Panics
    ///
    /// Polled after the end of the sidecar, what needs tokio's sockets or timers panics, as it does
    /// without tokio.
    pub fn enter<F: Future>(&self, future: F) -> TokioContext<F> {
        TokioContext::new(future, self.0.tokio.clone())
    }

    /// Ends the sidecar: takes nothing on, waits for what runs, for so long at most, drops the
    /// rest, and waits for the thread. Answers how many calls were cut off.
    ///
    /// # Cancel safety
    ///
    /// Dropped while it waits for calls, nothing new is taken on, and the thread goes on.
    pub async fn shutdown(&self, limit: Duration) -> usize {
        let Shared { places, calls, thread, .. } = &*self.0;
        places.close();
        calls.close();
        let cut = match timeout(limit, calls.wait()).await {
            Ok(()) => 0,
            Err(_) => calls.len(),
        };
        let thread = thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(Thread { _stop, ended }) = thread {
            drop(_stop);
            // The error says that it has.
            let _ = ended.await;
        }
        cut
    }
}
