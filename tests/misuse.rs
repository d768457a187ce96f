//! A panic that says how the library was misused names the line that misused it, not one of ours.

use std::panic::{self, AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quoit::{Runtime, block_on, task, time};

quoit::task_local! {
    static NUMBER: u32;
}

/// Where `misuse` panics.
fn place(misuse: impl FnOnce()) -> String {
    let place = Arc::new(Mutex::new(String::new()));
    let seen = place.clone();
    let before = panic::take_hook();
    panic::set_hook(Box::new(move |info| {
        let location = info.location().map(ToString::to_string).unwrap_or_default();
        *seen.lock().unwrap_or_else(PoisonError::into_inner) = location;
    }));
    let outcome = catch_unwind(AssertUnwindSafe(misuse));
    panic::set_hook(before);
    assert!(outcome.is_err(), "that is misuse");
    let place = place.lock().unwrap_or_else(PoisonError::into_inner);
    place.clone()
}

// One test, as the hook is the process's.
#[test]
fn panics_name_the_caller() {
    let misuses: [(&str, fn()); 16] = [
        ("block_on in a core", || block_on(async { block_on(async {}) })),
        ("Runtime::block_on in a core", || {
            let runtime = Runtime::new().unwrap();
            block_on(async { runtime.block_on(async {}) });
        }),
        ("turn in a task", || {
            let runtime = Runtime::new().unwrap();
            runtime.block_on(async { runtime.turn(None) });
        }),
        ("into_panic of a cancelled task", || {
            let runtime = Runtime::new().unwrap();
            let task = runtime.spawn(std::future::pending::<()>());
            task.abort();
            let error = runtime.block_on(task).unwrap_err();
            drop(error.into_panic());
        }),
        ("sync_scope inside with", || {
            NUMBER.sync_scope(1, || {
                NUMBER.with(|_| NUMBER.sync_scope(2, || {}));
            })
        }),
        ("with outside a scope", || NUMBER.with(|_| ())),
        ("get outside a scope", || assert_eq!(NUMBER.get(), 0)),
        ("spawn outside", || drop(quoit::spawn(async {}))),
        ("spawn_blocking outside", || drop(task::spawn_blocking(|| ()))),
        ("Handle::current outside", || drop(quoit::Handle::current())),
        ("pause outside", || time::pause()),
        ("resume of a running clock", || block_on(async { time::resume() })),
        ("an interval of nothing", || drop(time::interval(Duration::ZERO))),
        ("a task budget of nothing", || drop(Runtime::builder().task_budget(0))),
        ("no blocking threads", || drop(Runtime::builder().max_blocking_threads(0))),
        ("no buffers", || drop(Runtime::builder().buffers(0, 1, 1))),
    ];
    let wrong: Vec<String> = misuses
        .into_iter()
        .map(|(what, misuse)| (what, place(misuse)))
        .filter(|(_, place)| !place.starts_with(file!()))
        .map(|(what, place)| format!("{what}: {place}"))
        .collect();
    assert!(wrong.is_empty(), "these name another place:\n{}", wrong.join("\n"));
}
