//! What one more idle connection costs, by the sizes of what it consists of.
//!
//! ```text
//!   task cell ── owns ──► handle ──► socket ◄── entry in the table of streams
//!       ▲                                         │ a receive is armed
//!       └── list of living tasks                  ▼
//!                                         readiness only: a pending request, a source
//! ```
//!
//! A byte more in one of them is a byte for each of the connections, or sixteen where it crosses
//! the border of an allocation. What the kernel keeps of them is not in it.

use std::future::Future;
use std::io;

use crate::io::net::sizes;
use crate::io::ring::readiness;
use crate::net::TcpStream;
use crate::runtime::task;

/// What an allocation of so many bytes takes: malloc keeps a word before each, and rounds to two.
fn chunk(size: usize) -> usize {
    (size + 8).next_multiple_of(16).max(32)
}

/// The task of the benchmark: it waits in `recv`, and its future has room for a `send`.
#[expect(clippy::manual_async_fn, reason = "an `async fn` keeps what it was called with twice")]
fn echo(stream: TcpStream) -> impl Future<Output = io::Result<()>> {
    async move {
        loop {
            let lease = stream.recv().await?;
            if lease.is_empty() {
                return Ok(());
            }
            stream.send(lease).await?;
        }
    }
}

#[test]
fn an_idle_connection_with_its_task_takes_no_more_than_500_bytes() {
    let parts = [
        ("entry of the table", sizes::ENTRY, 128),
        ("socket", chunk(sizes::SOCKET), 48),
        ("handle", chunk(sizes::HANDLE), 48),
        ("task", chunk(task::cell_size(echo)), 208),
        ("its place among the living", size_of::<task::RawTask>(), 8),
    ];
    let waiting = ("readiness only", readiness::WAITING_SIZE, 44);
    for (part, size, known) in parts.into_iter().chain([waiting]) {
        assert!(size <= known, "{part}: {size} bytes, {known} were enough");
    }
    let sum: usize = parts.iter().map(|(_, size, _)| size).sum();
    assert!(sum <= 440, "{sum} bytes on io_uring");
    assert!(sum + readiness::WAITING_SIZE <= 500, "{sum} bytes and what readiness adds");
}
