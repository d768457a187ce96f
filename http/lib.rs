//! HTTP servers on [quoit]: any tower service, such as an axum `Router`, over HTTP/1 and
//! HTTP/2.
//!
//! ```no_run
//! use axum::{Router, routing::get};
//! use quoit::net::TcpListener;
//!
//! #[quoit::main]
//! async fn main() -> std::io::Result<()> {
//!     let router = Router::new().route("/", get(|| async { "hello from the ring\n" }));
//!     let listener = TcpListener::bind("127.0.0.1:8080").await?;
//!     let report = quoit_http::serve(listener, router)
//!         .with_graceful_shutdown(quoit::signal::terminate())
//!         .await?;
//!     println!("{report:?}");
//!     Ok(())
//! }
//! ```
//!
//! The protocols are [hyper]'s, directly on quoit's streams and timers. This crate adds
//! what a server is besides: accepting, timeouts, a limit of connections, upgrades, and an end.
//!
//! # Several cores
//!
//! [`Shards`] are listeners on one address, one for each core. A core's connections, tasks and
//! service stay there, so what the service needs is made once per core, and need not be `Send`.
//!
//! # TLS
//!
//! With the feature `tls`, [`Serve::tls`] takes an acceptor of `quoit-tls`, and serves HTTP/2 and
//! HTTP/1 as each client agrees to.
//!
//! # What does not run here
//!
//! What needs tokio's runtime by itself: `axum::serve`, axum's `WebSocketUpgrade` (upgrade by
//! [`hyper::upgrade::on`] and [`downcast`] instead, and talk through tungstenite), the keep-alive
//! of its `Sse`, and the timeouts of `tower` and `tower-http`, which sleep on tokio's timers.
//!
//! # Reading the code
//!
//! ```text
//!   serve.rs ──► server.rs   accepts, drains           slots.rs    how many are open
//!                  │         a task per connection     roster.rs   who is there, how they end
//!                connection.rs ──► protocol.rs   hyper's HTTP/1 or HTTP/2
//!                  │                 ├─ handshake.rs before it: TLS (tls.rs), or nothing
//!                  │                 ├─ wire.rs      below it: the socket
//!                  │                 └─ service.rs   above it: the service
//!                  │                 ├─ body.rs      what it gets: when is it over?
//!                  │                 └─ frames.rs    which writes of HTTP/2 are for a request
//!                watch.rs  ◄── activity.rs   what those saw: is it idle, is it too slow?
//! ```

mod activity;
mod body;
mod connection;
mod frames;
mod handshake;
mod options;
mod protocol;
mod report;
mod roster;
mod serve;
mod server;
mod service;
mod shards;
mod slots;
#[cfg(feature = "tls")]
mod tls;
mod upgrade;
mod watch;
mod wire;

pub use body::RequestBody;
pub use handshake::{After, Agreed, Handshake, Plain};
pub use report::{BoxError, Report, Trouble};
pub use serve::{Serve, serve, serve_with};
pub use shards::Shards;
pub use slots::Slot;
pub use upgrade::{Parts, downcast, downcast_to};
