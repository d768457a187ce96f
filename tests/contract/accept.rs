//! Accept: a dropped `accept()` never loses, doubles or leaks a connection.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use quoit::__private::{books_here, is_simulated};
use quoit::Runtime;
use quoit::net::{TcpListener, TcpSocket, TcpStream};
use quoit::task;

use crate::common::*;

const SEEDS: u64 = 12;

/// As the kernel has it: what is set on a listener holds for its connections.
#[quoit::test(seeds = 4)]
async fn connections_inherit_the_delay_of_their_listener() {
    for on in [true, false] {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_nodelay(on).unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(8).unwrap();
        let address = listener.local_addr().unwrap();
        let peer = connect_many(address, 1).await;
        let (stream, _) = within("accept", listener.accept()).await.unwrap();
        assert_eq!(stream.nodelay().unwrap(), on);
        drop(peer);
    }
}

#[test]
fn connections_of_a_foreign_listener_are_without_delay() {
    on_each_runtime(
        |builder| builder,
        async |_| {
            let foreign = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let address = foreign.local_addr().unwrap();
            // One is made before the listener is ours, as when it is inherited.
            let mut peers = connect_many(address, 1).await;
            let listener = TcpListener::from_std(foreign).unwrap();
            peers.extend(connect_many(address, 3).await);
            for _ in 0..2 {
                let (stream, _) = within("accept", listener.accept()).await.unwrap();
                assert!(stream.nodelay().unwrap());
            }
            let ahead = listener.close().await.unwrap();
            assert!(ahead.iter().all(|stream| stream.nodelay().unwrap()));
            drop(peers);
        },
    );
}

/// Connects `count` times, aside; each connection says its number and wants it back.
fn clients(address: SocketAddr, count: u32) -> Aside<()> {
    aside(async move {
        // In waves, so that there are both moments with many waiting and with none.
        for wave in (0..count).collect::<Vec<_>>().chunks(40) {
            let mut peers = connect_many(address, wave.len()).await;
            for (peer, number) in peers.iter_mut().zip(wave) {
                peer.write_all(&number.to_be_bytes()).await.expect("accepted sooner or later");
            }
            for (peer, number) in peers.iter_mut().zip(wave) {
                let mut answer = [0; 4];
                peer.read_exact(&mut answer).await.expect("somebody got this connection");
                assert_eq!(u32::from_be_bytes(answer), *number);
            }
        }
    })
}

async fn answer(stream: TcpStream) -> u32 {
    let mut number = [0; 4];
    stream.read_exact(&mut number).await.expect("the client wrote it");
    stream.send_all(number.to_vec()).await.expect("the client reads it");
    u32::from_be_bytes(number)
}

#[test]
fn accepts_dropped_at_every_moment_lose_and_double_no_connection() {
    on_all_rings(
        SEEDS,
        |builder| builder,
        async |runtime| {
            let count = fewer(2_000, 20) as u32;
            let (listener, address) = listen().await;
            let clients = clients(address, count);
            let (mut random, mut answers, mut dropped) = (Random(7), Vec::new(), [0; 4]);
            while answers.len() < count as usize {
                let moment = Moment::any(&mut random);
                let accepted = within("accept", dropped_at(moment, listener.accept())).await;
                match accepted {
                    Some(Err(error)) if is_shortage(&error) => {}
                    Some(connection) => {
                        let (stream, _) = connection.expect("a connection");
                        answers.push(quoit::spawn(answer(stream)));
                    }
                    None => dropped[moment as usize] += 1,
                }
                if random.below(4) == 0 {
                    task::yield_now().await;
                }
            }
            let mut numbers = Vec::new();
            for answer in answers {
                numbers.push(within("an answer", answer).await.expect("no panic"));
            }
            numbers.sort_unstable();
            assert!(numbers.iter().copied().eq(0..count), "each connection exactly once");
            assert!(dropped[..3].iter().all(|count| *count > 0), "each moment came: {dropped:?}");
            clients.join().await;

            let books = runtime.metrics().resources;
            assert_eq!(books.connections_accepted, u64::from(count));
            assert_eq!(books.connections_delivered, u64::from(count));
        },
    );
}

