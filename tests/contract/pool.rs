//! The buffer pool runs out: streams go on all the same, no byte is lost, and nobody is forgotten.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quoit::__private::is_simulated;
use quoit::buffer::Lease;
use quoit::net::TcpStream;
use quoit::time::{self, Instant};

use crate::common::*;

const SEEDS: u64 = 6;

/// Takes `count` leases and keeps them.
async fn hoard(count: usize) -> (Vec<Lease>, TcpStream, Peer) {
    let (stream, mut peer) = pair().await;
    let mut leases = Vec::new();
    for byte in 0..count {
        peer.write_all(&[byte as u8]).await.unwrap();
        let lease = within("a lease", stream.recv()).await.unwrap();
        assert_eq!(lease, [byte as u8]);
        leases.push(lease);
    }
    (leases, stream, peer)
}

#[test]
fn streams_go_on_while_a_user_holds_more_leases_than_there_are_buffers() {
    on_all_rings(
        SEEDS,
        |builder| builder.buffers(16, 4096, 16),
        async |runtime| {
            let length = fewer(1_000_000, 40);
            let (leases, _stream, _peer) = hoard(40).await;
            let mut readers = Vec::new();
            let mut writers = Vec::new();
            for seed in 0..6 {
                let (stream, peer) = pair().await;
                writers.push(write_aside(peer, seed, length));
                readers.push(quoit::spawn(async move {
                    let (mut place, mut random) = (0, Random(seed));
                    while place < length {
                        if random.below(2) == 0 {
                            let lease = within("recv", stream.recv()).await.unwrap();
                            check_bytes(seed, place, &lease);
                            place += lease.len();
                        } else {
                            let mut slice = vec![0; 1 + random.below(9_000)];
                            let count = within("read", stream.read(&mut slice)).await.unwrap();
                            check_bytes(seed, place, &slice[..count]);
                            place += count;
                        }
                    }
                    assert!(stream.recv().await.unwrap().is_empty());
                }));
            }
            for reader in readers {
                within("a reader", reader).await.unwrap();
            }
            for writer in writers {
                writer.join().await;
            }
            let books = runtime.metrics().resources;
            assert!(books.buffers_exhausted > 0 && books.private_receives > 0, "{books:?}");
            for (byte, lease) in leases.iter().enumerate() {
                assert_eq!(*lease, [byte as u8], "nobody wrote over what was lent");
            }
            drop(leases);
            until("all come back", || runtime.metrics().leases_out == 0).await;
        },
    );
}

#[test]
fn the_pool_grows_up_to_its_limit_before_memory_is_private() {
    on_all_rings(
        SEEDS,
        |builder| builder.buffers(16, 4096, 64),
        async |runtime| {
            let (mut leases, stream, mut peer) = hoard(60).await;
            assert_eq!(runtime.metrics().resources.private_receives, 0);
            assert_eq!(runtime.metrics().leases_out, 60);
            for byte in 0..20 {
                peer.write_all(&[byte]).await.unwrap();
                leases.push(within("recv", stream.recv()).await.unwrap());
                assert_eq!(leases[leases.len() - 1], [byte]);
            }
            assert!(runtime.metrics().resources.private_receives > 0);
            assert!(runtime.metrics().leases_out <= 64);
        },
    );
}

/// Leases that come back while the core sleeps, from its own tasks and from where no core is:
/// nobody is left waiting for an unrelated event.
#[test]
fn starved_streams_do_not_wait_for_an_unrelated_event() {
    on_all_rings(
        SEEDS,
        |builder| builder.buffers(4, 1024, 4),
        async |_| {
            let rounds = fewer(60, 6);
            let mut echoes = Vec::new();
            for connection in 0..8_u64 {
                let (stream, mut peer) = pair().await;
                quoit::spawn(async move {
                    loop {
                        let lease = stream.recv().await.unwrap();
                        if lease.is_empty() {
                            return;
                        }
                        if connection % 2 == 0 {
                            stream.send(lease).await.unwrap();
                        } else {
                            stream.send_all(lease.to_vec()).await.unwrap();
                            outside(|| drop(lease));
                        }
                    }
                });
                echoes.push(aside(async move {
                    let mut worst = Duration::ZERO;
                    let mut answer = vec![0; 6_000];
                    for round in 0..rounds {
                        let bytes = bytes_of(connection, round * 6_000, 6_000);
                        let start = Instant::now();
                        peer.write_all(&bytes).await.unwrap();
                        peer.read_exact(&mut answer).await.unwrap();
                        assert_eq!(answer, bytes);
                        worst = worst.max(start.elapsed());
                    }
                    worst
                }));
            }
            for echo in echoes {
                until("an echo", || echo.is_finished()).await;
                let worst = echo.join().await;
                assert!(worst < Duration::from_millis(900), "a stall of {worst:?}");
            }
        },
    );
}

