//! TCP over quoit. What quoit does not have yet is the real tokio's, and fails for want of its
//! runtime.

mod listener;
mod route;
mod socket;
mod stream;
/// The halves of a stream.
pub mod tcp;

pub use listener::TcpListener;
pub use quoit::net::ToSocketAddrs;
pub use socket::TcpSocket;
pub use stream::TcpStream;
pub use tokio_real::net::{UdpSocket, UnixDatagram, UnixListener, UnixSocket, UnixStream, unix};

use std::io;
use std::net::SocketAddr;

/// The addresses of a host.
pub async fn lookup_host<T: ToSocketAddrs>(
    host: T,
) -> io::Result<impl Iterator<Item = SocketAddr>> {
    quoit::net::lookup_host(host).await
}
