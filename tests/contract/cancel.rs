//! Cancel: before, while and after the kernel answers; of requests that answer once and of those
//! that go on. Whoever wins the race, the answer is told once and nothing is lost.

use std::io::ErrorKind;
use std::pin::pin;
use std::time::Duration;

use quoit::__private::books_here;
use quoit::net::TcpStream;
use quoit::{task, time};

use crate::common::*;

/// Waits until the kernel has given everything back but what `kept` requests name.
async fn settled(kept: usize) {
    until("the cancelled end", || books_here().requests_in_flight <= kept).await;
}

#[quoit::test(seeds = 12)]
async fn a_read_cancelled_before_anything_came_leaves_all_that_comes() {
    let (stream, mut peer) = pair().await;
    for round in 0..10_u8 {
        let error = stream.recv().timeout(Duration::from_millis(1)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        peer.write_all(&[round; 3]).await.unwrap();
        assert_eq!(received(&stream, 3).await, [round; 3]);
    }
}

/// The cancel and the bytes are under way together.
#[quoit::test(seeds = 40)]
async fn a_read_cancelled_while_bytes_come_returns_them_or_leaves_them() {
    let (stream, mut peer) = pair().await;
    let total = 400;
    let writer = aside(async move {
        for place in 0..total {
            peer.write_all(&bytes_of(1, place, 1)).await.unwrap();
            pause(Duration::from_micros(20 + place as u64 % 7 * 30)).await;
        }
        peer
    });
    let (mut random, mut place) = (Random(2), 0);
    while place < total {
        let limit = Duration::from_micros(random.below(250) as u64);
        match stream.recv().timeout(limit).await {
            Ok(lease) => {
                check_bytes(1, place, &lease);
                place += lease.len();
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::TimedOut),
        }
    }
    drop(writer.join().await);
    assert!(within("the end", stream.recv()).await.unwrap().is_empty());
}

/// A stream that leaves its core cancels its multishot receive, and all that it still brings comes.
#[quoit::test(seeds = 24)]
async fn a_multishot_cancelled_in_a_flood_loses_no_byte() {
    let (stream, peer) = pair().await;
    let total = fewer(2_000_000, 20);
    let writer = write_aside(peer, 3, total);
    let (mut place, mut detached) = (0, 0);
    loop {
        let lease = within("recv", stream.recv()).await.unwrap();
        if lease.is_empty() {
            break;
        }
        check_bytes(3, place, &lease);
        place += lease.len();
        if detached < 20 {
            within("detach", stream.detach()).await.unwrap();
            detached += 1;
        }
    }
    assert_eq!(place, total);
    writer.join().await;
}

#[quoit::test(seeds = 12)]
async fn a_cancel_of_what_is_done_is_nothing() {
    let (stream, mut peer) = pair().await;
    let wakes = Wakes::new();
    {
        let mut late = pin!(stream.recv().timeout(Duration::from_millis(5)));
        assert!(wakes.poll(late.as_mut()).is_pending());
        peer.write_all(b"x").await.unwrap();
        until("it is told", || wakes.count() > 0).await;
        time::sleep(Duration::from_millis(10)).await;
        // Its time has passed, and it has its answer: the answer wins.
        assert_eq!(within("late", late).await.unwrap(), b"x");
    }
    assert_eq!(within("send", stream.send("y").timeout(Duration::ZERO)).await.unwrap().0, 1);
    let mut answer = [0];
    peer.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"y");
}

#[quoit::test(seeds = 12)]
async fn an_accept_that_is_cancelled_with_its_listener_ends_for_all_who_wait() {
    let (listener, address) = listen().await;
    for _ in 0..5 {
        let error = listener.accept().timeout(Duration::from_millis(1)).await.unwrap_err();
        assert!(error.kind() == ErrorKind::TimedOut || is_shortage(&error), "{error}");
    }
    let peer = connect(address).await;
    let (stream, from) = accept(&listener).await;
    assert_eq!(from, peer.local_addr());
    within("close", listener.close()).await.unwrap();
    until_refused(address).await;
    drop((stream, peer));
    settled(0).await;
}

#[quoit::test(seeds = 12)]
async fn connects_cancelled_at_every_moment_leave_no_request() {
    let (listener, address) = listen().await;
    for moment in Moment::ALL {
        for _ in 0..4 {
            let connected = dropped_at(moment, TcpStream::connect(address)).await;
            drop(connected.transpose().unwrap());
            task::yield_now().await;
        }
    }
    drop(listener);
    settled(0).await;
    until("nothing stays open", || books_here().streams_open == 0).await;
}

/// Reads, sends, accepts and watches, all given up in one turn: the kernel gives everything back,
/// and what it had committed to goes on.
#[quoit::test(seeds = 12)]
async fn everything_given_up_at_once_comes_back() {
    let before = books_here().requests_in_flight;
    let (mut kept, mut peers, mut sent) = (Vec::new(), Vec::new(), Vec::new());
    for number in 0..fewer(60, 3) {
        let (stream, peer) = pair().await;
        match number % 4 {
            0 => drop(dropped_at(Moment::Waiting, stream.recv()).await),
            1 => drop(dropped_at(Moment::Waiting, stream.readable()).await),
            2 => drop(dropped_at(Moment::Waiting, stream.read(&mut [0; 4])).await),
            _ => {
                stream.send_all("committed").await.unwrap();
                sent.push(peers.len());
            }
        }
        kept.push(stream);
        peers.push(peer);
    }
    let (listener, _) = listen().await;
    assert!(dropped_at(Moment::Waiting, listener.accept()).await.is_none());
    some_turns().await;
    assert!(books_here().requests_in_flight > before);
    drop((kept, listener));
    let readers = aside(async move {
        for (at, peer) in peers.iter_mut().enumerate() {
            let (bytes, error) = read_to_end(peer).await;
            let expected: &[u8] = if sent.contains(&at) { b"committed" } else { b"" };
            assert!(bytes == expected && error.is_none(), "{bytes:?} {error:?}");
        }
    });
    readers.join().await;
    settled(before).await;
    until("nothing stays open", || books_here().streams_open == 0).await;
}
