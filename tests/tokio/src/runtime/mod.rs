//! Runtimes, handles and contexts as tokio has them, over cores, which stay on their thread.
//!
//! ```text
//!   Runtime::block_on   on its home thread: the core itself
//!                       elsewhere: a core of the call's own; what it spawns goes home
//!   Handle::spawn       at home: directly; elsewhere: by mail (quoit's `Handle::spawn_with`)
//! ```
//!
//! A tokio `Runtime` is `Send`; a quoit one is not. So the cores stand in a thread-local, and the
//! runtime of this crate is a number. The thread that builds a runtime is its home.

mod builder;
mod context;
mod handle;
mod local;
mod metrics;

use std::time::Duration;

pub use builder::Builder;
pub use context::{EnterGuard, worker_index};
pub(crate) use context::{current, require_io, require_time};
pub use handle::{Handle, Id, RuntimeFlavor, TryCurrentError};
pub use local::{LocalOptions, LocalRuntime};
pub use metrics::RuntimeMetrics;

use crate::task::JoinHandle;

/// A core at home on the thread that built it, or a memory of it.
#[derive(Debug)]
pub struct Runtime {
    handle: Handle,
}

impl Runtime {
    /// A runtime of the multi-thread flavour, which there is not.
    pub fn new() -> std::io::Result<Self> {
        Builder::new_multi_thread().enable_all().build()
    }

    pub(crate) fn from_handle(handle: Handle) -> Self {
        Self { handle }
    }

    /// The way to it from anywhere.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// See `Handle::spawn`.
    #[track_caller]
    pub fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.handle.spawn(future)
    }

    /// See `Handle::spawn_blocking`.
    #[track_caller]
    pub fn spawn_blocking<F, R>(&self, work: F) -> JoinHandle<R>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        self.handle.spawn_blocking(work)
    }

    /// Runs `future`, and at home every task.
    #[track_caller]
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.handle.block_on(future)
    }

    /// Makes it the current one of this thread.
    pub fn enter(&self) -> EnterGuard<'_> {
        self.handle.enter()
    }

    /// What it has done so far.
    pub fn metrics(&self) -> RuntimeMetrics {
        self.handle.metrics()
    }

    /// Ends it, waiting at most for `limit`.
    pub fn shutdown_timeout(self, limit: Duration) {
        self.handle.shutdown(Some(limit));
    }

    /// Ends it without waiting.
    pub fn shutdown_background(self) {
        self.shutdown_timeout(Duration::ZERO);
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        self.handle.shutdown(None);
    }
}

/// Whether `error` says that the runtime which served the resource is gone.
pub fn is_rt_shutdown_err(error: &std::io::Error) -> bool {
    let text = error.get_ref().map(|inner| inner.to_string()).unwrap_or_default();
    error.kind() == std::io::ErrorKind::NotConnected
        && (text.ends_with("is shut down") || text.ends_with("which is gone"))
}