/// A stream that found no buffer tries again when there is one for it, not whenever there is any.
#[test]
fn starved_streams_do_not_all_try_for_the_same_buffer() {
    const CONNECTIONS: usize = 64;
    on_all_rings(
        SEEDS,
        |builder| builder.buffers(2, 1024, 2),
        async |runtime| {
            let length = 1024 * fewer(40, 4);
            let leases = Rc::new(Cell::new(0));
            let (mut readers, mut peers) = (Vec::new(), Vec::new());
            for _ in 0..CONNECTIONS {
                let (stream, mut peer) = pair().await;
                peer.write_all(&vec![7; length]).await.unwrap();
                peers.push(peer);
                let leases = leases.clone();
                readers.push(quoit::spawn(async move {
                    let mut count = 0;
                    while count < length {
                        count += within("recv", stream.recv()).await.unwrap().len();
                        leases.set(leases.get() + 1);
                        quoit::task::yield_now().await;
                    }
                }));
            }
            for reader in readers {
                within("a reader", reader).await.unwrap();
            }
            let books = runtime.metrics().resources;
            // Each lease is full, but where a simulated kernel cuts receives short.
            let full = (CONNECTIONS * length / 1024) as u64;
            let leases = if is_simulated() { leases.get() } else { full };
            assert!(books.buffers_exhausted <= 2 * leases, "{leases} leases, {books:?}");
        },
    );
}

#[test]
fn busy_streams_share_a_small_pool_fairly() {
    const CONNECTIONS: usize = 12;
    on_all_rings(
        SEEDS,
        |builder| builder.buffers(4, 4096, 16),
        async |_| {
            let stop = Arc::new(AtomicBool::new(false));
            let mut counts = Vec::new();
            let mut peers = Vec::new();
            for _ in 0..CONNECTIONS {
                let (stream, peer) = pair().await;
                peers.push((peer, 0));
                let count = Rc::new(Cell::new(0_usize));
                counts.push(count.clone());
                quoit::spawn(async move {
                    while let Ok(lease) = stream.recv().await {
                        if lease.is_empty() {
                            return;
                        }
                        count.set(count.get() + lease.len());
                        stream.send(lease).await.unwrap();
                    }
                });
            }
            let peers = aside(keep_busy(peers, stop.clone()));
            time::sleep(Duration::from_millis(fewer(700, 35) as u64)).await;
            let bytes: Vec<_> = counts.iter().map(|count| count.get()).collect();
            stop.store(true, Ordering::Relaxed);
            until("the peers", || peers.is_finished()).await;
            peers.join().await;
            assert!(is_fair(&bytes), "{bytes:?}");
        },
    );
}

/// Writes to all in turn, as far as each has answered, and reads the answers. One thread for all:
/// of twelve, the machine would run some more often than others, and that would be measured.
async fn keep_busy(mut peers: Vec<(Peer, usize)>, stop: Arc<AtomicBool>) {
    const AHEAD: usize = 64 * 1024;
    let (chunk, mut answer) = ([1; 16_384], [0; 16_384]);
    let started = std::time::Instant::now();
    loop {
        let stopped = stop.load(Ordering::Relaxed);
        let mut has_moved = false;
        for (peer, waiting) in &mut peers {
            let room = if stopped { 0 } else { chunk.len().min(AHEAD - *waiting) };
            if let Ok(count @ 1..) = peer.try_write(&chunk[..room]) {
                (*waiting, has_moved) = (*waiting + count, true);
            }
            if let Ok(count @ 1..) = peer.try_read(&mut answer) {
                (*waiting, has_moved) = (*waiting - count, true);
            }
        }
        if stopped && peers.iter().all(|(_, waiting)| *waiting == 0) {
            return;
        }
        if !has_moved {
            pause(Duration::from_micros(50)).await;
        }
        assert!(is_simulated() || started.elapsed() < PATIENCE, "an answer does not come");
    }
}

fn is_fair(bytes: &[usize]) -> bool {
    let (least, most) = (bytes.iter().min().unwrap(), bytes.iter().max().unwrap());
    *least > 0 && most / least < 8
}

