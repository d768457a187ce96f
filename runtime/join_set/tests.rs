//! Results in the order of their ends, slots used again, and ends of whole sets.

use std::cell::Cell;
use std::future::pending;
use std::iter;
use std::rc::Rc;
use std::time::Duration;

use super::*;
use crate::runtime::{Runtime, block_on, spawn, yield_now};
use crate::time;

/// A set of tasks that end after so many rounds.
fn of_rounds(rounds: [usize; 3]) -> JoinSet<usize> {
    let mut set = JoinSet::new();
    for rounds in rounds {
        set.spawn(async move {
            for _ in 0..rounds {
                yield_now().await;
            }
            rounds
        });
    }
    set
}

#[test]
fn results_come_in_the_order_of_their_ends() {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let mut set = of_rounds([3, 1, 2]);
        let mut order = Vec::new();
        while let Some(rounds) = set.join_next().await {
            order.push(rounds.unwrap());
            assert_eq!(set.len(), 3 - order.len());
        }
        assert_eq!(order, [1, 2, 3]);
        assert!(set.is_empty() && set.join_next().await.is_none());
    });
}

#[test]
fn each_result_comes_with_the_id_of_its_task() {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let mut set = JoinSet::new();
        let mut ids: Vec<_> = (0..3).map(|it| set.spawn(async move { it }).id()).collect();
        let aborted = set.spawn(pending());
        aborted.abort();
        ids.push(aborted.id());
        let mut seen = Vec::new();
        while let Some(next) = set.join_next_with_id().await {
            // The others have ended as well.
            for next in iter::once(next).chain(iter::from_fn(|| set.try_join_next_with_id())) {
                seen.push(match next {
                    Ok((id, number)) => (id, Some(number)),
                    Err(error) => (error.id(), None),
                });
            }
        }
        let expected = ids.into_iter().zip([Some(0), Some(1), Some(2), None]);
        assert_eq!(seen, expected.collect::<Vec<_>>());
    });
}

#[test]
fn slots_are_used_again_and_nothing_is_joined_twice() {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let mut set = JoinSet::new();
        let mut sum = 0;
        for number in 0..1_000_u64 {
            set.spawn(async move { number });
            if set.len() == 10 {
                sum += set.join_next().await.unwrap().unwrap();
            }
        }
        assert!(set.slots.len() <= 10);
        while let Some(number) = set.join_next().await {
            sum += number.unwrap();
        }
        assert_eq!(sum, 999 * 1_000 / 2);
    });
}

#[test]
fn dropping_aborts_and_detaching_does_not() {
    let runtime = Runtime::new().unwrap();
    let done = Rc::new(Cell::new(0));
    let task = |done: Rc<Cell<i32>>| async move {
        yield_now().await;
        done.set(done.get() + 1);
    };
    runtime.block_on(async {
        let mut set = JoinSet::new();
        set.spawn(task(done.clone()));
        set.spawn(task(done.clone()));
        set.detach_all();
        assert!(set.is_empty());
        set.spawn(task(done.clone()));
        drop(set);
        for _ in 0..4 {
            yield_now().await;
        }
    });
    assert_eq!(done.get(), 2);
    assert_eq!(Rc::strong_count(&done), 1);
}

#[test]
fn shutdown_ends_everything() {
    let runtime = Runtime::new().unwrap();
    runtime.block_on(async {
        let mut set = JoinSet::new();
        (0..20).for_each(|_| drop(set.spawn(pending::<()>())));
        yield_now().await;
        set.shutdown().await;
        assert!(set.is_empty());
    });
    assert_eq!(runtime.metrics().tasks_alive, 0);
}

#[test]
fn tasks_of_another_core_are_joined() {
    let ours = Runtime::new().unwrap();
    let handle = ours.handle();
    let thread = std::thread::spawn(move || {
        let mut set = JoinSet::new();
        for number in 0..100 {
            set.spawn_with(&handle, move || async move { number });
        }
        let sum: i32 = Runtime::new().unwrap().block_on(set.join_all()).iter().sum();
        drop(handle.spawn_with(|| async {}));
        sum
    });
    while ours.metrics().tasks_spawned < 101 {
        ours.turn(Some(Duration::from_millis(1)));
    }
    assert_eq!(thread.join().unwrap(), 4_950);
}

/// Who polls by hand may have left its waker in the set when it puts another task in.
#[test]
fn a_task_that_came_after_the_last_poll_wakes_who_waits() {
    let runtime = Runtime::builder().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let mut set = JoinSet::new();
        set.spawn(pending());
        let mut polls = 0;
        let by_hand = poll_fn(|context| {
            polls += 1;
            let polled = set.poll_join_next(context);
            if polls == 1 {
                assert!(polled.is_pending());
                set.spawn(async { 7 });
            }
            polled
        });
        let start = time::Instant::now();
        let joined = time::timeout(Duration::from_secs(1), by_hand).await;
        assert_eq!(joined.unwrap().unwrap().unwrap(), 7);
        assert_eq!(start.elapsed(), Duration::ZERO, "it was woken, and not found at the limit");
    });
}

#[test]
fn who_got_its_answer_is_not_woken_for_what_comes_then() {
    let runtime = Runtime::new().unwrap();
    let polls = Rc::new(Cell::new(0));
    let mut set = JoinSet::new();
    let count = polls.clone();
    let body = async move {
        for number in 0..3 {
            set.spawn(async move { number });
            assert_eq!(set.join_next().await.unwrap().unwrap(), number);
        }
        pending().await
    };
    let mut body = Box::pin(body);
    let task = runtime.spawn(poll_fn(move |context| -> Poll<()> {
        count.set(count.get() + 1);
        body.as_mut().poll(context)
    }));
    for _ in 0..20 {
        runtime.turn(Some(Duration::ZERO));
    }
    assert_eq!(polls.get(), 4, "one poll for the start, and one for each result");
    drop(task);
}

#[test]
fn a_task_that_was_awaited_elsewhere_or_has_ended_is_joined_like_any_other() {
    block_on(async {
        let mut set = JoinSet::new();
        let ended = spawn(async { 1 });
        let mut polled = spawn(async {
            yield_now().await;
            yield_now().await;
            2
        });
        assert!(futures::poll!(&mut polled).is_pending());
        yield_now().await;
        assert!(ended.is_finished());
        set.insert(polled);
        set.insert(ended);
        assert_eq!(set.join_next().await.unwrap().unwrap(), 1);
        assert_eq!(set.join_next().await.unwrap().unwrap(), 2);
        assert!(set.join_next().await.is_none());
    });
}

#[test]
fn tasks_that_ended_before_anybody_asked_come_in_the_order_of_their_ends() {
    block_on(async {
        let mut set = of_rounds([3, 1, 2]);
        for _ in 0..5 {
            yield_now().await;
        }
        let ended: Vec<_> = iter::from_fn(|| set.try_join_next()).map(Result::unwrap).collect();
        assert_eq!(ended, [1, 2, 3]);
    });
}
