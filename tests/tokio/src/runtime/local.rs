//! A runtime that does not leave its thread: what a quoit runtime is anyway.

use std::io;
use std::marker::PhantomData;

use super::{Builder, EnterGuard, Handle, Runtime};
use crate::task::JoinHandle;

/// There is nothing to choose.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct LocalOptions {
    thread: PhantomData<*const ()>,
}

/// A runtime whose tasks need not be `Send`.
#[derive(Debug)]
pub struct LocalRuntime {
    runtime: Runtime,
    thread: PhantomData<*const ()>,
}

impl LocalRuntime {
    /// A runtime with the default choices.
    pub fn new() -> io::Result<Self> {
        Builder::new_current_thread().enable_all().build_local(LocalOptions::default())
    }

    pub(super) fn from_runtime(runtime: Runtime) -> Self {
        Self { runtime, thread: PhantomData }
    }

    /// The way to it from anywhere.
    pub fn handle(&self) -> &Handle {
        self.runtime.handle()
    }

    /// Starts a task.
    #[track_caller]
    pub fn spawn_local<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + 'static,
        F::Output: 'static,
    {
        self.handle().spawn_local(future)
    }

    /// Runs `future` and every task.
    #[track_caller]
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.runtime.block_on(future)
    }

    /// Makes it the current one of this thread.
    pub fn enter(&self) -> EnterGuard<'_> {
        self.runtime.enter()
    }
}
