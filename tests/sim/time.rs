//! Timers and clocks where a simulation meets the machine, and clocks that are not alike.

use std::time::Duration;

use quoit::sim::{self, Sim};
use quoit::time::{self, Instant};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);

/// Fails unless it is so late in the world, or a little later.
fn expect_time(since: Duration) {
    let late = sim::world().elapsed().checked_sub(since);
    assert!(late.is_some_and(|late| late < SECOND), "{:?}, not {since:?}", sim::world().elapsed());
}

#[test]
fn timers_that_are_made_outside_count_from_their_first_poll_inside() {
    let mut sim = Sim::new(1);
    let sleeping = time::sleep(HOUR);
    let limited = time::timeout(HOUR, std::future::pending::<()>());
    let mut ticks = time::interval(HOUR);
    let mut set_again = Box::pin(time::sleep(HOUR));
    sim.client("asleep", async {
        sleeping.await;
        expect_time(HOUR);
    });
    sim.client("limited", async {
        limited.await.unwrap_err();
        expect_time(HOUR);
    });
    sim.client("ticking", async move {
        ticks.tick().await;
        expect_time(Duration::ZERO);
        ticks.tick().await;
        expect_time(HOUR);
    });
    sim.client("set-again", async move {
        set_again.as_mut().reset(Instant::now() + HOUR / 2);
        set_again.await;
        expect_time(HOUR / 2);
    });
    sim.client("bare", time::sleep(2 * HOUR));
    sim.client("late", async {
        let mut sleeping = std::pin::pin!(time::sleep(HOUR));
        time::sleep(HOUR).await;
        sleeping.as_mut().await;
        expect_time(HOUR);
        sleeping.as_mut().reset(Instant::now() + HOUR);
        sleeping.await;
        expect_time(2 * HOUR);
    });
    sim.run().unwrap();
    let late = sim.world().elapsed() - 2 * HOUR;
    assert!(late < SECOND, "{late:?}");
}

#[test]
fn how_long_a_timer_was_kept_outside_makes_no_difference() {
    let run = |wait| {
        let mut sim = Sim::new(3);
        sim.client("client", time::sleep(SECOND));
        std::thread::sleep(wait);
        sim.run().unwrap();
        (sim.trace_hash(), sim.world().elapsed())
    };
    assert_eq!(run(Duration::ZERO), run(Duration::from_millis(5)));
}

#[test]
#[should_panic(expected = "a moment of the machine's clock")]
fn a_deadline_of_the_machines_clock_is_refused() {
    let mut sim = Sim::new(1);
    sim.client("client", time::sleep_until(Instant::now() + SECOND));
    let _ = sim.run();
}

#[test]
#[should_panic(expected = "a moment of the machine's clock")]
fn a_moment_of_the_machines_clock_is_not_counted_from() {
    let mut sim = Sim::new(1);
    let outside = Instant::now();
    sim.client("client", async move {
        let _ = outside.elapsed();
    });
    let _ = sim.run();
}

#[test]
fn moments_before_the_beginning_are_past() {
    let mut sim = Sim::new(1);
    sim.client("client", async {
        time::sleep_until(Instant::now() - HOUR).await;
        time::sleep_until(Instant::now() - Duration::MAX).await;
        expect_time(Duration::ZERO);
        let never = time::sleep_until(Instant::now() + Duration::MAX);
        assert!(time::timeout(HOUR, never).await.is_err());
    });
    sim.run().unwrap();
}

#[test]
fn clocks_drift_and_their_timers_with_them() {
    let mut sim = Sim::new(5);
    sim.host("fast", || async {
        let (start, wall) = (Instant::now(), time::time_of_day());
        time::sleep(1_100 * SECOND).await;
        expect_time(1_000 * SECOND);
        // Less than a turn lies between the two looks.
        let passed = time::time_of_day().duration_since(wall).unwrap();
        assert!(passed.abs_diff(start.elapsed()) < SECOND / 1_000);
        sim::world().drift_clock("fast", 0);
        time::sleep(100 * SECOND).await;
        expect_time(1_100 * SECOND);
        sim::note("all seen");
        std::future::pending::<()>().await;
    });
    sim.client("slow", async {
        sim::world().drift_clock("slow", -500_000);
        let start = Instant::now();
        assert!(time::timeout(500 * SECOND, std::future::pending::<()>()).await.is_err());
        expect_time(1_000 * SECOND);
        assert_eq!(start.elapsed().as_secs(), 500);
    });
    sim.client("right", async {
        time::sleep(1_200 * SECOND).await;
        expect_time(1_200 * SECOND);
    });
    sim.world().drift_clock("fast", 100_000);
    sim.run().unwrap();
    assert!(sim.trace().contains("says: all seen"), "{}", sim.trace());
}
