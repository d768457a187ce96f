//! quoit as a guest in a program of tokio's: one core, on the same thread, turned by tokio.
//!
//! ```text
//!   tokio, current thread                            quoit's core
//!     its own tasks          turn, and again while ──► tasks, sockets, files on the ring
//!     run ◄── AsyncFd ◄──── something is ready  ◄──── as_fd: completions, wakes of any thread
//!         ◄── sleep   ◄──────────────────────── ◄──── next_deadline: timers
//! ```
//!
//! So a program can move to the ring one part at a time: what is quoit's lives in tasks of the
//! guest, and talks to the rest by channels and `JoinHandle`s, whose wakers know both ways. Inside
//! those tasks tokio's timers and sockets work too, since its context is there; outside of them,
//! quoit's sockets answer that there is no runtime.
//!
//! What it costs: two waits are nested, so a turn that has waited takes a few more system calls
//! than in `block_on`; and quoit's timers are as exact as tokio's, which count milliseconds.

use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::os::fd::AsFd;
use std::pin::pin;
use std::time::Duration;

use futures::future::{Either, select};
use quoit::Runtime;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::yield_now;
use tokio::time::sleep;

/// Runs `host`, which is tokio's, and the guest's tasks beside it, until `host` is ready.
///
/// Then the guest stands still: run it again, or end it by `Runtime::shutdown`, which blocks the
/// thread for as long as you say.
///
/// # Errors
///
/// When tokio cannot watch the guest's descriptor.
///
/// # Cancel safety
///
/// Dropped, it leaves the guest as it is; its tasks go on in the next `run`.
pub async fn run<F: Future>(guest: &Runtime, host: F) -> io::Result<F::Output> {
    match select(pin!(host), pin!(drive(guest))).await {
        Either::Left((output, _)) => Ok(output),
        Either::Right((never, _)) => never.map(|never| match never {}),
    }
}

async fn drive(guest: &Runtime) -> io::Result<Infallible> {
    let descriptor = guest.as_fd().try_clone_to_owned()?;
    // Its successor is unsafe: it wants a promise that nobody closes the descriptor, which an
    // `OwnedFd` of our own keeps.
    #[expect(deprecated, reason = "the successor is unsafe, and this is not for what we give it")]
    let descriptor = AsyncFd::with_interest(descriptor, Interest::READABLE)?;
    loop {
        while guest.turn(Some(Duration::ZERO)) {
            // The host's tasks have their turn, too.
            yield_now().await;
        }
        let deadline = guest.next_deadline();
        let time = async {
            match deadline {
                Some(left) => sleep(left).await,
                None => pending().await,
            }
        };
        if let Either::Left((ready, _)) = select(pin!(descriptor.readable()), pin!(time)).await {
            // Before the turn: what comes during the turn is readable again.
            ready?.clear_ready();
        }
    }
}
