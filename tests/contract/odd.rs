//! Odd inputs and bad neighbours: times without end and of no length, tasks that panic, a clock
//! that stands while bytes move.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use quoit::__private::is_simulated;
use quoit::net::{TcpListener, TcpStream};
use quoit::time::{self, Instant};

use crate::common::*;

#[quoit::test(seeds = 12)]
async fn endless_times_never_come_and_zero_times_come_at_once() {
    let (stream, mut peer) = narrow_pair().await;
    let (listener, address) = listen().await;
    for long in [Duration::MAX, Duration::from_secs(u64::MAX), Duration::from_secs(1 << 40)] {
        stream.set_linger(long);
        let early = Duration::from_millis(3);
        assert!(time::timeout(early, stream.recv().timeout(long)).await.is_err());
        assert!(time::timeout(early, listener.accept().timeout(long)).await.is_err());
        assert!(time::timeout(early, time::timeout(long, stream.readable())).await.is_err());
        assert!(time::timeout(early, time::sleep(long)).await.is_err());
        assert_eq!(within("send", stream.send("x").timeout(long)).await.unwrap().0, 1);
        peer.read_exact(&mut [0]).await.unwrap();
        let connected = TcpStream::connect_timeout(&address, long);
        drop(within("connect", connected).await.unwrap());
        accept(&listener).await;
    }
    let zero = Duration::ZERO;
    for _ in 0..3 {
        let error = within("recv", stream.recv().timeout(zero)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        let error = within("accept", listener.accept().timeout(zero)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(within("timeout", time::timeout(zero, stream.readable())).await.is_err());
        within("sleep", time::sleep(zero)).await;
    }
    // What can be done at once is done, however short the time.
    assert_eq!(within("send", stream.send("y").timeout(zero)).await.unwrap().0, 1);
    stream.set_linger(zero);
    peer.write_all(b"unread").await.unwrap();
    some_turns().await;
    let error = within("close", stream.close()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut, "input was unread, and there was no time for it");
}

#[quoit::test(seeds = 12)]
async fn panicking_tasks_disturb_nobody() {
    let (listener, address) = listen().await;
    let server = quoit::spawn(async move {
        for number in 0..30 {
            let (stream, _) = accept(&listener).await;
            drop(quoit::spawn(async move {
                let (first, rest) = (stream.recv().await.unwrap(), &mut [0; 5]);
                let rest = &mut rest[first.len()..];
                stream.read_exact(rest).await.unwrap();
                assert!(number % 3 != 0, "as arranged, with a lease and a stream in hand");
                stream.send(first).await.unwrap();
                stream.write_all(rest).await.unwrap();
            }));
        }
    });
    for number in 0..30 {
        let stream = within("connect", TcpStream::connect(address)).await.unwrap();
        stream.send_all("hello").await.unwrap();
        let mut answer = Vec::new();
        while answer.len() < 5 {
            match within("an answer or the end", stream.recv()).await.unwrap() {
                lease if lease.is_empty() => break,
                lease => answer.extend_from_slice(&lease),
            }
        }
        let expected: &[u8] = if number % 3 == 0 { b"" } else { b"hello" };
        assert_eq!(answer, expected, "connection {number}");
    }
    within("the server", server).await.unwrap();
}

/// A payload whose drop does I/O, and one whose drop panics, run when nothing is borrowed.
struct Meddler(Rc<TcpStream>, bool);

impl Drop for Meddler {
    fn drop(&mut self) {
        let _ = self.0.try_write(b"last");
        let _ = self.0.try_read(&mut [0; 8]);
        drop(Rc::clone(&self.0));
        drop(quoit::spawn(async {}));
        assert!(!self.1, "as arranged");
    }
}

#[quoit::test(seeds = 12)]
async fn drops_that_call_back_and_panic_find_the_core_in_order() {
    for panics in [false, true] {
        let (stream, mut peer) = pair().await;
        let stream = Rc::new(stream);
        let meddler = Meddler(stream.clone(), panics);
        let task = quoit::spawn(async move {
            let _meddler = meddler;
            std::future::pending::<()>().await;
        });
        some_turns().await;
        task.abort();
        let _ = within("the task", task).await;
        let mut last = [0; 4];
        peer.read_exact(&mut last).await.unwrap();
        assert_eq!(&last, b"last");
        peer.write_all(b"go on").await.unwrap();
        assert_eq!(received(&stream, 5).await, b"go on");
    }
}

/// Stops the clock, where it does not stand anyway: that of a simulation never runs, and jumps just
/// so.
fn stop_the_clock() {
    if !is_simulated() {
        time::pause();
    }
}

#[quoit::test(seeds = 12)]
async fn a_stopped_clock_does_not_run_ahead_of_bytes_on_their_way() {
    stop_the_clock();
    let slept = Duration::from_millis(10);
    let (listener, address) = listen().await;
    let server = quoit::spawn(async move {
        let (stream, _) = accept(&listener).await;
        loop {
            stream.read_exact(&mut [0; 4]).await.unwrap();
            time::sleep(slept).await;
            stream.send_all("ping").await.unwrap();
        }
    });
    let stream = TcpStream::connect(address).await.unwrap();
    for round in 0..20 {
        let start = Instant::now();
        stream.send_all("ping").await.unwrap();
        let answer = time::timeout(Duration::from_secs(3600), stream.read_exact(&mut [0; 4])).await;
        answer.expect("an hour has not passed").unwrap();
        // Bytes take no time of a clock that stands, and some of a simulated one.
        let on_the_way = start.elapsed() - slept;
        let most = Duration::from_millis(if is_simulated() { 5 } else { 0 });
        // The first waits for an accept, which a simulated shortage of descriptors delays.
        let is_first = is_simulated() && round == 0;
        assert!(is_first || on_the_way <= most, "no more than was slept, and {on_the_way:?}");
    }
    server.abort();
}

#[quoit::test(seeds = 12)]
async fn under_a_stopped_clock_a_read_that_has_to_wait_times_out_at_once() {
    const DAY: Duration = Duration::from_secs(86_400);
    stop_the_clock();
    let (stream, _peer) = pair().await;
    let (real, start) = (std::time::Instant::now(), Instant::now());
    let error = stream.recv().timeout(DAY).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    // A turn of a simulated core takes time.
    let late = start.elapsed() - DAY;
    let most = Duration::from_millis(u64::from(is_simulated()));
    assert!(late <= most, "{late:?}");
    assert!(real.elapsed() < PATIENCE);
}

#[quoit::test(seeds = 12)]
async fn addresses_that_cannot_be_had_are_errors_and_nothing_more() {
    let (listener, address) = listen().await;
    let taken = TcpListener::bind(address).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::AddrInUse);
    drop(listener);
    until_refused(address).await;
    let refused = within("connect", TcpStream::connect(address)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    // Each address is tried in turn.
    let (listener, good) = listen().await;
    let several: Vec<SocketAddr> = vec![address, good];
    let stream = within("connect", TcpStream::connect(&several[..])).await.unwrap();
    assert_eq!(stream.peer_addr().unwrap(), good);
    assert!(TcpStream::connect(&[] as &[SocketAddr]).await.is_err());
    drop(listener);
}
