//! Both sides of TLS on quoit's streams, on both rings, and on the simulated one.
//!
//! ```text
//!   tools.rs       certificates, a pair of streams
//!   handshakes.rs  who is who, what is agreed on, sessions, and what fails
//!   streams.rs     bytes, ends, halves
//!   dropped.rs     futures dropped at every await; seeds of the simulation
//! ```

#![allow(clippy::unwrap_used, reason = "a failure is a panic here")]

mod dropped;
mod handshakes;
mod streams;
mod tools;
