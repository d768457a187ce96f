//! The contract: what no drop, timeout, close, shutdown or shortage may lose, leak or mix up. One
//! file per promise, one body for all rings, judged by counted connections, bytes, descriptors,
//! leases, requests and payload drops.
//!
//! ```text
//!   on io_uring, readiness and, by seeds, the simulation
//!     read, write, accept, close, cancel, half, pool, odd, handover, but for what follows
//!   on the real rings only
//!     off_core, handover    other threads and cores; a simulation has one thread
//!     shutdown              its peers outlive the core, which those of a simulation live on
//!     pool                  fairness and stalls, which are measured in real time
//!     odd                   clocks that are stopped while real bytes are on the way
//!     reuse, many, start, accept without descriptors
//!                           numbers, limits and filters of the real process
//! ```

#![allow(clippy::unwrap_used, reason = "unwrap is how a test fails")]

mod accept;
mod cancel;
mod close;
mod common;
mod half;
mod handover;
mod many;
mod observe;
mod odd;
mod off_core;
mod other;
mod peer;
mod pool;
mod read;
mod reuse;
mod shutdown;
mod start;
mod write;
