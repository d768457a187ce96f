//! Hosts that go down and come back, and clocks that jump.

use std::cell::Cell;
use std::io::ErrorKind;
use std::rc::Rc;
use std::time::Duration;

use quoit::net::TcpStream;
use quoit::sim::{self, Crash, Sim, check};
use quoit::time::{self, Instant, sleep, timeout};

use crate::common::{echo_once, serve_echo};

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn a_killed_host_ends_its_connections_and_starts_anew() {
    check(100, |sim| {
        let lives = Rc::new(Cell::new(0));
        let counted = lives.clone();
        sim.host("server", move || {
            counted.set(counted.get() + 1);
            serve_echo(7)
        });
        sim.client("client", async {
            let world = sim::world();
            let stream = TcpStream::connect("server:7").await?;
            echo_once(&stream, b"one").await?;
            world.crash("server", Crash::Kill);
            // The end of the stream, or a reset.
            assert!(stream.recv().await.map_or(true, |lease| lease.is_empty()));
            assert!(!world.is_up("server"));
            world.restart("server");
            sleep(SECOND).await;
            let stream = TcpStream::connect("server:7").await?;
            echo_once(&stream, b"two").await
        });
        sim.run().unwrap();
        assert_eq!(lives.get(), 2);
        assert_eq!(sim.books().leaked, 0);
    });
}

#[test]
fn a_host_without_power_is_silent_until_it_is_back() {
    check(100, |sim| {
        sim.host("server", || serve_echo(7));
        sim.client("client", async {
            let world = sim::world();
            let stream = TcpStream::connect("server:7").await?;
            echo_once(&stream, b"one").await?;
            world.crash("server", Crash::PowerLoss);
            stream.send_all("two").await?;
            assert!(timeout(60 * SECOND, stream.recv()).await.is_err(), "nobody answers");
            let address = "10.0.0.1:7".parse().unwrap();
            let connecting = TcpStream::connect_timeout(&address, SECOND);
            assert_eq!(connecting.await.unwrap_err().kind(), ErrorKind::TimedOut);
            world.restart("server");
            // What is sent again meets a kernel that knows nothing of the connection.
            assert_eq!(stream.recv().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
            let stream = TcpStream::connect("server:7").await?;
            echo_once(&stream, b"three").await
        });
    });
}

#[test]
fn whatever_a_crash_interrupts_is_dropped_there() {
    struct Noted(Rc<Cell<u32>>);
    impl Drop for Noted {
        fn drop(&mut self) {
            self.0.set(self.0.get() + 1);
        }
    }
    check(50, |sim| {
        let dropped = Rc::new(Cell::new(0));
        let of_host = dropped.clone();
        sim.host("busy", move || {
            let (main, task) = (Noted(of_host.clone()), Noted(of_host.clone()));
            async move {
                let _main = main;
                quoit::spawn(async move {
                    let _task = task;
                    std::future::pending::<()>().await;
                });
                loop {
                    sleep(Duration::from_millis(1)).await;
                }
            }
        });
        sim.at(Duration::from_millis(500), |world| world.crash("busy", Crash::PowerLoss));
        let seen = dropped.clone();
        sim.client("client", async move {
            sleep(SECOND).await;
            assert_eq!(seen.get(), 2);
        });
    });
}

/// A server that comes and goes, and clients that want their echoes all the same.
pub(crate) fn crashes_at_any_time(sim: &mut Sim) {
    sim.host("server", || serve_echo(7));
    let mut chance = sim.world().chance(1);
    for _ in 0..chance.up_to(4) {
        let at = Duration::from_micros(chance.below(400_000) as u64);
        let how = if chance.one_in(2) { Crash::Kill } else { Crash::PowerLoss };
        sim.at(at, move |world| world.crash("server", how));
        let back = at + Duration::from_micros(chance.below(100_000) as u64);
        sim.at(back, |world| world.restart("server"));
    }
    sim.at(SECOND, |world| world.restart("server"));
    for client in 0..3 {
        sim.client(&format!("client-{client}"), async move {
            let mut done = 0;
            while done < 5 {
                let Ok(Ok(stream)) = timeout(SECOND, TcpStream::connect("server:7")).await else {
                    continue;
                };
                while done < 5 {
                    match timeout(SECOND, echo_once(&stream, &[client, done])).await {
                        Ok(Ok(())) => done += 1,
                        _ => break,
                    }
                }
            }
        });
    }
}

#[test]
fn servers_and_clients_survive_crashes_at_any_time() {
    check(300, |sim| {
        crashes_at_any_time(sim);
        sim.run().unwrap();
        assert!(sim.books().are_balanced());
        assert_eq!((sim.books().leaked, sim.books().open), (0, 0), "{:?}", sim.books());
    });
}

#[test]
fn clocks_differ_and_jump() {
    let mut sim = Sim::new(2);
    sim.host("ahead", || async {
        let (start, wall) = (Instant::now(), time::time_of_day());
        sleep(3600 * SECOND).await;
        assert!(start.elapsed() >= 3600 * SECOND);
        assert!(sim::world().elapsed() < 20 * SECOND, "the jump made it due");
        assert!(time::time_of_day() > wall + 3600 * SECOND);
        sleep(10 * SECOND).await;
        assert!(time::time_of_day() < wall, "the time of day went back");
        assert!(start.elapsed() >= 3610 * SECOND, "and nothing else did");
        sim::note("all seen");
    })
    .clock_ahead(5 * SECOND);
    sim.at(10 * SECOND, |world| world.jump_clock("ahead", 3600 * SECOND));
    sim.at(15 * SECOND, |world| world.wall_clock_backwards("ahead", 9000 * SECOND));
    sim.client("client", async {
        let start = Instant::now();
        sleep(60 * SECOND).await;
        assert_eq!(start.elapsed().as_secs(), 60, "its own clock is another");
    });
    sim.run().unwrap();
    assert!(sim.trace().contains("says: all seen"));
}
