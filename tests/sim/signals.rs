//! Signals of simulated hosts: a server that ends well does so here, too, and one that does not
//! listen is killed.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use futures::future::{Either, select};
use quoit::net::{TcpListener, TcpStream};
use quoit::signal::{ctrl_c, terminate};
use quoit::sim::{self, Sim, check};
use quoit::task::JoinSet;
use quoit::time::{sleep, timeout};

use crate::common::{echo_once, serve_echo};

const SECOND: Duration = Duration::from_secs(1);

/// As a server for the machine is written: it takes no more connections, and lets those it has
/// finish.
async fn serve_until_told() -> io::Result<()> {
    let listener = TcpListener::bind("0.0.0.0:7").await?;
    let mut stop = pin!(stop());
    let mut connections = JoinSet::new();
    while let Either::Left((accepted, _)) = select(listener.accept(), stop.as_mut()).await {
        if let Ok((stream, _)) = accepted {
            connections.spawn(echo(stream));
        }
    }
    for stream in listener.close().await? {
        connections.spawn(echo(stream));
    }
    let all = async { while connections.join_next().await.is_some() {} };
    timeout(60 * SECOND, all).await.expect("the client ends its connection");
    sim::note("has ended well");
    Ok(())
}

async fn stop() -> io::Result<()> {
    select(pin!(ctrl_c()), pin!(terminate())).await.factor_first().0
}

async fn echo(stream: TcpStream) -> io::Result<()> {
    loop {
        let lease = stream.recv().await?;
        if lease.is_empty() {
            return Ok(());
        }
        stream.send_all(lease).await?;
    }
}

#[test]
fn a_server_that_is_told_to_end_ends_well() {
    check(60, |sim| {
        sim.host("server", serve_until_told);
        let interrupts = sim.seed() % 2 == 0;
        sim.client("client", async move {
            let stream = TcpStream::connect("server:7").await?;
            echo_once(&stream, b"before").await?;
            match interrupts {
                true => sim::world().interrupt("server"),
                false => sim::world().terminate("server"),
            }
            sleep(SECOND).await;
            let refused = TcpStream::connect("server:7").await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
            echo_once(&stream, b"what has begun is finished").await?;
            stream.shutdown().await?;
            assert!(stream.recv().await?.is_empty(), "an orderly end");
            sleep(SECOND).await;
            io::Result::Ok(())
        });
        sim.run().unwrap();
        assert!(sim.trace().contains("says: has ended well"), "{}", sim.trace());
        assert_eq!((sim.books().leaked, sim.books().open), (0, 0));
    });
}

#[test]
fn who_has_never_waited_for_a_signal_is_killed_by_it() {
    check(60, |sim| {
        sim.host("deaf", || serve_echo(7));
        sim.host("half-deaf", || async {
            drop(timeout(SECOND, ctrl_c()).await);
            serve_echo(7).await
        });
        sim.client("client", async {
            let world = sim::world();
            let stream = TcpStream::connect("deaf:7").await?;
            echo_once(&stream, b"x").await?;
            world.interrupt("deaf");
            // The end of the stream, or a reset.
            assert!(stream.recv().await.map_or(true, |lease| lease.is_empty()));
            assert!(!world.is_up("deaf"));
            world.interrupt("deaf");
            world.restart("deaf");
            sleep(10 * SECOND).await;
            assert!(world.is_up("deaf"), "what it was sent while it was down is gone");

            world.interrupt("half-deaf");
            sleep(SECOND).await;
            assert!(world.is_up("half-deaf"), "it has waited for that, once");
            world.terminate("half-deaf");
            sleep(SECOND).await;
            assert!(!world.is_up("half-deaf"), "and never for this");
            io::Result::Ok(())
        });
    });
}

#[test]
fn a_signal_is_heard_by_all_who_wait_on_its_host_and_by_nobody_else() {
    check(60, |sim| {
        let heard = Rc::new([const { Cell::new(0) }; 4]);
        let told = |index: usize| {
            let heard = heard.clone();
            move || heard[index].set(heard[index].get() + 1)
        };
        let (told_one, told_other, told_again) = (told(0), told(1), told(2));
        sim.cores("two-cores", 2, move |core| {
            let (told_one, told_again) = (told_one.clone(), told_again.clone());
            async move {
                let dropped = timeout(SECOND, terminate()).await;
                assert!(dropped.is_err());
                // Both wait at once, and the second time after the first.
                terminate().await.unwrap();
                told_one();
                if core.index() == 0 {
                    terminate().await.unwrap();
                    told_again();
                }
                std::future::pending::<()>().await;
            }
        });
        sim.host("elsewhere", move || {
            let told_other = told_other.clone();
            async move {
                terminate().await.unwrap();
                told_other();
            }
        });
        let told_wrong = told(3);
        sim.client("client", async move {
            quoit::spawn(async move {
                let mut wrong = pin!(ctrl_c());
                // It looks again and again, and not only when it is woken.
                while timeout(SECOND / 10, wrong.as_mut()).await.is_err() {}
                told_wrong();
            });
            drop(timeout(SECOND, terminate()).await);
            sleep(SECOND).await;
            let counts = || heard.each_ref().map(Cell::get);
            sim::world().terminate("client");
            sim::world().terminate("two-cores");
            sleep(SECOND).await;
            assert_eq!(counts(), [2, 0, 0, 0]);
            sim::world().terminate("two-cores");
            sleep(SECOND).await;
            assert_eq!(counts(), [2, 0, 1, 0]);
        });
    });
}

#[test]
#[should_panic(expected = "client is a client, and has never waited for this signal")]
fn a_client_is_not_killed_by_a_signal() {
    let mut sim = Sim::new(1);
    sim.at(SECOND, |world| world.interrupt("client"));
    sim.client("client", sleep(2 * SECOND));
    let _ = sim.run();
}

/// What waits for a simulated host's signal hears of nothing where its simulation is not.
#[test]
fn a_wait_that_is_taken_out_of_its_simulation_is_for_ever() {
    let kept = Rc::new(Cell::new(None));
    let keep = kept.clone();
    let mut sim = Sim::new(1);
    sim.client("client", async move {
        let mut waiting = Box::pin(terminate());
        assert!(futures::poll!(waiting.as_mut()).is_pending());
        keep.set(Some(waiting));
    });
    sim.run().unwrap();
    let mut waiting = kept.take().unwrap();
    quoit::block_on(async { assert!(futures::poll!(waiting.as_mut()).is_pending()) });
    let mut other = Sim::new(1);
    other.client("client", async move {
        let own = quoit::spawn(terminate());
        sleep(SECOND).await;
        sim::world().terminate("client");
        own.await.unwrap().unwrap();
        assert!(futures::poll!(waiting.as_mut()).is_pending(), "it is another world's");
    });
    other.run().unwrap();
}
