//! A runtime that ends with everything in flight: what is committed goes out, everything comes
//! back, and nothing that outlives it is touched by the kernel or touches what is gone.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use quoit::__private::{books_here, is_simulated};
use quoit::buffer::Lease;
use quoit::net::{TcpListener, TcpStream};
use quoit::time::Instant;
use quoit::{RingChoice, Runtime, task, time};

use crate::common::*;
use crate::write::Counted;

const LONG: usize = 1_500_000;
const SEEDS: u64 = 8;

/// What the test keeps when the runtime goes.
#[derive(Default)]
struct Kept {
    peers: Vec<Peer>,
    streams: Vec<TcpStream>,
    listeners: Vec<TcpListener>,
    leases: Vec<Lease>,
    futures: Vec<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

/// Leaves something of every kind in flight.
async fn launch(alive: &Arc<AtomicUsize>, full: SocketAddr, kept: &mut Kept) {
    launch_reads(alive, kept).await;
    launch_sends(alive, kept).await;
    launch_listeners_and_connects(full, kept).await;
    launch_what_outlives(alive, kept).await;
}

async fn launch_reads(alive: &Arc<AtomicUsize>, kept: &mut Kept) {
    // Reads that wait: a lease, a slice, a half-done read_exact, readiness, a line of several.
    for kind in 0..5 {
        let (stream, mut peer) = pair().await;
        stream.set_linger(Duration::from_millis(200));
        peer.write_all(b"a").await.unwrap();
        kept.leases.push(stream.recv().await.unwrap());
        let payload = Counted::new(vec![0; 10], alive);
        quoit::spawn(async move {
            let _payload = payload;
            let mut into = [0; 100];
            match kind {
                0 => drop(stream.recv().await),
                1 => drop(stream.read(&mut into).await),
                2 => drop(stream.read_exact(&mut into).await),
                3 => drop(stream.readable().await),
                _ => drop(futures::join!(stream.recv(), stream.read(&mut into), stream.recv())),
            }
        });
        peer.write_all(b"bc").await.unwrap();
        kept.peers.push(peer);
    }
    // Slices from the start, so that a watch is armed.
    let (stream, peer) = pair().await;
    quoit::spawn(async move { stream.read(&mut [0; 10]).await });
    kept.peers.push(peer);
}

/// On a full socket: committed, waiting for room, with a limit; and a slice.
async fn launch_sends(alive: &Arc<AtomicUsize>, kept: &mut Kept) {
    for kind in 0..3 {
        let (stream, peer) = narrow_pair().await;
        stream.set_linger(Duration::from_millis(200));
        let buffer = Counted::new(vec![1; LONG], alive);
        if kind == 0 {
            assert!(dropped_at(Moment::Waiting, stream.send(buffer)).await.is_none());
            let payload = Counted::new(vec![2; LONG], alive);
            quoit::spawn(async move { drop(stream.send(payload).await) });
        } else if kind == 1 {
            quoit::spawn(async move { drop(stream.send(buffer).timeout(Duration::MAX).await) });
        } else {
            quoit::spawn(async move {
                let _payload = buffer;
                stream.write_all(&vec![3; LONG]).await
            });
        }
        kept.peers.push(peer);
    }
}

async fn launch_listeners_and_connects(full: SocketAddr, kept: &mut Kept) {
    // A listener that waits, one with connections that nobody took, one that is kept.
    let (listener, address) = listen().await;
    kept.peers.extend(connect_many(address, 5).await);
    let _ = dropped_at(Moment::Waiting, listener.accept()).await;
    quoit::spawn(async move {
        let _first = listener.accept().await;
        std::future::pending::<()>().await;
    });
    let (listener, _) = listen().await;
    quoit::spawn(async move { listener.accept().await.map(drop) });
    let (listener, _) = listen().await;
    let _ = dropped_at(Moment::Waiting, listener.accept()).await;
    kept.listeners.push(listener);
    // Connects that nobody answers, one of them with a limit, one dropped.
    quoit::spawn(async move { TcpStream::connect(full).await.map(drop) });
    quoit::spawn(async move {
        TcpStream::connect_timeout(&full, Duration::from_secs(3600)).await.map(drop)
    });
    let _ = dropped_at(Moment::Waiting, TcpStream::connect(full)).await;
}

async fn launch_what_outlives(alive: &Arc<AtomicUsize>, kept: &mut Kept) {
    // Timers, also in a future that outlives the runtime.
    quoit::spawn(time::sleep(Duration::MAX));
    let mut sleep = Box::pin(time::sleep(Duration::from_secs(3600)));
    let _ = Wakes::new().poll(sleep.as_mut());
    kept.futures.push(sleep);
    // Blocking work: running, and awaited.
    quoit::spawn(task::spawn_blocking(|| {
        if !is_simulated() {
            thread::sleep(Duration::from_millis(50));
        }
    }));
    // Futures and handles that outlive the runtime: waiting, committed.
    let (stream, peer) = narrow_pair().await;
    stream.set_linger(Duration::from_millis(200));
    kept.peers.push(peer);
    let stream = Arc::new(stream);
    let buffer = Counted::new(vec![4; LONG], alive);
    for part in 0..2 {
        let shared = stream.clone();
        let mut buffer = (part == 0).then(|| Counted::new(Vec::new(), alive));
        let mut future: Pin<Box<dyn Future<Output = ()> + Send>> = if part == 0 {
            Box::pin(async move {
                let _payload = buffer.take();
                drop(shared.recv().await);
            })
        } else {
            Box::pin(async move { drop(shared.read_exact(&mut [0; 9]).await) })
        };
        assert!(Wakes::new().poll(future.as_mut()).is_pending());
        kept.futures.push(future);
    }
    let mut future: Pin<Box<dyn Future<Output = ()> + Send>> =
        Box::pin(async move { drop(stream.send(buffer).await) });
    assert!(Wakes::new().poll(future.as_mut()).is_pending());
    kept.futures.push(future);
    let (stream, peer) = pair().await;
    let _ = dropped_at(Moment::Waiting, stream.recv()).await;
    kept.streams.push(stream);
    kept.peers.push(peer);
    // A task on the way from where no core is.
    let handle = quoit::Handle::current();
    drop(outside(|| handle.spawn_with(std::future::pending::<()>)));
}

/// On a core of its own, whose peers are elsewhere.
async fn end_with_everything_in_flight(core: &Core, explicit: bool) {
    let (_full, address) = Acceptor::new(0);
    let _first = connect(address).await;

    let alive: Arc<AtomicUsize> = Arc::default();
    let idle = open_descriptors();
    let other = core.other().await;
    let counted = alive.clone();
    let mut kept = other
        .run(move || async move {
            let mut kept = Kept::default();
            launch(&counted, address, &mut kept).await;
            some_turns().await;
            kept
        })
        .await;
    let metrics = other.metrics().await;
    assert!(metrics.requests_in_flight > 5, "{metrics:?}");
    let start = Instant::now();
    if explicit {
        let report = other.end(Duration::from_millis(400)).await;
        assert!(report.is_clean(), "{report:?}");
        assert!(report.tasks_dropped >= 12 && report.connections_closed >= 8, "{report:?}");
    } else {
        other.drop().await;
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());

    for lease in &kept.leases {
        assert_eq!(lease, b"a", "a lease outlives its runtime");
    }
    let sent = outside(|| futures::executor::block_on(kept.streams[0].send("x")));
    let error = sent.unwrap_err();
    assert!(error.error().to_string().contains("outside a quoit runtime"), "{error}");
    let error = kept.streams[0].send("x").await.unwrap_err();
    assert_eq!(error.error().kind(), ErrorKind::NotConnected, "{error}");
    let error = kept.listeners[0].accept().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotConnected, "{error}");
    for peer in &mut kept.peers {
        // Each sees some end, also where a handle lives on.
        drop(read_to_end(peer).await);
    }
    let Kept { futures, .. } = kept;
    outside(|| drop(futures));
    assert_eq!(alive.load(Ordering::SeqCst), 0, "every payload was dropped");
    drop((kept.peers, kept.streams, kept.listeners, kept.leases));
    assert_eq!(open_descriptors(), idle, "every descriptor was closed");
}

