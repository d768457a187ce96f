//! A set of tasks, joined in the order in which they end.
//!
//! ```text
//!   spawn ──► its handle learns the waker of its slot
//!   task ends ── that waker ──► queue of slots to look at ──► wakes join_next
//! ```
//!
//! So `join_next` looks only at handles that have something to say, however many the set holds. The
//! queue holds an entry per task that ended and has not been looked at, or two if its handle was
//! awaited on another core. Slots are used again, and so are their wakers: a set in steady state
//! allocates only its tasks.

#[cfg(test)]
mod tests;

use std::fmt;
use std::future::poll_fn;
use std::panic::{Location, resume_unwind};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use crossbeam_queue::SegQueue;

use crate::runtime::blocking::spawn_blocking;
use crate::runtime::handle::Handle;
use crate::runtime::id::TaskId;
use crate::runtime::join::{AbortHandle, JoinError, JoinHandle};
use crate::runtime::spawn::spawn_at;

/// A set of tasks that give the same type. Dropping it aborts them.
///
/// The tasks run whether or not the set is polled. Like a [`JoinHandle`], it is `Send` if `T` is.
///
/// # Examples
///
/// ```
/// use quoit::task::JoinSet;
///
/// quoit::block_on(async {
///     let mut set = JoinSet::new();
///     for number in 0..5 {
///         set.spawn(async move { number * number });
///     }
///     let mut squares = Vec::new();
///     while let Some(square) = set.join_next().await {
///         squares.push(square.unwrap());
///     }
///     squares.sort();
///     assert_eq!(squares, [0, 1, 4, 9, 16]);
/// });
/// ```
pub struct JoinSet<T> {
    slots: Vec<Slot<T>>,
    free: Vec<usize>,
    news: Arc<News>,
}

struct Slot<T> {
    handle: Option<JoinHandle<T>>,
    waker: Waker,
}

/// Which slots to look at, and who waits for that.
struct News {
    slots: SegQueue<usize>,
    waiter: Mutex<Option<Waker>>,
}

struct SlotWaker {
    news: Arc<News>,
    slot: usize,
}

impl Wake for SlotWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.news.tell(self.slot);
    }
}

impl News {
    /// There is something to see in a slot.
    fn tell(&self, slot: usize) {
        self.slots.push(slot);
        let waiter = self.waiter.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waiter) = waiter {
            waiter.wake();
        }
    }
}

impl<T> JoinSet<T> {
    /// An empty set.
    #[must_use]
    pub fn new() -> Self {
        let news = News { slots: SegQueue::new(), waiter: Mutex::new(None) };
        Self { slots: Vec::new(), free: Vec::new(), news: Arc::new(news) }
    }

    /// How many tasks are in the set, those included that have ended and were not joined.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Whether no task is in the set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Starts a task on the current core, as [`spawn`](crate::spawn), and puts it into the set.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    ///
    /// # Examples
    ///
    /// See [`JoinSet`].
    #[track_caller]
    pub fn spawn<F>(&mut self, future: F) -> AbortHandle
    where
        F: Future<Output = T> + 'static,
    {
        self.insert(spawn_at(future, Location::caller()))
    }

    /// Starts a task on another core, as [`Handle::spawn_with`], and puts it into the set.
    ///
    /// ```
    /// use quoit::task::JoinSet;
    ///
    /// let runtime = quoit::Runtime::new()?;
    /// let mut set = JoinSet::new();
    /// set.spawn_with(&runtime.handle(), || async { 7 });
    /// assert_eq!(runtime.block_on(set.join_next()).unwrap().unwrap(), 7);
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn spawn_with<C, F>(&mut self, core: &Handle, start: C) -> AbortHandle
    where
        C: FnOnce() -> F + Send + 'static,
        F: Future<Output = T> + 'static,
        T: Send + 'static,
    {
        self.insert(core.spawn_with(start))
    }

