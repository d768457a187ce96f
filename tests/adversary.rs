//! Safe programs that set out to break the runtime: to have memory written that is not theirs, to
//! lose a byte or put it out of order, to reach a stranger's connection, to leave somebody waiting.
//!
//! Worth running under AddressSanitizer, too: what the first of them does shows as a heap overflow.

#![allow(clippy::unwrap_used, reason = "a failure is a panic here")]

mod common;

use std::cell::RefCell;
use std::future::Future;
use std::io::{Read, Write};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Wake, Waker};
use std::time::Duration;

use futures::poll;
use quoit::buffer::{IoBuf, IoBufMut};
use quoit::net::{OwnedWriteHalf, TcpListener, TcpStream};
use quoit::time::{sleep, timeout};
use quoit::{RingChoice, Runtime};

use crate::common::{SOON, soon, with_std};

#[quoit::test]
async fn a_clone_of_a_slice_claims_no_room_that_it_does_not_have() {
    let mut bytes = Vec::with_capacity(64 * 1024);
    bytes.extend_from_slice(b"head");
    // A clone of a vector has the bytes, and not the capacity.
    let room = bytes.slice_mut(2..);
    let mut clone = room.clone();
    assert_eq!(&clone[..], b"ad");
    assert!(clone.bytes_total() <= clone.inner().capacity() - 2);

    let (stream, mut peer) = with_std().await;
    peer.write_all(&[7; 60_000]).unwrap();
    sleep(Duration::from_millis(5)).await;
    loop {
        let (count, read) = stream.recv_into(clone).await.unwrap();
        clone = read;
        assert!(count <= clone.bytes_init());
        if count > 0 {
            break;
        }
    }
    assert!(clone.inner().len() <= clone.inner().capacity());
    assert_eq!(&clone.clone().into_inner()[..2], b"he");
}

#[quoit::test]
async fn a_time_limit_that_has_passed_stands_in_nobodys_way() {
    let (stream, mut peer) = with_std().await;
    let mut late = stream.recv().timeout(Duration::from_millis(5));
    assert!((&mut late).await.is_err());
    // `late` is still there.
    peer.write_all(b"bytes").unwrap();
    assert_eq!(soon("the next read", stream.recv()).await.unwrap(), "bytes");
    drop(late);

    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut late = listener.accept().timeout(Duration::from_millis(5));
    assert!((&mut late).await.is_err());
    let _peer = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    soon("the next accept", listener.accept()).await.unwrap();
    drop(late);
}

#[quoit::test]
async fn what_a_dropped_read_had_taken_survives_a_detach() {
    let (stream, mut peer) = with_std().await;
    let mut into = [0; 8];
    {
        let mut read = pin!(stream.read_exact(&mut into));
        assert!(poll!(&mut read).is_pending());
        peer.write_all(b"12345").unwrap();
        sleep(Duration::from_millis(5)).await;
        assert!(poll!(&mut read).is_pending(), "it has taken five and wants three more");
        soon("detach", stream.detach()).await.unwrap();
    }
    peer.write_all(b"678").unwrap();
    soon("read_exact", stream.read_exact(&mut into)).await.unwrap();
    assert_eq!(&into, b"12345678");
}

/// The same, and the stream was taken up again before the read was dropped.
#[quoit::test]
async fn what_a_dropped_read_had_taken_goes_where_the_stream_is_now() {
    let (stream, mut peer) = with_std().await;
    let mut into = [0; 8];
    {
        let mut read = pin!(stream.read_exact(&mut into));
        assert!(poll!(&mut read).is_pending());
        peer.write_all(b"12345").unwrap();
        sleep(Duration::from_millis(5)).await;
        assert!(poll!(&mut read).is_pending(), "it has taken five and wants three more");
        soon("detach", stream.detach()).await.unwrap();
        stream.write_all(b"bound again").await.unwrap();
    }
    peer.write_all(b"678").unwrap();
    soon("read_exact", stream.read_exact(&mut into)).await.unwrap();
    assert_eq!(&into, b"12345678");
}

