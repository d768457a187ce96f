//! Faults that the seed draws, and what a simulated host has not.

use std::io::ErrorKind;
use std::time::Duration;

use quoit::net::TcpStream;
use quoit::sim::{self, Faults, Sim, check};
use quoit::time::{Instant, sleep, timeout};
use quoit::{Cores, Runtime};

use crate::common::{echo_once, serve_echo};

const SECOND: Duration = Duration::from_secs(1);

pub(crate) fn with_faults(sim: &mut Sim) {
    for server in ["one", "two"] {
        sim.host(server, || serve_echo(7));
    }
    for client in 0..2_u8 {
        sim.client(&format!("client-{client}"), async move {
            for (round, server) in (0..20_u8).zip(["one:7", "two:7"].into_iter().cycle()) {
                let exchange = async {
                    let stream = TcpStream::connect(server).await?;
                    echo_once(&stream, &[client, round]).await
                };
                let _ = timeout(SECOND, exchange).await;
            }
            // After the last fault everything is well again, as soon as TCP has tried again.
            while sim::world().elapsed() < 10 * SECOND {
                sleep(SECOND).await;
            }
            for server in ["one:7", "two:7"] {
                let stream = TcpStream::connect(server).await?;
                echo_once(&stream, b"well").await?;
            }
            std::io::Result::Ok(())
        });
    }
    sim.faults(Faults::until(10 * SECOND));
}

#[test]
fn drawn_faults_are_told_and_end() {
    check(40, with_faults);
    let told = |seed| {
        let mut sim = Sim::new(seed);
        with_faults(&mut sim);
        sim.run().unwrap();
        sim.options()
    };
    let all: String = (0..20).map(told).collect();
    for part in ["crashes (Kill)", "crashes (PowerLoss)", "are reset", "gets through from"] {
        assert!(all.contains(part), "no {part:?} in twenty seeds: {all}");
    }
    assert_eq!(told(3), told(3));
    assert_ne!(told(3), told(4));
}

/// Clocks go wrong where that is asked for, and are right again, as far as a clock can be, at the
/// end.
#[test]
fn clocks_go_wrong_and_drift_no_more_in_the_end() {
    let mut told = String::new();
    for seed in 0..40 {
        let mut sim = Sim::new(seed);
        sim.host("server", std::future::pending::<()>);
        sim.client("client", async {
            while sim::world().elapsed() <= 100 * SECOND {
                sleep(SECOND).await;
            }
            let (start, world) = (Instant::now(), sim::world().elapsed());
            sleep(100 * SECOND).await;
            let passed = sim::world().elapsed() - world;
            assert!(passed.abs_diff(start.elapsed()) < SECOND / 100, "{passed:?}");
        });
        sim.faults(Faults::until(100 * SECOND).partitions(0).resets(0).crashes(0).clocks(4));
        let without = sim.options();
        sim.run().unwrap();
        told += sim.options().strip_prefix(&without).expect("what was drawn is told");
    }
    for part in ["clock of client jumps", "time of day of server jumps by", "jumps back", "drifts"]
    {
        assert!(told.contains(part), "no {part:?} in forty seeds: {told}");
    }
}

#[test]
fn only_what_is_asked_for_is_drawn() {
    for seed in 0..20 {
        let mut sim = Sim::new(seed);
        sim.host("server", std::future::pending::<()>);
        sim.client("client", sleep(SECOND));
        let before = sim.options();
        sim.faults(Faults::until(SECOND).partitions(0).resets(0).crashes(0));
        sim.run().unwrap();
        assert_eq!(sim.options(), before);
    }
}

#[test]
fn what_belongs_to_the_process_is_not_there() {
    check(2, |sim| {
        sim.client("client", async {
            let unsupported = |error: std::io::Error| {
                assert_eq!(error.kind(), ErrorKind::Unsupported);
                assert!(error.to_string().contains("inside a simulation"), "{error}");
            };
            unsupported(Runtime::new().unwrap_err());
            unsupported(quoit::run(async {}).unwrap_err());
            let several = Runtime::builder().cores(Cores::All);
            unsupported(several.run(|_| async {}).unwrap_err());
            // A thread for blocking work is simulated as well, on this one.
            let on_thread = quoit::task::spawn_blocking(|| Runtime::new().unwrap_err().kind());
            assert_eq!(on_thread.await.unwrap(), ErrorKind::Unsupported);
        });
    });
    assert_eq!(Runtime::new().unwrap().block_on(async { 1 }), 1, "outside it is there");
}