    /// Starts a task on another core, as [`Handle::spawn`], and puts it into the set.
    ///
    /// ```
    /// let runtime = quoit::Runtime::new()?;
    /// let mut set = quoit::task::JoinSet::new();
    /// set.spawn_on(async { 7 }, &runtime.handle());
    /// assert_eq!(runtime.block_on(set.join_next()).unwrap().unwrap(), 7);
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn spawn_on<F>(&mut self, future: F, core: &Handle) -> AbortHandle
    where
        F: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        self.insert(core.spawn(future))
    }

    /// Runs work that may block on a thread of the pool, as
    /// [`spawn_blocking`](crate::task::spawn_blocking), and puts its task into the set.
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    ///
    /// ```
    /// quoit::block_on(async {
    ///     let mut set = quoit::task::JoinSet::new();
    ///     set.spawn_blocking(|| 2 + 2);
    ///     assert_eq!(set.join_next().await.unwrap().unwrap(), 4);
    /// });
    /// ```
    #[track_caller]
    pub fn spawn_blocking<F>(&mut self, work: F) -> AbortHandle
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.insert(spawn_blocking(work))
    }

    /// The same for the pool of another core, as [`Handle::spawn_blocking`].
    ///
    /// ```
    /// let runtime = quoit::Runtime::new()?;
    /// let mut set = quoit::task::JoinSet::new();
    /// set.spawn_blocking_on(|| 2 + 2, &runtime.handle());
    /// assert_eq!(runtime.block_on(set.join_all()), [4]);
    /// # std::io::Result::Ok(())
    /// ```
    #[track_caller]
    pub fn spawn_blocking_on<F>(&mut self, work: F, core: &Handle) -> AbortHandle
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        self.insert(core.spawn_blocking(work))
    }

    /// Puts a task into the set that was started otherwise.
    ///
    /// ```
    /// use quoit::task::JoinSet;
    ///
    /// quoit::block_on(async {
    ///     let mut set = JoinSet::new();
    ///     set.insert(quoit::spawn(async { 1 }));
    ///     assert_eq!(set.join_next().await.unwrap().unwrap(), 1);
    /// });
    /// ```
    pub fn insert(&mut self, handle: JoinHandle<T>) -> AbortHandle {
        let abort = handle.abort_handle();
        let index = match self.free.pop() {
            Some(index) => {
                self.slots[index].handle = Some(handle);
                index
            }
            None => {
                let slot = self.slots.len();
                let waker = Arc::new(SlotWaker { news: self.news.clone(), slot }).into();
                self.slots.push(Slot { handle: Some(handle), waker });
                slot
            }
        };
        let Slot { handle, waker } = &mut self.slots[index];
        let is_awaited = handle.as_mut().is_some_and(|handle| handle.is_awaited_by(waker));
        if !is_awaited {
            self.news.tell(index);
        }
        abort
    }

    /// Waits until a task ends, takes it out of the set and gives its result; `None` when the set
    /// is empty.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: a task leaves the set only when this returns its result.
    ///
    /// # Examples
    ///
    /// See [`JoinSet`].
    pub async fn join_next(&mut self) -> Option<Result<T, JoinError>> {
        poll_fn(|context| self.poll_join_next(context)).await
    }

    /// [`join_next`](Self::join_next), with the id of the task. That of a task which gave no result
    /// is in its [`JoinError`].
    ///
    /// # Cancel safety
    ///
    /// As [`join_next`](Self::join_next).
    ///
    /// # Examples
    ///
    /// ```
    /// quoit::block_on(async {
    ///     let mut set = quoit::task::JoinSet::new();
    ///     let task = set.spawn(async { 7 });
    ///     assert_eq!(set.join_next_with_id().await.unwrap().unwrap(), (task.id(), 7));
    /// });
    /// ```
    pub async fn join_next_with_id(&mut self) -> Option<Result<(TaskId, T), JoinError>> {
        poll_fn(|context| self.poll_next(context)).await
    }

    /// The result of a task that has ended already, if there is one; its task leaves the set.
    ///
    /// ```
    /// use quoit::task::{JoinSet, yield_now};
    ///
    /// quoit::block_on(async {
    ///     let mut set = JoinSet::new();
    ///     set.spawn(async { 3 });
    ///     assert!(set.try_join_next().is_none());
    ///     yield_now().await;
    ///     assert_eq!(set.try_join_next().unwrap().unwrap(), 3);
    /// });
    /// ```
    pub fn try_join_next(&mut self) -> Option<Result<T, JoinError>> {
        without_id(self.try_join_next_with_id())
    }

    /// [`try_join_next`](Self::try_join_next), with the id of the task.
    pub fn try_join_next_with_id(&mut self) -> Option<Result<(TaskId, T), JoinError>> {
        while let Some(index) = self.news.slots.pop() {
            if let Poll::Ready(result) = self.look(index) {
                return Some(result);
            }
        }
        None
    }

    /// [`join_next`](Self::join_next) for those who write futures by hand. When it is pending, the
    /// waker of the last call is woken as soon as a task has ended.
    pub fn poll_join_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<T, JoinError>>> {
        self.poll_next(context).map(without_id)
    }

    fn poll_next(
        &mut self,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<(TaskId, T), JoinError>>> {
        if self.is_empty() {
            return Poll::Ready(None);
        }
        // Asked first, so that whoever got its answer leaves no waker behind.
        if let Some(result) = self.try_join_next_with_id() {
            return Poll::Ready(Some(result));
        }
        self.wait(context.waker());
        // Again, since a task that ended meanwhile found no waker.
        match self.try_join_next_with_id() {
            Some(result) => Poll::Ready(Some(result)),
            None => Poll::Pending,
        }
    }

    /// Waits for all tasks and gives their results, in the order in which they ended.
    ///
    /// # Panics
    ///
    /// With the panic of a task, and when a task was cancelled; the remaining tasks are aborted
    /// then.
    ///
    /// # Cancel safety
    ///
    /// Not cancel safe: it owns the set, so dropping it aborts the tasks and drops the results so
    /// far.
    ///
    /// # Examples
    ///
    /// ```
    /// quoit::block_on(async {
    ///     let mut set = quoit::task::JoinSet::new();
    ///     set.spawn(async { 1 });
    ///     set.spawn(async { 2 });
    ///     assert_eq!(set.join_all().await.iter().sum::<i32>(), 3);
    /// });
    /// ```
    pub async fn join_all(mut self) -> Vec<T> {
        let mut results = Vec::with_capacity(self.len());
        while let Some(result) = self.join_next().await {
            match result.map_err(JoinError::try_into_panic) {
                Ok(result) => results.push(result),
                Err(Ok(payload)) => resume_unwind(payload),
                Err(Err(cancelled)) => panic!("{cancelled}"),
            }
        }
        results
    }

    /// Asks every task to end, as [`JoinHandle::abort`]. They stay in the set until they are
    /// joined.
    ///
    /// ```
    /// quoit::block_on(async {
    ///     let mut set = quoit::task::JoinSet::new();
    ///     set.spawn(std::future::pending::<()>());
    ///     set.abort_all();
    ///     assert!(set.join_next().await.unwrap().unwrap_err().is_cancelled());
    /// });
    /// ```
    pub fn abort_all(&mut self) {
        self.handles().for_each(JoinHandle::abort);
    }

    /// Aborts every task and waits until all have ended. Their results are dropped.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: the tasks are aborted in any case; what had not ended stays in the set.
    pub async fn shutdown(&mut self) {
        self.abort_all();
        while self.join_next().await.is_some() {}
    }

    /// Takes all tasks out of the set and lets them run on.
    pub fn detach_all(&mut self) {
        self.slots.clear();
        self.free.clear();
        // Wakers of the slots that went may still ring: they must not be taken for new ones.
        *self = Self::new();
    }

    fn handles(&self) -> impl Iterator<Item = &JoinHandle<T>> {
        self.slots.iter().filter_map(|slot| slot.handle.as_ref())
    }

    /// Polls the handle of a slot; ready, it leaves the set.
    fn look(&mut self, index: usize) -> Poll<Result<(TaskId, T), JoinError>> {
        let slot = &mut self.slots[index];
        let Some(handle) = &mut slot.handle else { return Poll::Pending };
        let id = handle.id();
        let polled = Pin::new(handle).poll(&mut Context::from_waker(&slot.waker));
        if polled.is_ready() {
            slot.handle = None;
            self.free.push(index);
        }
        polled.map_ok(|output| (id, output))
    }

    fn wait(&self, waker: &Waker) {
        let waiter = || self.news.waiter.lock().unwrap_or_else(PoisonError::into_inner);
        if waiter().as_ref().is_some_and(|old| old.will_wake(waker)) {
            return;
        }
        // Foreign code: neither copied nor dropped under the lock.
        let waker = waker.clone();
        let old = waiter().replace(waker);
        drop(old);
    }
}