#[test]
#[ignore = "a case for a child process"]
fn child_ends_with_everything_in_flight() {
    for explicit in [true, false] {
        on_all_rings(
            SEEDS,
            |builder| builder,
            async |core| end_with_everything_in_flight(core, explicit).await,
        );
    }
}

#[test]
fn a_runtime_ends_cleanly_with_everything_in_flight() {
    in_a_child("shutdown::child_ends_with_everything_in_flight");
}

/// A connection of a core, with more committed than goes at once.
async fn with_bytes_unsent() -> (TcpStream, Peer) {
    let (stream, peer) = narrow_pair().await;
    assert!(dropped_at(Moment::Waiting, stream.send(bytes_of(1, 0, LONG))).await.is_none());
    (stream, peer)
}

#[test]
fn shutdown_sends_what_is_committed_then_fin() {
    on_all_rings(
        SEEDS,
        |builder| builder,
        async |core| {
            let other = core.other().await;
            let mut peer = other
                .run(|| async {
                    let (stream, peer) = with_bytes_unsent().await;
                    // A task has it, and is dropped with it.
                    quoit::spawn(async move { stream.recv().await.map(drop) });
                    peer
                })
                .await;
            let reader = aside(async move {
                pause(Duration::from_millis(50)).await;
                read_to_end(&mut peer).await
            });
            let report = other.end(Duration::from_secs(10)).await;
            assert!(report.is_clean() && report.tasks_dropped == 1, "{report:?}");
            let (bytes, error) = reader.join().await;
            assert!(error.is_none(), "{error:?}");
            assert_eq!(bytes.len(), LONG);
            check_bytes(1, 0, &bytes);
        },
    );
}

