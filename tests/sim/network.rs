//! What the network does to programs: latency, slow links, partitions, resets, refusals.

use std::io::ErrorKind;
use std::time::Duration;

use quoit::net::{TcpListener, TcpStream};
use quoit::sim::{self, Link, Sim, check};
use quoit::time::{Instant, sleep, timeout};

use crate::common::{accept, echo_once, serve_echo};

const SECOND: Duration = Duration::from_secs(1);

/// A link that always takes the same time.
fn exactly(millis: u64) -> Link {
    let latency = Duration::from_millis(millis);
    Link::new(latency, latency)
}

#[test]
fn a_round_trip_takes_the_latency_twice() {
    check(50, |sim| {
        sim.links(exactly(40)).socket_buffers(1 << 16);
        sim.host("server", || serve_echo(7));
        sim.client("client", async {
            let start = Instant::now();
            let stream = TcpStream::connect("10.0.0.1:7").await?;
            let took = start.elapsed();
            assert!((80..85).contains(&took.as_millis()), "the handshake took {took:?}");
            let start = Instant::now();
            echo_once(&stream, b"x").await?;
            let took = start.elapsed();
            assert!((80..90).contains(&took.as_millis()), "the echo took {took:?}");
            std::io::Result::Ok(())
        });
    });
}

#[test]
fn a_slow_link_is_a_queue() {
    check(30, |sim| {
        sim.links(exactly(1).bandwidth(10_000)).socket_buffers(1 << 18);
        sim.host("sink", || async {
            let listener = TcpListener::bind("0.0.0.0:9").await.unwrap();
            let stream = accept(&listener).await;
            let start = Instant::now();
            let mut got = 0;
            while let Ok(lease) = stream.recv().await {
                if lease.is_empty() {
                    break;
                }
                got += lease.len();
            }
            assert_eq!(got, 50_000);
            let took = start.elapsed().as_secs_f64();
            assert!((4.5..6.5).contains(&took), "50 kB at 10 kB/s took {took} s");
        });
        sim.client("source", async {
            let stream = TcpStream::connect("sink:9").await?;
            stream.send_all(vec![7; 50_000]).await?;
            stream.shutdown().await?;
            assert!(stream.recv().await?.is_empty());
            std::io::Result::Ok(())
        });
    });
}

#[test]
fn nobody_listens_nobody_is_there_nothing_gets_through() {
    check(50, |sim| {
        sim.host("server", || serve_echo(7));
        sim.client("client", async {
            let start = Instant::now();
            let kind = |error: std::io::Error| error.kind();
            let refused = TcpStream::connect("server:8").await.map_err(kind);
            assert_eq!(refused.map(drop), Err(ErrorKind::ConnectionRefused));
            let nobody = TcpStream::connect("10.9.9.9:7").await.map_err(kind);
            assert_eq!(nobody.map(drop), Err(ErrorKind::HostUnreachable));
            assert!(start.elapsed() < 10 * SECOND);
            sim::world().partition("client", "server");
            let start = Instant::now();
            let silent = TcpStream::connect("10.0.0.1:7").await.map_err(kind);
            assert_eq!(silent.map(drop), Err(ErrorKind::TimedOut));
            assert_eq!(start.elapsed().as_secs(), 127, "tcp_syn_retries");
        });
    });
}

#[test]
fn a_partition_stalls_and_loses_nothing() {
    check(100, |sim| {
        sim.socket_buffers(1 << 16);
        sim.host("server", || serve_echo(7));
        sim.client("client", async {
            let world = sim::world();
            let stream = TcpStream::connect("server:7").await?;
            echo_once(&stream, b"before").await?;
            world.partition("client", "server");
            stream.send_all("during").await?;
            let mut back = [0; 6];
            assert!(timeout(60 * SECOND, stream.read_exact(&mut back)).await.is_err());
            world.heal("client", "server");
            stream.read_exact(&mut back).await?;
            assert_eq!(&back, b"during");
            echo_once(&stream, b"after").await
        });
        sim.run().unwrap();
        let books = sim.books();
        assert_eq!((books.bytes_sent, books.bytes_lost), (34, 0), "{books:?}");
    });
}

#[test]
fn a_partition_for_too_long_fails_who_sends() {
    check(30, |sim| {
        sim.host("server", || serve_echo(7));
        sim.client("client", async {
            let stream = TcpStream::connect("server:7").await?;
            sim::world().partition("client", "server");
            stream.send_all("in vain").await?;
            let start = Instant::now();
            assert_eq!(stream.recv().await.unwrap_err().kind(), ErrorKind::TimedOut);
            assert!((920..930).contains(&start.elapsed().as_secs()), "tcp_retries2");
            std::io::Result::Ok(())
        });
    });
}

