//! tokio's `JoinSet` over quoit's.

use std::task::{Context, Poll};

use super::{AbortHandle, JoinError, JoinHandle, LocalSet};
use crate::runtime::Handle;

/// Tasks that are joined in the order in which they end.
#[derive(Debug)]
pub struct JoinSet<T> {
    tasks: quoit::task::JoinSet<T>,
}

impl<T> JoinSet<T> {
    /// No tasks.
    pub fn new() -> Self {
        Self { tasks: quoit::task::JoinSet::new() }
    }

    /// How many tasks it has.
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// Aborts all.
    pub fn abort_all(&mut self) {
        self.tasks.abort_all();
    }

    /// Lets all go.
    pub fn detach_all(&mut self) {
        self.tasks.detach_all();
    }
}

impl<T: 'static> JoinSet<T> {
    fn insert(&mut self, task: JoinHandle<T>) -> AbortHandle {
        match task {
            JoinHandle::Core(task) => AbortHandle::Core(self.tasks.insert(task)),
            JoinHandle::Set(_) => panic!("a set of quoit's has tasks of quoit's"),
        }
    }

    /// Starts a task on the current runtime.
    #[track_caller]
    pub fn spawn<F>(&mut self, future: F) -> AbortHandle
    where
        F: Future<Output = T> + Send + 'static,
        T: Send,
    {
        self.insert(super::spawn(future))
    }

    /// Starts a task on another runtime.
    #[track_caller]
    pub fn spawn_on<F>(&mut self, future: F, handle: &Handle) -> AbortHandle
    where
        F: Future<Output = T> + Send + 'static,
        T: Send,
    {
        self.insert(handle.spawn(future))
    }

    /// Starts a task that stays here; as every task of a core does. Where tokio would refuse it,
    /// the real `spawn_local` refuses a task that does nothing.
    #[track_caller]
    pub fn spawn_local<F: Future<Output = T> + 'static>(&mut self, future: F) -> AbortHandle {
        let task = super::spawn_on_local_runtime(future).unwrap_or_else(|future| {
            drop(tokio_real::task::spawn_local(async {}));
            quoit::spawn(future).into()
        });
        self.insert(task)
    }

    /// As `spawn_local`, from inside a core only: the local set takes no part in it.
    #[track_caller]
    pub fn spawn_local_on<F: Future<Output = T> + 'static>(
        &mut self,
        future: F,
        _set: &LocalSet,
    ) -> AbortHandle {
        self.insert(quoit::spawn(future).into())
    }

    /// Runs blocking work.
    #[track_caller]
    pub fn spawn_blocking<F>(&mut self, work: F) -> AbortHandle
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send,
    {
        self.insert(super::spawn_blocking(work))
    }

    /// Runs blocking work on another runtime's pool.
    #[track_caller]
    pub fn spawn_blocking_on<F>(&mut self, work: F, handle: &Handle) -> AbortHandle
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send,
    {
        self.insert(handle.spawn_blocking(work))
    }

    /// The next one that has ended.
    pub async fn join_next(&mut self) -> Option<Result<T, JoinError>> {
        Some(self.tasks.join_next().await?.map_err(JoinError::Core))
    }

    /// One that has ended, if there is one.
    pub fn try_join_next(&mut self) -> Option<Result<T, JoinError>> {
        Some(self.tasks.try_join_next()?.map_err(JoinError::Core))
    }

    /// The poll form of `join_next`.
    pub fn poll_join_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<T, JoinError>>> {
        self.tasks.poll_join_next(cx).map(|next| next.map(|next| next.map_err(JoinError::Core)))
    }

    /// The results of all.
    pub async fn join_all(self) -> Vec<T> {
        self.tasks.join_all().await
    }

    /// Aborts all and waits for their ends.
    pub async fn shutdown(&mut self) {
        self.tasks.shutdown().await;
    }
}

impl<T> Default for JoinSet<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, F> Extend<F> for JoinSet<T>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    fn extend<I: IntoIterator<Item = F>>(&mut self, futures: I) {
        futures.into_iter().for_each(|future| drop(self.spawn(future)));
    }
}

impl<T, F> FromIterator<F> for JoinSet<T>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    fn from_iter<I: IntoIterator<Item = F>>(futures: I) -> Self {
        let mut set = Self::new();
        set.extend(futures);
        set
    }
}
