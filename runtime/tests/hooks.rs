//! What is called before and after a core sleeps, on both rings.

use std::future::poll_fn;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use super::LONG;
use crate::runtime::{Builder, Handle, Runtime, spawn, time, yield_now};
use crate::{RingChoice, RingKind};

/// The readiness ring, and what else there is.
fn on_each_ring(body: impl Fn(Builder)) {
    body(Runtime::builder().ring(RingChoice::Readiness));
    let best = Runtime::new().unwrap().ring().kind();
    if best == RingKind::Uring {
        body(Runtime::builder().ring(RingChoice::Uring));
    }
}

#[test]
fn each_sleep_has_both() {
    on_each_ring(|builder| {
        let [before, after] = [(); 2].map(|()| Arc::new(AtomicU64::new(0)));
        let (counted, uncounted) = (before.clone(), after.clone());
        let (seen, unseen) = (before.clone(), after.clone());
        let builder = builder.on_thread_park(move || {
            assert_eq!(counted.fetch_add(1, Ordering::Relaxed), unseen.load(Ordering::Relaxed));
            assert!(Handle::try_current().is_some(), "on the core");
        });
        let builder = builder.on_thread_unpark(move || {
            let times = uncounted.fetch_add(1, Ordering::Relaxed) + 1;
            assert_eq!(times, seen.load(Ordering::Relaxed), "each before has its after");
        });
        let runtime = builder.build().unwrap();
        let counts = || [&before, &after].map(|count| count.load(Ordering::Relaxed));
        runtime.block_on(async {
            for _ in 0..500 {
                yield_now().await;
            }
        });
        runtime.turn(Some(Duration::ZERO));
        assert_eq!(counts(), [0; 2], "it had something to do, or was not to wait");
        runtime.block_on(async {
            for _ in 0..3 {
                time::sleep(Duration::from_millis(1)).await;
            }
        });
        assert!(before.load(Ordering::Relaxed) >= 3);
        runtime.turn(Some(Duration::from_millis(1)));
        assert_eq!(counts(), [runtime.metrics().parks; 2]);
    });
}

#[test]
fn what_the_hook_brings_is_done_instead_of_sleeping() {
    on_each_ring(|builder| {
        for spawns in [false, true] {
            let waiter = Arc::new(Mutex::new(None::<Waker>));
            let waits = waiter.clone();
            let builder = builder.clone().on_thread_park(move || {
                let Some(waker) = waiter.lock().unwrap().take() else { return };
                if spawns {
                    drop(spawn(async move { waker.wake() }));
                } else {
                    waker.wake();
                }
            });
            let runtime = builder.build().unwrap();
            runtime.block_on(async {
                let mut polls = 0;
                let woken = poll_fn(|cx| {
                    polls += 1;
                    *waits.lock().unwrap() = Some(cx.waker().clone());
                    if polls == 2 { Poll::Ready(()) } else { Poll::Pending }
                });
                // Without a timer a core that slept would sleep for ever.
                let start = time::Instant::now();
                let _ = time::timeout(LONG, woken).await;
                assert!(start.elapsed() < LONG / 2, "it has slept");
            });
        }
    });
}

#[test]
fn its_panic_comes_out_and_the_runtime_goes_on() {
    on_each_ring(|builder| {
        let builder = builder.on_thread_park(|| panic!("before"));
        let runtime = builder.build().unwrap();
        let held = Rc::new(());
        let sleeping = held.clone();
        let sleep = async move {
            time::sleep(LONG).await;
            drop(sleeping);
        };
        let result = catch_unwind(AssertUnwindSafe(|| runtime.block_on(sleep)));
        let payload = result.unwrap_err();
        assert_eq!(payload.downcast_ref(), Some(&"before"));
        assert_eq!(Rc::strong_count(&held), 1, "the root went with it");
        assert_eq!(runtime.block_on(async { 7 }), 7);
    });
}
