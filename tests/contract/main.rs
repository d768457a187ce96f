//! The contract: what no drop, timeout, close, shutdown or shortage may lose, leak or mix up. One
//! file per promise, one body for all rings, judged by counted connections, bytes, descriptors,
//! leases, requests and payload drops.
//!
//! ```text
//!   on io_uring, readiness and, by seeds, the simulation
//!     read, write, accept, close, cancel, half, ready, observe, pool, odd, handover, off_core,
//!     shutdown, reuse, metrics, but for what follows
//!   on the real rings only, since it is about the process
//!     shutdown      the end of a thread, and of a process; a core's clock that stands while the
//!                   machine's goes on
//!     off_core      giving a descriptor away
//!     accept        the process's limit of descriptors; a simulated kernel has its own shortages
//!     many          ten thousand descriptors, and a process of clients
//!     guest         a core driven by the loop of somebody else
//!     start         filters, limits, the environment; the slack of a thread's timers
//! ```
//!
//! Another thread is another core, or no core at all: a simulation has both (`other`).

#![allow(clippy::unwrap_used, reason = "unwrap is how a test fails")]

mod accept;
mod cancel;
mod close;
mod common;
mod guest;
mod half;
mod handover;
mod many;
mod metrics;
mod observe;
mod odd;
mod off_core;
mod other;
mod peer;
mod pool;
mod read;
mod ready;
mod reuse;
mod shutdown;
mod start;
mod write;
