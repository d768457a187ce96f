//! TCP: listeners, streams, and the state machines behind them.
//!
//! ```no_run
//! # async fn serve() -> std::io::Result<()> {
//! let listener = quoit::net::TcpListener::bind("127.0.0.1:7").await?;
//! loop {
//!     let (stream, _) = listener.accept().await?;
//!     quoit::spawn(async move {
//!         loop {
//!             let lease = stream.recv().await?;
//!             if lease.is_empty() {
//!                 return stream.close().await;
//!             }
//!             stream.send_all(lease).await?;
//!         }
//!     });
//! }
//! # }
//! ```
//!
//! # Three tiers
//!
//! | tier | read | write | who owns the memory |
//! |---|---|---|---|
//! | lease | [`recv`](TcpStream::recv) | [`send`](TcpStream::send) of the lease | the core's pool: no copy, no buffer to pass |
//! | owned | [`recv_into`](TcpStream::recv_into) | [`send`](TcpStream::send) | you, by value |
//! | slice | [`read`](TcpStream::read) | [`write`](TcpStream::write) | you, by reference |
//!
//! They may be mixed: bytes that one tier has received and not taken go to the next read of any.

pub(crate) mod handle;
pub(crate) mod listener;
pub(crate) mod stream;

mod futures;
mod options;
mod split;
mod tcp_listener;
mod tcp_socket;
mod tcp_stream;

pub use self::futures::{Accept, Recv, SendBuffer};
pub use self::split::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, WriteHalf};
pub use self::tcp_listener::{Placement, TcpListener};
pub use self::tcp_socket::TcpSocket;
pub use self::tcp_stream::{DetachError, TcpStream};
pub use crate::io::dns::ToSocketAddrs;
