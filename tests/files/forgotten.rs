//! Operations whose future is forgotten, and those that outlive their core: nobody else waits for
//! them, and nothing that they opened stays open.

use std::future::Future;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::pin::Pin;
use std::time::{Duration, Instant};
use std::{ffi::CString, thread};

use quoit::RingChoice;
use quoit::fs::File;
use quoit::time::timeout;

use crate::cores::rings;
use crate::dropped::{open_descriptors_of, read_write};
use crate::other::outside;
use crate::{Scratch, poll_once};

const LENGTH: usize = 256 * 1024;
const SOON: Duration = Duration::from_secs(5);

type Forgotten<'a> = Pin<Box<dyn Future<Output = io::Result<()>> + 'a>>;

/// One of each kind of operation, of those that keep the file.
fn operations(file: &File) -> Vec<Forgotten<'_>> {
    let nothing = |_| Ok(());
    vec![
        Box::pin(async move {
            file.read_at(vec![0; LENGTH], 0).await.map_or_else(|e| Err(e.into()), nothing)
        }),
        Box::pin(async move {
            file.write_at(vec![7; LENGTH], 0).await.map_or_else(|e| Err(e.into()), nothing)
        }),
        Box::pin(file.sync_all()),
        Box::pin(file.set_len(10)),
        Box::pin(file.allocate(0, 10)),
        Box::pin(async move { file.metadata().await.map(drop) }),
    ]
}

#[quoit::test(seeds = 6)]
async fn a_forgotten_operation_does_not_hold_up_a_close() -> io::Result<()> {
    let scratch = Scratch::new();
    let path = scratch.path("file");
    for kind in 0..6 {
        for over in [false, true] {
            let file = read_write(&path).await?;
            let mut operation = operations(&file).swap_remove(kind);
            assert!(poll_once(operation.as_mut()).await.is_pending());
            std::mem::forget(operation);
            if over {
                quoit::time::sleep(Duration::from_millis(5)).await;
            }
            let closed = timeout(SOON, file.close()).await;
            closed.unwrap_or_else(|_| panic!("operation {kind}, over: {over}"))?;
            assert_eq!(open_descriptors_of(&path), 0, "operation {kind}");
        }
    }
    Ok(())
}

/// Dropped where no core is, after the kernel was done with it: nobody waits for it either.
#[quoit::test(seeds = 6)]
async fn a_change_that_is_over_and_dropped_elsewhere_holds_nobody_up() -> io::Result<()> {
    let scratch = Scratch::new();
    let path = scratch.path("file");
    for _ in 0..20 {
        let file = read_write(&path).await?;
        let theirs = file.clone();
        let mut write = Box::pin(async move { theirs.write_at(vec![7; LENGTH], 0).await });
        assert!(poll_once(write.as_mut()).await.is_pending());
        quoit::time::sleep(Duration::from_millis(1)).await;
        outside(|| drop(write));
        timeout(SOON, file.sync_all()).await.expect("no hang")?;
        timeout(SOON, file.close()).await.expect("no hang")?;
    }
    Ok(())
}

#[test]
fn an_open_that_ends_after_its_runtime_closes_what_it_opened() {
    for (ring, runtime) in rings() {
        if ring == RingChoice::Uring {
            // It opens a FIFO without waiting for the other end.
            continue;
        }
        let scratch = Scratch::new();
        let path = scratch.path("fifo");
        let name = CString::new(path.as_os_str().as_bytes()).unwrap();
        // SAFETY: a valid string.
        assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
        runtime.block_on(async {
            let mut open = Box::pin(File::open(&path));
            assert!(poll_once(open.as_mut()).await.is_pending());
            quoit::time::sleep(Duration::from_millis(20)).await;
            assert!(poll_once(open.as_mut()).await.is_pending(), "nobody has the other end");
        });
        let report = runtime.shutdown(Duration::from_millis(20));
        let mut options = std::fs::OpenOptions::new();
        let mut writer = options.write(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
        assert_eq!((report.requests_leaked, report.blocking_jobs_running), (1, 1), "{ring:?}");
        let start = Instant::now();
        while writer.write(b"x").is_ok() {
            assert!(start.elapsed() < SOON, "{ring:?}: it stays open");
            thread::sleep(Duration::from_millis(1));
        }
    }
}
