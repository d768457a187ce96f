//! Stalls are found while they go on and told with where they come from; everything else is not.

use std::fs;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::runtime::metrics::books_here;
use crate::runtime::{Builder, Cores, Runtime, spawn, yield_now};
use crate::time;
use crate::{RingChoice, RingKind};

const LIMIT: Duration = Duration::from_millis(20);

/// Long enough for a report on a busy machine.
const LONG: Duration = Duration::from_secs(20);

/// The readiness ring, and what else there is.
fn on_each_ring(body: impl Fn(Builder)) {
    body(Runtime::builder().ring(RingChoice::Readiness));
    let best = Runtime::new().expect("a runtime").ring().kind();
    if best == RingKind::Uring {
        body(Runtime::builder().ring(RingChoice::Uring));
    }
}

/// What was reported so far.
#[derive(Clone, Default)]
struct Reports(Arc<Mutex<Vec<Stall>>>);

impl Reports {
    fn of(builder: Builder) -> (Builder, Self) {
        let reports = Self::default();
        let into = reports.clone();
        let action = move |stall: &Stall| into.0.lock().expect("whole").push(stall.clone());
        (builder.stall_limit(LIMIT).on_stall(action), reports)
    }

    fn all(&self) -> Vec<Stall> {
        self.0.lock().expect("whole").clone()
    }

