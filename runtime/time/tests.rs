//! The timer futures on bare cores: a proactor each, driven by hand, several on one thread.

use std::cell::Cell;
use std::future::{Future, pending, poll_fn, ready};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use super::*;
use crate::io::buffer::PoolConfig;
use crate::io::pool::Pool;
use crate::io::proactor::{Config, Park};
use crate::io::ring::{RingChoice, prepare};
use crate::io::services::Limits;
use crate::io::system::Threads;

const SECOND: Duration = Duration::from_secs(1);

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

#[derive(Default)]
struct Flag {
    woken: AtomicBool,
    wakes: AtomicUsize,
}

impl Flag {
    fn new() -> (Arc<Self>, Waker) {
        let flag = Arc::<Self>::default();
        (flag.clone(), flag.into())
    }

    fn wakes(&self) -> usize {
        self.wakes.load(Ordering::Relaxed)
    }
}

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.woken.store(true, Ordering::Relaxed);
        self.wakes.fetch_add(1, Ordering::Relaxed);
    }
}

fn config() -> Config {
    Config {
        prepared: prepare(RingChoice::Readiness).expect("readiness is always there"),
        limits: Limits::default(),
        buffers: PoolConfig { count: 4, size: 1024, limit: 4 },
        pool: Pool::new(Threads::default(), 1, SECOND),
    }
}

struct Core(Rc<Proactor>);

impl Core {
    /// A core whose clock stands.
    fn new() -> Self {
        let core = Self(Proactor::new(&config()).expect("a proactor"));
        core.0.clock().pause();
        core
    }

    fn now(&self) -> Instant {
        Instant::from_nanoseconds(self.0.clock().now())
    }

    fn timers(&self) -> usize {
        self.0.with_timers(|timers| timers.len())
    }

    fn enter<R>(&self, f: impl FnOnce() -> R) -> R {
        let _entered = self.0.enter();
        f()
    }

    fn poll<F: Future + Unpin>(&self, future: &mut F, waker: &Waker) -> Poll<F::Output> {
        self.enter(|| Pin::new(future).poll(&mut Context::from_waker(waker)))
    }

    /// One turn that does not wait, at a clock moved by hand.
    fn turn_after(&self, duration: Duration) {
        self.0.clock().advance(duration.as_nanos() as u64);
        self.enter(|| self.0.turn(Park::No, &|| true));
    }

    /// Runs a future to its end; the clock jumps whenever the future waits.
    fn run<F: Future>(&self, future: F) -> F::Output {
        let (flag, waker) = Flag::new();
        let mut future = pin!(future);
        self.enter(|| {
            loop {
                if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(&waker))
                {
                    return output;
                }
                while !flag.woken.swap(false, Ordering::Relaxed) {
                    self.0.turn(Park::Until(None), &|| true);
                }
            }
        })
    }
}

#[test]
fn futures_and_handles_may_cross_threads() {
    fn crosses<T: Send + Sync + Unpin>() {}
    crosses::<Sleep>();
    crosses::<Interval>();
    crosses::<Timeout<std::future::Ready<()>>>();
}

#[test]
fn a_sleep_is_ready_at_its_deadline_and_not_before() {
    let core = Core::new();
    let (flag, waker) = Flag::new();
    let mut sleep = core.enter(|| sleep(ms(1)));
    assert!(core.poll(&mut sleep, &waker).is_pending());
    core.turn_after(ms(1) - Duration::from_nanos(1));
    assert_eq!(flag.wakes(), 0);
    assert!(core.poll(&mut sleep, &waker).is_pending());
    core.turn_after(Duration::from_nanos(1));
    assert_eq!(flag.wakes(), 1);
    assert!(core.poll(&mut sleep, &waker).is_ready());
    assert!(core.poll(&mut sleep, &waker).is_ready(), "and stays so");
    assert_eq!(core.timers(), 0);
}

#[test]
fn zero_and_the_past_are_ready_at_once_and_max_never() {
    let core = Core::new();
    let (flag, waker) = Flag::new();
    let now = core.now();
    for deadline in [now, now - SECOND, now - Duration::MAX] {
        assert!(core.poll(&mut sleep_until(deadline), &waker).is_ready());
    }
    assert!(core.poll(&mut core.enter(|| sleep(Duration::ZERO)), &waker).is_ready());

    let mut never = core.enter(|| sleep(Duration::MAX));
    assert!(core.poll(&mut never, &waker).is_pending());
    core.turn_after(SECOND * 3600 * 24 * 365 * 100);
    assert!(core.poll(&mut never, &waker).is_pending());
    assert_eq!((flag.wakes(), core.timers()), (0, 1));
    core.enter(|| drop(never));
    assert_eq!(core.timers(), 0);
}

