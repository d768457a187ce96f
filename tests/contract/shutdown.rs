//! A runtime that ends with everything in flight: what is committed goes out, everything comes
//! back, and nothing that outlives it is touched by the kernel or touches what is gone.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use quoit::buffer::Lease;
use quoit::net::{TcpListener, TcpStream};
use quoit::{Builder, Runtime, task, time};

use crate::common::*;
use crate::write::Counted;

const LONG: usize = 1_500_000;

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
        peer.write_all(b"abc").await.unwrap();
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
        peer.write_all(b"de").await.unwrap();
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
    quoit::spawn(task::spawn_blocking(|| thread::sleep(Duration::from_millis(50))));
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
    // A task on the way from another thread.
    let handle = quoit::Handle::current();
    drop(thread::spawn(move || handle.spawn_with(std::future::pending::<()>)).join().unwrap());
}

fn end_with_everything_in_flight(builder: Builder, explicit: bool) {
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    full.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
    full.listen(0).unwrap();
    let address = full.local_addr().unwrap().as_socket().unwrap();
    let _first = std::net::TcpStream::connect(address).unwrap();

    let alive: Arc<AtomicUsize> = Arc::default();
    let idle = open_descriptors();
    let runtime = builder.build().unwrap();
    let mut kept = Kept::default();
    runtime.block_on(async {
        launch(&alive, address, &mut kept).await;
        some_turns().await;
    });
    assert!(runtime.metrics().requests_in_flight > 5, "{:?}", runtime.metrics());
    let start = Instant::now();
    if explicit {
        let report = runtime.shutdown(Duration::from_millis(400));
        assert!(report.is_clean(), "{report:?}");
        assert!(report.tasks_dropped >= 12 && report.connections_closed >= 8, "{report:?}");
    } else {
        drop(runtime);
    }
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());

    for lease in &kept.leases {
        assert_eq!(lease, b"abc", "a lease outlives its runtime");
    }
    let error = futures::executor::block_on(kept.streams[0].send("x")).unwrap_err();
    assert!(error.error().to_string().contains("outside a quoit runtime"), "{error}");
    let other = Runtime::new().unwrap();
    let error = other.block_on(kept.streams[0].send("x")).unwrap_err();
    assert_eq!(error.error().kind(), ErrorKind::NotConnected, "{error}");
    let error = other.block_on(kept.listeners[0].accept()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotConnected, "{error}");
    drop(other);
    for peer in &mut kept.peers {
        // Each sees some end, also where a handle lives on.
        drop(futures::executor::block_on(read_to_end(peer)));
    }
    let Kept { futures, .. } = kept;
    thread::spawn(move || drop(futures)).join().unwrap();
    assert_eq!(alive.load(Ordering::SeqCst), 0, "every payload was dropped");
    drop((kept.peers, kept.streams, kept.listeners, kept.leases));
    assert_eq!(open_descriptors(), idle, "every descriptor was closed");
}

#[test]
#[ignore = "a case for a child process"]
fn child_ends_with_everything_in_flight() {
    for explicit in [true, false] {
        on_each_ring(|builder| end_with_everything_in_flight(builder, explicit));
    }
}

#[test]
fn a_runtime_ends_cleanly_with_everything_in_flight() {
    in_a_child("shutdown::child_ends_with_everything_in_flight");
}

#[test]
fn shutdown_sends_what_is_committed_then_fin() {
    on_each_ring(|builder| {
        let runtime = builder.build().unwrap();
        let reader = runtime.block_on(async {
            let (stream, mut peer) = narrow_pair().await;
            assert!(dropped_at(Moment::Waiting, stream.send(bytes_of(1, 0, LONG))).await.is_none());
            // A task has it, and is dropped with it.
            quoit::spawn(async move { stream.recv().await.map(drop) });
            aside(async move {
                pause(Duration::from_millis(50)).await;
                read_to_end(&mut peer).await
            })
        });
        let report = runtime.shutdown(Duration::from_secs(10));
        assert!(report.is_clean() && report.tasks_dropped == 1, "{report:?}");
        let (bytes, error) = reader.wait();
        assert!(error.is_none(), "{error:?}");
        assert_eq!(bytes.len(), LONG);
        check_bytes(1, 0, &bytes);
    });
}

#[test]
fn shutdown_does_not_wait_beyond_its_deadline() {
    on_each_ring(|builder| {
        let runtime = builder.build().unwrap();
        let mut peer = runtime.block_on(async {
            let (stream, peer) = narrow_pair().await;
            assert!(dropped_at(Moment::Waiting, stream.send(bytes_of(1, 0, LONG))).await.is_none());
            peer
        });
        let start = Instant::now();
        let report = runtime.shutdown(Duration::from_millis(50));
        assert!(report.is_clean(), "{report:?}");
        assert_eq!((report.connections_closed, report.requests_cancelled), (1, 1), "{report:?}");
        assert!(start.elapsed() < Duration::from_secs(4), "the linger time is 5 s");
        let (_, error) = futures::executor::block_on(read_to_end(&mut peer));
        assert!(error.is_some_and(|error| is_reset(&error)), "not an orderly end");
    });
}

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
    on_each_ring(|builder| {
        let runtime = builder.clone().build().unwrap();
        let (stream, mut peer) = runtime.block_on(async {
            let (stream, peer) = pair().await;
            assert!(dropped_at(Moment::Waiting, stream.recv()).await.is_none());
            (stream, peer)
        });
        let start = Instant::now();
        assert!(runtime.shutdown(Duration::from_secs(30)).is_clean());
        assert!(start.elapsed() < PATIENCE, "there was nothing to wait for");
        peer.set_patience(Duration::from_secs(2));
        let (_, error) = futures::executor::block_on(read_to_end(&mut peer));
        assert!(error.is_none(), "an end, not {error:?}");
        drop(stream);

        // With bytes unsent, that end is a reset.
        let runtime = builder.build().unwrap();
        let (stream, mut peer) = runtime.block_on(async {
            let (stream, peer) = narrow_pair().await;
            assert!(dropped_at(Moment::Waiting, stream.send(bytes_of(1, 0, LONG))).await.is_none());
            (stream, peer)
        });
        assert!(runtime.shutdown(Duration::from_millis(50)).is_clean());
        let (_, error) = futures::executor::block_on(read_to_end(&mut peer));
        assert!(error.is_some_and(|error| is_reset(&error)));
        drop(stream);
    });
}

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
