//! A file that several cores use, and how much the rings do for its reads.

use std::cell::Cell;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::thread;
use std::time::{Duration, Instant};

use futures::channel::oneshot;
use futures::join;
use quoit::__private::is_simulated;
use quoit::fs::File;
use quoit::{Builder, RingChoice, Runtime};

use crate::other::{Other, outside};
use crate::{Census, Scratch, contents, drop_after, poll_once};

const LENGTH: usize = 64 * 1024;
const GRACE: Duration = Duration::from_secs(5);

/// A core of each kind that there is where the body runs.
fn kinds() -> Vec<Builder> {
    if is_simulated() {
        return vec![Runtime::builder()];
    }
    rings().iter().map(|(ring, _)| Runtime::builder().ring(*ring)).collect()
}

async fn end(other: Other) {
    let report = other.end(GRACE).await;
    assert!(report.is_clean(), "{report:?}");
}

#[quoit::test(seeds = 3)]
async fn cores_share_a_file() -> io::Result<()> {
    for kind in kinds() {
        let scratch = Scratch::new();
        let path = scratch.path("file");
        let file = File::options().read(true).write(true).create(true).open(&path).await?;
        let (theirs, (done, is_done)) = (file.clone(), oneshot::channel());
        let other = Other::start(kind).await;
        let there = other.run(|| async move {
            for block in (0..64_u64).filter(|block| block % 2 == 1) {
                theirs.write_all_at(vec![block as u8; 4096], block * 4096).await?;
            }
            done.send(()).unwrap();
            theirs.close().await
        });
        let here = async {
            for block in (0..64_u64).filter(|block| block % 2 == 0) {
                file.write_all_at(vec![block as u8; 4096], block * 4096).await?;
            }
            is_done.await.unwrap();
            file.sync_all().await
        };
        let (here, there) = join!(here, there);
        here.and(there)?;
        for block in 0..64_u64 {
            let bytes = file.read_exact_at(vec![0; 4096], block * 4096).await?;
            assert!(bytes.iter().all(|byte| *byte == block as u8));
        }
        file.close().await?;
        end(other).await;
    }
    Ok(())
}

#[quoit::test(seeds = 3)]
async fn a_change_that_was_dropped_on_one_core_holds_up_the_other() -> io::Result<()> {
    for kind in kinds() {
        let (scratch, census) = (Scratch::new(), Census::default());
        let path = scratch.path("file");
        let file = File::options().read(true).write(true).create(true).open(&path).await?;
        let other = Other::start(kind).await;
        for round in 0..20 {
            // In flight here, and not even submitted: this core has no turn before it waits.
            let mut write = Box::pin(file.write_at(census.buffer(LENGTH, 1), 0));
            assert!(poll_once(write.as_mut()).await.is_pending());
            drop(write);
            let theirs = file.clone();
            let task = other.spawn(|| async move {
                theirs.write_all_at(vec![2; LENGTH], 0).await?;
                theirs.sync_data().await
            });
            if round % 2 == 0 && !is_simulated() {
                thread::sleep(Duration::from_millis(2));
                assert!(!task.is_finished(), "it did not wait");
            }
            task.await.unwrap()?;
            assert_eq!(contents(&path), [2; LENGTH], "round {round}");
            assert_eq!(census.alive(), 0);
        }
        end(other).await;
    }
    Ok(())
}

#[quoit::test(seeds = 3)]
async fn a_write_may_be_dropped_elsewhere() -> io::Result<()> {
    for kind in kinds() {
        let (scratch, census) = (Scratch::new(), Census::default());
        let path = scratch.path("file");
        let file = File::options().read(true).write(true).create(true).open(&path).await?;
        let other = Other::start(kind).await;
        for round in 0..20 {
            let theirs = file.clone();
            let buffer = census.buffer(LENGTH, 1);
            let mut write = Box::pin(async move { theirs.write_at(buffer, 0).await });
            assert!(poll_once(write.as_mut()).await.is_pending());
            if round % 2 == 0 {
                outside(|| drop(write));
            } else {
                other.run(|| async { drop(write) }).await;
            }
            file.write_all_at(vec![2; LENGTH], 0).await?;
            quoit::time::sleep(Duration::from_millis(1)).await;
            assert_eq!(contents(&path), [2; LENGTH]);
            assert_eq!(census.alive(), 0);
        }
        file.close().await?;
        end(other).await;
    }
    Ok(())
}

#[quoit::test(seeds = 3)]
async fn an_operation_stays_on_the_core_that_started_it() -> io::Result<()> {
    for kind in kinds() {
        let (scratch, census) = (Scratch::new(), Census::default());
        let file = File::open(scratch.file("file", &[5; LENGTH])).await?;
        let theirs = file.clone();
        let buffer = census.buffer(LENGTH, 0);
        let mut read = Box::pin(async move { theirs.read_at(buffer, 0).await });
        assert!(poll_once(read.as_mut()).await.is_pending());
        let other = Other::start(kind).await;
        let error = other
            .run(|| async move {
                let (error, buffer) = read.await.map(drop).unwrap_err().into_parts();
                assert!(buffer.is_none(), "it is lent on the core that started");
                error
            })
            .await;
        assert!(error.to_string().contains("belongs to core"), "{error}");
        end(other).await;
        file.close().await?;
        assert_eq!(census.alive(), 0);
    }
    Ok(())
}