/// A stream that always has more to bring than the pool has room for, and others that bring little:
/// what comes back to the pool goes to whoever has waited longest, not to who is quickest.
#[test]
fn a_flood_leaves_buffers_for_the_others() {
    on_all_rings(
        SEEDS,
        |builder| builder.buffers(4, 1024, 4),
        async |runtime| {
            let stop = Arc::new(AtomicBool::new(false));
            let (flooded, mut source) = pair().await;
            let flooding = stop.clone();
            let flood = aside(async move {
                while !flooding.load(Ordering::Relaxed) {
                    source.write_all(&[1; 100_000]).await.unwrap();
                }
            });
            let count = Rc::new(Cell::new(0));
            let counted = count.clone();
            let drain = quoit::spawn(async move {
                loop {
                    match flooded.recv().await.unwrap() {
                        lease if lease.is_empty() => return,
                        lease => counted.set(counted.get() + lease.len()),
                    }
                }
            });
            let (rounds, enough) = (fewer(50, 5), fewer(1_000_000, 20));
            let mut echoes = Vec::new();
            for connection in 0..4_u8 {
                let (stream, mut peer) = pair().await;
                quoit::spawn(async move {
                    loop {
                        match stream.recv().await.unwrap() {
                            lease if lease.is_empty() => return,
                            lease => stream.send_all(lease).await.unwrap(),
                        }
                    }
                });
                echoes.push(aside(async move {
                    let mut worst = Duration::ZERO;
                    for _ in 0..rounds {
                        let (start, mut answer) = (Instant::now(), [0]);
                        peer.write_all(&[connection]).await.unwrap();
                        peer.read_exact(&mut answer).await.unwrap();
                        assert_eq!(answer, [connection]);
                        worst = worst.max(start.elapsed());
                        pause(Duration::from_millis(1)).await;
                    }
                    worst
                }));
            }
            for echo in echoes {
                until("an echo", || echo.is_finished()).await;
                let worst = echo.join().await;
                println!("worst {worst:?}");
                assert!(worst < Duration::from_millis(500), "a stall of {worst:?}");
            }
            until("the flood goes on, too", || count.get() > enough).await;
            stop.store(true, Ordering::Relaxed);
            within("the flood ends", drain).await.unwrap();
            flood.join().await;
            println!("{} {:?}", count.get(), runtime.metrics().resources);
        },
    );
}

#[quoit::test(seeds = 6)]
async fn a_lease_of_a_kept_connection_survives_everything_else() {
    let (leases, stream, peer) = hoard(3).await;
    drop((stream, peer));
    some_turns().await;
    for _ in 0..200 {
        let (other, mut peer) = pair().await;
        peer.write_all(&[0xff; 5_000]).await.unwrap();
        other.read_exact(&mut [0; 5_000]).await.unwrap();
    }
    for (byte, lease) in leases.iter().enumerate() {
        assert_eq!(*lease, [byte as u8]);
    }
}

/// Buffers that come back in another order than they went out are lent again, each to one only.
#[test]
fn leases_come_back_in_any_order() {
    on_all_rings(
        SEEDS,
        |builder| builder.buffers(8, 256, 8),
        async |runtime| {
            let (stream, mut peer) = pair().await;
            let (mut random, mut held, mut place) = (Random(5), Vec::new(), 0);
            for round in 0..400_usize {
                peer.write_all(&bytes_of(9, round, 1)).await.unwrap();
                let lease = within("recv", stream.recv()).await.unwrap();
                held.push((place, lease));
                place += 1;
                // Some of them, from anywhere in the line; each still holds its own byte.
                while held.len() > 7 || (random.below(3) == 0 && !held.is_empty()) {
                    let (at, lease) = held.swap_remove(random.below(held.len()));
                    check_bytes(9, at, &lease);
                }
            }
            held.iter().for_each(|(at, lease)| check_bytes(9, *at, lease));
            drop(held);
            until("all come back", || runtime.metrics().leases_out == 0).await;
        },
    );
}

/// More buffers than the 16 bits count with which the kernel and we follow the ring of them: it
/// goes round, and no buffer is lent twice or forgotten.
#[test]
fn the_ring_of_buffers_goes_round() {
    const SIZE: usize = 16;
    on_all_rings(
        SEEDS,
        |builder| builder.buffers(8, SIZE as u32, 8),
        async |runtime| {
            let total = fewer(SIZE * 80_000, 1_000);
            let (stream, peer) = pair().await;
            let writer = write_aside(peer, 4, total);
            let (mut place, mut leases, mut before) = (0, 0, None);
            while place < total {
                let lease = within("recv", stream.recv()).await.unwrap();
                check_bytes(4, place, &lease);
                place += lease.len();
                leases += usize::from(lease.len() <= SIZE);
                // One stays out while the next comes in.
                before = Some(lease);
            }
            drop(before);
            writer.join().await;
            until("all come back", || runtime.metrics().leases_out == 0).await;
            let books = runtime.metrics().resources;
            println!("{leases} leases of provided buffers, {books:?}");
            assert!(is_simulated() || leases > 1 << 16, "{leases}: it has not gone round");
        },
    );
}
