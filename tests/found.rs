//! What seeds have found on the simulated ring, told again on the real ones.

#![allow(clippy::unwrap_used, reason = "a failure is a panic here")]

mod common;

use std::future::Future;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::thread;
use std::time::{Duration, Instant};

use futures::future::join;
use futures::poll;
use quoit::buffer::IoBuf;
use quoit::net::{TcpListener, TcpStream};
use quoit::sim::{self, Crash};
use quoit::{RingChoice, Runtime, time};

use crate::common::{pair, soon};

/// A slice read that empties the socket is not told of the end again when the watch has told of it
/// together with the bytes.
#[quoit::test]
async fn an_end_that_came_with_the_last_bytes_is_read() {
    let (client, server) = pair().await;
    let mut into = [0; 64];
    let reading = quoit::spawn(async move {
        let mut first = [0; 64];
        let count = server.read(&mut first).await.unwrap();
        assert_eq!(&first[..count], b"last");
        (server.read(&mut into).await.unwrap(), server)
    });
    // It waits, under an armed watch.
    for _ in 0..100 {
        quoit::task::yield_now().await;
    }
    client.send_all("last").await.unwrap();
    client.shutdown().await.unwrap();
    let limit = Duration::from_secs(5);
    let (count, _server) = time::timeout(limit, reading).await.expect("no hang").unwrap();
    assert_eq!(count, 0);
}

/// A detach waits in a line of its own: the reader that stands first in the readers' would only
/// have armed the receive again.
#[quoit::test]
async fn a_detach_ends_though_a_read_waits_for_a_silent_peer() {
    let (client, server) = pair().await;
    let server = std::rc::Rc::new(server);
    let reader = server.clone();
    let reading = quoit::spawn(async move { reader.recv().await.unwrap().to_vec() });
    for _ in 0..100 {
        quoit::task::yield_now().await;
    }
    let limit = Duration::from_secs(5);
    time::timeout(limit, server.detach()).await.expect("no hang").unwrap();
    client.send_all("late").await.unwrap();
    assert_eq!(time::timeout(limit, reading).await.expect("no hang").unwrap(), b"late");
}

/// A shutdown's limit counts from the core's own clock, which may be far ahead of the machine's.
#[test]
fn a_shutdown_keeps_its_limit_though_the_clock_was_moved() {
    let runtime = Runtime::builder().ring(RingChoice::Readiness).build().unwrap();
    let _client = runtime.block_on(async {
        let (client, server) = pair().await;
        client.send_all("unread").await.unwrap();
        server.readable().await.unwrap();
        server.set_linger(Duration::from_secs(600));
        time::pause();
        time::advance(Duration::from_secs(3600)).await;
        client
    });
    let start = Instant::now();
    assert!(runtime.shutdown(Duration::from_millis(50)).is_clean());
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
}

/// A stopped clock jumps to the end of the wait, as it does to a timer.
#[test]
fn a_turn_under_a_stopped_clock_waits_no_longer_than_told() {
    let runtime = Runtime::builder().ring(RingChoice::Readiness).build().unwrap();
    let start = runtime.block_on(async {
        time::pause();
        time::Instant::now()
    });
    for _ in 0..3 {
        runtime.turn(Some(Duration::from_secs(3600)));
    }
    assert!(runtime.block_on(async move { start.elapsed() }) >= Duration::from_secs(3600));
}

/// A send that waits for room, in a stream that another task is about to detach: the buffer before
/// it is taken, the stream has left, and nobody has polled the send since.
macro_rules! waiting_while_detached {
    ($client:expr, $server:expr, $write:expr) => {{
        let long = $client.send(vec![1; 16 << 20]);
        let mut long = Box::pin(long);
        assert!(poll!(&mut long).is_pending());
        let mut detach = Box::pin($client.detach());
        assert!(poll!(&mut detach).is_pending());
        let mut write = Box::pin($write);
        assert!(poll!(&mut write).is_pending(), "no room");
        let mut left = 16 << 20;
        while left > 0 {
            left -= $server.recv().await.unwrap().len();
        }
        assert_eq!(long.await.unwrap().0, 16 << 20);
        time::timeout(LIMIT, detach).await.expect("no hang").unwrap();
        write
    }};
}

const LIMIT: Duration = Duration::from_secs(20);

