//! The contract: what no drop, timeout, close, shutdown or shortage may lose, leak or mix up. One
//! file per promise, one body for both rings, judged by counted connections, bytes, descriptors,
//! leases, requests and payload drops.

#![allow(clippy::unwrap_used, reason = "unwrap is how a test fails")]

mod accept;
mod close;
mod common;
mod handover;
mod many;
mod observe;
mod odd;
mod off_core;
mod pool;
mod read;
mod reuse;
mod shutdown;
mod start;
mod write;
