//! The books tell what has happened: each counter moves with its event, on every ring, and what
//! goes up comes down again.

use std::rc::Rc;
use std::time::Duration;

use quoit::__private::is_simulated;
use quoit::task::yield_now;
use quoit::{Handle, Histogram, Runtime, time};

use crate::common::*;

const SEEDS: u64 = 6;

/// How many values a histogram has above zero.
fn above_zero(histogram: &Histogram) -> u64 {
    histogram.buckets().filter(|(bound, _)| *bound > 0).map(|(_, count)| count).sum()
}

#[test]
fn the_run_queue_has_a_depth_and_a_high_water_mark() {
    on_all_rings(
        SEEDS,
        |builder| builder,
        async |core| {
            let ready = || (core.metrics().tasks_ready, core.metrics().tasks_ready_peak);
            let before = ready();
            assert!(before.1 < 20);
            let tasks: Vec<_> = (0..20).map(|_| quoit::spawn(async {})).collect();
            assert_eq!(ready(), (before.0 + 20, before.0 + 20));
            for task in tasks {
                task.await.unwrap();
            }
            assert_eq!(ready(), (0, before.0 + 20), "the mark stays");
        },
    );
}

#[test]
fn every_completion_of_a_turn_is_in_its_batch() {
    on_all_rings(
        SEEDS,
        |builder| builder,
        async |core| {
            let (stream, mut peer) = pair().await;
            for byte in 0..50 {
                peer.write_all(&[byte]).await.unwrap();
                assert_eq!(received(&stream, 1).await, [byte]);
            }
            let metrics = core.metrics();
            let batches = metrics.completions_per_turn;
            assert_eq!(batches.count(), metrics.turns, "one batch for each turn");
            assert_eq!(batches.sum(), metrics.ring.completions, "none came from a thread");
            assert!(above_zero(&batches) > 0 && batches.quantile(1.0) < Some(64), "{batches:?}");
        },
    );
}

/// The kernel's timer stands at the first of them, and is not taken back with it.
#[test]
fn a_time_that_was_given_up_costs_a_turn_and_no_more() {
    on_all_rings(
        SEEDS,
        |builder| builder,
        async |core| {
            if is_simulated() {
                return; // It has no kernel.
            }
            let ms = Duration::from_millis;
            let given_up = quoit::spawn(time::sleep(ms(60)));
            quoit::task::spawn_blocking(move || std::thread::sleep(ms(10))).await.unwrap();
            given_up.abort();
            let (before, began) = (core.metrics().turns, time::Instant::now());
            time::sleep(ms(150)).await;
            let turns = core.metrics().turns - before;
            assert!(began.elapsed() >= ms(150) && turns <= 5, "{turns} turns");
        },
    );
}

#[test]
fn buffers_are_counted_as_they_go_and_come() {
    on_all_rings(
        SEEDS,
        |builder| builder.buffers(8, 4096, 16),
        async |core| {
            let (stream, mut peer) = pair().await;
            let mut leases = Vec::new();
            for byte in 0..20 {
                peer.write_all(&[byte]).await.unwrap();
                leases.push(within("a lease", stream.recv()).await.unwrap());
            }
            let full = core.metrics().buffers;
            assert_eq!((full.size, full.limit, full.total), (4096, 16, 16));
            assert_eq!((full.in_use, full.in_use_peak), (16, 16));
            assert_eq!((full.growths, full.growths_refused), (2, 0));
            let books = core.metrics();
            assert_eq!(books.resources.private_receives, 4, "the others are memory of their own");
            assert!(books.errors.no_buffers >= 2, "{:?}", books.errors);
            assert_eq!(books.errors.no_buffers, books.resources.buffers_exhausted);
            assert_eq!(books.streams_starved, 1, "it waits for a buffer");
            drop(leases);
            until("all are back", || core.metrics().buffers.in_use == 0).await;
            until("it is fed", || core.metrics().streams_starved == 0).await;
            assert_eq!(core.metrics().buffers.in_use_peak, 16, "the mark stays");
        },
    );
}

#[test]
fn connections_wait_in_the_accept_queue_until_they_are_taken_or_dropped() {
    on_all_rings(
        SEEDS,
        |builder| builder,
        async |core| {
            let (listener, address) = listen().await;
            let _first = connect(address).await;
            drop(within("the first", listener.accept()).await.unwrap());
            let peers = connect_many(address, 5).await;
            let waiting = || core.metrics().connections_waiting;
            until("all wait", || waiting() == 5).await;
            drop(within("the second", listener.accept()).await.unwrap());
            assert_eq!(waiting(), 4);
            drop(listener);
            until("nobody waits", || waiting() == 0).await;
            let books = core.metrics().resources;
            assert_eq!((books.connections_accepted, books.connections_delivered), (6, 2));
            assert_eq!(books.connections_undelivered, 4);
            drop(peers);
        },
    );
}

