//! Blocking work beside the core: a task that awaits a thread.

use std::future::pending;
use std::panic::{Location, resume_unwind};

use crate::io::pool::{self, Failure, Pool, QUEUE_LIMIT, Run};
use crate::io::proactor::Proactor;
use crate::runtime::id::{self, Running};
use crate::runtime::inbox::SharedInbox;
use crate::runtime::join::JoinHandle;
use crate::runtime::tasks::{self, Tasks};
use crate::runtime::traced::Label;

/// Runs `work`, which may block, on a thread of the runtime's pool.
///
/// The work starts as soon as a thread is free, whether or not the handle is awaited. Threads start
/// when they are needed, up to the builder's `max_blocking_threads`, and end when they have been
/// idle for its `thread_keep_alive`; signals are blocked on them. While work is awaited, a
/// [paused](crate::time::pause) clock does not jump. The work sees the id of its task in
/// [`try_id`](crate::task::try_id).
///
/// From other threads, and while the core stands still, it is
/// [`Handle::spawn_blocking`](crate::Handle::spawn_blocking) or
/// [`Runtime::spawn_blocking`](crate::Runtime::spawn_blocking).
///
/// The handle is that of a task on this core. [`abort`](JoinHandle::abort) cancels work that has
/// not started; work that has started goes on, and its result is dropped. Dropping the handle
/// detaches the work. When the runtime is shut down, it waits for running work until its
/// deadline, and drops what has not started.
///
/// This is for calls that wait (a file system, a database library) and for short computations.
/// Computations that take all cores for long belong on a thread pool of their own.
///
/// # Errors
///
/// The handle answers with an error if the work panicked, with its payload; if it was aborted;
/// or, as a panic of the task, if the pool takes no more: 65,536 jobs wait already, or the
/// machine could not start the first thread.
///
/// # Panics
///
/// Outside a runtime.
///
/// # Examples
///
/// ```
/// quoit::block_on(async {
///     let sum = quoit::task::spawn_blocking(|| (1..=1_000_u64).sum::<u64>());
///     assert_eq!(sum.await.unwrap(), 500_500);
/// });
/// ```
#[track_caller]
pub fn spawn_blocking<F, R>(work: F) -> JoinHandle<R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    let location = Location::caller();
    let here = tasks::with_current(|tasks| {
        let label = Label::blocking(location);
        Proactor::with_current(|proactor| spawn_here(tasks, proactor.pool(), work, label))
    });
    match here.flatten() {
        Some(handle) => handle,
        None => panic!("spawn_blocking was called outside a quoit runtime"),
    }
}

/// `spawn_blocking` on the thread of a core, which need not be the current one.
pub(crate) fn spawn_here<F, R>(
    tasks: &Tasks,
    pool: &Pool,
    work: F,
    label: Label<'_>,
) -> JoinHandle<R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    let id = tasks.next_id();
    tasks.spawn_as(id, finish(start(pool, id, work)), label)
}

/// `spawn_blocking` from any thread.
pub(crate) fn spawn_there<F, R>(
    inbox: &SharedInbox,
    pool: &Pool,
    work: F,
    location: &'static Location<'static>,
) -> JoinHandle<R>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    let id = id::reserve(1);
    let run = start(pool, id, work);
    tasks::send_as(id, inbox, move || finish(run), Label::blocking(location))
}

/// Sends work to the pool, where it runs as the task of that id, although none polls it there.
fn start<F, R>(pool: &Pool, id: u64, work: F) -> Run<Belonging<R>>
where
    F: FnOnce() -> R + Send + 'static,
    R: Send + 'static,
{
    let work = Belonging { id, value: Some(work) };
    let work = move || {
        let _running = Running::enter(id);
        Belonging { id, value: Some(work.take()()) }
    };
    pool.run(work, None)
}

/// What the pool has of a task: work that has not started, or a result on its way. Who drops it,
/// because nobody waits any more, does so as that task.
struct Belonging<T> {
    id: u64,
    value: Option<T>,
}

impl<T> Belonging<T> {
    fn take(mut self) -> T {
        self.value.take().expect("taking consumes it")
    }
}

impl<T> Drop for Belonging<T> {
    fn drop(&mut self) {
        let _running = Running::enter(self.id);
        drop(self.value.take());
    }
}