#[test]
fn shutdown_does_not_wait_beyond_its_deadline() {
    on_all_rings(
        SEEDS,
        |builder| builder,
        async |core| {
            let other = core.other().await;
            let mut peer = other.run(|| async { with_bytes_unsent().await.1 }).await;
            let start = Instant::now();
            let report = other.end(Duration::from_millis(50)).await;
            assert!(report.is_clean(), "{report:?}");
            let counted = (report.connections_closed, report.requests_cancelled);
            assert_eq!(counted, (1, 1), "{report:?}");
            assert!(start.elapsed() < Duration::from_secs(4), "the linger time is 5 s");
            let (_, error) = read_to_end(&mut peer).await;
            assert!(error.is_some_and(|error| is_reset(&error)), "not an orderly end");
        },
    );
}

/// On the real rings only: a simulated clock never runs, and so cannot stand while time passes.
#[test]
fn shutdown_counts_real_time_after_a_stopped_clock() {
    for ahead in [false, true] {
        on_each_ring(|builder| {
            let runtime = builder.build().unwrap();
            let reader = runtime.block_on(async {
                let (stream, mut peer) = narrow_pair().await;
                time::pause();
                if ahead {
                    time::advance(Duration::from_secs(86_400)).await;
                } else {
                    // The clock that stands falls behind by more than the deadline.
                    thread::sleep(Duration::from_millis(400));
                }
                let send = stream.send(bytes_of(1, 0, LONG));
                assert!(dropped_at(Moment::Waiting, send).await.is_none());
                let (tell, started) = std::sync::mpsc::channel();
                task::spawn_blocking(move || {
                    tell.send(()).unwrap();
                    thread::sleep(Duration::from_millis(1_500));
                });
                started.recv().unwrap();
                aside(async move {
                    pause(Duration::from_millis(50)).await;
                    read_to_end(&mut peer).await
                })
            });
            let start = Instant::now();
            let report = runtime.shutdown(Duration::from_millis(300));
            assert!(start.elapsed() < Duration::from_millis(1_300), "{:?}", start.elapsed());
            assert_eq!(report.blocking_jobs_running, 1, "{report:?}");
            let (bytes, error) = reader.wait();
            assert!(error.is_none() && bytes.len() == LONG, "{} {error:?}", bytes.len());
        });
    }
}

#[test]
fn a_peer_sees_the_end_of_a_stream_whose_handle_outlives_the_runtime() {
    on_all_rings(
        SEEDS,
        |builder| builder,
        async |core| {
            let other = core.other().await;
            let (stream, mut peer) = other
                .run(|| async {
                    let (stream, peer) = pair().await;
                    assert!(dropped_at(Moment::Waiting, stream.recv()).await.is_none());
                    (stream, peer)
                })
                .await;
            let start = Instant::now();
            assert!(other.end(Duration::from_secs(30)).await.is_clean());
            assert!(start.elapsed() < PATIENCE, "there was nothing to wait for");
            peer.set_patience(Duration::from_secs(2));
            let (_, error) = read_to_end(&mut peer).await;
            assert!(error.is_none(), "an end, not {error:?}");
            drop(stream);

            // With bytes unsent, that end is a reset.
            let other = core.other().await;
            let (stream, mut peer) = other.run(with_bytes_unsent).await;
            assert!(other.end(Duration::from_millis(50)).await.is_clean());
            let (_, error) = read_to_end(&mut peer).await;
            assert!(error.is_some_and(|error| is_reset(&error)));
            drop(stream);
        },
    );
}