#[test]
fn an_idle_core_with_a_paused_clock_jumps_exactly() {
    let core = Core::new();
    core.run(async {
        let start = Instant::now();
        for delay in [SECOND * 3600, ms(1), Duration::from_nanos(1), SECOND * 3600 * 24 * 3650] {
            let before = Instant::now();
            sleep(delay).await;
            assert_eq!(before.elapsed(), delay);
        }
        assert!(start.elapsed() > SECOND * 3600 * 24 * 3650);
    });
}

#[test]
fn only_the_last_waker_is_woken() {
    let core = Core::new();
    let [(first, one), (second, two)] = [Flag::new(), Flag::new()];
    let mut sleep = core.enter(|| sleep(ms(1)));
    for waker in [&one, &two] {
        assert!(core.poll(&mut sleep, waker).is_pending());
    }
    core.turn_after(ms(1));
    assert_eq!((first.wakes(), second.wakes()), (0, 1));
}

#[test]
fn reset_moves_the_deadline_of_a_task_that_waits() {
    let core = Core::new();
    let (flag, waker) = Flag::new();
    let start = core.now();
    let mut sleep = sleep_until(start + SECOND);
    assert!(core.poll(&mut sleep, &waker).is_pending());

    core.enter(|| Pin::new(&mut sleep).reset(start + 2 * SECOND));
    assert_eq!(sleep.deadline(), start + 2 * SECOND);
    core.turn_after(SECOND);
    assert_eq!(flag.wakes(), 0);
    core.enter(|| Pin::new(&mut sleep).reset(start + SECOND + ms(1)));
    core.turn_after(ms(1));
    assert_eq!(flag.wakes(), 1);

    // It has fired, but nobody looked; now it is to wait again.
    core.enter(|| Pin::new(&mut sleep).reset(start + 5 * SECOND));
    assert!(core.poll(&mut sleep, &waker).is_pending());
    core.turn_after(4 * SECOND);
    assert_eq!(flag.wakes(), 2);
    assert!(core.poll(&mut sleep, &waker).is_ready());
    assert_eq!(core.timers(), 0);
}

#[test]
fn a_sleep_that_was_reset_to_the_past_is_ready_at_once() {
    let core = Core::new();
    let (flag, waker) = Flag::new();
    let start = core.now();
    let mut sleep = sleep_until(start + SECOND);
    assert!(core.poll(&mut sleep, &waker).is_pending());
    core.enter(|| Pin::new(&mut sleep).reset(start));
    assert!(core.poll(&mut sleep, &waker).is_ready());
    assert_eq!(core.timers(), 0);

    // Who only waits is still woken, and an earlier reset is forgotten by a later one.
    let mut sleep = sleep_until(start + SECOND);
    assert!(core.poll(&mut sleep, &waker).is_pending());
    core.enter(|| Pin::new(&mut sleep).reset(start));
    core.turn_after(Duration::ZERO);
    assert_eq!(flag.wakes(), 1);
    core.enter(|| Pin::new(&mut sleep).reset(start + SECOND));
    assert!(core.poll(&mut sleep, &waker).is_pending());
    core.turn_after(SECOND);
    assert!(core.poll(&mut sleep, &waker).is_ready());
}

#[test]
fn a_timer_follows_its_future_to_another_core() {
    let [a, b] = [Core::new(), Core::new()];
    let (flag, waker) = Flag::new();
    let mut sleep = sleep_until(a.now().max(b.now()) + SECOND);
    assert!(a.poll(&mut sleep, &waker).is_pending());
    assert!(b.poll(&mut sleep, &waker).is_pending());
    assert_eq!((a.timers(), b.timers()), (1, 1));
    a.turn_after(Duration::ZERO);
    assert_eq!((a.timers(), b.timers()), (0, 1));
    b.turn_after(2 * SECOND);
    assert_eq!(flag.wakes(), 1);
    assert!(b.poll(&mut sleep, &waker).is_ready());
}

#[test]
fn dropping_or_resetting_elsewhere_removes_the_timer() {
    let [a, b] = [Core::new(), Core::new()];
    let (_, waker) = Flag::new();
    let mut sleeps = [1, 2, 3].map(|n| sleep_until(a.now() + n * SECOND));
    for sleep in &mut sleeps {
        assert!(a.poll(sleep, &waker).is_pending());
    }
    let [on_other_core, on_no_core, mut reset] = sleeps;
    b.enter(|| drop(on_other_core));
    std::thread::spawn(|| drop(on_no_core)).join().expect("dropped");
    b.enter(|| Pin::new(&mut reset).reset(a.now() + SECOND));
    a.turn_after(Duration::ZERO);
    assert_eq!(a.timers(), 0);
    assert!(a.poll(&mut reset, &waker).is_pending());
    assert_eq!(a.timers(), 1);
}

