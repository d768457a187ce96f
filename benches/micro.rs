//! What the small operations cost: tasks, wakes, timers, leases, and a round trip through the ring.
//!
//! `cargo bench --bench micro`, or with a filter: `cargo bench --bench micro -- yield`. Pin it to
//! one core (`taskset -c 1`) for steady figures; only the cross-core rows need a second.
//!
//! Everything is measured from inside a task, as programs have it. Each sample runs in one
//! `block_on`, so that entering the runtime is not part of it.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::hint::black_box;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::mpsc;
use std::task::{Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use quoit::net::{TcpListener, TcpStream};
use quoit::task::yield_now;
use quoit::{Handle, RingChoice, Runtime};
use tokio::sync::mpsc::unbounded_channel;
use tokio::sync::oneshot;

/// How long `iterations` of an operation take.
type Measured = io::Result<Duration>;

fn runtime(ring: RingChoice) -> Runtime {
    Runtime::builder().ring(ring).build().expect("this ring can be used here")
}

/// The rings that can be used here, and their names.
fn rings() -> Vec<(RingChoice, &'static str)> {
    let all = [(RingChoice::Uring, "io_uring"), (RingChoice::Readiness, "readiness")];
    let usable = |ring: &RingChoice| Runtime::builder().ring(*ring).build().is_ok();
    all.into_iter().filter(|(ring, _)| usable(ring)).collect()
}

/// Adds a row: `measure` is called in a task, with the number of iterations.
fn row<F: Future<Output = Measured> + 'static>(
    criterion: &mut Criterion,
    name: &str,
    ring: RingChoice,
    measure: impl Fn(u64) -> F + Copy + 'static,
) {
    let runtime = runtime(ring);
    criterion.bench_function(name, |bencher| {
        bencher.iter_custom(|iterations| {
            let task = async { quoit::spawn(measure(iterations)).await };
            runtime.block_on(task).expect("it does not panic").expect("no operation fails")
        });
    });
}

/// A row that has nothing to do with the ring.
fn plain_row<F: Future<Output = Measured> + 'static>(
    criterion: &mut Criterion,
    name: &str,
    measure: impl Fn(u64) -> F + Copy + 'static,
) {
    row(criterion, name, RingChoice::Auto, measure);
}

fn tasks(criterion: &mut Criterion) {
    plain_row(criterion, "spawn/join", |iterations| async move {
        let start = Instant::now();
        for value in 0..iterations {
            black_box(quoit::spawn(async move { value }).await.expect("it does not panic"));
        }
        Ok(start.elapsed())
    });
    plain_row(criterion, "spawn/detach", |iterations| async move {
        let start = Instant::now();
        for value in 0..iterations {
            drop(quoit::spawn(async move { black_box(value) }));
            yield_now().await;
        }
        Ok(start.elapsed())
    });
    plain_row(criterion, "yield/1 task", |iterations| yields(1, iterations));
    plain_row(criterion, "yield/100 tasks", |iterations| yields(100, iterations));
}

/// So many yields in all, shared by so many tasks.
async fn yields(tasks: u64, iterations: u64) -> Measured {
    let each = iterations.div_ceil(tasks);
    let start = Instant::now();
    let tasks: Vec<_> = (0..tasks)
        .map(|_| {
            quoit::spawn(async move {
                for _ in 0..each {
                    yield_now().await;
                }
            })
        })
        .collect();
    let count = each * tasks.len() as u64;
    for task in tasks {
        task.await.expect("it does not panic");
    }
    Ok(start.elapsed().mul_f64(iterations as f64 / count as f64))
}

fn wakes(criterion: &mut Criterion) {
    plain_row(criterion, "wake/round trip, same core", |iterations| async move {
        let (there, back) = (Rc::new(Baton::default()), Rc::new(Baton::default()));
        let (take, give) = (there.clone(), back.clone());
        let partner = quoit::spawn(async move {
            for _ in 0..iterations {
                take.taken().await;
                give.give();
            }
        });
        let start = Instant::now();
        for _ in 0..iterations {
            there.give();
            back.taken().await;
        }
        let elapsed = start.elapsed();
        partner.await.expect("it does not panic");
        Ok(elapsed)
    });
    for (ring, name) in rings() {
        // Both cores sleep between the two halves of a trip, which is what it mostly costs.
        let other = OtherCore::start(ring);
        let runtime = runtime(ring);
        criterion.bench_function(&format!("wake/round trip, cross core/{name}"), |bencher| {
            bencher.iter_custom(|iterations| {
                let (ping, pong) = (unbounded_channel(), unbounded_channel());
                let (mut pings, pongs) = (ping.1, pong.0);
                let partner = other.handle.spawn_with(move || async move {
                    for _ in 0..iterations {
                        pings.recv().await.expect("the other half is there");
                        pongs.send(()).expect("the other half is there");
                    }
                });
                let (pings, mut pongs) = (ping.0, pong.1);
                runtime.block_on(async {
                    let start = Instant::now();
                    for _ in 0..iterations {
                        pings.send(()).expect("the other half is there");
                        pongs.recv().await.expect("the other half is there");
                    }
                    let elapsed = start.elapsed();
                    partner.await.expect("it does not panic");
                    elapsed
                })
            });
        });
    }
}

