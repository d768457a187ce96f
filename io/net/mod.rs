//! TCP: listeners, streams, and the state machines behind them. `guide.md` is the public text.

pub(crate) mod batching;
pub(crate) mod binding;
mod connect;
pub(crate) mod handle;
pub(crate) mod listener;
#[cfg(test)]
pub(crate) mod sizes;
pub(crate) mod stream;

mod futures;
mod native;
mod options;
mod split;
mod tcp_listener;
mod tcp_socket;
mod tcp_stream;
#[cfg(any(
    feature = "tokio-io",
    feature = "futures-core",
    feature = "futures-io",
    feature = "hyper"
))]
mod traits;

pub use self::futures::{Accept, Recv, SendBuffer};
pub use self::split::{OwnedReadHalf, OwnedWriteHalf, ReadHalf, ReuniteError, WriteHalf};
pub use self::tcp_listener::{Placement, TcpListener};
pub use self::tcp_socket::TcpSocket;
pub use self::tcp_stream::{DetachError, TcpStream};
#[cfg(feature = "futures-core")]
pub use self::traits::streams::{Incoming, IntoIncoming, IntoLeases, Leases};
pub use crate::io::dns::ToSocketAddrs;
pub use crate::io::timed::Timed;
