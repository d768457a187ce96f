//! Tasks with names.

use std::io;
use std::panic::Location;

use crate::io::proactor::Proactor;
use crate::runtime::blocking::spawn_here;
use crate::runtime::handle::Handle;
use crate::runtime::join::JoinHandle;
use crate::runtime::tasks;
use crate::runtime::traced::Label;

/// Gives a task a name before it is spawned: tokio-console and other subscribers of `tracing` show
/// it. Without the feature `tracing` nobody does.
///
/// The shape is that of tokio's builder, so what it answers is a `Result`, which is never an error.
///
/// ```
/// quoit::block_on(async {
///     let task = quoit::task::Builder::new().name("the answer").spawn(async { 42 })?;
///     assert_eq!(task.await.unwrap(), 42);
///     std::io::Result::Ok(())
/// })
/// # .unwrap();
/// ```
#[derive(Clone, Copy, Debug, Default)]
#[must_use = "a builder does nothing before it spawns"]
pub struct TaskBuilder<'a> {
    name: Option<&'a str>,
}

impl<'a> TaskBuilder<'a> {
    /// A task without a name, so far.
    pub fn new() -> Self {
        Self::default()
    }

    /// The name. Several tasks may have the same.
    pub fn name(self, name: &'a str) -> Self {
        Self { name: Some(name) }
    }

    /// As [`task::spawn`](crate::task::spawn).
    ///
    /// # Errors
    ///
    /// None.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    #[track_caller]
    pub fn spawn<F: Future + 'static>(self, future: F) -> io::Result<JoinHandle<F::Output>> {
        let label = Label::task(Location::caller()).named(self.name);
        match tasks::with_current(|tasks| tasks.spawn_as(tasks.next_id(), future, label)) {
            Some(handle) => Ok(handle),
            None => panic!("a task was spawned outside a quoit runtime; use `spawn_on`"),
        }
    }

    /// As [`Handle::spawn`].
    ///
    /// # Errors
    ///
    /// None: a core that has ended cancels the task, as its handle then says.
    #[track_caller]
    pub fn spawn_on<F>(self, future: F, handle: &Handle) -> io::Result<JoinHandle<F::Output>>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let label = Label::task(Location::caller()).named(self.name);
        Ok(tasks::send(handle.inbox(), move || future, label))
    }

    /// As [`task::spawn_blocking`](crate::task::spawn_blocking).
    ///
    /// # Errors
    ///
    /// None: work that is refused panics, as its handle then says.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    #[track_caller]
    pub fn spawn_blocking<F, R>(self, work: F) -> io::Result<JoinHandle<R>>
    where
        F: FnOnce() -> R + Send + 'static,
        R: Send + 'static,
    {
        let label = Label::blocking(Location::caller()).named(self.name);
        let here = tasks::with_current(|tasks| {
            Proactor::with_current(|proactor| spawn_here(tasks, proactor.pool(), work, label))
        });
        match here.flatten() {
            Some(handle) => Ok(handle),
            None => panic!("spawn_blocking was called outside a quoit runtime"),
        }
    }
}
