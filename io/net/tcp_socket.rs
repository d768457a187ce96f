//! `TcpSocket`: a socket before it connects or listens, for options that must be set first.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::Duration;

use super::connect::connect;
use super::options;
use super::{TcpListener, TcpStream};
use crate::io::descriptor::Descriptor;
use crate::io::request::call;

/// A TCP socket that is neither connected nor listening yet.
///
/// # Examples
///
/// ```
/// use quoit::net::TcpSocket;
///
/// # quoit::block_on(async {
/// let socket = TcpSocket::new_v4()?;
/// socket.set_reuseaddr(true)?;
/// socket.bind("127.0.0.1:0".parse().unwrap())?;
/// let listener = socket.listen(128)?;
/// # let _ = listener;
/// # std::io::Result::Ok(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct TcpSocket {
    descriptor: Descriptor,
}

impl TcpSocket {
    /// A socket for IPv4, with `TCP_NODELAY`.
    ///
    /// # Errors
    ///
    /// As socket(2).
    pub fn new_v4() -> io::Result<Self> {
        Self::new(true)
    }

    /// A socket for IPv6, with `TCP_NODELAY`.
    ///
    /// # Errors
    ///
    /// As socket(2).
    pub fn new_v6() -> io::Result<Self> {
        Self::new(false)
    }

    fn new(v4: bool) -> io::Result<Self> {
        let descriptor = call::tcp_socket(v4)?;
        options::set_nodelay(descriptor.number(), true)?;
        Ok(Self { descriptor })
    }

    pub(super) fn for_address(address: &SocketAddr) -> io::Result<Self> {
        Self::new(address.is_ipv4())
    }

    /// Binds the socket to a local address.
    ///
    /// # Errors
    ///
    /// As bind(2).
    pub fn bind(&self, address: SocketAddr) -> io::Result<()> {
        call::bind(self.number(), &address)
    }

    /// Starts listening. `backlog` bounds the connections that the kernel queues, up to
    /// `net.core.somaxconn` (listen(2)).
    ///
    /// # Errors
    ///
    /// As listen(2).
    pub fn listen(self, backlog: u32) -> io::Result<TcpListener> {
        call::listen(self.number(), i32::try_from(backlog).unwrap_or(i32::MAX))?;
        Ok(TcpListener::from_descriptor(self.descriptor))
    }

    /// Connects to a remote address.
    ///
    /// # Errors
    ///
    /// As connect(2).
    ///
    /// # Cancel safety
    ///
    /// Dropped, the attempt ends and the socket is closed.
    pub async fn connect(self, address: SocketAddr) -> io::Result<TcpStream> {
        self.connect_within(address, None).await
    }

    pub(super) async fn connect_within(
        self,
        address: SocketAddr,
        limit: Option<Duration>,
    ) -> io::Result<TcpStream> {
        let descriptor = connect(self.descriptor, address, limit).await?;
        Ok(TcpStream::from_descriptor(descriptor))
    }

    /// Whether the address may be bound again soon (`SO_REUSEADDR`).
    ///
    /// # Errors
    ///
    /// As getsockopt(2).
    pub fn reuseaddr(&self) -> io::Result<bool> {
        options::reuse_address(self.number())
    }

    /// Sets `SO_REUSEADDR`.
    ///
    /// # Errors
    ///
    /// As setsockopt(2).
    pub fn set_reuseaddr(&self, on: bool) -> io::Result<()> {
        options::set_reuse_address(self.number(), on)
    }

    /// Whether several sockets may listen on one address (`SO_REUSEPORT`).
    ///
    /// # Errors
    ///
    /// As getsockopt(2).
    pub fn reuseport(&self) -> io::Result<bool> {
        options::reuse_port(self.number())
    }

    /// Sets `SO_REUSEPORT`.
    ///
    /// # Errors
    ///
    /// As setsockopt(2).
    pub fn set_reuseport(&self, on: bool) -> io::Result<()> {
        options::set_reuse_port(self.number(), on)
    }

    /// Whether small writes go out at once (`TCP_NODELAY`).
    ///
    /// # Errors
    ///
    /// As getsockopt(2).
    pub fn nodelay(&self) -> io::Result<bool> {
        options::nodelay(self.number())
    }

    /// Sets `TCP_NODELAY`; on unless changed. What is accepted inherits it.
    ///
    /// # Errors
    ///
    /// As setsockopt(2).
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        options::set_nodelay(self.number(), on)
    }

    /// Sets `SO_KEEPALIVE`.
    ///
    /// # Errors
    ///
    /// As setsockopt(2).
    pub fn set_keepalive(&self, on: bool) -> io::Result<()> {
        options::set_keepalive(self.number(), on)
    }

    /// The kernel's send buffer in bytes (`SO_SNDBUF`).
    ///
    /// # Errors
    ///
    /// As getsockopt(2).
    pub fn send_buffer_size(&self) -> io::Result<usize> {
        options::send_buffer_size(self.number())
    }

    /// Sets the kernel's send buffer in bytes; set before listening, connections inherit it.
    ///
    /// # Errors
    ///
    /// As setsockopt(2).
    pub fn set_send_buffer_size(&self, bytes: usize) -> io::Result<()> {
        options::set_send_buffer_size(self.number(), bytes)
    }

    /// The kernel's receive buffer in bytes (`SO_RCVBUF`).
    ///
    /// # Errors
    ///
    /// As getsockopt(2).
    pub fn recv_buffer_size(&self) -> io::Result<usize> {
        options::recv_buffer_size(self.number())
    }

    /// Sets the kernel's receive buffer in bytes; set before listening, connections inherit it.
    ///
    /// # Errors
    ///
    /// As setsockopt(2).
    pub fn set_recv_buffer_size(&self, bytes: usize) -> io::Result<()> {
        options::set_recv_buffer_size(self.number(), bytes)
    }

    /// The address it is bound to.
    ///
    /// # Errors
    ///
    /// As getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        call::local_address(self.number())
    }

    fn number(&self) -> RawFd {
        self.descriptor.number()
    }
}

impl From<TcpSocket> for OwnedFd {
    fn from(socket: TcpSocket) -> Self {
        socket.descriptor.into()
    }
}

impl AsFd for TcpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl AsRawFd for TcpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.number()
    }
}
