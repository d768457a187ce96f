//! Simulations as users write them: several hosts, the network between them, and what can happen to
//! both.

#![allow(clippy::unwrap_used, reason = "a failure is a panic here")]

mod common;
mod crash;
mod echo;
mod faults;
mod network;
mod sandbox;
mod seeds;
mod signals;
mod time;
