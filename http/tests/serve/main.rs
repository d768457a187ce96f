//! A real server and real clients on one core, on both rings.
//!
//! ```text
//!   tools.rs       a server to stop, a client that reads one response after the other
//!   protocols.rs   keep-alive, pipelining, streams, bodies, which protocol it is
//!   routers.rs     a router of axum as people write it; a service that is not `Send`
//!   limits.rs      heads, idleness, connections, descriptors
//!   end.rs         shutting down
//!   tls.rs         the same over TLS
//!   upgrades.rs    connections that become something else
//! ```

#![allow(clippy::unwrap_used, reason = "a failure is a panic here")]

mod end;
mod limits;
mod protocols;
mod routers;
mod tls;
mod tools;
mod upgrades;