/// On the real rings only, since it is about the end of a thread. What is near to it in a
/// simulation, a process that is killed, is in the tests of `sim`.
///
/// A thread that ends with requests in flight, and whose runtime is dropped by the thread's own
/// end, after other thread-locals may be gone: nothing hangs, and peers see an end.
#[test]
fn a_thread_that_ends_takes_its_requests_along() {
    on_each_ring(|builder| {
        let [mut reading, mut writing] = thread::scope(|scope| {
            let builder = &builder;
            let core = scope.spawn(move || {
                let runtime = builder.clone().build().unwrap();
                let peers = runtime.block_on(async {
                    let (reading, one) = pair().await;
                    assert!(dropped_at(Moment::Waiting, reading.recv()).await.is_none());
                    let (writing, two) = narrow_pair().await;
                    writing.set_linger(Duration::from_millis(50));
                    let send = writing.send(bytes_of(1, 0, LONG));
                    assert!(dropped_at(Moment::Waiting, send).await.is_none());
                    let (listener, _) = listen().await;
                    assert!(dropped_at(Moment::Waiting, listener.accept()).await.is_none());
                    quoit::spawn(async move {
                        let _kept = (reading, writing, listener);
                        std::future::pending::<()>().await;
                    });
                    some_turns().await;
                    [one, two]
                });
                assert!(runtime.metrics().requests_in_flight >= 2, "{:?}", runtime.metrics());
                thread_local! {
                    static KEPT: std::cell::RefCell<Option<Runtime>> = const {
                        std::cell::RefCell::new(None)
                    };
                }
                KEPT.set(Some(runtime));
                peers
            });
            core.join().unwrap()
        });
        let (bytes, error) = futures::executor::block_on(read_to_end(&mut reading));
        assert!(bytes.is_empty() && error.is_none(), "{bytes:?} {error:?}");
        let (bytes, error) = futures::executor::block_on(read_to_end(&mut writing));
        assert!(bytes.len() == LONG || error.is_some_and(|error| is_reset(&error)));
    });
}

/// Ends its process with everything in flight, and without a word to the runtime.
#[test]
#[ignore = "a case for a child process"]
fn child_exits_in_the_middle() {
    let peer: SocketAddr = std::env::var("PEER").unwrap().parse().unwrap();
    let builder = match std::env::var("KIND").unwrap().as_str() {
        "uring" => Runtime::builder().ring(RingChoice::Uring),
        _ => Runtime::builder().ring(RingChoice::Readiness),
    };
    builder.build().unwrap().block_on(async {
        let (_full, address) = Acceptor::new(0);
        let mut kept = Kept::default();
        launch(&Arc::default(), address, &mut kept).await;
        let stream = TcpStream::connect(peer).await.unwrap();
        assert!(dropped_at(Moment::Waiting, stream.recv()).await.is_none());
        stream.send_all("exits").await.unwrap();
        some_turns().await;
        println!("with {} requests in flight", books_here().requests_in_flight);
        std::process::exit(0);
    });
}

/// On the real rings only, as it is about a process. The kernel ends what was in flight: the
/// process is gone at once, and its peers see that.
#[test]
fn a_process_that_exits_in_the_middle_hangs_nowhere() {
    on_each_ring(|builder| {
        let kind = builder.build().unwrap().ring().kind().to_string();
        let (acceptor, address) = Acceptor::new(1);
        let environment = [("PEER", &*address.to_string()), ("KIND", &*kind)];
        let start = Instant::now();
        let (output, text) = run_child("shutdown::child_exits_in_the_middle", &environment);
        assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
        assert!(output.status.success() && text.contains("requests in flight"), "{kind}: {text}");
        let mut peer = futures::executor::block_on(acceptor.accept());
        let (bytes, _) = futures::executor::block_on(read_to_end(&mut peer));
        assert_eq!(bytes, b"exits");
    });
}