fn without_id<T>(next: Option<Result<(TaskId, T), JoinError>>) -> Option<Result<T, JoinError>> {
    next.map(|result| result.map(|(_, output)| output))
}

impl<T: 'static, F: Future<Output = T> + 'static> Extend<F> for JoinSet<T> {
    /// Starts a task for each future, as [`spawn`](JoinSet::spawn).
    ///
    /// # Panics
    ///
    /// Outside a runtime.
    #[track_caller]
    fn extend<I: IntoIterator<Item = F>>(&mut self, futures: I) {
        let location = Location::caller();
        futures.into_iter().for_each(|future| drop(self.insert(spawn_at(future, location))));
    }
}

impl<T: 'static, F: Future<Output = T> + 'static> FromIterator<F> for JoinSet<T> {
    /// Starts a task for each future, as [`spawn`](JoinSet::spawn).
    ///
    /// ```
    /// use quoit::task::JoinSet;
    ///
    /// quoit::block_on(async {
    ///     let set: JoinSet<_> = (0..5).map(|number| async move { number * number }).collect();
    ///     assert_eq!(set.join_all().await.iter().sum::<i32>(), 30);
    /// });
    /// ```
    #[track_caller]
    fn from_iter<I: IntoIterator<Item = F>>(futures: I) -> Self {
        let mut set = Self::new();
        set.extend(futures);
        set
    }
}

impl<T> Default for JoinSet<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Drop for JoinSet<T> {
    fn drop(&mut self) {
        self.abort_all();
    }
}

impl<T> fmt::Debug for JoinSet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JoinSet").field("len", &self.len()).finish_non_exhaustive()
    }
}
