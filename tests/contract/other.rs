//! Where else a body does things, on every ring: on another core, and where no core is.
//!
//! ```text
//!   ring         another core                       where no core is
//!   real         a thread with a runtime            a thread
//!   simulated    a further core of the same host    the driver's own turn
//! ```
//!
//! What a body has on its own core (peers, tasks aside) is elsewhere for the other one, and stays
//! when that ends.

use std::future::Future;
use std::time::Duration;
use std::{panic, thread};

use futures::channel::oneshot;
use quoit::__private::{FurtherCore, books_here, is_simulated, outside_of_cores};
use quoit::task::JoinHandle;
use quoit::{Builder, Handle, Metrics, Report, time};

/// How a core is to end.
pub(crate) enum End {
    Shutdown(Duration),
    Drop,
}

/// A core besides the one that a body runs on. It has to be ended.
pub(crate) enum Other {
    Thread { handle: Handle, end: oneshot::Sender<End>, thread: thread::JoinHandle<Report> },
    Simulated(FurtherCore),
}

impl Other {
    pub(crate) async fn start(builder: Builder) -> Self {
        if is_simulated() {
            return Self::Simulated(FurtherCore::start(builder).await);
        }
        let (tell, started) = oneshot::channel();
        let (end, ended) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = builder.build().expect("this ring was usable just before");
            tell.send(runtime.handle()).expect("somebody waits for it");
            match runtime.block_on(ended) {
                Ok(End::Shutdown(deadline)) => runtime.shutdown(deadline),
                _ => Report::default(),
            }
        });
        let handle = started.await.expect("a runtime was built");
        Self::Thread { handle, end, thread }
    }

    fn handle(&self) -> &Handle {
        match self {
            Self::Thread { handle, .. } => handle,
            Self::Simulated(core) => core.handle(),
        }
    }

    /// Has something run over there, in a task.
    pub(crate) fn spawn<F>(
        &self,
        body: impl FnOnce() -> F + Send + 'static,
    ) -> JoinHandle<F::Output>
    where
        F: Future<Output: Send + 'static> + 'static,
    {
        self.handle().spawn_with(body)
    }

    /// The same, and waits for it.
    pub(crate) async fn run<F>(&self, body: impl FnOnce() -> F + Send + 'static) -> F::Output
    where
        F: Future<Output: Send + 'static> + 'static,
    {
        match self.spawn(body).await {
            Ok(output) => output,
            Err(error) => panic::resume_unwind(error.into_panic()),
        }
    }

    pub(crate) async fn metrics(&self) -> Metrics {
        self.run(|| async { books_here() }).await
    }

    /// As a runtime is shut down.
    pub(crate) async fn end(self, deadline: Duration) -> Report {
        match self {
            Self::Thread { end, thread, .. } => {
                assert!(end.send(End::Shutdown(deadline)).is_ok(), "it waits for that");
                join(thread).await
            }
            Self::Simulated(core) => core.end(deadline).await,
        }
    }

    /// As a runtime is dropped, which shuts it down with 5 s.
    pub(crate) async fn drop(self) {
        match self {
            Self::Thread { end, thread, .. } => {
                assert!(end.send(End::Drop).is_ok(), "it waits for that");
                join(thread).await;
            }
            Self::Simulated(core) => {
                core.end(Duration::from_secs(5)).await;
            }
        }
    }
}

async fn join(thread: thread::JoinHandle<Report>) -> Report {
    // Its deadline is the caller's, and a child has a watchdog: no patience of our own.
    while !thread.is_finished() {
        time::sleep(Duration::from_micros(200)).await;
    }
    thread.join().expect("no panic")
}

/// Does something where no core is, while this core stands still.
pub(crate) fn outside<R: Send>(work: impl FnOnce() -> R + Send) -> R {
    let work = || {
        assert_eq!(quoit::task::try_id(), None, "no task runs there");
        work()
    };
    if is_simulated() {
        outside_of_cores(work)
    } else {
        thread::scope(|scope| scope.spawn(work).join().expect("no panic"))
    }
}