    /// Blocks until there is such a report.
    fn wait_for(&self, is_it: impl Fn(&Stall) -> bool) -> Stall {
        let start = Instant::now();
        loop {
            if let Some(stall) = self.all().into_iter().find(|stall| is_it(stall)) {
                return stall;
            }
            assert!(start.elapsed() < LONG, "no such report: {:#?}", self.all());
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn is_going(stall: &Stall) -> bool {
        stall.state() == StallState::Going
    }

    fn is_over(stall: &Stall) -> bool {
        stall.state() == StallState::Over
    }
}

/// The names of this process's threads that run for a runtime of this name.
fn threads_named(prefix: &str) -> Vec<String> {
    let tasks = fs::read_dir("/proc/self/task").expect("the kernel tells");
    let names = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.map(|name| name.trim().to_owned()).filter(|name| name.starts_with(prefix)).collect()
}

#[test]
fn a_task_that_sleeps_in_its_poll_is_reported_while_it_does() {
    on_each_ring(|builder| {
        let (builder, reports) = Reports::of(builder);
        let runtime = builder.build().expect("a runtime");
        let seen = reports.clone();
        let sleeper = async move {
            let start = Instant::now();
            while !seen.all().iter().any(Reports::is_going) && start.elapsed() < LONG {
                thread::sleep(Duration::from_millis(5));
            }
        };
        let line = line!() + 1;
        let task = runtime.spawn(sleeper);
        let id = task.id();
        runtime.block_on(task).expect("it does not panic");
        let first = reports.all()[0].clone();
        assert_eq!(first.state(), StallState::Going, "it went on when it was reported");
        assert_eq!((first.location().file(), first.location().line()), (file!(), line));
        assert_eq!((first.task(), first.core()), (Some(id), runtime.metrics().core));
        assert!(first.elapsed() >= LIMIT && first.limit() == LIMIT);
        assert_eq!(first.thread(), thread::current().name().unwrap_or_default());
        let over = reports.wait_for(Reports::is_over);
        assert!(over.elapsed() >= first.elapsed() && over.task() == Some(id));
        assert_eq!(runtime.metrics().stalls, 1);
        let text = format!("core {} ", first.core());
        assert!(first.to_string().starts_with(&text), "{first}");
        let text = format!("is stalled: task {id}, spawned at {}:{line}:", file!());
        assert!(first.to_string().contains(&text), "{first}");
        assert!(over.to_string().contains("goes on: task"), "{over}");
    });
}

#[inline(never)]
fn count_for_ever(until: impl Fn() -> bool) -> u64 {
    let start = Instant::now();
    let mut turns = 0_u64;
    while !until() && start.elapsed() < LONG {
        turns = std::hint::black_box(turns + 1);
    }
    turns
}

#[test]
fn a_task_that_spins_is_reported_with_the_function_that_it_is_in() {
    on_each_ring(|builder| {
        let (builder, reports) = Reports::of(builder);
        let runtime = builder.build().expect("a runtime");
        let seen = reports.clone();
        runtime.block_on(async move {
            let told = move || seen.all().iter().any(Reports::is_going);
            spawn(async move { _ = count_for_ever(told) }).await.expect("it does not panic");
        });
        let first = reports.all()[0].clone();
        if cfg!(all(feature = "stacks", target_arch = "x86_64")) {
            let frames = first.stack().expect("it answers a signal");
            let function = |frame: &crate::stall::Frame| frame.function.clone().unwrap_or_default();
            let named = frames.iter().find(|frame| function(frame).contains("count_for_ever"));
            let named = named.unwrap_or_else(|| panic!("the culprit is not named: {first}"));
            assert!(named.file.as_deref().is_some_and(|file| file.ends_with("stall/tests.rs")));
            assert!(named.line.is_some());
            let outside = frames.iter().any(|frame| function(frame).contains("block_on"));
            assert!(!outside, "the loop is left out: {first}");
        } else {
            assert!(first.stack().is_err_and(|why| why.contains("stacks")));
        }
    });
}

#[test]
fn a_poll_that_does_not_end_is_reported_again_and_again_but_ever_less() {
    on_each_ring(|builder| {
        let (builder, reports) = Reports::of(builder);
        let runtime = builder.build().expect("a runtime");
        let seen = reports.clone();
        let root = async move { count_for_ever(|| seen.all().len() >= 4) };
        let line = line!() + 1;
        runtime.block_on(root);
        let all = reports.all();
        let elapsed: Vec<_> = all.iter().map(Stall::elapsed).collect();
        assert!(elapsed.windows(2).all(|two| two[1] >= two[0] * 2), "{elapsed:?}");
        assert!(all.iter().all(|stall| stall.task().is_none()), "it is the root");
        assert_eq!((all[0].location().file(), all[0].location().line()), (file!(), line));
        assert_eq!(runtime.metrics().stalls, 1, "it is one stall");
    });
}

#[test]
fn a_program_that_behaves_is_never_reported() {
    on_each_ring(|builder| {
        let (builder, reports) = Reports::of(builder);
        // Where other programs keep the machine busy, a poll may take long without a fault of its
        // own: so the limit is a generous one, and what is to be noticed goes on for longer.
        let runtime = builder.stall_limit(Duration::from_secs(2)).build().expect("a runtime");
        runtime.block_on(async {
            let busy = spawn(async {
                let start = Instant::now();
                while start.elapsed() < Duration::from_secs(3) {
                    yield_now().await;
                }
            });
            time::sleep(Duration::from_secs(3)).await;
            busy.await.expect("it does not panic");
            // One that waits is in no poll.
            crate::task::spawn_blocking(|| thread::sleep(Duration::from_secs(3)))
                .await
                .expect("it does not panic");
        });
        assert_eq!((reports.all().len(), runtime.metrics().stalls), (0, 0), "{:?}", reports.all());
    });
}

#[test]
fn a_poll_that_panics_is_over() {
    let (builder, reports) = Reports::of(Runtime::builder());
    let runtime = builder.build().expect("a runtime");
    let stall = |reports: Reports| async move {
        let count = reports.all().len();
        count_for_ever(move || reports.all().len() > count);
        panic!("in the middle of a stall")
    };
    let task = runtime.spawn(stall(reports.clone()));
    assert!(runtime.block_on(task).expect_err("it panicked").is_panic());
    reports.wait_for(Reports::is_over);
    let root = std::panic::AssertUnwindSafe(|| runtime.block_on(stall(reports.clone())));
    std::panic::catch_unwind(root).expect_err("it panicked");
    reports.wait_for(|stall| Reports::is_over(stall) && stall.task().is_none());
    // Nothing goes on any more, so nothing more is told.
    let count = reports.all().len();
    thread::sleep(LIMIT * 3);
    assert_eq!(reports.all().len(), count);
}

#[test]
fn each_of_several_cores_is_watched_by_one_thread() {
    let (builder, reports) = Reports::of(Runtime::builder());
    let builder = builder.cores(Cores::Count(2)).thread_name("stl-two");
    let seen = reports.clone();
    let line = line!() + 1;
    let ids = builder.run(move |core| {
        let reports = seen.clone();
        async move {
            let start = Instant::now();
            while threads_named("stl-two-stall").len() != 1 && start.elapsed() < LONG {
                time::sleep(Duration::from_millis(1)).await;
            }
            assert_eq!(threads_named("stl-two-stall").len(), 1, "one for both");
            let handle = core.handle(core.index()).clone();
            let id = handle.metrics().await.expect("it goes on").core;
            count_for_ever(|| reports.all().iter().any(|stall| stall.core() == id));
            id
        }
    });
    for (index, id) in ids.expect("two cores").into_iter().enumerate() {
        let stall = reports.wait_for(|stall| stall.core() == id);
        assert_eq!(stall.thread(), format!("stl-two-core-{index}"));
        assert_eq!((stall.location().file(), stall.location().line()), (file!(), line));
    }
}

#[test]
fn nobody_looks_without_being_asked_and_nobody_stays() {
    // A thread names itself when it has started, and is gone a little after it was joined.
    let until = |expected: &[&str]| {
        let start = Instant::now();
        while threads_named("stl-none") != expected {
            assert!(start.elapsed() < LONG, "{:?}", threads_named("stl-none"));
            thread::sleep(Duration::from_millis(1));
        }
    };
    let builder = || Runtime::builder().thread_name("stl-none");
    let runtime = builder().on_stall(|_| ()).build().expect("a runtime");
    runtime.block_on(time::sleep(Duration::from_millis(100)));
    until(&[]);
    let watched = builder().stall_limit(LIMIT).build().expect("a runtime");
    until(&["stl-none-stall"]);
    drop(watched);
    until(&[]);
    drop(runtime);
}

#[test]
fn too_many_stalls_are_counted_instead_of_reported() {
    let (builder, reports) = Reports::of(Runtime::builder());
    let runtime = builder.stall_limit(Duration::from_millis(1)).build().expect("a runtime");
    let start = Instant::now();
    runtime.block_on(async {
        for _ in 0..20 {
            let stall = async {
                let before = books_here().stalls;
                count_for_ever(|| books_here().stalls > before)
            };
            spawn(stall).await.expect("no panic");
        }
    });
    let elapsed = start.elapsed();
    let going = reports.all().iter().filter(|stall| Reports::is_going(stall)).count() as u64;
    let stalls = runtime.metrics().stalls;
    // Ten, one per second, and repeats of those that were reported.
    let most = (10 + elapsed.as_secs() + 1) * 4;
    assert!(stalls >= 20 && going <= most, "{stalls} found, {going} reported in {elapsed:?}");
    let told: u64 = reports.all().iter().map(Stall::unreported).sum();
    assert!(told < stalls);
    // The rest is told with the next one that is reported.
    thread::sleep(Duration::from_millis(1_200));
    let seen = reports.clone();
    let count = seen.all().len();
    let task = runtime.spawn(async move { _ = count_for_ever(|| seen.all().len() > count) });
    runtime.block_on(task).expect("no panic");
    let told: u64 = reports.all().iter().map(Stall::unreported).sum();
    assert!(told > 0 && reports.all()[count].unreported() > 0, "{told}");
}

#[test]
fn an_action_that_panics_does_not_end_the_detector() {
    let calls = Arc::new(AtomicU64::new(0));
    let count = calls.clone();
    let builder = Runtime::builder().stall_limit(LIMIT).on_stall(move |_| {
        count.fetch_add(1, Ordering::Relaxed);
        panic!("in the action");
    });
    let runtime = builder.build().expect("a runtime");
    for stalls in 1..=2 {
        let calls = calls.clone();
        runtime.block_on(async move {
            count_for_ever(|| calls.load(Ordering::Relaxed) >= 2 * stalls);
        });
    }
    assert!(calls.load(Ordering::Relaxed) >= 4);
}

#[test]
#[should_panic(expected = "longer than no time")]
fn a_limit_of_nothing_is_refused() {
    drop(Runtime::builder().stall_limit(Duration::ZERO));
}