/// One task waits, another lets it go on.
#[derive(Default)]
struct Baton(RefCell<(bool, Option<Waker>)>);

impl Baton {
    fn give(&self) {
        let waker = {
            let mut state = self.0.borrow_mut();
            state.0 = true;
            state.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    async fn taken(&self) {
        poll_fn(|cx| {
            let mut state = self.0.borrow_mut();
            if std::mem::take(&mut state.0) {
                return Poll::Ready(());
            }
            state.1 = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// A core on a thread of its own, until it is dropped.
struct OtherCore {
    handle: Handle,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl OtherCore {
    fn start(ring: RingChoice) -> Self {
        let (tell, told) = mpsc::channel();
        let (stop, stopped) = oneshot::channel();
        let thread = thread::spawn(move || {
            let runtime = runtime(ring);
            tell.send(runtime.handle()).expect("it is waited for");
            // An error says as well that it is over.
            let _ = runtime.block_on(stopped);
        });
        let handle = told.recv().expect("the core starts");
        Self { handle, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for OtherCore {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("it does not panic");
        }
    }
}

fn timers(criterion: &mut Criterion) {
    plain_row(criterion, "timer/create and drop", |iterations| async move {
        let start = Instant::now();
        for _ in 0..iterations {
            let mut sleep = pin!(quoit::time::sleep(Duration::from_secs(10)));
            poll_fn(|cx| {
                assert!(sleep.as_mut().poll(cx).is_pending(), "ten seconds have not passed");
                Poll::Ready(())
            })
            .await;
        }
        Ok(start.elapsed())
    });
    plain_row(criterion, "timer/create and drop among 10,000", |iterations| async move {
        let others: Vec<_> = (0..10_000)
            .map(|n| quoit::spawn(quoit::time::sleep(Duration::from_millis(60_000 + n))))
            .collect();
        yield_now().await;
        let start = Instant::now();
        for n in 0..iterations {
            let mut sleep = pin!(quoit::time::sleep(Duration::from_millis(60_000 + n % 10_000)));
            poll_fn(|cx| {
                assert!(sleep.as_mut().poll(cx).is_pending(), "a minute has not passed");
                Poll::Ready(())
            })
            .await;
        }
        let elapsed = start.elapsed();
        others.iter().for_each(|other| other.abort());
        Ok(elapsed)
    });
    // It should take a millisecond: what is above is what waking costs.
    plain_row(criterion, "timer/sleep of 1 ms", |iterations| async move {
        let start = Instant::now();
        for _ in 0..iterations {
            quoit::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(start.elapsed())
    });
}

fn rounds(criterion: &mut Criterion) {
    for (ring, name) in rings() {
        row(criterion, &format!("ring/no-op/{name}"), ring, |iterations| async move {
            let start = Instant::now();
            for _ in 0..iterations {
                quoit::__private::nop().await?;
            }
            Ok(start.elapsed())
        });
    }
}

/// A lease is made by a receive and given back by its drop. The bytes are there already when it is
/// asked for: what is measured is the runtime's part of `recv` and the kernel's copy.
fn leases(criterion: &mut Criterion) {
    const LENGTH: u64 = 16 * 1024;
    for (ring, name) in rings() {
        let runtime = runtime(ring);
        criterion.bench_function(&format!("ring/lease of 16 KiB/{name}"), |bencher| {
            bencher.iter_custom(|iterations| {
                let task = async { quoit::spawn(receive(iterations * LENGTH)).await };
                let (elapsed, leases) =
                    runtime.block_on(task).expect("it does not panic").expect("nothing fails");
                // Streams have no borders: some leases are shorter.
                elapsed.mul_f64(iterations as f64 / leases as f64)
            });
        });
    }
}

/// Receives so many bytes from a task on the same core. Answers how long, and in how many leases.
async fn receive(bytes: u64) -> io::Result<(Duration, u64)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let sender = TcpStream::connect(listener.local_addr()?).await?;
    let (receiver, _) = listener.accept().await?;
    let sending = quoit::spawn(async move {
        let chunk = vec![0_u8; 64 * 1024];
        let mut left = bytes as usize;
        while left > 0 {
            let length = left.min(chunk.len());
            sender.write_all(&chunk[..length]).await?;
            left -= length;
        }
        io::Result::Ok(())
    });
    let start = Instant::now();
    let (mut left, mut leases) = (bytes, 0);
    while left > 0 {
        let lease = receiver.recv().await?;
        assert!(!lease.is_empty(), "the sender sends it all");
        left -= lease.len() as u64;
        leases += 1;
        drop(black_box(lease));
    }
    let elapsed = start.elapsed();
    sending.await.map_err(io::Error::other)??;
    Ok((elapsed, leases))
}

criterion_group! {
    name = micro;
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .sample_size(20)
        .without_plots();
    targets = tasks, wakes, timers, rounds, leases
}
criterion_main!(micro);