#[test]
fn outside_a_runtime_the_buffer_comes_back() {
    let scratch = Scratch::new();
    let file = File::from(std::fs::File::open(scratch.file("file", b"bytes")).unwrap());
    let mut read = pin!(file.read_at(vec![1, 2, 3], 0));
    let polled = read.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    let std::task::Poll::Ready(Err(failed)) = polled else { panic!("it cannot wait here") };
    assert!(failed.error().to_string().contains("outside a quoit runtime"));
    assert_eq!(failed.into_parts().1.unwrap(), [1, 2, 3]);
}

pub(crate) fn rings() -> Vec<(RingChoice, Runtime)> {
    let choices = [RingChoice::Uring, RingChoice::Readiness];
    let built = choices.map(|ring| Some((ring, Runtime::builder().ring(ring).build().ok()?)));
    built.into_iter().flatten().collect()
}

#[quoit::test]
async fn reads_that_never_wait_let_other_tasks_run() -> io::Result<()> {
    let scratch = Scratch::new();
    let file = File::open(scratch.file("file", &[5; 4096])).await?;
    let stop = Rc::new(Cell::new(false));
    let stopper = stop.clone();
    drop(quoit::spawn(async move {
        // A timer, so that the core has to turn as well.
        quoit::time::sleep(Duration::from_millis(2)).await;
        stopper.set(true);
    }));
    let mut buffer = vec![0; 4096];
    while !stop.get() {
        buffer = file.read_exact_at(buffer, 0).await?;
    }
    Ok(())
}

#[quoit::test(seeds = 3)]
async fn shutting_down_waits_for_the_kernel() {
    for kind in kinds() {
        let (scratch, census) = (Scratch::new(), Census::default());
        let path = scratch.path("file");
        let other = Other::start(kind).await;
        let (counted, created) = (census.clone(), path.clone());
        other
            .run(|| async move {
                let file = File::create(&created).await.unwrap();
                for number in 0..8 {
                    let (file, buffer) = (file.clone(), counted.buffer(LENGTH, 7));
                    drop(quoit::spawn(async move {
                        let _ = file.write_at(buffer, number * LENGTH as u64).await;
                    }));
                }
                quoit::task::yield_now().await;
            })
            .await;
        end(other).await;
        assert_eq!(census.alive(), 0);
        assert!(contents(&path).iter().all(|byte| [0, 7].contains(byte)));
    }
}

#[test]
fn shutting_down_does_not_sleep_past_the_last_answer() {
    for (ring, runtime) in rings() {
        // In flight, and a moment later answered, while nobody looks. A pool thread may be quicker
        // than the drop, so it is tried until it is not; io_uring answers at once.
        let open = || runtime.block_on(drop_after(File::open("/proc/self/exe"), 1));
        let open = (0..1000).find_map(|_| match open() {
            None => Some(None),
            opened if ring == RingChoice::Uring => Some(opened),
            _ => None,
        });
        let open = open.expect("a pool thread is not always quicker than the drop");
        thread::sleep(Duration::from_millis(20));
        let start = Instant::now();
        assert!(runtime.shutdown(Duration::from_secs(5)).is_clean());
        assert!(start.elapsed() < Duration::from_secs(2), "{ring:?}: {:?}", start.elapsed());
        assert!(open.is_none() || ring == RingChoice::Uring);
    }
}

#[test]
fn cached_reads_need_no_thread_and_few_calls() {
    for (ring, runtime) in rings() {
        let scratch = Scratch::new();
        let path = scratch.file("file", &[5; 32 * 4096]);
        let file = runtime.block_on(File::open(&path)).unwrap();
        let before = runtime.metrics();
        runtime.block_on(async {
            let readers: Vec<_> = (0..32_u64)
                .map(|reader| {
                    let file = file.clone();
                    quoit::spawn(async move {
                        let mut buffer = vec![0; 4096];
                        for _ in 0..50 {
                            buffer = file.read_exact_at(buffer, reader * 4096).await?;
                        }
                        io::Result::Ok(())
                    })
                })
                .collect();
            for reader in readers {
                reader.await.unwrap().unwrap();
            }
        });
        let after = runtime.metrics();
        let reads = 32 * 50;
        assert_eq!(after.ring.pool_jobs, before.ring.pool_jobs, "{ring:?}: a hop to a thread");
        let enters = after.ring.enters - before.ring.enters;
        assert!(enters < reads / 8, "{ring:?}: {enters} enters for {reads} reads");
        assert_eq!((after.operations_open, after.requests_in_flight), (0, 0), "{ring:?}");
    }
}
