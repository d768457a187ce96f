//! Files, on every ring: what they read and write, and what is left of an operation that is
//! dropped. What is only the machine's, such as `/proc`, is not simulated.
//!
//! ```text
//!   plain.rs     opening, reading, writing, metadata, conversions, errors
//!   dropped.rs   the contract of dropped operations, and the conservation of their buffers
//!   forgotten.rs operations that nobody asks about any more
//!   limits.rs    time limits of operations, and successes that come late
//!   direct.rs    O_DIRECT
//!   cores.rs     one file on several cores; what the rings do for it
//! ```

mod cores;
mod direct;
mod dropped;
mod forgotten;
mod limits;
#[allow(dead_code, reason = "the contract's tests need more of it")]
#[path = "../contract/other.rs"]
mod other;
mod plain;

use std::future::{Future, poll_fn};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;

use quoit::__private::with_disk;
use quoit::buffer::{AlignedBuf, IoBuf, IoBufMut};

/// A folder of its own, gone when the test is over: on a real file system, or on the disk of the
/// simulation that runs here.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        if with_disk(|disk| disk.make_directory("/scratch")).is_some() {
            return Self(PathBuf::from("/scratch"));
        }
        let name = format!("files-{}-{number}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&path).expect("the target folder can be written");
        Self(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// A file with these bytes.
    fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        if with_disk(|disk| disk.put(text(&path), bytes)).is_none() {
            std::fs::write(&path, bytes).expect("the target folder can be written");
        }
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if with_disk(|_| ()).is_none() {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }
}

/// The bytes of a file, asked of somebody else than quoit.
fn contents(path: &Path) -> Vec<u8> {
    let simulated = with_disk(|disk| disk.contents(text(path)).expect("the file is there"));
    simulated.unwrap_or_else(|| std::fs::read(path).expect("the file is there"))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("our own names are text")
}

/// Counts buffers: made ones in `Census::made`, ended ones in `Census::gone`.
#[derive(Clone, Default)]
struct Census {
    made: Arc<AtomicUsize>,
    gone: Arc<AtomicUsize>,
}

impl Census {
    fn buffer(&self, length: usize, fill: u8) -> Counted {
        self.made.fetch_add(1, Ordering::Relaxed);
        let mut memory = AlignedBuf::new(length, 4096);
        memory.fill(fill);
        Counted { memory, census: self.clone() }
    }

    /// Buffers that are somewhere.
    fn alive(&self) -> usize {
        self.made.load(Ordering::Relaxed) - self.gone.load(Ordering::Relaxed)
    }
}

/// An aligned buffer that is counted. Dropped, it is scribbled over: whoever still reads it shows.
struct Counted {
    memory: AlignedBuf,
    census: Census,
}

/// What a buffer holds after it was dropped.
const SCRIBBLE: u8 = 0xdd;

impl Drop for Counted {
    fn drop(&mut self) {
        self.memory.fill(SCRIBBLE);
        self.census.gone.fetch_add(1, Ordering::Relaxed);
    }
}

// SAFETY: handed on to a buffer that keeps the promise, and is reached through `&mut` only.
unsafe impl IoBuf for Counted {
    fn stable_ptr(&self) -> *const u8 {
        self.memory.stable_ptr()
    }

    fn bytes_init(&self) -> usize {
        self.memory.bytes_init()
    }
}

// SAFETY: as above.
unsafe impl IoBufMut for Counted {
    fn stable_mut_ptr(&mut self) -> *mut u8 {
        self.memory.stable_mut_ptr()
    }

    fn bytes_total(&self) -> usize {
        self.memory.bytes_total()
    }

    unsafe fn set_init(&mut self, n: usize) {
        // SAFETY: handed on.
        unsafe { self.memory.set_init(n) }
    }
}

/// Polls once, with the waker of the test.
async fn poll_once<F: Future + ?Sized>(mut future: Pin<&mut F>) -> Poll<F::Output> {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await
}

/// Polls a future once, lets the core turn so often, and drops it. The answer, if it came.
async fn drop_after<F: Future>(future: F, turns: usize) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    let mut polled = poll_once(future.as_mut()).await;
    for _ in 0..turns {
        if polled.is_ready() {
            break;
        }
        quoit::task::yield_now().await;
        polled = poll_once(future.as_mut()).await;
    }
    match polled {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}
