//! Time limits of file operations: they end what can be ended, and a late success is one.

use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use quoit::__private::is_simulated;
use quoit::fs::{self, File};
use quoit::{RingChoice, Runtime};

use crate::{Scratch, contents};

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(20);

fn fifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo(1) is there").success());
}

#[quoit::test(seeds = 10)]
async fn within_the_limit_nothing_is_different() -> io::Result<()> {
    let scratch = Scratch::new();
    let path = scratch.path("file");
    let mut options = File::options();
    let file = options.read(true).write(true).create(true).open(&path).timeout(LONG).await?;
    file.allocate(0, 4096).timeout(LONG).await?;
    file.set_len(0).timeout(LONG).await?;
    assert_eq!(file.write_at("hello", 0).timeout(LONG).await?.0, 5);
    file.write_all_at(", world", 5).timeout(LONG).await?;
    file.sync_data().timeout(LONG).await?;
    file.sync_all().timeout(LONG).await?;
    assert_eq!(file.metadata().timeout(LONG).await?.len(), 12);
    let (count, buffer) = file.read_at(Vec::with_capacity(64), 7).timeout(LONG).await?;
    assert_eq!((count, &buffer[..]), (5, &b"world"[..]));
    assert_eq!(file.read_exact_at(vec![0; 5], 0).timeout(LONG).await?, b"hello");
    file.close().await?;
    assert_eq!(fs::read(&path).timeout(LONG).await?, b"hello, world");
    fs::write(&path, "new").timeout(LONG).await?;
    assert_eq!(contents(&path), b"new");
    Ok(())
}

/// One page is read and written as a whole, or not at all; by a simulated disk that is stopped,
/// bit by bit.
fn is_all(count: usize) -> bool {
    count == 4096 || is_simulated() && count > 0
}

/// Whatever comes first, the time or the end: the buffer is back, and what was said is so.
#[quoit::test(seeds = 10)]
async fn a_race_with_the_limit_has_one_outcome() -> io::Result<()> {
    let scratch = Scratch::new();
    let file =
        File::options().read(true).write(true).open(scratch.file("file", &[0; 4096])).await?;
    for round in 1..=200_u8 {
        let limit = Duration::from_micros(u64::from(round % 8) * 5);
        match file.write_at(vec![round; 4096], 0).timeout(limit).await {
            Ok((count, buffer)) => {
                assert!(is_all(count) && buffer == [round; 4096]);
                file.write_all_at(buffer, 0).await?;
            }
            Err(error) => {
                let (error, buffer) = error.into_parts();
                assert_eq!(error.kind(), ErrorKind::TimedOut);
                assert_eq!(buffer, Some(vec![round; 4096]));
                // What was stopped is over: it holds up no sync, and undoes nothing later.
                file.sync_data().await?;
                file.write_all_at(vec![round; 4096], 0).await?;
            }
        }
        let read = file.read_at(vec![0; 4096], 0).timeout(limit).await;
        let buffer = match read {
            Ok((count, mut buffer)) => {
                assert!(is_all(count));
                if count < buffer.len() {
                    let rest = file.read_exact_at(vec![0; 4096 - count], count as u64).await?;
                    buffer[count..].copy_from_slice(&rest);
                }
                buffer
            }
            Err(error) => {
                let (error, buffer) = error.into_parts();
                assert_eq!(error.kind(), ErrorKind::TimedOut);
                file.read_exact_at(buffer.expect("it comes back"), 0).await?
            }
        };
        assert!(buffer == [round; 4096], "round {round}");
    }
    for _ in 0..50 {
        for ended in [
            file.set_len(4096).timeout(Duration::ZERO).await,
            file.sync_all().timeout(Duration::ZERO).await,
            file.metadata().timeout(Duration::ZERO).await.map(drop),
        ] {
            assert!(ended.as_ref().err().is_none_or(|e| e.kind() == ErrorKind::TimedOut));
        }
    }
    file.close().await
}

/// The opening of a FIFO waits for its other end (fifo(7)).
#[test]
fn an_open_that_waits_is_stopped_where_that_can_be() {
    for ring in [RingChoice::Uring, RingChoice::Readiness] {
        let Ok(runtime) = Runtime::builder().ring(ring).build() else { continue };
        let scratch = Scratch::new();
        let path = scratch.path("fifo");
        fifo(&path);
        runtime.block_on(async {
            // With `create`, io_uring does not try it without waiting first.
            let mut options = File::options();
            let open = options.write(true).create(true).open(&path).timeout(SHORT);
            if ring == RingChoice::Uring {
                assert_eq!(open.await.unwrap_err().kind(), ErrorKind::TimedOut);
                return;
            }
            // A thread that waits in open(2) cannot be stopped: its late success is one.
            let reader = std::thread::spawn({
                let path = path.clone();
                move || {
                    std::thread::sleep(4 * SHORT);
                    std::fs::File::open(path)
                }
            });
            let file = open.await.expect("the other end came");
            drop(file);
            reader.join().unwrap().unwrap();
        });
        let nobody = std::fs::OpenOptions::new()
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path)
            .unwrap_err();
        assert_eq!(nobody.raw_os_error(), Some(libc::ENXIO), "nobody is left at the FIFO");
        assert_eq!(runtime.metrics().requests_in_flight, 0);
        assert_eq!(runtime.shutdown(Duration::from_secs(5)).requests_leaked, 0);
    }
}

/// One that never was begun ends at once, with its buffer.
#[quoit::test(seeds = 10)]
async fn parts_that_follow_the_limit_are_not_begun() -> io::Result<()> {
    let scratch = Scratch::new();
    let path = scratch.path("file");
    for _ in 0..50 {
        let written = fs::write(&path, vec![7; 1 << 16]).timeout(Duration::ZERO).await;
        if let Err(error) = written {
            assert_eq!(error.kind(), ErrorKind::TimedOut);
        }
    }
    // Whatever was stopped has let go of the file.
    fs::write(&path, "last").await?;
    assert_eq!(fs::read(&path).await?, b"last");
    Ok(())
}