#[test]
fn one_way_the_bytes_come_and_nobody_hears_of_it() {
    check(50, |sim| {
        sim.socket_buffers(64);
        sim.host("sink", || async {
            let listener = TcpListener::bind("0.0.0.0:9").await.unwrap();
            let stream = accept(&listener).await;
            sim::world().cut("sink", "source");
            let mut got = 0;
            while got < 1000 {
                got += stream.recv().await.unwrap().len();
            }
            stream.send_all("done").await.unwrap();
            assert!(stream.recv().await.unwrap().is_empty());
        });
        sim.client("source", async {
            let stream = TcpStream::connect("sink:9").await?;
            let sending = timeout(600 * SECOND, stream.send_all(vec![1; 1000]));
            assert!(sending.await.is_err(), "without acknowledgements there is no room");
            sim::world().heal("sink", "source");
            let mut done = [0; 4];
            stream.read_exact(&mut done).await?;
            std::io::Result::Ok(())
        });
    });
}

#[test]
fn a_reset_is_seen_on_both_sides() {
    check(50, |sim| {
        sim.host("server", || async {
            let listener = TcpListener::bind("0.0.0.0:7").await.unwrap();
            let stream = accept(&listener).await;
            let error = stream.recv().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
            sim::note("the server has seen it");
        });
        sim.client("client", async {
            let stream = TcpStream::connect("server:7").await?;
            sleep(SECOND).await;
            sim::world().reset("server", "client");
            assert_eq!(stream.recv().await.unwrap_err().kind(), ErrorKind::ConnectionReset);
            sleep(SECOND).await;
            std::io::Result::Ok(())
        });
        sim.run().unwrap();
        assert!(sim.trace().contains("says: the server has seen it"));
    });
}

#[test]
fn socket_buffers_bound_what_a_sender_is_ahead() {
    let mut sim = Sim::new(5);
    sim.socket_buffers(1000);
    sim.host("sleeper", || async {
        let listener = TcpListener::bind("0.0.0.0:9").await.unwrap();
        let stream = accept(&listener).await;
        sleep(3600 * SECOND).await;
        drop(stream);
    });
    let runtime = quoit::Runtime::builder().send_ahead(1);
    let client = async {
        let stream = TcpStream::connect("sleeper:9").await?;
        let mut taken = 0;
        while let Ok(count) = timeout(60 * SECOND, stream.write(&[0; 100])).await {
            taken += count?;
        }
        // The peer's receive budget is the other part of what may be ahead.
        assert!(taken > 0 && sim::world().books().bytes_sent == taken as u64);
        assert!(sim::world().books().bytes_waiting <= 1000);
        std::io::Result::Ok(())
    };
    sim.client("client", client).runtime(runtime);
    sim.run().unwrap();
}

/// What was under way when a reset cut it off used to arrive as an orderly end, after the error.
#[test]
fn an_abort_with_bytes_under_way_is_no_end() {
    check(200, |sim| {
        sim.host("server", || async {
            let listener = TcpListener::bind("0.0.0.0:7").await.unwrap();
            let stream = accept(&listener).await;
            let mut got = 0;
            let ended = loop {
                match stream.recv().await {
                    Ok(lease) if lease.is_empty() => break true,
                    Ok(lease) => got += lease.len(),
                    Err(_) => break false,
                }
            };
            assert!(!ended, "the end came after {got} bytes of 300");
        });
        sim.client("client", async {
            let stream = TcpStream::connect("server:7").await?;
            stream.send_all(vec![1; 300]).await?;
            stream.abort();
            sleep(SECOND).await;
            std::io::Result::Ok(())
        });
    });
}

/// Two cores that both wait in vain used to wake each other for ever.
#[test]
fn cores_that_wait_leave_time_to_jump() {
    let mut sim = Sim::new(3);
    sim.step_limit(20_000);
    sim.cores("server", 2, |core| async move {
        let port = 7 + core.index() as u16;
        let listener = TcpListener::bind(("0.0.0.0", port)).await.unwrap();
        let stream = accept(&listener).await;
        assert!(stream.recv().await.unwrap().is_empty());
    });
    sim.client("client", async {
        let one = TcpStream::connect("server:7").await?;
        let other = TcpStream::connect("server:8").await?;
        sleep(3600 * SECOND).await;
        drop((one, other));
        sleep(SECOND).await;
        std::io::Result::Ok(())
    });
    sim.run().unwrap();
}
