//! The addresses and options of a connection: plain calls, on any core.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use super::TcpStream;
use crate::io::net::options;
use crate::io::request::call;

impl TcpStream {
    /// The address of this end.
    ///
    /// # Errors
    ///
    /// As getsockname(2).
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        call::local_address(self.handle.number())
    }

    /// The address of the other end.
    ///
    /// # Errors
    ///
    /// As getpeername(2).
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        call::peer_address(self.handle.number())
    }

    /// Whether small writes go out at once (`TCP_NODELAY`, tcp(7)); on unless changed.
    ///
    /// # Errors
    ///
    /// As getsockopt(2).
    pub fn nodelay(&self) -> io::Result<bool> {
        options::nodelay(self.handle.number())
    }

    /// Sets `TCP_NODELAY`.
    ///
    /// # Errors
    ///
    /// As setsockopt(2).
    pub fn set_nodelay(&self, on: bool) -> io::Result<()> {
        options::set_nodelay(self.handle.number(), on)
    }

    /// Whether idle connections are probed (`SO_KEEPALIVE`).
    ///
    /// # Errors
    ///
    /// As getsockopt(2).
    pub fn keepalive(&self) -> io::Result<bool> {
        options::keepalive(self.handle.number())
    }

    /// Sets `SO_KEEPALIVE`.
    ///
    /// # Errors
    ///
    /// As setsockopt(2).
    pub fn set_keepalive(&self, on: bool) -> io::Result<()> {
        options::set_keepalive(self.handle.number(), on)
    }

    /// Probes idle connections: after `idle`, every `interval`, and gives up after `probes` without
    /// an answer (tcp(7)). Times are whole seconds, at least one.
    ///
    /// # Errors
    ///
    /// As setsockopt(2).
    pub fn set_keepalive_times(
        &self,
        idle: Duration,
        interval: Duration,
        probes: u32,
    ) -> io::Result<()> {
        options::set_keepalive_times(self.handle.number(), idle, interval, probes)
    }

    /// The hop limit of outgoing packets.
    ///
    /// # Errors
    ///
    /// As getsockopt(2).
    pub fn ttl(&self) -> io::Result<u32> {
        options::ttl(self.handle.number())
    }

    /// Sets the hop limit of outgoing packets.
    ///
    /// # Errors
    ///
    /// As setsockopt(2).
    pub fn set_ttl(&self, hops: u32) -> io::Result<()> {
        options::set_ttl(self.handle.number(), hops)
    }

    /// The kernel's send buffer in bytes (`SO_SNDBUF`; Linux doubles what is set, socket(7)).
    ///
    /// # Errors
    ///
    /// As getsockopt(2).
    pub fn send_buffer_size(&self) -> io::Result<usize> {
        options::send_buffer_size(self.handle.number())
    }

    /// Sets the kernel's send buffer in bytes.
    ///
    /// # Errors
    ///
    /// As setsockopt(2).
    pub fn set_send_buffer_size(&self, bytes: usize) -> io::Result<()> {
        options::set_send_buffer_size(self.handle.number(), bytes)
    }

    /// The kernel's receive buffer in bytes (`SO_RCVBUF`; Linux doubles what is set, socket(7)).
    ///
    /// # Errors
    ///
    /// As getsockopt(2).
    pub fn recv_buffer_size(&self) -> io::Result<usize> {
        options::recv_buffer_size(self.handle.number())
    }

    /// Sets the kernel's receive buffer in bytes.
    ///
    /// # Errors
    ///
    /// As setsockopt(2).
    pub fn set_recv_buffer_size(&self, bytes: usize) -> io::Result<()> {
        options::set_recv_buffer_size(self.handle.number(), bytes)
    }

    /// How long a dropped or closing stream waits for its bytes to be taken and its peer to end.
    #[must_use]
    pub fn linger(&self) -> Duration {
        self.handle.socket().linger()
    }

    /// Sets the linger time; 5 seconds unless changed, in whole milliseconds, at most 49 days.
    pub fn set_linger(&self, linger: Duration) {
        self.handle.socket().set_linger(linger);
    }

    /// Takes the socket's pending error (`SO_ERROR`).
    ///
    /// # Errors
    ///
    /// As getsockopt(2).
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        options::take_error(self.handle.number())
    }
}
