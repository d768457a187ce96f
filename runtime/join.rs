//! The right to a task's outcome: `JoinHandle`, and `AbortHandle`, the right to end it early.
//!
//! ```text
//!   poll:  complete? ──yes──► take the outcome
//!          ├─no, on its core ──► put our waker into the core's slot
//!          └─no, elsewhere ──► put it into the shared slot ──► publish ──complete by then──► take
//!   drop:  not complete: take our waker back, detach; the core will drop the outcome
//!          complete: drop the outcome here
//! ```

use std::any::Any;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::runtime::id::TaskId;
use crate::runtime::task::{Failure, Header, Outcome, RawTask, Reference};
use crate::runtime::tasks::{self, Tasks};

/// The right to a task's result, and to abort it.
///
/// Awaiting it gives what the task's future gave, or a [`JoinError`] if the task was aborted or
/// panicked. Dropping it detaches the task, which goes on running; its result is then dropped on
/// its core. A `JoinHandle<T>` is `Send` if `T` is: it may be awaited on another core, on another
/// runtime, or with a foreign executor.
///
/// # Cancel safety
///
/// Awaiting `&mut handle` is cancel safe: the result stays with the task until a poll returns it.
///
/// # Panics
///
/// When it is polled again after it gave its result.
///
/// # Examples
///
/// ```
/// quoit::block_on(async {
///     let task = quoit::spawn(async { 6 * 7 });
///     assert_eq!(task.await.unwrap(), 42);
/// });
/// ```
pub struct JoinHandle<T> {
    task: RawTask,
    output: PhantomData<T>,
}

// SAFETY: rule 4 of `task`: what a handle on another thread takes or drops is a `T: Send`. All else
// that it touches is rules 1, 2 and 5, the last of which needs only that there is one handle.
unsafe impl<T: Send> Send for JoinHandle<T> {}
// SAFETY: `&JoinHandle` gives access to rules 1 and 2 only.
unsafe impl<T: Send> Sync for JoinHandle<T> {}

impl<T> Unpin for JoinHandle<T> {}
impl<T> UnwindSafe for JoinHandle<T> {}
impl<T> RefUnwindSafe for JoinHandle<T> {}

impl<T> JoinHandle<T> {
    /// # Safety
    ///
    /// The caller hands over the task's reference for its one handle, and `T` is its output.
    pub(crate) unsafe fn new(task: RawTask) -> Self {
        Self { task, output: PhantomData }
    }

    fn header(&self) -> &Header {
        // SAFETY: the handle's reference.
        unsafe { self.task.header() }
    }

    /// Asks the task to end: its future is dropped, on its core, when its turn comes next.
    ///
    /// A task that has finished by then is not affected. Otherwise the handle answers with a
    /// [`JoinError`] whose [`is_cancelled`](JoinError::is_cancelled) is true. May be called from
    /// any thread.
    ///
    /// ```
    /// quoit::block_on(async {
    ///     let task = quoit::spawn(std::future::pending::<()>());
    ///     task.abort();
    ///     assert!(task.await.unwrap_err().is_cancelled());
    /// });
    /// ```
    pub fn abort(&self) {
        // SAFETY: the handle's reference.
        unsafe { tasks::abort(self.task) };
    }

    /// A handle that can abort the task and nothing else; any number may exist, anywhere.
    pub fn abort_handle(&self) -> AbortHandle {
        AbortHandle { task: self.reference() }
    }

    /// Whether the result is there, so that awaiting would not wait.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.header().state.is_complete()
    }

    /// The task's id.
    #[must_use]
    pub fn id(&self) -> TaskId {
        TaskId(self.header().id)
    }

    fn reference(&self) -> Reference {
        self.header().state.add_reference();
        // SAFETY: the one just added.
        unsafe { Reference::from_raw(self.task) }
    }

    /// Has this waker woken when the task ends. False: it has ended.
    pub(crate) fn is_awaited_by(&mut self, waker: &Waker) -> bool {
        !self.is_finished() && self.register(waker)
    }

    /// Leaves our waker with the task. False: it is complete, and nobody will be woken.
    #[inline]
    fn register(&self, waker: &Waker) -> bool {
        let header = self.header();
        let here = tasks::on_core(header.inbox.as_ptr(), |_| {
            // SAFETY: rule 3: the core is current. Nothing can complete the task meanwhile.
            unsafe {
                if !header.has_local_joiner(waker) {
                    let waker = waker.clone();
                    drop(header.replace_local_joiner(Some(waker)));
                }
            }
        });
        here.is_some() || self.register_elsewhere(waker)
    }

    fn register_elsewhere(&self, waker: &Waker) -> bool {
        let Header { state, joiner, .. } = self.header();
        if state.has_joiner() {
            // SAFETY: rule 5: JOINER is set and we are the handle, so nobody writes now.
            let known = joiner
                .with(|slot| unsafe { &*slot }.as_ref().is_some_and(|old| old.will_wake(waker)));
            if known {
                return true;
            }
            if !state.retract_joiner() {
                return false;
            }
        }
        let waker = waker.clone();
        // SAFETY: rule 5: JOINER is clear, so the slot is the handle's.
        let old = joiner.with_mut(|slot| unsafe { &mut *slot }.replace(waker));
        drop(old);
        state.publish_joiner()
    }
}

impl<T> Future for JoinHandle<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        if self.is_awaited_by(context.waker()) {
            return Poll::Pending;
        }
        // SAFETY: complete, and this is the one handle; `take` refuses a second time.
        let outcome: Outcome<T> = unsafe { self.task.take() };
        Poll::Ready(outcome.map_err(|failure| JoinError::new(self.id(), failure)))
    }
}

