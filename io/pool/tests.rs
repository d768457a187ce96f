//! The pool: limits, panics, shutdown. Threads meet at channels and barriers, never at times of
//! day.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::task::Wake;

use super::*;

const LONG: Duration = Duration::from_secs(60);

/// The end of a wait that must not take long; none of these tests comes near it.
fn far() -> u64 {
    system::now() + LONG.as_nanos() as u64
}

/// Polls a future on this thread until it is ready.
fn wait<F: Future + Unpin>(mut future: F) -> F::Output {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        match Pin::new(&mut future).poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(output) => return output,
            Poll::Pending => std::thread::park(),
        }
    }
}

/// A job that tells that it runs, and then waits for leave to end.
fn gate(pool: &Pool) -> (Receiver<()>, Sender<()>) {
    let ((started, has_started), (leave, may_leave)) = (channel(), channel::<()>());
    let job = Box::new(move || {
        started.send(()).expect("the test waits");
        let _ = may_leave.recv();
    });
    assert!(pool.submit(job).is_ok());
    (has_started, leave)
}

#[test]
fn as_many_threads_as_jobs_up_to_the_limit() {
    let pool = Pool::new(Threads::default(), 3, LONG);
    let gates = [gate(&pool), gate(&pool), gate(&pool)];
    for (started, _) in &gates {
        started.recv().expect("three run at once");
    }
    let (fourth_started, fourth_leave) = gate(&pool);
    {
        let state = pool.shared.lock();
        assert_eq!((state.threads, state.idle, state.queue.len()), (3, 0, 1));
    }
    assert!(fourth_started.try_recv().is_err());
    let [(_, first_leave), ..] = &gates;
    first_leave.send(()).expect("it waits");
    fourth_started.recv().expect("it runs on the thread that was freed");
    drop((gates, fourth_leave));
    assert_eq!(pool.shutdown(far()), 0);
    assert_eq!(pool.shared.lock().threads, 0);
}

#[test]
fn an_idle_thread_is_used_again_and_ends_in_time() {
    let pool = Pool::new(Threads::default(), 8, LONG);
    for _ in 0..100 {
        let (started, leave) = gate(&pool);
        started.recv().expect("it runs");
        drop(leave);
        while pool.shared.lock().idle == 0 {
            std::thread::yield_now();
        }
    }
    assert_eq!(pool.shared.lock().threads_ever, 1);

    let hasty = Pool::new(Threads::default(), 8, Duration::ZERO);
    assert_eq!(wait(hasty.run(|| 1, None)).expect("it ran"), 1);
    while hasty.shared.lock().threads > 0 {
        std::thread::yield_now();
    }
    assert_eq!(wait(hasty.run(|| 2, None)).expect("it ran"), 2);
}

#[test]
fn a_full_queue_hands_the_job_back() {
    let pool = Pool::with_queue(1, 2, LONG);
    let (started, leave) = gate(&pool);
    started.recv().expect("it runs");
    let ran = Arc::new(AtomicUsize::new(0));
    let count = || -> Job {
        let ran = ran.clone();
        Box::new(move || {
            ran.fetch_add(1, Ordering::Relaxed);
        })
    };
    assert!(pool.submit(count()).is_ok());
    assert!(pool.submit(count()).is_ok());
    let back = pool.submit(count()).expect_err("there is no room");
    assert!(matches!(wait(pool.run(|| (), None)), Err(Failure::Refused)));
    drop(leave);
    while ran.load(Ordering::Relaxed) < 2 {
        std::thread::yield_now();
    }
    assert!(pool.submit(back).is_ok());
    while ran.load(Ordering::Relaxed) < 3 {
        std::thread::yield_now();
    }
}

#[test]
fn a_panic_goes_to_its_waiter_and_the_thread_goes_on() {
    let pool = Pool::new(Threads::default(), 1, LONG);
    let failure = wait(pool.run(|| -> u8 { std::panic::panic_any(7_u64) }, None));
    let Err(Failure::Panicked(payload)) = failure else { panic!("{failure:?}") };
    assert_eq!(payload.downcast_ref(), Some(&7_u64));

    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("a payload that panics when it is dropped");
        }
    }
    assert!(pool.submit(Box::new(|| std::panic::panic_any(Bomb))).is_ok());
    let name = wait(pool.run(|| std::thread::current().name().map(str::to_owned), None));
    assert_eq!(name.expect("it ran").as_deref(), Some("quoit-blocking-0"));
    assert_eq!(pool.shared.lock().threads_ever, 1);
}