async fn finish<R>(run: Run<Belonging<R>>) -> R {
    // Not sooner: until its first poll the task is ready or in the mail, and a core that has
    // something to do does not let its clock jump either.
    let _hold = pool::hold();
    match run.await {
        Ok(result) => result.take(),
        // The task panics as the work did, without telling it to the panic hook a second time.
        Err(Failure::Panicked(payload)) => resume_unwind(payload),
        Err(Failure::Refused) => panic!(
            "blocking work was refused: {QUEUE_LIMIT} jobs wait already, no thread could be \
             started, or the runtime is shutting down"
        ),
        // The runtime shuts down, and will drop this task: its handle then says so.
        Err(Failure::Dropped) => pending().await,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::RecvTimeoutError::Disconnected;
    use std::sync::mpsc::channel;
    use std::thread::ThreadId;
    use std::time::Duration;

    use super::*;
    use crate::runtime::{Handle, Runtime, block_on, try_id};
    use crate::time;

    const LONG: Duration = Duration::from_secs(20);

    #[test]
    fn work_runs_elsewhere_and_its_result_comes_back() {
        let here = std::thread::current().id();
        let there: ThreadId =
            block_on(async { spawn_blocking(|| std::thread::current().id()).await })
                .expect("it ran");
        assert_ne!(here, there);
    }

    #[test]
    fn a_panic_is_delivered_by_the_handle() {
        let error =
            block_on(async { spawn_blocking(|| -> () { std::panic::panic_any(42_i32) }).await });
        let payload = error.expect_err("it panicked").into_panic();
        assert_eq!(payload.downcast_ref(), Some(&42));
    }

    #[test]
    fn a_paused_clock_waits_for_blocking_work() {
        clock_waits_for(|work| spawn_blocking(work));
        clock_waits_for(|work| {
            let handle = Handle::current();
            std::thread::spawn(move || handle.spawn_blocking(work)).join().expect("it is sent")
        });
    }

    type Work = Box<dyn FnOnce() -> bool + Send>;

    fn clock_waits_for(start: impl FnOnce(Work) -> JoinHandle<bool>) {
        let (go, may_go) = channel();
        let (waiting, is_waiting) = channel();
        let other = std::thread::spawn(move || {
            is_waiting.recv().expect("the work runs");
            // Long enough for a core that does not care to jump; too short only fails to catch it.
            std::thread::sleep(Duration::from_millis(20));
            go.send(()).expect("the work waits");
        });
        block_on(async move {
            time::pause();
            let work = start(Box::new(move || {
                waiting.send(()).expect("the other thread waits");
                may_go.recv().is_ok()
            }));
            let done = time::timeout(Duration::from_secs(3600), work).await;
            assert!(done.expect("the clock stood still").expect("it ran"));
            let start = time::Instant::now();
            time::sleep(Duration::from_secs(3600)).await;
            assert_eq!(start.elapsed(), Duration::from_secs(3600), "now it may jump again");
        });
        other.join().expect("it has ended");
    }

    #[test]
    fn it_starts_while_the_core_stands_still() {
        let runtime = Runtime::new().expect("a runtime");
        let (started, has_started) = channel();
        let ours = started.clone();
        let here = runtime.spawn_blocking(move || ours.send(try_id()).is_ok());
        assert_eq!(has_started.recv_timeout(LONG), Ok(Some(here.id())), "it runs as its task");
        let handle = runtime.handle();
        let there = std::thread::spawn(move || {
            let task = handle.spawn_blocking(move || started.send(try_id()).is_ok());
            assert_eq!(has_started.recv_timeout(LONG), Ok(Some(task.id())));
            task
        });
        let there = there.join().expect("it was started");
        assert!(!there.is_finished(), "its task has had no turn");
        runtime.block_on(async {
            assert!(here.await.expect("it ran") && there.await.expect("it ran"));
        });
        assert_eq!(runtime.metrics().tasks_spawned, 2);
    }

    #[test]
    fn a_thread_stays_as_long_as_it_was_told() {
        let thread = |keep: Duration| {
            let runtime = Runtime::builder().thread_keep_alive(keep).build().expect("a runtime");
            move || {
                let work = runtime.spawn_blocking(|| std::thread::current().id());
                runtime.block_on(work).expect("it ran")
            }
        };
        let stays = thread(LONG);
        let first = stays();
        // Too short only fails to catch a thread that goes.
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(stays(), first);
        let goes = thread(Duration::ZERO);
        let first = goes();
        let mut again = (0..2_000).map(|_| {
            std::thread::sleep(Duration::from_millis(10));
            goes()
        });
        assert!(again.any(|thread| thread != first), "it was to go at once");
    }

    #[test]
    fn a_core_that_has_ended_takes_no_work() {
        let runtime = Runtime::new().expect("a runtime");
        let handle = runtime.handle();
        drop(runtime);
        let (run, has_run) = channel();
        let task = handle.spawn_blocking(move || run.send(()));
        assert!(block_on(task).expect_err("nothing ran").is_cancelled());
        assert!(has_run.recv_timeout(LONG) == Err(Disconnected), "it was dropped");
    }

    #[test]
    fn aborted_before_a_thread_is_free_it_does_not_run() {
        let runtime = Runtime::builder().max_blocking_threads(1).build().expect("a runtime");
        let (go, may_go) = channel::<()>();
        let first = runtime.spawn_blocking(move || may_go.recv().is_err());
        let (run, has_run) = channel();
        let second = runtime.handle().spawn_blocking(move || run.send(()));
        second.abort();
        let cancelled = runtime.block_on(second);
        assert!(cancelled.expect_err("it was aborted").is_cancelled());
        drop(go);
        assert!(runtime.block_on(first).expect("it ran"));
        assert!(has_run.recv_timeout(LONG) == Err(Disconnected), "it was dropped");
        assert!(runtime.shutdown(LONG).is_clean());
    }

    #[test]
    #[should_panic(expected = "outside a quoit runtime")]
    fn outside_a_runtime_it_says_so() {
        drop(spawn_blocking(|| ()));
    }
}