thread_local! {
    /// What an inline waker polls as soon as it is woken.
    static INLINE: RefCell<Option<Pin<Box<dyn Future<Output = ()>>>>> =
        const { RefCell::new(None) };
}

/// An executor that runs its one future within the wake.
struct Inline;

impl Wake for Inline {
    fn wake(self: Arc<Self>) {
        let Some(mut future) = INLINE.take() else { return };
        if future.as_mut().poll(&mut Context::from_waker(&self.clone().into())).is_pending() {
            INLINE.set(Some(future));
        }
    }
}

#[quoit::test]
async fn a_send_that_is_woken_within_another_does_not_cut_it_in_two() {
    const SIZE: usize = 8 << 20;
    let (stream, mut peer) = with_std().await;
    let stream = std::rc::Rc::new(stream);
    // Full: the next two stand in line.
    let mut first = pin!(stream.send(vec![1; SIZE]));
    assert!(poll!(&mut first).is_pending());
    let mut second = pin!(stream.send(vec![2; SIZE]));
    assert!(poll!(&mut second).is_pending());
    let third = stream.clone();
    let mut third: Pin<Box<dyn Future<Output = ()>>> = Box::pin(async move {
        third.send(vec![3; SIZE]).await.unwrap();
    });
    let inline = Waker::from(Arc::new(Inline));
    assert!(third.as_mut().poll(&mut Context::from_waker(&inline)).is_pending());
    INLINE.set(Some(third));

    let reader = std::thread::spawn(move || {
        let mut all = vec![0; 3 * SIZE];
        peer.read_exact(&mut all).unwrap();
        all
    });
    soon("the first", first).await.unwrap();
    soon("the second", second).await.unwrap();
    soon("the third", async {
        while INLINE.with_borrow(Option::is_some) {
            sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    let all = soon("the reader", quoit::task::spawn_blocking(|| reader.join())).await;
    let all = all.unwrap().unwrap();
    for (part, expected) in all.chunks(SIZE).zip(1..) {
        let strange = part.iter().position(|byte| *byte != expected);
        assert_eq!(strange, None, "in part {expected}");
    }
}

/// Panics when it is woken.
struct Bomb(AtomicUsize);

impl Wake for Bomb {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
        panic!("a waker that panics, as this test wants it");
    }
}

#[quoit::test]
async fn a_waker_that_panics_costs_nobody_else_his_wake() {
    let (bad, mut bad_peer) = with_std().await;
    let (good, mut good_peer) = with_std().await;
    let bomb = Arc::new(Bomb(AtomicUsize::new(0)));
    let waker = Waker::from(bomb.clone());
    let mut read = pin!(bad.recv());
    assert!(read.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    let task = quoit::spawn(async move { good.recv().await.unwrap().len() });
    sleep(Duration::from_millis(5)).await;
    // Both in one turn, in this order.
    bad_peer.write_all(b"bad").unwrap();
    good_peer.write_all(b"good").unwrap();
    assert_eq!(soon("the other's wake", task).await.unwrap(), 4);
    assert_eq!(bomb.0.load(Ordering::Relaxed), 1);
    assert_eq!(soon("the read", read).await.unwrap(), "bad");
}

/// A writing half that is dropped elsewhere in the moment in which the reading half binds: its FIN
/// is for its own stream, whatever else the core serves.
#[test]
fn a_half_dropped_while_the_other_binds_ends_no_stranger() {
    for ring in [RingChoice::Uring, RingChoice::Readiness] {
        let Ok(runtime) = Runtime::builder().ring(ring).build() else { continue };
        let (send, receive) = std::sync::mpsc::channel::<OwnedWriteHalf>();
        let gate = Arc::new(AtomicUsize::new(0));
        let dropper = std::thread::spawn({
            let gate = gate.clone();
            move || {
                for (round, half) in receive.iter().enumerate() {
                    while gate.load(Ordering::Acquire) <= round {
                        std::hint::spin_loop();
                    }
                    for _ in 0..round % 64 {
                        std::hint::spin_loop();
                    }
                    drop(half);
                }
            }
        });
        runtime.block_on(async {
            // The first stream of the core.
            let (victim, mut peer) = with_std().await;
            assert!(poll!(pin!(victim.recv())).is_pending());
            peer.set_nonblocking(true).unwrap();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            for round in 1..=3000 {
                let mut other = std::net::TcpStream::connect(address).unwrap();
                other.set_read_timeout(Some(SOON)).unwrap();
                let (stream, _) = listener.accept().await.unwrap();
                let (reader, writer) = stream.into_split();
                send.send(writer).unwrap();
                gate.store(round, Ordering::Release);
                let mut read = pin!(reader.recv());
                assert!(poll!(&mut read).is_pending());
                let ended = soon("the FIN", async {
                    other.set_nonblocking(true).unwrap();
                    loop {
                        match other.read(&mut [0; 8]) {
                            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                                quoit::task::yield_now().await;
                            }
                            result => return result,
                        }
                    }
                });
                assert_eq!(ended.await.unwrap(), 0, "round {round}: the FIN went elsewhere");
                let stranger = peer.read(&mut [0; 8]).unwrap_err();
                assert_eq!(stranger.kind(), std::io::ErrorKind::WouldBlock, "round {round}");
            }
            drop(victim);
        });
        drop(send);
        dropper.join().unwrap();
    }
}

thread_local! {
    static LATE: RefCell<Option<Runtime>> = const { RefCell::new(None) };
    static LATER: RefCell<Vec<Box<dyn std::any::Any>>> = const { RefCell::new(Vec::new()) };
}

#[test]
fn a_runtime_may_end_with_its_thread_and_its_handles_after_it() {
    for ring in [RingChoice::Uring, RingChoice::Readiness] {
        let thread = std::thread::spawn(move || {
            // Destructors run in the order of first use reversed or not: either has to do.
            let Ok(runtime) = Runtime::builder().ring(ring).build() else { return };
            LATER.with_borrow_mut(Vec::clear);
            let (stream, lease, peer) = runtime.block_on(async {
                let (stream, mut peer) = with_std().await;
                peer.write_all(b"leased").unwrap();
                let lease = stream.recv().await.unwrap();
                (stream, lease, peer)
            });
            let stream = Box::leak(Box::new(stream));
            let mut stuck = Box::pin(stream.recv());
            runtime.block_on(async {
                assert!(poll!(&mut stuck).is_pending());
                quoit::spawn(std::future::pending::<()>());
            });
            LATER.with_borrow_mut(|later| {
                later.push(Box::new(stuck));
                later.push(Box::new(lease));
                later.push(Box::new(peer));
            });
            LATE.set(Some(runtime));
        });
        thread.join().unwrap();
    }
}

/// A forgotten future keeps what the kernel has, and the runtime ends all the same.
#[test]
fn forgotten_futures_hold_nothing_up() {
    for ring in [RingChoice::Uring, RingChoice::Readiness] {
        let Ok(runtime) = Runtime::builder().ring(ring).build() else { continue };
        let path = std::env::temp_dir().join(format!("quoit-adversary-{}", std::process::id()));
        runtime.block_on(async {
            let file = quoit::fs::File::create(&path).await.unwrap();
            let (stream, _peer) = with_std().await;
            let stream = Box::leak(Box::new(stream));
            let file = Box::leak(Box::new(file));
            let waker = Waker::noop();
            let cx = &mut Context::from_waker(waker);
            let mut write = Box::pin(file.write_at(vec![1; 1 << 20], 0));
            assert!(write.as_mut().poll(cx).is_pending());
            let mut send = Box::pin(stream.send(vec![1; 16 << 20]));
            assert!(send.as_mut().poll(cx).is_pending());
            let mut read = Box::pin(stream.recv());
            assert!(read.as_mut().poll(cx).is_pending());
            std::mem::forget((write, send, read));
        });
        let report = runtime.shutdown(Duration::from_millis(200));
        assert_eq!(report.requests_leaked, 0, "{report:?}");
        std::fs::remove_file(&path).unwrap();
    }
}

/// Two cores that share one stream, take it from each other and lose nothing on the way.
#[test]
fn a_stream_that_goes_back_and_forth_loses_no_byte() {
    const SIZE: usize = 2 << 20;
    for ring in [RingChoice::Uring, RingChoice::Readiness] {
        let Ok(runtime) = Runtime::builder().ring(ring).build() else { continue };
        let (stream, mut peer) = runtime.block_on(with_std());
        drop(runtime);
        let (stream, all) = (Arc::new(stream), Arc::new(Mutex::new(Vec::new())));
        let writer = std::thread::spawn(move || {
            let bytes: Vec<u8> = (0..SIZE).map(|at| (at % 251) as u8).collect();
            for part in bytes.chunks(4093) {
                peer.write_all(part).unwrap();
            }
            peer
        });
        let cores: Vec<_> = (0..2)
            .map(|core| {
                let (stream, all) = (stream.clone(), all.clone());
                std::thread::spawn(move || {
                    let runtime = Runtime::builder().ring(ring).build().unwrap();
                    runtime.block_on(share(core, &stream, &all));
                    runtime.block_on(stream.detach()).unwrap_or(());
                })
            })
            .collect();
        for core in cores {
            core.join().unwrap();
        }
        drop(writer.join().unwrap());
        let all = all.lock().unwrap();
        assert_eq!(all.len(), SIZE);
        let strange = all.iter().enumerate().find(|(at, byte)| **byte != (at % 251) as u8);
        assert_eq!(strange, None);
    }
}

async fn share(core: usize, stream: &TcpStream, all: &Mutex<Vec<u8>>) {
    let start = std::time::Instant::now();
    for round in 0.. {
        let have = all.lock().unwrap().len();
        if have >= 2 << 20 {
            return;
        }
        assert!(start.elapsed() < 4 * SOON, "core {core} waits in vain, {have} bytes came");
        let mut part = [0; 1000];
        let limit = Duration::from_micros(200);
        // Each tier, and what it answers when the other core has the stream: an error.
        let add = |bytes: &[u8]| all.lock().unwrap().extend_from_slice(bytes);
        match round % 3 {
            0 => {
                if let Ok(lease) = stream.recv().timeout(limit).await {
                    add(&lease);
                }
            }
            1 => {
                if let Ok(Ok(count)) = timeout(limit, stream.read(&mut part)).await {
                    add(&part[..count]);
                }
            }
            _ => {
                if let Ok(Ok(_)) = timeout(limit, stream.read_exact(&mut part)).await {
                    add(&part);
                }
            }
        }
        if round % 5 == core {
            let _ = stream.detach().await;
        }
        quoit::task::yield_now().await;
    }
}

/// The read was dropped on another thread, after its stream had moved to that thread's core.
#[test]
fn what_a_read_had_taken_follows_the_stream_to_another_core() {
    for ring in [RingChoice::Uring, RingChoice::Readiness] {
        let Ok(runtime) = Runtime::builder().ring(ring).build() else { continue };
        let (stream, mut peer) = runtime.block_on(with_std());
        let stream: &'static TcpStream = Box::leak(Box::new(stream));
        let into: &'static mut [u8] = Box::leak(Box::new([0; 8]));
        let mut read = Box::pin(stream.read_exact(into));
        runtime.block_on(async {
            assert!(poll!(&mut read).is_pending());
            peer.write_all(b"12345").unwrap();
            sleep(Duration::from_millis(5)).await;
            assert!(poll!(&mut read).is_pending(), "it has taken five and wants three more");
            stream.detach().await.unwrap();
        });
        let other = std::thread::spawn(move || {
            let runtime = Runtime::builder().ring(ring).build().unwrap();
            runtime.block_on(async {
                stream.write_all(b"bound here").await.unwrap();
                drop(read);
                peer.write_all(b"678").unwrap();
                let mut into = [0; 8];
                soon("read_exact", stream.read_exact(&mut into)).await.unwrap();
                assert_eq!(&into, b"12345678");
            });
        });
        other.join().unwrap();
    }
}
