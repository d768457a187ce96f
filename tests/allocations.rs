//! Steady state allocates nothing: an allocator that counts stands under an echo server, on both
//! rings. In a program of its own, with nothing beside it.

#![allow(clippy::unwrap_used, reason = "unwrap is how a test fails")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io::{Read, Write};
use std::net::TcpStream as Peer;
use std::thread;

use quoit::net::{TcpListener, TcpStream};
use quoit::{RingChoice, Runtime};

thread_local! {
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: hands everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: handed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        COUNT.set(COUNT.get() + 1);
        // SAFETY: handed on.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: handed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MESSAGES: usize = 200;
const WARM_UP: usize = 100;

/// How a server gives back what it got.
#[derive(Clone, Copy, Debug)]
enum Echo {
    /// The lease as it is.
    Lease,
    /// Through a slice.
    Slice,
    /// An owned buffer, over and over.
    Owned,
}

async fn echo(how: Echo, stream: TcpStream) -> std::io::Result<()> {
    let mut slice = [0; 2048];
    let mut buffer = Vec::with_capacity(2048);
    loop {
        match how {
            Echo::Lease => {
                let lease = stream.recv().await?;
                if lease.is_empty() {
                    return Ok(());
                }
                stream.send(lease).await?;
            }
            Echo::Slice => match stream.read(&mut slice).await? {
                0 => return Ok(()),
                count => stream.write_all(&slice[..count]).await?,
            },
            Echo::Owned => {
                let (count, read) = stream.recv_into(buffer).await?;
                if count == 0 {
                    return Ok(());
                }
                buffer = stream.send(read).await?.1;
            }
        }
    }
}

/// Allocations on the server's thread while `connections` exchange messages, after a warm-up.
fn count(ring: RingChoice, (how, inline): (Echo, Option<bool>), connections: usize) -> Option<u64> {
    let builder = Runtime::builder().ring(ring);
    let builder = match inline {
        Some(inline) => builder.send_inline(inline),
        None => builder,
    };
    let runtime = builder.build().ok()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (warm, is_warm) = std::sync::mpsc::channel();
        let (go, goes) = std::sync::mpsc::channel::<()>();
        let client = thread::spawn(move || {
            let mut peers: Vec<_> =
                (0..connections).map(|_| Peer::connect(address).unwrap()).collect();
            let mut answer = [0; 512];
            for round in 0..WARM_UP + MESSAGES {
                if round == WARM_UP {
                    warm.send(()).unwrap();
                    goes.recv().unwrap();
                }
                for peer in &mut peers {
                    peer.write_all(&[round as u8; 512]).unwrap();
                }
                for peer in &mut peers {
                    peer.read_exact(&mut answer).unwrap();
                    assert_eq!(answer, [round as u8; 512]);
                }
            }
        });
        let mut tasks = Vec::new();
        for _ in 0..connections {
            let (stream, _) = listener.accept().await.unwrap();
            tasks.push(quoit::spawn(echo(how, stream)));
        }
        while is_warm.try_recv().is_err() {
            quoit::time::sleep(std::time::Duration::from_millis(1)).await;
        }
        let before = COUNT.get();
        go.send(()).unwrap();
        // The last answers are out when the client ends, and the first end comes after that.
        let first = tasks.pop().unwrap();
        let ended = first.await;
        let count = COUNT.get() - before;
        ended.unwrap().unwrap();
        for task in tasks {
            task.await.unwrap().unwrap();
        }
        client.join().unwrap();
        Some(count)
    })
}

#[test]
fn an_echoed_message_allocates_nothing() {
    assert!(std::hint::black_box(vec![0_u8; 100]).len() == 100 && COUNT.get() > 0, "it counts");
    for ring in [RingChoice::Uring, RingChoice::Readiness] {
        let ways = [
            (Echo::Lease, Some(true)),
            (Echo::Lease, Some(false)),
            (Echo::Lease, None),
            (Echo::Slice, None),
            (Echo::Owned, Some(true)),
            (Echo::Owned, Some(false)),
        ];
        for how in ways {
            for connections in [1, 50] {
                let Some(count) = count(ring, how, connections) else {
                    eprintln!("{ring:?} cannot be used, so it is NOT TESTED here");
                    continue;
                };
                // The start signal, and queues that reach their largest size late: nothing grows
                // with the number of messages. By load a stream may have to wait for the first
                // time now, for which it makes a queue.
                let queues = if how.1.is_none() { 2 * connections as u64 } else { 0 };
                assert!(
                    count <= 16 + queues,
                    "{count} allocations for {MESSAGES} messages on each of {connections} \
                     connections, {ring:?}, {how:?}"
                );
                println!("{ring:?} {how:?} {connections}: {count}");
            }
        }
    }
}

/// A keep-alive timer is put off by every request.
#[test]
fn putting_off_a_timer_of_hyper_allocates_nothing() {
    use hyper::rt::Timer;
    use quoit::rt::QuoitTimer;

    for ring in [RingChoice::Uring, RingChoice::Readiness] {
        let Ok(runtime) = Runtime::builder().ring(ring).build() else { continue };
        let allocated = runtime.block_on(async {
            let hour = std::time::Duration::from_secs(3600);
            let mut sleep = QuoitTimer.sleep(hour);
            assert!(futures::poll!(&mut sleep).is_pending());
            let mut before = 0;
            for round in 0..WARM_UP + MESSAGES {
                if round == WARM_UP {
                    before = COUNT.get();
                }
                QuoitTimer.reset(&mut sleep, QuoitTimer.now() + hour);
                assert!(futures::poll!(&mut sleep).is_pending());
            }
            COUNT.get() - before
        });
        assert_eq!(allocated, 0, "{ring:?}");
    }
}