#[test]
fn errors_are_counted_by_what_they_mean() {
    on_all_rings(
        SEEDS,
        |builder| builder,
        async |core| {
            let (stream, peer) = pair().await;
            let before = core.metrics().errors;
            let reading = quoit::spawn(async move { stream.recv().await.map(drop) });
            some_turns().await;
            peer.reset();
            let error = within("the reset", reading).await.unwrap().unwrap_err();
            assert!(is_reset(&error), "{error}");
            let after = core.metrics().errors;
            counted_once(after.connections - before.connections);

            // A dropped listener takes its accept back.
            let (listener, address) = listen().await;
            let _peer = connect(address).await;
            drop(within("accept", listener.accept()).await.unwrap());
            let before = core.metrics().errors;
            drop(listener);
            until("the listener goes", || core.metrics().listeners_open == 0).await;
            let after = core.metrics().errors;
            counted_once(after.cancelled - before.cancelled);
            assert!(after.total() > before.total());
            if !is_simulated() {
                assert_eq!((after.shortages, after.others), (0, 0), "{after:?}");
            }
        },
    );
}

/// A simulated kernel answers such errors by chance, too.
fn counted_once(count: u64) {
    assert!(count == 1 || count > 1 && is_simulated(), "{count}");
}

/// In a simulation nothing takes time, and a real clock would not be the same twice.
#[test]
fn polls_are_timed_if_that_is_asked_for() {
    on_all_rings(
        SEEDS,
        |builder| builder.time_polls(true),
        async |core| {
            let before = core.metrics();
            let nap = Duration::from_millis(5);
            let task = quoit::spawn(async move {
                std::thread::sleep(nap);
                yield_now().await;
            });
            task.await.unwrap();
            let (after, polls) = (core.metrics(), 2);
            assert_eq!(after.task_polls - before.task_polls, polls);
            let Some(times) = after.poll_times else { return assert!(is_simulated()) };
            assert!(!is_simulated());
            let slow = |at_least: u64| times.buckets().filter(move |(most, _)| *most >= at_least);
            assert_eq!(times.count() - before.poll_times.unwrap().count(), polls);
            assert!(times.sum() >= nap.as_nanos() as u64);
            assert!(slow(1 << 22).map(|(_, count)| count).sum::<u64>() >= 1, "{times:?}");
        },
    );
    on_each_runtime(
        |builder| builder,
        async |core| assert_eq!(core.metrics().poll_times, None, "it is not for nothing"),
    );
}

#[test]
fn other_threads_ask_for_a_cores_books() {
    on_all_rings(
        SEEDS,
        |builder| builder,
        async |core| {
            let here = Handle::current();
            let before = core.metrics();
            let mine = within("the books", here.metrics()).await.unwrap();
            assert_eq!((mine.core, mine.tasks_alive), (before.core, before.tasks_alive));
            assert_eq!(mine.tasks_spawned, before.tasks_spawned + 1, "asking is a task");

            let asker = here.clone();
            let theirs = core.elsewhere(move || async move {
                let own = Handle::current().metrics().await.unwrap();
                (own, asker.metrics().await.unwrap())
            });
            let (other, mine) = within("the books from there", theirs).await;
            assert_eq!(mine.core, before.core);
            assert_ne!(other.core, mine.core);
            assert!(mine.remote_wakes > before.remote_wakes);
        },
    );
}

#[test]
fn a_core_that_has_ended_says_so() {
    on_each_ring(|builder| {
        let runtime = builder.build().unwrap();
        let handle = runtime.handle();
        drop(runtime);
        let asker = Runtime::new().unwrap();
        assert!(asker.block_on(handle.metrics()).unwrap_err().is_cancelled());
    });
}

#[test]
fn a_busy_core_uses_its_processor_and_an_idle_one_does_not() {
    on_each_runtime(
        |builder| builder,
        async |core| {
            let busy = Rc::new(|| core.metrics().processor_time);
            let before = busy();
            until("it has worked for 20 ms", || busy() - before > 20_000_000).await;
            let before = busy();
            time::sleep(Duration::from_millis(200)).await;
            let used = busy() - before;
            assert!(used < 100_000_000, "asleep, it used {used} ns of 200 ms");
        },
    );
}