/// Those who wait are told that the stream leaves, and ask anew, in any order; a later send went
/// first then.
#[quoit::test]
async fn a_send_that_waits_keeps_its_place_when_its_stream_is_detached() {
    let (client, server) = pair().await;
    let first = waiting_while_detached!(client, server, client.send("first"));
    let mut second = Box::pin(client.send("second"));
    assert!(poll!(&mut second).is_pending(), "another one waits");
    let would_block = client.try_write(b"third").unwrap_err().kind();
    assert_eq!(would_block, std::io::ErrorKind::WouldBlock);
    let (first, second) = time::timeout(LIMIT, join(first, second)).await.expect("no hang");
    assert_eq!((first.unwrap().0, second.unwrap().0), (5, 6));
    let mut got = [0; 11];
    server.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"firstsecond");
}

/// A place that was kept is given up with its future, though the stream is on no core.
#[quoit::test]
async fn a_send_that_is_dropped_while_its_stream_is_away_holds_up_nobody() {
    for elsewhere in [false, true] {
        let (client, server) = pair().await;
        let first = waiting_while_detached!(client, server, client.send("first"));
        if elsewhere {
            thread::scope(|scope| scope.spawn(move || drop(first)).join().unwrap());
        } else {
            drop(first);
        }
        let sent = time::timeout(LIMIT, client.send("second")).await.expect("no hang");
        assert_eq!(sent.unwrap().0, 6);
        assert_eq!(server.recv().await.unwrap().to_vec(), b"second");
    }
}

/// What waited here while another core sent would be out of order.
#[quoit::test]
async fn a_send_that_waited_while_another_core_had_the_stream_fails() {
    let (client, server) = pair().await;
    let first = waiting_while_detached!(client, server, client.send("first"));
    thread::scope(|scope| {
        let there = scope.spawn(|| {
            quoit::block_on(async {
                client.send_all("there").await.unwrap();
                client.detach().await.unwrap();
            })
        });
        there.join().unwrap();
    });
    client.send_all("here").await.unwrap();
    let error = time::timeout(LIMIT, first).await.expect("no hang").unwrap_err();
    assert!(error.to_string().contains("another core"), "{error}");
    assert_eq!(error.into_parts().1, Some("first"));
    client.send_all("!").await.unwrap();
    let mut got = [0; 10];
    server.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"therehere!");
}

/// Reads are served in the order of their first poll, whoever asks again first.
#[quoit::test]
async fn a_read_that_waits_keeps_its_place_when_its_stream_is_detached() {
    for dropped in [false, true] {
        let (client, server) = pair().await;
        let mut first = Box::pin(server.recv());
        assert!(poll!(&mut first).is_pending());
        time::timeout(LIMIT, server.detach()).await.expect("no hang").unwrap();
        let mut second = Box::pin(server.recv());
        assert!(poll!(&mut second).is_pending());
        client.send_all("one").await.unwrap();
        for _ in 0..100 {
            quoit::task::yield_now().await;
        }
        assert!(poll!(&mut second).is_pending(), "another one stands first");
        if dropped {
            drop(first);
        } else {
            let first = time::timeout(LIMIT, first).await.expect("no hang").unwrap();
            assert_eq!(&first[..], b"one");
            client.send_all("two").await.unwrap();
        }
        let second = time::timeout(LIMIT, second).await.expect("no hang").unwrap();
        assert_eq!(&second[..], if dropped { b"one" } else { b"two" });
    }
}

/// A read that is half-way stands first under its own name when the stream comes back.
#[quoit::test]
async fn a_read_that_is_half_way_is_served_before_those_that_wait_behind_it() {
    for dropped in [false, true] {
        let (client, server) = pair().await;
        let (mut into, mut behind) = ([0; 4], [0; 2]);
        let mut first = Box::pin(server.read_exact(&mut into));
        assert!(poll!(&mut first).is_pending());
        client.send_all("12").await.unwrap();
        for _ in 0..100 {
            quoit::task::yield_now().await;
        }
        assert!(poll!(&mut first).is_pending());
        let mut second = Box::pin(server.read_exact(&mut behind));
        assert!(poll!(&mut second).is_pending());
        time::timeout(LIMIT, server.detach()).await.expect("no hang").unwrap();
        client.send_all("3456").await.unwrap();
        assert!(poll!(&mut second).is_pending(), "another one stands first");
        if dropped {
            drop(first);
            time::timeout(LIMIT, second).await.expect("no hang").unwrap();
            assert_eq!(&behind, b"12");
        } else {
            time::timeout(LIMIT, first).await.expect("no hang").unwrap();
            time::timeout(LIMIT, second).await.expect("no hang").unwrap();
            assert_eq!((&into, &behind), (b"1234", b"56"));
        }
    }
}

