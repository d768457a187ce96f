//! The contract: what no drop, timeout, close, shutdown or shortage may lose, leak or mix up. One
//! file per promise, one body for all rings, judged by counted connections, bytes, descriptors,
//! leases, requests and payload drops.
//!
//! ```text
//!   read, write, accept, close, cancel, half   io_uring, readiness, and the simulation by seeds
//!   pool, odd, handover    the same, but for what stands below
//!   off_core, handover     other threads and cores         real rings: a simulation has one thread
//!   shutdown               a runtime that ends under its   real rings: a simulation's peers live on
//!                          peers' eyes, payloads by count  the core that ends; tests/seeded ends it
//!   pool: fairness, stalls are measured in real time       real rings
//!   odd: stopped clocks    jump while bytes are on the     real rings: simulated time is never real
//!                          way
//!   reuse, many, start,    descriptors, processes, limits  real rings: the process is their subject
//!   accept: EMFILE         and filters of the real process
//! ```

#![allow(clippy::unwrap_used, reason = "unwrap is how a test fails")]

mod accept;
mod cancel;
mod close;
mod common;
mod half;
mod handover;
mod many;
mod odd;
mod off_core;
mod peer;
mod pool;
mod read;
mod reuse;
mod shutdown;
mod start;
mod write;
