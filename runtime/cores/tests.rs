//! Several cores: results, messages between them, and how they start, end and fail together.

use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::io::ring::{RingChoice, RingKind};
use crate::runtime::{JoinSet, spawn, spawn_blocking, yield_now};

fn cores(count: usize) -> Builder {
    Runtime::builder().cores(Cores::Count(count))
}

#[test]
fn results_come_in_the_order_of_the_cores() {
    let local = |core: CoreHandle| async move {
        // Neither the future nor its tasks need be `Send`.
        let index = Rc::new(core.index());
        spawn(async move { *index * 10 }).await.unwrap()
    };
    assert_eq!(cores(3).run(local).unwrap(), [0, 10, 20]);
}

#[test]
fn every_core_knows_the_ring() {
    for (choice, kind) in
        [(RingChoice::Auto, None), (RingChoice::Readiness, Some(RingKind::Readiness))]
    {
        let kinds = cores(2).ring(choice).run(|core| async move { core.ring().kind() }).unwrap();
        let expected = kind.unwrap_or_else(|| Runtime::new().unwrap().ring().kind());
        assert_eq!(kinds, [expected; 2]);
    }
}

#[test]
fn every_core_reaches_every_other() {
    let sums = cores(3).run(|core| async move {
        let mut set = JoinSet::new();
        for to in 0..core.count() {
            for _ in 0..100 {
                set.spawn_with(core.handle(to), move || async move {
                    yield_now().await;
                    let name = thread::current().name().map(str::to_owned);
                    assert_eq!(name.as_deref(), Some(&*format!("quoit-core-{to}")));
                    to
                });
            }
        }
        set.join_all().await.into_iter().sum::<usize>()
    });
    assert_eq!(sums.unwrap(), [300; 3]);
}

#[test]
fn threads_are_made_as_they_were_described() {
    /// So much of the stack is in use, with the caller's caller and so on.
    fn deep(left: usize) -> usize {
        let room = std::hint::black_box([left; 1024]);
        if left == 0 { 0 } else { deep(left - 1) + room[0] - left + 1 }
    }
    // Four times what a thread has without being told, and room for what a sanitizer adds.
    let builder = cores(2).thread_name("peg").thread_stack_size(64 << 20);
    let names = builder.run(|core| async move {
        assert_eq!(deep(1000), 1000, "eight MiB on a core");
        let work = spawn_blocking(|| (deep(1000), thread::current().name().map(str::to_owned)));
        let (depth, name) = work.await.unwrap();
        assert_eq!(depth, 1000, "and in the pool");
        assert!(name.is_some_and(|name| name.starts_with("peg-blocking-")));
        (core.index(), thread::current().name().map(str::to_owned))
    });
    for (index, name) in names.unwrap() {
        assert_eq!(name, Some(format!("peg-core-{index}")));
    }
}

#[test]
fn a_core_serves_on_after_its_own_future_has_returned() {
    let results = cores(2).run(|core| async move {
        if core.index() == 0 {
            return 0;
        }
        thread::sleep(Duration::from_millis(30));
        core.spawn_on(0, || async { 7 }).await.unwrap()
    });
    assert_eq!(results.unwrap(), [0, 7]);
}

#[test]
fn a_panic_of_one_core_ends_all_and_comes_out() {
    struct Dropped(Arc<AtomicUsize>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            assert!(Handle::try_current().is_some());
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
    let dropped = Arc::new(AtomicUsize::new(0));
    let inside = dropped.clone();
    let run = move || {
        cores(3).run(move |core| {
            let (root, task) = (Dropped(inside.clone()), Dropped(inside.clone()));
            async move {
                let _root = root;
                drop(spawn(async move {
                    let _task = task;
                    std::future::pending::<()>().await;
                }));
                yield_now().await;
                assert!(core.index() != 1, "core one is lost");
                std::future::pending::<()>().await;
            }
        })
    };
    let payload = panic::catch_unwind(AssertUnwindSafe(run)).map(drop).unwrap_err();
    assert_eq!(*payload.downcast::<&str>().unwrap(), "core one is lost");
    assert_eq!(dropped.load(Ordering::SeqCst), 6);
}

#[test]
fn start_up_failures_name_core_and_cause() {
    let error = cores(0).run(|_| async {}).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    let error = cores(2).build().unwrap_err();
    assert!(error.to_string().contains("Builder::run"), "{error}");
    // What `run` does when one of several cores cannot be built.
    let called = Arc::new(AtomicUsize::new(0));
    let mut starting = Starting::new(3, Location::caller());
    for index in 0..3 {
        let builder = Runtime::builder();
        let (ring, pool) = (prepare(builder.ring).unwrap(), builder.pool());
        let cpu = (index == 1).then_some(1 << 20);
        let called = called.clone();
        let program = move |_| {
            called.fetch_add(1, Ordering::SeqCst);
            async {}
        };
        starting.start(index, Seed { builder, ring, pool, watchdog: None, cpu }, program).unwrap();
    }
    let report = prepare(RingChoice::Auto).unwrap().report().clone();
    let error = starting.all_started(report).map(drop).unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("core 1 could not be started: pinning to CPU 1048576"), "{text}");
    drop(starting);
    assert_eq!(called.load(Ordering::SeqCst), 0, "no program has run");
}

#[test]
fn cores_are_pinned_within_the_affinity_of_the_process() {
    let allowed = system::allowed_cpus().unwrap();
    let count = allowed.len().min(2);
    let run = cores(count).pin(true).run(|_| async {
        let here = system::allowed_cpus().unwrap();
        let pool = spawn_blocking(|| system::allowed_cpus().unwrap()).await.unwrap();
        (here, pool)
    });
    for (index, (here, pool)) in run.unwrap().into_iter().enumerate() {
        assert_eq!(here, [allowed[index]]);
        assert_eq!(pool, allowed, "blocking work does not compete with the core it came from");
    }
    assert!(system::parallelism() <= allowed.len());
    assert_eq!(system::allowed_cpus().unwrap(), allowed, "the caller is not pinned");
}