/// A read that an error has ended gives back what it had taken. Whoever takes that must not have
/// the kernel asked again: it tells an error once, and an orderly end from then on.
#[quoit::test]
async fn an_error_stays_when_the_bytes_before_it_are_read_by_lease() {
    let (client, server) = pair().await;
    let mut into = [0; 5];
    let mut reading = Box::pin(server.read_exact(&mut into));
    client.send_all("abc").await.unwrap();
    for _ in 0..2 {
        assert!(poll!(&mut reading).is_pending());
        time::sleep(Duration::from_millis(20)).await;
    }
    client.abort();
    time::sleep(Duration::from_millis(20)).await;
    let reset = std::io::ErrorKind::ConnectionReset;
    assert_eq!(reading.await.unwrap_err().kind(), reset);
    assert_eq!(server.recv().await.unwrap().to_vec(), b"abc");
    for _ in 0..100 {
        quoit::task::yield_now().await;
    }
    assert_eq!(server.recv().await.unwrap_err().kind(), reset, "no orderly end");
}

/// FIN after a part would pass for the end of the whole, also where a dropped writing half has
/// asked for it.
#[test]
fn a_writing_half_whose_bytes_the_linger_time_leaves_unsent_ends_by_a_reset() {
    sim::check(20, |sim| {
        sim.socket_buffers(1000);
        sim.host("server", || async {
            let listener = TcpListener::bind("0.0.0.0:7").await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            stream.set_linger(Duration::from_millis(50));
            let (reader, writer) = stream.into_split();
            assert!(poll!(Box::pin(writer.send(vec![1; 100_000]))).is_pending());
            drop((writer, reader));
            time::sleep(Duration::from_secs(10)).await;
        });
        sim.client("client", async {
            let stream = TcpStream::connect("server:7").await.unwrap();
            time::sleep(Duration::from_secs(1)).await;
            let error = loop {
                match time::timeout(LIMIT, stream.recv()).await.expect("no hang") {
                    Ok(lease) => assert!(!lease.is_empty(), "no orderly end"),
                    Err(error) => break error,
                }
            };
            assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
        });
        sim.run().unwrap();
    });
}

/// What has arrived is there to be read, whatever resets the connection afterwards; and an end that
/// came before the reset comes after those bytes.
#[test]
fn a_reset_between_two_simulated_hosts_takes_nothing_that_has_arrived() {
    sim::check(50, |sim| {
        sim.host("server", || async {
            let listener = TcpListener::bind("0.0.0.0:7").await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            stream.send_all("arrived").await.unwrap();
            stream.shutdown().await.unwrap();
            time::sleep(Duration::from_secs(60)).await;
        });
        sim.socket_buffers(1000);
        sim.client("client", async {
            let stream = TcpStream::connect("server:7").await.unwrap();
            time::sleep(Duration::from_secs(20)).await;
            sim::world().reset("client", "server");
            let mut got = Vec::new();
            while let Ok(lease) = stream.recv().await {
                if lease.is_empty() {
                    break;
                }
                got.extend_from_slice(&lease);
            }
            assert_eq!(got, b"arrived");
        });
        sim.run().unwrap();
    });
}

/// A crash ends a host whose program is over already, and whose core still sends.
#[test]
fn a_host_that_crashes_while_it_ends_gives_every_buffer_back() {
    sim::check(20, |sim| {
        let buffer = Arc::new([7_u8; 100_000]);
        let sent = buffer.clone();
        sim.host("server", move || {
            let buffer = Shared(sent.clone());
            async move {
                let listener = TcpListener::bind("0.0.0.0:7").await.unwrap();
                let (stream, _) = listener.accept().await.unwrap();
                let mut sending = Box::pin(stream.send(buffer));
                assert!(poll!(&mut sending).is_pending(), "the peer does not read");
            }
        });
        sim.socket_buffers(1000);
        sim.client("client", async {
            let _stream = TcpStream::connect("server:7").await.unwrap();
            time::sleep(Duration::from_secs(1)).await;
            sim::world().crash("server", Crash::Kill);
            time::sleep(Duration::from_secs(1)).await;
        });
        sim.run().unwrap();
        assert_eq!(Arc::strong_count(&buffer), 1 + 1, "ours, and the program's");
    });
}

