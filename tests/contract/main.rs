//! The contract: what no drop, timeout, close, shutdown or shortage may lose, leak or mix up. One
//! file per promise, one body for both rings, judged by counted connections, bytes, descriptors,
//! leases, requests and payload drops.

#![allow(clippy::unwrap_used, reason = "a failure is a panic here")]

mod accept;
mod close;
mod common;
mod read;
mod reuse;
mod shutdown;
mod write;