#[quoit::test(seeds = 12)]
async fn a_wake_that_meets_a_dropped_accept_passes_on() {
    let (listener, address) = listen().await;
    let (one, two) = (Wakes::new(), Wakes::new());
    let mut first = Box::pin(listener.accept());
    let mut second = pin!(listener.accept());
    assert!(one.poll(first.as_mut()).is_pending());
    assert!(two.poll(second.as_mut()).is_pending());
    let _peer = connect(address).await;
    until("the first in line is told", || one.count() == 1).await;
    assert_eq!(two.count(), 0, "one connection, one wake");
    drop(first);
    assert_eq!(two.count(), 1, "the wake passes on");
    assert!(two.poll(second.as_mut()).is_ready());
}

#[quoit::test(seeds = 12)]
async fn concurrent_accepts_are_served_in_the_order_of_their_first_poll() {
    let (listener, address) = listen().await;
    let wakes = Wakes::new();
    let mut first = pin!(listener.accept());
    let mut second = pin!(listener.accept());
    assert!(wakes.poll(first.as_mut()).is_pending());
    assert!(wakes.poll(second.as_mut()).is_pending());
    let peers = connect_many(address, 2).await;
    until("a connection", || wakes.count() > 0).await;
    some_turns().await;
    assert!(wakes.poll(second.as_mut()).is_pending(), "the first stands before it");
    for (future, peer) in [first, second].into_iter().zip(&peers) {
        let Poll::Ready(accepted) = wakes.poll(future) else { panic!("both are there") };
        // A drawn shortage is told to the first, and the connection goes to the other.
        match accepted {
            Err(error) if is_simulated() && is_shortage(&error) => return,
            accepted => assert_eq!(accepted.unwrap().1, peer.local_addr()),
        }
    }
}

#[test]
fn a_listener_takes_no_more_than_its_limit_ahead_of_accept() {
    const LIMIT: usize = 8;
    // What one turn of the completion ring brings on top is bounded by the kernel's queue.
    const QUEUE: usize = 32;
    on_all_rings(
        SEEDS,
        |builder| builder.accept_ahead(LIMIT),
        async |runtime| {
            let socket = TcpSocket::new_v4().unwrap();
            socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let listener = socket.listen(QUEUE as u32).unwrap();
            let address = listener.local_addr().unwrap();
            let accepted = || runtime.metrics().resources.connections_accepted as usize;

            let mut peers = connect_many(address, QUEUE).await;
            some_turns().await;
            assert_eq!(accepted(), 0, "accept-ahead starts at the first accept");
            let (stream, _) = accept(&listener).await;
            some_turns().await;
            peers.extend(connect_many(address, QUEUE / 4).await);
            some_turns().await;
            let ahead = accepted() - 1;
            assert!(ahead <= LIMIT + QUEUE, "{ahead} were taken ahead");
            assert!(
                ahead < QUEUE + QUEUE / 4 - 1,
                "the second wave was left to the kernel: {ahead}"
            );
            for _ in 1..peers.len() {
                accept(&listener).await;
            }
            assert_eq!(accepted(), peers.len());
            drop(stream);
        },
    );
}

/// Whatever the kernel could not do for a while, and however it ends a request: as long as there is
/// room for connections ahead, somebody asks for them.
#[quoit::test(seeds = 150)]
async fn a_listener_goes_on_by_itself() {
    let (listener, address) = listen().await;
    let _peers = connect_many(address, 10).await;
    drop(accept(&listener).await);
    let accepted = || books_here().resources.connections_accepted;
    until("all are taken ahead", || accepted() == 10).await;
}

#[test]
fn closing_a_listener_returns_what_nobody_accepted() {
    on_all_rings(
        SEEDS,
        |builder| builder,
        async |runtime| {
            let (listener, address) = listen().await;
            let mut peers = connect_many(address, 10).await;
            let (first, _) = accept(&listener).await;
            let accepted = || runtime.metrics().resources.connections_accepted;
            until("all are taken ahead", || accepted() == 10).await;
            let undelivered = within("close", listener.close()).await.unwrap();
            assert_eq!(undelivered.len(), 9);
            for (index, peer) in peers.iter_mut().enumerate() {
                peer.write_all(&[index as u8]).await.unwrap();
            }
            for (index, stream) in [first].iter().chain(&undelivered).enumerate() {
                let lease = within("recv", stream.recv()).await.unwrap();
                assert_eq!(lease, [index as u8], "in the order of arrival, and usable");
            }
            assert_eq!(runtime.metrics().resources.connections_undelivered, 0);
            until_refused(address).await;
        },
    );
}