#[test]
fn dropping_the_future_cancels_what_has_not_started() {
    let pool = Pool::new(Threads::default(), 1, LONG);
    let (started, leave) = gate(&pool);
    started.recv().expect("it runs");
    let owned = Arc::new(());
    let kept = owned.clone();
    let run = pool.run(move || panic!("cancelled, but ran with {kept:?}"), None);
    drop::<Run<()>>(run);
    drop(leave);
    wait(pool.run(|| (), None)).expect("it ran, after the one that was cancelled");
    assert_eq!(Arc::strong_count(&owned), 1);
}

#[test]
fn the_result_of_an_abandoned_run_is_dropped_once() {
    let pool = Pool::new(Threads::default(), 1, LONG);
    let (started, has_started) = channel();
    let (leave, may_leave) = channel::<()>();
    let owned = Arc::new(());
    let result = owned.clone();
    let work = move || {
        started.send(()).expect("the test waits");
        let _ = may_leave.recv();
        result
    };
    let run = pool.run(work, None);
    has_started.recv().expect("it runs");
    drop(run);
    drop(leave);
    assert_eq!(pool.shutdown(far()), 0);
    assert_eq!(Arc::strong_count(&owned), 1);
}

#[test]
fn shutdown_drops_the_queue_and_counts_what_still_runs() {
    let pool = Pool::new(Threads::default(), 1, LONG);
    let (started, leave) = gate(&pool);
    started.recv().expect("it runs");
    let owned = Arc::new(());
    let kept = owned.clone();
    let waiting = pool.run(move || drop(kept), None);
    assert_eq!(pool.shutdown(system::now()), 1);
    assert!(matches!(wait(waiting), Err(Failure::Dropped)));
    assert_eq!(Arc::strong_count(&owned), 1);
    assert!(pool.submit(Box::new(|| ())).is_err());
    drop(leave);
    assert_eq!(pool.shutdown(far()), 0);
}

#[test]
fn a_queued_job_may_panic_when_it_is_dropped() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("a job that panics when it is dropped");
        }
    }
    let pool = Pool::new(Threads::default(), 1, LONG);
    let (started, leave) = gate(&pool);
    started.recv().expect("it runs");
    let bomb = Bomb;
    assert!(pool.submit(Box::new(move || std::mem::forget(bomb))).is_ok());
    assert_eq!(pool.shutdown(0), 1);
    drop(leave);
}

#[test]
fn a_dropped_pool_lets_its_threads_end() {
    let pool = Pool::new(Threads::default(), 2, LONG);
    wait(pool.run(|| (), None)).expect("it ran");
    let shared = pool.shared.clone();
    drop(pool);
    while shared.lock().threads > 0 {
        std::thread::yield_now();
    }
}

/// Bit `n - 1` is signal `n`.
fn blocked_signals() -> u64 {
    let status =
        std::fs::read_to_string("/proc/thread-self/status").expect("the status of a thread");
    let mask = status.lines().find_map(|line| line.strip_prefix("SigBlk:")).expect("a mask");
    u64::from_str_radix(mask.trim(), 16).expect("a number")
}

#[test]
fn threads_get_no_signals_and_ours_stay_as_they_were() {
    let before = blocked_signals();
    let pool = Pool::new(Threads::default(), 1, LONG);
    let there = wait(pool.run(blocked_signals, None)).expect("it ran");
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGCHLD, libc::SIGUSR1] {
        assert_ne!(there & (1 << (signal - 1)), 0, "signal {signal} is blocked");
    }
    for signal in [libc::SIGSEGV, libc::SIGBUS, libc::SIGPROF] {
        assert_eq!(there & (1 << (signal - 1)), 0, "signal {signal} is open");
    }
    assert_eq!(blocked_signals(), before);
}
