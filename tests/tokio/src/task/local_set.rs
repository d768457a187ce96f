//! The real `LocalSet`: an executor that runs inside any other, here inside a task of quoit's.
//!
//! A program for quoit has no use for it, as no task ever leaves its core. Programs that bring it
//! along find that it works.

use std::pin::Pin;
use std::task::{Context, Poll};

use tokio_real::task as set;

use super::JoinHandle;
use crate::runtime::Runtime;

/// Tasks that run while the set is polled.
#[derive(Debug, Default)]
pub struct LocalSet {
    set: set::LocalSet,
}

/// While it lives, `spawn_local` means that set.
#[derive(Debug)]
pub struct LocalEnterGuard {
    _guard: set::LocalEnterGuard,
}

impl LocalSet {
    /// No tasks.
    pub fn new() -> Self {
        Self { set: set::LocalSet::new() }
    }

    /// Makes it the one that `spawn_local` means.
    pub fn enter(&self) -> LocalEnterGuard {
        LocalEnterGuard { _guard: self.set.enter() }
    }

    /// Adds a task.
    #[track_caller]
    pub fn spawn_local<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        JoinHandle::Set(self.set.spawn_local(future))
    }

    /// Runs `future` on a runtime, and the set's tasks besides.
    #[track_caller]
    pub fn block_on<F: Future>(&self, runtime: &Runtime, future: F) -> F::Output {
        runtime.block_on(self.set.run_until(future))
    }

    /// Runs the set's tasks until `future` is ready.
    pub async fn run_until<F: Future>(&self, future: F) -> F::Output {
        self.set.run_until(future).await
    }
}

impl Future for LocalSet {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.set).poll(cx)
    }
}

/// Adds a task to the current local set or runtime.
#[track_caller]
pub fn spawn_local<F>(future: F) -> JoinHandle<F::Output>
where
    F: Future + 'static,
    F::Output: 'static,
{
    match super::spawn_on_local_runtime(future) {
        Ok(task) => task,
        Err(future) => JoinHandle::Set(set::spawn_local(future)),
    }
}