impl<T> Drop for JoinHandle<T> {
    fn drop(&mut self) {
        let header = self.header();
        let Header { state, joiner, .. } = header;
        // Our waker would keep our own task alive until this one ends. (Left with the core by a
        // handle that then went elsewhere, it does.)
        // SAFETY: rule 3: the core is current.
        let take = |_: &Tasks| drop(unsafe { header.replace_local_joiner(None) });
        tasks::on_core(header.inbox.as_ptr(), take);
        if state.has_joiner() && state.retract_joiner() {
            // SAFETY: rule 5: JOINER is clear, so the slot is the handle's.
            drop(joiner.with_mut(|slot| unsafe { &mut *slot }.take()));
        }
        if !state.detach() {
            // SAFETY: rule 4: complete, and the one handle did not detach. Then our reference ends.
            unsafe {
                self.task.drop_outcome();
                self.task.release();
            }
        }
    }
}

impl<T> fmt::Debug for JoinHandle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(self.header(), f.debug_struct("JoinHandle"))
    }
}

/// The right to end a task early, from any thread.
///
/// It keeps a small cell of memory, not the task's future or result. See
/// [`JoinHandle::abort_handle`].
///
/// ```
/// quoit::block_on(async {
///     let task = quoit::spawn(std::future::pending::<()>());
///     let abort = task.abort_handle();
///     std::thread::spawn(move || abort.abort()).join().unwrap();
///     assert!(task.await.unwrap_err().is_cancelled());
/// });
/// ```
#[derive(Clone)]
pub struct AbortHandle {
    task: Reference,
}

impl AbortHandle {
    /// As [`JoinHandle::abort`].
    pub fn abort(&self) {
        // SAFETY: our reference.
        unsafe { tasks::abort(self.task.raw()) };
    }

    /// Whether the task has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.task.header().state.is_complete()
    }

    /// The task's id.
    #[must_use]
    pub fn id(&self) -> TaskId {
        TaskId(self.task.header().id)
    }
}

impl fmt::Debug for AbortHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        debug(self.task.header(), f.debug_struct("AbortHandle"))
    }
}

fn debug(header: &Header, mut f: fmt::DebugStruct<'_, '_>) -> fmt::Result {
    f.field("id", &header.id)
        .field("spawned_at", &format_args!("{}", header.location))
        .field("finished", &header.state.is_complete())
        .finish()
}

/// Why a task gave no result: it was aborted (or its core ended), or it panicked.
///
/// ```
/// quoit::block_on(async {
///     let error = quoit::spawn(async { panic!("lost") }).await.map(|()| ()).unwrap_err();
///     assert!(error.is_panic());
///     assert_eq!(*error.into_panic().downcast::<&str>().unwrap(), "lost");
/// });
/// ```
pub struct JoinError {
    id: TaskId,
    /// In a mutex only because an error must be `Sync`, which a panic's payload is not.
    panic: Option<Mutex<Box<dyn Any + Send>>>,
}

impl JoinError {
    pub(crate) fn new(id: TaskId, failure: Failure) -> Self {
        let panic = match failure {
            Failure::Cancelled => None,
            Failure::Panicked(payload) => Some(Mutex::new(payload)),
        };
        Self { id, panic }
    }

    /// The task was aborted, or its core ended before it did.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.panic.is_none()
    }

    /// The task panicked.
    #[must_use]
    pub fn is_panic(&self) -> bool {
        self.panic.is_some()
    }

    /// What the task panicked with, for [`std::panic::resume_unwind`].
    ///
    /// # Panics
    ///
    /// When the task did not panic.
    #[must_use]
    #[track_caller]
    pub fn into_panic(self) -> Box<dyn Any + Send> {
        self.try_into_panic().expect("the task did not panic")
    }

    /// What the task panicked with.
    ///
    /// # Errors
    ///
    /// The error itself, when the task did not panic.
    pub fn try_into_panic(self) -> Result<Box<dyn Any + Send>, Self> {
        match self.panic {
            Some(payload) => Ok(payload.into_inner().unwrap_or_else(PoisonError::into_inner)),
            None => Err(self),
        }
    }

    /// The id of the task.
    #[must_use]
    pub fn id(&self) -> TaskId {
        self.id
    }

    /// The message of the panic, if there is one that is a text.
    fn with_message<R>(&self, tell: impl FnOnce(Option<&str>) -> R) -> R {
        let Some(payload) = &self.panic else { return tell(None) };
        let payload = payload.lock().unwrap_or_else(PoisonError::into_inner);
        tell(match payload.downcast_ref::<&'static str>() {
            Some(message) => Some(message),
            None => payload.downcast_ref::<String>().map(String::as_str),
        })
    }
}

// The words are tokio's, so that whoever looks for them in a log finds them.

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_cancelled() {
            return write!(f, "task {} was cancelled", self.id);
        }
        self.with_message(|message| match message {
            Some(message) => write!(f, "task {} panicked with message {message:?}", self.id),
            None => write!(f, "task {} panicked", self.id),
        })
    }
}

impl fmt::Debug for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_cancelled() {
            return write!(f, "JoinError::Cancelled(Id({}))", self.id);
        }
        self.with_message(|message| match message {
            Some(message) => write!(f, "JoinError::Panic(Id({}), {message:?}, ...)", self.id),
            None => write!(f, "JoinError::Panic(Id({}), ...)", self.id),
        })
    }
}

impl std::error::Error for JoinError {}

impl From<JoinError> for io::Error {
    fn from(error: JoinError) -> Self {
        Self::other(error)
    }
}
