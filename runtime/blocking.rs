//! Blocking work beside the core: a task that awaits a thread.

use std::future::pending;
use std::panic::resume_unwind;

use crate::io::pool::{self, Failure, QUEUE_LIMIT, Run};
use crate::runtime::join::JoinHandle;
use crate::runtime::spawn::spawn;

/// Runs `work`, which may block, on a thread of the runtime's pool.
///
/// The work starts as soon as a thread is free, whether or not the handle is awaited. Threads
/// start when they are needed, up to the builder's `max_blocking_threads`, and end after ten idle
/// seconds; signals are blocked on them. While work is awaited, a [paused](crate::time::pause)
/// clock does not jump.
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
    match pool::run(work) {
        Some(run) => spawn(finish(run)),
        None => panic!("spawn_blocking was called outside a quoit runtime"),
    }
}

async fn finish<R>(run: Run<R>) -> R {
    match run.await {
        Ok(result) => result,
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
    use std::sync::mpsc::channel;
    use std::thread::ThreadId;
    use std::time::Duration;

    use super::*;
    use crate::block_on;
    use crate::time;

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
            let work = spawn_blocking(move || {
                waiting.send(()).expect("the other thread waits");
                may_go.recv().is_ok()
            });
            let done = time::timeout(Duration::from_secs(3600), work).await;
            assert!(done.expect("the clock stood still").expect("it ran"));
            let start = time::Instant::now();
            time::sleep(Duration::from_secs(3600)).await;
            assert_eq!(start.elapsed(), Duration::from_secs(3600), "now it may jump again");
        });
        other.join().expect("it has ended");
    }

    #[test]
    #[should_panic(expected = "outside a quoit runtime")]
    fn outside_a_runtime_it_says_so() {
        drop(spawn_blocking(|| ()));
    }
}
