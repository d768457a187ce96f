//! The echo server and its clients, each on a host of its own.

use std::cell::Cell;
use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

use quoit::net::{TcpListener, TcpStream, lookup_host};
use quoit::sim::{FailureKind, Sim, check};
use quoit::time::{self, Instant};

use crate::common::{accept, echo_once, serve_echo};

/// Eight clients, as the measured scenario has them.
pub(crate) fn eight_clients(sim: &mut Sim) {
    sim.host("server", || serve_echo(7));
    for client in 0..8_u8 {
        sim.client(&format!("client-{client}"), async move {
            let stream = TcpStream::connect("server:7").await?;
            for round in 0..4 {
                echo_once(&stream, &[client, round, 1, 2, 3]).await?;
            }
            stream.close().await
        });
    }
}

#[test]
fn eight_clients_have_their_echo() {
    check(200, |sim| {
        eight_clients(sim);
        sim.run().unwrap();
        let books = sim.books();
        assert_eq!(books.connections, 8);
        assert_eq!((books.bytes_sent, books.bytes_received), (320, 320), "{books:?}");
        assert_eq!((books.open, books.leaked), (0, 0), "{books:?}");
    });
}

#[test]
fn names_and_addresses_lead_to_hosts() {
    check(20, |sim| {
        let [v4, v6] = sim.host("server", || serve_echo(7)).addresses();
        assert_eq!(v4, IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)));
        sim.client("client", async move {
            let found: Vec<_> = lookup_host("Server:7").await?.map(|one| one.ip()).collect();
            assert_eq!(found, [v4, v6]);
            assert!(lookup_host("nobody:7").await.is_err());
            let stream = TcpStream::connect("server:7").await?;
            assert_eq!(stream.peer_addr()?, (v4, 7).into());
            assert_eq!(stream.local_addr()?.ip(), IpAddr::V4(Ipv4Addr::new(10, 0, 0, 2)));
            // Each host has its own loopback.
            let refused = TcpStream::connect("127.0.0.1:7").await.unwrap_err();
            assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
            let listener = TcpListener::bind("[::]:8").await?;
            let own = TcpStream::connect("localhost:8").await?;
            let other = accept(&listener).await;
            echo_between(&own, &other).await
        });
    });
}

async fn echo_between(one: &TcpStream, other: &TcpStream) -> std::io::Result<()> {
    one.send_all("x").await?;
    other.send_all(other.recv().await?).await?;
    assert_eq!(&one.recv().await?[..], b"x");
    Ok(())
}

#[test]
fn time_jumps_and_is_the_same_for_all() {
    let mut sim = Sim::new(3);
    let seen = Rc::new(Cell::new(None));
    let (of_server, noted) = (seen.clone(), seen.clone());
    sim.host("server", move || {
        let of_server = of_server.clone();
        async move {
            time::sleep(Duration::from_secs(1800)).await;
            of_server.set(Some(Instant::now()));
            std::future::pending::<()>().await;
        }
    });
    sim.client("client", async move {
        let start = Instant::now();
        time::sleep(Duration::from_secs(3600)).await;
        let late = start.elapsed() - Duration::from_secs(3600);
        assert!(late < Duration::from_millis(1), "{late:?}");
        let other = noted.get().expect("it was earlier");
        let late = start + Duration::from_secs(1800) - other;
        assert!(late < Duration::from_millis(1), "{late:?}");
    });
    sim.run().unwrap();
    assert!(sim.world().elapsed() >= Duration::from_secs(3600));
}

#[test]
fn a_wait_for_what_nobody_does_names_who_waits() {
    let mut sim = Sim::new(1);
    sim.host("server", || serve_echo(7));
    sim.client("thirsty", async {
        let stream = TcpStream::connect("server:7").await?;
        stream.recv().await.map(drop)
    });
    let failure = sim.run().unwrap_err();
    assert_eq!(*failure.kind(), FailureKind::Deadlock);
    let told = format!("{failure:?}");
    for part in ["client thirsty waits", "host server waits", "receive on", "is connected"] {
        assert!(told.contains(part), "{part:?} is not told: {told}");
    }
}

#[test]
fn limits_and_errors_end_a_simulation() {
    let mut sim = Sim::new(1);
    sim.time_limit(Duration::from_secs(10));
    sim.client("sleeper", time::sleep(Duration::from_secs(11)));
    assert_eq!(*sim.run().unwrap_err().kind(), FailureKind::TimeLimit);

    let mut sim = Sim::new(1);
    sim.step_limit(1000);
    sim.client("busy", async {
        loop {
            quoit::task::yield_now().await;
        }
    });
    assert_eq!(*sim.run().unwrap_err().kind(), FailureKind::StepLimit);

    let mut sim = Sim::new(1);
    sim.client("wrong", async { Err::<(), _>("broken") });
    let kind = FailureKind::Program { host: "wrong".into(), error: "\"broken\"".into() };
    assert_eq!(*sim.run().unwrap_err().kind(), kind);
}

#[test]
#[should_panic(expected = "the program's own")]
fn a_panic_of_a_program_is_the_simulations() {
    let mut sim = Sim::new(1);
    sim.client("client", async { panic!("the program's own") });
    let _ = sim.run();
}
