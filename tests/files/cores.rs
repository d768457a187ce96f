//! A file that several cores use, and how much the rings do for its reads.

use std::cell::Cell;
use std::io;
use std::pin::pin;
use std::rc::Rc;
use std::sync::mpsc;
use std::task::{Context, Waker};
use std::thread;
use std::time::{Duration, Instant};

use quoit::fs::File;
use quoit::{RingChoice, Runtime};

use crate::{Census, Scratch, drop_after, poll_once};

const LENGTH: usize = 64 * 1024;

fn other_core<T: Send + 'static>(body: impl FnOnce(&Runtime) -> T + Send + 'static) -> T {
    let thread = thread::spawn(move || {
        let runtime = Runtime::new().expect("a second runtime");
        let result = body(&runtime);
        assert!(runtime.shutdown(Duration::from_secs(5)).is_clean());
        result
    });
    thread.join().expect("the other core succeeds")
}

#[quoit::test]
async fn cores_share_a_file() -> io::Result<()> {
    let scratch = Scratch::new();
    let path = scratch.path("file");
    let file = File::options().read(true).write(true).create(true).open(&path).await?;
    let (theirs, (sender, receiver)) = (file.clone(), mpsc::channel());
    let thread = thread::spawn(move || {
        quoit::block_on(async move {
            for block in (0..64_u64).filter(|block| block % 2 == 1) {
                theirs.write_all_at(vec![block as u8; 4096], block * 4096).await?;
            }
            sender.send(()).unwrap();
            theirs.close().await
        })
    });
    for block in (0..64_u64).filter(|block| block % 2 == 0) {
        file.write_all_at(vec![block as u8; 4096], block * 4096).await?;
    }
    receiver.recv().unwrap();
    file.sync_all().await?;
    thread.join().unwrap()?;
    for block in 0..64_u64 {
        let bytes = file.read_exact_at(vec![0; 4096], block * 4096).await?;
        assert!(bytes.iter().all(|byte| *byte == block as u8));
    }
    file.close().await
}

#[quoit::test]
async fn a_change_that_was_dropped_on_one_core_holds_up_the_other() -> io::Result<()> {
    let (scratch, census) = (Scratch::new(), Census::default());
    let path = scratch.path("file");
    let file = File::options().read(true).write(true).create(true).open(&path).await?;
    for round in 0..20 {
        // In flight here, and not even submitted: this core does not turn while it sleeps.
        let mut write = Box::pin(file.write_at(census.buffer(LENGTH, 1), 0));
        assert!(poll_once(write.as_mut()).await.is_pending());
        drop(write);
        let theirs = file.clone();
        let thread = thread::spawn(move || {
            quoit::block_on(async move {
                theirs.write_all_at(vec![2; LENGTH], 0).await?;
                theirs.sync_data().await
            })
        });
        if round % 2 == 0 {
            thread::sleep(Duration::from_millis(2));
            assert!(!thread.is_finished(), "it did not wait");
        }
        while !thread.is_finished() {
            quoit::time::sleep(Duration::from_micros(100)).await;
        }
        thread.join().unwrap()?;
        assert_eq!(std::fs::read(&path)?, [2; LENGTH], "round {round}");
        assert_eq!(census.alive(), 0);
    }
    Ok(())
}

#[quoit::test]
async fn a_write_may_be_dropped_on_another_core() -> io::Result<()> {
    let (scratch, census) = (Scratch::new(), Census::default());
    let path = scratch.path("file");
    let file = File::options().read(true).write(true).create(true).open(&path).await?;
    for _ in 0..20 {
        let theirs = file.clone();
        let buffer = census.buffer(LENGTH, 1);
        let mut write = Box::pin(async move { theirs.write_at(buffer, 0).await });
        assert!(poll_once(write.as_mut()).await.is_pending());
        thread::spawn(move || drop(write)).join().unwrap();
        file.write_all_at(vec![2; LENGTH], 0).await?;
        quoit::time::sleep(Duration::from_millis(1)).await;
        assert_eq!(std::fs::read(&path)?, [2; LENGTH]);
        assert_eq!(census.alive(), 0);
    }
    file.close().await
}

#[quoit::test]
async fn an_operation_stays_on_the_core_that_started_it() -> io::Result<()> {
    let (scratch, census) = (Scratch::new(), Census::default());
    let file = File::open(scratch.file("file", &[5; LENGTH])).await?;
    let theirs = file.clone();
    let buffer = census.buffer(LENGTH, 0);
    let mut read = Box::pin(async move { theirs.read_at(buffer, 0).await });
    assert!(poll_once(read.as_mut()).await.is_pending());
    let error = other_core(move |runtime| {
        let failed = runtime.block_on(read).map(drop).unwrap_err();
        let (error, buffer) = failed.into_parts();
        assert!(buffer.is_none(), "it is lent on the core that started");
        error
    });
    assert!(error.to_string().contains("belongs to core"), "{error}");
    file.close().await?;
    assert_eq!(census.alive(), 0);
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

#[test]
fn shutting_down_waits_for_the_kernel() {
    for (ring, runtime) in rings() {
        let (scratch, census) = (Scratch::new(), Census::default());
        let path = scratch.path("file");
        let file = runtime.block_on(File::create(&path)).unwrap();
        for number in 0..8 {
            let (file, buffer) = (file.clone(), census.buffer(LENGTH, 7));
            drop(runtime.spawn(async move {
                let _ = file.write_at(buffer, number * LENGTH as u64).await;
            }));
        }
        runtime.block_on(quoit::task::yield_now());
        let report = runtime.shutdown(Duration::from_secs(5));
        assert!(report.is_clean(), "{ring:?}: {report:?}");
        assert_eq!(census.alive(), 0, "{ring:?}");
        let bytes = std::fs::read(&path).unwrap();
        assert!(bytes.iter().all(|byte| [0, 7].contains(byte)), "{ring:?}");
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