struct Shared(Arc<[u8; 100_000]>);

// SAFETY: what it points to stays where it is, and nobody writes to it.
unsafe impl IoBuf for Shared {
    fn stable_ptr(&self) -> *const u8 {
        self.0.as_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.0.len()
    }
}

/// The same of a write whose end the core waits for, when everything else is over.
#[test]
fn a_host_that_crashes_while_a_write_of_its_is_ended_gives_the_buffer_back() {
    for crash in (0..100).map(Duration::from_micros) {
        let mut sim = sim::Sim::new(7);
        let buffer = Arc::new([7_u8; 100_000]);
        let sent = buffer.clone();
        sim.host("server", move || {
            let buffer = Shared(sent.clone());
            async move {
                let mut options = quoit::fs::OpenOptions::new();
                let file = options.write(true).create(true).open("/file").await.unwrap();
                sim::world().after(20 * crash, |world| world.crash("server", Crash::Kill));
                let mut writing = Box::pin(file.write_at(buffer, 0));
                assert!(poll!(&mut writing).is_pending(), "the disk takes its time");
            }
        });
        sim.client("client", time::sleep(Duration::from_secs(60)));
        sim.run().unwrap();
        drop(sim);
        assert_eq!(Arc::strong_count(&buffer), 1, "crashed after {crash:?}");
    }
}

/// Whoever wants to take a stream off its core may, as soon as nothing is in flight.
#[quoit::test]
async fn a_detach_that_is_forgotten_holds_up_no_other_one() {
    let (_client, server) = pair().await;
    let mut receiving = Box::pin(server.recv());
    assert!(poll!(&mut receiving).is_pending());
    time::sleep(Duration::from_millis(5)).await;
    // What it has asked for stays asked for, and nobody else is woken.
    drop(receiving);
    let (mut first, mut second) = (Box::pin(server.detach()), Box::pin(server.detach()));
    // A wake of this one comes to nothing.
    let polled = first.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending(), "the read's request is being cancelled");
    assert!(poll!(&mut second).is_pending(), "and still is");
    std::mem::forget(first);
    let start = Instant::now();
    time::timeout(LIMIT, second).await.expect("no hang").unwrap();
    // When its time is over it is asked once more, and would be done then.
    assert!(start.elapsed() < LIMIT / 2, "nobody was woken");
}

/// As on a machine whose limit of processes is reached: a file says so, instead of waiting for a
/// thread for ever.
#[test]
fn a_file_that_no_thread_can_be_had_for_says_so() {
    let builder = Runtime::builder().ring(RingChoice::Readiness);
    let runtime = builder.thread_stack_size(usize::MAX).build().unwrap();
    runtime.block_on(async {
        let read = soon("an answer", quoit::fs::read("Cargo.toml")).await;
        let error = read.expect_err("no thread has such a stack");
        assert_eq!(error.kind(), std::io::ErrorKind::ResourceBusy, "{error}");
    });
    assert!(runtime.shutdown(Duration::from_secs(5)).is_clean());
}

/// Nor does it lose its number: closing needs no thread when there is none.
#[test]
fn a_file_that_no_thread_can_be_had_for_is_closed() {
    let path = std::env::temp_dir().join(format!("quoit-is-closed-{}", std::process::id()));
    let file = std::fs::File::create(&path).unwrap();
    let number = file.as_raw_fd();
    let identity = |of: std::fs::Metadata| (of.dev(), of.ino());
    let known = identity(file.metadata().unwrap());
    let builder = Runtime::builder().ring(RingChoice::Readiness);
    let runtime = builder.thread_stack_size(usize::MAX).build().unwrap();
    runtime.block_on(async {
        let file = quoit::fs::File::from(file);
        soon("the close", file.close()).await.unwrap();
    });
    // Another test may have been given the number since.
    let there = std::fs::metadata(format!("/proc/self/fd/{number}")).ok().map(identity);
    std::fs::remove_file(path).unwrap();
    assert_ne!(there, Some(known), "descriptor {number} is still open");
}