#[test]
fn a_timer_outlives_its_core() {
    let (_, waker) = Flag::new();
    let a = Core::new();
    let [mut moves, dropped] = [1, 2].map(|n| {
        let mut sleep = sleep_until(a.now() + n * SECOND);
        assert!(a.poll(&mut sleep, &waker).is_pending());
        sleep
    });
    drop(a);
    drop(dropped);
    let b = Core::new();
    assert!(b.poll(&mut moves, &waker).is_pending());
    b.turn_after(2 * SECOND);
    assert!(b.poll(&mut moves, &waker).is_ready());
}

#[test]
#[should_panic(expected = "polled outside a quoit runtime")]
fn polling_outside_a_runtime_says_so() {
    let _ = pin!(sleep(SECOND)).poll(&mut Context::from_waker(Waker::noop()));
}

/// A waker may own anything, here the last handle of another timer. Its drop must find the wheel
/// free.
struct Owner(#[expect(dead_code, reason = "it is there to be dropped")] Mutex<Option<Sleep>>);

impl Wake for Owner {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn wakers_are_dropped_where_the_wheel_is_free() {
    let core = Core::new();
    let start = core.now();
    let owner = || {
        let mut inner = sleep_until(start + 3600 * SECOND);
        assert!(core.poll(&mut inner, Waker::noop()).is_pending());
        Waker::from(Arc::new(Owner(Mutex::new(Some(inner)))))
    };
    let mut sleep = sleep_until(start + SECOND);
    assert!(core.poll(&mut sleep, &owner()).is_pending());
    assert_eq!(core.timers(), 2);
    assert!(core.poll(&mut sleep, &owner()).is_pending(), "replaced: the first is dropped");
    assert_eq!(core.timers(), 2);
    core.turn_after(SECOND);
    assert_eq!(core.timers(), 0, "fired: the second is dropped");
    let mut sleep = sleep_until(start + 2 * SECOND);
    assert!(core.poll(&mut sleep, &owner()).is_pending());
    core.enter(|| drop(sleep));
    assert_eq!(core.timers(), 0, "removed: the third is dropped");
}

#[test]
fn advance_returns_after_what_it_made_due() {
    let core = Core::new();
    let (flag, waker) = Flag::new();
    let mut sleeps = [5, 10, 11].map(|n| sleep_until(core.now() + n * SECOND));
    for sleep in &mut sleeps {
        assert!(core.poll(sleep, &waker).is_pending());
    }
    let start = core.now();
    core.run(advance(10 * SECOND));
    assert_eq!(core.now(), start + 10 * SECOND);
    assert_eq!(flag.wakes(), 2);
    core.run(advance(Duration::ZERO));
    assert_eq!((core.now(), flag.wakes()), (start + 10 * SECOND, 2));
}

#[test]
fn misuse_of_the_clock_is_told() {
    let core = Core::new();
    let message = |f: &dyn Fn()| {
        let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(f));
        *panic.expect_err("it panics").downcast::<&str>().expect("a message")
    };
    core.enter(|| {
        assert!(message(&|| pause()).contains("stands already"));
        resume();
        assert!(message(&|| resume()).contains("runs"));
        assert!(message(&|| core.run(advance(SECOND))).contains("runs"));
        pause();
    });
    assert!(message(&|| pause()).contains("outside a quoit runtime"));
}

/// Tells when it is dropped.
struct Watched<F>(F, Rc<Cell<bool>>);

impl<F: Future + Unpin> Future for Watched<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl<F> Drop for Watched<F> {
    fn drop(&mut self) {
        self.1.set(true);
    }
}

#[test]
fn a_timeout_drops_its_future_before_it_returns() {
    let core = Core::new();
    let dropped = Rc::new(Cell::new(false));
    core.run(async {
        let mut late = timeout(SECOND, Watched(pending::<()>(), dropped.clone()));
        let start = Instant::now();
        let error = (&mut late).await.expect_err("it never is ready");
        assert_eq!(start.elapsed(), SECOND);
        assert!(dropped.get());
        let error = std::io::Error::from(error);
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
        assert_eq!(error.to_string(), "deadline has elapsed");
    });
    assert_eq!(core.timers(), 0);
}

#[test]
fn a_timeout_asks_once_more_after_expiry() {
    let core = Core::new();
    core.run(async {
        let deadline = Instant::now() + SECOND;
        // Wakes nobody: only the last question finds it ready.
        let quiet = poll_fn(|_| match Instant::now() >= deadline {
            true => Poll::Ready(7),
            false => Poll::Pending,
        });
        assert_eq!(timeout_at(deadline, quiet).await, Ok(7));

        let polls = Cell::new(0);
        let counted = poll_fn(|_| {
            polls.set(polls.get() + 1);
            Poll::<()>::Pending
        });
        assert!(timeout(SECOND, counted).await.is_err());
        // At first, when woken by the timer, and after it.
        assert_eq!(polls.get(), 3);
    });
}

#[test]
fn timeouts_of_no_time_and_of_all_time() {
    let core = Core::new();
    core.run(async {
        assert_eq!(timeout(Duration::ZERO, ready(1)).await, Ok(1));
        assert!(timeout(Duration::ZERO, pending::<()>()).await.is_err());
        assert_eq!(timeout(Duration::MAX, ready(2)).await, Ok(2));
        assert_eq!(timeout(Duration::MAX, sleep(3600 * SECOND)).await, Ok(()));
        assert!(timeout(SECOND, timeout(Duration::MAX, pending::<()>())).await.is_err());
    });
    assert_eq!(core.timers(), 0);
}

#[test]
#[should_panic(expected = "polled after it was ready")]
fn a_timeout_is_ready_once() {
    Core::new().run(async {
        let mut done = timeout(SECOND, ready(()));
        assert_eq!((&mut done).await, Ok(()));
        let _ = (&mut done).await;
    });
}

/// Ticks of 50 ms, and after the tick at 50 a pause of 110; answers when the ticks came and what
/// for.
fn ticks(behavior: MissedTickBehavior) -> Vec<(u64, u64)> {
    Core::new().run(async {
        let start = Instant::now();
        let mut ticks = interval(ms(50));
        ticks.set_missed_tick_behavior(behavior);
        let mut seen = Vec::new();
        for n in 0..7 {
            let due = ticks.tick().await;
            seen.push((start.elapsed().as_millis() as u64, (due - start).as_millis() as u64));
            if n == 1 {
                advance(ms(110)).await;
            }
        }
        seen
    })
}

#[test]
fn missed_ticks_burst_or_delay_or_are_skipped() {
    use MissedTickBehavior::{Burst, Delay, Skip};
    assert_eq!(
        ticks(Burst),
        [(0, 0), (50, 50), (160, 100), (160, 150), (200, 200), (250, 250), (300, 300)]
    );
    assert_eq!(
        ticks(Delay),
        [(0, 0), (50, 50), (160, 100), (210, 210), (260, 260), (310, 310), (360, 360)]
    );
    assert_eq!(
        ticks(Skip),
        [(0, 0), (50, 50), (160, 100), (200, 200), (250, 250), (300, 300), (350, 350)]
    );
}

#[test]
fn a_little_lateness_shifts_nothing() {
    let core = Core::new();
    core.run(async {
        let start = Instant::now();
        let mut ticks = interval(ms(50));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.tick().await;
        advance(ms(55)).await;
        assert_eq!(ticks.tick().await, start + ms(50));
        assert_eq!(ticks.tick().await, start + ms(100));
        advance(ms(56)).await;
        ticks.tick().await;
        assert_eq!(ticks.tick().await, start + ms(206));
    });
}

#[test]
fn a_dropped_tick_is_not_lost_and_reset_starts_anew() {
    let core = Core::new();
    core.run(async {
        let start = Instant::now();
        let mut ticks = interval_at(start + SECOND, 10 * SECOND);
        for _ in 0..3 {
            assert!(timeout(ms(100), ticks.tick()).await.is_err());
        }
        assert_eq!(ticks.tick().await, start + SECOND);
        assert!(timeout(4 * SECOND, ticks.tick()).await.is_err());
        ticks.reset();
        assert_eq!(ticks.tick().await, start + 15 * SECOND);
        ticks.reset_immediately();
        assert_eq!(ticks.tick().await, start + 15 * SECOND);
        ticks.reset_after(ms(1));
        assert_eq!(ticks.tick().await, start + 15 * SECOND + ms(1));
        assert_eq!(ticks.tick().await, start + 25 * SECOND + ms(1));
    });
    assert_eq!(core.timers(), 0);
}

#[test]
#[should_panic(expected = "must not be zero")]
fn an_interval_needs_a_period() {
    let _ = interval(Duration::ZERO);
}
