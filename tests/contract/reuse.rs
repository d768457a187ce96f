//! Descriptor numbers: closed at the right moment, and never served for the connection that had the
//! number before. Each case has a process of its own, so that no other test takes the number; a
//! simulated world has its own numbers anyway.

use std::os::fd::AsRawFd;
use std::time::Duration;

use quoit::__private::is_simulated;
use quoit::net::TcpStream;

use crate::common::*;

const ROUNDS: usize = 21;
const SEEDS: u64 = 12;

/// A simulated number is not told, and is the lowest that is free, as the kernel's are (open(2)).
fn number_of(stream: &TcpStream) -> Option<i32> {
    (!is_simulated()).then(|| stream.as_raw_fd())
}

/// Every connection of ours gets the number of the one before, with a receive armed when it goes.
fn serve_the_same_number() {
    on_all_rings(
        SEEDS,
        |builder| builder,
        async |_| {
            let (listener, address) = listen().await;
            let mut numbers = Vec::new();
            for round in 0..ROUNDS {
                let mut peer = connect(address).await;
                let (stream, _) = accept(&listener).await;
                numbers.push(number_of(&stream));
                peer.write_all(&[round as u8]).await.unwrap();
                let lease = within("the right byte", stream.recv()).await.unwrap();
                assert_eq!(lease, [round as u8]);
                // Leaves the multishot receive armed.
                assert!(dropped_at(Moment::Waiting, stream.recv()).await.is_none());
                drop(stream);
                until("FIN was sent", || matches!(peer.try_read(&mut [0]), Ok(0))).await;
            }
            let same = numbers.windows(2).filter(|two| two[0] == two[1]).count();
            assert!(same > ROUNDS / 2, "the numbers were to be the same: {numbers:?}");
        },
    );
}

/// A client that connects and goes away without a word leaves nothing behind for the next number.
fn connect_and_drop() {
    on_all_rings(
        SEEDS,
        |builder| builder,
        async |_| {
            let (peers, address) = Acceptor::new(8);
            for round in 0..ROUNDS {
                let stream = within("connect", TcpStream::connect(address)).await.unwrap();
                let number = number_of(&stream);
                let mut peer = peers.accept().await;
                if round % 2 == 0 {
                    drop(stream);
                    assert_eq!(peer.read(&mut [0]).await.unwrap(), 0);
                } else {
                    peer.write_all(&[round as u8]).await.unwrap();
                    let read = within("what the peer wrote", stream.recv()).await.unwrap();
                    assert_eq!(read, [round as u8], "on number {number:?}");
                    peer.write_all(&[1]).await.unwrap();
                    let mut byte = [0];
                    within("a slice", stream.read(&mut byte)).await.unwrap();
                    drop(stream);
                }
            }
        },
    );
}

/// A connect that is dropped half-way closes what it opened.
fn connect_half_way() {
    on_all_rings(
        SEEDS,
        |builder| builder,
        async |runtime| {
            // A full queue: further connects wait for a handshake that never comes.
            let (_full, address) = Acceptor::new(0);
            let _first = connect(address).await;
            let idle = open_descriptors();
            for _ in 0..ROUNDS {
                for moment in [Moment::Unpolled, Moment::Waiting] {
                    assert!(dropped_at(moment, TcpStream::connect(address)).await.is_none());
                }
                let limit = Duration::from_millis(1);
                let late = within("connect", TcpStream::connect_timeout(&address, limit)).await;
                assert_eq!(late.unwrap_err().kind(), std::io::ErrorKind::TimedOut);
            }
            until("all are over", || runtime.metrics().requests_in_flight == 0).await;
            assert_eq!(open_descriptors(), idle);
            let (stream, mut peer) = pair().await;
            peer.write_all(b"x").await.unwrap();
            assert_eq!(within("recv", stream.recv()).await.unwrap(), b"x");
        },
    );
}

#[test]
#[ignore = "a case for a child process"]
fn child_serves_the_same_number() {
    serve_the_same_number();
}

#[test]
fn a_number_serves_the_connection_that_has_it_and_fin_goes_out_under_an_armed_receive() {
    in_a_child("reuse::child_serves_the_same_number");
}

#[test]
#[ignore = "a case for a child process"]
fn child_connects_and_drops() {
    connect_and_drop();
}

#[test]
fn a_connection_that_was_never_used_leaves_nothing_to_the_next_with_its_number() {
    in_a_child("reuse::child_connects_and_drops");
}

#[test]
#[ignore = "a case for a child process"]
fn child_connects_half_way() {
    connect_half_way();
}

#[test]
fn a_dropped_connect_closes_what_it_opened() {
    in_a_child("reuse::child_connects_half_way");
}
