//! `TcpSocket`: quoit's; options that it has no method for are set through its descriptor.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::Duration;

use socket2::SockRef;

use super::{TcpListener, TcpStream, route};
use crate::runtime::require_io;

/// A socket that is neither connected nor listening yet.
#[derive(Debug)]
pub struct TcpSocket(quoit::net::TcpSocket);

impl TcpSocket {
    /// For IPv4.
    pub fn new_v4() -> io::Result<Self> {
        quoit::net::TcpSocket::new_v4().map(Self)
    }

    /// For IPv6.
    pub fn new_v6() -> io::Result<Self> {
        quoit::net::TcpSocket::new_v6().map(Self)
    }

    /// Gives it an address.
    pub fn bind(&self, address: SocketAddr) -> io::Result<()> {
        self.0.bind(address)
    }

    /// Listens.
    #[track_caller]
    pub fn listen(self, backlog: u32) -> io::Result<TcpListener> {
        require_io();
        self.0.listen(backlog).map(TcpListener::new)
    }

    /// Connects.
    pub async fn connect(self, address: SocketAddr) -> io::Result<TcpStream> {
        route::run(move || self.0.connect(address)).await.map(TcpStream::new)
    }

    /// Its address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// SO_REUSEADDR.
    pub fn reuseaddr(&self) -> io::Result<bool> {
        self.0.reuseaddr()
    }

    /// Sets SO_REUSEADDR.
    pub fn set_reuseaddr(&self, on: bool) -> io::Result<()> {
        self.0.set_reuseaddr(on)
    }

    /// SO_REUSEPORT.
    pub fn reuseport(&self) -> io::Result<bool> {
        self.0.reuseport()
    }

    /// Sets SO_REUSEPORT.
    pub fn set_reuseport(&self, on: bool) -> io::Result<()> {
        self.0.set_reuseport(on)
    }

    /// TCP_NODELAY.
    pub fn nodelay(&self) -> io::Result<bool> {
        self.0.nodelay()
    }

    /// Sets TCP_NODELAY.
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        self.0.set_nodelay(on)
    }

    /// SO_KEEPALIVE.
    pub fn keepalive(&self) -> io::Result<bool> {
        SockRef::from(self).keepalive()
    }

    /// Sets SO_KEEPALIVE.
    pub fn set_keepalive(&self, on: bool) -> io::Result<()> {
        self.0.set_keepalive(on)
    }

    /// SO_SNDBUF.
    pub fn send_buffer_size(&self) -> io::Result<u32> {
        self.0.send_buffer_size().map(|bytes| bytes as u32)
    }

    /// Sets SO_SNDBUF.
    pub fn set_send_buffer_size(&self, bytes: u32) -> io::Result<()> {
        self.0.set_send_buffer_size(bytes as usize)
    }

    /// SO_RCVBUF.
    pub fn recv_buffer_size(&self) -> io::Result<u32> {
        self.0.recv_buffer_size().map(|bytes| bytes as u32)
    }

    /// Sets SO_RCVBUF.
    pub fn set_recv_buffer_size(&self, bytes: u32) -> io::Result<()> {
        self.0.set_recv_buffer_size(bytes as usize)
    }

    /// SO_LINGER.
    pub fn linger(&self) -> io::Result<Option<Duration>> {
        SockRef::from(self).linger()
    }

    /// Sets SO_LINGER.
    #[deprecated = "it blocks the thread that closes the socket"]
    pub fn set_linger(&self, linger: Option<Duration>) -> io::Result<()> {
        SockRef::from(self).set_linger(linger)
    }

    /// Makes close a reset.
    pub fn set_zero_linger(&self) -> io::Result<()> {
        SockRef::from(self).set_linger(Some(Duration::ZERO))
    }

    /// IP_TOS.
    pub fn tos_v4(&self) -> io::Result<u32> {
        SockRef::from(self).tos_v4()
    }

    /// Sets IP_TOS.
    pub fn set_tos_v4(&self, tos: u32) -> io::Result<()> {
        SockRef::from(self).set_tos_v4(tos)
    }

    /// IPV6_TCLASS.
    pub fn tclass_v6(&self) -> io::Result<u32> {
        SockRef::from(self).tclass_v6()
    }

    /// Sets IPV6_TCLASS.
    pub fn set_tclass_v6(&self, tclass: u32) -> io::Result<()> {
        SockRef::from(self).set_tclass_v6(tclass)
    }
}

impl AsFd for TcpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for TcpSocket {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