#[test]
fn dropping_a_listener_closes_and_counts_what_nobody_accepted() {
    on_all_rings(
        SEEDS,
        |builder| builder,
        async |runtime| {
            let (listener, address) = listen().await;
            let mut peers = connect_many(address, 10).await;
            drop(accept(&listener).await);
            let books = || runtime.metrics().resources;
            until("all are taken ahead", || books().connections_accepted == 10).await;
            drop(listener);
            until("the listener is gone", || runtime.metrics().listeners_open == 0).await;
            assert_eq!(books().connections_undelivered, 9);
            for peer in &mut peers {
                let (bytes, _) = read_to_end(peer).await;
                assert!(bytes.is_empty(), "the peer sees the end, and does not wait for ever");
            }
        },
    );
}

#[quoit::test(seeds = 12)]
async fn a_listener_dropped_while_others_wait_in_its_accept_is_not_there_any_more() {
    let (listener, address) = listen().await;
    let listener = std::rc::Rc::new(listener);
    let shared = listener.clone();
    let waiting = quoit::spawn(async move { shared.accept().await.map(|_| ()) });
    some_turns().await;
    waiting.abort();
    assert!(waiting.await.is_err());
    drop(listener);
    until_refused(address).await;
}

/// Runs out of descriptors with connections waiting, and comes back. In a process of its own, since
/// the limit is the process's.
fn out_of_descriptors(runtime: &Runtime) {
    runtime.block_on(async {
        let (listener, address) = listen().await;
        let mut peers = connect_many(address, 3).await;
        for (index, peer) in peers.iter_mut().enumerate() {
            peer.write_all(&[index as u8]).await.unwrap();
        }
        let before = set_descriptor_limit(lowest_free_descriptor());
        let error = within("accept", listener.accept()).await.expect_err("no number is free");
        assert_eq!(error.kind(), std::io::Error::from_raw_os_error(libc::EMFILE).kind());
        let text = error.to_string();
        assert!(text.contains("ulimit -n") && text.contains("stays queued"), "{text}");

        let (start, turns, used) = (Instant::now(), runtime.metrics().turns, processor_time());
        let mut errors = 0;
        while start.elapsed() < Duration::from_millis(500) {
            match listener.accept().timeout(Duration::from_millis(100)).await {
                Err(error) if error.kind() == ErrorKind::TimedOut => {}
                Err(_) => errors += 1,
                Ok(_) => panic!("where did the number come from?"),
            }
        }
        let turns = runtime.metrics().turns - turns;
        assert!(errors <= 8, "10, 20, 40 ... ms apart, not {errors} times");
        assert!(turns < 100, "{turns} turns: it spins");
        let used = processor_time() - used;
        assert!(used < Duration::from_millis(250), "{used:?} of the processor: it spins");

        // Long enough for one more failure, which nobody waits to hear of.
        quoit::time::sleep(Duration::from_millis(700)).await;
        set_descriptor_limit(before);
        let accepted = || runtime.metrics().resources.connections_accepted;
        until("it accepts again by itself", || accepted() == 3).await;
        for index in 0..3 {
            let (stream, _) = within("accept", listener.accept()).await.expect("no stale error");
            assert_eq!(stream.recv().await.unwrap(), [index], "nothing was lost meanwhile");
        }
        let more = listener.accept().timeout(Duration::from_millis(1)).await.unwrap_err();
        assert_eq!(more.kind(), ErrorKind::TimedOut, "no stale error either");
    });
}

#[test]
#[ignore = "a case for a child process"]
fn child_runs_out_of_descriptors() {
    on_each_ring(|builder| out_of_descriptors(&builder.build().unwrap()));
}

#[test]
fn without_descriptors_accept_says_so_once_waits_and_loses_nothing() {
    in_a_child("accept::child_runs_out_of_descriptors");
}
